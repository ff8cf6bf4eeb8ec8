"""Misuses of `fit` and of its callbacks: the message names the argument, its value and the cure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, DTypeError, ShapeError

F, T = tg.functional, tg.training
X, Y = np.ones((8, 3), np.float32), np.ones((8, 1), np.float32)
IDS = np.arange(200) % 5


class Stateless(tg.nn.Module):
    """A recurrent model that forgets to return its state."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = tg.nn.GRU(5, 4), tg.nn.Linear(4, 5)

    def forward(self, ids: Any) -> Any:
        return self.head(self.rnn(F.one_hot(ids, 5))[0])


class Forgetful(Stateless):
    def forward(self, ids: Any, state: Any = None) -> Any:
        return super().forward(ids)


class Forgets(T.Callback):
    saved = ("count",)


class Prints(T.Callback):
    saved, count = ("count",), print


class Alone(T.Callback):
    saved, count = "count", 1  # type: ignore[assignment]


BATCHES = tg.data.batches(X, Y, batch_size=4)
FROZEN = tg.nn.Linear(3, 1).requires_grad_(False)
MODEL, OTHER, WORDS, LOST = tg.nn.Linear(3, 1), tg.nn.Linear(3, 1), Stateless(), Forgetful()


def call(model: Any = MODEL, batches: Any = None, **changes: Any) -> Any:
    options: dict[str, Any] = {"loss": F.mse_loss, "epochs": 2}
    parameters = (model if isinstance(model, tg.nn.Module) else MODEL).parameters()
    options["optimizer"] = tg.optim.SGD(parameters, lr=0.1)
    return tg.fit(model, [(X, Y)] if batches is None else batches, **options | changes)


def words(model: Any, batches: Any = None) -> Any:
    batches = tg.data.text.sequential(IDS, 2, 8) if batches is None else batches
    return call(model, batches, loss=F.cross_entropy)


def alone() -> Any:
    with tg.no_grad():
        return call()


