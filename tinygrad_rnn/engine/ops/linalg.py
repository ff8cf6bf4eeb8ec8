"""Matrix products and sums over indices. Every product ends in `backend.gemm`."""

from __future__ import annotations

import math
from typing import Any

from .. import backend
from ..backend import Array
from ..graph import Product
from ..primitive import primitive


@primitive(x=lambda F, g, x_shape: F.reshape(g, shape=x_shape))
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
        return Product([_flip(F, g)], [_flip(F, y)])
    return F.gemm(g, _flip(F, y))


def _to_right(F: Any, g: Any, x: Any, weight: str) -> Any:
    if weight == "y":  # y stands at the right of every step's product: pending, xᵀ g
        return Product([_rows(F, x)], [_rows(F, g)])
    return F.gemm(_flip(F, x), g)


@primitive(x=_to_left, y=_to_right)
def gemm(xp: Any, x: Array, y: Array, weight: str = "") -> Array:
    """Return x @ y for arrays of two or more axes.

    `weight` names the operand ("x" or "y", of two axes) whose gradient is kept as factors, to be
    multiplied once for all uses.
    """
    return backend.gemm(x, y)


def _to_operands(
    F: Any, g: Any, inputs: list[Any], shapes: Any, operands: tuple[str, ...], output: str
) -> list[Any]:
    grads = []
    for i, (indices, shape) in enumerate(zip(operands, shapes, strict=True)):
        others = [x for j, x in enumerate(inputs) if j != i]
        names = [name for j, name in enumerate(operands) if j != i]
        there = "".join(
            index for index in indices if index in output or any(index in name for name in names)
        )
        grad = F.contract(g, *others, operands=(output, *names), output=there)
        if there != indices:  # along a summed index that no other has, the gradient is the same
            kept = tuple(
                n if index in there else 1 for index, n in zip(indices, shape, strict=True)
            )
            grad = F.broadcast_to(F.reshape(grad, shape=kept), shape=shape)
        grads.append(grad)
    return grads


@primitive(joint=_to_operands)
def contract(xp: Any, *arrays: Array, operands: tuple[str, ...], output: str) -> Array:
    """Return the sum of products of the arrays over the indices that `output` has not."""
    return xp.einsum(",".join(operands) + "->" + output, *arrays, optimize=True)
