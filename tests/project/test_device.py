"""The library on a device: everything gives there what it gives on the CPU.

The device is a GPU's stand-in (strict_device.py), which refuses what a GPU refuses, or, with
``-m gpu``, a GPU. What is compared was computed on the CPU in the same test.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strict_device
import tinygrad_rnn as tg
from op_table import ROWS, Row
from tinygrad_rnn.engine import backend
from tinygrad_rnn.engine.ops import kernels
from tinygrad_rnn.errors import DeviceError, DTypeError, GraphError

# -- tools -----------------------------------------------------------------------------------------


def assert_same(found: Any, expected: Any, device: str, rtol: float = 1e-9) -> None:
    """Assert that tensors in any structure are on the device and equal those of the CPU."""
    if isinstance(expected, tuple | list):
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert_same(ours, theirs, device, rtol)
    elif expected is None:
        assert found is None
    else:
        assert found.device.startswith(device)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=rtol, atol=rtol)


def placed(value: Any, device: str, wrap: Callable[..., Any] = tg.tensor) -> Any:
    """Return arrays in any structure as tensors on a device."""
    if isinstance(value, np.ndarray):
        return wrap(value, device=device)
    if isinstance(value, tuple | list):
        return type(value)(placed(element, device, wrap) for element in value)
    return value


def raw(array: np.ndarray, device: str) -> Any:
    return backend.to_device(array, device)


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def grads_of(module: tg.nn.Module) -> list[Any]:
    return [p.grad for p in module.parameters()]


# -- the stand-in is no kinder than CuPy -----------------------------------------------------------


@pytest.fixture
def x(accelerator: str) -> Any:
    return raw(np.arange(6.0, dtype=np.float32).reshape(2, 3), accelerator)


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda x: np.asarray(x),
        lambda x: np.array(x),
        lambda x: np.ones((2, 3), np.float32) + x,
        lambda x: x + np.ones((2, 3), np.float32),
        lambda x: x * np.ones(()),
        lambda x: np.add(x, np.ones((2, 3), np.float32)),
        lambda x: backend.module_of(x).maximum(x, np.ones((2, 3), np.float32)),
        lambda x: backend.module_of(x).concatenate([x, np.ones((2, 3), np.float32)]),
        lambda x: backend.module_of(x).sum([1, 2]),
        lambda x: backend.module_of(x).add(x, x, out=np.ones((2, 3), np.float32)),
        lambda x: np.ones(2)[x],
        lambda x: memoryview(x),
        lambda x: x.__imatmul__(x),
    ],
)
def test_cupy_refuses_it_and_so_does_the_stand_in(x: Any, forbidden: Any) -> None:
    # DeprecationWarning: NumPy's, before it calls __array__ again without the argument `copy`.
    refusals = TypeError, ValueError, AttributeError, IndexError, DeprecationWarning
    with pytest.raises(refusals):
        forbidden(x)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (lambda xp, x: xp.asarray(np.ones((2, 3, 4)).transpose(1, 0, 2)).strides, (64, 32, 8)),
        (lambda xp, x: xp.asarray(np.ones((2, 3, 4)).T).strides, (8, 32, 96)),
        (lambda xp, x: xp.asarray(x).transpose(1, 0).get().strides, (8, 4)),
        (lambda xp, x: x[xp.asarray(np.array([0, 5]))].get().tolist(), [[0, 1, 2], [3, 4, 5]]),
        (lambda xp, x: x[xp.asarray(np.array([-3]))].get().tolist(), [[3, 4, 5]]),
        (lambda xp, x: x[:, xp.asarray(np.array([4]))].get().tolist(), [[1], [4]]),
        (lambda xp, x: xp.concatenate([x, x], axis=0.5).shape, (4, 3)),
        (lambda xp, x: xp.concatenate([x] * 9).shape, (18, 3)),
    ],
)
def test_cupy_answers_unlike_numpy_and_so_does_the_stand_in(
    x: Any, expression: Any, expected: Any
) -> None:
    assert expression(backend.module_of(x), x) == expected


@pytest.mark.parametrize(
    ("expression", "shape", "dtype"),
    [
        (lambda x: x.sum() if hasattr(x, "sum") else backend.module_of(x).sum(x), (), "float32"),
        (lambda x: x[0, 0], (), "float32"),
        (lambda x: x * 2.0, (2, 3), "float32"),
        (lambda x: 1 / (1 + x), (2, 3), "float32"),
        (lambda x: x > 1, (2, 3), "bool"),
        (lambda x: (x > 1) * 1.0, (2, 3), "float64"),
        (lambda x: backend.module_of(x).where(x > 0, x, 0.0), (2, 3), "float32"),
        (lambda x: backend.module_of(x).arange(3), (3,), "int64"),
        (lambda x: backend.module_of(x).matmul(x, x.T), (2, 2), "float32"),
        (lambda x: x.astype("float64") ** 0.5, (2, 3), "float64"),
    ],
)
def test_both_give_arrays_of_the_same_shape_and_dtype(
    x: Any, expression: Any, shape: Any, dtype: str
) -> None:
    result = expression(x)
    assert type(result) is type(x)
    assert (result.shape, str(result.dtype)) == (shape, dtype)


def test_the_stand_in_offers_nothing_that_cupy_has_not() -> None:
    """No GPU is needed: CuPy can be imported without one."""
    cupy = pytest.importorskip("cupy")
    for name in strict_device.UFUNCS:
        assert callable(getattr(cupy, name))
    for name, arguments in strict_device.FUNCTIONS.items():
        if name == "einsum":  # CuPy takes any keyword there
            continue
        known = inspect.signature(getattr(cupy, name)).parameters
        assert set(arguments.split()) <= set(known), name
        positions = [p for p in known if p in arguments.split()]
        assert positions == arguments.split(), name
    public = {name for name in vars(strict_device.ndarray) if not name.startswith("_")}
    assert public <= set(dir(cupy.ndarray))
    for name in vars(strict_device.cupy):
        assert name.startswith("_") or hasattr(cupy, name)


class TestStricterThanCupy:
    """What CuPy would do while the host waits, or in silence, or undefined."""

    @pytest.fixture(autouse=True)
    def standing_in(self) -> Any:
        with strict_device.installed():
            yield

    @pytest.mark.parametrize(
        "hidden",
        [
            lambda a: float(a[0]),
            lambda a: int(a[0]),
            lambda a: bool(a[0]),
            lambda a: [1, 2, 3, 4][a[0]],
            lambda a: list(a),
            lambda a: 1.0 in a,
            lambda a: a[a > 1],
            lambda a: strict_device.cupy.sum(np.ones(3)),
            lambda a: np.sum(a),
            lambda a: np.exp(a),
            lambda a: a * np.float64(2),
            lambda a: a[np.array([0, 1])],
            lambda a: a[[0, 1]],
            lambda a: a.__setitem__(strict_device.cupy.asarray(np.array([0, 0])), 1.0),
            lambda a: strict_device.cupy.clip(a, min=0),
            lambda a: strict_device.cupy.nanmean(a),
            lambda a: a.tolist(),
        ],
    )
    def test_it_is_refused(self, hidden: Any) -> None:
        with pytest.raises((strict_device.StrictError, TypeError, AttributeError)):
            hidden(strict_device.cupy.asarray(np.arange(3)))

    def test_memory_that_was_not_written_to_shows(self) -> None:
        assert np.isnan(strict_device.cupy.empty(3).get()).all()

    def test_the_real_cupy_is_back_afterwards(self) -> None:
        import sys

        assert sys.modules["cupy"] is strict_device.cupy
        assert strict_device.ndarray not in backend.modules  # until the first use of a device
        tg.zeros(1, device="cuda")
        assert strict_device.ndarray in backend.modules


# -- operations ------------------------------------------------------------------------------------


def derivatives(row: Row, case: Any, device: str) -> list[Any]:
    """Return what a row gives, its gradient, and the gradient's gradient."""
    keywords = {name: placed(value, device) for name, value in case.keywords.items()}
    if row.name in ("F.getitem", "F.scatter"):  # primitives: their keys are arrays
        keywords = {name: placed(value, device, raw) for name, value in case.keywords.items()}
    if row.name == "F.to_device":
        keywords = {"device": device, "source": device}
    inputs = [tg.tensor(a, device=device, requires_grad=True) for a in case.arrays]
    outputs = listed(row.function(*inputs, **keywords))
    ends = [(out * out).sum() for out in outputs if out.requires_grad]
    if not ends:
        return [outputs]
    first = tg.grad(ends, inputs, create_graph=True, allow_unused=True)
    again = [(g * g).sum() for g in first if g is not None and g.requires_grad]
    return [
        outputs,
        list(first),
        list(tg.grad(again, inputs, allow_unused=True)) if again else [],
    ]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@settings(max_examples=12)
