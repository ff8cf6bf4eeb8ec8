"""The same training step of a character model, measured in several libraries.

    python benchmarks/compare.py                                    # everything: an hour or two
    python benchmarks/compare.py --cells lstm --peers ours pytorch --sizes 35,32,28,256
    python benchmarks/compare.py --check                            # do all compute the same?

The step is that of `steps.py`, for the cells of `cells.py` and `peer_cells.py`, in float32. Two
thread pools for matrix products in one process disturb each other, so every peer has a process of
its own; they are measured in turns, A, B, C, A, B, C ..., and a reported ratio is the median of the
ratios of the turns. A turn in which other programs used the processors is repeated, up to --tries
times, and the report has their usage. OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE are removed from the
environment, since they can pin NumPy's OpenBLAS to slower kernels.

The report has

- milliseconds of a step, the median over a turn, then over the turns; tokens a second, T B a step;
- GFLOP/s of the matrix products of the forward pass, 2 T B (V G H + G H² + H V) with G blocks of H
  rows in the cell's matrices, times three for the backward pass (a product has two gradients);
- this rate over that of `a @ b` for 2048 × 2048 float32 in NumPy, measured in the same turns;
- peak memory: the largest growth of the process in its first three steps (VmHWM after them less
  VmRSS before, on Linux; NumPy's, PyTorch's and XLA's memory alike). It contains the gradients, not
  the parameters. A step of a tiny model and compilation (JAX) precede it; torch.compile compiles at
  the first call, so it has no figure.

A peer whose first loss differs from the others' is an error. The report gives the reason why a peer
could not run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import steps
from peer_cells import PEER_CELLS

Size = tuple[int, int, int, int]
Result = dict[str, Any]
Figures = dict[tuple[str, str], dict[str, str]]  # by size and cell, then by library

SIZES: list[Size] = [
    (35, 32, 28, 256),
    (50, 50, 65, 128),
    (100, 64, 65, 512),
    (100, 1, 28, 64),
    (256, 16, 65, 256),
]
SMALL: Size = (6, 3, 7, 8)  # for --check and --smoke
GATES = {  # blocks of H rows in the matrices for the input, and for the state
    "rnn": (1, 1),
    "gru": (3, 3),
    "lstm": (4, 4),
    "peephole": (4, 4),
    "layernorm": (4, 4),
    "mgu": (2, 2),
    "highway": (2, 4),
    "indrnn": (1, 0),
    "memories": (4, 4),
    "layernorm-mgu": (2, 2),
}
TITLES = {
    "rnn": "RNN",
    "gru": "GRU",
    "lstm": "LSTM",
    "peephole": "peephole LSTM",
    "layernorm": "LayerNorm-LSTM",
    "mgu": "minimal gated unit",
    "highway": "recurrent highway network",
    "indrnn": "independently recurrent",
    "memories": "LSTM with two memories",
    "layernorm-mgu": "LayerNorm-MGU",
}
LABELS = {
    "ours": "ours, built in",
    "ours-numpy": "the same, NumPy",
    "user": "ours, user's cell",
    "user-numpy": "user's, NumPy",
    "pytorch": "PyTorch, built in",
    "pytorch-user": "PyTorch, user's cell",
    "pytorch-compile-step": "user's, step under torch.compile",
    "pytorch-compile-loop": "user's, loop under torch.compile",
    "jax": "JAX, jit and scan",
    "mygrad": "MyGrad",
    "autograd": "HIPS autograd",
}
BUILT_IN = {LABELS[peer] for peer in ("ours", "ours-numpy", "pytorch")}
MILLISECONDS = "Milliseconds a step"
SPACE = "\u00a0"  # a size takes one line of its table
TOLERANCE = 1e-4
QUIET = 0.15  # processors that other programs may use while a turn counts as undisturbed


class Failed(Exception):
    """A peer could not run; the message is the reason."""


# ----------------------------------------------------------------------------- in the child process


def serve(peer: str, folder: str, threads: int) -> None:
    """Answer the requests on the standard input, each with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library's output must not mix with the answers
    if hasattr(os, "sched_setaffinity"):  # the one limit that all libraries respect
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    try:
        server = Rate() if peer == "rate" else Peer(peer, folder, threads)
        answer: Any = "ready"
        while True:
            print(json.dumps({"answer": answer}), file=answers, flush=True)
            request = sys.stdin.readline().split()
            if not request:
                break
            before = time.process_time()
            answer = getattr(server, request[0])(*request[1:])
            if request[0] == "time":
                answer = answer, time.process_time() - before
    except Exception as error:
        reason = (str(error).strip() or "no message").splitlines()[0]
        if not isinstance(error, steps.Unavailable):
            reason = f"{type(error).__name__}: {reason}"
        print(json.dumps({"error": reason}), file=answers, flush=True)
        raise SystemExit(1) from error


