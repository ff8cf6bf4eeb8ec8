"""A training step recorded once and replayed: the same calls on the same memory, without a graph.

A step of fixed shapes (forward, backward, clipping, update) makes the same calls of the array
library every time. They are recorded on a `Tape`, and replayed as a flat list of functions without
arguments. Three questions decide whether that is right:

- *Does the tape say all?* The step is recorded twice, and the second tape must say what the first
  one says. What Python counts up, reads elsewhere or draws itself differs, and is refused.
- *Is the world the same?* What the function reaches (closure, globals, objects, lists) is walked.
  Its arrays are what the tape reads and writes, where they lie: parameters, learning rate and step
  count are free to change. Whatever else is there must stay the same object, or the same number.
- *Would Python decide the same?* The truth of an array is a question on the tape. Where its answer
  is another one at replay, or a call fails, before anything outside was written, the plain step
  runs: so the checks of ids protect as ever, and in their own words.

The memory of a value that is read no more goes to later ones, by the lifetimes that the tape shows.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import operator
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import random as tg_random
from .._util import nested
from .._util.api_hints import class_name
from .._util.contexts import reusable_context
from .._util.functions import check_function
from .._util.user_code import stacklevel
from ..engine import backend
from ..engine.grad_mode import is_grad_enabled
from ..engine.graph import Leaf, last_write, tick
from ..engine.tensor import Tensor, wrap
from ..errors import DTypeError, ShapeError
from ..nn.module import in_evaluation
from ..transforms.fuse import mode
from . import fuse as fusing
from .environment import LARGE, PLAIN, installed, names_of, of_library, opaque
from .loops import kinds_of
from .tape import (
    Call,
    Place,
    Tape,
    Taped,
    TapedGenerator,
    Unexpected,
    mapped,
    method,
    real,
    root_of,
    same,
    state,
)

SIGNATURES = 8  # how many signatures a captured function keeps in a thread; others run plainly
PATIENCE = 4.0  # how many recordings and replays may be in vain; a good replay gives back a tenth
# -- the world that a function reaches -------------------------------------------------------------


class World:
    """What a function reaches in Python: the arrays, and all else, which must stay the same."""

    def __init__(self, function: Any) -> None:
        self.tensors: list[Tensor] = []
        self.kept: list[tuple[Any, Any]] = []  # a container, and the key of an array in it
        self.generators: list[np.random.Generator] = []  # in the order of their places there
        self.fixed: str | None = None  # what holds an array that cannot be exchanged
        self._watched: list[tuple[Any, Any, Callable[[Any], list[Any]], list[Any], str]] = []
        own = (getattr(function, "__module__", None) or "").partition(".")[0]
        seen: dict[int, Any] = {}
        stack = [(function, "the function"), (vars(tg_random._current), "the random generator")]
        while stack:
            x, name = stack.pop()
            if id(x) in seen or opaque(x, own):
                continue
            seen[id(x)] = x
            if isinstance(x, Tensor):
                self.tensors.append(x)
            for holder, keys, read in _contents(x, own):
                values = read(holder)
                self._watched.append((holder, keys, read, values, name))
                for key, value in itertools.zip_longest(keys, values):
                    if not isinstance(value, np.ndarray | np.random.Generator | Taped):
                        stack.append((value, key if isinstance(key, str) else name))
                    elif isinstance(holder, dict | list | types.CellType):
                        self.kept.append((holder, key))
                        self.generators += [value] if isinstance(value, np.random.Generator) else []
                    elif not isinstance(x, Tensor):
                        self.fixed = name
        self.leaves = [x._node for x in self.tensors if isinstance(x._node, Leaf)]
        self.grads = [leaf.grad for leaf in self.leaves]

    def changed(self) -> str | None:
        """Return what is not as it was, or None."""
        for holder, keys, read, before, name in self._watched:
            try:
                now = read(holder)
            except LookupError:  # a global less
                return name
            if len(now) != len(before) or not all(map(operator.is_, now, before)):
                for key, a, b in itertools.zip_longest(keys, now, before):
                    if a is not b and not (a.__class__ in PLAIN and same(a, b)):
                        return key if isinstance(key, str) else name
        return None

    def lift(self, tape: Tape) -> list[TapedGenerator]:
        """Put recorded arrays and generators in the place of the plain ones; return the latter."""
        generators = [TapedGenerator(g) for g in self.generators]
        draws = iter(generators)
        for x in self.tensors:
            if x._data.__class__ is np.ndarray:
                x._data = tape.lift(x._data)
            else:
                tape.refusal = f"it uses a {x._data.__class__.__name__} on {x.device}"
        for holder, key in self.kept:
            value = _get(holder, key)
            drawing = isinstance(value, np.random.Generator)
            _put(holder, key, next(draws) if drawing else tape.lift(value))
        if self.fixed:
            tape.refusal = f"{self.fixed!r} keeps an array in no dict, list or attribute"
        return generators

    def land(self) -> None:
        """Put plain arrays and generators in the place of the recorded ones."""
        for x in (*self.tensors, *(grad for grad in self.grads if grad is not None)):
            x._data = real(x._data)
        for holder, key in self.kept:
            with contextlib.suppress(LookupError, ValueError):  # it is there no more
                now = _get(holder, key)
                _put(holder, key, now.real if isinstance(now, TapedGenerator) else real(now))


def _get(holder: Any, key: Any) -> Any:
    return holder.cell_contents if isinstance(holder, types.CellType) else holder[key]


def _put(holder: Any, key: Any, value: Any) -> None:
    if isinstance(holder, types.CellType):
        holder.cell_contents = value
    else:
        holder[key] = value


def _contents(x: Any, own: str) -> Iterator[tuple[Any, Any, Callable[[Any], list[Any]]]]:
    """Yield the containers that an object consists of: keys, and how to read the values."""
    if isinstance(x, Tensor):
        yield x, (), lambda x: [x._data, x._node]
    elif isinstance(x, fusing.Fused | Captured):
        yield x, (), lambda x: [x.__wrapped__]
    elif isinstance(x, types.MethodType):
        yield x, (), lambda x: [x.__self__, x.__func__]
    elif isinstance(x, functools.partial):
        yield x, (), lambda x: [x.func, x.args, x.keywords]
    elif isinstance(x, types.FunctionType):
        if x.__code__.co_filename.startswith("<primitive"):
            yield x, (), lambda x: [x.__wrapped__]
        elif of_library(x, own):
            if hasattr(x, "__wrapped__"):  # a decorator of the library around the user's function
                yield x, (), lambda x: [x.__wrapped__]
        else:
            yield x, (), lambda x: [x.__defaults__, x.__kwdefaults__]
            for name, cell in zip(x.__code__.co_freevars, x.__closure__ or (), strict=True):
                yield cell, (name,), gc.get_referents
            names = names_of(x.__code__)
            yield from _picked(x.__globals__, names)
            for value in [x.__globals__[n] for n in names if n in x.__globals__]:
                if isinstance(value, types.ModuleType) and not installed(value.__name__, own):
                    yield from _picked(vars(value), names)
    elif isinstance(x, type):
        yield x, (), lambda x: list(x.__mro__)
        yield vars(x), list(vars(x)), lambda x: list(x.values())
    elif isinstance(x, dict | list | tuple | set | frozenset):
        values: Any = x.values() if isinstance(x, dict) else x
        if len(x) <= LARGE or not all(type(value) in PLAIN for value in values):
            each = range(len(x)) if isinstance(x, list) else list(x) if isinstance(x, dict) else ()
            yield x, each, lambda x: list(x.values() if isinstance(x, dict) else x)
    else:
        yield x, (), lambda x: [type(x)]
        if hasattr(x, "__dict__"):
            yield vars(x), list(vars(x)), lambda x: list(x.values())
        else:
            yield x, (), gc.get_referents


def _picked(names: Any, wanted: list[str]) -> Iterator[tuple[Any, Any, Callable[[Any], list[Any]]]]:
    there = [n for n in wanted if n in names]
    yield names, there, lambda x: [x[n] for n in there]


# -- replay ----------------------------------------------------------------------------------------

REDUCTIONS = {  # what NumPy's functions call, once they know the axis
    np.sum: np.add.reduce,
    np.prod: np.multiply.reduce,
    np.max: np.maximum.reduce,
    np.min: np.minimum.reduce,
    method("max"): np.maximum.reduce,
    method("min"): np.minimum.reduce,
}
WRITERS = {np.concatenate, np.einsum, *REDUCTIONS.values()}  # they take out=
FILLED = {np.zeros, np.zeros_like, np.ones, np.ones_like, np.full, np.full_like}


class Memory:
    """One stretch of bytes, of which parts are lent."""

    def __init__(self) -> None:
        self.size = 0
        self._holes: dict[int, int] = {}  # by where they start, where they stop

    def lend(self, size: int) -> int:
        """Return the start of a part: in the smallest hole that it fits in, or at the end."""
        fits = [(stop - start, start) for start, stop in self._holes.items()]
        _, start = min((hole for hole in fits if hole[0] >= size), default=(0, -1))
        if start < 0:
            start = next((a for a, stop in self._holes.items() if stop == self.size), self.size)
            self.size = start + size
        stop = self._holes.pop(start, self.size)
        if start + size < stop:
            self._holes[start + size] = stop
        return start

    def take_back(self, start: int, size: int) -> None:
        """Make a hole, one with those beside it."""
        stop = self._holes.pop(start + size, start + size)
        self._holes[next((a for a, b in self._holes.items() if b == start), start)] = stop


class Plan:
    """A tape as a list of functions without arguments, on memory of its own."""

    def __init__(self, run: Run, last: Run) -> None:
        self.tape, self.inputs, self.world = run.tape, run.inputs, run.after
        # One tape for both, and so it does not matter which leaves had a gradient before it.
        self.had_grads = run.had_grads if run.had_grads == last.had_grads else None
        lasting = {p.block for p in _places([run.results, [p for _, p in run.grads]])}
        self._starts, self.nbytes = self._arranged(lasting)
        self._memory = np.empty(self.nbytes + 64, np.uint8)
        self._origin = -self._memory.__array_interface__["data"][0] % 64
        calls = [self._bound(call) for call in self.tape.calls]
        split = len(calls) if self.tape.pure is None else self.tape.pure
        self.before, self.rest = calls[:split], calls[split:]
        self.generators = list(self.tape.generators.values())
        written = {id(block.root) for block in self.tape.blocks if block.written}
        self.written = [x for x in self.world.tensors if id(root_of(x._data)) in written]
        self.grads = [(leaf, wrap(self._array(p), None, [0])) for leaf, p in run.grads]
        had = zip(self.world.leaves, run.had_grads, last.had_grads, strict=False)
        self.cleared = [leaf for leaf, *before in had if any(before) and leaf.grad is None]
        self.results = mapped(self._array, run.results)
        del self.tape

    def changed(self) -> str | None:
        """Return what is not as it was at the recording, or None."""
        if self.had_grads and self.had_grads != [x.grad is not None for x in self.world.leaves]:
            return "grad"
        return self.world.changed()

    def _arranged(self, lasting: set[int]) -> tuple[dict[int, int], int]:
        """Return where each block starts, and the bytes of all; `lasting` ones are never free."""
        inner = {
            b.number: max(64, b.stop - b.start + 63 & ~63)
            for b in self.tape.blocks
            if b.root is None
        }
        named = [{p.block for p in _places(call)} & inner.keys() for call in self.tape.calls]
        last = {number: i for i, numbers in enumerate(named) for number in numbers}
        memory, starts = Memory(), dict[int, int]()
        for i, numbers in enumerate(named):
            for number in sorted(numbers - starts.keys()):
                starts[number] = memory.lend(inner[number])
            for number in numbers - lasting:
                if last[number] == i:
                    memory.take_back(starts[number], inner[number])
        return starts, memory.size

    def _array(self, x: Any) -> Any:
        """Return the array of a Place, and anything else as it is."""
        if x.__class__ is not Place:
            return x
        block = self.tape.blocks[x.block]
        if block.root is not None:
            array = self.tape.arrays[x]
            return _copy(array) if block.constant else array
        start = self._origin + self._starts[x.block] + x.offset
        return np.ndarray(x.shape, x.dtype, self._memory, start, x.strides)

    def _bound(self, call: Call) -> Callable[[], Any]:
        """Return a call with its arrays, which writes to its own place, without fresh memory."""
        f, partial = call.function, functools.partial
        args, keywords = mapped(self._array, call.args), mapped(self._array, call.keywords)
        kernel = getattr(f, "kernel", None)
        if kernel and kernel(*args, *keywords["out"]):  # so it covers them, and need not be asked
            return partial(kernel, *args, *keywords["out"])
        out = keywords.get("out") if call.out is None else self._array(call.out)
        out = out[0] if out.__class__ is tuple and len(out) == 1 else out
        if isinstance(f, np.ufunc) and isinstance(out, np.ndarray) and keywords.keys() <= {"out"}:
            args = _with_arrays(f, args)
            if f is np.matmul and _plain_product(args[0], args[1], out):
                f = np.dot
            if f not in (np.maximum, np.minimum):  # by position: a third faster, and not allowed
                return partial(f, *args, out)
            return partial(f, *args, out=out)
        if f is np.stack and len(args) == 1:  # as it does itself, but the views once
            axis = keywords.get("axis", 0)
            f, args = np.concatenate, ([np.expand_dims(x, axis) for x in args[0]],)
        if call.out is None:
            return partial(f, *args, **keywords)
        if f in REDUCTIONS and len(args) == 1:
            f, keywords = REDUCTIONS[f], {"axis": None, **keywords}
        if f in WRITERS or isinstance(f, np.ufunc):
            return partial(f, *args, out=out, **keywords)
        if f in FILLED and not any(_places([call.args, call.keywords])):
            return partial(out.fill, f(*args, **keywords).flat[0] if out.size else 0)
        if f is np.array and len(args) == 1 and isinstance(args[0], np.ndarray) and not keywords:
            return partial(np.copyto, out, args[0])
        if f is method("astype") and len(args) == 2 and not keywords:
            return partial(np.copyto, out, args[0], casting="unsafe")
        return partial(_assign, out, f, args, keywords)

    def __call__(self, arrays: list[Any]) -> Any:
        """Run on new arguments; raise Unexpected if nothing was done and the plain step must."""
        states = [g.bit_generator.state for g in self.generators]
        try:
            for buffer, array in zip(self.inputs, arrays):  # noqa: B905 - of one signature
                np.copyto(buffer, array)
            for call in self.before:
                call()
        except Exception as error:
            for g, was in zip(self.generators, states, strict=True):
                g.bit_generator.state = was
            raise Unexpected(f"{error}" or "a branch on a value goes another way") from error
        try:
            for call in self.rest:
                call()
        except Exception as error:
            error.add_note("in a captured step, when it had begun to update what it updates")
            raise
        finally:
            for x in self.written:
                x._bump()
        for leaf in self.cleared:
            leaf.grad = None
        for leaf, grad in self.grads:
            leaf.grad = grad
            grad._bump()
        return mapped(_fresh, self.results)


def _plain_product(x: Any, y: Any, out: Any) -> bool:
    """Tell whether it is a product of two matrices, which np.dot starts faster."""
    alike = x.ndim == y.ndim == out.ndim == 2 and x.dtype == y.dtype == out.dtype
    blocks = x.flags.forc and y.flags.forc and out.flags.c_contiguous
    return alike and blocks and x.dtype in (backend.float32, backend.float64)


def _with_arrays(ufunc: np.ufunc, args: Any) -> list[Any]:
    """Return arguments with the numbers as arrays of the dtype that NumPy gives them each time."""
    kinds = kinds_of(args)
    if ufunc is np.power or not {int, float}.intersection(kinds):
        return list(args)
    taken = ufunc.resolve_dtypes((*kinds, *[None] * ufunc.nout))[: len(args)]
    with np.errstate(all="ignore"):  # too large a number is warned of at each call
        return [
            np.asarray(x, dtype) if x.__class__ in (int, float) and dtype.kind == "f" else x
            for x, dtype in zip(args, taken, strict=True)
        ]


def _assign(out: Any, function: Callable[..., Any], args: Any, keywords: Any) -> None:
    result = function(*args, **keywords)
    if result.shape != out.shape:
        raise ShapeError(f"{function.__name__} returns another shape at replay")
    out[...] = result


def _fresh(x: Any) -> Any:
    """Return what a step returns: arrays as new Tensors without a graph."""
    array = real(x._data if isinstance(x, Tensor) else x)
    return wrap(np.array(array), None, [0]) if isinstance(array, np.ndarray | np.generic) else x


def _copy(array: Any) -> Any:
    """Return a copy that lies in memory just as the array does."""
    low, high = np.lib.array_utils.byte_bounds(array)
    start = array.__array_interface__["data"][0] - low
    memory = np.empty(high - low, np.uint8)
    copy = np.ndarray(array.shape, array.dtype, memory, start, array.strides)
    np.copyto(copy, array)
    return copy


def _places(x: Any) -> Iterator[Place]:
    """Yield the Places in nested tuples, lists and dicts."""
    if x.__class__ is Place:
        yield x
    elif isinstance(x, tuple | list):
        for element in x:
            yield from _places(element)
    elif isinstance(x, dict):
        yield from _places(list(x.values()))


def _values(x: Any) -> list[Any]:
    return list(x.values() if isinstance(x, dict) else x)


def _shown(x: Any) -> list[Any]:
    """Return what a container holds, names and values."""
    return [*(x if isinstance(x, dict) else ()), *_values(x)]


def _containers(x: Any, stand: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the lists and dicts in arguments, each with what stands in for it."""
    if isinstance(x, list | dict):
        yield x, stand
    if isinstance(x, tuple | list | dict):
        for pair in zip(_values(x), _values(stand), strict=True):
            yield from _containers(*pair)


