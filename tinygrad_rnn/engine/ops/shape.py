"""Shapes: the elements stay what they are, and the gradient goes back to where each came from."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...errors import ArgumentError, ShapeError
from .. import backend
from ..backend import Array
from ..primitive import primitive

if TYPE_CHECKING:
    from ..tensor import Tensor


def axis_of(axis: Any, ndim: int) -> int:
    """Return one axis as a number in [0, ndim)."""
    try:
        number = operator.index(axis)
    except TypeError:
        raise ArgumentError(f"an axis is an integer, got {axis!r}") from None
    if not -ndim <= number < ndim:
        raise ShapeError(f"axis {number} is out of range for an array of {ndim} axes")
    return number % ndim


def axes_of(axis: Any, ndim: int) -> tuple[int, ...]:
    """Return `axis` (None: all, an integer, or a tuple) as numbers in [0, ndim), each once."""
    if axis is None:
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
    return x.reshape(x.shape if shape is None else shape)


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


@primitive(view=True, x=lambda F, g, axes: F.permute(g, axes=_inverse(axes)))
def permute(xp: Any, x: Array, axes: tuple[int, ...]) -> Array:
    """Return x with its axes in the order `axes`, all of them, counted from 0."""
    return x.transpose(axes)


def transpose(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Return x with its axes in another order.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    axes : sequence of int, optional
        Every axis, once; reversed if not given.

    Returns
    -------
    Tensor
        On the memory of x.

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
    ndim = _ndim(x)
    order = tuple(range(ndim))[::-1] if axes is None else axes_of(tuple(axes), ndim)
    if len(order) != ndim:
        raise ShapeError(
            f"transpose: {len(order)} axes {tuple(axes or ())} given for an array of {ndim}; name "
            "every axis, "
            "or exchange two with swapaxes(axis1, axis2)"
        )
    return permute(x, axes=order)


def swapaxes(x: Tensor, axis1: int, axis2: int) -> Tensor:
    """Return x with two axes exchanged.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    axis1, axis2 : int
        Negative ones count from the end.

    Returns
    -------
    Tensor
        On the memory of x.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.swapaxes(tg.zeros(2, 3, 4), 0, -1).shape
    (4, 3, 2)
    """
    order = list(range(_ndim(x)))
    i, j = axis_of(axis1, len(order)), axis_of(axis2, len(order))
    order[i], order[j] = j, i
    return permute(x, axes=tuple(order))


def moveaxis(
    x: Tensor, source: int | tuple[int, ...], destination: int | tuple[int, ...]
) -> Tensor:
    """Return x with axes moved to other places.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    source, destination : int or tuple of int
        The axes, and where they are in the result; the others keep their order.

    Returns
    -------
    Tensor
        On the memory of x.

    Raises
    ------
    ShapeError
        If there are not as many places as axes.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.moveaxis(tg.zeros(2, 3, 4), 0, -1).shape
    (3, 4, 2)
    """
    ndim = _ndim(x)
    sources, destinations = axes_of(source, ndim), axes_of(destination, ndim)
    if len(sources) != len(destinations):
        raise ShapeError(f"moveaxis: {len(sources)} axes to move, {len(destinations)} places")
    order = [axis for axis in range(ndim) if axis not in sources]
    for place, axis in sorted(zip(destinations, sources, strict=True)):
        order.insert(place, axis)
    return permute(x, axes=tuple(order))


def squeeze(x: Tensor, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Return x without axes of length 1.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    axis : int, tuple of int or None
        Which; None: all that have length 1.

    Returns
    -------
    Tensor
        On the memory of x.

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
    shape = _shape(x)
    axes = (
        tuple(i for i, n in enumerate(shape) if n == 1)
        if axis is None
        else axes_of(axis, len(shape))
    )
    if any(shape[i] != 1 for i in axes):
        raise ShapeError(f"squeeze: axis {axis} of shape {shape} has not length 1")
    return reshape(x, shape=tuple(n for i, n in enumerate(shape) if i not in axes))


def expand_dims(x: Tensor, axis: int | tuple[int, ...]) -> Tensor:
    """Return x with axes of length 1 put in.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    axis : int or tuple of int
        Where they are in the result.

    Returns
    -------
    Tensor
        On the memory of x.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.expand_dims(tg.zeros(2, 3), (0, -1)).shape
    (1, 2, 3, 1)
    """
    shape = list(_shape(x))
    count = len(axis) if isinstance(axis, tuple) else 1
    for i in sorted(axes_of(axis, len(shape) + count)):
        shape.insert(i, 1)
    return reshape(x, shape=tuple(shape))


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


def _inside(F: Any, g: Any, x_shape: tuple[int, ...], pad_width: Any) -> Any:
    before = (
        [pad_width] * len(x_shape)
        if isinstance(pad_width, int)
        else [width[0] for width in _widths(pad_width, len(x_shape))]
    )
    return F.index(g, key=tuple(slice(a, a + n) for a, n in zip(before, x_shape, strict=True)))


def _widths(pad_width: Any, ndim: int) -> list[tuple[int, int]]:
    """Return NumPy's forms of `pad_width` as one (before, after) for each axis."""
    if isinstance(pad_width, int):
        return [(pad_width, pad_width)] * ndim
    pairs = [(w, w) if isinstance(w, int) else tuple(w) * (2 // len(w)) for w in pad_width]
    if len(pad_width) == 2 and all(isinstance(w, int) for w in pad_width):
        pairs = [tuple(pad_width)]
    pairs = pairs * ndim if len(pairs) == 1 else pairs
    if len(pairs) != ndim or any(min(pair) < 0 for pair in pairs):
        raise ShapeError(
            f"pad: pad_width {pad_width} for an array of {ndim} axes: one (before, after) >= 0 "
            "for each axis"
        )
    return pairs


@primitive(x=_inside)
def pad(xp: Any, x: Array, pad_width: Any, constant_values: float = 0) -> Array:
    """Return x with a border around it.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    pad_width : int, pair or sequence of pairs
        Elements (before, after) along each axis; one pair or number holds for all axes.
    constant_values : float
        What the border is filled with; it has no gradient.

    Returns
    -------
    Tensor
        Of the shape of x, each axis longer by its two widths.

    Raises
    ------
    ShapeError
        If the pairs are not one for each axis, or a width is negative.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.pad(tg.tensor([1.0, 2.0]), (1, 2))
    tensor([0., 1., 2., 0., 0.])
    """
    return xp.pad(x, _widths(pad_width, x.ndim), constant_values=constant_values)


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
    return xp.concatenate(arrays, axis=axis)


def _unstack(F: Any, g: Any, shapes: tuple[tuple[int, ...], ...], axis: int) -> list[Any]:
    return [
        F.index(g, key=(slice(None),) * (axis % (len(shapes[0]) + 1)) + (i,))
        for i in range(len(shapes))
    ]


@primitive(joint=_unstack)
def pile(xp: Any, *arrays: Array, axis: int) -> Array:
    """Return the arrays beside each other along a new axis, in the memory order that they have."""
    if axis == 0 and arrays[0].ndim == 2 and all(backend.is_feature_major(x) for x in arrays):
        return xp.stack([x.T for x in arrays], axis=0).swapaxes(-1, -2)
    return xp.stack(arrays, axis=axis)


@primitive(view=True, x=lambda F, g: g)
def feature_major(xp: Any, x: Array) -> Array:
    """Return x with its last two axes laid out column by column in memory, as products like it."""
    return backend.to_feature_major(x)


def concatenate(arrays: Sequence[Tensor], axis: int | None = 0) -> Tensor:
    """Return tensors one after the other along an axis.

    Parameters
    ----------
    arrays : list of Tensor
        Of shapes that agree but for `axis`.
    axis : int or None
        None joins all of them flat.

    Returns
    -------
    Tensor
        As long along `axis` as all of them together.

    Raises
    ------
    ArgumentError
        If the list is empty, or no list.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.concatenate([tg.zeros(2), tg.ones(3)])
    tensor([0., 0., 1., 1., 1.])
    """
    arrays = _several("concatenate", arrays)
    if axis is None:
        return join(*[reshape(x, shape=-1) for x in arrays], axis=0)
    return join(*arrays, axis=axis)


def stack(arrays: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Return tensors beside each other along a new axis.

    Parameters
    ----------
    arrays : list of Tensor
        Of one shape.
    axis : int
        Where the new axis is in the result.

    Returns
    -------
    Tensor
        With one axis more, of length ``len(arrays)``.

    Raises
    ------
    ArgumentError
        If the list is empty, or no list.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.stack([tg.zeros(2), tg.ones(2)], axis=1)
    tensor([[0., 1.],
            [0., 1.]])
    """
    return pile(*_several("stack", arrays), axis=axis)


def _several(name: str, arrays: Sequence[Any]) -> Sequence[Any]:
    if len(arrays) == 0 or not isinstance(arrays, tuple | list):
        raise ArgumentError(
            f"{name} takes a list of at least one tensor, got {type(arrays).__name__} of "
            f"{len(arrays)}"
        )
    return [x if hasattr(x, "_edge") else backend.asarray(x) for x in arrays]


def _shape(x: Any) -> tuple[int, ...]:
    return x.shape if hasattr(x, "shape") else reshape(x, shape=None).shape


def _ndim(x: Any) -> int:
    return len(_shape(x))
