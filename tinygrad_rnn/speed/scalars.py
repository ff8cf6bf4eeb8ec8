"""Numbers of a call while a function is traced: what is computed from them is written down.

A fused function is traced once for many calls, so a number among its arguments is no constant of
its kernels: it is a `Number`, which has the value of the call that is traced and a text, Python for
how it is computed from the numbers ``n0, n1 …`` of any call. A kernel evaluates that text at each
call.

Whatever Python decides by a number (``if``, an index, ``math.sqrt``) is decided at tracing. So each
such *question* is noted with its answer, and what was traced serves for those calls alone that
answer alike.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

PYTHON = (int, float)  # of which a number's own class is one, or NumPy's number
_ITEM = (np.number, np.bool_)
_NUMBERS = (*PYTHON, *_ITEM)


class Sheet:
    """The numbers of one trace, its `owner`, each there once, and the questions that were asked."""

    def __init__(self, values: Sequence[Any], owner: Any) -> None:
        self.owner = owner
        self.table: dict[str, Number] = {}
        self.scope: dict[str, Any] = {"inf": float("inf"), "nan": float("nan"), "same": same}
        self.questions: dict[
            str, None
        ] = {}  # expressions that are true where the answers are alike
        self.given = [self.enter(f"n{i}", value) for i, value in enumerate(values)]

    def enter(self, text: str, value: Any) -> Number:
        """Return the number that a text computes."""
        if text not in self.table:
            self.table[text] = Number(self, text, value)
        return self.table[text]

    def name(self, value: Any, prefix: str = "c_") -> str:
        """Return a text for something that is no number of the call."""
        if value.__class__ in (bool, *PYTHON):
            return f"({value!r})"
        number = isinstance(value, np.generic)
        alike = (n for n, x in self.scope.items() if x is value or (number and same(x, value)))
        name = next(alike, None)
        name = name or f"{prefix}{len(self.scope)}"
        self.scope[name] = value
        return name

    def call(self, function: Callable[..., Any], args: Sequence[Any]) -> Number:
        """Return what a function makes of numbers and constants."""
        texts = [x.text if type(x) is Number else self.name(x) for x in args]
        value = function(*map(plain, args))
        return self.enter(f"{self.name(function, 'f_')}({', '.join(texts)})", value)


def plain(x: Any) -> Any:
    """Return the value of a number, and anything else as it is."""
    return x.value if type(x) is Number else x


def same(a: Any, b: Any) -> bool:
    """Tell whether two numbers (strings …) are the same; 1 and 1.0 are not, nor 0.0 and -0.0."""
    return a.__class__ is b.__class__ and (a is b or repr(a) == repr(b))


class Number:
    """A number of a call, of the class that it has there as far as Python code can see.

    Functions in C see through that: they ask for its value, and that is a question.
    """

    __slots__ = ("sheet", "text", "value")

    def __init__(self, sheet: Sheet, text: str, value: Any) -> None:
        self.sheet, self.text, self.value = sheet, text, value

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self.value.__class__

    def __array_ufunc__(self, ufunc: Any, how: str, *inputs: Any, **keywords: Any) -> Any:
        if not all(type(x) is Number or isinstance(x, (*_NUMBERS, np.ndarray)) for x in inputs):
            return NotImplemented
        alone = not any(type(x) is not Number and isinstance(x, np.ndarray) for x in inputs)
        if alone and how == "__call__" and ufunc.nout == 1 and not keywords:
            return self.sheet.call(ufunc, inputs)
        values = [x.known() if type(x) is Number else x for x in inputs]
        return getattr(ufunc, how)(*values, **keywords)

    def item(self) -> Any:
        """Return NumPy's number as one of Python."""
        if not isinstance(self.value, _ITEM):
            return self
        return self.sheet.enter(f"{self.text}.item()", self.value.item())

    def known(self) -> Any:
        """Return the value, which it must have again."""
        answer = self.sheet.name(self.value) if self.value == self.value else "nan"
        self.sheet.questions[f"same({self.text}, {answer})"] = None
        return self.value

    def __bool__(self) -> bool:
        answer = bool(self.value)
        self.sheet.questions[self.text if answer else f"not {self.text}"] = None
        return answer

    def __getattr__(self, name: str) -> Any:
        if not hasattr(self.value, name):
            raise AttributeError(f"{self.value.__class__.__name__!r} has no attribute {name!r}")
        return getattr(self.known(), name)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(self.known(), dtype)

    def __hash__(self) -> int:
        return hash(self.known())


def _operator(form: str, swapped: bool = False) -> Callable[..., Any]:
    function = eval(f"lambda a, b=None: {form.format('a', 'b')}")
    power = "**" in form

    def apply(self: Number, *others: Any) -> Any:
        for other in others:
            if type(other) is not Number and not isinstance(other, _NUMBERS):
                return NotImplemented
        args = (*reversed((self, *others)),) if swapped else (self, *others)
        texts = [x.text if type(x) is Number else self.sheet.name(x) for x in args]
        made = self.sheet.enter(f"({form.format(*texts)})", function(*map(plain, args)))
        if power:  # the class of what comes out depends on the values
            kind = self.sheet.name(made.value.__class__, "class_")
            self.sheet.questions[f"{made.text}.__class__ is {kind}"] = None
        return made

    return apply


def _asked(function: Any) -> Callable[..., Any]:
    return lambda self, *args: function(self.known(), *args)


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
    setattr(Number, f"__{_name}__", _asked(_function))
for _name in ("divmod", "lshift", "rshift", "and", "or", "xor"):
    setattr(Number, f"__r{_name}__", lambda x, y, f=_name: getattr(y, f"__{f}__")(x.known()))
