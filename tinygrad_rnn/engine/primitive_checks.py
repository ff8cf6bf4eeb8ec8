"""What a primitive of a user's own has to be: checked where it is defined, and at each call.

The library's own primitives are tested instead, so that their calls cost nothing more. Of all that
may return a view it is asked at each call whether they did (`version_of`).
"""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from .._util.api_hints import class_name
from .._util.functions import check_function
from ..errors import DTypeError, GraphError
from .pending import PENDING


def name_of(forward: Any, vjps: Mapping[str, Any], joint: Any, taken: Collection[str] = ()) -> str:
    """Return the name of a primitive, whose operation becomes a function of that name.

    Parameters
    ----------
    forward : callable
        It computes the result on arrays.
    vjps : mapping of str to callable or None
        For each argument.
    joint : callable or None
        In their place.
    taken : collection of str
        Names that the operation itself uses.

    Returns
    -------
    str
        That of the forward.

    Raises
    ------
    ArgumentError
        If the forward cannot be called.
    TypeError
        If the forward has no name, or parameters that the operation cannot have, or if the vjps do
        not fit it.

    Examples
    --------
    >>> from tinygrad_rnn.engine.primitive_checks import name_of
    >>> name_of(lambda xp, x: x * 2, {"x": lambda F, g: g * 2}, None)
    Traceback (most recent call last):
    TypeError: primitive: the forward is named '<lambda>': write it with def, under a name ...
    """
    check_function(forward, "primitive")
    name = getattr(forward, "__name__", None)
    if not isinstance(name, str):
        raise TypeError(
            f"primitive: the forward is an object of {class_name(forward)}, without a name: write "
            "a function with def"
        )
    if not name.isidentifier() or keyword.iskeyword(name) or name == "vjp":
        raise TypeError(
            f"primitive: the forward is named {name!r}: write it with def, under a name that is an "
            "identifier (and not 'vjp')"
        )
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    names = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]  # those are no arrays
    inputs = list(vjps)
    variadic = bool(parameters) and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL
    if names[: len(inputs)] != inputs or not (inputs or joint):
        raise TypeError(
            f"primitive {name}: give a vjp (or None) for each argument, in their order; there are "
            f"vjps for {inputs}, arguments {names}"
        )
    if joint and (inputs or not variadic):
        raise TypeError(
            f"primitive {name}: joint= is for a forward (xp, *arrays) with no other vjp"
        )
    for p in parameters:
        if p.kind is p.VAR_KEYWORD:
            raise TypeError(f"primitive {name}: the forward takes **{p.name}: name each parameter")
        if p.kind is p.VAR_POSITIONAL and not joint:
            raise TypeError(
                f"primitive {name}: the forward takes *{p.name}: give joint=, one vjp for all"
            )
    made = [f"{x}_{end}" for x in inputs for end in ("data", "node", "shape", "vjp")]
    names = [p.name for p in parameters]
    clashes = sorted({*taken, *made}.intersection(names[joint is not None :]))
    if clashes:
        raise TypeError(f"primitive {name}: other names than {clashes} are needed")
    for argument, vjp in {**vjps, **({"joint": joint} if joint else {})}.items():
        if vjp is not None and (not callable(vjp) or _positional(vjp) < 2):
            raise TypeError(
                f"primitive {name}: the vjp {argument}= is to be a function (F, g, *names), got "
                f"{vjp!r:.60}"
            )
    return name


def _positional(function: Callable[..., Any]) -> float:
    """Return how many arguments a function can be given by position."""
    try:
        kinds = [p.kind for p in inspect.signature(function).parameters.values()]
    except ValueError:  # a function in C that does not tell
        return 0
    several = inspect.Parameter.VAR_POSITIONAL in kinds
    keyword_only = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    return float("inf") if several else sum(k not in keyword_only for k in kinds)


