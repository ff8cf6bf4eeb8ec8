"""`checkpoint`: the same values, gradients and errors, with the inside computed again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import GraphError

SEEDS = st.integers(0, 2**32 - 1)


def leaf(value):
    return tg.tensor(np.asarray(value, dtype=np.float64), requires_grad=True)


def leaves(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [leaf(rng.normal(size=shape)) for shape in shapes]


def cell(x, h, w, u):
    return tg.tanh(x @ u + h @ w.T)


def unrolled(step, x, h, w, u):
    for x_t in x:
        h = step(x_t, h, w, u)
    return (h * h).sum()


def checkpointed(*args):
    return tg.checkpoint(cell, *args)


# -- the same as without ---------------------------------------------------------------------------


@given(SEEDS)
def test_values_and_gradients_are_those_of_the_plain_function(seed):
    args = leaves(seed, (4, 2, 3), (2, 5), (5, 5), (3, 5))
    plain, kept = unrolled(cell, *args), unrolled(checkpointed, *args)
    assert plain.item() == kept.item()
    for a, b in zip(tg.grad(plain, args), tg.grad(kept, args), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-14)


@given(SEEDS)
def test_second_derivatives_too(seed):
    args = leaves(seed, (2, 2, 3), (2, 3), (3, 3), (3, 3))
    results = []
    for step in (cell, checkpointed):
        first = tg.grad(unrolled(step, *args), args, create_graph=True)
        penalty = sum((g * g).sum() for g in first)
        results.append((first, tg.grad(penalty, args)))
    for a, b in zip(*[[*first, *second] for first, second in results], strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-10, atol=1e-12)


def test_parameters_that_the_function_captures_get_their_gradients():
    x, w = leaves(0, (2, 3), (3, 3))
    scale = w * 2  # computed outside, used inside
    layer = tg.nn.Linear(3, 4, dtype=np.float64)

    def function(x):
        return layer(tg.tanh(x @ scale))

    wanted = [x, w, scale, *layer.parameters()]
    expected = tg.grad((function(x) ** 2).sum(), wanted, retain_graph=True)
    got = tg.grad((tg.checkpoint(function, x) ** 2).sum(), wanted)
    for a, b in zip(expected, got, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)


def test_backward_fills_the_gradients_of_leaves():
    x, w = leaves(1, (2, 3), (3, 3))
    tg.checkpoint(lambda: (x @ w).exp()).sum().backward()
    expected = tg.grad((x @ w).exp().sum(), [x, w])
    for t, e in zip((x, w), expected, strict=True):
        np.testing.assert_allclose(t.grad.numpy(), e.numpy(), rtol=1e-12)


def test_arguments_may_be_anything():
    (x,) = leaves(2, (3,))
    out = tg.checkpoint(lambda factor, items, t: t * factor * len(items), 2.0, ["a", "b"], x)
    np.testing.assert_allclose(tg.grad(out.sum(), x).numpy(), np.full(3, 4.0))


def test_checkpoints_nest():
    (x,) = leaves(3, (3,))

    def inner(t):
        return tg.sin(t) * t

    def outer(t):
        return tg.checkpoint(inner, tg.exp(t)) + tg.checkpoint(inner, t)

    expected = tg.grad((inner(tg.exp(x)) + inner(x)).sum(), x)
    np.testing.assert_allclose(tg.grad(tg.checkpoint(outer, x).sum(), x).numpy(), expected.numpy())


@pytest.mark.parametrize("kind", [tuple, list])
def test_several_outputs_of_which_some_are_used(kind):
    (x,) = leaves(4, (3,))

    def function(t):
        return kind([tg.sin(t), t * 2, t.detach(), tg.exp(t)])

    for used in ([0], [1, 3], [0, 0, 3], [2, 3], [0, 1, 2, 3]):
        plain, kept = function(x), tg.checkpoint(function, x)
        assert type(kept) is kind
        assert [out.requires_grad for out in kept] == [True, True, False, True]
        expected = tg.grad(sum(plain[i].sum() * (i + 1) for i in used), x)
        got = tg.grad(sum(kept[i].sum() * (i + 1) for i in used), x)
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-12)


def test_a_function_that_returns_its_argument():
    x, y = leaves(5, (3,), (3,))
    out = tg.checkpoint(lambda a, b: (a, a * b), x, y)
    gradients = tg.grad((out[0] * 3 + out[1]).sum(), [x, y])
    np.testing.assert_allclose(gradients[0].numpy(), 3 + y.numpy())
    np.testing.assert_allclose(gradients[1].numpy(), x.numpy())


def test_only_what_is_wanted_is_given():
    x, y = leaves(6, (3,), (3,))
    out = tg.checkpoint(lambda a, b: a * b, x, y).sum()
    np.testing.assert_allclose(tg.grad(out, y).numpy(), x.numpy())
    assert x.grad is None and y.grad is None


# -- random numbers --------------------------------------------------------------------------------


def dropped(x):
    return tg.functional.dropout(x, 0.5) * tg.rand(*x.shape, dtype=np.float64)


def test_random_masks_are_drawn_the_same_again():
    x = leaf(np.ones(100))
    tg.manual_seed(7)
    out = tg.checkpoint(dropped, x)
    gradient = tg.grad(out.sum(), x)
    np.testing.assert_allclose(gradient.numpy(), out.numpy())  # x is 1: the factor is the output
    assert 20 < (out.numpy() == 0).sum() < 80


def test_the_generator_goes_on_as_if_nothing_had_been_drawn_again():
    x = leaf(np.ones(10))
    results = []
    for function in (dropped, lambda x: tg.checkpoint(dropped, x)):
        tg.manual_seed(3)
        out = function(x).sum()
        between = tg.rand(2).numpy()
        out.backward()
        results.append([between, tg.rand(2).numpy()])
    np.testing.assert_array_equal(*results)


def test_the_generator_goes_on_after_a_function_that_fails_when_it_is_run_again():
    x = leaf(np.ones(10))
    runs = []

    def fails_later(x):
        runs.append(1)
        if len(runs) > 1:
            raise ZeroDivisionError
        return dropped(x)

    tg.manual_seed(3)
    out = tg.checkpoint(fails_later, x).sum()
    state = tg.random.get_state()
    with pytest.raises(ZeroDivisionError):
        out.backward()
    drawn = tg.rand(2).numpy()
    tg.random.set_state(state)
    np.testing.assert_array_equal(tg.rand(2).numpy(), drawn)
    assert tg.is_grad_enabled()


# -- what is kept, and what is refused -------------------------------------------------------------


def test_the_function_is_run_once_forward_and_once_backward():
    (x,) = leaves(8, (3,))
    runs = []

    def function(t):
        runs.append(tg.is_grad_enabled())
        return tg.exp(t)

    out = tg.checkpoint(function, x).sum()
    assert len(runs) == 1
    out.backward()
    assert len(runs) == 2


def test_the_inside_is_not_kept():
    (x,) = leaves(9, (3,))

    def long(t):
        for _ in range(50):
            t = tg.sin(t)
        return t

    out = tg.checkpoint(long, x)
    (whole,) = out._node.parents
    assert (out._node.name, out._node.index, whole.name) == ("piece", 0, "checkpoint")
    assert [parent.name for parent in whole.parents] == ["leaf"]


def test_nothing_is_recorded_inside_no_grad():
    (x,) = leaves(10, (3,))
    with tg.no_grad():
        out = tg.checkpoint(tg.exp, x)
    assert not out.requires_grad
    np.testing.assert_allclose(out.numpy(), np.exp(x.numpy()))
    assert not tg.checkpoint(tg.exp, x.detach()).requires_grad


def test_backward_inside_no_grad():
    (x,) = leaves(11, (3,))
    out = tg.checkpoint(tg.exp, x).sum()
    with tg.no_grad():
        out.backward()
    np.testing.assert_allclose(x.grad.numpy(), np.exp(x.numpy()))


READ = {
    "an argument without a gradient": (lambda c, w: tg.checkpoint(lambda t: t + w, c), "c"),
    "a view as an argument": (lambda c, w: tg.checkpoint(lambda t: t * 2, w[0]), "w"),
    "a view of a view, captured": (lambda c, w: captured_view(w), "w"),
    "a captured constant": (lambda c, w: tg.checkpoint(lambda t: t * c, w), "c"),
    "inside another": (
        lambda c, w: tg.checkpoint(lambda t: tg.checkpoint(lambda s: s * c, t), w),
        "c",
    ),
}


def captured_view(w):
    view = w.T[1:]
    return tg.checkpoint(lambda t: t.sum() + view, tg.ones(1, dtype=np.float64))


@pytest.mark.parametrize("what", READ)
def test_whatever_it_reads_must_not_change(what):
    """It would be computed again from other values, in silence."""
    compute, changed = READ[what]
    (w,) = leaves(12, (3, 3))
    values = {"c": tg.ones(3, dtype=np.float64), "w": w}
    compute(**values).sum().backward()
    out = compute(**values).sum()
    values[changed].data = np.zeros(values[changed].shape)
    with pytest.raises(GraphError, match="changed in place"):
        out.backward()


@pytest.mark.parametrize("view", [lambda w: w[0], lambda w: w.T, lambda w: w.detach()])
def test_a_change_that_leaves_the_results_as_they_were_is_noticed(view):
    """(t - 1)² is the same at 0 and at 2, its slope is not."""
    w, v = leaf(np.zeros((2, 2))), leaf(1.0)
    out = tg.checkpoint(lambda t: (t - 1) ** 2 * v, view(w)).sum()
    w.data = np.full((2, 2), 2.0)
    with pytest.raises(GraphError, match="changed in place"):
        out.backward()


def test_a_change_of_what_it_reads_is_refused():
    x, w = leaves(12, (2, 3), (3, 3))
    for changed in (x, w):
        out = tg.checkpoint(lambda t: (t @ w).sum(), x)
        changed.data = np.zeros(changed.shape)
        with pytest.raises(GraphError, match="changed in place"):
            out.backward()
    out = tg.checkpoint(lambda t: (t @ w).sum(), x)
    leaf(1.0).data = np.ones(())  # a stranger
    out.backward()


def test_a_second_backward_needs_the_graph_to_be_kept():
    (x,) = leaves(13, (3,))
    out = tg.checkpoint(tg.exp, x).sum()
    out.backward(retain_graph=True)
    out.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp(x.numpy()))
    with pytest.raises(GraphError, match=r"second time.*retain_graph"):
        out.backward()
