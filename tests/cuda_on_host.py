"""``cupy.RawModule`` of the stand-in: CUDA text, compiled by the host's C++ compiler.

The text is compiled with ``cuda_on_host.h`` in front, once for each text: the libraries are kept in
``$XDG_CACHE_HOME/tinygrad_rnn/cuda_on_host``. A launch computes the threads one after another. The
arguments are compared with the parameters of the kernel: CuPy does not do so, and a Python float or
an array of another dtype would be read as other numbers.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HEADER = Path(__file__).with_name("cuda_on_host.h")
FLAGS = ["-std=c++17", "-O2", "-march=native", "-ffp-contract=off", "-fPIC", "-shared", "-w"]
KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\s*\('
)
ENTRY = """
extern "C" const char *{0}_codes() {{ return host::codes(&{0}); }}
static void {0}_thread(void **a) {{ host::call(&{0}, a); }}
extern "C" bool {0}_launch(void **a, const unsigned *grid, const unsigned *block)
{{ return host::launch({0}_thread, a, grid, block, {1}); }}
"""


class KernelError(TypeError):
    """A kernel was launched in a way that a GPU answers with an error, or with other numbers."""


def compiler() -> str | None:
    """Return the C++ compiler of this machine."""
    return next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)


def unavailable_because() -> str | None:
    """Return the reason why no CUDA text can run on the host; None if it can."""
    return None if compiler() else "no C++ compiler for CUDA on the host: g++, clang++ or c++"


def _source(text: str) -> str:
    barriers = "true" if re.search(r"__sync|__shfl", text) else "false"
    entries = [ENTRY.format(name, barriers) for name in KERNEL.findall(text)]
    shared = r"extern\s+__shared__\s+([\w ]+?)\s+(\w+)\s*\[\s*\]\s*;"
    text = re.sub(shared, r"\1 *\2 = (\1 *)dynamic_shared;", text)
    return "".join([HEADER.read_text("utf-8"), text, *entries])


@functools.cache
def _library(text: str, options: tuple[str, ...]) -> ctypes.CDLL:
    """Compile a text, or find its library."""
    program = compiler()
    if program is None:
        raise RuntimeError(str(unavailable_because()))
    source, defines = _source(text), [x for x in options if x.startswith("-D")]
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(root, "tinygrad_rnn", "cuda_on_host")
    folder.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256("\n".join([program, *FLAGS, *defines, source]).encode()).hexdigest()[:32]
    path = folder / f"{key}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            written, made = Path(scratch, "kernel.cpp"), Path(scratch, "kernel.so")
            written.write_text(source, "utf-8")
            command = [program, *FLAGS, *defines, str(written), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"CUDA on the host: {done.stderr[:3000]}")
            made.replace(path)
    return ctypes.CDLL(str(path))


class Blas:
    """The functions of cuBLAS that the library calls by ctypes, computed by NumPy."""

    def __init__(self, launched: Callable[[Callable[[], None]], None]) -> None:
        def gemm(
            handle: int, op_a: int, op_b: int, m: int, n: int, k: int, alpha: int, a: int,
            kind_a: int, lda: int, b: int, kind_b: int, ldb: int, beta: int, c: int, kind_c: int,
            ldc: int, compute: int, algorithm: int,
        ) -> int:  # fmt: skip
            least = (k, n, m) if op_a and op_b else (k, k, m) if op_a else (m, n if op_b else k, m)
            if kind_a != kind_b or kind_a != kind_c or (kind_a, compute) not in ((0, 68), (1, 70)):
                return 15  # CUBLAS_STATUS_NOT_SUPPORTED
            if min(m, n, k) < 1 or any(x < y for x, y in zip((lda, ldb, ldc), least, strict=True)):
                return 7  # CUBLAS_STATUS_INVALID_VALUE
            number = ctypes.c_double if kind_a else ctypes.c_float

            def matrix(at: int, rows: int, columns: int, ld: int) -> np.ndarray:
                flat = np.ctypeslib.as_array(
                    (number * (ld * (columns - 1) + rows)).from_address(at)
                )
                strides = flat.itemsize, ld * flat.itemsize
                return np.lib.stride_tricks.as_strided(flat, (rows, columns), strides)

            x = matrix(a, k, m, lda).T if op_a else matrix(a, m, k, lda)
            y = matrix(b, n, k, ldb).T if op_b else matrix(b, k, n, ldb)
            out = matrix(c, m, n, ldc)
            by, old = (number.from_address(at).value for at in (alpha, beta))

            def run() -> None:
                product = by * np.matmul(x, y)
                out[...] = product if old == 0 else product + old * out

            launched(run)
            return 0

        self.cublasGemmEx = self._function(gemm)
        self.cublasSetStream_v2 = self._function(lambda handle, stream: 0)
        self.cublasSetPointerMode_v2 = self._function(lambda handle, mode: 0)
        self.cublasSetWorkspace_v2 = self._function(lambda handle, at, size: 0)

    @staticmethod
    def _function(f: Callable[..., int]) -> Any:
        """Return a function to which argtypes and restype can be assigned, as those of ctypes."""

        def function(*args: int) -> int:
            if len(args) != len(function.argtypes) or any(x.__class__ is not int for x in args):  # type: ignore[attr-defined]
                raise KernelError(f"cuBLAS: {args}")
            return f(*args)

        return function


class RawModule:
    """``cupy.RawModule``: `pointer` returns the NumPy array of an array of the device."""

    def __init__(
        self,
        pointer: Callable[[Any], np.ndarray | None],
        launched: Callable[[Callable[[], None]], None],
        *,
        code: str,
        options: tuple[str, ...] = (),
    ) -> None:
        if not isinstance(code, str) or not isinstance(options, tuple):
            raise KernelError("RawModule: code is a string, options are a tuple")
        self.pointer, self.launched, self.code, self.options = pointer, launched, code, options

    def get_function(self, name: str) -> Kernel:
        """Return a kernel by its name; the text is compiled now."""
        if name not in KERNEL.findall(self.code):
            raise RuntimeError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")
        return Kernel(self, name)


_lock = threading.Lock()


class Kernel:
    """A kernel of a module, to be called with a grid, a block and the arguments."""

    def __init__(self, module: RawModule, name: str) -> None:
        self.module, self.__name__ = module, name
        library = _library(module.code, module.options)
        codes = getattr(library, f"{name}_codes")
        codes.restype = ctypes.c_char_p
        self.codes = codes().decode().split()
        self.run = getattr(library, f"{name}_launch")
        self.run.restype = ctypes.c_bool

    def __call__(
        self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], *, shared_mem: int = 0
    ) -> None:
        sizes = []
        for what, values, most in (("grid", grid, 2**31 - 1), ("block", block, 1024)):
            if not isinstance(values, tuple) or any(x.__class__ is not int for x in values):
                raise KernelError(f"{self.__name__}: the {what} is a tuple of int, got {values!r}")
            whole = [*values, *[1] * (3 - len(values))]
            if not all(1 <= x <= most for x in whole) or len(whole) > 3:
                raise KernelError(f"{self.__name__}: CUDA_ERROR_INVALID_VALUE: the {what} {values}")
            sizes.append((ctypes.c_uint * 3)(*whole))
        if np.prod(sizes[1]) > 1024 or shared_mem > 48 << 10:
            raise KernelError(f"{self.__name__}: a block of {block}, {shared_mem} shared bytes")
        if len(args) != len(self.codes):
            raise KernelError(
                f"{self.__name__} has {len(self.codes)} parameters, got {len(args)} arguments"
            )
        held = [
            self._held(i, x, code) for i, (x, code) in enumerate(zip(args, self.codes, strict=True))
        ]
        pointers = (ctypes.c_void_p * len(held))(*[x.ctypes.data for x in held])

        def run() -> None:
            assert held  # the values of the arguments, which `pointers` refers to
            with _lock:  # threads share the numbers of the block and the stacks of its threads
                done = self.run(pointers, *sizes)
            if not done:
                raise KernelError(f"{self.__name__}: a barrier that some threads do not reach")

        self.module.launched(run)

    def _held(self, i: int, x: Any, code: str) -> np.ndarray:
        """Return the memory that holds an argument, after a comparison with the parameter."""
        array = self.module.pointer(x)
        where = f"{self.__name__}: argument {i} for a parameter {code}"
        if array is not None:
            found = f"*{array.dtype.kind}{array.itemsize}"
            bytes_of = found == "*u1" and code[:2] == "*V"  # of structures
            if code != "*v" and found != code and (found, code) != ("*b1", "*u1") and not bytes_of:
                raise KernelError(f"{where} is an array {array.dtype}")
            return np.array(array.ctypes.data, np.uintp)
        if x is None and code[0] == "*":
            return np.array(0, np.uintp)
        if isinstance(x, np.generic) and f"{x.dtype.kind}{x.itemsize}" == code:
            return np.array(x)
        if isinstance(x, np.ndarray) and x.size == 1 and f"{x.dtype.kind}{x.itemsize}" == code:
            return x.copy()  # by value, such as a struct
        if x.__class__ in (bool, int, float):
            raise KernelError(
                f"{where} is a Python {type(x).__name__}, which CuPy passes in 64 bits: say "
                "numpy.int32(), numpy.float32() …"
            )
        kind = getattr(x, "dtype", type(x).__name__)
        raise KernelError(f"{where} is {kind}")
