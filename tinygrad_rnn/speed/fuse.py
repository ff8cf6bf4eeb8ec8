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
are dear to compute again (`DEAR`); everything else is computed again from these.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..engine import backend
from ..engine.graph import (
    Leaf,
    Node,
    Parents,
    Piece,
    Pieces,
    enable_grad,
    last_write,
    reachable,
    run,
    thread,
)  # fmt: skip
from ..engine.primitive import PRIMITIVES, Raw, Record, intact, make, namespaces
from ..errors import ArgumentError, DTypeError, GraphError, ShapeError
from ..tensors.shape import as_tensor
from ..tensors.tensor import Tensor
from . import compiled
from .loops import Loop, Uncovered, kinds_of

DEAR = frozenset("exp expm1 log log1p sqrt sin cos tanh logaddexp power divide true_divide".split())
VIEWS = frozenset(("part", "reshape"))  # they show another value's memory
LIBRARY = ("engine", "tensors", "functional", "spelling")  # a message names no line in these
SIGNATURES = 64  # how many plans a fused function keeps; the oldest goes first


# -- expressions: an array library that writes down what is computed -------------------------------


class Expression:
    """What an array would be: an operation and its arguments, which are expressions or constants.

    The operations are ufuncs, ``where`` and ``astype``; ``part`` (from, to along the last axis) and
    its reverse ``join``; and, in gradients of what was broadcast, ``sum`` and ``reshape``.
    """

    __slots__ = ("args", "dtype", "number", "op", "shape", "trace")
    __array_ufunc__ = None  # NumPy's scalars leave the operators to us

    def __init__(
        self, trace: Trace, op: str, args: tuple[Any, ...], dtype: Any, shape: tuple[int, ...]
    ) -> None:
        self.trace, self.op, self.args = trace, op, args
        self.dtype, self.shape = np.dtype(dtype), shape
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
    def nbytes(self) -> int:
        """Asked for where the way to compute a sum depends on it: no memory."""
        return 0

    @property
    def device(self) -> Any:
        """Asked for when arrays meet that are not all expressions."""
        raise _untraceable("reads an array that is not an argument", "pass it as one")

    def astype(self, dtype: Any) -> Expression:
        """Return the values in another dtype."""
        dtype = np.dtype(dtype)
        return self if dtype == self.dtype else self.copy(dtype)

    def copy(self, dtype: Any = None) -> Expression:
        """Return the values in memory of their own."""
        return self.trace.enter("astype", (self,), dtype or self.dtype, self.shape)

    def reshape(self, shape: tuple[int, ...]) -> Expression:
        """Return the gradient of what had fewer axes; no other has its shape changed."""
        if not self.trace.differentiating:
            raise _untraceable("changes a shape (reshape)")
        return self.trace.enter("reshape", (self, shape), self.dtype, shape)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _untraceable(f"asks an array for its {name!r}")

    def __bool__(self) -> bool:
        raise _untraceable("branches on a value", "use tinygrad_rnn.where")

    def __getitem__(self, key: Any) -> Expression:
        start, stop = _span(key, self.shape)
        return self._part(start, stop)

    def _part(self, start: int, stop: int) -> Expression:
        shape = (*self.shape[:-1], stop - start)
        return self.trace.enter("part", (self, start, stop), self.dtype, shape)


