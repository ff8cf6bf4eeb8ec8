"""`gradcheck` against planted wrong rules of every size, scale and position.

Each wrong rule must be found and its element named; the right rule must pass at the same point.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.engine.namespaces import PRIMITIVES
from tinygrad_rnn.errors import GradcheckError

pytestmark = pytest.mark.slow

# An example is many calls of gradcheck.
SOME = settings(max_examples=max(5, settings.default.max_examples // 3))
FEW = settings(max_examples=max(5, settings.default.max_examples // 6))
SEEDS = st.integers(0, 2**32 - 1)
POWERS = st.integers(-12, 12)  # of ten: the scales
KINDS = ["factor", "sign", "nothing", "everywhere"]
FUNCTIONS = {  # the values and their derivative
    "cube": (lambda xp, x: x * x * x, lambda F, x: 3 * x * x),
    "reciprocal": (lambda xp, x: 1 / x, lambda F, x: -1 / (x * x)),
    "sin": (lambda xp, x: xp.sin(x), lambda F, x: F.cos(x)),
    "log": (lambda xp, x: xp.log(x * x), lambda F, x: 2 / x),
    "exp": (lambda xp, x: xp.exp(x), lambda F, x: F.exp(x)),
}


@pytest.fixture(autouse=True, scope="module")
def same_primitives():
    """Remove the primitives that these tests define."""
    before = dict(PRIMITIVES)
    yield
    PRIMITIVES.clear()
    PRIMITIVES.update(before)


def planted(name: str) -> Any:
    """An elementwise operation whose derivative is multiplied by `factor`; 1 is right."""
    value, derivative = FUNCTIONS[name]

    @tg.primitive(x=lambda F, g, x, factor: g * (derivative(F, x) * factor), factor=None)
    def operation(xp, x, factor):
        return value(xp, x)

    return operation


OPERATIONS = {name: planted(name) for name in FUNCTIONS}


def message(function: Any, inputs: Any, **keywords: Any) -> str:
    with pytest.raises(GradcheckError) as raised:
        tg.gradcheck(function, inputs, **keywords)
    return str(raised.value)


class Plant(NamedTuple):
    """An elementwise operation at some scales, and where and how its rule is wrong."""

    name: str
    x: np.ndarray
    unit: Any  # what x is divided by
    scale: Any  # what the result is multiplied by
    wrong: np.ndarray  # the factors of the derivatives
    place: int | None  # None: everywhere
    seed: int

    def function(self, wrong: bool) -> Any:
        factor = self.wrong if wrong else np.ones_like(self.wrong)
        return lambda x: OPERATIONS[self.name](x / self.unit, factor) * self.scale


@st.composite
def plants(draw, least=1e-5):
    count = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(SEEDS))

    def scales():
        if draw(st.booleans()):
            return 10.0 ** draw(POWERS)
        return 10.0 ** rng.integers(-12, 13, count)  # one for each element

    unit = draw(st.sampled_from([1.0, scales()]))
    kind, place = draw(st.sampled_from(KINDS)), draw(st.integers(0, count - 1))
    delta = 10 ** draw(st.floats(np.log10(least), 0)) * draw(st.sampled_from([-1, 1]))
    wrong = np.ones(count)
    index = slice(None) if kind == "everywhere" else place
    wrong[index] = {"sign": -1.0, "nothing": 0.0}.get(kind, 1 + delta)
    return Plant(
        draw(st.sampled_from(sorted(FUNCTIONS))),
        rng.uniform(0.3, 3, count) * rng.choice([-1, 1], count) * unit,
        unit,
        scales(),
        wrong,
        None if kind == "everywhere" else place,
        draw(SEEDS),
    )


# -- first order -----------------------------------------------------------------------------------


@SOME
@given(plant=plants(), beside=st.sampled_from(["", "another", "itself", "small"]))
def test_a_wrong_rule_is_found_at_every_scale_beside_everything(plant, beside):
    def among_others(wrong):
        function = plant.function(wrong)

        def result(x, y):
            return {
                "": (function(x),),
                "another": (y * 1e12, function(x)),
                "itself": (x * 1e9, function(x), tg.argmax(x)),
                "small": (function(x), y * 1e-12 * tg.ones(3)),
            }[beside]

        return result

    inputs = [plant.x, 0.7]
    assert tg.gradcheck(among_others(False), inputs, rng=plant.seed)
    said = message(among_others(True), inputs, rng=plant.seed)
    output = f"output {int(beside in ('another', 'itself'))}"
    place = "" if plant.place is None else f" at [{plant.place}]"
    assert f"order 1: the derivative of {output}{place}" in said
    assert f"with respect to input 0{place}" in said
    assert "settle" not in said


@SOME
@given(plant=plants(least=1e-3), power=st.integers(-12, 6))
def test_a_wrong_rule_is_found_below_a_larger_term_of_the_same_sum(plant, power):
    """Among the elements of one input, and beside another input: rounding hides only so much."""

    def among_others(wrong):
        factor = plant.wrong if wrong else np.ones_like(plant.wrong)
        units = np.asarray(plant.unit) * np.ones_like(plant.x)

        def result(x, y):
            return tg.sum(OPERATIONS["cube"](x / units, factor)) + y * 10.0**power

        return result

    assert tg.gradcheck(among_others(False), [plant.x, 0.7], rng=plant.seed)
    said = message(among_others(True), [plant.x, 0.7], rng=plant.seed)
    assert "order 1: the derivative of output 0 with respect to input 0" in said
    if plant.place is not None and plant.x.size > 1:
        assert f"with respect to input 0 at [{plant.place}]" in said


@SOME
@given(seed=SEEDS, rows=st.integers(1, 6), columns=st.integers(1, 6))
def test_a_wrong_element_of_a_matrix_whose_rows_and_columns_have_sizes_of_their_own(
    seed, rows, columns
):
    rng = np.random.default_rng(seed)
    units = 10.0 ** rng.integers(-12, 13, columns)  # of x
    sizes = np.outer(10.0 ** rng.integers(-12, 13, rows), 1 / units)
    matrix = rng.uniform(0.3, 1, sizes.shape) * rng.choice([-1, 1], sizes.shape) * sizes
    i, j = rng.integers(rows), rng.integers(columns)
    wrong = matrix.copy()
    wrong[i, j] *= 1 + 10 ** rng.uniform(-3, 0) * rng.choice([-1, 1])

    @tg.primitive(
        x=lambda F, g, claimed: F.sum(F.reshape(g, shape=(rows, 1)) * claimed, axis=0), claimed=None
    )
    def applied(xp, x, claimed):
        return xp.matmul(matrix, x)

    x = rng.uniform(0.3, 3, columns) * rng.choice([-1, 1], columns) * units
    assert tg.gradcheck(lambda x: applied(x, matrix), [x], rng=seed)
    said = message(lambda x: applied(x, wrong), [x], rng=seed)
    assert f"order 1: the derivative of output 0 at [{i}] with respect to input 0 at [{j}]" in said


@SOME
@given(power=st.integers(-10, 3), at=st.sampled_from([0.0, 2.0, -1e-6]), scale=POWERS)
def test_a_derivative_where_there_is_none_is_found(power, at, scale):
    """The function is constant there, or has a stationary point; 0 is right."""

    @tg.primitive(x=lambda F, g, x, offset: g * (2 * (x - at) * 10.0**scale + offset), offset=None)
    def parabola(xp, x, offset):
        return (x - at) ** 2 * 10.0**scale

    @tg.primitive(x=lambda F, g, x, offset: g * (x * 0 + offset), offset=None)
    def constant(xp, x, offset):
        return x * 0 + 10.0**scale

    offset = 10.0 ** (power + scale)
    for function in (parabola, constant):
        assert tg.gradcheck(lambda x, f=function: f(x, 0.0), [[at, at + 1]])
        assert "order 1" in message(lambda x, f=function: f(x, offset), [[at, at + 1]])


@FEW
@given(plant=plants(), power=POWERS)
def test_a_gradient_that_is_none_is_found(plant, power):
    function = plant.function(wrong=False)
    for lost in (
        lambda x, y: function(x) * y.detach(),
        lambda x, y: (function(x), y.detach() * 10.0**power),
    ):
        assert "with respect to input 1" in message(lost, [plant.x, np.full(plant.x.size, 0.7)])


@SOME
@given(power=st.integers(-6, 12))
def test_a_broadcast_sum_that_is_dropped_is_found(power):
    """The gradient has the right shape, but is only the first row's."""

    @tg.primitive(
        x=lambda F, g: g,
        bias=lambda F, g, scale: F.getitem(g, key=0) * scale,
        scale=None,
    )
    def shifted(xp, x, bias, scale):
        return x + bias * scale

    inputs = [[[1.0, 2.0], [3.0, 4.0]], [0.5, 0.2]]
    said = message(lambda x, b: shifted(x, b, 10.0**power), inputs)
    assert "output 0 at [1, " in said and "with respect to input 1" in said


