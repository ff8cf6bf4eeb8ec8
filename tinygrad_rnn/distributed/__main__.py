"""Check an installation, or start a program with the variables of its threads set before NumPy.

mpiexec -n 4 python -m tinygrad_rnn.distributed
mpiexec -n 4 python -m tinygrad_rnn.distributed program.py --option
"""

from __future__ import annotations

import os
import platform
import sys

import numpy as np

from ..speed import threads
from .world import init

if __name__ == "__main__":
    if sys.argv[1:]:  # OpenBLAS, MKL and BLIS read this variable when NumPy is loaded
        os.environ.setdefault("OMP_NUM_THREADS", str(threads.limit()))
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    world = init()
    names = world.messages.objects(f"rank {world.rank} on {platform.node()}")
    assert (world.all_reduce(np.ones(10**6)) == world.size).all()
    print(*names, "sums of all ranks are right", sep="\n")
