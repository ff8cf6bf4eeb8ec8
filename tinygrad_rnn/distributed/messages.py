"""The messages of a world: none in a world of one process, else those of MPI.

Arrays are contiguous in C order: they are sent in the order of their memory. Those of a GPU go
through the host.
"""

from __future__ import annotations

import math
import os
import time
from typing import Any

import numpy as np

from .._util import extras
from ..engine import backend
from ..errors import ArgumentError


def launched() -> int:
    """Return how many ranks mpiexec started with this one, without importing MPI; 0 if none.

    Open MPI tells the number by the first variable, MPICH and its relatives by the second.

    Examples
    --------
    >>> from tinygrad_rnn.distributed.messages import launched
    >>> launched() in range(10**6)
    True
    """
    return int(os.environ.get("OMPI_COMM_WORLD_SIZE") or os.environ.get("PMI_SIZE") or 0)


class Alone:
    """The messages of a world of one process.

    Examples
    --------
    >>> from tinygrad_rnn.distributed.messages import Alone
    >>> Alone().objects(7)
    [7]
    """

    name, rank, size, local_rank = "one process", 0, 1, 0

    def gather(self, array: Any, patience: float = math.inf) -> Any:
        """Return the arrays of all ranks as rows; raise TimeoutError after some seconds."""
        return array[None]

    def objects(self, value: Any) -> list[Any]:
        """Return the objects of all ranks, by rank."""
        return [value]

    def sum(self, array: Any) -> None:
        """Overwrite the array by the sum over all ranks, which has the same bits on each."""


class Mpi(Alone):
    """The ranks that mpiexec started.

    Raises
    ------
    MissingExtraError
        If mpi4py or a library of MPI is not installed.
    ArgumentError
        If mpiexec and the library are of different implementations of MPI.
    """

    def __init__(self) -> None:
        self._mpi = extras.imported("mpi4py.MPI", "pip install 'tinygrad-rnn[mpi]'", "init")
        self._comm = self._mpi.COMM_WORLD.Dup()  # messages of the program itself are on another one
        self.rank, self.size = self._comm.rank, self._comm.size
        self.name = " ".join(self._mpi.Get_library_version().replace(",", " ").split()[:3])
        if self.size != launched():
            cure = "install one of openmpi and mpich, and use its mpiexec"
            raise ArgumentError(f"init: mpi4py loads another MPI, {self.name}: {cure}")
        self.local_rank = self._comm.Split_type(self._mpi.COMM_TYPE_SHARED).rank

    def gather(self, array: Any, patience: float = math.inf) -> Any:
        """Return the arrays of all ranks as rows; after a while, waiting leaves the core free."""
        rows = np.empty((self.size, *array.shape), array.dtype)
        request, start = self._comm.Iallgather(array, rows), time.monotonic()
        while not request.Test():
            if (waited := time.monotonic() - start) > patience:
                raise TimeoutError(f"{waited:.0f} s")
            time.sleep(min(waited / 100, 0.01) if waited > 0.001 else 0)
        return rows

    def objects(self, value: Any) -> list[Any]:
        """Return the objects of all ranks, pickled on their way."""
        return list(self._comm.allgather(value))

    def sum(self, array: Any) -> None:
        """Overwrite the array by the sum over all ranks."""
        host = backend.to_numpy(array)
        self._comm.Allreduce(self._mpi.IN_PLACE, host)
        if host is not array:
            array[...] = backend.to_device(host, backend.device_of(array))

    def abort(self) -> None:
        """End all ranks at once, with the status 1."""
        self._mpi.COMM_WORLD.Abort(1)
