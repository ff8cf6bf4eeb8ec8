"""From expressions to one loop: what each turn of it reads, computes and writes.

A kernel's expressions have shapes of their own: arguments are split along the last axis, gradients
of parts are joined, a bias is broadcast. A loop has one shape. So every expression is cut along its
last axis into *strips*, as wide as the greatest common divisor of all places where something is
cut. A part is then nothing but a choice of strips, a join nothing but a list of them, and an
operation on a wide expression is one on each of its strips. What is left are operations on single
elements, each written down once: the body of the loop, in C that CUDA takes as well.

Sums over what was broadcast, and what is computed from them, stay outside of the loop.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from .scalars import Number

LARGEST = 1000  # strips in a loop: for more, a compiler takes its time
PLACES = 256  # strips that it reads or writes
# A call of the C library takes 5 ns an element, a tenth of that in NumPy, whose sine works on many
# elements at once; a call of a ufunc takes 500 ns. So there is a number of elements from which a
# loop with such calls is the slower one: this times operations, by calls.
PATIENCE = 100


class Uncovered(Exception):
    """What there is no loop for; a schedule of ufuncs computes it."""


# -- from expressions to strips --------------------------------------------------------------------


class Strip:
    """What the elements of a strip are: an operation and its arguments, strips or numbers.

    One that is ``given`` has the number of its array, and where it starts in the last axis.
    """

    __slots__ = ("args", "dtype", "number", "op")

    def __init__(self, op: str, args: tuple[Any, ...], dtype: np.dtype[Any], number: int) -> None:
        self.op, self.args, self.dtype, self.number = op, args, dtype, number


class Loop:
    """The loop that computes what it can of some expressions.

    Parameters
    ----------
    steps : sequence of expressions
        In the order of computation. An expression has an ``op`` (the name of a ufunc, where,
        astype, part, join, zeros, sum, reshape), ``args`` (expressions, numbers), ``dtype`` and
        ``shape``.
    given : sequence of expressions
        What the steps start from: the arrays that the loop is called with.
    results : sequence
        What is wanted: expressions, or anything else, which is ignored.
    any_size : bool
        Whether it is called with other lengths of axes too: then `limit` is for the caller to ask.

    Attributes
    ----------
    made : list of expressions
        The arrays that the loop fills: of the wanted ones, and those summed or reshaped, all that
        have the shape of the loop but for the last axis.
    width : int
        The length of the last axis of the strips; 1 without axes.
    scalars : list of (Number, dtype)
        The numbers of a call that it reads, as arrays without axes.
    limit : float
        The number of elements from which a schedule of ufuncs is faster.
    inputs, outputs : list of (Strip, int, int)
        Each strip that is read from memory or written to it, the number of its array (`given`,
        `scalars`, then `made`), and where it starts in the last axis of that.
    ways : list of tuples of int
        The numbers of the inputs that are one element while a run through memory goes on: of which
        nothing is broadcast (none), what is broadcast along the last axis, along those before.
    lines : list of str
        The body: element ``i`` of ``r0, r1 …``, the outputs, from that of ``a0, a1 …``.

    Raises
    ------
    Uncovered
        If there is nothing for a loop to do, or no C for it.
    """

    def __init__(
        self,
        steps: Sequence[Any],
        given: Sequence[Any],
        results: Sequence[Any],
        any_size: bool = False,
    ) -> None:
        self._table: dict[Any, Strip] = {}
        self.scalars: list[tuple[Number, Any]] = []
        self.width = _common_width([*steps, *given])
        strips = self._strips(steps, given)
        axes = max(len(x.shape) for x in (*steps, *given))
        try:
            shape = np.broadcast_shapes(*(x.shape[:-1] for x in (*steps, *given)))
        except ValueError:
            raise Uncovered("shapes that have nothing in common") from None
        summed = [x.args[0] for x in steps if x.op in ("sum", "reshape")]
        self.made = [
            x
            for x in dict.fromkeys([*filter(is_expression, results), *summed])
            if x in strips
            and x.shape == (*shape, len(strips[x]) * self.width)[:axes]
            and any(strip.op != "given" for strip in strips[x])
        ]
        if not self.made:
            raise Uncovered("nothing of the loop's shape")
        self.outputs = [
            (strip, len(given) + len(self.scalars) + k, i * self.width)
            for k, x in enumerate(self.made)
            for i, strip in enumerate(strips[x])
        ]
        needed = _needed([strip for strip, *_ in self.outputs])
        self.inputs = [(x, *x.args) for x in needed if x.op in READ]
        if len(self.inputs) + len(self.outputs) > PLACES:
            raise Uncovered(f"more than {PLACES} arrays, or parts of them")
        shapes = [*(x.shape for x in given), *[()] * len(self.scalars)]
        self.ways = self._ways([shapes[k] for _, k, _ in self.inputs], shape)
        self.lines = body(
            [x for x in needed if x.op not in READ],
            [x for x, *_ in self.inputs],
            [x for x, *_ in self.outputs],
        )
        calls = sum(bool(CALL.search(line)) for line in self.lines)
        self.limit = PATIENCE * len(self.lines) / calls if calls else math.inf
        if math.prod(shape) * self.width > self.limit and not any_size:
            raise Uncovered(f"{calls} calls for each of many elements")

    def _strips(self, steps: Sequence[Any], given: Sequence[Any]) -> dict[Any, list[Strip]]:
        """Return the strips of every expression that has some, one if it is broadcast."""
        strips: dict[Any, list[Strip]] = {}
        for k, x in enumerate(given):
            starts = range(0, x.shape[-1], self.width) if x.shape[-1:] not in ((), (1,)) else [0]
            strips[x] = [self._enter("given", (k, start), x.dtype) for start in starts]
        for x in steps:
            if x.op in ("sum", "reshape"):
                continue
            if any(is_expression(a) and a not in strips for a in x.args):
                continue
            if x.op == "constant" and type(x.args[0]) is Number:
                strips[x] = [self._scalar(x.args[0], len(given), x.dtype)]
            elif x.op == "zeros":
                strips[x] = [self._enter("zeros", (), x.dtype)] * (x.shape[-1] // self.width)
            elif x.op == "part":
                whole, start, stop = x.args
                strips[x] = strips[whole][start // self.width : stop // self.width]
            elif x.op == "join":
                strips[x] = [strip for a in x.args for strip in strips[a]]
            else:
                numbers = any(type(a) is Number for a in x.args)
                taken = _taken(x) if numbers else [None] * len(x.args)
                args = [
                    strips[a]
                    if is_expression(a)
                    else [self._scalar(a, len(given), dtype) if type(a) is Number else a]
                    for a, dtype in zip(x.args, taken, strict=True)
                ]
                strips[x] = [
                    self._enter(x.op, tuple(a[i if len(a) > 1 else 0] for a in args), x.dtype)
                    for i in range(max(map(len, args)))
                ]
            if len(self._table) > LARGEST:
                raise Uncovered(f"more than {LARGEST} operations")
        return strips

    def _scalar(self, number: Number, start: int, dtype: Any) -> Strip:
        """Return the strip of a number of the call, in a dtype."""
        known = [n is number and t == dtype for n, t in self.scalars]
        place = known.index(True) if True in known else len(known)
        self.scalars[place:] = self.scalars[place:] or [(number, dtype)]
        return self._enter("number", (start + place, 0), dtype)

    def _ways(
        self, shapes: Sequence[tuple[int, ...]], before: tuple[int, ...]
    ) -> list[tuple[int, ...]]:
        """Return which inputs do not move along the last axis, or along those before it."""
        last = [k for k, shape in enumerate(shapes) if shape[-1:] in ((), (1,))]
        rows = [k for k, shape in enumerate(shapes) if math.prod(shape[:-1]) < math.prod(before)]
        return list(dict.fromkeys([(), tuple(last), tuple(rows)]))

    def _enter(self, op: str, args: tuple[Any, ...], dtype: Any) -> Strip:
        """Return the strip of these parts: the one that is there, or a new one."""
        key = (op, dtype, *[id(a) if isinstance(a, Strip) else repr(a) for a in args])
        if key not in self._table:
            self._table[key] = Strip(op, args, dtype, len(self._table))
        return self._table[key]


READ = frozenset(("given", "number"))  # what comes from memory


def is_expression(x: Any) -> bool:
    """Tell an expression from a number."""
    return type(x) is not Number and hasattr(x, "op")


def _taken(x: Any) -> list[Any]:
    """Return the dtypes in which an operation takes its operands."""
    if x.op == "where":
        return [np.dtype(bool), x.dtype, x.dtype]
    return list(getattr(np, x.op).resolve_dtypes((*kinds_of(x.args), None)))[:-1]


def _common_width(expressions: Sequence[Any]) -> int:
    """Return the greatest width of which everything that is cut or joined is a multiple."""
    cuts = [n for x in expressions for n in x.shape[-1:] if n != 1]
    for x in expressions:
        cuts += x.args[1:] if x.op == "part" else []
        cuts += [a.shape[-1] for a in x.args] if x.op == "join" else []
    if any(0 in x.shape for x in expressions):
        raise Uncovered("no elements")
    return math.gcd(*cuts) or 1


def _needed(outputs: Sequence[Strip]) -> list[Strip]:
    """Return the strips that some are computed from, in the order of computation."""
    found: set[Strip] = set()
    stack = list(outputs)
    while stack:
        x = stack.pop()
        if x not in found:
            found.add(x)
            stack += [a for a in x.args if isinstance(a, Strip)]
    return sorted(found, key=lambda x: x.number)


# -- from strips to C: the body of the loop --------------------------------------------------------

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

# x ** 2 and its like need no logarithm; the others are left to the C library.
POWERS: dict[Any, str] = {
    0: "1", 1: "{0}", 2: "{0} * {0}", 3: "{0} * {0} * {0}", -1: "1 / {0}",
    0.5: "sqrt({0})", -0.5: "1 / sqrt({0} + 0)",
}  # fmt: skip


# A number of the call as exponent: the same ways, as NumPy goes them.
ANY_POWER = (
    "{1} == 2 ? {0} * {0} : {1} == 1 ? {0} : {1} == 0 ? 1 : {1} == -1 ? 1 / {0} "
    ": {1} == ({T})0.5 ? sqrt({0}) : pow({0}, {1})"
)


def body(steps: Sequence[Strip], inputs: Sequence[Strip], outputs: Sequence[Strip]) -> list[str]:
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
    """Return the dtypes of arguments, and the types of those that are numbers, as ufuncs ask."""
    kinds = [a.__class__ if type(a) is Number else getattr(a, "dtype", type(a)) for a in args]
    return [np.dtype(bool) if kind is bool else kind for kind in kinds]


def c_type(dtype: np.dtype[Any]) -> str:
    """Return the name of a dtype in C."""
    if dtype not in TYPES:
        raise Uncovered(dtype)
    return TYPES[dtype]


def _value(x: Strip, names: dict[Strip, str]) -> str:
    """Return the C expression of an operation, its operands in the dtype that NumPy computes in."""
    kinds = kinds_of(x.args)
    if x.op == "constant":
        return _operand(x.args[0], x.dtype, names)
    if x.op == "astype":
        if x.dtype.kind in "iu" and kinds[0].kind == "f":
            raise Uncovered("the integer of a nan")
        return _operand(x.args[0], x.dtype, names)
    if x.op in ("where", "zeros"):
        op, dtypes = x.op, [np.dtype(bool), x.dtype, x.dtype][: len(x.args)]
    else:
        ufunc = getattr(np, x.op)
        op, (*dtypes, made) = ufunc.__name__, ufunc.resolve_dtypes((*kinds, None))
        if made != x.dtype or len(set(dtypes)) > 1:
            raise Uncovered(x.op)
    template = OPERATIONS.get(op)
    if op == "power":
        exponent = None if isinstance(x.args[1], Strip) else x.args[1]
        if x.dtype.kind == "f" and isinstance(x.args[1], Strip) and x.args[1].op == "number":
            template = ANY_POWER
        elif x.dtype.kind == "f":
            template = POWERS.get(exponent, "pow({0}, {1})")
        elif exponent in (0, 1, 2, 3):
            template = POWERS[exponent]
    if template is None:
        raise Uncovered(op)
    args = [_operand(a, dtype, names) for a, dtype in zip(x.args, dtypes, strict=True)]
    return template.format(*args, T=c_type(dtypes[-1] if dtypes else x.dtype))


def _operand(x: Any, dtype: np.dtype[Any], names: dict[Strip, str]) -> str:
    if isinstance(x, Strip):
        return names[x] if x.dtype == dtype else f"(({c_type(dtype)}){names[x]})"
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= x <= np.iinfo(dtype).max:
        raise Uncovered("an integer that the dtype has not")
    if dtype.kind != "f":
        return f"(({c_type(dtype)}){int(x)})"
    number = dtype.type(x)
    if not np.isfinite(number):
        return "NAN" if np.isnan(number) else f"({'-' * bool(number < 0)}INFINITY)"
    text = f"{number!s}f" if c_type(dtype) == "float" else f"{number!s}"
    return f"({text})" if text[0] == "-" else text
