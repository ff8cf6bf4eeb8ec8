"""NumPy or CuPy: array libraries, devices, dtypes and the creation of arrays.

An operation runs on the array library of its arguments (`module_of`), so no other file of the
engine distinguishes NumPy from CuPy. CuPy is imported at the first use of a ``cuda`` device.
"""

from __future__ import annotations

import contextlib
import importlib
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
# Libraries of arrays without values, which a function is traced with: `adopt` of such a module
# makes other arguments of an operation arrays of its own, and `gemm` records a matrix product.
tracing_modules: set[Module] = set()
SCALARS = (bool, int, float)
_default = threading.local()


# -- modules and devices ---------------------------------------------------------------------------


def register(array_type: type, module: Module, tracing: bool = False) -> None:
    """Support another array type; `module` is its array library."""
    modules[array_type] = module
    if tracing:
        tracing_modules.add(module)


def module_of(array: Array) -> Module:
    """Return the array library of `array`."""
    module = modules.get(type(array))
    if module is None:
        if isinstance(array, np.generic | np.ndarray):  # a scalar, or a subclass (a memory map)
            return np
        raise DTypeError(f"expected an array of NumPy or CuPy, got {class_name(array)}")
    return module


def is_array(value: object) -> bool:
    """Return whether `value` is an array (or a NumPy scalar) that operations accept."""
    return value.__class__ in modules or isinstance(value, (np.generic, *modules))


def cuda_unavailable_because() -> str | None:
    """Return the reason why no CUDA device can be used; None if one can."""
    try:
        cupy = sys.modules.get("cupy") or importlib.import_module("cupy")
    except ImportError as error:
        cure = "pip install 'tinygrad-rnn[gpu-cuda12]' (or gpu-cuda13)"
        return f"CuPy is not installed ({error}): {cure}"
    try:
        if cupy.cuda.runtime.getDeviceCount() > 0:
            register(cupy.ndarray, cupy)
            return None
        return "CuPy is installed, but it finds no CUDA device"
    except Exception as error:  # of unrelated classes: no driver, an old driver
        return f"CuPy is installed, but CUDA does not start: {error}"


def device_of(array: Array) -> str:
    """Return ``"cpu"`` or ``"cuda:N"``."""
    host = module_of(array) is np or array.device == "cpu"
    return "cpu" if host else f"cuda:{array.device.id}"


def default_device() -> str:
    """Return the device of new tensors in this thread."""
    return getattr(_default, "device", "cpu")


def set_default_device(device: str) -> None:
    """Set the device of new tensors in this thread, after checking that it exists."""
    _resolve(device)
    _default.device = device


def computing_on(device: str) -> contextlib.AbstractContextManager[Any]:
    """Return a context manager in which this thread computes on `device`."""
    module, index = _resolve(device)
    return contextlib.nullcontext() if module is np else module.cuda.Device(index)


def device_mismatch(values: Iterable[Any]) -> str | None:
    """Return the reason why the devices of arrays do not allow an operation; None if they do."""
    arrays = [x for x in values if is_array(x)]
    devices, first = ", ".join(map(device_of, arrays)), device_of(arrays[0])
    if {device_of(x) for x in arrays} != {first}:
        return f"operands on different devices ({devices}): move them together with .to(device)"
    here = "cpu" if first == "cpu" else f"cuda:{module_of(arrays[0]).cuda.Device().id}"
    cure = f"compute inside `with tinygrad_rnn.default_device({first!r})`"
    return None if here == first else f"operands on {first}, this thread is on {here}: {cure}"


def common_module(values: Sequence[Any], name: str) -> tuple[Module, list[Any]]:
    """Return one library for all arrays, and the arrays as its own; Python scalars are kept."""
    found = {module_of(x) for x in values if x.__class__ not in SCALARS}
    if len(found) > 1 and device_mismatch(values):
        raise DeviceError(f"{name}: {device_mismatch(values)}")
    module = max(found, key=lambda module: module is not np, default=np)
    if len(found) < 2:
        return module, list(values)
    return module, [x if x.__class__ in SCALARS else module.asarray(x) for x in values]


def _resolve(device: str) -> tuple[Module, int]:
    """Return the array library of `device` and its index."""
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
    """Return `array` on `device` (None: the default one); no copy if it is there already."""
    device = default_device() if device is None else device
    if device == device_of(array):
        return array
    module, index = _resolve(device)
    if module is np:
        return to_numpy(array)
    with module.cuda.Device(index):
        return module.asarray(array)


def gpu_module() -> Module:
    """Return the module CuPy; raise if it cannot be used."""
    return _resolve("cuda")[0]


def copy(array: Array) -> Array:
    """Return a copy of an array, in the same memory order."""
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
    """Return `data` as an array: arrays without a copy, everything else copied.

    Python floats get the default dtype.
    """
    if data.__class__ not in modules:
        refuse_lossy_conversion(data)
    if is_array(data):
        array: Array = data if data.__class__ in modules else module_of(data).asarray(data)
    else:
        array = to_owned_array(data)
        # The user did not choose the dtype of Python floats; arrays of other libraries keep theirs.
        if array.dtype == float64 and dtype is None and not hasattr(data, "dtype"):
            array = array.astype(get_default_dtype())
    if array.dtype.kind not in "fiub":
        problem = f"cannot make a tensor of dtype {array.dtype} from {class_name(data)}"
        raise DTypeError(f"{problem}: real numbers only")
    if dtype is None:
        dtype = array.dtype if array.dtype.isnative else array.dtype.newbyteorder("=")
    return array if array.dtype == dtype else array.astype(dtype)


def full(shape: tuple[int, ...], value: float, dtype: DType, like: Array) -> Array:
    """Return a constant array of the library of `like`."""
    return module_of(like).full(shape, value, dtype=dtype)
