"""Linear, Embedding, Dropout, LayerNorm and the initial values, against NumPy and PyTorch."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_rnn as tg
from tinygrad_rnn import functional as F
from tinygrad_rnn.engine.ops import normalize
from tinygrad_rnn.errors import ArgumentError, DTypeError, GraphError, ShapeError
from tinygrad_rnn.nn import Dropout, Embedding, LayerNorm, Linear, init

SIZES = st.integers(1, 5)
LEADING = st.lists(st.integers(0, 3), max_size=3).map(tuple)
SEEDS = st.integers(0, 2**32)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


# -- linear ----------------------------------------------------------------------------------------


@given(LEADING, SIZES, SIZES, st.booleans(), SEEDS)
def test_linear_is_the_affine_map(leading, n, m, bias, seed):
    layer = Linear(n, m, bias=bias, dtype="float64", rng=seed)
    x = normal(seed, *leading, n)
    expected = np.einsum("...i,oi->...o", x, layer.weight.numpy())
    if bias:
        expected = expected + layer.bias.numpy()
    y = layer(tg.tensor(x))
    assert y.shape == (*leading, m)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.oracle
@given(LEADING, SIZES, SIZES, st.booleans(), SEEDS)
def test_linear_and_its_gradients_equal_pytorchs(leading, n, m, bias, seed):
    torch = pytest.importorskip("torch")
    layer = Linear(n, m, bias=bias, dtype="float64", rng=seed)
    peer = torch.nn.Linear(n, m, bias=bias, dtype=torch.float64)
    peer.load_state_dict({k: torch.tensor(v) for k, v in layer.state_dict().items()})
    value, weight = normal(seed, *leading, n), normal(seed + 1, *leading, m)
    x, x_peer = tg.tensor(value, requires_grad=True), torch.tensor(value, requires_grad=True)
    (layer(x) * weight).sum().backward()
    (peer(x_peer) * torch.tensor(weight)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), x_peer.grad.numpy(), rtol=1e-12, atol=1e-12)
    for (name, p), q in zip(layer.named_parameters(), peer.parameters(), strict=True):
        np.testing.assert_allclose(
            p.grad.numpy(), q.grad.numpy(), rtol=1e-12, atol=1e-12, err_msg=name
        )


def test_linear_starts_uniform_between_the_inverse_roots():
    layer = Linear(16, 4000, rng=0)
    for parameter in layer.parameters():
        values = parameter.numpy()
        assert values.dtype == np.float32
        assert abs(values).max() <= 0.25
        assert abs(values).max() > 0.249
        assert abs(values.var() / (0.25**2 / 3) - 1) < 0.05
    assert layer.weight.shape == (4000, 16)
    assert layer.bias.shape == (4000,)
    assert not np.array_equal(layer.weight.numpy().flat[:4000], layer.bias.numpy())


@given(SEEDS)
def test_equal_seeds_give_equal_layers_in_every_precision(seed):
    double, single = (Linear(3, 4, dtype=d, rng=seed) for d in ("float64", "float32"))
    for a, b in zip(double.parameters(), single.parameters(), strict=True):
        np.testing.assert_array_equal(a.numpy().astype(np.float32), b.numpy())
    tg.manual_seed(seed)
    first = Linear(3, 4).state_dict()
    tg.manual_seed(seed)
    for name, value in Linear(3, 4).state_dict().items():
        np.testing.assert_array_equal(value, first[name])


def test_linear_checks_sizes_then_dtypes():
    layer = Linear(4, 3)
    with pytest.raises(ShapeError, match=r"Linear: .*has 5 features, weight \(3, 4\) expects 4"):
        layer(tg.ones(2, 5, dtype="float64"))
    with pytest.raises(ShapeError, match="no axis"):
        layer(tg.tensor(1.0))
    with pytest.raises(DTypeError, match=r"input is float64, weight is float32: .*astype"):
        layer(tg.ones(2, 4, dtype="float64"))
    with pytest.raises(DTypeError, match="input is int64"):
        layer(tg.zeros(2, 4, dtype="int64"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(0, 3), "in_features must be a positive integer, got 0"),
        (lambda: Linear(3, -1), "out_features must be a positive integer, got -1"),
        (lambda: Linear(2.5, 3), "in_features must be a positive integer, got 2.5"),
        (lambda: Linear(True, 3), "in_features must be a positive integer, got True"),
        (lambda: Embedding(0, 3), "num_embeddings must be"),
        (lambda: Embedding(3, "4"), "embedding_dim must be"),
        (lambda: LayerNorm((3, 0)), "normalized_shape must be"),
        (lambda: Dropout(1.5), r"p must be in \[0, 1\], got 1.5"),
        (lambda: Dropout(float("nan")), "got nan"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_sizes_may_be_numpy_integers():
    assert Linear(np.int64(2), np.uint8(3)).weight.shape == (3, 2)


# -- embedding -------------------------------------------------------------------------------------


@given(LEADING, SIZES, SIZES, st.sampled_from(["int64", "int32", "uint8"]), SEEDS)
def test_embedding_looks_up_rows_and_adds_up_their_gradients(leading, count, size, dtype, seed):
    table = Embedding(count, size, dtype="float64", rng=seed)
    ids = np.random.default_rng(seed).integers(0, count, leading).astype(dtype)
    weight = normal(seed, *leading, size)
    y = table(tg.tensor(ids))
    np.testing.assert_array_equal(y.numpy(), table.weight.numpy()[ids])
    (y * weight).sum().backward()
    expected = np.zeros((count, size))
    np.add.at(expected, ids, weight)
    np.testing.assert_allclose(table.weight.grad.numpy(), expected, rtol=1e-12, atol=1e-12)


@given(SIZES, SIZES, SEEDS)
def test_embedding_is_a_linear_layer_of_one_hot_vectors(count, size, seed):
    table = Embedding(count, size, dtype="float64", rng=seed)
    ids = np.random.default_rng(seed).integers(0, count, (3, 2))
    hot = tg.functional.one_hot(ids, count, dtype="float64")
    np.testing.assert_array_equal((hot @ table.weight).numpy(), table(ids).numpy())


@pytest.mark.oracle
@given(LEADING, SIZES, SIZES, st.data(), st.booleans(), SEEDS)
def test_padding_equals_pytorchs(leading, count, size, data, written, seed):
    torch = pytest.importorskip("torch")
    index = data.draw(st.integers(-count, count - 1))
    table = Embedding(count, size, index, dtype="float64", rng=seed)
    if written:  # the row need not be zero
        table.weight.data = normal(seed, count, size)
    else:
        assert not table.weight.numpy()[index].any()
    peer = torch.nn.Embedding(count, size, index, dtype=torch.float64)
    peer.load_state_dict({"weight": torch.tensor(table.weight.numpy())})
    ids = np.random.default_rng(seed).integers(0, count, leading)
    y, y_peer = table(ids), peer(torch.tensor(ids))
    np.testing.assert_array_equal(y.numpy(), y_peer.detach().numpy())
    weight = normal(seed + 1, *leading, size)
    (y * y * weight).sum().backward()
    (y_peer * y_peer * torch.tensor(weight)).sum().backward()
    found, expected = table.weight.grad.numpy(), peer.weight.grad.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert table.padding_idx == peer.padding_idx


@given(SEEDS)
def test_padding_is_not_learned_also_by_an_infinite_gradient_and_of_second_order(seed):
    table = Embedding(4, 2, padding_idx=1, rng=seed)
    optimizer = tg.optim.AdamW(table.parameters(), lr=0.1, weight_decay=0.1)
    table([1, 1, 0]).backward(tg.tensor([[np.inf] * 2, [np.nan] * 2, [1.0] * 2]))
    optimizer.step()
    assert not table.weight.numpy()[1].any()
    assert np.isfinite(table.weight.numpy()).all()
    weight = normal(seed, 4, 2)
    assert tg.gradcheck(
        lambda w: tg.where([[False]] * 2 + [[True]], 0.0, F.embedding([0, 3, 1], w, 1) ** 2),
        weight,
        order=2,
    )


def test_embedding_takes_lists_and_arrays():
    table = Embedding(4, 2)
    for ids in ([1, 3], np.array([1, 3]), np.array([1, 3], np.uint8), tg.tensor([1, 3])):
        np.testing.assert_array_equal(table(ids).numpy(), table.weight.numpy()[[1, 3]])
    assert table(2).shape == (2,)
    assert table(np.zeros((0, 3), np.int64)).shape == (0, 3, 2)


@given(SIZES, st.integers(-300, 300), SEEDS)
def test_an_id_outside_the_table_is_named(count, bad, seed):
    table = Embedding(count, 2)
    ids = np.random.default_rng(seed).integers(0, count, (3, 2))
    ids[1, 1] = bad
    if 0 <= bad < count:
        assert table(ids).shape == (3, 2, 2)
    else:
        with pytest.raises(ArgumentError, match=rf"Embedding: id {bad} .*\[0, {count}\)"):
            table(ids)


@pytest.mark.parametrize("ids", [[1.0], [True], np.zeros(2), tg.ones(2)])
def test_ids_must_be_integers(ids):
    with pytest.raises(DTypeError, match="Embedding: ids must be integers, got"):
        Embedding(4, 2)(ids)


def test_embedding_starts_standard_normal():
    values = Embedding(1000, 20, rng=0).weight.numpy()
    assert abs(values.mean()) < 0.05
    assert abs(values.std() - 1) < 0.05


# -- dropout ---------------------------------------------------------------------------------------


@given(st.floats(0, 1), SEEDS)
def test_dropout_keeps_scaled_values_or_zero_with_the_right_frequency(p, seed):
    n = 4000
    x = tg.full((n,), 2.0, dtype="float64", requires_grad=True)
    y = Dropout(p, rng=seed)(x)
    kept = y.numpy() != 0
    assert abs(kept.mean() - (1 - p)) <= 6 * math.sqrt(p * (1 - p) / n) + 1e-9
    if kept.any():
        np.testing.assert_allclose(y.numpy()[kept], 2 / (1 - p), rtol=1e-15)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), y.numpy() / 2, rtol=1e-15)


def test_dropout_draws_another_mask_at_every_call_and_equal_ones_from_equal_seeds():
    x = tg.ones(200)
    layer, twin = Dropout(0.5, rng=7), Dropout(0.5, rng=7)
    a, b = layer(x).numpy(), layer(x).numpy()
    assert not np.array_equal(a, b)
    np.testing.assert_array_equal(a, twin(x).numpy())
    again = copy.deepcopy(layer)
    np.testing.assert_array_equal(layer(x).numpy(), again(x).numpy())


@given(st.floats(0, 1))
def test_dropout_without_training_is_the_identity_and_draws_nothing(p):
    x = tg.ones(3, dtype="float32")
    state = tg.random.get_state()
    assert Dropout(p).eval()(x) is x
    assert Dropout(0.0)(x) is x
    np.testing.assert_equal(tg.random.get_state(), state)
    assert Dropout(p)(x).dtype == np.float32


def test_dropout_refuses_integers():
    with pytest.raises(DTypeError, match="Dropout: input must be floating, got int64"):
        Dropout(0.5)(tg.zeros(3, dtype="int64"))


# -- layer norm ------------------------------------------------------------------------------------


@pytest.mark.oracle
@given(
    LEADING,
    st.lists(SIZES, min_size=1, max_size=2).map(tuple),
    st.booleans(),
    st.booleans(),
    SEEDS,
)
def test_layer_norm_and_its_gradients_equal_pytorchs(leading, shape, affine, bias, seed):
    torch = pytest.importorskip("torch")
    layer = LayerNorm(shape, elementwise_affine=affine, bias=bias, dtype="float64", eps=1e-3)
    peer = torch.nn.LayerNorm(
        shape, elementwise_affine=affine, bias=bias, dtype=torch.float64, eps=1e-3
    )
    for i, (p, q) in enumerate(zip(layer.parameters(), peer.parameters(), strict=True)):
        value = normal(seed + i, *shape)
        p.data = value
        q.data = torch.tensor(value)
    assert list(layer.state_dict()) == list(peer.state_dict())
    value, weight = normal(seed, *leading, *shape), normal(seed + 9, *leading, *shape)
    x, x_peer = tg.tensor(value, requires_grad=True), torch.tensor(value, requires_grad=True)
    y, y_peer = layer(x), peer(x_peer)
    np.testing.assert_allclose(y.numpy(), y_peer.detach().numpy(), rtol=1e-10, atol=1e-10)
    (y * weight).sum().backward()
    (y_peer * torch.tensor(weight)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), x_peer.grad.numpy(), rtol=1e-8, atol=1e-8)
    for p, q in zip(layer.parameters(), peer.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-10, atol=1e-10)


@given(st.integers(2, 6), SEEDS)
def test_layer_norm_ignores_shift_and_scale_of_its_input(n, seed):
    layer = LayerNorm(n, eps=0.0, dtype="float64")
    x = normal(seed, 3, n)
    y = layer(tg.tensor(x)).numpy()
    np.testing.assert_allclose(layer(tg.tensor(5 + 3 * x)).numpy(), y, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-9)
    np.testing.assert_allclose((y * y).mean(-1), 1, rtol=1e-9)


@given(
    hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4),
    st.data(),
    st.booleans(),
    SEEDS,
)
def test_standardize_is_one_operation_equal_to_several(shape, data, column_major, seed):
    axis = tuple(range(-data.draw(st.integers(1, len(shape))), 0))
    rng = np.random.default_rng(seed)
    array = rng.normal(size=shape)
    array = np.asfortranarray(array) if column_major else array
    weights = [rng.normal(size=shape) for _ in range(4)]

    def orders():
        x = tg.tensor(array, requires_grad=True)
        terms = [tg.functional.standardize(x, axis, 0.3)]
        for w in weights[:3]:
            terms.append(tg.grad((terms[-1] * w).sum(), x, create_graph=True))
        x.grad = None
        (terms[-1] * weights[3]).sum().backward()
        return [*(term.numpy() for term in terms), x.grad.numpy()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(normalize, "BLOCK_BYTES", data.draw(st.sampled_from([1 << 19, 24])))
        own = orders()
    with tg.fuse.disabled():
        several = orders()
    for a, b in zip(own, several, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    x = tg.tensor(np.ascontiguousarray(array))
    tg.gradcheck(lambda x: tg.functional.standardize(x, axis, 0.3), x, order=2)


def test_standardize_keeps_its_result_and_a_number_for_each_row():
    x = tg.tensor(normal(0, 5, 7), requires_grad=True)
    y = tg.functional.standardize(x * 1, (-1,), 0.1)
    (node,) = y._node.parents
    assert [a.shape for a in node.saved] == [(5, 7), (5, 1)] and node.saved[0] is y._data
    y.sum().backward()
    with pytest.raises(GraphError, match="layer_norm a second time"):
        y.sum().backward()


def test_layer_norm_of_integers_is_floating():
    y = tg.functional.layer_norm(tg.tensor([[1, 3]]), 2, eps=0.0)
    assert y.dtype == tg.get_default_dtype() and y.numpy().tolist() == [[-1.0, 1.0]]


def test_layer_norm_checks_its_input():
    layer = LayerNorm((2, 3))
    with pytest.raises(ShapeError, match=r"input \(3, 2\) does not end in .*\(2, 3\)"):
        layer(tg.ones(3, 2))
    with pytest.raises(ShapeError, match="does not end in"):
        layer(tg.ones(3))
    with pytest.raises(DTypeError, match="input is float64, weight is float32"):
        layer(tg.ones(2, 3, dtype="float64"))
    with pytest.raises(ShapeError, match=r"weight is \(2,\)"):
        tg.functional.layer_norm(tg.ones(4, 3), 3, tg.ones(2))
    assert "eps=1e-05" in repr(layer)
    assert repr(LayerNorm(3, elementwise_affine=False)) == "LayerNorm((3,), eps=1e-05)"
    assert repr(LayerNorm(3, bias=False)) == "LayerNorm(eps=1e-05, weight (3,))  3 parameters"


# -- initial values --------------------------------------------------------------------------------

BIG = (300, 200)
FAN_IN, FAN_OUT = 200, 300
VARIANCES = [
    (lambda t, r: init.uniform(t, -1.0, 2.0, rng=r), 0.5, 9 / 12),
    (lambda t, r: init.normal(t, 1.0, 0.5, rng=r), 1.0, 0.25),
    (lambda t, r: init.xavier_uniform(t, 2.0, rng=r), 0.0, 8 / (FAN_IN + FAN_OUT)),
    (lambda t, r: init.xavier_normal(t, 2.0, rng=r), 0.0, 8 / (FAN_IN + FAN_OUT)),
    (lambda t, r: init.kaiming_uniform(t, rng=r), 0.0, 2 / FAN_IN),
    (lambda t, r: init.kaiming_normal(t, rng=r), 0.0, 2 / FAN_IN),
    (lambda t, r: init.kaiming_uniform(t, 1.0, "fan_out", rng=r), 0.0, 1 / FAN_OUT),
    (lambda t, r: init.kaiming_normal(t, 1.0, mode="fan_out", rng=r), 0.0, 1 / FAN_OUT),
    (lambda t, r: init.orthogonal(t, 2.0, rng=r), 0.0, 4 / FAN_OUT),
]


@pytest.mark.parametrize(("fill", "mean", "variance"), VARIANCES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_initial_values_have_the_papers_moments(fill, mean, variance, dtype):
    t = tg.zeros(BIG, dtype=dtype)
    assert fill(t, 3) is t
    values = t.numpy()
    assert values.dtype == dtype
    sigma = math.sqrt(variance)
    assert abs(values.mean() - mean) < 6 * sigma / math.sqrt(values.size)
    assert abs(values.var() / variance - 1) < 0.03
    again = tg.zeros(BIG, dtype=dtype)
    fill(again, 3)
    np.testing.assert_array_equal(again.numpy(), values)
    fill(again, 4)
    assert not np.array_equal(again.numpy(), values)


def test_uniform_values_stay_within_their_bounds():
    for fill, bound in (
        (init.xavier_uniform, math.sqrt(6 / 500)),
        (init.kaiming_uniform, math.sqrt(6 / 200)),
    ):
        largest = abs(fill(tg.zeros(BIG, dtype="float64"), rng=0).numpy()).max()
        assert 0.999 * bound < largest <= bound


@given(SIZES, SIZES, st.lists(SIZES, max_size=1), SEEDS)
def test_orthogonal_rows_or_columns(rows, columns, more, seed):
    q = init.orthogonal(tg.zeros((rows, columns, *more), dtype="float64"), rng=seed).numpy()
    q = q.reshape(rows, -1)
    gram = q @ q.T if rows <= q.shape[1] else q.T @ q
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-12)


def test_orthogonal_is_uniform_and_not_biased_by_the_decomposition():
    first = [init.orthogonal(tg.zeros(2, 2), rng=i).numpy()[0, 0] for i in range(200)]
    assert 60 < sum(value > 0 for value in first) < 140


def test_fans_count_the_receptive_field():
    values = init.kaiming_normal(tg.zeros(200, 4, 5, 10, dtype="float64"), rng=0).numpy()
    assert abs(values.var() / (2 / 200) - 1) < 0.05


def test_constants():
    t = tg.tensor(np.arange(3.0))
    assert init.constant(t, 0.5) is t
    np.testing.assert_array_equal(t.numpy(), [0.5] * 3)
    np.testing.assert_array_equal(init.zeros(t).numpy(), [0.0] * 3)


@pytest.mark.parametrize("fill", [init.zeros, init.normal, init.orthogonal])
def test_filling_a_parameter_makes_a_pending_backward_raise(fill):
    w = tg.nn.Parameter(tg.ones(2, 2))
    loss = (w * w).sum()
    fill(w)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()
    assert w.requires_grad


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: init.uniform(tg.zeros(2), 1.0, 0.0), ArgumentError, "low .* above high"),
        (lambda: init.normal(tg.zeros(2), std=-1.0), ArgumentError, "std must not be negative"),
        (lambda: init.normal(tg.zeros(2, dtype="int64")), DTypeError, "must be floating, got int"),
        (lambda: init.xavier_normal(tg.zeros(2)), ShapeError, r"xavier_normal: .*got \(2,\)"),
        (lambda: init.orthogonal(tg.zeros(2)), ShapeError, "orthogonal"),
        (lambda: init.xavier_uniform(tg.zeros(0, 2)), ShapeError, r"got \(0, 2\)"),
        (lambda: init.kaiming_uniform(tg.zeros(2, 2), mode="in"), ArgumentError, "got 'in'"),
        (lambda: init.uniform(tg.zeros(2), rng="x"), ArgumentError, "rng"),
    ],
)
def test_init_refuses_what_makes_no_sense(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("rows", [1, 2, 7, 40])
def test_the_bias_of_a_linear_layer_is_added_to_the_whole_product(rows):
    """Not to its first terms, whose sum would be rounded as the bias is."""
    inputs, bias = 8192, 2.0**24
    x, w = tg.ones(rows, inputs), tg.full((2, inputs), 0.9 / 256)
    found = tg.functional.linear(x, w, tg.full((2,), bias)).numpy() - bias
    assert (found == 28).all()  # of 28.8: float32 has even numbers there


def test_a_linear_layer_of_very_many_inputs_is_accurate_with_its_bias():
    rng = np.random.default_rng(0)
    x, w = (rng.uniform(0.5, 1.5, (2, 2**20)).astype(np.float32) for _ in range(2))
    found = tg.functional.linear(tg.tensor(x), tg.tensor(w), tg.zeros(2)).numpy()
    np.testing.assert_allclose(found, x.astype(float) @ w.astype(float).T, rtol=3e-7)
