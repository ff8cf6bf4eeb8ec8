"""Lowering of a step to C: stages of elementwise loops, and matrix products between them.

A value of a step has a row for each sequence. The product of a row with a matrix reads all of the
row, and so does a sum over the last axis; everything else is computed element by element. So the
operations have *levels*: level 0 depends on given values alone, level 1 on products and sums of
level 0, and so on. All operations of a level on values of related widths are one loop over the
elements of a row. The loops of consecutive levels without a product between them are one *stage*, a
function in C for a range of rows::

    product  t0 = s0 @ a3               # whole rows
    stage    n0 = tanh(x0 + t0)         # one loop over the elements of a row

Slices and concatenations cost nothing where their bounds are multiples of one width (the gates of a
cell): a loop then computes an element of each *chunk* of that width. `body` of `loops` writes it.

Lengths and numbers are arguments of a stage, so the C source of a cell is the same for all sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .expressions import Expression, needed
from .loops import Unsupported, c_type
from .math_functions import PREAMBLE, math_functions
from .stage_loop import REDUCTIONS, WHOLE_ROWS, Argument, StageLoop

MAX_CHUNKS = 16  # of a value; a slice that needs more is read from memory
LITERALS = (0, 1, 2, 3, -1, 0.5, -0.5)  # numbers that are written in the source

# Sums of a row have as many partial sums as a vector has elements.
SUM = """
typedef $T lanes_$T __attribute__((vector_size(64), aligned(sizeof($T)), may_alias));
static inline $T sum_$T(const $T *x, intptr_t n)
{
    enum { LANES = 64 / sizeof($T) };
    lanes_$T total = {0};
    intptr_t i = 0;
    for (; i + LANES <= n; i += LANES) total += *(const lanes_$T *)(x + i);
    $T parts[LANES];
    for (int j = 0; j < LANES; j++) parts[j] = total[j] + (i + j < n ? x[i + j] : 0);
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) parts[j] += parts[j + half];
    return parts[0];
}
"""


class Operation(NamedTuple):
    """An operation of a program: as ``struct operation`` of ``loop_runtime.c``, with names."""

    kind: str  # "stage" or "product"
    out: str = ""
    operand: str = ""
    dtype: Any = None
    columns: int = 0
    which: Any = None  # the number of the stage, or the expression of the weight
    offset: int = 0
    adds: bool = False  # a product that is added to the array


class Scratch(NamedTuple):
    """A value of one time step that is kept between operations."""

    width: int
    dtype: Any


class Stages:
    """The operations of one time step, in order, and the C source of its stages.

    Parameters
    ----------
    given : dict of Expression to str
        The values that are in memory, and their names.
    targets : list of (Expression, str)
        The values to compute, and the names of the arrays to write them to.
    added : list of (Expression, str)
        Values to add to arrays of doubles.
    rooms : set of str
        The names of arrays whose rows have room for whole vectors: targets of products.

    Attributes
    ----------
    source : str
        The C source, with one function ``stage0, stage1 …`` for each stage.
    operations : list of Operation
        Of a time step.
    buffers : list of str
        The names of all arrays; stages refer to them by number.
    scratch : dict of str to Scratch
        The arrays for one time step that the caller has to provide.
    outside : dict of Expression to str
        Values that depend on invariants alone, and are computed before the loop.
    weights : dict of Expression to int
        The right operands of products, with their numbers.
    sizes, numbers : list
        The arguments of the stages.
    rows : int
        The number of rows.
    """

    def __init__(
        self,
        given: dict[Expression, str],
        targets: Sequence[tuple[Expression, str]],
        added: Sequence[tuple[Expression, str]],
        rooms: set[str],
    ) -> None:
        self.sums: dict[Expression, tuple[str, Any]] = {}
        targets = self._split_sums(given, targets, added, rooms)
        wanted = [*(x for x, _ in (*targets, *added)), *self.sums]
        self.given, self.targets, self.added, self.rooms = given, targets, added, rooms
        self.steps = [x for x in needed(wanted, given) if x.varies]
        self.batch = self._leading([*given, *self.steps])
        self.rows = math.prod(self.batch)
        self.buffers: list[str] = []
        self.scratch: dict[str, Scratch] = {}
        self.outside: dict[Expression, str] = {}
        self.weights: dict[Expression, int] = {}  # their numbers
        self.sizes: list[int] = []
        self.numbers: list[float] = []
        self.operations: list[Operation] = []
        self.forms: dict[Expression, tuple[bool, int]] = {}
        for x in self.steps:
            self.form(x)
        self._unite()
        self._assign_levels()
        self._assign_memory()
        self._emit()

    def _split_sums(
        self,
        given: dict[Expression, str],
        targets: Sequence[tuple[Expression, str]],
        added: Sequence[tuple[Expression, str]],
        rooms: set[str],
    ) -> Sequence[tuple[Expression, str]]:
        """Return the targets without products that are added to an array.

        Such products are the keys of `sums`: with the name of the array, and the value to which
        they are added. The runtime in C has none.
        """
        return targets

    # -- rows and widths ---------------------------------------------------------------------------

    def _leading(self, values: Sequence[Expression]) -> tuple[int, ...]:
        """Return the shape of the rows: that of the axes before the last."""
        shapes = {x.sizes[:-1] for x in values if x.varies and x.op != "transpose"}
        return max(shapes, key=math.prod, default=())

    def form(self, x: Expression) -> tuple[bool, int]:
        """Return whether a value has a row for each sequence, and the width of a row."""
        if x not in self.forms:
            self.forms[x] = self._find_form(x)
        return self.forms[x]

    def _find_form(self, x: Expression) -> tuple[bool, int]:
        scalars = self._of_scalars(x) if x not in self.given else False
        before, width = x.sizes[:-1], x.sizes[-1] if x.sizes else 1
        if scalars:
            return True, 1
        if math.prod(before) == 1 and self.rows > 1:
            return False, width
        if math.prod(before) == self.rows and (before == self.batch or self.rows == 1):
            return True, width
        raise Unsupported(f"{x.op} of shape {x.sizes}, among rows of shape {self.batch}")

    def _of_scalars(self, x: Expression) -> bool:
        """Tell whether x has one number for each row, without a last axis."""
        if x.sizes != self.batch or not self.batch or not x.varies:
            return False
        if x.op == "reshape":
            source = x.args[0]
            return self.form(source) == (True, 1) and math.prod(source.sizes) == self.rows
        args = [a for a in x.args if a.__class__ is Expression and a.sizes and a.varies]
        return bool(args) and all(
            a.sizes == self.batch and self.form(a) == (True, 1) and a not in self.given
            for a in args
        )

    def width(self, x: Expression) -> int:
        """Return the number of elements of a row of a value."""
        return self.form(x)[1] if x.varies else (x.sizes[-1] if x.sizes else 1)

    # -- units: values that one loop can compute ---------------------------------------------------

    def _unite(self) -> None:
        """Group the values by loops: those that are computed from one another in chunks."""
        self.group: dict[Expression, Expression] = {x: x for x in self.steps}
        self.apart: set[Expression] = set()  # slices and concatenations that go through memory
        for x in self.steps:
            if x.op == "reshape" and self.form(x) != self.form(x.args[0]):
                raise Unsupported(f"reshape of {x.args[0].sizes} to {x.sizes}: other rows")
            if x.op in WHOLE_ROWS:
                self._check(x)
            elif x.op == "slice":
                whole, start, stop = x.args
                if whole in self.group and whole.op not in WHOLE_ROWS:
                    width = stop - start
                    if start % width or self.width(whole) > MAX_CHUNKS * width:
                        self.apart.add(x)
                    elif self.width(whole) % width:
                        self.apart.add(x)
                    else:
                        self._join(x, whole)
            elif x.op == "concatenate":
                widths = [self.width(a) for a in x.args]
                if sum(widths) > MAX_CHUNKS * math.gcd(*widths):
                    self.apart.add(x)
                else:
                    for a in x.args:
                        self._join(x, a)
            else:
                for a in x.args:
                    if a.__class__ is Expression and self.width(a) == self.width(x):
                        self._join(x, a)
        self.unit = {x: 1 for x in self.steps}
        members: dict[Expression, list[Expression]] = {}
        for x in self.steps:
            members.setdefault(self._find(x), []).append(x)
        for group in members.values():
            cuts = [self.width(x) for x in group]
            for x in group:
                if x.op == "slice" and x not in self.apart:
                    cuts += [x.args[1], x.args[2]] if x.args[0] in self.group else []
                if x.op == "concatenate" and x not in self.apart:
                    cuts += [self.width(a) for a in x.args]
            width = math.gcd(*cuts)
            if max(map(self.width, group)) > 4 * MAX_CHUNKS * width:
                raise Unsupported("slices whose bounds have no large common divisor")
            self.unit.update(dict.fromkeys(group, width))

    def _check(self, x: Expression) -> None:
        operand = x.args[0]
        if x.op == "matmul":
            weight = x.args[1]
            if not operand.varies or weight.varies or not self.form(operand)[0]:
                raise Unsupported("a product that is not rows times a matrix")
            if x.dtype not in (np.float32, np.float64) or weight.dtype != x.dtype:
                raise Unsupported(f"a product of {x.dtype}")
        elif x.args[1] != (len(operand.sizes) - 1,) or x.dtype.kind != "f":
            raise Unsupported(f"a {x.op} over axes {x.args[1]} of shape {operand.sizes}")

    def _find(self, x: Expression) -> Expression:
        while self.group[x] is not x:
            x = self.group[x]
        return x

    def _join(self, x: Expression, y: Expression) -> None:
        if y in self.group and y.op not in WHOLE_ROWS and y not in self.given:
            self.group[self._find(x)] = self._find(y)

    # -- levels ------------------------------------------------------------------------------------

    def _assign_levels(self) -> None:
        """Find the level of each value: that of the loop, product or sum that computes it."""
        self.level: dict[Expression, int] = {}
        for x in self.steps:
            args = [a for a in x.args if a.__class__ is Expression and a.varies]
            if x.op == "matmul":
                self.level[x] = max(self.level.get(a, -1) for a in args)
                if x in self.sums:  # after the value to which it is added
                    self.level[x] = max(self.level[x], self._loop_level(self.sums[x][1]))
            elif x.op in REDUCTIONS:
                operand = x.args[0]
                after = operand in self.level and operand.op == "matmul"  # after the product
                self.level[x] = max(0, self.level.get(operand, -1) + after)
            else:
                self.level[x] = max([0, *(self._available(a, x) for a in args)])

    def _available(self, a: Expression, to: Expression) -> int:
        """Return the first level in which a loop for `to` can read `a`."""
        if a not in self.level:
            return 0
        if a.op in WHOLE_ROWS:
            return self.level[a] + 1
        if to in self.apart and to.op == "concatenate":
            return self.level[a]
        together = self._find(a) is self._find(to) and to not in self.apart and a not in self.apart
        return self.level[a] if together else self.level[a] + 1

    # -- memory ------------------------------------------------------------------------------------

    def number_of(self, name: str) -> int:
        """Return the number of an array."""
        if name not in self.buffers:
            self.buffers.append(name)
        return self.buffers.index(name)

    def _assign_memory(self) -> None:
        """Find the array of each value that is read by another loop, a product or a sum."""
        self.place: dict[Expression, tuple[str, int]] = {x: (n, 0) for x, n in self.given.items()}
        self.stores: list[tuple[Expression, str, int]] = []  # a value, an array, the offset
        direct: dict[Expression, str] = {}
        # A product is added to these later; other loops read the value elsewhere.
        self.changed = {name for name, other in self.sums.values() if other.op != "matmul"}
        for x, name in self.targets:
            if not x.varies:
                self.outside_place(x)
            elif x.op == "matmul" and (name not in self.rooms or x in direct):
                continue  # copied by a loop
            elif x not in self.given and name not in self.changed:
                direct.setdefault(x, name)
        for x in self.steps:
            if x.op in WHOLE_ROWS:
                into = self.sums[x][0] if x in self.sums else direct.get(x)
                self.place[x] = (into or self._scratch(x), 0)
                self._require(x.args[0])
            for a in x.args:
                if a.__class__ is not Expression or not a.varies or x.op in WHOLE_ROWS:
                    continue
                if a in self.level and a.op not in WHOLE_ROWS:
                    together = self._find(a) is self._find(x) and self.level[a] == self.level[x]
                    if not together or x in self.apart or a in self.apart:
                        self._require(a)
        for x, name in self.targets:
            if x.varies and direct.get(x) == name:
                if x.op not in WHOLE_ROWS:
                    self._store(x, name)
            else:
                self.stores.append((x, name, 0))

    def _operand_place(self, x: Expression) -> tuple[str, int]:
        """Return the array that a product reads, and the start in its rows."""
        return self.place[x]

    def _scratch(self, x: Expression) -> str:
        name = f"t{len(self.scratch)}"
        self.scratch[name] = Scratch(self.width(x), x.dtype)
        return name

    def _require(self, x: Expression) -> None:
        """Put a value in memory, unless it is there."""
        if x in self.place or not x.varies:
            return
        if x.op == "slice" and x not in self.level:
            raise AssertionError(x)
        if x.op == "slice" and (x.args[0] in self.given or x.args[0] in self.place):
            name, offset = self.place[x.args[0]]
            self.place[x] = name, offset + x.args[1]
            return
        targets = (name for y, name in self.targets if y is x and name not in self.changed)
        named = next(targets, None)
        self._store(x, named or self._scratch(x))

    def _store(self, x: Expression, name: str) -> None:
        """Note that a loop writes a value to an array; parts of some values are written apart."""
        if x in self.place and self.place[x][0] == name:
            return
        self.place.setdefault(x, (name, 0))
        if x.op == "concatenate" and x in self.apart:
            start = 0
            for a in x.args:
                self.stores.append((a, name, start))
                start += self.width(a)
        else:
            self.stores.append((x, name, 0))

    def outside_place(self, x: Expression) -> tuple[str, int]:
        """Return the place of a value that depends on invariants alone."""
        if x not in self.place:
            self.outside[x] = f"v{x.number}"
            self.place[x] = self.outside[x], 0
        return self.place[x]

    # -- emission ----------------------------------------------------------------------------------

    def _emit(self) -> None:
        last = max(self.level.values(), default=0)
        functions: list[str] = []
        self.loops: list[str] = []
        stage: list[list[str]] = []  # the loops of each level, then its sums

        def close() -> None:
            if stage:
                functions.append(self._function(len(functions), stage))
                self.operations.append(Operation("stage", which=len(functions) - 1))
                stage.clear()

        for level in range(-1, last + 2):
            if level >= 0:
                stage += filter(None, self._loops(level))
            products = [x for x in self.steps if x.op == "matmul" and self.level[x] == level]
            if products:
                close()
            for x in products:
                left, weight = x.args
                self.weights.setdefault(weight, len(self.weights))
                operand, offset = self._operand_place(left)
                self.operations.append(
                    Operation(
                        "product", self.place[x][0], operand, x.dtype, x.sizes[-1], weight,
                        offset * x.dtype.itemsize, x in self.sums,
                    )
                )  # fmt: skip
        close()
        for operation in self.operations:
            for name in (operation.out, operation.operand):
                if name:
                    self.number_of(name)
        self.source = self._source(functions)

    def _function(self, number: int, stage: list[list[str]]) -> str:
        """Return the function of a stage."""
        return _STAGE.format(number, "\n".join(text for texts in stage for text in texts))

    def _source(self, functions: list[str]) -> str:
        """Return the source of all stages."""
        text = "".join([*self.loops, *functions])
        kinds = [T for T in ("float", "double") if f"_{T}(" in text]
        parts = [math_functions(T) + SUM.replace("$T", T) for T in kinds]
        return "".join([PREAMBLE, *parts, text])

    def _loops(self, level: int) -> tuple[list[str], list[str]]:
        """Return the loops of a level, and its sums."""
        stores: dict[Any, list[tuple[Expression, str, int, bool]]] = {}
        extra = [(x, name, 0, True) for x, name in self.added]
        for x, name, offset, adds in [*((*s, False) for s in self.stores), *extra]:
            if self._loop_level(x) == level:
                key = self._find(x) if x in self.group and x.op not in WHOLE_ROWS else None
                stores.setdefault((key, self.width(x) if key is None else 0), []).append(
                    (x, name, offset, adds)
                )
        loops = [self._loop(StageLoop(self, level, items)) for items in stores.values()]
        sums = []
        for x in self.steps:
            if x.op in REDUCTIONS and self.level[x] == level:
                (name, start), T = self.place[x.args[0]], c_type(x.dtype)
                if x.args[0].dtype != x.dtype:
                    raise Unsupported(f"a {x.op} in another dtype")
                length, begin = self.size(self.width(x.args[0])), self.size(start)
                out, operand = self.pointer(self.place[x][0], T), self.pointer(name, T)
                sums.append(self._reduction(x.op, T, out, f"{operand} + {begin}", length))
        return loops, sums

    def _loop(self, loop: StageLoop) -> str:
        return loop.text()

    def _reduction(self, op: str, T: str, out: str, operand: str, length: str) -> str:
        return f"        *{out} = {op}_{T}({operand}, {length});"

    def _loop_level(self, x: Expression) -> int:
        """Return the level of the loop that stores a value."""
        if x not in self.level:
            return 0
        return self.level[x] + (x.op in WHOLE_ROWS)

    def pointer(self, name: str, T: str) -> str:
        """Return the C expression of the address of a row of an array."""
        number = self.number_of(name)
        return f"({T} *)(at[{number}] + r * row[{number}])"

    def size(self, n: int) -> str:
        """Return the C expression of a length."""
        if n == 0:
            return "0"
        if n not in self.sizes:
            self.sizes.append(n)
        return f"size[{self.sizes.index(n)}]"

    def constant(self, x: Any) -> Any:
        """Return a number as a literal, or as an argument of the stages."""
        if any(x == y for y in LITERALS) or x.__class__ is bool:
            return x
        if not isinstance(x, (float, np.floating)):
            return x
        if float(x) not in self.numbers:
            self.numbers.append(float(x))
        return Argument(self.numbers.index(float(x)))


_STAGE = """
void stage{}(intptr_t first, intptr_t last, char *const *at, const intptr_t *row,
            const intptr_t *size, const double *number)
{{
    for (intptr_t r = first; r < last; r++) {{
{}
    }}
}}
"""
