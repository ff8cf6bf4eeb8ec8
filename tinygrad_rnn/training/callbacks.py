"""Callbacks of `fit`: early stopping, the best model, saving, clipping, schedules, progress."""

from __future__ import annotations

import copy
import math
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import cuda
from .._util.api_hints import class_name
from .._util.state_keys import check_keys
from ..errors import ArgumentError
from ..io import load, save
from ..optim import schedule as schedules
from ..tensors import checks
from .run import Callback, Run

_Path = str | os.PathLike[str]


class _Monitor(Callback):
    """A callback that follows the best value of a figure."""

    def __init__(self, monitor: str, largest: bool) -> None:
        self.monitor, self.largest, self.best = monitor, largest, math.inf

    def start(self, run: Run) -> None:
        """Raise if there will be no such figure."""
        if self.monitor == "valid_loss" and run.valid is None:
            raise ArgumentError(
                f"{class_name(self)}: it needs validation: pass valid= to fit, or monitor='loss'"
            )

    def _better(self, run: Run, by: float = 0.0) -> bool:
        """Whether the figure is better than all before."""
        if not isinstance(run.figures.get(self.monitor), int | float):
            raise ArgumentError(
                f"{class_name(self)}: no figure {self.monitor!r}: there are "
                f"{', '.join(run.figures)}; a callback that adds one comes before in the list"
            )
        value = run.figures[self.monitor] * (-1 if self.largest else 1)
        found = bool(value < self.best - by)
        self.best = value if found else self.best
        return found


class EarlyStopping(_Monitor):
    """Stop when a figure does not improve for some epochs.

    Parameters
    ----------
    patience : int
        The number of epochs without an improvement after which the run stops.
    monitor : str
        The figure, such as ``"valid_loss"``, ``"loss"``, or one that another callback adds.
    largest : bool
        Whether larger is better, as for an accuracy.
    min_delta : float
        The least improvement that counts.

    Raises
    ------
    ArgumentError
        If an argument is out of range; at the start, if ``valid_loss`` lacks validation;
        after an epoch, if the figure is missing.

    Notes
    -----
    It keeps the last parameters; `BestModel` restores the best ones. The reason is in
    ``history.stopped``. A resumed run that was stopped so is over.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.training.EarlyStopping(patience=3).monitor
    'valid_loss'
    """

    saved = ("best", "waited")

    def __init__(
        self,
        patience: int = 5,
        monitor: str = "valid_loss",
        largest: bool = False,
        min_delta: float = 0.0,
    ) -> None:
        super().__init__(monitor, largest)
        self.patience, self.waited = checks.positive(patience, "EarlyStopping: patience"), 0
        self.min_delta = checks.number(min_delta, "EarlyStopping: min_delta", 0, math.inf)

    def epoch(self, run: Run) -> None:
        """Count the epochs without an improvement."""
        self.waited = 0 if self._better(run, self.min_delta) else self.waited + 1
        if self.waited >= self.patience:
            run.stop(f"stopped early: {self.monitor} did not improve for {self.waited} epochs")


class BestModel(_Monitor):
    """Keep the parameters of the epoch with the best figure; restore them at the end.

    Parameters
    ----------
    monitor : str
        The figure, as of `EarlyStopping`.
    largest : bool
        Whether larger is better.
    path : str or path, optional
        A file for the best parameters, written whenever they improve: ``tg.load(path)["model"]``.

    Raises
    ------
    ArgumentError
        As `EarlyStopping`.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> model, x = tg.nn.Linear(1, 1), tg.ones(4, 1)
    >>> best = tg.training.BestModel()
    >>> history = tg.fit(
    ...     model, [(x, x)], valid=[(x, x)], loss=tg.functional.mse_loss, epochs=5,
    ...     optimizer=tg.optim.SGD(model.parameters(), lr=0.9), callbacks=[best],
    ... )
    >>> best.best == min(history["valid_loss"])
    True
    """

    saved = ("best", "weights")

    def __init__(
        self,
        monitor: str = "valid_loss",
        largest: bool = False,
        path: _Path | None = None,
    ) -> None:
        super().__init__(monitor, largest)
        self.path, self.weights = _checked("BestModel", path), dict[str, Any]()

    def epoch(self, run: Run) -> None:
        """Copy the parameters if the figure is the best."""
        if self._better(run):
            self.weights = copy.deepcopy(run.model.state_dict())
            if self.path is not None and run.writes:
                _save("BestModel", self.path, model=self.weights, figures=run.figures)

    def end(self, run: Run) -> None:
        """Restore the best parameters."""
        if self.weights:
            run.model.load_state_dict(self.weights)


