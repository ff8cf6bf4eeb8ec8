"""The tensor as an object: how it is made, shown, copied, indexed, and how it meets NumPy."""

from __future__ import annotations

import copy
import math
import operator
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_rnn as tg
from tinygrad_rnn.engine import backend
from tinygrad_rnn.errors import ArgumentError, DeviceError, DTypeError, GraphError, ShapeError


@pytest.fixture
def t():
    return tg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)


# -- making tensors --------------------------------------------------------------------------------

DTYPES = st.sampled_from(
    [np.float16, np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_]
)


@given(
    DTYPES.flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, min_side=0, max_side=3)))
)
def test_arrays_keep_their_dtype_and_are_copied(array):
    made = tg.tensor(array)
    assert (made.shape, made.dtype, made.ndim, made.size) == (
        array.shape,
        array.dtype,
        array.ndim,
        array.size,
    )
    np.testing.assert_array_equal(made.numpy(), array)
    assert not np.shares_memory(made.data, array)
    again = tg.tensor(made)
    assert again.dtype == array.dtype
    assert not np.shares_memory(again.data, made.data)


@pytest.mark.parametrize("default", [np.float32, np.float64])
def test_python_numbers_get_the_default_dtype(default):
    tg.set_default_dtype(default)
    assert tg.get_default_dtype() == default
    for value in (1.0, [1.0, 2], [[1.0], [2.0]], (1.5,), []):
        assert tg.tensor(value).dtype == default
    made = [tg.zeros(2), tg.ones((2, 3)), tg.full((2,), 7), tg.eye(2), tg.randn(2), tg.rand(2)]
    assert {m.dtype for m in [*made, tg.arange(0, 1, 0.5)]} == {np.dtype(default)}
    assert tg.tensor([1, 2]).dtype == np.int64
    assert tg.tensor([True, False]).dtype == np.bool_
    assert tg.arange(3).dtype == np.int64
    assert tg.tensor(np.float64(1.0)).dtype == np.float64  # NumPy's scalars are as they are
    assert tg.tensor(np.float16(1.0)).dtype == np.float16
    assert tg.tensor([1.0], dtype=np.float16).dtype == np.float16
    assert tg.zeros(2, dtype=int).dtype == np.int64
    tg.set_default_dtype(np.float32)


def test_the_default_dtype_is_floating():
    for wrong in (np.int64, bool, complex):
        with pytest.raises(DTypeError, match="must be floating"):
            tg.set_default_dtype(wrong)
    assert tg.get_default_dtype() == np.float32


@pytest.mark.parametrize(
    "value", [1j, [1j], "text", ["a"], None, {"a": 1}, object(), np.array([None]), np.array(["a"])]
)
def test_only_real_numbers_are_taken(value):
    with pytest.raises(DTypeError, match=r"cannot make a tensor of dtype"):
        tg.tensor(value)


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="differ in length"):
        tg.tensor([[1, 2], [3]])


@pytest.mark.parametrize("shape", [(), (0,), (2,), (2, 0, 3)])
def test_a_shape_is_a_tuple_or_integers(shape):
    for make, value in ((tg.zeros, 0), (tg.ones, 1)):
        for made in (make(shape), make(*shape), make(list(shape))):
            assert made.shape == shape
            assert (made.numpy() == value).all()
            assert made.data.flags.writeable
    for draw in (tg.randn, tg.rand):
        np.testing.assert_array_equal(draw(shape, rng=3).numpy(), draw(*shape, rng=3).numpy())
        assert draw(shape).shape == shape
    assert tg.full(shape, 2.0).shape == shape
    like = tg.zeros(shape, dtype=np.float64)
    for made in (tg.zeros_like(like), tg.ones_like(like)):
        assert (made.shape, made.dtype) == (shape, np.float64)


def test_leaves_are_made_by_every_constructor():
    for make in (tg.zeros, tg.ones, tg.randn, tg.rand):
        made = make(2, requires_grad=True)
        (made * 2).sum().backward()
        np.testing.assert_array_equal(made.grad.numpy(), [2, 2])
    assert tg.full((2,), 1.0, requires_grad=True).requires_grad
    assert tg.arange(3.0, requires_grad=True).is_leaf
    assert tg.eye(2, requires_grad=True).requires_grad
    like = tg.ones(2, dtype=np.float64)
    for make in (tg.zeros_like, tg.ones_like):
        made = make(like, dtype=np.float32, requires_grad=True)
        assert (made.shape, made.dtype, made.requires_grad) == ((2,), np.float32, True)
    assert tg.tensor([1.0], requires_grad=True).is_leaf
    assert not tg.tensor([1.0]).requires_grad


