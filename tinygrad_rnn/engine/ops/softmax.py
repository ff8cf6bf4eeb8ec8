"""Softmax, its logarithm, and the cross-entropy from logits: stable for logits of any size."""

from __future__ import annotations

from typing import Any

from ..backend import Array
from ..primitive import primitive


@primitive(
    floating=True, x=lambda F, g, out, axis: out * (g - F.sum(g * out, axis=axis, keepdims=True))
)
def softmax(xp: Any, x: Array, axis: int = -1) -> Array:
    """Return exp(x) over its sum along an axis.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    axis : int
        Negative ones count from the end.

    Returns
    -------
    Tensor
        Of the shape of x, positive, with sum 1 along `axis`.

    Notes
    -----
    The maximum is subtracted before `exp`, which changes nothing but the range.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.softmax(tg.tensor([1000.0, 1000.0]))
    tensor([0.5, 0.5])
    """
    out = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    return out / xp.sum(out, axis=axis, keepdims=True)


@primitive(
    floating=True, x=lambda F, g, out, axis: g - F.exp(out) * F.sum(g, axis=axis, keepdims=True)
)
def log_softmax(xp: Any, x: Array, axis: int = -1) -> Array:
    """Return the logarithm of the softmax along an axis: x - logsumexp(x).

    Parameters
    ----------
    x : Tensor
        Of any shape.
    axis : int
        Negative ones count from the end.

    Returns
    -------
    Tensor
        Of the shape of x.

    Notes
    -----
    The maximum is subtracted before `exp`; no small probability is rounded to 0 on the way.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.log_softmax(tg.tensor([1000.0, 1000.0]))
    tensor([-0.6931472, -0.6931472])
    """
    shifted = x - xp.max(x, axis=axis, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))


@primitive(logits=None, target=None)
def smoothed_one_hot(xp: Any, logits: Array, target: Array, axis: int, smoothing: float) -> Array:
    """Return the distribution 1 - smoothing at the target plus smoothing spread evenly."""
    size = logits.shape[axis]
    classes = xp.arange(size).reshape([-1 if i == axis else 1 for i in range(logits.ndim)])
    hot = xp.empty_like(logits)  # in its memory order, so that they meet without a conflict
    hot[...] = classes == xp.expand_dims(target, axis)
    return hot * (1 - smoothing) + smoothing / size if smoothing else hot


def _to_logits(F: Any, g: Any, logits: Any, target: Any, axis: int, label_smoothing: float) -> Any:
    wanted = F.smoothed_one_hot(logits, target, axis=axis, smoothing=label_smoothing)
    kept = tuple(1 if i == axis else n for i, n in enumerate(logits.shape))
    return (F.softmax(logits, axis=axis) - wanted) * F.reshape(g, shape=kept)


@primitive(logits=_to_logits, target=None)
def nats(xp: Any, logits: Array, target: Array, axis: int, label_smoothing: float) -> Array:
    """Return logsumexp(logits) minus the target's logit, or minus its mix with the mean one."""
    shifted = logits - xp.max(logits, axis=axis, keepdims=True)
    total = xp.log(xp.sum(xp.exp(shifted), axis=axis))
    picked = xp.take_along_axis(shifted, xp.expand_dims(target, axis), axis=axis).squeeze(axis)
    if not label_smoothing:
        return total - picked
    return total - (1 - label_smoothing) * picked - label_smoothing * xp.mean(shifted, axis=axis)
