"""The traced loop is never stale, has the step's side effects, and fails as the loop in Python.

A step is traced at each call of the loop. What has side effects is stopped before the first of them
and runs T times, in the loop in Python. So every test here compares with that loop.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import logging
import operator
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, GraphError, ShapeError
from tinygrad_rnn.functional import dropout
from tinygrad_rnn.recurrence import loop

T, B, H = 5, 2, 3
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def drawn(*shape: int, seed: int = 0, grad: bool = True) -> Any:
    rng = np.random.default_rng(seed)
    return tg.tensor(rng.standard_normal(shape), requires_grad=grad)


def outcome(step: Any, leaves: Any = (), h: Any = None, xs: Any = None, **options: Any) -> Any:
    """The results of one loop, the gradients of `leaves`, and whether it was traced."""
    h = drawn(B, H, seed=1) if h is None else h
    xs = drawn(T, B, H, seed=2) if xs is None else xs
    with loop.reports() as reports:
        state, ys = tg.scan(step, h, xs, **options)
    results = [state] if ys is None else [state, ys]
    loss = sum((y * y).sum() for y in results)
    grads = tg.grad(loss, [h, xs, *leaves], allow_unused=True) if loss.requires_grad else []
    arrays = [y.detach().numpy() for y in results]
    arrays += [np.zeros(()) if g is None else g.numpy() for g in grads]
    return arrays, reports[0]


def assert_equal(one: Any, other: Any) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert_allclose(*np.broadcast_arrays(a, b), **CLOSE)


# -- staleness: what changes between two calls -----------------------------------------------------

FACTOR = 0.5


class Plain(tg.nn.Cell):
    """A cell that reads weights, a number, a flag, a global and a dict."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.W = tg.nn.Parameter(drawn(hidden_size, input_size, seed=3))
        self.U = tg.nn.Parameter(drawn(hidden_size, hidden_size, seed=4))
        self.b = tg.nn.Parameter(drawn(hidden_size, seed=5))
        self.slope, self.relu, self.table = 0.7, False, {"scale": 1.1}
        self.function = tg.tanh

    def project(self, x: Any) -> Any:
        return x @ self.W.T

    def step(self, z: Any, h: Any) -> Any:
        z = self.table["scale"] * z + FACTOR * (h @ self.U.T) + self.b
        return tg.relu(z) if self.relu else self.function(self.slope * z)


class ComputedInStep(Plain):
    def step(self, z: Any, h: Any) -> Any:
        U = self.U * tg.sigmoid(self.b) + self.U.T
        return tg.tanh(z + h @ U.T)


class ComputedInProject(Plain):
    def project(self, x: Any) -> Any:
        self.V = self.U * tg.sigmoid(self.b)
        return super().project(x)

    def step(self, z: Any, h: Any) -> Any:
        return tg.tanh(z + h @ self.V.T)


def other_parameter() -> Any:
    return tg.nn.Parameter(drawn(H, H, seed=9))


def set_global(value: float) -> None:
    globals()["FACTOR"] = value


CHANGES: dict[str, Callable[[Any], Any]] = {
    "a weight is replaced": lambda cell: setattr(cell, "U", other_parameter()),
    "another weight is replaced": lambda cell: setattr(cell, "b", tg.nn.Parameter(drawn(H))),
    "a weight becomes a computed one": lambda cell: (
        delattr(cell, "U"),
        setattr(cell, "U", other_parameter() * 2.0),
    ),
    "a weight is tied": lambda cell: setattr(cell, "U", cell.W),
    "a weight is updated in place": lambda cell: cell.U.data.__imul__(0.5),
    "a number changes": lambda cell: setattr(cell, "slope", -0.3),
    "a number changes its type": lambda cell: setattr(cell, "slope", 1),
    "the sign of a zero": lambda cell: setattr(cell, "slope", -0.0),
    "a flag changes": lambda cell: setattr(cell, "relu", True),
    "an element of a dict changes": lambda cell: cell.table.update(scale=-2.0),
    "a number becomes a tensor": lambda cell: setattr(cell, "slope", drawn(H, seed=7)),
    "a function changes": lambda cell: setattr(cell, "function", tg.sin),
    "a global changes": lambda cell: set_global(-0.25),
    "a parameter is frozen": lambda cell: setattr(cell.U, "requires_grad", False),
    "all are frozen": lambda cell: cell.requires_grad_(False),
    "eval": lambda cell: cell.eval(),
}


def layer_outcome(layer: Any, x: Any, state: Any) -> list[Any]:
    y, last = layer(x, state)
    loss = (y * y).sum() + last.sum()
    leaves = [x, state, *(p for p in layer.parameters() if p.requires_grad)]
    grads = tg.grad(loss, leaves, allow_unused=True)
    return [y.detach().numpy(), *(0.0 if g is None else g.numpy() for g in grads)]


@pytest.mark.parametrize("kind", [Plain, ComputedInStep, ComputedInProject])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_between_two_calls(kind: Any, change: str, monkeypatch: Any) -> None:
    monkeypatch.setitem(globals(), "FACTOR", 0.5)
    x, state = drawn(T, B, H, seed=6), drawn(1, B, H, seed=8)
    found = []
    for eager in (False, True):
        set_global(0.5)
        layer = tg.nn.Recurrent(kind, H, H)
        with tg.eager() if eager else loop.reports() as reports:
            results = layer_outcome(layer, x, state)
            CHANGES[change](layer.cells[0])
            results += layer_outcome(layer, x, state)
            results += layer_outcome(layer, x, state)
        assert eager or all(r.traced for r in reports), reports
        found.append(results)
    assert_equal(*found)


def test_a_frozen_parameter_gets_no_gradient_and_a_thawed_one_does() -> None:
    layer = tg.nn.GRU(H, H, dtype=tg.float64, rng=1)
    x = drawn(T, B, H, grad=False)
    for frozen in (False, True, False):
        layer.zero_grad()
        layer.weight_hh_l0.requires_grad = not frozen
        layer(x)[0].sum().backward()
        assert (layer.weight_hh_l0.grad is None) == frozen
        assert layer.weight_ih_l0.grad is not None


def test_values_closed_over_are_read_at_each_call() -> None:
    found = []
    for eager in (False, True):
        scale, weights = 0.5, [drawn(H, H, seed=1)]

        def step(h: Any, x: Any) -> Any:
            return tg.tanh(scale * h @ weights[0] + x), None  # noqa: B023

        with tg.eager() if eager else tg.enable_grad():
            first = outcome(step)
            scale = -1.5
            second = outcome(step)
            weights[0] = drawn(H, H, seed=2)
            third = outcome(step)
        assert eager or all(report.traced for _, report in (first, second, third))
        results = first[0] + second[0] + third[0]
        found.append(results)
    assert_equal(*found)


# -- side effects: each happens T times, in the order of the loop ----------------------------------


