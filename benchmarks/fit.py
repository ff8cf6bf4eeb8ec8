"""The cost of `fit` over the same training loop written by hand.

    python benchmarks/fit.py [--rounds 10] [--steps 20] [--setups 5]

An LSTM language model on windows of a stream, with the state carried, clipping, and every loss read
(the loop by hand does the same); and the plainest loop, which neither clips nor reads the loss. The
runs of some steps take turns, on one thread and on the same arrays, since the place of an array in
memory changes the time of a step by one or two percent. A figure is the least CPU time of a step,
since other programs can only add to it, and the mean of those for several sets of arrays.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_rnn as tg

SIZES = {"batch 32, hidden 256": (32, 256, 35), "batch 1, hidden 8": (1, 8, 5)}


class Setup:
    """A model, its optimizer, and the windows of an epoch."""

    def __init__(self, batch: int, hidden: int, steps: int, count: int) -> None:
        tg.manual_seed(0)
        ids = np.arange(batch * steps * (count + 1) + steps) * 7 % 97
        self.model = tg.models.RecurrentLM(tg.nn.LSTMCell, 97, hidden, embedding_dim=hidden // 2)
        self.optimizer = tg.optim.Adam(self.model.parameters(), lr=1e-3)
        self.stream = tg.data.text.sequential(ids, batch, steps, rng=0)


def with_fit(setup: Setup) -> None:
    tg.fit(
        setup.model,
        setup.stream,
        loss=tg.functional.cross_entropy,
        optimizer=setup.optimizer,
        epochs=1,
        callbacks=[tg.training.ClipNorm(1.0)],
    )


def by_hand(setup: Setup) -> None:
    state, total, parameters = None, 0.0, list(setup.model.parameters())
    for x, y in setup.stream.next_epoch():
        logits, state = setup.model(x, tg.bptt.detach(state))
        loss = tg.functional.cross_entropy(logits, y)
        setup.optimizer.zero_grad()
        loss.backward()
        tg.optim.clip_grad_norm(parameters, 1.0)
        setup.optimizer.step()
        total += loss.item() * y.size


def plainest(setup: Setup) -> None:
    state = None
    for x, y in setup.stream.next_epoch():
        logits, state = setup.model(x, tg.bptt.detach(state))
        loss = tg.functional.cross_entropy(logits, y)
        setup.optimizer.zero_grad()
        loss.backward()
        setup.optimizer.step()


def seconds(run: Callable[[Setup], None], setup: Any) -> float:
    start = time.process_time()
    run(setup)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20, help="steps of a run")
    parser.add_argument("--setups", type=int, default=5, help="sets of arrays")
    options = parser.parse_args()
    tg.set_num_threads(1)
    for name, (batch, hidden, steps) in SIZES.items():
        runs, least = (
            (with_fit, by_hand, plainest),
            dict.fromkeys((with_fit, by_hand, plainest), 0.0),
        )
        for _ in range(options.setups):
            setup = Setup(batch, hidden, steps, options.steps)
            times: dict[Any, list[float]] = {run: [] for run in runs}
            for i in range(options.rounds + 1):
                for run in runs if i % 2 else reversed(runs):
                    times[run].append(seconds(run, setup) / options.steps)
            for run, found in times.items():
                least[run] += 1e6 * min(found) / options.setups
        print(f"{name}: with fit {least[with_fit]:,.0f} µs a step", end="")
        for run, words in (
            (by_hand, "the same by hand"),
            (plainest, "without clipping or reading"),
        ):
            more = least[with_fit] - least[run]
            part = 100 * more / least[run]
            print(f"; {words} {least[run]:,.0f}, fit {more:+.0f} µs, {part:+.2f} %", end="")
        print()


if __name__ == "__main__":
    main()
