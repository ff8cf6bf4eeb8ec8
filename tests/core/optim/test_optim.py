"""Update rules against the papers' equations and PyTorch, clipping, schedules, and their state."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, GraphError
from tinygrad_rnn.nn import Linear, Parameter
from tinygrad_rnn.optim import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Optimizer,
    RMSprop,
    clip_grad_norm,
    clip_grad_value,
    schedule,
)

SEEDS = st.integers(0, 2**32)
SHAPES = [(), (3,), (2, 4), (0,)]

# For each rule: settings to draw from, PyTorch's name of it.
decay = st.sampled_from([0.0, 0.1])
momentum = st.sampled_from([0.0, 0.9])
betas = st.sampled_from([(0.9, 0.999), (0.0, 0.5)])
eps = st.sampled_from([1e-8, 0.1])
RULES = {
    SGD: st.fixed_dictionaries({"momentum": momentum, "weight_decay": decay})
    | st.fixed_dictionaries(
        {"momentum": st.just(0.9), "nesterov": st.just(True), "weight_decay": decay}
    ),
    Adam: st.fixed_dictionaries({"betas": betas, "eps": eps, "weight_decay": decay}),
    AdamW: st.fixed_dictionaries({"betas": betas, "eps": eps, "weight_decay": decay}),
    RMSprop: st.fixed_dictionaries(
        {
            "alpha": st.sampled_from([0.0, 0.9]),
            "eps": eps,
            "weight_decay": decay,
            "momentum": momentum,
        }
    ),
    Adagrad: st.fixed_dictionaries({"weight_decay": decay, "eps": eps}),
}
rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)


def reference(rule, theta, grads, lr, **o):
    """Follow the papers' equations, letter by letter, for one parameter."""
    theta = theta.copy()
    u = m = v = np.zeros_like(theta)
    for t, g in enumerate(grads, 1):
        lam = o.get("weight_decay", 0.01 if rule is AdamW else 0.0)
        if rule is AdamW:
            theta = theta - lr * lam * theta
        else:
            g = g + lam * theta
        if rule is SGD:
            u = o["momentum"] * u + g
            theta = theta - lr * (g + o["momentum"] * u if o.get("nesterov") else u)
        elif rule in (Adam, AdamW):
            b1, b2 = o["betas"]
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            theta = theta - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + o["eps"])
        elif rule is RMSprop:
            v = o["alpha"] * v + (1 - o["alpha"]) * g**2
            u = o["momentum"] * u + g / (np.sqrt(v) + o["eps"])
            theta = theta - lr * u
        else:
            v = v + g**2
            theta = theta - lr * g / (np.sqrt(v) + o["eps"])
    return theta


def problem(seed, steps=20, dtype="float64"):
    """Return initial values and a list of gradients for parameters of several shapes."""
    rng = np.random.default_rng(seed)
    values = [rng.normal(size=s).astype(dtype) for s in SHAPES]
    grads = [[rng.normal(size=s).astype(dtype) for s in SHAPES] for _ in range(steps)]
    return values, grads


def set_grads(params, grads):
    for p, g in zip(params, grads, strict=True):
        p.grad = None if g is None else tg.tensor(g)


def run(optimizer, grads):
    for row in grads:
        set_grads(optimizer.params, row)
        optimizer.step()


def snapshot(optimizer):
    return [p.numpy().copy() for p in optimizer.params], optimizer.state_dict()


def assert_same_state(a, b):
    np.testing.assert_equal(a, b)  # nested lists and dicts, exactly


# -- the rules -------------------------------------------------------------------------------------


