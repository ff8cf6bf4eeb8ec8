"""`tg.fuse`: a fused function is the function itself, computed and differentiated in kernels."""

from __future__ import annotations

import functools
import inspect
import itertools
import re
import threading
import time
import types
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.engine.graph import Leaf, reachable
from tinygrad_rnn.engine.namespaces import namespaces
from tinygrad_rnn.engine.pending import OutputGradients
from tinygrad_rnn.errors import ArgumentError, DeviceError, GraphError, ShapeError

pytestmark = pytest.mark.usefixtures("in_numpy")  # test_compiled.py compares C with it

UNARY = {
    "tanh": tg.tanh,
    "sigmoid": tg.sigmoid,
    "softplus": tg.softplus,
    "relu": tg.relu,
    "sin": tg.sin,
    "cos": tg.cos,
    "negative": lambda x: -x,
    "abs": tg.abs,
    "square": lambda x: x**2,
    "root": lambda x: tg.sqrt(1 + x * x),
    "exp": lambda x: tg.exp(tg.sin(x)),
    "log": lambda x: tg.log(1.5 + tg.cos(x)),
    "affine": lambda x: 0.5 - 2 * x,
    "inverse": lambda x: 1 / (2 + tg.sin(x)),
    "clip": lambda x: tg.clip(x, -0.7, 0.9),
}
BINARY = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / (2 + tg.cos(y)),
    "maximum": tg.maximum,
    "minimum": tg.minimum,
    "logaddexp": tg.logaddexp,
    "where": lambda x, y: tg.where(x > y, x, y * 0.5),
    "remainder": lambda x, y: x % (2 + tg.cos(y)),
    "floor": lambda x, y: x * (x // (2 + tg.cos(y))),
    "between": lambda x, y: tg.clip(x, y * 0.5, 1 + y * y),
}


@st.composite
def programs(draw, least=1):
    """A random pointwise function of some inputs, and how many inputs and results it has."""
    count = draw(st.integers(least, 4))
    steps = []
    for i in range(draw(st.integers(1, 8))):
        known = st.integers(0, count + i - 1)
        if draw(st.booleans()):
            steps.append((draw(st.sampled_from(sorted(UNARY))), draw(known)))
        else:
            steps.append((draw(st.sampled_from(sorted(BINARY))), draw(known), draw(known)))
    results = draw(st.lists(st.integers(0, count + len(steps) - 1), min_size=1, max_size=3))

    def program(*inputs):
        values = list(inputs)
        for name, *places in steps:
            args = [values[i] for i in places]
            values.append((UNARY if len(places) == 1 else BINARY)[name](*args))
        return tuple(values[i] for i in results)

    return program, count


def arrays(seed, count, shapes):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shapes[i % len(shapes)]) for i in range(count)]


def total(results, weights):
    return sum((y * y * w).sum() + (y * w).sum() for y, w in zip(results, weights, strict=False))


def derivatives(function, data, floating):
    """The results, the gradients, and the gradients of the gradients' squares."""
    x = [tg.tensor(a, requires_grad=i in floating) for i, a in enumerate(data)]
    wanted = [x[i] for i in sorted(floating)]
    results = function(*x)
    loss = total(results, (0.3, -1.1, 0.7))
    if not loss.requires_grad:
        return [y.numpy() for y in results]
    first = tg.grad(loss, wanted, create_graph=True, allow_unused=True)
    again = sum((g * g).sum() for g in first if g is not None)
    second = [None] * len(wanted)
    if isinstance(again, tg.Tensor) and again.requires_grad:
        second = tg.grad(again, wanted, allow_unused=True)
    plain = tg.grad(total(function(*x), (0.3, -1.1, 0.7)), wanted, allow_unused=True)
    return [None if t is None else t.detach().numpy() for t in [*results, *plain, *first, *second]]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        a = np.zeros(()) if a is None else a  # no path, or a path of zeros
        b = np.zeros(()) if b is None else b
        scale = max(1.0, np.abs(b).max(initial=0.0))
        np.testing.assert_allclose(*np.broadcast_arrays(a, b), rtol=1e-11, atol=1e-12 * scale)


SHAPES = st.sampled_from([[(3, 2)], [()], [(0, 2)], [(3, 2), (2,)], [(3, 1), (2,), ()], [(4,)]])


@given(programs(), SHAPES, st.integers(0, 2**32 - 1), st.data())
def test_fused_is_unfused_to_second_order(drawn, shapes, seed, data):
    program, count = drawn
    inputs = arrays(seed, count, shapes)
    floating = data.draw(st.sets(st.integers(0, count - 1)))
    fused = tg.fuse(program)
    found = derivatives(fused, inputs, floating)
    with tg.fuse.disabled():
        expected = derivatives(fused, inputs, floating)
    assert [None if y is None else y.shape for y in found] == [
        None if y is None else y.shape for y in expected
    ]
    assert_same(found, expected)


