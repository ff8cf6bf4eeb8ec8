"""The graph and the pass over it; it knows nodes and gradients, not arrays.

Every result of an operation is an output of a `Node`; its *edge*, the pair ``(node, index)``, is
its place in the graph. A node holds the edges of its arguments, so the graph is alive as long as
somebody holds its end, and no longer. `run` walks the nodes from the newest to the oldest: a node
is older than whatever was computed from it, so the order of creation is a topological order, and no
recursion is needed.

The pass is written once for two kinds of gradient. With raw arrays it is the fast, ordinary
backward pass; with Tensors (``create_graph=True``) it records a graph of its own, which can be
differentiated again. Whatever depends on the kind comes from ``F``, the namespace of operations on
it.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any

from ..errors import GraphError

Edge = tuple["Node", int]
Spec = tuple[tuple[int, ...], Any]  # shape and dtype of one output
Gradient = Any  # an array, a Tensor, or a pending gradient (Part, Product, Sum)
Namespace = Any

clock = itertools.count(1)
last_write = [0]  # when, on this clock, any tensor was last written to in place
PENDING_BYTES = (
    256 << 20
)  # what the factors of one pending product may hold before they are multiplied


class Node:
    """An operation that took place: its arguments' edges, its outputs' shapes and dtypes."""

    __slots__ = ("__weakref__", "order", "outputs", "parents")
    name = "node"

    def __init__(self, parents: tuple[Edge | None, ...], outputs: tuple[Spec, ...]) -> None:
        self.order = next(clock)
        self.parents = parents
        self.outputs = outputs

    def pull(self, grads: Any, live: set[Node] | None, retain: bool) -> Sequence[Gradient]:
        """Return each argument's gradient, None where nobody needs it, from the output's.

        For a node of several outputs `grads` is a list, None where there is no gradient.
        `live` are the nodes that lead to what is wanted (None: all); what was saved is let go
        unless `retain`.
        """
        raise NotImplementedError

    def pass_on(self, pending: Gradient) -> Gradient:
        """Return the pending gradient of the one argument, if this node can hand it on as it is."""
        return None


class Leaf(Node):
    """A tensor that the user made and wants the gradient of; it owns that gradient."""

    __slots__ = ("grad", "version")
    name = "leaf"

    def __init__(self, output: Spec, version: list[int]) -> None:
        super().__init__((), (output,))
        self.grad: Any = None
        self.version = version


# -- recording -------------------------------------------------------------------------------------


class _Mode(threading.local):
    recording = True


mode = _Mode()


@contextlib.contextmanager
def _recording(on: bool) -> Iterator[None]:
    before = mode.recording
    mode.recording = on
    try:
        yield
    finally:
        mode.recording = before


def no_grad() -> contextlib._GeneratorContextManager[None]:
    """Record no graph in a ``with`` block or decorated function, for this thread alone.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.ones(2, requires_grad=True)
    >>> with tg.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """
    return _recording(False)


def enable_grad() -> contextlib._GeneratorContextManager[None]:
    """Record the graph again inside a `no_grad` block.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.ones(2, requires_grad=True)
    >>> with tg.no_grad(), tg.enable_grad():
    ...     (x * 2).requires_grad
    True
    """
    return _recording(True)


def is_grad_enabled() -> bool:
    """Tell whether operations of this thread are being recorded.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.is_grad_enabled()
    True
    """
    return mode.recording


# -- pending gradients -----------------------------------------------------------------------------


class Part:
    """A gradient that is zero but for ``[key]``: what reading ``x[key]`` gives back to x.

    T steps read from one tensor cost the bytes that were read, not T times the whole.
    """

    __slots__ = ("grad", "key", "shape")

    def __init__(self, grad: Gradient, key: Any, shape: tuple[int, ...]) -> None:
        self.grad, self.key, self.shape = grad, key, shape

    @property
    def sample(self) -> Gradient:
        """One of the arrays inside, to tell their kind by."""
        return self.grad

    def total(self, F: Namespace) -> Gradient:
        """Return the gradient in full."""
        return F.scatter(self.grad, keys=(self.key,), shape=self.shape)


class Product:
    """A gradient leftᵀ @ right that is not multiplied yet: what ``x @ W`` gives back to W.

    For a weight that is used at every step the factors of all steps become one large product.
    """

    __slots__ = ("left", "right")

    def __init__(self, left: Gradient, right: Gradient) -> None:
        self.left, self.right = left, right

    @property
    def sample(self) -> Gradient:
        """One of the arrays inside, to tell their kind by."""
        return self.left

    def transposed(self) -> Product:
        """Return the transpose, still pending: (leftᵀ right)ᵀ = rightᵀ left."""
        return Product(self.right, self.left)

    def total(self, F: Namespace) -> Gradient:
        """Return the gradient in full."""
        return F.gemm(self.left, self.right, transpose_x=True)


class Sum:
    """A gradient with several contributions, made dense once, at the end."""

    __slots__ = ("dense", "factors", "held", "owned", "parts")

    def __init__(self, first: Gradient, F: Namespace) -> None:
        self.dense: Gradient = None
        self.owned = (
            False  # the first dense term belongs to somebody else and must not be written to
        )
        self.parts: list[Part] = []
        self.factors: list[Product] = []
        self.held = 0
        self.add(first, F)

    @property
    def sample(self) -> Gradient:
        """One of the arrays inside, to tell their kind by."""
        if self.dense is not None:
            return self.dense
        return self.parts[0].sample if self.parts else self.factors[0].sample

    def add(self, grad: Gradient, F: Namespace) -> None:
        """Take one more contribution."""
        if grad.__class__ is Part:
            self.parts.append(grad)
        elif grad.__class__ is Product:
            self.factors.append(grad)
            self.held += (grad.left.size + grad.right.size) * grad.left.dtype.itemsize
            if self.held > PENDING_BYTES:
                self._multiply(F)
        elif self.dense is None:
            self.dense = grad
        elif self.owned and F.in_place:
            self.dense += grad
        else:
            self.dense, self.owned = self.dense + grad, True

    def _multiply(self, F: Namespace) -> None:
        factors, self.factors, self.held = self.factors, [], 0
        if len(factors) == 1:
            grad = factors[0].total(F)
        else:
            left = F.join(*[factor.left for factor in factors], axis=0)
            right = F.join(*[factor.right for factor in factors], axis=0)
            grad = F.gemm(left, right, transpose_x=True)
        self.add(grad, F)
        self.owned = self.owned or self.dense is grad

    def total(self, F: Namespace) -> Gradient:
        """Return the gradient in full."""
        if self.factors:
            self._multiply(F)
        if self.parts:
            parts, self.parts = self.parts, []
            keys = tuple(part.key for part in parts)
            self.add(F.scatter(*[part.grad for part in parts], keys=keys, shape=parts[0].shape), F)
        return self.dense


PENDING: frozenset[Any] = frozenset((Part, Product, Sum))


def fit(grad: Gradient, spec: Spec, F: Namespace) -> Gradient:
    """Bring a gradient to its argument's shape and dtype: sum where it was broadcast."""
    shape, dtype = spec
    if grad.shape != shape:
        extra = len(grad.shape) - len(shape)
        if extra < 0 or any(
            n not in (1, m) for n, m in zip(shape, grad.shape[extra:], strict=True)
        ):
            raise GraphError(
                f"a vjp returned a gradient of shape {grad.shape} for an argument of shape {shape}"
            )
        stretched = (i + extra for i, n in enumerate(shape) if n == 1 != grad.shape[i + extra])
        grad = F.sum(grad, axis=(*range(extra), *stretched), keepdims=True)
        if extra:
            grad = F.reshape(grad, shape=shape)
    return grad if grad.dtype == dtype else F.cast(grad, dtype=dtype)


