"""The line of the user's code that called the library, for messages and warnings."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from . import LIBRARY

PACKAGE = f"{os.path.dirname(os.path.dirname(__file__))}{os.sep}"
GENERATED = ("<primitive", "<fused")  # the file names of generated code


def unobserved(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function of the library that its trace and profile functions must not see.

    Those of `tinygrad_rnn.speed` look for side effects in a step that is traced. An import or a
    compilation, which happens once, is none. Debuggers and tools that measure coverage see it.
    """

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        trace, profile = sys.gettrace(), sys.getprofile()
        if _is_of_library(trace):
            sys.settrace(None)
        if _is_of_library(profile):
            sys.setprofile(None)
        try:
            return function(*args)
        finally:
            if _is_of_library(trace):
                sys.settrace(trace)
            if _is_of_library(profile):
                sys.setprofile(profile)

    return call


def _is_of_library(function: Any) -> bool:
    return str(getattr(function, "__module__", "")).startswith(f"{LIBRARY}.")


def location(inside: tuple[str, ...] = (PACKAGE, *GENERATED)) -> str:
    """Return the innermost line of the call stack that is outside of some files.

    Parameters
    ----------
    inside : tuple of str
        The beginnings of the paths to skip; by default the files of this library.

    Returns
    -------
    str
        ``"path:line"``, or ``""`` if the whole stack is inside.

    Examples
    --------
    >>> from tinygrad_rnn._util.user_code import location
    >>> location().rpartition(":")[2]
    '1'
    """
    frame, _ = _outside(inside)
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def raised_in(error: BaseException, inside: tuple[str, ...] = (PACKAGE, *GENERATED)) -> str:
    """Return the innermost line of an error's traceback that is outside of some files.

    Parameters
    ----------
    error : exception
        It has been raised.
    inside : tuple of str
        As of `location`.

    Returns
    -------
    str
        ``"path:line"``, or ``""`` if the whole traceback is inside.
    """
    trace, found = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(inside):
            found = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def shown(place: str) -> str:
    """Return a place as a reader finds it: a cell of a notebook by its number, not as a file.

    Parameters
    ----------
    place : str
        Of `location` or `raised_in`. The file of a cell is a temporary path.

    Returns
    -------
    str
        The same, or ``"Cell In[3]:line"``, as IPython names it.

    Examples
    --------
    >>> from tinygrad_rnn._util.user_code import shown
    >>> shown("train.py:3")
    'train.py:3'
    """
    ipython, (file, _, line) = sys.modules.get("IPython"), place.rpartition(":")
    shell = None if ipython is None else ipython.get_ipython()
    names = getattr(getattr(shell, "compile", None), "format_code_name", None)
    cell = names(file) if names else None
    return f"{' '.join(cell)}:{line}" if cell else place


def stacklevel(inside: tuple[str, ...] = (PACKAGE, *GENERATED)) -> int:
    """Return the ``stacklevel`` with which `warnings.warn` names the line of `location`.

    Parameters
    ----------
    inside : tuple of str
        As of `location`.

    Returns
    -------
    int
        1 for the function that calls this one, 2 for its caller, ...
    """
    return _outside(inside)[1]


def _outside(inside: tuple[str, ...]) -> tuple[FrameType | None, int]:
    """Return the first frame outside of some files, counted from the caller's caller, from 1."""
    frame: FrameType | None = sys._getframe(2)
    level = 1
    while frame is not None and frame.f_code.co_filename.startswith(inside):
        frame, level = frame.f_back, level + 1
    return frame, level
