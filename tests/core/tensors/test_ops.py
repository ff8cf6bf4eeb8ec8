"""Every operation against NumPy, and its gradients of two orders against differences.

The tests are generated from the table in op_table.py.
"""

from __future__ import annotations

import functools
import inspect
import operator
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_rnn as tg
from op_table import ROWS, Case, Row, equations
from tinygrad_rnn import tensors as ops
from tinygrad_rnn.engine import backend
from tinygrad_rnn.engine.namespaces import PRIMITIVES
from tinygrad_rnn.errors import GraphError, ShapeError
from tinygrad_rnn.testing import LAYOUTS

SMOOTH = [row for row in ROWS if row.smooth]
SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=max(5, settings.default.max_examples // 3))
BY_NAME = operator.attrgetter("name")
every_row = pytest.mark.parametrize("row", ROWS, ids=BY_NAME)
every_smooth_row = pytest.mark.parametrize("row", SMOOTH, ids=BY_NAME)

Tensors = list[tg.Tensor]
Function = Callable[..., Tensors]


# -- tools -----------------------------------------------------------------------------------------


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def bound(row: Row, case: Case) -> Function:
    """The operation as a function of its arrays alone, that returns a list."""
    return lambda *arrays: listed(row.function(*arrays, **case.keywords))


def leaves(arrays: Sequence[np.ndarray]) -> Tensors:
    return [tg.tensor(array, requires_grad=True) for array in arrays]


def gradients(
    function: Function, tensors: Tensors, cotangents: Sequence[Any], create_graph: bool = False
) -> list[Any]:
    """Jᵀ u; an output that does not depend on the arrays has no part in it."""
    pairs = [
        (out, u) for out, u in zip(function(*tensors), cotangents, strict=True) if out.requires_grad
    ]
    if not pairs:
        return [None] * len(tensors)
    outputs, starts = zip(*pairs, strict=True)
    return list(
        tg.grad(outputs, tensors, grad_outputs=starts, create_graph=create_graph, allow_unused=True)
    )


# -- the table is complete -------------------------------------------------------------------------


def own_primitives() -> set[str]:
    """Names of the rows of the package's own primitives, without those of users and examples."""
    return {
        name if getattr(ops, name, None) is operation else f"F.{name}"
        for name, operation in PRIMITIVES.items()
        if getattr(sys.modules.get(operation.__module__), name, None) is operation
        and operation.__module__.startswith("tinygrad_rnn")
    }


def public_functions() -> set[str]:
    return {
        name
        for name, value in vars(ops).items()
        if inspect.isfunction(value)
        and value.__module__.startswith(("tinygrad_rnn.engine.ops.", "tinygrad_rnn.tensors."))
        and not name.startswith("_")
    }


def missing_rows(rows: Sequence[Row]) -> set[str]:
    return (own_primitives() | public_functions()) - {row.name for row in rows}


def test_every_operation_has_a_row():
    assert not missing_rows(ROWS), f"no row in op_table.py: {sorted(missing_rows(ROWS))}"
    names = [row.name for row in ROWS]
    assert names == sorted(set(names))
    assert set(names) == own_primitives() | public_functions()


@every_row
def test_a_row_that_is_missing_is_noticed(row):
    assert missing_rows([other for other in ROWS if other is not row]) == {row.name}


def test_every_public_operation_is_a_function_of_the_package():
    inner = {"feature_major", "getitem", "stack_over_time"}
    for name in public_functions() - inner:
        assert getattr(tg, name) is getattr(ops, name)


@every_row
def test_a_row_says_whether_there_is_a_gradient(row):
    primitive = PRIMITIVES.get(row.name.removeprefix("F."))
    if primitive is not None:
        rules = primitive.definition
        assert row.smooth == bool(rules.rules)


# -- the forward pass ------------------------------------------------------------------------------


def assert_equal_to_numpy(got: Any, expected: Any, rtol: float = 1e-12, atol: float = 1e-13):
    assert isinstance(got, list) == isinstance(expected, list)
    assert len(listed(got)) == len(listed(expected))
    for ours, theirs in zip(listed(got), listed(expected), strict=True):
        theirs = np.asarray(theirs)
        assert isinstance(ours, tg.Tensor)
        assert type(ours.data) in backend.modules
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        eps = 4 * np.finfo(theirs.dtype).eps if theirs.dtype.kind == "f" else 0.0
        np.testing.assert_allclose(
            ours.numpy(), theirs, rtol=max(rtol, eps), atol=max(atol, eps**2)
        )


@every_row
@given(data=st.data())
def test_forward_equals_numpy(row, data):
    case = data.draw(row.cases)
    expected = row.reference(*case.arrays, **case.keywords)
    assert_equal_to_numpy(row.function(*map(tg.tensor, case.arrays), **case.keywords), expected)
    tracked = row.function(*leaves(case.arrays), **case.keywords)
    assert_equal_to_numpy(tracked, expected)
    assert all(out.requires_grad == row.smooth for out in listed(tracked))


@every_row
@FEW
@given(data=st.data())
def test_arguments_are_never_written_to(row, data):
    case = data.draw(row.cases)
    tensors = leaves(case.arrays)
    outputs = bound(row, case)(*tensors)
    cotangents = [tg.ones(out.shape, dtype=out.dtype) for out in outputs]
    if row.smooth:
        gradients(lambda *_: outputs, tensors, cotangents)
    for tensor, array in zip(tensors, case.arrays, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), array)
    for u in cotangents:
        np.testing.assert_array_equal(u.numpy(), 1)


