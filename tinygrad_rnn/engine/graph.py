"""The graph: nodes, which refer to the nodes of their operation's arguments.

The result of each recorded operation has a `Node`. A node refers to the nodes of the operation's
arguments, its parents, so a graph is freed when its last result is. Nodes are numbered in the order
of creation, which is a topological order.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from .pending import Gradient, Namespace, OutputGradients

Parents = tuple["Node | None", ...]

tick = itertools.count(1).__next__  # the clock of nodes and of writes in place
last_write = [0]  # the time of the last write into any tensor


class Node:
    """An operation that was recorded: its parents, and the shape and dtype of its result."""

    __slots__ = ("__weakref__", "dtype", "order", "parents", "shape")
    name = "node"
    takes_deferred = False  # whether `vjp` takes a DeferredMatmul that is not evaluated

    def __init__(self, parents: Parents, shape: tuple[int, ...], dtype: Any) -> None:
        self.order = tick()
        self.parents = parents
        self.shape, self.dtype = shape, dtype

    def vjp(
        self, F: Namespace, grad: Gradient, parents: Parents, retain: bool
    ) -> Sequence[Gradient]:
        """Return the gradient of each parent from the gradient of the result.

        `parents` are those of the node, with None where no gradient is needed. Saved values are
        freed unless `retain`.
        """
        raise NotImplementedError


class Leaf(Node):
    """A tensor made by the user that requires a gradient; it holds that gradient."""

    __slots__ = ("grad", "on", "version")
    name = "leaf"

    def __init__(self, shape: tuple[int, ...], dtype: Any, version: list[int]) -> None:
        super().__init__((), shape, dtype)
        self.grad: Any = None
        self.on = True  # whether the tensor requires a gradient now
        self.version = version


class OutputNode(Node):
    """One result of an operation with several; the operation is its only parent."""

    __slots__ = ("index",)
    name = "piece"

    def __init__(self, whole: Node, index: int, shape: tuple[int, ...], dtype: Any) -> None:
        super().__init__((whole,), shape, dtype)
        self.index = index

    def vjp(
        self, F: Namespace, grad: Gradient, parents: Parents, retain: bool
    ) -> Sequence[Gradient]:
        """Return the gradient with the index of the result."""
        return (OutputGradients(F, {self.index: grad}),)


def reachable(ends: Sequence[Node], since: int = 0) -> list[Node]:
    """Return `ends` and the nodes that they were computed from, oldest first.

    Parents of nodes older than `since` are not visited.
    """
    seen, stack = set(ends), list(ends)
    while stack:
        node = stack.pop()
        if node.order >= since:
            new = [p for p in node.parents if p is not None and p not in seen]
            seen.update(new)
            stack += new
    return sorted(seen, key=attrgetter("order"))