def _landed(x: Any) -> Any:
    """Return a plain array for a recorded one, also that of a Tensor and of its gradient."""
    if isinstance(x, Tensor):
        x._data = real(x._data)
        if x.grad is not None:
            x.grad._data = real(x.grad._data)
    return real(x)


# -- recording -------------------------------------------------------------------------------------

_exchanging = threading.RLock()  # parameters are recorded arrays meanwhile, for every thread


class Run:
    """One recorded run of a function: it did what a plain one does, and left a tape."""

    tape: Tape
    inputs: list[Any]  # the memory of its arguments
    lent: list[tuple[Any, Any, Any]]  # each argument with an array, what stands in for it, its copy
    had_grads: list[bool]  # which leaves had one before it
    grads: list[tuple[Leaf, Place]]  # those that it left
    results: Any  # what it returned, Places for arrays
    after: World

    def __init__(self, function: Any, args: Any, keywords: Any, last: Run | None) -> None:
        self.tape = tape = Tape(last.tape if last else None)
        self.inputs, self.lent, self._held = [], [], []
        self._landed = False
        with _exchanging:
            World(function).land()  # what a second interrupt, while one was tidied up, has left
            world = World(function)
            drawn = [str(g.bit_generator.state) for g in world.generators]
            self.had_grads = [grad is not None for grad in world.grads]
            given, start = nested.map_nested(self._given, (args, keywords)), tick()
            self._held = [(*pair, _shown(pair[1])) for pair in _containers((args, keywords), given)]
            try:
                try:
                    generators = world.lift(tape)
                    state.tape = tape
                    returned = function(*given[0], **given[1])
                finally:
                    after = self._land(world, function)
            finally:
                if not self._landed:  # interrupted; all of it can be done again
                    self._land(world, function)
        reached = [x for x in (*after.tensors, *after.grads) if x is not None]
        if last_write[0] > start and not any(last_write == x._version for x in reached):
            self.refuse("it writes to a tensor that the function does not lead to")
        self.returned = nested.map_nested(_fresh, returned)
        self.results = mapped(self._result, returned)
        for g, was in zip(generators, drawn, strict=True):
            moved = str(g.real.bit_generator.state) != was
            if moved and (g.looked or id(g.real) not in tape.generators):
                self.refuse("it sets the state of a random generator")
        if any(g is not None and id(root_of(g._data)) in tape.outside for g in world.grads):
            self.refuse("it adds to gradients from before: call zero_grad() in it")
        self.difference = last and self._difference(last)
        tape.before = None

    def _land(self, world: World, function: Any) -> World:
        """Bring plain arrays back to all places; return the world after the run."""
        state.tape = None
        world.land()
        self._give_back()
        after = World(function)
        left = zip(after.leaves, after.grads, strict=True)
        self.grads = [(x, g._data.place) for x, g in left if g is not None and self._own(g._data)]
        after.land()
        self.after = World(function)
        self._landed = True
        return after

    def refuse(self, reason: str) -> None:
        """Note why it cannot be replayed."""
        self.tape.refusal = self.tape.refusal or reason

    def _own(self, x: Any) -> bool:
        return isinstance(x, Taped) and x.tape is self.tape

    def _given(self, x: Any) -> Any:
        """Return an argument as a recorded array, on memory that later ones are copied to."""
        array = x._data if isinstance(x, Tensor) else x
        if not isinstance(array, np.ndarray):
            return x
        self.inputs.append(_copy(array))
        memory = self.inputs[-1].view()
        memory.flags.writeable = array.flags.writeable
        taped = self.tape.lift(memory, True)
        given = wrap(taped, None, x._version) if isinstance(x, Tensor) else taped
        self.lent.append((x, given, memory))
        return given

    def _give_back(self) -> None:
        """Do to the arguments what the function did to what stood in for them."""
        own = {id(given): x for x, given, _ in self.lent}
        own.update({id(stand): x for x, stand, _ in self._held})
        for x, given, memory in self.lent:
            array = x._data if isinstance(x, Tensor) else x
            if array.tobytes() != memory.tobytes():
                self.refuse("it writes to its argument")
                np.copyto(array, memory)
            if isinstance(x, Tensor) and given._node is not x._node:
                self.refuse("it changes its argument")
                _landed(given)
                x._node = given._node
        for x, stand, before in self._held:
            after = _shown(stand)
            if len(after) != len(before) or not all(map(operator.is_, after, before)):
                self.refuse("it changes a list or a dict that is its argument")
                values = [own.get(id(value), _landed(value)) for value in _values(stand)]
                x.clear()
                if isinstance(x, dict):
                    x.update(zip(stand, values, strict=True))
                else:
                    x.extend(values)

    def _result(self, x: Any) -> Any:
        array = x._data if isinstance(x, Tensor) else x
        if isinstance(array, Taped | np.ndarray):
            own: Any = array if self._own(array) else self.tape.lift(real(array))
            return own.place
        if x.__class__ not in PLAIN:
            self.refuse(f"it returns a {type(x).__name__}")
        return x

    def _difference(self, last: Run) -> str | None:
        """Return what differs from the run before, or None."""
        tape, before = self.tape, last.tape
        changed = last.after.changed()
        if changed:
            return f"it changes {changed!r}, and no Python runs at replay"
        alike = len(tape.calls) == len(before.calls) and len(tape.blocks) == len(before.blocks)
        if tape.difference or not alike:
            return tape.difference or "it makes another number of calls each time"
        if not all([a.agrees(b) for a, b in zip(tape.blocks, before.blocks, strict=True)]):
            return "it makes an array of other values each time, elsewhere than on the tape"
        if not same([self.results, self.grads], [last.results, last.grads]):
            return "it returns something else each time"
        return None


