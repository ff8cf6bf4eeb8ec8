"""The facts that the trace of a step depends on, where all of them can be listed.

The code of a built-in cell is known: its step reads the attributes that its class names in
``_step_reads``, and functions of this library. Of a user's step they are found in its code, if that
is simple: no branch, no loop, no closure, and every name is an attribute of the cell or a global
that is one of

- a number, a text, None, or a tuple of these;
- a Tensor of several floats: its elements cannot become numbers, on which a trace could depend,
  without an operation on real values whose result is one number, which `StepTrace.computed` tells;
- an operation of this library, or a layer of `MODULES`.

So a trace depends on the code, on these values (of Tensors: shape, dtype, whether there is a
graph), and on the shapes and dtypes of the state and of the input.
"""

from __future__ import annotations
import __future__

import dis
import inspect
import operator
import re
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from .. import functional, tensors
from .._util import LIBRARY
from ..engine.namespaces import PRIMITIVES
from ..engine.tensor import Tensor
from . import executor
from .cuda import module
from .side_effects import is_library

_FORMULAS = functional.linear, tensors.split, tensors.concatenate
_primitives: list[Any] = list(PRIMITIVES.values())
OPERATIONS = {id(f): f for f in _primitives if not f.definition.params}
OPERATIONS.update({id(f): f for f in _FORMULAS})
METHODS = frozenset(
    "T abs cos exp log mean ndim relu reshape shape sigmoid sin split sqrt sum tanh".split()
)
SIMPLE = frozenset(
    "RESUME CACHE NOP PUSH_NULL PRECALL CALL KW_NAMES LOAD_FAST STORE_FAST LOAD_CONST BINARY_OP "
    "BINARY_SUBSCR BUILD_SLICE BUILD_TUPLE BUILD_LIST UNPACK_SEQUENCE COMPARE_OP UNARY_NEGATIVE "
    "SWAP COPY CALL_KW LOAD_SMALL_INT RETURN_VALUE RETURN_CONST BINARY_SLICE".split()
)
LOCAL = re.compile("(?:LOAD|STORE)_FAST(?:_BORROW)?")
LOCALS = re.compile(f"{LOCAL.pattern}(?:_{LOCAL.pattern})?")  # two in one, from Python 3.13
VALUES = (int, float, bool, str, type(None))
FLAGS = (  # of code; others, such as those of generators, are not simple
    inspect.CO_OPTIMIZED
    | inspect.CO_NEWLOCALS
    | inspect.CO_NESTED
    | inspect.CO_NOFREE
    | __future__.annotations.compiler_flag
)
MODULES = ("Linear", "LayerNorm")  # of nn: their attributes are Tensors and numbers


class Facts(NamedTuple):
    """That on which the trace of a step depends, and the Tensors that it reads."""

    key: tuple[Any, ...]
    tensors: list[Tensor]

    def holds(self, step: Any, state: Any, xs: Any) -> bool:
        """Tell whether the facts of a step are still these."""
        now = facts_of(step, state, xs)
        same = now is not None and now.key == self.key
        return same and all(map(operator.is_, now.tensors, self.tensors))  # type: ignore[union-attr]


class Reads(NamedTuple):
    """The reads of the code of a method: paths of names, from its first argument and globals."""

    own: list[list[str]]
    scope: list[list[str]]


_reads: dict[types.CodeType, Reads | None] = {}


def facts_of(step: Any, state: Any, xs: Any) -> Facts | None:
    """Return the facts of a step; None if its trace may depend on others.

    Parameters
    ----------
    step : callable
        That of a layer: ``step.__wrapped__`` is the bound method of the cell, and ``step.wanted``
        tells whether it returns a y.
    state, xs : nested Tensors
        As of `scan`.
    """
    method = getattr(step, "__wrapped__", None)
    if method.__class__ is not types.MethodType or not hasattr(step, "wanted"):
        return None
    cell, function = method.__self__, method.__func__
    kind = type(cell)
    if "_check_step" in vars(cell) or function.__class__ is not types.FunctionType:
        return None
    library = xs._data.__class__ if xs.__class__ is Tensor else None
    key = [kind, function, function.__code__, step.wanted, state.__class__, executor.compiler()]
    key += library, module.level()
    for x in state if state.__class__ is tuple else (state,):
        if x.__class__ is not Tensor:
            return None
        key += x._data.shape, x._data.dtype
    if xs.__class__ is not Tensor:
        return None
    key += xs._data.shape[1:], xs._data.dtype
    known = is_library(step)
    if known:
        names = vars(kind).get("_step_reads")  # not those that a subclass inherits
        values = None if names is None else [getattr(cell, name) for name in names]
    else:
        values = _values(cell, function)
    if values is None:
        return None
    found: list[Tensor] = []
    for value in values:
        if _is_tensor(value):
            array = value._data
            if array.__class__ is not library or any([array is x._data for x in found]):
                return None
            if not known and (array.size < 2 or array.dtype.kind != "f"):
                return None
            found.append(value)
            key += type(value), array.shape, array.dtype, value._node is not None
        elif type(value) in VALUES or type(value) is tuple:
            key += type(value), repr(value)
        elif known:
            return None
        else:
            key.append(value)  # a function
    return Facts(tuple(key), found)


