"""Elementwise functions that are made of primitives."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._util.api_hints import explain_errors
from ..engine import backend, ops
from ..engine.ops.docstrings import X, standard
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from .checks import as_tensor


@standard({"x": X}, "Of the broadcast shape.")
@explain_errors
def clip(x: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Return x limited to [min, max].

    Parameters
    ----------
    min, max : float, Tensor or array, optional
        The limits; None sets none. Tensors and arrays broadcast with x.

    Raises
    ------
    ArgumentError
        If both limits are numbers and `min` is above `max`.

    Notes
    -----
    The gradient passes to x where min <= x <= max, the limits included, and to a limit where x is
    beyond it. Where a Tensor `min` is above `max`, the result is `max`, as in NumPy.

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
        return ops.clip(x, min, max)
    x = as_tensor(x)
    # Not maximum and minimum, which give half of the gradient to each of two equal operands. nan
    # compares as false, so that a nan of x and a nan limit both stay.
    if min is not None:
        x = ops.where((x >= min) + (x != x), x, min)
    if max is not None:
        x = ops.where((x <= max) + (x != x), x, max)
    return x
