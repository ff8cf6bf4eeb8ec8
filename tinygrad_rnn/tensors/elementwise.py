"""Functions element by element that the engine's gradient rules do not need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.backend import Array
from ..engine.ops import where
from ..engine.ops.elementwise import clip as _clip_to_numbers
from ..engine.primitive import primitive
from ..errors import ArgumentError
from ..spelling import explained
from .shape import as_tensor

if TYPE_CHECKING:
    from .tensor import Tensor


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


@explained
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
    if all(bound is None or isinstance(bound, int | float | np.number) for bound in (min, max)):
        if None not in (min, max) and not min <= max:
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
