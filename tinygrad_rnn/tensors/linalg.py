"""Matrix products and sums over indices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..engine import backend
from ..engine.graph import Leaf
from ..engine.ops import axes_of, gemm, reshape
from ..engine.primitive import primitive
from ..errors import ArgumentError, ShapeError
from ..spelling import explained
from .shape import as_tensor, transpose

if TYPE_CHECKING:
    from ..engine.backend import Array
    from .tensor import Tensor


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
    x, y = as_tensor(x), as_tensor(y)
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
    return gemm(x, y, weight)


def _is_weight(x: Tensor) -> bool:
    """Tell whether a matrix is a leaf, or the transpose of one."""
    node = x._node
    if node is not None and node.name == "transpose":
        node = node.parents[0]
    return isinstance(node, Leaf)


@explained
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
    x, y = as_tensor(x), as_tensor(y)
    pair: Any
    if isinstance(axes, int) and 0 <= axes <= min(x.ndim, y.ndim):
        pair = tuple(range(x.ndim - axes, x.ndim)), tuple(range(axes))
    elif isinstance(axes, tuple | list) and len(axes) == 2:
        pair = tuple(a if isinstance(a, int) else tuple(a) for a in axes)
    else:
        raise ArgumentError(
            f"tensordot: axes are a number from 0 to {min(x.ndim, y.ndim)}, or two lists, those of "
            f"{x.shape} and those of {y.shape}; got {axes!r}"
        )
    over_x, over_y = axes_of(pair[0], x.ndim), axes_of(pair[1], y.ndim)
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
    dtype = max((x.dtype for x in arrays), key=lambda dtype: dtype.itemsize)
    lengths = [n for x in arrays for n in x.shape]
    sizes = dict(zip("".join(operands), lengths, strict=True))
    terms = math.prod(n for i, n in sizes.items() if i not in output)
    if not backend.coarse(dtype, terms):
        return xp.einsum(",".join(operands) + "->" + output, *arrays, optimize=True)
    names, parts, everything = [], [], "".join((*operands, output))
    for name, x in zip(operands, arrays, strict=True):
        alone = tuple(k for k, index in enumerate(name) if everything.count(index) == 1)
        x = x.astype(backend.float32) if x.dtype == backend.float16 else x
        parts.append(backend.reduced("sum", x, alone, False) if alone else x)
        names.append("".join(index for index in name if everything.count(index) > 1))
    # Where an operand has every index, so that no product of matrices is faster, NumPy adds one
    # term after the other: in double precision.
    full = any(len(name) == len(set("".join(names))) for name in names)
    subscripts = ",".join(names) + "->" + output
    out = xp.einsum(subscripts, *parts, optimize=not full, dtype=backend.float64)
    return out.astype(dtype)


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
    if not isinstance(subscripts, str):
        raise ArgumentError(
            f"einsum: the subscripts come first, such as 'ij,jk->ik', got a "
            f"{type(subscripts).__name__}"
        )
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    names = tuple(inputs.split(","))
    letters = "".join(names)
    if not arrow:
        output = "".join(sorted(index for index in set(letters) if letters.count(index) == 1))
    if not (letters + output).isalpha() and letters + output:
        raise ArgumentError(
            f"einsum: {subscripts!r}: indices are letters; '...' is not supported, name the axes"
        )
    tensors = [as_tensor(x) for x in operands]
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
