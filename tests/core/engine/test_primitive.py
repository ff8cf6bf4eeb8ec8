"""Operations of a user's own: `tinygrad_rnn.primitive`."""

from __future__ import annotations

import functools
import gc
import inspect
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_rnn as tg
from tinygrad_rnn.engine.namespaces import PRIMITIVES
from tinygrad_rnn.errors import DTypeError, GraphError, ShapeError

SEEDS = st.integers(0, 2**32 - 1)
NUMBERS = st.integers(-20, 20).map(lambda n: n / 10)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


@pytest.fixture(autouse=True)
def same_primitives():
    """What a test defines is gone after it."""
    before = dict(PRIMITIVES)
    yield
    PRIMITIVES.clear()
    PRIMITIVES.update(before)


def cube():
    @tg.primitive(x=lambda F, g, x: 3 * g * x * x)
    def cube(xp, x):
        """Return x³."""
        return x * x * x

    return cube


def swish_product():
    """Two arguments that broadcast; each rule uses operations from F and both arguments."""

    @tg.primitive(
        x=lambda F, g, x, y: g * y * F.sigmoid(x) * (1 + x * (1 - F.sigmoid(x))),
        y=lambda F, g, x: g * x * F.sigmoid(x),
    )
    def swish_product(xp, x, y):
        return x / (1 + xp.exp(-x)) * y

    return swish_product


def scaled():
    @tg.primitive(x=lambda F, g, factor: g * factor)
    def scaled(xp, x, factor=2.0, *, shift=0.0):
        return x * factor + shift

    return scaled


def weighted_sum():
    """Any number of arguments with one rule for all."""

    @tg.primitive(
        joint=lambda F, g, inputs, weights: [
            g * w * F.cos(x) for x, w in zip(inputs, weights, strict=True)
        ]
    )
    def weighted_sum(xp, *arrays, weights):
        return sum(w * xp.sin(x) for w, x in zip(weights, arrays, strict=True))

    return weighted_sum


# -- they work like the library's own --------------------------------------------------------------


@given(hnp.arrays(np.float64, SHAPES, elements=NUMBERS), SEEDS)
def test_one_argument(x, seed):
    operation = cube()
    np.testing.assert_allclose(operation(tg.tensor(x)).numpy(), x**3)
    tg.gradcheck(operation, [x], rng=seed)


@given(st.data(), SEEDS)
def test_two_arguments_that_broadcast(data, seed):
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3))
    arrays = [data.draw(hnp.arrays(np.float64, s, elements=NUMBERS)) for s in shapes.input_shapes]
    operation = swish_product()
    assert operation(*map(tg.tensor, arrays)).shape == shapes.result_shape
    tg.gradcheck(operation, arrays, rng=seed)
    tg.gradcheck(lambda t: operation(t, t), arrays[:1], rng=seed)


@given(hnp.arrays(np.float64, SHAPES, elements=NUMBERS), NUMBERS, NUMBERS)
def test_keyword_parameters(x, factor, shift):
    operation = scaled()
    t = tg.tensor(x, requires_grad=True)
    calls = [
        (operation(t), 2.0, 0.0),
        (operation(t, factor), factor, 0.0),
        (operation(t, factor=factor), factor, 0.0),
        (operation(x=t, shift=shift), 2.0, shift),
        (operation(t, factor, shift=shift), factor, shift),
    ]
    for out, used, added in calls:
        np.testing.assert_allclose(out.numpy(), x * used + added)
        np.testing.assert_allclose(tg.grad(out.sum(), t).numpy(), np.full(x.shape, used))


@given(st.integers(1, 4), SEEDS)
def test_a_joint_rule(count, seed):
    operation = weighted_sum()
    rng = np.random.default_rng(seed)
    arrays = list(rng.normal(size=(count, 2)))
    weights = tuple(rng.normal(size=count))
    tg.gradcheck(lambda *t: operation(*t, weights=weights), arrays, rng=seed)


