"""The weights of one recurrent cell, from the convention of a library to ours and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..engine.backend import Array
from ..errors import ShapeError
from .conventions import OUR_GATES, Convention
from .foreign_state import FoundCell, Origin


def reordered(rows: Array, source: str, target: str, complement: str = "") -> Array:
    """Return the blocks of rows of the gates in another order.

    Parameters
    ----------
    rows : ndarray
        (G · H, ...).
    source, target : str
        The orders, a letter for each gate.
    complement : str
        Gates whose blocks are negated: σ(-a) = 1 - σ(a).

    Returns
    -------
    ndarray
        A new array.

    Examples
    --------
    >>> import numpy as np
    >>> from tinygrad_rnn.interop.cell_weights import reordered
    >>> reordered(np.array([1.0, 2.0, 3.0]), "zrn", "rzn")
    array([2., 1., 3.])
    """
    blocks = dict(zip(source, np.split(rows, len(source)), strict=True))
    return np.concatenate([-blocks[g] if g in complement else blocks[g] for g in target])


# -- from another library --------------------------------------------------------------------------


def to_ours(cell: FoundCell, origin: Origin) -> dict[str, Array]:
    """Return the weights of a cell by our names, without a suffix.

    Parameters
    ----------
    cell : FoundCell
        The cell.
    origin : Origin
        Its library and the call.

    Returns
    -------
    dict of str to ndarray
        ``weight_ih``, ``weight_hh``, the biases unless the cell has none, ``weight_hr`` of an LSTM
        with a projection.

    Raises
    ------
    ArgumentError
        If one of two biases is missing.
    ShapeError
        If a shape does not fit the others.
    """
    row, ours = cell.row, {}
    weight_ih, weight_hh = _matrices(cell, origin)
    H = len(weight_hh) // len(row.gates)
    for name, array in (("weight_ih", weight_ih), ("weight_hh", weight_hh)):
        ours[name] = reordered(array, row.gates, OUR_GATES[row.layer], row.complement)
    ours |= _biases(cell, H, origin)
    if row.weight_hr and row.weight_hr[0] in cell.arrays:
        projection = cell.arrays[row.weight_hr[0]]
        ours["weight_hr"] = projection.T if row.transposed_hr else projection
    _check_shapes(ours, H, cell, origin)
    return ours


def _stacked(cell: FoundCell, keys: tuple[str, ...], transposed: bool) -> Array:
    """Return the array of some keys with the gates in its rows."""
    parts = [_part(cell.arrays, key) for key in keys]
    parts = [part.T if transposed else part for part in parts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _part(arrays: Mapping[str, Array], key: str) -> Array:
    """Return the array of a key, or the first or second part of one."""
    name, _, number = key.partition("[")
    return arrays[name].reshape(2, -1)[int(number[0])] if number else arrays[name]


def _matrices(cell: FoundCell, origin: Origin) -> tuple[Array, Array]:
    """Return both matrices, (G · H, ·) each, in their order of the gates."""
    row = cell.row
    for key in row.needed:
        if cell.arrays[key].ndim != 2:
            raise _shape_error(cell, key, "a matrix is needed", origin)
    for keys in (row.weight_ih, row.weight_hh):
        size = cell.arrays[keys[0]].shape
        for key in keys:
            if cell.arrays[key].shape != size:
                needed = f"all gates of a cell have one size, and {keys[0]} has {size}"
                raise _shape_error(cell, key, needed, origin)
    weight_hh = _stacked(cell, row.weight_hh, row.transposed)
    G = len(row.gates)
    if row.weight_ih == row.weight_hh:  # one matrix
        H = len(weight_hh) // G
        if len(weight_hh) % G or weight_hh.shape[1] <= H:
            raise _shape_error(cell, row.weight_hh[0], f"{row.cell} needs (I + H, {G} H)", origin)
        inputs, state = np.split(weight_hh, [weight_hh.shape[1] - H], axis=1)
        return inputs, state
    R = weight_hh.shape[1]
    if len(weight_hh) % G or (len(weight_hh) != G * R and not row.weight_hr):
        form = f"(H, {G} H)" if row.transposed else f"({G} H, H)"
        other = {4 * R: "an LSTM", 3 * R: "a GRU", R: "a simple RNN"}.get(len(weight_hh))
        finding = f"{row.layer} needs {form}" + (f", this is the shape of {other}" if other else "")
        raise _shape_error(cell, row.weight_hh[0], finding, origin)
    weight_ih = _stacked(cell, row.weight_ih, row.transposed)
    if len(weight_ih) != len(weight_hh):
        needed = f"{G} gates of {len(weight_hh) // G} are needed, as in {row.needed[-1]}"
        raise _shape_error(cell, row.weight_ih[0], needed, origin)
    return weight_ih, weight_hh


def _biases(cell: FoundCell, H: int, origin: Origin) -> dict[str, Array]:
    """Return both biases, in our order of the gates; {} if the cell has none and adds nothing."""
    row, arrays = cell.row, cell.arrays
    groups = {"bias_ih": row.bias_ih, "bias_hh": row.bias_hh, "bias_hn": row.bias_hn}
    groups = {
        name: tuple(key for key in group if key in arrays or key not in row.may_lack)
        for name, group in groups.items()
    }
    keys = [key for group in groups.values() for key in group]
    missing = [key for key in keys if key.partition("[")[0] not in arrays]
    if missing and len(missing) < len(keys):
        origin.refuse(
            cell.where, f"{', '.join(missing)} is missing, and other biases are there",
            "give all of the layer's state",
        )  # fmt: skip
    if missing and not row.bias_optional:
        origin.refuse(cell.where, f"{', '.join(missing)} is missing", f"every {row.cell} has it")
    if missing:
        return {}
    ours = OUR_GATES[row.layer]
    found = {}
    rows = len(row.gates) * H
    dtype = arrays[row.weight_hh[0]].dtype
    for name in ("bias_ih", "bias_hh"):
        group = groups[name]
        for key in group:
            _check_bias(cell, key, rows // len(group), origin)
        bias = _stacked(cell, group, False) if group else np.zeros(rows, dtype)
        found[name] = reordered(bias, row.gates, ours, row.complement)
    if row.bias_hn:
        _check_bias(cell, row.bias_hn[0], H, origin)
        found["bias_hh"][-H:] = arrays[row.bias_hn[0]]
    if row.forget_offset:
        found["bias_ih"][H : 2 * H] += row.forget_offset  # in our order, i f g o
    return found


def _check_bias(cell: FoundCell, key: str, size: int, origin: Origin) -> None:
    name, _, half = key.partition("[")
    array = cell.arrays[name]
    shapes = [(2, size), (2 * size,)] if half else [(size,)]
    if array.shape not in shapes:
        cure = f"{(2, size) if half else (size,)} is needed"
        if array.ndim == 1 and half:
            cure += ": one bias is that of reset_after=False, which is nn.ResetBeforeGRUCell here"
        elif array.ndim == 2 and len(array) == 2:
            cure += ": two biases are those of reset_after=True, which is nn.GRU here"
        raise _shape_error(cell, name, cure, origin)


def _check_shapes(ours: dict[str, Array], H: int, cell: FoundCell, origin: Origin) -> None:
    """Raise unless the recurrent matrix and a projection fit one another."""
    row, G = cell.row, len(cell.row.gates)
    R = ours["weight_hh"].shape[1]
    if "weight_hr" in ours and ours["weight_hr"].shape != (R, H):
        needed = (H, R) if row.transposed_hr else (R, H)
        raise _shape_error(cell, row.weight_hr[0], f"{needed} is needed", origin)
    if "weight_hr" not in ours and R != H:
        raise _shape_error(cell, row.weight_hh[0], f"({G} H, H) is needed", origin)


def _shape_error(cell: FoundCell, key: str, needed: str, origin: Origin) -> ShapeError:
    where = f"{cell.where}/{key}" if cell.where else key
    return ShapeError(f"{origin.op}: {where} has shape {cell.arrays[key].shape}: {needed}")


# -- to another library ----------------------------------------------------------------------------


def to_theirs(
    ours: Mapping[str, Array], row: Convention, where: str, origin: Origin
) -> dict[str, Array]:
    """Return the weights of a cell of ours by the keys of a convention.

    Parameters
    ----------
    ours : mapping of str to ndarray
        The names without a suffix.
    row : Convention
        That of the cell to fill.
    where : str
        The suffix of the names, for errors.
    origin : Origin
        The library and the call.

    Returns
    -------
    dict of str to ndarray
        Contiguous arrays by paths. Parts such as ``bias[0]`` are joined: as rows.

    Raises
    ------
    ArgumentError
        If the cell cannot hold the weights.
    """
    G = len(row.gates)
    H = len(ours["weight_hh"]) // G
    if "weight_hr" in ours and not row.weight_hr:
        origin.refuse(
            f"weight_hr{where}", f"a projection, which {origin.title}'s {row.cell} lacks",
            "make the layer without proj_size",
        )  # fmt: skip
    found: dict[str, Any] = {}
    matrices = [_theirs(ours[name], row) for name in ("weight_ih", "weight_hh")]
    if row.weight_ih == row.weight_hh:
        matrices = [np.concatenate(matrices, axis=1)]
    groups = (row.weight_ih, row.weight_hh)[: len(matrices)]
    for keys, matrix in zip(groups, matrices, strict=True):
        parts = np.split(matrix, len(keys))
        found |= zip(keys, [part.T if row.transposed else part for part in parts], strict=True)
    if "bias_ih" in ours or not row.bias_optional:
        found |= _their_biases(ours, row, H, where, origin)
    if "weight_hr" in ours:
        projection = ours["weight_hr"]
        found[row.weight_hr[0]] = projection.T if row.transposed_hr else projection
    return {key: np.ascontiguousarray(found[key]) for key in row.keys if key in found}


def _theirs(rows: Array, row: Convention) -> Array:
    return reordered(rows, OUR_GATES[row.layer], row.gates, row.complement)


def _their_biases(
    ours: Mapping[str, Array], row: Convention, H: int, where: str, origin: Origin
) -> dict[str, Array]:
    """Return the biases that a cell has, with the same sum as ours."""
    zeros = np.zeros(len(row.gates) * H, ours["weight_hh"].dtype)
    b_ih = np.array(ours.get("bias_ih", zeros))
    b_hh = np.array(ours.get("bias_hh", zeros))
    found: dict[str, Array] = {}
    if row.bias_hn:
        found[row.bias_hn[0]] = b_hh[-H:].copy()
        b_hh[-H:] = 0
    elif row.layer == "gru" and not row.bias_hh and b_hh[-H:].any():
        origin.refuse(
            f"bias_hh{where}",
            f"its part of n is not zero (largest {np.abs(b_hh[-H:]).max():.2g}), and "
            f"{origin.title}'s {row.cell} has no recurrent bias, which the reset gate multiplies",
            "use a cell that has it, such as GRUCell of Flax linen, or train the layer with a "
            "bias_hh of zero",
        )
    if not (row.bias_ih and row.bias_hh):  # one bias: the sum
        b_ih, b_hh = b_ih + b_hh, b_ih + b_hh
    if row.forget_offset:
        b_ih[H : 2 * H] -= row.forget_offset
    for keys, bias in ((row.bias_ih, b_ih), (row.bias_hh, b_hh)):
        if keys:
            found |= zip(keys, np.split(_theirs(bias, row), len(keys)), strict=True)
    halves = sorted(key for key in found if key.endswith("]"))
    if halves:
        name = halves[0].partition("[")[0]
        found = {name: np.stack([found.pop(key) for key in halves]), **found}
    return found
