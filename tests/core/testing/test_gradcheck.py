"""The tools for checking operations: `gradcheck` and the hypothesis strategies."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import find, given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import testing
from tinygrad_rnn.engine.namespaces import PRIMITIVES
from tinygrad_rnn.errors import ArgumentError, DTypeError, GradcheckError

PLACE = np.array([[0.5, 1.0], [2.0, -1.5]])


@pytest.fixture(autouse=True)
def same_primitives():
    """Remove the primitives that a test defines."""
    before = dict(PRIMITIVES)
    yield
    PRIMITIVES.clear()
    PRIMITIVES.update(before)


def cube(rule):
    @tg.primitive(x=rule)
    def planted_cube(xp, x):
        return x * x * x

    return planted_cube


WRONG = {
    "half of it": lambda F, g, x: g * (1.5 * x * x),
    "a millionth off": lambda F, g, x: g * (3.000003 * x * x),
    "the sign": lambda F, g, x: -(g * (3 * x * x)),
    "another's": lambda F, g, x: g * F.cos(x),
    "nan": lambda F, g, x: g * F.log(x - 10),
    "nothing": lambda F, g, x: g * 0 * x,
}


# -- wrong gradients are caught --------------------------------------------------------------------


def test_right_gradients_of_every_order_pass():
    right = cube(lambda F, g, x: g * (3 * x * x))
    for order in (1, 2, 3, 4):
        assert tg.gradcheck(right, PLACE, order=order) is True


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_gradient_is_caught(name):
    with pytest.raises(GradcheckError, match="order 1"):
        tg.gradcheck(cube(WRONG[name]), PLACE)


def test_a_gradient_that_is_right_once_but_wrong_twice_is_caught():
    """A rule that hides its own dependence on x has no second derivative."""

    @tg.primitive(x=lambda F, g, square: g * (3 * square))
    def planted_cube(xp, x, square):
        return x * x * x

    def function(x):
        return planted_cube(x, square=x.numpy() ** 2)

    assert tg.gradcheck(function, PLACE, order=1)
    with pytest.raises(
        GradcheckError,
        match=r"order 2: the derivative of the gradient with respect to input 0 at \[.*\] with",
    ):
        tg.gradcheck(function, PLACE)


def test_third_order_is_caught_by_order_three_alone():
    """Right to second order at x = 1: x³ and its first two derivatives, but not the third."""

    @tg.primitive(x=lambda F, g, x: g * F.half_right(x))
    def planted(xp, x):
        return x**3

    @tg.primitive(x=lambda F, g, out, x: g * F.constant_slope(x))
    def half_right(xp, x):
        return 3 * x * x

    @tg.primitive(x=lambda F, g: g * 5)
    def constant_slope(xp, x):
        return 6 * x

    tg.gradcheck(planted, PLACE)
    with pytest.raises(GradcheckError, match="order 3"):
        tg.gradcheck(planted, PLACE, order=3)


def test_rules_that_differ_between_arrays_and_create_graph_are_caught():
    two_faced = cube(lambda F, g, x: g * (x * x) * (2 if F.records else 3))
    assert tg.gradcheck(two_faced, PLACE, order=1)
    with pytest.raises(GradcheckError, match=r"when the vjps run on arrays.*create_graph=True"):
        tg.gradcheck(two_faced, PLACE)


def test_a_gradient_for_the_wrong_one_of_two_arguments_is_caught():
    @tg.primitive(x=lambda F, g, x: g * x, y=lambda F, g, y: g * y)
    def planted_product(xp, x, y):
        return x * y

    with pytest.raises(GradcheckError):
        tg.gradcheck(planted_product, [[0.5, 1.0], [2.0, -1.0]])


def test_a_lost_graph_is_caught():
    with pytest.raises(GradcheckError, match="is 2 by the graph, 3 by finite differences"):
        tg.gradcheck(lambda x: x * 2 + x.detach(), PLACE)
    with pytest.raises(GradcheckError, match="output 1"):
        tg.gradcheck(lambda x: [x, x.detach() * 3], PLACE)


def test_the_error_shows_where_and_by_how_much():
    """One wrong element of a Jacobian: its output, its input, both values, and the distance."""

    @tg.primitive(
        x=lambda F, g, mask: g * (2 + mask),
        mask=None,
    )
    def planted(xp, x, mask):
        return 2 * x

    mask = np.zeros((3, 4))
    mask[1, 2] = 0.25
    x = np.arange(12.0).reshape(3, 4)
    with pytest.raises(GradcheckError) as raised:
        tg.gradcheck(lambda y, x: (tg.ones(2) * y, planted(x, mask)), [0.0, x])
    assert str(raised.value) == (
        "gradcheck, order 1: the derivative of output 1 at [1, 2] with respect to input 1 at "
        "[1, 2] (= 6) is 2.25 by the graph, 2 by finite differences: difference 0.25, "
        "tolerance 2e-07"
    )


def test_a_kink_is_told_from_a_wrong_rule():
    with pytest.raises(GradcheckError) as raised:
        tg.gradcheck(tg.relu, [[0.0, 1.0]])
    assert "0 by the graph, 0.5 by finite differences" in str(raised.value)
    assert tg.gradcheck(tg.relu, [[0.001, -0.001]])  # smaller steps than the first do not reach it
    with pytest.raises(GradcheckError, match=r"do not settle: is fn smooth"):
        tg.gradcheck(tg.sign, [0.0])
    assert tg.gradcheck(lambda x: x ** (1 / 3), [0.01])


def test_what_is_no_function_of_its_arguments_is_refused():
    generator = np.random.default_rng(0)
    with pytest.raises(GradcheckError, match=r"other values when it is called again.*rng="):
        tg.gradcheck(lambda x: tg.functional.dropout(x, 0.5, rng=generator), np.ones(20))
    with pytest.raises(GradcheckError, match="fn gives inf at these inputs"):
        tg.gradcheck(lambda x: x * np.inf, [1.0])


@pytest.mark.parametrize(
    "call, error, match",
    [
        (lambda: tg.gradcheck(tg.exp, tg.ones(2)), DTypeError, r"input 0 is float32.*float64"),
        (lambda: tg.gradcheck(tg.exp, [1, 2]), DTypeError, "input 0 is int64"),
        (lambda: tg.gradcheck(tg.exp, []), ArgumentError, "no inputs"),
        (lambda: tg.gradcheck(tg.exp, 1.0, order=0), ArgumentError, "order counts from 1"),
        (lambda: tg.gradcheck(lambda x: 1.0, 1.0), ArgumentError, "output 0 of fn.*float"),
    ],
)
def test_misuse_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_integer_outputs_and_outputs_without_inputs_pass():
    tg.gradcheck(lambda x: (tg.argmax(x), tg.ones(3), x * x), PLACE)
    tg.gradcheck(lambda x: tg.ones(3), PLACE)
    tg.gradcheck(lambda x: [], PLACE)


def test_the_inputs_are_not_written_to_and_keep_no_gradient():
    x = tg.tensor(PLACE, requires_grad=True)
    tg.gradcheck(tg.exp, x)
    np.testing.assert_array_equal(x.numpy(), PLACE)
    assert x.grad is None
    with tg.no_grad():
        tg.gradcheck(tg.exp, x)


# -- strategies ------------------------------------------------------------------------------------


def test_strategies_reach_what_they_promise():
    def reaches(strategy, condition):
        find(strategy, condition)  # raises NoSuchExample otherwise

    reaches(testing.shapes(), lambda s: s == ())
    reaches(testing.shapes(), lambda s: 0 in s)
    reaches(testing.broadcastable_shapes(2), lambda s: s[0][0] != s[0][1] and len(s[1]) == 3)
    reaches(testing.arrays(), lambda a: a.size > 5)
    for name, (_, view) in testing.LAYOUTS.items():
        if name != "C order":
            assert view(np.zeros((2, 3))).strides != (24, 8) or name == "every other element"
    layouts = testing.arrays((2, 3)).flatmap(testing.layouts)
    reaches(layouts, lambda a: a.flags.f_contiguous)
    reaches(layouts, lambda a: min(a.strides) < 0)
    reaches(layouts, lambda a: not a.flags.forc and min(a.strides) > 0)
    reaches(layouts, lambda a: not a.flags.writeable)
    reaches(testing.axes(3), lambda a: a is None)
    reaches(testing.axes(3), lambda a: isinstance(a, tuple) and len(a) == 3 and min(a) < 0)
    reaches(testing.axes(0), lambda a: a == ())
    for part in (int, slice, type(None), type(Ellipsis), np.ndarray):
        reaches(
            testing.indices((2, 3)),
            lambda k, part=part: any(
                isinstance(p, part) for p in (k if isinstance(k, tuple) else [k])
            ),
        )
    assert {find(testing.dtypes(), lambda d, k=k: d == k) for k in ("f2", "f4", "f8")} == {
        np.dtype(k) for k in ("f2", "f4", "f8")
    }


@given(st.data())
def test_layouts_change_no_value(data):
    array = data.draw(testing.arrays(dtype=testing.dtypes("fi"), elements=st.integers(-3, 3)))
    other = data.draw(testing.layouts(array))
    assert other.dtype == array.dtype
    np.testing.assert_array_equal(other, array)


@given(st.data())
def test_indices_are_what_numpy_takes(data):
    array = data.draw(testing.arrays())
    array[data.draw(testing.indices(array.shape))]
    array.sum(axis=data.draw(testing.axes(array.ndim)))


def test_without_hypothesis_the_extra_is_named():
    code = """
import sys
sys.modules["hypothesis"] = None
import tinygrad_rnn as tg
assert tg.gradcheck(tg.tanh, [[0.5, 1.0]])
try:
    tg.testing.arrays()
except tg.errors.MissingExtraError as error:
    assert "tinygrad-rnn[test]" in str(error), error
else:
    raise AssertionError("no error")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
