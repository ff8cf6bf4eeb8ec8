"""Token ids in a .npy file, read as a memory map."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ...io.atomic import atomic_write


def write_memory_map(
    path: str | os.PathLike[str], parts: Iterable[npt.NDArray[Any]], dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    """Write the concatenation of 1-D arrays into a .npy file; return it as a memory map."""
    with atomic_write(path) as file:
        _write_header(file, 0, dtype)
        start, count = file.tell(), 0
        for part in parts:
            file.write(part.data)
            count += len(part)
        file.seek(0)
        _write_header(file, count, dtype)  # of the same size: NumPy pads it for growing shapes
        assert file.tell() == start
    return np.load(path, mmap_mode="r" if count else None)  # an empty file cannot be mapped


def _write_header(file: BinaryIO, count: int, dtype: np.dtype[Any]) -> None:
    header = {"descr": dtype.str, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)
