"""The table that the tests of the operations are generated from: one row for each of them.

A row has an operation, its reference in NumPy, and the strategy that its arguments are drawn from:
shapes, axes and values inside its domain and away from its kinks. The name ``F.<function>`` is that
of a primitive that users do not call under its own name. Values lie on grids of
0.1, so that two grids half a step apart never meet (``maximum``) and no difference quotient
reaches over a kink.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygrad_rnn import tensors as ops
from tinygrad_rnn.engine import ops as primitives
from tinygrad_rnn.testing import (
    arrays,
    axes,
    broadcastable_arrays,
    broadcastable_shapes,
    grid,
    indices,
    shapes,
)


@dataclass(frozen=True)
class Case:
    """One call: the arrays that have gradients, and the other arguments."""

    arrays: tuple[np.ndarray, ...]
    keywords: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One operation: called as ``function(*arrays, **keywords)``, and so is the reference."""

    name: str
    function: Callable[..., Any]
    reference: Callable[..., Any]
    cases: st.SearchStrategy[Case]
    smooth: bool = True  # whether it has gradients
    shared: int = 0  # which argument's values lie in the domain of every argument
    everywhere: bool = False  # whether it is defined on every number, infinite ones and nan too
    integers: str = ""  # what integer arguments give: "kept", "floating", or "" (not asked)


# -- values ----------------------------------------------------------------------------------------


REAL = grid(-3, 3)
BETWEEN = grid(-3, 3, offset=0.05)  # never on the grid of REAL
POSITIVE = grid(0.3, 3)
NONZERO = REAL.filter(lambda value: abs(value) >= 0.3)
ABOVE_MINUS_ONE = grid(-0.7, 3)
COARSE = grid(-8, 8, step=0.5)

SHAPES = shapes()
FULL_SHAPES = shapes(min_side=1)
WITH_AXES = shapes(min_dims=1, min_side=1)


# -- cases -----------------------------------------------------------------------------------------


def unary(values: st.SearchStrategy[float] = REAL, **keywords: Any) -> st.SearchStrategy[Case]:
    """One array of any shape; `keywords` are fixed."""
    return arrays(SHAPES, values).map(lambda x: Case((x,), keywords))


def matrices() -> st.SearchStrategy[Case]:
    """One array of two or more axes."""
    return arrays(shapes(min_dims=2, max_dims=4)).map(lambda x: Case((x,)))


@st.composite
def binary(draw, first=REAL, second=REAL):
    """Two arrays whose shapes broadcast."""
    return Case(tuple(draw(broadcastable_arrays(2, [first, second]))))


@st.composite
def powers(draw):
    """A positive base and any exponent, or any base and an exponent that is a small integer."""
    if draw(st.booleans()):
        return draw(binary(POSITIVE, REAL))
    return Case(
        (draw(arrays(SHAPES, NONZERO)),), {"y": draw(st.sampled_from([2, 3, 0, 1, -1, 2.0]))}
    )


@st.composite
def log_powers(draw):
    """A positive base, any exponent, and the number of derivatives by it."""
    return Case(draw(binary(POSITIVE, REAL)).arrays, {"n": draw(st.integers(1, 3))})


@st.composite
def number_clips(draw):
    low, high = sorted([draw(REAL), draw(REAL)])
    bounds = draw(st.sampled_from([(low, high), (None, high), (low, None)]))
    return Case((draw(arrays(SHAPES, BETWEEN)),), {"min": bounds[0], "max": bounds[1]})


@st.composite
def clips(draw):
    if draw(st.booleans()):  # limits that are arrays, on grids of their own
        between = [BETWEEN, REAL, grid(-3, 3, offset=0.025)]
        x, *limits = draw(broadcastable_arrays(3, between))
        return Case((x, *limits[: draw(st.integers(1, 2))]), {})
    low, high = sorted([draw(REAL), draw(REAL)])
    bounds = draw(st.sampled_from([(low, high), (None, high), (low, None), (None, None)]))
    assume(bounds != (None, None))  # NumPy's clip wants one
    return Case((draw(arrays(SHAPES, BETWEEN)),), {"min": bounds[0], "max": bounds[1]})


