"""The loop over time: `scan` against a loop written by hand, one sequence at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import tinygrad_rnn as tg
from tinygrad_rnn.engine.graph import reachable
from tinygrad_rnn.errors import ArgumentError, DTypeError, ShapeError

CLOSE = {"rtol": 1e-10, "atol": 1e-12}
H = 3
SEEDS = st.integers(0, 2**32 - 1)


class Pair(NamedTuple):
    h: Any
    c: Any


def plain(W: Any, state: Any, x: Any) -> tuple[Any, Any]:
    h = tg.tanh(state @ W + x)
    return h, h * x


def paired(W: Any, state: Any, x: Any) -> tuple[Any, Any]:
    h = tg.tanh(state.h @ W + x["a"] * state.c)
    c = 0.5 * state.c + x["b"][0] * h
    return Pair(h, c), {"both": (h, h * c), "nothing": None}


def nested(W: Any, state: Any, x: Any) -> tuple[Any, Any]:
    """A state in a dict, with an element of three axes and one that is None; no output."""
    (first, second), m = state["s"], state["m"]
    new = tg.tanh(first @ W + x[0])
    m = 0.9 * m + new[..., :, None] * second[..., None, :]
    second = tg.sin(second) + m.sum(axis=-1)
    return {"s": [new, second], "m": m, "none": None}, None


class Problem:
    """A step function, its parameter, a state, inputs, and weights for a loss of all results."""

    def __init__(self, kind: str, T: int, B: int, seed: int, reverse: bool) -> None:
        rng = np.random.default_rng(seed)
        self.T, self.B, self.reverse, self.kind = T, B, reverse, kind
        self.W = tg.tensor(rng.standard_normal((H, H)), requires_grad=True)
        self.leaves: list[Any] = [self.W]

        def draw(*shape: int) -> Any:
            leaf = tg.tensor(rng.standard_normal(shape), requires_grad=True)
            self.leaves.append(leaf)
            return leaf

        def inputs() -> Any:
            return draw(T, B, H)

        self.rule: Callable[..., Any]
        self.state: Any
        self.xs: Any
        if kind == "plain":
            self.rule, self.state, self.xs = plain, draw(B, H), inputs()
        elif kind == "paired":
            self.rule, self.state = paired, Pair(draw(B, H), draw(B, H))
            self.xs = {"a": inputs(), "b": [inputs()]}
        else:
            self.rule, self.xs = nested, (inputs(),)
            self.state = {"s": [draw(B, H), draw(B, H)], "m": draw(B, H, H), "none": None}
        self.rng = np.random.default_rng(seed + 1)

    def step(self, state: Any, x: Any) -> tuple[Any, Any]:
        return self.rule(self.W, state, x)

    def order(self, steps: int) -> list[int]:
        return list(range(steps))[:: -1 if self.reverse else 1]

    def by_hand(self, lengths: Sequence[int] | None, edges: Sequence[float] | None) -> Any:
        """Each sequence alone: its final state, and its outputs padded with zeros."""
        finals, outputs = [], []
        for b in range(self.B):
            steps = self.T if lengths is None else lengths[b]
            state = map_structure(lambda s: s[b : b + 1], self.state)  # noqa: B023
            if edges is not None:
                state = tg.bptt.scale_gradient(state, edges[0])
            ys: dict[int, Any] = {}
            for i, t in enumerate(self.order(steps)):
                if i and edges is not None:
                    state = tg.bptt.scale_gradient(state, edges[t + 1 if self.reverse else t])
                x = map_structure(lambda x: x[t, b : b + 1], self.xs)  # noqa: B023
                state, ys[t] = self.step(state, x)
            finals.append(leaves_of(state))
            rows = [leaves_of(ys[t]) for t in sorted(ys)]
            outputs.append([list(column) for column in zip(*rows, strict=True)])
        count = max(map(len, outputs))
        blank = tg.zeros(1, H, dtype=tg.float64)
        whole = []
        for i in range(count):
            columns = []
            for rows in outputs:
                steps = rows[i] if rows else []
                columns.append(tg.stack(steps + [blank] * (self.T - len(steps))))
            whole.append(tg.concatenate(columns, axis=1))
        return [tg.concatenate(list(e)) for e in zip(*finals, strict=True)], whole

    def results(self, state: Any, ys: Any) -> list[np.ndarray]:
        """The results, and their gradients by all leaves under one random loss."""
        values = [*leaves_of(state), *leaves_of(ys)]
        rng = np.random.default_rng(7)
        loss = sum((v * v * tg.tensor(rng.standard_normal(v.shape))).sum() for v in values)
        return [v.numpy() for v in values] + self.gradients(loss)

    def gradients(self, loss: Any, **options: Any) -> list[np.ndarray]:
        if not loss.requires_grad:  # empty sequences, cut from the initial state
            return [np.zeros(x.shape) for x in self.leaves]
        found = tg.grad(loss, self.leaves, allow_unused=True, **options)
        return [np.zeros(x.shape) if g is None else g.numpy() for g, x in zip(found, self.leaves)]  # noqa: B905


def map_structure(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, dict):
        return {name: map_structure(function, v) for name, v in value.items()}
    if isinstance(value, Pair):
        return Pair(*(map_structure(function, v) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(map_structure(function, v) for v in value)
    return None if value is None else function(value)


def leaves_of(value: Any) -> list[Any]:
    found: list[Any] = []
    map_structure(found.append, value)
    return found


problems = st.builds(
    Problem,
    st.sampled_from(["plain", "paired", "nested"]),
    st.integers(1, 5),
    st.integers(1, 3),
    SEEDS,
    st.booleans(),
)


def assert_same(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert_allclose(one, other, **CLOSE)


# -- against a loop by hand ------------------------------------------------------------------------


@given(problems, st.data())
def test_outputs_and_gradients_are_those_of_a_loop_by_hand(
    problem: Problem, data: st.DataObject
) -> None:
    """With any structure, in both directions, with lengths and with edges."""
    weights = st.sampled_from([0.0, 1.0, 1.25, 0.5])
    edges = data.draw(st.none() | st.lists(weights, min_size=problem.T, max_size=problem.T))
    sizes = st.lists(st.integers(0, problem.T), min_size=problem.B, max_size=problem.B)
    lengths = data.draw(st.none() | sizes)
    wanted = problem.results(*problem.by_hand(lengths, edges))
    if lengths is not None:
        for x in leaves_of(problem.xs):  # never read
            for b, length in enumerate(lengths):
                x.data[length:, b] = data.draw(st.sampled_from([0.0, np.nan, np.inf]))
    state, ys = tg.scan(
        problem.step,
        problem.state,
        problem.xs,
        reverse=problem.reverse,
        lengths=lengths,
        edges=edges,
    )
    if lengths is not None and not any(lengths):
        wanted = wanted[: len(leaves_of(state))] + wanted[-len(problem.leaves) :]
        found = problem.results(state, None)
        assert all((y.numpy() == 0).all() for y in leaves_of(ys))
    else:
        found = problem.results(state, ys)
    assert_same(found, wanted)
    assert type(state) is type(problem.state)
    if problem.kind == "paired":
        assert ys["nothing"] is None and isinstance(ys["both"], tuple)
    if problem.kind == "nested":
        assert ys is None and state["none"] is None


@given(problems, st.sampled_from([None, 0.5]))
def test_second_derivatives_are_those_of_a_loop_by_hand(problem: Problem, weight: Any) -> None:
    edges = None if weight is None else [weight] * problem.T
    products = []
    for state, ys in (
        tg.scan(problem.step, problem.state, problem.xs, reverse=problem.reverse, edges=edges),
        problem.by_hand(None, edges),
    ):
        loss = sum((v**3).sum() for v in [*leaves_of(state), *leaves_of(ys)])
        first = tg.grad(loss, problem.leaves, allow_unused=True, create_graph=True)
        products.append(problem.gradients(sum((g * g).sum() for g in first if g is not None)))
    assert_same(*products)


def test_edges_are_the_weights_of_a_strategy() -> None:
    problem = Problem("plain", 9, 2, 0, False)
    for strategy in (tg.bptt.Truncated(4), tg.bptt.Randomized(0.6, rng=1)):
        edges = strategy.weights(9)
        state, ys = tg.scan(problem.step, problem.state, problem.xs, edges=edges)
        wanted = problem.results(*problem.by_hand(None, edges))
        assert_same(problem.results(state, ys), wanted)


@pytest.mark.parametrize("reverse", [False, True])
@tg.eager()  # the nodes of every step are counted
def test_the_graph_ends_at_an_edge_of_weight_zero(reverse: bool) -> None:
    problem = Problem("plain", 9, 2, 0, reverse)
    edges = [1.0] * 9
    edges[4] = 0.0  # between the steps 3 and 4
    state, _ = tg.scan(problem.step, problem.state, problem.xs, edges=edges, reverse=reverse)
    tanhs = sum(node.name == "tanh" for node in reachable([state._node]))
    assert tanhs == (4 if reverse else 5)
    cut, _ = tg.scan(problem.step, problem.state, problem.xs, edges=[0.0] + [1.0] * 8)
    assert problem.gradients(cut.sum())[1].any() == False  # noqa: E712 - the initial state


def test_an_edge_after_the_end_of_a_sequence_is_not_scaled() -> None:
    """And that from the initial state is, also of an empty sequence."""
    h = tg.ones(3, 1, dtype=tg.float64, requires_grad=True)
    xs = tg.zeros(4, 3, 1, dtype=tg.float64)
    for first, reverse in [(1.0, False), (1.0, True), (3.0, False), (3.0, True)]:
        state, _ = tg.scan(
            lambda h, x: (h + x, None), h, xs, lengths=[0, 2, 4], edges=[first, 2.0, 2.0, 2.0],
            reverse=reverse,
        )  # fmt: skip
        (gradient,) = tg.grad(state.sum(), [h])
        assert_array_equal(gradient.numpy()[:, 0], first * np.array([1.0, 2.0, 8.0]))


def test_no_state_and_inputs_of_any_dtype() -> None:
    ids = tg.tensor([[1, 2], [3, 4], [5, 6]])
    state, ys = tg.scan(lambda state, x: (state, x * x), None, ids)
    assert state is None
    assert_array_equal(ys.numpy(), ids.numpy() ** 2)
    for lengths, wanted in [([3, 1], [[1, 4], [9, 0], [25, 0]]), ([0, 0], [[0, 0]] * 3)]:
        _, ys = tg.scan(lambda state, x: (state, x * x), None, ids, lengths=lengths)
        assert ys.dtype == np.int64
        assert_array_equal(ys.numpy(), wanted)


def test_ended_sequences_are_computed_with_numbers_of_the_longest() -> None:
    """A step that is singular at zero: neither values nor gradients become nan."""

    def step(h: Any, x: Any) -> tuple[Any, Any]:
        h = tg.log(h) + tg.sqrt(x) + 2.0
        return h, 1 / h

    xs = tg.tensor(np.ones((4, 2, 1)), requires_grad=True)
    xs.data[2:, 1] = 0.0
    h = tg.ones(2, 1, dtype=tg.float64, requires_grad=True)
    state, ys = tg.scan(step, h, xs, lengths=[4, 2])
    gradients = tg.grad(state.sum() + ys.sum(), [xs, h])
    assert all(np.isfinite(g.numpy()).all() for g in gradients)
    assert (gradients[0].numpy()[2:, 1] == 0).all()
    _, alone = tg.scan(step, h[1:], xs[:2, 1:])
    assert_allclose(ys.numpy()[:2, 1], alone.numpy()[:, 0], **CLOSE)


# -- what the caller holds -------------------------------------------------------------------------


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("lengths", [None, [4, 2]])
def test_a_step_may_update_its_arguments(recorded: bool, lengths: Any) -> None:
    def update(h: Any, x: Any) -> tuple[Any, Any]:
        h += x
        x *= 2.0
        return h, x

    h, xs = tg.ones(2, 3), tg.ones(4, 2, 3)
    with tg.enable_grad() if recorded else tg.no_grad():
        state, ys = tg.scan(update, h, xs, lengths=lengths)
    assert (h.numpy() == 1).all() and (xs.numpy() == 1).all()
    assert_array_equal(state.numpy()[:, 0], [5.0, 5.0 if lengths is None else 3.0])
    assert_array_equal(ys.numpy()[0], np.full((2, 3), 2.0))


def test_the_cyclic_gc_is_paused_and_enabled_again() -> None:
    states = []

    def step(h: Any, x: Any) -> tuple[Any, Any]:
        states.append(gc.isenabled())
        if len(states) == 3:
            raise KeyError("stop")
        return h, x

    assert gc.isenabled()
    with pytest.raises(KeyError, match="stop"):
        tg.scan(step, tg.zeros(1), tg.zeros(4, 1))
    assert states == [False] * 3 and gc.isenabled()
    gc.disable()
    try:
        tg.scan(lambda h, x: (h, x), tg.zeros(1), tg.zeros(4, 1))
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_checkpointed_scan_has_the_same_gradient() -> None:
    problem = Problem("paired", 5, 2, 3, False)

    def whole(state: Any, xs: Any) -> Any:
        return tg.scan(problem.step, state, xs)

    one = problem.results(*whole(problem.state, problem.xs))
    other = problem.results(*tg.checkpoint(whole, problem.state, problem.xs))
    assert_same(one, other)


# -- misuse ----------------------------------------------------------------------------------------

HS, XS = tg.zeros(2, 3), tg.zeros(4, 2, 3)


def same(h: Any, x: Any) -> tuple[Any, Any]:
    return h, x


def each_time(*results: Any) -> Callable[[Any, Any], Any]:
    """A step function that returns something else at each call."""
    values = iter([*results, *results[-1:] * 9])
    return lambda h, x: next(values)


WRONG: list[tuple[Callable[[], Any], Any, str]] = [
    (lambda: tg.scan(3, HS, XS), ArgumentError, "scan: step is a function, got a int"),
    (lambda: tg.scan(lambda h, x: h, HS, XS), ArgumentError, "returns .state, y.*got a Tensor"),
    (lambda: tg.scan(lambda h, x: (h, x, x), HS, XS), ArgumentError, "got a tuple"),
    (lambda: tg.scan(lambda h, x: ((h,), x), HS, XS), ArgumentError, "structure of the state"),
    (lambda: tg.scan(lambda h, x: (None, x), HS, XS), ArgumentError, "NoneType, Tensor is needed"),
    (lambda: tg.scan(lambda h, x: (0.0, x), HS, XS), ArgumentError, "float, Tensor is needed"),
    (
        lambda: tg.scan(lambda s, x: ({"b": s["b"], "a": s["a"]}, x), {"a": HS, "b": HS}, XS),
        ArgumentError,
        "'b'.*'a'.*is needed, with the keys in this order",
    ),
    (lambda: tg.scan(lambda h, x: (h[:1], x), HS, XS), ShapeError, r"\(1, 3\), \(2, 3\) is needed"),
    (
        lambda: tg.scan(lambda h, x: (h.astype("float64"), x), HS, XS),
        DTypeError,
        r"state in float64, float32 is needed: use \.astype\('float32'\)",
    ),
    (lambda: tg.scan(lambda h, x: (h, 1.0), HS, XS), ArgumentError, "a float in y"),
    (lambda: tg.scan(each_time((HS, HS), (HS, HS[:1])), HS, XS), ShapeError, "earlier step"),
    (lambda: tg.scan(each_time((HS, HS), (HS, None)), HS, XS), ArgumentError, "earlier step"),
    (lambda: tg.scan(each_time((HS, HS), (HS, (HS, HS))), HS, XS), ArgumentError, "earlier step"),
    (lambda: tg.scan(same, HS, (XS, XS[:3])), ShapeError, r"the same T each.*\(3, 2, 3\)"),
    (lambda: tg.scan(same, HS, tg.tensor(1.0)), ShapeError, "the same T"),
    (lambda: tg.scan(same, HS, ()), ShapeError, "the same T"),
    (lambda: tg.scan(same, HS, XS[:0]), ShapeError, "no time step"),
    (lambda: tg.scan(same, HS, None), ArgumentError, r"scan: xs is None.*arange\(T\)"),
    (
        lambda: tg.scan(lambda s, x: ((s[0], s[1][:1]), x), (HS, HS), XS),
        ShapeError,
        r"element 1 of the state of shape \(1, 3\), \(2, 3\) is needed",
    ),
    (
        lambda: tg.scan(lambda s, x: ((s[0].astype("float64"), s[1]), x), (HS, HS), XS),
        DTypeError,
        r"element 0 of the state in float64, float32 is needed",
    ),
    (
        lambda: tg.scan(lambda h, x: (tg.nn.Linear(3, 3)(x), x), HS, (XS, XS)),
        DTypeError,
        "of length 2",
    ),
    (lambda: tg.scan(same, 0.0, XS), (TypeError, ArgumentError), "scan: state"),
    (lambda: tg.scan(same, HS, XS, edges=[1.0] * 3), ArgumentError, "edges are 4 numbers.*got 3"),
    (lambda: tg.scan(same, HS, XS, edges=["a"] * 4), ArgumentError, "edges must be a number"),
    (lambda: tg.scan(same, HS, XS, edges="abcd"), ArgumentError, "edges are 4 .* got a str"),
    (lambda: tg.scan(same, HS, XS, edges=dict.fromkeys(range(4))), ArgumentError, "got a dict"),
    (lambda: tg.scan(same, HS, XS, edges=[1, np.nan, 1, 1]), ArgumentError, "finite .* nan"),
    (lambda: tg.scan(same, HS, XS, lengths=[4]), ArgumentError, "lengths are 2 integers.* to 4"),
    (
        lambda: tg.scan(same, HS, XS, lengths=["a", "b"]),
        ArgumentError,
        r"2 integers .*\['a', 'b'\]",
    ),
    (lambda: tg.scan(same, HS, XS, lengths=[None, 1]), ArgumentError, r"2 integers .*\[None, 1\]"),
    (lambda: tg.scan(same, HS, XS, lengths={1, 2}), ArgumentError, r"2 integers .*\{1, 2\}"),
    (
        lambda: tg.scan(same, HS, XS, lengths=[2.0, 1.0]),
        ArgumentError,
        r"2 integers .*\[2.0, 1.0\]",
    ),
    (
        lambda: tg.scan(lambda h, x: (h + x.sum(), x), tg.tensor(0), XS),
        DTypeError,
        "or begin with a state in float32",
    ),
    (lambda: tg.scan(f=same, init=HS, xs=XS), TypeError, "f= is step= here"),
    (lambda: tg.scan(same, init=HS, xs=XS), TypeError, "init= is state= here"),
    (lambda: tg.scan(same, HS, XS, lengths=[4, 5]), ArgumentError, "lengths are 2 integers"),
    (lambda: tg.scan(same, HS[:1], XS, lengths=[4, 2]), ShapeError, r"\(B, \.\.\.\).*\(1, 3\)"),
    (lambda: tg.scan(same, None, tg.zeros(4), lengths=[4, 2]), ShapeError, r"\(T, B, \.\.\.\)"),
    (
        lambda: tg.scan(lambda h, x: (h, x.sum()), HS, XS, lengths=[4, 2]),
        ShapeError,
        r"y of shape \(\): with lengths \(2, \.\.\.\) is needed",
    ),
    (lambda: tg.scan(same, HS, XS, True), TypeError, "scan: too many positional arguments"),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_a_wrong_argument_is_named(number: int) -> None:
    call, error, message = WRONG[number]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "later, error",
    [
        (lambda h: (tg.stack([h, h]), h), ShapeError),
        (lambda h: (h.astype("float32"), h), DTypeError),
        (lambda h: ((h, h), h), ArgumentError),
        (lambda h: h, ArgumentError),
        (lambda h: (h, h, h), ArgumentError),
    ],
)
def test_a_later_step_that_returns_another_state_is_refused(later, error) -> None:
    def step(h: tg.Tensor, x: tg.Tensor) -> object:
        return later(h) if x.item() == 2 else (h + x, h)

    with pytest.raises(error, match="scan: step return"):
        tg.scan(step, tg.zeros(2, dtype="float64"), tg.arange(4))


@pytest.mark.parametrize(
    "later",
    [lambda h: {"b": h, "a": h}, lambda h: {"a": h, "z": h}, lambda h: [h, h], lambda h: h],
)
def test_outputs_of_another_structure_are_refused(later) -> None:
    def step(h: tg.Tensor, x: tg.Tensor) -> object:
        return h + x, later(h) if x.item() == 2 else {"a": h, "b": h}

    with pytest.raises(ArgumentError, match="scan: step returned y with the structure"):
        tg.scan(step, tg.zeros(2), tg.arange(4.0))


@pytest.mark.parametrize("step", [lambda h, x: (tg.tanh(h + x), h), lambda h, x: (h.exp(), h)])
def test_an_error_for_want_of_a_state_names_the_cure(step) -> None:
    with pytest.raises((TypeError, AttributeError)) as caught:
        tg.scan(step, None, XS)
    assert "give an initial state" in caught.value.__notes__[0]
    with pytest.raises(AttributeError) as caught:
        tg.scan(lambda h, x: (h.nothing, h), HS, XS)
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("edges", [0.5, tg.bptt.Truncated(2), None])
def test_edges_are_a_sequence(edges) -> None:
    if edges is None:
        tg.scan(same, HS, XS, edges=edges)
        return
    with pytest.raises(ArgumentError, match=r"scan: edges .* strategy\.weights"):
        tg.scan(same, HS, XS, edges=edges)


@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 0, 2), (0, 2, 1), (1, 2, 0), (2, 0, 1)])
def test_the_gradient_of_a_transposed_array_of_three_axes(axes):
    w = tg.tensor(np.arange(24.0).reshape(2, 3, 4), requires_grad=True)
    v = tg.transpose(w, axes)
    x = tg.tensor(np.random.default_rng(0).normal(size=(3, *v.shape)))
    h, _ = tg.scan(lambda h, x: (h + v * x, None), tg.zeros(*v.shape, dtype="float64"), x)
    h.sum().backward()
    expected = x.numpy().sum(0).transpose(np.argsort(axes))
    np.testing.assert_allclose(w.grad.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("transposed", [False, True])
def test_equal_gradients_of_two_leaves_have_memory_of_their_own(shape, transposed):
    a, b = (tg.zeros(*shape[::-1] if transposed else shape, requires_grad=True) for _ in range(2))
    c, d = (a.T, b.T) if transposed else (a, b)
    h, _ = tg.scan(
        lambda h, x: (tg.tanh(x + h + c + d), None), tg.zeros(*shape), tg.ones(4, *shape)
    )
    h.sum().backward()
    np.testing.assert_array_equal(a.grad.numpy(), b.grad.numpy())
    assert not np.shares_memory(a.grad._data, b.grad._data)
