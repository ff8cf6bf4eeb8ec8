"""A pointwise function as one operation: one forward and one backward kernel, derived from it.

Without fusion every operation of a cell writes its result to new memory, adds a graph node and
saves values for the backward pass. `fuse` calls the function once on expressions (`expressions`).
The engine's backward pass then runs on the graph of this call, which records the derivative. So
every function with a derivative can be fused. Unused results are not computed.

A kernel is a schedule of NumPy calls (`kernel`). With a C compiler it is a loop in C
(`loops`, `compiled`); the tests compare it with the schedule.

The backward kernel reads arguments and results of the forward kernel, and intermediate values that
are expensive to recompute (`EXPENSIVE`). It recomputes all others.

A `Plan` has the kernels of one trace. It is used for other calls too:

- Number arguments are arguments of the kernels, with any value. The guards of `scalars` compare
  only the decisions that Python code derives from them.
- Axes may have other lengths, as long as the same axes have length 1. If the function reads a
  length or slices the last axis, these lengths are fixed.
- Other values that the function reads (globals, closures, attributes, the default dtype) are
  guarded by `environment`. A function whose two traces differ is rejected.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..engine import backend
from ..engine.backward_pass import run
from ..engine.codegen import OpNode, check_saved
from ..engine.grad_mode import enable_grad, thread
from ..engine.graph import Leaf, Node, OutputNode, Parents, last_write, reachable
from ..engine.namespaces import namespaces
from ..engine.tensor import Tensor, wrap
from ..errors import ArgumentError, DeviceError
from ..tensors.checks import as_tensor
from ..transforms.fuse import Pointwise, mode, register
from . import executor
from .environment import PLAIN, Environment, guards, is_package_function
from .expressions import VIEWS, Expression, Trace, interpret, lengths_of, shape_in_call, untraceable
from .kernel import Kernel
from .scalars import PYTHON_NUMBERS

EXPENSIVE = frozenset(
    "exp expm1 log log1p sqrt sin cos tanh logaddexp power divide true_divide".split()
)
MAX_SIGNATURES = 64  # cached by a fused function; the oldest is evicted
MAX_FAILED_TRACES = 16.0  # without a later use of the plan; each use adds 0.1
MAX_PLANS = 8  # for one signature, with other guards
NUMBER_ERRORS = (ValueError, OverflowError, ZeroDivisionError)  # raised for numbers out of range


# -- a plan: the kernels of one signature ----------------------------------------------------------


def _is_buffer(x: Any) -> bool:
    """Tell whether an object has the buffer protocol, such as an ``array.array``."""
    try:
        memoryview(x)
    except TypeError:
        return False
    return x.__class__ not in PLAIN


class Call:
    """The arguments of a call: Tensors, numbers, and the structure that holds them.

    Other values (bool, None, a string, a dtype, an object) are static: a part of the structure. A
    list of numbers becomes a Tensor. Lists whose index is in `unpacked` are structures of numbers
    instead: the function reads their elements.
    """

    def __init__(self, args: Any, by_name: dict[str, Any], unpacked: Collection[int] = ()) -> None:
        self.tensors: list[Any] = []
        self.numbers: list[Any] = []
        self.objects: list[Any] = []
        self.unpacked = unpacked
        self.lists = 0  # the count of lists of numbers
        self.structure = (
            (tuple, *map(self._structure_of, args)),
            self._structure_of(by_name) if by_name else (),
        )

    def _structure_of(self, x: Any) -> Any:
        """Return the structure of an argument, and collect its Tensors and numbers."""
        kind = x.__class__
        if isinstance(x, Tensor):
            self.tensors.append(x)
            return Tensor
        if kind in PYTHON_NUMBERS or isinstance(x, np.number):
            self.numbers.append(x)
            return kind
        if kind in (tuple, list) or (isinstance(x, tuple) and hasattr(kind, "_fields")):
            if kind in (tuple, list) and x and _numeric(x):
                self.lists += 1
                if self.lists - 1 not in self.unpacked:
                    self.tensors.append(as_tensor(x))
                    return Tensor
            return kind, *map(self._structure_of, x)
        if kind is dict:
            return dict, *((name, self._structure_of(value)) for name, value in x.items())
        if not isinstance(x, type | np.generic) and (
            backend.is_array(x)
            or any(hasattr(x, name) for name in ARRAY_PROTOCOLS)
            or _is_buffer(x)
        ):
            self.tensors.append(as_tensor(x))
            return Tensor
        if kind not in PLAIN:
            self.objects.append(x)
        return _Static(kind, x)

    @property
    def key(self) -> tuple[Any, ...]:
        """The key of the exact signature; for positional Tensors, only their kinds."""
        kinds = tuple([_kind(x) for x in self.tensors])
        plain = self.structure == ((tuple, *[Tensor] * len(kinds)), ())
        return kinds if plain else (self.structure, kinds)

    def pattern_keys(self, kinds: Sequence[Any]) -> list[Any]:
        """Return the keys of plans that other lengths of axes may share; [] if none can.

        The first is for a plan that slices the last axis, the second for one that does not.
        """
        shapes = [shape for _, shape, _ in kinds]
        lengths: dict[int, int] = {}
        cut = True
        for shape in shapes:
            for k, n in enumerate(shape, -len(shape)):
                if n == 0 or (n != 1 and lengths.setdefault(k, n) != n and k != -1):
                    return []
                cut = cut and (n == 1 or lengths[k] == n)
        of_last = [shape[-1:] for shape in shapes]
        forms = [(x, dtype, *[n != 1 for n in shape]) for x, shape, dtype in kinds]
        key = "pattern", self.structure, *forms
        return [(key, *of_last), key] if cut else [(key, *of_last)]

    def arguments(self, tensors: Iterable[Any], numbers: Iterable[Any]) -> tuple[Any, Any]:
        """Return arguments of this structure: a tuple, and a dict of those by name."""
        tensors, numbers = iter(tensors), iter(numbers)

        def made(x: Any) -> Any:
            if x is Tensor:
                return next(tensors)
            if isinstance(x, type):
                return next(numbers)
            if isinstance(x, _Static):
                return x.value
            kind, *parts = x
            if kind is dict:
                return {name: made(part) for name, part in parts}
            values = [made(part) for part in parts]
            return kind(*values) if hasattr(kind, "_fields") else kind(values)

        args, by_name = self.structure
        return made(args), made(by_name) if by_name else {}


ARRAY_PROTOCOLS = ("__array__", "__array_interface__", "__cuda_array_interface__", "__dlpack__")


class _Static(NamedTuple):
    """A static argument: a plan is specialized to its value."""

    kind: type
    value: Any


def _numeric(x: Any) -> bool:
    """Tell whether nested lists contain numbers only."""
    if x.__class__ in (tuple, list):
        return all(map(_numeric, x))
    return x.__class__ in backend.SCALARS or isinstance(x, np.generic | np.ndarray)


class ConcurrentChange(ArgumentError):
    """Another thread changed a value that the function reads while it was traced."""


class Plan:
    """The kernels of a function for one signature: the arguments' dtypes and broadcasting.

    Attributes
    ----------
    trace : Trace
        The expressions.
    values : list of Expression
        The values with a gradient: the results, then the saved intermediate values.
    saved : list of Expression
        The values that the backward kernel reads.
    guard : callable or None
        Whether the plan is valid for a call with these numbers. None: for all calls.
    """

    def __init__(self, function: Callable[..., Any], call: Call) -> None:
        ours = is_package_function(function)
        outside = () if ours else (function, *call.objects)
        before = Environment(*outside)
        host = all(isinstance(x._data, np.ndarray) for x in call.tensors)
        closed = host and not before.arrays
        self.trace = trace = Trace(call.numbers, closed)
        self.leaves = [_leaf(trace, i, x) for i, x in enumerate(call.tensors)]
        self.inputs: list[Expression] = [x._data for x in self.leaves]
        trace.uses_lengths = not call.pattern_keys([_kind(x) for x in call.tensors])
        args, by_name = call.arguments(self.leaves, trace.numbers.arguments)
        trace.watching = True
        with enable_grad():
            returned = function(*args, **by_name)
            between = Environment(*outside)
            again = returned if ours else function(*args, **by_name)
        after = Environment(*outside)
        self.several = isinstance(returned, tuple | list)
        self.outputs = list(returned) if self.several else [returned]
        for y in self.outputs:
            if not isinstance(y, Tensor) or not isinstance(y._data, Expression):
                raise ArgumentError(
                    f"fuse: {_name(function)} returned a {type(y).__name__} that does not depend "
                    "on its arguments; it must return a Tensor, or a flat tuple of Tensors"
                )
        same = again if self.several else [again]
        differs = len(same) != len(self.outputs) or any(
            getattr(a, "_data", None) is not b._data
            for a, b in zip(same, self.outputs, strict=True)
        )
        if after.changed_since(before if differs else between):
            raise ConcurrentChange(
                f"fuse: a value that {_name(function)} reads was changed by other code while it "
                "was traced: call it again"
            )
        if differs:
            raise ArgumentError(
                f"fuse: {_name(function)} computes something else each time that it is called with "
                "the same arguments (a draw, an iterator, a count): pass what changes as argument"
            )
        results = [y._data for y in self.outputs]
        self.nodes = [y._node for y in self.outputs]
        given = set(self.inputs)
        # Every value that a vjp reads was saved by a node. `origins` has its node in the graph.
        origins: dict[Expression, Node] = {}
        own = {x._node for x in self.leaves}
        for node in reachable([y._node for y in self.outputs if y._node is not None]):
            if isinstance(node, Leaf) and node not in own:
                raise untraceable("reads a Tensor that is not an argument", "pass it as one")
            if isinstance(node, OpNode):
                by_size = any(
                    name == "shapes" or name.endswith("_shape")
                    for name in node.definition.saved_names
                )
                trace.uses_lengths |= by_size and not is_package_function(node.definition.forward)
                for x, origin in zip(node.saved or (), node.definition.origins):  # noqa: B905 - without the versions
                    if isinstance(x, Expression) and origin is not None:
                        origins[x], _ = origin(node)
        expensive = {
            x
            for x in origins
            if x.op in EXPENSIVE
            or any(
                isinstance(a, Expression) and a.op != "constant" and a not in origins.keys() | given
                for a in x.args
            )
        }
        self.saved = read_by(self._gradients(range(len(results))), given | expensive)
        # A result does not share memory with an argument.
        views = (*VIEWS, "constant")
        results = [x.copy() if x in given or x.op in views else x for x in results]
        inner = [x for x in self.saved if x not in given.union(results)]
        self.values = [*results, *inner]
        # `sources`: which arguments each result depends on. It has a gradient if one of these has.
        self.graphs: dict[tuple[bool, ...], list[bool]] = {}
        self.sources = [
            [x._node in found for x in self.leaves]
            for found in ({*reachable([y._node])} if y._node else set() for y in self.outputs)
        ]
        # A single value with a gradient needs no OutputNode.
        self.single = len(self.values) == 1 and not self.several and all(self.sources[0])
        self.nodes += [origins[x] for x in inner]
        trace.watching = False
        self.forward = Kernel(trace, self.inputs, results)
        self.recording = Kernel(trace, self.inputs, [*results, *self.saved])
        self.reads = [i for i, x in enumerate(self.inputs) if x in set(self.saved)]
        self.kernels: dict[Any, tuple[list[Any], list[Expression], Kernel]] = {}
        self.guard = self._guard(after.unchanged_since(between))

    def _guard(self, values: Any) -> Callable[..., bool] | None:
        """Return the guard: a generated function of the numbers of a call."""
        table = self.trace.numbers
        scope = dict(table.scope)
        lines = [*guards(values, scope), *(f"({text})" for text in table.guards)]
        if self.trace.reads_default:
            scope.update(default=backend.get_default_dtype, dtype=backend.get_default_dtype())
            lines.append("default() is dtype")
        if not lines:
            return None
        head = ", ".join(x.text for x in table.arguments)
        source = f"def check({head}):\n    return {' and '.join(lines)}\n"
        exec(compile(source, "<fused check>", "exec"), scope)
        return scope["check"]

    def matches(self, numbers: Sequence[Any]) -> bool:
        """Tell whether the plan is valid for a call with these numbers."""
        try:
            return self.guard is None or bool(self.guard(*numbers))
        except Exception:  # such as a deleted attribute, or a division by zero
            return False

    def _gradients(self, which: Iterable[int]) -> list[Any]:
        """Return the gradients of the arguments from those of the values `which`."""
        roots = [
            (node, self._gradient(i))
            for i, node in ((i, self.nodes[i]) for i in which)
            if node is not None
        ]
        self.trace.differentiating = True
        found = run(roots, namespaces, retain=True)
        return [found[x._node][0] if x._node in found else None for x in self.leaves]

    def _gradient(self, i: int) -> Expression:
        node = self.nodes[i]
        assert node is not None
        return self.trace.intern("gradient", (i,), node.dtype, node.shape)

    def results_in_graph(self, parents: Parents) -> list[bool]:
        """Return which results have a node, given the nodes of the arguments."""
        needed = tuple([p is not None for p in parents])
        if needed not in self.graphs:
            self.graphs[needed] = [
                any(a and b for a, b in zip(needed, sources, strict=True))
                for sources in self.sources
            ]
        return self.graphs[needed]

    def backward(self, which: tuple[int, ...], needed: tuple[bool, ...]) -> Any:
        """Return the needed gradients, the incoming gradients `which`, and the kernel."""
        if (which, needed) not in self.kernels:
            with enable_grad():
                pairs = zip(self._gradients(which), needed, strict=True)
                grads = [g if need else None for g, need in pairs]
            given = [self._gradient(i) for i in which]
            kernel = Kernel(self.trace, [*self.saved, *given], grads)
            self.kernels[which, needed] = grads, given, kernel
        return self.kernels[which, needed]


def _leaf(trace: Trace, i: int, x: Tensor) -> Tensor:
    expression = trace.intern("argument", (i,), x.dtype, x.shape)
    node = Leaf(x.shape, x.dtype, [0]) if x.dtype.kind == "f" else None
    return wrap(expression, node, None)


def read_by(grads: Sequence[Any], known: set[Expression]) -> list[Expression]:
    """Return the `known` values that gradients depend on; other values are recomputed."""
    found: set[Expression] = set()
    stack, seen = [x for x in grads if isinstance(x, Expression)], set()
    while stack:
        x = stack.pop()
        if x in known:
            found.add(x)
        elif x not in seen:
            seen.add(x)
            stack += [a for a in x.args if isinstance(a, Expression)]
    return sorted(found, key=lambda x: x.number)


# -- the operation ---------------------------------------------------------------------------------


class FusedNode(Node):
    """The node of a fused function: its plan, and the arrays that the backward kernel reads."""

    __slots__ = ("name", "numbers", "plan", "saved", "versions")
    name: str
    plan: Plan
    numbers: tuple[Any, ...]  # of the call
    saved: Any  # a tuple; None once freed
    versions: list[list[int] | None]  # of the arguments that were saved

    def vjp(self, F: Any, grad: Any, parents: Parents, retain: bool) -> Sequence[Any]:
        """Run the backward kernel; under create_graph, evaluate its expressions on Tensors."""
        plan, saved = self.plan, self.saved
        if saved is None or last_write[0] > self.order:
            check_saved(self, saved, self.versions)
        if not retain:
            self.saved = None
        if plan.single:
            grad = {0: grad}
        which = tuple(sorted(grad))
        grads, given, kernel = plan.backward(which, tuple([p is not None for p in parents]))
        if not F.records:
            arrays = [*saved, *[grad[i] for i in which], *self.numbers]
            return kernel(backend.module_of(arrays[0]), arrays)
        nodes: dict[Expression, Any] = dict(zip(plan.inputs, self.parents, strict=True))
        incoming = [grad[i] for i in which]
        lengths = lengths_of(dict(zip([*plan.saved, *given], [*saved, *incoming], strict=True)))
        for i, (x, node) in enumerate(zip(plan.values, plan.nodes, strict=True)):
            if node is not None:  # a mask has no gradient
                shape = shape_in_call(x, lengths)
                nodes.setdefault(x, self if plan.single else OutputNode(self, i, shape, x.dtype))
        read = [plan.inputs[i] for i in plan.reads]
        versions = dict(zip(read, self.versions, strict=True))
        known = {
            x: wrap(a, nodes.get(x), versions.get(x))
            for x, a in zip(plan.saved, saved, strict=True)
        }
        known.update({g: grad[i] for g, i in zip(given, which, strict=True)})
        return interpret(grads, known, self.numbers)


class Fused(Pointwise):
    """A pointwise function that runs as one operation."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self.plans: dict[Any, tuple[Plan, ...]] = {}  # the latest first
        self._traces_left = MAX_FAILED_TRACES
        self._unpacked: Collection[int] = ()  # the lists whose elements it reads

    def plan(self, *args: Any, **by_name: Any) -> Plan:
        """Return the plan for these arguments; its kernels have a ``source``."""
        call = Call(args, by_name, self._unpacked)
        return self._find_plan(call) or self._new_plan(call)

    def _find_plan(self, call: Call) -> Plan | None:
        """Return a cached plan that is valid for a call; None if there is none."""
        key = call.key
        plan = self._matching_plan(key, call.numbers)
        if plan is None:
            for pattern in call.pattern_keys([_kind(x) for x in call.tensors]):
                plan = self._matching_plan(pattern, call.numbers)
                if plan is not None:
                    self.plans[pattern] = self.plans.pop(pattern, (plan,))  # evicted last
                    self._store(key, plan)
                    break
        return plan

    def _matching_plan(self, key: Any, numbers: Sequence[Any]) -> Plan | None:
        return next((x for x in self.plans.get(key, ()) if x.matches(numbers)), None)

    def _new_plan(self, call: Call) -> Plan:
        """Trace the function for a call, and cache the plan."""
        plan = Plan(self.function, call)
        if not plan.trace.uses_lengths:
            pattern_keys = call.pattern_keys([_kind(x) for x in call.tensors])
            self._store(pattern_keys[0 if plan.trace.has_slices else -1], plan)
        self._store(call.key, plan)
        return plan

    def _store(self, key: Any, plan: Plan) -> None:
        """Cache a plan before the others under a key.

        Tuples are replaced as a whole, since another thread may read them at the same time.
        """
        if key not in self.plans:
            for oldest in [*self.plans][: max(0, len(self.plans) - MAX_SIGNATURES + 1)]:
                self.plans.pop(oldest, None)
        others = [x for x in self.plans.get(key, ()) if x is not plan]
        self.plans[key] = (plan, *others[: MAX_PLANS - 1])

    def __call__(self, *args: Any, **by_name: Any) -> Any:
        """Call the function."""
        if not by_name and not mode.eager:
            if args and getattr(args[0], "_data", None).__class__ is Expression:
                plain = self.function(*args)  # inside another function that is traced
                return tuple(plain) if isinstance(plain, list) else plain
            try:  # the most frequent case: the plan is cached, and all arguments are Tensors
                plan = self.plans[tuple([_kind(x) for x in args])][0]
            except (AttributeError, KeyError, TypeError):
                pass
            else:
                if plan.guard is None or plan.matches(()):
                    return self._run(plan, args)
        call = Call(args, by_name, self._unpacked)
        kinds = {x._data.__class__ for x in call.tensors}
        if Expression in kinds or not kinds or mode.eager:  # traced inside another function
            return self._unfused(call)
        if len(kinds) > 1:
            reason = backend.device_mismatch([x._data for x in call.tensors])
            raise DeviceError(f"{self.name}: {reason}")
        try:
            found = self._find_plan(call)
        except TypeError:  # an argument is not hashable
            return self._unfused(call)
        if found is not None:
            plan = found
            self._traces_left = min(self._traces_left + 0.1, MAX_FAILED_TRACES)
        elif self._traces_left < 1:
            return self._unfused(call)
        else:
            self._traces_left -= 1
            try:
                plan = self._new_plan(call)
            except ConcurrentChange:
                return self._unfused(call)
            except ArgumentError:
                for unpacked in (*([i] for i in range(call.lists)), range(call.lists)):
                    with contextlib.suppress(ArgumentError):
                        call = Call(args, by_name, unpacked)
                        plan = self._new_plan(call)
                        self._unpacked = unpacked
                        break
                else:
                    self._traces_left += 1  # every later call raises the same error
                    raise
        return self._run(plan, call.tensors, tuple(call.numbers), call)

    def _unfused(self, call: Call) -> Any:
        """Call the function operation by operation."""
        args, by_name = call.arguments(call.tensors, call.numbers)
        plain = self.function(*args, **by_name)
        return tuple(plain) if isinstance(plain, list) else plain

    def on_arrays(self, *arrays: Any) -> tuple[Any, ...]:
        """Call the function with arrays of one library; return arrays."""
        plans = self.plans.get(tuple([(x.__class__, x.shape, x.dtype) for x in arrays]))
        plan = plans[0] if plans else self.plan(*[wrap(x, None, None) for x in arrays])
        return plan.forward(backend.modules[arrays[0].__class__], arrays)

    def _run(
        self,
        plan: Plan,
        tensors: Sequence[Tensor],
        numbers: tuple[Any, ...] = (),
        call: Call | None = None,
    ) -> Any:
        arrays = [x._data for x in tensors]
        if arrays[0].__class__ not in backend.one_device:
            backend.check_devices(arrays, self.name)
        xp = backend.modules[arrays[0].__class__]
        parents = tuple([x._node for x in tensors])
        if numbers:
            arrays += numbers
        outputs: list[Any]
        recording = any(parents) and thread.recording
        try:
            made = plan.recording(xp, arrays) if recording else plan.forward(xp, arrays)
        except NUMBER_ERRORS:
            self._unfused(call or Call(tensors, {}))  # raises the error of the operation
            raise
        if not recording:
            outputs = [wrap(y, None, None) for y in made]
            return tuple(outputs) if plan.several else outputs[0]
        node = FusedNode(parents, made[0].shape, made[0].dtype)
        node.name, node.plan, node.saved = self.name, plan, made[len(plan.outputs) :]
        node.versions = [tensors[i]._version for i in plan.reads]
        node.numbers = numbers
        if plan.single:
            return wrap(made[0], node, None)
        outputs = [
            wrap(y, OutputNode(node, i, y.shape, y.dtype) if graph else None, None)
            for i, (y, graph) in enumerate(zip(made, plan.results_in_graph(parents)))  # noqa: B905 - without the saved
        ]
        return tuple(outputs) if plan.several else outputs[0]


def _kind(x: Tensor) -> tuple[Any, ...]:
    array = x._data
    return array.__class__, array.shape, array.dtype


def _name(function: Any) -> str:
    return getattr(function, "__name__", repr(function)).lstrip("_")


register(Fused, executor.backend)
