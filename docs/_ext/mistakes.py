"""Mistakes on a page: a call that must fail, and its message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def fails(function: Callable[[], Any], hidden: str = "") -> None:
    """Call a function, which must raise an error; print the error, without a folder's name."""
    try:
        function()
    except Exception as error:
        message = str(error).replace(hidden, ".") if hidden else error
        print(f"{type(error).__name__}: {message}")
    else:
        raise AssertionError("no error")
