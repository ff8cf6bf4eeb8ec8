"""Every row of the table of conventions, against the formulas of the libraries in NumPy."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import foreign_cells
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.interop import conventions
from tinygrad_rnn.interop.conventions import LIBRARIES, PLAIN, RECURRENT, Convention

ROWS = [pytest.param(row, id=f"{row.library} {row.cell}") for row in RECURRENT]
SMALL = 1e-12  # of float64
LARGE = 1e-4

Array = np.ndarray[Any, Any]
State = tuple[Array, ...]


def cell_here(row: Convention, inputs: int, H: int) -> Any:
    """Return our cell of a row, in float64."""
    kinds = {"lstm": tg.nn.LSTMCell, "gru": tg.nn.GRUCell, "rnn": tg.nn.RNNCell}
    kind = kinds.get(row.layer, tg.nn.ResetBeforeGRUCell)
    relu = row.config.get("nonlinearity") == "relu"
    return kind(inputs, H, dtype=tg.float64, rng=0, **({"nonlinearity": "relu"} if relu else {}))


def flat(tree: Any, where: str = "") -> dict[str, Array]:
    """Return the arrays of a result by paths."""
    if isinstance(tree, dict):
        return {k: v for key, part in tree.items() for k, v in flat(part, f"{where}{key}/").items()}
    return {where.rstrip("/"): np.asarray(tree)}


def cell_of(state: Any, row: Convention) -> dict[str, Array]:
    """Return the arrays of a converted cell by the keys of the NumPy formulas."""
    if row.library == "keras":
        return dict(zip(["kernel", "recurrent_kernel", "bias"], state, strict=False))
    arrays = flat(state)
    prefix = {"linen": "params/", "haiku": f"{row.inside}/"}.get(row.library, "")
    assert all(name.startswith(prefix) for name in arrays)
    return {name.removeprefix(prefix): array for name, array in arrays.items()}


def with_suffix(state: dict[str, Array], number: int = 0, reverse: bool = False) -> dict[str, Any]:
    return {f"{name}_l{number}{'_reverse' * reverse}": array for name, array in state.items()}


def uniform(rng: np.random.Generator, *shape: int) -> Array:
    return rng.uniform(-1, 1, shape)


def steps(row: Convention, rng: np.random.Generator, inputs: int, H: int) -> tuple[Array, State]:
    """Return an input and a state for one step of three sequences."""
    return uniform(rng, 3, inputs), tuple(
        uniform(rng, 3, H) for _ in range(2 if row.layer == "lstm" else 1)
    )


def step_here(cell: Any, x: Array, state: State) -> State:
    tensors = tuple(map(tg.tensor, state))
    new = cell(tg.tensor(x), tensors if len(tensors) == 2 else tensors[0])
    return tuple(part.numpy() for part in (new if isinstance(new, tuple) else (new,)))


def difference(one: State, other: State) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def difference_out(row: Convention, seed: int, inputs: int = 2, H: int = 3) -> float:
    """Return the difference after a state of the library is loaded here."""
    rng = np.random.default_rng(seed)
    named = foreign_cells.shapes(row.library, row.cell, inputs, H).items()
    theirs = {name: uniform(rng, *shape) for name, shape in named}
    cell = cell_here(row, inputs, H)
    ours = tg.interop.convert(theirs, row.layer, library=row.library)
    cell.load_state_dict({name.removesuffix("_l0"): array for name, array in ours.items()})
    x, state = steps(row, rng, inputs, H)
    expected = foreign_cells.STEPS[row.library, row.cell](theirs, x, state)
    return difference(step_here(cell, x, state), expected)


def difference_in(row: Convention, seed: int, inputs: int = 2, H: int = 3) -> float:
    """Return the difference after our state is loaded there."""
    rng = np.random.default_rng(seed)
    cell = cell_here(row, inputs, H)
    ours = {name: uniform(rng, *a.shape) for name, a in cell.state_dict().items()}
    if (row.library, row.layer) == ("nnx", "gru"):
        ours["bias_hh"][-H:] = 0
    cell.load_state_dict(ours)
    name = row.cell.split(",")[0] if row.library == "nnx" else None
    theirs = cell_of(tg.interop.convert(ours, row.layer, to=row.library, cell=name), row)
    named = foreign_cells.shapes(row.library, row.cell, inputs, H)
    assert {key: array.shape for key, array in theirs.items()} == named
    assert all(array.flags.c_contiguous for array in theirs.values())
    x, state = steps(row, rng, inputs, H)
    expected = foreign_cells.STEPS[row.library, row.cell](theirs, x, state)
    return difference(step_here(cell, x, state), expected)


def test_every_row_has_a_formula_and_every_library_a_row() -> None:
    assert {(row.library, row.cell) for row in RECURRENT} == {*foreign_cells.STEPS}
    assert {row.library for row in RECURRENT} == {*LIBRARIES}
    assert len(LIBRARIES) == 10


@pytest.mark.parametrize("row", ROWS)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1), inputs=st.integers(1, 4), H=st.integers(1, 4))
def test_both_ways_compute_the_same(row: Convention, seed: int, inputs: int, H: int) -> None:
    assert difference_out(row, seed, inputs, H) < SMALL
    assert difference_in(row, seed, inputs, H) < SMALL


# -- the checks above must be able to fail ---------------------------------------------------------


def mistakes(row: Convention) -> dict[str, dict[str, Any]]:
    """Return wrong conventions, all of which give the right shapes if I = H."""
    orders = ["".join(order) for order in itertools.permutations(row.gates)]
    found: dict[str, dict[str, Any]] = {
        f"gates {order}": {"gates": order} for order in orders if order != row.gates
    }
    if row.forget_offset:
        found["no 1 in the forget gate"] = {"forget_offset": 0.0}
    if row.complement:
        found["z as here"] = {"complement": ""}
    if row.layer == "rnn":
        found["transposed"] = {"transposed": not row.transposed}
    if row.layer == "gru" and row.bias_hh:
        found["biases swapped"] = {"bias_ih": row.bias_hh, "bias_hh": row.bias_ih}
    return found


MISTAKES = [
    pytest.param(row, change, id=f"{row.library} {row.cell}: {name}")
    for row in RECURRENT
    for name, change in mistakes(row).items()
]


@pytest.mark.parametrize(("row", "change"), MISTAKES)
def test_a_wrong_convention_is_noticed(
    row: Convention, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the order of the gates in the table, but the right one, the check fails."""
    wrong = tuple(dataclasses.replace(r, **change) if r == row else r for r in RECURRENT)
    monkeypatch.setattr(conventions, "RECURRENT", wrong)
    assert difference_out(row, 0, 3, 3) > LARGE
    assert difference_in(row, 0, 3, 3) > LARGE