@st.composite
def wheres(draw):
    (condition, x, y), _ = draw(broadcastable_shapes(3))
    return Case(
        (draw(arrays(x)), draw(arrays(y))), {"condition": draw(hnp.arrays(np.bool_, condition))}
    )


@st.composite
def reductions(draw, values=REAL, empty=False, unique=False, ddof=False):
    """An array, the axes to reduce and whether to keep them; `empty` ones may be reduced too."""
    shape = draw(SHAPES)
    axis = draw(axes(len(shape)))
    named = range(len(shape)) if axis is None else np.atleast_1d(np.array(axis, dtype=int))
    reduced = {int(i) % len(shape) for i in named} if shape else set()
    least = 2 if unique and ddof else 1
    if not empty:
        shape = tuple(max(n, least) if i in reduced else n for i, n in enumerate(shape))
    keywords: dict[str, Any] = {"axis": axis, "keepdims": draw(st.booleans())}
    if ddof:
        assume(not unique or reduced)  # the deviation of one number is 0, a kink of its root
        count = math.prod(shape[i] for i in reduced)
        keywords["ddof"] = draw(st.integers(0, min(1, count - 1)))
    return Case((draw(arrays(shape, values, unique=unique)),), keywords)


@st.composite
def positions(draw):
    """An array and one axis of it (None: flat), as for argmax."""
    shape = draw(FULL_SHAPES)
    axis = draw(st.none() | st.integers(-len(shape), len(shape) - 1)) if shape else None
    return Case((draw(arrays(shape)),), {"axis": axis, "keepdims": draw(st.booleans())})


@st.composite
def along(draw, values=REAL, flat=False, positive=False, empty=True):
    """An array and one axis of it, None among them if `flat`."""
    shape = draw(shapes(min_dims=1))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    if not empty:
        shape = tuple(max(n, 1) if i == axis % len(shape) else n for i, n in enumerate(shape))
    if positive:
        axis %= len(shape)
    return Case(
        (draw(arrays(shape, values)),), {"axis": None if flat and draw(st.booleans()) else axis}
    )


@st.composite
def classified(draw):
    """Logits, the target classes, the axis of the classes."""
    case = draw(along(empty=False, positive=True))
    (x,), axis = case.arrays, case.keywords["axis"] % case.arrays[0].ndim
    rest = x.shape[:axis] + x.shape[axis + 1 :]
    target = draw(hnp.arrays(np.int64, rest, elements=st.integers(0, x.shape[axis] - 1)))
    smoothing = draw(st.sampled_from([0.0, 0.1, 1.0]))
    return Case((x,), {"target": target, "label_smoothing": smoothing, **case.keywords})


@st.composite
def reshapes(draw):
    shape = draw(SHAPES)
    size = math.prod(shape)
    targets = [shape[::-1], (*shape, 1), (size,), size, None, (1, *shape)]
    targets += [-1, (-1,), (1, -1)] if size else []
    return Case((draw(arrays(shape)),), {"shape": draw(st.sampled_from(targets))})


@st.composite
def permutations(draw, negative=True):
    shape = draw(SHAPES)
    order = draw(st.permutations(range(len(shape))))
    if not negative:
        return Case((draw(arrays(shape)),), {"axes": tuple(order)})
    order = [a - len(shape) if draw(st.booleans()) else a for a in order]
    return Case((draw(arrays(shape)),), {"axes": draw(st.none() | st.just(tuple(order)))})


@st.composite
def two_axes(draw):
    shape = draw(WITH_AXES)
    axis = st.integers(-len(shape), len(shape) - 1)
    return Case((draw(arrays(shape)),), {"axis1": draw(axis), "axis2": draw(axis)})


@st.composite
def moves(draw):
    shape = draw(WITH_AXES)
    ndim = len(shape)
    if draw(st.booleans()):
        axis = st.integers(-ndim, ndim - 1)
        return Case((draw(arrays(shape)),), {"source": draw(axis), "destination": draw(axis)})
    count = draw(st.integers(0, ndim))
    source, destination = (tuple(draw(st.permutations(range(ndim)))[:count]) for _ in range(2))
    return Case((draw(arrays(shape)),), {"source": source, "destination": destination})


