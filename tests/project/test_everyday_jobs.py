"""A forecast, names and a book: short programs, the pages that show them, and PyTorch's beside."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import subprocess
import sys
import tokenize
from pathlib import Path
from typing import Any

import pytest
from test_benchmarks import run as benchmark
from test_examples import ROOT, run
from test_tutorials import cells, lines

JOBS = {"forecast": "forecast", "classify_names": "classify", "book": "book"}  # and their pages
JOB = pytest.mark.parametrize("job", JOBS)
DATA = {"forecast": "load = ", "classify_names": "names = "}  # a line of those that make the data


def program(job: str) -> str:
    return (ROOT / "examples" / f"{job}.py").read_text(encoding="utf-8")


def body(source: str) -> str:
    """Return a program without the docstring at its top."""
    return source.split('"""', 2)[2]


def code(source: str) -> list[str]:
    """Return the lines of a program without its docstring, comments and empty lines."""
    shown = []
    for token in tokenize.generate_tokens(io.StringIO(body(source)).readline):
        if token.type != tokenize.COMMENT and token.string.strip():
            shown += range(token.start[0], token.end[0] + 1)
    return [body(source).splitlines()[n - 1] for n in sorted(set(shown))]


@JOB
def test_a_job_has_at_most_30_lines_of_code_and_asserts_its_result(job: str) -> None:
    written = code(program(job))
    assert len(written) <= 30
    assert written[-1].startswith('assert "--smoke" in sys.argv or')


@JOB
def test_the_page_shows_the_program(job: str) -> None:
    page = (ROOT / "docs" / "how_to" / f"{JOBS[job]}.md").read_text(encoding="utf-8")
    assert lines("".join(cells(page, "example"))) == lines(body(program(job)))


@pytest.fixture
def compare() -> Any:
    """Return the program that compares the jobs with PyTorch."""
    file = ROOT / "benchmarks" / "user_code" / "compare.py"
    spec = importlib.util.spec_from_file_location("compare_user_code", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@JOB
def test_the_lines_that_are_counted(compare: Any, job: str) -> None:
    ours, theirs = compare.programs(job)
    assert compare.lines_of_code(ours) == code(program(job))
    clocks = {*compare.lines_of_code(theirs)} - {
        line for line in compare.lines_of_code(theirs) if not compare.CLOCK.search(line)
    }
    assert len(clocks) == 3  # the import, the start, the time so far
    assert compare.count(ours) == len(code(program(job)))
    assert compare.count(theirs) == len(compare.lines_of_code(theirs)) - 3


@pytest.mark.parametrize("job", DATA)
def test_both_programs_have_the_same_data(job: str, compare: Any) -> None:
    ours, theirs = (compare.lines_of_code(file) for file in compare.programs(job))
    start = next(i for i, line in enumerate(ours) if not line.startswith(("import", "from")))
    end = next(i for i, line in enumerate(ours) if line.startswith(DATA[job])) + 2
    found = theirs.index(ours[start])
    assert theirs[found : found + end - start] == ours[start:end]


@pytest.mark.oracle
@JOB
def test_the_program_in_pytorch_runs(job: str, compare: Any) -> None:
    pytest.importorskip("torch")
    result, seconds = compare.outcome(job, compare.programs(job)[1], threads=1, smoke=True)
    assert float(result.rstrip("%")) > 0 and seconds > 0


@JOB
def test_a_job_saves_its_plot_and_prints_its_result(job: str, compare: Any, tmp_path: Path) -> None:
    done = run(f"{job}.py", "--smoke", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    (plot,) = tmp_path.glob("*/*.png")
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert str(plot.parent) in done.stdout
    result, seconds = compare.figures(job, done.stdout)
    assert float(result.rstrip("%")) > 0 and seconds > 0


@pytest.mark.oracle
def test_the_forecasts_from_equal_weights_are_equal() -> None:
    pytest.importorskip("torch")
    done = benchmark("forecast.py", "--seeds", "2", "--epochs", "1", "--timed", "0")
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^seed \d: ours ([\d.]+), PyTorch ([\d.]+)$", done.stdout, re.M)
    assert len(found) == 2
    for ours, theirs in found:
        assert float(ours) == pytest.approx(float(theirs), rel=1e-3)


def test_the_readme_has_the_lines_of_both(compare: Any) -> None:
    readme = (ROOT / "benchmarks" / "user_code" / "README.md").read_text(encoding="utf-8")
    for job in JOBS:
        ours, theirs = (compare.count(file) for file in compare.programs(job))
        assert f"| `{job}` | {ours} | {theirs} |" in readme


def test_a_missed_target_is_a_failure(tmp_path: Path) -> None:
    """The assertion is reached: a network that is not trained misses the target."""
    source = program("classify_names").replace("lr=0.01", "lr=1e-9").replace("else 10", "else 1")
    (tmp_path / "job.py").write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "job.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "AssertionError" in done.stderr
