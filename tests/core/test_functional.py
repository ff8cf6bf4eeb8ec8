"""Losses and other composed mathematics, against NumPy in double precision and PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_rnn as tg
from tinygrad_rnn import functional as F
from tinygrad_rnn.errors import ArgumentError, DTypeError, ShapeError

SEEDS = st.integers(0, 2**32)
REDUCTIONS = st.sampled_from(["mean", "sum", "none"])
VALUES = st.floats(-50, 50)


def reduced(losses, reduction):
    return {"mean": np.mean, "sum": np.sum, "none": np.asarray}[reduction](losses)


@st.composite
def classified(draw):
    """Logits, targets and the axis of the classes."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    rng = np.random.default_rng(draw(SEEDS))
    logits = rng.normal(size=shape) * draw(st.sampled_from([0.1, 1.0, 30.0]))
    others = [n for i, n in enumerate(shape) if i != axis % len(shape)]
    return logits, rng.integers(0, shape[axis], others), axis


# -- cross-entropy ---------------------------------------------------------------------------------


@given(classified(), REDUCTIONS, st.floats(0, 1))
def test_cross_entropy_is_its_definition(case, reduction, smoothing):
    logits, target, axis = case
    shifted = np.moveaxis(logits, axis, -1)
    shifted = shifted - shifted.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    hot = np.eye(log_p.shape[-1])[target]
    wanted = (1 - smoothing) * hot + smoothing / log_p.shape[-1]
    expected = reduced(-(wanted * log_p).sum(-1), reduction)
    loss = F.cross_entropy(
        tg.tensor(logits), target, axis=axis, reduction=reduction, label_smoothing=smoothing
    )
    assert loss.shape == expected.shape
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-9, atol=1e-9)


@given(classified(), REDUCTIONS, st.floats(0, 1), st.booleans(), SEEDS)
def test_derivatives_of_cross_entropy_equal_differences(case, reduction, smoothing, ignore, seed):
    logits, target, axis = case
    ignored = target.flat[0] if ignore and not (target == target.flat[0]).all() else None
    tg.gradcheck(
        lambda x: F.cross_entropy(x, target, axis, reduction, ignored, smoothing),
        logits % 3,
        order=2,
        rng=seed,
    )


@pytest.mark.oracle
@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=4),
    REDUCTIONS,
    st.sampled_from([0.0, 0.1]),
    st.sampled_from([None, -100, 0, 1]),
    SEEDS,
)
def test_cross_entropy_and_its_gradient_equal_pytorchs(shape, reduction, smoothing, ignored, seed):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    value = rng.normal(size=shape)
    target = rng.integers(0, shape[1], [shape[0], *shape[2:]])
    if ignored is not None:
        target = np.where(rng.random(target.shape) < 0.3, ignored, target)
    assume(reduction != "mean" or (target != ignored).any())
    assume(ignored is not None or target.max() < shape[1])
    assume(np.where(target == ignored, 0, target).max() < shape[1])
    x, x_peer = tg.tensor(value, requires_grad=True), torch.tensor(value, requires_grad=True)
    loss = F.cross_entropy(x, target, 1, reduction, ignored, smoothing)
    peer = torch.nn.functional.cross_entropy(
        x_peer,
        torch.tensor(target),
        reduction=reduction,
        ignore_index=-12345 if ignored is None else ignored,
        label_smoothing=smoothing,
    )
    np.testing.assert_allclose(loss.numpy(), peer.detach().numpy(), rtol=1e-12, atol=1e-12)
    loss.sum().backward()
    peer.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), x_peer.grad.numpy(), rtol=1e-12, atol=1e-12)


CLASS_WEIGHTS = st.sampled_from([0.0, 0.5, 1.0, 3.0])


