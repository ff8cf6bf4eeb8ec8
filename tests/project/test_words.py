"""Plain technical English: phrases that this project does not use, in code, messages and pages.

Most of them hide a noun: "what a user gives" is an argument, "has not" is "lacks", "lies beside" is
"is next to".
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import tinygrad_rnn as tg

ROOT = Path(tg.__file__).parents[1]
PHRASES = [
    r"in silence",
    r"(?<!under)stands?(?!-)",
    r"lies?",
    r"besides?",
    r"anew",
    r"dear",
    r"(hand|hands|handed|handing) (on|over|down|back|it|them|to)",
    r"(come|comes|came) back",
    r"(has|have|had) not(?! been)",
    r"(is|are|was|were) no(?! longer)(?! more)",
    r"whatever|whoever|nobody|somebody|everybody",
    r"diary|workshop",
    r"what (is|was|are|were|it|they|a|an|the|has|have|nobody|else|that|this|one|we|every|each)",
    r"(of|from|by|with|to|in|than|and|as|for|on|at) what",
    r"there and back",
    r"(?<!the )business",
    r"lends?|lent",
    r"puts? off",
    r"let go",
    r"as it (is|stands)",
]
FORBIDDEN = re.compile(rf"\b({'|'.join(PHRASES)})\b", re.IGNORECASE)
SKIPPED = {
    "test_words.py", "_build", "_measured", "jupyter_execute", ".jupyter_cache",
}  # fmt: skip


def prose(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the prose of a file, with its first line: a page, or comments and strings."""
    source = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        yield from enumerate(source.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def files() -> list[Path]:
    """Return the files whose words are checked."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for folder in ("tinygrad_rnn", "examples", "benchmarks", "tools", "docs/_ext"):
        found += [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.md")]
    return sorted({f for f in found if SKIPPED.isdisjoint(f.relative_to(ROOT).parts)})


def found_in(file: Path) -> list[str]:
    """Return each forbidden phrase with its place."""
    places = []
    for line, text in prose(file):
        for match in FORBIDDEN.finditer(text):
            at = line + text.count("\n", 0, match.start())
            around = " ".join(text[max(0, match.start() - 30) : match.end() + 30].split())
            places.append(f"{file.relative_to(ROOT)}:{at}: {match[0]!r} in … {around} …")
    return sorted(set(places))


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_words_are_plain(file: Path) -> None:
    assert not found_in(file)


def test_a_phrase_is_found(tmp_path: Path) -> None:
    assert FORBIDDEN.search("the gradient is lost in silence")
    assert not FORBIDDEN.search("a stand-in that is understood is no longer needed")
