"""Loops over time in C: the plan of a step as programs of `loop_runtime.c`, and one call of it.

A step is lowered to stages and products (`stages`). A *program* is the list of these for the
runtime, with the address, the step and the row in bytes of each array. Arrays are row-major here: a
slab of all time steps is (T, B, F). The threads of the runtime have different rows of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import threads
from .expressions import Expression
from .kernel import Kernel
from .loop_call import LoopCall
from .loop_runtime import BUFFER, KINDS, WEIGHT, Program, address, load_stages
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
    memory = np.empty(math.prod(shape) * dtype.itemsize + ALIGNMENT, np.uint8)
    return np.ndarray(shape, dtype, memory, -address(memory) % ALIGNMENT)


class CompiledPlan(StepPlan):
    """The plan of a step whose loops are compiled.

    Raises
    ------
    Unsupported
        If the step or its derivative has an operation that C code cannot compute.
    """

    loops: type[CompiledLoop]

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
        return self.loops(self, self.given, [*targets, *kept], [], [], ends)

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
        return step, self.loops(self, step.given, step.targets, added, rooms, ends)


class Layout(NamedTuple):
    """Where the addresses of a call are in the block of a program."""

    program: Program
    series: list[int | None]  # None: the program does not use it
    constant: list[tuple[int, Expression]]
    scratch: list[tuple[int, int]]  # with the place in the scratch memory
    size: int  # of the scratch memory, in bytes


class CompiledLoop:
    """A loop: its stages, and the program but for the addresses of the arrays."""

    lowering: type[Stages] = Stages

    def __init__(
        self,
        plan: CompiledPlan,
        given: dict[Expression, str],
        targets: list[tuple[Expression, str]],
        added: list[tuple[Expression, str]],
        rooms: list[tuple[Expression, str]],
        ends: list[tuple[str, str, str, Expression]],
    ) -> None:
        stages = self.stages = self.lowering(given, targets, added, {name for _, name in rooms})
        self.source = stages.source
        names = stages.buffers
        for _, out, operand, _ in ends:
            names += [name for name in (out, operand) if name and name not in names]
        number = {name: i for i, name in enumerate(names)}
        self.names = names
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
            self.row[name] = self.room(stages.form(x)[1], x.dtype)
            self.itemsize[name] = x.dtype.itemsize
        for x in (*plan.states, *(x for x, _ in (*targets, *added))):
            if not stages.form(x)[0] and self.rows > 1:
                raise Unsupported(f"a result of shape {x.sizes} for {self.rows} rows")
        for name, (width, dtype) in stages.scratch.items():
            self.row[name] = self.room(width, dtype)
        self._link(number, ends)
        self.sizes = np.array([*stages.sizes, 0], np.intp)
        self.numbers = np.array([*stages.numbers, 0.0])
        self.weights = list(stages.weights)
        self.outside = dict(stages.outside)
        outer = [x for x in (*self.outside, *self.weights) if x not in given]
        self._outer = outer
        self._outside = Kernel(plan.trace, plan.invariants, outer) if outer else None
        self.work = sum(
            o.columns * o.which.sizes[0] for o in stages.operations if o.kind == "product"
        )
        self.constant = {x: given[x] for x in plan.invariants if given[x] in number}
        self.constant.update(self.outside)
        for x, name in self.constant.items():
            self.row.setdefault(name, self._invariant_row(x))
            self.itemsize.setdefault(name, x.dtype.itemsize)
        self._layouts: dict[tuple[str, ...], Layout] = {}

    def room(self, width: int, dtype: Any) -> int:
        """Return the elements from one row to the next of an array that the loop provides."""
        return padded(width, dtype)

    def _link(self, number: dict[str, int], ends: list[tuple[str, str, str, Expression]]) -> None:
        """Load the stages, and make the table of the operations."""
        stages = self.stages
        functions = load_stages(self.source, sum(o.kind == "stage" for o in stages.operations))
        table = []
        for o in stages.operations:
            if o.kind == "stage":
                table.append([KINDS["stage"], -1, -1, 0, 0, functions[o.which], 0])
            else:
                weight = stages.weights[o.which]
                row = [KINDS["product"], number[o.out], number[o.operand], o.dtype.itemsize]
                table.append([*row, o.columns, weight, o.offset])
        for kind, out, operand, x in ends:
            count = stages.form(x)[1] if x.varies else x.sizes[-1]
            row = [KINDS[kind], number[out], number[operand] if operand else -1]
            table.append([*row, x.dtype.itemsize, count, 0, 0])
        self.operations = np.array(table, np.intp).reshape(-1, 7)

    def _values(self, invariants: dict[Expression, Any], xp: Any = np) -> dict[Expression, Any]:
        """Return the arrays of the invariants, and those that depend on them alone."""
        if self._outside is None:
            return invariants
        made = self._outside.schedule(xp)(*invariants.values())
        return {**invariants, **dict(zip(self._outer, made, strict=True))}

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
        values = self._values(invariants)
        layout = self._layouts.get(tuple(series)) or self._layout(tuple(series))
        block = layout.program.block()
        for at, place in zip(layout.series, series.values(), strict=True):
            if at is not None:
                block[at], block[at + 1], block[at + 2] = place
        held: list[Any] = []  # arrays that the program refers to
        for at, x in layout.constant:
            array = np.ascontiguousarray(values[x])
            held.append(array)
            block[at] = address(array)
        scratch = np.empty(layout.size, np.uint8)
        first = address(scratch)
        first += -first % ALIGNMENT
        for at, offset in layout.scratch:
            block[at] = first + offset
        at = layout.program.weights
        for x in self.weights:
            array = values[x]
            size = array.itemsize
            (row, column), (depth, columns) = array.strides, array.shape
            if row % size or column % size or not array.flags.aligned:
                array = np.ascontiguousarray(array)
                row, column = array.strides
            held.append(array)
            block[at] = address(array)
            block[at + 1], block[at + 2] = row // size, column // size
            block[at + 3], block[at + 4], block[at + 5] = depth, columns, size
            at += WEIGHT
        count = 1
        if self.rows >= 2 * MIN_ROWS and steps * self.rows * self.work >= MIN_WORK:
            count = min(threads.limit(), self.rows // MIN_ROWS)
        layout.program.run(block, steps, count, edge, alive, edge_alive)

    def _layout(self, given: tuple[str, ...]) -> Layout:
        """Return the program of a call with series of these names; the others are scratch."""
        bytes_of = [self.row[name] * self.itemsize[name] for name in self.names]
        program = Program(
            self.rows, bytes_of, self.operations, len(self.weights), self.sizes, self.numbers
        )
        at = {name: program.buffers + i * BUFFER for i, name in enumerate(self.names)}
        constant = [(at[name], x) for x, name in self.constant.items()]
        provided = {*given, *self.constant.values()}
        scratch, size = [], 0
        for name, width in zip(self.names, bytes_of, strict=True):
            if name not in provided:
                scratch.append((at[name], size))
                size += -(-width * self.rows // ALIGNMENT) * ALIGNMENT
        series = [at.get(name) for name in given]
        found = Layout(program, series, constant, scratch, size + ALIGNMENT)
        self._layouts[given] = found
        return found

    def _invariant_row(self, x: Expression) -> int:
        """Return the elements from one row to the next of an invariant."""
        stages = self.stages
        if math.prod(x.sizes[:-1]) == 1 or not x.sizes:
            return 0
        if x.sizes[:-1] == stages.batch:
            return x.sizes[-1]
        raise AssertionError(x.sizes)  # `Stages` has refused it


CompiledPlan.loops = CompiledLoop


def padded(width: int, dtype: Any) -> int:
    """Return the elements of a row with room for whole vectors, and an odd number of these.

    Rows whose distance is a multiple of 4096 bytes would share the sets of a cache.
    """
    vector = ALIGNMENT // np.dtype(dtype).itemsize
    return (-(-width // vector) | 1) * vector


class CompiledCall(LoopCall):
    """One call of loops in C."""

    executor = "c"
    plan: CompiledPlan
    address = staticmethod(address)  # of the first element of an array

    def _ordered(self, x: Any) -> Any:
        return x if x.flags.c_contiguous and x.flags.aligned else np.array(x, order="C")

    def own_output(self, i: int) -> bool:
        """Tell whether a y has memory of its own."""
        return self.plan.same_as_state[i] is None

    def _memory(self, x: Expression, *steps: int) -> Any:
        return aligned((*steps, *x.sizes), x.dtype)

    def _slab(self, x: Expression, extra: int = 0, factor: bool = False) -> Any:
        return aligned((self.T + extra, *x.sizes), x.dtype)

    def _series(self, slab: Any, backward: bool, start: int = 0) -> tuple[int, int, int]:
        """Return address and steps of a slab, for a loop from the step `start`, or back to it."""
        stride, first = slab.strides[0], self.address(slab)
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

    def _drawn(self, draws: Sequence[Draw]) -> list[Any]:
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

    def _backward_series(
        self, slabs: dict[str, Any], sums: dict[str, Any], start: int
    ) -> dict[str, tuple[int, int, int]]:
        """Return the series of a backward loop, but for the gradients of the state."""
        series = self._given_series(backward=True, start=start)
        for i in range(len(self.state)):
            before, after = self._both(i)
            series[f"s{i}"] = self._series(before, True)
            series[f"n{i}"] = self._series(after, True)
        series.update({name: self._series(x, True) for name, x in slabs.items() if x is not None})
        series.update({name: (self.address(x), 0, 0) for name, x in sums.items()})
        return series

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
                series[f"s{i}"] = self.address(pair), size, -size
                series[f"n{i}"] = self.address(pair) + size, -size, size
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

    def _backward_loop(
        self, which: tuple[int, ...], needed: tuple[bool, ...]
    ) -> tuple[Derivative, CompiledLoop]:
        return self.plan.backward_loop(which)

    def _run_backward(
        self,
        step: Derivative,
        made: CompiledLoop,
        grads: dict[int, Any],
        slabs: dict[str, Any],
        sums: dict[str, Any],
        start: int,
    ) -> Sequence[Any]:
        plan, series = self.plan, self._backward_series(slabs, sums, start)
        pairs = []
        for i in step.live:
            x = plan.states[i]
            width = x.sizes[-1] if x.sizes else 1
            pair = aligned((2, made.rows, made.room(width, x.dtype)), x.dtype)
            pair[0, :, :width] = grads[i].reshape(made.rows, width) if i in grads else 0
            size = pair.strides[0]
            series[f"g{i}"] = self.address(pair), size, -size
            series[f"h{i}"] = self.address(pair) + size, -size, size
            pairs.append(pair)
        count = self.T - start
        edge = alive = edge_alive = None
        if self.scaled:
            edge = np.array(self.weights[::-1], float)
        if self.ragged is not None:
            alive, edge_alive = self._alive(self.alive, True), self._alive(self.edge_alive, True)
        made.run(count, self._invariants(), series, edge, alive, edge_alive)
        return [
            pair[count % 2, :, : (x.sizes[-1] if x.sizes else 1)].reshape(x.sizes)
            for pair, x in zip(pairs, (plan.states[i] for i in step.live), strict=True)
        ]

    def _views_again(self, i: int) -> None:
        """Do nothing: these loops have no lists of views."""
