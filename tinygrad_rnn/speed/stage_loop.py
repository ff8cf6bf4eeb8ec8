"""One loop of a stage: the elements of a row, computed in C.

The values that a loop stores are divided into *chunks* of one width. The loop computes element i of
each chunk, by the `ScalarOp` s of `loops`. A slice is then another chunk of the same value.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from .compiled import fixed_loads
from .expressions import Expression
from .loops import LOADS, ScalarOp, body, c_type
from .scalars import value_of

REDUCTIONS = ("sum", "max")  # only `interop` traces a maximum
WHOLE_ROWS = ("matmul", *REDUCTIONS)  # operations that read all of a row
ALIASES = frozenset(("reshape", "broadcast_to"))


class Argument:
    """A number that is an argument of the stages."""

    def __init__(self, index: int) -> None:
        self.index = index


class StageLoop:
    """One loop over the elements of a row: the values that it stores."""

    def __init__(
        self, stages: Any, level: int, items: list[tuple[Expression, str, int, bool]]
    ) -> None:
        self.stages, self.level = stages, level
        self.table: dict[Any, ScalarOp] = {}
        self.loads: dict[ScalarOp, tuple[str, int, bool]] = {}
        first = items[0][0]
        computed = first in stages.group and first.op not in WHOLE_ROWS
        self.width = stages.unit[first] if computed else stages.width(first)
        self.outputs: list[tuple[ScalarOp, str, int, bool]] = []
        for x, name, offset, adds in items:
            for i in range(stages.width(x) // self.width):
                start = offset + i * self.width
                self.outputs.append((self._chunk(x, i, top=True), name, start, adds))

    def _intern(self, op: str, args: tuple[Any, ...], dtype: Any) -> ScalarOp:
        key = (op, dtype, *[id(a) if isinstance(a, ScalarOp) else repr(a) for a in args])
        if key not in self.table:
            self.table[key] = ScalarOp(op, args, dtype, len(self.table))
        return self.table[key]

    def _load(self, name: str, start: int, dtype: Any, fixed: bool) -> ScalarOp:
        x = self._intern("load", (name, start, fixed), dtype)
        self.loads[x] = name, start, fixed
        return x

    def _chunk(self, x: Any, i: int, top: bool = False) -> Any:
        """Return the computation of an element of a chunk of a value."""
        stages = self.stages
        if x.__class__ is not Expression:
            return stages.constant(value_of(x))
        if x.op == "constant":
            return self._number(value_of(x.args[0]), x.dtype)
        width = stages.width(x)
        fixed = width == 1 and self.width > 1
        start = 0 if fixed else i * self.width
        if not x.varies and x not in stages.given:
            if x.op == "zeros":
                return self._intern("zeros", (), x.dtype)
            name, offset = stages.outside_place(x)
            return self._load(name, offset + start, x.dtype, width == 1)
        elsewhere = x not in stages.level or x.op in WHOLE_ROWS
        elsewhere = elsewhere or stages.level[x] < self.level
        elsewhere = elsewhere or (stages.unit[x] != self.width)
        if elsewhere and x in stages.place:
            name, offset = stages.place[x]
            return self._load(name, offset + start, x.dtype, width == 1)
        if x.op == "slice":
            whole, begin, _ = x.args
            if whole in stages.place and (
                whole not in stages.level
                or whole.op in WHOLE_ROWS
                or stages.level[whole] < self.level
                or x in stages.apart
            ):
                name, offset = stages.place[whole]
                return self._load(name, offset + begin + start, x.dtype, False)
            return self._chunk(whole, begin // self.width + i)
        if x.op == "concatenate":
            for a in x.args:
                count = stages.width(a) // self.width
                if i < count:
                    return self._chunk(a, i)
                i -= count
        if x.op in ALIASES:
            return self._chunk(x.args[0], i if stages.width(x.args[0]) > 1 else 0)
        args = [
            self._chunk(a, i if a.__class__ is Expression and stages.width(a) > 1 else 0)
            for a in x.args
        ]
        if x.op == "zeros":
            args = []
        args = [self._argument(x, k, args) if isinstance(a, Argument) else a
                for k, a in enumerate(args)]  # fmt: skip
        return self._intern(x.op, tuple(args), x.dtype)

    def _argument(self, x: Expression, k: int, args: list[Any]) -> ScalarOp:
        """Return a number that is an argument of the stages, in the dtype of the operation."""
        if x.op in ("where", "astype"):
            dtype = x.dtype
        else:
            kinds = [a.dtype if isinstance(a, ScalarOp) else float for a in args]
            dtype = getattr(np, x.op).resolve_dtypes((*kinds, None))[k]
        return self._intern("number", (args[k].index,), dtype)

    def _number(self, value: Any, dtype: Any) -> ScalarOp:
        found = self.stages.constant(value)
        if isinstance(found, Argument):
            return self._intern("number", (found.index,), dtype)
        return self._intern("constant", (value,), dtype)

    def parts(self) -> tuple[list[str], list[tuple[str, str, str, str]]]:
        """Return the lines of the loop, and the arrays and numbers that they read and write.

        Of each array or number: its type, its name, the expression of the address, and of the
        number ("" for an array).
        """
        stages = self.stages
        found: set[ScalarOp] = set()
        stack = [x for x, *_ in self.outputs]
        while stack:
            x = stack.pop()
            if x not in found:
                found.add(x)
                stack += [a for a in x.args if isinstance(a, ScalarOp)]
        order = sorted(found, key=lambda x: x.number)
        loads = [x for x in order if x.op == "load"]
        numbers = [x for x in order if x.op == "number"]
        outputs = [x for x, *_ in self.outputs]
        steps = [x for x in order if x.op not in LOADS and x.op != "number"]
        lines = body(steps, [*loads, *numbers], outputs)
        fixed = [k for k, x in enumerate(loads) if self.loads[x][2]]
        lines = fixed_loads(lines, [*fixed, *range(len(loads), len(loads) + len(numbers))])
        used = []
        for k, x in enumerate(loads):
            name, start, _ = self.loads[x]
            T = f"const {c_type(x.dtype)}"
            used.append((T, f"a{k}", f"{stages.pointer(name, T)} + {stages.size(start)}", ""))
        for k, x in enumerate(numbers, len(loads)):
            T = c_type(x.dtype)
            used.append((f"const {T}", f"a{k}", "", f"({T})number[{x.args[0]}]"))
        for k, (x, name, start, adds) in enumerate(self.outputs):
            T = "double" if adds else c_type(x.dtype)
            used.append((T, f"r{k}", f"{stages.pointer(name, T)} + {stages.size(start)}", ""))
            if adds:
                lines = [re.sub(rf"^r{k}\[i\] = ", f"r{k}[i] += ", line) for line in lines]
        return lines, used

    def text(self) -> str:
        """Return the loop in C: a call of a function that is added to those of the stages."""
        stages = self.stages
        lines, used = self.parts()
        parameters = [f"{T} *restrict {name}" for T, name, _, _ in used]
        arguments = [at or f"({T}[]){{ {number} }}" for T, _, at, number in used]
        number = len(stages.loops)
        stages.loops.append(_LOOP.format(number, ", ".join(parameters), "\n        ".join(lines)))
        return (
            f"        loop{number}({stages.size(self.width)},\n              "
            + ",\n              ".join(arguments)
            + ");"
        )


# The loops are functions, whose parameters tell the compiler that the arrays do not overlap.
_LOOP = """
static __attribute__((noinline)) void loop{}(intptr_t n, {})
{{
    for (intptr_t i = 0; i < n; i++) {{
        {}
    }}
}}
"""
