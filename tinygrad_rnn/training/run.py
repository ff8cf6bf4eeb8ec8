"""The run of `fit`, which its callbacks see, and the base class of callbacks."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import random as tg_random
from .._util.resumable import ResumableIterator
from .._util.state_keys import check_keys
from ..bptt import restore
from ..engine.tensor import Tensor
from ..errors import ArgumentError, DeviceError, DTypeError, ShapeError
from ..nn import Module
from ..optim import Optimizer
from . import arguments
from .history import History
from .losses import Losses, refuse, refuse_parameters
from .step import Step

_NUMBERS = ("epoch", "step", "seconds", "step_seconds")
_MOMENTS: tuple[tuple[str, ...], ...]  # when methods of callbacks are called
_MOMENTS = (("step",), ("step", "report"), ("report", "epoch"), ("epoch",))


class Callback:
    """Something that `fit` calls during training; a subclass overrides some of the methods.

    Attributes
    ----------
    saved : tuple of str
        The names of the attributes that a checkpoint of the run contains: numbers, strings, arrays,
        lists and dicts of these, generators of NumPy, and objects with a ``state_dict``.
    last : bool
        Whether it is called after the other callbacks, since it saves their state.

    Examples
    --------
    A figure of the validation that is neither the loss nor its mean:

    >>> import tinygrad_rnn as tg
    >>> class WorstError(tg.training.Callback):
    ...     def __init__(self, x, y):
    ...         self.x, self.y = x, y
    ...     def report(self, run):
    ...         with run.model.evaluating(), tg.no_grad():
    ...             run.figures["worst"] = abs(run.model(self.x) - self.y).max().item()
    >>> model, x = tg.nn.Linear(1, 1), tg.ones(4, 1)
    >>> history = tg.fit(
    ...     model, [(x, x)], loss=tg.functional.mse_loss, epochs=2,
    ...     optimizer=tg.optim.SGD(model.parameters(), lr=0.1), callbacks=[WorstError(x, x)],
    ... )
    >>> len(history["worst"])
    2
    """

    saved: tuple[str, ...] = ()
    last = False

    def start(self, run: Run) -> None:
        """Act once, before the first step."""

    def step(self, run: Run) -> None:
        """Act after each step of the optimizer."""

    def report(self, run: Run) -> None:
        """Act after each row of figures and its validation: ``run.figures``."""

    def epoch(self, run: Run) -> None:
        """Act after each epoch; after `report`, unless `fit` has ``every``."""

    def end(self, run: Run) -> None:
        """Act once, when the run ends or is interrupted, but not after an exception."""

    def state_dict(self) -> dict[str, Any]:
        """Return the attributes that are saved."""
        return _saved_values(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the attributes that were saved."""
        check_keys(f"{type(self).__name__}.load_state_dict", state, self.saved)
        for name in self.saved:
            part = getattr(self, name)
            if hasattr(part, "load_state_dict"):
                part.load_state_dict(state[name])
            elif isinstance(part, np.random.Generator):
                part.bit_generator.state = state[name]
            else:
                setattr(self, name, state[name])


def _saved_values(callback: Callback) -> dict[str, Any]:
    name = type(callback).__name__
    saved: Any = callback.saved
    if isinstance(saved, str):
        raise ArgumentError(f"{name}: saved is a tuple of names: write saved = ({saved!r},)")
    for attribute in saved:
        if not hasattr(callback, attribute):
            raise ArgumentError(
                f"{name}: it lacks {attribute!r}, which saved names: set it in __init__ or start"
            )
    values = {attribute: getattr(callback, attribute) for attribute in saved}
    return {n: v.state_dict() if hasattr(v, "state_dict") else v for n, v in values.items()}


def _same(value: Any) -> Any:
    return value


