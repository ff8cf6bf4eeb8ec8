"""A kernel as one loop in C, compiled by the system's compiler after ``fuse.backend("c")``.

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

`compiler` finds the compiler and caches the compiled libraries.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Callable, Sequence
from math import factorial
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..engine.ops import kernels
from ..errors import ArgumentError, CompilerError
from .loops import Loop, c_type

if TYPE_CHECKING:
    from .compiler import Compiler

# -- math functions without branches ---------------------------------------------------------------


def _polynomial(x: str, coefficients: Sequence[float], T: str) -> str:
    """Return c0 + c1 x + c2 x² + … in Horner's form."""
    *rest, text = (f"({T}){c!r}" for c in coefficients)
    for c in reversed(rest):
        text = f"fused_{T}({text}, {x}, {c})"
    return text


class _Format(NamedTuple):
    """A floating-point format, with the lengths of the series for its precision."""

    T: str
    word: str  # the unsigned integer of the same size
    mantissa: int
    bias: int
    high: str  # the leading bits of log 2: few, so that their product with an exponent is exact
    low: str  # log 2 - high
    zero: float  # exp is 0 from here down
    infinite: float  # and infinite from here up
    one: float  # expm1 is -1 below the negative, tanh 1 above
    exp: int  # the degree of the series of exp, for |x| <= log(2) / 2
    log: int  # the number of terms of the series of artanh, for x² <= 0.03


FORMATS = [
    _Format("float", "uint32_t", 23, 127, "0x1.63p-1f", "-0x1.bd0106p-13f",
            -105, 89, 20, 7, 5),
    _Format("double", "uint64_t", 52, 1023, "0x1.62e42feep-1", "0x1.a39ef35793c76p-33",
            -746, 710, 40, 13, 11),
]  # fmt: skip

# exp: x = n log 2 + r, and exp(x) - 1 = 2^n (exp(r) - 1) + (2^n - 1), with Taylor's series for
# exp(r) - 1. Adding 1.5 * 2^mantissa rounds to an integer, which is then in the lowest bits.
# 2^n is assembled from its bits; in exp it has two factors, so that the last product rounds to a
# denormal number or overflows.
# log: x = 2^n m with m in [√½, √2), f = m - 1, s = f / (2 + f), log m = 2 artanh(s), written as in
# FreeBSD's msun so that f, which is exact, is added last.
MATH_FUNCTIONS = Template(
    r"""
typedef union { $T value; $word bits; } both_$T;
static inline $word bits_$T($T x) { return (both_$T) { .value = x }.bits; }
static inline $T value_$T($word x) { return (both_$T) { .bits = x }.value; }

/* exp(r) - 1 for x = n log(2) + r */
static inline $T reduced_$T($T x, $word *n)
{
    const $T magic = ($T)1.5 * (($word)1 << $mantissa);
    const $T shifted = fused_$T(x, ($T)0x1.71547652b82fep0, magic), whole = shifted - magic;
    const $T r = fused_$T(whole, -($low), fused_$T(whole, -($high), x));
    *n = bits_$T(shifted) - bits_$T(magic);
    return fused_$T(r * r, $EXP, r);
}

static inline $T exp_$T($T x)
{
    $word n;
    const $T p = reduced_$T(x < $zero ? $zero : x > $infinite ? $infinite : x, &n);
    const $word twice = n + 2 * $bias, half = twice >> 1;
    return (1 + p) * value_$T(half << $mantissa) * value_$T((twice - half) << $mantissa);
}

static inline $T expm1_$T($T x)
{
    $word n;
    const $T p = reduced_$T(x < -$one ? -$one : x > $infinite ? $infinite : x, &n);
    const $T half = value_$T((n + $bias - 1) << $mantissa);
    return copysign(2 * fused_$T(half, p, half - ($T)0.5), x);
}

/* t / (t + 2) with t = expm1(2 |x|) */
static inline $T tanh_$T($T x)
{
    $word n;
    const $T twice = 2 * fabs(x);
    const $T p = reduced_$T(twice > $one ? $one : twice, &n);
    const $T scale = value_$T((n + $bias) << $mantissa), t = fused_$T(scale, p, scale - 1);
    return copysign(t / (t + 2), x);
}

static inline $T log_$T($T x)
{
    const $T two = ($word)1 << $mantissa, least = value_$T(($word)1 << $mantissa);
    const $word root = bits_$T(($T)0x1.6a09e667f3bcdp-1);
    const $word moved = bits_$T(x < least ? x * two : x) - root + (($word)$bias << $mantissa);
    const $T n = value_$T(bits_$T(two) | moved >> $mantissa) - (two + $bias)
        - (x < least ? ($T)$mantissa : 0);
    const $T f = value_$T((moved & ((($word)1 << $mantissa) - 1)) + root) - 1;
    const $T s = f / (2 + f), z = s * s, h = ($T)0.5 * f * f;
    const $T y = n * ($high) - ((h - fused_$T(s, h + $LOG, n * ($low))) - f);
    return x > 0 ? x < INFINITY ? y : x : x == 0 ? -INFINITY : NAN;
}

/* log(1 + x), corrected for the rounding error of 1 + x */
static inline $T log1p_$T($T x)
{
    const $T u = 1 + x, lost = (x - (u - 1)) / u;
    const $T y = log_$T(u) + ((u > 0) & (u < INFINITY) ? lost : 0);
    return x == 0 ? x : y;
}

static inline $T logaddexp_$T($T x, $T y)
{
    const $T greater = (x >= y) | (x != x) ? x : y;
    return greater + log1p_$T(exp_$T(x == y ? 0 : -fabs(x - y)));
}
"""
)


