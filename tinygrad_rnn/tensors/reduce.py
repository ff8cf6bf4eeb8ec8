"""Extremes, reductions made of others, and running sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._util.api_hints import explain_errors
from ..engine import backend
from ..engine.backend import Array
from ..engine.ops import axes_of, axis_of, index, mean, reshape, sum
from ..engine.ops.reduce import _in_single, _kept
from ..engine.primitive import primitive
from ..engine.tensor import Tensor
from .elementwise import sqrt
from .shape import as_tensor, concatenate, transpose

Axis = int | tuple[int, ...] | None


def _count(x: Tensor, axis: Axis) -> int:
    return math.prod(x.shape[i] for i in axes_of(axis, x.ndim))


@_in_single
def _to_extremes(F: Any, g: Any, x: Any, out: Any, x_shape: Any, axis: Axis, keepdims: bool) -> Any:
    hits = (x == _kept(F, out, x_shape, axis, keepdims)) >= (x == x)  # or nan, which wins
    count = F.sum(F.cast(hits, dtype=g.dtype), axis=axis, keepdims=True)
    return F.where(hits, _kept(F, g, x_shape, axis, keepdims) / count, 0.0)


@primitive(x=_to_extremes)
def max(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return the greatest value over `axis`.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    axis : int, tuple of int or None
        The axes to reduce, negative ones counted from the end; None reduces all.
    keepdims : bool
        Whether the reduced axes stay, with length 1.

    Returns
    -------
    Tensor
        Of the shape of x without (or with length 1 at) `axis`.

    Notes
    -----
    Equal greatest values share the gradient evenly.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([3.0, 1.0, 3.0], requires_grad=True)
    >>> tg.max(x).backward()
    >>> x.grad
    tensor([0.5, 0. , 0.5])
    """
    return xp.max(x, axis=axis, keepdims=keepdims)


