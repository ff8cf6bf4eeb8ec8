"""Rows of figures within an epoch, and callbacks that write files or end the run in its middle."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import json
import signal
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError

F, T = tg.functional, tg.training
X = np.linspace(-1, 1, 60, dtype=np.float32).reshape(20, 3)
Y = X.sum(axis=1, keepdims=True)
IDS = np.arange(400) * 7 % 11


class At(T.Callback):
    """Act after a certain step, after the callbacks that save."""

    last = True

    def __init__(self, number: int, act: Callable[[Any], Any]) -> None:
        self.number, self.act = number, act

    def step(self, run: T.Run) -> None:
        if run.step == self.number:
            self.act(run)


class Score(T.Callback):
    """Give the rows certain figures."""

    def __init__(self, *scores: float) -> None:
        self.scores = iter(scores)

    def report(self, run: T.Run) -> None:
        run.figures["score"] = next(self.scores)


class Killed(Exception):
    pass


def kill(run: T.Run) -> None:
    raise Killed


def train(
    *callbacks: Any, epochs: int = 3, batches: Any = None, lr: float = 0.1, **more: Any
) -> Any:
    """Train on five batches an epoch; return the model and the history."""
    tg.manual_seed(0)
    model = tg.nn.Linear(3, 1)
    history = tg.fit(
        model, tg.data.batches(X, Y, batch_size=4) if batches is None else batches,
        loss=F.mse_loss, optimizer=tg.optim.SGD(model.parameters(), lr=lr), epochs=epochs,
        callbacks=callbacks, **more,
    )  # fmt: skip
    return model, history


def bits(model: tg.nn.Module) -> list[bytes]:
    return [p.numpy().tobytes() for p in model.parameters()]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_times(rows: Any) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


# -- rows ------------------------------------------------------------------------------------------


@given(every=st.integers(1, 40), epochs=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_rows_every_few_steps(every: int, epochs: int) -> None:
    class Watch(T.Callback):
        def step(self, run: T.Run) -> None:
            run.losses.read()  # on a GPU they are there still
            sums = run.losses.epoch
            losses.append(sums.total - (before[-1] if sums.steps > 1 else 0.0))
            before.append(sums.total)

    losses: list[float] = []
    before = [0.0]
    valid = [(X, Y)]
    plain, by_epoch = train(epochs=epochs, valid=valid)
    model, history = train(Watch(), epochs=epochs, valid=valid, every=every)
    assert bits(model) == bits(plain), "reports change the training"
    steps = 5 * epochs
    ends = [*range(every, steps + 1, every)]
    ends += [steps] * (steps % every > 0)
    assert history["step"] == ends
    assert history["epoch"] == [end / 5 for end in ends]
    assert history[-1]["valid_loss"] == by_epoch[-1]["valid_loss"]
    for begin, end, row in zip([0, *ends], ends, history, strict=False):
        assert row["loss"] == pytest.approx(sum(losses[begin:end]) / (4 * (end - begin)))
    if every == 5:
        assert without_times(history) == without_times(by_epoch)


def test_the_numbers_of_epochs_are_integers_without_every() -> None:
    _, history = train()
    assert history["epoch"] == [1, 2, 3] and {type(e) for e in history["epoch"]} == {int}
    assert str(history).splitlines()[1].split()[:2] == ["1", "5"]
    _, history = train(every=2)
    assert str(history).splitlines()[1].split()[:2] == ["0.40", "2"]


def test_early_stopping_counts_rows_and_the_best_model_is_of_a_row() -> None:
    seen: list[Any] = []
    model, history = train(
        Score(3.0, 1.0, 2.0, 2.0, 9.0), At(4, lambda run: seen.append(bits(run.model))),
        T.EarlyStopping(2, "score"), T.BestModel("score"), every=2,
    )  # fmt: skip
    assert history["step"] == [2, 4, 6, 8]
    assert history.stopped == "stopped early: score did not improve for 2 reports"
    assert bits(model) == seen[0]


def test_the_methods_of_a_callback_in_order() -> None:
    calls: list[tuple[str, str, int]] = []

    class Record(T.Callback):
        def __init__(self, name: str, last: bool) -> None:
            self.name, self.last = name, last

        def step(self, run: T.Run) -> None:
            calls.append((self.name, "step", run.step))

        def report(self, run: T.Run) -> None:
            calls.append((self.name, "report", run.step))

        def epoch(self, run: T.Run) -> None:
            calls.append((self.name, "epoch", run.step))

    train(Record("saves", True), Record("a", False), epochs=1, every=4)
    kinds = {4: ("step", "report"), 5: ("step",)}
    expected = [
        (name, kind, step)
        for step in range(1, 6)
        for name in ("a", "saves")
        for kind in kinds.get(step, ("step",))
    ]
    ends = [(name, kind, 5) for name in ("a", "saves") for kind in ("report", "epoch")]
    assert calls == expected + ends


# -- resuming --------------------------------------------------------------------------------------


def resumable(path: Path, *more: Any, every: int = 6, seed: int = 1, **options: Any) -> Any:
    tg.manual_seed(seed)
    model = tg.models.RecurrentLM(tg.nn.GRUCell, 11, 6, embedding_dim=4, dropout=0.3)
    history = tg.fit(
        model, tg.data.text.sequential(IDS, 4, 8), loss=F.cross_entropy, epochs=3, every=every,
        optimizer=tg.optim.Adam(model.parameters(), lr=0.02),
        valid=tg.data.text.sequential(IDS[:100], 2, 8),
        callbacks=[
            T.EarlyStopping(99), T.BestModel(), T.Schedule(tg.optim.schedule.exponential(0.9)),
            T.Schedule(tg.optim.schedule.exponential(0.99), per="step"), T.Log(f"{path}.log", True),
            T.Checkpoint(path, resume=True, **options), *more,
        ],
    )  # fmt: skip
    return model, history


@pytest.mark.parametrize(("number", "steps"), [(5, None), (13, None), (6, 1), (35, 1), (12, 6)])
def test_a_run_with_rows_is_continued_to_the_same_bits(
    number: int, steps: int | None, tmp_path: Path
) -> None:
    whole, history = resumable(tmp_path / "whole", steps=steps)
    assert history["step"] == [6, 12, 18, 24, 30, 36]
    path = tmp_path / "killed"
    with pytest.raises(Killed):
        resumable(path, At(number, kill), steps=steps)
    model, again = resumable(path, steps=steps, seed=1 if not path.exists() else 2)
    assert bits(model) == bits(whole)
    assert without_times(again) == without_times(history)
    logs = [without_times(rows_of(tmp_path / f"{name}.log")) for name in ("whole", "killed")]
    assert logs[0] == logs[1] == without_times(history)
    assert tg.load(path)["fit"]["epoch"] == 3


@pytest.mark.parametrize("number", [1, 6, 12, 36])
def test_ctrl_c_after_the_run_was_saved_loses_no_step(number: int, tmp_path: Path) -> None:
    """Not even where it is pressed between the last callback and the decision to end."""
    whole, _ = resumable(tmp_path / "whole")
    path = tmp_path / "run"
    model, part = resumable(path, At(number, lambda run: signal.raise_signal(signal.SIGINT)))
    saved = tg.load(path)["fit"]
    assert saved["step"] in (number, number + 1)
    parameters = dict(model.named_parameters())
    assert part.stopped == "stopped by Ctrl-C" and saved["stopped"] == ""
    for name, value in saved["model"].items():
        if number < 6:  # later BestModel has restored others
            np.testing.assert_array_equal(value, parameters[name].numpy())
    assert bits(resumable(path)[0]) == bits(whole)


def test_a_limit_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = resumable(tmp_path / "whole")
    clock = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    path = tmp_path / "run"
    _, part = resumable(path, T.TimeLimit(7.5 / 60))
    assert part.stopped == "stopped after 0.125 minutes"
    assert tg.load(path)["fit"]["step"] == 8
    model, rest = resumable(path, T.TimeLimit(1000))
    assert (rest.stopped, bits(model)) == ("", bits(whole))


@pytest.mark.parametrize("schedule", [False, True])
def test_a_new_rate_on_resume(schedule: bool, tmp_path: Path) -> None:
    def run(epochs: int, **options: Any) -> Any:
        half = T.Schedule(tg.optim.schedule.exponential(0.5))
        saving = T.Checkpoint(tmp_path / "run", resume=True, **options)
        return train(*[half] * schedule, saving, epochs=epochs)[1]["lr"]

    factors = [1.0, 0.5, 0.25, 0.125] if schedule else [1.0] * 4
    assert run(2, lr=9.0) == [0.1 * f for f in factors[:2]], "only a continued run has it"
    assert run(3, lr=0.01)[2:] == [0.01 * factors[2]]
    assert run(4)[3:] == [0.01 * factors[3]]


def test_further_entries_of_a_checkpoint(tmp_path: Path) -> None:
    vocab, path = tg.data.text.Vocabulary("abc"), tmp_path / "run"
    train(T.Checkpoint(path, extra={"vocabulary": vocab, "note": "first"}), epochs=1)
    file = tg.load(path)
    assert file["note"] == "first"
    assert len(tg.data.text.Vocabulary.from_state_dict(file["vocabulary"])) == len(vocab)
    train(T.Checkpoint(path, resume=True), epochs=2)
    assert tg.load(path).keys() == {"fit"}


def test_batches_without_a_position_are_saved_after_epochs(tmp_path: Path) -> None:
    def batches() -> Iterator[Any]:
        return iter([(X[i : i + 5], Y[i : i + 5]) for i in range(0, 20, 5)])

    whole, history = train(batches=batches, every=3)
    assert history["epoch"] == [0, 1, 2, 2] and history["step"] == [3, 6, 9, 12]
    path = tmp_path / "run"
    with pytest.raises(Killed):
        train(T.Checkpoint(path), At(7, kill), batches=batches, every=3)
    assert tg.load(path)["fit"]["step"] == 4
    model, again = train(T.Checkpoint(path, resume=True), batches=batches, every=3)
    assert bits(model) == bits(whole)
    assert without_times(again) == without_times(history)


def test_a_file_of_the_first_version_is_continued(tmp_path: Path) -> None:
    """It had one set of sums, and no time of the steps."""
    path, whole = tmp_path / "run", train()[0]
    with pytest.raises(Killed):
        train(T.Checkpoint(path, steps=7), At(7, kill))
    file = tg.load(path)["fit"]
    file["losses"] = file["losses"]["epoch"]
    del file["step_seconds"]
    tg.save(path, fit=file)
    assert bits(train(T.Checkpoint(path, resume=True))[0]) == bits(whole)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_parameters_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """The loss of the step that made them was finite."""
    path = tmp_path / "run"
    message = r"fit: after step 4, the parameter weight is not finite, so the run was not saved"

    def explode(run: T.Run) -> None:
        run.optimizer.lr = 1e300

    class Late(At):
        last = False

    with pytest.raises(FloatingPointError, match=message):
        train(T.Checkpoint(path, steps=1), Late(3, explode))
    assert tg.load(path)["fit"]["step"] == 3


# -- files -----------------------------------------------------------------------------------------


def full_disk(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Let writing fail while the last element is true."""
    full, write = [False], tg.io.checkpoint_file.atomic_write

    def maybe(path: Any) -> Any:
        if full[-1]:
            raise OSError(28, "No space left on device", str(path))
        return write(path)

    monkeypatch.setattr(tg.io.checkpoint_file, "atomic_write", maybe)
    return full


