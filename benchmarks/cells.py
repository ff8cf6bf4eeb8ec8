"""Ten recurrent cells as a user of the library writes them.

Three of them are also built in, the others are not. A cell is one time step: `project` computes the
part that depends on the input alone (it is called once, for all steps), and `step` the rest.
Nothing is declared: the loop over time becomes one operation by itself. All names are public.

Letters: B batch, I input size, H hidden size; σ is the sigmoid, ⊙ the elementwise product.
`peer_cells.py` has the same ten for the other libraries.
"""

from __future__ import annotations

import tinygrad_rnn as tg

Tensor = tg.Tensor
State = tuple[Tensor, ...]


class Gated(tg.nn.Cell):
    """Base of the cells: W x + b for all time steps, and U for h."""

    gates = 1  # blocks of H rows in W and U
    elements = 1  # of the state

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size if self.elements == 1 else (hidden_size,) * self.elements
        self.W = tg.nn.Linear(input_size, self.gates * hidden_size)
        self.U = tg.nn.Linear(hidden_size, self.gates * hidden_size, bias=False)

    def project(self, x: Tensor) -> Tensor:
        return self.W(x)


# -- h' = tanh(W x + b + U h)


class RNN(Gated):
    """The simple recurrence (Elman 1990)."""

    def step(self, z: Tensor, h: Tensor) -> Tensor:
        return tg.tanh(z + self.U(h))


# -- r, z = σ(W x + b + U h + b')    n = tanh(W_n x + b_n + r ⊙ (U_n h + b_n'))
# -- h' = (1 - z) ⊙ n + z ⊙ h


class GRU(Gated):
    """The gated recurrent unit (Cho et al. 2014), with the reset gate after the product."""

    gates = 3

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.bias = tg.nn.Parameter(tg.zeros(3 * hidden_size))

    def step(self, a: Tensor, h: Tensor) -> Tensor:
        a_r, a_z, a_n = a.split(3, axis=-1)
        b_r, b_z, b_n = (self.U(h) + self.bias).split(3, axis=-1)
        r = tg.sigmoid(a_r + b_r)
        z = tg.sigmoid(a_z + b_z)
        n = tg.tanh(a_n + r * b_n)
        return n + z * (h - n)


# -- i, f, o = σ(W x + b + U h)      g = tanh(W_g x + b_g + U_g h)
# -- c' = f ⊙ c + i ⊙ g              h' = o ⊙ tanh(c')


class LSTM(Gated):
    """Long short-term memory (Hochreiter and Schmidhuber 1997) with forget gates."""

    gates, elements = 4, 2

    def step(self, z: Tensor, state: State) -> State:
        h, c = state
        i, f, g, o = (z + self.U(h)).split(4, axis=-1)
        c = tg.sigmoid(f) * c + tg.sigmoid(i) * tg.tanh(g)
        return tg.sigmoid(o) * tg.tanh(c), c


# -- as the LSTM, but i and f also read p ⊙ c, and o reads p ⊙ c'


