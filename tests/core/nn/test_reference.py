"""The oracle under test: ``reference.py`` against hand-worked values and against PyTorch."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import reference

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One configuration of a recurrent layer, and random numbers that fit it."""

    kind: str
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    bidirectional: bool
    proj_size: int
    steps: int
    batch: int
    lengths: tuple[int, ...] | None
    with_state: bool
    seed: int

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that our layers, PyTorch's and the reference have in common."""
        names = ["input_size", "hidden_size", "num_layers", "bias", "bidirectional"]
        options = {name: getattr(self, name) for name in names}
        return options | ({"proj_size": self.proj_size} if self.kind == "lstm" else {})

    @property
    def output_shape(self) -> tuple[int, int, int]:
        width = (self.proj_size or self.hidden_size) * (1 + self.bidirectional)
        return (self.steps, self.batch, width)

    @property
    def state_shapes(self) -> list[tuple[int, int, int]]:
        rows = self.num_layers * (1 + self.bidirectional)
        h = (rows, self.batch, self.proj_size or self.hidden_size)
        return [h, (rows, self.batch, self.hidden_size)] if self.kind == "lstm" else [h]

    def normal(self, purpose: int, *shapes: tuple[int, ...]) -> list[Array]:
        """Random arrays of these shapes, the same ones for the same purpose."""
        rng = np.random.default_rng([self.seed, purpose])
        return [rng.standard_normal(shape) for shape in shapes]

    def weights(self) -> dict[str, Array]:
        shapes = reference.weight_shapes(self.kind, **self.options)
        arrays = self.normal(0, *shapes.values())
        return dict(zip(shapes, [0.7 * array for array in arrays], strict=True))

    def x(self) -> Array:
        return self.normal(1, (self.steps, self.batch, self.input_size))[0]

    def state(self) -> tuple[Array, ...] | None:
        return tuple(self.normal(2, *self.state_shapes)) if self.with_state else None

    def reference(self) -> tuple[Array, tuple[Array, ...]]:
        return reference.recurrent(self.kind, self.weights(), self.x(), self.state(), self.lengths)


