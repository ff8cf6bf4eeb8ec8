"""Computations on arrays that NumPy and CuPy lack, or that are faster or more accurate here.

Matrix products, sums, scatter and selection, and the memory order of matrices.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ..backend import (
    FLOATS,
    SCALARS,
    Array,
    DType,
    Module,
    device_of,
    float16,
    float32,
    float64,
    is_array,
    module_of,
    tracing_modules,
)
from .axes import axis_of, without_number

# -- memory order ----------------------------------------------------------------------------------
# Matrices (batch, features) in column-major order make recurrent products up to twice as fast, and
# each gate is a contiguous block. The order affects the cost of a result, never its value.


def is_column_major(x: Array) -> bool:
    """Return whether the matrices of `x` (its last two axes) are column-major."""
    strides = x.strides
    return bool(strides[-2] == x.itemsize and strides[-1] >= strides[-2] and x.shape[-2] > 1)


def is_one_matrix(x: Array) -> bool:
    """Return whether column-major matrices (T, B, F) are one matrix with a row for each feature."""
    slab = x.ndim == 3 and x.strides[0] == x.shape[1] * x.strides[1]
    return bool(slab and is_column_major(x))


def to_column_major(x: Array) -> Array:
    """Return `x` with column-major matrices; those of T time steps as one matrix."""
    if is_column_major(x):
        return x
    if x.ndim == 3 and x.shape[-2] > 1:
        out = empty_in_order_of(x.shape, module_of(x).empty(x.shape[:0:-1], dtype=x.dtype).T)
        out[...] = x
        return out
    return module_of(x).ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)


def empty_in_order_of(shape: tuple[int, ...], part: Array, dtype: DType = None) -> Array:
    """Return an uninitialized array in the memory order of `part`, of which it will be composed.

    Matrices (batch, features) of T time steps become one matrix with a row for each feature, so
    that a product or a sum over all steps needs no copy.
    """
    module, dtype = module_of(part), dtype or part.dtype
    if len(shape) == 3 and (is_one_matrix(part) or (part.ndim == 2 and is_column_major(part))):
        n = shape[0] * shape[1]
        # Without a gap rows of a multiple of 512 bytes would share cache sets.
        gap = 0 if n * dtype.itemsize % 512 else 128 // dtype.itemsize
        out = module.empty((shape[2], n + gap), dtype=dtype)[:, :n]
        return out.reshape(shape[2], *shape[:2]).transpose(1, 2, 0)
    if len(shape) >= 2 and part.ndim >= 2 and is_column_major(part):
        return module.empty((*shape[:-2], shape[-1], shape[-2]), dtype=dtype).swapaxes(-1, -2)
    return module.empty(shape, dtype=dtype)


def are_column_major(arrays: Sequence[Array]) -> bool:
    """Return whether the arrays are column-major matrices of one shape and dtype."""
    shape, dtype = arrays[0].shape, arrays[0].dtype
    uniform = all(x.shape == shape and x.dtype == dtype for x in arrays) and len(shape) == 2
    return uniform and all(is_column_major(x) for x in arrays)


def stack_column_major(arrays: Sequence[Array]) -> Array:
    """Stack column-major matrices (B, F) to (T, B, F), in memory one matrix (F, T B)."""
    out = empty_in_order_of((len(arrays), *arrays[0].shape), arrays[0])
    if uploads_pointers(module_of(out), arrays):
        for t, x in enumerate(arrays):
            out[t] = x
        return out
    module_of(out).stack([x.T for x in arrays], axis=1, out=out.transpose(2, 0, 1))
    return out


def uploads_pointers(module: Module, arrays: Sequence[Array]) -> bool:
    """Return whether `module` joins so many arrays by tables that it uploads to the device.

    CuPy does for more than 8. Then they are copied one by one, which also a CUDA graph can record.
    """
    return module is not np and len(arrays) > 8 and module not in tracing_modules


def concatenate(module: Module, arrays: Sequence[Array], axis: int) -> Array:
    """Return the arrays one after the other along an axis that they have, without an upload."""
    if module is np or module in tracing_modules:
        return module.concatenate(arrays, axis=axis)
    axis = axis_of(axis, arrays[0].ndim)  # CuPy takes 0.5 for 0
    rest = {(*x.shape[:axis], *x.shape[axis + 1 :]) for x in arrays}
    if not uploads_pointers(module, arrays) or len(rest) > 1:
        return module.concatenate(arrays, axis=axis)
    ends = [*accumulate(x.shape[axis] for x in arrays)]
    shape = (*arrays[0].shape[:axis], ends[-1], *arrays[0].shape[axis + 1 :])
    out = module.empty(shape, dtype=np.result_type(*{x.dtype for x in arrays}))
    for x, end in zip(arrays, ends, strict=True):
        out[(*[slice(None)] * axis, slice(end - x.shape[axis], end))] = x
    return out


def stack(module: Module, arrays: Sequence[Array], axis: int) -> Array:
    """Return the arrays along a new axis, without an upload."""
    if module is np or module in tracing_modules:
        return module.stack(arrays, axis=axis)
    axis = axis_of(axis, arrays[0].ndim + 1)
    if not uploads_pointers(module, arrays):
        return module.stack(arrays, axis=axis)
    return concatenate(module, [module.expand_dims(x, axis) for x in arrays], axis)


def rows(x: Array) -> Array:
    """Return `x` with its leading axes merged, a matrix, without a copy where possible."""
    if x.ndim == 3 and is_column_major(x):
        return x.swapaxes(-1, -2).swapaxes(0, 1).reshape(x.shape[-1], -1).T
    return x.reshape(-1, x.shape[-1])


# -- division --------------------------------------------------------------------------------------


def remainder(module: Module, x: Any, y: Any) -> Array:
    """Return x % y as NumPy does: exact, with the sign of y.

    CuPy's is x - floor(x / y) y, which is 0 for 1 % 0.1, and nan for an infinite y.
    """
    if not _divides_approximately(module, x, y):
        return x % y
    x, y, rest, wrong = _truncated(module, x, y)
    return module.copysign(module.where(wrong, rest + y, rest), y)


def floor_divide(module: Module, x: Any, y: Any) -> Array:
    """Return x // y as NumPy does, consistent with the remainder; CuPy's 1 // 0.1 is 10."""
    if not _divides_approximately(module, x, y):
        return x // y
    x, y, rest, wrong = _truncated(module, x, y)
    exact = (x - rest) / y - wrong
    whole = exact // 1
    whole = whole + (exact - whole > 0.5)  # the division above is rounded
    whole = module.where(exact != 0, whole, module.copysign(exact, x / y))
    return module.where(y == 0, x / y, whole)


