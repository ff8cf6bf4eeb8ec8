"""Long sums, half precision, infinite values: no error that grows with the number of elements.

The reference is the same function in float64, on the same numbers.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import functional as F
from tinygrad_rnn.engine.ops import kernels, scatter

INF = math.inf
Function = Callable[..., tg.Tensor]
LONG = {"float32": (50_000, 200_000), "float16": (66_000, 90_000)}
SEEDS = st.integers(0, 2**32 - 1)


Values = tuple[np.ndarray, list[np.ndarray]]


def evaluated(function: Function, arrays: Any, scale: float = 1.0, exact: bool = False) -> Values:
    """Return the result of a function and its gradients; `exact` ones are computed in float64.

    The gradient to start from varies from element to element, around `scale`.
    """
    dtype = np.float64 if exact else arrays[0].dtype
    tensors = [tg.tensor(a.astype(dtype, order="K"), requires_grad=True) for a in arrays]
    out = function(*tensors)
    u = scale * np.random.default_rng(1).uniform(0.5, 1.5, out.shape)
    grads = tg.grad(out, tensors, u.astype(arrays[0].dtype).astype(dtype))
    assert {out.dtype, *(g.dtype for g in grads)} == {np.dtype(dtype)}
    return out.numpy(), [g.numpy() for g in grads]


def assert_accurate(
    function: Function, arrays: Any, rtol: float, atol: float = 0.0, scale: float = 1.0
) -> None:
    """Compare with float64, relative to the largest element, as sums of one sign allow."""
    got, exact = (evaluated(function, arrays, scale, exact=exact) for exact in (False, True))
    for ours, theirs in zip([got[0], *got[1]], [exact[0], *exact[1]], strict=True):
        tolerance = rtol * np.abs(theirs).max(initial=0) + atol
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


# -- many elements ---------------------------------------------------------------------------------


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "every other": lambda x: np.repeat(x, 2, axis=0)[::2],
    "wider": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
}

# Of an array (n, m): whatever sums over its n rows, in the result or in a gradient.
SUMS: dict[str, Function] = {
    "sum": lambda x: x.sum(0),
    "sum, counted from the end": lambda x: x.sum(-2, keepdims=True),
    "sum of the transpose": lambda x: x.T.sum(1),
    "sum of all": lambda x: x.sum(),
    "sum of the middle": lambda x: x.reshape(1, *x.shape).sum(1),
    "sum of two axes": lambda x: x.reshape(-1, 1, x.shape[1]).sum((0, 1)),
    "sum of the outer axes": lambda x: x.reshape(x.shape[0], 1, -1).sum((0, 2)),
    "mean": lambda x: x.mean(0),
    "mean of all": lambda x: x.mean(),
    "var": lambda x: x.var(0),
    "std": lambda x: x.std(0, ddof=1),
    "max": lambda x: x.max(0),
    "logsumexp": lambda x: tg.logsumexp(x, 0),
    "softmax": lambda x: tg.softmax(x, 0) * 100.0,
    "log_softmax": lambda x: tg.log_softmax(x, 0),
    "einsum": lambda x: tg.einsum("ij->j", x),
    "einsum of squares": lambda x: tg.einsum("ij,ij->j", x, x),
    "einsum of an index apart": lambda x: tg.einsum("ij,k->jk", x * 0.01, x[0].detach()),
    "matmul of vectors": lambda x: x[:, 0] @ x[:, 0],
    "matmul": lambda x: x.T @ x,
    "tensordot": lambda x: tg.tensordot(x, x, ([0], [0])),
    "layer_norm": lambda x: F.layer_norm(x.T, x.shape[0]),
    "cross_entropy": lambda x: F.cross_entropy(x, [0] * x.shape[1], axis=0, label_smoothing=0.1),
    "mean of a loss": lambda x: F.mse_loss(x, x.detach() * 0.5),
}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", SUMS)
@settings(max_examples=4)
@given(data=st.data(), seed=SEEDS)
def test_sums_over_many_rows(name: str, dtype: str, data: Any, seed: int) -> None:
    n, m = data.draw(st.integers(*LONG[dtype])), data.draw(st.integers(1, 3))
    same = name not in ("var", "std", "layer_norm") and data.draw(st.booleans())
    x = np.full((n, m), 0.1) if same else np.random.default_rng(seed).uniform(0, 0.2, (n, m))
    x = LAYOUTS[data.draw(st.sampled_from(sorted(LAYOUTS)))](x.astype(dtype))
    # A gradient that is small in float16 has the precision of its smallest number.
    if dtype == "float32":
        assert_accurate(SUMS[name], [x], 3e-6)
    else:  # a probability is rounded, or its logarithm before the exponential is taken
        rtol = {"softmax": 0.01, "log_softmax": 0.02}.get(name, 4e-3)
        assert_accurate(SUMS[name], [x], rtol, 6e-8, scale=8.0)


TENTH = float(np.float16(0.1))  # the same number in every dtype
SHARED: dict[str, Function] = {
    "bias": lambda w, n: F.linear(
        tg.full((n, 2), TENTH, dtype=w.dtype), tg.ones(3, 2, dtype=w.dtype), w
    ),
    "weight": lambda w, n: F.linear(tg.full((n, 3), TENTH, dtype=w.dtype), w.reshape(1, 3)),
    "broadcast": lambda w, n: tg.broadcast_to(w, (n, 3)) * TENTH,
    "factor": lambda w, n: tg.full((n, 3), TENTH, dtype=w.dtype) * w,
    "number": lambda w, n: tg.full((n, 3), TENTH, dtype=w.dtype) * w[0],
    "rows read": lambda w, n: w.reshape(3, 1)[np.zeros(n, int)] * TENTH,
    "elements read": lambda w, n: w[np.ones(n, int)] * TENTH,
    "columns read": lambda w, n: w.reshape(1, 3)[:, np.ones(n, int)] * TENTH,
    "places read": lambda w, n: w.reshape(1, 3)[np.zeros(n, int), np.ones(n, int)] * TENTH,
    "taken": lambda w, n: tg.take(w, np.zeros(n, int)) * TENTH,
    "taken along": lambda w, n: tg.take_along_axis(w, np.zeros(n, int)) * TENTH,
    "embedding": lambda w, n: F.embedding(np.zeros(n, np.uint8), w.reshape(3, 1)) * TENTH,
    "fused": lambda w, n: tg.fuse(lambda x, w: x * w)(tg.full((n, 3), TENTH, dtype=w.dtype), w),
}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", SHARED)
@settings(max_examples=3)
@given(data=st.data())
def test_gradients_of_what_many_rows_share(name: str, dtype: str, data: Any) -> None:
    n = data.draw(st.integers(*LONG[dtype]))
    w = np.ones(3, dtype)
    assert_accurate(
        lambda w: SHARED[name](w, n), [w], 3e-6 if dtype == "float32" else 1e-3, scale=0.25
    )


def test_a_sum_over_five_million_rows():
    x = tg.full((5_000_000, 2), 0.1)
    np.testing.assert_allclose(x.sum(0).numpy(), 500_000.0, rtol=1e-6)


@settings(max_examples=3)
@given(n=st.integers(10**6, 2 * 10**6), axis=st.sampled_from([0, -1, None]))
def test_running_sums(n: int, axis: int | None) -> None:
    x = np.full((n, 1) if axis == 0 else (1, n), 0.1, np.float32)
    assert_accurate(lambda x: tg.cumsum(x, axis), [x], 1e-6)


@pytest.mark.parametrize(
    "left, right",
    [((2, 3), (1,)), ((3, 1), (3, 1)), ((1, 2), (3, 1)), ((2, 1, 1), (2, 2)), ((3, 2), (3, 2))],
)
def test_long_products_of_stacks_of_matrices(left, right):
    x = np.full((*left, 1_000_000), 0.1, np.float32)
    y = np.full((*right[:-1], 1_000_000, right[-1]), 0.1, np.float32)
    np.testing.assert_allclose((tg.tensor(x) @ tg.tensor(y)).numpy(), 10_000.0, rtol=1e-6)


@pytest.mark.parametrize("rows, columns", [(2, 2), (3, 5), (8, 8), (11, 11), (16, 16), (4, 64)])
@pytest.mark.parametrize("n", [1500, 4096, 8192, 20_000, 65_536, 300_000])
def test_long_products_of_small_matrices(rows, columns, n):
    x, y = np.full((rows, n), 0.1, np.float32), np.full((n, columns), 0.1, np.float32)
    np.testing.assert_allclose((tg.tensor(x) @ tg.tensor(y)).numpy(), n / 100, rtol=4e-6)


def test_running_sums_of_half_precision():
    x = np.full(3000, 0.1, np.float16)
    assert_accurate(tg.cumsum, [x], 1e-3)


def test_a_product_of_many():
    x = (1 + np.random.default_rng(0).normal(size=100_000) / 300).astype(np.float32)
    assert_accurate(tg.prod, [x], 1e-6)


@given(
    shape=st.tuples(st.integers(2, 40), st.integers(20, 2000)),
    offset=st.sampled_from([0.0, 1e3, 1e6, -1e7]),
    ddof=st.integers(0, 1),
    seed=SEEDS,
)
def test_the_variance_of_what_is_far_from_zero(shape, offset, ddof, seed):
    x = (offset + 3 * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)
    for axis in (1, None):
        for function in (tg.var, tg.std):

            def call(x: tg.Tensor, function: Function = function, axis: Any = axis) -> tg.Tensor:
                return function(x, axis=axis, ddof=ddof)

            assert_accurate(call, [x], 3e-6)


def test_gradients_of_the_variance_of_every_order():
    x = 50 + np.random.default_rng(0).normal(size=(3, 4))
    tg.gradcheck(lambda x: tg.var(x, axis=1, ddof=1), x)
    (hessian,) = np.asarray(tg.hessian(lambda x: tg.var(x), tg.tensor(x[0])).numpy())[None]
    np.testing.assert_allclose(hessian, (np.eye(4) - 0.25) / 2, atol=1e-12)


@pytest.mark.parametrize("ddof", [2, 3, 5])
@pytest.mark.parametrize("values", [[1.0, 2.0, 4.0], [1.0, 1.0, 1.0]])
def test_the_variance_of_too_few_elements_is_numpys(values, ddof):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for ours, theirs in ((tg.var, np.var), (tg.std, np.std)):
            expected = theirs(np.array(values), ddof=ddof)
            np.testing.assert_allclose(ours(tg.tensor(values), ddof=ddof).item(), expected, 1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_long_sums_are_as_good_as_pytorchs(dtype):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).uniform(0, 0.2, (70_000, 2)).astype(dtype)
    ours, theirs = tg.tensor(x), torch.tensor(x)
    pairs = [
        (ours.sum(0), theirs.sum(0)),
        (ours.mean(0), theirs.mean(0)),
        (ours.var(0), theirs.var(0, unbiased=False)),
        (tg.logsumexp(ours, 0), theirs.logsumexp(0)),
    ]
    for got, expected in pairs:
        rtol = 2e-6 if dtype == "float32" else 1e-3
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=rtol)


# -- half precision --------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [65_519, 65_520, 10**6])
def test_the_gradient_of_a_mean_in_half_precision(n):
    x = tg.ones(n, dtype="float16", requires_grad=True)
    (x.mean() * 1024.0).backward()
    np.testing.assert_allclose(x.grad.numpy().astype(float), 1024 / n, rtol=1e-3)


@pytest.mark.parametrize("function", [tg.max, tg.min])
def test_many_equal_extremes_in_half_precision(function):
    x = tg.ones(100_000, dtype="float16", requires_grad=True)
    (function(x) * 1000.0).backward()
    np.testing.assert_allclose(x.grad.numpy().astype(float), 0.01, rtol=1e-3)


@pytest.mark.parametrize("count", [5000, 70_000])
def test_a_mean_over_the_targets_that_count_in_half_precision(count):
    logits = np.tile(np.array([[1.0, -1.0]], np.float16), (2 * count, 1))
    target = np.arange(2 * count) % 2 - 1  # -1 every other time

    def loss(x: tg.Tensor) -> tg.Tensor:
        return F.cross_entropy(x, target, ignore_index=-1) * 512.0

    assert_accurate(loss, [logits], 4e-3)


def test_a_spread_that_half_precision_cannot_square():
    for size in (1e-4, 300.0):
        x = (np.random.default_rng(0).normal(size=(4, 50)) * size).astype(np.float16)
        call = lambda x: x.std(1)  # noqa: E731
        assert_accurate(call, [x], 2e-3)
        normal = lambda x: F.layer_norm(x, 50, eps=0.0)  # noqa: E731
        np.testing.assert_allclose(
            normal(tg.tensor(x)).numpy(), normal(tg.tensor(x.astype(float))).numpy(), atol=5e-3
        )
    assert tg.prod(tg.tensor([1024.0, 1024.0, 2**-10, 2**-10], dtype="float16")).item() == 1


@pytest.mark.parametrize("create_graph", [False, True])
def test_many_contributions_in_half_precision_add_up(create_graph):
    b = tg.zeros(2, dtype="float16", requires_grad=True)
    total = tg.stack([b * 0.1 for _ in range(3000)]).sum()
    (grad,) = tg.grad(total, [b], create_graph=create_graph)
    assert grad.dtype == np.float16
    np.testing.assert_allclose(grad.numpy().astype(float), 300, rtol=2e-3)


@pytest.mark.parametrize("key", [slice(0, 2), [0], [0, 2], 0])
def test_many_parts_in_half_precision_add_up(key):
    w = tg.zeros(4, 2, dtype="float16", requires_grad=True)
    (grad,) = tg.grad(tg.stack([w[key].sum() * 0.1 for _ in range(3000)]).sum(), [w])
    assert grad.dtype == np.float16
    np.testing.assert_allclose(grad.numpy()[0].astype(float), 300, rtol=2e-3)


def test_a_recurrent_network_of_half_precision_learns_from_a_mean():
    x = np.random.default_rng(0).normal(size=(200, 32, 8)).astype(np.float16)
    grads = []
    for dtype in ("float16", "float64"):
        layer = tg.nn.GRU(8, 16, dtype=dtype, rng=0)
        outputs, _ = layer(tg.tensor(x.astype(dtype)))
        (outputs.mean() * 128.0).backward()
        grads.append([p.grad.numpy().astype(float) for p in layer.parameters()])
    for half, exact in zip(*grads, strict=True):
        np.testing.assert_allclose(half, exact, atol=0.02 * np.abs(exact).max())


def test_the_norm_of_many_gradients_of_half_precision():
    p = tg.zeros(40_000, dtype="float16", requires_grad=True)
    p.grad = tg.full((40_000,), 2000.0, dtype="float16")
    assert tg.optim.clip_grad_norm([p], 1e-3).item() == 400_000
    np.testing.assert_allclose(p.grad.numpy().astype(float), 5e-6, rtol=0.01)


# -- huge and infinite -----------------------------------------------------------------------------


def two_orders(function: Function, *arrays: np.ndarray) -> list[np.ndarray]:
    """Return the gradients, and those of their sum weighed by 1, 2, ..., as arrays."""
    tensors = [tg.tensor(a, requires_grad=True) for a in arrays]
    out = function(*tensors)
    first = tg.grad(out, tensors, np.ones(out.shape, out.dtype), create_graph=True)
    weighed = [
        (g * np.arange(1, g.size + 1).reshape(g.shape) * k).sum() for k, g in enumerate(first, 1)
    ]
    second = tg.grad(sum(weighed[1:], start=weighed[0]), tensors)
    return [g.numpy() for g in (*first, *second)]


HUGE = {"float16": 3e4, "float32": 1e8, "float64": 1e17}


@pytest.mark.parametrize("dtype", HUGE)
@given(shift=st.sampled_from([0.0, 1.0, -1.0]), d=st.sampled_from([0.0, 0.5, -2.0, 40.0]))
def test_the_gradient_of_logaddexp_depends_on_the_difference_alone(dtype, shift, d):
    offset = np.asarray(shift * HUGE[dtype], dtype)
    x = offset + np.zeros(1, dtype)
    y = (offset + np.asarray(d, dtype)).reshape(1)
    exact = float(x[0]) - float(y[0])
    with np.errstate(under="ignore"):
        p = 1 / (1 + math.exp(-exact)) if exact > -700 else 0.0
    curvature = p * (1 - p)
    tolerance = 2e-3 if dtype == "float16" else 1e-6
    gx, gy, hx, hy = two_orders(tg.logaddexp, x, y)
    np.testing.assert_allclose([gx[0], gy[0]], [p, 1 - p], atol=tolerance)
    np.testing.assert_allclose([hx[0], hy[0]], [-curvature, curvature], atol=tolerance)
    g, h = two_orders(lambda z: tg.logsumexp(z), np.concatenate([x, y]))
    np.testing.assert_allclose(g, [p, 1 - p], atol=tolerance)
    np.testing.assert_allclose(h, [-curvature, curvature], atol=tolerance)


@pytest.mark.parametrize("dtype", HUGE)
@pytest.mark.parametrize(
    "x, y, share",
    [(1, INF, 0), (INF, 1, 1), (-INF, 1, 0), (-INF, INF, 0), (INF, INF, 0.5), (-INF, -INF, 0.5)],
)
def test_an_infinite_argument_of_logaddexp(dtype, x, y, share):
    a, b = np.array([x], dtype), np.array([y], dtype)
    for function in (tg.logaddexp, tg.fuse(lambda x, y: tg.logaddexp(x, y))):
        assert function(tg.tensor(a), tg.tensor(b)).item() == max(x, y)
        found = two_orders(function, a, b)
        assert [g.item() for g in found] == [share, 1 - share, 0, 0]
    for keepdims in (False, True):
        g, h = two_orders(lambda z: tg.logsumexp(z, 0, keepdims=keepdims), np.array([a, b]))  # noqa: B023
        assert g.ravel().tolist() == [share, 1 - share] and not h.any()


@given(
    rows=st.lists(
        st.lists(st.sampled_from([0.0, 1.0, -2.0, INF, -INF]), min_size=3, max_size=3),
        min_size=1,
        max_size=4,
    )
)
def test_the_gradient_of_logsumexp_is_a_distribution(rows):
    """Of any infinities, without a warning: the largest elements share it."""
    x = np.array(rows)
    g, h = two_orders(lambda x: tg.logsumexp(x, axis=1), x)
    np.testing.assert_allclose(g.sum(1), 1)
    np.testing.assert_allclose(h.sum(1), 0, atol=1e-14)
    top = x.max(1, keepdims=True)
    infinite = np.isinf(top[:, 0])
    hits = x == top
    np.testing.assert_array_equal(g[infinite], (hits / hits.sum(1, keepdims=True))[infinite])


@pytest.mark.oracle
def test_softmax_and_its_kin_of_masked_logits_are_pytorchs():
    torch = pytest.importorskip("torch")
    x = np.array([[1e8, -INF, 1e8], [-INF, 0.5, -INF], [1e4, -1e4, 0.0]], np.float32)
    u = np.array([[1.0, 2.0, 3.0]], np.float32) * np.ones((3, 1), np.float32)
    for name, ours in (("softmax", tg.softmax), ("log_softmax", tg.log_softmax)):
        a, b = tg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        out, theirs = ours(a, axis=1), getattr(torch, name)(b, 1)
        np.testing.assert_allclose(out.numpy(), theirs.detach().numpy(), rtol=1e-6)
        out.backward(u)
        theirs.backward(torch.tensor(u))
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-6)
    a, b = tg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    loss = F.cross_entropy(a, [0, 1, 0])
    theirs = torch.nn.functional.cross_entropy(b, torch.tensor([0, 1, 0]))
    loss.backward()
    theirs.backward()
    np.testing.assert_allclose(loss.item(), theirs.item(), rtol=1e-6)
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-7)


@pytest.mark.parametrize("function, sign", [(tg.max, 1.0), (tg.min, -1.0)])
@given(
    values=st.lists(st.sampled_from([0.0, -1.0, -2.0]), min_size=1, max_size=5).filter(
        lambda v: 0.0 in v
    )
)
def test_an_infinite_gradient_of_an_extreme_goes_where_the_extreme_is(function, sign, values):
    x = tg.tensor(np.array(values) * sign, requires_grad=True)
    with np.errstate(divide="ignore"):
        (first,) = tg.grad(tg.sqrt(function(x) * sign), [x], create_graph=True)
        (second,) = tg.grad(first.sum(), [x])
    hits = np.array(values) == 0
    np.testing.assert_array_equal(first.numpy(), np.where(hits, sign * INF, 0))
    assert not second.numpy()[~hits].any()


def test_the_gradient_of_an_extreme_that_is_nan_goes_to_the_nan():
    x = tg.tensor([1.0, math.nan, 2.0], requires_grad=True)
    tg.max(x).backward()
    assert x.grad.numpy().tolist() == [0, 1, 0]


# -- indices of every integer dtype ----------------------------------------------------------------


READS: dict[str, Callable[[tg.Tensor, Any], tg.Tensor]] = {
    "rows": lambda x, k: x[k],
    "rows by a Tensor": lambda x, k: x[tg.tensor(k)],
    "a list of them": lambda x, k: x[k.reshape(2, -1)],
    "places": lambda x, k: x[k, k % 3],
    "a place": lambda x, k: x[k[0]],
    "columns": lambda x, k: x.T[:, k],
    "elements": lambda x, k: x.reshape(-1)[k],
    "take": lambda x, k: tg.take(x, k, axis=0),
    "take along": lambda x, k: tg.take_along_axis(x, k[:, None].repeat(3, 1), axis=0),
    "scatter": lambda x, k: scatter(x[: len(k)], keys=((k,),), shape=x.shape),
    "embedding": lambda x, k: F.embedding(np.abs(k), x),
    "one_hot": lambda x, k: F.one_hot(np.abs(k), len(x)).astype(x.dtype) @ x,
    "cross_entropy": lambda x, k: (
        F.cross_entropy(x[: len(k)].T[:4].T @ np.ones((4, len(x))), k)
        if x.shape[1] > 3
        else F.cross_entropy(x.T[:1, :] * np.ones((len(k), 1)), np.abs(k), ignore_index=1)
    ),
}


@pytest.mark.parametrize("dtype", "int8 uint8 int16 uint16 int32 uint32 int64 uint64".split())
@pytest.mark.parametrize("name", READS)
@settings(max_examples=5)
@given(data=st.data(), seed=SEEDS)
def test_indices_of_every_dtype(name: str, dtype: str, data: Any, seed: int) -> None:
    """As many rows as the dtype can count, one more than its largest number."""
    rows = min(np.iinfo(dtype).max, 40_000) + 1
    low = (
        -rows
        if np.dtype(dtype).kind == "i" and name not in ("embedding", "one_hot", "cross_entropy")
        else 0
    )
    low = max(low, np.iinfo(dtype).min)
    ids = data.draw(
        st.lists(st.integers(low, rows - 1), min_size=4, max_size=6).filter(
            lambda v: len(v) % 2 == 0
        )
    )
    x = np.random.default_rng(seed).normal(size=(rows, 3))
    short = evaluated(lambda x: READS[name](x, np.array(ids, dtype)), [x])
    plain = evaluated(lambda x: READS[name](x, np.array(ids, np.int64)), [x])
    np.testing.assert_array_equal(short[0], plain[0])
    np.testing.assert_array_equal(short[1][0], plain[1][0])


def test_a_text_of_bytes_trains_an_embedding():
    table = tg.nn.Embedding(256, 4)
    table(np.frombuffer(b"a text\xff", np.uint8)).sum().backward()
    assert table.weight.grad.numpy().sum() == 28
    assert (table.weight.grad.numpy()[[97, 255, 116]] == [[1], [1], [2]]).all()


# -- the mechanism ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@settings(max_examples=30)
@given(data=st.data(), seed=SEEDS)
def test_products_of_any_length_in_any_order_of_memory(dtype, data, seed):
    n = data.draw(st.sampled_from([1, 127, 128, 1024, 1025, 1151, 1152, 3000]))
    p, m = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(p, n)).astype(dtype), rng.normal(size=(n, m)).astype(dtype)
    order = {"rows": lambda a: a, "columns": np.asfortranarray, "backwards": lambda a: a[:, ::-1]}
    x, y = (order[data.draw(st.sampled_from(sorted(order)))](a) for a in (x, y))
    exact = x.astype(float) @ y.astype(float)
    bound = np.abs(x.astype(float)) @ np.abs(y.astype(float))
    eps = np.finfo(dtype).eps
    assert (np.abs(kernels.gemm(x, y) - exact) <= 4 * eps * bound + eps * np.abs(exact)).all()


def test_long_products_of_matrices_are_made_of_blocks():
    x = np.full((2, 150_000), 0.1, np.float32)
    exact = x.astype(float) @ x.T.astype(float)
    np.testing.assert_allclose(kernels.gemm(x, x.T), exact, rtol=2e-6)
