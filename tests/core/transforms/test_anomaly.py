"""`detect_anomaly`: which operation made the first nan or infinite number."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.engine.grad_mode import thread, watching
from tinygrad_rnn.engine.namespaces import PRIMITIVES
from tinygrad_rnn.errors import AnomalyError

pytestmark = pytest.mark.filterwarnings(
    "ignore:divide by zero", "ignore:invalid value", "ignore:overflow"
)


@pytest.fixture(autouse=True)
def same_primitives():
    """What a test defines is gone after it."""
    before = dict(PRIMITIVES)
    yield
    PRIMITIVES.clear()
    PRIMITIVES.update(before)


def leaf(*values: float) -> tg.Tensor:
    return tg.tensor(np.array(values, dtype=float), requires_grad=True)


def line() -> int:
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return frame.f_back.f_lineno


# -- forward ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "compute, message",
    [
        (lambda x: tg.log(x), "log made nan, 1 of 3 elements of its result, from (3,)"),
        (lambda x: tg.log(x + 1), "log made inf, 1 of 3 elements of its result, from (3,)"),
        (lambda x: 1 / (x + 1), "divide made inf, 1 of 3 elements of its result, from (3,)"),
        (
            lambda x: x * 1e300 * 1e300,
            "multiply made inf, 2 of 3 elements of its result, from (3,)",
        ),
        (
            lambda x: x.reshape(3, 1) @ x.reshape(1, 3) * np.inf - np.inf,
            "multiply made nan, 5 of 9 elements of its result, from (3, 3)",
        ),
        (lambda x: tg.sum(x**0.5), "power made nan, 1 of 3 elements of its result, from (3,)"),
    ],
    ids=["nan", "inf", "division", "overflow", "product", "composed"],
)
def test_the_operation_that_made_it_is_named(compute: Any, message: str) -> None:
    for x in (leaf(-1, 0, 2), leaf(-1, 0, 2).detach()):
        compute(x)
        with tg.detect_anomaly(), pytest.raises(AnomalyError) as raised:
            compute(x)
        assert str(raised.value) == message
        compute(x)


def test_infinite_numbers_may_pass_and_nans_may_not_come_in():
    with tg.detect_anomaly():
        tg.pad(tg.ones(1), 1, constant_values=-np.inf)
        masked = tg.where([True, False], leaf(1, 2), -np.inf)
        assert tg.softmax(masked).numpy().tolist() == [1, 0]
        tg.softmax(masked).sum().backward()
        with pytest.raises(AnomalyError, match="subtract made nan"):
            masked - masked
        with pytest.raises(AnomalyError, match=r"add was given nan, 1 elements of \(2,\).*data"):
            tg.tensor([np.nan, 1.0]) + 1


def test_integers_and_booleans_pass():
    with tg.detect_anomaly():
        assert (tg.arange(3) + 1).numpy().tolist() == [1, 2, 3]
        assert tg.argmax(tg.tensor([1.0, 2.0])).item() == 1


# -- backward --------------------------------------------------------------------------------------


def test_the_backward_pass_names_the_operation_and_where_it_was_called():
    x = leaf(1, 0, 4)
    with tg.detect_anomaly():
        root, here = tg.sqrt(x), line()
        with pytest.raises(AnomalyError) as raised:
            (root * 3).sum().backward()
    assert str(raised.value) == (
        f"backward of sqrt (called at {__file__}:{here}) made inf, 1 of 3 elements of the gradient "
        "by x, from (3,)"
    )
    assert x.grad is None


def test_a_call_inside_the_library_names_the_function_too():
    layer = tg.nn.LayerNorm(2, eps=0.0, dtype=tg.float64)
    x = tg.tensor(np.ones((1, 2)), requires_grad=True)
    with tg.detect_anomaly(), pytest.raises(AnomalyError, match="divide made inf"):
        layer(x)
    cell, h = tg.nn.RNNCell(2, 2, dtype=tg.float64), leaf(0, 0)
    cell.weight_hh.data = np.full((2, 2), 1e10)
    with tg.detect_anomaly():
        output, here = cell(tg.zeros(2, dtype=tg.float64), h), line()
        with pytest.raises(AnomalyError, match="backward of linear") as raised:
            output.backward([1e308, 1e308])
    assert f"called at {__file__}:{here}, in RNNCell.step" in str(raised.value)


def test_an_operation_called_before_the_block_is_named_without_a_place():
    root = tg.sqrt(leaf(0))
    with tg.detect_anomaly(), pytest.raises(AnomalyError, match="backward of sqrt made inf"):
        root.backward()


def test_gradients_that_overflow_when_they_are_added_up():
    """Factors of a product, parts and dense contributions are added up outside of operations."""
    w = tg.tensor(np.ones((2, 2)), requires_grad=True)
    x = tg.tensor(np.full((3, 2), 1e200))
    with tg.detect_anomaly(), pytest.raises(AnomalyError, match=r"adding up .* made inf, 4 of 4"):
        (x @ w).backward(np.full((3, 2), 1e200))
    big = np.full(2, 1.5e308)
    for double in (lambda t: t + t, lambda t: t[0:2] + t[[0, 1]], lambda t: t[0:2] + t):
        t = leaf(1, 1)
        with tg.detect_anomaly(), pytest.raises(AnomalyError, match=r"adding up .* made inf, 2 of"):
            double(t).backward(big)
        assert t.grad is None
        double(t).backward([1.0, 1.0])
        np.testing.assert_array_equal(t.grad.numpy(), [2, 2])


def test_a_sum_over_broadcast_axes_that_overflows():
    x = leaf(1)
    with tg.detect_anomaly(), pytest.raises(AnomalyError, match=r"adding up .* made inf, 1 of 1"):
        (x + np.zeros(2)).backward([1.5e308, 1.5e308])


def test_infinite_gradients_may_add_up_but_not_to_nan():
    x = leaf(1, 1)
    with tg.detect_anomaly():
        (x + x).backward([np.inf, 1.0])
        np.testing.assert_array_equal(x.grad.numpy(), [np.inf, 2])
        with pytest.raises(AnomalyError, match=r"adding up .* made nan, 1 of 2"):
            (x - x).backward([np.inf, 1.0])


def test_the_pass_may_start_from_infinite_numbers():
    x = leaf(1, 1)
    with tg.detect_anomaly():
        y = x * 2
        first, second = tg.grad([y, y + 1], [y, x], [np.array([np.inf, 1.0]), np.ones(2)])
    np.testing.assert_array_equal(first.numpy(), [np.inf, 2])
    np.testing.assert_array_equal(second.numpy(), [np.inf, 4])


def test_a_nan_to_start_from_is_told_from_one_that_was_made():
    with (
        tg.detect_anomaly(),
        pytest.raises(AnomalyError, match=r"backward of indexing .*given nan"),
    ):
        leaf(1, 2)[0:2].backward([np.nan, 1.0])


def test_second_derivatives_name_the_outer_operation():
    x = leaf(0)
    with tg.detect_anomaly(), pytest.raises(AnomalyError, match=r"backward of sqrt .*divide made"):
        tg.grad(tg.sqrt(x), x, create_graph=True)


def test_checkpoints_are_watched_inside():
    x = leaf(0)
    with (
        tg.detect_anomaly(),
        pytest.raises(AnomalyError, match=r"backward of checkpoint.*of sqrt"),
    ):
        tg.checkpoint(tg.sqrt, x).backward()


def test_several_results_and_shared_ones():
    x = leaf(1, 4)
    with tg.detect_anomaly():
        a, b = x
        (a * a + b / a).backward()
    np.testing.assert_allclose(x.grad.numpy(), [2 - 4, 1])


# -- operations of a user's own --------------------------------------------------------------------


def test_a_users_operation_is_watched_wherever_it_is_defined():
    def define():
        @tg.primitive(x=lambda F, g, x: g / x)
        def own(xp, x):
            return x * 2

        return own

    before = define()
    with tg.detect_anomaly():
        inside = define()
        for operation in (before, inside):
            with pytest.raises(AnomalyError, match="backward of own"):
                operation(leaf(0)).backward()
    for operation in (before, inside):
        operation(leaf(0)).backward()


# -- the mode --------------------------------------------------------------------------------------


def test_nothing_is_left_of_it() -> None:
    assert not watching and thread.watcher is None
    with tg.detect_anomaly():
        outer = thread.watcher
        assert len(watching) == 1
        with tg.detect_anomaly():
            assert len(watching) == 2
        assert thread.watcher is outer
    assert not watching and thread.watcher is None
    with pytest.raises(KeyError), tg.detect_anomaly():
        raise KeyError
    assert not watching and thread.watcher is None
    x = leaf(0)
    tg.log(x).backward()
    assert np.isinf(x.grad.item())


def test_it_belongs_to_a_thread():
    errors: list[BaseException] = []
    entered, done = threading.Event(), threading.Event()

    def watch() -> None:
        try:
            with tg.detect_anomaly():
                entered.set()
                done.wait(30)
                with pytest.raises(AnomalyError):
                    tg.log(leaf(0))
        except BaseException as error:
            errors.append(error)

    other = threading.Thread(target=watch)
    other.start()
    entered.wait(30)
    x = leaf(0)
    tg.sqrt(x).backward()
    assert np.isinf(x.grad.item())
    with tg.detect_anomaly(), pytest.raises(AnomalyError):
        tg.log(leaf(0))
    done.set()
    other.join()
    assert not errors


def test_it_is_a_decorator():
    @tg.detect_anomaly()
    def compute(x):
        return tg.log(x)

    assert compute(leaf(1)).item() == 0
    with pytest.raises(AnomalyError):
        compute(leaf(0))


def test_gradients_are_the_same_inside():
    layer = tg.nn.LSTM(3, 4, rng=0)
    x = tg.randn(5, 2, 3, rng=1)

    def gradients() -> list[Any]:
        output, _ = layer(x)
        return [g.numpy() for g in tg.grad((output * output).sum(), list(layer.parameters()))]

    with tg.eager():
        separate = gradients()
    with tg.detect_anomaly():
        watched = gradients()
    for a, b, c in zip(separate, watched, gradients(), strict=True):
        np.testing.assert_array_equal(a, b)
        # A loop that is one operation, or fused steps, round in another order.
        np.testing.assert_allclose(c, b, rtol=1e-5, atol=1e-6)
