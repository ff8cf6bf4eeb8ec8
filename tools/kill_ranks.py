"""End a run of several ranks at random moments, resume it each time, and compare every bit.

    python tools/kill_ranks.py 10
    python tools/kill_ranks.py 10 --ranks 4 --mpiexec-options="--oversubscribe --bind-to none"

Each time one of three things happens at a random moment: kill -9 of a random rank, an exception in
one, or SIGINT at mpiexec. All ranks must end in less than 10 s, the checkpoint must load, and the
last run must end with the parameters of an uninterrupted one.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_rnn as tg

LAST = 400  # steps
LEAST = 10.0  # seconds


def train(path: Path) -> None:
    """Train, or continue; raise in a rank that finds a file of its name."""
    world = tg.distributed.init()
    tg.manual_seed(0)
    ids = np.random.default_rng(0).integers(50, size=20_000)
    model = tg.models.RecurrentLM(tg.nn.LSTMCell, 50, 64, embedding_dim=16, dropout=0.2)
    optimizer = tg.optim.Adam(model.parameters())
    parallel = tg.distributed.data_parallel(model, optimizer)
    stream, state, step = world.shard(tg.data.text.sequential(ids, 16, 20)), None, 0
    if path.exists():
        saved = tg.load(path)
        for part, name in ((model, "model"), (optimizer, "optimizer"), (stream, "stream")):
            part.load_state_dict(saved[name])
        state, step = world.split(tg.bptt.restore(saved["state"])), saved["step"]
        tg.random.set_state(saved["random"])

    def loss(x: Any, y: Any, state: Any) -> Any:
        logits, state = model(x, state)
        return tg.functional.cross_entropy(logits, y), state

    path.with_name(f"pid{world.rank}").write_text(str(os.getpid()))
    print("ready", flush=True)
    while step < LAST and not world.interrupted:
        if stream.position == len(stream):
            stream.next_epoch()
            state = None
        _, state = parallel.gradient(loss, *next(stream), state=state)
        tg.optim.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if path.with_name(f"raise{world.rank}").exists():
            raise RuntimeError("as told")
        if step % 10 == 0 or world.interrupted:
            world.save(
                path, model=model, optimizer=optimizer, stream=stream, step=step,
                state=world.join(state), random=tg.random.get_state(),
            )  # fmt: skip


def start(arguments: argparse.Namespace, path: Path) -> subprocess.Popen[str]:
    """Start the ranks, and wait until they train."""
    options = [*arguments.mpiexec_options.split(), "-n", str(arguments.ranks)]
    mpiexec = str(Path(sys.executable).with_name("mpiexec"))
    command = [mpiexec, *options, sys.executable, __file__, "--train", str(path)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    while "ready" not in (line := process.stdout.readline()):
        assert line, "the ranks ended before their first step"
    return process


def disturb(process: subprocess.Popen[str], folder: Path, ranks: int) -> str:
    """End the run in one of three ways."""
    rank, way = random.randrange(ranks), random.choice(["kill -9", "exception", "SIGINT"])
    if way == "kill -9":
        os.kill(int((folder / f"pid{rank}").read_text()), signal.SIGKILL)
    elif way == "exception":
        (folder / f"raise{rank}").touch()
    else:
        process.send_signal(signal.SIGINT)
    return f"{way} of rank {rank}" if way != "SIGINT" else "SIGINT at mpiexec"


def main() -> None:
    """Run once to the end, and once with interruptions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("count", type=int, nargs="?", default=10)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--mpiexec-options", default="")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--train", type=Path)
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train)
        return
    random.seed(arguments.seed)
    folder = Path(tempfile.mkdtemp())
    began = time.monotonic()
    start(arguments, folder / "whole.ckpt").communicate()
    whole, seconds = tg.load(folder / "whole.ckpt"), time.monotonic() - began
    path, done, slowest = folder / "disturbed.ckpt", 0, 0.0
    print(f"seed {arguments.seed}; a whole run takes {seconds:.1f} s")
    while not path.exists() or tg.load(path)["step"] < LAST:
        process = start(arguments, path)
        if done < arguments.count:
            time.sleep(random.uniform(0.0, seconds / arguments.count))
            if process.poll() is None:
                way, ended = disturb(process, folder, arguments.ranks), time.monotonic()
                process.communicate(timeout=60)
                took = time.monotonic() - ended
                slowest, done = max(slowest, took), done + 1
                step = tg.load(path)["step"] if path.exists() else 0
                print(f"{way}: ended in {took:.2f} s, the file has step {step}", flush=True)
                assert took < LEAST
        else:
            process.communicate()
        for file in folder.glob("raise*"):
            file.unlink()
    found = tg.load(path)
    for name, array in whole["model"].items():
        assert array.tobytes() == found["model"][name].tobytes(), f"{name} differs"
    print(f"{done} ends, the slowest {slowest:.2f} s; the bits of the uninterrupted run")


if __name__ == "__main__":
    main()
