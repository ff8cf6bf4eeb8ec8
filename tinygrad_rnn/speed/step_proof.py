"""The proof of a compiled step: one time step on random numbers, compared with NumPy.

Its libraries have run in a child before (`proof`), so this runs in the process itself. It finds
code that computes something else, such as by a fault of the compiler. The cache remembers it.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from .compiled_call import CompiledLoop, CompiledPlan
from .compiler import Compiler
from .kernel import Kernel
from .loop_runtime import address
from .proof import failure

DRAWS = 3  # a step that compares numbers may meet two that differ by their rounding errors only
NEAR = {4: 1e-3, 8: 1e-8}  # relative to the largest element, by the bytes of the shortest number


def prove_plan(compiler: Compiler, plan: CompiledPlan) -> None:
    """Raise a CompilerError unless the loops of a plan compute the same step as NumPy."""
    loops = [plan.forward_loop]
    if plan.differentiates:
        loops.append(plan.backward_loop(tuple(range(len(plan.ys))))[1])
    for loop in loops:
        mark = compiler.mark(loop.source)
        if mark.exists():
            continue
        wrong = ""
        for seed in range(DRAWS):
            wrong = _difference(plan, loop, np.random.default_rng(seed))
            if not wrong:
                break
        if wrong:
            raise failure(compiler, f"a time step of a loop differs from NumPy's in {wrong}")
        with contextlib.suppress(OSError):  # proved again by the next process
            mark.touch()


def _difference(plan: CompiledPlan, loop: CompiledLoop, rng: np.random.Generator) -> str:
    """Return a result in which a step in C differs from NumPy's; empty if there is none."""
    stages = loop.stages
    wanted = [(x, name, x.dtype) for x, name in stages.targets]
    wanted += [(x, name, np.dtype(float)) for x, name in stages.added]
    values = {x: _random(rng, x) for x in stages.given}
    invariants = dict.fromkeys(plan.invariants)  # Expressions are compared by identity

    def matrix(x: Any, name: str, dtype: Any) -> Any:
        per_row, width = stages.form(x)
        return np.zeros((loop.rows if per_row else 1, max(width, loop.row[name])), dtype)

    memory = {name: matrix(x, name, dtype) for x, name, dtype in wanted}
    for x, name in stages.given.items():
        if x not in invariants and name in loop.row:
            memory[name] = matrix(x, name, x.dtype)
            width = stages.form(x)[1]
            memory[name][:, :width] = values[x].reshape(-1, width)
    loop.run(
        1,
        {x: values[x] for x in plan.invariants},
        {n: (address(a), 0, 0) for n, a in memory.items()},
    )
    kernel = Kernel(plan.trace, [*values], [x for x, *_ in wanted]).schedule(np)
    values_of = (*stages.given, *stages.steps)  # a result is as exact as its arguments
    bytes_of = min([8, *(x.dtype.itemsize for x in values_of if x.dtype.kind == "f")])
    with np.errstate(all="ignore"):
        expected = kernel(*values.values())
        for (x, name, _), y in zip(wanted, expected, strict=True):
            width = stages.form(x)[1]
            finite = np.abs(y[np.isfinite(y)])
            near = NEAR[bytes_of] * float(finite.max(initial=0))
            found = memory[name][:, :width]
            if not np.allclose(found, np.reshape(y, (-1, width)), 0, near, equal_nan=True):
                return f"a result of {x.op}, of shape {x.sizes} and {x.dtype}"
    return ""


def _random(rng: np.random.Generator, x: Any) -> Any:
    """Return an array of random numbers; masks and integers are 0 and 1."""
    if x.dtype.kind == "f":
        return rng.uniform(-1, 1, x.sizes).astype(x.dtype)
    return rng.integers(0, 2, x.sizes).astype(x.dtype)