def _values(cell: Any, function: Any) -> list[Any] | None:
    """Return the values that a user's step reads; None if they cannot be listed."""
    code, kind = function.__code__, type(cell)
    plain: Any = object.__getattribute__
    reads = _reads.get(code, ...)
    if reads is ...:
        reads = _reads[code] = reads_of(code)
    if (
        reads is None
        or function.__defaults__
        or function.__kwdefaults__
        or "step" in vars(cell)
        or kind.__getattribute__ is not plain
        or not kind._check_step.__module__.startswith(f"{LIBRARY}.")
    ):
        return None
    found: list[Any] = []
    own = vars(cell)
    for name, *rest in reads.own:
        if name in own and not hasattr(kind, name):
            known = _follow(own[name], rest, found)
        else:  # a number of the class
            known = name not in own and not rest and type(kind) is type
            holders = [vars(base) for base in kind.__mro__ if name in vars(base)]
            found.append(holders[0][name] if holders else ...)  # a descriptor, not its result
            known = known and type(found[-1]) in VALUES
        if not known:
            return None
    for name, *rest in reads.scope:
        scope = function.__globals__
        if name not in scope or not _follow(scope[name], rest, found):
            return None
    return found


def _follow(value: Any, names: list[str], found: list[Any]) -> bool:
    """Add the value at the end of a path; return whether all on the path is known."""
    for i, name in enumerate(names):
        kind = type(value)
        if kind is types.ModuleType and value.__name__.partition(".")[0] == LIBRARY:
            if name not in vars(value):
                return False
            value = vars(value)[name]
        elif _is_tensor(value) and name in METHODS and i == len(names) - 1:
            break
        elif _is_module(value) and name in vars(value) and not hasattr(kind, name):
            value = vars(value)[name]
        else:
            return False
    if _is_module(value):
        kind, own = type(value), vars(value)
        names = [name for name in own if name not in ("training", "_buffers")]
        found += kind.forward, kind.__call__, *names  # in any order
        return "forward" not in own and all([_follow(own[name], [], found) for name in names])
    found.append(value)
    simple = type(value) in VALUES or (
        type(value) is tuple and all([type(x) in VALUES for x in value])
    )
    return simple or _is_tensor(value) or OPERATIONS.get(id(value)) is value


def _is_tensor(x: Any) -> bool:
    kind = type(x)
    return issubclass(kind, Tensor) and kind.__module__.startswith(f"{LIBRARY}.")


def _is_module(x: Any) -> bool:
    kind = type(x)
    return kind.__name__ in MODULES and kind.__module__ == f"{LIBRARY}.nn.layers"


def reads_of(code: types.CodeType) -> Reads | None:
    """Return the reads of the code of a method; None if it is not simple."""
    inner = code.co_freevars or code.co_cellvars or code.co_kwonlyargcount
    if inner or not code.co_argcount or code.co_flags & ~FLAGS:
        return None
    own, scope = [], []
    for path, instruction in _paths(code):
        if instruction is not None:
            name, value = instruction.opname, instruction.argval
            in_place = name == "BINARY_OP" and instruction.argrepr.endswith("=")
            stored = name == "STORE_FAST" and value == code.co_varnames[0]
            if name not in SIMPLE or in_place or stored:
                return None
        elif path[0] == "":  # an attribute of a local value or of a result: a Tensor's
            if not METHODS.issuperset(path[1:]):
                return None
        elif path[0] == "self":
            if len(path) == 1:
                return None
            own.append(path[1:])
        else:
            scope.append(path[1:])
    return Reads(_distinct(own), _distinct(scope))


def _distinct(paths: list[list[str]]) -> list[list[str]]:
    return [list(path) for path in dict.fromkeys(map(tuple, paths))]


def _paths(code: types.CodeType) -> Iterator[tuple[list[str], Any]]:
    """Yield the paths of names in code, and its other instructions."""
    path: list[str] = []
    for instruction in dis.get_instructions(code):
        name, value = instruction.opname, instruction.argval
        if name in ("LOAD_ATTR", "LOAD_METHOD"):
            path = [*(path or [""]), value]
            continue
        for one, local in _of_locals(name, value):
            if path:
                yield path, None
            path = []
            if one == "LOAD_GLOBAL":
                path = ["global", value]
            elif one == "LOAD_FAST" and local == code.co_varnames[0]:
                path = ["self"]
            else:
                yield [], instruction._replace(opname=one, argval=local)


def _of_locals(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield an instruction and its argument; as two if it is for two local variables."""
    if not LOCALS.fullmatch(name):
        yield name, value
        return
    kinds = [kind.removesuffix("_BORROW") for kind in LOCAL.findall(name)]
    yield from zip(kinds, value if value.__class__ is tuple else (value,), strict=True)
