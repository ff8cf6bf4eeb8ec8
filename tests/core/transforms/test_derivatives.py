"""Products with Jacobians and Hessians, against differences in NumPy and against each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from reference import difference
from tinygrad_rnn.errors import ArgumentError, DTypeError, ShapeError
from tinygrad_rnn.testing import arrays, shapes

SEEDS = st.integers(0, 2**32 - 1)


def numpy_pair(x, y):
    """Two outputs of two inputs (2, 3) and (3,): all second derivatives are there."""
    return np.tanh(x @ y) * y.sum(), np.exp(x / 3) * y


def pair(x, y):
    return tg.tanh(x @ y) * y.sum(), tg.exp(x / 3) * y


def numpy_total(x, y):
    first, second = numpy_pair(x, y)
    return (first**2).sum() + (second**3).sum()


def total(x, y):
    first, second = pair(x, y)
    return (first**2).sum() + (second**3).sum()


@pytest.fixture
def place():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, 3)) / 2, rng.normal(size=3) / 2]


def random_like(things, seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=thing.shape) for thing in things]


def dot(first, second):
    return sum(float((np.asarray(a) * np.asarray(b)).sum()) for a, b in zip(first, second))  # noqa: B905


def numpies(tensors):
    return [t.numpy() for t in tensors]


@given(SEEDS)
def test_jvp_equals_differences(seed):
    place = random_like([np.empty((2, 3)), np.empty(3)], seed)
    place = [a / 3 for a in place]
    v = random_like(place, seed + 1)
    outputs, moved = tg.jvp(pair, place, v)
    for k, expected in enumerate(numpy_pair(*place)):
        np.testing.assert_allclose(outputs[k].numpy(), expected)
        for index in np.ndindex(*expected.shape):
            by_differences = difference(lambda x, y: numpy_pair(x, y)[k][index], place, v)  # noqa: B023
            np.testing.assert_allclose(moved[k].numpy()[index], by_differences, rtol=1e-7)


@given(SEEDS)
def test_vjp_is_the_transpose_of_jvp(seed):
    place = random_like([np.empty((2, 3)), np.empty(3)], seed)
    v, u = random_like(place, seed + 1), random_like(numpy_pair(*place), seed + 2)
    outputs, moved = tg.jvp(pair, place, v)
    again, pulled = tg.vjp(pair, place, u)
    np.testing.assert_allclose(dot(u, numpies(moved)), dot(numpies(pulled), v), rtol=1e-10)
    for a, b in zip(outputs, again, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_the_jacobian_holds_all_products(place):
    blocks = tg.jacobian(pair, place)
    v, u = random_like(place, 1), random_like(numpy_pair(*place), 2)
    _, moved = tg.jvp(pair, place, v)
    _, pulled = tg.vjp(pair, place, u)
    for k, row in enumerate(blocks):
        assert [b.shape for b in row] == [moved[k].shape + a.shape for a in place]
        by_blocks = sum(
            np.tensordot(b.numpy(), a, axes=a.ndim) for b, a in zip(row, v, strict=True)
        )
        np.testing.assert_allclose(moved[k].numpy(), by_blocks)
    for i, expected in enumerate(pulled):
        by_blocks = sum(np.tensordot(w, blocks[k][i].numpy(), axes=w.ndim) for k, w in enumerate(u))
        np.testing.assert_allclose(expected.numpy(), by_blocks)


@given(SEEDS)
def test_hvp_equals_differences_of_differences(seed):
    place = [a / 3 for a in random_like([np.empty((2, 3)), np.empty(3)], seed)]
    v, w = random_like(place, seed + 1), random_like(place, seed + 2)
    value, products = tg.hvp(total, place, v)
    np.testing.assert_allclose(value.item(), numpy_total(*place))

    def differences(h):
        return difference(lambda *p: difference(numpy_total, p, v, h), place, w, h)

    # Two widths, so that the error of the second order in the width cancels (Richardson).
    expected = (4 * differences(2.5e-3) - differences(5e-3)) / 3
    np.testing.assert_allclose(dot(numpies(products), w), expected, rtol=1e-5, atol=1e-6)


def test_hvp_is_the_hessians_product(place):
    v = random_like(place, 3)
    _, products = tg.hvp(total, place, v)
    blocks = tg.hessian(total, place)
    for i, product in enumerate(products):
        by_blocks = sum(np.tensordot(blocks[i][j].numpy(), v[j], axes=v[j].ndim) for j in range(2))
        np.testing.assert_allclose(product.numpy(), by_blocks)


@given(arrays(shapes(max_dims=2)), SEEDS)
def test_any_shape_0_d_and_empty_ones_too(x, seed):
    (v,) = random_like([x], seed)
    _, moved = tg.jvp(lambda t: t * t, x, v)
    np.testing.assert_allclose(moved.numpy(), 2 * x * v)
    _, pulled = tg.vjp(lambda t: t * t, x, v)
    np.testing.assert_allclose(pulled.numpy(), 2 * x * v)
    jacobian = tg.jacobian(lambda t: t * t, x)
    assert jacobian.shape == x.shape + x.shape
    np.testing.assert_allclose(jacobian.numpy().reshape(x.size, x.size), np.diag((2 * x).ravel()))
    hessian = tg.hessian(lambda t: (t**3).sum(), x)
    np.testing.assert_allclose(hessian.numpy().reshape(x.size, x.size), np.diag((6 * x).ravel()))
    _, product = tg.hvp(lambda t: (t**3).sum(), x, v)
    np.testing.assert_allclose(product.numpy(), 6 * x * v)


def test_results_come_in_the_structure_of_what_was_given():
    x = tg.tensor([1.0, 2.0])

    def f(*t):
        return sum(t[1:], t[0]) * 2

    def both(*t):
        return f(*t), f(*t)

    assert isinstance(tg.vjp(f, x, x)[1], tg.Tensor)
    assert [t.shape for t in tg.vjp(f, [x, x], x)[1]] == [(2,), (2,)]
    assert [t.shape for t in tg.jvp(both, x, x)[1]] == [(2,), (2,)]
    assert tg.jacobian(f, x).shape == (2, 2)
    assert [t.shape for t in tg.jacobian(f, (x,))] == [(2, 2)]
    assert [[t.shape for t in row] for row in tg.jacobian(both, (x,))] == [[(2, 2)], [(2, 2)]]
    assert [[t.shape for t in row] for row in tg.hessian(lambda *t: f(*t).sum(), (x,))] == [
        [(2, 2)]
    ]


def test_what_does_not_depend_is_zero():
    x, y = tg.tensor([1.0, 2.0]), tg.tensor([3.0])

    def f(x, y):
        return x * 2, tg.ones(4), tg.argmax(x)

    assert [t.numpy().tolist() for t in tg.jvp(f, [x, y], [x, y])[1]] == [[2, 4], [0] * 4, 0]
    v = [tg.ones(2), tg.ones(4), tg.ones(())]
    assert [t.numpy().tolist() for t in tg.vjp(f, [x, y], v)[1]] == [[2, 2], [0]]
    assert tg.jacobian(f, [x, y])[0][1].numpy().tolist() == [[0], [0]]
    assert tg.hessian(lambda x: x.sum(), x).numpy().tolist() == [[0, 0], [0, 0]]
    assert tg.hvp(lambda x: tg.ones(()), x, x)[1].numpy().tolist() == [0, 0]


def test_inputs_are_left_alone_and_results_have_no_graph():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    results = [
        *tg.vjp(tg.exp, x, x),
        *tg.jvp(tg.exp, x, x),
        *tg.hvp(lambda t: tg.exp(t).sum(), x, x),
        tg.jacobian(tg.exp, x),
        tg.hessian(lambda t: tg.exp(t).sum(), x),
    ]
    assert not any(t.requires_grad for t in results)
    assert x.grad is None
    assert x.is_leaf
    with tg.no_grad():
        again = tg.jacobian(tg.exp, x)
    np.testing.assert_array_equal(again.numpy(), results[-2].numpy())


@pytest.mark.parametrize(
    "derivative",
    [
        lambda f, x: tg.vjp(f, x)[1],
        lambda f, x: tg.jvp(f, x, tg.ones_like(x))[1],
        lambda f, x: tg.hvp(f, x, x)[1],
        tg.jacobian,
        tg.hessian,
        lambda f, x: tg.gradcheck(f, x, order=2) and x,
    ],
    ids=["vjp", "jvp", "hvp", "jacobian", "hessian", "gradcheck"],
)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_function_may_update_its_argument(derivative, requires_grad):
    def updating(x):
        x *= 3
        x += x.sin()
        return (x * x).sum()

    x = tg.tensor([1.0, 2.0], dtype="float64", requires_grad=requires_grad)
    expected = derivative(lambda x: ((3 * x + (3 * x).sin()) ** 2).sum(), x)
    np.testing.assert_allclose(derivative(updating, x).numpy(), expected.numpy(), rtol=1e-12)
    assert x.numpy().tolist() == [1, 2]


@pytest.mark.parametrize(
    "derivative, power",
    [
        (lambda f, x: tg.vjp(f, x, create_graph=True)[1], 1),
        (lambda f, x: tg.jvp(f, x, create_graph=True)[1], 1),
        (lambda f, x: tg.jacobian(f, x, create_graph=True), 1),
        (lambda f, x: tg.hvp(f, x, create_graph=True)[1], 2),
        (lambda f, x: tg.hessian(f, x, create_graph=True), 2),
    ],
    ids=["vjp", "jvp", "jacobian", "hvp", "hessian"],
)
def test_results_can_be_differentiated_again(derivative, power):
    """d/dx of the derivative of x⁵, and a function nested in itself."""
    x = tg.tensor(2.0, requires_grad=True)
    slope = tg.grad(derivative(lambda t: t**5, x), x)
    expected = {1: 20 * 2.0**3, 2: 60 * 2.0**2}[power]
    assert slope.item() == pytest.approx(expected)
    nested = tg.jacobian(lambda t: derivative(lambda s: s**5, t), x)
    assert nested.item() == pytest.approx(expected)


@pytest.mark.parametrize("function", [lambda b, x: b**x, tg.fuse(lambda b, x: b**x)])
@pytest.mark.parametrize("base", [10.0, 3, 0.7])
@given(at=st.floats(-2, 2))
def test_a_number_to_the_power_of_a_tensor_to_the_third_order(function, base, at):
    x = tg.tensor(at, dtype=tg.float64, requires_grad=True)
    y = function(base, x)
    for order in range(4):
        expected = np.log(base) ** order * np.float64(base) ** at
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-14)
        y = tg.grad(y, x, create_graph=True)
    x = tg.tensor([at], dtype=tg.float64)
    value, slope = tg.jvp(lambda x: function(base, x), x, tg.ones(1, dtype=tg.float64))
    np.testing.assert_allclose(slope.numpy(), np.log(base) * value.numpy(), rtol=1e-14)


def test_a_rule_takes_a_number_as_a_number():
    @tg.primitive(x=lambda F, g, y: g * F.sqrt(y), y=lambda F, g, x, y: g * x / (2 * F.sqrt(y)))
    def times_root(xp, x, y):
        return x * xp.sqrt(y)

    x = tg.tensor(np.array([1.0, 2.0]), requires_grad=True)
    for create_graph in (False, True):
        (g,) = tg.grad([times_root(x, 2.0).sum()], [x], create_graph=create_graph)
        np.testing.assert_array_equal(g.numpy(), np.full(2, np.sqrt(2.0)))


@pytest.mark.parametrize("y", [1.0, 2.0, 3.0, 0.0, 1.5, 4.5])
@pytest.mark.parametrize("x", [0.0, 0.5, 2.0])
def test_mixed_derivatives_of_a_power_are_symmetric(x, y):
    place = [tg.tensor(v, dtype=tg.float64, requires_grad=True) for v in (x, y)]
    by_x, by_y = tg.grad(place[0] ** place[1], place, create_graph=True)
    first, second = tg.grad(by_x, place[1]).item(), tg.grad(by_y, place[0]).item()
    np.testing.assert_allclose(first, second, rtol=1e-14)
    if x or y:  # at (0, 0) it is a convention
        mixed = x ** (y - 1) * (1 + y * np.log(x)) if x else float(y == 1)
        np.testing.assert_allclose(first, mixed, rtol=1e-12)
    if y != 1.5:  # where a second derivative is infinite, 0 times it is nan
        matrix = tg.hessian(lambda v: v[0] ** v[1], tg.tensor([x, y], dtype=tg.float64)).numpy()
        np.testing.assert_allclose(matrix, matrix.T, rtol=1e-14)


def test_only_the_argument_is_differentiated_by():
    """What the function reads from around it stays a constant, be it the same tensor."""
    x = tg.tensor(3.0, requires_grad=True)
    assert tg.vjp(lambda t: t * x, x)[1].item() == 3.0
    product = tg.vjp(lambda t: t * x, x, create_graph=True)[1]
    assert tg.grad(product, x).item() == 1.0


def test_a_recurrent_layer_has_a_jvp():
    """The transposed pass goes through products, slices, checkpoint and cross-entropy."""
    layer = tg.nn.LSTM(3, 4, dtype=tg.float64, rng=0)
    x = np.random.default_rng(0).normal(size=(3, 2, 3))

    def loss(x):
        output = tg.checkpoint(lambda t: layer(t)[0], x)
        return tg.functional.cross_entropy(output[1:], np.zeros((2, 2), int))

    v = np.random.default_rng(1).normal(size=x.shape)
    _, moved = tg.jvp(loss, x, v)
    _, pulled = tg.vjp(loss, x)
    np.testing.assert_allclose(moved.item(), (pulled.numpy() * v).sum())


@pytest.mark.parametrize(
    "call, error, match",
    [
        (lambda x: tg.vjp(tg.exp, [1, 2]), DTypeError, "vjp: input 0 is int64"),
        (lambda x: tg.vjp(tg.exp, x), ArgumentError, r"vjp: v is needed.*\(2,\)"),
        (lambda x: tg.vjp(tg.exp, x, np.ones(3)), ShapeError, r"v has shape \(3,\) for output 0"),
        (lambda x: tg.vjp(tg.exp, x, [x, x]), ArgumentError, "2 vectors for 1 outputs"),
        (lambda x: tg.jvp(tg.exp, x), ArgumentError, "jvp: v is needed.*input"),
        (lambda x: tg.jvp(tg.exp, x, np.ones(3)), ShapeError, r"v has shape \(3,\) for input 0"),
        (lambda x: tg.hvp(tg.exp, x, x), ShapeError, r"hvp: fn must return one number.*\(2,\)"),
        (lambda x: tg.hessian(tg.exp, x), ShapeError, "hessian: fn must return one number"),
        (lambda x: tg.jacobian(lambda t: 3.0, x), ArgumentError, "jacobian: .*not float"),
    ],
)
def test_misuse_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call(tg.tensor([1.0, 2.0]))
