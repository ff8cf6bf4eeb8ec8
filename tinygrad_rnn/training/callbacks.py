"""Callbacks of `fit`: early stopping, the best model, clipping, schedules, limits, progress."""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Callable
from typing import Any

from .. import cuda
from .._util.api_hints import class_name
from ..errors import ArgumentError
from ..io import save
from ..optim import schedule as schedules
from ..tensors import checks
from .run import Callback, Run, plain
from .writer import FilePath, Writer, writable


class _Monitor(Callback):
    """A callback that follows the best value of a figure."""

    def __init__(self, monitor: str, largest: bool) -> None:
        self.monitor, self.largest, self.best = monitor, largest, math.inf

    def start(self, run: Run) -> None:
        """Begin again, as another run may have used it; raise if there will be no such figure."""
        super().start(run)
        self.best = math.inf
        if self.monitor == "valid_loss" and run.valid is None:
            raise ArgumentError(
                f"{class_name(self)}: it needs validation: pass valid= to fit, or monitor='loss'"
            )

    def _better(self, run: Run, by: float = 0.0) -> bool:
        """Whether the figure is better than all before."""
        figure = plain(run.figures.get(self.monitor))
        if not isinstance(figure, int | float):
            if figure is not None:
                raise ArgumentError(
                    f"{class_name(self)}: the figure {self.monitor!r} is {figure!r:.60}: a number "
                    "is expected"
                )
            raise ArgumentError(
                f"{class_name(self)}: no figure {self.monitor!r}: there are "
                f"{', '.join(run.figures)}; a callback that adds one comes before in the list"
            )
        value = run.agree(figure) * (-1 if self.largest else 1)
        found = bool(value < self.best - by)
        self.best = value if found else self.best
        return found


class EarlyStopping(_Monitor):
    """Stop when a figure does not improve for some epochs.

    Parameters
    ----------
    patience : int
        The number of epochs without an improvement after which the run stops; where `fit` has
        ``every``, the number of rows of figures.
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
        after a row of figures, if this one is missing.

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

    def start(self, run: Run) -> None:
        """Begin to count."""
        super().start(run)
        self.waited = 0

    def report(self, run: Run) -> None:
        """Count the rows without an improvement."""
        self.waited = 0 if self._better(run, self.min_delta) else self.waited + 1
        if self.waited >= self.patience:
            rows = "reports" if run.every else "epochs"
            run.stop(f"stopped early: {self.monitor} did not improve for {self.waited} {rows}")


class BestModel(_Monitor, Writer):
    """Keep the parameters with which a figure was best; restore them at the end.

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
    OSError
        At the end, if the best parameters are in no file. Until then a failure, such as a full
        disk, is a warning, and the next row tries again.

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
        self, monitor: str = "valid_loss", largest: bool = False, path: FilePath | None = None
    ) -> None:  # fmt: skip
        super().__init__(monitor, largest)
        self.path = None if path is None else writable("BestModel", path)

    def start(self, run: Run) -> None:
        """Forget the parameters of another run."""
        super().start(run)
        self.weights, self.figures = dict[str, Any](), dict[str, Any]()

    def report(self, run: Run) -> None:
        """Copy the parameters if the figure is the best."""
        better = self._better(run)
        if better:
            self.weights, self.figures = copy.deepcopy(run.model.state_dict()), {**run.figures}
        if self.path is not None and (better or self.error is not None):
            self.attempt(run, save, self.path, model=self.weights, figures=self.figures)

    def end(self, run: Run) -> None:
        """Restore the best parameters."""
        if self.weights:
            run.model.load_state_dict(self.weights)
        super().end(run)


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

    After the run the rate keeps its last value; a `Schedule` of a next run with the same optimizer
    begins from the base again.

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
        if isinstance(schedule, type) or not callable(schedule) or per not in ("epoch", "step"):
            raise ArgumentError(
                "Schedule: a function from a number to a factor, such as "
                f"tg.optim.schedule.cosine(10), and per='epoch' or 'step' are expected, got "
                f"{schedule!r:.60} and per={per!r}"
            )
        self.schedule, self.per = schedule, per

    def start(self, run: Run) -> None:
        """Set the first learning rate; that of an earlier run with this optimizer is over."""
        self.scheduler = _scheduler(self, run)

    def step(self, run: Run) -> None:
        """Set the learning rate of the next step."""
        if self.per == "step":
            self.scheduler.step()

    def epoch(self, run: Run) -> None:
        """Set the learning rate of the next epoch."""
        if self.per == "epoch":
            self.scheduler.step()


class TimeLimit(Callback):
    """End the run after some minutes as Ctrl-C does: saved, and to be continued.

    Parameters
    ----------
    minutes : float
        The time from the start of `fit`; of a resumed run, from its new start. Of several
        processes, the first whose time is over ends all, after their next step.

    Raises
    ------
    ArgumentError
        If `minutes` is not above 0.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.training.TimeLimit(90).minutes
    90.0
    """

    def __init__(self, minutes: float) -> None:
        self.minutes = checks.above_zero(minutes, "TimeLimit: minutes")

    def start(self, run: Run) -> None:
        """Begin to count."""
        self._end = time.monotonic() + 60 * self.minutes

    def step(self, run: Run) -> None:
        """End the run when the time is over."""
        if time.monotonic() > self._end:
            run.interrupt(f"stopped after {self.minutes:g} minutes")


class Progress(Callback):
    """Print each row of figures; between them, a progress bar where tqdm is installed.

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

    def report(self, run: Run) -> None:
        """Print the figures."""
        self.say("\n".join([run.history.header] * (len(run.history) == 1) + [run.history.line(-1)]))

    def say(self, text: str) -> None:
        """Print a text above the bar."""
        print(text, flush=True) if self._bar is None else self._bar.write(text)

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


def _scheduler(callback: Schedule, run: Run) -> schedules.Scheduler:
    """Return the scheduler of a run; the first one ends those of an earlier run."""
    if callback is next(c for c in run.callbacks if isinstance(c, Schedule)):
        schedules._end_temporary(run.optimizer)
    first = callback.schedule(0)
    checks.number(first, "Schedule: the first factor of the schedule", 0, math.inf)
    scheduler = schedules.Scheduler(run.optimizer, callback.schedule)
    scheduler._end_at_next_run()
    return scheduler


def _imported(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        return None
