"""NumPy or CuPy: the only file of the engine that calls an array library on data by name.

An operation runs on the module that its arrays come from (`module_of`), so nothing above this file
asks which one that is. CuPy is imported at the first use of a ``cuda`` device, never before.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .._util.api_hints import class_name
from .._util.foreign_arrays import refuse_lossy_conversion, to_owned_array
from ..errors import DeviceError, DTypeError

Array = Any  # numpy.ndarray or cupy.ndarray; their types have no common base
Module = Any  # numpy or cupy
DType = Any  # anything that numpy.dtype() takes

FLOATS = float16, float32, float64 = np.dtype("float16"), np.dtype("float32"), np.dtype("float64")
int32, int64, bool_ = np.dtype("int32"), np.dtype("int64"), np.dtype("bool")

modules: dict[type, Module] = {np.ndarray: np}
SCALARS = (bool, int, float)
_default = threading.local()


# -- modules and devices ---------------------------------------------------------------------------


def register(array_type: type, module: Module) -> None:
    """Let the operations run on another array type, `module` being its array library."""
    modules[array_type] = module


def module_of(array: Array) -> Module:
    """Return the array library that `array` belongs to."""
    module = modules.get(type(array)) or modules.get(array.__class__.__base__)
    if module is None:
        if isinstance(array, np.generic | np.ndarray):  # a scalar, or a subclass (a memory map)
            return np
        raise DTypeError(f"expected an array of NumPy or CuPy, got {class_name(array)}")
    return module


def is_array(value: object) -> bool:
    """Tell whether `value` is an array (or a NumPy scalar) that operations run on."""
    return value.__class__ in modules or isinstance(value, (np.generic, *modules))


def cuda_unavailable_because() -> str | None:
    """Return why no CUDA device can be used, or None when one can."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        cure = "pip install 'tinygrad-rnn[gpu-cuda12]' (or gpu-cuda13)"
        return f"CuPy is not installed ({error}): {cure}"
    try:
        if cupy.cuda.runtime.getDeviceCount() > 0:
            register(cupy.ndarray, cupy)
            return None
        return "CuPy is installed, but it finds no CUDA device"
    except Exception as error:  # of several unrelated classes: driver missing, driver too old
        return f"CuPy is installed, but CUDA does not start: {error}"


def device_of(array: Array) -> str:
    """Return ``"cpu"`` or ``"cuda:N"``."""
    host = module_of(array) is np or array.device == "cpu"
    return "cpu" if host else f"cuda:{array.device.id}"


def default_device() -> str:
    """Return the device that constructors use when they are told none (one setting a thread)."""
    return getattr(_default, "device", "cpu")


def set_default_device(device: str) -> None:
    """Set the device of new tensors of this thread, after checking that it is there."""
    _place(device)
    _default.device = device


def computing_on(device: str) -> contextlib.AbstractContextManager[Any]:
    """Make a GPU the one that this thread computes on inside a ``with`` block."""
    module, index = _place(device)
    return contextlib.nullcontext() if module is np else module.cuda.Device(index)


def misplaced(values: Iterable[Any]) -> str | None:
    """Return why arrays cannot be computed with where they are, or None if they can."""
    arrays = [x for x in values if is_array(x)]
    devices, first = ", ".join(map(device_of, arrays)), device_of(arrays[0])
    if {device_of(x) for x in arrays} != {first}:
        return f"operands on different devices ({devices}): move them together with .to(device)"
    here = "cpu" if first == "cpu" else f"cuda:{module_of(arrays[0]).cuda.Device().id}"
    cure = f"compute inside `with tinygrad_rnn.default_device({first!r})`"
    return None if here == first else f"operands on {first}, this thread is on {here}: {cure}"


def common_module(values: Sequence[Any], name: str) -> tuple[Module, list[Any]]:
    """Return the library of arrays that meet, and them as its own; Python scalars stay."""
    found = {module_of(x) for x in values if x.__class__ not in SCALARS}
    if len(found) > 1 and misplaced(values):
        raise DeviceError(f"{name}: {misplaced(values)}")
    module = max(found, key=lambda module: module is not np, default=np)
    own = len(found) < 2
    return module, [x if own or x.__class__ in SCALARS else module.asarray(x) for x in values]


