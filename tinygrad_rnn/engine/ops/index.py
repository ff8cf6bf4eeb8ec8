"""Reading parts of a tensor. What is read is a pending `Part` on the way back: its cost is that "
"of the part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...errors import ArgumentError, DTypeError, ShapeError
from .. import backend
from ..backend import Array
from ..graph import Part
from ..primitive import primitive
from .shape import axis_of, reshape

if TYPE_CHECKING:
    from ..tensor import Tensor


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
    """Tell whether the keys cut one axis into pieces that cover all of it, each once (what "
    "unbind and split read)."""
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


def getitem(x: Tensor, key: Any) -> Tensor:
    """Return ``x[key]`` with NumPy's basic, integer-array and boolean indexing."""
    keys = [_plain(k) for k in (key if isinstance(key, tuple) else (key,))]
    if any(getattr(k, "dtype", None) == backend.bool_ for k in keys):
        keys = _without_masks(keys, x.shape)
    return index(x, key=tuple(keys))


def _plain(key: Any) -> Any:
    """Return one element of a key in the form that arrays take."""
    if (
        key is None
        or key is Ellipsis
        or (isinstance(key, slice | int) and not isinstance(key, bool))
    ):
        return key
    array = backend.asarray(key._data if hasattr(key, "_data") else key)
    if array.dtype.kind not in "iub":
        if array.size:
            raise DTypeError(f"an index is made of integers or booleans, got {array.dtype}")
        array = array.astype(backend.int64)  # an empty list
    return int(array) if array.ndim == 0 and array.dtype.kind != "b" else array


def _without_masks(keys: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """Return the key with each boolean mask as the integer arrays of the places where it holds."""
    used = 0
    for i, key in enumerate(keys):
        if getattr(key, "dtype", None) == backend.bool_ and Ellipsis not in keys[:i]:
            seen = shape[used : used + key.ndim]
            if seen != key.shape:
                raise ShapeError(f"indexing: a mask of shape {key.shape} for axes of shape {seen}")
        used += 0 if key is None else getattr(key, "ndim", 1)
    return [
        k
        for key in keys
        for k in (key.nonzero() if getattr(key, "dtype", None) == backend.bool_ else (key,))
    ]


def take(x: Tensor, indices: Any, axis: int | None = None) -> Tensor:
    """Return the elements of x at `indices` along `axis` (None: of the flat x)."""
    if axis is None:
        return getitem(reshape(x, shape=-1), indices)
    x = reshape(x, shape=None)
    return getitem(x, (slice(None),) * axis_of(axis, x.ndim) + (indices,))


def take_along_axis(x: Tensor, indices: Any, axis: int = -1) -> Tensor:
    """Return, along `axis`, the element of x that `indices`, of as many axes, names at each "
    "place."""
    x = reshape(x, shape=None)
    where = _plain(indices)
    axis = axis_of(axis, x.ndim)
    if getattr(where, "ndim", 0) != x.ndim:
        raise ShapeError(
            f"take_along_axis: indices of {getattr(where, 'ndim', 0)} axes for a tensor of {x.ndim}"
        )
    module = backend.module_of(where)
    grid = [
        where
        if i == axis
        else module.arange(n).reshape([-1 if j == i else 1 for j in range(x.ndim)])
        for i, n in enumerate(x.shape)
    ]
    return index(x, key=tuple(grid))


def split(x: Tensor, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Return x cut along `axis` into equal sections (an integer), or at the given places."""
    x = reshape(x, shape=None)
    axis = axis_of(axis, x.ndim)
    length = x.shape[axis]
    if isinstance(indices_or_sections, int):
        if indices_or_sections < 1 or length % indices_or_sections:
            raise ShapeError(
                f"split: an axis of length {length} does not divide into {indices_or_sections} "
                "equal sections"
            )
        size = length // indices_or_sections
        cuts = [size * i for i in range(1, indices_or_sections)]
    else:
        cuts = [int(cut) for cut in indices_or_sections]
    whole = (slice(None),) * axis
    return [
        index(x, key=(*whole, slice(a, b)))
        for a, b in zip([0, *cuts], [*cuts, length], strict=True)
    ]


def unbind(x: Tensor, axis: int = 0) -> list[Tensor]:
    """Return the slices of x along `axis`, without that axis."""
    x = reshape(x, shape=None)
    if x.ndim == 0:
        raise ArgumentError("unbind: a 0-d tensor has no axis to iterate over")
    axis = axis_of(axis, x.ndim)
    whole = (slice(None),) * axis
    return [index(x, key=(*whole, i)) for i in range(x.shape[axis])]
