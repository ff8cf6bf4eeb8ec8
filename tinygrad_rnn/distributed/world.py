"""The processes of a program that work together, and how they start."""

from __future__ import annotations

import copy
import functools
import sys
from signal import SIGINT, SIGTERM
from typing import Any
from zlib import crc32

import numpy as np

from .._util.nested import map_nested
from .._util.resumable import ResumableIterator
from ..bptt.columns import cut, joined
from ..engine import backend as arrays
from ..engine.tensor import Tensor
from ..errors import ArgumentError, DistributedError
from ..io import save
from ..speed import threads
from ..speed.cuda.nccl import Nccl
from ..training.interrupt import on_signals
from . import failure
from .messages import Alone, Mpi, launched

_worlds: list[World] = []


class World:
    """The processes of a program, its ranks; `init` returns it.

    All ranks call the same methods in the same order. If one of them calls another one, with
    another shape, or ends, all end with a message that names the rank and the reason, after
    `patience` seconds at the latest.

    Attributes
    ----------
    rank, size : int
        The number of this process, from 0, and the number of processes.
    launched : bool
        Whether ``mpiexec`` started the program, with one process or more.
    patience : float
        Seconds that a rank waits for the others: the work of one rank alone, such as drawing a
        figure, must take less.
    interrupted : bool
        Whether SIGTERM or Ctrl-C reached one of the ranks. All see it after the same step of
        `data_parallel`: save, and leave the loop. A further step ends the program.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> world = tg.distributed.init()
    >>> world.size
    1
    """

    def __init__(self, messages: Any, patience: float) -> None:
        self.messages, self.rank, self.size = messages, messages.rank, messages.size
        self.launched = launched() > 0
        # This rank was signalled; when all met last, any of them was.
        self.patience, self.interrupted, self.signalled, self.stopping = patience, *3 * (False,)
        self.check: Any = lambda: self.meet("save")  # that of `data_parallel`

    def catch_signals(self) -> None:
        """Let SIGTERM and Ctrl-C set `interrupted` of all ranks; a second one acts as usual."""
        on_signals(lambda: setattr(self, "signalled", True), *(SIGTERM, SIGINT) * self.launched)

    def meet(self, action: str, details: str = "", *numbers: float) -> Any:
        """Wait for all ranks; raise unless they do the same.

        Parameters
        ----------
        action, details : str
            The same on all ranks; the message has the first line in which they differ.
        *numbers : float
            At most two, sent to all ranks.

        Returns
        -------
        ndarray of float64, shape (size, 2)
            The numbers of each rank.

        Raises
        ------
        DistributedError
            If a rank does something else, or does not come.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> tg.distributed.init().meet("count of the words", "", 7)
        array([[7., 0.]])
        """
        keys = [crc32(text.encode()) for text in (action, details)]
        row = np.array([*keys, self.signalled, *numbers, 0, 0], np.float64)[:5]
        try:
            rows = self.messages.gather(row, self.patience)
        except TimeoutError as error:
            text = f"rank {self.rank} of {self.size} waited {error} for another rank in {action}"
            raise DistributedError(f"{text}: init(patience=...) allows more") from None
        if (rows[:, :2] != keys).any():
            raise DistributedError(failure.differing(self.messages.objects((action, details))))
        self.stopping = bool(rows[:, 2].any())
        return rows[:, 3:]

    def all_reduce(self, array: Any, in_place: bool = False, pairwise: bool = False) -> Any:
        """Return the sum of an array over all ranks.

        Parameters
        ----------
        array : array_like or Tensor
            Of the same shape and dtype on all ranks.
        in_place : bool
            Whether to overwrite the array, which is contiguous in C order: an array is sent in the
            order of its memory.
        pairwise : bool
            Whether to add in the order of a binary tree, which no library of messages promises.

        Returns
        -------
        ndarray
            The same bits on every rank.

        Raises
        ------
        DistributedError
            If shapes or dtypes differ between ranks, or a rank does something else.
        ArgumentError
            If an array that is not contiguous shall be overwritten.

        Examples
        --------
        >>> import numpy as np
        >>> import tinygrad_rnn as tg
        >>> tg.distributed.init().all_reduce(np.array([1.0, 2.0]))
        array([1., 2.])
        """
        source = array._data if isinstance(array, Tensor) else arrays.asarray(array)
        out = source if in_place else source.copy()  # the method, whose result is in C order
        if not out.flags.c_contiguous or (in_place and out is not array):
            raise ArgumentError("all_reduce: in_place: an array contiguous in C order is needed")
        self.meet("all_reduce", f"{out.dtype} {out.shape}")
        if pairwise:
            total = tree_sum(list(self.messages.gather(arrays.to_numpy(out))))
            out[...] = arrays.to_device(total, arrays.device_of(out))
        else:
            self.messages.sum(out)
        return out

    def broadcast(self, value: Any, root: int = 0) -> Any:
        """Return the value of one rank.

        Parameters
        ----------
        value : object
            Anything that can be pickled; that of the other ranks does not count.
        root : int
            The rank.

        Returns
        -------
        object

        Raises
        ------
        DistributedError
            If a rank does something else.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> tg.distributed.init().broadcast({"lr": 0.1})
        {'lr': 0.1}
        """
        self.meet("broadcast", f"from rank {root}")
        return self.messages.objects(value if self.rank == root else None)[root]

    def shard(self, batches: Any, axis: int | None = None) -> Any:
        """Return the columns of this rank in each batch.

        The ranks read the batches that one process would read, each its part of the sequences: of
        32 columns and 4 ranks, rank 1 gets those from 8 to 15.

        Parameters
        ----------
        batches : ResumableIterator or iterable of tuples
            Made with the same seed on all ranks; of `data` or of a strategy's ``windows``.
        axis : int, optional
            That of the sequences. Default: 1 for windows of text, (T, B); 0 for `data.batches` and
            others. An array with fewer axes, such as the lengths (B,), is cut along its last one.

        Returns
        -------
        like `batches`
            Its saved position is that of the whole, and can be loaded with another number of ranks.

        Raises
        ------
        ArgumentError
            If the number of columns of a batch is not a multiple of the number of ranks.
        DistributedError
            If the ranks drew different batches.

        Examples
        --------
        >>> import numpy as np
        >>> import tinygrad_rnn as tg
        >>> world = tg.distributed.init()
        >>> for x, y in world.shard(tg.data.text.sequential(np.arange(20), 4, steps=2, rng=0)):
        ...     pass
        >>> x.shape
        (2, 4)
        """
        axis = getattr(batches, "batch_axis", 0) if axis is None else axis
        if not isinstance(batches, ResumableIterator):
            return (cut(batch, axis, self.rank, self.size) for batch in batches)

        def begin(choices: dict[str, Any]) -> None:
            values = {k: getattr(v, "tobytes", repr(v).encode)() for k, v in choices.items()}
            sums = [f"{k} {choices[k]!r:.40} {crc32(value)}" for k, value in values.items()]
            self.meet("the beginning of an epoch, with the same seed", "\n".join(sums))

        return batches.mapped(lambda batch: cut(batch, axis, self.rank, self.size), begin)

    def merge(self, metric: Any) -> Any:
        """Return a metric of the batches of all ranks.

        Parameters
        ----------
        metric : metric
            Of `metrics`, or another one with a method ``merge``; it is not changed.

        Returns
        -------
        metric
            A new one, the same on all ranks.

        Raises
        ------
        DistributedError
            If a rank does something else.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> metric = tg.metrics.Perplexity()
        >>> metric.update(0.5, 10)
        >>> tg.distributed.init().merge(metric).nats
        0.5
        """
        self.meet("merge", type(metric).__name__)
        metrics = self.messages.objects(copy.deepcopy(metric))
        return functools.reduce(lambda merged, other: merged.merge(other), metrics)

    def join(self, state: Any) -> Any:
        """Return a recurrent state of all columns, to be saved; `split` is the inverse.

        Parameters
        ----------
        state : Tensor, or tuple, list or dict of states, or None
            Of the columns of this rank, which are the last axis but one: (..., B, H).

        Returns
        -------
        same structure, of ndarrays
            The columns of rank 0 first.

        Raises
        ------
        DistributedError
            If a rank does something else.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> tg.distributed.init().join(tg.ones(1, 2, 3)).shape
        (1, 2, 3)
        """
        self.check()
        own = map_nested(lambda part: None if part is None else part.numpy(), state)
        return joined(self.messages.objects(own))

    def split(self, state: Any) -> Any:
        """Return the columns of this rank in a recurrent state of all; see `join`.

        Parameters
        ----------
        state : Tensor or array, or tuple, list or dict of states, or None
            Of all columns.

        Returns
        -------
        same structure

        Raises
        ------
        ArgumentError
            If the number of columns is not a multiple of the number of ranks.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> world = tg.distributed.init()
        >>> world.split(world.join(tg.ones(1, 2, 3))).shape
        (1, 2, 3)
        """
        return cut(state, -2, self.rank, self.size)

    def save(self, path: Any, **state: Any) -> None:
        """Save a run: rank 0 writes, after the parameters of all ranks were compared.

        Parameters
        ----------
        path, **state
            As of `tg.save`. A recurrent state is joined before: ``state=world.join(state)``.

        Raises
        ------
        DistributedError
            If parameters or optimizer states differ between ranks.
        OSError
            On rank 0, if writing fails.

        Examples
        --------
        >>> import os, tempfile
        >>> import tinygrad_rnn as tg
        >>> path = os.path.join(tempfile.mkdtemp(), "run.ckpt")
        >>> tg.distributed.init().save(path, model=tg.nn.Linear(2, 1))
        >>> list(tg.load(path))
        ['model']
        """
        self.check()
        if self.rank == 0:
            save(path, **state)


