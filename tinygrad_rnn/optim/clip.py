"""Gradient clipping in place, without reading a value back from the device."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ..engine import backend
from ..engine.backend import Array
from ..engine.ops import kernels
from ..engine.tensor import Tensor, wrap
from ..tensors import checks
from .optimizers import parameter_list


def clip_grad_norm(
    params: Iterable[Tensor], max_norm: float, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale all gradients by one factor, g ← min(1, θ / ‖g‖) g; return the norm ‖g‖ before that.

    Parameters
    ----------
    params : iterable of Tensor
        The parameters; those without a gradient and frozen ones are ignored.
    max_norm : float
        θ > 0.
    error_if_nonfinite : bool
        Raise if the norm is infinite or nan. This reads the norm and so synchronises with a GPU. If
        False, such gradients become nan or zero.

    Returns
    -------
    Tensor
        0-d: the Euclidean norm of all gradients as one vector; float32 for float16 gradients.

    Raises
    ------
    ArgumentError
        `max_norm` is not above 0.
    FloatingPointError
        The norm is not finite; the gradients are unchanged.

    Notes
    -----
    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", 2013,
    algorithm 1. The squares are summed in double precision, so that the norm of float32 gradients
    of size 10³⁰ does not overflow. The factor is computed as θ / max(‖g‖, θ), which is exactly 1
    below the threshold and never divides by zero.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> w = tg.tensor([1.0, 1.0], requires_grad=True)
    >>> (w * tg.tensor([3.0, 4.0])).sum().backward()
    >>> tg.optim.clip_grad_norm([w], 1.0)
    tensor(5.)
    >>> w.grad
    tensor([0.6, 0.8])
    """
    max_norm = checks.above_zero(max_norm, "clip_grad_norm: max_norm")
    leaves = parameter_list(params, "clip_grad_norm", frozen=Tensor)
    # float16 overflows for the norm of many gradients and underflows for a small factor.
    device, dtype = leaves[0].device, np.promote_types(leaves[0].dtype, backend.float32)
    grads = _gradients(leaves)
    arrays = [grad._data for grad in grads.values()]
    module = backend.module_of(leaves[0]._data)
    found = kernels.try_faster(module, "clip_gradients", arrays, max_norm, error_if_nonfinite)
    norm = found  # the gradients are scaled already
    if found is NotImplemented:
        here = [backend.to_device(_squares(array), device) for array in arrays]
        with backend.computing_on(device):
            total = sum(here[1:], start=here[0]) if here else backend.to_device(_ZERO, device)
            norm = total**0.5
    if error_if_nonfinite and not math.isfinite(norm.item()):
        parts = zip(grads, map(_squares, arrays), strict=True)
        bad = ", ".join(str(i) for i, square in parts if not math.isfinite(square.item()))
        raise FloatingPointError(
            f"clip_grad_norm: the norm of {len(grads)} gradients is {norm.item()}, because of "
            f"those of the parameters {bad}; the gradients are unchanged"
        )
    with backend.computing_on(device):
        result = wrap(backend.asarray(norm, dtype), None, None)
    if max_norm == float("inf"):  # only the norm is wanted
        return result
    if found is NotImplemented:
        with backend.computing_on(device):
            factor = max_norm / backend.module_of(norm).maximum(norm, max_norm)
    for grad in grads.values():
        array = grad._data
        if found is NotImplemented:
            with backend.computing_on(grad.device):
                array *= backend.to_device(factor, grad.device).astype(
                    np.promote_types(array.dtype, backend.float32)
                )
        grad._bump()
    return result


def clip_grad_value(params: Iterable[Tensor], max_value: float) -> None:
    """Clip every element of every gradient to [-max_value, max_value].

    Parameters
    ----------
    params : iterable of Tensor
        The parameters; those without a gradient and frozen ones are ignored.
    max_value : float
        The bound, > 0.

    Raises
    ------
    ArgumentError
        `max_value` is not above 0.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> w = tg.tensor([1.0, 1.0], requires_grad=True)
    >>> (w * tg.tensor([3.0, -0.5])).sum().backward()
    >>> tg.optim.clip_grad_value([w], 1.0)
    >>> w.grad
    tensor([ 1. , -0.5])
    """
    max_value = checks.above_zero(max_value, "clip_grad_value: max_value")
    for grad in _gradients(parameter_list(params, "clip_grad_value", frozen=Tensor)).values():
        array = grad._data
        with backend.computing_on(grad.device):
            backend.module_of(array).clip(array, -max_value, max_value, out=array)
        grad._bump()


_ZERO = backend.asarray(0.0, backend.float64)


def _gradients(leaves: list[Tensor]) -> dict[int, Tensor]:
    """Return the gradients that an optimiser would use, by the index of their parameter."""
    return {i: p.grad for i, p in enumerate(leaves) if p.requires_grad and p.grad is not None}


def _squares(array: Array) -> Array:
    """Return the sum of the squares, a 0-d float64, in one pass without a temporary array."""
    axes = list(range(array.ndim))
    with backend.computing_on(backend.device_of(array)):
        return backend.module_of(array).einsum(array, axes, array, axes, [], dtype=backend.float64)
