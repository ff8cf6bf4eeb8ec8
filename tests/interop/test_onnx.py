"""Files of ONNX compute in onnxruntime as the networks here do, for inputs of any size."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_cells import MinimalGatedUnit, WeightDrop

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn._util.nested import leaves, map_nested

try:
    import onnx
    import onnxruntime
except ImportError:  # not a skipped file, which would count in a selection of other tests
    onnx = onnxruntime = None
pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(onnxruntime is None, reason="the extra oracle is not installed"),
]

LAYERS = [nn.LSTM, nn.GRU, nn.RNN]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx") / "network.onnx"


def session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def assert_equal(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Compare the outputs of onnxruntime with Tensors in any structure."""
    tensors = [y.numpy() for y in leaves(expected) if y is not None]
    assert [(y.shape, y.dtype) for y in found] == [(y.shape, y.dtype) for y in tensors]
    for y, z in zip(found, tensors, strict=True):
        np.testing.assert_allclose(y, z, rtol=tolerance, atol=tolerance)


def as_tensors(value: Any) -> Any:
    return map_nested(lambda x: tg.tensor(x) if isinstance(x, np.ndarray) else x, value)


def fill(model: nn.Module, rng: np.random.Generator) -> None:
    """Give all parameters, biases too, random values."""
    for p in model.parameters():
        p.data = (0.5 * rng.standard_normal(p.shape)).astype(p.dtype)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype("float32")


# -- layers ----------------------------------------------------------------------------------------


def check_layer(path: Path, rnn: nn.Recurrent, rng: np.random.Generator, sizes: Any) -> None:
    """Compare a layer with its file: with and without states and lengths, for several T and B."""
    tg.interop.save_onnx(path, rnn)
    run = session(path).run
    several = isinstance(rnn.cells[0].hidden_size, tuple)
    dtype = next(rnn.parameters()).dtype
    for T, B in sizes:
        shape = (B, T, rnn.input_size) if rnn.batch_first else (T, B, rnn.input_size)
        x = rng.standard_normal(shape).astype(dtype)
        lengths = rng.integers(0, T + 1, B)
        states = [
            0.5 * rng.standard_normal((len(rnn.cells), B, size)).astype(dtype)
            for size in rnn.state_sizes
        ]
        names = [f"state_{i}" if several else "state" for i in range(len(states))]
        given_states = tuple(map(tg.tensor, states)) if several else tg.tensor(states[0])
        assert_equal(run(None, {"x": x}), rnn(tg.tensor(x)))
        padded = {"x": x, "lengths": lengths}
        assert_equal(run(None, padded), rnn(tg.tensor(x), lengths=lengths))
        fed = padded | dict(zip(names, states, strict=True))
        assert_equal(run(None, fed), rnn(tg.tensor(x), given_states, lengths=lengths))


SIZES = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 4)), min_size=1, max_size=3)


