"""Tensor: an array with a place in the graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np

from ..errors import ArgumentError, DeviceError, DTypeError, GraphError, ShapeError
from ..spelling import OTHER_NAMES
from . import backend, ops
from .backend import Array, DType
from .graph import Edge, Leaf, clock, last_write, run
from .primitive import bind, namespace


def axes_or_shape(shape: tuple[Any, ...]) -> Any:
    """Return a shape or a list of axes given either as one tuple or as several integers."""
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape


class Tensor:
    """An array with a place in the graph; made by `tinygrad_rnn.tensor` and the other constructors.

    Arithmetic, methods and indexing follow NumPy; every one that computes is also a function of the
    package, where it is documented. If ``requires_grad``, operations on it are recorded, and
    `backward` fills `grad`.
    """

    __slots__ = ("__weakref__", "_data", "_edge", "_version")
    __array_priority__ = 1000.0
    __hash__ = object.__hash__

    _data: Array
    _edge: Edge | None  # its place in the graph: a node and the number of the node's output
    _version: (
        list[int] | None
    )  # when it was last written to; shared with views and detach(); None: never

    def __init__(
        self, data: Any, dtype: DType = None, device: str | None = None, requires_grad: bool = False
    ) -> None:
        source = data._data if isinstance(data, Tensor) else data
        given = backend.is_array(source)
        array = backend.asarray(source, dtype)
        if device is not None or not given:  # an array stays where it is unless told otherwise
            array = backend.to_device(array, device)
        self._data = backend.copy(array) if given else array
        self._version = [0]
        self._edge = None
        self.requires_grad = requires_grad

    @staticmethod
    def _make(data: Array, edge: Edge | None, version: list[int] | None) -> Tensor:
        tensor = _new(Tensor)
        tensor._data = data
        tensor._edge = edge
        tensor._version = version
        return tensor

    # -- what it is

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
    def T(self) -> Tensor:
        """The tensor with its axes reversed."""
        return ops.transpose(self)

    @property
    def data(self) -> Array:
        """The array; read-only (NumPy) if computed. Assigning writes into a leaf's array.

        A write such as ``p.data[0] = 7`` cannot be seen by the graph: assign to ``p.data`` instead.
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
        self._data[...] = backend.to_device(array, self.device)
        self._bump()

    def _bump(self) -> None:
        """Note that the array was written to: what saved it before will refuse to go backward."""
        if self._version is not None:
            self._version[0] = last_write[0] = next(clock)

    def _rebind(self, array: Array) -> None:
        """Give a leaf another array, of any dtype or device; its gradient is dropped."""
        requires_grad = self.requires_grad
        self._data, self._version, self._edge = array, [0], None
        self.requires_grad = requires_grad

    # -- the graph

    @property
    def is_leaf(self) -> bool:
        """Whether nothing recorded led to it."""
        return self._edge is None or isinstance(self._edge[0], Leaf)

    @property
    def requires_grad(self) -> bool:
        """Whether operations on it are recorded; can be set on a leaf."""
        return self._edge is not None

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
        if value and self._edge is None:
            self._version = self._version if self._version is not None else [0]
            self._edge = (Leaf((self.shape, self.dtype), self._version), 0)
        elif not value:
            self._edge = None

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` left at this leaf, or None."""
        return (
            self._edge[0].grad
            if self._edge is not None and isinstance(self._edge[0], Leaf)
            else None
        )

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if self._edge is None or not isinstance(self._edge[0], Leaf):
            raise GraphError("grad: only a leaf with requires_grad keeps a gradient")
        if value is not None:
            if not isinstance(value, Tensor) or (value.shape, value.dtype) != (
                self.shape,
                self.dtype,
            ):
                raise ShapeError(
                    f"grad: a Tensor of shape {self.shape} and dtype {self.dtype} is needed"
                )
            if value.device != self.device:
                raise DeviceError(f"grad: on {value.device}, the tensor on {self.device}")
            value = Tensor(value._data)
        self._edge[0].grad = value

    def backward(self, grad: Any = None, retain_graph: bool = False) -> None:
        """Add the gradient of this tensor to the ``.grad`` of every leaf that it was computed from.

        Parameters
        ----------
        grad : Tensor or array, optional
            What to start from, of this tensor's shape; 1 if the tensor has one element.
        retain_graph : bool
            Keep what was saved, so that the graph can be walked again.

        Raises
        ------
        GraphError
            If the tensor has no graph, the graph was freed, or a saved value was changed in place
            since.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
        >>> (x * x).sum().backward()
        >>> x.grad
        tensor([2., 4.])
        """
        results = run(_roots([self], [grad], create_graph=False), namespace, retain=retain_graph)
        for (leaf, _), (array, fresh) in results.items():
            # A gradient that somebody else may hold (two leaves of one sum, a broadcast view) is
            # copied before it is kept.
            own = array if fresh and array.__class__ in backend.modules else backend.copy(array)
            leaf.grad = Tensor._make(own if leaf.grad is None else leaf.grad._data + own, None, [0])  # type: ignore[attr-defined]

    def detach(self) -> Tensor:
        """Return a tensor of the same memory without the graph."""
        return Tensor._make(self._data, None, self._version)

    # -- getting values out

    def numpy(self) -> np.ndarray[Any, Any]:
        """Return the values as a NumPy array of their own, from any device."""
        return np.array(backend.to_numpy(self._data))

    def item(self) -> Any:
        """Return the one element as a Python number."""
        if self.size != 1:
            raise ShapeError(f"item(): the tensor has {self.size} elements, shape {self.shape}")
        return self._data.item()

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
        try:
            dtype = np.dtype(dtype) if dtype is not None else np.dtype("O")
        except TypeError:
            raise DTypeError(f"{dtype!r} is neither a device nor a dtype") from None
        if dtype.kind not in "fiub":
            raise DTypeError(f"astype: a real or boolean dtype is needed, got {dtype}")
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
        if self._edge is not None:
            notes.append(
                "requires_grad=True" if self.is_leaf else f"grad_fn=<{self._edge[0].name}>"
            )
        return f"tensor({', '.join([body, *notes])})"

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
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return operator.index(self.item())

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).numpy().any())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        if not self.is_leaf:
            raise GraphError("deepcopy of a computed tensor: copy leaves, or detach() it first")
        copy = _new(type(self))
        copy._data, copy._version, copy._edge = backend.copy(self._data), [0], None
        copy.requires_grad = self.requires_grad
        if self.grad is not None:
            copy.grad = self.grad
        memo[id(self)] = copy
        return copy

    def __reduce__(self) -> Any:
        if not self.is_leaf:
            raise GraphError("pickling a computed tensor: detach() it first")
        return type(self), (self.numpy(), None, None, self.requires_grad)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise GraphError(
            "tensors are not assigned to by parts: build the result with tinygrad_rnn.stack, "
            "concatenate or where"
        )

    def __getattr__(self, name: str) -> Any:
        ours = OTHER_NAMES.get(name)
        hint = f"; here it is {ours}" if ours else ""
        raise AttributeError(f"Tensor has no attribute {name!r}{hint}")

    # -- arithmetic

    __add__ = __radd__ = ops.add
    __mul__ = __rmul__ = ops.multiply
    __sub__ = ops.subtract
    __truediv__ = ops.divide
    __pow__ = ops.power
    __matmul__ = ops.matmul
    __neg__ = ops.negative
    __abs__ = ops.abs
    __eq__ = ops.equal  # type: ignore[assignment]
    __ne__ = ops.not_equal  # type: ignore[assignment]
    __lt__, __le__, __gt__, __ge__ = ops.less, ops.less_equal, ops.greater, ops.greater_equal
    __getitem__ = ops.getitem

    def __rsub__(self, other: Any) -> Tensor:
        return ops.subtract(other, self)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.divide(other, self)

    def __rpow__(self, other: Any) -> Tensor:
        return ops.power(other, self)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self)

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

    def reshape(self, *shape: Any) -> Tensor:
        """Return this tensor in another shape, a tuple or integers; one length may be -1."""
        return ops.reshape(self, shape=axes_or_shape(shape))

    def transpose(self, *axes: Any) -> Tensor:
        """Return this tensor with its axes in another order (none given: reversed)."""
        return ops.transpose(self, None if axes in ((), (None,)) else axes_or_shape(axes))

    def broadcast_to(self, *shape: Any) -> Tensor:
        """Return this tensor stretched to a shape."""
        return ops.broadcast_to(self, shape=axes_or_shape(shape))

    # -- NumPy's protocols: the gradient is kept, or a clear error is raised

    def __array__(self, dtype: DType = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if self.requires_grad:
            raise GraphError(
                "a tensor that requires grad is not turned into an array in silence: use "
                ".detach() or .numpy()"
            )
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Tensor:
        ours = _UFUNCS.get(ufunc.__name__)
        if method != "__call__" or ours is None or keywords:
            what = f"numpy.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
            cure = (
                f"use tinygrad_rnn.{ours.__name__}"
                if ours
                else "use .numpy() if no gradient is wanted"
            )
            raise TypeError(
                f"{what}({', '.join(keywords)}) on a Tensor would lose its graph: {cure}"
            )
        return ours(*inputs)

    def __array_function__(
        self, function: Any, types: Any, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        if function in (np.shape, np.ndim, np.size) and len(args) == 1 and not keywords:
            return getattr(args[0], function.__name__)
        ours = getattr(ops, function.__name__, None)
        if not callable(ours):
            raise TypeError(
                f"numpy.{function.__name__} on a Tensor would lose its graph: use .numpy() if no "
                "gradient is wanted"
            )
        return ours(*args, **keywords)

    def __dlpack__(self, **keywords: Any) -> Any:
        if self.requires_grad:
            raise BufferError("a tensor that requires grad is not exported: use .detach()")
        return self._data.__dlpack__(**keywords)

    def __dlpack_device__(self) -> Any:
        return self._data.__dlpack_device__()


_new: Callable[..., Any] = object.__new__
_NUMPY_NAMES = {"true_divide": "divide", "absolute": "abs", "power": "power"}
_UFUNCS: dict[str, Any] = {
    name: getattr(ops, _NUMPY_NAMES.get(name, name), None)
    for name in (
        *_NUMPY_NAMES,
        *(name for name in dir(np) if isinstance(getattr(np, name), np.ufunc)),
    )
}
bind(Tensor, Tensor._make)


# -- derivatives -----------------------------------------------------------------------------------


def _roots(
    outputs: Sequence[Tensor], grads: Sequence[Any], create_graph: bool
) -> list[tuple[Edge, Any]]:
    """Return where a pass starts, with the gradients to start from, both checked."""
    roots = []
    for output, grad in zip(outputs, grads, strict=True):
        if not isinstance(output, Tensor) or output._edge is None:
            raise GraphError(
                "backward from a value without a graph: nothing it was computed from has "
                "requires_grad=True, "
                "or it was computed under no_grad() or detached"
            )
        if grad is None:
            if output.size != 1:
                raise GraphError(
                    f"backward from a tensor of shape {output.shape}: pass a gradient of that "
                    "shape, or reduce it (.sum(), .mean())"
                )
            grad = Tensor._make(
                backend.full(output.shape, 1, output.dtype, like=output._data), None, None
            )
        elif not isinstance(grad, Tensor):
            grad = Tensor(grad, dtype=output.dtype, device=output.device)
        if grad.shape != output.shape:
            raise ShapeError(
                f"the gradient to start from has shape {grad.shape}, the output {output.shape}"
            )
        if grad.device != output.device:
            raise DeviceError(
                f"the gradient to start from is on {grad.device}, the output on {output.device}"
            )
        roots.append((output._edge, grad if create_graph else grad._data))
    return roots


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> Any:
    """Return the gradient of `outputs` by `inputs`; no ``.grad`` is written.

    Parameters
    ----------
    outputs, inputs : Tensor or sequence of Tensors
        Inputs may be leaves or computed.
    grad_outputs : Tensor or sequence, optional
        What to start from, one for each output, of its shape; 1 for outputs of one element.
    retain_graph : bool, optional
        Keep what was saved; what `create_graph` says, if not given.
    create_graph : bool
        Record the gradient's own graph, so that it can be differentiated again.
    allow_unused : bool
        Return None for an input that the outputs do not depend on, instead of raising.

    Returns
    -------
    Tensor or tuple of Tensors
        One gradient for each input, of its shape and dtype; a tuple if `inputs` is a sequence.

    Raises
    ------
    GraphError
        If an input is not part of the graph (unless `allow_unused`), or the graph was freed.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor(2.0, requires_grad=True)
    >>> first = tg.grad(x**3, x, create_graph=True)
    >>> tg.grad(first, x)
    tensor(12.)
    """
    several = not isinstance(inputs, Tensor)
    wanted: list[Tensor] = list(inputs) if several else [inputs]  # type: ignore[list-item]
    ends = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    starts = [grad_outputs] if isinstance(outputs, Tensor) else grad_outputs or [None] * len(ends)
    for i, tensor in enumerate(wanted):
        if not isinstance(tensor, Tensor) or tensor._edge is None:
            raise GraphError(
                f"grad: input {i} does not require grad: make it with requires_grad=True before "
                "computing"
            )
    retain = create_graph if retain_graph is None else retain_graph
    edges: list[Any] = [tensor._edge for tensor in wanted]
    results = run(_roots(ends, starts, create_graph), namespace, wanted=edges, retain=retain)
    missing = [i for i, edge in enumerate(edges) if edge not in results]
    if missing and not allow_unused:
        raise GraphError(
            f"grad: the outputs do not depend on input {missing[0]}; pass allow_unused=True to "
            "get None for it"
        )
    gradients = [results[edge][0] if edge in results else None for edge in edges]
    if not create_graph:
        gradients = [
            None if g is None else Tensor._make(backend.copy(g), None, [0]) for g in gradients
        ]
    return tuple(gradients) if several else gradients[0]


# -- constructors ----------------------------------------------------------------------------------


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
    return Tensor(data, dtype, device, requires_grad)
