"""Values in tuples, named tuples, lists and dicts, of any depth: the one walk over them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any


def map_nested(function: Callable[[Any], Any], value: Any) -> Any:
    """Return a value of the same structure with a function applied to each element.

    Parameters
    ----------
    function : callable
        Called once for each element that is not a tuple, list or dict, in their order.
    value : object
        An element, or tuples, lists and dicts of them. Subclasses, named tuples among them, keep
        their class.

    Returns
    -------
    object
        New containers, so that `value` stays as it is.

    Examples
    --------
    >>> from tinygrad_rnn._util.nested import map_nested
    >>> map_nested(lambda x: x + 1, [1, (2, {"a": 3})])
    [2, (3, {'a': 4})]
    """
    if isinstance(value, tuple | list):
        parts = [map_nested(function, element) for element in value]
        make: Any = getattr(value, "_make", type(value))  # a named tuple takes its parts one by one
        return make(parts)
    if isinstance(value, dict):
        made = copy.copy(value)
        for name, element in value.items():
            made[name] = map_nested(function, element)
        return made
    return function(value)


def leaves(value: Any) -> list[Any]:
    """Return the elements of nested tuples, lists and dicts, in their order.

    Parameters
    ----------
    value : object
        An element, or tuples, lists and dicts of them.

    Returns
    -------
    list
        What `map_nested` calls its function with.

    Examples
    --------
    >>> from tinygrad_rnn._util.nested import leaves
    >>> leaves([1, (2, {"a": None})])
    [1, 2, None]
    """
    found: list[Any] = []
    map_nested(found.append, value)
    return found