@pytest.mark.parametrize("row", [row for row in ROWS if row.everywhere], ids=BY_NAME)
@given(data=st.data())
def test_forward_equals_numpy_for_every_number(row, data):
    """Infinite ones, nan, subnormal ones and those that overflow."""
    case = data.draw(row.cases)
    numbers = st.floats(width=64)
    arrays = [data.draw(hnp.arrays(np.float64, a.shape, elements=numbers)) for a in case.arrays]
    with np.errstate(all="ignore"):
        expected = row.reference(*arrays, **case.keywords)
        got = row.function(*map(tg.tensor, arrays), **case.keywords)
    assert_equal_to_numpy(got, expected, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("row", [row for row in ROWS if row.integers], ids=BY_NAME)
@given(data=st.data())
def test_integers_stay_integers_or_become_the_default_floating_dtype(row, data):
    case = data.draw(row.cases)
    dtypes = [np.int64, np.int32, np.uint8] + [np.bool_] * (row.integers == "floating")
    dtype = data.draw(st.sampled_from(dtypes))
    arrays = [np.ceil(np.abs(a)).astype(dtype) for a in case.arrays]
    if np.dtype(dtype).kind == "i" and row.name not in ("log", "log1p", "sqrt"):
        arrays = [np.copysign(a, b).astype(dtype) for a, b in zip(arrays, case.arrays, strict=True)]
    if row.integers == "floating":
        tg.set_default_dtype(data.draw(st.sampled_from([np.float32, np.float64])))
        expected = listed(row.reference(*[a.astype(float) for a in arrays], **case.keywords))
        expected = [np.asarray(e).astype(tg.get_default_dtype()) for e in expected]
    else:
        expected = listed(row.reference(*arrays, **case.keywords))
    got = bound(row, case)(*map(tg.tensor, arrays))
    tg.set_default_dtype(np.float32)
    assert_equal_to_numpy(got, expected, rtol=1e-5, atol=1e-5)


# -- gradients -------------------------------------------------------------------------------------


@every_smooth_row
@given(data=st.data(), seed=SEEDS)
def test_gradients_of_two_orders_equal_differences(row, data, seed):
    case = data.draw(row.cases)
    tg.gradcheck(bound(row, case), case.arrays, rng=seed)


@every_smooth_row
@FEW
@given(data=st.data(), seed=SEEDS)
def test_the_same_tensor_in_two_places(row, data, seed):
    """For every argument of one shape, and the operation twice on the same tensor."""
    case = data.draw(row.cases)
    chosen = case.arrays[row.shared % len(case.arrays)]

    def shared(x: tg.Tensor) -> Tensors:
        arrays = [x if a.shape == x.shape else tg.tensor(a) for a in case.arrays]
        return bound(row, case)(*arrays) + bound(row, case)(*arrays)

    tg.gradcheck(shared, [chosen], rng=seed)


@every_smooth_row
@FEW
@given(data=st.data(), seed=SEEDS)
def test_memory_layout_changes_nothing(row, data, seed):
    case = data.draw(row.cases)
    plain = leaves(case.arrays)
    expected = bound(row, case)(*plain)
    rng = np.random.default_rng(seed)
    cotangents = [rng.uniform(-1, 1, out.shape) for out in expected]
    grads = gradients(lambda *_: expected, plain, cotangents)
    for name, (prepare, view) in LAYOUTS.items():
        bases = leaves([prepare(a) for a in case.arrays])
        got = bound(row, case)(*map(view, bases))
        assert_equal_to_numpy(got, [e.numpy() for e in expected])
        others = [view(tg.tensor(prepare(u))) for u in cotangents]
        for g, e in zip(gradients(lambda *_, got=got: got, bases, others), grads, strict=True):
            assert (g is None) == (e is None), name
            if g is not None:
                np.testing.assert_allclose(view(g.numpy()), e.numpy(), rtol=1e-12, atol=1e-13)


@every_smooth_row
@given(data=st.data(), seed=SEEDS)
def test_dtypes_are_kept(row, data, seed):
    """Float32 in, float32 out, forward and backward; so for float64, whatever the default is."""
    case = data.draw(row.cases)
    tg.set_default_dtype(data.draw(st.sampled_from([np.float32, np.float64])))
    rng = np.random.default_rng(seed)
    for dtype, rtol in ((np.float32, 1e-4), (np.float64, 1e-12)):
        keywords = dict(case.keywords)
        if row.name == "F.cast":
            keywords["dtype"] = np.dtype(dtype)
        tensors = leaves([a.astype(dtype) for a in case.arrays])
        outputs = listed(row.function(*tensors, **keywords))
        expected = listed(row.reference(*[a.astype(dtype) for a in case.arrays], **keywords))
        for out, e in zip(outputs, expected, strict=True):
            assert out.dtype == dtype
            np.testing.assert_allclose(out.numpy(), e, rtol=rtol, atol=rtol)
        cotangents = [rng.uniform(-1, 1, out.shape).astype(dtype) for out in outputs]
        for grad in gradients(lambda *_, o=outputs: o, tensors, cotangents):
            assert grad is None or grad.dtype == dtype
        outputs = listed(row.function(*tensors, **keywords))
        again = gradients(lambda *_, o=outputs: o, tensors, cotangents, create_graph=True)
        for grad in again:
            assert grad is None or grad.dtype == dtype
    tg.set_default_dtype(np.float32)


BINARY = [
    "add",
    "divide",
    "logaddexp",
    "maximum",
    "minimum",
    "multiply",
    "power",
    "remainder",
    "subtract",
    "where",
]


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@given(data=st.data())
def test_integers_booleans_and_scalars_never_widen(name, dtype, data):
    function = BY_NAME_OF[name]
    x = tg.tensor(np.full((2, 3), 1.5, dtype=dtype), requires_grad=True)
    other = data.draw(
        st.sampled_from(
            [2, True, 2.0, np.float64(2), np.float32(2), np.int64(2), np.bool_(True)]
            + [
                np.full(shape, 2, dtype=d)
                for shape in ((), (3,), (2, 3))
                for d in (np.int64, np.uint8)
            ]
            + [np.ones((2, 1), dtype=bool), tg.arange(1, 4), tg.tensor(True)]
        )
    )
    for out in (function(x, other), function(other, x)):
        assert out.dtype == dtype
        assert tg.grad(out.sum(), x).dtype == dtype


BY_NAME_OF = {name: getattr(ops, name) for name in BINARY} | {
    "where": lambda x, y: ops.where([True, False, True], x, y)
}


@pytest.mark.parametrize("name", BINARY)
def test_between_floating_tensors_the_wider_wins_and_gradients_go_back_narrow(name):
    x = tg.tensor(np.full(3, 1.5, np.float32), requires_grad=True)
    y = tg.tensor(np.full(3, 2.5), requires_grad=True)
    for first, second in ((x, y), (y, x)):
        out = BY_NAME_OF[name](first, second)
        assert out.dtype == np.float64
        assert [g.dtype for g in tg.grad(out.sum(), [x, y])] == [np.float32, np.float64]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), (2, 1), (0, 1, 2), ()])
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "prod", "logsumexp", "var"])
def test_reductions_of_every_axis(name, axis, keepdims):
    """Lengths that differ, so that no wrong axis fits: rarely drawn at random."""
    x = np.random.default_rng(0).permutation(24).reshape(2, 3, 4) / 10 + 0.05
    tg.gradcheck(lambda t: getattr(ops, name)(t, axis=axis, keepdims=keepdims), x)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "prod", "logsumexp", "cumsum"])
