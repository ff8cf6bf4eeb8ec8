"""The page of the whole library notices every wrong gradient rule."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinygrad_rnn.engine.namespaces import PRIMITIVES

PAGE = Path(__file__).parents[2] / "docs" / "how_to" / "the_library_on_one_page.md"
SECTION = "## Every derivative, proved"
CELL = re.compile(r"^```\{code-cell\}\n(?::.*\n)*(.*?)^```$", re.M | re.S)
CONVERSIONS = {"to_device", "feature_major"}  # to a device, and of the memory order


def rules() -> list[tuple[str, str]]:
    """Return the operations of the library and the names of their rules."""
    return [
        (name, rule)
        for name, operation in sorted(PRIMITIVES.items())
        if not operation.definition.user_defined and name not in CONVERSIONS
        for rule in operation.definition.rule_names[: len(operation.definition.rules)]
    ]


def check() -> None:
    """Run the cells of the section."""
    section = PAGE.read_text(encoding="utf-8").partition(SECTION)[2].partition("\n## ")[0]
    scope: dict[str, Any] = {}
    exec("import numpy as np\nimport tinygrad_rnn as tg\nF = tg.functional", scope)
    for cell in CELL.findall(section):
        exec(cell, scope)


def test_the_section_holds() -> None:
    check()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rule"), rules())
def test_a_wrong_rule_ends_the_build(name: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scope = PRIMITIVES[name].__globals__
    right: Callable[..., Any] = scope[rule]

    def wrong(F: Any, g: Any, *saved: Any) -> Any:
        return right(F, F.multiply(g, 1.25), *saved)

    monkeypatch.setitem(scope, rule, wrong)
    with pytest.raises(AssertionError):
        check()
