"""A kernel as one loop in C, compiled by the system's compiler if `fuse.backend("c")` asks for it.

A schedule of ufuncs walks over its arrays once for each operation, and a call of a ufunc costs half
a microsecond before it computes anything. A loop in C walks once for all of them, intermediate
values stay in registers, and the call costs a fifth of a microsecond.

`loops` says what the loop computes; to this come

- the *mathematics*: exp, log and their like without a branch, so that a compiler can turn the loop
  into vector instructions. Errors are below two units in the last place, and the bits of an element
  do not depend on where it stands. Sums, products and quotients are those of NumPy to the bit: no
  two operations are contracted to one (``-ffp-contract=off``), and nothing assumes that numbers are
  finite. What a ufunc warns of (an overflow, a division by zero) passes in silence.
- the *frame*: a function that Python calls with arrays; it finds the runs of memory that all of
  them share, and calls the loop for each. There is a loop for each way in which what is broadcast
  can be one element in such a run. Where an argument is strided, a tile of it is copied first, so
  that a loop always reads from neighbour to neighbour.

The compiler and its folder are the business of `workshop`.
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

from ..errors import ArgumentError, CompilerError
from .loops import Loop, c_type

if TYPE_CHECKING:
    from .workshop import Compiler

# -- the mathematics: without a branch -------------------------------------------------------------


def _polynomial(x: str, coefficients: Sequence[float], T: str) -> str:
    """Return c0 + c1 x + c2 x² + … in Horner's form."""
    *rest, text = (f"({T}){c!r}" for c in coefficients)
    for c in reversed(rest):
        text = f"fused_{T}({text}, {x}, {c})"
    return text


class _Format(NamedTuple):
    """A floating-point format, and how far the series go that it needs."""

    T: str
    word: str  # an unsigned integer of its size
    mantissa: int
    bias: int
    high: str  # the leading bits of log 2: few, so that their product with an exponent is exact
    low: str  # log 2 - high
    zero: float  # exp is 0 from here down
    infinite: float  # and infinite from here up
    one: float  # expm1 is -1 below the negative, tanh 1 above
    exp: int  # the degree of the series of exp: |x| <= log(2) / 2
    log: int  # the terms of the series of the artanh: x² <= 0.03


FORMATS = [
    _Format("float", "uint32_t", 23, 127, "0x1.63p-1f", "-0x1.bd0106p-13f",
            -105, 89, 20, 7, 5),
    _Format("double", "uint64_t", 52, 1023, "0x1.62e42feep-1", "0x1.a39ef35793c76p-33",
            -746, 710, 40, 13, 11),
]  # fmt: skip

# exp: x = n log 2 + r, and exp(x) - 1 = 2^n (exp(r) - 1) + (2^n - 1), with Taylor's series for
# exp(r) - 1. Adding 1.5 * 2^mantissa rounds to an integer, which then stands in the lowest bits.
# 2^n is made from its bits, for exp in two halves, so that the last product rounds to a denormal
# number or overflows as it should.
# log: x = 2^n m with m in [√½, √2), f = m - 1, s = f / (2 + f), log m = 2 artanh(s), written as in
# FreeBSD's msun so that f, which is exact, is added last.
MATHEMATICS = Template(
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

/* log(1 + x), and what the rounding of 1 + x lost */
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


def mathematics(T: str) -> str:
    """Return the functions on ``float`` or on ``double``."""
    own = next(f for f in FORMATS if f.T == T)
    exp = _polynomial("r", [1 / factorial(k) for k in range(2, own.exp + 1)], T)
    log = _polynomial("z", [0.0, *(2 / (2 * k + 3) for k in range(own.log))], T)
    return MATHEMATICS.substitute({**own._asdict(), "EXP": exp, "LOG": log})


# -- the frame: what Python calls ------------------------------------------------------------------

HEAD = r"""#include <stdbool.h>
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
static void loop$way(intptr_t n, $parameters)
{
    for (intptr_t i = 0; i < n; i++) {
        $body
    }
}
""")

RUN = Template(r"""
enum { STRIPS = $strips, MODEL = $model, WAYS = $ways, OBJECT = $object };
static const intptr_t size[STRIPS] = { $sizes };
static const bool still[WAYS][STRIPS] = { $still };

static void run(int way, intptr_t n, char *const *at)
{
    switch (way) {
    $cases
    }
}

""")


