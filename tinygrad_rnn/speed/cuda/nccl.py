"""NCCL, by CuPy: sums of arrays over GPUs, one for each process."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...engine import backend


class Nccl:
    """The GPUs of several processes, each the default device of its process.

    Parameters
    ----------
    host : object
        What carries everything else between the processes, among it arrays of NumPy and the key of
        the communicator: with ``rank``, ``size``, ``local_rank``, ``name``, ``objects`` and
        ``sum``, as of `distributed.messages`.

    Raises
    ------
    DeviceError
        If a GPU is missing.
    """

    def __init__(self, host: Any) -> None:
        backend.set_default_device("cuda")  # raises if it is missing
        self.host, self.name = host, f"NCCL, {host.name}"
        self._cuda: Any = backend.module_of(backend.to_device(np.zeros(1), "cuda")).cuda
        number = host.local_rank % self._cuda.runtime.getDeviceCount()
        backend.set_default_device(f"cuda:{number}")
        key = host.objects(self._cuda.nccl.get_unique_id() if host.rank == 0 else None)[0]
        with self._cuda.Device(number):
            self._gpus = self._cuda.nccl.NcclCommunicator(host.size, key, host.rank)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.host, name)

    def sum(self, array: Any) -> None:
        """Overwrite an array by the sum over all processes; contiguous in C order."""
        if type(array) is np.ndarray:
            return self.host.sum(array)
        nccl, own = self._cuda.nccl, array.data.ptr
        kind = getattr(nccl, f"NCCL_{array.dtype.name.upper()}")
        stream = self._cuda.get_current_stream().ptr
        self._gpus.allReduce(own, own, array.size, kind, nccl.NCCL_SUM, stream)