@rules
@given(st.data(), SEEDS)
def test_twenty_steps_equal_the_papers_equations(rule, data, seed):
    options, lr = data.draw(RULES[rule]), data.draw(st.sampled_from([0.01, 0.5]))
    values, grads = problem(seed)
    params = [Parameter(v) for v in values]
    run(rule(params, lr=lr, **options), grads)
    for i, (p, value) in enumerate(zip(params, values, strict=True)):
        expected = reference(rule, value, [row[i] for row in grads], lr, **options)
        np.testing.assert_allclose(p.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.oracle
@rules
@given(st.data(), SEEDS)
def test_twenty_steps_equal_pytorchs_with_gradients_missing_now_and_then(rule, data, seed):
    torch = pytest.importorskip("torch")
    options, lr = data.draw(RULES[rule]), data.draw(st.sampled_from([0.01, 0.5]))
    values, grads = problem(seed)
    missing = np.random.default_rng(seed).random((len(grads), len(SHAPES))) < 0.2
    grads = [
        [None if gone else g for g, gone in zip(row, flags, strict=True)]
        for row, flags in zip(grads, missing, strict=True)
    ]
    params = [Parameter(v) for v in values]
    peers = [torch.tensor(v, requires_grad=True) for v in values]
    ours = rule(params, lr=lr, **options)
    theirs = getattr(torch.optim, rule.__name__)(peers, lr=lr, **options)
    for row in grads:
        set_grads(params, row)
        for q, g in zip(peers, row, strict=True):
            q.grad = None if g is None else torch.tensor(g)
        ours.step()
        theirs.step()
    for p, q in zip(params, peers, strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.oracle
@rules
def test_defaults_are_pytorchs(rule):
    torch = pytest.importorskip("torch")
    values, grads = problem(3)
    params = [Parameter(v) for v in values]
    peers = [torch.tensor(v, requires_grad=True) for v in values]
    lr = {"lr": 0.1} if rule is SGD else {}
    run(rule(params, **lr), grads)
    theirs = getattr(torch.optim, rule.__name__)(peers, **lr)
    for row in grads:
        for q, g in zip(peers, row, strict=True):
            q.grad = torch.tensor(g)
        theirs.step()
    for p, q in zip(params, peers, strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-12, atol=1e-12)


@rules
@given(st.data(), SEEDS, st.sampled_from(["float32", "float64"]))
def test_dtypes_and_arrays_stay_and_other_gradients_are_left_alone(rule, data, seed, dtype):
    options = data.draw(RULES[rule])
    values, grads = problem(seed, steps=3, dtype=dtype)
    params = [Parameter(v) for v in values]
    arrays = [p._data for p in params]
    optimizer = rule(params, lr=0.01, **options)
    for row in grads:
        set_grads(params, row)
        optimizer.step()
        for p, g in zip(params, row, strict=True):
            np.testing.assert_array_equal(p.grad.numpy(), g)
    for p, array in zip(params, arrays, strict=True):
        assert p._data is array
        assert p.dtype == dtype
        assert p.requires_grad
    for slots in optimizer.state_dict()["slots"]:
        assert all(slot.dtype == dtype for name, slot in slots.items() if name != "t")


@rules
@given(SEEDS)
def test_float32_follows_float64(rule, seed):
    values, grads = problem(seed)
    double, single = ([Parameter(v.astype(d)) for v in values] for d in ("f8", "f4"))
    run(rule(double, lr=0.01), grads)
    run(rule(single, lr=0.01), [[g.astype("f4") for g in row] for row in grads])
    for a, b in zip(double, single, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-4)


@rules
def test_memory_order_does_not_matter(rule):
    rng = np.random.default_rng(0)
    value, grad = rng.normal(size=(2, 4, 3))
    plain, turned = Parameter(value), Parameter(value)
    turned._rebind(np.asfortranarray(value))
    x = tg.tensor(grad)
    for p, y in ((plain, x), (turned, x), (turned, tg.tensor(np.asfortranarray(grad)))):
        p.data = value
        optimizer = rule([p], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (p * y).sum().backward()
            optimizer.step()
    assert turned._data.flags.f_contiguous
    np.testing.assert_array_equal(plain.numpy(), turned.numpy())


def test_a_parameter_without_a_gradient_is_skipped():
    a, b = Parameter(np.ones(2)), Parameter(np.ones(2))
    optimizer = Adam([a, b], lr=0.1, weight_decay=0.5)
    a.grad = tg.tensor(np.ones(2))
    optimizer.step()
    np.testing.assert_array_equal(b.numpy(), [1.0, 1.0])
    assert optimizer.state_dict()["slots"][1]["t"] == 0
    optimizer.zero_grad()
    assert a.grad is None
    before = a.numpy().copy()
    optimizer.step()
    np.testing.assert_array_equal(a.numpy(), before)


@rules
@given(data=st.data(), seed=SEEDS, stale=st.booleans())
def test_a_frozen_parameter_stays_and_is_released_as_it_was(rule, data, seed, stale):
    """A step without it is one in which it has no gradient, whatever was left in ``grad``."""
    options = data.draw(RULES[rule])
    values, grads = problem(seed, steps=6)
    frozen, plain = ([Parameter(v) for v in values] for _ in range(2))
    optimizers = [rule(parameters, lr=0.1, **options) for parameters in (frozen, plain)]
    for step in range(6):
        freeze = step in (2, 3)
        if stale and step == 2:
            frozen[1].grad = tg.tensor(grads[1][1])
        frozen[1].requires_grad = not freeze
        for i, (p, q) in enumerate(zip(frozen, plain, strict=True)):
            if freeze and i == 1:
                q.grad = None
                continue
            q.grad = tg.tensor(grads[step][i])
            p.grad = tg.tensor(grads[step][i])
        norms = [clip_grad_norm(parameters, 1.0).item() for parameters in (frozen, plain)]
        assert norms[0] == norms[1]
        for optimizer, parameters in zip(optimizers, (frozen, plain), strict=True):
            clip_grad_value(parameters, 0.5)
            optimizer.step()
        assert_same_state(*map(snapshot, optimizers))
        for optimizer in optimizers:
            optimizer.zero_grad()
        assert all(p.grad is None for p in frozen if p.requires_grad)


@rules
def test_parameters_frozen_beforehand_are_learned_once_released(rule):
    model = tg.nn.Sequential(Linear(2, 3), tg.tanh, Linear(3, 1)).requires_grad_(False)
    optimizer = rule(model.parameters(), lr=0.1)  # of nothing that it may change yet
    x, before = tg.randn(4, 2, rng=0), model.state_dict()
    for part, learned in ((2, ["2.weight", "2.bias"]), (0, list(before))):
        model[part].requires_grad_()
        model.zero_grad()
        optimizer.zero_grad()
        (model(x) ** 2).sum().backward()
        clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        after = model.state_dict()
        assert [n for n in after if (after[n] != before[n]).any()] == learned
    assert clip_grad_norm([tg.zeros(2)], 1.0).item() == 0.0


def test_a_step_makes_a_pending_backward_raise():
    w = Parameter(tg.ones(2))
    first = (w * w).sum()
    second = (w * w).sum()
    first.backward()
    SGD([w], lr=0.1).step()
    with pytest.raises(RuntimeError, match="changed in place"):
        second.backward()


@rules
def test_a_step_is_never_half_taken(rule):
    values, grads = problem(0)
    params = [Parameter(v) for v in values]
    optimizer = rule(params, lr=0.1)
    run(optimizer, grads[:2])
    set_grads(params, grads[2])
    moved = tg.nn.Module()
    moved.p = params[2]
    moved.to("float32")
    before = snapshot(optimizer)
    with pytest.raises(ArgumentError, match=r"step: parameter 2 is float32 .* was float64"):
        optimizer.step()
    assert_same_state(snapshot(optimizer), before)


# -- construction ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: SGD([], lr=1), "no parameters"),
        (lambda p: SGD((q for q in ()), lr=1), "already exhausted"),
        (lambda p: SGD(p, lr=1), "SGD: a list of tensors .* got a Parameter"),
        (lambda p: SGD(Linear(1, 1), lr=1), "module.parameters.* got a Linear"),
        (lambda p: SGD([p, {"params": [p]}], lr=1), "parameter 1 is a dict.*groups are a list of"),
        (lambda p: SGD({"params": [p]}, lr=1), "a list, or a list of groups; a group is a dict"),
        (lambda p: SGD([{"params": [p]}, p], lr=1), "group 1 has no 'params'.*got a? ?Parameter"),
        (lambda p: SGD([{"parameters": [p]}], lr=1), r"group 0 has no 'params'.*\['parameters'\]"),
        (lambda p: SGD([{"params": []}], lr=1), "group 0: no parameters"),
        (lambda p: SGD([{"params": [p]}, {"params": p}], lr=1), "0 and 1 are the same"),
        (
            lambda p: SGD([{"params": [p], "decay": 0}], lr=1),
            "'decay'; a group has params, lr, mom",
        ),
        (lambda p: AdamW([{"params": [p], "betas": 1}]), "group 0: betas are two numbers"),
        (lambda p: SGD([{"params": [p], "weight_decay": -1}], lr=1), "group 0: weight_decay must"),
        (lambda p: SGD([{"params": [p], "nesterov": 1}], lr=1), "nesterov must be True or False"),
        (lambda p: SGD([{"params": [p], "nesterov": True}], lr=1), "group 0: nesterov=True needs"),
        (lambda p: SGD([{"params": [p], "lr": -1}], lr=1), "SGD: lr must be"),
        (
            lambda p: SGD([{"params": [p]}, {"params": [Parameter([1.0])], "lr": 1}], lr=0),
            "group 1: lr=1.0 has no ratio to the optimiser's lr=0.*requires_grad_",
        ),
        (lambda p: SGD([p, p], lr=1), "parameters 0 and 1 are the same"),
        (lambda p: SGD([p, tg.zeros(2)], lr=1), "parameter 1, .* does not require a gradient"),
        (lambda p: SGD([p * 2], lr=1), "parameter 0, .* is the result of an operation"),
        (lambda p: SGD([p], lr=-1), r"SGD: lr must be in \[0, inf\), got -1"),
        (lambda p: SGD([p], lr=math.nan), "lr must be in"),
        (lambda p: SGD([p], lr=math.inf), "lr must be in"),
        (lambda p: SGD([p], lr="fast"), "lr must be a number, got 'fast'"),
        (lambda p: SGD([p], lr=1, momentum=1.0), r"momentum must be in \[0, 1.0\)"),
        (lambda p: SGD([p], lr=1, nesterov=True), "nesterov=True needs a momentum"),
        (lambda p: SGD([p], lr=1, weight_decay=-1), "weight_decay must be in"),
        (lambda p: Adam([p], betas=(1.0, 0.9)), "beta1 must be in"),
        (lambda p: AdamW([p], betas=(0.9, 1.0)), "AdamW: beta2 must be in"),
        (lambda p: RMSprop([p], alpha=1.0), "alpha must be in"),
        (lambda p: Adagrad([p], eps=-1.0), "eps must be in"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make(Parameter(tg.zeros(2)))


def grouped(rule, params, settings):
    """Return an optimiser of two groups of two parameters, the second with its own settings."""
    return rule([{"params": params[:2]}, {"params": params[2:], **settings}], lr=0.25)


@rules
@given(data=st.data(), seed=SEEDS)
def test_a_group_is_updated_as_by_an_optimiser_of_its_own(rule, data, seed):
    own = {**data.draw(RULES[rule]), "lr": data.draw(st.sampled_from([0.25, 0.125, 0.0]))}
    values, grads = problem(seed, steps=5)
    ours, theirs = ([Parameter(v) for v in values] for _ in range(2))
    optimizer = grouped(rule, ours, own)
    alone = [rule(theirs[:2], lr=0.25), rule(theirs[2:], **own)]
    for step, row in enumerate(grads):
        if step == 2:
            optimizer.lr = 0.5  # doubles the rates of all groups
            alone[0].lr, alone[1].lr = 0.5, 2 * own["lr"]
            assert [g["lr"] for g in optimizer.param_groups] == [0.5, 2 * own["lr"]]
        set_grads(optimizer.params, row)
        optimizer.step()
        for one, part in zip(alone, (row[:2], row[2:]), strict=True):
            set_grads(one.params, part)
            one.step()
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(p.numpy(), q.numpy())


@rules
@given(data=st.data(), seed=SEEDS)
def test_a_run_with_groups_that_is_resumed_is_bitwise_the_uninterrupted_one(rule, data, seed):
    own = {**data.draw(RULES[rule]), "lr": data.draw(st.sampled_from([0.25, 0.1, 0.03]))}
    values, grads = problem(seed, steps=6)
    optimizer = grouped(rule, [Parameter(v) for v in values], own)
    optimizer.lr = 0.07
    run(optimizer, grads[:3])
    saved, at = copy.deepcopy(optimizer.state_dict()), [p.numpy() for p in optimizer.params]
    run(optimizer, grads[3:])
    # The settings of the file replace those of the program, also a ratio of 1.
    again = grouped(rule, [Parameter(x) for x in at], {**own, "lr": 0.5})
    again.load_state_dict(saved)
    assert again.lr == 0.07
    run(again, grads[3:])
    assert_same_state(snapshot(again), snapshot(optimizer))
    assert again.lr == 0.07
    assert_same_state(again.param_groups[1]["lr"], optimizer.param_groups[1]["lr"])


def test_one_group_has_the_state_of_an_optimiser_without_groups():
    p, q = Parameter([1.0]), Parameter([2.0])
    group = SGD([{"params": [p, q], "lr": 0.5}], lr=0.1)
    assert group.lr == 0.5
    assert_same_state(group.state_dict(), SGD([p, q], lr=0.5).state_dict())


def test_the_state_of_other_groups_is_refused_and_nothing_is_loaded():
    p, q, r = (Parameter([1.0]) for _ in range(3))
    two = SGD([{"params": [p, q]}, {"params": [r], "lr": 0.2}], lr=0.1)
    for other in (
        SGD([p, q, r], lr=1.0),
        SGD([{"params": [p]}, {"params": [q, r]}], lr=1.0),
        SGD([{"params": [x]} for x in (p, q, r)], lr=1.0),
    ):
        for one, state in ((two, other.state_dict()), (other, two.state_dict())):
            before = copy.deepcopy(one.state_dict())
            with pytest.raises(ArgumentError, match=r"groups of .*with the groups of the"):
                one.load_state_dict(state)
            assert_same_state(one.state_dict(), before)
    for spoil, message in (
        (lambda groups: groups[1].pop("momentum"), "1: missing: momentum"),
        (lambda groups: groups[1].update(nesterov=0.5), "nesterov is 0.5, and a bool"),
        (lambda groups: groups[0].update(momentum=-1.0), "group 0: momentum must be"),
        (lambda groups: groups.insert(0, 3), "groups: a list of dicts"),
    ):
        state = two.state_dict()
        spoil(state["groups"])
        with pytest.raises(ArgumentError, match=message):
            two.load_state_dict(state)
        assert two.param_groups[1]["lr"] == 0.2


def test_the_settings_of_a_group_are_shown_and_not_assigned():
    p, q = Parameter(tg.zeros(2, 3)), Parameter([2.0])
    optimizer = AdamW([{"params": [p]}, {"params": q, "lr": 0.01, "weight_decay": 0}], lr=0.1)
    first, second = optimizer.param_groups
    assert first["params"] == [p]
    assert second["params"] == [q]
    assert (first["lr"], second["lr"], second["weight_decay"]) == (0.1, 0.01, 0.0)
    for change in (lambda: second.update(lr=1.0), lambda: second.__setitem__("lr", 1.0)):
        with pytest.raises(ArgumentError, match=r"'lr' cannot be assigned.*optimizer.lr = rate"):
            change()
    assert [line.partition("  ")[2] for line in repr(optimizer).splitlines()] == [
        "6 parameters",
        "1 parameters",
    ]
    schedule.Scheduler(optimizer, schedule.constant(0.5))
    assert [g["lr"] for g in optimizer.param_groups] == [0.05, 0.005]


def test_an_error_in_one_group_leaves_the_settings_of_the_first():
    class Fails(SGD):
        def _update(self, p, g, lr, state):
            if self._hyper["weight_decay"]:
                raise RuntimeError
            super()._update(p, g, lr, state)

    params = [Parameter([1.0]), Parameter([1.0])]
    optimizer = Fails([{"params": params[:1]}, {"params": params[1:], "weight_decay": 1}], lr=0.5)
    set_grads(params, [np.ones(1, "float32")] * 2)
    with pytest.raises(RuntimeError):
        optimizer.step()
    assert optimizer._hyper["weight_decay"] == 0
    assert [p.item() for p in params] == [0.5, 1.0]


@pytest.mark.oracle
@rules
@given(data=st.data(), seed=SEEDS)
def test_groups_equal_pytorchs(rule, data, seed):
    torch = pytest.importorskip("torch")
    own = {**data.draw(RULES[rule]), "lr": data.draw(st.sampled_from([0.25, 0.01]))}
    values, grads = problem(seed, steps=5)
    ours = [Parameter(v) for v in values]
    theirs = [torch.tensor(v, requires_grad=True) for v in values]
    decay = {"weight_decay": 0.05}
    optimizer = rule([{"params": ours[:2]}, {"params": ours[2:], **own}], lr=0.1, **decay)
    peer = getattr(torch.optim, rule.__name__)(
        [{"params": theirs[:2]}, {"params": theirs[2:], **own}], lr=0.1, **decay,
        **({"eps": 1e-10} if rule is Adagrad else {}),
    )  # fmt: skip
    for row in grads:
        set_grads(ours, row)
        for q, grad in zip(theirs, row, strict=True):
            q.grad = torch.tensor(grad)
        optimizer.step()
        peer.step()
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-9, atol=1e-9)


@rules
def test_the_learning_rate_is_a_number_that_can_be_set(rule):
    values, grads = problem(0, steps=1)
    optimizer = rule([Parameter(v) for v in values], lr=0.25)
    assert optimizer.lr == 0.25
    assert type(optimizer.lr) is float
    optimizer.lr = 0
    before = snapshot(optimizer)[0]
    run(optimizer, grads)
    for a, b in zip(before, snapshot(optimizer)[0], strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ArgumentError, match="lr must be in"):
        optimizer.lr = -0.1
    assert optimizer.lr == 0.0


def test_repr_shows_settings_and_size():
    optimizer = SGD(Linear(30, 50).parameters(), lr=0.5, momentum=0.9)
    expected = "SGD(lr=0.5, momentum=0.9, nesterov=False, weight_decay=0.0)  1,550 parameters"
    assert repr(optimizer) == expected


def test_a_rule_of_ones_own_must_say_how_it_updates():
    p = Parameter(tg.zeros(2))
    p.grad = tg.ones(2)
    with pytest.raises(NotImplementedError, match="Optimizer"):
        Optimizer([p], lr=1.0).step()


@rules
def test_every_rule_learns_a_small_regression(rule):
    x = tg.tensor(np.random.default_rng(0).normal(size=(64, 3)))
    y = x @ tg.tensor(np.array([[1.0], [-2.0], [0.5]])) + 0.3
    model = Linear(3, 1, dtype="float64", rng=0)
    rate = {SGD: 0.3, Adagrad: 1.0}.get(rule, 0.05)
    optimizer = rule(model.parameters(), lr=rate)
    scheduler = schedule.Scheduler(optimizer, schedule.cosine(300))
    for _ in range(300):
        loss = tg.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    assert loss.item() < 1e-4


# -- state -----------------------------------------------------------------------------------------


@rules
@given(st.data(), SEEDS, st.integers(0, 6))
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(rule, data, seed, cut):
    options = data.draw(RULES[rule])
    values, grads = problem(seed, steps=6, dtype="float32")
    whole = rule([Parameter(v) for v in values], lr=0.1, **options)
    run(whole, grads)
    first = rule([Parameter(v) for v in values], lr=0.1, **options)
    run(first, grads[:cut])
    state = first.state_dict()
    handed_out = copy.deepcopy(state)
    second = rule([Parameter(p.numpy()) for p in first.params], lr=0.7, **options)
    second.load_state_dict(state)
    assert second.lr == 0.1
    assert_same_state(second.state_dict(), state)
    run(first, grads[cut:])
    assert_same_state(state, handed_out)
    run(second, grads[cut:])
    assert_same_state(snapshot(second), snapshot(whole))
    assert_same_state(snapshot(first), snapshot(whole))


@rules
def test_hyperparameters_come_back_with_the_state(rule):
    p = Parameter(tg.ones(2))
    a = rule([p], lr=0.125, weight_decay=0.5)
    b = rule([p], lr=1.0)
    b.load_state_dict(a.state_dict())
    assert repr(b) == repr(a)


FAULTS = [
    (lambda s: s.pop("slots"), "missing: slots"),
    (lambda s: s.update(optimizer="SGD"), "the state is one of SGD"),
    (lambda s: s["hyperparameters"].pop("eps"), "hyperparameters: missing: eps"),
    (lambda s: s["hyperparameters"].update(beta1=1.5), "beta1 must be in"),
    (lambda s: s["hyperparameters"].update(lr="x"), "lr must be a number"),
    (lambda s: s["slots"].pop(), "the state is for 3 parameters, there are 4"),
    (lambda s: s["slots"][1].pop("m"), "parameter 1: missing: m"),
    (lambda s: s["slots"][1].update(m=np.zeros(4)), r"parameter 1: m is float64 \(4,\)"),
    (lambda s: s["slots"][1].update(m=np.zeros(3, "f4")), "parameter 1: m is float32"),
    (lambda s: s["slots"][1].update(m=[0.0] * 3), "parameter 1: m is a list"),
]


@pytest.mark.parametrize(("damage", "message"), FAULTS)
def test_a_state_that_does_not_fit_is_refused_before_anything_is_written(damage, message):
    values, grads = problem(1)
    optimizer = Adam([Parameter(v) for v in values], lr=0.1)
    run(optimizer, grads)
    state = copy.deepcopy(optimizer.state_dict())
    state["hyperparameters"]["lr"] = 0.5
    for slots in state["slots"]:
        slots["v"] += 1
    damage(state)
    before = snapshot(optimizer)
    with pytest.raises(ArgumentError, match=message):
        optimizer.load_state_dict(state)
    assert_same_state(snapshot(optimizer), before)


def test_the_error_of_a_wrong_state_lists_every_fault():
    optimizer = Adam([Parameter(tg.ones(2)), Parameter(tg.ones(3))])
    state = optimizer.state_dict()
    state["optimizer"] = "SGD"
    state["slots"][0]["m"] = np.zeros(5, np.float32)
    state["slots"][1].pop("v")
    with pytest.raises(ArgumentError) as caught:
        optimizer.load_state_dict(state)
    for part in ("one of SGD", "parameter 0: m is float32 (5,)", "parameter 1: missing: v"):
        assert part in str(caught.value)


# -- clipping --------------------------------------------------------------------------------------

GRADS = st.lists(
    hnp.array_shapes(min_dims=0, max_dims=2, max_side=4).flatmap(
        lambda shape: hnp.arrays(
            "float64", shape, elements=st.just(0.0) | st.floats(1e-100, 100) | st.floats(-100, -1.0)
        )
    ),
    min_size=1,
    max_size=4,
)


def with_grads(grads):
    params = [Parameter(np.zeros_like(g)) for g in grads]
    set_grads(params, grads)
    return params


@given(GRADS, st.floats(1e-3, 1e3))
def test_clip_grad_norm_is_the_books_formula(grads, theta):
    params = with_grads(grads)
    expected = math.sqrt(sum((g**2).sum() for g in grads))
    norm = clip_grad_norm(params, theta)
    assert norm.shape == ()
    assert not norm.requires_grad
    assert norm.item() == pytest.approx(expected, rel=1e-12)
    factor = min(1.0, theta / expected) if expected else 1.0
    for p, g in zip(params, grads, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), factor * g, rtol=1e-12, atol=1e-300)
        if factor == 1.0 and expected < theta:
            np.testing.assert_array_equal(p.grad.numpy(), g)
    assert clip_grad_norm(params, theta).item() <= theta * (1 + 1e-12)


@pytest.mark.oracle
@given(GRADS, st.floats(1e-3, 1e3))
def test_clip_grad_norm_equals_pytorchs(grads, theta):
    torch = pytest.importorskip("torch")
    params = with_grads(grads)
    peers = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in grads]
    for q, g in zip(peers, grads, strict=True):
        q.grad = torch.tensor(g)
    norm = clip_grad_norm(params, theta)
    peer = torch.nn.utils.clip_grad_norm_(peers, theta)
    np.testing.assert_allclose(norm.numpy(), peer.numpy(), rtol=1e-12)
    for p, q in zip(params, peers, strict=True):  # theirs divides by the norm plus 1e-6
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=2e-6 / theta, atol=1e-12)