def load(file: str, threads: int) -> steps.Problem:
    with np.load(file) as arrays:
        start = {name: arrays[name] for name in arrays if name not in ("cell", "x", "y")}
        return steps.Problem(str(arrays["cell"]), start, arrays["x"], arrays["y"], threads)


def save(file: str, problem: steps.Problem) -> None:
    np.savez(file, cell=np.array(problem.cell), x=problem.x, y=problem.y, **problem.start)


class Peer:
    """The requests to a trainer."""

    def __init__(self, peer: str, folder: str, threads: int) -> None:
        self.measured = "compile" not in peer  # its memory would be mostly the compiler's
        if self.measured:  # loads and allocates everything that a library needs only once
            small = steps.PEERS[peer](load(f"{folder}/small.npz", threads))
            small.compile()
            small.step()
        self.trainer = steps.PEERS[peer](load(f"{folder}/problem.npz", threads))

    def first(self, seconds: str) -> dict[str, Any]:
        """Return the first loss, and the peak memory of the first three steps in bytes."""
        self.trainer.compile()
        before = resident("VmRSS", reset=True)
        start = time.perf_counter()
        loss = self.trainer.step()
        loss = float(loss.item() if hasattr(loss, "item") else loss)
        for _ in range(2):
            if time.perf_counter() - start < 3 * float(seconds):
                self.trainer.step()
        after = resident("VmHWM")
        known = self.measured and before is not None and after is not None
        return {"loss": loss, "bytes": after - before if known else None}

    def time(self, seconds: str) -> float:
        """Return the median time of a step, in milliseconds, measured for some seconds."""
        step, clock = self.trainer.step, time.perf_counter
        warm = clock() + 0.2 * float(seconds)
        step()
        while clock() < warm:
            step()
        times: list[float] = []
        start = clock()
        while clock() < start + float(seconds) or (
            len(times) < 3 and clock() < start + 5 * float(seconds)
        ):
            before = clock()
            step()
            times.append(clock() - before)
        return 1e3 * statistics.median(times)

    def check(self, file: str) -> None:
        """Write the loss, its gradients, and the parameters after three steps that all clip."""
        steps.NORM = 0.05
        loss, gradients = self.trainer.gradients()
        for _ in range(3):
            self.trainer.step()
        parameters = self.trainer.parameters()
        np.savez(
            file,
            loss=np.float64(loss),
            **{f"gradient {name}": value for name, value in gradients.items()},
            **{f"parameter {name}": value for name, value in parameters.items()},
        )


class Rate:
    """The rate of NumPy's matrix product."""

    def __init__(self, n: int = 2048) -> None:
        self.a, self.b = np.random.default_rng(0).random((2, n, n), dtype=np.float32)
        self.out = self.a @ self.b

    def time(self, seconds: str) -> float:
        """Return the best rate, in GFLOP/s, over some seconds and at least three products."""
        best, count, end = math.inf, 0, time.perf_counter() + float(seconds)
        while time.perf_counter() < end or count < 3:
            start = time.perf_counter()
            np.matmul(self.a, self.b, out=self.out)
            best, count = min(best, time.perf_counter() - start), count + 1
        return 2 * len(self.a) ** 3 / best / 1e9

    def kernel(self) -> str:
        """Return the BLAS, its kernel and its number of threads."""
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        try:
            from threadpoolctl import threadpool_info
        except ImportError:
            return f"{blas['name']} {blas['version']} (kernel unknown without threadpoolctl)"
        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        return "; ".join(
            f"{pool['internal_api']} {pool['version']}, kernel {pool.get('architecture')}, "
            f"{pool['num_threads']} threads"
            for pool in pools
        )


