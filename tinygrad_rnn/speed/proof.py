"""Proofs of compiled libraries, before they are loaded: they run on synthetic input in a child.

A crash there, such as by an instruction that the processor does not have, costs nothing. The child
is a small program in C (`proof.c`), which takes 2 ms; Python would take longer to start.
"""

from __future__ import annotations

import functools
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CompilerError
from .compiler import Compiler, not_executable

ALIGNMENT, ARGUMENTS = 64, 6  # of proof.c
TIMEOUT = 60  # seconds
WORD = np.dtype(np.intp).itemsize


@functools.cache
def child(compiler: Compiler) -> Path:
    """Return the program of the child; raise a CompilerError if programs cannot run from there."""
    text = Path(__file__).with_name("proof.c").read_text("utf-8")
    import subprocess  # here, since an import of the library is light

    path = compiler.library(text, ["-O1", "-w", "-ldl"], program=True)
    try:
        subprocess.run([str(path)], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise not_executable(path, error) from error
    return path


def run(
    compiler: Compiler,
    library: Path,
    calls: Sequence[tuple[str, Sequence[Any]]],
    others: Sequence[Any] = (),
) -> list[int]:
    """Call functions of a library in a child process; return their results.

    Parameters
    ----------
    compiler : Compiler
    library : path
    calls : sequence of (str, sequence)
        The names of the functions, and up to six arguments: integers, or arrays for their
        addresses. The arrays are changed as the functions do.
    others : sequence of ndarray
        Arrays whose addresses are in arrays of dtype intp.
    """
    table = np.zeros((len(calls), ARGUMENTS), np.intp)
    arrays = {id(x): x for _, args in calls for x in args if isinstance(x, np.ndarray)}
    arrays = {id(table): table, **arrays, **{id(x): x for x in others}}
    for row, (_, args) in zip(table, calls, strict=True):
        row[: len(args)] = [x if isinstance(x, int) else _address(x) for x in args]
    places, size = {}, 0  # where the arrays are in the memory of the child
    for key, x in arrays.items():
        places[key] = size
        size += -(-max(x.nbytes, 1) // ALIGNMENT) * ALIGNMENT
    memory, relocations = np.zeros(size, np.uint8), []
    for key, x in arrays.items():
        into = memory[places[key] : places[key] + x.nbytes].view(x.dtype)
        into[...] = _flat(x)
        for i, word in enumerate(into if x.dtype == np.intp else ()):
            for other, y in arrays.items():
                if 0 <= word - _address(y) < max(y.nbytes, 1):
                    into[i] = word - _address(y) + places[other]
                    relocations.append(places[key] + i * WORD)
                    break
    head = np.array([size, len(relocations)], np.intp)
    given = b"".join([head.tobytes(), memory.tobytes(), np.array(relocations, np.intp).tobytes()])
    made = _output(compiler, library, [name for name, _ in calls], given)
    memory = np.frombuffer(made, np.uint8)
    for key, x in arrays.items():
        if x.dtype != np.intp or x is table:
            _flat(x)[...] = memory[places[key] : places[key] + x.nbytes].view(x.dtype)
    return [int(row[0]) for row in table]


def _output(compiler: Compiler, library: Path, names: list[str], given: bytes) -> bytes:
    import subprocess

    path = child(compiler)
    try:
        done = subprocess.run(
            [str(path), str(library), *names], input=given, capture_output=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise failure(compiler, f"it takes longer than {TIMEOUT} s") from None
    if done.returncode < 0:
        raise failure(compiler, f"it crashes ({signal.Signals(-done.returncode).name})")
    if done.returncode:
        raise failure(compiler, done.stderr.decode(errors="replace").strip() or "it fails")
    return done.stdout


def failure(compiler: Compiler, reason: str) -> CompilerError:
    """Return the error about a library that does not work."""
    return CompilerError(
        f"fuse.backend: code compiled by {compiler.path} ({compiler.version}) does not work: "
        f"{reason}; name another compiler in the environment variable CC, or use "
        "tinygrad_rnn.fuse.backend('numpy')"
    )


def _flat(x: Any) -> Any:
    """Return a view of the elements of a contiguous array in the order of memory."""
    return (x if x.flags.c_contiguous else x.T).reshape(-1)


def _address(x: Any) -> int:
    found: int = x.__array_interface__["data"][0]
    return found


# -- the stages of a step --------------------------------------------------------------------------

ROWS, WIDTH = 3, 37  # some vectors and a rest


def prove_stages(compiler: Compiler, source: str, count: int, library: Path) -> None:
    """Raise a CompilerError unless each stage of a library runs on arrays of small numbers."""
    rng = np.random.default_rng(0)
    kinds = {int(i): T for T, i in re.findall(r"\((?:const )?(\w+) \*\)\(at\[(\d+)\]", source)}
    size = np.arange(WIDTH, WIDTH + _length("size", source))
    row = 8 * (-(-2 * (WIDTH + len(size)) // 8) * 8)
    arrays = []
    for i in range(max(kinds, default=-1) + 1):
        T = kinds.get(i, "int")
        made = np.zeros((ROWS, row), np.uint8)
        if T in ("float", "double"):
            numbers = made.view(np.float32 if T == "float" else np.float64)
            numbers[...] = rng.uniform(-1, 1, numbers.shape)
        arrays.append(made)
    at = np.array([*map(_address, arrays), 0], np.intp)
    rows = np.array([row] * len(at), np.intp)
    number = np.full(_length("number", source) + 1, 0.5)
    args = 0, ROWS, at, rows, size.astype(np.intp), number
    run(compiler, library, [(f"stage{i}", args) for i in range(count)], arrays)


def _length(name: str, source: str) -> int:
    return 1 + max([*map(int, re.findall(rf"\b{name}\[(\d+)\]", source))], default=0)
