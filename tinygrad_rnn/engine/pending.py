"""Pending gradients: gradients that are collected first and computed once.

A rule may return one of the first three classes in place of an array. `backward_pass.run`
collects all contributions to a node and calls `evaluate` when it reaches the node:

==================  =====================================  ========================================
class               its value                              computed as
==================  =====================================  ========================================
`SparseGradient`    zeros but for the elements ``x[key]``  one scatter for all reads of x
`DeferredMatmul`    leftᵀ @ right                          one product for all uses of a weight
`OutputGradients`   the gradients of several results       (a dictionary; it stays one)
`Accumulator`       a sum of unlike contributions          additions, in place where possible
==================  =====================================  ========================================

So T time steps read from one tensor cost the bytes that were read, not T times the whole tensor,
and a weight that is used at T steps costs one large product, not T small ones.
"""

from __future__ import annotations

from typing import Any

Gradient = Any  # an array, a Tensor, or a pending gradient
Namespace = Any  # the operations on gradients of one kind: `F` of a vjp
MAX_DEFERRED_BYTES = 256 << 20  # the limit on the factors of one `DeferredMatmul`


class SparseGradient:
    """The gradient of x that results from reads ``x[key]``."""

    __slots__ = ("F", "grads", "keys", "shape")

    def __init__(self, F: Namespace, grad: Gradient, key: Any, shape: tuple[int, ...]) -> None:
        self.F, self.grads, self.keys, self.shape = F, [grad], [key], shape

    def add(self, other: SparseGradient) -> None:
        """Add the gradient of other reads."""
        self.grads += other.grads
        self.keys += other.keys

    def evaluate(self) -> Gradient:
        """Return the dense gradient."""
        return self.F.scatter(*self.grads, keys=tuple(self.keys), shape=self.shape)


class DeferredMatmul:
    """The gradient Σ leftᵀ @ right of a weight, whose products are not computed yet."""

    __slots__ = ("F", "lefts", "nbytes", "product", "rights")

    def __init__(
        self,
        F: Namespace,
        lefts: list[Gradient],
        rights: list[Gradient],
        product: Gradient = None,
    ) -> None:
        self.F, self.lefts, self.rights = F, lefts, rights
        self.product = product  # of the factors that were multiplied early
        self.nbytes = sum(x.size * x.dtype.itemsize for x in (*lefts, *rights))

    def add(self, other: DeferredMatmul) -> None:
        """Add the factors of other uses; multiply them if they take too much memory."""
        self.lefts += other.lefts
        self.rights += other.rights
        self.nbytes += other.nbytes
        self.product = _sum(self.product, other.product)
        if self.nbytes > MAX_DEFERRED_BYTES:
            self.product = self.evaluate()
            self.lefts, self.rights, self.nbytes = [], [], 0

    def transposed(self) -> DeferredMatmul:
        """Return the transpose, still deferred: (leftᵀ right)ᵀ = rightᵀ left."""
        product = None if self.product is None else self.F.transpose(self.product, axes=(1, 0))
        return DeferredMatmul(self.F, self.rights, self.lefts, product)

    def evaluate(self) -> Gradient:
        """Return the dense gradient: one product of the concatenated factors."""
        if not self.lefts:
            return self.product
        left, right = (
            x[0] if len(x) == 1 else self.F.concatenate(*x, axis=0)
            for x in (self.lefts, self.rights)
        )
        product = self.F.gemm(self.F.transpose(left, axes=(1, 0)), right)
        return _sum(self.product, product)


def _sum(x: Gradient, y: Gradient) -> Gradient:
    """Return x + y, where None is zero."""
    if x is None or y is None:
        return y if x is None else x
    return x + y


class OutputGradients(dict[int, Gradient]):
    """The gradients of the results of one operation, by the index of the result."""

    def __init__(self, F: Namespace, grads: dict[int, Gradient]) -> None:
        super().__init__(grads)
        self.F = F

    def add(self, other: OutputGradients) -> None:
        """Add the gradients of other results, or further ones of the same."""
        self.update({i: self[i] + g if i in self else g for i, g in other.items()})

    def evaluate(self) -> Gradient:
        """Return the dictionary itself."""
        return self


class Accumulator:
    """A sum of contributions: dense ones are added, pending ones are evaluated at the end.

    Half precision is added in single precision: in a long sum of equal terms float16 stops growing.
    """

    __slots__ = ("F", "dense", "half", "owned", "pending")

    def __init__(self, F: Namespace, first: Gradient) -> None:
        self.F = F
        self.dense: Gradient = None
        self.owned = False  # the first dense term may be in use elsewhere: it is not written to
        self.half: Any = None  # the dtype float16, if several terms have it
        self.pending: list[Any] = []  # at most one of each class
        self.add(first)

    def add(self, grad: Gradient) -> None:
        """Add a contribution."""
        if grad.__class__ in PENDING:
            for held in self.pending:
                if held.__class__ is grad.__class__:
                    held.add(grad)
                    return
            self.pending.append(grad)
        elif self.owned:
            self.dense += grad
        elif self.dense is None:
            self.dense = grad
        else:
            if grad.dtype.itemsize == 2 and self.half is None:
                self.half, self.dense = grad.dtype, self.F.cast(self.dense, dtype="float32")
            self.dense, self.owned = self.dense + grad, not self.F.records

    def evaluate(self) -> Gradient:
        """Return the sum."""
        pending, self.pending = self.pending, []
        for grad in pending:
            self.add(grad.evaluate())
        return self.dense if self.half is None else self.F.cast(self.dense, dtype=self.half)


PENDING: frozenset[Any] = frozenset((SparseGradient, DeferredMatmul, OutputGradients, Accumulator))


def add(held: Gradient, grad: Gradient, F: Namespace) -> Gradient:
    """Return the sum of two gradients, still pending; `held` may be changed in place."""
    if held.__class__ is not Accumulator and (
        held.__class__ is not grad.__class__ or held.__class__ not in PENDING
    ):
        held = Accumulator(F, held)
    held.add(grad)
    return held
