"""NumPy's protocols: calls of NumPy's functions on Tensors, and conversion to an array.

``numpy.sum(x, 0, keepdims=True)`` on a Tensor is ``tinygrad_rnn.sum(x, axis=0, keepdims=True)``:
the arguments are matched by NumPy's own signature, because the two have them in different orders.
A function that the library lacks is computed by NumPy if no Tensor of the call has a graph;
otherwise it raises, so that no gradient is lost without an error.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .._util.api_hints import PACKAGE_HINTS
from ..engine.backend import DType
from ..engine.tensor import Tensor
from ..errors import ArgumentError, GraphError
from . import creation, functions

Function = Callable[..., Any]

NAMES = {
    "absolute": "abs",
    "amax": "max",
    "amin": "min",
    "cumulative_sum": "cumsum",
    "true_divide": "divide",
    "unstack": "unbind",
}
PARAMETERS = {"a_max": "max", "a_min": "min", "correction": "ddof"}
METADATA: tuple[Function, ...] = (  # these read no element, and are allowed with a graph
    np.iscomplexobj, np.isrealobj, np.may_share_memory, np.result_type, np.shares_memory,
)  # fmt: skip

signature = functools.lru_cache(maxsize=None)(inspect.signature)


def function_of(name: str) -> Function | None:
    """Return the library's function for a name of NumPy's, or None."""
    if name in ("ones_like", "zeros_like"):
        return getattr(creation, name)
    function = getattr(functions, NAMES.get(name, name), None)
    return function if callable(function) else None


def floor_divide_and_remainder(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Return x // y and x % y, the results of ``divmod``."""
    return functions.floor_divide(x, y), functions.remainder(x, y)


UFUNCS: dict[str, Any] = {
    name: function_of(name) for name, value in vars(np).items() if isinstance(value, np.ufunc)
}
UFUNCS |= {"positive": lambda x: x, "divmod": floor_divide_and_remainder}


def array(x: Tensor, dtype: DType = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
    """Return the values for ``numpy.asarray``: this is ``Tensor.__array__``.

    Raises
    ------
    GraphError
        If x requires grad.
    """
    if x.requires_grad:
        raise GraphError(
            "a tensor that requires grad is not converted to an array implicitly: use .detach() or "
            ".numpy(); tinygrad_rnn.stack makes one tensor of a list of them"
        )
    return x.numpy() if dtype is None else x.numpy().astype(dtype)


def array_ufunc(x: Tensor, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
    """Answer a call of a ufunc: this is ``Tensor.__array_ufunc__``."""
    ours, plain = UFUNCS.get(ufunc.__name__), method == "__call__"
    if plain and ours is not None and not keywords:
        return ours(*inputs)
    name = ufunc.__name__ if plain else f"{ufunc.__name__}.{method}"
    theirs = ufunc if plain else getattr(ufunc, method)
    return by_numpy(name, theirs, ours, inputs, keywords, list(keywords))


def array_function(
    x: Tensor, function: Any, types: Any, args: tuple[Any, ...], keywords: dict[str, Any]
) -> Any:
    """Answer a call of another function: this is ``Tensor.__array_function__``."""
    if function in (np.shape, np.ndim, np.size) and len(args) == 1 and not keywords:
        return getattr(args[0], function.__name__)
    return answer(function, function_of(function.__name__), args, keywords)


def answer(
    theirs: Function, ours: Function | None, args: Sequence[Any], keywords: Mapping[str, Any]
) -> Any:
    """Return the result of one of NumPy's functions on Tensors.

    Parameters
    ----------
    theirs, ours : callable
        NumPy's function, and the library's or None.
    args, keywords
        The arguments as NumPy takes them.

    Raises
    ------
    TypeError
        If the library has no such function, or not with these arguments, and a Tensor has a graph.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> np.amax(tg.tensor([1.0, 3.0])), np.isfinite(tg.tensor([1.0, np.inf]))
    (tensor(3.), array([ True, False]))
    """
    if theirs in METADATA:
        return theirs(*[x.data if isinstance(x, Tensor) else x for x in args], **keywords)
    beyond: list[str] = []
    if ours is not None:
        positional, given = _matched(theirs, ours, args, keywords)
        beyond = [key for key in given if key not in signature(ours).parameters]
        if _fits(ours, positional, given):
            return ours(*positional, **given)
    return by_numpy(theirs.__name__, theirs, ours, args, keywords, beyond)


def by_numpy(
    name: str,
    theirs: Function,
    ours: Function | None,
    args: Sequence[Any],
    keywords: Mapping[str, Any],
    beyond: Sequence[str],
) -> Any:
    """Return NumPy's result on copies of the arrays; raise if one of the Tensors has a graph.

    The message names NumPy's function, the arguments `beyond` those that ours takes, and the cure.
    """
    ufunc = hasattr(np, name.partition(".")[0])  # SciPy's ufuncs do not name their module
    module = getattr(theirs, "__module__", None) or "numpy" * ufunc
    call = f"{f'{module}.' * module.startswith('numpy')}{name}({', '.join(beyond)})"
    if any(x.requires_grad for x in _tensors([*args, *keywords.values()])):
        cure = "use .detach() or .numpy() if no gradient is wanted"
        if ours is not None:
            cure = f"use tinygrad_rnn.{ours.__name__}"
        elif name in PACKAGE_HINTS:
            cure = f"here it is {PACKAGE_HINTS[name]}; {cure}"
        raise TypeError(f"{call} on a Tensor would lose its graph: {cure}")
    try:
        return theirs(*_on_arrays(tuple(args)), **_on_arrays(dict(keywords)))
    except ValueError as error:
        if not any(words in str(error) for words in ("read-only", "not acceptable")):
            raise
        raise ArgumentError(
            f"{call}: {error}: NumPy does not write into a Tensor: give it an array, such as "
            "x.numpy(), or write x[...] = values inside `with tinygrad_rnn.no_grad()`"
        ) from error


def _matched(
    theirs: Function, ours: Function, args: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[Sequence[Any], dict[str, Any]]:
    """Return the arguments of a call of NumPy's function by our names, without the defaults."""
    try:
        bound = signature(theirs).bind(*args, **keywords)
    except ValueError:  # of a function in C that has no signature
        return args, dict(keywords)
    mine = list(signature(ours).parameters)
    several: Sequence[Any] = ()
    given: dict[str, Any] = {}
    for position, (name, parameter) in enumerate(bound.signature.parameters.items()):
        value = bound.arguments.get(name, parameter.default)
        if parameter.kind is parameter.VAR_POSITIONAL:
            several = value
        elif parameter.kind is parameter.VAR_KEYWORD:
            given |= bound.arguments.get(name, {})
        elif value is not parameter.default:
            known = PARAMETERS.get(name, name)
            if known not in mine and position < len(mine):  # NumPy names its arrays differently
                known = known if mine[position] in bound.signature.parameters else mine[position]
            given[known] = value
    return several, given


def _fits(function: Function, args: Sequence[Any], keywords: Mapping[str, Any]) -> bool:
    try:
        signature(function).bind(*args, **keywords)
    except TypeError:
        return False
    return True


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the Tensors among arguments, also those in lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _on_arrays(value: Any) -> Any:
    """Return arguments with copies in place of Tensors, which NumPy's function cannot write to."""
    if isinstance(value, Tensor):
        array: np.ndarray[Any, Any] = value.numpy()
        array.flags.writeable = False
        return array
    if isinstance(value, dict):
        return {key: _on_arrays(part) for key, part in value.items()}
    if value.__class__ in (list, tuple):
        return value.__class__(_on_arrays(part) for part in value)
    return value
