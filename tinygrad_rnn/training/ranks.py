"""A run of `fit` in several processes, each of which reads some of the columns of every batch."""

from __future__ import annotations

from typing import Any

from .._util.api_hints import class_name
from ..engine import backend
from ..engine.tensor import wrap
from ..errors import ArgumentError
from .callbacks import CudaGraph
from .run import Callback, Run
from .step import Step


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
    reason = ""  # of a callback of this process that ends the run

    def gradient(self, function: Any, *batch: Any, state: Any = None, axis: int = 1) -> Any:
        """Replace the gradients by those of a function, of all processes; return loss and state."""
        raise NotImplementedError

    def start(self, run: Run) -> None:
        """Make the gradients, the state and the output of a run those of all processes.

        Raise if another callback has replaced the training step, or will replace it by a graph.
        """
        name = class_name(self)
        if run.losses.on_device and any(isinstance(c, CudaGraph) for c in run.callbacks):
            raise ArgumentError(
                f"fit: callbacks: {name} with CudaGraph: a graph cannot send the gradients to "
                "other processes: leave out CudaGraph()"
            )
        if not isinstance(run.advance, Step):
            raise ArgumentError(
                f"fit: callbacks: {name} comes after one that replaces the training step: put it "
                "first in the list"
            )
        axis, forward = getattr(run.batches, "batch_axis", 0), run.forward

        def gradient(inputs: Any, labels: Any, state: Any, options: Any) -> Any:
            def loss(*batch: Any) -> Any:
                *xs, y, before = batch
                return forward(tuple(xs), y, before, options)

            nats, after = self.gradient(loss, *inputs, labels, state=state, axis=axis)
            return wrap(backend.asarray(nats, backend.float64), None, None), self.labels, after

        run.advance.gradient = gradient  # type: ignore[method-assign]
        run.join, run.split, run.agree = self.world.join, self.world.split, self.world.broadcast
        run.writes, self.reason = self.world.rank == 0, ""
        run.interrupt = self.interrupt  # type: ignore[method-assign]
        self.world.catch_signals()  # in place of the handler of `fit`, which stops one process

    def interrupt(self, reason: str = "stopped by Ctrl-C") -> None:
        """End the run in all processes after their next step, whose messages tell them.

        Each process has a clock of its own, so that one of them calls this first.
        """
        self.reason, self.world.signalled = self.reason or reason, True

    def step(self, run: Run) -> None:
        """End the run after the same step in all processes, for the same reason."""
        if self.world.interrupted:
            reason = next(filter(None, self.world.messages.objects(self.reason)), "")
            Run.interrupt(run, *[reason] * bool(reason))
            # After a signal the program ends; after the time of a run it may begin another one.
            self.world.interrupted = self.world.signalled = not reason
