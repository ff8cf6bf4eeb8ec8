"""The environment of a function: the values that it reads in addition to its arguments.

These are the globals and closure variables that its code names, attributes and elements of these
objects, defaults, and the same for every user function among them. `Environment` takes a snapshot,
and `guards` writes Python expressions that are true while the values are unchanged.

If the code reads attributes by strings (``getattr``, ``__dict__``), its string constants count as
names too, and all plain attributes (numbers, strings) of the user's objects are compared.

Installed libraries are not searched, and neither are containers of more than `LARGE` elements.
Values that no code names are invisible: the clock, a file, the next element of an iterator.
"""

from __future__ import annotations

import dis
import functools
import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

from .._util.user_code import PACKAGE
from ..engine import backend
from ..engine.graph import Node
from ..engine.tensor import Tensor
from .scalars import same

LARGE = 1000  # containers of more elements (vocabularies) are not compared
PLAIN = frozenset((bool, int, float, complex, str, bytes, type(None)))
CONTAINERS = frozenset(("builtins", "collections", "functools", "types", "argparse"))
OPAQUE = (types.BuiltinFunctionType, types.CodeType, Node)
_NAME = __name__.partition(".")[0]
ELEMENT, LENGTH, MEMBERS = ELEMENTS = "({0})[{1}]", "len({0})", "sorted(map(repr, {0}))"
LOOKUPS = frozenset(("getattr", "hasattr", "attrgetter", "__getattribute__", "vars", "__dict__"))
WRITES = frozenset(("setattr", "delattr", "__setattr__", "__delattr__", "vars", "__dict__"))
CHANGES = frozenset(
    "append extend insert add update setdefault pop popitem popleft appendleft remove discard "
    "clear sort reverse".split()
)
_UNREAD = frozenset(("__init__", "__new__", "__repr__", "__str__", "__del__", "__init_subclass__"))


def opaque(x: Any, own: str) -> bool:
    """Tell whether an object is not searched: a value, or an object of a library."""
    module = type(x).__module__.partition(".")[0]
    return (
        type(x) in PLAIN
        or isinstance(x, OPAQUE)
        or (isinstance(x, type) and installed(x.__module__, own))
        or module == "numpy"
        or (module in sys.stdlib_module_names and module not in CONTAINERS)
    )


