"""Matrix products, `tensordot` and `einsum`, on the primitives of ``engine/ops/linalg.py``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._util.api_hints import explain_errors
from ..engine import ops
from ..engine.graph import Leaf
from ..engine.ops.axes import axes_of
from ..engine.tensor import Tensor
from ..errors import ArgumentError, ShapeError
from .checks import as_tensor
from .shape import axes_tuple, transpose

LOWER = "abcdefghijklmnopqrstuvwxyz"  # the module string would be imported for this alone
LETTERS = LOWER + LOWER.upper()


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
        If an operand is 0-d, or the inner lengths differ.

    Notes
    -----
    The gradients are g yᵀ and xᵀ g. For a matrix that several products share, such as a recurrent
    weight, the factors are saved and multiplied once for all uses.

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
        out = matmul(ops.reshape(x, shape=(1, -1)), y)
        return ops.reshape(
            out, shape=(*out.shape[:-2], *out.shape[-1:]) if y.ndim > 1 else out.shape[:-1]
        )
    if y.ndim == 1:
        out = matmul(x, ops.reshape(y, shape=(-1, 1)))
        return ops.reshape(out, shape=out.shape[:-1])
    weight = "y" if y.ndim == 2 else ""
    if x.ndim == 2 and y.ndim == 2 and _is_weight(x) and not _is_weight(y):
        weight = "x"
    return ops.gemm(x, y, weight)


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
        How many of the last axes of x pair with the first of y, or the axes of each.

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
        pair = tuple(map(axes_tuple, axes))
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
    rows = ops.reshape(transpose(x, axes=(*rest_x, *over_x)), shape=(math.prod(left), summed))
    columns = ops.reshape(transpose(y, axes=(*over_y, *rest_y)), shape=(summed, math.prod(right)))
    return ops.reshape(matmul(rows, columns), shape=left + right)


def _diagonal(x: Tensor, name: str) -> tuple[Tensor, str]:
    """Return x and `name` with each letter once: the diagonal of the axes that a letter repeats."""
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
            x = ops.reshape(x, shape=(n**count, *x.shape[count:]))
            x = ops.getitem(x, key=slice(None, None, sum(n**i for i in range(count))))
            name = letter + "".join(name[i] for i in rest)
    return x, name


def _spelled(operands: Sequence[Any]) -> tuple[str, list[Any]]:
    """Return einsum's other form, each operand followed by its list of numbers, as letters."""
    *pairs, output = operands if len(operands) % 2 else (*operands, None)
    labels = LOWER.upper() + LOWER  # in the order of the numbers
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
    """Return the letters of the axes of each operand and of the result.

    The axes of ``...`` get unused letters, counted from the last axis.
    """
    inputs, arrow, output = "".join(subscripts.split()).partition("->")
    names = inputs.split(",")
    letters = inputs.replace("...", "").replace(",", "")
    outer = output.replace("...", "", 1)
    if not set(letters + outer) <= set(LETTERS) or any(n.count("...") > 1 for n in names):
        raise ArgumentError(f"einsum: {subscripts!r}: indices are letters, and '...' once a group")
    if len(names) != len(shapes):
        raise ArgumentError(
            f"einsum: {subscripts!r} names {len(names)} operands, {len(shapes)} are given"
        )
    spare = [letter for letter in LETTERS if letter not in letters]
    most = 0
    for i, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        more = len(shape) - len(name.replace("...", ""))
        if more < 0 or (more and "..." not in name):
            raise ShapeError(f"einsum: {name!r} for an operand of shape {shape}: one index an axis")
        if more > len(spare):
            raise ArgumentError(f"einsum: {subscripts!r}: more than {len(LETTERS)} indices")
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
        repeats selects its diagonal; ``...`` means all axes without a letter.
    *operands : Tensor
        One for each group of letters. Or, as for ``numpy.einsum``, no `subscripts`: each operand is
        followed by the list of its axes' numbers, and the result's list is last.
    optimize
        Ignored, for compatibility with NumPy: the cheapest order of the products is always used.

    Returns
    -------
    Tensor
        It has the axes of the result's letters; the others are summed over.

    Raises
    ------
    ArgumentError
        If the subscripts are invalid.
    ShapeError
        If an operand has more or fewer axes than letters, or if a letter has two different lengths,
        in one operand or with neither of them 1.

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
        # An axis of length 1 whose letter is longer elsewhere needs none: the product broadcasts.
        kept = "".join(a for a, n in zip(name, x.shape, strict=True) if n == lengths[a])
        if kept != name:
            x = ops.reshape(x, shape=tuple(lengths[a] for a in kept))
        names[i], tensors[i] = kept, x
    return ops.einsum(*tensors, operands=tuple(names), output=output)