@st.composite
def squeezes(draw):
    shape = draw(shapes(max_dims=4, max_side=2))
    ones = [i - len(shape) * draw(st.integers(0, 1)) for i, n in enumerate(shape) if n == 1]
    axis = draw(st.sampled_from([None, tuple(ones), *ones]))
    return Case((draw(arrays(shape)),), {"axis": axis})


@st.composite
def expansions(draw):
    shape = draw(shapes(max_dims=2))
    if draw(st.booleans()):
        axis: Any = draw(st.integers(-len(shape) - 1, len(shape)))
    else:
        ndim = len(shape) + 2
        axis = tuple(
            draw(
                st.lists(
                    st.integers(-ndim, ndim - 1),
                    min_size=2,
                    max_size=2,
                    unique_by=lambda a: a % ndim,
                )
            )
        )
    return Case((draw(arrays(shape)),), {"axis": axis})


@st.composite
def stretches(draw):
    (shape, _), result = draw(broadcastable_shapes(2))
    return Case((draw(arrays(shape)),), {"shape": result})


@st.composite
def flips(draw):
    shape = draw(SHAPES)
    return Case((draw(arrays(shape)),), {"axis": draw(axes(len(shape)))})


@st.composite
def borders(draw):
    shape = draw(WITH_AXES)
    width = st.integers(0, 2)
    pair = st.tuples(width, width)
    one_each = st.tuples(*[pair] * len(shape))
    keywords = {"pad_width": draw(width | pair | st.tuples(pair) | one_each)}
    mode = draw(st.sampled_from([None, "constant", "edge", "reflect", "symmetric", "wrap"]))
    if mode is not None:
        keywords["mode"] = mode
    if mode in (None, "constant"):
        keywords["constant_values"] = draw(st.sampled_from([0, 1.5]))
    return Case((draw(arrays(shape)),), keywords)


@st.composite
def joins(draw, flat=False):
    shape = draw(WITH_AXES)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    lengths = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    parts = [
        tuple(n if i == axis % len(shape) else m for i, m in enumerate(shape)) for n in lengths
    ]
    return Case(
        tuple(draw(arrays(s)) for s in parts),
        {"axis": None if flat and draw(st.booleans()) else axis},
    )


@st.composite
def piles(draw):
    shape = draw(SHAPES)
    count = draw(st.integers(1, 3))
    axis = draw(st.integers(-len(shape) - 1, len(shape)))
    return Case(tuple(draw(arrays(shape)) for _ in range(count)), {"axis": axis})


@st.composite
def steps(draw):
    shape = draw(SHAPES)
    return Case(tuple(draw(arrays(shape)) for _ in range(draw(st.integers(1, 3)))))


@st.composite
def sections(draw):
    case = draw(along())
    length = case.arrays[0].shape[case.keywords["axis"]]
    if draw(st.booleans()):
        sections = draw(st.sampled_from([n for n in range(1, 4) if length % n == 0]))
    else:
        sections = sorted(draw(st.lists(st.integers(0, length), max_size=3)))
    return Case(case.arrays, {"indices_or_sections": sections, **case.keywords})


@st.composite
def indexed(draw, boolean=True):
    if draw(st.booleans()):
        shape = draw(SHAPES)
        key = draw(indices(shape, boolean))
    else:  # one place is read twice: its gradient is a sum
        shape = draw(shapes(min_dims=1, min_side=1))
        places = draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=3))
        key = np.array([*places, places[0] - draw(st.sampled_from([0, shape[0]]))])
    return Case((draw(arrays(shape)),), {"key": key})


@st.composite
def scattered(draw):
    """Parts and the places where they are added: what reading x several times gives back."""
    shape = draw(WITH_AXES)
    whole = (slice(None),) * draw(st.integers(0, len(shape) - 1))
    length = shape[len(whole)]
    kind = draw(st.sampled_from(["all", "pieces", "some", "any"]))
    if kind == "all":  # what unbind reads: every place once
        places: Sequence[Any] = [(*whole, i) for i in draw(st.permutations(range(length)))]
    elif kind == "pieces":
        cuts = sorted(draw(st.lists(st.integers(0, length), max_size=2)))
        places = [(*whole, slice(a, b)) for a, b in zip([0, *cuts], [*cuts, length], strict=True)]
    elif kind == "some":
        some = st.integers(-length, length - 1) | st.slices(length)
        places = [(*whole, k) for k in draw(st.lists(some, min_size=1, max_size=3))]
    else:
        places = draw(st.lists(indices(shape, boolean=False), min_size=1, max_size=3))
    parts = tuple(draw(arrays(np.zeros(shape)[key].shape)) for key in places)
    return Case(parts, {"keys": tuple(places), "shape": shape})


