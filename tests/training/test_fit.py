"""`fit`: it trains as a loop written by hand, to the bit, and a resumed run as one in one piece."""

from __future__ import annotations

import functools
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, MissingExtraError
from tinygrad_rnn.training import losses as losses_module

F, T = tg.functional, tg.training
ROOT = Path(tg.__file__).parents[1]
IDS = np.arange(400) * 7 % 11
X = np.linspace(-1, 1, 60, dtype=np.float32).reshape(20, 3)
Y = X.sum(axis=1, keepdims=True)


def language_model(cell: Any = tg.nn.LSTMCell, **options: Any) -> tg.models.RecurrentLM:
    return tg.models.RecurrentLM(cell, 11, 6, embedding_dim=4, **options)


def bits(model: tg.nn.Module) -> list[bytes]:
    return [p.numpy().tobytes() for p in model.parameters()]


def plain(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a checkpoint, arrays as bytes, without times."""
    if isinstance(tree, dict | list | tuple):
        for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree):
            if key not in ("seconds", "step_seconds"):
                yield from plain(item, f"{path}.{key}")
    else:
        yield path, tree.tobytes() if isinstance(tree, np.ndarray) else tree


def saved(path: Path) -> dict[str, Any]:
    return dict(plain(tg.load(path)))


class At(T.Callback):
    """Act after a certain step."""

    def __init__(self, number: int, act: Callable[[Any], Any]) -> None:
        self.number, self.act = number, act

    def step(self, run: T.Run) -> None:
        if run.step == self.number:
            self.act(run)


class Keep(T.Callback):
    saved = ("rng",)

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng


class Killed(Exception):
    pass


def kill(run: T.Run) -> None:
    raise Killed


# -- the loop --------------------------------------------------------------------------------------


def streams() -> dict[str, Callable[[], Any]]:
    text = tg.data.text
    return {
        "sequential": lambda: text.sequential(IDS, 4, 8),
        "sequential, rng=3": lambda: text.sequential(IDS, 4, 8, rng=np.random.default_rng(3)),
        "random": lambda: text.random(IDS, 4, 8, drop_last=False),
        "truncated": lambda: tg.bptt.Truncated(8).windows(IDS, batch_size=4),
        "randomized": lambda: tg.bptt.Randomized(0.8).windows(IDS, batch_size=4),
    }


@pytest.mark.parametrize("factory", [False, True])
@pytest.mark.parametrize("kind", streams())
def test_it_trains_as_a_loop_that_is_written_by_hand(kind: str, factory: bool) -> None:
    """Also where the state is carried: from window to window of a stream, and nowhere else."""

    def setup() -> Any:
        tg.manual_seed(4)
        model = language_model(dropout=0.2)
        return model, tg.optim.Adam(model.parameters(), lr=0.01), streams()[kind]

    model, optimizer, make = setup()
    ours = bits(model)
    history = tg.fit(
        model, make if factory else make(), loss=F.cross_entropy, optimizer=optimizer, epochs=2,
        callbacks=[T.ClipNorm(0.5)],
    )  # fmt: skip
    assert ours != bits(model)
    ours, step = bits(model), 0

    model, optimizer, make = setup()
    stream = None
    for epoch in range(2):
        stream = make() if factory or stream is None else stream.next_epoch()
        state, total, count = None, 0.0, 0
        for batch in stream:
            x, y = batch[:2]
            options = {"bptt": batch.bptt} if hasattr(batch, "bptt") else {}
            state = None if kind == "random" else tg.bptt.detach(state)
            output, state = model(x, state, **options)
            loss = F.cross_entropy(output, y)
            optimizer.zero_grad()
            loss.backward()
            tg.optim.clip_grad_norm(model.parameters(), 0.5)
            optimizer.step()
            total, count, step = total + loss.item() * y.size, count + y.size, step + 1
        assert history[epoch]["loss"] == total / count
        assert history[epoch]["step"] == step
    assert bits(model) == ours


def test_a_model_without_a_state_on_shuffled_rows() -> None:
    tg.manual_seed(0)
    model = tg.nn.Linear(3, 1)
    batches = tg.data.batches(X, Y, batch_size=6)
    history = tg.fit(
        model, batches, loss=F.mse_loss, optimizer=tg.optim.Adam(model.parameters(), lr=0.05),
        epochs=60, valid=tg.data.batches(X, Y, batch_size=7, shuffle=False),
    )  # fmt: skip
    assert history["valid_loss"][-1] < 1e-3 < history["valid_loss"][0]
    with tg.no_grad():
        assert history[-1]["valid_loss"] == pytest.approx(F.mse_loss(model(tg.tensor(X)), Y).item())
    assert history["epoch"] == list(range(1, 61))
    assert history[-1]["step"] == 240


def test_padding_does_not_count() -> None:
    """The mean loss of validation is that of the model's own score, with labels -1 as padding."""
    tg.manual_seed(0)
    model = language_model()
    history = tg.fit(
        model, tg.data.text.sequential(IDS, 4, 8), epochs=1,
        loss=functools.partial(F.cross_entropy, ignore_index=-1),
        valid=tg.data.text.evaluation(IDS[:101], 3, 8),
        optimizer=tg.optim.SGD(model.parameters(), lr=0.1),
    )  # fmt: skip
    lengths, total = [], 0.0
    with model.evaluating(), tg.no_grad():
        state = None
        for x, y in tg.data.text.evaluation(IDS[:101], 3, 8):
            logits, state = model(x, state)
            losses = F.cross_entropy(logits, y, reduction="none", ignore_index=-1).numpy()
            total, _ = total + losses.sum(), lengths.append((y.numpy() >= 0).sum())
    assert len({*lengths}) > 1 and sum(lengths) == 100
    assert history[0]["valid_loss"] == pytest.approx(total / 100, rel=1e-6)


def test_the_epochs_of_one_seed_are_in_different_orders() -> None:
    """Batches with ``rng=`` are drawn again for each epoch, and their generator is saved."""
    stream = tg.data.batches(np.arange(50), batch_size=50, rng=7)
    orders = [tuple(next(stream)[0].numpy().tolist())]
    middle = stream.state_dict()
    for _ in range(3):
        orders.append(tuple(next(stream.next_epoch())[0].numpy().tolist()))
    assert len(set(orders)) == 4
    again = tg.data.batches(np.arange(50), batch_size=50, rng=0)
    again.load_state_dict(middle)
    assert [tuple(next(again.next_epoch())[0].numpy().tolist()) for _ in range(3)] == orders[1:]


@pytest.mark.parametrize("rng", [None, {}, {"bit_generator": "PCG64"}, {"bit_generator": "SFC64"}])
def test_a_wrong_state_of_the_generator_of_batches_changes_nothing(rng: Any) -> None:
    stream = tg.data.batches(np.arange(50), batch_size=5, rng=7)
    before = stream.state_dict()
    with pytest.raises(ArgumentError, match="batches: load_state_dict: rng must be the state of a"):
        stream.load_state_dict(before | {"rng": rng, "position": 3})
    np.testing.assert_equal(stream.state_dict(), before)


def test_a_stream_that_was_read_begins_again() -> None:
    tg.manual_seed(0)
    model = tg.nn.Linear(3, 1)
    train, valid = tg.data.batches(X, Y, batch_size=5), tg.data.batches(X, Y, batch_size=5)
    options = {"loss": F.mse_loss, "optimizer": tg.optim.SGD(model.parameters(), lr=0.0)}
    next(train), list(valid)
    first = tg.fit(model, train, epochs=2, valid=valid, **options)
    second = tg.fit(model, train, epochs=1, valid=valid, **options)
    assert first["step"] == [4, 8] and second["step"] == [4]
    assert len({*first["valid_loss"]}) == 1, "validation has other batches"


def test_parameters_outside_of_the_optimizer_keep_their_values_and_no_gradient() -> None:
    model = tg.nn.Sequential(tg.nn.Linear(3, 2), tg.nn.Linear(2, 1))
    first, optimizer = bits(model[0]), tg.optim.SGD(model[1].parameters(), lr=0.1)
    tg.fit(model, [(X, Y)] * 3, loss=F.mse_loss, optimizer=optimizer, epochs=2)
    assert bits(model[0]) == first
    one = model[0].weight.grad.numpy()
    optimizer.zero_grad(), model.zero_grad()
    assert np.abs(one).max() < 10, "the gradients of the steps were added"


# -- losses that are not finite --------------------------------------------------------------------


def wrong_at(number: int, what: str) -> Callable[..., tg.Tensor]:
    """Return a loss that is nan, or whose gradient is, at one step."""
    calls = []

    def loss(output: tg.Tensor, y: Any) -> tg.Tensor:
        value = F.mse_loss(output, y)
        calls.append(None)
        if len(calls) < number:
            return value
        if what == "loss":
            return value * math.nan
        return value + tg.sqrt((output * 0.0) ** 2).sum()  # the derivative of sqrt at 0: 0 · inf

    return loss


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("what", ["loss", "norm"])
@pytest.mark.parametrize("number", [1, 5, 70])
def test_a_step_that_is_not_finite_leaves_the_parameters(
    device: str, what: str, number: int
) -> None:
    """On a GPU, those of the last check: the host must not wait for the device at each step."""
    tg.manual_seed(0)
    batches = [(tg.tensor(X, device=device), tg.tensor(Y, device=device))]

    def train(loss: Any, steps: int) -> Any:
        model = tg.nn.Linear(3, 1, rng=0, device=device)
        adam = tg.optim.Adam(model.parameters(), lr=0.01)
        try:
            if steps:
                tg.fit(model, batches * steps, loss=loss, optimizer=adam, epochs=1)
        finally:
            found.append((bits(model), str(adam.state_dict())))

    found: list[Any] = []
    with pytest.raises(FloatingPointError) as error:
        train(wrong_at(number, what), 100)
    after = number - 1 if device == "cpu" else (number - 1) // 32 * 32
    assert f"fit: step {number}: the loss is" in str(error.value)
    assert f"those after step {after}: use a smaller learning rate" in str(error.value)
    if device == "cpu":
        assert ("multiply" in str(error.value)) or ("sqrt" in str(error.value)), str(error.value)
    train(F.mse_loss, after)
    assert found[0] == found[1]


def test_a_device_is_read_every_32_steps_only(
    accelerator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    read = losses_module.read_together
    monkeypatch.setattr(
        losses_module, "read_together", lambda values: (reads.append(len(values)), read(values))[1]
    )
    items = []
    monkeypatch.setattr(tg.Tensor, "item", lambda self: items.append(self))
    model = tg.nn.Linear(3, 1, device=accelerator)
    batches = [(tg.tensor(X, device=accelerator), tg.tensor(Y, device=accelerator))] * 70
    tg.fit(model, batches, loss=F.mse_loss, optimizer=tg.optim.Adam(model.parameters()), epochs=1)
    assert reads == [32] * 6 + [6] * 3  # losses, norms, and the numbers of labels
    assert not items


def test_a_loss_of_validation_that_is_not_finite() -> None:
    model = tg.nn.Linear(3, 1)
    with pytest.raises(FloatingPointError, match="the loss of validation is nan: use a smaller"):
        tg.fit(
            model, [(X, Y)], valid=[(X, Y * np.nan)], loss=F.mse_loss, epochs=1,
            optimizer=tg.optim.SGD(model.parameters(), lr=0.1),
        )  # fmt: skip


# -- resuming --------------------------------------------------------------------------------------


def resumable(kind: str, path: Path, more: Any = (), epochs: int = 3, seed: int = 1) -> Any:
    """Train with everything that has a state."""
    tg.manual_seed(seed)
    model = language_model(tg.nn.GRUCell, num_layers=2, dropout=0.3)
    make = streams()[kind.removeprefix("factory of ")]
    history = tg.fit(
        model,
        make if kind.startswith("factory") else make(),
        loss=F.cross_entropy,
        optimizer=tg.optim.Adam(model.parameters(), lr=0.02),
        epochs=epochs,
        valid=tg.data.text.random(IDS[:100], 2, 8),
        callbacks=[
            T.Checkpoint(path, None if kind.startswith("factory") else 4, resume=True),
            T.EarlyStopping(patience=50),
            T.BestModel(),
            T.Schedule(tg.optim.schedule.exponential(0.99), per="step"),
            T.Schedule(tg.optim.schedule.exponential(0.5)),
            T.ClipNorm(1.0),
            *more,
        ],
    )
    return model, history


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        *((kind, "kill") for kind in [*streams(), "factory of sequential", "factory of random"]),
        *((kind, "Ctrl-C") for kind in ("sequential", "randomized", "factory of random")),
    ],
)
def test_a_run_that_ends_at_any_step_is_continued_to_the_same_bits(
    kind: str, how: str, tmp_path: Path
) -> None:
    whole, history = resumable(kind, tmp_path / "whole")
    steps = history[-1]["step"]
    for number in (1, 7, steps // 3, steps):  # in the first epoch, at its end, at the end
        path = tmp_path / f"{number}"
        if how == "kill":
            with pytest.raises(Killed):
                resumable(kind, path, [At(number, kill)])
        else:
            _, part = resumable(kind, path, [At(number, lambda _: signal.raise_signal(2))])
            assert part.stopped == "stopped by Ctrl-C" and len(part) <= 3
            if path.exists():
                reached = number if not kind.startswith("factory") else part[-1]["step"]
                assert tg.load(path)["fit"]["step"] == reached
        model, again = resumable(kind, path, seed=1 + 7 * path.exists())
        assert bits(model) == bits(whole)
        assert saved(path) == saved(tmp_path / "whole")
        assert dict(plain(list(again))) == dict(plain(list(history)))
    resumable(kind, tmp_path / "whole", epochs=4)
    _, history = resumable(kind, tmp_path / "in one piece", epochs=4)
    assert saved(tmp_path / "whole") == saved(tmp_path / "in one piece")


@given(number=st.integers(1, 8), batch_size=st.integers(2, 9))
@settings(max_examples=15, deadline=None)
def test_a_generator_of_the_caller_is_continued(
    tmp_path_factory: pytest.TempPathFactory, number: int, batch_size: int
) -> None:
    folder = tmp_path_factory.mktemp("run")

    def train(name: str, *more: Any, seed: int = 5) -> Any:
        rng = np.random.default_rng(seed)

        def batches() -> Iterator[Any]:
            noise = rng.normal(size=X.shape).astype(np.float32)
            return tg.data.batches(X + noise, Y, batch_size=batch_size, rng=rng)

        model = tg.nn.Linear(3, 1, rng=0)
        tg.fit(
            model, batches, loss=F.mse_loss, epochs=4,
            optimizer=tg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
            callbacks=[T.Checkpoint(folder / name, resume=True), Keep(rng), *more],
        )  # fmt: skip
        return bits(model)

    whole = train("whole")
    with pytest.raises(Killed):
        train("killed", At(number, kill))
    assert train("killed", seed=6 if (folder / "killed").exists() else 5) == whole


def test_batches_without_a_position_are_saved_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    class Loader:  # another library's, that can be read many times
        def __iter__(self) -> Iterator[Any]:
            yield from [(X[i : i + 5], Y[i : i + 5]) for i in range(0, 20, 5)]

    def train(name: str, *more: Any) -> Any:
        model = tg.nn.Linear(3, 1, rng=0)
        tg.fit(
            model, Loader(), loss=F.mse_loss, epochs=3,
            optimizer=tg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
            callbacks=[T.Checkpoint(tmp_path / name, resume=True), *more],
        )  # fmt: skip
        return bits(model)

    whole = train("whole")
    train("part", At(6, lambda run: run.interrupt()))
    assert tg.load(tmp_path / "part")["fit"]["step"] == 4
    assert train("part") == whole


SCRIPT = """
    import functools
    import sys
    import numpy as np
    import tinygrad_rnn as tg

    tg.manual_seed(0)
    ids = np.arange(3000) * 7 % 11
    model = tg.models.RecurrentLM(tg.nn.LSTMCell, 11, 16, embedding_dim=4, dropout=0.2)
    class Say(tg.training.Callback):
        def step(self, run):
            print("step", run.step, flush=True)
    print(tg.fit(
        model,
        tg.data.text.sequential(ids, 4, 16),
        loss=functools.partial(tg.functional.cross_entropy, ignore_index=-1),
        optimizer=tg.optim.Adam(model.parameters()),
        epochs=3,
        valid=tg.data.text.evaluation(ids[:300], 2, 16),
        callbacks=[
            tg.training.Checkpoint(sys.argv[1], steps=1, resume=True),
            tg.training.BestModel(),
            tg.training.Schedule(tg.optim.schedule.cosine(200), per="step"),
            Say(),
        ],
    ))
"""


def test_a_run_that_is_killed_in_another_process_is_continued_to_the_same_bits(
    tmp_path: Path,
) -> None:
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(SCRIPT))

    def start(name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / name)],
            stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    start("whole").communicate()
    for lines in (5, 31, 50):
        process = start("killed")
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        process.kill()
        process.communicate()
    assert 60 < tg.load(tmp_path / "killed")["fit"]["step"] < 138
    start("killed").communicate()
    assert saved(tmp_path / "killed") == saved(tmp_path / "whole")


