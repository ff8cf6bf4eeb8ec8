"""The graph: what is recorded, in which order it is walked, what is kept, what is refused."""

from __future__ import annotations

import copy
import operator
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.engine.ops import feature_major
from tinygrad_rnn.errors import DTypeError, GraphError, ShapeError


def leaf(value, dtype=np.float64):
    return tg.tensor(np.asarray(value, dtype=dtype), requires_grad=True)


@pytest.fixture
def x():
    return leaf([0.5, -1.0, 2.0])


def assert_grad(tensor, expected):
    np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=1e-12, atol=1e-15)


# -- shapes of graphs ------------------------------------------------------------------------------


@st.composite
def programs(draw):
    """Straight-line programs on three leaves: each step combines two earlier values."""
    steps = []
    for i in range(draw(st.integers(1, 12))):
        left, right = draw(st.integers(0, i + 2)), draw(st.integers(0, i + 2))
        steps.append((draw(st.sampled_from("+-*t")), left, right))
    ends = draw(st.lists(st.integers(0, len(steps) + 2), min_size=1, max_size=3))
    return steps, ends


def forward_mode(steps, ends, values, tangents):
    """The derivative in one direction by the chain rule, forwards: another algorithm than ours."""
    pairs = list(zip(values, tangents, strict=True))
    for kind, i, j in steps:
        (a, da), (b, db) = pairs[i], pairs[j]
        pairs.append(
            {
                "+": (a + b, da + db),
                "-": (a - b, da - db),
                "*": (a * b, da * b + a * db),
                "t": (np.tanh(a), (1 - np.tanh(a) ** 2) * da),
            }[kind]
        )
    return sum(pairs[end][1].sum() for end in ends)


def evaluate(steps, values):
    values = list(values)
    for kind, i, j in steps:
        a, b = values[i], values[j]
        values.append({"+": a + b, "-": a - b, "*": a * b, "t": tg.tanh(a)}[kind])
    return values


@given(programs(), st.integers(0, 2**32 - 1))
def test_any_graph_equals_the_chain_rule_forwards(program, seed):
    steps, ends = program
    rng = np.random.default_rng(seed)
    values = [rng.uniform(-0.5, 0.5, 2) for _ in range(3)]
    tangents = [rng.normal(size=2) for _ in range(3)]
    leaves = [leaf(v) for v in values]
    results = evaluate(steps, leaves)
    total = sum((results[end].sum() for end in ends), start=tg.tensor(0.0))
    total.backward()
    got = sum(
        (t.grad.numpy() * d).sum()
        for t, d in zip(leaves, tangents, strict=True)
        if t.grad is not None
    )
    np.testing.assert_allclose(
        got, forward_mode(steps, ends, values, tangents), rtol=1e-9, atol=1e-12
    )


@given(programs(), st.integers(0, 2**32 - 1))
def test_part_of_the_gradients_equals_all_of_them(program, seed):
    """`grad` with respect to any one value, leaf or computed, alone or among others."""
    steps, ends = program
    rng = np.random.default_rng(seed)
    leaves = [leaf(rng.uniform(-0.5, 0.5, 2)) for _ in range(3)]
    results = evaluate(steps, leaves)
    outputs = [results[end].sum() for end in ends]
    together = tg.grad(outputs, results, retain_graph=True, allow_unused=True)
    for value, expected in zip(results, together, strict=True):
        alone = tg.grad(outputs, value, retain_graph=True, allow_unused=True)
        assert (alone is None) == (expected is None)
        if alone is not None:
            np.testing.assert_array_equal(alone.numpy(), expected.numpy())
        else:
            with pytest.raises(GraphError, match=r"do not depend on input 0.*allow_unused"):
                tg.grad(outputs, value, retain_graph=True)
    assert all(t.grad is None for t in leaves)


def test_a_diamond(x):
    a = x * x
    ((a + 1) * tg.exp(a)).sum().backward()
    v = x.numpy()
    assert_grad(x, np.exp(v * v) * 2 * v * (v * v + 2))


