"""A stream of tokens in windows that end where a strategy cuts."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .. import random as tg_random
from .._util.resumable import GetBatch, ResumableIterator, check_offset
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from ..tensors.checks import all_positive, token_ids
from ..tensors.creation import tensor


class Window(tuple[Tensor, Tensor, bool]):
    """A window of a stream: the triple (x, y, first), with the strategy for this window.

    Parameters
    ----------
    x, y : Tensor of int64
        (T, B), the tokens and those that follow them.
    first : bool
        Whether it is the first window, which starts without a state.
    bptt : Strategy
        For the call of a layer with this window (``bptt=window.bptt``): it cuts the edge into the
        window (not that into the first one), and weighs the edges inside.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> windows = tg.bptt.Truncated(3).windows(np.arange(15), batch_size=2, rng=2)
    >>> [window.bptt.weights(len(window.x)) for window in windows]
    [[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]
    """

    bptt: Any

    def __new__(cls, x: Tensor, y: Tensor, first: bool, bptt: Any) -> Self:
        """Make the triple."""
        window = super().__new__(cls, (x, y, first))
        window.bptt = bptt
        return window

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (*self, self.bptt)

    @property
    def x(self) -> Tensor:
        """The tokens."""
        return self[0]

    @property
    def y(self) -> Tensor:
        """Those that follow them."""
        return self[1]

    @property
    def first(self) -> bool:
        """Whether it is the first window."""
        return self[2]


class Windows(ResumableIterator[Window]):
    """One epoch of the windows that `Strategy.windows` makes, where it is documented.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> strategy = tg.bptt.Truncated(3)
    >>> for window in strategy.windows(np.arange(15), batch_size=2, rng=2):
    ...     x, y, first = window
    ...     print(first, x.numpy().T.tolist(), y.numpy().T.tolist(), window.bptt.weights(3))
    True [[2, 3, 4], [8, 9, 10]] [[3, 4, 5], [9, 10, 11]] [1.0, 1.0, 1.0]
    False [[5, 6, 7], [11, 12, 13]] [[6, 7, 8], [12, 13, 14]] [0.0, 1.0, 1.0]
    """

    def __init__(
        self,
        strategy: Any,
        ids: npt.ArrayLike | Tensor,
        batch_size: int,
        rng: tg_random.Rng = None,
        device: str | None = None,
    ) -> None:
        name, period = f"{strategy!r}: windows", strategy.period
        stream = token_ids(name, ids)
        all_positive(name, batch_size=batch_size)
        length = (len(stream) - period) // batch_size
        if length < period:
            raise ArgumentError(
                f"{name}: a stream of {len(stream)} tokens is shorter than one window: "
                f"batch_size={batch_size} columns of {period} and the labels take "
                f"{period * (batch_size + 1)} tokens or more"
            )

        def plan(offset: Any, ends: Any) -> tuple[int, GetBatch[Window]]:
            offset = check_offset(name, offset, period)
            bounds = _increasing(name, ends, length)
            x, y = (
                stream[start : start + length * batch_size].reshape(batch_size, length).T
                for start in (offset, offset + 1)
            )

            def window(i: int) -> Window:
                rows = slice(bounds[i], bounds[i + 1])
                xs, ys = (np.ascontiguousarray(part[rows], np.int64) for part in (x, y))
                own = strategy.within(bounds[i], bounds[i + 1])
                return Window(tensor(xs, device=device), tensor(ys, device=device), i == 0, own)

            return len(bounds) - 1, window

        settings = {"stream": name, "tokens": len(stream), "batch_size": int(batch_size)}
        generator = tg_random.generator(strategy.rng if rng is None else rng)
        offset = int(generator.integers(period))
        ends = np.array([*strategy.cuts(length, generator), length])
        drawn = {"offset": offset, "ends": ends.astype(np.min_scalar_type(length))}
        super().__init__(settings, drawn, plan)


def _increasing(name: str, ends: Any, length: int) -> list[int]:
    """Return drawn ends, after 0, once they are known to be increasing and to reach the end."""
    integers = isinstance(ends, np.ndarray) and ends.ndim == 1 and ends.dtype.kind in "iu"
    bounds = [0, *(ends.tolist() if integers else ())]
    if bounds[-1] != length or bounds != sorted(set(bounds)):
        raise ArgumentError(f"{name}: the ends must increase from above 0 to {length}")
    return bounds
