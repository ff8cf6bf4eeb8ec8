"""Matrix products of a loop: cuBLAS by its own interface, on CuPy's handle.

CuPy's ``matmul`` makes arrays of its operands, copies those of other leading dimensions, and
refuses to be captured. Without the library each product is a call of ``matmul``.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import threading
from typing import Any, NamedTuple

import numpy as np

from ...engine import backend
from . import module

KINDS: dict[Any, tuple[int, int, Any]] = {  # of the numbers, of the computation
    np.dtype("float32"): (0, 68, ctypes.c_float),
    np.dtype("float64"): (1, 70, ctypes.c_double),
}
NAMES = ("libcublas.so.13", "libcublas.so.12", "libcublas.so.11")  # CuPy has loaded one of them
WORKSPACE = 32 << 20  # bytes of a graph, as NVIDIA recommends for these devices
DEFAULT_ALGORITHM, HOST_POINTERS = -1, 0


class Weight(NamedTuple):
    """The right operand of products, (depth, columns): row-major, or `transposed`."""

    address: int
    stride: int  # elements from one row or column to the next
    transposed: bool
    depth: int
    columns: int
    dtype: Any

    @classmethod
    def of(cls, array: Any, held: list[Any], module: Any) -> Weight:
        """Return the operand of an array; a copy in C order if no axis is contiguous."""
        (depth, columns), size = array.shape, array.itemsize
        row, column = (s // size for s in array.strides)
        if column == 1 or columns == 1:
            if (columns == 1 and row < 1) or (columns > 1 and row < columns and depth > 1):
                array = module.ascontiguousarray(array)
                row = columns
            held.append(array)
            return cls(array.data.ptr, max(row, columns), False, depth, columns, array.dtype)
        if (row == 1 or depth == 1) and column >= depth:
            held.append(array)
            return cls(array.data.ptr, max(column, depth), True, depth, columns, array.dtype)
        array = module.ascontiguousarray(array)
        held.append(array)
        return cls(array.data.ptr, columns, False, depth, columns, array.dtype)


class Products:
    """Products by CuPy: an array for each operand, and a call of ``matmul``."""

    workspace: Any = None  # of the graph that is being captured

    def __init__(self, module: Any) -> None:
        self.module = module

    def begin(self) -> None:
        """Prepare products on the current stream."""

    def __call__(
        self, rows: int, a: int, lda: int, w: Weight, out: int, ldo: int, adds: bool,
        transposed: bool = False,
    ) -> None:  # fmt: skip
        """Compute out = a @ w for `rows` rows; `lda` and `ldo` are elements between rows.

        `adds`: out += a @ w; `transposed`: a is column-major.
        """
        weight = self._matrix(w.address, (w.depth, w.columns), w.stride, w.dtype, w.transposed)
        left = self._matrix(a, (rows, w.depth), lda, w.dtype, transposed)
        made = self._matrix(out, (rows, w.columns), ldo, w.dtype)
        if adds:
            made += self.module.matmul(left, weight)
        else:
            self.module.matmul(left, weight, out=made)

    def multiply(self, x: Any, y: Any, out: Any) -> bool:
        """Compute out = x @ y for matrices; return whether it is done."""
        return False

    def _matrix(
        self, at: int, shape: tuple[int, int], stride: int, dtype: Any, transposed: bool = False
    ) -> Any:
        cuda, size = self.module.cuda, dtype.itemsize
        memory = cuda.UnownedMemory(at, 1, None)
        strides = (size, stride * size) if transposed else (stride * size, size)
        return self.module.ndarray(shape, dtype, cuda.MemoryPointer(memory, 0), strides)


class CuBlas(Products):
    """Products by ``cublasGemmEx``: operands of any leading dimension."""

    def __init__(self, module: Any, library: Any) -> None:
        super().__init__(module)
        word, number = ctypes.c_void_p, ctypes.c_int
        self._gemm = library.cublasGemmEx
        self._gemm.argtypes = [
            word, number, number, number, number, number, word, word, number, number, word, number,
            number, word, word, number, number, number, number,
        ]  # fmt: skip
        self._set_stream = _function(library, "cublasSetStream", [word, word])
        self._set_mode = _function(library, "cublasSetPointerMode", [word, number])
        self._set_workspace = _function(
            library, "cublasSetWorkspace", [word, word, ctypes.c_size_t]
        )
        self._one = {t: kind(1) for t, (_, _, kind) in KINDS.items()}
        self._zero = {t: kind(0) for t, (_, _, kind) in KINDS.items()}

    def begin(self) -> None:
        """Prepare products on the current stream."""
        cuda = self.module.cuda
        self.handle = cuda.device.get_cublas_handle()
        self._set_stream(self.handle, cuda.get_current_stream().ptr)
        self._set_mode(self.handle, HOST_POINTERS)
        if (
            self.workspace is not None and self._set_workspace is not None
        ):  # after the stream, which resets it
            self._set_workspace(self.handle, self.workspace.data.ptr, self.workspace.nbytes)

    def __call__(
        self, rows: int, a: int, lda: int, w: Weight, out: int, ldo: int, adds: bool,
        transposed: bool = False,
    ) -> None:  # fmt: skip
        """Compute out = a @ w, which is outᵀ = wᵀ aᵀ in the column-major order of BLAS."""
        kind, compute, _ = KINDS[w.dtype]
        one, old = self._one[w.dtype], (self._one if adds else self._zero)[w.dtype]
        status = self._gemm(
            self.handle, int(w.transposed), int(transposed), w.columns, rows, w.depth,
            ctypes.addressof(one), w.address, kind, w.stride, a, kind, lda,
            ctypes.addressof(old), out, kind, ldo, compute, DEFAULT_ALGORITHM,
        )  # fmt: skip
        if status:
            raise RuntimeError(
                f"a product: cublasGemmEx failed with status {status} for {rows} x {w.depth} times "
                f"{w.depth} x {w.columns} of {w.dtype}"
            )

    def multiply(self, x: Any, y: Any, out: Any) -> bool:
        """Compute out = x @ y for matrices whose rows or columns are contiguous."""
        (rows, depth), columns = x.shape, y.shape[1]
        sides = [_side(m) for m in (y, x, out)]
        if out.dtype not in KINDS or None in sides or not rows * depth * columns:
            return False
        (across, ldy), (over, ldx), (turned, ldo) = sides  # type: ignore[misc]
        if turned:
            return False
        self.begin()
        right = Weight(y.data.ptr, ldy, across, depth, columns, out.dtype)
        self(rows, x.data.ptr, ldx, right, out.data.ptr, ldo, False, over)
        return True


def _side(x: Any) -> tuple[bool, int] | None:
    """Return whether a matrix is column-major, and its leading dimension; None for others."""
    (rows, columns), size = x.shape, x.itemsize
    row, column = (s // size for s in x.strides)
    if (column == 1 or columns == 1) and (row >= columns or rows == 1):
        return False, max(row, columns) if rows > 1 else columns
    if (row == 1 or rows == 1) and (column >= rows or columns == 1):
        return True, max(column, rows) if columns > 1 else rows
    return None


def _function(library: Any, name: str, arguments: list[Any]) -> Any:
    """Return a function, by the name of its present version; None if the library lacks it."""
    found = getattr(library, f"{name}_v2", None) or getattr(library, name, None)
    if found is not None:
        found.argtypes, found.restype = arguments, ctypes.c_int
    return found


class _OfThread(threading.local):
    """The products of a thread: CuPy has a handle of cuBLAS for each thread."""

    def __init__(self) -> None:
        self.made: dict[Products, Products] = {}


_found: dict[Any, Products] = {}
_of_thread = _OfThread()


def products(module: Any) -> Products:
    """Return this thread's products of CuPy's arrays: by cuBLAS if its library is found."""
    if module not in _found:
        library = _library(module)
        use(module, Products(module) if library is None else CuBlas(module, library))
    shared, made = _found[module], _of_thread.made
    if shared not in made:
        made[shared] = copy.copy(shared)
    return made[shared]


def use(module: Any, products: Products) -> None:
    """Select how the products of a library of arrays are computed."""
    _found[module] = products


def _library(module: Any) -> Any:
    """Return the library that CuPy uses; None if it is not found."""
    module.cuda.device.get_cublas_handle()  # loads it
    for name in (None, *NAMES):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(name)
            if hasattr(library, "cublasGemmEx"):
                return library
    return None


def product(x: Any, y: Any, out: Any) -> Any:
    """Return x @ y for matrices of one dtype on the current device, in `out` if it is given."""
    xp = backend.module_of(x)
    if x.ndim != 2 or y.ndim != 2 or x.dtype != y.dtype or x.dtype not in KINDS:
        return NotImplemented
    here = xp.cuda.Device().id
    if x.device.id != here or y.device.id != here:
        return NotImplemented
    made = xp.empty((x.shape[0], y.shape[1]), dtype=x.dtype) if out is None else out
    x, y = (m if _side(m) else xp.ascontiguousarray(m) for m in (x, y))
    try:
        return made if products(xp).multiply(x, y, made) else NotImplemented
    except RuntimeError as error:
        if products(xp).workspace is not None:  # the capture fails, no more
            raise
        module.fall_back(error, "operations")
        return NotImplemented


module.register(product)
