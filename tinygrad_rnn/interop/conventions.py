"""The conventions of ten libraries, in one table that all conversions read.

`RECURRENT` has a row for each recurrent cell of each library, `PLAIN` one for each layer without
recurrence, `LIBRARIES` the conventions that no weight shows: the order of states, the layout of
data, the steps after the end of a sequence. `table` prints them for a page.

A row is compared with this library's layers, which have PyTorch's conventions: matrices (gates · H,
I) and (gates · H, H), the gates of an LSTM in the order i, f, g, o and those of a GRU in the order
r, z, n, two biases.

A key is a path of names with ``/`` between them. One key holds all gates, several hold one gate
each, in the order of the row. ``bias[0]`` is the first of two parts of equal size that one array
has, as rows or one after the other. Where `weight_ih` and `weight_hh` have the same key, one matrix
has the columns of the input, then those of the state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..errors import ArgumentError

OUR_GATES = {"lstm": "ifgo", "gru": "rzn", "reset_before_gru": "rzn", "rnn": "h"}


@dataclasses.dataclass(frozen=True)
class Convention:
    """The convention of one recurrent cell of a library, as a row of the table.

    Parameters
    ----------
    library : str
        A key of `LIBRARIES`.
    cell : str
        The name of the class there.
    layer : str
        The layer here: ``"lstm"``, ``"gru"``, ``"reset_before_gru"`` or ``"rnn"``.
    gates : str
        Their order.
    transposed : bool
        Whether matrices are (in, out).
    weight_ih, weight_hh : tuple of str
        The keys of the matrices.
    bias_ih, bias_hh : tuple of str
        The keys of the biases of the input's and the state's part; empty if there is none.
    bias_hn : tuple of str
        The key of a recurrent bias that the gate n of a GRU has alone.
    bias_optional : bool
        Whether the cell can be made without biases.
    may_lack : tuple of str
        The keys of biases that can be missing alone; they are zero then.
    forget_offset : float
        Added to the forget gate in the forward pass; not in the weights.
    complement : str
        Gates that are one minus ours: z is the share of the new value.
    weight_hr : tuple of str
        The key of an LSTM's projection, (P, H), or (H, P) if `transposed_hr`.
    transposed_hr : bool
        Whether the projection is (in, out) although other matrices are not.
    inside : str
        The key under which a layer of the library keeps its cell.
    config : mapping
        The settings that no weight shows, with the values that can be converted.

    Examples
    --------
    >>> from tinygrad_rnn.interop import conventions
    >>> [row] = conventions.rows("haiku", "lstm")
    >>> row.gates, row.transposed, row.forget_offset
    ('igfo', True, 1.0)
    """

    library: str
    cell: str
    layer: str
    gates: str
    transposed: bool
    weight_ih: tuple[str, ...]
    weight_hh: tuple[str, ...]
    bias_ih: tuple[str, ...] = ()
    bias_hh: tuple[str, ...] = ()
    bias_hn: tuple[str, ...] = ()
    bias_optional: bool = True
    may_lack: tuple[str, ...] = ()
    forget_offset: float = 0.0
    complement: str = ""
    weight_hr: tuple[str, ...] = ()
    transposed_hr: bool = False
    inside: str = ""
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def needed(self) -> tuple[str, ...]:
        """The keys that every cell of this convention has."""
        return tuple(dict.fromkeys((*self.weight_ih, *self.weight_hh)))

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys, in the order in which the library lists them."""
        biases = (*self.bias_ih, *self.bias_hh, *self.bias_hn, *self.weight_hr)
        return tuple(dict.fromkeys((*self.needed, *(key.partition("[")[0] for key in biases))))


@dataclasses.dataclass(frozen=True)
class PlainConvention:
    """The keys of a layer without recurrence in one library.

    Parameters
    ----------
    library, cell, layer : str
        As of `Convention`; the layer is ``"linear"``, ``"embedding"`` or ``"layer_norm"``.
    weight, bias : str
        The keys; the bias is empty if there is none.
    transposed : bool
        Whether the matrix of a linear layer is (in, out).
    epsilon : float
        The default of a LayerNorm's ε, which no weight shows.
    config : mapping
        As of `Convention`.
    """

    library: str
    cell: str
    layer: str
    weight: str
    bias: str = ""
    transposed: bool = False
    epsilon: float = 0.0
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys, the weight's first."""
        return (self.weight, self.bias) if self.bias else (self.weight,)


