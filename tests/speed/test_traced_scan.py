"""The traced loop over time is the loop in Python: results, gradients, second derivatives.

The loop in Python (``with tg.eager()``) is the reference everywhere. It is itself tested against
loops written by hand, in ``tests/core/recurrence``.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.functional import dropout, layer_norm, linear
from tinygrad_rnn.recurrence import loop

H = 3
SEEDS = st.integers(0, 2**32 - 1)

# Where a function has a kink, its argument is shifted: values that are equal by design (x - x, the
# mean of what was centred) differ by rounding from one way of computing to the other.
UNARY = {
    "tanh": tg.tanh,
    "sigmoid": tg.sigmoid,
    "softplus": tg.softplus,
    "relu": lambda x: tg.relu(x - 0.1237),
    "sin": tg.sin,
    "cos": tg.cos,
    "negative": lambda x: -x,
    "abs": lambda x: tg.abs(x + 0.0817),
    "square": lambda x: tg.sin(x) ** 2,
    "root": lambda x: tg.sqrt(1 + x * x),
    "exp": lambda x: tg.exp(tg.sin(x)),
    "log": lambda x: tg.log(1.5 + tg.cos(x)),
    "affine": lambda x: 0.5 - 1.5 * x,
    "inverse": lambda x: 1 / (2 + tg.sin(x)),
    "clip": lambda x: tg.clip(x, -0.7131, 0.9137),
    "gate": lambda x: (1 - tg.sigmoid(x)) * x,
    "bool": lambda x: tg.where(x > 0.0511, x, 0.5),
    "zeros_like": lambda x: x + tg.zeros_like(x),
    "detach": lambda x: x.detach() * 0.5,
}
BINARY = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * tg.tanh(y),
    "divide": lambda x, y: x / (2 + tg.cos(y)),
    "maximum": lambda x, y: tg.maximum(x, y + 0.0531),
    "minimum": lambda x, y: tg.minimum(x, y + 0.0531),
    "logaddexp": tg.logaddexp,
    "where": lambda x, y: tg.where(x > y + 0.0531, x, y * 0.5),
    "mix": lambda x, y: 0.9 * x + 0.1 * y,
}
REDUCTIONS = {
    "mean": lambda x: x.mean(axis=-1, keepdims=True),
    "sum": lambda x: x.sum(axis=-1, keepdims=True),
    "without the axis": lambda x: x.mean(axis=-1).reshape(-1, 1),
    "centred": lambda x: x - x.mean(axis=-1, keepdims=True),
    "norm": lambda x: x / tg.sqrt(1 + (x * x).sum(axis=-1, keepdims=True)),
    "layer_norm": lambda x: layer_norm(x + tg.sin(x), H),
    "layer_norm of 1": lambda x: layer_norm(x, H, eps=1.0),
}
PRODUCTS = ["linear", "h @ W.T", "h @ W", "tied", "computed", "wide", "slices", "joined", "affine"]
INVARIANTS = ["()", "(H,)", "(B, 1)", "(1, H)", "(B, H)"]


class Case(NamedTuple):
    """A step as a list of instructions on a list of values: state, inputs, invariants, results."""

    program: list[Any]
    states: int
    counts: bool  # whether an element of the state is an integer
    inputs: int
    new: list[Any]  # for each element of the state: (function, number of a value)
    ys: list[int]
    form: str  # of y
    container: str  # of the state
    frozen: frozenset[int]  # leaves without a gradient
    traceable: bool
    T: int
    B: int
    seed: int

    def leaves(self, dtype: Any) -> dict[str, list[Any]]:
        """The state, the inputs, the invariants and the weights, with a graph or without."""
        rng, number, T, B = np.random.default_rng(self.seed), itertools.count(), self.T, self.B

        def leaf(*shape: int, scale: float = 1.0) -> Any:
            values = scale * rng.standard_normal(shape)
            requires = next(number) not in self.frozen
            return tg.tensor(values.astype(dtype), requires_grad=requires)

        return {
            "state": [leaf(B, H) for _ in range(self.states)],
            "xs": [leaf(T, B, H) for _ in range(self.inputs)],
            "invariants": [leaf(*s) for s in ((), (H,), (B, 1), (1, H), (B, H))],
            "weights": [leaf(*s, scale=0.6) for s in ((H, H), (H, H), (2 * H, H), (H, 2 * H))],
            "biases": [leaf(2 * H)],
        }

    def step(self, given: dict[str, list[Any]]) -> Any:
        W, U, tall, flat = given["weights"]
        (bias,) = given["biases"]

        def product(kind: str, x: Any, y: Any) -> list[Any]:
            if kind == "linear":
                return [linear(x, W)]
            if kind == "h @ W.T":
                return [x @ U.T]
            if kind == "h @ W":
                return [x @ U]
            if kind == "tied":
                return [linear(tg.tanh(linear(x, W)), W.T)]
            if kind == "computed":
                return [x @ (W * 0.5 + tg.sin(U))]
            if kind == "wide":
                return list(tg.split(x @ flat, 2, axis=-1))
            if kind == "slices":
                z = linear(x, tall, bias)
                return [z[..., :H], z[:, H:]]
            if kind == "affine":
                return [linear(x, W, bias[:H])]
            return [tg.concatenate([x, y], axis=-1) @ tall]

        def step(state: Any, x: Any) -> Any:
            old = self.unpacked(state)
            x = list(x.values()) if isinstance(x, dict) else [x]
            values = [*old[: self.states], *x, *given["invariants"]]
            for kind, name, i, j in self.program:
                one, other = values[i], values[j]
                if kind == "unary":
                    made = [UNARY[name](one)]
                elif kind == "binary":
                    made = [BINARY[name](one, other)]
                elif kind == "reduction":
                    made = [REDUCTIONS[name](one)]
                elif kind == "dropout":
                    made = [dropout(one, 0.3, True)]
                else:
                    made = product(name, one, other)
                values = [*values, *made]  # append() would be a side effect
            new = [function(values[i]) for function, i in self.new]
            ys = [values[i] for i in self.ys]
            if self.counts:
                count = old[-1] + 1
                ys = [tg.where(count % 2 == 0, y, 0.5 * y) for y in ys]
                new = [*new, count]
            forms = {
                "one": ys[0] if ys else None,
                "tuple": tuple(ys),
                "dict": {"all": ys, "nothing": None, "new": new[0]},
                "none": None,
            }
            return self.packed(new), forms[self.form]

        return step

    def packed(self, elements: list[Any]) -> Any:
        if self.container == "dict":
            return {"nothing": None, **{f"s{i}": s for i, s in enumerate(elements)}}
        if self.container == "tensor" and len(elements) == 1:
            return elements[0]
        return list(elements) if self.container == "list" else (elements[0], tuple(elements[1:]))

    def unpacked(self, state: Any) -> list[Any]:
        if isinstance(state, dict):
            return [s for s in state.values() if s is not None]
        if isinstance(state, tuple):
            return [state[0], *state[1]]
        return state if isinstance(state, list) else [state]

    def arguments(self, given: dict[str, list[Any]]) -> tuple[Any, Any]:
        count = [tg.tensor(np.arange(self.B)[:, None])] * self.counts
        xs = given["xs"][0] if self.inputs == 1 else dict(enumerate(given["xs"]))
        return self.packed(given["state"] + count), xs


def same(x: Any) -> Any:
    return x


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A random step. Which values are (B, H) is known here: others cannot be multiplied."""
    states, inputs = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    varying, traceable = {*range(states + inputs)}, True
    full = list(range(states + inputs))
    count = len(full) + len(INVARIANTS)
    full.append(count - 1)
    some = [*full[:-1], *range(len(full) - 1, count)]
    kinds = ["unary", "binary", "binary", "reduction", "dropout", "product"]
    program, products = [], 0
    for _ in range(draw(st.integers(1, 7))):
        kind = draw(st.sampled_from(kinds if products < 3 else kinds[:-1]))
        operands = full if kind not in ("unary", "binary") else some
        i, j = draw(st.sampled_from(operands[::-1])), draw(st.sampled_from(operands))
        choices = {"unary": UNARY, "binary": BINARY, "reduction": REDUCTIONS, "product": PRODUCTS}
        name = draw(st.sampled_from(sorted(choices.get(kind, ["dropout"]))))
        program.append((kind, name, i, j))
        reads = {i, j} if kind == "binary" or name == "joined" else {i}
        if reads & varying:
            varying.update(range(count, count + 2 - (name not in ("wide", "slices"))))
        elif kind == "dropout":  # of a weight, at every step
            traceable = False
        traceable &= name != "joined"  # see `test_a_join_is_traced`
        products += (kind == "product") + (name == "tied")
        new = [count, count + 1] if name in ("wide", "slices") else [count]
        count += len(new)
        some += new
        thin = name in ("mean", "sum", "without the axis")
        if not thin and (kind not in ("unary", "binary") or reads & set(full)):
            full += new
    saturating = st.sampled_from([tg.tanh, tg.sin, lambda x: 0.5 * tg.tanh(x)])
    passed = st.tuples(st.just(same), st.sampled_from(full[: states + inputs + 1]))
    computed = st.tuples(saturating, st.sampled_from(full[::-1]))
    new = [draw(st.one_of(computed, computed, passed)) for _ in range(states)]
    return Case(
        program,
        states,
        draw(st.sampled_from([False, False, True])),
        inputs,
        new,
        draw(st.lists(st.sampled_from(full[::-1]), max_size=3)),
        draw(st.sampled_from(["one", "tuple", "none", "dict"])),
        draw(st.sampled_from(["tensor", "tuple", "list", "dict"])),
        draw(st.frozensets(st.integers(0, 14), max_size=8)),
        traceable,
        draw(st.integers(2, 5)),
        draw(st.integers(1, 3)),
        draw(SEEDS),
    )


