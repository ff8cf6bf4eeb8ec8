"""Sums, extremes and other reductions over axes: `axis` is None (all), an integer or a tuple, "
"negative ones allowed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..backend import Array
from ..primitive import primitive
from .elementwise import sqrt
from .index import index
from .shape import axes_of, concatenate, reshape, transpose

if TYPE_CHECKING:
    from ..tensor import Tensor

Axis = int | tuple[int, ...] | None


def _kept(F: Any, g: Any, shape: tuple[int, ...], axis: Axis, keepdims: bool) -> Any:
    """Give a reduced value its reduced axes back, with length 1."""
    if keepdims or axis is None:
        return g if keepdims else F.reshape(g, shape=(1,) * len(shape))
    axes = axes_of(axis, len(shape))
    return F.reshape(g, shape=tuple(1 if i in axes else n for i, n in enumerate(shape)))


def _count(shape: tuple[int, ...], axis: Axis) -> int:
    return math.prod(shape[i] for i in axes_of(axis, len(shape)))


@primitive(
    x=lambda F, g, x_shape, axis, keepdims: F.broadcast_to(
        _kept(F, g, x_shape, axis, keepdims), shape=x_shape
    ),
)
def sum(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return the sum over `axis`."""
    return xp.sum(x, axis=axis, keepdims=keepdims)


@primitive(
    floating=True,
    x=lambda F, g, x_shape, axis, keepdims: F.broadcast_to(
        _kept(F, g / _count(x_shape, axis), x_shape, axis, keepdims), shape=x_shape
    ),
)
def mean(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return the mean over `axis`."""
    return xp.mean(x, axis=axis, keepdims=keepdims)


def var(x: Tensor, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """Return the variance over `axis`: the sum of squared deviations over (count - ddof)."""
    deviation = x - mean(x, axis=axis, keepdims=True)
    return sum(deviation * deviation, axis=axis, keepdims=keepdims) / (
        _count(deviation.shape, axis) - ddof
    )


def std(x: Tensor, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """Return the standard deviation over `axis`, the root of `var`."""
    return sqrt(var(x, axis=axis, ddof=ddof, keepdims=keepdims))


def _to_extremes(F: Any, g: Any, x: Any, out: Any, x_shape: Any, axis: Axis, keepdims: bool) -> Any:
    hits = F.cast(x == _kept(F, out, x_shape, axis, keepdims), dtype=g.dtype)
    return _kept(F, g, x_shape, axis, keepdims) * (hits / F.sum(hits, axis=axis, keepdims=True))


@primitive(x=_to_extremes)
def max(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return the greatest value over `axis`; equal ones share its gradient evenly."""
    return xp.max(x, axis=axis, keepdims=keepdims)


@primitive(x=_to_extremes)
def min(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return the least value over `axis`; equal ones share its gradient evenly."""
    return xp.min(x, axis=axis, keepdims=keepdims)


def prod(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the product over `axis`, multiplied pairwise, so that zeros do no harm to its "
    "gradient."""
    x = reshape(x, shape=None)  # whatever can be made a tensor
    if x.dtype.kind != "f":
        x = sum(x, axis=())  # over no axis: this widens small integers, as NumPy's product does
    axes = axes_of(axis, x.ndim)
    rest = tuple(i for i in range(x.ndim) if i not in axes)
    shape = tuple(x.shape[i] for i in rest)
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    x = reshape(transpose(x, axes=(*axes, *rest)), shape=(_count(x.shape, axis), *shape))
    while x.shape[0] > 1:
        half, odd = divmod(x.shape[0], 2)
        pairs = index(x, key=slice(0, half)) * index(x, key=slice(half, 2 * half))
        x = concatenate([pairs, index(x, key=slice(2 * half, None))]) if odd else pairs
    if x.shape[0] == 0:  # the empty product
        x = sum(x, axis=0) + 1
    return reshape(x, shape=kept if keepdims else shape)


@primitive(
    floating=True,
    x=lambda F, g, x, out, x_shape, axis, keepdims: (
        _kept(F, g, x_shape, axis, keepdims) * F.exp(x - _kept(F, out, x_shape, axis, keepdims))
    ),
)
def logsumexp(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return log(sum(exp(x))) over `axis`, without overflow."""
    top = xp.max(x, axis=axis, keepdims=True)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    out = xp.log(xp.sum(xp.exp(x - top), axis=axis, keepdims=True)) + top
    return out if keepdims else xp.squeeze(out, axis=axes_of(axis, x.ndim))


def _backwards(axis: int, ndim: int) -> tuple[slice, ...]:
    return (slice(None),) * (axis % ndim) + (slice(None, None, -1),)


def _to_summands(F: Any, g: Any, x_shape: tuple[int, ...], axis: int) -> Any:
    backwards = _backwards(axis, len(x_shape))
    return F.index(F.cumsum_along(F.index(g, key=backwards), axis=axis), key=backwards)


@primitive(x=_to_summands)
def cumsum_along(xp: Any, x: Array, axis: int) -> Array:
    """Return the running sums along one axis."""
    return xp.cumsum(x, axis=axis)


def cumsum(x: Tensor, axis: int | None = None) -> Tensor:
    """Return the running sums along `axis` (None: of all elements, in C order)."""
    return (
        cumsum_along(reshape(x, shape=-1), axis=0) if axis is None else cumsum_along(x, axis=axis)
    )


@primitive(x=None)
def argmax(xp: Any, x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """Return the index of the (first) greatest value along `axis` (None: in the flat array); it "
    "has no gradient."""
    return xp.argmax(x, axis=axis, keepdims=keepdims)


@primitive(x=None)
def argmin(xp: Any, x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """Return the index of the (first) least value along `axis` (None: in the flat array); it has "
    "no gradient."""
    return xp.argmin(x, axis=axis, keepdims=keepdims)
