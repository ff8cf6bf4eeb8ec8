"""The values that a function can read in addition to its arguments, to notice that one has changed.

They are found through closures, defaults, the globals that its code names, and the attributes of
modules, optimizers, classes and other objects. Objects of the standard library and of array
libraries are compared as a whole, except for containers, namespaces and small arrays of the host.
"""

from __future__ import annotations

import collections
import contextvars
import functools
import gc
import random
import sys
import types
import warnings
import weakref
from collections.abc import Iterable, Iterator
from operator import is_
from typing import Any, NamedTuple

import numpy as np

from .._util import LIBRARY
from ..engine import backend
from ..engine.tensor import Tensor
from ..nn import Module
from ..optim import schedule
from .scalars import same

MOST = 20_000  # values
LONG = 1000  # elements of a container or an array: those of longer ones are not compared
SIMPLE = (bool, int, float, complex, str, bytes)  # compared by value
OPAQUE = {*sys.stdlib_module_names, "numpy", *backend.CUPY} - {"__main__", "test"}
NAMESPACES = {"types", "argparse", "collections", "queue", "weakref", "_weakrefset", "_thread"}
ITERATORS = {"builtins", "itertools"}
CONTAINERS = dict, list, set, collections.deque, types.MappingProxyType
LRU_CACHE = type(functools.lru_cache(len))
WRAPPERS = property, staticmethod, classmethod, functools.cached_property, functools.partialmethod
_missing = object()


class Value(NamedTuple):
    """A value and the place that it was read from: a scope, a cell or an object."""

    place: Any
    name: Any
    value: Any

    def changed(self) -> str:
        """Return the name if the place has another value now; else ""."""
        return "" if _same(_read(self.place, self.name), self.value) else str(self.name)

    def restore(self) -> None:
        """Write the value back."""
        if self.place.__class__ is dict:
            self.place[self.name] = self.value
        elif self.place.__class__ is contextvars.ContextVar:
            self.place.set(self.value)
        elif self.value is _missing:
            delattr(self.place, self.name)
        else:
            setattr(self.place, self.name, self.value)


class Contents:
    """The elements of a container, or the attributes of a class.

    Parameters
    ----------
    container : dict, list, set, deque or mapping proxy
        Or one of a subclass.
    owner : type, optional
        The class whose attributes they are.
    """

    __slots__ = ("container", "keys", "owner", "values")

    def __init__(self, container: Any, owner: Any = None) -> None:
        self.container, self.owner = container, owner
        self.keys, self.values = self._now()

    def _now(self) -> tuple[list[Any], list[Any]]:
        x = self.container
        if isinstance(x, types.MappingProxyType):
            return list(x), list(x.values())
        if isinstance(x, dict):
            kind = _kind_of_dict(x)
            return list(kind.__iter__(x)), list(kind.values(x))
        kind = next(kind for kind in CONTAINERS if isinstance(x, kind))
        return [], list(kind.__iter__(x))

    @property
    def is_long(self) -> bool:
        """Tell whether there are too many elements to compare them at each call."""
        return len(self.values) > LONG

    def changed(self) -> str:
        """Return the name of what has changed; "" if nothing has."""
        keys, values = self._now()
        name = f"a {type(self.container).__name__} of {len(self.values)} elements"
        if len(values) != len(self.values):
            return name
        if isinstance(self.container, set):
            return "" if self.container.issuperset(self.values) else name
        if not all(map(is_, keys, self.keys)) and not all(map(_same, keys, self.keys)):
            return name
        if all(map(is_, values, self.values)):
            return ""
        pairs = enumerate(zip(values, self.values, strict=True))
        return next((str(keys[i] if keys else i) for i, x in pairs if not _same(*x)), "")

    def restore(self) -> None:
        """Write the elements back."""
        x = self.container
        if isinstance(x, types.MappingProxyType) and self.owner is None:
            return  # whose dict is unknown
        if self.keys or isinstance(x, dict | types.MappingProxyType):
            kind: Any = None if self.owner is not None else _kind_of_dict(x)
            before = dict(zip(self.keys, self.values, strict=True))
            for key, value in list(zip(*self._now(), strict=True)):
                if key not in before and kind is None:
                    delattr(self.owner, key)
                elif key not in before:
                    kind.__delitem__(x, key)
                elif value is before[key]:
                    del before[key]
            for key, value in before.items():
                if kind is None:
                    setattr(self.owner, key, value)
                else:
                    kind.__setitem__(x, key, value)
        elif isinstance(x, list):
            list.__setitem__(x, slice(None), self.values)
        else:
            x.clear()
            (x.update if isinstance(x, set) else x.extend)(self.values)