# -- the pass --------------------------------------------------------------------------------------


class Start(Node):
    """What a pass starts from: its arguments are the outputs to differentiate."""

    __slots__ = ()

    def __init__(self, roots: Sequence[tuple[Edge, Gradient]]) -> None:
        super().__init__(
            tuple(edge for edge, _ in roots), tuple(edge[0].outputs[edge[1]] for edge, _ in roots)
        )

    def pull(self, grads: Any, live: set[Node] | None, retain: bool) -> Sequence[Gradient]:
        """Hand the gradients on."""
        return grads


def collect(held: Gradient, grad: Gradient, F: Namespace) -> Sum:
    """Return the sum of what is held and one more contribution."""
    total = held if held.__class__ is Sum else Sum(held, F)
    total.add(grad, F)
    return total


def reachable(end: Node, since: int = 0) -> list[Node]:
    """Return `end` and the nodes it was computed from, newest first.

    Those older than `since` are not entered.
    """
    seen, found, stack = {end}, [end], [end]
    while stack:
        node = stack.pop()
        if node.order >= since:
            for edge in node.parents:
                if edge is not None and edge[0] not in seen:
                    seen.add(edge[0])
                    found.append(edge[0])
                    stack.append(edge[0])
    found.sort(
        key=attrgetter("order"), reverse=True
    )  # found nearly in order: a sort of linear cost
    return found


