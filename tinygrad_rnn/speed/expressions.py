"""Expressions: arrays without values, which record the operations that are called with them.

A function that is called with expressions in place of arrays leaves a table of all operations that
it computes. To the engine an expression is an array library of its own (``xp`` in a primitive's
forward, ``F`` in a vjp), so the primitives need not know. The engine's own backward pass runs on
expressions too, and records the derivative. No rule is stated twice. `fuse` and `scan` share this
trace.

Equal expressions are one object: they are kept in a table by their operation and arguments.
"""

from __future__ import annotations

import functools
import math
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from .._util.user_code import GENERATED, PACKAGE, location
from ..engine import backend
from ..engine.namespaces import PRIMITIVES, Raw, namespaces
from ..engine.tensor import Tensor, wrap
from ..errors import ArgumentError, GraphError, ShapeError
from ..transforms.fuse import Symbolic
from .scalars import Number, Sheet, plain

# A message names no line in these: the function itself may be one of `nn`.
INSIDE = (*(PACKAGE + part for part in ("speed", "engine", "tensors", "functional", "_util")),)
INSIDE += GENERATED
VIEWS = frozenset(("part", "reshape", "transpose", "broadcast_to"))  # of another value's memory

# -- expressions: an array library that writes down what is computed -------------------------------


SOURCES = frozenset(("argument", "gradient", "draw"))  # of values that differ from step to step


class Expression(Symbolic):
    """What an array would be: an operation and its arguments, which are expressions or constants.

    The operations are ufuncs, ``where`` and ``astype``; ``part`` (from, to along the last axis) and
    its reverse ``join``; in gradients of what was broadcast, ``sum`` and ``reshape``; in a step of
    `scan` also ``matmul``, ``transpose`` and ``broadcast_to``.

    `varies` tells whether the value differs from step to step; invariants of a loop do not.
    """

    __slots__ = ("args", "dtype", "number", "op", "sizes", "trace", "varies")
    __array_ufunc__ = None  # NumPy's scalars leave the operators to us

    def __init__(
        self, trace: Trace, op: str, args: tuple[Any, ...], dtype: Any, shape: tuple[int, ...]
    ) -> None:
        self.trace, self.op, self.args = trace, op, args
        self.dtype, self.sizes = np.dtype(dtype), shape
        self.number = len(trace.table)
        self.varies = op in SOURCES
        for a in args:
            if a.__class__ is Expression and a.varies:
                self.varies = True

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
        """Asked for by if, float() and item(); in gradients, for the memory: none."""
        if self.trace.differentiating:
            return 0
        raise untraceable("reads a value (if, float, item)", "use tinygrad_rnn.where")

    @property
    def nbytes(self) -> int:
        """Asked for where the way to compute a sum depends on it: no memory."""
        return 0

    @property
    def device(self) -> Any:
        """Asked for when arrays meet that are not all expressions."""
        if self.trace.closed:
            return "cpu"
        raise untraceable("reads an array that is not an argument", "pass it as one")

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
        """Return the gradient of what had fewer axes; in `fuse`, no other has its shape changed."""
        if not (self.trace.differentiating or self.trace.of_scan):
            raise untraceable("changes a shape (reshape)")
        return self.trace.enter("reshape", (self, shape), self.dtype, shape)

    def transpose(self, axes: tuple[int, ...]) -> Expression:
        """Return the transpose of a matrix, in a step of `scan`."""
        if not self.trace.of_scan or axes != (1, 0):
            raise untraceable(f"transposes (axes {axes})")
        if self.op == "transpose":
            original: Expression = self.args[0]
            return original
        return self.trace.enter("transpose", (self,), self.dtype, self.sizes[::-1])

    @property
    def T(self) -> Expression:
        """The transpose of a matrix."""
        return self.transpose((1, 0)[: len(self.sizes)])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise untraceable(f"asks an array for its {name!r}")

    def __bool__(self) -> bool:
        raise untraceable("branches on a value", "use tinygrad_rnn.where")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if self.op != "constant":
            raise untraceable("asks for an array of NumPy", "compute with it as it is")
        (value,) = self.args
        return np.asarray(value.known() if type(value) is Number else value, self.dtype)

    def __getitem__(self, key: Any) -> Expression:
        start, stop = span_of(key, self.sizes)
        return self._part(start, stop)

    def _part(self, start: int, stop: int) -> Expression:
        shape = (*self.sizes[:-1], stop - start)
        return self.trace.enter("part", (self, start, stop), self.dtype, shape)


