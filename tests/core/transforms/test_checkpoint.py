"""`checkpoint`: the same values, gradients and errors, with the inside computed again."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn._util import nested
from tinygrad_rnn.errors import DTypeError, GraphError

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


INSIDE_FUSED = {
    "one result": lambda x, w: tg.checkpoint(lambda x, w: tg.tanh(x * w) * x, x, w) * x,
    "two results": lambda x, w: tg.checkpoint(lambda x: (x * x, tg.exp(x) * w), x),
    "nested": lambda x, w: tg.checkpoint(lambda x: tg.checkpoint(tg.exp, x) * w, x),
    "an argument as it is": lambda x, w: tg.checkpoint(lambda x: x, x) * w,
}


@pytest.mark.parametrize("kind", INSIDE_FUSED)
def test_a_fused_function_may_contain_one(kind):
    """While it is traced the results are symbols, the same ones in the second run."""
    args = leaves(3, (2, 3), (2, 3))
    found = []
    for function in (INSIDE_FUSED[kind], tg.fuse(INSIDE_FUSED[kind])):
        results = nested.leaves(function(*args))
        loss = sum(((y * y * y).sum() for y in results[1:]), (results[0] * 2).sum())
        first = tg.grad(loss, args, create_graph=True)
        second = tg.grad((first[0] * first[1]).sum(), args)
        found.append([g.numpy() for g in (*first, *second)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


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


# -- what changes in between -----------------------------------------------------------------------


class Setting:
    """Values that a function reads other than as arguments."""

    def __init__(self):
        (self.w,) = leaves(20, (3,))
        self.factor = 2.0
        self.array = np.array([1.0, 2.0, 3.0])
        self.tensor = tg.tensor([1.0, 2.0, 3.0], dtype=np.float64)
        self.rng = np.random.default_rng(5)
        self.dropout = tg.nn.Dropout(0.5, rng=3)

    def other_w(self):
        (self.w,) = leaves(21, (3,))

    def frozen(self):
        self.w.requires_grad = False


def set_to(name, value):
    return lambda setting: setattr(setting, name, value)


def refill(setting):
    setting.array[:] = 0


CHANGES = {
    "a loop variable": (lambda s, x: x * s.factor, set_to("factor", 3.0)),
    "an array that is filled anew": (lambda s, x: x * s.array, refill),
    "a tensor that is replaced": (
        lambda s, x: x * s.tensor,
        set_to("tensor", tg.zeros(3, dtype=np.float64)),
    ),
    "train and eval": (lambda s, x: s.dropout(x), lambda s: s.dropout.eval()),
    "a generator of one's own": (lambda s, x: x * s.rng.normal(size=3), lambda s: None),
    "a parameter that is replaced": (lambda s, x: x * s.w, Setting.other_w),
    "a parameter that is replaced in a term of 0": (lambda s, x: x + s.w * 0, Setting.other_w),
    "a parameter that is frozen": (lambda s, x: x * s.w, Setting.frozen),
    "another number of results": (
        lambda s, x: [x * 2] * int(s.factor),
        set_to("factor", 3.0),
    ),
    "another shape": (
        lambda s, x: tg.concatenate([x] * int(s.factor)),
        set_to("factor", 3.0),
    ),
    "another dtype": (
        lambda s, x: (x * 0).astype(np.float32 if s.factor == 2 else np.float64),
        set_to("factor", 3.0),
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_function_that_does_not_do_the_same_again_is_refused(what):
    """No tensor was written to, and so nothing but the comparison notices."""
    function, change = CHANGES[what]
    setting, (x,) = Setting(), leaves(22, (3,))
    out = tg.checkpoint(lambda x: function(setting, x), x)
    out = out[0] if isinstance(out, list) else out
    change(setting)
    with pytest.raises(GraphError, match=r"backward through checkpoint: the function .* changed"):
        out.sum().backward()


def test_a_loop_variable_that_changes_is_refused_in_the_loop():
    (x,) = leaves(23, (3,))
    total = 0
    for k in range(1, 4):
        total = total + tg.checkpoint(lambda x: x * k, x).sum()  # noqa: B023 - the mistake
    with pytest.raises(GraphError, match="loop variable"):
        total.backward()
    total = sum(tg.checkpoint(lambda x, k: x * k, x, k).sum() for k in range(1, 4))
    total.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [6, 6, 6])


def test_results_that_are_nan_or_infinite_are_the_same_again():
    x = leaf([0.0, -1.0, 1.0])
    with np.errstate(all="ignore"):
        out = tg.checkpoint(lambda x: (tg.log(x) * 2, 1 / x), x)
        (out[0] + out[1]).sum().backward()
        expected = tg.grad((tg.log(x) * 2 + 1 / x).sum(), x)
    np.testing.assert_array_equal(x.grad.numpy(), expected.numpy())


@given(SEEDS, st.sampled_from([np.float16, np.float32, np.float64]), st.integers(1, 70))
def test_layers_do_the_same_again_to_the_bit(seed, dtype, batch):
    """The products of a recomputation have the same shapes, so that no honest one is refused."""
    rng = np.random.default_rng(seed)
    x = tg.tensor(rng.normal(size=(7, batch, 3)), dtype)
    layer = tg.nn.LSTM(3, 17, num_layers=2, dropout=0.3, dtype=dtype, rng=seed)
    output, _ = layer(x, lengths=rng.integers(0, 8, batch), bptt=tg.bptt.Full(checkpoint=True))
    out = tg.checkpoint(lambda o: tg.functional.layer_norm(o, 17).softmax(axis=0), output)
    out.sum().backward()
    assert layer.weight_ih_l0.grad is not None


@pytest.mark.parametrize("rng", ["generator", "layer", "seed", "both"])
def test_numbers_from_generators_that_are_passed_in_are_the_same_again(rng):
    x, own = leaf(np.ones(100)), np.random.default_rng(1)
    layer = tg.nn.Dropout(0.5, rng=own if rng == "both" else 2)
    function = {
        "generator": lambda x: x * tg.rand(100, dtype=np.float64, rng=own),
        "layer": layer,
        "seed": lambda x: tg.functional.dropout(x, 0.5, rng=7),
        "both": lambda x: layer(x) * tg.rand(100, dtype=np.float64, rng=own) * tg.rand(100),
    }[rng]
    out = tg.checkpoint(lambda x: tg.checkpoint(function, x), x)
    state = own.bit_generator.state
    between = own.random(3)
    out.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), out.numpy())  # x is 1: the factor is the output
    after = own.random(3)
    own.bit_generator.state = state
    np.testing.assert_array_equal([*between, *after], own.random(6))


class Pair(NamedTuple):
    first: Any
    second: Any


STRUCTURES = {
    "a named tuple": lambda x: Pair(x * 2, x.exp()),
    "nested": lambda x: (x * 2, [x.exp(), (x.sin(),)], {"a": x * x}),
    "None in it": lambda x: (x * 2, None, [None]),
    "a dict": lambda x: {"b": x * 2, "a": Pair(None, x.exp())},
    "constants in it": lambda x: Pair(x.detach() * 2, x * 3),
    "empty parts": lambda x: ([], x * 2, {}),
}


@pytest.mark.parametrize("kind", STRUCTURES)
def test_results_of_any_structure(kind):
    x = leaf([1.0, 2.0])
    plain, kept = STRUCTURES[kind](x), tg.checkpoint(STRUCTURES[kind], x)
    assert type(kept) is type(plain)

    def shown(y):
        return None if y is None else (y.dtype, y.requires_grad, y.numpy().tolist())

    def described(value):
        return nested.map_nested(shown, value)

    assert described(kept) == described(plain)
    losses = [
        sum((y * (i + 1)).sum() for i, y in enumerate(nested.leaves(value)) if y is not None)
        for value in (plain, kept)
    ]
    expected, found = (tg.grad(loss, x) for loss in losses)
    np.testing.assert_array_equal(found.numpy(), expected.numpy())
    with tg.no_grad():
        assert type(tg.checkpoint(STRUCTURES[kind], x)) is type(plain)


@pytest.mark.parametrize("result", [1.0, "text", np.ones(2), ({"a": 3},), {1, 2}], ids=repr)
def test_results_that_are_no_tensors_are_refused(result):
    x = leaf([1.0])
    for context in (contextlib.nullcontext(), tg.no_grad()):
        with context, pytest.raises(DTypeError, match=r"returns a Tensor, .* and None, got a"):
            tg.checkpoint(lambda x: result, x)


def test_an_array_argument_cannot_be_written_to():
    """The write would be done twice, and the second run would read what the first one wrote."""

    def function(x, buffer):
        buffer[0] = 7
        return x * buffer

    with pytest.raises(ValueError, match="read-only"):
        tg.checkpoint(function, leaf([1.0, 2.0]), np.ones(2))


def test_a_list_argument_without_arrays_is_handed_on_itself():
    seen = []
    tg.checkpoint(lambda x, seen: (seen.append(1), x * 2)[1], leaf([1.0]), seen).backward()
    assert seen == [1, 1]


def test_a_tensor_inside_an_argument_must_not_change():
    x, c = leaf([1.0, 2.0]), tg.ones(2, dtype=np.float64)
    out = tg.checkpoint(lambda x, given: x + given["c"][0] * 0, x, {"c": [c]}).sum()
    c.data = np.zeros(2)
    with pytest.raises(GraphError, match="changed in place"):
        out.backward()
