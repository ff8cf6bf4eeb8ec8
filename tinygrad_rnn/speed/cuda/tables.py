"""Tables of arrays: the arguments of launches that process many arrays, `tables.cu`."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import emit, module

BYTES = 3600  # of a table; the arguments of a launch have 4096
CHUNK = 8192  # elements that a block processes, at least
MAX_CHUNKS = 1024  # of all arrays, unless there are more arrays
REALS = {np.dtype("float32"): "float", np.dtype("float64"): "double"}


class Table(NamedTuple):
    """Some of the arrays: the number of blocks and the argument of a launch."""

    blocks: int
    argument: Any


def rows_of(columns: int) -> int:
    """Return the number of rows of a table; the others go to further launches."""
    return min(module.THREADS, (BYTES - 16) // (16 + 8 * columns))


@functools.cache
def text_of(name: str, real: Any, columns: int = 1, settings: int = 1, **words: str) -> str:
    """Return a CUDA text of this folder.

    Parameters
    ----------
    name : str
        Of the file.
    real : dtype
        float32 or float64.
    columns, settings : int
        The number of columns of tables, and that of the settings of an update.
    **words : str
        The lines in place of each word.
    """
    folder = Path(__file__).parent
    tables, text = (folder.joinpath(f"{x}.cu").read_text("utf-8") for x in ("tables", name))
    numbers = {
        "REAL": REALS[real],
        "THREADS": module.THREADS,
        "ROWS": rows_of(columns),
        "COLUMNS": columns,
        "SETTINGS": settings,
    }
    defines = "".join(f"#define {x} {value}\n" for x, value in numbers.items())
    for word, lines in words.items():
        text = text.replace(f" {word}\n", f" {lines}\n")
    return "\n".join([emit.PREAMBLE, defines, tables, text])


def is_dense(x: Any) -> bool:
    """Tell whether an array is contiguous, in C or Fortran order."""
    flags = x.flags
    return bool(flags.c_contiguous or flags.f_contiguous)


def ordered_as(like: Any, x: Any, xp: Any) -> Any:
    """Return an array in the memory order of a contiguous one of its shape."""
    if x.strides == like.strides:
        return x
    if like.flags.c_contiguous:
        return xp.ascontiguousarray(x)
    return xp.ascontiguousarray(x.T).T


def tables(rows: Sequence[Sequence[Any]]) -> Iterator[Table]:
    """Yield the tables of rows of arrays; the first array of a row has its size."""
    columns = len(rows[0])
    most = rows_of(columns)
    chunk = max(CHUNK, -(-sum([row[0].size for row in rows]) // MAX_CHUNKS))
    for start in range(0, len(rows), most):
        part = rows[start : start + most]
        sizes = [row[0].size for row in part]
        ends, total = [], 0
        for size in sizes:
            total += -(-size // chunk)
            ends.append(total)
        rest = [0] * (most - len(part))
        at = [x.data.ptr for row in part for x in row]
        words = [len(part), chunk, *ends, *rest, *sizes, *rest, *at, *(rest * columns)]
        if total:
            yield Table(total, struct(words))


def struct(words: Sequence[float], dtype: Any = np.int64) -> Any:
    """Return numbers as an array of one structure, which CuPy passes by value."""
    numbers = np.array(words, dtype)
    return numbers.view(np.dtype((np.void, numbers.nbytes)))
