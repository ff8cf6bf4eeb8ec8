"""The parts of a training step outside of the loop over time, on a GPU: `training_step.cu`.

Each function returns NotImplemented where CuPy's functions have to compute the result: other dtypes
than float32 and float64, arrays of another device than the current one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...engine import backend
from . import module, tables
from .tables import REALS

SORTED = 1 << 17  # values above which the indices of rows are sorted
WIDE = 1024  # classes above which all threads of a block compute a row


def are_here(arrays: Any, dtype: Any) -> bool:
    """Tell whether all arrays are on the current device and have a dtype."""
    xp = backend.module_of(arrays[0])
    here = xp.cuda.Device().id
    return all(
        x.__class__ is xp.ndarray and x.dtype == dtype and x.device.id == here for x in arrays
    )


def _kernel(xp: Any, dtype: Any, name: str) -> Any:
    return module.kernel(xp, tables.text_of("training_step", dtype), name)


def clip_gradients(arrays: list[Any], max_norm: float, only_finite: bool) -> Any:
    """Scale arrays so that their norm is at most `max_norm`.

    Returns
    -------
    array
        0-d: the norm before the scaling, in double precision with `only_finite`. If it is not
        finite and `only_finite`, nothing was scaled.
    """
    dtype = arrays[0].dtype if arrays else None
    if dtype not in REALS or not are_here(arrays, dtype) or not all(map(tables.is_dense, arrays)):
        return NotImplemented
    xp = backend.module_of(arrays[0])
    parts = list(tables.tables([[x] for x in arrays]))
    if not parts:
        return NotImplemented
    total = sum(table.blocks for table in parts)
    partial, rounded = xp.empty(total + 1, np.float64), xp.empty((), dtype)
    squares, scale = (_kernel(xp, dtype, name) for name in ("squares", "scale"))
    block, done = (module.THREADS,), 0
    for blocks, table in parts:
        squares((blocks,), block, (table, partial[done:]))
        done += blocks
    norm = partial[total:].reshape(())
    rest = np.int64(total), np.float64(max_norm), np.bool_(only_finite), norm, rounded
    for blocks, table in parts:
        scale((blocks,), block, (table, partial, *rest))
    return norm if only_finite else rounded


def add_rows(table: Any, index: Any, values: Any) -> Any:
    """Add `values` to ``table[index]``, in order and in double precision.

    `table` and `values` are matrices; an index outside of the table is wrapped around.
    """
    dtype, count = table.dtype, index.size
    if dtype not in REALS or not are_here([table, values], dtype):
        return NotImplemented
    xp = backend.module_of(table)
    index, order = xp.ascontiguousarray(index, np.int64), None
    values = xp.ascontiguousarray(values)
    if count > SORTED:
        index = index % len(table)
        order = xp.argsort(index, kind="stable")
        index = index[order]
    columns = table.shape[1]
    grid = count, -(-columns // module.THREADS)
    sizes = map(np.int64, (count, len(table), columns))
    _kernel(xp, dtype, "add_rows")(grid, (module.THREADS,), (index, order, values, table, *sizes))
    return None


def cross_entropy(logits: Any, target: Any, axis: int, smoothing: float, gradient: Any) -> Any:
    """Return the losses; with their `gradient`, the gradient of the logits."""
    dtype, classes = logits.dtype, logits.shape[axis]
    given = [logits] if gradient is None else [logits, gradient]
    if dtype not in REALS or axis != logits.ndim - 1 or not are_here(given, dtype):
        return NotImplemented
    if target.dtype.kind not in "iu" or target.shape != logits.shape[:-1] or not logits.size:
        return NotImplemented
    if gradient is not None and gradient.shape != target.shape:
        return NotImplemented
    xp = backend.module_of(logits)
    out = xp.empty(target.shape if gradient is None else logits.shape, dtype)
    logits, target = xp.ascontiguousarray(logits), xp.ascontiguousarray(target, np.int64)
    step = 1
    if gradient is not None and not any(gradient.strides):  # that of a sum or mean
        step = 0
    elif gradient is not None:
        gradient = xp.ascontiguousarray(gradient)
    lanes = min(32, 1 << (classes - 1).bit_length()) if classes <= WIDE else module.THREADS
    rows = target.size
    _kernel(xp, dtype, "cross_entropy")(
        (-(-rows // (module.THREADS // lanes)),),
        (module.THREADS,),
        (
            logits, target, np.int64(rows), np.int64(classes), np.int32(lanes),
            np.float64(smoothing), gradient, np.int64(step), out,
        ),
    )  # fmt: skip
    return out


module.register(add_rows, clip_gradients, cross_entropy)
