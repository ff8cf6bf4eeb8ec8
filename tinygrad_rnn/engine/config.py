"""The configuration of the machine and of the installed packages, for bug and speed reports."""

from __future__ import annotations

import importlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import numpy as np

from .._util import LIBRARY, late
from . import backend
from .backend import cuda_unavailable_because

_VARIABLES = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NPY_DISABLE_CPU_FEATURES",
    "TINYGRAD_RNN_C",
    "TINYGRAD_RNN_MALLOPT",
    "TINYGRAD_RNN_NUM_THREADS",
)
_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")  # of the BLAS
BUSY = 0.2  # the share of time from which waiting for a processor is reported
reports: list[Callable[[], Iterator[tuple[str, str]]]] = []  # of other parts of the library


def show_config(file: TextIO | None = None, *, hints_only: bool = False) -> None:
    """Print versions, devices, the BLAS and its kernel, threads, and hints about slow settings.

    One hint is about a busy machine: threads that share their work wait for the slowest of them, so
    where other programs use the processors, two threads can be ten times as slow as one.

    Parameters
    ----------
    file : text file, optional
        The output. Default: ``sys.stdout``.
    hints_only : bool
        Whether to print the hints alone, which takes 0.05 s: nothing, if there are none.

    Notes
    -----
    The BLAS is the one that NumPy was built with. Its kernel and threads are reported by
    threadpoolctl if that is installed. Whether the machine is busy is measured, while matrix
    products run with the threads of the BLAS: on Linux by the time that they wait for a processor,
    elsewhere by the system's load.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.show_config()  # doctest: +ELLIPSIS
    tinygrad_rnn  ...
    Python        ...
    """
    for name, value in _hints() if hints_only else [*_settings(), *_hints()]:
        print(f"{name:<13} {value}", file=file or sys.stdout)


def _settings() -> Iterator[tuple[str, str]]:
    package = sys.modules[__name__.partition(".")[0]]
    yield "tinygrad_rnn", f"{package.__version__} in {os.path.dirname(str(package.__file__))}"
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "platform", f"{platform.platform()}, {os.cpu_count()} logical CPUs"
    build: Any = np.show_config(mode="dicts")
    yield "NumPy", np.__version__
    yield "SIMD", ", ".join(_simd(build)) or "baseline only"
    blas = build.get("Build Dependencies", {}).get("blas", {})
    yield "BLAS", f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()
    yield from _thread_pools()
    for name in _VARIABLES:
        if name in os.environ:
            yield "environment", f"{name}={os.environ[name]}"
    late.load()  # it adds reports
    for report in reports:
        yield from report()
    yield "default", f"{backend.get_default_dtype()} on {backend.default_device()}"
    missing = cuda_unavailable_because()
    yield "CUDA", f"not available: {missing}" if missing else _gpu()


def _hints() -> Iterator[tuple[str, str]]:
    if os.environ.get("OPENBLAS_CORETYPE"):
        yield (
            "hint",
            "OPENBLAS_CORETYPE pins OpenBLAS to one kernel; if the CPU supports a newer one, matrix"
            " products are up to twice as fast without it",
        )
    own, blas = _own_threads(), _blas_threads()
    waited = _waited() if max(own, blas) > 1 else 0.0
    if waited > BUSY:
        yield (
            "hint",
            f"the machine is busy: {blas} threads waited {waited:.0%} of the time for a processor. "
            "One thread is then often faster than several, which wait for each other: set "
            f"OPENBLAS_NUM_THREADS=1 (now {blas}) and TINYGRAD_RNN_NUM_THREADS=1 (now {own}) before"
            " Python starts",
        )


def _own_threads() -> int:
    """Return the number of threads of compiled loops and products; 1 in a core without them."""
    late.load()
    threads = sys.modules.get(f"{LIBRARY}.speed.threads")
    return 1 if threads is None else threads.get_num_threads()


def _blas_threads() -> int:
    """Return the number of threads of NumPy's BLAS: by its variables, or that of the processors."""
    for name in _THREAD_VARIABLES:
        text = os.environ.get(name, "").partition(",")[0].strip()
        if text.isdecimal() and int(text):
            return int(text)
    affinity = getattr(os, "sched_getaffinity", None)  # not everywhere
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _waited(seconds: float = 0.05) -> float:
    """Return the share of time that the threads of matrix products wait for a processor."""
    x = np.ones((256, 256), np.float32)
    before, end = _scheduled(), time.perf_counter() + seconds
    while time.perf_counter() < end:
        x @ x
    after = _scheduled()
    if before is None or after is None:
        load: float = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        return max(0.0, 1 - (os.cpu_count() or 1) / max(load, 1e-9))
    ran, waited = (b - a for a, b in zip(before, after, strict=True))
    return waited / max(ran + waited, 1)


def _scheduled() -> tuple[int, int] | None:
    """Return how long the threads of this process ran and waited, in ns; None if it is unknown."""
    ran = waited = 0
    try:
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/schedstat", encoding="ascii") as file:
                numbers = file.read().split()
            ran, waited = ran + int(numbers[0]), waited + int(numbers[1])
    except (OSError, ValueError, IndexError):  # another system; a thread that ended
        return None
    return ran, waited


def _simd(build: dict[str, Any]) -> list[str]:
    """Return the instruction sets that NumPy detected, beyond the baseline of its build."""
    return list(build.get("SIMD Extensions", {}).get("found", []))


def _thread_pools() -> Iterator[tuple[str, str]]:
    """Yield the kernel and the number of threads of each loaded BLAS and OpenMP library."""
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        yield "threads", "unknown: pip install threadpoolctl shows them, and the kernel of the BLAS"
        return
    for pool in threadpoolctl.threadpool_info():
        kernel = f", kernel {pool['architecture']}" if "architecture" in pool else ""
        version = f" {pool['version']}" if pool.get("version") else ""
        yield "threads", f"{pool['num_threads']} of {pool['internal_api']}{version}{kernel}"


def _gpu() -> str:
    """Return the names of the GPUs, and the versions of CUDA and of the array module."""
    module = backend.gpu_module()
    runtime = module.cuda.runtime
    names = [
        runtime.getDeviceProperties(i)["name"].decode() for i in range(runtime.getDeviceCount())
    ]
    version = runtime.runtimeGetVersion()
    number = f"{version // 1000}.{version % 1000 // 10}"
    return f"{', '.join(names)}; CUDA {number}, {module.__name__} {module.__version__}"
