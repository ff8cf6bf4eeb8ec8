"""Saving a run and continuing it: the callback `Checkpoint`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .._util.api_hints import class_name
from .._util.state_keys import check_keys
from ..errors import ArgumentError
from ..io import load, save
from ..io.checkpoint_file import check_state
from ..tensors import checks
from .run import Run
from .writer import FilePath, Writer, refuse_existing, writable


class Checkpoint(Writer):
    """Save the whole run, at each row of figures, every few steps and at Ctrl-C; resume it.

    Parameters
    ----------
    path : str or path
        The file. It is replaced atomically: a kill at any moment leaves a complete one.
    steps : int, optional
        Save every so many steps, too, where the batches have a position that can be saved: those
        of `data` and lists, not functions and other iterables, which are saved between epochs.
    resume : bool
        Whether to continue the run in the file, if there is one.
    lr : float, optional
        The learning rate of a continued run, which its schedules multiply. Default: the saved one.
    extra : dict, optional
        Further entries of the file, such as a vocabulary: ``tg.load(path)`` has them and
        ``"fit"``, the run.

    Raises
    ------
    ArgumentError
        At the start, if the file exists and ``resume=False``; if its run has another model,
        optimizer or batches: the message has the differences; or if an argument cannot be used.
    OSError
        At the end, if the last attempt to save failed. Until then a failure, such as a full disk,
        is a warning, training continues, and the next time tries again.
    FloatingPointError
        If a parameter is not finite; the file keeps the last run that was.

    Notes
    -----
    A resumed run ends in the same bits as an uninterrupted one; see `save` for the conditions. It
    takes the state of the callbacks from the file. A generator of your own, from which a function
    draws its batches, is saved as an attribute of a callback that its ``saved`` names.

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

    def __init__(
        self, path: FilePath, steps: int | None = None, resume: bool = False,
        lr: float | None = None, extra: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.path, self.resume, self.extra = writable("Checkpoint", path), resume, _entries(extra)
        self.steps = math.inf if steps is None else checks.positive(steps, "Checkpoint: steps")
        self.lr = None if lr is None else checks.number(lr, "Checkpoint: lr", 0, math.inf)

    def start(self, run: Run) -> None:
        """Continue the run in the file."""
        _continue(run, self)

    def step(self, run: Run) -> None:
        """Save every few steps, and at Ctrl-C."""
        self.save(run, run.saveable and (run.interrupted or run.step % self.steps == 0))

    def report(self, run: Run) -> None:
        """Save with each row of figures."""
        self.save(run, run.saveable)

    def epoch(self, run: Run) -> None:
        """Save at the end; and after each epoch if the run cannot be saved within one."""
        self.save(run, not run.saveable or run.interrupted or run.epoch == run.epochs)

    def save(self, run: Run, when: bool = True) -> None:
        """Save the run now."""
        if when:
            self.attempt(run, save, self.path, fit=run.state_dict(), **self.extra)


def _continue(run: Run, saving: Checkpoint) -> None:
    """Load the run in the file, if there is one, or raise."""
    saving.error = None
    if saving.steps < math.inf and not run.saveable:
        raise ArgumentError(
            f"Checkpoint: steps={saving.steps}: a {class_name(run.batches)} has no position that "
            "can be saved: pass tg.data.batches(...) itself or a list, or leave out steps="
        )
    # Raise now, not after the first epoch.
    check_state({"fit": run.state_dict(), **saving.extra})
    refuse_existing(saving.path, saving.resume, "Checkpoint")
    if not saving.path.exists():
        return
    file = load(saving.path)
    check_keys(f"Checkpoint: {saving.path}", {"fit": 0} if "fit" in file else file, ("fit",))
    run.load_state_dict(file["fit"])
    if saving.lr is not None:
        rate = run.optimizer._scheduled
        if rate is not None:
            rate.base = saving.lr
        run.optimizer.lr = saving.lr if rate is None else rate.value()


def _entries(extra: Any) -> Any:
    extra = {} if extra is None else extra
    if not isinstance(extra, Mapping) or not all(isinstance(name, str) for name in extra):
        raise ArgumentError(
            f"Checkpoint: extra: a dict with names as keys is expected, got {extra!r:.60}"
        )
    if taken := {"fit", "path"} & {*extra}:
        raise ArgumentError(f"Checkpoint: extra: {', '.join(taken)}: choose another name")
    return extra
