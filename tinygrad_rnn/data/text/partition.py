"""Minibatches of consecutive tokens; the label of a token is the token after it."""

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
from ...random import Rng
from ...tensors.checks import all_positive, token_ids
from ...tensors.creation import tensor
from .text_file import TextFile

Ids = npt.ArrayLike | Tensor
WindowIterator = ResumableIterator[tuple[Tensor, Tensor]]
_Array = npt.NDArray[np.integer[Any]]
_Text = TypeVar("_Text", str, TextFile, list[str], list[int], npt.NDArray[Any], Tensor)


def split(ids: _Text, valid: float = 0.1) -> tuple[_Text, _Text]:
    """Split a text or its token ids by position: the end is held out.

    Parameters
    ----------
    ids : str, TextFile, list, ndarray or Tensor of length n
        Split the text itself and make the `Vocabulary` from the first part, so that the vocabulary
        does not depend on held-out text.
    valid : float
        The fraction that is held out, at least 0 and less than 1.

    Returns
    -------
    train, valid : like `ids`

    Raises
    ------
    ArgumentError
        If `valid` is out of range, or one of the parts would be empty.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.data.text.split("the time traveller", valid=0.5)
    ('the time ', 'traveller')
    """
    if not 0 <= valid < 1:
        raise ArgumentError(f"split: valid must be a fraction, 0 <= valid < 1, got {valid!r}")
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
) -> WindowIterator:
    """Return one epoch of windows, each of which continues the previous one.

    The tokens after a random offset are split into `batch_size` columns of equal length, and the
    columns into windows: row t of column b is followed by row t + 1, across windows too. So the
    state after a window is the initial state of the next one; detach it in between
    (`tg.bptt.detach`), and reset it at the start of each epoch.

    Parameters
    ----------
    ids : array_like or Tensor of integers, shape (n,)
    batch_size : int
        The number of columns, B.
    steps : int
        The length of a window, T.
    rng : int or numpy.random.Generator, optional
        The source of the offset, which is uniform on 0 … steps - 1 and drawn at the call. An
        integer gives the same offset at every call. Default: the library's generator.
    device : str, optional
        The device of the windows. Default: the default device.
    drop_last : bool
        Whether to drop the last window if it is shorter than `steps`, so that all windows have the
        same shape. The notes say how many tokens an epoch drops.

    Returns
    -------
    ResumableIterator of (x, y)
        x and y are int64 Tensors of shape (steps, batch_size), time first; y is x shifted by one
        token. The position in the epoch can be saved.

    Raises
    ------
    ArgumentError
        If there are too few tokens for one window at the largest offset.

    Notes
    -----
    A column has L = ⌊(n - steps) / batch_size⌋ tokens, of which an epoch drops L mod steps if
    `drop_last` is set: a large fraction if columns are only a few windows long. The dropped tokens
    depend on the offset, so that over the epochs all tokens are used except fewer than
    batch_size + steps at the end.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> for x, y in tg.data.text.sequential(np.arange(15), batch_size=2, steps=3, rng=2):
    ...     print(x.numpy().T.tolist(), y.numpy().T.tolist())
    [[2, 3, 4], [8, 9, 10]] [[3, 4, 5], [9, 10, 11]]
    [[5, 6, 7], [11, 12, 13]] [[6, 7, 8], [12, 13, 14]]
    """
    tokens = token_ids("sequential", ids)
    all_positive("sequential", batch_size=batch_size, steps=steps)
    _check_length("sequential", tokens, batch_size, steps, batch_size * (steps if drop_last else 1))
    # The length does not depend on the offset, so that every epoch has the same number of windows.
    length = (len(tokens) - steps) // batch_size
    stop = length - length % steps if drop_last else length

    def plan(offset: Any) -> tuple[int, GetBatch[tuple[Tensor, Tensor]]]:
        offset = check_offset("sequential", offset, steps)
        end = offset + length * batch_size
        x = tokens[offset:end].reshape(batch_size, length).T
        y = tokens[offset + 1 : end + 1].reshape(batch_size, length).T
        return _windows(x[:stop], y[:stop], steps, device)

    settings = _settings("sequential", tokens, batch_size, steps, drop_last)
    own = None if rng is None else tg_random.generator(rng)

    def draw() -> dict[str, Any]:
        return {"offset": int(tg_random.generator(own).integers(steps))}

    return ResumableIterator(settings, draw, plan, own, carries_state=True, batch_axis=1)