def test_a_float32_gradient_that_has_exploded_is_still_brought_to_the_norm():
    w = Parameter(tg.zeros(4))
    w.grad = tg.full((4,), 1e30)
    norm = clip_grad_norm([w], 1.0)
    assert norm.dtype == np.float32
    assert norm.item() == pytest.approx(2e30)
    np.testing.assert_allclose(w.grad.numpy(), 0.5, rtol=1e-6)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_norm_that_is_not_finite_is_refused_when_asked(bad):
    grads = [np.ones(2), np.array([1.0, bad]), np.ones(())]
    params = with_grads(grads)
    with pytest.raises(FloatingPointError, match=r"3 gradients .*parameters 1;"):
        clip_grad_norm(params, 1.0, error_if_nonfinite=True)
    for p, g in zip(params, grads, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), g)
    with np.errstate(invalid="ignore"):
        norm = clip_grad_norm(params, 1.0)
    assert not math.isfinite(norm.item())


def test_clipping_leaves_out_parameters_without_a_gradient():
    a, b = Parameter(tg.zeros(2)), Parameter(tg.zeros(2))
    assert clip_grad_norm([a, b], 1.0).item() == 0.0
    b.grad = tg.tensor([3.0, 4.0])
    assert clip_grad_norm(iter([a, b]), 1.0).item() == 5.0
    clip_grad_value([a, b], 0.7)
    np.testing.assert_allclose(b.grad.numpy(), [0.6, 0.7], rtol=1e-6)
    assert a.grad is None