class PeepholeLSTM(LSTM):
    """The LSTM whose gates read the memory (Gers, Schraudolph and Schmidhuber 2002)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.p_i = tg.nn.Parameter(tg.zeros(hidden_size))
        self.p_f = tg.nn.Parameter(tg.zeros(hidden_size))
        self.p_o = tg.nn.Parameter(tg.zeros(hidden_size))

    def step(self, z: Tensor, state: State) -> State:
        h, c = state
        i, f, g, o = (z + self.U(h)).split(4, axis=-1)
        i = tg.sigmoid(i + self.p_i * c)
        f = tg.sigmoid(f + self.p_f * c)
        c = f * c + i * tg.tanh(g)
        return tg.sigmoid(o + self.p_o * c) * tg.tanh(c), c


# -- as the LSTM, with LN(W x) + LN(U h) in place of the sum, and h' = o ⊙ tanh(LN(c'))


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

    def step(self, z: Tensor, state: State) -> State:
        h, c = state
        i, f, g, o = (z + self.norm_h(self.U(h))).split(4, axis=-1)
        c = tg.sigmoid(f) * c + tg.sigmoid(i) * tg.tanh(g)
        return tg.sigmoid(o) * tg.tanh(self.norm_c(c)), c


# -- f = σ(W_f x + b_f + U_f h)      n = tanh(W_n x + b_n + U_n (f ⊙ h))
# -- h' = (1 - f) ⊙ h + f ⊙ n


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
        f = tg.sigmoid(z_f + self.U_f(h))
        return h + f * (tg.tanh(z_n + self.U_n(f * h)) - h)


# -- twice: n = tanh(a_n + R_n s), t = σ(a_t + R_t s), s ← s + t ⊙ (n - s); a = W x + b, then a bias


class HighwayRNN(tg.nn.Cell):
    """A recurrent highway network of depth 2 (Zilly et al. 2017): two products in sequence."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.W = tg.nn.Linear(input_size, 2 * hidden_size)
        self.R1 = tg.nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        self.R2 = tg.nn.Linear(hidden_size, 2 * hidden_size)

    def project(self, x: Tensor) -> Tensor:
        return self.W(x)

    def step(self, z: Tensor, s: Tensor) -> Tensor:
        for a in (lambda s: z + self.R1(s), self.R2):
            n, t = a(s).split(2, axis=-1)
            s = s + tg.sigmoid(t) * (tg.tanh(n) - s)
        return s


# -- h' = tanh(W x + b + u ⊙ h)


class IndRNN(tg.nn.Cell):
    """The independently recurrent network (Li et al. 2018): no product in the loop."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.W = tg.nn.Linear(input_size, hidden_size)
        self.u = tg.nn.Parameter(tg.zeros(hidden_size))

    def project(self, x: Tensor) -> Tensor:
        return self.W(x)

    def step(self, z: Tensor, h: Tensor) -> Tensor:
        return tg.tanh(z + self.u * h)


# -- as the LSTM, with a slow memory m' = m + σ(d) ⊙ (c' - m), and h' = o ⊙ tanh(c' + m')


class TwoMemoriesLSTM(LSTM):
    """The LSTM with a second memory, an exponential mean of the first: three state elements."""

    elements = 3

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.d = tg.nn.Parameter(tg.zeros(hidden_size))

    def step(self, z: Tensor, state: State) -> State:
        h, c, m = state
        i, f, g, o = (z + self.U(h)).split(4, axis=-1)
        c = tg.sigmoid(f) * c + tg.sigmoid(i) * tg.tanh(g)
        m = m + tg.sigmoid(self.d) * (c - m)
        return tg.sigmoid(o) * tg.tanh(c + m), c, m


# -- as the minimal gated unit, with LN(U_f h) and LN(U_n (f ⊙ h)) in place of the products


class LayerNormMGU(MinimalGatedUnit):
    """The minimal gated unit with layer normalisation twice a step."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.norm_f = tg.nn.LayerNorm(hidden_size)
        self.norm_n = tg.nn.LayerNorm(hidden_size)

    def step(self, z: Tensor, h: Tensor) -> Tensor:
        z_f, z_n = z.split(2, axis=-1)
        f = tg.sigmoid(z_f + self.norm_f(self.U_f(h)))
        return h + f * (tg.tanh(z_n + self.norm_n(self.U_n(f * h))) - h)


CELLS: dict[str, type[tg.nn.Cell]] = {
    "rnn": RNN,
    "gru": GRU,
    "lstm": LSTM,
    "peephole": PeepholeLSTM,
    "layernorm": LayerNormLSTM,
    "mgu": MinimalGatedUnit,
    "highway": HighwayRNN,
    "indrnn": IndRNN,
    "memories": TwoMemoriesLSTM,
    "layernorm-mgu": LayerNormMGU,
}
BUILT_IN = {"rnn": tg.nn.RNN, "gru": tg.nn.GRU, "lstm": tg.nn.LSTM}
