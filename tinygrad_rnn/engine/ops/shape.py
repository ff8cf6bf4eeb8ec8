"""Shapes: the elements stay what they are, and the gradient goes back to where each came from."""

from __future__ import annotations

import operator
from typing import Any

from ...errors import ArgumentError, ShapeError
from .. import backend
from ..backend import Array
from ..pending import DeferredMatmul
from ..primitive import primitive


def axis_of(axis: Any, ndim: int) -> int:
    """Return one axis as a number in [0, ndim)."""
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise ArgumentError(f"an axis is an integer, got {axis!r}")
    if not -ndim <= axis < ndim:
        raise ShapeError(f"axis {axis} is out of range for an array of {ndim} axes")
    return operator.index(axis) % ndim


def axes_of(axis: Any, ndim: int) -> tuple[int, ...]:
    """Return `axis` (None: all, an integer, or a tuple) as numbers in [0, ndim), each once.

    A 0-d array is reduced over the axis 0 or -1 as over none, as in NumPy's ufuncs and PyTorch.
    """
    if axis is None or (ndim == 0 and axis in (0, -1)):
        return tuple(range(ndim))
    axes = tuple(axis_of(a, ndim) for a in (axis if isinstance(axis, tuple | list) else (axis,)))
    if len(set(axes)) != len(axes):
        raise ShapeError(f"axis {axis} names an axis twice")
    return axes


@primitive(view=True, x=lambda F, g, x_shape: F.reshape(g, shape=x_shape))
def reshape(xp: Any, x: Array, shape: Any) -> Array:
    """Return x in another shape, its elements in C order.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    shape : int or tuple of int
        As many elements; one length may be -1. None: the shape of x.

    Returns
    -------
    Tensor
        Of `shape`, on the memory of x where that is possible.

    Raises
    ------
    ShapeError
        If `shape` has not as many elements as x.

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


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


def _back(F: Any, g: Any, axes: tuple[int, ...]) -> Any:
    if g.__class__ is DeferredMatmul:
        return g.transposed() if axes == (1, 0) else g
    return F.permute(g, axes=_inverse(axes))


@primitive(view=True, pending=True, x=_back)
def permute(xp: Any, x: Array, axes: tuple[int, ...]) -> Array:
    """Return x with its axes in the order `axes`, all of them, counted from 0."""
    return x.transpose(axes)


@primitive(view=True, x=lambda F, g: g)
def broadcast_to(xp: Any, x: Array, shape: tuple[int, ...]) -> Array:
    """Return x stretched to a shape, without a copy.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    shape : tuple of int
        One that the shape of x broadcasts to.

    Returns
    -------
    Tensor
        Of `shape`, on the memory of x.

    Notes
    -----
    The gradient is summed over the axes that were stretched.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.broadcast_to(tg.tensor([1.0, 2.0]), (2, 2))
    tensor([[1., 2.],
            [1., 2.]])
    """
    return xp.broadcast_to(x, shape)


@primitive(view=True, x=lambda F, g, axis: F.flip(g, axis=axis))
def flip(xp: Any, x: Array, axis: int | tuple[int, ...] | None = None) -> Array:
    """Return x in reverse order along axes.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    axis : int, tuple of int or None
        None: along all.

    Returns
    -------
    Tensor
        On the memory of x.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.flip(tg.tensor([1.0, 2.0, 3.0]))
    tensor([3., 2., 1.])
    """
    return xp.flip(x, axis)


def _cut(F: Any, g: Any, shapes: tuple[tuple[int, ...], ...], axis: int) -> list[Any]:
    pieces, start = [], 0
    for shape in shapes:
        stop = start + shape[axis]
        pieces.append(F.index(g, key=(slice(None),) * (axis % len(shape)) + (slice(start, stop),)))
        start = stop
    return pieces


@primitive(joint=_cut)
def join(xp: Any, *arrays: Array, axis: int) -> Array:
    """Return the arrays one after the other along an axis that they have."""
    if axis == 0 and backend.are_columns(arrays):
        return backend.rows(backend.beside(arrays))
    return xp.concatenate(arrays, axis=axis)


@primitive(view=True, x=lambda F, g: F.feature_major(g))
def feature_major(xp: Any, x: Array) -> Array:
    """Return x with its last two axes laid out column by column in memory, as products like it."""
    return backend.to_feature_major(x)
