"""What a function reads besides its arguments: a change outside is noticed, one inside refused."""

from __future__ import annotations

import argparse
import collections
import contextvars
import copy
import functools
import gc
import itertools
import queue
import random
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cuda_on_host
import tinygrad_rnn as tg
from tinygrad_rnn.errors import ExecutorWarning

pytestmark = [
    pytest.mark.usefixtures("cuda_graphs"),
    pytest.mark.skipif(
        cuda_on_host.unavailable_because() is not None, reason="no C++ compiler for CUDA text"
    ),
]
GLOBAL = 1.0
Made = tuple[Callable[..., Any], Callable[[int], Any]]  # a function, and what is done before call i
NOTICED: dict[str, Callable[[], Made]] = {}
REFUSED: dict[str, tuple[str, Callable[[str], Made]]] = {}


def noticed(make: Any) -> Any:
    NOTICED[make.__name__] = make
    return make


def refused(reason: str) -> Any:
    def add(make: Any) -> Any:
        REFUSED[make.__name__] = reason, make
        return make

    return add


def number(i: int) -> float:
    return 1.0 + i // 5


def in_attribute(place: Any) -> Made:
    place.k = 1.0
    return (lambda x: x * place.k), lambda i: setattr(place, "k", number(i))


def in_element(place: Any, key: Any) -> Made:
    return (lambda x: x * float(place[key])), lambda i: place.__setitem__(key, number(i))


class Slots:
    __slots__ = ("k",)


class Plain:
    k = 1.0

    @property
    def of_property(self) -> float:
        return GLOBAL

    @staticmethod
    def of_static() -> float:
        return GLOBAL

    @classmethod
    def of_class(cls) -> float:
        return GLOBAL


class Dict(dict):  # type: ignore[type-arg]
    pass


class Other(Plain):
    k = 2.0


for _name, _place in {
    "slots": Slots, "a_class": lambda: Plain, "a_namespace": types.SimpleNamespace,
    "arguments_of_a_program": argparse.Namespace, "a_subclass_of_dict": Dict,
    "of_a_thread": threading.local,
}.items():  # fmt: skip
    NOTICED[_name] = functools.partial(lambda place: in_attribute(place()), _place)
for _name, _made in {
    "a_deque": lambda: (collections.deque([1.0]), 0),
    "a_user_dict": lambda: (collections.UserDict(k=1.0), "k"),
    "an_array_of_the_host": lambda: (np.ones(3), 1), "a_number_of_numpy": lambda: (np.ones(()), ()),
    "an_ordered_dict": lambda: (collections.OrderedDict(k=1.0), "k"),
}.items():  # fmt: skip
    NOTICED[_name] = functools.partial(lambda made: in_element(*made()), _made)


@noticed
def the_bytes_of_the_host() -> Made:
    own = bytearray(b"1")
    return (lambda x: x * float(own[0])), lambda i: own.__setitem__(0, int(number(i)))


@noticed
def globals_of_methods() -> Made:
    own = Plain()

    def before(i: int) -> None:
        global GLOBAL
        GLOBAL = number(i)

    return (lambda x: x * own.of_property * own.of_static() * own.of_class()), before


@noticed
def the_class_of_an_object() -> Made:
    own = Plain()
    return (lambda x: x * own.k), lambda i: setattr(own, "__class__", Plain if i < 5 else Other)


@noticed
def an_attribute_that_hides_that_of_the_base() -> Made:
    class Base:
        k = 1.0

    class Below(Base):
        pass

    return (lambda x: x * Below().k), lambda i: setattr(Below, "k", 2.0) if i == 5 else None


@noticed
def a_tensor_of_the_host() -> Made:
    k = tg.tensor(1.0)
    return (lambda x: x * k.item()), lambda i: setattr(k, "data", np.float32(number(i)))


@noticed
def a_module_in_a_package() -> Made:
    package, inner = types.ModuleType("some_package"), types.ModuleType("some_package.inner")
    package.inner, inner.k = inner, 1.0  # type: ignore[attr-defined]
    scope: dict[str, Any] = {"some_package": package}
    exec("def function(x): return x * some_package.inner.k", scope)
    return scope["function"], lambda i: setattr(inner, "k", number(i))


@noticed
def a_module_that_the_function_imports() -> Made:
    inner = sys.modules["some_settings"] = types.ModuleType("some_settings")
    inner.k = 1.0  # type: ignore[attr-defined]

    def function(x: Any) -> Any:
        from some_settings import k  # type: ignore[import-not-found]

        return x * k

    return function, lambda i: setattr(sys.modules["some_settings"], "k", number(i))


@noticed
def the_object_of_a_weak_reference() -> Made:
    own = Plain()
    reference = weakref.ref(own)
    return (lambda x: x * reference().k), lambda i, own=own: setattr(own, "k", number(i))


