"""Real processes: each test reads what one start of mpiexec did with ``mpi_program.py``."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mpi_program
import numpy as np
import pytest

import tinygrad_rnn as tg

HERE = Path(__file__).parent
FLAGS = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]  # of Open MPI
OF_A_PARENT = ("OMPI_", "PMIX_", "PRTE_", "OPAL_", "PMI_", "HYDI_", "MPI_")

# The one of the environment, not another one of the machine: it must fit mpi4py's library.
MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent))
MISSING = MPIEXEC is None or importlib.util.find_spec("mpi4py") is None
needs_mpi = pytest.mark.skipif(MISSING, reason="no mpiexec or mpi4py: pip install -e '.[mpi]'")
pytestmark = [pytest.mark.mpi, needs_mpi]


def environment() -> dict[str, str]:
    """Return the variables for a new start: not those of the ranks that run this, if any do."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(OF_A_PARENT)}
    path = os.pathsep.join([str(Path(tg.__file__).parents[1]), kept.get("PYTHONPATH", "")])
    return kept | {"PYTHONPATH": path, "OMPI_MCA_btl": "^ofi"}  # which takes a second to start


def command(ranks: int, *program: str) -> list[str]:
    """Return the command that starts a program of Python: by mpiexec, or alone with 0 ranks."""
    if ranks == 0:
        return [sys.executable, *program]
    assert MPIEXEC is not None
    version = subprocess.run([MPIEXEC, "--version"], capture_output=True, text=True, check=True)
    flags = FLAGS if re.search("prte|open-?mpi", version.stdout, re.I) else []
    return [MPIEXEC, *flags, "-n", str(ranks), sys.executable, *program]


def task(ranks: int, name: str, folder: Path) -> list[str]:
    return command(ranks, str(HERE / "mpi_program.py"), name, str(folder))


def run(ranks: int, name: str, folder: Path, timeout: float = 60.0) -> tuple[int, str, str, float]:
    """Return the status, both outputs, and the seconds."""
    began = time.monotonic()
    done = subprocess.run(
        task(ranks, name, folder),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=timeout,
    )
    return done.returncode, done.stdout, done.stderr, time.monotonic() - began


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """Return what trainings with 1, 2, 4 and 8 ranks found; 1 without mpiexec."""
    folder, found = tmp_path_factory.mktemp("ranks"), {}
    for ranks in (1, 2, 4, 8):
        status, out, err, _ = run(ranks if ranks > 1 else 0, "agree", folder, timeout=120)
        assert status == 0, err
        assert out.count("only rank 0 prints this") == 1
        found[ranks] = dict(np.load(folder / f"{ranks}.npz"))
    return found


def alone(dtype: Any) -> dict[str, np.ndarray]:
    """Return the parameters after a plain loop over whole batches, without `tg.distributed`."""
    tg.manual_seed(0)
    model = mpi_program.Model().to(dtype)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    stream, state, steps = tg.data.text.sequential(mpi_program.IDS, 16, 8, rng=3), None, 0
    while steps < 50:
        for x, y in stream:
            output, state = model(x, tg.bptt.detach(state))
            optimizer.zero_grad()
            tg.functional.cross_entropy(output, y).backward()
            tg.optim.clip_grad_norm(model.parameters(), 1.0)
            optimizer.step()
            steps += 1
            if steps == 50:
                break
        else:
            stream.next_epoch()
            state = None
    return model.state_dict()


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize(("dtype", "least"), [("float32", 1e-6), ("float64", 1e-12)])
def test_ranks_learn_what_one_process_learns_from_whole_batches(
    results: Any, ranks: int, dtype: str, least: float
) -> None:
    for name, expected in alone(dtype).items():
        np.testing.assert_allclose(results[ranks][f"{dtype} {name}"], expected, 0, least)
    losses = results[ranks][f"{dtype} losses"]
    np.testing.assert_allclose(losses, results[1][f"{dtype} losses"], 0, least)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_micro_batches_have_the_same_bits_for_every_number_of_ranks(
    results: Any, ranks: int
) -> None:
    """Dropout masks included."""
    names = [name for name in results[8] if name.startswith("deterministic")]
    assert len(names) == 9
    for name in names:
        assert results[ranks][name].tobytes() == results[1][name].tobytes(), name


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_resumed_run_has_the_bits_of_the_uninterrupted_one(results: Any, ranks: int) -> None:
    for way in ("float64", "deterministic"):
        resumed, whole = (results[ranks][f"{way} {name}"] for name in ("resumed", "whole"))
        assert resumed.tobytes() == whole.tobytes()


