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
free as soon as the last reader of its value has run.

What the backward kernel reads of the forward one: its arguments, its results, and the values that
are dear to compute again (`DEAR`); everything else is computed again from these.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..engine import backend
from ..engine.graph import Leaf, Node, Parents, Piece, Pieces, enable_grad, reachable, run, thread
from ..engine.primitive import PRIMITIVES, Record, make, namespaces
from ..errors import ArgumentError, DTypeError, GraphError, ShapeError
from ..tensors import broadcast_to
from ..tensors.shape import as_tensor
from ..tensors.tensor import Tensor

DEAR = frozenset("exp expm1 log log1p sqrt sin cos tanh logaddexp power divide true_divide".split())
SIGNATURES = 64  # how many plans a fused function keeps; the oldest goes first


# -- expressions: an array library that writes down what is computed -------------------------------


class Expression:
    """What an array would be: a ufunc and its arguments, which are expressions or numbers."""

    __slots__ = ("args", "dtype", "number", "op", "shape", "trace")
    __array_ufunc__ = None  # NumPy's scalars leave the operators to us

    def __init__(self, trace: Trace, op: str, args: tuple[Any, ...], dtype: Any) -> None:
        self.trace, self.op, self.args, self.dtype = trace, op, args, np.dtype(dtype)
        self.shape = trace.shape
        self.number = len(trace.table)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Asked for by if, float() and item()."""
        raise _untraceable("reads a value (if, float, item)", "use tinygrad_rnn.where")

    @property
    def device(self) -> Any:
        """Asked for when arrays meet that are not all expressions."""
        raise _untraceable("reads an array that is not an argument", "pass it as one")

    def astype(self, dtype: Any) -> Expression:
        """Return the values in another dtype."""
        dtype = np.dtype(dtype)
        return self if dtype == self.dtype else self.trace.enter("astype", (self,), dtype)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _untraceable(f"asks an array for its {name!r}")

    def __bool__(self) -> bool:
        raise _untraceable("branches on a value", "use tinygrad_rnn.where")

    def __getitem__(self, key: Any) -> Any:
        raise _untraceable("reads a part of an array", "split before, and pass the parts")


def _operator(ufunc: str, swapped: bool = False) -> Callable[..., Any]:
    def apply(x: Expression, *others: Any) -> Any:
        return getattr(SYMBOLS, ufunc)(*(reversed((x, *others)) if swapped else (x, *others)))

    return apply


for _method, _ufunc in {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "pow": "power",
}.items():  # fmt: skip
    setattr(Expression, f"__{_method}__", _operator(_ufunc))
    setattr(Expression, f"__r{_method}__", _operator(_ufunc, swapped=True))
for _method, _ufunc in {
    "neg": "negative", "abs": "absolute", "eq": "equal", "ne": "not_equal", "lt": "less",
    "le": "less_equal", "gt": "greater", "ge": "greater_equal",
}.items():  # fmt: skip
    setattr(Expression, f"__{_method}__", _operator(_ufunc))
Expression.__hash__ = object.__hash__  # type: ignore[method-assign]


class Symbols:
    """The array library of expressions: NumPy's ufuncs, by name."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        ufunc = getattr(np, name, None)
        if name != "where" and (not isinstance(ufunc, np.ufunc) or ufunc.nout != 1):
            raise _untraceable(f"calls {name}, which is not computed element by element")
        function = functools.partial(_write_down, "absolute" if name == "abs" else name)
        setattr(self, name, function)
        return function

    def clip(self, x: Any, low: Any, high: Any) -> Any:
        """Return x limited from both sides."""
        x = x if low is None else self.maximum(x, low)
        return x if high is None else self.minimum(x, high)

    def asarray(self, x: Any) -> Any:
        """Return x."""
        return x


SYMBOLS = Symbols()
backend.register(Expression, SYMBOLS)