def _place(device: str) -> tuple[Module, int]:
    """Return the array library of `device` and its number."""
    if device == "cpu":
        return np, 0
    kind, _, number = str(device).partition(":")
    if kind != "cuda" or not (number or "0").isdecimal():
        raise DeviceError(f"unknown device {device!r}: use 'cpu', 'cuda' or 'cuda:N'")
    reason = cuda_unavailable_because()
    if reason:
        raise DeviceError(f"device {device!r} cannot be used: {reason}")
    cupy = sys.modules["cupy"]
    index = int(number) if number else cupy.cuda.Device().id
    count = cupy.cuda.runtime.getDeviceCount()
    if index >= count:
        raise DeviceError(f"device {device!r}: there are {count} CUDA devices")
    return cupy, index


def to_device(array: Array, device: str | None) -> Array:
    """Return `array` on `device` (None: the default one), itself if it is there already."""
    device = default_device() if device is None else device
    if device == device_of(array):
        return array
    module, index = _place(device)
    if module is np:
        return to_numpy(array)
    with module.cuda.Device(index):
        return module.asarray(array)


def gpu_module() -> Module:
    """Return the module CuPy, or say why it cannot be used."""
    return _place("cuda")[0]


def copy(array: Array) -> Array:
    """Return a copy of an array, with memory of its own and its axes in the same order there."""
    return module_of(array).array(array)


def to_numpy(array: Array) -> Array:
    """Return `array` as a NumPy array: itself on the CPU, a copy from a GPU."""
    return np.asarray(array) if module_of(array) is np else array.get()


# -- dtypes and creation ---------------------------------------------------------------------------


def get_default_dtype() -> np.dtype[Any]:
    """Return the floating dtype of Python floats and new tensors in this thread.

    Returns
    -------
    numpy.dtype
        float32 unless set.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.get_default_dtype()
    dtype('float32')
    """
    return getattr(_default, "dtype", float32)


def set_default_dtype(dtype: DType) -> None:
    """Set the floating dtype of Python floats and new tensors in this thread.

    Parameters
    ----------
    dtype : dtype
        float16, float32 or float64.

    Raises
    ------
    DTypeError
        If it is not floating.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.set_default_dtype(tg.float64)
    >>> tg.tensor([1.5]).dtype
    dtype('float64')
    >>> tg.set_default_dtype(tg.float32)
    """
    if dtype is None or np.dtype(dtype).kind != "f":  # NumPy takes None for float64
        raise DTypeError(f"the default dtype must be floating, got {dtype}")
    _default.dtype = np.dtype(dtype)


def asarray(data: Any, dtype: DType = None) -> Array:
    """Return `data` as an array: arrays as they are, all else in memory of its own.

    Python floats get the default dtype.
    """
    if data.__class__ not in modules:
        refuse_lossy_conversion(data)
    if is_array(data):
        array: Array = data if data.__class__ in modules else module_of(data).asarray(data)
    else:
        array = to_owned_array(data)
        # Of Python floats nobody chose the dtype; another library's array keeps its own.
        if array.dtype == float64 and dtype is None and not hasattr(data, "dtype"):
            array = array.astype(get_default_dtype())
    if array.dtype.kind not in "fiub":
        problem = f"cannot make a tensor of dtype {array.dtype} from {class_name(data)}"
        raise DTypeError(f"{problem}: real numbers only")
    if dtype is None:
        dtype = array.dtype if array.dtype.isnative else array.dtype.newbyteorder("=")
    return array if array.dtype == dtype else array.astype(dtype)


def full(shape: tuple[int, ...], value: float, dtype: DType, like: Array) -> Array:
    """Return a constant array of the module that `like` belongs to."""
    return module_of(like).full(shape, value, dtype=dtype)


# -- memory order ----------------------------------------------------------------------------------
# Matrices (batch, features) that lie column by column ("feature-major") make recurrent products up
# to twice as fast, and each gate a contiguous block. The order is never visible in a result, only
# in its cost.