def with_both(make: Callable[[], Any]) -> list[Any]:
    """What a step gives and leaves behind, with the traced loop and with the loop in Python.

    `make` returns a step and a function that returns what the step has changed.
    """
    found = []
    for eager in (False, True):
        tg.random.manual_seed(3)
        step, changed = make()
        arrays = []
        for _ in range(2):  # a plan may exist in the second call
            with tg.eager() if eager else tg.enable_grad():
                found_now, report = outcome(step)
            arrays += found_now
            assert eager or (not report.traced and report.reason), "the step was traced"
        found.append((arrays, changed(), str(tg.random.get_state())))
    (one, left, state), (other, wanted, after) = found
    assert_equal(one, other)
    assert left == wanted and state == after
    return left


def new_state(h: Any, x: Any) -> Any:
    return tg.tanh(0.9 * h + x)


def test_print(capsys: Any) -> None:
    def make() -> Any:
        def step(h: Any, x: Any) -> Any:
            h = new_state(h, x)
            print("a step")
            return h, None

        return step, lambda: capsys.readouterr().out

    assert with_both(make) == "a step\n" * 2 * T


def test_print_of_a_value(capsys: Any) -> None:
    def make() -> Any:
        def step(h: Any, x: Any) -> Any:
            print(h.shape, float(h.sum()))
            return new_state(h, x), None

        return step, lambda: capsys.readouterr().out

    assert with_both(make).count("\n") == 2 * T


class Counter:
    def __init__(self) -> None:
        self.count, self.seen = 0, []

    def __call__(self, h: Any, x: Any) -> Any:
        self.count += 1
        return new_state(h, x), None


class Appending(Counter):
    def __call__(self, h: Any, x: Any) -> Any:
        h = new_state(h, x)
        self.seen.append(float(h.sum()))
        return h, None


class Slots:
    __slots__ = ("last",)

    def __call__(self, h: Any, x: Any) -> Any:
        h = new_state(h, x)
        self.last = h
        return h, None


def test_an_attribute_that_counts() -> None:
    def make() -> Any:
        counter = Counter()
        return counter, lambda: counter.count

    assert with_both(make) == 2 * T


def test_a_list_that_is_appended_to() -> None:
    def make() -> Any:
        step = Appending()
        return step, lambda: step.seen

    assert len(with_both(make)) == 2 * T


def test_an_attribute_that_is_set_to_a_tensor() -> None:
    def make() -> Any:
        step = Slots()
        return step, lambda: step.last.detach().numpy().tolist()

    with_both(make)


STATEFUL: dict[str, Callable[[dict[str, Any]], Any]] = {}
WRITTEN = 0


def stateful(function: Any) -> Any:
    STATEFUL[function.__name__] = function
    return function


@stateful
def list_add(kept: Any) -> Any:
    kept["list"] = []

    def step(h: Any, x: Any) -> Any:
        a = kept["list"]
        a += [h.shape]
        return new_state(h, x), None

    return step


@stateful
def list_extend(kept: Any) -> Any:
    kept["list"] = []
    return lambda h, x: (new_state(h, x), kept["list"].extend([1]))


@stateful
def in_place_number(kept: Any) -> Any:
    kept["array"] = np.zeros(1)

    def step(h: Any, x: Any) -> Any:
        count = kept["array"]
        count += 1
        return new_state(h, x) * float(count[0]), None

    return step


@stateful
def out_of_numpy(kept: Any) -> Any:
    kept["array"] = np.zeros(1)

    def step(h: Any, x: Any) -> Any:
        np.add(kept["array"], 1, out=kept["array"])
        return new_state(h, x), None

    return step


@stateful
def copyto_of_numpy(kept: Any) -> Any:
    kept["array"] = np.zeros(1)

    def step(h: Any, x: Any) -> Any:
        np.copyto(kept["array"], kept["array"] + 1)
        return new_state(h, x), None

    return step


@stateful
def dict_element(kept: Any) -> Any:
    kept["count"] = 0

    def step(h: Any, x: Any) -> Any:
        kept["count"] += 1
        return new_state(h, x) * kept["count"], None

    return step


@stateful
def dict_method(kept: Any) -> Any:
    kept["count"] = 0

    def step(h: Any, x: Any) -> Any:
        kept.update(count=kept["count"] + 1)
        return new_state(h, x), None

    return step


@stateful
def dict_or(kept: Any) -> Any:
    kept["inner"] = {}

    def step(h: Any, x: Any) -> Any:
        inner = kept["inner"]
        inner |= {len(inner): 1}
        return new_state(h, x), None

    return step


@stateful
def set_default(kept: Any) -> Any:
    kept["counts"] = collections.defaultdict(list)
    return lambda h, x: (new_state(h, x) * (1 + len(kept["counts"][len(kept["counts"])])), None)


@stateful
def a_counter(kept: Any) -> Any:
    kept["counts"] = collections.Counter()
    return lambda h, x: (new_state(h, x), kept["counts"].update("a"))


@stateful
def a_deque(kept: Any) -> Any:
    kept["deque"] = collections.deque([1.0, 2.0, 3.0])

    def step(h: Any, x: Any) -> Any:
        kept["deque"].rotate(1)
        return new_state(h, x) * kept["deque"][0], None

    return step


@stateful
def next_of_an_iterator(kept: Any) -> Any:
    numbers = itertools.count()
    kept["last"] = lambda: next(numbers)
    return lambda h, x: (new_state(h, x) * (1 + next(numbers)), None)


@stateful
def for_of_an_iterator(kept: Any) -> Any:
    numbers = iter(range(100))
    kept["last"] = lambda: next(numbers)

    def step(h: Any, x: Any) -> Any:
        for number in numbers:
            return new_state(h, x) * (1 + number), None
        raise AssertionError

    return step


@stateful
def unpacked_iterator(kept: Any) -> Any:
    numbers = iter(range(100))
    kept["last"] = lambda: next(numbers)

    def step(h: Any, x: Any) -> Any:
        (number,) = itertools.islice(numbers, 1)
        return new_state(h, x) * (1 + number), None

    return step


@stateful
def zipped_iterator(kept: Any) -> Any:
    numbers = iter(range(100))
    kept["last"] = lambda: next(numbers)

    def step(h: Any, x: Any) -> Any:
        ((_, number),) = zip(range(1), numbers, strict=False)
        return new_state(h, x) * (1 + number), None

    return step


@stateful
def map_of_an_iterator(kept: Any) -> Any:
    numbers = iter(range(100))
    kept["last"] = lambda: next(numbers)
    return lambda h, x: (new_state(h, x) * (1 + min(map(abs, itertools.islice(numbers, 2)))), None)


@stateful
def a_generator(kept: Any) -> Any:
    def count() -> Any:
        number = 0
        while True:
            number += 1
            yield number

    numbers = count()
    kept["last"] = lambda: next(numbers)

    def step(h: Any, x: Any) -> Any:
        number = next(numbers)
        return new_state(h, x) * number, None

    return step


