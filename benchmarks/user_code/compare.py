"""Three everyday jobs, here and in PyTorch: lines of code, result, time of an epoch.

    python benchmarks/user_code/compare.py [--threads 1] [--smoke]

The jobs are those of `examples/`: the same data, network, optimizer and budget in both. Lines of
code are all lines but empty ones, comments and the docstring at the top, and those of PyTorch's
programs that measure the time: the history of `fit` has it. Every program runs in a process of its
own; the two of a job run one after the other, so on a busy machine the times mean little.
"""

from __future__ import annotations

import argparse
import ast
import io
import os
import re
import subprocess
import sys
import tokenize
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
JOBS = {  # the name of the result, and its place in the output
    "forecast": ("test RMSE", r"GRU'?: RMSE.([\d.]+)"),
    "classify_names": ("accuracy", r"accuracy ([\d.]+%)"),
    "book": ("perplexity", r"perplexity ([\d.]+)"),
}
NOT_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER,
}  # fmt: skip
CLOCK = re.compile(r"perf_counter|^import time$")


def lines_of_code(file: Path) -> list[str]:
    """Return the lines of a program that have code, without its docstring."""
    source = file.read_text(encoding="utf-8")
    first = ast.parse(source).body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    start = (first.end_lineno or 0) if is_docstring else 0
    numbers: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            numbers.update(range(token.start[0], token.end[0] + 1))
    lines = source.splitlines()
    return [lines[n - 1] for n in sorted(numbers) if n > start]


def programs(job: str) -> tuple[Path, Path]:
    """Return the program of the library, and that in PyTorch."""
    return ROOT / "examples" / f"{job}.py", HERE / f"{job}_torch.py"


def count(file: Path) -> int:
    """Return the number of lines of code, without those that measure the time."""
    return sum(CLOCK.search(line) is None for line in lines_of_code(file))


def outcome(job: str, file: Path, threads: int, smoke: bool) -> tuple[str, float]:
    """Run a program; return its result, and the mean time of an epoch in seconds."""
    number = {
        f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "OPENBLAS", "MKL", "TINYGRAD_RNN")
    }
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(
        [sys.executable, str(file), *(["--smoke"] if smoke else [])],
        capture_output=True,
        text=True,
        env=os.environ | number | {"MPLBACKEND": "Agg", "PYTHONPATH": path},
    )
    if done.returncode:
        raise SystemExit(f"{file.name} failed:\n{done.stderr}")
    return figures(job, done.stdout)


def figures(job: str, output: str) -> tuple[str, float]:
    """Return the result that a program printed, and the mean time of an epoch in seconds."""
    result = re.search(JOBS[job][1], output)
    epochs = re.findall(r"^ *(\d+) .*?([\d.]+)$", output, re.M)  # a row has the seconds so far
    if result is None or not epochs:
        raise SystemExit(f"{job}: no result was printed:\n{output}")
    last, seconds = epochs[-1]
    return result[1], float(seconds) / int(last)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare three programs with PyTorch's.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="one epoch, no target")
    options = parser.parse_args()
    print("| job | lines | in PyTorch | result | PyTorch's | s an epoch | PyTorch's |")
    print("|---|---|---|---|---|---|---|")
    for job, (name, _) in JOBS.items():
        files = programs(job)
        lines = [count(file) for file in files]
        found = [outcome(job, file, options.threads, options.smoke) for file in files]
        results, times = zip(*found, strict=True)
        cells = [*lines, f"{name} {results[0]}", results[1], *(f"{time:.2f}" for time in times)]
        print(f"| `{job}` | {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