def test_a_0d_array_has_the_axes_0_and_minus_1_to_reduce(name, axis):
    """As in NumPy's ufuncs and in PyTorch, and with gradients of two orders."""
    function = getattr(ops, name)
    tg.gradcheck(lambda t: function(t, axis=axis), np.array(1.5))
    found = function(tg.tensor(1.5), axis=axis)
    assert float(found) == 1.5
    assert found.shape == ((1,) if name == "cumsum" else ())  # NumPy's
    for beyond in (1, -2):
        with pytest.raises(ShapeError, match=f"{name}.* axis {beyond} is out of"):
            function(tg.tensor(1.5, requires_grad=True), axis=beyond)


def test_a_0d_array_along_the_axes_0_and_minus_1():
    x = tg.tensor(1.5, requires_grad=True)
    for axis in (0, -1):
        assert (ops.var(x, axis=axis).item(), ops.std(x.detach(), axis=axis).item()) == (0, 0)
        assert (ops.argmax(x, axis=axis).item(), ops.argmin(x, axis=axis).item()) == (0, 0)
        for function, value in ((ops.softmax, 1.0), (ops.log_softmax, 0.0)):
            out = function(x, axis=axis)
            assert (out.shape, out.item(), tg.grad(out, x).item()) == ((), value, 0)


