"""The benchmarks run, and compute the same step in every library. No times are tested."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
CELLS = [
    "rnn",
    "gru",
    "lstm",
    "peephole",
    "layernorm",
    "mgu",
    "highway",
    "indrnn",
    "memories",
    "layernorm-mgu",
]


def run(program: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a benchmark; it must not end in a traceback."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / program), *options],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the training steps, imported as the benchmarks import them."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import steps

    yield steps
    for name in ("steps", "cells", "peer_cells"):
        sys.modules.pop(name, None)


def test_the_cost_of_fit_is_printed() -> None:
    done = run("fit.py", "--rounds", "1", "--steps", "2")
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert re.search(
            r"with fit [\d,]+ µs a step; the same by hand [\d,]+, fit [+-]\d+ µs", line
        )
    assert len(done.stdout.splitlines()) == 2


def test_the_import_is_timed_beside_numpy() -> None:
    done = run("import_time.py", "--rounds", "1", "--json")
    rows = json.loads(done.stdout)
    assert [(row["bytecode"], row["time"]) for row in rows] == [
        ("compiled", "clock"),
        ("compiled", "processor"),
        ("sources", "clock"),
        ("sources", "processor"),
    ]
    assert all(row[part] > 0 for row in rows for part in ("numpy", "library", "first step"))


def outcome(steps: Any, peer: str, cell: str, count: int = 3) -> tuple[float, Any, Any]:
    """Return the loss, its gradients, and the parameters after some steps that clip."""
    trainer = steps.PEERS[peer](steps.problem(cell, (6, 3, 7, 8)))
    loss, gradients = trainer.gradients()
    for _ in range(count):
        trainer.step()
    return loss, gradients, trainer.parameters()


def equal(mine: Any, other: Any) -> None:
    assert list(mine) == list(other)
    for name, value in mine.items():
        assert other[name].dtype == value.dtype == np.float32
        scale = np.abs(value).max()
        np.testing.assert_allclose(other[name], value, rtol=0, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_cell_that_a_user_writes_is_the_built_in_layer(steps: Any, cell: str) -> None:
    user, built_in = outcome(steps, "user", cell), outcome(steps, "ours", cell)
    assert user[0] == pytest.approx(built_in[0], rel=1e-6)
    equal(user[1], built_in[1])


@pytest.mark.parametrize("cell", CELLS)
def test_a_step_trains(steps: Any, cell: str) -> None:
    problem = steps.problem(cell, (6, 3, 7, 8))
    trainer = steps.PEERS["user"](problem)
    before, gradients = trainer.gradients()
    assert all(np.abs(g).max() > 0 for g in gradients.values())
    for _ in range(50):
        trainer.step()
    assert trainer.gradients()[0] < 0.97 * before


@pytest.mark.oracle
@pytest.mark.parametrize("cell", CELLS)
def test_the_step_is_pytorchs(steps: Any, cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(steps, "NORM", 0.05)  # so that every step clips
    pairs = [("user", "pytorch-user")]
    pairs += [("ours", "pytorch")] if cell in steps.BUILT_IN_CELLS else []
    for mine, other in pairs:
        ours, theirs = outcome(steps, mine, cell), outcome(steps, other, cell)
        assert theirs[0] == pytest.approx(ours[0], rel=1e-5)
        equal(ours[1], theirs[1])
        equal(ours[2], theirs[2])


def test_a_peer_that_cannot_run_says_why(steps: Any) -> None:
    with pytest.raises(steps.Unavailable, match="not a built-in cell"):
        steps.PEERS["ours"](steps.problem("mgu", (6, 3, 7, 8)))


def test_the_cells_are_the_same_in_every_table(steps: Any) -> None:
    import cells
    import peer_cells

    assert list(cells.CELLS) == list(peer_cells.PEER_CELLS) == CELLS
    assert tuple(cells.BUILT_IN) == steps.BUILT_IN_CELLS


@pytest.mark.slow
def test_the_check_passes_and_finds_a_difference(tmp_path: Path) -> None:
    options = ["--check", "--cells", "mgu", "--peers", "user", "ours"]
    done = run("compare.py", *options, "user-numpy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "user                  equal to" in done.stdout and "n/a: not a built-in" in done.stdout

    for name in ("compare.py", "steps.py", "cells.py", "peer_cells.py"):
        source = (BENCHMARKS / name).read_text(encoding="utf-8")
        if name == "cells.py":  # differs from the built-in layer
            source = source.replace("c = tg.sigmoid(f) * c +", "c = tg.sigmoid(-f) * c +")
        (tmp_path / name).write_text(source, encoding="utf-8")
    options = ["--cells", "lstm", "--peers", "ours", "user"]
    done = run(str(tmp_path / "compare.py"), "--check", *options)
    assert done.returncode == 1 and "DIFFERS" in done.stdout, done.stdout
    options += ["--smoke", "--json", str(tmp_path / "all.json")]
    run(str(tmp_path / "compare.py"), *options)
    results = json.loads((tmp_path / "all.json").read_text())["results"]
    assert ["its loss is" in r.get("error", "") for r in results].count(True) == 1


@pytest.mark.slow
def test_compare_writes_its_measurements(tmp_path: Path) -> None:
    files = {name: str(tmp_path / name) for name in ("all.json", "table.md", "times.svg")}
    write = ["--table", files["table.md"]]
    pytest.importorskip("matplotlib")
    done = run(
        "compare.py", "--smoke", "--cells", "lstm", "mgu", "--peers", "ours", "user",
        "--json", files["all.json"], "--plot", files["times.svg"], *write,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(Path(files["all.json"]).read_text())["results"]
    assert [(r["cell"], r["peer"], len(r["ms"])) for r in results] == [
        ("lstm", "ours", 1), ("lstm", "user", 1), ("mgu", "ours", 0), ("mgu", "user", 1),
    ]  # fmt: skip
    assert results[2]["error"] == "not a built-in cell"
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], rel=1e-6)
    if sys.platform == "linux":
        assert (
            results[0]["bytes"] >= 0
        )  # a step this small may fit into memory that is already allocated
    assert Path(files["times.svg"]).read_text(encoding="utf-8").startswith("<?xml")

    # The table holds these figures, and reading them again writes the same.
    table = Path(files["table.md"]).read_text(encoding="utf-8")
    for result in results:
        if result["ms"]:
            assert f"{result['ms'][0]:.3g} |" in table
    markers = re.findall(r"<!-- (.*?) -->", table)
    assert markers[::2] == ["about", "ratios", "built in", "others", "every figure"]
    assert table.count("<details>") == table.count("</details>") == 1 + 3  # the MGU, the figures
    assert "- ours, built in, 1 problems: not a built-in cell" in table
    again = run("compare.py", "--read", files["all.json"], *write)
    assert again.returncode == 0 and "user's LSTM / nn.LSTM" in again.stdout
    assert Path(files["table.md"]).read_text(encoding="utf-8") == table


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_benchmark_of_a_gpu(tmp_path: Path, device: str) -> None:
    if device == "cuda" and not tg.cuda.is_available():
        pytest.skip(tg.cuda.is_available().reason)
    options = ["--device", device, "--rounds", "1", "--seconds", "0", "--sizes", "6,3,7,8"]
    options += ["--cells", "gru", "mgu", "--peers", "ours", "user"]
    done = run("gpu.py", *options, "--table", str(tmp_path / "table.md"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not a built-in cell" in done.stdout
    rows = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()[-2:]
    figures = [re.findall(r"([\d.]+) ms", row) for row in rows]
    assert [len(found) for found in figures] == [2, 1]
    assert all(float(ms) > 0 for found in figures for ms in found)


def test_scaling_fits_an_exponent_for_every_size() -> None:
    done = run("scaling.py", "--smoke", "--cells", "rnn")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^rnn .*  -?\d\.\d{3}$", done.stdout, re.M)) == 4


@pytest.fixture
def scale_ranks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the benchmark as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scale_ranks

    yield scale_ranks
    sys.modules.pop("scale_ranks", None)


def test_a_cost_model_is_found_again_from_its_own_times(scale_ranks: Any, tmp_path: Path) -> None:
    true = np.array([1e-3, 1e-9, 3e-11, 1e-9, 5e-4, 1e-5, 2e-10, 5e-3, 4e-11])
    results = [
        {"N": N, "H": H, "B": B} for N in scale_ranks.RANKS for H, B in scale_ranks.SIZES
    ] + [{"N": 2, "H": n, "B": 0} for n in scale_ranks.FLOATS]
    for r in results:
        r["seconds"] = float(scale_ranks.row(r, "halving", 2) @ true)
    np.testing.assert_allclose(scale_ranks.fit(results, "halving", 2), true, rtol=1e-6)
    slower = [r | {"seconds": 2 * r["seconds"]} for r in results]
    for name, run_ in (("a", results), ("b", slower)):
        data = {"cores": 2, "about": ["x"], "results": run_}
        (tmp_path / f"{name}.json").write_text(json.dumps(data), encoding="utf-8")
    files = [str(tmp_path / f"{name}.json") for name in "ab"]
    done = run("scale_ranks.py", "--read", *files, "--table", str(tmp_path / "table.md"))
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "1: 0%, 0%, 2: 0%, 0%, 4: 0%, 0%" in table and "5.0 GB/s" in table


def test_all_reduces_send_what_they_must(scale_ranks: Any) -> None:
    for name, sent in scale_ranks.SENT.items():
        assert sent(1) == (0, 0)
        for N in (2, 4, 1024):  # a sum of N parts cannot reach all ranks with fewer messages
            assert sent(N)[0] >= np.log2(N) and sent(N)[1] >= 2 * (N - 1) / N, name


def test_local_sgd_is_simulated() -> None:
    options = ["--epochs", "1", "--seeds", "1", "--rates", "2", "--characters", "80000"]
    done = run("local_sgd.py", *options)
    assert done.returncode == 0, done.stderr
    rows = re.findall(
        r"^\| (\S.*?) \| (\d+) \| 2 \| (\d+) \| [\d.]+ \| ([\d.]+)", done.stdout, re.M
    )
    assert [int(every) * int(sums) for _, every, sums, _ in rows] == [64] * 7
    found = {(way, int(every)): float(p) for way, every, _, p in rows}
    assert found["local", 64] < found["accumulated", 64]


@pytest.mark.parametrize(
    ("measured", "pages"),
    [("speed.md", ("speed.md", "speed_tables.md")), ("scaling.md", ("scaling.md",))],
)
def test_the_pages_have_their_tables_and_their_picture(
    measured: str, pages: tuple[str, ...]
) -> None:
    tables = (ROOT / "docs" / "_measured" / measured).read_text(encoding="utf-8")
    included = []
    for page in pages:
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for name in re.findall(r"_measured/[a-z.]+", text):
            assert (ROOT / "docs" / name).exists()
        included += re.findall(r"^:start-after: (.*)$", text, re.M)
    parts = [marker for marker in re.findall(r"<!-- .*? -->", tables) if marker != "<!-- end -->"]
    assert sorted(included) == sorted(parts), "each part is on one page"
    assert tables.count("<!-- end -->") == len(parts)
