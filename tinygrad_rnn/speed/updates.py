"""The update rule of an optimizer as a loop in C.

`Optimizer._update` is called once with a `Symbol` for each array and each setting. A symbol records
the operations as `loops.ScalarOp`, so the rule is written only once. Like an array it is changed in
place (``m *= beta1``, ``out=m``). Values that depend on numbers only, such as a bias correction,
are computed once for each block of elements.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..engine import backend
from ..errors import CompilerError
from ..optim import optimizers
from . import executor
from .compiled import fixed_loads
from .compiler import selected
from .loop_runtime import load_stages
from .loops import ScalarOp, Unsupported, body, c_type
from .math_functions import PREAMBLE

FLOAT64 = np.dtype("float64")


class Plan(NamedTuple):
    """An update in C, as `struct update` needs it.

    Attributes
    ----------
    columns : int
        The number of columns: parameter, gradient, learning rate, then the state in its order.
    numbers, written : int
        Bit masks: which columns have one number for each parameter, and which are written.
    elements, finish : int
        The addresses of the functions; 0 if no number is written.
    settings : callable
        Makes the array of the settings.
    """

    columns: int
    numbers: int
    written: int
    elements: int
    finish: int
    settings: Callable[..., Any]


class Rule(NamedTuple):
    """An update as lines of C, for one element or for the numbers of a parameter.

    Attributes
    ----------
    columns, numbers, written : int
        As in `Plan`.
    settings : int
        The number of settings.
    head : list of str
        What all elements have in common.
    elements, finish : list of str
        The lines for element ``i``, and those that write the numbers.
    """

    columns: int
    numbers: int
    written: int
    settings: int
    head: list[str]
    elements: list[str]
    finish: list[str]


_plans: dict[Any, Any] = {}


def plan_of(optimizer: Any, dtype: Any) -> Plan | None:
    """Return the update of the library's own optimizers in C; None for others."""
    try:
        return kept(optimizer, dtype, selected[0], _plan)
    except CompilerError as error:
        executor.fall_back(error)
        return kept(optimizer, dtype, selected[0], lambda rule: None)


def kept(optimizer: Any, dtype: Any, executor: Any, make: Callable[[Rule], Any]) -> Any:
    """Return the rule of an optimizer as an executor needs it, from an earlier call if possible.

    None for a rule that a user has written, which may do more than to compute its arrays.
    """
    kind, hyper = type(optimizer), optimizer._hyper
    rule = optimizer._update  # may be one that was put in place of the library's
    own = vars(optimizers).get(kind.__name__) is kind
    if not own or rule.__module__ != optimizers.__name__:
        return None
    # A rule may branch on whether a setting is zero.
    key = kind, rule.__func__, dtype, executor, *map(bool, hyper.values())
    if key not in _plans:
        try:
            _plans[key] = make(rule_of(optimizer, dtype))
        except Unsupported:
            _plans[key] = None
    return _plans[key]


def _plan(rule: Rule) -> Plan:
    head = "\n    ".join(rule.head)
    source = PREAMBLE + "".join(
        FUNCTION.format(number=number, head=head, lines="\n        ".join(lines))
        for number, lines in enumerate(filter(None, [rule.elements, rule.finish]))
    )
    elements, *finish = load_stages(source, 1 + bool(rule.finish))
    return Plan(
        rule.columns,
        rule.numbers,
        rule.written,
        elements,
        finish[0] if finish else 0,
        ctypes.c_double * max(1, rule.settings),
    )


def rule_of(optimizer: Any, dtype: Any) -> Rule:
    """Return the update of an optimizer for parameters of a dtype.

    Raises
    ------
    Unsupported
        If it cannot be written in C.
    """
    trace = _Trace()
    state = optimizer._init_state(np.zeros(2, dtype))
    columns = [dtype, dtype, FLOAT64, *(x.dtype for x in state.values())]
    single = [False, False, True, *(x.ndim == 0 for x in state.values())]
    arrays = [
        trace.load(k, t, not one) for k, (t, one) in enumerate(zip(columns, single, strict=True))
    ]
    start = [x.op for x in arrays]
    rule = object.__new__(type(optimizer))
    rule._hyper = {
        name: trace.load(len(columns) + k, FLOAT64, False, value)
        for k, (name, value) in enumerate(optimizer._hyper.items())
    }
    p, g, lr, *states = arrays
    rule._update(p, g, lr, dict(zip(state, states, strict=True)))
    written = [k for k, x in enumerate(arrays) if x.op is not start[k]]
    return Rule(
        len(columns),
        sum(1 << k for k, one in enumerate(single) if one),
        sum(1 << k for k in written),
        len(optimizer._hyper),
        *trace.lines(arrays, written, len(columns)),
    )


