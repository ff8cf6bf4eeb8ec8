"""The runtime in C, `loop_runtime.c` and `training_step.c`, and the stages that it calls."""

from __future__ import annotations

import array
import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np

from . import compiled, threads

KINDS = {"stage": 0, "product": 1, "zero": 2, "scale": 3, "ended": 4}
WORD = np.dtype(np.intp)
HEAD, BUFFER, WEIGHT = 15, 4, 6  # words of the structures of the C source


@functools.cache
def _source() -> str:
    folder = Path(__file__).parent
    products, runtime, training_step = (
        folder.joinpath(f"{name}.c").read_text("utf-8")
        for name in ("products", "loop_runtime", "training_step")
    )
    functions = "".join(map(compiled.math_functions, ("float", "double")))
    head = f"enum {{ OBJECT_HEAD = {object.__basicsize__} }};\n"
    return "".join(
        [runtime.replace("PRODUCTS\n", products), compiled.PREAMBLE, functions, head, training_step]
    )


def runtime() -> Any:
    """Return the library of the selected compiler."""
    return _runtime(compiled.compiler())


@functools.cache
def _runtime(compiler: Any) -> Any:
    library = ctypes.CDLL(str(compiler.library(_source(), ["-ffp-contract=fast", "-lpthread"])))
    library.run_program.argtypes, library.run_program.restype = [ctypes.c_void_p], ctypes.c_int
    for name in (
        "matrix_product",
        "clip_gradients",
        "update_parameters",
        "add_rows",
        "cross_entropy",
    ):
        function = getattr(library, name)
        function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_int
    return library


_stages: dict[Any, Any] = {}


def load_stages(source: str, count: int) -> list[int]:
    """Compile stages; return the addresses of their functions."""
    compiler = compiled.compiler()
    assert compiler is not None
    key = compiler.identity, source
    if key not in _stages:
        library = ctypes.CDLL(str(compiler.library(source)))
        address = [
            ctypes.cast(getattr(library, f"stage{i}"), ctypes.c_void_p).value for i in range(count)
        ]
        _stages[key] = library, address
    found: list[int] = _stages[key][1]
    return found


class Program:
    """The arguments of ``run_program`` but for addresses: ``struct program`` of the C source.

    A call copies them to one block of integers: the structure, the table of the buffers (address,
    step after even and after odd steps, row; in bytes), and that of the weights.
    """

    def __init__(
        self,
        rows: int,
        row_sizes: list[int],
        operations: Any,
        weights: int,
        sizes: Any,
        numbers: Any,
    ) -> None:
        self.arrays = operations, sizes, numbers  # the block refers to them
        self.buffers, self.weights = HEAD, HEAD + BUFFER * len(row_sizes)
        block = [0] * (self.weights + WEIGHT * weights)
        block[1], block[4], block[6], block[8] = rows, len(row_sizes), len(operations), weights
        block[7], block[10], block[11] = map(address, self.arrays)
        block[self.buffers + BUFFER - 1 : self.weights : BUFFER] = row_sizes
        self._block = array.array(WORD.char, block)

    def block(self) -> Any:
        """Return the integers of one call."""
        return self._block[:]

    def run(
        self, block: Any, steps: int, count: int, edge: Any, alive: Any, edge_alive: Any
    ) -> None:
        """Run the program."""
        at = block.buffer_info()[0]
        block[0], block[2], block[3] = steps, count, threads.limit()
        block[5], block[9] = at + self.buffers * WORD.itemsize, at + self.weights * WORD.itemsize
        for i, x in ((12, edge), (13, alive), (14, edge_alive)):
            if x is not None:
                block[i] = address(x)
        if runtime().run_program(at):
            raise MemoryError("scan: no memory for the packed weights of a loop over time")


_character = ctypes.c_char
_from_buffer, _addressof = _character.from_buffer, ctypes.addressof


def address(x: Any) -> int:
    """Return the address of the first element of an array."""
    try:
        return _addressof(_from_buffer(x))
    except (TypeError, ValueError, BufferError):  # read-only, empty or not contiguous: slower
        found: int = x.__array_interface__["data"][0]
        return found