@given(order=st.permutations("ifgo").map("".join), seed=st.integers(0, 2**32 - 1))
def test_weights_with_permuted_gates_load_and_compute_something_else(order: str, seed: int) -> None:
    """The mistake that no shape shows."""
    rng, H = np.random.default_rng(seed), 3
    cell = tg.nn.LSTMCell(2, H, dtype=tg.float64)
    ours = {name: uniform(rng, *a.shape) for name, a in cell.state_dict().items()}
    blocks = {gate: slice(i * H, (i + 1) * H) for i, gate in enumerate("ifgo")}
    rows = np.concatenate([np.arange(4 * H)[blocks[gate]] for gate in order])
    cell.load_state_dict({name: array[rows] for name, array in ours.items()})
    x, state = uniform(rng, 3, 2), (uniform(rng, 3, H), uniform(rng, 3, H))
    found = difference(step_here(cell, x, state), foreign_cells.torch_lstm(ours, x, state))
    assert (found < SMALL) == (order == "ifgo")


# -- stacks and directions -------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("both", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("layers", [1, 3])
def test_stacks_and_directions_return(row: Convention, both: bool, layers: int) -> None:
    """Out of a library and into it again is the same state, for any number of cells."""
    H, rng = 3, np.random.default_rng(0)
    options = {"num_layers": layers, "bidirectional": both, "dtype": tg.float64}
    layer = tg.nn.Recurrent(type(cell_here(row, 2, H)), 2, H, **options)
    ours = {name: uniform(rng, *a.shape) for name, a in layer.state_dict().items()}
    for name, array in ours.items():
        if name.startswith("bias_hh"):
            array[-H:] *= (row.library, row.layer) != ("nnx", "gru")
    name = row.cell.split(",")[0] if row.library == "nnx" else None
    theirs = tg.interop.convert(ours, row.layer, to=row.library, cell=name)
    found = tg.interop.convert(theirs, row.layer, library=row.library)
    assert [*found] == [*ours]
    for key, array in found.items():
        if key.startswith("weight"):
            np.testing.assert_array_equal(array, ours[key])
        else:
            other = key.replace("_ih", "_hh") if "_ih" in key else key.replace("_hh", "_ih")
            rows = slice(None) if row.layer != "gru" else slice(2 * H)
            np.testing.assert_allclose(
                (found[key] + found[other])[rows], (ours[key] + ours[other])[rows], rtol=1e-14
            )
            if row.layer == "gru":
                np.testing.assert_array_equal(array[2 * H :], ours[key][2 * H :])
    if row.library in ("nnx", "linen"):
        again = tg.interop.convert(theirs, row.layer, library="flax")
        np.testing.assert_equal(again, found)


