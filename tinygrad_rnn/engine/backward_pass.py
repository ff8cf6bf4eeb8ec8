"""The backward pass: `run` sends gradients from the results of a graph to its leaves.

The nodes are numbered in a topological order (`graph`), so `run` repeatedly takes the youngest node
that has a gradient and sends gradients to its parents, without recursion.

The pass works on two kinds of gradients. With arrays it is the ordinary backward pass. With Tensors
(``create_graph=True``) it records a graph of its own, which can be differentiated again. ``F`` is
the namespace of operations on one kind.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from heapq import heappop, heappush, heappushpop

from ..errors import GraphError
from .grad_mode import thread
from .graph import Node, Parents, reachable
from .pending import (
    PENDING,
    Accumulator,
    DeferredMatmul,
    Gradient,
    Namespace,
    OutputGradients,
    add,
)


def unbroadcast(grad: Gradient, node: Node, F: Namespace) -> Gradient:
    """Return a gradient in the shape and dtype of `node`: summed over its broadcast axes."""
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


def _paths(roots: Parents, wanted: Collection[Node], since: int) -> set[Node]:
    """Return the nodes on the paths from the roots to the wanted nodes, with both ends."""
    needed = set(wanted)
    for node in reachable(list(dict.fromkeys(roots)), since):  # type: ignore[arg-type]
        if not needed.isdisjoint(node.parents):
            needed.add(node)
    return needed


def run(
    roots: Sequence[tuple[Node, Gradient]],
    namespaces: Mapping[type, Namespace],
    wanted: Collection[Node] = (),
    retain: bool = False,
    since: int = 0,
) -> dict[Node, tuple[Gradient, bool]]:
    """Return the gradient of each wanted node; without `wanted`, of each leaf.

    The flag next to each gradient tells whether its memory is shared with no other object.
    `namespaces` has ``F`` for each kind of gradient. Nodes older than `since` send no gradients to
    their parents if nodes are wanted.
    """
    parents: Parents = tuple(node for node, _ in roots)
    grads: Sequence[Gradient] = [grad for _, grad in roots]
    needed: set[Node] | None = None  # None: all nodes
    if wanted:
        needed = _paths(parents, wanted, since)
        parents = tuple([node if node in needed else None for node in parents])
    watch = thread.watcher and thread.watcher.backward_pass(roots)

    pending: dict[Node, Gradient] = {}
    queue: list[tuple[int, Node]] = []  # a heap of the nodes in `pending`, the youngest first
    single: Node | None = None  # one of them that is not in the heap: in a chain it is the only one
    results: dict[Node, tuple[Gradient, bool]] = {}
    while True:
        # Add the gradients to those of the parents.
        for parent, grad in zip(parents, grads):  # noqa: B905 - strict costs a tenth of the pass
            if parent is None or grad is None:
                continue
            kind = grad.__class__
            if kind not in PENDING and (
                grad.dtype is not parent.dtype or grad.shape != parent.shape
            ):
                grad = unbroadcast(grad, parent, namespaces[kind])
            held = pending.get(parent)
            if held is None:
                pending[parent] = grad
                if single is None:
                    single = parent
                else:
                    heappush(queue, (-parent.order, parent))
            elif held.__class__ is Accumulator:
                held.add(grad)
            else:
                F = grad.F if kind in PENDING else namespaces[kind]
                pending[parent] = add(held, grad, F)

        # Take the youngest node: all contributions to its gradient have arrived.
        if single is None:
            if not queue:
                return results
            node = heappop(queue)[1]
        elif queue and -queue[0][0] > single.order:
            node = heappushpop(queue, (-single.order, single))[1]
        else:
            node = single
        single = None
        grad = pending.pop(node)
        kind = grad.__class__
        fresh = kind in PENDING
        F = grad.F if fresh else namespaces[kind]
        if fresh and not (kind is DeferredMatmul and node.takes_deferred and node not in wanted):
            grad = grad.evaluate()
            if kind is not OutputGradients and grad.dtype != node.dtype:
                grad = unbroadcast(grad, node, F)

        # Compute the gradients of its parents.
        parents, grads = node.parents, ()
        if not parents or node in wanted:
            results[node] = grad, fresh
        if needed is not None:
            inside = node.order >= since and not needed.isdisjoint(parents)
            parents = tuple([p if p in needed else None for p in parents]) if inside else ()
        if watch:
            grads = watch.vjp(node, F, grad, parents, retain)
        elif parents:
            grads = node.vjp(F, grad, parents, retain)
