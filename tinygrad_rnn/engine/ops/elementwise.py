"""Arithmetic and the functions that gradient rules need, element by element, with broadcasting.

Conventions where a derivative does not exist: ``abs`` has gradient 0 at 0, ``clip`` passes the
gradient at its bounds.

A rule drops a gradient by selection (``F.where``), never by multiplication with a mask: 0 times an
infinite gradient, such as that of sqrt at 0, would be nan.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import DTypeError
from .. import backend
from ..backend import Array
from ..primitive import primitive
from . import kernels


@primitive(x=lambda F, g: g, y=lambda F, g: g)
def add(xp: Any, x: Array, y: Array) -> Array:
    """Return x + y.

    Parameters
    ----------
    x, y : Tensor or number
        Of shapes that broadcast.

    Returns
    -------
    Tensor
        Of the broadcast shape.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.add(tg.tensor([1.0, 2.0]), 1)
    tensor([2., 3.])
    """
    return x + y


@primitive(x=lambda F, g: g, y=lambda F, g: -g)
def subtract(xp: Any, x: Array, y: Array) -> Array:
    """Return x - y.

    Parameters
    ----------
    x, y : Tensor or number
        Of shapes that broadcast.

    Returns
    -------
    Tensor
        Of the broadcast shape.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.subtract(tg.tensor([1.0, 2.0]), 1)
    tensor([0., 1.])
    """
    return x - y


@primitive(x=lambda F, g, y: g * y, y=lambda F, g, x: g * x)
def multiply(xp: Any, x: Array, y: Array) -> Array:
    """Return x * y.

    Parameters
    ----------
    x, y : Tensor or number
        Of shapes that broadcast.

    Returns
    -------
    Tensor
        Of the broadcast shape.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.multiply(tg.tensor([1.0, 2.0]), 3)
    tensor([3., 6.])
    """
    return x * y


@primitive(floating=True, x=lambda F, g, y: g / y, y=lambda F, g, y, out: -(g * out) / y)
def divide(xp: Any, x: Array, y: Array) -> Array:
    """Return x / y.

    Parameters
    ----------
    x, y : Tensor or number
        Of shapes that broadcast.

    Returns
    -------
    Tensor
        Of the broadcast shape; integers give the default dtype.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.divide(tg.tensor([1, 2]), 2)
    tensor([0.5, 1. ])
    """
    return x / y


def _power_x(F: Any, g: Any, x: Any, y: Any) -> Any:
    if y.__class__ in (int, float, bool):
        return g * (y * x ** (y - 1)) if y else F.where(F.abs(x) < 0, g, 0.0)
    # Where the power is constant, an infinite gradient is dropped; a finite one is not: it is part
    # of the derivative by y. And 0 ** -1 would spoil 0 · 0 ** (0 - 1).
    g = F.where((y == 0) > (F.abs(g) < np.inf), 0.0, g)
    return g * (y * (x + (x == 0) * (y == 0)) ** (y - 1))


def _log_power(F: Any, x: Any, y: Any, n: int) -> Any:
    return F.log_power(x, y, n=n) if n else x**y


def _log_power_x(F: Any, g: Any, x: Any, y: Any, n: int) -> Any:
    x = x + (x == 0) * (y == 0)
    return g * (y * _log_power(F, x, y - 1, n) + n * _log_power(F, x, y - 1, n - 1))


@primitive(x=_log_power_x, y=lambda F, g, x, y, n: g * F.log_power(x, y, n=n + 1))
def log_power(xp: Any, x: Array, y: Array, n: int) -> Array:
    """Return x^y (log x)^n, the n-th derivative of x^y by y; 0 where x is 0 and y at least 0.

    It is one operation, since its own derivatives are of the same form: so mixed derivatives of x^y
    are symmetric at x = 0 too.
    """
    power, none = x**y, (x == 0) * (y >= 0)
    log = xp.log(x + none.astype(power.dtype))  # of a Python number in this dtype, too
    return xp.where(none, 0.0, power * log**n)


@primitive(x=_power_x, y=lambda F, g, x, y: g * F.log_power(x, y, n=1))
def power(xp: Any, x: Array, y: Array) -> Array:
    """Return x ** y.

    Parameters
    ----------
    x, y : Tensor or number
        Of shapes that broadcast.

    Returns
    -------
    Tensor
        Of the broadcast shape.

    Notes
    -----
    The derivatives are y x^(y-1) and x^y log x; the first is 0 where y is 0, the second 0 where x
    is 0 and y at least 0, so that neither is 0 times infinity.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([0.0, 3.0], requires_grad=True)
    >>> tg.power(x, 2).sum().backward()
    >>> x.grad
    tensor([0., 6.])
    """
    return x**y


@primitive(x=lambda F, g: -g)
def negative(xp: Any, x: Array) -> Array:
    """Return -x.

    Parameters
    ----------
    x : Tensor
        Of any shape.

    Returns
    -------
    Tensor
        Of the shape of x.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.negative(tg.tensor([1.0, -2.0]))
    tensor([-1.,  2.])
    """
    return -x


@primitive(x=lambda F, g, x: F.where(x == 0, 0.0, g * F.sign(x)))
def abs(xp: Any, x: Array) -> Array:
    """Return the absolute value of x.

    Parameters
    ----------
    x : Tensor
        Of any shape.

    Returns
    -------
    Tensor
        Of the shape of x.

    Notes
    -----
    The gradient is sign(x); of the subgradients at 0 it takes 0.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([-2.0, 0.0, 3.0], requires_grad=True)
    >>> tg.abs(x).sum().backward()
    >>> x.grad
    tensor([-1.,  0.,  1.])
    """
    return xp.abs(x)


@primitive(x=None)
def sign(xp: Any, x: Array) -> Array:
    """Return the sign of x: -1, 0 or 1.

    Parameters
    ----------
    x : Tensor
        Of any shape.

    Returns
    -------
    Tensor
        Of the shape of x. It has no gradient.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.sign(tg.tensor([-2.0, 0.0, 3.0]))
    tensor([-1.,  0.,  1.])
    """
    return xp.sign(x)


@primitive(floating=True, x=lambda F, g, out: g * out)
def exp(xp: Any, x: Array) -> Array:
    """Return e to the power x.

    Parameters
    ----------
    x : Tensor
        Of any shape.

    Returns
    -------
    Tensor
        Of the shape of x; integers give the default dtype.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.exp(tg.tensor([0.0]))
    tensor([1.])
    """
    return xp.exp(x)


@primitive(floating=True, x=lambda F, g, x: g / x)
def log(xp: Any, x: Array) -> Array:
    """Return the natural logarithm of x.

    Parameters
    ----------
    x : Tensor
        Of any shape.

    Returns
    -------
    Tensor
        Of the shape of x; integers give the default dtype.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.log(tg.tensor([1.0, 2.0]))
    tensor([0.       , 0.6931472])
    """
    return xp.log(x)


@primitive(floating=True, x=lambda F, g, out: g * (out * (1 - out)))
def sigmoid(xp: Any, x: Array) -> Array:
    """Return the logistic function 1 / (1 + exp(-x)), which is exp(x) / (1 + exp(x)).

    Parameters
    ----------
    x : Tensor
        Of any shape.

    Returns
    -------
    Tensor
        Of the shape of x; integers give the default dtype.

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