class Symbol:
    """An array, or a number, in an update rule; `op` computes its present value.

    Attributes
    ----------
    op : ScalarOp
        Computes one element.
    element : bool
        Whether it is an array that has the shape of the parameter.
    setting : float or None
        The value of a setting. Its dtype does not take part in promotion, nor that of a number
        that is computed from settings only.
    """

    __slots__ = ("op", "setting", "trace")
    __array_ufunc__ = None  # so that NumPy's numbers defer to the operators

    def __init__(self, trace: _Trace, op: ScalarOp, setting: float | None = None) -> None:
        self.trace, self.op, self.setting = trace, op, setting

    @property
    def dtype(self) -> Any:
        """The dtype of the elements."""
        return self.op.dtype

    def astype(self, dtype: Any) -> Symbol:
        """Return the values in another dtype."""
        return Symbol(self.trace, self.trace.cast(self.op, np.dtype(dtype)))

    def __bool__(self) -> bool:
        if self.setting is None or self.op.op != "load":
            raise Unsupported("a branch on a computed value")
        return bool(self.setting)


class _Module:
    """The array library of symbols: NumPy's ufuncs with ``out``."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not isinstance(getattr(np, name, None), np.ufunc):
            raise Unsupported(name)
        return lambda *args, out=None: _record(name, args, out)

    def empty_like(self, x: Symbol) -> Symbol:
        """Return an array that is filled later."""
        return Symbol(x.trace, x.op)


backend.register(Symbol, _Module())


def _record(name: str, args: Any, out: Symbol | None = None) -> Symbol:
    """Return the result of a ufunc; with `out`, in it."""
    trace = next(x.trace for x in args if x.__class__ is Symbol)
    # A setting, like a Python number, takes the dtype of the arrays.
    weak = [x.__class__ is not Symbol or x.setting is not None for x in args]
    kinds = [
        (float if x.__class__ is Symbol else x.__class__) if w else x.dtype
        for x, w in zip(args, weak, strict=True)
    ]
    value = None
    if all(weak):
        numbers = [x.setting if x.__class__ is Symbol else x for x in args]
        value, dtype = float(getattr(np, name)(*numbers)), FLOAT64
    else:
        dtype = getattr(np, name).resolve_dtypes((*kinds, None))[-1]
    made = trace.op(
        name, [x if x.__class__ is not Symbol else trace.cast(x.op, dtype) for x in args], dtype
    )
    if out is None:
        return Symbol(trace, made, value)
    out.op = trace.cast(made, out.dtype)
    return out


def _operator(name: str, swapped: bool = False, in_place: bool = False) -> Callable[..., Any]:
    def apply(x: Symbol, y: Any) -> Symbol:
        return _record(name, (y, x) if swapped else (x, y), x if in_place else None)

    return apply


for _method, _ufunc in {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "pow": "power",
}.items():  # fmt: skip
    setattr(Symbol, f"__{_method}__", _operator(_ufunc))
    setattr(Symbol, f"__r{_method}__", _operator(_ufunc, swapped=True))
    setattr(Symbol, f"__i{_method}__", _operator(_ufunc, in_place=True))


class _Trace:
    """The operations of one run of an update rule, in order."""

    def __init__(self) -> None:
        self.loads: list[ScalarOp] = []
        self.steps: list[ScalarOp] = []
        self.elements: set[ScalarOp] = set()  # those that differ between elements

    def load(self, column: int, dtype: Any, element: bool, setting: Any = None) -> Symbol:
        """Return the symbol of a column of arrays, or of a setting."""
        load = ScalarOp("load", (column, 0), dtype, len(self.loads))
        self.loads.append(load)
        if element:
            self.elements.add(load)
        return Symbol(self, load, setting)

    def op(self, name: str, args: Any, dtype: Any) -> ScalarOp:
        made = ScalarOp(name, tuple(args), dtype, 1000 + len(self.steps))
        self.steps.append(made)
        if not self.elements.isdisjoint(x for x in args if isinstance(x, ScalarOp)):
            self.elements.add(made)
        return made

    def cast(self, x: ScalarOp, dtype: Any) -> ScalarOp:
        return x if x.dtype == dtype else self.op("astype", [x], dtype)

    def lines(
        self, arrays: list[Symbol], written: list[int], columns: int
    ) -> tuple[list[str], list[str], list[str]]:
        """Return the lines of a `Rule`."""
        outputs = [arrays[k].op for k in written]
        lines = body(self.steps, self.loads, outputs)
        values = [*self.loads, *self.steps]
        stores = [
            line.replace(f"r{j}[", f"a{k}[")
            for j, (k, line) in enumerate(zip(written, lines[len(values) :], strict=True))
        ]
        every = list(range(len(self.loads)))
        shared = [line for x, line in zip(values, lines, strict=False) if x not in self.elements]
        shared = fixed_loads(shared, every)
        inner = [line for x, line in zip(values, lines, strict=False) if x in self.elements]
        inner += [s for x, s in zip(outputs, stores, strict=True) if x in self.elements]
        last = [s for x, s in zip(outputs, stores, strict=True) if x not in self.elements]
        pointers = []
        for k, x in enumerate(self.loads):
            const = "" if k in written else "const "
            T = f"{const}{c_type(x.dtype)}"
            at = f"({T} *)(at[{k}])" if k < columns else f"&number[{k - columns}]"
            pointers.append(f"{T} *const restrict a{k} = {at};")
        return [*pointers, *shared], inner, last


FUNCTION = """
void stage{number}(intptr_t first, intptr_t last, char *const *at, const intptr_t *row,
            const intptr_t *size, const double *number)
{{
    {head}
    for (intptr_t i = first; i < last; i++) {{
        {lines}
    }}
}}
"""