@stateful
def a_generator_in_for(kept: Any) -> Any:
    numbers = (i for i in range(100))
    kept["last"] = lambda: next(numbers)

    def step(h: Any, x: Any) -> Any:
        found = 0
        for number in numbers:
            found = number
            break
        return new_state(h, x) * (found + 1), None

    return step


@stateful
def membership_of_an_iterator(kept: Any) -> Any:
    numbers = iter(range(100))
    kept["last"] = lambda: list(numbers)
    return lambda h, x: (new_state(h, x) * (1.0 if 3 in numbers else 2.0), None)


@stateful
def sum_of_an_iterator(kept: Any) -> Any:
    numbers = iter(range(7))
    kept["last"] = lambda: list(numbers)
    return lambda h, x: (new_state(h, x) * (1 + sum(numbers)), None)


@stateful
def nonlocal_(kept: Any) -> Any:
    count = 0

    def step(h: Any, x: Any) -> Any:
        nonlocal count
        count += 1
        return new_state(h, x) * count, None

    kept["last"] = lambda: count
    return step


@stateful
def global_(kept: Any) -> Any:
    globals()["WRITTEN"] = 0

    def step(h: Any, x: Any) -> Any:
        global WRITTEN
        WRITTEN += 1
        return new_state(h, x) * WRITTEN, None

    kept["last"] = lambda: WRITTEN
    return step


@stateful
def setattr_(kept: Any) -> Any:
    holder = Counter()

    def step(h: Any, x: Any) -> Any:
        setattr(holder, "count", holder.count + 1)  # noqa: B010
        return new_state(h, x) * holder.count, None

    kept["last"] = lambda: holder.count
    return step


@stateful
def in_a_called_function(kept: Any) -> Any:
    holder = Counter()

    def bump() -> int:
        holder.count += 1
        return holder.count

    kept["last"] = lambda: holder.count
    return lambda h, x: (new_state(h, x) * bump(), None)


@stateful
def in_a_property(kept: Any) -> Any:
    class Bumped(Counter):
        @property
        def bumped(self) -> int:
            self.count += 1
            return self.count

    holder = Bumped()
    kept["last"] = lambda: holder.count
    return lambda h, x: (new_state(h, x) * holder.bumped, None)


@stateful
def in_getattr(kept: Any) -> Any:
    class Bumped(Counter):
        def __getattr__(self, name: str) -> int:
            self.seen.append(name)
            return len(self.seen)

    holder = Bumped()
    kept["last"] = lambda: holder.seen
    return lambda h, x: (new_state(h, x) * holder.bumped, None)


@stateful
def in_an_operator(kept: Any) -> Any:
    class Number(Counter):
        def __mul__(self, other: Any) -> Any:
            self.count += 1
            return other * self.count

    holder = Number()
    kept["last"] = lambda: holder.count
    return lambda h, x: (holder * new_state(h, x), None)


@stateful
def in_a_context(kept: Any) -> Any:
    class Context(Counter):
        def __enter__(self) -> None:
            self.count += 1

        def __exit__(self, *error: Any) -> None:
            self.count += 1

    holder = Context()

    def step(h: Any, x: Any) -> Any:
        with holder:
            return new_state(h, x), None

    kept["last"] = lambda: holder.count
    return step


@stateful
def in_a_default_that_changes(kept: Any) -> Any:
    def step(h: Any, x: Any, seen: Any = []) -> Any:  # noqa: B006
        seen.append(1)
        return new_state(h, x) * len(seen), None

    kept["last"] = lambda: step.__defaults__
    return step


@stateful
def in_a_replaced_dataclass(kept: Any) -> Any:
    @dataclasses.dataclass
    class Holder:
        count: int = 0

        def __post_init__(self) -> None:
            kept["count"] = kept.get("count", 0) + 1

    return lambda h, x: (new_state(h, x) * dataclasses.replace(Holder(), count=2).count, None)


@stateful
def an_array_element(kept: Any) -> Any:
    kept["array"] = np.zeros(1)

    def step(h: Any, x: Any) -> Any:
        kept["array"][0] += 1
        return new_state(h, x) * float(kept["array"][0]), None

    return step


@stateful
def a_tensor_in_place(kept: Any) -> Any:
    count = tg.zeros(1, dtype=tg.float64)
    kept["last"] = lambda: count.numpy().tolist()

    def step(h: Any, x: Any) -> Any:
        count.data[...] += 1
        return new_state(h, x) * float(count.data[0]), None

    return step


@stateful
def a_parameter_in_place(kept: Any) -> Any:
    count = tg.zeros(1, dtype=tg.float64)
    kept["last"] = lambda: count.numpy().tolist()

    def step(h: Any, x: Any) -> Any:
        with tg.no_grad():
            nonlocal_count = count
            nonlocal_count += 1.0
        return new_state(h, x), None

    return step


@stateful
def logging_(kept: Any) -> Any:
    kept["records"] = []
    handler = logging.Handler()
    handler.emit = lambda record: kept["records"].append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.Logger("scan")
    logger.addHandler(handler)

    def step(h: Any, x: Any) -> Any:
        logger.warning("a step")
        return new_state(h, x), None

    return step