@dataclasses.dataclass(frozen=True)
class Library:
    """The conventions of a library that no weight shows.

    Parameters
    ----------
    title : str
        Its name.
    version : str
        The version whose conventions these are; the tests run it.
    saved : str
        An expression that returns the state of a layer.
    order : str
        The order of the parts of an LSTM's state, ``"hc"`` or ``"ch"``.
    states : str
        The form of recurrent states: ``"stacked"`` for one array each with an axis for layers and
        directions, ``"list"`` for one list of the parts of both directions, ``"pairs"`` for the
        parts of each direction.
    layout : str
        The order of the axes of sequences.
    after_end : str
        The outputs after the end of a shorter sequence.
    empty : str
        The final state of a sequence of length 0.
    directions : tuple of str
        The keys of the forward and the backward part of a layer with two directions.
    ignored : str
        A regular expression of keys that do not name a weight.
    """

    title: str
    version: str
    saved: str
    order: str
    states: str
    layout: str
    after_end: str = ""
    empty: str = ""
    directions: tuple[str, str] = ("forward", "backward")
    ignored: str = r"(?!)"


_BOTH_RNN = ("forward_rnn", "backward_rnn")
LIBRARIES = {
    "torch": Library(
        "PyTorch",
        "2.13.0",
        "layer.state_dict()",
        "hc",
        "stacked",
        "time first",
        "zeros",
        "an error",
    ),
    "keras": Library(
        "Keras",
        "3.15.1",
        "layer.get_weights()",
        "hc",
        "list",
        "batch first",
        "the last output again; zeros in Bidirectional",
        "the initial state",
        ("forward_layer", "backward_layer"),
    ),
    "nnx": Library(
        "Flax nnx",
        "0.12.8",
        "nnx.to_pure_dict(nnx.state(layer, nnx.Param))",
        "ch",
        "pairs",
        "batch first",
        "computed on",
        "the state after all steps",
        _BOTH_RNN,
        r"rngs",
    ),
    "linen": Library(
        "Flax linen",
        "0.12.8",
        "variables['params'][name]",
        "ch",
        "pairs",
        "batch first",
        "computed on",
        "the state after all steps",
        _BOTH_RNN,
    ),
    "equinox": Library(
        "Equinox",
        "0.13.8",
        "vars(cell)",
        "hc",
        "pairs",
        "one step of one sequence",
        ignored="input_size|hidden_size|use_bias|use_weight|in_features|out_features"
        "|num_embeddings|embedding_size|shape|eps",
    ),
    "haiku": Library("Haiku", "0.0.17", "params", "hc", "pairs", "time first"),
    "mlx": Library("MLX", "0.32.4", "layer.parameters()", "hc", "pairs", "batch first; all states"),
    "paddle": Library(
        "Paddle",
        "3.3.1",
        "{k: v.numpy() for k, v in layer.state_dict().items()}",
        "hc",
        "stacked",
        "batch first",
        "zeros, except with proj_size",
        "the initial state",
    ),
    "tinygrad": Library(
        "tinygrad",
        "0.14.0",
        "{k: v.numpy() for k, v in get_state_dict(cell).items()}",
        "hc",
        "pairs",
        "one step",
    ),
    "onnx": Library(
        "ONNX",
        "1.23.2",
        "{'W': W, 'R': R, 'B': B}",
        "hc",
        "stacked",
        "time first; output (T, D, B, H)",
        "zeros (onnxruntime)",
        "zeros (onnxruntime)",
    ),
}
FLAX = ("nnx", "linen")


def _each(names: str, key: str) -> tuple[str, ...]:
    """Return a key for each gate."""
    return tuple(f"{name}/{key}" for name in names.split())


def _torch_like(library: str, layer: str, cell: str, **more: Any) -> Convention:
    """Return the convention with PyTorch's names, orders and shapes."""
    return Convention(
        library, cell, layer, OUR_GATES[layer], False, ("weight_ih",), ("weight_hh",),
        ("bias_ih",), ("bias_hh",), **more,
    )  # fmt: skip


def _keras(layer: str, cell: str, gates: str, bias: bool = False, **more: Any) -> Convention:
    """Return a convention of Keras; `bias` for two rows in one array."""
    bias_ih, bias_hh = (("bias[0]",), ("bias[1]",)) if bias else (("bias",), ())
    config: dict[str, Any] = {
        "activation": "tanh",
        "recurrent_activation": "sigmoid",
        "go_backwards": False,
    }
    if layer == "rnn":
        config = {"activation": "nonlinearity", "go_backwards": False}
    return Convention(
        "keras", cell, layer, gates, True, ("kernel",), ("recurrent_kernel",), bias_ih, bias_hh,
        config=config | more,
    )  # fmt: skip


