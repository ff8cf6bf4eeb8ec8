"""Half precision (float16) computed in single precision."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .. import backend


def in_single_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a forward or a vjp compute float16 arguments in float32, arrays and Tensors alike.

    A count, a sum or a quotient may be out of the range of float16 where the result is in it.
    """

    @functools.wraps(function)
    def computed(F: Any, *values: Any, **params: Any) -> Any:
        if values[0].dtype != backend.float16:
            return function(F, *values, **params)
        half = [getattr(x, "dtype", None) == backend.float16 for x in values]
        wide = [x.astype(backend.float32) if h else x for x, h in zip(values, half, strict=True)]
        return function(F, *wide, **params).astype(backend.float16)

    return computed
