"""Matrix products and sums over indices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import ascii_letters, ascii_lowercase, ascii_uppercase
from typing import TYPE_CHECKING, Any

import numpy as np

from .._util.api_hints import explain_errors
from ..engine import backend
from ..engine.graph import Leaf
from ..engine.ops import axes_of, gemm, index, reshape
from ..engine.primitive import primitive
from ..errors import ArgumentError, ShapeError
from .shape import _listed, as_tensor, transpose

if TYPE_CHECKING:
    from ..engine.backend import Array
    from ..engine.tensor import Tensor


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
    x, y = as_tensor(x, "matmul"), as_tensor(y, "matmul")
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


@explain_errors
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
    if isinstance(axes, int | np.integer) and 0 <= axes <= min(x.ndim, y.ndim):
        pair = tuple(range(x.ndim - axes, x.ndim)), tuple(range(axes))
    elif isinstance(axes, tuple | list | np.ndarray) and len(axes) == 2:
        pair = tuple(map(_listed, axes))
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
        out = xp.einsum(",".join(operands) + "->" + output, *arrays, optimize=True)
        return xp.array(out) if len(arrays) == 1 else out  # of one operand it may be a view
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


def _diagonal(x: Tensor, name: str) -> tuple[Tensor, str]:
    """Return x with one axis for each letter: of those that a letter repeats, the diagonal."""
    for letter in dict.fromkeys(name):
        count, n = name.count(letter), x.shape[name.index(letter)]
        if count > 1:
            rest = [i for i, other in enumerate(name) if other != letter]
            own = [i for i in range(len(name)) if i not in rest]
            if any(x.shape[i] != n for i in own):
                raise ShapeError(
                    f"einsum: {name!r} for an operand of shape {x.shape}: axes of one index differ"
                )
            x = transpose(x, [*own, *rest])
            x = reshape(x, shape=(n**count, *x.shape[count:]))
            x = index(x, key=slice(None, None, sum(n**i for i in range(count))))
            name = letter + "".join(name[i] for i in rest)
    return x, name


def _spelled(operands: Sequence[Any]) -> tuple[str, list[Any]]:
    """Return einsum's other form, each operand before its list of numbers, in letters."""
    *pairs, output = operands if len(operands) % 2 else (*operands, None)
    labels = ascii_uppercase + ascii_lowercase  # in the order of the numbers
    try:
        groups = [
            "".join("..." if i is Ellipsis else labels[range(len(labels)).index(i)] for i in group)
            for group in (*pairs[1::2], *([] if output is None else [output]))
        ]
    except (TypeError, ValueError):
        raise ArgumentError(
            "einsum: the subscripts come first, such as 'ij,jk->ik', or follow each operand as a "
            f"list of numbers below {len(labels)}; got a {type(operands[0]).__name__} first"
        ) from None
    count = len(pairs) // 2
    return ",".join(groups[:count]) + "->" * (output is not None) + "".join(groups[count:]), [
        *pairs[::2]
    ]


def _parsed(subscripts: str, shapes: Sequence[tuple[int, ...]]) -> tuple[list[str], str]:
    """Return the letters of each operand's axes and of the result's, those of ``...`` among them.

    The axes that ``...`` stands for have letters that nobody uses, counted from the last one.
    """
    inputs, arrow, output = "".join(subscripts.split()).partition("->")
    names = inputs.split(",")
    letters = inputs.replace("...", "").replace(",", "")
    outer = output.replace("...", "", 1)
    if not set(letters + outer) <= set(ascii_letters) or any(n.count("...") > 1 for n in names):
        raise ArgumentError(f"einsum: {subscripts!r}: indices are letters, and '...' once a group")
    if len(names) != len(shapes):
        raise ArgumentError(
            f"einsum: {subscripts!r} names {len(names)} operands, {len(shapes)} are given"
        )
    spare = [letter for letter in ascii_letters if letter not in letters]
    most = 0
    for i, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        more = len(shape) - len(name.replace("...", ""))
        if more < 0 or (more and "..." not in name):
            raise ShapeError(f"einsum: {name!r} for an operand of shape {shape}: one index an axis")
        if more > len(spare):
            raise ArgumentError(f"einsum: {subscripts!r}: more than {len(ascii_letters)} indices")
        names[i], most = name.replace("...", "".join(spare[:more][::-1])), max(most, more)
    dots = "".join(spare[:most][::-1])
    if not arrow:
        outer = "".join(sorted(index for index in set(letters) if letters.count(index) == 1))
        output = "..." + outer
    if most and "..." not in output:
        raise ArgumentError(f"einsum: {subscripts!r}: '...' has axes, and is not in the result")
    if len(set(outer)) != len(outer) or not set(outer) <= set(letters):
        raise ArgumentError(f"einsum: output {output!r} takes indices of {inputs!r}, each once")
    return names, output.replace("...", dots, 1)


@explain_errors
def einsum(subscripts: Any, *operands: Any, optimize: Any = True) -> Tensor:
    """Return a sum of products in Einstein's notation.

    Parameters
    ----------
    subscripts : str
        The letters of each operand's axes, ``->``, the letters of the result. Without the arrow the
        result has the letters that occur once, in alphabetical order. A letter that an operand
        repeats names its diagonal; ``...`` stands for all axes that have no letter.
    *operands : Tensor
        One for each group of letters. Or, as for ``numpy.einsum``, no `subscripts`, each operand
        with the list of its axes' numbers behind it, and the result's list at the end.
    optimize
        Taken for NumPy's sake: the cheapest order of the products is always sought.

    Returns
    -------
    Tensor
        Of the axes that the result's letters name; the others are summed over.

    Raises
    ------
    ArgumentError
        If the letters do not make sense.
    ShapeError
        If an operand has more or fewer axes than letters, or a letter has two lengths, neither of
        which is 1 (or in one operand).

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> tg.einsum("ij,ij->i", x, tg.ones(2, 2))
    tensor([3., 7.])
    >>> tg.einsum("ii", x), tg.einsum("...i->...", x), tg.einsum(x, [0, 1], [1, 0])
    (tensor(5.), tensor([3., 7.]), tensor([[1., 3.],
            [2., 4.]]))
    """
    text, given = subscripts, list(operands)
    if not isinstance(subscripts, str):
        text, given = _spelled((subscripts, *operands))
    tensors = [as_tensor(x) for x in given]
    names, output = _parsed(text, [x.shape for x in tensors])
    parts = [_diagonal(x, name) for x, name in zip(tensors, names, strict=True)]
    lengths: dict[str, int] = {}
    for x, name in parts:
        for letter, n in zip(name, x.shape, strict=True):
            known = lengths.get(letter, 1)
            if n != known and 1 not in (n, known):
                raise ShapeError(f"einsum: {text!r}: index {letter!r} has lengths {known} and {n}")
            lengths[letter] = known if n == 1 else n
    for i, (x, name) in enumerate(parts):
        # An axis of length 1 beside a longer one needs no letter: the product broadcasts.
        kept = "".join(a for a, n in zip(name, x.shape, strict=True) if n == lengths[a])
        if kept != name:
            x = reshape(x, shape=tuple(lengths[a] for a in kept))
        names[i], tensors[i] = kept, x
    return contract(*tensors, operands=tuple(names), output=output)
