"""Gradient checkpointing (Chen et al. 2016): saves memory at the cost of one more forward pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import random as _random
from .._util.api_hints import class_name, explain_errors
from .._util.foreign_arrays import copy_arrays
from .._util.functions import check_function
from .._util.nested import leaves, map_nested
from ..engine import backend
from ..engine.backward_pass import run
from ..engine.codegen import SECOND_TIME, OpNode
from ..engine.grad_mode import enable_grad, thread
from ..engine.graph import Leaf, Node, OutputNode, Parents, reachable, tick
from ..engine.namespaces import namespaces
from ..engine.pending import OutputGradients
from ..engine.tensor import Tensor, wrap
from ..errors import DTypeError, GraphError

CHANGED = (
    "backward through checkpoint: {} than in the forward pass: something that the function reads "
    "was changed in place or replaced meanwhile (a tensor, an array, a loop variable, train() or "
    "eval(), requires_grad), or it draws random numbers other than by this library. Pass what "
    "changes as an argument, and call backward before it changes"
)


class Checkpoint(Node):
    """The node of a function whose graph is not kept; its parents are the tensors that it reads."""

    __slots__ = ("args", "drawn", "function", "results", "versions")
    name = "checkpoint"
    function: Callable[..., Any] | None
    args: tuple[Any, ...]
    drawn: Any  # the random generators that it used, with their states before
    results: list[Any]  # arrays, which the operations that follow keep in memory anyway
    versions: list[list[int]]  # of the tensors that it is known to read

    def vjp(self, F: Any, grad: OutputGradients, parents: Parents, retain: bool) -> list[Any]:
        """Run the function again with the same random numbers, and differentiate its graph."""
        if self.function is None:
            raise GraphError(
                f"backward through checkpoint a second time, after it was freed. {SECOND_TIME}"
            )
        if any(version[0] > self.order for version in self.versions):
            raise GraphError(
                "backward through checkpoint: a tensor that it reads was changed in place after "
                "the forward pass"
            )
        since = tick()
        with enable_grad(), _random.replay(self.drawn):
            outputs = _tensors(self.function(*self.args))
        if not _same([y._data for y in outputs], self.results):
            raise GraphError(CHANGED.format("the function returns something else"))
        if set(_outside(outputs, since)) != set(self.parents):
            raise GraphError(CHANGED.format("the function reads other tensors that require grad"))
        if not retain:
            self.function, self.args, self.results = None, (), []
        ends = [(outputs[i]._node, g) for i, g in grad.items()]
        roots = [(node, g) for node, g in ends if node is not None]
        wanted = {p for p in parents if p is not None}
        results = run(roots, namespaces, wanted, retain=F.records, since=since)
        return [results[p][0] if p in results else None for p in parents]


def _leaf_version(node: Node) -> list[list[int]]:
    """Return the version of a leaf, or of the leaf that a node is a view of."""
    viewed: Node | None = node
    while isinstance(viewed, OpNode) and viewed.definition.view:
        viewed = viewed.parents[0]
    return [viewed.version] if isinstance(viewed, Leaf) else []


def _outside(outputs: list[Tensor], since: int) -> dict[Node, None]:
    """Return the nodes older than `since` that outputs were computed from, in a fixed order."""
    ends = [y._node for y in outputs if y._node is not None]
    outside = dict.fromkeys(end for end in ends if end.order < since)
    for node in reachable(ends, since):
        if node.order >= since:
            outside.update((p, None) for p in node.parents if p is not None and p.order < since)
    return outside


def _tensors(result: Any) -> list[Tensor]:
    """Return the Tensors in the result of a function."""
    found = [x for x in leaves(result) if x is not None]
    for x in found:
        if not isinstance(x, Tensor):
            raise DTypeError(
                "checkpoint: the function returns a Tensor, or tuples, lists and dicts of Tensors "
                f"and None, got a {class_name(x)}"
            )
    return found


def _same(arrays: list[Any], before: list[Any]) -> bool:
    """Return whether arrays equal those before; nan equals nan. Synchronizes once per device."""
    if [(x.shape, x.dtype) for x in arrays] != [(x.shape, x.dtype) for x in before]:
        return False
    counts: dict[str, Any] = {}  # of the elements that differ, for each device
    for x, y in zip(arrays, before, strict=True):
        if x is y:  # an outer tensor, or a symbol while a fused function is traced
            continue
        device = backend.device_of(x)
        with backend.computing_on(device):
            differ = (x != y) & ((x == x) | (y == y)) if x.dtype.kind == "f" else x != y
            counts[device] = counts.get(device, 0) + backend.module_of(x).sum(differ)
    for device, count in counts.items():
        with backend.computing_on(device):
            if not (count == 0).item():
                return False
    return True


def _read_only(argument: Any) -> Any:
    """Return an argument with its arrays copied; on the CPU the copies are read-only."""
    own = copy_arrays(backend.modules, argument)
    for x in leaves(own) if own is not argument else ():
        if isinstance(x, np.ndarray):
            x.flags.writeable = False
    return own


@explain_errors
def checkpoint(fn: Callable[..., Any], *args: Any) -> Any:
    """Call ``fn(*args)`` without saving intermediate values; the backward pass recomputes them.

    Parameters
    ----------
    fn : callable
        Takes `args`, may read other tensors (parameters), and returns Tensors: one, or tuples
        (also named ones), lists and dicts of Tensors and None. The backward pass calls it again,
        and it must compute the same. Random numbers drawn by the library, from its own generator
        and from those passed as ``rng=``, are repeated.
    *args
        Arguments of `fn`. Arrays among them are passed as read-only copies, so that the user may
        change the originals before the backward pass.

    Returns
    -------
    Tensor or structure of Tensors
        The result of `fn`.

    Raises
    ------
    GraphError
        In the backward pass, if `fn` does not compute the same again: if a tensor that it is known
        to read was changed in place, if its results differ from those of the forward pass (bit for
        bit; nan equals nan), or if it reads other tensors that require grad. Possible causes: a
        changed loop variable or array of an enclosing function, a call of ``train()`` or
        ``eval()`` in between, a random generator that does not belong to the library.
    DTypeError
        If `fn` returns other types.

    Notes
    -----
    The method is that of Chen, Xu, Zhang and Guestrin (2016), arXiv:1604.06174.

    Only results are compared. A change that does not affect any result, such as that of a Python
    number in a term that is multiplied by 0, is not noticed; the gradient is then that of the
    changed function. On a GPU the host waits for the device once for each checkpoint.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> tg.checkpoint(lambda x: (x * x).exp(), x).sum().backward()
    >>> bool((x.grad == 2 * x * (x * x).exp()).numpy().all())
    True
    """
    check_function(fn, "checkpoint")
    if not thread.recording:
        result = fn(*args)
        _tensors(result)
        return result
    args, since = tuple([_read_only(x) for x in args]), tick()
    with _random.record_states() as drawn:
        result = fn(*args)
    outputs = _tensors(result)
    if not any(y._node for y in outputs):
        return result
    outside = _outside(outputs, since)
    whole = Checkpoint(tuple(outside), (), None)
    whole.function, whole.args, whole.drawn = fn, args, drawn
    versions = [x._version for x in leaves(args) if isinstance(x, Tensor)]
    versions += [version for node in outside for version in _leaf_version(node)]
    whole.versions = [version for version in versions if version is not None]
    whole.results = [y._data for y in outputs]
    numbers = itertools.count()

    def kept(y: Any) -> Any:
        if y is None:
            return None
        piece = OutputNode(whole, next(numbers), y.shape, y.dtype)
        return wrap(y._data, None if y._node is None else piece, y._version)

    return map_nested(kept, result)