@given(
    programs(least=3),
    st.integers(1, 3),
    st.sampled_from([(), (2,), (2, 3)]),
    st.permutations(range(3)),
    st.integers(0, 2**32 - 1),
    st.data(),
)
def test_parts_are_parts_to_second_order(drawn, width, lead, order, seed, data):
    """What is split inside: of one argument or of their sum, read in any order or not at all."""
    program, count = drawn
    wide = arrays(seed, 2, [(*lead, 3 * width), (3 * width,)])
    rest = arrays(seed + 1, count - 3, [(*lead, width)])
    before = data.draw(st.sampled_from([lambda z, a: z + a, lambda z, a: tg.tanh(z) * a]))

    def gated(z, a, *others):
        parts = tg.split(before(z, a), 3, axis=-1)
        return program(*[parts[i] for i in order], *others)

    floating = data.draw(st.sets(st.integers(0, count - 2)))
    fused = tg.fuse(gated)
    found = derivatives(fused, [*wide, *rest], floating)
    with tg.fuse.disabled():
        expected = derivatives(fused, [*wide, *rest], floating)
    assert_same(found, expected)


@tg.fuse
def gates(z, a, c):
    """An LSTM's step, its gates in one array."""
    i, f, g, o = tg.split(z + a, 4, axis=-1)
    c = tg.sigmoid(f) * c + tg.sigmoid(i) * tg.tanh(g)
    return tg.sigmoid(o) * tg.tanh(c), c


def test_the_gradients_of_parts_are_computed_in_their_place():
    z, a = leaves(2, (3, 8))
    (c,) = leaves(1, (3, 2))
    kernel = gates.plan(z, a, c).backward((0, 1), (True,) * 3)[2]
    assert "copyto" not in kernel.source
    h, _ = gates(z, a, c)
    (node,) = h._node.parents
    F = namespaces[np.ndarray]
    given_back = OutputGradients(F, {0: np.ones((3, 2)), 1: np.ones((3, 2))})
    of_z, of_a, _ = node.vjp(namespaces[np.ndarray], given_back, node.parents, True)
    assert of_z is of_a
    assert of_z.shape == (3, 8)


def test_a_part_that_nobody_reads_has_no_gradient():
    (x,) = leaves(1, (2, 6))
    tg.fuse(lambda x: x[..., 1:3] * x[..., 1:3] + x[..., 4:])(x).sum().backward()
    expected = np.zeros((2, 6))
    expected[:, 1:3] = 2 * x.numpy()[:, 1:3]
    expected[:, 4:] = 1
    np.testing.assert_allclose(x.grad.numpy(), expected)


def test_a_constant_keeps_its_sign_though_zeros_are_equal():
    x = tg.tensor([1.0, 2.0])
    fused = tg.fuse(lambda x, y: (x * 0.0, x * -0.0, x * y))
    for y in (0.0, -0.0):
        plus, minus, given_one = (np.signbit(r.numpy()).any() for r in fused(x, y))
        assert (plus, minus, given_one) == (False, True, bool(np.signbit(y)))


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float16, np.float32, np.float64]))
def test_the_bits_are_those_of_the_operations(seed, dtype):
    inputs = [a.astype(dtype) for a in arrays(seed, 5, [(4, 3)])]

    def run():
        x = [tg.tensor(a, requires_grad=True) for a in inputs]
        h, c = lstm(*x)
        (h * c).sum().backward()
        return [h.numpy(), c.numpy(), *(t.grad.numpy() for t in x)]

    found = run()
    with tg.fuse.disabled():
        expected = run()
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_array_equal(a, b)


@tg.fuse
def lstm(i, f, g, o, c):
    """The arithmetic of an LSTM's step."""
    c = tg.sigmoid(f) * c + tg.sigmoid(i) * tg.tanh(g)
    return tg.sigmoid(o) * tg.tanh(c), c


def leaves(count, shape=(3, 4)):
    return [tg.tensor(a, requires_grad=True) for a in arrays(0, count, [shape])]


# -- numbers, constants and options ----------------------------------------------------------------

NUMBERS = {
    "int": st.integers(-3, 3),
    "float": st.floats(-3, 3, width=16),
    "np.float64": st.floats(-3, 3, width=16).map(np.float64),
    "np.float32": st.floats(-3, 3, width=16).map(np.float32),
    "np.float16": st.floats(-3, 3, width=16).map(np.float16),
    "np.int64": st.integers(-3, 3).map(np.int64),
    "bool": st.booleans(),
    "np.bool": st.booleans().map(np.bool_),
    "0-d array": st.floats(-3, 3, width=16).map(np.array),
}
CONSTANTS = st.sampled_from([0, 1, -2, 0.0, 0.1, 2.5, True, np.float32(0.1), np.float64(0.1)])
WITH_NUMBERS = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "maximum": tg.maximum,
    "logaddexp": tg.logaddexp,
    "less": lambda x, y: (x < y) * 1.5,
    "chosen": lambda x, y: tg.where(x > 0, x, y),
    "of two numbers": lambda x, y: tg.where(x > 0, 1.0, y),
    "to a power": lambda x, y: tg.abs(x) ** y,
    "as exponent": lambda x, y: (2 + 0 * y) ** x,
    "limited": lambda x, y: tg.clip(x, None, y) if np.ndim(y) == 0 else tg.minimum(x, y),
    "of Python": lambda x, y: x * (1 - y) + (y * y if np.ndim(y) == 0 else y) * 0.5,
    "of NumPy": lambda x, y: x - np.float32(2) * np.sqrt(np.abs(y)) * np.float64(0.5),
    "least": lambda x, y: x * min(y, 1) + max(1.5, y),
    "decided": lambda x, y: x * 2 if isinstance(y, float | int) and y > 0 else x - 1,
}