def busy() -> float:
    """Return the processor time of all programs, in seconds; 0 where it is unknown."""
    try:
        figures = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return 0.0
    user, nice, system, _, _, interrupts, soft, steal = map(int, figures)
    return (user + nice + system + interrupts + soft + steal) / os.sysconf("SC_CLK_TCK")


def resident(key: str, reset: bool = False) -> int | None:
    """Return a figure of this process's resident memory, in bytes; None if unknown."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return 1024 * int(status.split(f"{key}:")[1].split()[0])


# ---------------------------------------------------------------------------- in the parent process


class Child:
    """A peer in a process of its own."""

    def __init__(self, peer: str, folder: str, options: argparse.Namespace) -> None:
        hidden = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[name] = str(options.threads)
        environment["TORCHINDUCTOR_COMPILE_THREADS"] = (
            "1"  # otherwise its worker processes would remain
        )
        command = [sys.executable, __file__, "--child", peer, "--folder", folder]
        command += ["--threads", str(options.threads)]
        self.limit = options.limit
        self.errors = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        try:
            self.answer()
        except Failed:
            self.close()
            raise

    def time(self, seconds: float, tries: int) -> tuple[float, float]:
        """Return the answer to a turn, and the processors that other programs used during it.

        One other program slows down two threads that synchronise at every product many times over.
        So a disturbed turn is repeated, and the least disturbed one is taken.
        """
        found = []
        for _ in range(tries):
            before, start = busy(), time.perf_counter()
            value, own = self.ask("time", seconds)
            wall = time.perf_counter() - start
            others = max(0.0, (busy() - before - own) / wall)
            found.append((others, value))
            if others < QUIET:
                break
            time.sleep(seconds)
        others, value = min(found)
        return value, others

    def ask(self, *request: object) -> Any:
        assert self.process.stdin is not None
        try:
            print(*request, file=self.process.stdin, flush=True)
        except OSError:
            pass  # the process has ended: `answer` raises with the reason
        return self.answer()

    def answer(self) -> Any:
        late: list[bool] = []

        def end() -> None:
            late.append(True)
            self.process.kill()

        assert self.process.stdout is not None
        timer = threading.Timer(self.limit, end)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if late:
            raise Failed(f"no answer within {self.limit:g} s")
        if not line:
            self.errors.seek(0)
            output = self.errors.read().strip().splitlines() or ["no message"]
            raise Failed(f"ended with {self.process.wait()}: {output[-1]}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["answer"]

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            try:
                stream.close()
            except OSError:
                pass  # a request is still in the buffer


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return facts about the machine, and a result for every cell, size and peer."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        rate = Child("rate", folder, options)
        try:
            about = machine(options, rate.ask("kernel"))
            for key, value in about.items():
                print(f"{key}: {value}")
            for size in options.sizes:
                for cell in options.cells:
                    write(folder, cell, size)
                    found = turns(cell, size, folder, rate, options)
                    results += found
                    for line in lines(found):
                        print(line, flush=True)
        except KeyboardInterrupt:
            print("\ninterrupted: the summary has the finished measurements only")
        finally:
            rate.close()
    shares = [result["others"] for result in results if result["ms"]]
    about["other programs"] = (
        f"used up to {max(shares, default=0.0):.1f} processors in the most disturbed turn; "
        f"{sum(x >= QUIET for x in shares)} of {len(shares)} results had a turn above {QUIET}"
    )
    print(f"\nother programs {about['other programs']}")
    return {"about": about, "results": results}


def write(folder: str, cell: str, size: Size) -> None:
    save(f"{folder}/problem.npz", steps.problem(cell, size))
    save(f"{folder}/small.npz", steps.problem(cell, SMALL))


def turns(
    cell: str, size: Size, folder: str, rate: Child, options: argparse.Namespace
) -> list[Result]:
    """Measure all peers on one problem, in turns."""
    results: dict[str, Result] = {}
    children: dict[str, Child] = {}
    rates = []
    try:
        for peer in options.peers:
            results[peer] = {"cell": cell, "size": size, "peer": peer, "ms": [], "bytes": None}
            try:
                children[peer] = Child(peer, folder, options)
                results[peer].update(children[peer].ask("first", options.seconds))
            except Failed as error:
                fail(peer, str(error), results, children)
        losses = [r["loss"] for r in results.values() if "loss" in r]
        for peer in list(children):
            middle, loss = statistics.median_low(losses), results[peer]["loss"]
            if not abs(loss - middle) <= TOLERANCE * abs(middle):
                fail(peer, f"its loss is {loss}, the others' {middle}", results, children)
        for _ in range(options.rounds):
            rates.append(rate.time(min(options.seconds, 0.3), options.tries)[0])
            for peer in list(children):
                times = results[peer]["ms"]
                if times and times[0] > 1000 * options.seconds:
                    continue  # one turn of such a slow peer is enough
                try:
                    spent, others = children[peer].time(options.seconds, options.tries)
                    times.append(spent)
                    results[peer]["others"] = max(others, results[peer].get("others", 0.0))
                except Failed as error:
                    fail(peer, str(error), results, children)
    finally:
        for child in children.values():
            child.close()
    for result in results.values():
        result["rates"] = rates
    return list(results.values())


def fail(peer: str, reason: str, results: dict[str, Result], children: dict[str, Child]) -> None:
    results[peer].update(error=reason, ms=[])
    if peer in children:
        children.pop(peer).close()


def machine(options: argparse.Namespace, kernel: str) -> dict[str, str]:
    """Return the facts about the machine and the versions that the figures depend on."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [s for s in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in s]
        model = names[0].split(":")[1].strip() if names else model
    versions = []
    for package in ("numpy", "torch", "jax", "mygrad", "autograd"):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    return {
        "processor": f"{model}, {platform.system()}, threads: {options.threads}",
        "matrix products of NumPy": kernel,
        "versions": f"Python {platform.python_version()}, " + ", ".join(versions),
        "measured": f"{options.rounds} turns of {options.seconds:g} s, float32",
    }


