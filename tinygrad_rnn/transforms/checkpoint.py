"""Recompute instead of remember (Chen et al. 2016): memory for one extra forward pass."""

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
from ..engine.codegen import SECOND_TIME, OpNode
from ..engine.grad_mode import enable_grad, thread
from ..engine.graph import Leaf, Node, OutputNode, Parents, reachable, run, tick
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
    """The node of a function whose inside is not kept: its parents are the tensors it reads."""

    __slots__ = ("args", "drawn", "function", "results", "versions")
    name = "checkpoint"
    function: Callable[..., Any] | None
    args: tuple[Any, ...]
    drawn: Any  # the generators that it draws from, with their states before
    results: list[Any]  # arrays that whatever comes next holds anyway
    versions: list[list[int]]  # of the memory that the function is known to read

    def vjp(self, F: Any, grad: OutputGradients, parents: Parents, retain: bool) -> list[Any]:
        """Run the function again with the same random numbers, and walk the graph it leaves."""
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


def _read(node: Node) -> list[list[int]]:
    """Return the version of the leaf that a node is, or is a view of."""
    viewed: Node | None = node
    while isinstance(viewed, OpNode) and viewed.definition.view:
        viewed = viewed.parents[0]
    return [viewed.version] if isinstance(viewed, Leaf) else []


def _outside(outputs: list[Tensor], since: int) -> dict[Node, None]:
    """Return the nodes older than `since` that outputs were computed from, each once, in order."""
    ends = [y._node for y in outputs if y._node is not None]
    outside = dict.fromkeys(end for end in ends if end.order < since)
    for node in reachable(ends, since):
        if node.order >= since:
            outside.update((p, None) for p in node.parents if p is not None and p.order < since)
    return outside


def _tensors(result: Any) -> list[Tensor]:
    """Return the Tensors in what a function returned."""
    found = [x for x in leaves(result) if x is not None]
    for x in found:
        if not isinstance(x, Tensor):
            raise DTypeError(
                "checkpoint: the function returns a Tensor, or tuples, lists and dicts of Tensors "
                f"and None, got a {class_name(x)}"
            )
    return found


def _same(arrays: list[Any], before: list[Any]) -> bool:
    """Tell whether arrays are equal to those before; nan is nan. The host waits once a device."""
    if [(x.shape, x.dtype) for x in arrays] != [(x.shape, x.dtype) for x in before]:
        return False
    counts: dict[str, Any] = {}  # of the elements that differ, for each device
    for x, y in zip(arrays, before, strict=True):
        if x is y:  # an outer tensor as it is, or a symbol, while a fused function is traced
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


def _fixed(argument: Any) -> Any:
    """Return an argument with copies of the arrays in it, which cannot be written to on the CPU."""
    own = copy_arrays(backend.modules, argument)
    for x in leaves(own) if own is not argument else ():
        if isinstance(x, np.ndarray):
            x.flags.writeable = False
    return own


@explain_errors
def checkpoint(fn: Callable[..., Any], *args: Any) -> Any:
    """Call ``fn(*args)`` without keeping what it computes; the backward pass computes it again.

    Parameters
    ----------
    fn : callable
        Takes `args`, may read other tensors (parameters), and returns Tensors: one, or tuples
        (also named ones), lists and dicts of Tensors and None. It is called again in the backward
        pass and must do the same then. Random numbers that the library draws are the same again,
        from its own generator and from those given as ``rng=``.
    *args
        Handed to `fn`. Arrays among them are handed on as copies that cannot be written to, so
        that the user may fill them anew before the backward pass.

    Returns
    -------
    Tensor or structure of Tensors
        What `fn` returned.

    Raises
    ------
    GraphError
        In the backward pass, if `fn` does not do the same again: if a tensor that it is known to
        read was changed in place, its results are not equal to those of the forward pass (to the
        bit; nan is equal to nan), or it reads other tensors that require grad. Among the causes
        are a loop variable or an array of an enclosing function that changed, ``train()`` or
        ``eval()`` in between, and a generator that `fn` draws from itself.
    DTypeError
        If `fn` returns anything else.

    Notes
    -----
    Memory is exchanged for one more forward pass (Chen, Xu, Zhang and Guestrin 2016,
    arXiv:1604.06174).

    What is compared are the results. A change that leaves all of them as they were, such as that
    of a Python number in a term that is multiplied by 0, is not noticed, and the gradient is that
    of the function as it is in the backward pass. On a GPU the comparison makes the host wait for
    the device once for each checkpoint.

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
    args, since = tuple([_fixed(x) for x in args]), tick()
    with _random.record_states() as drawn:
        result = fn(*args)
    outputs = _tensors(result)
    if not any(y._node for y in outputs):
        return result
    outside = _outside(outputs, since)
    whole = Checkpoint(tuple(outside), (), None)
    whole.function, whole.args, whole.drawn = fn, args, drawn
    versions = [x._version for x in leaves(args) if isinstance(x, Tensor)]
    versions += [version for node in outside for version in _read(node)]
    whole.versions = [version for version in versions if version is not None]
    whole.results = [y._data for y in outputs]
    numbers = itertools.count()

    def kept(y: Any) -> Any:
        if y is None:
            return None
        piece = OutputNode(whole, next(numbers), y.shape, y.dtype)
        return wrap(y._data, None if y._node is None else piece, y._version)

    return map_nested(kept, result)