def test_third_order():
    x = tg.tensor(2.0, requires_grad=True)
    value = cube()(x)
    for expected in (12.0, 12.0, 6.0):
        value = tg.grad(value, x, create_graph=True)
        assert value.item() == expected


def test_a_rule_may_name_the_result_the_shape_and_the_parameters():
    @tg.primitive(
        x=lambda F, g, out, x_shape, axis: F.broadcast_to(
            F.reshape(g * out, shape=tuple(1 if i == axis else n for i, n in enumerate(x_shape))),
            shape=x_shape,
        )
    )
    def exp_of_sum(xp, x, axis):
        return xp.exp(x.sum(axis=axis))

    x = np.random.default_rng(0).normal(size=(2, 3))
    for axis in (0, 1):
        tg.gradcheck(lambda t, axis=axis: exp_of_sum(t, axis=axis), [x])


def test_an_argument_without_a_gradient():
    @tg.primitive(x=lambda F, g, mask: g * mask, mask=None)
    def masked(xp, x, mask):
        return x * mask

    x = tg.tensor([1.0, 2.0], requires_grad=True)
    mask = tg.tensor([0.0, 1.0], requires_grad=True)
    out = masked(x, mask)
    first, second = tg.grad(out.sum(), [x, mask], allow_unused=True)
    np.testing.assert_array_equal(first.numpy(), [0, 1])
    assert second is None
    assert not masked(x.detach(), mask).requires_grad
    assert masked(x, [True, False]).dtype == np.float32


def test_an_operation_made_of_the_users_operations_in_a_rule():
    """F knows what a user has defined."""
    cube()

    @tg.primitive(x=lambda F, g, x: g * 4 * F.cube(x))
    def fourth(xp, x):
        return x**4

    tg.gradcheck(fourth, [np.array([1.0, -0.5])])


def test_only_what_the_rule_names_stays_alive():
    @tg.primitive(x=lambda F, g: g * 2)
    def doubled(xp, x):
        return x * 2

    middle = tg.tensor([1.0, 2.0], requires_grad=True) + 0
    array = weakref.ref(middle._data)
    out = doubled(middle)
    del middle
    gc.collect()
    assert array() is None
    assert out.requires_grad


def test_a_saved_argument_that_changes_is_noticed():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    out = cube()(x).sum()
    x.data = np.zeros(2)
    with pytest.raises(GraphError, match=r"through cube.*changed in place"):
        out.backward()
    out = scaled()(x).sum()  # saves nothing of x
    x.data = np.ones(2)
    out.backward()


def test_floating_makes_integers_floating():
    @tg.primitive(floating=True, x=lambda F, g: g * 0.5)
    def half(xp, x):
        return x * x.dtype.type(0.5)

    assert half([1, 2]).dtype == np.float32
    assert half(np.arange(3)).dtype == np.float32
    assert half(np.ones(2)).dtype == np.float64
    np.testing.assert_array_equal(half(3).numpy(), 1.5)


def test_a_view_shares_the_version():
    @tg.primitive(view=True, x=lambda F, g: F.expand_dims(g, 0) if F.records else g[None])
    def first(xp, x):
        return x[0]

    x = tg.tensor([[1.0, 2.0]], requires_grad=True)
    out = (first(x) * first(x)).sum()
    x.data = np.zeros((1, 2))
    with pytest.raises(GraphError, match="changed in place"):
        out.backward()


def test_it_has_the_name_documentation_and_signature_of_the_forward():
    operation = cube()
    assert operation.__name__ == "cube"
    assert operation.__doc__ == "Return x³."
    assert str(inspect.signature(operation)) == "(x)"
    assert "grad_fn=<cube>" in repr(operation(tg.ones(1, requires_grad=True)))