def init(backend: str | None = None, patience: float = 20.0) -> World:
    """Return the world of this program: the ranks that ``mpiexec`` started, or one process.

    The first call starts MPI; others return the same world. Ranks above 0 print nothing from here
    on, and an exception in one rank ends all of them with its traceback and its rank.

    Parameters
    ----------
    backend : str, optional
        ``"mpi"``, or ``"nccl"`` for gradients on GPUs, one for each rank. Default: MPI if
        ``mpiexec`` started the program, as the environment tells; else nothing is imported.
    patience : float
        Seconds that a rank waits for the others before it ends all with a message.

    Returns
    -------
    World

    Raises
    ------
    MissingExtraError
        If mpi4py or a library of MPI is not installed: ``pip install 'tinygrad-rnn[mpi]'``.
    ArgumentError
        If `backend` is unknown.
    DeviceError
        If ``"nccl"`` finds no GPU.

    Notes
    -----
    The cores that a rank may use are divided among the ranks on the machine: so many threads run
    compiled loops and, where NumPy has OpenBLAS, its products. ``mpiexec -n 4 python -m
    tinygrad_rnn.distributed program.py`` sets the variables of the environment before NumPy is
    loaded, for every library.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> world = tg.distributed.init()
    >>> world.rank, world.size
    (0, 1)
    """
    if backend not in (None, "mpi", "nccl"):
        raise ArgumentError(f"init: backend: 'mpi' or 'nccl', got {backend!r}")
    if not _worlds:
        host = Mpi() if launched() else Alone()
        _worlds.append(world := World(Nccl(host) if backend == "nccl" else host, patience))
        if launched():
            failure.watch(world)
            numpy = "as many" if threads.limit_numpy(threads.limit()) else "not limited"
            text = f"{world.size} ranks, {world.messages.name}, threads: {threads.limit()} of each"
            print(f"{text}, {numpy} of NumPy", file=sys.stdout if world.rank else sys.stderr)
    return _worlds[0]


def tree_sum(values: list[Any]) -> Any:
    """Return the sum of values in the order of a binary tree.

    Examples
    --------
    >>> from tinygrad_rnn.distributed.world import tree_sum
    >>> tree_sum(["a", "b", "c"])
    'abc'
    """
    while len(values) > 1:
        pairs = map(lambda a, b: a + b, values[::2], values[1::2])
        values = [*pairs, *values[len(values) // 2 * 2 :]]
    return values[0]
