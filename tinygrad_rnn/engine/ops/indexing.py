"""Reading parts of a tensor, and the reverse, adding parts into zeros.

The gradient of a part is a pending `SparseGradient`: its cost is that of the part.
"""

from __future__ import annotations

from typing import Any

from .. import backend
from ..backend import Array
from ..pending import SparseGradient
from ..primitive import primitive
from . import kernels

_FULL = slice(None)


@primitive(
    name="indexing", view=True, x=lambda F, g, x_shape, key: SparseGradient(F, g, key, x_shape)
)
def getitem(xp: Any, x: Array, key: Any) -> Array:
    """Return ``x[key]``; the key holds integers, slices, None, Ellipsis and arrays."""
    return x[key]


@primitive(joint=lambda F, g, keys: [F.getitem(g, key=key) for key in keys])
def scatter(xp: Any, *parts: Array, keys: tuple[Any, ...], shape: tuple[int, ...]) -> Array:
    """Return zeros of `shape` with each part added at its key; repeated indices add up."""
    if _keys_tile_an_axis(keys, shape):
        out = kernels.empty_in_order_of(shape, parts[0])
        for key, part in zip(keys, parts, strict=True):
            out[key] = part
        return out
    # A sum of many terms in half precision would stop growing.
    dtype = backend.float32 if parts[0].dtype == backend.float16 else parts[0].dtype
    out = backend.full(shape, 0, dtype, like=parts[0])
    for key, part in zip(keys, parts, strict=True):
        kernels.add_at(out, key, part)
    return out.astype(parts[0].dtype, copy=False)


def _keys_tile_an_axis(keys: tuple[Any, ...], shape: tuple[int, ...]) -> bool:
    """Tell whether the keys cut one axis into slices that cover it, as unbind and split do."""
    axis, spans = len(keys[0]) - 1 if keys[0].__class__ is tuple else -1, []
    for key in keys:
        if not 0 <= axis < len(shape) or key.__class__ is not tuple or len(key) != axis + 1:
            return False
        others = all(k.__class__ is slice and k == _FULL for k in key[:-1])
        last = slice(key[-1], key[-1] + 1) if key[-1].__class__ is int and key[-1] >= 0 else key[-1]
        if not others or last.__class__ is not slice or last.step not in (None, 1):
            return False
        spans.append(last.indices(shape[axis])[:2])
    spans.sort()
    return [0, *(stop for _, stop in spans)] == [*(start for start, _ in spans), shape[axis]]
