"""CuPy where it differs from NumPy: whether it can compute, memory order, several devices.

The functions take the module CuPy or its arrays as arguments; `engine/backend.py` imports it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DeviceError
from . import gpu_indices

Array = Any
Module = Any

INSTALL = "pip install 'tinygrad-rnn[gpu-cuda12]' (or gpu-cuda13)"


def unusable_because(module: Module) -> str | None:
    """Return the reason why CuPy cannot compute on the current device; None if it can.

    CuPy counts devices without CUDA's compiler, headers and cuBLAS, and loads those at the first
    call that needs them. So one function element by element and one product are computed.

    Parameters
    ----------
    module : module
        CuPy.

    Returns
    -------
    str or None
        The reason, with the cure if there is one.
    """
    try:
        if module.cuda.runtime.getDeviceCount() == 0:
            return "CuPy is installed, but it finds no CUDA device"
    except Exception as error:  # of unrelated classes: no driver, an old driver
        return f"CuPy is installed, but CUDA does not start: {error}"
    try:
        x = module.full((2, 2), 1.0, dtype=np.float32)
        module.matmul(x + x, x).get()
    except Exception as error:  # ImportError without cuBLAS, RuntimeError without headers
        return (
            f"CuPy finds a CUDA device, but does not compute ({type(error).__name__}: {error}): "
            f"{INSTALL} installs CUDA's compiler, headers and cuBLAS"
        )
    return None


class _Failures(threading.local):
    count = 0


failures = _Failures()
"""The ``count`` of transfers that have failed in this thread; a function may handle the errors."""


def _transferred(transfer: Callable[..., Array], *args: Any) -> Any:
    try:
        return transfer(*args)
    except Exception:
        failures.count += 1
        raise


def is_used(modules: Mapping[type, Module], name: str) -> bool:
    """Tell whether CuPy was imported and can compute.

    Parameters
    ----------
    modules : mapping
        The supported types of arrays.
    name : str
        Of the module CuPy.

    Returns
    -------
    bool
        Whether its arrays are among them.
    """
    module = sys.modules.get(name)
    return getattr(module, "ndarray", None) in modules


def check_name(device: str) -> None:
    """Raise unless `device` is ``"cuda"`` or ``"cuda:N"``.

    Parameters
    ----------
    device : str
        The name that a user gave.

    Raises
    ------
    DeviceError
        With the names that there are.
    """
    kind, _, number = str(device).partition(":")
    if kind != "cuda" or not (number or "0").isdecimal():
        raise DeviceError(f"unknown device {device!r}: use 'cpu', 'cuda' or 'cuda:N'")


def named(module: Module, device: str) -> Any:
    """Return the device of a name, a context manager that makes it the current one.

    Parameters
    ----------
    module : module
        CuPy.
    device : str
        ``"cuda:N"``, or ``"cuda"`` for the current device.

    Returns
    -------
    device
        CuPy's.

    Raises
    ------
    DeviceError
        If there are not so many devices.
    """
    number = device.partition(":")[2]
    found = module.cuda.Device(int(number) if number else None)
    count = module.cuda.runtime.getDeviceCount()
    if found.id >= count:
        raise DeviceError(f"device {device!r}: there are {count} CUDA devices")
    return found


def mismatch(devices: Sequence[str], module: Module) -> str | None:
    """Return the reason why an operation on arrays of these devices is impossible; None if it is.

    Parameters
    ----------
    devices : sequence of str
        Of the operands.
    module : module
        The array library of the first operand; its current device is the one that computes.

    Returns
    -------
    str or None
        The reason with the cure.
    """
    first = devices[0]
    if {*devices} != {first}:
        seen = ", ".join(devices)
        return f"operands on different devices ({seen}): move them together with .to(device)"
    here = "cpu" if first == "cpu" else f"cuda:{module.cuda.Device().id}"
    cure = f"compute inside `with tinygrad_rnn.default_device({first!r})`"
    return None if here == first else f"operands on {first}, this thread is on {here}: {cure}"


def to_current_device(module: Module, array: Array) -> Array:
    """Return an array as one of the current device, in the same memory order.

    Parameters
    ----------
    module : module
        CuPy.
    array : array
        NumPy's, or CuPy's of any device.

    Returns
    -------
    array
        CuPy's: `array` itself if it is there already, else a copy.
    """
    if not isinstance(array, module.ndarray):
        return _transferred(in_memory_order, array, module.asarray)
    if array.device == module.cuda.Device():
        return array

    def copied(x: Array) -> Array:
        with x.device:  # devices exchange contiguous arrays only
            x = module.ascontiguousarray(x)
        return module.asarray(x)

    return in_memory_order(array, copied)


def to_host(array: Array) -> Array:
    """Return a copy of an array of CuPy as one of NumPy, in the same memory order.

    Parameters
    ----------
    array : array
        CuPy's. The host waits for it.

    Returns
    -------
    numpy.ndarray
        The copy.

    Raises
    ------
    ArgumentError or IndexError
        If an index that was used before is out of range: see `gpu_indices`.
    """
    read = array.get  # of an array without values this raises, with the reason
    found = _transferred(in_memory_order, array, lambda x: read() if x is array else x.get())
    gpu_indices.report()
    return found


def item(array: Array) -> Any:
    """Return the one element of an array of CuPy as a Python number.

    Parameters
    ----------
    array : array
        CuPy's. The host waits for it.

    Returns
    -------
    bool, int or float
        The element.

    Raises
    ------
    ArgumentError or IndexError
        If an index that was used before is out of range: see `gpu_indices`.
    """
    found = _transferred(array.item)
    gpu_indices.report()
    return found


def copy(module: Module, array: Array) -> Array:
    """Return a copy of an array of CuPy on its own device, in the same memory order.

    Parameters
    ----------
    module : module
        CuPy, whose own functions copy to the current device.
    array : array
        CuPy's.

    Returns
    -------
    array
        The copy.
    """
    with array.device:
        return module.array(array)


def in_memory_order(array: Array, copied: Callable[[Array], Array]) -> Array:
    """Return what `copied` makes of an array, in the memory order of the array.

    CuPy's transfers keep the order of arrays that are contiguous in C or Fortran order, and give
    C order to all others. So it is handed the array with its axes in the order of their strides.

    Parameters
    ----------
    array : array
        NumPy's or CuPy's.
    copied : callable
        Returns a contiguous copy of an array.

    Returns
    -------
    array
        The copy.

    Examples
    --------
    >>> import numpy as np
    >>> from tinygrad_rnn._util.gpu import in_memory_order
    >>> x = np.zeros((2, 3, 4)).transpose(1, 2, 0)
    >>> np.ascontiguousarray(x).strides, in_memory_order(x, np.ascontiguousarray).strides
    ((64, 16, 8), (32, 8, 96))
    """
    axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    if axes == [*range(array.ndim)]:
        return copied(array)
    back = sorted(range(array.ndim), key=axes.__getitem__)
    return copied(array.transpose(axes)).transpose(back)
