"""Weights exchanged with the libraries themselves; `tools/exchange_matrix.py` runs their layers.

The tests of Keras, Flax, Equinox and Haiku are marked ``frameworks``, and have the versions of the
extra of this name; those of PyTorch ``oracle``. The other libraries are in the matrix only.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from test_architecture import tool

import tinygrad_rnn as tg

matrix = tool("exchange_matrix")
LIMIT = 1e-6  # of float32
MARKED = ("keras", "nnx", "linen", "equinox", "haiku")
MODULES = {"nnx": "flax", "linen": "flax"}
os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # less time to compile


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Keras with NumPy 2


@pytest.fixture(autouse=True)
def their_seeds() -> Iterator[None]:
    """Libraries draw seeds from global generators."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])  # noqa: NPY002


def cases() -> list[Any]:
    """Return the layers of the libraries that tests run, with their marks."""
    found = []
    for runner in matrix.runners(["torch", *MARKED]):
        mark = pytest.mark.oracle if runner.row.library == "torch" else pytest.mark.frameworks
        directions = "both" if runner.both else "forward"
        name = f"{runner.row.library} {runner.row.cell} {directions} {bool(runner.options)}"
        found.append(pytest.param(runner, id=name, marks=mark))
    return found


SEVERAL_GATES = [
    case
    for case in cases()
    if "forward False" in str(case.id) and len(case.values[0].row.gates) > 1
]


def library(name: str) -> Any:
    """Return a module of a library, or skip the test."""
    pytest.importorskip(MODULES.get(name, name))


@pytest.mark.parametrize("runner", cases())
def test_layers_compute_the_same_after_an_exchange(runner: Any) -> None:
    library(runner.row.library)
    assert matrix.out_of_theirs(runner, seed=1) < LIMIT
    found = matrix.into_theirs(runner, seed=1)
    if found is None:  # refused
        assert (runner.row.library, runner.row.layer) == ("nnx", "gru")
    else:
        assert found < LIMIT


