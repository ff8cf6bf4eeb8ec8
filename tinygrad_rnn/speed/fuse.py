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
import functools
import math
import re
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._util.user_code import GENERATED, PACKAGE, location
from ..engine import backend
from ..engine.backward_pass import run
from ..engine.codegen import OpNode, check_saved
from ..engine.grad_mode import enable_grad, thread
from ..engine.graph import Leaf, Node, OutputNode, Parents, last_write, reachable
from ..engine.namespaces import PRIMITIVES, Raw, namespaces
from ..engine.ops import kernels
from ..engine.tensor import Tensor, wrap
from ..errors import ArgumentError, GraphError, ShapeError
from ..tensors.checks import as_tensor
from ..transforms.fuse import Pointwise, Symbolic, mode, register
from . import compiled
from .compiled import chosen
from .loops import Loop, Uncovered, kinds_of
from .scalars import PYTHON, Number, Sheet, plain
from .surroundings import PLAIN, Surroundings, checks, is_ours

DEAR = frozenset("exp expm1 log log1p sqrt sin cos tanh logaddexp power divide true_divide".split())
VIEWS = frozenset(("part", "reshape"))  # they show another value's memory
# A message names no line in these: the function itself may be one of `nn`.
INSIDE = (__file__, *(PACKAGE + part for part in ("engine", "tensors", "functional", "_util")))
INSIDE += GENERATED
SIGNATURES = 64  # how many plans a fused function keeps; the oldest goes first
PATIENCE = 16.0  # how many plans are made in vain; a call that finds one gives back a tenth
ANSWERS = 8  # how many plans there are for the same arrays: other numbers, other surroundings
FAILURES = (ValueError, OverflowError, ZeroDivisionError)  # of numbers that do not fit


# -- expressions: an array library that writes down what is computed -------------------------------


class Expression(Symbolic):
    """What an array would be: an operation and its arguments, which are expressions or constants.

    The operations are ufuncs, ``where`` and ``astype``; ``part`` (from, to along the last axis) and
    its reverse ``join``; and, in gradients of what was broadcast, ``sum`` and ``reshape``.
    """

    __slots__ = ("args", "dtype", "number", "op", "sizes", "trace")
    __array_ufunc__ = None  # NumPy's scalars leave the operators to us

    def __init__(
        self, trace: Trace, op: str, args: tuple[Any, ...], dtype: Any, shape: tuple[int, ...]
    ) -> None:
        self.trace, self.op, self.args = trace, op, args
        self.dtype, self.sizes = np.dtype(dtype), shape
        self.number = len(trace.table)

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        if self.trace.watching:
            self.trace.read_sizes(sys._getframe(1))
        return self.sizes

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.sizes)

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
        if self.trace.closed:
            return "cpu"
        raise _untraceable("reads an array that is not an argument", "pass it as one")

    def astype(self, dtype: Any) -> Expression:
        """Return the values in another dtype."""
        dtype = np.dtype(dtype)
        if self.dtype.kind != "f" and dtype.kind == "f" and not self.trace.differentiating:
            self.trace.reads_default = True
        return self if dtype == self.dtype else self.copy(dtype)

    def copy(self, dtype: Any = None) -> Expression:
        """Return the values in memory of their own."""
        return self.trace.enter("astype", (self,), dtype or self.dtype, self.sizes)

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

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if self.op != "constant":
            raise _untraceable("asks for an array of NumPy", "compute with it as it is")
        (value,) = self.args
        return np.asarray(value.known() if type(value) is Number else value, self.dtype)

    def __getitem__(self, key: Any) -> Expression:
        start, stop = _span(key, self.sizes)
        return self._part(start, stop)

    def _part(self, start: int, stop: int) -> Expression:
        shape = (*self.sizes[:-1], stop - start)
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
    "mod": "remainder", "floordiv": "floor_divide",
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
        """Return x: an expression, or a constant."""
        if type(x) is Number:
            return x.sheet.owner.constant(x)
        if isinstance(x, np.ndarray) and x.ndim:
            raise _untraceable("reads an array that is not an argument", "pass it as one")
        return x

    def sum(self, x: Expression, axis: Any, keepdims: bool) -> Expression:
        """Return the gradient of what was broadcast; nothing else is summed."""
        if not x.trace.differentiating:
            raise _untraceable("calls sum, which is not computed element by element")
        shape = tuple(1 if i in axis else n for i, n in enumerate(x.sizes))
        if shape == x.sizes:
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
backend.register(Number, SYMBOLS)
namespaces[Expression] = Derived(SYMBOLS)


