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
import threading
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from heapq import heappop, heappush, heappushpop
from operator import attrgetter
from typing import Any

from ..blocks import Block
from ..errors import GraphError
from ..spelling import explained

Gradient = Any  # an array, a Tensor, or a pending gradient (Part, Product, Sum, Pieces)
Namespace = Any
Parents = tuple["Node | None", ...]

tick = itertools.count(1).__next__  # the clock that nodes and writes are ordered by
last_write = [0]  # when, on this clock, any tensor was last written to in place
PENDING_BYTES = 256 << 20  # what the factors of one pending product may hold unmultiplied


class Node:
    """An operation that took place: its arguments' nodes, the shape and dtype of its result."""

    __slots__ = ("__weakref__", "dtype", "order", "parents", "shape")
    name = "node"
    passes = False  # whether `pull` takes a pending Product as it is

    def __init__(self, parents: Parents, shape: tuple[int, ...], dtype: Any) -> None:
        self.order = tick()
        self.parents = parents
        self.shape, self.dtype = shape, dtype

    def pull(
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


class Piece(Node):
    """One result of an operation of several, which is its one parent."""

    __slots__ = ("index",)
    name = "piece"

    def __init__(self, whole: Node, index: int, shape: tuple[int, ...], dtype: Any) -> None:
        self.order, self.parents = tick(), (whole,)
        self.shape, self.dtype, self.index = shape, dtype, index

    def pull(
        self, F: Namespace, grad: Gradient, parents: Parents, retain: bool
    ) -> Sequence[Gradient]:
        """Hand the gradient on under the number of the result."""
        return (Pieces({self.index: grad}),)


# -- recording -------------------------------------------------------------------------------------


class _Thread(threading.local):
    recording = True


thread = _Thread()
paused: list[None] = []  # empty: no thread is in a block, so none need look up its own mode


def _recording(on: bool) -> Iterator[None]:
    before = thread.recording
    paused.append(None)
    try:
        thread.recording = on
        yield
    finally:
        thread.recording = before
        paused.pop()


@explained
def no_grad() -> Block[None]:
    """Record no graph in a ``with`` block or decorated function, for this thread alone.

    The object can be entered again. Of a decorated generator or coroutine function the body runs in
    the block; at each ``yield`` or ``await`` the mode of the caller is restored. (A ``with`` block
    around them leaves the thread, and so the caller, in its mode meanwhile.)

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.ones(2, requires_grad=True)
    >>> with tg.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """
    return Block("no_grad", lambda: _recording(False))


@explained
def enable_grad() -> Block[None]:
    """Record the graph again inside a `no_grad` block.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.ones(2, requires_grad=True)
    >>> with tg.no_grad(), tg.enable_grad():
    ...     (x * 2).requires_grad
    True
    """
    return Block("enable_grad", lambda: _recording(True))


def is_grad_enabled() -> bool:
    """Tell whether operations of this thread are being recorded.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.is_grad_enabled()
    True
    """
    return thread.recording


# -- pending gradients -----------------------------------------------------------------------------


# Gradients of time steps that were gathered, by id: each (while it lives) with the whole and its
# place there. Other products over the same steps use the whole.
Joined = dict[int, tuple[weakref.ref[Any], Gradient, int]]


class Part:
    """A gradient that is zero but for some places: what reading ``x[key]`` gives back to x.

    T steps read from one tensor cost the bytes that were read, not T times the whole. What comes
    back to whole steps is put in its place at once.
    """

    __slots__ = ("grads", "keys", "shape", "steps", "whole")

    def __init__(self, grad: Gradient, key: Any, shape: tuple[int, ...]) -> None:
        self.grads, self.keys, self.shape = [grad], [key], shape
        self.steps: dict[int, weakref.ref[Any] | None] = {}  # None: several gradients
        self.whole: Gradient = None

    @property
    def sample(self) -> Gradient:
        """One of the arrays inside, to tell their kind by."""
        return self.grads[0] if self.grads else self.whole

    def add(self, other: Part, F: Namespace) -> None:
        """Take what another read gives back."""
        self.grads += other.grads
        self.keys += other.keys
        while F.in_place and self.grads and (t := _step(self.keys[-1], self.shape)) is not None:
            first = t not in self.steps
            if not first and self.grads[-1].dtype.itemsize == 2:  # to be added in single, later
                break
            _, grad = self.keys.pop(), self.grads.pop()
            if self.whole is None:
                self.whole = F.empty(self.shape, grad)
            self.whole[t] = grad if first else self.whole[t] + grad
            self.steps[t] = weakref.ref(grad) if first else None

    def total(self, F: Namespace, joined: Joined) -> Gradient:
        """Return the gradient in full."""
        if self.whole is None:
            return F.scatter(*self.grads, keys=tuple(self.keys), shape=self.shape)
        for t in set(range(self.shape[0])).difference(self.steps):
            self.whole[t] = 0
        if self.grads:
            self.whole += F.scatter(*self.grads, keys=tuple(self.keys), shape=self.shape)
        elif all(ref and ref() is not None for ref in self.steps.values()):
            joined.update({id(ref()): (ref, self.whole, t) for t, ref in self.steps.items() if ref})
        return self.whole


def _step(key: Any, shape: tuple[int, ...]) -> int | None:
    """Return t if ``x[key]`` is ``x[t]``, an array."""
    t = key[0] if key.__class__ is tuple and len(key) == 1 else None
    return t if t.__class__ is int and 0 <= t and len(shape) > 1 else None


class Product:
    """A gradient leftᵀ @ right that is not multiplied yet: what ``x @ W`` gives back to W.

    For a weight that is used at every step the factors of all steps become one large product.
    """

    __slots__ = ("done", "held", "lefts", "rights")

    def __init__(self, lefts: list[Gradient], rights: list[Gradient], done: Gradient = None):
        self.lefts, self.rights, self.done = lefts, rights, done
        self.held = sum((x.size * x.dtype.itemsize) for x in (*lefts, *rights))

    @property
    def sample(self) -> Gradient:
        """One of the arrays inside, to tell their kind by."""
        return self.lefts[0] if self.lefts else self.done

    def add(self, other: Product, F: Namespace) -> None:
        """Take another use's factors; multiply when they hold too much memory."""
        self.lefts += other.lefts
        self.rights += other.rights
        self.held += other.held
        if self.held > PENDING_BYTES:
            self.done = self.total(F, {})
            self.lefts, self.rights, self.held = [], [], 0

    def transposed(self, F: Namespace) -> Product:
        """Return the transpose, still pending: (leftᵀ right)ᵀ = rightᵀ left."""
        done = None if self.done is None else F.permute(self.done, axes=(1, 0))
        return Product(self.rights, self.lefts, done)

    def total(self, F: Namespace, joined: Joined) -> Gradient:
        """Return the gradient in full."""
        if not self.lefts:
            return self.done
        sides = [self.lefts, self.rights]
        for i, side in enumerate(sides):
            found = [hit for x in side if (hit := joined.get(id(x))) and hit[0]() is x]
            places = {t: n for n, (_, _, t) in enumerate(found)}
            whole = found[0][1] if len(places) == len(side) else ()
            if len(whole) == len(side) and all(other is whole for _, other, _ in found):
                sides = [[factors[places[t]] for t in range(len(side))] for factors in sides]
                sides[i] = [F.rows(whole)]
                break
        left, right = [x[0] if len(x) == 1 else F.join(*x, axis=0) for x in sides]
        product = F.gemm(F.permute(left, axes=(1, 0)), right)
        return product if self.done is None else self.done + product


class Pieces(dict[int, Gradient]):
    """The gradients of an operation of several results, by the number of the result."""

    @property
    def sample(self) -> Gradient:
        """One of the arrays inside, to tell their kind by."""
        return next(iter(self.values()))

    def add(self, other: Pieces, F: Namespace) -> None:
        """Take another result's, or more of one's."""
        self.update({i: self[i] + g if i in self else g for i, g in other.items()})

    def total(self, F: Namespace, joined: Joined) -> Gradient:
        """Return all of them."""
        return self


class Sum:
    """A gradient with several contributions, made dense once, at the end.

    Those in half precision are added in single: of many equal ones the sum would stop growing.
    """

    __slots__ = ("F", "dense", "half", "owned", "rest")

    def __init__(self, F: Namespace, first: Gradient) -> None:
        self.dense: Gradient = None
        self.half: Any = None  # the dtype float16, once there are several dense ones in it
        self.F, self.owned = F, False  # the first dense term is somebody else's: not written to
        self.rest: list[Any] = []
        self.add(first)

    @property
    def sample(self) -> Gradient:
        """One of the arrays inside, to tell their kind by."""
        return self.rest[0].sample if self.dense is None else self.dense

    def add(self, grad: Gradient, F: Namespace = None) -> None:
        """Take one more contribution."""
        if grad.__class__ in PENDING:
            for other in self.rest:
                if other.__class__ is grad.__class__:
                    other.add(grad, self.F)
                    return
            self.rest.append(grad)
        elif self.owned:
            self.dense += grad
        elif self.dense is None:
            self.dense = grad
        else:
            if grad.dtype.itemsize == 2 and self.half is None:
                self.half, self.dense = grad.dtype, self.F.cast(self.dense, dtype="float32")
            self.dense, self.owned = self.dense + grad, self.F.in_place

    def total(self, F: Namespace, joined: Joined) -> Gradient:
        """Return the gradient in full."""
        rest, self.rest = self.rest, []
        for grad in rest:
            self.add(grad.total(F, joined))
        return self.dense if self.half is None else F.cast(self.dense, dtype=self.half)


PENDING: frozenset[Any] = frozenset((Part, Product, Pieces, Sum))


def fit(grad: Gradient, node: Node, F: Namespace) -> Gradient:
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


# -- the pass --------------------------------------------------------------------------------------


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
                grad = fit(grad, node, namespaces[kind])
            held = pending.get(node)
            if held is None:
                pending[node] = grad
                if after is not None:
                    after, node = (after, node) if after.order > node.order else (node, after)
                    heappush(waiting, (-node.order, node))
                else:
                    after = node
            elif held.__class__ is Sum:
                held.add(grad)
            else:
                F = namespaces[grad.sample.__class__ if kind in PENDING else kind]
                if held.__class__ is not kind or kind not in PENDING:
                    held = pending[node] = Sum(F, held)
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
            if fresh and not (kind is Product and node.passes and node not in wanted):
                grad = grad.total(F, joined)
            parents = node.parents
            if live is not None:
                parents = tuple([p if p in live else None for p in parents])
            if node in wanted or not parents:
                results[node] = grad, fresh
            if node.order >= since and parents and (live is None or any(parents)):
                grads = node.pull(F, grad, parents, retain)
                break
        else:
            return results
