"""DLPack: memory shared with the arrays of other libraries, in both directions."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._util.api_hints import class_name
from .._util.foreign_arrays import refuse_lossy_conversion
from ..engine import backend
from ..engine.tensor import Tensor, wrap
from ..errors import DeviceError, DTypeError, GraphError

_CUDA, _ON_HOST = (
    2,
    (1, 3, 13),
)  # DLDeviceType; on the host: the CPU, CUDA's host and managed memory


def from_dlpack(x: Any) -> Tensor:
    """Return a tensor on the memory of another library's array, without a copy.

    A write by the other library is not seen by a graph: see the notes.

    Parameters
    ----------
    x : object
        An array of NumPy, CuPy, PyTorch, JAX or any library that speaks DLPack.

    Returns
    -------
    Tensor
        Of the shape, dtype and device of x; writes to one are seen in the other.

    Raises
    ------
    DTypeError
        If x does not speak DLPack, or its dtype is complex or has no counterpart in NumPy
        (bfloat16).
    DeviceError
        If x is on a GPU and CuPy cannot be used, or on another kind of device.
    BufferError
        If its library does not export it: a tensor that requires grad, a sparse one.

    Notes
    -----
    The memory is shared, and no library can see the writes of another one: a value that an
    operation here saved for the backward pass must not be written to there before that pass, or the
    gradient is wrong. (Writes through this library, such as an optimiser's, are noticed.) Memory
    that is read-only there (an array of JAX) is read-only here.

    In the opposite direction every library's own ``from_dlpack`` takes a Tensor that does not
    require grad. It gets the Tensor's own memory, and may write to it, if

    - the Tensor is a leaf or a view of one (``x.detach()``, ``x[:2]``, ``x.T``),
    - the memory is writable,
    - and it has no gaps: the elements, in some order of the axes, are one block.

    Everything else is exported as a copy in C order: computed values, which a graph may have saved
    (also detached ones); read-only memory (also that of `broadcast_to`), since PyTorch writes to it
    nevertheless; parts with gaps, such as ``x[:, 0]``, which JAX rejects; and reversed parts, such
    as ``x[::-1]``. ``copy=True`` always makes a copy. ``copy=False`` raises BufferError where the
    Tensor's own memory must not be exported; parts with gaps are shared then.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> import numpy as np
    >>> tg.from_dlpack(np.arange(3.0, dtype=np.float32))
    tensor([0., 1., 2.])
    """
    if not hasattr(x, "__dlpack_device__"):
        raise DTypeError(
            f"from_dlpack: an array of NumPy, PyTorch, JAX or CuPy is expected, got "
            f"{class_name(x)}: use tinygrad_rnn.tensor"
        )
    if isinstance(x, Tensor) and not x.requires_grad:
        return x.detach()  # both have one version: writes are noticed
    try:
        refuse_lossy_conversion(x)
    except GraphError as error:
        raise BufferError(f"from_dlpack: {error}") from None
    kind, _ = x.__dlpack_device__()
    if kind not in (*_ON_HOST, _CUDA):
        raise DeviceError(
            f"from_dlpack: an array on a device of DLPack's kind {int(kind)}: move it to the CPU "
            "or to CUDA first"
        )
    module = np if kind in _ON_HOST else backend.gpu_module()
    try:
        # An array that NumPy 2.1 imports from itself by DLPack is read-only.
        own = isinstance(x, np.ndarray) and x.flags.writeable
        array = x.view(np.ndarray) if own else module.from_dlpack(x)
    except RuntimeError as error:  # how NumPy and CuPy refuse a dtype
        raise DTypeError(f"from_dlpack: {getattr(x, 'dtype', 'the dtype')}: {error}") from None
    if array.dtype.kind not in "fiub":
        raise DTypeError(f"from_dlpack: real numbers only, got {array.dtype}")
    return wrap(array, None, [0])


def export(
    x: Tensor,
    *,
    stream: Any = None,
    max_version: tuple[int, int] | None = None,
    dl_device: tuple[Any, int] | None = None,
    copy: bool | None = None,
) -> Any:
    """Export the array: its own memory where a write to it is harmless, otherwise a copy.

    The notes of `tinygrad_rnn.from_dlpack` list both cases. This is ``Tensor.__dlpack__``.
    """
    if x.requires_grad:
        raise BufferError("a tensor that requires grad is not exported: use .detach()")
    array, refusal = x._data, _refusal(x, strided=copy is False)
    if refusal and copy is False:
        raise BufferError(f"{refusal} is exported as a copy: leave copy=False out")
    if refusal:
        array, copy = array.copy(order="C"), None
    given = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
    # CuPy before the versioned protocol accepts `stream` alone.
    try:
        return array.__dlpack__(**{key: value for key, value in given.items() if value is not None})
    except ValueError as error:  # of a NumPy before 2.2; the protocol asks for a BufferError
        raise BufferError(f"DLPack: {error}") from error


def _refusal(x: Tensor, strided: bool) -> str | None:
    """Return why the memory must not be exported, or None; gaps are allowed if `strided`."""
    array = x._data
    if x._version is None:
        return "a computed tensor, which a graph may have saved,"
    if not getattr(array.flags, "writeable", True):  # PyTorch ignores the flag
        return "a tensor on read-only memory"
    if any(stride < 0 for stride in array.strides):  # PyTorch ends the process on these
        return "a tensor that runs backwards in memory"
    order = sorted(range(array.ndim), key=array.strides.__getitem__, reverse=True)
    if strided or array.transpose(order).flags.c_contiguous:
        return None
    return "a tensor with gaps in memory"  # JAX rejects it
