"""Loops over time and fused functions in CUDA: NumPy's executor is their oracle.

On the stand-in for CuPy the kernels are compiled by the host's C++ compiler (cuda_on_host.py).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_fuse
from hypothesis import given, settings
from hypothesis import strategies as st
from test_traced_scan import (
    USER_CELLS,
    Case,
    Options,
    assert_close,
    cases_and_options,
    derivatives,
    flat,
    run,
)

import cuda_on_host
import tinygrad_rnn as tg
from tinygrad_rnn.errors import CompilerError, ExecutorWarning
from tinygrad_rnn.recurrence import loop
from tinygrad_rnn.speed import device_call, scan
from tinygrad_rnn.speed.cuda import graphs, module

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from cells import CELLS

without = cuda_on_host.unavailable_because()
# Each example compiles two libraries.
FEW = settings(max_examples=max(8, settings.default.max_examples // 3), print_blob=True)


@pytest.fixture(autouse=True)
def compiled(request: pytest.FixtureRequest) -> Iterator[None]:
    """Skip what the stand-in cannot run; compare with NumPy's executor."""
    if request.getfixturevalue("accelerator") == "cuda" and without:
        pytest.skip(without)
    before = tg.fuse.backend()
    tg.fuse.backend("numpy")
    yield
    tg.fuse.backend(before)


def run_on(device: str, case: Case, options: Options, dtype: Any, order: int) -> tuple[Any, Any]:
    """As `run` of test_traced_scan, with the loop on a device."""
    tg.random.manual_seed(case.seed)
    given = case.leaves(dtype)
    there = {name: [x.to(device) for x in group] for name, group in given.items()}
    state, xs = case.arguments(there)
    if case.counts:
        elements = case.unpacked(state)
        state = case.packed([*elements[:-1], elements[-1].to(device)])
    with loop.reports() as reports:
        state, ys = tg.scan(case.step(there), state, xs, **options._asdict())
    leaves = [x for group in given.values() for x in group]
    results = [y.to("cpu") for y in [*flat(state), *flat(ys)]]
    kind = type(state), [y.requires_grad for y in results]
    return (derivatives(results, leaves, case.seed, order), kind), reports[0]


@FEW
@given(drawn=cases_and_options())
def test_random_steps_are_those_of_numpy(accelerator: str, drawn: tuple[Case, Options]) -> None:
    case, options = drawn
    found, report = run_on(accelerator, case, options, np.float64, 1)
    wanted, other = run(case, options, np.float64, 1)
    assert_close(found[0], wanted[0], 1e-11)
    assert found[1] == wanted[1]
    assert report.executor == "cuda" or report.reason.startswith("not in CUDA") or not other.traced


@FEW
@given(drawn=cases_and_options())
def test_second_derivatives_are_those_of_numpy(
    accelerator: str, drawn: tuple[Case, Options]
) -> None:
    case, options = drawn
    found, _ = run_on(accelerator, case, options, np.float64, 2)
    wanted, _ = run(case, options, np.float64, 2)
    assert_close(found[0], wanted[0], 1e-9)


# -- layers and cells ------------------------------------------------------------------------------

LAYERS: dict[str, Any] = {
    "RNN": lambda: tg.nn.RNN(5, 7),
    "relu": lambda: tg.nn.RNN(5, 7, nonlinearity="relu"),
    "GRU": lambda: tg.nn.GRU(5, 7, num_layers=2),
    "LSTM": lambda: tg.nn.LSTM(5, 7, bidirectional=True),
    "projection": lambda: tg.nn.LSTM(5, 7, proj_size=3),
    **{f"{n} cell": lambda cell=cell: tg.nn.Recurrent(cell, 5, 7) for n, cell in CELLS.items()},
    **{cell.__name__: lambda cell=cell: tg.nn.Recurrent(cell, 5, 7) for cell in USER_CELLS},
}
T, B = 6, 4
CALLS: dict[str, Any] = {
    "plain": dict,
    "ragged": lambda: {"lengths": [6, 0, 3, 5]},
    "truncated": lambda: {"bptt": tg.bptt.Truncated(2)},
    "random": lambda: {"bptt": tg.bptt.Randomized(0.5, rng=3), "lengths": [2, 6, 3, 5]},
}


