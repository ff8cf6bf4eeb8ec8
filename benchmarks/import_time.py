"""The time of ``import tinygrad_rnn`` beyond that of NumPy, and of a first training step.

    python benchmarks/import_time.py [--rounds 11] [--against FOLDER] [--json]

Each round is one process that imports NumPy, then the library, then takes one training step of an
LSTM, so that the three are measured at the same load of the machine. Medians of milliseconds: of
the clock, which other programs slow down, and of the processor. Rows "compiled" have the bytecode
in a cache, as an installed package has; for "sources" Python compiles every module at each import
(``PYTHONDONTWRITEBYTECODE``, a read-only folder). ``--against`` measures another checkout in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("numpy", "library", "first step")
LIMIT = 80.0  # ms that the import may take beyond NumPy's
CHILD = """
import json, sys, time
clocks = time.perf_counter, time.process_time
moments = [[clock() for clock in clocks]]
import numpy
moments.append([clock() for clock in clocks])
import tinygrad_rnn as tg
moments.append([clock() for clock in clocks])
layer = tg.nn.LSTM(8, 16)
optimizer = tg.optim.Adam(layer.parameters())
(layer(tg.randn(5, 2, 8))[0] ** 2).mean().backward()
optimizer.step()
moments.append([clock() for clock in clocks])
spans = [[1e3 * (b - a) for a, b in zip(*pair)] for pair in zip(moments, moments[1:])]
print(json.dumps({"spans": spans, "modules": len(sys.modules)}))
"""


def measure(folder: Path, cache: str, compiled: bool) -> Any:
    """Return the milliseconds of each part, by the clock and by the processor, from a process."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if not compiled:  # NumPy keeps its bytecode, the library has none
        environment |= {"PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("PYTHONPYCACHEPREFIX")
    # -P: the folder of this program is not searched for modules
    command = [sys.executable, "-P", "-c", CHILD]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["spans"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--against", type=Path, help="the folder of another checkout")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    folders = [ROOT, *[args.against.resolve()] * bool(args.against)]
    found: dict[tuple[Path, bool], list[Any]] = {}
    with tempfile.TemporaryDirectory() as cache:
        for folder in folders:
            measure(folder, cache, True)  # fills the cache, compiles the first step's C
        for _ in range(args.rounds):
            for compiled in (True, False):
                for folder in folders:
                    found.setdefault((folder, compiled), []).append(
                        measure(folder, cache, compiled)
                    )
    rows = []
    for (folder, compiled), rounds in found.items():
        for i, clock in enumerate(("clock", "processor")):
            medians = [statistics.median(x[part][i] for x in rounds) for part in range(len(PARTS))]
            ways = "compiled" if compiled else "sources"
            rows.append(
                {"folder": str(folder), "bytecode": ways, "time": clock}
                | dict(zip(PARTS, medians, strict=True))
            )
    if args.json:
        print(json.dumps(rows))
        return
    for row in rows:
        parts = ", ".join(f"{part} {row[part]:6.1f} ms" for part in PARTS)
        print(f"{row['bytecode']:8} {row['time']:9} {parts}   {row['folder']}")
    ours = next(r for r in rows if r["bytecode"] == "compiled" and r["time"] == "clock")
    print(f"the import takes {ours['library']:.0f} ms beyond NumPy's (the limit is {LIMIT:.0f})")


if __name__ == "__main__":
    main()