def source(loop: Loop) -> str:
    """Return the C of a loop: mathematics, body and frame."""
    dtypes = [x.dtype for x, *_ in (*loop.inputs, *loop.outputs)]
    count = len(loop.inputs)
    types = [f"const {c_type(t)}" for t in dtypes[:count]] + [c_type(t) for t in dtypes[count:]]
    names = [*(f"a{k}" for k in range(count)), *(f"r{k}" for k in range(len(types) - count))]
    parameters = ", ".join(f"{T} *restrict {x}" for T, x in zip(types, names, strict=True))
    pointers = ", ".join(f"({T} *)at[{k}]" for k, T in enumerate(types))
    loops, cases, still = [], [], []
    for way, fixed in enumerate(loop.ways):
        lines = loop.lines
        if fixed:  # one element for the whole run
            of_fixed = re.compile(rf"\b(a({'|'.join(map(str, fixed))})\)?)\[i\]")
            lines = [of_fixed.sub(r"\1[0]", line) for line in lines]
        body = "\n        ".join(lines)
        loops.append(LOOP.substitute(way=way, parameters=parameters, body=body))
        cases.append(f"case {way}: loop{way}(n, {pointers}); break;")
        still.append("{ " + ", ".join(str(int(k in fixed)) for k in range(len(types))) + " }")
    run = RUN.substitute(
        sizes=", ".join(f"sizeof({T})" for T in types),
        still=", ".join(still),
        cases="\n    ".join(cases),
        strips=len(types),
        model=count,
        ways=len(loop.ways),
        object=object.__basicsize__,
    )
    functions = [mathematics(own.T) for own in FORMATS if f"_{own.T}(" in "".join(loops)]
    frame = Path(__file__).with_name("frame.c").read_text("utf-8")
    return "".join([HEAD, *functions, *loops, run, frame])


# -- a kernel --------------------------------------------------------------------------------------


def kernel(loop: Loop, compiler: Compiler) -> Callable[..., bool]:
    """Return the function that runs a loop.

    It takes NumPy's arrays, of the dtypes that were compiled: those that are given (they
    broadcast), then those that are made. It fills these and returns True; or, where an array is not
    aligned or those that are made are not laid out alike, it does nothing and returns False.
    """
    places = [place for _, *place in (*loop.inputs, *loop.outputs)]
    table = np.array([loop.width, *np.ravel(places)], np.intp)
    return _load(source(loop), compiler)(table.tobytes())


_lock = threading.Lock()
_loaded: dict[tuple[str, str], Any] = {}


def _load(text: str, compiler: Compiler) -> Any:
    """Return the function ``bind`` of a compiled text."""
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


# -- the choice ------------------------------------------------------------------------------------

BACKENDS = ("numpy", "c")
chosen: list[Compiler | None] = []  # empty: nobody has asked yet


def compiler() -> Compiler | None:
    """Return the compiler in use; None where the kernels are schedules of ufuncs."""
    if not chosen:
        backend(os.environ.get("TINYGRAD_RNN_FUSE") or "numpy")
    return chosen[0]


def backend(name: str | None = None) -> str:
    """Choose what runs fused kernels on the CPU, or say what does.

    Parameters
    ----------
    name : {"numpy", "c"}, optional
        "numpy", the default, runs a schedule of ufuncs. "c" compiles each kernel to one loop: it
        takes a fraction of a second when a kernel runs for the first time, and is kept in the
        user's folder for caches (``$XDG_CACHE_HOME/tinygrad_rnn/kernels``). The choice holds for
        all threads, and for what is fused already.

    Returns
    -------
    str
        The one in use.

    Raises
    ------
    ArgumentError
        If there is no such backend.
    CompilerError
        If there is no C compiler (``cc``, ``gcc`` or ``clang``, or what the environment variable
        ``CC`` names), or if it fails. What was in use stays in use.

    Notes
    -----
    The environment variable ``TINYGRAD_RNN_FUSE=c`` chooses it for a program; it is read when the
    first fused function runs.

    Both give the same sums, products and quotients to the bit; exp, log, tanh and their like differ
    in the last bits: in C their relative error is below 2e-7 in float32 and 6e-16 in float64. C
    does not warn of overflow, of a division by zero or of nan. What it does not cover (float16,
    ``%`` and ``//``, a ufunc that no primitive of the library uses), or is slower at (sin, cos and
    powers of large arrays), runs as a schedule of ufuncs.

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
        chosen[:] = [None]
    else:
        from .workshop import Compiler

        chosen[:] = [_proved(Compiler())]
    return name


class _Probe(NamedTuple):
    """An expression, to try a compiler with."""

    op: str
    args: tuple[Any, ...]
    dtype: Any = np.dtype(float)
    shape: tuple[int, ...] = (3,)


def _proved(compiler: Compiler) -> Compiler:
    """Return the compiler, after it has made a kernel that works."""
    x = _Probe("argument", ())
    y = _Probe("add", (x, 1.0))
    given, made = np.arange(3.0), np.zeros(3)
    if not kernel(Loop([y], [x], [y]), compiler)(given, made) or made.tolist() != [1.0, 2.0, 3.0]:
        raise CompilerError(
            f"fuse.backend: a kernel made by {compiler.path} computes {made} for {given} + 1; "
            "name another compiler in the environment variable CC"
        )
    return compiler
