"""Comparisons, and functions that select elements by a comparison.

Conventions where a derivative does not exist: ``relu`` has gradient 0 at 0, ``clip`` passes the
gradient at its limits, ``maximum`` and ``minimum`` give half of it to each of two equal operands.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import DTypeError
from ..backend import Array, tracing_modules
from ..primitive import primitive
from . import kernels
from .docstrings import elementwise, predicate


@predicate
@primitive(x=None, y=None)
def equal(xp: Any, x: Array, y: Array) -> Array:
    """Return whether x == y, element by element.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.equal(tg.tensor([1.0, 2.0, 3.0]), 2.0)
    tensor([False,  True, False])
    """
    return x == y


@predicate
@primitive(x=None, y=None)
def not_equal(xp: Any, x: Array, y: Array) -> Array:
    """Return whether x != y, element by element.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.not_equal(tg.tensor([1.0, 2.0, 3.0]), 2.0)
    tensor([ True, False,  True])
    """
    return x != y


@predicate
@primitive(x=None, y=None)
def less(xp: Any, x: Array, y: Array) -> Array:
    """Return whether x < y, element by element.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.less(tg.tensor([1.0, 2.0, 3.0]), 2.0)
    tensor([ True, False, False])
    """
    return x < y


@predicate
@primitive(x=None, y=None)
def less_equal(xp: Any, x: Array, y: Array) -> Array:
    """Return whether x <= y, element by element.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.less_equal(tg.tensor([1.0, 2.0, 3.0]), 2.0)
    tensor([ True,  True, False])
    """
    return x <= y


@predicate
@primitive(x=None, y=None)
def greater(xp: Any, x: Array, y: Array) -> Array:
    """Return whether x > y, element by element.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.greater(tg.tensor([1.0, 2.0, 3.0]), 2.0)
    tensor([False, False,  True])
    """
    return x > y


@predicate
@primitive(x=None, y=None)
def greater_equal(xp: Any, x: Array, y: Array) -> Array:
    """Return whether x >= y, element by element.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.greater_equal(tg.tensor([1.0, 2.0, 3.0]), 2.0)
    tensor([False,  True,  True])
    """
    return x >= y


@elementwise
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
        Booleans, of a shape that broadcasts with x and y.

    Raises
    ------
    DTypeError
        If `condition` holds other values than booleans.

    Notes
    -----
    The gradient goes to the selected operand, 0 to the other.

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


def _maximum_vjp(F: Any, g: Any, selected: Any, equal: Any) -> Any:
    """Return the gradient of one operand: half of g where the operands are equal."""
    return F.where(equal, g * 0.5, F.where(selected, g, 0.0))


@elementwise
@primitive(
    x=lambda F, g, x, y: _maximum_vjp(F, g, x > y, x == y),
    y=lambda F, g, x, y: _maximum_vjp(F, g, y > x, x == y),
)
def maximum(xp: Any, x: Array, y: Array) -> Array:
    """Return the greater of x and y, element by element.

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


@elementwise
@primitive(
    x=lambda F, g, x, y: _maximum_vjp(F, g, x < y, x == y),
    y=lambda F, g, x, y: _maximum_vjp(F, g, y < x, x == y),
)
def minimum(xp: Any, x: Array, y: Array) -> Array:
    """Return the lesser of x and y, element by element.

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


@elementwise
@primitive(x=lambda F, g, out: F.where(out > 0, g, 0.0))
def relu(xp: Any, x: Array) -> Array:
    """Return max(x, 0).

    Notes
    -----
    The gradient takes the subgradient 0 at 0.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    >>> tg.relu(x).sum().backward()
    >>> x.grad
    tensor([0., 0., 1.])
    """
    return xp.maximum(x, 0)


def _clip_vjp_x(F: Any, g: Any, x: Any, min: Any, max: Any) -> Any:
    low, high = -np.inf if min is None else min, np.inf if max is None else max
    return F.where((x >= low) * (x <= high), g, 0.0)


@primitive(x=_clip_vjp_x)
def clip(xp: Any, x: Array, min: float | None = None, max: float | None = None) -> Array:
    """Return x limited to [min, max], two numbers or None; the gradient passes at the limits."""
    if x.dtype.kind == "b" and xp is not np and xp not in tracing_modules:
        x = x if min is None else xp.maximum(x, min)  # CuPy's clip takes no None for these
        return x if max is None else xp.minimum(x, max)
    return xp.clip(x, min, max)
