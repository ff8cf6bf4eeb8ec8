"""How the cost of a training step grows with time steps, layers, batch and hidden size.

    python benchmarks/scaling.py [--cells rnn gru lstm] [--rounds 5] [--plot scaling.svg]

Forward and backward pass of a recurrent layer with a loss at every step, in float32. One size
grows, the others are fixed. The sizes take turns; a figure is the least time over the rounds, which
other programs disturbed least. An exponent is the slope of log(time) over log(size). For T and for
layers it must be 1 ± 0.05: the cost is linear, to 10,000 steps; otherwise the program fails. For B
and H it depends on the size at which the arithmetic costs more than the calls, and is only
reported.

Python's cyclic GC runs, as in a user's program. A long graph is many objects, and the GC traverses
them repeatedly while they are created; --no-collector shows the cost without it.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable

import numpy as np

import tinygrad_rnn as tg

CELLS = {"rnn": tg.nn.RNN, "gru": tg.nn.GRU, "lstm": tg.nn.LSTM}
BASE = {"T": 100, "layers": 1, "B": 8, "H": 16}
GROWTH = {
    "T": [100, 316, 1000, 3162, 10000],
    "layers": [1, 2, 4, 8, 16],
    "B": [8, 32, 128, 512],
    "H": [16, 64, 256, 512],
}
SMOKE = {"T": [10, 20], "layers": [1, 2], "B": [1, 2], "H": [2, 4]}
LINEAR, TOLERANCE = ("T", "layers"), 0.05


def both_passes(cell: str, T: int, layers: int, B: int, H: int) -> Callable[[], None]:
    """Return a function that runs the forward and the backward pass of a new layer."""
    layer, x = CELLS[cell](H, H, num_layers=layers), tg.randn(T, B, H)

    def step() -> None:
        layer.zero_grad()
        output, _ = layer(x)
        (output * output).mean().backward()

    return step


def times(cell: str, name: str, sizes: list[int], rounds: int) -> list[float]:
    """Return the least time of a step for each size, in ms."""
    steps = [both_passes(cell, **{**BASE, name: size}) for size in sizes]
    least = [float("inf")] * len(sizes)
    for _ in range(rounds + 1):  # the first allocates memory, and is never the least
        for i, step in enumerate(steps):
            start = time.perf_counter()
            step()
            least[i] = min(least[i], 1e3 * (time.perf_counter() - start))
    return least


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--smoke", action="store_true", help="tiny sizes, no bound on the exponents"
    )
    parser.add_argument("--plot", metavar="FILE", help="plot the curves (extra plot)")
    parser.add_argument("--no-collector", action="store_true", help="without Python's cyclic GC")
    options = parser.parse_args()
    if options.no_collector:
        gc.disable()
    growth = SMOKE if options.smoke else GROWTH
    rounds = 1 if options.smoke else options.rounds

    print("fixed sizes:", ", ".join(f"{name} = {size}" for name, size in BASE.items()))
    curves, missed = {}, 0
    for name, sizes in growth.items():
        print(f"\n{name + ', ms':12}", *(f"{size:9,}" for size in sizes), "  exponent")
        for cell in options.cells:
            curves[name, cell] = found = times(cell, name, sizes, rounds)
            slope, _ = np.polyfit(np.log(sizes), np.log(found), 1)
            fine = options.smoke or name not in LINEAR or abs(slope - 1) <= TOLERANCE
            missed += not fine
            print(f"{cell:12}", *(f"{ms:9.2f}" for ms in found), f"  {slope:.3f}", end="")
            print("" if fine else f", not within {TOLERANCE} of 1")
    if options.plot:
        plot(options.plot, growth, curves)
    return int(missed > 0)


def plot(
    file: str, growth: dict[str, list[int]], curves: dict[tuple[str, str], list[float]]
) -> None:
    """Plot time over size, both logarithmic, with a panel for each size."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SystemExit("--plot needs matplotlib: pip install 'tinygrad-rnn[plot]'") from error
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    for axes, (name, sizes) in zip(figure.subplots(1, len(growth)), growth.items(), strict=True):
        for (other, cell), found in curves.items():
            if other == name:
                axes.loglog(sizes, found, "o-", label=cell)
        axes.set(xlabel=name, ylabel="ms")
    figure.axes[0].legend()
    figure.savefig(file)


if __name__ == "__main__":
    raise SystemExit(main())
