"""Strategies of backpropagation through time: each gradient against its definition.

The oracle is the explicit sum. A recurrence is run step by step with parameters of its own for each
step, so that G[t, s], the gradient of the loss at step t through the parameters of step s, comes
out term by term; a strategy is then a table of weights W[t, s], and its gradient Σ W[t, s] G[t, s].
"""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import weakref
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import tinygrad_rnn as tg
from tinygrad_rnn.engine.graph import reachable
from tinygrad_rnn.errors import ArgumentError, DTypeError, GraphError

Full, Truncated, Randomized = tg.bptt.Full, tg.bptt.Truncated, tg.bptt.Randomized
SEEDS = st.integers(0, 2**32 - 1)


class OwnCell(tg.nn.Cell):
    """A user's cell: two elements of unlike size, one of them leaky, no `project`."""

    def __init__(self, input_size: int, hidden_size: int, dtype: Any = None) -> None:
        super().__init__()
        self.hidden_size = (hidden_size, 2)
        self.U = tg.nn.Linear(input_size, hidden_size, dtype=dtype)
        self.V = tg.nn.Linear(2, hidden_size, bias=False, dtype=dtype)
        self.W = tg.nn.Linear(hidden_size, 2, bias=False, dtype=dtype)

    def step(self, x: Any, state: Any) -> Any:
        h, c = state
        h = tg.sin(self.U(x) + self.V(c)) + 0.3 * h
        return h, 0.8 * c + self.W(h)


CELLS: dict[str, Callable[..., Any]] = {
    "rnn": tg.nn.RNN,
    "relu": lambda *sizes, **more: tg.nn.RNN(*sizes, nonlinearity="relu", **more),
    "gru": tg.nn.GRU,
    "lstm": tg.nn.LSTM,
    "projected lstm": lambda width, hidden, *layers, **more: tg.nn.LSTM(
        width, hidden + 1, *layers, proj_size=hidden, **more
    ),
    "own": lambda *sizes, **more: tg.nn.Recurrent(OwnCell, *sizes, **more),
}
KINDS = st.sampled_from(list(CELLS))


class Masked(Randomized):
    """Randomized truncation with the cuts that it is told, one collection for each drawing."""

    def __init__(self, keep: Any, *masks: Collection[int]) -> None:
        super().__init__(keep)
        self.masks = itertools.cycle(masks)

    def cuts(self, steps: int, rng: Any) -> Collection[int]:
        return [t for t in next(self.masks) if t < steps]


def masks_of(steps: int, keep: Callable[[int], float]) -> list[tuple[float, list[int]]]:
    """Every set of cut edges, with its probability."""
    edges = range(1, steps)
    every = []
    for cut in itertools.product([False, True], repeat=len(edges)):
        chance = math.prod(1 - keep(t) if c else keep(t) for t, c in zip(edges, cut, strict=True))
        every.append((chance, [t for t, c in zip(edges, cut, strict=True) if c]))
    return every


class Problem:
    """A small network, sequences, and a loss at every step."""

    def __init__(self, kind: str, steps: int, seed: int, layers: int = 1, **more: Any) -> None:
        rng = np.random.default_rng(seed)
        self.steps = steps
        self.layer = CELLS[kind](2, 3, layers, dtype=np.float64, **more)
        for p in self.layer.parameters():
            p.data = 0.8 * rng.standard_normal(p.shape)
        self.x = tg.tensor(rng.standard_normal((steps, 2, 2)), requires_grad=True)
        width = 3 * self.layer.directions
        self.target = tg.tensor(rng.standard_normal((steps, 2, width)))

    @property
    def inputs(self) -> list[Any]:
        return [*self.layer.parameters(), self.x]

    def losses(self, output: Any, start: int = 0) -> Any:
        target = self.target[start : start + len(output)]
        return ((output - target) * output).sum()

    def gradient(self, strategy: Any = None, **more: Any) -> np.ndarray:
        """The gradient by all parameters and the input, as one vector."""
        output, _ = self.layer(self.x, bptt=strategy, **more)
        return gradients(self.losses(output), self.inputs)

    def terms(self) -> np.ndarray:
        """G[t, s]: the gradient of the loss at step t through all that step s reads."""
        copies = [copy.deepcopy(self.layer) for _ in range(self.steps)]
        inputs = [tg.tensor(x, requires_grad=True) for x in self.x.numpy()]
        states = [cell.initial_state(2, np.float64, "cpu") for cell in self.layer.cells]
        size = sum(p.size for p in self.layer.parameters())
        G = np.zeros((self.steps, self.steps, size + self.x.size))
        for t, layer in enumerate(copies):
            z = inputs[t]
            for i, cell in enumerate(layer.cells):
                states[i] = cell(z, states[i])
                z = states[i][0] if isinstance(states[i], tuple) else states[i]
            loss = self.losses(tg.stack([z]), t)
            for s in range(t + 1):
                of = [*copies[s].parameters(), inputs[s]]
                g = gradients(loss, of, retain_graph=True)
                G[t, s, :size] = g[:size]
                G[t, s, size:].reshape(self.steps, -1)[s] = g[size:]
        return G

    def expected(self, weight: Callable[[int, int], float]) -> np.ndarray:
        """The explicit sum Σ W[t, s] G[t, s] over s ≤ t."""
        G = self.terms()
        return sum(weight(t, s) * G[t, s] for t in range(self.steps) for s in range(t + 1))