@given(GRADS, st.floats(1e-3, 1e3))
def test_clip_grad_value_bounds_every_element(grads, bound):
    params = with_grads(grads)
    clip_grad_value(params, bound)
    for p, g in zip(params, grads, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), np.clip(g, -bound, bound))


@pytest.mark.parametrize("clip", [clip_grad_norm, clip_grad_value])
def test_clipping_makes_a_pending_backward_over_the_gradient_raise(clip):
    w, x = Parameter(tg.ones(2)), tg.ones(2, requires_grad=True)
    w.grad = tg.tensor([3.0, 4.0])
    loss = (x * w.grad).sum()
    clip([w], 1.0)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_clipping_does_not_reach_a_shared_array():
    a, b = Parameter(np.ones(2)), Parameter(np.ones(2))
    (a + b).sum().backward()
    clip_grad_norm([a, b], 1.0)
    np.testing.assert_allclose([a.grad.numpy(), b.grad.numpy()], 0.5)


@pytest.mark.parametrize("bound", [0, -1.0, math.nan])
def test_bounds_must_be_positive(bound):
    w = Parameter(tg.zeros(2))
    with pytest.raises(ArgumentError, match="max_norm must be above 0"):
        clip_grad_norm([w], bound)
    with pytest.raises(ArgumentError, match="max_value must be above 0"):
        clip_grad_value([w], bound)
    with pytest.raises(ArgumentError, match="clip_grad_norm: a list"):
        clip_grad_norm(w, 1.0)


