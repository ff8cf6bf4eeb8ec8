"""Reading parts of a tensor.

What is read is a pending `Part` on the way back: its cost is that of the part.
"""

from __future__ import annotations

from typing import Any

from .. import backend
from ..backend import Array
from ..graph import Part
from ..primitive import primitive


@primitive(view=True, x=lambda F, g, x_shape, key: Part(g, key, x_shape))
def index(xp: Any, x: Array, key: Any) -> Array:
    """Return ``x[key]``, the key holding integers, slices, None, Ellipsis and arrays."""
    return x[key]


@primitive(joint=lambda F, g, keys: [F.index(g, key=key) for key in keys])
def scatter(xp: Any, *parts: Array, keys: tuple[Any, ...], shape: tuple[int, ...]) -> Array:
    """Return zeros of `shape` with each part added in at its key, repeated places adding up."""
    if _tile(keys, shape):
        out = backend.empty_like_parts(shape, parts[0])
        for key, part in zip(keys, parts, strict=True):
            out[key] = part
        return out
    out = backend.full(shape, 0, parts[0].dtype, like=parts[0])
    for key, part in zip(keys, parts, strict=True):
        backend.add_at(out, key, part)
    return out


def _tile(keys: tuple[Any, ...], shape: tuple[int, ...]) -> bool:
    """Tell whether the keys cut one axis into pieces that cover it, as unbind and split do."""
    axis = len(keys[0]) - 1 if isinstance(keys[0], tuple) else -1
    if axis < 0 or any(not isinstance(key, tuple) or len(key) != axis + 1 for key in keys):
        return False
    spans = []
    for *whole, last in keys:
        if any(not isinstance(k, slice) or k != slice(None) for k in whole):
            return False
        if isinstance(last, int) and not isinstance(last, bool):
            spans.append((last, last + 1))
        elif isinstance(last, slice) and last.step is None:
            start, stop, _ = last.indices(shape[axis])
            spans.append((start, stop))
        else:
            return False
    spans.sort()
    joints = [0, *(stop for _, stop in spans)]
    return joints[-1] == shape[axis] and all(
        start == end for (start, _), end in zip(spans, joints, strict=False)
    )
