"""The executor: C where a compiler is found that works, else NumPy.

It is chosen when it is first asked for, by a kernel, a loop or a matrix product. All of these take
the same one, so that the same program gives the same bits. A compiler is taken once its runtime has
passed a proof on this machine (`loop_runtime`), which the cache remembers.
"""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .._util.user_code import stacklevel
from ..engine import config
from ..engine.ops import kernels
from ..errors import ArgumentError, CompilerError, ExecutorWarning
from . import compiled, threads
from .compiler import Compiler, NoCompiler, candidates, selected, spent
from .loop_runtime import FUNCTIONS, load_runtime
from .loops import Loop

BACKENDS = ("numpy", "c")
VARIABLE = "TINYGRAD_RNN_C"

_lock = threading.RLock()
_reason = [""]  # why the executor is NumPy
_warned: list[str] = []


def compiler() -> Compiler | None:
    """Return the selected compiler; None if NumPy runs everything."""
    if not selected:
        with _lock:
            if not selected:
                _select(os.environ.get(VARIABLE, ""))
    return selected[0]


def _select(wish: str) -> None:
    """Choose the executor: "1" for C, "0" for NumPy, nothing for C where it works."""
    if wish not in ("", "0", "1"):
        raise ArgumentError(
            f"the environment variable {VARIABLE} is {wish!r:.60}: 1 (compiled loops, or an "
            "error), 0 (NumPy), or not set (compiled loops where a C compiler is found)"
        )
    if wish == "1":
        backend("c")
        return
    found = None
    _reason[0] = f"{VARIABLE}=0"
    try:
        if not wish:
            found, _reason[0] = _working(temporary=False), ""
    except NoCompiler as error:
        _reason[0] = str(error)
    except CompilerError as error:
        _use(None)
        fall_back(error)
        return
    _use(found)


def _use(found: Compiler | None) -> None:
    selected[:] = [found]
    kernels.faster.clear()
    if found is not None:
        kernels.faster.update(FUNCTIONS)


def fall_back(error: CompilerError) -> str:
    """Return why NumPy runs something after a failure, and say so once per process.

    If the user asked for C, raise the error.
    """
    chosen = selected[0]
    if chosen is not None and chosen.required:
        raise error
    reason = str(error).removeprefix("fuse.backend: ")
    if chosen is None:
        _reason[0] = reason
    if not _warned:
        _warned.append(reason)
        what = "the executor is NumPy, not C" if chosen is None else "NumPy runs a part, not C"
        warnings.warn(
            f"{what}: {' '.join(reason.split())} ({VARIABLE}=0 avoids this warning)",
            ExecutorWarning,
            stacklevel=stacklevel(),
        )
    return reason


def _working(temporary: bool) -> Compiler:
    """Return the first compiler that works.

    Raises
    ------
    CompilerError
        If there is none, about the first.
    """
    first: CompilerError | None = None
    for command in candidates():
        try:
            found = Compiler(command, temporary)
            load_runtime(found)
            _check(found)
            return found
        except CompilerError as error:
            first = first or error
    assert first is not None
    raise first


class _TestExpression(NamedTuple):
    """An expression of the test kernel."""

    op: str
    args: tuple[Any, ...]
    dtype: Any = np.dtype(float)
    shape: tuple[int, ...] = (3,)


def _check(found: Compiler) -> None:
    """Raise a CompilerError if a test kernel of a compiler is wrong."""
    x = _TestExpression("argument", ())
    y = _TestExpression("add", (x, 1.0))
    given, made = np.arange(3.0), np.zeros(3)
    run = compiled.kernel(Loop([y], [x], [y]), found)
    if not run(given, made) or made.tolist() != [1.0, 2.0, 3.0]:
        raise CompilerError(
            f"fuse.backend: a kernel made by {found.path} computes {made} for {given} + 1; "
            "name another compiler in the environment variable CC"
        )