class Options(NamedTuple):
    reverse: bool
    lengths: Any
    edges: Any

    @property
    def traced(self) -> bool:
        return self.lengths is None or max(self.lengths) > 1  # of one step, nothing is gained


@st.composite
def cases_and_options(draw: st.DrawFn) -> tuple[Case, Options]:
    case = draw(cases())
    T, B = case.T, case.B
    weights = st.sampled_from([0.0, 1.0, 0.5, 1.25])
    edges = draw(st.none() | st.lists(weights, min_size=T, max_size=T))
    lengths = draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    return case, Options(draw(st.booleans()), lengths, edges)


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [x for v in value for x in flat(v)]
    return [] if value is None else [value]


def loss_of(results: list[Any], seed: int) -> Any:
    """A loss of some of the results, nonlinear in each."""
    rng = np.random.default_rng(seed)
    total: Any = tg.tensor(0.0, dtype=tg.float64).astype(results[0].dtype)
    for y in results:
        weights = rng.standard_normal((2, *y.shape)).astype(y.dtype)
        if y.dtype.kind == "f" and rng.random() < 0.8:
            total = total + (tg.sin(y) * tg.tensor(weights[0]) + y * tg.tensor(weights[1])).sum()
    return total


def random_state() -> str:
    """The state of the library's generator."""
    return str(tg.random.get_state())


