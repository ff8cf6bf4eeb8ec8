"""A primitive: a forward on arrays, and one vector-Jacobian product (vjp) for each argument.

    @primitive(x=lambda F, g, out: g * (1 - out * out))
    def tanh(xp, x):
        return xp.tanh(x)

Each keyword is the name of an argument. The parameters of its vjp name the values that the forward
saves for it: an argument, ``out`` (the result), a keyword argument of the forward, or the shape of
an argument (``x_shape``). No other value is kept in memory.

A vjp is written once and used in three ways: with arrays for ``g`` in the backward pass; with
Tensors under ``create_graph=True``, where it records a graph, so every derivative has a derivative;
and with symbols as the source of a fused kernel. ``F`` is the namespace of primitives for the kind
of ``g``. So a vjp uses operators and functions of ``F`` only, no methods and no array library.
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
    name: str | None = None,
    floating: bool = False,
    view: bool = False,
    pending: bool = False,
    joint: Vjp | None = None,
    **vjps: Vjp | None,
) -> Callable[[Callable[..., Array]], Operation]:
    """Make an operation on Tensors from a forward on arrays and a vjp for each of its arguments.

    Parameters
    ----------
    name : str, optional
        The name that users see: in error messages, in reprs (``grad_fn=<name>``) and in
        `tinygrad_rnn.viz.graph`. Without it they see the forward's name. Vjps always call the
        operation by the forward's name, ``F.<forward>``.
    floating
        Whether integer arguments are converted to floating ones first (exp, divide …).
    view
        Whether the result may share the memory of the first argument. If not, the result of a
        user's forward is copied when it does.
    pending
        Whether the vjp takes a `DeferredMatmul` that is not evaluated yet.
    joint
        Replaces `vjps` for a forward that takes ``*inputs``: one vjp that returns the gradients of
        all of them. It may name ``inputs``, ``shapes`` (of all inputs) and keyword arguments.
    **vjps
        For each argument of the forward a function ``vjp(F, g, *names)``; None if the argument has
        no gradient.

    Returns
    -------
    callable
        A decorator for ``forward(xp, *arrays, **params)``, where ``xp`` is the array library of the
        arguments.

    Raises
    ------
    TypeError
        If `name` is not a non-empty string, if the forward has no name (a lambda, a partial), or
        if the vjps do not fit its arguments.
    DTypeError
        At a call: if the forward does not return one array of real numbers.
    GraphError
        In the backward pass: if a vjp returns neither None nor a gradient of the shape of its
        argument.

    Notes
    -----
    Arrays among the keyword arguments that a vjp names (also in tuples, lists and dicts) are
    copied, since their contents may change before the backward pass. Arrays that a forward or a vjp
    reads otherwise, such as global ones, are not copied.

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

    The same rule for an operation whose function is private:

    >>> @tg.primitive(name="cube", x=lambda F, g, x: 3 * g * x * x)
    ... def _cube_on_arrays(xp, x):
    ...     return x * x * x
    >>> _cube_on_arrays(x)
    tensor([8.], grad_fn=<cube>)

    ``tg.gradcheck`` checks its derivatives, here for shapes and values drawn by hypothesis:

    >>> from hypothesis import given
    >>> @given(tg.testing.arrays())
    ... def test_cube(x):
    ...     tg.gradcheck(cube, x)
    >>> test_cube()
    """
    if name is not None and not (isinstance(name, str) and name):
        raise TypeError(f"primitive: name is a non-empty string, got {name!r:.60}")

    def decorate(forward: Callable[..., Array]) -> Operation:
        definition = OpDefinition(forward, vjps, joint, name)
        definition.floating, definition.view, definition.pending = floating, view, pending
        operation = definition.operation()
        held: Any = PRIMITIVES.get(definition.name)
        if held is None or held.definition.user_defined:
            PRIMITIVES[definition.name] = operation  # operations of the library are not replaced
        return operation

    return decorate
