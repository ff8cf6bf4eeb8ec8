"""The exercises of the site: stub and wrong answer fail their check, the solution passes."""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import tinygrad_rnn as tg

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FILES = sorted(file for file in (DOCS / "exercises").glob("*.py") if file.stem[0] != "_")
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
SECONDS = 5  # of processor time: a reader waits for each check


def module(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"docs_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(autouse=True)
def as_in_a_new_process() -> Any:
    """An exercise may draw numbers and set the default dtype, for itself only."""
    dtype, state = tg.get_default_dtype(), tg.random.get_state()
    tg.manual_seed(0)
    yield
    tg.set_default_dtype(dtype)
    tg.random.set_state(state)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
class TestEvery:
    @pytest.mark.parametrize("part", ["stub", "wrong"])
    def test_unfinished_and_wrong_answers_get_a_hint(self, file: Path, part: str) -> None:
        exercise = module(file)
        with pytest.raises(AssertionError) as caught:
            exercise.check(getattr(exercise, part))
        assert len(str(caught.value).split("\n")[0].split()) >= 3, "the assertion needs a text"

    def test_the_solution_passes(self, file: Path) -> None:
        exercise, start = module(file), time.process_time()
        exercise.check(exercise.solution)
        assert time.process_time() - start < SECONDS

    def test_the_answers_have_one_signature(self, file: Path) -> None:
        exercise = module(file)
        stub, solution, wrong = (
            [*inspect.signature(getattr(exercise, part)).parameters]
            for part in ("stub", "solution", "wrong")
        )
        assert stub == solution == wrong

    def test_a_page_shows_it(self, file: Path) -> None:
        assert file.stem in shown(*DOCS.rglob("*.md"))

    @pytest.mark.docs
    def test_the_blocks_of_its_page_are_complete(self, file: Path) -> None:
        """A reader copies the stub, or the solution into its place, and then the check."""
        extension = directive()
        parts = extension.load(file.stem)
        for answer in (parts.stub, f"{parts.stub}\n\n\n{parts.solution}"):
            names: dict[str, Any] = {"__name__": "copied"}
            exec(compile(answer, f"{file.stem}, the answer", "exec"), names)
            exec(compile(parts.check, f"{file.stem}, the check", "exec"), names)
            if answer == parts.stub:
                with pytest.raises(AssertionError):
                    names["check"](names["answer"])
            else:
                names["check"](names["answer"])


def shown(*pages: Path) -> list[str]:
    """Return the names of the exercises that pages show."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return re.findall(r"^[`:]{3,}\{exercise\} *(\w+) *$", text, re.MULTILINE)


def directive() -> Any:
    pytest.importorskip("sphinx")
    return module(DOCS / "_ext" / "exercises.py")


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_ends_with_abilities_and_exercises(page: Path) -> None:
    headings = re.findall(r"^## (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[-2:] == ["What you can do now", "Exercises"]
    assert shown(page)


def test_every_exercise_that_a_page_shows_exists() -> None:
    assert set(shown(*DOCS.rglob("*.md"))) <= {file.stem for file in FILES}


@pytest.mark.parametrize("part", ["stub", "solution"])
def test_the_command_of_the_page(part: str, tmp_path: Path) -> None:
    name, answer = "collect_losses", tmp_path / "my_answer.py"
    exercises = str(DOCS / "exercises")
    answer.write_text(
        f"import sys\n\nsys.path.append({exercises!r})\nfrom {name} import {part} as answer\n"
    )
    command = [sys.executable, exercises, name, str(answer)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == (part == "stub"), done.stderr
    assert done.stdout.startswith("correct" if part == "solution" else "not yet: "), done.stdout


@pytest.mark.docs
def test_an_exercise_in_a_notebook_is_the_stub_and_then_the_check() -> None:
    cells = directive().cells("collect_losses")
    assert [kind for kind, _ in cells] == ["markdown", "code", "code", "markdown"]
    assert "def answer(" in cells[1][1] and "losses.append(loss.item())" in cells[1][1]
    assert cells[2][1].endswith("check(answer)  # an AssertionError has a hint")
    assert "def answer(" in cells[3][1] and "solution(" not in cells[3][1]


@pytest.mark.docs
def test_an_incomplete_exercise_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text('"""Title.\n\nTask.\n"""\n\n\ndef stub():\n    pass\n')
    with pytest.raises(ValueError, match="'half' lacks check, solution, wrong"):
        directive().load("half", tmp_path)
