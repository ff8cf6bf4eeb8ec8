"""Axes of an array: validated, counted from 0, and restored after a reduction."""

from __future__ import annotations

import math
import operator
from typing import Any

from ...errors import ArgumentError, ShapeError

Axis = int | tuple[int, ...] | None


def axis_of(axis: Any, ndim: int) -> int:
    """Return one axis as a number in [0, ndim)."""
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise ArgumentError(f"an axis is an integer, got {axis!r}")
    if not -ndim <= axis < ndim:
        raise ShapeError(f"axis {axis} is out of range for an array of {ndim} axes")
    return operator.index(axis) % ndim


def axes_of(axis: Any, ndim: int) -> tuple[int, ...]:
    """Return `axis` (None: all, an integer, or a tuple) as numbers in [0, ndim), each once.

    A 0-d array is reduced over the axis 0 or -1 as over none, as in NumPy's ufuncs and PyTorch.
    """
    if axis is None or (ndim == 0 and axis in (0, -1)):
        return tuple(range(ndim))
    axes = tuple(axis_of(a, ndim) for a in (axis if isinstance(axis, tuple | list) else (axis,)))
    if len(set(axes)) != len(axes):
        raise ShapeError(f"axis {axis} names an axis twice")
    return axes


def without_number(axis: Any, ndim: int) -> Any:
    """Return no axis for the axis 0 or -1 of a 0-d array, which CuPy refuses; else `axis`."""
    return () if ndim == 0 and axis in (0, -1) else axis


def reduced_size(shape: tuple[int, ...], axis: Axis) -> int:
    """Return how many elements a reduction over `axis` combines into one."""
    return math.prod(shape[i] for i in axes_of(axis, len(shape)))


def restore_axes(F: Any, x: Any, shape: tuple[int, ...], axis: Axis, keepdims: bool) -> Any:
    """Return the result of a reduction of `shape` with its reduced axes, of length 1, for a vjp."""
    if keepdims or axis is None:  # a single number broadcasts without them
        return x
    axes = axes_of(axis, len(shape))
    return F.reshape(x, shape=tuple(1 if i in axes else n for i, n in enumerate(shape)))
