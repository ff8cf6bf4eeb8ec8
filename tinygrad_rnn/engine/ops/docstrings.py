"""Docstring sections that operations share, written once.

The source of an operation holds its summary, formula, notes and example. The decorators here add
the numpydoc sections "Parameters" and "Returns". A parameter or section that the docstring
describes itself keeps its own text.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..._util.functions import parameter_names

Function = TypeVar("Function", bound=Callable[..., Any])
Entry = tuple[str, str]  # type and description of one parameter, or of several ("x, y")

X: Entry = ("Tensor", "Of any shape.")
ONE_AXIS: Entry = ("int", "Negative ones count from the end.")
OPERANDS: Entry = ("Tensor or number", "Of shapes that broadcast.")
AXIS: Entry = (
    "int, tuple of int or None",
    "The axes to reduce, negative ones counted from the end; None reduces all.",
)
KEEPDIMS: Entry = ("bool", "Whether the reduced axes stay, with length 1.")


def standard(parameters: Mapping[str, Entry], returns: str) -> Callable[[Function], Function]:
    r"""Return a decorator that completes the docstring of a function.

    Parameters
    ----------
    parameters : mapping of str to (str, str)
        Type and description by the name of the parameter, or by several names ("x, y").
    returns : str
        Description of the result, a Tensor.

    Returns
    -------
    callable
        The decorator. It changes nothing but ``__doc__``.

    Examples
    --------
    >>> from tinygrad_rnn.engine.ops.docstrings import standard
    >>> @standard({"x": ("Tensor", "Of any shape.")}, "Of the shape of x.")
    ... def double(x):
    ...     '''Return 2 x.'''
    >>> double.__doc__.split("\n\n")[1]
    'Parameters\n----------\nx : Tensor\n    Of any shape.'
    """

    def complete(function: Function) -> Function:
        """Add the sections that the docstring of the function lacks."""
        summary, sections = _sections(inspect.cleandoc(function.__doc__ or ""))
        entries = {_first(names): f"{names} : {kind}\n    {text}"
                   for names, (kind, text) in parameters.items()}  # fmt: skip
        own = re.split(r"\n(?=\S)", sections.pop("Parameters", ""))
        entries |= {_first(entry): entry for entry in own if entry}
        order = [name for name in parameter_names(function) if name in entries]
        head = {
            "Parameters": "\n".join(entries[name] for name in order),
            "Returns": sections.pop("Returns", f"Tensor\n    {returns}"),
        }
        parts = [
            f"{title}\n{'-' * len(title)}\n{text}" for title, text in (head | sections).items()
        ]
        function.__doc__ = "\n\n".join([summary, *parts])
        return function

    return complete


def _sections(text: str) -> tuple[str, dict[str, str]]:
    """Return the summary of a docstring and its sections by title."""
    summary, *rest = re.split(r"^(\w+)\n-+\n", text, flags=re.MULTILINE)
    bodies = [body.strip("\n") for body in rest[1::2]]
    return summary.strip("\n"), dict(zip(rest[::2], bodies, strict=True))


def _first(entry: str) -> str:
    """Return the first name of an entry such as ``*shape : int`` or ``x, y : Tensor``."""
    return re.split(r"[ ,:]", entry.lstrip("*"))[0]


def elementwise(operation: Function) -> Function:
    """Complete the docstring of an elementwise primitive of x, or of x and y."""
    definition: Any = operation.definition  # type: ignore[attr-defined]
    binary = "y" in definition.inputs
    returns = "Of the broadcast shape, in the common dtype" if binary else "Of the shape of x"
    returns += "; integers give the default dtype." if definition.floating else "."
    returns += "" if definition.rules else " It has no gradient."
    parameters = {"x, y": OPERANDS} if binary else {"x": X}
    return standard(parameters, returns)(operation)


def reduction(function: Function) -> Function:
    """Complete the docstring of a reduction over `axis`."""
    returns = "Of the shape of x without (or with length 1 at) `axis`"
    floating = getattr(getattr(function, "definition", None), "floating", False)
    returns += "; integers give the default dtype." if floating else "."
    return standard({"x": X, "axis": AXIS, "keepdims": KEEPDIMS}, returns)(function)


predicate = standard({"x, y": OPERANDS}, "Booleans of the broadcast shape; they have no gradient.")
along_axis = standard({"x": X, "axis": ONE_AXIS}, "Of the shape of x.")
view = standard({"x": X}, "On the memory of x.")
