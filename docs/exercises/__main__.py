"""Check an answer to an exercise of the site: python docs/exercises NAME my_answer.py."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parent


def run(file: Path) -> ModuleType:
    """Import a file."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Check the function `answer` of a file; return 1 if it is wrong."""
    exercises = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem[0] != "_")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=exercises)
    parser.add_argument("file", type=Path, help="a file that defines the function `answer`")
    options = parser.parse_args()
    sys.path.insert(0, str(FOLDER.parents[1]))  # the package of this folder, also if not installed
    exercise, answers = run(FOLDER / f"{options.name}.py"), run(options.file)
    if not hasattr(answers, "answer"):
        print(f"{options.file} does not define `answer`")
        return 1
    try:
        exercise.check(answers.answer)
    except AssertionError as error:
        print(f"not yet: {error}")
        return 1
    print("correct")
    return 0


if __name__ == "__main__":
    sys.exit(main())
