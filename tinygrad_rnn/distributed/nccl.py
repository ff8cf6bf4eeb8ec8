"""NCCL, by CuPy: sums of arrays on GPUs, one GPU for each rank; MPI carries everything else."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import backend
from ..engine.backend import Array
from .mpi import Alone


class Nccl(Alone):
    """The GPUs of the ranks, each of which becomes the default device of its rank.

    Parameters
    ----------
    host : Alone
        What carries arrays that are not on a GPU, and objects.

    Raises
    ------
    DeviceError
        If there is no GPU.
    """

    def __init__(self, host: Alone) -> None:
        backend.set_default_device("cuda")  # raises if there is none
        xp = backend.module_of(backend.to_device(np.zeros(1), "cuda"))
        self._host, self._cuda, self.name = host, xp.cuda, f"NCCL, {host.name}"
        self.rank, self.size, self.gather = host.rank, host.size, host.gather  # type: ignore[method-assign]
        self.objects, self.abort = host.objects, host.abort  # type: ignore[method-assign]
        number = host.local_rank % xp.cuda.runtime.getDeviceCount()
        backend.set_default_device(f"cuda:{number}")
        nccl: Any = xp.cuda.nccl
        first = host.objects(nccl.get_unique_id() if host.rank == 0 else None)[0]
        with xp.cuda.Device(number):
            self._gpus = nccl.NcclCommunicator(host.size, first, host.rank)

    def sum(self, array: Array) -> None:
        """Overwrite the array by the sum over all ranks."""
        if type(array) is np.ndarray:
            return self._host.sum(array)
        nccl, stream = self._cuda.nccl, self._cuda.get_current_stream().ptr
        dtype, own = getattr(nccl, f"NCCL_{array.dtype.name.upper()}"), array.data.ptr
        self._gpus.allReduce(own, own, array.size, dtype, nccl.NCCL_SUM, stream)
