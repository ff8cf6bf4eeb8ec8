"""A pointwise function as one operation: one forward and one backward kernel, derived from it.

Operation by operation, a cell's arithmetic writes every intermediate value to fresh memory, makes a
node for it, and saves more than it must. `fuse` runs the function once on *expressions* in place of
arrays. An expression is an array library of its own to the engine (``xp`` in a primitive's forward,
``F`` in a vjp), so the primitives do not know; what they compute is written down instead. Then the
engine's own backward pass walks the graph that this run left, with expressions for gradients, and
the vjps write the derivative down. No rule is stated twice, and whatever has a derivative can be
fused.

Equal expressions are one (they are kept in a table by what they are made of), and what no result
needs is never computed. A kernel is a list of ufunc calls that write into few buffers: a buffer is
free as soon as the last reader of its value has run. Or, on request, it is one loop in C (`loops`,
`compiled`), with this list as its oracle.

An argument may be split along its last axis, as the gates of a cell are. A part is a view; on the
way back the gradients of the parts are written beside each other into one array, by the very calls
that compute them.

What the backward kernel reads of the forward one: its arguments, its results, and the values that
are expensive to compute again (`EXPENSIVE`); everything else is computed again from these.

A run on expressions is a *plan*. It serves for more calls than the one that it was made in:

- Numbers among the arguments are arguments of the kernels (`scalars`), with any values. Only what
  Python decides by a number has to be decided alike.
- Lengths of axes are those of the arrays, as long as the same axes have length 1. Where the
  function reads a length, or cuts the last axis, these lengths are the plan's own.
- What the function reads besides its arguments (globals, closures, attributes, the default dtype)
  has to be as it was (`surroundings`). What differs between two runs in a row is refused.
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
from ..errors import ArgumentError
from ..tensors.checks import as_tensor
from ..transforms.fuse import Pointwise, mode, register
from . import compiled
from .expressions import VIEWS, Expression, Trace, interpret, lengths_of, shape_now, untraceable
from .kernel import Kernel
from .scalars import PYTHON
from .surroundings import PLAIN, Surroundings, checks, is_ours

EXPENSIVE = frozenset(
    "exp expm1 log log1p sqrt sin cos tanh logaddexp power divide true_divide".split()
)
SIGNATURES = 64  # how many plans a fused function keeps; the oldest goes first
PATIENCE = 16.0  # how many plans are made in vain; a call that finds one gives back a tenth
ANSWERS = 8  # how many plans there are for the same arrays: other numbers, other surroundings
FAILURES = (ValueError, OverflowError, ZeroDivisionError)  # of numbers that do not fit


# -- a plan: the kernels of one signature ----------------------------------------------------------


def _is_buffer(x: Any) -> bool:
    """Tell whether NumPy reads the memory of an object, such as an ``array.array``."""
    try:
        memoryview(x)
    except TypeError:
        return False
    return x.__class__ not in PLAIN


class Call:
    """The arguments of a call: Tensors and numbers, and the structure that they stand in.

    Whatever is neither (a truth, None, a string, a dtype, an object) is a part of the structure. A
    list of numbers is an array, unless its number is among those that are `apart`: those the
    function reads number by number.
    """

    def __init__(self, args: Any, by_name: dict[str, Any], apart: Collection[int] = ()) -> None:
        self.tensors: list[Any] = []
        self.numbers: list[Any] = []
        self.objects: list[Any] = []
        self.apart = apart
        self.lists = 0  # how many lists of numbers there are
        self.structure = (tuple, *map(self._taken, args)), self._taken(by_name) if by_name else ()

    def _taken(self, x: Any) -> Any:
        """Return the structure of an argument: a class, the places of Tensors and numbers, more."""
        kind = x.__class__
        if isinstance(x, Tensor):
            self.tensors.append(x)
            return Tensor
        if kind in PYTHON or isinstance(x, np.number):
            self.numbers.append(x)
            return kind
        if kind in (tuple, list) or (isinstance(x, tuple) and hasattr(kind, "_fields")):
            if kind in (tuple, list) and x and _numeric(x):
                self.lists += 1
                if self.lists - 1 not in self.apart:
                    self.tensors.append(as_tensor(x))
                    return Tensor
            return kind, *map(self._taken, x)
        if kind is dict:
            return dict, *((name, self._taken(value)) for name, value in x.items())
        if not isinstance(x, type | np.generic) and (
            backend.is_array(x) or any(hasattr(x, name) for name in FOREIGN) or _is_buffer(x)
        ):
            self.tensors.append(as_tensor(x))
            return Tensor
        if kind not in PLAIN:
            self.objects.append(x)
        return _Fixed(kind, x)

    @property
    def key(self) -> tuple[Any, ...]:
        """What a plan is kept under: for Tensors one by one their kinds alone."""
        kinds = tuple([_kind(x) for x in self.tensors])
        plain = self.structure == ((tuple, *[Tensor] * len(kinds)), ())
        return kinds if plain else (self.structure, kinds)

    def patterns(self, kinds: Sequence[Any]) -> list[Any]:
        """Return what a plan for other lengths of axes is kept under: where there is more than one.

        First for a plan that cuts the last axis, then for one that does not.
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
            if isinstance(x, _Fixed):
                return x.value
            kind, *parts = x
            if kind is dict:
                return {name: made(part) for name, part in parts}
            values = [made(part) for part in parts]
            return kind(*values) if hasattr(kind, "_fields") else kind(values)

        args, by_name = self.structure
        return made(args), made(by_name) if by_name else {}