@given(data=st.data())
def test_operations_and_both_derivatives(accelerator: str, row: Row, data: Any) -> None:
    case = data.draw(row.cases)
    with np.errstate(all="ignore"):
        expected, found = (derivatives(row, case, device) for device in ("cpu", accelerator))
    assert_same(found, expected, accelerator)


def test_every_kind_of_index(accelerator: str) -> None:
    """Lists, NumPy's arrays, masks, integers on the device, all at once and repeated."""
    array = np.arange(24.0).reshape(2, 3, 4)

    def read(device: str) -> list[Any]:
        x = tg.tensor(array, device=device, requires_grad=True)
        one = tg.tensor(1, device=device)
        mask = x > 5
        parts = [x[0], x[one], x[[0, 0, 1]], x[:, np.array([2, 0])], x[mask], x[..., one, None]]
        parts += [x[mask[:, 0, 0]], x.take([1, 1], axis=2), x[:, [0, 1], [1, 1]], x[0, 1, 2]]
        return [*parts, tg.grad([(p * p).sum() for p in parts], x)]

    assert_same(read(accelerator), read("cpu"), accelerator)


def test_leaves_are_written_to_there_as_here(accelerator: str) -> None:
    start = np.linspace(-2, 2, 12).reshape(3, 4)

    def written(device: str) -> Any:
        p = tg.tensor(start, device=device, requires_grad=True)
        mask, rows = placed((start > 0.5, np.array([True, False, True])), device)
        with tg.no_grad():
            for update in (operator.iadd, operator.imul, operator.imod, operator.ifloordiv):
                update(p, 0.75)
            p[mask] = 5.0
            p[p == 5.0] -= 1
            p[rows, 1:] = placed(np.ones((2, 3), np.float32), device)
            p[[2, 0], [0, 3]] += 7
            p[np.array(True)] *= 2
            p[1] = [1, 2, 3, 4]  # a list, and an array of the CPU below, are moved there
            p[:, 0] = np.array([9.0, 8.0, 7.0])
            p -= p / 2
        return p

    assert_same(written(accelerator), written("cpu"), accelerator)