@primitive(x=_to_extremes)
def min(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return the least value over `axis`.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    axis : int, tuple of int or None
        The axes to reduce, negative ones counted from the end; None reduces all.
    keepdims : bool
        Whether the reduced axes stay, with length 1.

    Returns
    -------
    Tensor
        Of the shape of x without (or with length 1 at) `axis`.

    Notes
    -----
    Equal least values share the gradient evenly.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([1.0, 1.0, 3.0], requires_grad=True)
    >>> tg.min(x).backward()
    >>> x.grad
    tensor([0.5, 0.5, 0. ])
    """
    return xp.min(x, axis=axis, keepdims=keepdims)


@explain_errors
def var(x: Tensor, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """Return the variance over `axis`.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    axis : int, tuple of int or None
        The axes to reduce, negative ones counted from the end; None reduces all.
    ddof : int
        Subtracted from the count; 1 for the unbiased estimate from a sample.
    keepdims : bool
        Whether the reduced axes stay, with length 1.

    Returns
    -------
    Tensor
        Of the shape of x without (or with length 1 at) `axis`.

    Notes
    -----
    The sum of the squared deviations from the mean, over count - `ddof`. The deviations are taken
    twice: the rounding error of the first mean is as large as the last digit of x, which may be
    more than their own size (Chan, Golub and LeVeque, The American Statistician 37, 1983). Of
    `ddof` elements or fewer it is infinite, or nan, as in NumPy. Half precision is computed in
    single.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.var(tg.tensor([1.0, 2.0, 3.0])), tg.var(tg.tensor([1.0, 2.0, 3.0]), ddof=1)
    (tensor(0.6666667), tensor(1.))
    """
    x = as_tensor(x)
    if x.dtype == backend.float16:
        return var(x.astype(backend.float32), axis, ddof, keepdims).astype(backend.float16)
    # The result does not depend on where the deviations are taken from, and so no gradient does.
    deviation = x - mean(x, axis=axis, keepdims=True).detach()
    deviation = deviation - mean(deviation, axis=axis, keepdims=True)
    squares = sum(deviation * deviation, axis=axis, keepdims=keepdims)
    left = _count(x, axis) - ddof
    return squares / (left if left > 0 else 0)


@explain_errors
def std(x: Tensor, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """Return the standard deviation over `axis`, the root of `var`.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    axis : int, tuple of int or None
        The axes to reduce, negative ones counted from the end; None reduces all.
    ddof : int
        Subtracted from the count, as in `var`.
    keepdims : bool
        Whether the reduced axes stay, with length 1.

    Returns
    -------
    Tensor
        Of the shape of x without (or with length 1 at) `axis`.

    Notes
    -----
    It has no gradient (nan) where the variance is 0.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.std(tg.tensor([1.0, 2.0, 3.0]), ddof=1)
    tensor(1.)
    """
    x = as_tensor(x)
    if x.dtype == backend.float16:
        return std(x.astype(backend.float32), axis, ddof, keepdims).astype(backend.float16)
    return sqrt(var(x, axis=axis, ddof=ddof, keepdims=keepdims))


@explain_errors
def prod(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the product over `axis`.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    axis : int, tuple of int or None
        The axes to reduce, negative ones counted from the end; None reduces all.
    keepdims : bool
        Whether the reduced axes stay, with length 1.

    Returns
    -------
    Tensor
        Of the shape of x without (or with length 1 at) `axis`; of nothing at all, 1.

    Notes
    -----
    The elements are multiplied pairwise, never divided out, so that zeros leave the gradient exact.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([2.0, 0.0, 3.0], requires_grad=True)
    >>> tg.prod(x).backward()
    >>> x.grad
    tensor([0., 6., 0.])
    """
    x = as_tensor(x)
    if backend.coarse(x.dtype, _count(x, axis)):
        return prod(x.astype(backend.float64), axis, keepdims).astype(x.dtype)
    if x.dtype.kind != "f":
        x = sum(x, axis=())  # over no axis: this widens small integers, as NumPy's product does
    axes = axes_of(axis, x.ndim)
    rest = tuple(i for i in range(x.ndim) if i not in axes)
    shape = tuple(x.shape[i] for i in rest)
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    x = reshape(transpose(x, axes=(*axes, *rest)), shape=(_count(x, axis), *shape))
    while x.shape[0] > 1:
        half, odd = divmod(x.shape[0], 2)
        pairs = index(x, key=slice(0, half)) * index(x, key=slice(half, 2 * half))
        x = concatenate([pairs, index(x, key=slice(2 * half, None))]) if odd else pairs
    if x.shape[0] == 0:  # the empty product
        x = sum(x, axis=0) + 1
    return reshape(x, shape=kept if keepdims else shape)


@_in_single
def _to_exponents(
    F: Any, g: Any, x: Any, out: Any, x_shape: Any, axis: Axis, keepdims: bool
) -> Any:
    g, out = (_kept(F, part, x_shape, axis, keepdims) for part in (g, out))
    most = float(np.finfo(x.dtype).max) / 2  # in place of infinities, whose difference is nan
    x, out = (F.clip(part, min=-most, max=most) for part in (x, out))
    e = F.exp(x - out)
    total = F.sum(e, axis=axis, keepdims=True)  # 1, but for the rounding of out; 0 of nothing
    return g / (total + 1 if 0 in x.shape else total) * e


@primitive(floating=True, x=_to_exponents)
@_in_single
def logsumexp(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return log(sum(exp(x))) over `axis`, without overflow.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    axis : int, tuple of int or None
        The axes to reduce, negative ones counted from the end; None reduces all.
    keepdims : bool
        Whether the reduced axes stay, with length 1.

    Returns
    -------
    Tensor
        Of the shape of x without (or with length 1 at) `axis`; integers give the default dtype.

    Notes
    -----
    The maximum is subtracted before `exp` and added to the result (Blanchard, Higham and Higham,
    IMA J. Numer. Anal. 41, 2021). The gradient is softmax(x), which equal infinite elements share
    evenly.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.logsumexp(tg.tensor([1000.0, 0.0]))
    tensor(1000.)
    """
    if 0 in x.shape:  # the logarithm of an empty sum
        return xp.sum(x, axis=axis, keepdims=keepdims) - math.inf
    top = xp.max(x, axis=axis, keepdims=True)
    finite = xp.isfinite(top)
    total = backend.reduced("sum", xp.exp(x - xp.where(finite, top, 0.0)), axis, True)
    out = xp.log(xp.where(finite, total, 1.0)) + top  # an infinite maximum is the result
    return out if keepdims else xp.squeeze(out, axis=axes_of(axis, x.ndim))


def _backwards(axis: int, ndim: int) -> tuple[slice, ...]:
    return (slice(None),) * (axis % ndim) + (slice(None, None, -1),)


def _to_summands(F: Any, g: Any, x_shape: tuple[int, ...], axis: int) -> Any:
    backwards = _backwards(axis, len(x_shape))
    return F.index(F.cumsum_along(F.index(g, key=backwards), axis=axis), key=backwards)


@primitive(x=_to_summands)
def cumsum_along(xp: Any, x: Array, axis: int) -> Array:
    """Return the running sums along one axis."""
    # It adds one after the other.
    dtype = backend.float64 if backend.coarse(x.dtype, x.shape[axis]) else None
    total = xp.cumsum(x, axis=axis, dtype=dtype)
    return total.astype(x.dtype) if dtype else total


@explain_errors
def cumsum(x: Tensor, axis: int | None = None) -> Tensor:
    """Return the running sums along an axis.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    axis : int or None
        None sums all elements, in C order.

    Returns
    -------
    Tensor
        Of the shape of x; flat if `axis` is None or x is 0-d.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.cumsum(tg.tensor([1.0, 2.0, 3.0]), axis=0)
    tensor([1., 3., 6.])
    """
    x = as_tensor(x)
    if axis is None or not (x.ndim or axes_of(axis, 0)):
        return cumsum_along(reshape(x, shape=-1), axis=0)
    return cumsum_along(x, axis=axis_of(axis, x.ndim))


@primitive(x=None)
def argmax(xp: Any, x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """Return the index of the greatest value along an axis.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    axis : int or None
        None counts in the flat array.
    keepdims : bool
        Whether the reduced axes stay, with length 1.

    Returns
    -------
    Tensor
        Integers, the first index of equal values; they have no gradient.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.argmax(tg.tensor([[1.0, 5.0, 5.0], [2.0, 0.0, 1.0]]), axis=1)
    tensor([1, 0])
    """
    return xp.argmax(x, axis=axis, keepdims=keepdims)


@primitive(x=None)
def argmin(xp: Any, x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """Return the index of the least value along an axis.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    axis : int or None
        None counts in the flat array.
    keepdims : bool
        Whether the reduced axes stay, with length 1.

    Returns
    -------
    Tensor
        Integers, the first index of equal values; they have no gradient.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.argmin(tg.tensor([[1.0, 5.0, 1.0], [2.0, 0.0, 1.0]]), axis=1)
    tensor([0, 1])
    """
    return xp.argmin(x, axis=axis, keepdims=keepdims)