def test_layers_are_ordered_by_their_numbers() -> None:
    """JAX sorts keys: cell_10 is in front of cell_2."""
    layer = tg.nn.LSTM(3, 3, num_layers=12)
    states = tg.interop.to_flax(layer, api="linen")
    assert isinstance(states, list) and len(states) == 12
    named = {f"LSTMCell_{i}": state["params"]["cell"] for i, state in enumerate(states)}
    ordered = dict(sorted(named.items()))
    assert [*ordered][:3] == ["LSTMCell_0", "LSTMCell_1", "LSTMCell_10"]
    found = tg.interop.convert({"params": ordered}, "lstm", library="linen")
    for name, array in layer.state_dict().items():
        if name.startswith("weight"):
            np.testing.assert_array_equal(found[name], array)


def test_paths_lists_and_files_of_keras_are_one_state() -> None:
    layer = tg.nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    lists = tg.interop.to_keras(layer)
    names = ["kernel", "recurrent_kernel", "bias"]
    paths = {
        f"bidirectional{'_1' * n}/{side}_lstm/lstm_cell/{name}": lists[n][3 * s + i]
        for n in range(2)
        for s, side in enumerate(("forward", "backward"))
        for i, name in enumerate(names)
    }
    file = {
        f"bidirectional{'_1' * n}": {
            f"{side}_layer": {
                "cell": {"vars": {str(i): lists[n][3 * s + i] for i in range(3)}},
                "vars": {},
            }
            for s, side in enumerate(("forward", "backward"))
        }
        for n in range(2)
    }
    expected = tg.interop.convert(lists, "lstm", library="keras")
    assert len(expected) == 16
    for state in (paths, file):
        np.testing.assert_equal(tg.interop.convert(state, "lstm", library="keras"), expected)


@pytest.mark.parametrize("layer", ["lstm", "gru", "reset_before_gru", "rnn"])
def test_keras_without_biases(layer: str) -> None:
    kind = {"lstm": "LSTMCell", "gru": "GRUCell", "rnn": "RNNCell"}.get(layer, "ResetBeforeGRUCell")
    ours = tg.nn.Recurrent(getattr(tg.nn, kind), 3, 4, bidirectional=True, bias=False)
    state = tg.interop.to_keras(ours)
    assert len(state) == 4
    np.testing.assert_equal(tg.interop.convert(state, layer, library="keras"), ours.state_dict())


@pytest.mark.parametrize("row", ROWS)
def test_layers_without_biases_are_held(row: Convention) -> None:
    """By zeros where a cell has biases in any case; by minus 1 where 1 is added to a gate."""
    rng, H = np.random.default_rng(0), 3
    with_biases = cell_here(row, 2, H)
    ours = {n: uniform(rng, *a.shape) for n, a in with_biases.state_dict().items() if "w" in n}
    name = row.cell.split(",")[0] if row.library == "nnx" else None
    theirs = cell_of(tg.interop.convert(ours, row.layer, to=row.library, cell=name), row)
    shapes = foreign_cells.shapes(row.library, row.cell, 2, H)
    assert ({*theirs} == {*shapes}) == (not row.bias_optional)
    zeros = {key: np.zeros(shape) for key, shape in shapes.items()}
    biases = {n: 0 * a for n, a in with_biases.state_dict().items() if "bias" in n}
    with_biases.load_state_dict({**ours, **biases})
    x, state = steps(row, rng, 2, H)
    expected = foreign_cells.STEPS[row.library, row.cell]({**zeros, **theirs}, x, state)
    assert difference(step_here(with_biases, x, state), expected) < SMALL


def test_the_second_bias_of_haiku_can_be_missing() -> None:
    """That is its double_bias=False."""
    state = {"rnn/linear": {"w": np.ones((3, 4)), "b": np.ones(4)}}
    ours = tg.interop.convert(state | {"rnn/linear_1": {"w": np.ones((4, 4))}}, "rnn", "haiku")
    assert ours["bias_ih_l0"].all() and not ours["bias_hh_l0"].any()