def test_ranges_and_unit_matrices_are_numpys():
    for bounds in ((3,), (1, 4), (0, 1, 0.25), (5, 0, -2), (2.5,), (np.int64(3), np.float32(5))):
        np.testing.assert_allclose(tg.arange(*bounds).numpy(), np.arange(*bounds), rtol=1e-6)
    for named in (
        {"stop": 3, "step": 1},
        {"stop": 3},
        {"start": 1, "stop": 7, "step": 2},
        {"start": 3, "stop": 0, "step": -1, "dtype": np.float32},
    ):
        made, expected = tg.arange(**named), np.arange(**named)
        assert made.dtype == expected.dtype
        np.testing.assert_array_equal(made.numpy(), expected)
    np.testing.assert_array_equal(tg.arange(3, step=2).numpy(), np.arange(3, step=2))
    np.testing.assert_array_equal(tg.arange(1, stop=4).numpy(), np.arange(1, stop=4))
    np.testing.assert_array_equal(tg.arange(0, 3, 1, np.float32).numpy(), np.arange(0, 3, 1))
    for count in (0, 1, 5):
        made = tg.linspace(-1, 2, count, dtype=np.float64)
        np.testing.assert_array_equal(made.numpy(), np.linspace(-1, 2, count))
    assert tg.linspace(0, 1).shape == np.linspace(0, 1).shape
    assert tg.linspace(0, 1, num=3, requires_grad=True).requires_grad
    np.testing.assert_array_equal(tg.eye(2, 3).numpy(), np.eye(2, 3))


def test_random_numbers_follow_their_seed():
    tg.manual_seed(5)
    first, second = tg.randn(3), tg.randn(3)
    assert (first != second).numpy().all()
    tg.manual_seed(5)
    np.testing.assert_array_equal(tg.randn(3).numpy(), first.numpy())
    rng = np.random.default_rng(0)
    assert (tg.rand(3, rng=rng) != tg.rand(3, rng=rng)).numpy().all()
    uniform = tg.rand(1000, rng=0).numpy()
    assert 0 <= uniform.min() < 0.1 < 0.9 < uniform.max() < 1
    with pytest.raises(ArgumentError, match="rng must be"):
        tg.rand(3, rng="seed")


# -- what it shows and gives -----------------------------------------------------------------------


def test_repr_tells_what_is_not_the_default(t):
    assert repr(tg.tensor([1.0, 2.0])) == "tensor([1., 2.])"
    assert repr(tg.tensor([1, 2])) == "tensor([1, 2])"
    assert repr(tg.tensor(2.5)) == "tensor(2.5)"
    assert repr(tg.tensor([1.0], dtype=np.float64)) == "tensor([1.], dtype=float64)"
    assert repr(t) == "tensor([[1., 2.],\n        [3., 4.]], requires_grad=True)"
    assert repr((t * 2).sum()) == "tensor(20., grad_fn=<sum>)"


def test_values_come_out(t):
    assert tg.tensor(2.5).item() == 2.5
    assert isinstance(tg.tensor([[3]]).item(), int)
    with pytest.raises(ShapeError, match=r"4 elements, shape \(2, 2\)"):
        t.item()
    values = t.numpy()
    values[...] = 0
    assert t.numpy()[0, 0] == 1
    assert float(tg.tensor(2)) == 2.0
    assert int(tg.tensor(2.7)) == 2
    assert ["a", "b"][tg.tensor(1)] == "b"
    with pytest.raises(TypeError):
        ["a", "b"][tg.tensor(1.0)]


def test_len_iteration_truth_membership_and_hash(t):
    assert len(t) == 2
    rows = list(t)
    assert [row.shape for row in rows] == [(2,), (2,)]
    (rows[0] * 3).sum().backward()
    np.testing.assert_array_equal(t.grad.numpy(), [[3, 3], [0, 0]])
    scalar = tg.tensor(1.0)
    for function in (len, iter):
        with pytest.raises(TypeError, match="0-d tensor"):
            function(scalar)
    assert tg.tensor([1.0])
    assert not tg.tensor(0)
    for ambiguous in (t, tg.zeros(0)):
        with pytest.raises(ArgumentError, match="ambiguous"):
            bool(ambiguous)
    assert 3.0 in t
    assert 7.0 not in t
    assert hash(t) != hash(tg.tensor(t))
    assert {t: "t"}[t] == "t"


ONE_ELEMENT = st.sampled_from([(), (1,), (1, 1, 1)])
NUMBERS = st.one_of(
    st.floats(-1e6, 1e6, width=32), st.integers(-(2**62), 2**62), st.booleans(), st.just(0.5)
)