def test_the_best_parameters_are_written_when_there_is_space_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, path = full_disk(monkeypatch), tmp_path / "best"

    def run(empty_at: int) -> None:
        begin, end = (
            At(n, lambda _, now=now: full.append(now)) for n, now in ((5, True), (empty_at, False))
        )
        scores = Score(3.0, 2.0, 1.0, 5.0, 6.0)
        train(scores, T.BestModel("score", path=path), begin, end, epochs=5)

    with pytest.warns(UserWarning, match="BestModel: .*best was not written: .*No space left"):
        run(empty_at=16)
    assert tg.load(path)["figures"]["score"] == 1.0
    assert tg.load(path)["figures"]["epoch"] == 3
    with pytest.warns(UserWarning), pytest.raises(OSError, match="No space left"):
        run(empty_at=99)


def test_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    _, history = train(Score(1.0, 2.0, 3.0), T.Log(path))
    assert rows_of(path) == history
    with pytest.raises(
        ArgumentError, match=r"Log: .*log exists: continue its run with resume=True"
    ):
        train(T.Log(path))
    assert rows_of(path) == history
    _, history = train(T.Log(path, resume=True), epochs=1)
    assert rows_of(path) == history, "another run, without a checkpoint, begins again"


@pytest.mark.parametrize("rest", ['{"step": 3', '{"step": 10, "loss": 7.0}\n', "[]\n", "{}\nx\n"])
def test_a_log_whose_last_rows_came_after_the_last_checkpoint(rest: str, tmp_path: Path) -> None:
    path = tmp_path / "log"

    def run(*more: Any) -> Any:
        return train(T.Log(path, resume=True), T.Checkpoint(tmp_path / "run", resume=True), *more)

    with pytest.raises(Killed):
        run(At(8, kill))
    with path.open("a") as file:
        file.write(rest)
    _, history = run()
    assert rows_of(path) == history


