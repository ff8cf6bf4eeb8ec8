"""Metrics that are accumulated over many batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .._util.state_keys import float_and_count
from ..engine import backend
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from ..functional import perplexity


class Perplexity:
    """Perplexity: exp of the mean loss over all tokens, accumulated over batches.

    The mean of the batches' perplexities would be larger: exp is convex, so that a few hard batches
    dominate, and a short batch would have the weight of a long one. Therefore the losses are
    averaged, weighted by their numbers of tokens, before exp is applied.

    Attributes
    ----------
    total : float
        Sum of the losses so far, in nats.
    count : int
        Number of tokens so far.

    Examples
    --------
    >>> import math
    >>> import tinygrad_rnn as tg
    >>> metric = tg.metrics.Perplexity()
    >>> metric.update(math.log(2), 30)
    >>> metric.update(math.log(16), 10)
    >>> round(metric.value, 3)  # 2 ** ((30 · 1 + 10 · 4) / 40), not (30 · 2 + 10 · 16) / 40 = 5.5
    3.364
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set the total and the count to zero."""
        self.total = 0.0
        self.count = 0

    def update(self, loss: Any, count: int | None = None) -> None:
        """Add the losses of some tokens.

        Parameters
        ----------
        loss : float, Tensor or array
            The mean loss of `count` tokens, in nats per token; without `count`, an array with the
            loss of each token, of any shape.
        count : int, optional
            The number of tokens of the mean.

        Raises
        ------
        ArgumentError
            If `loss` is a mean and `count` is missing, if it is an array and `count` is given, or
            if `count` is not an integer >= 0.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> metric = tg.metrics.Perplexity()
        >>> metric.update(tg.tensor([0.0, 1.0, 2.0]))
        >>> metric.nats
        1.0
        """
        array = loss._data if isinstance(loss, Tensor) else backend.asarray(loss, backend.float64)
        if count is None:
            if array.ndim == 0:
                raise ArgumentError(
                    "Perplexity.update: a mean loss needs its number of tokens: pass count="
                )
            self.total += backend.to_numpy(array.sum(dtype=backend.float64)).item()
            self.count += array.size
            return
        if isinstance(count, bool) or not hasattr(count, "__index__") or count.__index__() < 0:
            raise ArgumentError(f"Perplexity.update: count must be an integer >= 0, got {count!r}")
        if array.ndim:
            raise ArgumentError(
                f"Perplexity.update: with count=, one mean is expected, got losses {array.shape}: "
                "omit count=, or pass their mean"
            )
        if count:  # the mean of no tokens is nan
            self.total += backend.to_numpy(array).item() * int(count)
            self.count += int(count)

    def state_dict(self) -> dict[str, Any]:
        """Return the total and the count, for `load_state_dict`."""
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`.

        Parameters
        ----------
        state : mapping
            The result of `state_dict`.

        Raises
        ------
        ArgumentError
            If `state` does not fit; nothing was loaded.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> first, second = tg.metrics.Perplexity(), tg.metrics.Perplexity()
        >>> first.update(0.5, 10)
        >>> second.load_state_dict(first.state_dict())
        >>> second.nats
        0.5
        """
        self.total, self.count = float_and_count("Perplexity.load_state_dict", state, "total")

    @property
    def nats(self) -> float:
        """The mean loss in nats per token."""
        if not self.count:
            raise ArgumentError("Perplexity: no losses yet: call update")
        return self.total / self.count

    @property
    def bits(self) -> float:
        """The mean loss in bits per token."""
        return self.nats / math.log(2.0)

    @property
    def value(self) -> float:
        """The perplexity exp(mean loss): at best 1; V for a uniform prediction of V tokens."""
        return perplexity(self.nats)
