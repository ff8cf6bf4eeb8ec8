"""Windows of a series, padded lists of sequences, and their minibatches.

As for `batches`, the first axis of an array is that of the examples: (N, T, ...). So a layer is
made with ``batch_first=True``, or takes ``x.swapaxes(0, 1)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import random as tg_random
from .._util.api_hints import class_name
from .._util.resumable import GetBatch, ResumableIterator, check_permutation, smallest_dtype
from ..engine import backend
from ..engine.tensor import Tensor
from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensors.checks import all_positive
from ..tensors.creation import tensor
from .minibatches import take_rows

_Array = npt.NDArray[Any]


def windows(series: Any, look_back: int, ahead: int = 1, step: int = 1) -> tuple[_Array, _Array]:
    """Cut a series into inputs and the values that follow them, for forecasts.

    Split the series into training and test data first: windows overlap, so a split of the windows
    would have the same values on both sides.

    Parameters
    ----------
    series : array_like or Tensor, shape (L,) or (L, F)
        F values at each of L times, such as the columns of a data frame.
    look_back : int
        T, the number of values of an input.
    ahead : int
        A, the number of values to predict.
    step : int
        The distance between the starts of two windows.

    Returns
    -------
    x : ndarray of shape (N, T, F)
        The inputs, N = ⌊(L - T - A) / step⌋ + 1 windows; F is 1 for a series of shape (L,). In the
        dtype of the series, and on its memory, read-only.
    y : ndarray of shape (N, A, F)
        The values that follow each.

    Raises
    ------
    ArgumentError
        If the series is too short, or a length is not positive.
    ShapeError
        If the series has more than two axes.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> x, y = tg.data.windows(np.arange(6), look_back=3, ahead=2)
    >>> x[:, :, 0]
    array([[0, 1, 2],
           [1, 2, 3]])
    >>> y[:, :, 0]
    array([[3, 4],
           [4, 5]])
    """
    all_positive("windows", look_back=look_back, ahead=ahead, step=step)
    values = _values(series)
    if values.ndim not in (1, 2):
        cure = ": make the windows of each series of its own" if values.ndim > 2 else ""
        raise ShapeError(f"windows: a series is (L,) or (L, F), got {values.shape}{cure}")
    if len(values) < look_back + ahead:
        raise ArgumentError(
            f"windows: {len(values)} values are too few for look_back={look_back} and "
            f"ahead={ahead}, which need {look_back + ahead}: use smaller ones, or a longer series"
        )
    values = values.reshape(len(values), -1)
    view = np.lib.stride_tricks.sliding_window_view(values, look_back + ahead, axis=0)
    both = view[::step].swapaxes(1, 2)
    return both[:, :look_back], both[:, look_back:]


def pad(sequences: Iterable[Any], value: float = 0) -> tuple[_Array, npt.NDArray[np.int64]]:
    """Make one array of sequences of different lengths.

    Parameters
    ----------
    sequences : iterable of array_like, each of shape (T_i, ...)
        The sequences, such as the ids of ``Vocabulary.encode``.
    value : float
        The value after the end of a sequence. A layer that is given the lengths never reads it.

    Returns
    -------
    array : ndarray of shape (N, T, ...)
        T is the length of the longest sequence, at least 1; the dtype holds all sequences.
    lengths : ndarray of int64, shape (N,)
        The argument ``lengths`` of a layer.

    Raises
    ------
    ArgumentError
        If the list is empty, or `value` is not one of the dtype.
    ShapeError
        If they differ in more than their lengths.
    DTypeError
        If a sequence is a str, or not made of numbers.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> vocab = tg.data.text.Vocabulary("ada bob")
    >>> x, lengths = tg.data.pad([vocab.encode(name) for name in ["ada", "bo"]])
    >>> x
    array([[1, 4, 1],
           [2, 5, 0]], dtype=uint8)
    >>> lengths
    array([3, 2])
    >>> layer = tg.nn.GRU(8, 16, batch_first=True)
    >>> output, state = layer(tg.nn.Embedding(len(vocab), 8)(x), lengths=lengths)
    >>> output.shape, state.shape
    ((2, 3, 16), (1, 2, 16))
    """
    arrays = _sequences("pad", sequences)
    return _padded("pad", arrays, value), np.array([len(a) for a in arrays], np.int64)


def ragged_batches(
    sequences: Iterable[Any],
    *arrays: Any,
    batch_size: int,
    shuffle: bool = True,
    rng: int | np.random.Generator | None = None,
    drop_last: bool = False,
    value: float = 0,
    bucket: int = 20,
) -> ResumableIterator[tuple[Tensor, ...]]:
    """Return one epoch of minibatches of sequences of different lengths.

    Each minibatch is padded to the length of its longest sequence. Sequences of similar length are
    put together: the random order is cut into parts of `bucket` minibatches, each part is sorted by
    length, and the minibatches are put in random order again.

    Parameters
    ----------
    sequences : iterable of array_like, each of shape (T_i, ...)
        The sequences, such as the ids of ``Vocabulary.encode``.
    *arrays : array_like or Tensor, each of shape (N, ...)
        Labels, and other arrays with one row for each sequence.
    batch_size : int
        B, the number of sequences in a minibatch.
    shuffle : bool
        Whether the minibatches are random. If not, the sequences stay in their order, so that the
        results can be compared with them.
    rng : int or numpy.random.Generator, optional
        The source of the random order; an integer gives the same order at every call. Default: the
        library's generator.
    drop_last : bool
        Whether to leave out the sequences that are too few for a last minibatch.
    value : float
        The value after the end of a sequence.
    bucket : int
        The minibatches of a part that is sorted by length; 1 for none.

    Returns
    -------
    ResumableIterator of tuple of Tensor
        The padded sequences (B, T, ...), their lengths (B,), and (B, ...) for each of `arrays`. The
        position in the epoch can be saved.

    Raises
    ------
    ShapeError
        If the numbers of rows differ, or the sequences differ in more than their lengths.
    ArgumentError
        If there are too few sequences for one minibatch.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> ids, labels = [[1], [2, 3, 4], [5, 6], [7, 8, 9]], [0, 1, 0, 1]
    >>> for x, lengths, y in tg.data.ragged_batches(ids, labels, batch_size=2, shuffle=False):
    ...     print(x.shape, lengths, y)
    (2, 3) tensor([1, 3]) tensor([0, 1])
    (2, 3) tensor([2, 3]) tensor([0, 1])
    """
    op = "ragged_batches"
    all_positive(op, batch_size=batch_size, bucket=bucket)
    rows = _sequences(op, sequences)
    sources = [a if isinstance(a, np.ndarray | Tensor) else tensor(a) for a in arrays]
    n, lengths = len(rows), np.array([len(row) for row in rows], np.int64)
    _padded(op, rows[:1], value)
    for source in sources:
        if not source.shape or source.shape[0] != n:
            raise ShapeError(f"{op}: {n} sequences, and an array of shape {tuple(source.shape)}")
    stop = n - n % batch_size if drop_last else n
    if stop == 0:
        raise ArgumentError(f"{op}: {n} sequences are too few for batch_size={batch_size}")
    count = -(-stop // batch_size)

    own = None if rng is None else tg_random.generator(rng)

    def draw() -> dict[str, Any]:
        if not shuffle:
            return {}
        generator = tg_random.generator(own)
        order = generator.permutation(n)
        for start in range(0, stop, bucket * batch_size):
            part = order[start : min(start + bucket * batch_size, stop)]
            part[:] = part[np.argsort(lengths[part], kind="stable")]
        turns = generator.permutation(count)
        return {"order": smallest_dtype(order), "turns": smallest_dtype(turns)}

    def plan(order: Any = None, turns: Any = None) -> tuple[int, GetBatch[tuple[Tensor, ...]]]:
        order = check_permutation(op, order, n) if shuffle else np.arange(n)
        turns = check_permutation(op, turns, count) if shuffle else np.arange(count)

        def get_batch(i: int) -> tuple[Tensor, ...]:
            first = turns[i] * batch_size
            chosen = order[first : min(first + batch_size, stop)]
            padded = _padded(op, [rows[k] for k in chosen], value)
            others = (take_rows(source, chosen) for source in sources)
            # The lengths are read on the host.
            return tensor(padded), tensor(lengths[chosen], device="cpu"), *others

        return count, get_batch

    settings = {
        "stream": op,
        "sequences": n,
        "steps": int(lengths.sum()),
        "shapes": [tuple(source.shape) for source in sources],
        "batch_size": int(batch_size),
        "shuffle": bool(shuffle),
        "drop_last": bool(drop_last),
        "bucket": int(bucket),
    }
    return ResumableIterator(settings, draw, plan, own)


def _values(x: Any) -> _Array:
    return x.numpy() if isinstance(x, Tensor) else backend.to_numpy(backend.asarray(x))


def _sequences(op: str, sequences: Any) -> list[_Array]:
    """Return the sequences as arrays; raise for those that cannot be padded together."""
    if isinstance(sequences, str | bytes | Mapping) or not isinstance(sequences, Iterable):
        raise ArgumentError(
            f"{op}: a list of sequences is expected, got a {class_name(sequences)}: such as "
            "[vocabulary.encode(text) for text in texts]"
        )
    if hasattr(sequences, "columns") and hasattr(sequences, "iloc"):
        raise ArgumentError(
            f"{op}: a list of sequences is expected, got a {class_name(sequences)}, whose rows "
            "have one length: use tinygrad_rnn.data.batches, or windows"
        )
    arrays: list[_Array] = []
    for i, sequence in enumerate(sequences):
        if isinstance(sequence, str | bytes):
            raise DTypeError(
                f"{op}: sequence {i} is the text {sequence!r:.40}: encode it, "
                "[vocabulary.encode(text) for text in texts]"
            )
        array = _values(sequence)
        if not array.ndim:
            raise ShapeError(
                f"{op}: sequence {i} is one number: a list of sequences is expected, such as "
                "[[1, 2], [3]]"
            )
        if arrays and array.shape[1:] != arrays[0].shape[1:]:
            raise ShapeError(
                f"{op}: sequences differ in their first axis only, (T, ...): sequence 0 is "
                f"{arrays[0].shape}, and sequence {i} {array.shape}"
            )
        arrays.append(array)
    if not arrays:
        raise ArgumentError(f"{op}: the list of sequences is empty")
    return arrays


def _padded(op: str, arrays: list[_Array], value: float) -> _Array:
    """Return (N, T, ...) of arrays (T_i, ...)."""
    dtype = np.result_type(*{a.dtype for a in arrays})
    steps = max(1, *map(len, arrays))  # a layer takes no array without a time step
    shape = len(arrays), steps, *arrays[0].shape[1:]
    try:
        filled = np.full(shape, value, dtype)
    except (TypeError, ValueError, OverflowError):
        filled = None
    if filled is None or (dtype.kind in "iub" and np.full((), value, dtype) != value):
        raise ArgumentError(f"{op}: value={value!r} is not one of {dtype}, that of the sequences")
    for row, array in zip(filled, arrays, strict=True):
        row[: len(array)] = array
    return filled
