"""Real-time recurrent learning: the gradient of a plain RNN, computed forward in time.

    python examples/rtrl.py

Backpropagation through time keeps every state for its backward pass. Real-time recurrent learning
(Williams and Zipser 1989) keeps one matrix, the influence P_t = dh_t/dw of all parameters w on the
state, and updates it at each step, where f is one step of the cell:

    P_t = (∂f/∂h) P_{t-1} + ∂f/∂w        dℓ_t/dw = (∂ℓ_t/∂h_t) P_t

so that the exact gradient of each loss is available at its time step, and memory does not grow with
time. The cost is the matrix: H rows, one column for each parameter, and a product of H² · columns
operations at each step. Its Jacobians are H vector-Jacobian products with `tg.grad`; no derivative
is written by hand.

The target: the summed gradient equals that of backpropagation through time to 1e-12.
"""

from __future__ import annotations

import argparse
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np

import tinygrad_rnn as tg


def losses(output: tg.Tensor, target: tg.Tensor) -> tg.Tensor:
    return ((output - target) ** 2).sum()


def flat(tensors: Any) -> np.ndarray:
    return np.concatenate([t.numpy().ravel() for t in tensors])


def rtrl(cell: tg.nn.Cell, x: tg.Tensor, y: tg.Tensor) -> Iterator[np.ndarray]:
    """Yield the gradient of the loss at each step; only h and P are carried."""
    w = list(cell.parameters())
    H = cell.hidden_size
    h = np.zeros((1, H))
    P = np.zeros((H, sum(p.size for p in w)))
    for t in range(len(x)):
        before = tg.tensor(h, requires_grad=True)
        after = cell(x[t], before)  # a graph of one step
        rows = [
            tg.grad(after, [before, *w], grad_outputs=row[None], retain_graph=True)
            for row in np.eye(H)
        ]
        P = np.concatenate([row[0].numpy() for row in rows]) @ P  # ∂f/∂h P
        P += np.stack([flat(row[1:]) for row in rows])  # ∂f/∂w
        h = after.numpy()
        now = tg.tensor(h, requires_grad=True)
        yield tg.grad(losses(now, y[t]), now).numpy()[0] @ P


def bptt(cell: tg.nn.Cell, x: tg.Tensor, y: tg.Tensor) -> np.ndarray:
    """Return the gradient of the sum of all losses, from the graph of all steps."""
    output, _ = tg.nn.Recurrent([cell], cell.input_size, cell.hidden_size)(x)
    return flat(tg.grad(losses(output, y), list(cell.parameters())))


def peak(function: Any) -> tuple[Any, float]:
    """Return the result of a function, and its peak memory in KiB."""
    tracemalloc.start()
    result = function()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, most / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description="Compute the gradient forward in time.")
    parser.add_argument("--hidden", type=int, default=8)
    parser.add_argument("--sequence", type=int, default=1000, help="time steps of the longest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="100 steps")
    args = parser.parse_args()
    if args.hidden < 1 or args.sequence < 10:
        parser.error("--hidden must be at least 1, --sequence must be at least 10")
    T = 100 if args.smoke else args.sequence

    tg.manual_seed(args.seed)
    cell = tg.nn.RNNCell(3, args.hidden, dtype=tg.float64)
    x = tg.randn(T, 1, 3, dtype=tg.float64)
    y = tg.randn(T, 1, args.hidden, dtype=tg.float64)
    for steps in (T // 10, T):
        forward, small = peak(lambda: sum(rtrl(cell, x[:steps], y[:steps])))  # noqa: B023
        back, large = peak(lambda: bptt(cell, x[:steps], y[:steps]))  # noqa: B023
        error = np.abs(forward - back).max() / np.abs(back).max()
        print(
            f"{steps} steps: difference {error:.1e}; {small:.0f} KiB forward, {large:.0f} backward"
        )
    return int(error > 1e-12)


if __name__ == "__main__":
    sys.exit(main())