def test_scalars_in_every_place(accelerator: str) -> None:
    def compute(device: str) -> list[Any]:
        x = tg.tensor([[1.0, -2.0, 3.0]], dtype=tg.float32, device=device, requires_grad=True)
        n = tg.tensor([1, 2, 3], device=device)
        y = tg.where(x > 0, 1.0, 2) + tg.where(n == 2, x, 0.5) * n + (2 - x) ** 2 / (n + 1.5)
        z = tg.maximum(x, 0.5) + tg.minimum(2, x) + tg.clip(x, -1, None) + x**n + 2**x
        return [y, z, 2 > x, n != 3, tg.where(n > 1, 7, 8), *tg.grad((y * z).sum(), [x])]

    assert_same(compute(accelerator), compute("cpu"), accelerator, rtol=1e-6)


def test_moving_there_and_back_twice_differentiated(accelerator: str) -> None:
    x = tg.tensor([1.0, 2.0], dtype=tg.float64, requires_grad=True)
    there = x.to(accelerator)
    y = (there**3).to("cpu").sum()
    first = tg.grad(y, x, create_graph=True)
    second = tg.grad(first.sum(), x)
    assert (first.device, second.device) == ("cpu", "cpu")
    assert second.numpy().tolist() == [6.0, 12.0]


def test_constructors(accelerator: str) -> None:
    for make in (
        lambda **d: tg.zeros(2, 3, **d),
        lambda **d: tg.ones((2, 3), **d),
        lambda **d: tg.full((2,), 7.0, **d),
        lambda **d: tg.arange(1.0, 2.0, 0.25, **d),
        lambda **d: tg.eye(3, **d),
        lambda **d: tg.randn(3, rng=0, **d),
        lambda **d: tg.rand(3, rng=0, **d),
        lambda **d: tg.tensor([[1.0, 2.0]], **d),
    ):
        assert_same(make(device=accelerator), make(), accelerator)
        with tg.default_device(accelerator):
            assert_same(make(), make(device="cpu"), accelerator)
    there = tg.ones(2, device=accelerator)
    assert_same([tg.zeros_like(there), tg.tensor(there)], [tg.zeros(2), tg.ones(2)], accelerator)
    assert "cuda:0" in repr(there)


# -- networks --------------------------------------------------------------------------------------

IDS = np.array([[0, 2, 1], [2, 2, 0], [1, 0, 2], [0, 0, 1]])  # (T, B) = (4, 3)
X = np.random.default_rng(0).normal(size=(4, 3, 5))
LENGTHS = [4, 0, 2]
OPTIONS: Any = {"dtype": tg.float64, "rng": 0}


class MinimalGatedUnit(tg.nn.Cell):
    """A cell of a user's own."""

    def __init__(self, input_size: int, hidden_size: int, device: str | None = None) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.W = tg.nn.Linear(input_size, 2 * hidden_size, device=device, **OPTIONS)
        self.U = tg.nn.Linear(hidden_size, hidden_size, bias=False, device=device, **OPTIONS)

    def project(self, x: tg.Tensor) -> tg.Tensor:
        return self.W(x)

    def step(self, z: tg.Tensor, h: tg.Tensor) -> tg.Tensor:
        z_f, z_n = z.split(2, axis=-1)
        f = tg.sigmoid(z_f + self.U(h))
        return (1 - f) * h + f * tg.tanh(z_n + self.U(f * h))