def test_users_see_the_given_name_and_vjps_use_that_of_the_forward():
    @tg.primitive(name="half of x", x=lambda F, g: F._half_on_arrays(g))
    def _half_on_arrays(xp, x):
        return x / 2

    x = tg.tensor([2.0], requires_grad=True)
    y = _half_on_arrays(x)
    assert repr(y) == "tensor([1.], grad_fn=<half of x>)"
    (gradient,) = tg.grad(y, [x], create_graph=True)
    assert gradient.numpy() == 0.5
    with pytest.raises(GraphError, match="backward through half of x a second time"):
        for _ in range(2):
            y.backward()
    assert _half_on_arrays.__name__ == "_half_on_arrays"
    assert PRIMITIVES["_half_on_arrays"] is _half_on_arrays


def test_errors_of_a_primitive_begin_with_the_given_name():
    @tg.primitive(name="total", x=lambda F, g: 1.0, y=lambda F, g: g)
    def add_up(xp, x, y):
        return x + y

    with pytest.raises(ShapeError, match=r"^total of \(2,\) and \(3,\)"):
        add_up(tg.ones(2), tg.ones(3))
    with pytest.raises(GraphError, match=r"^the vjp of total by x returned"):
        add_up(tg.ones(2, requires_grad=True), tg.ones(2)).sum().backward()

    @tg.primitive(name="pair", x=None)
    def two(xp, x):
        return x, x

    with pytest.raises(DTypeError, match=r"^pair: the forward is to return one array"):
        two(tg.ones(2))


@pytest.mark.parametrize("name", ["", 3, lambda F, g: g])
def test_a_name_that_is_not_text_is_refused(name):
    with pytest.raises(TypeError, match="primitive: name is a non-empty string"):
        tg.primitive(name=name)


def test_nothing_is_recorded_without_need():
    operation = cube()
    assert not operation(tg.ones(2)).requires_grad
    with tg.no_grad():
        assert not operation(tg.ones(2, requires_grad=True)).requires_grad


def test_the_librarys_own_names_stay_its_own():
    @tg.primitive(x=lambda F, g: g)
    def cos(xp, x):
        return x + 100

    x = tg.tensor(0.5, requires_grad=True)
    first = tg.grad(tg.sin(x), x, create_graph=True)  # its rule calls F.cos
    assert first.item() == pytest.approx(np.cos(0.5))
    assert cos(x).item() == 100.5


# -- what is refused -------------------------------------------------------------------------------


def test_rules_for_arguments_that_are_not_there_are_refused():
    for rules, match in (
        ({"y": lambda F, g: g}, r"vjps for \['y'\], arguments \['x'\]"),
        ({"x": lambda F, g: g, "y": lambda F, g: g}, r"vjps for \['x', 'y'\]"),
    ):
        with pytest.raises(TypeError, match=match):

            @tg.primitive(**rules)
            def one(xp, x):
                return x

    with pytest.raises(TypeError, match=r"vjps for \['y', 'x'\], arguments \['x', 'y'\]"):

        @tg.primitive(y=lambda F, g: g, x=lambda F, g: g)
        def wrong_order(xp, x, y):
            return x + y


def test_a_rule_that_names_what_is_not_there_is_refused():
    with pytest.raises(TypeError, match="typo"):

        @tg.primitive(x=lambda F, g, typo: g)
        def one(xp, x):
            return x + 0

    with pytest.raises(TypeError, match="typo"):

        @tg.primitive(joint=lambda F, g, typo: [g])
        def many(xp, *arrays):
            return arrays[0] + 0


def test_no_rule_at_all_is_refused():
    with pytest.raises(TypeError, match="none"):

        @tg.primitive()
        def none(xp, x):
            return x


def test_names_that_the_operation_itself_needs_are_refused():
    with pytest.raises(TypeError, match=r"shifted: the names \['thread'\] are reserved"):

        @tg.primitive(x=lambda F, g: g)
        def shifted(xp, x, thread):
            return x + thread


def twice():
    def forward(xp, x):
        return x * 2

    return forward


class Callable_:
    def __call__(self, xp, x):
        return x * 2


