"""Functions: validation of arguments, parameters, parts of generated source code."""

from __future__ import annotations

import inspect
import textwrap
import types
from collections.abc import Sequence
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


def parameter_names(function: Any) -> list[str]:
    """Return the names of a function's parameters, in the order of its signature.

    ``inspect.signature`` takes twenty times as long, which is noticed in an import that asks for
    hundreds. It is called for anything but a function in Python.

    Raises
    ------
    ValueError
        If the signature is not known, for a function in C.

    Examples
    --------
    >>> from tinygrad_rnn._util.functions import parameter_names
    >>> parameter_names(lambda x, *shape, dtype=None, **rest: x)
    ['x', 'shape', 'dtype', 'rest']
    """
    plain = function
    while type(plain) is types.FunctionType and not hasattr(plain, "__signature__"):
        if not hasattr(plain, "__wrapped__"):
            code = plain.__code__
            n, m = code.co_argcount, code.co_kwonlyargcount
            rest = list(code.co_varnames[n + m :])
            several = [rest.pop(0)] if code.co_flags & inspect.CO_VARARGS else []
            others = rest[:1] if code.co_flags & inspect.CO_VARKEYWORDS else []
            return [*code.co_varnames[:n], *several, *code.co_varnames[n : n + m], *others]
        plain = plain.__wrapped__
    found = getattr(plain, "__signature__", None)  # an operation's
    return list((found or inspect.signature(function)).parameters)


def positional_count(function: Any) -> float:
    """Return how many positional arguments a function takes; infinity for ``*args``.

    0 for a function in C whose signature is not known.
    """
    if type(function) is types.FunctionType and not hasattr(function, "__wrapped__"):
        code = function.__code__
        return float("inf") if code.co_flags & inspect.CO_VARARGS else code.co_argcount
    try:
        kinds = [p.kind for p in inspect.signature(function).parameters.values()]
    except ValueError:
        return 0
    keyword_only = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    variadic = inspect.Parameter.VAR_POSITIONAL in kinds
    return float("inf") if variadic else sum(k not in keyword_only for k in kinds)


def tuple_text(expressions: Sequence[str]) -> str:
    """Return the inside of a tuple as source code."""
    return ", ".join(expressions) + "," * (len(expressions) == 1)


def lines_text(expressions: Sequence[str], indent: int) -> str:
    """Return the inside of a tuple as source code, on several lines if it has several elements."""
    if len(expressions) < 2:
        return tuple_text(expressions)
    lines = textwrap.indent("".join(f"{x},\n" for x in expressions), " " * indent)
    return f"\n{lines}{' ' * (indent - 4)}"
