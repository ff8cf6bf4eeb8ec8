"""Feature-label batches and synthetic tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.data import batches, tasks
from tinygrad_rnn.engine import backend
from tinygrad_rnn.engine.autograd import grad
from tinygrad_rnn.engine.tensor import Tensor
from tinygrad_rnn.errors import ArgumentError, ShapeError
from tinygrad_rnn.tensors.creation import ones, tensor

SIZES = st.integers(1, 12)
SEEDS = st.integers(0, 2**32 - 1)


# -- batches ---------------------------------------------------------------------------------------


def test_batches_copy_the_rows_of_an_array() -> None:
    """The array may be refilled before the backward pass."""
    rows, x = np.array([[1.0, 2.0], [3.0, 4.0]]), ones(2, 2, requires_grad=True)
    loss = (x * next(iter(batches(rows, batch_size=2, shuffle=False)))[0]).sum()
    rows[...] = 77.0
    assert grad(loss, x).numpy().tolist() == [[1.0, 2.0], [3.0, 4.0]]


@given(n=SIZES, batch_size=SIZES, shuffle=st.booleans(), seed=SEEDS)
def test_batches_hold_every_row_once(n: int, batch_size: int, shuffle: bool, seed: int) -> None:
    x = np.arange(3.0 * n).reshape(n, 3)
    y = np.arange(n)
    epoch = list(batches(x, tensor(y), batch_size=batch_size, shuffle=shuffle, rng=seed))
    assert [len(labels) for _, labels in epoch[:-1]] == [batch_size] * (len(epoch) - 1)
    features = np.concatenate([f.numpy() for f, _ in epoch])
    labels = np.concatenate([b.numpy() for _, b in epoch])
    assert features.dtype == x.dtype
    assert labels.dtype == y.dtype
    assert (features == x[labels]).all()  # rows that belong together
    assert sorted(labels) == y.tolist()
    assert shuffle or labels.tolist() == y.tolist()


@given(n=SIZES, batch_size=SIZES, seed=SEEDS)
def test_drop_last_leaves_whole_minibatches(n: int, batch_size: int, seed: int) -> None:
    def epoch() -> list[int]:
        pairs = batches(np.arange(n), batch_size=batch_size, rng=seed, drop_last=True)
        return [len(x) for (x,) in pairs]

    if n < batch_size:
        with pytest.raises(
            ArgumentError, match=f"{n} rows are too few for batch_size={batch_size}"
        ):
            epoch()
    else:
        assert epoch() == [batch_size] * (n // batch_size)


def test_order_is_new_each_epoch_and_repeats_with_the_seed() -> None:
    def epochs(rng: Any) -> list[list[int]]:
        return [
            [i for (x,) in batches(np.arange(50), batch_size=8, rng=rng) for i in x.numpy()]
            for _ in range(2)
        ]

    first, second = epochs(np.random.default_rng(3))
    assert first != second
    assert [first, second] == epochs(np.random.default_rng(3))
    assert len({str(epoch) for epoch in epochs(3)}) == 1


def test_lists_become_tensors_of_the_default_dtype() -> None:
    [(x, y)] = batches([[1.0], [2.0]], [3, 4], batch_size=2, shuffle=False)
    assert isinstance(x, Tensor)
    assert x.dtype == backend.get_default_dtype()
    assert (x.numpy().tolist(), y.numpy().tolist()) == ([[1], [2]], [3, 4])


def test_batches_refuse_at_the_call() -> None:
    with pytest.raises(ShapeError, match=r"\(3, 2\), \(4,\)"):
        batches(np.zeros((3, 2)), np.zeros(4), batch_size=1)
    with pytest.raises(ShapeError, match=r"\(\)"):
        batches(np.zeros(()), batch_size=1)
    with pytest.raises(ArgumentError, match="no arrays"):
        batches(batch_size=1)
    with pytest.raises(ArgumentError, match="0 rows"):
        batches(np.zeros((0, 2)), batch_size=1)
    with pytest.raises(ArgumentError, match="batch_size must be a positive integer, got 0"):
        batches(np.zeros(3), batch_size=0)


# -- tasks -----------------------------------------------------------------------------------------


@given(batch_size=SIZES, delay=SIZES, n_symbols=SIZES, length=SIZES, seed=SEEDS)
def test_copy(batch_size: int, delay: int, n_symbols: int, length: int, seed: int) -> None:
    x, y = (t.numpy() for t in tasks.copy(batch_size, delay, n_symbols, length, rng=seed))
    assert x.shape == y.shape == (delay + 2 * length, batch_size)
    assert x.dtype == y.dtype == np.int64
    blank, delimiter = n_symbols, n_symbols + 1
    assert ((x[:length] >= 0) & (x[:length] < n_symbols)).all()
    assert (x[length : length + delay - 1] == blank).all()
    assert (x[length + delay - 1] == delimiter).all()
    assert (x[length + delay :] == blank).all()
    assert (y[: length + delay] == blank).all()
    assert (y[length + delay :] == x[:length]).all()


@given(batch_size=SIZES, steps=st.integers(2, 20), seed=SEEDS)
def test_adding(batch_size: int, steps: int, seed: int) -> None:
    x, y = (t.numpy() for t in tasks.adding(batch_size, steps, rng=seed))
    assert (x.shape, y.shape) == ((steps, batch_size, 2), (batch_size, 1))
    assert x.dtype == y.dtype == backend.get_default_dtype()
    numbers, marks = x[..., 0], x[..., 1]
    assert ((numbers >= 0) & (numbers <= 1)).all()
    assert (marks[: steps // 2].sum(axis=0) == 1).all()
    assert (marks[steps // 2 :].sum(axis=0) == 1).all()
    assert set(np.unique(marks)) <= {0, 1}
    np.testing.assert_allclose(y[:, 0], (numbers * marks).sum(axis=0), rtol=1e-6)


@pytest.mark.parametrize("steps", [2, 5, 6])
def test_adding_marks_every_step_sometimes(steps: int) -> None:
    x, _ = tasks.adding(1000, steps, rng=0)
    assert (x.numpy()[..., 1].sum(axis=1) > 0).all()


def test_adding_always_answering_one_errs_by_a_sixth() -> None:
    _, y = tasks.adding(20_000, 4, rng=0)
    assert np.mean((y.numpy() - 1) ** 2) == pytest.approx(1 / 6, abs=0.005)


@given(batch_size=SIZES, steps=SIZES, seed=SEEDS)
def test_parity(batch_size: int, steps: int, seed: int) -> None:
    x, y = (t.numpy() for t in tasks.parity(batch_size, steps, rng=seed))
    assert (x.shape, y.shape) == ((steps, batch_size, 1), (steps, batch_size))
    assert x.dtype == backend.get_default_dtype()
    assert y.dtype == np.int64
    odd = np.zeros(batch_size, bool)
    for bits, target in zip(x[..., 0], y, strict=True):
        assert set(bits) <= {0, 1}
        odd ^= bits == 1
        assert (target == odd).all()


def test_sine_follows_its_formula() -> None:
    series = tasks.sine(500, frequency=0.05, noise=0)
    assert series.dtype == backend.get_default_dtype()
    np.testing.assert_allclose(series.numpy(), np.sin(0.05 * np.arange(1, 501)), atol=1e-6)
    noisy = tasks.sine(20_000, frequency=0.05, noise=0.3, rng=0).numpy()
    assert np.std(noisy - np.sin(0.05 * np.arange(1, 20_001))) == pytest.approx(0.3, rel=0.03)


@pytest.mark.parametrize(
    "task",
    [
        lambda rng: tasks.copy(4, 5, rng=rng)[0],
        lambda rng: tasks.adding(4, 5, rng=rng)[0],
        lambda rng: tasks.parity(4, 9, rng=rng)[0],
        lambda rng: tasks.sine(9, rng=rng),
    ],
)
def test_tasks_repeat_with_the_seed(task: Any) -> None:
    assert (task(1).numpy() == task(1).numpy()).all()
    assert (task(1).numpy() != task(2).numpy()).any()
    rng = np.random.default_rng(1)
    assert (task(rng).numpy() != task(rng).numpy()).any()


@pytest.mark.parametrize(
    "call",
    [
        lambda: tasks.copy(0, 5),
        lambda: tasks.copy(1, 0),
        lambda: tasks.copy(1, 1, n_symbols=0),
        lambda: tasks.adding(1, 0),
        lambda: tasks.parity(1, -1),
        lambda: tasks.sine(0),
    ],
)
def test_tasks_refuse_sizes(call: Any) -> None:
    with pytest.raises(ArgumentError, match="must be a positive integer"):
        call()


def test_adding_needs_two_steps() -> None:
    with pytest.raises(ArgumentError, match="two marks"):
        tasks.adding(1, 1)
