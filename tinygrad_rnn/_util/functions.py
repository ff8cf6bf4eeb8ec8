"""Validation of arguments that must be functions."""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentError


def check_function(function: Any, name: str, classes: bool = True) -> None:
    """Raise unless `function` is callable.

    Parameters
    ----------
    function : object
        The argument.
    name : str
        The caller, for the message.
    classes : bool
        Whether a class is accepted.

    Raises
    ------
    ArgumentError
        Shows the argument.

    Examples
    --------
    >>> from tinygrad_rnn._util.functions import check_function
    >>> check_function(3, "checkpoint")
    Traceback (most recent call last):
    tinygrad_rnn.errors.ArgumentError: checkpoint: a function is expected, got 3
    """
    if isinstance(function, type) and not classes:
        raise ArgumentError(
            f"{name}: a function is expected, got the class {function.__name__}: decorate each "
            "method of a class"
        )
    if not callable(function):
        raise ArgumentError(f"{name}: a function is expected, got {function!r:.60}")
