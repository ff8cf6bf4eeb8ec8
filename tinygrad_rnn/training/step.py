"""One training step: the loss of a batch, its gradient, clipping and the update."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._util.api_hints import class_name
from .._util.resumable import ResumableIterator
from ..bptt import detach
from ..bptt.state import State
from ..bptt.windows import Windows
from ..engine.grad_mode import no_grad
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from ..nn import Module
from ..optim import Optimizer, clip_grad_norm
from .arguments import epoch_of, parts, shown
from .losses import read_together


class Step:
    """A training step as a function, without an attribute that changes: `cuda.graph` can run it."""

    def __init__(self, model: Module, loss: Callable[..., Any], optimizer: Optimizer) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.arguments = frozenset(inspect.signature(model.forward).parameters)
        own = {id(p) for p in optimizer.params}
        self.others = [p for p in model.parameters() if id(p) not in own]
        self.on_device = any(p.device != "cpu" for p in optimizer.params)

    def __call__(
        self, inputs: Any, labels: Any, state: State, options: Any, max_norm: float
    ) -> tuple[Any, Any, Any, State]:
        """Return the loss, the norm of its gradient, the number of labels, and the next state.

        On a GPU the first three are Tensors. On the CPU they are numbers, and a loss or a norm that
        is not finite prevents the update.
        """
        loss, number, state = self.gradient(inputs, labels, state, options)
        norm = clip_grad_norm(self.optimizer.params, max_norm)
        if self.on_device:
            self.optimizer.step()
            return loss.detach(), norm, number, detach(state)
        figures = loss.item(), norm.item(), number
        if math.isfinite(figures[0] + figures[1]):
            self.optimizer.step()
        return *figures, detach(state)

    def gradient(
        self, inputs: Any, labels: Any, state: State, options: Any
    ) -> tuple[Tensor, Any, State]:
        """Replace the gradients by those of a batch; return its loss, number of labels and state.

        `distributed` replaces this by the gradient of the batches of all processes.
        """
        self.optimizer.zero_grad()
        for p in self.others:
            p.grad = None
        loss, state = self.forward(inputs, labels, state, options)
        if not loss.requires_grad:
            if not any(p.requires_grad for p in self.model.parameters()):
                raise ArgumentError(
                    f"fit: all parameters of {class_name(self.model)} are frozen: call "
                    "model.requires_grad_(), or that of the part to train"
                )
            raise ArgumentError(
                "fit: loss: it does not depend on a parameter: compute it from the output of the "
                "model, without detach(), item() or NumPy"
            )
        loss.backward()
        return loss, count(labels), state

    def forward(self, inputs: Any, labels: Any, state: State, options: Any) -> tuple[Tensor, State]:
        """Return the loss of a batch, and the state after it."""
        if "state" in self.arguments:
            result = self.model(*inputs, state=state, **options)
            if not isinstance(result, tuple) or len(result) != 2:
                raise ArgumentError(
                    f"fit: {class_name(self.model)}.forward has an argument `state`, so it must "
                    f"return the output and the state, got {class_name(result)}"
                )
            output, state = result
        else:
            output = self.model(*inputs, **options)
        loss = self.loss(output, labels)
        if not isinstance(loss, Tensor) or loss.ndim:
            cure = "take its mean, as reduction='mean' does"
            raise ArgumentError(
                f"fit: loss: it must return one number, a Tensor of shape (), got {shown(loss)}: "
                f"{cure if isinstance(loss, Tensor) else 'return it as the operations gave it'}"
            )
        return loss, state

    def carries(self, batches: Any) -> bool:
        """Return whether the state is carried; raise if the model cannot take part in it."""
        carried = bool(getattr(batches, "carries_state", False))
        needed = {"state": carried, "bptt": isinstance(batches, Windows)}
        for name in needed:
            if needed[name] and name not in self.arguments:
                cure = {
                    "state": "define forward(self, x, state=None) that returns the output and the "
                    "state, or use independent windows, such as tg.data.text.random",
                    "bptt": "pass it on to its recurrent layers, or use tg.data.text.sequential",
                }[name]
                raise ArgumentError(
                    f"fit: the batches need a model with the argument `{name}`, which "
                    f"{class_name(self.model)}.forward lacks: {cure}"
                )
        return carried


def count(labels: Any) -> Any:
    """Return the number of labels, on their device; negative integers are padding."""
    if isinstance(labels, Tensor):
        if labels.device != "cpu" and labels.dtype.kind == "i":
            return (labels >= 0).sum()
        labels = labels._data
    if getattr(getattr(labels, "dtype", None), "kind", "") != "i":
        return getattr(labels, "size", 1)
    return int(np.count_nonzero(labels >= 0))


def mean_loss(model: Module, forward: Any, carries: Any, batches: Any) -> float:
    """Return the mean loss of the labels in batches, in evaluation mode."""
    # A copy, so that the position stays at the beginning, and every epoch has the same batches.
    resumable = isinstance(batches, ResumableIterator)
    stream = epoch_of(copy.copy(batches) if resumable else batches)
    carried, state, losses, counts = carries(stream), None, [], []
    with model.evaluating(), no_grad():
        for batch in stream:
            inputs, labels, options = parts("valid", batch)
            loss, after = forward(inputs, labels, state, options)
            state = after if carried else None
            losses.append(loss)
            counts.append(count(labels))
    numbers = read_together(counts) if counts else []
    if not sum(numbers):
        raise ArgumentError("fit: valid: the batches have no labels: use a smaller batch_size")
    pairs = [pair for pair in zip(read_together(losses), numbers, strict=True) if pair[1]]
    mean = sum(loss * number for loss, number in pairs) / sum(numbers)
    if not math.isfinite(mean):
        raise FloatingPointError(
            f"fit: the loss of validation is {mean}: use a smaller learning rate"
        )
    return mean
