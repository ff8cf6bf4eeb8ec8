"""Strategies: which edges between time steps are cut, and how the others are weighted.

Letters: T time steps, numbered from 0; edge t connects step t - 1 to step t, for 0 < t < T; ξ_t
multiplies the gradient that flows back through it (`scale_gradient`); π_t is the probability to
keep it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import random as tg_random
from ..engine.grad_mode import is_grad_enabled
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from ..tensors.checks import all_positive
from ..transforms.checkpoint import checkpoint as checkpointed
from .state import State, detach
from .windows import Windows

# Runs the steps start … stop - 1 from a state: returns the next state, and one output per step.
Segment = Callable[[int, int, State], tuple[State, list[Any]]]


class Strategy:
    """Base class of the strategies; use `Full`, `Truncated` or `Randomized`.

    A strategy is an argument of a layer (``bptt=`` of the constructor) or of one call of it. There
    is one ξ per time step: all sequences of a batch, all layers and all elements of the state are
    cut at the same edges, so that the graph really ends there. The edge from a given initial state
    has the weight 1; `windows` and `detach` cut it.

    A reverse direction crosses edge t from step t to step t - 1, with the ξ_t of the forward one.
    In a stack of bidirectional layers each layer draws its own ξ: a path can go forward in one
    layer and back in the next, and a ξ_t that it met twice would have the mean 1/π_t, not 1.

    Under `no_grad` nothing is cut.

    A strategy is a value: no call of it changes the result of another, except that `Randomized`
    draws from its generator.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> isinstance(tg.bptt.Truncated(2), tg.bptt.Strategy)
    True
    >>> tg.bptt.Truncated(2).weights(5)
    [1.0, 1.0, 0.0, 1.0, 0.0]
    """

    period = 1  # edges are cut at multiples of it, if at regular steps
    rng: np.random.Generator | None = None

    def weights(self, steps: int, training: bool = True) -> list[float]:
        """Return the weight of the edge into each step, for a loop of your own.

        Parameters
        ----------
        steps : int
            T.
        training : bool
            Whether edges may be cut at random; a layer passes its own ``training``.

        Returns
        -------
        list of T floats
            ξ_0 … ξ_{T-1}, for `tg.scan` or `scale_gradient`. ξ_0 is for the initial state: 1, or 0
            for the strategy of a window, which is cut off from the window before it.

        Raises
        ------
        ArgumentError
            If `steps` is not a positive integer; for ``Truncated(stride=)``; for the strategy of a
            window, if the window has another number of steps.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> tg.bptt.Truncated(2).weights(5)
        [1.0, 1.0, 0.0, 1.0, 0.0]
        """
        all_positive("bptt: weights", steps=steps)
        if not is_grad_enabled():
            return [1.0] * steps
        weights = [1.0, *self._uncut(1, steps)]
        for t in self.cuts(steps, tg_random.generator(self.rng)):
            weights[t] = 0.0
        return weights

    def layer_weights(self, steps: int, training: bool) -> list[float]:
        """Return the weights of the edges inside the segments of `unroll`, for a layer."""
        return self.weights(steps, training)

    def unroll(
        self, segment: Segment, steps: int, state: State, cuts: Sequence[int] = ()
    ) -> tuple[State, list[Any]]:
        """Run a loop over time in segments, as the strategy needs them. A layer calls this.

        Parameters
        ----------
        segment : callable
            ``segment(start, stop, state)`` runs the steps start … stop - 1. It returns the new
            state and a list of outputs, one per step.
        steps : int
            T.
        state : Tensor, or tuple, list or dict of states
            The initial state.
        cuts : sequence of int
            Edges of weight 0 where a segment must end.

        Returns
        -------
        state : same structure
            The final state.
        outputs : list
            The outputs of all steps.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> def segment(start, stop, h):
        ...     return h + (stop - start), [h] * (stop - start)
        >>> tg.bptt.Full().unroll(segment, 2, tg.zeros(1))
        (tensor([2.]), [tensor([0.]), tensor([0.])])
        """
        outputs: list[Any] = []
        for start, stop in pairwise([0, *cuts, steps]):
            state, new = segment(start, stop, state)
            outputs += new
        return state, outputs

    def windows(
        self,
        ids: npt.ArrayLike | Tensor,
        batch_size: int,
        rng: tg_random.Rng = None,
        device: str | None = None,
    ) -> Windows:
        """Return one epoch of windows over a stream of tokens, cut where the strategy cuts.

        The stream is divided into `batch_size` columns of equal length, and each window continues
        the one before it: pass the state from window to window. It need not be detached: give the
        layers the strategy of the window, ``bptt=window.bptt``. It cuts the edge into the window
        (not that into the first one) and weights the edges inside. The strategy that made the
        windows does not change and can serve other data and other epochs.

        Parameters
        ----------
        ids : array_like or Tensor of integers, shape (n,)
            The tokens.
        batch_size : int
            The number of columns, B.
        rng : int or numpy.random.Generator, optional
            Source of the cuts, which are drawn at the call. Default: the generator of the strategy,
            or else the library's.
        device : str, optional
            Device of the windows. Default: the default device.

        Returns
        -------
        Windows
            An iterator over `Window` triples (x, y, first): int64 Tensors of shape (T, B), time
            first, y being x shifted by one; and whether this is the first window, which starts
            without a state. Its position can be saved in the middle of the epoch (`state_dict`).

        Raises
        ------
        ArgumentError
            If the stream is too short for a window, or the strategy is ``Truncated(stride=)``.
        DTypeError, ShapeError
            If `ids` are not one sequence of integers.

        Notes
        -----
        `Full` makes one window of the whole stream; `Truncated` windows of its `steps` from a
        random offset on, of which the last can be shorter; `Randomized` ends a window where
        ξ_t = 0 was drawn, and weights every edge inside by 1/π_t. So its gradient, summed over the
        epoch, is unbiased as that of one long sequence, for parameters that stay the same during
        the epoch; with an update after each window, carried states are of older parameters.
        Windows of a fixed length with random cuts
        inside are biased: nothing compensates the cuts at their ends.

        The strategy of a window takes precedence over that of the layer's constructor. A layer
        that uses `Randomized` itself in place of ``window.bptt`` draws other cuts inside the
        window, and the gradient is biased; the layer cannot detect it, as it only sees a Tensor.

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
        generator = self.rng if rng is None else tg_random.generator(rng)
        return Windows(
            repr(self), ids, batch_size, generator, device, self.period, self.cuts, self._of_window
        )

    def _of_window(self, first: int, stop: int) -> Strategy:
        """Return the strategy for the steps first … stop - 1 of a stream, which is cut at both."""
        return _WindowStrategy(self, [0.0 if first else 1.0, *self._uncut(first + 1, stop)])

    def cuts(self, steps: int, rng: np.random.Generator) -> Collection[int]:
        """Return the edges of a sequence of T = `steps` that are cut, in order.

        Those that are cut at random are drawn from `rng` at each call.
        """
        return ()

    def _uncut(self, first: int, stop: int) -> list[float]:
        """Return the weights of the edges first … stop - 1 where they are not cut."""
        return [1.0] * (stop - first)


