"""The adding problem: remember two marked numbers over many steps, and answer their sum.

    python examples/adding_problem.py                  # a GRU over 50 steps
    python examples/adding_problem.py --cell lstm --sequence 100 --steps 3000

Always answering 1 has a mean squared error of 0.167. The target: at most 0.01 on sequences not seen
before.
"""

from __future__ import annotations

import argparse
import sys

import tinygrad_rnn as tg

CELLS = {"rnn": tg.nn.RNN, "gru": tg.nn.GRU, "lstm": tg.nn.LSTM}


class Adder(tg.nn.Module):
    """A recurrent layer, and an answer from its last output."""

    def __init__(self, cell: str, hidden: int) -> None:
        super().__init__()
        self.rnn = CELLS[cell](2, hidden)
        self.head = tg.nn.Linear(hidden, 1)

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        """Return the answers (B, 1) to the sequences x (T, B, 2)."""
        output, _ = self.rnn(x)
        return self.head(output[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description="Learn the adding problem.")
    parser.add_argument("--cell", choices=list(CELLS), default="gru")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--sequence", type=int, default=50, help="the length of the sequences")
    parser.add_argument("--steps", type=int, default=700, help="minibatches to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="three minibatches, no target")
    args = parser.parse_args()
    steps = 3 if args.smoke else args.steps
    tg.manual_seed(args.seed)

    model = Adder(args.cell, args.hidden)
    optimizer = tg.optim.Adam(model.parameters(), lr=5e-3)
    schedule = tg.optim.schedule.Scheduler(optimizer, tg.optim.schedule.cosine(steps))
    for step in range(1, steps + 1):
        x, y = tg.data.tasks.adding(batch_size=50, steps=args.sequence)
        loss = tg.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        tg.optim.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step}: error {loss.item():.4f}")

    x, y = tg.data.tasks.adding(batch_size=1000, steps=args.sequence)
    with tg.no_grad():
        error = tg.functional.mse_loss(model(x), y).item()
    print(f"{args.cell} over {args.sequence} steps: mean squared error {error:.5f}")
    return int(not args.smoke and error > 0.01)


if __name__ == "__main__":
    sys.exit(main())