@noticed
def the_object_of_a_proxy() -> Made:
    own, many = Plain(), Dict(k=1.0)
    proxy, other = weakref.proxy(own), weakref.proxy(many)

    def before(i: int, own: Any = own) -> None:
        own.k = many["k"] = number(i)

    return (lambda x: x * proxy.k * other["k"]), before


@noticed
def a_function_whose_results_are_kept() -> Made:
    own = {"k": 1.0}

    @functools.lru_cache
    def cached() -> float:
        return own["k"]

    return (lambda x: x * cached()), lambda i: (own.update(k=number(i)), cached.cache_clear())


@noticed
def a_context_variable() -> Made:
    k = contextvars.ContextVar("k", default=1.0)
    return (lambda x: x * k.get()), lambda i: k.set(number(i))


@noticed
def the_sign_of_zero() -> Made:
    own = Plain()
    return (lambda x: x * own.k), lambda i: setattr(own, "k", 0.0 if i < 5 else -0.0)


@noticed
def an_attribute_of_a_function() -> Made:
    def scale() -> float:
        return scale.k  # type: ignore[attr-defined,no-any-return]

    scale.k = 1.0  # type: ignore[attr-defined]
    return (lambda x: x * scale()), lambda i: setattr(scale, "k", number(i))


@noticed
def an_attribute_of_a_metaclass() -> Made:
    class Meta(type):
        k = 1.0

    class Own(metaclass=Meta):
        pass

    return (lambda x: x * Own.k), lambda i: setattr(Meta, "k", number(i))


@noticed
def the_order_of_a_dict() -> Made:
    own = {"a": 1.0, "b": 2.0}

    def before(i: int) -> None:
        if i == 5:
            own["a"] = own.pop("a")

    return (lambda x: x * next(iter(own.values()))), before


@noticed
def the_mode_of_a_module_in_this_thread() -> Made:
    layer, block = tg.nn.Dropout(0.5), []

    def before(i: int) -> None:
        if i == 5:
            block.append(layer.evaluating())
            block[0].__enter__()

    return layer, before


def check(device: str, make: Any, calls: int = 9, passes: Any = ()) -> Any:
    """Compare each call with that of a twin that is no graph; return the graphed function."""
    (function, of_one), (graphed, of_other) = make(*passes), make(*passes)
    step = tg.cuda.graph(graphed)
    for i in range(calls):
        found = []
        for call, before in ((function, of_one), (step, of_other)):
            tg.manual_seed(i)
            before(i)
            result = call(tg.tensor([1.0 + i, -1.0, 3.0], device=device))
            found.append((result.numpy().tobytes(), str(tg.random.get_state())))
        assert found[0] == found[1], f"call {i}: {step.reason}"
    return step


@pytest.mark.parametrize("name", NOTICED)
def test_another_value_is_noticed(accelerator: str, name: str) -> None:
    assert check(accelerator, NOTICED[name]).reason == ""


def nothing(i: int) -> None:
    """Change nothing before a call."""


@refused("it changes 'k'")
def sets_a_slot(device: str) -> Made:
    own = Slots()
    own.k = 0.0

    def function(x: Any) -> Any:
        own.k += 1
        return x * own.k

    return function, nothing


@refused("it changes 'k'")
def sets_an_attribute_of_a_class(device: str) -> Made:
    class Own:
        k = 0.0

    def function(x: Any) -> Any:
        Own.k += 1
        return x * Own.k

    return function, nothing


@refused("it changes 'a deque of 2 elements'")
def appends_to_a_deque(device: str) -> Made:
    own: Any = collections.deque()
    return (lambda x: (own.append(1), x * float(len(own)))[1]), nothing


@refused("it changes 'a set of 2 elements'")
def adds_to_a_set(device: str) -> Made:
    own: Any = set()
    return (lambda x: (own.add(len(own)), x * float(len(own)))[1]), nothing


@refused("it changes 'a defaultdict of 2 elements'")
def counts(device: str) -> Made:
    own: Any = collections.defaultdict(float)

    def function(x: Any) -> Any:
        own[len(own)] += 1
        own[0] += 1
        return x * own[0] * float(len(own))

    return function, nothing


@refused("it changes 'a list of 8 elements'")
def takes_from_a_list(device: str) -> Made:
    own = list(range(10))
    return (lambda x: x * float(own.pop(0) + len(own))), nothing


@refused("it changes '7'")
def writes_to_a_long_list(device: str) -> Made:
    own = [0.0] * 2000

    def function(x: Any) -> Any:
        own[7] += 1
        return x * own[7]

    return function, nothing


