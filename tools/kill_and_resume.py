"""Kill a training run with SIGKILL at random moments, resume it each time, and compare every bit.

    python tools/kill_and_resume.py 10 --max-tokens 30000 --hidden 64 --epochs 3 --every 1
    python tools/kill_and_resume.py 10 fit

The first argument is the number of kills. The others are options of examples/char_lm.py; or
``fit``, for a run of `tinygrad_rnn.fit` with all callbacks that have a state. The
killed run must end with the checkpoints and the log of an uninterrupted run, except for times.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_rnn as tg

ROOT = Path(__file__).resolve().parents[1]
CLOCKS = {"seconds", "step_seconds", "seconds_left", "tokens_per_s"}


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of each leaf, arrays as bytes, without times."""
    if isinstance(tree, dict | list | tuple):
        for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree):
            if key not in CLOCKS:
                yield from leaves(item, f"{path}.{key}")
    elif isinstance(tree, np.ndarray):
        yield path, (str(tree.dtype), tree.shape, tree.tobytes())
    else:
        yield path, tree


def train(path: str) -> None:
    """Train with `fit`, or continue the run in a file."""
    tg.manual_seed(0)
    ids = np.arange(30_000) * 7 % 97 * (np.arange(30_000) % 3) % 97
    model = tg.models.RecurrentLM(tg.nn.GRUCell, 97, 64, 2, embedding_dim=32, dropout=0.2)
    print("head: Linear, and the other layers are ready", flush=True)
    tg.fit(
        model,
        tg.data.text.sequential(ids, 8, 25),
        loss=tg.functional.cross_entropy,
        optimizer=tg.optim.Adam(model.parameters(), lr=3e-3),
        epochs=4,
        valid=tg.data.text.sequential(ids[:2000], 4, 25),
        every=40,
        callbacks=[
            tg.training.Log(path.replace(".ckpt", ".jsonl"), resume=True),
            tg.training.Checkpoint(path, steps=3, resume=True),
            tg.training.EarlyStopping(patience=99),
            tg.training.BestModel(path=path.replace(".ckpt", ".best.ckpt")),
            tg.training.Schedule(tg.optim.schedule.cosine(600), per="step"),
            tg.training.ClipNorm(1.0),
        ],
    )


def contents(folder: Path, name: str) -> dict[str, Any]:
    """Return the contents of a run's checkpoints and log."""
    files = {kind: tg.load(folder / f"{name}{kind}") for kind in (".ckpt", ".best.ckpt")}
    for file in files.values():
        file.pop("options", None)  # the paths
    log = (folder / f"{name}.jsonl").read_text().splitlines()
    return dict(leaves(files | {"log": [json.loads(line) for line in log]}))


def job(folder: Path, name: str, options: list[str]) -> subprocess.Popen[str]:
    """Start or resume the main job."""
    command = [sys.executable, str(ROOT / "examples" / "char_lm.py"), *options, "--resume"]
    command += ["--save", str(folder / f"{name}.ckpt"), "--log", str(folder / f"{name}.jsonl")]
    if options == ["fit"]:
        command = [sys.executable, __file__, "fit", str(folder / f"{name}.ckpt")]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": paths}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def main() -> None:
    """Run once without and once with kills, and compare."""
    if sys.argv[1] == "fit":
        train(sys.argv[2])
        return
    kills, options = int(sys.argv[1]), sys.argv[2:]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        began = time.monotonic()
        job(folder, "whole", options).communicate()
        seconds = time.monotonic() - began
        print(f"not killed: {seconds:.0f} s")
        for kill in range(1, kills + 1):
            process = job(folder, "killed", options)
            assert process.stdout is not None
            next(line for line in process.stdout if "head: Linear" in line)  # training begins
            wait = random.uniform(0, 1.5 * seconds / kills)
            time.sleep(wait)
            over = process.poll() is not None
            process.kill()
            process.communicate()
            path = folder / "killed.ckpt"
            saved = tg.load(path) if path.exists() else {}
            step = saved.get("fit", {"step": "no"})["step"]
            torn = [name for name in os.listdir(folder) if name.endswith(".tmp")]
            print(f"kill {kill} after {wait:.2f} s: step {step} is saved", *torn, flush=True)
            if over:
                sys.exit("the run had finished before the kill: use options for a longer run")
        job(folder, "killed", options).communicate()
        whole, killed = contents(folder, "whole"), contents(folder, "killed")
        differ = [path for path in whole | killed if whole.get(path) != killed.get(path)]
        print(f"{len(whole)} values and arrays, {len(differ)} differ", *differ[:10])
        sys.exit(bool(differ))


if __name__ == "__main__":
    main()
