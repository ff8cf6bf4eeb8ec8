"""A stream of tokens cut into minibatches; the label of a token is the token that follows it."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ... import random as tg_random
from ..._util.resumable import (
    GetBatch,
    ResumableIterator,
    check_offset,
    check_permutation,
    smallest_dtype,
)
from ...engine.tensor import Tensor
from ...errors import ArgumentError
from ...tensors.checks import all_positive, token_ids
from ...tensors.creation import tensor
from .text_file import TextFile

Rng = int | np.random.Generator | None
Ids = npt.ArrayLike | Tensor
Pairs = ResumableIterator[tuple[Tensor, Tensor]]
_Array = npt.NDArray[np.integer[Any]]
_Stream = TypeVar("_Stream", str, TextFile, list[str], list[int], npt.NDArray[Any], Tensor)


def split(ids: _Stream, valid: float = 0.1) -> tuple[_Stream, _Stream]:
    """Split a text or a stream of tokens by position: the end of it is held out.

    Parameters
    ----------
    ids : str, TextFile, list, ndarray or Tensor of length n
        Split the text itself and make the `Vocabulary` from the first part, so that nothing is
        learned from the held-out one.
    valid : float
        The share that is held out, at least 0 and less than 1.

    Returns
    -------
    train, valid : like `ids`

    Raises
    ------
    ArgumentError
        If a part that is wanted would be empty.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.data.text.split("the time traveller", valid=0.5)
    ('the time ', 'traveller')
    """
    if not 0 <= valid < 1:
        raise ArgumentError(f"split: valid is a share, 0 <= valid < 1, got {valid!r}")
    n = len(ids)
    held_out = round(n * valid)
    if held_out == n or (valid and not held_out):
        raise ArgumentError(f"split: valid={valid} of {n} tokens leaves one of the parts empty")
    return ids[: n - held_out], ids[n - held_out :]


def sequential(
    ids: Ids,
    batch_size: int,
    steps: int,
    rng: Rng = None,
    device: str | None = None,
    drop_last: bool = True,
) -> Pairs:
    """Return one epoch of windows, each of which continues the one before it.

    The stream, less a random offset, is cut into `batch_size` columns of equal length, and the
    columns into windows: row t of column b is followed by row t + 1, across windows too. So the
    state after a window is the initial state of the next; detach it in between (`tg.bptt.detach`),
    and start each epoch anew.

    Parameters
    ----------
    ids : array_like or Tensor of integers, shape (n,)
    batch_size : int
        The number of columns, B.
    steps : int
        The length of a window, T.
    rng : int or numpy.random.Generator, optional
        Where the offset, uniform on 0 … steps - 1, comes from; it is drawn at the call. An integer
        gives the same offset at every call. Default: the library's generator.
    device : str, optional
        Where the windows go. Default: the default device.
    drop_last : bool
        Whether to leave out the last window if it is shorter than `steps`, so that all have one
        shape. See the notes for what an epoch loses by it.

    Returns
    -------
    Stream of (x, y)
        An iterator, whose state can be saved in the middle of the epoch. x and y are int64 Tensors
        of shape (steps, batch_size), time first; y is x shifted by one: the token that follows.

    Raises
    ------
    ArgumentError
        If the stream is too short for one window at the largest offset.

    Notes
    -----
    A column has L = ⌊(n - steps) / batch_size⌋ tokens, of which an epoch leaves out L mod steps if
    `drop_last` is set: a large share where columns are only a few windows long. Which ones depends
    on the offset, so that over the epochs every token is used, save fewer than batch_size + steps
    at the end of the stream.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> for x, y in tg.data.text.sequential(np.arange(15), batch_size=2, steps=3, rng=2):
    ...     print(x.numpy().T.tolist(), y.numpy().T.tolist())
    [[2, 3, 4], [8, 9, 10]] [[3, 4, 5], [9, 10, 11]]
    [[5, 6, 7], [11, 12, 13]] [[6, 7, 8], [12, 13, 14]]
    """
    stream = token_ids("sequential", ids)
    all_positive("sequential", batch_size=batch_size, steps=steps)
    _long_enough("sequential", stream, batch_size, steps, batch_size * (steps if drop_last else 1))
    # The same length for every offset: all columns shift together, and what is left out with them.
    length = (len(stream) - steps) // batch_size
    stop = length - length % steps if drop_last else length

    def plan(offset: Any) -> tuple[int, GetBatch[tuple[Tensor, Tensor]]]:
        offset = check_offset("sequential", offset, steps)
        end = offset + length * batch_size
        x = stream[offset:end].reshape(batch_size, length).T
        y = stream[offset + 1 : end + 1].reshape(batch_size, length).T
        return _windows(x[:stop], y[:stop], steps, device)

    settings = _settings("sequential", stream, batch_size, steps, drop_last)
    return ResumableIterator(
        settings, {"offset": int(tg_random.generator(rng).integers(steps))}, plan
    )


def random(
    ids: Ids,
    batch_size: int,
    steps: int,
    rng: Rng = None,
    device: str | None = None,
    drop_last: bool = True,
) -> Pairs:
    """Return one epoch of windows in random order, which have nothing to do with each other.

    The stream, less a random offset, is cut into windows that do not overlap; a minibatch is
    `batch_size` of them at random. Every window starts from the initial state.

    Parameters
    ----------
    ids : array_like or Tensor of integers, shape (n,)
    batch_size : int
        The number of windows in a minibatch, B.
    steps : int
        The length of a window, T.
    rng : int or numpy.random.Generator, optional
        Where the offset, uniform on 0 … steps - 1, and the order come from; both are drawn at the
        call. An integer gives the same at every call. Default: the library's generator.
    device : str, optional
        Where the windows go. Default: the default device.
    drop_last : bool
        Whether to leave out the last minibatch if fewer than `batch_size` windows are left for it;
        they are others in each epoch.

    Returns
    -------
    Stream of (x, y)
        An iterator, whose state can be saved in the middle of the epoch. x and y are int64 Tensors
        of shape (steps, batch_size), time first; y is x shifted by one: the token that follows.

    Raises
    ------
    ArgumentError
        If the stream is too short for one minibatch at the largest offset.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> x, y = next(tg.data.text.random(np.arange(100), batch_size=2, steps=3))
    >>> bool((y.numpy() == x.numpy() + 1).all())
    True
    """
    stream = token_ids("random", ids)
    all_positive("random", batch_size=batch_size, steps=steps)
    _long_enough("random", stream, batch_size, steps, steps * (batch_size if drop_last else 1))

    def plan(offset: Any, order: Any) -> tuple[int, GetBatch[tuple[Tensor, Tensor]]]:
        offset = check_offset("random", offset, steps)
        count = (len(stream) - offset - 1) // steps
        order = check_permutation("random", order, count)
        stop = count - count % batch_size if drop_last else count

        def window(i: int) -> tuple[Tensor, Tensor]:
            first = offset + steps * order[i * batch_size : min((i + 1) * batch_size, stop)]
            positions = np.arange(steps)[:, None] + first
            return _on(device, stream[positions]), _on(device, stream[positions + 1])

        return -(-stop // batch_size), window

    generator = tg_random.generator(rng)
    offset = int(generator.integers(steps))
    order = smallest_dtype(generator.permutation((len(stream) - offset - 1) // steps))
    settings = _settings("random", stream, batch_size, steps, drop_last)
    return ResumableIterator(settings, {"offset": offset, "order": order}, plan)


def evaluation(ids: Ids, batch_size: int, steps: int, device: str | None = None) -> Pairs:
    """Return windows in which every token but the first is a label exactly once.

    As in `sequential`, each window continues the one before it and the state is carried. The first
    input of a column is the last label of the column before it, so that nothing is lost between
    columns.

    Parameters
    ----------
    ids : array_like or Tensor of integers, shape (n,)
    batch_size : int
        The number of columns, B.
    steps : int
        The length of a window, T.
    device : str, optional
        Where the windows go. Default: the default device.

    Returns
    -------
    Stream of (x, y)
        An iterator over int64 Tensors of shape (steps, batch_size), time first. Where the text is
        over, x is 0 and y is -1: pass ``ignore_index=-1`` to `tg.functional.cross_entropy`, sum its
        losses, and divide the total by n - 1.

    Raises
    ------
    ArgumentError
        If there are fewer than two tokens.

    Notes
    -----
    A column begins without what comes before it in the text, so that its first predictions are
    worse than they could be. With ``batch_size=1`` every prediction has all of its left context and
    the figure is exact; with more columns it is a little too high.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> for x, y in tg.data.text.evaluation(np.arange(8), batch_size=2, steps=3):
    ...     print(x.numpy().T.tolist(), y.numpy().T.tolist())
    [[0, 1, 2], [4, 5, 6]] [[1, 2, 3], [5, 6, 7]]
    [[3, 0, 0], [0, 0, 0]] [[4, -1, -1], [-1, -1, -1]]
    """
    stream = token_ids("evaluation", ids)
    all_positive("evaluation", batch_size=batch_size, steps=steps)
    if len(stream) < 2:
        raise ArgumentError(
            f"evaluation: {len(stream)} tokens hold no prediction: hold out two tokens or more"
        )
    predictions = len(stream) - 1
    length = -(-predictions // batch_size)  # of a column

    def window(i: int) -> tuple[Tensor, Tensor]:
        row = np.arange(i * steps, (i + 1) * steps)[:, None]
        position = row + length * np.arange(batch_size)
        there = (row < length) & (position < predictions)
        position = np.where(there, position, 0)
        x, y = (stream[position + shift].astype(np.int64) for shift in (0, 1))
        return _on(device, np.where(there, x, 0)), _on(device, np.where(there, y, -1))

    settings = _settings("evaluation", stream, batch_size, steps, False)
    return ResumableIterator(settings, {}, lambda: (-(-length // steps), window))


def _windows(
    x: _Array, y: _Array, steps: int, device: str | None
) -> tuple[int, GetBatch[tuple[Tensor, Tensor]]]:
    """Return how many windows of consecutive rows there are, and the function that cuts them."""

    def window(i: int) -> tuple[Tensor, Tensor]:
        rows = slice(i * steps, (i + 1) * steps)
        return _on(device, x[rows]), _on(device, y[rows])

    return -(-len(x) // steps), window


def _settings(
    name: str, stream: _Array, batch_size: int, steps: int, drop_last: bool
) -> dict[str, Any]:
    """Return what the windows depend on, to be compared when a saved place is loaded."""
    return {
        "stream": name,
        "tokens": len(stream),
        "batch_size": int(batch_size),
        "steps": int(steps),
        "drop_last": bool(drop_last),
    }


def _on(device: str | None, window: _Array) -> Tensor:
    return tensor(np.ascontiguousarray(window, np.int64), device=device)


def _long_enough(operation: str, stream: _Array, batch_size: int, steps: int, inputs: int) -> None:
    """Raise if the largest offset does not leave `inputs` tokens and the label of the last one."""
    least = (steps - 1) + inputs + 1
    if len(stream) < least:
        raise ArgumentError(
            f"{operation}: {len(stream)} tokens are too few for batch_size={batch_size} and "
            f"steps={steps}, which take {least}: use a smaller batch_size or steps, or more text"
        )