def span_of(key: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return where a key that cuts the last axis starts and stops."""
    *before, last = key if key.__class__ is tuple else (key,)
    full = len(before) == len(shape) - 1 or Ellipsis in before
    if not full or last.__class__ is not slice or any(k not in (slice(None), ...) for k in before):
        raise untraceable(
            f"reads a part, [{key}], of an array of {len(shape)} axes, that is no slice of the last"
        )
    start, stop, step = last.indices(shape[-1])
    if step != 1:
        raise untraceable(f"reads a part in steps of {step}")
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
            raise untraceable(f"calls {name}, which is not computed element by element")
        function = functools.partial(_write_down, "absolute" if name == "abs" else name)
        setattr(self, name, function)
        return function

    def adopt(self, args: Sequence[Any]) -> Sequence[Any]:
        """Return arguments of an operation, with those that are no expressions made some."""
        found = (x._data for x in args if isinstance(x, Tensor))
        trace = next(x.trace for x in found if x.__class__ is Expression)
        return [trace.adopted(x) for x in args]

    def clip(self, x: Any, low: Any, high: Any) -> Any:
        """Return x limited from both sides."""
        x = x if low is None else self.maximum(x, low)
        return x if high is None else self.minimum(x, high)

    def asarray(self, x: Any) -> Any:
        """Return x: an expression, or a constant."""
        if type(x) is Number:
            return x.sheet.owner.constant(x)
        if isinstance(x, np.ndarray) and x.ndim:
            raise untraceable("reads an array that is not an argument", "pass it as one")
        return x

    def sum(self, x: Expression, axis: Any, keepdims: bool = True) -> Expression:
        """Return the sum over axes: in `fuse` only as the gradient of what was broadcast."""
        if not (x.trace.differentiating or x.trace.of_scan):
            raise untraceable("calls sum, which is not computed element by element")
        ndim = len(x.sizes)
        axes = {i % ndim for i in ((axis,) if isinstance(axis, int) else axis)} if ndim else set()
        shape = tuple(1 if i in axes else n for i, n in enumerate(x.sizes))
        total = x
        if shape != x.sizes:
            total = x.trace.enter("sum", (x, tuple(sorted(axes))), x.dtype, shape)
        if keepdims:
            return total
        return total.reshape(tuple(n for i, n in enumerate(x.sizes) if i not in axes))

    def mean(self, x: Expression, axis: Any, keepdims: bool = True) -> Expression:
        """Return the mean over axes, in a step of `scan`."""
        if not x.trace.of_scan:
            raise untraceable("calls mean, which is not computed element by element")
        total = self.sum(x, axis, keepdims)
        count = math.prod(x.sizes) // max(1, math.prod(total.sizes))
        mean: Expression = SYMBOLS.divide(total, count)
        return mean

    def broadcast_to(self, x: Expression, shape: tuple[int, ...]) -> Expression:
        """Return x in a larger shape, in a step of `scan`."""
        if not x.trace.of_scan:
            raise untraceable("calls broadcast_to, which is not computed element by element")
        return x if x.sizes == shape else x.trace.enter("broadcast_to", (x, shape), x.dtype, shape)

    def gemm(self, x: Expression, y: Expression) -> Expression:
        """Return the product of two matrices, in a step of `scan`; one of them is an invariant."""
        trace = x.trace
        if not trace.of_scan:
            raise untraceable("multiplies matrices, which is not computed element by element")
        if len(x.sizes) != 2 or len(y.sizes) != 2:
            raise untraceable(f"multiplies arrays of {len(x.sizes)} and {len(y.sizes)} axes")
        if x.varies and y.varies and not trace.differentiating:
            raise untraceable("multiplies two matrices that both change from step to step")
        return trace.enter("matmul", (x, y), x.dtype, (x.sizes[0], y.sizes[1]))


class _Rows(tuple[Expression, ...]):
    """Matrices, one below the other: the factors of a weight that a step uses several times."""


class Derived(Raw):
    """The primitives on expressions: ``F`` in the backward pass that derives a kernel."""

    def concatenate(self, *arrays: Expression, axis: int) -> Any:
        """Return matrices, one below the other: the factors of a deferred product."""
        if axis != 0:
            raise untraceable("concatenates gradients")
        return _Rows(arrays)

    def transpose(self, x: Any, axes: tuple[int, ...]) -> Any:
        """Return the transpose of a matrix, or of each of several."""
        return _Rows(y.transpose(axes) for y in x) if isinstance(x, _Rows) else x.transpose(axes)

    def gemm(self, x: Any, y: Any) -> Any:
        """Return the product of two matrices, or the sum of the products of several."""
        if not isinstance(x, _Rows):
            return SYMBOLS.gemm(x, y)
        products = [SYMBOLS.gemm(a, b) for a, b in zip(x, y, strict=True)]
        return functools.reduce(SYMBOLS.add, products)

    def scatter(self, *grads: Expression, keys: Sequence[Any], shape: tuple[int, ...]) -> Any:
        """Return the gradient of what was split: those of the parts, beside each other."""
        parts: dict[tuple[int, int], Expression] = {}
        for key, grad in zip(keys, grads, strict=True):
            span = span_of(key, shape)
            parts[span] = SYMBOLS.add(parts[span], grad) if span in parts else grad
        trace, dtype, end = grads[0].trace, grads[0].dtype, 0
        pieces = []
        for start, stop in [*sorted(parts), (shape[-1], shape[-1])]:
            if start < end:
                raise untraceable("reads parts that overlap")
            if start > end:
                gap = (*shape[:-1], start - end)
                pieces.append(trace.enter("zeros", (gap,), dtype, gap))
            if stop > start:
                pieces.append(parts[start, stop])
            end = stop
        return trace.enter("join", tuple(pieces), dtype, shape)


SYMBOLS = Symbols()
backend.register(Expression, SYMBOLS, tracing=True)
backend.register(Number, SYMBOLS)
namespaces[Expression] = Derived(SYMBOLS)


_dtypes: dict[Any, Any] = {}  # of results: by the ufunc and the kinds of arguments


def _write_down(name: str, *args: Any) -> Any:
    """Return the expression of a call of a ufunc (or of where); its dtype is found by NumPy."""
    # The most frequent kinds first, without calls: a step of `scan` is traced at every call.
    x, y = args if len(args) == 2 else (args[0], None)
    first = x if x.__class__ is Expression else y
    if first.__class__ is Expression and len(args) < 3:
        shape = first.sizes
        kinds: tuple[Any, ...] | None
        if y is None:
            kinds = name, first.dtype
        elif y.__class__ is not Expression:
            kinds = name, first.dtype, type(y)
        elif x.__class__ is not Expression:
            kinds = name, type(x), first.dtype
        else:
            kinds = (name, x.dtype, y.dtype) if y.sizes == shape else None
        dtype = _dtypes.get(kinds)
        if dtype is not None:
            return first.trace.enter(name, args, dtype, shape)
        expression = _write_down_any(name, *args)
        if kinds is not None and not {int, bool, Number, complex}.intersection(kinds):
            _dtypes[kinds] = expression.dtype
        return expression
    return _write_down_any(name, *args)


def _write_down_any(name: str, *args: Any) -> Any:
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

    of_scan = False  # whether it is a trace of a step of `scan`

    def __init__(self, numbers: Sequence[Any], closed: bool) -> None:
        self.table: dict[Any, Expression] = {}
        self.sheet = Sheet(numbers, self)
        self.differentiating = self.watching = False
        self.cut = self.sized = self.reads_default = False
        self.closed = closed

    def enter(self, op: str, args: tuple[Any, ...], dtype: Any, shape: tuple[int, ...]) -> Any:
        """Return the expression of these parts: the one that is there, or a new one."""
        key: tuple[Any, ...] = (op, dtype)
        for x in args:
            key += ((x.number if x.__class__ is Expression else _identity(x)),)
        found = self.table.get(key)
        if found is None:
            found = self.table[key] = Expression(self, op, args, dtype, shape)
            self.cut |= op in ("part", "join")
        return found

    def adopted(self, x: Any) -> Any:
        """Return an argument of an operation: in `fuse` itself, as all arrays are arguments."""
        return x

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
    """Return what tells a number, or a shape, from others."""
    return x.text if type(x) is Number else repr(x)


class _Refusal(threading.local):
    """The last operation in this thread that could not be traced, and its line ("path:line")."""

    what = line = ""


refusal = _Refusal()


def untraceable(what: str, cure: str = "compute that outside of it") -> ArgumentError:
    """Return the error of a function that is not pointwise, with the line that says so."""
    refusal.what, refusal.line = what, location(INSIDE)
    where = f" ({refusal.line})" if refusal.line else ""
    return ArgumentError(f"fuse: the function {what}{where}: {cure}")


def interpret(
    wanted: Sequence[Any], known: dict[Expression, Tensor], numbers: Sequence[Any]
) -> list[Any]:
    """Return Tensors for expressions, computed operation by operation from those that are known."""
    like = next(iter(known.values()))._data
    sizes = lengths_of(known)
    for x in needed(wanted, known):
        args = [known[a] if isinstance(a, Expression) else _value(a, numbers) for a in x.args]
        if x.op == "astype":
            known[x] = args[0].astype(x.dtype)
        elif x.op in ("zeros", "constant"):
            value: Any = args[0] if x.op == "constant" else 0
            shape = shape_now(x, sizes)
            known[x] = wrap(backend.full(shape, value, x.dtype, like=like), None, None)
        elif x.op == "part":
            known[x] = args[0][..., args[1] : args[2]]
        elif x.op == "join":
            known[x] = PRIMITIVES["concatenate"](*args, axis=-1)
        elif x.op == "sum":
            known[x] = args[0].sum(axis=args[1], keepdims=True)
        elif x.op == "reshape":
            known[x] = args[0].reshape(shape_now(x, sizes))
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


def lengths_of(known: dict[Expression, Any]) -> dict[tuple[int, int], int]:
    """Return the lengths of axes in a call: by the axis, counted from the last, and that traced."""
    return {(k - len(x.sizes), n): known[x].shape[k] for x in known for k, n in enumerate(x.sizes)}


def shape_now(x: Expression, lengths: dict[tuple[int, int], int]) -> tuple[int, ...]:
    """Return the shape of an expression in a call."""
    axes = enumerate(x.sizes, -len(x.sizes))
    return tuple([n if n == 1 else lengths.get((k, n), n) for k, n in axes])


def needed(results: Sequence[Any], given: Collection[Expression]) -> list[Expression]:
    """Return the expressions that `results` are computed from, down to `given`, in order."""
    found, stack = set(given), [x for x in results if isinstance(x, Expression)]
    while stack:
        x = stack.pop()
        if x not in found:
            found.add(x)
            stack += [a for a in x.args if isinstance(a, Expression)]
    return sorted(found.difference(given), key=lambda x: x.number)
