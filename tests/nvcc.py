"""CUDA texts, compiled for several architectures without a GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from hypothesis import settings

ARCHITECTURES = (80, 90, 100)
SPILL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


def unavailable_because() -> str | None:
    """Return the reason why nothing can be compiled; None if something can."""
    return None if shutil.which("nvcc") else "nvcc, NVIDIA's compiler, is not installed"


def architectures(number: int) -> tuple[int, ...]:
    """Return the architectures for the text of a number: one of them in turn, all if thorough.

    The compiler takes as long for each of them. The texts are the same for all.
    """
    if settings.default.max_examples >= 1000:
        return ARCHITECTURES
    return (ARCHITECTURES[number % len(ARCHITECTURES)],)


def compile_without_spills(
    text: str, folder: Path, architectures: tuple[int, ...] = ARCHITECTURES
) -> int:
    """Compile a text; return the number of functions, of all architectures.

    Raises
    ------
    AssertionError
        If a function does not compile, or keeps registers in memory.
    """
    source = folder / "kernel.cu"
    source.write_text(text, "utf-8")
    codes = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in architectures]
    options = ["--fmad=false", "-std=c++17", "-include", "stdint.h", "-Xptxas", "-v", "-c"]
    command = ["nvcc", *codes, *options, str(source), "-o", str(folder / "kernel.o")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = SPILL.findall(done.stderr)
    assert found, done.stderr
    assert {numbers for numbers in found} == {("0", "0", "0")}, done.stderr
    return len(found)
