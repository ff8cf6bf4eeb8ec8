"""The kernel of a loop over time: the calls of one step, inside one Python loop.

    def loop(a3, x0, s0, n0, v1):       # an invariant, then lists: one array for each step
        t0 = vector((256, 32), float32).T
        t0T = t0.T
        for x0, s0, n0, v1 in zip(x0, s0, n0, v1):
            matmul(a3, s0.T, out=t0T)
            add(x0, t0, out=t0)
            tanh(t0, out=n0)

What depends on invariants alone is computed before the loop. Every result is written to the array
that the caller provides for the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..engine.ops import kernels
from .expressions import VIEWS, Expression, needed
from .kernel import Kernel, function_of
from .step_trace import StepTrace

# Results that are not computed where the caller wants them, but copied there: views, and joins,
# whose parts would be views of another array at each step.
INDIRECT = frozenset(("sum", "constant", "invariant", "concatenate", *VIEWS))


class StepKernel(Kernel):
    """The calls of one step.

    Parameters
    ----------
    trace : StepTrace
        The trace of the step.
    names : dict of Expression to str
        The values that are given, and their names in the source.
    targets : list of (Expression, str or None)
        The values to compute, and the names of the arrays to write them to; None for no array.
    columns : bool
        Whether matrices (batch, features) are column-major, so that each feature is contiguous.
    """

    def __init__(
        self,
        trace: StepTrace,
        names: dict[Expression, str],
        targets: Sequence[tuple[Expression, str | None]],
        columns: bool,
    ) -> None:
        self.columns, self._names = columns, names
        self.targets: dict[Expression, str] = {}  # which are computed in place
        copies: list[tuple[Expression, str]] = []
        for x, name in targets:
            if name is None:  # in memory of its own
                continue
            direct = x not in names and x not in self.targets
            if direct and x.op not in INDIRECT:
                self.targets[x] = name
            else:
                copies.append((x, name))
        self.memories: set[str] = set()  # the names of the buffers
        super().__init__(trace, list(names), [x for x, _ in targets])
        self.lines += [f"copyto({name}, {self.names[x]})" for x, name in copies]

    def _input_names(self, given: Sequence[Expression]) -> dict[Expression, str]:
        return {**self._names, **self.targets}

    def _steps(self, given: Sequence[Expression], results: Sequence[Any]) -> list[Expression]:
        return sorted(needed(results, given), key=lambda x: x.varies)

    def _release(self, done: Sequence[Expression]) -> None:
        super()._release([x for x in done if x.varies])

    def _emit(self, x: Expression) -> None:
        if x.op == "slice" and self.names[x.args[0]] in self.memories:
            self.names[x] = self._slice(self.names[x.args[0]], *x.args[1:])
            return
        if x.varies:
            super()._emit(x)
            return
        loop, self.lines = self.lines, self.setup
        super()._emit(x)
        self.lines = loop

    def _buffer(self, x: Expression) -> str:
        count = self.buffers
        name = super()._buffer(x)
        if self.buffers > count:  # not the result of a sum, which is another array at each step
            self.memories.add(name)
        return name

    def _slice(self, name: str, start: int, stop: int) -> str:
        """Return the name of a part of a buffer, which is made before the loop."""
        part = f"{name}_{start}_{stop}"
        line = f"{part} = {name}[..., {start}:{stop}]"
        if line not in self.setup:
            self.setup.append(line)
        return part

    def _allocation(self, x: Expression) -> str:
        if self.columns and len(x.sizes) == 2:
            return f"vector({x.sizes[::-1]}, {x.dtype.name}).T"
        return f"vector({x.sizes}, {x.dtype.name})"

    def _shape(self, x: Expression) -> str:
        return str(x.sizes)

    def _product(self, out: str, x: Expression, y: Expression) -> None:
        (m, k), n = x.sizes, y.sizes[1]
        small = 1 in (m, n) or m * n * k <= kernels.SMALL_GEMM
        if k > kernels.MAX_SIMPLE_SUM and (small or k > 64 * kernels.MAX_SIMPLE_SUM):
            super()._product(out, x, y)
        elif self.columns:  # (x y)ᵀ = yᵀ xᵀ, whose rows are contiguous
            call = f"{self._transposed(y)}, {self._transposed(x)}, out={self._twin(out)}"
            self.lines.append(f"matmul({call})")
        else:  # for vectors `dot` is faster than `matmul`
            self.lines.append(f"dot({self.names[x]}, {self.names[y]}, {out})")

    def _transposed(self, x: Expression) -> str:
        return self.names[x.args[0]] if x.op == "transpose" else self._twin(self.names[x])

    def _twin(self, name: str) -> str:
        """Return the name of the transpose of an array; of a buffer, it is made before the loop."""
        if name not in self.memories:
            return f"{name}.T"
        line = f"{name}T = {name}.T"
        if line not in self.setup:
            self.setup.append(line)
        return f"{name}T"

    def function(self, source: str, scope: dict[str, Any]) -> Callable[..., Any]:
        """Return the function of a source that has `setup` and `lines` in it."""
        self.source = source
        numbers = {
            name: np.asarray(number, dtype) for (_, dtype), (name, number) in self.constants.items()
        }
        dtypes = [dtype for _, dtype in self.constants]
        calls = {"matmul": np.matmul, "dot": np.dot, "add": np.add}
        return function_of(source, np, self.steps, dtypes, {**numbers, **scope, **calls})