class Checkpoint(Callback):
    """Save the whole run, at the end of each epoch, every few steps and at Ctrl-C; resume it.

    Parameters
    ----------
    path : str or path
        The file. It is replaced atomically: a kill at any moment leaves a complete one.
    steps : int, optional
        Save every so many steps, too, where the batches have a position that can be saved: those
        of `data` and lists, not functions and other iterables.
    resume : bool
        Whether to continue the run in the file, if there is one.

    Raises
    ------
    ArgumentError
        At the start, if the file exists and ``resume=False``; if its run has another model,
        optimizer or batches: the message has the differences; or if `steps` cannot be used.
    OSError
        At the end, if the last attempt to save failed. Until then a failure, such as a full disk,
        is a warning, and training continues.

    Notes
    -----
    A resumed run ends in the same bits as an uninterrupted one; see `save` for the conditions. It
    takes the learning rate, and the state of the callbacks, from the file. A generator of your own,
    from which a function draws its batches, is saved as an attribute of a callback that its
    ``saved`` names.

    Examples
    --------
    >>> import os, tempfile
    >>> import tinygrad_rnn as tg
    >>> path = os.path.join(tempfile.mkdtemp(), "run.ckpt")
    >>> def train(epochs):
    ...     tg.manual_seed(0)
    ...     model, x = tg.nn.Linear(1, 1), tg.rand(8, 1)
    ...     return tg.fit(
    ...         model, tg.data.batches(x, 2 * x, batch_size=4), loss=tg.functional.mse_loss,
    ...         optimizer=tg.optim.Adam(model.parameters()), epochs=epochs,
    ...         callbacks=[tg.training.Checkpoint(path, resume=True)],
    ...     )
    >>> len(train(epochs=2)), len(train(epochs=3))  # the second call trains for one epoch
    (2, 3)
    """

    last = True
    _error: OSError | None = None

    def __init__(self, path: _Path, steps: int | None = None, resume: bool = False) -> None:
        self.steps = None if steps is None else checks.positive(steps, "Checkpoint: steps")
        self.path, self.resume = _checked("Checkpoint", path), resume

    def start(self, run: Run) -> None:
        """Continue the run in the file."""
        _check_checkpoint(self, run)
        if self.path.exists():
            run.load_state_dict(_saved_run(self.path))

    def step(self, run: Run) -> None:
        """Save every few steps, and at Ctrl-C."""
        if run.saveable and (run.interrupted or (self.steps and run.step % self.steps == 0)):
            self.save(run)

    def epoch(self, run: Run) -> None:
        """Save after each epoch."""
        self.save(run)

    def save(self, run: Run) -> None:
        """Save the run now."""
        state = run.state_dict()  # of all processes
        if run.writes:
            self._error = _save("Checkpoint", self.path, fit=state)

    def end(self, run: Run) -> None:
        """Raise if the last attempt to save failed."""
        if self._error is not None:
            raise self._error


class ClipNorm(Callback):
    """Clip the norm of the gradient; see `optim.clip_grad_norm`.

    Parameters
    ----------
    max_norm : float
        The largest norm.

    Raises
    ------
    ArgumentError
        If `max_norm` is not above 0.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.training.ClipNorm(1.0).max_norm
    1.0
    """

    def __init__(self, max_norm: float) -> None:
        self.max_norm = checks.above_zero(max_norm, "ClipNorm: max_norm")

    def start(self, run: Run) -> None:
        """Set the norm of the run."""
        run.max_norm = self.max_norm