def test_a_tower_of_diamonds_is_walked_once_a_node():
    """Two paths a level: 2**60 of them, if each were walked alone."""
    x = y = leaf(1.0)
    for _ in range(60):
        y = y * 0.5 + y * 0.5
    y.backward()
    assert_grad(x, 1.0)


def test_fan_out(x):
    sum((x * i for i in range(100)), start=tg.zeros(3, dtype=np.float64)).sum().backward()
    assert_grad(x, np.full(3, sum(range(100))))


def test_the_same_tensor_twice(x):
    (x - x).sum().backward()
    assert_grad(x, np.zeros(3))
    w = leaf([[1.0, 2.0], [3.0, 4.0]])
    (w @ w).sum().backward()
    g, v = np.ones((2, 2)), w.numpy()
    assert_grad(w, g @ v.T + v.T @ g)
    (x / x).sum().backward()
    assert_grad(x, np.zeros(3))


def test_outputs_that_nobody_uses_change_nothing(x):
    first, _, third = (x * x).split(3)
    unused = tg.exp(x) * 7
    (first.sum() + 2 * third.sum()).backward()
    assert_grad(x, [1.0, 0.0, 8.0])
    assert unused.requires_grad


def test_gradients_add_up_from_one_backward_to_the_next(x):
    for count in (1, 2, 3):
        (x * x).sum().backward()
        assert_grad(x, 2 * count * x.numpy())
    x.grad = None
    (x * 3).sum().backward()
    assert_grad(x, np.full(3, 3.0))


def test_the_gradient_of_one_number_stays_an_array_when_another_is_added():
    x = leaf(2.0)
    for _ in range(2):
        (x * x).backward()
        x.grad.data[...] *= 0.5
    assert_grad(x, (4 / 2 + 4) / 2)


def test_gradient_with_respect_to_a_computed_value(x):
    y = x * x
    z = (y * y).sum()
    g_y, g_x = tg.grad(z, [y, x])
    np.testing.assert_allclose(g_y.numpy(), 2 * y.numpy())
    np.testing.assert_allclose(g_x.numpy(), 4 * x.numpy() ** 3)
    assert x.grad is None


def test_gradient_with_respect_to_the_output_itself(x):
    y = x * 2
    np.testing.assert_array_equal(tg.grad(y, y, [1.0, 2.0, 3.0]).numpy(), [1, 2, 3])
    np.testing.assert_array_equal(tg.grad(x.sum(), x).numpy(), np.ones(3))


def test_only_what_leads_to_the_wanted_values_is_computed():
    calls = []

    @tg.primitive(x=lambda F, g: (calls.append(1), g)[1])
    def watched_identity(xp, x):
        return x + 0

    x, y = leaf(1.0), leaf(2.0)
    tg.grad(watched_identity(x) * y, y)
    assert calls == []
    tg.grad(watched_identity(x) * y, x)
    assert calls == [1]


