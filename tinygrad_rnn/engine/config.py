"""The configuration of the machine and of the installed packages, for bug and speed reports."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import numpy as np

from .._util import late
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
reports: list[Callable[[], Iterator[tuple[str, str]]]] = []  # of other parts of the library


def show_config(file: TextIO | None = None) -> None:
    """Print versions, devices, the BLAS and its kernel, threads, and hints about slow settings.

    Parameters
    ----------
    file : text file, optional
        The output. Default: ``sys.stdout``.

    Notes
    -----
    The BLAS is the one that NumPy was built with. Its kernel and threads are reported by
    threadpoolctl if that is installed.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.show_config()  # doctest: +ELLIPSIS
    tinygrad_rnn  ...
    Python        ...
    """
    for name, value in _settings():
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
    if os.environ.get("OPENBLAS_CORETYPE"):
        yield (
            "hint",
            "OPENBLAS_CORETYPE pins OpenBLAS to one kernel; if the CPU supports a newer one, matrix"
            " products are up to twice as fast without it",
        )


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
