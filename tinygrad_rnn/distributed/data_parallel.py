"""Data-parallel training: each rank has its columns of a batch, and all have one gradient."""

from __future__ import annotations

from itertools import groupby
from typing import Any
from zlib import crc32

import numpy as np

from .. import random as tg_random
from ..bptt import detach
from ..bptt.columns import cut, joined
from ..engine import backend as arrays
from ..engine.tensor import Tensor, wrap
from ..errors import ArgumentError
from ..nn import Module
from ..optim import Optimizer
from ..speed.threads import limit_numpy
from ..training.ranks import Ranks
from ..training.step import count as count_labels
from .world import init, tree_sum


class DataParallel(Ranks):
    """Copies of a module on all ranks, which `data_parallel` keeps equal.

    It is a callback of `fit`, the first in the list, with ``world.shard(batches)``: a step then has
    one gradient and one loss for all ranks. Rank 0 alone prints and writes files. Every rank
    validates on all batches of ``valid=``, which are not sharded. `EarlyStopping` and
    `BestModel` decide by the figures of rank 0.

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
        self._buckets = [[*ps] for _, ps in groupby(params, lambda p: (p.dtype, p.device))]
        kinds = [f"parameter {i}: {p.dtype} {p.shape}" for i, p in enumerate(params)]
        self.world.meet("data_parallel", "\n".join([*kinds, f"{micro_batches=}"]))
        first = self.world.broadcast((module.state_dict(), optimizer.state_dict()))
        module.load_state_dict(first[0])
        optimizer.load_state_dict(first[1])
        self.world.check = self.check
        self.world.catch_signals()

    def check(self) -> None:
        """Raise unless the parameters and the optimizer states of all ranks have the same bits.

        Raises
        ------
        DistributedError
            With the first parameter that differs, and the ranks.
        """
        found = dict(self.module.state_dict())
        for i, slots in enumerate(self.optimizer.state_dict()["slots"]):
            found |= {f"{name} of parameter {i} in the optimizer": x for name, x in slots.items()}
        sums = [f"{name}, checksum {crc32(x.tobytes()):08x}" for name, x in found.items()]
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
            raise ArgumentError("DataParallel.backward: deterministic=True needs gradient(...)")
        loss.backward()
        return self._average([loss.item() * count], [count], [self._packed(count)])

    def gradient(self, function: Any, *batch: Any, state: Any = None, axis: int = 1) -> Any:
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
        parts, results = max(self.micro_batches // self.world.size, 1), []
        seed, before = int(tg_random.generator().integers(2**62)), tg_random.get_state()
        self.optimizer.zero_grad()
        try:
            for part in range(parts):  # the seed is the same on all ranks, the numbers are not
                own = np.random.SeedSequence([seed, self.world.rank * parts + part])
                tg_random.restore({None: np.random.Philox(own).state})
                now, held = cut(batch, axis, part, parts), cut(state, -2, part, parts)
                loss, after = function(*now, detach(held))
                loss.backward()
                weight = int(count_labels(now[-1])) / now[-1].size
                results.append((loss.item() * weight, weight, detach(after), self._packed(weight)))
        finally:
            tg_random.restore({None: before})
        losses, weights, states, packed = map(list, zip(*results, strict=True))
        nats = self._average(losses, weights, packed)
        self.labels = round(self.labels * now[-1].size)
        return nats, joined(states)

    def _packed(self, weight: float) -> list[Any]:
        """Return the gradients times a weight, in one buffer for each bucket; they are removed."""
        packed = []
        for bucket in self._buckets:
            xp = arrays.module_of(bucket[0]._data)
            with arrays.computing_on(bucket[0].device):
                packed.append(xp.zeros(sum(p.size + 1 for p in bucket), dtype=bucket[0].dtype))
                for p, part, exists in _parts(packed[-1], bucket):
                    if p.grad is not None:
                        xp.multiply(p.grad._data, weight, out=part)
                        exists.fill(1)
                        p.grad = None
        return packed

    def _average(self, losses: list[float], weights: list[float], packed: list[Any]) -> float:
        """Set the gradients to the weighted means over the ranks; return that of the losses."""
        if self.world.interrupted:
            raise SystemExit("the program went on after world.interrupted")
        rows = self.world.meet("the mean of the gradients", "", *map(tree_sum, (losses, weights)))
        self.world.interrupted = self.world.stopping
        nats, self.labels = (tree_sum(column) for column in rows.T.tolist())
        if not self.labels > 0:
            raise ArgumentError("data_parallel: the batches of all ranks have no labels")
        for bucket, *buffers in zip(self._buckets, *packed, strict=True):
            with arrays.computing_on(bucket[0].device):
                total = tree_sum(buffers)
                self.world.all_reduce(total, in_place=True, pairwise=self.micro_batches > 0)
                for p, part, exists in _parts(total, bucket):
                    if exists.item():
                        part /= self.labels
                        p._leaf.grad = wrap(part, None, [0])
        return float(nats / self.labels)


def _parts(buffer: Any, bucket: list[Tensor]) -> Any:
    """Yield parameters, their parts of a buffer, and the number of ranks that have each."""
    end = 0
    for p in bucket:
        start, end = end, end + p.size + 1
        yield p, buffer[start : end - 1].reshape(p.shape), buffer[end - 1 : end]


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
        If `micro_batches` is not a power of 2 and a multiple of the number of ranks, or an
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
        if micro_batches % (size := init().size) or micro_batches.bit_count() != 1:
            text = f"{micro_batches=} must be a power of 2 and a multiple of the {size} ranks"
            raise ArgumentError(f"data_parallel: {text}")
        limit_numpy(1)
    return DataParallel(module, optimizer, micro_batches if deterministic else 0)
