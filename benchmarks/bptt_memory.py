"""Peak memory of backpropagation through time with all states kept, and with about √T of them.

    python benchmarks/bptt_memory.py [--cell gru] [--hidden 64] [--batch 8] [--plot memory.svg]

The loss is a function of the last state, and the layer returns no output. So the only array of
length T that is needed is the input, which is allocated before the measurement. The figure is the
peak of all Python and NumPy memory over the forward and the backward pass (tracemalloc), which does
not depend on the machine. The exponent is the slope of log(bytes) over log(T).
"""

from __future__ import annotations

import argparse
import tracemalloc

import numpy as np

import tinygrad_rnn as tg

CELLS = {"rnn": tg.nn.RNN, "gru": tg.nn.GRU, "lstm": tg.nn.LSTM}
STRATEGIES = {"Full()": tg.bptt.Full(), "Full(checkpoint=True)": tg.bptt.Full(checkpoint=True)}


def peak(layer: tg.nn.Recurrent, x: tg.Tensor, strategy: tg.bptt.Strategy) -> int:
    """Return the peak memory of a forward and a backward pass, in bytes."""
    layer.zero_grad()
    tracemalloc.start()
    _, state = layer(x, bptt=strategy, output=False)
    last = state[0] if isinstance(state, tuple) else state
    (last * last).sum().backward()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", choices=list(CELLS), default="gru")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--inputs", type=int, default=32)
    parser.add_argument("--steps", type=int, nargs="+", default=[256, 1024, 4096, 16384])
    parser.add_argument("--plot", metavar="FILE", help="plot the curves (extra plot)")
    args = parser.parse_args()

    layer = CELLS[args.cell](args.inputs, args.hidden)
    inputs = {T: tg.randn(T, args.batch, args.inputs) for T in args.steps}
    for strategy in STRATEGIES.values():
        peak(layer, inputs[args.steps[0]], strategy)  # one-time allocations are not counted
    print(f"{args.cell}, batch {args.batch}, hidden {args.hidden}: peak memory in MiB")
    print(f"{'T':>24}", *(f"{T:9,}" for T in args.steps), "  exponent")
    curves, exponents = {}, {}
    for name, strategy in STRATEGIES.items():
        curves[name] = [peak(layer, inputs[T], strategy) for T in args.steps]
        slope, _ = np.polyfit(np.log(args.steps), np.log(curves[name]), 1)
        exponents[name] = slope
        print(f"{name:>24}", *(f"{b / 2**20:9.2f}" for b in curves[name]), f"  {slope:.2f}")
    if args.plot:
        plot(args.plot, args.steps, curves, exponents)
    full, root = exponents.values()
    return int(root > 0.65 or not 0.9 < full < 1.1)


def plot(path: str, steps: list[int], curves: dict[str, list[int]], slopes: dict) -> None:
    """Plot memory over T, both logarithmic."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SystemExit("--plot needs matplotlib: pip install 'tinygrad-rnn[plot]'") from error
    axes = (figure := Figure(figsize=(6, 4), layout="constrained")).subplots()
    for name, values in curves.items():
        label = f"{name}: ∝ T^{slopes[name]:.2f}"
        axes.loglog(steps, np.array(values) / 2**20, "o-", label=label)
    axes.set(xlabel="time steps T", ylabel="peak memory, MiB")
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    raise SystemExit(main())
