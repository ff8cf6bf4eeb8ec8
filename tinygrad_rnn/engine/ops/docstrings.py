"""Docstring sections that operations share, written once.

The source of an operation holds its summary, formula, notes and example. The decorators here add
the numpydoc sections "Parameters", "Returns" and "Raises". A parameter or section that the
docstring describes itself keeps its own text.
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


REAL = {"DTypeError": "If an argument is not of real numbers."}
BROADCAST = {"ShapeError": "If the shapes do not broadcast."}
ONE_DEVICE = {"DeviceError": "If the operands are on different devices."}
IN_RANGE = {"ShapeError": "If an axis is out of range or given twice."}


def standard(
    parameters: Mapping[str, Entry], returns: str, raises: Mapping[str, str] | None = None
) -> Callable[[Function], Function]:
    r"""Return a decorator that completes the docstring of a function.

    Parameters
    ----------
    parameters : mapping of str to (str, str)
        Type and description by the name of the parameter, or by several names ("x, y").
    returns : str
        Description of the result, a Tensor.
    raises : mapping of str to str, optional
        The condition by the name of the error.

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
        if raises:
            errors = "\n".join(f"{error}\n    {text}" for error, text in raises.items())
            head["Raises"] = sections.pop("Raises", errors)
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
    raises = REAL | BROADCAST | ONE_DEVICE if binary else REAL
    return standard(parameters, returns, raises)(operation)


def reduction(function: Function) -> Function:
    """Complete the docstring of a reduction over `axis`."""
    returns = "Of the shape of x without (or with length 1 at) `axis`"
    floating = getattr(getattr(function, "definition", None), "floating", False)
    returns += "; integers give the default dtype." if floating else "."
    parameters = {"x": X, "axis": AXIS, "keepdims": KEEPDIMS}
    return standard(parameters, returns, REAL | IN_RANGE)(function)


predicate = standard(
    {"x, y": OPERANDS},
    "Booleans of the broadcast shape; they have no gradient.",
    REAL | BROADCAST | ONE_DEVICE,
)
along_axis = standard({"x": X, "axis": ONE_AXIS}, "Of the shape of x.", REAL | IN_RANGE)
view = standard(
    {"x": X}, "On the memory of x.", {"ShapeError": "If the shape or an axis does not fit x."}
)
