"""The math functions of compiled code: exp, log and others without branches.

So the compiler can vectorize the loops that call them. Their error is below two units in the last
place. An element's result does not depend on its position.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial
from string import Template
from typing import NamedTuple

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

# PyArrayObject_fields in NumPy's ndarraytypes.h; so NumPy's headers need not be installed.
ARRAY = f"""
enum {{ OBJECT_HEAD = {object.__basicsize__} }}; /* bytes */
typedef struct {{
    char object[OBJECT_HEAD], *data;
    int axes;
    intptr_t *shape, *strides;
    void *base, *dtype;
    int flags;
}} Array;
enum {{ CONTIGUOUS = 0x0003 /* C | Fortran */, IS_ALIGNED = 0x0100, WRITABLE = 0x0400 }};
"""


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


BITS = """
typedef union { $T value; $word bits; } both_$T;
static inline $word bits_$T($T x) { return (both_$T) { .value = x }.bits; }
static inline $T value_$T($word x) { return (both_$T) { .bits = x }.value; }
"""


def math_functions(T: str, bits: str = BITS) -> str:
    """Return the C source of the math functions for ``float`` or ``double``.

    `bits` is the source of ``bits_T`` and ``value_T``, which reinterpret a number and an integer.
    """
    own = next(f for f in FORMATS if f.T == T)
    exp = _polynomial("r", [1 / factorial(k) for k in range(2, own.exp + 1)], T)
    log = _polynomial("z", [0.0, *(2 / (2 * k + 3) for k in range(own.log))], T)
    names = {**own._asdict(), "EXP": exp, "LOG": log}
    return Template(bits).substitute(names) + MATH_FUNCTIONS.substitute(names)
