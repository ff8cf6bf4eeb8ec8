"""Exponential, logarithmic, hyperbolic and trigonometric functions, element by element.

Forward and gradient are finite wherever the exact value is: no intermediate result overflows.
Integer arguments give the default floating dtype.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array
from ..primitive import primitive
from .docstrings import elementwise


@elementwise
@primitive(floating=True, x=lambda F, g, out: g * out)
def exp(xp: Any, x: Array) -> Array:
    """Return e to the power x.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.exp(tg.tensor([0.0]))
    tensor([1.])
    """
    return xp.exp(x)


@elementwise
@primitive(floating=True, x=lambda F, g, out: g * (out + 1))
def expm1(xp: Any, x: Array) -> Array:
    """Return exp(x) - 1, exact near 0.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.expm1(tg.tensor([0.0, 1e-10]))
    tensor([0.e+00, 1.e-10])
    """
    return xp.expm1(x)


@elementwise
@primitive(floating=True, x=lambda F, g, x: g / x)
def log(xp: Any, x: Array) -> Array:
    """Return the natural logarithm of x.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.log(tg.tensor([1.0, 2.0]))
    tensor([0.       , 0.6931472])
    """
    return xp.log(x)


@elementwise
@primitive(floating=True, x=lambda F, g, x: g / (1 + x))
def log1p(xp: Any, x: Array) -> Array:
    """Return log(1 + x), exact near 0.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.log1p(tg.tensor([0.0, 1e-10]))
    tensor([0.e+00, 1.e-10])
    """
    return xp.log1p(x)


@elementwise
@primitive(floating=True, x=lambda F, g, out: g * (out * (1 - out)))
def sigmoid(xp: Any, x: Array) -> Array:
    """Return the logistic function 1 / (1 + exp(-x)), which is exp(x) / (1 + exp(x)).

    Notes
    -----
    x is limited from above to where exp(x) is finite; the gradient is σ(x) (1 - σ(x)).

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.sigmoid(tg.tensor([0.0, 100.0]))
    tensor([0.5, 1. ])
    """
    e = xp.exp(xp.minimum(x, {2: 11.0, 4: 88.0}.get(x.dtype.itemsize, 709.0)))  # finite
    return e / (1 + e)


@elementwise
@primitive(floating=True, x=lambda F, g, out: g * (1 - out * out))
def tanh(xp: Any, x: Array) -> Array:
    """Return the hyperbolic tangent of x.

    Notes
    -----
    The gradient is 1 - tanh(x)², computed from the result alone.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([0.0, 100.0], requires_grad=True)
    >>> y = tg.tanh(x)
    >>> y.sum().backward()
    >>> y.detach(), x.grad
    (tensor([0., 1.]), tensor([1., 0.]))
    """
    return xp.tanh(x)


@elementwise
@primitive(floating=True, x=lambda F, g, x: g * F.sigmoid(x))
def softplus(xp: Any, x: Array) -> Array:
    """Return log(1 + exp(x)), without overflow.

    Notes
    -----
    The gradient is the logistic function.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.softplus(tg.tensor([0.0, 1000.0]))
    tensor([6.931472e-01, 1.000000e+03])
    """
    return xp.logaddexp(x, 0)


def _logaddexp_vjp(F: Any, g: Any, x: Any, y: Any) -> Any:
    """Return the gradient of x; with x and y exchanged, that of y."""
    same = (x == y) > (F.abs(x) < np.inf)  # equal infinities, whose difference is nan: half to each
    x = F.where(same, 0.0, x)
    return g * F.sigmoid(x - F.where(same, x, y))


@elementwise
@primitive(floating=True, x=_logaddexp_vjp, y=lambda F, g, x, y: _logaddexp_vjp(F, g, y, x))
def logaddexp(xp: Any, x: Array, y: Array) -> Array:
    """Return log(exp(x) + exp(y)), without overflow.

    Notes
    -----
    The gradients are σ(x - y) and σ(y - x), half to each where x and y are the same infinity.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.logaddexp(tg.tensor([0.0, 1000.0]), 0.0)
    tensor([6.931472e-01, 1.000000e+03])
    """
    return xp.logaddexp(x, y)


@elementwise
@primitive(floating=True, x=lambda F, g, x: g * F.cos(x))
def sin(xp: Any, x: Array) -> Array:
    """Return the sine of x, in radians.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.sin(tg.tensor([0.0]))
    tensor([0.])
    """
    return xp.sin(x)


@elementwise
@primitive(floating=True, x=lambda F, g, x: -(g * F.sin(x)))
def cos(xp: Any, x: Array) -> Array:
    """Return the cosine of x, in radians.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.cos(tg.tensor([0.0]))
    tensor([1.])
    """
    return xp.cos(x)
