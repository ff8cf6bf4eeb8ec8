"""Compilation and launch of CUDA text: whether kernels run on arrays of CuPy, and why not."""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from ..._util import gpu
from ..._util.user_code import stacklevel, unobserved
from ...engine import backend, config
from ...engine.ops import kernels
from ...errors import ArgumentError, CompilerError, ExecutorWarning

# No multiplication and addition are contracted, so that an element has the same bits as in C.
OPTIONS = ("--fmad=false",)
THREADS = 256  # of a block
VARIABLE = "TINYGRAD_RNN_CUDA"
LEVELS = ("operations", "kernels", "graphs")  # each includes those before it

_lock = threading.RLock()
_level: list[str] = []
_reason = [""]  # why it is not the highest level


def level() -> str:
    """Return how loops and fused functions run on a GPU.

    "operations": one launch for each operation; "kernels": one for each fused function and each
    stage of a loop; "graphs": and one for all steps of a loop. The environment variable
    ``TINYGRAD_RNN_CUDA`` names it.
    """
    if not _level:
        wish = os.environ.get(VARIABLE, "") or LEVELS[-1]
        if wish not in LEVELS:
            raise ArgumentError(
                f"the environment variable {VARIABLE} is {wish!r:.60}: operations, kernels, or "
                "graphs (the default)"
            )
        use(wish, "" if wish == LEVELS[-1] else f"{VARIABLE}={wish}")
    return _level[0]


def use(name: str, reason: str = "") -> None:
    """Select the level of all threads."""
    _level[:], _reason[0] = [name], reason


def enabled(name: str) -> bool:
    """Tell whether a level is in use."""
    return LEVELS.index(level()) >= LEVELS.index(name)


def reason() -> str:
    """Return why the highest level is not in use; "" if it is."""
    level()
    return _reason[0]


def fall_back(error: Exception, to: str) -> str:
    """Use a lower level after a failure, and say so once; return why."""
    with _lock:
        if LEVELS.index(level()) > LEVELS.index(to):
            text = " ".join(str(error).split())[:500]
            use(to, text)
            warnings.warn(
                f"the GPU runs {to}, not {LEVELS[LEVELS.index(to) + 1]}: {text} "
                f"({VARIABLE}={to} avoids this warning)",
                ExecutorWarning,
                stacklevel=stacklevel(),
            )
    return _reason[0]


@functools.lru_cache(maxsize=1024)
@unobserved
def kernel(module: Any, text: str, name: str) -> Callable[..., None]:
    """Return a kernel of a CUDA text, compiled by NVRTC for the current device now.

    It is called with the grid, the block and the arguments: arrays of the device, and numbers as
    NumPy's scalars of the parameters' types. On another device it is compiled again.

    Parameters
    ----------
    module : module
        CuPy.
    text : str
        With ``extern "C" __global__`` functions.
    name : str
        The name of one of them.

    Raises
    ------
    CompilerError
        If it cannot be compiled or loaded: no headers, no driver.
    """
    try:
        found: Callable[..., None] = module.RawModule(code=text, options=OPTIONS).get_function(name)
    except Exception as error:  # of unrelated classes
        raise CompilerError(f"CUDA: {type(error).__name__}: {error}") from error
    return found


def register(*functions: Callable[..., Any]) -> None:
    """Let functions compute on a GPU in place of CuPy's, by their names in `kernels.on_gpu`.

    They return NotImplemented where they cannot, before they have launched anything.
    """
    for function in functions:
        kernels.on_gpu[function.__name__] = functools.partial(_where_enabled, function)


def _where_enabled(function: Callable[..., Any], *args: Any) -> Any:
    if not enabled("kernels"):
        return NotImplemented
    try:
        return function(*args)
    except CompilerError as error:
        fall_back(error, "operations")
        return NotImplemented


def by_value(values: Any) -> Any:
    """Return an array as arguments of kernels: structures without fields, passed by value.

    CuPy describes the fields of an argument at each launch, which takes longer than the launch.
    """
    return values.view(f"V{values.itemsize}")


def _report() -> Iterator[tuple[str, str]]:
    """Yield the lines of `show_config`."""
    if not gpu.is_used(backend.modules, backend.CUPY[0]):
        return
    try:
        yield "GPU", f"{level()}{f': {_reason[0]}' if _reason[0] else ''}"
    except ArgumentError as error:
        yield "GPU", f"none: {' '.join(str(error).split())}"


config.reports.append(_report)
