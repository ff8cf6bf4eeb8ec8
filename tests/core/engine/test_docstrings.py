"""The docstrings of operations: sections that are generated, and those that are written."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.engine.ops.docstrings import standard

PUBLIC = {
    name: value
    for name, value in vars(tg).items()
    if inspect.isfunction(value)
    and value.__module__.startswith(("tinygrad_rnn.engine.ops.", "tinygrad_rnn.tensors."))
    and name != "default_device"  # a context manager
}


def sections(function: Any) -> dict[str, str]:
    parts = re.split(r"^(\w+)\n-+\n", inspect.getdoc(function) or "", flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_operation_describes_its_parameters_and_its_result(name: str) -> None:
    found = sections(PUBLIC[name])
    order = ["Parameters", "Returns", "Raises", "Notes", "Examples"]
    assert list(found) == [title for title in order if title in found]
    assert {"Parameters", "Returns", "Examples"} <= set(found)
    described = re.findall(r"^(\*?\w[\w, *]*?)(?: :.*)?$", found["Parameters"], flags=re.MULTILINE)
    names = [part.strip("* ") for entry in described for part in entry.split(",")]
    assert names == list(inspect.signature(PUBLIC[name]).parameters)


def test_a_section_or_a_parameter_that_is_written_stays() -> None:
    @standard({"x": ("Tensor", "X."), "axis": ("int", "An axis."), "z": ("int", "Z.")}, "A result.")
    def function(x: Any, axis: int, y: Any) -> None:
        """Return nothing.

        Parameters
        ----------
        y : str
            First line
            and second.
        axis : tuple of int
            Several.

        Notes
        -----
        A note.
        """

    assert sections(function) == {
        "Parameters": "x : Tensor\n    X.\naxis : tuple of int\n    Several.\n"
        "y : str\n    First line\n    and second.\n\n",
        "Returns": "Tensor\n    A result.\n\n",
        "Notes": "A note.",
    }
