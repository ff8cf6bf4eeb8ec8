"""The states of whole networks: `from_torch`, `from_keras`, `from_flax` and the ways back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from .._util.api_hints import class_name
from ..engine.backend import Array
from ..errors import ArgumentError
from ..nn import (
    Cell,
    Embedding,
    GRUCell,
    LayerNorm,
    Linear,
    LSTMCell,
    Module,
    Recurrent,
    ResetBeforeGRUCell,
    RNNCell,
)
from .convert import from_library, library_name, to_library
from .foreign_state import Origin, tree_of

M = TypeVar("M", bound=Module)
CELLS: dict[type, str] = {
    LSTMCell: "lstm", GRUCell: "gru", ResetBeforeGRUCell: "reset_before_gru", RNNCell: "rnn",
}  # fmt: skip
PLAIN: dict[type, str] = {Linear: "linear", Embedding: "embedding", LayerNorm: "layer_norm"}
WRAPPERS = {"module.": "DataParallel", "_orig_mod.": "torch.compile"}


def from_torch(state: Mapping[str, Any], module: M) -> M:
    """Load the state dict of a PyTorch module into a module here.

    Parameters
    ----------
    state : mapping of str to array
        ``model.state_dict()``, or what `load_safetensors` returns.
    module : Module
        With the same attributes: names, shapes and formulas are PyTorch's here.

    Returns
    -------
    Module
        `module`, with the weights.

    Raises
    ------
    ArgumentError
        Names that are missing, unexpected or do not fit; a cell that PyTorch lacks; names that a
        wrapper has changed. Nothing is loaded then.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> state = {"weight": np.ones((4, 3), np.float32), "bias": np.zeros(4, np.float32)}
    >>> layer = tg.interop.from_torch(state, tg.nn.Linear(3, 4))
    >>> layer(tg.ones(3)).detach()
    tensor([3., 3., 3., 3.])
    """
    op = "interop.from_torch"
    _check_module(module, op)
    _refuse_foreign_cells(module, op)
    if not isinstance(state, Mapping):
        raise ArgumentError(
            f"{op}: model.state_dict() of PyTorch is expected, got a {class_name(state)}"
        )
    for key, value in state.items():
        for prefix, origin in WRAPPERS.items():
            if str(key).startswith(prefix) and key not in dict(module._tensors()):
                raise ArgumentError(
                    f"{op}: {key}: {prefix!r} in front is of {origin}: remove it, "
                    f"{{k.removeprefix({prefix!r}): v for k, v in state.items()}}"
                )
        if isinstance(value, Mapping):
            raise ArgumentError(
                f"{op}: {key}: a mapping, not an array: a checkpoint has the state dict inside, "
                f"use state[{key!r}]"
            )
    module.load_state_dict(state)
    return module


def to_torch(module: Module) -> dict[str, Array]:
    """Return the state of a module for PyTorch.

    Parameters
    ----------
    module : Module
        Any module whose recurrent cells PyTorch has, or that are your own in both.

    Returns
    -------
    dict of str to ndarray
        For ``model.load_state_dict({k: torch.tensor(v) for k, v in state.items()})``.

    Raises
    ------
    ArgumentError
        If a cell is `ResetBeforeGRUCell`, which PyTorch lacks.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> [*tg.interop.to_torch(tg.nn.GRU(3, 4))]
    ['weight_ih_l0', 'weight_hh_l0', 'bias_ih_l0', 'bias_hh_l0']
    """
    op = "interop.to_torch"
    _check_module(module, op)
    _refuse_foreign_cells(module, op)
    return {name: np.ascontiguousarray(array) for name, array in module.state_dict().items()}


def from_keras(state: Any, module: M, config: Any = None) -> M:
    """Load the weights of Keras layers into a module here.

    Parameters
    ----------
    state : sequence or mapping of arrays
        Of one layer ``layer.get_weights()``, or ``{v.path: v for v in layer.weights}``; of a
        `Recurrent` with several layers a list of such states; of any other module with modules
        inside a mapping from its attributes to their states.
    module : Module
        The module to load into. A Keras GRU with ``reset_after=False`` is a `Recurrent` of
        `ResetBeforeGRUCell`.
    config : mapping, optional
        ``layer.get_config()``, nested as `state` is: settings that no weight shows are compared.

    Returns
    -------
    Module
        `module`, with the weights.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError
        Names the key, the finding and the cure; nothing is loaded then. Also if ε of a `LayerNorm`
        is our default of 1e-5, Keras's is 1e-3 and `config` does not tell.

    See Also
    --------
    convert : One layer, without a module.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> kernel, recurrent, bias = np.ones((3, 16)), np.ones((4, 16)), np.ones(16)
    >>> layer = tg.nn.LSTM(3, 4, dtype=tg.float64)
    >>> layer = tg.interop.from_keras([kernel, recurrent, bias], layer)
    >>> bool((layer.weight_hh_l0 == 1.0).numpy().all())
    True

    A network of two layers:

    >>> class Net(tg.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.rnn, self.head = tg.nn.LSTM(3, 4, dtype=tg.float64), tg.nn.Linear(4, 2)
    >>> head = [np.ones((4, 2), np.float32), np.zeros(2, np.float32)]
    >>> net = tg.interop.from_keras({"rnn": [kernel, recurrent, bias], "head": head}, Net())
    """
    return _load(state, module, Origin("interop.from_keras", "keras"), config)


def to_keras(module: Module) -> Any:
    """Return the weights of a module for Keras.

    Parameters
    ----------
    module : Module
        As of `from_keras`.

    Returns
    -------
    list or dict
        Of one layer the argument of ``layer.set_weights``; for a `Recurrent` with several layers a
        list of such lists; for other modules a dict from their attributes.

    Raises
    ------
    ArgumentError
        If Keras has no such layer: projections, cells of your own.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> [array.shape for array in tg.interop.to_keras(tg.nn.GRU(3, 4))]
    [(3, 12), (4, 12), (2, 12)]
    """
    return _saved(module, Origin("interop.to_keras", "keras"), None)


def from_flax(state: Any, module: M, config: Any = None) -> M:
    """Load the parameters of Flax modules, of nnx or linen, into a module here.

    Parameters
    ----------
    state : mapping of arrays
        Of nnx ``nnx.to_pure_dict(nnx.state(model, nnx.Param))``, of linen ``variables`` or
        ``variables["params"]``; of a cell, an `RNN`, a `Bidirectional`, a `Dense`, ... For stacked
        layers a list; for a module with modules inside a mapping from its attributes.
    module : Module
        The module to load into.
    config : mapping, optional
        Settings that no weight shows: ``activation_fn`` of a `SimpleCell`, ``epsilon`` of a
        `LayerNorm`; nested as `state` is.

    Returns
    -------
    Module
        `module`, with the weights.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError
        Names the key, the finding and the cure; nothing is loaded then. Also if ε of a `LayerNorm`
        is our default of 1e-5, Flax's is 1e-6 and `config` does not tell.

    Notes
    -----
    The state of an LSTM is (c, h) in Flax, and (h, c) here.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> state = {"params": {"kernel": np.ones((3, 4), np.float32), "bias": np.ones(4, np.float32)}}
    >>> layer = tg.interop.from_flax(state, tg.nn.Linear(3, 4))
    >>> layer(tg.ones(3)).detach()
    tensor([4., 4., 4., 4.])
    """
    return _load(state, module, Origin("interop.from_flax", "flax"), config)


def to_flax(module: Module, api: str = "nnx", cell: str | None = None) -> Any:
    """Return the parameters of a module for Flax.

    Parameters
    ----------
    module : Module
        As of `from_flax`.
    api : {"nnx", "linen"}
        The interface.
    cell : str, optional
        The class of nnx for an LSTM: ``"OptimizedLSTMCell"`` (the default) or ``"LSTMCell"``.

    Returns
    -------
    dict or list
        For ``nnx.update(model, ...)``, or ``{"params": ...}`` for ``model.apply`` of linen. A layer
        has the form of `RNN`, one with two directions that of `Bidirectional`, a cell its own; for
        stacked layers a list of them, for other modules a dict from their attributes.

    Raises
    ------
    ArgumentError
        If Flax has no such layer, or its cell cannot hold the weights: `GRUCell` of nnx has no
        recurrent bias.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> layer = tg.nn.LSTM(3, 4)
    >>> {name: [*value] for name, value in tg.interop.to_flax(layer)["cell"].items()}
    {'dense_i': ['kernel'], 'dense_h': ['kernel', 'bias']}
    >>> sorted(tg.interop.to_flax(layer, api="linen")["params"]["cell"])
    ['hf', 'hg', 'hi', 'ho', 'if', 'ig', 'ii', 'io']
    """
    if api not in ("nnx", "linen"):
        raise ArgumentError(f"interop.to_flax: api is 'nnx' or 'linen', got {api!r}")
    return _saved(module, Origin("interop.to_flax", library_name(api, "interop.to_flax")), cell)


# -- walking through modules -----------------------------------------------------------------------


def _check_module(module: Any, op: str) -> None:
    if not isinstance(module, Module):
        raise ArgumentError(
            f"{op}: a module of tinygrad_rnn is expected, got a {class_name(module)}; convert "
            "needs none"
        )


def _refuse_foreign_cells(module: Module, op: str) -> None:
    """Raise if a module has a cell whose names and shapes are those of another one in PyTorch."""
    for name, part in module.named_modules():
        if isinstance(part, ResetBeforeGRUCell):
            raise ArgumentError(
                f"{op}: {name or 'the module'} is a ResetBeforeGRUCell, and PyTorch's GRU applies "
                "the reset gate after the recurrent product: use nn.GRU"
            )


def _layer_of(module: Module, op: str, where: str) -> str:
    """Return the name of a module as a layer; "" for one with modules inside."""
    kind = type(module)
    if isinstance(module, Recurrent):
        kinds = {type(cell) for cell in module.cells}
        if len(kinds) == 1 and (layer := CELLS.get(kinds.pop())):
            return layer
        names = ", ".join(sorted({type(cell).__name__ for cell in module.cells}))
        raise ArgumentError(
            f"{op}: {where or 'the module'} has cells of your own, {names}: convert their parts, "
            "such as a Linear, by interop.convert"
        )
    if isinstance(module, Cell) and kind not in CELLS:
        raise ArgumentError(
            f"{op}: {where or 'the module'} is a cell of your own, {kind.__name__}: convert its "
            "parts, such as a Linear, by interop.convert"
        )
    return CELLS.get(kind) or PLAIN.get(kind, "")


def _own_and_children(module: Module) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of a module itself, and the modules directly inside that have tensors."""
    inner = {
        id(value)
        for _, child in module._children((module,))
        for _, value in child._tensors((module,))
    }
    for name, value in module._tensors():
        if id(value) not in inner:
            yield name, value
    for name, child in module._children((module,)):
        if any(True for _ in child._tensors((module,))):
            yield name, child


def _load(state: Any, module: M, origin: Origin, config: Any) -> M:
    """Convert the state of a module and load it; nothing is written before all is checked."""
    _check_module(module, origin.op)
    module.load_state_dict(_converted(state, module, origin, config, ""))
    return module


def _converted(
    state: Any, module: Module, origin: Origin, config: Any, where: str
) -> dict[str, Any]:
    """Return a state by the names of a module."""
    if layer := _layer_of(module, origin.op, where):
        return _converted_layer(state, module, layer, origin, config, where)
    parts = dict(_own_and_children(module))
    if isinstance(state, list | tuple) and all(name.isdigit() for name in parts):
        state = dict(zip(parts, state, strict=False)) if len(state) == len(parts) else state
    if not isinstance(state, Mapping) or {*map(str, state)} != {*parts}:
        given = ", ".join(map(str, state)) if isinstance(state, Mapping) else class_name(state)
        place = f"{where}: " if where else ""
        raise ArgumentError(
            f"{origin.op}: {place}{type(module).__name__} has modules inside: a mapping with the "
            f"keys {', '.join(parts)} is expected, got {given}"
        )
    configs = config if isinstance(config, Mapping) else {}
    for name in configs:
        if name not in parts:
            raise ArgumentError(
                f"{origin.op}: config has {name!r}, the keys are {', '.join(parts)}: nest it as "
                "the state is"
            )
    found: dict[str, Any] = {}
    for name, part in parts.items():
        if not isinstance(part, Module):
            found[name] = state[name]
            continue
        path = f"{where}.{name}" if where else name
        inner = _converted(state[name], part, origin, configs.get(name), path)
        found |= {module._qualified_name(name, key): value for key, value in inner.items()}
    return found


def _converted_layer(
    state: Any, module: Any, layer: str, origin: Origin, config: Any, where: str
) -> dict[str, Array]:
    """Return the state of one layer by its names."""
    cell = module.cells[0] if isinstance(module, Recurrent) else module
    place = Origin(f"{origin.op}: {where}" if where else origin.op, origin.library)
    ours = from_library(
        tree_of(state, place), layer, place, config,
        nonlinearity=getattr(cell, "nonlinearity", None),
        eps=getattr(module, "eps", None),
        suffixes=isinstance(module, Recurrent),
    )  # fmt: skip
    own = dict(module._tensors())
    given, wanted = (any("bias" in name for name in names) for names in (ours, own))
    if given and not wanted:
        cell_has = "adds a constant to a gate" if layer == "lstm" and place.library == "haiku" \
            else "has biases"  # fmt: skip
        place.refuse("", f"the layer {cell_has}, the module none", "make it with bias=True")
    if wanted and not given:
        place.refuse("", "the layer has no bias, the module has", "make it with bias=False")
    layers = len([name for name in ours if "weight_hh" in name])
    cells = len(getattr(module, "cells", [module]))
    if layer in CELLS.values() and layers != cells:
        place.refuse(
            "", f"the state has {layers} cells, the module {cells}",
            "compare num_layers and bidirectional",
        )  # fmt: skip
    return ours


def _saved(module: Any, origin: Origin, cell: str | None, where: str = "") -> Any:
    """Return the state of a module as a library saves it."""
    _check_module(module, origin.op)
    if layer := _layer_of(module, origin.op, where):
        place = Origin(f"{origin.op}: {where}" if where else origin.op, origin.library)
        return to_library(module.state_dict(), layer, place, cell if layer == "lstm" else None)
    found = {}
    for name, part in _own_and_children(module):
        path = f"{where}.{name}" if where else name
        is_module = isinstance(part, Module)
        found[name] = _saved(part, origin, cell, path) if is_module else part.numpy()
    return found