@pytest.mark.parametrize(
    "forward, match",
    [
        (lambda xp, x: x * 2, "named '<lambda>': write it with def"),
        (functools.partial(twice()), "functools.partial, without a name: write a function with"),
        (Callable_(), "Callable_, without a name"),
    ],
    ids=["lambda", "partial", "instance"],
)
def test_a_forward_without_a_name_is_refused(forward, match):
    with pytest.raises(TypeError, match=f"^primitive: .*{match}"):
        tg.primitive(x=lambda F, g: g * 2)(forward)


@pytest.mark.parametrize("name", ["for", "a b", "", "vjp", "2x"])
def test_a_name_that_no_function_has_is_refused(name):
    forward = twice()
    forward.__name__ = name
    with pytest.raises(TypeError, match=f"named {name!r}: write it with def"):
        tg.primitive(x=lambda F, g: g * 2)(forward)


@pytest.mark.parametrize(
    "name",
    """tuple dict any new tick forward definition vjps OpNode thread promote_operands
    failure Tensor modules primitive_checks AttributeError defaults last_write paused x xp out node
    grüße""".split(),
)
def test_any_other_name_is_free(name):
    """Also a name that the operation itself uses."""
    forward = twice()
    forward.__name__ = name
    operation = tg.primitive(x=lambda F, g, x: g * 2 + x * 0)(forward)
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    for _ in range(2):
        y = operation(x)
        y.sum().backward()
        assert y.numpy().tolist() == [2, 4]
    assert x.grad.numpy().tolist() == [4, 4]
    assert operation(3).item() == 6
    with pytest.raises(DTypeError, match="real numbers"):
        operation("a")
    tg.gradcheck(operation, [np.ones(2)])


@pytest.mark.parametrize(
    "signature, match",
    [
        ("x, **k", r"takes \*\*k: name each"),
        ("x, *a", r"takes \*a: give joint="),
        ("x, x_data", r"the names \['x_data'\] are reserved"),
        ("x, x_node=1", r"\['x_node'\]"),
        ("x, x_shape=1", r"\['x_shape'\]"),
        ("x, OpNode=1", r"\['OpNode'\]"),
        ("x, tuple=1", r"\['tuple'\]"),
        ("x, primitive_checks=1", r"\['primitive_checks'\]"),
    ],
)
def test_parameters_that_an_operation_cannot_have_are_refused(signature, match):
    made = {}
    exec(f"def made(xp, {signature}): return x * 2", made)
    with pytest.raises(TypeError, match=f"primitive made: .*{match}"):
        tg.primitive(x=lambda F, g: g * 2)(made["made"])


def test_vjps_that_cannot_be_called_are_refused():
    for wrong in (3, "g", lambda: 3, lambda g: g, lambda F, *, g: g):
        with pytest.raises(TypeError, match=r"primitive forward: the vjp x= is to be a function"):
            tg.primitive(x=wrong)(twice())
        with pytest.raises(TypeError, match=r"primitive many: the vjp joint="):

            @tg.primitive(joint=wrong)
            def many(xp, *arrays):
                return arrays[0]

    with pytest.raises(TypeError, match=r"joint= is for a forward \(xp, \*arrays\)"):
        tg.primitive(joint=lambda F, g: [g])(twice())
    with pytest.raises(TypeError, match="primitive: too many positional arguments"):
        tg.primitive(twice())


def test_a_primitive_of_code_without_a_module_is_defined_again():
    for factor in (2, 3):
        made = {}
        exec(f"def made(xp, x): return x * {factor}", made)
        made["made"].__module__ = None
        tg.primitive(x=lambda F, g: g)(made["made"])
        assert PRIMITIVES["made"](1.0).item() == factor


# -- what a forward and a vjp return ---------------------------------------------------------------