@refused("it changes 'an array of the CPU'")
def writes_to_an_array_of_the_host(device: str) -> Made:
    own = np.zeros(3)

    def function(x: Any) -> Any:
        own[1] += 1
        return x * float(own[1])

    return function, nothing


@refused("it takes the next element of an iterator")
def takes_from_a_generator(device: str) -> Made:
    own = (float(k) for _ in range(3) for k in range(20))
    return (lambda x: x * next(own)), nothing


@refused("it takes the next element of an iterator")
def takes_batches(device: str) -> Made:
    own = itertools.cycle([tg.tensor([k, 1.0, 2.0], device=device) for k in range(3)])
    return (lambda x: x * next(own)), nothing


@refused("it takes the next element of an iterator")
def counts_calls(device: str) -> Made:
    own = zip(itertools.count(), "abcdefghijklmnopqrst", strict=False)
    return (lambda x: x * float(next(own)[0])), nothing


@refused("draws random numbers on the host")
def draws_with_python(device: str) -> Made:
    own = random.Random(0)
    return (lambda x: x if own.random() < 0.5 else -x), nothing


@refused("draws random numbers on the host")
def draws_with_numpy(device: str) -> Made:
    own = np.random.RandomState(0)
    return (lambda x: x * own.rand()), nothing


@refused("sets a random generator to another state")
def draws_with_a_generator_of_numpy(device: str) -> Made:
    own = np.random.default_rng(0)
    return (lambda x: x * own.random()), nothing


@refused("it draws from a generator that it makes")
def draws_from_a_seed(device: str) -> Made:
    return (lambda x: tg.functional.dropout(x, 0.5, rng=3)), nothing


@refused("it sets requires_grad of an argument")
def differentiates_an_argument(device: str) -> Made:
    def function(x: Any) -> Any:
        x.requires_grad = True
        return tg.grad((x * x).sum(), x)

    return function, nothing


@refused("it changes 'count'")
def sets_the_rate(device: str) -> Made:
    w = tg.tensor([1.0, 2.0, 3.0], device=device, requires_grad=True)
    scheduler = tg.optim.schedule.Scheduler(tg.optim.SGD([w], 1.0), lambda t: 1 / (1 + t))

    def function(x: Any) -> Any:
        scheduler.optimizer.zero_grad()
        (w * x).sum().backward()
        scheduler.optimizer.step()
        scheduler.step()
        return w * 1

    return function, nothing


@refused("it handles an error that only a capture raises")
def handles_an_error(device: str) -> Made:
    def function(x: Any) -> Any:
        try:
            return x * float(x.sum())
        except Exception:
            return x

    return function, nothing


@refused("it handles an error that only a capture raises")
def handles_an_error_of_an_upload(device: str) -> Made:
    def function(x: Any) -> Any:
        try:
            return x * tg.tensor([1.0, 2.0, 3.0], device=device)
        except RuntimeError:
            return x

    return function, nothing


@refused("it changes 'unfinished_tasks'")
def puts_into_a_queue(device: str) -> Made:
    own: Any = queue.Queue()
    return (lambda x: (own.put(1), x * float(own.qsize()))[1]), nothing


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_graph_would_not_repeat_is_refused(accelerator: str, name: str) -> None:
    """There is one warning, and the third call has done everything once."""
    reason, make = REFUSED[name]
    with pytest.warns(ExecutorWarning, match=reason) as told:
        step = check(accelerator, make, passes=(accelerator,))
    assert len(told) == 1 and reason in step.reason


@pytest.mark.parametrize("view", [False, True])
def test_an_argument_that_the_function_writes_to_elsewhere(accelerator: str, view: bool) -> None:
    one, other = (tg.tensor([1.0, 2.0], device=accelerator) for _ in range(2))

    def make(w: Any) -> Any:
        def function(x: Any) -> Any:
            with tg.no_grad():
                w[...] = w + 1
            return x * 2

        return function

    step, plain = tg.cuda.graph(make(other)), make(one)
    for i in range(8):
        x, y = ((w[1:] if view else w.detach()) if i > 4 else w * 1 for w in (one, other))
        x, y = (z[:1].detach() for z in (x, y))
        assert step(y).numpy() == plain(x).numpy()
        assert (step.reason == "") == (2 <= i <= 4)
    assert step.reason == "it writes to the memory of an argument"


def test_an_argument_of_another_device(accelerator: str) -> None:
    step = tg.cuda.graph(lambda x, y: x * y.to(x.device))
    x = tg.ones(2, device=accelerator)
    for i in range(5):
        assert step(x, tg.tensor([i, i])).numpy()[1] == i
    assert step.reason == "an argument is on cpu, this thread computes on cuda:0"


