"""Losses, regularizers and layers as functions of Tensors.

Every function here is made of operations of the engine, whose gradients of any order it has. No
gradient rule is defined here. Formulas are in their numerically stable form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import random as tg_random
from ._util.api_hints import explain_errors, module_getattr
from .engine import backend, ops
from .engine.backend import Array
from .engine.namespaces import namespaces
from .engine.ops.axes import axis_of
from .engine.ops.normalize import standardize_by_primitives
from .engine.tensor import Tensor, wrap
from .errors import ArgumentError, DTypeError, GraphError, ShapeError
from .tensors import checks
from .tensors import log_softmax as log_softmax
from .tensors import softmax as softmax
from .tensors.indexing import plain_keys
from .transforms.fuse import fuse, mode

if TYPE_CHECKING:
    from numpy.random import Generator


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x Wᵀ + b.

    Parameters
    ----------
    x : Tensor
        (..., in), of the weight's dtype.
    weight : Tensor
        W, (out, in).
    bias : Tensor, optional
        b, (out,).

    Returns
    -------
    Tensor
        (..., out).

    Raises
    ------
    ShapeError
        The last axis of `x` is not the weight's.
    DTypeError
        The dtype of `x` is not the weight's.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.functional.linear(tg.ones(2, 3), tg.ones(4, 3)).shape
    (2, 4)
    """
    x = checks.require_tensor(x, "Linear")
    if x.shape[-1:] != weight.shape[1:] or (bias is not None and bias.shape != weight.shape[:1]):
        raise ShapeError(_linear_misfit(x, weight, bias))
    for part, other in (("input", x), ("bias", bias)):
        if other is None or other.dtype == weight.dtype:
            continue
        raise DTypeError(
            f"Linear: {part} is {other.dtype}, weight is {weight.dtype}: convert the input by "
            f".astype({str(weight.dtype)!r}) or the layer by .to({str(other.dtype)!r})"
        )
    if x.ndim == 1:
        return linear(x.reshape(1, -1), weight, bias).reshape(-1)
    return ops.linear(x, weight) if bias is None else ops.affine(x, weight, bias)


def _linear_misfit(x: Tensor, weight: Tensor, bias: Tensor | None) -> str:
    """Return the error message for shapes that do not fit."""
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        parts = f"{weight.shape}" if bias is None else f"{weight.shape} and {bias.shape}"
        return f"Linear: a weight (out, in) and a bias (out,) are expected, got {parts}"
    seen = f"{x.shape[-1]} features" if x.ndim else "no axis"
    return (
        f"Linear: input {x.shape} has {seen}, weight {weight.shape} expects {weight.shape[-1]}: "
        "the features are on the last axis"
    )