def _onnx(layer: str, cell: str, gates: str, **more: Any) -> Convention:
    """Return a convention of ONNX, of one direction."""
    functions = {"lstm": "sigmoid tanh tanh", "rnn": "nonlinearity"}.get(layer, "sigmoid tanh")
    config = {"activations": functions, "input_forget": 0, "layout": 0, "clip": None}
    return Convention(
        "onnx", cell, layer, gates, False, ("W",), ("R",), ("B[0]",), ("B[1]",),
        config=config | more,
    )  # fmt: skip


RECURRENT = (
    _torch_like("torch", "lstm", "LSTM", weight_hr=("weight_hr",)),
    _torch_like("torch", "gru", "GRU"),
    _torch_like("torch", "rnn", "RNN", config={"nonlinearity": "nonlinearity"}),
    _keras("lstm", "LSTM", "ifgo"),
    _keras("gru", "GRU", "zrn", bias=True, reset_after=True),
    _keras("reset_before_gru", "GRU, reset_after=False", "zrn", reset_after=False),
    _keras("rnn", "SimpleRNN", "h"),
    Convention(
        "nnx", "OptimizedLSTMCell", "lstm", "ifgo", True, ("dense_i/kernel",),
        ("dense_h/kernel",), bias_hh=("dense_h/bias",), bias_optional=False, inside="cell",
    ),
    Convention(
        "nnx", "LSTMCell", "lstm", "ifgo", True, _each("ii if_ ig io", "kernel"),
        _each("hi hf hg ho", "kernel"), bias_hh=_each("hi hf hg ho", "bias"),
        bias_optional=False, inside="cell",
    ),
    Convention(
        "nnx", "GRUCell", "gru", "rzn", True, ("dense_i/kernel",), ("dense_h/kernel",),
        bias_ih=("dense_i/bias",), bias_optional=False, inside="cell",
    ),
    Convention(
        "nnx", "SimpleCell", "rnn", "h", True, ("dense_i/kernel",), ("dense_h/kernel",),
        bias_ih=("dense_i/bias",), bias_optional=False, inside="cell",
        config={"activation_fn": "nonlinearity", "residual": False},
    ),
    Convention(
        "linen", "LSTMCell, OptimizedLSTMCell", "lstm", "ifgo", True,
        _each("ii if ig io", "kernel"), _each("hi hf hg ho", "kernel"),
        bias_hh=_each("hi hf hg ho", "bias"), bias_optional=False, inside="cell",
    ),
    Convention(
        "linen", "GRUCell", "gru", "rzn", True, _each("ir iz in", "kernel"),
        _each("hr hz hn", "kernel"), bias_ih=_each("ir iz in", "bias"), bias_hn=("hn/bias",),
        bias_optional=False, inside="cell",
    ),
    Convention(
        "linen", "SimpleCell", "rnn", "h", True, ("i/kernel",), ("h/kernel",),
        bias_ih=("i/bias",), bias_optional=False, inside="cell",
        config={"activation_fn": "nonlinearity", "residual": False},
    ),
    Convention(
        "equinox", "LSTMCell", "lstm", "ifgo", False, ("weight_ih",), ("weight_hh",),
        bias_ih=("bias",),
    ),
    Convention(
        "equinox", "GRUCell", "gru", "rzn", False, ("weight_ih",), ("weight_hh",),
        bias_ih=("bias",), bias_hn=("bias_n",),
    ),
    Convention(
        "haiku", "LSTM", "lstm", "igfo", True, ("linear/w",), ("linear/w",),
        bias_ih=("linear/b",), bias_optional=False, forget_offset=1.0, inside="lstm",
    ),
    Convention(
        "haiku", "GRU", "reset_before_gru", "zrn", True, ("w_i",), ("w_h",), bias_ih=("b",),
        bias_optional=False, complement="z", inside="gru",
    ),
    Convention(
        "haiku", "VanillaRNN", "rnn", "h", True, ("linear/w",), ("linear_1/w",),
        bias_ih=("linear/b",), bias_hh=("linear_1/b",), bias_optional=False,
        may_lack=("linear_1/b",), inside="vanilla_rnn", config={"nonlinearity": "relu"},
    ),
    Convention(
        "mlx", "LSTM", "lstm", "ifgo", False, ("Wx",), ("Wh",), bias_ih=("bias",),
    ),
    Convention(
        "mlx", "GRU", "gru", "rzn", False, ("Wx",), ("Wh",), bias_ih=("b",), bias_hn=("bhn",),
    ),
    Convention(
        "mlx", "RNN", "rnn", "h", False, ("Wxh",), ("Whh",), bias_ih=("bias",),
        config={"nonlinearity": "nonlinearity"},
    ),
    _torch_like(
        "paddle", "lstm", "LSTM", weight_hr=("weight_ho",), transposed_hr=True
    ),
    _torch_like("paddle", "gru", "GRU"),
    _torch_like("paddle", "rnn", "SimpleRNN", config={"activation": "nonlinearity"}),
    _torch_like("tinygrad", "lstm", "LSTMCell"),
    _onnx("lstm", "LSTM", "iofg"),
    _onnx("gru", "GRU, linear_before_reset=1", "zrn", linear_before_reset=1),
    _onnx("reset_before_gru", "GRU, linear_before_reset=0", "zrn", linear_before_reset=0),
    _onnx("rnn", "RNN", "h"),
)  # fmt: skip

