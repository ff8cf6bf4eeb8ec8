"""Arithmetic and functions, element by element, with NumPy's broadcasting.

Conventions where a derivative does not exist: ``abs`` and ``relu`` have gradient 0 at 0,
``maximum`` and ``minimum`` give half to each of two equal operands, ``clip`` passes the gradient at
its bounds.
"""

from __future__ import annotations

from typing import Any

from .. import backend
from ..backend import Array
from ..primitive import primitive


@primitive(x=lambda F, g: g, y=lambda F, g: g)
def add(xp: Any, x: Array, y: Array) -> Array:
    """Return x + y."""
    return x + y


@primitive(x=lambda F, g: g, y=lambda F, g: -g)
def subtract(xp: Any, x: Array, y: Array) -> Array:
    """Return x - y."""
    return x - y


@primitive(x=lambda F, g, y: g * y, y=lambda F, g, x: g * x)
def multiply(xp: Any, x: Array, y: Array) -> Array:
    """Return x * y."""
    return x * y


@primitive(floating=True, x=lambda F, g, y: g / y, y=lambda F, g, y, out: -(g * out) / y)
def divide(xp: Any, x: Array, y: Array) -> Array:
    """Return x / y."""
    return x / y


def _power_x(F: Any, g: Any, x: Any, y: Any) -> Any:
    zero = y == 0  # 0 ** -1 would spoil 0 · 0 ** (0 - 1)
    return g * (y * (x if zero is False else x + (x == 0) * zero) ** (y - 1))


@primitive(x=_power_x, y=lambda F, g, x, out: g * (out * F.log(x + (x == 0))))
def power(xp: Any, x: Array, y: Array) -> Array:
    """Return x ** y."""
    return x**y


@primitive(x=lambda F, g: -g)
def negative(xp: Any, x: Array) -> Array:
    """Return -x."""
    return -x


@primitive(x=lambda F, g, x: g * F.sign(x))
def abs(xp: Any, x: Array) -> Array:
    """Return |x|; its gradient at 0 is 0."""
    return xp.abs(x)


@primitive(x=None)
def sign(xp: Any, x: Array) -> Array:
    """Return -1, 0 or 1, the sign of x; it has no gradient."""
    return xp.sign(x)


@primitive(floating=True, x=lambda F, g, out: g * out)
def exp(xp: Any, x: Array) -> Array:
    """Return e to the power x."""
    return xp.exp(x)


@primitive(floating=True, x=lambda F, g, out: g * (out + 1))
def expm1(xp: Any, x: Array) -> Array:
    """Return exp(x) - 1, exact near 0."""
    return xp.expm1(x)


@primitive(floating=True, x=lambda F, g, x: g / x)
def log(xp: Any, x: Array) -> Array:
    """Return the natural logarithm of x."""
    return xp.log(x)


@primitive(floating=True, x=lambda F, g, x: g / (1 + x))
def log1p(xp: Any, x: Array) -> Array:
    """Return log(1 + x), exact near 0."""
    return xp.log1p(x)


@primitive(floating=True, x=lambda F, g, out: g * 0.5 / out)
def sqrt(xp: Any, x: Array) -> Array:
    """Return the square root of x."""
    return xp.sqrt(x)


@primitive(floating=True, x=lambda F, g, x: g * F.cos(x))
def sin(xp: Any, x: Array) -> Array:
    """Return the sine of x, in radians."""
    return xp.sin(x)


@primitive(floating=True, x=lambda F, g, x: -(g * F.sin(x)))
def cos(xp: Any, x: Array) -> Array:
    """Return the cosine of x, in radians."""
    return xp.cos(x)


@primitive(floating=True, x=lambda F, g, out: g * (1 - out * out))
def tanh(xp: Any, x: Array) -> Array:
    """Return the hyperbolic tangent of x."""
    return xp.tanh(x)


@primitive(floating=True, x=lambda F, g, out: g * (out * (1 - out)))
def sigmoid(xp: Any, x: Array) -> Array:
    """Return 1 / (1 + exp(-x))."""
    lowest = (
        -88.0 if x.dtype.itemsize == 4 else -11.0 if x.dtype.itemsize == 2 else -709.0
    )  # exp(-x) still finite
    return 1 / (1 + xp.exp(-xp.maximum(x, lowest)))


