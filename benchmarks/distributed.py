"""The cost of the messages between ranks.

    mpiexec -n 2 python benchmarks/distributed.py [--hidden 512] [--rounds 30]

First the sum of an array over all ranks, compared with a bare loop over mpi4py's Allreduce. Then a
training step of an LSTM language model with its columns, and the same without communication: the
difference is the part of the messages that the computation does not hide. They take turns, and a
figure is the least time: other programs can only add to it. Run it on an idle machine with at least
as many cores as ranks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_rnn as tg


def least(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the least time of each function in milliseconds, the slowest rank counts."""
    world, best = tg.distributed.init(), dict.fromkeys(functions, float("inf"))
    for _ in range(rounds):
        for name, function in functions.items():
            world.meet("round")
            began = time.perf_counter()
            function()
            best[name] = min(best[name], time.perf_counter() - began)
    return {name: 1e3 * max(world.messages.objects(best[name])) for name in functions}


def sums(rounds: int) -> None:
    from mpi4py import MPI

    world = tg.distributed.init()
    for megabytes in (0.1, 1, 10, 50):
        array = np.ones(int(megabytes * 250_000), np.float32)
        found = least(
            {
                "here": lambda a=array: world.all_reduce(a, in_place=True),
                "mpi4py": lambda a=array: MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, a),
            },
            rounds,
        )
        array.fill(0)
        share = found["mpi4py"] / found["here"]
        print(
            f"sum of {megabytes:4} MB: {found['here']:7.2f} ms, "
            f"mpi4py {found['mpi4py']:7.2f} ms, {share:.0%}"
        )


def step(hidden: int, batch: int, rounds: int) -> None:
    world = tg.distributed.init()
    model = tg.models.RecurrentLM(tg.nn.LSTMCell, 97, hidden, embedding_dim=64)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
    parallel = tg.distributed.data_parallel(model, optimizer)
    ids = np.arange(batch * world.size * 36 + 35) * 7 % 97
    x, y = next(world.shard(tg.data.text.sequential(ids, batch * world.size, 35, rng=0)))

    def loss() -> Any:
        optimizer.zero_grad()
        return tg.functional.cross_entropy(model(x)[0], y)

    def with_messages() -> None:
        parallel.backward(loss(), y.size)
        optimizer.step()

    def without() -> None:
        loss().backward()
        optimizer.step()

    def messages() -> None:
        parallel.backward(sum((p.sum() for p in model.parameters()), tg.tensor(0.0)), 1)

    found = least({"with": with_messages, "without": without, "messages": messages}, rounds)
    size = sum(p.size for p in model.parameters()) * 4e-6
    print(
        f"LSTM, hidden {hidden}, {batch} columns a rank, gradients of {size:.1f} MB: a step takes "
        f"{found['with']:.1f} ms, without messages {found['without']:.1f} ms; the messages and the "
        f"copies alone {found['messages']:.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    tg.distributed.init()
    sums(arguments.rounds)
    step(arguments.hidden, arguments.batch, arguments.rounds)


if __name__ == "__main__":
    main()
