"""Text generation, one token at a time without a graph, here and in PyTorch: tokens a second.

    python benchmarks/generation.py [--hidden 256 1024] [--rounds 5]

A step: embedding of the last token, LSTM layer with its state, linear layer, argmax; batch 1, 65
tokens, float32. Each peer has a process of its own; they are measured in turns. Every token needs
all weights once. So the report also has the bytes of weights that were read each second, over the
rate at which NumPy reads (the sum of an array as large as the weights).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

TOKENS = 65


def generator(library: Any, token: Any, hidden: int) -> Callable[[], None]:
    """Return a step of generation; the two libraries have the same names."""
    rows, layer = library.nn.Embedding(TOKENS, TOKENS), library.nn.LSTM(TOKENS, hidden)
    out = library.nn.Linear(hidden, TOKENS)
    state = None

    def step() -> None:
        nonlocal state, token
        with library.no_grad():
            y, state = layer(rows(token), state)
            token = out(y).argmax(-1)

    return step


def ours(hidden: int) -> Callable[[], None]:
    import tinygrad_rnn as tg

    return generator(tg, tg.zeros(1, 1, dtype=tg.int64), hidden)


def pytorch(hidden: int) -> Callable[[], None]:
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return generator(torch, torch.zeros(1, 1, dtype=torch.long), hidden)


def reading(hidden: int) -> Callable[[], None]:
    import numpy as np

    weights = np.ones(bytes_of(hidden) // 4, np.float32)
    return lambda: weights.sum()


PEERS = {"ours": ours, "pytorch": pytorch, "reading": reading}


def bytes_of(hidden: int) -> int:
    """Return the bytes of the weights that a token needs."""
    return 4 * (4 * hidden * (TOKENS + hidden) + TOKENS * hidden)


def child(peer: str, hidden: int) -> float:
    """Return the median time of a step, in seconds, from a new process."""
    skipped = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
    environment = {name: text for name, text in os.environ.items() if name not in skipped}
    command = [sys.executable, __file__, "--child", peer, "--hidden", str(hidden)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def measured(step: Callable[[], None], count: int = 500) -> float:
    for _ in range(50):
        step()
    times = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", choices=PEERS)
    options = parser.parse_args()
    if options.child:
        print(measured(PEERS[options.child](options.hidden[0])))
        return
    for hidden in options.hidden:
        turns = [{peer: child(peer, hidden) for peer in PEERS} for _ in range(options.rounds)]
        tokens = {p: 1 / statistics.median(turn[p] for turn in turns) for p in PEERS}
        ratio = statistics.median(turn["pytorch"] / turn["ours"] for turn in turns)
        share = statistics.median(turn["reading"] / turn["ours"] for turn in turns)
        print(
            f"H = {hidden:5}   ours {tokens['ours']:7.0f}   PyTorch {tokens['pytorch']:7.0f} "
            f"tokens a second, ratio {ratio:.2f}   {share:.0%} of the rate of reading"
        )


if __name__ == "__main__":
    main()