@given(NUMBERS, ONE_ELEMENT, st.sampled_from(["", ".2f", "8.3e", ">12", "+.1%", "g", "d"]))
def test_one_element_is_formatted_like_its_number(number, shape, form):
    x = tg.tensor(np.full(shape, number))
    x.requires_grad = x.dtype.kind == "f"
    for made in (x, x * 1, x.detach()):
        if not form:
            assert format(made) == f"{made}" == str(made)
        elif form == "d" and isinstance(number, float):
            with pytest.raises(ValueError, match="format code 'd'"):
                format(made, form)
        else:
            value = made.item()
            assert format(made, form) == format(value, form) == f"{made:{form}}"
    assert x.dtype.kind == "b" or f"{x:.2f}" == f"{number:.2f}"


@given(NUMBERS, ONE_ELEMENT, st.sampled_from([None, -1, 0, 1, 3]))
def test_one_element_becomes_a_number_exactly(number, shape, digits):
    x = tg.tensor(np.full(shape, number))
    x.requires_grad = x.dtype.kind == "f"
    value = x.item()
    assert round(x, digits) == round(value, digits)
    assert type(round(x, digits)) is type(round(value, digits))
    for function in (round, math.trunc, math.floor, math.ceil, int, float, complex):
        assert function(x) == function(value)
        assert type(function(x)) is type(function(value))


def test_more_elements_than_one_are_no_number(t):
    for function, name in (
        (lambda x: f"{x:.2f}", "format '.2f'"),
        (lambda x: f"{x:>9}", "format '>9'"),
        (round, r"round\(\)"),
        (math.trunc, r"trunc\(\)"),
        (math.floor, r"floor\(\)"),
        (math.ceil, r"ceil\(\)"),
        (float, r"float\(\)"),
        (int, r"int\(\)"),
        (complex, r"complex\(\)"),
        (lambda x: [1, 2][x], "an index"),
        (tg.Tensor.item, r"item\(\)"),
    ):
        for x, seen in ((t, r"4 elements, shape \(2, 2\)"), (tg.zeros(0), r"0 elements")):
            with pytest.raises(ShapeError, match=rf"^{name}: the tensor has {seen}.*\.numpy\(\)"):
                function(x)
    assert f"{t}" == str(t)


class Unlike:
    """Another object, with the name of ours."""


OTHERS = [None, "x", b"x", "", Unlike(), Unlike, {}, {1: 2}, set(), len, tg.nn.Linear(1, 1)]


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: type(other).__name__)
def test_a_tensor_is_unequal_to_what_is_no_number(t, other):
    for x in (t, t * 2, tg.tensor(1.0), tg.zeros(0), tg.tensor([True])):
        assert (x == other) is False
        assert (other == x) is False
        assert (x != other) is True
        assert (other != x) is True
        assert x not in [other]
        assert x in [other, x]
        assert other not in x
    with pytest.raises(DTypeError, match=r"less: .*real numbers only"):
        _ = t < other
    with pytest.raises(DTypeError, match=r"add: cannot make a tensor of dtype .* from \w+"):
        _ = t + other


@pytest.mark.oracle
@pytest.mark.parametrize("other", OTHERS, ids=lambda other: type(other).__name__)
def test_so_it_is_in_pytorch(t, other):
    torch = pytest.importorskip("torch")
    theirs = torch.ones(2, 2)
    assert ((t == other), (t != other)) == ((theirs == other), (theirs != other))


def test_what_may_be_a_number_is_compared_by_elements_or_refused(t):
    for other in (1, True, np.float32(1), [[1, 2], [3, 4]], range(2), np.ones(2)):
        np.testing.assert_array_equal((t == other).numpy(), t.numpy() == np.asarray(other))
        np.testing.assert_array_equal((t != other).numpy(), t.numpy() != np.asarray(other))
    for other in (1j, [1j], np.array(["a"]), np.ma.array([1.0, 2.0], mask=[0, 1])):
        with pytest.raises(DTypeError):
            _ = t == other
    with pytest.raises(ShapeError, match="equal of"):
        _ = t == [1, 2, 3]


def test_comparisons_are_elementwise_and_have_no_gradient(t):
    for compare in (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge):
        got = compare(t, 2)
        assert (got.dtype, got.requires_grad) == (np.bool_, False)
        np.testing.assert_array_equal(got.numpy(), compare(t.numpy(), 2))
        np.testing.assert_array_equal(compare(2, t).numpy(), compare(2, t.numpy()))


