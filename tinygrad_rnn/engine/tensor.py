"""Tensor: an array and its node in the graph.

``tensors/methods.py`` attaches the operators and NumPy's methods: they call operations, which are
defined in higher layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .._util import gpu
from .._util.api_hints import foreign_array_hint
from ..errors import DeviceError, DTypeError, GraphError, ShapeError
from . import backend
from .backend import Array, DType
from .graph import Leaf, Node, last_write, tick


class Tensor:
    """An array and its node in the graph; made by `tinygrad_rnn.tensor` and other constructors.

    Operators, methods and indexing follow NumPy. Every method that computes is also a function of
    the package, where it is documented. If ``requires_grad``, operations on the tensor are
    recorded, and `backward` fills `grad`. A tensor of one element is converted, rounded and
    formatted (``f"{loss:.2f}"``) like a number, with or without a graph.

    Raises
    ------
    DTypeError
        If `data` is not an array of real numbers or booleans.
    ShapeError
        If the rows of a nested list differ in length.
    DeviceError
        If `device` is unknown or cannot be used.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.Tensor([1.0, 2.0])
    >>> (x * 3).shape
    (2,)
    """

    __slots__ = ("__weakref__", "_data", "_leaf", "_node", "_version")
    __hash__ = object.__hash__

    _data: Array
    _leaf: Leaf | None  # set when it first requires a gradient: recorded graphs refer to it
    _node: Node | None  # of the operation that computed it, or the leaf
    _version: list[int] | None  # the time of the last write; shared with views; None: read-only

    def __init__(
        self, data: Any, dtype: DType = None, device: str | None = None, requires_grad: bool = False
    ) -> None:
        source = data._data if isinstance(data, Tensor) else data
        given = backend.is_array(source)
        array = backend.asarray(source, dtype)
        if device is not None or (data is source and backend.module_of(array) is np):
            array = backend.to_device(array, device)
        self._data, self._version, self._node = backend.copy(array) if given else array, [0], None
        self.requires_grad = requires_grad

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self._data.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._data.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._data.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The data type of the elements."""
        return self._data.dtype

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda:N"``."""
        return backend.device_of(self._data)

    @property
    def data(self) -> Array:
        """The array; read-only (NumPy) if computed. Assigning writes into a leaf's array.

        A write such as ``p.data[0] = 7`` is not noticed by the graph: assign to ``p.data`` instead.
        """
        if self._version is not None and self.is_leaf:
            return self._data
        view = self._data.view()
        if isinstance(view, np.ndarray):
            view.flags.writeable = False
        return view

    @data.setter
    def data(self, value: Any) -> None:
        if self._version is None or not self.is_leaf:
            raise GraphError(
                "data: this tensor was computed; only those made by tinygrad_rnn.tensor and the "
                "like can be written"
            )
        array = backend.asarray(value._data if isinstance(value, Tensor) else value)
        if array.shape != self.shape:
            raise ShapeError(
                f"data: array of shape {array.shape} assigned to a tensor of shape {self.shape}"
            )
        self._write("data", ..., array)

    def _write(self, name: str, key: Any, array: Array) -> None:
        """Write into the array, for the operation `name`, and update the version."""
        if array.dtype.kind == "f" and self.dtype.kind != "f":
            raise DTypeError(f"{name}: {array.dtype} assigned to {self.dtype} would lose fractions")
        try:
            with backend.computing_on(self.device):
                self._data[key] = backend.to_device(array, self.device)
        except ValueError as error:  # the shapes do not broadcast, or the memory is read-only
            raise ShapeError(f"{name}: {array.shape} into {self.shape}: {error}") from error
        self._bump()

    def _bump(self) -> None:
        """Update the version after a write: graphs that saved the array refuse to go backward."""
        if self._version is not None:
            self._version[0] = last_write[0] = tick()

    def _rebind(self, array: Array) -> None:
        """Replace the array by one of any dtype or device; the gradient is dropped.

        A computed tensor becomes a leaf without requires_grad; its former graph is not changed.
        """
        requires_grad = self.requires_grad and self.is_leaf
        self._data, self._version, self._node, self._leaf = array, [0], None, None
        self.requires_grad = requires_grad

    # -- the graph

    @property
    def is_leaf(self) -> bool:
        """Whether it is not the result of a recorded operation."""
        return self._node is None or isinstance(self._node, Leaf)

    @property
    def requires_grad(self) -> bool:
        """Whether operations on it are recorded; can be set on a leaf.

        A leaf that is switched off and on again remains the same leaf of graphs recorded before.
        Its gradient is kept, and accumulates only while it is switched on.
        """
        return self._node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if not self.is_leaf:
            raise GraphError(
                "requires_grad: this tensor was computed from others; use detach() for one "
                "without a graph"
            )
        if value and self.dtype.kind != "f":
            raise DTypeError(
                f"requires_grad: only floating tensors have gradients, this one is {self.dtype}"
            )
        leaf: Leaf | None = getattr(self, "_leaf", None)
        if value and leaf is None:
            if self._version is None:  # a graph may have saved the array; a leaf is writable
                self._data, self._version = backend.copy(self._data), [0]
            self._leaf = leaf = Leaf(self.shape, self.dtype, self._version)
        if leaf is not None:
            leaf.on, self._node = bool(value), leaf if value else None

    @property
    def grad(self) -> Tensor | None:
        """The gradient of this leaf that `backward` accumulated, or None."""
        return getattr(getattr(self, "_leaf", None), "grad", None)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        leaf = getattr(self, "_leaf", None)
        if value is not None:
            if leaf is None:
                raise GraphError("grad: only a leaf with requires_grad keeps a gradient")
            kind = self.shape, self.dtype
            if not isinstance(value, Tensor) or (value.shape, value.dtype) != kind:
                raise ShapeError(
                    f"grad: a Tensor of shape {self.shape} and dtype {self.dtype} is needed"
                    f"{foreign_array_hint(value)}"
                )
            if value.device != self.device:
                raise DeviceError(f"grad: on {value.device}, the tensor on {self.device}")
            value = wrap(backend.copy(value._data), None, [0])
        if leaf is not None:
            leaf.grad = value

    def detach(self) -> Tensor:
        """Return a tensor that shares the memory, without the graph."""
        return wrap(self._data, None, self._version)

    # -- values, copies

    def numpy(self) -> np.ndarray[Any, Any]:
        """Return a copy of the values as a NumPy array, from any device."""
        return np.array(backend.to_numpy(self._data))

    def item(self) -> Any:
        """Return the one element as a Python number."""
        return self._number("item()")

    def _number(
        self, caller: str, cure: str = "reduce it (.mean(), .sum()) or use .numpy()"
    ) -> Any:
        if self.size != 1:
            raise ShapeError(
                f"{caller}: the tensor has {self.size} elements, shape {self.shape}: {cure}"
            )
        return self._data.item() if type(self._data) is np.ndarray else gpu.item(self._data)

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

    def __copy__(self) -> Self:
        if self.is_leaf:
            return self._copied()
        copy = object.__new__(type(self))  # the array is read-only: shared
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
        """Return a leaf with a copy of the array."""
        copy = object.__new__(type(self))
        copy._data, copy._version, copy._node = backend.copy(self._data), [0], None
        copy.requires_grad = self.requires_grad
        return copy

    def __reduce__(self) -> Any:
        if not self.is_leaf:
            raise GraphError("pickling a computed tensor: detach() it first")
        return type(self), (self.numpy(), None, self.device, self.requires_grad)

    if TYPE_CHECKING:  # attached by tensors/methods.py and by autograd.py
        T: property
        __array_priority__: float

        def _attached(self, *args: Any, **options: Any) -> Tensor: ...
        @staticmethod
        def _stacked(x: Any) -> Any: ...
        def backward(self, grad: Any = None, retain_graph: bool = False) -> None: ...  # noqa: D102
        def split(self, *args: Any, **options: Any) -> list[Tensor]: ...  # noqa: D102
        def __iter__(self) -> Iterator[Tensor]: ...
        def __len__(self) -> int: ...
        def __bool__(self) -> bool: ...
        def __float__(self) -> float: ...

        unbind, __int__, __index__ = split, __len__, __len__
        __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _attached  # type: ignore[assignment]
        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __neg__ = _attached
        __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _attached
        __pow__ = __rpow__ = __matmul__ = __rmatmul__ = __abs__ = __pos__ = _attached
        __getitem__ = to = astype = reshape = transpose = broadcast_to = _attached
        abs = sign = exp = expm1 = log = log1p = sqrt = sin = cos = tanh = sigmoid = _attached
        relu = softplus = clip = maximum = minimum = sum = mean = var = std = max = _attached
        min = prod = cumsum = logsumexp = argmax = argmin = softmax = log_softmax = _attached
        swapaxes = moveaxis = squeeze = expand_dims = flip = _attached
        take = take_along_axis = _attached


def wrap(data: Array, node: Node | None, version: list[int] | None) -> Tensor:
    """Return the Tensor of an array."""
    tensor = object.__new__(Tensor)
    tensor._data, tensor._node, tensor._version = data, node, version
    return tensor