@stateful
def a_branch_on_a_value(kept: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        return (new_state(h, x) if h.sum() > 0 else -h), None

    return step


@stateful
def a_branch_on_an_item(kept: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        return (new_state(h, x) if x[0, 0].item() > 0 else -h), None

    return step


@stateful
def a_loop_until_a_value(kept: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        for _ in range(4):
            if float(tg.abs(h).max()) < 0.5:
                break
            h = 0.7 * h
        return new_state(h, x), None

    return step


@stateful
def swallowed_errors(kept: Any) -> Any:
    kept["errors"] = []

    def step(h: Any, x: Any) -> Any:
        try:
            kept["errors"].append(1)
        except BaseException:
            return -h, None
        return new_state(h, x), None

    return step


@stateful
def swallowed_branch(kept: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        try:
            positive = bool(h.sum() > 0)
        except Exception:
            return -h, None
        return new_state(h, x) if positive else h, None

    return step


@stateful
def swallowed_numpy(kept: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        try:
            factor = float(np.tanh(h.detach().numpy()).mean())
        except Exception:
            factor = 7.0
        return new_state(h, x) * factor, None

    return step


@stateful
def finally_(kept: Any) -> Any:
    kept["count"] = 0

    def step(h: Any, x: Any) -> Any:
        try:
            return new_state(h, x) * float(h.sum()), None
        finally:
            kept["count"] += 1

    return step


@stateful
def swallowed_once(kept: Any) -> Any:
    kept["first"], kept["second"] = [], []

    def step(h: Any, x: Any) -> Any:
        try:
            kept["first"].append(1)
        except BaseException:
            pass
        kept["second"].append(1)
        return new_state(h, x) * len(kept["second"]), None

    return step


@stateful
def finally_append(kept: Any) -> Any:
    kept["first"], kept["second"] = [], []

    def step(h: Any, x: Any) -> Any:
        try:
            kept["first"].append(1)
        finally:
            kept["second"].append(1)
        return new_state(h, x), None

    return step


@stateful
def swallowed_call_then_append(kept: Any) -> Any:
    kept["count"], kept["second"] = 0, []

    def bump() -> None:
        kept["count"] += 1

    def step(h: Any, x: Any) -> Any:
        try:
            bump()
        except BaseException:
            pass
        kept["second"].append(1)
        return new_state(h, x), None

    return step


@stateful
def a_default_that_is_added_to(kept: Any) -> Any:
    def step(h: Any, x: Any, seen: Any = []) -> Any:  # noqa: B006
        seen += [1]
        return new_state(h, x) * len(seen), None

    kept["last"] = lambda: step.__defaults__
    return step


@stateful
def an_argument_that_is_added_to(kept: Any) -> Any:
    kept["list"] = []

    def grow(items: Any) -> int:
        items += [1]
        return len(items)

    return lambda h, x: (new_state(h, x) * grow(kept["list"]), None)


@stateful
def a_result_that_is_added_to(kept: Any) -> Any:
    kept["list"] = []

    def step(h: Any, x: Any) -> Any:
        items = kept.get("list")
        items += [1]
        return new_state(h, x) * len(items), None

    return step


@stateful
def an_array_that_is_added_to(kept: Any) -> Any:
    kept["array"] = np.zeros(1)

    def step(h: Any, x: Any) -> Any:
        count = np.asarray(kept["array"])
        count += 1
        return new_state(h, x) * float(count[0]), None

    return step


@stateful
def a_captured_name_that_is_added_to(kept: Any) -> Any:
    kept["list"] = []

    def step(h: Any, x: Any) -> Any:
        items = kept["list"]
        items += [1]
        return new_state(h, x) * (lambda: len(items))(), None

    return step


@stateful
def iadd_of_operator(kept: Any) -> Any:
    kept["list"] = []
    return lambda h, x: (new_state(h, x) * len(operator.iadd(kept["list"], [1])), None)


@stateful
def setitem_of_operator(kept: Any) -> Any:
    kept["count"] = 0
    return lambda h, x: (new_state(h, x), operator.setitem(kept, "count", kept["count"] + 1))


@stateful
def methodcaller(kept: Any) -> Any:
    kept["list"], append = [], operator.methodcaller("append", 1)
    return lambda h, x: (new_state(h, x), append(kept["list"]))


@stateful
def a_partial_call(kept: Any) -> Any:
    kept["list"] = []
    append = functools.partial(kept["list"].append, 1)
    return lambda h, x: (new_state(h, x), append())


@stateful
def map_of_a_method(kept: Any) -> Any:
    kept["list"] = []

    def step(h: Any, x: Any) -> Any:
        assert not any(map(kept["list"].append, [1]))
        return new_state(h, x) * len(kept["list"]), None

    return step


@stateful
def map_of_a_bound_method(kept: Any) -> Any:
    kept["list"] = []
    append = kept["list"].append

    def step(h: Any, x: Any) -> Any:
        assert not any(map(append, [1]))
        return new_state(h, x) * len(kept["list"]), None

    return step


@stateful
def setattr_of_object(kept: Any) -> Any:
    holder = Counter()
    kept["last"] = lambda: holder.count

    def step(h: Any, x: Any) -> Any:
        object.__setattr__(holder, "count", holder.count + 1)
        return new_state(h, x) * holder.count, None

    return step


@stateful
def a_descriptor(kept: Any) -> Any:
    holder = Slots()
    holder.last = 0
    kept["last"] = lambda: holder.last

    def step(h: Any, x: Any) -> Any:
        Slots.last.__set__(holder, holder.last + 1)
        return new_state(h, x) * holder.last, None

    return step


@stateful
def a_bound_descriptor(kept: Any) -> Any:
    holder = Slots()
    holder.last, assign = 0, Slots.last.__set__
    kept["last"] = lambda: holder.last

    def step(h: Any, x: Any) -> Any:
        assign(holder, holder.last + 1)
        return new_state(h, x) * holder.last, None

    return step


@stateful
def iadd_of_an_array(kept: Any) -> Any:
    kept["array"] = np.zeros(1)

    def step(h: Any, x: Any) -> Any:
        kept["array"].__iadd__(1)
        return new_state(h, x) * float(kept["array"][0]), None

    return step


@stateful
def a_step_of_an_optimizer(kept: Any) -> Any:
    weight = drawn(H, seed=5)
    weight.grad = tg.ones(H, dtype=tg.float64)
    optimizer = tg.optim.SGD([weight], lr=0.1)
    kept["last"] = lambda: weight.detach().numpy().tolist()
    return lambda h, x: (new_state(h, x), optimizer.step())


@stateful
def backward_of_a_weight(kept: Any) -> Any:
    weight = drawn(H, seed=5)
    kept["last"] = lambda: None if weight.grad is None else weight.grad.numpy().tolist()
    return lambda h, x: (new_state(h, x), (weight * weight).sum().backward())


@stateful
def load_state_dict(kept: Any) -> Any:
    layer = tg.nn.Linear(H, H, dtype=tg.float64, rng=1)
    kept["last"] = lambda: layer.weight.detach().numpy().tolist()

    def step(h: Any, x: Any) -> Any:
        layer.load_state_dict({name: p * 0.5 for name, p in layer.state_dict().items()})
        return new_state(h, x), None

    return step


@stateful
def a_tensor_in_place_under_no_grad(kept: Any) -> Any:
    count = tg.zeros(1, dtype=tg.float64)
    kept["last"] = lambda: count.numpy().tolist()

    def add(total: Any) -> None:
        with tg.no_grad():
            total += 1.0

    def step(h: Any, x: Any) -> Any:
        add(count)
        return new_state(h, x), None

    return step


@stateful
def the_state_of_the_librarys_generator(kept: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        h = dropout(new_state(h, x), 0.5)
        return h * (1 + len(str(tg.random.get_state())) % 7), None

    return step


@stateful
def the_mode_of_gradients(kept: Any) -> Any:
    return lambda h, x: (new_state(h, x) if tg.is_grad_enabled() else h, None)


@stateful
def whether_the_state_requires_grad(kept: Any) -> Any:
    return lambda h, x: (new_state(h, x) if h.requires_grad else h, None)


@stateful
def whether_the_state_is_a_leaf(kept: Any) -> Any:
    return lambda h, x: (new_state(h, x) if h.is_leaf else 0.5 * new_state(h, x), None)


@stateful
def rng_of_numpy(kept: Any) -> Any:
    rng = np.random.default_rng(1)
    kept["last"] = lambda: str(rng.bit_generator.state)
    return lambda h, x: (new_state(h, x) * rng.random(), None)


@stateful
def random_state_of_numpy(kept: Any) -> Any:
    rng = np.random.RandomState(1)
    kept["last"] = lambda: rng.uniform()
    return lambda h, x: (new_state(h, x) * rng.uniform(), None)


@stateful
def random_of_python(kept: Any) -> Any:
    rng = random.Random(1)
    kept["last"] = lambda: rng.random()
    return lambda h, x: (new_state(h, x) * rng.random() * rng.gauss(), None)


@stateful
def choice_of_python(kept: Any) -> Any:
    rng = random.Random(1)
    kept["last"] = lambda: rng.random()
    return lambda h, x: (new_state(h, x) * rng.choice([0.5, 2.0, 3.0]), None)


@stateful
def random_of_the_library(kept: Any) -> Any:
    return lambda h, x: (new_state(h, x) * tg.rand(H, dtype=tg.float64), None)


@stateful
def randn_of_a_generator(kept: Any) -> Any:
    rng = np.random.default_rng(1)
    kept["last"] = lambda: str(rng.bit_generator.state)
    return lambda h, x: (new_state(h, x) * tg.randn(H, dtype=tg.float64, rng=rng), None)


@stateful
def dropout_with_a_seed(kept: Any) -> Any:
    return lambda h, x: (dropout(new_state(h, x), 0.5, rng=3), None)


# Not seen where another tool traces the thread: a debugger, or one that measures coverage.
UNSEEN = frozenset(
    "swallowed_once finally_append swallowed_call_then_append a_result_that_is_added_to "
    "an_array_that_is_added_to".split()
)


@pytest.mark.parametrize("name", STATEFUL)
def test_a_side_effect_happens_at_each_step(name: str) -> None:
    if name in UNSEEN and sys.gettrace() is not None:
        pytest.skip("another tool traces this thread")

    def make() -> Any:
        kept: dict[str, Any] = {}
        step = STATEFUL[name](kept)

        def changed() -> str:
            last = kept.pop("last", lambda: None)()
            return f"{last} {kept}"

        return step, changed

    with_both(make)


def test_the_global_generators_of_numpy_and_python_are_drawn_from_at_each_step() -> None:
    before, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        for draw in (random.random, np.random.rand):

            def make(draw: Any = draw) -> Any:
                random.seed(5)
                np.random.seed(5)  # noqa: NPY002
                return lambda h, x: (new_state(h, x) * draw(), None), draw

            with_both(make)
    finally:
        random.setstate(before)
        np.random.set_state(legacy)  # noqa: NPY002


def test_the_clock_is_read_at_each_step() -> None:
    for read in (time.perf_counter, time.monotonic_ns, time.time):
        with loop.reports() as reports:
            _, ys = tg.scan(
                lambda h, x: (h + x, tg.full((1,), float(read()), dtype=tg.float64)),  # noqa: B023
                tg.zeros(1),
                tg.zeros(50, 1),
            )
        assert not reports[0].traced and reports[0].reason
        assert len(set(ys.numpy().ravel().tolist())) > 1


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"reverse": True}, {"lengths": [5, 2]}, {"lengths": [0, 3]}]
)
def test_dropout_in_a_step_draws_the_same_masks(given: bool, options: Any) -> None:
    """It is traced: the masks are drawn for all steps, in their order."""
    found = []
    for eager in (False, True):
        tg.random.manual_seed(4)
        rng = np.random.default_rng(1) if given else None

        def step(h: Any, x: Any, rng: Any = rng) -> Any:
            h = dropout(tg.tanh(h + dropout(x, 0.3)), 0.5, rng=rng)
            return h, dropout(h, 0.2, rng=rng)

        with tg.eager() if eager else loop.reports():
            arrays, report = outcome(step, **options)
            again, _ = outcome(step, **options)
        assert eager or report.traced, report
        state = str(tg.random.get_state()), rng and str(rng.bit_generator.state)
        found.append((arrays + again, state))
    assert_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


class Leaky(tg.nn.Cell):
    """A cell that keeps its last input gate as an attribute, and counts its steps."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size, self.steps = hidden_size, 0
        self.U = tg.nn.Linear(hidden_size, hidden_size, dtype=tg.float64, rng=1)

    def step(self, z: Any, h: Any) -> Any:
        self.gate = tg.sigmoid(z + self.U(h))
        self.steps += 1
        return self.gate * h + (1 - self.gate) * z


def test_attributes_that_a_cell_sets_in_its_step() -> None:
    found = []
    for eager in (False, True):
        layer = tg.nn.Recurrent(Leaky, H, H)
        x, state = drawn(T, B, H), drawn(1, B, H, seed=1)
        with tg.eager() if eager else loop.reports() as reports:
            results = layer_outcome(layer, x, state)
        cell = layer.cells[0]
        assert cell.steps == T
        assert eager or (not reports[0].traced and "assigns" in reports[0].reason)
        (of_x,) = tg.grad(layer(x, state)[0].sum() + cell.gate.sum(), [x])
        found.append([*results, cell.gate.detach().numpy(), of_x.numpy()])
    assert_equal(*found)


# -- errors ----------------------------------------------------------------------------------------


class OwnError(Exception):
    pass


def test_an_error_of_the_step_is_the_users_own_and_is_raised_once() -> None:
    calls = []

    def step(h: Any, x: Any) -> Any:
        h = tg.tanh(h + x)
        raise OwnError("mine")

    def counted(h: Any, x: Any) -> Any:
        calls.append(1)
        raise OwnError("mine")

    for function in (step, counted):
        with pytest.raises(OwnError, match=r"^mine$") as caught:
            tg.scan(function, tg.zeros(B, H), tg.zeros(T, B, H))
        assert caught.value.__cause__ is None and caught.value.__context__ is None
        last = traceback.extract_tb(caught.tb)[-1]
        assert last.filename == __file__ and "OwnError" in (last.line or "")
    assert len(calls) == 1


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "a shape": (lambda h, x: (h @ tg.zeros(4, 4), x), ShapeError, "matmul"),
    "broadcasting": (lambda h, x: (h + tg.zeros(7), x), ShapeError, "broadcast"),
    "a name": (lambda h, x: (h.nothing, x), AttributeError, "nothing"),
    "a key": (lambda h, x: ({}["missing"], x), KeyError, "missing"),
    "a division": (lambda h, x: (h / (1 // 0), x), ZeroDivisionError, "division"),
    "an assertion": (lambda h, x: (pytest.fail("asserted"), x), BaseException, "asserted"),
    "no pair": (lambda h, x: h, ArgumentError, "returns .state, y."),
    "another shape": (lambda h, x: (h[:1], x), ShapeError, "is needed"),
    "a number as y": (lambda h, x: (h, 1.0), ArgumentError, "a float in y"),
    "an array as the state": (lambda h, x: (np.zeros((B, H)), x), ArgumentError, "ndarray"),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_those_of_the_loop_in_python(name: str) -> None:
    step, kind, text = WRONG[name]
    messages = []
    for eager in (False, True):
        with tg.eager() if eager else loop.reports(), pytest.raises(kind, match=text) as caught:
            tg.scan(step, tg.zeros(B, H), tg.zeros(T, B, H))
        messages.append((type(caught.value), str(caught.value)))
    assert messages[0] == messages[1]


def test_an_error_in_a_later_step_only() -> None:
    limit = iter([0, 0, 1])

    def step(h: Any, x: Any) -> Any:
        if next(limit):
            raise OwnError("third")
        return h + x, None

    with pytest.raises(OwnError, match="third"):
        tg.scan(step, tg.zeros(B, H), tg.zeros(T, B, H))
    assert next(limit, "empty") == "empty"


def test_keyboard_interrupt_and_exit_pass_through() -> None:
    for error in (KeyboardInterrupt, SystemExit, GeneratorExit):

        def step(h: Any, x: Any, error: Any = error) -> Any:
            raise error

        with pytest.raises(error):
            tg.scan(step, tg.zeros(B, H), tg.zeros(T, B, H))
        assert outcome(lambda h, x: (new_state(h, x), None))[1].traced  # nothing is left behind


# -- the graph -------------------------------------------------------------------------------------


def recurrent(W: Any) -> Any:
    return lambda h, x: ((h := tg.tanh(h @ W + x)), h * x)


def leaves() -> list[Any]:
    return [drawn(B, H, seed=1), drawn(T, B, H, seed=2), drawn(H, H, seed=3)]


def test_backward_a_second_time_raises() -> None:
    for eager in (False, True):
        h, xs, W = leaves()
        with tg.eager() if eager else loop.reports():
            state, ys = tg.scan(recurrent(W), h, xs)
        loss = state.sum() + ys.sum()
        loss.backward()
        with pytest.raises(GraphError, match="second time"):
            loss.backward()


def test_retain_graph() -> None:
    h, xs, W = leaves()
    state, ys = tg.scan(recurrent(W), h, xs)
    loss = (state * state).sum() + ys.sum()
    first = [g.numpy() for g in tg.grad(loss, [h, xs, W], retain_graph=True)]
    kept = [g.copy() for g in first]
    (only,) = tg.grad(ys.sum(), [W], retain_graph=True)
    assert only.shape == W.shape
    second = [g.numpy() for g in tg.grad(loss, [h, xs, W], create_graph=True)]
    third = [g.numpy() for g in tg.grad(loss, [h, xs, W])]
    assert_equal(first, kept)
    assert_equal(first, second)
    assert_equal(first, third)


CHANGED: dict[str, Callable[[Any, Any, Any], Any]] = {
    "the state": lambda h, xs, W: h,
    "the input": lambda h, xs, W: xs,
    "the weight": lambda h, xs, W: W,
}


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("what", CHANGED)
@pytest.mark.parametrize("kind", ["product", "elementwise", "sum"])
def test_a_write_between_forward_and_backward(kind: str, what: str, create_graph: bool) -> None:
    """It raises, or the gradients are those of the old values.

    The traced loop is stricter, as it keeps the input and computes the steps again for second
    derivatives. It has a copy of the state, which may be changed.
    """
    raised = []
    for eager in (False, True):
        h, xs, W = leaves()
        steps: dict[str, Any] = {
            "product": recurrent(W),
            "elementwise": lambda h, x: (h * W[0] * tg.sin(x), None),  # noqa: B023
            "sum": lambda h, x: (h + x + W[0], None),  # noqa: B023
        }
        with tg.eager() if eager else loop.reports():
            state, _ = tg.scan(steps[kind], h, xs)
        before = tg.grad(state.sum(), [h, xs, W], retain_graph=True)
        with tg.no_grad():
            changed = CHANGED[what](h, xs, W)
            changed += 1.0
        try:
            found = tg.grad(state.sum(), [h, xs, W], create_graph=create_graph)
        except GraphError:
            raised.append(True)
        else:
            raised.append(False)
            assert_equal([g.numpy() for g in found], [g.numpy() for g in before])
    traced, python = raised
    assert traced or not python or what == "the state"  # of which the traced loop has a copy


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_write_to_a_numpy_array_that_a_step_read(create_graph: bool) -> None:
    """The operations of a step copy it, as `tg.tensor` does."""
    found = []
    for eager in (False, True):
        (h, xs, _), factor = leaves(), np.ones(H)
        with tg.eager() if eager else loop.reports() as reports:
            state, _ = tg.scan(lambda h, x: (tg.sin(h * factor) + x * factor, None), h, xs)  # noqa: B023
        assert eager or reports[0].traced, reports
        factor *= 0.0
        found.append(tg.grad(state.sum(), [h, xs], create_graph=create_graph))
    assert_equal(*([g.detach().numpy() for g in grads] for grads in found))


def test_a_step_may_add_to_tensors() -> None:
    """What is added to is a new Tensor at each step, so it is no side effect."""

    def scaled(h: Any, count: float) -> Any:
        h *= 0.5
        count += 1.0
        return h * count

    def step(h: Any, x: Any) -> Any:
        z = scaled(h, 0.0)
        z += x
        total = tg.zeros(H, dtype=tg.float64)
        total += z
        return tg.tanh(total), None

    found, report = outcome(step, h=2.0 * drawn(B, H, seed=1))
    assert report.traced, report
    with tg.eager():
        assert_equal(found, outcome(step, h=2.0 * drawn(B, H, seed=1))[0])


def test_no_grad_and_results_without_a_graph() -> None:
    h, xs, W = leaves()
    with tg.no_grad(), loop.reports() as reports:
        state, ys = tg.scan(recurrent(W), h, xs)
    assert reports[0].traced and not state.requires_grad and not ys.requires_grad
    with tg.no_grad(), tg.eager():
        wanted = tg.scan(recurrent(W), h, xs)
    assert_equal([state.numpy(), ys.numpy()], [y.numpy() for y in wanted])
    with tg.enable_grad():
        state, _ = tg.scan(recurrent(W.detach()), h.detach(), xs.detach())
    assert not state.requires_grad


def test_no_grad_in_a_step() -> None:
    def step(h: Any, x: Any) -> Any:
        with tg.no_grad():
            gate = tg.sigmoid(h + x)
        return gate * h + x, gate

    found = []
    for eager in (False, True):
        with tg.eager() if eager else loop.reports():
            found.append(outcome(step)[0])
    assert_equal(*found)


def test_threads_do_not_share_anything() -> None:
    layer = tg.nn.LSTM(H, 4, dtype=tg.float64, rng=1)
    inputs = [drawn(T + i % 3, B, H, seed=i) for i in range(12)]

    def work(x: Any) -> list[Any]:
        y, _ = layer(x)
        return [y.detach().numpy(), tg.grad((y * y).sum(), [x])[0].numpy()]

    wanted = [work(x) for x in inputs]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, inputs * 3))
    for one, other in zip(found, wanted * 3, strict=True):
        assert_equal(one, other)


def test_a_backward_pass_in_another_thread() -> None:
    h, xs, W = leaves()
    state, _ = tg.scan(recurrent(W), h, xs)
    (wanted,) = tg.grad(state.sum(), [W], retain_graph=True)
    found = []
    thread = threading.Thread(target=lambda: found.append(tg.grad(state.sum(), [W])[0].numpy()))
    thread.start()
    thread.join()
    assert_array_equal(found[0], wanted.numpy())


def test_a_scan_inside_a_step() -> None:
    W = drawn(H, H, seed=3)

    def outer(h: Any, x: Any) -> Any:
        inner, _ = tg.scan(recurrent(W), h, tg.stack([x, 0.5 * x]))
        return inner, inner.sum(axis=-1)

    found = []
    for eager in (False, True):
        with tg.eager() if eager else loop.reports():
            found.append(outcome(outer, [W])[0])
    assert_equal(*found)


def test_a_layer_and_a_fused_function_inside_a_step() -> None:
    cell = tg.nn.GRUCell(H, H, dtype=tg.float64, rng=1)
    gate = tg.fuse(lambda x, y: tg.sigmoid(x) * y)

    def step(h: Any, x: Any) -> Any:
        h = cell(x, h)
        return h, gate(h, x)

    found = []
    for eager in (False, True):
        with tg.eager() if eager else loop.reports():
            found.append(outcome(step, list(cell.parameters()))[0])
    assert_equal(*found)


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_checkpoint(where: str) -> None:
    found = []
    for eager in (False, True):
        tg.random.manual_seed(2)
        h, xs, W = leaves()
        step = recurrent(W)

        def dropped(h: Any, x: Any, step: Any = step) -> Any:
            h, y = step(h, x)
            return dropout(h, 0.3), y

        with tg.eager() if eager else loop.reports():
            if where == "outside":
                state, ys = tg.checkpoint(lambda h, xs: tg.scan(dropped, h, xs), h, xs)
            else:
                state, ys = tg.scan(lambda h, x: tg.checkpoint(dropped, h, x), h, xs)
            grads = tg.grad((state * state).sum() + ys.sum(), [h, xs, W])
        found.append([state.detach().numpy(), *(g.numpy() for g in grads)])
        found[-1].append(np.array([float(tg.rand(1)[0])]))
    assert_equal(*found)


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"lengths": True}])
def test_results_survive_later_calls_and_writes_to_arguments(
    recorded: bool, batch: int, options: Any
) -> None:
    lengths = [T, *[2] * (batch - 1)] if options else None
    options = {**options, "lengths": lengths} if "lengths" in options else options
    h, xs, W = drawn(batch, H, grad=False), drawn(T, batch, H, grad=False), drawn(H, H)

    def step(h: Any, x: Any) -> Any:
        new = tg.tanh(h @ W + x)
        return new, (new, h, x, new * x)

    with tg.enable_grad() if recorded else tg.no_grad():
        state, ys = tg.scan(step, h, xs, **options)
        kept = [y.detach().numpy().copy() for y in (state, *ys)]
        for seed in range(3):
            other = drawn(batch, H, seed=seed), drawn(T, batch, H, seed=seed)
            tg.scan(step, *other, **options)
        h.data[...] = 7.0
        xs.data[...] = 7.0
    for y, wanted in zip((state, *ys), kept, strict=True):
        assert_array_equal(y.detach().numpy(), wanted)


@pytest.mark.parametrize("recorded", [True, False])
def test_results_do_not_alias_each_other_or_the_arguments(recorded: bool) -> None:
    """A state or an input that is passed on is another array than the caller's."""
    h, g, xs = (drawn(*s, grad=False) for s in ((B, H), (B, H), (T, B, H)))
    a = drawn(B, H, grad=False)

    def step(state: Any, x: Any) -> Any:
        first, second = state
        return (second, first), (first, x, a)

    with tg.enable_grad() if recorded else tg.no_grad():
        state, ys = tg.scan(step, (h, g), xs)
    before = [x.numpy().copy() for x in (h, g, xs, a)]
    arrays = [y._data for y in (*state, *ys)]
    for array in arrays:
        copies = [y.copy() for y in arrays]
        array[...] = 3.0
        for y, copy in zip(arrays, copies, strict=True):
            assert y is array or np.array_equal(y, copy)
    assert_equal([x.numpy() for x in (h, g, xs, a)], before)


def test_gradients_do_not_alias() -> None:
    h, xs, _ = leaves()
    state, _ = tg.scan(lambda h, x: (h + x, x), h, xs)
    of_state = tg.ones_like(state)
    found = tg.grad(state, [h, xs], grad_outputs=of_state, retain_graph=True)
    kept = [g.numpy().copy() for g in found]
    found[0].data[...] = 9.0
    of_state.data[...] = 9.0
    assert_array_equal(found[1].numpy(), kept[1])
    again = tg.grad(state, [h, xs], grad_outputs=tg.ones_like(state))
    assert_equal([g.numpy() for g in again], kept)


def test_a_step_that_writes_to_its_arguments() -> None:
    def step(h: Any, x: Any) -> Any:
        h += x
        x *= 2.0
        return h, x

    found = []
    for eager in (False, True):
        for recorded in (True, False):
            h, xs = drawn(B, H, grad=False), drawn(T, B, H, grad=False)
            before = h.numpy().copy(), xs.numpy().copy()
            with tg.eager() if eager else loop.reports(), tg.enable_grad():
                if recorded:
                    state, ys = tg.scan(step, h, xs)
                else:
                    with tg.no_grad():
                        state, ys = tg.scan(step, h, xs)
            assert_equal([h.numpy(), xs.numpy()], before)
            found.append([state.numpy(), ys.numpy()])
    for other in found[1:]:
        assert_equal(found[0], other)


# -- shapes and layouts ----------------------------------------------------------------------------


def layouts(x: np.ndarray) -> dict[str, np.ndarray]:
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]))
    wide[..., ::2] = x
    fixed = x.copy()
    fixed.flags.writeable = False
    return {
        "C": x.copy(),
        "Fortran": np.asfortranarray(x),
        "strided": wide[..., ::2],
        "reversed": x[::-1].copy()[::-1],
        "backwards": np.ascontiguousarray(x[..., ::-1])[..., ::-1],
        "read-only": fixed,
        "transposed": np.ascontiguousarray(x.swapaxes(0, -1)).swapaxes(0, -1),
        "time second": np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1),
    }


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", layouts(np.zeros((2, 2))))
def test_layouts_of_the_arguments(name: str, batch: int) -> None:
    rng = np.random.default_rng(1)
    values = [rng.standard_normal(s) for s in ((batch, H), (T, batch, H), (H, H), (H,))]
    found = []
    for eager in (False, True):
        arrays = [layouts(v)[name] if v.ndim > 1 else v for v in values]
        h, xs, W, b = (_shared(a) for a in arrays)
        assert eager or h.data.strides == arrays[0].strides or name == "read-only"

        def step(h: Any, x: Any, W: Any = W, b: Any = b) -> Any:
            h = tg.tanh(h @ W + x @ W.T + b)
            return h, h * x

        with tg.eager() if eager else loop.reports() as reports:
            state, ys = tg.scan(step, h, xs, reverse=batch == 4)
            loss = (state * state).sum() + (ys * ys).sum()
            grads = tg.grad(loss, [h, xs, W, b])
        assert eager or reports[0].traced, reports
        found.append([y.detach().numpy() for y in (state, ys, *grads)])
        assert_equal([x.detach().numpy() for x in (h, xs, W, b)], values)
    assert_equal(*found)