def test_projections_of_paddle_are_read_by_the_names_of_its_cells() -> None:
    """Its names with _l1 are those of other parameters then."""
    layer = tg.nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2)
    theirs = tg.interop.convert(layer.state_dict(), "lstm", to="paddle")
    assert {"0.cell_fw.weight_ho", "1.cell_bw.weight_ho"} <= {*theirs}
    shifted = {"weight_ih_l1": np.ones((4, 2)), "bias_ih_l1": np.ones((16, 2))}
    found = tg.interop.convert({**shifted, **theirs}, "lstm", library="paddle")
    np.testing.assert_equal({n: found[n] for n in layer.state_dict()}, layer.state_dict())


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("layer", ["lstm", "gru"])
@pytest.mark.parametrize(("layers", "both"), [(1, False), (1, True), (3, False), (3, True)])
def test_recurrent_states_return(library: str, layer: str, layers: int, both: bool) -> None:
    rng = np.random.default_rng(0)
    cells = layers * (1 + both)
    parts = [uniform(rng, cells, 2, 4) for _ in range(2 if layer == "lstm" else 1)]
    ours = tuple(parts) if len(parts) == 2 else parts[0]
    theirs = tg.interop.convert_state(ours, layer, to=library, bidirectional=both)
    found = tg.interop.convert_state(theirs, layer, library=library)
    np.testing.assert_equal(found, ours)
    if LIBRARIES[library].states != "stacked":
        first = theirs[0] if layers > 1 else theirs  # of the first layer
        first = first[0] if both and library != "keras" else first  # forward
        part = first[0] if layer == "lstm" or library == "keras" else first
        expected = parts[-1 if library in ("nnx", "linen") else 0][0]
        np.testing.assert_array_equal(part, expected)


# -- layers without recurrence ---------------------------------------------------------------------


@pytest.mark.parametrize("row", PLAIN, ids=lambda row: f"{row.library} {row.cell}")
def test_layers_without_recurrence_return(row: Any) -> None:
    make = {"linear": tg.nn.Linear, "embedding": tg.nn.Embedding}.get(
        row.layer, lambda n, _: tg.nn.LayerNorm(n)
    )
    ours = {
        name: uniform(np.random.default_rng(0), *a.shape)
        for name, a in make(3, 4).state_dict().items()
    }
    theirs = tg.interop.convert(ours, row.layer, to=row.library)
    named = dict(zip(row.keys, theirs, strict=True)) if row.library == "keras" else theirs
    arrays = {key.removeprefix("params/"): value for key, value in flat(named).items()}
    assert [*arrays] == [*row.keys]
    shape = ours["weight"].shape
    assert arrays[row.weight].shape == (shape[::-1] if row.transposed else shape)
    np.testing.assert_equal(tg.interop.convert(theirs, row.layer, library=row.library), ours)
    inside = {"decoder": theirs if row.library == "keras" else arrays}
    np.testing.assert_equal(tg.interop.convert(inside, row.layer, library=row.library), ours)


# -- arrays of any kind ----------------------------------------------------------------------------


class Array32:
    """An array of another library: it has `__array__` and nothing else."""

    def __init__(self, values: Array) -> None:
        self.values, self.shape = values, values.shape

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return self.values


@pytest.mark.parametrize(
    "kind", [Array32, tg.tensor, np.asfortranarray], ids=["array", "tensor", "Fortran"]
)
def test_arrays_of_other_libraries(kind: Any) -> None:
    layer = tg.nn.LSTM(3, 4)
    kernel, recurrent, bias = tg.interop.to_keras(layer)
    state = [kind(array) for array in (kernel, recurrent, bias)]
    found = tg.interop.convert(state, "lstm", library="keras")
    np.testing.assert_array_equal(found["weight_ih_l0"], layer.weight_ih_l0.numpy())


class Variable:
    """A variable of JAX's libraries."""

    def __init__(self, values: Array) -> None:
        self.values = values

    def __jax_array__(self) -> Array:
        return self.values


def test_variables_and_bfloat16() -> None:
    types = pytest.importorskip("ml_dtypes", reason="it comes with JAX")
    half = np.ones((16, 3), types.bfloat16)
    state = {"Wx": Variable(half), "Wh": half[:, [0, 1, 2, 0]], "bias": None}
    found = tg.interop.convert(state, "lstm", library="mlx")
    assert {name: array.dtype.name for name, array in found.items()} == {
        "weight_ih_l0": "float32",
        "weight_hh_l0": "float32",
    }