def test_a_log_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, append, calls = tmp_path / "log", tg.training.writer._append, []

    def maybe(path: Path, rows: Any) -> None:
        calls.append(len(rows))
        if len(calls) in (2, 3):
            raise OSError(28, "No space left on device")
        append(path, rows)

    monkeypatch.setattr(tg.training.writer, "_append", maybe)
    with pytest.warns(UserWarning, match="Log: .*log was not written: .*; training continues"):
        _, history = train(T.Log(path), epochs=6)
    assert calls == [1, 1, 2, 3, 1] and rows_of(path) == history


# -- misuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: train(every=0), "fit: every must be a positive integer, got 0"),
        (lambda: train(every=2.5), "fit: every must be a positive integer, got 2.5"),
        (lambda: T.TimeLimit(0), "TimeLimit: minutes"),
        (lambda: T.Log("no/such/log"), "Log: 'no/such/log': no such folder: make it"),
        (lambda: T.Checkpoint("run", lr=-1.0), "Checkpoint: lr must be .*-1"),
        (lambda: T.Checkpoint("run", extra=[1]), r"extra: a dict with names as keys .* got \[1\]"),
        (lambda: T.Checkpoint("run", extra={"fit": 1}), "extra: fit: choose another name"),
    ],
)
def test_a_misuse_is_answered_with_the_cure(act: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        act()


def test_the_loop_and_its_callbacks_are_short() -> None:
    path = Path(__file__).parents[2] / "tools" / "count_lines.py"
    spec = importlib.util.spec_from_file_location("count_lines", path)
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert (
        tool.code_lines(inspect.getsource(importlib.import_module("tinygrad_rnn.training.loop")))
        <= 120
    )
    for value in vars(T).values():
        if isinstance(value, type) and issubclass(value, T.Callback):
            assert tool.code_lines(textwrap.dedent(inspect.getsource(value))) <= 20, value