# ------------------------------------------------------------------------------------------ figures


def flops(cell: str, size: Iterable[int]) -> int:
    T, B, V, H = size
    of_input, of_state = GATES[cell]
    return 3 * 2 * T * B * (V * of_input * H + of_state * H * H + H * V)


def milliseconds(result: Result) -> float:
    return statistics.median(result["ms"])


def gflops(result: Result) -> float:
    return flops(result["cell"], result["size"]) / milliseconds(result) / 1e6


def tokens(result: Result) -> float:
    """Return the tokens a second, in thousands."""
    T, B, _, _ = result["size"]
    return T * B / milliseconds(result)


def share(result: Result) -> float:
    return gflops(result) / statistics.median(result["rates"])


def ratio(above: Result, below: Result) -> float:
    """Return the median over the turns of the ratio of two peers' times."""
    return statistics.median(a / b for a, b in zip(above["ms"], below["ms"], strict=False))


def lines(results: list[Result]) -> list[str]:
    """Return the lines that report one problem."""
    first = results[0]
    rate = statistics.median(first["rates"])
    report = [
        f"\n{TITLES[first['cell']]}, T, B, V, H = {tuple(first['size'])}; "
        f"2048³ at {rate:.0f} GFLOP/s"
    ]
    base = next((r for r in results if r["ms"]), None)
    for r in results:
        if not r["ms"]:
            report.append(f"  {r['peer']:21} n/a: {r['error']}")
            continue
        memory = "" if r["bytes"] is None else f"{r['bytes'] / 2**20:8.1f} MiB"
        report.append(
            f"  {r['peer']:21}{milliseconds(r):10.2f} ms {tokens(r):9.1f} k tokens/s "
            f"{gflops(r):7.1f} GFLOP/s {share(r):5.0%} {memory:12}  x {ratio(r, base):.2f}"
        )
    return report


