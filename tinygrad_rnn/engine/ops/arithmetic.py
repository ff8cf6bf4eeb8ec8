"""Arithmetic, element by element, with broadcasting.

Conventions where a derivative does not exist: ``abs`` has gradient 0 at 0, ``power`` one without
nan at the base 0, ``remainder`` the gradient that it has between its jumps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array
from ..primitive import primitive
from . import kernels
from .docstrings import elementwise


@elementwise
@primitive(x=lambda F, g: g, y=lambda F, g: g)
def add(xp: Any, x: Array, y: Array) -> Array:
    """Return x + y.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.add(tg.tensor([1.0, 2.0]), 1)
    tensor([2., 3.])
    """
    return x + y


@elementwise
@primitive(x=lambda F, g: g, y=lambda F, g: -g)
def subtract(xp: Any, x: Array, y: Array) -> Array:
    """Return x - y.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.subtract(tg.tensor([1.0, 2.0]), 1)
    tensor([0., 1.])
    """
    return x - y


@elementwise
@primitive(x=lambda F, g, y: g * y, y=lambda F, g, x: g * x)
def multiply(xp: Any, x: Array, y: Array) -> Array:
    """Return x * y.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.multiply(tg.tensor([1.0, 2.0]), 3)
    tensor([3., 6.])
    """
    return x * y


@elementwise
@primitive(floating=True, x=lambda F, g, y: g / y, y=lambda F, g, y, out: -(g * out) / y)
def divide(xp: Any, x: Array, y: Array) -> Array:
    """Return x / y.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.divide(tg.tensor([1, 2]), 2)
    tensor([0.5, 1. ])
    """
    return x / y


@elementwise
@primitive(x=None, y=None)
def floor_divide(xp: Any, x: Array, y: Array) -> Array:
    """Return x // y, the greatest integer that is at most x / y.

    Notes
    -----
    Division by 0 is NumPy's: 0 for integers, an infinity or nan for floating numbers, with its
    warning.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.floor_divide(tg.tensor([-3.0, 3.0]), 2)
    tensor([-2.,  1.])
    """
    return kernels.floor_divide(xp, x, y)


@elementwise
@primitive(x=lambda F, g: g, y=lambda F, g, x, y: -(g * F.floor_divide(x, y)))
def remainder(xp: Any, x: Array, y: Array) -> Array:
    """Return x % y = x - y floor(x / y), which has the sign of y.

    Notes
    -----
    The gradients are 1 and -floor(x / y), also at multiples of y, where the remainder jumps.
    Division by 0 is NumPy's: 0 for integers, nan for floating numbers, with its warning.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.remainder(tg.tensor([-3.0, 3.0]), 2)
    tensor([1., 1.])
    """
    return kernels.remainder(xp, x, y)


@elementwise
@primitive(x=lambda F, g: -g)
def negative(xp: Any, x: Array) -> Array:
    """Return -x.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.negative(tg.tensor([1.0, -2.0]))
    tensor([-1.,  2.])
    """
    return -x


@elementwise
@primitive(x=lambda F, g, x: F.where(x == 0, 0.0, g * F.sign(x)))
def abs(xp: Any, x: Array) -> Array:
    """Return the absolute value of x.

    Notes
    -----
    The gradient is sign(x), which takes the subgradient 0 at 0.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([-2.0, 0.0, 3.0], requires_grad=True)
    >>> tg.abs(x).sum().backward()
    >>> x.grad
    tensor([-1.,  0.,  1.])
    """
    return xp.abs(x)


@elementwise
@primitive(x=None)
def sign(xp: Any, x: Array) -> Array:
    """Return the sign of x: -1, 0 or 1.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.sign(tg.tensor([-2.0, 0.0, 3.0]))
    tensor([-1.,  0.,  1.])
    """
    return xp.sign(x)


@elementwise
@primitive(floating=True, x=lambda F, g, out: g * 0.5 / out)
def sqrt(xp: Any, x: Array) -> Array:
    """Return the square root of x.

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


# -- powers ----------------------------------------------------------------------------------------


def _power_vjp_x(F: Any, g: Any, x: Any, y: Any) -> Any:
    if y.__class__ in (int, float, bool):
        return g * (y * x ** (y - 1)) if y else F.where(F.abs(x) < 0, g, 0.0)
    # Where the power is constant, an infinite gradient is dropped. A finite one is kept: it is part
    # of the derivative by y. Without the shift of x, 0 ** -1 makes 0 · 0 ** (0 - 1) nan.
    g = F.where((y == 0) > (F.abs(g) < np.inf), 0.0, g)
    return g * (y * (x + (x == 0) * (y == 0)) ** (y - 1))


def _power_or_log_power(F: Any, x: Any, y: Any, n: int) -> Any:
    return F.log_power(x, y, n=n) if n else x**y


def _log_power_vjp_x(F: Any, g: Any, x: Any, y: Any, n: int) -> Any:
    x = x + (x == 0) * (y == 0)
    by_power = y * _power_or_log_power(F, x, y - 1, n)
    return g * (by_power + n * _power_or_log_power(F, x, y - 1, n - 1))


@primitive(x=_log_power_vjp_x, y=lambda F, g, x, y, n: g * F.log_power(x, y, n=n + 1))
def log_power(xp: Any, x: Array, y: Array, n: int) -> Array:
    """Return x^y (log x)^n, the n-th derivative of x^y by y; 0 where x is 0 and y at least 0.

    It is one operation because its own derivatives are of the same form, so that mixed derivatives
    of x^y are symmetric at x = 0 too.
    """
    power, none = x**y, (x == 0) * (y >= 0)
    log = xp.log(x + none.astype(power.dtype))  # of a Python number in this dtype, too
    return xp.where(none, 0.0, power * log**n)


@elementwise
@primitive(x=_power_vjp_x, y=lambda F, g, x, y: g * F.log_power(x, y, n=1))
def power(xp: Any, x: Array, y: Array) -> Array:
    """Return x ** y.

    Raises
    ------
    DTypeError
        If an argument is not of real numbers.
    ShapeError
        If the shapes do not broadcast.
    ArgumentError
        If an integer is raised to a negative integer.
    DeviceError
        If the operands are on different devices.

    Notes
    -----
    The derivatives are y x^(y-1) and x^y log x. The first is 0 where y is 0, the second 0 where x
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