def _within(F: Any, g: Any, x: Any, min: Any, max: Any) -> Any:
    low, high = -np.inf if min is None else min, np.inf if max is None else max
    return F.where((x >= low) * (x <= high), g, 0.0)


@primitive(x=_within)
def clip(xp: Any, x: Array, min: float | None = None, max: float | None = None) -> Array:
    """Return x limited to [min, max], two numbers or None; the gradient passes at the limits."""
    return xp.clip(x, min, max)


@primitive(
    condition=None,
    x=lambda F, g, condition: F.where(condition, g, 0.0),
    y=lambda F, g, condition: F.where(condition, 0.0, g),
)
def where(xp: Any, condition: Array, x: Array, y: Array) -> Array:
    """Return x where `condition` holds and y elsewhere.

    Parameters
    ----------
    condition : Tensor
        Booleans.
    x, y : Tensor or number
        The three have shapes that broadcast.

    Returns
    -------
    Tensor
        Of the broadcast shape.

    Notes
    -----
    The gradient goes to the one that was chosen, 0 to the other.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([1.0, -2.0])
    >>> tg.where(x > 0, x, 0.0)
    tensor([1., 0.])
    """
    dtype = getattr(condition, "dtype", np.dtype(type(condition)))
    if dtype.kind != "b":
        raise DTypeError(f"where: the condition is {dtype}; booleans are expected: x != 0")
    return kernels.where(xp, condition, x, y)