@pytest.mark.parametrize(
    "shape, axis", [((0,), 0), ((2, 0), 1), ((0, 3), 0), ((2, 0), 0), ((0,), -1)]
)
def test_of_nothing(shape, axis):
    """An empty sum is 0, so its logarithm is -inf; a distribution over nothing has no element."""
    x = tg.zeros(shape, dtype=np.float64, requires_grad=True)
    nothing = np.zeros(shape)
    for function in (ops.softmax, ops.log_softmax):
        out = function(x, axis=axis)
        assert (out.shape, out.dtype) == (shape, np.float64)
        assert tg.grad(out.sum(), x).shape == shape
    expected = np.logaddexp.reduce(nothing, axis=axis)
    for keepdims in (False, True):
        out = ops.logsumexp(x, axis=axis, keepdims=keepdims)
        np.testing.assert_array_equal(
            out.numpy(), np.sum(nothing, axis, keepdims=keepdims) - np.inf
        )
        assert tg.grad(out.sum(), x).shape == shape
    np.testing.assert_array_equal(ops.logsumexp(x, axis=axis).numpy(), expected)
    for name in ("max", "min", "argmax", "argmin"):
        if shape[axis] == 0:
            with pytest.raises(ShapeError, match=rf"{name} of {re.escape(str(shape))}"):
                getattr(ops, name)(x, axis=axis)
        else:
            assert getattr(ops, name)(x, axis=axis).shape == expected.shape


