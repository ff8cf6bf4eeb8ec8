"""A trace that is kept serves for calls with the same facts only; see `kept_traces`.

Every test changes something between calls of a layer, and compares with the loop in Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import tinygrad_rnn as tg
from tinygrad_rnn.nn import cells
from tinygrad_rnn.recurrence import loop
from tinygrad_rnn.speed import kept_traces, step_facts

T, B, H = 4, 2, 3
FACTOR = 0.5


def drawn(*shape: int, seed: int = 0, grad: bool = True) -> Any:
    rng = np.random.default_rng(seed)
    return tg.tensor(rng.standard_normal(shape), requires_grad=grad)


class Simple(tg.nn.Cell):
    """A step whose facts can be listed."""

    scale = 1.25

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.W = tg.nn.Linear(input_size, 2 * hidden_size, dtype="float64")
        self.U = tg.nn.Linear(hidden_size, 2 * hidden_size, dtype="float64")
        self.norm = tg.nn.LayerNorm(hidden_size, dtype="float64")
        self.bias = tg.nn.Parameter(drawn(2 * hidden_size, seed=3))
        self.slope, self.function = 0.7, tg.tanh

    def project(self, x: Any) -> Any:
        return self.W(x)

    def step(self, z: Any, h: Any) -> Any:
        a, b = (z + self.U(h) + self.bias).split(2, axis=-1)
        return FACTOR * self.function(self.slope * a) * self.scale + tg.sigmoid(b) * self.norm(h)


def layer_of(kind: Any) -> Any:
    tg.manual_seed(0)
    options = {} if issubclass(kind, Simple) else {"dtype": tg.float64}
    return tg.nn.Recurrent(kind, H, H, **options)


def outcome(layer: Any, x: Any) -> list[Any]:
    y, last = layer(x)
    last = last if isinstance(last, tuple) else (last,)
    loss = (y * y).sum() + sum(s.sum() for s in last)
    leaves = [x, *(p for p in layer.parameters() if p.requires_grad)]
    grads = tg.grad(loss, leaves, allow_unused=True)
    return [y.detach().numpy(), *(0.0 if g is None else g.numpy() for g in grads)]


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_traces, "_kept", {})
    monkeypatch.setitem(globals(), "FACTOR", 0.5)


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list to which each trace adds its step."""
    found: list[Any] = []
    call = tg.speed.step_trace.StepTrace._call

    def counted(self: Any, step: Any, *args: Any) -> Any:
        found.append(step)
        return call(self, step, *args)

    monkeypatch.setattr(tg.speed.step_trace.StepTrace, "_call", counted)
    return found


class Computed(Simple):
    """A step that computes with weights alone: these operations are done again at each call."""

    def step(self, z: Any, h: Any) -> Any:
        b = (2.0 * self.bias).split(2, axis=-1)[0]
        return h * tg.sigmoid(b) + z.split(2, axis=-1)[0] + h @ (self.U.weight[:H].T * FACTOR)


KINDS = [cells.RNNCell, cells.GRUCell, cells.LSTMCell, Simple, Computed]


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_traced_once(kind: Any, traces: Any) -> None:
    layer, x = layer_of(kind), drawn(T, B, H)
    found = []
    for _ in range(3):
        found.append(outcome(layer, x))
        for p in layer.parameters():  # an update changes no fact
            p.data = 0.9 * p.numpy()
    assert len(traces) == 1
    assert not np.allclose(found[0][0], found[1][0])


def weight(cell: Any) -> str:
    return "bias" if isinstance(cell, Simple) else "weight_hh"


def replaced(cell: Any, make: Callable[[Any], Any]) -> None:
    name = weight(cell)
    old = getattr(cell, name)
    delattr(cell, name)
    setattr(cell, name, make(old))


def in_place_of(module: Any, name: str, value: Any) -> None:
    """Replace an attribute; it is then the last in the namespace."""
    delattr(module, name)
    setattr(module, name, value)


