"""A loop over time on arrays of CuPy: the plan of a step as kernels and products of cuBLAS.

The lowering is that of the C executor (`compiled_call`): row-major arrays, a *slab* for all steps,
stages and products in turns. Here the host starts them, without waiting for the device: a kernel
for each stage, which takes the addresses of its arrays at this step by value, and a product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import random as tg_random
from .compiled_call import CompiledCall, CompiledLoop, CompiledPlan
from .cuda import cublas
from .cuda.module import THREADS, kernel
from .device_stages import DeviceStages
from .expressions import Expression
from .loop_call import LoopCall
from .step_trace import Draw


def address(x: Any) -> int:
    """Return the address of the first element of an array of the device."""
    found: int = x.data.ptr
    return found


class DeviceLoop(CompiledLoop):
    """A loop: its kernels, and the operations of a step."""

    lowering = DeviceStages
    stages: DeviceStages

    def room(self, width: int, dtype: Any) -> int:
        """Return the elements from one row to the next of an array that the loop provides."""
        return width

    def _link(self, number: dict[str, int], ends: list[tuple[str, str, str, Expression]]) -> None:
        stages = self.stages
        self.ends = [
            (kind, number[out], number[operand] if operand else -1, x, stages.width(x))
            for kind, out, operand, x in ends
        ]
        self.always = any(kind == "zero" for kind, *_ in ends)
        self.source = stages.text(self.ends)
        self.number = number

    def run_on(
        self,
        module: Any,
        steps: int,
        invariants: dict[Expression, Any],
        series: dict[str, tuple[int, int, int]],
        edge: Sequence[float] | None = None,
        alive: Sequence[Any] | None = None,
        edge_alive: Sequence[Any] | None = None,
    ) -> None:
        """Run the loop, as `run`: the masks are one array of the device for each step, or None."""
        values = self._values(invariants, module)
        held: list[Any] = []  # arrays that the addresses refer to
        places = self._places(module, steps, values, series, held)
        for name, numbers in (("alive", alive), ("edge_alive", edge_alive)):
            if numbers is not None:
                places[name] = [0 if m is None else address(m) for m in numbers[:steps]]
        places["edge"] = 1.0 if edge is None else edge[:steps]
        form = self._form(alive)
        product = cublas.products(module)
        product.begin()
        weights = [cublas.Weight.of(values[x], held, module) for x in self.weights]
        at = places["at"].tolist()
        shape = self.stages.shapes
        functions = [kernel(module, self.source, f"stage{i}") for i in range(len(shape))]
        ending = kernel(module, self.source, "ends") if self.ends else None
        special = (places["alive"] != 0) | (places["edge"] != 1) | self.always
        rows, widest = self.rows, max((w for *_, w in self.ends), default=1)
        ends_grid = rows, -(-widest // THREADS)
        work: list[tuple[Any, ...]] = []
        for o in self.stages.operations:
            if o.kind == "stage":
                threads, parts = shape[o.which]
                work.append((functions[o.which], (rows, parts), (threads,)))
            else:
                out, operand = self.number[o.out], self.number[o.operand]
                strides = self.row[o.operand], self.row[o.out]
                weight = weights[self.stages.weights[o.which]]
                work.append((None, out, operand, o.offset, *strides, weight, o.adds))
        for t in range(steps):
            place, addresses = places[t : t + 1], at[t]
            for function, *how in work:
                if function is not None:
                    function(*how, (place, form))
                else:
                    out, operand, offset, lda, ldo, weight, adds = how
                    a = addresses[operand] + offset
                    product(rows, a, lda, weight, addresses[out], ldo, adds)
            if ending is not None and special[t]:
                ending(ends_grid, (THREADS,), (place, form))

    def _places(
        self,
        module: Any,
        steps: int,
        values: dict[Expression, Any],
        series: dict[str, tuple[int, int, int]],
        held: list[Any],
    ) -> Any:
        """Return the argument ``Place`` of each step, with the addresses of all arrays."""
        count = len(self.names)
        start, even, odd = np.zeros((3, count), np.int64)
        for x, name in self.constant.items():
            array = module.ascontiguousarray(values[x])
            held.append(array)
            start[self.number_of(name)] = address(array)
        for name, place in series.items():
            if name in self.number:
                n = self.number[name]
                start[n], even[n], odd[n] = place
        provided = {*series, *self.constant.values()}
        for name in self.names:
            if name not in provided:
                array = module.empty(
                    self.rows * self.row[name] * self.itemsize[name], dtype=np.uint8
                )
                held.append(array)
                start[self.number[name]] = address(array)
        t = np.arange(steps)[:, None]
        dtype = [("at", np.int64, (max(1, count),)), ("alive", np.int64), ("edge_alive", np.int64)]
        places = np.zeros(steps, np.dtype([*dtype, ("edge", float)]))
        places["at"][:, :count] = start + (t + 1) // 2 * even + t // 2 * odd
        return places

    def number_of(self, name: str) -> int:
        """Return the number of an array; a new one for an array that only products read."""
        return self.number.setdefault(name, len(self.names))

    def _form(self, alive: Sequence[Any] | None) -> Any:
        """Return the argument ``Form``: what is the same in all steps."""
        count = max(1, len(self.names))
        sizes, numbers = self.stages.sizes or [0], self.stages.numbers or [0.0]
        dtype = [("row", np.int64, (count,)), ("size", np.int64, (len(sizes),))]
        form = np.zeros(1, [*dtype, ("group", np.int64), ("number", float, (len(numbers),))])
        form["row"][0, : len(self.names)] = [self.row[n] * self.itemsize[n] for n in self.names]
        form["size"], form["number"] = sizes, numbers
        batch = next((m.size for m in alive or () if m is not None), 1)
        form["group"] = max(1, self.rows // batch)
        return form


class DevicePlan(CompiledPlan):
    """The plan of a step whose loops are kernels on a GPU."""

    loops = DeviceLoop
    forward_loop: DeviceLoop


class DeviceCall(CompiledCall):
    """One call of loops on a GPU."""

    executor = "cuda"
    plan: DevicePlan
    address = staticmethod(address)

    def _ordered(self, x: Any) -> Any:
        return self.module.ascontiguousarray(x)

    def _memory(self, x: Expression, *steps: int) -> Any:
        return self.module.empty((*steps, *x.sizes), dtype=x.dtype)

    def _slab(self, x: Expression, extra: int = 0, factor: bool = False) -> Any:
        return self._memory(x, self.T + extra)

    def _pair(self, rows: int, room: int, dtype: Any) -> Any:
        return self.module.empty((2, rows, room), dtype=dtype)

    def _drawn(self, draws: Sequence[Draw]) -> list[Any]:
        generators = {id(draw.rng) for draw in draws}
        if len(generators) == len(draws):  # the numbers of all steps follow one another
            slabs = [tg_random.keep_mask((self.T, *x.shape), x.keep, x.rng) for x in draws]
        else:
            slabs = [np.stack(masks) for masks in LoopCall._drawn(self, draws)]
        slabs = [self.module.asarray(slab) for slab in slabs]
        return [self.module.ascontiguousarray(x[::-1]) if self.reverse else x for x in slabs]

    def _steps(self, slab: Any) -> list[Any]:
        steps = [slab[t, ...] for t in range(len(slab))]
        return steps[::-1] if self.reverse else steps

    def _alive(self, masks: list[Any], backward: bool) -> Any:
        return masks[::-1] if backward else masks

    def _own_memory(self, i: int) -> Any:
        """Return None: the counts of references to a Tensor do not tell who reads its memory."""

    def _run(self, loop: Any, steps: int, series: Any, *masks: Any, **more: Any) -> None:
        loop.run_on(self.module, steps, self._invariants(), series, *masks, **more)
