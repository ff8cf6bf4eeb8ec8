"""Shapes: order and number of axes, borders, concatenation.

These functions validate NumPy's arguments and call the primitives of ``engine/ops/shape.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._util.api_hints import explain_errors
from ..engine import backend, ops
from ..engine.ops.axes import axes_of, axis_of
from ..engine.ops.docstrings import view
from ..engine.tensor import Tensor
from ..errors import ArgumentError, ShapeError
from .checks import as_tensor


def axes_tuple(axes: Any) -> tuple[Any, ...]:
    """Return axes given as any sequence or array, or one axis, as a tuple."""
    if axes.__class__ in (int, tuple):  # np.ndim would make an array, slower than a transposition
        return axes if axes.__class__ is tuple else (axes,)
    return tuple(axes) if np.ndim(axes) else (axes,)


@view
@explain_errors
def transpose(x: Tensor, axes: int | Sequence[int] | None = None) -> Tensor:
    """Return x with its axes in another order.

    Parameters
    ----------
    axes : sequence of int, optional
        Every axis, once; reversed if not given. An integer for the one axis of a vector.

    Raises
    ------
    ShapeError
        If `axes` does not name every axis once.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.transpose(tg.zeros(2, 3, 4), (1, 0, 2)).shape
    (3, 2, 4)
    """
    x = as_tensor(x)
    ndim = x.ndim
    order = tuple(range(ndim))[::-1] if axes is None else axes_of(axes_tuple(axes), ndim)
    if len(order) != ndim:
        raise ShapeError(
            f"transpose: {len(order)} axes {axes_tuple(axes)} given for an array of {ndim}; name "
            "every axis, or exchange two with swapaxes(axis1, axis2)"
        )
    return ops.transpose(x, axes=order)


@view
@explain_errors
def swapaxes(x: Tensor, axis1: int, axis2: int) -> Tensor:
    """Return x with two axes exchanged.

    Parameters
    ----------
    axis1, axis2 : int
        Negative ones count from the end.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.swapaxes(tg.zeros(2, 3, 4), 0, -1).shape
    (4, 3, 2)
    """
    x = as_tensor(x)
    order = list(range(x.ndim))
    i, j = axis_of(axis1, len(order)), axis_of(axis2, len(order))
    order[i], order[j] = j, i
    return ops.transpose(x, axes=tuple(order))


@view
@explain_errors
def moveaxis(
    x: Tensor, source: int | tuple[int, ...], destination: int | tuple[int, ...]
) -> Tensor:
    """Return x with axes moved to other positions.

    Parameters
    ----------
    source, destination : int or tuple of int
        The axes, and their positions in the result; the others keep their order.

    Raises
    ------
    ShapeError
        If the numbers of axes and positions differ.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.moveaxis(tg.zeros(2, 3, 4), 0, -1).shape
    (3, 4, 2)
    """
    x = as_tensor(x)
    sources, destinations = (axes_of(axes_tuple(axes), x.ndim) for axes in (source, destination))
    if len(sources) != len(destinations):
        raise ShapeError(f"moveaxis: {len(sources)} axes to move, {len(destinations)} positions")
    order = [axis for axis in range(x.ndim) if axis not in sources]
    for position, axis in sorted(zip(destinations, sources, strict=True)):
        order.insert(position, axis)
    return ops.transpose(x, axes=tuple(order))


@view
@explain_errors
def squeeze(x: Tensor, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Return x without axes of length 1.

    Parameters
    ----------
    axis : int, tuple of int or None
        The axes to remove; None: all that have length 1.

    Raises
    ------
    ShapeError
        If an axis of `axis` is longer or shorter than 1.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.squeeze(tg.zeros(2, 1, 3), axis=1).shape
    (2, 3)
    """
    x = as_tensor(x)
    shape = x.shape
    axes = (
        tuple(i for i, n in enumerate(shape) if n == 1)
        if axis is None
        else axes_of(axes_tuple(axis), len(shape))
    )
    if any(shape[i] != 1 for i in axes):
        raise ShapeError(f"squeeze: axis {axis} of shape {shape} is not of length 1")
    return ops.reshape(x, shape=tuple(n for i, n in enumerate(shape) if i not in axes))


@view
@explain_errors
def expand_dims(x: Tensor, axis: int | tuple[int, ...]) -> Tensor:
    """Return x with new axes of length 1.

    Parameters
    ----------
    axis : int or tuple of int
        Their positions in the result.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.expand_dims(tg.zeros(2, 3), (0, -1)).shape
    (1, 2, 3, 1)
    """
    x = as_tensor(x)
    shape = list(x.shape)
    axes = axes_tuple(axis)
    for i in sorted(axes_of(axes, len(shape) + len(axes))):
        shape.insert(i, 1)
    return ops.reshape(x, shape=tuple(shape))


def _widths(pad_width: Any, ndim: int) -> list[tuple[int, int]]:
    """Return NumPy's forms of `pad_width` as one (before, after) for each axis."""
    try:
        widths = np.broadcast_to(pad_width, (ndim, 2))
    except ValueError:
        widths = np.array([-1])
    if widths.dtype.kind not in "iu" or (widths < 0).any():
        raise ShapeError(
            f"pad: pad_width {pad_width!r} for an array of {ndim} axes: integers >= 0, one "
            "(before, after) for each axis"
        )
    return [(int(before), int(after)) for before, after in widths]


