"""Initialization in place: each function overwrites a tensor with new values and returns it.

Numbers are drawn in double precision and then rounded, so that a float32 network and a float64
network, on the CPU or on a GPU, start from the same values. A GPU draws uniform numbers itself;
normal ones are drawn on the host, since each takes an unknown number of random bits.
"""

from __future__ import annotations

import math
from typing import Any

from numpy.random import Generator

from .. import random as tg_random
from .._util.api_hints import class_name, module_getattr
from ..engine import backend
from ..engine.backend import Array
from ..engine.tensor import Tensor
from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensors import checks


def uniform(
    tensor: Tensor, low: float = 0.0, high: float = 1.0, rng: int | Generator | None = None
) -> Tensor:
    """Fill `tensor` with draws from the uniform distribution U(low, high).

    Parameters
    ----------
    tensor : Tensor
        A floating tensor of any shape; it is overwritten.
    low, high : float
        The bounds.
    rng : int or Generator, optional
        Seed or generator; the library's own generator if None.

    Returns
    -------
    Tensor
        `tensor` itself.

    Raises
    ------
    DTypeError
        If `tensor` is not a Tensor of a floating dtype.
    ArgumentError
        If a number or `rng` is out of range.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> w = tg.nn.init.uniform(tg.zeros(3, 4), -0.1, 0.1, rng=0)
    >>> bool((abs(w.numpy()) <= 0.1).all())
    True
    """
    _check(tensor, "uniform")
    low, high = (checks.any_number(value, "init.uniform: a bound") for value in (low, high))
    if not low <= high:
        raise ArgumentError(f"init.uniform: low ({low}) is above high ({high})")
    shape, dtype, device = tensor.shape, tensor.dtype, tensor.device
    tensor.data = tg_random.draw_uniform(shape, dtype, low, high, rng, device)
    return tensor


def normal(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, rng: int | Generator | None = None
) -> Tensor:
    """Fill `tensor` with draws from the normal distribution N(mean, std²).

    Parameters
    ----------
    tensor : Tensor
        A floating tensor of any shape; it is overwritten.
    mean, std : float
        Mean and standard deviation.
    rng : int or Generator, optional
        Seed or generator; the library's own generator if None.

    Returns
    -------
    Tensor
        `tensor` itself.

    Raises
    ------
    DTypeError
        If `tensor` is not a Tensor of a floating dtype.
    ArgumentError
        If a number or `rng` is out of range.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.nn.init.normal(tg.zeros(2, 3), std=0.01, rng=0).shape
    (2, 3)
    """
    _check(tensor, "normal")
    mean = checks.any_number(mean, "init.normal: mean")
    if not checks.any_number(std, "init.normal: std") >= 0:
        raise ArgumentError(f"init.normal: std must not be negative, got {std}")
    return _fill(tensor, tg_random.generator(rng).normal(mean, std, tensor.shape))


def xavier_uniform(tensor: Tensor, gain: float = 1.0, rng: int | Generator | None = None) -> Tensor:
    """Fill a weight with U(-a, a), a = gain √(6 / (fan_in + fan_out)).

    Parameters
    ----------
    tensor : Tensor
        A floating tensor (out, in, ...); it is overwritten.
    gain : float
        A factor for the non-linearity that follows.
    rng : int or Generator, optional
        Seed or generator; the library's own generator if None.

    Returns
    -------
    Tensor
        `tensor` itself.

    Raises
    ------
    DTypeError
        If `tensor` is not a Tensor of a floating dtype.
    ArgumentError
        If a number or `rng` is out of range.
    ShapeError
        If `tensor` has fewer than two axes.

    Notes
    -----
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    2010, equation 16.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> w = tg.nn.init.xavier_uniform(tg.zeros(2, 4), rng=0)
    >>> bool((abs(w.numpy()) <= 1).all())
    True
    """
    fan_in, fan_out = _fans(tensor, "xavier_uniform")
    bound = gain * math.sqrt(6.0 / (fan_in + fan_out))
    return uniform(tensor, -bound, bound, rng)


