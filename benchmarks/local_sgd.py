"""Perplexity against communication: 16 workers that average their parameters every H steps.

    python benchmarks/local_sgd.py [--epochs 3] [--seeds 3]     # about five minutes, one thread

One process computes what 16 workers would. Each has four columns of the text that ships,
``tg.data.text.corpus("python_docs")``, and carries their states. Three ways to train, with plain
SGD:

- every step: the gradients are averaged after each step (`tg.distributed.data_parallel`). All
  copies are equal, so that one batch of 64 columns computes this;
- local, H: a worker takes H steps of its own, then all parameters are averaged (Stich 2019, Local
  SGD Converges Fast and Communicates Little);
- accumulated, H: the gradients of H steps are added, then averaged for one update. This sends as
  much as local SGD.

All read the same tokens in the same order. A learning rate is chosen for each way and H alone, on
the first seed, by the perplexity on the first half of the held-out text ("rates tried"); the
result is the perplexity on the second half. A seed draws the initial parameters and the offset of
the columns. The bytes are those that a worker sends for ring all-reduces of float32.
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

import numpy as np

import tinygrad_rnn as tg

WORKERS, COLUMNS, STEPS, HIDDEN, EMBEDDING, CLIP = 16, 4, 16, 64, 32, 1.0
RATES = [1.0, 2.0, 4.0, 8.0, 16.0]
WAYS = [("every step", 1), *itertools.product(("local", "accumulated"), (4, 16, 64))]


class Worker:
    """A copy of the model with its optimizer and the states of its columns."""

    def __init__(self, vocabulary: Any, rate: float, seed: int) -> None:
        self.model = tg.models.RecurrentLM(
            tg.nn.GRUCell, vocabulary, HIDDEN, embedding_dim=EMBEDDING, rng=seed
        )
        self.optimizer = tg.optim.SGD(self.model.parameters(), lr=rate)
        self.state: Any = None

    def backward(self, x: Any, y: Any, scale: float = 1.0) -> None:
        logits, state = self.model(x, self.state)
        (tg.functional.cross_entropy(logits, y) * scale).backward()
        self.state = tg.bptt.detach(state)

    def update(self) -> None:
        tg.optim.clip_grad_norm(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()


def average(workers: list[Worker]) -> None:
    states = [worker.model.state_dict() for worker in workers]
    mean = {name: np.mean([s[name] for s in states], axis=0) for name in states[0]}
    for worker in workers:
        worker.model.load_state_dict(mean)


def train(
    way: str, every: int, rate: float, seed: int, epochs: int, ids: Any, vocabulary: Any
) -> tuple[Any, int]:
    """Return the trained model and the number of all-reduces."""
    count = WORKERS if way == "local" else 1
    workers, step, sums = [Worker(vocabulary, rate, seed) for _ in range(count)], 0, 0
    rng = np.random.default_rng(seed)
    columns = WORKERS * COLUMNS
    total = epochs * len(tg.data.text.sequential(ids, columns, STEPS, rng=0))
    total -= total % max(every for _, every in WAYS)  # all ways end with an all-reduce
    for _ in range(epochs):
        for worker in workers:
            worker.state = None
        for x, y in tg.data.text.sequential(ids, columns, STEPS, rng=rng):
            if step == total:
                break
            step += 1
            meets = step % every == 0
            if way == "local":
                for i, worker in enumerate(workers):
                    part = slice(i * COLUMNS, (i + 1) * COLUMNS)
                    worker.backward(x[:, part], y[:, part])
                    worker.update()
                if meets:
                    average(workers)
            else:
                workers[0].backward(x, y, 1 / every)
                if meets:
                    workers[0].update()
            sums += meets
    return workers[0].model, sums


def perplexity(model: Any, ids: Any) -> float:
    total, state = 0.0, None
    with tg.no_grad():
        for x, y in tg.data.text.evaluation(ids, 16, 64):
            logits, state = model(x, state)
            losses = tg.functional.cross_entropy(logits, y, ignore_index=-1, reduction="sum")
            total += losses.item()
    return float(np.exp(total / (len(ids) - 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--characters", type=int, help="shorten the text to these")
    arguments = parser.parse_args()
    tg.set_num_threads(1)
    began, epochs = time.perf_counter(), arguments.epochs
    text = tg.data.text.corpus("python_docs", clean="letters")[: arguments.characters]
    train_text, rest = tg.data.text.split(text)
    vocabulary = tg.data.text.Vocabulary(train_text)
    ids, held_out = vocabulary.encode(train_text), vocabulary.encode(rest)
    tuning, test = np.array_split(held_out, 2)
    print(f"text: {len(text):,} characters, SHA-256 {tg.data.text.sha256(text)[:16]}")
    print("| way | H | rate | all-reduces | MB sent | perplexity | of the seeds | rates tried |")
    print("|---|---:|---:|---:|---:|---:|---|---|")
    for way, every in WAYS:
        tried = {}
        for rate in arguments.rates:
            model, sums = train(way, every, rate, 0, epochs, ids, vocabulary)
            tried[rate] = perplexity(model, tuning), perplexity(model, test)
        best = min(arguments.rates, key=lambda rate: tried[rate][0])
        found = [tried[best][1]]
        for seed in range(1, arguments.seeds):
            model, _ = train(way, every, best, seed, epochs, ids, vocabulary)
            found.append(perplexity(model, test))
        size = sum(p.size for p in model.parameters()) * 4
        sent = sums * 2 * (WORKERS - 1) / WORKERS * size / 1e6
        print(
            f"| {way} | {every} | {best:g} | {sums:,} | {sent:.1f} | {np.mean(found):.2f} | "
            f"{', '.join(f'{p:.2f}' for p in found)} | "
            f"{', '.join(f'{rate:g}: {p:.2f}' for rate, (p, _) in tried.items())} |",
            flush=True,
        )
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