MISUSES: dict[str, tuple[Callable[[], Any], str]] = {
    "a function as model": (
        lambda: call(lambda x: x), r"model: a tg.nn.Module is expected, got a function: make a sub"
    ),
    "a model that was not made": (
        lambda: call(tg.nn.Linear), "got the class Linear: make a subclass",
    ),
    "the name of a loss": (
        lambda: call(loss="mse"), r"loss: a function .* got 'mse': pass one such as tg\.func",
    ),
    "a loss of every row": (
        lambda: call(loss=lambda output, y: (output - y) ** 2),
        r"loss: it must return one number, .* got a Tensor of shape \(8, 1\): take its mean",
    ),
    "a loss that is a number": (
        lambda: call(loss=lambda output, y: 0.5),
        r"loss: it must return one number, .* got 0\.5: return it as",
    ),
    "the name of an optimizer": (
        lambda: call(optimizer="adam"),
        r"optimizer: an optimizer is expected, got 'adam': pass one such as tg\.optim\.Adam",
    ),
    "an optimizer that was not made": (
        lambda: call(optimizer=tg.optim.Adam), "got the class Adam: pass one such as tg",
    ),
    "the optimizer of another model": (
        lambda: call(optimizer=tg.optim.SGD(OTHER.parameters(), lr=0.1)),
        r"none of the 2 parameters of the optimizer is one of Linear: make the optimizer from",
    ),
    "no epochs": (lambda: call(epochs=0), r"fit: epochs must be .*0"),
    "epochs that are a float": (lambda: call(epochs=2.5), r"fit: epochs must be .*2\.5"),
    "arrays in place of batches": (
        lambda: call(MODEL, (X, Y)),
        r"a batch is a tuple \(x, y\) of inputs and labels, got a numpy\.ndarray of shape "
        r"\(8, 3\): pass tg\.data\.batches",
    ),
    "an array in place of batches": (
        lambda: call(MODEL, X), r"batches are expected, got a numpy.ndarray of shape \(8, 3\)",
    ),
    "a tensor in place of batches": (
        lambda: call(MODEL, tg.tensor(X)), r"batches are expected, got a Tensor of shape \(8, 3\)",
    ),
    "a number in place of batches": (lambda: call(MODEL, 32), "batches are expected, got 32"),
    "no labels": (
        lambda: call(MODEL, tg.data.batches(X, batch_size=4)),
        r"a batch is a tuple \(x, y\) .* got a tuple: pass tg\.data\.batches\(x, y, batch",
    ),
    "an empty list": (lambda: call(MODEL, []), "batches: the list is empty: pass tg.data.batch"),
    "a function that returns no batches": (
        lambda: call(MODEL, lambda: iter(())), "an epoch has none: use a smaller batch_size",
    ),
    "a generator": (
        lambda: call(MODEL, (pair for pair in [(X, Y)])),
        "a generator can be read only once, and every epoch reads it: pass a function that",
    ),
    "a generator for validation": (
        lambda: call(valid=iter([(X, Y)])), "valid: a list_iterator can be read only once",
    ),
    "arrays for validation": (lambda: call(valid=(X, Y)), "fit: valid: a batch is a tuple"),
    "windows that continue, for a model without a state": (
        lambda: words(WORDS),
        r"need a model with the argument `state`, which .*Stateless\.forward lacks: define",
    ),
    "a state that is not returned": (
        lambda: words(LOST),
        r"Forgetful\.forward has an argument `state`, so it must return the output and the state, "
        "got Tensor",
    ),
    "a strategy's windows, for a model that takes none": (
        lambda: words(LOST, tg.bptt.Truncated(8).windows(IDS, batch_size=2)),
        r"need a model with the argument `bptt`, .* pass it on to its recurrent layers",
    ),
    "gradients are off": (alone, r"gradients are off here: call it outside of tg\.no_grad"),
    "one callback": (
        lambda: call(callbacks=T.Progress()), "callbacks: one was passed alone: put it in a list",
    ),
    "a callback that was not made": (
        lambda: call(callbacks=[T.Progress]), r"got the class Progress: call it, as Progress\(\)",
    ),
    "a function as callback": (
        lambda: call(callbacks=[print]), r"got a .*function.*: make a subclass of tg\.train",
    ),
    "a callback twice": (lambda: call(callbacks=[T.ClipNorm(1)] * 2), "callbacks: one occurs twi"),
    "callbacks that are None": (
        lambda: call(callbacks=None),
        "callbacks: a list of callbacks is expected, got None: pass a list, or leave it out",
    ),
    "callbacks in a dict": (lambda: call(callbacks={}), "got a dict: pass a list, or leave it"),
    "no model": (lambda: call(None), "model: a tg.nn.Module is expected, got None: make a sub"),
    "no loss": (lambda: call(loss=lambda output, y: None), r"shape \(\), got None: return it as"),
    "a loss apart from the parameters": (
        lambda: call(loss=lambda output, y: F.mse_loss(output.detach(), y)),
        r"loss: it does not depend on a parameter: compute it .* without detach\(\)",
    ),
    "padding that is not ignored": (
        lambda: call(loss=lambda output, y: F.cross_entropy(output[:2], np.array([0, -1]))),
        r"cross_entropy: id -1 is outside \[0, 1\): if it is padding, pass ignore_index=-1",
    ),
    "a saved attribute that is missing": (
        lambda: call(callbacks=[Forgets(), T.Checkpoint("no file is written")]),
        "Forgets: it lacks 'count', which saved names: set it in __init__ or start",
    ),
    "the name of a saved attribute alone": (
        lambda: call(callbacks=[Alone(), T.Checkpoint("no file is written")]),
        r"Alone: saved is a tuple of names: write saved = \('count',\)",
    ),
    "a folder as file": (lambda: T.Checkpoint("/"), "Checkpoint: '/' is a folder: pass a file in"),
    "early stopping without validation": (
        lambda: call(callbacks=[T.EarlyStopping()]),
        r"EarlyStopping: it needs validation: pass valid= to fit, or monitor='loss'",
    ),
    "a figure that is missing": (
        lambda: call(callbacks=[T.BestModel("accuracy")]),
        "BestModel: no figure 'accuracy': there are epoch, step, loss, .* comes before in the list",
    ),
    "no patience": (lambda: T.EarlyStopping(0), "EarlyStopping: patience must be"),
    "a norm below zero": (lambda: T.ClipNorm(-1.0), "ClipNorm: max_norm .*-1"),
    "a number as schedule": (
        lambda: T.Schedule(0.5), r"Schedule: a function from a number .* got 0\.5 and per='epoch'",
    ),
    "a schedule by batch": (
        lambda: T.Schedule(tg.optim.schedule.cosine(9), per="batch"), "'step' are .* per='batch'",
    ),
    "a folder that is missing": (
        lambda: T.Checkpoint("no/such/run.ckpt"), "'no/such/run.ckpt': no such folder: make it",
    ),
    "a checkpoint without a path": (lambda: T.Checkpoint(5), "path: the path of a file .* got 5"),
    "batches of a function with an argument": (
        lambda: call(MODEL, lambda epoch: [(X, Y)]),
        "batches: a function is called without arguments in each epoch: missing .*'epoch'",
    ),
    "a function that returns a number": (
        lambda: call(MODEL, lambda: 3), r"returned 3: it returns an iterable of tuples \(x, y\)",
    ),
    "one object for training and validation": (
        lambda: call(MODEL, BATCHES, valid=BATCHES),
        "valid: it is the object batches, .* make the batches of validation by another call",
    ),
    "a frozen model": (
        lambda: call(FROZEN), r"all parameters of Linear are frozen: call model\.requires_grad_",
    ),
    "a class as schedule": (
        lambda: T.Schedule(tg.optim.schedule.Scheduler), "Schedule: a function from a number",
    ),
    "a schedule of texts": (
        lambda: call(callbacks=[T.Schedule(lambda epoch: "0.1")]),  # type: ignore[arg-type,return-value]
        "Schedule: the first factor of the schedule must be a number, got '0.1'",
    ),
    "two files of one name": (
        lambda: call(
            callbacks=[T.Checkpoint("run.ckpt"), T.BestModel("loss", path="./run.ckpt")]
        ),
        "BestModel and Checkpoint would both write run.ckpt: pass another name",
    ),
    "an entry that cannot be saved": (
        lambda: call(callbacks=[T.Checkpoint("no file is written", extra={"f": print})]),
        "save: f is a builtins.builtin_function_or_method: dicts",
    ),
    "an attribute that cannot be saved": (
        lambda: call(callbacks=[Prints(), T.Checkpoint("no file is written")]),
        r"save: fit.*'count'\] is a builtins.builtin_function_or_method: dicts",
    ),
    "a checkpoint within an epoch of a function": (
        lambda: call(MODEL, lambda: [(X, Y)], callbacks=[T.Checkpoint("run.ckpt", steps=3)]),
        r"Checkpoint: steps=3: a function has no position .* pass tg\.data\.batches\(\.\.\.\) it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("misuse", MISUSES)
def test_a_misuse_is_answered_with_the_cure(misuse: str) -> None:
    act, message = MISUSES[misuse]
    models = [MODEL, OTHER, WORDS, LOST]
    before = [p.numpy().tobytes() for model in models for p in model.parameters()]
    with pytest.raises(ArgumentError, match=message):
        act()
    if misuse != "a figure that is missing":  # found after the first epoch
        assert before == [p.numpy().tobytes() for model in models for p in model.parameters()]


def test_a_column_of_labels_that_would_broadcast() -> None:
    with pytest.raises(ShapeError, match="the loss does not broadcast: reshape one of them"):
        call(MODEL, [(X, Y[:, 0])])


def saved_run(folder: Path, **changes: Any) -> None:
    options: dict[str, Any] = {"inputs": 3, "batch_size": 4, "resume": True, "rule": tg.optim.Adam}
    options |= changes
    model, x = tg.nn.Linear(options["inputs"], 1), X[:, : options["inputs"]]
    batches = tg.data.batches(x, Y, batch_size=options["batch_size"])
    saving = T.Checkpoint(folder / "run", resume=options["resume"])
    tg.fit(
        model, options.get("batches", batches), loss=F.mse_loss, epochs=1, callbacks=[saving],
        optimizer=options["rule"](model.parameters(), lr=0.1),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resume": False}, "run exists: continue its run with resume=True, or choose another nam"),
        ({"batch_size": 2}, "batch_size is 2 here, and was 4"),
        ({"inputs": 2}, r"shapes is \[\(8, 2\), \(8, 1\)\] here"),
        ({"rule": tg.optim.SGD}, "Adam"),
        (
            {"batches": [(X, Y)]},
            "other batches: (?s:.*)pass the same ones, or save this run in another",
        ),
        (
            {"batches": lambda: [(X, Y)]},
            "batches: the run to continue had other batches, not a functi",
        ),
    ],
)
def test_a_run_that_does_not_fit_is_not_continued(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    saved_run(tmp_path)
    before = (tmp_path / "run").read_bytes()
    with pytest.raises(ArgumentError, match=f"(?s:.*){message}"):
        saved_run(tmp_path, **changes)
    assert (tmp_path / "run").read_bytes() == before


def test_another_file_is_not_continued(tmp_path: Path) -> None:
    tg.save(tmp_path / "run", model=MODEL)
    with pytest.raises(ArgumentError, match=r"run: nothing was loaded:\n  missing: fit"):
        saved_run(tmp_path)


class Figure(T.Callback):
    def __init__(self, value: Any) -> None:
        self.value = value

    def report(self, run: Any) -> None:
        run.figures["accuracy"] = self.value


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.array, tg.tensor, lambda x: [[x]]])
def test_a_figure_can_be_a_number_of_numpy_or_a_tensor(kind: Any, tmp_path: Path) -> None:
    value, log = kind(1), T.Log(tmp_path / "log")
    call(callbacks=[Figure(value), log])
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [row["accuracy"] for row in rows] == [
        1 if np.size(value) and kind in PLAIN else [[1]]
    ] * 2
    if kind in PLAIN:
        early = T.EarlyStopping(1, "accuracy")
        assert "accuracy did not improve" in call(callbacks=[Figure(value), early]).stopped


