"""Calls of NumPy's functions on Tensors: ours where there is one, NumPy's where there is no graph.

``numpy.sum(x, 0, keepdims=True)`` on a Tensor is ``tinygrad_rnn.sum(x, axis=0, keepdims=True)``:
the arguments are matched by NumPy's own signature, because the two have them in different orders.
What the library does not have is computed by NumPy if no Tensor of the call has a graph; otherwise
it raises, so that no gradient is lost in silence.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .._util.api_hints import PACKAGE_HINTS
from ..engine.tensor import Tensor
from ..errors import ArgumentError

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
ABOUT: tuple[Function, ...] = (  # these read no value, and may meet a graph
    np.iscomplexobj, np.isrealobj, np.may_share_memory, np.result_type, np.shares_memory,
)  # fmt: skip
MORE: dict[str, Function] = {}  # what modules above this one have under NumPy's names

signature = functools.lru_cache(maxsize=None)(inspect.signature)


def answer(
    theirs: Function, ours: Function | None, args: Sequence[Any], keywords: Mapping[str, Any]
) -> Any:
    """Return what a function of NumPy's gives on Tensors.

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
    if theirs in ABOUT:
        return theirs(*[x.data if isinstance(x, Tensor) else x for x in args], **keywords)
    beyond: list[str] = []
    if ours is not None:
        places, given = _matched(theirs, ours, args, keywords)
        beyond = [key for key in given if key not in signature(ours).parameters]
        if _fits(ours, places, given):
            return ours(*places, **given)
    return otherwise(theirs.__name__, theirs, ours, args, keywords, beyond)


def otherwise(
    name: str,
    theirs: Function,
    ours: Function | None,
    args: Sequence[Any],
    keywords: Mapping[str, Any],
    beyond: Sequence[str],
) -> Any:
    """Return what NumPy makes of arrays in place of Tensors; raise if one of these has a graph.

    The message names NumPy's function, the arguments `beyond` what ours takes, and the cure.
    """
    ufunc = hasattr(np, name.partition(".")[0])  # SciPy has others, without their module's name
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
    """Return the arguments of a call of NumPy's by our names, without those at their defaults."""
    try:
        bound = signature(theirs).bind(*args, **keywords)
    except ValueError:  # of a function in C that has no signature
        return args, dict(keywords)
    mine = list(signature(ours).parameters)
    several: Sequence[Any] = ()
    given: dict[str, Any] = {}
    for place, (name, parameter) in enumerate(bound.signature.parameters.items()):
        value = bound.arguments.get(name, parameter.default)
        if parameter.kind is parameter.VAR_POSITIONAL:
            several = value
        elif parameter.kind is parameter.VAR_KEYWORD:
            given |= bound.arguments.get(name, {})
        elif value is not parameter.default:
            known = PARAMETERS.get(name, name)
            if known not in mine and place < len(mine):  # the arrays have names of their own
                known = known if mine[place] in bound.signature.parameters else mine[place]
            given[known] = value
    return several, given


def _fits(function: Function, args: Sequence[Any], keywords: Mapping[str, Any]) -> bool:
    try:
        signature(function).bind(*args, **keywords)
    except TypeError:
        return False
    return True


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the Tensors among arguments, those in lists too."""
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
