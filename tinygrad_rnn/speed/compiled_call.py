"""Loops over time in C: the plan of a step as programs of `loop_runtime.c`, and one call of it.

A step is lowered to stages and products (`stages`). A *program* is the list of these for the
runtime, with the address, the step and the row in bytes of each array. Arrays are row-major here: a
slab of all time steps is (T, B, F). The threads of the runtime have different rows of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import threads
from .expressions import Expression
from .kernel import Kernel
from .loop_call import LoopCall
from .loop_runtime import KINDS, Program, load_stages
from .loops import Unsupported
from .stages import Stages
from .step_plan import Derivative, StepPlan
from .step_trace import Draw, StepTrace

ALIGNMENT = 64  # bytes: a vector of the runtime
MIN_ROWS = 4  # of a thread
MIN_WORK = 1 << 21  # multiplications of a loop that is worth two threads


def aligned(shape: tuple[int, ...], dtype: Any) -> Any:
    """Return an uninitialized array whose memory begins at a cache line."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.__array_interface__["data"][0] % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


class CompiledPlan(StepPlan):
    """The plan of a step whose loops are compiled.

    Raises
    ------
    Unsupported
        If the step or its derivative has an operation that C code cannot compute.
    """

    def __init__(self, trace: StepTrace) -> None:
        super().__init__(trace, columns=False)
        self.forward_loop = self._compiled_forward()
        if self.differentiates:
            self.backward_loop(tuple(range(len(self.ys))))

    def _compiled_forward(self) -> CompiledLoop:
        targets = [(x, f"n{i}") for i, x in enumerate(self.new)]
        targets += [
            (y, f"y{i}")
            for i, (y, same) in enumerate(zip(self.ys, self.same_as_state, strict=True))
            if same is None
        ]
        kept = [(x, f"z{i}") for i, x in enumerate(self.saved)]
        ends = [("ended", f"n{i}", f"s{i}", x) for i, x in enumerate(self.states)]
        ends += [("ended", name, "", x) for x, name in (*targets[len(self.new) :], *kept)]
        return CompiledLoop(self, self.given, [*targets, *kept], [], [], ends)

    def backward_loop(self, which: tuple[int, ...]) -> tuple[Derivative, CompiledLoop]:
        """Return the backward loop for gradients of some ys; it computes all gradients."""
        found: tuple[Derivative, CompiledLoop] = self._cached(
            ("c", which), self._compiled_backward, which
        )
        return found

    def _compiled_backward(self, which: tuple[int, ...]) -> tuple[Derivative, CompiledLoop]:
        count = len(self.arguments) + len(self.trace.symbolic_invariants)
        step = self.derivative(which, (True,) * count)
        added = [(x, f"e{i}") for x, i in step.added.items()]
        ends = [("zero", f"h{i}", "", self.states[i]) for i in step.zero]
        ends += [("ended", f"h{i}", f"g{i}", self.states[i]) for i in step.live]
        ends += [("ended", name, "", x) for x, name in step.targets if name[0] != "h"]
        ends += [("scale", f"h{i}", "", self.states[i]) for i in step.live]
        rooms = [(self.states[i], f"{letter}{i}") for i in step.live for letter in "gh"]
        return step, CompiledLoop(self, step.given, step.targets, added, rooms, ends)


