"""Backward: the gradient of outputs by leaves (`backward`) or by given inputs (`grad`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._util.api_hints import explain_errors, foreign_array_hint
from ..errors import DeviceError, GraphError, ShapeError
from . import backend
from .backward_pass import run
from .graph import Node
from .namespaces import namespaces
from .tensor import Tensor, wrap


@explain_errors
def backward(self: Tensor, grad: Any = None, retain_graph: bool = False) -> None:
    """Add the gradient of this tensor to the ``.grad`` of every leaf that it was computed from.

    Parameters
    ----------
    grad : Tensor or array, optional
        The gradient of this tensor, of its shape. Default: 1 for a tensor of one element.
    retain_graph : bool
        Keep the saved values, so that the graph can be differentiated again.

    Raises
    ------
    GraphError
        If the tensor has no graph, the graph was freed, or a saved value was changed in place.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4.])
    """
    results = run(_roots([self], [grad], create_graph=False), namespaces, retain=retain_graph)
    for leaf, (array, unshared) in results.items():
        if not leaf.on:  # type: ignore[attr-defined]
            continue
        # A gradient whose memory may be shared (two leaves of one sum, a broadcast view) is copied.
        own = array if unshared and array.__class__ in backend.modules else backend.copy(array)
        previous = leaf.grad  # type: ignore[attr-defined]
        if previous is not None:  # NumPy gives a scalar for the sum of 0-d arrays
            own = backend.asarray(previous._data + own)
        leaf.grad = wrap(own, None, [0])  # type: ignore[attr-defined]


backward.__qualname__ = "Tensor.backward"
Tensor.backward = backward  # type: ignore[method-assign]


def _many(tensors: Any) -> bool:
    return hasattr(tensors, "__iter__") and not hasattr(tensors, "shape")


def _roots(
    outputs: Sequence[Tensor], grads: Sequence[Any], create_graph: bool
) -> list[tuple[Node, Any]]:
    """Return the nodes of the outputs with their gradients, after validation."""
    roots = []
    for output, grad in zip(outputs, grads, strict=True):
        if not isinstance(output, Tensor) or output._node is None:
            raise GraphError(
                f"backward from a value without a graph{foreign_array_hint(output)}: nothing it "
                "was computed from has requires_grad=True, or it was computed under no_grad() or "
                "detached"
            )
        backend.check_devices([output._data], "backward")
        if grad is None:
            if output._data.size != 1:
                raise GraphError(
                    f"backward from a tensor of shape {output.shape}: pass a gradient of that "
                    "shape, or reduce it (.sum(), .mean())"
                )
            grad = wrap(backend.full(output.shape, 1, output.dtype, output._data), None, None)
        elif not isinstance(grad, Tensor):
            grad = wrap(Tensor(grad, output.dtype, output.device)._data, None, None)
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


@explain_errors
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
        The gradient of each output, of its shape; for a single output also without a sequence.
        Default: 1 for outputs of one element.
    retain_graph : bool, optional
        Keep the saved values. Default: the value of `create_graph`.
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
    wanted: list[Any] = list(inputs) if several else [inputs]
    ends: list[Any] = list(outputs) if _many(outputs) else [outputs]
    one = [getattr(grad_outputs, "shape", None)] == [getattr(end, "shape", ()) for end in ends]
    starts = [grad_outputs] if one or not _many(outputs) else grad_outputs
    try:
        starts = [None] * len(ends) if starts is None else list(starts)
    except TypeError:
        raise ShapeError(f"grad: one of grad_outputs for each of {len(ends)} outputs") from None
    if len(starts) != len(ends):
        raise ShapeError(f"grad: {len(starts)} grad_outputs for {len(ends)} outputs")
    for i, tensor in enumerate(wanted):
        if not isinstance(tensor, Tensor) or tensor._node is None:
            raise GraphError(
                f"grad: input {i} does not require grad{foreign_array_hint(tensor)}: make it with "
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
        gradients = [None if g is None else wrap(backend.copy(g), None, [0]) for g in gradients]
    return tuple(gradients) if several else gradients[0]