def test_gradient_with_respect_to_a_transposed_matrix():
    """Even when only a product reads it, and also when something else reads it as well."""
    w = leaf([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    transposed = w.T
    y = leaf(np.ones((4, 3))) @ transposed
    np.testing.assert_array_equal(
        tg.grad(y.sum(), transposed, retain_graph=True).numpy(), np.full((3, 2), 4.0)
    )
    total = y.sum() + (transposed * 2).sum()
    np.testing.assert_array_equal(tg.grad(total, transposed).numpy(), np.full((3, 2), 6.0))


@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
@pytest.mark.parametrize("create_graph", [False, True])
def test_the_factors_of_a_product_pass_through_any_permutation(axes, create_graph):
    w, x = leaf([[1.0, 2.0], [3.0, 4.0]]), leaf([[1.0, 10.0], [100.0, 1000.0]])
    y = x @ w.transpose(axes)
    expected = x.numpy().T @ np.array([[1.0, 2.0], [3.0, 5.0]])
    start = tg.tensor(np.array([[1.0, 2.0], [3.0, 5.0]]))
    got = tg.grad(y, w, start, create_graph=create_graph)
    np.testing.assert_array_equal(got.numpy(), expected.transpose(axes))
    if create_graph:
        tg.gradcheck(lambda x, w: tg.tanh(x @ w.transpose(axes)), [x.numpy() / 1e3, w.numpy() / 4])


def test_the_factors_of_a_product_pass_through_a_permutation_that_backward_made():
    """The gradient of x.T is u.T, of which a product is taken: its factors go back to u."""
    x, u, y = leaf(np.ones((2, 2))), leaf([[1.0, 2.0], [3.0, 4.0]]), [[1.0, 10.0], [100.0, 1000.0]]
    gx = tg.grad((x.T * u).sum(), x, create_graph=True)
    np.testing.assert_array_equal(gx.numpy(), u.numpy().T)
    got = tg.grad(tg.tensor(np.array(y)) @ gx, u, np.array([[1.0, 0.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(got.numpy(), [[1, 10], [0, 0]])


# -- what is read in parts -------------------------------------------------------------------------

KEYS = st.one_of(
    st.integers(-4, 3),
    st.slices(4),
    st.just((slice(None), 1)),
    st.just(([2, 0, 2],)),
)


@given(st.lists(KEYS, min_size=1, max_size=7), st.booleans(), st.booleans())
def test_reads_of_steps_slices_and_rows_add_up_in_any_order(keys, columns, matrices):
    rng = np.random.default_rng(0)
    array = rng.normal(size=(4, 3, 2) if matrices else (4, 3))
    weights = [rng.normal(size=array[key].shape) for key in keys]
    u = rng.normal(size=array.shape)
    x = leaf(array)
    source = feature_major(x) if columns and matrices else x * 1
    y = sum(((source[k] ** 2 * w).sum() for k, w in zip(keys, weights, strict=True)), tg.zeros(()))
    first, second = np.zeros_like(array), np.zeros_like(array)
    for key, w in zip(keys, weights, strict=True):
        np.add.at(first, key, 2 * array[key] * w)
        np.add.at(second, key, 2 * w)
    y.backward(retain_graph=True)
    assert_grad(x, first)
    x.grad = None
    g = tg.grad(y, x, create_graph=True)
    np.testing.assert_allclose(g.numpy(), first, rtol=1e-12, atol=1e-14)
    (g * u).sum().backward()
    assert_grad(x, second * u)


# -- aliasing --------------------------------------------------------------------------------------


def test_gradients_of_two_leaves_never_share_memory():
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (a + b).sum().backward()
    assert not np.shares_memory(a.grad.data, b.grad.data)
    a.grad.data[...] = 7
    assert_grad(b, [1.0, 1.0])


def test_a_gradient_that_two_arguments_get_is_not_added_into():
    """`add` hands one array to a and to b; b collects another, which a must not see."""
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    start = np.array([1.0, 1.0])
    (b * 2 + (a + b)).backward(start)
    assert_grad(a, [1.0, 1.0])
    assert_grad(b, [3.0, 3.0])
    np.testing.assert_array_equal(start, 1)


def test_a_gradient_shares_no_memory_with_what_it_was_started_from():
    a = leaf([1.0, 2.0])
    start = np.array([1.0, 1.0])
    a.backward(start)
    (a + 0).backward(start)
    a.grad.data[...] = 7
    np.testing.assert_array_equal(start, 1)
    t = tg.tensor(start)
    g = tg.grad(a + 0, a, t)
    assert not np.shares_memory(g.data, t.data)


def test_gradients_given_back_together_never_share_memory(x):
    y = x + 0
    gradients = tg.grad(y.sum(), [x, y, x])
    for i, first in enumerate(gradients):
        for second in gradients[:i]:
            assert not np.shares_memory(first.data, second.data)


def test_a_stored_gradient_is_a_whole_array(x):
    """`sum` hands a broadcast view backwards, in which every element is the same memory."""
    x.sum().backward()
    assert x.grad.data.flags.writeable
    x.grad.data[0] = 5
    assert_grad(x, [5.0, 1.0, 1.0])


def test_a_gradient_that_is_held_is_not_written_to_by_the_next(x):
    (x * 2).sum().backward()
    held = x.grad
    before = held.numpy()
    (x * 3).sum().backward()
    np.testing.assert_array_equal(held.numpy(), before)
    assert_grad(x, np.full(3, 5.0))


def test_setting_a_gradient_copies_and_checks_it(x):
    mine = tg.ones(3, dtype=np.float64)
    x.grad = mine
    x.grad.data[...] = 4
    np.testing.assert_array_equal(mine.numpy(), 1)
    for wrong in (tg.ones(2, dtype=np.float64), tg.ones(3), np.ones(3)):
        with pytest.raises(ShapeError, match=r"shape \(3,\) and dtype float64"):
            x.grad = wrong
    with pytest.raises(GraphError, match="only a leaf"):
        (x * 2).grad = mine
    assert (x * 2).grad is None


def test_no_gradient_can_be_set_on_every_tensor(x):
    """As loops over all parameters do, whichever of them are frozen."""
    frozen, computed = tg.ones(3), x * 2
    for tensor in (x, frozen, computed, computed.detach()):
        tensor.grad = None
        assert tensor.grad is None
        assert tensor.requires_grad == (tensor is x or tensor is computed)
    with pytest.raises(GraphError, match="only a leaf with requires_grad"):
        frozen.grad = tg.ones(3)
    computed.sum().backward()
    assert_grad(x, np.full(3, 2.0))


# -- errors ----------------------------------------------------------------------------------------


def test_a_second_backward_is_refused_and_names_the_cures(x):
    y = tg.exp(x).sum()
    y.backward()
    with pytest.raises(GraphError, match=r"(?s)second time.*detach.*retain_graph=True"):
        y.backward()
    assert_grad(x, np.exp(x.numpy()))


def test_the_graph_can_be_kept_for_a_second_backward(x):
    y = tg.exp(x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert_grad(x, 2 * np.exp(x.numpy()))
    with pytest.raises(GraphError, match="second time"):
        y.backward()


def test_a_window_that_reaches_the_previous_one_is_refused(x):
    h = tg.tanh(x)
    h.sum().backward()
    with pytest.raises(GraphError, match="second time"):
        (h * 2).sum().backward()


def test_backward_of_several_elements_needs_a_gradient(x):
    with pytest.raises(GraphError, match=r"shape \(3,\).*reduce it"):
        (x * 2).backward()
    (x * 2).backward([1.0, 2.0, 3.0])
    assert_grad(x, [2.0, 4.0, 6.0])
    leaf([[2.0]]).backward()  # one element is enough


@pytest.mark.parametrize("start", [np.ones(2), np.ones((3, 1)), 1.0])
def test_a_gradient_to_start_from_must_fit(x, start):
    with pytest.raises(ShapeError, match=r"the output \(3,\)"):
        (x * 2).backward(start)
    with pytest.raises(ShapeError, match=r"the output \(3,\)"):
        tg.grad(x * 2, x, start)


def test_backward_without_a_graph_is_refused(x):
    for value in (tg.ones(()), x.detach().sum(), (x > 0).sum(), 3.0):
        with pytest.raises((GraphError, AttributeError), match=r"without a graph|no attribute"):
            value.backward()
    with pytest.raises(GraphError, match="without a graph"):
        tg.grad(tg.ones(()), x)
    with pytest.raises(GraphError, match="input 0 does not require grad"):
        tg.grad(x.sum(), tg.ones(3))


def test_only_floating_leaves_require_grad(x):
    for value in ([1, 2], [True]):
        with pytest.raises(DTypeError, match="only floating"):
            tg.tensor(value, requires_grad=True)
    with pytest.raises(GraphError, match="computed from others"):
        (x * 2).requires_grad = False
    x.requires_grad = False
    assert not (x * 2).requires_grad


def test_a_leaf_that_is_frozen_and_thawed_is_the_same_leaf(x):
    y = (x * x).sum()
    x.requires_grad = False
    x.requires_grad = True
    y.backward(retain_graph=True)
    np.testing.assert_array_equal(x.grad.numpy(), 2 * x.numpy())
    (g,) = tg.grad([y], [x])
    np.testing.assert_array_equal(g.numpy(), 2 * x.numpy())


def test_a_gradient_grows_only_while_its_leaf_is_switched_on(x):
    (x * x).sum().backward()
    y = (x * x).sum()
    x.requires_grad = False
    y.backward()
    assert not (x * 2).requires_grad
    for leaf in (x, copy.deepcopy(x)):
        np.testing.assert_array_equal(leaf.grad.numpy(), 2 * x.numpy())
        assert not leaf.requires_grad
    x.grad = None
    x.requires_grad = True
    assert x.grad is None
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * x.numpy())


def test_a_leaf_of_another_dtype_is_another_leaf():
    layer = tg.nn.Linear(2, 1)
    y = layer(tg.ones(1, 2)).sum()
    layer.to(tg.float64)
    y.backward()
    assert layer.weight.grad is None


# -- gradients to start from -----------------------------------------------------------------------


@pytest.mark.parametrize("make", [np.array, tg.tensor, list, tuple, iter])
def test_one_start_for_each_output_in_any_container(x, make):
    outputs = [(x * x).sum(), x.sum()]
    for starts in ([0.0, 0.0], [0.0, 1.0], [2.0, -1.0]):
        (g,) = tg.grad(outputs, [x], make(starts), retain_graph=True)
        np.testing.assert_array_equal(g.numpy(), starts[0] * 2 * x.numpy() + starts[1])


def test_a_start_of_zero_is_a_start():
    x = tg.tensor(3.0, requires_grad=True)
    for start in (np.array([0.0]), np.array([[0.0]])[0], [0.0], tg.zeros(1), [tg.tensor(0.0)]):
        assert tg.grad([x * 2], [x], start)[0].item() == 0
    assert tg.grad(x * 2, x, 0.0).item() == 0
    (x * 2).backward(0.0)
    assert x.grad.item() == 0


@pytest.mark.parametrize("make", [np.array, tg.tensor])
@pytest.mark.parametrize("values", [[0.0], [2.0], [0.0, 0.0], [1.0, -1.0], [[0.0, 3.0]]])
def test_an_array_of_the_shape_of_a_single_output_is_its_start(make, values):
    x = tg.ones(np.shape(values), requires_grad=True)
    (g,) = tg.grad([x * 2], [x], make(values))
    np.testing.assert_array_equal(g.numpy(), 2 * np.array(values))


@pytest.mark.parametrize("starts", [0.0, np.array(1.0), [], [1.0], np.ones(3), tg.tensor(1.0)])
def test_starts_that_are_not_one_for_each_output_are_refused(x, starts):
    with pytest.raises(ShapeError, match="grad_outputs"):
        tg.grad([x.sum(), x.sum()], [x], starts)


# -- in place --------------------------------------------------------------------------------------

AUGMENTED = [operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow]
STEPPED = [operator.imod, operator.ifloordiv]  # their results are constant in between


@pytest.mark.parametrize("update", [*AUGMENTED, *STEPPED])
@given(seed=st.integers(0, 2**32 - 1))
def test_an_augmented_assignment_writes_into_a_leaf_under_no_grad(update, seed):
    rng = np.random.default_rng(seed)
    value, other = rng.uniform(1, 2, (2, 3)), rng.uniform(1, 2, 3)
    p = tg.tensor(value, requires_grad=True)
    alias, memory, saved = p, p.data, (p * p).sum()
    with tg.no_grad():
        for step in (other, tg.tensor(other), 2.0):
            p = update(p, step)
            value = update(value, np.asarray(step))
    assert p is alias and p.data is memory and p.is_leaf and p.requires_grad
    np.testing.assert_array_equal(p.numpy(), value)
    with pytest.raises(GraphError, match="changed in place"):
        saved.backward()


@pytest.mark.parametrize("update", [*AUGMENTED, *STEPPED, operator.imatmul])
def test_an_augmented_assignment_to_a_recorded_leaf_is_refused(update):
    p = tg.ones(2, 2, requires_grad=True)
    for p.requires_grad in (True, False):
        with pytest.raises(GraphError, match=r"= on a leaf that requires grad.*no_grad"):
            update(p, p)
    np.testing.assert_array_equal(p.numpy(), np.ones((2, 2)))


@pytest.mark.parametrize("update", AUGMENTED)
def test_an_augmented_assignment_to_a_computed_tensor_is_a_new_tensor(x, update):
    y = x * x + 2
    before = y
    y = update(y, 2 * x)
    assert y is not before
    values = x.numpy() ** 2 + 2
    np.testing.assert_array_equal(before.numpy(), values)
    np.testing.assert_allclose(y.numpy(), update(values, 2 * x.numpy()))
    assert y.requires_grad
    with tg.no_grad():
        z = before.detach()  # of the memory that the graph holds
        z = update(z, 2.0)
    np.testing.assert_array_equal(before.numpy(), x.numpy() ** 2 + 2)


def test_a_sum_of_losses_by_augmented_assignment(x):
    for total in (0.0, tg.tensor(0.0, dtype=x.dtype)):
        for i in range(3):
            total += (x * i).sum()
        (g,) = tg.grad([total], [x])
        np.testing.assert_array_equal(g.numpy(), np.full(x.shape, 3.0))


def test_gradient_descent_as_it_is_written_in_books():
    parameters = [tg.tensor([3.0, -2.0], requires_grad=True), tg.tensor(5.0, requires_grad=True)]
    for _ in range(50):
        sum((p * p).sum() for p in parameters).backward()
        with tg.no_grad():
            for p in parameters:
                p -= 0.25 * p.grad
                p.grad = None
    assert all(abs(p.numpy()).max() < 1e-12 for p in parameters)


def test_parts_of_a_leaf_can_be_written_under_no_grad():
    p, expected = tg.zeros(3, 4, requires_grad=True), np.zeros((3, 4))
    saved = (p * p).sum()
    with tg.no_grad():
        for a in (p, expected):
            a[0] = 1
            a[:, 1] -= 2
            a[[0, 2], [3, 3]] += 5
            a[np.array([True, False, True]), 2] = [7, 8]
            a[a > 6] = -3
            a[np.array(True)] += 1
            a[...] *= 0.5
    np.testing.assert_array_equal(p.numpy(), expected)
    with pytest.raises(GraphError, match="changed in place"):
        saved.backward()
    with pytest.raises(GraphError, match="no_grad"):
        p[0] -= 1
    np.testing.assert_array_equal(p.numpy(), expected)


@pytest.mark.parametrize(
    "write, error",
    [
        (lambda p: operator.iadd(p, np.ones((3, 2, 2))), ShapeError),
        (lambda p: operator.iadd(p, np.ones(3)), ShapeError),
        (lambda p: operator.itruediv(tg.tensor([1, 2]), 2), DTypeError),
        (lambda p: operator.iadd(tg.broadcast_to(p[0], (5, 2)), 1), ShapeError),
        (lambda p: p.__setitem__(0, np.ones(3)), ShapeError),
        (lambda p: p.__setitem__(9, 1.0), IndexError),
        (lambda p: p.__setitem__("a", 1.0), DTypeError),
        (lambda p: p.__setitem__(0, "a"), DTypeError),
        (lambda p: tg.tensor([1, 2]).__setitem__(0, 0.5), DTypeError),
        (lambda p: (p * 1).detach().__setitem__(0, 0.5), GraphError),
    ],
)
def test_a_write_that_does_not_fit_changes_nothing(write, error):
    p = tg.ones(2, 2, requires_grad=True)
    with tg.no_grad(), pytest.raises(error):
        write(p)
    np.testing.assert_array_equal(p.numpy(), np.ones((2, 2)))


def test_a_rule_that_returns_a_wrong_shape_is_named():
    @tg.primitive(x=lambda F, g: F.reshape(g, shape=(1, -1)) * 1.0)
    def wrong_shape(xp, x):
        return x + 0

    x = leaf([1.0, 2.0])
    x.backward(np.ones(2))

    @tg.primitive(x=lambda F, g: F.getitem(g, key=(slice(0, 1),)))
    def too_short(xp, x):
        return x + 0

    with pytest.raises(GraphError, match=r"shape \(1,\) for an argument of shape \(2,\)"):
        tg.grad(too_short(x).sum(), x)

    @tg.primitive(x=lambda F, g: F.reshape(g, shape=(2,)))
    def too_flat(xp, x):
        return x + 0

    x = leaf([[1.0, 2.0]])
    with pytest.raises(GraphError, match=r"shape \(2,\) for an argument of shape \(1, 2\)"):
        tg.grad(too_flat(x).sum(), x)


# -- versions --------------------------------------------------------------------------------------


def test_changing_a_value_that_was_saved_is_refused(x):
    y = leaf([1.0, 2.0, 3.0])
    for changed, result in ((x, x * y), (y, x * y), (x, tg.log(x * x)), (x, tg.sin(x)), (x, x**2)):
        saved = result.sum()
        changed.data = np.ones(3)
        with pytest.raises(GraphError, match=r"changed in place.*before optimizer\.step"):
            saved.backward()


def test_changing_a_value_that_was_not_saved_is_fine(x):
    y = leaf([1.0, 2.0, 3.0])
    total = (x + y).sum() + (x * 2).sum() + tg.exp(x).sum() + x.mean()
    e = np.exp(x.numpy())
    x.data = np.full(3, 9.0)
    y.data = np.full(3, 9.0)
    total.backward()
    assert_grad(x, 3 + e + 1 / 3)
    assert_grad(y, np.ones(3))


def test_a_value_that_only_the_other_argument_needs_may_change(x):
    y = tg.tensor([1.0, 2.0, 3.0], dtype=np.float64)  # no gradient wanted: x is not saved for it
    total = (x * y).sum()
    x.data = np.zeros(3)
    total.backward()
    assert_grad(x, [1, 2, 3])


def test_views_and_detached_tensors_share_the_version(x):
    square = (x[1:] * x[1:]).sum()
    x.data = np.zeros(3)
    with pytest.raises(GraphError, match="changed in place"):
        square.backward()
    product = (leaf([1.0, 2.0, 3.0]) * x.detach()).sum()
    x.data = np.ones(3)
    with pytest.raises(GraphError, match="changed in place"):
        product.backward()
    weight = leaf([[1.0, 2.0], [3.0, 4.0]])
    out = (leaf([[1.0, 1.0]]) @ weight.T).sum()
    weight.data = np.zeros((2, 2))
    with pytest.raises(GraphError, match="changed in place"):
        out.backward()


def test_a_change_before_the_forward_pass_is_fine(x):
    x.data = np.ones(3)
    (x * x).sum().backward()
    assert_grad(x, np.full(3, 2.0))


def test_a_computed_value_is_read_only(x):
    y = x * 2
    with pytest.raises(ValueError, match="read-only"):
        y.data[0] = 1
    with pytest.raises(GraphError, match="computed"):
        y.data = np.zeros(3)
    with pytest.raises(ShapeError, match=r"\(2,\) assigned to a tensor of shape \(3,\)"):
        x.data = np.zeros(2)


# -- modes -----------------------------------------------------------------------------------------


def test_no_grad_and_enable_grad_nest(x):
    assert tg.is_grad_enabled()
    with tg.no_grad():
        assert not tg.is_grad_enabled()
        assert not (x * 2).requires_grad
        with tg.enable_grad():
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
        assert leaf(1.0).requires_grad  # a leaf is what it was made
    assert (x * 2).requires_grad


def test_modes_are_decorators(x):
    @tg.no_grad()
    def plain(value):
        return value * 2

    @tg.enable_grad()
    def recorded(value):
        return value * 2

    for _ in range(2):  # again and again
        assert not plain(x).requires_grad
        with tg.no_grad():
            assert recorded(x).requires_grad
    assert tg.is_grad_enabled()


def test_modes_survive_exceptions(x):
    @tg.no_grad()
    def fails():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert tg.is_grad_enabled()
    with pytest.raises(ZeroDivisionError), tg.no_grad():
        raise ZeroDivisionError
    assert tg.is_grad_enabled()
    with pytest.raises(ZeroDivisionError), tg.no_grad(), tg.enable_grad():
        raise ZeroDivisionError
    assert tg.is_grad_enabled()


def test_modes_belong_to_a_thread(x):
    seen = []
    with tg.no_grad():
        thread = threading.Thread(target=lambda: seen.append((x * 2).requires_grad))
        thread.start()
        thread.join()
    assert seen == [True]


def test_threads_may_walk_graphs_of_the_same_leaf_at_once():
    x = leaf(np.linspace(0, 1, 50))
    results = [None] * 4

    def work(i):
        y = x
        for _ in range(200):
            y = tg.sin(y) + x
        results[i] = tg.grad(y.sum(), x).numpy()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    work(0)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_backward_works_inside_no_grad(x):
    y = (x * x).sum()
    with tg.no_grad():
        y.backward()
    assert_grad(x, 2 * x.numpy())
    assert not x.grad.requires_grad


# -- higher orders ---------------------------------------------------------------------------------


@settings(max_examples=10)
@given(st.floats(-2, 2))
def test_derivatives_to_the_fourth_order(at):
    x = leaf(at)
    derivatives = [tg.sin(x) * x**3]
    for _ in range(4):
        derivatives.append(tg.grad(derivatives[-1], x, create_graph=True))
    s, c = np.sin(at), np.cos(at)
    expected = [
        s * at**3,
        c * at**3 + 3 * s * at**2,
        -s * at**3 + 6 * c * at**2 + 6 * s * at,
        -c * at**3 - 9 * s * at**2 + 18 * c * at + 6 * s,
        s * at**3 - 12 * c * at**2 - 36 * s * at + 24 * c,
    ]
    np.testing.assert_allclose([d.item() for d in derivatives], expected, rtol=1e-9, atol=1e-9)


def test_third_order_through_products_reductions_and_indices():
    """A multilinear function: its third derivative in one direction is known."""
    rng = np.random.default_rng(0)
    a, direction = rng.normal(size=(2, 3, 3))
    w = leaf(a)
    value = ((w @ w)[1:, [0, 0, 2]] * tg.stack([w[0], w[2]])).sum()
    for _ in range(3):
        gradient = tg.grad(value, w, create_graph=True)
        value = (gradient * direction).sum()

    def cubic(m):
        return ((m @ m)[1:, [0, 0, 2]] * m[[0, 2]]).sum()

    np.testing.assert_allclose(value.item(), 6 * cubic(direction), rtol=1e-10)


def test_create_graph_keeps_the_graph_unless_told_otherwise(x):
    y = (x**3).sum()
    first = tg.grad(y, x, create_graph=True)
    tg.grad(y, x)
    with pytest.raises(GraphError, match="second time"):
        tg.grad(y, x)
    assert first.requires_grad
    assert not tg.grad((x**3).sum(), x).requires_grad


def test_the_gradient_to_start_from_can_be_differentiated(x):
    start = leaf([1.0, 2.0, 3.0])
    gradient = tg.grad(tg.exp(x), x, start, create_graph=True)
    (twice,) = tg.grad(gradient.sum(), [start])
    np.testing.assert_allclose(twice.numpy(), np.exp(x.numpy()))


def test_a_gradient_penalty_trains_through_backward(x):
    gradient = tg.grad((x**3).sum(), x, create_graph=True)
    (gradient * gradient).sum().backward()
    assert_grad(x, 36 * x.numpy() ** 3)


# -- size ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_million_operations_forward_backward_and_dropped():
    x = leaf(1.0)
    y = x
    for _ in range(1_000_000):
        y = y + 1e-6
    y.backward()
    assert_grad(x, 1.0)
    assert y.item() == pytest.approx(2.0)
    del y


@pytest.mark.slow
def test_a_million_operations_dropped_without_backward():
    x = y = leaf(1.0)
    for _ in range(1_000_000):
        y = y * 1.0
    assert y.requires_grad
    y = x
    assert y.item() == 1.0


def test_a_long_chain_of_a_gradient_of_a_gradient():
    x = y = leaf(1.0)
    for _ in range(20_000):
        y = y * 1.00001
    first = tg.grad(y * y, x, create_graph=True)
    scale = 1.00001**20_000
    assert tg.grad(first, x).item() == pytest.approx(2 * scale**2, rel=1e-9)