def codes_of(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield code, and the code of nested functions."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from codes_of(inner)


def names_of(code: types.CodeType) -> list[str]:
    """Return the names of globals and attributes in code; its strings too if it uses getattr."""
    names = [n for c in codes_of(code) for n in c.co_names]
    if not {*LOOKUPS, "globals"}.isdisjoint(names):
        names += [s for c in codes_of(code) for s in c.co_consts if isinstance(s, str)]
    return list(dict.fromkeys(names))


@functools.lru_cache(1000)
def stored_by(code: types.CodeType) -> frozenset[str]:
    """Return the names of non-local variables and attributes that code assigns; "[]": elements."""
    names = {n for c in codes_of(code) for n in c.co_names}
    found = {"[]"} if not CHANGES.isdisjoint(names) else set()
    for step in (step for c in codes_of(code) for step in dis.get_instructions(c)):
        if step.opname in ("STORE_SUBSCR", "STORE_SLICE", "DELETE_SUBSCR"):
            found.add("[]")
        elif step.opname.startswith(("STORE_", "DELETE_")) and "FAST" not in step.opname:
            found.add(str(step.argval))
    return frozenset(found)


def installed(module: str | None, own: str) -> bool:
    """Tell whether a module is part of an installed library, other than the package `own`."""
    top = (module or "").partition(".")[0]
    if top in sys.stdlib_module_names or top in ("numpy", _NAME):
        return True
    return top != own and "-packages" in (getattr(sys.modules.get(top), "__file__", None) or "")


def of_library(function: types.FunctionType, own: str) -> bool:
    """Tell whether a function is part of an installed library."""
    if function.__code__.co_filename.startswith((PACKAGE, "<primitive")):
        return True
    name = function.__module__ or ""  # doctests of this package have its name
    return not name.startswith(_NAME) and installed(name, own)


def _is_library(x: Any, own: str) -> bool:
    return isinstance(x, types.FunctionType) and of_library(x, own)


def is_package_function(function: Any) -> bool:
    """Tell whether a function is part of this package: these read only constants."""
    return isinstance(function, types.FunctionType) and function.__code__.co_filename.startswith(
        (PACKAGE, "<primitive")
    )


class Environment:
    """A snapshot of the values that a function, and the objects it is called with, read.

    Attributes
    ----------
    values : dict
        From a location (form of access, id of the holder, key) to (form, holder, key, value).
    arrays : bool
        Whether a value is an array.
    stored : set of str
        The names that the code assigns.
    """

    def __init__(self, function: Any = None, *objects: Any) -> None:
        self.values: dict[Any, tuple[str, Any, Any, Any]] = {}
        self.arrays = False
        self.stored: set[str] = set()
        self._own = (getattr(function, "__module__", None) or "").partition(".")[0]
        self._names: set[str] = set()
        known = -1
        while known < len(self._names):  # until no function that was found adds a name
            known = len(self._names)
            self._visit([function, *objects])

    def _visit(self, stack: list[Any]) -> None:
        seen: dict[int, Any] = {}
        while stack:
            x = stack.pop()
            if id(x) in seen:
                continue
            seen[id(x)] = x
            if isinstance(x, Tensor) or (backend.is_array(x) and not isinstance(x, np.generic)):
                self.arrays = True
            elif isinstance(x, types.ModuleType):
                if not installed(x.__name__, self._own):
                    stack += self._named(vars(x), self._names)
            elif not opaque(x, self._own):
                stack += self._inside(x)

    def _inside(self, x: Any) -> Iterator[Any]:
        """Record the values that an object holds, and yield them."""
        if isinstance(x, types.FunctionType):
            if of_library(x, self._own):
                return
            names = names_of(x.__code__)
            self._names.update(names)
            self.stored |= stored_by(x.__code__)
            yield self._record("{0}.__defaults__", x) if x.__defaults__ else None
            yield self._record("{0}.__kwdefaults__", x) if x.__kwdefaults__ else None
            for name, cell in zip(x.__code__.co_freevars, x.__closure__ or (), strict=True):
                yield self._record("{0}.cell_contents", cell, name)
            yield from self._named(x.__globals__, names)
            yield from self._named(vars(x), self._names)
        elif isinstance(x, types.MethodType):
            yield from (x.__self__, x.__func__)
        elif isinstance(x, functools.partial):
            yield from (x.func, x.args, x.keywords)
        elif isinstance(x, property):
            yield x.fget
        elif isinstance(x, staticmethod | classmethod):
            yield x.__func__
        elif isinstance(x, type):
            for kind in x.__mro__:
                if not installed(kind.__module__, self._own):
                    # Operators are called without a name.
                    special = [n for n in vars(kind) if n.startswith("__") and n not in _UNREAD]
                    for name in {*self._looked_up(kind), *special}:
                        yield self._record("vars({0}).get({1}, missing)", kind, name)
        elif isinstance(x, tuple):
            yield from x
        elif isinstance(x, set | frozenset):
            if len(x) <= LARGE:
                yield from x
                self._record(MEMBERS, x)
        elif isinstance(x, dict | list):
            if len(x) <= LARGE:
                self._record(LENGTH, x)
                for key in list(x) if isinstance(x, dict) else range(len(x)):
                    yield self._record(ELEMENT, x, key)
        else:
            yield type(x)
            if hasattr(x, "__dict__"):
                yield vars(x).get("__wrapped__")
                yield from self._named(vars(x), self._looked_up(x), absent=True)
            for name in self._names:
                slot = inspect.getattr_static(type(x), name, None)
                if isinstance(slot, types.MemberDescriptorType):
                    yield self._record("getattr({0}, {1}, missing)", x, name)
                # The code of a library's property (the mode of a module) is not searched.
                elif isinstance(slot, property) and _is_library(slot.fget, self._own):
                    if getattr(x, name, None).__class__ in PLAIN:
                        self._record("getattr({0}, {1}, missing)", x, name)

    def _looked_up(self, x: Any) -> set[str]:
        """Return the names of the attributes of an object that may be read."""
        if LOOKUPS.isdisjoint(self._names):
            return self._names
        return {*self._names, *(name for name, v in vars(x).items() if v.__class__ in PLAIN)}

    def _named(self, holder: Any, names: Any, absent: bool = False) -> Iterator[Any]:
        for name in names:
            if name in holder:
                yield self._record("{0}[{1}]", holder, name)
            elif absent:
                self._record("{0}.get({1}, missing)", holder, name)

    def _record(self, form: str, holder: Any, key: Any = None) -> Any:
        try:
            value = eval(form.format("h", "k"), {"h": holder, "k": key, "missing": Missing})
        except (ValueError, LookupError):  # such as an empty closure cell
            return None
        if not (isinstance(value, types.ModuleType) and installed(value.__name__, self._own)):
            access = form.replace(".get({1}, missing)", "[{1}]")  # one location, even if missing
            self.values[access, id(holder), key] = form, holder, key, value
        return value

    def unchanged_since(self, before: Environment) -> list[tuple[str, Any, Any, Any]]:
        """Return the values that equal those of an earlier snapshot."""
        return [
            now
            for location, now in self.values.items()
            if location in before.values and unchanged(now[3], before.values[location][3])
        ]

    def changed_since(self, before: Environment) -> bool:
        """Tell whether a value changed that the function itself does not assign."""
        return WRITES.isdisjoint(self._names) and any(
            ("[]" if form in ELEMENTS else key) not in self.stored
            for location, (form, _, key, value) in self.values.items()
            if location in before.values and not unchanged(value, before.values[location][3])
        )


class Missing:
    """The value of a missing attribute."""


def unchanged(a: Any, b: Any) -> bool:
    """Tell whether two values are one object, or equal numbers, strings or lists."""
    if a is b:
        return True
    if a.__class__ is list is b.__class__:
        return bool(a == b)
    return (a.__class__ in PLAIN or isinstance(a, np.generic)) and same(a, b)


def guards(values: list[tuple[str, Any, Any, Any]], scope: dict[str, Any]) -> list[str]:
    """Return expressions that are true while values are unchanged; add their names to `scope`."""
    scope.update(missing=Missing, unchanged=unchanged)
    lines = []
    for i, (form, holder, key, value) in enumerate(values):
        scope.update({f"h_{i}": holder, f"key_{i}": key, f"v_{i}": value})
        text = form.format(f"h_{i}", f"key_{i}")
        plain = value.__class__ in PLAIN or isinstance(value, np.generic | list)
        listed = form == MEMBERS
        identical = f"{text} is v_{i}"
        if form == LENGTH:
            lines.append(f"{text} == v_{i}")
        elif listed or (plain and value.__class__ is not list and value is not None):
            lines.append(f"({text} is v_{i} or unchanged({text}, v_{i}))")
        else:
            lines.append(identical)
    return lines
