"""Libraries that the package does not need, imported where a function is called that uses one."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import MissingExtraError


def imported(module: str, cure: str, op: str = "") -> Any:
    """Return a module of another library.

    Parameters
    ----------
    module : str
        Its full name, such as ``"matplotlib.figure"``.
    cure : str
        The command that installs it.
    op : str
        The function that needs it, for the message.

    Returns
    -------
    module

    Raises
    ------
    MissingExtraError
        If it is not installed, or cannot be used; names the library and the command.

    Examples
    --------
    >>> from tinygrad_rnn._util.extras import imported
    >>> imported("nosuch.figure", "pip install nosuch", "plot")
    Traceback (most recent call last):
    tinygrad_rnn.errors.MissingExtraError: plot: nosuch is not installed: pip install nosuch
    """
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:  # the latter of mpi4py without a library of MPI
        problem = "is not installed" if isinstance(error, ImportError) else f"fails ({error})"
        where, library = f"{op}: " * bool(op), module.partition(".")[0]
        raise MissingExtraError(f"{where}{library} {problem}: {cure}") from error


def matplotlib(module: str, op: str = "") -> Any:
    """Return a module of matplotlib, by its full name; see `imported`."""
    return imported(module, "pip install 'tinygrad-rnn[plot]'", op)
