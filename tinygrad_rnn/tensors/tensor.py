"""Tensor: the engine's Variable with NumPy's vocabulary."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from .. import tensors as ops
from ..engine import backend
from ..engine.backend import DType
from ..engine.graph import is_grad_enabled
from ..engine.primitive import bind
from ..engine.variable import Variable
from ..errors import ArgumentError, DTypeError, GraphError, ShapeError
from ..spelling import OTHER_NAMES, Elsewhere, explained
from . import numpy_calls
from .shape import _stacked

_equal, _not_equal = ops.equal, ops.not_equal  # a global name is found sooner than an attribute


def axes_or_shape(shape: tuple[Any, ...]) -> Any:
    """Return a shape or a list of axes given either as one tuple or as several integers."""
    if len(shape) != 1 or shape[0].__class__ is int:
        return shape
    return tuple(shape[0]) if np.ndim(shape[0]) else shape


def _real(dtype: Any, what: str) -> np.dtype[Any]:
    """Return a dtype of real numbers or booleans."""
    try:
        dtype = np.dtype(dtype) if dtype is not None else np.dtype("O")
    except TypeError:
        raise DTypeError(f"{dtype!r} is neither a device nor a dtype") from None
    if dtype.kind not in "fiub":
        raise DTypeError(f"{what}: a real or boolean dtype is needed, got {dtype}")
    return dtype


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


class Tensor(Variable):
    """An array with a place in the graph; made by `tinygrad_rnn.tensor` and the other constructors.

    Arithmetic, methods and indexing follow NumPy; every one that computes is also a function of the
    package, where it is documented. If ``requires_grad``, operations on it are recorded, and
    `backward` fills `grad`. A tensor of one element is converted, rounded and formatted
    (``f"{loss:.2f}"``) like its number, with a graph or without one.
    """

    __slots__ = ()
    __array_priority__ = 1000.0
    _stacked = staticmethod(_stacked)
    __hash__ = object.__hash__

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._data.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._data.size

    @property
    def T(self) -> Tensor:
        """The tensor with its axes reversed."""
        return ops.transpose(self)

    # -- getting values out

    def numpy(self) -> np.ndarray[Any, Any]:
        """Return the values as a NumPy array of their own, from any device."""
        return np.array(backend.to_numpy(self._data))

    def item(self) -> Any:
        """Return the one element as a Python number."""
        return self._number("item()")

    def _number(self, what: str, cure: str = "reduce it (.mean(), .sum()) or use .numpy()") -> Any:
        if self.size != 1:
            raise ShapeError(
                f"{what}: the tensor has {self.size} elements, shape {self.shape}: {cure}"
            )
        return self._data.item()

    @explained
    def to(self, target: Any) -> Tensor:
        """Return this tensor on a device (a string such as ``"cuda:0"``) or in a floating dtype."""
        if isinstance(target, str) and target.startswith(("cpu", "cuda")):
            return (
                self
                if target == self.device
                else ops.to_device(self, device=target, source=self.device)
            )
        return self.astype(target)

    def astype(self, dtype: DType) -> Tensor:
        """Return this tensor in another dtype."""
        dtype = _real(dtype, "astype")
        if dtype == self.dtype:
            return self
        return ops.cast(self if dtype.kind == "f" else self.detach(), dtype=dtype)

    def __repr__(self) -> str:
        body = np.array2string(self.numpy(), separator=", ", prefix="tensor(")
        notes = (
            []
            if self.dtype in (backend.float32, backend.int64, backend.bool_)
            else [f"dtype={self.dtype}"]
        )
        notes += [] if self.device == "cpu" else [f"device={self.device!r}"]
        if self._node is not None:
            notes.append("requires_grad=True" if self.is_leaf else f"grad_fn=<{self._node.name}>")
        return f"tensor({', '.join([body, *notes])})"

    def __format__(self, form: str) -> str:
        if not form:
            return str(self)
        return format(self._number(f"format {form!r}", "use .numpy() for its elements"), form)

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

    def __copy__(self) -> Self:
        if self.is_leaf:
            return self._copied()
        copy = object.__new__(type(self))  # an array that is not written to, at the same place
        copy._data, copy._version, copy._node = self._data, self._version, self._node
        return copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        if not self.is_leaf:
            raise GraphError("deepcopy of a computed tensor: copy leaves, or detach() it first")
        copy = memo[id(self)] = self._copied()
        if self.grad is not None:
            copy.requires_grad = True
            copy.grad = self.grad
            copy.requires_grad = self.requires_grad
        return copy

    def _copied(self) -> Self:
        """Return a leaf with a copy of this one's array."""
        copy = object.__new__(type(self))
        copy._data, copy._version, copy._node = backend.copy(self._data), [0], None
        copy.requires_grad = self.requires_grad
        return copy

    def __reduce__(self) -> Any:
        if not self.is_leaf:
            raise GraphError("pickling a computed tensor: detach() it first")
        return type(self), (self.numpy(), None, None, self.requires_grad)

    def __setitem__(self, key: Any, value: Any) -> None:
        if is_grad_enabled() or self._version is None or not self.is_leaf:
            raise GraphError(
                "tensors are not assigned to by parts: build the result with tinygrad_rnn.stack, "
                "concatenate or where; a leaf can be written to inside "
                "`with tinygrad_rnn.no_grad()`"
            )
        array = backend.asarray(value._data if isinstance(value, Variable) else value)
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
        return numpy_calls.otherwise(name, theirs, ours, inputs, keywords, list(keywords))

    def __array_function__(
        self, function: Any, types: Any, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        if function in (np.shape, np.ndim, np.size) and len(args) == 1 and not keywords:
            return getattr(args[0], function.__name__)
        return numpy_calls.answer(function, _of_numpy(function.__name__), args, keywords)

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
    name = numpy_calls.NAMES.get(name, name)
    function = numpy_calls.MORE.get(name, getattr(ops, name, None))
    return function if callable(function) else None


_UFUNCS: dict[str, Any] = {
    name: _of_numpy(name) for name, value in vars(np).items() if isinstance(value, np.ufunc)
}
_UFUNCS |= {"positive": Tensor.__pos__, "divmod": _divmod}
for _name, _ours in OTHER_NAMES.items():
    setattr(Tensor, _name, Elsewhere(_name, _ours))
for _name, _symbol, _ours in (
    ("and", "&", "of booleans it is x * y, of integers use .numpy()"),
    ("or", "|", "of booleans it is x + y, of integers use .numpy()"),
    ("xor", "^", "of booleans it is x != y, of integers use .numpy()"),
    ("invert", "~", "of booleans it is x == False, of integers -x - 1"),
):
    setattr(Tensor, f"__{_name}__", _no_operator(_symbol, _ours))
for _name in ("and", "or", "xor"):  # of a Python boolean and a Tensor
    setattr(Tensor, f"__r{_name}__", getattr(Tensor, f"__{_name}__"))
bind(Tensor)


def tensor(
    data: Any, dtype: DType = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """Return a tensor of its own copy of `data`.

    Parameters
    ----------
    data : number, nested sequence, array or Tensor
        Python floats get the default dtype, arrays keep theirs.
    dtype : dtype, optional
        A real dtype to convert to.
    device : str, optional
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; where the array is, or the default device.
    requires_grad : bool
        Record what is computed from it; floating tensors only.

    Raises
    ------
    DTypeError
        For complex numbers, strings and objects.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.tensor([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    dtype = None if dtype is None else _real(dtype, "tensor")
    return Tensor(data, dtype, device, requires_grad)
