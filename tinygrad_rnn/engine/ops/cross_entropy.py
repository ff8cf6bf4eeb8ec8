"""The cross-entropy of class numbers, from logits of any size.

With label smoothing ε the target distribution is (1 - ε) one-hot + ε / K (Szegedy and others 2016,
section 7). The gradient of the logits is their softmax minus that distribution.
"""

from __future__ import annotations

from typing import Any

from ..backend import Array, module_of
from ..primitive import primitive
from . import kernels
from .half_precision import in_single_precision
from .softmax import shifted_logits


@primitive(name="cross_entropy", logits=None, target=None)
def smoothed_one_hot(
    xp: Any, logits: Array, target: Array, axis: int, label_smoothing: float
) -> Array:
    """Return the target distribution, of the shape of the logits."""
    size = logits.shape[axis]
    classes = xp.arange(size).reshape([-1 if i == axis else 1 for i in range(logits.ndim)])
    hot = xp.empty_like(logits)  # in the memory order of the logits, which it is subtracted from
    hot[...] = classes == xp.expand_dims(target, axis)
    return hot * (1 - label_smoothing) + label_smoothing / size if label_smoothing else hot


@in_single_precision
def _cross_entropy_vjp_logits(
    F: Any, g: Any, logits: Any, target: Any, axis: int, label_smoothing: float
) -> Any:
    if not F.records:
        xp = module_of(logits)
        found = kernels.try_faster(xp, "cross_entropy", logits, target, axis, label_smoothing, g)
        if found is not NotImplemented:
            return found
    wanted = F.smoothed_one_hot(logits, target, axis=axis, label_smoothing=label_smoothing)
    kept = tuple(1 if i == axis else n for i, n in enumerate(logits.shape))
    return (F.softmax(logits, axis=axis) - wanted) * F.reshape(g, shape=kept)


@primitive(logits=_cross_entropy_vjp_logits, target=None)
@in_single_precision
def cross_entropy(
    xp: Any, logits: Array, target: Array, axis: int, label_smoothing: float
) -> Array:
    """Return -log softmax(logits) at the target, in nats, mixed with the mean over the classes.

    `axis` counts from 0. The result has the shape of `target`.
    """
    found = kernels.try_faster(xp, "cross_entropy", logits, target, axis, label_smoothing, None)
    if found is not NotImplemented:
        return found
    shifted = shifted_logits(xp, logits, axis)
    total = xp.log(kernels.reduced("sum", xp.exp(shifted), axis, False))
    picked = xp.take_along_axis(shifted, xp.expand_dims(target, axis), axis=axis).squeeze(axis)
    if not label_smoothing:
        return total - picked
    return (
        total
        - (1 - label_smoothing) * picked
        - label_smoothing * kernels.reduced("mean", shifted, axis, False)
    )
