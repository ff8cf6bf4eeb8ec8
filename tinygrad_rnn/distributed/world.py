"""The processes of a program that work together, and how they start."""

from __future__ import annotations

import copy
import ctypes
import os
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy._core import _multiarray_umath

from .._util.nested import leaves, map_nested
from .._util.resumable import ResumableIterator
from ..bptt.windows import Window
from ..engine import backend as arrays
from ..engine.backend import Array
from ..engine.tensor import Tensor
from ..errors import ArgumentError, DistributedError
from ..io import save
from ..speed import threads
from ..tensors import concatenate
from . import failure
from .mpi import Alone, Mpi, launched
from .nccl import Nccl

TIME_FIRST = ("sequential", "random", "evaluation")  # streams (T, B); so are windows of a strategy
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
    patience : float
        Seconds that a rank waits for the others: what one rank does alone, such as drawing a
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

    def __init__(self, messages: Alone, patience: float) -> None:
        self.messages, self.rank, self.size = messages, messages.rank, messages.size
        self.patience, self.interrupted, self.stopping = patience, False, False
        self.signals: list[int] = []  # that this rank received; `stopping`: any rank had when met
        self.checks: list[Callable[[], None]] = []  # of the parameters, before they are saved

    def meet(
        self, action: str, details: str = "", *numbers: float, patience: float | None = None
    ) -> Array:
        """Wait for all ranks; raise unless they do the same.

        Parameters
        ----------
        action, details : str
            The same on all ranks; the message has the first line in which they differ.
        *numbers : float
            At most two, sent to all ranks.
        patience : float, optional
            Default: that of the world.

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
        keys = [zlib.crc32(text.encode()) for text in (action, details)]
        row = np.array([*keys, len(self.signals), *numbers, 0, 0], np.float64)[:5]
        try:
            rows = self.messages.gather(row, self.patience if patience is None else patience)
        except TimeoutError as error:
            raise DistributedError(
                f"rank {self.rank} of {self.size} waited {error} for another rank in {action}: all "
                "ranks must call it; if one works alone for longer, use init(patience=...)"
            ) from None
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
            Whether to overwrite the array, which is contiguous in C order: memory order is what is
            sent.
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
        out = array._data if isinstance(array, Tensor) else arrays.asarray(array)
        if not in_place:
            out = arrays.module_of(out).array(out, order="C")
        elif out is not array or not out.flags.c_contiguous:
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
            If the number of columns of a batch is no multiple of the number of ranks.
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
        axis = columns_axis(batches) if axis is None else axis
        if not isinstance(batches, ResumableIterator):
            return (cut(batch, axis, self.rank, self.size) for batch in batches)

        def plan(**drawn: Any) -> tuple[int, Callable[[int], Any]]:
            choices = {**batches._settings, **drawn}
            sums = (
                f"{k} {v!r:.40} {zlib.crc32(np.asarray(v).tobytes())}" for k, v in choices.items()
            )
            self.meet("the beginning of an epoch, with the same seed", "\n".join(sums))
            count, get_batch = batches._plan(**drawn)
            return count, lambda i: cut(get_batch(i), axis, self.rank, self.size)

        shard = copy.copy(batches)
        shard._plan, (shard._count, shard._get_batch) = plan, plan(**batches._drawn)
        return shard

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
        merged, *others = self.messages.objects(copy.deepcopy(metric))
        for other in others:
            merged.merge(other)
        return merged

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
        self.meet("join")
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
            If the number of columns is no multiple of the number of ranks.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> world = tg.distributed.init()
        >>> world.split(world.join(tg.ones(1, 2, 3))).shape
        (1, 2, 3)
        """
        return cut(state, -2, self.rank, self.size)

    def save(self, path: str | os.PathLike[str], **state: Any) -> None:
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
        for check in self.checks:
            check()
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
            print(
                f"{world.size} ranks, {world.messages.name}, threads of each: {threads.limit()}, "
                f"of NumPy {'as many' if limit_numpy(threads.limit()) else 'unchanged'}",
                file=sys.stdout if world.rank else sys.stderr,
            )
    return _worlds[0]


def limit_numpy(threads: int) -> bool:
    """Set the number of threads of NumPy's OpenBLAS; return False if it has another library."""
    library = ctypes.CDLL(_multiarray_umath.__file__)  # finds what this was linked with
    for name in ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads"):
        if hasattr(library, name):
            getattr(library, name)(threads)
            return True
    return False


def columns_axis(batches: Any) -> int:
    """Return the axis of the sequences in batches: 1 for windows of text, else 0."""
    stream = str(getattr(batches, "_settings", {}).get("stream"))
    return int(stream in TIME_FIRST or stream.endswith(": windows"))


def cut(batch: Any, axis: int, part: int, parts: int) -> Any:
    """Return one of several equal parts of a batch, or of a state, along an axis."""

    def one(array: Any) -> Any:
        if parts == 1 or not getattr(array, "shape", ()):
            return array
        place = min(axis, array.ndim - 1) % array.ndim
        size, rest = divmod(array.shape[place], parts)
        if rest:
            raise ArgumentError(
                f"{array.shape[place]} columns of a batch cannot be divided by {parts}: use a "
                "multiple of it, and drop_last=True"
            )
        return array[(slice(None),) * place + (slice(part * size, (part + 1) * size),)]

    if isinstance(batch, Window):
        return Window(one(batch.x), one(batch.y), batch.first, batch.bptt)
    return map_nested(one, batch)


def joined(states: list[Any]) -> Any:
    """Return states of some columns each as one state."""
    parts = zip(*map(leaves, states), strict=True)

    def one(first: Any) -> Any:
        found = next(parts)
        if first is None or len(found) == 1:
            return first
        return (concatenate if isinstance(first, Tensor) else np.concatenate)(found, axis=-2)

    return map_nested(one, states[0])


def tree_sum(values: list[Any]) -> Any:
    """Return the sum of values in the order of a binary tree.

    Examples
    --------
    >>> from tinygrad_rnn.distributed.world import tree_sum
    >>> tree_sum(["a", "b", "c"])
    'abc'
    """
    while len(values) > 1:
        pairs = zip(values[::2], values[1::2], strict=False)
        values = [*(a + b for a, b in pairs), *values[len(values) // 2 * 2 :]]
    return values[0]