OF_NUMBERS = ("limited", "of Python", "of NumPy", "least", "decided")


@st.composite
def numbered(draw):
    """A random function of two Tensors and of numbers, by position and by name, and two calls."""
    kinds = [draw(st.sampled_from(sorted(NUMBERS))) for _ in range(draw(st.integers(1, 3)))]
    steps = []
    for i in range(draw(st.integers(1, 5))):
        other = ("value", draw(st.integers(0, i + 1)))
        other = draw(
            st.sampled_from(
                [other, ("number", draw(st.integers(0, len(kinds) - 1))), ("is", draw(CONSTANTS))]
            )
        )
        steps.append((draw(st.sampled_from(sorted(WITH_NUMBERS))), i + 1, other))  # none is dead
    by_name = draw(st.booleans())

    def program(x, y, *numbers, last=None):
        numbers = [*numbers, *([] if last is None else [last])]
        values = [x, y]
        for name, i, (kind, j) in steps:
            other = {"value": values, "number": numbers}[kind][j] if kind != "is" else j
            if isinstance(other, tg.Tensor) and name in OF_NUMBERS:
                name = "add"
            values.append(WITH_NUMBERS[name](values[i], other))
        return values[-1]

    calls = [[draw(NUMBERS[kind]) for kind in kinds] for _ in range(3)]
    return program, calls, by_name


def outcome(function, data, numbers, by_name):
    """Results, first and second derivatives with their dtypes; or the error."""
    x = [tg.tensor(a, requires_grad=a.dtype.kind == "f") for a in data]
    wanted = [t for t in x if t.requires_grad]
    try:
        with np.errstate(all="ignore"):
            y = function(*x, *numbers[:-1], last=numbers[-1]) if by_name else function(*x, *numbers)
            found = [y]
            if y.requires_grad:
                first = tg.grad((y * y).sum(), wanted, create_graph=True, allow_unused=True)
                again = [g for g in first if g is not None and g.requires_grad]
                found += first
                if again:
                    loss = sum((g * g).sum() for g in again)
                    found += tg.grad(loss, wanted, allow_unused=True)
    except Exception as error:
        return type(error), str(error)
    return [None if t is None else t.detach().numpy() for t in found]


def assert_alike(found, expected, exact=True):
    """The result to the bit, with its dtype; derivatives to rounding."""
    if isinstance(expected, tuple):
        assert found == expected
        return
    assert isinstance(found, list) and len(found) == len(expected), found
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert (a is None) == (b is None)
        if a is None:
            continue
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if i == 0 and exact:
            np.testing.assert_array_equal(a, b)
        elif a.dtype != np.float16:
            near = {np.dtype(np.float32): 2e-3}.get(a.dtype, 1e-7)
            # At a singular point it depends on the order of factors whether 0 meets an infinity.
            finite = np.isfinite(b)
            np.testing.assert_array_equal(np.isfinite(a), finite)
            most = np.abs(b[finite]).max(initial=1.0)
            np.testing.assert_allclose(a[finite], b[finite], rtol=near, atol=near * most)


DTYPES = st.sampled_from([np.float64, np.float32, np.float16, np.int32])


@given(numbered(), DTYPES, DTYPES, st.integers(0, 2**32 - 1))
def test_numbers_constants_and_options_are_those_of_the_operations(drawn, one, other, seed):
    program, calls, by_name = drawn
    shapes = [(3, 2), (2,)]
    data = [(2 * a).astype(t) for a, t in zip(arrays(seed, 2, shapes), (one, other), strict=True)]
    fused = tg.fuse(program)
    for numbers in calls:
        found = outcome(fused, data, numbers, by_name)
        numbers = [tg.tensor(n) if isinstance(n, np.ndarray) else n for n in numbers]
        assert_alike(found, outcome(program, data, numbers, by_name))


@tg.fuse
def with_options(x, /, y=2.0, *rest, scale=1.0, mode="plain", bias=None, **others):
    """Every kind of parameter that Python has."""
    out = x * y * scale
    for each in (*rest, *others.values()):
        out = out + each
    out = tg.tanh(out) if mode == "tanh" else out
    return out if bias is None else out + bias


