"""Arithmetic and functions, element by element, with NumPy's broadcasting.

Conventions where a derivative does not exist: ``abs`` and ``relu`` have gradient 0 at 0,
``maximum`` and ``minimum`` give half to each of two equal operands, ``clip`` passes the gradient at
its bounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ArgumentError, DTypeError
from .. import backend
from ..backend import Array
from ..primitive import primitive


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
        return g * (y * x ** (y - 1)) if y else g * 0
    return g * (y * (x + (x == 0) * (y == 0)) ** (y - 1))  # 0 ** -1 would spoil 0 · 0 ** (0 - 1)


@primitive(x=_power_x, y=lambda F, g, x, out: g * (out * F.log(x + (x == 0))))
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
    is 0, so that neither is 0 times infinity.

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


@primitive(x=lambda F, g, x: g * F.sign(x))
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


@primitive(floating=True, x=lambda F, g, out: g * (out + 1))
def expm1(xp: Any, x: Array) -> Array:
    """Return exp(x) - 1, exact near 0.

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
    >>> tg.expm1(tg.tensor([0.0, 1e-10]))
    tensor([0.e+00, 1.e-10])
    """
    return xp.expm1(x)


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


@primitive(floating=True, x=lambda F, g, x: g / (1 + x))
def log1p(xp: Any, x: Array) -> Array:
    """Return log(1 + x), exact near 0.

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
    >>> tg.log1p(tg.tensor([0.0, 1e-10]))
    tensor([0.e+00, 1.e-10])
    """
    return xp.log1p(x)


@primitive(floating=True, x=lambda F, g, out: g * 0.5 / out)
def sqrt(xp: Any, x: Array) -> Array:
    """Return the square root of x.

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
    The gradient is 1 / (2 sqrt(x)), infinite at 0.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.sqrt(tg.tensor([4.0, 9.0]))
    tensor([2., 3.])
    """
    return xp.sqrt(x)


@primitive(floating=True, x=lambda F, g, x: g * F.cos(x))
def sin(xp: Any, x: Array) -> Array:
    """Return the sine of x, in radians.

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
    >>> tg.sin(tg.tensor([0.0]))
    tensor([0.])
    """
    return xp.sin(x)


@primitive(floating=True, x=lambda F, g, x: -(g * F.sin(x)))
def cos(xp: Any, x: Array) -> Array:
    """Return the cosine of x, in radians.

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
    >>> tg.cos(tg.tensor([0.0]))
    tensor([1.])
    """
    return xp.cos(x)


@primitive(floating=True, x=lambda F, g, out: g * (1 - out * out))
def tanh(xp: Any, x: Array) -> Array:
    """Return the hyperbolic tangent of x.

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
    The gradient is 1 - tanh(x)², of the result alone.

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


@primitive(x=lambda F, g, out: g * (out > 0))
def relu(xp: Any, x: Array) -> Array:
    """Return max(x, 0).

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
    Of the subgradients at 0 it takes 0.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    >>> tg.relu(x).sum().backward()
    >>> x.grad
    tensor([0., 0., 1.])
    """
    return xp.maximum(x, 0)


@primitive(floating=True, x=lambda F, g, x: g * F.sigmoid(x))
def softplus(xp: Any, x: Array) -> Array:
    """Return log(1 + exp(x)), without overflow.

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
    The gradient is the logistic function.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.softplus(tg.tensor([0.0, 1000.0]))
    tensor([6.931472e-01, 1.000000e+03])
    """
    return xp.logaddexp(x, 0)


def _to_exponent(F: Any, g: Any, x: Any, y: Any) -> Any:
    same = (x == y) > (F.abs(x) < np.inf)  # infinities, whose difference is nan: half to each
    x = F.where(same, 0.0, x)
    return g * F.sigmoid(x - F.where(same, x, y))


@primitive(floating=True, x=_to_exponent, y=lambda F, g, x, y: _to_exponent(F, g, y, x))
def logaddexp(xp: Any, x: Array, y: Array) -> Array:
    """Return log(exp(x) + exp(y)), without overflow.

    Parameters
    ----------
    x, y : Tensor or number
        Of shapes that broadcast.

    Returns
    -------
    Tensor
        Of the broadcast shape; integers give the default dtype.

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


def _half_if_equal(F: Any, g: Any, wins: Any, equal: Any) -> Any:
    return F.where(equal, g * 0.5, g * wins)


@primitive(
    x=lambda F, g, x, y: _half_if_equal(F, g, x > y, x == y),
    y=lambda F, g, x, y: _half_if_equal(F, g, y > x, x == y),
)
def maximum(xp: Any, x: Array, y: Array) -> Array:
    """Return the greater of x and y, element by element.

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
    The gradient goes to the greater operand, half to each of two equal ones.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    >>> tg.maximum(x, 0.0).sum().backward()
    >>> x.grad
    tensor([0. , 0.5, 1. ])
    """
    return xp.maximum(x, y)


@primitive(
    x=lambda F, g, x, y: _half_if_equal(F, g, x < y, x == y),
    y=lambda F, g, x, y: _half_if_equal(F, g, y < x, x == y),
)
def minimum(xp: Any, x: Array, y: Array) -> Array:
    """Return the lesser of x and y, element by element.

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
    The gradient goes to the lesser operand, half to each of two equal ones.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    >>> tg.minimum(x, 0.0).sum().backward()
    >>> x.grad
    tensor([1. , 0.5, 0. ])
    """
    return xp.minimum(x, y)


def _within(F: Any, g: Any, x: Any, min: Any, max: Any) -> Any:
    g = g if min is None else g * (x >= min)
    return g if max is None else g * (x <= max)


@primitive(x=_within)
def clip(xp: Any, x: Array, min: float | None = None, max: float | None = None) -> Array:
    """Return x limited to [min, max].

    Parameters
    ----------
    x : Tensor
        Of any shape.
    min, max : float, optional
        The limits; None sets none.

    Returns
    -------
    Tensor
        Of the shape of x.

    Notes
    -----
    The gradient passes where min <= x <= max, the limits included.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([-2.0, -1.0, 0.0], requires_grad=True)
    >>> y = tg.clip(x, min=-1.0)
    >>> y.sum().backward()
    >>> y.detach(), x.grad
    (tensor([-1., -1.,  0.]), tensor([0., 1., 1.]))
    """
    if not all(bound is None or isinstance(bound, int | float | np.number) for bound in (min, max)):
        raise DTypeError("clip: the bounds are numbers; for arrays there are maximum and minimum")
    if None not in (min, max) and not min <= max:  # type: ignore[operator]
        raise ArgumentError(f"clip: min is at most max, got {min} and {max}")
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
    return xp.where(condition, x, y)


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
    return backend.to_device(x, device)
