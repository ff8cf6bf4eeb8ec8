"""The text of a C file: arrays, matrix products, mathematical functions."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...speed.math_functions import math_functions

WIDTHS = (32, 16, 8, 4, 2, 1)  # the outputs that a product computes together
LEVELS = 127  # of a weight in int8, on either side of zero

FUSED = """
#ifdef FP_FAST_FMAF
#define fused_float(a, b, c) fmaf(a, b, c)
#else
#define fused_float(a, b, c) ((a) * (b) + (c))
#endif
"""

# Four inputs at a time, so that the sums are loaded and stored once for four products. The inner
# loop runs over outputs, whose sums are independent, so compilers vectorize it in strict C.
PRODUCTS = """
/* y = x w for {blocks}, whose outputs are in blocks: first all whole blocks of 32
 * outputs, then at most one each of 16, 8, 4, 2 and 1; a block has a row for each input. */
#define PRODUCT(B) \\
static void product_##B(const float *restrict x, const {weight} *restrict w, \\
                        float *restrict y, int inputs) \\
{{ \\
    float sums[B] = {{0}}; \\
    int k = 0; \\
    for (; k + 4 <= inputs; k += 4, w += 4 * B) {{ \\
        const float a = x[k], b = x[k + 1], c = x[k + 2], d = x[k + 3]; \\
{skip}        for (int i = 0; i < B; i++) {{ \\
            float s = fused_float(a, (float)w[i], sums[i]); \\
            s = fused_float(b, (float)w[B + i], s); \\
            s = fused_float(c, (float)w[2 * B + i], s); \\
            sums[i] = fused_float(d, (float)w[3 * B + i], s); \\
        }} \\
    }} \\
    for (; k < inputs; k++, w += B) \\
        for (int i = 0; i < B; i++) sums[i] = fused_float(x[k], (float)w[i], sums[i]); \\
    for (int i = 0; i < B; i++) y[i] = sums[i]; \\
}}
{functions}

static void product(const float *x, const {weight} *w, {scales}float *y, int inputs, int outputs)
{{
    {start}int left = outputs;
    for (; left >= 32; left -= 32, y += 32, w += 32 * inputs) product_32(x, w, y, inputs);
{rest}{scaling}}}
"""
SKIP = "        if (a == 0 && b == 0 && c == 0 && d == 0) continue; /* one-hot */ \\\n"

SELECT = """
/* Not by ?:, of which compilers make branches, and then no vectors of the loop. */
static inline float select_float(bool first, float a, float b)
{
    const uint32_t mask = -(uint32_t)first;
    return value_float((bits_float(a) & mask) | (bits_float(b) & ~mask));
}
"""

SUM = """
static float sum_float(const float *x, int n)
{
    float sums[8] = {0};
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) sums[k] += x[i + k];
    for (int k = 0; i + k < n; k++) sums[k] += x[i + k];
    for (int half = 4; half; half /= 2)
        for (int k = 0; k < half; k++) sums[k] += sums[k + half];
    return sums[0];
}
"""

MAX = """
/* nan wins. */
static float max_float(const float *x, int n)
{
    float greatest = x[0];
    for (int i = 1; i < n; i++)
        if (x[i] > greatest || x[i] != x[i]) greatest = x[i];
    return greatest;
}
"""

# The last operation of a network; y[i] are its logits.
ENDINGS = {
    "softmax": """    float total = 0;
    for (int i = 0; i < {n}; i++) total += y[i] = expf(y[i] - greatest);
    for (int i = 0; i < {n}; i++) y[i] /= total;
""",
    "log_softmax": """    float total = 0;
    for (int i = 0; i < {n}; i++) total += expf(y[i] - greatest);
    total = greatest + logf(total);
    for (int i = 0; i < {n}; i++) y[i] -= total;
""",
}
GREATEST = """    float greatest = y[0];
    for (int i = 1; i < {n}; i++) if (y[i] > greatest) greatest = y[i];
