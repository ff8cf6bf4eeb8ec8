"""Matrix products in C, in place of NumPy's: with the threads and the memory order of the loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import threads
from .loop_runtime import FUNCTIONS, operands, runtime

FLOATS = (np.dtype("float32"), np.dtype("float64"))
WORTH_THREADS = 1 << 21  # multiplications
VECTOR_WORTH_THREADS = 1 << 18  # of a vector and a matrix: reading the matrix takes the time


def product(x: Any, y: Any) -> Any:
    """Return x @ y for two matrices; NotImplemented if NumPy has to compute it.

    Parameters
    ----------
    x : ndarray (M, K)
        Of any strides.
    y : ndarray (K, N)
        Of any strides, and of the same dtype.

    Returns
    -------
    ndarray (M, N)
        Row-major.
    """
    (m, k), n = x.shape, y.shape[1]
    size, dtype = m * n * k, x.dtype
    if dtype != y.dtype or dtype not in FLOATS or size == 0 or y.shape[0] != k:
        return NotImplemented  # NumPy raises the error of two lengths that differ
    if n == 1 and m > 1:
        found = product(y.T, x.T)
        return found if found is NotImplemented else found.T
    if m == 1:  # a vector is contiguous, and so are the rows or the columns of its matrix
        x = np.ascontiguousarray(x)
        if dtype.itemsize not in y.strides:
            y = np.ascontiguousarray(y)
    out = np.empty((m, n), dtype)
    width = dtype.itemsize
    (a, b), (c, d) = x.strides, y.strides
    if (a | b | c | d) % width or not (x.flags.aligned and y.flags.aligned):
        return NotImplemented
    worth = VECTOR_WORTH_THREADS if m == 1 else WORTH_THREADS
    count = threads.limit() if size >= worth else 1
    words = operands(x, y, out, count)
    if runtime().matrix_product(words.buffer_info()[0]):
        raise MemoryError(f"a product of shapes {x.shape} and {y.shape}")
    return out


FUNCTIONS["product"] = product
