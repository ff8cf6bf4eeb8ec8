"""A run of `fit` in several processes, each of which reads some of the columns of every batch."""

from __future__ import annotations

from typing import Any

from ..engine import backend
from ..engine.tensor import wrap
from .run import Callback, Run


class Ranks(Callback):
    """Base class of `distributed.DataParallel`: what `fit` needs to know about the processes.

    Attributes
    ----------
    world : World
        Of `distributed`.
    labels : int
        The number of labels in the last batch of all processes.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> issubclass(tg.distributed.DataParallel, tg.training.ranks.Ranks)
    True
    """

    world: Any
    labels: int

    def gradient(self, function: Any, *batch: Any, state: Any = None, axis: int = 1) -> Any:
        """Replace the gradients by those of a function, of all processes; return loss and state."""
        raise NotImplementedError

    def start(self, run: Run) -> None:
        """Make the gradients, the state and the output of a run those of all processes."""
        axis, forward = getattr(run.batches, "batch_axis", 0), run.forward

        def gradient(inputs: Any, labels: Any, state: Any, options: Any) -> Any:
            def loss(*batch: Any) -> Any:
                *xs, y, before = batch
                return forward(tuple(xs), y, before, options)

            nats, after = self.gradient(loss, *inputs, labels, state=state, axis=axis)
            return wrap(backend.asarray(nats, backend.float64), None, None), self.labels, after

        run.advance.gradient = gradient  # type: ignore[attr-defined]
        run.join, run.split = self.world.join, self.world.split
        run.writes = self.world.rank == 0
        self.world.catch_signals()  # in place of the handler of `fit`, which stops one process

    def step(self, run: Run) -> None:
        """End the run after the same step in all processes."""
        if self.world.interrupted:
            run.interrupt()
