"""Pending gradients: contributions that are collected first and made dense once.

A gradient of which only parts are known, or that is a product not multiplied yet, waits in one of
these classes until its node is reached.
"""

from __future__ import annotations

import weakref
from typing import Any

Gradient = Any  # an array, a Tensor, or a pending gradient
Namespace = Any
PENDING_BYTES = 256 << 20  # what the factors of one pending product may hold unmultiplied

# Gradients of time steps that were gathered, by id: each (while it lives) with the whole and its
# place there. Other products over the same steps use the whole.
Joined = dict[int, tuple[weakref.ref[Any], Gradient, int]]


class SparseGradient:
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

    def add(self, other: SparseGradient, F: Namespace) -> None:
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


class DeferredMatmul:
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

    def add(self, other: DeferredMatmul, F: Namespace) -> None:
        """Take another use's factors; multiply when they hold too much memory."""
        self.lefts += other.lefts
        self.rights += other.rights
        self.held += other.held
        if self.held > PENDING_BYTES:
            self.done = self.total(F, {})
            self.lefts, self.rights, self.held = [], [], 0

    def transposed(self, F: Namespace) -> DeferredMatmul:
        """Return the transpose, still pending: (leftᵀ right)ᵀ = rightᵀ left."""
        done = None if self.done is None else F.transpose(self.done, axes=(1, 0))
        return DeferredMatmul(self.rights, self.lefts, done)

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
        left, right = [x[0] if len(x) == 1 else F.concatenate(*x, axis=0) for x in sides]
        product = F.gemm(F.transpose(left, axes=(1, 0)), right)
        return product if self.done is None else self.done + product


class OutputGradients(dict[int, Gradient]):
    """The gradients of an operation of several results, by the number of the result."""

    @property
    def sample(self) -> Gradient:
        """One of the arrays inside, to tell their kind by."""
        return next(iter(self.values()))

    def add(self, other: OutputGradients, F: Namespace) -> None:
        """Take another result's, or more of one's."""
        self.update({i: self[i] + g if i in self else g for i, g in other.items()})

    def total(self, F: Namespace, joined: Joined) -> Gradient:
        """Return all of them."""
        return self


class Accumulator:
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


PENDING: frozenset[Any] = frozenset((SparseGradient, DeferredMatmul, OutputGradients, Accumulator))