def backend(name: str | None = None) -> str:
    """Select what runs kernels, loops over time and matrix products on the CPU, or return its name.

    Parameters
    ----------
    name : {"numpy", "c"}, optional
        "c", the default where a C compiler is found, compiles them for this processor. This takes
        some seconds when it is first used on a machine, and a fraction of a second at the first
        call of a kernel or of a new kind of cell; it is logged once at the level INFO. The
        libraries are cached in ``$XDG_CACHE_HOME/tinygrad_rnn/kernels``. "numpy" runs calls of
        NumPy. The choice applies to all threads, and to functions that are fused already.

    Returns
    -------
    str
        The selected backend.

    Raises
    ------
    ArgumentError
        If the backend does not exist.
    CompilerError
        If no C compiler is found (``gcc``, ``clang``, ``cc``, the package ``ziglang``, or the one
        that the environment variable ``CC`` names), or if it fails. The backend is then unchanged.

    Warns
    -----
    ExecutorWarning
        Once per process, if nothing was selected, a compiler is installed, and it cannot be used:
        it fails, compiled code does not pass a proof, or it cannot be kept in the cache or loaded
        from there. NumPy is used then.

    Notes
    -----
    The environment variable ``TINYGRAD_RNN_C=0`` selects NumPy for a program, and ``1`` C: then a
    failure is an error. It is read when something is first computed. `show_config` prints the
    choice.

    New libraries are first run in a process of their own on small arrays: products and a loop are
    compared with NumPy, and each stage of a cell must run.

    For arrays on a GPU the environment variable ``TINYGRAD_RNN_CUDA`` selects "graphs" (the
    default: one launch for all steps of a loop), "kernels" (one for each fused function and each
    stage of a step) or "operations". A failure selects the next one, with a warning.

    Both backends give the same sums, products and quotients to the bit. Sums over an axis and
    matrix products have other rounding errors. exp, log, tanh and similar functions differ in the
    last bits: in C their relative error is below 2e-7 in float32 and 6e-16 in float64. C does not
    warn of an overflow, a division by zero or nan. A schedule of ufuncs runs kernels that C does
    not support (float16, ``%`` and ``//``, a ufunc that no primitive of the library uses), and
    kernels that are slower in C (sin, cos and powers of large arrays).

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.fuse.backend() in ("c", "numpy")
    True
    """
    if name is None:
        return "numpy" if compiler() is None else "c"
    if name not in BACKENDS:
        raise ArgumentError(f"fuse.backend: 'numpy' or 'c', got {name!r:.60}")
    with _lock:
        found = None
        if name == "c":
            found = _working(temporary=True)
            found.required = True
        _reason[0] = "" if found else "selected by fuse.backend('numpy')"
        _use(found)
    return name


def description() -> str:
    """Return the name of the executor, with the vectors on which its rounding errors depend."""
    found = compiler()
    return "numpy" if found is None else f"c, {found.vector_bits}-bit vectors"


def _report() -> Iterator[tuple[str, str]]:
    """Yield the lines of `show_config`."""
    try:
        found = compiler()
    except (ArgumentError, CompilerError) as error:
        yield "executor", f"none: {' '.join(str(error).split())}"
        return
    if found is None:
        yield "executor", f"numpy: {' '.join(_reason[0].split())}"
    else:
        yield "executor", description()
        yield "C compiler", f"{found.path}: {found.version}"
        yield "C cache", f"{found.folder}; compiled by this process: {spent[0]} in {spent[1]:.1f} s"
        yield "C threads", str(threads.limit())


def wait() -> None:
    """Let the first call of a function in C choose the executor."""
    kernels.faster.update({name: functools.partial(_first, name) for name in FUNCTIONS})


def _first(name: str, *args: Any) -> Any:
    return NotImplemented if compiler() is None else FUNCTIONS[name](*args)


wait()
config.reports.append(_report)