# -- Ctrl-C ----------------------------------------------------------------------------------------


def test_a_second_ctrl_c_is_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    pressed: list[int] = []
    with T.ctrl_c(lambda: pressed.append(1)):
        signal.raise_signal(signal.SIGINT)
        assert pressed == [1]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_thread_trains_too() -> None:
    """Where no signal can be handled."""
    found: list[Any] = []

    def train() -> None:
        model = tg.nn.Linear(3, 1)
        adam = tg.optim.Adam(model.parameters())
        found.append(tg.fit(model, [(X, Y)], loss=F.mse_loss, optimizer=adam, epochs=2))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert len(found[0]) == 2


# -- callbacks -------------------------------------------------------------------------------------


class Script(T.Callback):
    """Give the epochs certain figures."""

    def __init__(self, *figures: float) -> None:
        self.figures = figures

    def epoch(self, run: T.Run) -> None:
        run.figures["score"] = self.figures[run.epoch - 1]
        with tg.no_grad():
            run.model.bias[0] = float(run.epoch)


def scripted(*figures: float, callbacks: Any, **options: Any) -> Any:
    model = tg.nn.Linear(3, 1)
    rate = tg.optim.SGD(model.parameters(), lr=0.0)
    history = tg.fit(
        model, [(X, Y)], loss=F.mse_loss, optimizer=rate, epochs=len(figures),
        callbacks=[Script(*figures), *callbacks], **options,
    )  # fmt: skip
    return model, history


