"""Side effects: a call that is traced once in place of T times must not have any.

`guarded` calls a function and stops it *before* it does anything that a caller could notice: before
a function of the user's runs that assigns an attribute, a global or an element of a container, and
before a function outside of Python code is called that is not known to be pure (``print``,
``next``, ``list.append``, a random draw, the clock). So the function can be called again, in a
loop, as if nothing had happened.

Functions of this library, of NumPy and of CuPy are pure, except that they may draw random numbers;
those of the library raise in `tinygrad_rnn.random` while a step is traced.
"""

from __future__ import annotations

import collections
import dis
import functools
import inspect
import operator
import os
import signal
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from .._util import LIBRARY as PACKAGE_NAME
from .._util.user_code import GENERATED, PACKAGE, location
from ..engine import backend
from ..engine.tensor import Tensor

LIBRARY, USER = "library", "user"
PURE_PACKAGES = frozenset(
    "contextlib copy dataclasses enum functools itertools math numbers numpy operator "
    "re types typing abc inspect ast tokenize".split()
).union(backend.CUPY)
PURE_BUILTINS = frozenset(
    "abs all any ascii bin callable chr divmod format getattr hasattr hash hex id isinstance "
    "issubclass len max min oct ord pow repr round sorted sum vars dir locals globals "
    "__build_class__".split()
)
PURE_MODULES = frozenset(
    ("math", "cmath", "_operator", "_functools", "itertools", "numpy", *backend.CUPY)
)
RANDOM = tuple(f"{library}.random" for library in ("numpy", *backend.CUPY))
VALUES = (str, bytes, int, float, complex, bool, tuple, frozenset, range, type(None), slice)
READS = frozenset("get items keys values index count copy union intersection difference".split())
ARRAY_WRITES = frozenset(
    "fill sort put resize setfield partition itemset setflags byteswap tofile dump __setitem__ "
    "__setstate__".split()
)


WRITERS = frozenset("copyto put putmask place shuffle put_along_axis fill_diagonal at".split())
IN_PLACE = frozenset(
    "iadd iand iconcat ifloordiv ilshift imatmul imod imul ior ipow irshift isub itruediv ixor "
    "setitem delitem setattr delattr set delete".split()
)
WRITERS |= {f"__{name}__" for name in IN_PLACE}
WRITERS |= IN_PLACE - {"set", "delete"} | {"methodcaller"}  # of `operator`
# Facts that differ between the loop in Python and a trace, or from step to step.
MODES = frozenset(("requires_grad", "is_leaf", "is_grad_enabled"))
# Functions of this library that have side effects, or read what others change.
LIBRARY_WRITERS = frozenset(
    "__setattr__ __delattr__ register_buffer train eval load_state_dict requires_grad_ zero_grad "
    "backward _write _bump _rebind manual_seed get_state set_state".split()
)
MUTATORS = {
    name
    for kind in (list, dict, set, bytearray, collections.deque)
    for name in dir(kind)
    if not name.startswith("_")
}.difference(READS, dir(frozenset), dir(bytes), ["add"])
COMPUTES = frozenset(("BINARY_OP", "CALL", "CALL_FUNCTION_EX", "UNARY_NEGATIVE"))
DRAWS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator)
METHODS = (types.BuiltinMethodType, types.MethodType)
DRAW_METHODS = {n for kind in DRAWS for n in dir(kind) if not n.startswith("_")}
DEPTH, MANY = 4, 100  # how far, and at how many objects, `_used_up` looks


class SideEffect(BaseException):
    """A traced function was about to do something that it must do at every step.

    No subclass of Exception, so that the function does not handle it.
    """

    def __init__(self, what: str, line: str) -> None:
        super().__init__(what)
        self.what, self.line = what, line