def arrays_of(tensors: Any, like: list[Any]) -> list[np.ndarray]:
    return [
        np.zeros(x.shape, x.dtype) if t is None else t.detach().numpy()
        for t, x in zip(tensors, like, strict=True)
    ]


def derivatives(results: list[Any], leaves: list[Any], seed: int, order: int) -> list[np.ndarray]:
    """The results, their gradients, and the gradients of those."""
    found = [y.detach().numpy() for y in results]
    wanted = [x for x in leaves if x.requires_grad]
    loss = loss_of([y for y in results if y.dtype.kind == "f"], seed)
    if not loss.requires_grad:  # every path is cut
        return found + [np.zeros_like(x.numpy()) for x in wanted] * (1 if order == 1 else 3)
    options: dict[str, Any] = {"allow_unused": True}
    found += arrays_of(tg.grad(loss, wanted, retain_graph=True, **options), wanted)
    if order > 1:
        first = tg.grad(loss, wanted, create_graph=True, **options)
        found += arrays_of(first, wanted)
        again = sum((tg.sin(g) * (i + 1)).sum() for i, g in enumerate(first) if g is not None)
        if isinstance(again, tg.Tensor) and again.requires_grad:
            found += arrays_of(tg.grad(again, wanted, **options), wanted)
        else:
            found += arrays_of([None] * len(wanted), wanted)
    return found


def run(case: Case, options: Options, dtype: Any, order: int) -> tuple[Any, Any]:
    """All results and derivatives of one run, and the report of the loop."""
    tg.random.manual_seed(case.seed)
    given = case.leaves(dtype)
    with loop.reports() as reports:
        state, ys = tg.scan(case.step(given), *case.arguments(given), **options._asdict())
    leaves = [x for group in given.values() for x in group]
    results = [*flat(state), *flat(ys)]
    found = derivatives(results, leaves, case.seed, order)
    (report,) = reports
    kind = type(state), [y.requires_grad for y in results]
    return (found, kind, random_state()), report


def assert_close(found: Any, wanted: Any, rtol: float, slack: Any = None) -> None:
    assert [a.shape for a in found] == [b.shape for b in wanted]
    assert [a.dtype for a in found] == [b.dtype for b in wanted]
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        scale = max(1.0, np.abs(b).max(initial=0.0))
        more = 0.0 if slack is None else slack[i]
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale + more)


# -- random steps ----------------------------------------------------------------------------------


@given(cases_and_options())
def test_random_steps_are_those_of_the_loop_in_python_to_second_order(
    drawn: tuple[Case, Options],
) -> None:
    case, options = drawn
    (found, kind, generator), report = run(case, options, np.float64, 2)
    with tg.eager():
        (wanted, other, after), _ = run(case, options, np.float64, 2)
    assert_close(found, wanted, 1e-10)
    assert kind == other and generator == after
    assert report.traced == options.traced or not case.traceable, report


@given(cases_and_options())
def test_random_steps_in_float32_are_as_exact_as_the_loop_in_python(
    drawn: tuple[Case, Options],
) -> None:
    """Both are compared with float64: what a step amplifies, it amplifies in either."""
    case, options = drawn
    (found, *_), report = run(case, options, np.float32, 1)
    with tg.eager():
        (wanted, *_), _ = run(case, options, np.float32, 1)
        (exact, *_), _ = run(case, options, np.float64, 1)
    slack = [4 * np.abs(a - b).max(initial=0.0) for a, b in zip(wanted, exact, strict=True)]
    assert_close(found, wanted, 1e-5, slack)
    assert report.traced == options.traced or not case.traceable, report
    assert all(a.dtype in (np.float32, np.int64) for a in found)


