"""Modules that are imported at their first use, so that ``import tinygrad_rnn`` is light.

There are two kinds: names of the package (PEP 562), and the module that provides faster
implementations for the core, which is imported when the core first computes something
that it may implement (`load`).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from types import FrameType
from typing import Any

from . import LIBRARY
from .api_hints import module_getattr
from .user_code import unobserved

_waiting: list[str] = []  # the modules that `load` imports
_loading: list[str] = []
_imported: dict[str, Any] = {}

# One thread imports at a time: Python raises an error where one imports a package, and another
# a module inside of it that the package imports too.
lock = threading.RLock()


def _may_wait() -> bool:
    """Tell whether this thread is not inside of the import of a module of the library.

    If it is, it holds the import lock of that module, for which the owner of `lock` may wait.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if frame.f_code.co_name == "<module>" and f"{name}.".startswith(f"{LIBRARY}."):
            return False
        frame = frame.f_back
    return True


@unobserved
def _import(name: str) -> Any:
    with lock if _may_wait() else contextlib.nullcontext():
        return importlib.import_module(name)


def module(name: str) -> Any:
    """Return a module of the library by its full name; import it at the first call.

    In contrast to an import inside of a function, the first call may be in a step that is traced.
    """
    if name not in _imported:
        _imported[name] = _import(name)
    return _imported[name]


def expect(module: str) -> bool:
    """Let `load` import a module, if it exists; tell whether it does.

    Parameters
    ----------
    module : str
        The full name. Its import registers its implementations.
    """
    if importlib.util.find_spec(module) is None:
        return False
    _waiting.append(module)
    return True


def load() -> None:
    """Import the modules that are expected; a second call does nothing.

    Another thread waits for the first import. A call from inside of the import does nothing.
    """
    if not _waiting:
        return
    with lock if _may_wait() else contextlib.nullcontext():
        if _waiting and not _loading:
            _loading[:] = _waiting
            try:
                for module in _loading:
                    _import(module)
                _waiting.clear()
            finally:
                _loading.clear()


def attributes(
    package: str,
    known: dict[str, Any],
    late: Mapping[str, str],
    implemented: Collection[str],
    hints: Mapping[str, str],
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package with names that are imported late.

    Parameters
    ----------
    package : str
        Its name.
    known : dict
        Its global names.
    late : mapping of str to str
        For modules inside the package their names of it, separated by spaces; ``""`` for the
        modules themselves. A name is imported once, and is a global name then. Those of a module
        that is missing are unknown.
    implemented : collection of str
        The names that need `load`.
    hints : mapping of str to str
        Our equivalents of names of other libraries, for the error about an unknown name.

    Returns
    -------
    tuple
        The two functions.
    """
    homes = {name: home for home, names in late.items() for name in names.split()}

    @unobserved
    def __getattr__(name: str) -> Any:
        if name not in homes:
            return module_getattr(package, hints, dict.fromkeys(__dir__()))(name)
        if name in implemented:
            load()
        module = f"{package}.{homes[name] or name}"
        try:
            found = _import(module)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):
                raise
            return module_getattr(package, hints, dict.fromkeys(__dir__()))(name)
        value = found if not homes[name] else getattr(found, name)
        known[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*known, *homes})

    return __getattr__, __dir__
