"""The trace of a step of `scan`: its expressions, its invariants, its graph.

The step is called once, at each call of `scan`, on expressions. So the loop uses the present values
of all that the step reads (weights, attributes, globals), and nothing can be stale. Two calls that
compute the same have the same `signature`, under which a plan is kept. `kept_traces` has the steps
that need not be traced again.

===========  =======================================================  ==========================
expression   the value                                                differs from step to step
===========  =======================================================  ==========================
argument     an element of the state or of the input of the step      yes
draw         a dropout mask                                           yes
invariant    any other array that the step reads: weights, biases     no
===========  =======================================================  ==========================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import random as tg_random
from .. import tensors as ops
from .._util.nested import leaves, map_nested
from .._util.user_code import raised_in, shown
from ..engine import backend
from ..engine.codegen import OpNode
from ..engine.grad_mode import enable_grad, thread, watching
from ..engine.graph import Leaf, Node, OutputNode, reachable
from ..engine.namespaces import PRIMITIVES
from ..engine.ops.normalize import StandardizeNode
from ..engine.tensor import Tensor, wrap
from ..recurrence.loop import gc_paused
from .expressions import Expression, Trace, refusal, untraceable
from .side_effects import SideEffect, guarded, is_library

CLONABLE = (OpNode, OutputNode, StandardizeNode, Leaf)  # the nodes of a graph that can be copied
FLOATS = (np.dtype("float32"), np.dtype("float64"))


PRODUCTS = frozenset(("linear", "affine", "gemm"))
# Operations that compute the same for all time steps at once, with one more axis in front.
BATCHED = PRODUCTS | frozenset(
    "add subtract multiply divide negative exp log tanh sigmoid relu".split()
)


class Call(NamedTuple):
    """The call of an operation in a step, with its arguments as expressions and numbers."""

    definition: Any
    result: Tensor
    values: Sequence[Any]


class Draw(NamedTuple):
    """A dropout mask that a step draws."""

    shape: tuple[int, ...]
    keep: float
    rng: Any


class Refused(Exception):
    """A step cannot be traced: the reason, and the line ("path:line") if there is one."""

    def __init__(self, reason: str, line: str = "") -> None:
        super().__init__(reason)
        self.reason, self.line = reason, line


class StepTrace(Trace):
    """A step, called on expressions.

    Parameters
    ----------
    step : callable
        From (state, x) to (state, y).
    state, x : nested Tensors and None
        Their shapes and dtypes count: the arguments.

    Attributes
    ----------
    arguments : list of Tensors
        Those of the state, then those of x, as symbolic Tensors.
    invariants : list of Tensors
        The real Tensors that the step reads, in the order of their first use. The same array with
        and without a graph counts twice.
    arrays : list of arrays
        Those of the invariants, each once.
    draws : list of Draw
        The dropout masks, in the order of the step.
    computed : list of Call
        The operations on real arrays alone.
    results : list of Tensors
        The elements of the new state, then those of y, symbolic.
    y : structure
        y, whose leaves are numbers of results, or None.
    nodes : list of Node
        The graph of the step, oldest first.
    hoisted : list of Call
        The products of the input alone. They are computed once for all steps, as ordinary
        operations, and are further inputs of the step.
    """

    of_scan = True

    def __init__(self, step: Callable[..., Any], state: Any, x: Any) -> None:
        super().__init__((), closed=True)
        self.invariants: list[Tensor] = []
        self.draws: list[Draw] = []
        self.computed: list[Call] = []
        first = next(s._data for s in leaves(state) if s is not None)
        self.module, self.device = backend.module_of(first), getattr(first, "device", "cpu")
        self._adopted: dict[tuple[int, int], Tensor] = {}
        self._numbers: dict[int, Expression] = {}
        self._copies: dict[int, tuple[Any, Tensor]] = {}  # of NumPy arrays, by the id of each
        self.arrays: list[Any] = []
        self.arguments: list[Tensor] = []
        self._of_input: dict[Expression, Call | None] = {}
        symbolic = map_nested(self._argument, state)
        self.states = len(self.arguments)
        symbolic_x = map_nested(self._argument, x)
        self._of_input.update({t._data: None for t in self.arguments[self.states :]})
        new, y = self._call(step, symbolic, symbolic_x)
        self.results = [self._result(s) for s in leaves(new) if s is not None]
        if len(self.results) != self.states:
            raise Refused("the step returns another structure of the state")
        outputs: list[Any] = []

        def numbered(element: Any) -> int | None:
            if element is None:
                return None
            outputs.append(self._result(element))
            return self.states + len(outputs) - 1

        self.y = map_nested(numbered, y)
        self.results += outputs
        self.hoisted = [
            call for call in self._of_input.values() if call and call.definition.name in PRODUCTS
        ]
        self.count = len(self.table)
        self._cut()
        self.nodes = reachable([r._node for r in self.results if r._node is not None])
        if not all(isinstance(node, CLONABLE) for node in self.nodes):
            raise Refused("the step uses an operation with a graph of its own (checkpoint)")

    def _call(self, step: Callable[..., Any], state: Any, x: Any) -> Any:
        refusal.what = refusal.line = ""
        before, tg_random._recording.tracer = tg_random._recording.tracer, self
        watching.append(None)
        watcher, thread.watcher = thread.watcher, self
        recorded = thread.recording
        try:
            with enable_grad(), gc_paused():
                if is_library(step):
                    new, y = step(state, x)
                else:
                    on_gpu = self.module is not np
                    new, y = guarded(step, state, x, recorded=recorded, on_gpu=on_gpu)
        except SideEffect as effect:
            raise Refused(effect.what, shown(effect.line)) from None
        except Exception as error:  # the loop in Python raises it again, if it is the user's own
            line = refusal.line or raised_in(error)
            raise Refused(refusal.what or str(error), shown(line)) from error
        finally:
            tg_random._recording.tracer = before
            thread.watcher = watcher
            watching.pop()
        if refusal.what:  # the step handled the error itself
            raise Refused(refusal.what, shown(refusal.line))
        return new, y

    # -- hoisting: products of the input alone -----------------------------------------------------

    def check_result(self, definition: Any, result: Tensor, values: Sequence[Any]) -> None:
        """Note a call that depends on the input of the step alone. Operations call this."""
        data, name, found = result._data, definition.name, False
        if data.__class__ is not Expression:
            self.computed.append(Call(definition, result, values))
            return
        if name not in BATCHED:
            return
        of_input, ndim = self._of_input, len(data.sizes)
        for x in values:  # a loop, not comprehensions: each call in a trace is guarded
            if x.__class__ is Expression:
                if x in of_input:
                    found = True
                    if len(x.sizes) != ndim:
                        return
                elif x.op != "invariant":
                    return
        held: Any = PRIMITIVES[name]
        if not found or held.definition is not definition:  # one of the user's, of the same name
            return
        if name not in PRODUCTS or (values[0] in of_input and ndim == 2):
            of_input.setdefault(data, Call(definition, result, values))

    def _cut(self) -> None:
        """Make the results of hoisted calls arguments: the graph of the step ends there."""
        if not self.hoisted:
            return
        leaves_by_node: dict[Any, Node] = {}
        for call in self.hoisted:
            x, node = call.result, None
            if x._node is not None:
                node = Leaf(x.shape, x.dtype, [0])
                node.order = x._node.order  # before the operations that read it
                leaves_by_node[x._node] = node
            self.arguments.append(wrap(x._data, node, None))
        for op in reachable([r._node for r in self.results if r._node is not None]):
            op.parents = tuple([leaves_by_node.get(p, p) for p in op.parents])
        self.results = [
            wrap(r._data, leaves_by_node.get(r._node, r._node), None) for r in self.results
        ]

    def hoist(self, xs: Sequence[Tensor], columns: bool) -> list[Tensor]:
        """Return the results of the hoisted calls for all time steps, computed as usual.

        `xs` are the inputs of all steps; `columns` as of `StepKernel`.
        """
        real: dict[Expression, Tensor] = {}
        for t, x in zip(self.arguments[self.states :], xs, strict=False):
            real[t._data] = ops.feature_major(x) if columns and x.ndim == 3 else x
        invariants = [*zip(self.symbolic_invariants, self.invariants, strict=True)]
        by_leaf = {s._node: x for s, x in invariants}
        by_array = {s._data: x for s, x in invariants}

        def argument(call: Call, i: int) -> Any:
            x = call.values[i]
            if x.__class__ is not Expression:
                return x
            definition, node = call.definition, call.result._node
            name = definition.inputs[i]
            parent = None
            if node is not None and name in definition.differentiable:
                parent = node.parents[definition.differentiable.index(name)]
            if x in self._of_input:
                found = value(x)
            else:
                found = by_leaf[parent] if parent is not None else by_array[x]
            return found if parent is not None else found.detach()

        def value(x: Expression) -> Tensor:
            """Return a value that depends on the input alone, computed once."""
            call = self._of_input[x]
            if x not in real and call is not None:
                count = len(call.definition.inputs)
                args = [argument(call, i) for i in range(count)]
                options = dict(zip(call.definition.params, call.values[count:], strict=True))
                if "weight" in options:  # was chosen for the product of one step
                    options["weight"] = "y"
                real[x] = PRIMITIVES[call.definition.name](*args, **options)
            return real[x]

        return [value(call.result._data) for call in self.hoisted]

    def _argument(self, x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        expression = self.intern("argument", (len(self.arguments), x.shape), x.dtype, x.shape)
        node = Leaf(x.shape, x.dtype, [0]) if x.dtype.kind == "f" else None
        self.arguments.append(wrap(expression, node, None))
        return self.arguments[-1]

    def _result(self, y: Any) -> Tensor:
        """Return a result as a symbolic Tensor."""
        if not isinstance(y, Tensor):
            raise Refused(f"the step returns a {type(y).__name__}")
        if not isinstance(y._data, Expression):
            y = self.adopted(y)
        return y

    def adopted(self, x: Any) -> Any:
        """Return an argument of an operation; a real Tensor or array as an invariant."""
        if isinstance(x, Tensor):
            array, node = x._data, x._node
        elif isinstance(x, np.ndarray) and self.module is np:  # an operation on a GPU refuses it
            if id(x) not in self._copies:  # the user may write to it before the backward pass
                self._copies[id(x)] = x, wrap(self.module.array(x), None, None)
            x = self._copies[id(x)][1]
            array, node = x._data, None
        elif backend.is_array(x) and not isinstance(x, np.generic):
            array, node, x = x, None, wrap(x, None, None)
        else:
            return x
        if array.__class__ is Expression:
            return x
        if array.__class__ is not self.module.ndarray:
            raise untraceable(f"reads an array of {type(array).__module__}")
        key = id(array), id(node)
        if key not in self._adopted:
            if id(array) not in self._numbers:
                args = len(self.arrays), array.shape
                self._numbers[id(array)] = self.intern("invariant", args, array.dtype, array.shape)
                self.arrays.append(array)
            leaf = None if node is None else Leaf(array.shape, array.dtype, [0])
            self._adopted[key] = wrap(self._numbers[id(array)], leaf, None)
            self.invariants.append(x)
        return self._adopted[key]

    def forget(self) -> None:
        """Release the arrays that the step read: a plan outlives its call."""
        self.invariants, self.arrays, self._copies, self.computed = [], [], {}, []

    @property
    def expressions(self) -> list[Expression]:
        """The values of the step, without those of its gradient."""
        return list(self.table.values())[: self.count]

    @property
    def symbolic_arrays(self) -> list[Expression]:
        """`arrays`, as expressions."""
        return list(self._numbers.values())

    @property
    def symbolic_invariants(self) -> list[Tensor]:
        """`invariants`, as symbolic Tensors."""
        return list(self._adopted.values())

    def keep_mask(self, shape: tuple[int, ...], keep: float, rng: Any) -> Expression:
        """Record the draw of a dropout mask, at each step."""
        if rng is not None and not isinstance(rng, np.random.Generator):
            raise untraceable("draws from a seed at each step")
        self.draws.append(Draw(shape, keep, rng))
        number = len(self.draws)
        mask: Expression = self.intern("draw", (number, shape, keep), backend.bool_, shape)
        return mask

    def refuse_draw(self) -> None:
        """Raise: the step draws other random numbers than dropout masks."""
        raise untraceable("draws random numbers other than dropout masks")

    @property
    def signature(self) -> tuple[Any, ...]:
        """What two steps have in common that one plan serves for."""
        number = {node: i for i, node in enumerate(self.nodes)}
        graph = [
            (
                type(node),
                tuple([None if p is None else number[p] for p in node.parents]),
                _saved_signature(node),
            )
            for node in self.nodes
        ]
        ends = tuple([(r._data.number, number.get(r._node)) for r in self.results])  # type: ignore[arg-type]
        adopted = tuple([(t._data.number, number.get(t._node)) for t in self._adopted.values()])  # type: ignore[arg-type]
        given = tuple([(t._data.number, number.get(t._node)) for t in self.arguments])  # type: ignore[arg-type]
        return tuple(self.table), tuple(graph), ends, adopted, given, str(self.y), self.states


def _saved_signature(node: Node) -> Any:
    """Return what tells the rules of a node from those of others of its class."""
    if isinstance(node, OutputNode):
        return node.index
    if isinstance(node, StandardizeNode):
        return node.axis, *map(_canonical, node.saved)
    saved = getattr(node, "saved", ())
    return tuple([_canonical(x) for x in saved])


def _canonical(x: Any) -> Any:
    if x.__class__ is Expression:
        return x.number
    if x.__class__ in (tuple, list):
        return tuple([_canonical(y) for y in x])
    if x is None or x.__class__ in (bool, int, str):
        return x
    return repr(x) if x.__class__ in (float, slice, type(...), np.dtype) else _Unique(x)


class _Unique:
    """A parameter of an operation that is compared by identity."""

    def __init__(self, x: Any) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Unique) and other.x is self.x

    def __hash__(self) -> int:
        return id(self.x)


def expressions_in(value: Any) -> Sequence[Expression]:
    """Return the expressions in a value that a node saved."""
    return [x for x in leaves(value) if isinstance(x, Expression)]
