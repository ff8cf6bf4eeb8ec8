"""The runtime of loops over time in C, `loop_runtime.c`, and the stages that it calls."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np

from . import compiled

KINDS = {"stage": 0, "product": 1, "zero": 2, "scale": 3, "ended": 4}


@functools.cache
def _source() -> str:
    folder = Path(__file__).parent
    products = folder.joinpath("products.c").read_text("utf-8")
    return folder.joinpath("loop_runtime.c").read_text("utf-8").replace("PRODUCTS\n", products)


def runtime() -> Any:
    """Return the library of the selected compiler."""
    return _runtime(compiled.compiler())


@functools.cache
def _runtime(compiler: Any) -> Any:
    library = ctypes.CDLL(str(compiler.library(_source(), ["-ffp-contract=fast", "-lpthread"])))
    library.run_program.argtypes, library.run_program.restype = [ctypes.c_void_p], ctypes.c_int
    library.matrix_product.argtypes = [ctypes.c_void_p]
    library.matrix_product.restype = ctypes.c_int
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
    """The arguments of ``run_program``: ``struct program`` of the C source."""

    def __init__(
        self,
        steps: int,
        rows: int,
        threads: int,
        names: list[str],
        buffers: Any,
        operations: Any,
        weight_names: list[Any],
        weights: Any,
        sizes: Any,
        numbers: Any,
        edge: Any,
        alive: Any,
        edge_alive: Any,
    ) -> None:
        def at(x: Any) -> int:
            return 0 if x is None else x.__array_interface__["data"][0]

        self.arrays = buffers, operations, weights, sizes, numbers, edge, alive, edge_alive
        self.head = np.array(
            [
                steps, rows, threads, len(names), at(buffers), len(operations), at(operations),
                len(weight_names), at(weights), at(sizes), at(numbers), at(edge), at(alive),
                at(edge_alive),
            ],
            np.intp,
        )  # fmt: skip

    def run(self) -> None:
        """Run the program."""
        if runtime().run_program(self.head.__array_interface__["data"][0]):
            raise MemoryError("scan: no memory for the packed weights of a loop over time")