# -- the decorator ---------------------------------------------------------------------------------


class _Entry:
    """What is known of one signature."""

    plan: Plan | None = None
    last: Run | None = None
    refusal: str | None = None
    patience = PATIENCE
    apart = False  # whether arguments that share memory are known to be read only


class Captured:
    """A function that is recorded and replayed; made by `capture`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.__wrapped__ = function
        self._threads = threading.local()  # a plan writes to its memory: each thread has its own
        self._said = False

    @property
    def _entries(self) -> dict[Any, _Entry]:
        return self._threads.__dict__.setdefault("entries", {})

    @property
    def captured(self) -> bool:
        """Whether this thread replays it, for one signature at least."""
        return any(entry.plan for entry in self._entries.values())

    @property
    def refusals(self) -> list[str]:
        """Why signatures run plainly in this thread."""
        return [entry.refusal for entry in self._entries.values() if entry.refusal]

    def __reduce__(self) -> Any:
        return Captured, (self.__wrapped__,)  # a copy has tapes of its own

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        bound = Captured(types.MethodType(self.__wrapped__, instance))
        return vars(instance).setdefault(self.__name__, bound)  # type: ignore[attr-defined]

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Call the function: replay it if that is possible."""
        function = self.__wrapped__
        tg_random.generator()  # of this thread, where it is to go on
        if _off.disabled or mode.eager or in_evaluation() or state.tape:
            return function(*args, **keywords)
        arrays: list[Any] = []
        modes = is_grad_enabled(), backend.get_default_dtype()
        try:
            key = modes, _kind(args, arrays), _kind(keywords, arrays)
        except DTypeError as error:
            self._say(str(error))
            return function(*args, **keywords)
        entry = self._entries.get(key)
        if entry is None and len(self._entries) >= SIGNATURES:
            self._say(f"it has been called with more than {SIGNATURES} shapes, dtypes or numbers")
            return function(*args, **keywords)
        entry = entry or self._entries.setdefault(key, _Entry())
        if entry.plan:
            with _exchanging:  # where a thread records, its arrays stand in for the plain ones
                changed = entry.plan.changed()
            try:
                if not changed:
                    result = entry.plan(arrays)
                    entry.patience = min(entry.patience + 0.1, PATIENCE)
                    return result
            except Unexpected as error:
                changed = str(error)
            else:
                entry.plan = None
            self._lose_patience(entry, f"{changed!r} is another one each time")
        if entry.plan or entry.refusal:
            return function(*args, **keywords)
        if not entry.apart:
            pairs = itertools.combinations(arrays, 2)
            if any(np.may_share_memory(a, b) for a, b in pairs):
                return self._tried(entry, arrays, args, keywords)
        return self._record(entry, args, keywords)

    def _tried(self, entry: _Entry, arrays: list[Any], args: Any, keywords: Any) -> Any:
        """Run plainly, once: what stands in for arguments that share memory does not share it."""
        before = [array.tobytes() for array in arrays]
        result = self.__wrapped__(*args, **keywords)
        entry.apart = all(a.tobytes() == b for a, b in zip(arrays, before, strict=True))
        if not entry.apart:
            self._refuse(entry, "it writes to its argument")
        return result

    def _record(self, entry: _Entry, args: Any, keywords: Any) -> Any:
        last, entry.last = entry.last, None
        run = Run(self.__wrapped__, args, keywords, last)
        if run.tape.refusal:
            self._refuse(entry, run.tape.refusal)
        elif run.difference:
            entry.last = run
            self._lose_patience(entry, run.difference)
        elif last:
            entry.plan = Plan(run, last)
        else:
            entry.last = run
        return run.returned

    def _lose_patience(self, entry: _Entry, reason: str) -> None:
        entry.patience -= 1
        if entry.patience < 0:
            self._refuse(entry, reason)

    def _refuse(self, entry: _Entry, reason: str) -> None:
        entry.refusal, entry.plan, entry.last = reason, None, None
        self._say(reason)

    def _say(self, reason: str) -> None:
        if not self._said:
            self._said = True
            name = getattr(self.__wrapped__, "__name__", repr(self.__wrapped__))
            text = f"capture: {name} runs plainly: {reason}"
            warnings.warn(text, RuntimeWarning, stacklevel())