def _divides_approximately(module: Module, x: Any, y: Any) -> bool:
    gpu = module is not np and module not in tracing_modules
    return gpu and any(a.dtype.kind == "f" for a in (x, y) if a.__class__ not in SCALARS)


def _truncated(module: Module, x: Any, y: Any) -> tuple[Array, Array, Array, Array]:
    """Return both as arrays, the remainder with the sign of x, and where that is the wrong sign."""
    dtype = next(a.dtype for a in (x, y) if a.__class__ not in SCALARS)
    x, y = (module.asarray(a, dtype) if a.__class__ in SCALARS else a for a in (x, y))
    rest = module.fmod(x, y)
    return x, y, rest, (rest != 0) & ((rest < 0) != (y < 0))


# -- selection ------------------------------------------------------------------------------------


def where(module: Module, condition: Array, x: Any, y: Any, out: Array = None) -> Array:
    """Return x where `condition` is true and y elsewhere, in `out` if it is given.

    If one of them is the number 0, the bits of the other one are masked: as fast as a product with
    a mask, five to ten times as fast as NumPy's `where` for an unpredictable condition.
    """
    one, zero = (x, y) if y.__class__ in SCALARS else (y, x)
    masked = zero.__class__ in SCALARS and zero == 0 and math.copysign(1, zero) > 0
    masked &= one.__class__ is np.ndarray and one.nbytes >= 4096 and one.dtype in FLOATS
    if masked and module is np and (out is None or out.dtype == one.dtype):
        integer = np.dtype(f"i{one.itemsize}")
        mask = np.asarray(condition).view(np.int8).astype(integer)
        np.subtract(0 if one is x else mask, mask if one is x else 1, out=mask)  # 0 or all bits
        into = None if out is None else out.view(integer)
        return np.bitwise_and(one.view(integer), mask, out=into).view(one.dtype)
    if out is None:
        return module.where(condition, x, y)
    module.copyto(out, y)
    module.copyto(out, x, where=condition)
    return out


