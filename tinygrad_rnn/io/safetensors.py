"""Exchange of weights with PyTorch, in files of the safetensors format (extra ``interop``).

Module names, shapes, gate order and `state_dict` keys are PyTorch's, so no conversion is needed.
The format stores named arrays only, without checksum or memory layout: save the state of a run by
`tg.save` instead.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._util.api_hints import class_name
from .._util.extras import imported
from ..engine import backend
from ..engine.backend import Array
from ..engine.tensor import Tensor
from ..errors import ArgumentError, CheckpointError, DTypeError
from .atomic import atomic_write, describe_format

_NAMES = "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool".split()


def save_safetensors(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write named arrays to a safetensors file, which PyTorch and others read.

    Parameters
    ----------
    path : str or path
        The file, which is replaced atomically as by `save`.
    state : mapping of str to array or Tensor
        Such as ``module.state_dict()``. Any memory layout, byte order and device; tied parameters
        are written under each of their names.

    Raises
    ------
    ArgumentError
        If `state` is not such a mapping.
    DTypeError
        If a dtype is not supported by both the format and NumPy: floats of 16 to 64 bits, integers
        and booleans are.
    MissingExtraError
        If safetensors is not installed.
    OSError
        If writing fails; the old file is unchanged.

    See Also
    --------
    load_safetensors : The inverse.

    Notes
    -----
    In PyTorch: ``model.load_state_dict(safetensors.torch.load_file(path))``.

    Examples
    --------
    >>> import os, tempfile
    >>> import tinygrad_rnn as tg
    >>> path = os.path.join(tempfile.mkdtemp(), "lstm.safetensors")
    >>> lstm = tg.nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    >>> tg.save_safetensors(path, lstm.state_dict())
    >>> lstm.load_state_dict(tg.load_safetensors(path))
    LoadReport(missing=[], unexpected=[])
    """
    if not isinstance(state, Mapping):
        raise ArgumentError(
            "save_safetensors: a mapping of names to arrays is expected, such as "
            f"module.state_dict(), got a {type(state).__name__}"
        )
    arrays = {name: _contiguous(name, value) for name, value in state.items()}
    data = _library().save(arrays)
    with atomic_write(path) as file:
        file.write(data)


def load_safetensors(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read the arrays of a safetensors file, for instance one written by PyTorch.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    dict of str to ndarray
        In C order and in memory of their own; the argument of ``module.load_state_dict``, which
        raises if a dtype differs from the module's: convert by
        ``{k: v.astype("float32") for k, v in ...}``.

    Raises
    ------
    CheckpointError
        If the file is truncated, not in the format, or contains a dtype that NumPy lacks, such as
        bfloat16. Altered numbers are not detected: the format has no checksum.
    MissingExtraError
        If safetensors is not installed.
    OSError
        If the file does not exist or cannot be read.

    See Also
    --------
    save_safetensors : The inverse, with an example.

    Notes
    -----
    In PyTorch: ``safetensors.torch.save_file(model.state_dict(), path)``.

    Examples
    --------
    >>> import os, tempfile
    >>> import tinygrad_rnn as tg
    >>> path = os.path.join(tempfile.mkdtemp(), "w.safetensors")
    >>> tg.save_safetensors(path, {"w": tg.ones(2)})
    >>> tg.load_safetensors(path)
    {'w': array([1., 1.], dtype=float32)}
    """
    library = _library()
    with open(path, "rb") as file:
        data = file.read()
    try:
        return {name: array.copy() for name, array in library.load(data).items()}
    # Its own exception for a wrong header; NumPy's and KeyError for unknown dtypes.
    except Exception as error:
        format_ = describe_format(io.BytesIO(data))
        if format_ and not format_.startswith("in the format safetensors"):
            raise CheckpointError(
                f"load_safetensors: {str(path)!r} ({len(data):,} bytes) is not in the safetensors "
                f"format: it is a file {format_}"
            ) from None
        raise CheckpointError(
            f"load_safetensors: {str(path)!r} ({len(data):,} bytes) cannot be read "
            f"({type(error).__name__}: {error}): it was truncated, is not in the safetensors "
            "format, or contains a dtype that NumPy lacks (bfloat16: save .float() in PyTorch)"
        ) from error


def _contiguous(name: Any, value: Any) -> Array:
    """Return an array in the layout that safetensors needs: C order, the machine's byte order."""
    if not isinstance(name, str) or name == "__metadata__":
        raise ArgumentError(f"save_safetensors: {name!r} cannot be the name of an array")
    value = value._data if isinstance(value, Tensor) else value
    if not backend.is_array(value):
        raise ArgumentError(f"save_safetensors: {name} is a {class_name(value)}, not an array")
    if isinstance(value, np.ma.MaskedArray) or value.dtype.name not in _NAMES:
        kind = "masked" if isinstance(value, np.ma.MaskedArray) else value.dtype
        raise DTypeError(f"save_safetensors: {name} is an array of {kind}: use {', '.join(_NAMES)}")
    # safetensors 0.8.0 would write the memory of a transposed array without its strides.
    return np.asarray(backend.to_numpy(value), value.dtype.newbyteorder("="), order="C")


def _library() -> Any:
    return imported("safetensors.numpy", "pip install 'tinygrad-rnn[interop]'")