def half(z: Any, h: Any) -> Any:
    return 0.5 * h + z.sum(axis=-1, keepdims=True)


def own_step(cell: Any) -> Callable[..., Any]:
    step = cell.step

    def changed(z: Any, state: Any) -> Any:
        new = step(z, state)
        return tuple(-s for s in new) if isinstance(new, tuple) else -new

    return changed


CHANGES: dict[str, Callable[[Any, Any], Any]] = {
    "a weight is replaced": lambda cell, _: replaced(cell, lambda w: tg.nn.Parameter(-w)),
    "a weight is computed": lambda cell, _: replaced(cell, lambda w: w * 0.5),
    "a weight is a constant": lambda cell, _: replaced(cell, lambda w: (w * 0.5).detach()),
    "a weight is an array": lambda cell, _: replaced(cell, lambda w: 0.5 * w.numpy()),
    "a weight is frozen": lambda cell, _: setattr(
        getattr(cell, weight(cell)), "requires_grad", False
    ),
    "all are frozen": lambda cell, _: cell.requires_grad_(False),
    "a weight is updated": lambda cell, _: getattr(cell, weight(cell)).data.__imul__(0.5),
    "another step": lambda cell, _: object.__setattr__(cell, "step", own_step(cell)),
    "another step of the class": lambda cell, patch: patch.setattr(
        type(cell), "step", lambda self, z, state: tuple([half(z, s) for s in state])
        if isinstance(state, tuple) else half(z, state),
    ),
    "another operator": lambda cell, patch: patch.setattr(tg.Tensor, "__mul__", tg.add),
    "another class": lambda cell, _: object.__setattr__(
        cell, "__class__", type("Other", (type(cell),), {"step": type(cell).step})
    ),
}  # fmt: skip
OF_SIMPLE: dict[str, Callable[[Any, Any], Any]] = {
    "a number": lambda cell, _: setattr(cell, "slope", -0.3),
    "the type of a number": lambda cell, _: setattr(cell, "slope", 1),
    "a number becomes a Tensor": lambda cell, _: setattr(cell, "slope", drawn(H, seed=7)),
    "a number becomes a Tensor of one": lambda cell, _: setattr(cell, "slope", drawn(seed=7)),
    "a number of a layer": lambda cell, _: setattr(cell.norm, "eps", 0.5),
    "a weight of a layer": lambda cell, _: setattr(cell.U, "weight", tg.nn.Parameter(drawn(6, 3))),
    "a bias of a layer": lambda cell, _: setattr(cell.U, "bias", None),
    "another layer": lambda cell, _: setattr(cell, "U", tg.nn.Linear(H, 6, dtype="float64")),
    "a function": lambda cell, _: setattr(cell, "function", tg.sin),
    "a function of the user's": lambda cell, _: setattr(cell, "function", lambda x: x * x),
    "a number of the class": lambda cell, patch: patch.setattr(type(cell), "scale", 0.75),
    "a number in place of that of the class": lambda cell, _: setattr(cell, "scale", 0.75),
    "a global": lambda cell, patch: patch.setitem(globals(), "FACTOR", -0.25),
    "a name of the package": lambda cell, patch: patch.setattr(tg, "sigmoid", tg.tanh),
    "the forward of a layer": lambda cell, patch: patch.setattr(
        tg.nn.Linear, "forward", lambda self, x: x @ self.weight.T
    ),
    "the forward of one layer": lambda cell, _: object.__setattr__(
        cell.U, "forward", lambda x: x @ cell.U.weight.T
    ),
    "the order of a layer's attributes": lambda cell, _: in_place_of(
        cell.norm, "weight", tg.nn.Parameter(drawn(H, seed=5))
    ),
    "no weight of a layer": lambda cell, _: in_place_of(cell.norm, "weight", None),
    "two names of a weight": lambda cell, _: setattr(cell, "bias", cell.U.bias),
    "a property": lambda cell, patch: patch.setattr(
        type(cell), "slope", property(lambda self: 2.0), raising=False
    ),
}
OF_BUILT_IN: dict[str, Callable[[Any, Any], Any]] = {
    "a formula": lambda cell, patch: [
        patch.setattr(f, "function", lambda a, b, *more: (a * b)[..., :H])
        for f in (cells._tanh, cells._gru)
    ],
    "a function that a formula calls": lambda cell, patch: patch.setattr(
        cells.ops, "tanh", tg.sin
    ),
    "the other activation": lambda cell, _: setattr(cell, "nonlinearity", "relu"),
    "no bias": lambda cell, _: [delattr(cell, "bias_hh"), setattr(cell, "bias_hh", None)],
}  # fmt: skip
CASES = [(kind, name) for kind in KINDS for name in CHANGES]
CASES.remove((Simple, "another operator"))  # the layer norm of the loop in Python uses it too
CASES.remove((Computed, "a weight is an array"))  # has no method split
CASES += [(Simple, name) for name in OF_SIMPLE]
CASES += [(kind, name) for kind in KINDS[:2] for name in OF_BUILT_IN]