LAYERS: dict[str, Callable[[str], tg.nn.Module]] = {
    "linear": lambda d: tg.nn.Linear(5, 2, device=d, **OPTIONS),
    "layer norm": lambda d: tg.nn.LayerNorm(5, dtype=tg.float64, device=d),
    "dropout": lambda d: tg.nn.Dropout(0.5, rng=0),
    "sequential": lambda d: tg.nn.Sequential(
        tg.nn.Linear(5, 4, device=d, **OPTIONS), tg.tanh, tg.nn.Linear(4, 2, device=d, **OPTIONS)
    ),
}
RECURRENT: dict[str, Callable[[str], tg.nn.Module]] = {
    "rnn": lambda d: tg.nn.RNN(5, 4, device=d, **OPTIONS),
    "relu": lambda d: tg.nn.RNN(5, 4, nonlinearity="relu", bias=False, device=d, **OPTIONS),
    "gru": lambda d: tg.nn.GRU(5, 4, num_layers=2, bidirectional=True, device=d, **OPTIONS),
    "lstm": lambda d: tg.nn.LSTM(5, 4, num_layers=2, bidirectional=True, device=d, **OPTIONS),
    "projected": lambda d: tg.nn.LSTM(5, 4, proj_size=2, device=d, **OPTIONS),
    "dropout": lambda d: tg.nn.GRU(5, 4, num_layers=2, dropout=0.5, device=d, **OPTIONS),
    "user's own": lambda d: tg.nn.Recurrent(MinimalGatedUnit, 5, 4, num_layers=2, device=d),
}


def run_layer(name: str, device: str) -> list[Any]:
    layer, x = LAYERS[name](device), tg.tensor(X, device=device, requires_grad=True)
    y = layer(x)
    (y * y).sum().backward()
    return [y, x.grad, *grads_of(layer)]


def run_recurrent(name: str, device: str, lengths: Any = None) -> list[Any]:
    tg.manual_seed(0)  # of the masks
    layer, x = RECURRENT[name](device), tg.tensor(X, device=device, requires_grad=True)
    _, state = layer(x, lengths=lengths)
    output, state = layer(x, tg.bptt.detach(state), lengths=lengths)
    (output * output).sum().backward()
    return [output, state, x.grad, *grads_of(layer)]


def run_embedding(device: str) -> list[Any]:
    table = tg.nn.Embedding(3, 5, device=device, **OPTIONS)
    ids = tg.tensor(IDS, device=device)
    (table(ids) ** 2).sum().backward()
    (table([2, 2]) ** 2).sum().backward()
    padded = tg.nn.Embedding(3, 5, padding_idx=1, device=device, **OPTIONS)
    (padded(ids) ** 2).sum().backward()
    (padded([1, 2]) ** 2).sum().backward()
    found = [table(ids), *grads_of(table), padded(ids), padded.weight, *grads_of(padded)]
    return [*found, tg.functional.one_hot(ids, 3)]


@pytest.mark.parametrize("name", LAYERS)
def test_layers(accelerator: str, name: str) -> None:
    assert_same(run_layer(name, accelerator), run_layer(name, "cpu"), accelerator)


@pytest.mark.parametrize("lengths", [None, LENGTHS, [4, 4, 4]], ids=["full", "ragged", "equal"])
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers(accelerator: str, name: str, lengths: Any) -> None:
    expected = run_recurrent(name, "cpu", lengths)
    assert_same(run_recurrent(name, accelerator, lengths), expected, accelerator)
    if lengths is not None:  # they may be on the device themselves
        there = tg.tensor(lengths, device=accelerator)
        assert_same(run_recurrent(name, accelerator, there), expected, accelerator)


@pytest.mark.parametrize("cell", [tg.nn.RNNCell, tg.nn.GRUCell, tg.nn.LSTMCell])
def test_cells(accelerator: str, cell: Any) -> None:
    def run(device: str) -> list[Any]:
        made = cell(5, 4, device=device, **OPTIONS)
        state = made(tg.tensor(X[0], device=device))
        state = made(tg.tensor(X[1], device=device), state)
        tg.concatenate(listed(state)).sum().backward()
        return [state, *grads_of(made)]

    assert_same(run(accelerator), run("cpu"), accelerator)


def test_embeddings_and_one_hots(accelerator: str) -> None:
    assert_same(run_embedding(accelerator), run_embedding("cpu"), accelerator)