def _write_down(name: str, *args: Any) -> Any:
    """Return the expression of a call of a ufunc (or of where); its dtype is found by NumPy."""
    trace = next((x.trace for x in args if isinstance(x, Expression)), None)
    if trace is None:  # a rule that asks for the logarithm of a number
        sheet = next((x.sheet for x in args if type(x) is Number), None)
        return getattr(np, name)(*args) if sheet is None else sheet.call(getattr(np, name), args)
    args = tuple([x if isinstance(x, Expression) else trace.operand(x) for x in args])
    samples = [np.empty(0, x.dtype) if isinstance(x, Expression) else plain(x) for x in args]
    shapes = [x.sizes for x in args if isinstance(x, Expression)]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        given = " and ".join(map(str, shapes))
        raise ShapeError(f"{name}: shapes {given} do not broadcast") from None
    return trace.enter(name, args, getattr(np, name)(*samples).dtype, shape)


class Trace:
    """The table of the expressions of one run, each there once.

    `closed` says that whatever array is met was made of numbers, by the function itself: it reaches
    no array, and runs on NumPy. `sized` says that it has read lengths of axes, `cut` that it cuts
    the last one, and `reads_default` that the default dtype matters.
    """

    def __init__(self, numbers: Sequence[Any], closed: bool) -> None:
        self.table: dict[Any, Expression] = {}
        self.sheet = Sheet(numbers, self)
        self.differentiating = self.watching = False
        self.cut = self.sized = self.reads_default = False
        self.closed = closed

    def enter(self, op: str, args: tuple[Any, ...], dtype: Any, shape: tuple[int, ...]) -> Any:
        """Return the expression of these parts: the one that is there, or a new one."""
        key = (op, dtype, *map(_identity, args))
        if key not in self.table:
            self.table[key] = Expression(self, op, args, dtype, shape)
            self.cut |= op in ("part", "join")
        return self.table[key]

    def operand(self, x: Any) -> Any:
        """Return a number as it is, and one with a dtype of its own as an expression."""
        return x if x.__class__ in backend.SCALARS else self.constant(x)

    def constant(self, x: Any) -> Expression:
        """Return the expression of a number: of NumPy's, or of Python's as an array is made of it.

        Its dtype counts as that of an array does, where a Python number would follow the others.
        """
        dtype = getattr(plain(x), "dtype", None)
        if dtype is None:
            kinds = {int: backend.int64, bool: backend.bool_}
            dtype = kinds.get(x.__class__) or backend.get_default_dtype()
        self.reads_default |= dtype.kind == "f"
        value = x if x.__class__ in backend.SCALARS else x.item()
        return self.enter("constant", (value,), dtype, ())

    def read_sizes(self, frame: Any) -> None:
        """Note that the function reads the lengths of axes, unless it is the engine that asks."""
        while frame.f_globals.get("__name__") in ACCESS:  # x.shape of a Tensor
            frame = frame.f_back
        reader = frame.f_globals.get("__name__", "")
        inside = reader.startswith(POINTWISE) and not reader.startswith(MAKES)
        self.sized |= not inside and not frame.f_code.co_filename.startswith("<primitive")


_ROOT = __name__.partition(".")[0]
ACCESS = frozenset(
    f"{_ROOT}.{part}" for part in ("engine.tensor", "tensors.methods", "tensors.numpy_protocols")
)
POINTWISE = tuple(f"{_ROOT}.{part}" for part in ("engine", "tensors", "speed"))
MAKES = tuple(f"{_ROOT}.tensors.{part}" for part in ("checks", "creation"))  # zeros_like(x) …


def _identity(x: Any) -> Any:
    """Return what tells an argument of an expression from others."""
    if isinstance(x, Expression):
        return id(x)
    return x.text if type(x) is Number else repr(x)


def _untraceable(what: str, cure: str = "compute that outside of it") -> ArgumentError:
    """Return the error of a function that is not pointwise, with the line that says so."""
    line = location(INSIDE)
    where = f" ({line})" if line else ""
    return ArgumentError(f"fuse: the function {what}{where}: {cure}")


