r"""A cost model of a data-parallel step: fitted to 1, 2 and 4 ranks here, computed for 1,024.

    python benchmarks/scale_ranks.py --json 1.json                 # measure: two minutes
    python benchmarks/scale_ranks.py --read 1.json 2.json --table docs/_measured/scaling.md \
        --plot docs/_measured/scaling.svg                          # fit and predict

It starts ``mpiexec`` itself (extra ``mpi``). A step is that of `tg.distributed.data_parallel` for
a GRU language model, with one thread a rank. The number of columns of a rank does not depend on
the number of ranks. A figure is the least time of a step over the rounds, of the slowest rank:
other programs can only add to it. Sizes take turns.

The model has no overlap of computing and sending, as the library has none: a step is the sum of

    fixed + element · rows · H + product · rows · M + parameter · P        computing
    + overhead + (log2 N + s) · latency + n · byte                         messages, if N > 1

with T·B rows, hidden size H, M elements of the matrices that each row is multiplied by, P
parameters, N ranks, and s messages and n bytes that each rank sends one after another for an
all-reduce of 4·P bytes (`SENT`). log2 N messages are those of the gather of the losses. All-reduces
alone are measured, too, without the overhead of a step. With more ranks than cores, all is
multiplied by ranks / cores, and wait + crowding · rows · M is added. The parameters are those of
least squares of relative errors, none of them negative.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TIME_STEPS, CLASSES, EMBEDDING = 35, 97, 64
SIZES = [(H, B) for H in (64, 128, 256, 512) for B in (4, 16, 32)]  # hidden size, columns of a rank
FLOATS = [1, 20_000, 200_000, 1_000_000]  # of the all-reduces alone
RANKS, TURNS = (1, 2, 4), 4

# By the algorithm: (messages, bytes / size of the array) that a rank sends one after another.
# Thakur, Rabenseifner and Gropp 2005, Optimization of Collective Communication Operations in MPICH;
# the ring: Patarasuk and Yuan 2009, Bandwidth Optimal All-reduce Algorithms for Clusters of
# Workstations. The additions are left out.
SENT: dict[str, Callable[[int], tuple[float, float]]] = {
    "doubling": lambda N: (math.log2(N), math.log2(N)),
    "ring": lambda N: (2 * (N - 1), 2 * (N - 1) / N),
    "halving": lambda N: (2 * math.log2(N), 2 * (N - 1) / N),
}
NAMES = ["fixed", "element", "product", "parameter", "overhead", "latency", "byte"]
NAMES += ["wait", "crowding"]

# The predictions: H, embedding, classes; seconds and bytes a second; seconds, and flops a second.
MODELS = {"0.4 M": (320, 64, 97), "20 M": (2048, 512, 1600), "300 M": (8192, 2048, 4700)}
LINKS = {"10 Gbit/s, 25 µs": (25e-6, 1.25e9), "400 Gbit/s, 2 µs": (2e-6, 50e9)}
ACCELERATOR = (1.5e-3, 20e12)
SETTINGS = [
    ("core", "10 Gbit/s, 25 µs"),
    ("accelerator", "10 Gbit/s, 25 µs"),
    ("accelerator", "400 Gbit/s, 2 µs"),
]
WORLDS = (4, 16, 128, 1024)
COLUMNS = 32  # of a rank, in the predictions


def counts(H: int, D: int, V: int) -> tuple[int, int]:
    """Return M, the elements of the matrices, and P, the number of parameters."""
    matrices = 3 * H * (D + H) + H * V
    return matrices, matrices + V * D + 6 * H + V


# ------------------------------------------------------------------------------------- measuring


def rank_program(sizes: list[list[int]], rounds: int) -> None:
    """Print the least seconds of a step of each size; run by mpiexec."""
    import tinygrad_rnn as tg

    world = tg.distributed.init()
    steps = []
    for H, B in sizes:
        model = tg.models.RecurrentLM(tg.nn.GRUCell, CLASSES, H, embedding_dim=EMBEDDING, rng=0)
        assert sum(p.size for p in model.parameters()) == counts(H, EMBEDDING, CLASSES)[1]
        optimizer = tg.optim.SGD(model.parameters(), lr=0.01)
        parallel = tg.distributed.data_parallel(model, optimizer)
        ids = np.random.default_rng(world.rank).integers(CLASSES, size=(TIME_STEPS, B))
        steps.append((model, optimizer, parallel, tg.tensor(ids)))
    arrays = [np.ones(n, np.float32) for n in FLOATS]
    best = [math.inf] * (len(steps) + len(arrays))
    for _ in range(rounds + 1):  # the first compiles, and is never the least
        for i, (model, optimizer, parallel, x) in enumerate(steps):
            world.meet("round")
            began = time.perf_counter()
            loss = tg.functional.cross_entropy(model(x)[0], x)
            if world.size == 1:
                loss.backward()
            else:
                parallel.backward(loss, x.size)
            optimizer.step()
            optimizer.zero_grad()
            best[i] = min(best[i], max(world.messages.objects(time.perf_counter() - began)))
        for i, array in enumerate(arrays, start=len(steps)):
            array.fill(1)
            world.meet("round")
            began = time.perf_counter()
            world.messages.sum(array)
            best[i] = min(best[i], max(world.messages.objects(time.perf_counter() - began)))
    print(json.dumps(best))


def measure(sizes: list[tuple[int, int]], rounds: int) -> list[dict[str, Any]]:
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        raise SystemExit("mpiexec was not found: pip install 'tinygrad-rnn[mpi]'")
    threads = dict.fromkeys(("TINYGRAD_RNN_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    best: dict[tuple[int, int, int], float] = {}
    for _ in range(TURNS):  # the numbers of ranks take turns, too
        for N in RANKS:
            command = [sys.executable, __file__, "--rank", json.dumps([sizes, rounds])]
            done = subprocess.run(
                [mpiexec, "-n", str(N), *command],
                env=os.environ | threads,
                stdout=subprocess.PIPE,
                text=True,
                timeout=300,
                check=True,
            )
            times = json.loads(done.stdout.split("\n")[-2])
            rows = [(N, H, B) for H, B in sizes] + [(N, n, 0) for n in FLOATS]
            for key, seconds in zip(rows, times, strict=True):
                best[key] = min(best.get(key, math.inf), seconds)
    return [{"N": N, "H": H, "B": B, "seconds": s} for (N, H, B), s in best.items()]


# --------------------------------------------------------------------------------------- the model


def terms(N: int, H: int, D: int, V: int, rows: int, algorithm: str, cores: float) -> Any:
    """Return the factors of the parameters `NAMES` in the time of a step."""
    matrices, parameters = counts(H, D, V)
    messages, share = SENT[algorithm](N)
    step = [1, rows * H, rows * matrices, parameters, float(N > 1)]
    step += [math.log2(N) + messages, share * 4 * parameters]
    crowded = float(N > cores)
    return np.array([max(1, N / cores) * term for term in step] + [crowded, crowded * step[2]])


def fit(results: list[dict[str, Any]], algorithm: str, cores: int) -> Any:
    """Return the parameters, none negative, that minimise the squared relative errors."""
    A = np.array([row(r, algorithm, cores) / r["seconds"] for r in results])
    scale = np.abs(A).max(axis=0) + (A == 0).all(axis=0)
    kept = list(range(len(NAMES)))
    while True:  # drop the most negative one
        found = np.linalg.lstsq(A[:, kept] / scale[kept], np.ones(len(A)), rcond=None)[0]
        if found.min() >= 0:
            break
        kept.pop(int(found.argmin()))
    fitted = np.zeros(len(NAMES))
    fitted[kept] = found / scale[kept]
    return fitted


def row(r: dict[str, Any], algorithm: str, cores: int) -> Any:
    if not r["B"]:  # H floats alone
        messages, share = SENT[algorithm](r["N"])
        return np.array([0, 0, 0, 0, 0, messages, share * 4 * r["H"], 0, 0])
    return terms(r["N"], r["H"], EMBEDDING, CLASSES, r["B"] * TIME_STEPS, algorithm, cores)


def errors(results: list[dict[str, Any]], fitted: Any, algorithm: str, cores: int) -> Any:
    """Return the relative errors of the model."""
    return np.array([row(r, algorithm, cores) @ fitted / r["seconds"] - 1 for r in results])


def parameters(device: str, link: str, fitted: Any) -> Any:
    """Return the parameters of the model for a rank and a link; no ranks share a core."""
    computing = fitted[:5]
    if device == "accelerator":  # 2 flops forward and 4 back for each element of a matrix
        computing = np.array([ACCELERATOR[0], 0, 6 / ACCELERATOR[1], 0, fitted[4]])
    latency, rate = LINKS[link]
    return np.array([*computing, latency, 1 / rate, 0, 0])


def predict(values: Any, model: str, N: int, algorithm: str, columns: float = COLUMNS) -> Any:
    """Return the seconds of computing and overhead, of latency and of bytes of a step."""
    H, D, V = MODELS[model]
    parts = terms(N, H, D, V, int(columns * TIME_STEPS), algorithm, math.inf) * values
    return parts[:5].sum(), parts[5], parts[6]


def efficiency(values: Any, model: str, N: int, algorithm: str, total: int | None = None) -> float:
    """Return the speed of N ranks over N times that of one; `total` columns of all, or 32 each."""
    alone = predict(values, model, 1, algorithm, total or COLUMNS)[0]
    ranks = sum(predict(values, model, N, algorithm, total / N if total else COLUMNS))
    return alone / ranks / (N if total else 1)


# -------------------------------------------------------------------------------------- the report


def report(data: dict[str, Any]) -> tuple[str, Any]:
    """Return the tables, and the parameters."""
    cores = data["cores"]  # ranks that share cores wait for each other, not for messages
    results = [r for r in data["results"] if r["B"] or 1 < r["N"] <= cores]
    algorithm = "halving"  # MPICH's for long arrays
    fitted = fit(results, algorithm, cores)
    wrong = errors(results, fitted, algorithm, cores)
    lines = ["<!-- about -->", "", *(f"- {line}" for line in data["about"]), "", "<!-- end -->", ""]
    lines += [
        "<!-- measured -->",
        "",
        "| hidden | columns of a rank | 1 rank | 2 ranks | 4 ranks |",
    ]
    lines += ["|---:|---:|---:|---:|---:|"]
    by_size: dict[tuple[int, int], list[str]] = {}
    for r, error in zip(results, wrong, strict=True):
        ms = f"{1e3 * r['seconds']:.3g}, {1e3 * r['seconds'] * (1 + error):.3g}"
        by_size.setdefault((r["H"], r["B"]), []).append(ms)
    alone = [f"{4 * n:,} bytes {cells[0]}" for (n, B), cells in by_size.items() if not B]
    lines += [f"| {H} | {B} | {' | '.join(cells)} |" for (H, B), cells in by_size.items() if B]
    lines += ["", f"All-reduces alone, 2 ranks, ms: {'; '.join(alone)}."]
    lines += ["", "<!-- end -->", "", "<!-- fit -->", ""]
    f = dict(zip(NAMES, fitted, strict=True))
    lines += ["| parameter | value |", "|---|---|"]
    lines += [f"| a step, fixed | {1e3 * f['fixed']:.2f} ms |"]
    lines += [f"| a row and an element of the state | {1e9 * f['element']:.2f} ns |"]
    speed = "" if not f["product"] else f", {6e-9 / f['product']:.0f} Gflop/s"
    lines += [f"| a row and an element of a matrix | {1e9 * f['product']:.3f} ns{speed} |"]
    lines += [f"| a parameter: copies, update | {1e9 * f['parameter']:.2f} ns |"]
    lines += [f"| a step of several ranks, fixed | {1e3 * f['overhead']:.2f} ms |"]
    lines += [f"| a message | {1e6 * f['latency']:.1f} µs |"]
    rate = "" if not f["byte"] else f", {1e-9 / f['byte']:.1f} GB/s"
    lines += [f"| a byte | {1e9 * f['byte']:.2f} ns{rate} |"]
    lines += [f"| more ranks than cores: a step | {1e3 * f['wait']:.1f} ms |"]
    crowding = f"{1e9 * f['crowding']:.3f} ns"
    lines += [f"| more ranks than cores: a row and an element of a matrix | {crowding} |"]
    lines += [""]
    pairs = [(r["N"], abs(e)) for r, e in zip(results, wrong, strict=True) if r["B"]]
    wide = {N: [e for n, e in pairs if n == N] for N in RANKS}
    said = ", ".join(f"{N}: {np.median(e):.0%}, {max(e):.0%}" for N, e in wide.items())
    lines += [f"Relative errors, median and greatest, by the number of ranks: {said}."]
    lines += ["", "<!-- end -->", "", "<!-- predictions -->", ""]
    lines += [f"| parameters | a rank, its link | one rank | {' | '.join(map(ranks, WORLDS))} | "]
    lines[-1] += "all-reduce, 1,024 ranks | 1,024 columns in all |"
    lines += ["|---|---|---:|" + "---:|" * (len(WORLDS) + 2)]
    for model in MODELS:
        for device, link in SETTINGS:
            values = parameters(device, link, fitted)
            both = [[efficiency(values, model, N, a) for a in ("ring", "halving")] for N in WORLDS]
            cells = [" / ".join(f"{100 * e:.0f}" for e in pair) for pair in both]
            alone = predict(values, model, 1, "ring")[0]
            _, latency, sending = predict(values, model, WORLDS[-1], "ring")
            fixed = [100 * efficiency(values, model, 1024, a, 1024) for a in ("ring", "halving")]
            lines.append(
                f"| {model} | {device}, {link.split(',')[0]} | {milliseconds(alone)} | "
                f"{' | '.join(cells)} | {milliseconds(latency)} + {milliseconds(sending)} | "
                f"{fixed[0]:.1f} / {fixed[1]:.1f} |"
            )
    lines += ["", "<!-- end -->", ""]
    return "\n".join(lines), fitted


def ranks(N: int) -> str:
    return f"{N:,} ranks"


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.0f} ms" if seconds > 0.01 else f"{1e3 * seconds:.2g} ms"


def plot(file: str, fitted: Any) -> None:
    """Plot the efficiency against the number of ranks, with a panel for each setting."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SystemExit("--plot needs matplotlib: pip install 'tinygrad-rnn[plot]'") from error
    matplotlib.rcParams["svg.hashsalt"] = "scaling"  # the same figures make the same file
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    worlds = [2**i for i in range(11)]
    for axes, (device, link) in zip(figure.subplots(1, 3, sharey=True), SETTINGS, strict=True):
        values = parameters(device, link, fitted)
        for i, model in enumerate(MODELS):
            for algorithm, style in (("ring", "-"), ("halving", "--")):
                y = [100 * efficiency(values, model, N, algorithm) for N in worlds]
                axes.plot(worlds, y, style, color=f"C{i}", label=f"{model}, {algorithm}")
        axes.set_xscale("log", base=2)
        axes.set_xticks(worlds[::2], [f"{N:,}" for N in worlds[::2]])
        axes.set_title(f"{device}\n{link}", fontsize=9)
        axes.set_xlabel("ranks", fontsize=8)
        axes.set_ylim(0, 102)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=7)
    figure.axes[0].set_ylabel("efficiency, %", fontsize=8)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=7)
    figure.savefig(file, metadata={"Date": None} if file.endswith("svg") else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--smoke", action="store_true", help="two small sizes, two rounds")
    for option in ("--json", "--table", "--plot"):
        parser.add_argument(option, metavar="FILE", help="write a file")
    parser.add_argument("--read", metavar="FILE", nargs="+", help="do not measure; read --json's")
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        return rank_program(*json.loads(options.rank))
    if options.read:
        data = merged([json.loads(Path(f).read_text(encoding="utf-8")) for f in options.read])
    else:
        sizes, rounds = ([(8, 2), (16, 4)], 2) if options.smoke else (SIZES, options.rounds)
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        results = measure(sizes, rounds)
        data = {"cores": cores, "results": results, "about": about(cores, rounds)}
    text, fitted = report(data)
    print(text)
    if options.json:
        Path(options.json).write_text(json.dumps(data), encoding="utf-8")
    if options.table:
        Path(options.table).write_text(text, encoding="utf-8")
    if options.plot:
        plot(options.plot, fitted)


def merged(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the least times of several runs on the same machine."""
    least: dict[Any, float] = {}
    for r in (r for run in runs for r in run["results"]):
        key = r["N"], r["H"], r["B"]
        least[key] = min(least.get(key, math.inf), r["seconds"])
    results = [{"N": N, "H": H, "B": B, "seconds": s} for (N, H, B), s in least.items()]
    lines = list(dict.fromkeys(line for run in runs for line in run["about"]))
    return {"cores": runs[0]["cores"], "results": results, "about": [*lines, f"runs: {len(runs)}"]}


def about(cores: int, rounds: int) -> list[str]:
    return [
        f"machine: {cores} cores, {platform.system()}; Python {platform.python_version()}, "
        f"NumPy {np.__version__}",
        f"a run: the least of {TURNS * rounds} steps, {TIME_STEPS} time steps, one thread a rank",
    ]


if __name__ == "__main__":
    main()
