"""Standardization: zero mean and unit variance along axes, the operation inside layer norm.

It is a node of its own because its vjp needs two results of the forward: the standardized values
and one number per row.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from .. import backend
from ..backend import Array
from ..codegen import check_saved
from ..grad_mode import is_grad_enabled
from ..graph import Node, OutputNode, Parents
from ..namespaces import namespaces
from ..tensor import Tensor, wrap

BLOCK_BYTES = 1 << 19  # the size of a block of rows, so that several fit into the cache
Axes = tuple[int, ...]


class StandardizeNode(Node):
    """The node of y = (x - μ) r with r = 1 / √(σ² + ε); y and r are saved."""

    __slots__ = ("axis", "saved")
    name = "layer_norm"
    axis: Axes
    saved: Any  # (y, r); None once freed

    def vjp(self, F: Any, grad: Any, parents: Parents, retain: bool) -> tuple[Any]:
        """Return the gradient of x from that of y, and that of r in a second derivative."""
        check_saved(self, self.saved, ())
        y, r = self.saved
        if not retain:
            self.saved = None
        if F.records:
            y, r = self.output(0, y), self.output(1, r)
        elif grad.keys() == {0}:
            return (_in_blocks(_standardize_vjp_x, self.axis, grad[0], y, r)[0],)
        total = _standardize_vjp_x(F, self.axis, grad[0], y, r)[0] if 0 in grad else 0.0
        if 1 in grad:
            n = math.prod(self.shape[i] for i in self.axis)
            total = total - y * (grad[1] * r * r / n)
        return (total,)

    def output(self, i: int, data: Array) -> Tensor:
        """Return y (0) or r (1) as a Tensor."""
        return wrap(data, OutputNode(self, i, data.shape, data.dtype), None)


def standardize_by_primitives(F: Any, axis: Axes, x: Any, eps: float) -> tuple[Any, Any]:
    """Return y = (x - μ) r and r = 1 / √(σ² + ε), computed by the primitives of F."""
    centred = x - F.mean(x, axis=axis, keepdims=True)
    r = 1 / F.sqrt(F.mean(centred * centred, axis=axis, keepdims=True) + eps)
    return centred * r, r


def _standardize_vjp_x(F: Any, axis: Axes, g: Any, y: Any, r: Any) -> tuple[Any]:
    total = g - F.mean(g, axis=axis, keepdims=True)
    total -= y * F.mean(g * y, axis=axis, keepdims=True)
    total *= r
    return (total,)


def _in_blocks(
    function: Callable[..., tuple[Array, ...]], axis: Axes, *arrays: Array
) -> Sequence[Array]:
    """Return the results of a function of arrays, computed by blocks of rows that fit the cache."""
    x, results = arrays[0], list[Array]()
    F = namespaces[x.__class__]
    few = x.nbytes <= 2 * BLOCK_BYTES or x.ndim == len(axis)
    if few or backend.device_of(x) != "cpu":
        return function(F, axis, *arrays)
    rows = max(1, len(x) * BLOCK_BYTES // x.nbytes)
    for start in range(0, len(x), rows):
        parts = function(F, axis, *[a[start : start + rows] for a in arrays])
        if not results:
            new = backend.module_of(x).empty_like
            results = [new(x, shape=(len(x), *part.shape[1:])) for part in parts]
        for y, part in zip(results, parts, strict=True):
            y[start : start + rows] = part
    return results


def standardize(x: Tensor, axis: Axes, eps: float) -> Tensor:
    """Return (x - μ) / √(σ² + ε) for a floating x; `axis` are its last axes, as negative numbers.

    μ is the mean and σ² the biased variance over `axis`. Only the result and one number per row
    are kept for the backward pass.
    """
    y, r = _in_blocks(functools.partial(standardize_by_primitives, eps=eps), axis, x._data)
    if x._node is None or not is_grad_enabled():
        return wrap(y, None, None)
    node = StandardizeNode((x._node,), x.shape, x.dtype)
    node.axis, node.saved = axis, (y, r)
    return node.output(0, y)
