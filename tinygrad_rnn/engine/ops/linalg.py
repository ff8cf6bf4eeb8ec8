"""Matrix products and sums of products. Matrix products are computed by `kernels.gemm`.

The gradient of a weight is a pending `DeferredMatmul`: the factors of all its uses are kept, and
multiplied once.
"""

from __future__ import annotations

import math
from typing import Any

from .. import backend
from ..backend import Array
from ..pending import DeferredMatmul
from ..primitive import primitive
from . import kernels


@primitive(view=True, x=lambda F, g, x_shape: F.reshape(g, shape=x_shape))
def rows(xp: Any, x: Array) -> Array:
    """Return x as a matrix: all axes but the last become one."""
    return kernels.rows(x) if x.size else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _matrix_transpose(F: Any, x: Any) -> Any:
    """Return x with its last two axes exchanged."""
    ndim = len(x.shape)
    return F.transpose(x, axes=(*range(ndim - 2), ndim - 1, ndim - 2))


def _as_matrix(F: Any, x: Any) -> Any:
    return x if len(x.shape) == 2 else F.rows(x)


def _gemm_vjp_x(F: Any, g: Any, y: Any, weight: str) -> Any:
    if weight == "x":  # the left factor of the product of every step: pending, (gᵀ)ᵀ yᵀ
        return DeferredMatmul(F, [_matrix_transpose(F, g)], [_matrix_transpose(F, y)])
    return F.gemm(g, _matrix_transpose(F, y))


def _gemm_vjp_y(F: Any, g: Any, x: Any, weight: str) -> Any:
    if weight == "y":  # the right factor of the product of every step: pending, xᵀ g
        return DeferredMatmul(F, [_as_matrix(F, x)], [_as_matrix(F, g)])
    return F.gemm(_matrix_transpose(F, x), g)


@primitive(name="matmul", x=_gemm_vjp_x, y=_gemm_vjp_y)
def gemm(xp: Any, x: Array, y: Array, weight: str = "") -> Array:
    """Return x @ y for arrays of two or more axes.

    `weight` names the operand ("x" or "y", of two axes) whose gradient is pending.
    """
    return kernels.gemm(x, y)


def _linear_vjp_weight(F: Any, g: Any, x: Any) -> Any:
    if len(g.shape) == 2:  # perhaps one step of several
        return DeferredMatmul(F, [g], [x])
    return F.gemm(F.transpose(F.rows(g), axes=(1, 0)), F.rows(x))


@primitive(x=lambda F, g, weight: F.gemm(g, weight), weight=_linear_vjp_weight)
def linear(xp: Any, x: Array, weight: Array) -> Array:
    """Return x Wᵀ."""
    return kernels.gemm(x, weight.T)


@primitive(
    name="linear",
    x=lambda F, g, weight: F.gemm(g, weight),
    weight=_linear_vjp_weight,
    bias=lambda F, g: g,
)
def affine(xp: Any, x: Array, weight: Array, bias: Array) -> Array:
    """Return x Wᵀ + b."""
    return kernels.affine(x, weight.T, bias)


def _einsum_vjp(
    F: Any, g: Any, inputs: list[Any], shapes: Any, operands: tuple[str, ...], output: str
) -> list[Any]:
    grads = []
    for i, (indices, shape) in enumerate(zip(operands, shapes, strict=True)):
        others = [x for j, x in enumerate(inputs) if j != i]
        names = [name for j, name in enumerate(operands) if j != i]
        present = "".join(
            index for index in indices if index in output or any(index in name for name in names)
        )
        grad = F.einsum(g, *others, operands=(output, *names), output=present)
        if present != indices:  # constant along a summed index that no other operand has
            kept = tuple(
                n if index in present else 1 for index, n in zip(indices, shape, strict=True)
            )
            grad = F.broadcast_to(F.reshape(grad, shape=kept), shape=shape)
        grads.append(grad)
    return grads


@primitive(joint=_einsum_vjp)
def einsum(xp: Any, *arrays: Array, operands: tuple[str, ...], output: str) -> Array:
    """Return the sum of products of the arrays over the indices that `output` lacks.

    `operands` has the indices of each array, which repeat none.
    """
    dtype = max((x.dtype for x in arrays), key=lambda dtype: dtype.itemsize)
    lengths = [n for x in arrays for n in x.shape]
    sizes = dict(zip("".join(operands), lengths, strict=True))
    terms = math.prod(n for i, n in sizes.items() if i not in output)
    if not kernels.needs_float64(dtype, terms):
        out = xp.einsum(",".join(operands) + "->" + output, *arrays, optimize=True)
        return xp.array(out) if len(arrays) == 1 else out  # of one operand it may be a view
    names, parts, everything = [], [], "".join((*operands, output))
    for name, x in zip(operands, arrays, strict=True):
        alone = tuple(k for k, index in enumerate(name) if everything.count(index) == 1)
        x = x.astype(backend.float32) if x.dtype == backend.float16 else x
        parts.append(kernels.reduced("sum", x, alone, False) if alone else x)
        names.append("".join(index for index in name if everything.count(index) > 1))
    # Where an operand has every index, so that no product of matrices is faster, NumPy adds one
    # term after the other: in double precision.
    full = any(len(name) == len(set("".join(names))) for name in names)
    subscripts = ",".join(names) + "->" + output
    out = xp.einsum(subscripts, *parts, optimize=not full, dtype=backend.float64)
    return out.astype(dtype)