@primitive(x=lambda F, g, out: g * (out > 0))
def relu(xp: Any, x: Array) -> Array:
    """Return max(x, 0); its gradient at 0 is 0."""
    return xp.maximum(x, 0)


@primitive(floating=True, x=lambda F, g, x: g * F.sigmoid(x))
def softplus(xp: Any, x: Array) -> Array:
    """Return log(1 + exp(x)), without overflow."""
    return xp.logaddexp(x, 0)


@primitive(
    floating=True,
    x=lambda F, g, x, out: g * F.exp(x - out),
    y=lambda F, g, y, out: g * F.exp(y - out),
)
def logaddexp(xp: Any, x: Array, y: Array) -> Array:
    """Return log(exp(x) + exp(y)), without overflow."""
    return xp.logaddexp(x, y)


def _half_if_equal(F: Any, g: Any, wins: Any, equal: Any) -> Any:
    return F.where(equal, g * 0.5, g * wins)


@primitive(
    x=lambda F, g, x, y: _half_if_equal(F, g, x > y, x == y),
    y=lambda F, g, x, y: _half_if_equal(F, g, y > x, x == y),
)
def maximum(xp: Any, x: Array, y: Array) -> Array:
    """Return the greater of x and y; equal operands get half of the gradient each."""
    return xp.maximum(x, y)


@primitive(
    x=lambda F, g, x, y: _half_if_equal(F, g, x < y, x == y),
    y=lambda F, g, x, y: _half_if_equal(F, g, y < x, x == y),
)
def minimum(xp: Any, x: Array, y: Array) -> Array:
    """Return the lesser of x and y; equal operands get half of the gradient each."""
    return xp.minimum(x, y)


def _within(F: Any, g: Any, x: Any, min: Any, max: Any) -> Any:
    g = g if min is None else g * (x >= min)
    return g if max is None else g * (x <= max)


@primitive(x=_within)
def clip(xp: Any, x: Array, min: float | None = None, max: float | None = None) -> Array:
    """Return x limited to [min, max] (None: no limit); the gradient passes where min <= x <= "
    "max."""
    return xp.clip(x, min, max)


@primitive(
    condition=None,
    x=lambda F, g, condition: F.where(condition, g, 0.0),
    y=lambda F, g, condition: F.where(condition, 0.0, g),
)
def where(xp: Any, condition: Array, x: Array, y: Array) -> Array:
    """Return x where `condition` holds and y elsewhere; the gradient goes to the one that was "
    "chosen."""
    return xp.where(condition, x, y)


@primitive(x=None, y=None)
def equal(xp: Any, x: Array, y: Array) -> Array:
    """Return x == y, as booleans."""
    return x == y


@primitive(x=None, y=None)
def not_equal(xp: Any, x: Array, y: Array) -> Array:
    """Return x != y, as booleans."""
    return x != y


@primitive(x=None, y=None)
def less(xp: Any, x: Array, y: Array) -> Array:
    """Return x < y, as booleans."""
    return x < y


@primitive(x=None, y=None)
def less_equal(xp: Any, x: Array, y: Array) -> Array:
    """Return x <= y, as booleans."""
    return x <= y


@primitive(x=None, y=None)
def greater(xp: Any, x: Array, y: Array) -> Array:
    """Return x > y, as booleans."""
    return x > y


@primitive(x=None, y=None)
def greater_equal(xp: Any, x: Array, y: Array) -> Array:
    """Return x >= y, as booleans."""
    return x >= y


@primitive(x=lambda F, g: g)
def cast(xp: Any, x: Array, dtype: Any) -> Array:
    """Return x in another dtype; the gradient comes back in that of x."""
    return x.astype(dtype)


@primitive(x=lambda F, g, source: F.to_device(g, device=source, source=None))
def to_device(xp: Any, x: Array, device: str, source: str | None) -> Array:
    """Return x on another device; the gradient comes back to `source`, the one that x is on."""
    return backend.to_device(x, device)
