"""The main job under mpiexec: what it prints and writes, and that it continues to the same bits."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_mpi import command, environment, needs_mpi

import tinygrad_rnn as tg

SCRIPT = str(Path(__file__).parents[2] / "examples" / "char_lm.py")
pytestmark = [pytest.mark.mpi, needs_mpi]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the options of a run of 25 steps an epoch; the held-out text has padded columns."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    letters = np.random.default_rng(0).choice(list("abc d"), size=2230)
    path.write_text("".join(letters))
    sizes = "--hidden 8 --embedding 4 --batch 8 --steps 10 --decay none --length 20 --prefix a"
    return ["--text", str(path), *sizes.split()]


def run(ranks: int, *arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(ranks, SCRIPT, *map(str, arguments)),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )


def leaves(tree: Any) -> list[Any]:
    """Return what a saved run holds, arrays as bytes, without the time that things took."""
    if isinstance(tree, dict):
        clocks = ("seconds", "step_seconds", "seconds_left", "tokens_per_s")
        return [(key, leaves(tree[key])) for key in tree if key not in clocks]
    if isinstance(tree, list | tuple):
        return [leaves(part) for part in tree]
    return tree.tobytes() if isinstance(tree, np.ndarray) else tree


def test_the_perplexity_is_that_of_one_process(options: list[str], tmp_path: Path) -> None:
    """Rank 0 prints the lines of one process, and writes its files."""
    figures, lines, files, log = {}, {}, {}, ["--json", "--every", 20, "--epochs", 2]
    for ranks in (0, 1, 2, 4):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        written = ["--save", folder / "run.ckpt", "--log", folder / "log", "--ids", folder / "i"]
        done = run(ranks, *options, *log, *written)
        assert done.returncode == 0, done.stderr
        figures[ranks] = json.loads(done.stdout.splitlines()[-1])
        shown = [line for line in done.stdout.splitlines() if not line.startswith("hint")]
        lines[ranks] = [re.sub(r"[\d.,]+", "0", line) for line in shown if "so far" not in line]
        files[ranks] = sorted(os.listdir(folder))
    for ranks in (1, 2, 4):
        for name in ("perplexity", "valid_perplexity"):
            assert figures[ranks][name] == pytest.approx(figures[0][name], rel=1e-5)
        # Not the sample, whose last characters may hang on a last bit.
        assert lines[ranks][:-3] == lines[0][:-3]
        assert files[ranks] == files[0] == ["i", "log", "run.best.ckpt", "run.ckpt"]


def ranks_of(path: Path) -> list[int]:
    """Return the processes that train the run of a file, without their launchers."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            words = (process / "cmdline").read_text().split("\0")
            if words[:2] == [sys.executable, SCRIPT] and str(path) in words:
                found.append(int(process.name))
    return found


@pytest.mark.parametrize("how", ["kill", "SIGTERM"])
def test_a_run_that_ends_early_continues_to_the_same_bits(
    options: list[str], tmp_path: Path, how: str
) -> None:
    """A signal reaches mpiexec before the first report, so that there is a file only if it saves.

    Open MPI kills its ranks a quarter of a second after it has told them.
    """
    path, whole, alone = (tmp_path / f"{name}.ckpt" for name in ("run", "whole", "alone"))
    every = 10 if how == "kill" else 10**6
    options = [*options, "--dropout", "0.2", "--every", str(every)]
    process = subprocess.Popen(
        command(2, SCRIPT, *options, "--epochs", "100000", "--save", str(path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "so far" in line or "step 30:" in line:
            break
    if how == "kill":
        pids = ranks_of(path)
        assert len(pids) == 2
        os.kill(pids[-1], signal.SIGKILL)
    else:
        process.send_signal(getattr(signal, how))
    process.communicate(timeout=10)
    assert process.returncode != 0

    fit = tg.load(path)["fit"]
    shutil.copy(path, alone)
    epochs = ["--epochs", fit["epoch"] + 2]
    for ranks, file in ((2, path), (0, alone)):
        done = run(ranks, "--save", file, "--resume", *epochs)
        assert done.returncode == 0, done.stderr
        assert f"continuing after step {fit['step']:,}\n" in done.stdout
    assert run(2, *options, *epochs, "--save", whole).returncode == 0
    resumed, expected, other = (tg.load(file)["fit"] for file in (path, whole, alone))
    assert leaves(resumed) == leaves(expected)
    assert other["step"] == resumed["step"] > fit["step"] > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--batch", "5"], "--batch 5 cannot be divided by the 2 processes of mpiexec"),
        (["--text", "no/such"], "file 'no/such' not found"),
        (["--optimizer", "sgd", "--lr", "1e38"], "use a smaller --lr or --clip"),
    ],
)
def test_an_error_of_all_ranks_is_one_message(
    options: list[str], wrong: list[str], message: str
) -> None:
    done = run(2, *options, *wrong)
    assert done.returncode != 0
    assert done.stderr.count(message) == 1
    assert "Traceback" not in done.stderr
