"""A loop over time on arrays of CuPy: the plan of a step as kernels and products of cuBLAS.

The lowering is that of the C executor (`compiled_call`): row-major arrays, a *slab* for all steps,
stages and products in turns. Each kernel takes the addresses of its arrays at one step, a row of a
table. The host starts the kernels and products, without waiting for the device. After some calls
with the same sizes they are captured as one CUDA graph (`cuda.graphs`), which reads the table from
the device: a product has the same addresses in all calls, for it reads and writes only memory that
the loop provides, to which a stage has written its operand.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import random as tg_random
from ..engine import backend
from ..errors import CompilerError
from .compiled_call import CompiledCall, CompiledLoop, CompiledPlan
from .cuda import capture, cublas, graphs
from .cuda.module import THREADS, by_value, fall_back, kernel
from .device_stages import Copy, DeviceStages
from .expressions import Expression
from .loop_call import LoopCall
from .loops import Unsupported
from .step_plan import Derivative
from .step_trace import Draw, StepTrace

MAX_ARGUMENTS = 4000  # bytes of a kernel; CUDA has 4096 for older devices and compilers
Series = dict[str, tuple[int, int, int]]
Target = tuple[Expression, str]


def address(x: Any) -> int:
    """Return the address of the first element of an array of the device."""
    found: int = x.data.ptr
    return found


class DeviceLoop(CompiledLoop):
    """A loop: its kernels, and the operations of a step.

    Names of arrays that `StepPlan.given` and `Derivative` do not have: ``i0`` the initial state or
    the gradient of the final one, ``f0`` the final state or the gradient of the initial one,
    ``p0`` and ``q0`` the old and new state as an operand of products.
    """

    lowering = DeviceStages
    stages: DeviceStages

    def __init__(
        self,
        plan: CompiledPlan,
        given: dict[Expression, str],
        targets: list[Target],
        added: list[Target],
        rooms: list[Target],
        ends: list[tuple[str, str, str, Expression]],
    ) -> None:
        self.carried = [(i, f"s{i}", f"n{i}") for i in range(len(plan.states))]
        self.operands: list[int] = []
        if rooms:
            self.carried = [(int(g[1:]), g, h) for (_, g), (_, h) in zip(*[iter(rooms)] * 2)]  # noqa: B905
        elif any(name == "n0" for _, name in targets):
            left = {_whole(x.args[0]) for x in plan.trace.expressions if x.op == "matmul"}
            self.operands = [i for i, s in enumerate(plan.states) if s in left]
            targets = [*targets, *((plan.new[i], f"q{i}") for i in self.operands)]
            ends = [*ends, *(("ended", f"q{i}", f"p{i}", plan.states[i]) for i in self.operands)]
        self.pairs = [(f"p{i}", f"q{i}") for i in self.operands] + [
            (g, h) for _, g, h in self.carried if rooms
        ]
        self.states = plan.states
        super().__init__(plan, given, targets, added, rooms, ends)

    def room(self, width: int, dtype: Any) -> int:
        """Return the elements from one row to the next of an array that the loop provides."""
        return width

    def _link(self, number: dict[str, int], ends: list[tuple[str, str, str, Expression]]) -> None:
        stages = self.stages
        self.number = number
        for i in self.operands:
            self._add(f"p{i}", self.states[i])
        begin, finish = [], []
        for i, old, new in self.carried:
            x = self.states[i]
            for name in (old, new, f"i{i}", f"f{i}"):
                self._add(name, x)
            copies = [old, f"p{i}"] if i in self.operands else [old]
            begin += [self._copy("begin", name, f"i{i}", x) for name in copies]
            finish.append(self._copy("finish", f"f{i}", new, x))
        steps = [self._copy(*end) for end in ends]
        self.always = any(kind == "zero" for kind, *_ in ends)
        names = {"begin": begin, "ends": steps, "finish": finish}
        self.copies = {name: copies for name, copies in names.items() if copies}
        words = [*stages.sizes, *stages.numbers, *self.names]
        size = self._place.itemsize + 8 * (len(words) + 1)
        if size > MAX_ARGUMENTS:
            raise Unsupported(f"a step with {len(self.names)} arrays, {size} bytes of arguments")
        self.source = stages.text(self.copies, table=False)
        self.on_table = stages.text(self.copies, table=True)
        self.products = [
            (o, number[o.out], number[o.operand]) for o in stages.operations if o.kind == "product"
        ]
        fixed = {*stages.scratch, *(name for pair in self.pairs for name in pair)}
        moved = [n for o, *_ in self.products for n in (o.out, self._operand(o)) if n not in fixed]
        self.refusal = f"a product reads or writes {moved[0]}" if moved else ""

    def _operand(self, operation: Any) -> str:
        """Return the array that a product reads: of an element of the state, the copy."""
        name: str = operation.operand
        return f"p{name[1:]}" if name[0] == "s" and int(name[1:]) in self.operands else name

    def _add(self, name: str, x: Expression) -> None:
        """Add an array to those of the loop."""
        if name not in self.number:
            self.number[name] = len(self.names)
            self.names.append(name)
        self.row.setdefault(name, self.stages.width(x))
        self.itemsize.setdefault(name, x.dtype.itemsize)

    def _copy(self, kind: str, out: str, operand: str, x: Expression) -> Copy:
        at = self.number[operand] if operand else -1
        return Copy(kind, self.number[out], at, x.dtype, self.stages.width(x))

    def run_on(
        self,
        module: Any,
        steps: int,
        invariants: dict[Expression, Any],
        series: Series,
        edge: Sequence[float] | None = None,
        alive: Sequence[Any] | None = None,
        edge_alive: Sequence[Any] | None = None,
    ) -> str:
        """Run the loop, as `run`, and return why not as a graph.

        The masks are one array of the device for each step, or None.
        """
        values = self._values(invariants, module)
        held: list[Any] = []  # arrays that the addresses refer to
        weights = [cublas.Weight.of(values[x], held, module) for x in self.weights]
        places = np.zeros(steps, self._place)
        self._locate(module, places, values, series, held)
        for name, masks in (("alive", alive), ("edge_alive", edge_alive)):
            if masks is not None:
                places[name] = [0 if m is None else address(m) for m in masks[:steps]]
        places["edge"] = 1.0 if edge is None else edge[:steps]
        form = self._form(alive)
        special = (places["alive"] != 0) | (places["edge"] != 1) | self.always
        reason = self.refusal
        capturing = capture.current()
        if capturing is not None:  # the loop is a part of its graph
            capturing.held += [self, values, held]
        elif not reason:
            key = self, steps, tuple(series), tuple(weights), bool(special.any()), form.tobytes()
            graph = graphs.find(module, key, lambda: self._memory(module, series))
            if isinstance(graph, str):
                reason = graph
            elif graph is not None:
                self._place_fixed(places, graph.memory)
                every = [bool(special.any())] * steps

                def body() -> Callable[[Any], None]:
                    return self._body(module, self.on_table, places, form, weights, every)

                try:
                    return graph.run(places.view(np.uint8).reshape(steps, -1), body)
                except CompilerError as error:
                    reason = fall_back(error, "kernels")
        memory = self._memory(module, series)
        self._place_fixed(places, memory)
        self._body(module, self.source, places, form, weights, special)(None)
        return reason

    def load(self, library: Any) -> None:
        """Compile the kernels."""
        names = [f"stage{i}" for i in range(len(self.stages.shapes))]
        for name in (*names, *self.copies):
            kernel(library, self.source, name)

    @property
    def _place(self) -> Any:
        """The dtype of the structure ``Place``."""
        words = [("alive", np.int64), ("edge_alive", np.int64), ("edge", float)]
        return np.dtype([("at", np.int64, (max(1, len(self.names)),)), *words])

    def _locate(
        self,
        module: Any,
        places: Any,
        values: dict[Expression, Any],
        series: Series,
        held: list[Any],
    ) -> None:
        """Write the addresses of the arrays of the call."""
        at = places["at"]
        for x, name in self.constant.items():
            array = module.ascontiguousarray(values[x])
            held.append(array)
            at[:, self.number[name]] = address(array)
        t = np.arange(len(places))
        for name, (first, even, odd) in series.items():
            if name in self.number:
                at[:, self.number[name]] = first + (t + 1) // 2 * even + t // 2 * odd

    def _memory(self, module: Any, series: Series) -> dict[tuple[str, ...], Any]:
        """Return the arrays of the loop: the scratch, and those that two steps have in turns."""
        provided = {*series, *self.constant.values(), *(n for pair in self.pairs for n in pair)}
        groups = [*self.pairs, *((name,) for name in self.names if name not in provided)]
        sizes = [len(g) * self.rows * self.row[g[0]] * self.itemsize[g[0]] for g in groups]
        return {g: module.empty(n, dtype=np.uint8) for g, n in zip(groups, sizes, strict=True)}

    def _place_fixed(self, places: Any, memory: dict[tuple[str, ...], Any]) -> None:
        """Write the addresses of the arrays of the loop."""
        turn = np.arange(len(places)) % 2
        for names, array in memory.items():
            size = self.rows * self.row[names[0]] * self.itemsize[names[0]]
            for i, name in enumerate(names):
                moved = (turn + i) % 2 * size if len(names) > 1 else 0
                places["at"][:, self.number[name]] = address(array) + moved

    def _form(self, alive: Sequence[Any] | None) -> Any:
        """Return the argument ``Form``: all that is the same in all steps."""
        count = max(1, len(self.names))
        sizes, numbers = self.stages.sizes or [0], self.stages.numbers or [0.0]
        dtype = [("row", np.int64, (count,)), ("size", np.int64, (len(sizes),))]
        form = np.zeros(1, [*dtype, ("group", np.int64), ("number", float, (len(numbers),))])
        form["row"][0, : len(self.names)] = [self.row[n] * self.itemsize[n] for n in self.names]
        form["size"], form["number"] = sizes, numbers
        batch = next((m.size for m in alive or () if m is not None), 1)
        form["group"] = max(1, self.rows // batch)
        return form

    def _body(
        self,
        module: Any,
        text: str,
        places: Any,
        form: Any,
        weights: list[cublas.Weight],
        special: Sequence[Any],
    ) -> Callable[[Any], None]:
        """Return the function that starts all kernels and products.

        Its argument is the table on the device; None: kernels take the rows of `places` by value.
        """
        rows, stages, steps = self.rows, self.stages, len(places)
        at = places["at"].tolist()
        values, form = by_value(places), by_value(form)
        work: list[tuple[Any, ...]] = []  # a kernel and its size, or None and a product
        for o in stages.operations:
            if o.kind == "stage":
                threads, parts = stages.shapes[o.which]
                work.append((kernel(module, text, f"stage{o.which}"), (rows, parts), (threads,)))
            else:
                out, operand = self.number[o.out], self.number[self._operand(o)]
                strides = self.row[o.operand], self.row[o.out]
                weight = weights[stages.weights[o.which]]
                work.append((None, out, operand, o.offset, *strides, weight, o.adds))
        others: dict[str, tuple[Any, ...]] = {}
        for name, copies in self.copies.items():
            parts = -(-max(copy.width for copy in copies) // THREADS)
            others[name] = kernel(module, text, name), (rows, parts), (THREADS,)
        product = cublas.products(module)

        def run(table: Any) -> None:
            product.begin()
            for t in range(steps):
                addresses = at[t]
                place = values[t : t + 1] if table is None else table[t]
                if t == 0 and "begin" in others:
                    start, *how = others["begin"]
                    start(*how, (place, form))
                for function, *how in work:
                    if function is not None:
                        function(*how, (place, form))
                    else:
                        out, operand, offset, lda, ldo, weight, adds = how
                        a = addresses[operand] + offset
                        product(rows, a, lda, weight, addresses[out], ldo, adds)
                if special[t] and "ends" in others:
                    end, *how = others["ends"]
                    end(*how, (place, form))
            if "finish" in others:
                end, *how = others["finish"]
                end(*how, (place, form))

        return run


def _whole(x: Any) -> Any:
    """Return the value that a slice is a part of."""
    while x.op == "slice":
        x = x.args[0]
    return x


class DevicePlan(CompiledPlan):
    """The plan of a step whose loops are kernels on a GPU."""

    loops = DeviceLoop
    forward_loop: DeviceLoop

    def load(self, library: Any) -> None:
        """Compile the kernels: before a call has drawn numbers, so that it can be done without."""
        loops: list[Any] = [self.forward_loop]
        if self.differentiates:
            loops.append(self.backward_loop(tuple(range(len(self.ys))))[1])
        for loop in loops:
            loop.load(library)


class DeviceCall(CompiledCall):
    """One call of loops on a GPU."""

    executor = "cuda"
    plan: DevicePlan
    address = staticmethod(address)

    def __init__(self, plan: DevicePlan, trace: StepTrace | Any, *args: Any) -> None:
        super().__init__(plan, trace, *args)
        self.reason = ""  # why the loop was not a graph

    def _ordered(self, x: Any) -> Any:
        return self.module.ascontiguousarray(x)

    def _memory(self, x: Expression, *steps: int) -> Any:
        return self.module.empty((*steps, *x.sizes), dtype=x.dtype)

    def _slab(self, x: Expression, extra: int = 0, factor: bool = False) -> Any:
        return self._memory(x, self.T + extra)

    def _drawn(self, draws: Sequence[Draw]) -> list[Any]:
        device = backend.device_of(self.state[0])
        streams = [id(tg_random.generator(x.rng).bit_generator) for x in draws]
        if len({*streams}) == len(draws):  # the numbers of all steps follow
            slabs = [tg_random.keep_mask((self.T, *x.shape), x.keep, x.rng, device) for x in draws]
        elif len({*streams}) == len({x.keep for x in draws}) == 1:  # of one generator, in turn
            ends = list(itertools.accumulate(math.prod(x.shape) for x in draws))
            size = self.T, ends[-1]
            drawn = tg_random.keep_mask(size, draws[0].keep, draws[0].rng, device)
            slabs = [
                drawn[:, end - math.prod(x.shape) : end].reshape(self.T, *x.shape)
                for x, end in zip(draws, ends, strict=True)
            ]
        else:
            slabs = [np.stack(masks) for masks in LoopCall._drawn(self, draws)]
        slabs = [self.module.asarray(slab) for slab in slabs]
        return [self.module.ascontiguousarray(x[::-1] if self.reverse else x) for x in slabs]

    def _steps(self, slab: Any) -> list[Any]:
        steps = [slab[t, ...] for t in range(len(slab))]
        return steps[::-1] if self.reverse else steps

    def _own_memory(self, i: int) -> Any:
        """Return None: the counts of references to a Tensor do not tell who reads its memory."""

    def _ends(self, series: Series, i: int, first: Any) -> Any:
        """Add the first value of an element of the state, and return the array of the last one."""
        last = self._memory(self.plan.states[i])
        series[f"i{i}"] = 0 if first is None else address(first), 0, 0
        series[f"f{i}"] = address(last), 0, 0
        return last

    def _run_forward(self, outputs: list[Any], recording: bool) -> list[Any]:
        series = self._given_series(backward=False, start=0)
        held, finals = [], []
        for i, (s, x) in enumerate(zip(self.state, self.plan.states, strict=True)):
            if self.slabs[i] is None:  # two arrays, in turns
                pair = self._memory(x, 2)
                size = pair.strides[0]
                series[f"s{i}"] = address(pair), size, -size
                series[f"n{i}"] = address(pair) + size, -size, size
                held.append(pair)
            else:
                before, after = self._both(i)
                series[f"s{i}"] = self._series(before, False)
                series[f"n{i}"] = self._series(after, False)
            held.append(self.module.ascontiguousarray(s))
            finals.append(self._ends(series, i, held[-1]))
        for i, y in enumerate(outputs):
            if y is not None:
                series[f"y{i}"] = self._series(y, False)
        alive = None if self.ragged is None else self.alive
        loop = self.plan.forward_loop
        self.reason = loop.run_on(self.module, self.T, self._invariants(), series, alive=alive)
        return finals

    def _run_backward(
        self,
        step: Derivative,
        made: Any,
        grads: dict[int, Any],
        slabs: dict[str, Any],
        sums: dict[str, Any],
        start: int,
    ) -> Sequence[Any]:
        series = self._backward_series(slabs, sums, start)
        firsts = {i: self.module.ascontiguousarray(grads[i]) for i in step.live if i in grads}
        found = [self._ends(series, i, firsts.get(i)) for i in step.live]
        masks: list[Any] = [list(self.weights[::-1]) if self.scaled else None, None, None]
        if self.ragged is not None:
            masks[1:] = self.alive[::-1], self.edge_alive[::-1]
        made.run_on(self.module, self.T - start, self._invariants(), series, *masks)
        return found