def test_losses(accelerator: str) -> None:
    F = tg.functional
    logits, target = X[..., :3], np.where(IDS == 1, -1, IDS)

    def run(device: str) -> list[Any]:
        x, ids = tg.tensor(logits, device=device, requires_grad=True), tg.tensor(IDS, device=device)
        ignored = tg.tensor(target, device=device)
        losses = [
            F.cross_entropy(x, ids),
            F.cross_entropy(x, IDS, reduction="sum"),
            F.cross_entropy(x, ids, reduction="none", label_smoothing=0.1),
            F.cross_entropy(x, ignored, ignore_index=-1),
            F.cross_entropy(x.moveaxis(-1, 1), ids, axis=1),
            F.cross_entropy(x, ids, weight=[1.0, 0.5, 2.0]),
            F.cross_entropy(x, IDS, weight=tg.tensor([1.0, 0.5, 2.0], device=device)),
            F.cross_entropy(x, ignored, -1, "mean", -1, 0.1, np.array([1.0, 0.5, 2.0])),
            F.binary_cross_entropy_with_logits(x, x > 0, pos_weight=[1.0, 0.5, 2.0]),
            F.mse_loss(x, tg.zeros_like(x)),
            F.mse_loss(x, logits * 2, reduction="sum"),
            F.binary_cross_entropy_with_logits(x, x > 0),
            F.binary_cross_entropy_with_logits(x, (logits > 0).astype(int), reduction="none"),
            F.dropout(x, 0.5, rng=0),
            F.dropout(x, 1.0),
            F.layer_norm(x, 3),
        ]
        return [*losses, tg.grad([(loss**2).sum() for loss in losses], x)]

    assert_same(run(accelerator), run("cpu"), accelerator)
    loss = F.cross_entropy(tg.zeros(2, 4, device=accelerator), [0, 1])
    assert F.perplexity(loss) == pytest.approx(4)
    metric = tg.metrics.Perplexity()
    metric.update(loss, 2)
    metric.update(F.cross_entropy(tg.zeros(2, 4, device=accelerator), [0, 1], reduction="none"))
    assert (metric.count, metric.value) == (4, pytest.approx(4))
    x, ids = tg.tensor(logits, device=accelerator), tg.tensor(IDS, device=accelerator)
    accuracy, confusion = tg.metrics.Accuracy(), tg.metrics.Confusion(3)
    accuracy.update(x, ids)
    confusion.update(x, ids)
    assert accuracy.value == confusion.accuracy == (logits.argmax(-1) == IDS).mean()


def test_large_sums_and_norms(accelerator: str) -> None:
    values = np.random.default_rng(0).normal(size=(3, 20, 40))

    def run(device: str) -> list[Any]:
        x = tg.tensor(values, device=device, requires_grad=True)
        y = tg.functional.layer_norm(x, 40)
        terms = [y, x.sum(-1), x.mean((0, 1)), y.mean(-1, keepdims=True)]
        first = tg.grad((terms[0] ** 3).sum() + (terms[1] ** 2).sum(), x, create_graph=True)
        return [*terms, first, tg.grad((first**2).sum(), x)]

    assert_same(run(accelerator), run("cpu"), accelerator)


def test_language_models(accelerator: str) -> None:
    ids = np.array([1, 2, 0, 1, 1, 2, 1, 0, 2])

    def run(device: str) -> list[Any]:
        given = {"device": device} | OPTIONS
        models = [
            tg.models.NeuralLM(3, 4, 5, 6, direct=True, **given),
            tg.models.RecurrentLM(tg.nn.LSTMCell, 4, 5, embedding_dim=3, **given),
            tg.models.RecurrentLM(tg.nn.GRUCell, 4, 5, **given),
        ]
        figures: list[Any] = []
        for model in models:
            logits, _ = model(tg.tensor(ids[:8].reshape(4, 2), device=device))
            logits.sum().backward()
            scores = [model.score(ids, batch_size=2, steps=3), *model.losses(ids, [1, 1], steps=2)]
            figures += [logits, *grads_of(model), tg.tensor(scores, device=device)]
            figures.append(tg.tensor(model.sample([1], 5, rng=0), device=device))
        return figures

    assert_same(run(accelerator), run("cpu"), accelerator)


def test_initial_values(accelerator: str) -> None:
    init = tg.nn.init
    for draw in (init.uniform, init.normal, init.xavier_uniform, init.xavier_normal,
                 init.kaiming_uniform, init.kaiming_normal, init.orthogonal):  # fmt: skip
        made = [draw(tg.zeros(4, 3, device=d), rng=0) for d in ("cpu", accelerator)]
        assert_same(made[1], made[0], accelerator)
    assert_same(
        [
            init.zeros(tg.ones(2, device=accelerator)),
            init.constant(tg.ones(2, device=accelerator), 3),
        ],
        [tg.zeros(2), tg.full(2, 3.0)],
        accelerator,
    )


# -- learning --------------------------------------------------------------------------------------

RULES: dict[str, Callable[[Any], tg.optim.Optimizer]] = {
    "SGD": lambda p: tg.optim.SGD(p, lr=0.1, weight_decay=0.01),
    "momentum": lambda p: tg.optim.SGD(p, lr=0.1, momentum=0.9),
    "Nesterov": lambda p: tg.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: tg.optim.Adam(p, weight_decay=0.01),
    "AdamW": lambda p: tg.optim.AdamW(p),
    "RMSprop": lambda p: tg.optim.RMSprop(p, momentum=0.5, weight_decay=0.01),
    "Adagrad": lambda p: tg.optim.Adagrad(p),
}


def learned(name: str, device: str, resume: bool = False) -> tuple[list[Any], Any]:
    """Take six clipped steps under a schedule; return the parameters and the optimiser's state."""
    model = LAYERS["sequential"](device)
    rule = RULES[name](model.parameters())
    schedule = tg.optim.schedule
    scheduler = schedule.Scheduler(
        rule, schedule.compose(schedule.linear_warmup(3), schedule.cosine(9))
    )
    x = tg.tensor(X, device=device)
    for i in range(6):
        if resume and i == 3:  # on to another model, as after a restart
            saved = model.state_dict(), rule.state_dict(), scheduler.state_dict()
            model = LAYERS["sequential"](device)
            rule = RULES[name](model.parameters())
            scheduler = schedule.Scheduler(rule, scheduler.schedule)
            for part, state in zip((model, rule, scheduler), saved, strict=True):
                part.load_state_dict(state)
        rule.zero_grad()
        tg.functional.mse_loss(
            model(x), tg.zeros(4, 3, 2, dtype=tg.float64, device=device)
        ).backward()
        tg.optim.clip_grad_norm(model.parameters(), 0.5)
        tg.optim.clip_grad_value(model.parameters(), 0.4)
        rule.step()
        scheduler.step()
    return list(model.parameters()), rule.state_dict()