# -- remainders ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, np.float32, np.float64])
@given(data=st.data())
def test_remainders_are_numpys_for_every_sign_and_zero(dtype, data):
    least = 0 if dtype is np.uint8 else -5
    numbers = st.integers(least, 5) | (st.just(0) if np.dtype(dtype).kind != "f" else st.just(-0.0))
    x, y = (np.array(data.draw(st.lists(numbers, min_size=4, max_size=4)), dtype) for _ in "xy")
    with np.errstate(all="ignore"):
        for ours, theirs in ((operator.mod, np.remainder), (operator.floordiv, np.floor_divide)):
            expected = theirs(x, y)
            for found in (
                ours(tg.tensor(x), tg.tensor(y)),
                ours(tg.tensor(x), y),
                ours(x, tg.tensor(y)),
            ):
                assert found.dtype == expected.dtype
                np.testing.assert_array_equal(found.numpy(), expected)
                if expected.dtype.kind == "f":
                    np.testing.assert_array_equal(np.signbit(found.numpy()), np.signbit(expected))


@pytest.mark.oracle
@given(data=st.data())
def test_the_gradients_of_a_remainder_are_pytorchs_even_where_it_jumps(data):
    torch = pytest.importorskip("torch")
    grid = st.integers(-6, 6).map(lambda n: n / 2)
    x = data.draw(hnp.arrays(np.float64, (3, 2), elements=grid))
    y = data.draw(hnp.arrays(np.float64, (2,), elements=grid.filter(bool)))
    ours, theirs = leaves([x, y]), [torch.tensor(a, requires_grad=True) for a in (x, y)]
    (ours[0] % ours[1]).sum().backward()
    torch.remainder(*theirs).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.grad.numpy(), b.grad.numpy())


# -- sums of products ------------------------------------------------------------------------------


@pytest.mark.oracle
@given(data=st.data(), seed=SEEDS)
def test_einsum_and_its_gradients_are_pytorchs(data, seed):
    torch = pytest.importorskip("torch")
    case = data.draw(equations())
    subscripts = case.keywords["subscripts"]
    ours = leaves(case.arrays)
    theirs = [torch.tensor(a, requires_grad=True) for a in case.arrays]
    found, expected = tg.einsum(subscripts, *ours), torch.einsum(subscripts, *theirs)
    assert found.shape == tuple(expected.shape)
    np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-12)
    u = np.random.default_rng(seed).normal(size=found.shape)
    found.backward(u)
    expected.backward(torch.tensor(u))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "bool"])
def test_limits_that_are_numbers_of_numpys_count_as_pythons(dtype, fused):
    x = tg.tensor([0, 1], dtype=dtype)
    for low, high in ((0, 0.5), (0.0, None), (np.float64(0), 1), (np.float32(0), np.float64(0.5))):
        clip = functools.partial(tg.clip, min=low, max=high)
        found = tg.fuse(lambda t, clip=clip: clip(t))(x) if fused else clip(x)
        floating = x.dtype if x.dtype.kind == "f" else tg.get_default_dtype()
        assert found.dtype == floating == (x * 0.5).dtype
        np.testing.assert_array_equal(found.numpy(), np.clip([0.0, 1.0], low, high))
    for low, high in ((0, 1), (np.int8(0), np.int64(1)), (None, np.int16(1))):
        assert tg.clip(x, low, high).dtype == tg.clip(x, 0, 1).dtype


@given(data=st.data())
def test_limits_that_are_arrays_clip_as_numpys_do_with_nan_and_out_of_order(data):
    numbers = st.sampled_from([-1.0, 0.0, 0.5, 1.0, np.nan, np.inf, -np.inf])
    x, low, high = (data.draw(hnp.arrays(np.float64, 4, elements=numbers)) for _ in range(3))
    for limits in ((low, high), (low, None), (None, high), (low, 0.5), (0.0, high)):
        found = tg.clip(tg.tensor(x), *limits)
        np.testing.assert_array_equal(found.numpy(), np.clip(x, *limits))


