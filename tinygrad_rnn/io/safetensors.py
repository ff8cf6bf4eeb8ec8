"""Weights to and from PyTorch, by files in the safetensors format (extra ``interop``).

Module names, shapes, gate order and `state_dict` keys are PyTorch's, so nothing is translated. The
format has neither a checksum nor memory layouts nor anything else than arrays by name: a run of
this library is saved by `tg.save`.
"""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._util.api_hints import class_name
from ..engine import backend
from ..engine.backend import Array
from ..engine.tensor import Tensor
from ..errors import ArgumentError, CheckpointError, DTypeError, MissingExtraError
from .atomic import atomic_write, describe_format

_NAMES = "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool".split()


def save_safetensors(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write arrays by name to a file that PyTorch and others read.

    Parameters
    ----------
    path : str or path
        Replaced as a whole or not at all, as by `save`.
    state : mapping of str to array or Tensor
        Such as ``module.state_dict()``. Any memory layout, byte order and device; a parameter that
        is tied to another is written under both names.

    Raises
    ------
    ArgumentError
        If `state` is no such mapping.
    DTypeError
        If an array's dtype is none that the format and NumPy share: floating of 16 to 64 bits,
        integers, booleans.
    MissingExtraError
        If safetensors is not installed.
    OSError
        If the system refuses to write; what was there before is there still.

    See Also
    --------
    load_safetensors : The other way.

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
    arrays = {name: _plain(name, value) for name, value in state.items()}
    data = _library().save(arrays)
    with atomic_write(path) as file:
        file.write(data)


def load_safetensors(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Return the arrays of a file in the safetensors format, such as PyTorch's users write.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    dict of str to ndarray
        In C order, owning their memory; for ``module.load_state_dict``. A dtype that differs from
        the module's is refused there: convert by ``{k: v.astype("float32") for k, v in ...}``.

    Raises
    ------
    CheckpointError
        If the file is cut off or not in the format, or holds a dtype that NumPy has not, such as
        bfloat16. Altered numbers are not noticed: the format has no checksum.
    MissingExtraError
        If safetensors is not installed.
    OSError
        If there is no such file, or the system refuses to read it.

    See Also
    --------
    save_safetensors : The other way, with an example.

    Notes
    -----
    In PyTorch: ``safetensors.torch.save_file(model.state_dict(), path)``.
    """
    library = _library()
    with open(path, "rb") as file:
        data = file.read()
    try:
        return {name: array.copy() for name, array in library.load(data).items()}
    # Its own exception for a wrong header, and what NumPy and look-ups raise for unknown dtypes.
    except Exception as error:
        made = describe_format(io.BytesIO(data))
        if made and not made.startswith("in the format safetensors"):
            raise CheckpointError(
                f"load_safetensors: {str(path)!r} ({len(data):,} bytes) is not in the safetensors "
                f"format: it is a file {made}"
            ) from None
        raise CheckpointError(
            f"load_safetensors: {str(path)!r} ({len(data):,} bytes) cannot be read "
            f"({type(error).__name__}: {error}): it was cut off, is not in the safetensors format, "
            "or holds a dtype that NumPy has not (bfloat16: save .float() in PyTorch)"
        ) from error


def _plain(name: Any, value: Any) -> Array:
    """Return an array as safetensors has to have it: in C order and the machine's byte order."""
    if not isinstance(name, str) or name == "__metadata__":
        raise ArgumentError(f"save_safetensors: {name!r} cannot be the name of an array")
    value = value._data if isinstance(value, Tensor) else value
    if not backend.is_array(value):
        raise ArgumentError(f"save_safetensors: {name} is a {class_name(value)}, not an array")
    if isinstance(value, np.ma.MaskedArray) or value.dtype.name not in _NAMES:
        kind = "masked" if isinstance(value, np.ma.MaskedArray) else value.dtype
        raise DTypeError(f"save_safetensors: {name} is an array of {kind}: use {', '.join(_NAMES)}")
    # Not left to safetensors: version 0.8.0 writes the memory of a transposed array as it lies.
    return np.asarray(backend.to_numpy(value), value.dtype.newbyteorder("="), order="C")


def _library() -> Any:
    try:
        return importlib.import_module("safetensors.numpy")
    except ImportError as error:
        raise MissingExtraError(
            "safetensors is not installed: pip install 'tinygrad-rnn[interop]'"
        ) from error