def test_copies_are_leaves_of_their_own(t):
    (t * 2).sum().backward()
    for made in (copy.deepcopy(t), copy.deepcopy([t, t])[0]):
        assert made.requires_grad
        assert made.is_leaf
        np.testing.assert_array_equal(made.grad.numpy(), t.grad.numpy())
        made.data = np.zeros((2, 2))
        assert t.numpy()[0, 0] == 1
    one, two = copy.deepcopy([t, t])
    assert one is two
    with pytest.raises(GraphError, match="computed"):
        copy.deepcopy(t * 2)


def test_a_shallow_copy_of_what_was_computed_keeps_its_place_in_the_graph(t):
    y = t * t
    again = copy.copy(y)
    assert again is not y
    assert not again.is_leaf
    assert np.shares_memory(again.data, y.data)
    (again * 3).sum().backward()
    np.testing.assert_array_equal(t.grad.numpy(), 6 * t.numpy())
    view = copy.copy(y.detach()[0])
    assert not view.requires_grad
    np.testing.assert_array_equal(view.numpy(), y.numpy()[0])


@pytest.mark.parametrize("make", [tg.tensor, tg.nn.Parameter])
def test_a_shallow_copy_of_a_leaf_is_a_leaf_of_its_own(device, make):
    leaf = make(np.ones((2, 2), np.float32), device=device, requires_grad=True)
    again = copy.copy(leaf)
    assert (type(again), again.device, again.requires_grad) == (type(leaf), leaf.device, True)
    again.data = np.zeros((2, 2))
    (again * again).sum().backward()
    assert leaf.grad is None
    assert leaf.numpy().tolist() == [[1, 1], [1, 1]]


def test_matplotlib_says_what_a_graph_needs(t):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    for x in (t, t * 2):
        for draw in (axes.plot, axes.imshow, axes.hist, lambda y: axes.scatter([1, 2], y[0])):
            with pytest.raises(GraphError, match=r"requires grad.*\.detach\(\) or \.numpy\(\)"):
                draw(x)
    (line, _) = axes.plot((t * 2).detach())
    np.testing.assert_array_equal(line.get_ydata(), [2, 6])


@given(DTYPES, st.booleans())
def test_pickling_gives_the_same_back(dtype, requires_grad):
    original = tg.tensor(np.arange(6).reshape(2, 3).astype(dtype))
    if requires_grad and original.dtype.kind == "f":
        original.requires_grad = True
    again = pickle.loads(pickle.dumps(original))
    np.testing.assert_array_equal(again.numpy(), original.numpy())
    assert (again.dtype, again.requires_grad) == (original.dtype, original.requires_grad)
    if original.requires_grad:
        with pytest.raises(GraphError, match="computed"):
            pickle.dumps(original * 2)


def test_detached_tensors_share_memory_and_have_no_graph(t):
    free = (t * 2).detach()
    assert not free.requires_grad
    assert np.shares_memory(t.detach().data, t.data)
    t.data = np.zeros((2, 2))
    assert not t.detach().numpy().any()


def test_assigning_parts_raises_and_names_the_cure(t):
    with pytest.raises(GraphError, match="stack, concatenate or where"):
        t[0] = 1.0


@given(DTYPES, st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.bool_]))
def test_astype_is_numpys_and_keeps_the_graph_between_floating_dtypes(source, target):
    array = np.array([0, 1, 2]).astype(source)
    t = tg.tensor(array)
    if t.dtype.kind == "f":
        t.requires_grad = True
    for made in (t.astype(target), t.to(target)):
        assert made.dtype == target
        np.testing.assert_array_equal(made.numpy(), array.astype(target))
        assert made.requires_grad == (t.requires_grad and np.dtype(target).kind == "f")
        if made.requires_grad:
            assert tg.grad(made.sum(), t).dtype == source
    assert t.astype(source) is t
    with pytest.raises(DTypeError, match="astype"):
        t.astype(complex)


