"""Reductions over axes: sums and means.

`axis` is None (all), an integer or a tuple; negative ones count from the end.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from .. import backend
from ..backend import Array
from ..primitive import primitive
from . import kernels
from .shape import axes_of

Axis = int | tuple[int, ...] | None


def _kept(F: Any, g: Any, shape: tuple[int, ...], axis: Axis, keepdims: bool) -> Any:
    """Give a reduced value its reduced axes back, with length 1."""
    if keepdims or axis is None:  # one number broadcasts as it is
        return g
    axes = axes_of(axis, len(shape))
    return F.reshape(g, shape=tuple(1 if i in axes else n for i, n in enumerate(shape)))


def _in_single(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a forward or a vjp compute half precision in single, on arrays and on Tensors.

    A count, a sum or a quotient of them may be out of the range of float16 where the result is not.
    """

    @functools.wraps(function)
    def computed(F: Any, *values: Any, **params: Any) -> Any:
        if values[0].dtype != backend.float16:
            return function(F, *values, **params)
        half = [getattr(x, "dtype", None) == backend.float16 for x in values]
        wide = [x.astype(backend.float32) if h else x for x, h in zip(values, half, strict=True)]
        return function(F, *wide, **params).astype(backend.float16)

    return computed


_divided = _in_single(lambda F, g, count: g / count)


def _count(shape: tuple[int, ...], axis: Axis) -> int:
    return math.prod(shape[i] for i in axes_of(axis, len(shape)))


@primitive(
    x=lambda F, g, x_shape, axis, keepdims: F.broadcast_to(
        _kept(F, g, x_shape, axis, keepdims), shape=x_shape
    ),
)
def sum(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return the sum over `axis`.

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

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.sum(tg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0)
    tensor([4., 6.])
    """
    return kernels.reduced("sum", x, axis, keepdims)


@primitive(
    floating=True,
    x=lambda F, g, x_shape, axis, keepdims: F.broadcast_to(
        _kept(F, _divided(F, g, _count(x_shape, axis)), x_shape, axis, keepdims), shape=x_shape
    ),
)
def mean(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return the mean over `axis`.

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

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.mean(tg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=1)
    tensor([1.5, 3.5])
    """
    return kernels.reduced("mean", x, axis if x.ndim else axes_of(axis, 0), keepdims)
