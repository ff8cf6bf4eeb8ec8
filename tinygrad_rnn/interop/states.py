"""Recurrent states, from the order and form of a library to ours and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..engine.backend import Array
from ..errors import ShapeError
from .conventions import LIBRARIES, Library
from .foreign_state import Origin, flat, tree_of


def states_from(state: Any, parts: int, origin: Origin) -> tuple[Array, ...]:
    """Return the states of a library as ours: (h,) or (h, c), each (L · D, B, H).

    Parameters
    ----------
    state : array, or sequences or mappings of arrays
        As the library has it; of two directions forward first, of stacked layers a list.
    parts : int
        2 for an LSTM, otherwise 1.
    origin : Origin
        The library and the call.

    Returns
    -------
    tuple of ndarray

    Raises
    ------
    ArgumentError
        If a leaf is not an array, or the number of arrays is not a multiple of `parts`.
    ShapeError
        If the arrays differ in shape.
    """
    form = _form(origin)
    arrays = arrays_of(state, origin)
    if not arrays or len(arrays) % parts:
        shapes = ", ".join(str(array.shape) for array in arrays)
        origin.refuse(
            "", f"{len(arrays)} arrays ({shapes})",
            f"a state has {parts} for each direction of each layer" + ", h and c" * (parts == 2),
        )  # fmt: skip
    if form.states == "stacked":  # of ONNX one for each layer
        _check_equal(arrays[:parts], origin)
        ours = [np.concatenate(arrays[i::parts]) for i in range(parts)]
    else:
        _check_equal(arrays, origin)
        if arrays[0].ndim > 2:
            raise ShapeError(
                f"{origin.op}: a state of shape {arrays[0].shape}: {origin.title} has (B, H) for "
                "each layer: take the last step, and give several layers as a list"
            )
        ours = [np.stack(arrays[i::parts]) for i in range(parts)]
    return tuple(ours[::-1] if form.order == "ch" else ours)


def arrays_of(state: Any, origin: Origin) -> list[Array]:
    """Return the arrays of a state in their order; only directions may have names.

    Raises
    ------
    ArgumentError
        For other names: the order of the parts would be that of the keys.
    """

    def ordered(tree: Any) -> Any:
        if isinstance(tree, dict):
            pair = origin.directions([*tree])
            if pair is None:
                form = "(c, h)" if _form(origin).order == "ch" else "(h, c)"
                origin.refuse(
                    "", f"a mapping with the keys {', '.join(tree)}",
                    f"give the parts in their order, {form} of an LSTM, in a tuple or a list",
                )  # fmt: skip
            return [ordered(tree[key]) for key in pair]
        return [ordered(part) for part in tree] if isinstance(tree, list) else tree

    return [*flat(ordered(tree_of(state, origin))).values()]


def _form(origin: Origin) -> Library:
    return LIBRARIES["nnx" if origin.library == "flax" else origin.library]


def _check_equal(arrays: Sequence[Array], origin: Origin) -> None:
    for array in arrays:
        if array.shape[:-1] != arrays[0].shape[:-1]:
            raise ShapeError(
                f"{origin.op}: states of the shapes {arrays[0].shape} and {array.shape}: all "
                "layers and directions have one shape"
            )


def states_to(ours: tuple[Array, ...], directions: int, origin: Origin) -> Any:
    """Return our states, (h,) or (h, c), as a library has them; the inverse of `states_from`.

    Parameters
    ----------
    ours : tuple of ndarray
        (L · D, B, H) each.
    directions : int
        D.
    origin : Origin
        The library and the call.

    Returns
    -------
    tuple, list or ndarray
        Of one layer, or a list for stacked layers.

    Raises
    ------
    ShapeError
        If the number of states is not a multiple of D.
    """
    form = LIBRARIES[origin.library]
    if any(len(part) % directions or len(part) != len(ours[0]) for part in ours):
        raise ShapeError(
            f"{origin.op}: states of the shapes {', '.join(str(part.shape) for part in ours)}: the "
            f"first axis is layers times directions, {directions}"
        )
    if form.states == "stacked":
        return ours if len(ours) == 2 else ours[0]
    ordered = ours[::-1] if form.order == "ch" else ours
    cells = [tuple(part[i] for part in ordered) for i in range(len(ours[0]))]
    if form.states == "list":
        layers: list[Any] = [
            [part for cell in cells[i : i + directions] for part in cell]
            for i in range(0, len(cells), directions)
        ]
    else:
        sides = [cell if len(cell) == 2 else cell[0] for cell in cells]
        layers = [
            tuple(sides[i : i + directions]) if directions == 2 else sides[i]
            for i in range(0, len(sides), directions)
        ]
    return layers[0] if len(layers) == 1 else layers