@pytest.mark.parametrize(
    "args, by_name",
    [
        ((), {}),
        ((3.0,), {}),
        ((), {"scale": 3.0}),
        ((), {"y": 3, "scale": np.float64(0.1), "mode": "tanh"}),
        ((2.0, 1.0, 4), {"bias": -1.0, "more": 5.0}),
        ((), {"scale": True}),
        ((), {"bias": np.array([1.0, 2.0, 3.0])}),
        ((), {"bias": [1, 2, 3]}),
    ],
)
def test_every_kind_of_parameter(args, by_name):
    (x,) = leaves(1, (3,))
    for _ in range(2):
        found = with_options(x, *args, **by_name)
        (g,) = tg.grad(found.sum(), [x])
        expected = with_options.function(x, *args, **by_name)
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
        np.testing.assert_allclose(g.numpy(), tg.grad(expected.sum(), [x])[0].numpy(), rtol=1e-15)
    with pytest.raises(TypeError, match="scal"):
        tg.fuse(lambda x, *, scale=1.0: x * scale)(x, scal=2.0)


def test_lists_and_dicts_of_tensors_and_lists_of_numbers():
    x, y = leaves(2, (3,))

    @tg.fuse
    def function(pair, by_name, limits, shift):
        low, high = limits
        return tg.clip(pair[0] * by_name["y"], low, high) + shift

    for high in (0.5, 0.25):
        given = [x, 2.0], {"y": y}, (-1.0, high), [1.0, 2.0, 3.0]
        found = function(*given)
        expected = function.function(*given)
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
    found.sum().backward()
    assert x.grad is not None and y.grad is not None


def test_a_number_is_an_argument_of_the_kernel_and_no_part_of_it():
    traced = []

    @tg.fuse
    def function(x, scale, exponent, slope):
        traced.append(1)
        x = tg.where(x > 0, x, slope * x) * tg.where(x > 0, 1.0, slope)
        return tg.abs(x) ** exponent * (1 - scale) + tg.clip(x, -scale, scale) if scale > 0 else x

    (x,) = leaves(1)
    for i in range(1, 40):
        numbers = 0.1 * i, np.float64(1 + i / 7), 1 / i
        found = derivatives(lambda x, n=numbers: (function(x, *n),), [x.numpy()], {0})
        with tg.fuse.disabled():
            before = len(traced)
            assert_same(
                found, derivatives(lambda x, n=numbers: (function(x, *n),), [x.numpy()], {0})
            )
            del traced[before:]
    assert len(traced) == 2  # one trace, and one to see that it is the same
    function(x, -1.0, np.float64(2.0), 0.5)  # another branch
    assert len(traced) == 4


@pytest.mark.parametrize("integer", [300, -1, 2**70, 7])
def test_an_integer_that_a_dtype_has_not_is_compared_or_refused_as_unfused(integer):
    x = tg.tensor(np.array([1, 200, 7], np.uint8))
    for function in (lambda x, n: x < n, lambda x, n: (x == n, x >= n), lambda x, n: x + n):
        for fused in (tg.fuse(function), tg.fuse(lambda x, f=function: f(x, integer))):
            args = (x, integer) if fused.function is function else (x,)
            try:
                expected = function(x, integer)
            except OverflowError as error:
                with pytest.raises(OverflowError, match=re.escape(str(error))):
                    fused(*args)
            else:
                many = expected if isinstance(expected, tuple) else (expected,)
                found = fused(*args)
                for a, b in zip(found if isinstance(found, tuple) else (found,), many, strict=True):
                    assert a.dtype == b.dtype
                    np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_what_is_wrong_is_said_as_the_operations_say_it():
    x = tg.tensor([1, 2])
    for function, numbers in (
        (lambda x, n: x**n, (2, -1)),
        (lambda x, n: x * (1 / n), (2, 0)),
        (lambda x, low: tg.clip(x, low, 0), (-1, 1)),
    ):
        fused = tg.fuse(function)
        good, bad = numbers
        fused(x, good)
        with pytest.raises(Exception) as expected:
            function(x, bad)
        with pytest.raises(expected.type, match=re.escape(str(expected.value))):
            fused(x, bad)


def test_numbers_and_constants_on_a_device(accelerator):
    fused = tg.fuse(
        lambda x, s: tg.tanh(x) * s + x * tg.where(x > 0, 1.0, s) + 2.0**x + tg.abs(x) ** s
    )
    for dtype in (tg.float32, tg.float64):
        for s in (0.5, np.float64(0.25), 2):
            x = tg.tensor([[0.5, -1.5, 2.0]], dtype, requires_grad=True)
            there = tg.tensor(x.numpy(), device=accelerator, requires_grad=True)
            for a in (x, there):
                fused(a, s).sum().backward()
            assert there.grad.dtype == dtype
            np.testing.assert_allclose(there.grad.to("cpu").numpy(), x.grad.numpy(), rtol=1e-6)


def test_arguments_on_different_devices_are_refused(accelerator):
    def product(x, y):
        return x * y

    message = r"^product: operands on different devices \(cpu, cuda:0\)"
    with pytest.raises(DeviceError, match=message):
        tg.fuse(product)(tg.ones(2), tg.ones(2, device=accelerator))


# -- other shapes ----------------------------------------------------------------------------------


