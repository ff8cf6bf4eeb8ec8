"""The runtime of loops over time in C, `loop_runtime.c`, and the stages that it calls."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np

from . import proof
from .compiler import Compiler, load, selected

KINDS = {"stage": 0, "product": 1, "zero": 2, "scale": 3, "ended": 4}


@functools.cache
def _source() -> str:
    folder = Path(__file__).parent
    products = folder.joinpath("products.c").read_text("utf-8")
    return folder.joinpath("loop_runtime.c").read_text("utf-8").replace("PRODUCTS\n", products)


def runtime() -> Any:
    """Return the library of the selected compiler."""
    return load_runtime(selected[0])


@functools.cache
def load_runtime(compiler: Compiler) -> Any:
    """Return the library of a compiler."""
    flags = ["-ffp-contract=fast", "-lpthread"]
    if compiler.kept(_source(), flags) is None:
        proof.child(compiler)  # fails in a tenth of a second if nothing can be compiled or run
    library = load(compiler.library(_source(), flags, functools.partial(_prove, compiler)))
    library.run_program.argtypes, library.run_program.restype = [ctypes.c_void_p], ctypes.c_int
    library.matrix_product.argtypes = [ctypes.c_void_p]
    library.matrix_product.restype = ctypes.c_int
    return library


_stages: dict[Any, Any] = {}


def load_stages(source: str, count: int) -> list[int]:
    """Compile stages; return the addresses of their functions."""
    compiler = selected[0]
    assert compiler is not None
    key = compiler.identity, source
    if key not in _stages:
        prove = functools.partial(proof.prove_stages, compiler, source, count)
        library = load(compiler.library(source, proof=prove))
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


def operands(x: Any, y: Any, out: Any, threads: int) -> Any:
    """Return the argument of ``matrix_product``, ``struct operands``, for out = x @ y."""
    (m, k), n, width = x.shape, y.shape[1], x.itemsize
    (a, b), (c, d) = x.strides, y.strides
    return np.array(
        [
            m, n, k, width, threads, x.__array_interface__["data"][0], a // width,
            1 if k == 1 else b // width, y.__array_interface__["data"][0], c // width, d // width,
            out.__array_interface__["data"][0], n, 0,
        ],
        np.intp,
    )  # fmt: skip


# -- the proof -------------------------------------------------------------------------------------

SHAPES = ((1, 1, 1), (7, 300, 70), (33, 20, 130), (1, 64, 50), (50, 64, 1))  # of products
STEPS, ROWS, WIDTH, ROOM = 3, 9, 20, 64  # of a loop: s = s @ w / 2


def _prove(compiler: Compiler, path: Path) -> None:
    """Raise a CompilerError unless products and a loop, run in a child, are those of NumPy."""
    rng = np.random.default_rng(0)
    calls: list[Any] = []
    others: list[Any] = []
    compared: list[tuple[Any, Any]] = []
    for dtype in map(np.dtype, ("float32", "float64")):
        for i, (m, k, n) in enumerate(SHAPES):
            x, y = (rng.uniform(-1, 1, shape).astype(dtype) for shape in ((m, k), (k, n)))
            y = y if i % 2 else np.asfortranarray(y)
            out = np.full((m, n), np.nan, dtype)
            calls.append(("matrix_product", [operands(x, y, out, 1 + i % 2)]))
            others += [x, y, out]
            compared.append((out, x @ y))
        state = rng.uniform(-1, 1, (2, ROWS, ROOM)).astype(dtype)
        weight = rng.uniform(-1, 1, (WIDTH, WIDTH)).astype(dtype)
        expected = state[0, :, :WIDTH]
        for _ in range(STEPS):
            expected = expected @ weight / 2
        program = _loop(state, weight)
        calls.append(("run_program", [program.head]))
        others += [state, weight, *program.arrays]
        compared.append((state[STEPS % 2, :, :WIDTH], expected))
    others = [x for x in others if x is not None]
    failed = any(proof.run(compiler, path, calls, others))
    for found, expected in compared:
        near = 1e-4 if found.dtype == np.float32 else 1e-11
        if failed or not np.allclose(found, expected, near, near):
            raise proof.failure(compiler, "products of matrices are wrong")


def _loop(state: Any, weight: Any) -> Program:
    """Return the program that multiplies a state with a matrix and halves it, in turns."""
    size, width = state.strides[0], state.itemsize
    first = state.__array_interface__["data"][0]
    buffers = [
        [first, size, -size, state.strides[1]],
        [first + size, -size, size, state.strides[1]],
    ]
    operations = [
        [KINDS["product"], 1, 0, width, WIDTH, 0, 0, 0],
        [KINDS["scale"], 1, -1, width, WIDTH, 0, 0, 0],
    ]
    at = weight.__array_interface__["data"][0]
    weights = [[at, WIDTH, 1, WIDTH, WIDTH, width]]
    return Program(
        STEPS, ROWS, 2, ["state", "new"], np.array(buffers, np.intp), np.array(operations, np.intp),
        [weight], np.array(weights, np.intp), np.zeros(1, np.intp), np.zeros(1),
        np.full(STEPS, 0.5), None, None,
    )  # fmt: skip
