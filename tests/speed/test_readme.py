"""The listings in ``tinygrad_rnn/speed/README.md`` are the output of its code."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tinygrad_rnn" / "speed"
README = FOLDER / "README.md"


def listings(text: str) -> Iterator[tuple[str, str]]:
    """Yield each listing and the present output of the code before it."""
    scope: dict[str, Any] = {"__name__": "readme"}
    for code, listing in re.findall(
        r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", text, re.M | re.S
    ):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(code, str(README), "exec"), scope)
        lines = [line.rstrip() for line in output.getvalue().rstrip().splitlines()]
        yield listing, "".join(f"{line}\n" for line in lines)


def rewritten(text: str) -> str:
    """Return the page with present listings."""
    present = (output for _, output in listings(text))
    return re.sub(
        r"^```text\n.*?^```", lambda _: f"```text\n{next(present)}```", text, flags=re.M | re.S
    )


def test_listings_are_the_output_of_the_code() -> None:
    found = [*listings(README.read_text(encoding="utf-8"))]
    assert len(found) == 5
    for listing, output in found:
        assert listing == output, f"run python {Path(__file__).relative_to(ROOT)}"


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.[pc]*")), ids=lambda file: file.name)
def test_every_file_is_in_the_table(file: Path) -> None:
    if file.suffix in (".py", ".c") and file.name != "__init__.py":
        assert f"`{file.name}`" in README.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(README.write_text(rewritten(README.read_text(encoding="utf-8")), encoding="utf-8") < 0)