@given(programs(least=2), st.booleans(), st.integers(0, 2**32 - 1), st.data())
def test_a_plan_serves_for_all_shapes_that_broadcast_alike(drawn, cut, seed, data):
    program, count = drawn
    traced = []

    def function(x, *others):
        traced.append(1)
        if cut:
            x, other = tg.split(x, 2, axis=-1)
            others = (other * others[0], *others[1:])
        return program(x, *others)

    fused = tg.fuse(function)
    forms = [data.draw(st.sampled_from([(1, 1), (0, 1), (1, 0), (0,), ()])) for _ in range(count)]
    forms[0] = (1, 1)
    for rows, columns in ((3, 2), (5, 2 if cut else 7), (7, 2 if cut else 3)):
        sizes = [[n if k else 1 for k, n in zip(f[::-1], (columns, rows))][::-1] for f in forms]  # noqa: B905
        sizes[0] = [rows, 2 * columns if cut else columns]
        inputs = [a.reshape(n) for a, n in zip(arrays(seed, count, sizes), sizes, strict=True)]
        found = derivatives(fused, inputs, set(range(count)))
        mine = len(traced)
        with tg.fuse.disabled():
            assert_same(found, derivatives(fused, inputs, set(range(count))))
        del traced[mine:]
    assert len(traced) == 2


def test_a_hundred_shapes_are_one_trace():
    traced = []

    @tg.fuse
    def function(x, bias):
        traced.append(1)
        return tg.tanh(x + bias) * x

    for n in range(2, 102):
        (x,) = leaves(1, (n, 3 * n))
        (bias,) = leaves(1, (3 * n,))
        out = function(x, bias)
        out.sum().backward()
        t = np.tanh(x.numpy() + bias.numpy())
        np.testing.assert_array_equal(out.numpy(), t * x.numpy())
        np.testing.assert_allclose(bias.grad.numpy(), ((1 - t * t) * x.numpy()).sum(0), rtol=1e-9)
    assert len(traced) == 2
    assert len(function.plans) <= 64
    assert all(len(plans) == 1 for plans in function.plans.values())


def test_the_plans_for_the_same_arrays_are_bounded():
    fused = tg.fuse(lambda x, n: x * round(n))
    for i in range(300):
        x = tg.ones(i % 7 + 2)
        assert fused(x, float(i % 50)).numpy()[0] == i % 50
    assert max(map(len, fused.plans.values())) <= 8


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x / x.shape[-1],
        lambda x: x * len(x),
        lambda x: x * 2 if x.shape[0] > 3 else x,
        lambda x: x * np.prod(x.shape).item(),
        lambda x: x * float(np.shape(x)[0]),
    ],
)
def test_what_reads_a_length_has_a_plan_for_each(function):
    fused = tg.fuse(function)
    for n in (2, 3, 4, 5, 3):
        (x,) = leaves(1, (n, 2 * n))
        np.testing.assert_array_equal(fused(x).numpy(), function(x).numpy())


def test_a_plan_that_read_a_length_serves_for_no_other_though_a_number_chose_it():
    def function(x, n):
        return x * n if n > 0 else x / len(x)

    fused = tg.fuse(function)
    for n, length in [(-1, 5), (1, 5), (-1, 6), (2, 6), (-2, 5), (-1, 7), (1, 8), (-1, 6)]:
        x = tg.ones(length)
        np.testing.assert_array_equal(fused(x, n).numpy(), function(x, n).numpy())


@tg.primitive(x=lambda F, g, x_shape: g * x_shape[0])
def times_length(xp, x):
    """A rule that reads a length."""
    return x * x.shape[0]


def test_a_rule_that_reads_a_length_has_a_plan_for_each():
    fused = tg.fuse(lambda x: times_length(x) + 1)
    for n in (2, 3, 5):
        (x,) = leaves(1, (n,))
        fused(x).sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), np.full(n, float(n)))


def test_shapes_that_do_not_meet_have_a_plan_of_their_own():
    fused = tg.fuse(lambda x, y: (x * 2, y * 3))
    for a, b in ((5, 5), (6, 6), (5, 7), (7, 1), (0, 3)):
        x, y = tg.ones(a), tg.ones(b)
        assert [t.shape for t in fused(x, y)] == [(a,), (b,)]
    with pytest.raises(ShapeError, match=r"\(2,\).*\(3,\)"):
        tg.fuse(lambda x, y: x + y)(tg.ones(2), tg.ones(3))


# -- what else it reads ----------------------------------------------------------------------------

ALPHA = 1.0
ACTIVATION = tg.tanh


class Settings:
    """Holds numbers in every way."""

    rate = 2.0

    def __init__(self):
        self.scale, self.table, self.values = 1.0, {"a": [1.0]}, [1.0, (2.0,)]

    @property
    def product(self):
        """Of one on the class and one on the object."""
        return self.rate * self.scale

    def __call__(self, x):
        """Is called without being named."""
        return x * self.hidden

    hidden = 1.0


def helped(x):
    """Reads a global in a function that a fused one calls."""
    return x * ALPHA


inside = tg.fuse(lambda x: ACTIVATION(x) * ALPHA)


