"""Exchange the weights of recurrent layers with ten libraries, and print the differences.

    python tools/exchange_matrix.py [library ...]

Each row of `tinygrad_rnn.interop.conventions` is one cell of a library. Its layer, with one and
with two directions, gets random weights, biases, initial states and sequences of different lengths.
Out of the library: its state is converted, and both layers must compute the same outputs and final
states. Into it: the state of a layer here is converted and loaded there. A library that is not
installed is named and left out. The program fails if a difference is above 1e-6, in float32.

Where a library has cells only, this program has the loop over time.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn.interop.conventions import LIBRARIES, RECURRENT, Convention

IN, H, T = 3, 5, 7
LENGTHS = [7, 3, 1, 5]
B = len(LENGTHS)
LIMIT = 1e-6
DISTRIBUTIONS = {
    "torch": "torch", "keras": "keras", "nnx": "flax", "linen": "flax", "equinox": "equinox",
    "haiku": "dm-haiku", "mlx": "mlx", "paddle": "paddlepaddle", "tinygrad": "tinygrad",
    "onnx": "onnxruntime",
}  # fmt: skip

Array = np.ndarray[Any, Any]
Result = tuple[Array, list[Array]]  # the outputs (T, B, D·H), zero after the end; h, or h and c


class Runner:
    """A recurrent layer of a library: its state, and a run with any state of this form."""

    def __init__(self, row: Convention, both: bool, projected: bool = False) -> None:
        self.row, self.both = row, both
        self.options = {"num_layers": 2, "proj_size": 2} if projected else {}

    @property
    def name(self) -> str:
        """The name of the class, without the settings."""
        return re.split(r"[,\W]", self.row.cell)[0]

    def states_to(self, initial: list[Array]) -> Any:
        """Return recurrent states in the form of the library."""
        given = tuple(initial) if len(initial) == 2 else initial[0]
        return tg.interop.convert_state(
            given, self.row.layer, to=self.row.library, bidirectional=self.both
        )

    def states_from(self, final: Any) -> list[Array]:
        """Return recurrent states of the library as ours."""
        found = tg.interop.convert_state(final, self.row.layer, library=self.row.library)
        return [*found] if isinstance(found, tuple) else [found]

    def template(self) -> Any:
        """Return a state of the library, with its names and shapes."""
        raise NotImplementedError

    def run(self, state: Any, x: Array, initial: list[Array], lengths: Sequence[int]) -> Result:
        """Return outputs and final states of x (T, B, IN) and states (D, B, H)."""
        raise NotImplementedError


class PyTorch(Runner):
    """`torch.nn.LSTM`, `GRU`, `RNN`, with packed sequences."""

    def layer(self) -> Any:
        torch = import_module("torch")
        return getattr(torch.nn, self.name)(IN, H, bidirectional=self.both, **self.options)

    def template(self) -> Any:
        return self.layer().state_dict()

    def run(self, state: Any, x: Array, initial: list[Array], lengths: Sequence[int]) -> Result:
        torch, rnn = import_module("torch"), import_module("torch.nn.utils.rnn")
        layer = self.layer()
        layer.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
        states = tuple(map(torch.tensor, initial))
        packed = rnn.pack_padded_sequence(torch.tensor(x), lengths, enforce_sorted=False)
        with torch.no_grad():
            output, final = layer(packed, states if len(states) == 2 else states[0])
        output, _ = rnn.pad_packed_sequence(output, total_length=len(x))
        final = final if isinstance(final, tuple) else (final,)
        return output.numpy(), [part.numpy() for part in final]


class Keras(Runner):
    """Layers of Keras, with a mask of the valid steps."""

    def layer(self) -> Any:
        layers = import_module("keras").layers
        options: dict[str, Any] = {"return_sequences": True, "return_state": True}
        if self.name == "GRU":
            options["reset_after"] = self.row.layer == "gru"
        layer = getattr(layers, self.name)(H, **options)
        layer = layers.Bidirectional(layer) if self.both else layer
        layer.build((None, None, IN))
        return layer

    def template(self) -> Any:
        return self.layer().get_weights()

    def run(self, state: Any, x: Array, initial: list[Array], lengths: Sequence[int]) -> Result:
        layer = self.layer()
        layer.set_weights([np.asarray(array) for array in state])
        mask = np.arange(len(x)) < np.array(lengths)[:, None]
        state = self.states_to(initial)
        output, *final = layer(x.swapaxes(0, 1), mask=mask, initial_state=state)
        valid = mask.T[:, :, None]
        return np.asarray(output).swapaxes(0, 1) * valid, self.states_from(final)


class Flax(Runner):
    """What both interfaces of Flax have in common: batches first, states (c, h)."""

    def result(self, carry: Any, output: Any, lengths: Any) -> Result:
        valid = np.arange(T)[:, None, None] < np.array(lengths)[:, None]
        return np.asarray(output).swapaxes(0, 1) * valid, self.states_from(carry)


class Nnx(Flax):
    """`nnx.RNN` and `nnx.Bidirectional`."""

    def layer(self) -> Any:
        nnx = import_module("flax.nnx")
        cell = getattr(nnx, self.name)
        sides = [nnx.RNN(cell(IN, H, rngs=nnx.Rngs(d))) for d in range(1 + self.both)]
        return nnx.Bidirectional(*sides) if self.both else sides[0]

    def template(self) -> Any:
        nnx = import_module("flax.nnx")
        return nnx.to_pure_dict(nnx.state(self.layer(), nnx.Param))

    def run(self, state: Any, x: Array, initial: list[Array], lengths: Sequence[int]) -> Result:
        nnx, layer = import_module("flax.nnx"), self.layer()
        own = nnx.state(layer, nnx.Param)
        nnx.replace_by_pure_dict(own, jax_arrays(state))
        nnx.update(layer, own)
        carry, output = layer(
            x.swapaxes(0, 1), initial_carry=self.states_to(initial), return_carry=True,
            seq_lengths=np.array(lengths),
        )  # fmt: skip
        return self.result(carry, output, lengths)


class Linen(Flax):
    """`linen.RNN` and `linen.Bidirectional`."""

    def layer(self) -> Any:
        linen = import_module("flax.linen")
        sides = [linen.RNN(getattr(linen, self.name)(H)) for _ in range(1 + self.both)]
        return linen.Bidirectional(*sides) if self.both else sides[0]

    def template(self) -> Any:
        jax = import_module("jax")
        return self.layer().init(jax.random.key(0), np.zeros((B, T, IN), np.float32))

    def run(self, state: Any, x: Array, initial: list[Array], lengths: Sequence[int]) -> Result:
        carry, output = self.layer().apply(
            jax_arrays(state), x.swapaxes(0, 1), initial_carry=self.states_to(initial),
            return_carry=True, seq_lengths=np.array(lengths),
        )  # fmt: skip
        return self.result(carry, output, lengths)


class CellRunner(Runner):
    """A library without ragged batches: each sequence alone, step by step."""

    def cell_template(self) -> Any:
        """Return the state of one cell."""
        raise NotImplementedError

    def step(self, state: Any) -> Callable[[Array, list[Array]], list[Array]]:
        """Return the step of a cell: from x (1, IN) and states (1, H) to the new states."""
        raise NotImplementedError

    def template(self) -> Any:
        if not self.both:
            return self.cell_template()
        return {"forward": self.cell_template(), "backward": self.cell_template()}

    def run(self, state: Any, x: Array, initial: list[Array], lengths: Sequence[int]) -> Result:
        output = np.zeros((len(x), B, H * (1 + self.both)), np.float32)
        final = [part.copy() for part in initial]
        for d, part in enumerate((state["forward"], state["backward"]) if self.both else (state,)):
            step = self.step(part)
            for b, length in enumerate(lengths):
                now = [element[d, b : b + 1] for element in initial]
                for t in range(length)[:: -1 if d else 1]:
                    now = [np.asarray(element) for element in step(x[t, b : b + 1], now)]
                    output[t, b, d * H : (d + 1) * H] = now[0][0]
                for element, value in zip(final, now, strict=True):
                    element[d, b] = value[0]
        return output, final


class Equinox(CellRunner):
    """`equinox.nn.LSTMCell` and `GRUCell`, whose state is their attributes."""

    def cell(self) -> Any:
        jax, eqx = import_module("jax"), import_module("equinox")
        return getattr(eqx.nn, self.name)(IN, H, key=jax.random.key(0))

    def cell_template(self) -> Any:
        return vars(self.cell())

    def step(self, state: Any) -> Callable[[Array, list[Array]], list[Array]]:
        eqx, cell = import_module("equinox"), self.cell()
        names = [name for name, value in vars(cell).items() if hasattr(value, "shape")]
        values = [jax_arrays(state[name]) for name in names]
        cell = eqx.tree_at(lambda c: [getattr(c, name) for name in names], cell, values)

        call = eqx.filter_jit(cell)

        def step(x: Array, now: list[Array]) -> list[Array]:
            parts = [element[0] for element in now]
            new = call(x[0], tuple(parts) if len(parts) == 2 else parts[0])
            return [np.asarray(n)[None] for n in (new if isinstance(new, tuple) else (new,))]

        return step


class Haiku(CellRunner):
    """Cells of Haiku; an `LSTMState` is (hidden, cell)."""

    def transformed(self) -> Any:
        hk, name = import_module("haiku"), self.name

        def step(x: Any, now: Any) -> Any:
            state = hk.LSTMState(*now) if len(now) == 2 else now[0]
            _, new = getattr(hk, name)(H)(x, state)
            return (new.hidden, new.cell) if len(now) == 2 else (new,)

        return hk.without_apply_rng(hk.transform(step))

    def cell_template(self) -> Any:
        jax, zeros = import_module("jax"), np.zeros((1, H), np.float32)
        states = [zeros] * (2 if self.row.layer == "lstm" else 1)
        return self.transformed().init(jax.random.key(0), np.zeros((1, IN), np.float32), states)

    def step(self, state: Any) -> Callable[[Array, list[Array]], list[Array]]:
        apply, state = import_module("jax").jit(self.transformed().apply), jax_arrays(state)
        return lambda x, now: [*apply(state, x, now)]


class Mlx(CellRunner):
    """Layers of MLX, called with sequences of one step, since a call has all lengths alike."""

    def layer(self) -> Any:
        return getattr(import_module("mlx.nn"), self.name)(IN, H)

    def cell_template(self) -> Any:
        return self.layer().parameters()

    def step(self, state: Any) -> Callable[[Array, list[Array]], list[Array]]:
        mx, layer = import_module("mlx.core"), self.layer()
        layer.update({name: mx.array(np.asarray(value)) for name, value in state.items()})

        def step(x: Array, now: list[Array]) -> list[Array]:
            new = layer(mx.array(x[None]), *map(mx.array, now))
            return [np.array(n)[0] for n in (new if isinstance(new, tuple) else (new,))]

        return step


class Paddle(Runner):
    """Layers of Paddle, with `sequence_length`."""

    def layer(self) -> Any:
        direction = "bidirect" if self.both else "forward"
        layer = getattr(import_module("paddle").nn, self.name)
        return layer(IN, H, direction=direction, **self.options)

    def template(self) -> Any:
        return {key: value.numpy() for key, value in self.layer().state_dict().items()}

    def run(self, state: Any, x: Array, initial: list[Array], lengths: Sequence[int]) -> Result:
        paddle, layer = import_module("paddle"), self.layer()
        own = layer.state_dict()
        for name, value in state.items():
            own[name].set_value(np.asarray(value))
        states = [paddle.to_tensor(part) for part in initial]
        with paddle.no_grad():
            output, final = layer(
                paddle.to_tensor(x.swapaxes(0, 1).copy()),
                tuple(states) if len(states) == 2 else states[0],
                sequence_length=paddle.to_tensor(np.array(lengths)),
            )
        final = final if isinstance(final, tuple) else (final,)
        valid = np.arange(T)[:, None, None] < np.array(lengths)[:, None]  # not with proj_size
        return output.numpy().swapaxes(0, 1) * valid, [part.numpy() for part in final]


class Tinygrad(CellRunner):
    """`tinygrad.nn.LSTMCell`, in Python unless DEV selects another device."""

    def cell_template(self) -> Any:
        cell = import_module("tinygrad.nn").LSTMCell(IN, H)
        state = import_module("tinygrad.nn.state").get_state_dict(cell)
        return {name: value.numpy() for name, value in state.items()}

    def step(self, state: Any) -> Callable[[Array, list[Array]], list[Array]]:
        tensor = import_module("tinygrad").Tensor
        cell = import_module("tinygrad.nn").LSTMCell(IN, H)
        arrays = {name: tensor(np.ascontiguousarray(value)) for name, value in state.items()}
        import_module("tinygrad.nn.state").load_state_dict(cell, arrays, verbose=False)

        def step(x: Array, now: list[Array]) -> list[Array]:
            new = cell(tensor(x), tuple(tensor(part) for part in now))
            return [part.numpy() for part in new]

        return step


class Onnx(Runner):
    """A node in a graph of its own, run by onnxruntime."""

    def template(self) -> Any:
        D, G = 1 + self.both, len(self.row.gates)
        shapes = {"W": (D, G * H, IN), "R": (D, G * H, H), "B": (D, 2 * G * H)}
        return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}

    def run(self, state: Any, x: Array, initial: list[Array], lengths: Sequence[int]) -> Result:
        onnx, runtime = import_module("onnx"), import_module("onnxruntime")
        names = ["h0", "c0"][: len(initial)]
        options: dict[str, Any] = {"direction": "bidirectional" if self.both else "forward"}
        if self.name == "GRU":
            options["linear_before_reset"] = int(self.row.layer == "gru")
        outputs = ["Y", "Y_h", "Y_c"][: 1 + len(initial)]
        node = onnx.helper.make_node(
            self.name, ["X", "W", "R", "B", "lengths", *names], outputs, hidden_size=H, **options
        )
        given = {
            "X": x,
            "lengths": np.array(lengths, np.int32),
            **dict(zip(names, initial, strict=True)),
        }
        infos = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for name, value in given.items()
        ]
        weights = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in state.items()]
        results = [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * axes)
            for name, axes in zip(outputs, (4, 3, 3), strict=False)
        ]
        graph = onnx.helper.make_graph([node], "g", infos, results, weights)
        opsets = [onnx.helper.make_opsetid("", 17)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)
        onnx.checker.check_model(model)
        session = runtime.InferenceSession(model.SerializeToString())
        output, *final = session.run(None, given)
        return output.transpose(0, 2, 1, 3).reshape(len(x), B, -1), final


RUNNERS: dict[str, type[Runner]] = {
    "torch": PyTorch, "keras": Keras, "nnx": Nnx, "linen": Linen, "equinox": Equinox,
    "haiku": Haiku, "mlx": Mlx, "paddle": Paddle, "tinygrad": Tinygrad, "onnx": Onnx,
}  # fmt: skip


def jax_arrays(tree: Any) -> Any:
    """Return a nested dict with arrays of JAX."""
    if isinstance(tree, dict):
        return {key: jax_arrays(value) for key, value in tree.items()}
    return import_module("jax.numpy").asarray(np.asarray(tree))


# -- both ways -------------------------------------------------------------------------------------


def random_like(tree: Any, rng: np.random.Generator) -> Any:
    """Return a state with random arrays in place of a library's; other values are kept."""
    if hasattr(tree, "items"):
        return {key: random_like(value, rng) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [random_like(value, rng) for value in tree]
    if not hasattr(tree, "shape"):
        return tree
    return rng.uniform(-0.6, 0.6, tuple(tree.shape)).astype(np.float32)


def layer_here(runner: Runner) -> Any:
    """Return our layer of a convention."""
    row, options = runner.row, {"bidirectional": runner.both, "rng": 1, **runner.options}
    if row.layer == "reset_before_gru":
        return tg.nn.Recurrent(tg.nn.ResetBeforeGRUCell, IN, H, **options)
    if row.config.get("nonlinearity") == "relu":
        options["nonlinearity"] = "relu"
    return getattr(tg.nn, row.layer.upper())(IN, H, **options)


def data(runner: Runner, rng: np.random.Generator) -> tuple[Array, list[Array]]:
    """Return an input and initial states."""
    cells = (1 + runner.both) * runner.options.get("num_layers", 1)
    sizes = [runner.options.get("proj_size", H), H][: 2 if runner.row.layer == "lstm" else 1]
    shapes = [(T, B, IN), *((cells, B, size) for size in sizes)]
    x, *initial = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    return x, initial


def run_here(layer: Any, x: Array, initial: list[Array]) -> Result:
    """Return the outputs and final states of our layer."""
    states = tuple(map(tg.tensor, initial))
    output, final = layer(tg.tensor(x), states if len(states) == 2 else states[0], lengths=LENGTHS)
    return output.numpy(), [p.numpy() for p in (final if isinstance(final, tuple) else (final,))]


def difference(one: Result, other: Result) -> float:
    """Return the largest difference of outputs and final states."""
    pairs = zip([one[0], *one[1]], [other[0], *other[1]], strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def out_of_theirs(runner: Runner, seed: int = 0) -> float:
    """Return the difference after the state of a library is loaded here."""
    rng = np.random.default_rng(seed)
    row, state = runner.row, random_like(runner.template(), rng)
    x, initial = data(runner, rng)
    ours = layer_here(runner)
    ours.load_state_dict(tg.interop.convert(state, row.layer, library=row.library))
    return difference(run_here(ours, x, initial), runner.run(state, x, initial, LENGTHS))


def into_theirs(runner: Runner, seed: int = 0) -> float | None:
    """Return the difference after our state is loaded there; None if a cell cannot hold it."""
    rng = np.random.default_rng(seed)
    row, ours = runner.row, layer_here(runner)
    ours.load_state_dict(random_like(ours.state_dict(), rng))
    x, initial = data(runner, rng)
    cell = row.cell.split(",")[0] if row.library == "nnx" else None
    try:
        state = tg.interop.convert(ours.state_dict(), row.layer, to=row.library, cell=cell)
    except tg.errors.ArgumentError as error:
        if "has no recurrent bias" not in str(error):
            raise
        return None
    return difference(run_here(ours, x, initial), runner.run(state, x, initial, LENGTHS))


def runners(libraries: Sequence[str]) -> Iterator[Runner]:
    """Yield a runner for each row of some libraries, and for one and two directions.

    Two layers with projections follow where the library has them.
    """
    for row in RECURRENT:
        if row.library in libraries:
            for both in (False, True):
                yield RUNNERS[row.library](row, both)
            if row.weight_hr:
                yield RUNNERS[row.library](row, False, projected=True)
                yield RUNNERS[row.library](row, True, projected=True)


def main(arguments: list[str]) -> int:
    """Print the table; return 1 if a difference is too large or a named library is missing."""
    os.environ.setdefault("DEV", "PYTHON")  # tinygrad without clang
    os.environ.setdefault("KERAS_BACKEND", "jax")  # the default needs TensorFlow
    warnings.simplefilter("ignore")
    worst, missing = 0.0, []
    print("| library | cell | directions | out of it | into it |\n|---|---|---|---|---|")
    for library in arguments or [*LIBRARIES]:
        try:
            installed = version(DISTRIBUTIONS[library])
        except PackageNotFoundError:
            missing.append(library)
            continue
        for runner in runners([library]):
            out, back = out_of_theirs(runner), into_theirs(runner)
            worst = max(worst, out, back or 0)
            title = f"{LIBRARIES[library].title} ({DISTRIBUTIONS[library]} {installed})"
            cell = runner.row.cell + ", two layers with proj_size" * bool(runner.options)
            shown = "refused: no recurrent bias" if back is None else f"{back:.1e}"
            print(f"| {title} | {cell} | {1 + runner.both} | {out:.1e} | {shown} |",
                  flush=True)  # fmt: skip
    print(f"\nlargest difference {worst:.1e}, not installed: {', '.join(missing) or 'none'}")
    return int(worst > LIMIT or bool(arguments and missing))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
