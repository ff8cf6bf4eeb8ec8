"""Full, truncated and randomized backpropagation through time, compared with the exact gradient.

    python examples/bptt_strategies.py

1. Over windows: bias and noise (standard deviation) of a gradient, relative to the exact gradient's
   norm, its time and memory; and how the noise grows with the length and with 1/π.
2. Over a stream whose state is carried: windows that end where ξ = 0 are unbiased; windows of fixed
   length with random cuts inside have the bias of plain truncation.
3. Learning to recall the first of 15 numbers, with the same number of time steps computed.

The targets: the biases of Randomized(0.8) are below three standard errors, that of fixed windows is
above five; Full and Randomized(0.95) learn (squared error at most 0.01; the constant mean has
0.083), and Truncated(5) does not: its gradient does not reach from the answer to the number.
"""

from __future__ import annotations

import argparse
import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

import tinygrad_rnn as tg

Full, Truncated, Randomized = tg.bptt.Full, tg.bptt.Truncated, tg.bptt.Randomized


def remembering(inputs: int) -> tg.nn.RNN:
    """Return a layer that scales a gradient by 0.85 in each step where its relu is active."""
    layer = tg.nn.RNN(inputs, 16, nonlinearity="relu", dtype=tg.float64)
    layer.weight_hh_l0.data = 0.85 * np.eye(16)
    return layer


def gradient(layer: tg.nn.Module, loss: tg.Tensor) -> np.ndarray:
    return np.concatenate([g.numpy().ravel() for g in tg.grad(loss, list(layer.parameters()))])


def moments(draw: Callable[[], np.ndarray], exact: np.ndarray, n: int) -> tuple[float, float]:
    """Return the bias and the noise of a gradient that is drawn n times."""
    sample = np.array([draw() for _ in range(n)]) - exact
    noise = np.sqrt(((sample - sample.mean(0)) ** 2).sum() / max(n - 1, 1))
    return np.linalg.norm(sample.mean(0)) / np.linalg.norm(exact), noise / np.linalg.norm(exact)


def compare(name: str, draw: Callable[[], np.ndarray], exact: np.ndarray, n: int) -> float:
    """Print bias, noise, time and memory of a gradient; return its bias in standard errors."""
    n = n if "Randomized" in name else 1
    tracemalloc.start()
    draw()
    memory = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    start = time.perf_counter()
    bias, noise = moments(draw, exact, n)
    ms, error = 1000 * (time.perf_counter() - start) / n, noise / n**0.5
    print(f"  {name:32} {bias:6.3f} ± {error:5.3f} {noise:7.2f} {ms:8.1f} ms {memory:6.2f} MiB")
    return bias / error if error else 0.0


def over_windows(n: int) -> float:
    layer, x = remembering(2), tg.data.tasks.adding(batch_size=16, steps=40)[0].astype("float64")

    def draw(strategy: tg.bptt.Strategy, steps: int = 40) -> np.ndarray:
        return gradient(layer, (layer(x[:steps], bptt=strategy)[0][-1] ** 2).mean())

    print("windows of 40 steps:               bias    error   noise        time     memory")
    others = [Full(), Full(checkpoint=True), Truncated(5), Truncated(10, stride=5)]
    for strategy in [*others, Randomized(0.9), Randomized(0.8, max_steps=5), Randomized(0.8)]:
        ratio = compare(repr(strategy), lambda s=strategy: draw(s), draw(Full()), n)
    for keep in (0.95, 0.9, 0.8):
        print(f"  noise at π = {keep}, T = 10, 20, 40:", end="")
        for T in (10, 20, 40):
            _, noise = moments(lambda k=keep, T=T: draw(Randomized(k), T), draw(Full(), T), n)
            print(f" {noise:.2f}", end="\n" if T == 40 else "")
    return ratio


def over_a_stream(n: int) -> tuple[float, float]:
    layer, ids = remembering(4), tg.random.generator().integers(0, 4, 61)
    fixed = "Randomized(0.8) in fixed windows"

    def epoch(strategy: tg.bptt.Strategy, inside: tg.bptt.Strategy | None = None) -> np.ndarray:
        total, state = 0.0, None
        for window in strategy.windows(ids, 1):
            x = tg.functional.one_hot(window.x, 4, tg.float64)
            state = None if window.first else tg.bptt.detach(state) if inside else state
            output, state = layer(x, state, bptt=inside or window.bptt)
            total = total + gradient(layer, (output**2).sum())
        return total

    print("a stream of 60 steps:")
    for strategy in (Full(), Truncated(10), Randomized(0.8, max_steps=10), Randomized(0.8)):
        ratio = compare(repr(strategy), lambda s=strategy: epoch(s), epoch(Full()), n)
    return ratio, compare(fixed, lambda: epoch(Truncated(10), Randomized(0.8)), epoch(Full()), n)


def learn(strategy: tg.bptt.Strategy, updates: int) -> float:
    """Print the mean error of each quarter of the updates and return the last."""
    if getattr(strategy, "stride", None):
        updates = updates * strategy.stride // strategy.steps  # the steps of an overlap cost too
    layer, head = tg.nn.GRU(2, 32, bptt=strategy, rng=0), tg.nn.Linear(32, 1, rng=1)
    optimizer = tg.optim.Adam([*layer.parameters(), *head.parameters()], lr=5e-3)
    start = tg.pad(tg.ones(1, 32, 1), ((0, 14), (0, 0), (0, 0)))  # marks the first step
    errors = []
    for _ in range(updates):
        numbers = tg.rand(15, 32, 1)
        output, _ = layer(tg.concatenate([numbers, start], axis=2))
        loss = tg.functional.mse_loss(head(output[-1]), numbers[0])
        optimizer.zero_grad()
        loss.backward()
        tg.optim.clip_grad_norm(optimizer.params, 1.0)
        optimizer.step()
        errors.append(loss.item())
    quarters = np.mean(np.resize(errors, (4, updates // 4)), axis=1)
    print(f"  {strategy!r:32}", *(f"{error:.4f}" for error in quarters))
    return quarters[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare strategies of backpropagation in time.")
    parser.add_argument("--draws", type=int, default=200, help="gradients drawn for a mean")
    parser.add_argument("--steps", type=int, default=480, help="minibatches to learn from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a few of each, no target")
    args = parser.parse_args()
    if args.draws < 2 or args.steps < 4:
        parser.error("--draws must be at least 2, --steps at least 4")
    draws, steps = (3, 8) if args.smoke else (args.draws, args.steps)
    tg.manual_seed(args.seed)

    inside = over_windows(draws)
    stream, naive = over_a_stream(draws)
    print("squared error while learning:")
    rest = [Randomized(0.95), Randomized(0.9), Truncated(10, stride=5), Truncated(5)]
    full, randomized, *_, truncated = (learn(strategy, steps) for strategy in [Full(), *rest])
    print(f"bias over a stream, in standard errors: {stream:.1f}; in fixed windows: {naive:.1f}")
    unbiased = max(inside, stream) < 3 < 5 < naive
    return int(not args.smoke and not (unbiased and max(full, randomized) <= 0.01 < truncated))


if __name__ == "__main__":
    sys.exit(main())
