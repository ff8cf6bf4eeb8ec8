"""`convert`: the state of one layer, from the convention of a library to ours or back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._util.api_hints import class_name
from ..engine.backend import Array
from ..errors import ArgumentError, ShapeError
from ..nn.suffixes import SUFFIXED
from . import cell_weights, settings, states
from .conventions import (
    FLAX,
    LIBRARIES,
    OUR_GATES,
    PLAIN,
    RECURRENT,
    Convention,
    PlainConvention,
    plain_rows,
    rows,
)
from .foreign_state import Origin, Tree, cells, describe, flat, tree_of

LAYERS = (*OUR_GATES, "linear", "embedding", "layer_norm")
_OTHER_NAMES = {"pytorch": "torch", "dm-haiku": "haiku", "paddlepaddle": "paddle"}
Cells = list[list[dict[str, Array]]]  # for each layer, for each direction, by our names


def convert(
    state: Any,
    layer: str,
    library: str | None = None,
    to: str | None = None,
    *,
    cell: str | None = None,
    config: Any = None,
) -> Any:
    """Return the state of one layer in another convention: a library's as ours, or ours as theirs.

    Parameters
    ----------
    state : mapping or sequence of arrays
        With `library` the layer's state in the form of the library: nested or flat mappings,
        Keras's list of arrays. Stacked layers are a list with one such state each, or a mapping
        whose keys end with numbers; two directions a mapping whose keys begin with ``forward``
        and ``backward``, or the form of the library. Arrays are anything that has DLPack or
        ``__array__``, without a graph. With `to` a state dict of a module here.
    layer : str
        ``"lstm"``, ``"gru"``, ``"reset_before_gru"``, ``"rnn"``, ``"linear"``, ``"embedding"`` or
        ``"layer_norm"``: the layer here.
    library, to : str
        The library of `state`, or of the result; one of them. ``"torch"``, ``"keras"``, ``"nnx"``,
        ``"linen"`` (``"flax"`` for a state of either), ``"equinox"``, ``"haiku"``, ``"mlx"``,
        ``"paddle"``, ``"tinygrad"``, ``"onnx"``.
    cell : str, optional
        With `to` the class there, if there are several: ``"LSTMCell"`` of ``"nnx"``, whose default
        is ``"OptimizedLSTMCell"``.
    config : mapping, optional
        With `library` the settings of the layer as the library saves them, such as Keras's
        ``layer.get_config()`` or the attributes of an ONNX node; a list of them for stacked layers.
        They are compared with those that can be converted; weights do not show them.

    Returns
    -------
    dict or list
        With `library` a dict of arrays, the argument of ``load_state_dict`` of the module here;
        dtypes are kept. With `to` the state of one layer, or a list of states for stacked layers;
        PyTorch's and Paddle's are one dict in any case.

    Raises
    ------
    ArgumentError
        If an array is missing, unexpected or not an array, a setting cannot be converted, the
        library lacks such a layer, or its layer cannot hold the weights. Names the key, the finding
        and the cure.
    ShapeError
        If a shape does not fit.
    DTypeError
        If numbers are not floating.

    See Also
    --------
    from_torch, from_keras, from_flax : Load the state of a whole network into a module.
    conventions.table : The table of the conventions.

    Notes
    -----
    The gates are put in another order, matrices transposed, biases added where a cell has one, and
    a constant that a cell adds to its forget gate is put into the bias. No number is rounded,
    except by the sum of two biases and by that constant.

    Examples
    --------
    A GRU of MLX, whose gate n has a recurrent bias of its own:

    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> H, I = 4, 3
    >>> shapes = {"Wx": (3 * H, I), "Wh": (3 * H, H), "b": 3 * H, "bhn": H}
    >>> state = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    >>> ours = tg.interop.convert(state, library="mlx", layer="gru")
    >>> ours["bias_hh_l0"].tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    >>> tg.nn.GRU(I, H).load_state_dict(ours)
    LoadReport(missing=[], unexpected=[])
    >>> back = tg.interop.convert(ours, to="mlx", layer="gru")
    >>> {name: value.shape for name, value in back.items()}
    {'Wx': (12, 3), 'Wh': (12, 4), 'b': (12,), 'bhn': (4,)}
    """
    layer = layer_name(layer)
    if (library is None) == (to is None):
        raise ArgumentError(
            "interop.convert: give library=, the origin of the state, or to=, the library that "
            f"shall read it, got library={library!r}, to={to!r}"
        )
    if library is not None:
        origin = Origin("interop.convert", library_name(library, "interop.convert"))
        tree = tree_of(state, origin)
        return from_library(tree, layer, origin, config)
    origin = Origin("interop.convert", library_name(str(to), "interop.convert", target=True))
    return to_library(own_state(state, origin.op), layer, origin, cell)


def convert_state(
    state: Any,
    layer: str,
    library: str | None = None,
    to: str | None = None,
    *,
    bidirectional: bool = False,
) -> Any:
    """Return the recurrent state of a layer, such as (h, c), in another convention.

    Parameters
    ----------
    state : array, or sequences of arrays
        With `library` as it has them: of Keras a list, of Flax (c, h), of two directions forward
        first, of stacked layers a list of their states. With `to` the state of a layer here.
    layer : str
        ``"lstm"``, whose state has two parts, ``"gru"``, ``"reset_before_gru"`` or ``"rnn"``.
    library, to : str
        As of `convert`.
    bidirectional : bool
        With `to`: whether the layer has two directions.

    Returns
    -------
    tuple, ndarray or list
        With `library` the state of a layer here, arrays (L·D, B, H): (h, c) of an LSTM, otherwise
        h. With `to` the state of one layer there, or a list of them.

    Raises
    ------
    ArgumentError
        If the number of arrays does not fit, or a value is not an array.
    ShapeError
        If the shapes differ.

    Examples
    --------
    Flax has (c, h):

    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> c, h = np.zeros((2, 4)), np.ones((2, 4))
    >>> ours = tg.interop.convert_state((c, h), "lstm", library="nnx")
    >>> [(part.shape, part.max().item()) for part in ours]
    [((1, 2, 4), 1.0), ((1, 2, 4), 0.0)]
    >>> theirs = tg.interop.convert_state(ours, "lstm", to="keras")
    >>> bool((theirs[0] == h).all())
    True
    """
    op = "interop.convert_state"
    if layer_name(layer) not in OUR_GATES:
        raise ArgumentError(f"{op}: layer = {layer!r} has no state: use {', '.join(OUR_GATES)}")
    parts = 2 if layer_name(layer) == "lstm" else 1
    if (library is None) == (to is None):
        raise ArgumentError(f"{op}: give library= or to=, got {library!r} and {to!r}")
    if library is not None:
        ours = states.states_from(state, parts, Origin(op, library_name(library, op)))
        return ours if parts == 2 else ours[0]
    given = states.arrays_of(state, Origin(op, "torch"))
    if len(given) != parts:
        raise ArgumentError(
            f"{op}: {len(given)} arrays: the state of a layer here is " + ["h", "(h, c)"][parts - 1]
        )
    origin = Origin(op, library_name(str(to), op, target=True))
    return states.states_to(tuple(given), 1 + bool(bidirectional), origin)


def layer_name(layer: Any) -> str:
    """Return the name of a layer, or raise with the names that are possible."""
    name = str(layer).lower()
    aliases = {"layernorm": "layer_norm", "dense": "linear", "embed": "embedding"}
    name = aliases.get(name, name)
    if name not in LAYERS:
        raise ArgumentError(
            f"interop.convert: layer = {layer!r}: use {', '.join(map(repr, LAYERS))}"
        )
    return name


def library_name(library: str, op: str, target: bool = False) -> str:
    """Return the key of a library, or raise with the names that are possible."""
    name = str(library).lower()
    name = _OTHER_NAMES.get(name, name)
    if name not in LIBRARIES and not (name == "flax" and not target):
        known = ", ".join(map(repr, LIBRARIES))
        hint = " ('flax' has two interfaces)" if name == "flax" else ""
        raise ArgumentError(f"{op}: library {library!r} is unknown{hint}: use one of {known}")
    return name


def own_state(state: Any, op: str) -> dict[str, Array]:
    """Return a state dict of a module here as arrays of NumPy."""
    if not isinstance(state, Mapping):
        raise ArgumentError(
            f"{op}: the state dict of a module here is expected, such as layer.state_dict(), got a "
            f"{class_name(state)}"
        )
    return flat(tree_of(state, Origin(op, "torch")))


# -- from a library --------------------------------------------------------------------------------


def from_library(
    tree: Tree,
    layer: str,
    origin: Origin,
    config: Any = None,
    nonlinearity: str | None = None,
    eps: float | None = None,
    suffixes: bool = True,
) -> dict[str, Array]:
    """Return the state of a layer by our names.

    Parameters
    ----------
    tree : dict, list or ndarray
        The result of `tree_of`.
    layer : str
        As of `convert`.
    origin : Origin
        The library and the call.
    config : mapping, optional
        As of `convert`.
    nonlinearity, eps
        Those of the module to load into, if they are known.
    suffixes : bool
        Whether names of a recurrent layer have a suffix; without one for a cell.

    Returns
    -------
    dict of str to ndarray
    """
    if layer not in OUR_GATES:
        return _plain_from(tree, layer, origin, config, eps)
    conventions = _rows_of(layer, origin)
    found = cells(tree, conventions, origin)
    configs = config if isinstance(config, list | tuple) else [config] * len(found)
    if len(configs) != len(found):
        origin.refuse("", f"{len(configs)} configs for {len(found)} layers", "give one for each")
    if not suffixes and [len(sides) for sides in found] != [1]:
        count = sum(map(len, found))
        origin.refuse("", f"the state has {count} cells, the module is one", "use a layer")
    ours: dict[str, Array] = {}
    for number, (sides, given) in enumerate(zip(found, configs, strict=True)):
        if len(sides) != len(found[0]):
            origin.refuse(
                sides[0].where, f"layer {number} has {len(sides)} directions, layer 0 "
                f"{len(found[0])}", "convert them one by one",
            )  # fmt: skip
        for side, suffix in zip(sides, ("", "_reverse"), strict=False):
            settings.check_recurrent(given, side.row, nonlinearity, side.where, origin)
            for name, array in cell_weights.to_ours(side, origin).items():
                ours[f"{name}_l{number}{suffix}" if suffixes else name] = array
    _check_stack(ours, origin)
    return ours


def _check_stack(ours: dict[str, Array], origin: Origin) -> None:
    """Raise unless all layers have one size, and each reads the outputs of the one before."""
    if "weight_ih" in ours:
        return
    H = ours["weight_hh_l0"].shape[1]
    directions = 2 if "weight_ih_l0_reverse" in ours else 1
    for name, array in ours.items():
        if not name.startswith("weight_ih"):
            continue
        R, reads = ours[name.replace("_ih", "_hh")].shape[1], array.shape[1]
        if R != H:
            raise ShapeError(
                f"{origin.op}: {name.removeprefix('weight_ih_')} has a state of {R}, l0 of {H}: "
                "layers of different sizes are layers of their own here; convert them one by one"
            )
        layer = int(name.removeprefix("weight_ih_l").removesuffix("_reverse"))
        wanted = ours["weight_ih_l0"].shape[1] if layer == 0 else directions * H
        if reads != wanted:
            source = f"the {wanted} outputs of the layer below" if layer else "the other direction"
            raise ShapeError(
                f"{origin.op}: {name.removeprefix('weight_ih_')} reads {reads} features, not as "
                f"{source}: are the layers in the right order?"
            )


def _rows_of(layer: str, origin: Origin) -> list[Convention]:
    """Return the conventions of a recurrent layer, or raise if the library has none."""
    if found := rows(origin.library, layer):
        return found
    known = [row for row in RECURRENT if row.library == origin.library]
    origin.refuse(
        "", f"{origin.title} has no {layer}",
        _NO_LAYER.get((origin.library, layer), "it has " + ", ".join(row.layer for row in known)),
    )  # fmt: skip


_AFTER = (
    "its GRU applies the reset gate before the product: use layer='reset_before_gru', "
    "nn.ResetBeforeGRUCell"
)
_BEFORE = "its GRU applies the reset gate after the product: use nn.GRU"
_NO_LAYER = {("haiku", "gru"): _AFTER} | {
    (library, "reset_before_gru"): _BEFORE
    for library in ("torch", "nnx", "linen", "flax", "equinox", "mlx", "paddle")
}


def _plain_from(
    tree: Tree, layer: str, origin: Origin, config: Any, eps: float | None
) -> dict[str, Array]:
    """Return the weight and the bias of a layer without recurrence."""
    row = _plain_rows_of(layer, origin)[0]
    while isinstance(tree, dict) and len(tree) == 1:  # the layer's name, or "params"
        [inner] = tree.values()
        if not isinstance(inner, dict | list):
            break
        tree = inner
    if isinstance(tree, dict) and origin.library == "keras" and all(k.isdigit() for k in tree):
        tree = [tree[key] for key in sorted(tree, key=int)]
    if isinstance(tree, list):
        if origin.library != "keras" or len(tree) > len(row.keys):
            origin.refuse(
                "", f"a list of {len(tree)}: {describe(tree)}",
                f"the state of {row.cell} is a mapping with {', '.join(row.keys)}"
                if origin.library != "keras" else f"{row.cell} has {', '.join(row.keys)}",
            )  # fmt: skip
        tree = dict(zip(row.keys, tree, strict=False))
    arrays = flat(tree)
    for key in arrays:
        if key not in row.keys:
            origin.refuse(key, f"not a weight of {row.cell}", f"it has {', '.join(row.keys)}")
    if row.weight not in arrays:
        hint = ", even if it has no scale" if layer == "layer_norm" else ""
        origin.refuse(
            row.weight, f"is missing, there is {describe(tree)}",
            f"the weight of {row.cell} is needed{hint}",
        )  # fmt: skip
    settings.check_plain(config, row, eps, "", origin)
    weight = arrays[row.weight]
    if layer != "layer_norm" and weight.ndim != 2:
        raise ShapeError(f"{origin.op}: {row.weight} has shape {weight.shape}: a matrix is needed")
    ours = {"weight": weight.T if row.transposed else weight}
    if row.bias and row.bias in arrays:
        ours["bias"] = arrays[row.bias]
        size = weight.shape if layer == "layer_norm" else (len(ours["weight"]),)
        if ours["bias"].shape != size:
            cure = f"{size} is needed"
            if layer == "linear" and ours["bias"].shape == (ours["weight"].shape[1],):
                cure += f": is {row.weight} transposed? In {origin.title} it is " + (
                    "(in, out)" if row.transposed else "(out, in)"
                )
            raise ShapeError(f"{origin.op}: {row.bias} has shape {ours['bias'].shape}: {cure}")
    return ours


def _plain_rows_of(layer: str, origin: Origin) -> list[PlainConvention]:
    if found := plain_rows(origin.library, layer):
        return found
    known = [row.layer for row in PLAIN if row.library == origin.library]
    origin.refuse(
        "", f"no {layer} of {origin.title} is known",
        f"known are {', '.join(known)}" if known else "give its arrays to load_state_dict",
    )  # fmt: skip


# -- to a library ----------------------------------------------------------------------------------


def to_library(
    ours: Mapping[str, Array], layer: str, origin: Origin, cell: str | None = None
) -> Any:
    """Return the state of a layer as a library saves it.

    Parameters
    ----------
    ours : mapping of str to ndarray
        A state dict of a layer or a cell here.
    layer : str
        As of `convert`.
    origin : Origin
        The library to write for, and the call.
    cell : str, optional
        As of `convert`.

    Returns
    -------
    dict or list
    """
    if layer not in OUR_GATES:
        return _plain_to(ours, _plain_rows_of(layer, origin)[0], origin)
    row = _chosen(_rows_of(layer, origin), cell, origin)
    own, suffixed = _by_cell(ours, layer, origin)
    theirs = [
        [
            cell_weights.to_theirs(weights, row, f"_l{number}{suffix}" * suffixed, origin)
            for weights, suffix in zip(sides, ("", "_reverse"), strict=False)
        ]
        for number, sides in enumerate(own)
    ]
    if not suffixed:
        return _of_cell(theirs[0][0], row)
    if row.library in ("torch", "paddle"):
        name = "{key}_l{number}{reverse}"
        if row.library == "paddle" and row.weight_hr and row.weight_hr[0] in theirs[0][0]:
            name = "{number}.cell{side}.{key}"  # its other names are wrong with a projection
        return {
            name.format(key=key, number=number, reverse=reverse, side=side if both[1:] else ""): a
            for number, both in enumerate(theirs)
            for arrays, reverse, side in zip(both, ("", "_reverse"), ("_fw", "_bw"), strict=False)
            for key, a in arrays.items()
        }
    layers = [_of_layer(sides, row) for sides in theirs]
    return layers[0] if len(layers) == 1 else layers


def _chosen(found: Sequence[Convention], cell: str | None, origin: Origin) -> Convention:
    if cell is None:
        return found[0]
    for row in found:
        if cell in row.cell.split(", "):
            return row
    origin.refuse(
        "", f"cell = {cell!r} is unknown for a {found[0].layer} of {origin.title}",
        "use " + " or ".join(repr(row.cell) for row in found),
    )  # fmt: skip


def _by_cell(ours: Mapping[str, Array], layer: str, origin: Origin) -> tuple[Cells, bool]:
    """Return the weights of each layer and direction, and whether the names have suffixes."""
    suffixed = any(SUFFIXED.fullmatch(name) for name in ours)
    found: dict[tuple[int, bool], dict[str, Array]] = {}
    for name, array in ours.items():
        match = SUFFIXED.fullmatch(name)
        bare, place = (match[1], (int(match[2]), bool(match[3]))) if match else (name, (0, False))
        if bare not in _OURS or suffixed != bool(match):
            origin.refuse(
                name, f"not a weight of a {layer} here", "give the state dict of the layer alone"
            )
        found.setdefault(place, {})[bare] = array
    both = any(reverse for _, reverse in found)
    count = len(found) // (1 + both)
    places = [[(n, side) for side in (False, True)[: 1 + both]] for n in range(count)]
    if not found or sorted(found) != sorted(place for sides in places for place in sides):
        origin.refuse("", f"the layers are {sorted(found)}", "give the whole state dict")
    G = len(OUR_GATES[layer])
    for (number, reverse), weights in found.items():
        suffix = f"_l{number}" + "_reverse" * reverse if suffixed else ""
        for name in ("weight_ih", "weight_hh"):
            if name not in weights:
                origin.refuse(name + suffix, "is missing", "give the whole state dict")
        shape, R = weights["weight_hh"].shape, weights["weight_hh"].shape[-1]
        H = weights["weight_hr"].shape[1] if "weight_hr" in weights else R
        if shape != (G * H, R):
            raise ShapeError(
                f"{origin.op}: weight_hh{suffix} has shape {shape}: a {layer} needs ({G} H, H)"
            )
    return [[found[place] for place in sides] for sides in places], suffixed


_OURS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


def _nested(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Return a flat dict with paths as nested dicts."""
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *parents, last = path.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = array
    return tree


