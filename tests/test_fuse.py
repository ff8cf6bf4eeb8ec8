"""`tg.fuse`: a fused function is the function itself, computed and differentiated in kernels."""

from __future__ import annotations

import inspect
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.engine.graph import Leaf, Pieces, reachable
from tinygrad_rnn.engine.primitive import namespaces
from tinygrad_rnn.errors import ArgumentError, DTypeError, GraphError, ShapeError

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
    given_back = Pieces({0: np.ones((3, 2)), 1: np.ones((3, 2))})
    of_z, of_a, _ = node.pull(namespaces[np.ndarray], given_back, node.parents, True)
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


# -- what it saves ---------------------------------------------------------------------------------


def test_one_node_for_all_operations():
    x = leaves(5)
    h, c = lstm(*x)
    nodes = reachable([h._node, c._node])
    assert sorted(type(node).__name__ for node in nodes if not isinstance(node, Leaf)) == [
        "FusedNode",
        "Piece",
        "Piece",
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
        (lambda x: x[0], "reads a part"),
        (lambda x: tg.softmax(x), "max"),
        (lambda x: tg.ones(3), "arguments do not lead to"),
        (lambda x: 3.0, "returned a float"),
        (lambda x: float(x), "reads a value"),
        (lambda x: x.reshape(-1), "reshape"),
        (lambda x: x[::2], "in steps of 2"),
        (lambda x: x[..., :2] + x[..., 1:], "overlap"),
    ],
)
def test_what_is_not_pointwise_is_refused(function, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        tg.fuse(function)(tg.ones(3, requires_grad=True))
    assert "fuse" in str(caught.value)


def test_what_is_no_function_is_refused():
    with pytest.raises(DTypeError, match="a function of Tensors is expected, got 3"):
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
