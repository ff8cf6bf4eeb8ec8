"""Conversions that keep the values: dtype, device and memory layout.

The gradient is converted the opposite way.
"""

from __future__ import annotations

from typing import Any

from ...errors import DeviceError
from .. import backend
from ..backend import Array
from ..primitive import primitive
from . import kernels


@primitive(name="astype", x=lambda F, g: g)
def cast(xp: Any, x: Array, dtype: Any) -> Array:
    """Return x in another dtype; the gradient is cast to the dtype of x."""
    return x.astype(dtype)


@primitive(
    name="to",
    x=lambda F, g, device, source: F.to_device(g, device=source, source=device, back=True),
)
def to_device(xp: Any, x: Array, device: str, source: str, back: bool = False) -> Array:
    """Return x on another device; the gradient is moved to `source`, the device of x.

    `back`: x is a gradient. The pass computes on the current GPU alone.
    """
    elsewhere = back and device not in ("cpu", "cuda")
    if elsewhere and device != (here := f"cuda:{backend.gpu_module().cuda.Device().id}"):
        raise DeviceError(
            f"backward: the graph leads from {source} to {device}, and this thread is on {here}: "
            f"call it inside `with tinygrad_rnn.default_device({device!r})`, and detach() the "
            "results of other GPUs"
        )
    return backend.copy(x) if device == source else backend.to_device(x, device)


@primitive(view=True, x=lambda F, g: F.feature_major(g))
def feature_major(xp: Any, x: Array) -> Array:
    """Return x with its last two axes in column-major order, which matrix products prefer."""
    return kernels.to_column_major(x)
