"""Ids that stay in a file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt


def memory_map(
    path: str | os.PathLike[str], parts: Iterable[npt.NDArray[Any]], dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    """Write arrays one behind the other into a .npy file, and return it as a memory map.

    The file takes its name when it is complete: until then, a file of that name stays what it was.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            _header(file, 0, dtype)
            start, count = file.tell(), 0
            for part in parts:
                file.write(part.astype(dtype, copy=False).data)
                count += len(part)
            file.seek(0)
            _header(file, count, dtype)  # of the same length: NumPy leaves room for the number
            assert file.tell() == start
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r" if count else None)  # there is no map of nothing


def _header(file: IO[bytes], count: int, dtype: np.dtype[Any]) -> None:
    about = {"descr": dtype.str, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, about)