# -- conventions where there is no derivative ------------------------------------------------------


def gradient_of(function: Callable[..., tg.Tensor], *values: Any) -> list[Any]:
    tensors = leaves([np.asarray(v, dtype=float) for v in values])
    return [g.numpy().tolist() for g in tg.grad(function(*tensors).sum(), tensors)]


def test_gradients_at_ties():
    assert gradient_of(ops.abs, [0.0, -0.0]) == [[0, 0]]
    assert gradient_of(ops.relu, [0.0, -0.0]) == [[0, 0]]
    assert gradient_of(ops.maximum, [1.0, 2.0], [1.0, 0.0]) == [[0.5, 1], [0.5, 0]]
    assert gradient_of(ops.minimum, [1.0, 2.0], [1.0, 0.0]) == [[0.5, 0], [0.5, 1]]
    assert gradient_of(lambda x: ops.maximum(x, x), [1.0]) == [[1]]
    assert gradient_of(lambda x: ops.maximum(x, 0), [0.0, 1.0]) == [[0.5, 1]]
    assert gradient_of(lambda x: ops.clip(x, -1, 1), [-2.0, -1.0, 0.0, 1.0, 2.0]) == [
        [0, 1, 1, 1, 0]
    ]
    low, high = np.full(5, -1.0), np.full(5, 1.0)
    assert gradient_of(ops.clip, [-2.0, -1.0, 0.0, 1.0, 2.0], low, high) == [
        [0, 1, 1, 1, 0],
        [1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1],
    ]
    assert gradient_of(lambda x: ops.max(x), [3.0, 1.0, 3.0]) == [[0.5, 0, 0.5]]
    assert gradient_of(lambda x: ops.min(x, axis=0), [[1.0, 2.0], [1.0, 3.0]]) == [
        [[0.5, 1], [0.5, 0]]
    ]
    assert gradient_of(lambda x: ops.where(x > 0, x, -x), [0.0]) == [[-1]]


@pytest.mark.parametrize("function", [ops.max, ops.min])
@given(data=st.data(), seed=SEEDS)
def test_ties_share_the_gradient_of_an_extreme_evenly(function, data, seed):
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=3))
    x = data.draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 1.0])))
    axis = data.draw(st.none() | st.integers(-x.ndim, x.ndim - 1))
    t = tg.tensor(x, requires_grad=True)
    out = function(t, axis=axis)
    u = np.random.default_rng(seed).normal(size=out.shape)
    keep = {"axis": axis, "keepdims": True}
    hits = x == getattr(np, function.__name__)(x, **keep)
    expected = hits / hits.sum(**keep) * (u if axis is None else np.expand_dims(u, axis))
    for create_graph in (True, False):
        got = tg.grad(out, t, u, create_graph=create_graph)
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-14)


@pytest.mark.parametrize(
    "function, at",
    [
        (lambda x: x**2, [0.0, -1.5]),
        (lambda x: x**1, [0.0, -1.5]),
        (lambda x: x**0, [0.0, -1.5]),
        (lambda x: x**3.0, [0.0, -1.5]),
        (lambda x: x ** tg.tensor([0.0, 1.0, 2.0, 3.0]), [0.0, 0.0, 0.0, 0.0]),
        (lambda x: x**0 + x**1 + x**2, [1e-310, -1e-310]),
        (lambda x: tg.prod(x), [0.0, 2.0, 3.0]),
        (lambda x: tg.prod(x), [0.0, 0.0, 3.0]),
        (lambda x: tg.logsumexp(x), [1000.0, -1000.0]),
        (lambda x: tg.softplus(x), [1000.0, -1000.0]),
        (lambda x: tg.sigmoid(x), [1000.0, -1000.0]),
        (lambda x: tg.softmax(x), [1000.0, -1000.0]),
        (lambda x: tg.functional.cross_entropy(x, 1), [1000.0, -1000.0]),
    ],
)
def test_no_nan_where_the_derivative_exists(function, at):
    tg.gradcheck(function, [at])