# -- schedules -------------------------------------------------------------------------------------

STEPS = st.integers(1, 50)


@given(STEPS, STEPS, st.floats(0.1, 1), st.floats(0, 1))
def test_schedules_are_their_formulas(n, t, gamma, floor):
    assert schedule.constant(gamma)(t) == gamma
    assert schedule.step(n, gamma)(t) == pytest.approx(gamma ** (t // n))
    assert schedule.exponential(gamma)(t) == pytest.approx(gamma**t)
    assert schedule.linear_warmup(n)(t) == min(1.0, (t + 1) / n)
    cosine = schedule.cosine(n, floor)
    assert cosine(0) == 1.0
    assert cosine(n) == pytest.approx(floor, abs=1e-15)
    assert cosine(n + t) == cosine(n)
    assert floor - 1e-15 <= cosine(t + 1) <= cosine(t)
    both = schedule.compose(schedule.linear_warmup(n), cosine, schedule.exponential(gamma))
    assert both(t) == pytest.approx(min(1.0, (t + 1) / n) * cosine(t) * gamma**t)
    assert schedule.compose()(t) == 1


def test_an_update_that_is_interrupted_is_noticed_by_the_graph():
    class Interrupted(SGD):
        def _update(self, p, g, lr, slots):
            super()._update(p, g, lr, slots)
            raise KeyboardInterrupt

    w = Parameter(tg.ones(3))
    (w * w).sum().backward()
    saved = (w * w).sum()
    with pytest.raises(KeyboardInterrupt):
        Interrupted([w], lr=0.1).step()
    with pytest.raises(GraphError, match="changed in place"):
        saved.backward()


@pytest.mark.oracle
@given(STEPS)
def test_schedules_equal_pytorchs(n):
    torch = pytest.importorskip("torch")
    peers = torch.optim.lr_scheduler
    cases = [
        (schedule.step(n, 0.5), lambda o: peers.StepLR(o, n, 0.5)),
        (schedule.exponential(0.9), lambda o: peers.ExponentialLR(o, 0.9)),
        (schedule.cosine(n, 0.1), lambda o: peers.CosineAnnealingLR(o, n, 0.1 * 0.3)),
    ]
    for ours, make in cases:
        optimizer = SGD([Parameter(tg.zeros(1))], lr=0.3)
        peer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
        scheduler, peer_scheduler = schedule.Scheduler(optimizer, ours), make(peer)
        for _ in range(n + 1):
            assert optimizer.lr == pytest.approx(peer.param_groups[0]["lr"], abs=1e-12)
            peer.step()
            scheduler.step()
            peer_scheduler.step()
            if scheduler.count > n:
                break  # theirs rises again after the last step of the cosine


@pytest.mark.oracle
@given(st.lists(st.integers(0, 1), max_size=12), STEPS)
def test_two_schedulers_of_one_optimiser_are_chained_as_pytorchs(steps, n):
    torch = pytest.importorskip("torch")
    peers = torch.optim.lr_scheduler
    cases = [
        (schedule.step(n, 0.5), lambda o: peers.StepLR(o, n, 0.5)),
        (schedule.exponential(0.9), lambda o: peers.ExponentialLR(o, 0.9)),
        (lambda t: 0.3 + 0.1 * min(t, 7), lambda o: peers.LinearLR(o, 0.3, 1.0, 7)),
    ]
    for one, other in itertools.permutations(cases, 2):
        optimizer = SGD([Parameter(tg.zeros(1))], lr=0.3)
        peer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
        ours = [schedule.Scheduler(optimizer, make) for make, _ in (one, other)]
        theirs = [make(peer) for _, make in (one, other)]
        assert optimizer.lr == pytest.approx(peer.param_groups[0]["lr"], rel=1e-12)
        for i in steps:
            peer.step()
            ours[i].step()
            theirs[i].step()
            assert optimizer.lr == pytest.approx(peer.param_groups[0]["lr"], rel=1e-12)
        assert ours[0].base_lr == ours[1].base_lr == 0.3


FACTORS = [
    schedule.linear_warmup(5),
    schedule.cosine(9, 0.1),
    schedule.exponential(0.5),
    schedule.step(2),
]
CHAINS = st.lists(st.sampled_from(FACTORS), min_size=1, max_size=3)
ORDERS = st.lists(st.integers(0, 2), max_size=20)


def chained(factors, lr):
    optimizer = SGD([Parameter(tg.zeros(1))], lr=lr)
    return optimizer, [schedule.Scheduler(optimizer, factor) for factor in factors]


@given(CHAINS, ORDERS)
def test_schedulers_multiply_their_factors_whichever_steps(factors, order):
    optimizer, schedulers = chained(factors, 0.7)
    for i in order:
        schedulers[i % len(schedulers)].step()
        parts = [s.schedule(s.count) for s in schedulers]
        assert optimizer.lr == pytest.approx(0.7 * math.prod(parts), rel=1e-14)
    assert sum(s.count for s in schedulers) == len(order)


@given(CHAINS, ORDERS, ORDERS, st.randoms(use_true_random=False))
def test_chained_schedulers_resume_in_whichever_order_they_are_loaded(
    factors, before, after, random
):
    optimizer, schedulers = chained(factors, 0.7)
    for i in before:
        schedulers[i % len(factors)].step()
    resumed, others = chained(factors, 0.2)
    parts = list(zip([resumed, *others], [optimizer, *schedulers], strict=True))
    random.shuffle(parts)
    for part, saved in parts:
        part.load_state_dict(saved.state_dict())
    copied, copies = copy.deepcopy((optimizer, schedulers))
    for i in [None, *after]:
        for group in (schedulers, others, copies) if i is not None else ():
            group[i % len(factors)].step()
        assert resumed.lr == copied.lr == optimizer.lr


def test_a_second_phase_starts_from_the_rate_of_the_first():
    optimizer, (first,) = chained([schedule.exponential(0.9)], 0.7)
    for _ in range(5):
        first.step()
    rate = optimizer.lr
    del first
    second = schedule.Scheduler(optimizer, schedule.exponential(0.8))
    for t in range(5):
        assert optimizer.lr == rate * 0.8**t
        second.step()


def test_a_rate_that_is_assigned_is_the_base_of_the_next_scheduler():
    optimizer, (first,) = chained([schedule.cosine(2)], 0.7)
    first.step()
    first.step()
    assert optimizer.lr == 0
    optimizer.lr = 0.3  # a warm restart
    second = schedule.Scheduler(optimizer, schedule.exponential(0.5))
    second.step()
    assert (optimizer.lr, second.base_lr) == (0.15, 0.3)
    with pytest.raises(ArgumentError, match=r"optimizer\.lr was assigned .* this one again"):
        first.step()
    assert (optimizer.lr, first.count) == (0.15, 2)
    first.load_state_dict({"base_lr": 0.3, "count": 1})  # it joins the other
    assert optimizer.lr == pytest.approx(0.3 * 0.5 * 0.5)
    first.base_lr = 0.6
    assert (second.base_lr, optimizer.lr) == (0.6, pytest.approx(0.15))


def test_a_factor_that_is_none_changes_nothing():
    optimizer, (first,) = chained([lambda t: 1.0 - t], 0.7)
    with pytest.raises(ArgumentError, match="lr must be in"):
        schedule.Scheduler(optimizer, lambda t: math.nan)
    second = schedule.Scheduler(optimizer, schedule.constant(0.5))
    first.step()
    with pytest.raises(ArgumentError, match="lr must be in"):
        first.step()
    assert (first.count, optimizer.lr) == (1, 0.0)
    second.step()
    assert optimizer.lr == 0.0


def test_loading_a_scheduler_sets_the_learning_rate():
    optimizer = SGD([Parameter(tg.zeros(1))], lr=0.9)
    scheduler = schedule.Scheduler(optimizer, schedule.exponential(0.5))
    scheduler.load_state_dict({"base_lr": 0.5, "count": 2})
    assert optimizer.lr == 0.125
    assert (scheduler.base_lr, scheduler.count) == (0.5, 2)


@given(STEPS, STEPS)
def test_a_scheduler_resumes_where_it_was(before, after):
    def make(lr):
        optimizer = SGD([Parameter(tg.zeros(1))], lr=lr)
        return optimizer, schedule.Scheduler(optimizer, schedule.cosine(60))

    optimizer, scheduler = make(0.5)
    for _ in range(before):
        scheduler.step()
    resumed, other = make(0.9)
    resumed.load_state_dict(optimizer.state_dict())
    other.load_state_dict(scheduler.state_dict())
    for _ in range(after):
        assert resumed.lr == optimizer.lr
        scheduler.step()
        other.step()
    assert other.state_dict() == {"base_lr": 0.5, "count": before + after}


def test_a_scheduler_refuses_another_state_and_keeps_its_own():
    optimizer = SGD([Parameter(tg.zeros(1))], lr=0.5)
    scheduler = schedule.Scheduler(optimizer, schedule.exponential(0.5))
    scheduler.step()
    with pytest.raises(ArgumentError, match="missing: base_lr"):
        scheduler.load_state_dict({"count": 3})
    assert scheduler.state_dict() == {"base_lr": 0.5, "count": 1}
    assert optimizer.lr == 0.25


@pytest.mark.parametrize("steps", [0, -1, 2.5, True, "3"])
def test_schedules_count_in_positive_integers(steps):
    for make in (schedule.step, schedule.cosine, schedule.linear_warmup):
        with pytest.raises(ArgumentError, match=rf"{make.__name__}: .* positive integer"):
            make(steps)


PLATEAUS = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["min", "max"]),
        "factor": st.sampled_from([0.1, 0.5]),
        "patience": st.integers(0, 3),
        "threshold": st.sampled_from([0.0, 0.1, 0.5]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 2),
        "min_lr": st.sampled_from([0.0, 0.02, 0.5]),
    },
)
METRICS = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1.0, 1.05, 2.0, 3.0, math.inf]), max_size=15)