class Memory(NamedTuple):
    """The numbers of a small array of the host."""

    array: Any
    content: Any

    def changed(self) -> str:
        """Return what it is if it has other numbers now; else ""."""
        array, content = self
        if array.__class__ is bytearray:
            return "" if array == content else "a bytearray"
        return "" if array.tobytes() == content.tobytes() else "an array of the CPU"

    def restore(self) -> None:
        """Write the numbers back."""
        if self.array.__class__ is bytearray:
            self.array[:] = self.content
        elif self.array.flags.writeable:
            self.array[...] = self.content


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
        self.values: list[Value | Contents | Memory] = []
        self._long: list[Contents] = []  # and others of which only a change inside matters
        self._advancing: list[Any] = []  # iterators, and generators of other libraries
        self._seen: dict[int, Any] = {}
        self._stack, count = [function], 0
        while self._stack and count <= MOST:
            value = self._stack.pop()
            if id(value) in self._seen or value.__class__ in SIMPLE or value is None:
                continue
            self._seen[id(value)] = value  # kept, so that no other object gets its number
            for found in self._inside(value):
                if isinstance(found, Contents) and found.is_long:
                    self._long.append(found)
                    continue
                self.values.append(found)
                count += len(found.values) if isinstance(found, Contents) else 1
                if isinstance(found, Value):
                    self._stack.append(found.value)
                elif isinstance(found, Contents):
                    self._stack += found.values
        self.too_many = count > MOST

    def changed(self, everything: bool = False) -> str:
        """Return the name of something that has another value now; "" if nothing has.

        Elements of long containers and schedulers are compared only if `everything` is.
        """
        for contents in self._long:
            if everything or len(contents.container) != len(contents.values):
                if name := contents.changed():
                    return name
        return next((name for value in self.values if (name := value.changed())), "")

    def restore(self) -> None:
        """Write all values back."""
        for value in [*self._long, *self.values]:
            if value.changed():
                value.restore()

    def positions(self) -> list[Any]:
        """Return the positions of iterators, and of generators that a graph cannot advance."""
        whole: Any = random, np.random
        return [*map(_position, (*whole, *self._advancing))]

    def _inside(self, value: Any) -> Iterator[Value | Contents | Memory]:
        """Yield the values that an object refers to."""
        kind = type(value)
        if isinstance(value, Tensor):
            self.tensors.append(value)
            yield Value(value, "_data", value._data)
            yield Value(value, "_node", value._node)
        elif isinstance(value, np.ndarray | bytearray):
            if (len(value) if isinstance(value, bytearray) else value.size) <= LONG:
                yield Memory(value, value.copy())
        elif isinstance(value, tuple(backend.modules)):  # a graph reads its memory
            return
        elif isinstance(value, np.random.Generator):
            self.generators.append(value)
        elif isinstance(value, random.Random | np.random.RandomState):
            self._advancing.append(value)
        elif kind is types.FunctionType:
            yield from self._of_function(value)
        elif kind in WRAPPERS:
            self._stack += [getattr(value, name, None) for name in ("fget", "__func__", "func")]
        elif "__wrapped__" in getattr(value, "__dict__", ()) and (
            _is_of_library(kind) or _root(kind) == "functools"
        ):
            yield Value(value, "__wrapped__", value.__wrapped__)
            if kind is LRU_CACHE:  # a graph may read its results after it has dropped them
                for x in gc.get_referents(value):  # all but the cache itself, which may change
                    self._stack += x.values() if type(x) is dict else [x]
            return
        elif kind is types.MethodType:
            yield Value(value, "__func__", value.__func__)
            yield Value(value, "__self__", value.__self__)
        elif kind is functools.partial:
            for name in ("func", "args", "keywords"):
                yield Value(value, name, getattr(value, name))
        elif kind is contextvars.ContextVar:
            yield Value(value, value.name, _read(value, ""))
        elif isinstance(value, weakref.ref):
            self._stack.append(value())
        elif isinstance(value, tuple | frozenset):
            self._stack += value
        elif isinstance(value, CONTAINERS):
            yield Contents(value)
        elif hasattr(kind, "__next__") and _root(kind) in ITERATORS:
            if _position(value) == _position(value):
                self._advancing.append(value)
        elif isinstance(value, type):
            for base in (*value.__mro__, *kind.__mro__):
                if not _is_opaque(base) and not _is_of_library(base):
                    yield Contents(vars(base), base)
        if kind.__module__ == schedule.__name__:  # they set the rate, which is on the device
            self._long.append(Contents(vars(value)))
        elif not _is_opaque(kind) or _root(kind) in NAMESPACES:
            if not isinstance(value, Tensor | type | types.ModuleType):
                yield from self._of_object(value)

    def _of_object(self, value: Any) -> Iterator[Value | Contents]:
        """Yield the attributes of an object, and its class."""
        own = getattr(value, "__dict__", None)
        if own.__class__ is dict:
            yield Contents(own)
        if isinstance(value, Module):  # of this thread: see `Module.evaluating`
            yield Value(value, "training", value.training)
        for base in type(value).__mro__:
            if not _is_opaque(base) and not _is_of_library(base):
                yield Value(value, "__class__", type(value))
                for name, x in vars(base).items():
                    if type(x) is types.MemberDescriptorType:
                        yield Value(value, name, _read(value, name))

    def _of_function(self, function: Any) -> Iterator[Value | Contents]:
        if _is_of_library(function) and function.__closure__ is None:
            return
        yield Value(function, "__code__", function.__code__)
        for cell in function.__closure__ or ():
            yield Value(cell, "cell_contents", _read(cell, "cell_contents"))
        if _is_of_library(function):  # a decorator's
            return
        for name in ("__defaults__", "__kwdefaults__"):
            yield Value(function, name, getattr(function, name))
        yield Contents(vars(function))
        names, scope = _names(function.__code__), function.__globals__
        yield from _of_scope(scope, names, set())
        for name in names:  # of modules that it imports itself
            for module in (name, f"{scope.get('__package__')}.{name}"):
                if name not in scope and module in sys.modules:
                    yield from _of_module(sys.modules[module], names, set())


