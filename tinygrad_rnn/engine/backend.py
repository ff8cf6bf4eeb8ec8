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

from .._util import gpu
from .._util.api_hints import class_name
from .._util.foreign_arrays import cure_of_dtype, refuse_lossy_conversion, to_owned_array
from ..errors import DeviceError, DTypeError

Array = Any  # numpy.ndarray or cupy.ndarray; their types have no common base
Module = Any  # numpy or cupy
DType = Any  # anything that numpy.dtype() takes

FLOATS = float16, float32, float64 = np.dtype("float16"), np.dtype("float32"), np.dtype("float64")
int32, int64, bool_ = np.dtype("int32"), np.dtype("int64"), np.dtype("bool")

modules: dict[type, Module] = {np.ndarray: np}
# Those whose arrays are on one device, so that operations need not compare devices: not CuPy where
# there are several GPUs.
one_device: dict[type, Module] = {np.ndarray: np}
# Libraries of arrays without values, which a function is traced with: `adopt` of such a module
# makes other arguments of an operation arrays of its own, and `gemm` records a matrix product.
tracing_modules: set[Module] = set()
SCALARS = (bool, int, float)
CUPY = ("cupy", "cupy_backends", "cupyx")  # the packages of the library of GPUs
_default = threading.local()


# -- modules and devices ---------------------------------------------------------------------------


def register(array_type: type, module: Module, devices: int = 1, tracing: bool = False) -> None:
    """Support another array type; `module` is its array library."""
    modules[array_type] = module
    if devices == 1:
        one_device[array_type] = module
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
        cupy = importlib.import_module("cupy")  # waits for another thread that imports it
    except ImportError as error:
        return f"CuPy is not installed ({error}): {gpu.INSTALL}"
    reason = None if cupy.ndarray in modules else gpu.unusable_because(cupy)  # tried once
    if reason is None:
        register(cupy.ndarray, cupy, cupy.cuda.runtime.getDeviceCount())
    return reason


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
    return _resolve(device)[1]


def device_mismatch(values: Iterable[Any]) -> str | None:
    """Return the reason why the devices of arrays do not allow an operation; None if they do."""
    arrays = [x for x in values if is_array(x)]
    return gpu.mismatch([*map(device_of, arrays)], module_of(arrays[0]))


def check_devices(values: Sequence[Any], name: str) -> set[Module]:
    """Return the libraries of arrays; raise for devices that do not allow the operation `name`.

    CuPy's own checks are not enough: a product has none, and where a GPU can read the memory of
    another one, a sum of arrays on both succeeds.
    """
    found = {module_of(x) for x in values if x.__class__ not in SCALARS}
    comparable = len(found) > 1 or not found.issubset(one_device.values())
    mismatch = device_mismatch(values) if comparable else None
    if mismatch:
        raise DeviceError(f"{name}: {mismatch}")
    return found


def common_module(values: Sequence[Any], name: str) -> tuple[Module, list[Any]]:
    """Return one library for all arrays, and the arrays as its own; Python scalars are kept."""
    found = check_devices(values, name)
    module = max(found, key=lambda module: module is not np, default=np)
    if len(found) < 2:
        return module, list(values)
    return module, [x if x.__class__ in SCALARS else module.asarray(x) for x in values]


def _resolve(device: str) -> tuple[Module, contextlib.AbstractContextManager[Any]]:
    """Return the array library of `device`, and a context manager that makes it the current one."""
    if device == "cpu":
        return np, contextlib.nullcontext()
    gpu.check_name(device)
    reason = cuda_unavailable_because()
    if reason:
        raise DeviceError(f"device {device!r} cannot be used: {reason}")
    return sys.modules["cupy"], gpu.named(sys.modules["cupy"], device)


def to_device(array: Array, device: str | None) -> Array:
    """Return `array` on `device` (None: the default one); no copy if it is there already."""
    device = default_device() if device is None else device
    if device == device_of(array):
        return array
    module, place = _resolve(device)
    with place:
        return to_numpy(array) if module is np else gpu.to_current_device(module, array)


def filled(shape: tuple[int, ...], value: float, dtype: DType, device: str | None) -> Array:
    """Return a constant array on `device` (None: the default one), which fills it itself."""
    module, place = _resolve(device or default_device())
    with place:  # NumPy raises for a value out of range
        return module.full(shape, np.full((), value, dtype).item(), dtype=dtype)


def gpu_module() -> Module:
    """Return the module CuPy; raise if it cannot be used."""
    return _resolve("cuda")[0]


def copy(array: Array) -> Array:
    """Return a copy of an array, in the same memory order."""
    module = module_of(array)
    return module.array(array) if module in one_device.values() else gpu.copy(module, array)


def to_numpy(array: Array) -> Array:
    """Return `array` as a NumPy array: itself on the CPU, a copy from a GPU."""
    return np.asarray(array) if module_of(array) is np else gpu.to_host(array)


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
        if array.dtype == float64 and dtype is None and not hasattr(data, "__array__"):
            array = array.astype(get_default_dtype())
    if array.dtype.kind not in "fiub":
        problem = f"cannot make a tensor of dtype {array.dtype} from {class_name(data)}"
        raise DTypeError(f"{problem}: real numbers only{cure_of_dtype(data, array.dtype)}")
    if dtype is None:
        dtype = array.dtype if array.dtype.isnative else array.dtype.newbyteorder("=")
    return array if array.dtype == dtype else array.astype(dtype)


def full(shape: tuple[int, ...], value: float, dtype: DType, like: Array) -> Array:
    """Return a constant array of the library of `like`."""
    return module_of(like).full(shape, value, dtype=dtype)
