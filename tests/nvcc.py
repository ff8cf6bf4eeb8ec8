"""CUDA texts, compiled for several architectures without a GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

ARCHITECTURES = (80, 90, 100)
SPILL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


def unavailable_because() -> str | None:
    """Return the reason why nothing can be compiled; None if something can."""
    return None if shutil.which("nvcc") else "nvcc, NVIDIA's compiler, is not installed"


def compile_without_spills(text: str, folder: Path) -> int:
    """Compile a text for all architectures; return the number of functions.

    Raises
    ------
    AssertionError
        If a function does not compile, or keeps registers in memory.
    """
    source = folder / "kernel.cu"
    source.write_text(text, "utf-8")
    codes = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in ARCHITECTURES]
    options = ["--fmad=false", "-std=c++17", "-include", "stdint.h", "-Xptxas", "-v", "-c"]
    command = ["nvcc", *codes, *options, str(source), "-o", str(folder / "kernel.o")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = SPILL.findall(done.stderr)
    assert found, done.stderr
    assert {numbers for numbers in found} == {("0", "0", "0")}, done.stderr
    return len(found)
