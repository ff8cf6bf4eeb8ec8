"""Operators and methods of `Tensor`, attached to the engine's class.

The engine's class has no operations, which are defined on top of it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from .._util.api_hints import TENSOR_HINTS, MissingAttribute, explain_errors
from ..engine import backend, ops
from ..engine.backend import DType
from ..engine.grad_mode import is_grad_enabled
from ..engine.tensor import Tensor
from ..errors import ArgumentError, DTypeError, GraphError, ShapeError
from . import dlpack, functions, numpy_protocols
from .checks import real_dtype
from .indexing import plain_keys
from .shape import stack_nested


def axes_or_shape(shape: tuple[Any, ...]) -> Any:
    """Return a shape or axes given either as one tuple or as several integers."""
    if len(shape) != 1 or shape[0].__class__ is int:
        return shape
    return tuple(shape[0]) if np.ndim(shape[0]) else shape


# -- operators -------------------------------------------------------------------------------------


def _is_numeric(value: Any) -> bool:
    """Tell whether a value is a number, or may be made of numbers: not None, text, an object."""
    numeric = ("__array__", "__float__", "__complex__", "__getitem__", "__dlpack__")
    text = isinstance(value, str | bytes | dict)
    return not text and any(hasattr(type(value), name) for name in numeric)


def _equality(operation: Any) -> Any:
    """Return the method for ``==`` or ``!=``; for an operand that is not numeric Python decides."""

    def compare(self: Tensor, other: Any) -> Any:
        try:
            return operation(self, other)
        except DTypeError:
            if _is_numeric(other):
                raise
            return NotImplemented

    return compare


def _reflected(operation: Any) -> Any:
    """Return the method for an operator whose left operand is not a Tensor."""

    def reflected(self: Tensor, other: Any) -> Any:
        return operation(other, self)

    return reflected


def _augmented(symbol: str, operation: Any) -> Any:
    """Return the method of an operator such as ``-=``.

    The name is bound to the result, as Python does with numbers. A leaf under `no_grad` is written
    to instead, so that ``for p in parameters: p -= lr * p.grad`` is a training step. On a leaf that
    requires grad, or did, it raises otherwise: it would rebind the name and leave the leaf as it
    was.
    """

    def update(self: Tensor, other: Any) -> Tensor:
        written = self._version is not None and self.is_leaf
        learned = getattr(self, "_leaf", None) is not None
        if not written or (is_grad_enabled() and not learned):
            return operation(self, other)
        if is_grad_enabled():
            raise GraphError(
                f"{symbol} on a leaf that requires grad (or did), of shape {self.shape}: write "
                "to it inside `with tinygrad_rnn.no_grad()`, or compute a new tensor, such as "
                "p = p - step"
            )
        result = operation(self, other)
        if result.shape != self.shape:
            raise ShapeError(
                f"{symbol}: the result has the shape {result.shape}, the tensor {self.shape}: "
                "compute a new tensor, such as p = p - step"
            )
        self._write(symbol, ..., result._data)
        return self

    return update


def _unsupported(symbol: str, cure: str) -> Any:
    """Return the method of an operator that Tensors lack."""

    def refuse(self: Tensor, *other: Any) -> Any:
        raise TypeError(f"Tensor has no operator {symbol}: {cure}")

    return refuse


BINARY = {
    "add": ("+", ops.add),
    "sub": ("-", ops.subtract),
    "mul": ("*", ops.multiply),
    "truediv": ("/", ops.divide),
    "floordiv": ("//", ops.floor_divide),
    "mod": ("%", ops.remainder),
    "pow": ("**", ops.power),
    "matmul": ("@", functions.matmul),
}
COMPARISONS = {"lt": ops.less, "le": ops.less_equal, "gt": ops.greater, "ge": ops.greater_equal}
UNSUPPORTED = {
    "and": ("&", "of booleans it is x * y, of integers use .numpy()"),
    "or": ("|", "of booleans it is x + y, of integers use .numpy()"),
    "xor": ("^", "of booleans it is x != y, of integers use .numpy()"),
    "invert": ("~", "of booleans it is x == False, of integers -x - 1"),
}
METHODS = (  # functions that are methods too, x being the Tensor
    "abs sign exp expm1 log log1p sqrt sin cos tanh sigmoid relu softplus clip maximum minimum "
    "sum mean var std max min prod cumsum logsumexp argmax argmin softmax log_softmax swapaxes "
    "moveaxis squeeze expand_dims flip split unbind take take_along_axis"
).split()


# -- methods ---------------------------------------------------------------------------------------


class Methods(Tensor):
    """The members that `Tensor` gets. This class has no instances."""

    __slots__ = ()
    __array_priority__ = 1000.0
    _stacked = staticmethod(stack_nested)

    __getitem__ = functions.getitem
    __neg__, __abs__ = ops.negative, ops.abs
    __eq__, __ne__ = _equality(ops.equal), _equality(ops.not_equal)
    __array__ = numpy_protocols.array
    __array_ufunc__ = numpy_protocols.array_ufunc
    __array_function__ = numpy_protocols.array_function
    __dlpack__ = dlpack.export

    @property
    def T(self) -> Tensor:
        """The tensor with its axes reversed."""
        return functions.transpose(self)

    @explain_errors
    def to(self, target: Any) -> Tensor:
        """Return this tensor on a device (a string such as ``"cuda:0"``) or in a floating dtype."""
        if isinstance(target, str) and target.startswith(("cpu", "cuda")):
            if target == "cuda":
                target = f"cuda:{backend.gpu_module().cuda.Device().id}"
            if target == self.device:
                return self
            with backend.computing_on(self.device):  # also of a device that is not the current one
                return ops.to_device(self, device=target, source=self.device)
        try:
            np.dtype(target)
        except TypeError:
            raise DTypeError(f"{target!r} is neither a device nor a dtype") from None
        return self.astype(target)

    def astype(self, dtype: DType) -> Tensor:
        """Return this tensor in another dtype."""
        if dtype is None:
            raise DTypeError(
                "astype: a real or boolean dtype such as 'float32' is expected, got None"
            )
        dtype = real_dtype(dtype, "astype")
        if dtype == self.dtype:
            return self
        return ops.cast(self if dtype.kind == "f" else self.detach(), dtype=dtype)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d tensor")
        return iter(functions.unbind(self))

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ArgumentError(
                f"the truth of a tensor of shape {self.shape} is ambiguous: use .numpy().any() or "
                ".all()"
            )
        return bool(self.item())

    def __float__(self) -> float:
        return float(self._number("float()"))

    def __int__(self) -> int:
        return int(self._number("int()"))

    def __complex__(self) -> complex:
        return complex(self._number("complex()"))

    def __index__(self) -> int:
        number = self._number("an index")
        if isinstance(number, float):
            raise DTypeError(f"an index is an integer, got a tensor of {self.dtype}: use int(x)")
        return operator.index(number)

    def __round__(self, digits: int | None = None) -> Any:
        return round(self._number("round()", "use .numpy().round(digits)"), digits)

    def __trunc__(self) -> int:
        return math.trunc(self._number("trunc()"))

    def __floor__(self) -> int:
        return math.floor(self._number("floor()"))

    def __ceil__(self) -> int:
        return math.ceil(self._number("ceil()"))

    def __contains__(self, value: Any) -> bool:
        found = self == value
        return isinstance(found, Tensor) and bool(found.numpy().any())

    def __setitem__(self, key: Any, value: Any) -> None:
        if is_grad_enabled() or self._version is None or not self.is_leaf:
            raise GraphError(
                "tensors are not assigned to by parts: build the result with tinygrad_rnn.stack, "
                "concatenate or where; inside `with tinygrad_rnn.no_grad()` a leaf can be written "
                "to, such as a copy, tinygrad_rnn.tensor(x)"
            )
        array = backend.asarray(value._data if isinstance(value, Tensor) else value)
        seen, keys = plain_keys(self, key, "assignment to a part")
        seen._write("assignment to a part", keys, array)

    def __divmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return numpy_protocols.floor_divide_and_remainder(self, other)

    def __rdivmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return numpy_protocols.floor_divide_and_remainder(other, self)

    def __pos__(self) -> Self:
        return self

    def __dlpack_device__(self) -> Any:
        return self._data.__dlpack_device__()

    def reshape(self, *lengths: Any, shape: Any = None) -> Tensor:
        """Return this tensor in another shape, a tuple or integers; one length may be -1."""
        return ops.reshape(self, shape=axes_or_shape(lengths) if shape is None else shape)

    def transpose(self, *axes: Any) -> Tensor:
        """Return this tensor with its axes in another order (none given: reversed)."""
        given = axes and axes[0] is not None
        return functions.transpose(self, axes_or_shape(axes) if given else None)

    def broadcast_to(self, *shape: Any) -> Tensor:
        """Return this tensor broadcast to a shape."""
        return ops.broadcast_to(self, shape=axes_or_shape(shape))


def _attach(name: str, member: Any) -> None:
    """Make a member one of Tensor; a function that is defined here also gets its name there."""
    function = member
    while getattr(function, "__module__", None) == __name__ and hasattr(function, "__qualname__"):
        function.__name__, function.__qualname__ = name, f"Tensor.{name}"
        function = getattr(function, "__wrapped__", None)
    setattr(Tensor, name, member)


for _name, _member in vars(Methods).items():
    if _name not in ("__doc__", "__hash__", "__module__", "__slots__"):
        _attach(_name, _member)
for _name in METHODS:
    _attach(_name, getattr(functions, _name))
for _name, (_symbol, _operation) in BINARY.items():
    _commutes = _name in ("add", "mul")  # then the call of `_reflected` is saved
    _attach(f"__{_name}__", _operation)
    _attach(f"__r{_name}__", _operation if _commutes else _reflected(_operation))
    _attach(f"__i{_name}__", _augmented(f"{_symbol}=", _operation))
for _name, _operation in COMPARISONS.items():
    _attach(f"__{_name}__", _operation)
for _name, (_symbol, _cure) in UNSUPPORTED.items():
    _attach(f"__{_name}__", _unsupported(_symbol, _cure))
    if _name != "invert":  # of a Python boolean and a Tensor
        _attach(f"__r{_name}__", _unsupported(_symbol, _cure))
for _name, _ours in TENSOR_HINTS.items():
    setattr(Tensor, _name, MissingAttribute(_name, _ours))
