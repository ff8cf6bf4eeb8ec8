"""Constructors: tensors filled with a value, a range or random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .engine import backend
from .engine import random as _random
from .engine.backend import Array, DType
from .engine.tensor import Tensor, axes_or_shape


def _filled(
    shape: tuple[Any, ...], value: Any, dtype: DType, device: str | None, requires_grad: bool
) -> Tensor:
    array = np.full(
        axes_or_shape(shape), value, dtype=backend.get_default_dtype() if dtype is None else dtype
    )
    return _owned(array, device, requires_grad)


def _owned(array: Array, device: str | None, requires_grad: bool) -> Tensor:
    result = Tensor._make(backend.to_device(array, device), None, [0])
    result.requires_grad = requires_grad
    return result


def zeros(
    *shape: Any, dtype: DType = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """Return zeros of a shape, a tuple or integers, in the default dtype unless told.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.zeros(2, 3).shape
    (2, 3)
    """
    return _filled(shape, 0, dtype, device, requires_grad)


def ones(
    *shape: Any, dtype: DType = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """Return ones of a shape, a tuple or integers, in the default dtype unless told.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.ones(2)
    tensor([1., 1.])
    """
    return _filled(shape, 1, dtype, device, requires_grad)


def full(
    shape: tuple[int, ...],
    fill_value: float,
    dtype: DType = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return a constant tensor of a shape, in the default dtype unless told.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.full((2,), 7.0)
    tensor([7., 7.])
    """
    return _filled((shape,), fill_value, dtype, device, requires_grad)


def zeros_like(x: Tensor) -> Tensor:
    """Return zeros of the shape, dtype and device of x."""
    return zeros(x.shape, dtype=x.dtype, device=x.device)


def ones_like(x: Tensor) -> Tensor:
    """Return ones of the shape, dtype and device of x."""
    return ones(x.shape, dtype=x.dtype, device=x.device)


def arange(*bounds: float, dtype: DType = None, device: str | None = None) -> Tensor:
    """Return evenly spaced values, like ``numpy.arange(start, stop, step)``.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.arange(3)
    tensor([0, 1, 2])
    """
    array = np.arange(*bounds, dtype=dtype)
    return _owned(
        array.astype(backend.get_default_dtype())
        if dtype is None and array.dtype.kind == "f"
        else array,
        device,
        False,
    )


def eye(n: int, m: int | None = None, dtype: DType = None, device: str | None = None) -> Tensor:
    """Return the matrix (n, m) with ones on its diagonal."""
    return _owned(
        np.eye(n, m, dtype=backend.get_default_dtype() if dtype is None else dtype), device, False
    )


def randn(
    *shape: Any,
    dtype: DType = None,
    device: str | None = None,
    requires_grad: bool = False,
    rng: Any = None,
) -> Tensor:
    """Return standard normal numbers of a shape; `rng` is a seed, a Generator, or None for the "
    "library's own."""
    numbers = _random.generator(rng).standard_normal(axes_or_shape(shape))
    return _owned(
        np.asarray(numbers, dtype=dtype or backend.get_default_dtype()), device, requires_grad
    )


def rand(
    *shape: Any,
    dtype: DType = None,
    device: str | None = None,
    requires_grad: bool = False,
    rng: Any = None,
) -> Tensor:
    """Return numbers uniform on [0, 1) of a shape; `rng` is a seed, a Generator, or None for the "
    "library's own."""
    numbers = _random.generator(rng).random(axes_or_shape(shape))
    return _owned(
        np.asarray(numbers, dtype=dtype or backend.get_default_dtype()), device, requires_grad
    )


def from_dlpack(x: Any) -> Tensor:
    """Return a tensor on the memory of another library's array (PyTorch, JAX, CuPy), without a "
    "copy."""
    device_kind = x.__dlpack_device__()[0]
    module = np if device_kind == 1 else backend.cupy()
    return Tensor._make(module.from_dlpack(x), None, [0])
