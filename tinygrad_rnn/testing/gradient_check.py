"""The public gradient check: derivatives of any order against finite differences.

The method, from the outside in:

1. `gradcheck` checks one order after the other. Order 1 is the Jacobian of `fn`; order k + 1 is the
   Jacobian of the gradient Jᵀu of order k, as a function of the inputs and of u.
2. ``jacobian_check`` compares a Jacobian by the graph with finite differences: random sums of many
   elements at once, with a tolerance for each row. It also checks the graph against itself.
3. ``finite_differences`` estimates directional derivatives and their uncertainty, and decides which
   step length to trust.
4. ``failure_report`` finds one wrong element by bisection, for the message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from .. import random as _random
from .._util.api_hints import class_name
from .._util.functions import check_function
from ..engine.grad_mode import enable_grad
from ..engine.tensor import Tensor
from ..errors import ArgumentError, DTypeError, GradcheckError
from .failure_report import failure_report
from .flat_function import FlatFunction, flatten, flatten_outputs
from .jacobian_check import JacobianCheck


def gradcheck(
    fn: Callable[..., Any],
    inputs: Any,
    order: int = 2,
    rtol: float = 1e-7,
    atol: float = 0.0,
    rng: Any = 0,
) -> Literal[True]:
    """Check the derivatives of `fn` against finite differences; raise an error if one is wrong.

    Parameters
    ----------
    fn : callable
        Takes Tensors, returns a Tensor or a sequence of Tensors. It must be deterministic.
    inputs : Tensor, array or sequence of these
        The arguments of `fn`, in float64. `fn` must be smooth within 0.01 · max(1, |x|), or at
        least within 0.01 · |x|, of each element x.
    order : int
        The highest order: 2 checks the gradient and the gradient of the gradient.
    rtol : float
        Relative tolerance, in addition to the uncertainty of the finite differences.
    atol : float
        Absolute tolerance, in addition to both. It is 0 because the uncertainty is estimated.
    rng : int or numpy.random.Generator
        Seed or generator of the random directions.

    Returns
    -------
    True
        It raises otherwise.

    Raises
    ------
    GradcheckError
        If a derivative is wrong (the message names the order, the output, the input, the indices,
        both values, their difference and the tolerance); if the gradient of several outputs is not
        the sum of theirs, or differs between arrays and ``create_graph=True``; if the finite
        differences are too inaccurate to decide; if `fn` is not deterministic or not finite.
    DTypeError
        If an input is not float64: finite differences of narrower numbers are too inaccurate.
    ArgumentError
        If `inputs` is empty, `order` is below 1, or an output is not a Tensor.

    Notes
    -----
    Each output is compared with each input separately. For random u and v, uᵀ(Jv) from finite
    differences must equal (Jᵀu)ᵀv from the graph. The elements of v have the size of their inputs,
    and those of u the inverse size of Jv, so that elements of very different sizes count alike.
    Inputs whose share of (Jᵀu)ᵀv is below 0.03 of the largest are checked again without the larger
    ones. The number of calls of `fn` depends on the number of outputs and inputs and on how many
    orders of magnitude their elements span, not on the number of elements. The wrong element is
    located, by bisection, only after a comparison has failed. Order k + 1 is the same check of Jᵀu
    as a function of the inputs and of u.

    An error in the derivative of an element a of an output with respect to an element b of an input
    is found with probability 1 at the default `rtol`, however large the other inputs and outputs
    are, if it exceeds √n times the largest of these three bounds (n is the number of elements of
    the output):

    - 4e-6 of the derivative of a along b's array, counting the elements that contribute about as
      much as b (at least 0.03 of the largest) to the derivatives of the whole output;
    - 0.01 of it, if rounding in `fn` makes the finite differences inaccurate. If their relative
      uncertainty exceeds 0.001, an error says so;
    - 1e-10 · abs(a) / max(1, abs(b)). In higher orders, the a of the largest output counts for all;
      where a is 0, the bound is 1e-14 times the largest element of its output. Smaller derivatives
      are below the rounding of `fn` and are not checked.

    The finite differences are central, over seven points, with an error of h⁶. Their uncertainty is
    the distance to a formula with an error of h⁴, plus ten times the rounding noise, which is
    estimated from fourth to sixth differences. If the uncertainty is too large, other steps are
    tried, from 2e-3 to 7e-16 of max(1, |x|) and of |x|.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.gradcheck(lambda x, y: x * tg.tanh(y), [[1.0, 2.0], 0.5])
    True
    >>> @tg.primitive(x=lambda F, g, x: 2 * g * x * x)
    ... def wrong_cube(xp, x):
    ...     return x * x * x
    >>> tg.gradcheck(wrong_cube, [[0.5, 2.0]])  # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
        ...
    tinygrad_rnn.errors.GradcheckError: gradcheck, order 1: the derivative of output 0 at [1]
    with respect to input 0 at [1] (= 2) is 8 by the graph, 12 by finite differences:
    difference 4, tolerance 1e-06
    """
    if order < 1:
        raise ArgumentError(f"gradcheck: order counts from 1, got {order}")
    check_function(fn, "gradcheck")
    generator = _random.generator(rng)
    with enable_grad():
        function = _flat_function(fn, inputs)
        for k in range(1, order + 1):
            check = JacobianCheck(f"gradcheck, order {k}", function, rtol, atol, generator)
            failure = check.first_failure()
            if failure is not None:
                raise GradcheckError(failure_report(check, *failure))
            check.check_additivity()
            if k < order:
                function = check.gradient(f"gradcheck, order {k + 1}")
    return True


def _flat_function(fn: Callable[..., Any], inputs: Any) -> FlatFunction:
    """Return `fn` and its inputs as a FlatFunction, or raise if it has no finite differences."""
    tensors = []
    for i, x in enumerate(_as_list(inputs)):
        x = x if isinstance(x, Tensor) else Tensor(np.asarray(x))
        if x.dtype != np.float64:
            raise DTypeError(
                f"gradcheck: input {i} is {x.dtype}: finite differences need "
                ".astype(tinygrad_rnn.float64)"
            )
        tensors.append(x)
    if not tensors:
        raise ArgumentError("gradcheck: no inputs were given")
    outputs = _as_list(fn(*[x.detach() for x in tensors]))
    for j, y in enumerate(outputs):
        if not isinstance(y, Tensor):
            raise ArgumentError(
                f"gradcheck: output {j} of fn must be a Tensor, got {class_name(y)}"
            )
    function = FlatFunction(
        lambda *x: _as_list(fn(*x)),
        inputs=[x.numpy() for x in tensors],
        devices=[x.device for x in tensors],
        input_names=[f"input {i}" for i in range(len(tensors))],
        output_names=[f"output {j}" for j in range(len(outputs))],
        magnitudes=[np.zeros(y.shape) for y in outputs],
    )
    first = flatten_outputs(outputs)
    second = flatten_outputs(function.evaluate(flatten(function.inputs)))
    if not np.isfinite(first).all():
        raise GradcheckError(
            f"gradcheck: fn gives {first[~np.isfinite(first)][0]} at these inputs: it has no "
            "derivative there"
        )
    if not np.array_equal(first, second):
        raise GradcheckError(
            "gradcheck: fn gives other values when it is called again with the same inputs: "
            "switch dropout off (.eval()) or give it a seed (rng=)"
        )
    return function


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
