"""The runtime in C, `loop_runtime.c` and `training_step.c`, and the stages that it calls."""

from __future__ import annotations

import array
import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import proof, threads
from .compiler import Compiler, load, selected
from .math_functions import ARRAY, PREAMBLE, math_functions

KINDS = {"stage": 0, "product": 1, "zero": 2, "scale": 3, "ended": 4}
WORD = np.dtype(np.intp)
_POINTER, _INTEGER = ctypes.c_void_p, ctypes.c_ssize_t
HEAD, BUFFER, WEIGHT = 15, 4, 6  # words of the structures of the C source


# In place of those of NumPy, by their names in `engine.ops.kernels.faster`.
FUNCTIONS: dict[str, Callable[..., Any]] = {}


@functools.cache
def _source() -> str:
    folder = Path(__file__).parent
    products, runtime, training_step = (
        folder.joinpath(f"{name}.c").read_text("utf-8")
        for name in ("products", "loop_runtime", "training_step")
    )
    functions = "".join(map(math_functions, ("float", "double")))
    runtime = runtime.replace("PRODUCTS\n", products).replace("ARRAY\n", ARRAY)
    return "".join([runtime, PREAMBLE, functions, training_step])


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
    for name in (
        "matrix_product",
        "clip_gradients",
        "update_parameters",
        "add_rows",
        "cross_entropy",
    ):
        function = getattr(library, name)
        function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_int
    array_product = library.array_product
    array_product.argtypes, array_product.restype = [_POINTER] * 4 + [_INTEGER] * 2, ctypes.c_int
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
        self.complete(block, steps, count, edge, alive, edge_alive)
        if runtime().run_program(block.buffer_info()[0]):
            raise MemoryError("scan: no memory for the packed weights of a loop over time")

    def complete(
        self, block: Any, steps: int, count: int, edge: Any, alive: Any, edge_alive: Any
    ) -> None:
        """Write all but the addresses of the buffers and of the weights to a block."""
        at = block.buffer_info()[0]
        block[0], block[2], block[3] = steps, count, threads.limit()
        block[5], block[9] = at + self.buffers * WORD.itemsize, at + self.weights * WORD.itemsize
        for i, x in ((12, edge), (13, alive), (14, edge_alive)):
            if x is not None:
                block[i] = address(x)


_character = ctypes.c_char
_from_buffer, _addressof = _character.from_buffer, ctypes.addressof


def address(x: Any) -> int:
    """Return the address of the first element of an array."""
    flags = x.flags
    try:
        return _addressof(_from_buffer(x if flags.c_contiguous or not flags.f_contiguous else x.T))
    except (TypeError, ValueError, BufferError):  # read-only, empty or not contiguous: slower
        found: int = x.__array_interface__["data"][0]
        return found


# -- the proof -------------------------------------------------------------------------------------

SHAPES = ((1, 1, 1), (7, 300, 70), (33, 20, 130), (1, 64, 50), (50, 64, 1), (70, 90, 9))
LOOPS = ((9, 33), (1, 3))  # steps and rows: s = s @ w / 2; the second does not pack the weight
WIDTH, ROOM = 20, 64


def _prove(compiler: Compiler, path: Path) -> None:
    """Raise a CompilerError unless products and a loop, run in a child, are those of NumPy."""
    rng = np.random.default_rng(0)
    calls: list[Any] = []
    others: list[Any] = []
    compared: list[tuple[Any, Any]] = []
    for dtype in map(np.dtype, ("float32", "float64")):
        for i, (m, k, n) in enumerate(SHAPES):
            x, y = (rng.uniform(-1, 1, shape).astype(dtype) for shape in ((m, k), (k, n)))
            x, y = (np.asfortranarray(x), y) if i % 2 else (x, np.asfortranarray(y))
            out = np.full((m, n), np.nan, dtype)
            calls.append(("matrix_product", [_operands(x, y, out, 1 + i % 2)]))
            others += [x, y, out]
            compared.append((out, x @ y))
        for steps, rows in LOOPS:
            state = rng.uniform(-1, 1, (2, rows, ROOM)).astype(dtype)
            weight = rng.uniform(-1, 1, (WIDTH, WIDTH)).astype(dtype)
            expected = state[0, :, :WIDTH]
            for _ in range(steps):
                expected = expected @ weight / 2
            block, arrays = _loop(steps, state, weight)
            calls.append(("run_program", [block]))
            others += arrays
            compared.append((state[steps % 2, :, :WIDTH], expected))
    failed = any(proof.run(compiler, path, calls, others))
    for found, expected in compared:
        near = 1e-4 if found.dtype == np.float32 else 1e-11
        if failed or not np.allclose(found, expected, near, near):
            raise proof.failure(compiler, "products of matrices are wrong")


def _operands(x: Any, y: Any, out: Any, count: int) -> Any:
    """Return the argument of ``matrix_product``, ``struct operands``, for out = x @ y."""
    (m, k), n, width = x.shape, y.shape[1], x.itemsize
    (a, b), (c, d) = x.strides, y.strides
    words = (
        m, n, k, width, count, address(x), a // width, 1 if k == 1 else b // width, address(y),
        c // width, d // width, address(out), n, 1, 0, 0,
    )  # fmt: skip
    return np.array(words, WORD)


def _loop(steps: int, state: Any, weight: Any) -> tuple[Any, list[Any]]:
    """Return the program that multiplies a state with a matrix and halves it, and its arrays."""
    size, row, width = state.strides
    rows = state.shape[1]
    first = state.__array_interface__["data"][0]
    operations = [
        [KINDS["product"], 1, 0, width, WIDTH, 0, 0],
        [KINDS["scale"], 1, -1, width, WIDTH, 0, 0],
    ]
    program = Program(
        rows, [row, row], np.array(operations, WORD), 1, np.zeros(1, WORD), np.zeros(1)
    )
    edge = np.full(steps, 0.5)
    block = program.block()
    program.complete(block, steps, 2, edge, None, None)
    found = np.frombuffer(block, WORD)
    for at, place in ((0, [first, size, -size]), (BUFFER, [first + size, -size, size])):
        found[program.buffers + at : program.buffers + at + 3] = place
    found[program.weights : program.weights + WEIGHT] = [
        weight.__array_interface__["data"][0], WIDTH, 1, WIDTH, WIDTH, width,
    ]  # fmt: skip
    return found, [state, weight, edge, *program.arrays]