def xavier_normal(tensor: Tensor, gain: float = 1.0, rng: int | Generator | None = None) -> Tensor:
    """Fill a weight with N(0, σ²), σ = gain √(2 / (fan_in + fan_out)).

    Parameters
    ----------
    tensor : Tensor
        A floating tensor (out, in, ...); it is overwritten.
    gain : float
        A factor for the non-linearity that follows.
    rng : int or Generator, optional
        Seed or generator; the library's own generator if None.

    Returns
    -------
    Tensor
        `tensor` itself.

    Raises
    ------
    DTypeError
        If `tensor` is not a Tensor of a floating dtype.
    ArgumentError
        If a number or `rng` is out of range.
    ShapeError
        If `tensor` has fewer than two axes.

    Notes
    -----
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    2010, equation 12.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.nn.init.xavier_normal(tg.zeros(2, 4), rng=0).shape
    (2, 4)
    """
    fan_in, fan_out = _fans(tensor, "xavier_normal")
    return normal(tensor, 0.0, gain * math.sqrt(2.0 / (fan_in + fan_out)), rng)


def kaiming_uniform(
    tensor: Tensor,
    gain: float = math.sqrt(2.0),
    mode: str = "fan_in",
    rng: int | Generator | None = None,
) -> Tensor:
    """Fill a weight with U(-a, a), a = gain √(3 / fan).

    Parameters
    ----------
    tensor : Tensor
        A floating tensor (out, in, ...); it is overwritten.
    gain : float
        √2, the default, is for a rectifier; 1 for a linear layer.
    mode : {"fan_in", "fan_out"}
        Keep the variance of the activations forward, or that of the gradients backward.
    rng : int or Generator, optional
        Seed or generator; the library's own generator if None.

    Returns
    -------
    Tensor
        `tensor` itself.

    Raises
    ------
    DTypeError
        If `tensor` is not a Tensor of a floating dtype.
    ArgumentError
        If a number or `rng` is out of range.
    ShapeError
        If `tensor` has fewer than two axes.

    Notes
    -----
    He, Zhang, Ren and Sun, "Delving deep into rectifiers", 2015, equations 10 and 14: a variance of
    gain² / fan, which for U(-a, a) is a² / 3.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> w = tg.nn.init.kaiming_uniform(tg.zeros(2, 6), rng=0)
    >>> bool((abs(w.numpy()) <= 1).all())
    True
    """
    bound = gain * math.sqrt(3.0 / _fan(tensor, mode, "kaiming_uniform"))
    return uniform(tensor, -bound, bound, rng)


def kaiming_normal(
    tensor: Tensor,
    gain: float = math.sqrt(2.0),
    mode: str = "fan_in",
    rng: int | Generator | None = None,
) -> Tensor:
    """Fill a weight with N(0, σ²), σ = gain / √fan.

    Parameters
    ----------
    tensor : Tensor
        A floating tensor (out, in, ...); it is overwritten.
    gain : float
        √2, the default, is for a rectifier; 1 for a linear layer.
    mode : {"fan_in", "fan_out"}
        Keep the variance of the activations forward, or that of the gradients backward.
    rng : int or Generator, optional
        Seed or generator; the library's own generator if None.

    Returns
    -------
    Tensor
        `tensor` itself.

    Raises
    ------
    DTypeError
        If `tensor` is not a Tensor of a floating dtype.
    ArgumentError
        If a number or `rng` is out of range.
    ShapeError
        If `tensor` has fewer than two axes.

    Notes
    -----
    He, Zhang, Ren and Sun, "Delving deep into rectifiers", 2015, equations 10 and 14.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.nn.init.kaiming_normal(tg.zeros(2, 6), rng=0).shape
    (2, 6)
    """
    return normal(tensor, 0.0, gain / math.sqrt(_fan(tensor, mode, "kaiming_normal")), rng)


