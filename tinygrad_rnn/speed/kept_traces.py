"""Traces that are kept: those of the built-in cells, which depend on a few facts alone.

A trace costs more than the loop of a short sequence. The step of a user's cell is traced at each
call, as nobody knows all that it reads. The code of a built-in cell is known: its step reads the
attributes that its class names in ``_step_reads``, and functions of this library. So its trace
depends on the facts that `facts_of` collects at each call, and on nothing else:

- the class and the step of the cell, and that no function that its code names was replaced;
- the shapes and dtypes of the state and of the input;
- of each attribute that the step reads the value, or of a Tensor its shape, its dtype, and whether
  it has a graph. The Tensors themselves are those of the call, so they can be replaced, computed or
  updated in between.

As in `fuse`, a function of the library that is replaced further inside goes unnoticed.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..engine.tensor import Tensor
from . import compiled
from .fuse import Fused
from .side_effects import is_library
from .step_trace import StepTrace

MANY = 128  # how many are kept; the oldest goes first
OPERATORS = ("__add__", "__sub__", "__mul__", "__radd__", "__rsub__", "__rmul__")


class Facts(NamedTuple):
    """That on which the trace of a step depends, and the Tensors that it reads."""

    key: tuple[Any, ...]
    tensors: list[Tensor]


class Bound(NamedTuple):
    """The arrays of one call, as of `StepTrace`."""

    invariants: list[Tensor]
    arrays: list[Any]
    draws: Sequence[Any] = ()
    hoisted: Sequence[Any] = ()


class Kept(NamedTuple):
    """The results of a trace."""

    plan: Any
    reason: str  # why it is not a plan of loops in C
    y: Any  # as of `StepTrace`
    order: tuple[int, ...]  # of the invariants, as numbers of `Facts.tensors`
    named: list[tuple[Any, str, Any]]  # scope, name and value of the functions that were called

    def is_valid(self) -> bool:
        """Tell whether no function was replaced."""
        for scope, name, value in self.named:
            if scope.get(name) is not value:
                return False
        return True

    def bind(self, facts: Facts) -> Bound:
        """Return the arrays of a call with the same facts."""
        invariants = [facts.tensors[i] for i in self.order]
        return Bound(invariants, [x._data for x in invariants])


_kept: dict[Any, Kept] = {}


def facts_of(step: Any, state: Any, xs: Any) -> Facts | None:
    """Return the facts of a step; None if its trace may depend on others.

    Parameters
    ----------
    step : callable
        That of a layer: ``step.__wrapped__`` is the bound method of the cell, and ``step.wanted``
        tells whether it returns a y.
    state, xs : nested Tensors
        As of `scan`, on arrays of NumPy.
    """
    wanted = getattr(step, "wanted", None)
    if wanted is None or not is_library(step):
        return None
    method = step.__wrapped__
    cell, function = method.__self__, method.__func__
    names = vars(type(cell)).get("_step_reads")  # not those that a subclass inherits
    if names is None or "_check_step" in vars(cell):
        return None
    key = [type(cell), function, function.__code__, wanted, state.__class__, compiled.compiler()]
    for x in state if state.__class__ is tuple else (state,):
        if x.__class__ is not Tensor:
            return None
        key += x._data.shape, x._data.dtype
    if xs.__class__ is not Tensor:
        return None
    key += xs._data.shape[1:], xs._data.dtype
    tensors: list[Tensor] = []
    for name in names:
        value = getattr(cell, name)
        if isinstance(value, Tensor):
            array = value._data
            if array.__class__ is not np.ndarray or any([array is x._data for x in tensors]):
                return None
            tensors.append(value)
            key += type(value), array.shape, array.dtype, value._node is not None
        elif value is None or value.__class__ is str:
            key.append(value)
        else:
            return None
    return Facts(tuple(key), tensors)


def find(facts: Facts) -> Kept | None:
    """Return the trace of an earlier call with the same facts."""
    found = _kept.get(facts.key)
    return found if found is not None and found.is_valid() else None


def keep(facts: Facts, trace: StepTrace, plan: Any, reason: str) -> None:
    """Keep a trace; not if it has read anything else than the facts tell."""
    numbers = {id(x): i for i, x in enumerate(facts.tensors)}
    order = tuple([numbers.get(id(x), -1) for x in trace.invariants])
    if -1 in order or trace.draws or trace.hoisted or trace.reads_default:
        return
    for oldest in [*_kept][: max(0, len(_kept) - MANY + 1)]:
        _kept.pop(oldest, None)
    kind, function = facts.key[:2]
    named = _names_read(function) + _names_read(kind._check_step)
    named += [(vars(Tensor), name, vars(Tensor)[name]) for name in OPERATORS]
    _kept[facts.key] = Kept(plan, reason, trace.y, order, named)


def _names_read(function: Any) -> list[tuple[Any, str, Any]]:
    """Return scope, name and value of what a function, and the formulas it calls, read."""
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
