"""The time of each strategy of backpropagation through time, relative to `Full()`.

    python benchmarks/bptt_time.py [--rounds 30] [--wall]

Forward and backward pass of a layer with a loss at every step. Strategies take turns; a figure is
the median over the rounds of the ratio to `Full()` in the same round. The figures are processor
time, which other programs disturb less; --wall measures elapsed time instead.
"""

from __future__ import annotations

import argparse
import statistics
import time

import tinygrad_rnn as tg

CELLS = {"RNN": tg.nn.RNN, "GRU": tg.nn.GRU, "LSTM": tg.nn.LSTM}
STRATEGIES = [
    tg.bptt.Full(),
    tg.bptt.Full(checkpoint=True),
    tg.bptt.Truncated(10),
    tg.bptt.Truncated(20, stride=10),
    tg.bptt.Randomized(0.9),
    tg.bptt.Randomized(0.5),
]


def both_passes(layer: tg.nn.Recurrent, x: tg.Tensor, strategy: tg.bptt.Strategy) -> None:
    """Run the forward and the backward pass, which frees the graph."""
    output, _ = layer(x, bptt=strategy)
    (output * output).sum().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--wall", action="store_true", help="measure elapsed time")
    args = parser.parse_args()
    clock = time.perf_counter if args.wall else time.process_time

    print(
        f"{'T':>4} {'B':>3} {'H':>4}       {'Full(), ms':>10}",
        *(f"{s!r:>24}" for s in STRATEGIES[1:]),
    )
    for T, B, H in [(35, 32, 256), (50, 50, 128), (100, 1, 64)]:
        for name, cell in CELLS.items():
            layer, x = cell(28, H), tg.randn(T, B, 28)
            rounds = []
            for _ in range(args.rounds + 2):
                times = []
                for strategy in STRATEGIES:
                    start = clock()
                    both_passes(layer, x, strategy)
                    times.append(clock() - start)
                rounds.append(times)
            del rounds[:2]
            full = 1000 * statistics.median(times[0] for times in rounds)
            ratios = (
                statistics.median(times[i] / times[0] for times in rounds)
                for i in range(1, len(STRATEGIES))
            )
            print(f"{T:4} {B:3} {H:4} {name:5} {full:10.2f}", *(f"{r:24.2f}" for r in ratios))


if __name__ == "__main__":
    main()