class _WindowStrategy(Strategy):
    """The strategy of a window: fixed weights, and the segments of the strategy of the stream."""

    def __init__(self, stream: Strategy, weights: list[float]) -> None:
        self.stream, self.fixed = stream, weights

    def __repr__(self) -> str:
        return f"{self.stream!r} for a window of {len(self.fixed)} steps"

    def weights(self, steps: int, training: bool = True) -> list[float]:
        """Return the weights as `Strategy.weights` documents, in training or not."""
        all_positive("bptt: weights", steps=steps)
        if not is_grad_enabled():
            return [1.0] * steps
        if steps != len(self.fixed):
            raise ArgumentError(
                f"bptt={self!r}: the strategy is for the data of its window, got {steps} steps: "
                f"use another strategy for other data, such as bptt={self.stream!r}"
            )
        return list(self.fixed)

    def unroll(
        self, segment: Segment, steps: int, state: State, cuts: Sequence[int] = ()
    ) -> tuple[State, list[Any]]:
        """Run a loop as `Strategy.unroll` documents, in the segments of the stream's strategy."""
        return self.stream.unroll(segment, steps, state, cuts)


class Full(Strategy):
    """Backpropagation through all time steps: the exact gradient.

    Parameters
    ----------
    checkpoint : bool
        Whether to keep the state at about √T steps only. The backward pass computes the steps
        between them again.

    Notes
    -----
    With `checkpoint` memory grows like √T instead of T. The price is the arithmetic of one more
    forward pass, and a fixed cost for each segment: a small layer then takes several times as long
    (on a CPU 5 times with T, B, H = 1024, 8, 64; 2.5 times with 256, 32, 256) (Chen, Xu, Zhang and
    Guestrin 2016, arXiv:1604.06174; for recurrent networks, Gruslys and others 2016,
    arXiv:1606.03401). Outputs are the same, to the bit on the CPU, and the same random masks are
    drawn again. The output of all steps, (T, B, H), is still kept if it is returned: see
    ``output=False`` of the layers. In a bidirectional layer the output of each layer is kept.

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

    def unroll(
        self, segment: Segment, steps: int, state: State, cuts: Sequence[int] = ()
    ) -> tuple[State, list[Any]]:
        """Run a loop as `Strategy.unroll` documents; with `checkpoint` in √T segments."""
        if not (self.checkpoint and is_grad_enabled()):
            return super().unroll(segment, steps, state, cuts)
        count, outputs = math.isqrt(steps), []
        for start, stop in pairwise(i * steps // count for i in range(count + 1)):
            state, new = checkpointed(segment, start, stop, state)
            outputs += new
        return state, outputs


class Truncated(Strategy):
    """Truncated backpropagation through time: gradients flow back a limited number of steps.

    Parameters
    ----------
    steps : int
        k2, the number of steps. Without `stride` every edge t with t mod `steps` = 0 is cut.
    stride : int, optional
        k1 ≤ k2. Steps are grouped in blocks of k1. The gradients of the losses of a block with the
        steps e - k1 … e - 1 reach back to step e - k2: with ``steps=40, stride=20`` they pass
        through 21 to 40 steps, that of the loss included. An incomplete last block counts as
        complete. As an edge is then open for one block and cut for another, the k2 - k1 steps
        before each block are computed again, with the same random numbers: about k2/k1 times the
        cost.

    Raises
    ------
    ArgumentError
        If `steps` or `stride` is not a positive integer.

    Notes
    -----
    The form with k1 and k2 is BPTT(h; h') of Williams and Peng (1990), h = k2 and h' = k1; cutting
    every k steps is the common case k1 = k2. The gradient is biased: dependencies over more than
    `steps` steps are not learned.

    In one call of a layer, truncation saves no memory, as the values of all steps are kept, and
    time only where the last steps alone have losses. `windows` save memory, as the
    backward pass of each frees its graph.

    With `stride` the final state of a sequence that ended before the last block, in a ragged batch,
    has no gradient: take its last output.

    `stride` is for whole sequences in a layer of one direction. In a stream of `windows` a block
    would reach back beyond its window, and in the reverse direction "back" means forward in time;
    both raise an error.

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

    def __repr__(self) -> str:
        stride = "" if self.stride is None else f", stride={self.stride}"
        return f"Truncated({self.steps}{stride})"

    def layer_weights(self, steps: int, training: bool) -> list[float]:
        """Return 1 for each edge with `stride`, as `unroll` cuts between the segments."""
        return [1.0] * steps if self.stride is not None else self.weights(steps, training)

    def unroll(
        self, segment: Segment, steps: int, state: State, cuts: Sequence[int] = ()
    ) -> tuple[State, list[Any]]:
        """Run a loop as `Strategy.unroll` documents; with `stride` in runs that overlap."""
        if self.stride is None or not is_grad_enabled():
            return super().unroll(segment, steps, state, cuts)
        # Each run ends with a block of `stride` steps and starts `steps` before the block's end.
        ends = range(self.stride, steps + self.stride, self.stride)
        starts = [max(0, end - self.steps) for end in ends]
        stops = [min(end, steps) for end in ends]
        boundaries = sorted({*starts, *stops})
        # At each boundary: the state, and that of the generator, so that a step that is computed
        # again draws the same random numbers, and the first new step continues the sequence.
        saved = {0: (state, tg_random.get_state())}
        outputs = []
        for done, start, stop in zip([0, *stops], starts, stops, strict=False):
            state, generator = saved[start]
            tg_random.restore({None: generator})
            inside = boundaries[bisect_left(boundaries, start) : bisect_left(boundaries, stop) + 1]
            for a, b in pairwise(inside):
                state, new = segment(a, b, state)
                if a >= done:  # the steps before are in the outputs already
                    outputs += new
                saved[b] = detach(state), tg_random.get_state()
            saved = {t: pair for t, pair in saved.items() if t >= start}
        return state, outputs

    def cuts(self, steps: int, rng: np.random.Generator) -> Collection[int]:
        """Return the multiples of `steps`.

        Raises
        ------
        ArgumentError
            With `stride`, where no edge is cut for every loss.
        """
        if self.stride is not None:
            raise ArgumentError(
                f"{self!r}: with stride an edge is open for one loss and cut for another, so that "
                "it has no single weight, and a block can reach back beyond its window: give the "
                "strategy to a layer with whole sequences, or leave stride out"
            )
        return range(self.steps, steps, self.steps)


class Randomized(Strategy):
    r"""Randomized truncation: cut at random, and scale the other edges: an unbiased gradient.

    .. math:: P(ξ_t = 0) = 1 - π_t, \quad P(ξ_t = 1/π_t) = π_t, \quad E[ξ_t] = 1

    Parameters
    ----------
    keep : float or callable
        π, in (0, 1]; or a function from t, the number of the edge, to π_t (those of
        `tg.optim.schedule` too). In a stream of `windows` t counts from the start of the stream.
    rng : int or numpy.random.Generator, optional
        Source of the cuts. Default: the library's generator.
    max_steps : int, optional
        The largest length of an unbroken chain, at the price of a bias: the edges that are cut to
        limit the length are not compensated. With a constant π they are a fraction
        π^(m-1) (1-π) / (1-π^m) of all edges, m = `max_steps`, and the mean weight of an edge is
        smaller than 1 by as much.

    Raises
    ------
    ArgumentError
        If `keep` is not a probability above 0, nor a function.

    Notes
    -----
    The gradient is unbiased (Tallec and Ollivier 2017, arXiv:1705.08209): a path over d edges
    survives with probability Π π_t and then has the weight 1/Π π_t. The price is variance, which
    grows with the length of the paths like π^-d, so π must be near 1 where long paths matter. A
    sequence of T steps consists of 1 + Σ (1 - π_t) unbroken chains on average. It saves
    memory and time where `Truncated` does.

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
        """Return the weights as `Strategy.weights` documents; each call draws if training."""
        return super().weights(steps, training) if training else [1.0] * steps

    def _probabilities(self, first: int, stop: int) -> list[float]:
        """Return π_t of the edges first … stop - 1."""
        if not callable(self.keep):
            return [float(self.keep)] * (stop - first)
        return [_probability(self.keep(t), f" at t = {t}") for t in range(first, stop)]

    def _uncut(self, first: int, stop: int) -> list[float]:
        """Return 1/π_t of the edges first … stop - 1."""
        return [1.0 / keep for keep in self._probabilities(first, stop)]

    def cuts(self, steps: int, rng: np.random.Generator) -> Collection[int]:
        """Draw: return the edges with ξ_t = 0, and those that are cut to keep `max_steps`."""
        drawn = rng.random(steps - 1) >= self._probabilities(1, steps)
        starts = [0, *(np.flatnonzero(drawn) + 1).tolist()]  # of the chains
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


def strategy_of(bptt: Any, owner: str, bidirectional: bool = False) -> Strategy:
    """Return the strategy of an argument ``bptt=`` of a layer, `Full` if None.

    Raises
    ------
    ArgumentError
        If it is not a strategy, or not one for a bidirectional layer.
    """
    if bptt is not None and not isinstance(bptt, Strategy):
        raise ArgumentError(
            f"{owner}: bptt is a strategy, such as tg.bptt.Truncated(35), or None for the full "
            f"gradient; got {bptt!r}"
        )
    if bidirectional and isinstance(bptt, Truncated) and bptt.stride is not None:
        raise ArgumentError(
            f"{owner}: {bptt!r} in a bidirectional layer: the losses of a block would have to "
            "reach back in time and forward; leave stride out"
        )
    return bptt or Full()