def _kind(x: Any, arrays: list[Any]) -> Any:
    """Return what a call is recorded for, and gather the arrays, of which that is the layout."""
    array = x._data if isinstance(x, Tensor) else x
    if array.__class__ is np.ndarray:
        if isinstance(x, Tensor) and x._node is not None:
            raise DTypeError("an argument requires a gradient: detach() it")
        arrays.append(array)
        return x.__class__, array.shape, array.dtype, array.strides
    if isinstance(x, tuple | list):
        return x.__class__, *[_kind(element, arrays) for element in x]
    if isinstance(x, dict):
        return dict, *[(name, _kind(element, arrays)) for name, element in x.items()]
    if x.__class__ not in PLAIN:
        raise DTypeError(f"an argument is a {class_name(x)}; CPU tensors and numbers can be")
    return x.__class__, x


def capture(function: Callable[..., Any]) -> Captured:
    """Record what a training step does, and replay it without Python's part of it. Experimental.

    Parameters
    ----------
    function : callable
        Takes Tensors or arrays (in tuples, lists and dicts too) and numbers; forward, backward,
        clipping and the optimiser's step on modules and optimisers that it closes over, in any
        mixture; returns such Tensors or None.

    Returns
    -------
    Captured
        The function, with the same arguments and effects. It is recorded at the first two calls of
        each signature (shapes, dtypes and memory layout of the arguments, values of the numbers),
        and replayed from the third. ``captured`` tells whether it is, and ``refusals`` why not.
        Arguments that share memory with each other cost one plain call before these.

    Raises
    ------
    ArgumentError
        If `function` cannot be called.

    Warns
    -----
    RuntimeWarning
        Once, when the function (or one signature) cannot be replayed and runs plainly from now on:
        it reads a value (``item``, ``float``, ``numpy``), writes to an argument, changes something
        in Python, or there are more than eight signatures. The message has the reason and the line.

    Notes
    -----
    Replayed calls give the bits of plain ones whose loops over time run in Python: parameters,
    results, the optimiser's state, random numbers. Where a plain call makes a loop one operation,
    last bits can differ. Results are new Tensors without a graph. The ``grad`` of a parameter is
    memory that the next call writes to.

    At each call the function's closure, globals, and all objects that they lead to are compared by
    identity with those of the recording: another number, module or array there, and it is recorded
    anew. The contents of arrays may change. What the function reads from elsewhere (the clock, a
    file, a list of more than 1,000 numbers) is seen only if it differs between the two recordings.
    What Python does besides computing (``print``) does not happen at replay.

    An error before anything was updated leaves all as it was, and the plain step runs and says what
    is wrong; one in the midst of the updates leaves them half done, as it does in a plain step.

    Inside ``with tg.capture.disabled():`` the function runs plainly. Arrays of a GPU run plainly.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> model = tg.nn.Linear(3, 1)
    >>> rule = tg.optim.Adam(model.parameters(), lr=0.1)
    >>> @tg.capture
    ... def step(x, y):
    ...     rule.zero_grad()
    ...     loss = ((model(x) - y) ** 2).mean()
    ...     loss.backward()
    ...     rule.step()
    ...     return loss
    >>> x, y = tg.randn(8, 3), tg.randn(8, 1)
    >>> losses = [step(x, y).item() for _ in range(100)]
    >>> losses[99] < losses[0], step.captured
    (True, True)
    """
    check_function(function, "capture")
    return Captured(function)


@reusable_context
def disabled() -> Iterator[None]:
    """Run captured functions plainly in a ``with`` block, for this thread alone."""
    before = _off.disabled
    try:
        _off.disabled = True
        yield
    finally:
        _off.disabled = before


class _Off(threading.local):
    disabled = False


_off = _Off()
capture.disabled = disabled  # type: ignore[attr-defined]
