"""Matrix products and sums over indices. Every product ends in `backend.gemm`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ...errors import ArgumentError, ShapeError
from .. import backend
from ..backend import Array
from ..graph import Leaf, Product
from ..primitive import primitive
from .shape import axes_of, reshape, transpose

if TYPE_CHECKING:
    from ..tensor import Tensor


def _flip(F: Any, x: Any, transpose: bool = True) -> Any:
    """Exchange the last two axes."""
    return (
        F.permute(x, axes=(*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2))
        if transpose
        else x
    )


@primitive(x=lambda F, g, x_shape: F.reshape(g, shape=x_shape))
def rows(xp: Any, x: Array) -> Array:
    """Return x with all its axes but the last made one."""
    return backend.rows(x) if x.size else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _rows(F: Any, x: Any) -> Any:
    return x if len(x.shape) == 2 else F.rows(x)


def _to_left(F: Any, g: Any, y: Any, transpose_x: bool, transpose_y: bool, weight: str) -> Any:
    if weight == "x":  # x = left of every step's product with some y: pending, (gᵀ)ᵀ yᵀ
        right = _flip(F, y, not transpose_y)
        return Product(right, _flip(F, g)) if transpose_x else Product(_flip(F, g), right)
    grad = F.gemm(g, y, transpose_y=not transpose_y)
    return _flip(F, grad, transpose_x)


def _to_right(F: Any, g: Any, x: Any, transpose_x: bool, transpose_y: bool, weight: str) -> Any:
    x = _flip(F, x, transpose_x)
    if weight == "y":  # y stands at the right of every step's product: pending, xᵀ g
        return (
            Product(_rows(F, g), _rows(F, x)) if transpose_y else Product(_rows(F, x), _rows(F, g))
        )
    grad = F.gemm(x, g, transpose_x=True)
    return _flip(F, grad, transpose_y)


@primitive(x=_to_left, y=_to_right)
def gemm(
    xp: Any,
    x: Array,
    y: Array,
    transpose_x: bool = False,
    transpose_y: bool = False,
    weight: str = "",
) -> Array:
    """Return x @ y for arrays of two or more axes, either with its last two axes exchanged.

    `weight` names the operand ("x" or "y", of two axes) whose gradient is kept as factors, to be
    multiplied once for all uses.
    """
    return backend.gemm(
        x.swapaxes(-1, -2) if transpose_x else x, y.swapaxes(-1, -2) if transpose_y else y
    )


def matmul(x: Tensor, y: Tensor) -> Tensor:
    """Return the matrix product x @ y.

    Parameters
    ----------
    x : Tensor
        (..., n, k), or a vector (k,).
    y : Tensor
        (..., k, m), or a vector (k,). The leading axes broadcast.

    Returns
    -------
    Tensor
        (..., n, m); without n or m where an operand is a vector.

    Raises
    ------
    ShapeError
        If an operand has no axis, or the inner lengths differ.

    Notes
    -----
    The gradients are g yᵀ and xᵀ g. For a matrix that several products share, such as a recurrent
    weight, the factors are kept and multiplied once for all uses.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.matmul(tg.tensor([[1.0, 2.0], [3.0, 4.0]]), tg.tensor([1.0, 1.0]))
    tensor([3., 7.])
    """
    x, y = (
        reshape(x, shape=None) if not hasattr(x, "_edge") else x,
        reshape(y, shape=None) if not hasattr(y, "_edge") else y,
    )
    if x.ndim == 0 or y.ndim == 0:
        raise ShapeError(f"matmul: {x.shape} @ {y.shape}: a 0-d operand; multiply with * instead")
    inner = y.shape[0] if y.ndim == 1 else y.shape[-2]
    if x.shape[-1] != inner:
        raise ShapeError(
            f"matmul: {x.shape} @ {y.shape}: inner dimensions {x.shape[-1]} and {inner} differ"
        )
    if x.ndim == 1:
        out = matmul(reshape(x, shape=(1, -1)), y)
        return reshape(
            out, shape=(*out.shape[:-2], *out.shape[-1:]) if y.ndim > 1 else out.shape[:-1]
        )
    if y.ndim == 1:
        out = matmul(x, reshape(y, shape=(-1, 1)))
        return reshape(out, shape=out.shape[:-1])
    weight = "y" if y.ndim == 2 else ""
    if x.ndim == 2 and y.ndim == 2 and _is_weight(x) and not _is_weight(y):
        weight = "x"
    return gemm(x, y, transpose_x=False, transpose_y=False, weight=weight)


def _is_weight(x: Tensor) -> bool:
    """Tell whether a matrix is a leaf, or the transpose of one."""
    node = None if x._edge is None else x._edge[0]
    if node is not None and node.name == "permute" and node.parents[0] is not None:
        node = node.parents[0][0]
    return isinstance(node, Leaf)


def tensordot(x: Tensor, y: Tensor, axes: Any = 2) -> Tensor:
    """Return the sum of products over pairs of axes.

    Parameters
    ----------
    x, y : Tensor
        Of any shapes that agree on these axes.
    axes : int or two sequences of int
        How many of the last axes of x meet the first of y, or the axes of each.

    Returns
    -------
    Tensor
        The other axes of x, then those of y.

    Raises
    ------
    ShapeError
        If the axes differ in length.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.tensordot(tg.ones(2, 3, 4), tg.ones(4, 3, 5), axes=([1, 2], [1, 0])).shape
    (2, 5)
    """
    x, y = reshape(x, shape=None), reshape(y, shape=None)
    if isinstance(axes, int):
        over_x, over_y = tuple(range(x.ndim - axes, x.ndim)), tuple(range(axes))
    else:
        over_x, over_y = (
            axes_of(a if isinstance(a, int) else tuple(a), t.ndim)
            for a, t in zip(axes, (x, y), strict=True)
        )
    if tuple(x.shape[i] for i in over_x) != tuple(y.shape[i] for i in over_y):
        raise ShapeError(
            f"tensordot: axes {over_x} of {x.shape} and {over_y} of {y.shape} differ in length"
        )
    rest_x = tuple(i for i in range(x.ndim) if i not in over_x)
    rest_y = tuple(i for i in range(y.ndim) if i not in over_y)
    summed = math.prod(x.shape[i] for i in over_x)
    left, right = tuple(x.shape[i] for i in rest_x), tuple(y.shape[i] for i in rest_y)
    rows = reshape(transpose(x, axes=(*rest_x, *over_x)), shape=(math.prod(left), summed))
    columns = reshape(transpose(y, axes=(*over_y, *rest_y)), shape=(summed, math.prod(right)))
    return reshape(matmul(rows, columns), shape=left + right)


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


def einsum(subscripts: str, *operands: Tensor) -> Tensor:
    """Return a sum of products in Einstein's notation.

    Parameters
    ----------
    subscripts : str
        The letters of each operand's axes, ``->``, the letters of the result. Without the arrow the
        result has the letters that occur once, in alphabetical order.
    *operands : Tensor
        One for each group of letters.

    Returns
    -------
    Tensor
        Of the axes that the result's letters name; the others are summed over.

    Raises
    ------
    ArgumentError
        If the letters do not make sense; ``...`` is not supported.
    ShapeError
        If a letter occurs twice in an operand, or with two lengths.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.einsum("ij,ij->i", tg.tensor([[1.0, 2.0], [3.0, 4.0]]), tg.ones(2, 2))
    tensor([3., 7.])
    """
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    names = tuple(inputs.split(","))
    letters = "".join(names)
    if not arrow:
        output = "".join(sorted(index for index in set(letters) if letters.count(index) == 1))
    if not (letters + output).isalpha() and letters + output:
        raise ArgumentError(
            f"einsum: {subscripts!r}: indices are letters; '...' is not supported, name the axes"
        )
    tensors = [reshape(x, shape=None) for x in operands]
    if len(names) != len(tensors):
        raise ArgumentError(
            f"einsum: {subscripts!r} names {len(names)} operands, {len(tensors)} are given"
        )
    sizes: dict[str, int] = {}
    for name, x in zip(names, tensors, strict=True):
        if len(set(name)) != len(name) or len(name) != x.ndim:
            raise ShapeError(
                f"einsum: {name!r} for an operand of shape {x.shape}: one index for each axis, "
                "each once"
            )
        for letter, n in zip(name, x.shape, strict=True):
            if sizes.setdefault(letter, n) != n:
                raise ShapeError(f"einsum: index {letter!r} has lengths {sizes[letter]} and {n}")
    if len(set(output)) != len(output) or not set(output) <= set(letters):
        raise ArgumentError(f"einsum: output {output!r} takes indices of {inputs!r}, each once")
    return contract(*tensors, operands=names, output=output)