def guarded(
    function: Callable[..., Any], *args: Any, recorded: bool = True, on_gpu: bool = False
) -> Any:
    """Call a function, and raise `SideEffect` before it has one.

    `recorded` tells that the caller records a graph, so that ``+=`` makes a new Tensor; `on_gpu`,
    that CuPy computes what depends on neither the state nor the input of a step. A profiler
    that is active in this thread is paused. The caller disables the cyclic GC, whose callbacks
    run code that is not the function's.
    """
    profiler: Any = sys.getprofile()
    pausable = hasattr(profiler, "disable") and hasattr(profiler, "enable")  # cProfile
    if pausable:
        profiler.disable()
    _stopped.effect, _stopped.recorded, _stopped.on_gpu = None, recorded, on_gpu
    traced = sys.gettrace() is not None  # by a debugger, or a tool that measures coverage
    try:
        if traced:
            sys.setprofile(_guard)
        else:
            sys.setprofile(None)
            sys.settrace(_enter)
        result = function(*args)
    finally:
        sys.setprofile(None if pausable else profiler)  # first: it sets the trace function again
        if not traced:
            sys.settrace(None)
        if pausable:
            profiler.enable()
    if _stopped.effect is not None:  # the function handled it: `except BaseException`
        raise _stopped.effect
    return result


class _Stopped(threading.local):
    effect: SideEffect | None = None
    recorded = True
    on_gpu = False


_stopped = _Stopped()


def _stop(what: str, line: str) -> None:
    _stopped.effect = SideEffect(what, line)
    raise _stopped.effect


# Python calls a profile function at each call, also of C functions, and most calls are made by the
# library, which is pure. So a profile function is set while the user's code runs, and a trace
# function (which sees Python functions only) sets and removes it. If the thread has a trace
# function already, a profile function is set all the time.
#
# Python removes a function of either kind when it raises. The user's function may go on, in
# `finally` or as it handles every error, so the other one sets it again.


def _guard(frame: types.FrameType, event: str, arg: Any) -> None:
    """Stop impure calls: a profile function."""
    if event == "call":
        _check(frame)
    elif event == "c_call" and _kinds.get(id(frame.f_code)) is USER and not _is_pure(arg):
        name = getattr(arg, "__qualname__", repr(arg))
        _stop(f"calls {name}", f"{frame.f_code.co_filename}:{frame.f_lineno}")


getprofile = sys.getprofile


def _enter(frame: types.FrameType, event: str, arg: Any) -> Any:
    """Stop impure calls: a trace function, called before the body of each Python function."""
    inside = _kinds.get(id(frame.f_code))
    if inside is LIBRARY and getprofile() is None:  # called by code of the library: most calls
        return None
    if inside is not LIBRARY:
        try:
            inside = _check(frame)
        except SideEffect:
            sys.setprofile(_guard_c)
            raise
    same = (inside is LIBRARY) == (getprofile() is None)  # called by code of the same kind
    if same and inside is LIBRARY:
        return None
    frame.f_trace_lines = False
    if inside is LIBRARY:
        sys.setprofile(None)
        return _leave_library
    frame.f_trace_opcodes = frame.f_code in _in_place
    if same:
        return _inside_user
    sys.setprofile(_guard_c)
    return _leave_user


def _leave_library(frame: types.FrameType, event: str, arg: Any) -> Any:
    if event == "return":
        sys.setprofile(_guard_c)
    return _leave_library


def _leave_user(frame: types.FrameType, event: str, arg: Any) -> Any:
    if event == "return":
        sys.setprofile(None)
    else:
        _inside_user(frame, event, arg)
    return _leave_user


def _inside_user(frame: types.FrameType, event: str, arg: Any) -> Any:
    if event == "exception":
        sys.setprofile(_guard_c)
    elif event == "opcode":
        name = _in_place[frame.f_code].get(frame.f_lasti, "")
        if name and not _makes_new(frame.f_locals.get(name)):
            _stop(f"changes {name} in place", f"{frame.f_code.co_filename}:{frame.f_lineno}")
    return _inside_user


def _guard_c(frame: types.FrameType, event: str, arg: Any) -> None:
    removed = sys.gettrace() is None
    if removed:
        sys.settrace(_enter)
    if event == "c_call" or (event == "call" and removed):
        _guard(frame, event, arg)