@given(cases_and_options(), st.data())
def test_the_padding_is_never_read(drawn: tuple[Case, Options], data: st.DataObject) -> None:
    case, options = drawn
    T, B = case.T, case.B
    lengths = data.draw(st.lists(st.integers(0, T), min_size=B, max_size=B))
    bad = data.draw(st.sampled_from([np.nan, np.inf, 1e300]))
    found = []
    for padding in (0.0, bad):
        tg.random.manual_seed(1)
        given = case.leaves(np.float64)
        for x, (b, length) in itertools.product(given["xs"], enumerate(lengths)):
            x.data[length:, b] = padding
        state, ys = tg.scan(
            case.step(given), *case.arguments(given), lengths=lengths, reverse=options.reverse
        )
        leaves = [x for group in given.values() for x in group]
        found.append(derivatives([*flat(state), *flat(ys)], leaves, case.seed, 2))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@given(cases_and_options())
def test_nothing_is_recorded_without_gradients(drawn: tuple[Case, Options]) -> None:
    case, options = drawn
    results = []
    for eager in (False, True):
        tg.random.manual_seed(case.seed)
        given = case.leaves(np.float64)
        with tg.no_grad(), loop.reports() as reports, tg.eager() if eager else tg.no_grad():
            state, ys = tg.scan(case.step(given), *case.arguments(given), **options._asdict())
        results.append([*flat(state), *flat(ys)])
        assert not (reports[0].traced and any(y.requires_grad for y in results[-1]))
    assert_close(*([y.detach().numpy() for y in r] for r in results), 1e-10)


@given(cases_and_options(), st.data())
def test_only_what_is_asked_for_is_differentiated(
    drawn: tuple[Case, Options], data: st.DataObject
) -> None:
    """One result and one leaf at a time: the backward loop is another one for each."""
    case, options = drawn
    picked, graphs = [], []
    which = data.draw(st.tuples(st.integers(0, 9), st.integers(0, 14)))
    for eager in (False, True):
        with tg.eager() if eager else loop.reports():
            tg.random.manual_seed(case.seed)
            given = case.leaves(np.float64)
            state, ys = tg.scan(case.step(given), *case.arguments(given), **options._asdict())
            results = [y for y in [*flat(state), *flat(ys)] if y.dtype.kind == "f"]
            leaves = [x for group in given.values() for x in group]
            leaves = [x for x in leaves if x.requires_grad] or leaves
            y, x = results[which[0] % len(results)], leaves[which[1] % len(leaves)]
            first = [None]  # if every path is cut
            if y.requires_grad and x.requires_grad:
                first = tg.grad((y * y).sum(), [x], allow_unused=True)
            picked.append(arrays_of(first, [x]))
            graphs.append(([r.requires_grad for r in results], first[0] is None))
    assert_close(*picked, 1e-10)
    assert graphs[0] == graphs[1]  # None, not zeros, where nothing leads to the leaf


def test_a_slice_of_a_value_that_takes_the_place_of_a_sum() -> None:
    """The array of a sum is another one at each step, and is used again for later values."""
    rng = np.random.default_rng(0)
    b = tg.tensor(rng.standard_normal((1, 5)), requires_grad=True)
    x = tg.tensor(rng.standard_normal((4, 3, 5)), requires_grad=True)

    def step(h: Any, x: Any) -> Any:
        total = (x + x).sum(axis=-1, keepdims=True) * 0.3
        return tg.tanh(total[..., 0:1] * b + b), None

    def outcome() -> list[np.ndarray]:
        state, _ = tg.scan(step, tg.zeros(3, 5, dtype=tg.float64), x)
        return derivatives([state], [b, x], 0, 1)

    before = tg.fuse.backend()
    try:
        tg.fuse.backend("numpy")
        found = outcome()
    finally:
        tg.fuse.backend(before)
    with tg.eager():
        assert_close(found, outcome(), 1e-12)


@given(cases_and_options(), st.data())
def test_a_leaf_that_a_loss_does_not_depend_on_has_no_gradient(
    drawn: tuple[Case, Options], data: st.DataObject
) -> None:
    """`backward` leaves its ``grad`` None, so that an optimizer does not decay its weight."""
    case, options = drawn
    which, found = data.draw(st.integers(0, 9)), []
    for eager in (False, True):
        with tg.eager() if eager else loop.reports():
            tg.random.manual_seed(case.seed)
            given = case.leaves(np.float64)
            state, ys = tg.scan(case.step(given), *case.arguments(given), **options._asdict())
            results = [y for y in [*flat(state), *flat(ys)] if y.requires_grad]
            if results:
                results[which % len(results)].sum().backward()
            found.append([x.grad is None for group in given.values() for x in group])
    assert found[0] == found[1]


INTEGERS = ["bool", "int8", "uint8", "int32", "int64"]


@pytest.mark.parametrize("name", ["sum", "mean"])
@pytest.mark.parametrize("dtype", [*INTEGERS, "float16"])
@pytest.mark.parametrize("axis", [None, -1, 0, (0, 1)])
@pytest.mark.parametrize("B", [1, 2])
def test_a_reduction_in_any_dtype(name: str, dtype: str, axis: Any, B: int) -> None:
    rng = np.random.default_rng(0)
    h, xs = (tg.tensor(rng.standard_normal((*t, B, H)), requires_grad=True) for t in ((), (4,)))

    def step(h: Any, x: Any) -> Any:
        y = h > 0 if dtype == "bool" else (50 * h).astype(dtype)
        return tg.tanh(h + x), [getattr(y, name)(axis, keepdims=k) for k in (False, True)]

    with loop.reports() as reports:
        _, found = tg.scan(step, h, xs)
    with tg.eager():
        _, wanted = tg.scan(step, h, xs)
    assert reports[0].traced, reports
    slack = [1e-2] * 2 if dtype == "float16" else None
    assert_close(
        [y.detach().numpy() for y in found], [y.detach().numpy() for y in wanted], 0, slack
    )


