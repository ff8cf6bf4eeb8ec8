"""Networks as C: the file computes what the model does, and what cannot be exported is refused."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from own_cells import MinimalGatedUnit, WeightDrop

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, DTypeError
from tinygrad_rnn.interop.c import text as c_text
from tinygrad_rnn.speed import compiler

CC = os.environ.get("CC", "").partition(" ")[0] or next(filter(shutil.which, compiler.NAMES), "")
STRICT = "-Wall -Wextra -Werror -std=c99 -pedantic -O2".split()
compiled = pytest.mark.skipif(not shutil.which(CC), reason="no C compiler is installed")
FLOATS = ctypes.POINTER(ctypes.c_float)
INTS = ctypes.POINTER(ctypes.c_int)


# -- cells of a user -------------------------------------------------------------------------------


class Peephole(tg.nn.LSTMCell):
    def __init__(self, *sizes: int, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.p_i, self.p_f, self.p_o = (
            tg.nn.Parameter(0.3 * tg.randn(self.state_sizes[1])) for _ in range(3)
        )

    def step(self, a: Any, state: Any) -> Any:
        h, c = state
        i, f, g, o = tg.split(a + h @ self.weight_hh.T, 4, axis=-1)
        new = tg.sigmoid(f + self.p_f * c) * c + tg.sigmoid(i + self.p_i * c) * tg.tanh(g)
        return tg.sigmoid(o + self.p_o * new) * tg.tanh(new), new


class NormalizedLSTM(tg.nn.Cell):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = (hidden_size, hidden_size)
        self.W = tg.nn.Linear(input_size, 4 * hidden_size)
        self.U = tg.nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.norm_x, self.norm_h = (tg.nn.LayerNorm(4 * hidden_size) for _ in range(2))
        self.norm_c = tg.nn.LayerNorm(hidden_size)

    def step(self, x: Any, state: Any) -> Any:
        h, c = state
        i, f, g, o = tg.split(self.norm_x(self.W(x)) + self.norm_h(self.U(h)), 4, axis=-1)
        c = tg.sigmoid(f + 1) * c + tg.sigmoid(i) * tg.tanh(g)
        return tg.sigmoid(o) * tg.tanh(self.norm_c(c)), c


class Rotation(tg.nn.Cell):
    """Slices at odd bounds, a learned initial state, and functions that the gates lack."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.W = tg.nn.Parameter(0.2 * tg.randn(input_size + hidden_size, hidden_size))
        self.first = tg.nn.Parameter(0.3 * tg.randn(1, hidden_size))

    def initial_state(self, batch: int, dtype: Any, device: str) -> Any:
        return self.first * tg.ones(batch, 1)

    def step(self, x: Any, h: Any) -> Any:
        z = tg.concatenate([x, h], axis=-1) @ self.W
        a = tg.clip(tg.where(z > 0, tg.exp(-z), tg.softplus(z) ** 2), -1, 1)
        turned = tg.concatenate([a[..., 1:], tg.sin(h[..., :1])], axis=-1)
        return 0.9 * turned + 0.1 * tg.sqrt(abs(h) + 1)


class Decay(tg.nn.Cell):
    """No products, constants of other dtypes, a second state of its own size, an unread input."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = (hidden_size, 2)
        self.register_buffer("even", tg.tensor(np.arange(hidden_size) % 2 == 0))
        self.register_buffer("count", tg.tensor(np.arange(hidden_size)))

    def step(self, x: Any, state: Any) -> Any:
        h, last = state
        up = (h < 0.9).astype(tg.float32).mean(axis=-1, keepdims=True)
        new = tg.where(self.even, 0.9 * h + 0.1 * up, tg.cos(h * self.count))
        return new, tg.concatenate([last[..., 1:], new[..., :1]], axis=-1)


class Attending(tg.nn.Cell):
    """A softmax over a memory, and maxima: of a product, of a value, with and without its axis."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = (hidden_size, 1)
        self.W = tg.nn.Linear(input_size, hidden_size)
        self.U = tg.nn.Linear(hidden_size, hidden_size)
        self.keys, self.values = (tg.nn.Parameter(tg.randn(5, hidden_size)) for _ in range(2))

    def step(self, x: Any, state: Any) -> Any:
        h, highest = state
        read = tg.softmax(0.5 * h @ self.keys.T) @ self.values
        a = tg.tanh(self.W(x) + self.U(h) + 0.3 * read)
        top = a.max(axis=-1, keepdims=True)
        flat = h.max(axis=-1).reshape(-1, 1) + self.U(a).max(axis=-1, keepdims=True)
        return a - 0.5 * top + 0.1 * flat * tg.log_softmax(a), tg.maximum(0.9 * highest, top)


