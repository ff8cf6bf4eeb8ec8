"""The update of all parameters on a GPU in one launch, and one more for the counts of steps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..engine import backend
from . import updates
from .cuda import module, tables
from .cuda.training_step import are_here


class _Launches(NamedTuple):
    """An update as CUDA text."""

    rule: updates.Rule
    text: str


def update_parameters(optimizer: Any, ready: Sequence[tuple[int, Any, Any]]) -> Any:
    """Update parameters as the optimizer's ``_update`` does; see `speed.training_step`."""
    if not ready:
        return None
    first = ready[0][1]._data
    dtype, device = first.dtype, backend.device_of(first)
    params, grads = [p._data for _, p, _ in ready], [grad._data for _, _, grad in ready]
    if dtype not in tables.REALS or not are_here([*params, *grads], dtype):
        return NotImplemented
    found = updates.kept(
        optimizer, dtype, "cuda", lambda rule: _Launches(rule, text_of(rule, dtype))
    )
    if found is None or not all(map(tables.is_dense, params)) or _share_memory(params):
        return NotImplemented
    if not any(p.size for p in params):  # no launch, in which the steps would be counted
        return NotImplemented
    xp, rate = backend.module_of(first), optimizer._rates[device]
    rows = []
    for (i, _, _), p, g in zip(ready, params, grads, strict=True):
        row = [p, tables.ordered_as(p, g, xp), rate, *optimizer._state[i].values()]
        if any(x.ndim and x.strides != p.strides for x in row):
            return NotImplemented
        rows.append(row)
    settings = [float(x) for x in optimizer._hyper.values()]
    numbers = tables.struct(settings or [0.0], np.float64)
    update, finish = (module.kernel(xp, found.text, name) for name in ("update", "finish"))
    block = (module.THREADS,)
    try:
        for blocks, table in tables.tables(rows):
            update((blocks,), block, (table, numbers))
            if found.rule.finish:
                finish((1,), block, (table, numbers))
    finally:
        for _, p, _ in ready:
            p._bump()
    return None


def text_of(rule: updates.Rule, dtype: Any) -> str:
    """Return the CUDA text of an update."""
    return tables.text_of(
        "updates",
        dtype,
        rule.columns,
        max(1, rule.settings),
        HEAD="\n    ".join(rule.head),
        ELEMENTS="\n        ".join(rule.elements),
        NUMBERS="\n    ".join(rule.finish),
    )


def _share_memory(arrays: Sequence[Any]) -> bool:
    """Tell whether arrays overlap: they are updated one after the other then."""
    spans = sorted((x.data.ptr, x.data.ptr + x.nbytes) for x in arrays if x.size)
    return any(end > start for (_, end), (start, _) in itertools.pairwise(spans))


module.register(update_parameters)