def test_a_change_in_what_it_reads_is_seen(monkeypatch):
    settings, local, module = Settings(), 1.0, types.ModuleType("settings")
    module.alpha = 1.0

    def function(x, *, own=[1.0]):  # noqa: B006 - one that changes
        y = helped(x) + inside(x) * local + settings(x) * own[0]
        return y * settings.product + settings.table["a"][0] * settings.values[1][0] * module.alpha

    fused, x = tg.fuse(function), tg.tensor([0.5, 2.0])

    def assert_seen():
        for _ in range(2):
            np.testing.assert_array_equal(fused(x).numpy(), function(x).numpy())

    assert_seen()
    monkeypatch.setitem(globals(), "ALPHA", 2.0)
    assert_seen()
    monkeypatch.setitem(globals(), "ACTIVATION", tg.exp)
    assert_seen()
    local = 3.0
    assert_seen()
    for change in (
        lambda: setattr(settings, "scale", 4.0),
        lambda: setattr(settings, "rate", 5.0),
        lambda: monkeypatch.setattr(Settings, "hidden", 6.0),
        lambda: settings.table["a"].__setitem__(0, 7.0),
        lambda: settings.table.__setitem__("a", [8.0]),
        lambda: settings.values.__setitem__(1, (9.0,)),
        lambda: setattr(module, "alpha", 10.0),
        lambda: function.__kwdefaults__["own"].__setitem__(0, 11.0),
        lambda: monkeypatch.setattr(Settings, "__call__", lambda self, x: x),
    ):
        before = fused(x).numpy()
        change()
        assert_seen()
        assert (fused(x).numpy() != before).any()


class Computed:
    """Has its values under names that no code spells."""

    def __init__(self):
        self.held, self.a, self.b = {"scale": 2.0}, 3.0, 4.0

    def __getattr__(self, name):
        return self.__dict__["he" + "ld"][name]


def test_attributes_that_are_looked_up_by_strings_are_compared():
    x, settings = tg.ones(2), Computed()
    functions = {
        "scale": lambda x: x * settings.scale,
        "a": lambda x: x * getattr(settings, "a"),  # noqa: B009 - that is what is tried
        "b": lambda x: x * vars(settings)[min("b", "c")],
    }
    for name, function in functions.items():
        fused = tg.fuse(function)
        before = fused(x).numpy()
        (settings.held if name == "scale" else vars(settings))[name] = 7.0
        assert (before != 7).all() and fused(x).numpy().tolist() == [7, 7]


def test_the_mode_of_a_module_in_a_block_of_evaluating_is_read_at_each_call():
    class Noisy(tg.nn.Module):
        def __init__(self):
            super().__init__()
            self.fused = tg.fuse(self.forward)

        def forward(self, x):
            return x * 2 if self.training else x

    module, x = Noisy(), tg.ones(2)
    assert module.fused(x).numpy().tolist() == [2, 2]
    with module.evaluating():
        assert module.fused(x).numpy().tolist() == [1, 1]
    assert module.fused(x).numpy().tolist() == [2, 2]


@pytest.mark.parametrize("run", [1, 2])  # of the two on expressions
def test_what_another_thread_changes_during_a_run_on_expressions_is_in_no_plan(run):
    settings, runs = Settings(), []
    change = functools.partial(setattr, settings, "rate", 5.0)  # from where the code does not show

    def function(x):
        runs.append(1)
        if len(runs) == run:
            change()
        return x * settings.rate

    fused, x = tg.fuse(function), tg.ones(2)
    for _ in range(3):
        assert fused(x).numpy().tolist() == [5, 5]
    settings.rate = 3.0
    assert fused(x).numpy().tolist() == [3, 3]


def test_a_fused_method_has_its_object():
    class Leaky:
        def __init__(self, slope):
            self.slope = slope

        @tg.fuse
        def act(self, x):
            return tg.where(x > 0, x, self.slope * x)

    x, units = tg.tensor([-1.0, 1.0]), [Leaky(0.5), Leaky(0.25)]
    assert [unit.act(x).numpy().tolist() for unit in units] == [[-0.5, 1], [-0.25, 1]]
    units[0].slope = 2.0
    assert [unit.act(x).numpy().tolist() for unit in units] == [[-2, 1], [-0.25, 1]]
    assert Leaky.act(units[1], x).numpy().tolist() == [-0.25, 1]


def test_a_number_outside_that_changes_at_each_call_ends_in_plain_runs():
    traced, alpha = [], 0.0

    @tg.fuse
    def function(x):
        traced.append(1)
        return x * alpha

    x = tg.ones(2)
    for i in range(100):
        alpha = float(i)
        assert function(x).numpy().tolist() == [i, i]
    assert len(traced) < 140  # 16 plans at two runs each, then one run for each call


def test_the_default_dtype_is_read_at_each_call():
    fused = tg.fuse(lambda x: tg.where(x > 0, 1.0, 0.1))
    x = tg.tensor([1.0, -1.0])
    for dtype in (tg.float32, tg.float64, tg.float16, tg.float32):
        tg.set_default_dtype(dtype)
        assert fused(x).dtype == dtype
        np.testing.assert_array_equal(fused(x).numpy(), np.array([1.0, 0.1], dtype))


