"""One step of each recurrent cell of ten libraries, from their formulas, in NumPy.

An oracle for the conversions that needs none of the libraries and nothing of this one. Keys are
those of the libraries' states, as flat dicts with paths. `shapes` returns their shapes.
`test_frameworks.py` and `tools/exchange_matrix.py` run the libraries themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
State = tuple[Array, ...]  # (h,) or (h, c)
Weights = dict[str, Array]
Step = Callable[[Weights, Array, State], State]


def sigmoid(a: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * a))


def lstm(i: Array, f: Array, g: Array, o: Array, c: Array) -> State:
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


# -- the same names as here: PyTorch, Paddle, tinygrad ---------------------------------------------


def torch_lstm(w: Weights, x: Array, state: State) -> State:
    h, c = state
    a = x @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"]
    i, f, g, o = np.split(a, 4, axis=-1)
    return lstm(i, f, g, o, c)


def torch_gru(w: Weights, x: Array, state: State) -> State:
    (h,) = state
    x_r, x_z, x_n = np.split(x @ w["weight_ih"].T + w["bias_ih"], 3, axis=-1)
    h_r, h_z, h_n = np.split(h @ w["weight_hh"].T + w["bias_hh"], 3, axis=-1)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    return ((1 - z) * np.tanh(x_n + r * h_n) + z * h,)


def torch_rnn(w: Weights, x: Array, state: State) -> State:
    (h,) = state
    return (np.tanh(x @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"]),)


# -- Keras -----------------------------------------------------------------------------------------


def keras_lstm(w: Weights, x: Array, state: State) -> State:
    h, c = state
    a = x @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"]
    i, f, g, o = np.split(a, 4, axis=-1)
    return lstm(i, f, g, o, c)


def keras_gru(w: Weights, x: Array, state: State) -> State:
    (h,) = state
    input_bias, recurrent_bias = w["bias"]
    x_z, x_r, x_n = np.split(x @ w["kernel"] + input_bias, 3, axis=-1)
    h_z, h_r, h_n = np.split(h @ w["recurrent_kernel"] + recurrent_bias, 3, axis=-1)
    z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
    return (z * h + (1 - z) * np.tanh(x_n + r * h_n),)


def keras_gru_before(w: Weights, x: Array, state: State) -> State:
    (h,) = state
    x_z, x_r, x_n = np.split(x @ w["kernel"] + w["bias"], 3, axis=-1)
    k_z, k_r, k_n = np.split(w["recurrent_kernel"], 3, axis=-1)
    z, r = sigmoid(x_z + h @ k_z), sigmoid(x_r + h @ k_r)
    return (z * h + (1 - z) * np.tanh(x_n + (r * h) @ k_n),)


def keras_rnn(w: Weights, x: Array, state: State) -> State:
    return (np.tanh(x @ w["kernel"] + state[0] @ w["recurrent_kernel"] + w["bias"]),)


# -- Flax ------------------------------------------------------------------------------------------


def nnx_optimized(w: Weights, x: Array, state: State) -> State:
    h, c = state
    a = x @ w["dense_i/kernel"] + h @ w["dense_h/kernel"] + w["dense_h/bias"]
    i, f, g, o = np.split(a, 4, axis=-1)
    return lstm(i, f, g, o, c)


def flax_lstm(forget: str) -> Step:
    def step(w: Weights, x: Array, state: State) -> State:
        h, c = state
        names = {"i": "ii", "f": forget, "g": "ig", "o": "io"}
        i, f, g, o = (
            x @ w[f"{names[gate]}/kernel"] + h @ w[f"h{gate}/kernel"] + w[f"h{gate}/bias"]
            for gate in "ifgo"
        )
        return lstm(i, f, g, o, c)

    return step


def nnx_gru(w: Weights, x: Array, state: State) -> State:
    (h,) = state
    x_r, x_z, x_n = np.split(x @ w["dense_i/kernel"] + w["dense_i/bias"], 3, axis=-1)
    h_r, h_z, h_n = np.split(h @ w["dense_h/kernel"], 3, axis=-1)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    return ((1 - z) * np.tanh(x_n + r * h_n) + z * h,)


def linen_gru(w: Weights, x: Array, state: State) -> State:
    (h,) = state
    r, z = (
        sigmoid(x @ w[f"i{gate}/kernel"] + w[f"i{gate}/bias"] + h @ w[f"h{gate}/kernel"])
        for gate in "rz"
    )
    h_n = h @ w["hn/kernel"] + w["hn/bias"]
    return ((1 - z) * np.tanh(x @ w["in/kernel"] + w["in/bias"] + r * h_n) + z * h,)


def nnx_simple(w: Weights, x: Array, state: State) -> State:
    return (np.tanh(x @ w["dense_i/kernel"] + w["dense_i/bias"] + state[0] @ w["dense_h/kernel"]),)


def linen_simple(w: Weights, x: Array, state: State) -> State:
    return (np.tanh(x @ w["i/kernel"] + w["i/bias"] + state[0] @ w["h/kernel"]),)


# -- Equinox, MLX ----------------------------------------------------------------------------------


def one_bias_lstm(ih: str, hh: str, bias: str) -> Step:
    def step(w: Weights, x: Array, state: State) -> State:
        h, c = state
        i, f, g, o = np.split(x @ w[ih].T + h @ w[hh].T + w[bias], 4, axis=-1)
        return lstm(i, f, g, o, c)

    return step


def bias_of_n_gru(ih: str, hh: str, bias: str, bias_n: str) -> Step:
    def step(w: Weights, x: Array, state: State) -> State:
        (h,) = state
        x_r, x_z, x_n = np.split(x @ w[ih].T + w[bias], 3, axis=-1)
        h_r, h_z, h_n = np.split(h @ w[hh].T, 3, axis=-1)
        r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
        n = np.tanh(x_n + r * (h_n + w[bias_n]))
        return (n + z * (h - n),)

    return step


def mlx_rnn(w: Weights, x: Array, state: State) -> State:
    return (np.tanh(x @ w["Wxh"].T + state[0] @ w["Whh"].T + w["bias"]),)


# -- Haiku -----------------------------------------------------------------------------------------


def haiku_lstm(w: Weights, x: Array, state: State) -> State:
    h, c = state
    both = np.concatenate([x, h], axis=-1) @ w["linear/w"] + w["linear/b"]
    i, g, f, o = np.split(both, 4, axis=-1)
    return lstm(i, f + 1, g, o, c)


def haiku_gru(w: Weights, x: Array, state: State) -> State:
    (h,) = state
    x_z, x_r, x_a = np.split(x @ w["w_i"], 3, axis=-1)
    w_z, w_r, w_a = np.split(w["w_h"], 3, axis=-1)
    b_z, b_r, b_a = np.split(w["b"], 3)
    z, r = sigmoid(x_z + h @ w_z + b_z), sigmoid(x_r + h @ w_r + b_r)
    return ((1 - z) * h + z * np.tanh(x_a + (r * h) @ w_a + b_a),)


def haiku_rnn(w: Weights, x: Array, state: State) -> State:
    a = x @ w["linear/w"] + w["linear/b"] + state[0] @ w["linear_1/w"] + w["linear_1/b"]
    return (np.maximum(a, 0),)


# -- ONNX: the arrays of one direction -------------------------------------------------------------


def onnx_lstm(w: Weights, x: Array, state: State) -> State:
    h, c = state
    bias = sum(np.split(w["B"], 2))
    i, o, f, g = np.split(x @ w["W"].T + h @ w["R"].T + bias, 4, axis=-1)
    return lstm(i, f, g, o, c)


def onnx_gru(after: bool) -> Step:
    def step(w: Weights, x: Array, state: State) -> State:
        (h,) = state
        Wb, Rb = np.split(w["B"], 2)
        x_z, x_r, x_h = np.split(x @ w["W"].T + Wb, 3, axis=-1)
        R_z, R_r, R_h = np.split(w["R"], 3)
        b_z, b_r, b_h = np.split(Rb, 3)
        z, r = sigmoid(x_z + h @ R_z.T + b_z), sigmoid(x_r + h @ R_r.T + b_r)
        inner = r * (h @ R_h.T + b_h) if after else (r * h) @ R_h.T + b_h
        return ((1 - z) * np.tanh(x_h + inner) + z * h,)

    return step


def onnx_rnn(w: Weights, x: Array, state: State) -> State:
    return (np.tanh(x @ w["W"].T + state[0] @ w["R"].T + sum(np.split(w["B"], 2))),)


TORCH = {"lstm": torch_lstm, "gru": torch_gru, "rnn": torch_rnn}
STEPS: dict[tuple[str, str], Step] = {
    **{("torch", name): TORCH[name.lower()] for name in ("LSTM", "GRU", "RNN")},
    ("paddle", "LSTM"): torch_lstm,
    ("paddle", "GRU"): torch_gru,
    ("paddle", "SimpleRNN"): torch_rnn,
    ("tinygrad", "LSTMCell"): torch_lstm,
    ("keras", "LSTM"): keras_lstm,
    ("keras", "GRU"): keras_gru,
    ("keras", "GRU, reset_after=False"): keras_gru_before,
    ("keras", "SimpleRNN"): keras_rnn,
    ("nnx", "OptimizedLSTMCell"): nnx_optimized,
    ("nnx", "LSTMCell"): flax_lstm("if_"),
    ("nnx", "GRUCell"): nnx_gru,
    ("nnx", "SimpleCell"): nnx_simple,
    ("linen", "LSTMCell, OptimizedLSTMCell"): flax_lstm("if"),
    ("linen", "GRUCell"): linen_gru,
    ("linen", "SimpleCell"): linen_simple,
    ("equinox", "LSTMCell"): one_bias_lstm("weight_ih", "weight_hh", "bias"),
    ("equinox", "GRUCell"): bias_of_n_gru("weight_ih", "weight_hh", "bias", "bias_n"),
    ("haiku", "LSTM"): haiku_lstm,
    ("haiku", "GRU"): haiku_gru,
    ("haiku", "VanillaRNN"): haiku_rnn,
    ("mlx", "LSTM"): one_bias_lstm("Wx", "Wh", "bias"),
    ("mlx", "GRU"): bias_of_n_gru("Wx", "Wh", "b", "bhn"),
    ("mlx", "RNN"): mlx_rnn,
    ("onnx", "LSTM"): onnx_lstm,
    ("onnx", "GRU, linear_before_reset=1"): onnx_gru(after=True),
    ("onnx", "GRU, linear_before_reset=0"): onnx_gru(after=False),
    ("onnx", "RNN"): onnx_rnn,
}


def shapes(library: str, cell: str, inputs: int, H: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays of a cell, as the library makes them."""
    gates = 4 if "LSTM" in cell else 3 if "GRU" in cell else 1
    R = gates * H
    if library in ("torch", "paddle", "tinygrad"):
        return {"weight_ih": (R, inputs), "weight_hh": (R, H), "bias_ih": (R,), "bias_hh": (R,)}
    if library == "keras":
        bias = (2, R) if cell == "GRU" else (R,)
        return {"kernel": (inputs, R), "recurrent_kernel": (H, R), "bias": bias}
    if library == "nnx" and cell != "LSTMCell":
        where = "dense_h/bias" if gates == 4 else "dense_i/bias"
        return {"dense_i/kernel": (inputs, R), "dense_h/kernel": (H, R), where: (R,)}
    if library in ("nnx", "linen"):
        names = {4: ["i", "if_" if library == "nnx" else "if", "g", "o"], 3: [*"rzn"], 1: [""]}
        found: dict[str, tuple[int, ...]] = {}
        for name in names[gates]:
            gate = name.removeprefix("i").strip("_") or ("i" if gates == 4 else "")
            into = name if name.startswith("if") else f"i{name}"
            found[f"{into}/kernel"] = (inputs, H)
            found[f"h{gate}/kernel"] = (H, H)
            found[f"h{gate}/bias" if gates == 4 else f"{into}/bias"] = (H,)
        return found | ({"hn/bias": (H,)} if gates == 3 else {})
    if library == "equinox":
        more = {"bias_n": (H,)} if gates == 3 else {}
        return {"weight_ih": (R, inputs), "weight_hh": (R, H), "bias": (R,)} | more
    if library == "haiku" and gates == 4:
        return {"linear/w": (inputs + H, R), "linear/b": (R,)}
    if library == "haiku" and gates == 3:
        return {"w_i": (inputs, R), "w_h": (H, R), "b": (R,)}
    if library == "haiku":
        return {
            "linear/w": (inputs, H), "linear/b": (H,), "linear_1/w": (H, H), "linear_1/b": (H,),
        }  # fmt: skip
    if library == "mlx":
        ih, hh, bias = {4: ("Wx", "Wh", "bias"), 3: ("Wx", "Wh", "b"), 1: ("Wxh", "Whh", "bias")}[
            gates
        ]
        more = {"bhn": (H,)} if gates == 3 else {}
        return {ih: (R, inputs), hh: (R, H), bias: (R,)} | more
    return {"W": (R, inputs), "R": (R, H), "B": (2 * R,)}
