"""Count the engine's lines of code, and fail when there are too many to read in one sitting.

A line counts when it holds code: blank lines, comments and docstrings are free.
Run it from anywhere: ``python tools/count_lines.py``.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "tinygrad_rnn"
AIM = 1000
CEILING = 1300

NOT_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


def code_lines(source: str) -> int:
    """Return the number of lines of ``source`` that hold code.

    A string that stands as a statement of its own is documentation, wherever it is.
    """
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            documentation.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - documentation)


def main(package: Path = PACKAGE, aim: int = AIM, ceiling: int = CEILING) -> int:
    """Print the count of each file and the total; return 1 when the total is above ``ceiling``."""
    files = [package / "errors.py", *sorted((package / "engine").rglob("*.py"))]
    counts = {file: code_lines(file.read_text(encoding="utf-8")) for file in files}
    for file, count in counts.items():
        print(f"{count:6}  {file.relative_to(package.parent)}")
    total = sum(counts.values())
    print(f"{total:6}  lines of code (aim {aim}, ceiling {ceiling})")
    return int(total > ceiling)


if __name__ == "__main__":
    sys.exit(main())