def run(
    roots: Sequence[tuple[Edge, Gradient]],
    namespace: Callable[[Gradient], Namespace],
    wanted: Sequence[Edge] | None = None,
    retain: bool = False,
    since: int = 0,
) -> dict[Edge, tuple[Gradient, bool]]:
    """Return the gradient of each wanted edge (of each leaf, if `wanted` is None).

    Gradients live in a dict and are dropped as they are consumed. The flag beside each result says
    that its memory belongs to nobody else. Nodes older than `since` end the walk (a checkpoint's
    outside world).
    """
    start = Start(roots)
    order = reachable(start, since)
    live: set[Node] | None = None
    targets: dict[Node, set[int]] = {}
    if wanted is not None:
        for node, index in wanted:
            targets.setdefault(node, set()).add(index)
        live = set(targets)
        for node in reversed(order):
            if node not in live and any(
                edge is not None and edge[0] in live for edge in node.parents
            ):
                live.add(node)

    pending: dict[Node, Any] = {
        start: [grad for _, grad in roots]
    }  # a list for a node of several outputs
    results: dict[Edge, tuple[Gradient, bool]] = {}
    for node in order:
        grads = pending.pop(node, None)
        if grads is None:
            continue
        parents = node.parents
        fresh = False
        if grads.__class__ is list:
            grads = [
                grad.total(namespace(grad)) if grad.__class__ in PENDING else grad for grad in grads
            ]
        elif grads.__class__ in PENDING:
            passed = node.pass_on(grads) if node not in targets else None
            if passed is not None:
                parent, _ = parents[0]  # type: ignore[misc]
                held = pending.get(parent)
                pending[parent] = (
                    passed if held is None else collect(held, passed, namespace(passed))
                )
                continue
            grads, fresh = grads.total(namespace(grads)), True
        if wanted is None:
            if not parents:
                results[node, 0] = (grads, fresh)
                continue
        else:
            for index in targets.get(node, ()):
                grad = grads[index] if grads.__class__ is list else grads
                if grad is not None:
                    results[node, index] = (grad, fresh)
            if not any(edge is not None and edge[0] in live for edge in parents):  # type: ignore[operator]
                continue
        if node.order < since:
            continue
        for edge, grad in zip(parents, node.pull(grads, live, retain), strict=True):
            if grad is None or edge is None:
                continue
            parent, index = edge
            outputs = parent.outputs
            if grad.__class__ not in PENDING:
                shape, dtype = outputs[index]
                if grad.dtype is not dtype or grad.shape != shape:
                    grad = fit(grad, (shape, dtype), namespace(grad))
            if len(outputs) == 1:
                held = pending.get(parent)
                pending[parent] = grad if held is None else collect(held, grad, namespace(grad))
            else:
                several = pending.setdefault(parent, [None] * len(outputs))
                held = several[index]
                several[index] = grad if held is None else collect(held, grad, namespace(grad))
    return results
