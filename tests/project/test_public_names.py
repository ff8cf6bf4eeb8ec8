"""The public names and their signatures are those of ``tests/public_names.txt``."""

from __future__ import annotations

import difflib
from pathlib import Path

from test_architecture import tool

GOLDEN = Path(__file__).parents[1] / "public_names.txt"


def test_public_names_are_those_of_the_golden_file() -> None:
    expected = GOLDEN.read_text(encoding="utf-8").splitlines()
    found = list(tool("public_names").lines())
    difference = difflib.unified_diff(expected, found, "golden", "now", lineterm="", n=0)
    assert found == expected, (
        "public names changed; if that is intended: "
        "python tools/public_names.py > tests/public_names.txt\n" + "\n".join(difference)
    )


def test_the_list_has_names_of_every_kind() -> None:
    found = set(tool("public_names").lines())
    assert {
        "tinygrad_rnn.optim.schedule",
        "  nn = tinygrad_rnn.nn",
        "  float32",
        "  tanh(x)",
        "    .backend(name=None)",
        "    .item(self)",
        "    .shape",
    } <= found
    assert not any("0x" in line or line.lstrip(" .").startswith("_") for line in found)
