"""Count lines of code by folder; fail when the engine is too long to read in one sitting.

A line counts when it holds code: blank lines, comments and docstrings are free, and so are
declarations for type checkers (``if TYPE_CHECKING:``). The operations (``engine/ops``) are free
too, so that an operation can always be added.
Run it from anywhere: ``python tools/count_lines.py``.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "tinygrad_rnn"
AIM = 1000
CEILING = 1200
CORE = frozenset(
    "_util errors random engine tensors transforms functional bptt recurrence nn optim "
    "testing".split()
)

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

    A string that is a statement of its own is documentation, wherever it is.
    """
    free: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                free.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=[]):
                free.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - free)


def count_files(package: Path = PACKAGE) -> dict[Path, int]:
    """Return the lines of code of each file of the package."""
    return {
        file.relative_to(package): code_lines(file.read_text(encoding="utf-8"))
        for file in sorted(package.rglob("*.py"))
    }


def core_lines(counts: dict[Path, int]) -> int:
    """Return the lines of code of the core."""
    return sum(n for file, n in counts.items() if file.parts[0].removesuffix(".py") in CORE)


def main(package: Path = PACKAGE, ceiling: int = CEILING) -> int:
    """Print the lines of each folder and of the engine; return 1 if the engine is too long."""
    counts = count_files(package)
    folders: Counter[str] = Counter()
    for file, count in counts.items():
        folders[file.parts[0]] += count
    for name, count in folders.items():
        print(f"{count:6}  {name}{'' if name.removesuffix('.py') in CORE else '  (not core)'}")
    print(f"{core_lines(counts):6}  core, of {sum(counts.values())}\n")
    engine = {file: n for file, n in counts.items() if file.parent == Path("engine")}
    engine.pop(Path("engine/config.py"), None)  # a report about the machine
    for file, count in engine.items():
        print(f"{count:6}  {file}")
    total = sum(engine.values())
    print(f"{total:6}  engine without its operations (aim {AIM}, ceiling {ceiling})")
    return int(total > ceiling)


if __name__ == "__main__":
    sys.exit(main())