# -- products and scatter --------------------------------------------------------------------------


SUM_BLOCK = 128  # the number of terms in a block of a long sum
MAX_SIMPLE_SUM = 8 * SUM_BLOCK  # longer sums of float32 are computed in blocks or in float64

# Functions by name that are called in place of those of NumPy, and in place of those of CuPy; they
# may return NotImplemented.
faster: dict[str, Callable[..., Any]] = {}
on_gpu: dict[str, Callable[..., Any]] = {}
_ON_BOTH = ("add_rows", "clip_gradients", "cross_entropy", "product", "update_parameters")
_ON_GPU = (*_ON_BOTH, "keep_mask", "run_graph", "uniform")

SMALL_GEMM = 10**6  # multiplications in a product for which OpenBLAS has a separate kernel


def wait_for(load: Callable[[], None]) -> None:
    """Let the first call of any function of `faster` or `on_gpu` call `load`, which defines all."""
    for table, names in ((faster, _ON_BOTH), (on_gpu, _ON_GPU)):
        for name in names:
            table[name] = functools.partial(_first_call, table, name, load)


def _first_call(
    table: dict[str, Callable[..., Any]], name: str, load: Callable[[], None], *args: Any
) -> Any:
    load()
    function = table.get(name)
    if getattr(function, "func", None) is _first_call:  # it was not defined
        del table[name]
        return NotImplemented
    return NotImplemented if function is None else function(*args)


def needs_float64(dtype: DType, n: int) -> bool:
    """Return whether a sequential sum of n numbers has to be computed in double precision."""
    return bool(dtype == float16 or (dtype == float32 and n > MAX_SIMPLE_SUM))


def try_faster(module: Module, name: str, *args: Any) -> Any:
    """Return the result of a function of `faster` or `on_gpu`; NotImplemented if there is none.

    `module` is the library of the arrays.
    """
    if module in tracing_modules:
        return NotImplemented
    function = (faster if module is np else on_gpu).get(name)
    return NotImplemented if function is None else function(*args)


def gemm(x: Array, y: Array) -> Array:
    """Return the matrix product x @ y of arrays of two or more axes.

    All matrix products of the library are computed here. The result has the memory order of `x`,
    the activation: column-major if `x` is. BLAS takes transposed operands without a copy.

    BLAS adds the terms of a product sequentially if one side is a vector, or if the product is
    small and the CPU has AVX-512 (OpenBLAS), and in groups of some hundreds otherwise, so rounding
    errors grow with their number. On the CPU long sums are therefore computed in blocks.
    """
    module, n = module_of(x), x.shape[-1]
    if module in tracing_modules:
        return module.gemm(x, y)
    if x.ndim > 2 and y.ndim == 2 and not is_column_major(x) and x.size:
        # One product, not one for each leading index.
        return gemm(x.reshape(-1, n), y).reshape(*x.shape[:-1], y.shape[1])
    in_c = module is np and x.ndim == y.ndim == 2 and "product" in faster  # adds groups of 256
    size = x.shape[-2] * y.shape[-1]
    simple = 8 * MAX_SIMPLE_SUM if in_c else MAX_SIMPLE_SUM
    sequential = n > simple and (1 in (x.shape[-2], y.shape[-1]) or size * n <= SMALL_GEMM)
    if (sequential or n > 64 * MAX_SIMPLE_SUM) and device_of(x) == "cpu":
        small = sequential or size * 64 * SUM_BLOCK <= SMALL_GEMM
        block = SUM_BLOCK if small else 64 * SUM_BLOCK
        count, cut = n // block, n - n % block
        left = x[..., :cut].reshape(*x.shape[:-1], count, block).swapaxes(-2, -3)
        parts = module.matmul(left, y[..., :cut, :].reshape(*y.shape[:-2], count, block, -1))
        total = module.sum(parts, axis=-3, dtype=float64).astype(parts.dtype)
        return total + module.matmul(x[..., cut:], y[..., cut:, :])
    if in_c:
        # (x y)ᵀ = yᵀ xᵀ. The gradient gᵀ x of a weight is row-major as the weight is.
        across = is_column_major(x) and is_column_major(y)
        found = try_faster(module, "product", *((y.T, x.T) if across else (x, y)))
        if found is not NotImplemented:
            return found.T if across else found
    product = module.matmul if module is np else _product_on_gpu
    if x.ndim == 3 and y.ndim == 2 and x.size * y.size and is_one_matrix(x):
        out = empty_in_order_of((*x.shape[:2], y.shape[1]), x[0], np.result_type(x.dtype, y.dtype))
        product(y.T, rows(x).T, out=rows(out).T)  # one matrix with a row for each feature
        return out
    # On a GPU the gradient gᵀ x of a weight is row-major, as the weight is.
    if is_column_major(x) and (module is np or x.ndim > 2):
        return product(y.swapaxes(-1, -2), x.swapaxes(-1, -2)).swapaxes(-1, -2)
    return product(x, y)