def scatter_reference(*parts: np.ndarray, keys: Any, shape: tuple[int, ...]) -> np.ndarray:
    out = np.zeros(shape, dtype=parts[0].dtype)
    for key, part in zip(keys, parts, strict=True):
        np.add.at(out, key, part)
    return out


@st.composite
def taken(draw):
    shape = draw(WITH_AXES)
    axis = draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    length = math.prod(shape) if axis is None else shape[axis]
    there = draw(shapes(max_dims=2))
    where = draw(hnp.arrays(np.int64, there, elements=st.integers(-length, length - 1)))
    return Case((draw(arrays(shape)),), {"indices": where, "axis": axis})


@st.composite
def taken_along(draw):
    shape = draw(WITH_AXES)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    count = draw(st.integers(0, 3))
    there = tuple(count if i == axis % len(shape) else n for i, n in enumerate(shape))
    index = st.integers(-shape[axis], shape[axis] - 1)
    where = draw(hnp.arrays(np.int64, there, elements=index))
    return Case((draw(arrays(shape)),), {"indices": where, "axis": axis})


@st.composite
def products(draw):
    drawn = draw(
        hnp.mutually_broadcastable_shapes(
            signature=np.matmul.signature, min_side=0, max_side=3, max_dims=2
        )
    )
    x, y = drawn.input_shapes
    return Case((draw(arrays(x)), draw(arrays(y))))


@st.composite
def gemms(draw):
    n, m, k = (draw(st.integers(0, 3)) for _ in range(3))
    weight = draw(st.sampled_from(["", "x", "y"]))
    batch = draw(st.sampled_from([(), (2,), (0,), (2, 1)]))
    in_x = () if weight == "x" else batch
    in_y = () if weight else draw(st.sampled_from([batch, ()]))
    return Case((draw(arrays((*in_x, n, k))), draw(arrays((*in_y, k, m)))), {"weight": weight})


@st.composite
def linear_maps(draw, bias=False):
    n, m = (draw(st.integers(0, 3)) for _ in range(2))
    x = arrays((*draw(st.sampled_from([(3,), (2, 2), (0,), (2, 1, 2)])), n))
    return Case((draw(x), draw(arrays((m, n))), *([draw(arrays((m,)))] if bias else [])))


def gemm_reference(x, y, weight):
    return np.matmul(x, y)


@st.composite
def tensordots(draw):
    count = draw(st.integers(0, 2))
    summed = tuple(draw(st.integers(0, 3)) for _ in range(count))
    rest = shapes(max_dims=2)
    x, y = (*draw(rest), *summed), (*summed, *draw(rest))
    axes: Any = count
    if draw(st.booleans()):  # the same product with the axes of x in another order
        order = draw(st.permutations(range(len(x))))
        over_x = [order.index(i) - len(x) for i in range(len(x) - count, len(x))]
        x = tuple(x[i] for i in order)
        axes = (over_x, list(range(count)))
        if count == 1:
            axes = draw(st.sampled_from([axes, (over_x[0], 0)]))
    return Case((draw(arrays(x)), draw(arrays(y))), {"axes": axes})