def _shared(array: np.ndarray) -> Any:
    """A leaf with this memory layout."""
    x = tg.tensor(np.zeros(array.shape), requires_grad=True)
    x._data = array
    return x


@pytest.mark.parametrize(
    "shapes",
    [
        ((), ()),
        ((H,), (H,)),
        ((B, H), (B, H)),
        ((B, 2, H), (B, 1, H)),
        ((B, H), ()),
        ((1, 1), (1, 1)),
    ],
)
def test_states_of_any_number_of_axes(shapes: Any) -> None:
    found = []
    for eager in (False, True):
        h, xs = drawn(*shapes[0], seed=1), drawn(T, *shapes[1], seed=2)

        def step(h: Any, x: Any) -> Any:
            h = tg.tanh(0.9 * h + x)
            return h, tg.sin(h)

        with tg.eager() if eager else tg.enable_grad():
            arrays, report = outcome(step, h=h, xs=xs)
        assert eager or report.traced, report
        found.append(arrays)
    assert_equal(*found)


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_lengths_of_the_loop(steps: int) -> None:
    found = []
    for eager in (False, True):
        W = tg.tensor(0.3 * np.eye(H), requires_grad=True)
        with tg.eager() if eager else tg.enable_grad():
            arrays, report = outcome(recurrent(W), [W], xs=drawn(steps, B, H, seed=2))
        assert eager or report.traced == (steps > 1)
        found.append(arrays)
    assert_equal(*found)


