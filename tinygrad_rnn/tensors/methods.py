"""The operators and methods of a Tensor, attached to the engine's class."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from .. import tensors as ops
from .._util.api_hints import TENSOR_HINTS, MissingAttribute, explain_errors
from ..engine import backend
from ..engine.backend import DType
from ..engine.grad_mode import is_grad_enabled
from ..engine.tensor import Tensor
from ..errors import ArgumentError, DTypeError, GraphError, ShapeError
from . import numpy_protocols
from .checks import real_dtype
from .shape import _stacked

_equal, _not_equal = ops.equal, ops.not_equal  # a global name is found sooner than an attribute


def axes_or_shape(shape: tuple[Any, ...]) -> Any:
    """Return a shape or a list of axes given either as one tuple or as several integers."""
    if len(shape) != 1 or shape[0].__class__ is int:
        return shape
    return tuple(shape[0]) if np.ndim(shape[0]) else shape


def _no_number(value: Any) -> bool:
    """Tell whether a value is neither a number nor made of such: None, text, another object."""
    numeric = ("__array__", "__float__", "__complex__", "__getitem__", "__dlpack__")
    known = not isinstance(value, str | bytes | dict)
    return not (known and any(hasattr(type(value), name) for name in numeric))


def _augmented(symbol: str, operation: Any) -> Any:
    """Return the method of an operator such as ``-=``.

    A name is bound to the result, as Python does with numbers, but for a leaf: under `no_grad` its
    array is written to, so that ``for p in parameters: p -= lr * p.grad`` is a training step. On a
    leaf that requires a gradient, or did, it raises elsewhere: it would change a name alone.
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


def _no_operator(symbol: str, cure: str) -> Any:
    def refuse(self: Tensor, *other: Any) -> Any:
        raise TypeError(f"Tensor has no operator {symbol}: {cure}")

    return refuse


