"""Six recurrent cells as a user of the library writes them.

Three of them are also built in, the other three are not. A cell is one time step: `project`
computes the part that depends on the input alone (it is called once, for all steps), and `step` the
rest. The elementwise part of a step is a function under `tg.fuse`, and so one operation. All names
are public.

Letters: B batch, I input size, H hidden size; σ is the sigmoid, ⊙ the elementwise product.
`peer_cells.py` has the same six for the other libraries.
"""

from __future__ import annotations

import tinygrad_rnn as tg

Tensor = tg.Tensor
Pair = tuple[Tensor, Tensor]


# -- h' = tanh(W x + b + U h)


@tg.fuse
def rnn(z: Tensor, u: Tensor) -> Tensor:
    return tg.tanh(z + u)


class RNN(tg.nn.Cell):
    """The simple recurrence (Elman 1990)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.W = tg.nn.Linear(input_size, hidden_size)
        self.U = tg.nn.Linear(hidden_size, hidden_size, bias=False)

    def project(self, x: Tensor) -> Tensor:
        return self.W(x)

    def step(self, z: Tensor, h: Tensor) -> Tensor:
        return rnn(z, self.U(h))


# -- r, z = σ(W x + b + U h + b')    n = tanh(W_n x + b_n + r ⊙ (U_n h + b_n'))
# -- h' = (1 - z) ⊙ n + z ⊙ h


@tg.fuse
def gru(a: Tensor, b: Tensor, bias: Tensor, h: Tensor) -> Tensor:
    a_r, a_z, a_n = a.split(3, axis=-1)
    b_r, b_z, b_n = (b + bias).split(3, axis=-1)
    r = tg.sigmoid(a_r + b_r)
    z = tg.sigmoid(a_z + b_z)
    n = tg.tanh(a_n + r * b_n)
    return n + z * (h - n)


class GRU(tg.nn.Cell):
    """The gated recurrent unit (Cho et al. 2014), with the reset gate after the product."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.W = tg.nn.Linear(input_size, 3 * hidden_size)
        self.U = tg.nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.bias = tg.nn.Parameter(tg.zeros(3 * hidden_size))

    def project(self, x: Tensor) -> Tensor:
        return self.W(x)

    def step(self, a: Tensor, h: Tensor) -> Tensor:
        return gru(a, self.U(h), self.bias, h)


# -- i, f, o = σ(W x + b + U h)      g = tanh(W_g x + b_g + U_g h)
# -- c' = f ⊙ c + i ⊙ g              h' = o ⊙ tanh(c')


@tg.fuse
def lstm(z: Tensor, u: Tensor, c: Tensor) -> Pair:
    i, f, g, o = (z + u).split(4, axis=-1)
    c = tg.sigmoid(f) * c + tg.sigmoid(i) * tg.tanh(g)
    return tg.sigmoid(o) * tg.tanh(c), c


class LSTM(tg.nn.Cell):
    """Long short-term memory (Hochreiter and Schmidhuber 1997) with forget gates."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = (hidden_size, hidden_size)  # of h and of c
        self.W = tg.nn.Linear(input_size, 4 * hidden_size)
        self.U = tg.nn.Linear(hidden_size, 4 * hidden_size, bias=False)

    def project(self, x: Tensor) -> Tensor:
        return self.W(x)

    def step(self, z: Tensor, state: Pair) -> Pair:
        h, c = state
        return lstm(z, self.U(h), c)


# -- as the LSTM, but i and f also read p ⊙ c, and o reads p ⊙ c'


@tg.fuse
def peephole_lstm(z: Tensor, u: Tensor, c: Tensor, p_i: Tensor, p_f: Tensor, p_o: Tensor) -> Pair:
    i, f, g, o = (z + u).split(4, axis=-1)
    i = tg.sigmoid(i + p_i * c)
    f = tg.sigmoid(f + p_f * c)
    c = f * c + i * tg.tanh(g)
    return tg.sigmoid(o + p_o * c) * tg.tanh(c), c


class PeepholeLSTM(LSTM):
    """The LSTM whose gates read the memory (Gers, Schraudolph and Schmidhuber 2002)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.p_i = tg.nn.Parameter(tg.zeros(hidden_size))
        self.p_f = tg.nn.Parameter(tg.zeros(hidden_size))
        self.p_o = tg.nn.Parameter(tg.zeros(hidden_size))

    def step(self, z: Tensor, state: Pair) -> Pair:
        h, c = state
        return peephole_lstm(z, self.U(h), c, self.p_i, self.p_f, self.p_o)


# -- as the LSTM, with LN(W x) + LN(U h) in place of the sum, and h' = o ⊙ tanh(LN(c'))


@tg.fuse
def memory(z: Tensor, u: Tensor, c: Tensor) -> Pair:
    i, f, g, o = (z + u).split(4, axis=-1)
    return tg.sigmoid(f) * c + tg.sigmoid(i) * tg.tanh(g), tg.sigmoid(o)


@tg.fuse
def shown(o: Tensor, c: Tensor) -> Tensor:
    return o * tg.tanh(c)


class LayerNormLSTM(tg.nn.Cell):
    """The LSTM with layer normalisation (Ba, Kiros and Hinton 2016, equations 20 to 22)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = (hidden_size, hidden_size)
        self.W = tg.nn.Linear(input_size, 4 * hidden_size, bias=False)
        self.U = tg.nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.norm_x = tg.nn.LayerNorm(4 * hidden_size)
        self.norm_h = tg.nn.LayerNorm(4 * hidden_size)
        self.norm_c = tg.nn.LayerNorm(hidden_size)

    def project(self, x: Tensor) -> Tensor:
        return self.norm_x(self.W(x))

    def step(self, z: Tensor, state: Pair) -> Pair:
        h, c = state
        c, o = memory(z, self.norm_h(self.U(h)), c)
        return shown(o, self.norm_c(c)), c


# -- f = σ(W_f x + b_f + U_f h)      n = tanh(W_n x + b_n + U_n (f ⊙ h))
# -- h' = (1 - f) ⊙ h + f ⊙ n


@tg.fuse
def forget(z_f: Tensor, u: Tensor, h: Tensor) -> Pair:
    f = tg.sigmoid(z_f + u)
    return f, f * h


@tg.fuse
def renew(z_n: Tensor, u: Tensor, f: Tensor, h: Tensor) -> Tensor:
    return h + f * (tg.tanh(z_n + u) - h)


class MinimalGatedUnit(tg.nn.Cell):
    """One gate, two matrix products in sequence (Zhou et al. 2016)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.W = tg.nn.Linear(input_size, 2 * hidden_size)
        self.U_f = tg.nn.Linear(hidden_size, hidden_size, bias=False)
        self.U_n = tg.nn.Linear(hidden_size, hidden_size, bias=False)

    def project(self, x: Tensor) -> Tensor:
        return self.W(x)

    def step(self, z: Tensor, h: Tensor) -> Tensor:
        z_f, z_n = z.split(2, axis=-1)
        f, kept = forget(z_f, self.U_f(h), h)
        return renew(z_n, self.U_n(kept), f, h)


CELLS: dict[str, type[tg.nn.Cell]] = {
    "rnn": RNN,
    "gru": GRU,
    "lstm": LSTM,
    "peephole": PeepholeLSTM,
    "layernorm": LayerNormLSTM,
    "mgu": MinimalGatedUnit,
}
BUILT_IN = {"rnn": tg.nn.RNN, "gru": tg.nn.GRU, "lstm": tg.nn.LSTM}