def test_activations_of_onnx_are_compared() -> None:
    """One for each gate and direction, in any case of letters."""
    state = {"W": np.ones((2, 12, 3)), "R": np.ones((2, 12, 4)), "B": np.ones((2, 24))}
    for functions in (["Sigmoid", "Tanh"] * 2, ["sigmoid", "tanh"]):
        config = {"activations": functions, "direction": "bidirectional", "linear_before_reset": 1}
        tg.interop.convert(state, "gru", library="onnx", config=config)
    bidirectional = {"merge_mode": "concat", "layer": {"config": {"activation": "relu"}}}
    arrays = [np.ones((3, 4)), np.ones((4, 4)), np.ones(4)] * 2
    tg.interop.convert(arrays, "rnn", library="keras", config=bidirectional)


def test_the_given_arrays_are_not_changed() -> None:
    rng = np.random.default_rng(0)
    for row in RECURRENT:
        named = foreign_cells.shapes(row.library, row.cell, 3, 4).items()
        state = {name: uniform(rng, *shape) for name, shape in named}
        before = {name: array.copy() for name, array in state.items()}
        found = tg.interop.convert(state, row.layer, library=row.library)
        ours = {name: array.copy() for name, array in found.items()}
        tg.interop.convert(found, row.layer, to="onnx" if row.layer != "rnn" else "haiku")
        np.testing.assert_equal(found, ours)
        for array in found.values():
            array[...] = 7 if array.flags.writeable and array.flags.owndata else array
        np.testing.assert_equal(state, before)


# -- modules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell", "ResetBeforeGRUCell"])
def test_single_cells(kind: str) -> None:
    """Their names have no suffix."""
    make = getattr(tg.nn, kind)
    cell, other = make(3, 4, rng=0), make(3, 4, rng=1)
    state = tg.interop.to_keras(cell)
    assert tg.interop.from_keras(state, other) is other
    x = tg.tensor(uniform(np.random.default_rng(0), 2, 3).astype(np.float32))
    np.testing.assert_allclose(other(x)[0].numpy(), cell(x)[0].numpy(), atol=1e-6)
    if kind != "ResetBeforeGRUCell":
        flax = tg.interop.to_flax(cell, api="linen" if kind == "GRUCell" else "nnx")
        assert "cell" not in flax
        third = tg.interop.from_flax(flax, make(3, 4, rng=2))
        np.testing.assert_allclose(third(x)[0].numpy(), cell(x)[0].numpy(), atol=1e-6)


@pytest.mark.parametrize("library", ["keras", "flax"])
def test_a_language_model_returns(library: str) -> None:
    """Modules inside of modules, and one with a list of them."""
    vocab = tg.data.text.Vocabulary("the time traveller")
    make, load, save = (
        lambda rng: tg.models.RecurrentLM(tg.nn.LSTMCell, vocab, 8, num_layers=2, rng=rng),
        getattr(tg.interop, f"from_{library}"),
        getattr(tg.interop, f"to_{library}"),
    )
    model, other = make(0), make(1)
    assert model.perplexity("the time") != other.perplexity("the time")
    load(save(model), other)
    assert abs(model.perplexity("the time") / other.perplexity("the time") - 1) < 1e-5


def test_the_cell_for_other_libraries_is_one_operation() -> None:
    layer = tg.nn.Recurrent(tg.nn.ResetBeforeGRUCell, 3, 4, bidirectional=True)
    reports = layer.explain(tg.ones(5, 2, 3), lengths=[5, 2])
    assert [report.traced for report in reports] == [True, True], reports


class Tied(tg.nn.Module):
    """A module under two names, a parameter of its own, and a list of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = tg.nn.Linear(2, 2)
        self.scale = tg.nn.Parameter(tg.ones(2))
        self.blocks = tg.nn.ModuleList([tg.nn.Linear(2, 3), tg.nn.Linear(3, 2)])
        self.drop = tg.nn.Dropout(0.5)


def test_tied_modules_and_own_parameters() -> None:
    net, other = Tied(), Tied()
    state = tg.interop.to_keras(net)
    assert [*state] == ["scale", "first", "second", "blocks"]
    state["blocks"] = [*state["blocks"].values()]
    tg.interop.from_keras(state, other)
    np.testing.assert_equal(other.state_dict(), net.state_dict())
    state["second"] = [2 * array for array in state["second"]]
    with pytest.raises(tg.errors.ArgumentError, match="one tensor in this module"):
        tg.interop.from_keras(state, other)


# -- the table as text -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("weights", len(RECURRENT)),
        ("layers", len(PLAIN)),
        ("libraries", len(LIBRARIES)),
        ("data", len(LIBRARIES) + 1),
    ],
)
def test_the_table_has_a_line_for_each_row(kind: str, count: int) -> None:
    lines = conventions.convention_table(kind).splitlines()
    assert len(lines) == count + 2
    assert len({line.count("|") for line in lines}) == 1
