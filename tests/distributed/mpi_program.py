"""A program for mpiexec: `python mpi_program.py TASK FOLDER` does one of the tasks below."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_rnn as tg

IDS = np.random.default_rng(0).integers(20, size=4000)
FOLDER = Path(sys.argv[-1])


class Model(tg.nn.Module):
    def __init__(self, hidden: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        self.table = tg.nn.Embedding(20, 8)
        self.rnn = tg.nn.LSTM(8, hidden)
        self.head = tg.nn.Linear(hidden, 20)
        self.dropout = tg.nn.Dropout(dropout)

    def forward(self, x: Any, state: Any = None) -> Any:
        output, state = self.rnn(self.table(x), state)
        return self.head(self.dropout(output)), state


class Training:
    """A loop over a text that carries its state, and can be saved."""

    def __init__(self, deterministic: bool = False, dtype: Any = tg.float32, **model: Any) -> None:
        self.world = tg.distributed.init()
        tg.manual_seed(self.world.rank)  # other parameters on each rank
        self.model = Model(**model).to(dtype)
        self.optimizer = tg.optim.SGD(self.model.parameters(), lr=0.5, momentum=0.9)
        self.parallel = tg.distributed.data_parallel(self.model, self.optimizer, deterministic)
        tg.manual_seed(7)
        self.stream = self.world.shard(tg.data.text.sequential(IDS, 16, 8, rng=3))
        self.state, self.steps, self.losses = None, 0, list[float]()

    def loss(self, x: Any, y: Any, state: Any) -> Any:
        output, state = self.model(x, state)
        return tg.functional.cross_entropy(output, y), state

    def step(self) -> float:
        if self.stream.position == len(self.stream):
            self.stream.next_epoch()
            self.state = None
        x, y = next(self.stream)
        nats, self.state = self.parallel.gradient(self.loss, x, y, state=self.state)
        tg.optim.clip_grad_norm(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.steps += 1
        return nats

    def save(self, path: Path) -> None:
        self.world.save(
            path, model=self.model, optimizer=self.optimizer, stream=self.stream, step=self.steps,
            state=self.world.join(self.state), random=tg.random.get_state(),
        )  # fmt: skip

    def load(self, path: Path) -> None:
        saved = tg.load(path)
        for name in ("model", "optimizer", "stream"):
            getattr(self, name).load_state_dict(saved[name])
        self.state, self.steps = self.world.split(tg.bptt.restore(saved["state"])), saved["step"]
        tg.random.set_state(saved["random"])

    def bits(self) -> Any:
        return np.concatenate([x.ravel() for x in self.model.state_dict().values()])


def trained(steps: int = 50, resume: Path | None = None, **options: Any) -> Training:
    """Return a training after some steps, in which all ranks hold the same bits."""
    training = Training(**options)
    if resume is not None:
        training.load(resume)
    training.losses = [training.step() for _ in range(steps - training.steps)]
    training.parallel.check()
    return training


def agree() -> None:
    """Train in several ways; rank 0 writes the parameters of each as an .npz file."""
    world = tg.distributed.init()
    ways: dict[str, dict[str, Any]] = {
        "float32": {},
        "float64": {"dtype": tg.float64},
        "deterministic": {"deterministic": True, "dropout": 0.2},
    }
    found: dict[str, Any] = {}
    for name in ways if world.size < 8 else ["deterministic"]:
        training = trained(**ways[name])
        found |= {f"{name} {key}": x for key, x in training.model.state_dict().items()}
        found[f"{name} losses"] = training.losses
    for name in ("float64", "deterministic"):
        if world.size == 8:
            found[f"{name} of two"] = trained(16, FOLDER / f"{name} 2.ckpt", **ways[name]).bits()
            continue
        way = ways[name] | {"dropout": 0.2}  # whose masks are a part of what is resumed
        path = FOLDER / f"{name} {world.size}.ckpt"
        trained(8, **way).save(path)
        found[f"{name} whole"] = trained(16, **way).bits()
        found[f"{name} resumed"] = trained(16, path, **way).bits()
        if world.size > 2:  # without dropout, whose masks depend on the number of ranks
            found[f"{name} of two"] = trained(16, FOLDER / f"{name} 2.ckpt", **ways[name]).bits()
            continue
        trained(8, **ways[name]).save(path)
        found[f"{name} of two"] = trained(16, **ways[name]).bits()
    found["perplexity"] = merged(world)
    if world.size < 8:
        model, history = fit(FOLDER / f"fit {world.size}.ckpt", 2)
        found["fit losses"] = history["loss"] + history["valid_loss"]
        model, history = fit(FOLDER / f"fit {min(world.size, 2)}.ckpt", 3)
        found["fit"] = np.concatenate([x.ravel() for x in model.state_dict().values()])
    if world.size == 2:
        found["errors"] = errors(world)
        found |= endings(world)
    print("only rank 0 prints this")
    if world.rank == 0:
        np.savez(FOLDER / f"{world.size}.npz", **found)


def merged(world: Any) -> float:
    """Return the perplexity of a text that the ranks share, with padding at its end."""
    model, metric = Model(), tg.metrics.Perplexity()
    for x, y in world.shard(tg.data.text.evaluation(IDS[:1001], 8, 16)):
        losses = tg.functional.cross_entropy(model(x)[0], y, ignore_index=-1, reduction="none")
        metric.update(losses[y.numpy() >= 0] if losses.ndim > 1 else losses)
    return world.merge(metric).nats


def fit(path: Path, epochs: int) -> Any:
    """Return a model and its history, by `tg.fit`, continued if it was saved."""
    world = tg.distributed.init()
    tg.manual_seed(1)
    model = Model()
    optimizer = tg.optim.SGD(model.parameters(), lr=0.5)
    history = tg.fit(
        model, world.shard(tg.data.text.sequential(IDS, 16, 32)), optimizer=optimizer,
        loss=tg.functional.cross_entropy, epochs=epochs,
        valid=tg.data.text.sequential(IDS[:500], 4, 16, rng=0),
        callbacks=[
            tg.distributed.data_parallel(model, optimizer), tg.training.ClipNorm(1.0),
            tg.training.Checkpoint(path, resume=True, steps=5), tg.training.Progress(),
        ],
    )  # fmt: skip
    return model, history


class Odd(tg.training.Callback):
    """End the run from rank 1, and add a figure that has another minimum on each rank."""

    def __init__(self, rank: int, at: int) -> None:
        self.rank, self.at = rank, at

    def step(self, run: Any) -> None:
        if self.rank == 1 and run.step == self.at:
            run.interrupt("the time of rank 1 is over")

    def report(self, run: Any) -> None:
        run.figures["odd"] = abs(run.step - [2, 5][self.rank])


def endings(world: Any) -> dict[str, Any]:
    """Return the steps of each rank in runs that one rank or a figure ends, and the reasons."""
    found: dict[str, Any] = {"limited": [], "reasons": [], "early": []}
    for kind, last in (("limited", 3), ("limited", 1), ("early", 99)):
        tg.manual_seed(0)
        model = tg.nn.Linear(2, 1)
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
        x = np.ones((4, 2), np.float32)
        history = tg.fit(
            model, world.shard(tg.data.batches(x, x[:, :1], batch_size=4)), epochs=20,
            loss=tg.functional.mse_loss, optimizer=optimizer,
            callbacks=[
                tg.distributed.data_parallel(model, optimizer), Odd(world.rank, last),
                tg.training.BestModel("odd"),
                *[tg.training.EarlyStopping(1, "odd")] * (kind == "early"),
            ],
        )  # fmt: skip
        rows = world.messages.objects((history[-1]["step"] + (kind != "early"), history.stopped))
        found[kind] += [steps for steps, _ in rows]
        found["reasons"] += [reason for _, reason in rows if last == 3]
        world.meet("the best parameters", repr(model.weight.numpy().tolist()))
    return found


def errors(world: Any) -> list[str]:
    """Return the messages about ranks that differ, which all ranks raise together."""
    odd = world.rank == 1
    model = tg.nn.Linear(3, 3 + odd)
    same = tg.nn.Linear(3, 3)
    adam = tg.optim.Adam(same.parameters())
    parallel = tg.distributed.data_parallel(same, adam)

    def differ() -> None:
        same.bias.data = np.full(3, float(odd))
        world.save(FOLDER / "never.ckpt", model=same)

    wrong = [
        lambda: world.all_reduce(np.ones(100 + 50 * odd)),
        lambda: world.all_reduce(np.ones(3, np.float64 if odd else np.float32)),
        lambda: world.broadcast(1) if odd else world.meet("barrier"),
        lambda: world.shard(tg.data.text.sequential(IDS, 16, 8, rng=3 + odd)),
        lambda: tg.distributed.data_parallel(model, tg.optim.SGD(model.parameters(), lr=1.0)),
        differ,
    ]
    texts = []
    for function in wrong:
        try:
            function()
            texts.append("no error")
        except tg.errors.DistributedError as error:
            texts.append(str(error))
    assert parallel.world is world
    return texts


def interrupted() -> None:
    """Train until a signal, and save; say when the loop begins."""
    training = Training(deterministic=True, dropout=0.2)
    while not training.world.interrupted:
        training.step()
        if training.steps == 5:
            print("training", flush=True)
    training.save(FOLDER / "interrupted.ckpt")


def continued() -> None:
    """Take up the run that was interrupted, with one process, and compare with a whole run."""
    steps = tg.load(FOLDER / "interrupted.ckpt")["step"] + 5
    way = {"deterministic": True, "dropout": 0.2}
    resumed = trained(steps, FOLDER / "interrupted.ckpt", **way)
    assert resumed.bits().tobytes() == trained(steps, **way).bits().tobytes()
    assert steps >= 10


def fail(how: str) -> None:
    """Take three steps, then go wrong on rank 1."""
    if how == "stuck":
        tg.distributed.init(patience=2)
    training = Training()
    for _ in range(3):
        training.step()
    if training.world.rank == 1:
        if how == "exception":
            raise KeyError("a bad key")
        if how == "exit":
            sys.exit(3)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "stuck":
            time.sleep(100)
    for _ in range(3):
        training.step()


if __name__ == "__main__":
    task = sys.argv[1]
    if task in ("agree", "interrupted", "continued"):
        globals()[task]()
    else:
        fail(task)