def random(
    ids: Ids,
    batch_size: int,
    steps: int,
    rng: Rng = None,
    device: str | None = None,
    drop_last: bool = True,
) -> WindowIterator:
    """Return one epoch of independent windows in random order.

    The tokens after a random offset are split into windows that do not overlap; a minibatch
    consists of `batch_size` random ones. Every window starts from the initial state.

    Parameters
    ----------
    ids : array_like or Tensor of integers, shape (n,)
    batch_size : int
        The number of windows in a minibatch, B.
    steps : int
        The length of a window, T.
    rng : int or numpy.random.Generator, optional
        The source of the offset, which is uniform on 0 … steps - 1, and of the order; both are
        drawn at the call. An integer gives the same ones at every call. Default: the library's
        generator.
    device : str, optional
        The device of the windows. Default: the default device.
    drop_last : bool
        Whether to drop the last minibatch if it has fewer than `batch_size` windows; each epoch
        drops other windows.

    Returns
    -------
    ResumableIterator of (x, y)
        x and y are int64 Tensors of shape (steps, batch_size), time first; y is x shifted by one
        token. The position in the epoch can be saved.

    Raises
    ------
    ArgumentError
        If there are too few tokens for one minibatch at the largest offset.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> x, y = next(tg.data.text.random(np.arange(100), batch_size=2, steps=3))
    >>> bool((y.numpy() == x.numpy() + 1).all())
    True
    """
    tokens = token_ids("random", ids)
    all_positive("random", batch_size=batch_size, steps=steps)
    _check_length("random", tokens, batch_size, steps, steps * (batch_size if drop_last else 1))

    def plan(offset: Any, order: Any) -> tuple[int, GetBatch[tuple[Tensor, Tensor]]]:
        offset = check_offset("random", offset, steps)
        count = (len(tokens) - offset - 1) // steps
        order = check_permutation("random", order, count)
        stop = count - count % batch_size if drop_last else count

        def get_batch(i: int) -> tuple[Tensor, Tensor]:
            first = offset + steps * order[i * batch_size : min((i + 1) * batch_size, stop)]
            positions = np.arange(steps)[:, None] + first
            x, y = tokens[positions], tokens[positions + 1]
            return _to_tensor(x, device), _to_tensor(y, device)

        return -(-stop // batch_size), get_batch

    own = None if rng is None else tg_random.generator(rng)

    def draw() -> dict[str, Any]:
        generator = tg_random.generator(own)
        offset = int(generator.integers(steps))
        order = generator.permutation((len(tokens) - offset - 1) // steps)
        return {"offset": offset, "order": smallest_dtype(order)}

    settings = _settings("random", tokens, batch_size, steps, drop_last)
    return ResumableIterator(settings, draw, plan, own, batch_axis=1)


def evaluation(ids: Ids, batch_size: int, steps: int, device: str | None = None) -> WindowIterator:
    """Return windows in which every token except the first is a label exactly once.

    As in `sequential`, each window continues the previous one and the state is carried. The first
    input of a column is the last label of the previous column, so that no label is lost between
    columns.

    Parameters
    ----------
    ids : array_like or Tensor of integers, shape (n,)
    batch_size : int
        The number of columns, B.
    steps : int
        The length of a window, T.
    device : str, optional
        The device of the windows. Default: the default device.

    Returns
    -------
    ResumableIterator of (x, y)
        x and y are int64 Tensors of shape (steps, batch_size), time first. After the end of the
        text, x is padded by 0 and y by -1: pass ``ignore_index=-1`` to
        `tg.functional.cross_entropy`, sum its losses, and divide the total by n - 1.

    Raises
    ------
    ArgumentError
        If there are fewer than two tokens.

    Notes
    -----
    The first predictions of a column lack the text before the column, and are worse than they could
    be. With ``batch_size=1`` every prediction has its full left context and the mean loss is exact;
    with more columns it is a little too high.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> for x, y in tg.data.text.evaluation(np.arange(8), batch_size=2, steps=3):
    ...     print(x.numpy().T.tolist(), y.numpy().T.tolist())
    [[0, 1, 2], [4, 5, 6]] [[1, 2, 3], [5, 6, 7]]
    [[3, 0, 0], [0, 0, 0]] [[4, -1, -1], [-1, -1, -1]]
    """
    tokens = token_ids("evaluation", ids)
    all_positive("evaluation", batch_size=batch_size, steps=steps)
    if len(tokens) < 2:
        raise ArgumentError(
            f"evaluation: {len(tokens)} tokens contain no prediction: hold out two tokens or more"
        )
    predictions = len(tokens) - 1
    length = -(-predictions // batch_size)  # of a column

    def get_batch(i: int) -> tuple[Tensor, Tensor]:
        row = np.arange(i * steps, (i + 1) * steps)[:, None]
        position = row + length * np.arange(batch_size)
        valid = (row < length) & (position < predictions)
        position = np.where(valid, position, 0)
        x, y = (tokens[position + shift].astype(np.int64) for shift in (0, 1))
        return _to_tensor(np.where(valid, x, 0), device), _to_tensor(np.where(valid, y, -1), device)

    settings = _settings("evaluation", tokens, batch_size, steps, False)
    count = -(-length // steps)
    return ResumableIterator(settings, {}, lambda: (count, get_batch), None, True, batch_axis=1)


def _windows(
    x: _Array, y: _Array, steps: int, device: str | None
) -> tuple[int, GetBatch[tuple[Tensor, Tensor]]]:
    """Return the number of windows of consecutive rows, and the function that slices them."""

    def get_batch(i: int) -> tuple[Tensor, Tensor]:
        rows = slice(i * steps, (i + 1) * steps)
        return _to_tensor(x[rows], device), _to_tensor(y[rows], device)

    return -(-len(x) // steps), get_batch


def _settings(
    name: str, tokens: _Array, batch_size: int, steps: int, drop_last: bool
) -> dict[str, Any]:
    """Return the settings that the windows depend on, which a loaded state must have too."""
    return {
        "stream": name,
        "tokens": len(tokens),
        "batch_size": int(batch_size),
        "steps": int(steps),
        "drop_last": bool(drop_last),
    }


def _to_tensor(window: _Array, device: str | None) -> Tensor:
    return tensor(np.ascontiguousarray(window, np.int64), device=device)


def _check_length(operation: str, tokens: _Array, batch_size: int, steps: int, inputs: int) -> None:
    """Raise unless the largest offset leaves `inputs` tokens and the label of the last one."""
    least = (steps - 1) + inputs + 1
    if len(tokens) < least:
        raise ArgumentError(
            f"{operation}: {len(tokens)} tokens are too few for batch_size={batch_size} and "
            f"steps={steps}, which need {least}: use a smaller batch_size or steps, or more text"
        )
