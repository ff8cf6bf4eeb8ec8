"""The ten cells of `cells.py` for the other libraries, each written once.

`F` has the functions of a library: `sigmoid`, `tanh`, `split`, `normalize` (layer normalisation)
and `product_sum`, z + h U, in one call where the library has one (PyTorch's addmm). `steps.py`
creates it. A parameter has its name in `cells.py`; weights are transposed, (I, H) and (H, H), so
that a step does not transpose them.

A cell is two functions: one computes the part that depends on the input alone, the other maps it
and the state to the new state, whose first element is the output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

State = tuple[Any, ...]
Weights = dict[str, Any]


class PeerCell(NamedTuple):
    """A cell, and the number of arrays in its state."""

    project: Callable[[Any, Weights, Any], Any]
    step: Callable[[Any, Weights, Any, State], State]
    elements: int


def affine(F: Any, w: Weights, x: Any) -> Any:
    return F.product_sum(w["W.bias"], x, w["W.weight"])


def rnn(F: Any, w: Weights, z: Any, state: State) -> State:
    (h,) = state
    return (F.tanh(F.product_sum(z, h, w["U.weight"])),)


def gru(F: Any, w: Weights, a: Any, state: State) -> State:
    (h,) = state
    a_r, a_z, a_n = F.split(a, 3)
    b_r, b_z, b_n = F.split(F.product_sum(w["bias"], h, w["U.weight"]), 3)
    r = F.sigmoid(a_r + b_r)
    z = F.sigmoid(a_z + b_z)
    n = F.tanh(a_n + r * b_n)
    return (n + z * (h - n),)


def lstm(F: Any, w: Weights, z: Any, state: State) -> State:
    h, c = state
    i, f, g, o = F.split(F.product_sum(z, h, w["U.weight"]), 4)
    c = F.sigmoid(f) * c + F.sigmoid(i) * F.tanh(g)
    return F.sigmoid(o) * F.tanh(c), c


def peephole_lstm(F: Any, w: Weights, z: Any, state: State) -> State:
    h, c = state
    i, f, g, o = F.split(F.product_sum(z, h, w["U.weight"]), 4)
    i = F.sigmoid(i + w["p_i"] * c)
    f = F.sigmoid(f + w["p_f"] * c)
    c = f * c + i * F.tanh(g)
    o = F.sigmoid(o + w["p_o"] * c)
    return o * F.tanh(c), c


def layer_norm_input(F: Any, w: Weights, x: Any) -> Any:
    return F.normalize(x @ w["W.weight"], w["norm_x.weight"], w["norm_x.bias"])


def layer_norm_lstm(F: Any, w: Weights, z: Any, state: State) -> State:
    h, c = state
    u = F.normalize(h @ w["U.weight"], w["norm_h.weight"], w["norm_h.bias"])
    i, f, g, o = F.split(z + u, 4)
    c = F.sigmoid(f) * c + F.sigmoid(i) * F.tanh(g)
    return F.sigmoid(o) * F.tanh(F.normalize(c, w["norm_c.weight"], w["norm_c.bias"])), c


def minimal_gated_unit(F: Any, w: Weights, z: Any, state: State) -> State:
    (h,) = state
    z_f, z_n = F.split(z, 2)
    f = F.sigmoid(F.product_sum(z_f, h, w["U_f.weight"]))
    n = F.tanh(F.product_sum(z_n, f * h, w["U_n.weight"]))
    return (h + f * (n - h),)


def highway_rnn(F: Any, w: Weights, z: Any, state: State) -> State:
    (s,) = state
    n, t = F.split(F.product_sum(z, s, w["R1.weight"]), 2)
    s = s + F.sigmoid(t) * (F.tanh(n) - s)
    n, t = F.split(F.product_sum(w["R2.bias"], s, w["R2.weight"]), 2)
    return (s + F.sigmoid(t) * (F.tanh(n) - s),)


def ind_rnn(F: Any, w: Weights, z: Any, state: State) -> State:
    (h,) = state
    return (F.tanh(z + w["u"] * h),)


def two_memories_lstm(F: Any, w: Weights, z: Any, state: State) -> State:
    h, c, m = state
    i, f, g, o = F.split(F.product_sum(z, h, w["U.weight"]), 4)
    c = F.sigmoid(f) * c + F.sigmoid(i) * F.tanh(g)
    m = m + F.sigmoid(w["d"]) * (c - m)
    return F.sigmoid(o) * F.tanh(c + m), c, m


def layer_norm_mgu(F: Any, w: Weights, z: Any, state: State) -> State:
    (h,) = state
    z_f, z_n = F.split(z, 2)
    f = F.sigmoid(z_f + F.normalize(h @ w["U_f.weight"], w["norm_f.weight"], w["norm_f.bias"]))
    u = F.normalize((f * h) @ w["U_n.weight"], w["norm_n.weight"], w["norm_n.bias"])
    return (h + f * (F.tanh(z_n + u) - h),)


PEER_CELLS = {
    "rnn": PeerCell(affine, rnn, 1),
    "gru": PeerCell(affine, gru, 1),
    "lstm": PeerCell(affine, lstm, 2),
    "peephole": PeerCell(affine, peephole_lstm, 2),
    "layernorm": PeerCell(layer_norm_input, layer_norm_lstm, 2),
    "mgu": PeerCell(affine, minimal_gated_unit, 1),
    "highway": PeerCell(affine, highway_rnn, 1),
    "indrnn": PeerCell(affine, ind_rnn, 1),
    "memories": PeerCell(affine, two_memories_lstm, 3),
    "layernorm-mgu": PeerCell(affine, layer_norm_mgu, 1),
}


def normalize_by_parts(F: Any, x: Any, weight: Any, bias: Any, eps: float = 1e-5) -> Any:
    """Layer normalisation for a library that has none of its own."""
    centred = x - F.mean(x, -1, keepdims=True)
    variance = F.mean(centred * centred, -1, keepdims=True)
    return centred / F.sqrt(variance + eps) * weight + bias
