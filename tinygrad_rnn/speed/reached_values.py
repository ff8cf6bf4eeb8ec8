"""The values that a function can read in addition to its arguments, to notice that one has changed.

They are found through closures, defaults, the globals that its code names, and the attributes of
modules, optimizers and other objects. Objects of the standard library and of array libraries are
compared as a whole: their contents are not looked at.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .._util import LIBRARY
from ..engine import backend
from ..engine.tensor import Tensor

MOST = 20_000  # values
LONG = 1000  # elements of a container: longer ones are compared as a whole
SIMPLE = (bool, int, float, complex, str, bytes)  # compared by value
OPAQUE = {*sys.stdlib_module_names, "numpy", *backend.CUPY} - {"__main__", "test"}
_missing = object()


class Value(NamedTuple):
    """A value and the place that it was read from: a dict, a list, a cell or an object."""

    place: Any
    name: Any
    value: Any

    def now(self) -> Any:
        """Return the value that the place has now."""
        return _read(self.place, self.name)

    def holds(self) -> bool:
        """Tell whether the value is still the same."""
        found, value = _read(self.place, self.name), self.value
        if found is value:
            return True
        return found.__class__ is value.__class__ and value.__class__ in SIMPLE and found == value

    def restore(self) -> None:
        """Write the value back."""
        kind = self.place.__class__
        if kind is types.CellType:
            self.place.cell_contents = self.value
        elif kind is dict or kind is list:
            self.place[self.name] = self.value
        else:
            setattr(self.place, self.name, self.value)


class Reached:
    """All values that a function reaches.

    Attributes
    ----------
    tensors : list of Tensor
        Those among the values, each once.
    generators : list of numpy.random.Generator
        Likewise.
    too_many : bool
        Whether the search ended before it had found all.
    """

    def __init__(self, function: Any) -> None:
        self.tensors: list[Tensor] = []
        self.generators: list[np.random.Generator] = []
        self.values: list[Value] = []
        self.sizes: list[tuple[Any, int]] = []  # dicts and lists
        self._seen: dict[int, Any] = {}
        stack = [function]
        while stack and len(self.values) <= MOST:
            value = stack.pop()
            if id(value) in self._seen or value.__class__ in SIMPLE or value is None:
                continue
            self._seen[id(value)] = value  # kept, so that no other object gets its number
            found = list(self._inside(value))
            if not isinstance(value, tuple):  # it cannot change
                self.values += found
            stack += [x.value for x in found]
        self.too_many = len(self.values) > MOST

    def changed(self) -> str:
        """Return the name of something that has another value now; "" if nothing has."""
        for container, size in self.sizes:
            if len(container) != size:
                return f"a {type(container).__name__} of {size} elements"
        for value in self.values:
            if not value.holds():
                return str(value.name)
        return ""

    def restore(self) -> None:
        """Write all values back."""
        for container, size in self.sizes:
            for name in list(container)[size:] if container.__class__ is dict else ():
                del container[name]
            if container.__class__ is list:
                del container[size:]
        for value in self.values:
            if not value.holds():
                value.restore()

    def _inside(self, value: Any) -> Iterator[Value]:
        """Yield the values that an object refers to."""
        kind = type(value)
        if isinstance(value, Tensor):
            self.tensors.append(value)
            yield Value(value, "_data", value._data)
            yield Value(value, "_node", value._node)
        elif isinstance(value, np.random.Generator):
            self.generators.append(value)
        elif kind is types.FunctionType:
            yield from self._of_function(value)
        elif _is_of_library(kind) and "__wrapped__" in getattr(value, "__dict__", ()):
            yield Value(value, "__wrapped__", value.__wrapped__)
        elif kind is types.MethodType:
            yield Value(value, "__func__", value.__func__)
            yield Value(value, "__self__", value.__self__)
        elif kind is functools.partial:
            for name in ("func", "args", "keywords"):
                yield Value(value, name, getattr(value, name))
        elif isinstance(value, dict | list | tuple):
            yield from self._of_container(value)
        elif not isinstance(value, (type, types.ModuleType, *backend.modules)) and not _is_opaque(
            kind
        ):
            yield from self._of_object(value)

    def _of_container(self, value: Any) -> Iterator[Value]:
        if not isinstance(value, tuple):
            self.sizes.append((value, len(value)))
        if len(value) <= LONG:
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for name, x in list(items):
                yield Value(value, name, x)

    def _of_object(self, value: Any) -> Iterator[Value]:
        own = getattr(value, "__dict__", None)
        if own.__class__ is dict:
            yield from self._of_container(own)
        for base in type(value).__mro__:
            if not _is_opaque(base) and not _is_of_library(base):
                for name, x in vars(base).items():
                    if type(x) is types.FunctionType or type(x) in SIMPLE:
                        yield Value(base, name, x)

    def _of_function(self, function: Any) -> Iterator[Value]:
        if _is_of_library(function) and function.__closure__ is None:
            return
        yield Value(function, "__code__", function.__code__)
        for cell in function.__closure__ or ():
            yield Value(cell, "cell_contents", _read(cell, "cell_contents"))
        if _is_of_library(function):  # a decorator's
            return
        for name in ("__defaults__", "__kwdefaults__"):
            yield Value(function, name, getattr(function, name))
        names = _names(function.__code__)
        for name in names:
            if name in function.__globals__:
                x = function.__globals__[name]
                yield Value(function.__globals__, name, x)
                if type(x) is types.ModuleType and not _is_opaque(x) and not _is_of_library(x):
                    scope = vars(x)
                    yield from (Value(scope, n, scope[n]) for n in names if n in scope)


def _names(code: types.CodeType) -> list[str]:
    """Return the names that code reads, with those of the functions inside."""
    found = dict.fromkeys(code.co_names)
    for x in code.co_consts:
        if type(x) is types.CodeType:
            found.update(dict.fromkeys(_names(x)))
    return list(found)


def _read(place: Any, name: Any) -> Any:
    kind = place.__class__
    try:
        if kind is dict or kind is list:
            return place[name]
        if isinstance(place, dict | list | tuple):
            return place[name]
        return getattr(place, name, _missing)
    except (LookupError, ValueError):  # an element or the contents of a cell were deleted
        return _missing


def _root(x: Any) -> str:
    name = x.__name__ if type(x) is types.ModuleType else getattr(x, "__module__", None)
    return str(name or "builtins").partition(".")[0]


def _is_opaque(x: Any) -> bool:
    return _root(x) in OPAQUE


def _is_of_library(x: Any) -> bool:
    return _root(x) == LIBRARY