def _of_cell(arrays: dict[str, Array], row: Convention) -> Any:
    """Return the state of one cell in the form of its library."""
    if row.library == "keras":
        return [arrays[key] for key in row.keys if key in arrays]
    if row.library == "linen":
        return {"params": _nested(arrays)}
    if row.library == "haiku":
        found: dict[str, Any] = {}
        for path, array in arrays.items():
            module, _, last = f"{row.inside}/{path}".rpartition("/")
            found.setdefault(module, {})[last] = array
        return found
    if row.library == "onnx":
        return {key: a.reshape(-1) if key == "B" else a for key, a in arrays.items()}
    return _nested(arrays)


def _of_layer(sides: list[dict[str, Array]], row: Convention) -> Any:
    """Return the state of one layer, which has one direction or two."""
    if row.library == "onnx":
        parts = [_of_cell(side, row) for side in sides]
        return {key: np.stack([part[key] for part in parts]) for key in parts[0]}
    if row.library == "keras":
        return [array for side in sides for array in _of_cell(side, row)]
    if row.library in FLAX:
        parts = [{row.inside: _nested(side)} for side in sides]
    else:
        parts = [_of_cell(side, row) for side in sides]
    tree = parts[0]
    if len(parts) == 2:
        tree = dict(zip(LIBRARIES[row.library].directions, parts, strict=True))
    return {"params": tree} if row.library == "linen" else tree


def _plain_to(ours: Mapping[str, Array], row: PlainConvention, origin: Origin) -> Any:
    """Return the state of a layer without recurrence in the form of its library."""
    for name in ours:
        if name not in ("weight", "bias"):
            origin.refuse(name, f"not a weight of a {row.layer} here", "it has weight and bias")
    if "weight" not in ours:
        origin.refuse("weight", "is missing", f"a {row.layer} without it cannot be converted")
    weight = np.ascontiguousarray(ours["weight"].T if row.transposed else ours["weight"])
    arrays = {row.weight: weight}
    if "bias" in ours:
        arrays[row.bias] = np.ascontiguousarray(ours["bias"])
    if row.library == "keras":
        return [*arrays.values()]
    return {"params": arrays} if row.library == "linen" else arrays
