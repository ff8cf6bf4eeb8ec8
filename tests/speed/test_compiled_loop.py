"""Loops over time in C, and matrix products in C: NumPy is their oracle."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_compiled import CC
from test_traced_scan import (
    USER_CELLS,
    Case,
    Options,
    assert_close,
    cases_and_options,
    derivatives,
    run,
)

import tinygrad_rnn as tg
from tinygrad_rnn.engine.ops import kernels
from tinygrad_rnn.recurrence import loop
from tinygrad_rnn.speed import compiled_call, loop_runtime, products, threads

pytestmark = pytest.mark.skipif(not CC, reason="no C compiler is installed")
# Each example compiles two libraries.
FEW = settings(max_examples=500 if settings.default.max_examples >= 1000 else 25)


@pytest.fixture(autouse=True)
def chosen() -> Iterator[None]:
    """The backend "c" for each test, and the one before after it."""
    before = tg.fuse.backend()
    tg.fuse.backend("c")
    yield
    tg.fuse.backend(before)


@contextlib.contextmanager
def backend(name: str) -> Iterator[None]:
    before = tg.fuse.backend()
    tg.fuse.backend(name)
    try:
        yield
    finally:
        tg.fuse.backend(before)


@pytest.fixture
def split(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that sets the number of threads of all loops and products, however small."""
    monkeypatch.setattr(compiled_call, "MIN_ROWS", 1)
    monkeypatch.setattr(compiled_call, "MIN_WORK", 0)
    monkeypatch.setattr(products, "WORTH_THREADS", 0)
    monkeypatch.setattr(products, "VECTOR_WORTH_THREADS", 0)
    return lambda count: monkeypatch.setattr(threads, "limit", lambda: count)


# -- random steps ----------------------------------------------------------------------------------


@FEW
@given(cases_and_options())
def test_random_steps_are_those_of_numpy(drawn: tuple[Case, Options]) -> None:
    case, options = drawn
    found, report = run(case, options, np.float64, 1)
    with backend("numpy"):
        wanted, other = run(case, options, np.float64, 1)
    assert_close(found[0], wanted[0], 1e-12)
    assert found[1:] == wanted[1:] and report.traced == other.traced


@FEW
@given(cases_and_options())
def test_random_steps_in_float32_are_as_exact_as_numpy(drawn: tuple[Case, Options]) -> None:
    case, options = drawn
    (found, *_), _ = run(case, options, np.float32, 1)
    with backend("numpy"):
        (wanted, *_), _ = run(case, options, np.float32, 1)
        (exact, *_), _ = run(case, options, np.float64, 1)
    slack = [4 * np.abs(a - b).max(initial=0.0) for a, b in zip(wanted, exact, strict=True)]
    assert_close(found, wanted, 1e-5, slack)


def trained(layer: Any, T: int, B: int, **options: Any) -> list[np.ndarray]:
    """The results of a layer on random input, and all gradients."""
    rng = np.random.default_rng(T + 100 * B)
    dtype = next(layer.parameters()).dtype
    size = layer.input_size
    x = tg.tensor(rng.standard_normal((T, B, size)).astype(dtype), requires_grad=True)
    with loop.reports() as reports:
        y, state = layer(x, **options)
    assert {r.executor for r in reports} <= {tg.fuse.backend()}, list(map(str, reports))
    state = state if isinstance(state, tuple) else (state,)
    return derivatives([y, *state], [x, *layer.parameters()], 1, 1)