def of_rows(F: Any, g: Any, x_shape: Any) -> Any:
    return F.broadcast_to(F.reshape(g, shape=(x_shape[0], 1)), shape=x_shape)


@tg.primitive(floating=True, x=of_rows)
def total_of_rows(xp: Any, x: Any) -> Any:
    """A primitive that relies on the defaults of `sum` and `mean`."""
    return xp.sum(x, axis=-1) + 0 * xp.mean(x)


def test_the_defaults_of_reductions_in_a_primitive_of_the_users() -> None:
    h, xs = tg.ones(2, H, dtype=tg.float64), tg.ones(4, 2, H, dtype=tg.float64)
    with loop.reports() as reports:
        _, found = tg.scan(lambda h, x: (0.5 * h + x, total_of_rows(h)), h, xs)
    with tg.eager():
        _, wanted = tg.scan(lambda h, x: (0.5 * h + x, total_of_rows(h)), h, xs)
    assert reports[0].traced, reports
    assert_close([found.numpy()], [wanted.numpy()], 1e-10)


def test_a_primitive_with_the_name_of_one_of_the_library() -> None:
    """It is not hoisted as the library's."""

    def forward(xp: Any, x: Any) -> Any:
        return xp.cos(x)

    forward.__name__ = "tanh"
    own = tg.primitive(floating=True, x=lambda F, g: 7.0 * g)(forward)
    W, h, xs = tg.eye(H), tg.ones(2, H), tg.ones(4, 2, H, requires_grad=True)

    def step(h: Any, x: Any) -> Any:
        return 0.5 * h + linear(own(x), W), linear(tg.tanh(x), W)

    outcomes = []
    for eager in (False, True):
        with tg.eager() if eager else loop.reports() as reports:
            last, ys = tg.scan(step, h, xs)
        assert eager or reports[0].traced, reports
        outcomes.append([y.detach().numpy() for y in (last, ys, *tg.grad(last.sum(), [xs]))])
    assert_close(*outcomes, 1e-5)


SHAPES = [-1, (-1,), (-1, H), (H, -1), (2, -1), (-1, 1, H), [2, -1], (np.int64(2), H), None]


@pytest.mark.parametrize("shape", [*SHAPES, (2, H), 2 * H, (-1, 7), (-1, -1), (0, -1), (4,)])
def test_reshape_to_any_shape(shape: Any) -> None:
    outcomes = []
    for eager in (False, True):
        rng = np.random.default_rng(0)
        h, xs = (tg.tensor(rng.standard_normal((*t, 2, H)), requires_grad=True) for t in ((), (4,)))

        def step(h: Any, x: Any) -> Any:
            return tg.tanh(h + x), tg.sin(tg.reshape(h, shape))

        with tg.eager() if eager else loop.reports() as reports:
            try:
                _, ys = tg.scan(step, h, xs)
            except ShapeError as error:
                outcomes.append(str(error))
            else:
                assert eager or reports[0].traced, reports
                outcomes.append(
                    [ys.detach().numpy(), *map(tg.Tensor.numpy, tg.grad(ys.sum(), [h, xs]))]
                )
    if isinstance(outcomes[0], str):
        assert outcomes[0] == outcomes[1]
    else:
        assert_close(*outcomes, 1e-10)


