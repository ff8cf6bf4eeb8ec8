"""The columns of a batch and of a recurrent state, one for each sequence: parts of them, joined."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._util.nested import leaves, map_nested
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from ..tensors import concatenate
from .windows import Window


def cut(batch: Any, axis: int, part: int, parts: int) -> Any:
    """Return one of several equal parts of a batch, or of a state, along an axis."""

    def one(array: Any) -> Any:
        if parts == 1 or not getattr(array, "shape", ()):
            return array
        place = min(axis, array.ndim - 1) % array.ndim
        size, rest = divmod(array.shape[place], parts)
        if rest:
            raise ArgumentError(
                f"{array.shape[place]} columns of a batch cannot be divided by {parts}: use a "
                "multiple of it, and drop_last=True"
            )
        return array[(slice(None),) * place + (slice(part * size, (part + 1) * size),)]

    if isinstance(batch, Window):
        return Window(one(batch.x), one(batch.y), batch.first, batch.bptt)
    return map_nested(one, batch)


def joined(states: list[Any]) -> Any:
    """Return states of some columns each as one state."""
    parts = zip(*map(leaves, states), strict=True)

    def one(first: Any) -> Any:
        found = next(parts)
        if first is None or len(found) == 1:
            return first
        return (concatenate if isinstance(first, Tensor) else np.concatenate)(found, axis=-2)

    return map_nested(one, states[0])
