"""Check an installation, or start a program with the variables of its threads set before NumPy.

mpiexec -n 4 python -m tinygrad_rnn.distributed
mpiexec -n 4 python -m tinygrad_rnn.distributed program.py --option
"""

from __future__ import annotations

import os
import platform
import sys
import time

import numpy as np

from ..engine.backend import float32
from ..nn import Linear
from ..optim import SGD
from ..speed import threads
from ..tensors.creation import tensor
from .data_parallel import data_parallel
from .world import init

VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


def check() -> None:
    """Sum, train and compare; print one line for each rank, and the time of a sum."""
    world = init()
    lines = world.messages.objects(
        f"rank {world.rank}: {platform.node()}, {threads.limit()} threads"
    )
    print(world.messages.name, *lines, sep="\n")
    model = Linear(3, 1)
    parallel = data_parallel(model, SGD(model.parameters(), lr=0.1))
    x = tensor(np.random.default_rng(world.rank).normal(size=(8, 3)), dtype=float32)
    for _ in range(20):
        parallel.optimizer.zero_grad()
        parallel.backward(((model(x) - x.sum(axis=1, keepdims=True)) ** 2).mean())
        parallel.optimizer.step()
    parallel.check()
    array, began = np.ones(2_500_000, np.float32), time.perf_counter()
    assert (world.all_reduce(array, in_place=True) == world.size).all()
    milliseconds = 1e3 * (time.perf_counter() - began)
    print(f"equal parameters after 20 steps; a sum of 10 MB took {milliseconds:.1f} ms")


if __name__ == "__main__":
    if sys.argv[1:]:
        os.environ |= {name: str(threads.limit()) for name in VARIABLES if name not in os.environ}
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    check()
