"""One training step of a character model, ours (plain and captured) beside PyTorch's, in turns.

    python benchmarks/training_step.py [--cells rnn gru lstm] [--size T B V H] [--rounds 5]

The step: lookup of the input rows, recurrent layer, linear layer, cross-entropy, clipping, SGD. Two
BLAS thread pools in one process disturb each other, so each peer has its own; OPENBLAS_CORETYPE
and OPENBLAS_L2_SIZE are removed from the children's environment, since they can pin NumPy's BLAS to
slower kernels. Medians of ratios taken pair by pair.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time


def ours(cell: str, T: int, B: int, V: int, H: int) -> object:
    import tinygrad_rnn as tg

    layer = getattr(tg.nn, {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}[cell])(V, H)
    rows, out = tg.nn.Embedding(V, V), tg.nn.Linear(H, V)
    parameters = [*rows.parameters(), *layer.parameters(), *out.parameters()]
    optimizer = tg.optim.SGD(parameters, lr=0.1)
    ids = tg.random.generator(0).integers(0, V, (T + 1, B))
    x, y = tg.tensor(ids[:-1]), tg.tensor(ids[1:])

    def step() -> None:
        optimizer.zero_grad()
        output, _ = layer(rows(x))
        tg.functional.cross_entropy(out(output), y).backward()
        tg.optim.clip_grad_norm(parameters, 1.0)
        optimizer.step()

    return step


def captured(cell: str, T: int, B: int, V: int, H: int) -> object:
    import tinygrad_rnn as tg

    return tg.capture(ours(cell, T, B, V, H))  # type: ignore[arg-type]


def pytorch(cell: str, T: int, B: int, V: int, H: int) -> object:
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    layer = getattr(torch.nn, {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}[cell])(V, H)
    rows, out = torch.nn.Embedding(V, V), torch.nn.Linear(H, V)
    parameters = [*rows.parameters(), *layer.parameters(), *out.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    ids = torch.randint(0, V, (T + 1, B), generator=torch.Generator().manual_seed(0))
    x, y = ids[:-1], ids[1:]

    def step() -> None:
        optimizer.zero_grad()
        output, _ = layer(rows(x))
        torch.nn.functional.cross_entropy(out(output).reshape(-1, V), y.reshape(-1)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def measure(peer: str, cell: str, size: list[int], seconds: float = 2.0) -> float:
    """Return the median time of a step, in ms, in this process."""
    step = {"ours": ours, "captured": captured, "pytorch": pytorch}[peer](cell, *size)
    for _ in range(5):
        step()  # type: ignore[operator]
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        step()  # type: ignore[operator]
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def child(peer: str, cell: str, size: list[int]) -> float:
    """Return the same from a new process."""
    hidden = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [
        sys.executable,
        __file__,
        "--child",
        peer,
        "--cells",
        cell,
        "--size",
        *map(str, size),
    ]
    return float(
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", nargs="+", default=["rnn", "gru", "lstm"])
    parser.add_argument(
        "--size", nargs=4, type=int, default=[35, 32, 28, 256], metavar=("T", "B", "V", "H")
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", choices=["ours", "captured", "pytorch"])
    options = parser.parse_args()
    if options.child:
        print(measure(options.child, options.cells[0], options.size))
        return
    print(
        f"T, B, V, H = {options.size}; ms a step, medians of {options.rounds} rounds, "
        f"{os.cpu_count()} cores"
    )
    peers = "ours", "captured", "pytorch"
    for cell in options.cells:
        rounds = [
            [child(peer, cell, options.size) for peer in peers] for _ in range(options.rounds)
        ]
        mine, replayed, theirs = (statistics.median(times) for times in zip(*rounds, strict=True))
        ratio = statistics.median(b / a for a, _, b in rounds)
        of_captured = statistics.median(b / a for _, a, b in rounds)
        print(
            f"{cell:5} ours {mine:7.2f}   captured {replayed:7.2f}   PyTorch {theirs:7.2f}   "
            f"PyTorch / ours {ratio:.2f}, / captured {of_captured:.2f}"
        )


if __name__ == "__main__":
    main()