def trained(layer: Any, device: str, seed: int = 0, **options: Any) -> list[np.ndarray]:
    """The results of a layer on a device, and all gradients."""
    rng = np.random.default_rng(seed)
    dtype = next(layer.parameters()).dtype
    x = tg.tensor(rng.standard_normal((T, B, 5)).astype(dtype), requires_grad=True)
    layer = layer.to(device)
    with loop.reports() as reports:
        y, state = layer(x.to(device), **options)
    longer = [r for r in reports if r.reason != "it is a single step"]
    assert {r.executor for r in longer} == {"numpy" if device == "cpu" else "cuda"}, longer
    results = [y, *(state if isinstance(state, tuple) else (state,))]
    parameters = list(layer.parameters())
    found = derivatives([y.to("cpu") for y in results], [x], 1, 1)
    loss = sum((tg.sin(y) * y).sum() for y in results)
    grads = tg.grad(loss, parameters, allow_unused=True)
    return [*found, *(g.to("cpu").numpy() for g in grads if g is not None)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_those_of_numpy(accelerator: str, name: str, call: str, dtype: Any) -> None:
    def layer() -> Any:
        tg.random.manual_seed(1)
        return LAYERS[name]().to(dtype)

    found = trained(layer(), accelerator, **CALLS[call]())
    wanted = trained(layer(), "cpu", **CALLS[call]())
    assert_close(found, wanted, 1e-5 if dtype is np.float32 else 1e-12)


def test_elements_have_the_bits_of_c(accelerator: str) -> None:
    """Fused functions and stages are the same lines in both languages."""
    tg.fuse.backend("c")
    fused = tg.fuse(lambda x, y: tg.tanh(x) * tg.sigmoid(y) + tg.exp(x - y) / (1 + tg.log1p(x * x)))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 9, 33)).astype(np.float32)
    found = []
    for device in ("cpu", accelerator):
        a, b = (tg.tensor(z, device=device, requires_grad=True) for z in (x, y))
        (fused(a, b) * a).sum().backward()
        state, ys = tg.scan(
            lambda h, z: (tg.tanh(h * 0.5 + z), tg.sin(h)), a.detach()[0], b.detach()
        )
        found.append([z.to("cpu").numpy() for z in (a.grad, b.grad, state, ys)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


# -- CUDA graphs -----------------------------------------------------------------------------------


@pytest.fixture
def level() -> Iterator[Any]:
    """`module.use`, with the level before and no graphs after the test."""
    before = module.level()
    yield module.use
    module.use(before)
    graphs.clear()


@pytest.mark.parametrize(
    ("name", "call"), [*((n, "plain") for n in LAYERS), *(("LSTM", call) for call in CALLS)]
)
def test_graphs_compute_what_launches_compute(
    accelerator: str, name: str, call: str, level: Any
) -> None:
    """To the bit: with other inputs, and parameters that were updated in place."""
    found: dict[str, Any] = {"kernels": [], "graphs": []}
    for chosen, results in found.items():
        level(chosen)
        tg.random.manual_seed(1)
        layer = LAYERS[name]().to(np.float32)
        options = CALLS[call]()
        for step in range(5):
            results.append(trained(layer, accelerator, step, **options))
            for p in layer.parameters():
                p.data[...] = 0.9 * p.data
    for one, other in zip(found["kernels"], found["graphs"], strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    replayed = [g for g in graphs._graphs.values() if g.graph is not None]
    assert replayed or call == "random" or name == "projection"


def test_results_outlive_later_calls(accelerator: str, level: Any) -> None:
    """Two calls before the first backward pass, with one graph for both."""
    level("graphs")
    layer = tg.nn.LSTM(5, 7, rng=0).to(accelerator)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((T, B, 5)).astype(np.float32) for _ in range(6)]

    def gradient(y: Any) -> np.ndarray:
        (grad,) = tg.grad((y * y).sum(), [layer.weight_hh_l0], retain_graph=True)
        return grad.to("cpu").numpy()

    alone = []
    for x in inputs:
        y, _ = layer(tg.tensor(x, device=accelerator))
        alone.append((y.detach().to("cpu").numpy(), gradient(y)))
    together = [layer(tg.tensor(x, device=accelerator))[0] for x in inputs]
    for y, (value, grad) in zip(together, alone, strict=True):
        np.testing.assert_array_equal(y.detach().to("cpu").numpy(), value)
        np.testing.assert_array_equal(gradient(y), grad)


def test_a_capture_that_fails_is_told_once(
    accelerator: str, level: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    level("graphs")
    graphs.clear()

    def fail(self: Any, body: Any) -> None:
        raise RuntimeError("no capture")

    monkeypatch.setattr(graphs.Graph, "_capture", fail)
    h, x = tg.ones(2, 3, device=accelerator), tg.ones(4, 2, 3, device=accelerator)
    reasons = []
    for i in range(5):
        expected = pytest.warns(ExecutorWarning, match=r"kernels, not graphs: .*no capture")
        with expected if i == graphs.PLAIN_CALLS else contextlib.nullcontext():
            with loop.reports() as reports:
                tg.scan(lambda h, x: (tg.tanh(h + x), h), h, x)
        reasons.append(reports[0].reason)
        assert reports[0].executor == "cuda"
    assert reasons[:2] == ["", ""] and all("no capture" in reason for reason in reasons[2:])
    assert dict(module._report())["GPU"] == "kernels: CUDA graphs: RuntimeError: no capture"


def test_a_step_with_a_side_effect_is_refused_on_a_device(accelerator: str) -> None:
    """Functions that CuPy calls are not the step's; those that the step calls are."""
    import time

    seen: list[int] = []

    def appends(h: Any, x: Any) -> Any:
        seen.append(1)
        return tg.tanh(h + x), None

    def reads_the_clock(h: Any, x: Any) -> Any:
        return tg.tanh(h + x * time.time()), None

    h, x = tg.ones(2, 3, device=accelerator), tg.ones(4, 2, 3, device=accelerator)
    for step in (appends, reads_the_clock):
        with loop.reports() as reports:
            tg.scan(step, h, x)
        assert not reports[0].traced
    assert len(seen) == 4


def test_kernels_that_do_not_compile_are_told_once(
    accelerator: str, level: Any, monkeypatch: pytest.MonkeyPatch, fresh_plans: None
) -> None:
    """Nothing was drawn then: the masks of dropout are those of the loop in Python."""
    level("graphs")
    monkeypatch.setattr(scan, "_plans", {})

    def fail(*args: Any) -> Any:
        raise CompilerError("no NVRTC")

    h, x = tg.ones(2, 3, device=accelerator), tg.ones(4, 2, 3, device=accelerator)

    def step(h: Any, x: Any) -> Any:
        return tg.functional.dropout(tg.tanh(h + x), 0.5, True), None

    found = []
    for broken in (True, False):
        if broken:
            monkeypatch.setattr(device_call, "kernel", fail)
        tg.random.manual_seed(1)
        expected = pytest.warns(ExecutorWarning, match=r"operations, not kernels: no NVRTC")
        with expected if broken else tg.eager(), loop.reports() as reports:
            found.append(tg.scan(step, h, x)[0].to("cpu").numpy())
        if broken:
            assert reports[0].reason == "not in CUDA: no NVRTC" and not reports[0].traced
            with loop.reports() as reports:
                tg.scan(step, h, x)
            assert reports[0].reason == "a GPU computes operation by operation: no NVRTC"
    np.testing.assert_array_equal(*found)


# -- fused functions -------------------------------------------------------------------------------


@FEW
@given(
    drawn=test_fuse.programs(),
    shapes=test_fuse.SHAPES,
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from([np.float32, np.float64]),
    data=st.data(),
)
def test_random_functions_are_those_of_numpy(
    accelerator: str, drawn: Any, shapes: Any, seed: int, dtype: Any, data: st.DataObject
) -> None:
    """Of any strides: axes in another order, every second element, broadcast ones."""
    program, count = drawn
    inputs = [np.asarray(x, dtype) for x in test_fuse.arrays(seed, count, shapes)]
    fused = tg.fuse(program)
    permuted = data.draw(st.booleans())

    def placed(x: np.ndarray) -> Any:
        there = tg.tensor(x, device=accelerator)
        if permuted and x.ndim == 2:
            wide = tg.tensor(np.repeat(x.T, 2, axis=1), device=accelerator)
            there = wide[:, ::2].T
        there = there.detach()
        there.requires_grad = True
        return there

    def outcome(tensors: list[Any]) -> list[Any]:
        results = fused(*tensors)
        loss = sum((y * y * w).sum() for y, w in zip(results, (0.3, -1.1, 0.7), strict=False))
        grads = tg.grad(loss, tensors, allow_unused=True)
        return [None if t is None else t.detach().to("cpu").numpy() for t in (*results, *grads)]

    found = outcome([placed(x) for x in inputs])
    wanted = outcome([tg.tensor(x, requires_grad=True) for x in inputs])
    rtol = 1e-5 if dtype is np.float32 else 1e-11
    for a, b in zip(found, wanted, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.shape == b.shape and a.dtype == b.dtype
            scale = max(1.0, np.abs(b).max(initial=0.0))
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale)


@FEW
@given(
    width=st.integers(1, 3),
    lead=st.sampled_from([(), (2,), (2, 3), (1, 4), (2, 1, 3, 2, 2)]),
    order=st.permutations(range(3)),
    number=st.floats(-2, 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_parts_joins_and_numbers(
    accelerator: str, width: int, lead: Any, order: Any, number: float, seed: int
) -> None:
    def gated(z: Any, a: Any, s: float) -> Any:
        parts = tg.split(tg.tanh(z + a), 3, axis=-1)
        one, two, three = (parts[i] for i in order)
        return one * s + two, tg.where(three > 0, one, three * two)

    fused = tg.fuse(gated)
    rng = np.random.default_rng(seed)
    z, a = rng.normal(size=(*lead, 3 * width)), rng.normal(size=3 * width)
    found = []
    for device in (accelerator, "cpu"):
        tensors = [tg.tensor(x, device=device, requires_grad=True) for x in (z, a)]
        one, two = fused(*tensors, number)
        grads = tg.grad((one * two).sum(), tensors)
        found.append([t.detach().to("cpu").numpy() for t in (one, two, *grads)])
    assert_close(found[0], found[1], 1e-11)


def test_a_step_with_too_many_arrays_runs_without_kernels(
    accelerator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_call, "MAX_ARGUMENTS", 100)
    monkeypatch.setattr(scan, "_plans", {})
    h, x = tg.ones(2, 3, device=accelerator), tg.ones(4, 2, 3, device=accelerator)
    with loop.reports() as reports:
        state, _ = tg.scan(lambda h, x: (tg.tanh(h - 0.5 * x), None), h, x)
    assert "not in CUDA: a step with" in reports[0].reason
    wanted = np.ones((2, 3))
    for _ in range(4):
        wanted = np.tanh(wanted - 0.5)
    np.testing.assert_allclose(state.to("cpu").numpy(), wanted, rtol=1e-5)
