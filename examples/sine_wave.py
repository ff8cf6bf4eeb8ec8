"""Forecast a noisy sine with a GRU, one step and 64 steps ahead.

    python examples/sine_wave.py

The model learns the change from each of the first 600 values to the next. The test reads all values
and predicts one step ahead; and from value 600 on it reads its own predictions instead, for 64
steps. The targets: one step ahead the root mean squared error is at most 1.25 times the noise,
which is unpredictable; 64 steps ahead, compared with the sine without noise, it is at most 0.4.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import tinygrad_rnn as tg

NOISE, TRAIN, AHEAD, WINDOW = 0.1, 600, 64, 100


class Forecaster(tg.nn.Module):
    """A GRU whose output is the change to the next value."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.rnn = tg.nn.GRU(1, hidden)
        self.head = tg.nn.Linear(hidden, 1)

    def forward(self, x: tg.Tensor, state: tg.Tensor | None = None) -> tuple[tg.Tensor, tg.Tensor]:
        """Return predictions (T, B, 1) of the next values after x (T, B, 1), and the state."""
        output, state = self.rnn(x, state)
        return x + self.head(output), state


def main() -> int:
    parser = argparse.ArgumentParser(description="Forecast a noisy sine.")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="three steps, no target")
    args = parser.parse_args()
    steps = 3 if args.smoke else args.steps
    tg.manual_seed(args.seed)
    rng = tg.random.generator(args.seed)
    series = tg.data.tasks.sine(1000, frequency=0.1, noise=NOISE).numpy()[:, None]
    truth = tg.data.tasks.sine(1000, frequency=0.1, noise=0.0).numpy()[:, None]

    def windows() -> Iterator[tuple[tg.Tensor, tg.Tensor]]:
        for _ in range(steps):
            starts = rng.integers(TRAIN - WINDOW, size=16)
            window = tg.stack([tg.tensor(series[s : s + WINDOW + 1]) for s in starts], axis=1)
            yield window[:-1], window[1:]

    model, decay = Forecaster(), tg.optim.schedule.cosine(steps)
    tg.fit(
        model,
        windows,
        loss=tg.functional.mse_loss,
        optimizer=tg.optim.Adam(model.parameters(), lr=1e-2),
        epochs=1,
        callbacks=[tg.training.ClipNorm(1.0), tg.training.Schedule(decay, per="step")],
    )

    with tg.no_grad():
        one_ahead, _ = model(tg.tensor(series[:-1]))
        error = ((one_ahead.numpy() - series[1:])[TRAIN:] ** 2).mean() ** 0.5
        predictions, state = model(tg.tensor(series[:TRAIN]))
        path = [predictions[-1:]]
        while len(path) < AHEAD:
            prediction, state = model(path[-1], state)
            path.append(prediction)
        far = tg.concatenate(path).numpy()
        far_error = ((far - truth[TRAIN : TRAIN + AHEAD]) ** 2).mean() ** 0.5

    print(f"one step ahead: error {error:.3f} (noise {NOISE}); {AHEAD} ahead: {far_error:.3f}")
    return int(not args.smoke and (error > 1.25 * NOISE or far_error > 0.4))


if __name__ == "__main__":
    sys.exit(main())