def summary(results: list[Result]) -> list[tuple[str, ...]]:
    """Return the geometric mean of each ratio of interest, its least and its greatest value."""
    table: dict[tuple[str, tuple[int, ...]], dict[str, Result]] = {}
    for r in results:
        if r["ms"]:
            table.setdefault((r["cell"], tuple(r["size"])), {})[r["peer"]] = r
    rows: list[tuple[str, ...]] = []

    def row(title: str, above: str, below: Iterable[str], keep: Any = lambda cell, size: True):
        found = []
        for (cell, size), peers in table.items():
            mine = next((peers[name] for name in below if name in peers), None)
            if above in peers and mine is not None and keep(cell, size):
                found.append(ratio(peers[above], mine))
        if found:
            mean = statistics.geometric_mean(found)
            figures = [f"{x:.2f}" for x in (mean, min(found), max(found))]
            rows.append((title, *figures, str(len(found))))

    for extra, how in {"": "", "-numpy": " on NumPy"}.items():
        row(f"PyTorch built in / ours built in{how}", "pytorch", [f"ours{extra}"])
        row(f"PyTorch user's cell / our user's cell{how}", "pytorch-user", [f"user{extra}"])
        row(
            f"user's LSTM / nn.LSTM, both ours{how}",
            f"user{extra}",
            [f"ours{extra}"],
            lambda cell, size: cell == "lstm",
        )
        for when, keep in {
            "B > 1": lambda cell, size: size[1] > 1,
            "B = 1": lambda cell, size: size[1] == 1,
        }.items():
            row(f"JAX / ours{how}, {when}", "jax", [f"ours{extra}", f"user{extra}"], keep)
    return rows


# ------------------------------------------------------------------------------ tables and pictures


def markdown(measured: dict[str, Any]) -> str:
    """Return the tables of the pages on speed, as Markdown."""
    results = measured["results"]
    texts = {
        MILLISECONDS: lambda r: f"{milliseconds(r):.3g}",
        "Thousands of tokens a second": lambda r: f"{tokens(r):.3g}",
        "GFLOP/s, and the share of the rate of NumPy's matrix product": lambda r: (
            f"{gflops(r):.0f} ({share(r):.0%})"
        ),
        "Peak memory of a step, MiB": lambda r: (
            "" if r["bytes"] is None else f"{r['bytes'] / 2**20:.0f}"
        ),
    }
    figures: dict[str, Figures] = {title: {} for title in texts}
    missing: dict[tuple[str, str], int] = {}
    for r in results:
        if not r["ms"]:
            key = LABELS[r["peer"]], r["error"].replace("<", "&lt;")
            missing[key] = missing.get(key, 0) + 1
            continue
        for title, text in texts.items():
            problem = f",{SPACE}".join(map(str, r["size"])), TITLES[r["cell"]]
            figures[title].setdefault(problem, {})[LABELS[r["peer"]]] = text(r)
    left_out = [f"- {peer}, {n} problems: {why}" for (peer, why), n in missing.items()]
    return layout(measured["about"], summary(results), figures, left_out)


