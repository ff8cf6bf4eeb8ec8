"""Indexing: NumPy's keys, `take`, `split`, and iteration over an axis."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from .._util.api_hints import explain_errors
from ..engine import backend, ops
from ..engine.backend import Array
from ..engine.ops.axes import axis_of
from ..engine.tensor import Tensor
from ..errors import ArgumentError, DeviceError, DTypeError, ShapeError
from . import checks
from .checks import as_tensor
from .shape import expand_dims


def getitem(x: Tensor, key: Any) -> Tensor:
    """Return ``x[key]``.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    key : int, slice, None, Ellipsis, Tensor, array or a tuple of these
        NumPy's basic, integer-array and boolean indexing.

    Returns
    -------
    Tensor
        On the memory of x where NumPy returns a view.

    Raises
    ------
    DTypeError
        If an array in the key holds neither integers nor booleans.
    ShapeError
        If the shape of a mask differs from that of the axes that it replaces.

    Notes
    -----
    The gradients of an element that is read more than once add up. As in NumPy a mask without axes
    adds a new axis, of length 1 or 0: ``x[x > 0]`` of a 0-d x has the shape (1,) or (0,).

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.zeros(3, requires_grad=True)
    >>> x[[0, 0, 2]].sum().backward()
    >>> x.grad
    tensor([2., 0., 1.])
    """
    x, keys = plain_keys(x, key)
    return ops.getitem(x, key=keys)


def plain_keys(
    x: Tensor, key: Any, op: str = "indexing", negative: bool = True
) -> tuple[Tensor, tuple[Any, ...]]:
    """Return x, with a new axis for each mask without axes, and a key that arrays accept.

    Integers are checked for `op`, those on the host before they are uploaded, if NumPy would not
    check them: on a GPU, and if -1 is not the last element.
    """
    keys = [_plain(k, x) for k in (key if isinstance(key, tuple) else (key,))]
    arrays = [k for k in keys if hasattr(k, "dtype")]
    masks = any(k.dtype == backend.bool_ for k in arrays)
    if masks or not negative or (arrays and x.device != "cpu"):
        x, keys = _checked_keys(x, keys, op, negative)
    return x, tuple(keys)


def _plain(key: Any, x: Tensor) -> Any:
    """Return one element of a key of x in a form that arrays accept, but on the host as it was."""
    if (
        key is None
        or key is Ellipsis
        or (isinstance(key, slice | int) and not isinstance(key, bool))
    ):
        return key
    if isinstance(key, bool | str | dict):
        cure = ": a new axis is x[None]" if key is True else ""
        raise DTypeError(f"an index is made of integers, slices and arrays, got {key!r}{cure}")
    array = backend.asarray(key._data if isinstance(key, Tensor) else key)
    if array.dtype.kind not in "iub" and array.size:  # an empty list is floating
        raise DTypeError(f"an index is made of integers or booleans, got {array.dtype}")
    found = backend.device_of(array)
    if array.ndim == 0 and array.dtype.kind != "b" and found == "cpu":
        return int(array)
    if found != x.device and isinstance(key, Tensor):
        raise DeviceError(
            f"indexing: the tensor is on {x.device}, the index on {found}: move it with "
            f".to({x.device!r})"
        )
    if array.dtype.kind != "b":  # a copy, which the gradient saves
        array = array.astype(backend.int64)  # an axis may be too long for narrower integers
    return backend.to_device(array, "cpu") if x.device == "cpu" else array


def _checked_keys(x: Tensor, keys: list[Any], op: str, negative: bool) -> tuple[Tensor, list[Any]]:
    """Return x and the key with its arrays on the device of x, the integers in range.

    Each boolean mask is replaced by the integers that it selects. For a mask without axes x gets a
    new axis, of length 1.
    """
    masks = [getattr(key, "dtype", None) == backend.bool_ for key in keys]
    widths = [  # the number of axes that an element of the key replaces
        0 if key is None or key is Ellipsis else key.ndim if mask else 1
        for key, mask in zip(keys, masks, strict=True)
    ]
    rest, used = max(x.ndim - sum(widths), 0), 0  # of Ellipsis
    result: list[Any] = []
    for key, mask, count in zip(keys, masks, widths, strict=True):
        if not mask:
            integers = hasattr(key, "dtype") or (key.__class__ is int and not negative)
            result.append(_placed(key, x, used, op, negative) if integers else key)
        else:
            seen = x.shape[used : used + count]
            if seen != key.shape:
                raise ShapeError(f"indexing: a mask of shape {key.shape} for axes of shape {seen}")
            if not count:
                x, key, count = expand_dims(x, used), key.reshape(1), 1
            result += [backend.to_device(places, x.device) for places in key.nonzero()]
        used += rest if key is Ellipsis else count
    return x, result


def _placed(indices: Array, x: Tensor, axis: int, op: str, negative: bool = True) -> Array:
    """Return the indices of an axis of x on the device of x, checked if NumPy would not do so."""
    if axis < x.ndim and (x.device != "cpu" or not negative):
        checks.in_range(op, indices, x.shape[axis], negative)
    return indices if indices.__class__ is int else backend.to_device(indices, x.device)


@explain_errors
def take(x: Tensor, indices: Any, axis: int | None = None) -> Tensor:
    """Return the elements of x at given indices along an axis.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    indices : Tensor, array or int
        Integers, of any shape.
    axis : int or None
        None indexes the flat x.

    Returns
    -------
    Tensor
        Of the shape of x, the axis replaced by the shape of `indices`.

    Raises
    ------
    IndexError
        If an index is out of range.
    DTypeError
        If the indices are not integers.
    ShapeError
        If the axis is out of range.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.take(tg.tensor([[1.0, 2.0], [3.0, 4.0]]), [1, 1, 0], axis=0)
    tensor([[3., 4.],
            [3., 4.],
            [1., 2.]])
    """
    if indices is None or isinstance(indices, slice):
        raise DTypeError(f"take: the indices are integers, got {indices!r}")
    x = ops.reshape(x, shape=-1) if axis is None else as_tensor(x)
    before = (slice(None),) * axis_of(axis or 0, x.ndim)
    x, keys = plain_keys(x, (*before, indices), "take")
    return ops.getitem(x, key=keys)


@explain_errors
def take_along_axis(x: Tensor, indices: Any, axis: int = -1) -> Tensor:
    """Return the elements of x at one index per result element, along an axis.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    indices : Tensor or array
        Integers, of as many axes as x.
    axis : int
        Negative ones count from the end.

    Returns
    -------
    Tensor
        Of the shape of `indices`, its other axes broadcast with those of x.

    Raises
    ------
    ShapeError
        If the numbers of axes of `indices` and x differ.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> tg.take_along_axis(x, tg.argmax(x, axis=1, keepdims=True), axis=1)
    tensor([[2.],
            [4.]])
    """
    x = as_tensor(x)
    where = _plain(indices, x)
    axis = axis_of(axis, x.ndim)
    if getattr(where, "ndim", 0) != x.ndim:
        raise ShapeError(
            f"take_along_axis: indices of {getattr(where, 'ndim', 0)} axes for a tensor of {x.ndim}"
        )
    if where.dtype == backend.bool_:
        raise DTypeError("take_along_axis: the indices are integers; with a mask write x[mask]")
    where = _placed(where, x, axis, "take_along_axis")
    module = backend.module_of(where)
    grid = [
        where
        if i == axis
        else module.arange(n).reshape([-1 if j == i else 1 for j in range(x.ndim)])
        for i, n in enumerate(x.shape)
    ]
    return ops.getitem(x, key=tuple(grid))


@explain_errors
def split(x: Tensor, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Return x split into parts along an axis.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    indices_or_sections : int or sequence of int
        The number of equal parts, or the indices to split at.
    axis : int
        Negative ones count from the end.

    Returns
    -------
    list of Tensor
        The parts, on the memory of x.

    Raises
    ------
    ShapeError
        If the axis does not divide into that many equal parts.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.split(tg.arange(4), 2)
    [tensor([0, 1]), tensor([2, 3])]
    >>> tg.split(tg.arange(4), [1])
    [tensor([0]), tensor([1, 2, 3])]
    """
    x = as_tensor(x)
    axis = axis_of(axis, x.ndim)
    length = x.shape[axis]
    if hasattr(indices_or_sections, "__index__") and not isinstance(indices_or_sections, bool):
        count = operator.index(indices_or_sections)
        if count < 1 or length % count:
            raise ShapeError(
                f"split: an axis of length {length} does not divide into {count} equal sections"
            )
        cuts = [length // count * i for i in range(1, count)]
    else:
        cuts = _cuts(indices_or_sections, length)
    before = (slice(None),) * axis
    return [
        ops.getitem(x, key=(*before, slice(a, b)))
        for a, b in zip([0, *cuts], [*cuts, length], strict=True)
    ]


def _cuts(indices: Any, length: int) -> list[int]:
    """Return the validated indices at which an axis is split."""
    try:
        cuts = [operator.index(cut) for cut in indices]
    except TypeError:
        raise ArgumentError(
            f"split takes a number of sections or a list of indices to split at, got {indices!r}"
        ) from None
    if [0, *cuts, length] != sorted([0, *cuts, length]):
        sizes = sum(cuts) == length
        cure = f"; for parts of these sizes split at {list(accumulate(cuts[:-1]))}" if sizes else ""
        raise ShapeError(
            f"split: {cuts} are not indices to split at, from 0 to {length} in order{cure}"
        )
    return cuts


@explain_errors
def unbind(x: Tensor, axis: int = 0) -> list[Tensor]:
    """Return the slices of x along an axis, without that axis.

    Parameters
    ----------
    x : Tensor
        Of any shape.
    axis : int
        Negative ones count from the end.

    Returns
    -------
    list of Tensor
        One for each index.

    Raises
    ------
    ArgumentError
        If x is 0-d.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.unbind(tg.tensor([[1.0, 2.0], [3.0, 4.0]]))
    [tensor([1., 2.]), tensor([3., 4.])]
    """
    x = as_tensor(x)
    if x.ndim == 0:
        raise ArgumentError("unbind: a 0-d tensor has no axis to iterate over")
    axis = axis_of(axis, x.ndim)
    before = (slice(None),) * axis
    return [ops.getitem(x, key=(*before, i)) for i in range(x.shape[axis])]
