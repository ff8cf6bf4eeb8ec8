"""Functions as CUDA graphs: the numbers of separate operations, and no call repeats another."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cuda_on_host
import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, ExecutorWarning
from tinygrad_rnn.speed.cuda import cublas, module, step_graph

pytestmark = [
    pytest.mark.usefixtures("cuda_graphs"),
    pytest.mark.skipif(
        cuda_on_host.unavailable_because() is not None, reason="no C++ compiler for CUDA text"
    ),
]
T, B, V, H = 5, 3, 7, 4
LAYERS = {
    "rnn": lambda: tg.nn.RNN(V, H),
    "gru": lambda: tg.nn.GRU(V, H, num_layers=2, dropout=0.5),
    "lstm": lambda: tg.nn.LSTM(V, H, num_layers=2, dropout=0.3),
    "bidirectional": lambda: tg.nn.GRU(V, H, bidirectional=True),
}
OPTIMIZERS = {
    "sgd": lambda p: tg.optim.SGD(p, 0.1, momentum=0.9),
    "adam": lambda p: tg.optim.Adam(p, 0.01),
    "adamw": lambda p: tg.optim.AdamW(p, 0.01),
}


class Training:
    """A model, and a training step as a function."""

    def __init__(self, device: str, layer: str = "lstm", optimizer: str = "adam") -> None:
        tg.manual_seed(3)
        with tg.default_device(device):
            rows, rnn = tg.nn.Embedding(V, V), LAYERS[layer]()
            head = tg.nn.Linear(rnn.hidden_size * (1 + rnn.bidirectional), V)
            self.model = tg.nn.ModuleList([rows, rnn, head])
            self.parameters = [*self.model.parameters()]
            self.optimizer = OPTIMIZERS[optimizer](self.parameters)
        parameters, optimizing = self.parameters, self.optimizer

        def train(x: Any, y: Any, state: Any) -> Any:
            optimizing.zero_grad()
            output, state = rnn(rows(x), state)
            loss = tg.functional.cross_entropy(head(output), y)
            loss.backward()
            norm = tg.optim.clip_grad_norm(parameters, 1.0)
            optimizing.step()
            return loss, {"norm": norm, "state": state}

        self.train = train
        rng = np.random.default_rng(0)
        self.data = [
            [tg.tensor(rng.integers(0, V, (T, B)), device=device) for _ in "xy"] for _ in range(8)
        ]
        _, self.state = rnn(rows(self.data[0][0]))
        self.state = tg.bptt.detach(self.state)

    def run(self, step: Callable[..., Any], numbers: Any = range(8)) -> list[np.ndarray]:
        """Train, and return all results, gradients and parameters."""
        found = []
        for i in numbers:
            loss, rest = step(*self.data[i], self.state)
            self.state = tg.bptt.detach(rest["state"])
            found += [loss, rest["norm"], *map(tg.Tensor.detach, self.parameters)]
            found = [x.numpy() if isinstance(x, tg.Tensor) else x for x in found]
        return [*found, *(p.grad.numpy() for p in self.parameters)]


def same(one: Any, other: Any) -> None:
    assert len(one) == len(other)
    for x, y in zip(one, other, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_training_step_has_the_bits_of_separate_operations(
    accelerator: str, layer: str, optimizer: str
) -> None:
    """Losses, norms, gradients and parameters, with dropout; and the generator is as after them."""
    one, other = (Training(accelerator, layer, optimizer) for _ in range(2))
    step = tg.cuda.graph(other.train)
    for i in range(8):
        tg.manual_seed(i)
        wanted, after = one.run(one.train, [i]), tg.random.get_state()
        tg.manual_seed(i)
        same(other.run(step, [i]), wanted)
        assert str(tg.random.get_state()) == str(after)
        assert (step.reason == "") == (i >= 2)
        if i == 4:
            one.optimizer.lr = other.optimizer.lr = 0.02


class Counting:
    """A step that is no training: ``y = w x``, and a place to do something else."""

    def __init__(self, device: str) -> None:
        self.w = tg.tensor([2.0, 3.0], device=device, requires_grad=True)
        self.x = tg.tensor([1.0, -1.0], device=device)
        self.host = tg.tensor([1.0], requires_grad=True)
        self.factor, self.seen = 1.0, []

    def check(self, step: Callable[..., Any], calls: int = 5, factor: float = 1.0) -> None:
        for i in range(calls):
            y = step(self.x + i)
            expected = self.w.numpy() * (np.array([1.0, -1.0]) + i) * factor
            np.testing.assert_array_equal(y.numpy(), expected.astype(np.float32))


def test_the_graph_is_captured_again_when_something_is_another_object(accelerator: str) -> None:
    own = Counting(accelerator)
    step = tg.cuda.graph(lambda x: own.w * x * own.factor)
    own.check(step)
    assert step.reason == ""
    own.factor = 0.5
    own.check(step, factor=0.5)
    with tg.no_grad():
        own.w[0] = 7.0  # the array is the same
    own.check(step, factor=0.5)
    own.w.data = tg.tensor([4.0, 5.0], device=accelerator)
    own.check(step, factor=0.5)
    own.w = tg.tensor([1.0, 1.0], device=accelerator)
    own.check(step, factor=0.5)
    assert step.reason == ""


def test_training_mode_and_loaded_states_are_noticed(accelerator: str) -> None:
    one, other = (Training(accelerator) for _ in range(2))
    step = tg.cuda.graph(other.train)
    for i in range(4):
        tg.manual_seed(i)
        wanted = one.run(one.train, [i])
        tg.manual_seed(i)
        same(other.run(step, [i]), wanted)
    saved = one.model.state_dict(), one.optimizer.state_dict()
    other.run(step, [4, 5])
    for part in (one, other):
        part.model.load_state_dict(saved[0])
        part.optimizer.load_state_dict(saved[1])
        part.model.eval()  # no dropout
        part.state = tuple(map(tg.zeros_like, part.state))
    same(other.run(step), one.run(one.train))
    assert step.reason == ""


def test_results_have_their_own_memory_and_no_graph(accelerator: str) -> None:
    own = Counting(accelerator)
    step = tg.cuda.graph(lambda x: {"y": own.w * x, "rest": (own.w.T, None, 3)})
    results = [step(own.x * i) for i in range(6)]
    assert step.reason == ""
    for i, found in enumerate(results):
        np.testing.assert_array_equal(found["y"].numpy(), np.float32([2.0, -3.0]) * i)
        assert not found["y"].requires_grad and found["rest"][1:] == (None, 3)
    with tg.no_grad():
        results[5]["rest"][0][0] = 9.0  # a copy of the parameter
    assert own.w.numpy()[0] == 2.0


def test_a_graph_of_before_notices_that_parameters_were_written(accelerator: str) -> None:
    own = Training(accelerator)
    step = tg.cuda.graph(own.train)
    own.run(step, range(4))
    weight = own.parameters[0]
    y = (weight * weight).sum()
    own.run(step, [4])
    assert step.reason == ""
    with pytest.raises(tg.errors.GraphError):
        y.backward()


REFUSED: dict[str, tuple[str, Callable[[Counting, Any], Any]]] = {}


def refused(reason: str) -> Any:
    def add(function: Any) -> Any:
        REFUSED[function.__name__] = reason, function
        return function

    return add


@refused("it reads a value from the device")
def reads_a_value(own: Counting, x: Any) -> Any:
    y = own.w * x
    return y if float(y.sum()) < 1e9 else x


@refused("it copies an array of the host to the device")
def uploads(own: Counting, x: Any) -> Any:
    return own.w * x * tg.tensor(np.ones(2, np.float32), device=x.device)


@refused("it changes 'factor'")
def changes_an_attribute(own: Counting, x: Any) -> Any:
    own.factor += 1
    return own.w * x


@refused("it changes 'a list of 2 elements'")
def appends(own: Counting, x: Any) -> Any:
    own.seen.append(x)
    return own.w * x


@refused("it writes to an argument")
def writes_to_an_argument(own: Counting, x: Any) -> Any:
    y = own.w * x
    with tg.no_grad():
        x += 1
    return y


@refused("it adds to the gradients of earlier calls")
def accumulates(own: Counting, x: Any) -> Any:
    y = own.w * x
    y.sum().backward()
    return y


@refused("it returns a Tensor of the CPU")
def returns_a_tensor_of_the_cpu(own: Counting, x: Any) -> Any:
    return own.w * x, tg.tensor(own.factor)


@refused("it computes on the CPU")
def writes_on_the_cpu(own: Counting, x: Any) -> Any:
    with tg.no_grad():
        own.host += 1
    return own.w * x


@refused("it computes on the CPU")
def gradients_of_the_cpu(own: Counting, x: Any) -> Any:
    own.host.grad = None
    (own.host * 2).sum().backward()
    return own.w * x


@refused("it returns a set")
def returns_a_set(own: Counting, x: Any) -> Any:
    return own.w * x, {1}


@refused("sets a random generator to another state")
def seeds(own: Counting, x: Any) -> Any:
    tg.manual_seed(1)
    mask = tg.functional.dropout(x, 0.5)
    return own.w * x + 0 * mask


@pytest.mark.parametrize("name", REFUSED)
def test_a_function_that_a_graph_would_not_repeat_is_refused(accelerator: str, name: str) -> None:
    """It runs as it is, with one warning; the third call has done everything once."""
    (reason, function), own, other = REFUSED[name], Counting(accelerator), Counting(accelerator)
    step = tg.cuda.graph(lambda x: function(own, x))
    for i in range(5):
        tg.manual_seed(7)
        x, z = (tg.tensor([1.0 + i, -1.0], device=accelerator) for _ in range(2))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = step(x)
        wanted = function(other, z)
        state = tg.random.get_state()
        found, wanted = (y[0] if isinstance(y, tuple) else y for y in (found, wanted))
        same([found.numpy(), x.numpy()], [wanted.numpy(), z.numpy()])
        assert own.factor == other.factor and len(own.seen) == len(other.seen) == (
            i + 1 if function is appends else 0
        )
        if own.w.grad is not None:
            same([own.w.grad.numpy()], [other.w.grad.numpy()])
        assert str(tg.random.get_state()) == str(state)
        told = [w for w in caught if w.category is ExecutorWarning]
        assert len(told) == (i == 2)
        if told:
            assert reason in str(told[0].message) and told[0].filename == __file__
    assert reason in step.reason


@pytest.mark.parametrize("inside", [True, False])
def test_gradients_are_none_before_each_call(accelerator: str, inside: bool) -> None:
    """A graph that begins without gradients is not used where there are some."""
    one, other = Counting(accelerator), Counting(accelerator)

    def make(own: Counting) -> Any:
        def train(x: Any) -> Any:
            scale = 1.0 if own.w.grad is None else 2.0
            (own.w * x).sum().backward()
            found = own.w.grad * scale
            if inside:
                own.w.grad = None
            return found

        return train

    plain, step = make(one), tg.cuda.graph(make(other))
    reasons = []
    for i in range(9):
        for own in (one, other):
            if not inside:
                own.w.grad = None
            if i == 5:
                (own.w * 3).sum().backward()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExecutorWarning)
            same([step(other.x * i).numpy()], [plain(one.x * i).numpy()])
        assert (own.w.grad is None) == inside
        reasons.append(step.reason)
    assert reasons[2:5] == ["", "", ""] and reasons[5] == "there are gradients of earlier calls"
    assert "it adds to the gradients of earlier calls" in reasons[6]


def test_a_local_variable_of_the_function_around_is_noticed(accelerator: str) -> None:
    own, count = Counting(accelerator), 0

    @tg.cuda.graph
    def step(x: Any) -> Any:
        nonlocal count
        count += 1
        return own.w * x

    with pytest.warns(ExecutorWarning, match="it changes 'cell_contents'"):
        own.check(step)
    assert count == 5


def test_random_numbers_of_two_generators(accelerator: str) -> None:
    own = Counting(accelerator)
    generators = [np.random.Generator(np.random.Philox(3)) for _ in range(2)]

    def train(x: Any, rng: Any) -> Any:
        own.w.grad = None
        y = tg.functional.dropout(tg.tanh(x) * own.w, 0.5, rng=rng)
        y = tg.functional.dropout(y, 0.2) + tg.rand(2, device=x.device, rng=rng)
        y.sum().backward()
        return y, own.w.grad

    step = tg.cuda.graph(lambda x: train(x, generators[0]))
    for i in range(6):
        x = tg.tensor(np.full(2, i, np.float32), device=accelerator)
        tg.manual_seed(i)
        wanted = [y.numpy() for y in train(x, generators[1])]
        tg.manual_seed(i)
        same([y.numpy() for y in step(x)], wanted)
        assert str(generators[0].bit_generator.state) == str(generators[1].bit_generator.state)
    assert step.reason == ""


@pytest.mark.parametrize("draws", [True, False])
def test_a_generator_that_is_set_is_noticed(accelerator: str, draws: bool) -> None:
    own, rng = Counting(accelerator), np.random.Generator(np.random.Philox(3))

    def function(x: Any) -> Any:
        if draws:
            x = x + 0 * tg.rand(2, device=x.device, rng=rng)
        rng.random()  # on the host
        return own.w * x

    with pytest.warns(ExecutorWarning, match="sets a random generator to another state"):
        own.check(tg.cuda.graph(function))


def test_a_generator_of_another_kind_is_refused(accelerator: str) -> None:
    own, rng = Counting(accelerator), np.random.default_rng(0)
    step = tg.cuda.graph(lambda x: own.w * x + 0 * tg.functional.dropout(x, 0.5, rng=rng))
    with pytest.warns(ExecutorWarning, match="it copies an array of the host"):
        own.check(step)


def test_arguments_of_other_shapes_orders_and_values(accelerator: str) -> None:
    def function(x: Any, scale: float = 1.0, *, more: Any = ()) -> Any:
        return x * scale + sum(more, start=x)

    step = tg.cuda.graph(function)
    base = tg.tensor(np.arange(24, dtype=np.float32).reshape(4, 6), device=accelerator)
    for _ in range(4):
        for x in (base, base.T, base[:, ::2], base[:1], base[0, 0], base[:0], base.astype(int)):
            for scale in (1.0, 2.0):
                found = step(x, scale, more=[x, x])
                np.testing.assert_array_equal(found.numpy(), x.numpy() * scale + 3 * x.numpy())
    assert step.reason == ""


def test_arguments_that_are_no_tensors_of_the_device(accelerator: str) -> None:
    own = Counting(accelerator)
    step = tg.cuda.graph(lambda x: own.w * x)
    for _ in range(4):
        step(tg.tensor([1.0, 2.0], device=accelerator))
        with tg.default_device(accelerator):
            many = tg.cuda.graph(lambda a: own.w * 2)
            many(np.ones(2))
            assert "an argument is a numpy.ndarray" in many.reason
    with pytest.raises(ArgumentError, match="requires a gradient: detach"):
        step(own.w)
    with pytest.raises(ArgumentError, match="a function is expected"):
        tg.cuda.graph(3)

    class Trainer:
        @tg.cuda.graph
        def step(self, x: Any) -> Any:
            return x

    with pytest.raises(ArgumentError, match=r"tg.cuda.graph\(trainer.step\)"):
        Trainer().step(own.x)


def test_a_step_without_arguments(accelerator: str) -> None:
    own, other = Training(accelerator), Training("cpu")
    step = tg.cuda.graph(lambda: own.train(*own.data[0], own.state))
    for _ in range(4):
        step()
    assert step.reason == ""
    elsewhere = tg.cuda.graph(lambda: other.train(*other.data[0], other.state))
    for _ in range(4):
        elsewhere()
    assert elsewhere.reason == "it computes on the CPU"


def test_on_the_cpu_the_function_is_called() -> None:
    w = tg.tensor([2.0], requires_grad=True)
    step = tg.cuda.graph(lambda x: (w * x, 1))
    for _ in range(4):
        y, one = step(tg.tensor([3.0]))
        assert y.numpy() == 6 and one == 1 and not y.requires_grad
    assert step.reason == "it computes on the CPU" and repr(step) == "<cuda.graph of <lambda>>"
    if not tg.cuda.is_available():
        assert not dict(module._report())  # of `show_config`


def test_a_graph_inside_of_a_graph_and_other_modes(accelerator: str) -> None:
    own = Counting(accelerator)
    inner = tg.cuda.graph(lambda x: own.w * x)
    outer = tg.cuda.graph(lambda x: inner(x) * 1.0)
    own.check(outer)
    assert outer.reason == "" and inner.reason == "it is part of a graph"
    with tg.eager():
        own.check(outer)
    assert "eager()" in outer.reason
    with tg.detect_anomaly():
        own.check(outer)
    assert "detect_anomaly()" in outer.reason
    module.use("kernels", "it is wished")
    own.check(outer)
    assert outer.reason == "it is wished"


def test_cuda_fails(accelerator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own, one = Training(accelerator, "rnn"), Training(accelerator, "rnn")
    step = tg.cuda.graph(own.train)

    multiply = cublas.CuBlas.multiply

    def fails(self: Any, *args: Any) -> bool:
        if self.workspace is not None:
            raise RuntimeError("cudaErrorUnknown")
        return multiply(self, *args)

    own.run(step, range(2))
    monkeypatch.setattr(cublas.CuBlas, "multiply", fails)
    with pytest.warns(ExecutorWarning, match="cudaErrorUnknown"):
        found = own.run(step, range(2, 8))
    same(found[-len(own.parameters) :], one.run(one.train)[-len(own.parameters) :])


def test_an_error_of_the_function_is_not_hidden(accelerator: str) -> None:
    step = tg.cuda.graph(lambda x: x @ x)
    for _ in range(4):
        with pytest.raises(tg.errors.ShapeError):
            step(tg.ones(2, 3, device=accelerator))


def test_few_graphs_are_kept_and_few_are_made(accelerator: str) -> None:
    made = []
    step = tg.cuda.graph(lambda x, n: x * n)
    x = tg.ones(2, device=accelerator)
    for _ in range(3):
        for n in range(20):
            made.append(step(x, n).numpy()[0])
    assert made == [*range(20)] * 3
    assert "change too often" in step.reason
    [kept] = step._graphs.values()
    assert len(kept.found) <= step_graph.KEPT


def test_threads_have_their_own_graphs(accelerator: str) -> None:
    import threading

    own = Counting(accelerator)
    step, problems = tg.cuda.graph(lambda x: own.w * x), []

    def work() -> None:
        try:
            own.check(step, calls=8)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