COUNT = {"n": 0}


def counting(x):
    """Counts its calls, and computes with that."""
    COUNT["n"] += 1
    return x * COUNT["n"]


ITERATOR = itertools.count(1)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * next(ITERATOR),
        lambda x: x * time.perf_counter(),
        lambda x: x * float(np.random.default_rng().normal()),
        counting,
        lambda x: (x, x) if next(ITERATOR) % 2 else (x,),
    ],
)
def test_what_is_another_one_each_time_is_refused(function):
    fused = tg.fuse(function)
    for _ in range(20):
        with pytest.raises(ArgumentError, match=r"something else each time.*pass what changes"):
            fused(tg.ones(2))


def test_what_it_writes_itself_and_does_not_read_does_not_matter():
    history = []

    @tg.fuse
    def function(x):
        history.append(1)
        return x * 2

    for _ in range(5):
        function(tg.ones(2))
    assert len(history) == 2


@pytest.mark.parametrize("value", [2.0, np.array(2.0), [2.0, 3.0]])
def test_an_array_from_outside_is_refused_though_it_is_small(value):
    w = tg.tensor(value)
    for function in (lambda x: x * w, lambda x: x * w.numpy(), lambda x: tg.exp(w) + x):
        with pytest.raises(ArgumentError, match=r"not an argument.*pass it"):
            tg.fuse(function)(tg.ones(2))


# -- what it saves ---------------------------------------------------------------------------------


def test_one_node_for_all_operations():
    x = leaves(5)
    h, c = lstm(*x)
    nodes = reachable([h._node, c._node])
    assert sorted(type(node).__name__ for node in nodes if not isinstance(node, Leaf)) == [
        "FusedNode",
        "OutputNode",
        "OutputNode",
    ]
    assert "lstm" in repr(h) or "piece" in repr(h)


def test_what_is_equal_is_computed_once_and_what_is_dead_never():
    @tg.fuse
    def function(x):
        tg.exp(x)
        return tg.tanh(x) * tg.tanh(x) + tg.tanh(x)

    source = function.plan(leaves(1)[0]).forward.source
    assert source.count("tanh(") == 1
    assert "exp(" not in source
    assert source.count("empty(") == 2


def test_of_what_it_read_only_what_the_gradient_needs_is_kept():
    (x,) = leaves(1)
    middle = x * 2  # nobody else holds it
    watched = weakref.ref(middle._data)
    out = tg.fuse(lambda t: tg.tanh(t + 1))(middle)
    del middle
    assert watched() is None
    out.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * (1 - np.tanh(2 * x.numpy() + 1) ** 2))


def test_gradients_that_nobody_needs_are_not_computed():
    x = leaves(5)
    x[0].requires_grad = False
    h, _ = lstm(*x)
    (node,) = h._node.parents
    kernel = node.plan.backward((0,), tuple(p is not None for p in node.parents))[2]
    whole = node.plan.backward((0,), (True,) * 5)[2]
    assert kernel.source.count("out=") < whole.source.count("out=")
    tg.grad(h.sum(), x[1:])


def test_a_write_into_what_it_saved_is_noticed():
    x, y = leaves(2)
    out = tg.fuse(lambda x, y: x * y)(x, y)
    x.data = x.data + 1
    with pytest.raises(GraphError, match="changed in place"):
        out.sum().backward()


def test_a_second_backward_needs_retain_graph():
    x = leaves(5)
    h, _ = lstm(*x)
    loss = h.sum()
    first = tg.grad(loss, x, retain_graph=True)
    again = tg.grad(loss, x)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    with pytest.raises(GraphError, match="retain_graph"):
        tg.grad(h.sum(), x)


def test_a_result_that_is_an_argument_has_memory_of_its_own():
    (x,) = leaves(1)
    before = x.numpy()
    same, twice = tg.fuse(lambda x: (x, x))(x)
    x.data = x.data + 1
    np.testing.assert_array_equal(same.numpy(), before)
    (same + 2 * twice).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.full(x.shape, 3.0))


# -- where it stands -------------------------------------------------------------------------------


def test_a_fused_function_inside_another_is_part_of_it():
    inner = tg.fuse(lambda x: tg.tanh(x) * 2)
    outer = tg.fuse(lambda x: inner(x) + 1)
    (x,) = leaves(1)
    out = outer(x)
    assert sum(type(n).__name__ == "FusedNode" for n in reachable([out._node])) == 1
    np.testing.assert_allclose(out.numpy(), np.tanh(x.numpy()) * 2 + 1)


def test_numbers_and_arrays_and_arguments_by_name():
    @tg.fuse
    def function(x, y, power):
        return x**power + y

    (x,) = leaves(1)
    other = np.ones(4)
    out = function(x, other, 3)
    np.testing.assert_allclose(out.numpy(), x.numpy() ** 3 + 1)
    other[:] = 7
    out.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 3 * x.numpy() ** 2)
    assert function(2.0, 3.0, 2) == 7.0
    by_name = function(x, power=2, y=x)
    np.testing.assert_allclose(by_name.numpy(), x.numpy() ** 2 + x.numpy())


