"""Argument validation: each error names the operation, the argument it got, and the cure."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from .._util import gpu_indices
from .._util.api_hints import CONVERSIONS, call_named, class_name
from .._util.foreign_arrays import refuse_lossy_conversion
from ..engine import backend
from ..engine.backend import Array
from ..engine.ops import reshape
from ..engine.tensor import Tensor, wrap
from ..errors import ArgumentError, DTypeError, ShapeError

if TYPE_CHECKING:
    import numpy.typing as npt


def as_tensor(x: Any, op: str = "") -> Tensor:
    """Return x as a Tensor: itself if it is one, so that its readers share a pending gradient.

    Numbers, arrays and lists are converted. An error about a value that cannot be converted begins
    with `op`, or with the name of the public function that is called.
    """
    if isinstance(x, Tensor):
        return x
    made: Tensor = call_named(op, lambda: reshape(x, shape=None))
    return made


def require_tensor(x: Any, op: str) -> Tensor:
    """Return `x` if it is a Tensor, or a Tensor of a copy if it is an array; raise for all else.

    The copy is saved by the graph, so that the user may overwrite the array before the backward
    pass.
    """
    if isinstance(x, Tensor):
        return x
    if backend.is_array(x):
        made: Tensor = wrap(backend.copy(backend.asarray(x)), None, None)
        return made
    refuse_lossy_conversion(x)
    if isinstance(x, list | tuple) and any(isinstance(part, Tensor) for part in x):
        raise DTypeError(
            f"{op}: a Tensor is expected, got {class_name(x)} of length {len(x)}: take one of its "
            "elements, or make one Tensor of them by tinygrad_rnn.stack(...)"
        )
    cure = CONVERSIONS if hasattr(type(x), "__dlpack__") else "tinygrad_rnn.tensor(...)"
    raise DTypeError(f"{op}: a Tensor is expected, got {_described(x)}: make one by {cure}")


def positive(value: Any, what: str, least: int = 1) -> int:
    """Return a size as a Python integer, if it is one of at least `least`."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < least:
        wanted = "a positive integer" if least == 1 else f"an integer >= {least}"
        raise ArgumentError(f"{what} must be {wanted}, got {value!r}")
    return int(value)


def all_positive(operation: str, **values: Any) -> None:
    """Raise unless each of the `values` is an integer of at least one."""
    for name, value in values.items():
        positive(value, f"{operation}: {name}")


def any_number(value: Any, what: str) -> float:
    """Return a number, also from a Tensor of one element; raise for text."""
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)
    except ArgumentError:  # of another operation, found when this value was read from a GPU
        raise
    except (TypeError, ValueError):
        raise ArgumentError(f"{what} must be a number, got {value!r:.60}") from None


def number(value: Any, what: str, low: float, high: float, ends: str = "[]") -> float:
    """Return a number in an interval; a square bracket in `ends` includes that bound."""
    result = any_number(value, what)
    above = result >= low if ends[0] == "[" else result > low
    below = result <= high if ends[1] == "]" else result < high
    if not (above and below):
        raise ArgumentError(f"{what} must be in {ends[0]}{low}, {high}{ends[1]}, got {value!r}")
    return result


def above_zero(value: Any, what: str) -> float:
    """Return a number above 0, infinity included."""
    result = any_number(value, what)
    if not result > 0:
        raise ArgumentError(f"{what} must be above 0, got {value!r}")
    return result


def real_dtype(dtype: Any, op: str, kinds: str = "fiub") -> np.dtype[Any]:
    """Return a dtype of real numbers; None is the default floating one."""
    if dtype is None:
        return backend.get_default_dtype()
    try:
        found: Any = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.kind not in kinds:
        wanted = "a floating" if kinds == "f" else "a real or boolean"
        got = repr(dtype) if found is None else found
        raise DTypeError(f"{op}: {wanted} dtype such as 'float32' is expected, got {got}")
    return found


def lengths(shape: tuple[Any, ...], op: str) -> tuple[int, ...]:
    """Return a shape that is given as one tuple or as several integers."""
    if len(shape) == 1 and isinstance(shape[0], tuple | list):
        shape = tuple(shape[0])
    result = []
    for n in shape:
        try:
            result.append(operator.index(n))
        except TypeError:
            cure = (
                ": the dtype is given by name, dtype=..." if isinstance(n, type | np.dtype) else ""
            )
            raise ShapeError(f"{op}: a shape is made of integers, got {n!r}{cure}") from None
    if any(n < 0 for n in result):
        raise ShapeError(f"{op}: lengths are not negative, got the shape {tuple(result)}")
    return tuple(result)


def in_range(op: str, ids: Array | int, size: int, negative: bool = False) -> None:
    """Raise unless integers are in [0, size), or in [-size, size) if `negative`.

    Those on a GPU are compared there, and the next value that is read from it raises: the host
    does not wait.
    """
    array: Array = np.asarray(ids) if ids.__class__ is int else ids
    module = backend.module_of(array)
    if module in backend.tracing_modules or not array.size:
        return
    if module is not np:
        gpu_indices.record(module, array, size, op, negative)
        return
    low, high = int(array.min()), int(array.max())
    if low < (-size if negative else 0) or high >= size:
        raise gpu_indices.outside(op, high if high >= size else low, size, negative)


def padding_row(padding_idx: Any, rows: int) -> int:
    """Return the row of a table that is the padding, from 0 on; -1 is the last one."""
    if isinstance(padding_idx, bool) or not hasattr(padding_idx, "__index__"):
        raise ArgumentError(f"Embedding: padding_idx is an id, got {padding_idx!r}")
    if not -rows <= padding_idx < rows:
        raise ArgumentError(f"Embedding: padding_idx {padding_idx} is outside [{-rows}, {rows})")
    return int(padding_idx) % rows


def _described(x: Any) -> str:
    if isinstance(x, type):
        return f"the class {x.__name__}"
    array = hasattr(type(x), "__dlpack__")
    return f"{class_name(x)} of shape {tuple(x.shape)}" if array else f"{class_name(x)} {x!r:.40}"


def token_ids(operation: str, ids: npt.ArrayLike | Tensor) -> npt.NDArray[np.integer[Any]]:
    """Return `ids` as a one-dimensional integer array on the CPU, or raise."""
    array = ids.numpy() if isinstance(ids, Tensor) else np.asarray(ids)
    if array.dtype.kind not in "iu" and array.size:  # an empty list is a float array to NumPy
        raise DTypeError(
            f"{operation}: expected integer token ids, got {array.dtype}: "
            "make them with Vocabulary.encode"
        )
    if array.ndim != 1:
        raise ShapeError(
            f"{operation}: expected one stream of token ids, shape (n,), got {array.shape}"
        )
    return array.astype(np.int64) if array.dtype.kind not in "iu" else array
