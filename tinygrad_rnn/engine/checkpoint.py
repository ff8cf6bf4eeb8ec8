"""Recompute instead of remember (Chen et al. 2016): memory for one extra forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import GraphError
from . import random as _random
from .graph import Edge, Gradient, Leaf, Node, Start, clock, enable_grad, mode, reachable, run
from .primitive import namespace
from .tensor import Tensor


class Checkpoint(Node):
    """The node of a function whose inside is not kept: its parents are the tensors it reads."""

    __slots__ = ("args", "function", "random_state")
    name = "checkpoint"
    function: Callable[..., Any] | None
    args: tuple[Any, ...]
    random_state: Any

    def pull(self, grads: Any, live: set[Node] | None, retain: bool) -> Sequence[Gradient]:
        """Run the function again with the same random numbers, and walk the graph it leaves."""
        if self.function is None:
            raise GraphError(
                "backward through checkpoint a second time: pass retain_graph=True the first time"
            )
        leaves = (
            edge[0] for edge in self.parents if edge is not None and isinstance(edge[0], Leaf)
        )
        if any(leaf.version[0] > self.order for leaf in leaves):
            raise GraphError(
                "backward through checkpoint: a tensor that it reads was changed in place after "
                "the forward pass"
            )
        after = _random.get_state()
        _random.set_state(self.random_state)
        since = next(clock)
        try:
            with enable_grad():
                outputs = _flat(self.function(*self.args))
        finally:
            _random.set_state(after)
        if not retain:
            self.function, self.args = None, ()
        grads = grads if isinstance(grads, list) else [grads]
        create_graph = any(isinstance(g, Tensor) for g in grads)
        roots = [
            (y._edge, g)
            for y, g in zip(outputs, grads, strict=True)
            if g is not None and y._edge is not None
        ]
        wanted = [
            edge for edge in self.parents if edge is not None and (live is None or edge[0] in live)
        ]
        results = run(roots, namespace, wanted=wanted, retain=create_graph, since=since)
        return [results[edge][0] if edge in results else None for edge in self.parents]


def _flat(value: Any) -> list[Tensor]:
    return list(value) if isinstance(value, tuple | list) else [value]


def checkpoint(fn: Callable[..., Any], *args: Any) -> Any:
    """Call ``fn(*args)`` without keeping what it computes; the backward pass computes it again.

    Parameters
    ----------
    fn : callable
        Takes `args`, may read other tensors (parameters), and returns a Tensor or a flat tuple of
        Tensors. It is called again in the backward pass and must do the same then; random numbers
        from the library's generator are drawn the same again.
    *args
        Handed to `fn`.

    Returns
    -------
    Tensor or tuple of Tensors
        What `fn` returned.

    Raises
    ------
    GraphError
        In the backward pass, if a tensor that it reads was changed in place meanwhile.

    Notes
    -----
    Memory is exchanged for one more forward pass (Chen, Xu, Zhang and Guestrin 2016,
    arXiv:1604.06174).

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> tg.checkpoint(lambda x: (x * x).exp(), x).sum().backward()
    >>> bool((x.grad == 2 * x * (x * x).exp()).numpy().all())
    True
    """
    random_state = _random.get_state()
    since = next(clock)
    result = fn(*args)
    outputs = _flat(result)
    ends: list[Edge] = [y._edge for y in outputs if y._edge is not None]
    if not mode.recording or not ends:
        return result
    outside: dict[Edge, None] = {}
    for node in reachable(Start([(edge, None) for edge in ends]), since):
        if node.order >= since:
            outside.update(
                (edge, None) for edge in node.parents if edge is not None and edge[0].order < since
            )
    outside.update((edge, None) for edge in ends if edge[0].order < since)
    node = Checkpoint(tuple(outside), tuple((y.shape, y.dtype) for y in outputs))
    node.function, node.args, node.random_state = fn, args, random_state
    kept = [
        Tensor._make(y._data, None if y._edge is None else (node, i), None)
        for i, y in enumerate(outputs)
    ]
    return type(result)(kept) if isinstance(result, tuple | list) else kept[0]
