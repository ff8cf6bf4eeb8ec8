"""Traversal of nested tuples, named tuples, lists and dicts (pytrees)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any


def map_nested(function: Callable[[Any], Any], value: Any) -> Any:
    """Return a value of the same structure with a function applied to each leaf.

    Parameters
    ----------
    function : callable
        Called once for each leaf, in order.
    value : object
        A leaf (anything but a tuple, list or dict), or tuples, lists and dicts of leaves, of any
        depth. Subclasses, named tuples among them, keep their class.

    Returns
    -------
    object
        New containers; `value` is unchanged.

    Examples
    --------
    >>> from tinygrad_rnn._util.nested import map_nested
    >>> map_nested(lambda x: x + 1, [1, (2, {"a": 3})])
    [2, (3, {'a': 4})]
    """
    if isinstance(value, tuple | list):
        items = [map_nested(function, item) for item in value]
        make: Any = getattr(value, "_make", type(value))  # a named tuple takes its items one by one
        return make(items)
    if isinstance(value, dict):
        result = copy.copy(value)
        for key, item in value.items():
            result[key] = map_nested(function, item)
        return result
    return function(value)


def leaves(value: Any) -> list[Any]:
    """Return the leaves of nested tuples, lists and dicts, in order.

    Parameters
    ----------
    value : object
        A leaf, or tuples, lists and dicts of leaves, as of `map_nested`.

    Returns
    -------
    list
        The arguments with which `map_nested` calls its function.

    Examples
    --------
    >>> from tinygrad_rnn._util.nested import leaves
    >>> leaves([1, (2, {"a": None})])
    [1, 2, None]
    """
    found: list[Any] = []
    map_nested(found.append, value)
    return found
