"""Traces that are kept, with the facts that they depend on.

A trace costs more than the loop of a short sequence. If all that it depends on can be listed
(`step_facts`), it serves for all calls with the same facts; the Tensors that the step reads are
those of the call, so they can be replaced, computed or updated in between. Other steps are traced
at each call.

As in `fuse`, a function of the library that is replaced far inside goes unnoticed.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import functional
from .._util.nested import leaves
from ..engine.backend import SCALARS, is_array
from ..engine.grad_mode import enable_grad
from ..engine.namespaces import PRIMITIVES
from ..engine.tensor import Tensor
from .fuse import Fused
from .step_facts import METHODS, Facts
from .step_trace import Call, StepTrace

MANY = 128  # how many are kept; the oldest goes first
OPERATORS = [f"__{name}__" for name in "neg getitem lt le gt ge eq ne iter len".split()]
for _name in ("add", "sub", "mul", "truediv", "pow", "matmul"):
    OPERATORS += f"__{_name}__", f"__r{_name}__"


class Bound(NamedTuple):
    """The arrays of one call, as of `StepTrace`."""

    invariants: list[Tensor]
    arrays: list[Any]
    draws: Sequence[Any] = ()
    hoisted: Sequence[Any] = ()


class RealCall(NamedTuple):
    """An operation on Tensors that the step reads, such as a part of a bias."""

    operation: Any
    args: list[tuple[bool, Any]]  # (True, number of a Tensor) or (False, Python number)
    options: dict[str, Any]


class Kept(NamedTuple):
    """The results of a trace."""

    plan: Any
    reason: str  # why it is not a plan of loops in C
    y: Any  # as of `StepTrace`
    calls: list[RealCall]  # their results are further Tensors
    order: list[int]  # of the invariants, as numbers of Tensors
    named: list[tuple[Any, str, Any]]  # scope, name and value of the functions that were called

    def is_valid(self) -> bool:
        """Tell whether no function was replaced."""
        for scope, name, value in self.named:
            if scope.get(name) is not value:
                return False
        return True

    def bind(self, facts: Facts) -> Bound:
        """Return the arrays of a call with the same facts."""
        tensors = facts.tensors
        if self.calls:
            tensors = list(tensors)
            with enable_grad():
                for call in self.calls:
                    args = [tensors[i] if real else i for real, i in call.args]
                    tensors.append(call.operation(*args, **call.options))
        invariants = [tensors[i] for i in self.order]
        return Bound(invariants, [x._data for x in invariants])


_kept: dict[Any, Kept] = {}


def find(facts: Facts) -> Kept | None:
    """Return the trace of an earlier call with the same facts."""
    found = _kept.get(facts.key)
    return found if found is not None and found.is_valid() else None


def keep(facts: Facts, trace: StepTrace, plan: Any, reason: str) -> None:
    """Keep a trace; not if it has read anything else than the facts tell."""
    if trace.draws or trace.hoisted or trace.reads_default:
        return
    calls = _real_calls(facts, trace.computed)
    tensors = [*facts.tensors, *(call.result for call in trace.computed)]
    numbers = {id(x): i for i, x in enumerate(tensors)}
    order = [numbers.get(id(x), -1) for x in trace.invariants]
    if calls is None or -1 in order:
        return
    for oldest in [*_kept][: max(0, len(_kept) - MANY + 1)]:
        _kept.pop(oldest, None)
    kind, function = facts.key[:2]
    named = _names_read(function) + _names_read(kind._check_step)
    named += _names_read(functional.linear)
    methods = METHODS.intersection(function.__code__.co_names)
    scope = vars(Tensor)
    named += [(scope, name, scope[name]) for name in (*OPERATORS, *methods) if name in scope]
    _kept[facts.key] = Kept(plan, reason, trace.y, calls, order, named)


def _real_calls(facts: Facts, computed: Sequence[Call]) -> list[RealCall] | None:
    """Return the operations on real arrays, to do them again; None if that is not possible."""
    known: dict[int, Any] = {id(x._data): (i, x._node) for i, x in enumerate(facts.tensors)}
    found: list[RealCall] = []
    for definition, result, values in computed:
        operation: Any = PRIMITIVES.get(definition.name)
        array = result._data
        if operation is None or operation.definition is not definition:  # one of the user's
            return None
        if array.size < 2 or id(array) in known:
            return None
        parents = result._node.parents if result._node is not None else ()
        count = len(values) - len(definition.params)
        args: list[tuple[bool, Any]] = []
        for x in values[:count]:
            number, node = known.get(id(x), (None, None))
            if number is None and x.__class__ not in SCALARS:
                return None
            if node is not None and node not in parents:  # a constant with the same array
                return None
            args.append((False, x) if number is None else (True, number))
        options = dict(zip(definition.params, values[count:], strict=True))
        if any(is_array(x) or isinstance(x, Tensor) for x in leaves(list(options.values()))):
            return None
        known[id(array)] = len(facts.tensors) + len(found), result._node
        found.append(RealCall(operation, args, options))
    return found


def _names_read(function: Any) -> list[tuple[Any, str, Any]]:
    """Return scope, name and value of all that a function and its formulas read."""
    names = function.__code__.co_names
    found: list[tuple[Any, str, Any]] = []
    for name in names:
        if name not in function.__globals__:
            continue
        value = function.__globals__[name]
        found.append((function.__globals__, name, value))
        if isinstance(value, types.ModuleType):
            scope = vars(value)
            found += [(scope, inner, scope[inner]) for inner in names if inner in scope]
        if isinstance(value, Fused):
            found.append((vars(value), "function", value.function))
            found += _names_read(value.function)
    return found
