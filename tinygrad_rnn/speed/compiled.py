"""A kernel as one loop in C, compiled by the system's compiler.

A schedule of ufuncs passes over its arrays once per operation, and each call of a ufunc has an
overhead of 0.5 µs. A loop in C passes once, keeps intermediate values in registers, and
costs 0.2 µs per call.

The source has three parts:

- the *math functions*: exp, log and others without branches, so that the compiler can vectorize the
  loop. Their error is below two units in the last place. An element's result does not depend on its
  position. Sums, products and quotients equal NumPy's to the bit: no two operations are contracted
  (``-ffp-contract=off``), and nothing assumes finite numbers. Unlike a ufunc, a loop does not warn
  of an overflow or a division by zero.
- the *loops*, one for each layout of `loops.Loop`.
- the *strided loop* (``strided_loop.c``): the function that Python calls with arrays. It merges
  axes that are contiguous in all arrays, and calls a loop for each remaining row. A tile of an
  argument with another stride is copied first, so that the loops read contiguous memory only.

`compiler` runs the compiler and caches the compiled libraries.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from .compiler import Compiler, load
from .loops import Loop, c_type
from .math_functions import ARRAY, PREAMBLE, math_functions

# -- the source ------------------------------------------------------------------------------------

LOOP = Template(r"""
static void loop$layout(intptr_t n, $parameters)
{
    for (intptr_t i = 0; i < n; i++) {
        $body
    }
}
""")

RUN = Template(r"""
enum {
    ACCESSES = $accesses,
    FIRST_OUTPUT = $first_output,
    LAYOUTS = $layouts
};
static const intptr_t size[ACCESSES] = { $sizes };
static const bool broadcast[LAYOUTS][ACCESSES] = { $broadcast };

static void run(int layout, intptr_t n, char *const *pointer)
{
    switch (layout) {
    $cases
    }
}

""")


def fixed_loads(lines: Sequence[str], fixed: Sequence[int]) -> list[str]:
    """Return the lines of a loop, in which some loads are one element for the whole loop."""
    if not fixed:
        return list(lines)
    of_fixed = re.compile(rf"\b(a({'|'.join(map(str, fixed))})\)?)\[i\]")
    return [of_fixed.sub(r"\1[0]", line) for line in lines]


def source(loop: Loop) -> str:
    """Return the C source of a loop: math functions, loops and strided loop."""
    dtypes = [x.dtype for x, *_ in (*loop.loads, *loop.stores)]
    count = len(loop.loads)
    types = [f"const {c_type(t)}" for t in dtypes[:count]] + [c_type(t) for t in dtypes[count:]]
    names = [*(f"a{k}" for k in range(count)), *(f"r{k}" for k in range(len(types) - count))]
    parameters = ", ".join(f"{T} *restrict {x}" for T, x in zip(types, names, strict=True))
    pointers = ", ".join(f"({T} *)pointer[{k}]" for k, T in enumerate(types))
    loops, cases, broadcast = [], [], []
    for layout, fixed in enumerate(loop.layouts):
        lines = fixed_loads(loop.lines, fixed)
        body = "\n        ".join(lines)
        loops.append(LOOP.substitute(layout=layout, parameters=parameters, body=body))
        cases.append(f"case {layout}: loop{layout}(n, {pointers}); break;")
        flags = ", ".join(str(int(k in fixed)) for k in range(len(types)))
        broadcast.append(f"{{ {flags} }}")
    run = RUN.substitute(
        sizes=", ".join(f"sizeof({T})" for T in types),
        broadcast=", ".join(broadcast),
        cases="\n    ".join(cases),
        accesses=len(types),
        first_output=count,
        layouts=len(loop.layouts),
    )
    functions = [math_functions(T) for T in ("float", "double") if f"_{T}(" in "".join(loops)]
    strided_loop = Path(__file__).with_name("strided_loop.c").read_text("utf-8")
    return "".join([PREAMBLE, ARRAY, *functions, *loops, run, strided_loop])


# -- a kernel --------------------------------------------------------------------------------------


def kernel(loop: Loop, compiler: Compiler) -> Callable[..., bool]:
    """Return the function that runs a loop.

    It takes NumPy arrays of the compiled dtypes: the inputs, which broadcast, then the outputs. It
    fills the outputs and returns True. If an array is not aligned, or the outputs differ in memory
    order, it does nothing and returns False.
    """
    accesses = [access for _, *access in (*loop.loads, *loop.stores)]
    table = np.array([loop.width, *np.ravel(accesses)], np.intp)
    return _load(source(loop), compiler)(table.tobytes())


_lock = threading.Lock()
_loaded: dict[tuple[str, str], Any] = {}


def _load(text: str, compiler: Compiler) -> Any:
    """Compile a source, and return its function ``bind``."""
    with _lock:
        if (compiler.identity, text) not in _loaded:
            bind = load(compiler.library(text), ctypes.PyDLL).bind
            bind.argtypes, bind.restype = [ctypes.py_object], ctypes.py_object
            _loaded[compiler.identity, text] = bind
        return _loaded[compiler.identity, text]
