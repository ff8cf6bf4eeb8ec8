"""Indices on a GPU: a check that does not wait for the device.

CuPy reads ``x[i % n]`` for an index i out of range, and the host would have to wait for the device
to compare indices that are there. So each use of indices stores the largest of them in memory of
the host that the device can write to, a number for each operation and length. A value that is read
from the device waits for all that was computed before; the read that follows raises the error.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError

Array = Any
Module = Any
Use = tuple[str, int, bool]  # the operation, the length of the axis, whether -1 is its last element

_CELLS = 64  # in one piece of memory
_records: dict[tuple[Module, int], _Records] = {}


class _Records:
    """The largest index of each use on one device: unsigned, -size is 0 if it is the first."""

    def __init__(self, module: Module, device: int) -> None:
        self.module, self.device = module, device
        self.uses: list[Use] = []
        self.cells: dict[Use, Array] = {}  # one element of the device each
        self.pieces: list[tuple[Array, Array, Array]] = []  # on the host, on the device, the limits

    def cell(self, use: Use) -> Array:
        """Return the element of the device that holds the largest index of a use."""
        if use not in self.cells:
            piece, i = divmod(len(self.uses), _CELLS)
            if not i:
                self.pieces.append((*self._shared_memory(), np.full(_CELLS, 1, np.uint64)))
            _, on_device, limits = self.pieces[piece]
            limits[i] = use[1] * (1 + use[2])
            self.uses.append(use)
            self.cells[use] = on_device[i : i + 1]
        return self.cells[use]

    def _shared_memory(self) -> tuple[Array, Array]:
        """Return zeros in memory of the host, as an array of NumPy and as one of CuPy."""
        cuda, nbytes = self.module.cuda, 8 * _CELLS
        memory = cuda.alloc_pinned_memory(nbytes)
        on_host = np.frombuffer(memory, np.uint64, _CELLS)
        on_host[:] = 0
        memory = cuda.UnownedMemory(memory.ptr, nbytes, memory, self.device)
        pointer = cuda.MemoryPointer(memory, 0)
        return on_host, self.module.ndarray((_CELLS,), np.uint64, pointer)

    def report(self) -> None:
        """Raise for an index out of range; forget it, and the others."""
        found = None
        for piece, (on_host, _, limits) in enumerate(self.pieces):
            beyond = np.flatnonzero(on_host >= limits)
            if beyond.size and not found:
                use = self.uses[piece * _CELLS + beyond[0]]
                found = use, int(on_host.view(np.int64)[beyond[0]])
            on_host[beyond] = 0
        if found:
            (op, size, negative), place = found
            note = (
                f" (found on cuda:{self.device} when a later value was read; do not use the values)"
            )
            raise outside(op, place - size * negative, size, negative, note)


def outside(op: str, index: int, size: int, negative: bool, note: str = "") -> Exception:
    """Return the error about an index that is out of range.

    Parameters
    ----------
    op : str
        The operation.
    index, size : int
        The index, and the length of the axis.
    negative : bool
        Whether -1 is the last element.
    note : str
        The end of the message.

    Returns
    -------
    IndexError or ArgumentError
        To be raised.
    """
    if negative:
        text = f"index {index} is out of bounds for an axis of length {size}"
        return IndexError(f"{op}: {text}{note}")
    if op == "cross_entropy" and index < 0:
        note = f": if it is padding, pass ignore_index={index}{note}"
    return ArgumentError(f"{op}: id {index} is outside [0, {size}){note}")


def record(module: Module, indices: Array, size: int, op: str, negative: bool) -> None:
    """Check integers on a device; the next value read raises if one is out of range.

    Parameters
    ----------
    module : module
        CuPy.
    indices : array
        CuPy's, integers.
    size : int
        The length of the axis.
    op : str
        The operation, for the message.
    negative : bool
        Whether -1 is the last element, as in Python: the range is [-size, size), else [0, size).

    Raises
    ------
    ArgumentError or IndexError
        If the axis has no elements.
    """
    if not indices.size:
        return
    if not size:
        raise outside(op, int(indices[(0,) * indices.ndim].item()), size, negative)
    device = indices.device.id
    records = _records.get((module, device))
    if records is None:
        records = _records[module, device] = _Records(module, device)
    with indices.device:
        places = indices.astype(np.int64, copy=False)
        places = places + size if negative else places
        cell = records.cell((op, size, negative))
        module.maximum(cell, module.max(places.view(np.uint64)), out=cell)


def report() -> None:
    """Raise if an index was out of range, among those that the device has compared by now.

    Raises
    ------
    ArgumentError or IndexError
        Names the operation and the index.
    """
    for records in _records.values():
        records.report()
