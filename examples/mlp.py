"""Two tasks for a multilayer perceptron: classify the spiral of a point, fit a surface.

    python examples/mlp.py

The targets: 95 % of new points classified correctly; a squared error below 1 % of the variance of
the surface.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np

import tinygrad_rnn as tg

CLASSES = 3
Loss = Callable[[tg.Tensor, tg.Tensor], tg.Tensor]


def perceptron(inputs: int, outputs: int, hidden: int = 64) -> tg.nn.Sequential:
    linear = tg.nn.Linear
    return tg.nn.Sequential(
        linear(inputs, hidden), tg.tanh, linear(hidden, hidden), tg.tanh, linear(hidden, outputs)
    )


def spirals(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return n points (n, 2) on three spiral arms around the origin, and their arms (n,)."""
    arm, radius = rng.integers(CLASSES, size=n), rng.random(n)
    angle = 2 * np.pi * arm / CLASSES + 5 * radius + 0.15 * rng.standard_normal(n)
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return points.astype(np.float32), arm


def surface(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return n points (n, 2) of [-1, 1]² and the values (n, 1) of sin(πx) cos(πy) there."""
    points = rng.uniform(-1, 1, (n, 2)).astype(np.float32)
    x, y = np.pi * points.T
    return points, (np.sin(x) * np.cos(y))[:, None]


def train(
    model: tg.nn.Module, features: np.ndarray, labels: np.ndarray, loss: Loss, epochs: int
) -> None:
    tg.fit(
        model,
        tg.data.batches(features, labels, batch_size=64),
        loss=loss,
        optimizer=tg.optim.Adam(model.parameters(), lr=5e-3),
        epochs=epochs,
        callbacks=[tg.training.Schedule(tg.optim.schedule.cosine(epochs))],
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Classify spirals and fit a surface.")
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="one epoch, no target")
    args = parser.parse_args()
    epochs = 1 if args.smoke else args.epochs
    tg.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)

    classifier = perceptron(2, CLASSES)
    train(classifier, *spirals(2000, rng), tg.functional.cross_entropy, epochs)
    points, arms = spirals(1000, rng)
    with tg.no_grad():
        accuracy = float((classifier(tg.tensor(points)).numpy().argmax(axis=1) == arms).mean())

    regressor = perceptron(2, 1)
    train(regressor, *surface(2000, rng), tg.functional.mse_loss, epochs)
    points, values = surface(1000, rng)
    with tg.no_grad():
        error = float(((regressor(tg.tensor(points)).numpy() - values) ** 2).mean() / values.var())

    print(f"spirals: accuracy {accuracy:.1%}; surface: error {error:.3%} of the variance")
    return int(not args.smoke and (accuracy < 0.95 or error > 0.01))


if __name__ == "__main__":
    sys.exit(main())