def layout(
    about: dict[str, str],
    ratios: Iterable[Iterable[str]],
    figures: dict[str, Figures],
    left_out: list[str],
) -> str:
    """Return the parts that the pages include, each between a comment with its name and an end.

    The times of the built-in cells are open, those of the others and the other figures are folded.
    """
    head = ["time of the first / time of the second", "geometric mean", "least", "greatest", "of"]
    times = figures[MILLISECONDS]
    built_in, others = [], []
    for cell in dict.fromkeys(cell for _, cell in times):
        rows = {size: peers for (size, c), peers in times.items() if c == cell}
        layer = any(label in peers for peers in rows.values() for label in BUILT_IN)
        if layer:
            built_in += [f"**{cell}**", "", *pivot("T, B, V, H", rows), ""]
        else:
            others += folded(cell, pivot("T, B, V, H", rows))
    every: list[str] = []
    for title, values in figures.items():
        if title == MILLISECONDS:
            continue
        every += [f"## {title}", ""]
        for size in dict.fromkeys(size for size, _ in values):
            rows = {cell: peers for (s, cell), peers in values.items() if s == size}
            every += folded(f"T, B, V, H = {size}", pivot("cell", rows))
    if left_out:
        every += ["## Left out", "", *left_out, ""]
    parts = {
        "about": [*(f"- {key}: {value}" for key, value in about.items()), ""],
        "ratios": [*rows_of(head, ratios), ""],
        "built in": built_in,
        "others": others,
        "every figure": every,
    }
    text = [f"<!-- {name} -->\n\n{chr(10).join(lines)}\n" for name, lines in parts.items()]
    return "<!-- end -->\n\n".join(text) + "<!-- end -->\n"


def pivot(corner: str, rows: dict[str, dict[str, str]]) -> list[str]:
    """Return a table with a column for each library that has a figure."""
    shown = [label for label in LABELS.values() if any(label in row for row in rows.values())]
    body = ((name, *(row.get(label, "") for label in shown)) for name, row in rows.items())
    return rows_of([corner, *shown], body)


def folded(title: str, lines: list[str]) -> list[str]:
    """Return lines that a page shows after a click."""
    return [f"<details><summary>{title}</summary>", "", *lines, "", "</details>", ""]


