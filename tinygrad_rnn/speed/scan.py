"""The loop over time as one operation: a node of the graph, with a loop forward and one backward.

`execute` is called by `tinygrad_rnn.recurrence` for every loop. It traces the step, finds or makes
its plan, and runs it on NumPy arrays. It raises `Refused` if that is not possible.

Arrays of all time steps are *slabs*, (T, ...). Matrices (B, F) of a batch are column-major in them.
A slab whose steps are factors of a product is one matrix with a row for each feature, (F, T B), so
that a product over all steps needs no copy; in others each step is contiguous.

Letters: T time steps, B batch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .. import random as tg_random
from .._util.nested import leaves, map_nested
from ..engine.backward_pass import run
from ..engine.codegen import check_saved
from ..engine.grad_mode import thread
from ..engine.graph import Node, OutputNode, Parents, last_write, tick
from ..engine.namespaces import namespaces
from ..engine.ops import kernels
from ..engine.tensor import Tensor, wrap
from ..errors import ArgumentError
from ..recurrence import loop
from ..recurrence.ragged import RaggedBatch, in_loop_order
from .expressions import Expression, refusal
from .step_plan import StepMask, StepPlan, Term, lock
from .step_trace import FLOATS, Draw, Refused, StepTrace

PLANS = 128  # how many plans are kept; the oldest goes first
_plans: dict[Any, StepPlan | Refused] = {}


def execute(
    step: Any,
    state: Any,
    xs: Any,
    edges: Sequence[float],
    ragged: RaggedBatch | None,
    reverse: bool,
) -> tuple[Any, Any]:
    """Run a loop as one operation: `recurrence.loop.run` without its checks.

    Returns
    -------
    state, ys
        As of `scan`; ys of ended sequences are not zero.

    Raises
    ------
    Refused
        If the loop cannot be traced. Nothing has been computed or drawn then.
    """
    inputs = [x for x in leaves(xs) if x is not None]
    initial = [s for s in leaves(state) if s is not None]
    if not initial:
        raise Refused("the state is empty")
    for x in (*inputs, *initial):
        if x._data.__class__ is not np.ndarray:
            raise Refused(f"there are arrays of {type(x._data).__module__}")
        if x.dtype.kind == "f" and x.dtype not in FLOATS:
            raise Refused(f"{x.dtype} is not supported")
    if any(x._data.size == 0 for x in (*inputs, *initial)):
        raise Refused("there are arrays without elements")
    example = map_nested(lambda x: wrap(x._data[0, ...], None, None), xs)
    trace = StepTrace(step, state, example)
    columns = initial[0].ndim == 2 and len(initial[0]) > 1
    key = trace.signature, columns
    plan = _plans.get(key)
    if plan is None:
        for oldest in [*_plans][: max(0, len(_plans) - PLANS + 1)]:
            _plans.pop(oldest, None)
        try:
            with lock:
                plan = StepPlan(trace, columns)
        except ArgumentError:  # a gradient rule uses an unsupported operation
            plan = Refused(f"the gradient of the step {refusal.what}")
        _plans[key] = plan
    if isinstance(plan, Refused):
        trace.forget()
        raise plan
    if trace.hoisted:
        inputs = [*inputs, *trace.hoist(inputs, columns)]
    call = _Loop(plan, trace, initial, inputs, edges, ragged, reverse)
    trace.forget()
    finals, ys = call.forward()
    elements = iter(finals)
    new = map_nested(lambda s: None if s is None else next(elements), state)
    return new, map_nested(lambda i: None if i is None else ys[i - len(finals)], trace.y)


class _Loop:
    """One call: a plan, its arrays, and the lists that the loops over time iterate over."""

    def __init__(
        self,
        plan: StepPlan,
        trace: StepTrace,
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
        self.xs = [self._ordered(x._data) for x in xs]
        self.draws = self._drawn(trace.draws)

    # -- slabs and lists ---------------------------------------------------------------------------

    def _ordered(self, x: Any) -> Any:
        """Return an array of all steps with column-major matrices, if the plan has these."""
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

    def _loop(self, slab: Any) -> list[Any]:
        """Return the arrays of the steps, in the order of the loop."""
        steps = list(slab) if slab.ndim > 1 else [slab[t, ...] for t in range(len(slab))]
        return steps[::-1] if self.reverse else steps

    def _drawn(self, draws: list[Draw]) -> list[Any]:
        """Return the masks of all steps for each draw, in the order of the loop."""
        if not draws:
            return []
        masks = [
            [tg_random.keep_mask(draw.shape, draw.keep, draw.rng) for draw in draws]
            for _ in range(self.T)
        ]
        return [list(column) for column in zip(*masks, strict=True)]

    def _masks(self) -> tuple[list[Any], list[Any]]:
        """Return the masks of the steps and of the edges into them, in the order of the loop."""
        assert self.ragged is not None
        longest = None if self.ragged.longest is None else self.ragged.longest.start
        alive = [None if m is None else m._data.reshape(-1) for m in self.ragged.steps]
        edges = [None if m is None else m._data.reshape(-1) for m in self.ragged.edges]
        masks = [None if m is None else StepMask(~m, longest) for m in alive]
        return masks[:: -1 if self.reverse else 1], in_loop_order(edges, self.reverse)

    # -- forward -----------------------------------------------------------------------------------

    def forward(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the final state and the ys."""
        plan, T = self.plan, self.T
        parents = tuple([x._node for x in self.tensors])
        every = self.ragged is None or self.ragged.edges[0] is None
        if self.edges[0] == 0 and every:  # the graph ends at the initial state
            parents = (*[None] * len(self.state), *parents[len(self.state) :])
        if self.ragged is not None:
            self.masks = self._masks()
        with_graph = self._with_graph(parents) if thread.recording and any(parents) else 0
        recording = with_graph != 0
        self.slabs = []
        before, after = [], []
        for i, (s, x) in enumerate(zip(self.state, plan.states, strict=True)):
            if recording or i in plan.same_as_state:
                factor = x in plan.factors or plan.new[i] in plan.factors
                slab = self._slab(x, 1, factor or i in plan.same_as_state)
                steps = self._loop(slab)
            else:  # two arrays, in turns
                slab = None
                pair = [self._memory(x) for _ in range(2)]
                steps = [pair[t % 2] for t in range(T + 1)]
            np.copyto(steps[0], s)
            self.slabs.append(slab)
            before.append(steps[:-1])
            after.append(steps[1:])
        self.before, self.after = before, after
        outputs = [
            self._slab(y, 0, True) if self.ragged is not None or same is None else None
            for y, same in zip(plan.ys, plan.same_as_state, strict=True)
        ]
        self.saved = [self._slab(x, 0, x in plan.factors) for x in plan.saved] if recording else []
        kernel = plan.forward(recording, self.ragged is not None)
        inputs, saved = [*map(self._loop, self.xs)], [*map(self._loop, self.saved)]
        lists = [*before, *inputs, *self.draws, *after]
        lists += [self._loop(y) for y in outputs if y is not None]
        lists += saved
        self.lists = inputs, saved
        heads = self.arrays
        if self.ragged is not None:
            seen: list[list[Any]] = [[] for _ in self.state]
            heads, lists = [*heads, seen], [*lists, self.masks[0]]
        kernel.call(*heads, *lists)
        if self.ragged is not None:
            self.before = seen
        finals = [steps[-1].copy("K") for steps in after]
        ys = []
        for same, y in zip(plan.same_as_state, outputs, strict=True):
            if y is None and same is not None:
                y = self.slabs[same][:-1] if self.reverse else self.slabs[same][1:]
            ys.append(y)
        if not recording:
            self.saved = []
            return [wrap(s, None, None) for s in finals], [wrap(y, None, None) for y in ys]
        node = ScanNode(parents, (), None)
        node.loop = self
        node.versions = [x._version for x in self.tensors]
        tensors = []
        for i, array in enumerate([*finals, *ys]):
            has = with_graph >> i & 1
            piece = OutputNode(node, i, array.shape, array.dtype) if has else None
            tensors.append(wrap(array, piece, None))
        return tensors[: len(finals)], tensors[len(finals) :]

    # -- what has a graph --------------------------------------------------------------------------

    def _cuts(self) -> tuple[list[bool], list[bool]]:
        """Return which edges end the graph, and at which steps a sequence keeps its state."""
        ragged = self.ragged is not None
        alive = self.masks[1] if ragged else [None] * self.T
        cuts = [w == 0 and m is None for w, m in zip(self.weights, alive, strict=True)]
        return cuts, [m is not None for m in self.masks[0]] if ragged else [False] * self.T

    def _with_graph(self, parents: Parents) -> int:
        """Return which results have a graph, as bits: what the loop in Python would record."""
        origins, first = self.plan.origins, len(self.state)
        states = (1 << first) - 1
        given = sum(1 << i for i, p in enumerate(parents) if p is not None)
        current, ys = given & states, 0
        computed: dict[int, int] = {}  # the results of a step, by the states with a graph
        cuts, keeps = self._cuts()
        last_cut = max((t for t in range(self.T) if cuts[t]), default=0)
        for t in range(self.T):
            current = 0 if cuts[t] else current
            if current not in computed:
                known = current | given & ~states
                computed[current] = sum(1 << i for i, x in enumerate(origins) if x & known)
            results = computed[current]
            ys |= results & ~states
            before, current = current, results & states | (current if keeps[t] else 0)
            if current == before and results & states == before and t >= last_cut:
                break
        return current | ys

    def _reached(self, results: Iterable[int]) -> int:
        """Return which parents the gradients of some results reach, as bits."""
        origins, first = self.plan.origins, len(self.state)
        states = (1 << first) - 1
        ends = sum(1 << i for i in results)
        current, ys, found = ends & states, ends & ~states, 0
        leads: dict[int, int] = {}  # what a step leads to, by its results with a gradient
        cuts, keeps = self._cuts()
        first_cut = next((t for t in range(1, self.T) if cuts[t]), self.T)
        for t in reversed(range(self.T)):
            before = current
            if current not in leads:
                leads[current] = 0
                for i, x in enumerate(origins):
                    leads[current] |= x if (current | ys) >> i & 1 else 0
            found |= leads[current] & ~states
            current = leads[current] & states | (current if keeps[t] else 0)
            if current == before == leads[before] & states and t < first_cut:
                break
            current = 0 if cuts[t] else current
        return found | (0 if cuts[0] else current)

    # -- backward ----------------------------------------------------------------------------------

    def backward(self, grads: dict[int, Any], needed: tuple[bool, ...], last: bool) -> list[Any]:
        """Return the gradients of the state, of the inputs and of the invariants.

        `last` tells that the loop is not used again.
        """
        plan, first = self.plan, len(self.state)
        reached = self._reached(grads)
        needed = tuple([need and bool(reached >> i & 1) for i, need in enumerate(needed)])
        which = tuple(sorted(i - first for i in grads if i >= first))
        scaled = any(edge != 1 for edge in self.edges)
        made = plan.backward(which, needed, self.ragged is not None, scaled)
        heads: list[Any] = [*self.arrays]
        live = [i for i in range(first) if plan.differentiable[i]]
        for i in live:
            carried = self._memory(plan.states[i])
            carried[...] = grads.get(i, 0)
            heads += [carried, self._memory(plan.states[i])]
        sums = [np.zeros(x.sizes) for x in made.added]
        heads += sums
        inputs: list[Any] = [None] * len(made.inputs)
        for i, g in enumerate(made.inputs):
            if g is not None:
                own = self._own_memory(i) if last else None
                inputs[i] = self._slab(g, 0, True) if own is None else own
        collected = [self._slab(x, 0, True) for x in made.collected]
        xs, saved = self.lists
        lists = [*self.before, *xs, *self.draws]
        lists += [self.after[i] for i in plan.distinct_new]
        lists += saved
        lists += [self._loop(self._ordered(grads[first + i])) for i in which]
        lists += [self._loop(x) for x in inputs if x is not None]
        lists += map(self._loop, collected)
        if self.ragged is not None:
            lists.append(self.masks[0])
        alive = self.masks[1] if self.ragged is not None else [None] * self.T
        if scaled:
            lists += [self.weights, alive]
        start = 0
        if not which:  # no gradient reaches the steps before the last cut
            cuts = (t for t in range(1, self.T) if self.weights[t] == 0 and alive[t] is None)
            start = max(cuts, default=0)
        if start:
            for x in (*(x for x in inputs if x is not None), *collected):
                self._span(x, 0, start)[...] = 0
            lists = [steps[start:] for steps in lists]
        carried = made.function(*heads, *(steps[::-1] for steps in lists))
        of_states: list[Any] = [None] * first
        for i, g in zip(live, carried, strict=True):
            of_states[i] = g if needed[i] else None
        kept: dict[Expression, Any] = dict(zip(made.collected, collected, strict=True))
        kept.update(zip(plan.saved, self.saved, strict=True))
        kept.update(zip(plan.xs, self.xs, strict=True))
        for x, slab in zip(plan.new, self.slabs, strict=True):
            kept[x] = slab[:-1] if self.reverse else slab[1:]
        for x, slab in zip(plan.states, self.slabs, strict=True):
            kept[x] = slab[1:] if self.reverse else slab[:-1]
        for x, masks in zip(plan.draws, self.draws, strict=True):
            kept[x] = np.stack(masks[::-1] if self.reverse else masks)
        kept.update({g: x for g, x in zip(made.inputs, inputs, strict=True) if g is not None})
        kept = {x: self._span(slab, start, self.T) for x, slab in kept.items()}
        totals = {x: sums[i].astype(x.dtype) for x, i in made.added.items()}
        shapes = [x.shape for x in self.tensors[first + len(self.xs) :]]
        of_invariants = [
            _total(terms, kept, totals, shape)
            for terms, shape in zip(made.terms, shapes, strict=True)
        ]
        return [*of_states, *inputs, *of_invariants]

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
        self.lists[0][i] = []  # no views of the steps
        array = x._data
        base = array.base
        own = sys.getrefcount(x) == 3 and sys.getrefcount(array) == 4 and array.flags.writeable
        if base is not None:
            own = own and type(base) is np.ndarray and sys.getrefcount(base) == 3
        self.lists[0][i] = self._loop(self.xs[i])
        return array if own else None

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
        trace, (wanted, function) = plan.trace, plan.everything
        symbolic = [*trace.arguments, *trace.symbolic_invariants]
        count, first = len(plan.arguments), len(plan.states)
        draws = iter(zip(*self.draws, strict=True) if self.draws else [()] * self.T)

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