def orthogonal(tensor: Tensor, gain: float = 1.0, rng: int | Generator | None = None) -> Tensor:
    """Fill a weight with `gain` times a random matrix Q with orthonormal rows or columns.

    Parameters
    ----------
    tensor : Tensor
        A floating tensor (out, in, ...), used as a matrix with out rows; it is overwritten.
    gain : float
        The norm of the rows if there are fewer rows than columns, otherwise of the columns.
    rng : int or Generator, optional
        Seed or generator; the library's own generator if None.

    Returns
    -------
    Tensor
        `tensor` itself.

    Raises
    ------
    DTypeError
        If `tensor` is not a Tensor of a floating dtype.
    ArgumentError
        If a number or `rng` is out of range.
    ShapeError
        If `tensor` has fewer than two axes.

    Notes
    -----
    Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", 2014. Q is from the QR decomposition of a normal matrix. Its columns
    are multiplied by the signs of R's diagonal, so that Q is uniform over the orthogonal matrices
    (Mezzadri, "How to generate random matrices from the classical compact groups", 2007).

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> q = tg.nn.init.orthogonal(tg.zeros(3, 3, dtype=tg.float64), rng=0)
    >>> bool((abs((q @ q.T).numpy() - tg.eye(3).numpy()) < 1e-12).all())
    True
    """
    _fans(tensor, "orthogonal")
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    drawn = tg_random.generator(rng).normal(size=(max(rows, columns), min(rows, columns)))
    xp = backend.module_of(drawn)
    q, r = xp.linalg.qr(drawn)
    q *= gain * xp.sign(r.diagonal())
    return _fill(tensor, (q if rows >= columns else q.T).reshape(tensor.shape))


def zeros(tensor: Tensor) -> Tensor:
    """Fill `tensor` with zeros.

    Parameters
    ----------
    tensor : Tensor
        A tensor of any shape; it is overwritten.

    Returns
    -------
    Tensor
        `tensor` itself.

    Raises
    ------
    DTypeError
        If `tensor` is not a Tensor of a floating dtype.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.nn.init.zeros(tg.ones(2))
    tensor([0., 0.])
    """
    return constant(tensor, 0.0)


def constant(tensor: Tensor, value: float) -> Tensor:
    """Fill `tensor` with one value.

    Parameters
    ----------
    tensor : Tensor
        A tensor of any shape; it is overwritten.
    value : float
        The value, for example 1 for the bias of an LSTM's forget gate.

    Returns
    -------
    Tensor
        `tensor` itself.

    Raises
    ------
    DTypeError
        If `tensor` is not a Tensor of a floating dtype.
    ArgumentError
        If the value is not a number.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.nn.init.constant(tg.zeros(2), 0.5)
    tensor([0.5, 0.5])
    """
    _check(tensor, "constant")
    value = checks.any_number(value, "init.constant: the value")
    tensor.data = backend.full(tensor.shape, value, tensor.dtype, like=tensor._data)
    return tensor


def _check(tensor: Any, name: str) -> None:
    if not isinstance(tensor, Tensor):
        raise DTypeError(
            f"init.{name}: a Tensor to write into is expected, got a {class_name(tensor)}"
        )
    if tensor.dtype.kind != "f":
        raise DTypeError(f"init.{name}: the tensor must be floating, got {tensor.dtype}")


def _fill(tensor: Tensor, drawn: Array) -> Tensor:
    tensor.data = backend.to_device(drawn.astype(tensor.dtype), tensor.device)
    return tensor


def _fans(tensor: Tensor, name: str) -> tuple[int, int]:
    """Return fan-in and fan-out: the number of inputs of an output, and of outputs of an input."""
    _check(tensor, name)
    if tensor.ndim < 2 or not tensor.size:
        raise ShapeError(
            f"init.{name}: a weight of shape (out, in, ...) is needed, got {tensor.shape}; "
            "for biases use init.zeros or init.uniform"
        )
    receptive_field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * receptive_field, tensor.shape[0] * receptive_field


def _fan(tensor: Tensor, mode: str, name: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError(f"init.{name}: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return _fans(tensor, name)[mode == "fan_out"]


__getattr__ = module_getattr(
    __name__,
    {f"{name}_": name for name in list(globals()) if not name.startswith("_")}
    | {"constant_": "constant", "ones_": "constant(tensor, 1.0)"},
    globals(),
)