FOREIGN = ("__array__", "__array_interface__", "__cuda_array_interface__", "__dlpack__")


class _Fixed(NamedTuple):
    """An argument that a plan is made for."""

    kind: type
    value: Any


def _numeric(x: Any) -> bool:
    """Tell whether lists hold numbers alone."""
    if x.__class__ in (tuple, list):
        return all(map(_numeric, x))
    return x.__class__ in backend.SCALARS or isinstance(x, np.generic | np.ndarray)


class Disturbed(ArgumentError):
    """A run on expressions read what another thread was changing: a plan cannot be made of it."""


class Plan:
    """What a function becomes for arguments of given dtypes, in shapes that broadcast alike.

    `values` are what may have a gradient: the results, then what is saved between them and the
    arguments. `check` tells whether the plan serves for a call with some numbers: whether what else
    the function reads is as it was, and Python would decide the same. None: it always does.
    """

    def __init__(self, function: Callable[..., Any], call: Call) -> None:
        ours = is_ours(function)
        outside = () if ours else (function, *call.objects)
        before = Surroundings(*outside)
        host = all(isinstance(x._data, np.ndarray) for x in call.tensors)
        closed = host and not before.arrays
        self.trace = trace = Trace(call.numbers, closed)
        self.leaves = [_leaf(trace, i, x) for i, x in enumerate(call.tensors)]
        self.inputs: list[Expression] = [x._data for x in self.leaves]
        trace.sized = not call.patterns([_kind(x) for x in call.tensors])
        args, by_name = call.arguments(self.leaves, trace.sheet.given)
        trace.watching = True
        with enable_grad():
            returned = function(*args, **by_name)
            between = Surroundings(*outside)
            again = returned if ours else function(*args, **by_name)
        after = Surroundings(*outside)
        self.several = isinstance(returned, tuple | list)
        self.outputs = list(returned) if self.several else [returned]
        for y in self.outputs:
            if not isinstance(y, Tensor) or not isinstance(y._data, Expression):
                raise ArgumentError(
                    f"fuse: {_name(function)} returned a {type(y).__name__} that its arguments do "
                    "not lead to; it returns a Tensor, or a flat tuple of Tensors"
                )
        same = again if self.several else [again]
        differs = len(same) != len(self.outputs) or any(
            getattr(a, "_data", None) is not b._data
            for a, b in zip(same, self.outputs, strict=True)
        )
        if after.disturbed(before if differs else between):
            raise Disturbed(
                f"fuse: something that {_name(function)} reads was changed by other code while it "
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
        # Whatever a vjp reads was saved by a node, and has a place in the graph.
        places: dict[Expression, Node] = {}
        own = {x._node for x in self.leaves}
        for node in reachable([y._node for y in self.outputs if y._node is not None]):
            if isinstance(node, Leaf) and node not in own:
                raise untraceable("reads a Tensor that is not an argument", "pass it as one")
            if isinstance(node, OpNode):
                by_size = any(
                    name == "shapes" or name.endswith("_shape")
                    for name in node.definition.saved_names
                )
                trace.sized |= by_size and not is_ours(node.definition.forward)
                for x, place in zip(node.saved or (), node.definition.origins):  # noqa: B905 - without the versions
                    if isinstance(x, Expression) and place is not None:
                        places[x], _ = place(node)
        expensive = {
            x
            for x in places
            if x.op in EXPENSIVE
            or any(
                isinstance(a, Expression) and a.op != "constant" and a not in places.keys() | given
                for a in x.args
            )
        }
        self.saved = read_by(self._gradients(range(len(results))), given | expensive)
        # A result has its own memory, not that of an argument as it came or of a part.
        views = (*VIEWS, "constant")
        results = [x.copy() if x in given or x.op in views else x for x in results]
        inner = [x for x in self.saved if x not in given.union(results)]
        self.values = [*results, *inner]
        # Which arguments each result is computed from: it has no gradient if these need none.
        self.graphs: dict[tuple[bool, ...], list[bool]] = {}
        self.sources = [
            [x._node in found for x in self.leaves]
            for found in ({*reachable([y._node])} if y._node else set() for y in self.outputs)
        ]
        # One result and nothing else that has a gradient needs no pieces.
        self.single = len(self.values) == 1 and not self.several and all(self.sources[0])
        self.nodes += [places[x] for x in inner]
        trace.watching = False
        self.forward = Kernel(trace, self.inputs, results)
        self.recording = Kernel(trace, self.inputs, [*results, *self.saved])
        self.reads = [i for i, x in enumerate(self.inputs) if x in set(self.saved)]
        self.kernels: dict[Any, tuple[list[Any], list[Expression], Kernel]] = {}
        self.check = self._check(after.kept(between))

    def _check(self, kept: Any) -> Callable[..., bool] | None:
        """Return the function that tells whether the plan serves for a call with some numbers."""
        sheet = self.trace.sheet
        scope = dict(sheet.scope)
        lines = [*checks(kept, scope), *(f"({text})" for text in sheet.questions)]
        if self.trace.reads_default:
            scope.update(default=backend.get_default_dtype, dtype=backend.get_default_dtype())
            lines.append("default() is dtype")
        if not lines:
            return None
        head = ", ".join(x.text for x in sheet.given)
        source = f"def check({head}):\n    return {' and '.join(lines)}\n"
        exec(compile(source, "<fused check>", "exec"), scope)
        return scope["check"]

    def serves(self, numbers: Sequence[Any]) -> bool:
        """Tell whether the plan serves for a call with these numbers."""
        try:
            return self.check is None or bool(self.check(*numbers))
        except Exception:  # something is there no more, a number cannot be divided by
            return False

    def _gradients(self, which: Iterable[int]) -> list[Any]:
        """Return the gradient of each argument from those of some values, as expressions."""
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
        return self.trace.enter("gradient", (i,), node.dtype, node.shape)

    def recorded(self, parents: Parents) -> list[bool]:
        """Return which results have a place in the graph, if these arguments have one."""
        needed = tuple([p is not None for p in parents])
        if needed not in self.graphs:
            self.graphs[needed] = [
                any(a and b for a, b in zip(needed, sources, strict=True))
                for sources in self.sources
            ]
        return self.graphs[needed]

    def backward(self, which: tuple[int, ...], needed: tuple[bool, ...]) -> Any:
        """Return the gradients that are needed from those there are: expressions and a kernel."""
        if (which, needed) not in self.kernels:
            with enable_grad():
                pairs = zip(self._gradients(which), needed, strict=True)
                grads = [g if need else None for g, need in pairs]
            given = [self._gradient(i) for i in which]
            kernel = Kernel(self.trace, [*self.saved, *given], grads)
            self.kernels[which, needed] = grads, given, kernel
        return self.kernels[which, needed]


def _leaf(trace: Trace, i: int, x: Tensor) -> Tensor:
    expression = trace.enter("argument", (i,), x.dtype, x.shape)
    node = Leaf(x.shape, x.dtype, [0]) if x.dtype.kind == "f" else None
    return wrap(expression, node, None)


def read_by(grads: Sequence[Any], known: set[Expression]) -> list[Expression]:
    """Return which of the known values gradients are computed from, others computed again."""
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
    """The node of a fused function: its plan, and what the backward kernel reads."""

    __slots__ = ("name", "numbers", "plan", "saved", "versions")
    name: str
    plan: Plan
    numbers: tuple[Any, ...]  # of the call
    saved: Any  # a tuple; None when let go
    versions: list[list[int] | None]  # of the arguments that were saved

    def vjp(self, F: Any, grad: Any, parents: Parents, retain: bool) -> Sequence[Any]:
        """Run the backward kernel; under create_graph what it computes, on Tensors."""
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
        places: dict[Expression, Any] = dict(zip(plan.inputs, self.parents, strict=True))
        come = [grad[i] for i in which]
        lengths = lengths_of(dict(zip([*plan.saved, *given], [*saved, *come], strict=True)))
        for i, (x, node) in enumerate(zip(plan.values, plan.nodes, strict=True)):
            if node is not None:  # a mask, a choice between numbers have no gradient
                shape = shape_now(x, lengths)
                places.setdefault(x, self if plan.single else OutputNode(self, i, shape, x.dtype))
        read = [plan.inputs[i] for i in plan.reads]
        versions = dict(zip(read, self.versions, strict=True))
        known = {
            x: wrap(a, places.get(x), versions.get(x))
            for x, a in zip(plan.saved, saved, strict=True)
        }
        known.update({g: grad[i] for g, i in zip(given, which, strict=True)})
        return interpret(grads, known, self.numbers)


class Fused(Pointwise):
    """A pointwise function that runs as one operation; made by `fuse`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self.plans: dict[Any, tuple[Plan, ...]] = {}  # those that were made last come first
        self._patience = PATIENCE
        self._apart: Collection[int] = ()  # the lists of numbers that it reads one by one

    def plan(self, *args: Any, **by_name: Any) -> Plan:
        """Return the plan for arguments like these; its kernels have their ``source``."""
        call = Call(args, by_name, self._apart)
        return self._found(call) or self._planned(call)

    def _found(self, call: Call) -> Plan | None:
        """Return a plan that serves for a call."""
        key = call.key
        plan = self._serving(key, call.numbers)
        if plan is None:
            for place in call.patterns([_kind(x) for x in call.tensors]):
                plan = self._serving(place, call.numbers)
                if plan is not None:
                    self.plans[place] = self.plans.pop(place, (plan,))  # as the youngest
                    self._keep(key, plan)
                    break
        return plan

    def _serving(self, place: Any, numbers: Sequence[Any]) -> Plan | None:
        return next((x for x in self.plans.get(place, ()) if x.serves(numbers)), None)

    def _planned(self, call: Call) -> Plan:
        """Return a new plan for a call."""
        plan = Plan(self.function, call)
        if not plan.trace.sized:
            patterns = call.patterns([_kind(x) for x in call.tensors])
            self._keep(patterns[0 if plan.trace.cut else -1], plan)
        self._keep(call.key, plan)
        return plan

    def _keep(self, place: Any, plan: Plan) -> None:
        """Keep a plan at a place, before the others that are there.

        Another thread may do the same now: it reads a whole tuple, or one that lacks a plan.
        """
        if place not in self.plans:
            for oldest in [*self.plans][: max(0, len(self.plans) - SIGNATURES + 1)]:
                self.plans.pop(oldest, None)
        others = [x for x in self.plans.get(place, ()) if x is not plan]
        self.plans[place] = (plan, *others[: ANSWERS - 1])

    def __call__(self, *args: Any, **by_name: Any) -> Any:
        """Call the function."""
        if not by_name and not mode.eager:
            if args and getattr(args[0], "_data", None).__class__ is Expression:
                plain = self.function(*args)  # a part of another function that is traced
                return tuple(plain) if isinstance(plain, list) else plain
            try:  # the plan is there and the arguments are Tensors, as in every step but the first
                plan = self.plans[tuple([_kind(x) for x in args])][0]
            except (AttributeError, KeyError, TypeError):
                pass
            else:
                if plan.check is None or plan.serves(()):
                    return self._run(plan, args)
        call = Call(args, by_name, self._apart)
        kinds = {x._data.__class__ for x in call.tensors}
        if Expression in kinds or not kinds or mode.eager:  # perhaps a part of another one
            return self._plainly(call)
        if len(kinds) > 1:
            _, arrays = backend.common_module([x._data for x in call.tensors], self.name)
            call.tensors = [
                wrap(a, x._node, x._version) for a, x in zip(arrays, call.tensors, strict=True)
            ]
        try:
            found = self._found(call)
        except TypeError:  # an argument that has no hash
            return self._plainly(call)
        if found is not None:
            plan = found
            self._patience = min(self._patience + 0.1, PATIENCE)
        elif self._patience < 1:
            return self._plainly(call)
        else:
            self._patience -= 1
            try:
                plan = self._planned(call)
            except Disturbed:
                return self._plainly(call)
            except ArgumentError:
                for apart in (*([i] for i in range(call.lists)), range(call.lists)):
                    with contextlib.suppress(ArgumentError):
                        call = Call(args, by_name, apart)
                        plan = self._planned(call)
                        self._apart = apart
                        break
                else:
                    self._patience += 1  # it is refused however often it is called
                    raise
        return self._run(plan, call.tensors, tuple(call.numbers), call)

    def _plainly(self, call: Call) -> Any:
        """Return what the function computes operation by operation."""
        args, by_name = call.arguments(call.tensors, call.numbers)
        plain = self.function(*args, **by_name)
        return tuple(plain) if isinstance(plain, list) else plain

    def on_arrays(self, *arrays: Any) -> tuple[Any, ...]:
        """Call the function with arrays of one library; return its results as such."""
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
        xp = backend.modules[arrays[0].__class__]
        parents = tuple([x._node for x in tensors])
        if numbers:
            arrays += numbers
        outputs: list[Any]
        recording = any(parents) and thread.recording
        try:
            made = plan.recording(xp, arrays) if recording else plan.forward(xp, arrays)
        except FAILURES:
            self._plainly(call or Call(tensors, {}))  # which says in its own words what is wrong
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
            for i, (y, graph) in enumerate(zip(made, plan.recorded(parents)))  # noqa: B905 - without the saved
        ]
        return tuple(outputs) if plan.several else outputs[0]


def _kind(x: Tensor) -> tuple[Any, ...]:
    array = x._data
    return array.__class__, array.shape, array.dtype


def _name(function: Any) -> str:
    return getattr(function, "__name__", repr(function)).lstrip("_")


register(Fused, compiled.backend)