@st.composite
def equations(draw):
    """All that einsum takes: diagonals, ``...``, lengths of 1, no arrow, spaces, upper case."""
    sizes = {letter: draw(st.integers(0, 3)) for letter in "ijK"}
    outer = draw(shapes(max_dims=2))  # the axes of ...
    names, operands = [], []
    for _ in range(draw(st.integers(1, 3))):
        letters = draw(st.lists(st.sampled_from("ijK"), max_size=3))
        own = {i: 1 if draw(st.integers(0, 3)) == 0 else sizes[i] for i in dict.fromkeys(letters)}
        shape = [own[i] for i in letters]
        if draw(st.booleans()):
            place = draw(st.integers(0, len(letters)))
            axes = outer[draw(st.integers(0, len(outer))) :]
            axes = [1 if draw(st.integers(0, 3)) == 0 else n for n in axes]
            letters.insert(place, "...")
            shape[place:place] = axes
        names.append("".join(letters))
        operands.append(draw(arrays(tuple(shape))))
    subscripts = draw(st.sampled_from([",", " , "])).join(names)
    if draw(st.booleans()):
        used = sorted(set("".join(names)) - {"."})
        output = draw(st.permutations(used))[: draw(st.integers(0, len(used)))]
        if "." in subscripts:
            output.insert(draw(st.integers(0, len(output))), "...")
        subscripts += " -> " + "".join(output)
    return Case(tuple(operands), {"subscripts": subscripts})


@st.composite
def sums_of_products(draw):
    letters = "ijk"
    sizes = {letter: draw(st.integers(0, 3)) for letter in letters}
    subset = st.lists(st.sampled_from(letters), unique=True, max_size=3).map("".join)
    names = tuple(draw(st.lists(subset, min_size=1, max_size=3)))
    used = sorted(set("".join(names)))
    output = "".join(draw(st.permutations(used))[: draw(st.integers(0, len(used)))])
    operands = tuple(draw(arrays(tuple(sizes[i] for i in name))) for name in names)
    return Case(operands, {"operands": names, "output": output})


# -- references ------------------------------------------------------------------------------------


def sigmoid(x):
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


def log_softmax(x, axis=-1):
    return x - np.logaddexp.reduce(x, axis=axis, keepdims=True)


def logsumexp(x, axis=None, keepdims=False):
    axes = tuple(range(x.ndim)) if axis is None else axis
    return np.log(np.sum(np.exp(x), axis=axes, keepdims=keepdims))


def one_hot(logits, target, axis, label_smoothing):
    size = logits.shape[axis]
    hot = np.moveaxis(np.eye(size)[target], -1, axis)
    return ((1 - label_smoothing) * hot + label_smoothing / size).astype(logits.dtype)


def cross_entropy(logits, target, axis, label_smoothing):
    wanted = one_hot(logits, target, axis % logits.ndim, label_smoothing)
    return -np.sum(wanted * log_softmax(logits, axis), axis=axis)


def getitem(x, key):
    return x[key]


def rows(x):
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def transposed(x, axes):
    return np.transpose(x, axes)


def unbind(x, axis):
    return [np.take(x, i, axis=axis) for i in range(x.shape[axis])]