@given(figures=st.lists(st.floats(-5, 5), min_size=1, max_size=12), patience=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_early_stopping_and_the_best_model(figures: list[float], patience: int) -> None:
    for sign in (1, -1):
        scores = [sign * figure for figure in figures]
        options: dict[str, Any] = {"monitor": "score", "largest": sign < 0}
        model, history = scripted(
            *scores, callbacks=[T.EarlyStopping(patience, **options), T.BestModel(**options)]
        )
        seen = figures[: len(history)]
        best = seen.index(min(seen))
        assert model.bias.item() == best + 1
        if len(history) < len(figures):
            assert len(history) == best + 1 + patience
            assert history.stopped.startswith("stopped early: score did not improve for")
        else:
            assert len(history) <= best + 1 + patience


def test_the_best_parameters_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "best"
    scripted(3.0, 1.0, 2.0, callbacks=[T.BestModel("score", path=path)])
    assert tg.load(path)["model"]["bias"] == [2.0]
    assert tg.load(path)["figures"]["score"] == 1.0


def test_a_run_that_stopped_early_is_over(tmp_path: Path) -> None:
    def train() -> Any:
        saving = T.Checkpoint(tmp_path / "run", resume=True)
        return scripted(*range(9), callbacks=[T.EarlyStopping(2, "score"), saving])[1]

    assert len(train()) == 3
    assert len(again := train()) == 3
    assert again.stopped == "stopped early: score did not improve for 2 epochs"


def test_a_schedule_by_steps_and_by_epochs() -> None:
    half, seen = tg.optim.schedule.exponential(0.5), []

    class Watch(T.Callback):
        def step(self, run: T.Run) -> None:
            seen.append(run.optimizer.lr)

    for per in ("step", "epoch"):
        model = tg.nn.Linear(3, 1)
        rate = tg.optim.SGD(model.parameters(), lr=1e-3)
        tg.fit(
            model, [(X, Y)] * 2, loss=F.mse_loss, optimizer=rate, epochs=2,
            callbacks=[Watch(), T.Schedule(half, per=per)],
        )  # fmt: skip
    assert [rate / 1e-3 for rate in seen] == pytest.approx([1, 0.5, 0.25, 0.125, 1, 1, 0.5, 0.5])


def test_a_disk_that_is_full_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, full = tg.io.checkpoint_file.atomic_write, [False]

    def maybe(path: Any) -> Any:
        if full[0]:
            raise OSError(28, "No space left on device", str(path))
        return write(path)

    monkeypatch.setattr(tg.io.checkpoint_file, "atomic_write", maybe)
    path = tmp_path / "run"

    def fill(at: int, *, empty: int) -> list[T.Callback]:
        return [At(at, lambda _: full.append(full.clear() or True)),
                At(empty, lambda _: full.append(full.clear() or False))]  # fmt: skip

    def train(*more: Any) -> Any:
        model = tg.nn.Linear(3, 1)
        rate = tg.optim.SGD(model.parameters(), lr=0.1)
        return tg.fit(
            model, [(X, Y)], loss=F.mse_loss, optimizer=rate, epochs=5,
            callbacks=[T.Checkpoint(path, resume=True), *more],
        )  # fmt: skip

    with pytest.warns(UserWarning, match=r"run was not written: .*No space left"):
        assert len(train(*fill(2, empty=4))) == 5
    assert tg.load(path)["fit"]["epoch"] == 5
    path.unlink()
    with (
        pytest.warns(UserWarning, match=r"run was not written: .*No space left"),
        pytest.raises(OSError, match="No space left"),
    ):
        train(*fill(3, empty=9))
    assert tg.load(path)["fit"]["epoch"] == 2


def test_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for installed in (True, False):
        if not installed:
            monkeypatch.setitem(sys.modules, "tqdm", None)
        scripted(1.0, 2.0, 0.5, callbacks=[T.Progress(), T.EarlyStopping(1, "score")])
        out = capsys.readouterr().out.splitlines()
        assert out[0].split() == [
            "epoch",
            "step",
            "loss",
            "gradient_norm",
            "lr",
            "seconds",
            "score",
        ]
        assert [line.split()[0] for line in out[1:3]] == ["1", "2"]
        assert out[3].startswith("stopped early")
        assert len({len(line) for line in out[:3]}) == 1


# -- the history -----------------------------------------------------------------------------------


def test_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.5, "valid_loss": 1.75}]
    history = T.History(rows)
    assert history == rows and history["valid_loss"] == [None, 1.75]
    table = str(history).splitlines()
    assert [line.split() for line in table] == [
        ["epoch", "loss", "valid_loss"], ["1", "2.0000", "-"], ["2", "1.5000", "1.7500"],
    ]  # fmt: skip
    with pytest.raises(ArgumentError, match="no figure 'accuracy': there are epoch, loss, valid"):
        history["accuracy"]
    assert str(T.History()) == "no epoch yet"

    figure = history.plot(path=tmp_path / "curve.svg")
    assert [line.get_label() for line in figure.axes[0].lines] == ["loss", "valid_loss"]
    assert (tmp_path / "curve.svg").stat().st_size > 1000
    assert len(history.plot("loss").axes[0].lines) == 1
    with pytest.raises(ArgumentError, match=r"History\.plot: nothing to plot: train for an epoch"):
        T.History().plot()

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="pip install pandas"):
        history.to_pandas()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"tinygrad-rnn\[plot\]"):
        history.plot()

    class Pandas:
        DataFrame = staticmethod(lambda rows: ("frame", rows))

    monkeypatch.setitem(sys.modules, "pandas", Pandas)
    assert history.to_pandas() == ("frame", rows)


