"""The examples run as a user runs them, and the README says what its code prints."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted(file.name for file in (ROOT / "examples").glob("*.py"))


def run(example: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run an example with warnings as errors; whatever it does, it must not end in a traceback."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / example), *options],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"} | environment,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


# ------------------------------------------------------------------------------------ every example


@pytest.mark.parametrize("example", EXAMPLES)
def test_smoke(example: str) -> None:
    done = run(example, "--smoke")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d", done.stdout), "no figure"


@pytest.mark.parametrize(
    ("example", "option"),
    [
        ("adding_problem.py", "--steps"),
        ("custom_cell.py", "--steps"),
        ("mlp.py", "--epochs"),
        ("sine_wave.py", "--steps"),
    ],
)
def test_a_missed_target_is_a_failure(example: str, option: str) -> None:
    assert run(example, option, "1").returncode == 1


def test_every_example_is_listed_and_short() -> None:
    table = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    lines = {name: len((ROOT / "examples" / name).read_text().splitlines()) for name in EXAMPLES}
    assert [name for name in EXAMPLES if f"`{name}`" not in table] == []
    assert [name for name in EXAMPLES if lines[name] >= 100] == ["char_lm.py"]


# ----------------------------------------------------------------------------------------- README

BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S
)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_the_readme_says_what_its_code_prints(code: str) -> None:
    said = re.findall(r"^ *print\(.*?\)  # (.*)$", code, re.M)
    assert len(said) == code.count("print(") > 0
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {"__name__": "readme"})
    assert printed.getvalue().splitlines() == said
