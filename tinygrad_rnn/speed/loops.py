"""Lowering: from the expressions of a kernel to the body of one elementwise loop, in C.

The expressions of a kernel differ in shape: arguments are split along the last axis, gradients of
slices are concatenated, a bias is broadcast. A loop has one shape. So every expression is divided
along its last axis into *chunks* of one width, the greatest common divisor of all slice bounds. A
`ScalarOp` is the computation of one element of a chunk. A slice is then a sublist of chunks, a
concatenation is a list of chunks, and an operation is one `ScalarOp` per chunk. ScalarOps are
interned, and written as lines of C that CUDA accepts too.

Sums of broadcast gradients stay outside of the loop, and so does everything computed from them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from .scalars import Number

MAX_OPERATIONS = 1000  # in a loop; compiling more takes too long
MAX_ACCESSES = 256  # chunks that a loop reads or writes
# A call of sin, cos or pow takes 5 ns per element in a loop, and a tenth of that in NumPy, which is
# vectorized; a call of a ufunc takes 500 ns. So a loop with such calls is slower than ufuncs above
# a number of elements: this, times operations, divided by calls.
SLOW_CALL_LIMIT = 100


class Unsupported(Exception):
    """A loop cannot compute this; a schedule of ufuncs does."""


# -- from expressions to ScalarOps -----------------------------------------------------------------


class ScalarOp:
    """An operation on one element of each chunk; its arguments are ScalarOps or numbers.

    The arguments of ``load`` are the number of an array and the start of the chunk on its last
    axis.
    """

    __slots__ = ("args", "dtype", "number", "op")

    def __init__(self, op: str, args: tuple[Any, ...], dtype: np.dtype[Any], number: int) -> None:
        self.op, self.args, self.dtype, self.number = op, args, dtype, number


class Loop:
    """A loop that computes as many of the given expressions as possible.

    Parameters
    ----------
    steps : sequence of expressions
        The operations, in the order of computation. An expression has an ``op`` (the name of a
        ufunc, where, astype, slice, concatenate, zeros, sum, reshape), ``args`` (expressions,
        numbers), ``dtype`` and ``shape``.
    inputs : sequence of expressions
        The arrays that the loop is called with.
    results : sequence
        The expressions to compute. Other objects are ignored.
    any_size : bool
        Whether it is called with other lengths of axes too. Then the caller compares with `limit`.

    Attributes
    ----------
    outputs : list of expressions
        The arrays that the loop fills: the results, and operands of sums and reshapes, that have
        the shape of the loop on all axes except the last.
    width : int
        The length of the last axis of the chunks; 1 for 0-d arrays.
    scalars : list of (Number, dtype)
        The number arguments that it reads, as 0-d arrays.
    limit : float
        The number of elements above which a schedule of ufuncs is faster.
    loads, stores : list of (ScalarOp, int, int)
        Each chunk that is read from memory or written to memory, the number of its array (`inputs`,
        `scalars`, then `outputs`), and its start on the last axis of the array.
    layouts : list of tuples of int
        For each specialized loop the numbers of the loads that are one element, not a vector: none;
        the arrays that are broadcast along the last axis; those broadcast along other axes.
    lines : list of str
        The body: computes element ``i`` of ``r0, r1 …``, the stores, from that of ``a0, a1 …``.

    Raises
    ------
    Unsupported
        If no expression has the shape of the loop, or an operation cannot be written in C.
    """

    def __init__(
        self,
        steps: Sequence[Any],
        inputs: Sequence[Any],
        results: Sequence[Any],
        any_size: bool = False,
    ) -> None:
        self._table: dict[Any, ScalarOp] = {}
        self.scalars: list[tuple[Number, Any]] = []
        self.width = _common_width([*steps, *inputs])
        chunks = self._lowered(steps, inputs)
        axes = max(len(x.shape) for x in (*steps, *inputs))
        try:
            shape = np.broadcast_shapes(*(x.shape[:-1] for x in (*steps, *inputs)))
        except ValueError:
            raise Unsupported("shapes that do not broadcast") from None
        summed = [x.args[0] for x in steps if x.op in ("sum", "reshape")]
        self.outputs = [
            x
            for x in dict.fromkeys([*filter(is_expression, results), *summed])
            if x in chunks
            and x.shape == (*shape, len(chunks[x]) * self.width)[:axes]
            and any(chunk.op != "load" for chunk in chunks[x])
        ]
        if not self.outputs:
            raise Unsupported("no result has the shape of the loop")
        self.stores = [
            (chunk, len(inputs) + len(self.scalars) + k, i * self.width)
            for k, x in enumerate(self.outputs)
            for i, chunk in enumerate(chunks[x])
        ]
        needed = _dependencies([chunk for chunk, *_ in self.stores])
        self.loads = [(x, *x.args) for x in needed if x.op in LOADS]
        if len(self.loads) + len(self.stores) > MAX_ACCESSES:
            raise Unsupported(f"more than {MAX_ACCESSES} arrays, or slices of them")
        shapes = [*(x.shape for x in inputs), *[()] * len(self.scalars)]
        self.layouts = self._layouts([shapes[k] for _, k, _ in self.loads], shape)
        self.lines = body(
            [x for x in needed if x.op not in LOADS],
            [x for x, *_ in self.loads],
            [x for x, *_ in self.stores],
        )
        calls = sum(bool(CALL.search(line)) for line in self.lines)
        self.limit = SLOW_CALL_LIMIT * len(self.lines) / calls if calls else math.inf
        if math.prod(shape) * self.width > self.limit and not any_size:
            raise Unsupported(f"{calls} calls for each of many elements")

    def _lowered(self, steps: Sequence[Any], inputs: Sequence[Any]) -> dict[Any, list[ScalarOp]]:
        """Return the chunks of each expression in the loop; a broadcast expression has one."""
        chunks: dict[Any, list[ScalarOp]] = {}
        for k, x in enumerate(inputs):
            starts = range(0, x.shape[-1], self.width) if x.shape[-1:] not in ((), (1,)) else [0]
            chunks[x] = [self._intern("load", (k, start), x.dtype) for start in starts]
        for x in steps:
            if x.op in ("sum", "reshape"):
                continue
            if any(is_expression(a) and a not in chunks for a in x.args):
                continue
            if x.op == "constant" and type(x.args[0]) is Number:
                chunks[x] = [self._scalar(x.args[0], len(inputs), x.dtype)]
            elif x.op == "zeros":
                chunks[x] = [self._intern("zeros", (), x.dtype)] * (x.shape[-1] // self.width)
            elif x.op == "slice":
                whole, start, stop = x.args
                chunks[x] = chunks[whole][start // self.width : stop // self.width]
            elif x.op == "concatenate":
                chunks[x] = [chunk for a in x.args for chunk in chunks[a]]
            else:
                numbers = any(type(a) is Number for a in x.args)
                dtypes = _operand_dtypes(x) if numbers else [None] * len(x.args)
                args = [
                    chunks[a]
                    if is_expression(a)
                    else [self._scalar(a, len(inputs), dtype) if type(a) is Number else a]
                    for a, dtype in zip(x.args, dtypes, strict=True)
                ]
                chunks[x] = [
                    self._intern(x.op, tuple(a[i if len(a) > 1 else 0] for a in args), x.dtype)
                    for i in range(max(map(len, args)))
                ]
            if len(self._table) > MAX_OPERATIONS:
                raise Unsupported(f"more than {MAX_OPERATIONS} operations")
        return chunks

    def _scalar(self, number: Number, start: int, dtype: Any) -> ScalarOp:
        """Return the load of a number argument in a dtype."""
        known = [n is number and t == dtype for n, t in self.scalars]
        index = known.index(True) if True in known else len(known)
        self.scalars[index:] = self.scalars[index:] or [(number, dtype)]
        return self._intern("scalar", (start + index, 0), dtype)

    def _layouts(
        self, shapes: Sequence[tuple[int, ...]], before: tuple[int, ...]
    ) -> list[tuple[int, ...]]:
        """Return the `layouts`, from the shapes of the loads."""
        last = [k for k, shape in enumerate(shapes) if shape[-1:] in ((), (1,))]
        rows = [k for k, shape in enumerate(shapes) if math.prod(shape[:-1]) < math.prod(before)]
        return list(dict.fromkeys([(), tuple(last), tuple(rows)]))

    def _intern(self, op: str, args: tuple[Any, ...], dtype: Any) -> ScalarOp:
        """Return the ScalarOp of an operation: an existing one, or a new one."""
        key = (op, dtype, *[id(a) if isinstance(a, ScalarOp) else repr(a) for a in args])
        if key not in self._table:
            self._table[key] = ScalarOp(op, args, dtype, len(self._table))
        return self._table[key]


LOADS = frozenset(("load", "scalar"))  # read memory


def is_expression(x: Any) -> bool:
    """Tell whether x is an expression, and not a number."""
    return type(x) is not Number and hasattr(x, "op")


def _operand_dtypes(x: Any) -> list[Any]:
    """Return the dtypes to which an operation converts its operands."""
    if x.op == "where":
        return [np.dtype(bool), x.dtype, x.dtype]
    return list(getattr(np, x.op).resolve_dtypes((*kinds_of(x.args), None)))[:-1]


def _common_width(expressions: Sequence[Any]) -> int:
    """Return the width of chunks: the greatest common divisor of all bounds of slices."""
    cuts = [n for x in expressions for n in x.shape[-1:] if n != 1]
    for x in expressions:
        cuts += x.args[1:] if x.op == "slice" else []
        cuts += [a.shape[-1] for a in x.args] if x.op == "concatenate" else []
    if any(0 in x.shape for x in expressions):
        raise Unsupported("no elements")
    return math.gcd(*cuts) or 1


def _dependencies(outputs: Sequence[ScalarOp]) -> list[ScalarOp]:
    """Return the ScalarOps that `outputs` need, in the order of computation."""
    found: set[ScalarOp] = set()
    stack = list(outputs)
    while stack:
        x = stack.pop()
        if x not in found:
            found.add(x)
            stack += [a for a in x.args if isinstance(a, ScalarOp)]
    return sorted(found, key=lambda x: x.number)


# -- from ScalarOps to C ---------------------------------------------------------------------------

TYPES = {np.dtype("bool"): "bool", np.dtype("float32"): "float", np.dtype("float64"): "double"}
TYPES |= {np.dtype(f"{u}int{n}"): f"{u}int{n}_t" for u in ("", "u") for n in (8, 16, 32, 64)}

OPERATIONS = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "positive": "{0}",
    "negative": "-{0}",
    "square": "{0} * {0}",
    "absolute": "{0} <= 0 ? 0 - {0} : {0}",  # of -0 too; nan stays
    "sign": "{0} != {0} ? {0} : ({T})(({0} > 0) - ({0} < 0))",
    "maximum": "({0} >= {1}) | ({0} != {0}) ? {0} : {1}",  # nan wins
    "minimum": "({0} <= {1}) | ({0} != {0}) ? {0} : {1}",
    "equal": "{0} == {1}",
    "not_equal": "{0} != {1}",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
    "logical_and": "({0} != 0) & ({1} != 0)",
    "logical_or": "({0} != 0) | ({1} != 0)",
    "logical_xor": "({0} != 0) ^ ({1} != 0)",
    "logical_not": "{0} == 0",
    "isnan": "{0} != {0}",
    "isfinite": "{0} - {0} == 0",
    "zeros": "0",
    "where": "{0} ? {1} : {2}",
    "sqrt": "sqrt({0})",
    "sin": "sin({0})",
    "cos": "cos({0})",
    "exp": "exp_{T}({0})",
    "expm1": "expm1_{T}({0})",
    "log": "log_{T}({0})",
    "log1p": "log1p_{T}({0})",
    "tanh": "tanh_{T}({0})",
    "logaddexp": "logaddexp_{T}({0}, {1})",
}

CALL = re.compile(r"\b(sin|cos|pow)\(")  # of the C library

# Powers that need no logarithm; for other exponents the C library is called.
POWERS: dict[Any, str] = {
    0: "1", 1: "{0}", 2: "{0} * {0}", 3: "{0} * {0} * {0}", -1: "1 / {0}",
    0.5: "sqrt({0})", -0.5: "1 / sqrt({0} + 0)",
}  # fmt: skip


# A number argument as exponent: the same special cases as in NumPy.
ANY_POWER = (
    "{1} == 2 ? {0} * {0} : {1} == 1 ? {0} : {1} == 0 ? 1 : {1} == -1 ? 1 / {0} "
    ": {1} == ({T})0.5 ? sqrt({0}) : pow({0}, {1})"
)


def body(
    steps: Sequence[ScalarOp], inputs: Sequence[ScalarOp], outputs: Sequence[ScalarOp]
) -> list[str]:
    """Return the lines that compute element ``i`` of ``r0, r1 …`` from that of ``a0, a1 …``."""
    names = {x: f"x{x.number}" for x in (*inputs, *steps)}
    lines = []
    for k, x in enumerate(inputs):
        byte = x.dtype.kind == "b"  # a mask may hold any byte
        value = f"((const unsigned char *)a{k})[i] != 0" if byte else f"a{k}[i]"
        lines.append(f"const {c_type(x.dtype)} {names[x]} = {value};")
    for x in steps:
        lines.append(f"const {c_type(x.dtype)} {names[x]} = {_value(x, names)};")
    return [*lines, *(f"r{k}[i] = {names[x]};" for k, x in enumerate(outputs))]


def kinds_of(args: Sequence[Any]) -> list[Any]:
    """Return the arguments' dtypes, or the class of a Python number, for ``resolve_dtypes``."""
    kinds = [a.__class__ if type(a) is Number else getattr(a, "dtype", type(a)) for a in args]
    return [np.dtype(bool) if kind is bool else kind for kind in kinds]