class CompiledLoop:
    """A loop: its stages, and the program but for the addresses of the arrays."""

    def __init__(
        self,
        plan: CompiledPlan,
        given: dict[Expression, str],
        targets: list[tuple[Expression, str]],
        added: list[tuple[Expression, str]],
        rooms: list[tuple[Expression, str]],
        ends: list[tuple[str, str, str, Expression]],
    ) -> None:
        stages = self.stages = Stages(given, targets, added, {name for _, name in rooms})
        self.source = stages.source
        names = stages.buffers
        for _, out, operand, _ in ends:
            names += [name for name in (out, operand) if name and name not in names]
        number = {name: i for i, name in enumerate(names)}
        self.names = names
        self.used = set(names)
        forms = {name: stages.form(x) for x, name in given.items() if x.varies}
        forms.update({name: stages.form(x) for x, name in (*targets, *added)})
        self.rows = stages.rows
        pairs = [*given.items(), *targets]
        self.itemsize = {name: x.dtype.itemsize for x, name in pairs}
        self.itemsize.update({name: d.itemsize for name, (_, d) in stages.scratch.items()})
        self.itemsize.update({name: 8 for _, name in added})
        # Elements from one row to the next of arrays that the caller provides.
        self.row = {n: w if per_row else 0 for n, (per_row, w) in forms.items()}
        for x, name in rooms:
            self.row[name] = padded(stages.form(x)[1], x.dtype)
            self.itemsize[name] = x.dtype.itemsize
        for x, _ in (*targets, *added):
            if not stages.form(x)[0] and self.rows > 1:
                raise Unsupported(f"a result of shape {x.sizes} for {self.rows} rows")
        for name, (width, dtype) in stages.scratch.items():
            self.row[name] = padded(width, dtype)
        self.functions = load_stages(self.source, sum(o.kind == "stage" for o in stages.operations))
        table = []
        for o in stages.operations:
            if o.kind == "stage":
                table.append([KINDS["stage"], -1, -1, 0, 0, self.functions[o.which], 0, 0])
            else:
                weight = stages.weights[o.which]
                row = [KINDS["product"], number[o.out], number[o.operand], o.dtype.itemsize]
                table.append([*row, o.columns, weight, o.offset, 0])
        for kind, out, operand, x in ends:
            count = stages.form(x)[1] if x.varies else x.sizes[-1]
            row = [KINDS[kind], number[out], number[operand] if operand else -1]
            table.append([*row, x.dtype.itemsize, count, 0, 0, 0])
        self.operations = np.array(table, np.intp).reshape(-1, 8)
        self.sizes = np.array([*stages.sizes, 0], np.intp)
        self.numbers = np.array([*stages.numbers, 0.0])
        self.weights = list(stages.weights)
        self.outside = list(stages.outside)
        self.outside_names = list(stages.outside.values())
        outer = [x for x in (*self.outside, *self.weights) if x not in given]
        self._outer = outer
        self._outside = Kernel(plan.trace, plan.invariants, outer).schedule(np) if outer else None
        self.work = sum(
            o.columns * o.which.sizes[0] for o in stages.operations if o.kind == "product"
        )
        self.read_invariants = [x for x in plan.invariants if given[x] in self.used]

    def run(
        self,
        steps: int,
        invariants: dict[Expression, Any],
        series: dict[str, tuple[int, int, int]],
        edge: Any = None,
        alive: Any = None,
        edge_alive: Any = None,
    ) -> None:
        """Run the program.

        `invariants` are the arrays of the invariants; `series` has for each name the address at the
        first step, and the bytes to the next after even and after odd steps.
        """
        values = dict(invariants)
        if self._outside is not None:
            made = self._outside(*invariants.values())
            values.update(zip(self._outer, made, strict=True))
        alive_here: list[Any] = []  # arrays that the program refers to
        places = dict(series)
        for x in (*self.read_invariants, *self.outside):
            name = f"a{x.number}" if x in invariants else f"v{x.number}"
            array = np.ascontiguousarray(values[x])
            alive_here.append(array)
            places[name] = address(array), 0, 0
            self.row.setdefault(name, self._invariant_row(x))
            self.itemsize.setdefault(name, x.dtype.itemsize)
        table = np.empty((len(self.names) + 1, 4), np.intp)
        rows, itemsize = self.row, self.itemsize
        missing = {name: rows[name] * itemsize[name] for name in self.names if name not in places}
        total = sum(size * self.rows + ALIGNMENT for size in missing.values())
        scratch = aligned((total,), np.uint8)
        at = address(scratch)
        for i, name in enumerate(self.names):
            place = places.get(name)
            if place is None:
                place = at, 0, 0
                at += -(-missing[name] * self.rows // ALIGNMENT) * ALIGNMENT
            table[i] = *place, rows[name] * itemsize[name]
        weights = np.empty((len(self.weights) + 1, 6), np.intp)
        for i, x in enumerate(self.weights):
            array = values[x]
            if not array.flags.aligned or any(s % array.itemsize for s in array.strides):
                array = np.ascontiguousarray(array)
            alive_here.append(array)
            strides = [s // array.itemsize for s in array.strides]
            weights[i] = address(array), *strides, *array.shape, array.itemsize
        count = 1
        if self.rows >= 2 * MIN_ROWS and steps * self.rows * self.work >= MIN_WORK:
            count = min(threads.limit(), self.rows // MIN_ROWS)
        Program(
            steps, self.rows, count, self.names, table, self.operations, self.weights, weights,
            self.sizes, self.numbers, edge, alive, edge_alive,
        ).run()  # fmt: skip

    def _invariant_row(self, x: Expression) -> int:
        """Return the elements from one row to the next of an invariant."""
        stages = self.stages
        if math.prod(x.sizes[:-1]) == 1 or not x.sizes:
            return 0
        if x.sizes[:-1] == stages.batch:
            return x.sizes[-1]
        raise AssertionError(x.sizes)  # `Stages` has refused it


def padded(width: int, dtype: Any) -> int:
    """Return the elements of a row with room for whole vectors, and an odd number of these.

    Rows whose distance is a multiple of 4096 bytes would share the sets of a cache.
    """
    vector = ALIGNMENT // np.dtype(dtype).itemsize
    return (-(-width // vector) | 1) * vector


def address(array: Any) -> int:
    """Return the address of the first element of an array."""
    found: int = array.__array_interface__["data"][0]
    return found


class CompiledCall(LoopCall):
    """One call of loops in C."""

    executor = "c"
    plan: CompiledPlan

    def _ordered(self, x: Any) -> Any:
        return x if x.flags.c_contiguous and x.flags.aligned else np.array(x, order="C")

    def own_output(self, i: int) -> bool:
        """Tell whether a y has memory of its own."""
        return self.plan.same_as_state[i] is None

    def _memory(self, x: Expression, *steps: int) -> Any:
        return aligned((*steps, *x.sizes), x.dtype)

    def _series(self, slab: Any, backward: bool, start: int = 0) -> tuple[int, int, int]:
        """Return address and steps of a slab, for a loop from the step `start`, or back to it."""
        stride, first = slab.strides[0], address(slab)
        at = self.T - 1 if backward else start
        at = self.T - 1 - at if self.reverse else at
        step = stride if backward == self.reverse else -stride
        return first + at * stride, step, step

    def _both(self, i: int) -> tuple[Any, Any]:
        """Return the slabs of an element of the state before and after each step."""
        slab = self.slabs[i]
        return (slab[1:], slab[:-1]) if self.reverse else (slab[:-1], slab[1:])

    def _invariants(self) -> dict[Expression, Any]:
        return dict(zip(self.plan.invariants, self.arrays, strict=True))

    def _drawn(self, draws: list[Draw]) -> list[Any]:
        masks = super()._drawn(draws)
        return [np.stack(m[::-1] if self.reverse else m) for m in masks]

    def _masks_of_steps(self) -> list[Any]:
        return [self._steps(slab) for slab in self.draws]

    def _slab_of_masks(self, masks: Any) -> Any:
        return masks

    def _given_series(self, backward: bool, start: int) -> dict[str, tuple[int, int, int]]:
        """Return the series of the inputs, the masks and the saved values."""
        slabs = {f"x{i}": x for i, x in enumerate(self.xs)}
        slabs.update({f"d{i}": x for i, x in enumerate(self.draws)})
        slabs.update({f"z{i}": x for i, x in enumerate(self.saved)})
        return {name: self._series(x, backward, start) for name, x in slabs.items()}

    def _alive(self, masks: list[Any], backward: bool) -> Any:
        """Return masks of the steps as one array, in the order of the loop."""
        rows, batch = self.plan.forward_loop.rows, self.plan.forward_loop.stages.batch
        found = np.ones((self.T, rows), np.uint8)
        for t, mask in enumerate(masks):
            if mask is not None:
                found[t] = np.repeat(mask, rows // len(mask)) if batch else mask
        return np.ascontiguousarray(found[::-1]) if backward else found

    def _run_forward(self, outputs: list[Any], recording: bool) -> list[Any]:
        plan, T = self.plan, self.T
        series = self._given_series(backward=False, start=0)
        pairs: dict[int, Any] = {}
        for i, (s, x) in enumerate(zip(self.state, plan.states, strict=True)):
            if self.slabs[i] is None:  # two arrays, in turns
                pair = pairs[i] = self._memory(x, 2)
                pair[0] = s
                size = pair.strides[0]
                series[f"s{i}"] = address(pair), size, -size
                series[f"n{i}"] = address(pair) + size, -size, size
            else:
                before, after = self._both(i)
                before[-1 if self.reverse else 0] = s
                series[f"s{i}"] = self._series(before, False)
                series[f"n{i}"] = self._series(after, False)
        for i, y in enumerate(outputs):
            if y is not None:
                series[f"y{i}"] = self._series(y, False)
        alive = None
        if self.ragged is not None:
            alive = self._alive(self.alive, False)
        plan.forward_loop.run(T, self._invariants(), series, alive=alive)
        finals = []
        for i, slab in enumerate(self.slabs):
            last = pairs[i][T % 2, ...] if slab is None else slab[0 if self.reverse else -1, ...]
            finals.append(last.copy())
        return finals

    def _derivative(self, which: tuple[int, ...], needed: tuple[bool, ...]) -> Derivative:
        return self.plan.backward_loop(which)[0]

    def _run_backward(
        self,
        step: Derivative,
        which: tuple[int, ...],
        needed: tuple[bool, ...],
        grads: dict[int, Any],
        slabs: dict[str, Any],
        sums: dict[str, Any],
        start: int,
    ) -> Sequence[Any]:
        plan = self.plan
        made = plan.backward_loop(which)[1]
        series = self._given_series(backward=True, start=start)
        for i in range(len(self.state)):
            before, after = self._both(i)
            series[f"s{i}"] = self._series(before, True)
            series[f"n{i}"] = self._series(after, True)
        series.update({name: self._series(x, True) for name, x in slabs.items() if x is not None})
        series.update({name: (address(x), 0, 0) for name, x in sums.items()})
        pairs = []
        for i in step.live:
            x = plan.states[i]
            width = x.sizes[-1] if x.sizes else 1
            room = padded(width, x.dtype)
            pair = aligned((2, made.rows, room), x.dtype)
            pair[0, :, :width] = np.reshape(grads[i], (made.rows, width)) if i in grads else 0
            size = pair.strides[0]
            series[f"g{i}"] = address(pair), size, -size
            series[f"h{i}"] = address(pair) + size, -size, size
            pairs.append(pair)
        count = self.T - start
        edge = alive = edge_alive = None
        if self._scaled():
            edge = np.array(self.weights[::-1], float)
        if self.ragged is not None:
            alive, edge_alive = self._alive(self.alive, True), self._alive(self.edge_alive, True)
        made.run(count, self._invariants(), series, edge, alive, edge_alive)
        return [
            pair[count % 2, :, : (x.sizes[-1] if x.sizes else 1)].reshape(x.sizes)
            for pair, x in zip(pairs, (plan.states[i] for i in step.live), strict=True)
        ]

    def _views_again(self, i: int) -> None:
        """There are no lists of views."""
