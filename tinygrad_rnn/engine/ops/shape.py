"""Shapes: the elements are kept and get other indices, and so does the gradient.

`concatenate` and `stack` take their arrays one by one; lists are for the functions of
`tinygrad_rnn.tensors`.
"""

from __future__ import annotations

from typing import Any

from ...errors import ShapeError
from ..backend import Array
from ..pending import DeferredMatmul
from ..primitive import primitive
from . import kernels
from .docstrings import view

Shape = tuple[int, ...]


@view
@primitive(view=True, x=lambda F, g, x_shape: F.reshape(g, shape=x_shape))
def reshape(xp: Any, x: Array, shape: Any) -> Array:
    """Return x in another shape, its elements in C order.

    Parameters
    ----------
    shape : int or tuple of int
        As many elements; one length may be -1. None: the shape of x.

    Returns
    -------
    Tensor
        Of `shape`, on the memory of x where that is possible.

    Raises
    ------
    ShapeError
        If the number of elements differs from that of x.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.reshape(tg.arange(6), (2, -1))
    tensor([[0, 1, 2],
            [3, 4, 5]])
    """
    if shape.__class__ is tuple and shape and min(shape) < -1:
        raise ShapeError(f"reshape: a length is not negative, or -1 for the one left over: {shape}")
    return x.reshape(x.shape if shape is None else shape)


def _transpose_vjp_x(F: Any, g: Any, axes: Shape) -> Any:
    if g.__class__ is DeferredMatmul:
        return g.transposed() if axes == (1, 0) else g
    return F.transpose(g, axes=tuple(sorted(range(len(axes)), key=axes.__getitem__)))  # inverse


@primitive(view=True, pending=True, x=_transpose_vjp_x)
def transpose(xp: Any, x: Array, axes: Shape) -> Array:
    """Return x with its axes in the order `axes`: all of them, counted from 0."""
    return x.transpose(axes)


@view
@primitive(view=True, x=lambda F, g: g)
def broadcast_to(xp: Any, x: Array, shape: Shape) -> Array:
    """Return x broadcast to a shape, without a copy.

    Parameters
    ----------
    shape : tuple of int
        One that the shape of x broadcasts to.

    Returns
    -------
    Tensor
        Of `shape`, on the memory of x.

    Notes
    -----
    The gradient is summed over the broadcast axes.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.broadcast_to(tg.tensor([1.0, 2.0]), (2, 2))
    tensor([[1., 2.],
            [1., 2.]])
    """
    return xp.broadcast_to(x, shape)


@view
@primitive(view=True, x=lambda F, g, axis: F.flip(g, axis=axis))
def flip(xp: Any, x: Array, axis: int | Shape | None = None) -> Array:
    """Return x in reverse order along axes.

    Parameters
    ----------
    axis : int, tuple of int or None
        None reverses all axes.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.flip(tg.tensor([1.0, 2.0, 3.0]))
    tensor([3., 2., 1.])
    """
    return xp.flip(x, axis)


# -- several arrays in one -------------------------------------------------------------------------


def _concatenate_vjp(F: Any, g: Any, shapes: tuple[Shape, ...], axis: int) -> list[Any]:
    grads, start = [], 0
    for shape in shapes:
        stop = start + shape[axis]
        key = (*(slice(None),) * (axis % len(shape)), slice(start, stop))
        grads.append(F.getitem(g, key=key))
        start = stop
    return grads


@primitive(joint=_concatenate_vjp)
def concatenate(xp: Any, *arrays: Array, axis: int) -> Array:
    """Return the arrays one after the other along an axis that they have."""
    if axis == 0 and kernels.are_column_major(arrays):
        return kernels.rows(kernels.stack_column_major(arrays))
    return kernels.concatenate(xp, arrays, axis)


def _stack_vjp(F: Any, g: Any, shapes: tuple[Shape, ...], axis: int) -> list[Any]:
    before = (slice(None),) * (axis % (len(shapes[0]) + 1))
    return [F.getitem(g, key=(*before, i)) for i in range(len(shapes))]


@primitive(joint=_stack_vjp)
def stack(xp: Any, *arrays: Array, axis: int) -> Array:
    """Return the arrays along a new axis, in their own memory order."""
    if axis == 0 and kernels.are_column_major(arrays):
        return kernels.stack(xp, [x.T for x in arrays], 0).swapaxes(-1, -2)
    return kernels.stack(xp, arrays, axis)


@primitive(name="stack", joint=lambda F, g, shapes: _stack_vjp(F, g, shapes, axis=0))
def stack_over_time(xp: Any, *arrays: Array) -> Array:
    """Return the arrays of T time steps, (B, F) each, as (T, B, F).

    Feature-major arrays become one matrix with a row for each feature, which a product over all
    steps reads without a copy.
    """
    return (
        kernels.stack_column_major(arrays)
        if kernels.are_column_major(arrays)
        else kernels.stack(xp, arrays, 0)
    )
