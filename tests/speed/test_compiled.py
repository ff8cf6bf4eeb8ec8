"""Kernels in C: the schedule of ufuncs is their oracle."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fuse import (
    DTYPES,
    SHAPES,
    arrays,
    assert_alike,
    assert_same,
    derivatives,
    leaves,
    lstm,
    numbered,
    outcome,
    programs,
)

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, CompilerError
from tinygrad_rnn.speed import compiled, executor, loops
from tinygrad_rnn.speed import compiler as compiler_module

CC = os.environ.get("CC", "").partition(" ")[0] or next(
    filter(shutil.which, compiler_module.NAMES), ""
)
pytestmark = pytest.mark.skipif(not shutil.which(CC), reason="no C compiler is installed")

FEW = settings(max_examples=8)  # each compiles several kernels
FLOATS = [np.float32, np.float64]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A folder for kernels that is new, and the backend "c" chosen for every test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        if sys.platform == "darwin":
            patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(loops, "SLOW_CALL_LIMIT", np.inf)
        before = tg.fuse.backend()
        tg.fuse.backend("c")
        yield compiler_module.cache()
        tg.fuse.backend(before)


def both(function, *args):
    """What a function returns with the schedule and with C."""
    tg.fuse.backend("numpy")
    try:
        expected = function(*args)
    finally:
        tg.fuse.backend("c")
    return function(*args), expected


def first_compiler():
    return compiler_module.Compiler(compiler_module.candidates()[0])


def in_c(function, *args):
    """The results of a fused function by its kernel in C, which must be there and take them."""
    plan = tg.fuse(function).plan(*map(tg.tensor, args))
    kernel = plan.forward
    loop = loops.Loop(kernel.steps, kernel.inputs, kernel.results)
    made = [np.full(x.shape, 77).astype(x.dtype) for x in loop.outputs]
    assert compiled.kernel(loop, executor.compiler())(*args, *made)
    return made


# -- it computes what the schedule computes --------------------------------------------------------


@FEW
@given(programs(), SHAPES, st.integers(0, 2**32 - 1))
def test_programs_to_second_order(drawn, shapes, seed):
    program, count = drawn
    inputs = arrays(seed, count, shapes)
    found, expected = both(lambda: derivatives(tg.fuse(program), inputs, set(range(count))))
    assert_same(found, expected)


@FEW
@given(programs(), SHAPES, st.integers(0, 2**32 - 1))
def test_programs_in_float32(drawn, shapes, seed):
    program, count = drawn
    inputs = [a.astype(np.float32) for a in arrays(seed, count, shapes)]
    found, expected = both(lambda: [y.numpy() for y in tg.fuse(program)(*map(tg.tensor, inputs))])
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * max(1, np.abs(b).max(initial=0)))


@FEW
@given(numbered(), DTYPES, DTYPES, st.integers(0, 2**32 - 1))
def test_numbers_constants_and_options(drawn, one, other, seed):
    program, calls, by_name = drawn
    data = [
        (2 * a).astype(t)
        for a, t in zip(arrays(seed, 2, [(3, 2), (2,)]), (one, other), strict=True)
    ]
    fused = tg.fuse(program)
    for numbers in calls:
        found = outcome(fused, data, numbers, by_name)
        numbers = [tg.tensor(n) if isinstance(n, np.ndarray) else n for n in numbers]
        assert_alike(found, outcome(program, data, numbers, by_name), exact=False)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("exponent", [0, 1, 2, 3, -1, 0.5, -0.5, 2.5, -3])
def test_a_number_of_the_call_as_exponent(dtype, exponent):
    x = values(2, dtype)
    power = POWERS.setdefault(exponent.__class__, tg.fuse(lambda x, n: x**n))
    with np.errstate(all="ignore"):
        expected = x**exponent  # as the operation; a square root has other zeros and infinities
        found = power(tg.tensor(x), exponent).numpy()
        np.testing.assert_allclose(found, expected, rtol=4e-7)


POWERS = {}


@pytest.mark.parametrize("integer", [300, -1, 2**70, 7])
def test_an_integer_that_a_dtype_has_not(integer):
    x = tg.tensor(np.array([1, 200, 7], np.uint8))
    for fused in (
        tg.fuse(lambda x, n: (x < n, x == n)),
        tg.fuse(lambda x, n: (x < integer, x != n)),
    ):
        for a, b in zip(*both(lambda f=fused: f(x, integer)), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


EXACT_UNARY = {
    "negative": lambda x: -x,
    "abs": tg.abs,
    "sign": tg.sign,
    "square": lambda x: x**2,
    "cube": lambda x: x * x * x,
    "root": tg.sqrt,
    "inverse": lambda x: 1 / tg.abs(x),  # maximum and minimum may choose another zero
    "affine": lambda x: 0.1 - 3 * x,
    "relu": tg.relu,
    "clip": lambda x: tg.clip(x, -0.7, 0.9),
    "other": lambda x: x.astype(tg.float64 if x.dtype == np.float32 else tg.float32),
}
EXACT_BINARY = {
    "add": tg.add,
    "subtract": tg.subtract,
    "multiply": tg.multiply,
    "divide": lambda x, y: x / tg.abs(y),
    "maximum": tg.maximum,
    "minimum": tg.minimum,
    "less": lambda x, y: tg.where(x < y, x, 2.5),
    "equal": lambda x, y: tg.where((x == y) * (x != 0), x, y),
    "order": lambda x, y: (x >= y) * x + (y <= 1) * y - (y > x),
}
SPECIAL = [
    np.nan,
    np.inf,
    -np.inf,
    0.0,
    -0.0,
    1.0,
    -1.0,
    5e-324,
    -1e-310,
    1e-45,
    1e-40,
    3e38,
    -1e300,
]


def values(seed, dtype, size=200):
    """Numbers of all magnitudes, and the special ones."""
    rng = np.random.default_rng(seed)
    wide = rng.normal(size=size) * np.exp(rng.normal(size=size) * 8)
    with np.errstate(all="ignore"):
        return rng.permutation([*wide, *rng.normal(size=size), *SPECIAL * 3]).astype(dtype)


@FEW
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted({**EXACT_UNARY, **EXACT_BINARY})),
            st.integers(0, 99),
            st.integers(0, 99),
        ),
        min_size=1,
        max_size=10,
    ),
    st.lists(st.sampled_from(FLOATS), min_size=1, max_size=3),
    st.integers(0, 2**32 - 1),
)
def test_arithmetic_is_the_same_to_the_bit(steps, dtypes, seed):
    def program(*inputs):
        known = list(inputs)
        for name, i, j in steps:
            if name in EXACT_UNARY:
                known.append(EXACT_UNARY[name](known[i % len(known)]))
            else:
                known.append(EXACT_BINARY[name](known[i % len(known)], known[j % len(known)]))
        return tuple(known[len(inputs) :])

    inputs = [values(seed + i, dtype) for i, dtype in enumerate(dtypes)]
    with np.errstate(all="ignore"):
        found, expected = both(
            lambda: [y.numpy() for y in tg.fuse(program)(*map(tg.tensor, inputs))]
        )
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)  # nan is nan; the sign of a zero may be another


FUNCTIONS = {  # and where their arguments come from
    "exp": (tg.exp, lambda z: 90 * z),
    "expm1": (tg.expm1, lambda z: 30 * z),
    "log": (tg.log, lambda z: np.exp(80 * z)),
    "log1p": (tg.log1p, lambda z: np.exp(30 * z) - 0.999),
    "tanh": (tg.tanh, lambda z: 9 * z),
    "sin": (tg.sin, lambda z: 9 * z),
    "cos": (tg.cos, lambda z: 9 * z),
    "sqrt": (tg.sqrt, lambda z: np.exp(80 * z)),
    "sigmoid": (tg.sigmoid, lambda z: 80 * z),
    "softplus": (tg.softplus, lambda z: 80 * z),
}
TRUTH = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_accurate(name, dtype):
    function, spread = FUNCTIONS[name]
    rng = np.random.default_rng(0)
    z = np.concatenate(
        [rng.uniform(-1, 1, 4000), rng.normal(size=4000) / 30, rng.normal(size=999) / 1e4]
    )
    x = spread(np.clip(z, -1, 1)).astype(dtype)
    (found,) = in_c(function, x)
    exact = x.astype(np.float64 if dtype == np.float32 else np.longdouble)
    true = TRUTH.get(name, getattr(np, name, None))(exact)
    normal = (np.abs(true) >= np.finfo(dtype).tiny) & (np.abs(true) <= np.finfo(dtype).max)
    error = np.abs((found - true)[normal] / true[normal]).max()
    near_zero = 4 if name in ("sin", "cos") else 1  # of the argument's own rounding, none
    assert error < near_zero * {np.float32: 2e-7, np.float64: 6e-16}[dtype], error


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values_are_numpys(name, dtype):
    function, _ = FUNCTIONS[name]
    x = values(1, dtype)
    x = np.concatenate([x, np.linspace(-120, 120, 999).astype(dtype)])
    if dtype == np.float64:
        x = np.concatenate([x, np.linspace(-760, 760, 999)])
    (found,) = in_c(function, x)
    with np.errstate(all="ignore"):
        tg.fuse.backend("numpy")
        expected = tg.fuse(function)(x).numpy()
        tg.fuse.backend("c")
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    number = ~np.isnan(found)
    np.testing.assert_array_equal(np.signbit(found[number]), np.signbit(expected[number]))
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[number & ~finite], expected[number & ~finite])
    with np.errstate(all="ignore"):
        off = np.abs(found[finite] - expected[finite]) / np.spacing(np.abs(expected[finite]))
    assert off.max() <= 4


@pytest.mark.parametrize("dtype", FLOATS)
def test_powers(dtype):
    base = np.abs(values(2, dtype))
    for exponent in (0, 1, 2, 3, -1, 0.5, -0.5, 2.5, -3):
        (found,) = in_c(lambda x, p=exponent: x**p, base)
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(found, np.power(base, dtype(exponent)), rtol=4e-7)
    x, y = values(3, dtype), values(4, dtype)
    (found,) = in_c(tg.power, x, y)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(found, np.power(x, y), rtol=2e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_quotients(dtype):
    x, y = values(7, dtype), values(8, dtype)
    (found,) = in_c(tg.divide, x, y)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found, x / y)


def test_logaddexp_of_everything():
    x, y = (a.ravel() for a in np.meshgrid(values(5, np.float64, 20), values(6, np.float64, 20)))
    (found,) = in_c(tg.logaddexp, x, y)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(found, np.logaddexp(x, y), rtol=1e-15, atol=3e-16)


@pytest.mark.parametrize("dtype", FLOATS)
def test_an_element_has_the_same_bits_wherever_it_stands(dtype):
    def function(x, y):
        return tg.tanh(x) * tg.sigmoid(y) + tg.softplus(x * y), tg.log(tg.exp(x) + y * y)

    kernel = tg.fuse(function).plan(*[tg.zeros(1, dtype=dtype)] * 2).forward
    loop = loops.Loop(kernel.steps, kernel.inputs, kernel.results)
    loop.width = 300
    x, y = (a.astype(dtype) for a in arrays(0, 2, [(300,)]))
    whole = np.empty((2, 300), dtype)
    assert compiled.kernel(loop, executor.compiler())(x, y, *whole)
    for n in (0, 1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 100, 257):
        for start in (0, 1, 7, 300 - n):
            loop.width, cut = n, slice(start, min(start + n, 300))
            part = np.empty((2, n), dtype)[:, : cut.stop - cut.start]
            loop.width = part.shape[1]
            assert compiled.kernel(loop, executor.compiler())(x[cut], y[cut], *part)
            np.testing.assert_array_equal(part, whole[:, cut])


# -- whatever the memory is like -------------------------------------------------------------------


def laid_out(data, shape, dtype=np.float64):
    """An array of a shape, in some layout: any order of axes, steps, directions."""
    order = data.draw(st.permutations(range(len(shape))))
    steps = [data.draw(st.sampled_from([1, 1, 2, -1])) for _ in shape]
    sizes = [shape[k] * abs(steps[k]) for k in order]
    base = np.random.default_rng(0).normal(size=sizes).astype(dtype)
    base = base.transpose(np.argsort(order))
    return base[tuple(slice(None, None, step) for step in steps)][tuple(slice(n) for n in shape)]


@FEW
@given(st.data())
def test_layouts_and_broadcasting(data):
    shape = data.draw(st.sampled_from([(3, 4), (5,), (2, 3, 4), (1, 7), (130, 3), (2, 3, 2, 3)]))
    own = [laid_out(data, shape), laid_out(data, shape, np.float32)]
    for _ in range(2):
        cut = data.draw(st.integers(0, len(shape)))
        ones = [1 if data.draw(st.booleans()) else n for n in shape[cut:]]
        own.append(laid_out(data, tuple(ones)))
    x = [tg.Tensor(a) if isinstance(a, np.ndarray) else a for a in own]

    @tg.fuse
    def function(a, b, c, d):
        return tg.tanh(a) * c + b, a * d - c

    found, expected = both(lambda: [y.data for y in function(*x)])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-15)
        assert a.strides == b.strides


def test_an_array_that_is_not_aligned_goes_to_the_schedule():
    plan = tg.fuse(lambda x: tg.exp(x) * 2).plan(tg.zeros(9, dtype=tg.float64))
    # Bytes that go down: no large exponents.
    x = np.frombuffer(bytes(range(72, -1, -1)), np.uint8)[1:].view(np.float64)
    assert not x.flags.aligned
    (found,) = plan.forward(np, [x])
    np.testing.assert_array_equal(found, np.exp(x) * 2)


def test_masks_and_integers():
    mask = np.array([0, 1, 2, 255, 0], np.uint8).view(bool)
    count = np.array([3, -2, 0, 7, 2**31 - 1], np.int32)
    x = np.array([0.5, -1.5, np.nan, 2.0, -0.0], np.float32)

    def function(x, mask, count):
        return (
            tg.where(mask, x, -1.0), mask * x, count * count, count / 2, tg.abs(count),
            tg.sign(count) * x, (x > 0) == mask, tg.maximum(count, 1), count + mask,
        )  # fmt: skip

    with np.errstate(all="ignore"):
        found, expected = both(
            lambda: [y.numpy() for y in tg.fuse(function)(*map(tg.tensor, (x, mask, count)))]
        )
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(7,), (1, 7), (5, 1), (1, 1), (5, 7)])
def test_what_is_broadcast_along_a_run_of_memory(order, shape):
    rng = np.random.default_rng(0)
    x, y = np.asarray(rng.normal(size=(5, 7)), order=order), rng.normal(size=shape)
    mask = rng.normal(size=shape) > 0

    @tg.fuse
    def function(x, y, mask):
        return tg.where(mask, x * y, x - y)

    (found, expected) = both(lambda: function(tg.Tensor(x), tg.Tensor(y), tg.Tensor(mask)).data)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, np.where(mask, x * y, x - y))


def test_parts_of_unequal_width_gaps_and_sums():
    @tg.fuse
    def function(z, b, gate):
        z = z + b
        u, v = z[..., :2], z[..., 4:6]  # 2:4 is not read, its gradient is zero
        return tg.tanh(u) * v * gate + z[..., 6:8], tg.sigmoid(z)

    for order in "CF":
        x = [
            tg.Tensor(np.asarray(a, order=order), requires_grad=True)
            for a in arrays(0, 3, [(3, 8), (8,), (3, 1)])
        ]

        def run(x=x):
            y, whole = function(*x)
            grads = tg.grad((y * y).sum() + whole.sum(), x)
            return [t.detach().numpy() for t in (y, whole, *grads)]

        assert_same(*both(run))
        with tg.fuse.disabled():
            expected = run()
        assert_same(run(), expected)


def test_layers_learn_the_same():
    def losses(cell, dtype):
        tg.manual_seed(0)
        layer = cell(3, 16, dtype=dtype)
        optimizer = tg.optim.SGD(layer.parameters(), lr=0.1)
        x = tg.tensor(arrays(1, 1, [(9, 4, 3)])[0].astype(dtype))
        found = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = (layer(x)[0] ** 2).sum()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    for cell in (tg.nn.GRU, tg.nn.LSTM):
        np.testing.assert_allclose(*both(losses, cell, np.float64), rtol=1e-11)
        np.testing.assert_allclose(*both(losses, cell, np.float32), rtol=1e-4)


def test_threads():
    x = [tg.tensor(a.astype(np.float32), requires_grad=True) for a in arrays(0, 5, [(64, 512)])]
    one = tg.fuse(lambda *args: lstm.function(*args))  # each thread finds it not compiled yet
    found = []

    def work():
        for _ in range(5):
            h, c = one(*x)
            found.append([h.numpy(), c.numpy(), *(g.numpy() for g in tg.grad((h * c).sum(), x))])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_c_warns_of_nothing_and_leaves_the_processor_as_it_was():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = tg.fuse(lambda x: tg.exp(x) / 0.0)(tg.tensor([1e4, -1e4, np.nan]))
        np.testing.assert_array_equal(y.numpy(), [np.inf, np.nan, np.nan])
        least = np.finfo(np.float32).tiny * np.ones(20, np.float32)
        assert (least / 4 > 0).all()  # denormal numbers are not flushed


# -- what there is no C for ------------------------------------------------------------------------


@tg.primitive(x=lambda F, g, x, out: g / (3 * out * out))
def cube_root(xp, x):
    """A ufunc that this library does not know."""
    return xp.cbrt(x)


@pytest.mark.parametrize(
    "function, x",
    [
        (lambda x: tg.exp(x) * 2, np.ones(3, np.float16)),
        (lambda x: cube_root(x) * 2, np.full(3, 8.0)),
        (lambda x: x.astype(tg.int64) + 1, np.array([1.5, 2.5])),
        (lambda x: tg.exp(x), np.ones((0, 3))),
    ],
)
def test_what_c_does_not_cover_runs_as_a_schedule(function, x, monkeypatch):
    monkeypatch.setattr(compiled, "kernel", None)  # nothing is compiled
    fused = tg.fuse(function)
    found = fused(tg.tensor(x)).numpy()
    with tg.fuse.disabled():
        np.testing.assert_array_equal(found, fused(tg.tensor(x)).numpy())


def test_a_loop_has_a_largest_size(monkeypatch):
    monkeypatch.setattr(loops, "MAX_OPERATIONS", 10)
    plan = tg.fuse(lambda x: sum(tg.tanh(x * k) for k in range(9))).plan(tg.ones(3))
    kernel = plan.forward
    with pytest.raises(loops.Unsupported, match="more than 10"):
        loops.Loop(kernel.steps, kernel.inputs, kernel.results)
    np.testing.assert_allclose(kernel(np, [np.ones(3)])[0], np.tanh(np.arange(9)).sum())


def test_a_loop_has_a_largest_number_of_places():
    @tg.fuse
    def function(z):
        parts = z.split(300, axis=-1)
        return sum(parts[1:], parts[0])

    z = arrays(0, 1, [(5, 300)])[0]
    kernel = function.plan(tg.tensor(z)).forward
    with pytest.raises(loops.Unsupported, match="more than 256"):
        loops.Loop(kernel.steps, kernel.inputs, kernel.results)
    np.testing.assert_allclose(function(tg.tensor(z)).numpy(), z.sum(-1, keepdims=True))


def test_where_numpys_vectors_are_faster_than_calls_it_is_a_schedule(monkeypatch):
    monkeypatch.setattr(loops, "SLOW_CALL_LIMIT", 100)
    for n, covered in ((100, True), (10_000, False)):
        kernel = tg.fuse(lambda x: tg.sin(x) * 2).plan(tg.zeros(n)).forward
        try:
            loops.Loop(kernel.steps, kernel.inputs, kernel.results)
        except loops.Unsupported:
            assert not covered
        else:
            assert covered


def test_powers_of_integers():
    x = np.array([3, -2, 0, 7], np.int32)
    for exponent in (0, 1, 2, 3):
        np.testing.assert_array_equal(in_c(lambda x, p=exponent: x**p, x)[0], x**exponent)
    kernel = tg.fuse(lambda x: x**4).plan(tg.tensor(x)).forward
    with pytest.raises(loops.Unsupported):
        loops.Loop(kernel.steps, kernel.inputs, kernel.results)


# -- the compiler, and what it made ----------------------------------------------------------------


@pytest.fixture
def logged(tmp_path, monkeypatch):
    """A compiler that writes down what it is asked for, with a cache of its own."""
    log, command = tmp_path / "log", tmp_path / "logged-cc"
    command.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {shutil.which(CC)} "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("CC", str(command))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    log.write_text("")
    return lambda: sum("-o " in line for line in log.read_text().splitlines())


def test_numbers_and_shapes_compile_nothing(monkeypatch):
    made, library = [], compiler_module.Compiler.library
    monkeypatch.setattr(
        compiler_module.Compiler,
        "library",
        lambda self, text, *a, **k: made.append(text) or library(self, text, *a, **k),
    )
    function = tg.fuse(lambda x, bias, scale, n: tg.abs(x * scale + bias) ** n * (1 - scale))
    for i in range(2, 30):
        (x,), (bias,) = leaves(1, (i, 2 * i)), leaves(1, (2 * i,))

        def run(x=x, bias=bias, i=i):
            y = function(x, bias, 1 / i, 1.0 + i / 7)
            return [y.numpy(), *(g.numpy() for g in tg.grad(y.sum(), [x, bias]))]

        found = run()
        with tg.fuse.disabled():
            assert_same(found, run())
    assert len(made) == 2  # forward and backward


TEXT = "int answer = {};\n"


def test_a_kernel_is_compiled_once_and_kept(logged):
    compiler = first_compiler()
    first = compiler.library(TEXT.format(1))
    assert logged() == 1
    assert first_compiler().library(TEXT.format(1)) == first
    assert logged() == 1
    assert compiler.library(TEXT.format(2)) != first
    assert logged() == 2
    folder = compiler_module.cache()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".so", ".so"]


@pytest.mark.parametrize("spoil", [b"", b"\x7fELF", None])
def test_what_was_cut_off_or_altered_is_not_loaded(logged, spoil):
    compiler = first_compiler()
    path = compiler.library(TEXT.format(1))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x" if spoil is None else spoil)
    again = compiler.library(TEXT.format(1))
    assert logged() == 2
    assert again.name.endswith(compiler_module._name("", again))
    assert list(again.parent.glob("*.so")) == [again]


def test_another_compiler_or_another_flag_has_kernels_of_its_own(logged, monkeypatch):
    first = first_compiler()
    path = first.library(TEXT.format(1))
    monkeypatch.setenv("CC", f"{os.environ['CC']} -DOTHER=1")
    second = first_compiler()
    assert second.identity != first.identity
    assert second.library(TEXT.format(1)) != path
    assert logged() == 2
    monkeypatch.setenv("CC", shutil.which(CC))
    assert first_compiler().library(TEXT.format(1)) != path


def test_a_folder_that_others_may_write_to_is_closed(logged):
    folder = compiler_module.cache()
    folder.chmod(0o777)
    assert compiler_module.cache() == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_of_somebody_else_is_not_used(logged, monkeypatch):
    folder = compiler_module.cache()
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    other = compiler_module.cache()
    assert other != folder
    assert "tinygrad_rnn-" in str(other)


def test_a_file_of_somebody_else_is_not_loaded(logged, monkeypatch):
    path = first_compiler().library(TEXT.format(1))
    folder = compiler_module.cache()
    monkeypatch.setattr(compiler_module, "cache", lambda *_: folder)
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    first_compiler().library(TEXT.format(1))
    assert logged() == 2
    assert path.exists()  # made again


def test_where_there_is_no_folder_a_temporary_one_serves(logged, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    path = first_compiler().library(TEXT.format(1))
    assert path.exists()
    assert str(tmp_path) not in str(path)


PROGRAM = """
import tinygrad_rnn as tg
x = tg.tensor([0.5, -1.0], requires_grad=True)
tg.fuse(lambda x: tg.tanh(x) * tg.exp(x))(x).sum().backward()
print(tg.fuse.backend(), [round(g, 4) for g in x.grad.numpy().tolist()])
"""


def process(**env):
    """A program in a process of its own, with these in its environment."""
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": root, "TINYGRAD_RNN_C": "1", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_several_processes_at_once(logged):
    started = [process() for _ in range(3)]
    results = [p.communicate() for p in started]
    assert {out for out, _ in results} == {"c [2.0585, -0.1257]\n"}, results
    folder = compiler_module.cache()
    names = [path.name for path in folder.glob("*.so")]
    assert all(compiler_module._name(name[:32], folder / name) == name for name in names)
    before = logged()
    assert process().communicate()[0] == results[0][0]
    assert logged() == before


def test_without_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(CompilerError, match=r"tried gcc, clang, cc.*apt install.*CC.*'numpy'"):
        tg.fuse.backend("c")
    assert tg.fuse.backend() == "c"  # as it was
    monkeypatch.setenv("CC", "no-such-compiler -O1")
    with pytest.raises(CompilerError, match="tried no-such-compiler"):
        tg.fuse.backend("c")
    out, error = process().communicate()
    assert out == ""
    assert "CompilerError: fuse.backend: no C compiler; tried no-such-compiler" in error


@pytest.mark.parametrize("script", ["exit 3", "echo 1; [ $1 = --version ] || exit 3"])
def test_a_compiler_that_fails(tmp_path, monkeypatch, script):
    command = tmp_path / "broken-cc"
    command.write_text(f"#!/bin/sh\necho 'out of order' >&2\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("CC", str(command))
    with pytest.raises(CompilerError, match=r"(?s)broken-cc.* failed:.*out of order.*'numpy'"):
        tg.fuse.backend("c")


def test_a_text_that_does_not_compile(logged):
    with pytest.raises(CompilerError, match=r"(?s)kernel\.c.*error"):
        first_compiler().library("int int;\n")
    assert list(compiler_module.cache().glob("*.so")) == []


def test_a_file_that_cannot_be_loaded(logged, monkeypatch, tmp_path):
    (tmp_path / "text.so").write_text("no library")
    monkeypatch.setattr(compiler_module.Compiler, "library", lambda *_, **__: tmp_path / "text.so")
    with pytest.raises(CompilerError, match=r"text\.so cannot be loaded.*XDG_CACHE_HOME"):
        tg.fuse.backend("c")


def test_the_choice(monkeypatch):
    assert tg.fuse.backend() == "c"
    assert tg.fuse.backend("numpy") == "numpy"
    assert tg.fuse.backend() == "numpy"
    assert tg.fuse.backend("c") == "c"
    with pytest.raises(ArgumentError, match="'numpy' or 'c', got 'fortran'"):
        tg.fuse.backend("fortran")
    out, error = process(TINYGRAD_RNN_C="fortran").communicate()
    assert out == ""
    assert "TINYGRAD_RNN_C is 'fortran': 1 (" in error