def _write_down(name: str, *args: Any) -> Any:
    """Return the expression of a call of a ufunc (or of where); its dtype is found by NumPy."""
    args = tuple(x.item() if isinstance(x, np.generic) else x for x in args)
    trace = next(x.trace for x in args if isinstance(x, Expression))
    samples = [np.empty(0, x.dtype) if isinstance(x, Expression) else x for x in args]
    return trace.enter(name, args, getattr(np, name)(*samples).dtype)


class Trace:
    """The table of the expressions of one run, each there once."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.table: dict[Any, Expression] = {}

    def enter(self, op: str, args: tuple[Any, ...], dtype: Any) -> Expression:
        """Return the expression of these parts: the one that is there, or a new one."""
        key = (op, dtype, *((x.__class__, id(x) if isinstance(x, Expression) else x) for x in args))
        if key not in self.table:
            self.table[key] = Expression(self, op, args, dtype)
        return self.table[key]


def _untraceable(what: str, cure: str = "compute that outside of it") -> ArgumentError:
    """Return the error of a function that is not pointwise, with the line that says so."""
    frame = inspect.currentframe()
    inside = (__name__, "tinygrad_rnn.engine", "tinygrad_rnn.tensors", "tinygrad_rnn.spelling")
    while frame is not None and frame.f_globals.get("__name__", "").startswith(inside):
        frame = frame.f_back
    while frame is not None and frame.f_code.co_filename.startswith("<primitive"):
        frame = frame.f_back
    where = f" ({frame.f_code.co_filename}:{frame.f_lineno})" if frame is not None else ""
    return ArgumentError(f"fuse: the function {what}{where}: {cure}")


def interpret(wanted: Sequence[Any], known: dict[Expression, Tensor]) -> list[Any]:
    """Return Tensors for expressions, computed operation by operation from those that are known."""
    for x in _needed(wanted, known):
        args = [known[a] if isinstance(a, Expression) else a for a in x.args]
        if x.op == "astype":
            known[x] = args[0].astype(x.dtype)
        else:
            operation = PRIMITIVES.get({"absolute": "abs", "positive": "add"}.get(x.op, x.op))
            if operation is None:
                raise GraphError(
                    f"fuse: a second derivative through {x.op}, which is no primitive: compute it "
                    "inside `with tinygrad_rnn.fuse.disabled():`"
                )
            known[x] = operation(*args, 0) if x.op == "positive" else operation(*args)
    return [known[x] if isinstance(x, Expression) else x for x in wanted]


def _needed(results: Sequence[Any], given: Collection[Expression]) -> list[Expression]:
    """Return the expressions that `results` are computed from, down to `given`, in order."""
    found, stack = set(given), [x for x in results if isinstance(x, Expression)]
    while stack:
        x = stack.pop()
        if x not in found:
            found.add(x)
            stack += [a for a in x.args if isinstance(a, Expression)]
    return sorted(found.difference(given), key=lambda x: x.number)


# -- kernels: a list of ufunc calls ----------------------------------------------------------------


class Kernel:
    """A function of arrays that computes expressions: Python source, compiled for each library."""

    def __init__(self, given: Sequence[Expression], results: Sequence[Any]) -> None:
        steps = _needed(results, given)
        self.ops = {x.op for x in steps} - {"where", "astype"}
        last = {a: x for x in steps for a in x.args if isinstance(a, Expression)}
        keep = {*given, *(x for x in results if isinstance(x, Expression))}
        names = {x: f"a{i}" for i, x in enumerate(given)}
        free: dict[Any, list[str]] = {}  # buffers whose value nobody reads any more, by dtype
        lines: list[str] = []
        self.buffers = 0
        for x in steps:
            over = {a for a in x.args if isinstance(a, Expression) and last[a] is x} - keep
            if x.op != "where":  # a ufunc may write over what it reads, element by element
                self._release(over, names, free)
            if free.get(x.dtype):
                names[x] = free[x.dtype].pop()
            else:
                names[x] = f"t{self.buffers}"
                self.buffers += 1
                lines.append(f"{names[x]} = empty(model, dtype={x.dtype.name!r})")
            if x.op == "where":
                self._release(over, names, free)
            lines.append(self._call(x, names))
        returned = "".join(f"{names.get(x, x)}, " for x in results)
        head = ", ".join(["model", *(names[x] for x in given)])
        body = "\n    ".join([*lines, f"return ({returned})"])
        self.source = f"def kernel({head}):\n    {body}\n"
        self._compiled: dict[Any, Callable[..., tuple[Any, ...]]] = {}

    @staticmethod
    def _release(done: set[Expression], names: dict[Any, str], free: dict[Any, list[str]]) -> None:
        for x in sorted(done, key=lambda x: x.number):
            free.setdefault(x.dtype, []).append(names[x])

    @staticmethod
    def _call(x: Expression, names: dict[Any, str]) -> str:
        args = [names[a] if isinstance(a, Expression) else repr(a) for a in x.args]
        if x.op == "where":
            return f"copyto({names[x]}, where({', '.join(args)}))"
        if x.op == "astype":
            return f"copyto({names[x]}, {args[0]}, casting='unsafe')"
        return f"{x.op}({', '.join(args)}, out={names[x]})"

    def __call__(self, xp: Any, model: Any, arrays: Sequence[Any]) -> tuple[Any, ...]:
        """Run on arrays of the library `xp`; those that are made are like `model`."""
        kernel = self._compiled.get(xp)
        if kernel is None:
            scope: dict[str, Any] = {op: getattr(xp, op) for op in self.ops}
            scope.update(empty=xp.empty_like, copyto=xp.copyto, where=xp.where)
            scope.update(inf=float("inf"), nan=float("nan"))
            exec(compile(self.source, "<fused kernel>", "exec"), scope)
            kernel = self._compiled[xp] = scope["kernel"]
        return kernel(model, *arrays)


# -- a plan: the kernels of one signature ----------------------------------------------------------


class Plan:
    """What a function becomes for arguments of given dtypes and one shape.

    `values` are what may have a gradient: the results, then what is saved between them and the
    arguments.
    """

    def __init__(self, function: Callable[..., Any], args: Sequence[Any], shape: Any) -> None:
        self.trace = trace = Trace(shape)
        tensors = [_leaf(trace, i, x) if isinstance(x, Tensor) else x for i, x in enumerate(args)]
        self.leaves = [x for x in tensors if isinstance(x, Tensor)]
        self.inputs: list[Expression] = [x._data for x in self.leaves]
        with enable_grad():
            returned = function(*tensors)
        self.several = isinstance(returned, tuple | list)
        self.outputs = list(returned) if self.several else [returned]
        for y in self.outputs:
            if not isinstance(y, Tensor) or not isinstance(y._data, Expression):
                raise ArgumentError(
                    f"fuse: {_name(function)} returned a {type(y).__name__} that its arguments do "
                    "not lead to; it returns a Tensor, or a flat tuple of Tensors"
                )
        results = [y._data for y in self.outputs]
        self.nodes = [y._node for y in self.outputs]
        given = set(self.inputs)
        # Whatever a vjp reads was saved by a node, and has a place in the graph.
        places: dict[Expression, Node] = {}
        for node in reachable([y._node for y in self.outputs if y._node is not None]):
            if isinstance(node, Record):
                for x, place in zip(node.saved or (), node.row.places):  # noqa: B905 - without the versions
                    if isinstance(x, Expression) and place is not None:
                        places[x] = place(node)
        dear = {
            x
            for x in places
            if x.op in DEAR
            or any(isinstance(a, Expression) and a not in places and a not in given for a in x.args)
        }
        self.saved = _read(self._gradients(range(len(results))), given | dear)
        inner = [x for x in self.saved if x not in given.union(results)]
        # A result that is an argument as it came would share its memory.
        results = [trace.enter("positive", (x,), x.dtype) if x in given else x for x in results]
        self.values = [*results, *inner]
        # Which arguments each result is computed from: it has no gradient if these need none.
        self.sources = [
            [x._node in found for x in self.leaves]
            for found in ({*reachable([y._node])} if y._node else set() for y in self.outputs)
        ]
        self.nodes += [places[x] for x in inner]
        self.forward = Kernel(self.inputs, results)
        self.recording = Kernel(self.inputs, [*results, *self.saved])
        self.kernels: dict[Any, tuple[list[Any], list[Expression], Kernel]] = {}

    def _gradients(self, which: Iterable[int]) -> list[Any]:
        """Return the gradient of each argument from those of some values, as expressions."""
        roots = [
            (node, self._gradient(i, node.dtype))
            for i, node in ((i, self.nodes[i]) for i in which)
            if node is not None
        ]
        found = run(roots, namespaces, retain=True)
        return [found[x._node][0] if x._node in found else None for x in self.leaves]

    def _gradient(self, i: int, dtype: Any) -> Expression:
        return self.trace.enter("gradient", (i,), dtype)

    def backward(self, which: tuple[int, ...], needed: tuple[bool, ...]) -> Any:
        """Return the gradients that are needed from those there are: expressions and a kernel."""
        if (which, needed) not in self.kernels:
            with enable_grad():
                pairs = zip(self._gradients(which), needed, strict=True)
                grads = [g if need else None for g, need in pairs]
            given = [self._gradient(i, self.values[i].dtype) for i in which]
            self.kernels[which, needed] = grads, given, Kernel([*self.saved, *given], grads)
        return self.kernels[which, needed]


def _leaf(trace: Trace, i: int, x: Tensor) -> Tensor:
    expression = trace.enter("argument", (i,), x.dtype)
    node = Leaf(trace.shape, x.dtype, [0]) if x.dtype.kind == "f" else None
    return make(expression, node, None)


def _read(grads: Sequence[Any], known: set[Expression]) -> list[Expression]:
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

    __slots__ = ("name", "plan", "saved", "versions")
    name: str
    plan: Plan
    saved: tuple[Any, ...] | None
    versions: list[list[int] | None]  # of the arguments that were saved

    def pull(self, F: Any, grad: Pieces, parents: Parents, retain: bool) -> Sequence[Any]:
        """Run the backward kernel; under create_graph what it computes, on Tensors."""
        plan, saved = self.plan, self.saved
        if saved is None:
            raise GraphError(
                f"backward through {self.name} a second time: its saved values were freed by the "
                "first; to walk the same graph twice, pass retain_graph=True the first time"
            )
        if any(version and version[0] > self.order for version in self.versions):
            raise GraphError(
                f"backward through {self.name}: a value that it saved was changed in place after "
                "the forward pass. Call backward before optimizer.step(), or run the forward pass "
                "again"
            )
        if not retain:
            self.saved = None
        which = tuple(sorted(grad))
        grads, given, kernel = plan.backward(which, tuple([p is not None for p in parents]))
        if not F.records:
            arrays = [*saved, *[grad[i] for i in which]]
            model = next(a for a in arrays if a.shape == self.shape)
            return kernel(backend.common_module(arrays, self.name), model, arrays)
        places = dict(zip(plan.inputs, self.parents, strict=True))
        for i, x in enumerate(plan.values):
            places.setdefault(x, Piece(self, i, self.shape, x.dtype))
        known = {x: make(a, places[x], None) for x, a in zip(plan.saved, saved, strict=True)}
        return interpret(
            grads, {**known, **{g: grad[i] for g, i in zip(given, which, strict=True)}}
        )


class Fused:
    """A pointwise function that runs as one operation; made by `fuse`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function, self.name = function, _name(function)
        self.plans: dict[Any, Plan] = {}

    def plan(self, *args: Any) -> Plan:
        """Return the plan for arguments like these; its kernels have their ``source``."""
        shape = self._shape(args)
        key = (shape, *[x._data.dtype if isinstance(x, Tensor) else (type(x), x) for x in args])
        plan = self.plans.get(key)
        if plan is None:
            plan = Plan(self.function, args, shape)
            while len(self.plans) >= SIGNATURES:
                self.plans.pop(next(iter(self.plans)))
            self.plans[key] = plan
        return plan

    def _shape(self, args: Sequence[Any]) -> tuple[int, ...]:
        shapes = {x._data.shape for x in args if isinstance(x, Tensor)}
        if len(shapes) == 1:
            return shapes.pop()
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError:
            given = " and ".join(map(str, sorted(shapes)))
            raise ShapeError(f"{self.name}: shapes {given} do not broadcast") from None

    def __call__(self, *args: Any, **by_name: Any) -> Any:
        """Call the function."""
        if by_name:
            args = inspect.signature(self.function).bind(*args, **by_name).args
        if any(getattr(x, "_data", x).__class__ is Expression for x in args):
            return self.function(*args)  # a part of another fused function
        args = tuple([x if x.__class__ in _NUMBERS else as_tensor(x) for x in args])
        tensors = [x for x in args if x.__class__ not in _NUMBERS]
        if not tensors:
            return self.function(*args)
        if _state.disabled:
            plain, shape = self.function(*args), self._shape(args)
            if isinstance(plain, tuple | list):
                return tuple(y if y.shape == shape else broadcast_to(y, shape) for y in plain)
            return plain if plain.shape == shape else broadcast_to(plain, shape)
        plan = self.plan(*args)
        arrays = [x._data for x in tensors]
        xp = backend.common_module(arrays, self.name)
        shape = plan.trace.shape
        model = next((a for a in arrays if a.shape == shape), None)
        model = xp.empty(shape, arrays[0].dtype) if model is None else model
        parents = tuple([x._node for x in tensors])
        if not any(parents) or not thread.recording:
            made = plan.forward(xp, model, arrays)
            outputs = [make(y, None, None) for y in made]
        else:
            made = plan.recording(xp, model, arrays)
            count = len(plan.outputs)
            node = FusedNode(parents, shape, model.dtype)
            node.name, node.plan = self.name, plan
            node.saved = made[count:]
            reads = set(plan.saved)
            node.versions = [
                x._version for x, e in zip(tensors, plan.inputs, strict=True) if e in reads
            ]
            outputs = []
            for i, y in enumerate(made[:count]):
                graph = any(
                    p and source for p, source in zip(parents, plan.sources[i], strict=True)
                )
                outputs.append(make(y, Piece(node, i, shape, y.dtype) if graph else None, None))
        return tuple(outputs) if plan.several else outputs[0]


