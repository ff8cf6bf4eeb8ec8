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

import tinygrad_rnn as tg

ROOT = Path(__file__).resolve().parents[2]
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


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES)
def test_smoke(example: str) -> None:
    done = run(example, "--smoke")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d", done.stdout), "no figure"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "option"),
    [
        ("adding_problem.py", "--steps"),
        ("custom_cell.py", "--steps"),
        ("copy_memory.py", "--steps"),
        ("micro.py", "--steps"),
        ("mlp.py", "--epochs"),
        ("seq2seq.py", "--steps"),
        ("sine_wave.py", "--steps"),
        ("vanishing_gradients.py", "--steps"),
    ],
)
def test_a_missed_target_is_a_failure(example: str, option: str) -> None:
    assert run(example, option, "1").returncode == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("adding_problem.py --steps 0", "--steps and --hidden must be at least 1"),
        ("adding_problem.py --sequence 1", "--sequence at least 2"),
        ("bptt_strategies.py --draws 1", "--draws must be at least 2"),
        ("copy_memory.py --delay 0", "--delay must be at least 1"),
        ("neural_lm.py --epochs 0", "--epochs must be at least 1"),
        ("neural_lm.py --context 0", "context must be a positive integer"),
        ("ngram_vs_rnn.py --seconds 0", "--seconds must be above 0"),
        ("ngram_vs_rnn.py --text {empty}", "0 tokens"),
        ("ngram_vs_rnn.py --text no/such/file", "no/such/file' not found"),
        ("rtrl.py --sequence 9", "--sequence must be at least 10"),
        ("seq2seq.py --beam 0", "--beam must be at least 1"),
        ("vanishing_gradients.py --sequence 1", "--sequence at least 2"),
        ("word_lm.py --min-freq 0", "min_freq must be a positive integer"),
        ("word_lm.py --text {empty}", "0 tokens"),
    ],
)
def test_a_bad_argument_is_one_message(command: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    example, *options = command.format(empty=tmp_path / "empty").split()
    done = run(example, *options)
    assert done.returncode not in (0, None)
    assert message in done.stderr


def test_every_example_is_listed_and_short() -> None:
    table = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    lines = {name: len((ROOT / "examples" / name).read_text().splitlines()) for name in EXAMPLES}
    assert [name for name in EXAMPLES if f"`{name}`" not in table] == []
    assert [name for name in EXAMPLES if lines[name] > 150] == ["char_lm.py"]


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
    executor = f"executor {tg.fuse.backend()}"  # "c", or "numpy" without a compiler
    assert printed.getvalue().splitlines() == [x.replace("executor c", executor) for x in said]