def math_functions(T: str) -> str:
    """Return the C source of the math functions for ``float`` or ``double``."""
    own = next(f for f in FORMATS if f.T == T)
    exp = _polynomial("r", [1 / factorial(k) for k in range(2, own.exp + 1)], T)
    log = _polynomial("z", [0.0, *(2 / (2 * k + 3) for k in range(own.log))], T)
    return MATH_FUNCTIONS.substitute({**own._asdict(), "EXP": exp, "LOG": log})


# -- the source ------------------------------------------------------------------------------------

PREAMBLE = r"""#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <tgmath.h>

#if defined(__FMA__) || defined(__aarch64__) || defined(__FP_FAST_FMA)
#define fused_float(a, b, c) __builtin_fmaf(a, b, c)
#define fused_double(a, b, c) __builtin_fma(a, b, c)
#else
#define fused_float(a, b, c) ((a) * (b) + (c))
#define fused_double(a, b, c) ((a) * (b) + (c))
#endif
"""

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
    LAYOUTS = $layouts,
    OBJECT_HEAD = $object
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
        object=object.__basicsize__,
    )
    functions = [math_functions(own.T) for own in FORMATS if f"_{own.T}(" in "".join(loops)]
    strided_loop = Path(__file__).with_name("strided_loop.c").read_text("utf-8")
    return "".join([PREAMBLE, *functions, *loops, run, strided_loop])


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
            path = compiler.library(text)
            try:
                bind = ctypes.PyDLL(str(path)).bind
            except OSError as error:
                raise CompilerError(
                    f"fuse.backend: {path} cannot be loaded ({error}); name a folder that programs "
                    "may run from in the environment variable XDG_CACHE_HOME"
                ) from error
            bind.argtypes, bind.restype = [ctypes.py_object], ctypes.py_object
            _loaded[compiler.identity, text] = bind
        return _loaded[compiler.identity, text]


# -- the backend -----------------------------------------------------------------------------------

BACKENDS = ("numpy", "c")
FUNCTIONS: dict[str, Callable[..., Any]] = {}  # in C, for `engine.ops.kernels.faster`
selected: list[Compiler | None] = []  # empty before the first call of `compiler`


def compiler() -> Compiler | None:
    """Return the selected compiler; None if kernels run as schedules of ufuncs."""
    if not selected:
        backend(os.environ.get("TINYGRAD_RNN_FUSE") or "numpy")
    return selected[0]


def backend(name: str | None = None) -> str:
    """Select the backend of fused kernels on the CPU, or return its name.

    Parameters
    ----------
    name : {"numpy", "c"}, optional
        "numpy", the default, runs a schedule of ufuncs. "c" compiles each kernel to one loop. This
        takes a fraction of a second at the first call of a kernel. The libraries are cached in
        ``$XDG_CACHE_HOME/tinygrad_rnn/kernels``. The choice applies to all threads, and to
        functions that are fused already.

    Returns
    -------
    str
        The selected backend.

    Raises
    ------
    ArgumentError
        If the backend does not exist.
    CompilerError
        If no C compiler is found (``cc``, ``gcc`` or ``clang``, or the one that the environment
        variable ``CC`` names), or if it fails. The backend is then unchanged.

    Notes
    -----
    The environment variable ``TINYGRAD_RNN_FUSE=c`` selects it for a program; it is read at the
    first call of a fused function.

    Both backends give the same sums, products and quotients to the bit. exp, log, tanh and similar
    functions differ in the last bits: in C their relative error is below 2e-7 in float32 and 6e-16
    in float64. C does not warn of an overflow, a division by zero or nan. A schedule of ufuncs runs
    kernels that C does not support (float16, ``%`` and ``//``, a ufunc that no primitive of the
    library uses), and kernels that are slower in C (sin, cos and powers of large arrays).

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.fuse.backend()
    'numpy'
    """
    if name is None:
        return "numpy" if compiler() is None else "c"
    if name not in BACKENDS:
        raise ArgumentError(f"fuse.backend: 'numpy' or 'c', got {name!r:.60}")
    if name == "numpy":
        selected[:] = [None]
        kernels.faster.clear()
    else:
        from .compiler import Compiler

        selected[:] = [_checked(Compiler())]
        kernels.faster.update(FUNCTIONS)
    return name


class _TestExpression(NamedTuple):
    """An expression of the test kernel."""

    op: str
    args: tuple[Any, ...]
    dtype: Any = np.dtype(float)
    shape: tuple[int, ...] = (3,)


def _checked(compiler: Compiler) -> Compiler:
    """Return the compiler if a test kernel that it compiles is right."""
    x = _TestExpression("argument", ())
    y = _TestExpression("add", (x, 1.0))
    given, made = np.arange(3.0), np.zeros(3)
    if not kernel(Loop([y], [x], [y]), compiler)(given, made) or made.tolist() != [1.0, 2.0, 3.0]:
        raise CompilerError(
            f"fuse.backend: a kernel made by {compiler.path} computes {made} for {given} + 1; "
            "name another compiler in the environment variable CC"
        )
    return compiler