_PLAIN_CONFIG: dict[tuple[str, str], Mapping[str, Any]] = {
    ("keras", "linear"): {"activation": "linear"},
    ("keras", "layer_norm"): {"axis": -1, "rms_scaling": False},
    ("haiku", "layer_norm"): {"axis": -1},
    ("nnx", "layer_norm"): {"feature_axes": -1, "reduction_axes": -1},
    ("linen", "layer_norm"): {"feature_axes": -1, "reduction_axes": -1},
}
_PLAIN = {  # linear, is it (in, out); embedding; layer norm; its ε
    "torch": ("Linear: weight bias", False, "Embedding: weight", "LayerNorm: weight bias", 1e-5),
    "keras": ("Dense: kernel bias", True, "Embedding: embeddings",
              "LayerNormalization: gamma beta", 1e-3),
    "nnx": ("Linear: kernel bias", True, "Embed: embedding", "LayerNorm: scale bias", 1e-6),
    "linen": ("Dense: kernel bias", True, "Embed: embedding", "LayerNorm: scale bias", 1e-6),
    "equinox": ("Linear: weight bias", False, "Embedding: weight", "LayerNorm: weight bias", 1e-5),
    "haiku": ("Linear: w b", True, "Embed: embeddings", "LayerNorm: scale offset", 1e-5),
    "mlx": ("Linear: weight bias", False, "Embedding: weight", "LayerNorm: weight bias", 1e-5),
    "paddle": ("Linear: weight bias", True, "Embedding: weight", "LayerNorm: weight bias", 1e-5),
    "tinygrad": ("Linear: weight bias", False, "Embedding: weight", "LayerNorm: weight bias", 1e-5),
}  # fmt: skip


def _plain() -> tuple[PlainConvention, ...]:
    """Return the rows of the layers without recurrence."""
    found = []
    for library, (linear, transposed, embedding, norm, epsilon) in _PLAIN.items():
        for layer, text in (("linear", linear), ("embedding", embedding), ("layer_norm", norm)):
            cell, _, keys = text.partition(": ")
            weight, _, bias = keys.partition(" ")
            found.append(
                PlainConvention(
                    library, cell, layer, weight, bias, transposed and layer == "linear",
                    epsilon if layer == "layer_norm" else 0.0,
                    _PLAIN_CONFIG.get((library, layer), {}),
                )
            )  # fmt: skip
    return tuple(found)


PLAIN = _plain()


def rows(library: str, layer: str) -> list[Convention]:
    """Return the rows of a library for a recurrent layer.

    Parameters
    ----------
    library : str
        A key of `LIBRARIES`, or ``"flax"`` for both of its interfaces.
    layer : str
        ``"lstm"``, ``"gru"``, ``"reset_before_gru"`` or ``"rnn"``.

    Returns
    -------
    list of Convention
        Empty if the library lacks such a layer.

    Examples
    --------
    >>> from tinygrad_rnn.interop import conventions
    >>> [row.cell for row in conventions.rows("flax", "gru")]
    ['GRUCell', 'GRUCell']
    """
    libraries = FLAX if library == "flax" else (library,)
    return [row for row in RECURRENT if row.library in libraries and row.layer == layer]


def plain_rows(library: str, layer: str) -> list[PlainConvention]:
    """Return the rows of a library for a layer without recurrence; as `rows`.

    Parameters
    ----------
    library : str
        As of `rows`.
    layer : str
        ``"linear"``, ``"embedding"`` or ``"layer_norm"``.

    Returns
    -------
    list of PlainConvention

    Examples
    --------
    >>> from tinygrad_rnn.interop import conventions
    >>> [row.keys for row in conventions.plain_rows("keras", "linear")]
    [('kernel', 'bias')]
    """
    libraries = FLAX if library == "flax" else (library,)
    return [row for row in PLAIN if row.library in libraries and row.layer == layer]


