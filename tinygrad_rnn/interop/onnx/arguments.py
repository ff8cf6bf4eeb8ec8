"""The inputs of an exported network: their names, and which of their lengths vary."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._util.api_hints import class_name
from ..._util.nested import leaves, map_nested
from ...engine import backend
from ...engine.tensor import Tensor
from ...errors import ArgumentError, DeviceError
from ...models import Classifier, Forecaster, NeuralLM, RecurrentLM
from ...nn import Embedding, LayerNorm, Linear, Module, Recurrent, Sequential
from ..units import ForecasterInUnits

OP = "save_onnx"


class Input(NamedTuple):
    """An input of the file.

    Attributes
    ----------
    name : str
    example : array
        Its dtype counts, and its lengths on the axes that do not vary.
    axes : tuple of str and None
        The name of the length of each axis; None where it is fixed.
    default : array or None
        Of an optional input: its value if it is not given, broadcast on the axes that vary.
    """

    name: str
    example: Any
    axes: tuple[str | None, ...]
    default: Any = None


class Arguments(NamedTuple):
    """The arguments of a call of the network, with an `Input` in place of each array."""

    positional: tuple[Any, ...]
    by_name: Mapping[str, Any]
    inputs: list[Input]


def arguments_of(model: Module, given: Sequence[Any], by_name: Mapping[str, Any]) -> Arguments:
    """Return the arguments for the examples that the user gave.

    Raises
    ------
    ArgumentError
        If they do not fit the signature of ``forward``.
    """
    if not given and not by_name:
        return _known(model)
    kind = type(model).__name__
    try:
        bound = inspect.signature(model.forward).bind(*given, **by_name)
    except TypeError as error:
        raise ArgumentError(f"{OP}: the examples do not fit {kind}.forward: {error}") from None
    inputs: list[Input] = []
    first = batch_first(model)

    def named(name: str, value: Any) -> Any:
        if name == "lengths" and isinstance(value, list | tuple):
            value = np.array(value)
        found = [x for x in leaves(value) if x is not None]
        several = len(found) > 1
        count = -1

        def leaf(x: Any) -> Any:
            nonlocal count
            if x is None or isinstance(x, bool | int | float | str):
                return x
            count += 1
            array = _array(f"{kind}.forward: {name}", x)
            label = f"{name}_{count}" if several else name
            axes = _default_axes(array, not inputs, first)
            inputs.append(Input(label, array, axes))
            return inputs[-1]

        return map_nested(leaf, value)

    parameters = inspect.signature(model.forward).parameters
    for name, value in bound.arguments.items():
        if parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            value = tuple([named(f"{name}_{i}", v) for i, v in enumerate(value)])
        elif parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            value = {key: named(key, v) for key, v in value.items()}
        else:
            value = named(name, value)
        bound.arguments[name] = value
    if not inputs:
        raise ArgumentError(f"{OP}: none of the examples for {kind} is a Tensor or an array")
    return Arguments(bound.args, bound.kwargs, inputs)


def _array(name: str, x: Any) -> Any:
    data = x._data if isinstance(x, Tensor) else x
    if not backend.is_array(data):
        raise ArgumentError(f"{OP}: {name} is a {class_name(x)}: Tensors and arrays are expected")
    if backend.device_of(data) != "cpu":
        raise DeviceError(f"{OP}: {name} is on {backend.device_of(data)}: use x.to('cpu')")
    return np.asarray(data)


def _default_axes(x: Any, is_first: bool, batch: bool) -> tuple[str | None, ...]:
    """Return the axes that vary: time and batch of the first input, the batch of the others."""
    steps: tuple[str | None, ...] = ("B", "T") if batch else ("T", "B")
    if x.dtype.kind in "iub":
        return {1: ("B",), 2: steps}.get(x.ndim, (None,) * x.ndim)
    if x.ndim == 2:
        return ("B", None)
    if x.ndim == 3:
        return (*steps, None) if is_first else (None, "B", None)
    return (None,) * x.ndim


def batch_first(model: Module) -> bool:
    """Tell whether the first recurrent layer of a network is `batch_first`."""
    layer = next((m for m in model.modules() if isinstance(m, Recurrent)), None)
    return layer is not None and layer.batch_first


def with_axes(inputs: Sequence[Input], axes: Mapping[str, Any] | None) -> list[Input]:
    """Return inputs with the axes that the user named.

    Raises
    ------
    ArgumentError
        If a name or the number of axes does not fit.
    """
    known = {x.name: x for x in inputs}
    if axes is not None and not isinstance(axes, Mapping):
        raise ArgumentError(
            f"{OP}: axes are a dict from names of inputs, such as {{{inputs[0].name!r}: "
            f"{inputs[0].axes}}}, got {axes!r:.60}"
        )
    for name, chosen in ({} if axes is None else axes).items():
        if name not in known:
            raise ArgumentError(f"{OP}: axes for {name!r}: the inputs are {', '.join(known)}")
        shape = known[name].example.shape
        fits = isinstance(chosen, tuple | list) and len(chosen) == len(shape)
        if not fits or any(not (n is None or (isinstance(n, str) and n)) for n in chosen):
            raise ArgumentError(
                f"{OP}: axes of {name!r}, of shape {shape}: a name or None for each axis, such as "
                f"('T', 'B', None), got {chosen!r}"
            )
        known[name] = known[name]._replace(axes=tuple(chosen))
    lengths = {n for x in known.values() if x.default is None for n in x.axes}
    for x in known.values():
        unknown = [n for n in x.axes if n is not None and n not in lengths]
        if unknown:
            raise ArgumentError(
                f"{OP}: the length {unknown[0]!r} of the input {x.name!r}, which is optional, is "
                f"none of the others: give axes of {x.name!r} too"
            )
    return list(known.values())


# -- layers and models whose inputs are known ------------------------------------------------------


def _known(model: Module) -> Arguments:
    """Return the arguments of a layer or model of the library; states and lengths are optional."""
    inputs = _known_inputs(model)
    if not inputs:
        raise ArgumentError(
            f"{OP}: the inputs of {type(model).__name__} are not known: give an example of each, "
            f"{OP}(path, model, x)"
        )
    x, *optional = inputs
    by_name: dict[str, Any] = {}
    states = [s for s in optional if s.name.startswith("state")]
    if states:
        by_name["state"] = states[0] if states[0].name == "state" else tuple(states)
    by_name.update({s.name: s for s in optional if s.name == "lengths"})
    return Arguments((x,), by_name, inputs)


def _known_inputs(model: Any) -> list[Input]:
    if isinstance(model, Sequential):
        return _known_inputs(model[0]) if len(model) else []
    if type(model).forward in (Recurrent.forward, RecurrentLM.forward):
        rnn = model if isinstance(model, Recurrent) else model.rnn
        steps = ("B", "T") if rnn.batch_first else ("T", "B")
        dtype = next(rnn.parameters()).dtype if [*rnn.parameters()] else np.dtype("float32")
        x = Input("x", np.zeros((2, 2, rnn.input_size), dtype), (*steps, None))
        if rnn is not model:
            x = Input("ids", np.zeros((2, 2), np.int64), steps)
        optional = _states(rnn, dtype)
        return [x, *optional, *([_lengths()] if rnn is model else [])]
    if isinstance(model, ForecasterInUnits):
        return _known_inputs(model.model)
    if type(model).forward in (Classifier.forward, Forecaster.forward):
        dtype, size = model.head.weight.dtype, model.summary.rnn.input_size
        x = Input("x", np.zeros((2, 2, size), dtype), ("B", "T", None))
        if getattr(model, "vocabulary", None) is not None:
            x = Input("ids", np.zeros((2, 2), np.int64), ("B", "T"))
        return [x, _lengths()]
    if type(model) is NeuralLM:
        state = np.zeros((model.context - 1, 1), np.int64)
        before = [Input("state", state, (None, "B"), state)] if model.context > 1 else []
        return [Input("ids", np.zeros((2, 2), np.int64), ("T", "B")), *before]
    if type(model) is Embedding:
        return [Input("ids", np.zeros((2, 2), np.int64), ("T", "B"))]
    if type(model) is Linear:
        return [Input("x", np.zeros((2, model.weight.shape[1]), model.weight.dtype), ("B", None))]
    if type(model) is LayerNorm:
        dtype = np.float32 if model.weight is None else model.weight.dtype
        shape = model.normalized_shape
        return [Input("x", np.zeros((2, *shape), dtype), ("B", *[None] * len(shape)))]
    return []


def _lengths() -> Input:
    """Return the lengths of a ragged batch, by default those of the longest sequence."""
    end = np.array([np.iinfo(np.int32).max], np.int64)
    return Input("lengths", np.ones(2, np.int64), ("B",), end)


def _states(rnn: Recurrent, dtype: Any) -> list[Input]:
    """Return the elements of the state, (L·D, B, H); by default those of the cells."""
    initial = [cell._checked_initial_state(1, dtype, "cpu") for cell in rnn.cells]
    rows = [s if isinstance(s, tuple) else (s,) for s in initial]
    stacks = [np.stack([np.asarray(s._data) for s in column]) for column in zip(*rows, strict=True)]
    several = len(stacks) > 1
    return [
        Input(f"state_{i}" if several else "state", stack, (None, "B", None), stack)
        for i, stack in enumerate(stacks)
    ]
