"""The parts of a training step in C: NumPy's versions are their oracle."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import functional as F
from tinygrad_rnn.engine.backend import module_of
from tinygrad_rnn.engine.ops import kernels
from tinygrad_rnn.nn import Parameter
from tinygrad_rnn.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop, clip_grad_norm

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler is installed"
)

SEEDS = st.integers(0, 2**32)
DTYPES = st.sampled_from(["float32", "float64"])
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}  # relative to the largest number
SHAPES = [(), (3,), (20, 7), (0,), (90, 100)]


@pytest.fixture(scope="module", autouse=True)
def in_c():
    before = tg.fuse.backend()
    tg.fuse.backend("c")
    yield
    tg.fuse.backend(before)


class Recorded:
    """Functions that record whether they have computed the result in C."""

    def __init__(self, patch):
        self.done = []
        for name in ("add_rows", "clip_gradients", "cross_entropy", "update_parameters"):
            function = kernels.faster[name]
            patch.setitem(kernels.faster, name, self.recording(name, function))

    def recording(self, name, function):
        def call(*args):
            found = function(*args)
            self.done.append((name, found is not NotImplemented))
            return found

        return call


@pytest.fixture
def recorded(monkeypatch):
    return Recorded(monkeypatch)


def on_numpy(function, *args):
    """Call a function without the functions in C."""
    held = dict(kernels.faster)
    kernels.faster.clear()
    try:
        return function(*args)
    finally:
        kernels.faster.update(held)


def assert_close(ours, expected, dtype):
    assert (ours.shape, ours.dtype) == (expected.shape, expected.dtype)
    finite = np.abs(expected[np.isfinite(expected)])
    most = finite.max() if finite.size else 1.0
    tolerance = TOLERANCE[str(np.dtype(dtype))]
    np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance * most)


def threads(monkeypatch, count):
    from tinygrad_rnn.speed import threads as module

    monkeypatch.setattr(module, "limit", lambda: count)


# -- updates ---------------------------------------------------------------------------------------

decay, momentum = st.sampled_from([0.0, 0.1]), st.sampled_from([0.0, 0.9])
adam = st.fixed_dictionaries(
    {
        "betas": st.tuples(st.floats(0, 0.99), st.floats(0, 0.9999)),
        "eps": st.sampled_from([1e-8, 0.1]),
        "weight_decay": decay,
    }
)
RULES = {
    SGD: st.fixed_dictionaries(
        {"momentum": momentum, "weight_decay": st.floats(0, 1)},
        optional={"nesterov": st.booleans()},
    ).filter(lambda o: o["momentum"] or not o.get("nesterov")),
    Adam: adam,
    AdamW: adam,
    RMSprop: st.fixed_dictionaries(
        {"alpha": st.floats(0, 0.99), "weight_decay": decay, "momentum": momentum}
    ),
    Adagrad: st.fixed_dictionaries({"weight_decay": decay, "eps": st.sampled_from([1e-8, 0.1])}),
}
rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)


def parameters(rng, dtype):
    params = [Parameter(rng.normal(size=shape).astype(dtype)) for shape in SHAPES]
    turned = Parameter(rng.normal(size=(6, 5)).astype(dtype))
    turned._rebind(np.asfortranarray(turned._data))
    return [*params, turned]


@rules
@given(data=st.data(), seed=SEEDS, dtype=DTYPES)
def test_updates_of_groups_equal_numpys(rule, data, seed, dtype):
    rng = np.random.default_rng(seed)
    ours = parameters(rng, dtype)
    theirs = copy.deepcopy(ours)
    own = {**data.draw(RULES[rule]), "lr": data.draw(st.sampled_from([0.0, 0.01, 0.5]))}
    optimizers = [
        rule([{"params": params[:3]}, {"params": params[3:], **own}], lr=0.1)
        for params in (ours, theirs)
    ]
    with pytest.MonkeyPatch.context() as patch:
        record = Recorded(patch)
        for _ in range(3):
            for p, q in zip(ours, theirs, strict=True):
                grad = rng.normal(size=p.shape).astype(dtype)
                grad = np.asarray(grad, order="F" if p._data.flags.f_contiguous else "C")
                p.grad = q.grad = tg.tensor(grad)
            optimizers[0].step()
            on_numpy(optimizers[1].step)
        some = [done for _, done in record.done]
    assert some == [True] * 6  # one call for each group
    for p, q in zip(ours, theirs, strict=True):
        assert_close(p.numpy(), q.numpy(), dtype)


@rules
@given(data=st.data(), seed=SEEDS, dtype=DTYPES)
def test_updates_equal_numpys(rule, data, seed, dtype):
    options, lr = data.draw(RULES[rule]), data.draw(st.sampled_from([0.01, 0.5]))
    rng = np.random.default_rng(seed)
    ours = parameters(rng, dtype)
    theirs = copy.deepcopy(ours)
    optimizers = [rule(params, lr=lr, **options) for params in (ours, theirs)]
    with pytest.MonkeyPatch.context() as patch:
        record = Recorded(patch)
        for step in range(4):
            for p, q in zip(ours, theirs, strict=True):
                missing = rng.random() < 0.2
                grad = rng.normal(size=p.shape).astype(dtype)
                grad = np.asarray(grad, order="F" if p._data.flags.f_contiguous else "C")
                p.grad = q.grad = None if missing else tg.tensor(grad)
            frozen = rng.integers(len(ours))
            ours[frozen].requires_grad = theirs[frozen].requires_grad = step != 1
            if step == 2:
                optimizers[0].lr = optimizers[1].lr = 0.1
            optimizers[0].step()
            on_numpy(optimizers[1].step)
        some = [done for _, done in record.done]
    assert some
    assert all(some)
    states = [optimizer.state_dict()["slots"] for optimizer in optimizers]
    for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
        pairs = [(p.numpy(), q.numpy()), *((states[0][i][k], x) for k, x in states[1][i].items())]
        for x, y in pairs:
            if rule in (Adam, AdamW):  # a power of NumPy's may have another last bit
                assert_close(x, y, x.dtype)
            else:
                np.testing.assert_array_equal(x, y)


@rules
def test_updates_do_not_depend_on_threads_or_nan(rule, monkeypatch):
    rng = np.random.default_rng(0)
    start = [rng.normal(size=n).astype("f4") for n in (70_000, 5, 33_333)]
    grads = [rng.normal(size=x.shape).astype("f4") for x in start]
    grads[0][7], grads[0][9] = np.nan, np.inf
    found = []
    for count in (1, 2, 5):
        threads(monkeypatch, count)
        params = [Parameter(x) for x in start]
        optimizer = rule(params) if rule is not SGD else SGD(params, 0.1, momentum=0.9)
        for _ in range(2):
            for p, g in zip(params, grads, strict=True):
                p.grad = tg.tensor(g)
            optimizer.step()
        found.append([p.numpy() for p in params])
    for x, y, z in zip(*found, strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(x, z)
        assert np.isnan(x).sum() <= 2


def test_parameters_that_share_memory_are_updated_one_after_the_other(monkeypatch, recorded):
    threads(monkeypatch, 4)
    results = []
    for run in (lambda f: f(), on_numpy):
        data = np.ones(200_000, "f4")
        first, second = Parameter(data[:1]), Parameter(data[:1])
        first._rebind(data[:150_000])
        second._rebind(data[50_000:])
        for p in (first, second):
            p.grad = tg.tensor(np.arange(150_000, dtype="f4"))
        optimizer = SGD([first, second], lr=0.1, weight_decay=0.5)
        run(optimizer.step)
        results.append(data)
    np.testing.assert_array_equal(*results)
    assert recorded.done == [("update_parameters", True)]


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p._rebind(p._data.astype("f2")),
        lambda p: p._rebind(np.repeat(p._data, 2, 1)[:, ::2]),
        lambda p: p._rebind(p._data.astype("f8")),  # next to a parameter of float32
    ],
    ids=["float16", "strides", "mixed"],
)
def test_other_arrays_are_left_to_numpy(change, recorded):
    params = [Parameter(np.ones((2, 3), "f4")) for _ in range(2)]
    change(params[1])
    for p in params:
        p.grad = tg.tensor(np.full(p.shape, 2.0, p.dtype))
    norm = clip_grad_norm(params, 1.0)
    SGD(params, lr=1.0).step()
    assert norm.item() == pytest.approx(48**0.5)
    for p in params:
        np.testing.assert_allclose(p.numpy(), 1 - 2 / 48**0.5, rtol=1e-3)
    assert ("update_parameters", False) in recorded.done
    assert ("update_parameters", True) not in recorded.done


def test_a_gradient_in_another_memory_order_is_left_to_numpy(recorded):
    p = Parameter(np.ones((2, 3)))
    p.grad = tg.tensor(np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    SGD([p], lr=1.0).step()
    np.testing.assert_array_equal(p.numpy(), 1 - np.arange(6.0).reshape(2, 3))
    assert recorded.done == [("update_parameters", False)]


def test_a_rule_of_the_user_runs_as_it_is_written(recorded):
    class Counting(SGD):
        count = 0

        def _update(self, p, g, lr, state):
            self.count += 1
            super()._update(p, g, lr, state)

    p = Parameter(np.ones(3))
    optimizer = Counting([p], lr=0.5)
    for _ in range(3):
        p.grad = tg.tensor(np.ones(3))
        optimizer.step()
    assert optimizer.count == 3
    np.testing.assert_array_equal(p.numpy(), -0.5 * np.ones(3))
    assert {done for _, done in recorded.done} == {False}
    with pytest.raises(NotImplementedError, match="Optimizer does not define _update"):
        Optimizer([p], lr=1.0).step()


@pytest.mark.parametrize(
    "rule",
    [
        lambda p, g, lr, mu: p.__isub__(g if p else 0 * g),
        lambda p, g, lr, mu: p.__isub__(g if 1 - mu else 0 * g),
        lambda p, g, lr, mu: p.__isub__(module_of(p).where(True, g, g)),
    ],
    ids=["value", "derived", "function"],
)
def test_a_rule_that_cannot_be_traced_is_left_to_numpy(rule, recorded):
    class Own(SGD):
        __module__ = SGD.__module__

        def _update(self, p, g, lr, state):
            rule(p, g, lr, self._hyper["momentum"])

        _update.__module__ = SGD.__module__

    p = Parameter(np.ones(1))
    p.grad = tg.tensor(np.ones(1))
    Own([p], lr=1.0, momentum=0.5).step()
    assert p.numpy() == 0
    assert recorded.done == [("update_parameters", False)]


@pytest.mark.parametrize("of", ["class", "optimizer"])
def test_a_rule_that_is_put_in_place_of_the_librarys_runs(of, monkeypatch):
    w = Parameter(tg.tensor([1.0, 2.0]))
    optimizer = SGD([w], lr=0.5)
    w.grad = tg.tensor([2.0, 2.0])
    optimizer.step()  # its own rule is compiled

    def rule(*args):
        args[-4][...] = 7.0

    monkeypatch.setattr(SGD if of == "class" else optimizer, "_update", rule)
    optimizer.step()
    assert w.numpy().tolist() == [7.0, 7.0]
    monkeypatch.undo()
    optimizer.step()
    assert w.numpy().tolist() == [6.0, 6.0]


def test_a_read_only_parameter_raises_as_before():
    p, q = Parameter(np.ones(3)), Parameter(np.ones(3))
    p.grad = q.grad = tg.tensor(np.ones(3))
    q._data.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        SGD([p, q], lr=1.0).step()


def test_graphs_notice_an_update_also_if_it_is_interrupted(monkeypatch):
    from tinygrad_rnn.speed import training_step

    w = Parameter(np.ones(2))
    optimizer = SGD([w], lr=0.1)
    runtime = training_step.runtime()

    class Interrupting:
        def update_parameters(self, call):
            runtime.update_parameters(call)
            raise KeyboardInterrupt

    for interrupted in (False, True):
        w.grad = tg.tensor(np.ones(2))
        loss = (w * w).sum()
        if interrupted:
            monkeypatch.setattr(training_step, "runtime", Interrupting)
            with pytest.raises(KeyboardInterrupt):
                optimizer.step()
        else:
            optimizer.step()
        with pytest.raises(RuntimeError, match="changed in place"):
            loss.backward()


def test_settings_that_are_loaded_count_and_copies_are_independent():
    p = Parameter(np.ones(2))
    optimizer = SGD([p], lr=1.0, weight_decay=0.5)
    other = copy.deepcopy(optimizer)
    state = optimizer.state_dict()
    for decay in (0.5, 0.25, 0.0):
        state["hyperparameters"]["weight_decay"] = decay
        optimizer.load_state_dict(state)
        p.data = np.ones(2)
        p.grad = tg.tensor(np.zeros(2))
        optimizer.step()
        np.testing.assert_array_equal(p.numpy(), [1 - decay, 1 - decay])
    other.params[0].grad = tg.tensor(np.ones(2))
    other.step()
    np.testing.assert_array_equal(other.params[0].numpy(), [-0.5, -0.5])
    np.testing.assert_array_equal(p.numpy(), [1.0, 1.0])


# -- clipping --------------------------------------------------------------------------------------


def clipped(grads, *options):
    params = [Parameter(np.zeros_like(g)) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = tg.tensor(g)
    norm = clip_grad_norm(params, *options)
    return norm.numpy(), [p.grad.numpy() for p in params]


@given(
    SEEDS, DTYPES, st.sampled_from([1e-30, 1e-3, 1.0, 1e18]), st.sampled_from([0.1, 1e9, np.inf])
)
def test_clipping_equals_numpys(seed, dtype, size, bound):
    rng = np.random.default_rng(seed)
    grads = [(size * rng.normal(size=shape)).astype(dtype) for shape in SHAPES]
    with pytest.MonkeyPatch.context() as patch:
        record = Recorded(patch)
        norm, ours = clipped(grads, bound)
        assert record.done == [("clip_gradients", True)]
    expected, theirs = on_numpy(clipped, grads, bound)
    assert_close(norm, expected, dtype)
    for x, y in zip(ours, theirs, strict=True):
        assert_close(x, y, dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_norm_does_not_depend_on_threads(dtype, monkeypatch):
    rng = np.random.default_rng(0)
    grads = [rng.normal(size=n).astype(dtype) for n in (100_000, 3, 44_444)]
    exact = np.sqrt(sum((g.astype("g") ** 2).sum() for g in grads))
    found = []
    for count in (1, 2, 5):
        threads(monkeypatch, count)
        found.append(clipped(grads, 1.0))
        np.testing.assert_allclose(
            found[-1][0], float(exact), rtol=1e-7 if dtype == "f4" else 1e-15
        )
    for norm, ours in found[1:]:
        assert norm == found[0][0]
        for x, y in zip(ours, found[0][1], strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_norms_that_are_not_finite(bad):
    grads = [np.ones(3, "f4"), np.array([1.0, bad], "f4"), np.ones(2, "f4")]
    params = [Parameter(np.zeros_like(g)) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = tg.tensor(g)
    with pytest.raises(FloatingPointError, match=r"of 3 gradients is (nan|inf), .* parameters 1;"):
        clip_grad_norm(params, 1.0, error_if_nonfinite=True)
    for p, g in zip(params, grads, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), g)
    norm, ours = clipped(grads, 1.0)
    with np.errstate(invalid="ignore"):
        expected, theirs = on_numpy(clipped, grads, 1.0)
    np.testing.assert_array_equal(norm, expected)
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(x, y)


def test_clipping_makes_a_pending_backward_over_the_gradient_raise():
    w = Parameter(np.ones(2))
    w.grad = tg.tensor(np.full(2, 4.0))
    v = tg.tensor(np.ones(2), requires_grad=True)
    loss = (v * w.grad).sum()
    clip_grad_norm([w], 1e9)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


# -- the gradient of a table -----------------------------------------------------------------------


def table_gradient(shape, ids, weight, dtype):
    table = tg.tensor(np.zeros(shape, dtype), requires_grad=True)
    (table[ids] * tg.tensor(weight)).sum().backward()
    return table.grad.numpy()


@given(SEEDS, DTYPES, st.sampled_from([(7, 5), (3,), (40, 2, 3), (300, 70)]), st.integers(0, 300))
def test_the_gradient_of_a_table(seed, dtype, shape, count):
    rng = np.random.default_rng(seed)
    ids = rng.integers(-shape[0], shape[0], (count, 3))
    weight = rng.normal(size=(*ids.shape, *shape[1:])).astype(dtype)
    ours = table_gradient(shape, ids, weight, dtype)
    expected = np.zeros(shape, "g")
    terms = np.zeros(shape, "g")
    np.add.at(expected, ids, weight)
    np.add.at(terms, ids, np.abs(weight))
    eps = 1e-6 if dtype == "float32" else 1e-13
    assert ours.dtype == dtype
    assert (np.abs(ours - expected) <= eps * terms).all()


def test_a_long_sum_of_rows_is_exact_and_does_not_depend_on_threads(monkeypatch, recorded):
    ids = np.zeros(100_000, np.int32)
    ids[::7] = 1
    weight = np.full((len(ids), 40), 0.1, "f4")
    found = []
    for count in (1, 3):
        threads(monkeypatch, count)
        found.append(table_gradient((5, 40), ids, weight, "f4"))
    np.testing.assert_array_equal(*found)
    exact = np.array([(ids == r).sum() for r in range(5)]) * float(np.float32(0.1))
    np.testing.assert_allclose(found[0], np.repeat(exact[:, None], 40, 1), rtol=1e-7)
    assert ("add_rows", True) in recorded.done


def test_a_few_rows_of_a_large_table_and_strided_values_are_added(recorded):
    table = np.zeros((5000, 2), "f4")
    kernels.add_at(table, np.array([3, 3, 7]), np.ones((3, 2), "f4"))
    assert (table[3, 0], table[7, 1], table.sum()) == (2.0, 1.0, 6.0)
    small = np.zeros((8, 2), "f4")
    kernels.add_at(small, np.array([3, 3, 7]), np.ones((2, 3), "f4").T)
    kernels.add_at(small.T[::-1].T, np.array([3]), np.ones((1, 2), "f4"))
    assert (small[3, 0], small[7, 1], small.sum()) == (3.0, 1.0, 8.0)
    assert [done for _, done in recorded.done] == [False, True, False]


# -- cross-entropy ---------------------------------------------------------------------------------


@st.composite
def classified(draw):
    rng, dtype = np.random.default_rng(draw(SEEDS)), draw(DTYPES)
    shape = draw(st.sampled_from([(1,), (3, 1, 4), (2, 9, 28), (1, 17, 64), (35, 65), (3, 1500)]))
    size = draw(st.sampled_from([0.1, 1.0, 30.0, 1e4]))
    logits = (size * rng.normal(size=shape)).astype(dtype)
    target = rng.integers(0, shape[-1], shape[:-1]).astype(
        draw(st.sampled_from(["i4", "i8", "u2"]))
    )
    return logits, target, rng.normal(size=shape[:-1]).astype(dtype)


def losses_and_gradient(logits, target, weight, smoothing):
    x = tg.tensor(logits, requires_grad=True)
    losses = F.cross_entropy(x, target, reduction="none", label_smoothing=smoothing)
    (losses * tg.tensor(weight)).sum().backward()
    return losses.numpy(), x.grad.numpy()


@given(classified(), st.sampled_from([0.0, 0.1, 1.0]))
def test_cross_entropy_equals_numpys(case, smoothing):
    with pytest.MonkeyPatch.context() as patch:
        record = Recorded(patch)
        ours = losses_and_gradient(*case, smoothing)
        assert record.done == [("cross_entropy", True)] * 2
    logits, target, weight = case
    theirs = on_numpy(losses_and_gradient, *case, smoothing)
    exact = on_numpy(losses_and_gradient, logits.astype("g"), target, weight.astype("g"), smoothing)
    shifted = logits.astype("g") - logits.max(-1, keepdims=True)
    softmax = np.exp(shifted) / np.exp(shifted).sum(-1, keepdims=True)
    picked = np.take_along_axis(shifted, target[..., None].astype(int), -1)[..., 0]
    wanted = np.eye(logits.shape[-1])[target] * (1 - smoothing) + smoothing / logits.shape[-1]
    terms = (  # a result is exact relative to the sum of these; x - max x is rounded before exp
        np.log(logits.shape[-1]) - picked + smoothing * np.abs(shifted).mean(-1),
        (softmax * (1 - shifted) + wanted) * np.abs(weight[..., None]),
    )
    for mine, numpys, best, size in zip(ours, theirs, exact, terms, strict=True):
        assert (mine.shape, mine.dtype) == (numpys.shape, numpys.dtype)
        eps = 1e-6 if mine.dtype == "f4" else 4e-15
        assert (np.abs(mine - best) <= eps * size + np.finfo(mine.dtype).tiny).all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_cross_entropy_of_logits_that_are_not_finite(dtype):
    rows = np.zeros((7, 5), dtype)
    rows[0, 1] = np.nan
    rows[1, 1] = np.inf
    rows[2, 1] = -np.inf
    rows[3, :] = -np.inf
    rows[4, 0] = -np.inf  # at the target
    rows[5, 0], rows[5, 1] = 3e38, -3e38
    target = np.zeros(7, int)
    ours = losses_and_gradient(rows, target, np.ones(7, dtype), 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        expected = on_numpy(losses_and_gradient, rows, target, np.ones(7, dtype), 0.0)
    for x, y in zip(ours, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_cross_entropy_does_not_depend_on_threads_nor_on_other_rows(monkeypatch):
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(1200, 65)).astype("f4"), rng.integers(0, 65, 1200)
    weight = rng.normal(size=1200).astype("f4")
    threads(monkeypatch, 1)
    first = losses_and_gradient(logits, target, weight, 0.1)
    part = losses_and_gradient(logits[5:6], target[5:6], weight[5:6], 0.1)
    threads(monkeypatch, 3)
    second = losses_and_gradient(logits, target, weight, 0.1)
    for x, y, z in zip(first, second, part, strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(x[5:6], z)


def test_other_cross_entropies_are_left_to_numpy(recorded):
    logits = np.random.default_rng(0).normal(size=(3, 4))
    target = np.array([0, 1, 2])
    expected = F.cross_entropy(logits, target).item()
    turned = F.cross_entropy(np.ascontiguousarray(logits.T), target, axis=0).item()
    assert turned == pytest.approx(expected, rel=1e-12)
    assert F.cross_entropy(np.asfortranarray(logits), target).item() == pytest.approx(expected)
    assert F.cross_entropy(logits.astype("f2"), target).item() == pytest.approx(expected, rel=1e-2)
    done = [done for name, done in recorded.done if name == "cross_entropy"]
    # The last is computed in float32, from half precision.
    assert done == [True, False, False, True]
    found = kernels.try_faster(np, "cross_entropy", logits, np.array([0, 1, 4]), 1, 0.0, None)
    assert found is NotImplemented


def test_targets_may_change_after_the_forward_pass():
    x = tg.tensor(np.zeros((2, 3)), requires_grad=True)
    target = np.array([0, 1])
    loss = F.cross_entropy(x, target, reduction="sum")
    target[:] = 2
    loss.backward()
    np.testing.assert_allclose(x.grad.numpy()[:, 2], 1 / 3)
    x.grad = None
    held = tg.tensor(np.array([0, 1]))
    loss = F.cross_entropy(x, held, reduction="sum")
    held.data = np.array([2, 2])
    loss.backward()
    np.testing.assert_allclose(x.grad.numpy()[:, 2], 1 / 3)


def test_derivatives_of_higher_order_are_those_of_the_primitive():
    x = np.random.default_rng(0).normal(size=(3, 4))
    tg.gradcheck(lambda logits: F.cross_entropy(logits, np.array([0, 1, 2])), tg.tensor(x))


# -- the selection ---------------------------------------------------------------------------------


def test_the_backend_selects_the_functions():
    try:
        tg.fuse.backend("numpy")
        assert not kernels.faster
    finally:
        tg.fuse.backend("c")
    assert set(kernels.faster) == {
        "add_rows", "clip_gradients", "cross_entropy", "product", "update_parameters",
    }  # fmt: skip
