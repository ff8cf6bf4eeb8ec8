"""A primitive: a forward on arrays, and one vector-Jacobian product (vjp) for each argument.

    @primitive(x=lambda F, g, out: g * (1 - out * out))
    def tanh(xp, x):
        return xp.tanh(x)

The keyword names the argument, and the names of the vjp's own parameters say what is saved for it:
an argument, ``out`` (the result), a keyword argument of the forward, or the shape of an argument
(``x_shape``). Nothing else stays alive.

A vjp is written once and lives three lives: with arrays for ``g`` it is the backward pass; with
Tensors it records a graph, so that every derivative has a derivative; with symbols it is the source
of a fused kernel. ``F`` is the namespace of primitives for the kind at hand. In a vjp stand
operators and names from ``F``, no method and no array library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._util.api_hints import explain_errors
from .backend import Array
from .codegen import OpDefinition, Vjp
from .namespaces import PRIMITIVES, Operation


@explain_errors
def primitive(
    *,
    floating: bool = False,
    view: bool = False,
    pending: bool = False,
    joint: Vjp | None = None,
    **vjps: Vjp | None,
) -> Callable[[Callable[..., Array]], Operation]:
    """Make an operation on Tensors from a forward on arrays and a vjp for each of its arguments.

    Parameters
    ----------
    floating
        Whether integer arguments become floating ones first (exp, divide …).
    view
        Whether the result may share the memory of the first argument. Otherwise a result of the
        user's that does is copied.
    pending
        Whether the vjp takes a `DeferredMatmul` that is not multiplied yet.
    joint
        In place of `vjps`: one vjp that returns the gradients of all arguments, for a forward that
        takes ``*inputs``. It may name ``inputs``, ``shapes`` (of all inputs) and keyword arguments.
    **vjps
        For each argument of the forward a function ``vjp(F, g, *names)``, or None if it has no
        gradient.

    Returns
    -------
    callable
        A decorator for ``forward(xp, *arrays, **params)``, where ``xp`` is the array library of the
        arguments.

    Raises
    ------
    TypeError
        If the forward has no name (a lambda, a partial), or the vjps do not fit its arguments.
    DTypeError
        At a call: if the forward returns something else than one array of real numbers.
    GraphError
        Backward: if a vjp returns neither None nor a gradient of the shape of its argument.

    Notes
    -----
    Arrays among the keyword arguments that a vjp names (also in tuples, lists and dicts) are
    copied, since they may be filled anew before the backward pass. What a forward or a vjp reads
    from elsewhere, such as a global array, is not.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> @tg.primitive(x=lambda F, g, x: 3 * g * x * x)
    ... def cube(xp, x):
    ...     return x * x * x
    >>> x = tg.tensor([2.0], requires_grad=True)
    >>> cube(x).backward()
    >>> x.grad
    tensor([12.])

    Its derivatives are proved by ``tg.gradcheck``; over shapes and values that hypothesis draws:

    >>> from hypothesis import given
    >>> @given(tg.testing.arrays())
    ... def test_cube(x):
    ...     tg.gradcheck(cube, x)
    >>> test_cube()
    """

    def decorate(forward: Callable[..., Array]) -> Operation:
        definition = OpDefinition(forward, vjps, joint)
        definition.floating, definition.view, definition.pending = floating, view, pending
        operation = definition.operation()
        held: Any = PRIMITIVES.get(definition.name)
        if held is None or held.definition.user_defined:
            PRIMITIVES[definition.name] = operation  # the library's stay what they are
        return operation

    return decorate