class Run:
    """A training run of `fit`, which its callbacks read and change.

    Attributes
    ----------
    model, optimizer, loss, epochs, valid, every
        The arguments of `fit`.
    epoch, step : int
        The epochs and the steps of the optimizer that are completed.
    seconds, step_seconds : float
        The time until the last row of figures, and that of the steps alone.
    stream : iterator
        The batches of the current epoch.
    figures : dict
        The last row of figures; a callback can add others.
    history : History
        All rows.
    losses : object
        ``losses.epoch`` and ``losses.recent`` are sums over the epoch and since the last row:
        ``total`` of the losses of ``count`` labels, ``norms`` of the gradients in ``steps`` steps.
    max_norm : float
        The largest norm of the gradient.
    advance : callable
        From the inputs, the labels, the state and the options of a batch to the loss, the norm of
        the gradient, the number of labels and the next state: one training step.
    saveable : bool
        Whether the batches have a position that can be saved, in the middle of an epoch.
    interrupted : bool
        Whether Ctrl-C was pressed, or `interrupt` called.
    stopped : str
        Why the run ends before its last epoch; empty if it does not.
    writes : bool
        Whether this process writes files and shows progress, which of several processes one does.
    join, split : callable
        From a recurrent state to the one that is saved, and back: of several processes, each has
        some of the columns.
    agree : callable
        From a value to that of the first of several processes: a callback that stops the run for a
        figure of its own passes the figure, so that all stop.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> class Report(tg.training.Callback):
    ...     def report(self, run):
    ...         print(run.epoch, run.step, sorted(run.figures)[:2])
    >>> model, x = tg.nn.Linear(1, 1), tg.ones(4, 1)
    >>> history = tg.fit(
    ...     model, [(x, x)], loss=tg.functional.mse_loss, epochs=1,
    ...     optimizer=tg.optim.SGD(model.parameters(), lr=0.1), callbacks=[Report()],
    ... )
    1 1 ['epoch', 'gradient_norm']
    """

    def __init__(
        self, model: Module, batches: Any, loss: Callable[..., Tensor], optimizer: Optimizer,
        epochs: int, valid: Any = None, callbacks: Sequence[Callback] = (),
        every: int | None = None,
    ) -> None:  # fmt: skip
        arguments.check(model, loss, optimizer, epochs, every)
        self.model, self.loss, self.optimizer, self.epochs = model, loss, optimizer, epochs
        self.every = every
        self.batches = arguments.as_batches("batches", batches, epochs > 1)
        self.valid = None if valid is None else arguments.as_batches("valid", valid, epochs > 1)
        if isinstance(valid, ResumableIterator) and valid is batches:
            raise ArgumentError(
                "fit: valid: it is the object batches, and an object has one position only: make "
                "the batches of validation by another call"
            )
        if isinstance(self.valid, ResumableIterator):
            arguments.epoch_of(self.valid)  # from the beginning, if it was read before
        self.callbacks: list[Callback] = arguments.in_order(callbacks, Callback)
        arguments.refuse_one_file(self.callbacks)
        self.epoch, self.step, self.max_norm = 0, 0, math.inf
        self.seconds, self.step_seconds = 0.0, 0.0
        self.history, self.stopped, self.interrupted = History(), "", False
        self.figures: dict[str, Any] = {}
        self.stream: Any = None  # the batches of the epoch that has begun
        self.state: Any = None  # the recurrent state after the last batch
        self.advance: Callable[..., Any] = Step(model, loss, optimizer)
        self.saveable = isinstance(self.batches, ResumableIterator)
        self.forward, self.carries = self.advance.forward, self.advance.carries
        self.writes, self.join, self.split, self.agree = True, _same, _same, _same
        self.losses, self._clock = Losses(model, optimizer), time.perf_counter()
        self.hooks = {names: _hooks(self.callbacks, names) for names in _MOMENTS}

    def stop(self, reason: str) -> None:
        """End the run after the current step, for a reason that is shown in its history."""
        self.stopped = self.stopped or reason

    def interrupt(self, reason: str = "stopped by Ctrl-C") -> None:
        """End the run after the current step, as Ctrl-C does; a resumed run continues."""
        self.interrupted = True
        self.stop(reason)

    def _tick(self) -> None:
        """Add the time since the last call."""
        now = time.perf_counter()
        self.seconds, self._clock = self.seconds + now - self._clock, now

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on.

        Raise if a loss or a parameter is not finite.
        """
        refuse(self.losses.read())
        refuse_parameters(self.model, self.optimizer, self.step)
        if self.stream is not None and not self.saveable:
            raise ArgumentError(
                "fit: these batches have no position that can be saved: save at the end of an epoch"
            )
        self._tick()
        saved: dict[str, Any] = {name: getattr(self, name) for name in _NUMBERS}
        for name in ("model", "optimizer", "losses"):
            saved[name] = getattr(self, name).state_dict()
        return saved | {
            "batches": arguments.position(self.batches),
            "valid": arguments.position(self.valid),
            "callbacks": [[type(c).__name__, c.state_dict()] for c in self.callbacks],
            "in_epoch": self.stream is not None,
            "state": self.join(self.state),
            "history": [*self.history],
            "stopped": "" if self.interrupted else self.stopped,
            "random": tg_random.get_state(),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue from a `state_dict`; raise if it does not fit, and change nothing."""
        what = "fit: a run to continue"
        saved = {"step_seconds": saved.get("seconds")} | saved if hasattr(saved, "get") else saved
        before = self.state_dict()  # the line above is for an earlier version
        check_keys(what, saved, before)
        for name in _NUMBERS:
            if not isinstance(saved[name], int | float) or saved[name] < 0:
                raise ArgumentError(f"{what}: {name} is a number >= 0, got {saved[name]!r:.40}")
        before = copy.deepcopy(before)
        try:
            self._load(saved)
        except Exception as error:
            self._load(before)
            self.stopped = before["stopped"]
            if isinstance(error, ArgumentError | ShapeError | DTypeError | DeviceError):
                raise
            raise ArgumentError(f"{what} is damaged, nothing was loaded: {error!r:.200}") from error

    def _load(self, saved: dict[str, Any]) -> None:
        arguments.move("batches", self.batches, saved["batches"])
        arguments.move("valid", self.valid, saved["valid"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.model.load_state_dict(saved["model"])
        self.stream = self.batches if saved["in_epoch"] else None
        self.state = restore(self.split(saved["state"]), next(self.model.parameters()).device)
        for name in _NUMBERS:
            setattr(self, name, saved[name])
        self.stop(saved["stopped"])
        self.losses.load_state_dict(saved["losses"], self.step)
        self.history[:] = saved["history"]
        states = [*saved["callbacks"]]
        for callback in self.callbacks:  # of two callbacks of a class, each finds its own state
            name = type(callback).__name__
            found = next((pair for pair in states if pair[0] == name), None)
            if found is not None:
                states.remove(found)
                callback.load_state_dict(found[1])
        tg_random.set_state(saved["random"])  # last, since the lines above may draw numbers


def plain(value: Any) -> Any:
    """Return a figure as a value of Python: arrays and Tensors of one number become this number."""
    one = getattr(value, "size", None) == 1 and hasattr(value, "item")
    return value.item() if one else value


def _hooks(callbacks: Sequence[Callback], names: Sequence[str]) -> list[list[Any]]:
    """Return these methods of the callbacks that define them; in two lists, those that save last.

    All methods of one callback come before those of the next.
    """
    return [
        [
            getattr(callback, name)
            for callback in callbacks
            for name in names
            if callback.last == last
            and getattr(type(callback), name) is not getattr(Callback, name)
        ]
        for last in (False, True)
    ]
