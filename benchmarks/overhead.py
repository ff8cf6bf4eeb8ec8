"""The cost of one tiny operation, forward and backward, here and in PyTorch's eager mode.

    python benchmarks/overhead.py [--rounds 5] [--length 1000]

A chain y = y * a + b on four float32 elements, one thread, each peer in a process of its own, in
turns. The cost is that of the whole chain, forward and backward, over the number of operations.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable


def ours(length: int, constants: bool) -> Callable[[], None]:
    import tinygrad_rnn as tg

    x = tg.ones(4, requires_grad=True)
    a, b = (tg.full((4,), value, requires_grad=not constants) for value in (1.0001, 1e-4))

    def chain() -> None:
        y = x
        for _ in range(length):
            y = y * a + b
        y.sum().backward()
        x.grad = None

    return chain


def pytorch(length: int, constants: bool) -> Callable[[], None]:
    import torch

    torch.set_num_threads(1)
    x = torch.ones(4, requires_grad=True)
    a, b = (torch.full((4,), value, requires_grad=not constants) for value in (1.0001, 1e-4))

    def chain() -> None:
        y = x
        for _ in range(length):
            y = y * a + b
        y.sum().backward()
        x.grad = None

    return chain


def child(peer: str, length: int, constants: bool) -> float:
    """Return the median cost of an operation, in µs, from a new process of one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--child", peer, "--length", str(length)]
    command += ["--constants"] if constants else []
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--length", type=int, default=1000)
    parser.add_argument("--constants", action="store_true", help="a and b need no gradient")
    parser.add_argument("--child", choices=["ours", "pytorch"])
    options = parser.parse_args()
    if options.child:
        chain = {"ours": ours, "pytorch": pytorch}[options.child](options.length, options.constants)
        times = []
        for _ in range(40):
            start = time.perf_counter()
            chain()
            times.append(time.perf_counter() - start)
        print(1e6 * statistics.median(times[5:]) / (2 * options.length))
        return
    for constants in (True, False):
        pairs = [
            (child("ours", options.length, constants), child("pytorch", options.length, constants))
            for _ in range(options.rounds)
        ]
        mine, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        kind = "constants" if constants else "parameters"
        print(f"a, b {kind:10} ours {mine:5.2f} µs   PyTorch {theirs:5.2f} µs   ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
