"""Checks of the user's primitives, at their definition and at each call.

The calls of the library's own primitives are not checked, to save time: tests check them.
`version_of` is called for all primitives that may return a view.
"""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .._util.api_hints import class_name
from .._util.functions import check_function, positional_count
from ..errors import DTypeError, GraphError
from .pending import PENDING

_VARIADIC = inspect.Parameter.VAR_POSITIONAL


def name_of(forward: Any, vjps: Mapping[str, Any], joint: Any, taken: Collection[str] = ()) -> str:
    """Check the definition of a primitive; return its name, that of its forward.

    Parameters
    ----------
    forward : callable
        The computation on arrays.
    vjps : mapping of str to callable or None
        The vjp of each argument.
    joint : callable or None
        The vjp of all arguments, in place of `vjps`.
    taken : collection of str
        Names that the generated code uses.

    Returns
    -------
    str
        The name of the forward.

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
    for problem in _problems(parameters, vjps, joint, taken):
        raise TypeError(f"primitive {name}: {problem}")
    return name


def _problems(
    parameters: Sequence[inspect.Parameter],
    vjps: Mapping[str, Any],
    joint: Any,
    taken: Collection[str],
) -> Iterator[str]:
    """Yield descriptions of the errors in the definition of a primitive."""
    arrays, inputs = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY], list(vjps)
    if arrays[: len(inputs)] != inputs or not (inputs or joint):
        yield (
            "give a vjp (or None) for each argument, in their order; there are vjps for "
            f"{inputs}, arguments {arrays}"
        )
    if joint and (inputs or not parameters or parameters[0].kind is not _VARIADIC):
        yield "joint= is for a forward (xp, *arrays) with no other vjp"
    for p in parameters:
        if p.kind is p.VAR_KEYWORD:
            yield f"the forward takes **{p.name}: name each parameter"
        if p.kind is _VARIADIC and not joint:
            yield f"the forward takes *{p.name}: give joint=, one vjp for all"
    made = {f"{x}_{suffix}" for x in inputs for suffix in ("data", "node", "shape", "vjp")}
    reserved = made.union(taken).intersection(p.name for p in parameters[joint is not None :])
    if reserved:
        yield f"the names {sorted(reserved)} are reserved; choose other parameter names"
    for argument, vjp in {**vjps, "joint": joint}.items():
        if vjp is not None and (not callable(vjp) or positional_count(vjp) < 2):
            yield f"the vjp {argument}= is to be a function (F, g, *names), got {vjp!r:.60}"


def one_array(name: str, xp: Any, out: Any) -> Any:
    """Return the result of a primitive's forward as an array, after validation.

    Parameters
    ----------
    name : str
        The name of the primitive, for messages.
    xp : module
        The array library of its arguments.
    out : object
        The value that the forward returned: an array, a scalar or a number.

    Raises
    ------
    DTypeError
        If it is not one array of real numbers; for example two arrays, or None.
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
    """Return the version of the result of an operation that may return a view.

    Parameters
    ----------
    x : Tensor
        The argument, a tensor with a version.
    out : array
        The result: a view of `x` or a copy, depending on the key and the memory layout.
    recording : bool
        Whether this thread records a graph.

    Returns
    -------
    list of int or None
        For a view the version of `x`. A copy in a graph has none, as other computed values: it is
        never written to. A copy without a graph has a version of its own.

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
    """Return the gradients that the vjps of a primitive returned, after validation.

    Parameters
    ----------
    op : OpDefinition
        The definition of the primitive.
    grads : sequence
        For each of the `parents` a gradient or None.
    parents : sequence of Node or None
        The nodes of its arguments; None where no gradient is needed.
    F : Raw or Recorded
        The namespace that the vjps were called with.

    Raises
    ------
    GraphError
        If a value is not a gradient of its argument; the message names the argument.
    """
    if op.joint and (not isinstance(grads, tuple | list) or len(grads) != len(parents)):
        sized = isinstance(grads, tuple | list)
        got = f"{len(grads)} gradients" if sized else f"an object of {class_name(grads)}"
        raise GraphError(
            f"the joint vjp of {op.title} returned {got} for {len(parents)} arguments: return a "
            "list with a gradient, or None, for each"
        )
    for i, (grad, parent) in enumerate(zip(grads, parents, strict=True)):
        if grad is None or parent is None or type(grad) in PENDING:  # pending
            continue
        problem = _problem(grad, parent.shape, F)
        if problem:
            argument = op.differentiable[i] if op.differentiable else f"argument {i}"
            raise GraphError(f"the vjp of {op.title} by {argument} returned {problem}")
    return grads


def _problem(grad: Any, shape: tuple[int, ...], F: Any) -> str | None:
    """Return a description of the value if it is not a gradient of that shape, else None."""
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
