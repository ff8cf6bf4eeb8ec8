"""Strategies: which edges between time steps are cut, and how the others are weighed.

Letters: T time steps, numbered from 0; edge t leads from step t - 1 into step t, for 0 < t < T; ξ_t
multiplies the gradient that flows back through it (`scale_gradient`); π_t is the probability to
keep it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from .. import random as tg_random
from ..engine.grad_mode import is_grad_enabled
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from ..tensors.checks import all_positive
from ..transforms.checkpoint import checkpoint as recomputed
from .state import detach
from .windows import Windows

if TYPE_CHECKING:
    Flat = Sequence[Tensor]  # the elements of a state
    Segment = Callable[[int, int], Callable[..., Flat]]


class Strategy:
    """What the strategies share; use `Full`, `Truncated` or `Randomized`.

    A strategy belongs to a layer (``bptt=`` of the constructor) or to one call of it. There is one
    ξ for each time step: all sequences of a batch, all layers and all elements of the state are cut
    at the same edges, so that the graph really ends there. The edge from a given initial state is
    whole; `windows` and `detach` cut it.

    A reverse direction crosses edge t from step t to step t - 1, with the ξ_t of the forward one.
    In a stack of bidirectional layers each layer draws anew: a path can go forward in one layer and
    back in the next, and a ξ_t that it met twice would have the mean 1/π_t, not 1.

    Under `no_grad` there is nothing to cut.

    A strategy is a value: no call of it changes what another one does.
    """

    overlaps = False  # whether an edge is open for one loss and cut for another
    period = 1  # of the edges that are cut, if there is one
    rng: np.random.Generator | None = None

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # nothing in it changes but its generator, which a copied layer shares

    def weights(self, steps: int, training: bool = True) -> list[float]:
        """Return the weight of the edge into each step, for a loop of one's own.

        Parameters
        ----------
        steps : int
            T.
        training : bool
            Whether edges may be cut at random; a layer passes its own ``training``.

        Returns
        -------
        list of T floats
            ξ_0 … ξ_{T-1}, for `scale_gradient`. ξ_0 is for the state that the loop starts from, and
            is 1; for the strategy of a window, 0, as it is cut off from the one before it.

        Raises
        ------
        ArgumentError
            If `steps` is no positive integer; for the strategy of a window, if the window does not
            have as many steps.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> tg.bptt.Truncated(2).weights(5)
        [1.0, 1.0, 0.0, 1.0, 0.0]
        """
        all_positive("bptt: weights", steps=steps)
        if not is_grad_enabled():
            return [1.0] * steps
        return self._between(0, steps, self.cuts(steps, tg_random.generator(self.rng)))

    def walk(
        self, segment: Segment, steps: int, state: Flat, cuts: Sequence[int] = ()
    ) -> tuple[Flat, list[Tensor]]:
        """Run a recurrence over its time steps, in segments if the strategy wants it so.

        A layer calls this; `weights` say what happens between the steps of a segment.

        Parameters
        ----------
        segment : callable
            From ``(start, stop)`` to the function of these steps: from the elements of the state to
            those of the new state and whatever else is wanted of the segment.
        steps : int
            T.
        state : sequence of Tensors
            The elements of the initial state.
        cuts : sequence of int
            Edges of weight 0 that must not lie inside a segment.

        Returns
        -------
        state : sequence of Tensors
            The elements of the final state.
        outputs : list of Tensors
            What else the segments returned, in the order of time.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> def segment(start, stop):
        ...     return lambda h: (h + (stop - start), h)
        >>> tg.bptt.Full().walk(segment, 5, [tg.zeros(1)])
        ([tensor([5.])], [tensor([0.])])
        """
        outputs: list[Tensor] = []
        for start, stop in pairwise([0, *cuts, steps]):
            results = list(segment(start, stop)(*state))
            outputs += results[len(state) :]
            state = results[: len(state)]
        return state, outputs

    def windows(
        self,
        ids: npt.ArrayLike | Tensor,
        batch_size: int,
        rng: tg_random.Rng = None,
        device: str | None = None,
    ) -> Windows:
        """Return one epoch of windows over a stream of tokens, cut where the strategy cuts.

        The stream is laid out in `batch_size` columns of equal length, and each window continues
        the one before it, so hand the state on. It need not be detached: give the layers the
        strategy of the window, ``bptt=window.bptt``. It cuts the edge into the window (not that
        into the first one) and weighs the edges inside. The strategy that made the windows stays
        as it is, for other data and other epochs.

        Parameters
        ----------
        ids : array_like or Tensor of integers, shape (n,)
        batch_size : int
            The number of columns, B.
        rng : int or numpy.random.Generator, optional
            Where the cuts come from; drawn at the call. Default: the generator of the strategy, or
            else the library's.
        device : str, optional
            Where the windows go. Default: the default device.

        Returns
        -------
        Windows
            An iterator over `Window` triples (x, y, first): int64 Tensors of shape (T, B), time
            first, y being x shifted by one; and whether this is the first window, which starts
            without a state. Its place can be saved in the middle of the epoch (`state_dict`).

        Raises
        ------
        ArgumentError
            If the stream is too short for a window, or the strategy is ``Truncated(stride=)``.

        Notes
        -----
        `Full` makes one window of all; `Truncated` windows of its `steps` from a random offset on,
        of which the last can be shorter; `Randomized` ends a window where ξ_t = 0 was drawn, and
        weighs every edge inside by 1/π_t. So its gradient, summed over the epoch, is unbiased as
        that of one long sequence. Windows of a fixed length with random cuts inside are not: their
        ends are cuts that nothing makes up for.

        The strategy of a window goes before that of the layer's constructor. A layer that uses
        `Randomized` itself in place of ``window.bptt`` draws other cuts inside the window, and the
        gradient is biased; the layer cannot tell, as it sees a Tensor only.

        Examples
        --------
        >>> import numpy as np
        >>> import tinygrad_rnn as tg
        >>> strategy, ids = tg.bptt.Randomized(0.8), np.arange(41) % 7
        >>> layer = tg.nn.GRU(7, 16)
        >>> lengths = []
        >>> for window in strategy.windows(ids, batch_size=2, rng=0):
        ...     x, y, first = window
        ...     x = tg.functional.one_hot(x, 7)
        ...     output, state = layer(x, None if first else state, bptt=window.bptt)
        ...     output.sum().backward()
        ...     lengths.append(len(x))
        >>> lengths
        [5, 2, 6, 1, 6]
        """
        self._check_stream()
        return Windows(self, ids, batch_size, rng, device)

    def within(self, first: int, stop: int) -> Strategy:
        """Return the strategy for a window of a stream, which begins and ends where it is cut.

        Parameters
        ----------
        first, stop : int
            The window has the steps first … stop - 1 of the stream.

        Returns
        -------
        Strategy
            For data of stop - first steps. The edge into step `first` has the weight 0 (1 for step
            0 of the stream), and no edge inside is cut, in training or not.

        Raises
        ------
        ArgumentError
            If the strategy is ``Truncated(stride=)``.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> tg.bptt.Randomized(0.8).within(10, 14).weights(4)
        [0.0, 1.25, 1.25, 1.25]
        """
        self._check_stream()
        return _Within(self, first, stop)

    def _check_stream(self) -> None:
        if self.overlaps:
            raise ArgumentError(
                f"{self!r}: windows: the reach of a block would go beyond its window; stride is "
                "for whole sequences, leave it out for a stream"
            )

    def cuts(self, steps: int, rng: np.random.Generator) -> Collection[int]:
        """Return the edges of a sequence that are cut, in order, drawn anew if at random."""
        return ()

    def _kept(self, first: int, stop: int) -> list[float]:
        """Return the weights of the edges first … stop - 1 where they are not cut."""
        return [1.0] * (stop - first)

    def _between(self, first: int, stop: int, cuts: Iterable[int]) -> list[float]:
        """Return the weights of the edges into the steps first … stop - 1."""
        weights = [0.0 if first else 1.0, *self._kept(first + 1, stop)]
        for t in cuts:
            weights[t - first] = 0.0
        return weights


class _Within(Strategy):
    """What `Strategy.within` returns."""

    def __init__(self, whole: Strategy, first: int, stop: int) -> None:
        self.whole, self.first, self.stop = whole, first, stop

    def __repr__(self) -> str:
        return f"{self.whole!r}.within({self.first}, {self.stop})"

    def weights(self, steps: int, training: bool = True) -> list[float]:
        """Return the weights as `Strategy.weights` says."""
        all_positive("bptt: weights", steps=steps)
        if not is_grad_enabled():
            return [1.0] * steps
        if self.stop - self.first != steps:
            raise ArgumentError(
                f"{self!r} is for the {self.stop - self.first} steps of its window, and {steps} "
                f"steps came: give other data another strategy, such as bptt={self.whole!r}"
            )
        return self.whole._between(self.first, self.stop, ())

    def walk(
        self, segment: Segment, steps: int, state: Flat, cuts: Sequence[int] = ()
    ) -> tuple[Flat, list[Tensor]]:
        """Run a recurrence as `Strategy.walk` says, in the segments of the whole stream's."""
        return self.whole.walk(segment, steps, state, cuts)