@pytest.mark.oracle
@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=4),
    REDUCTIONS,
    st.sampled_from([0.0, 0.1]),
    st.booleans(),
    st.data(),
    SEEDS,
)
def test_class_weights_equal_pytorchs(shape, reduction, smoothing, ignore, data, seed):
    torch = pytest.importorskip("torch")
    weight = np.array(data.draw(st.lists(CLASS_WEIGHTS, min_size=shape[1], max_size=shape[1])))
    rng = np.random.default_rng(seed)
    value, target = rng.normal(size=shape), rng.integers(0, shape[1], [shape[0], *shape[2:]])
    drop = (rng.random(target.shape) < 0.3) & ignore
    masked = np.where(drop, -1, target)
    x, x_peer = tg.tensor(value, requires_grad=True), torch.tensor(value, requires_grad=True)

    def ours():
        ignored = -1 if ignore else None
        return F.cross_entropy(x, masked, 1, reduction, ignored, smoothing, weight)

    if reduction == "mean" and not (weight[target] * ~drop).any():
        with pytest.raises(ArgumentError, match="or has the weight 0, so the mean"):
            ours()
        return
    loss = ours()
    peer = torch.nn.functional.cross_entropy(
        x_peer,
        torch.tensor(masked),
        reduction=reduction,
        ignore_index=-1,
        label_smoothing=smoothing,
        weight=torch.tensor(weight),
    )
    np.testing.assert_allclose(loss.numpy(), peer.detach().numpy(), rtol=1e-12, atol=1e-12)
    loss.sum().backward()
    peer.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), x_peer.grad.numpy(), rtol=1e-12, atol=1e-12)


@given(classified(), REDUCTIONS, st.floats(0, 1), SEEDS)
def test_derivatives_of_the_weighted_cross_entropy_equal_differences(case, reduction, smooth, seed):
    logits, target, axis = case
    weight = np.random.default_rng(seed).uniform(0.1, 2, logits.shape[axis])
    tg.gradcheck(
        lambda x: F.cross_entropy(x, target, axis, reduction, None, smooth, weight),
        logits % 3,
        order=2,
        rng=seed,
    )


@given(classified(), REDUCTIONS, st.floats(0, 1))
def test_equal_class_weights_change_nothing_in_the_mean(case, reduction, smoothing):
    logits, target, axis = case
    plain = F.cross_entropy(logits, target, axis, reduction, None, smoothing)
    weight = tg.full(logits.shape[axis], 2.0)
    loss = F.cross_entropy(logits, target, axis, reduction, None, smoothing, weight)
    factor = 1.0 if reduction == "mean" else 2.0
    np.testing.assert_allclose(loss.numpy(), factor * plain.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_class_weights_keep_the_dtype_of_the_logits(dtype):
    logits = tg.zeros(70_000, 2, dtype=dtype, requires_grad=True)
    loss = F.cross_entropy(logits, np.zeros(70_000, int), weight=[2, 5])
    assert (loss.dtype, loss.item()) == (np.dtype(dtype), pytest.approx(math.log(2), rel=1e-3))
    loss.backward()
    assert logits.grad.dtype == np.dtype(dtype)


@given(classified(), SEEDS)
def test_ignored_positions_count_neither_in_the_loss_nor_in_the_mean(case, seed):
    logits, target, axis = case
    drop = np.random.default_rng(seed).random(target.shape) < 0.5
    masked = np.where(drop, -1, target)
    x = tg.tensor(logits, requires_grad=True)
    every = F.cross_entropy(x, target, axis, "none").numpy()
    losses = F.cross_entropy(x, masked, axis, "none", ignore_index=-1)
    np.testing.assert_array_equal(losses.numpy(), np.where(drop, 0.0, every))
    if drop.all():
        with pytest.raises(ArgumentError, match="every target is ignored"):
            F.cross_entropy(x, masked, axis, ignore_index=-1)
        return
    mean = F.cross_entropy(x, masked, axis, ignore_index=-1)
    np.testing.assert_allclose(mean.item(), every[~drop].mean(), rtol=1e-9, atol=1e-12)
    mean.backward()
    moved = np.moveaxis(x.grad.numpy(), axis, -1)
    assert not moved[drop].any()


def test_an_ignored_position_with_an_infinite_loss_leaves_no_nan():
    x = tg.tensor(np.array([[-np.inf, 0.0], [0.0, 0.0]]), requires_grad=True)
    loss = F.cross_entropy(x, [-1, 0], ignore_index=-1)
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    np.testing.assert_allclose(x.grad.numpy(), [[0.0, 0.0], [-0.5, 0.5]])


@given(st.integers(1, 6), st.floats(100, 1e30))
def test_cross_entropy_of_huge_logits_is_finite_and_right(classes, size):
    assume(classes > 1)
    logits = np.zeros((2, classes), np.float32)
    logits[:, 0] = size
    loss = F.cross_entropy(tg.tensor(logits), [0, 1], reduction="none").numpy()
    assert loss[0] == 0.0
    np.testing.assert_allclose(loss[1], np.float32(size), rtol=1e-6)


def test_cross_entropy_keeps_the_dtype_and_takes_every_kind_of_integer():
    logits = tg.zeros(5, 3, dtype="float32")
    for dtype in ("int8", "uint8", "int32", "int64"):
        loss = F.cross_entropy(logits, tg.tensor(np.arange(5, dtype=dtype) % 3))
        assert loss.dtype == np.float32
        assert loss.item() == pytest.approx(math.log(3), rel=1e-6)


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        (np.zeros((4, 3), int), {}, ShapeError, r"\(4, 5, 3\).*\(4, 3\).*pass axis=1"),
        (np.zeros((4, 5, 3)), {}, DTypeError, "cross_entropy: .*integers.*float64"),
        (np.zeros((4, 1), int), {}, ShapeError, r"a target of \(4, 5\), got \(4, 1\)$"),
        (np.zeros((4, 5)), {"ignore_index": 0}, DTypeError, "cross_entropy: .*integers.*float64"),
        (np.full((4, 5), 3), {}, ArgumentError, r"cross_entropy: id 3 is outside \[0, 3\)"),
        (np.full((4, 5), -1), {}, ArgumentError, r"cross_entropy: id -1 is outside \[0, 3\)"),
        (np.full((4, 5), -1), {"ignore_index": -2}, ArgumentError, "id -1 is outside"),
        (np.zeros((4, 5), int), {"axis": 3}, ShapeError, "axis 3"),
        (np.zeros((4, 5), int), {"reduction": "avg"}, ArgumentError, "'sum' or 'none', got 'avg'"),
        (np.zeros((4, 5), int), {"label_smoothing": 1.5}, ArgumentError, "label_smoothing"),
        (
            np.zeros((4, 5), int),
            {"reduction": "avg", "ignore_index": 1},
            ArgumentError,
            "got 'avg'",
        ),
    ],
)
def test_cross_entropy_refuses_what_does_not_fit(target, options, error, message):
    with pytest.raises(error, match=message):
        F.cross_entropy(tg.zeros(4, 5, 3), target, **options)