RESULTS = {
    "two arrays": (lambda xp, x: (x, x), "tuple of 2: write a primitive for each"),
    "two arrays that differ": (lambda xp, x: (x, xp.stack([x, x])), "tuple of 2"),
    "a list": (lambda xp, x: [x, x], "list of 2"),
    "nothing": (lambda xp, x: None, "got a NoneType"),
    "text": (lambda xp, x: "x", "got a str"),
    "a generator": (lambda xp, x: (y for y in [x]), "got a generator"),
    "complex numbers": (lambda xp, x: x * 1j, "array of complex"),
    "objects": (lambda xp, x: x.astype(object), "array of object"),
}


def test_a_forward_returns_no_mask_and_no_graph():
    @tg.primitive(x=lambda F, g: g)
    def masked(xp, x):
        return np.ma.masked_less(x, 2)

    @tg.primitive(x=lambda F, g, y: g * y)
    def times(xp, x, y):  # y has no vjp: it is a parameter, and comes as it is
        return x * y

    x = tg.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(DTypeError, match=r"masked array.*filled"):
        masked(x)
    with pytest.raises(GraphError, match="times: the forward returned a Tensor with a graph"):
        times(x, x)


def test_a_vjp_for_what_is_no_array_is_refused():
    with pytest.raises(TypeError, match=r"primitive: too many .*vjps, by keyword only"):
        tg.primitive(lambda xp, x: x)
    with pytest.raises(TypeError, match=r"primitive f: give a vjp .*\['x'\], arguments \[\]"):

        @tg.primitive(x=lambda F, g: g)
        def f(xp, *, x):
            return x

    with pytest.raises(TypeError, match="primitive h: the vjp x= is to be a function"):

        @tg.primitive(x=max)
        def h(xp, x):
            return x


@pytest.mark.parametrize("kind", RESULTS)
@pytest.mark.parametrize("value", [1.0, [1.0, 2.0]], ids=["0-d", "1-d"])
def test_a_forward_returns_one_array(kind, value):
    result, match = RESULTS[kind]

    @tg.primitive(x=lambda F, g: g)
    def odd(xp, x):
        return result(xp, x)

    for x in (tg.tensor(value), tg.tensor(value, requires_grad=True), value):
        with pytest.raises(DTypeError, match=f"^odd: the forward .*{match}"):
            odd(x)


def test_numbers_scalars_and_subclasses_are_arrays():
    for result in (3.0, 3, True, np.float32(3.0), np.array([3.0]).view(np.recarray)):

        @tg.primitive(x=None)
        def constant(xp, x, value=result):
            return value

        out = constant(tg.ones(2))
        np.testing.assert_array_equal(out.numpy(), np.asarray(result))
        assert type(out.data) is np.ndarray


GRADIENTS = {
    "0": (lambda F, g: 0, r"the number 0: .*shape \(3,\), such as g \* 0 \+ 0, or None"),
    "a number": (lambda F, g: 2.0, r"the number 2.0"),
    "a list": (lambda F, g: [1.0, 2.0, 3.0], "an object of list"),
    "a tuple": (lambda F, g: (g,), "an object of tuple"),
    "text": (lambda F, g: "g", "an object of str"),
    "a dict": (lambda F, g: {0: g}, "an object of dict"),
    "another shape": (lambda F, g: g[:2], r"shape \(2,\) for an argument of shape \(3,\)"),
    "no axes": (lambda F, g: g[0], r"shape \(\) for an argument of shape \(3,\)"),
    "the other kind": (
        lambda F, g: np.ones(3) if F.records else tg.ones(3),
        r"(Tensor|ndarray): compute it from g by operators and functions of F",
    ),
}


@pytest.mark.parametrize("kind", GRADIENTS)
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_vjp_returns_a_gradient(kind, create_graph):
    vjp, match = GRADIENTS[kind]

    @tg.primitive(x=lambda F, g: g, y=vjp)
    def added(xp, x, y):
        return x + y

    @tg.primitive(joint=lambda F, g: [g, vjp(F, g)])
    def joined(xp, *arrays):
        return arrays[0] + arrays[1]

    for operation, argument in ((added, "y"), (joined, "argument 1")):
        x, y = tg.ones(3, requires_grad=True), tg.ones(3, requires_grad=True)
        out = operation(x, y).sum()
        said = rf"the vjp of {operation.__name__} by {argument} returned .*{match}"
        with pytest.raises(GraphError, match=said):
            tg.grad(out, [x, y], create_graph=create_graph)