def rows_of(head: list[str], body: Iterable[Iterable[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *body)]


def plot(file: str, measured: dict[str, Any]) -> None:
    """Plot the milliseconds, with a panel for each size."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullLocator
    except ImportError as error:
        raise SystemExit("--plot needs matplotlib: pip install 'tinygrad-rnn[plot]'") from error
    matplotlib.rcParams["svg.hashsalt"] = "speed"  # the same figures make the same file
    results = [r for r in measured["results"] if r["ms"]]
    sizes = list(dict.fromkeys(tuple(r["size"]) for r in results))
    cells = list(dict.fromkeys(r["cell"] for r in results))
    peers = [p for p in LABELS if any(r["peer"] == p for r in results)]
    colours = matplotlib.colormaps["tab20"].colors
    figure = Figure(figsize=(9, 2.9 * math.ceil(len(sizes) / 2) + 0.6), layout="constrained")
    panels = figure.subplots(math.ceil(len(sizes) / 2), 2, squeeze=False).ravel()
    for axes, size in zip(panels, sizes, strict=False):
        measured_here = {r["cell"] for r in results if tuple(r["size"]) == size}
        here = [cell for cell in cells if cell in measured_here]
        for i, peer in enumerate(peers):
            points = [(here.index(r["cell"]), milliseconds(r)) for r in results
                      if r["peer"] == peer and tuple(r["size"]) == size]  # fmt: skip
            mine = peer.startswith(("ours", "user"))
            x = [cell + 0.6 * (i / max(len(peers) - 1, 1) - 0.5) for cell, _ in points]
            axes.plot(x, [ms for _, ms in points], "D" if mine else "o", ms=5 if mine else 4,
                      color=colours[i % 20], label=LABELS[peer])  # fmt: skip
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xticks(range(len(here)), [TITLES[c] for c in here], rotation=35, ha="right")
        axes.tick_params(labelsize=7)
        axes.set_title("T, B, V, H = " + ", ".join(map(str, size)), fontsize=9)
        axes.set_ylabel("ms a step", fontsize=8)
    for axes in panels[len(sizes) :]:
        axes.axis("off")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7)
    figure.savefig(file, metadata={"Date": None} if file.endswith("svg") else None)


# ---------------------------------------------------------------------------------------- the check


def check(options: argparse.Namespace) -> int:
    """Compare losses, gradients and trained parameters of all peers; return how many differ."""
    wrong = 0
    for size in options.sizes:
        for cell in options.cells:
            with tempfile.TemporaryDirectory() as folder:
                write(folder, cell, size)
                found: dict[str, dict[str, np.ndarray]] = {}
                for peer in options.peers:
                    answer = f"{folder}/{peer}.npz"
                    try:
                        child = Child(peer, folder, options)
                    except Failed as error:
                        print(f"{cell:10} {peer:21} n/a: {error}")
                        continue
                    try:
                        child.ask("check", answer)
                        with np.load(answer) as arrays:
                            found[peer] = dict(arrays)
                    except Failed as error:
                        wrong += 1
                        print(f"{cell:10} {peer:21} FAILED: {error}")
                    finally:
                        child.close()
            for peer, mine in found.items():
                worst, name = differ(cell, peer, mine, found)
                fine = worst <= TOLERANCE
                wrong += not fine
                print(
                    f"{cell:10} {peer:21} {'equal to' if fine else 'DIFFERS by'} {worst:.1e} "
                    f"({name})"
                )
    return wrong


def differ(
    cell: str, peer: str, mine: steps.Arrays, found: dict[str, steps.Arrays]
) -> tuple[float, str]:
    """Return the greatest difference from the first peer, relative to the greatest element."""
    # With a redundant second bias, the sum of both trains twice as fast: compare like with like.
    doubled = {"pytorch", *(name for name in found if name.startswith("ours"))}
    alike = next(other for other in found if (other in doubled) == (peer in doubled))
    reference = next(iter(found.values()))
    reference = {
        name: (found[alike] if name.startswith("parameter") else reference)[name]
        for name in reference
    }
    worst = (0.0, "loss")
    for name, value in reference.items():
        if name != "loss" and mine[name].dtype != np.float32:
            return math.inf, f"{name} is {mine[name].dtype}"
        scale = np.abs(value).max() or 1.0
        worst = max(worst, (float(np.abs(mine[name] - value).max() / scale), name))
    return worst


# ------------------------------------------------------------------------------------------ options


def size_of(text: str) -> Size:
    T, B, V, H = map(int, text.split(","))
    return T, B, V, H


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument("--sizes", nargs="+", type=size_of, metavar="T,B,V,H")
    parser.add_argument("--cells", nargs="+", choices=list(PEER_CELLS), default=list(PEER_CELLS))
    parser.add_argument("--peers", nargs="+", choices=list(steps.PEERS), default=list(LABELS))
    parser.add_argument("--rounds", type=int, default=5, help="turns of every peer")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument("--tries", type=int, default=5, help="repetitions of a disturbed turn")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds to wait for an answer")
    parser.add_argument("--threads", type=int, default=cores)
    parser.add_argument("--check", action="store_true", help="compare values instead of times")
    parser.add_argument("--smoke", action="store_true", help="a tiny size, one short turn")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    parser.add_argument(
        "--read", metavar="FILE", help="read the figures from this file instead of measuring"
    )
    parser.add_argument("--table", metavar="FILE", help="write the tables, as Markdown")
    parser.add_argument("--plot", metavar="FILE", help="plot the times (extra plot)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.peers = list(dict.fromkeys(options.peers))
    if options.smoke:
        options.rounds, options.seconds, options.tries = 1, 0.01, 1
    if options.sizes is None:
        options.sizes = [SMALL] if options.smoke or options.check else SIZES
    return options


def main() -> int:
    options = parse()
    if options.child:
        serve(options.child, options.folder, options.threads)
        return 0
    if options.check:
        return int(check(options) > 0)
    measured = json.loads(Path(options.read).read_text()) if options.read else measure(options)
    print("\nratios of times: geometric mean, least, greatest, of how many")
    for title, *figures in summary(measured["results"]):
        print(f"  {title:60}", *(f"{figure:>8}" for figure in figures))
    if options.json:
        Path(options.json).write_text(json.dumps(measured, indent=1), encoding="utf-8")
    if options.table:
        Path(options.table).write_text(markdown(measured), encoding="utf-8")
    if options.plot:
        plot(options.plot, measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