def _product_on_gpu(x: Array, y: Array, out: Array = None) -> Array:
    """Return x @ y; a CUDA graph cannot record CuPy's ``matmul``."""
    found = try_faster(module_of(x), "product", x, y, out)
    return module_of(x).matmul(x, y, out=out) if found is NotImplemented else found


def affine(x: Array, y: Array, bias: Array) -> Array:
    """Return x @ y + bias for a matrix y."""
    in_c = module_of(x) is np and "product" in faster and 0 < x.shape[-1] <= 8 * MAX_SIMPLE_SUM
    if in_c and x.size and not is_column_major(x):
        found = try_faster(np, "product", x.reshape(-1, x.shape[-1]), y, bias)
        if found is not NotImplemented:
            return found.reshape(*x.shape[:-1], -1)
    out = gemm(x, y)
    out += bias
    return out


def reduced(name: str, x: Array, axis: Any, keepdims: bool) -> Array:
    """Return the ``"sum"`` or the ``"mean"`` over axes.

    Over the last axis of a large array, or over all others, the sum is a product with ones: three
    to eight times as fast as NumPy's reduction, whose inner loop is short, and as accurate. Many
    contiguous numbers are summed by NumPy, which is as fast and more accurate (pairwise summation).
    Over other axes NumPy adds sequentially: in double precision, if there are many terms. Half
    precision is summed in single precision.
    """
    module, axis = module_of(x), without_number(axis, x.ndim)
    if x.dtype == float16:
        return reduced(name, x.astype(float32), axis, keepdims).astype(float16)
    if x.nbytes == 0 or x.dtype not in (float32, float64):
        return getattr(module, name)(x, axis=axis, keepdims=keepdims)
    small = x.nbytes < 4096 or x.ndim < 2
    total = (module.sum if small else _large_sum)(x, axis=axis, keepdims=keepdims)
    return total / (x.size // total.size) if name == "mean" else total


def _large_sum(x: Array, axis: Any, keepdims: bool) -> Array:
    """Return the sum over axes of an array of two or more."""
    module, axes = module_of(x), axis if axis.__class__ is tuple else (axis,)
    last, others = axes in ((-1,), (x.ndim - 1,)), axes == (*range(x.ndim - 1),)
    if last or others:
        y, one = rows(x).T if others else x, (1,) * keepdims
        n = y.shape[-1]
        if n > MAX_SIMPLE_SUM and y.strides[-1] == x.itemsize:
            total = module.sum(y, axis=-1)
        else:
            total = gemm(
                y if n <= MAX_SIMPLE_SUM else rows(y), module.full((n, 1), 1, dtype=x.dtype)
            )
        return total.reshape(x.shape[:-1] + one if last else one * (x.ndim - 1) + x.shape[-1:])
    n = x.size if axis is None else math.prod([x.shape[i] for i in axes])
    if n == x.size and 0 not in x.strides:  # all, in memory order
        y = x.transpose(sorted(range(x.ndim), key=lambda i: -abs(x.strides[i])))
        return module.sum(y.reshape(-1)).reshape((1,) * (x.ndim * keepdims))
    dtype = float64 if needs_float64(x.dtype, n) else x.dtype
    return module.sum(x, axis=axis, keepdims=keepdims, dtype=dtype).astype(x.dtype, copy=False)


def add_at(target: Array, key: Any, values: Array) -> None:
    """Add `values` to ``target[key]``; values of repeated indices add up."""
    key, module = key if isinstance(key, tuple) else (key,), module_of(target)
    rows = len(key) == 1 and target.ndim > 1 and values.size > 0
    precise = module is np and needs_float64(target.dtype, values.size)
    if not any(map(is_array, key)):
        target[key] += values
    elif module is np and (rows or precise) and all(is_array(k) or k.__class__ is int for k in key):
        _add_rows(target, key, values)
    elif precise:
        total = target.astype(float64)
        np.add.at(total, key, values)
        target[...] = total
    elif module is np:
        np.add.at(target, key, values)
    else:
        _add_on_gpu(target, key, values)


def _add_rows(target: Array, key: Any, values: Array) -> None:
    """Add `values` to ``target[key]``, the key being integer arrays for the first axes.

    The values are sorted by index; those of equal indices are summed in order.
    """
    if len(key) == 1:
        found = try_faster(np, "add_rows", target, key[0], values)
        if found is not NotImplemented:
            return
    shape, rest = target.shape[: len(key)], target.shape[len(key) :]
    indices = np.ravel_multi_index(np.broadcast_arrays(*key), shape, mode="wrap").reshape(-1)
    order = np.argsort(indices, kind="stable")
    indices = indices[order]
    starts = np.flatnonzero(np.concatenate(([True], indices[1:] != indices[:-1], [True])))
    dtype = float64 if needs_float64(target.dtype, np.diff(starts).max()) else target.dtype
    values, starts = values.reshape(-1, *rest)[order], starts[:-1]
    total = np.add.reduceat(values, starts, axis=0, dtype=dtype)
    target.reshape(-1, *rest)[indices[starts]] += total


def _add_on_gpu(target: Array, key: Any, values: Array) -> None:
    """Do the same with CuPy, whose ``add.at`` adds in any order and refuses small integers.

    An index outside of the axis is wrapped around, as in a read.
    """
    module, count = module_of(target), len(key)
    if all(is_array(k) and k.dtype != bool for k in key):
        shape, rest = target.shape[:count], target.shape[count:]
        index = key[0] % shape[0] if count > 1 else key[0]
        for k, n in zip(key[1:], shape[1:], strict=True):
            index = index * n + k % n
    else:  # the places of all elements
        shape, rest = target.shape, ()
        index = module.arange(target.size).reshape(shape)[key]
    columns = math.prod(rest)
    values = module.broadcast_to(values, index.shape + rest).reshape(index.size, columns)
    total = target if target.flags.c_contiguous else module.ascontiguousarray(target)
    rows = total.reshape(math.prod(shape), columns)
    index = index.reshape(-1)
    if values.size and try_faster(module, "add_rows", rows, index, values) is NotImplemented:
        _sum_rows(module, rows, index % len(rows), values)
    if total is not target:
        target[...] = total


MAX_SELECTED = 1 << 24  # elements of a temporary array


def _sum_rows(module: Module, table: Array, index: Array, values: Array) -> None:
    """Add the values of each row: the sum of all values, the others replaced by zeros.

    Some rows at a time. In contrast to a product with ones and zeros no row becomes nan because of
    infinite values of another one.
    """
    step = max(1, MAX_SELECTED // values.size)
    for first in range(0, len(table), step):
        numbers = module.arange(first, min(first + step, len(table)))
        own = numbers[:, None, None] == index[None, :, None]
        found = module.sum(module.where(own, values[None], 0), axis=1, dtype=table.dtype)
        table[first : first + step] += found