def test_empty_arrays_and_wrong_lengths() -> None:
    for shape in ((T, 0, H), (T, B, 0)):
        state, ys = tg.scan(lambda h, x: (h + x, x), tg.zeros(*shape[1:]), tg.zeros(*shape))
        assert state.shape == shape[1:] and ys.shape == shape
    with pytest.raises(ShapeError, match="no time step"):
        tg.scan(lambda h, x: (h, x), tg.zeros(B, H), tg.zeros(0, B, H))


def test_infinite_and_nan_values() -> None:
    """A cut edge stops nan; other rows of a batch are not affected by it.

    With the new state as y, or without y. (With another y a traced step before a cut multiplies
    the gradient 0 of its new state, which is nan where the derivative is infinite.)
    """
    for bad, outputs in itertools.product((np.nan, np.inf), (False, True)):
        found = []
        for eager in (False, True):
            h, xs = drawn(B, H, seed=1), drawn(T, B, H, seed=2)
            xs.data[1, 0] = bad
            with tg.eager() if eager else loop.reports(), np.errstate(all="ignore"):
                arrays, _ = outcome(
                    lambda h, x: ((new := tg.sin(h) * x), new if outputs else None),  # noqa: B023
                    h=h,
                    xs=xs,
                    edges=[1.0, 1.0, 1.0, 0.0, 1.0],
                )
            found.append(arrays)
        for a, b in zip(*found, strict=True):
            assert_allclose(a, b, **CLOSE, equal_nan=True)


