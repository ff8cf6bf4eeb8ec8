"""Softmax and its logarithm, stable for logits of any size.

The maximum is subtracted before `exp`, so that nothing overflows. Half precision is computed in
single.
"""

from __future__ import annotations

from typing import Any

from ..backend import Array
from ..primitive import primitive
from . import kernels
from .axes import without_number
from .docstrings import along_axis
from .half_precision import in_single_precision


def shifted_logits(xp: Any, x: Array, axis: Any) -> Array:
    """Return x minus its maximum along an axis, for `exp`."""
    axis = without_number(axis, x.ndim)
    return x - (xp.sum if 0 in x.shape else xp.max)(x, axis=axis, keepdims=True)  # of nothing: 0


@in_single_precision
def _softmax_vjp_x(F: Any, g: Any, out: Any, axis: int) -> Any:
    return out * (g - F.sum(g * out, axis=axis, keepdims=True))


@along_axis
@primitive(floating=True, x=_softmax_vjp_x)
@in_single_precision
def softmax(xp: Any, x: Array, axis: int = -1) -> Array:
    """Return exp(x) over its sum along an axis.

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
    out = xp.exp(shifted_logits(xp, x, axis))
    return out / kernels.reduced("sum", out, axis, True)


@in_single_precision
def _log_softmax_vjp_x(F: Any, g: Any, out: Any, axis: int) -> Any:
    return g - F.exp(out) * F.sum(g, axis=axis, keepdims=True)


@along_axis
@primitive(floating=True, x=_log_softmax_vjp_x)
@in_single_precision
def log_softmax(xp: Any, x: Array, axis: int = -1) -> Array:
    """Return the logarithm of the softmax along an axis: x - logsumexp(x).

    Notes
    -----
    The maximum is subtracted before `exp`; no small probability is rounded to 0 on the way.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.log_softmax(tg.tensor([1000.0, 1000.0]))
    tensor([-0.6931472, -0.6931472])
    """
    shifted = shifted_logits(xp, x, axis)
    total = kernels.reduced("sum", xp.exp(shifted), axis, True)
    return shifted - xp.log(total + 1 if 0 in x.shape else total)  # of nothing: no logarithm of 0
