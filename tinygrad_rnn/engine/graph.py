"""The graph and the pass over it; it knows nodes and gradients, not arrays.

Every result of a recorded operation has a `Node`, its place in the graph. A node holds the nodes of
its arguments, so the graph is alive as long as somebody holds its end, and no longer. `run` takes
the youngest node that has a gradient, again and again: a node is older than whatever was computed
from it, so the order of creation is a topological order, and no recursion is needed.

The pass is written once for two kinds of gradient. With raw arrays it is the fast, ordinary
backward pass; with Tensors (``create_graph=True``) it records a graph of its own, which can be
differentiated again. Whatever depends on the kind comes from ``F``, the namespace of operations on
it.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from heapq import heappop, heappush, heappushpop
from operator import attrgetter
from typing import Any

from ..errors import GraphError
from .pending import (
    PENDING,
    Accumulator,
    DeferredMatmul,
    Gradient,
    Joined,
    Namespace,
    OutputGradients,
)

Parents = tuple["Node | None", ...]

tick = itertools.count(1).__next__  # the clock that nodes and writes are ordered by
last_write = [0]  # when, on this clock, any tensor was last written to in place


class Node:
    """An operation that took place: its arguments' nodes, the shape and dtype of its result."""

    __slots__ = ("__weakref__", "dtype", "order", "parents", "shape")
    name = "node"
    passes = False  # whether `vjp` takes a pending DeferredMatmul as it is

    def __init__(self, parents: Parents, shape: tuple[int, ...], dtype: Any) -> None:
        self.order = tick()
        self.parents = parents
        self.shape, self.dtype = shape, dtype

    def vjp(
        self, F: Namespace, grad: Gradient, parents: Parents, retain: bool
    ) -> Sequence[Gradient]:
        """Return the gradient of each of the `parents` (None: nobody needs it) from the result's.

        What was saved is let go unless `retain`.
        """
        raise NotImplementedError


class Leaf(Node):
    """A tensor that the user made and wants the gradient of; it owns that gradient."""

    __slots__ = ("grad", "on", "version")
    name = "leaf"

    def __init__(self, shape: tuple[int, ...], dtype: Any, version: list[int]) -> None:
        super().__init__((), shape, dtype)
        self.grad: Any = None
        self.on = True  # whether the tensor requires a gradient now
        self.version = version


class OutputNode(Node):
    """One result of an operation of several, which is its one parent."""

    __slots__ = ("index",)
    name = "piece"

    def __init__(self, whole: Node, index: int, shape: tuple[int, ...], dtype: Any) -> None:
        self.order, self.parents = tick(), (whole,)
        self.shape, self.dtype, self.index = shape, dtype, index

    def vjp(
        self, F: Namespace, grad: Gradient, parents: Parents, retain: bool
    ) -> Sequence[Gradient]:
        """Hand the gradient on under the number of the result."""
        return (OutputGradients({self.index: grad}),)


# -- the pass --------------------------------------------------------------------------------------


def unbroadcast(grad: Gradient, node: Node, F: Namespace) -> Gradient:
    """Bring a gradient to its argument's shape and dtype: sum where it was broadcast."""
    shape = node.shape
    if grad.shape != shape:
        extra = len(grad.shape) - len(shape)
        if extra < 0 or any(n not in (1, m) for n, m in zip(shape, grad.shape[extra:])):  # noqa: B905 - of one length
            raise GraphError(
                f"a vjp returned a gradient of shape {grad.shape} for an argument of shape {shape}"
            )
        stretched = (i + extra for i, n in enumerate(shape) if n == 1 != grad.shape[i + extra])
        grad = F.sum(grad, axis=(*range(extra), *stretched), keepdims=True)
        grad = F.reshape(grad, shape=shape) if extra else grad
    return grad if grad.dtype == node.dtype else F.cast(grad, dtype=node.dtype)


def reachable(ends: Sequence[Node], since: int = 0) -> list[Node]:
    """Return `ends` and the nodes they were computed from, oldest first.

    Those older than `since` are not entered.
    """
    found, stack = set(ends), list(ends)
    while stack:
        node = stack.pop()
        if node.order >= since:
            new = [p for p in node.parents if p is not None and p not in found]
            found.update(new)
            stack += new
    return sorted(found, key=attrgetter("order"))


def run(
    roots: Sequence[tuple[Node, Gradient]],
    namespaces: Mapping[type, Namespace],
    wanted: Collection[Node] = (),
    retain: bool = False,
    since: int = 0,
) -> dict[Node, tuple[Gradient, bool]]:
    """Return the gradient of each wanted node; if there are none, of each leaf.

    Gradients live in a dict and are dropped as they are consumed. The flag beside each result says
    that its memory belongs to nobody else. `namespaces` has ``F`` for each kind of gradient. Nodes
    older than `since` end the walk (a checkpoint's outside world).
    """
    parents: Parents = tuple(node for node, _ in roots)
    grads: Sequence[Gradient] = [grad for _, grad in roots]
    live: set[Node] | None = None  # what leads to the wanted; None: every leaf is wanted
    if wanted:
        live = set(wanted)
        for node in reachable(list(dict.fromkeys(parents)), since):  # type: ignore[arg-type]
            if not live.isdisjoint(node.parents):
                live.add(node)
        parents = tuple([node if node in live else None for node in parents])

    pending: dict[Node, Gradient] = {}
    joined: Joined = {}
    waiting: list[tuple[int, Node]] = []  # a heap of the nodes with a gradient, youngest first,
    after: Node | None = None  # but for one: in a chain there is no other, and no need of a heap
    results: dict[Node, tuple[Gradient, bool]] = {}
    while True:
        for parent, grad in zip(parents, grads):  # noqa: B905 - strict costs a tenth of the pass
            if parent is None or grad is None:
                continue
            node = parent
            kind = grad.__class__
            if kind not in PENDING and (grad.dtype is not node.dtype or grad.shape != node.shape):
                grad = unbroadcast(grad, node, namespaces[kind])
            held = pending.get(node)
            if held is None:
                pending[node] = grad
                if after is not None:
                    after, node = (after, node) if after.order > node.order else (node, after)
                    heappush(waiting, (-node.order, node))
                else:
                    after = node
            elif held.__class__ is Accumulator:
                held.add(grad)
            else:
                F = namespaces[grad.sample.__class__ if kind in PENDING else kind]
                if held.__class__ is not kind or kind not in PENDING:
                    held = pending[node] = Accumulator(F, held)
                held.add(grad, F)
        while after or waiting:  # to the youngest node that has somebody to hand its gradient to
            if after is None:
                node = heappop(waiting)[1]
            elif waiting and -waiting[0][0] > after.order:
                node = heappushpop(waiting, (-after.order, after))[1]
            else:
                node = after
            after = None
            grad = pending.pop(node)
            kind = grad.__class__
            fresh = kind in PENDING
            F = namespaces[grad.sample.__class__ if fresh else kind]
            if fresh and not (kind is DeferredMatmul and node.passes and node not in wanted):
                grad = grad.total(F, joined)
            parents = node.parents
            if live is not None:
                parents = tuple([p if p in live else None for p in parents])
            if node in wanted or not parents:
                results[node] = grad, fresh
            if node.order >= since and parents and (live is None or any(parents)):
                grads = node.vjp(F, grad, parents, retain)
                break
        else:
            return results
