"""What a function reads besides its arguments, as far as its code says.

Globals and closures that its code names, attributes and elements of the objects there, defaults,
and the same of every function of the user's that is found among them. `Surroundings` remembers what
was there, as expressions that are true as long as it is.

Where that code looks attributes up by strings (``getattr``, ``__dict__``), its strings are names
too, and all attributes of the user's objects that are numbers or strings are compared.

Installed libraries are not looked into, nor are containers of more than `LARGE` elements. What no
code names cannot be seen: the clock, a file, what an iterator returns next.
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

LARGE = 1000  # containers of more numbers and strings (vocabularies) are not watched
PLAIN = frozenset((bool, int, float, complex, str, bytes, type(None)))
CONTAINERS = frozenset(("builtins", "collections", "functools", "types", "argparse"))
OPAQUE = (types.ModuleType, types.BuiltinFunctionType, types.CodeType, Node)
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
    """Tell whether an object is not looked into: a value, or what cannot lead to the user's own."""
    module = type(x).__module__.partition(".")[0]
    return (
        type(x) in PLAIN
        or isinstance(x, OPAQUE)
        or (isinstance(x, type) and installed(x.__module__, own))
        or module == "numpy"
        or (module in sys.stdlib_module_names and module not in CONTAINERS)
    )


def codes_of(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield code and that of the functions inside."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from codes_of(inner)


def names_of(code: types.CodeType) -> list[str]:
    """Return the names that code looks up in globals and as attributes, its strings among them."""
    names = [n for c in codes_of(code) for n in c.co_names]
    if not {*LOOKUPS, "globals"}.isdisjoint(names):
        names += [s for c in codes_of(code) for s in c.co_consts if isinstance(s, str)]
    return list(dict.fromkeys(names))


@functools.lru_cache(1000)
def stored_by(code: types.CodeType) -> frozenset[str]:
    """Return the names that code assigns outside of itself; "[]" for elements of containers."""
    names = {n for c in codes_of(code) for n in c.co_names}
    found = {"[]"} if not CHANGES.isdisjoint(names) else set()
    for step in (step for c in codes_of(code) for step in dis.get_instructions(c)):
        if step.opname in ("STORE_SUBSCR", "STORE_SLICE", "DELETE_SUBSCR"):
            found.add("[]")
        elif step.opname.startswith(("STORE_", "DELETE_")) and "FAST" not in step.opname:
            found.add(str(step.argval))
    return frozenset(found)


def installed(module: str | None, own: str) -> bool:
    """Tell whether a module is a library's: neither the user's nor of the function's package."""
    top = (module or "").partition(".")[0]
    if top in sys.stdlib_module_names or top in ("numpy", _NAME):
        return True
    return top != own and "-packages" in (getattr(sys.modules.get(top), "__file__", None) or "")


def of_library(function: types.FunctionType, own: str) -> bool:
    """Tell whether a function is a library's."""
    if function.__code__.co_filename.startswith((PACKAGE, "<primitive")):
        return True
    name = function.__module__ or ""  # an example in the package's own docstrings has its name
    return not name.startswith(_NAME) and installed(name, own)


def _is_library(x: Any, own: str) -> bool:
    return isinstance(x, types.FunctionType) and of_library(x, own)


def is_ours(function: Any) -> bool:
    """Tell whether a function is this library's own, which reads nothing that can change."""
    return isinstance(function, types.FunctionType) and function.__code__.co_filename.startswith(
        (PACKAGE, "<primitive")
    )


class Surroundings:
    """What a function, and objects that it is called with, read now.

    `values` maps a place (how it is read, the object that holds it, the key there) to the value;
    `arrays` tells whether there are arrays among them; `stored` has the names that the code
    assigns.
    """

    def __init__(self, function: Any = None, *objects: Any) -> None:
        self.values: dict[Any, tuple[str, Any, Any, Any]] = {}
        self.arrays = False
        self.stored: set[str] = set()
        self._own = (getattr(function, "__module__", None) or "").partition(".")[0]
        self._names: set[str] = set()
        known = -1
        while known < len(self._names):  # a function that is found late names what was passed by
            known = len(self._names)
            self._walk([function, *objects])

    def _walk(self, stack: list[Any]) -> None:
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
        """Note the values that an object holds, and yield them."""
        if isinstance(x, types.FunctionType):
            if of_library(x, self._own):
                return
            names = names_of(x.__code__)
            self._names.update(names)
            self.stored |= stored_by(x.__code__)
            yield self._note("{0}.__defaults__", x) if x.__defaults__ else None
            yield self._note("{0}.__kwdefaults__", x) if x.__kwdefaults__ else None
            for name, cell in zip(x.__code__.co_freevars, x.__closure__ or (), strict=True):
                yield self._note("{0}.cell_contents", cell, name)
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
                        yield self._note("vars({0}).get({1}, missing)", kind, name)
        elif isinstance(x, tuple):
            yield from x
        elif isinstance(x, set | frozenset):
            if len(x) <= LARGE:
                yield from x
                self._note(MEMBERS, x)
        elif isinstance(x, dict | list):
            if len(x) <= LARGE:
                self._note(LENGTH, x)
                for key in list(x) if isinstance(x, dict) else range(len(x)):
                    yield self._note(ELEMENT, x, key)
        else:
            yield type(x)
            if hasattr(x, "__dict__"):
                yield vars(x).get("__wrapped__")
                yield from self._named(vars(x), self._looked_up(x), absent=True)
            for name in self._names:
                slot = inspect.getattr_static(type(x), name, None)
                if isinstance(slot, types.MemberDescriptorType):
                    yield self._note("getattr({0}, {1}, missing)", x, name)
                # The code of a library's property (the mode of a module) is not looked into.
                elif isinstance(slot, property) and _is_library(slot.fget, self._own):
                    if getattr(x, name, None).__class__ in PLAIN:
                        self._note("getattr({0}, {1}, missing)", x, name)

    def _looked_up(self, x: Any) -> set[str]:
        """Return the names of the attributes of an object that may be read."""
        if LOOKUPS.isdisjoint(self._names):
            return self._names
        return {*self._names, *(name for name, v in vars(x).items() if v.__class__ in PLAIN)}

    def _named(self, holder: Any, names: Any, absent: bool = False) -> Iterator[Any]:
        for name in names:
            if name in holder:
                yield self._note("{0}[{1}]", holder, name)
            elif absent:
                self._note("{0}.get({1}, missing)", holder, name)

    def _note(self, form: str, holder: Any, key: Any = None) -> Any:
        try:
            value = eval(form.format("h", "k"), {"h": holder, "k": key, "missing": Missing})
        except (ValueError, LookupError):  # a cell that is empty yet
            return None
        if not (isinstance(value, types.ModuleType) and installed(value.__name__, self._own)):
            place = form.replace(".get({1}, missing)", "[{1}]")  # also of what is there only later
            self.values[place, id(holder), key] = form, holder, key, value
        return value

    def kept(self, before: Surroundings) -> list[tuple[str, Any, Any, Any]]:
        """Return what is as it was before: of the rest, the function itself wrote it."""
        return [
            now
            for place, now in self.values.items()
            if place in before.values and unchanged(now[3], before.values[place][3])
        ]

    def disturbed(self, before: Surroundings) -> bool:
        """Tell whether something changed that the function itself does not write."""
        return WRITES.isdisjoint(self._names) and any(
            ("[]" if form in ELEMENTS else key) not in self.stored
            for place, (form, _, key, value) in self.values.items()
            if place in before.values and not unchanged(value, before.values[place][3])
        )


class Missing:
    """What is there in place of an attribute that an object has not."""


def unchanged(a: Any, b: Any) -> bool:
    """Tell whether a value is the same object, or the same number or list of texts."""
    if a is b:
        return True
    if a.__class__ is list is b.__class__:
        return bool(a == b)
    return (a.__class__ in PLAIN or isinstance(a, np.generic)) and same(a, b)


def checks(kept: list[tuple[str, Any, Any, Any]], scope: dict[str, Any]) -> list[str]:
    """Return expressions that are true as long as these are the values, with their `scope`."""
    scope.update(missing=Missing, unchanged=unchanged)
    lines = []
    for i, (form, holder, key, value) in enumerate(kept):
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