_EXTENSIONS: tuple[Any, ...] = ("edge", "reflect", "symmetric", "wrap")


@view
@explain_errors
def pad(
    x: Tensor, pad_width: Any, mode: Any = "constant", constant_values: float | None = None
) -> Tensor:
    """Return x with a border.

    Parameters
    ----------
    pad_width : int, pair or sequence of pairs
        Elements (before, after) along each axis; one pair or number holds for all axes.
    mode : str
        ``"constant"``, or how the border repeats x: ``"edge"`` (its last element), ``"reflect"``
        and ``"symmetric"`` (backwards, without and with the last element), ``"wrap"`` (from the
        opposite side), as for ``numpy.pad``.
    constant_values : float, optional
        The value of the border in the mode ``"constant"``, 0 if not given; it has no gradient.

    Returns
    -------
    Tensor
        Of the shape of x, each axis longer by its two widths.

    Raises
    ------
    ShapeError
        If there is not one pair for each axis, a width is negative, or an axis without elements is
        to be repeated.
    ArgumentError
        If `mode` is unknown.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.pad(tg.tensor([1.0, 2.0]), (1, 2))
    tensor([0., 1., 2., 0., 0.])
    >>> tg.pad(tg.tensor([1.0, 2.0]), 1, mode="edge")
    tensor([1., 1., 2., 2.])
    """
    x = as_tensor(x)
    widths = _widths(pad_width, x.ndim)
    if mode in _EXTENSIONS and constant_values is None:
        for axis, (before_after, n) in enumerate(zip(widths, x.shape, strict=True)):
            if any(before_after):
                if n == 0:
                    raise ShapeError(
                        f"pad: axis {axis} of shape {x.shape} has no element to repeat ({mode!r})"
                    )
                indices = backend.to_device(np.pad(np.arange(n), before_after, mode), x.device)
                x = ops.getitem(x, key=(slice(None),) * axis + (indices,))
        return x
    if mode != "constant":
        raise ArgumentError(
            f"pad: a mode is 'constant', {', '.join(map(repr, _EXTENSIONS))}; constant_values "
            f"belongs to 'constant'; got mode={mode!r}, constant_values={constant_values!r}"
        )
    constant_values = 0 if constant_values is None else constant_values
    if not isinstance(constant_values, int | float | np.number):
        raise ArgumentError(f"pad: constant_values is one number, got {constant_values!r}")
    inside = tuple(
        slice(before, before + n) for (before, _), n in zip(widths, x.shape, strict=True)
    )
    shape = tuple(n + before + after for (before, after), n in zip(widths, x.shape, strict=True))
    padded = ops.scatter(x, keys=(inside,), shape=shape)
    if not constant_values:
        return padded
    border = backend.full(shape, constant_values, x.dtype, like=x._data)
    border[inside] = 0
    return padded + border


@explain_errors
def concatenate(arrays: Sequence[Tensor], axis: int | None = 0) -> Tensor:
    """Return tensors one after the other along an axis.

    Parameters
    ----------
    arrays : list of Tensor
        Of shapes that agree except along `axis`.
    axis : int or None
        None concatenates the flat arrays.

    Returns
    -------
    Tensor
        Its length along `axis` is the sum of theirs.

    Raises
    ------
    ArgumentError
        If `arrays` is empty or not a list.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.concatenate([tg.zeros(2), tg.ones(3)])
    tensor([0., 0., 1., 1., 1.])
    """
    arrays = _tensors("concatenate", arrays)
    if axis is None:
        return ops.concatenate(*[ops.reshape(x, shape=-1) for x in arrays], axis=0)
    return ops.concatenate(*arrays, axis=axis)


@explain_errors
def stack(arrays: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Return tensors joined along a new axis.

    Parameters
    ----------
    arrays : list of Tensor
        Of one shape.
    axis : int
        The position of the new axis in the result.

    Returns
    -------
    Tensor
        It has one more axis, of length ``len(arrays)``.

    Raises
    ------
    ArgumentError
        If `arrays` is empty or not a list.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.stack([tg.zeros(2), tg.ones(2)], axis=1)
    tensor([[0., 1.],
            [0., 1.]])
    """
    return ops.stack(*_tensors("stack", arrays), axis=axis)


def stack_nested(x: Any) -> Any:
    """Return a list that holds Tensors, at any depth, as one Tensor; any other value unchanged."""
    if isinstance(x, list | tuple):
        parts = [stack_nested(part) for part in x]
        if any(isinstance(part, Tensor) for part in parts):
            return ops.stack(*parts, axis=0)
    return x


def _tensors(name: str, arrays: Sequence[Any]) -> list[Tensor]:
    if not isinstance(arrays, tuple | list) or not arrays:
        raise ArgumentError(
            f"{name} takes a list of at least one tensor, got {type(arrays).__name__}"
            + (f" of {len(arrays)}" if getattr(arrays, "shape", hasattr(arrays, "__len__")) else "")
            + ": give a list of tensors; [*x] is one of the parts of x"
        )
    return [as_tensor(x) for x in arrays]