def _check(frame: types.FrameType) -> Any:
    """Stop a function of the user's that is not pure; return the kind of the code."""
    code = frame.f_code
    found = _kinds.get(id(code))
    if found is None:
        _codes.append(code)
        found = _kinds[id(code)] = _kind_of(code, frame.f_globals.get("__name__") or "")
    if found is not LIBRARY and _is_called_by_cupy(frame):
        return LIBRARY
    if found.__class__ is tuple and not _is_signal_handler(code):
        what, line = found
        own = code.co_filename.startswith(PACKAGE)
        _stop(what, location() if own else f"{code.co_filename}:{line or code.co_firstlineno}")
    if found is USER:
        for name in _arguments_in_place.get(code, ()):
            if not _makes_new(frame.f_locals.get(name)):
                _stop(f"changes {name} in place", f"{code.co_filename}:{code.co_firstlineno}")
    started = frame.f_lasti > 0 and code.co_flags & inspect.CO_GENERATOR
    if found is USER and not started and (what := _used_up(frame)):
        _stop(what, f"{code.co_filename}:{code.co_firstlineno}")
    return found


def _is_called_by_cupy(frame: types.FrameType) -> bool:
    """Tell whether CuPy called a function: it compiles its kernels at their first use.

    Most of CuPy is compiled, so the caller that Python knows is code of this library.
    """
    caller: Any = frame.f_back
    standard = _package(frame) in sys.stdlib_module_names
    while _stopped.on_gpu and caller is not None and caller.f_code.co_name != "guarded":
        package = _package(caller)
        if package in (*backend.CUPY, "importlib"):  # it imports parts late
            return True
        if _kinds.get(id(caller.f_code)) is LIBRARY:
            return standard
        standard = standard and package in sys.stdlib_module_names
        caller = caller.f_back
    return False


def _package(frame: types.FrameType) -> str:
    return (frame.f_globals.get("__name__") or "").partition(".")[0]


def _used_up(frame: types.FrameType) -> str:
    """Return how a function uses up something that its names lead to; empty if it does not.

    Methods of NumPy's generators, and iterators in a ``for`` loop, are called without notice: so
    the objects are looked for. They are found by the names in the code: arguments, globals,
    closures, and attributes of these.
    """
    code = frame.f_code
    names, local = code.co_names, frame.f_locals
    draws = not DRAW_METHODS.isdisjoint(names)
    # ".0" is the iterator of a comprehension, which belongs to it.
    found = [v for n, v in local.items() if n != ".0"]
    found += [*(frame.f_globals[n] for n in names if n in frame.f_globals)]
    seen: set[int] = set()
    for _ in range(DEPTH):
        inner: list[Any] = []
        for x in found[:MANY]:
            if id(x) in seen or (isinstance(x, VALUES) and not isinstance(x, tuple)):
                continue
            seen.add(id(x))
            if isinstance(x, functools.partial):
                inner += [x.func, *x.args]
            caller = isinstance(x, operator.methodcaller)
            caller |= isinstance(x, types.MethodWrapperType) and x.__name__ in WRITERS
            if caller or (isinstance(x, types.BuiltinMethodType) and not _is_pure(x)):
                name = getattr(x, "__qualname__", repr(x))
                return f"reads the function {name}"  # which others may call
            generator = isinstance(x, DRAWS) and draws
            method = isinstance(x, METHODS) and isinstance(x.__self__, DRAWS)
            if generator or method or (x is np and "random" in names) or x is np.random:
                return "draws random numbers with NumPy"
            if hasattr(type(x), "__next__"):
                return f"reads an iterator, a {type(x).__name__}"
            if hasattr(type(x), "__missing__"):
                return f"reads a {type(x).__name__}"
            if isinstance(x, list | tuple):
                inner += x[:MANY]
            elif isinstance(x, dict):
                inner += list(x.values())[:MANY]
            elif not isinstance(x, type | types.ModuleType | np.ndarray):
                try:
                    held = object.__getattribute__(x, "__dict__")  # calls no code of the user's
                except AttributeError:
                    continue
                inner += [held[n] for n in names if n in held]
        found = inner
    return ""


def _is_signal_handler(code: types.CodeType) -> bool:
    """Tell whether Python called code on a signal: it has nothing to do with the function."""
    handlers = (signal.getsignal(number) for number in signal.valid_signals())
    return any(getattr(handler, "__code__", None) is code for handler in handlers)


def _makes_new(x: Any) -> bool:
    """Tell whether ``x += y`` makes a new object, and does not change x."""
    if isinstance(x, Tensor):
        return _stopped.recorded or x._version is None
    return isinstance(x, (*VALUES, np.generic))