@pytest.mark.parametrize("runner", SEVERAL_GATES)
def test_the_check_notices_a_wrong_order_of_the_gates(
    runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    library(runner.row.library)
    right = tg.interop.convert

    def wrong(*arguments: Any, **options: Any) -> Any:
        if "to" in options:
            return right(*arguments, **options)
        state = right(*arguments, **options)
        return {name: np.roll(array, matrix.H, 0) for name, array in state.items()}

    monkeypatch.setattr(tg.interop, "convert", wrong)
    assert matrix.out_of_theirs(runner, seed=1) > 1e-3


# -- networks --------------------------------------------------------------------------------------

V, E, H = 11, 3, 4


class Net(tg.nn.Module):
    """An embedding, two recurrent layers in both directions, a normalisation and a head."""

    def __init__(self, rnn: Any, eps: float) -> None:
        super().__init__()
        self.rows, self.rnn = tg.nn.Embedding(V, E), rnn
        self.norm, self.head = tg.nn.LayerNorm(2 * H, eps=eps), tg.nn.Linear(2 * H, V)

    def forward(self, ids: Any) -> Any:
        return self.head(self.norm(self.rnn(self.rows(ids))[0]))


def ids() -> Any:
    return np.random.default_rng(0).integers(0, V, (6, 2))


def randomised(arrays: Any) -> Any:
    return matrix.random_like(arrays, np.random.default_rng(0))


@pytest.mark.frameworks
def test_a_network_of_keras() -> None:
    keras = pytest.importorskip("keras")

    def gru() -> Any:
        return keras.layers.Bidirectional(keras.layers.GRU(H, return_sequences=True))

    parts = {
        "rows": keras.layers.Embedding(V, E),
        "rnn": [gru(), gru()],
        "norm": keras.layers.LayerNormalization(),
        "head": keras.layers.Dense(V),
    }
    layers = [parts["rows"], *parts["rnn"], parts["norm"], parts["head"]]
    model = keras.Sequential(layers)
    model(ids().T)
    model.set_weights(randomised(model.get_weights()))
    state, config = (
        {
            name: [read(part) for part in layer] if isinstance(layer, list) else read(layer)
            for name, layer in parts.items()
        }
        for read in (lambda layer: layer.get_weights(), lambda layer: layer.get_config())
    )
    net = Net(tg.nn.GRU(E, H, num_layers=2, bidirectional=True), eps=1e-3)
    tg.interop.from_keras(state, net, config)
    expected = np.asarray(model(ids().T)).swapaxes(0, 1)
    assert np.abs(net(ids()).numpy() - expected).max() < LIMIT
    paths = {
        name: {v.path: v for part in (p if isinstance(p, list) else [p]) for v in part.weights}
        for name, p in parts.items()
    }
    other = Net(tg.nn.GRU(E, H, num_layers=2, bidirectional=True), eps=1e-3)
    tg.interop.from_keras(paths, other)
    np.testing.assert_equal(other.state_dict(), net.state_dict())

    model.set_weights([0 * array for array in model.get_weights()])
    returned = tg.interop.to_keras(net)
    for name, layer in parts.items():
        for part, weights in zip(layer, returned[name], strict=True) if name == "rnn" else [
            (layer, returned[name])
        ]:  # fmt: skip
            part.set_weights(weights)
    found = np.asarray(model(ids().T)).swapaxes(0, 1)
    assert np.abs(found - expected).max() < LIMIT


@pytest.mark.frameworks
def test_a_network_of_linen() -> None:
    linen, jax = pytest.importorskip("flax.linen"), pytest.importorskip("jax")

    class Theirs(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = linen.Embed(V, E)(x)
            for _ in range(2):
                sides = [linen.RNN(linen.OptimizedLSTMCell(H)) for _ in range(2)]
                x = linen.Bidirectional(*sides)(x)
            return linen.Dense(V)(linen.LayerNorm()(x))

    model = Theirs()
    variables = randomised(model.init(jax.random.key(0), ids().T))
    params = variables["params"]
    cells = {name: value for name, value in params.items() if "LSTM" in name}
    assert len(cells) == 4  # of both directions, in the order of the calls
    first, second, third, fourth = (cells[name] for name in sorted(cells))
    state = {
        "rows": params["Embed_0"],
        "rnn": [{"forward": first, "backward": second}, {"forward": third, "backward": fourth}],
        "norm": params["LayerNorm_0"],
        "head": params["Dense_0"],
    }
    net = Net(tg.nn.LSTM(E, H, num_layers=2, bidirectional=True), eps=1e-6)
    tg.interop.from_flax(state, net)
    expected = np.asarray(model.apply(variables, ids().T)).swapaxes(0, 1)
    assert np.abs(net(ids()).numpy() - expected).max() < LIMIT


@pytest.mark.frameworks
def test_a_network_of_nnx() -> None:
    nnx = pytest.importorskip("flax.nnx")
    rngs = nnx.Rngs(0)

    def rnn(inputs: int) -> Any:
        sides = [nnx.RNN(nnx.OptimizedLSTMCell(inputs, H, rngs=rngs)) for _ in range(2)]
        return nnx.Bidirectional(*sides)

    class Theirs(nnx.Module):
        def __init__(self) -> None:
            self.rows, self.rnn = nnx.Embed(V, E, rngs=rngs), nnx.List([rnn(E), rnn(2 * H)])
            self.norm = nnx.LayerNorm(2 * H, rngs=rngs)
            self.head = nnx.Linear(2 * H, V, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = self.rows(x)
            for layer in self.rnn:
                x = layer(x)
            return self.head(self.norm(x))

    model = Theirs()
    own = nnx.state(model, nnx.Param)
    nnx.replace_by_pure_dict(own, matrix.jax_arrays(randomised(nnx.to_pure_dict(own))))
    nnx.update(model, own)
    expected = np.asarray(model(ids().T)).swapaxes(0, 1)
    net = Net(tg.nn.LSTM(E, H, num_layers=2, bidirectional=True), eps=1e-6)
    for state in (nnx.to_pure_dict(nnx.state(model, nnx.Param)), nnx.state(model)):
        net.load_state_dict({name: 0 * array for name, array in net.state_dict().items()})
        tg.interop.from_flax(state, net)
        assert np.abs(net(ids()).numpy() - expected).max() < LIMIT
    returned = tg.interop.to_flax(net)
    returned["rnn"] = dict(enumerate(returned["rnn"]))
    blank = nnx.state(model, nnx.Param)
    nnx.replace_by_pure_dict(blank, matrix.jax_arrays(returned))
    nnx.update(model, blank)
    assert np.abs(np.asarray(model(ids().T)).swapaxes(0, 1) - expected).max() < LIMIT


@pytest.mark.oracle
def test_a_network_of_pytorch() -> None:
    torch = pytest.importorskip("torch")

    class Theirs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = torch.nn.Embedding(V, E)
            self.rnn = torch.nn.LSTM(E, H, num_layers=2, bidirectional=True)
            self.norm, self.head = torch.nn.LayerNorm(2 * H), torch.nn.Linear(2 * H, V)

        def forward(self, ids: Any) -> Any:
            return self.head(self.norm(self.rnn(self.rows(ids))[0]))

    model = Theirs()
    net = Net(tg.nn.LSTM(E, H, num_layers=2, bidirectional=True), eps=1e-5)
    assert tg.interop.from_torch(model.state_dict(), net) is net
    expected = model(torch.tensor(ids())).detach().numpy()
    assert np.abs(net(ids()).numpy() - expected).max() < LIMIT
    other = Theirs()
    state = tg.interop.to_torch(net)
    other.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    np.testing.assert_array_equal(other(torch.tensor(ids())).detach().numpy(), expected)


# -- layers without recurrence ---------------------------------------------------------------------


@pytest.mark.frameworks
@pytest.mark.parametrize("name", ["equinox", "haiku"])
@pytest.mark.parametrize("layer", ["linear", "embedding", "layer_norm"])
def test_layers_without_recurrence(name: str, layer: str) -> None:
    jax, library = pytest.importorskip("jax"), pytest.importorskip(name)
    x = np.random.default_rng(0).standard_normal((5, E)).astype(np.float32)
    given = x if layer != "embedding" else ids()[:, 0]
    if name == "equinox":
        key = jax.random.key(0)
        module = {
            "linear": lambda: library.nn.Linear(E, H, key=key),
            "embedding": lambda: library.nn.Embedding(V, E, key=key),
            "layer_norm": lambda: library.nn.LayerNorm(E),
        }[layer]()
        names = [n for n, value in vars(module).items() if hasattr(value, "shape")]
        state = randomised({n: getattr(module, n) for n in names})
        arrays = [matrix.jax_arrays(state[n]) for n in names]
        module = library.tree_at(lambda m: [getattr(m, n) for n in names], module, arrays)
        expected, state = jax.vmap(module)(given), vars(module)
    else:
        apply = library.without_apply_rng(library.transform(lambda x: {
            "linear": lambda: library.Linear(H),
            "embedding": lambda: library.Embed(V, E),
            "layer_norm": lambda: library.LayerNorm(-1, True, True),
        }[layer]()(x)))  # fmt: skip
        state = randomised(apply.init(jax.random.key(0), given))
        expected = apply.apply(matrix.jax_arrays(state), given)
    ours = {
        "linear": lambda: tg.nn.Linear(E, H),
        "embedding": lambda: tg.nn.Embedding(V, E),
        "layer_norm": lambda: tg.nn.LayerNorm(E),
    }[layer]()
    ours.load_state_dict(tg.interop.convert(state, layer, library=name))
    assert np.abs(ours(given).numpy() - np.asarray(expected)).max() < LIMIT


@pytest.mark.frameworks
def test_settings_as_keras_has_them_are_known() -> None:
    layers = pytest.importorskip("keras").layers
    right = [
        (layers.LSTM(H), tg.nn.LSTM(E, H)),
        (layers.GRU(H), tg.nn.GRU(E, H)),
        (layers.GRU(H, reset_after=False), tg.nn.Recurrent(tg.nn.ResetBeforeGRUCell, E, H)),
        (layers.SimpleRNN(H), tg.nn.RNN(E, H)),
        (layers.SimpleRNN(H, activation="relu"), tg.nn.RNN(E, H, nonlinearity="relu")),
        (layers.Bidirectional(layers.LSTM(H)), tg.nn.LSTM(E, H, bidirectional=True)),
        (layers.Dense(H), tg.nn.Linear(E, H)),
        (layers.LayerNormalization(epsilon=1e-4), tg.nn.LayerNorm(E, eps=1e-4)),
    ]
    for layer, ours in right:
        layer.build((None, 5, E) if "Dense" not in layer.name else (None, E))
        tg.interop.from_keras(layer.get_weights(), ours, layer.get_config())
    wrong = [
        (layers.LSTM(H, activation="relu"), tg.nn.LSTM(E, H), "activation"),
        (layers.GRU(H, go_backwards=True), tg.nn.GRU(E, H), "go_backwards"),
        (layers.SimpleRNN(H, activation="relu"), tg.nn.RNN(E, H), "activation"),
        (layers.Dense(H, activation="relu"), tg.nn.Linear(E, H), "activation"),
        (layers.LayerNormalization(), tg.nn.LayerNorm(E), "eps"),
        (layers.Bidirectional(layers.GRU(H), merge_mode="ave"),
         tg.nn.GRU(E, H, bidirectional=True), "merge_mode"),
    ]  # fmt: skip
    for layer, ours, name in wrong:
        layer.build((None, 5, E))
        with pytest.raises(tg.errors.ArgumentError, match=name):
            tg.interop.from_keras(layer.get_weights(), ours, layer.get_config())


@pytest.mark.frameworks
def test_states_as_the_libraries_return_them() -> None:
    """Variables, JAX's arrays, bfloat16, attributes that are no arrays."""
    jax, nnx, eqx, keras = map(pytest.importorskip, ("jax", "flax.nnx", "equinox", "keras"))
    layer = keras.layers.LSTM(H)
    layer.build((None, 5, E))
    key = jax.random.key(0)
    half = nnx.LSTMCell(E, H, param_dtype="bfloat16", rngs=nnx.Rngs(0))
    states = [
        (layer.weights, "keras"),
        (vars(eqx.nn.LSTMCell(E, H, key=key)), "equinox"),
        (nnx.state(nnx.RNN(nnx.LSTMCell(E, H, rngs=nnx.Rngs(0)))), "flax"),
        (nnx.state(half), "nnx"),
    ]
    for state, name in states:
        ours = tg.interop.convert(state, "lstm", library=name)
        assert {array.dtype.name for array in ours.values()} == {"float32"}
        tg.nn.LSTM(E, H).load_state_dict(ours)
    bare = vars(eqx.nn.GRUCell(E, H, use_bias=False, key=key))
    assert [*tg.interop.convert(bare, "gru", library="equinox")] == ["weight_ih_l0", "weight_hh_l0"]