class Methods(Tensor):
    """The members that `Tensor` gets; only a Tensor ever has them, there are no instances."""

    __slots__ = ()
    __array_priority__ = 1000.0
    _stacked = staticmethod(_stacked)

    @property
    def T(self) -> Tensor:
        """The tensor with its axes reversed."""
        return ops.transpose(self)

    @explain_errors
    def to(self, target: Any) -> Tensor:
        """Return this tensor on a device (a string such as ``"cuda:0"``) or in a floating dtype."""
        if isinstance(target, str) and target.startswith(("cpu", "cuda")):
            return (
                self
                if target == self.device
                else ops.to_device(self, device=target, source=self.device)
            )
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
        return iter(self.unbind())

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
                "concatenate or where; a leaf can be written to inside "
                "`with tinygrad_rnn.no_grad()`"
            )
        array = backend.asarray(value._data if isinstance(value, Tensor) else value)
        seen, keys = ops.plain_keys(self, key)
        seen._write("assignment to a part", keys, array)

    # -- arithmetic

    __add__ = __radd__ = ops.add
    __mul__ = __rmul__ = ops.multiply
    __sub__ = ops.subtract
    __truediv__ = ops.divide
    __pow__ = ops.power
    __mod__, __floordiv__ = ops.remainder, ops.floor_divide
    __matmul__ = ops.matmul
    __neg__ = ops.negative
    __abs__ = ops.abs
    __lt__, __le__, __gt__, __ge__ = ops.less, ops.less_equal, ops.greater, ops.greater_equal
    __getitem__ = ops.getitem

    __iadd__, __isub__ = _augmented("+=", ops.add), _augmented("-=", ops.subtract)
    __imul__, __itruediv__ = _augmented("*=", ops.multiply), _augmented("/=", ops.divide)
    __ipow__, __imatmul__ = _augmented("**=", ops.power), _augmented("@=", ops.matmul)
    __imod__, __ifloordiv__ = _augmented("%=", ops.remainder), _augmented("//=", ops.floor_divide)

    def __eq__(self, other: Any) -> Any:
        try:
            return _equal(self, other)
        except DTypeError:
            if _no_number(other):  # it is another object than this: Python answers False
                return NotImplemented
            raise

    def __ne__(self, other: Any) -> Any:
        try:
            return _not_equal(self, other)
        except DTypeError:
            if _no_number(other):
                return NotImplemented
            raise

    def __rsub__(self, other: Any) -> Tensor:
        return ops.subtract(other, self)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.divide(other, self)

    def __rpow__(self, other: Any) -> Tensor:
        return ops.power(other, self)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self)

    def __rmod__(self, other: Any) -> Tensor:
        return ops.remainder(other, self)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return ops.floor_divide(other, self)

    def __divmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return _divmod(self, other)

    def __rdivmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return _divmod(other, self)

    def __pos__(self) -> Self:
        return self

    # -- methods: the functions of the package, x being this tensor

    abs, sign, exp, expm1, log, log1p, sqrt = (
        ops.abs,
        ops.sign,
        ops.exp,
        ops.expm1,
        ops.log,
        ops.log1p,
        ops.sqrt,
    )
    sin, cos, tanh, sigmoid, relu, softplus = (
        ops.sin,
        ops.cos,
        ops.tanh,
        ops.sigmoid,
        ops.relu,
        ops.softplus,
    )
    clip, maximum, minimum = ops.clip, ops.maximum, ops.minimum
    sum, mean, var, std, max, min, prod = (
        ops.sum,
        ops.mean,
        ops.var,
        ops.std,
        ops.max,
        ops.min,
        ops.prod,
    )
    cumsum, logsumexp, argmax, argmin = ops.cumsum, ops.logsumexp, ops.argmax, ops.argmin
    softmax, log_softmax = ops.softmax, ops.log_softmax
    swapaxes, moveaxis, squeeze, expand_dims = (
        ops.swapaxes,
        ops.moveaxis,
        ops.squeeze,
        ops.expand_dims,
    )
    flip, split, unbind, take, take_along_axis = (
        ops.flip,
        ops.split,
        ops.unbind,
        ops.take,
        ops.take_along_axis,
    )

    def reshape(self, *lengths: Any, shape: Any = None) -> Tensor:
        """Return this tensor in another shape, a tuple or integers; one length may be -1."""
        return ops.reshape(self, shape=axes_or_shape(lengths) if shape is None else shape)

    def transpose(self, *axes: Any) -> Tensor:
        """Return this tensor with its axes in another order (none given: reversed)."""
        given = axes and axes[0] is not None
        return ops.transpose(self, axes_or_shape(axes) if given else None)

    def broadcast_to(self, *shape: Any) -> Tensor:
        """Return this tensor stretched to a shape."""
        return ops.broadcast_to(self, shape=axes_or_shape(shape))

    # -- NumPy's protocols: the gradient is kept, or a clear error is raised

    def __array__(self, dtype: DType = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if self.requires_grad:
            raise GraphError(
                "a tensor that requires grad is not turned into an array in silence: use "
                ".detach() or .numpy(); tinygrad_rnn.stack makes one tensor of a list of them"
            )
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        ours, plain = _UFUNCS.get(ufunc.__name__), method == "__call__"
        if plain and ours is not None and not keywords:
            return ours(*inputs)
        name = ufunc.__name__ if plain else f"{ufunc.__name__}.{method}"
        theirs = ufunc if plain else getattr(ufunc, method)
        return numpy_protocols.otherwise(name, theirs, ours, inputs, keywords, list(keywords))

    def __array_function__(
        self, function: Any, types: Any, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        if function in (np.shape, np.ndim, np.size) and len(args) == 1 and not keywords:
            return getattr(args[0], function.__name__)
        return numpy_protocols.answer(function, _of_numpy(function.__name__), args, keywords)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[Any, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Export the array: its own memory where a write to it does no harm, else a copy.

        See `tinygrad_rnn.from_dlpack`, whose notes say which is which.
        """
        if self.requires_grad:
            raise BufferError("a tensor that requires grad is not exported: use .detach()")
        array, refusal = self._data, self._not_shared(strided=copy is False)
        if refusal and copy is False:
            raise BufferError(f"{refusal} is exported as a copy: leave copy=False out")
        if refusal:
            array, copy = array.copy(order="C"), None
        given = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
        # The CuPy of before the versioned protocol knows `stream` alone.
        try:
            return array.__dlpack__(**{name: x for name, x in given.items() if x is not None})
        except ValueError as error:  # of a NumPy before 2.2; the protocol asks for a BufferError
            raise BufferError(f"DLPack: {error}") from error

    def _not_shared(self, strided: bool) -> str | None:
        """Return why the memory must not be exported, or None; with gaps in it if `strided`."""
        array = self._data
        if self._version is None:
            return "a computed tensor, which a graph may have saved,"
        if not getattr(array.flags, "writeable", True):  # not everybody heeds the flag for it
            return "a tensor on read-only memory"
        if any(stride < 0 for stride in array.strides):  # PyTorch ends the process on these
            return "a tensor that runs backwards in memory"
        order = sorted(range(array.ndim), key=array.strides.__getitem__, reverse=True)
        if strided or array.transpose(order).flags.c_contiguous:
            return None
        return "a tensor with gaps in memory"  # JAX takes none

    def __dlpack_device__(self) -> Any:
        return self._data.__dlpack_device__()


def _divmod(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    return ops.floor_divide(x, y), ops.remainder(x, y)


def _of_numpy(name: str) -> Any:
    """Return the library's function for a name of NumPy's, or None."""
    name = numpy_protocols.NAMES.get(name, name)
    function = numpy_protocols.MORE.get(name, getattr(ops, name, None))
    return function if callable(function) else None


_UFUNCS: dict[str, Any] = {
    name: _of_numpy(name) for name, value in vars(np).items() if isinstance(value, np.ufunc)
}
_UFUNCS |= {"positive": Methods.__pos__, "divmod": _divmod}


def _attach(name: str, member: Any) -> None:
    """Make a member of `Methods` one of Tensor, also in tracebacks and messages."""
    function = member
    while getattr(function, "__qualname__", "").startswith("Methods."):
        function.__qualname__ = f"Tensor.{name}"
        function = getattr(function, "__wrapped__", None)
    setattr(Tensor, name, member)


for _name, _member in vars(Methods).items():
    if _name not in ("__doc__", "__hash__", "__module__", "__slots__"):
        _attach(_name, _member)
for _name, _ours in TENSOR_HINTS.items():
    setattr(Tensor, _name, MissingAttribute(_name, _ours))
for _name, _symbol, _ours in (
    ("and", "&", "of booleans it is x * y, of integers use .numpy()"),
    ("or", "|", "of booleans it is x + y, of integers use .numpy()"),
    ("xor", "^", "of booleans it is x != y, of integers use .numpy()"),
    ("invert", "~", "of booleans it is x == False, of integers -x - 1"),
):
    setattr(Tensor, f"__{_name}__", _no_operator(_symbol, _ours))
for _name in ("and", "or", "xor"):  # of a Python boolean and a Tensor
    setattr(Tensor, f"__r{_name}__", getattr(Tensor, f"__{_name}__"))
