"""Reductions over axes, and running sums.

`axis` is None (all), an integer or a tuple; negative ones count from the end. ``max`` and ``min``
divide the gradient evenly among equal extreme values.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import backend
from ..backend import Array
from ..primitive import primitive
from . import kernels
from .axes import Axis, axes_of, reduced_size, restore_axes, without_number
from .docstrings import KEEPDIMS, X, reduction, standard
from .half_precision import in_single_precision

_divide = in_single_precision(lambda F, g, count: g / count)


@reduction
@primitive(
    x=lambda F, g, x_shape, axis, keepdims: F.broadcast_to(
        restore_axes(F, g, x_shape, axis, keepdims), shape=x_shape
    ),
)
def sum(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return the sum over `axis`.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.sum(tg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0)
    tensor([4., 6.])
    """
    return kernels.reduced("sum", x, axis, keepdims)


def _mean_vjp_x(F: Any, g: Any, x_shape: tuple[int, ...], axis: Axis, keepdims: bool) -> Any:
    g = _divide(F, g, reduced_size(x_shape, axis))
    return F.broadcast_to(restore_axes(F, g, x_shape, axis, keepdims), shape=x_shape)


@reduction
@primitive(floating=True, x=_mean_vjp_x)
def mean(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return the mean over `axis`.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.mean(tg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=1)
    tensor([1.5, 3.5])
    """
    return kernels.reduced("mean", x, axis if x.ndim else axes_of(axis, 0), keepdims)


@in_single_precision
def _max_vjp_x(F: Any, g: Any, x: Any, out: Any, x_shape: Any, axis: Axis, keepdims: bool) -> Any:
    """Return the gradient of x of `max`, and of `min`."""
    # The extreme values; where x == x fails, x is nan, and so is the result.
    hits = (x == restore_axes(F, out, x_shape, axis, keepdims)) >= (x == x)
    count = F.sum(F.cast(hits, dtype=g.dtype), axis=axis, keepdims=True)
    return F.where(hits, restore_axes(F, g, x_shape, axis, keepdims) / count, 0.0)


@reduction
@primitive(x=_max_vjp_x)
def max(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return the greatest value over `axis`.

    Raises
    ------
    DTypeError
        If x is not of real numbers.
    ShapeError
        If an axis is out of range or given twice, or an axis that is reduced is empty.

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
    return xp.max(x, axis=without_number(axis, x.ndim), keepdims=keepdims)


@reduction
@primitive(x=_max_vjp_x)
def min(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return the least value over `axis`.

    Raises
    ------
    DTypeError
        If x is not of real numbers.
    ShapeError
        If an axis is out of range or given twice, or an axis that is reduced is empty.

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
    return xp.min(x, axis=without_number(axis, x.ndim), keepdims=keepdims)


_index_of = standard(
    {"x": X, "axis": ("int or None", "None counts in the flat array."), "keepdims": KEEPDIMS},
    "Integers, the first index of equal values; they have no gradient.",
)


@_index_of
@primitive(x=None)
def argmax(xp: Any, x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """Return the index of the greatest value along an axis.

    Raises
    ------
    DTypeError
        If x is not of real numbers.
    ShapeError
        If the axis is out of range, or has no elements.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.argmax(tg.tensor([[1.0, 5.0, 5.0], [2.0, 0.0, 1.0]]), axis=1)
    tensor([1, 0])
    """
    axis = None if without_number(axis, x.ndim) == () else axis  # of a 0-d array
    return xp.argmax(x, axis=axis, keepdims=keepdims)


@_index_of
@primitive(x=None)
def argmin(xp: Any, x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """Return the index of the least value along an axis.

    Raises
    ------
    DTypeError
        If x is not of real numbers.
    ShapeError
        If the axis is out of range, or has no elements.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.argmin(tg.tensor([[1.0, 5.0, 1.0], [2.0, 0.0, 1.0]]), axis=1)
    tensor([0, 1])
    """
    axis = None if without_number(axis, x.ndim) == () else axis  # of a 0-d array
    return xp.argmin(x, axis=axis, keepdims=keepdims)


@in_single_precision
def _logsumexp_vjp_x(
    F: Any, g: Any, x: Any, out: Any, x_shape: Any, axis: Axis, keepdims: bool
) -> Any:
    g, out = (restore_axes(F, part, x_shape, axis, keepdims) for part in (g, out))
    limit = float(np.finfo(x.dtype).max) / 2  # replaces infinities, whose difference is nan
    x, out = (F.clip(part, min=-limit, max=limit) for part in (x, out))
    e = F.exp(x - out)
    total = F.sum(e, axis=axis, keepdims=True)  # 1, but for the rounding of out; 0 if x is empty
    return g / (total + 1 if 0 in x.shape else total) * e


@reduction
@primitive(floating=True, x=_logsumexp_vjp_x)
@in_single_precision
def logsumexp(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return log(sum(exp(x))) over `axis`, without overflow.

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
    axis = without_number(axis, x.ndim)
    top = xp.max(x, axis=axis, keepdims=True)
    finite = xp.isfinite(top)
    total = kernels.reduced("sum", xp.exp(x - xp.where(finite, top, 0.0)), axis, True)
    out = xp.log(xp.where(finite, total, 1.0)) + top  # an infinite maximum is the result
    return out if keepdims else xp.squeeze(out, axis=axes_of(axis, x.ndim))


def _cumsum_vjp_x(F: Any, g: Any, x_shape: tuple[int, ...], axis: int) -> Any:
    """Return the running sums of g from the last element to the first."""
    reverse = (*(slice(None),) * (axis % len(x_shape)), slice(None, None, -1))
    return F.getitem(F.cumsum(F.getitem(g, key=reverse), axis=axis), key=reverse)


@primitive(x=_cumsum_vjp_x)
def cumsum(xp: Any, x: Array, axis: int) -> Array:
    """Return the running sums along one axis."""
    # NumPy adds one term after the other, which is inexact for many terms.
    dtype = backend.float64 if kernels.needs_float64(x.dtype, x.shape[axis]) else None
    total = xp.cumsum(x, axis=axis, dtype=dtype)
    return total.astype(x.dtype) if dtype else total
