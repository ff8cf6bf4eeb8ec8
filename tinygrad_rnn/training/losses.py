"""The losses of an epoch, and the check that they are finite, without a wait at each step.

On the CPU `fit` looks at every loss and norm before the update. On a GPU this would make the host
wait for the device at each step. There the losses stay on the device and are read together, every
`READ_EVERY` steps and before anything is saved; the parameters and the state of the optimizer were
copied on the device after the last check, and are written back if one of the losses is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import tensors as ops
from ..engine import backend
from ..engine.tensor import Tensor
from ..errors import AnomalyError
from ..nn import Module
from ..optim import Optimizer
from ..transforms.anomaly import detect_anomaly

READ_EVERY = 32  # steps on a GPU


class Bad(NamedTuple):
    """A step whose loss or norm is not finite, and the last step that the parameters are after."""

    step: int
    loss: float
    norm: float
    after: int


class Sums:
    """The sums of the losses of labels, and of the norms of steps."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin again."""
        self.total, self.count, self.norms, self.steps = 0.0, 0, 0.0, 0

    def add(self, loss: float, norm: float, count: float) -> None:
        """Add a step: the mean loss of `count` labels, and the norm of its gradient."""
        self.total += loss * count
        self.count += int(count)
        self.norms += norm
        self.steps += 1


class Losses:
    """The sums of the epoch, and those since the last row of figures; only finite ones count."""

    def __init__(self, model: Module, optimizer: Optimizer) -> None:
        self.on_device = any(p.device != "cpu" for p in optimizer.params)
        self._tensors, self._optimizer = [*optimizer.params, *model.buffers()], optimizer
        self._pending: list[tuple[int, Tensor, Tensor, Any]] = []
        self.epoch, self.recent = Sums(), Sums()
        self.keep(0)

    def add(self, step: int, loss: Any, norm: Any, count: Any) -> Bad | None:
        """Add the mean loss of `count` labels; return the first that is not finite, if one is."""
        if self.on_device:
            self._pending.append((step, loss, norm, count))
            return self.read() if len(self._pending) >= READ_EVERY else None
        if not math.isfinite(loss + norm):
            return Bad(step, loss, norm, step - 1)
        self.epoch.add(loss, norm, count)
        self.recent.add(loss, norm, count)
        return None

    def read(self) -> Bad | None:
        """Add the losses that are still on the device; return as `add`."""
        if not self._pending:
            return None
        steps, losses, norms, counts = zip(*self._pending, strict=True)
        self._pending = []
        rows = list(zip(steps, read_together(losses), read_together(norms), strict=True))
        for step, loss, norm in rows:
            if not math.isfinite(loss + norm):
                self._restore()
                return Bad(step, loss, norm, self._kept_step)
        for (_, loss, norm), count in zip(rows, read_together(counts), strict=True):
            self.epoch.add(loss, norm, count)
            self.recent.add(loss, norm, count)
        self.keep(steps[-1])
        return None

    def keep(self, step: int) -> None:
        """Copy, on a GPU, everything that a step changes, after a step."""
        if self.on_device:
            self._kept_step = step
            self._kept = [backend.copy(array) for array in self._arrays()]

    def _restore(self) -> None:
        if self.on_device:
            for array, kept in zip(self._arrays(), self._kept, strict=True):
                with backend.computing_on(backend.device_of(array)):
                    array[...] = kept
            for t in self._tensors:
                t._bump()

    def _arrays(self) -> list[Any]:
        slots = [array for arrays in self._optimizer._state for array in arrays.values()]
        return [t._data for t in self._tensors] + slots

    def state_dict(self) -> dict[str, Any]:
        """Return the sums."""
        return {"epoch": vars(self.epoch).copy(), "recent": vars(self.recent).copy()}

    def load_state_dict(self, state: dict[str, Any], step: int) -> None:
        """Continue from the sums of a `state_dict`, after a step."""
        if "total" in state:  # of an earlier version, where the figures were those of the epoch
            state = {"epoch": state, "recent": state}
        for name, sums in state.items():
            vars(getattr(self, name)).update(sums)
        self.keep(step)


def read_together(values: Any) -> list[float]:
    """Return numbers that are on a device, with one wait for it."""
    if getattr(values[0], "device", "cpu") == "cpu":
        return [value.item() if isinstance(value, Tensor) else value for value in values]
    read: list[float] = ops.stack(list(values)).numpy().astype(np.float64).tolist()
    return read


def refuse(bad: Bad | None, again: Callable[[], Any] | None = None) -> None:
    """Raise for a step that is not finite; `again` repeats its forward pass, to find the cause."""
    if bad is None:
        return
    cause = ""
    if again is not None and bad.after == bad.step - 1:
        try:
            with detect_anomaly():
                again()[0].backward()
        except AnomalyError as error:
            cause = f"; {error}"
    raise FloatingPointError(
        f"fit: step {bad.step}: the loss is {bad.loss:.6g}, the norm of its gradient "
        f"{bad.norm:.6g}{cause}: the parameters are those after step {bad.after}: use a smaller "
        "learning rate, or tg.training.ClipNorm(1.0)"
    )


def refuse_parameters(model: Module, optimizer: Optimizer, step: int) -> None:
    """Raise if a parameter is not finite: after a loss that was, the next one will not be."""
    own = {id(p) for p in optimizer.params}
    for name, p in model.named_parameters():
        if id(p) in own and not np.isfinite(p.numpy()).all():
            raise FloatingPointError(
                f"fit: after step {step}, the parameter {name} is not finite, so the run was not "
                "saved: use a smaller learning rate, or tg.training.ClipNorm(1.0)"
            )
