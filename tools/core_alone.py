"""Run the core's tests in a copy of the repository that holds the core alone.

The copy has the core's modules, ``tests/core`` and the files that these tests share. It lacks
``speed``, ``data``, ``models``, ``viz``, ``io`` and ``cuda``, whose names are unknown then.

Tests marked ``slow`` and comparisons with PyTorch are left out, so that the run takes less than a
minute on two cores: ``python tools/core_alone.py -n 2``. Further arguments go to pytest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from count_lines import CORE

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tinygrad_rnn"
OPTIONS = ("-q", "-p", "no:cacheprovider", "-m", "not slow and not oracle and not gpu")
SUPPORT = (
    "conftest.py",
    "cuda_on_host.h",
    "cuda_on_host.py",
    "host_only.txt",
    "op_table.py",
    "reference.py",
    "strict_device.py",
)


def copy_core(target: Path) -> None:
    """Copy the core and its tests to a folder."""
    package = target / PACKAGE.name
    package.mkdir()
    for path in PACKAGE.iterdir():
        if path.stem in CORE and path.is_dir():
            shutil.copytree(path, package / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.stem in CORE or path.name == "py.typed":
            shutil.copy(path, package)
    shutil.copy(PACKAGE / "__init__.py", package)
    shutil.copytree(ROOT / "tests" / "core", target / "tests" / "core")
    for name in SUPPORT:
        shutil.copy(ROOT / "tests" / name, target / "tests")
    shutil.copy(ROOT / "pyproject.toml", target)


def main(arguments: list[str]) -> int:
    """Copy the core, run its tests and doctests in the copy; return pytest's exit status."""
    environment = {"HYPOTHESIS_PROFILE": "core"} | os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        copy_core(Path(folder))
        status = subprocess.run(
            [sys.executable, "-m", "pytest", *OPTIONS, *arguments],
            cwd=folder,
            env=environment | {"PYTHONPATH": folder},
        ).returncode
    print(f"the core alone: {time.perf_counter() - start:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
