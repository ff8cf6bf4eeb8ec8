"""A stream of tokens in windows that end where a strategy cuts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .. import random as tg_random
from .._util.resumable import ResumableIterator, check_offset
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
        window (not that into the first one), and has the weights of the edges inside.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> windows = tg.bptt.Truncated(3).windows(np.arange(15), batch_size=2, rng=2)
    >>> [window.bptt.weights(len(window.x)) for window in windows]
    [[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]
    """

    bptt: Any  # a Strategy: `strategies` imports this module

    def __new__(cls, x: Tensor, y: Tensor, first: bool, bptt: Any) -> Self:
        """Create the triple and attach the strategy."""
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
        """The tokens that follow those of x."""
        return self[1]

    @property
    def first(self) -> bool:
        """Whether it is the first window."""
        return self[2]


class Windows(ResumableIterator[Window]):
    """One epoch of windows over a stream of tokens; `Strategy.windows` documents it.

    Parameters
    ----------
    name : str
        The strategy, for errors, and to recognize it in a saved position.
    ids : array_like or Tensor of integers, shape (n,)
        The tokens.
    batch_size : int
        B.
    rng : numpy.random.Generator or None
        Source of the offset and of the cuts; None is the library's generator.
    device : str or None
        Device of the windows.
    period : int
        The offset is drawn below it; the first window needs as many steps.
    cuts : callable
        From T and a generator to the edges that are cut, in order.
    bptt : callable
        From the first step of a window and its end to the strategy of the window.

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
        name: str,
        ids: npt.ArrayLike | Tensor,
        batch_size: int,
        rng: np.random.Generator | None,
        device: str | None,
        period: int,
        cuts: Callable[[int, np.random.Generator], Collection[int]],
        bptt: Callable[[int, int], Any],
    ) -> None:
        name = f"{name}: windows"
        stream = token_ids(name, ids)
        all_positive(name, batch_size=batch_size)
        length = (len(stream) - period) // batch_size
        if length < period:
            raise ArgumentError(
                f"{name}: a stream of {len(stream)} tokens is shorter than one window: "
                f"batch_size={batch_size} columns of {period} and the labels take "
                f"{period * (batch_size + 1)} tokens or more"
            )

        def plan(offset: Any, ends: Any) -> tuple[int, Callable[[int], Window]]:
            offset = check_offset(name, offset, period)
            bounds = _increasing(name, ends, length)
            x, y = (
                stream[start : start + length * batch_size].reshape(batch_size, length).T
                for start in (offset, offset + 1)
            )

            def window(i: int) -> Window:
                start, stop = bounds[i], bounds[i + 1]
                tokens, following = (
                    tensor(np.ascontiguousarray(part[start:stop], np.int64), device=device)
                    for part in (x, y)
                )
                return Window(tokens, following, i == 0, bptt(start, stop))

            return len(bounds) - 1, window

        settings = {"stream": name, "tokens": len(stream), "batch_size": int(batch_size)}

        def draw() -> dict[str, Any]:
            generator = tg_random.generator(rng)
            offset = int(generator.integers(period))
            ends = np.array([*cuts(length, generator), length])
            return {"offset": offset, "ends": ends.astype(np.min_scalar_type(length))}

        super().__init__(settings, draw, plan, rng, carries_state=True, batch_axis=1)


def _increasing(name: str, ends: Any, length: int) -> list[int]:
    """Return the bounds of the windows, 0 and the saved ends, if they increase up to `length`."""
    integers = isinstance(ends, np.ndarray) and ends.ndim == 1 and ends.dtype.kind in "iu"
    bounds = [0, *(ends.tolist() if integers else ())]
    if bounds[-1] != length or bounds != sorted(set(bounds)):
        raise ArgumentError(f"{name}: the ends must increase from above 0 to {length}")
    return bounds