@pytest.mark.parametrize("ranks", [4, 8])
def test_a_run_continues_with_another_number_of_ranks(results: Any, ranks: int) -> None:
    found, whole = (results[n]["float64 of two"] for n in (ranks, 1))
    np.testing.assert_allclose(found, whole, 0, 1e-12)


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_a_metric_of_parts_is_that_of_the_whole(results: Any, ranks: int) -> None:
    """Of a text with padding at its end."""
    assert results[ranks]["perplexity"] == pytest.approx(results[1]["perplexity"], rel=1e-7)


def test_fit_trains_validates_and_resumes_with_ranks(results: Any) -> None:
    """The second call continues the file of two ranks for another epoch, also with four."""
    for ranks in (2, 4):
        for name in ("fit losses", "fit"):
            np.testing.assert_allclose(results[ranks][name], results[1][name], 0, 1e-6)


def test_one_rank_ends_the_run_of_all_and_figures_of_rank_0_decide(results: Any) -> None:
    """The rank whose time is over ends all after their next step; another run can follow."""
    assert results[2]["limited"].tolist() == [4, 4, 2, 2]
    assert results[2]["reasons"].tolist() == ["the time of rank 1 is over"] * 2
    assert results[2]["early"].tolist() == [3, 3]


@pytest.mark.parametrize(
    "pattern",
    [
        r"rank 0 in all_reduce: float64 \(100,\); rank 1 in all_reduce: float64 \(150,\)",
        r"rank 0 in all_reduce: float32 \(3,\); rank 1 in all_reduce: float64 \(3,\)",
        r"rank 0 in barrier; rank 1 in broadcast",
        r"rank 0 in the beginning of an epoch.*offset \d.*rank 1 in the beginning.*offset \d",
        r"parameter 0: float32 \(3, 3\); rank 1 in data_parallel: parameter 0: float32 \(4, 3\)",
        r"rank 0 in the comparison of the parameters: bias, .*; rank 1 in .*: bias, ",
    ],
    ids=["shapes", "dtypes", "another call", "seeds", "models", "parameters"],
)
def test_ranks_that_differ_are_told_so(results: Any, pattern: str) -> None:
    assert [text for text in results[2]["errors"].tolist() if re.search(pattern, text)]


@pytest.mark.parametrize(
    ("how", "pattern"),
    [
        ("exception", r"rank 1 of 2 failed and ends all:\nTraceback[^~]*KeyError: 'a bad key'"),
        ("exit", r"rank 0 in the mean of the gradients; rank 1 in the end of the program"),
        ("stuck", r"rank 0 of 2 waited 2 s for another rank in the mean of the gradients"),
        ("kill", r"signal 9|EXIT CODE: 9"),  # by mpiexec
    ],
)
def test_a_rank_that_fails_ends_all(tmp_path: Path, how: str, pattern: str) -> None:
    status, out, err, seconds = run(2, how, tmp_path, timeout=50)
    assert status != 0
    assert re.search(pattern, out + err), out + err
    assert err.count("failed and ends all") == (how != "kill")
    assert seconds < 30


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_run(tmp_path: Path, number: signal.Signals) -> None:
    """Open MPI gives its ranks a quarter of a second before it kills them.

    The run continues to the same bits, also with another number of ranks.
    """
    process = subprocess.Popen(
        task(2, "interrupted", tmp_path), stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None
    while "training" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=30)
    assert tg.load(tmp_path / "interrupted.ckpt")["state"][0].shape == (1, 16, 16)
    status, _, err, _ = run(0, "continued", tmp_path)
    assert status == 0, err
