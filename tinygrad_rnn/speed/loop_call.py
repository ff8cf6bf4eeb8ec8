"""One call of a loop over time: its arrays, and the loops in Python that run on them.

Arrays of all time steps are *slabs*, (T, ...). Matrices (B, F) of a batch are column-major in them.
A slab whose steps are factors of a product is one matrix with a row for each feature, (F, T B), so
that a product over all steps needs no copy; in others each step is contiguous.

Letters: T time steps, B batch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import random as tg_random
from .._util.nested import map_nested
from ..engine.backend import module_of
from ..engine.graph import Node, tick
from ..engine.ops import kernels
from ..engine.tensor import Tensor, wrap
from ..recurrence import loop
from ..recurrence.ragged import RaggedBatch, in_loop_order
from .expressions import Expression
from .kept_traces import Bound
from .reach import Reach
from .step_plan import Derivative, StepMask, StepPlan, Term
from .step_trace import Draw, StepTrace


class LoopCall:
    """One call: a plan, its arrays, and the lists that the loops over time iterate over.

    The names of arrays are those of `StepPlan.given` and `Derivative`.
    """

    executor = "numpy"

    def __init__(
        self,
        plan: StepPlan,
        trace: StepTrace | Bound,
        state: list[Tensor],
        xs: list[Tensor],
        edges: Sequence[float],
        ragged: RaggedBatch | None,
        reverse: bool,
    ) -> None:
        self.plan, self.reverse, self.T = plan, reverse, len(edges)
        self.tensors = [*state, *xs, *trace.invariants]  # the parents
        self.edges, self.ragged = edges, ragged
        self.weights = in_loop_order(edges, reverse)  # of the edges
        self.arrays = list(trace.arrays)
        self.state = [s._data for s in state]
        self.module = module_of(self.state[0])
        self.xs = [self._ordered(x._data) for x in xs]
        self.draws = self._drawn(trace.draws)
        self.alive, self.edge_alive = self._masks()
        self.scaled = self.weights.count(1) != self.T
        cuts = keeps = [False] * self.T
        if self.scaled:
            pairs = zip(self.weights, self.edge_alive, strict=True)
            cuts = [w == 0 and m is None for w, m in pairs]
        if ragged is not None:
            keeps = [m is not None for m in self.alive]
        self.reach = Reach(plan.origins, len(state), cuts, keeps)
        self.lists: dict[str, list[Any]] = {}

    # -- slabs and lists ---------------------------------------------------------------------------

    def _ordered(self, x: Any) -> Any:
        """Return an array of all steps in the memory order of the plan."""
        return kernels.to_column_major(x) if self.plan.columns and x.ndim == 3 else x

    def _memory(self, x: Expression, *steps: int) -> Any:
        """Return memory for a value, of one step or of several."""
        if self.plan.columns and len(x.sizes) == 2:
            return np.empty((*steps, *x.sizes[::-1]), x.dtype).swapaxes(-1, -2)
        return np.empty((*steps, *x.sizes), x.dtype)

    def _slab(self, x: Expression, extra: int = 0, factor: bool = False) -> Any:
        """Return memory for a value of T + `extra` steps."""
        if factor and self.plan.columns and len(x.sizes) == 2:
            return kernels.empty_in_order_of((self.T + extra, *x.sizes), self._memory(x))
        return self._memory(x, self.T + extra)

    def _steps(self, slab: Any) -> list[Any]:
        """Return the arrays of the steps, in the order of the loop."""
        steps = list(slab) if slab.ndim > 1 else [slab[t, ...] for t in range(len(slab))]
        return steps[::-1] if self.reverse else steps

    def _drawn(self, draws: Sequence[Draw]) -> list[Any]:
        """Return the masks of all steps for each draw, in the order of the loop."""
        if not draws:
            return []
        masks = [
            [tg_random.keep_mask(draw.shape, draw.keep, draw.rng) for draw in draws]
            for _ in range(self.T)
        ]
        return [list(column) for column in zip(*masks, strict=True)]

    def _masks(self) -> tuple[list[Any], list[Any]]:
        """Return which sequences have each step and each edge, in the order of the loop.

        None means all.
        """
        if self.ragged is None:
            return [None] * self.T, [None] * self.T
        alive = [None if m is None else m._data.reshape(-1) for m in self.ragged.steps]
        edges = [None if m is None else m._data.reshape(-1) for m in self.ragged.edges]
        return alive[:: -1 if self.reverse else 1], in_loop_order(edges, self.reverse)

    # -- forward -----------------------------------------------------------------------------------

    def forward(self, recording: bool) -> tuple[list[Any], list[Any]]:
        """Return the arrays of the final state and of the ys.

        `recording`: keep the values that the backward pass reads.
        """
        plan = self.plan
        self.slabs = []
        for i, x in enumerate(plan.states):
            if recording or i in plan.same_as_state:
                factor = x in plan.factors or plan.new[i] in plan.factors
                self.slabs.append(self._slab(x, 1, factor or i in plan.same_as_state))
            else:
                self.slabs.append(None)
        outputs = [
            self._slab(y, 0, True) if self.own_output(i) else None for i, y in enumerate(plan.ys)
        ]
        self.saved = [self._slab(x, 0, x in plan.factors) for x in plan.saved] if recording else []
        finals = self._run_forward(outputs, recording)
        ys = []
        for same, y in zip(plan.same_as_state, outputs, strict=True):
            if y is None and same is not None:
                y = self.slabs[same][:-1] if self.reverse else self.slabs[same][1:]
            ys.append(y)
        return finals, ys

    def own_output(self, i: int) -> bool:
        """Tell whether a y has memory of its own, and is not a part of a state's."""
        return self.ragged is not None or self.plan.same_as_state[i] is None

    def _run_forward(self, outputs: list[Any], recording: bool) -> list[Any]:
        """Run the loop, and return the final state."""
        plan, T = self.plan, self.T
        lists: dict[str, list[Any]] = {}
        for i, (s, x, slab) in enumerate(zip(self.state, plan.states, self.slabs, strict=True)):
            if slab is None:  # two arrays, in turns
                pair = [self._memory(x) for _ in range(2)]
                steps = [pair[t % 2] for t in range(T + 1)]
            else:
                steps = self._steps(slab)
            np.copyto(steps[0], s)
            lists[f"s{i}"], lists[f"n{i}"] = steps[:-1], steps[1:]
        lists.update({f"x{i}": self._steps(x) for i, x in enumerate(self.xs)})
        lists.update({f"d{i}": masks for i, masks in enumerate(self.draws)})
        lists.update({f"z{i}": self._steps(x) for i, x in enumerate(self.saved)})
        made = {f"y{i}": self._steps(y) for i, y in enumerate(outputs) if y is not None}
        heads = self._heads()
        if self.ragged is not None:
            longest = None if self.ragged.longest is None else self.ragged.longest.start
            lists["m"] = [None if m is None else StepMask(~m, longest) for m in self.alive]
            heads["seen"] = [[] for _ in self.state]
        plan.forward(recording, self.ragged is not None)(heads, {**lists, **made})
        if self.ragged is not None:
            lists.update({f"s{i}": seen for i, seen in enumerate(heads["seen"])})
        self.lists = lists
        return [lists[f"n{i}"][-1].copy("K") for i in range(len(self.state))]

    def _heads(self) -> dict[str, Any]:
        """Return the invariants by their names."""
        pairs = zip(self.plan.invariants, self.arrays, strict=True)
        return {f"a{x.number}": array for x, array in pairs}

    # -- backward ----------------------------------------------------------------------------------

    def backward(self, grads: dict[int, Any], needed: tuple[bool, ...], last: bool) -> list[Any]:
        """Return the gradients of the state, of the inputs and of the invariants.

        `last` tells that the loop is not used again.
        """
        plan, first = self.plan, len(self.state)
        reached = self.reach.reached(grads)
        needed = tuple([need and bool(reached >> i & 1) for i, need in enumerate(needed)])
        which = tuple(sorted(i - first for i in grads if i >= first))
        step, made = self._backward_loop(which, needed)
        wanted = self._wanted(step, needed)
        sums = {f"e{i}": self.module.zeros(x.sizes) for x, i in step.added.items()}
        inputs: list[Any] = [None] * len(step.inputs)
        for i, g in enumerate(step.inputs):
            if g is not None and g in wanted:
                own = self._own_memory(i) if last else None
                inputs[i] = self._slab(g, 0, True) if own is None else own
        collected = [self._slab(x, 0, True) if x in wanted else None for x in step.collected]
        start = 0
        if not which:  # no gradient reaches the steps before the last cut
            start = max((t for t in range(1, self.T) if self.reach.cuts[t]), default=0)
        if start:
            for x in (*inputs, *collected):
                if x is not None:
                    self._span(x, 0, start)[...] = 0
        slabs = {f"r{i}": x for i, x in enumerate(inputs)}
        slabs.update({f"c{i}": x for i, x in enumerate(collected)})
        slabs.update({f"gy{i}": self._ordered(grads[first + i]) for i in which})
        carried = self._run_backward(step, made, grads, slabs, sums, start)
        of_states: list[Any] = [None] * first
        for i, g in zip(step.live, carried, strict=True):
            of_states[i] = g if needed[i] else None
        kept: dict[Expression, Any] = dict(zip(step.collected, collected, strict=True))
        kept.update(zip(plan.saved, self.saved, strict=True))
        kept.update(zip(plan.xs, self.xs, strict=True))
        for x, slab in zip(plan.new, self.slabs, strict=True):
            kept[x] = slab[:-1] if self.reverse else slab[1:]
        for x, slab in zip(plan.states, self.slabs, strict=True):
            kept[x] = slab[1:] if self.reverse else slab[:-1]
        for x, masks in zip(plan.draws, self.draws, strict=True):
            kept[x] = self._slab_of_masks(masks)
        kept.update({g: x for g, x in zip(step.inputs, inputs, strict=True) if g is not None})
        if start:
            kept = {x: self._span(s, start, self.T) for x, s in kept.items() if s is not None}
        totals = {x: sums[f"e{i}"].astype(x.dtype) for x, i in step.added.items()}
        read = [x._data for x in self.tensors[first + len(self.xs) :]]
        of_invariants = [
            _total(terms, kept, totals, x, not plan.columns) if need else None
            for terms, x, need in zip(step.terms, read, needed[first + len(self.xs) :], strict=True)
        ]
        return [*of_states, *inputs, *of_invariants]

    def _masks_of_steps(self) -> list[Any]:
        """Return for each draw the masks of the steps, in the order of the loop."""
        return self.draws

    def _slab_of_masks(self, masks: Any) -> Any:
        return np.stack(masks[::-1] if self.reverse else masks)

    def _backward_loop(
        self, which: tuple[int, ...], needed: tuple[bool, ...]
    ) -> tuple[Derivative, Any]:
        """Return the derivative of the step, and the loop that computes it."""
        made = self.plan.backward(which, needed, self.ragged is not None, self.scaled)
        assert made.derivative is not None
        return made.derivative, made

    def _wanted(self, step: Derivative, needed: tuple[bool, ...]) -> set[Expression]:
        """Return the values of all steps that are a result, or that a result is computed from."""
        first, count = len(self.state), len(self.state) + len(self.xs)
        wanted = {
            g for g, n in zip(step.inputs, needed[first:count], strict=True) if n and g is not None
        }
        for terms, need in zip(step.terms, needed[count:], strict=True):
            if need:
                wanted.update(x for _, parts in terms for part in parts for x in part.values)
        return wanted

    def _run_backward(
        self,
        step: Derivative,
        made: Any,
        grads: dict[int, Any],
        slabs: dict[str, Any],
        sums: dict[str, Any],
        start: int,
    ) -> Sequence[Any]:
        """Run the loop from the last step to the step `start`; return the gradients of the state.

        It fills `slabs` and `sums`.
        """
        heads: dict[str, Any] = {**self._heads(), **sums}
        for i in step.live:
            carried = self._memory(self.plan.states[i])
            carried[...] = grads.get(i, 0)
            heads[f"g{i}"], heads[f"h{i}"] = carried, self._memory(self.plan.states[i])
        lists = dict(self.lists)
        lists.update({name: self._steps(x) for name, x in slabs.items() if x is not None})
        if self.scaled:
            lists["w"] = list(self.weights)
            lists["u"] = self.edge_alive
        reversed_lists = {name: steps[start:][::-1] for name, steps in lists.items()}
        found: Sequence[Any] = made(heads, reversed_lists)
        return found

    def _span(self, slab: Any, start: int, stop: int) -> Any:
        """Return the steps `start` … `stop` - 1, counted in the order of the loop."""
        return slab[self.T - stop : self.T - start] if self.reverse else slab[start:stop]

    def _own_memory(self, i: int) -> Any:
        """Return the array of an input to write its gradient to; None if it is in use.

        The projection of the input is the largest array of a layer. If the gradient does not read
        it and nothing else refers to it, its gradient takes its place. The counts are those of
        Python: another holder of the Tensor, of its array or of a view of that makes one larger.
        """
        x = self.tensors[len(self.state) + i]
        if self.plan.xs[i] in self.plan.reads or x._version is not None:
            return None
        if self.plan.columns and not kernels.is_one_matrix(x._data):
            return None
        if self.xs[i] is not x._data:  # a copy in another memory order
            return None
        self.lists.pop(f"x{i}", None)  # views
        array = x._data
        base = array.base
        own = sys.getrefcount(x) == 3 and sys.getrefcount(array) == 4 and array.flags.writeable
        if base is not None:
            own = own and type(base) is np.ndarray and sys.getrefcount(base) == 3
        self._views_again(i)
        return array if own else None

    def _views_again(self, i: int) -> None:
        """Make the lists of an input again."""
        self.lists[f"x{i}"] = self._steps(self.xs[i])

    def reads(self, everything: bool) -> list[int]:
        """Return which tensors the backward pass reads: all of them if it is replayed."""
        if everything:
            return list(range(len(self.tensors)))
        plan = self.plan
        symbolic = [t._data for t in (*plan.trace.arguments, *plan.trace.symbolic_invariants)]
        first = len(plan.states)  # the state was copied
        return [i for i, x in enumerate(symbolic) if i >= first and x in plan.reads]

    # -- the graph, for derivatives of higher order ------------------------------------------------

    def replay(self, tensors: list[Tensor]) -> list[Tensor]:
        """Return the results, computed step by step with the graph of each step.

        `tensors` are the state, the inputs and the invariants. The graph of a step is a copy of the
        traced one, so it has the nodes that the loop in Python would have.
        """
        plan = self.plan
        trace, (wanted, kernel) = plan.trace, plan.everything
        function = kernel.schedule(self.module)
        symbolic = [*trace.arguments, *trace.symbolic_invariants]
        count, first = len(plan.arguments), len(plan.states)
        draws = iter(zip(*self._masks_of_steps(), strict=True) if self.draws else [()] * self.T)

        def step(state: list[Tensor], x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            real = [*state, *x, *tensors[count:]]
            arrays = [t._data for t in real[:count]]
            values = function(*arrays, *self.arrays, *next(draws))
            known = dict(zip(wanted, values, strict=True))
            pairs = zip(symbolic, real, strict=True)
            nodes: dict[Any, Any] = {s._node: t._node for s, t in pairs if s._node is not None}
            for node in trace.nodes:
                if node not in nodes:
                    nodes[node] = _copied(node, nodes, known)
            results = [wrap(known[y._data], nodes.get(y._node), None) for y in trace.results]
            return results[:first], results[first:]

        state, ys = loop.in_python(
            step, tensors[:first], tensors[first:count], self.edges, self.ragged, self.reverse
        )
        return [*state, *ys]


def _copied(node: Node, nodes: dict[Any, Any], known: dict[Expression, Any]) -> Node:
    """Return a node with other parents, and arrays in place of the expressions that it saved."""
    new = object.__new__(type(node))
    for kind in type(node).__mro__:
        for name in getattr(kind, "__slots__", ()):
            if name != "__weakref__" and hasattr(node, name):
                setattr(new, name, getattr(node, name))
    new.order = tick()
    new.parents = tuple([nodes.get(p) for p in node.parents])
    if hasattr(node, "saved"):

        def real(x: Any) -> Any:
            return known[x] if x.__class__ is Expression else x

        new.saved = map_nested(real, node.saved)  # type: ignore[attr-defined]
    return new


def _product(term: Term, kept: dict[Expression, Any], across: bool) -> Any:
    """Return the product of the factors of all time steps; `across`: as (rightᵀ left)ᵀ."""
    left, right = (kept[x] for x in term.values)
    if term.part is not None:
        left = left[..., term.part[0] : term.part[1]]
    if across:
        return kernels.gemm(kernels.rows(right).T, kernels.rows(left)).T
    return kernels.gemm(kernels.rows(left).T, kernels.rows(right))


def _total(
    terms: list[tuple[Term, list[Term]]],
    kept: dict[Expression, Any],
    totals: dict[Expression, Any],
    like: Any,
    ordered: bool,
) -> Any:
    """Return the gradient of an invariant `like`, of all time steps; None without terms.

    `ordered`: in the memory order of `like`, for an update that needs it.
    """
    shape = like.shape
    across = like.ndim == 2 and kernels.is_column_major(like)
    total = None
    for term, parts in terms:
        if term.kind == "product":
            values = [_product(part, kept, ordered and across != term.transposed) for part in parts]
            value = values[0] if len(values) == 1 else module_of(like).concatenate(values)
        elif term.kind == "sum":
            slab = kept[term.values[0]]
            axes = (0, *(i + 1 for i in term.axes))
            value = kernels.reduced("sum", slab, axes, True)
            value = value.reshape(shape[::-1] if term.transposed else shape)
        else:
            value = totals[term.values[0]]
        value = value.T if term.transposed else value
        total = value if total is None else total + value
    return total