def test_shapes_without_elements_and_without_axes():
    for name, operation in OPERATIONS.items():
        for shape in ((), (0,), (2, 0), (1,), (2, 1, 2)):
            x = np.full(shape, 0.7)
            assert tg.gradcheck(lambda x, f=operation: f(x, np.ones(x.shape)), [x])
            if x.size:
                said = message(lambda x, f=operation: f(x, np.full(x.shape, 1.00001)), [x])
                assert "order 1: the derivative of output 0" in said, name


@pytest.mark.parametrize("delta", [1e-5, 1e-2, -2.0])
@pytest.mark.parametrize("size", [10, 300, 3000])
def test_one_wrong_element_of_many(size, delta):
    x = np.random.default_rng(0).uniform(0.3, 3, size)
    factor = np.ones(size)
    factor[size // 3] += delta * max(1, (size / 100) ** 0.5)
    said = message(lambda x: OPERATIONS["sin"](x, factor), [x])
    assert f"output 0 at [{size // 3}] with respect to input 0 at [{size // 3}]" in said


# -- higher orders, linearity ----------------------------------------------------------------------


@SOME
@given(plant=plants(least=1e-4), beside=st.booleans())
def test_a_rule_that_is_wrong_in_the_second_order_alone_is_found(plant, beside):
    """The derivative has the right values, and as a function of x another derivative."""

    @tg.primitive(x=lambda F, g, x, factor: g * F.slope(x, factor=factor), factor=None)
    def first(xp, x, factor):
        return x * x * x

    @tg.primitive(x=lambda F, g, x, factor: g * (6 * x * factor), factor=None)
    def slope(xp, x, factor):
        return 3 * x * x

    def function(x, factor):
        y = first(x / plant.unit, factor) * plant.scale
        return (x * 1e9, y) if beside else y

    right = np.ones_like(plant.wrong)
    assert tg.gradcheck(lambda x: function(x, right), [plant.x])
    assert tg.gradcheck(lambda x: function(x, plant.wrong), [plant.x], order=1)
    said = message(lambda x: function(x, plant.wrong), [plant.x])
    assert "order 2: the derivative of the gradient with respect to input 0" in said
    assert (
        plant.x.size == 1
        or plant.place is None
        or f"with respect to input 0 at [{plant.place}] with" in said
    )


@SOME
@given(plant=plants(), beside=st.booleans())
def test_a_rule_that_is_wrong_under_create_graph_alone_is_found(plant, beside):
    @tg.primitive(
        x=lambda F, g, x, factor: g * (3 * x * x * (factor if F.records else 1)), factor=None
    )
    def two_faced(xp, x, factor):
        return x * x * x

    def function(x):
        y = two_faced(x / plant.unit, plant.wrong) * plant.scale
        return (x * 1e-9, y) if beside else y

    assert tg.gradcheck(function, [plant.x], order=1)
    assert "order 2" in message(function, [plant.x])


@FEW
@given(plant=plants(least=1e-4))
def test_a_rule_that_loses_the_cotangents_graph_is_found(plant):
    @tg.primitive(x=lambda F, g, x: (g.detach() if F.records else g) * (3 * x * x))
    def lost(xp, x):
        return x * x * x

    function = lambda x: lost(x / plant.unit) * plant.scale  # noqa: E731
    assert tg.gradcheck(function, [plant.x], order=1)
    assert "with respect to the cotangent of output 0" in message(function, [plant.x])


@pytest.mark.parametrize(
    "rule",
    [
        lambda F, g, x: g * (3 * x * x) + 1e-3,
        lambda F, g, x: g * g * (3 * x * x),
        lambda F, g, x: F.abs(g) * (3 * x * x),
    ],
    ids=["offset", "square", "absolute"],
)
@pytest.mark.parametrize("scale", [1e-10, 1.0])
def test_a_rule_that_is_not_linear_in_g_is_found(rule, scale):
    @tg.primitive(x=rule)
    def cube(xp, x):
        return x * x * x

    assert "order 1" in message(lambda x: cube(x) * scale, [[0.5, 2.0]])


def test_gradients_of_two_outputs_that_are_not_added_up_are_found(monkeypatch):
    """Each output's gradient is right alone, but not that of both."""
    from tinygrad_rnn.testing import jacobian_check

    honest = jacobian_check.vjp

    def first_alone(outputs, places, cotangents, **keywords):
        return honest(outputs[:1], places, cotangents[:1], **keywords)

    assert tg.gradcheck(lambda x: (x * 2, x * x), [[0.5, 2.0]], order=1)
    monkeypatch.setattr(jacobian_check, "vjp", first_alone)
    assert "must be linear" in message(lambda x: (x * 2, x * x), [[0.5, 2.0]], order=1)


# -- no false alarms -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function, at",
    [
        (tg.log, 1e-6),
        (tg.sqrt, 1e-9),
        (tg.exp, 1e-12),
        (tg.exp, 1e-300),
        (tg.sin, 1e6),
        (tg.tanh, 15.0),
        (tg.tanh, 40.0),
        (tg.sigmoid, -30.0),
        (lambda x: tg.softmax(tg.stack([x, x - 30])), 1.0),
        (lambda x: tg.logsumexp(tg.stack([x, x - 40])), 1.0),
        (lambda x: tg.var(tg.stack([x, x, x])), 0.1),
        (lambda x: x * x * x, 0.0),
        (lambda x: tg.prod(x * tg.ones(9, dtype="float64")), 0.0),
        (lambda x: x - x, 0.3),
        (lambda x: x.astype("float32") * 2, 0.3),
    ],
)
def test_right_rules_pass_where_derivatives_are_large_tiny_or_zero(function, at):
    for seed in range(5):
        assert tg.gradcheck(function, [at], rng=seed)