# -- the table as text -----------------------------------------------------------------------------

_LAYER_TITLES = {
    "lstm": "LSTM", "gru": "GRU", "reset_before_gru": "ResetBeforeGRUCell", "rnn": "RNN",
    "linear": "Linear", "embedding": "Embedding", "layer_norm": "LayerNorm",
}  # fmt: skip


def convention_table(kind: str = "weights") -> str:
    """Return a table of the conventions in Markdown.

    Parameters
    ----------
    kind : {"weights", "layers", "libraries", "data"}
        The weights of recurrent cells; those of other layers; versions and the expressions that
        return a state; the order of states, the layout and the ends of sequences.

    Returns
    -------
    str
        One line for each row.

    Raises
    ------
    ArgumentError
        If the kind is unknown.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> lines = tg.interop.convention_table("weights").splitlines()
    >>> lines[0]
    '| library, cell | layer here | gates | matrices | biases |'
    >>> next(line for line in lines if "Haiku LSTM" in line)
    '| Haiku LSTM | LSTM; 1 added to f | igfo | one, (in, out): `linear/w` | ih `linear/b` |'
    """
    if kind not in _TABLES:
        raise ArgumentError(
            f"convention_table: kind: one of {', '.join(map(repr, _TABLES))} is expected, got "
            f"{kind!r}"
        )
    head, body = _TABLES[kind]()
    lines = [head, ["---"] * len(head), *body]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _weights() -> tuple[list[str], list[list[str]]]:
    body = []
    for row in RECURRENT:
        joint = row.weight_ih == row.weight_hh
        matrices = (row.weight_ih,) if joint else (row.weight_ih, row.weight_hh)
        order = "(in, out)" if row.transposed else "(out, in)"
        biases = {"ih": row.bias_ih, "hh": row.bias_hh, "hn": row.bias_hn}
        formula = f"{row.forget_offset:g} added to f" if row.forget_offset else ""
        if row.complement:
            formula = f"{row.complement} is the share of the new value"
        body.append([
            f"{LIBRARIES[row.library].title} {row.cell}",
            "; ".join(filter(None, (_LAYER_TITLES[row.layer], formula))),
            row.gates if len(row.gates) > 1 else "",
            f"{'one, ' * joint}{order}: {', '.join(map(_keys, matrices))}",
            ", ".join(f"{name} {_keys(keys)}" for name, keys in biases.items() if keys),
        ])  # fmt: skip
    return ["library, cell", "layer here", "gates", "matrices", "biases"], body


def _keys(keys: tuple[str, ...]) -> str:
    """Return the key of all gates, or those of each gate, whose last part is the same."""
    if len(keys) == 1:
        return f"`{keys[0]}`"
    return f"`{' '.join(key.split('/')[0] for key in keys)}` (`{keys[0].split('/')[1]}`)"


def _layers() -> tuple[list[str], list[list[str]]]:
    body = [
        [
            f"{LIBRARIES[row.library].title} {row.cell}", _LAYER_TITLES[row.layer],
            ", ".join(f"`{key}`" for key in row.keys), "(in, out)" if row.transposed else "",
            f"{row.epsilon:g}" if row.epsilon else "",
        ]
        for row in PLAIN
    ]  # fmt: skip
    return ["library, layer", "layer here", "keys", "matrix", "default of ε"], body


def _libraries() -> tuple[list[str], list[list[str]]]:
    body = [[x.title, x.version, f"`{x.saved}`"] for x in LIBRARIES.values()]
    return ["library", "version", "the state of a layer"], body


def _data() -> tuple[list[str], list[list[str]]]:
    forms = {"stacked": "({}), stacked", "list": "[{0}]; of two directions [{0}, {0}]",
             "pairs": "({})"}  # fmt: skip
    head = ["library", "state of an LSTM", "data", "after the end", "length 0"]
    ours = ["here", forms["stacked"].format("h, c"), "time first", "zeros", "the initial state"]
    rest = [
        [x.title, forms[x.states].format(", ".join(x.order)), x.layout, x.after_end, x.empty]
        for x in LIBRARIES.values()
    ]
    return head, [ours, *rest]


_TABLES = {"weights": _weights, "layers": _layers, "libraries": _libraries, "data": _data}