def is_feature_major(x: Array) -> bool:
    """Tell whether the matrices of `x` lie column by column."""
    strides = x.strides
    return bool(strides[-2] == x.itemsize and strides[-1] >= strides[-2] and x.shape[-2] > 1)


def to_feature_major(x: Array) -> Array:
    """Return `x` with its matrices column by column."""
    if is_feature_major(x):
        return x
    return module_of(x).ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)


def empty_like_parts(shape: tuple[int, ...], part: Array, dtype: DType = None) -> Array:
    """Return an array to be filled, in the memory order of `part`, a piece of it.

    Matrices (batch, features) that are gathered over time make one matrix with a row for each
    feature, so that a product over all steps, or a sum, needs no copy.
    """
    module, dtype = module_of(part), dtype or part.dtype
    if len(shape) == 3 and part.ndim == 2 and is_feature_major(part):
        n = shape[0] * shape[1]
        gap = 0 if n * dtype.itemsize % 512 else 128 // dtype.itemsize  # or rows share cache sets
        out = module.empty((shape[2], n + gap), dtype=dtype)[:, :n]
        return out.reshape(shape[2], *shape[:2]).transpose(1, 2, 0)
    if len(shape) >= 2 and part.ndim >= 2 and is_feature_major(part):
        return module.empty((*shape[:-2], shape[-1], shape[-2]), dtype=dtype).swapaxes(-1, -2)
    return module.empty(shape, dtype=dtype)


def are_columns(arrays: Sequence[Array]) -> bool:
    """Tell whether these are matrices of one shape that lie column by column."""
    shape, dtype = arrays[0].shape, arrays[0].dtype
    alike = all(x.shape == shape and x.dtype == dtype for x in arrays) and len(shape) == 2
    return alike and all(is_feature_major(x) for x in arrays)


def beside(arrays: Sequence[Array]) -> Array:
    """Return such matrices in one that has a row for each feature, and all of them beside."""
    out = empty_like_parts((len(arrays), *arrays[0].shape), arrays[0])
    module_of(out).stack([x.T for x in arrays], axis=1, out=out.transpose(2, 0, 1))
    return out


def rows(x: Array) -> Array:
    """Return `x` of any leading axes as one matrix of rows, in its memory order where cheap."""
    if x.ndim == 3 and is_feature_major(x):
        return x.swapaxes(-1, -2).swapaxes(0, 1).reshape(x.shape[-1], -1).T
    return x.reshape(-1, x.shape[-1])


# -- selection ------------------------------------------------------------------------------------


