"""Minibatches of arrays, such as features and labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import random as tg_random
from .._util.resumable import GetBatch, ResumableIterator, check_permutation, smallest_dtype
from ..engine.tensor import Tensor
from ..errors import ArgumentError, ShapeError
from ..tensors.checks import all_positive
from ..tensors.creation import tensor


def batches(
    *arrays: Any,
    batch_size: int,
    shuffle: bool = True,
    rng: int | np.random.Generator | None = None,
    drop_last: bool = False,
) -> ResumableIterator[tuple[Tensor, ...]]:
    """Return one epoch of minibatches: each row once, the same rows of all arrays together.

    Parameters
    ----------
    *arrays : array_like or Tensor, each of shape (n, ...)
        Features, labels, and other arrays with one row per example. Arrays are converted to tensors
        of the same dtype, one minibatch at a time; Tensors stay on their device.
    batch_size : int
        The number of rows in a minibatch.
    shuffle : bool
        Whether the rows are in random order.
    rng : int or numpy.random.Generator, optional
        The source of the random order; an integer gives the same order at every call. Default: the
        library's generator.
    drop_last : bool
        Whether to drop the last minibatch if it has fewer than `batch_size` rows.

    Returns
    -------
    ResumableIterator of tuple of Tensor
        One tensor of shape (batch_size, ...) for each of `arrays`. The position in the epoch can be
        saved.

    Raises
    ------
    ShapeError
        If the numbers of rows differ, or an array is 0-dimensional.
    ArgumentError
        If no arrays are passed, or there are too few rows for one minibatch.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> x, y = np.arange(5.0), np.arange(5)
    >>> [len(labels) for features, labels in tg.data.batches(x, y, batch_size=2)]
    [2, 2, 1]
    """
    all_positive("batches", batch_size=batch_size)
    for i, a in enumerate(arrays):
        sized = isinstance(a, list | tuple) and all(
            hasattr(x, "__len__") and not isinstance(x, str) for x in a
        )
        if sized and len(set(map(len, a))) > 1:
            raise ShapeError(
                f"batches: the rows of array {i} differ in length: use ragged_batches, or pad"
            )
    sources = [a if isinstance(a, np.ndarray | Tensor) else tensor(a) for a in arrays]
    shapes = [tuple(source.shape) for source in sources]
    if not sources:
        raise ArgumentError("batches: no arrays: pass the features, the labels, ...")
    if any(not shape or shape[0] != shapes[0][0] for shape in shapes):
        raise ShapeError(
            f"batches: the numbers of rows differ: shapes {', '.join(map(str, shapes))}"
        )
    n = shapes[0][0]
    stop = n - n % batch_size if drop_last else n
    if stop == 0:
        raise ArgumentError(f"batches: {n} rows are too few for batch_size={batch_size}")

    def plan(order: Any = None) -> tuple[int, GetBatch[tuple[Tensor, ...]]]:
        order = check_permutation("batches", order, n) if shuffle else np.arange(n)

        def get_batch(i: int) -> tuple[Tensor, ...]:
            rows = order[i * batch_size : min((i + 1) * batch_size, stop)]
            return tuple(take_rows(source, rows) for source in sources)

        return -(-stop // batch_size), get_batch

    settings = {
        "stream": "batches",
        "shapes": shapes,
        "batch_size": int(batch_size),
        "shuffle": bool(shuffle),
        "drop_last": bool(drop_last),
    }
    own = None if rng is None else tg_random.generator(rng)

    def draw() -> dict[str, Any]:
        order = tg_random.generator(own).permutation(n) if shuffle else None
        return {} if order is None else {"order": smallest_dtype(order)}

    return ResumableIterator(settings, draw, plan, own)


def take_rows(source: Any, rows: npt.NDArray[np.int64]) -> Tensor:
    """Return some rows of an array or a Tensor; a Tensor stays on its device."""
    if isinstance(source, Tensor):
        return source[tensor(rows, device=source.device)]
    return tensor(source[rows])