def in_a_list(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of a list of arrays take them one by one."""
    return lambda *arrays, **keywords: function(arrays, **keywords)


# -- the table -------------------------------------------------------------------------------------

KEPT: Any = {"integers": "kept"}
FLOATING: Any = {"integers": "floating"}
ANYWHERE: Any = {"everywhere": True}
NO_GRADIENT: Any = {"smooth": False}

ROWS = [
    Row(
        "F.affine",
        primitives.affine,
        lambda x, weight, bias: x @ weight.T + bias,
        linear_maps(bias=True),
    ),
    Row("F.cast", primitives.cast, np.ndarray.astype, unary(dtype=np.dtype(np.float64))),
    Row("F.clip", primitives.clip, lambda x, min, max: np.clip(x, min, max), number_clips()),
    Row("F.concatenate", primitives.concatenate, in_a_list(np.concatenate), joins(), **KEPT),
    Row("F.cross_entropy", primitives.cross_entropy, cross_entropy, classified()),
    Row("F.cumsum", primitives.cumsum, np.cumsum, along(), **KEPT),
    Row(
        "F.einsum",
        primitives.einsum,
        lambda *arrays, operands, output: np.einsum(",".join(operands) + "->" + output, *arrays),
        sums_of_products(),
        **KEPT,
    ),
    Row("F.gemm", primitives.gemm, gemm_reference, gemms(), **KEPT),
    Row("F.getitem", primitives.getitem, getitem, indexed(boolean=False), **KEPT),
    Row("F.linear", primitives.linear, lambda x, weight: x @ weight.T, linear_maps(), **KEPT),
    Row("F.log_power", primitives.log_power, lambda x, y, n: x**y * np.log(x) ** n, log_powers()),
    Row("F.rows", primitives.rows, rows, matrices(), **KEPT),
    Row("F.scale_gradient", primitives.scale_gradient, lambda x, xi: x.copy(), unary(xi=1.0)),
    Row("F.scatter", primitives.scatter, scatter_reference, scattered(), **KEPT),
    Row("F.smoothed_one_hot", primitives.smoothed_one_hot, one_hot, classified(), **NO_GRADIENT),
    Row("F.stack", primitives.stack, in_a_list(np.stack), piles(), **KEPT),
    Row(
        "F.to_device",
        primitives.to_device,
        lambda x, device, source: x.copy(),
        unary(device="cpu", source="cpu"),
        **KEPT,
    ),
    Row("F.transpose", primitives.transpose, transposed, permutations(negative=False), **KEPT),
    Row("abs", ops.abs, np.abs, unary(BETWEEN), **KEPT, **ANYWHERE),
    Row("add", ops.add, np.add, binary(), **KEPT, **ANYWHERE),
    Row("argmax", ops.argmax, np.argmax, positions(), **NO_GRADIENT, **KEPT),
    Row("argmin", ops.argmin, np.argmin, positions(), **NO_GRADIENT, **KEPT),
    Row("broadcast_to", ops.broadcast_to, np.broadcast_to, stretches(), **KEPT),
    Row("clip", ops.clip, lambda x, min=None, max=None: np.clip(x, min, max), clips()),
    Row(
        "concatenate",
        in_a_list(ops.concatenate),
        in_a_list(np.concatenate),
        joins(flat=True),
        **KEPT,
    ),
    Row("cos", ops.cos, np.cos, unary(), **FLOATING),
    Row("cumsum", ops.cumsum, np.cumsum, along(flat=True), **KEPT),
    Row("divide", ops.divide, np.divide, binary(REAL, NONZERO), shared=1, **FLOATING, **ANYWHERE),
    Row(
        "einsum",
        lambda *arrays, subscripts: ops.einsum(subscripts, *arrays),
        lambda *arrays, subscripts: np.einsum(subscripts, *arrays),
        equations(),
        **KEPT,
    ),
    Row("equal", ops.equal, np.equal, binary(), **NO_GRADIENT, **KEPT, **ANYWHERE),
    Row("exp", ops.exp, np.exp, unary(), **FLOATING, **ANYWHERE),
    Row("expand_dims", ops.expand_dims, np.expand_dims, expansions(), **KEPT),
    Row("expm1", ops.expm1, np.expm1, unary(), **FLOATING, **ANYWHERE),
    Row("feature_major", ops.feature_major, np.copy, matrices(), **KEPT),
    Row("flip", ops.flip, np.flip, flips(), **KEPT),
    Row(
        "floor_divide",
        ops.floor_divide,
        np.floor_divide,
        binary(BETWEEN, NONZERO),
        **NO_GRADIENT,
        **KEPT,
        **ANYWHERE,
    ),
    Row("getitem", ops.getitem, getitem, indexed(), **KEPT),
    Row("greater", ops.greater, np.greater, binary(), **NO_GRADIENT, **KEPT, **ANYWHERE),
    Row("greater_equal", ops.greater_equal, np.greater_equal, binary(), **NO_GRADIENT, **ANYWHERE),
    Row("less", ops.less, np.less, binary(), **NO_GRADIENT, **KEPT, **ANYWHERE),
    Row("less_equal", ops.less_equal, np.less_equal, binary(), **NO_GRADIENT, **ANYWHERE),
    Row("log", ops.log, np.log, unary(POSITIVE), **FLOATING, **ANYWHERE),
    Row("log1p", ops.log1p, np.log1p, unary(ABOVE_MINUS_ONE), **FLOATING, **ANYWHERE),
    Row("log_softmax", ops.log_softmax, log_softmax, along(empty=False), **FLOATING),
    Row("logaddexp", ops.logaddexp, np.logaddexp, binary(), **FLOATING, **ANYWHERE),
    Row("logsumexp", ops.logsumexp, logsumexp, reductions(), **FLOATING),
    Row("matmul", ops.matmul, np.matmul, products(), **KEPT),
    Row("max", ops.max, np.max, reductions(unique=True), **KEPT),
    Row("maximum", ops.maximum, np.maximum, binary(REAL, BETWEEN), **KEPT, **ANYWHERE),
    Row("mean", ops.mean, np.mean, reductions(), **FLOATING),
    Row("min", ops.min, np.min, reductions(unique=True), **KEPT),
    Row("minimum", ops.minimum, np.minimum, binary(REAL, BETWEEN), **KEPT, **ANYWHERE),
    Row("moveaxis", ops.moveaxis, np.moveaxis, moves(), **KEPT),
    Row("multiply", ops.multiply, np.multiply, binary(), **KEPT, **ANYWHERE),
    Row("negative", ops.negative, np.negative, unary(), **KEPT, **ANYWHERE),
    Row("not_equal", ops.not_equal, np.not_equal, binary(), **NO_GRADIENT, **KEPT, **ANYWHERE),
    Row("pad", ops.pad, np.pad, borders(), **KEPT),
    Row("power", ops.power, lambda x, y: x**y, powers()),
    Row("prod", ops.prod, np.prod, reductions(empty=True), **KEPT),
    Row("relu", ops.relu, lambda x: np.maximum(x, 0), unary(BETWEEN), **KEPT, **ANYWHERE),
    Row("remainder", ops.remainder, np.remainder, binary(BETWEEN, NONZERO), **KEPT, **ANYWHERE),
    Row(
        "reshape",
        ops.reshape,
        lambda x, shape: x.copy() if shape is None else np.reshape(x, shape),
        reshapes(),
        **KEPT,
    ),
    Row("sigmoid", ops.sigmoid, sigmoid, unary(), **FLOATING, **ANYWHERE),
    Row("sign", ops.sign, np.sign, unary(BETWEEN), **NO_GRADIENT, **KEPT, **ANYWHERE),
    Row("sin", ops.sin, np.sin, unary(), **FLOATING),
    Row(
        "softmax",
        ops.softmax,
        lambda x, axis: np.exp(log_softmax(x, axis)),
        along(empty=False),
        **FLOATING,
    ),
    Row("softplus", ops.softplus, lambda x: np.logaddexp(x, 0), unary(), **FLOATING, **ANYWHERE),
    Row("split", ops.split, np.split, sections(), **KEPT),
    Row("sqrt", ops.sqrt, np.sqrt, unary(POSITIVE), **FLOATING, **ANYWHERE),
    Row("squeeze", ops.squeeze, np.squeeze, squeezes(), **KEPT),
    Row("stack", in_a_list(ops.stack), in_a_list(np.stack), piles(), **KEPT),
    Row("stack_over_time", ops.stack_over_time, in_a_list(np.stack), steps(), **KEPT),
    Row("std", ops.std, np.std, reductions(COARSE, unique=True, ddof=True)),
    Row("subtract", ops.subtract, np.subtract, binary(), **KEPT, **ANYWHERE),
    Row("sum", ops.sum, np.sum, reductions(empty=True), **KEPT),
    Row("swapaxes", ops.swapaxes, np.swapaxes, two_axes(), **KEPT),
    Row("take", ops.take, np.take, taken(), **KEPT),
    Row("take_along_axis", ops.take_along_axis, np.take_along_axis, taken_along(), **KEPT),
    Row("tanh", ops.tanh, np.tanh, unary(), **FLOATING, **ANYWHERE),
    Row("tensordot", ops.tensordot, np.tensordot, tensordots(), **KEPT),
    Row("transpose", ops.transpose, transposed, permutations(), **KEPT),
    Row("unbind", ops.unbind, unbind, along(), **KEPT),
    Row("var", ops.var, np.var, reductions(ddof=True)),
    Row(
        "where",
        lambda x, y, condition: ops.where(condition, x, y),
        lambda x, y, condition: np.where(condition, x, y),
        wheres(),
        **KEPT,
    ),
]
