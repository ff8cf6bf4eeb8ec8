"""Reading parts of an array: NumPy's keys as nodes of ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import END, Graph
from .merge import Size, Unknown, Varying
from .trace import Call, Ref


def getitem(g: Graph, call: Call) -> str:
    """Return ``x[key]``: slices first, then arrays of integers, then integers, then new axes."""
    key = call.options["key"]
    keys = list(key) if isinstance(key, tuple) else [key]
    x, ndim = call.inputs[0], len(g.shape_of(call.inputs[0]))
    count = sum(k is not None and k is not Ellipsis for k in keys)
    rest: list[Any] = [slice(None)] * (ndim - count)
    place = next((i for i, k in enumerate(keys) if k is Ellipsis), len(keys))
    keys = [*keys[:place], *rest, *keys[place + 1 :]]

    axes = [k for k in keys if k is not None]  # one for each axis of x
    name = _sliced(g, g.name(x), axes)
    numbers = [i for i, k in enumerate(axes) if _is_number(k)]
    width = before = 0
    if any(map(_is_array, axes)):  # NumPy counts the integers as arrays then
        places = [i for i, k in enumerate(keys) if _is_array(k) or _is_number(k)]
        apart = places != list(range(places[0], places[-1] + 1))
        chosen = [i for i, k in enumerate(axes) if not isinstance(k, slice)]
        arrays = [axes[i] for i in chosen]
        width = max(len(g.shape_of(k)) for k in arrays)
        if len(arrays) == 1:
            name = g.add("Gather", name, _indices(g, arrays[0]), axis=chosen[0])
        else:
            name = _gathered(g, name, ndim, chosen, arrays, apart)
        if apart:  # NumPy has the axes of the indices first then
            before, width = width, 0
        numbers = []
    for axis in reversed(numbers):
        name = g.add("Gather", name, g.name(axes[axis], np.int64), axis=axis)
    out = before
    new: list[int] = []
    for k in keys:
        if k is None:
            new.append(out + len(new))
        elif isinstance(k, slice):
            out += 1
        elif _is_array(k):
            out, width = out + width, 0  # once
    return g.add("Unsqueeze", name, g.ints(*new)) if new else name


def _is_number(k: Any) -> bool:
    return isinstance(k, int | Size | Unknown)


def _is_array(k: Any) -> bool:
    return isinstance(k, Ref | np.ndarray | Varying)


def _sliced(g: Graph, name: str, axes: list[Any]) -> str:
    cuts = [(i, k) for i, k in enumerate(axes) if isinstance(k, slice) and k != slice(None)]
    if not cuts:
        return name
    steps = [1 if k.step is None else k.step for _, k in cuts]
    starts = [
        (0 if step > 0 else END) if k.start is None else k.start
        for (_, k), step in zip(cuts, steps, strict=True)
    ]
    stops = [
        (END if step > 0 else -END) if k.stop is None else k.stop
        for (_, k), step in zip(cuts, steps, strict=True)
    ]
    ends = [g.shape(starts), g.shape(stops), g.ints(*[i for i, _ in cuts]), g.ints(*steps)]
    return g.add("Slice", name, *ends)


def _indices(g: Graph, k: Any) -> str:
    dtype = g.dtype(k)
    return g.name(k, None if dtype in (np.int32, np.int64) else np.int64)


def _gathered(g: Graph, name: str, ndim: int, axes: list[int], keys: list[Any], apart: bool) -> str:
    """Return elements at several arrays of indices, which broadcast.

    Their axes replace the indexed ones; if those are `apart`, they are the first.
    """
    shapes = [g.shape_of(k) for k in keys]
    width = max(map(len, shapes))
    padded = [(1,) * (width - len(s)) + tuple(s) for s in shapes]
    shape = [next((n for n in column if n != 1), 1) for column in zip(*padded, strict=True)]
    parts = []
    for k in keys:
        index = g.name(k, np.int64)
        index = g.add("Expand", index, g.shape(shape)) if width else index
        parts.append(g.add("Unsqueeze", index, g.ints(-1)))
    others = [i for i in range(ndim) if i not in axes]
    if axes != list(range(len(axes))):
        name = g.add("Transpose", name, perm=[*axes, *others])
    name = g.add("GatherND", name, g.add("Concat", *parts, axis=-1))
    first = 0 if apart else axes[0]
    if first:  # the axes before those that were replaced
        total = width + len(others)
        order = [*range(width, width + first), *range(width), *range(width + first, total)]
        name = g.add("Transpose", name, perm=order)
    return name
