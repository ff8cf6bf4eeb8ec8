"""The parts of a training step outside of the loop over time, in C: `training_step.c`.

Each function returns NotImplemented where NumPy has to compute the result: other dtypes than
float32 and float64, arrays on a GPU, arrays that are not contiguous. NumPy's version is then the
one that raises.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import addressof, byref
from typing import Any

import numpy as np

from . import threads
from .loop_runtime import FUNCTIONS, runtime
from .updates import plan_of

FLOATS = (np.dtype("float32"), np.dtype("float64"))
WORTH_THREADS = 1 << 16  # elements


def _structure(*fields: tuple[Any, str]) -> Any:
    """Return the class of a structure of the C source, from types and names in its order."""
    pairs = [(name, kind) for kind, names in fields for name in names.split()]
    return type("Arguments", (ctypes.Structure,), {"_fields_": pairs})


_INT, _AT, _REAL, _BITS = ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_double, ctypes.c_uint64
_Gradients = _structure(
    (_INT, "count real threads"), (_AT, "array"), (_REAL, "most"), (_INT, "finite"),
    (_AT, "square"), (_REAL, "norm factor"), (_AT, "partial"),
)  # fmt: skip
_Update = _structure(
    (_INT, "rows columns real threads"), (_AT, "array"), (_BITS, "numbers written"),
    (_AT, "elements finish setting"),
)  # fmt: skip
_Rows = _structure(
    (_INT, "table_rows columns count real threads"), (_AT, "index value table start order")
)
_CrossEntropy = _structure(
    (_INT, "rows classes real threads"), (_AT, "logits target"), (_REAL, "smoothing"),
    (_AT, "gradient out"),
)  # fmt: skip


def _table(arrays: Sequence[Any]) -> Any:
    """Return the addresses of array objects; C reads their data and layout."""
    return (_AT * len(arrays))(*map(id, arrays))


def _at(x: Any) -> Any:
    return x.__array_interface__["data"][0]


def _threads(elements: int) -> int:
    return threads.limit() if elements >= WORTH_THREADS else 1


def clip_gradients(arrays: list[Any], max_norm: float, only_finite: bool) -> Any:
    """Scale arrays so that their norm is at most `max_norm`.

    Returns
    -------
    numpy.float64
        The norm before the scaling. If it is not finite and `only_finite`, nothing was scaled.
    """
    if not arrays:
        return NotImplemented
    dtype = arrays[0].dtype
    if dtype not in FLOATS:
        return NotImplemented
    if any(x.__class__ is not np.ndarray or x.dtype != dtype for x in arrays):
        return NotImplemented
    count = len(arrays)
    table, squares = _table(arrays), (_REAL * count)()
    call = _Gradients(
        count, dtype.itemsize, _threads(sum([x.size for x in arrays])), addressof(table),
        max_norm, only_finite, addressof(squares),
    )  # fmt: skip
    if runtime().clip_gradients(byref(call)):
        return NotImplemented
    return np.float64(call.norm)


def update_parameters(optimizer: Any, ready: Sequence[tuple[int, Any, Any]]) -> Any:
    """Update parameters as the optimizer's ``_update`` does.

    Parameters
    ----------
    optimizer : Optimizer
        Its settings and state are read and written.
    ready : sequence of (int, Tensor, Tensor)
        The index of each parameter, the parameter, and its gradient.

    Returns
    -------
    None, or NotImplemented
        In that case nothing was written.
    """
    if not ready:
        return None
    dtype, rate = ready[0][1]._data.dtype, optimizer._rates.get("cpu")
    if dtype not in FLOATS or rate is None:
        return NotImplemented
    plan = plan_of(optimizer, dtype)
    if plan is None:
        return NotImplemented
    elements, arrays = 0, list[Any]()
    for i, p, grad in ready:
        x, g = p._data, grad._data  # the state is as `_init_state` has made it for x
        if x.__class__ is not np.ndarray or x.dtype != dtype:
            return NotImplemented
        if g.__class__ is not np.ndarray or g.dtype != dtype:
            return NotImplemented
        elements += x.size
        arrays += (x, g, rate, *optimizer._state[i].values())
    table = _table(arrays)
    settings = plan.settings(*optimizer._hyper.values())
    call = _Update(
        len(ready), plan.columns, dtype.itemsize, _threads(elements), addressof(table),
        plan.numbers, plan.written, plan.elements, plan.finish, addressof(settings),
    )  # fmt: skip
    refused = 0
    try:
        refused = runtime().update_parameters(byref(call))
    finally:  # the exception of a signal handler may come after the update
        if not refused:
            for _, p, _ in ready:
                p._bump()
    return NotImplemented if refused else None


def add_rows(table: Any, index: Any, values: Any) -> Any:
    """Add `values` to ``table[index]``; values of repeated indices add up, in double precision."""
    dtype, count = table.dtype, index.size
    rows = len(table)
    if (
        dtype not in FLOATS
        or values.dtype != dtype
        or index.__class__ is not np.ndarray
        or index.dtype.kind not in "iu"
        or not (table.flags.c_contiguous and table.flags.aligned and table.flags.writeable)
        or values.shape != index.shape + table.shape[1:]
        or rows > 1024 + 8 * count  # a row costs more than to sort a few indices
    ):
        return NotImplemented
    columns = table.size // max(1, rows)
    index, values = np.ascontiguousarray(index, np.intp), np.ascontiguousarray(values)
    call = _Rows(
        rows, columns, count, dtype.itemsize, _threads(values.size), _at(index), _at(values),
        _at(table),
    )  # fmt: skip
    return NotImplemented if runtime().add_rows(byref(call)) else None


def cross_entropy(logits: Any, target: Any, axis: int, smoothing: float, gradient: Any) -> Any:
    """Return the losses; with their `gradient`, the gradient of the logits."""
    if logits.__class__ is not np.ndarray or target.__class__ is not np.ndarray:
        return NotImplemented
    dtype, classes = logits.dtype, logits.shape[axis]
    if (
        dtype not in FLOATS
        or axis != logits.ndim - 1
        or not (logits.flags.c_contiguous and logits.flags.aligned)
        or target.dtype.kind not in "iu"
        or target.shape != logits.shape[:-1]
    ):
        return NotImplemented
    target = np.asarray(target, np.intp, order="C")  # ascontiguousarray makes 0-d arrays 1-d
    if gradient is None:
        out, start = np.empty(target.shape, dtype), 0
    else:
        gradient = np.asarray(gradient, order="C")  # a product of 0-d arrays is a number
        if gradient.dtype != dtype or gradient.shape != target.shape:
            return NotImplemented
        out, start = np.empty(logits.shape, dtype), _at(gradient)
    call = _CrossEntropy(
        target.size, classes, dtype.itemsize, _threads(4 * logits.size), _at(logits), _at(target),
        smoothing, start, _at(out),
    )  # fmt: skip
    return NotImplemented if runtime().cross_entropy(byref(call)) else out


FUNCTIONS |= {
    "add_rows": add_rows,
    "clip_gradients": clip_gradients,
    "cross_entropy": cross_entropy,
    "update_parameters": update_parameters,
}