@pytest.mark.oracle
@given(PLATEAUS, METRICS, st.integers(0, 15), st.booleans())
def test_plateaus_equal_pytorchs_also_resumed(settings, metrics, cut, warm):
    torch = pytest.importorskip("torch")
    peer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(peer, eps=0, **settings)
    optimizer = SGD([Parameter(tg.zeros(1))], lr=0.3)
    ours = schedule.ReduceLROnPlateau(optimizer, **settings)
    factor = 0.5 if warm else 1.0
    if warm:
        schedule.Scheduler(optimizer, schedule.constant(0.5))
    for i, metric in enumerate(metrics):
        if i == cut:
            optimizer = SGD([Parameter(tg.zeros(1))], lr=7.0)
            if warm:
                schedule.Scheduler(optimizer, schedule.constant(0.5))
            again = schedule.ReduceLROnPlateau(optimizer, **settings)
            again.load_state_dict(ours.state_dict())
            ours = again
        ours.step(metric)
        theirs.step(metric)
        expected = peer.param_groups[0]["lr"]
        assert optimizer.lr == pytest.approx(expected * factor, rel=1e-12)
        assert (ours.best, ours.bad) == (theirs.best, theirs.num_bad_epochs)


def test_a_plateau_that_cannot_compare_changes_nothing():
    optimizer = SGD([Parameter(tg.zeros(1))], lr=1.0)
    plateau = schedule.ReduceLROnPlateau(optimizer, patience=0)
    plateau.step(tg.tensor(2.0))
    before = plateau.state_dict()
    for metric, message in ((math.nan, "is nan: look for its cause"), ("low", "must be a number")):
        with pytest.raises(ArgumentError, match=message):
            plateau.step(metric)
    for spoil in ({"best": 1}, {"bad": -1}, {"factor": math.nan}, {"resting": 0.5}):
        with pytest.raises(ArgumentError, match=f"{next(iter(spoil))} is .* is expected"):
            plateau.load_state_dict({**before, **spoil})
    assert plateau.state_dict() == before
    assert optimizer.lr == 1.0
    optimizer.lr = 0.5
    schedule.Scheduler(optimizer, schedule.constant())
    with pytest.raises(ArgumentError, match=r"ReduceLROnPlateau.step: optimizer.lr was assigned"):
        plateau.step(1.0)


def test_a_plateau_reduces_the_rates_of_all_groups_and_a_rate_of_zero_stays():
    p, q = Parameter([1.0]), Parameter([2.0])
    optimizer = SGD([{"params": p}, {"params": q, "lr": 0.01}], lr=0.1)
    plateau = schedule.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    for _ in range(2):
        plateau.step(1.0)
    assert [g["lr"] for g in optimizer.param_groups] == [0.05, 0.005]
    still = SGD([p], lr=0.0)
    plateau = schedule.ReduceLROnPlateau(still, patience=0, min_lr=0.1)
    for _ in range(3):
        plateau.step(1.0)
    assert still.lr == 0.0