@settings(max_examples=30)
@given(
    kind=st.sampled_from(LAYERS),
    layers=st.integers(1, 3),
    options=st.fixed_dictionaries(
        {"bidirectional": st.booleans(), "bias": st.booleans(), "batch_first": st.booleans()}
    ),
    sizes=SIZES,
    seed=st.integers(0, 2**32),
)
def test_a_built_in_layer_computes_the_same(
    path: Path, kind: Any, layers: int, options: Any, sizes: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    nonlinear = {"nonlinearity": "relu"} if kind is nn.RNN and seed % 2 else {}
    rnn = kind(3, 4, num_layers=layers, **options, **nonlinear)
    fill(rnn, rng)
    check_layer(path, rnn, rng, sizes)
    nodes = [node.op_type for node in onnx.load(path).graph.node]
    assert nodes.count(kind.__name__) == layers  # one node, for both directions
    assert "Scan" not in nodes


@pytest.mark.parametrize("kind", LAYERS)
def test_the_padding_of_a_ragged_batch_is_not_read(path: Path, kind: Any) -> None:
    rng = np.random.default_rng(0)
    rnn, lengths = kind(3, 4, bidirectional=True), np.array([5, 2, 0])
    tg.interop.save_onnx(path, rnn)
    x = normal(rng, 5, 3, 3)
    for row, length in enumerate(lengths):
        x[length:, row] = np.nan
    assert_equal(
        session(path).run(None, {"x": x, "lengths": lengths}), rnn(tg.tensor(x), lengths=lengths)
    )


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_gates_in_another_order_are_noticed(
    path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinygrad_rnn.interop.onnx import layers

    order = layers.GATES[kind.__name__]
    monkeypatch.setitem(layers.GATES, kind.__name__, (*order[1:], order[0]))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_layer(path, kind(3, 4), np.random.default_rng(0), [(4, 2)])


# -- cells of the user's ---------------------------------------------------------------------------


class Peephole(nn.Cell):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = (hidden_size, hidden_size)
        self.W = nn.Linear(input_size, 4 * hidden_size)
        self.U = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.p = nn.Parameter(tg.randn(3, hidden_size))

    def project(self, x: Any) -> Any:
        return self.W(x)

    def step(self, z: Any, state: Any) -> Any:
        h, c = state
        i, f, g, o = (z + self.U(h)).split(4, axis=-1)
        i, f = tg.sigmoid(i + self.p[0] * c), tg.sigmoid(f + self.p[1] * c)
        c = f * c + i * tg.tanh(g)
        return tg.sigmoid(o + self.p[2] * c) * tg.tanh(c), c


class NormalizedLSTM(nn.Cell):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = (hidden_size, hidden_size)
        self.W = nn.Linear(input_size, 4 * hidden_size)
        self.U = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.norms = [nn.LayerNorm(4 * hidden_size), nn.LayerNorm(4 * hidden_size)]
        self.out = nn.LayerNorm(hidden_size)

    def project(self, x: Any) -> Any:
        return self.norms[0](self.W(x))

    def step(self, z: Any, state: Any) -> Any:
        h, c = state
        i, f, g, o = (z + self.norms[1](self.U(h))).split(4, axis=-1)
        c = tg.sigmoid(f) * c + tg.sigmoid(i) * tg.tanh(g)
        return tg.sigmoid(o) * tg.tanh(self.out(c)), c


class FastWeights(nn.Cell):
    """A product of two values that both change from step to step, and several inner steps."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = (hidden_size, hidden_size**2)
        self.W, self.U = nn.Linear(input_size, hidden_size), nn.Linear(hidden_size, hidden_size)

    def step(self, x: Any, state: Any) -> Any:
        h, a = state
        B, H = h.shape
        A, start = a.reshape(B, H, H), self.W(x) + self.U(h)
        for _ in range(2):
            h = tg.tanh(start + (A @ h[:, :, None])[:, :, 0])
        return h, (0.9 * A + 0.1 * h[:, :, None] * h[:, None, :]).reshape(B, -1)


class Selecting(nn.Cell):
    """Three states, a learned initial one, and operations that choose, join and reduce."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = (hidden_size, 2 * hidden_size, 3)
        self.W, self.U = nn.Linear(input_size, hidden_size), nn.Linear(3 * hidden_size, hidden_size)
        self.E, self.start = nn.Parameter(tg.randn(hidden_size, 3)), nn.Parameter(tg.randn(3))

    def initial_state(self, batch: int, dtype: Any, device: str) -> Any:
        H, H2, _ = self.state_sizes
        start = tg.broadcast_to(self.start, (batch, 3))
        return tg.ones(batch, H, dtype=dtype), tg.zeros(batch, H2, dtype=dtype), start

    def step(self, x: Any, state: Any) -> Any:
        h, m, k = state
        u, v = tg.relu(self.W(x)), self.U(tg.concatenate([h, m], axis=-1))
        k = tg.clip(0.9 * k + tg.softmax(v @ self.E, axis=-1), -2.0, 1.5)
        top, total = tg.max(v, axis=-1, keepdims=True), v.sum(axis=-1, keepdims=True)
        new = tg.where(v > 0.1, tg.tanh(v + u), tg.exp(-tg.abs(v))) * 0.5 + 0.01 * (top - total)
        inside = (new > 0.0) * (new < 1.0)  # of booleans
        new = new * inside - tg.maximum(new, 0.3) ** 2 + tg.minimum(new, u) / (1 + tg.sqrt(u + 1))
        new = tg.stack([new, u], axis=1).mean(axis=1) + 0.1 * tg.log1p(u) - k.var(-1, keepdims=True)
        m = tg.concatenate([h[..., ::-1], new[:, 1:], new[:, :1]], axis=1) * 0.5
        best = tg.functional.one_hot(tg.argmax(new, axis=-1), new.shape[-1], dtype=new.dtype)
        return new + 0.1 * best + 0.1 * tg.softplus(new), m, k


CELLS = [Peephole, NormalizedLSTM, MinimalGatedUnit, FastWeights, Selecting, WeightDrop]


@settings(max_examples=3)
@given(layers=st.integers(1, 2), bidirectional=st.booleans(), sizes=SIZES, seed=st.integers(0, 99))
@pytest.mark.parametrize("cell", CELLS)
def test_a_layer_of_any_cell_computes_the_same(
    path: Path, cell: Any, layers: int, bidirectional: bool, sizes: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rnn = nn.Recurrent(cell, 3, 4, num_layers=layers, bidirectional=bidirectional)
    fill(rnn, rng)
    with rnn.evaluating():
        check_layer(path, rnn, rng, sizes)
    assert "Scan" in [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize(
    "rnn",
    [
        nn.LSTM(3, 5, proj_size=2, bidirectional=True),
        nn.LSTM(3, 4, num_layers=2, dtype="float64"),
        nn.GRU(3, 4, bidirectional=True, dtype="float64"),
    ],
)
def test_a_layer_that_has_no_node_becomes_loops(path: Path, rnn: nn.Recurrent) -> None:
    check_layer(path, rnn, np.random.default_rng(1), [(4, 3), (1, 1)])


# -- networks --------------------------------------------------------------------------------------


class Net(nn.Module):
    """Calls a function with itself."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4, padding_idx=0)
        self.rnn = nn.GRU(4, 5, num_layers=2, bidirectional=True, dropout=0.3)
        self.head = nn.Sequential(nn.LayerNorm(10), nn.Dropout(0.5), nn.Linear(10, 3))

    def forward(self, ids: Any, lengths: Any) -> Any:
        y, h = self.rnn(self.table(ids), lengths=lengths)
        T, B, _ = y.shape
        mask = (tg.arange(T)[:, None] < lengths).astype("float32")[..., None]
        mean = (y * mask).sum(axis=0) / mask.sum(axis=0)
        last = y[lengths - 1, tg.arange(B)]
        top = tg.where(mask > 0, y, -1e9).max(axis=0)
        logits = self.head(mean + last + top)
        return {"logits": logits, "p": tg.softmax(logits), "h": h, "rate": y.sum(axis=0) / T}


def attention(net: Any, x: Any, y: Any) -> Any:
    memory, h = net.encoder(x)

    def step(h: Any, y_t: Any) -> Any:
        weights = tg.softmax((memory * h).sum(axis=-1), axis=0)
        context = tg.einsum("tb,tbh->bh", weights, memory)
        h = net.cell(tg.concatenate([y_t, context], axis=-1), h)
        return h, (net.head(h), weights, None)

    return tg.scan(step, h[0], y)


def shapes(net: Any, x: Any) -> Any:
    T, B, F = x.shape
    flat = x.reshape(T * B, F) + net.table[:T].sum() / T + 0.25 * B
    places = tg.sin(tg.arange(T).astype("float32"))[:, None, None]
    windows = tg.stack([tg.pad(x, ((2, 0), (0, 0), (0, 0)))[i : i + T] for i in range(3)], axis=-1)
    return (
        flat, x + places + net.table[:T, None], windows, x[1:] - x[:-1], x[::2], x[::-1], x[-1],
        x[T - 1, :, 0], x[:, None, 0], x[..., [2, 0]], tg.zeros(T, B), tg.flip(x, 1),
        tg.take_along_axis(x, tg.argmax(x, axis=-1, keepdims=True)), tg.cumsum(x, axis=0),
        tg.swapaxes(x, 0, 1) @ tg.moveaxis(x, 0, -1), x.std(axis=(0, 2)), tg.prod(x, axis=-1),
    )  # fmt: skip


def indices(net: Any, x: Any, i: Any) -> Any:
    last = x.shape[2] - 1
    return (
        x[i], x[:, i], x[i, i, last], x[0, :, [0, 1]], x[i, :, 0], x[:, 0, i], x[:, i, None, i],
        x[0, None, i], x[..., i, [0]], x[:, i[:, None], [[0, 1, 2]]], x[i * 0, i],
        x[None, ..., 0, None], x[1:, 0, ::2], x[i, 0:2], tg.take(x, i, axis=2),
    )  # fmt: skip


def nested(net: Any, x: Any) -> Any:
    def outer(state: Any, x_t: Any) -> Any:
        def inner(h: Any, z: Any) -> Any:
            return 0.5 * h + z, None

        h, _ = tg.scan(inner, state["h"], tg.stack([x_t, state["h"], x_t]))
        return {"h": h, "n": state["n"] + (x_t > 0).astype("int64")}, {"y": h * 2}

    zero = tg.zeros(*x.shape[1:])
    return tg.scan(outer, {"h": zero, "n": zero.astype("int64")}, x, reverse=True)


NETWORKS: dict[str, Any] = {
    "classifier": (
        lambda: Classifier(),
        lambda rng, T, B: [rng.integers(0, 10, (T, B)), rng.integers(1, T + 1, B)],
        {},
    ),
    "last step": (
        lambda: Net(lambda n, x: n.head(n.rnn(x)[0][:, -1]), head=nn.Linear(5, 2),
                    rnn=nn.LSTM(3, 5, batch_first=True)),
        lambda rng, T, B: [normal(rng, B, T, 3)],
        {},
    ),
    "attention": (
        lambda: Net(attention, encoder=nn.GRU(3, 5), cell=nn.GRUCell(8, 5), head=nn.Linear(5, 3)),
        lambda rng, T, B: [normal(rng, T, B, 3), normal(rng, T + 1, B, 3)],
        {"inputs_0": ("S", "B", None), "inputs_1": ("T", "B", None)},
    ),
    "shapes": (
        lambda: Net(shapes, table=nn.Parameter(tg.randn(20, 3))),
        lambda rng, T, B: [normal(rng, T, B, 3)],
        {},
    ),
    "indices": (
        lambda: Net(indices),
        lambda rng, T, B: [normal(rng, 4, 5, 3), rng.integers(0, 3, B)],
        {"inputs_0": (None, None, None), "inputs_1": ("B",)},
    ),
    "nested scans": (lambda: Net(nested), lambda rng, T, B: [normal(rng, T, B, 3)], {}),
    "one sequence": (
        lambda: Net(lambda n, x: n.rnn(x), rnn=nn.LSTM(3, 4, num_layers=2, bidirectional=True)),
        lambda rng, T, B: [normal(rng, T, 3)],
        {"inputs_0": ("T", None)},
    ),
    "states": (
        lambda: Net(lambda n, x, s: n.rnn(x, s), rnn=nn.Recurrent(Peephole, 3, 4, num_layers=2)),
        lambda rng, T, B: [normal(rng, T, B, 3), (normal(rng, 2, B, 4), normal(rng, 2, B, 4))],
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_computes_the_same(path: Path, name: str) -> None:
    make, inputs, axes = NETWORKS[name]
    rng = np.random.default_rng(0)
    model = make()
    tg.interop.save_onnx(path, model, *as_tensors(inputs(rng, 8, 3)), axes=axes)
    ready = session(path)
    names = [x.name for x in ready.get_inputs()]
    for T, B in [(8, 3), (5, 2), (1, 1), (12, 7)]:
        given = inputs(rng, T, B)
        fed = dict(zip(names, leaves(given), strict=True))
        with model.evaluating():
            assert_equal(ready.run(None, fed), model(*as_tensors(given)))


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, NormalizedLSTM])
@pytest.mark.parametrize("embedding_dim", [None, 4])
def test_a_language_model_carries_its_state(path: Path, cell: Any, embedding_dim: Any) -> None:
    model = tg.models.RecurrentLM(
        cell, 9, 6, num_layers=2, embedding_dim=embedding_dim, dropout=0.3
    )
    ids = np.random.default_rng(0).integers(0, 9, (9, 2))
    tg.interop.save_onnx(path, model)
    ready = session(path)
    with model.evaluating():
        logits, state = model(tg.tensor(ids))
    assert_equal(ready.run(None, {"ids": ids}), (logits, state))
    names = [y.name for y in ready.get_outputs()]
    assert names[0] == "logits"
    first, *states = ready.run(None, {"ids": ids[:4]})
    carried = {name.removeprefix("new_"): s for name, s in zip(names[1:], states, strict=True)}
    assert {x.name for x in ready.get_overridable_initializers()} >= carried.keys()
    second, *_ = ready.run(None, {"ids": ids[4:], **carried})
    assert_equal([np.concatenate([first, second])], logits)


def test_models_and_layers_whose_inputs_are_known(path: Path) -> None:
    rng = np.random.default_rng(0)
    ids, x = rng.integers(0, 9, (6, 2)), normal(rng, 4, 3)
    cases = [
        (tg.models.NeuralLM(4, 9, direct=True), "ids", ids),
        (nn.Embedding(9, 3), "ids", ids),
        (nn.Linear(3, 2), "x", x),
        (nn.LayerNorm(3), "x", x),
        (nn.Sequential(nn.Linear(3, 4), tg.tanh, nn.Linear(4, 2), tg.log_softmax), "x", x),
    ]
    for model, name, value in cases:
        tg.interop.save_onnx(path, model)
        assert_equal(session(path).run(None, {name: value}), model(tg.tensor(value)))


POOLS = ["last", "mean", "max"]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("inputs", [tg.data.text.Vocabulary("abcdefgh"), 5])
def test_a_classifier_computes_the_same(path: Path, pool: str, inputs: Any) -> None:
    rng = np.random.default_rng(0)
    model = tg.models.Classifier(
        nn.LSTMCell, inputs, 3, 8, pool=pool, bidirectional=True, num_layers=2, dropout=0.3
    )
    tg.interop.save_onnx(path, model)
    name = "x" if inputs == 5 else "ids"
    for B, T in [(4, 7), (1, 3), (2, 1)]:
        x = normal(rng, B, T, 5) if inputs == 5 else rng.integers(0, 9, (B, T))
        lengths = rng.integers(0, T + 1, B)
        with model.evaluating():
            whole, ragged = model(tg.tensor(x)), model(tg.tensor(x), lengths)
        assert_equal(session(path).run(["logits"], {name: x}), whole)
        assert_equal(session(path).run(None, {name: x, "lengths": lengths}), ragged)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("targets", [None, 1])
@pytest.mark.parametrize("given", [(), (np.zeros((2, 5, 2), np.float32),)])
def test_a_forecaster_computes_in_the_unit_of_the_data(
    path: Path, pool: str, targets: Any, given: Any
) -> None:
    rng = np.random.default_rng(0)
    model = tg.models.Forecaster(nn.GRUCell, 2, 8, ahead=3, num_targets=targets, pool=pool)
    data = (50 + 9 * rng.standard_normal((40, 2))).astype("float32")
    for x in (normal(rng, 4, 10, 2), data.reshape(4, 10, 2)):  # without and with a scaler
        tg.interop.save_onnx(path, model, *given)
        np.testing.assert_allclose(
            session(path).run(["forecast"], {"x": x})[0], model.predict(x), rtol=1e-5, atol=1e-5
        )
        if not given:
            lengths = np.array([3, 10, 1, 9])
            rows = [row[:n] for row, n in zip(x, lengths, strict=True)]
            found = session(path).run(None, {"x": x, "lengths": lengths})[0]
            np.testing.assert_allclose(found, model.predict(rows), rtol=1e-5, atol=1e-5)
        model.scaler.fit(data)


def test_a_constant_array_may_hold_a_length(path: Path) -> None:
    def forward(net: Any, x: Any) -> Any:
        T, B = x.shape[:2]
        return x.sum(axis=0) / tg.tensor(np.full((B, 1), T, np.float32))

    x = normal(np.random.default_rng(0), 9, 4, 3)
    net = Net(forward)
    tg.interop.save_onnx(path, net, x[:5, :2])
    ready = session(path)
    assert_equal(ready.run(None, {ready.get_inputs()[0].name: x}), net(tg.tensor(x)))


# -- the file, and the program around --------------------------------------------------------------


def test_the_file_names_its_producer_and_its_versions(path: Path) -> None:
    tg.interop.save_onnx(path, nn.GRU(3, 4), tg.zeros(5, 2, 3), output_names=["y", "h"])
    model = onnx.load(path)
    assert (model.producer_name, model.producer_version) == ("tinygrad_rnn", tg.__version__)
    assert [(x.domain, x.version) for x in model.opset_import] == [("", 18)]
    assert model.ir_version == 8
    ready = session(path)
    assert [(x.name, x.shape) for x in ready.get_inputs()] == [("x", ["T", "B", 3])]
    found = [(y.name, y.shape) for y in ready.get_outputs()]
    assert found == [("y", ["T", "B", 4]), ("h", [1, "B", 4])]


def test_examples_may_be_lists_dicts_and_numbers(path: Path) -> None:
    def forward(net: Any, x: Any, parts: Any, scale: float, lengths: Any) -> Any:
        return net.rnn(x, parts["state"], lengths=lengths)[0] * scale + parts["more"]

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(3, 4)

        def forward(self, x: Any, parts: Any, scale: float = 1.0, lengths: Any = None) -> Any:
            return forward(self, x, parts, scale, lengths)

    rng = np.random.default_rng(0)
    x, h, more = normal(rng, 6, 2, 3), normal(rng, 1, 2, 4), normal(rng, 2, 4)
    model, parts = Own(), {"state": h, "more": more}
    tg.interop.save_onnx(path, model, x, parts=parts, scale=3.0, lengths=[6, 4])
    ready = session(path)
    names = ["x", "parts_0", "parts_1", "lengths"]
    assert [x.name for x in ready.get_inputs()] == names
    found = ready.run(None, dict(zip(names, [x, h, more, np.array([2, 5])], strict=True)))
    assert_equal(found, model(tg.tensor(x), as_tensors(parts), 3.0, [2, 5]))


def test_a_weight_may_be_computed_in_forward(path: Path) -> None:
    net = Net(lambda n, x: n.rnn(x), rnn=nn.GRU(3, 4))
    cell = net.rnn.cells[0]
    net.raw = cell.weight_hh
    del cell.weight_hh

    def forward(net: Any, x: Any) -> Any:
        cell.weight_hh = net.raw * 0.5
        return net.rnn(x)

    net.function, x = forward, np.ones((5, 2, 3), np.float32)
    tg.interop.save_onnx(path, net, x)
    assert "weight_hh" not in vars(cell)
    assert_equal(session(path).run(None, {"inputs_0": x}), net(tg.tensor(x)))


def test_weights_keep_their_names_and_are_stored_once(path: Path) -> None:
    layer = nn.Linear(3, 3)
    net = Net(lambda n, x: n.first(x) + n.second(x), first=layer, second=layer)
    tg.interop.save_onnx(path, net, tg.zeros(5, 3))
    names = [x.name for x in onnx.load(path).graph.initializer]
    assert names == ["first.weight", "first.bias"]


def test_the_module_is_as_before() -> None:
    def forward(net: Any, x: Any) -> Any:
        net.seen, net.drop.p = x, 0.7
        return net.drop(x) * 2

    from tinygrad_rnn.interop.onnx import save

    net = Net(forward, drop=nn.Dropout(0.5), seen=None)
    net.drop._rng = np.random.default_rng(0)
    before = net.drop._rng.bit_generator.state
    with pytest.raises(OSError):
        save.save_onnx("/no/such/folder/x.onnx", net, tg.zeros(5, 3))
    assert (net.seen, net.drop.p, net.training) == (None, 0.5, True)
    assert net.drop._rng.bit_generator.state == before


def test_other_threads_compute_as_usual_during_a_trace(path: Path) -> None:
    rnn, x, found = nn.GRU(3, 4), tg.randn(6, 2, 3), []
    expected = rnn(x)[0].numpy()

    def forward(net: Any, x_traced: Any) -> Any:
        thread = threading.Thread(target=lambda: found.append(rnn(x)[0].numpy()))
        thread.start()
        thread.join()
        return rnn(x_traced)[0]

    tg.interop.save_onnx(path, Net(forward), x)
    assert all(np.array_equal(y, expected) for y in found) and found
    np.testing.assert_array_equal(rnn(x)[0].numpy(), expected)  # nothing is left replaced
    assert nn.Recurrent.forward.__module__ == "tinygrad_rnn.nn.recurrent"
