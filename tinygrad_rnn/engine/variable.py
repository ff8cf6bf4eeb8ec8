"""Variable: an array with a place in the graph, and the gradients of it.

What a user holds is a `Tensor`, a Variable that speaks NumPy (``tinygrad_rnn.tensors``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..errors import DeviceError, DTypeError, GraphError, ShapeError
from ..spelling import explained, foreign
from . import backend
from .backend import Array, DType
from .graph import Leaf, Node, last_write, run, tick
from .primitive import make, namespaces

if TYPE_CHECKING:
    from ..tensors.tensor import Tensor


class Variable:
    """An array with a place in the graph.

    If ``requires_grad``, operations on it are recorded, and `backward` fills `grad`.
    """

    __slots__ = ("__weakref__", "_data", "_leaf", "_node", "_version")

    _data: Array
    _leaf: Leaf | None  # set once it required a gradient: graphs that were recorded then know it
    _node: Node | None  # its place in the graph
    _version: list[int] | None  # when it was last written to; shared with views; None: never

    def __init__(
        self, data: Any, dtype: DType = None, device: str | None = None, requires_grad: bool = False
    ) -> None:
        source = data._data if isinstance(data, Variable) else data
        given = backend.is_array(source)
        array = backend.asarray(source, dtype)
        if device is not None or not given:  # an array stays where it is unless told otherwise
            array = backend.to_device(array, device)
        self._data, self._version, self._node = backend.copy(array) if given else array, [0], None
        self.requires_grad = requires_grad

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self._data.shape

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
        array = backend.asarray(value._data if isinstance(value, Variable) else value)
        if array.shape != self.shape:
            raise ShapeError(
                f"data: array of shape {array.shape} assigned to a tensor of shape {self.shape}"
            )
        self._write("data", ..., array)

    def _write(self, name: str, key: Any, array: Array) -> None:
        """Write into the array, for the operation of that name, and note it."""
        if array.dtype.kind == "f" and self.dtype.kind != "f":
            raise DTypeError(f"{name}: {array.dtype} assigned to {self.dtype} would lose fractions")
        try:
            self._data[key] = backend.to_device(array, self.device)
        except ValueError as error:  # it does not fit, or the memory is read-only
            raise ShapeError(f"{name}: {array.shape} into {self.shape}: {error}") from error
        self._bump()

    def _bump(self) -> None:
        """Note that the array was written to: what saved it before will refuse to go backward."""
        if self._version is not None:
            self._version[0] = last_write[0] = tick()

    def _rebind(self, array: Array) -> None:
        """Give this tensor another array, of any dtype or device; its gradient is dropped.

        A computed one becomes a leaf that does not require a gradient; its graph is as it was.
        """
        requires_grad = self.requires_grad and self.is_leaf
        self._data, self._version, self._node, self._leaf = array, [0], None, None
        self.requires_grad = requires_grad

    # -- the graph

    @property
    def is_leaf(self) -> bool:
        """Whether nothing recorded led to it."""
        return self._node is None or isinstance(self._node, Leaf)

    @property
    def requires_grad(self) -> bool:
        """Whether operations on it are recorded; can be set on a leaf.

        A leaf that is switched off and on again is the same leaf to graphs that were recorded
        before. Its gradient stays, and grows only while it is switched on.
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
            if self._version is None:  # a graph may have saved this memory; a leaf is written to
                self._data, self._version = backend.copy(self._data), [0]
            self._leaf = leaf = Leaf(self.shape, self.dtype, self._version)
        if leaf is not None:
            leaf.on, self._node = bool(value), leaf if value else None

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` left at this leaf, or None."""
        return getattr(getattr(self, "_leaf", None), "grad", None)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        leaf = getattr(self, "_leaf", None)
        if value is not None:
            if leaf is None:
                raise GraphError("grad: only a leaf with requires_grad keeps a gradient")
            kind = self.shape, self.dtype
            if not isinstance(value, Variable) or (value.shape, value.dtype) != kind:
                raise ShapeError(
                    f"grad: a Tensor of shape {self.shape} and dtype {self.dtype} is needed"
                    f"{foreign(value)}"
                )
            if value.device != self.device:
                raise DeviceError(f"grad: on {value.device}, the tensor on {self.device}")
            value = make(backend.copy(value._data), None, [0])
        if leaf is not None:
            leaf.grad = value

    @explained
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
        results = run(_roots([self], [grad], create_graph=False), namespaces, retain=retain_graph)
        for leaf, (array, fresh) in results.items():
            if not leaf.on:  # type: ignore[attr-defined]
                continue
            # A gradient that somebody else may hold (two leaves of one sum, a broadcast view) is
            # copied before it is kept.
            own = array if fresh and array.__class__ in backend.modules else backend.copy(array)
            held = leaf.grad  # type: ignore[attr-defined]
            if held is not None:  # NumPy gives a scalar for the sum of 0-d arrays
                own = backend.asarray(held._data + own)
            leaf.grad = make(own, None, [0])  # type: ignore[attr-defined]

    def detach(self) -> Self:
        """Return a tensor of the same memory without the graph."""
        return make(self._data, None, self._version)


# -- derivatives -----------------------------------------------------------------------------------


def _many(tensors: Any) -> bool:
    return hasattr(tensors, "__iter__") and not hasattr(tensors, "shape")


def _roots(
    outputs: Sequence[Variable], grads: Sequence[Any], create_graph: bool
) -> list[tuple[Node, Any]]:
    """Return where a pass starts, with the gradients to start from, both checked."""
    roots = []
    for output, grad in zip(outputs, grads, strict=True):
        if not isinstance(output, Variable) or output._node is None:
            raise GraphError(
                f"backward from a value without a graph{foreign(output)}: nothing it was computed "
                "from has requires_grad=True, or it was computed under no_grad() or detached"
            )
        if grad is None:
            if output._data.size != 1:
                raise GraphError(
                    f"backward from a tensor of shape {output.shape}: pass a gradient of that "
                    "shape, or reduce it (.sum(), .mean())"
                )
            grad = make(backend.full(output.shape, 1, output.dtype, output._data), None, None)
        elif not isinstance(grad, Variable):
            grad = make(Variable(grad, output.dtype, output.device)._data, None, None)
        if grad.shape != output.shape:
            raise ShapeError(
                f"the gradient to start from has shape {grad.shape}, the output {output.shape}"
            )
        if grad.device != output.device:
            raise DeviceError(
                f"the gradient to start from is on {grad.device}, the output on {output.device}"
            )
        roots.append((output._node, grad if create_graph else grad._data))
    return roots


@explained
def grad(
    outputs: Variable | Sequence[Variable],
    inputs: Variable | Sequence[Variable],
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
        What to start from, one for each output, of its shape (of a single output also without a
        sequence around it); 1 for outputs of one element.
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
    several = _many(inputs)
    wanted: list[Any] = list(inputs) if several else [inputs]  # type: ignore[arg-type]
    ends: list[Any] = list(outputs) if _many(outputs) else [outputs]  # type: ignore[arg-type]
    one = [getattr(grad_outputs, "shape", None)] == [getattr(end, "shape", ()) for end in ends]
    starts = [grad_outputs] if one or not _many(outputs) else grad_outputs
    try:
        starts = [None] * len(ends) if starts is None else list(starts)
    except TypeError:
        raise ShapeError(f"grad: one of grad_outputs for each of {len(ends)} outputs") from None
    if len(starts) != len(ends):
        raise ShapeError(f"grad: {len(starts)} grad_outputs for {len(ends)} outputs")
    for i, tensor in enumerate(wanted):
        if not isinstance(tensor, Variable) or tensor._node is None:
            raise GraphError(
                f"grad: input {i} does not require grad{foreign(tensor)}: make it with "
                "requires_grad=True before computing"
            )
    retain = create_graph if retain_graph is None else retain_graph
    nodes: list[Any] = [tensor._node for tensor in wanted]
    results = run(_roots(ends, starts, create_graph), namespaces, wanted=set(nodes), retain=retain)
    missing = [i for i, node in enumerate(nodes) if node not in results]
    if missing and not allow_unused:
        raise GraphError(
            f"grad: the outputs do not depend on input {missing[0]}; pass allow_unused=True to "
            "get None for it"
        )
    gradients = [results[node][0] if node in results else None for node in nodes]
    if not create_graph:
        gradients = [None if g is None else make(backend.copy(g), None, [0]) for g in gradients]
    return tuple(gradients) if several else gradients[0]
