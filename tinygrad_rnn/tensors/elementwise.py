"""Functions element by element that no gradient rule needs, with NumPy's broadcasting.

Conventions where a derivative does not exist: ``relu`` has gradient 0 at 0, ``maximum`` and
``minimum`` give half to each of two equal operands.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._util.api_hints import explain_errors
from ..engine import backend
from ..engine.backend import Array
from ..engine.ops import where
from ..engine.ops.elementwise import clip as _clip_to_numbers
from ..engine.primitive import primitive
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from .shape import as_tensor


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


@primitive(x=lambda F, g, out: F.where(out > 0, g, 0.0))
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


def _half_if_equal(F: Any, g: Any, wins: Any, equal: Any) -> Any:
    return F.where(equal, g * 0.5, F.where(wins, g, 0.0))


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


@primitive(x=None, y=None)
def floor_divide(xp: Any, x: Array, y: Array) -> Array:
    """Return x // y, the greatest integer that is at most x / y.

    Parameters
    ----------
    x, y : Tensor or number
        Of shapes that broadcast.

    Returns
    -------
    Tensor
        Of the broadcast shape; integers stay integers. It has no gradient.

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
    return x // y


@primitive(x=lambda F, g: g, y=lambda F, g, x, y: -(g * F.floor_divide(x, y)))
def remainder(xp: Any, x: Array, y: Array) -> Array:
    """Return x % y = x - y floor(x / y), which has the sign of y.

    Parameters
    ----------
    x, y : Tensor or number
        Of shapes that broadcast.

    Returns
    -------
    Tensor
        Of the broadcast shape; integers stay integers.

    Notes
    -----
    The gradients are 1 and -floor(x / y), also where x is a multiple of y, where the remainder
    jumps. Division by 0 is NumPy's: 0 for integers, nan for floating numbers, with its warning.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.remainder(tg.tensor([-3.0, 3.0]), 2)
    tensor([1., 1.])
    """
    return x % y


@explain_errors
def clip(x: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Return x limited to [min, max].

    Parameters
    ----------
    x : Tensor
        Of any shape.
    min, max : float, Tensor or array, optional
        The limits; None sets none. Those that are no numbers broadcast with x.

    Returns
    -------
    Tensor
        Of the broadcast shape.

    Raises
    ------
    ArgumentError
        If both limits are numbers and `min` is above `max`.

    Notes
    -----
    The gradient passes to x where min <= x <= max, the limits included, and to a limit where x is
    beyond it. Where a limit that is no number is above the other, the result is `max`, as NumPy's.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([-2.0, -1.0, 0.0], requires_grad=True)
    >>> y = tg.clip(x, min=-1.0)
    >>> y.sum().backward()
    >>> y.detach(), x.grad
    (tensor([-1., -1.,  0.]), tensor([0., 1., 1.]))
    >>> tg.clip(x.detach(), tg.tensor([0.0, -3.0, -1.0]), 0.0)
    tensor([ 0., -1.,  0.])
    """
    min = min.item() if isinstance(min, np.number) else min  # a Python number, as everywhere
    max = max.item() if isinstance(max, np.number) else max
    if (min is None or isinstance(min, int | float)) and (
        max is None or isinstance(max, int | float)
    ):
        if float in (min.__class__, max.__class__):
            x = as_tensor(x)
            x = x if x.dtype.kind == "f" else x.astype(backend.get_default_dtype())
        if min is not None and max is not None and not min <= max:
            raise ArgumentError(f"clip: min is at most max, got {min} and {max}")
        return _clip_to_numbers(x, min, max)
    x = as_tensor(x)
    # Not maximum and minimum, which give half of the gradient to each of two equal operands. Of a
    # comparison with nan neither holds: x and the limit both keep theirs.
    if min is not None:
        x = where((x >= min) + (x != x), x, min)
    if max is not None:
        x = where((x <= max) + (x != x), x, max)
    return x
