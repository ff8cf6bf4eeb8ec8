"""Softmax, its logarithm, and the cross-entropy from logits: stable, whatever the size of the "
"logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import ArgumentError, DTypeError, ShapeError
from .. import backend
from ..backend import Array
from ..primitive import primitive
from .shape import axis_of, reshape

if TYPE_CHECKING:
    from ..tensor import Tensor


@primitive(
    floating=True, x=lambda F, g, out, axis: out * (g - F.sum(g * out, axis=axis, keepdims=True))
)
def softmax(xp: Any, x: Array, axis: int = -1) -> Array:
    """Return exp(x) over its sum along `axis`."""
    out = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    return out / xp.sum(out, axis=axis, keepdims=True)


@primitive(
    floating=True, x=lambda F, g, out, axis: g - F.exp(out) * F.sum(g, axis=axis, keepdims=True)
)
def log_softmax(xp: Any, x: Array, axis: int = -1) -> Array:
    """Return x - logsumexp(x) along `axis`."""
    shifted = x - xp.max(x, axis=axis, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))


@primitive(logits=None, target=None)
def smoothed_one_hot(xp: Any, logits: Array, target: Array, axis: int, smoothing: float) -> Array:
    """Return, in the shape of the logits, the distribution 1 - smoothing at the target and "
    "smoothing spread evenly."""
    size = logits.shape[axis]
    out = xp.full_like(logits, smoothing / size)
    classes = xp.arange(size).reshape([-1 if i == axis else 1 for i in range(out.ndim)])
    out[classes == xp.expand_dims(target, axis)] += 1 - smoothing
    return out


def _to_logits(F: Any, g: Any, logits: Any, target: Any, axis: int, label_smoothing: float) -> Any:
    shape = logits.shape
    wanted = F.smoothed_one_hot(logits, target, axis=axis, smoothing=label_smoothing)
    kept = tuple(1 if i == axis else n for i, n in enumerate(shape))
    return (F.softmax(logits, axis=axis) - wanted) * F.reshape(g, shape=kept)


@primitive(logits=_to_logits, target=None)
def nats(xp: Any, logits: Array, target: Array, axis: int, label_smoothing: float) -> Array:
    """Return logsumexp(logits) minus the logit of the target (with smoothing: minus the mean "
    "one, in that proportion)."""
    shifted = logits - xp.max(logits, axis=axis, keepdims=True)
    total = xp.log(xp.sum(xp.exp(shifted), axis=axis))
    picked = xp.take_along_axis(shifted, xp.expand_dims(target, axis), axis=axis).squeeze(axis)
    if not label_smoothing:
        return total - picked
    return total - (1 - label_smoothing) * picked - label_smoothing * xp.mean(shifted, axis=axis)


def cross_entropy(
    logits: Tensor, target: Any, axis: int = -1, label_smoothing: float = 0.0
) -> Tensor:
    """Return -log softmax(logits) at the target class, in nats, for every position; `target` has "
    "no `axis`."""
    logits = reshape(logits, shape=None)
    axis = axis_of(axis, logits.ndim)
    classes = backend.asarray(target._data if hasattr(target, "_data") else target)
    rest = logits.shape[:axis] + logits.shape[axis + 1 :]
    if classes.dtype.kind not in "iu":
        raise DTypeError(
            f"cross_entropy: targets are class numbers (integers), got {classes.dtype}"
        )
    if classes.shape != rest:
        hint = ""
        if logits.ndim > 1 and axis != 1 and classes.shape == logits.shape[:1] + logits.shape[2:]:
            hint = "; if the classes are on axis 1, as in PyTorch, pass axis=1"
        raise ShapeError(
            f"cross_entropy: logits {logits.shape} with classes on axis {axis} need a target of "
            f"{rest}, got {classes.shape}{hint}"
        )
    if not 0 <= label_smoothing <= 1:
        raise ArgumentError(f"cross_entropy: label_smoothing is in [0, 1], got {label_smoothing}")
    size = logits.shape[axis]
    if (
        classes.size
        and backend.device_of(classes) == "cpu"
        and (classes.min() < 0 or classes.max() >= size)
    ):
        raise ArgumentError(
            f"cross_entropy: targets from {classes.min()} to {classes.max()}, but there are "
            f"{size} classes"
        )
    return nats(logits, classes, axis=axis, label_smoothing=label_smoothing)
