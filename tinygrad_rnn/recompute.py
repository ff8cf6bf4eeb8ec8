"""Recompute instead of remember (Chen et al. 2016): memory for one extra forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import random as _random
from .engine import backend
from .engine.graph import (
    Leaf,
    Node,
    Parents,
    Piece,
    Pieces,
    enable_grad,
    last_write,
    reachable,
    run,
    thread,
    tick,
)
from .engine.primitive import SECOND_TIME, Record, make, namespaces
from .engine.variable import Variable
from .errors import ArgumentError, DTypeError, GraphError
from .spelling import class_name, explained


class Checkpoint(Node):
    """The node of a function whose inside is not kept: its parents are the tensors it reads."""

    __slots__ = ("args", "function", "random_state", "results", "versions")
    name = "checkpoint"
    function: Callable[..., Any] | None
    args: tuple[Any, ...]
    random_state: Any
    results: tuple[Any, ...]  # arrays that whatever comes next holds anyway
    versions: list[list[int]]  # of the memory that the function is known to read

    def pull(self, F: Any, grad: Pieces, parents: Parents, retain: bool) -> list[Any]:
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
        with enable_grad(), _random.replayed(self.random_state):
            outputs = _flat(self.function(*self.args))
        if last_write[0] > self.order and not _same(outputs, self.results):
            raise GraphError(
                "backward through checkpoint: the function gives something else than in the "
                "forward pass: a tensor that it reads was changed in place, or it is not the same "
                "function of its arguments"
            )
        if not retain:
            self.function, self.args, self.results = None, (), ()
        ends = [(outputs[i]._node, g) for i, g in grad.items()]
        roots = [(node, g) for node, g in ends if node is not None]
        wanted = {p for p in parents if p is not None}
        results = run(roots, namespaces, wanted, retain=F.records, since=since)
        return [results[p][0] if p in results else None for p in parents]


def _read(node: Node) -> list[list[int]]:
    """Return the version of the leaf that a node is, or is a view of."""
    viewed: Node | None = node
    while isinstance(viewed, Record) and viewed.row.view:
        viewed = viewed.parents[0]
    return [viewed.version] if isinstance(viewed, Leaf) else []


def _flat(value: Any) -> list[Variable]:
    outputs = list(value) if isinstance(value, tuple | list) else [value]
    for output in outputs:
        if not isinstance(output, Variable):
            raise DTypeError(
                "checkpoint: the function returns a Tensor or a flat tuple of them, got "
                f"a {class_name(output)}"
            )
    return outputs


def _same(outputs: list[Variable], results: tuple[Any, ...]) -> bool:
    """Tell whether a recomputation gave what the forward pass did; nan is nan."""
    return all(
        np.array_equal(
            backend.to_numpy(new._data), backend.to_numpy(old), equal_nan=new.dtype.kind == "f"
        )
        for new, old in zip(outputs, results, strict=True)
    )


@explained
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
    if not callable(fn):
        raise ArgumentError(f"checkpoint: a function comes first, got a {type(fn).__name__}")
    random_state = _random.get_state()
    since = tick()
    result = fn(*args)
    outputs = _flat(result)
    ends = [y._node for y in outputs if y._node is not None]
    if not thread.recording or not ends:
        return result
    outside = dict.fromkeys(end for end in ends if end.order < since)
    for node in reachable(ends, since):
        if node.order >= since:
            outside.update((p, None) for p in node.parents if p is not None and p.order < since)
    whole = Checkpoint(tuple(outside), (), None)
    whole.function, whole.args, whole.random_state = fn, args, random_state
    versions = [x._version for x in args if isinstance(x, Variable)]
    versions += [version for node in outside for version in _read(node)]
    whole.versions = [version for version in versions if version is not None]
    whole.results = tuple(y._data for y in outputs)
    kept = [
        make(y._data, None if y._node is None else Piece(whole, i, y.shape, y.dtype), None)
        for i, y in enumerate(outputs)
    ]
    return type(result)(kept) if isinstance(result, tuple | list) else kept[0]
