"""Symbolic numbers: the number arguments of a fused function while it is traced.

A fused function is traced once for many calls, so its number arguments are not constants of the
kernels. Each is a `Number`: its value in the traced call, and a Python expression that computes it
from the numbers ``n0, n1 …`` of any call. A kernel evaluates that expression at each call.

Some code needs the value itself (``if``, an index, ``math.sqrt``). Then the trace is specialized to
it: a *guard* is recorded, a Python expression that is true in every call for which the trace is
valid.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

PYTHON_NUMBERS = (int, float)  # the Python classes of numbers; bool is not one
_NUMPY_NUMBERS = (np.number, np.bool_)
_ALL_NUMBERS = (*PYTHON_NUMBERS, *_NUMPY_NUMBERS)


class NumberTable:
    """The interned numbers of one trace, and its guards.

    Attributes
    ----------
    trace : Trace
        The trace that uses the numbers.
    arguments : list of Number
        The numbers of the call, ``n0, n1 …``.
    scope : dict
        The values of the names in the expressions of numbers.
    guards : dict
        The guards, as keys; each is true in the traced call.
    """

    def __init__(self, values: Sequence[Any], trace: Any) -> None:
        self.trace = trace
        self.entries: dict[str, Number] = {}
        self.scope: dict[str, Any] = {"inf": float("inf"), "nan": float("nan"), "same": same}
        self.guards: dict[str, None] = {}
        self.arguments = [self.intern(f"n{i}", value) for i, value in enumerate(values)]

    def intern(self, text: str, value: Any) -> Number:
        """Return the number that the expression `text` computes: an existing or a new one."""
        if text not in self.entries:
            self.entries[text] = Number(self, text, value)
        return self.entries[text]

    def name(self, value: Any, prefix: str = "c_") -> str:
        """Return an expression for a constant: a literal, or a name in `scope`."""
        if value.__class__ in (bool, *PYTHON_NUMBERS):
            return f"({value!r})"
        number = isinstance(value, np.generic)
        alike = (n for n, x in self.scope.items() if x is value or (number and same(x, value)))
        name = next(alike, None)
        name = name or f"{prefix}{len(self.scope)}"
        self.scope[name] = value
        return name

    def call(self, function: Callable[..., Any], args: Sequence[Any]) -> Number:
        """Return the result of a function of numbers and constants, as a number."""
        texts = [x.text if type(x) is Number else self.name(x) for x in args]
        value = function(*map(value_of, args))
        return self.intern(f"{self.name(function, 'f_')}({', '.join(texts)})", value)


def value_of(x: Any) -> Any:
    """Return the value of a `Number`; anything else is unchanged."""
    return x.value if type(x) is Number else x


def same(a: Any, b: Any) -> bool:
    """Tell whether two plain values are identical; 1 and 1.0 are not, nor 0.0 and -0.0."""
    return a.__class__ is b.__class__ and (a is b or repr(a) == repr(b))


class Number:
    """A symbolic number: its value in the traced call, and the expression that computes it.

    Its ``__class__`` is that of the value. Functions in C read the value itself, which adds a
    guard.
    """

    __slots__ = ("table", "text", "value")

    def __init__(self, table: NumberTable, text: str, value: Any) -> None:
        self.table, self.text, self.value = table, text, value

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self.value.__class__

    def __array_ufunc__(self, ufunc: Any, how: str, *inputs: Any, **keywords: Any) -> Any:
        if not all(type(x) is Number or isinstance(x, (*_ALL_NUMBERS, np.ndarray)) for x in inputs):
            return NotImplemented
        alone = not any(type(x) is not Number and isinstance(x, np.ndarray) for x in inputs)
        if alone and how == "__call__" and ufunc.nout == 1 and not keywords:
            return self.table.call(ufunc, inputs)
        values = [x.specialized() if type(x) is Number else x for x in inputs]
        return getattr(ufunc, how)(*values, **keywords)

    def item(self) -> Any:
        """Return a NumPy number as a Python number."""
        if not isinstance(self.value, _NUMPY_NUMBERS):
            return self
        return self.table.intern(f"{self.text}.item()", self.value.item())

    def specialized(self) -> Any:
        """Return the value, and add the guard that it is the same in other calls."""
        answer = self.table.name(self.value) if self.value == self.value else "nan"
        self.table.guards[f"same({self.text}, {answer})"] = None
        return self.value

    def __bool__(self) -> bool:
        answer = bool(self.value)
        self.table.guards[self.text if answer else f"not {self.text}"] = None
        return answer

    def __getattr__(self, name: str) -> Any:
        if not hasattr(self.value, name):
            raise AttributeError(f"{self.value.__class__.__name__!r} has no attribute {name!r}")
        return getattr(self.specialized(), name)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(self.specialized(), dtype)

    def __hash__(self) -> int:
        return hash(self.specialized())


def _operator(form: str, swapped: bool = False) -> Callable[..., Any]:
    function = eval(f"lambda a, b=None: {form.format('a', 'b')}")
    power = "**" in form

    def apply(self: Number, *others: Any) -> Any:
        for other in others:
            if type(other) is not Number and not isinstance(other, _ALL_NUMBERS):
                return NotImplemented
        args = (*reversed((self, *others)),) if swapped else (self, *others)
        texts = [x.text if type(x) is Number else self.table.name(x) for x in args]
        made = self.table.intern(f"({form.format(*texts)})", function(*map(value_of, args)))
        if power:  # the class of a power depends on the values: 2 ** -1 is a float
            kind = self.table.name(made.value.__class__, "class_")
            self.table.guards[f"{made.text}.__class__ is {kind}"] = None
        return made

    return apply


def _specializing(function: Any) -> Callable[..., Any]:
    return lambda self, *args: function(self.specialized(), *args)


for _name, _sign in {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**",
}.items():  # fmt: skip
    setattr(Number, f"__{_name}__", _operator(f"{{}} {_sign} {{}}"))
    setattr(Number, f"__r{_name}__", _operator(f"{{}} {_sign} {{}}", swapped=True))
for _name, _sign in {
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
}.items():  # fmt: skip
    setattr(Number, f"__{_name}__", _operator(f"{{}} {_sign} {{}}"))
for _name, _form in {"neg": "-{}", "pos": "+{}", "abs": "abs({})"}.items():
    setattr(Number, f"__{_name}__", _operator(_form))
for _name, _function in {
    "float": float, "int": int, "index": operator.index, "complex": complex, "round": round,
    "repr": repr, "str": str, "format": format, "trunc": int, "divmod": divmod,
    "lshift": operator.lshift, "rshift": operator.rshift, "and": operator.and_,
    "or": operator.or_, "xor": operator.xor, "invert": operator.invert,
}.items():  # fmt: skip
    setattr(Number, f"__{_name}__", _specializing(_function))
for _name in ("divmod", "lshift", "rshift", "and", "or", "xor"):
    setattr(Number, f"__r{_name}__", lambda x, y, f=_name: getattr(y, f"__{f}__")(x.specialized()))