def _span(key: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return where a key that cuts the last axis starts and stops."""
    *before, last = key if key.__class__ is tuple else (key,)
    full = len(before) == len(shape) - 1 or Ellipsis in before
    if not full or last.__class__ is not slice or any(k not in (slice(None), ...) for k in before):
        raise _untraceable(
            f"reads a part, [{key}], of an array of {len(shape)} axes, that is no slice of the last"
        )
    start, stop, step = last.indices(shape[-1])
    if step != 1:
        raise _untraceable(f"reads a part in steps of {step}")
    return start, max(start, stop)


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

    def sum(self, x: Expression, axis: Any, keepdims: bool) -> Expression:
        """Return the gradient of what was broadcast; nothing else is summed."""
        if not x.trace.differentiating:
            raise _untraceable("calls sum, which is not computed element by element")
        shape = tuple(1 if i in axis else n for i, n in enumerate(x.shape))
        if shape == x.shape:
            return x
        return x.trace.enter("sum", (x, axis), x.dtype, shape)


class Derived(Raw):
    """The primitives on expressions: ``F`` in the backward pass that derives a kernel."""

    def scatter(self, *grads: Expression, keys: Sequence[Any], shape: tuple[int, ...]) -> Any:
        """Return the gradient of what was split: those of the parts, beside each other."""
        parts: dict[tuple[int, int], Expression] = {}
        for key, grad in zip(keys, grads, strict=True):
            span = _span(key, shape)
            parts[span] = SYMBOLS.add(parts[span], grad) if span in parts else grad
        trace, dtype, end = grads[0].trace, grads[0].dtype, 0
        pieces = []
        for start, stop in [*sorted(parts), (shape[-1], shape[-1])]:
            if start < end:
                raise _untraceable("reads parts that overlap")
            if start > end:
                gap = (*shape[:-1], start - end)
                pieces.append(trace.enter("zeros", (gap,), dtype, gap))
            if stop > start:
                pieces.append(parts[start, stop])
            end = stop
        return trace.enter("join", tuple(pieces), dtype, shape)


SYMBOLS = Symbols()
backend.register(Expression, SYMBOLS)
namespaces[Expression] = Derived(SYMBOLS)


def _write_down(name: str, *args: Any) -> Any:
    """Return the expression of a call of a ufunc (or of where); its dtype is found by NumPy."""
    args = tuple(x.item() if isinstance(x, np.generic) else x for x in args)
    trace = next(x.trace for x in args if isinstance(x, Expression))
    samples = [np.empty(0, x.dtype) if isinstance(x, Expression) else x for x in args]
    shapes = [x.shape for x in args if isinstance(x, Expression)]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        given = " and ".join(map(str, shapes))
        raise ShapeError(f"{name}: shapes {given} do not broadcast") from None
    return trace.enter(name, args, getattr(np, name)(*samples).dtype, shape)


class Trace:
    """The table of the expressions of one run, each there once."""

    def __init__(self) -> None:
        self.table: dict[Any, Expression] = {}
        self.differentiating = False

    def enter(self, op: str, args: tuple[Any, ...], dtype: Any, shape: tuple[int, ...]) -> Any:
        """Return the expression of these parts: the one that is there, or a new one."""
        key = (op, dtype, *[id(x) if isinstance(x, Expression) else repr(x) for x in args])
        if key not in self.table:
            self.table[key] = Expression(self, op, args, dtype, shape)
        return self.table[key]


def _untraceable(what: str, cure: str = "compute that outside of it") -> ArgumentError:
    """Return the error of a function that is not pointwise, with the line that says so."""
    frame = inspect.currentframe()
    inside = (__name__, *(f"tinygrad_rnn.{part}" for part in LIBRARY))
    while frame is not None and (
        frame.f_globals.get("__name__", "").startswith(inside)
        or frame.f_code.co_filename.startswith("<primitive")
    ):
        frame = frame.f_back
    where = f" ({frame.f_code.co_filename}:{frame.f_lineno})" if frame is not None else ""
    return ArgumentError(f"fuse: the function {what}{where}: {cure}")


def interpret(wanted: Sequence[Any], known: dict[Expression, Tensor]) -> list[Any]:
    """Return Tensors for expressions, computed operation by operation from those that are known."""
    like = next(iter(known.values()))._data
    for x in _needed(wanted, known):
        args = [known[a] if isinstance(a, Expression) else a for a in x.args]
        if x.op == "astype":
            known[x] = args[0].astype(x.dtype)
        elif x.op == "zeros":
            known[x] = make(backend.full(x.shape, 0, x.dtype, like=like), None, None)
        elif x.op == "part":
            known[x] = args[0][..., args[1] : args[2]]
        elif x.op == "join":
            known[x] = PRIMITIVES["join"](*args, axis=-1)
        elif x.op == "sum":
            known[x] = args[0].sum(axis=args[1], keepdims=True)
        else:
            operation = PRIMITIVES.get("abs" if x.op == "absolute" else x.op)
            if operation is None:
                raise GraphError(
                    f"fuse: a second derivative through {x.op}, which is no primitive: compute it "
                    "inside `with tinygrad_rnn.fuse.disabled():`"
                )
            known[x] = operation(*args)
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
        self.given, self.results, self.steps = given, results, _needed(results, given)
        self.names = {x: f"a{i}" for i, x in enumerate(given)}
        self.lines: list[str] = []
        self.constants: dict[Any, tuple[str, Any]] = {}
        self.buffers = 0
        self.free: dict[Any, list[str]] = {}  # buffers whose value nobody reads any more
        kept = {x for x in results if isinstance(x, Expression)}
        self.memory = {x: x for x in given}  # whose memory a value is in: its own, unless a view
        for x in self.steps:
            self.memory[x] = self.memory[x.args[0]] if x.op in VIEWS else x
        self.homes = self._homes(kept)
        self.kept = {*given, *(self.memory[x] for x in kept)}
        self.kept.update(self.homes, (whole for whole, _ in self.homes.values()))
        last = {self.memory[a]: x for x in self.steps for a in x.args if isinstance(a, Expression)}
        for x in self.steps:
            read = dict.fromkeys(self.memory[a] for a in x.args if isinstance(a, Expression))
            done = [a for a in read if last[a] is x and a not in self.kept]
            # A ufunc may write over what it reads, element by element, but for views.
            over = set(done if x.op not in ("where", "join", "sum", *VIEWS) else ()) & set(x.args)
            self._release([a for a in done if a in over])
            self._step(x)
            self._release([a for a in done if a not in over])
        self.returned = "".join(f"{self.names.get(x, x)}, " for x in results)
        self.head = ", ".join(self.names[x] for x in given)
        numbers = [f"# {k} = {a}, {dtype}" for (a, dtype), (k, _) in self.constants.items()]
        self.source = _source(self.head, [*numbers, *self.lines], self.returned)
        self._schedules: dict[Any, Callable[..., tuple[Any, ...]]] = {}
        self._in_c: dict[Any, Callable[..., tuple[Any, ...]]] = {}

    def _homes(self, results: set[Expression]) -> dict[Expression, tuple[Expression, int]]:
        """Return which values are computed in their place in a join, and where that starts."""
        homes: dict[Expression, tuple[Expression, int]] = {}
        for whole in self.steps:
            start = 0
            for x in whole.args if whole.op == "join" else ():
                own = self.memory[x] is x and x not in self.names and x.op not in ("join", "sum")
                if own and x not in results:
                    homes.setdefault(x, (whole, start))
                start += x.shape[-1]
        return homes

    def _release(self, done: Sequence[Expression]) -> None:
        for x in done:
            self.free.setdefault((x.dtype, x.shape), []).append(self.names[x])

    def _buffer(self, x: Expression) -> str:
        """Return the name of memory for a value, laid out like an argument."""
        if self.free.get((x.dtype, x.shape)) and x.op != "join":
            return self.free[x.dtype, x.shape].pop()
        name = f"t{self.buffers}"
        self.buffers += 1
        self.lines.append(f"{name} = {self._memory(x)}")
        return name

    def _memory(self, x: Expression) -> str:
        """Return the call that makes memory for a value."""
        if max(x.shape, default=1) == math.prod(x.shape):  # one row: any order, and faster
            return f"vector({x.shape}, {x.dtype.name})"
        # Of one step, a gradient lies as the argument does; of all steps, as it is gathered.
        given = sorted(self.given, key=lambda g: (g.op == "gradient") == (len(x.shape) < 3))
        like = next((self.names[g] for g in given if g.shape == x.shape), None)
        if like:
            return f"empty({like}, dtype={x.dtype.name})"
        part = self.names[max(self.given, key=lambda g: g.ndim)]
        return f"new({x.shape}, {part}, {x.dtype.name})"

    def _name(self, x: Expression) -> str:
        """Return the name of the memory that a step writes to, which is there from now on."""
        if x not in self.names:
            if x in self.homes:
                whole, start = self.homes[x]
                into = self._name(whole)
                self.names[x] = f"{into}_{start}"
                self.lines.append(f"{self.names[x]} = {into}[..., {start}:{start + x.shape[-1]}]")
            else:
                self.names[x] = self._buffer(x)
        return self.names[x]

    def _step(self, x: Expression) -> None:
        """Write down the call that computes a value."""
        args = [self.names[a] if isinstance(a, Expression) else repr(a) for a in x.args]
        if x.op in VIEWS or x.op == "sum":
            self.names[x] = f"v{x.number}"
            call = {
                "part": "{0}[..., {1}:{2}]",
                "reshape": "{0}.reshape({1})",
                "sum": "sum({0}, {1}, True)",
            }[x.op].format(*args)
            self.lines.append(f"{self.names[x]} = {call}")
            return
        out = self._name(x)
        if x.op == "join":
            start = 0
            for a, arg in zip(x.args, args, strict=True):
                whole, place = self.homes.get(a, (None, 0))
                if whole is not x or place != start:
                    into = f"{out}[..., {start}:{start + a.shape[-1]}]"
                    self.lines.append(f"copyto({into}, {arg})")
                start += a.shape[-1]
            return
        if x.op == "where":
            self.lines.append(f"copyto({out}, {args[2]})")
            self.lines.append(f"copyto({out}, {args[1]}, where={args[0]})")
        elif x.op == "zeros":
            self.lines.append(f"copyto({out}, 0)")
        elif x.op == "astype":
            self.lines.append(f"copyto({out}, {args[0]}, casting='unsafe')")
        else:
            args = [self._operand(x, i) for i in range(len(args))]
            self.lines.append(f"{x.op}({', '.join(args)}, out={out})")

    def _operand(self, x: Expression, i: int) -> str:
        """Return the name of an argument of a ufunc.

        A number has one too: as an array it costs a ufunc half the time that a number takes.
        """
        a = x.args[i]
        if isinstance(a, Expression):
            return self.names[a]
        dtype = getattr(np, x.op).resolve_dtypes((*kinds_of(x.args), None))[i]
        return self.constants.setdefault((repr(a), dtype), (f"k{len(self.constants)}", a))[0]

    def __call__(self, xp: Any, arrays: Sequence[Any]) -> tuple[Any, ...]:
        """Run on arrays of the library `xp`."""
        compiler = compiled.compiler()
        if compiler is not None and (xp is np or hasattr(xp, "one_call")):
            if xp not in self._in_c:
                self._in_c[xp] = self._compile(compiler, xp)
            return self._in_c[xp](*arrays)
        return self.schedule(xp)(*arrays)

    def _compile(self, compiler: Any, xp: Any) -> Callable[..., tuple[Any, ...]]:
        """Return the kernel in C: one loop, then ufuncs for what is not of its shape.

        `xp` is NumPy, or a library that does NumPy's calls and writes them down.
        """
        try:
            loop = Loop(self.steps, self.given, self.results)
        except Uncovered:
            return self.schedule(xp)
        rest = Kernel([*self.given, *loop.made], self.results)
        lines = [f"{rest.names[x]} = {self._memory(x)}" for x in loop.made]
        lines.append(f"if not run({rest.head}): return schedule({self.head})")
        run = compiled.kernel(loop, compiler)
        scope = {
            "run": run if xp is np else xp.one_call(run, len(self.given)),
            "schedule": self.schedule(xp),
            **_numbers(rest.constants, xp),
        }
        source = _source(self.head, [*lines, *rest.lines], rest.returned)
        return _made(source, xp, [*rest.steps, *loop.made], scope)

    def schedule(self, xp: Any) -> Callable[..., tuple[Any, ...]]:
        """Return the function that calls the ufuncs of the library `xp`."""
        if xp not in self._schedules:
            scope = _numbers(self.constants, xp)
            self._schedules[xp] = _made(self.source, xp, self.steps, scope)
        return self._schedules[xp]


def _numbers(constants: dict[Any, tuple[str, Any]], xp: Any) -> dict[str, Any]:
    """Return the constants of a kernel for a library, by their names."""
    return {
        name: np.asarray(number, dtype) if xp is np else number
        for (_, dtype), (name, number) in constants.items()
    }


def _source(head: str, lines: Sequence[str], returned: str) -> str:
    body = "\n    ".join([*lines, f"return ({returned})"])
    return f"def kernel({head}):\n    {body}\n"


def _made(
    source: str, xp: Any, steps: Sequence[Expression], scope: dict[str, Any]
) -> Callable[..., tuple[Any, ...]]:
    """Return the function of a source that computes steps with the library `xp`."""
    scope.update({x.dtype.name: x.dtype for x in steps})
    ops = {x.op for x in steps}.difference(("astype", "where", "join", "zeros", *VIEWS))
    scope.update({op: getattr(xp, op) for op in ops}, sum=functools.partial(backend.reduced, "sum"))
    scope.update(empty=xp.empty_like, vector=xp.empty, new=backend.empty_like_parts)
    scope.update(copyto=xp.copyto, inf=float("inf"), nan=float("nan"))
    exec(compile(source, "<fused kernel>", "exec"), scope)
    return scope["kernel"]


# -- a plan: the kernels of one signature ----------------------------------------------------------


class Plan:
    """What a function becomes for arguments of given shapes and dtypes.

    `values` are what may have a gradient: the results, then what is saved between them and the
    arguments.
    """

    def __init__(self, function: Callable[..., Any], args: Sequence[Any]) -> None:
        self.trace = trace = Trace()
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
                        places[x], _ = place(node)
        dear = {
            x
            for x in places
            if x.op in DEAR
            or any(isinstance(a, Expression) and a not in places and a not in given for a in x.args)
        }
        self.saved = _read(self._gradients(range(len(results))), given | dear)
        # A result has its own memory, not that of an argument as it came or of a part.
        results = [x.copy() if x in given or x.op in VIEWS else x for x in results]
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
        self.forward = Kernel(self.inputs, results)
        self.recording = Kernel(self.inputs, [*results, *self.saved])
        self.reads = [i for i, x in enumerate(self.inputs) if x in set(self.saved)]
        self.kernels: dict[Any, tuple[list[Any], list[Expression], Kernel]] = {}

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
            self.kernels[which, needed] = grads, given, Kernel([*self.saved, *given], grads)
        return self.kernels[which, needed]


def _leaf(trace: Trace, i: int, x: Tensor) -> Tensor:
    expression = trace.enter("argument", (i,), x.dtype, x.shape)
    node = Leaf(x.shape, x.dtype, [0]) if x.dtype.kind == "f" else None
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
    saved: Any  # a tuple; None when let go
    versions: list[list[int] | None]  # of the arguments that were saved

    def pull(self, F: Any, grad: Any, parents: Parents, retain: bool) -> Sequence[Any]:
        """Run the backward kernel; under create_graph what it computes, on Tensors."""
        plan, saved = self.plan, self.saved
        if saved is None or last_write[0] > self.order:
            intact(self, saved, self.versions)
        if not retain:
            self.saved = None
        if plan.single:
            grad = Pieces({0: grad})
        which = tuple(sorted(grad))
        grads, given, kernel = plan.backward(which, tuple([p is not None for p in parents]))
        if not F.records:
            arrays = [*saved, *[grad[i] for i in which]]
            return kernel(backend.module_of(arrays[0]), arrays)
        places: dict[Expression, Any] = dict(zip(plan.inputs, self.parents, strict=True))
        for i, x in enumerate(plan.values):
            places.setdefault(x, self if plan.single else Piece(self, i, x.shape, x.dtype))
        read = [plan.inputs[i] for i in plan.reads]
        versions = dict(zip(read, self.versions, strict=True))
        known = {
            x: make(a, places[x], versions.get(x)) for x, a in zip(plan.saved, saved, strict=True)
        }
        return interpret(
            grads, {**known, **{g: grad[i] for g, i in zip(given, which, strict=True)}}
        )


class Fused:
    """A pointwise function that runs as one operation; made by `fuse`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function, self.name = function, _name(function)
        self.plans: dict[Any, Plan] = {}

    def __deepcopy__(self, memo: Any) -> Fused:
        return self  # as a function is

    def plan(self, *args: Any) -> Plan:
        """Return the plan for arguments like these; its kernels have their ``source``."""
        key = tuple([_kind(x) if isinstance(x, Tensor) else (type(x), repr(x)) for x in args])
        plan = self.plans.get(key)
        if plan is None:
            plan = Plan(self.function, args)
            while len(self.plans) >= SIGNATURES:
                self.plans.pop(next(iter(self.plans)))
            self.plans[key] = plan
        return plan

    def __call__(self, *args: Any, **by_name: Any) -> Any:
        """Call the function."""
        if not by_name and not _state.disabled:
            try:  # the plan is there and the arguments are Tensors, as in every step but the first
                return self._run(self.plans[tuple([_kind(x) for x in args])], args)
            except (AttributeError, KeyError):
                pass
        if by_name:
            args = inspect.signature(self.function).bind(*args, **by_name).args
        args = tuple([x if x.__class__ in backend.SCALARS else as_tensor(x) for x in args])
        tensors = [x for x in args if x.__class__ not in backend.SCALARS]
        kinds = {x._data.__class__ for x in tensors}
        if Expression in kinds or not kinds or _state.disabled:  # perhaps a part of another one
            plain = self.function(*args)
            return tuple(plain) if isinstance(plain, list) else plain
        if len(kinds) > 1:
            _, arrays = backend.together([x._data for x in tensors], self.name)
            tensors = [make(a, x._node, x._version) for a, x in zip(arrays, tensors, strict=True)]
            own = iter(tensors)
            args = tuple([x if x.__class__ in backend.SCALARS else next(own) for x in args])
        return self._run(self.plan(*args), tensors)

    def on_arrays(self, *arrays: Any) -> tuple[Any, ...]:
        """Call the function with arrays of one library; return its results as such."""
        plan = self.plans.get(tuple([(x.__class__, x.shape, x.dtype) for x in arrays]))
        plan = plan or self.plan(*[make(x, None, None) for x in arrays])
        return plan.forward(backend.modules[arrays[0].__class__], arrays)

    def _run(self, plan: Plan, tensors: Sequence[Tensor]) -> Any:
        arrays = [x._data for x in tensors]
        xp = backend.modules[arrays[0].__class__]
        parents = tuple([x._node for x in tensors])
        outputs: list[Any]
        if not any(parents) or not thread.recording:
            outputs = [make(y, None, None) for y in plan.forward(xp, arrays)]
            return tuple(outputs) if plan.several else outputs[0]
        made = plan.recording(xp, arrays)
        node = FusedNode(parents, made[0].shape, made[0].dtype)
        node.name, node.plan, node.saved = self.name, plan, made[len(plan.outputs) :]
        node.versions = [tensors[i]._version for i in plan.reads]
        if plan.single:
            return make(made[0], node, None)
        outputs = [
            make(y, Piece(node, i, y.shape, y.dtype) if graph else None, None)
            for i, (y, graph) in enumerate(zip(made, plan.recorded(parents)))  # noqa: B905 - without the saved
        ]
        return tuple(outputs) if plan.several else outputs[0]


def _kind(x: Tensor) -> tuple[Any, ...]:
    array = x._data
    return array.__class__, array.shape, array.dtype


class _State(threading.local):
    disabled = False


_state = _State()


def _name(function: Any) -> str:
    return getattr(function, "__name__", repr(function)).lstrip("_")


def fuse(function: Callable[..., Any]) -> Fused:
    """Make a pointwise function of Tensors one operation, with kernels derived from it.

    Parameters
    ----------
    function : callable
        Takes Tensors and numbers, computes element by element with the primitives of the library,
        and returns a Tensor or a flat tuple of Tensors. What broadcasts may be of different shapes,
        and `split` may cut along the last axis. It is run once for each signature (shapes, dtypes,
        numbers), and must not do anything else.

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
    Inside ``with tg.fuse.disabled():`` the function runs operation by operation. On the CPU its
    kernels are lists of ufuncs, or after ``tg.fuse.backend("c")`` loops in C.

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


def is_disabled() -> bool:
    """Tell whether this thread is in a block of `disabled`."""
    return _state.disabled


fuse.disabled = disabled  # type: ignore[attr-defined]
fuse.backend = compiled.backend  # type: ignore[attr-defined]