PLAIN = [np.float32, np.int64, np.array, tg.tensor]


def test_a_figure_that_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"Log: the figure 'accuracy' is array.*\.tolist\(\)"):
        call(callbacks=[Figure(np.ones(3)), T.Log(tmp_path / "log")])
    with pytest.raises(ArgumentError, match="the figure 'accuracy' is 'high': a number is"):
        call(callbacks=[Figure("high"), T.EarlyStopping(1, "accuracy")])


class Counts(T.Callback):
    saved: Any = ("count",)
    count = other = 0


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("epoch", "x", "epoch is a number >= 0, got 'x'"),
        ("seconds", -1, "seconds is a number >= 0, got -1"),
        ("losses", None, "is damaged, nothing was loaded: TypeError"),
        ("history", 3, "is damaged, nothing was loaded: TypeError"),
        ("state", "x", "state"),
        ("random", {}, "random"),
        ("callbacks", [["Counts", {"count": 3, "more": 1}]], "unexpected: more"),
        ("callbacks", [["Counts", {}]], "missing: count"),
        (None, 3, "a dict with the keys"),
    ],
)
def test_a_run_that_is_damaged_changes_nothing(
    part: str | None, value: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "run"

    def train(epochs: int) -> None:
        tg.fit(
            model, batches, loss=F.mse_loss, epochs=epochs, optimizer=adam,
            callbacks=[counts, T.Checkpoint(path, resume=True)],
        )  # fmt: skip

    def everything() -> Any:
        parts = [model, adam, batches]
        states = [*(p.state_dict() for p in parts), counts.count, tg.random.get_state()]
        return repr(states)

    model = tg.nn.Linear(3, 1)
    adam = tg.optim.Adam(model.parameters(), lr=0.1)
    batches, counts = tg.data.batches(X, Y, batch_size=4), Counts()
    train(1)
    saved = tg.load(path)
    tg.save(path, fit=saved["fit"] | {part: value} if part else value)
    written = path.read_bytes()
    model = tg.nn.Linear(3, 1)
    adam = tg.optim.Adam(model.parameters(), lr=0.2)
    batches, counts = tg.data.batches(X, Y, batch_size=4), Counts()
    before = everything()
    with pytest.raises((ArgumentError, DTypeError), match=message):
        train(2)
    assert everything() == before and path.read_bytes() == written
