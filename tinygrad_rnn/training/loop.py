"""`fit`: the training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from .. import random as tg_random
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from ..nn import Module
from ..optim import Optimizer
from . import arguments
from .history import History
from .interrupt import ctrl_c
from .losses import refuse
from .run import Callback, Run
from .step import mean_loss


def fit(
    model: Module, batches: Any, *, loss: Callable[..., Tensor], optimizer: Optimizer,
    epochs: int, valid: Any = None, every: int | None = None, callbacks: Sequence[Callback] = (),
) -> History:  # fmt: skip
    """Train a model.

    Each batch is a tuple: inputs of the model, and labels at its end. A step computes
    ``loss(model(*inputs), labels)``, its gradient, and the update of the optimizer. An epoch is
    over when the batches are.

    Parameters
    ----------
    model : Module
        If its ``forward`` has an argument ``state``, it returns the output and the next state. The
        state is carried from batch to batch, detached, if the batches have a true attribute
        ``carries_state``, as those of `data.text.sequential` and of a strategy's ``windows``. Else
        each batch starts from the initial state.
    batches : ResumableIterator, list of tuples, iterable, or callable
        `data.batches`, `data.text.sequential` and the like draw again in each epoch. A function
        without arguments is called in each epoch and returns its batches.
    loss : callable
        From the output and the labels to their mean loss, a Tensor of shape ().
    optimizer : Optimizer
        Of parameters of the model.
    epochs : int
        The number of epochs, those of a resumed run included.
    valid : like `batches`, optional
        Held-out batches, the same each time. Their mean loss, in evaluation mode, becomes the
        figure ``valid_loss`` of a row.
    every : int, optional
        The steps from one row of figures to the next, also within an epoch. The last row is at the
        end. Default: a row for each epoch.
    callbacks : sequence of Callback
        Early stopping, saving and resuming and so on: see `training`.

    Returns
    -------
    History
        The rows of figures; prints as a table. The losses are means over the labels: a
        batch counts by the number of elements of its labels, without negative integers, which are
        padding: with `data.text.evaluation` as `valid`, a loss needs ``ignore_index=-1``.

    Raises
    ------
    ArgumentError
        If an argument cannot be used; the message has the cure.
    FloatingPointError
        If a loss or the norm of its gradient is not finite. The parameters are those before this
        step. On a GPU, where a check at each step would wait for the device, the losses are read
        every 32 steps, and the parameters are those of the last check.

    Notes
    -----
    Ctrl-C ends the run after the current step: a `training.Checkpoint` saves it, and `fit` returns.
    A second Ctrl-C raises KeyboardInterrupt at once. The gradients remain after the last step. On a
    GPU the check needs a second copy of the parameters and of the state of the optimizer.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> tg.manual_seed(0)
    >>> x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    >>> model = tg.nn.Linear(1, 1)
    >>> history = tg.fit(
    ...     model,
    ...     tg.data.batches(x, 2 * x + 1, batch_size=16),
    ...     loss=tg.functional.mse_loss,
    ...     optimizer=tg.optim.Adam(model.parameters(), lr=0.1),
    ...     epochs=30,
    ...     callbacks=[tg.training.ClipNorm(1.0)],
    ... )
    >>> history["loss"][-1] < 0.01 < history["loss"][0]
    True
    """
    run = Run(model, batches, loss, optimizer, epochs, valid, callbacks, every)
    with ctrl_c(run.interrupt):
        for callback in run.callbacks:
            callback.start(run)
        over = bool(run.stopped)
        while run.epoch < run.epochs and not over:
            over = _train_epoch(run)
        refuse(run.losses.read())
        for callback in run.callbacks:
            callback.end(run)
    run.history.stopped = run.stopped
    return run.history


def _train_epoch(run: Run) -> bool:
    """Train for an epoch, or for the rest of one; return whether the run is over before its end."""
    if run.stream is None:
        run.stream, run.state = arguments.epoch_of(run.batches), None
        run.losses.epoch.reset()
    carries = run.carries(run.stream)
    run.model.train()
    for batch in run.stream:
        _step(run, batch, carries)
        if run.every and run.step % run.every == 0:
            _add_row(run)
            over = _call(run, "step", "report")
        else:
            over = _call(run, "step")
        if over:
            return True
    return _end_epoch(run)


def _step(run: Run, batch: Any, carries: bool) -> None:
    """Take one step of the optimizer."""
    began, random = time.perf_counter(), tg_random.get_state()
    inputs, labels, options = arguments.parts("batches", batch)
    before = run.state
    loss, norm, count, state = run.advance(inputs, labels, before, options, run.max_norm)
    bad = run.losses.add(run.step + 1, loss, norm, count)
    if bad is not None:
        tg_random.set_state(random)
        refuse(bad, lambda: run.forward(inputs, labels, before, options))
    run.state = state if carries else None
    run.step += 1
    run.step_seconds += time.perf_counter() - began


def _end_epoch(run: Run) -> bool:
    """Count the epoch; return whether the run is over before its last one."""
    _read_losses(run)
    if not run.losses.epoch.count:
        raise ArgumentError("fit: batches: an epoch has none: use a smaller batch_size")
    run.epoch, run.stream = run.epoch + 1, None
    if run.every and (run.epoch < run.epochs or not run.losses.recent.count):
        return _call(run, "epoch")
    _add_row(run)
    return _call(run, "report", "epoch")


def _read_losses(run: Run) -> None:
    """Wait for the losses that are still on a device; raise if one is not finite."""
    began = time.perf_counter()
    refuse(run.losses.read())
    run.step_seconds += time.perf_counter() - began


def _add_row(run: Run) -> None:
    """Validate, and add the figures since the last row to the history."""
    _read_losses(run)
    recent = run.losses.recent
    epoch: float = run.epoch
    if hasattr(run.stream, "__len__"):  # the length of the epoch that has begun is known
        epoch += run.losses.epoch.steps / len(run.stream)
    run.figures = {"epoch": epoch, "step": run.step, "loss": recent.total / recent.count}
    if run.valid is not None:
        run.figures["valid_loss"] = mean_loss(run.model, run.forward, run.carries, run.valid)
    run._tick()
    run.figures |= {"gradient_norm": recent.norms / recent.steps, "lr": run.optimizer.lr}
    run.figures["seconds"] = run.seconds
    run.history.append(run.figures)
    recent.reset()


def _call(run: Run, *names: str) -> bool:
    """Call these methods of each callback; return whether the run is over.

    This is decided before the callbacks that save are called, so that Ctrl-C after them, when the
    state is not saved, ends the run after the next step.
    """
    others, last = run.hooks[names]
    for hook in others:
        hook(run)
    over = bool(run.stopped)
    for hook in last:
        hook(run)
    return over
