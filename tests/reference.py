"""Recurrent layers written from their equations in plain NumPy, as an oracle for the tests.

Nothing of the library is imported, and nothing is clever: Python loops over sequences, layers,
directions and time, float64 throughout. Weights come in a dict with PyTorch's names:
``weight_ih_l0`` (G·H, I), ``weight_hh_l0`` (G·H, R), ``bias_ih_l0`` and ``bias_hh_l0`` (G·H,),
``weight_hr_l0`` (P, H) for a projected LSTM; ``_l1`` for the second layer, ``_reverse`` for the
second direction. R is P where there is a projection and H elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
State = tuple[Array, ...]

KINDS = ("rnn_tanh", "rnn_relu", "gru", "lstm")
GATES = {"rnn_tanh": 1, "rnn_relu": 1, "gru": 3, "lstm": 4}


def sigmoid(a: Array) -> Array:
    """1 / (1 + exp(-a)), by an identity that cannot overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * a))


def step(kind: str, weights: Mapping[str, Array], suffix: str, x: Array, state: State) -> State:
    """Advance one cell by one time step of one sequence: x (I,), the elements of the state (H,)."""
    from_input = weights["weight_ih" + suffix] @ x
    from_state = weights["weight_hh" + suffix] @ state[0]
    if "bias_ih" + suffix in weights:
        from_input = from_input + weights["bias_ih" + suffix]
        from_state = from_state + weights["bias_hh" + suffix]

    if kind == "rnn_tanh":
        return (np.tanh(from_input + from_state),)
    if kind == "rnn_relu":
        return (np.maximum(from_input + from_state, 0.0),)
    if kind == "gru":
        (h,) = state
        x_r, x_z, x_n = np.split(from_input, 3)
        h_r, h_z, h_n = np.split(from_state, 3)
        r = sigmoid(x_r + h_r)
        z = sigmoid(x_z + h_z)
        n = np.tanh(x_n + r * h_n)
        return ((1.0 - z) * n + z * h,)
    if kind == "lstm":
        _, c = state
        i, f, g, o = np.split(from_input + from_state, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        if "weight_hr" + suffix in weights:
            h = weights["weight_hr" + suffix] @ h
        return (h, c)
    raise ValueError(kind)


def recurrent(
    kind: str,
    weights: Mapping[str, Array],
    x: Array,
    state: State | None = None,
    lengths: Sequence[int] | None = None,
) -> tuple[Array, State]:
    """Run a whole layer: x (T, B, I) to the output (T, B, D·R) and the state, elements (L·D, B, ·).

    A state is a tuple, ``(h,)`` or ``(h, c)``. Each sequence of a ragged batch is run over its own
    steps alone: its output is zero past its end, its reverse direction starts at its own last step.
    """
    steps, batch, _ = x.shape
    suffixes = layer_suffixes(weights)
    if state is None:
        state = initial_state(kind, weights, batch)
    output = np.zeros((steps, batch, len(suffixes[0]) * state[0].shape[2]))
    final = tuple(element.copy() for element in state)
    for b in range(batch):
        length = steps if lengths is None else int(lengths[b])
        inputs = [x[t, b] for t in range(length)]
        row = 0
        for layer in suffixes:
            outputs: list[list[Array]] = [[] for _ in range(length)]
            for suffix in layer:
                current = tuple(element[row, b] for element in state)
                backwards = suffix.endswith("_reverse")
                for t in reversed(range(length)) if backwards else range(length):
                    current = step(kind, weights, suffix, inputs[t], current)
                    outputs[t].append(current[0])
                for element, value in zip(final, current, strict=True):
                    element[row, b] = value
                row += 1
            inputs = [np.concatenate(directions) for directions in outputs]
        for t in range(length):
            output[t, b] = inputs[t]
    return output, final


def layer_suffixes(weights: Mapping[str, Array]) -> list[list[str]]:
    """Return the suffixes of the weights' names, layer by layer and direction by direction."""
    suffixes = []
    while f"weight_ih_l{len(suffixes)}" in weights:
        k = len(suffixes)
        both = (f"_l{k}", f"_l{k}_reverse")
        suffixes.append([suffix for suffix in both if "weight_ih" + suffix in weights])
    return suffixes


def initial_state(kind: str, weights: Mapping[str, Array], batch: int) -> State:
    """Return the zeros that a layer starts from when it is given no state."""
    rows = sum(map(len, layer_suffixes(weights)))
    width, recurrent_width = weights["weight_hh_l0"].shape
    h = np.zeros((rows, batch, recurrent_width))
    return (h, np.zeros((rows, batch, width // 4))) if kind == "lstm" else (h,)


def weight_shapes(
    kind: str,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    bias: bool = True,
    bidirectional: bool = False,
    proj_size: int = 0,
) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every weight of a layer, in PyTorch's order."""
    rows = GATES[kind] * hidden_size
    recurrent_width = proj_size or hidden_size
    shapes: dict[str, tuple[int, ...]] = {}
    width = input_size
    for k in range(num_layers):
        for suffix in [f"_l{k}", f"_l{k}_reverse"][: 1 + bidirectional]:
            shapes["weight_ih" + suffix] = (rows, width)
            shapes["weight_hh" + suffix] = (rows, recurrent_width)
            if bias:
                shapes["bias_ih" + suffix] = (rows,)
                shapes["bias_hh" + suffix] = (rows,)
            if proj_size:
                shapes["weight_hr" + suffix] = (proj_size, hidden_size)
        width = recurrent_width * (1 + bidirectional)
    return shapes


def difference(
    f: Callable[..., Any],
    arguments: Sequence[Array],
    directions: Sequence[Array],
    step: float = 1e-3,
) -> float:
    """Return the derivative of ``f(*arguments)`` along ``directions``: central, of fourth order.

    (8 (f(+ε) - f(-ε)) - (f(+2ε) - f(-2ε))) / 12ε; its error is O(ε⁴) and rounding.
    """

    def at(distance: float) -> float:
        moved = [a + distance * d for a, d in zip(arguments, directions, strict=True)]
        return float(f(*moved))

    near, far = at(step) - at(-step), at(2 * step) - at(-2 * step)
    return (8 * near - far) / (12 * step)


def gradient(f: Callable[[Array], Any], x: Array, step: float = 1e-3) -> Array:
    """Return the gradient of the scalar ``f(x)``, one direction after another."""
    result = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        unit = np.zeros_like(x)
        unit[index] = 1.0
        result[index] = difference(f, [x], [unit], step)
    return result
