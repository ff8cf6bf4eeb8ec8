"""Ragged batches: sequences of different lengths in one padded array.

Letters: T padded length, S length of the longest sequence (at least 1), B batch.

After the end of a sequence its row of the batch is computed with the input and the state of the
longest sequence, and the result is not used. So a step never computes a value or a derivative that
no sequence needs: the derivative of a logarithm at the zeros of a padding is infinite, and nan
once it is multiplied by the gradient 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import tensors as ops
from .._util.nested import leaves, map_nested
from ..engine import backend
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from ..tensors.creation import tensor, zeros

State = Any


class RaggedBatch(NamedTuple):
    """Masks of a ragged batch: which sequences have which steps."""

    padded: int  # T
    mask: Tensor  # (S, B, 1), of all steps
    steps: list[Tensor | None]  # (B, 1) for each step; None where every sequence has the step
    edges: list[Tensor | None]  # (B, 1) for the edge into each step; None: every sequence has it
    longest: slice | None  # the row of one longest sequence; None if all sequences are empty

    def segment(self, start: int, stop: int, reverse: bool) -> RaggedBatch:
        """Return the masks for the steps start … stop - 1 of a loop over all steps."""
        edges = edges_of(self.edges, start, stop, reverse)
        return self._replace(steps=self.steps[start:stop], edges=edges)

    def fill(self, x: Tensor) -> Tensor:
        """Return the first S steps of x (T, B, ...) with the padding replaced.

        The padding, nan included, must not reach a value or a gradient. It is replaced by the
        values of the longest sequence, without a gradient. If all sequences are empty, by 0.5,
        where logarithms, roots and inverses of x and of 1 - x are finite.
        """
        x = x if len(x) == len(self.mask) else x[: len(self.mask)]
        mask = _expanded(self.mask, x)
        if self.longest is None:
            return ops.where(mask, x, 0.5 if x.dtype.kind == "f" else _zero(x))
        return ops.where(mask, x, x.detach()[:, self.longest])

    def fill_state(self, mask: Tensor, state: State) -> State:
        """Return a state with the longest sequence's row in place of those of ended sequences."""
        if self.longest is None:
            return state
        return map_nested(
            lambda s: (
                s if s is None else ops.where(_expanded(mask, s), s, s.detach()[self.longest])
            ),
            state,
        )

    def zero_padding(self, y: Tensor) -> Tensor:
        """Return y (S, B, ...) as (T, B, ...), zero after the end of each sequence."""
        y = ops.where(_expanded(self.mask, y), y, _zero(y))
        if len(y) == self.padded:
            return y
        rest = zeros((self.padded - len(y), *y.shape[1:]), dtype=y.dtype, device=y.device)
        return ops.concatenate([y, rest], axis=0)


def ragged_batch(
    lengths: Any, steps: int, batch: int, device: str, name: str, hint: str = ""
) -> RaggedBatch | None:
    """Return the masks of a batch with these lengths.

    Parameters
    ----------
    lengths : sequence, array or Tensor of B integers, or None
        The number of steps of each sequence, from 0 to T.
    steps, batch : int
        T and B.
    device : str
        Device of the masks.
    name : str
        The function that `lengths` is an argument of, for the error.
    hint : str
        Added to the error if there are T lengths in place of B.

    Returns
    -------
    RaggedBatch or None
        None if every sequence has T steps.

    Raises
    ------
    ArgumentError
        If `lengths` are not B integers from 0 to T.
    """
    if lengths is None:
        return None
    given = lengths._data if isinstance(lengths, Tensor) else lengths
    wanted = f"{name}: lengths are {batch} integers from 0 to {steps}, got"
    try:
        array = backend.to_numpy(backend.asarray(given))
    except (TypeError, ValueError):  # not numbers, or rows of different lengths
        raise ArgumentError(f"{wanted} {given!r:.60}") from None
    in_range = not array.size or (array.min() >= 0 and array.max() <= steps)
    if array.shape != (batch,) or array.dtype.kind not in "iu" or not in_range:
        hint = hint if array.shape == (steps,) != (batch,) else ""
        raise ArgumentError(f"{wanted} {array.tolist()}{hint}")
    ends: list[int] = array.tolist()
    if all(end == steps for end in ends):
        return None
    # If every sequence is empty, one step of padding is computed, so that the result has a graph.
    count = max(1, *ends)
    mask = tensor(np.arange(count).reshape(-1, 1, 1) < array.reshape(1, batch, 1), device=device)
    masks = [m if t >= min(ends) else None for t, m in enumerate(ops.unbind(mask))]
    row = ends.index(max(ends))
    longest = slice(row, row + 1) if max(ends) else None
    # A sequence has edge t if it has step t. The edge from the initial state is in every sequence.
    return RaggedBatch(steps, mask, masks, [None, *masks[1:]], longest)


def edges_of(edges: list[Any], start: int, stop: int, reverse: bool) -> list[Any]:
    """Return the edges that a loop over the steps start … stop - 1 crosses.

    Parameters
    ----------
    edges : list of T values
        Edge t > 0 connects the steps t - 1 and t; edge 0 comes from the initial state.
    start, stop : int
        The segment.
    reverse : bool
        Whether the loop goes from the last step to the first.

    Returns
    -------
    list of stop - start values
        In the same convention: the edge into the segment, then those inside it.
    """
    first = edges[stop % len(edges)] if reverse else edges[start]
    return [first, *edges[start + 1 : stop]]


def in_loop_order(edges: Sequence[Any], reverse: bool) -> list[Any]:
    """Return the values of edges in the order in which a loop crosses them."""
    return [edges[0], *edges[:0:-1]] if reverse else list(edges)


def select(mask: Tensor | None, one: State, other: State) -> State:
    """Return the rows of one state where the mask is true (everywhere if None), else of another."""
    if mask is None:
        return one
    others = iter(leaves(other))

    def chosen(element: Tensor | None) -> Tensor | None:
        unchosen = next(others)
        return None if element is None else ops.where(_expanded(mask, element), element, unchosen)

    return map_nested(chosen, one)


def _expanded(mask: Tensor, x: Tensor) -> Tensor:
    """Return a mask (B, 1) or (S, B, 1) with as many axes as x (B, ...) or (S, B, ...) has."""
    if x.ndim == mask.ndim:
        return mask
    leading = mask.shape[:-1]
    return ops.reshape(mask, (*leading, *[1] * (x.ndim - len(leading))))


def _zero(x: Tensor) -> Any:
    """Return a zero that does not change the dtype of x."""
    return 0.0 if x.dtype.kind == "f" else zeros((), dtype=x.dtype, device=x.device)