class Full(Strategy):
    """Backpropagation through all time steps: the exact gradient.

    Parameters
    ----------
    checkpoint : bool
        Whether to keep the state at about √T steps only, and to compute what is between them again
        when the backward pass comes there.

    Notes
    -----
    With `checkpoint` memory grows like √T instead of T, for one more forward pass (Chen, Xu, Zhang
    and Guestrin 2016, arXiv:1604.06174; for recurrent networks, Gruslys and others 2016,
    arXiv:1606.03401). Outputs are the same, to the bit on the CPU, and random masks are drawn the
    same again. The output of all steps, (T, B, H), is still kept where it is wanted: see
    ``output=False`` of the layers. In a bidirectional layer that of each layer is kept.

    The backward pass compares the results of each segment with those of the forward pass, as
    `tinygrad_rnn.checkpoint` does; on a GPU the host waits for the device once for each segment.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> layer = tg.nn.GRU(3, 5, num_layers=2, bptt=tg.bptt.Full(checkpoint=True))
    >>> _, state = layer(tg.randn(1000, 2, 3), output=False)
    >>> state.sum().backward()
    >>> layer.weight_hh_l1.grad.shape
    (15, 5)
    """

    def __init__(self, checkpoint: bool = False) -> None:
        self.checkpoint = bool(checkpoint)

    def __repr__(self) -> str:
        return f"Full({'checkpoint=True' if self.checkpoint else ''})"

    def walk(
        self, segment: Segment, steps: int, state: Flat, cuts: Sequence[int] = ()
    ) -> tuple[Flat, list[Tensor]]:
        """Run a recurrence as `Strategy.walk` says, in √T segments if it is checkpointed."""
        if not (self.checkpoint and is_grad_enabled()):
            return super().walk(segment, steps, state, cuts)
        count, outputs = math.isqrt(steps), []
        for start, stop in pairwise(i * steps // count for i in range(count + 1)):
            results = list(recomputed(segment(start, stop), *state))
            outputs += results[len(state) :]
            state = results[: len(state)]
        return state, outputs


class Truncated(Strategy):
    """Truncated backpropagation through time: no loss reaches back further than some steps.

    Parameters
    ----------
    steps : int
        k2: how far back. Without `stride` every edge t with t mod `steps` = 0 is cut.
    stride : int, optional
        k1 ≤ k2: the losses of each block of k1 steps reach back k2 steps, counted from the end of
        the block (where it would be, if the sequence ends before). As an edge is then open for one
        block and cut for another, the k2 - k1 steps before each block are computed again, with the
        same random numbers: about k2/k1 times the cost.

    Notes
    -----
    The form with k1 and k2 is BPTT(h; h') of Williams and Peng (1990), h = k2 and h' = k1; cutting
    every k steps is the common case k1 = k2. The gradient is biased: what depends on more than
    `steps` steps is not learned.

    With `stride` the final state of a sequence that ended before the last block, in a ragged batch,
    has no gradient: take its last output.

    `stride` is for whole sequences given to a layer of one direction. In a stream of `windows` the
    reach of a block would go beyond its window, and in the reverse direction "back" means forward
    in time; both are refused.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> layer = tg.nn.GRU(3, 5, bptt=tg.bptt.Truncated(35))
    >>> output, state = layer(tg.randn(100, 2, 3))
    >>> output, state = layer(tg.randn(100, 2, 3), bptt=tg.bptt.Truncated(20, stride=5))
    """

    def __init__(self, steps: int, stride: int | None = None) -> None:
        all_positive("bptt.Truncated", steps=steps)
        if stride is not None:
            all_positive("bptt.Truncated", stride=stride)
            if stride > steps:
                raise ArgumentError(
                    f"bptt.Truncated: stride is from 1 to steps = {steps}, got {stride}: losses "
                    "that reach back less than their own block would be left out"
                )
        self.steps, self.stride, self.period = int(steps), stride, int(steps)
        self.overlaps = stride is not None

    def __repr__(self) -> str:
        stride = "" if self.stride is None else f", stride={self.stride}"
        return f"Truncated({self.steps}{stride})"

    def weights(self, steps: int, training: bool = True) -> list[float]:
        """Return the weights as `Strategy.weights` says; with `stride` there are none."""
        if self.stride is not None:
            raise ArgumentError(
                f"{self!r}: with stride an edge is open for one loss and cut for another, and has "
                "no one weight: give the strategy to a layer, or leave stride out"
            )
        return super().weights(steps, training)

    def walk(
        self, segment: Segment, steps: int, state: Flat, cuts: Sequence[int] = ()
    ) -> tuple[Flat, list[Tensor]]:
        """Run a recurrence as `Strategy.walk` says, the blocks of `stride` in overlapping runs."""
        if self.stride is None or not is_grad_enabled():
            return super().walk(segment, steps, state, cuts)
        ends = range(self.stride, steps + self.stride, self.stride)
        starts = [max(0, end - self.steps) for end in ends]
        stops = [min(end, steps) for end in ends]
        marks = sorted({*starts, *stops})
        # Where runs start: the state, and the generator, so that a run draws the same again and
        # then, past the end of the run before it, goes on.
        kept = {0: (state, tg_random.get_state())}
        outputs = []
        for previous, start, stop in zip([0, *stops], starts, stops, strict=False):
            state, generator = kept[start]
            tg_random._rewind(generator)
            for a, b in pairwise(marks[bisect_left(marks, start) : bisect_left(marks, stop) + 1]):
                results = list(segment(a, b)(*state))
                state = results[: len(state)]
                if a >= previous:
                    outputs += results[len(state) :]
                kept[b] = detach(state), tg_random.get_state()
            kept = {t: held for t, held in kept.items() if t >= start}
        return state, outputs

    def cuts(self, steps: int, rng: np.random.Generator) -> Collection[int]:
        """Return the multiples of `steps`."""
        return range(self.steps, steps, self.steps)


class Randomized(Strategy):
    r"""Randomized truncation: cut at random, and weigh what is left so that the mean is right.

    .. math:: P(ξ_t = 0) = 1 - π_t, \quad P(ξ_t = 1/π_t) = π_t, \quad E[ξ_t] = 1

    Parameters
    ----------
    keep : float or callable
        π, in (0, 1]; or a function from t, the number of the edge, to π_t (those of
        `tg.optim.schedule` too). In a stream of `windows` t counts from its start.
    rng : int or numpy.random.Generator, optional
        Where the cuts come from. Default: the library's generator.
    max_steps : int, optional
        The length that an unbroken chain must not exceed, at the price of a bias: an edge that is
        cut for its sake is not made up for. With a constant π that is a share
        π^(m-1) (1-π) / (1-π^m) of all edges, m = `max_steps`, and by as much the mean weight of an
        edge falls short of 1.

    Notes
    -----
    The gradient is unbiased (Tallec and Ollivier 2017, arXiv:1705.08209): a path over d edges
    survives with probability Π π_t and is then weighed 1/Π π_t. The price is variance, which grows
    with the length of the paths: like π^-d, so π must be near 1 where long paths matter. A sequence
    of T steps falls into 1 + Σ (1 - π_t) unbroken chains on average.

    Nothing is drawn under `no_grad` or in ``eval()``, where the gradient is the full one. Inside
    `tg.checkpoint` the same cuts are drawn again from the library's generator only.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.bptt.Randomized(0.8, rng=3).weights(6)
    [1.0, 1.25, 1.25, 1.25, 0.0, 0.0]
    >>> layer = tg.nn.GRU(3, 5, bptt=tg.bptt.Randomized(lambda t: 1 - 0.5 / t))
    >>> output, state = layer(tg.randn(10, 2, 3))
    """

    def __init__(
        self,
        keep: float | Callable[[int], float],
        rng: tg_random.Rng = None,
        max_steps: int | None = None,
    ) -> None:
        if not callable(keep):
            _probability(keep, "")
        if max_steps is not None:
            all_positive("bptt.Randomized", max_steps=max_steps)
        self.keep, self.max_steps = keep, max_steps
        self.rng = None if rng is None else tg_random.generator(rng)

    def __repr__(self) -> str:
        keep = getattr(self.keep, "__qualname__", self.keep) if callable(self.keep) else self.keep
        most = "" if self.max_steps is None else f", max_steps={self.max_steps}"
        return f"Randomized({keep}{most})"

    def weights(self, steps: int, training: bool = True) -> list[float]:
        """Return the weights as `Strategy.weights` says, drawn anew if training."""
        return super().weights(steps, training) if training else [1.0] * steps

    def _probabilities(self, first: int, stop: int) -> list[float]:
        """Return π_t of the edges first … stop - 1."""
        if not callable(self.keep):
            return [float(self.keep)] * (stop - first)
        return [_probability(self.keep(t), f" at t = {t}") for t in range(first, stop)]

    def _kept(self, first: int, stop: int) -> list[float]:
        return [1.0 / keep for keep in self._probabilities(first, stop)]

    def cuts(self, steps: int, rng: np.random.Generator) -> Collection[int]:
        """Return the edges where ξ_t = 0 was drawn, and those that `max_steps` wants cut."""
        cut = rng.random(steps - 1) >= self._probabilities(1, steps)
        starts = [0, *(np.flatnonzero(cut) + 1).tolist()]
        if self.max_steps is not None:
            chains = pairwise([*starts, steps])
            starts = [t for start, stop in chains for t in range(start, stop, self.max_steps)]
        return starts[1:]


def _probability(keep: Any, where: str) -> float:
    real = isinstance(keep, int | float | np.integer | np.floating) and not isinstance(keep, bool)
    if not real or not 0 < keep <= 1:
        raise ArgumentError(
            "bptt.Randomized: keep is a probability, 0 < keep <= 1, or a function from t to one; "
            f"got {keep!r}{where}"
        )
    return float(keep)


def strategy_of(bptt: Any, owner: str) -> Strategy:
    """Return the strategy that an argument ``bptt=`` names, `Full` if None, or raise."""
    if bptt is not None and not isinstance(bptt, Strategy):
        raise ArgumentError(
            f"{owner}: bptt is a strategy, such as tg.bptt.Truncated(35), or None for the full "
            f"gradient; got {bptt!r}"
        )
    return bptt or Full()
