"""A captured step gives the bits of the plain one, or says why it runs plainly."""

from __future__ import annotations

import contextlib
import copy
import functools
import linecache
import operator
import queue
import sys
import threading
import time
import tracemalloc
import types
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import functional as F
from tinygrad_rnn.recurrence import loop
from tinygrad_rnn.speed import capture, tape
from tinygrad_rnn.transforms.fuse import eager

V, H, T, B = 7, 5, 4, 3


@pytest.fixture(autouse=True)
def loops_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every loop over time in Python, as a captured step does.

    A step that is recorded computes with arrays that no loop can be traced on. The traced loop of
    the plain step rounds in another order, so its last bits differ.
    """
    monkeypatch.setattr(loop, "_executor", None)


MOMENTUM = functools.partial(tg.optim.SGD, lr=0.3, momentum=0.9)


class Job:
    """A model, its optimiser and a step on them, the same for the same seed."""

    def __init__(
        self,
        cell: str = "GRU",
        rule: Callable[..., Any] = MOMENTUM,
        clip: bool = True,
        **options: Any,
    ) -> None:
        tg.manual_seed(3)
        self.layer = getattr(tg.nn, cell)(V, H, rng=3, **options)
        self.rows = tg.nn.Embedding(V, V, rng=1)
        self.out = tg.nn.Linear(H * self.layer.directions, V, rng=2)
        self.modules = [self.rows, self.layer, self.out]
        self.params = [p for module in self.modules for p in module.parameters()]
        self.optimizer = rule(self.params)
        self.clip = clip

    def step(self, x: Any, y: Any) -> Any:
        self.optimizer.zero_grad()
        output, _ = self.layer(self.rows(x))
        loss = F.cross_entropy(self.out(output), y)
        loss.backward()
        norm = tg.optim.clip_grad_norm(self.params, 0.5) if self.clip else None
        self.optimizer.step()
        return {"loss": loss, "norm": norm}

    def state(self) -> list[Any]:
        return [
            *[p.numpy().tobytes() for p in self.params],
            *[p.grad.numpy().tobytes() for p in self.params],
            *[a.tobytes() for d in self.optimizer.state_dict()["slots"] for a in d.values()],
            str(tg.random.get_state()),
        ]


def batch(number: int, length: int = T) -> tuple[Any, Any]:
    ids = np.random.default_rng(number).integers(0, V, (length + 1, B))
    return tg.tensor(ids[:-1]), tg.tensor(ids[1:])


def bits(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: bits(x) for name, x in value.items()}
    if isinstance(value, tuple | list):
        return [bits(x) for x in value]
    return (value.dtype, value.shape, value.numpy().tobytes()) if hasattr(value, "numpy") else value


def run(job: Any, step: Any, steps: int = 7, between: Any = None) -> list[Any]:
    """Return all that a run leaves after each step."""
    seen = []
    for i in range(steps):
        if between:
            between(job, i)
        seen.append((bits(step(*batch(i))), job.state()))
    return seen


def assert_equal(make: Callable[[], Any], between: Any = None, steps: int = 7) -> Any:
    """Assert that a captured job is replayed at last, and equals the plain one; return the step."""
    plain, captured = make(), make()
    expected = run(plain, plain.step, steps, between)
    make_again = make()  # the library's generator starts where the plain run began
    captured = make_again
    step = tg.capture(captured.step)
    assert run(captured, step, steps, between) == expected
    assert step.captured and not step.refusals
    return step


def refused(step: Any, *calls: Any, match: str) -> Any:
    """Assert that a captured function warns, once, and runs plainly from then on."""
    with pytest.warns(RuntimeWarning, match=match) as caught:
        results = [step(*args) for args in calls]
    assert len(caught) == 1 and caught[0].filename == __file__
    assert not step.captured
    return results


# -- the same bits ---------------------------------------------------------------------------------

RULES = {
    "sgd": functools.partial(tg.optim.SGD, lr=0.3),
    "nesterov": functools.partial(tg.optim.SGD, lr=0.3, momentum=0.9, nesterov=True),
    "decay": functools.partial(tg.optim.SGD, lr=0.3, weight_decay=0.1),
    "adam": functools.partial(tg.optim.Adam, lr=0.05),
    "adamw": functools.partial(tg.optim.AdamW, lr=0.05),
    "rmsprop": functools.partial(tg.optim.RMSprop, lr=0.05, momentum=0.5),
    "adagrad": functools.partial(tg.optim.Adagrad, lr=0.05),
}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule(rule):
    assert_equal(lambda: Job(rule=RULES[rule]))


@pytest.mark.parametrize("cell", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("fused", [True, False])
def test_every_layer(cell, fused, monkeypatch):
    for name in () if fused else ("_tanh", "_gru", "_lstm"):
        monkeypatch.setattr(tg.nn.cells, name, getattr(tg.nn.cells, name).function)
    assert_equal(lambda: Job(cell))
    assert_equal(lambda: Job(cell, num_layers=2, bidirectional=True))


@pytest.mark.parametrize("cell", ["RNN", "GRU", "LSTM"])
def test_a_captured_layer_equals_the_traced_one(cell, monkeypatch):
    monkeypatch.undo()  # of `loops_in_python`
    options = {"num_layers": 2, "bidirectional": True, "rule": RULES["sgd"]}
    traced, captured = Job(cell, **options), Job(cell, **options)
    step = tg.capture(captured.step)
    for i in range(5):
        with loop.reports() as plainly:
            expected = traced.step(*batch(i))
        with loop.reports() as recorded:
            found = step(*batch(i))
        assert [report.traced for report in plainly] == [True] * 4
        assert not any(report.traced for report in recorded)
        for a, b in zip(
            (*found.values(), *captured.params, *(p.grad for p in captured.params)),
            (*expected.values(), *traced.params, *(p.grad for p in traced.params)),
            strict=True,
        ):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)
    assert step.captured and not step.refusals


@pytest.mark.parametrize("strategy", [tg.bptt.Truncated(2), tg.bptt.Full(checkpoint=True)])
def test_strategies(strategy):
    assert_equal(lambda: Job(bptt=strategy))


def test_a_learning_rate_changed_between_calls():
    def between(job, i):
        job.optimizer.lr = 0.1 / (1 + i)

    assert_equal(lambda: Job(rule=RULES["adam"]), between)


def test_dropout_draws_the_same_numbers():
    assert_equal(lambda: Job(num_layers=2, dropout=0.5))


def test_dropout_with_a_generator_of_its_own():
    def make():
        job = Job()
        drop = tg.nn.Dropout(0.5, rng=5)
        whole = job.out
        job.out = lambda x: whole(drop(x))
        return job

    assert_equal(make)


def test_values_written_and_loaded_between_calls():
    def between(job, i):
        if i == 4:
            for p in job.params:
                p.data = p.numpy() * 0.5
        if i == 5:
            job.out.load_state_dict({k: v * 2 for k, v in job.out.state_dict().items()})

    assert_equal(Job, between)


def test_an_array_that_was_replaced_is_noticed():
    def between(job, i):
        if i == 4:
            job.out.to(tg.float32)
            job.out.weight._rebind(np.array(job.out.weight.numpy() * 2))

    assert_equal(Job, between, steps=9)


def test_a_mode_changed_between_calls():
    def between(job, i):
        job.layer.train(i < 5)

    assert_equal(lambda: Job(num_layers=2, dropout=0.5), between, steps=9)


def test_a_number_changed_between_calls():
    def between(job, i):
        job.optimizer._hyper["momentum"] = 0.5 if i < 5 else 0.25

    assert_equal(Job, between, steps=9)


def test_a_carried_state_is_an_argument():
    def make():
        job = Job("LSTM")

        def step(x, y, state):
            job.optimizer.zero_grad()
            output, state = job.layer(job.rows(x), state)
            loss = F.cross_entropy(job.out(output), y)
            loss.backward()
            job.optimizer.step()
            return loss, tg.bptt.detach(state)

        return job, step

    def losses(step):
        state, seen = (tg.zeros(1, B, H), tg.zeros(1, B, H)), []
        for i in range(6):
            loss, state = step(*batch(i), state)
            seen.append(bits([loss, state]))
        return seen

    _, plain = make()
    _, step = make()
    step = tg.capture(step)
    assert losses(step) == losses(plain)
    assert step.captured


def test_second_derivatives():
    w = tg.tensor([0.5, -1.0], requires_grad=True)

    def step(x):
        (g,) = tg.grad((tg.tanh(w * x) ** 3).sum(), [w], create_graph=True)
        return tg.grad((g * g).sum(), w)

    captured = tg.capture(step)
    for i in range(5):
        x = tg.tensor([0.1 * i, 2.0])
        assert bits(captured(x)) == bits(step(x))
    assert captured.captured


def assert_same_numbers(found, expected):
    """Assert equality to the bit, but that a nan has no sign (NumPy's scalars lose it)."""
    for x, y in zip(found, expected, strict=True):
        if x is y is None:
            continue
        np.testing.assert_array_equal(x.numpy(), y.numpy(), strict=True)


@st.composite
def steps(draw):
    """Draw a step: a chain of operations on two parameters and an argument, and an update."""
    unary = st.sampled_from([tg.tanh, tg.sigmoid, tg.exp, lambda x: x**2, lambda x: -x, tg.abs])
    axes = st.sampled_from([None, 0, 1])
    chain = draw(st.lists(st.tuples(unary, st.booleans(), axes), min_size=1, max_size=5))
    dtype = draw(st.sampled_from([tg.float32, tg.float64]))
    rows = draw(st.integers(1, 4))
    power = draw(st.sampled_from([0.5, 1, 2, 3, -1]))
    part = draw(st.sampled_from([slice(None), slice(0, 1), [0, 0], slice(None, None, -1)]))

    def make():
        a = tg.tensor(np.linspace(-1, 1, rows * 3).reshape(rows, 3), dtype, requires_grad=True)
        b = tg.tensor(np.linspace(0.5, 1, 9).reshape(3, 3), dtype, requires_grad=True)
        scale = tg.tensor(0.7, dtype, requires_grad=True)
        rule = tg.optim.Adam([a, b, scale], lr=0.01)

        def step(x):
            rule.zero_grad()
            y = a * x
            for f, product, axis in chain:
                y = f(y) * 0.5
                y = y @ b if product else y + y.sum(axis=axis, keepdims=axis is not None)
            loss = (tg.abs(y[part]).mean() + scale**2 + 1.0) ** power * scale
            loss.backward()
            tg.optim.clip_grad_value([a, b], 0.1)
            rule.step()
            return loss, y

        return step, [a, b, scale]

    return make, dtype, rows


@given(steps())
def test_random_steps(case):
    make, dtype, rows = case
    (plain, before), (function, after) = make(), make()
    step = tg.capture(function)
    for i in range(4):
        x = tg.tensor(np.random.default_rng(i).standard_normal((rows, 3)), dtype)
        with np.errstate(all="ignore"):
            assert_same_numbers(step(x), plain(x))
        assert_same_numbers(after, before)
        assert_same_numbers([p.grad for p in after], [p.grad for p in before])
    assert step.captured


def two_results(x, y, out):
    np.add(x, y, out=out[0])
    np.multiply(x, y, out=out[1])


def test_a_kernel_of_several_results_is_recorded_as_one_call():
    @tg.primitive(x=lambda F, g, x: g)
    def mixed(xp, x):
        total, product = tape.record(two_results, x, x, out=(xp.empty_like(x), xp.empty_like(x)))
        return total - product

    step = tg.capture(mixed)
    for i in range(4):
        assert step(tg.tensor([1.0, i])).numpy().tolist() == [1.0, 2 * i - i * i]
    (entry,) = step._entries.values()
    assert step.captured and len(entry.plan.before) == 2


# -- what a call takes and leaves ------------------------------------------------------------------


def test_arguments_and_results_are_copies():
    step = tg.capture(lambda x: x * 2)
    x = tg.tensor([1.0, 2.0])
    results = [step(x) for _ in range(4)]
    assert step.captured
    results[2].data = [9.0, 9.0]
    assert results[3].numpy().tolist() == [2.0, 4.0] and x.numpy().tolist() == [1.0, 2.0]
    assert not results[3].requires_grad


def test_arrays_numbers_and_nested_arguments():
    @tg.capture
    def step(pair, options, scale):
        return {"a": (pair[0] * scale, options["b"] + 1), "none": None, "name": "x"}

    for _ in range(4):
        out = step((tg.tensor([1.0]), 3), {"b": np.array([2.0])}, scale=2)
        assert out["a"][0].numpy().tolist() == [2.0] and out["a"][1].numpy().tolist() == [3.0]
        assert out["none"] is None and out["name"] == "x"
    assert step.captured
    assert step((tg.tensor([1.0]), 3), {"b": np.array([2.0])}, scale=3)["a"][0].item() == 3.0


def test_numbers_keep_their_types():
    step = tg.capture(lambda x, n: x * n)
    for n in (1, True, 1.0, 1, True, 1.0, 1, True, 1.0):
        assert step(tg.tensor([1, 2]), n).dtype == (tg.tensor([1, 2]) * n).dtype


def test_shapes_dtypes_and_layouts_have_tapes_of_their_own():
    job, plain = Job(), Job()
    step = tg.capture(job.step)
    for i in range(9):
        length = 2 + i % 3
        assert bits(step(*batch(i, length))) == bits(plain.step(*batch(i, length)))
    assert len(step._entries) == 3 and all(e.plan for e in step._entries.values())
    x = tg.tensor(np.arange(6.0).reshape(2, 3))
    total = tg.capture(lambda x: x.sum(axis=0))
    for _ in range(3):
        assert bits(total(x)) == bits(x.sum(axis=0))
        assert bits(total(x.T)) == bits(x.T.sum(axis=0))


def test_more_signatures_than_are_kept():
    step = tg.capture(lambda x: x * 2)
    with pytest.warns(RuntimeWarning, match="more than 8 shapes") as caught:
        for n in [*range(1, 12), *range(1, 12), *range(1, 12)]:
            assert step(tg.ones(n)).shape == (n,)
    assert len(caught) == 1 and len(step._entries) == 8 and step.captured


def test_a_view_of_old_values_is_still_guarded():
    job = Job()
    step = tg.capture(job.step)
    for i in range(3):
        step(*batch(i))
    loss = (job.out.weight * job.out.weight).sum()
    step(*batch(3))
    with pytest.raises(tg.errors.GraphError, match="changed in place"):
        loss.backward()


def test_gradients_that_are_not_cleared_are_refused():
    w = tg.tensor([1.0], requires_grad=True)
    step = tg.capture(lambda x: (w * x).sum().backward())
    refused(step, *[(tg.tensor([2.0]),)] * 4, match="adds to gradients from before")
    assert w.grad.item() == 8.0


def test_gradients_cleared_at_the_end():
    w = tg.tensor([1.0], requires_grad=True)

    def step(x):
        w.grad = None
        (w * x).sum().backward()
        result = w.grad * 1
        w.grad = None
        return result

    captured = tg.capture(step)
    for i in range(8):
        w.grad = tg.ones(1) if i % 2 else None
        assert captured(tg.tensor([float(i)])).item() == i
        assert w.grad is None
    assert captured.captured


def test_gradients_cleared_outside():
    w = tg.tensor([1.0], requires_grad=True)
    step = tg.capture(lambda x: (w * x).sum().backward())
    for i in range(5):
        w.grad = None
        step(tg.tensor([float(i)]))
        assert w.grad.item() == i
    assert step.captured
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        step(tg.tensor([10.0]))  # the one time that they are not
    assert w.grad.item() == 14.0


# -- memory orders: NumPy writes a large result over an operand that nobody holds ------------------


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_large_logits_have_the_gradient_of_a_plain_step_in_every_memory_order(order, smoothing):
    rng = np.random.default_rng(0)
    x = tg.Tensor(np.asarray(rng.standard_normal((4096, 28)), np.float32, order=order))
    y = tg.tensor(rng.integers(0, 28, 4096))
    b = tg.tensor(rng.standard_normal(28).astype(np.float32), requires_grad=True)

    def step(x, y):
        b.grad = None
        F.cross_entropy(x + b, y, label_smoothing=smoothing).backward()
        return b.grad

    expected = bits(step(x, y))
    captured = tg.capture(step)
    for _ in range(4):
        assert bits(captured(x, y)) == expected
    assert captured.captured


@pytest.mark.parametrize("cell", ["RNN", "GRU", "LSTM"])
def test_a_large_step_of_a_layer_with_a_linear_head(cell):
    def make():
        tg.manual_seed(0)
        layer, head = getattr(tg.nn, cell)(28, 8), tg.nn.Linear(8, 28)
        rule = tg.optim.SGD([*layer.parameters(), *head.parameters()], lr=4.0)

        def step(x, y):
            rule.zero_grad()
            loss = F.cross_entropy(head(layer(x)[0]), y)
            loss.backward()
            rule.step()
            return loss

        return step

    plain, captured, rng = make(), tg.capture(make()), np.random.default_rng(0)
    for _ in range(5):
        x = tg.tensor(rng.standard_normal((8, 512, 28)).astype(np.float32))
        y = tg.tensor(rng.integers(0, 28, (8, 512)))
        assert bits(captured(x, y)) == bits(plain(x, y))
    assert captured.captured


@pytest.mark.parametrize("orders", ["CC", "CF", "FC", "FF"])
@pytest.mark.parametrize(
    "function",
    [
        lambda x, c: tg.tanh(x) * c,  # in its rule g * (1 - out * out)
        lambda x, c: tg.sigmoid(x) * c,
        lambda x, c: tg.exp(x) / (c * c + 1) + c,
        lambda x, c: tg.softmax(x * 2 - c) * c,
        lambda x, c: tg.logsumexp(tg.sqrt(x * x + 1) - c, axis=0) - c.mean(axis=0),
    ],
)
def test_large_arrays_of_any_memory_orders(function, orders):
    rng = np.random.default_rng(0)
    x, c = (
        tg.Tensor(np.asarray(rng.standard_normal((4096, 28)), np.float32, order=order))
        for order in orders
    )
    b = tg.tensor(rng.standard_normal(28).astype(np.float32), requires_grad=True)

    def step(x, c):
        b.grad = None
        y = function(x + b, c)
        (y * y).sum().backward()
        return b.grad

    expected = bits(step(x, c))
    captured = tg.capture(step)
    for _ in range(4):
        assert bits(captured(x, c)) == expected
    assert captured.captured


def test_an_operand_that_somebody_holds_is_not_written_over():
    rng = np.random.default_rng(0)
    x = np.asarray(rng.standard_normal((512, 300)), order="F")
    y = rng.standard_normal((512, 300))

    def step(x, y):
        held = x * 2
        return [held - y, (x * 3) - y, held, y + (x * 2), (y * 2 - x) / (x * x + 1)]

    captured, plain = tg.capture(step), step(x, y)
    for _ in range(4):
        for a, b in zip(captured(x, y), plain, strict=True):
            assert bits(a) == bits(tg.Tensor(b))
            assert a.data.strides == b.strides
    assert captured.captured


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("wrong", [V, -1, 10**9])
@pytest.mark.parametrize("which", [0, 1])
def test_ids_out_of_range_are_refused_as_in_the_plain_step(after, wrong, which):
    plain, job = Job(), Job()
    step = tg.capture(job.step)
    for i in range(after):
        assert bits(step(*batch(i))) == bits(plain.step(*batch(i)))
    bad = list(batch(after))
    array = bad[which].numpy()
    array[1, 1] = wrong
    bad[which] = tg.tensor(array)
    with pytest.raises(tg.errors.ArgumentError) as expected:
        plain.step(*bad)
    with pytest.raises(tg.errors.ArgumentError) as error:
        step(*bad)
    assert str(error.value) == str(expected.value) and error.value.__context__ is None
    for i in range(after, after + 4):
        assert bits(step(*batch(i))) == bits(plain.step(*batch(i)))
        assert job.state() == plain.state()
    assert step.captured


@pytest.mark.parametrize("draw", [tg.randn, tg.rand])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_numbers_drawn_in_a_step_are_drawn_anew_at_each_replay(draw, dtype):
    def step(x):
        return x + draw(3, dtype=dtype) * draw(3, rng=None)

    captured = tg.capture(step)
    x = tg.ones(3, dtype=dtype)
    tg.manual_seed(4)
    expected = [bits(step(x)) for _ in range(8)]
    tg.manual_seed(4)
    assert [bits(captured(x)) for _ in range(8)] == expected
    assert captured.captured
    assert len(set(map(str, expected))) == 8


def test_an_error_gives_the_random_numbers_back():
    w = tg.ones(100, requires_grad=True)

    def step(ids):
        return F.dropout(w, 0.5)[ids]

    captured = tg.capture(step)
    for _ in range(3):
        captured(tg.tensor([1, 2]))
    before = str(tg.random.get_state())
    with pytest.raises(IndexError):
        captured(tg.tensor([1, 200]))
    with tg.random.replay(tg.random.get_state()):
        pass
    tg.manual_seed(0)
    first = captured(tg.tensor([1, 2]))
    tg.manual_seed(0)
    assert bits(first) == bits(step(tg.tensor([1, 2])))
    assert captured.captured and before


class Failing(tg.optim.SGD):
    """An optimiser that fails in its second parameter if the gradient of that is too large."""

    def _update(self, p, g, lr, state):
        super()._update(p, np.linalg.inv(g) if p.shape == (2, 2) else g, lr, state)


def test_an_error_in_the_midst_of_the_updates_leaves_what_a_plain_one_leaves():
    def make():
        a = tg.ones(3, requires_grad=True)
        b = tg.tensor(np.eye(2), requires_grad=True)
        rule = Failing([a, b], lr=0.1)

        def step(x):
            rule.zero_grad()
            (a.sum() * x.sum() + (b * x).sum()).backward()
            rule.step()

        return step, [a, b]

    (plain, expected), (function, found) = make(), make()
    step = tg.capture(function)
    good, bad = tg.tensor([[2.0, 1.0], [1.0, 1.0]]), tg.ones(2, 2)
    good, bad = good.astype(tg.float64), bad.astype(tg.float64)
    for _ in range(4):
        plain(good)
        step(good)
    assert step.captured
    saved = (found[0] * found[0]).sum()
    for f in (plain, step):
        with pytest.raises(np.linalg.LinAlgError) as error:
            f(bad)
    assert "in a captured step" in error.value.__notes__[0]
    assert bits(found) == bits(expected)
    with pytest.raises(tg.errors.GraphError):
        saved.backward()
    plain(good)
    step(good)
    assert bits(found) == bits(expected) and step.captured


@pytest.mark.parametrize("block", [tg.no_grad, tg.fuse.disabled, contextlib.nullcontext])
def test_a_helper_that_is_decorated_by_a_block_is_recorded_too(block):
    def make():
        w = tg.ones(3, requires_grad=True)
        means, rule = [tg.zeros(3)], tg.optim.SGD([w], lr=0.1)

        def gather():
            for mean in means:
                mean.data = mean.data * 0.9 + w._data * 0.1

        gather = block()(gather) if block is not contextlib.nullcontext else gather

        def step(x):
            rule.zero_grad()
            (w * w * x).sum().backward()
            rule.step()
            gather()

        return step, [w, *means]

    (plain, expected), (function, found) = make(), make()
    step = tg.capture(function)
    for i in range(6):
        plain(x := tg.randn(3, rng=i))
        step(x)
        assert bits(found) == bits(expected)
    assert step.captured


def interrupted(step: Any, line: int = -1) -> int:
    """Run a captured step with an interrupt at a line that Python runs; return how many it ran.

    A line ``with ...`` is traced again where its block ends, just before it is left. Python takes
    no interrupt there, which would leave a lock locked, so the next line is interrupted instead.
    """
    count, before = 0, sys.gettrace()

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal count
        count += event == "line"
        if event == "line" and count >= line > 0:
            source = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
            if not source.lstrip().startswith("with "):
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    x, y = batch(0)
    try:
        sys.settrace(trace)
        step(x, y)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return count


def assert_plain(job: Job) -> None:
    """Assert that there are no recorded arrays in what a step computes with."""
    grads = [p.grad for p in job.params if p.grad is not None]
    arrays = [t._data for t in (*job.params, *grads)]
    arrays += [array for state in job.optimizer._state for array in state.values()]
    assert {type(x) for x in [*arrays, *job.optimizer._rates.values()]} == {np.ndarray}
    assert type(tg.random.generator()) is np.random.Generator
    assert tape.state.tape is None
    assert not capture._exchanging._is_owned()


INTERRUPTED = [Job, functools.partial(Job, num_layers=2, dropout=0.3, rule=RULES["adam"])]


@pytest.mark.parametrize("make", INTERRUPTED)
@pytest.mark.parametrize("recorded", [0, 1, 2])
def test_an_interrupt_at_any_line_leaves_plain_arrays_and_a_step_that_goes_on(make, recorded):
    """While it records for the first time or the second, or replays."""

    def job():
        made = make()
        step = tg.capture(made.step)
        for _ in range(recorded):
            step(*batch(0))
        return made, step

    total = interrupted(job()[1])
    rng = np.random.default_rng(recorded)
    first, last = rng.integers(1, total + 1, 3), rng.integers(1, min(total, 6000), 5)
    for line in (*first, *last, *(total + 1 - last)):  # anywhere, and where arrays are exchanged
        made, step = job()
        interrupted(step, line)
        assert_plain(made)
        for i in range(3):
            step(*batch(i))
        assert step.captured and not step.refusals
        assert_plain(made)


def test_interrupts_that_leave_recorded_arrays_are_made_good_by_the_next_call(monkeypatch):
    job = Job()
    step = tg.capture(job.step)
    plain = Job()

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    for times in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(capture.Run, "_land", interrupt)
            with pytest.raises(KeyboardInterrupt):
                step(*batch(times))
        tape.state.tape = None
        plain.step(*batch(times))
    assert any(isinstance(p._data, tape.Taped) for p in job.params)
    for i in range(4):
        assert bits(step(*batch(i))) == bits(plain.step(*batch(i)))
    assert step.captured and job.state()[:-1] == plain.state()[:-1]
    assert_plain(job)


# -- what cannot be replayed -----------------------------------------------------------------------

NUMBERS = iter(range(1, 100))
REFUSED = {
    "item": (lambda x: x * x.sum().item(), "reads a value"),
    "float": (lambda x: x * float(x.sum()), "reads a value"),
    "numpy": (lambda x: tg.tensor(x.numpy() + 1), "reads a value"),
    "index": (lambda x: x[int(x[0])], "reads a value"),
    "mask": (lambda x: x[x > 0.5], "nonzero"),
    "array of it": (lambda x: np.asarray(x.data) * 2, "reads a value"),
    "list": (lambda x: x * x.data.tolist()[0], "reads a value"),
    "memory": (lambda x: x * bytes(x.data.data)[0], "reads a value"),
    "an object": (lambda x: object(), "returns a object"),
    "the clock": (lambda x: x * time.perf_counter(), "another one each time"),
    "NumPy's own numbers": (
        lambda x: x * np.random.default_rng().standard_normal(3, np.float32),
        "other values each time",
    ),
    "seeds": (lambda x: (tg.manual_seed(3), F.dropout(x, 0.5))[1], "state of a random"),
    "an iterator": (lambda x: x * next(NUMBERS), "another one each time"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_replayed_runs_plainly_and_says_why(name):
    function, match = REFUSED[name]
    step = tg.capture(function)
    x = tg.tensor([1.0, 2.0, 3.0])
    refused(step, *[(x,)] * 8, match=match)
    assert len(step.refusals) == 1


class Pair(NamedTuple):
    first: Any
    second: Any


def assigned(x):
    x.data = x * 2


def swapped(values):
    values[0], values[1] = values[1], values[0]


WRITES = {  # what a function does to its argument, and how that is made
    "acc += 1": (lambda acc: operator.iadd(acc, 1) * 2, lambda: np.zeros(3)),
    "a part": (lambda acc: operator.setitem(acc, 0, 7), lambda: np.zeros(3)),
    "out=": (lambda acc: np.add(acc, 1, out=acc).sum(), lambda: np.zeros((3, 2))[:, 1]),
    "after another reason": (lambda acc: operator.iadd(acc, float(acc[0]) + 1), lambda: np.ones(3)),
    "an error": (lambda acc: operator.iadd(acc, 1) + np.ones(7), lambda: np.zeros(3)),
    "a Tensor's data": (assigned, lambda: tg.ones(3)),
    "requires_grad": (lambda x: setattr(x, "requires_grad", True), lambda: tg.ones(3)),
    "arrays that share memory": (
        lambda pair: operator.iadd(pair[0], 1) * operator.imul(pair[1], 2),
        lambda: (lambda memory: (memory[:3], memory[1:]))(np.ones(4)),
    ),
    "in a named tuple": (lambda pair: operator.iadd(pair.first, 1), lambda: Pair(np.ones(2), 1)),
    "a list": (lambda seen: seen.append(len(seen)), list),
    "a list of arrays": (swapped, lambda: [np.zeros(2), np.ones(2)]),
    "a dict": (lambda seen: seen.update(a=seen["b"] * 2), lambda: {"b": np.ones(2)}),
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.filterwarnings("ignore:capture")
def test_what_a_step_does_to_its_argument_is_done(name):
    function, make = WRITES[name]
    step, expected, found = tg.capture(function), make(), make()
    for _ in range(5):
        for run, argument in ((function, expected), (step, found)):
            with contextlib.suppress(ValueError):
                run(argument)
        assert repr(found) == repr(expected)
    assert not step.captured


def test_a_read_only_argument_stays_so():
    array = np.zeros(3)
    array.flags.writeable = False
    step = tg.capture(lambda x: operator.iadd(x, 1))
    with pytest.raises(ValueError, match="read-only"):
        step(array)


def test_an_argument_whose_value_was_saved_is_watched():
    w = tg.ones(2, requires_grad=True)

    def step(x):
        loss = (w * x).sum()
        x.data = np.zeros(2)
        loss.backward()

    x = tg.ones(2)
    with pytest.raises(tg.errors.GraphError, match="changed in place"):
        tg.capture(step)(x)
    assert x.numpy().tolist() == [0, 0]


def test_arrays_in_a_named_tuple_are_read_at_each_replay():
    step = tg.capture(lambda pair: pair.first * pair.second)
    for k in (1, 1, 1, 2, 3):
        pair = Pair(np.full(2, float(k)), np.ones(2))
        np.testing.assert_array_equal(step(pair).numpy(), pair.first)
    assert step.captured


def test_arguments_that_share_memory_and_are_read_are_replayed():
    step = tg.capture(lambda x, y: x * y)
    for k in range(5):
        memory = np.arange(4.0) + k
        found = step(memory[:3], memory[1:])
        np.testing.assert_array_equal(np.asarray(found), memory[:3] * memory[1:])
    assert step.captured


def test_the_line_is_named():
    def step(x):
        y = x * 2
        return y * y.sum().item()  # here

    captured = tg.capture(step)
    with pytest.warns(RuntimeWarning) as caught:
        captured(tg.ones(2))
    line = step.__code__.co_firstlineno + 2
    assert f"test_capture.py:{line})" in str(caught[0].message)


def test_a_step_that_changes_python_is_refused():
    count, history = 0, []

    def counting(x):
        nonlocal count
        count += 1
        return x * 1.0

    def remembering(x):
        history.append(x * 2)
        return x * 1.0

    x = tg.ones(2)
    refused(tg.capture(counting), *[(x,)] * 10, match="changes 'count'")
    refused(tg.capture(remembering), *[(x,)] * 10, match="changes 'history'")
    assert count == 10 and len(history) == 10
    assert [type(h.data) for h in history] == [np.ndarray] * 10


def test_a_number_that_changes_at_every_call_is_noticed():
    job = types.SimpleNamespace(scale=1.0)
    step = tg.capture(lambda x: x * job.scale)
    with pytest.warns(RuntimeWarning, match="scale"):
        for i in range(30):
            job.scale = 1.0 + i
            assert step(tg.ones(1)).item() == 1.0 + i
    assert step.refusals


SETTINGS = types.SimpleNamespace(scale=2.0, depth=[3.0], table={"a": (1.0,)})


class Settings:
    scale = 2.0


def test_numbers_are_seen_wherever_they_are():
    inner = functools.partial(lambda x, n: x * n, n=[2.0])

    def step(x):
        first = x * SETTINGS.scale * SETTINGS.depth[0] * SETTINGS.table["a"][0]
        return inner(first) * Settings.scale

    captured, x = tg.capture(step), tg.ones(1)

    def assert_seen():
        for _ in range(4):
            assert captured(x).item() == step(x).item()
        assert captured.captured

    assert_seen()
    changes = [
        (lambda v: setattr(SETTINGS, "scale", v), 2.0),
        (lambda v: SETTINGS.depth.__setitem__(0, v), 3.0),
        (lambda v: SETTINGS.table.__setitem__("a", (v,)), 1.0),
        (lambda v: inner.keywords["n"].__setitem__(0, v), 2.0),
        (lambda v: setattr(Settings, "scale", v), 2.0),
    ]
    for change, value in changes:
        try:
            change(value + 1)
            for _ in range(25):  # good replays give the patience back
                assert captured(x).item() == step(x).item()
        finally:
            change(value)
        assert_seen()


SCALE = 2.0


class Scaled(tg.nn.Module):
    shift = 1.0
    inner = tg.nn.Linear(1, 1, rng=0)

    def forward(self, x):
        return self.inner(x) * SCALE + self.shift


def test_classes_and_their_methods_are_seen(monkeypatch):
    model = Scaled()
    step, x = tg.capture(lambda x: model(x)), tg.ones(1, 1)
    for change in (
        lambda: monkeypatch.setitem(globals(), "SCALE", 3.0),
        lambda: monkeypatch.setattr(Scaled, "shift", 2.0),
        lambda: monkeypatch.setattr(Scaled, "inner", tg.nn.Linear(1, 1, rng=5)),
    ):
        for _ in range(4):
            assert bits(step(x)) == bits(model(x))
        assert step.captured
        change()
    assert bits(step(x)) == bits(model(x))


def test_libraries_are_not_looked_into():
    settings = types.SimpleNamespace(strategy=given, test=pytest.fixture, n=2.0)

    def step(x):
        return x * settings.n if settings.strategy and settings.test else x

    captured = tg.capture(step)
    for settings.n in [2.0] * 4 + [3.0] * 4:
        assert captured(tg.ones(1)).item() == settings.n
    (entry,) = captured._entries.values()
    assert captured.captured and len(entry.plan.world._watched) < 30


def test_more_parameters_than_a_vocabulary_has_words():
    params = [tg.tensor([float(i)], requires_grad=True) for i in range(1001)]
    rule = tg.optim.SGD(params, lr=1.0, momentum=0.5)

    def step(x):
        rule.zero_grad()
        tg.stack(params).sum().backward()
        rule.step()

    step = tg.capture(step)
    for _ in range(4):
        step(tg.ones(1))
    assert step.captured and params[1000].item() == 1000 - (1 + 1.5 + 1.75 + 1.875)


def test_parameters_that_it_does_not_lead_to():
    hidden = queue.Queue()
    w = tg.ones(1, requires_grad=True)
    hidden.put((w, tg.optim.SGD([w], lr=0.5)))

    def step(x):
        w, rule = hidden.queue[0]
        rule.zero_grad()
        (w * w).sum().backward()
        rule.step()

    refused(tg.capture(step), *[(tg.ones(1),)] * 4, match="does not lead to")
    step(tg.ones(1))
    assert w.item() == 0.0


def test_a_branch_is_replayed_while_it_goes_the_same_way():
    @tg.capture
    def step(x):
        if x.sum() > 0:
            return x * 2
        return x * 3

    up, down = tg.ones(2), -tg.ones(2)
    for _ in range(4):
        assert step(up).numpy().tolist() == [2.0, 2.0]
    assert step.captured
    assert step(down).numpy().tolist() == [-3.0, -3.0]
    assert step.captured and step(up).numpy().tolist() == [2.0, 2.0]
    with pytest.warns(RuntimeWarning, match="runs plainly"):
        for x in [up, down] * 10:
            assert bits(step(x)) == bits(x * (2 if x.sum() > 0 else 3))


def test_arguments_that_cannot_be_recorded():
    w = tg.ones(2, requires_grad=True)
    refused(tg.capture(lambda x: (x * 2).sum()), (w,), (w,), match="requires a gradient")
    refused(tg.capture(lambda x: x), (object(),), match="is a object")
    with pytest.raises(tg.errors.ArgumentError, match="capture: a function is expected, got 3"):
        tg.capture(3)


def test_randomized_lengths_run_plainly():
    job, plain = (Job(bptt=tg.bptt.Randomized(0.5, rng=4)) for _ in range(2))
    step = tg.capture(job.step)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for i in range(6):
            assert bits(step(*batch(i))) == bits(plain.step(*batch(i)))
    assert not step.captured


def test_a_gpu_runs_plainly(accelerator):
    step = tg.capture(lambda x: x * 2)
    x = tg.ones(2, device=accelerator)
    (result,) = refused(step, (x,), match="CPU tensors")
    assert result.device.startswith("cuda")


# -- together with others --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "block",
    [tg.capture.disabled, tg.fuse.disabled, eager, tg.detect_anomaly, tg.nn.Dropout().evaluating],
)
def test_blocks_in_which_a_step_runs_plainly(block):
    job = Job()
    step = tg.capture(job.step)
    with block():
        for i in range(4):
            step(*batch(i))
    assert not step.captured and not step.refusals
    for i in range(4):
        step(*batch(i))
    assert step.captured


def test_disabled_is_a_block_for_one_thread():
    with tg.capture.disabled(), tg.capture.disabled():
        assert capture._off.disabled
        seen = []
        other = threading.Thread(target=lambda: seen.append(capture._off.disabled))
        other.start()
        other.join()
        assert seen == [False]
    assert not capture._off.disabled


def test_a_method_is_captured_for_each_instance():
    class Doubler:
        def __init__(self, n):
            self.w = tg.tensor([n])

        @tg.capture
        def step(self, x):
            """Multiply."""
            return x * self.w

    one, two = Doubler(1.0), Doubler(2.0)
    for _ in range(4):
        assert (one.step(tg.ones(1)).item(), two.step(tg.ones(1)).item()) == (1.0, 2.0)
    assert one.step.captured and two.step.captured and Doubler.step.__doc__ == "Multiply."
    three = copy.deepcopy(two)
    three.w.data = [3.0]
    for _ in range(4):
        assert (two.step(tg.ones(1)).item(), three.step(tg.ones(1)).item()) == (2.0, 3.0)


def test_a_captured_function_inside_another():
    inner = tg.capture(lambda x: x * 3)
    outer = tg.capture(lambda x: inner(x) + 1)
    for _ in range(4):
        assert outer(tg.ones(1)).item() == 4.0
    assert outer.captured and not inner.captured


def test_modes_have_tapes_of_their_own():
    w = tg.ones(2, requires_grad=True)
    step = tg.capture(lambda x: w * x)
    for _ in range(4):
        step(tg.ones(2))
        with tg.no_grad():
            step(tg.ones(2))
    assert len(step._entries) == 2
    with tg.detect_anomaly(), pytest.raises(tg.errors.AnomalyError):
        tg.capture(lambda x: tg.sqrt(x))(tg.tensor([-1.0]))


def test_threads_have_tapes_of_their_own():
    model = tg.nn.Linear(3, 3, rng=1)
    step = tg.capture(lambda x: tg.tanh(model(x)).sum())
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(50):
            x = tg.tensor(rng.standard_normal((2, 3)), tg.float32)
            if bits(step(x)) != bits(tg.tanh(model(x)).sum()):
                wrong.append(seed)
        if not step.captured:
            wrong.append("not captured")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and not step.captured


def test_nothing_recorded_stays_behind():
    job = Job(rule=RULES["adam"])
    step = tg.capture(job.step)
    for i in range(2):
        step(*batch(i))
        arrays = [p._data for p in job.params] + [p.grad._data for p in job.params]
        arrays += [a for state in job.optimizer._state for a in state.values()]
        assert {type(a) for a in arrays} == {np.ndarray}
    with pytest.raises(tg.errors.ShapeError):
        tg.capture(lambda x: job.out(x))(tg.ones(H + 1))
    assert {type(p._data) for p in job.params} == {np.ndarray}


def test_a_replay_makes_no_graph_and_works_in_the_memory_of_one_step():
    job = Job("LSTM")
    big = [tg.tensor(np.zeros((40, 16), np.int64))] * 2
    tracemalloc.start()
    job.step(*big)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    job.step(*big)
    eager = tracemalloc.get_traced_memory()[1] - before
    step = tg.capture(job.step)
    for _ in range(3):
        step(*big)
    (entry,) = step._entries.values()
    assert entry.plan.nbytes < 1.25 * eager
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    clock = tg.engine.graph.tick()
    step(*big)
    bumps = len(job.params) * 2
    assert tg.engine.graph.tick() - clock == 1 + bumps
    assert tracemalloc.get_traced_memory()[1] - before < eager / 3
    tracemalloc.stop()


@pytest.mark.parametrize("dtype", ["int32", "int64", "bool", "float32", "float64"])
def test_an_array_beside_a_number_is_read_at_each_replay(dtype):
    @tg.capture
    def halves(x):
        return np.multiply(x, 0.5), np.add(1, x), np.multiply(x, 0.5) - x

    for k in range(6):
        x = np.array([k % 2, k, k + 1]).astype(dtype)
        plain = np.multiply(x, 0.5), np.add(1, x), np.multiply(x, 0.5) - x
        for found, expected in zip(halves(x), plain, strict=True):
            np.testing.assert_array_equal(found.numpy(), expected)
    assert halves.captured
