"""Operations as nodes of ONNX: a function for each primitive of the library.

`OPERATIONS` has the functions by the names of the primitives. Each takes the graph and the call,
and returns the name of the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .graph import END, Emitter, Graph
from .indexing import getitem
from .trace import Call

OPERATIONS: dict[str, Emitter] = {"getitem": getitem}


def _operation(*names: str) -> Callable[[Emitter], Emitter]:
    def register(function: Emitter) -> Emitter:
        OPERATIONS.update(dict.fromkeys(names, function))
        return function

    return register


def _result(g: Graph, call: Call) -> np.dtype[Any]:
    return g.dtype(call.outputs[0])


def _axes(g: Graph, call: Call) -> list[int]:
    """Return the axes of a reduction, from 0 on."""
    axis, ndim = call.options["axis"], len(g.shape_of(call.inputs[0]))
    given = range(ndim) if axis is None else (axis if isinstance(axis, tuple) else (axis,))
    return [int(i) % ndim for i in given] if ndim else []


# -- element by element ----------------------------------------------------------------------------


@_operation("add", "subtract", "multiply", "divide", "power", "maximum", "minimum")
def _arithmetic(g: Graph, call: Call) -> str:
    dtype = _result(g, call)
    if dtype == np.bool_:  # as in NumPy
        logic = {"add": "Or", "maximum": "Or", "multiply": "And", "minimum": "And"}
        return g.add(logic[call.name], *[g.name(x, dtype) for x in call.inputs])
    ops = {"add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "power": "Pow"}
    op = {**ops, "maximum": "Max", "minimum": "Min"}[call.name]
    return g.add(op, *[g.name(x, dtype) for x in call.inputs])


@_operation("floor_divide")
def _floor_divide(g: Graph, call: Call) -> str:
    dtype = _result(g, call)
    x, y = (g.name(x, dtype) for x in call.inputs)
    if dtype.kind == "f":
        return g.add("Floor", g.add("Div", x, y))
    return g.add("Div", g.add("Sub", x, g.add("Mod", x, y)), y)  # ONNX rounds to zero


@_operation("remainder")
def _remainder(g: Graph, call: Call) -> str:
    dtype = _result(g, call)
    x, y = (g.name(x, dtype) for x in call.inputs)
    if dtype.kind != "f":
        return g.add("Mod", x, y)
    rest = g.add("Mod", x, y, fmod=1)  # has the sign of x
    zero = g.constant(np.zeros((), dtype))
    below = [g.add("Less", a, zero) for a in (rest, y)]
    wrong = g.add("And", g.add("Xor", *below), g.add("Not", g.add("Equal", rest, zero)))
    return g.add("Where", wrong, g.add("Add", rest, y), rest)


@_operation("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
def _comparison(g: Graph, call: Call) -> str:
    kinds = [g.dtype(x) for x in call.inputs]
    dtype = np.result_type(*[k for k in kinds if k is not None])
    numbers = [x for x in call.inputs if g.dtype(x) is None]
    if any(isinstance(x, float) for x in numbers) and dtype.kind != "f":
        dtype = np.dtype(np.float64)
    if dtype == np.bool_ and (numbers or call.name not in ("equal", "not_equal")):
        dtype = np.dtype(np.int32)
    op = {
        "equal": "Equal", "not_equal": "Equal", "less": "Less", "less_equal": "LessOrEqual",
        "greater": "Greater", "greater_equal": "GreaterOrEqual",
    }[call.name]  # fmt: skip
    found = g.add(op, *[g.name(x, dtype) for x in call.inputs])
    return g.add("Not", found) if call.name == "not_equal" else found


@_operation("exp", "log", "sqrt", "sin", "cos", "tanh", "sigmoid", "abs", "sign", "negative")
def _unary(g: Graph, call: Call) -> str:
    op = {"negative": "Neg"}.get(call.name, call.name.capitalize())
    return g.add(op, g.name(call.inputs[0], _result(g, call)))


@_operation("relu")
def _relu(g: Graph, call: Call) -> str:
    dtype = _result(g, call)
    x = g.name(call.inputs[0], dtype)
    return (
        g.add("Relu", x) if dtype.kind == "f" else g.add("Max", x, g.constant(np.zeros((), dtype)))
    )


@_operation("softplus")
def _softplus(g: Graph, call: Call) -> str:
    return _log_add(g, g.name(call.inputs[0]), g.constant(np.zeros((), _result(g, call))))


@_operation("logaddexp")
def _logaddexp(g: Graph, call: Call) -> str:
    return _log_add(g, *[g.name(x, _result(g, call)) for x in call.inputs])


def _log_add(g: Graph, x: str, y: str) -> str:
    """Return log(exp(x) + exp(y)) = max(x, y) + log(1 + exp(-|x - y|))."""
    small = g.add("Exp", g.add("Neg", g.add("Abs", g.add("Sub", x, y))))
    return g.add("Add", g.add("Max", x, y), _log_one_plus(g, small))


@_operation("log1p")
def _log1p(g: Graph, call: Call) -> str:
    return _log_one_plus(g, g.name(call.inputs[0]), _result(g, call))


def _log_one_plus(g: Graph, x: str, dtype: Any = np.float32) -> str:
    """Return log(1 + x), exact near 0: log(u) x / (u - 1) for u = 1 + x as rounded (Kahan)."""
    one = g.constant(np.ones((), dtype))
    u = g.add("Add", x, one)
    log, rest = g.add("Log", u), g.add("Sub", u, one)
    exact = g.add("Div", g.add("Mul", log, x), rest)
    exact = g.add("Where", g.add("Equal", rest, g.constant(np.zeros((), dtype))), x, exact)
    small = g.add("Less", g.add("Abs", x), one)
    return g.add("Where", small, exact, log)


@_operation("expm1")
def _expm1(g: Graph, call: Call) -> str:
    """Return exp(x) - 1 = tanh(x / 2) (exp(x) + 1), exact near 0."""
    dtype = _result(g, call)
    x, one = g.name(call.inputs[0]), g.constant(np.ones((), dtype))
    half = g.add("Tanh", g.add("Mul", x, g.constant(np.array(0.5, dtype))))
    return g.add("Mul", half, g.add("Add", g.add("Exp", x), one))


@_operation("where")
def _where(g: Graph, call: Call) -> str:
    condition, x, y = call.inputs
    dtype = _result(g, call)
    return g.add("Where", g.name(condition, np.bool_), g.name(x, dtype), g.name(y, dtype))


@_operation("clip")
def _clip(g: Graph, call: Call) -> str:
    dtype, (low, high) = _result(g, call), (call.options["min"], call.options["max"])
    limits = ["" if limit is None else g.name(limit, dtype) for limit in (low, high)]
    return g.add("Clip", g.name(call.inputs[0], dtype), *limits)


@_operation("cast")
def _cast(g: Graph, call: Call) -> str:
    return g.name(call.inputs[0], np.dtype(call.options["dtype"]))


@_operation("to_device", "feature_major", "scale_gradient")
def _same(g: Graph, call: Call) -> str:
    return g.name(call.inputs[0])


# -- shapes ----------------------------------------------------------------------------------------


@_operation("reshape", "rows")
def _reshape(g: Graph, call: Call) -> str:
    x, old, new = g.name(call.inputs[0]), g.shape_of(call.inputs[0]), g.shape_of(call.outputs[0])
    if old == new:
        return x
    if [n for n in old if n != 1] == [n for n in new if n != 1]:
        removed = [i for i, n in enumerate(old) if n == 1]
        added = [i for i, n in enumerate(new) if n == 1]
        x = g.add("Squeeze", x, g.ints(*removed)) if removed else x
        return g.add("Unsqueeze", x, g.ints(*added)) if added else x
    sizes = [i for i, n in enumerate(new) if not isinstance(n, int)]
    if len(sizes) == 1:
        return g.add("Reshape", x, g.ints(*[-1 if i in sizes else n for i, n in enumerate(new)]))
    return g.add("Reshape", x, g.shape(new))


@_operation("transpose")
def _transpose(g: Graph, call: Call) -> str:
    axes = list(call.options["axes"])
    return g.add("Transpose", g.name(call.inputs[0]), perm=axes) if axes else g.name(call.inputs[0])


@_operation("broadcast_to")
def _broadcast_to(g: Graph, call: Call) -> str:
    x, shape = call.inputs[0], g.shape_of(call.outputs[0])
    return g.name(x) if g.shape_of(x) == shape else g.add("Expand", g.name(x), g.shape(shape))


@_operation("flip")
def _flip(g: Graph, call: Call) -> str:
    axes = _axes(g, call)
    count = len(axes)
    if not count:
        return g.name(call.inputs[0])
    ends = [g.ints(*[n] * count) for n in (-1, -END)]
    return g.add("Slice", g.name(call.inputs[0]), *ends, g.ints(*axes), g.ints(*[-1] * count))


@_operation("concatenate", "stack", "stack_over_time")
def _join(g: Graph, call: Call) -> str:
    ndim = len(g.shape_of(call.outputs[0]))
    axis = int(call.options.get("axis", 0)) % ndim
    parts = [g.name(x, _result(g, call)) for x in call.inputs]
    if call.name != "concatenate":
        parts = [g.add("Unsqueeze", x, g.ints(axis)) for x in parts]
    return g.add("Concat", *parts, axis=axis)


@_operation("scatter")
def _pad(g: Graph, call: Call) -> str | None:
    """Return an array with a border of zeros; `pad` calls this operation with one part."""
    (key, *others), shape = call.options["keys"], g.shape_of(call.outputs[0])
    keys, part = key if isinstance(key, tuple) else (key,), g.shape_of(call.inputs[0])
    inside = len(keys) == len(shape) and all(
        isinstance(k, slice) and k.step is None and k.start is not None and k.stop is not None
        for k in keys
    )
    if others or not inside or len(part) != len(shape) or not shape:
        return None
    starts, stops = (g.shape([getattr(k, end) for k in keys]) for end in ("start", "stop"))
    after = g.add("Sub", g.shape(shape), stops)
    zero = g.constant(np.zeros((), _result(g, call)))
    return g.add("Pad", g.name(call.inputs[0]), g.add("Concat", starts, after, axis=0), zero)


# -- reductions ------------------------------------------------------------------------------------


@_operation("sum", "mean", "max", "min", "logsumexp")
def _reduce(g: Graph, call: Call) -> str:
    op = {"logsumexp": "LogSumExp"}.get(call.name, call.name.capitalize())
    dtype, axes = _result(g, call), _axes(g, call)
    boolean = dtype == np.bool_
    x = g.name(call.inputs[0], np.int32 if boolean else dtype)
    if not axes:
        return x
    keep = int(bool(call.options["keepdims"]))
    x = g.add(f"Reduce{op}", x, g.ints(*axes), keepdims=keep)
    return g.cast(x, dtype) if boolean else x


@_operation("argmax", "argmin")
def _extreme(g: Graph, call: Call) -> str:
    axis, x = call.options["axis"], call.inputs[0]
    name = g.name(x, np.int32 if g.dtype(x) == np.bool_ else None)
    if axis is None:
        name = g.add("Reshape", name, g.ints(-1))
    keep = int(bool(call.options["keepdims"]))
    op = "ArgMax" if call.name == "argmax" else "ArgMin"
    name = g.add(op, name, axis=int(axis or 0), keepdims=keep if axis is not None else 0)
    if axis is None and keep and (ndim := len(g.shape_of(x))):
        name = g.add("Reshape", name, g.ints(*[1] * ndim))
    return name


@_operation("cumsum")
def _cumsum(g: Graph, call: Call) -> str:
    axis = g.constant(np.array(call.options["axis"], np.int64))
    return g.add("CumSum", g.name(call.inputs[0], _result(g, call)), axis)


@_operation("softmax", "log_softmax")
def _softmax(g: Graph, call: Call) -> str:
    x, axis = g.name(call.inputs[0], _result(g, call)), call.options["axis"]
    logarithm = call.name == "log_softmax"
    if isinstance(axis, int):
        return g.add("LogSoftmax" if logarithm else "Softmax", x, axis=axis)
    axes = _axes(g, call)
    if not axes:
        return g.add("Sub", x, x) if logarithm else g.add("Exp", g.add("Sub", x, x))
    total = g.add("ReduceLogSumExp", x, g.ints(*axes), keepdims=1)
    shifted = g.add("Sub", x, total)
    return shifted if logarithm else g.add("Exp", shifted)


@_operation("standardize")
def _standardize(g: Graph, call: Call) -> str:
    axis, eps = call.options["axis"], float(call.options["eps"])
    shape = g.shape_of(call.inputs[0])[len(g.shape_of(call.inputs[0])) - len(axis) :]
    scale = g.constant(np.ones(shape, _result(g, call)))
    x = g.name(call.inputs[0])
    return g.add("LayerNormalization", x, scale, axis=min(axis), epsilon=eps)


# -- products --------------------------------------------------------------------------------------


@_operation("gemm", "linear", "affine")
def _product(g: Graph, call: Call) -> str:
    dtype = _result(g, call)
    x, weight, *bias = call.inputs
    if call.name == "gemm":
        return g.add("MatMul", g.name(x, dtype), g.name(weight, dtype))
    if len(g.shape_of(x)) == 2 and bias:
        parts = [g.name(part, dtype) for part in call.inputs]
        return g.add("Gemm", *parts, transB=1)
    if isinstance(weight, np.ndarray):
        label = g.root.parameters.get(id(weight), "")
        y = g.constant(weight.T.astype(dtype), label and f"{label}.T")
    else:
        y = g.add("Transpose", g.name(weight, dtype), perm=[1, 0])
    out = g.add("MatMul", g.name(x, dtype), y)
    return g.add("Add", out, g.name(bias[0], dtype)) if bias else out


@_operation("einsum")
def _einsum(g: Graph, call: Call) -> str:
    equation = f"{','.join(call.options['operands'])}->{call.options['output']}"
    return g.add("Einsum", *[g.name(x, _result(g, call)) for x in call.inputs], equation=equation)