def _product(term: Term, kept: dict[Expression, Any]) -> Any:
    """Return the product of the factors of all time steps."""
    left, right = (kept[x] for x in term.values)
    if term.part is not None:
        left = left[..., term.part[0] : term.part[1]]
    return kernels.gemm(kernels.rows(left).T, kernels.rows(right))


def _total(
    terms: list[tuple[Term, list[Term]]],
    kept: dict[Expression, Any],
    totals: dict[Expression, Any],
    shape: Any,
) -> Any:
    """Return the gradient of an invariant, of all time steps; None without terms."""
    total = None
    for term, parts in terms:
        if term.kind == "product":
            values = [_product(part, kept) for part in parts]
            value = values[0] if len(values) == 1 else np.concatenate(values)
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


class ScanNode(Node):
    """The node of a loop over time; its parents are the state, the inputs and the invariants."""

    __slots__ = ("loop", "versions")
    name = "scan"
    loop: Any  # a _Loop; None once freed
    versions: list[Any]

    def unrolled(self) -> list[Tensor]:
        """Return the results again, with the graph of each step."""
        check_saved(self, self.loop, self.versions)
        tensors = [
            wrap(x._data, p, v)
            for x, p, v in zip(self.loop.tensors, self.parents, self.versions, strict=True)
        ]
        return self.loop.replay(tensors)

    def vjp(self, F: Any, grad: Any, parents: Parents, retain: bool) -> Sequence[Any]:
        """Run the backward loop; under create_graph the loop again, operation by operation."""
        call = self.loop
        if call is None or last_write[0] > self.order:
            read = () if call is None else call.reads(F.records)
            check_saved(self, call, [self.versions[i] for i in read])
        if not F.records:
            self.loop = call if retain else None
            return call.backward(grad, tuple([p is not None for p in parents]), not retain)
        since = tick()
        outputs = self.unrolled()
        self.loop = call if retain else None
        roots = [(node, g) for i, g in grad.items() if (node := outputs[i]._node) is not None]
        wanted = {p for p in parents if p is not None}
        found = run(roots, namespaces, wanted, retain=True, since=since)
        results, seen = [], set()
        for p in parents:  # a tensor that is read in two places has one gradient
            results.append(found[p][0] if p in found and p not in seen else None)
            seen.add(p)
        return results


loop.register("numpy", execute, Refused)
