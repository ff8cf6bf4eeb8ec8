"""CONTRIBUTING.md and the folders' READMEs are true: files, layers, and an operation added."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_examples import ROOT

GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MICRO = (ROOT / "examples" / "micro.py").read_text(encoding="utf-8")
PACKAGE = ROOT / "tinygrad_rnn"
FOLDERS = ("benchmarks", "docs", "examples", "findings", "tests", "tools")


def section(title: str) -> str:
    """Return the text of a section."""
    return GUIDE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the tables in a text, without their heads."""
    for line in re.findall(r"^\| (.*) \|$", text, re.M)[1:]:
        yield line.split(" | ")


# -- files and names -------------------------------------------------------------------------------


def test_the_picture_has_the_layers_of_the_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (c for c in project["tool"]["importlinter"]["contracts"] if c["id"] == "package")
    expected = [{name.strip(" ()") for name in layer.split("|")} for layer in contract["layers"]]
    picture = section("The layers").split("```")[1].strip("\n").splitlines()
    found = [set(line[:20].split()) for line in picture if not line.startswith("-")]
    assert found == expected


def test_the_line_of_the_core_is_where_the_core_begins() -> None:
    tool = (ROOT / "tools" / "count_lines.py").read_text(encoding="utf-8")
    found = re.search(r"CORE = frozenset\(([^)]*)\.split", tool)
    assert found is not None
    core = set("".join(re.findall(r'"([^"]*)"', found[1])).split())
    below = section("The layers").split("```")[1].split("below is the core")[1].splitlines()
    assert {name for line in below for name in line[:20].split()} == core


@pytest.mark.parametrize("row", [*rows(section("Which file?"))], ids=lambda row: row[0])
def test_a_file_of_the_table_exists(row: list[str]) -> None:
    paths = re.findall(r"`([^`]*)`", row[1])
    assert paths
    for path in paths:
        assert (PACKAGE / path).exists(), path


MAP = [*rows(section("From `examples/micro.py` to the engine"))]


@pytest.mark.parametrize("row", MAP, ids=lambda row: row[0])
def test_micro_maps_to_names_of_the_engine(row: list[str]) -> None:
    for part in re.findall(r"`([^`]*)`", row[0]):
        for code in part.removesuffix(", ...").split(" ... "):  # "..." stands for other code
            assert code.removesuffix("...") in MICRO, code
    # "`a`, `b` in `path`": the names are defined in the file
    names: list[str] = []
    for token in re.findall(r"`([^`]*)`", row[1]):
        path = PACKAGE / token
        if "/" not in token:
            names.append(token)
            continue
        source = path.read_text(encoding="utf-8") if path.is_file() else str([*path.iterdir()])
        for name in names:
            assert re.search(rf"^((def|class) {name}\b|{name} = )", source, re.M), (name, token)
        names = []
    assert names == []


def test_the_map_names_every_part_of_micro() -> None:
    parts = re.findall(r"^(?:def|class) (\w+)", MICRO, re.M)
    named = " ".join(row[0] for row in MAP)
    operations = {"multiply", "sum", "matmul", "concatenate"}  # in the row of `add`, `tanh`, ...
    assert [part for part in parts if part not in operations and part not in named] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_says_in_one_sentence_what_belongs_there(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    first = text.splitlines()[0]
    assert "belong" in first and first.endswith(".") and first.count(". ") == 0
    if folder in ("benchmarks", "examples", "findings", "tools"):
        files = [*(ROOT / folder).glob("*.py"), *(ROOT / folder).glob("*.sh")]
        assert [file.name for file in files if f"`{file.name}`" not in text] == []


# -- adding an operation ---------------------------------------------------------------------------


CHOSEN = "softsign or public or every_operation_has_a_row"  # of the tests, for the new operation


def apply(diff: str, root: Path) -> None:
    """Apply a diff whose hunks add lines after lines that occur once."""
    for part in re.split(r"^--- ", diff, flags=re.M)[1:]:
        header, *lines = part.rstrip("\n").split("\n")
        assert lines[0] == f"+++ b/{header.removeprefix('a/')}" and lines[1] == "@@"
        before = [line[1:] for line in lines[2:] if line[:1] != "+"]
        after = [line[1:] for line in lines[2:]]
        file = root / header.removeprefix("a/")
        text = f"\n{file.read_text(encoding='utf-8')}"
        old, new = ("\n" + "\n".join(part) + "\n" for part in (before, after))
        assert text.count(old) == 1, f"{file}: {before}"
        file.write_text(text.replace(old, new)[1:], encoding="utf-8")


def test_the_diff_adds_an_operation_that_passes_the_tests(tmp_path: Path) -> None:
    for name in ("tinygrad_rnn", "tests", "tools"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (diff,) = re.findall(r"^```diff\n(.*?)^```", GUIDE, re.M | re.S)
    apply(diff, tmp_path)
    own = ("PYTEST_", "COV_", "COVERAGE_")  # the settings of the run that this test is part of
    environment = {k: v for k, v in os.environ.items() if not k.startswith(own)}
    environment["PYTHONPATH"] = str(tmp_path)

    tests = ["core/tensors/test_ops.py", "project/test_public_names.py"]
    doctests = ["tinygrad_rnn/engine/ops/arithmetic.py"]
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, "-k", CHOSEN, *[f"tests/{name}" for name in tests], *doctests],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("[softsign] PASSED") >= 8, done.stdout
    assert "arithmetic.softsign PASSED" in done.stdout
    assert "test_public_names_are_those_of_the_golden_file PASSED" in done.stdout