_NUMBERS = frozenset((bool, int, float))


class _State(threading.local):
    disabled = False


_state = _State()


def _name(function: Any) -> str:
    return getattr(function, "__name__", repr(function))


def fuse(function: Callable[..., Any]) -> Fused:
    """Make a pointwise function of Tensors one operation, with kernels derived from it.

    Parameters
    ----------
    function : callable
        Takes Tensors and numbers, whose shapes broadcast, computes element by element with the
        primitives of the library, and returns a Tensor or a flat tuple of Tensors, all of the shape
        that its arguments broadcast to. It is run once
        for each signature (dtypes, shape, numbers), and must not do anything else.

    Returns
    -------
    Fused
        The function, with the same arguments and results, and derivatives of any order.

    Raises
    ------
    ArgumentError
        When it is called: if the function branches on a value, reduces, reads parts or reads a
        Tensor that is not an argument. The message names the line.
    DTypeError
        If `function` cannot be called.

    Notes
    -----
    Inside ``with tg.fuse.disabled():`` the function runs operation by operation.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> @tg.fuse
    ... def gated(x, gate):
    ...     return tg.sigmoid(gate) * tg.tanh(x)
    >>> x = tg.tensor([0.5, -1.0], requires_grad=True)
    >>> y = gated(x, tg.zeros(2))
    >>> y.sum().backward()
    >>> (x.grad - (1 - tg.tanh(x) ** 2) / 2).abs().max().item() < 1e-7
    True
    """
    if not callable(function):
        raise DTypeError(f"fuse: a function of Tensors is expected, got {function!r:.60}")
    return Fused(function)


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Run fused functions operation by operation in a ``with`` block, for this thread alone."""
    before = _state.disabled
    _state.disabled = True
    try:
        yield
    finally:
        _state.disabled = before


fuse.disabled = disabled  # type: ignore[attr-defined]
