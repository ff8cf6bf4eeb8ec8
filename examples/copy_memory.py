"""The copying memory problem: repeat symbols after a long delay.

    python examples/copy_memory.py                  # a GRU and the plain RNN, a delay of 50
    python examples/copy_memory.py --cells lstm --delay 100 --steps 6000

The input is ten symbols, a long blank and a marker; after the marker the output is the ten symbols.
A model without memory can predict the blanks and guess the symbols, with a cross-entropy of
K ln S / (delay + 2 K) for K symbols out of S. This baseline is the threshold of Arjovsky, Shah and
Bengio 2016 (Unitary Evolution Recurrent Neural Networks, section 5.1): many networks never get
below it. The delays in training are drawn from 1 to --delay, since the task is easier to learn from
short ones; the test has the full delay.

The first biases of the gates set how long each unit remembers: these times are spread over 1 to the
whole length (chrono initialisation: Tallec and Ollivier 2018, Can Recurrent Neural Networks Warp
Time?).

The targets, after the same minibatches for both: the gated cells end below a tenth of the baseline,
and the plain RNN above half of it.
"""

from __future__ import annotations

import argparse
import math
import sys

import numpy as np

import tinygrad_rnn as tg

CELLS = {"rnn": tg.nn.RNN, "gru": tg.nn.GRU, "lstm": tg.nn.LSTM}
SYMBOLS, LENGTH = 8, 10


class Copier(tg.nn.Module):
    """An embedding, a recurrent layer, and the logits of the output at every step."""

    def __init__(self, cell: str, hidden: int, longest: int) -> None:
        super().__init__()
        self.embedding = tg.nn.Embedding(SYMBOLS + 2, 64)
        self.rnn = CELLS[cell](64, hidden)
        self.head = tg.nn.Linear(hidden, SYMBOLS + 2)
        if cell != "rnn":
            bias = np.zeros((4 if cell == "lstm" else 3, hidden), np.float32)
            # Row 1 is the gate that keeps the state: f of the LSTM, z of the GRU. Row 0 of the LSTM
            # is i.
            bias[1] = np.log(tg.random.generator().uniform(1, longest - 1, hidden))
            bias[0] = -bias[1] if cell == "lstm" else 0
            self.rnn.bias_ih_l0.data = bias.ravel()
            self.rnn.bias_hh_l0.data = np.zeros_like(bias).ravel()

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        """Return logits (T, B, S + 2) for x (T, B)."""
        output, _ = self.rnn(self.embedding(x))
        return self.head(output)


def learn(model: Copier, delay: int, steps: int, baseline: float) -> float:
    """Train on new sequences in every step; return test cross-entropy / baseline on 500 others."""
    rng = tg.random.generator()
    delays = (int(rng.integers(1, delay + 1)) for _ in range(steps))
    decay = tg.training.Schedule(lambda t: min(1.0, 4 * (1 - t / steps)), per="step")
    tg.fit(
        model,
        (tg.data.tasks.copy(32, delay, SYMBOLS, LENGTH) for delay in delays),
        loss=tg.functional.cross_entropy,
        optimizer=tg.optim.Adam(model.parameters(), lr=1e-2),
        epochs=1,
        every=200,
        callbacks=[tg.training.ClipNorm(1.0), decay, tg.training.Progress()],
    )
    x, y = tg.data.tasks.copy(500, delay, SYMBOLS, LENGTH)
    with tg.no_grad():
        return tg.functional.cross_entropy(model(x), y).item() / baseline


def main() -> int:
    parser = argparse.ArgumentParser(description="Learn to repeat symbols after a long delay.")
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=["rnn", "gru"])
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--delay", type=int, default=50)
    parser.add_argument("--steps", type=int, default=4000, help="minibatches to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="three minibatches, no target")
    args = parser.parse_args()
    if min(args.steps, args.hidden, args.delay) < 1:
        parser.error("--steps, --hidden and --delay must be at least 1")

    longest = args.delay + 2 * LENGTH
    baseline = LENGTH * math.log(SYMBOLS) / longest
    shares, steps = {}, 3 if args.smoke else args.steps
    for cell in args.cells:
        print(f"{cell}:")
        tg.manual_seed(args.seed)
        shares[cell] = learn(Copier(cell, args.hidden, longest), args.delay, steps, baseline)
    figures = [
        f"{cell} {'solved' if share < 0.1 else 'not solved'} ({share:.4f} of it)"
        for cell, share in shares.items()
    ]
    print(f"delay {args.delay}, baseline {baseline:.4f}: {', '.join(figures)}")
    missed = [share <= 0.5 if cell == "rnn" else share >= 0.1 for cell, share in shares.items()]
    return int(not args.smoke and any(missed))


if __name__ == "__main__":
    sys.exit(main())
