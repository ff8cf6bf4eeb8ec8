"""The numbers of NumPy's Philox generator, drawn on a GPU: `random_numbers.cu`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...engine import backend
from . import capture, module, tables
from .tables import REALS

STATE_BYTES = 13 * 8
Source = tuple[Any, dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]
"""A bit generator, its state, and the function of that state that returns the next one."""


def packed(state: Any) -> Any:
    """Return the state of ``numpy.random.Philox`` as the argument of a kernel."""
    halves, half, at = state["has_uint32"], state["uinteger"], state["buffer_pos"]
    own = state["state"]
    words = [*own["counter"], *own["key"], *state["buffer"], at, halves, half]
    return tables.struct([int(x) for x in words], np.uint64)


def _launch(
    device: str, name: str, source: Source, shape: Any, dtype: Any, width: int, *args: Any
) -> Any:
    """Return an array of numbers; a thread draws `width` of them."""
    count = math.prod(shape)
    with backend.computing_on(device):
        xp = backend.gpu_module()
        out = xp.empty(shape, dtype)
        if count:
            real = dtype if dtype in REALS else np.dtype("float32")
            text = tables.text_of("random_numbers", real)
            kernel, other = (module.kernel(xp, text, x) for x in (name, f"{name}_at"))
            capturing = capture.current()
            state = packed(source[1])
            if capturing is not None:
                kernel, state = other, capturing.draw(*source)
            # The first thread has the numbers that are left from the last block.
            threads = 1 + -(-count // width)
            grid = (-(-threads // module.THREADS),)
            kernel(grid, (module.THREADS,), (state, *args, np.int64(count), out))
    return out


def keep_mask(device: str, source: Source, shape: Any, limit: int) -> Any:
    """Return which of the next numbers of 32 bits are at most `limit`."""
    return _launch(device, "keep_mask", source, shape, backend.bool_, 8, np.uint32(limit))


def uniform(device: str, source: Source, shape: Any, dtype: Any, low: float, high: float) -> Any:
    """Return the next numbers between `low` and `high`, rounded to `dtype`."""
    if dtype not in REALS:
        return NotImplemented
    args = np.float64(low), np.float64(high - low)
    return _launch(device, "uniform", source, shape, dtype, 4, *args)


module.register(keep_mask, uniform)