def one_array(name: str, xp: Any, out: Any) -> Any:
    """Return the result of a primitive's forward as an array, if it is one of numbers.

    Parameters
    ----------
    name : str
        Of the primitive.
    xp : module
        The array library of its arguments.
    out : object
        What the forward returned: an array, a scalar or a number.

    Raises
    ------
    DTypeError
        If it is something else, such as two arrays, or None.
    """
    if getattr(out, "requires_grad", False):
        raise GraphError(
            f"{name}: the forward returned a {class_name(out)} with a graph, which would be lost: "
            "it computes on arrays; an argument with a vjp comes as one"
        )
    several = isinstance(out, tuple | list)
    if several or not (hasattr(out, "__array__") or isinstance(out, bool | int | float)):
        got = f"{class_name(out)} of {len(out)}" if several else class_name(out)
        cure = ": write a primitive for each result, or stack them in the forward" * several
        raise DTypeError(f"{name}: the forward is to return one array, got a {got}{cure}")
    out = xp.asarray(out)
    if out.dtype.kind not in "fiub":
        raise DTypeError(f"{name}: the forward returned an array of {out.dtype}: real numbers only")
    return out


def version_of(x: Any, out: Any, recording: bool) -> list[int] | None:
    """Return the version of an operation's result that may be a view of a leaf, or of such a view.

    Parameters
    ----------
    x : Tensor
        The argument, with a version.
    out : array
        The result. Some operations return a view or a copy, by the key and the memory layout.
    recording : bool
        Whether this thread records a graph.

    Returns
    -------
    list of int or None
        That of `x` for a view. A copy is a computed value, without a version: a graph may have
        saved it, and a write to it does not change `x`. Without a graph it can be written to.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> x[:1]._version is x._version, x[[0]]._version
    (True, None)
    """
    if out.__class__ is not np.ndarray or out.base is x._data or np.may_share_memory(out, x._data):
        version: list[int] = x._version
        return version
    return None if recording and x._node is not None else [0]


def gradients(op: Any, grads: Any, parents: Sequence[Any], F: Any) -> Sequence[Any]:
    """Return what the vjps of a primitive returned, if these are gradients of its arguments.

    Parameters
    ----------
    op : OpDefinition
        The primitive's.
    grads : sequence
        For each of the `parents` a gradient, or None for none.
    parents : sequence of Node or None
        The places of its arguments in the graph; None where no gradient is wanted.
    F : Raw or Recorded
        What the vjps were called with.

    Raises
    ------
    GraphError
        If one is something else; the message names the argument.
    """
    if op.joint and (not isinstance(grads, tuple | list) or len(grads) != len(parents)):
        sized = isinstance(grads, tuple | list)
        got = f"{len(grads)} gradients" if sized else f"an object of {class_name(grads)}"
        raise GraphError(
            f"the joint vjp of {op.name} returned {got} for {len(parents)} arguments: return a "
            "list with a gradient, or None, for each"
        )
    for i, (grad, parent) in enumerate(zip(grads, parents, strict=True)):
        if grad is None or parent is None or type(grad) in PENDING:  # pending
            continue
        problem = _misfit(grad, parent.shape, F)
        if problem:
            argument = op.differentiable[i] if op.differentiable else f"argument {i}"
            raise GraphError(f"the vjp of {op.name} by {argument} returned {problem}")
    return grads


def _misfit(grad: Any, shape: tuple[int, ...], F: Any) -> str | None:
    """Return what is wrong with the gradient of an argument of that shape, if anything is."""
    if type(grad) in (bool, int, float):
        cure = f"return an array of the shape {shape}, such as g * 0 + {grad!r}, or None for none"
        return f"the number {grad!r}: {cure}"
    if hasattr(type(grad), "_node") is not F.records or not hasattr(grad, "astype"):
        return f"an object of {class_name(grad)}: compute it from g by operators and functions of F"
    if grad.dtype.kind not in "fiub":
        return f"a gradient of {grad.dtype}: real numbers only"
    extra = len(grad.shape) - len(shape)
    if extra < 0 or any(n not in (1, m) for n, m in zip(shape, grad.shape[extra:], strict=True)):
        return f"a gradient of shape {grad.shape} for an argument of shape {shape}"
    return None
