"""A gradient that a rule drops is dropped by selection: nothing that was not chosen contributes.

Infinite and nan gradients are the means of proof: multiplied by a mask of 0 they would give nan.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.engine.ops import kernels

KEPT = np.array([True, False, True, False, True, True])

# name: function of x, values of x, which elements of x the result depends on
CASES = {
    "relu": (tg.relu, [2, -1, 0.5, 0, 3, 1], KEPT),
    "clip": (lambda x: tg.clip(x, -1, 1), [1, -2, 0.5, 3, -1, 0], KEPT),
    "clip from below": (lambda x: tg.clip(x, min=0.0), [1, -2, 0.5, -3, 0, 9], KEPT),
    "clip from above": (lambda x: tg.clip(x, max=0.0), [-1, 2, -0.5, 3, 0, -9], KEPT),
    "maximum": (lambda x: tg.maximum(x, 0.0), [1, -2, 0.5, -3, 4, 9], KEPT),
    "maximum, right": (lambda x: tg.maximum(0.0, x), [1, -2, 0.5, -3, 4, 9], KEPT),
    "minimum": (lambda x: tg.minimum(x, 0.0), [-1, 2, -0.5, 3, -4, -9], KEPT),
    "where": (lambda x: tg.where(x > 0, x, 0.0), [1, -2, 0.5, -3, 4, 9], KEPT),
    "where, other": (lambda x: tg.where(x > 0, 0.0, x), [-1, 2, -0.5, 3, -4, -9], KEPT),
    "abs": (tg.abs, [2, 0, 0.5, 0, -3, 1], KEPT),
    "power": (lambda x: x**0, [2, 0, 0.5, np.nan, -3, 1], np.zeros(6, bool)),
}
DROPPED = {
    "dropout": (
        lambda x: tg.functional.masked(x, KEPT, 0.4),
        [2, np.inf, 0.5, np.nan, -3, 1],
        KEPT,
    ),
}
ROUTES = ["plain", "create_graph", "fused"]


def gradient(function, values, start, route):
    """The gradient of x for the gradient `start` of the result."""
    x = tg.tensor(np.asarray(values, dtype=np.float64), requires_grad=True)
    function = tg.fuse(function) if route == "fused" else function
    with np.errstate(all="ignore"):
        y = function(x)
        (g,) = tg.grad([y], [x], [start], create_graph=route == "create_graph")
    return g.numpy()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", CASES)
@settings(max_examples=5)
@given(st.sampled_from([np.inf, -np.inf, np.nan]), st.integers(0, 2**32 - 1))
def test_no_gradient_reaches_what_was_not_chosen(name, route, wild, seed):
    check(*CASES[name], route, wild, seed)


@pytest.mark.parametrize("route", ROUTES[:2])
@pytest.mark.parametrize("wild", [np.inf, -np.inf, np.nan])
def test_a_dropped_element_contributes_nothing(route, wild):
    function, values, kept = DROPPED["dropout"]
    check(function, values, kept, route, wild, 0)
    y = function(tg.tensor(np.array(values)))
    assert (y.numpy()[~kept] == 0).all()


def check(function, values, kept, route, wild, seed):
    """A wild gradient at what was not chosen gives 0 there, and changes nothing elsewhere."""
    tame = np.random.default_rng(seed).uniform(0.5, 1, len(values))
    found = gradient(function, values, np.where(kept, tame, wild), route)
    assert (found[~kept] == 0).all()
    np.testing.assert_array_equal(found[kept], gradient(function, values, tame, route)[kept])
    assert (found[kept] != 0).all()
    everywhere = gradient(function, values, np.full(len(values), wild), route)
    assert (everywhere[~kept] == 0).all() and not np.isfinite(everywhere[kept]).any()


@given(
    st.sampled_from([np.float16, np.float32, np.float64, np.int64]),
    st.sampled_from(["C", "F", "strided", "broadcast", "reversed"]),
    st.sampled_from([0, 0.0, -0.0, 1.0, False]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_selection_beside_a_number_is_numpys_where(dtype, layout, number, first, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 9, (60, 70)).astype(dtype)
    number = int(number) if dtype == np.int64 else number  # a float would make integers floating
    if dtype != np.int64:
        x[rng.random(x.shape) < 0.1] = rng.choice([np.nan, np.inf, -np.inf, -0.0])
    condition = rng.random(rng.choice([60, 1]) if layout == "broadcast" else x.shape) < 0.5
    x = {
        "C": x,
        "F": np.asfortranarray(x),
        "strided": np.repeat(x, 2, axis=1)[:, ::2],
        "broadcast": np.broadcast_to(x[:, :1, None], (60, 70, len(condition))),
        "reversed": x[::-1],
    }[layout]
    ours = (condition, number, x) if first else (condition, x, number)
    found, expected = tg.where(condition, *map(tg_like, ours[1:])).numpy(), np.where(*ours)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


@pytest.mark.parametrize("dtype", ["longdouble", ">f8", ">f4", ">f2"])
def test_selection_from_numbers_that_the_processor_has_in_no_register(dtype):
    x = np.random.default_rng(0).normal(size=3000).astype(dtype)
    found = kernels.where(np, x > 0, x, 0.0)
    assert found.dtype == np.where(x > 0, x, 0.0).dtype
    np.testing.assert_array_equal(found, np.where(x > 0, x, 0.0))


def test_an_infinite_gradient_of_a_constant_power_is_dropped():
    x = tg.tensor([0.0, 2.0, 3.0], dtype="float64", requires_grad=True)
    y = tg.tensor([0.0, 0.0, 2.0], dtype="float64")
    for wild in (np.inf, -np.inf, np.nan):
        for route in (tg.power, tg.fuse(lambda x, y: x**y)):
            (g,) = tg.grad([route(x, y)], [x], [np.array([wild, wild, 1.0])])
            np.testing.assert_array_equal(g.numpy(), [0, 0, 6])


@pytest.mark.parametrize("wild", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("axis, reduction", [(-1, "mean"), (1, "sum"), (1, "none")])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_ignored_row_contributes_nothing(wild, axis, reduction, smoothing):
    def derivatives(row):
        values = np.random.default_rng(0).normal(size=(3, 4))
        values[1] = row
        x = tg.tensor(values, requires_grad=True)
        loss = tg.functional.cross_entropy(
            x, [1, -100, 2], axis, reduction, ignore_index=-100, label_smoothing=smoothing
        )
        g = tg.grad(loss.sum(), x, create_graph=True)
        return loss.detach().numpy(), g.detach().numpy(), tg.grad((g * g).sum(), x).numpy()

    with np.errstate(all="raise"):
        found = derivatives([wild, 0.0, -wild, 1.0])
    for one, other in zip(found, derivatives(0.0), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (found[1][1] == 0).all() and (found[2][1] == 0).all()


def tg_like(value):
    """A Tensor on the memory of an array; a number as it is."""
    return (
        tg.from_dlpack(value) if isinstance(value, np.ndarray) and value.flags.writeable else value
    )


BOUNDED = [tg.relu, lambda x: tg.clip(x, 0.0, None), lambda x: tg.clip(x, min=0.0, max=9.0)]
SINGULAR = [(tg.sqrt, 0.25), (tg.log, 0.25), (lambda x: 1 / x, -1 / 16)]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("inner", BOUNDED)
@pytest.mark.parametrize("outer, at_four", SINGULAR)
def test_a_singular_function_of_a_bounded_one(inner, outer, at_four, route):
    found = gradient(lambda x: outer(inner(x)), [-1.0, 4.0], np.ones(2), route)
    np.testing.assert_array_equal(found, [0, at_four])


@given(st.integers(0, 2**32 - 1))
def test_the_second_derivative_of_what_was_not_chosen_is_zero(seed):
    values = np.random.default_rng(seed).uniform(0.1, 2, 4) * [1, -1, 1, -1]
    h = tg.hessian(lambda x: (tg.relu(x) ** 3).sum(), tg.tensor(values)).numpy()
    np.testing.assert_allclose(np.diag(h), 6 * np.maximum(values, 0), rtol=1e-12)
