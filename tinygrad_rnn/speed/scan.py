"""The loop over time as one operation: a node of the graph, with a loop forward and one backward.

`execute` is called by `tinygrad_rnn.recurrence` for every loop. It traces the step, finds or makes
its plan, and runs it on NumPy arrays: by loops in C if there is a compiler and they can compute all
of the step, else by loops of NumPy calls. It raises `Refused` if that is not possible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._util.nested import leaves, map_nested
from ..engine import backend
from ..engine.backward_pass import run
from ..engine.codegen import check_saved
from ..engine.grad_mode import thread
from ..engine.graph import Node, OutputNode, Parents, last_write, tick
from ..engine.namespaces import namespaces
from ..engine.pending import DeferredMatmul
from ..engine.tensor import Tensor, wrap
from ..errors import ArgumentError, CompilerError
from ..recurrence import loop
from ..recurrence.ragged import RaggedBatch
from . import executor
from .compiled_call import CompiledCall, CompiledPlan
from .compiler import Compiler
from .cuda import module
from .device_call import DeviceCall, DevicePlan
from .expressions import refusal
from .kept_traces import Bound, find, keep
from .loop_call import LoopCall
from .loops import Unsupported
from .step_facts import facts_of
from .step_plan import StepPlan, lock
from .step_proof import prove_plan
from .step_trace import FLOATS, Refused, StepTrace

PLANS = 128  # how many plans are kept; the oldest goes first
_plans: dict[Any, StepPlan | CompiledPlan | Refused | Unsupported] = {}


def execute(
    step: Any,
    state: Any,
    xs: Any,
    edges: Sequence[float],
    ragged: RaggedBatch | None,
    reverse: bool,
) -> tuple[Any, Any, str, str]:
    """Run a loop as one operation: `recurrence.loop.run` without its checks.

    Returns
    -------
    state, ys
        As of `scan`; ys of ended sequences are not zero.
    executor, reason : str
        Which executor ran, and why not the one in C.

    Raises
    ------
    Refused
        If the loop cannot be traced. Nothing has been computed or drawn then.
    """
    inputs = [x for x in leaves(xs) if x is not None]
    initial = [s for s in leaves(state) if s is not None]
    if not initial:
        raise Refused("the state is empty")
    library = initial[0]._data.__class__
    host = library is np.ndarray
    if not host and not module.enabled("kernels"):
        raise Refused(f"a GPU computes operation by operation: {module.reason()}")
    for x in (*inputs, *initial):
        if x._data.__class__ is not library:
            raise Refused("there are arrays of several libraries")
        if x.dtype.kind == "f" and x.dtype not in FLOATS:
            raise Refused(f"{x.dtype} is not supported")
    if any(x._data.size == 0 for x in (*inputs, *initial)):
        raise Refused("there are arrays without elements")
    if not host and backend.device_mismatch([x._data for x in (*inputs, *initial)]):
        raise Refused("there are arrays of several devices")
    executor.compiler()  # is chosen now: while a step is traced, that would be a side effect
    facts = facts_of(step, state, xs)
    kept = None if facts is None else find(facts)
    trace: StepTrace | Bound
    if facts is not None and kept is not None:
        plan, reason, y, trace = kept.plan, kept.reason, kept.y, kept.bind(facts)
    else:
        trace, plan, reason = _traced(step, state, xs, initial)
        y = trace.y
        if facts is not None and facts.holds(step, state, xs):  # no other thread changed one
            keep(facts, trace, plan, reason)
        if trace.hoisted:
            inputs = [*inputs, *trace.hoist(inputs, plan.columns)]
    kinds = {DevicePlan: DeviceCall, CompiledPlan: CompiledCall}
    call = kinds.get(type(plan), LoopCall)(plan, trace, initial, inputs, edges, ragged, reverse)
    if not isinstance(trace, Bound):
        trace.forget()
    finals, ys = _forward(call)
    elements = iter(finals)
    new = map_nested(lambda s: None if s is None else next(elements), state)
    ys = map_nested(lambda i: None if i is None else ys[i - len(finals)], y)
    return new, ys, call.executor, getattr(call, "reason", reason)


def _traced(step: Any, state: Any, xs: Any, initial: list[Tensor]) -> tuple[StepTrace, Any, str]:
    """Return the trace of a step, its plan, and why that is not one of loops in C."""
    example = map_nested(lambda x: wrap(x._data[0, ...], None, None), xs)
    trace = StepTrace(step, state, example)
    return trace, *_plan(trace, initial)


def _plan(trace: StepTrace, state: list[Tensor]) -> tuple[Any, str]:
    """Return the plan of a trace, and why it is not one of loops in C."""
    signature = trace.signature
    reason = ""
    if state[0]._data.__class__ is not np.ndarray:
        plan = _cached((signature, "cuda"), lambda: _loaded(trace))
        if isinstance(plan, Unsupported):
            plan = Refused(f"not in CUDA: {plan}")
        return _checked(plan, trace), module.reason()
    compiler = executor.compiler()
    if compiler is not None:
        plan = _cached((signature, "c"), lambda: _proved(compiler, CompiledPlan(trace)))
        if not isinstance(plan, Unsupported):
            return _checked(plan, trace), ""
        reason = f"not in C: {plan}"
    columns = state[0].ndim == 2 and len(state[0]) > 1
    return _checked(_cached((signature, columns), lambda: StepPlan(trace, columns)), trace), reason


def _loaded(trace: StepTrace) -> DevicePlan:
    """Return the plan of a trace for a GPU, with its kernels compiled."""
    plan = DevicePlan(trace)
    try:
        plan.load(trace.module)
    except CompilerError as error:
        raise Unsupported(module.fall_back(error, "operations")) from None
    return plan


def _proved(compiler: Compiler, plan: CompiledPlan) -> CompiledPlan:
    prove_plan(compiler, plan)
    return plan


def _checked(plan: Any, trace: StepTrace) -> Any:
    if isinstance(plan, Refused):
        trace.forget()
        raise plan
    return plan


def _cached(key: Any, make: Callable[[], Any]) -> Any:
    """Return a plan that was made before, or make it; or the reason why there is none."""
    plan = _plans.get(key)
    if plan is None:
        for oldest in [*_plans][: max(0, len(_plans) - PLANS + 1)]:
            _plans.pop(oldest, None)
        try:
            with lock:
                plan = make()
        except Unsupported as error:
            plan = error.with_traceback(None)
        except CompilerError as error:
            plan = Unsupported(executor.fall_back(error))
        except ArgumentError:  # a gradient rule uses an unsupported operation
            plan = Refused(f"the gradient of the step {refusal.what}")
        _plans[key] = plan
    return plan


def _forward(call: LoopCall) -> tuple[list[Tensor], list[Tensor]]:
    """Run a loop, and return the final state and the ys with their node."""
    ragged = call.ragged
    parents = tuple([x._node for x in call.tensors])
    states = len(call.state)
    every = ragged is None or ragged.edges[0] is None
    if call.edges[0] == 0 and every:  # the graph ends at the initial state
        parents = (*[None] * states, *parents[states:])
    with_graph = call.reach.with_graph(parents) if thread.recording and any(parents) else 0
    recording = with_graph != 0
    finals, ys = call.forward(recording)
    if not recording:
        return [wrap(s, None, None) for s in finals], [wrap(y, None, None) for y in ys]
    node = ScanNode(parents, (), None)
    node.loop = call
    node.versions = [x._version for x in call.tensors]
    tensors = []
    for i, array in enumerate([*finals, *ys]):
        has = with_graph >> i & 1
        piece = OutputNode(node, i, array.shape, array.dtype) if has else None
        tensors.append(wrap(array, piece, None))
    return tensors[:states], tensors[states:]


class ScanNode(Node):
    """The node of a loop over time; its parents are the state, the inputs and the invariants."""

    __slots__ = ("loop", "versions")
    name = "scan"
    loop: Any  # a LoopCall; None once freed
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
            needed = tuple([p is not None for p in parents])
            grads = list(call.backward(grad, needed, not retain))
            first = len(call.state) + len(call.xs)
            owners = [id(g if g is None or g.base is None else g.base) for g in grads]
            for i, g in enumerate(grads[first:], first):
                # A matrix in memory of its own is not copied: the pass knows that of its own sums.
                if g is not None and g.ndim == 2 and owners.count(owners[i]) == 1:
                    grads[i] = DeferredMatmul(F, [], [], g)
            return grads
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


def row_major(x: Tensor) -> bool:
    """Tell whether loops over an input read row-major matrices."""
    return x._data.__class__ is not np.ndarray or executor.compiler() is not None


loop.register(execute, Refused, row_major, executor.description)