@pytest.mark.parametrize(("kind", "change"), CASES)
def test_a_change_is_seen(kind: Any, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    x = drawn(T, B, H)
    for eager in (False, True):
        layer = layer_of(kind)
        with pytest.MonkeyPatch.context() as patch:
            with tg.eager() if eager else tg.enable_grad():
                first = outcome(layer, x)
                outcome(layer, x)
                {**CHANGES, **OF_SIMPLE, **OF_BUILT_IN}[change](layer.cells[0], patch)
                found.append((first, outcome(layer, x), outcome(layer, x)))
    for one, other in zip(*found, strict=True):
        for a, b in zip(one, other, strict=True):
            assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_other_shapes_and_dtypes() -> None:
    for shape in ((T, B, H), (T, 1, H), (T + 1, B, H), (T, B, H)):
        for kind in KINDS:
            layer, found = layer_of(kind), []
            for eager in (False, True):
                with tg.eager() if eager else tg.enable_grad():
                    found.append(outcome(layer, drawn(*shape)))
            for a, b in zip(*found, strict=True):
                assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_a_layer_without_weight_is_not_one_without_bias() -> None:
    found: list[Any] = []
    for eager in (False, True):
        for name in ("bias", "weight"):
            layer = layer_of(Simple)
            norm = layer.cells[0].norm
            norm.weight.data, norm.bias.data = 2 + np.arange(H), -1.0 - np.arange(H)
            in_place_of(norm, name, None)
            with tg.eager() if eager else tg.enable_grad():
                found.append(layer(drawn(T, B, H))[0].numpy())
    assert_allclose(found[:2], found[2:], rtol=1e-9)
    assert not np.allclose(found[0], found[1])


# -- steps whose facts cannot be listed ------------------------------------------------------------


class Setting:
    """A descriptor: the class has the default, a cell its own value."""

    def __get__(self, cell: Any, kind: Any = None) -> float:
        return 1.0 if cell is None else cell.__dict__["slope"]


class Branch(Simple):
    def step(self, z: Any, h: Any) -> Any:
        if self.slope > 0:
            return h + z.split(2, axis=-1)[0]
        return h


class Loop(Simple):
    def step(self, z: Any, h: Any) -> Any:
        for part in z.split(2, axis=-1):
            h = h + part
        return h


class Closure(Simple):
    def step(self, z: Any, h: Any) -> Any:
        return (lambda a: a + h)(z.split(2, axis=-1)[0])


class Super(Simple):
    def step(self, z: Any, h: Any) -> Any:
        return super().step(z, h)


class Method(Simple):
    def part(self, z: Any) -> Any:
        return z.split(2, axis=-1)[0]

    def step(self, z: Any, h: Any) -> Any:
        return h + self.part(z)


class Default(Simple):
    def step(self, z: Any, h: Any, scale: float = 0.5) -> Any:
        return h + scale * z.split(2, axis=-1)[0]


class WholeCell(Simple):
    def step(self, z: Any, h: Any) -> Any:
        cell = self
        return cell.slope * h + z.split(2, axis=-1)[0]


class Builtin(Simple):
    def step(self, z: Any, h: Any) -> Any:
        return h * float(self.slope) + z.split(2, axis=-1)[0]


class OneComputed(Simple):
    def step(self, z: Any, h: Any) -> Any:
        return h * self.bias.sum() + z.split(2, axis=-1)[0]


class OneNumber(Simple):
    """The value of a Tensor of one element can decide on anything."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.slope = tg.tensor(0.5, dtype="float64")

    def step(self, z: Any, h: Any) -> Any:
        return h * self.slope + z.split(2, axis=-1)[0]


class Described(Simple):
    rate = Setting()

    def step(self, z: Any, h: Any) -> Any:
        return h * self.rate + z.split(2, axis=-1)[0]


class Values(Simple):
    def step(self, z: Any, h: Any) -> Any:
        return h * self.bias.numpy()[0] + z.split(2, axis=-1)[0]


@pytest.mark.parametrize(
    "kind",
    [
        Branch,
        Loop,
        Closure,
        Super,
        Method,
        Default,
        WholeCell,
        Builtin,
        OneComputed,
        OneNumber,
        Described,
        Values,
    ],
)
def test_other_steps_are_traced_at_each_call(kind: Any, traces: Any) -> None:
    layer = tg.nn.Recurrent(kind, H, H)
    with loop.reports() as reports:
        for _ in range(2):
            layer(drawn(T, B, H))
    assert len(traces) == 2, reports


def test_a_subclass_of_a_built_in_cell_is_traced_at_each_call(traces: Any) -> None:
    class Own(cells.GRUCell):
        def step(self, a: Any, h: Any) -> Any:
            return super().step(a, h) * 0.5

    layer = layer_of(Own)
    for _ in range(2):
        layer(drawn(T, B, H))
    assert len(traces) == 2


def test_a_trace_is_not_kept_if_a_fact_changes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = layer_of(Simple), drawn(T, B, H)
    cell = layer.cells[0]
    monkeypatch.setattr(
        tg.speed.scan, "keep", lambda *args: pytest.fail("a trace of other facts is kept")
    )
    traced = tg.speed.scan._traced

    def interrupted(*args: Any) -> Any:
        cell.slope = 0.9  # as another thread could
        return traced(*args)

    monkeypatch.setattr(tg.speed.scan, "_traced", interrupted)
    layer(x)


def test_the_number_of_traces_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_traces, "MANY", 3)
    layer = layer_of(cells.RNNCell)
    for batch in range(1, 7):
        layer(drawn(T, batch, H))
    assert len(kept_traces._kept) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_attributes_that_a_built_in_step_reads_are_all_declared(kind: Any) -> None:
    if issubclass(kind, Simple):
        assert step_facts.reads_of(kind.step.__code__) is not None
        return
    names = {n for n in kind.step.__code__.co_names if hasattr(layer_of(kind).cells[0], n)}
    assert names == set(kind._step_reads)


def test_instructions_for_two_local_variables() -> None:
    """Python 3.13 has them, 3.14 with other names."""
    of = step_facts._of_locals
    assert [*of("LOAD_FAST_LOAD_FAST", ("z", "self"))] == [
        ("LOAD_FAST", "z"),
        ("LOAD_FAST", "self"),
    ]
    assert [*of("LOAD_FAST_BORROW", "z")] == [("LOAD_FAST", "z")]
    assert [*of("LOAD_FAST_BORROW_LOAD_FAST_BORROW", ("a", "b"))] == [
        ("LOAD_FAST", "a"),
        ("LOAD_FAST", "b"),
    ]
    assert [*of("STORE_FAST_LOAD_FAST", ("a", "b"))] == [("STORE_FAST", "a"), ("LOAD_FAST", "b")]
    assert [*of("LOAD_FAST_AND_CLEAR", "a")] == [("LOAD_FAST_AND_CLEAR", "a")]
