"""Data-parallel training: each rank has its columns of a batch, and all have one gradient."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import random as tg_random
from ..bptt import detach
from ..engine import backend as arrays
from ..engine.backend import Array
from ..engine.tensor import Tensor, wrap
from ..errors import ArgumentError
from ..nn import Module
from ..optim import Optimizer, clip_grad_norm
from ..tensors.creation import tensor
from ..training.run import Callback
from ..training.step import count as count_labels
from .failure import catch_signals
from .mpi import launched
from .world import columns_axis, cut, init, joined, limit_numpy, tree_sum

BUCKET = 2**22  # bytes of gradients that are sent together


class DataParallel(Callback):
    """Copies of a module on all ranks, which `data_parallel` keeps equal.

    It is a callback of `fit`, the first in the list, with ``world.shard(batches)``: a step then has
    one gradient and one loss for all ranks. Rank 0 alone prints and writes files. Validation is
    done by every rank on all of its batches.

    Attributes
    ----------
    world : World
    module : Module
    optimizer : Optimizer

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> world, model = tg.distributed.init(), tg.nn.Linear(1, 1)
    >>> optimizer, x = tg.optim.SGD(model.parameters(), lr=0.1), tg.ones(8, 1)
    >>> parallel = tg.distributed.data_parallel(model, optimizer)
    >>> history = tg.fit(
    ...     model, world.shard(tg.data.batches(x, 2 * x, batch_size=4)), epochs=2,
    ...     loss=tg.functional.mse_loss, optimizer=optimizer, callbacks=[parallel],
    ... )
    >>> len(history)
    2
    """

    def __init__(self, module: Module, optimizer: Optimizer, micro_batches: int) -> None:
        self.module, self.optimizer, self.world, self.labels = module, optimizer, init(), 0
        self.micro_batches = micro_batches  # of all ranks; 0: the batch of a rank is not divided
        params = {id(p): p for p in (*module.parameters(), *optimizer.params)}.values()
        ends = np.cumsum([p._data.nbytes for p in params]) // BUCKET
        kinds = [(p.dtype, p.device, end) for p, end in zip(params, ends, strict=True)]
        groups = itertools.groupby(zip(params, kinds, strict=True), key=lambda pair: pair[1])
        buckets = [[p for p, _ in group] for _, group in groups]
        self._buckets = [(ps, np.cumsum([p.size for p in ps]).tolist()) for ps in buckets]
        shapes = [f"parameter {i}: {p.dtype} {p.shape}" for i, p in enumerate(params)]
        self._kinds = "\n".join([*shapes, type(optimizer).__name__, f"{micro_batches=}"])
        self.world.meet("data_parallel", self._kinds)
        if self.world.size > 1:
            first = self.world.broadcast((module.state_dict(), optimizer.state_dict()))
            module.load_state_dict(first[0])
            optimizer.load_state_dict(first[1])
        if launched():
            catch_signals(self.world)
        self.world.checks.append(self.check)

    def check(self) -> None:
        """Raise unless the parameters and the optimizer states of all ranks have the same bits.

        Raises
        ------
        DistributedError
            With the first parameter that differs, and the ranks.
        """
        arrays = dict(self.module.state_dict())
        for i, slots in enumerate(self.optimizer.state_dict()["slots"]):
            arrays |= {f"{name} of parameter {i} in the optimizer": x for name, x in slots.items()}
        sums = [f"{n}, checksum {zlib.crc32(x.tobytes()):08x}" for n, x in arrays.items()]
        self.world.meet("the comparison of the parameters", "\n".join(sums))

    def backward(self, loss: Tensor, count: float = 1.0) -> float:
        """Compute gradients by ``loss.backward()``, and average them over the ranks.

        ``loss.backward()`` alone adds to the gradients of this rank without communication: to
        accumulate over several batches, call it for all but the last one, and clip after this.

        Parameters
        ----------
        loss : Tensor of shape ()
            The mean over the labels of this rank.
        count : float
            The number of labels of this rank, which is its weight.

        Returns
        -------
        float
            The mean loss of all ranks.

        Raises
        ------
        DistributedError
            If a rank does something else.
        ArgumentError
            If gradients are summed by micro-batches: see `gradient`.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> model = tg.nn.Linear(1, 1)
        >>> optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
        >>> parallel = tg.distributed.data_parallel(model, optimizer)
        >>> nats = parallel.backward((model(tg.ones(4, 1)) ** 2).mean(), count=4)
        >>> norm = tg.optim.clip_grad_norm(model.parameters(), 1.0)
        >>> optimizer.step()
        """
        if self.micro_batches:
            raise ArgumentError(
                "DataParallel.backward: deterministic=True needs gradient(function, x, y, state=), "
                "which divides the batch"
            )
        loss.backward()
        return self._average([loss.item() * count], [count], [self._packed(count)])

    def gradient(
        self, function: Callable[..., Any], *batch: Any, state: Any = None, axis: int = 1
    ) -> tuple[float, Any]:
        """Replace the gradients by those of a function, averaged over the ranks.

        In contrast to `backward`, random numbers that the function draws, such as dropout masks,
        differ between ranks. With ``deterministic=True`` it divides the batch into micro-batches.

        Parameters
        ----------
        function : callable
            From the batch and the state to the mean loss and the next state:
            ``function(x, y, state)``. A model without a state returns None.
        *batch : Tensor
            The columns of this rank; the last one are the labels, whose number is the weight.
        state : Tensor, or tuple, list or dict of states, or None
            The columns of this rank are its last axis but one.
        axis : int
            That of the sequences in the batch.

        Returns
        -------
        loss : float
            The mean loss of all ranks.
        state : same structure as the one returned
            The next state, detached.

        Raises
        ------
        ArgumentError
            If the columns cannot be divided into equal micro-batches.
        DistributedError
            If a rank does something else.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> rnn = tg.nn.RNN(3, 4)
        >>> optimizer = tg.optim.SGD(rnn.parameters(), lr=0.1)
        >>> parallel = tg.distributed.data_parallel(rnn, optimizer, deterministic=True)
        >>> def loss(x, y, state):
        ...     output, state = rnn(x, state)
        ...     return tg.functional.mse_loss(output, y), state
        >>> x, y, state = tg.ones(5, 8, 3), tg.zeros(5, 8, 4), None
        >>> for step in range(2):
        ...     nats, state = parallel.gradient(loss, x, y, state=state)
        ...     optimizer.step()
        >>> state.shape
        (1, 8, 4)
        """
        parts, packed = max(self.micro_batches // self.world.size, 1), list[list[Array]]()
        losses, weights, states = list[float](), list[float](), list[Any]()
        seed, before = int(tg_random.generator().integers(2**62)), tg_random.get_state()
        self.optimizer.zero_grad()
        try:
            for part in range(parts):  # the seed is the same on all ranks, the numbers are not
                own = np.random.SeedSequence([seed, self.world.rank * parts + part])
                tg_random.restore({None: np.random.Philox(own).state})
                now, held = cut(batch, axis, part, parts), cut(state, -2, part, parts)
                loss, after = function(*now, detach(held))
                loss.backward()
                weights.append(tensor(count_labels(now[-1])).item() / now[-1].size)
                losses.append(loss.item() * weights[-1])
                states.append(detach(after))
                packed.append(self._packed(weights[-1]))
        finally:
            tg_random.restore({None: before})
        nats = self._average(losses, weights, packed)
        self.labels = round(self.labels * now[-1].size)
        return nats, joined(states)

    def _packed(self, weight: float) -> list[Array]:
        """Return the gradients times a weight, in buffers; they are removed.

        Behind the gradients of a buffer are ones for those that exist.
        """
        packed = []
        for bucket, ends in self._buckets:
            xp = arrays.module_of(bucket[0]._data)
            with arrays.computing_on(bucket[0].device):
                packed.append(xp.zeros(ends[-1] + len(bucket), dtype=bucket[0].dtype))
                for i, p in enumerate(bucket):
                    if p.grad is not None:
                        part = packed[-1][ends[i] - p.size : ends[i]].reshape(p.shape)
                        xp.multiply(p.grad._data, weight, out=part)
                        packed[-1][ends[-1] + i] = 1
                        p.grad = None
        return packed

    def _average(
        self, losses: list[float], weights: list[float], packed: list[list[Array]]
    ) -> float:
        """Set the gradients to the weighted means over the ranks; return that of the losses."""
        if self.world.interrupted:
            raise SystemExit("the program went on after world.interrupted")
        sums = tree_sum(losses), tree_sum(weights)
        rows = self.world.meet("the average of the gradients", self._kinds, *sums)
        self.world.interrupted = self.world.stopping
        total = self.labels = tree_sum(rows[:, 1].tolist())
        if not total > 0:
            raise ArgumentError("data_parallel: the batches of all ranks have no labels")
        for (bucket, ends), of_parts in zip(self._buckets, zip(*packed, strict=True), strict=True):
            with arrays.computing_on(bucket[0].device):
                buffer = tree_sum(list(of_parts))
                self.world.all_reduce(buffer, in_place=True, pairwise=self.micro_batches > 0)
                exist = arrays.to_numpy(buffer[ends[-1] :])
                buffer /= total
                for p, end, ranks in zip(bucket, ends, exist, strict=True):
                    if ranks:
                        part = buffer[end - p.size : end].reshape(p.shape)
                        p._leaf.grad = wrap(part, None, [0])  # type: ignore[union-attr]
        return float(tree_sum(rows[:, 0].tolist()) / total)

    def start(self, run: Any) -> None:
        """Make the step, the state and the output of a run those of all ranks."""
        axis = columns_axis(run.batches)

        def advance(inputs: Any, labels: Any, state: Any, options: Any, max_norm: float) -> Any:
            def loss(*batch: Any) -> Any:
                *xs, y, held = batch
                return run.forward(tuple(xs), y, held, options)

            nats, after = self.gradient(loss, *inputs, labels, state=state, axis=axis)
            norm = clip_grad_norm(self.optimizer.params, max_norm).item()
            if math.isfinite(nats + norm):
                self.optimizer.step()
            return nats, norm, self.labels, after

        def join(state: Any) -> Any:
            self.check()
            return self.world.join(state)

        run.advance, run.join, run.split = advance, join, self.world.split
        run.writes = self.world.rank == 0
        if launched():  # in place of the handler of `fit`, which stops one rank
            catch_signals(self.world)

    def step(self, run: Any) -> None:
        """End the run after the same step on all ranks."""
        if self.world.interrupted:
            run.interrupt()


def data_parallel(
    module: Module, optimizer: Optimizer, deterministic: bool = False, micro_batches: int = 8
) -> DataParallel:
    """Make the copies of a module on all ranks equal, and keep them so during training.

    Parameters and the state of the optimizer become those of rank 0. The gradients are averaged
    after the backward pass, in buckets of a fixed order, with the numbers of labels as weights.

    Parameters
    ----------
    module : Module
        With the same parameters on all ranks.
    optimizer : Optimizer
        Of its parameters.
    deterministic : bool
        Whether the result has the same bits for every number of ranks that divides
        `micro_batches`: each batch is computed in micro-batches, whose gradients are summed in
        pairs. NumPy's products then use one thread.
    micro_batches : int
        Of a batch, over all ranks, with ``deterministic=True``; a power of 2.

    Returns
    -------
    DataParallel

    Raises
    ------
    ArgumentError
        If `micro_batches` is no power of 2 or the number of ranks does not divide it, or an
        argument has the wrong type.
    DistributedError
        If the modules of the ranks differ.

    Notes
    -----
    The sum (g_0 + g_1) + (g_2 + g_3) ... of a binary tree does not depend on the number of ranks
    that compute its subtrees. Without `deterministic` the order of the sum is that of the library
    of messages, the same bits on all ranks.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> model = tg.nn.Linear(2, 1)
    >>> adam = tg.optim.Adam(model.parameters())
    >>> tg.distributed.data_parallel(model, adam).world.size
    1
    """
    if not isinstance(module, Module) or not isinstance(optimizer, Optimizer):
        raise ArgumentError("data_parallel: pass a module, then its optimizer")
    if deterministic:
        if micro_batches % init().size or micro_batches.bit_count() != 1:
            raise ArgumentError(
                f"data_parallel: micro_batches={micro_batches} must be a power of 2 that the "
                f"number of ranks, {init().size}, divides"
            )
        limit_numpy(1)
    return DataParallel(module, optimizer, micro_batches if deterministic else 0)
