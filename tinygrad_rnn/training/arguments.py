"""The arguments of `fit`: their meaning, and the errors of those that it cannot use."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._util.api_hints import class_name
from .._util.resumable import ResumableIterator
from ..bptt.windows import Window
from ..engine.grad_mode import is_grad_enabled
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from ..nn import Module
from ..optim import Optimizer
from ..tensors import checks


def check(model: Any, loss: Any, optimizer: Any, epochs: Any, every: Any) -> None:
    """Raise unless the arguments can be used together."""
    if not isinstance(model, Module):
        raise ArgumentError(
            f"fit: model: a tg.nn.Module is expected, got {shown(model)}: make a subclass with "
            "the parts as attributes and forward(self, x)"
        )
    if isinstance(loss, type) or not callable(loss):
        raise ArgumentError(
            f"fit: loss: a function from the output and the labels to one number is expected, got "
            f"{shown(loss)}: pass one such as tg.functional.cross_entropy or mse_loss"
        )
    if not isinstance(optimizer, Optimizer):
        raise ArgumentError(
            f"fit: optimizer: an optimizer is expected, got {shown(optimizer)}: pass one such as "
            "tg.optim.Adam(model.parameters(), lr=1e-3)"
        )
    if not {id(p) for p in optimizer.params} & {id(p) for p in model.parameters()}:
        raise ArgumentError(
            f"fit: none of the {len(optimizer.params)} parameters of the optimizer is one of "
            f"{class_name(model)}: make the optimizer from model.parameters() of this model"
        )
    checks.positive(epochs, "fit: epochs")
    if every is not None:
        checks.positive(every, "fit: every")
    if not is_grad_enabled():
        raise ArgumentError("fit: gradients are off here: call it outside of tg.no_grad()")


def as_batches(name: str, source: Any, repeated: bool) -> Any:
    """Return batches as something that can be read once for each epoch."""
    cure = "pass tg.data.batches(x, y, batch_size=32), or a list of tuples (x, y)"
    if isinstance(source, ResumableIterator):
        return source
    if callable(source) and not isinstance(source, type):
        try:
            inspect.signature(source).bind()
        except TypeError as error:
            raise ArgumentError(
                f"fit: {name}: {shown(source)} is called without arguments in each epoch: {error}"
            ) from error
        except ValueError:  # a function of C without a signature
            pass
        return source
    if isinstance(source, list | tuple):
        if not source:
            raise ArgumentError(f"fit: {name}: the list is empty: {cure}")
        parts(name, source[0])
        items = list(source)  # a position in a list can be saved, as that in other batches
        settings = {"stream": name, "batches": len(items)}
        return ResumableIterator(settings, {}, lambda: (len(items), items.__getitem__))
    if isinstance(source, Tensor | str | dict) or not hasattr(source, "__iter__"):
        raise ArgumentError(f"fit: {name}: batches are expected, got {shown(source)}: {cure}")
    if hasattr(source, "shape") or hasattr(source, "iloc"):
        raise ArgumentError(f"fit: {name}: batches are expected, got {shown(source)}: {cure}")
    if isinstance(source, Iterator) and repeated:
        raise ArgumentError(
            f"fit: {name}: a {class_name(source)} can be read only once, and every epoch reads "
            "it: pass a function that returns it, or a list"
        )
    return source


def epoch_of(source: Any) -> Any:
    """Return the batches of another epoch."""
    if isinstance(source, ResumableIterator):
        return source.next_epoch() if source.position else source
    if not callable(source):
        return source
    made = source()
    if not hasattr(made, "__iter__"):
        raise ArgumentError(
            f"fit: the function that returns batches returned {shown(made)}: it returns an "
            "iterable of tuples (x, y), such as tg.data.batches(x, y, batch_size=32)"
        )
    return made


def position(batches: Any) -> Any:
    """Return the position in batches that have one, or None."""
    return batches.state_dict() if isinstance(batches, ResumableIterator) else None


def move(name: str, batches: Any, saved: Any) -> None:
    """Move batches to a saved position; raise if only one of the two has a position."""
    if (saved is not None) != isinstance(batches, ResumableIterator):
        raise ArgumentError(
            f"fit: {name}: the run to continue had other batches, not {shown(batches)}: pass "
            "the same ones"
        )
    if saved is not None:
        try:
            batches.load_state_dict(saved)
        except ArgumentError as error:
            raise ArgumentError(
                f"fit: {name}: the run to continue had other batches: {error}: pass the same ones, "
                "or save this run in another file"
            ) from error


def parts(name: str, batch: Any) -> tuple[tuple[Any, ...], Any, dict[str, Any]]:
    """Return the inputs of the model, the labels, and further arguments of the model."""
    if isinstance(batch, Window):
        return (batch.x,), batch.y, {"bptt": batch.bptt}
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise ArgumentError(
            f"fit: {name}: a batch is a tuple (x, y) of inputs and labels, got {shown(batch)}: "
            "pass tg.data.batches(x, y, batch_size=32), or a list of tuples (x, y)"
        )
    return tuple(batch[:-1]), batch[-1], {}


def in_order(callbacks: Any, base: type) -> list[Any]:
    """Return the callbacks, those that save the state of the others last."""
    listed = isinstance(callbacks, list | tuple)
    if not listed and not isinstance(callbacks, base | type) and not callable(callbacks):
        raise ArgumentError(
            f"fit: callbacks: a list of callbacks is expected, got {shown(callbacks)}: pass a "
            "list, or leave it out"
        )
    for callback in callbacks if listed else [callbacks]:
        if not isinstance(callback, base):
            cure = "make a subclass of tg.training.Callback"
            if isinstance(callback, type) and issubclass(callback, base):
                cure = f"call it, as {callback.__name__}()"
            raise ArgumentError(
                f"fit: callbacks: a list of callbacks is expected, got {shown(callback)}: {cure}"
            )
    if not listed or len({id(callback) for callback in callbacks}) < len(callbacks):
        problem = "one occurs twice" if listed else "one was passed alone: put it in a list"
        raise ArgumentError(f"fit: callbacks: {problem}, got {callbacks!r}")
    return sorted(callbacks, key=lambda callback: callback.last)


def refuse_one_file(callbacks: Any) -> None:
    """Raise if two callbacks write the same file."""
    found: dict[str, Any] = {}
    for callback in callbacks:
        path = getattr(callback, "path", None)
        if not isinstance(path, Path):
            continue
        before = found.setdefault(os.path.realpath(path), callback)
        if before is not callback:
            raise ArgumentError(
                f"fit: callbacks: {class_name(before)} and {class_name(callback)} would both write "
                f"{path}: pass another name to one of them"
            )


def shown(value: Any) -> str:
    """Return a value as a message shows it: itself, or its class and shape."""
    if value is None or isinstance(value, str | int | float):
        return f"{value!r:.40}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
    return f"a {class_name(value)}{shape}"