LAYERS = {
    "RNN": lambda H, d: tg.nn.RNN(5, H, dtype=d, rng=1),
    "relu": lambda H, d: tg.nn.RNN(5, H, nonlinearity="relu", dtype=d, rng=1),
    "GRU": lambda H, d: tg.nn.GRU(5, H, num_layers=2, dtype=d, rng=1),
    "LSTM": lambda H, d: tg.nn.LSTM(5, H, bidirectional=True, dtype=d, rng=1),
    "projection": lambda H, d: tg.nn.LSTM(5, H + 1, proj_size=H, dtype=d, rng=1),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_any_size(name: str, dtype: Any) -> None:
    """Sizes around the lengths of vectors, panels and tiles."""
    tolerance = 1e-5 if dtype is np.float32 else 1e-12
    for (B, H), lengths in itertools.product(
        [(1, 1), (1, 64), (2, 17), (3, 33), (7, 16), (13, 70), (6, 130)], [None, "ragged"]
    ):
        options: dict[str, Any] = {}
        if lengths:
            options["lengths"] = np.random.default_rng(B).integers(0, 7, B)
        layer = LAYERS[name](H, dtype)
        found = trained(layer, 6, B, **options)
        with backend("numpy"):
            wanted = trained(layer, 6, B, **options)
        assert_close(found, wanted, tolerance)


@pytest.mark.parametrize("cell", USER_CELLS)
def test_user_cells_run_in_c(cell: Any) -> None:
    layer = tg.nn.Recurrent(cell, 3, 4)
    found = trained(layer, 5, 3)
    with backend("numpy"):
        wanted = trained(layer, 5, 3)
    assert_close(found, wanted, 1e-12)


def test_a_sum_over_a_product_follows_the_product() -> None:
    """Products in sequence, sums of products, and a product of a sum."""
    rng = np.random.default_rng(0)
    W, V = (tg.tensor(rng.standard_normal((4, 4)), requires_grad=True) for _ in range(2))
    u = tg.tensor(rng.standard_normal((1, 4)), requires_grad=True)
    h = tg.tensor(rng.standard_normal((3, 4)), requires_grad=True)
    x = tg.tensor(rng.standard_normal((5, 3, 4)), requires_grad=True)

    def step(h: Any, x: Any) -> Any:
        a = h @ W
        total = a.sum(axis=-1, keepdims=True) @ u
        b = (tg.tanh(a) @ V).mean(axis=-1, keepdims=True)
        return tg.tanh(x + total - b), (h @ V).sum(axis=-1, keepdims=True)

    def outcome() -> list[np.ndarray]:
        with loop.reports() as reports:
            state, y = tg.scan(step, h, x)
        assert reports[0].executor == tg.fuse.backend(), str(reports[0])
        return derivatives([state, y], [W, V, u, h, x], 1, 1)

    found = outcome()
    with backend("numpy"):
        wanted = outcome()
    assert_close(found, wanted, 1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_the_bits_do_not_depend_on_the_number_of_threads(name: str, split: Any) -> None:
    layer = LAYERS[name](33, np.float32)
    found = []
    for count in (1, 2, 3, 5):
        split(count)
        found.append(trained(layer, 7, 19, lengths=np.arange(19) % 8))
    for other in found[1:]:
        assert all((a == b).all() for a, b in zip(found[0], other, strict=True))


def test_the_source_depends_neither_on_sizes_nor_on_numbers() -> None:
    """Otherwise each size, window and rate would be compiled anew."""
    trained(tg.nn.LSTM(5, 8, rng=0), 4, 3)

    def step(rate: float) -> Any:
        return lambda h, x: (rate * h + (1 - rate) * tg.tanh(x), None)

    def scan(rate: float, T: int, B: int, H: int) -> None:
        h = tg.zeros(B, H, requires_grad=True)
        tg.scan(step(rate), h, tg.randn(T, B, H))[0].sum().backward()

    scan(0.3, 3, 2, 4)
    before = len(loop_runtime._stages)
    for T, B, H in [(5, 3, 8), (3, 7, 9), (2, 1, 20)]:
        trained(tg.nn.LSTM(5, H, rng=0), T, B, lengths=[T] + [1] * (B - 1))
        trained(tg.nn.LSTM(5, H, rng=0), T, B, bptt=tg.bptt.Randomized(0.5, rng=T))
        scan(0.07 * H, T, B, H)
    assert len(loop_runtime._stages) == before


def test_what_c_cannot_compute_runs_in_numpy() -> None:
    """A state of three axes whose first two are not the rows of the input."""
    h = tg.zeros(2, 3, 4, requires_grad=True)
    with loop.reports() as reports:
        tg.scan(lambda h, x: (tg.tanh(h + x), h % 2.0), h, tg.randn(5, 2, 3, 4))
    (report,) = reports
    assert report.traced and report.executor == "numpy" and "not in C" in report.reason


def test_numbers_at_the_limits_are_those_of_numpy() -> None:
    """nan, infinite and denormal numbers, -0, and an infinite gradient beside a cut."""
    values = [np.nan, np.inf, -np.inf, 1e-310, -0.0, 1e-45, 3.0, -1.0]
    x = tg.tensor(np.array(values * 4).reshape(4, 2, 4), requires_grad=True)

    def step(h: Any, x: Any) -> Any:
        return tg.where(x > 0, tg.sqrt(abs(h)), x) + tg.maximum(h, x), tg.exp(-x) * h

    def outcome() -> list[np.ndarray]:
        h = tg.ones(2, 4, dtype=tg.float64, requires_grad=True)
        state, y = tg.scan(step, h, x, edges=[1.0, 0.0, 0.5, 1.0])
        return [state.numpy(), y.numpy(), *(g.numpy() for g in tg.grad(state.sum(), [x]))]

    with np.errstate(all="ignore"):
        found = outcome()
        with backend("numpy"):
            wanted = outcome()
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)
        assert (np.signbit(a) == np.signbit(b))[~np.isnan(a)].all()


def test_vanishing_gradients_are_flushed_in_products_alone() -> None:
    """Products of denormal numbers would be thirty times as slow; elementwise they stay exact."""
    tiny = tg.tensor(np.full((3, 2, 4), 1e-310), requires_grad=True)
    state, _ = tg.scan(lambda h, x: (h + x, None), tg.zeros(2, 4, dtype=tg.float64), tiny)
    np.testing.assert_allclose(state.numpy(), 3e-310)
    left, right = np.full((3, 40), 1e-310), np.ones((40, 50))
    assert (kernels.gemm(left, right) == 0).all()
    assert (np.float64(1e-310) * np.ones(3) != 0).all()  # the mode is restored


def test_two_threads_train_two_models() -> None:
    layers = [tg.nn.LSTM(5, 48, rng=i) for i in range(4)]
    wanted = [trained(layer, 30, 16) for layer in layers]
    found: dict[int, Any] = {}

    def train(i: int) -> None:
        for _ in range(5):
            found[i] = trained(layers[i], 30, 16)

    running = [threading.Thread(target=train, args=(i,)) for i in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    for i, arrays in enumerate(wanted):
        assert all((a == b).all() for a, b in zip(arrays, found[i], strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_has_threads_of_its_own() -> None:
    layer = tg.nn.LSTM(5, 48, rng=0)
    wanted = trained(layer, 30, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
        child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            found = trained(layer, 30, 16)
            code = int(not all((a == b).all() for a, b in zip(found, wanted, strict=True)))
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    found = trained(layer, 30, 16)
    assert all((a == b).all() for a, b in zip(found, wanted, strict=True))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no setitimer")
@pytest.mark.parametrize("delay", [0.0005, 0.002, 0.005, 0.02])
def test_an_interrupt_leaves_nothing_half_done(delay: float) -> None:
    layer = tg.nn.LSTM(5, 48, rng=0)
    wanted = trained(layer, 200, 16)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(10):
            with contextlib.suppress(KeyboardInterrupt):
                try:
                    signal.setitimer(signal.ITIMER_REAL, delay)
                    trained(layer, 200, 16)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    found = trained(layer, 200, 16)
    assert all((a == b).all() for a, b in zip(found, wanted, strict=True))


# -- products --------------------------------------------------------------------------------------

LENGTHS = st.sampled_from([1, 2, 3, 5, 6, 7, 13, 16, 17, 31, 63, 64, 65, 100, 129, 257, 300, 520])


def strided(draw: Any, rows: int, columns: int, dtype: Any) -> np.ndarray:
    """A random matrix with any strides: transposed, reversed, or a part of a larger one."""
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    kind = draw(st.sampled_from(["plain", "transposed", "reversed", "part", "repeated"]))
    if kind == "transposed":
        return rng.standard_normal((columns, rows)).astype(dtype).T
    if kind == "part":
        return rng.standard_normal((rows + 2, 2 * columns + 3)).astype(dtype)[1:-1, 1:-2:2]
    if kind == "repeated":
        return np.broadcast_to(rng.standard_normal(columns).astype(dtype), (rows, columns))
    made = rng.standard_normal((rows, columns)).astype(dtype)
    return made[::-1, ::-1] if kind == "reversed" else made


@settings(max_examples=150)
@given(st.data(), LENGTHS, LENGTHS, LENGTHS, st.sampled_from([np.float32, np.float64]))
def test_products_of_any_strides(data: Any, m: int, k: int, n: int, dtype: Any) -> None:
    x, y = strided(data.draw, m, k, dtype), strided(data.draw, k, n, dtype)
    found = products.product(x, y)
    exact = x.astype(np.longdouble) @ y.astype(np.longdouble)
    bound = np.abs(x).astype(float) @ np.abs(y).astype(float)
    assert found.dtype == dtype and found.shape == (m, n)
    error = np.abs(found - exact)
    assert (error <= np.finfo(dtype).eps * (4 + 2 * np.sqrt(k)) * bound).all()


@pytest.mark.parametrize(("m", "k", "n"), [(70, 300, 130), (1, 600, 700), (700, 600, 1), (3, 1, 9)])
def test_the_bits_of_a_product_do_not_depend_on_the_threads(
    m: int, k: int, n: int, split: Any
) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    results = []
    for count in (1, 2, 3, 7):
        split(count)
        results.append(products.product(x, y))
    assert all((results[0] == other).all() for other in results[1:])


def test_a_product_that_c_does_not_compute() -> None:
    x = np.ones((3, 4))
    assert products.product(x.astype(np.float16), x.T.astype(np.float16)) is NotImplemented
    assert products.product(x, x.T.astype(np.float32)) is NotImplemented
    assert products.product(x[:0], x.T) is NotImplemented


@pytest.mark.parametrize("rows", [1, 3])
def test_a_product_of_arrays_whose_memory_order_is_not_supported(rows: int) -> None:
    packed = np.zeros(rows, dtype=[("a", "u1"), ("x", "f8", 4)])["x"]  # not aligned
    packed[...] = np.arange(4.0 * rows).reshape(rows, 4)
    wide = np.arange(48.0).reshape(8, 6)[::2, ::2]  # no two numbers are neighbours
    for x in packed, packed.astype(float), np.repeat(packed, 3, axis=1)[:, ::3]:
        np.testing.assert_array_equal(products.product(x, wide), packed.astype(float) @ wide.copy())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows, columns", [(40, 9), (64, 6), (130, 29), (1030, 66), (40, 5)])
def test_a_transposed_left_operand_with_many_rows(rows: int, columns: int, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, rows)).astype(dtype), rng.normal(size=(300, columns)).astype(dtype)
    found, other = products.product(x.T, y), products.product(x.T.copy(), y)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, other)  # the order of the terms is the same
    expected = x.T.astype(float) @ y.astype(float)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 if dtype == "float32" else 1e-12)


def test_long_sums_are_exact() -> None:
    x = np.full((2, 10**6), 0.1, np.float32)
    found = kernels.gemm(x, np.ones((10**6, 2), np.float32))
    np.testing.assert_allclose(found, 1e5, rtol=1e-6)


def test_lengths_that_differ_are_an_error_not_a_read_beyond_the_end():
    with pytest.raises(ValueError, match="mismatch"):
        kernels.gemm(np.ones((2, 4)), np.ones((2, 2)))


def results(step: Any, state: Any, x: Any, **options: Any) -> list[np.ndarray]:
    """The results of a loop, and the gradients of the floating arrays."""
    state = tg._util.nested.map_nested(lambda s: tg.tensor(s, requires_grad=True), state)
    x = tg.tensor(x, requires_grad=True)
    with loop.reports() as reports:
        new, ys = tg.scan(step, state, x, **options)
    assert all(r.traced for r in reports), list(map(str, reports))
    leaves = tg._util.nested.leaves
    return derivatives([*leaves(new), *leaves(ys)], [*leaves(state), x], 1, 1)


def one_number(h: Any, x: Any) -> Any:
    n = tg.tanh(0.5 * h + x)
    return n, n.sum(axis=-1)


def short_inside(h: Any, x: Any) -> Any:
    n = tg.tanh((h * x).astype("float32")).astype("float64") + x
    return n, n


def number_kept(state: Any, x: Any) -> Any:
    n = tg.tanh(0.5 * state[0] + x)
    return (n, n.sum(axis=-1)), n


@pytest.mark.parametrize("B", [1, 3, 8])  # the proof of B = 1 serves for all: the source is equal
@pytest.mark.parametrize("lengths", [False, True])
def test_one_number_for_each_row(B: int, lengths: bool) -> None:
    """The numbers of rows are not a row, as their shape (B,) alone would tell."""
    rng = np.random.default_rng(0)
    h, x = rng.standard_normal((B, 8)), rng.standard_normal((4, B, 8))
    options = {"lengths": 4 - np.arange(B) % 4} if lengths else {}
    for step, state in ((one_number, h), (short_inside, h), (number_kept, (h, h[:, 0].copy()))):
        found = results(step, state, x, **options)
        with backend("numpy"):
            wanted = results(step, state, x, **options)
        assert_close(found, wanted, 1e-6 if step is short_inside else 1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_product_with_a_vector_of_misaligned_memory(dtype: Any) -> None:
    memory = np.zeros(15 * np.dtype(dtype).itemsize + 1, np.uint8)
    x = np.ndarray((5, 3), dtype, memory, 1)
    x[...] = np.arange(15).reshape(5, 3)
    y = np.ones((3, 1), dtype)
    assert_close([kernels.gemm(x, y), kernels.gemm(y.T, x.T)], [x @ y, (x @ y).T], 1e-6)


NO_PRODUCT = """
import sys, threading
import tinygrad_rnn as tg
tg.fuse.backend("c")
together, end = threading.Barrier(4), threading.Barrier(4)
def step(h, x):
    return tg.tanh(0.5 * h + x), h
def run():
    together.wait()
    tg.scan(step, tg.zeros(2, 3), tg.ones(4, 2, 3))
    end.wait()
others = [threading.Thread(target=run) for _ in range(3)]
for t in others: t.start()
together.wait()
end.wait()
for t in others: t.join()
"""


def test_a_loop_without_products_in_a_new_process_leaves_the_threads_of_python_alone() -> None:
    """Its first call took Python's state of the thread for the memory of a product."""
    subprocess.run([sys.executable, "-c", NO_PRODUCT], check=True, timeout=120)