def where(module: Module, condition: Array, x: Any, y: Any, out: Array = None) -> Array:
    """Return x where `condition` holds and y elsewhere, in `out` if it is given.

    Beside the number 0 the other one's bits are masked: as fast as a product with a mask, five to
    ten times as fast as NumPy's `where` on a condition that no processor can predict.
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


BLOCK = 128  # the length of the blocks that a long sum is made of
LONG = 8 * BLOCK  # the length of the longest sum that is made of none


def coarse(dtype: DType, n: int) -> bool:
    """Tell whether n numbers that are added one after the other need double precision."""
    return bool(dtype == float16 or (dtype == float32 and n > LONG))


def gemm(x: Array, y: Array) -> Array:
    """Return the matrix product x @ y of arrays of two or more axes.

    Every product of the library is made here. It takes the memory order of `x`, the activation: if
    its matrices lie column by column (feature-major), so do those of the result. Transposed
    operands reach BLAS as flags, without a copy.

    BLAS adds the terms of a product one after the other if one side is a vector, and some hundreds
    at a time otherwise, so that the rounding errors grow with their number. On the CPU long sums
    are therefore cut into blocks.
    """
    module, n = module_of(x), x.shape[-1]
    if x.ndim > 2 and y.ndim == 2 and not is_feature_major(x) and x.size:
        # One product, not one a leading index.
        return gemm(x.reshape(-1, n), y).reshape(*x.shape[:-1], y.shape[1])
    vector = n > LONG and 1 in (x.shape[-2], y.shape[-1])
    if (vector or n > 64 * LONG) and device_of(x) == "cpu":
        block = BLOCK if vector else 64 * BLOCK
        count, cut = n // block, n - n % block
        left = x[..., :cut].reshape(*x.shape[:-1], count, block).swapaxes(-2, -3)
        parts = module.matmul(left, y[..., :cut, :].reshape(*y.shape[:-2], count, block, -1))
        total = module.sum(parts, axis=-3, dtype=float64).astype(parts.dtype)
        return total + module.matmul(x[..., cut:], y[..., cut:, :])
    slab = x.ndim == 3 and x.strides[0] == x.shape[1] * x.strides[1]
    if slab and y.ndim == 2 and x.size * y.size:
        out = empty_like_parts((*x.shape[:2], y.shape[1]), x[0], np.result_type(x.dtype, y.dtype))
        module.matmul(y.T, rows(x).T, out=rows(out).T)  # one matrix, a row for each feature
        return out
    if is_feature_major(x):
        return module.matmul(y.swapaxes(-1, -2), x.swapaxes(-1, -2)).swapaxes(-1, -2)
    return module.matmul(x, y)


def reduced(name: str, x: Array, axis: Any, keepdims: bool) -> Array:
    """Return the ``"sum"`` or the ``"mean"`` over axes.

    Over the last axis of something large, or over all others, it is a product with ones: three to
    eight times as fast as NumPy's reduction, whose inner loop is short, and as accurate. Where many
    neighbours in memory are summed NumPy is more accurate, by summing halves, and as fast. Over
    other axes NumPy adds one after the other: in double precision, if they are many. Half precision
    is summed in single.
    """
    module = module_of(x)
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
        if n > LONG and y.strides[-1] == x.itemsize:
            total = module.sum(y, axis=-1)
        else:
            total = gemm(y if n <= LONG else rows(y), module.full((n, 1), 1, dtype=x.dtype))
        return total.reshape(x.shape[:-1] + one if last else one * (x.ndim - 1) + x.shape[-1:])
    n = x.size if axis is None else math.prod([x.shape[i] for i in axes])
    if n == x.size and 0 not in x.strides:  # all, as they are in memory
        y = x.transpose(sorted(range(x.ndim), key=lambda i: -abs(x.strides[i])))
        return module.sum(y.reshape(-1)).reshape((1,) * (x.ndim * keepdims))
    dtype = float64 if coarse(x.dtype, n) else x.dtype
    return module.sum(x, axis=axis, keepdims=keepdims, dtype=dtype).astype(x.dtype, copy=False)


def add_at(target: Array, key: Any, values: Array) -> None:
    """Add `values` into ``target[key]``, repeated indices adding up."""
    key, module = key if isinstance(key, tuple) else (key,), module_of(target)
    rows = len(key) == 1 and target.ndim > 1 and values.size > 0
    precise = module is np and coarse(target.dtype, values.size)
    if not any(map(is_array, key)):
        target[key] += values
    elif module is np and (rows or precise) and all(is_array(k) or k.__class__ is int for k in key):
        _add_rows(target, key, values)
    elif precise:
        total = target.astype(float64)
        np.add.at(total, key, values)
        target[...] = total
    else:
        module.add.at(target, key, values)


def _add_rows(target: Array, key: Any, values: Array) -> None:
    """Add each of `values` to the part of `target` that the indices of its first axes name.

    They are sorted by place, so that repeated places are one run each, summed in order.
    """
    shape, rest = target.shape[: len(key)], target.shape[len(key) :]
    places = np.ravel_multi_index(np.broadcast_arrays(*key), shape, mode="wrap").reshape(-1)
    order = np.argsort(places, kind="stable")
    places = places[order]
    starts = np.flatnonzero(np.concatenate(([True], places[1:] != places[:-1], [True])))
    dtype = float64 if coarse(target.dtype, np.diff(starts).max()) else target.dtype
    values, starts = values.reshape(-1, *rest)[order], starts[:-1]
    total = np.add.reduceat(values, starts, axis=0, dtype=dtype)
    target.reshape(-1, *rest)[places[starts]] += total