@SOME
@given(seed=SEEDS, power=st.integers(0, 6))
def test_rounding_in_fn_is_no_wrong_rule_and_hides_none_that_matters(seed, power):
    offset = 10.0**power
    assert tg.gradcheck(lambda x: (x + offset) - offset, [[0.5, 2.0]], rng=seed)
    factor = np.array([1.0, 1.01])
    function = lambda x: (OPERATIONS["sin"](x, factor) + offset) - offset  # noqa: E731
    assert "output 0 at [1] with respect to input 0 at [1]" in message(
        function, [[0.5, 2.0]], rng=seed
    )


@settings(max_examples=10)
@given(seed=SEEDS, power=st.integers(13, 20))
def test_values_that_are_rounding_alone_are_not_passed(seed, power):
    offset = 10.0**power
    message(lambda x: (x + offset) - offset, [[0.5, 2.0]], rng=seed)


def test_an_absolute_tolerance_is_taken():
    cube = OPERATIONS["cube"]
    message(lambda x: cube(x, np.array([1.0, 1.001])), [[0.5, 2.0]])
    assert tg.gradcheck(lambda x: cube(x, np.array([1.0, 1.001])), [[0.5, 2.0]], order=1, atol=0.1)
    assert tg.gradcheck(lambda x: cube(x, np.array([1.0, 1.001])), [[0.5, 2.0]], order=1, rtol=0.1)


@given(count=st.integers(1, 200), outputs=st.integers(1, 3))
@settings(max_examples=10)
def test_the_calls_of_fn_do_not_grow_with_the_sizes(count, outputs):
    calls = []

    def function(x):
        calls.append(x.size)
        return [tg.sin(x * (k + 1)) for k in range(outputs)]

    tg.gradcheck(function, [np.random.default_rng(0).uniform(0.5, 0.6, count)], order=1)
    assert len(calls) <= 30 + 10 * outputs
