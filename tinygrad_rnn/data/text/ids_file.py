"""Ids that stay in a file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ...io.atomic import atomic_write


def memory_map(
    path: str | os.PathLike[str], parts: Iterable[npt.NDArray[Any]], dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    """Write arrays of a dtype one behind the other into a .npy file; return it as a memory map."""
    with atomic_write(path) as file:
        _header(file, 0, dtype)
        start, count = file.tell(), 0
        for part in parts:
            file.write(part.data)
            count += len(part)
        file.seek(0)
        _header(file, count, dtype)  # of the same length: NumPy leaves room for the number
        assert file.tell() == start
    return np.load(path, mmap_mode="r" if count else None)  # there is no map of nothing


def _header(file: BinaryIO, count: int, dtype: np.dtype[Any]) -> None:
    about = {"descr": dtype.str, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, about)