@primitive(x=None, y=None)
def equal(xp: Any, x: Array, y: Array) -> Array:
    """Return whether x == y, element by element.

    Parameters
    ----------
    x, y : Tensor or number
        Of shapes that broadcast.

    Returns
    -------
    Tensor
        Booleans of the broadcast shape; they have no gradient.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.equal(tg.tensor([1.0, 2.0, 3.0]), 2.0)
    tensor([False,  True, False])
    """
    return x == y


@primitive(x=None, y=None)
def not_equal(xp: Any, x: Array, y: Array) -> Array:
    """Return whether x != y, element by element.

    Parameters
    ----------
    x, y : Tensor or number
        Of shapes that broadcast.

    Returns
    -------
    Tensor
        Booleans of the broadcast shape; they have no gradient.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.not_equal(tg.tensor([1.0, 2.0, 3.0]), 2.0)
    tensor([ True, False,  True])
    """
    return x != y


@primitive(x=None, y=None)
def less(xp: Any, x: Array, y: Array) -> Array:
    """Return whether x < y, element by element.

    Parameters
    ----------
    x, y : Tensor or number
        Of shapes that broadcast.

    Returns
    -------
    Tensor
        Booleans of the broadcast shape; they have no gradient.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.less(tg.tensor([1.0, 2.0, 3.0]), 2.0)
    tensor([ True, False, False])
    """
    return x < y


@primitive(x=None, y=None)
def less_equal(xp: Any, x: Array, y: Array) -> Array:
    """Return whether x <= y, element by element.

    Parameters
    ----------
    x, y : Tensor or number
        Of shapes that broadcast.

    Returns
    -------
    Tensor
        Booleans of the broadcast shape; they have no gradient.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.less_equal(tg.tensor([1.0, 2.0, 3.0]), 2.0)
    tensor([ True,  True, False])
    """
    return x <= y


@primitive(x=None, y=None)
def greater(xp: Any, x: Array, y: Array) -> Array:
    """Return whether x > y, element by element.

    Parameters
    ----------
    x, y : Tensor or number
        Of shapes that broadcast.

    Returns
    -------
    Tensor
        Booleans of the broadcast shape; they have no gradient.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.greater(tg.tensor([1.0, 2.0, 3.0]), 2.0)
    tensor([False, False,  True])
    """
    return x > y


@primitive(x=None, y=None)
def greater_equal(xp: Any, x: Array, y: Array) -> Array:
    """Return whether x >= y, element by element.

    Parameters
    ----------
    x, y : Tensor or number
        Of shapes that broadcast.

    Returns
    -------
    Tensor
        Booleans of the broadcast shape; they have no gradient.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.greater_equal(tg.tensor([1.0, 2.0, 3.0]), 2.0)
    tensor([False,  True,  True])
    """
    return x >= y


@primitive(x=lambda F, g: g)
def cast(xp: Any, x: Array, dtype: Any) -> Array:
    """Return x in another dtype; the gradient comes back in that of x."""
    return x.astype(dtype)


@primitive(x=lambda F, g, device, source: F.to_device(g, device=source, source=device))
def to_device(xp: Any, x: Array, device: str, source: str) -> Array:
    """Return x on another device; the gradient comes back to `source`, the one that x is on."""
    return backend.copy(x) if device == source else backend.to_device(x, device)