@pytest.mark.parametrize("name", RULES)
def test_learning(accelerator: str, name: str) -> None:
    expected, state = learned(name, "cpu")
    for resume in (False, True):
        found, there = learned(name, accelerator, resume)
        assert_same(found, expected, accelerator)
        assert there["hyperparameters"] == state["hyperparameters"]
        for ours, theirs in zip(there["slots"], state["slots"], strict=True):
            for slot in theirs:
                assert isinstance(ours[slot], np.ndarray)
                np.testing.assert_allclose(ours[slot], theirs[slot], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_groups(accelerator: str, name: str) -> None:
    def run(device: str) -> list[Any]:
        model = LAYERS["sequential"](device)
        params = list(model.parameters())
        optimizer = type(RULES[name](params))(
            [{"params": params[::2]}, {"params": params[1::2], "lr": 0.3, "weight_decay": 0.1}],
            lr=0.1,
        )
        plateau = tg.optim.schedule.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        for _ in range(3):
            optimizer.zero_grad()
            (model(tg.tensor(X, device=device)) ** 2).sum().backward()
            optimizer.step()
            plateau.step(1.0)
        assert [group["lr"] for group in optimizer.param_groups] == [0.025, 0.075]
        again = type(optimizer)([{"params": params[::2]}, {"params": params[1::2]}], lr=1.0)
        again.load_state_dict(optimizer.state_dict())
        again.step()
        return params

    assert_same(run(accelerator), run("cpu"), accelerator)


def test_a_scaler(accelerator: str) -> None:
    data = np.random.default_rng(0).normal(5.0, 3.0, (9, 2))
    here = tg.data.Scaler(2).fit(data)
    there = tg.data.Scaler(2).to(accelerator).fit(tg.tensor(data, device=accelerator))
    assert_same(
        [there(data), there.inverse(there(data))],
        [here(data), here.inverse(here(data))],
        accelerator,
        1e-5,
    )


def test_clipping(accelerator: str) -> None:
    p = tg.nn.Parameter(tg.ones(2, device=accelerator))
    (p * tg.tensor([3.0, 4.0], device=accelerator)).sum().backward()
    assert tg.optim.clip_grad_norm([p], float("inf")).item() == 5.0
    assert tg.optim.clip_grad_norm([p], 1.0, error_if_nonfinite=True).device == "cuda:0"
    np.testing.assert_allclose(p.grad.numpy(), [0.6, 0.8], rtol=1e-6)
    p.grad = tg.tensor([float("inf"), 1.0], device=accelerator)
    with pytest.raises(FloatingPointError, match="parameters 0"):
        tg.optim.clip_grad_norm([p], 1.0, error_if_nonfinite=True)


def test_a_model_moves_with_all_it_has(accelerator: str) -> None:
    model = LAYERS["sequential"]("cpu")
    model.register_buffer("seen", np.arange(3))
    before = model.state_dict()
    model.to(accelerator)
    assert all(t.device == "cuda:0" for t in [*model.parameters(), *model.buffers()])
    after = model.to("cpu").state_dict()
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    optimizer = tg.optim.SGD(model.to(accelerator).parameters(), lr=1.0)
    model.to("cpu")
    with pytest.raises(tg.errors.ArgumentError, match="cuda:0"):
        optimizer.step()


def test_batches_and_windows(accelerator: str) -> None:
    text, ids = tg.data.text, np.arange(40) % 7

    def draw(device: str) -> list[Any]:
        x = tg.tensor(X, device=device)
        drawn = list(tg.data.batches(x, tg.arange(4, device=device), batch_size=3, rng=0))
        drawn += list(text.sequential(ids, 2, 5, rng=0, device=device))
        drawn += list(text.random(ids, 2, 5, rng=0, device=device))
        return drawn + list(text.evaluation(ids, 3, 4, device=device))

    assert_same(draw(accelerator), draw("cpu"), accelerator)


def test_checkpoints_draw_the_same_masks(accelerator: str) -> None:
    def run(device: str) -> list[Any]:
        tg.manual_seed(0)
        layer, x = LAYERS["linear"](device), tg.tensor(X, device=device, requires_grad=True)
        y = tg.checkpoint(lambda x: tg.functional.dropout(layer(x), 0.5), x)
        (y * y).sum().backward()
        return [y, x.grad, *grads_of(layer)]

    assert_same(run(accelerator), run("cpu"), accelerator)


# -- the main job ----------------------------------------------------------------------------------

EXAMPLE = Path(__file__).parents[2] / "examples" / "char_lm.py"
JOB = """--hidden 8 --layers 2 --dropout 0.25 --batch 2 --steps 5 --epochs 2 --valid 0.2
    --prefix ab --length 5 --json --device"""


@pytest.fixture
def main_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Run the main job in this process; return the figures that it prints last."""
    spec = importlib.util.spec_from_file_location("char_lm", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "text").write_text("abcd bad cab " * 20)

    def run(device: str, *options: str) -> dict[str, Any]:
        command = ["char_lm", "--text", str(tmp_path / "text"), *JOB.split(), device, *options]
        monkeypatch.setattr("sys.argv", command)
        with pytest.raises(SystemExit) as ended:
            module.main()
        assert not ended.value.code, ended.value.code
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


@pytest.mark.parametrize("embedding", ["4", "0"], ids=["embedding", "one-hot"])
def test_the_main_job_learns_the_same(
    accelerator: str, main_job: Callable[..., Any], tmp_path: Path, embedding: str
) -> None:
    """Training, validation, sampling, saving, and a run that was saved on the other device."""
    options = ["--embedding", embedding, "--save", str(tmp_path / "run")]
    expected = main_job("cpu", *options[:2])
    found = main_job(accelerator, *options)
    for name in ("loss", "valid_loss", "bits_per_byte"):
        assert found[name] == pytest.approx(expected[name], rel=1e-4)
    assert main_job(accelerator, *options, "--resume")["loss"] == pytest.approx(found["loss"])
    assert main_job("cpu", *options, "--resume")["valid_loss"] == pytest.approx(
        found["valid_loss"], rel=1e-4
    )


def reads_and_uploads_of_a_step(dropout: float = 0.0) -> tuple[int, int]:
    """Return how often one training step on the stand-in waits for it, and uploads to it."""
    with strict_device.installed():
        embedding = tg.nn.Embedding(3, 5, device="cuda")
        options = {"num_layers": 2, "bidirectional": True, "dropout": dropout}
        rnn = tg.nn.LSTM(5, 4, **options, device="cuda")
        head = tg.nn.Linear(8, 3, device="cuda")
        parameters = [p for m in (embedding, rnn, head) for p in m.parameters()]
        optimizer = tg.optim.Adam(parameters)
        ids, target = (tg.tensor(IDS, device="cuda") for _ in range(2))
        state = None
        for _ in range(2):  # the first step makes the initial state
            before = strict_device.syncs, strict_device.transfers
            output, state = rnn(embedding(ids), state)
            state = tg.bptt.detach(state)
            loss = tg.functional.cross_entropy(head(output), target, ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            tg.optim.clip_grad_norm(parameters, 1.0)
            optimizer.step()
        return strict_device.syncs - before[0], strict_device.transfers - before[1]


@pytest.mark.usefixtures("plain_loops")
def test_a_training_step_never_waits_for_the_device() -> None:
    """Forward, backward, clipping and the step read nothing and upload nothing."""
    assert reads_and_uploads_of_a_step(dropout=0.5) == (0, 0)


@pytest.mark.usefixtures("plain_loops")
def test_nor_does_a_step_without_the_kernels_of_a_training_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "on_gpu", {})
    assert reads_and_uploads_of_a_step() == (0, 0)
    assert reads_and_uploads_of_a_step(dropout=0.5) == (0, 1)  # a mask that the host has drawn


@pytest.mark.usefixtures("plain_loops")
def test_a_checkpoint_waits_for_the_device_once() -> None:
    """To compare the second run with the first; the results of all devices are on this one."""
    with strict_device.installed():
        layer = tg.nn.LSTM(3, 4, num_layers=2, device="cuda", bptt=tg.bptt.Full(checkpoint=True))
        x = tg.ones(9, 2, 3, device="cuda")
        output, _ = layer(x)
        loss = output.sum()
        before = strict_device.syncs, strict_device.transfers
        loss.backward()
        assert (strict_device.syncs - before[0], strict_device.transfers - before[1]) == (3, 0)

        factor = 2.0
        out = tg.checkpoint(lambda x: x * factor, layer.bias_ih_l0).sum()
        factor = 3.0
        with pytest.raises(GraphError, match="checkpoint: the function returns something else"):
            out.backward()


def test_an_export_of_a_computed_value_is_a_copy_on_the_device() -> None:
    with strict_device.installed():
        x = tg.tensor(np.arange(6.0).reshape(2, 3), device="cuda")
        for made, shared in ((x, True), (x.T, True), (x[:, 0], False), (x * 2, False)):
            exported = Host(made)
            np.testing.assert_array_equal(np.from_dlpack(exported), made.numpy())
            assert np.shares_memory(np.from_dlpack(exported), made._data._array) is shared


class Host:
    """What a device exports, read as the memory of the host, which that of the stand-in is."""

    def __init__(self, x: tg.Tensor) -> None:
        self.x = x

    def __dlpack__(self, **keywords: Any) -> Any:
        return self.x.__dlpack__()

    def __dlpack_device__(self) -> Any:
        assert self.x.__dlpack_device__()[0] == 2
        return 1, 0


def test_windows_are_on_the_default_device(accelerator: str) -> None:
    with tg.default_device(accelerator):
        windows = tg.data.text.sequential(np.arange(50) % 7, batch_size=2, steps=5, rng=0)
        assert [x.device for x in next(windows)] == ["cuda:0"] * 2


# -- everything on a device ------------------------------------------------------------------------


def test_the_tests_that_need_the_host_exist() -> None:
    tests = Path(__file__).parents[1]
    parts = (tests / "host_only.txt").read_text("utf-8").split("\n\n")
    for name in [name for part in parts for name in part.partition("\n")[2].split()]:
        file, _, function = name.partition("[")[0].partition("::")
        text = (tests / file).read_text("utf-8")
        assert not function or f"def {function}" in text, name


# -- these tests can fail --------------------------------------------------------------------------
# Mistakes that work on the CPU, each planted in another part of the library.


def planted_sum(array: Any) -> Any:
    return np.sum(array * array)


def planted_half(F: Any, g: Any, wins: Any, equal: Any) -> Any:
    return np.where(equal, g * 0.5, g * wins)


def planted_add_at(target: Any, key: Any, values: Any) -> None:
    np.add.at(target, key, values)


def planted_linear(x: Any, weight: Any, bias: Any) -> Any:
    scale = 1.0 if float(x._data.reshape(-1)[0]) < 1e9 else 0.0
    return x @ weight.T * scale + bias


def planted_branch(losses: Any, reduction: str, op: str) -> Any:
    return losses.mean() if losses._data.sum() > -1.0 else losses


def planted_constant(x: Any, weight: Any, bias: Any) -> Any:
    return x @ weight.T + tg.zeros(bias.shape, dtype=bias.dtype) + bias


def planted_scale(g: Any, p: Any, weight_decay: float) -> Any:
    return g + np.float64(weight_decay) * p


def planted_state(self: Any, batch: int, dtype: Any, device: str) -> Any:
    return tg.zeros(batch, self.hidden_size, dtype=dtype)  # on the default device


PLANTED: dict[str, tuple[str, str, Any, Callable[[str], Any], str]] = {
    "a NumPy call in a product": (
        "engine.ops.kernels", "gemm", np.matmul, lambda d: run_layer("linear", d),
        "numpy.matmul on data",
    ),
    "a NumPy call in a backward pass": (
        "engine.ops.comparison", "_maximum_vjp", planted_half,
        lambda d: tg.maximum(tg.ones(2, device=d, requires_grad=True), 0.5).sum().backward(),
        "numpy.where on data",
    ),
    "a NumPy call in a scatter": (
        "engine.ops.kernels", "add_at", planted_add_at, run_embedding, "add",
    ),
    "a NumPy call in clipping": (
        "optim.clip", "_squares", planted_sum, lambda d: learned("SGD", d), "numpy.sum on data",
    ),
    "a NumPy number in an optimiser": (
        "optim.optimizers", "_decayed", planted_scale, lambda d: learned("SGD", d), "numpy.float64",
    ),
    "a hidden float() in a layer": (
        "functional", "linear", planted_linear, lambda d: run_layer("linear", d), r"float\(\)",
    ),
    "a hidden bool() in a loss": (
        "functional", "_reduce", planted_branch,
        lambda d: tg.functional.cross_entropy(tg.zeros(2, 3, device=d), [0, 1]), r"bool\(\)",
    ),
    "a constant on the CPU in a layer": (
        "functional", "linear", planted_constant, lambda d: run_layer("linear", d),
        r"add: operands on different devices \(cuda:0, cpu\)",
    ),
    "an initial state on the CPU": (
        "nn.cells.Cell", "initial_state", planted_state, lambda d: run_recurrent("rnn", d),
        "different devices",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_caught_though_the_cpu_never_shows_it(
    monkeypatch: pytest.MonkeyPatch, fresh_plans: None, mistake: str
) -> None:
    place, name, planted, check, message = PLANTED[mistake]
    monkeypatch.setattr(f"tinygrad_rnn.{place}.{name}", planted)
    monkeypatch.setattr(kernels, "on_gpu", {})  # what is planted runs
    check("cpu")
    with (
        strict_device.installed(),
        pytest.raises((strict_device.StrictError, DeviceError, DTypeError), match=message),
    ):
        check("cuda")


@pytest.mark.usefixtures("plain_loops")
def test_a_planted_read_of_a_tensor_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """``float(tensor)`` reads by ``item()``, which is allowed; a step that does it is noticed."""
    linear = tg.functional.linear
    monkeypatch.setattr(
        tg.functional, "linear", lambda x, w, b: linear(x, w, b) * min(1.0, float(x.sum()) ** 2 + 1)
    )
    assert reads_and_uploads_of_a_step() == (1, 0)
