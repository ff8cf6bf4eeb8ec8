"""The forecast of examples/forecast.py, here and in PyTorch: test error and time of an epoch.

    python benchmarks/forecast.py [--seeds 10] [--epochs 12] [--own]

Both train the same network (a GRU of 32 units and a linear layer) with Adam on the same batches in
the same order, and keep the weights of the epoch with the least validation loss. Both start from
the same weights: those that we draw for an even seed, and PyTorch for an odd one. The losses of the
first epoch must agree, and the rest of a difference is rounding. With --own each draws its own
initial weights from the seed, from the same distribution, uniform up to 1 / √32; a difference then
is mostly that between two draws.

The epochs of the two take turns in one process. Errors are root mean squared errors on the test
data, with the standard error of their mean; a time is the median over the epochs, of which
validation is a part.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import tinygrad_rnn as tg

WEEK, LOOK_BACK, AHEAD, HIDDEN, BATCH, RATE = 168, 48, 24, 32, 32, 0.01
Array = np.ndarray[Any, Any]


class Data(NamedTuple):
    """Windows: inputs (N, 48, 5), and the load (N, 24, 1) that follows; standardised."""

    train: tuple[Array, Array]
    valid: tuple[Array, Array]
    test: tuple[Array, Array]
    unit: float  # the standard deviation of the load
    naive: float  # the error of the load a week ago, in its unit


def data() -> Data:
    """Return the data of the example."""
    hours, train, test = np.arange(20 * WEEK), 14 * WEEK, 17 * WEEK
    angles = 2 * np.pi * hours[:, None] / [24, WEEK]
    load = 100 + hours / 500 + 20 * np.sin(angles[:, 0]) - 15 * (hours % WEEK >= 120)
    load = np.random.default_rng(0).normal(load, 4)
    series = np.column_stack([load, np.sin(angles), np.cos(angles)])
    scaled = tg.data.Scaler(5).fit(series[:train])(series).numpy()

    def cut(start: int, stop: int | None) -> tuple[Array, Array]:
        x, y = tg.data.windows(scaled[start:stop], LOOK_BACK, AHEAD)
        return np.ascontiguousarray(x), np.ascontiguousarray(y[:, :, :1])

    parts = cut(0, train), cut(train - LOOK_BACK, test), cut(test - LOOK_BACK, None)
    change = load[test:] - load[test - WEEK : -WEEK]
    naive = np.sqrt(np.mean(tg.data.windows(change, 1, AHEAD - 1)[1] ** 2))
    return Data(*parts, float(series[:train, 0].std()), float(naive))


class Ours:
    """The model of the library, trained by `fit`, one epoch at a time."""

    def __init__(self, problem: Data, seed: int) -> None:
        self.problem = problem
        self.model = tg.models.Forecaster(tg.nn.GRUCell, 5, HIDDEN, AHEAD, num_targets=1, rng=seed)
        self.optimizer = tg.optim.Adam(self.model.parameters(), lr=RATE)
        self.stream = tg.data.batches(*problem.train, batch_size=BATCH, rng=seed)

    def epoch(self) -> tuple[float, float]:
        history = tg.fit(
            self.model,
            self.stream,
            loss=tg.functional.mse_loss,
            optimizer=self.optimizer,
            epochs=1,
            valid=[self.problem.valid],
        )
        return history[0]["loss"], history[0]["valid_loss"]

    def error(self) -> float:
        x, y = self.problem.test
        return float(np.sqrt(np.mean((self.model.predict(x) - y) ** 2)))


class Theirs:
    """The same in PyTorch, as a loop; batches are rows of one tensor, which is the fastest way."""

    def __init__(self, problem: Data, seed: int) -> None:
        import torch

        self.torch, self.mse = torch, torch.nn.functional.mse_loss
        torch.manual_seed(seed)
        self.rnn = torch.nn.GRU(5, HIDDEN, batch_first=True)
        self.head = torch.nn.Linear(HIDDEN, AHEAD)
        self.model = torch.nn.ModuleList([self.rnn, self.head])
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=RATE)
        self.rng = tg.random.generator(seed)  # the orders of `tg.data.batches`
        self.parts = [[torch.from_numpy(a) for a in part] for part in problem[:3]]

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x)[1][-1])[:, :, None]

    def epoch(self) -> tuple[float, float]:
        (x, y), (x_valid, y_valid), _ = self.parts
        total = 0.0
        for rows in self.torch.from_numpy(self.rng.permutation(len(x))).split(BATCH):
            self.optimizer.zero_grad()
            loss = self.mse(self.forward(x[rows]), y[rows])
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(rows)
        with self.torch.no_grad():
            return total / len(x), self.mse(self.forward(x_valid), y_valid).item()

    def error(self) -> float:
        x, y = self.parts[2]
        with self.torch.no_grad():
            return float(self.mse(self.forward(x), y)) ** 0.5

    def share(self, ours: Ours, take: bool) -> None:
        """Take the initial weights of our model, or copy these to it."""
        for own, other in zip(self.model.parameters(), ours.model.parameters(), strict=True):
            if take:
                own.data.copy_(self.torch.from_numpy(other.numpy().copy()))
            else:
                other.data = own.detach().numpy().copy()


PEERS: dict[str, Callable[..., Any]] = {"ours": Ours, "PyTorch": Theirs}


def threads(number: int) -> None:
    import torch

    tg.set_num_threads(number)
    torch.set_num_threads(number)


def train(problem: Data, seed: int, epochs: int, own: bool) -> dict[str, Any]:
    """Train both; return the test errors, the losses of the first epoch, and the times."""
    models = {name: peer(problem, seed) for name, peer in PEERS.items()}
    if not own:
        models["PyTorch"].share(models["ours"], take=seed % 2 == 0)
    best: dict[str, tuple[float, Any]] = dict.fromkeys(models, (math.inf, None))
    times: dict[str, list[float]] = {name: [] for name in models}
    first = {}
    for epoch in range(epochs):
        for name in models if epoch % 2 else reversed(models):
            start = time.perf_counter()
            loss, valid = models[name].epoch()
            times[name].append(time.perf_counter() - start)
            first.setdefault(name, loss)
            if valid < best[name][0]:
                best[name] = valid, copy.deepcopy(models[name].model.state_dict())
    errors = {}
    for name, model in models.items():
        model.model.load_state_dict(best[name][1])
        errors[name] = model.error() * problem.unit
    return {"errors": errors, "first": first, "times": times}


def mean(values: Sequence[float]) -> str:
    """Return a mean with its standard error."""
    spread = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):.4f} ± {spread:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="A forecast, here and in PyTorch.")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--timed", type=int, default=5, help="epochs that are timed on two threads")
    parser.add_argument("--own", action="store_true", help="each draws its own initial weights")
    options = parser.parse_args()
    problem = data()

    threads(1)
    runs = []
    for seed in range(options.seeds):
        run = train(problem, seed, options.epochs, options.own)
        runs.append(run)
        errors = ", ".join(f"{name} {error:.3f}" for name, error in run["errors"].items())
        print(f"seed {seed}: {errors}", flush=True)
        if not options.own:
            assert math.isclose(*run["first"].values(), rel_tol=1e-3), run["first"]
    found = {name: [run["errors"][name] for run in runs] for name in PEERS}
    for name, values in found.items():
        print(f"{name:8} test error {mean(values)}")
    pairs = zip(found["ours"], found["PyTorch"], strict=True)
    print(f"ours - PyTorch        {mean([a - b for a, b in pairs])}")
    print(f"a week ago            {problem.naive:.3f}")

    timed = {1: {name: [t for run in runs for t in run["times"][name]] for name in PEERS}}
    if options.timed:
        threads(2)
        timed[2] = train(problem, 0, options.timed, options.own)["times"]
    for number, times in timed.items():
        middle = {name: statistics.median(values) for name, values in times.items()}
        shown = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in middle.items())
        ratio = middle["PyTorch"] / middle["ours"]
        print(f"an epoch, threads {number}: {shown}, ratio {ratio:.1f}")


if __name__ == "__main__":
    main()