JOINS = {
    "state and input": lambda h, x, a: tg.concatenate([h, x], axis=-1),
    "an invariant": lambda h, x, a: tg.concatenate([a, h], axis=-1),
    "inputs": lambda h, x, a: tg.concatenate([x, tg.sin(x)], axis=-1),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", JOINS)
def test_a_join_is_traced(name: str, reverse: bool) -> None:
    found = []
    for eager in (False, True):
        rng = np.random.default_rng(4)
        leaves = [
            tg.tensor(rng.standard_normal(s), requires_grad=True)
            for s in ((2, H), (4, 2, H), (2, H), (2 * H, H))
        ]
        h, xs, a, W = leaves

        def step(h: Any, x: Any, a: Any = a, W: Any = W) -> Any:
            z = JOINS[name](h, x, a)
            return tg.tanh(z @ W), tg.sin(z)

        with tg.eager() if eager else tg.no_grad(), tg.enable_grad(), loop.reports() as reports:
            h, ys = tg.scan(step, h, xs, reverse=reverse)
        found.append(derivatives([h, ys], leaves, 5, 2))
        assert eager or reports[0].traced, reports[0]
    assert_close(*found, 1e-10)


# -- the built-in layers, with every strategy ------------------------------------------------------

LAYERS: dict[str, Any] = {
    "RNN tanh": lambda **o: tg.nn.RNN(3, 4, **o),
    "RNN relu": lambda **o: tg.nn.RNN(3, 4, nonlinearity="relu", **o),
    "RNN without bias": lambda **o: tg.nn.RNN(3, 4, bias=False, **o),
    "GRU": lambda **o: tg.nn.GRU(3, 4, **o),
    "LSTM": lambda **o: tg.nn.LSTM(3, 4, **o),
    "LSTM with a projection": lambda **o: tg.nn.LSTM(3, 4, proj_size=2, **o),
    "two layers": lambda **o: tg.nn.GRU(3, 4, num_layers=2, **o),
    "dropout between layers": lambda **o: tg.nn.LSTM(3, 4, num_layers=2, dropout=0.4, **o),
    "bidirectional": lambda **o: tg.nn.LSTM(3, 4, num_layers=2, bidirectional=True, **o),
    "bidirectional GRU": lambda **o: tg.nn.GRU(3, 4, bidirectional=True, batch_first=True, **o),
}
STRATEGIES: dict[str, Any] = {
    "Full": lambda: tg.bptt.Full(),
    "checkpoint": lambda: tg.bptt.Full(checkpoint=True),
    "Truncated": lambda: tg.bptt.Truncated(3),
    "stride": lambda: tg.bptt.Truncated(5, stride=2),
    "Randomized": lambda: tg.bptt.Randomized(0.7, rng=5),
    "max_steps": lambda: tg.bptt.Randomized(lambda t: 1 - 0.3 / t, rng=6, max_steps=3),
    "library's generator": lambda: tg.bptt.Randomized(0.6),
}
T, B = 9, 3


def run_layer(
    name: str, strategy: str, dtype: Any, lengths: Any, order: int, output: bool = True
) -> tuple[list[np.ndarray], list[Any], Any]:
    tg.random.manual_seed(11)
    layer = LAYERS[name](dtype=dtype, rng=2)
    rng = np.random.default_rng(3)
    x = tg.tensor(rng.standard_normal((T, B, 3)).astype(dtype), requires_grad=True)
    shape = (len(layer.cells), B)
    state = tuple(
        tg.tensor(rng.standard_normal((*shape, size)).astype(dtype), requires_grad=True)
        for size in layer.state_sizes
    )
    given = state if len(state) > 1 else state[0]
    bptt = STRATEGIES[strategy]()
    with loop.reports() as reports:
        fed = x.swapaxes(0, 1) if layer.batch_first else x
        y, final = layer(fed, given, lengths=lengths, bptt=bptt, output=output)
    leaves = [x, *state, *layer.parameters()]
    return (
        derivatives([*flat(y), *flat(final)], leaves, 4, order),
        reports,
        (random_state(), bptt.rng and str(bptt.rng.bit_generator.state)),
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("lengths", [None, [9, 0, 4]])
def test_every_strategy_on_every_layer(name: str, strategy: str, lengths: Any) -> None:
    if strategy == "stride" and "bidirectional" in name:
        pytest.skip("blocks reach back in one direction only")
    for dtype, rtol in ((np.float64, 1e-10), (np.float32, 1e-5)):
        order = 2 if dtype is np.float64 else 1
        found, reports, random = run_layer(name, strategy, dtype, lengths, order)
        with tg.eager():
            wanted, _, after = run_layer(name, strategy, dtype, lengths, order)
        assert_close(found, wanted, rtol)
        assert random == after
        single = [r for r in reports if not r.traced]
        assert all(r.reason == "it is a single step" for r in single), single
        assert len(reports) > len(single)


@pytest.mark.parametrize("strategy", ["Full", "checkpoint", "Truncated", "stride"])
@pytest.mark.parametrize("name", ["LSTM", "dropout between layers"])
def test_layers_without_an_output(name: str, strategy: str) -> None:
    found, *_ = run_layer(name, strategy, np.float64, [4, 9, 9], 2, output=False)
    with tg.eager():
        wanted, *_ = run_layer(name, strategy, np.float64, [4, 9, 9], 2, output=False)
    assert_close(found, wanted, 1e-10)


# -- cells without @fuse, and derivatives against finite differences -------------------------------


class MinimalGatedUnit(tg.nn.Cell):
    """Two products in sequence."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.W = tg.nn.Linear(input_size, 2 * hidden_size, dtype=tg.float64, rng=1)
        self.U_f = tg.nn.Linear(hidden_size, hidden_size, bias=False, dtype=tg.float64, rng=2)
        self.U_n = tg.nn.Linear(hidden_size, hidden_size, bias=False, dtype=tg.float64, rng=3)

    def project(self, x: Any) -> Any:
        return self.W(x)

    def step(self, z: Any, h: Any) -> Any:
        z_f, z_n = z.split(2, axis=-1)
        f = tg.sigmoid(z_f + self.U_f(h))
        n = tg.tanh(z_n + self.U_n(f * h))
        return (1 - f) * h + f * n


class Diagonal(tg.nn.Cell):
    """No product: each unit sees itself."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.W = tg.nn.Linear(input_size, hidden_size, dtype=tg.float64, rng=1)
        self.u = tg.nn.Parameter(tg.tensor(np.linspace(-0.9, 0.9, hidden_size)))

    def project(self, x: Any) -> Any:
        return self.W(x)

    def step(self, z: Any, h: Any) -> Any:
        return tg.tanh(z + self.u * h)


class ThreeElements(tg.nn.Cell):
    """A state of three elements of different sizes, two of them read by products."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = (hidden_size, hidden_size + 1, hidden_size)
        self.W = tg.nn.Linear(input_size, hidden_size, dtype=tg.float64, rng=1)
        self.U = tg.nn.Linear(hidden_size + 1, hidden_size, dtype=tg.float64, rng=2)
        self.V = tg.nn.Linear(hidden_size, hidden_size + 1, dtype=tg.float64, rng=3)

    def project(self, x: Any) -> Any:
        return self.W(x)

    def step(self, z: Any, state: Any) -> Any:
        h, c, slow = state
        new = tg.tanh(z + self.U(c) + slow)
        c = tg.sigmoid(c) * c + tg.tanh(self.V(h))
        return new, c, 0.9 * slow + 0.1 * h


class NormalisedTwice(tg.nn.Cell):
    """Layer normalisation of the sum and of the new state."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.W = tg.nn.Linear(input_size, 2 * hidden_size, bias=False, dtype=tg.float64, rng=1)
        self.U = tg.nn.Linear(hidden_size, 2 * hidden_size, bias=False, dtype=tg.float64, rng=2)
        self.inner = tg.nn.LayerNorm(2 * hidden_size, dtype=tg.float64)
        self.outer = tg.nn.LayerNorm(hidden_size, dtype=tg.float64)

    def project(self, x: Any) -> Any:
        return self.W(x)

    def step(self, z: Any, h: Any) -> Any:
        f, n = tg.split(self.inner(z + self.U(h)), 2, axis=-1)
        f = tg.sigmoid(f)
        return self.outer(f * h + (1 - f) * tg.tanh(n))


USER_CELLS = [MinimalGatedUnit, Diagonal, ThreeElements, NormalisedTwice]
SMALL: dict[str, Any] = {
    "RNN": lambda: tg.nn.RNN(2, 2, dtype=tg.float64, rng=1),
    "GRU": lambda: tg.nn.GRU(2, 2, dtype=tg.float64, rng=1),
    "LSTM": lambda: tg.nn.LSTM(2, 2, dtype=tg.float64, rng=1),
    "LSTM with a projection": lambda: tg.nn.LSTM(2, 3, proj_size=2, dtype=tg.float64, rng=1),
    "two layers": lambda: tg.nn.GRU(2, 2, num_layers=2, dtype=tg.float64, rng=1),
    "bidirectional": lambda: tg.nn.RNN(2, 2, bidirectional=True, dtype=tg.float64, rng=1),
    **{cell.__name__: lambda cell=cell: tg.nn.Recurrent(cell, 2, 2) for cell in USER_CELLS},
}


# Order two takes several times as long for these as for all others together: in the profile
# `thorough` only. The Hessian-vector products below are those of every layer.
MANY_PARAMETERS = {"LSTM with a projection", "two layers", "bidirectional", "NormalisedTwice"}


def function_of(layer: Any, **options: Any) -> tuple[Any, list[Any]]:
    """A layer as a function of its input, state and parameters, and values for these."""
    places = [
        (module, name)
        for module in layer.cells.modules()
        for name, value in vars(module).get("_parameters", vars(module)).items()
        if isinstance(value, tg.nn.Parameter)
    ]
    rng = np.random.default_rng(5)
    shape = (len(layer.cells), 2)
    values = [rng.standard_normal((2, 2, 2))]
    values += [rng.standard_normal((*shape, size)) for size in layer.state_sizes]
    width = len(values)
    values += [getattr(module, name).numpy() + 0.1 for module, name in places]
    for module, name in places:
        delattr(module, name)

    def function(x: Any, *rest: Any) -> Any:
        for (module, name), value in zip(places, rest[width - 1 :], strict=True):
            setattr(module, name, value)
        state = rest[: width - 1]
        y, final = layer(x, state if width > 2 else state[0], **options)
        return [y, *flat(final)]

    assert places
    return function, values


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("lengths, order", [(None, 2), ([1, 2], 1)])
def test_gradcheck_to_order_two(name: str, lengths: Any, order: int) -> None:
    if name in MANY_PARAMETERS and settings.default.max_examples < 1000:
        order = 1
    function, values = function_of(SMALL[name](), lengths=lengths)
    with loop.reports() as reports:
        assert tg.gradcheck(function, values, order=order)
    assert all(report.traced for report in reports)


@pytest.mark.parametrize("name", SMALL)
def test_hessian_vector_products_are_those_of_the_loop_in_python(name: str) -> None:
    products = []
    for eager in (False, True):
        function, values = function_of(SMALL[name]())
        leaves = [tg.tensor(v, requires_grad=True) for v in values]
        rng = np.random.default_rng(6)
        with tg.eager() if eager else loop.reports() as reports:
            loss = loss_of(function(*leaves), 8)
            first = tg.grad(loss, leaves, create_graph=True)
            along = sum((g * tg.tensor(rng.standard_normal(g.shape))).sum() for g in first)
            products.append([g.numpy() for g in tg.grad(along, leaves)])
        assert eager or all(report.traced for report in reports)
    assert_close(*products, 1e-10)


@pytest.mark.parametrize("name", ["GRU", "LSTM", "NormalisedTwice"])
def test_third_derivatives_are_those_of_the_loop_in_python(name: str) -> None:
    found = []
    for eager in (False, True):
        function, values = function_of(SMALL[name]())
        leaves = [tg.tensor(v, requires_grad=True) for v in values]
        with tg.eager() if eager else loop.reports():
            value: Any = loss_of(function(*leaves), 8)
            for _ in range(2):
                grads = tg.grad(value, leaves, create_graph=True, allow_unused=True)
                value = sum(tg.sin(g).sum() for g in grads if g is not None)
            found.append([g.numpy() for g in tg.grad(value, leaves)])
    assert_close(*found, 1e-10)


@pytest.mark.parametrize("cell", USER_CELLS)
@pytest.mark.parametrize("strategy", ["Full", "checkpoint", "Truncated", "stride", "Randomized"])
def test_user_cells_with_every_strategy(cell: Any, strategy: str) -> None:
    found = []
    for eager in (False, True):
        layer = tg.nn.Recurrent(cell, 3, 4, num_layers=2)
        x = tg.tensor(np.random.default_rng(1).standard_normal((T, B, 3)), requires_grad=True)
        with tg.eager() if eager else loop.reports() as reports:
            y, final = layer(x, lengths=[5, 9, 2], bptt=STRATEGIES[strategy]())
            found.append(derivatives([y, *flat(final)], [x, *layer.parameters()], 3, 2))
        assert eager or any(report.traced for report in reports)
    assert_close(*found, 1e-10)


def test_the_bits_do_not_depend_on_earlier_calls() -> None:
    """The first call makes the plan, later ones reuse it; other calls come in between."""
    layer = tg.nn.LSTM(3, 4, rng=1)
    x = tg.randn(T, B, 3, rng=2)
    runs = []
    for _ in range(3):
        y, _ = layer(x)
        (gradient,) = tg.grad((y * y).sum(), [layer.weight_hh_l0])
        runs.append((y.numpy().copy(), gradient.numpy()))
        layer(tg.randn(5, 7, 3))
    for y, gradient in runs[1:]:
        np.testing.assert_array_equal(y, runs[0][0])
        np.testing.assert_array_equal(gradient, runs[0][1])


def test_a_loop_of_many_steps() -> None:
    for steps in (1, 2, 1000):
        found = []
        for eager in (False, True):
            layer = tg.nn.RNN(2, 3, dtype=tg.float64, rng=1)
            x = tg.tensor(np.random.default_rng(1).standard_normal((steps, 2, 2)))
            with tg.eager() if eager else loop.reports() as reports:
                y, h = layer(x)
                found.append(derivatives([y, h], list(layer.parameters()), 1, 2))
            assert eager or [r.traced for r in reports] == [steps > 1]
        assert_close(*found, 1e-10)
    assert math.isfinite(found[0][0].sum())


def test_plans_are_shared_by_steps_that_differ_in_an_unused_weight_only() -> None:
    """A weight that no result depends on has no gradient, frozen or not when the plan was made."""
    found = []
    for requires_grad in (False, True):
        unused = tg.tensor(np.ones(H), requires_grad=requires_grad)
        W = tg.tensor(0.3 * np.eye(H), requires_grad=True)
        fixed = tg.tensor(np.ones((2, H)))

        def step(h: Any, x: Any, unused: Any = unused, W: Any = W, fixed: Any = fixed) -> Any:
            tg.tanh(h * unused)
            return tg.logaddexp(tg.sin(h * fixed), x * W[0]), None

        h, _ = tg.scan(step, tg.ones(2, H, dtype=tg.float64), tg.tensor(np.ones((3, 2, H))))
        options: dict[str, Any] = {"create_graph": True, "allow_unused": True}
        leaves = [W, unused] if requires_grad else [W]
        grads = tg.grad((h * h).sum(), leaves, **options)
        found.append(grads[0].detach().numpy())
        assert len(grads) == 1 or grads[1] is None or not grads[1].numpy().any()
    np.testing.assert_allclose(*found)


@pytest.mark.parametrize("B", [1, 2])
def test_parts_of_a_product_of_the_input_that_are_outputs(B: int) -> None:
    """The product leaves the loop; both of its parts give it a gradient."""
    found = []
    for eager in (False, True):
        rng = np.random.default_rng(4)
        shapes = ((B, H), (4, B, H), (2 * H, H), (2 * H,))
        leaves = [tg.tensor(rng.standard_normal(s), requires_grad=True) for s in shapes]
        h, xs, V, b = leaves

        def step(h: Any, x: Any, V: Any = V, b: Any = b) -> Any:
            z = linear(x, V, b)
            return tg.tanh(h + z[..., :H]), z[..., H:]

        with tg.eager() if eager else tg.enable_grad():
            h, ys = tg.scan(step, h, xs)
        found.append(derivatives([h, ys], leaves, 5, 2))
    assert_close(*found, 1e-10)