def c_type(dtype: np.dtype[Any]) -> str:
    """Return the name of a dtype in C."""
    if dtype not in TYPES:
        raise Unsupported(dtype)
    return TYPES[dtype]


def _value(x: ScalarOp, names: dict[ScalarOp, str]) -> str:
    """Return the C expression of an operation, with operands converted as NumPy does."""
    kinds = kinds_of(x.args)
    if x.op == "constant":
        return _operand(x.args[0], x.dtype, names)
    if x.op == "astype":
        if x.dtype.kind in "iu" and kinds[0].kind == "f":
            raise Unsupported("the integer of a nan")
        return _operand(x.args[0], x.dtype, names)
    if x.op in ("where", "zeros"):
        op, dtypes = x.op, [np.dtype(bool), x.dtype, x.dtype][: len(x.args)]
    else:
        ufunc = getattr(np, x.op)
        op, (*dtypes, made) = ufunc.__name__, ufunc.resolve_dtypes((*kinds, None))
        if made != x.dtype or len(set(dtypes)) > 1:
            raise Unsupported(x.op)
    template = OPERATIONS.get(op)
    if op == "power":
        exponent = None if isinstance(x.args[1], ScalarOp) else x.args[1]
        if x.dtype.kind == "f" and isinstance(x.args[1], ScalarOp) and x.args[1].op == "scalar":
            template = ANY_POWER
        elif x.dtype.kind == "f":
            template = POWERS.get(exponent, "pow({0}, {1})")
        elif exponent in (0, 1, 2, 3):
            template = POWERS[exponent]
    if template is None:
        raise Unsupported(op)
    args = [_operand(a, dtype, names) for a, dtype in zip(x.args, dtypes, strict=True)]
    return template.format(*args, T=c_type(dtypes[-1] if dtypes else x.dtype))


def _operand(x: Any, dtype: np.dtype[Any], names: dict[ScalarOp, str]) -> str:
    if isinstance(x, ScalarOp):
        return names[x] if x.dtype == dtype else f"(({c_type(dtype)}){names[x]})"
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= x <= np.iinfo(dtype).max:
        raise Unsupported("an integer out of the range of the dtype")
    if dtype.kind != "f":
        return f"(({c_type(dtype)}){int(x)})"
    number = dtype.type(x)
    if not np.isfinite(number):
        return "NAN" if np.isnan(number) else f"({'-' * bool(number < 0)}INFINITY)"
    text = f"{number!s}f" if c_type(dtype) == "float" else f"{number!s}"
    return f"({text})" if text[0] == "-" else text