# LIBRARY, USER, or the reason why code is not pure; by the id, as to hash code takes long.
_kinds: dict[int, Any] = {}
_codes: list[types.CodeType] = []  # those of `_kinds`, whose ids stay theirs
# The names of ``x += y``, by the place in the code; and those that are arguments.
_in_place: dict[types.CodeType, dict[int, str]] = {}
_arguments_in_place: dict[types.CodeType, list[str]] = {}


def _kind_of(code: types.CodeType, module: str) -> Any:
    if code.co_filename.startswith((PACKAGE, *GENERATED)):
        own = code.co_filename.startswith(PACKAGE)
        folder = code.co_filename.removeprefix(PACKAGE).partition(os.sep)[0] if own else ""
        changes = code.co_name in LIBRARY_WRITERS or folder in ("optim", "io")
        what = "changes a module" if folder == "nn" else f"calls {code.co_name}"
        return (what, None) if changes else LIBRARY
    package = module.partition(".")[0]
    if package in PURE_PACKAGES and not module.startswith(RANDOM):
        return LIBRARY
    if package in sys.stdlib_module_names and package != "__main__":
        return f"calls {code.co_name} of {module}", None
    return writes_of(code) or USER


def writes_of(code: types.CodeType) -> tuple[str, int | None] | None:
    """Return how code changes something outside of itself, with the line; None if it does not."""
    if any(isinstance(c, tuple) and "out" in c for c in code.co_consts):
        return "writes to an array (out=)", None
    if found := WRITERS.intersection(code.co_names):
        return f"calls {min(found)}", None
    if found := MODES.intersection((*code.co_names, *map(str, code.co_consts))):
        return f"reads {min(found)}", None
    own = set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    given = frozenset(own)
    before = before_that = ""
    place, places, arguments = 0, {}, []
    for step in dis.get_instructions(code):
        kind, _, rest = step.opname.partition("_")
        line = step.positions.lineno if step.positions else None
        if step.opname == "LOAD_ATTR" and step.argval in MUTATORS and "self" not in step.argrepr:
            return f"reads the method {step.argval}", line  # others may call it
        if step.opname in ("STORE_FAST", "STORE_DEREF"):
            # x += y writes to the object. Of arguments and results of calls, objects are looked at.
            if before.endswith("="):
                if step.argval not in own:
                    return f"changes {step.argval} in place", line
                places[place] = step.argval
                arguments += [step.argval] if step.argval in given else []
            if before_that in COMPUTES or before in COMPUTES:
                own.add(step.argval)
            elif not before.endswith("="):
                own.discard(step.argval)
        in_place = step.opname == "BINARY_OP" and step.argrepr.endswith("=")
        place = step.offset if in_place else place
        before_that, before = before, step.argrepr if in_place else step.opname
        if kind not in ("STORE", "DELETE"):
            continue
        if rest in ("ATTR", "GLOBAL") or (rest == "DEREF" and step.argval in code.co_freevars):
            return f"assigns {step.argval}", line
        if rest in ("SUBSCR", "SLICE"):
            return "assigns an element", line
    if places:
        _in_place[code], _arguments_in_place[code] = places, arguments
    return None


def _is_pure(function: Any) -> bool:
    """Tell whether a function in C, or a method of an object in C, changes and draws nothing."""
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if isinstance(owner, types.ModuleType) or owner is None:
        module = getattr(function, "__module__", None) or getattr(owner, "__name__", "") or ""
        if module == "builtins":
            return name in PURE_BUILTINS
        return module.partition(".")[0] in PURE_MODULES and "random" not in module
    if isinstance(owner, VALUES):
        return True
    if backend.is_array(owner):
        return name not in ARRAY_WRITES
    if isinstance(owner, type):
        return owner in (dict, int, float, str) or name == "__new__"
    return isinstance(owner, dict | list | set | types.MappingProxyType) and name in READS


def is_library(step: Any) -> bool:
    """Tell whether a step is the method of a cell of this library, which has no side effects."""
    method = getattr(step, "__wrapped__", None)
    owner = type(getattr(method, "__self__", None))
    file = getattr(getattr(method, "__code__", None), "co_filename", "")
    return owner.__module__.startswith(f"{PACKAGE_NAME}.nn.") and file.startswith(PACKAGE)
