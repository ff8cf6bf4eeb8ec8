"""A fused function on arrays of CuPy: one launch of one kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..loops import Loop
from .emit import fused_kernel
from .module import THREADS, by_value, kernel

MAX_AXES = 4  # after axes that are contiguous in all arrays are merged
MAX_PLACES = 1 << 31


def bind(loop: Loop, inputs: Sequence[Any], module: Any) -> Callable[..., bool]:
    """Return the function that runs a loop on arrays of the device.

    As that of `compiled.kernel`: it takes the inputs, the number arguments as 0-d arrays of NumPy,
    and the outputs, which it fills, and returns True; False if it cannot compute these.
    """
    launches: dict[Any, Any] = {}  # False: not by a kernel
    first = len(inputs) + len(loop.scalars)

    def run(*arrays: Any) -> bool:
        key = tuple([(x.shape, x.strides) for x in arrays])
        found = launches.get(key)
        if found is None:
            places = merged(arrays, first, loop.width)
            launches[key] = False
            if places is not None:
                lengths, strides, last = places
                count = math.prod(lengths)
                numbers = [count, *lengths, *(s for x in strides for s in x), *last]
                text = fused_kernel(loop, inputs, len(lengths))
                layout = np.array([(numbers,)], [("v", np.int64, (len(numbers),))])
                found = kernel(module, text, "fused"), (-(-count // THREADS),), by_value(layout)
                launches[key] = found
        if not found:
            return False
        function, grid, layout = found
        if grid != (0,):
            function(grid, (THREADS,), (*arrays, layout))
        return True

    return run


def merged(
    arrays: Sequence[Any], first: int, width: int
) -> tuple[list[int], list[list[int]], list[int]] | None:
    """Return the axes of a loop, and the strides of each array on its last axis.

    `first` is the index of the first output, whose neighbours in memory are computed by
    neighbouring threads; `width` is the length of the last axis of a chunk, or 0 for all of it.
    The lengths and the strides of each array, in elements, begin with the axis of the shortest
    stride. None: too many axes or places, or another length of an axis.
    """
    shape = list(arrays[first].shape)
    if shape and width:
        shape[-1] = width
    rows = []
    for x in arrays:
        before = len(shape) - x.ndim
        lengths = [1] * before + list(x.shape)
        steps = [0] * before + [s // x.itemsize for s in x.strides]
        for k, (n, m) in enumerate(zip(lengths, shape, strict=True)):
            if n not in (1, m) and (not width or k < len(shape) - 1 or n < m):
                return None
        rows.append([0 if n == 1 else s for n, s in zip(lengths, steps, strict=True)])
    last = [row[-1] if row else 0 for row in rows]
    axes = [k for k, n in enumerate(shape) if n != 1]
    axes.sort(key=lambda k: (rows[first][k], -k))
    found: list[tuple[int, list[int]]] = []
    for k in axes:
        strides = [row[k] for row in rows]
        if found and all(s == n * found[-1][0] for s, n in zip(strides, found[-1][1], strict=True)):
            found[-1] = found[-1][0] * shape[k], found[-1][1]
        else:
            found.append((shape[k], strides))
    found = found or [(1, [0] * len(arrays))]
    if len(found) > MAX_AXES or math.prod(shape) >= MAX_PLACES:
        return None
    of_axes = [n for n, _ in found]
    return of_axes, [[strides[i] for _, strides in found] for i in range(len(arrays))], last