# -- reasons ---------------------------------------------------------------------------------------


def branches(h: Any, x: Any) -> Any:
    return (h if h.sum() > 0 else h + x), None


def reads(h: Any, x: Any) -> Any:
    return h + tg.tensor(np.exp(x.numpy())), None


def prints(h: Any, x: Any) -> Any:
    return (h + x, None) if f"{x}" else None


def converts(h: Any, x: Any) -> Any:
    return h + tg.tensor(np.array(x)), None


def joins(h: Any, x: Any) -> Any:
    return tg.concatenate([h, x])[1:3], None


def joins_by_numpy(h: Any, x: Any) -> Any:
    return np.concatenate([h, x])[1:3], None


def draws(h: Any, x: Any) -> Any:
    return h + tg.randn(B, H), None


def draws_from_a_seed(h: Any, x: Any) -> Any:
    return tg.functional.dropout(h + x, 0.5, rng=0), None


def makes_a_layer(h: Any, x: Any) -> Any:
    return tg.nn.Dropout(0.2)(h + x), None


REASONS = [
    (branches, "reads a value"),
    (reads, "reads the values of an array"),
    (prints, "reads the values of an array"),
    (converts, "converted to an array"),
    (joins, "not traced"),
    (joins_by_numpy, "not traced"),
    (draws, "draws random numbers"),
    (draws_from_a_seed, "draws from a seed"),
    (makes_a_layer, "changes a module"),
]


@pytest.mark.parametrize(
    ("step", "reason"), REASONS, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_report_names_the_reason_and_the_line_of_the_step(step: Any, reason: str) -> None:
    """Not a line of the library or of Python's own, and no name of an internal function."""
    with loop.reports() as reports:
        tg.scan(step, tg.zeros(B, H), tg.zeros(T, B, H))
    (report,) = reports
    assert reason in report.reason
    assert (report.file, report.line) == (__file__, step.__code__.co_firstlineno + 1)


def test_a_report_names_the_mode_that_needs_each_operation() -> None:
    xs = tg.zeros(T, B, H)

    def add(h: Any, x: Any) -> Any:
        return h + x, None

    def nested(h: Any, x: Any) -> Any:
        return tg.scan(add, h, xs)[0] + x, None

    with loop.reports() as reports:
        with tg.detect_anomaly():
            tg.scan(add, tg.zeros(B, H), xs)
        with tg.eager():
            tg.scan(add, tg.zeros(B, H), xs)
        tg.scan(nested, tg.zeros(B, H), xs)
    anomaly, eager, inner, outer = map(str, reports)
    assert "detect_anomaly" in anomaly
    assert "eager()" in eager
    assert "the step of a loop that is traced" in inner and "one operation" in outer
