"""The training step of `steps.py` on an NVIDIA GPU, here and in PyTorch.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --cells lstm --sizes 35,32,28,256 --peers ours pytorch
    python benchmarks/gpu.py --table docs/_measured/speed-gpu.md

PyTorch's built-in layers call cuDNN; its cells in Python are those of `peer_cells.py`. float32
without TF32, in PyTorch as here. Every peer has a process of its own. A figure is the median of
--rounds turns; a turn lasts --seconds, and ends when the device has finished, so the time of a step
includes the host's as far as the device waits for it. A peer whose first loss differs from the
others' is an error. ``--device cpu`` tries the program without a GPU; its times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import steps

SIZES = [(35, 32, 28, 256), (128, 64, 65, 512)]
CELLS = ["rnn", "gru", "lstm"]
PEERS = {
    "ours": "ours, built in",
    "ours-graph": "ours, built in, `tg.cuda.graph`",
    "user": "ours, user's cell",
    "user-graph": "ours, user's cell, `tg.cuda.graph`",
    "pytorch": "PyTorch, cuDNN",
    "pytorch-user": "PyTorch, cell in Python",
}
TOLERANCE = 1e-4


def child(peer: str, cell: str, size: tuple[int, int, int, int], options: Any) -> dict[str, Any]:
    """Measure one peer in this process."""
    card = "none"
    if options.device != "cpu":
        card = graphics_card(peer)
    problem = steps.problem(cell, size, threads=2)._replace(device=options.device)
    begin = time.perf_counter()
    trainer = steps.PEERS[peer](problem)
    loss = trainer.step()
    first = float(loss.item())
    trainer.wait()
    compiling = time.perf_counter() - begin
    for _ in range(5):  # graphs of the device are captured
        trainer.step()
    trainer.wait()
    found = []
    for _ in range(options.rounds):
        count, begin = 0, time.perf_counter()
        while count < 3 or time.perf_counter() - begin < options.seconds:
            trainer.step()
            count += 1
        trainer.wait()
        found.append(1e3 * (time.perf_counter() - begin) / count)
    return {"ms": statistics.median(found), "loss": first, "first s": compiling, "card": card}


def graphics_card(peer: str) -> str:
    """Return the name of the GPU, and switch TF32 off."""
    if peer.startswith("pytorch"):
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        return str(torch.cuda.get_device_name())
    import cupy

    return str(cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode())


def measured(peer: str, cell: str, size: Any, options: Any) -> dict[str, Any]:
    """Measure one peer in a process of its own; the reason if it cannot run."""
    sizes = ",".join(map(str, size))
    command = [sys.executable, __file__, "--child", peer, "--cells", cell, "--sizes", sizes]
    command += ["--device", options.device, "--seconds", str(options.seconds)]
    command += ["--rounds", str(options.rounds)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.limit)
    except subprocess.TimeoutExpired:
        return {"error": f"longer than {options.limit:g} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(results: list[dict[str, Any]]) -> list[str]:
    """Return the rows of a table in Markdown."""
    head = ["cell", "T, B, V, H", *PEERS.values(), "PyTorch / ours, `tg.cuda.graph`"]
    rows = [f"| {' | '.join(head)} |"]
    rows += ["|---|---|" + "---:|" * (len(PEERS) + 1)]
    for result in results:
        found = {peer: result["peers"].get(peer, {}).get("ms") for peer in PEERS}
        cells = [f"{ms:.2f} ms" if ms else "–" for ms in found.values()]
        pairs = (("ours-graph", "pytorch"), ("user-graph", "pytorch-user"))
        ratio = [f"{found[b] / found[a]:.2f}" for a, b in pairs if found[a] and found[b]]
        size = ", ".join(map(str, result["size"]))
        rows.append(f"| {result['cell']} | {size} | {' | '.join(cells)} | {', '.join(ratio)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cells", nargs="+", default=CELLS)
    parser.add_argument(
        "--sizes", nargs="+", type=lambda s: tuple(map(int, s.split(","))), default=SIZES
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every peer")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn")
    parser.add_argument("--limit", type=float, default=120, help="seconds for one peer")
    parser.add_argument("--table", metavar="FILE", type=Path, help="write the table, as Markdown")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.cells[0], options.sizes[0], options)))
        return
    versions = []
    for name in ("numpy", "cupy-cuda13x", "cupy-cuda12x", "torch"):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    about = f"Python {platform.python_version()}, {', '.join(versions)}"
    print(about)
    results: list[dict[str, Any]] = []
    cards = set()
    for size in options.sizes:
        for cell in options.cells:
            peers: dict[str, Any] = {}
            for peer in options.peers:
                peers[peer] = found = measured(peer, cell, size, options)
                what = found.get("error") or (
                    f"{found['ms']:9.3f} ms a step, first step after {found['first s']:.1f} s"
                )
                print(f"{cell} {size} {PEERS[peer]:34} {what}", flush=True)
                cards.add(found.get("card", "none"))
            losses = [found["loss"] for found in peers.values() if "loss" in found]
            if losses and max(losses) - min(losses) > TOLERANCE * max(losses):
                sys.exit(f"the first losses of {cell} {size} differ: {losses}")
            results.append({"cell": cell, "size": size, "peers": peers})
    card = ", ".join(sorted(cards - {"none"})) or "no GPU"
    print(f"\n{card}\n\n" + "\n".join(table(results)))
    if options.table:
        text = f"{card}; {about}; float32, TF32 off.\n\n" + "\n".join(table(results)) + "\n"
        options.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
