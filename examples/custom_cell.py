"""A user-defined recurrent cell: an LSTM with peepholes, compared with the built-in LSTM.

    python examples/custom_cell.py

The gates of a peephole LSTM (Gers, Schraudolph and Schmidhuber 2002) also read the memory c:

    i = σ(W_i x + U_i h + p_i ⊙ c)      f = σ(W_f x + U_f h + p_f ⊙ c)
    g = tanh(W_g x + U_g h)             c' = f ⊙ c + i ⊙ g
    o = σ(W_o x + U_o h + p_o ⊙ c')     h' = o ⊙ tanh(c')

Both learn the adding problem over 30 steps; the target of both is a mean squared error of at most
0.01 on new sequences, where the constant answer 1 has 0.167.
"""

from __future__ import annotations

import argparse
import sys
import time

import tinygrad_rnn as tg

State = tuple[tg.Tensor, tg.Tensor]


class PeepholeLSTMCell(tg.nn.Cell):
    """One time step of the equations above."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = (hidden_size, hidden_size)  # of h and of c
        self.W = tg.nn.Linear(input_size, 4 * hidden_size)
        self.U = tg.nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.p_i = tg.nn.Parameter(tg.zeros(hidden_size))
        self.p_f = tg.nn.Parameter(tg.zeros(hidden_size))
        self.p_o = tg.nn.Parameter(tg.zeros(hidden_size))

    def project(self, x: tg.Tensor) -> tg.Tensor:
        """Return the part that depends on the input alone, for all time steps at once."""
        return self.W(x)

    def step(self, z: tg.Tensor, state: State) -> State:
        """Return the new (h, c)."""
        h, c = state
        z_i, z_f, z_g, z_o = (z + self.U(h)).split(4, axis=-1)
        i = tg.sigmoid(z_i + self.p_i * c)
        f = tg.sigmoid(z_f + self.p_f * c)
        c = f * c + i * tg.tanh(z_g)
        o = tg.sigmoid(z_o + self.p_o * c)
        return o * tg.tanh(c), c


def train(rnn: tg.nn.Recurrent, hidden: int, steps: int) -> tuple[float, float]:
    """Return the error on new sequences and the milliseconds of a training step."""
    head = tg.nn.Linear(hidden, 1)
    parameters = [*rnn.parameters(), *head.parameters()]
    optimizer = tg.optim.Adam(parameters, lr=1e-2)
    schedule = tg.optim.schedule.Scheduler(optimizer, tg.optim.schedule.cosine(steps))

    def loss_of(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        output, _ = rnn(x)
        return tg.functional.mse_loss(head(output[-1]), y)

    start = time.perf_counter()
    for _ in range(steps):
        loss = loss_of(*tg.data.tasks.adding(batch_size=50, steps=30))
        optimizer.zero_grad()
        loss.backward()
        tg.optim.clip_grad_norm(parameters, 1.0)
        optimizer.step()
        schedule.step()
    milliseconds = (time.perf_counter() - start) / steps * 1000
    with tg.no_grad():
        return loss_of(*tg.data.tasks.adding(batch_size=1000, steps=30)).item(), milliseconds


def main() -> int:
    parser = argparse.ArgumentParser(description="Train a user-defined cell and the built-in LSTM.")
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--steps", type=int, default=1000, help="minibatches to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="three minibatches, no target")
    args = parser.parse_args()
    steps = 3 if args.smoke else args.steps

    tg.manual_seed(args.seed)
    own = tg.nn.Recurrent(PeepholeLSTMCell, 2, args.hidden)
    own_error, own_time = train(own, args.hidden, steps)
    built_in = tg.nn.LSTM(2, args.hidden)
    error, built_in_time = train(built_in, args.hidden, steps)

    print(f"with peepholes: error {own_error:.5f}, {own_time:.1f} ms a step")
    print(f"nn.LSTM:        error {error:.5f}, {built_in_time:.1f} ms a step")
    return int(not args.smoke and max(own_error, error) > 0.01)


if __name__ == "__main__":
    sys.exit(main())
