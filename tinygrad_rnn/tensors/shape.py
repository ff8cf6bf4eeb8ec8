"""Shapes: other axes, borders, and tensors put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..engine import backend
from ..engine.ops import axes_of, axis_of, join, permute, pile, reshape, scatter
from ..engine.variable import Variable
from ..errors import ArgumentError, ShapeError

if TYPE_CHECKING:
    from .tensor import Tensor


def as_tensor(x: Any) -> Tensor:
    """Return x as a Tensor: itself if it is one, so that its readers share a pending gradient."""
    return x if isinstance(x, Variable) else reshape(x, shape=None)  # type: ignore[return-value]


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
    x = as_tensor(x)
    ndim = x.ndim
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
    x = as_tensor(x)
    order = list(range(x.ndim))
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
    x = as_tensor(x)
    sources, destinations = axes_of(source, x.ndim), axes_of(destination, x.ndim)
    if len(sources) != len(destinations):
        raise ShapeError(f"moveaxis: {len(sources)} axes to move, {len(destinations)} places")
    order = [axis for axis in range(x.ndim) if axis not in sources]
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
    x = as_tensor(x)
    shape = x.shape
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
    x = as_tensor(x)
    shape = list(x.shape)
    count = len(axis) if isinstance(axis, tuple) else 1
    for i in sorted(axes_of(axis, len(shape) + count)):
        shape.insert(i, 1)
    return reshape(x, shape=tuple(shape))


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


def pad(x: Tensor, pad_width: Any, constant_values: float = 0) -> Tensor:
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
    x = as_tensor(x)
    widths = _widths(pad_width, x.ndim)
    inside = tuple(
        slice(before, before + n) for (before, _), n in zip(widths, x.shape, strict=True)
    )
    shape = tuple(n + before + after for (before, after), n in zip(widths, x.shape, strict=True))
    padded = scatter(x, keys=(inside,), shape=shape)
    if not constant_values:
        return padded
    border = backend.full(shape, constant_values, x.dtype, like=x._data)
    border[inside] = 0
    return padded + border


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


def _several(name: str, arrays: Sequence[Any]) -> list[Tensor]:
    if len(arrays) == 0 or not isinstance(arrays, tuple | list):
        raise ArgumentError(
            f"{name} takes a list of at least one tensor, got {type(arrays).__name__} of "
            f"{len(arrays)}"
        )
    return [as_tensor(x) for x in arrays]