"""


def products(int8: bool, one_hot: bool) -> str:
    """Return the functions for matrix products."""
    rest = [
        f"    if (left & {w}) {{ product_{w}(x, w, y, inputs); y += {w}; w += {w} * inputs; }}"
        for w in WIDTHS[1:-1]
    ]
    rest.append("    if (left & 1) product_1(x, w, y, inputs);")
    return PRODUCTS.format(
        weight="int8_t" if int8 else "float",
        blocks="a matrix w"
        if not int8
        else "a matrix w of integers times the scale of each output",
        scales="const float *scale, " if int8 else "",
        start="float *const first = y;\n    " if int8 else "",
        scaling="    for (int i = 0; i < outputs; i++) first[i] *= scale[i];\n" if int8 else "",
        rest="\n".join(rest) + "\n",
        skip=SKIP if one_hot else "",
        functions="\n".join(f"PRODUCT({w})" for w in WIDTHS),
    )


def ending(kind: str, n: int) -> str:
    """Return the lines of a softmax, or of its logarithm."""
    return (GREATEST + ENDINGS[kind]).format(n=n) if kind else ""


def functions(text: str) -> str:
    """Return the functions that a text calls: exp, tanh, a sum ... of floats."""
    bits, *others = [p for p in math_functions("float").split("\n\n") if "_float(" in p]
    parts = [portable(part) for part in (bits, SELECT, *others, SUM, MAX)]
    defined = {
        name: part for part in parts for name in re.findall(r"(\w+_float)\([^)]*\)\s*\{", part)
    }
    wanted, found = re.findall(r"\w+_float\b", text), set()
    while wanted:
        name = wanted.pop()
        if name in defined and defined[name] not in found:
            found.add(defined[name])
            wanted += re.findall(r"\w+_float\b", defined[name])
    return "\n".join(part.strip("\n") + "\n" for part in parts if part in found)


_LIMITS = re.compile(r"(\w+) < (-?\w+) \? \2 : \1 > (\w+) \? \3 : \1\b")
_LIMIT = re.compile(r"(\w+) > (\w+) \? \2 : \1\b")
_CHOICE = re.compile(r"(const float \w+ = )([^?;]+) \? ([^?:;]+) : ([^?:;]+);")
_NESTED = r"\((?:[^()]|\([^()]*\))*\)"  # parentheses, with one level inside
_CONDITION = re.compile(rf"({_NESTED} [|&] {_NESTED}) \?")


def portable(text: str) -> str:
    """Return lines of a loop, or of a function that it calls, as strict compilers want them.

    A choice between floats is `select_float`, functions of math.h are those for float, and
    conditions have the parentheses that clang warns about.

    Examples
    --------
    >>> from tinygrad_rnn.interop.c.text import portable
    >>> portable("const float y = (x <= 1) | (x != x) ? x : 1;")
    'const float y = select_float((x <= 1) | (x != x), x, 1);'
    >>> portable("x + ((x > 0) & (x < 1) ? fabs(x) : 0)")
    'x + (((x > 0) & (x < 1)) ? fabsf(x) : 0)'
    """
    text = _LIMITS.sub(r"select_float(\1 < \2, \2, select_float(\1 > \3, \3, \1))", text)
    text = _CHOICE.sub(_selected, text)
    text = _LIMIT.sub(r"select_float(\1 > \2, \2, \1)", text)
    text = _CONDITION.sub(r"(\1) ?", text)
    return re.sub(r"\b(fabs|copysign|sqrt|pow|sin|cos)\(", r"\1f(", text)


def _selected(found: re.Match[str]) -> str:
    start, *parts = found.groups()
    if any(part.count("(") != part.count(")") for part in parts):  # a part of an expression
        return found[0]
    return f"{start}select_float({', '.join(parts)});"


# -- arrays ----------------------------------------------------------------------------------------


def blocks(matrix: Any) -> Any:
    """Return the elements of a matrix (inputs, outputs) in the order of `PRODUCTS`."""
    parts, start, outputs = [], 0, matrix.shape[1]
    for width in WIDTHS:
        while outputs - start >= width:
            parts.append(matrix[:, start : start + width].ravel())
            start += width
    return np.concatenate(parts)


def quantized(matrix: Any, axis: int) -> tuple[Any, Any]:
    """Return a matrix in int8, and a float scale for each index of the other axis.

    The largest element of a row has the greatest level, so that none is cut off.
    """
    largest = np.abs(matrix).max(axis=axis, keepdims=True)
    scale = (largest / LEVELS).astype(np.float32)
    levels = np.rint(matrix / np.where(scale > 0, scale, 1)).clip(-LEVELS, LEVELS)
    return levels.astype(np.int8), scale.ravel()


def array(name: str, values: Any, comment: str = "") -> str:
    """Return the definition of a constant array; floats are hexadecimal, which is exact."""
    T, number = ("int8_t", str) if values.dtype == np.int8 else ("float", literal)
    if values.dtype.kind == "b":
        T, number = "bool", lambda x: str(int(x))
    elif values.dtype.kind in "iu" and values.dtype != np.int8:
        T, number = f"{values.dtype}_t", str
    flat = values.ravel().tolist()
    note = f" /* {comment.replace('*/', '* /')} */" if comment else ""
    lines = "\n".join(_lines(number(x) for x in flat))
    return f"static const {T} {name}[{len(flat)}] = {{{note}\n{lines}\n}};\n"


def _lines(numbers: Iterator[str]) -> Iterator[str]:
    line = ""
    for number in numbers:
        if len(line) + len(number) > 98:
            yield line
            line = ""
        line += number + ","
    yield line


def literal(x: float) -> str:
    """Return a float32 as a literal without rounding.

    Examples
    --------
    >>> from tinygrad_rnn.interop.c.text import literal
    >>> literal(0.5), literal(-3.0), literal(0.0)
    ('0x1p-1f', '-0x1.8p+1f', '0')
    """
    if x == 0:
        return "-0.f" if str(x)[0] == "-" else "0"
    mantissa, exponent = float(x).hex().split("p")
    return f"{mantissa.rstrip('0').rstrip('.')}p{exponent}f"


def string(text: str) -> str:
    r"""Return a str as a string literal in UTF-8.

    Examples
    --------
    >>> from tinygrad_rnn.interop.c.text import string
    >>> print(string('é"?'))
    "\303\251\"\?"
    """
    plain = {ord(c): c for c in map(chr, range(32, 127))} | {34: '\\"', 63: "\\?", 92: "\\\\"}
    return '"' + "".join(plain.get(b, f"\\{b:03o}") for b in text.encode()) + '"'


def comment(text: str) -> str:
    """Return a text as a comment of C."""
    lines = text.replace("*/", "* /").splitlines()
    wrapped = [part for line in lines for part in (textwrap.wrap(line, 94) or [""])]
    return ("/* " + "\n * ".join(wrapped) + " */\n").replace(" * \n", " *\n")
