"""CUDA text of elementwise kernels, from the lines of C that `loops.body` writes.

The math functions are those of the C executor, so an element has the same bits on both devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..loops import Loop, c_type
from ..math_functions import math_functions

PREAMBLE = """
#ifdef __CUDACC_RTC__ /* no headers of the C library */
typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#else
#include <stdint.h>
#endif
#undef INFINITY
#undef NAN
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fc00000)
#define fused_float(a, b, c) fmaf(a, b, c)
#define fused_double(a, b, c) fma(a, b, c)
"""

BITS = {
    "float": """
static inline $word bits_$T($T x) { return __float_as_uint(x); }
static inline $T value_$T($word x) { return __uint_as_float(x); }
""",
    "double": """
static inline $word bits_$T($T x) { return ($word)__double_as_longlong(x); }
static inline $T value_$T($word x) { return __longlong_as_double((long long)x); }
""",
}


def with_functions(text: str) -> str:
    """Return a text with the math functions that it calls in front."""
    kinds = [T for T in ("float", "double") if f"_{T}(" in text]
    functions = "".join(math_functions(T, BITS[T]) for T in kinds)
    functions = functions.replace("static inline", "static __device__ __forceinline__")
    return "".join([PREAMBLE, functions, text])


def fused_kernel(loop: Loop, inputs: Sequence[Any], axes: int) -> str:
    """Return the kernel of a fused function, ``fused``: a thread computes one place of all chunks.

    Its parameters are the arrays of `inputs`, the number arguments, the outputs, and the layout:
    the number of places, then lengths and strides of the axes in elements, the last axis first.
    """
    read = {k for _, k, _ in loop.loads}
    parameters = [
        f"const {c_type(x.dtype) if k in read else 'void'} *__restrict__ p{k}"
        for k, x in enumerate(inputs)
    ]
    parameters += [f"const {c_type(t)} p{k}" for k, (_, t) in enumerate(loop.scalars, len(inputs))]
    first = len(parameters)
    parameters += [
        f"{c_type(x.dtype)} *__restrict__ p{k}" for k, x in enumerate(loop.outputs, first)
    ]
    lines = [
        "const int64_t id = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;",
        "if (id >= L.count) return;",
        "uint32_t rest = (uint32_t)id;",
    ]
    for k in range(axes - 1):
        lines.append(f"const int64_t i{k} = rest % (uint32_t)L.length[{k}];")
        lines.append(f"rest /= (uint32_t)L.length[{k}];")
    lines.append(f"const int64_t i{axes - 1} = rest;")
    loads = [(f"a{n}", "const ", x, k, start) for n, (x, k, start) in enumerate(loop.loads)]
    stores = [(f"r{n}", "", x, k, start) for n, (x, k, start) in enumerate(loop.stores)]
    for name, const, x, k, start in (*loads, *stores):
        T = c_type(x.dtype)
        at = [f"i{n} * L.stride[{k}][{n}]" for n in range(axes)]
        at += [f"{start} * L.last[{k}]"] if start else []
        place = f"&p{k}" if len(inputs) <= k < first else f"p{k} + {' + '.join(at)}"
        lines.append(f"{const}{T} *{name} = {place};")
    lines += [line.replace("[i]", "[0]") for line in loop.lines]
    body = "\n    ".join(lines)
    n = len(parameters)
    return with_functions(
        f"struct Layout {{ int64_t count, length[{axes}], stride[{n}][{axes}], last[{n}]; }};\n"
        f'extern "C" __global__ void fused({", ".join([*parameters, "const Layout L"])})\n'
        f"{{\n    {body}\n}}\n"
    )