@pytest.mark.parametrize("other", [2, 0.7, np.array([1.5, -0.5]), np.float64(-2), [3.0, -1.0]])
def test_remainders_are_operators_from_both_sides(t, other):
    plain = t.numpy()
    pairs = [
        (t % other, plain % np.float32(other), True),
        (other % t, np.float32(other) % plain, True),
        (t // other, plain // np.float32(other), False),
        (other // t, np.float32(other) // plain, False),
        (divmod(t, other)[0], plain // np.float32(other), False),
        (divmod(t, other)[1], plain % np.float32(other), True),
        (divmod(other, t)[1], np.float32(other) % plain, True),
        (np.mod(t, other), plain % np.float32(other), True),
        (np.floor_divide(other, t), np.float32(other) // plain, False),
    ]
    for found, expected, smooth in pairs:
        assert isinstance(found, tg.Tensor)
        assert found.requires_grad == smooth
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_plus_is_the_tensor_itself(t):
    assert +t is t
    assert np.positive(t) is t
    assert (+(t * 2)).requires_grad


def test_the_dtype_rule():
    x = tg.ones(2, 3)
    others = [2, 2.5, True, np.float64(2), np.int64(2), np.arange(1, 4), [1, 2, 3], tg.arange(1, 4)]
    others += [np.ones(3, dtype=bool), [1.0, 2.0, 3.0]]
    for other in others:
        for function in (operator.add, operator.sub, operator.mul, operator.truediv, operator.pow):
            assert function(x, other).dtype == np.float32
    assert (x * np.ones(3)).dtype == np.float64
    assert (tg.arange(3) + 1).dtype == np.int64
    assert (tg.arange(3) / 2).dtype == np.float32
    assert (tg.arange(3) * 0.5).dtype == np.float32


def test_numbers_and_lists_stand_beside_tensors(t):
    x = tg.tensor(1.0, dtype=np.float64, requires_grad=True)
    for arrays, place in (([x, 2.0], 0), ([2, x], 1), ([np.float64(3), x, 1], 1)):
        stacked = tg.stack(arrays)
        np.testing.assert_array_equal(stacked.numpy(), [float(a) for a in arrays])
        assert tg.grad(stacked[place] * 3, x).item() == 3
    joined = tg.concatenate([t, [[5.0, 6.0]]])
    assert (joined.dtype, joined.shape, joined.requires_grad) == (np.float32, (3, 2), True)
    assert tg.einsum("ij,->i", t, 2.0).requires_grad
    assert ([1.0, 2.0] @ t).requires_grad
    assert tg.sum([1, 2]).item() == 3
    for empty in ([], ()):
        with pytest.raises(ArgumentError, match="at least one tensor"):
            tg.stack(empty)
    with pytest.raises(ArgumentError, match="a list of at least one tensor, got Tensor"):
        tg.concatenate(t)


# -- NumPy beside it -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.matmul],
)
@pytest.mark.parametrize("other", [np.array([[2.0, 1.0], [0.5, 3.0]], dtype=np.float32), 2.0, 3])
def test_numpy_on_the_left_keeps_the_graph(t, function, other):
    if function is operator.matmul and not isinstance(other, np.ndarray):
        with pytest.raises(ShapeError, match="multiply with"):
            function(other, t)
        return
    got = function(other, t)
    assert isinstance(got, tg.Tensor)
    assert got.requires_grad
    np.testing.assert_allclose(got.numpy(), function(other, t.numpy()), rtol=1e-6)


def test_numpy_scalars_on_the_left_keep_graph_and_dtype(t):
    for scalar in (np.float64(2), np.float32(2), np.int64(2)):
        got = scalar * t
        assert (type(got), got.dtype, got.requires_grad) == (tg.Tensor, np.float32, True)


@pytest.mark.parametrize(
    "name",
    [
        "exp",
        "log",
        "sqrt",
        "tanh",
        "sin",
        "cos",
        "abs",
        "absolute",
        "negative",
        "sign",
        "log1p",
        "expm1",
    ],
)
def test_numpys_functions_are_ours(t, name):
    got = getattr(np, name)(t)
    assert isinstance(got, tg.Tensor)
    assert got.requires_grad == (name != "sign")
    np.testing.assert_allclose(got.numpy(), getattr(np, name)(t.numpy()), rtol=1e-6)


def test_numpys_functions_of_arrays_are_ours(t):
    array = t.numpy()
    calls = [
        lambda x: np.sum(x),
        lambda x: np.sum(x, axis=0, keepdims=True),
        lambda x: np.mean(x, axis=1),
        lambda x: np.var(x, axis=0, ddof=1),
        lambda x: np.std(x),
        lambda x: np.max(x, axis=0),
        lambda x: np.reshape(x, (4,)),
        lambda x: np.transpose(x),
        lambda x: np.concatenate([x, array]),
        lambda x: np.stack([array, x]),
        lambda x: np.where(array > 2, x, 0.0),
        lambda x: np.einsum("ij,jk->ik", x, x),
        lambda x: np.cumsum(x, axis=0),
        lambda x: np.clip(x, 2, 3),
        lambda x: np.maximum(array, x),
        lambda x: np.matmul(array, x),
        lambda x: np.logaddexp(x, 1.0),
        lambda x: np.take(x, [0, 1]),
        lambda x: np.expand_dims(x, 0),
        lambda x: np.flip(x, axis=0),
        lambda x: np.prod(x),
    ]
    for call in calls:
        got = call(t)
        assert isinstance(got, tg.Tensor)
        assert got.requires_grad
        np.testing.assert_allclose(got.numpy(), call(array), rtol=1e-5)
    assert (np.shape(t), np.ndim(t), np.size(t)) == ((2, 2), 2, 4)


def test_what_numpy_would_lose_the_graph_by_is_refused(t):
    array = t.numpy()
    for call, name in (
        (lambda: np.floor(t), "numpy.floor"),
        (lambda: np.add.reduce(t), "numpy.add.reduce.*tinygrad_rnn.add"),
        (lambda: np.multiply.outer(t, t), "numpy.multiply.outer"),
        (lambda: np.exp(t, out=array), "numpy.exp.*tinygrad_rnn.exp"),
        (lambda: np.linalg.norm(t), r"numpy\.linalg\.norm"),
        (lambda: np.sort(t), "numpy.sort"),
        (lambda: operator.iadd(array, t), "numpy.add"),
    ):
        with pytest.raises(TypeError, match=name):
            call()
    np.testing.assert_array_equal(array, t.numpy())


def test_becoming_an_array_is_refused_while_there_is_a_graph(t):
    for value in (t, t * 2):
        with pytest.raises(GraphError, match="implicitly"):
            np.asarray(value)
    np.testing.assert_array_equal(np.asarray(t.detach()), t.numpy())
    assert np.asarray(t.detach(), dtype=np.float64).dtype == np.float64
    with tg.no_grad():
        np.testing.assert_array_equal(np.asarray(t * 2), 2 * t.numpy())


# -- the names of others ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, ours",
    [
        ("view", "reshape"),
        ("unsqueeze", "expand_dims"),
        ("permute", "transpose"),
        ("cpu", "to"),
        ("cuda", "to"),
        ("mm", "@"),
        ("t", "T"),
        ("numel", "size"),
        ("expand", "broadcast_to"),
        ("clamp", "clip"),
        ("float", "astype"),
        ("requires_grad_", "requires_grad"),
    ],
)
def test_pytorchs_methods_name_ours(t, name, ours):
    with pytest.raises(AttributeError, match=rf"no attribute '{name}'.*here it is.*{ours}"):
        getattr(t, name)


@pytest.mark.parametrize(
    "name, ours",
    [
        ("cat", "concatenate"),
        ("permute", "transpose"),
        ("unsqueeze", "expand_dims"),
        ("clamp", "clip"),
    ],
)
def test_pytorchs_functions_name_ours(name, ours):
    with pytest.raises(AttributeError, match=rf"no attribute '{name}'.*here it is.*{ours}"):
        getattr(tg, name)


def test_names_of_nobody_have_no_hint(t):
    for owner in (t, tg):
        with pytest.raises(AttributeError, match=r"no attribute 'frobnicate'$"):
            owner.frobnicate  # noqa: B018


def test_dim_names_axis(t):
    for function in (tg.sum, tg.mean, tg.max, tg.logsumexp, tg.argmax, tg.Tensor.sum):
        with pytest.raises(TypeError, match="dim= is axis="):
            function(t, dim=0)
    with pytest.raises(TypeError, match="dim"):
        tg.var(t, dim=0)


METHODS = """
abs argmax argmin broadcast_to clip cos cumsum exp expand_dims expm1 flip log log1p log_softmax
logsumexp max maximum mean min minimum moveaxis prod relu reshape sigmoid sign sin softmax softplus
split sqrt squeeze std sum swapaxes take take_along_axis tanh transpose unbind var
"""
METHOD_ARGUMENTS = {
    "clip": (1.5, 3),
    "expand_dims": (0,),
    "maximum": (2,),
    "minimum": (2,),
    "moveaxis": (0, 1),
    "reshape": ((4,),),
    "split": (2,),
    "swapaxes": (0, 1),
    "take": ([0, 1],),
    "take_along_axis": ([[0, 1]], 0),
    "broadcast_to": ((3, 2, 2),),
}


@pytest.mark.parametrize("name", METHODS.split())
def test_every_method_is_a_function_too(t, name):
    arguments = METHOD_ARGUMENTS.get(name, ())
    by_method, by_function = getattr(t, name)(*arguments), getattr(tg, name)(t, *arguments)
    for a, b in (
        zip(by_method, by_function, strict=True)
        if name in ("split", "unbind")
        else [(by_method, by_function)]
    ):
        assert a.shape == b.shape
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_shapes_and_axes_are_one_tuple_or_integers(t):
    assert t.reshape(4).shape == t.reshape((4,)).shape == t.reshape([4]).shape == (4,)
    assert t.reshape(-1, 1).shape == (4, 1)
    x = tg.zeros(2, 3, 4)
    assert x.transpose(2, 0, 1).shape == x.transpose((2, 0, 1)).shape == (4, 2, 3)
    assert x.transpose().shape == x.T.shape == x.transpose(None).shape == (4, 3, 2)
    assert t.broadcast_to(3, 2, 2).shape == (3, 2, 2)


# -- indexing --------------------------------------------------------------------------------------


@st.composite
def everything(draw):
    """An array, and a key that NumPy takes: every kind of index, in any order."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4))
    x = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    together = draw(hnp.array_shapes(min_dims=1, max_dims=2, min_side=1, max_side=3))
    key: list = []
    axis = 0
    while axis < len(shape):
        n = shape[axis]
        kind = draw(st.sampled_from(["slice", "integer", "array", "list", "mask", "tensor"]))
        if kind == "slice":
            key.append(draw(st.slices(n)))
        elif kind == "integer":
            key.append(draw(st.integers(-n, n - 1)))
        elif kind == "mask":
            over = draw(st.integers(1, len(shape) - axis))
            count = together[-1]  # so that it broadcasts with the other arrays
            mask = np.zeros(shape[axis : axis + over], dtype=bool)
            places = min(count, mask.size)
            mask.reshape(-1)[draw(st.permutations(range(mask.size)))[:places]] = True
            key.append(mask if places in (1, count) else slice(None))
            axis += over - 1 if isinstance(key[-1], np.ndarray) else 0
        else:
            array = draw(hnp.arrays(np.int64, together, elements=st.integers(-n, n - 1)))
            key.append(array.tolist() if kind == "list" else array)
            if kind == "tensor":
                key[-1] = tg.tensor(array)
        axis += 1
    cut = draw(st.integers(0, len(key)))
    if draw(st.booleans()):
        key = key[:cut] if draw(st.booleans()) else [*key[:cut], Ellipsis]
    if draw(st.booleans()):
        key.insert(draw(st.integers(0, len(key))), None)
    return x, tuple(key)


def plain(key):
    return tuple(k.numpy() if isinstance(k, tg.Tensor) else k for k in key)


@given(everything())
def test_indexing_equals_numpys(case):
    x, key = case
    expected = x[plain(key)]
    t = tg.tensor(x, requires_grad=True)
    got = t[key]
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got.numpy(), expected)
    u = np.arange(1.0, expected.size + 1).reshape(expected.shape)
    back = np.zeros_like(x)
    np.add.at(back, plain(key), u)
    np.testing.assert_allclose(tg.grad(got, t, u).numpy(), back)


@given(everything(), st.data())
def test_masks_without_axes_equal_numpys(case, data):
    x, key = case
    masks = [np.array(True), np.array(False), np.True_, np.False_, tg.tensor(True)]
    keys = list(key)
    for mask in data.draw(st.lists(st.sampled_from(masks), min_size=1, max_size=3)):
        keys.insert(data.draw(st.integers(0, len(keys))), mask)
    t = tg.tensor(x, requires_grad=True)
    try:
        expected = x[plain(keys)]
    except IndexError:
        with pytest.raises(IndexError):
            t[tuple(keys)]
        return
    got = t[tuple(keys)]
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got.numpy(), expected)
    u = np.arange(1.0, expected.size + 1).reshape(expected.shape)
    back = np.zeros_like(x)
    np.add.at(back, plain(keys), u)
    gradient = tg.grad(got, t, u)
    np.testing.assert_allclose(gradient.numpy(), back)


def test_a_mask_of_no_axes_reads_a_number_or_nothing():
    for value, shape in ((2.0, (1,)), (-2.0, (0,))):
        x = tg.tensor(value, requires_grad=True)
        positive = x[x > 0]
        assert positive.shape == shape
        positive.sum().backward()
        assert x.grad.item() == len(positive)


@given(everything(), st.data())
def test_a_mask_fits_the_axes_that_it_stands_for(case, data):
    """Behind an ellipsis, too: a shorter mask would read the wrong elements."""
    x, _ = case
    n = x.shape[-1]
    mask = data.draw(hnp.arrays(np.bool_, st.integers(0, n + 1)))
    t = tg.tensor(x)
    if len(mask) == n:
        np.testing.assert_array_equal(t[..., mask].numpy(), x[..., mask])
    else:
        with pytest.raises(ShapeError, match=rf"mask of shape \({len(mask)},\) for axes .*{n}"):
            t[..., mask]


def test_places_may_be_a_tuple_and_are_no_mask(t):
    np.testing.assert_array_equal(t.take((0, 3)).numpy(), np.take(t.numpy(), (0, 3)))
    with pytest.raises(DTypeError, match=r"take_along_axis: the indices are integers.*x\[mask\]"):
        tg.take_along_axis(t, t > 0, axis=1)


@given(st.data())
def test_one_index_alone_equals_numpys(data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=3))
    x = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    n = shape[0]
    key = data.draw(
        st.one_of(
            st.integers(-n, n - 1),
            st.integers(-n, n - 1).map(np.int32),
            st.integers(-n, n - 1).map(np.array),
            st.slices(n),
            st.lists(st.integers(-n, n - 1), max_size=3),
            st.lists(st.booleans(), min_size=n, max_size=n),
            hnp.arrays(np.bool_, shape),
            hnp.arrays(np.uint8, 3, elements=st.integers(0, n - 1)),
            st.just(None),
            st.just(Ellipsis),
            st.just(()),
        )
    )
    expected = (
        x[np.array(key, dtype=int) if key == [] else key] if isinstance(key, list) else x[key]
    )
    got = tg.tensor(x, requires_grad=True)[key]
    assert got.shape == np.shape(expected)
    np.testing.assert_array_equal(got.numpy(), expected)


def test_rows_of_no_elements_can_be_indexed():
    x = tg.zeros(3, 0, requires_grad=True)
    assert tg.grad(x[[0, 1]].sum(), x).shape == (3, 0)


@pytest.mark.parametrize(
    "key, error",
    [
        (2, IndexError),
        (-3, IndexError),
        ([0, 5], IndexError),
        ((0, 0, 0), IndexError),
        (1.0, DTypeError),
        ([0.5], DTypeError),
        ("a", DTypeError),
        ([True, False, True], ShapeError),
        (np.ones((2, 2, 2), dtype=bool), ShapeError),
    ],
)
def test_a_wrong_index_raises(t, key, error):
    with pytest.raises(error):
        t[key]


# -- devices and other libraries -------------------------------------------------------------------


def test_devices(t):
    assert t.device == "cpu"
    assert t.to("cpu") is t
    for device in ("tpu", "cuda:x", "CPU", ""):
        with pytest.raises(DeviceError, match="unknown device"):
            tg.tensor([1.0], device=device)


def test_cuda_without_a_gpu_says_why():
    reason = backend.cuda_unavailable_because()
    if reason is None:
        pytest.skip("there is a GPU")
    for device in ("cuda", "cuda:1"):
        for make in (
            lambda device=device: tg.tensor([1.0], device=device),
            lambda device=device: tg.zeros(2, device=device),
            lambda device=device: tg.randn(2, device=device),
        ):
            with pytest.raises(DeviceError, match="cannot be used: CuPy is") as caught:
                make()
            assert reason in str(caught.value)


def test_moving_to_cuda_without_a_gpu_is_a_device_error(t):
    if backend.cuda_unavailable_because() is None:
        pytest.skip("there is a GPU")
    for tensor in (t, t.detach()):
        with pytest.raises(DeviceError, match="cannot be used"):
            tensor.to("cuda:3")


def test_moving_to_a_gpu_and_back_keeps_the_graph(device, t):
    there = t.to(device)
    assert there.device.startswith(device)
    gradient = tg.grad((there * there).sum(), t)
    assert gradient.device == "cpu"
    np.testing.assert_allclose(gradient.numpy(), 2 * t.numpy())


@pytest.mark.parametrize(
    "mix",
    [
        lambda t, there: t + there,
        lambda t, there: there + t,
        lambda t, there: t @ there,
        lambda t, there: tg.where(t > 0, there, there),
        lambda t, there: tg.concatenate([t, there]),
        lambda t, there: there[t.astype(bool)],
        lambda t, there: there + t.numpy(),
    ],
)
def test_devices_do_not_mix(accelerator, t, mix):
    with pytest.raises(DeviceError, match=r"cpu.*\.to\("):
        mix(t, t.to(accelerator))


@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">f8"])
def test_a_memory_map_of_any_byte_order_is_an_array_like_another(tmp_path, dtype):
    mapped = np.memmap(tmp_path / "numbers", dtype=dtype, mode="w+", shape=(4,))
    mapped[:] = np.arange(4)
    native = np.dtype(dtype).newbyteorder("=")
    for x in (tg.tensor(mapped) * 2, tg.ones(4, dtype=native) * mapped * 2, tg.add(mapped, mapped)):
        assert x.dtype == native
        assert x.numpy().tolist() == [0, 2, 4, 6]
