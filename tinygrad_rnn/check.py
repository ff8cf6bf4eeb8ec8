"""The checks that every maker of minibatches shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ArgumentError, DTypeError, ShapeError
from .tensors.tensor import Tensor


def positive(operation: str, **values: Any) -> None:
    """Raise unless each of `values` is an integer of at least one."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ArgumentError(f"{operation}: {name} must be a positive integer, got {value!r}")


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