def test_integers_follow_floats_and_masks_stay_masks():
    @tg.fuse
    def function(x, mask):
        return tg.where(mask, x * 2, 0.0), x > 0

    x = tg.tensor([1.0, -2.0, 3.0], requires_grad=True)
    y, positive = function(x, tg.tensor([True, True, False]))
    assert positive.dtype == bool
    assert not positive.requires_grad
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2, 2, 0])


def test_a_recurrent_cell_of_fused_arithmetic_learns_the_same():
    def losses():
        tg.manual_seed(0)
        layer = tg.nn.Recurrent(Gated, 3, 5)
        optimizer = tg.optim.SGD(layer.parameters(), lr=0.1)
        x = tg.tensor(arrays(1, 1, [(6, 2, 3)])[0].astype(np.float32))
        found = []
        for _ in range(4):
            optimizer.zero_grad()
            loss = (layer(x)[0] ** 2).mean()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    fused = losses()
    with tg.fuse.disabled():
        assert fused == losses()


@tg.fuse
def gate(a, h):
    """A gate between the old state and a new one."""
    return tg.sigmoid(a) * h + (1 - tg.sigmoid(a)) * tg.tanh(a)


class Gated(tg.nn.Cell):
    """A cell of one gate."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.W = tg.nn.Linear(input_size, hidden_size)
        self.U = tg.nn.Linear(hidden_size, hidden_size)

    def project(self, x):
        return self.W(x)

    def step(self, z, h):
        return gate(z + self.U(h), h)


def test_under_no_grad_there_is_no_graph():
    x = leaves(5)
    with tg.no_grad():
        h, c = lstm(*x)
    assert not h.requires_grad
    assert not c.requires_grad


def test_the_plans_kept_are_bounded():
    function = tg.fuse(lambda x: x + 1)
    for n in range(100):
        function(tg.zeros(n + 1))
    assert len(function.plans) <= 64


def test_disabled_is_for_one_thread():
    seen = []
    (x,) = leaves(1)
    function = tg.fuse(tg.tanh)

    def other():
        seen.append(type(function(x)._node))

    with tg.fuse.disabled():
        here = type(function(x)._node)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert seen == [type(function(x)._node)]
    assert here not in seen


def test_layouts_are_kept():
    x = [tg.tensor(np.asfortranarray(a), requires_grad=True) for a in arrays(0, 5, [(3, 4)])]
    h, _ = lstm(*x)
    assert h.data.flags.f_contiguous
    (g,) = tg.grad(h.sum(), [x[0]])
    assert g.data.flags.f_contiguous


# -- what it cannot do -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda x: x if (x > 0) else -x, "reads a value.*where"),
        (lambda x: x.sum(), "sum.*element by element"),
        (lambda x: x * x.mean(), "mean"),
        (lambda x: x[0], "takes elements and does not slice the last axis"),
        (lambda x: tg.softmax(x), "max"),
        (lambda x: tg.ones(3), "does not depend on its arguments"),
        (lambda x: 3.0, "returned a float"),
        (lambda x: float(x), "reads a value"),
        (lambda x: x.reshape(-1), "reshape"),
        (lambda x: x[::2], "with a step of 2"),
        (lambda x: x[..., :2] + x[..., 1:], "overlap"),
    ],
)
def test_what_is_not_pointwise_is_refused(function, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        tg.fuse(function)(tg.ones(3, requires_grad=True))
    assert "fuse" in str(caught.value)


def test_what_is_no_function_is_refused():
    with pytest.raises(ArgumentError, match="fuse: a function is expected, got 3"):
        tg.fuse(3)


def test_the_line_is_named():
    def branching(x):
        if x > 0:  # here
            return x
        return -x

    line = branching.__code__.co_firstlineno + 1
    with pytest.raises(ArgumentError, match=rf"test_fuse\.py:{line}\)"):
        tg.fuse(branching)(tg.ones(2))


def test_the_line_is_the_users_where_a_function_of_ours_reads_the_part():
    split = lambda x: tg.split(x, 2, axis=0)[0]  # noqa: E731
    with pytest.raises(ArgumentError, match=rf"test_fuse\.py:{split.__code__.co_firstlineno}\)"):
        tg.fuse(split)(tg.ones(2, 6))


def test_a_tensor_that_is_no_argument_is_refused():
    w = tg.ones(3, requires_grad=True)
    with pytest.raises(ArgumentError, match=r"not an argument.*pass it"):
        tg.fuse(lambda x: x * w)(tg.ones(3))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match=r"\(2,\).*\(3,\)"):
        tg.fuse(lambda x, y: x + y)(tg.ones(2), tg.ones(3))


def test_the_users_line_is_named_and_not_the_librarys():
    @tg.fuse
    def normalised(x):
        return tg.functional.layer_norm(x, 3)  # this one

    here = inspect.getsourcelines(normalised.function)[1] + 2
    with pytest.raises(ArgumentError, match=rf"mean.*test_fuse\.py:{here}\)"):
        normalised(tg.ones(2, 3))
