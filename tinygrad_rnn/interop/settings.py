"""Settings of a layer that no weight shows, compared with the values that can be converted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .conventions import Convention, PlainConvention
from .foreign_state import Origin

NONLINEARITIES = ("tanh", "relu")
EPSILON = ("epsilon", "eps")
CURES = {
    "activation": "write a cell with this function, a subclass of nn.Cell",
    "linear": "convert the layer without it, and apply the function to its output",
    "reset_after": "nn.GRU is reset_after=True, nn.Recurrent(nn.ResetBeforeGRUCell, ...) is "
    "reset_after=False",
    "linear_before_reset": "nn.GRU is linear_before_reset=1, nn.ResetBeforeGRUCell is 0",
    "go_backwards": "reverse the input in time, tinygrad_rnn.flip(x, 0), and set it to False",
    "clip": "a network that was trained with it computes another function without",
    "merge_mode": "only concatenated outputs are those of a layer with bidirectional=True",
    "direction": "reverse the input in time, or use a layer with bidirectional=True",
    "layout": "the arrays of weights are the same; pass the data time first, and set it to 0",
}


def check_recurrent(
    config: Any, row: Convention, nonlinearity: str | None, where: str, origin: Origin
) -> None:
    """Raise unless the settings of a recurrent layer are those that its convention converts.

    Parameters
    ----------
    config : mapping or None
        The settings as the library saves them; those of Keras's `Bidirectional` have the layer's
        inside.
    row : Convention
        The convention of the cell.
    nonlinearity : str or None
        That of the RNN to load into, if it is known.
    where : str
        The place in the state.
    origin : Origin
        The library and the call.

    Raises
    ------
    ArgumentError
        Names the setting, its value, the value that is possible, and the cure.
    """
    fixed = row.config.get("nonlinearity", "nonlinearity")
    if fixed != "nonlinearity" and nonlinearity not in (None, fixed):
        origin.refuse(
            where, f"the function of {origin.title}'s {row.cell} is {fixed}, the module's "
            f"{nonlinearity}", f"make the layer with nonlinearity={fixed!r}",
        )  # fmt: skip
    given = config is not None
    config = _mapping(config, where, origin)
    if "layer" in config:  # Keras's Bidirectional
        _require("merge_mode", config.get("merge_mode", "concat"), ("concat",), where, origin)
        config = _mapping(config["layer"].get("config"), where, origin)
    if "cell" in config and isinstance(config["cell"], Mapping):  # Keras's RNN
        config = {**config, **_mapping(config["cell"].get("config"), where, origin)}
    for key, value in config.items():
        inner = [name for name in row.config if isinstance(value, Mapping) and name in value]
        if inner:
            origin.refuse(
                where, f"config has {inner[0]} inside of {key!r}",
                "give the settings of this layer, nested as the state is",
            )  # fmt: skip
    if row.library == "onnx" and given and "linear_before_reset" in row.config:
        config = {"linear_before_reset": 0} | dict(config)  # the default of the node
    for key, allowed in row.config.items():
        if key in config:
            values: tuple[Any, ...] = (allowed,)
            if allowed == "nonlinearity":
                values = (nonlinearity,) if nonlinearity else NONLINEARITIES
            _require(key, config[key], values, where, origin)
    direction = config.get("direction", "forward")
    _require("direction", direction, ("forward", "bidirectional"), where, origin)


def check_plain(
    config: Any, row: PlainConvention, eps: float | None, where: str, origin: Origin
) -> None:
    """Raise unless the settings of a layer without recurrence can be converted.

    Parameters
    ----------
    config : mapping or None
        As of `check_recurrent`.
    row : PlainConvention
        The convention of the layer.
    eps : float or None
        That of the LayerNorm to load into, if it is known.
    where : str
        The place in the state.
    origin : Origin
        The library and the call.

    Raises
    ------
    ArgumentError
        As of `check_recurrent`; also if ε is our default, the library has another default, and the
        settings do not tell.
    """
    config = _mapping(config, where, origin)
    for key, allowed in row.config.items():
        if key in config:
            cure = CURES["linear"] if row.layer == "linear" else ""
            _require(key, config[key], (allowed,), where, origin, cure)
    if eps is None or not row.epsilon:
        return
    theirs = next((config[key] for key in EPSILON if key in config), None)
    if theirs is None and eps == 1e-5 != row.epsilon:
        origin.refuse(
            where, f"eps = {eps:g} is the module's, {row.epsilon:g} the default of "
            f"{origin.title}'s {row.cell}, and the weights do not tell",
            f"make nn.LayerNorm(..., eps={row.epsilon:g}), or pass the layer's value, "
            f"config={{'{EPSILON[0]}': ...}}",
        )  # fmt: skip
    if theirs is not None and theirs != eps:
        origin.refuse(
            where, f"eps = {eps:g} is the module's, the layer's is {theirs:g}",
            f"make nn.LayerNorm(..., eps={theirs:g})",
        )  # fmt: skip


def _mapping(config: Any, where: str, origin: Origin) -> Mapping[str, Any]:
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        origin.refuse(
            where, f"config is a {type(config).__name__}",
            "a mapping is expected, such as layer.get_config()",
        )  # fmt: skip
    return config


def _require(
    key: str, value: Any, allowed: tuple[Any, ...], where: str, origin: Origin, cure: str = ""
) -> None:
    """Raise unless a setting has one of the allowed values."""
    if any(_normal(value) == _normal(choice) for choice in allowed):
        return
    if isinstance(allowed[0], str) and " " in allowed[0]:  # a function for each gate and direction
        needed = _normal(allowed[0])
        if _normal(value) == needed * 2:
            return
    shown = " or ".join(repr(choice) for choice in allowed)
    cure = cure or CURES.get(key, CURES["activation"] if "activation" in key else "")
    origin.refuse(
        where, f"{key} = {_shown(value)!r} cannot be converted, only {shown}",
        cure or "no layer here has this setting",
    )  # fmt: skip


def _shown(value: Any) -> Any:
    return getattr(value, "__name__", value)


def _normal(value: Any) -> Any:
    """Return a setting in a form that can be compared: functions by their names, in lower case."""
    value = _shown(value)
    if isinstance(value, str):
        words = tuple(value.lower().split())
        return words[0] if len(words) == 1 else words
    if isinstance(value, list | tuple):
        return tuple(_normal(x) for x in value) if len(value) != 1 else _normal(value[0])
    return value