def interpret(
    wanted: Sequence[Any], known: dict[Expression, Tensor], numbers: Sequence[Any]
) -> list[Any]:
    """Return Tensors for expressions, computed operation by operation from those that are known."""
    like = next(iter(known.values()))._data
    sizes = _lengths(known)
    for x in _needed(wanted, known):
        args = [known[a] if isinstance(a, Expression) else _value(a, numbers) for a in x.args]
        if x.op == "astype":
            known[x] = args[0].astype(x.dtype)
        elif x.op in ("zeros", "constant"):
            value: Any = args[0] if x.op == "constant" else 0
            shape = _shape_now(x, sizes)
            known[x] = wrap(backend.full(shape, value, x.dtype, like=like), None, None)
        elif x.op == "part":
            known[x] = args[0][..., args[1] : args[2]]
        elif x.op == "join":
            known[x] = PRIMITIVES["concatenate"](*args, axis=-1)
        elif x.op == "sum":
            known[x] = args[0].sum(axis=args[1], keepdims=True)
        elif x.op == "reshape":
            known[x] = args[0].reshape(_shape_now(x, sizes))
        else:
            operation = PRIMITIVES.get("abs" if x.op == "absolute" else x.op)
            if operation is None:
                raise GraphError(
                    f"fuse: a second derivative through {x.op}, which is no primitive: compute it "
                    "inside `with tinygrad_rnn.fuse.disabled():`"
                )
            known[x] = operation(*args)
            if known[x].dtype != x.dtype:
                known[x] = known[x].astype(x.dtype)
    return [known[x] if isinstance(x, Expression) else x for x in wanted]


def _value(x: Any, numbers: Sequence[Any]) -> Any:
    """Return what a number is in a call with these numbers; anything else is as it is."""
    if type(x) is not Number:
        return x
    return eval(x.text, {**x.sheet.scope, **{f"n{i}": n for i, n in enumerate(numbers)}})


def _lengths(known: dict[Expression, Any]) -> dict[tuple[int, int], int]:
    """Return the lengths of axes in a call: by the axis, counted from the last, and that traced."""
    return {(k - len(x.sizes), n): known[x].shape[k] for x in known for k, n in enumerate(x.sizes)}


