"""Softmax and its logarithm: stable for logits of any size."""

from __future__ import annotations

from typing import Any

from ..engine.backend import Array
from ..engine.ops.kernels import reduced
from ..engine.ops.reduce import _in_single
from ..engine.primitive import primitive


def _top(xp: Any, x: Array, axis: Any) -> Array:
    """Return the greatest along an axis, which is kept, to subtract before exp; 0 of nothing."""
    return (xp.sum if 0 in x.shape else xp.max)(x, axis=axis, keepdims=True)


@primitive(
    floating=True,
    x=_in_single(lambda F, g, out, axis: out * (g - F.sum(g * out, axis=axis, keepdims=True))),
)
@_in_single
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
    out = xp.exp(x - _top(xp, x, axis))
    return out / reduced("sum", out, axis, True)


@primitive(
    floating=True,
    x=_in_single(lambda F, g, out, axis: g - F.exp(out) * F.sum(g, axis=axis, keepdims=True)),
)
@_in_single
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
    shifted = x - _top(xp, x, axis)
    total = reduced("sum", xp.exp(shifted), axis, True)
    return shifted - xp.log(total + 1 if 0 in x.shape else total)  # of nothing: no logarithm of 0