def _of_scope(scope: dict[str, Any], names: Iterable[str], seen: set[int]) -> Iterator[Value]:
    """Yield the values of names, and those of the modules among them."""
    for name in names:
        if name in scope:
            yield Value(scope, name, scope[name])
            if type(scope[name]) is types.ModuleType:
                yield from _of_module(scope[name], names, seen)


def _of_module(module: Any, names: Iterable[str], seen: set[int]) -> Iterator[Value]:
    if not _is_opaque(module) and not _is_of_library(module) and id(module) not in seen:
        seen.add(id(module))
        yield from _of_scope(vars(module), names, seen)


def _names(code: types.CodeType) -> list[str]:
    """Return the names that code reads, with those of the functions inside."""
    found = dict.fromkeys(code.co_names)
    for x in code.co_consts:
        if type(x) is types.CodeType:
            found.update(dict.fromkeys(_names(x)))
    return list(found)


def _same(now: Any, before: Any) -> bool:
    if now is before:
        return True
    simple = before.__class__ in SIMPLE or isinstance(before, np.generic)
    return simple and same(now, before)


def _read(place: Any, name: Any) -> Any:
    if place.__class__ is dict:
        return place.get(name, _missing)
    if place.__class__ is contextvars.ContextVar:
        return place.get(_missing)
    try:
        return getattr(place, name, _missing)
    except ValueError:  # the contents of a cell were deleted
        return _missing


def _kind_of_dict(x: Any) -> Any:
    return collections.OrderedDict if isinstance(x, collections.OrderedDict) else dict


class _Is:
    """An object that equals itself alone."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Is) and _same(self.value, other.value)

    __hash__ = None  # type: ignore[assignment]


def _position(x: Any) -> Any:
    """Return something that differs after the next element of an iterator was taken."""
    if x is random or isinstance(x, random.Random):
        return x.getstate()
    if x is np.random or isinstance(x, np.random.RandomState):
        state: Any = x.get_state()
        return state[1].tobytes(), state[2:]
    if not hasattr(type(x), "__next__"):
        return _Is(x)
    if isinstance(x, types.GeneratorType):
        frame = x.gi_frame
        parts = [] if frame is None else [frame.f_lasti, x.gi_yieldfrom, *frame.f_locals.values()]
    elif hasattr(x, "__length_hint__"):
        return x.__length_hint__()
    else:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of itertools
                found: Any = x.__reduce__()[1:]
        except (TypeError, AttributeError):
            return repr(x)
        parts = [y for part in found for y in (part if isinstance(part, tuple) else [part])]
    return [_position(y) for y in parts if y is not x]


def _root(x: Any) -> str:
    name = x.__name__ if type(x) is types.ModuleType else getattr(x, "__module__", None)
    return str(name or "builtins").partition(".")[0]


def _is_opaque(x: Any) -> bool:
    return _root(x) in OPAQUE


def _is_of_library(x: Any) -> bool:
    return _root(x) == LIBRARY