def embedding(ids: Any, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Return the rows of a table at the indices `ids`.

    Parameters
    ----------
    ids : Tensor or array_like of int
        Any shape, values in [0, V).
    weight : Tensor
        (V, D).
    padding_idx : int, optional
        The id of padding, in [-V, V): its row gets no gradient, and so is not learned.

    Returns
    -------
    Tensor
        (*ids.shape, D).

    Raises
    ------
    DTypeError
        `ids` are not integers.
    ArgumentError
        An id, or `padding_idx`, is outside the table. Ids that are on a GPU are checked there: the
        error is raised when the next value is read from the device, so that the host does not wait.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.functional.embedding([0, 2], tg.eye(3))
    tensor([[1., 0., 0.],
            [0., 0., 1.]])
    """
    weight = checks.require_tensor(weight, "Embedding: weight")
    if weight.ndim != 2:
        raise ShapeError(f"Embedding: a weight (V, D) is expected, got {weight.shape}")
    given = ids if isinstance(ids, Tensor) else backend.asarray(ids)
    _require_integers(given, "Embedding")
    table, key = plain_keys(weight, given, "Embedding", negative=False)
    rows = ops.getitem(table, key=key)
    if padding_idx is None:
        return rows
    padding_idx = checks.padding_row(padding_idx, weight.shape[0])
    if not isinstance(given, Tensor):  # the caller's, which is not saved
        given = wrap(backend.to_device(given, weight.device), None, None)
    is_padding = ops.equal(given, padding_idx)
    # Its row without a graph; where() drops the gradient, also one that is not finite.
    is_padding = ops.reshape(is_padding, shape=(*is_padding.shape, 1))
    return ops.where(is_padding, ops.getitem(weight.detach(), key=padding_idx), rows)


@explain_errors
def one_hot(ids: Any, num_classes: int, dtype: Any = None) -> Tensor:
    """Return vectors that are 1 at the id and 0 elsewhere.

    Parameters
    ----------
    ids : Tensor or array_like of int
        Any shape, values in [0, num_classes).
    num_classes : int
        Length of the vectors.
    dtype : dtype, optional
        The default floating dtype if None.

    Returns
    -------
    Tensor
        (*ids.shape, num_classes), on the device of `ids`.

    Raises
    ------
    DTypeError
        `ids` are not integers.
    ArgumentError
        An id is outside [0, num_classes); for ids on a GPU at the next value that is read.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.functional.one_hot([0, 2], 3)
    tensor([[1., 0., 0.],
            [0., 0., 1.]])
    """
    num_classes = checks.positive(num_classes, "one_hot: num_classes")
    dtype = checks.real_dtype(dtype, "one_hot")
    given = ids._data if isinstance(ids, Tensor) else backend.asarray(ids)
    _require_integers(given, "one_hot")
    checks.in_range("one_hot", given, num_classes)
    array = given if isinstance(ids, Tensor) else backend.to_device(given, None)
    hot = array[..., None] == backend.module_of(array).arange(num_classes)
    return wrap(hot.astype(dtype), None, None)


def standardize(x: Tensor, axis: tuple[int, ...], eps: float) -> Tensor:
    """Return (x - μ) / √(σ² + ε), with mean μ and variance σ² along the last axes.

    Parameters
    ----------
    x : Tensor
        Of any shape; integers give the default dtype.
    axis : tuple of int
        The last axes of x, as negative numbers, over which one mean and one variance are taken.
    eps : float
        ε.

    Returns
    -------
    Tensor
        The shape of `x`.

    Raises
    ------
    ShapeError
        If `axis` is not a tuple of the last axes, in order.

    Notes
    -----
    σ² is the biased variance. Half precision is computed in single. It is one operation, which
    saves its result and one number per row; inside ``with tg.fuse.disabled():`` it is several.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.functional.standardize(tg.tensor([[1.0, 3.0]]), (-1,), 0.0)
    tensor([[-1.,  1.]])
    """
    x = checks.require_tensor(x, "standardize")
    last = [tuple(range(-n, 0)) for n in range(1, x.ndim + 1)]
    if axis not in last:
        raise ShapeError(
            f"standardize: axis is a tuple of the last axes as negative numbers, in order: for "
            f"shape {x.shape} one of {last}, got {axis!r}"
        )
    if x.dtype.kind != "f":
        x = x.astype(backend.get_default_dtype())
    if x.dtype == backend.float16:
        return standardize(x.astype(backend.float32), axis, eps).astype(backend.float16)
    if mode.eager:
        return standardize_by_primitives(namespaces[Tensor], axis, x, eps)[0]
    return ops.standardize(x, axis, eps)


@fuse
def _scaled(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return y * weight + bias


@explain_errors
def layer_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Return (x - μ) / √(σ² + ε) · w + b, with mean μ and variance σ² over the last axes.

    Parameters
    ----------
    x : Tensor
        (..., *normalized_shape).
    normalized_shape : int or sequence of int
        The sizes of the last axes, over which one mean and one variance are taken.
    weight, bias : Tensor, optional
        w and b, of shape `normalized_shape`.
    eps : float
        ε, which keeps a constant input from dividing by zero.

    Returns
    -------
    Tensor
        The shape of `x`.

    Raises
    ------
    ShapeError
        `x` does not end in `normalized_shape`.
    DTypeError
        The dtype of `x` is not the weight's.

    Notes
    -----
    Ba, Kiros and Hinton, "Layer normalization", 2016, equation 4; σ² is the biased variance.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.functional.layer_norm(tg.tensor([[1.0, 3.0]]), 2, eps=0.0)
    tensor([[-1.,  1.]])
    """
    x = checks.require_tensor(x, "LayerNorm")
    shape = checks.lengths((normalized_shape,), "LayerNorm: normalized_shape")
    if not shape or x.shape[-len(shape) :] != shape:
        raise ShapeError(f"LayerNorm: input {x.shape} does not end in the normalized shape {shape}")
    for name, part in (("weight", weight), ("bias", bias)):
        if part is not None and part.shape != shape:
            raise ShapeError(f"LayerNorm: {name} is {part.shape}, the normalized shape is {shape}")
        if part is not None and part.dtype != x.dtype:
            raise DTypeError(
                f"LayerNorm: input is {x.dtype}, {name} is {part.dtype}: convert the input by "
                f".astype({str(part.dtype)!r}) or the layer by .to({str(x.dtype)!r})"
            )
    axes = tuple(range(-len(shape), 0))
    y = standardize(x, axes, eps)
    if weight is not None and bias is not None:
        return _scaled(y, weight, bias)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@explain_errors
def dropout(
    x: Tensor, p: float = 0.5, training: bool = True, rng: int | Generator | None = None
) -> Tensor:
    """Set each element to zero with probability p, and multiply the others by 1 / (1 - p).

    Parameters
    ----------
    x : Tensor
        Any shape, floating.
    p : float
        Probability of zero, in [0, 1].
    training : bool
        If false, or if p is 0, `x` itself is returned and no random number is drawn.
    rng : int or Generator, optional
        Seed or generator; the library's own generator if None. An integer draws the same mask
        at every call.

    Returns
    -------
    Tensor
        The shape of `x`; its expectation is `x`.

    Raises
    ------
    ArgumentError
        If `p` is not in [0, 1].
    DTypeError
        If `x` is not floating.

    Notes
    -----
    Srivastava and others, "Dropout: a simple way to prevent neural networks from overfitting",
    2014. The mask thresholds 32 random bits an element, so p is exact to 2⁻³².

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> y = tg.functional.dropout(tg.ones(1000), p=0.25, rng=0)
    >>> sorted({round(float(v), 4) for v in y.numpy()})
    [0.0, 1.3333]
    """
    p = checks.number(p, "Dropout: p", 0, 1)
    x = checks.require_tensor(x, "Dropout")
    if not training or p == 0.0:
        return x
    if x.dtype.kind != "f":
        raise DTypeError(f"Dropout: input must be floating, got {x.dtype}")
    return masked(x, tg_random.keep_mask(x.shape, 1.0 - p, rng, x.device), p)


def masked(x: Tensor, mask: Any, p: float) -> Tensor:
    """Apply dropout to x with a mask that was drawn before.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    mask : array of booleans, of the same shape
        The elements to keep, from `tg.random.keep_mask`.
    p : float
        The probability of zero that the mask was drawn with.

    Returns
    -------
    Tensor
        x / (1 - p) where the mask holds, 0 elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> tg.functional.masked(tg.ones(3), np.array([True, False, True]), 0.5)
    tensor([2., 0., 2.])
    """
    scaled = x * (1.0 / (1.0 - p)) if p < 1.0 else x
    return ops.where(backend.to_device(mask, x.device), scaled, 0.0)


@explain_errors
def cross_entropy(
    logits: Tensor,
    target: Any,
    axis: int = -1,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    weight: Any = None,
) -> Tensor:
    """Return the cross-entropy -log softmax(logits)[target], in nats.

    Parameters
    ----------
    logits : Tensor
        Unnormalised log-probabilities, V of them along `axis`.
    target : Tensor or array_like of int
        Ids in [0, V), of the shape of `logits` without `axis`.
    axis : int
        The axis of the classes; PyTorch's is 1.
    reduction : {"mean", "sum", "none"}
        Over all positions.
    ignore_index : int, optional
        Positions with this target have loss and gradient 0, also if their logits are infinite or
        nan, and do not count in the mean.
    label_smoothing : float
        s in [0, 1]: the target distribution is (1 - s) one-hot + s / V.
    weight : Tensor or array_like, optional
        w, (V,), at least 0: the loss of class k is multiplied by w[k], and the mean is the weighted
        one, Σ w[target] loss / Σ w[target]. Constants: they get no gradient.

    Returns
    -------
    Tensor
        0-d; with "none", the shape of `target`.

    Raises
    ------
    ShapeError
        `target` or `weight` does not fit; where `axis=1` would fit, the message says so.
    DTypeError
        `target` are not integers.
    ArgumentError
        A target is outside [0, V), a weight is negative, or all targets are ignored or have the
        weight 0, and the mean does not exist. Arrays on a GPU are checked there: the error is
        raised when the next value is read from the device, so that the host does not wait, and the
        mean of nothing is nan.

    Notes
    -----
    Label smoothing: Szegedy and others, "Rethinking the inception architecture", 2016, section 7.
    With weights too, each term of the sum over the classes has the weight of its class, and the
    mean is divided by Σ w[target] still, as in PyTorch.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> logits = tg.zeros(35, 32, 28)
    >>> target = tg.zeros(35, 32, dtype=tg.int64)
    >>> round(tg.functional.cross_entropy(logits, target).item(), 4)  # log 28
    3.3322
    """
    logits = checks.require_tensor(logits, "cross_entropy: logits")
    if logits.dtype.kind != "f":
        raise DTypeError(
            f"cross_entropy: logits are {logits.dtype}; floating numbers are expected: use "
            ".astype(...)"
        )
    label_smoothing = checks.number(label_smoothing, "cross_entropy: label_smoothing", 0, 1)
    axis = axis_of(axis, logits.ndim)
    is_tensor = isinstance(target, Tensor)
    ids, keep = target._data if is_tensor else backend.asarray(target), None
    _check_targets(ids, logits.shape, axis)
    if ignore_index is not None:
        if isinstance(ignore_index, bool) or not hasattr(ignore_index, "__index__"):
            raise ArgumentError(f"cross_entropy: ignore_index is an id, got {ignore_index!r}")
        keep = ids != ignore_index
        ids = ids * keep  # class 0 replaces an ignored target
    checks.in_range("cross_entropy", ids, logits.shape[axis])
    device = backend.device_of(ids) if is_tensor else logits.device
    w = None if weight is None else _class_weights(weight, logits.shape[axis], device)
    count: Array = None
    if reduction == "mean" and not (keep is None and w is None):
        count = keep if w is None else w[backend.to_device(ids, device)]
        if keep is not None and w is not None:
            count = count * backend.to_device(keep, device)
        count = count.sum()
        if backend.device_of(count) == "cpu" and not count:
            or_light = "" if w is None else " or has the weight 0"
            raise ArgumentError(
                f"cross_entropy: every target is ignored{or_light}, so the mean does not exist"
            )
    # The graph saves a copy: the user may change the array.
    ids = wrap(backend.to_device(backend.copy(ids), device), None, None)
    if keep is not None:
        keep = backend.to_device(keep, device)
        # Zeros replace the logits: 0 times the gradient of a softmax of infinities is nan.
        logits = ops.where(backend.module_of(keep).expand_dims(keep, axis), logits, 0.0)
    if w is None:
        losses = ops.cross_entropy(logits, ids, axis=axis, label_smoothing=label_smoothing)
    else:
        losses = _weighted_losses(logits, ids, axis, label_smoothing, w)
    losses = losses if keep is None else ops.where(keep, losses, 0.0)
    if count is None:
        return _reduce(losses, reduction, "cross_entropy")
    half = losses.dtype == backend.float16  # sum and count of many may be out of its range
    total = ops.sum(losses.astype(backend.float32) if half else losses)
    count = backend.to_device(count, device)
    mean = ops.divide(total, count.astype(total.dtype) if count.dtype.kind == "f" else count)
    return mean.astype(backend.float16) if half else mean


def _class_weights(weight: Any, classes: int, device: str) -> Array:
    """Return the weights of the classes, in float64."""
    if isinstance(weight, Tensor) and weight.requires_grad:
        raise GraphError("cross_entropy: the class weights are constants: pass weight.detach()")
    if isinstance(weight, str | dict):
        raise ArgumentError(
            f"cross_entropy: the class weights are {classes} numbers, got {weight!r:.40}: balanced "
            f"ones are len(y) / ({classes} * numpy.bincount(y, minlength={classes})), y all labels"
        )
    given = weight._data if isinstance(weight, Tensor) else backend.asarray(weight)
    if given.shape != (classes,):
        raise ShapeError(
            f"cross_entropy: {classes} classes need a weight of ({classes},), got {given.shape}"
        )
    if backend.device_of(given) == "cpu" and not (
        (given >= 0).all() and backend.module_of(given).isfinite(given).all()
    ):
        raise ArgumentError(
            f"cross_entropy: class weights are finite and at least 0, got {given.min()} to "
            f"{given.max()}"
        )
    return backend.to_device(given.astype(backend.float64), device)


def _weighted_losses(
    logits: Tensor, ids: Tensor, axis: int, label_smoothing: float, weight: Array
) -> Tensor:
    weight = weight.astype(logits.dtype)
    losses = ops.cross_entropy(logits, ids, axis=axis, label_smoothing=0.0)
    losses = ops.multiply(losses, weight[ids._data])
    if not label_smoothing:
        return losses
    classes = weight.reshape([-1 if i == axis else 1 for i in range(logits.ndim)])
    every = ops.sum(ops.multiply(log_softmax(logits, axis=axis), classes), axis=axis)
    return (1.0 - label_smoothing) * losses - label_smoothing / len(weight) * every


def _check_targets(ids: Array, logits: tuple[int, ...], axis: int) -> None:
    """Raise unless the targets are integers of the shape of the logits without `axis`."""
    rest = logits[:axis] + logits[axis + 1 :]
    if ids.dtype.kind not in "iu":
        raise DTypeError(f"cross_entropy: targets are class numbers (integers), got {ids.dtype}")
    if ids.shape != rest:
        hint = ""
        if len(logits) > 1 and axis != 1 and ids.shape == logits[:1] + logits[2:]:
            hint = "; if the classes are on axis 1, as in PyTorch, pass axis=1"
        raise ShapeError(
            f"cross_entropy: logits {logits} with classes on axis {axis} need a target of {rest}, "
            f"got {ids.shape}{hint}"
        )


@explain_errors
def mse_loss(prediction: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """Return the squared error (prediction - target)².

    Parameters
    ----------
    prediction : Tensor
        Any shape.
    target : Tensor or array_like
        The same shape; it is not broadcast.
    reduction : {"mean", "sum", "none"}
        Over all elements.

    Returns
    -------
    Tensor
        0-d; with "none", the shape of `prediction`.

    Raises
    ------
    ShapeError
        The shapes differ.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.functional.mse_loss(tg.tensor([1.0, 2.0]), [1.0, 4.0])
    tensor(2.)
    """
    prediction = checks.require_tensor(prediction, "mse_loss: prediction")
    target = _like(target, prediction, "mse_loss")
    error = prediction - target
    return _reduce(error * error, reduction, "mse_loss")


@explain_errors
def binary_cross_entropy_with_logits(
    logits: Tensor, target: Any, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """Return -y log σ(x) - (1 - y) log(1 - σ(x)) for logits x and targets y, in nats.

    Parameters
    ----------
    logits : Tensor
        x, any shape.
    target : Tensor or array_like
        y in [0, 1], the same shape; it is not broadcast. Booleans and integers are accepted.
    reduction : {"mean", "sum", "none"}
        Over all elements.
    pos_weight : Tensor or array_like, optional
        The factor of the first term, at least 0; a number, or of a shape that broadcasts to that of
        `logits`. The ratio of negative to positive targets balances them. A constant.

    Returns
    -------
    Tensor
        0-d; with "none", the shape of `logits`.

    Raises
    ------
    ShapeError
        The shapes differ, or `pos_weight` does not broadcast to them.
    ArgumentError
        A target is outside [0, 1], or a weight negative.

    Notes
    -----
    Computed as y softplus(-x) + (1 - y) softplus(x), without overflow and cancellation.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.functional.binary_cross_entropy_with_logits(tg.tensor([1e4, -1e4]), [1, 0])
    tensor(0.)
    """
    op = "binary_cross_entropy_with_logits"
    logits = checks.require_tensor(logits, f"{op}: logits")
    given = target._data if isinstance(target, Tensor) else backend.asarray(target)
    if backend.device_of(given) == "cpu" and given.size and (given.min() < 0 or given.max() > 1):
        raise ArgumentError(f"{op}: targets are in [0, 1], got {given.min()} to {given.max()}")
    y = _like(target, logits, op)
    positive = y if pos_weight is None else y * _positive_weights(pos_weight, logits, op)
    losses = positive * ops.softplus(-logits) + (1.0 - y) * ops.softplus(logits)
    return _reduce(losses, reduction, op)


def _positive_weights(pos_weight: Any, logits: Tensor, op: str) -> Array:
    if isinstance(pos_weight, Tensor) and pos_weight.requires_grad:
        raise GraphError(f"{op}: pos_weight is a constant: pass pos_weight.detach()")
    given = pos_weight._data if isinstance(pos_weight, Tensor) else backend.asarray(pos_weight)
    fits = given.ndim <= logits.ndim and all(
        n in (1, m) for n, m in zip(given.shape[::-1], logits.shape[::-1], strict=False)
    )
    if not fits:
        raise ShapeError(
            f"{op}: pos_weight {given.shape} does not broadcast to the logits {logits.shape}: pass "
            "a number, or one for each column"
        )
    if backend.device_of(given) == "cpu" and not (given >= 0).all():
        raise ArgumentError(f"{op}: pos_weight must be at least 0, got {given.min()}")
    return backend.to_device(given.astype(logits.dtype), logits.device)


def perplexity(mean_nats: float | Tensor) -> float:
    """Return exp(mean cross-entropy), the perplexity of a language model.

    Parameters
    ----------
    mean_nats : float or Tensor
        The mean loss in nats per token; a Tensor is 0-d.

    Returns
    -------
    float
        1 for a model that is always right, V for one that finds V tokens equally likely;
        infinite where exp overflows.

    Raises
    ------
    ArgumentError
        If the mean is not a number.

    Notes
    -----
    The mean over all tokens comes first: see `tinygrad_rnn.metrics.Perplexity`.

    Examples
    --------
    >>> import math
    >>> import tinygrad_rnn as tg
    >>> round(tg.functional.perplexity(math.log(28)), 6)
    28.0
    """
    nats = checks.any_number(mean_nats, "perplexity: the mean of the losses")
    return math.exp(nats) if nats < 709.0 else math.inf if nats == nats else nats


# -- checks ----------------------------------------------------------------------------------------


def _require_integers(ids: Any, op: str) -> None:
    if ids.dtype.kind not in "iu":
        raise DTypeError(f"{op}: ids must be integers, got {ids.dtype}")


def _like(target: Any, prediction: Tensor, op: str) -> Tensor:
    """Return `target` as a floating Tensor of the shape of `prediction`."""
    is_tensor = isinstance(target, Tensor)
    if prediction.dtype.kind != "f":
        raise DTypeError(
            f"{op}: the prediction is {prediction.dtype}; floating numbers are expected: "
            "use .astype(...)"
        )
    y: Tensor = target if is_tensor else Tensor(target, device=prediction.device)
    if y.shape != prediction.shape:
        raise ShapeError(
            f"{op}: prediction {prediction.shape} and target {y.shape} differ; "
            "the loss does not broadcast: reshape one of them"
        )
    return y if y.dtype.kind == "f" else y.astype(prediction.dtype)


def _reduce(losses: Tensor, reduction: str, op: str) -> Tensor:
    if reduction == "none":
        return losses
    if reduction == "sum":
        return ops.sum(losses)
    if reduction != "mean":
        raise ArgumentError(f"{op}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if not losses.size:
        raise ArgumentError(f"{op}: the batch is empty, so the mean of the losses does not exist")
    return ops.mean(losses)


__getattr__ = module_getattr(
    __name__,
    {name: f"tinygrad_rnn.{name}" for name in ("relu", "sigmoid", "tanh", "softplus", "pad")}
    | {
        "nll_loss": "cross_entropy, which takes logits",
        "logsigmoid": "-tinygrad_rnn.softplus(-x)",
        "l1_loss": "tinygrad_rnn.abs(x - y).mean()",
        "leaky_relu": "tinygrad_rnn.maximum(x, 0.01 * x)",
        "silu": "x * tinygrad_rnn.sigmoid(x)",
        "binary_cross_entropy": "binary_cross_entropy_with_logits, which takes logits",
    },
    globals(),
)
