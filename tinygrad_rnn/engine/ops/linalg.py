"""Matrix products. Every one ends in `backend.gemm`."""

from __future__ import annotations

import math
from typing import Any

from .. import backend
from ..backend import Array
from ..pending import DeferredMatmul
from ..primitive import primitive


@primitive(view=True, x=lambda F, g, x_shape: F.reshape(g, shape=x_shape))
def rows(xp: Any, x: Array) -> Array:
    """Return x with all its axes but the last made one."""
    return backend.rows(x) if x.size else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _flip(F: Any, x: Any) -> Any:
    """Exchange the last two axes."""
    ndim = len(x.shape)
    return F.permute(x, axes=(*range(ndim - 2), ndim - 1, ndim - 2))


def _rows(F: Any, x: Any) -> Any:
    return x if len(x.shape) == 2 else F.rows(x)


def _to_left(F: Any, g: Any, y: Any, weight: str) -> Any:
    if weight == "x":  # x stands at the left of every step's product: pending, (gᵀ)ᵀ yᵀ
        return DeferredMatmul(F, [_flip(F, g)], [_flip(F, y)])
    return F.gemm(g, _flip(F, y))


def _to_right(F: Any, g: Any, x: Any, weight: str) -> Any:
    if weight == "y":  # y stands at the right of every step's product: pending, xᵀ g
        return DeferredMatmul(F, [_rows(F, x)], [_rows(F, g)])
    return F.gemm(_flip(F, x), g)


@primitive(x=_to_left, y=_to_right)
def gemm(xp: Any, x: Array, y: Array, weight: str = "") -> Array:
    """Return x @ y for arrays of two or more axes.

    `weight` names the operand ("x" or "y", of two axes) whose gradient is kept as factors, to be
    multiplied once for all uses.
    """
    return backend.gemm(x, y)