def test_a_complex_gradient_is_refused():
    @tg.primitive(x=lambda F, g: g * 1j)
    def turned(xp, x):
        return x * 1

    x = tg.ones(2, requires_grad=True)
    with pytest.raises(GraphError, match="turned by x returned a gradient of complex"):
        turned(x).sum().backward()


@pytest.mark.parametrize(
    "result, match",
    [
        (lambda F, g: None, "an object of NoneType for 2"),
        (lambda F, g: 0, "an object of int for 2"),
        (lambda F, g: g, "for 2 arguments: return a list"),
        (lambda F, g: [g], "1 gradients for 2"),
        (lambda F, g: [g, g, g], "3 gradients for 2"),
        (lambda F, g: (x for x in (g, g)), "an object of generator for 2"),
        (lambda F, g: {0: g, 1: g}, "an object of dict for 2"),
    ],
    ids=["None", "0", "array", "one", "three", "generator", "dict"],
)
def test_a_joint_vjp_returns_a_list(result, match):
    @tg.primitive(joint=result)
    def both(xp, *arrays):
        return arrays[0] + arrays[1]

    x, y = tg.ones(2, 3, requires_grad=True), tg.ones(2, 3, requires_grad=True)  # two rows
    with pytest.raises(GraphError, match=f"joint vjp of both returned .*{match}"):
        both(x, y).sum().backward()


def test_none_and_gradients_that_broadcast_are_meant():
    @tg.primitive(x=lambda F, g: None, y=lambda F, g: g)
    def mixed(xp, x, y):
        return x + y

    x, y = tg.ones(3, requires_grad=True), tg.tensor(1.0, requires_grad=True)
    mixed(x, y).sum().backward()
    assert x.grad is None
    assert y.grad.item() == 3


def test_the_source_of_an_operation_is_what_runs():
    operation = cube()
    assert "def cube(x):" in operation.definition.source
    frame = inspect.getsource(operation.__globals__["vjp"])  # as a traceback shows it
    assert frame in operation.definition.source


@pytest.mark.parametrize(
    "arguments, keywords, match",
    [
        ((), {}, "x"),
        ((1.0, 2.0, 3.0), {}, r"scaled takes x, factor, shift|takes"),
        ((1.0,), {"other": 1}, "other"),
        ((1.0,), {"x": 1.0}, "x"),
    ],
)
def test_wrong_arguments_are_refused(arguments, keywords, match):
    if len(arguments) == 3:
        operation = cube()
    else:
        operation = scaled()
    with pytest.raises(TypeError, match=match):
        operation(*arguments, **keywords)


def test_a_parameter_without_a_default_is_needed():
    @tg.primitive(x=lambda F, g, factor: g * factor)
    def times(xp, x, factor):
        return x * factor

    with pytest.raises(TypeError, match="factor"):
        times(tg.ones(2))
    assert times(tg.ones(2), factor=3).numpy().tolist() == [3, 3]


@pytest.mark.parametrize("value", ["text", None, [1j]])
def test_what_is_not_a_number_is_refused(value):
    with pytest.raises(DTypeError, match="cannot make a tensor"):
        cube()(value)


@pytest.mark.parametrize("name", ["tanh", "logsumexp", "cumsum", "linear"])
def test_an_operation_of_ones_own_replaces_none_of_the_librarys(name):
    ours = PRIMITIVES[name]

    def forward(xp, x):
        return x * 0

    forward.__name__ = name
    own = tg.primitive(x=lambda F, g: g * 0)(forward)
    assert PRIMITIVES[name] is ours
    assert own(tg.ones(2)).numpy().tolist() == [0, 0]
