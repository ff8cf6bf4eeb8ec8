"""Expressions: symbolic arrays, which record the operations that are called with them.

A function is called with expressions in place of arrays. Each operation adds a row to a table, the
trace. The engine needs no special case: it treats `Expression` as an array type of one more array
library (``xp`` in a primitive's forward, ``F`` in a vjp). Its backward pass runs on expressions
too, and so records the derivative; no gradient rule is written twice. `fuse` and `scan` share this
module.

Expressions are interned: two with the same operation and arguments are one object, which eliminates
common subexpressions.
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
from .scalars import Number, NumberTable, value_of

# An error message skips the lines of these modules. The traced function may be in `nn`.
INTERNAL = (
    *(
        PACKAGE + part
        for part in ("speed", "engine", "tensors", "functional", "_util", "random.py")
    ),
)
INTERNAL += GENERATED
VIEWS = frozenset(
    ("slice", "reshape", "transpose", "broadcast_to")
)  # share memory with their argument
FULL = slice(None)
SOURCES = frozenset(("argument", "gradient", "draw"))  # have another value at each time step

# -- expressions and their array library -----------------------------------------------------------


class Expression(Symbolic):
    """A symbolic array: an operation and its arguments, which are expressions or constants.

    The operations are ufuncs, ``where``, ``astype``, ``slice`` (start, stop on the last axis) and
    its inverse ``concatenate``. Gradients of broadcast arguments have ``sum`` and ``reshape`` too.
    A step of `scan` also has ``matmul``, ``transpose`` and ``broadcast_to``.

    `varies` tells whether the value differs between time steps. Loop invariants do not vary.
    """

    __slots__ = ("args", "dtype", "number", "op", "sizes", "trace", "varies")
    __array_ufunc__ = None  # so that NumPy's scalars defer to our operators

    args: tuple[Any, ...]
    dtype: np.dtype[Any]
    number: int  # in the order of creation, by `Trace.intern`
    op: str
    sizes: tuple[int, ...]
    trace: Trace
    varies: bool

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
        """0 in gradients, where the engine estimates memory; else an error: if, float(), item()."""
        if self.trace.differentiating:
            return 0
        raise untraceable("reads a value (if, float, item)", "use tinygrad_rnn.where")

    @property
    def nbytes(self) -> int:
        """0; the engine's sums choose their algorithm by the bytes of an array."""
        return 0

    @property
    def device(self) -> Any:
        """The device, which the engine reads when expressions and arrays are mixed."""
        if self.trace.closed:
            return self.trace.device
        raise untraceable("reads an array that is not an argument", "pass it as one")

    def astype(self, dtype: Any) -> Expression:
        """Return the values in another dtype."""
        dtype = np.dtype(dtype)
        if self.dtype.kind != "f" and dtype.kind == "f" and not self.trace.differentiating:
            self.trace.reads_default = True
        return self if dtype == self.dtype else self.copy(dtype)

    def copy(self, dtype: Any = None) -> Expression:
        """Return a copy, which shares no memory with this expression."""
        return self.trace.intern("astype", (self,), dtype or self.dtype, self.sizes)

    def reshape(self, shape: Any) -> Expression:
        """Return the expression in another shape; in `fuse`, in gradients only."""
        if not (self.trace.differentiating or self.trace.of_scan):
            raise untraceable("changes a shape (reshape)")
        if self.trace.of_scan:
            shape = self.sizes if shape is None else shape
            shape = tuple([int(n) for n in (shape if isinstance(shape, tuple | list) else [shape])])
            count = math.prod(self.sizes)
            if shape.count(-1) == 1:  # the length that remains
                shape = tuple([count // -math.prod(shape) if n == -1 else n for n in shape])
            if math.prod(shape) != count or min(shape, default=1) < 1:
                raise ShapeError(f"reshape: {self.sizes} to {shape}")
        return self.trace.intern("reshape", (self, shape), self.dtype, shape)

    def transpose(self, axes: tuple[int, ...]) -> Expression:
        """Return the transpose of a matrix, in a step of `scan`."""
        if not self.trace.of_scan or axes != (1, 0):
            raise untraceable(f"transposes (axes {axes})")
        if self.op == "transpose":
            original: Expression = self.args[0]
            return original
        return self.trace.intern("transpose", (self,), self.dtype, self.sizes[::-1])

    @property
    def T(self) -> Expression:
        """The transpose of a matrix."""
        return self.transpose((1, 0)[: len(self.sizes)])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name == "get":  # as engine/backend.py copies an array to the CPU
            raise untraceable("reads the values of an array (numpy(), repr)")
        raise untraceable(f"uses an operation that is not traced: it reads {name!r} of an array")

    def __bool__(self) -> bool:
        raise untraceable("branches on a value", "use tinygrad_rnn.where")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if self.op != "constant":
            raise untraceable("converts to a NumPy array", "use operations of tinygrad_rnn")
        (value,) = self.args
        return np.asarray(value.specialized() if type(value) is Number else value, self.dtype)

    def __getitem__(self, key: Any) -> Expression:
        start, stop = slice_bounds(key, self.sizes)
        return self._slice(start, stop)

    def _slice(self, start: int, stop: int) -> Expression:
        shape = (*self.sizes[:-1], stop - start)
        return self.trace.intern("slice", (self, start, stop), self.dtype, shape)


def slice_bounds(key: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return start and stop of a key that slices the last axis."""
    *before, last = key if key.__class__ is tuple else (key,)
    full = last.__class__ is slice and (len(before) == len(shape) - 1 or Ellipsis in before)
    for k in before:
        full = full and k in (FULL, ...)
    if not full:
        shown = ", ".join(map(str, (*before, last)))
        raise untraceable(
            f"indexes an array of {len(shape)} axes by [{shown}], which takes elements and does "
            "not slice the last axis as [..., :1] does"
        )
    start, stop, step = last.indices(shape[-1])
    if step != 1:
        raise untraceable(f"slices with a step of {step}")
    return start, max(start, stop)


def _operator(ufunc: str, swapped: bool = False, unary: bool = False) -> Callable[..., Any]:
    if unary:
        return lambda x: _record(ufunc, x)
    return (lambda x, y: _record(ufunc, y, x)) if swapped else lambda x, y: _record(ufunc, x, y)


for _method, _ufunc in {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "pow": "power",
    "mod": "remainder", "floordiv": "floor_divide",
}.items():  # fmt: skip
    setattr(Expression, f"__{_method}__", _operator(_ufunc))
    setattr(Expression, f"__r{_method}__", _operator(_ufunc, swapped=True))
for _method, _ufunc in {
    "eq": "equal", "ne": "not_equal", "lt": "less",
    "le": "less_equal", "gt": "greater", "ge": "greater_equal",
}.items():  # fmt: skip
    setattr(Expression, f"__{_method}__", _operator(_ufunc))
for _method, _ufunc in {"neg": "negative", "abs": "absolute"}.items():
    setattr(Expression, f"__{_method}__", _operator(_ufunc, unary=True))
Expression.__hash__ = object.__hash__  # type: ignore[method-assign]


class SymbolicModule:
    """The array library of expressions; its attributes are NumPy's ufuncs."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        ufunc = getattr(np, name, None)
        if name != "where" and (not isinstance(ufunc, np.ufunc) or ufunc.nout != 1):
            raise untraceable(f"calls {name}, which is not computed element by element")
        function = functools.partial(_record, "absolute" if name == "abs" else name)
        setattr(self, name, function)
        return function

    def adopt(self, args: Sequence[Any]) -> Sequence[Any]:
        """Return the arguments of an operation; `scan` converts arrays to invariants."""
        found = (x._data for x in args if isinstance(x, Tensor))
        trace = next(x.trace for x in found if x.__class__ is Expression)
        return [trace.adopted(x) for x in args]

    def clip(self, x: Any, low: Any, high: Any) -> Any:
        """Return x limited to the interval from low to high."""
        x = x if low is None else self.maximum(x, low)
        return x if high is None else self.minimum(x, high)

    def asarray(self, x: Any) -> Any:
        """Return x, an expression or a constant."""
        if type(x) is Number:
            return x.table.trace.constant(x)
        if isinstance(x, np.ndarray) and x.ndim:
            raise untraceable("reads an array that is not an argument", "pass it as one")
        return x

    def sum(self, x: Expression, axis: Any = None, keepdims: bool = False) -> Expression:
        """Return the sum over axes; in `fuse`, only as the gradient of a broadcast argument."""
        if not (x.trace.differentiating or x.trace.of_scan):
            raise untraceable("calls sum, which is not computed element by element")
        ndim = len(x.sizes)
        axis = range(ndim) if axis is None else axis
        axes = {i % ndim for i in ((axis,) if isinstance(axis, int) else axis)} if ndim else set()
        shape = tuple(1 if i in axes else n for i, n in enumerate(x.sizes))
        dtype = np.sum(np.empty(0, x.dtype)).dtype  # NumPy adds small integers in larger ones
        total = x if x.dtype == dtype else x.astype(dtype)
        if shape != x.sizes:
            total = x.trace.intern("sum", (x, tuple(sorted(axes))), dtype, shape)
        if keepdims:
            return total
        return total.reshape(tuple(n for i, n in enumerate(x.sizes) if i not in axes))

    def mean(self, x: Expression, axis: Any = None, keepdims: bool = False) -> Expression:
        """Return the mean over axes, in a step of `scan`."""
        if not x.trace.of_scan:
            raise untraceable("calls mean, which is not computed element by element")
        total = self.sum(x, axis, keepdims)
        count = math.prod(x.sizes) // max(1, math.prod(total.sizes))
        mean: Expression = SYMBOLS.divide(total, count)
        return mean

    def max(self, x: Expression, axis: Any = None, keepdims: bool = False) -> Expression:
        """Return the maximum over the last axis, in a trace that has it."""
        if not x.trace.has_max:
            raise untraceable("calls max, which is not computed element by element")
        last = len(x.sizes) - 1
        if axis not in (-1, last, (last,), (-1,)):
            raise untraceable("calls max over other axes than the last")
        maximum: Expression = x.trace.intern("max", (x, (last,)), x.dtype, (*x.sizes[:-1], 1))
        return maximum if keepdims else maximum.reshape(x.sizes[:-1])

    def concatenate(self, arrays: Sequence[Expression], axis: int) -> Expression:
        """Return arrays joined along the last axis, in a step of `scan`."""
        first = arrays[0]
        if not first.trace.of_scan:
            raise untraceable("calls concatenate, which is not computed element by element")
        sizes, ndim = [x.sizes for x in arrays], len(first.sizes)
        if axis % max(1, ndim) != ndim - 1 or any(s[:-1] != sizes[0][:-1] for s in sizes):
            raise untraceable(f"concatenates along axis {axis}, which is not the last")
        dtype = np.result_type(*(x.dtype for x in arrays))
        parts = tuple([x.astype(dtype) for x in arrays])
        shape = (*sizes[0][:-1], sum(s[-1] for s in sizes))
        joined: Expression = first.trace.intern("concatenate", parts, dtype, shape)
        return joined

    def broadcast_to(self, x: Expression, shape: tuple[int, ...]) -> Expression:
        """Return x in a larger shape, in a step of `scan`."""
        if not x.trace.of_scan:
            raise untraceable("calls broadcast_to, which is not computed element by element")
        return x if x.sizes == shape else x.trace.intern("broadcast_to", (x, shape), x.dtype, shape)

    def gemm(self, x: Expression, y: Expression) -> Expression:
        """Return the product of two matrices, in a step of `scan`; one of them is an invariant."""
        trace = x.trace
        if not trace.of_scan:
            raise untraceable("multiplies matrices, which is not computed element by element")
        if len(x.sizes) != 2 or len(y.sizes) != 2:
            raise untraceable(f"multiplies arrays of {len(x.sizes)} and {len(y.sizes)} axes")
        if x.varies and y.varies and not trace.differentiating:
            raise untraceable("multiplies two matrices that both change from step to step")
        return trace.intern("matmul", (x, y), x.dtype, (x.sizes[0], y.sizes[1]))


class _Stacked(tuple[Expression, ...]):
    """Matrices stacked by rows: the factors of the gradient of a weight that is used repeatedly."""


class SymbolicPrimitives(Raw):
    """The primitives on expressions: ``F`` in the backward pass that derives a kernel."""

    def concatenate(self, *arrays: Expression, axis: int) -> Any:
        """Return matrices stacked by rows: the factors of a deferred product."""
        if axis != 0:
            raise untraceable("concatenates gradients")
        return _Stacked(arrays)

    def transpose(self, x: Any, axes: tuple[int, ...]) -> Any:
        """Return the transpose of a matrix, or of each stacked matrix."""
        return (
            _Stacked(y.transpose(axes) for y in x) if isinstance(x, _Stacked) else x.transpose(axes)
        )

    def gemm(self, x: Any, y: Any) -> Any:
        """Return the product of two matrices, or the sum of the products of stacked matrices."""
        if not isinstance(x, _Stacked):
            return SYMBOLS.gemm(x, y)
        products = [SYMBOLS.gemm(a, b) for a, b in zip(x, y, strict=True)]
        return functools.reduce(SYMBOLS.add, products)

    def scatter(self, *grads: Expression, keys: Sequence[Any], shape: tuple[int, ...]) -> Any:
        """Return the gradient of an array from the gradients of its slices."""
        parts: dict[tuple[int, int], Expression] = {}
        for key, grad in zip(keys, grads, strict=True):
            span = slice_bounds(key, shape)
            parts[span] = SYMBOLS.add(parts[span], grad) if span in parts else grad
        trace, dtype, end = grads[0].trace, grads[0].dtype, 0
        pieces = []
        for start, stop in [*sorted(parts), (shape[-1], shape[-1])]:
            if start < end:
                raise untraceable("reads slices that overlap")
            if start > end:
                gap = (*shape[:-1], start - end)
                pieces.append(trace.intern("zeros", (gap,), dtype, gap))
            if stop > start:
                pieces.append(parts[start, stop])
            end = stop
        return trace.intern("concatenate", tuple(pieces), dtype, shape)


SYMBOLS = SymbolicModule()
backend.register(Expression, SYMBOLS, tracing=True)
backend.register(Number, SYMBOLS)
namespaces[Expression] = SymbolicPrimitives(SYMBOLS)


SMALL = 1 << 15  # integers that every floating dtype can hold
_new = object.__new__
_dtypes: dict[Any, Any] = {}  # result dtypes, by the ufunc and the argument types


def _record(name: str, *args: Any) -> Any:
    """Return the expression of a call of a ufunc or of where; NumPy determines its dtype."""
    # The most frequent cases need no further call: a step of `scan` is traced at every call.
    x, y = args if len(args) == 2 else (args[0], None)
    first: Any
    other: Any
    first, other = (x, y) if x.__class__ is Expression else (y, x)
    if first.__class__ is Expression and len(args) < 3:
        kind = type(other)  # the `__class__` of a Number is that of its value
        known = True  # whether the dtype of the result depends on `kinds` alone
        kinds: tuple[Any, ...]
        if kind is Expression:
            kinds, known = (name, x.dtype, other.dtype), other.sizes == x.sizes
        else:
            kinds = name, first.dtype, kind, first is x
            if kind is int:
                known = first.dtype.kind == "f" and -SMALL < other < SMALL
            elif other is not None:
                known = kind is float
        dtype = _dtypes.get(kinds) if known else None
        if dtype is not None:
            return first.trace.intern(name, args, dtype, first.sizes)
        expression = _record_any(name, *args)
        if known:
            _dtypes[kinds] = expression.dtype
        return expression
    return _record_any(name, *args)


def _record_any(name: str, *args: Any) -> Any:
    trace = next((x.trace for x in args if isinstance(x, Expression)), None)
    if trace is None:  # such as the logarithm of a number argument in a gradient rule
        table = next((x.table for x in args if type(x) is Number), None)
        return getattr(np, name)(*args) if table is None else table.call(getattr(np, name), args)
    args = tuple([x if isinstance(x, Expression) else trace.operand(x) for x in args])
    samples = [np.empty(0, x.dtype) if isinstance(x, Expression) else value_of(x) for x in args]
    shapes = [x.sizes for x in args if isinstance(x, Expression)]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        given = " and ".join(map(str, shapes))
        raise ShapeError(f"{name}: shapes {given} do not broadcast") from None
    return trace.intern(name, args, getattr(np, name)(*samples).dtype, shape)


class Trace:
    """The interned expressions of one run of a function.

    Attributes
    ----------
    table : dict
        The expressions, in the order of creation.
    numbers : NumberTable
        The number arguments, and the numbers computed from them.
    closed : bool
        Whether the function runs on NumPy and can read no array other than its arguments.
    uses_lengths : bool
        Whether the function has read the length of an axis.
    has_slices : bool
        Whether it slices the last axis.
    reads_default : bool
        Whether a result depends on the default dtype.
    """

    of_scan = False  # whether it is a trace of a step of `scan`
    has_max = False  # whether it has maxima, which no loop over time has: `interop` writes them

    def __init__(self, numbers: Sequence[Any], closed: bool) -> None:
        self.table: dict[Any, Expression] = {}
        self.numbers = NumberTable(numbers, self)
        self.differentiating = self.watching = False
        self.has_slices = self.uses_lengths = self.reads_default = False
        self.closed = closed
        self.device: Any = "cpu"  # of a closed trace

    def intern(self, op: str, args: tuple[Any, ...], dtype: Any, shape: tuple[int, ...]) -> Any:
        """Return the expression of an operation: an existing one, or a new one."""
        key: tuple[Any, ...] = (op, dtype)
        varies = op in SOURCES
        for x in args:
            kind = type(x)  # the `__class__` of a Number is that of its value
            if kind is Expression:
                key += (x.number,)
                varies = varies or x.varies
            else:
                key += (x.text if kind is Number else repr(x),)  # of a number or a shape
        found = self.table.get(key)
        if found is None:  # without a call of a constructor: each call in a trace is guarded
            found = self.table[key] = _new(Expression)
            found.trace, found.op, found.args = self, op, args
            found.dtype, found.sizes = np.dtype(dtype), shape
            found.number, found.varies = len(self.table) - 1, varies
            self.has_slices |= op in ("slice", "concatenate")
        return found

    def adopted(self, x: Any) -> Any:
        """Return an argument of an operation, unchanged: in `fuse` all arrays are arguments."""
        return x

    def operand(self, x: Any) -> Any:
        """Return a Python number unchanged, and any other number as an expression."""
        return x if x.__class__ in backend.SCALARS else self.constant(x)

    def constant(self, x: Any) -> Expression:
        """Return the expression of a NumPy number, or of a Python number as a 0-d array.

        Its dtype takes part in promotion as that of an array does; a Python number's is weak.
        """
        dtype = getattr(value_of(x), "dtype", None)
        if dtype is None:
            kinds = {int: backend.int64, bool: backend.bool_}
            dtype = kinds.get(x.__class__) or backend.get_default_dtype()
        self.reads_default |= dtype.kind == "f"
        value = x if x.__class__ in backend.SCALARS else x.item()
        return self.intern("constant", (value,), dtype, ())

    def read_sizes(self, frame: Any) -> None:
        """Set `uses_lengths` if the function reads a shape, and not if the engine does."""
        while frame.f_globals.get("__name__") in ACCESSORS:  # x.shape of a Tensor
            frame = frame.f_back
        reader = frame.f_globals.get("__name__", "")
        inside = reader.startswith(ELEMENTWISE) and not reader.startswith(CREATORS)
        self.uses_lengths |= not inside and not frame.f_code.co_filename.startswith("<primitive")


_ROOT = __name__.partition(".")[0]
ACCESSORS = frozenset(
    f"{_ROOT}.{part}" for part in ("engine.tensor", "tensors.methods", "tensors.numpy_protocols")
)
ELEMENTWISE = tuple(f"{_ROOT}.{part}" for part in ("engine", "tensors", "speed"))
CREATORS = tuple(f"{_ROOT}.tensors.{part}" for part in ("checks", "creation"))  # zeros_like(x) …


class _Refusal(threading.local):
    """The last operation in this thread that could not be traced, and its line ("path:line")."""

    what = line = ""


refusal = _Refusal()


def untraceable(what: str, cure: str = "compute that outside of it") -> ArgumentError:
    """Return the error for a function that cannot be traced, with the line of the user's code."""
    refusal.what, refusal.line = what, location(INTERNAL)
    where = f" ({refusal.line})" if refusal.line else ""
    return ArgumentError(f"fuse: the function {what}{where}: {cure}")


def interpret(
    wanted: Sequence[Any], known: dict[Expression, Tensor], numbers: Sequence[Any]
) -> list[Any]:
    """Evaluate expressions operation by operation on Tensors; `known` has the values of some."""
    like = next(iter(known.values()))._data
    sizes = lengths_of(known)
    for x in needed(wanted, known):
        args = [known[a] if isinstance(a, Expression) else _value(a, numbers) for a in x.args]
        if x.op == "astype":
            known[x] = args[0].astype(x.dtype)
        elif x.op in ("zeros", "constant"):
            value: Any = args[0] if x.op == "constant" else 0
            shape = shape_in_call(x, sizes)
            known[x] = wrap(backend.full(shape, value, x.dtype, like=like), None, None)
        elif x.op == "slice":
            known[x] = args[0][..., args[1] : args[2]]
        elif x.op == "concatenate":
            known[x] = PRIMITIVES["concatenate"](*args, axis=-1)
        elif x.op == "sum":
            known[x] = args[0].sum(axis=args[1], keepdims=True)
        elif x.op == "reshape":
            known[x] = args[0].reshape(shape_in_call(x, sizes))
        else:
            operation = PRIMITIVES.get("abs" if x.op == "absolute" else x.op)
            if operation is None:
                raise GraphError(
                    f"fuse: a second derivative through {x.op}, which lacks a primitive: compute "
                    "it inside `with tinygrad_rnn.fuse.disabled():`"
                )
            known[x] = operation(*args)
            if known[x].dtype != x.dtype:
                known[x] = known[x].astype(x.dtype)
    return [known[x] if isinstance(x, Expression) else x for x in wanted]


def _value(x: Any, numbers: Sequence[Any]) -> Any:
    """Return the value of a number in a call with `numbers`; anything else is unchanged."""
    if type(x) is not Number:
        return x
    return eval(x.text, {**x.table.scope, **{f"n{i}": n for i, n in enumerate(numbers)}})


def lengths_of(known: dict[Expression, Any]) -> dict[tuple[int, int], int]:
    """Return the lengths of axes in a call, by (axis from the end, length in the trace)."""
    return {(k - len(x.sizes), n): known[x].shape[k] for x in known for k, n in enumerate(x.sizes)}


def shape_in_call(x: Expression, lengths: dict[tuple[int, int], int]) -> tuple[int, ...]:
    """Return the shape of an expression in a call."""
    axes = enumerate(x.sizes, -len(x.sizes))
    return tuple([n if n == 1 else lengths.get((k, n), n) for k, n in axes])


def needed(results: Sequence[Any], given: Collection[Expression]) -> list[Expression]:
    """Return the expressions to compute for `results` from `given`, in order of computation."""
    found, stack = set(given), [x for x in results if isinstance(x, Expression)]
    while stack:
        x = stack.pop()
        if x not in found:
            found.add(x)
            stack += [a for a in x.args if isinstance(a, Expression)]
    return sorted(found.difference(given), key=lambda x: x.number)