def test_the_default_device_is_noticed(accelerator: str) -> None:
    step = tg.cuda.graph(lambda x: x * tg.ones(2).sum())
    x = tg.ones(2, device=accelerator)
    with tg.default_device(accelerator):
        for _ in range(4):
            step(x)
    with pytest.raises(tg.errors.DeviceError):
        step(x)


def test_generators_of_a_thread_restart_with_the_seed_of_the_main_thread(accelerator: str) -> None:
    def function(x: Any) -> Any:
        return tg.functional.dropout(x, 0.5)

    def work(call: Any, found: list[Any], barrier: threading.Barrier) -> None:
        for _ in range(8):
            barrier.wait()
            found.append(call(tg.ones(20, device=accelerator)).numpy().tobytes())
            barrier.wait()

    found: list[list[Any]] = [[], []]
    step = tg.cuda.graph(function)
    for call, numbers in zip((function, step), found, strict=True):
        tg.manual_seed(0)
        barrier = threading.Barrier(2, timeout=60)
        thread = threading.Thread(target=work, args=(call, numbers, barrier), name="a worker")
        thread.start()
        for i in range(8):
            if i == 5:
                tg.manual_seed(1)
            barrier.wait()
            barrier.wait()
        thread.join()
    assert found[0] == found[1]


def test_the_states_of_generators_can_be_recorded(accelerator: str) -> None:
    rng = np.random.Generator(np.random.Philox(3))
    step = tg.cuda.graph(lambda x: tg.functional.dropout(x, 0.5, rng=rng))
    x = tg.ones(20, device=accelerator)
    for _ in range(3):
        step(x)
    with tg.random.record_states() as states:
        first = step(x)
    with tg.random.replay(states):
        second = step(x)
    assert step.reason == "" and first.numpy().tobytes() == second.numpy().tobytes()


def test_an_object_with_the_graph_of_its_method_is_freed_and_copied(accelerator: str) -> None:
    class Trainer:
        def __init__(self) -> None:
            self.w = tg.tensor([2.0], device=accelerator)
            self.step = tg.cuda.graph(self.compute)

        def compute(self, x: Any) -> Any:
            return self.w * x

    own = Trainer()
    x = tg.ones(1, device=accelerator)
    for _ in range(4):
        own.step(x)
    assert own.step.reason == ""
    other = copy.deepcopy(own)
    with tg.no_grad():
        other.w[0] = 5.0
    for _ in range(4):
        assert other.step(x).numpy() == 5 and own.step(x).numpy() == 2
    assert other.step.reason == own.step.reason == ""
    freed = [weakref.ref(y) for y in (own, other)]
    del own, other
    gc.collect()
    assert [y() for y in freed] == [None, None]


def test_the_rate_is_set_between_calls(accelerator: str) -> None:
    """By a scheduler that the function reaches: the graph goes on."""

    class Trainer:
        def __init__(self) -> None:
            self.w = tg.tensor([1.0, 2.0], device=accelerator, requires_grad=True)
            self.optimizer = tg.optim.SGD([self.w], 1.0)
            self.scheduler = tg.optim.schedule.Scheduler(self.optimizer, lambda t: 1 / (1 + t))

        def compute(self, x: Any) -> Any:
            self.optimizer.zero_grad()
            (self.w * x).sum().backward()
            self.optimizer.step()
            return self.w * 1

    one, other = Trainer(), Trainer()
    step = tg.cuda.graph(other.compute)
    for i in range(8):
        x = tg.tensor([1.0, i], device=accelerator)
        assert one.compute(x).numpy().tobytes() == step(x).numpy().tobytes()
        assert (step.reason == "") == (i >= 2)
        one.scheduler.step()
        other.scheduler.step()


def test_memory_of_a_cache_is_kept(accelerator: str) -> None:
    @functools.lru_cache(maxsize=1)
    def mask(n: int) -> Any:
        return tg.ones(n, device=accelerator)

    step = tg.cuda.graph(lambda x: x * mask(x.size))
    for _ in range(3):
        step(tg.ones(3, device=accelerator))
    read = weakref.ref(mask(3))
    for n in (3, 2, 2, 2, 3):
        assert step(tg.ones(n, device=accelerator)).numpy().tolist() == [1.0] * n
    assert step.reason == "" and read() is not None


def test_a_value_that_changes_at_each_call_is_named(accelerator: str) -> None:
    own = Plain()
    step = tg.cuda.graph(lambda x: x * own.k)
    for i in range(8):
        own.k = float(i)
        step(tg.ones(1, device=accelerator))
    assert step.reason == "'k' has changed"


def test_an_iterator_is_not_advanced_twice(accelerator: str) -> None:
    own = iter(range(20))
    step = tg.cuda.graph(lambda x: x * float(next(own)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExecutorWarning)
        for _ in range(6):
            step(tg.ones(1, device=accelerator))
    assert next(own) == 6
