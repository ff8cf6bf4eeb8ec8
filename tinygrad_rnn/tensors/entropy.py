"""The cross-entropy of class numbers, from logits of any size."""

from __future__ import annotations

from typing import Any

from ..engine import backend
from ..engine.backend import Array
from ..engine.ops import axis_of, kernels, where
from ..engine.ops.reduce import _in_single
from ..engine.primitive import primitive
from ..engine.tensor import Tensor
from ..errors import ArgumentError, DTypeError, ShapeError
from .shape import as_tensor
from .softmax import _top


@primitive(logits=None, target=None)
def smoothed_one_hot(xp: Any, logits: Array, target: Array, axis: int, smoothing: float) -> Array:
    """Return the distribution 1 - smoothing at the target plus smoothing spread evenly."""
    size = logits.shape[axis]
    classes = xp.arange(size).reshape([-1 if i == axis else 1 for i in range(logits.ndim)])
    hot = xp.empty_like(logits)  # in its memory order, so that they meet without a conflict
    hot[...] = classes == xp.expand_dims(target, axis)
    return hot * (1 - smoothing) + smoothing / size if smoothing else hot


@_in_single
def _to_logits(F: Any, g: Any, logits: Any, target: Any, axis: int, label_smoothing: float) -> Any:
    wanted = F.smoothed_one_hot(logits, target, axis=axis, smoothing=label_smoothing)
    kept = tuple(1 if i == axis else n for i, n in enumerate(logits.shape))
    return (F.softmax(logits, axis=axis) - wanted) * F.reshape(g, shape=kept)


@primitive(logits=_to_logits, target=None)
@_in_single
def nats(xp: Any, logits: Array, target: Array, axis: int, label_smoothing: float) -> Array:
    """Return logsumexp(logits) minus the target's logit, or minus its mix with the mean one."""
    shifted = logits - _top(xp, logits, axis)
    total = xp.log(kernels.reduced("sum", xp.exp(shifted), axis, False))
    picked = xp.take_along_axis(shifted, xp.expand_dims(target, axis), axis=axis).squeeze(axis)
    if not label_smoothing:
        return total - picked
    return (
        total
        - (1 - label_smoothing) * picked
        - label_smoothing * kernels.reduced("mean", shifted, axis, False)
    )


def cross_entropy(
    logits: Tensor,
    target: Any,
    axis: int = -1,
    label_smoothing: float = 0.0,
    keep: Array | None = None,
) -> Tensor:
    """Return -log softmax(logits) at the target class, in nats, for every position.

    Parameters
    ----------
    logits : Tensor
        Of any shape, with the classes along `axis`.
    target : Tensor
        Class numbers, integers of the shape of `logits` without `axis`.
    axis : int
        Negative ones count from the end.
    label_smoothing : float
        The part ε in [0, 1] of the target that is spread evenly over the classes.
    keep : array of bool, optional
        Of the shape of `target`: the positions that count. The others have loss and gradient 0,
        whatever their logits are, infinite ones and nan too.

    Returns
    -------
    Tensor
        The losses, of the shape of `target`.

    Raises
    ------
    DTypeError
        If `target` does not hold integers.
    ShapeError
        If its shape is not that of `logits` without `axis`.
    ArgumentError
        If a class number or `label_smoothing` is out of range.

    Notes
    -----
    The target distribution is (1 - ε) one_hot + ε / K (Szegedy et al. 2016, section 7). The
    gradient to the logits is softmax(logits) minus that distribution.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.tensors.cross_entropy(tg.tensor([[0.0, 0.0], [1000.0, 0.0]]), tg.tensor([1, 0]))
    tensor([0.6931472, 0.       ])
    """
    logits = as_tensor(logits)
    axis = axis_of(axis, logits.ndim)
    classes = backend.asarray(target._data if isinstance(target, Tensor) else target)
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
    if keep is None:
        return nats(logits, classes, axis=axis, label_smoothing=label_smoothing)
    # Zeros stand in for the logits: 0 times the gradient of a softmax of infinities is nan.
    logits = where(backend.module_of(keep).expand_dims(keep, axis), logits, 0.0)
    losses = nats(logits, classes, axis=axis, label_smoothing=label_smoothing)
    return where(keep, losses, 0.0)