class Classifier(tg.nn.Module):
    """Two layers of different cells, dropout, a normalisation, a head, and an ending."""

    def __init__(self, ending: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self.below = tg.nn.GRU(4, 6)
        self.above = tg.nn.Recurrent(MinimalGatedUnit, 6, 7)
        self.drop = tg.nn.Dropout(0.5)
        self.head = tg.nn.Sequential(tg.nn.Linear(7, 9), tg.relu, tg.nn.Linear(9, 5))
        self.ending = ending

    def forward(self, x: Any, state: Any = None) -> Any:
        first, second = (None, None) if state is None else state
        y, first = self.below(x, first)
        y, second = self.above(self.drop(y), second)
        y = self.head(y)
        return (y if self.ending is None else self.ending(y)), (first, second)


MODELS: dict[str, Callable[[], Any]] = {
    "lstm": lambda: tg.nn.LSTM(3, 33),
    "lstm, projected, two layers": lambda: tg.nn.LSTM(3, 9, num_layers=2, proj_size=5),
    "gru, two layers": lambda: tg.nn.GRU(5, 16, num_layers=2, dropout=0.3),
    "gru without biases": lambda: tg.nn.GRU(5, 7, bias=False),
    "rnn": lambda: tg.nn.RNN(2, 8, nonlinearity="relu"),
    "minimal gated unit": lambda: tg.nn.Recurrent(MinimalGatedUnit, 4, 16, num_layers=2),
    "peephole": lambda: tg.nn.Recurrent(Peephole, 5, 16),
    "decay": lambda: tg.nn.Recurrent(Decay, 3, 5),
    "attending": lambda: tg.nn.Recurrent(Attending, 3, 7),
    "weight drop": lambda: tg.nn.Recurrent(WeightDrop, 3, 8),
    "rotation": lambda: tg.nn.Recurrent(Rotation, 3, 7),
    "a network": Classifier,
    "with a softmax": lambda: Classifier(tg.softmax),
    "with its logarithm": lambda: Classifier(lambda y: tg.log_softmax(y, axis=-1)),
}


# -- compiling and calling -------------------------------------------------------------------------


def build(path: Path, *flags: str) -> Any:
    """Return the file as a library, compiled with all warnings as errors."""
    made = path.with_suffix(f".{len(list(path.parent.iterdir()))}.so")
    subprocess.run(
        [CC, *STRICT, "-shared", "-fPIC", *flags, str(path), "-o", str(made), "-lm"], check=True
    )
    return ctypes.CDLL(str(made))


def run_program(folder: Path, path: Path, *arguments: str, given: str = "") -> str:
    """Compile the file as a program of its own, and return what it prints."""
    made = folder / "program"
    subprocess.run(
        [CC, *STRICT, "-DTINYGRAD_RNN_MAIN", str(path), "-o", str(made), "-lm"], check=True
    )
    command = [str(made), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, input=given.encode())
    return done.stdout.decode()


def at(x: Any) -> Any:
    return x.ctypes.data_as(FLOATS if x.dtype == np.float32 else INTS)


class InC:
    """A file that runs: step by step, from the initial state."""

    def __init__(self, path: Path, report: tg.interop.CFile, prefix: str = "") -> None:
        self.report, self.p, self.library = report, prefix, build(path)

    def call(self, name: str, *args: Any) -> Any:
        return getattr(self.library, self.p + name)(*args)

    def outputs(self, inputs: Any) -> Any:
        """Return y of each step; integers are tokens."""
        state = np.full(self.report.state_size, np.nan, np.float32)
        self.call("init_state", at(state))
        ys = np.empty((len(inputs), self.report.output_size), np.float32)
        tokens = np.asarray(inputs).ndim == 1
        for x, y in zip(inputs, ys, strict=True):
            if tokens:
                self.call("step_token", int(x), at(state), at(y))
            else:
                self.call("step", at(np.ascontiguousarray(x)), at(state), at(y))
        return ys


def expected(model: Any, xs: Any) -> Any:
    """Return the model's output on a sequence (T, I)."""
    model.eval()
    with tg.no_grad():
        return model(tg.tensor(xs[:, None]))[0].numpy()[:, 0]


def vectors(count: int, size: int) -> Any:
    return np.random.default_rng(count).standard_normal((count, size)).astype(np.float32)


# -- equal to the model ----------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize("name", MODELS)
def test_a_thousand_steps_equal_the_models(name: str, tmp_path: Path) -> None:
    tg.manual_seed(1)
    model = MODELS[name]()
    report = tg.interop.save_c(tmp_path / "m.c", model)
    xs = vectors(1000, report.input_size)
    found = InC(tmp_path / "m.c", report).outputs(xs)
    np.testing.assert_allclose(found, expected(model, xs), rtol=1e-6, atol=1e-6)


@compiled
def test_layer_norm(tmp_path: Path) -> None:
    """A norm divides by a deviation, which may be small, and so multiplies rounding errors.

    The model's own loop and its steps one by one differ as much.
    """
    tg.manual_seed(3)
    model, xs = tg.nn.Recurrent(NormalizedLSTM, 4, 16), vectors(1000, 4)
    report = tg.interop.save_c(tmp_path / "m.c", model)
    found, ours = InC(tmp_path / "m.c", report).outputs(xs), expected(model, xs)
    exact = expected(model.to("float64"), xs.astype(np.float64))
    np.testing.assert_allclose(found, ours, atol=1e-5)
    np.testing.assert_allclose(found, exact, atol=1e-5)


@compiled
def test_a_cell_alone(tmp_path: Path) -> None:
    tg.manual_seed(2)
    cell, xs = tg.nn.LSTMCell(3, 5), vectors(50, 3)
    report = tg.interop.save_c(tmp_path / "m.c", cell)
    found = InC(tmp_path / "m.c", report).outputs(xs)
    state, wanted = None, []
    with tg.no_grad():
        for x in xs:
            state = cell(tg.tensor(x), state)
            wanted.append(state[0].numpy())
    np.testing.assert_allclose(found, wanted, atol=1e-6)


POOLS = ["last", "mean", "max"]


@compiled
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("embedding_dim, int8", [(None, False), (4, False), (4, True)])
def test_a_classifier_has_the_logits_of_the_steps_so_far(
    pool: str, embedding_dim: Any, int8: bool, tmp_path: Path
) -> None:
    tg.manual_seed(0)
    vocab = tg.data.text.Vocabulary("the time machine")
    model = tg.models.Classifier(
        tg.nn.LSTMCell, vocab, ["no", "*/ yes"], 8, embedding_dim=embedding_dim, pool=pool,
        num_layers=2, dropout=0.3,
    )  # fmt: skip
    report = tg.interop.save_c(tmp_path / "m.c", model, int8=int8)
    ids, in_c = np.array(vocab.encode("time the machine")), InC(tmp_path / "m.c", report)
    found = np.full(20, -1, np.int32)
    assert in_c.call("encode", b"time the machine", at(found), 20) == len(ids)
    np.testing.assert_array_equal(found[: len(ids)], ids)
    with model.evaluating():
        wanted = [model(tg.tensor(ids[None, : n + 1])).numpy()[0] for n in range(len(ids))]
    np.testing.assert_allclose(in_c.outputs(ids), wanted, atol=0.02 if int8 else 1e-6)


@compiled
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("targets", [None, 2])
def test_a_forecaster_computes_in_the_unit_of_the_data(
    pool: str, targets: Any, tmp_path: Path
) -> None:
    tg.manual_seed(0)
    model = tg.models.Forecaster(tg.nn.GRUCell, 3, 8, ahead=4, num_targets=targets, pool=pool)
    data = 20 + 5 * vectors(60, 3)
    for name in ("standardised", "scaled"):
        path = tmp_path / f"{name}.c"
        found = InC(path, tg.interop.save_c(path, model)).outputs(data)
        for n in (1, 7, 60):
            wanted = model.predict(data[:n]).ravel()
            np.testing.assert_allclose(found[n - 1], wanted, rtol=2e-6, atol=1e-6)
        model.scaler.fit(data)


class FinalState(tg.nn.Module):
    """A head on parts of the final states, of which the step has those so far."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.rnn, self.head, self.both = tg.nn.LSTM(3, 6, num_layers=2), tg.nn.Linear(6, 4), both

    def forward(self, x: Any) -> Any:
        output, (h, c) = self.rnn(x)
        if not self.both:
            return self.head(output), (h, c)
        return self.head(c[0] + h[len(h) - 1]), (h, c)


@compiled
@pytest.mark.parametrize("both", [False, True])
def test_a_module_may_read_final_states(both: bool, tmp_path: Path) -> None:
    tg.manual_seed(0)
    model, xs = FinalState(both), vectors(20, 3)
    found = InC(tmp_path / "m.c", tg.interop.save_c(tmp_path / "m.c", model)).outputs(xs)
    if not both:
        wanted = expected(model, xs)
    else:
        parts = [model(tg.tensor(xs[:n, None]))[0] for n in range(1, 21)]
        wanted = np.concatenate([y.numpy() for y in parts])
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@compiled
@settings(max_examples=6)
@given(
    sizes=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    layers=st.integers(1, 3),
    kind=st.sampled_from([tg.nn.LSTM, tg.nn.GRU, tg.nn.RNN]),
)
def test_any_size(
    tmp_path_factory: pytest.TempPathFactory, sizes: tuple[int, int], layers: int, kind: Any
) -> None:
    """Of all remainders of the blocks of a product."""
    path = tmp_path_factory.mktemp("sizes") / "m.c"
    model = kind(*sizes, num_layers=layers, rng=sizes[0])
    report = tg.interop.save_c(path, model)
    xs = vectors(20, sizes[0])
    np.testing.assert_allclose(InC(path, report).outputs(xs), expected(model, xs), atol=1e-6)


@compiled
def test_two_networks_in_one_program(tmp_path: Path) -> None:
    """With prefixes their names differ; the sizes are constants of the same prefix."""
    models = {"first_": tg.nn.GRU(3, 4), "second_": tg.nn.LSTM(2, 5)}
    text = ""
    reports = {}
    for prefix, model in models.items():
        path = tmp_path / f"{prefix}.c"
        reports[prefix] = tg.interop.save_c(path, model, prefix=prefix)
        text += f'#include "{path.name}"\n'
        assert f"{prefix.upper()}STATE_SIZE = {reports[prefix].state_size}" in path.read_text()
        build(path)
    xs = {p: vectors(9, reports[p].input_size) for p in models}
    objects = []
    for prefix in models:
        objects.append(str(tmp_path / f"{prefix}.o"))
        source = str(tmp_path / f"{prefix}.c")
        subprocess.run([CC, *STRICT, "-fPIC", "-c", source, "-o", objects[-1]], check=True)
    both = tmp_path / "both.so"
    subprocess.run([CC, "-shared", *objects, "-o", str(both), "-lm"], check=True)
    for prefix, model in models.items():
        network = InC(tmp_path / f"{prefix}.c", reports[prefix], prefix)
        network.library = ctypes.CDLL(str(both))
        found = network.outputs(xs[prefix])
        np.testing.assert_allclose(found, expected(model, xs[prefix]), atol=1e-6)


@compiled
def test_a_program_reads_vectors(tmp_path: Path) -> None:
    model, xs = tg.nn.GRU(3, 4), vectors(5, 3)
    tg.interop.save_c(tmp_path / "m.c", model)
    given = " ".join(f"{x:.9g}" for x in xs.ravel())
    printed = run_program(tmp_path, tmp_path / "m.c", given=given)
    found = [[float(x) for x in line.split()] for line in printed.splitlines()]
    np.testing.assert_allclose(found, expected(model, xs), atol=1e-6)


# -- language models -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def language() -> tuple[tg.models.RecurrentLM, str]:
    """Return a model of the text of the main job, trained for seconds, and held-out text."""
    text = tg.data.text.corpus("python_docs")[:44_000]
    train, held_out = text[:40_000], text[40_000:]
    vocab = tg.data.text.Vocabulary(train)
    model = tg.models.RecurrentLM(tg.nn.LSTMCell, vocab, 64, embedding_dim=64, rng=0)
    tg.fit(
        model,
        tg.data.text.sequential(vocab.encode(train), batch_size=16, steps=32),
        loss=tg.functional.cross_entropy,
        optimizer=tg.optim.Adam(model.parameters(), lr=1e-2),
        epochs=3,
    )
    return model, held_out


def losses(network: InC, ids: Any) -> Any:
    """Return -log p of each id after the ones before it."""
    y = network.outputs(np.concatenate([[0], ids[:-1]])).astype(np.float64)
    return np.log(np.exp(y).sum(axis=1)) - y[np.arange(len(ids)), ids]


@compiled
def test_a_program_writes_the_models_text(language: Any, tmp_path: Path) -> None:
    model, held_out = language
    tg.interop.save_c(tmp_path / "lm.c", model)
    for prefix in ("the ", "", held_out[:500]):
        written = run_program(tmp_path, tmp_path / "lm.c", prefix, "300", "0")
        assert written == prefix + model.sample(prefix, 300, top_k=1) + "\n"


@compiled
def test_perplexity_in_int8_and_sizes(language: Any, tmp_path: Path) -> None:
    model, held_out = language
    ids = model.vocabulary.encode(held_out).astype(np.int32)
    reports, perplexity = {}, {}
    for int8 in (False, True):
        path = tmp_path / f"{int8}.c"
        reports[int8] = tg.interop.save_c(path, model, int8=int8)
        perplexity[int8] = np.exp(losses(InC(path, reports[int8]), ids).mean())
    assert abs(perplexity[False] - model.perplexity(ids)) < 1e-4
    assert perplexity[True] < 1.02 * perplexity[False]
    assert reports[False].flash_bytes > 3.5 * reports[True].flash_bytes
    size = {int8: (tmp_path / f"{int8}.c").stat().st_size for int8 in (False, True)}
    assert size[False] > 3.5 * size[True]
    assert reports[True].parameters == sum(p.size for p in model.parameters()) - 256  # two biases


def uniform(seed: int) -> float:
    """Return the number that the generator in the file makes of a counter."""
    mask = 0xFFFFFFFF
    x = seed
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ x >> shift) * factor & mask
    return ((x ^ x >> 16) >> 8) / 2**24


@compiled
def test_tokens_are_drawn_by_the_documented_generator(language: Any, tmp_path: Path) -> None:
    model, _ = language
    report = tg.interop.save_c(tmp_path / "lm.c", model)
    network, T, count = InC(tmp_path / "lm.c", report), 0.8, 60
    seed, tokens = ctypes.c_uint32(7), np.zeros(count, np.int32)
    prefix = model.vocabulary.encode("the ").astype(np.int32)
    arguments = (ctypes.c_int(count), ctypes.c_float(T), ctypes.byref(seed), -1, at(tokens))
    assert network.call("generate", at(prefix), len(prefix), *arguments) == count
    ids, number = [*prefix], 7
    for token in tokens:
        number = (number + 0x9E3779B9) & 0xFFFFFFFF
        p = np.exp(model.log_probs(ids)[1:] / T)
        near = np.searchsorted(p.cumsum() / p.sum(), uniform(number) + np.array([-1e-5, 1e-5])) + 1
        assert near[0] <= token <= near[1]
        ids.append(token)
    assert seed.value == number


@compiled
def test_a_text_ends_before_the_stop_token(language: Any, tmp_path: Path) -> None:
    model, _ = language
    report = tg.interop.save_c(tmp_path / "lm.c", model)
    network, seed = InC(tmp_path / "lm.c", report), ctypes.c_uint32(0)
    greedy = model.sample(model.vocabulary.encode("the "), 20, top_k=1)
    stop, tokens = int(greedy[5]), np.full(20, -7, np.int32)
    prefix = model.vocabulary.encode("the ").astype(np.int32)
    arguments = (20, ctypes.c_float(0), ctypes.byref(seed), stop, at(tokens))
    wrote = network.call("generate", at(prefix), len(prefix), *arguments)
    assert wrote == [*greedy].index(stop)
    assert [*tokens[:wrote]] == [*greedy[:wrote]]


def cell_of(kind: Any, **options: Any) -> Callable[[Any], Any]:
    return lambda vocab: tg.models.RecurrentLM(kind, vocab, 12, **options)


@compiled
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        cell_of(tg.nn.GRUCell),
        cell_of(MinimalGatedUnit, embedding_dim=5, num_layers=2),
        lambda vocab: tg.models.NeuralLM(4, vocab, 5, 11, direct=True, dropout=0.2),
        lambda vocab: tg.models.NeuralLM(1, vocab, 5, 11),
    ],
    ids=["one-hot", "embedded", "window", "bigram"],
)
def test_other_language_models(make: Any, int8: bool, tmp_path: Path) -> None:
    tg.manual_seed(4)
    text = '道可道，非常道。名可名，非常名。é ?\\"??/\n\t' * 3
    vocab = tg.data.text.Vocabulary(text)
    model = make(vocab)
    report = tg.interop.save_c(tmp_path / "lm.c", model, int8=int8)
    network, ids = InC(tmp_path / "lm.c", report), vocab.encode(text).astype(np.int32)
    found, ours = losses(network, ids), model.losses(ids)
    assert abs(found - ours).max() < (0.1 if int8 else 3e-6)
    made = np.zeros(200, np.int32)
    given = (text + "🚀x").encode()
    count = network.call("encode", given, at(made), 200)
    assert [*made[:count]] == [*vocab.encode(text + "🚀x")]
    network.library.token_text.restype = ctypes.c_char_p
    assert b"".join(network.library.token_text(int(i)) for i in ids).decode() == text
    if not int8:
        written = run_program(tmp_path, tmp_path / "lm.c", "道", "40")
        assert written == "道" + model.sample("道", 40, top_k=1) + "\n"


@compiled
def test_words(tmp_path: Path) -> None:
    text = "the time traveller, for so it will be: convenient to speak of him! "
    vocab = tg.data.text.Vocabulary(text * 2, level="word")
    model = tg.models.RecurrentLM(tg.nn.GRUCell, vocab, 8, embedding_dim=4, rng=0)
    report = tg.interop.save_c(tmp_path / "lm.c", model)
    network, made = InC(tmp_path / "lm.c", report), np.zeros(99, np.int32)
    for line in (text, " times  the\n\ttime,,été of_him", ""):
        count = network.call("encode", line.encode(), at(made), 99)
        assert [*made[:count]] == [*vocab.encode(line)]
    written = run_program(tmp_path, tmp_path / "lm.c", "the time", "12")
    assert written == "the time " + model.sample("the time", 12, top_k=1) + "\n"


@compiled
def test_a_module_that_begins_with_an_embedding(tmp_path: Path) -> None:
    class Tagger(tg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = tg.nn.Embedding(11, 5)
            self.rnn = tg.nn.GRU(5, 6)
            self.head = tg.nn.Linear(6, 3)

        def forward(self, ids: Any) -> Any:
            return tg.log_softmax(self.head(self.rnn(self.embedding(ids))[0]), axis=-1)

    model, ids = Tagger(), np.arange(40) * 7 % 11
    report = tg.interop.save_c(tmp_path / "m.c", model)
    with tg.no_grad():
        wanted = model(tg.tensor(ids[:, None])).numpy()[:, 0]
    found = InC(tmp_path / "m.c", report).outputs(ids)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


# -- numbers ---------------------------------------------------------------------------------------


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_literal_is_exact(x: float) -> None:
    literal = c_text.literal(x)
    found = float.fromhex(literal.removesuffix("f"))
    assert found == x
    assert str(found)[0] == str(x)[0]  # the sign of zero


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.floats(-100, 100, width=32),
    ),
    st.sampled_from([0, 1]),
)
def test_int8_is_within_half_a_level(matrix: Any, axis: int) -> None:
    levels, scale = c_text.quantized(matrix, axis)
    scale = np.expand_dims(scale.astype(np.float64), axis)
    error = abs(levels * scale - matrix)
    assert levels.dtype == np.int8 and (error <= scale * 0.501 + 1e-37).all()
    assert not levels[
        np.broadcast_to(abs(matrix).max(axis=axis, keepdims=True) == 0, matrix.shape)
    ].any()


@given(st.integers(1, 100), st.integers(1, 5))
def test_blocks_hold_each_weight_once(outputs: int, inputs: int) -> None:
    matrix = np.arange(inputs * outputs).reshape(inputs, outputs)
    assert sorted(c_text.blocks(matrix)) == [*range(inputs * outputs)]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_strings_are_plain_ascii_without_trigraphs(text: str) -> None:
    literal = c_text.string(text)
    assert literal.isascii() and literal.isprintable() and "??" not in literal
    body = literal[1:-1].replace("\\?", "?").encode().decode("unicode_escape")
    assert body.encode("latin-1").decode() == text


def test_the_report_has_the_bytes(tmp_path: Path) -> None:
    report = tg.interop.save_c(tmp_path / "m.c", tg.nn.GRU(3, 8))
    shapes = 24 * 3 + 24 * 8 + 24 + 8  # two biases are added, but for the part of n
    assert report.parameters == shapes
    assert report.flash_bytes == 4 * shapes
    assert f"flash {report.flash_bytes:,} bytes" in str(report)
    assert (report.input_size, report.state_size, report.output_size) == (3, 8, 8)


def test_the_file_names_nothing_but_headers_of_c(tmp_path: Path) -> None:
    tg.interop.save_c(tmp_path / "m.c", tg.nn.LSTM(3, 8))
    text = (tmp_path / "m.c").read_text().partition("#ifdef TINYGRAD_RNN_MAIN")[0]
    headers = {line.split()[1] for line in text.splitlines() if line.startswith("#include")}
    assert headers == {"<math.h>", "<stdbool.h>", "<stdint.h>"}
    assert "alloc" not in text.replace("without allocation", "")
    assert max(map(len, text.splitlines())) < 400


# -- refusals --------------------------------------------------------------------------------------


class Branching(MinimalGatedUnit):
    def step(self, z: Any, h: Any) -> Any:
        return super().step(z, h) if h.sum().item() > 0 else h


class Counting(MinimalGatedUnit):
    count = 0

    def step(self, z: Any, h: Any) -> Any:
        self.count += 1
        return super().step(z, h)


class Noisy(MinimalGatedUnit):
    def step(self, z: Any, h: Any) -> Any:
        return super().step(z, h) + tg.randn(*h.shape)


class Dropping(MinimalGatedUnit):
    def step(self, z: Any, h: Any) -> Any:
        return super().step(z, tg.functional.dropout(h, 0.5, True))


class Strongest(MinimalGatedUnit):
    def step(self, z: Any, h: Any) -> Any:
        return super().step(z, h.max(axis=0, keepdims=True))


class Positioned(MinimalGatedUnit):
    def project(self, x: Any) -> Any:
        return (
            super().project(x) + tg.arange(x.shape[0]).astype(tg.float32).reshape(-1, 1, 1)
            if x.ndim == 3
            else super().project(x)
        )


class Einsum(MinimalGatedUnit):
    def step(self, z: Any, h: Any) -> Any:
        return super().step(z, tg.einsum("bh,hk->bk", h, self.U_f.weight))


def function(forward: Callable[..., Any], *parts: Any) -> tg.nn.Module:
    """Return a module of parts whose forward is a function."""

    class Model(tg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = [*parts]

        def forward(self, x: Any) -> Any:
            return forward(x, *self.parts)

    return Model()


def of(cell: Any) -> Any:
    return tg.nn.Recurrent(cell, 3, 4)


def with_nan(name: str, value: float) -> Any:
    model = tg.nn.LSTM(3, 4)
    model.cells[0].weight_hh.data[1, 2] = value
    return model


def encoder_decoder(x: Any, a: Any, b: Any) -> Any:
    y, state = a(x)
    return b(y, state)[0]


class Reversed(tg.nn.GRU):
    def forward(self, x: Any, *args: Any, **options: Any) -> Any:
        return super().forward(x[::-1], *args, **options)


VOCABULARY = tg.data.text.Vocabulary("abc")
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: tg.nn.LSTM(3, 4, bidirectional=True), ArgumentError, "bidirectional.*the future"),
    (lambda: tg.models.NGram(2, VOCABULARY), ArgumentError, "got NGram: a table of counts"),
    (lambda: tg.nn.LSTM, ArgumentError, "got LSTM: pass the model"),
    (lambda: None, ArgumentError, "a module is expected"),
    (lambda: tg.nn.GRU(3, 4, dtype=tg.float64), DTypeError, r"weight_ih_l0 is float64.*float32"),
    (lambda: with_nan("", np.nan), ArgumentError, "weight_hh_l0 contains nan"),
    (lambda: with_nan("", -np.inf), ArgumentError, "weight_hh_l0 contains -inf"),
    (lambda: of(Branching), ArgumentError, "cannot be traced.*value.*test_c_export.py"),
    (lambda: of(Counting), ArgumentError, "cannot be traced: assigns.*count"),
    (lambda: of(Noisy), ArgumentError, "draws random numbers"),
    (lambda: of(Dropping), ArgumentError, "draws dropout masks"),
    (lambda: of(Strongest), ArgumentError, "calls max over other axes than the last"),
    (lambda: of(Positioned), ArgumentError, "something else on a sequence"),
    (lambda: of(Einsum), ArgumentError, "cannot be traced.*einsum"),
    (lambda: Reversed(3, 4), ArgumentError, "Reversed has a forward of its own"),
    (lambda: tg.nn.Linear(3, 4), ArgumentError, "no recurrent layer"),
    (
        lambda: function(encoder_decoder, tg.nn.GRU(3, 4), tg.nn.GRU(4, 4)),
        ArgumentError,
        "passes a state to GRU",
    ),
    (
        lambda: function(lambda x, a: a(a(x)[0])[0], tg.nn.GRU(3, 3)),
        ArgumentError,
        "calls a recurrent layer twice",
    ),
    (
        lambda: function(lambda x, a, b: a(x)[0], tg.nn.GRU(3, 3), tg.nn.LSTM(3, 3)),
        ArgumentError,
        "does not call its layer LSTM",
    ),
    (
        lambda: function(lambda x, a: a(x)[1].sum(axis=0), tg.nn.GRU(3, 3)),
        ArgumentError,
        r"the final state of a layer by sum: take whole layers, such as h\[-1\]",
    ),
    (
        lambda: function(lambda x, a: a(x)[1][:1], tg.nn.GRU(3, 3)),
        ArgumentError,
        "a slice of the final state",
    ),
    (
        lambda: function(lambda x, a: a(x)[0][-1], tg.nn.GRU(3, 3)),
        ArgumentError,
        r"the last step of a sequence is the final state, h\[-1\]",
    ),
    (
        lambda: function(lambda x, a: a(x)[0] + a.cells[0].bias_hh[:3] * len(x), tg.nn.GRU(3, 3)),
        ArgumentError,
        "something else on a sequence",
    ),
    (
        lambda: tg.models.Classifier(tg.nn.GRUCell, 3, 2, 4, bidirectional=True),
        ArgumentError,
        "bidirectional.*the future",
    ),
    (lambda: function(lambda x, a: a(x)[0][-1], tg.nn.GRU(3, 3)), ArgumentError, "indexes"),
    (
        lambda: function(lambda x, a: a(x, lengths=[2])[0], tg.nn.GRU(3, 3)),
        ArgumentError,
        "passes lengths",
    ),
    (
        lambda: function(lambda x, a: {"y": a(x)[0]}, tg.nn.GRU(3, 3)),
        ArgumentError,
        "returns a dict",
    ),
]


@pytest.mark.parametrize(("make", "kind", "message"), REFUSED, ids=[m for *_, m in REFUSED])
@pytest.mark.parametrize("int8", [False, True])
def test_what_cannot_be_written_is_refused(
    make: Any, kind: type[Exception], message: str, int8: bool, tmp_path: Path
) -> None:
    (tmp_path / "m.c").write_text("old")
    model = make()
    before = (
        {id(m): dict(vars(m)) for m in model.modules()} if isinstance(model, tg.nn.Module) else {}
    )
    with pytest.raises(kind, match=f"(?s)^save_c: .*{message}") as caught:
        tg.interop.save_c(tmp_path / "m.c", model, int8=int8)
    assert type(caught.value) is kind
    assert [p.name for p in tmp_path.iterdir()] == ["m.c"]
    assert (tmp_path / "m.c").read_text() == "old"
    for m in model.modules() if before else ():
        assert vars(m).keys() - {"weight_hh"} == before[id(m)].keys() - {"weight_hh"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": "2nd"}, "prefix is the beginning of names in C.*'2nd'"),
        ({"prefix": "é"}, "prefix"),
        ({"int8": "yes"}, "int8 is True or False, got 'yes'"),
        ({"input_size": 0}, "input_size is a positive integer, got 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=f"save_c: {message}"):
        tg.interop.save_c(tmp_path / "m.c", tg.nn.GRU(2, 2), **options)


@pytest.mark.parametrize("token", ["\0", "\ud800"])
def test_a_token_that_is_no_string_in_c(token: str, tmp_path: Path) -> None:
    model = tg.models.RecurrentLM(tg.nn.GRUCell, tg.data.text.Vocabulary("ab" + token), 4)
    with pytest.raises(ArgumentError, match=r"token \d of the vocabulary, .* cannot be a string"):
        tg.interop.save_c(tmp_path / "m.c", model)


def test_the_model_is_as_before(tmp_path: Path) -> None:
    """The mode of training, the generator, the forward of each layer, and the parameters."""
    model = Classifier().train()
    before, x = model.state_dict(), tg.randn(3, 2, 4)
    tg.manual_seed(5)
    wanted = tg.rand(1).item()
    tg.manual_seed(5)
    tg.interop.save_c(tmp_path / "m.c", model)
    assert tg.rand(1).item() == wanted
    assert model.training and model.below.training
    assert "forward" not in vars(model.below)
    assert all((before[k] == v).all() for k, v in model.state_dict().items())
    assert model(x)[0].shape == (3, 2, 5)
