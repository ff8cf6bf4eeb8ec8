"""Matrix products in C, in place of NumPy's: with the threads and the memory order of the loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import threads
from .loop_runtime import FUNCTIONS, runtime

FLOATS = (np.dtype("float32"), np.dtype("float64"))
WORTH_THREADS = 1 << 21  # multiplications
VECTOR_WORTH_THREADS = 1 << 18  # of a vector and a matrix: reading the matrix takes the time


def product(x: Any, y: Any, bias: Any = None) -> Any:
    """Return x @ y + bias for two matrices; NotImplemented if NumPy has to compute it.

    Parameters
    ----------
    x : ndarray (M, K)
        Of any strides.
    y : ndarray (K, N)
        Of any strides, and of the same dtype.
    bias : ndarray (N,), optional
        Of the same dtype.

    Returns
    -------
    ndarray (M, N)
        Row-major.
    """
    (m, k), n = x.shape, y.shape[1]
    size, dtype = m * n * k, x.dtype
    if dtype is not y.dtype and dtype != y.dtype:
        return NotImplemented
    if dtype not in FLOATS or size == 0 or len(y) != k:
        return NotImplemented  # NumPy raises the error of two lengths that differ
    if bias is not None:
        if bias.__class__ is not np.ndarray or bias.dtype != dtype or bias.shape != (n,):
            return NotImplemented
        bias = np.ascontiguousarray(bias) if bias.flags.aligned else bias.copy()
    if n == 1 and m > 1 and bias is None:
        found = product(y.T, x.T)
        return found if found is NotImplemented else found.T
    out = np.empty((m, n), dtype)
    count = threads.limit() if size >= (VECTOR_WORTH_THREADS if m == 1 else WORTH_THREADS) else 1
    third = None if bias is None else id(bias)
    failed = runtime().array_product(id(x), id(y), id(out), third, dtype.itemsize, count)
    if failed == 1:
        raise MemoryError(f"a product of shapes {x.shape} and {y.shape}")
    if failed:  # the memory order is not supported
        return product(x.copy(), y.copy(), bias)
    return out


FUNCTIONS["product"] = product