def _shape_now(x: Expression, lengths: dict[tuple[int, int], int]) -> tuple[int, ...]:
    """Return the shape of an expression in a call."""
    axes = enumerate(x.sizes, -len(x.sizes))
    return tuple([n if n == 1 else lengths.get((k, n), n) for k, n in axes])


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

    def __init__(self, trace: Trace, given: Sequence[Expression], results: Sequence[Any]) -> None:
        self.trace = trace
        self.given, self.results, self.steps = given, results, _needed(results, given)
        self.names = {x: f"a{i}" for i, x in enumerate(given)}
        self.lines: list[str] = []
        self.constants: dict[Any, tuple[str, Any]] = {}
        self.scalars: dict[Any, str] = {}  # numbers of the call, as arrays of a dtype
        self.shapes: dict[str, str] = {}  # those of the call that are made anew
        self.buffers = 0
        self.free: dict[Any, list[str]] = {}  # buffers whose value nobody reads any more
        kept = {x for x in results if isinstance(x, Expression)}
        kept.update(x for x in self.steps if x.op == "constant")
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
            over = set() if x.op in ("where", "join", "sum", *VIEWS) else set(done)
            over.intersection_update(a for a in x.args if isinstance(a, Expression))
            self._release([a for a in done if a in over])
            self._step(x)
            self._release([a for a in done if a not in over])
        self.returned = "".join(f"{self.names.get(x, x)}, " for x in results)
        numbers = [x.text for x in trace.sheet.given]
        self.head = ", ".join([*(self.names[x] for x in given), *numbers])
        notes = [f"# {k} = {a}, {dtype}" for (a, dtype), (k, _) in self.constants.items()]
        first = [f"{name} = {text}" for text, name in self.shapes.items()]
        first += [f"{name} = scalar({x}, {t.name})" for (x, t), name in self.scalars.items()]
        self.source = _source(self.head, [*notes, *first, *self.lines], self.returned)
        self._schedules: dict[Any, Callable[..., tuple[Any, ...]]] = {}
        self._in_c: dict[Any, Callable[..., tuple[Any, ...]]] = {}

    def _homes(self, results: set[Expression]) -> dict[Expression, tuple[Expression, int]]:
        """Return which values are computed in their place in a join, and where that starts."""
        homes: dict[Expression, tuple[Expression, int]] = {}
        for whole in self.steps:
            start = 0
            for x in whole.args if whole.op == "join" else ():
                own = self.memory[x] is x and x not in self.names
                own = own and x.op not in ("join", "sum", "constant")
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
        if sum(n != 1 for n in x.sizes) < 2:  # one row: any order, and faster
            return f"vector({self._shape(x)}, {x.dtype.name})"
        # Of one step, a gradient lies as the argument does; of all steps, as it is gathered.
        given = sorted(self.given, key=lambda g: (g.op == "gradient") == (len(x.shape) < 3))
        like = next((self.names[g] for g in given if g.shape == x.shape), None)
        if like:
            return f"empty({like}, dtype={x.dtype.name})"
        part = self.names[max(self.given, key=lambda g: g.ndim)]
        return f"new({self._shape(x)}, {part}, {x.dtype.name})"

    def _shape(self, x: Expression) -> str:
        """Return the expression of a shape: of the arrays' own lengths, where these may vary."""
        texts = []
        for k, n in enumerate(x.sizes, -len(x.sizes)):
            like = next((g for g in self.given if g.ndim >= -k and g.sizes[k] == n), None)
            fixed = n == 1 or like is None or self.trace.sized or (k == -1 and self.trace.cut)
            texts.append(f"{n}" if fixed else f"{self.names[like]}.shape[{k}]")  # type: ignore[index]
        text = f"({''.join(f'{text}, ' for text in texts)})"
        if text == f"{x.sizes}" or not texts or all(text.isdigit() for text in texts):
            return text
        return self.shapes.setdefault(text, re.sub(r"\W+", "_", f"s{text}"))

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
        args = [self.names[a] if isinstance(a, Expression) else repr(plain(a)) for a in x.args]
        if x.op == "constant":
            self.names[x] = self._number(x.args[0], x.dtype, typed=True)
            return
        if x.op in VIEWS or x.op == "sum":
            self.names[x] = f"v{x.number}"
            call = {
                "part": "{0}[..., {1}:{2}]",
                "reshape": f"{{0}}.reshape({self._shape(x)})" if x.op == "reshape" else "",
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
            args = [
                self._number(a, x.dtype) if type(a) is Number else arg
                for a, arg in zip(x.args, args, strict=True)
            ]
            self.lines.append(f"where({', '.join(args)}, {out})")
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
        return self._number(a, getattr(np, x.op).resolve_dtypes((*kinds_of(x.args), None))[i])

    def _number(self, a: Any, dtype: Any, typed: bool = False) -> str:
        """Return the name of a number in a dtype; `typed`: in memory, on a device too."""
        if type(a) is Number:
            name = self.scalars.setdefault((a.text, dtype), f"q{len(self.scalars)}")
        else:
            name = self.constants.setdefault((repr(a), dtype), (f"k{len(self.constants)}", a))[0]
        if not typed:
            return name
        self.lines.append(f"{name}_ = typed({name}, {dtype.name})")
        return f"{name}_"

    def __call__(self, xp: Any, arrays: Sequence[Any]) -> tuple[Any, ...]:
        """Run on arrays of the library `xp`, then the numbers of the call."""
        compiler = chosen[0] if chosen else compiled.compiler()
        if compiler is not None and (xp is np or hasattr(xp, "one_call")):
            run = self._in_c.get(xp) or self._compile(compiler, xp, arrays)
            return run(*arrays)
        return self.schedule(xp)(*arrays)

    def _compile(
        self, compiler: Any, xp: Any, arrays: Sequence[Any]
    ) -> Callable[..., tuple[Any, ...]]:
        """Return the kernel in C: one loop, then ufuncs for what is not of its shape.

        `xp` is NumPy, or a library that does NumPy's calls and writes them down.
        """
        given = arrays[: len(self.given)]
        if any(x.size == 0 for x in given):
            return self.schedule(xp)  # these arrays need none
        try:
            loop = Loop(self.steps, self.given, self.results, any_size=not self.trace.sized)
        except Uncovered:
            return self._in_c.setdefault(xp, self.schedule(xp))
        lengths = _lengths(dict(zip(self.given, given, strict=True)))
        if math.prod(_shape_now(loop.made[0], lengths)) > loop.limit:
            return self.schedule(xp)
        if not self.trace.sized and not self.trace.cut:
            loop.width = 0  # that of the arrays
        rest = Kernel(self.trace, [*self.given, *loop.made], self.results)
        names = [rest.names[x] for x in loop.made]
        memory = [(name, self._memory(x)) for name, x in zip(names, loop.made, strict=True)]
        lines = [f"{name} = {text}" for text, name in self.shapes.items()]
        lines += [f"{name} = {text}" for name, text in memory]
        scalars = [f"r{i}" for i in range(len(loop.scalars))]
        if scalars:
            made = [f"array({x.text}, {dtype.name}), " for x, dtype in loop.scalars]
            lines.append(f"try: {', '.join(scalars)}, = {''.join(made)}")
            lines.append(f"except OverflowError: return schedule({self.head})")
        inputs = ", ".join([*(self.names[x] for x in self.given), *scalars, *names])
        large = f"{names[0]}.size > {loop.limit} or " if loop.limit < math.inf else ""
        lines.append(f"if {large}not run({inputs}): return schedule({self.head})")
        lines += [f"{name} = {text}" for text, name in rest.shapes.items()]
        lines += [f"{q} = scalar({x}, {t.name})" for (x, t), q in rest.scalars.items()]
        run = compiled.kernel(loop, compiler)
        scope = {
            "run": run if xp is np else xp.one_call(run, len(self.given) + len(scalars)),
            "schedule": self.schedule(xp),
            **_numbers(rest.constants, xp),
        }
        dtypes = [x.dtype for x in loop.made] + [t for _, t in (*loop.scalars, *rest.scalars)]
        source = _source(self.head, [*lines, *rest.lines], rest.returned)
        function = _made(source, xp, rest.steps, dtypes, {**scope, **self.trace.sheet.scope})
        return self._in_c.setdefault(xp, function)

    def schedule(self, xp: Any) -> Callable[..., tuple[Any, ...]]:
        """Return the function that calls the ufuncs of the library `xp`."""
        if xp not in self._schedules:
            scope = {**_numbers(self.constants, xp), **self.trace.sheet.scope}
            dtypes = [dtype for _, dtype in self.scalars]
            self._schedules[xp] = _made(self.source, xp, self.steps, dtypes, scope)
        return self._schedules[xp]


def _numbers(constants: dict[Any, tuple[str, Any]], xp: Any) -> dict[str, Any]:
    """Return the constants of a kernel for a library, by their names."""
    scalar = _scalar if xp is np else _item
    return {name: scalar(number, dtype) for (_, dtype), (name, number) in constants.items()}


def _item(x: Any, dtype: Any) -> Any:
    return x.item() if isinstance(x, np.generic) else x


def _array(x: Any, dtype: Any) -> Any:
    return np.asarray(_item(x, dtype), dtype)


def _scalar(x: Any, dtype: Any) -> Any:
    """Return a number as an array of the dtype that a ufunc would give it, which costs less."""
    try:
        return _array(x, dtype)
    except OverflowError:  # comparisons take any integer; the others say what is wrong with it
        return x


def _source(head: str, lines: Sequence[str], returned: str) -> str:
    body = "\n    ".join([*lines, f"return ({returned})"])
    return f"def kernel({head}):\n    {body}\n"


def _made(
    source: str, xp: Any, steps: Sequence[Expression], dtypes: Sequence[Any], scope: dict[str, Any]
) -> Callable[..., tuple[Any, ...]]:
    """Return the function of a source that computes steps with the library `xp`."""
    scope.update({dtype.name: dtype for dtype in (*dtypes, *(x.dtype for x in steps))})
    ops = {x.op for x in steps}.difference(("astype", "where", "join", "zeros", "constant", *VIEWS))
    scope.update({op: getattr(xp, op) for op in ops}, sum=functools.partial(kernels.reduced, "sum"))
    scope.update(empty=xp.empty_like, vector=xp.empty, new=kernels.empty_in_order_of)
    scope.update(where=functools.partial(kernels.where, xp))
    scope.update(copyto=xp.copyto, inf=float("inf"), nan=float("nan"), array=_array)
    scope["scalar"] = _scalar if xp is np else _item
    scope["typed"] = np.asarray if xp is np else lambda x, dtype: xp.full((), x, dtype=dtype)
    exec(compile(source, "<fused kernel>", "exec"), scope)
    return scope["kernel"]


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
                raise _untraceable("reads a Tensor that is not an argument", "pass it as one")
            if isinstance(node, OpNode):
                by_size = any(
                    name == "shapes" or name.endswith("_shape")
                    for name in node.definition.saved_names
                )
                trace.sized |= by_size and not is_ours(node.definition.forward)
                for x, place in zip(node.saved or (), node.definition.origins):  # noqa: B905 - without the versions
                    if isinstance(x, Expression) and place is not None:
                        places[x], _ = place(node)
        dear = {
            x
            for x in places
            if x.op in DEAR
            or any(
                isinstance(a, Expression) and a.op != "constant" and a not in places.keys() | given
                for a in x.args
            )
        }
        self.saved = _read(self._gradients(range(len(results))), given | dear)
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
        lengths = _lengths(dict(zip([*plan.saved, *given], [*saved, *come], strict=True)))
        for i, (x, node) in enumerate(zip(plan.values, plan.nodes, strict=True)):
            if node is not None:  # a mask, a choice between numbers have no gradient
                shape = _shape_now(x, lengths)
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