def flat(tensors: Sequence[Any]) -> np.ndarray:
    return np.concatenate([t.numpy().ravel() for t in tensors])


def gradients(loss: Any, inputs: Sequence[Any], **more: Any) -> np.ndarray:
    """The gradient as one vector, zero where nothing depends on an input."""
    found = tg.grad(loss, inputs, allow_unused=True, **more)
    return flat([tg.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)])


def assert_close(found: np.ndarray, wanted: np.ndarray, rtol: float = 1e-12) -> None:
    """Compare vectors relative to the largest element, since sums can cancel in the others."""
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= rtol * np.abs(wanted).max()


problems = st.builds(Problem, KINDS, st.integers(1, 5), SEEDS, st.integers(1, 2))


# -- the definitions -------------------------------------------------------------------------------


@given(problems)
def test_full_is_the_hand_unrolled_sum(problem: Problem) -> None:
    expected = problem.expected(lambda t, s: 1.0)
    assert_close(problem.gradient(), expected)
    assert_close(problem.gradient(Full()), expected)


@given(problems, st.integers(1, 7))
def test_truncated_is_the_sum_without_what_crosses_a_cut(problem: Problem, k: int) -> None:
    expected = problem.expected(lambda t, s: float(t // k == s // k))
    assert_close(problem.gradient(Truncated(k)), expected)


@given(problems, st.integers(1, 7))
def test_truncated_is_full_on_independent_windows(problem: Problem, k: int) -> None:
    total, state = 0.0, None
    for start in range(0, problem.steps, k):
        output, state = problem.layer(problem.x[start : start + k], tg.bptt.detach(state))
        total = total + gradients(problem.losses(output, start), problem.inputs)
    assert_close(problem.gradient(Truncated(k)), total)


@given(problems, st.integers(1, 7), st.integers(1, 7))
def test_with_a_stride_each_block_reaches_back_from_its_end(
    problem: Problem, k1: int, k2: int
) -> None:
    k1, k2 = sorted([k1, k2])

    def weight(t: int, s: int) -> float:
        end = (t // k1 + 1) * k1  # of the block that the loss at t is in
        return float(s >= end - k2)

    assert_close(problem.gradient(Truncated(k2, stride=k1)), problem.expected(weight))
    assert_close(problem.gradient(Truncated(k2, stride=k2)), problem.gradient(Truncated(k2)))
    assert_close(problem.gradient(Truncated(14, stride=k1)), problem.gradient())


@given(problems, st.data())
def test_randomized_scales_each_term_by_the_edges_that_it_crosses(
    problem: Problem, data: st.DataObject
) -> None:
    keep = data.draw(st.floats(0.3, 1))
    cuts = set(data.draw(st.lists(st.integers(1, 6))))

    def weight(t: int, s: int) -> float:
        crossed = range(s + 1, t + 1)
        return 0.0 if cuts & set(crossed) else keep ** -len(crossed)

    assert_close(problem.gradient(Masked(keep, cuts)), problem.expected(weight))


@given(problems, st.floats(0.2, 1), st.booleans())
def test_the_mean_over_all_masks_is_the_full_gradient(
    problem: Problem, keep: float, varying: bool
) -> None:
    def of(t: int) -> float:
        return keep ** (1 / t) if varying else keep

    pi = of if varying else keep
    mean = sum(p * problem.gradient(Masked(pi, cut)) for p, cut in masks_of(problem.steps, of))
    assert_close(mean, problem.gradient())


@pytest.mark.parametrize("kind", CELLS)
def test_the_mean_over_all_masks_of_eight_steps(kind: str) -> None:
    problem = Problem(kind, 8, 0, layers=2)
    masks = masks_of(8, lambda t: 0.6)
    assert len(masks) == 2**7
    mean = sum(p * problem.gradient(Masked(0.6, cut)) for p, cut in masks)
    assert_close(mean, problem.gradient())


@pytest.mark.parametrize("kind", ["rnn", "lstm"])
def test_the_mean_over_all_masks_in_two_directions(kind: str) -> None:
    """A layer draws anew for each of its own: a path can cross an edge in both, to and fro."""
    problem = Problem(kind, 4, 1, layers=2, bidirectional=True)
    masks = masks_of(4, lambda t: 0.6)
    mean = sum(
        p * q * problem.gradient(Masked(0.6, first, second))
        for (p, first), (q, second) in itertools.product(masks, masks)
    )
    assert_close(mean, problem.gradient())
    shared = sum(p * problem.gradient(Masked(0.6, cut)) for p, cut in masks)
    assert np.abs(shared - problem.gradient()).max() > 0.1  # the test would see one ξ for both


@given(problems, st.sampled_from([[], [2], [1, 4], [3, 4]]))
def test_a_loop_of_ones_own_is_the_layer(problem: Problem, cuts: list[int]) -> None:
    for strategy in (Full(), Truncated(2), Masked(0.7, cuts)):
        states = [cell.initial_state(2, np.float64, "cpu") for cell in problem.layer.cells]
        outputs = []
        for x_t, xi in zip(problem.x, strategy.weights(problem.steps), strict=True):
            for i, cell in enumerate(problem.layer.cells):
                states[i] = cell(x_t, tg.bptt.scale_gradient(states[i], xi))
                x_t = states[i][0] if isinstance(states[i], tuple) else states[i]
            outputs.append(x_t)
        by_hand = gradients(problem.losses(tg.stack(outputs)), problem.inputs)
        assert_close(by_hand, problem.gradient(strategy))


# -- the one operation -----------------------------------------------------------------------------


@given(SEEDS, st.floats(0, 5))
def test_scale_gradient_changes_the_gradient_and_nothing_else(seed: int, xi: float) -> None:
    h = tg.tensor(np.random.default_rng(seed).standard_normal((2, 3)), requires_grad=True)
    state = {"a": (h, [h * 2]), "b": None}
    same = tg.bptt.scale_gradient(state, xi)
    assert_array_equal(same["a"][0].numpy(), h.numpy())
    assert same["b"] is None and isinstance(same["a"][1], list)
    total = (same["a"][0] ** 2).sum() + same["a"][1][0].sum()
    if xi == 0:
        assert not total.requires_grad
        return
    (first,) = tg.grad(total, [h], create_graph=True)
    assert_allclose(first.numpy(), xi * (2 * h.numpy() + 2), rtol=1e-12, atol=1e-14)
    (second,) = tg.grad(first.sum(), [h])
    assert_allclose(second.numpy(), np.full((2, 3), 2 * xi * xi), rtol=1e-12)


def test_scale_gradient_keeps_dtypes_and_what_needs_no_gradient() -> None:
    h = tg.ones(2, requires_grad=True)
    tg.bptt.scale_gradient(h, 1.25).sum().backward()
    assert h.grad.dtype == np.float32
    steps = tg.tensor([1, 2])
    assert tg.bptt.scale_gradient(steps, 1.25) is steps
    assert tg.bptt.scale_gradient(h, 1) is h


def chain(state: Any, name: str = "tanh") -> int:
    """How many steps can be reached from a state."""
    return sum(node.name.startswith(name) for node in reachable([state._node]))


@pytest.mark.parametrize("layers", [1, 3])
@tg.eager()  # the nodes of every step are counted
def test_where_xi_is_zero_the_graph_ends(layers: int) -> None:
    layer = tg.nn.RNN(2, 3, layers)
    x = tg.randn(12, 2, 2)
    assert chain(layer(x)[1]) == 12 * layers
    for strategy, steps in [
        (Masked(0.9, []), 12),
        (Masked(0.9, [3, 9]), 3),
        (Masked(0.9, [11]), 1),
        (Truncated(5), 2),
        (Truncated(4, stride=3), 4),
        (Truncated(5, stride=5), 2),
        (Truncated(6, stride=5), 3),  # counted from the end of the block, which is not reached
        (Truncated(12), 12),
    ]:
        _, state = layer(x, bptt=strategy)
        assert chain(state) == steps * layers, strategy
        assert len(reachable([state._node])) < steps * layers * 6 + 12 * layers + 20


def test_what_lies_before_a_cut_is_freed() -> None:
    """The states before the cut have no owner left when only the final state is wanted."""
    layer = tg.nn.LSTM(2, 3)
    states = []
    own = type(layer.cells[0]).step

    class Watched(tg.nn.LSTMCell):
        def step(self, a: Any, state: Any) -> Any:
            new = own(self, a, state)
            states.append(weakref.ref(new[1]._node))
            return new

    watched = tg.nn.Recurrent(Watched, 2, 3, bptt=Truncated(4))
    _, state = watched(tg.randn(12, 2, 2), output=False)
    assert [reference() is not None for reference in states] == 8 * [False] + 4 * [True]
    assert state is not None


# -- drawing ---------------------------------------------------------------------------------------


def test_each_edge_is_cut_by_itself_with_its_own_probability() -> None:
    def keep(t: int) -> float:
        return 0.95 - 0.05 * t

    strategy, n = Randomized(keep, rng=5), 4000
    xi = np.array([strategy.weights(10) for _ in range(n)])
    assert (xi[:, 0] == 1).all()
    for t in range(1, 10):
        assert set(xi[:, t]) == {0.0, 1 / keep(t)}
        assert abs((xi[:, t] > 0).mean() - keep(t)) < 3 * math.sqrt(keep(t) * (1 - keep(t)) / n)
    correlation = np.corrcoef(xi[:, 1:].T) - np.eye(9)
    assert np.abs(correlation).max() < 4 / math.sqrt(n)


@pytest.mark.parametrize(("steps", "keep"), [(20, 0.9), (50, 0.6), (7, 1.0), (1, 0.5)])
def test_the_number_of_unbroken_chains(steps: int, keep: float) -> None:
    strategy, n = Randomized(keep, rng=0), 2000
    chains = np.array([1 + strategy.weights(steps).count(0.0) for _ in range(n)])
    expected = 1 + (steps - 1) * (1 - keep)
    spread = math.sqrt((steps - 1) * keep * (1 - keep) / n)
    assert abs(chains.mean() - expected) <= 3 * spread + 1e-12


def test_max_steps_bounds_chains_at_the_bias_that_is_documented() -> None:
    m, keep, steps = 5, 0.9, 200_000
    strategy = Randomized(keep, rng=1, max_steps=m)
    xi = np.array(strategy.weights(steps))
    ends = np.flatnonzero(xi == 0)
    lengths = np.diff(ends)
    assert lengths.max() == m
    forced = keep ** (m - 1) * (1 - keep) / (1 - keep**m)
    assert abs(xi.mean() - (1 - forced)) < 0.005
    assert Randomized(keep, rng=1).weights(steps).count(0.0) < len(ends)


@tg.eager()  # the nodes of every step are counted
def test_one_draw_serves_the_batch_all_layers_and_all_elements() -> None:
    drawn = Randomized(0.5, rng=3).weights(9)
    last = max(t for t in range(9) if drawn[t] == 0)
    layer = tg.nn.LSTM(2, 3, 3, bptt=Randomized(0.5, rng=3))
    _, (h, _) = layer(tg.randn(9, 2, 2))
    # For each layer a product for each step, and one for the inputs of all steps.
    assert chain(h, "linear") == 3 * (9 - last + 1)


@tg.eager()  # the nodes of every step are counted
def test_nothing_is_drawn_without_a_graph_or_in_eval() -> None:
    layer = tg.nn.GRU(2, 3, 2, bptt=Randomized(0.1))
    x = tg.randn(20, 2, 2)
    before = tg.random.get_state()
    with tg.no_grad():
        layer(x)
    layer.eval()
    _, state = layer(x)
    assert str(tg.random.get_state()) == str(before)
    assert chain(state, "linear") == 2 * (20 + 1)  # nothing was cut
    layer.train()
    layer(x)
    assert str(tg.random.get_state()) != str(before)


@tg.eager()  # the nodes of every step are counted
def test_the_call_comes_before_the_constructor() -> None:
    x = tg.randn(10, 2, 2)
    for make in CELLS.values():
        layer = make(2, 3, bptt=Truncated(2))
        short, long = layer(x)[1], layer(x, bptt=Full())[1]
        size = [
            len(reachable([(s[0] if isinstance(s, tuple) else s)._node])) for s in (short, long)
        ]
        assert size[0] < size[1]
        layer.bptt = None
        assert "bptt" not in repr(layer)


# -- recomputing -----------------------------------------------------------------------------------


@given(
    KINDS,
    st.integers(1, 20),
    SEEDS,
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([0.0, 0.4]),
    st.booleans(),
)
def test_checkpointing_changes_nothing(
    kind: str, steps: int, seed: int, layers: int, both: bool, dropout: float, ragged: bool
) -> None:
    dropout = dropout if layers > 1 else 0.0
    problem = Problem(kind, steps, seed, layers, dropout=dropout, bidirectional=both)
    lengths = [steps, steps // 2] if ragged else None
    results = []
    for strategy in (None, Full(), Full(checkpoint=True)):
        tg.manual_seed(seed)
        output, state = problem.layer(problem.x, lengths=lengths, bptt=strategy)
        elements = state if isinstance(state, tuple) else (state,)
        loss = problem.losses(output) + sum((e * e).sum() for e in elements)
        between = tg.rand(2)
        gradient = gradients(loss, problem.inputs)
        values = flat([output, *elements, between, tg.rand(2)])
        results.append((values.tobytes(), gradient))
    assert results[0][0] == results[1][0] == results[2][0]
    assert_close(results[2][1], results[0][1])


def test_checkpointing_keeps_the_states_of_about_root_t_steps() -> None:
    layer = tg.nn.LSTM(2, 3, 2)
    for steps in (1, 2, 3, 9, 100, 1000):
        _, (h, _) = layer(tg.randn(steps, 1, 2), bptt=Full(checkpoint=True), output=False)
        names = [node.name for node in reachable([h._node])]
        assert names.count("checkpoint") == math.isqrt(steps)
        assert len(names) < 20 * math.sqrt(steps) + 20


def test_the_output_can_be_left_out() -> None:
    for options in ({}, {"bidirectional": True}, {"batch_first": True}):
        layer = tg.nn.GRU(2, 3, 2, **options)
        x = tg.randn(5, 4, 2)
        for strategy in (None, Full(checkpoint=True), Truncated(2), Randomized(1.0)):
            output, state = layer(x, bptt=strategy, output=False)
            assert output is None
            assert_array_equal(state.numpy(), layer(x)[1].numpy())
    assert layer(tg.randn(5, 2), output=False)[1].shape == (2, 3)


class NoisyCell(tg.nn.RNNCell):
    def step(self, z: Any, h: Any) -> Any:
        return super().step(z, h) + tg.rand(*h.shape, dtype=np.float64)


@given(st.integers(1, 9), SEEDS, st.integers(1, 4), st.integers(1, 6), st.booleans())
def test_no_strategy_changes_an_output(
    steps: int, seed: int, k1: int, k2: int, noisy: bool
) -> None:
    """Masks between layers, and noise inside a cell, are the same in steps that are run again."""
    k1, k2 = sorted([k1, k2])
    cell = NoisyCell if noisy else tg.nn.LSTMCell
    layers = {"num_layers": 1} if noisy else {"num_layers": 3, "dropout": 0.5}
    layer = tg.nn.Recurrent(cell, 2, 3, **layers, dtype=np.float64)
    x = tg.tensor(np.random.default_rng(seed).standard_normal((steps, 2, 2)))
    results = set()
    for strategy in (
        Full(),
        Full(checkpoint=True),
        Truncated(k2),
        Truncated(k2, stride=k1),
        Randomized(0.5, rng=1),
    ):
        tg.manual_seed(seed)
        output, state = layer(x, bptt=strategy)
        results.add(flat([output, *(state if isinstance(state, tuple) else (state,))]).tobytes())
        results.add(tg.rand(3).numpy().tobytes())
    assert len(results) == 2


def test_gradients_of_gradients_through_every_strategy() -> None:
    problem = Problem("gru", 6, 3, layers=2)
    for strategy in (Full(checkpoint=True), Truncated(2), Truncated(4, stride=2), Masked(0.7, [3])):
        output, _ = problem.layer(problem.x, bptt=strategy)
        first = tg.grad(problem.losses(output), problem.inputs, create_graph=True)
        second = flat(tg.grad(sum((g * g).sum() for g in first), problem.inputs))
        assert np.isfinite(second).all() and np.abs(second).max() > 0


# -- streams ---------------------------------------------------------------------------------------


class Language:
    """A stream of tokens, a layer whose gradient reaches far, and a loss at every step."""

    def __init__(self, length: int, batch: int = 1, layers: int = 1) -> None:
        rng = np.random.default_rng(0)
        self.ids, self.batch = rng.integers(0, 4, batch * length + 1), batch
        self.layer = tg.nn.RNN(4, 2, layers, nonlinearity="relu", dtype=np.float64)
        for name, p in self.layer.named_parameters():
            recurrent = 0.7 * np.eye(*p.shape) + 0.05 if "weight_hh" in name else 0.0
            p.data = recurrent if "weight_hh" in name else rng.random(p.shape)

    def epoch(self, windows: Any, strategy: Any = None, cut: bool = False) -> np.ndarray:
        """The gradient summed over the windows of an epoch, the state carried."""
        total, state = 0.0, None
        for window in windows:
            x, _, first = window
            x = tg.functional.one_hot(x, 4, dtype=np.float64)
            state = None if first else tg.bptt.detach(state) if cut else state
            output, state = self.layer(x, state, bptt=strategy or window.bptt)
            total = total + gradients((output * output).sum(), list(self.layer.parameters()))
        return total

    def full(self) -> np.ndarray:
        return self.epoch(Full().windows(self.ids, self.batch))


@pytest.mark.parametrize(("batch", "layers"), [(1, 1), (3, 2)])
def test_the_mean_over_all_masks_of_a_stream(batch: int, layers: int) -> None:
    language = Language(7, batch, layers)
    mean = 0.0
    for p, cut in masks_of(7, lambda t: 0.7):
        strategy = Masked(0.7, cut)
        windows = strategy.windows(language.ids, batch)
        assert list(windows._drawn["ends"]) == [*cut, 7]
        mean = mean + p * language.epoch(windows)
    assert_close(mean, language.full())


def fixed(length: int, ids: Any, batch: int) -> Any:
    assert batch == 1
    for i in range(0, len(ids) - 1, length):
        yield tg.tensor(ids[i : i + length, None]), tg.tensor(ids[i + 1 :][:length, None]), i == 0


@pytest.mark.slow
def test_randomized_is_unbiased_over_a_stream_and_the_naive_way_is_not() -> None:
    """A fixed window with a detached state at its end is a cut that nothing makes up for."""
    language, n, keep = Language(60), 300, 0.8
    full = language.full()
    truncated = language.epoch(fixed(10, language.ids, 1), Full(), cut=True)

    strategy, naive = Randomized(keep, rng=1), Randomized(keep, rng=2)
    right = [language.epoch(strategy.windows(language.ids, 1)) for _ in range(n)]
    wrong = [language.epoch(fixed(10, language.ids, 1), naive, cut=True) for _ in range(n)]

    def z(sample: list[np.ndarray], expected: np.ndarray) -> np.ndarray:
        error = np.std(sample, axis=0, ddof=1) / math.sqrt(n)
        return np.abs(np.mean(sample, axis=0) - expected) / error

    assert z(right, full).max() < 3
    assert z(wrong, full).min() > 10
    assert z(wrong, truncated).max() < 3  # it has the bias of plain truncation


def test_windows_end_where_xi_is_zero_and_every_token_comes_once() -> None:
    ids = np.arange(1, 62)
    for strategy in (Randomized(0.8, rng=4), Randomized(0.99, rng=4, max_steps=6), Full()):
        for _ in range(3):
            xs, ys, firsts, weights = [], [], [], []
            for window in strategy.windows(ids, 3):
                x, y, first = window
                xs.append(x.numpy())
                ys.append(y.numpy())
                firsts.append(first)
                weights += window.bptt.weights(len(x))
                assert len(x) <= (getattr(strategy, "max_steps", None) or 20)
            assert firsts == [True] + [False] * (len(xs) - 1)
            x, y = np.concatenate(xs), np.concatenate(ys)
            assert_array_equal(x, ids[:60].reshape(3, 20).T)
            assert_array_equal(y, x + 1)
            ends = np.cumsum([len(x) for x in xs])[:-1]
            assert weights[0] == 1 and set(np.flatnonzero(np.array(weights) == 0)) == set(ends)
            keep = getattr(strategy, "keep", 1.0)
            assert {w for w in weights[1:] if w} <= {1 / keep}


def test_t_counts_from_the_start_of_the_stream() -> None:
    strategy = Randomized(lambda t: 1 / (1 + t), rng=0, max_steps=4)
    windows = strategy.windows(np.arange(41), 1)
    weights = [w for window in windows for w in window.bptt.weights(len(window.x))]
    assert all(w in (0.0, 1.0 + t) for t, w in enumerate(weights))


def test_windows_of_truncated_have_its_length_from_a_random_offset_on() -> None:
    strategy, offsets = Truncated(4), set()
    for seed in range(40):
        windows = list(strategy.windows(np.arange(31), 2, rng=seed))
        offsets.add(int(windows[0][0].numpy()[0, 0]))
        assert [len(x) for x, _, _ in windows] == [4, 4, 4, 1]
        x = np.concatenate([x.numpy() for x, _, _ in windows])
        assert (np.diff(x, axis=0) == 1).all()
    assert offsets == {0, 1, 2, 3}


def test_the_layer_cuts_the_edge_into_a_window() -> None:
    """The state is handed on as it is: the strategy of the window cuts it off."""
    for strategy in (Truncated(5), Randomized(0.7), Randomized(0.9, max_steps=3)):
        language = Language(30, 2)
        assert np.isfinite(language.epoch(strategy.windows(language.ids, 2))).all()
        again = language.epoch(windows := strategy.windows(language.ids, 2, rng=1))
        by_hand = strategy.windows(language.ids, 2, rng=1)
        assert_array_equal(again, language.epoch(by_hand, cut=True))
        assert list(windows) == []


@pytest.mark.parametrize(
    "make", [Full, lambda: Full(checkpoint=True), lambda: Truncated(5), lambda: Randomized(0.7)]
)
def test_an_epoch_changes_no_other_call_of_its_strategy(make: Callable[[], Any]) -> None:
    """Other data, another layer, another epoch and a pickled strategy, between two windows."""
    language, strategy = Language(30, 2), make()
    alone = language.epoch(strategy.windows(language.ids, 2, rng=1))
    other, x = tg.nn.LSTM(3, 4, bptt=strategy, rng=0), tg.randn(12, 2, 3, rng=0)

    def elsewhere() -> list[Any]:
        tg.manual_seed(5)
        output, _ = other(x)
        parts = gradients((output * output).sum(), list(other.parameters()))
        pickled = pickle.loads(pickle.dumps(strategy))
        return [strategy.weights(9), pickled.weights(7), strategy.weights(3, False), *parts]

    before = elsewhere()
    seen, interleaved = [], [language.ids, language.ids[:20]]
    epochs = [strategy.windows(ids, 2, rng=1) for ids in interleaved]

    def windows() -> Any:
        for window in epochs[0]:
            seen.append(elsewhere())
            next(epochs[1], None)
            yield window

    assert_array_equal(language.epoch(windows()), alone)
    for after in seen:
        for a, b in zip(after, before, strict=True):
            assert_array_equal(a, b)
    assert len(seen) > 0


@pytest.mark.parametrize("strategy", [Truncated(3), Full(checkpoint=True)])
@pytest.mark.parametrize("both", [False, True])
def test_a_window_cuts_the_state_of_an_empty_sequence_too(strategy: Any, both: bool) -> None:
    layer = tg.nn.GRU(2, 3, 2, bidirectional=both)
    first, second = (strategy._of_window(3 * i, 3 * i + 3) for i in range(2))
    _, state = layer(tg.randn(3, 2, 2), bptt=first)
    state.sum().backward()
    output, state = layer(tg.randn(3, 2, 2), state, lengths=[3, 0], bptt=second)
    (output.sum() + state.sum()).backward()  # would raise if it reached the first window


def test_windows_are_values_of_their_own() -> None:
    strategy = Truncated(5)
    windows = list(strategy.windows(np.arange(31), 1))  # all at once, and read in any order
    copies = [*pickle.loads(pickle.dumps(windows)), *map(copy.copy, windows)]
    for window in (*reversed(windows), *copies):
        x, y, first = window
        assert (x, y, first) == (window.x, window.y, window.first) == tuple(window)
        expected = [float(first), 1.0, 1.0, 1.0, 1.0][: len(x)]
        assert window.bptt.weights(len(x)) == window.bptt.weights(len(x), False) == expected
        with pytest.raises(ArgumentError, match=r"of its window, got 7 steps.*bptt="):
            window.bptt.weights(7)
        with tg.no_grad():
            assert window.bptt.weights(7) == [1.0] * 7


def test_a_copy_of_a_layer_draws_the_same_cuts() -> None:
    layer = tg.nn.GRU(3, 4, bptt=Randomized(0.8, rng=0))
    layer.bptt.weights(9)
    twin = copy.deepcopy(layer)
    assert twin.bptt.weights(99) == layer.bptt.weights(99)
    assert twin.bptt.weights(99) != Randomized(0.8, rng=0).weights(99)


@given(st.integers(0, 30), SEEDS, st.sampled_from([Full(), Truncated(3), Randomized(0.7)]))
def test_a_stream_goes_on_where_it_was_saved(position: int, seed: int, strategy: Any) -> None:
    ids = np.arange(62)
    stream = strategy.windows(ids, 2, rng=seed)
    for _ in range(position):
        next(stream, None)
    again = strategy.windows(ids, 2, rng=seed + 1)
    again.load_state_dict(stream.state_dict())
    for window in stream:
        weights = window.bptt.weights(len(window[0]))
        same = next(again)
        assert_array_equal(same[0].numpy(), window[0].numpy())
        assert_array_equal(same[1].numpy(), window[1].numpy())
        assert same[2] is window[2] and same.bptt.weights(len(window[0])) == weights
    assert next(again, None) is None


def test_the_place_of_another_stream_is_refused() -> None:
    ids = np.arange(62)
    saved = Randomized(0.7).windows(ids, 2).state_dict()
    for other in (Randomized(0.8), Randomized(0.7, max_steps=9), Full()):
        with pytest.raises(ArgumentError, match="nothing was loaded"):
            other.windows(ids, 2).load_state_dict(saved)
    stream = Randomized(0.7).windows(ids, 2)
    for ends in (np.array([3, 2, 30]), np.array([3, 29]), np.array([0, 30]), [30], np.ones(2)):
        with pytest.raises(ArgumentError, match="ends must increase"):
            stream.load_state_dict({**saved, "drawn": {"offset": 0, "ends": ends}})
    assert len(list(stream)) > 0


# -- what is refused -------------------------------------------------------------------------------

REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: Randomized(0), r"Randomized: keep .*0 < keep <= 1.*got 0"),
    (lambda: Randomized(1.5), r"0 < keep <= 1.*got 1\.5"),
    (lambda: Randomized(-0.1), r"0 < keep <= 1"),
    (lambda: Randomized(float("nan")), r"0 < keep <= 1"),
    (lambda: Randomized(True), r"0 < keep <= 1"),
    (lambda: Randomized("a"), r"keep is a probability"),
    (lambda: Randomized([0.5]), r"or a function"),
    (lambda: Randomized(lambda t: 2.0 - t).weights(4), r"0 < keep <= 1.*got 0\.0 at t = 2"),
    (lambda: Randomized(0.5, max_steps=0), r"max_steps must be a positive integer, got 0"),
    (lambda: Randomized(0.5, rng="seed"), r"rng must be"),
    (lambda: Truncated(0), r"Truncated: steps must be a positive integer, got 0"),
    (lambda: Truncated(2.5), r"steps must be a positive integer, got 2\.5"),
    (lambda: Truncated(5, stride=0), r"stride must be a positive integer, got 0"),
    (lambda: Truncated(5, stride=6), r"stride is from 1 to steps = 5, got 6"),
    (lambda: Truncated(5, stride=2).weights(9), r"leave stride out"),
    (lambda: Truncated(5, stride=2).windows(range(99), 2), r"beyond its window.*leave stride out"),
    (lambda: Full().weights(0), r"steps must be a positive integer, got 0"),
    (lambda: Truncated(5).windows(range(14), 2), r"14 tokens is shorter than one window.* 15 tok"),
    (lambda: Randomized(0.5).windows([], 2), r"0 tokens is shorter than one window"),
    (lambda: Full().windows(range(2), 2), r"2 tokens is shorter than one window.* 3 tokens"),
    (lambda: Full().windows(range(9), 0), r"batch_size must be a positive integer, got 0"),
    (lambda: tg.nn.GRU(2, 3, bptt=35), r"GRU: bptt is a strategy.*got 35"),
    (lambda: tg.nn.LSTM(2, 3)(tg.zeros(4, 1, 2), bptt=Full), r"LSTM: bptt is a strategy"),
    (
        lambda: tg.nn.RNN(2, 3, bidirectional=True, bptt=Truncated(4, stride=2))(tg.zeros(5, 2)),
        r"bidirectional.*leave stride out",
    ),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_a_bad_argument_is_named_with_its_range(number: int) -> None:
    call, message = REFUSED[number]
    with pytest.raises(ArgumentError, match=message):
        call()


def test_wrong_types_are_refused() -> None:
    with pytest.raises(DTypeError, match="integer token ids"):
        Full().windows([0.5, 1.5], 1)
    with pytest.raises(TypeError, match=r"bptt\.scale_gradient.*Tensors, got float"):
        tg.bptt.scale_gradient((tg.ones(2), 1.0), 0.5)
    stream = Truncated(5).windows(range(15), 2)  # the shortest that there is
    assert [len(x) for x, _, _ in stream] == [5]


@pytest.mark.parametrize("strategy", [Full(), Full(checkpoint=True), Truncated(3)])
def test_a_carried_state_names_both_cures(strategy: Any) -> None:
    layer = tg.nn.GRU(2, 3, bptt=strategy)
    output, state = layer(tg.randn(6, 1, 2))
    output.sum().backward()
    output, _ = layer(tg.randn(6, 1, 2), state)
    with pytest.raises(GraphError, match=r"state.*bptt\.detach\(state\).*bptt=window\.bptt"):
        output.sum().backward()


# -- the identity that the loop rests on -----------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), SEEDS)
def test_one_product_of_joined_matrices_is_the_sum_of_two(
    batch: int, width: int, hidden: int, seed: int
) -> None:
    """[X, H] [W_xh; W_hh] = X W_xh + H W_hh, and so are the gradients."""
    rng = np.random.default_rng(seed)
    shapes = [(batch, width), (batch, hidden), (width, hidden), (hidden, hidden)]
    X, H, W_xh, W_hh = inputs = [
        tg.tensor(rng.standard_normal(shape), requires_grad=True) for shape in shapes
    ]
    joined = tg.concatenate([X, H], axis=1) @ tg.concatenate([W_xh, W_hh], axis=0)
    apart = X @ W_xh + H @ W_hh
    assert_allclose(joined.numpy(), apart.numpy(), rtol=1e-13, atol=1e-14)
    weights = tg.tensor(rng.standard_normal((batch, hidden)))
    for a, b in zip(
        tg.grad((joined * weights).sum(), inputs),
        tg.grad((apart * weights).sum(), inputs),
        strict=True,
    ):
        assert_allclose(a.numpy(), b.numpy(), rtol=1e-13, atol=1e-14)
