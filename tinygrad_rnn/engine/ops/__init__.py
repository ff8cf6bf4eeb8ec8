"""The table of primitives and the functions made of them, a file a family. Names and semantics are NumPy's."""

from .elementwise import (
    abs,
    add,
    cast,
    clip,
    cos,
    divide,
    equal,
    exp,
    expm1,
    greater,
    greater_equal,
    less,
    less_equal,
    log,
    log1p,
    logaddexp,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    power,
    relu,
    sigmoid,
    sign,
    sin,
    softplus,
    sqrt,
    subtract,
    tanh,
    to_device,
    where,
)
from .index import getitem, index, scatter, split, take, take_along_axis, unbind
from .linalg import einsum, gemm, matmul, tensordot
from .reduce import argmax, argmin, cumsum, logsumexp, max, mean, min, prod, std, sum, var
from .shape import (
    broadcast_to,
    concatenate,
    expand_dims,
    flip,
    moveaxis,
    pad,
    reshape,
    squeeze,
    stack,
    swapaxes,
    transpose,
)
from .softmax import cross_entropy, log_softmax, softmax