@pytest.mark.parametrize("bases", [[0.0, 2.0], [[0.0], [3.0]]])
def test_the_exponents_gradient_of_a_zero_base_is_zero(bases):
    y = tg.tensor([2.0, 3.0], requires_grad=True)
    (tg.tensor(bases) ** y).sum().backward()
    assert np.isfinite(y.grad.numpy()).all()


def test_second_derivatives_of_zero_to_the_power_zero_are_finite():
    x, y = leaves([np.zeros(2), np.array([0.0, 2.0])])
    first = tg.grad((x**y).sum(), [x, y], create_graph=True)
    assert [g.numpy().tolist() for g in first] == [[0, 0], [0, 0]]
    for second in tg.grad(sum(g.sum() for g in first), [x, y]):
        assert np.isfinite(second.numpy()).all()


@pytest.mark.parametrize("row", [row for row in ROWS if not row.smooth], ids=BY_NAME)
@settings(max_examples=5)
@given(data=st.data())
def test_what_has_no_gradient_ends_the_graph(row, data):
    case = data.draw(row.cases)
    for out in bound(row, case)(*leaves(case.arrays)):
        assert not out.requires_grad
        with pytest.raises(GraphError, match="without a graph"):
            out.backward(np.ones(out.shape))


# -- the tests can fail (more of it in test_of_tests.py) -------------------------------------------


def test_a_wrong_forward_is_caught():
    with pytest.raises(AssertionError):
        assert_equal_to_numpy(tg.tensor([1.0, 2.0]), np.array([1.0, 2.0]))  # float32
    with pytest.raises(AssertionError):
        assert_equal_to_numpy(tg.tensor(np.ones(2)), np.ones((2, 1)))
    with pytest.raises(AssertionError):
        assert_equal_to_numpy(tg.tensor(np.ones(2)), np.ones(2) * (1 + 1e-9))


# -- sums by products ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sum", "mean"])
@given(data=st.data(), seed=SEEDS)
def test_large_sums_over_the_last_axis_or_all_others(name, dtype, data, seed):
    shape = data.draw(st.sampled_from([(64, 40), (2, 1500), (1500, 2), (6, 9, 50), (2, 3, 4, 60)]))
    order = data.draw(st.permutations(range(len(shape))))
    array = np.random.default_rng(seed).normal(size=[shape[k] for k in order])
    array = (array + 3).astype(dtype).transpose(np.argsort(order))
    own = len(shape) - 1
    axis = data.draw(st.sampled_from([-1, own, (own,), tuple(range(own)), 0, None]))
    keepdims = data.draw(st.booleans())
    found = getattr(tg.tensor(array), name)(axis, keepdims=keepdims)
    assert found.dtype == dtype
    expected = getattr(np, name)(array.astype(np.float64), axis, keepdims=keepdims)
    assert found.shape == expected.shape
    rtol = 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(found.numpy(), expected, rtol=rtol)


def test_a_large_sum_of_infinities_and_nan():
    array = np.zeros((4, 2000), np.float32)
    array[0, 5], array[1, 7], array[2, [1, 2]] = np.inf, np.nan, [np.inf, -np.inf]
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(tg.tensor(array).sum(-1), array.sum(-1))


def test_sums_of_many_neighbours_in_memory_are_numpys():
    array = np.random.default_rng(0).random((2, 5000), dtype=np.float32)
    np.testing.assert_array_equal(tg.tensor(array).sum(-1).numpy(), array.sum(-1))
    np.testing.assert_array_equal(tg.tensor(array.T).sum(0).numpy(), array.sum(-1))
    short = array[:, :1000]
    exact = short.astype(np.float64).sum(-1)
    np.testing.assert_allclose(tg.tensor(short).sum(-1).numpy(), exact, rtol=1e-6)
