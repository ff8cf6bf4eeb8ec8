"""The pages agree with the files that they are about: micro.py, and the list of public names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from test_contributing import MICRO, PACKAGE, rows
from test_examples import ROOT

FIRST = (ROOT / "docs" / "tutorials" / "01_a_tensor.md").read_text(encoding="utf-8")
ONE_PAGE = (ROOT / "docs" / "how_to" / "the_library_on_one_page.md").read_text(encoding="utf-8")
PUBLIC = (ROOT / "tests" / "public_names.txt").read_text(encoding="utf-8")


def cells(page: str, tag: str = "") -> list[str]:
    """Return the code of the cells of a page that have a tag, or of all."""
    found = re.findall(r"^```\{code-cell\}\n((?::[^\n]*\n)*)(.*?)^```$", page, re.M | re.S)
    return [code for options, code in found if not tag or f":tags: [{tag}]" in options]


# -- the first tutorial writes micro.py ------------------------------------------------------------


def lines(source: str) -> list[str]:
    """Return the lines of a program, without the empty ones."""
    return [line for line in source.splitlines() if line]


def test_the_cells_of_the_tutorial_are_micro() -> None:
    program, end = MICRO.split('\n\nif __name__ == "__main__":\n')
    assert end == "    raise SystemExit(main())\n"
    assert lines("".join(cells(FIRST, "micro"))) == lines(program)


def test_a_cell_between_them_redefines_nothing_of_micro() -> None:
    defined = {node.name for node in ast.parse(MICRO).body if hasattr(node, "name")}
    others = [code for code in cells(FIRST) if code not in cells(FIRST, "micro")]
    for code in others:
        assert not defined & {node.name for node in ast.parse(code).body if hasattr(node, "name")}


@pytest.mark.parametrize(
    "row", [*rows(FIRST.split("## From the parts")[1])], ids=lambda row: row[0]
)
def test_a_part_is_in_the_file_of_the_table(row: list[str]) -> None:
    for part in re.findall(r"`([^`]*)`", row[0]):
        assert part in MICRO or part == "...", part
    names: list[str] = []
    for token in re.findall(r"`([^`]*)`", row[1]):
        if "/" not in token:
            names.append(token)
            continue
        path = PACKAGE / token
        source = path.read_text(encoding="utf-8") if path.is_file() else str([*path.iterdir()])
        for name in names:
            assert re.search(rf"^((def|class) {name}\b|{name} = )", source, re.M), (name, token)
        names = []
    assert names == []


# -- the library on one page -----------------------------------------------------------------------

CODE = "".join(cells(ONE_PAGE))


def public() -> Iterator[tuple[str, str]]:
    """Yield the module and the name of every public function, class and member."""
    module = ""
    for line in PUBLIC.splitlines():
        name = re.match(r" *\.?(\w*)", line)
        assert name is not None
        if line[0] != " ":
            module = line.replace("tinygrad_rnn", "tg", 1)
        elif " = tinygrad_rnn." not in line:
            yield (module if line[2] not in " ." else "", name[1])


def used(module: str, name: str, short: dict[str, str]) -> bool:
    """Return whether the page uses a name of a module, or a member (without a module)."""
    if not module:
        return re.search(rf"[\w\])]\.{name}\b|def {name}\b", CODE) is not None
    paths = "|".join(re.escape(path) for path in (module, short.get(module, module)))
    return re.search(rf"(?<![\w.])({paths})\.{name}\b", CODE) is not None


def test_every_public_name_is_on_the_page() -> None:
    short = {full: alias for alias, full in re.findall(r"^(\w+) = (tg\.[\w.]+)$", CODE, re.M)}
    short["tg.data.metrics"] = "tg.metrics"
    missing = [f"{module}.{name}" for module, name in public() if not used(module, name, short)]
    assert missing == []


def test_a_missing_name_is_noticed() -> None:
    assert {name for _, name in public()} >= {"tanh", "Truncated", "sample", "cosine", "T"}
    assert used("tg", "tanh", {}) and not used("tg", "tanhh", {}) and not used("tg.nn", "tanh", {})