def test_callbacks_that_another_run_used_begin_again(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)

    def train(epochs: int, callbacks: list[Any]) -> tuple[Any, ...]:
        tg.manual_seed(1)
        model = tg.nn.Linear(2, 1)
        history = tg.fit(
            model, [(x, x[:, :1])], valid=[(x, x[:, :1])], loss=tg.functional.mse_loss,
            epochs=epochs, optimizer=tg.optim.SGD(model.parameters(), lr=0.1), callbacks=callbacks,
        )  # fmt: skip
        lines = (tmp_path / "log").read_text().splitlines()
        return history["valid_loss"], history.stopped, len(lines), model.weight.numpy().tolist()

    def new() -> list[Any]:
        log = tg.training.Log(tmp_path / "log", resume=True)
        return [tg.training.EarlyStopping(2), tg.training.BestModel(), log]

    used = new()
    train(30, used)
    assert train(3, used) == train(3, new())


@pytest.mark.parametrize("per", ["epoch", "step"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_schedule_of_a_next_run_begins_from_the_base(per: str, number: int) -> None:
    model, x = tg.nn.Linear(1, 1), np.ones((4, 1), np.float32)
    sgd = tg.optim.SGD(model.parameters(), lr=0.5)
    theirs = tg.optim.schedule.Scheduler(sgd, tg.optim.schedule.constant(0.5))

    def rates(*callbacks: Any) -> list[float]:
        options = {"loss": tg.functional.mse_loss, "optimizer": sgd, "epochs": 3}
        return tg.fit(model, [(x, x)], callbacks=callbacks, **options)["lr"]  # type: ignore[arg-type]

    schedules = [tg.training.Schedule(tg.optim.schedule.cosine(3), per) for _ in range(number)]
    first = rates(*schedules)
    assert 0 < first[0] <= 0.25 and sgd.lr == 0
    assert rates() == [0, 0, 0]  # the last rate is kept
    assert rates(*schedules) == first
    theirs.base_lr = 1.0
    assert rates(*schedules) == [2 * rate for rate in first]
    sgd.lr = 0.125
    assert rates(*schedules) == pytest.approx([rate / 2 for rate in first])