def test_cross_entropy_refuses_the_mean_of_an_empty_batch():
    logits, target = tg.zeros(0, 3), np.zeros(0, int)
    with pytest.raises(ArgumentError, match="batch is empty"):
        F.cross_entropy(logits, target)
    assert F.cross_entropy(logits, target, reduction="sum").item() == 0.0


# -- other losses ----------------------------------------------------------------------------------


@given(hnp.array_shapes(max_dims=3), REDUCTIONS, SEEDS)
def test_mse_loss_is_its_definition(shape, reduction, seed):
    a, b = np.random.default_rng(seed).normal(size=(2, *shape))
    x, y = tg.tensor(a, requires_grad=True), tg.tensor(b, requires_grad=True)
    loss = F.mse_loss(x, y, reduction)
    np.testing.assert_allclose(loss.numpy(), reduced((a - b) ** 2, reduction), rtol=1e-12)
    loss.sum().backward()
    scale = a.size if reduction == "mean" else 1
    np.testing.assert_allclose(x.grad.numpy(), 2 * (a - b) / scale, rtol=1e-12)
    np.testing.assert_allclose(y.grad.numpy(), -2 * (a - b) / scale, rtol=1e-12)


@given(st.lists(VALUES, min_size=1, max_size=5), REDUCTIONS, SEEDS)
def test_binary_cross_entropy_is_its_definition(logits, reduction, seed):
    x = np.array(logits)
    y = np.random.default_rng(seed).choice([0.0, 0.25, 1.0], x.shape)
    expected = y * np.logaddexp(0, -x) + (1 - y) * np.logaddexp(0, x)
    t = tg.tensor(x, requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(t, y, reduction)
    np.testing.assert_allclose(loss.numpy(), reduced(expected, reduction), rtol=1e-12)
    loss.sum().backward()
    gradient = (1 / (1 + np.exp(-x)) - y) / (x.size if reduction == "mean" else 1)
    np.testing.assert_allclose(t.grad.numpy(), gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.oracle
@given(hnp.array_shapes(min_dims=0, max_dims=3, max_side=3), REDUCTIONS, st.data(), SEEDS)
def test_positive_weights_equal_pytorchs(shape, reduction, data, seed):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    value, y = rng.normal(size=shape) * 9, rng.choice([0.0, 0.25, 1.0], shape)
    end = shape[data.draw(st.integers(0, len(shape))) :]
    weight = rng.choice([0.0, 0.5, 3.0], [n if rng.random() < 0.7 else 1 for n in end])
    x, x_peer = tg.tensor(value, requires_grad=True), torch.tensor(value, requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(x, y, reduction, pos_weight=weight)
    peer = torch.nn.functional.binary_cross_entropy_with_logits(
        x_peer, torch.tensor(y), reduction=reduction, pos_weight=torch.tensor(weight)
    )
    np.testing.assert_allclose(loss.numpy(), peer.detach().numpy(), rtol=1e-9, atol=1e-12)
    loss.sum().backward()
    peer.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), x_peer.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_binary_cross_entropy_stays_exact_where_the_model_is_sure():
    x = tg.tensor(np.array([40.0, -40.0, 1e4, -1e4]))
    loss = F.binary_cross_entropy_with_logits(x, [True, False, True, False], "none").numpy()
    np.testing.assert_allclose(loss, [math.exp(-40), math.exp(-40), 0, 0], rtol=1e-12)
    wrong = F.binary_cross_entropy_with_logits(x, [0, 1, 0, 1], "none").numpy()
    np.testing.assert_allclose(wrong, [40, 40, 1e4, 1e4])


@pytest.mark.parametrize("loss", [F.mse_loss, F.binary_cross_entropy_with_logits])
def test_elementwise_losses_refuse_to_broadcast(loss):
    with pytest.raises(ShapeError, match=r"\(3, 1\) and target \(3,\) differ"):
        loss(tg.zeros(3, 1), tg.zeros(3))
    with pytest.raises(ArgumentError, match="got 'average'"):
        loss(tg.zeros(3), tg.zeros(3), "average")
    with pytest.raises(ArgumentError, match="batch is empty"):
        loss(tg.zeros(0), tg.zeros(0))
    assert loss(tg.zeros(3, dtype="float32"), [0, 1, 0]).dtype == np.float32
    assert loss(tg.zeros(3, dtype="float32"), [0.0, 1.0, 0.5]).dtype == np.float32


@given(classified())
def test_softmax_and_log_softmax_belong_together(case):
    logits, _, axis = case
    p, log_p = F.softmax(tg.tensor(logits), axis=axis), F.log_softmax(tg.tensor(logits), axis=axis)
    np.testing.assert_allclose(np.exp(log_p.numpy()), p.numpy(), rtol=1e-9)
    np.testing.assert_allclose(p.numpy().sum(axis), 1.0, rtol=1e-12)


# -- one-hot ---------------------------------------------------------------------------------------


@given(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0), st.integers(1, 6), SEEDS)
def test_one_hot_rows_are_unit_vectors(shape, classes, seed):
    ids = np.random.default_rng(seed).integers(0, classes, shape)
    hot = F.one_hot(tg.tensor(ids), classes).numpy()
    assert hot.dtype == tg.get_default_dtype()
    np.testing.assert_array_equal(hot, np.eye(classes, dtype=hot.dtype)[ids])
    np.testing.assert_array_equal(hot.argmax(-1), ids)
    assert F.one_hot(ids, classes, dtype="float64").dtype == np.float64


def test_one_hot_refuses_other_ids():
    with pytest.raises(ArgumentError, match=r"one_hot: id 3 is outside \[0, 3\)"):
        F.one_hot([0, 3], 3)
    with pytest.raises(DTypeError, match="one_hot: ids must be integers"):
        F.one_hot([0.5], 3)


# -- perplexity ------------------------------------------------------------------------------------


@given(st.floats(0, 700))
def test_perplexity_is_exp(nats):
    assert F.perplexity(nats) == math.exp(nats)
    assert F.perplexity(tg.tensor(nats, dtype="float64")) == math.exp(nats)


def test_perplexity_at_the_ends():
    assert F.perplexity(0.0) == 1.0
    assert F.perplexity(1e6) == math.inf
    assert F.perplexity(math.inf) == math.inf
    assert math.isnan(F.perplexity(math.nan))


# -- dropout (its statistics are tested on the layer) ----------------------------------------------


@given(SEEDS)
def test_dropout_with_a_seed_draws_the_same_mask_again(seed):
    x = tg.ones(50)
    first, again = (F.dropout(x, 0.5, rng=seed).numpy() for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_dropout_refuses_what_is_no_probability(p):
    with pytest.raises(ArgumentError, match="Dropout: p must be in"):
        F.dropout(tg.ones(2), p)
