"""Constructors: tensors filled with a value, a range or random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._util import LIBRARY
from .._util.api_hints import explain_errors
from .._util.contexts import reusable_context
from .._util.foreign_arrays import refuse_lossy_conversion
from .._util.late import module
from ..engine import backend
from ..engine.backend import Array, DType
from ..engine.ops.docstrings import X, standard
from ..engine.tensor import Tensor, wrap
from ..errors import ArgumentError, DeviceError, GraphError
from . import checks

RANDOM = f"{LIBRARY}.random"  # imported at the first draw, since NumPy's is not light

constructor = standard(
    {
        "*shape": ("int", "The lengths of the axes, or one tuple of them."),
        "dtype": ("dtype, optional", "The default dtype if not given."),
        "device": ("str, optional", '``"cpu"`` or ``"cuda:N"``; the default device if not given.'),
        "requires_grad": ("bool", "Whether gradients are collected in ``.grad``."),
        "rng": (
            "int or numpy.random.Generator, optional",
            "A seed or a generator; the library's own generator if not given.",
        ),
    },
    "Of `shape`.",
    {
        "ShapeError": "If a length is negative or no integer.",
        "DTypeError": "If `dtype` is not of real numbers or booleans.",
        "DeviceError": "If `device` is unknown or cannot be used.",
    },
)
constructor_like = standard(
    {
        "x": X,
        "dtype": ("dtype, optional", "The dtype of x if not given."),
        "device": ("str, optional", '``"cpu"`` or ``"cuda:N"``; the device of x if not given.'),
        "requires_grad": ("bool", "Whether gradients are collected in ``.grad``."),
    },
    "Of the shape of x.",
    {
        "DTypeError": "If x is not a Tensor, or `dtype` not of real numbers or booleans.",
        "DeviceError": "If `device` is unknown or cannot be used.",
    },
)


def tensor(
    data: Any, dtype: DType = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """Return a tensor of its own copy of `data`.

    Parameters
    ----------
    data : number, nested sequence, array or Tensor
        Python floats get the default dtype, arrays keep theirs.
    dtype : dtype, optional
        A real dtype to convert to.
    device : str, optional
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``. Default: that of a Tensor or an array of CuPy; the
        default device for other data.
    requires_grad : bool
        Whether operations on it are recorded; floating tensors only.

    Returns
    -------
    Tensor
        A leaf, on memory of its own.

    Raises
    ------
    DTypeError
        For complex numbers, strings and objects.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.tensor([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    dtype = None if dtype is None else checks.real_dtype(dtype, "tensor")
    return Tensor(data, dtype, device, requires_grad)


@reusable_context
def default_device(device: str) -> Iterator[None]:
    """Set the device of new tensors inside a ``with`` reusable_context, for the current thread.

    A GPU also becomes the thread's current device: a thread uses one GPU at a time.

    Parameters
    ----------
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Raises
    ------
    DeviceError
        If the device is not available; the message gives the reason.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> with tg.default_device("cpu"):
    ...     tg.zeros(2).device
    'cpu'
    """
    before = backend.default_device()
    with backend.computing_on(device):
        try:
            backend.set_default_device(device)
            yield
        finally:
            backend.set_default_device(before)


def _by_numpy(name: str, function: Any, *args: Any, **keywords: Any) -> Array:
    """Return the result of a NumPy function; its error begins with the name of ours."""
    try:
        return function(*args, **keywords)
    except DeviceError:
        raise
    except (ValueError, OverflowError) as error:
        raise ArgumentError(f"{name}: {error}") from error


def _filled(
    name: str,
    shape: tuple[Any, ...],
    value: Any,
    dtype: DType,
    device: str | None,
    requires_grad: bool,
) -> Tensor:
    refuse_lossy_conversion(value)
    if isinstance(value, Tensor) and value.requires_grad:
        raise GraphError(
            f"{name}: the value requires grad: use tinygrad_rnn.broadcast_to, or item()"
        )
    if not isinstance(value, bool | int):
        value = checks.any_number(value, f"{name}: the value")
    lengths, dtype = checks.lengths(shape, name), checks.real_dtype(dtype, name)
    array = _by_numpy(name, backend.filled, lengths, value, dtype, device)
    return _owned(array, device, requires_grad)


def _alike(
    name: str, x: Tensor, value: Any, dtype: DType, device: str | None, requires_grad: bool
) -> Tensor:
    x = checks.require_tensor(x, name)
    dtype, device = dtype or x.dtype, device or x.device
    return _filled(name, (x.shape,), value, dtype, device, requires_grad)


def _owned(array: Array, device: str | None, requires_grad: bool) -> Tensor:
    result = wrap(backend.to_device(array, device), None, [0])
    result.requires_grad = requires_grad
    return result


@constructor
@explain_errors
def zeros(
    *shape: Any, dtype: DType = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """Return a tensor of zeros.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.zeros(2, 3).shape
    (2, 3)
    """
    return _filled("zeros", shape, 0, dtype, device, requires_grad)


@constructor
@explain_errors
def ones(
    *shape: Any, dtype: DType = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """Return a tensor of ones.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.ones(2)
    tensor([1., 1.])
    """
    return _filled("ones", shape, 1, dtype, device, requires_grad)


@constructor
@explain_errors
def full(
    shape: tuple[int, ...],
    fill_value: float,
    dtype: DType = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return a tensor filled with one value.

    Parameters
    ----------
    shape : int or tuple of int
        The lengths of the axes.
    fill_value : float
        The value.

    Raises
    ------
    ShapeError
        If a length is negative or no integer.
    ArgumentError
        If the value is not a number.
    DTypeError
        If `dtype` is not of real numbers or booleans.
    DeviceError
        If `device` is unknown or cannot be used.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.full((2,), 7.0)
    tensor([7., 7.])
    """
    return _filled("full", (shape,), fill_value, dtype, device, requires_grad)


@constructor_like
@explain_errors
def zeros_like(
    x: Tensor, dtype: DType = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """Return zeros of the shape, dtype and device of x.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.zeros_like(tg.ones(2))
    tensor([0., 0.])
    """
    return _alike("zeros_like", x, 0, dtype, device, requires_grad)


@constructor_like
@explain_errors
def ones_like(
    x: Tensor, dtype: DType = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """Return ones of the shape, dtype and device of x.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.ones_like(tg.zeros(2))
    tensor([1., 1.])
    """
    return _alike("ones_like", x, 1, dtype, device, requires_grad)


@constructor
@explain_errors
def arange(
    start: float | None = None,
    stop: float | None = None,
    step: float = 1,
    dtype: DType = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return evenly spaced values.

    Parameters
    ----------
    start, stop, step : float
        The first value, the bound that is not reached, and the distance. One bound alone is `stop`,
        and `start` is 0, as for ``numpy.arange``.
    dtype : dtype, optional
        If not given, int64 for integer bounds, otherwise the default dtype.

    Returns
    -------
    Tensor
        Of one axis, without `stop`.

    Raises
    ------
    ArgumentError
        If a bound is not a number, or the step is 0.
    DTypeError
        If `dtype` is not of real numbers or booleans.
    DeviceError
        If `device` is unknown or cannot be used.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.arange(3), tg.arange(1.0, 2.0, 0.5)
    (tensor([0, 1, 2]), tensor([1. , 1.5]))
    """
    if stop is None:
        start, stop = None, start
    numbers = [
        int(b) if hasattr(b, "__index__") else checks.any_number(b, "arange: a bound")
        for b in (0 if start is None else start, 0 if stop is None else stop, step)
    ]
    if stop is None or not numbers[2]:
        raise ArgumentError(
            "arange takes stop, or start, stop and a step that is not 0, got "
            f"start={start}, stop={stop}, step={step}"
        )
    dtype = None if dtype is None else checks.real_dtype(dtype, "arange")
    array = _by_numpy("arange", np.arange, *numbers, dtype=dtype)
    if dtype is None and array.dtype.kind == "f":
        array = array.astype(backend.get_default_dtype())
    return _owned(array, device, requires_grad)


@constructor
@explain_errors
def linspace(
    start: float,
    stop: float,
    num: int = 50,
    dtype: DType = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return evenly spaced values between two bounds, both included.

    Parameters
    ----------
    start, stop : float
        The first value and the last.
    num : int
        How many.

    Returns
    -------
    Tensor
        (num,).

    Raises
    ------
    ArgumentError
        If a bound is not a number, or `num` is negative.
    DTypeError
        If `dtype` is not of real numbers or booleans.
    DeviceError
        If `device` is unknown or cannot be used.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.linspace(0, 1, 5)
    tensor([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """
    first, last = (checks.any_number(bound, "linspace: a bound") for bound in (start, stop))
    num = checks.positive(num, "linspace: num", least=0)
    array = np.linspace(first, last, num, dtype=checks.real_dtype(dtype, "linspace"))
    return _owned(array, device, requires_grad)


@constructor
@explain_errors
def eye(
    n: int,
    m: int | None = None,
    dtype: DType = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return the matrix with ones on its diagonal and zeros elsewhere.

    Parameters
    ----------
    n : int
        The number of rows.
    m : int, optional
        The number of columns; `n` if not given.

    Returns
    -------
    Tensor
        (n, m).

    Raises
    ------
    ArgumentError
        If a size is negative or no integer.
    DTypeError
        If `dtype` is not of real numbers or booleans.
    DeviceError
        If `device` is unknown or cannot be used.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.eye(2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    n = checks.positive(n, "eye: n", least=0)
    m = n if m is None else checks.positive(m, "eye: m", least=0)
    return _owned(np.eye(n, m, dtype=checks.real_dtype(dtype, "eye")), device, requires_grad)


@constructor
@explain_errors
def randn(
    *shape: Any,
    dtype: DType = None,
    device: str | None = None,
    requires_grad: bool = False,
    rng: Any = None,
) -> Tensor:
    """Return numbers drawn from the standard normal distribution.

    Raises
    ------
    ShapeError
        If a length is negative or no integer.
    DTypeError
        If `dtype` is not floating.
    ArgumentError
        If `rng` is neither a seed nor a generator.
    DeviceError
        If `device` is unknown or cannot be used.

    Notes
    -----
    The numbers are drawn on the host, in float64: they are the same on every device.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> bool((tg.randn(3, rng=0) == tg.randn(3, rng=0)).numpy().all())
    True
    """
    dtype = checks.real_dtype(dtype, "randn", kinds="f")
    numbers = module(RANDOM).generator(rng).standard_normal(checks.lengths(shape, "randn"))
    return _owned(numbers.astype(dtype), device, requires_grad)


@constructor
@explain_errors
def rand(
    *shape: Any,
    dtype: DType = None,
    device: str | None = None,
    requires_grad: bool = False,
    rng: Any = None,
) -> Tensor:
    """Return numbers drawn uniformly from [0, 1).

    Raises
    ------
    ShapeError
        If a length is negative or no integer.
    DTypeError
        If `dtype` is not floating.
    ArgumentError
        If `rng` is neither a seed nor a generator.
    DeviceError
        If `device` is unknown or cannot be used.

    Notes
    -----
    The numbers are drawn in float64 and rounded: they are the same on every device.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.rand(1000, rng=0)
    >>> bool(x.min().item() >= 0), bool(x.max().item() < 1)
    (True, True)
    """
    dtype = checks.real_dtype(dtype, "rand", kinds="f")
    lengths = checks.lengths(shape, "rand")
    device = backend.default_device() if device is None else device
    numbers = module(RANDOM).draw_uniform(lengths, dtype, rng=rng, device=device)
    return _owned(numbers, device, requires_grad)