class Schedule(Callback):
    """Change the learning rate by a schedule, after each epoch or each step.

    Parameters
    ----------
    schedule : callable
        From the number of epochs or steps to a factor, such as ``optim.schedule.cosine(10)``.
    per : str
        ``"epoch"`` or ``"step"``.

    Raises
    ------
    ArgumentError
        If an argument cannot be used.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> model, x = tg.nn.Linear(1, 1), tg.ones(4, 1)
    >>> history = tg.fit(
    ...     model, [(x, x)], loss=tg.functional.mse_loss, epochs=3,
    ...     optimizer=tg.optim.SGD(model.parameters(), lr=0.8),
    ...     callbacks=[tg.training.Schedule(tg.optim.schedule.exponential(0.5))],
    ... )
    >>> history["lr"]
    [0.8, 0.4, 0.2]
    """

    saved = ("scheduler",)

    def __init__(self, schedule: Callable[[int], float], per: str = "epoch") -> None:
        if not callable(schedule) or per not in ("epoch", "step"):
            raise ArgumentError(
                "Schedule: a function from a number to a factor, such as "
                f"tg.optim.schedule.cosine(10), and per='epoch' or 'step' are expected, got "
                f"{schedule!r:.60} and per={per!r}"
            )
        self.schedule, self.per = schedule, per

    def start(self, run: Run) -> None:
        """Set the first learning rate."""
        self.scheduler = schedules.Scheduler(run.optimizer, self.schedule)

    def step(self, run: Run) -> None:
        """Set the learning rate of the next step."""
        if self.per == "step":
            self.scheduler.step()

    def epoch(self, run: Run) -> None:
        """Set the learning rate of the next epoch."""
        if self.per == "epoch":
            self.scheduler.step()


class Progress(Callback):
    """Print a line of figures for each epoch; within it, a progress bar where tqdm is installed.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> callbacks = [tg.training.Progress(), tg.training.ClipNorm(1.0)]
    """

    _bar: Any = None

    def start(self, run: Run) -> None:
        """Make the bar, which shows itself in a terminal only."""
        tqdm = sys.modules.get("tqdm") or _imported("tqdm")
        if tqdm is not None and run.writes:
            self._bar = tqdm.tqdm(unit=" steps", leave=False, disable=None)

    def step(self, run: Run) -> None:
        """Advance the bar; a first step of the process sets its length."""
        if self._bar is not None:
            if self._bar.total is None and hasattr(run.stream, "__len__"):
                self._bar.total, self._bar.n = run.epochs * len(run.stream), run.step - 1
            self._bar.update()

    def epoch(self, run: Run) -> None:
        """Print the figures."""
        lines = [run.history.header] * (len(run.history) == 1) + [run.history.line(-1)]
        (print if self._bar is None else self._bar.write)("\n".join(lines))

    def end(self, run: Run) -> None:
        """Remove the bar, and print why the run stopped."""
        if self._bar is not None:
            self._bar.close()
        if run.stopped:
            print(run.stopped)


class CudaGraph(Callback):
    """Run the training step on a GPU as one CUDA graph; see `cuda.graph`. No effect on the CPU.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> callbacks = [tg.training.ClipNorm(1.0), tg.training.CudaGraph()]
    """

    def start(self, run: Run) -> None:
        """Replace the function of one step."""
        run.advance = cuda.graph(run.advance)


def _check_checkpoint(saving: Checkpoint, run: Run) -> None:
    if saving.steps and not run.saveable:
        raise ArgumentError(
            f"Checkpoint: steps={saving.steps}: a {class_name(run.batches)} has no position that "
            "can be saved: pass tg.data.batches(...) itself or a list, or leave out steps="
        )
    if saving.path.exists() and not saving.resume:
        raise ArgumentError(
            f"Checkpoint: {saving.path} exists: continue its run with resume=True, or choose "
            "another name"
        )


def _saved_run(path: Path) -> dict[str, Any]:
    file = load(path)
    check_keys(f"Checkpoint: {path}", file, ("fit",))
    run: dict[str, Any] = file["fit"]
    return run


def _checked(name: str, path: Any) -> Any:
    """Return a path whose folder exists, or None."""
    if path is None:
        return None
    if not isinstance(path, str | os.PathLike):
        raise ArgumentError(f"{name}: path: the path of a file is expected, got {path!r:.60}")
    if not Path(path).parent.is_dir() or Path(path).is_dir():
        raise ArgumentError(
            f"{name}: {str(path)!r}: no such folder: make it, or pass a file in one"
        )
    return Path(path)


def _save(name: str, path: Path, **state: Any) -> OSError | None:
    """Write a file; where that fails, as on a full disk, warn and return the error."""
    try:
        save(path, **state)
    except OSError as error:
        warnings.warn(f"{name}: {path} was not saved: {error}; training continues", stacklevel=5)
        return error
    return None


def _imported(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        return None