@st.composite
def cases(
    draw: st.DrawFn, kind: str | None = None, smooth: bool = False, shortest: int = 1
) -> Case:
    """Draw a configuration over every option.

    ``smooth`` leaves out relu; ``shortest`` is the least length of a sequence (PyTorch refuses 0).
    """
    kinds = [kind] if kind else [k for k in reference.KINDS if not (smooth and k == "rnn_relu")]
    kind = draw(st.sampled_from(kinds))
    hidden_size = draw(st.integers(1, 4))
    steps = draw(st.integers(1, 6))
    batch = draw(st.integers(1, 4))
    ragged = st.lists(st.integers(shortest, steps), min_size=batch, max_size=batch).map(tuple)
    return Case(
        kind=kind,
        input_size=draw(st.integers(1, 4)),
        hidden_size=hidden_size,
        num_layers=draw(st.integers(1, 3)),
        bias=draw(st.booleans()),
        bidirectional=draw(st.booleans()),
        proj_size=draw(st.integers(0, hidden_size - 1)) if kind == "lstm" else 0,
        steps=steps,
        batch=batch,
        lengths=draw(st.none() | ragged),
        with_state=draw(st.booleans()),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def torch_layer(torch: Any, case: Case) -> Any:
    """PyTorch's layer of this case, in float64, with its weights."""
    options = dict(case.options)
    if case.kind.startswith("rnn"):
        options["nonlinearity"] = case.kind.removeprefix("rnn_")
    classes = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
    layer = classes.get(case.kind, torch.nn.RNN)(**options, dtype=torch.float64)
    layer.load_state_dict({k: torch.from_numpy(w) for k, w in case.weights().items()})
    return layer


def run_torch(
    torch: Any, layer: Any, x: Any, state: Any, lengths: tuple[int, ...] | None
) -> tuple[Any, tuple[Any, ...]]:
    """Run PyTorch's layer, ragged batches by its packed sequences; states are tuples."""
    if state is not None:
        state = state if len(state) == 2 else state[0]
    steps = len(x)
    if lengths is not None:
        pack = torch.nn.utils.rnn.pack_padded_sequence
        x = pack(x, torch.tensor(lengths), enforce_sorted=False)
    output, state = layer(x, state)
    if lengths is not None:
        unpack = torch.nn.utils.rnn.pad_packed_sequence
        output, _ = unpack(output, total_length=steps)
    return output, state if isinstance(state, tuple) else (state,)


@pytest.mark.oracle
@given(case=cases())
def test_outputs_and_states_equal_pytorch(case: Case) -> None:
    torch = pytest.importorskip("torch")
    state = case.state()
    output, final = run_torch(
        torch,
        torch_layer(torch, case),
        torch.from_numpy(case.x()),
        None if state is None else tuple(map(torch.from_numpy, state)),
        case.lengths,
    )
    expected, expected_final = case.reference()
    assert_allclose(expected, output.detach(), rtol=1e-11, atol=1e-11)
    for ours, theirs in zip(expected_final, final, strict=True):
        assert_allclose(ours, theirs.detach(), rtol=1e-11, atol=1e-11)


@pytest.mark.oracle
@given(case=cases())
def test_names_and_shapes_of_weights_equal_pytorch(case: Case) -> None:
    torch = pytest.importorskip("torch")
    theirs = {name: tuple(p.shape) for name, p in torch_layer(torch, case).named_parameters()}
    assert list(reference.weight_shapes(case.kind, **case.options).items()) == list(theirs.items())


def zeros(kind: str, hidden_size: int = 2, **options: Any) -> dict[str, Array]:
    shapes = reference.weight_shapes(kind, 1, hidden_size, **options)
    return {name: np.zeros(shape) for name, shape in shapes.items()}


def test_rnn_by_hand() -> None:
    weights = {
        "weight_ih_l0": np.array([[2.0]]),
        "weight_hh_l0": np.array([[0.5]]),
        "bias_ih_l0": np.array([1.0]),
        "bias_hh_l0": np.array([-4.0]),
    }
    x = np.array([2.0, 1.0, 3.0]).reshape(3, 1, 1)
    output, (h,) = reference.recurrent("rnn_relu", weights, x)
    assert output.ravel().tolist() == [1.0, 0.0, 3.0]  # 4-3, relu(2+0.5-3), 6+0-3
    assert h.ravel().tolist() == [3.0]
    output, _ = reference.recurrent("rnn_tanh", weights, x[:1])
    assert output.item() == np.tanh(1.0)


def test_gru_with_zero_weights_halves_its_state() -> None:
    state = (np.array([[[8.0, -4.0]]]),)
    _, (h,) = reference.recurrent("gru", zeros("gru"), np.ones((3, 1, 1)), state)
    assert h.ravel().tolist() == [1.0, -0.5]  # z = 1/2 and n = 0 at each of three steps


def test_gru_applies_the_reset_gate_after_the_bias() -> None:
    weights = zeros("gru", 1)
    weights["bias_hh_l0"] = np.array([0.0, 0.0, 2.0])  # r, z, n
    _, (h,) = reference.recurrent("gru", weights, np.ones((1, 1, 1)))
    assert_allclose(h.item(), 0.5 * np.tanh(0.5 * 2.0), rtol=1e-15)


def test_lstm_gates_stand_in_the_order_i_f_g_o() -> None:
    weights = zeros("lstm", 1)
    weights["bias_ih_l0"] = np.array([1.0, 2.0, 3.0, 4.0])
    state = (np.zeros((1, 1, 1)), np.full((1, 1, 1), 5.0))
    _, (h, c) = reference.recurrent("lstm", weights, np.ones((1, 1, 1)), state)
    i, f, o = (1 / (1 + np.exp(-bias)) for bias in (1.0, 2.0, 4.0))
    assert_allclose(c.item(), f * 5.0 + i * np.tanh(3.0), rtol=1e-14)
    assert_allclose(h.item(), o * np.tanh(c.item()), rtol=1e-14)


@given(case=cases())
def test_ragged_sequences_are_independent_and_zero_past_their_end(case: Case) -> None:
    output, final = case.reference()
    for b, length in enumerate(case.lengths or [case.steps] * case.batch):
        state = case.state()
        alone, alone_final = reference.recurrent(
            case.kind,
            case.weights(),
            case.x()[:length, b : b + 1],
            None if state is None else tuple(element[:, b : b + 1] for element in state),
        )
        assert (output[:length, b] == alone[:, 0]).all()
        assert (output[length:, b] == 0.0).all()
        for element, expected in zip(final, alone_final, strict=True):
            assert (element[:, b] == expected[:, 0]).all()


@given(st.integers(0, 2**32 - 1))
def test_differences_of_known_functions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, u, v = rng.uniform(-2.0, 2.0, (4, 5))
    slope = reference.difference(lambda a, b: np.sin(a) @ b**3, [x, y], [u, v])
    assert_allclose(slope, np.cos(x) * u @ y**3 + np.sin(x) @ (3 * y**2 * v), atol=1e-9)
    found = reference.gradient(lambda a: np.exp(a).prod(), x.reshape(1, 5) / 4)
    assert_allclose(found, np.full((1, 5), np.exp(x.sum() / 4)), rtol=1e-9)


def test_the_reference_imports_nothing_but_numpy() -> None:
    tree = ast.parse(Path(reference.__file__).read_text(encoding="utf-8"))
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or ".")
    assert imported == {"__future__", "collections.abc", "numpy", "numpy.typing", "typing"}
