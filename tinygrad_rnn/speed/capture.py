"""A training step recorded once and replayed: the same calls on the same memory, without a graph.

A step of fixed shapes (forward, backward, clipping, update) makes the same calls of the array
library every time. So it runs on one more array library, as `fuse` runs a function on expressions:
a `Taped` array is a NumPy array that keeps a diary. Whatever is computed with it, by an operation
of the engine, a vjp or an optimiser, is computed by NumPy as always, and the call is written on the
`Tape`. No rule knows.

Three questions decide whether a tape may be replayed:

- *Does it say all?* The step is recorded twice, and the two tapes must say the same. What Python
  counts up, draws or reads from elsewhere differs between them, and the step is refused.
- *Is the world the same?* What the function reaches (closure, globals, objects, lists) is walked
  when it is recorded. Its arrays are what the tape reads and writes, by place, so a learning rate,
  a step count and the parameters are free to change. Everything else must stay the same object.
- *Does a branch go the same way?* ``bool()`` of an array goes on the tape as a question with the
  answer of that time. Where another one comes at replay, or a call fails, before anything outside
  was written, the plain step runs instead: so the checks of ids protect as ever, in eager's words.

Values that die give their memory to later ones, by the lifetimes that the tape shows.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import operator
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import anomaly
from .. import random as tg_random
from ..engine import backend
from ..engine.graph import Leaf, is_grad_enabled
from ..engine.primitive import make
from ..engine.variable import Variable
from ..errors import DTypeError
from ..tensors.tensor import Tensor
from . import fuse as fusing

SIGNATURES = 8  # how many tapes a captured function keeps in a thread; further ones run plainly
PATIENCE = 4  # how many recordings in vain, or wrong guesses of a branch, before it is given up


# -- the tape --------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where an array lies: a block of memory, and what part of it."""

    block: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]

    def on(self, memory: Any, start: int = 0) -> Any:
        """Return the array of this layout."""
        return np.ndarray(self.shape, self.dtype, memory, start + self.offset, self.strides)


class Block:
    """Memory that arrays share: made by the step (`root` is None), or from outside of it."""

    def __init__(self, number: int, array: Any, root: Any, given: bool = False) -> None:
        self.number, self.root, self.given = number, root, given
        self.start, self.stop = np.lib.array_utils.byte_bounds(array if root is None else root)
        self.written = False

    def like(self, other: Block) -> bool:
        """Tell whether the block of another recording is this one, or as good."""
        if self.root is None or other.root is None or self.given:
            size = self.stop - self.start
            return self.given == other.given and size == other.stop - other.start
        if self.root is other.root:
            return True
        a, b = self.root, other.root  # made in Python at each call: a constant, if it is the same
        alike = (a.dtype, a.shape, a.strides) == (b.dtype, b.shape, b.strides)
        return alike and not other.written and a.tobytes() == b.tobytes()


class Call(NamedTuple):
    """A call: Places in the place of arrays; `out` is what it makes, None if it writes in place."""

    function: Any
    args: tuple[Any, ...]
    keywords: dict[str, Any]
    out: Place | None


class Tape:
    """The calls of one run of a step, in order."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.blocks: list[Block] = []
        self.arrays: dict[Place, Any] = {}  # of what lies outside
        self.outside: dict[int, Block] = {}  # by the identity of the memory's owner
        self.generators: dict[int, np.random.Generator] = {}  # that were drawn from
        self.pure: int | None = None  # how many calls there are before the first write outside
        self.refusal: str | None = None

    def refuse(self, reason: str) -> None:
        """Note why this run cannot be replayed; it goes on, unrecorded."""
        self.refusal = self.refusal or f"{reason}{_line()}"

    def lift(self, array: Any, given: bool = False) -> Taped:
        """Return an array from outside as one that is recorded."""
        root = _root(array)
        block = self.outside.get(id(root))
        if block is None:
            block = self.outside[id(root)] = self._block(array, root, given)
        taped = Taped(self, block, array)
        self.arrays[taped.place] = array
        return taped

    def _block(self, array: Any, root: Any = None, given: bool = False) -> Block:
        self.blocks.append(Block(len(self.blocks), array, root, given))
        return self.blocks[-1]

    def wrap(self, result: Any, sources: list[Taped]) -> tuple[Any, bool]:
        """Return a result as a Taped array, and whether it is new or a view of a source."""
        if isinstance(result, np.ndarray):
            start, stop = np.lib.array_utils.byte_bounds(result)
            for x in sources:
                if result.size and x.block.start <= start and stop <= x.block.stop:
                    view = Taped(self, x.block, result)
                    if x.block.root is not None:
                        self.arrays[view.place] = result
                    return view, False
            return Taped(self, self._block(result), result), True
        array = np.asarray(result)
        return TapedScalar(self, self._block(array), result), True

    def write(self, target: Any) -> None:
        """Note that an array is written to."""
        block = target.block
        if block.given:
            self.refuse("writes to its argument")
        if block.root is not None and self.pure is None:
            self.pure = len(self.calls)
        block.written = True


class _State(threading.local):
    tape: Tape | None = None  # what is being recorded in this thread
    disabled = False


_state = _State()


def _line() -> str:
    """Return where in the user's code we are, for messages."""
    frame = inspect.currentframe()
    package = __name__.partition(".")[0]
    while frame is not None and (
        frame.f_globals.get("__name__", "").partition(".")[0] in (package, "numpy")
        or frame.f_code.co_filename.startswith("<primitive")
    ):
        frame = frame.f_back
    return f" ({frame.f_code.co_filename}:{frame.f_lineno})" if frame is not None else ""


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to the elements of nested tuples, lists and dicts."""
    kind = value.__class__
    if kind is tuple or kind is list:
        return kind([_mapped(function, x) for x in value])
    if kind is dict:
        return {name: _mapped(function, x) for name, x in value.items()}
    return function(value)


def record(function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """Call a function of arrays, and write the call down if this thread records."""
    tape = _state.tape
    result = function(*_mapped(_real, args), **_mapped(_real, keywords))
    out = keywords.get("out")
    if tape is None or tape.refusal:
        return result if out is None else out[0] if out.__class__ is tuple else out
    sources: list[Taped] = []

    def place(x: Any) -> Any:
        x = x._array if isinstance(x, Taped) and x.tape is not tape else x
        if isinstance(x, np.ndarray):
            x = tape.lift(x)
        if isinstance(x, Taped):
            sources.append(x)
            return x.place
        return x

    call = Call(function, _mapped(place, args), _mapped(place, keywords), None)
    if out is not None or result is None or function in IN_PLACE:
        target = sources[0] if out is None else sources[-1]  # a keyword, so it comes last
        tape.write(target)
        tape.calls.append(call)
        return args[0] if out is None else out[0] if out.__class__ is tuple else out
    if isinstance(result, np.ndarray | np.generic):
        taped, new = tape.wrap(result, sources)
        if new and function not in UNSET:
            tape.calls.append(call._replace(out=taped.place))
        return taped
    if isinstance(result, tuple | list) and all(isinstance(x, np.ndarray) for x in result):
        taken = [tape.wrap(x, sources) for x in result]
        if not any(new for _, new in taken):
            return type(result)([x for x, _ in taken])
    if function not in SHAPES:
        tape.refuse(f"reads a value ({getattr(function, '__name__', function)})")
    return result


def _real(x: Any) -> Any:
    return x._array if isinstance(x, Taped) else x


# -- the array library -----------------------------------------------------------------------------


@functools.cache
def _method(name: str) -> Callable[..., Any]:
    def method(x: Any, *args: Any, **keywords: Any) -> Any:
        return getattr(x, name)(*args, **keywords)

    method.__name__ = name
    return method


class Taped(np.lib.mixins.NDArrayOperatorsMixin):
    """A NumPy array whose calls are written down. Without a tape it is only its array."""

    __slots__ = ("__weakref__", "_array", "block", "tape")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tape: Tape, block: Block, array: Any) -> None:
        self.tape, self.block, self._array = tape, block, array

    @property
    def place(self) -> Place:
        """Where it lies."""
        x = self._array
        offset = x.__array_interface__["data"][0] - self.block.start
        return Place(self.block.number, offset, x.shape, x.strides, x.dtype)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__array"):  # by which NumPy would take the memory in silence
            raise AttributeError(name)
        value = getattr(self._array, name)
        if isinstance(value, np.ndarray):  # .T
            return record(_method("__getattribute__"), self, name)
        return functools.partial(record, _method(name), self) if callable(value) else value

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        if any(isinstance(x, Variable) for x in inputs):
            return NotImplemented
        function = ufunc if method == "__call__" else getattr(ufunc, method)
        if method == "at" and ufunc is np.add:
            function = backend.add_at
        return record(function, *inputs, **keywords)

    def __array_function__(self, function: Any, kinds: Any, args: Any, keywords: Any) -> Any:
        if function in SIZED_BY_VALUES and _state.tape:
            _state.tape.refuse(f"the size of what {function.__name__} returns depends on values")
        return record(function, *args, **keywords)

    def __bool__(self) -> bool:
        answer, tape = bool(self._array), _state.tape
        if tape and not tape.refusal and self.tape is tape:
            if tape.pure is not None:
                tape.refuse("branches on a value after something was updated")
            tape.calls.append(Call(_expect, (self.place, answer), {}, None))
        return answer

    def _read(self, convert: Callable[[Any], Any]) -> Any:
        if _state.tape:
            _state.tape.refuse("reads a value")
        return convert(self._array)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self._read(lambda x: np.asarray(x, dtype))

    def get(self) -> Any:
        """Return the NumPy array."""
        return self._read(np.asarray)

    def __float__(self) -> float:
        return self._read(float)

    def __int__(self) -> int:
        return self._read(int)

    def __index__(self) -> int:
        return self._read(operator.index)

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        for part in key if isinstance(key, tuple) else (key,):
            if isinstance(part, Taped) and part.dtype == backend.bool_ and _state.tape:
                _state.tape.refuse("the size of what a mask picks depends on values")
        return record(operator.getitem, self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        record(operator.setitem, self, key, value)

    # NumPy has short cuts for a power of 2 or 0.5, others for arrays than for its scalars.

    def __pow__(self, other: Any) -> Any:
        return record(_power, self, other, _scalar(self), _scalar(other))

    def __rpow__(self, other: Any) -> Any:
        return record(_power, other, self, _scalar(other), _scalar(self))

    def __ipow__(self, other: Any) -> Any:
        return record(operator.ipow, self, other)


class TapedScalar(Taped):
    """What NumPy returns for 0-d operands: no array to the engine, and never written to."""

    __slots__ = ()

    @property
    def place(self) -> Place:
        """Where it is kept."""
        return Place(self.block.number, 0, (), (), self._array.dtype)


def _scalar(x: Any) -> bool:
    return isinstance(x, TapedScalar | np.generic)


def _power(x: Any, y: Any, scalar_x: bool, scalar_y: bool) -> Any:
    x = np.asarray(x)[()] if scalar_x else x
    return x ** (np.asarray(y)[()] if scalar_y else y)


for _name in "add sub mul truediv floordiv mod pow and or xor lshift rshift".split():
    setattr(TapedScalar, f"__i{_name}__", lambda self, other: NotImplemented)


class Library:
    """NumPy, for Taped arrays: they answer its calls themselves, but those that make arrays."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name)
        if name in MAKERS:
            function = functools.partial(record, function)
            setattr(self, name, function)
        return function


MAKERS = frozenset(
    "array asarray ascontiguousarray empty empty_like zeros zeros_like ones ones_like full "
    "full_like arange eye".split()
)
UNSET = {np.empty, np.empty_like}  # memory without values
IN_PLACE = {operator.ipow}
SHAPES = {np.shape, np.ndim, np.size, np.result_type, np.may_share_memory}
SIZED_BY_VALUES = {np.nonzero, np.flatnonzero, np.argwhere, np.unique, np.compress, np.extract}
REDUCTIONS = {  # what NumPy's functions call, with `axis` given
    np.sum: np.add.reduce,
    np.prod: np.multiply.reduce,
    np.max: np.maximum.reduce,
    np.min: np.minimum.reduce,
}
INTO = {np.concatenate, np.stack, np.take, np.clip}  # these write to `out` to the same bits
LIBRARY = Library()
backend.register(Taped, LIBRARY)


class TapedGenerator(np.random.Generator):
    """A random generator whose draws are written down, to be drawn again at each replay."""

    def __init__(self, real: np.random.Generator) -> None:
        super().__init__(real.bit_generator)
        self.real = real


def _draw(name: str) -> Callable[..., Any]:
    def draw(self: TapedGenerator, *args: Any, **keywords: Any) -> Any:
        function = getattr(self.real, name)
        if _state.tape:
            _state.tape.generators[id(self.real)] = self.real
        return record(function, *args, **keywords)

    return draw


for _name in dir(np.random.Generator):
    if not _name.startswith("_") and _name not in ("bit_generator", "spawn"):
        setattr(TapedGenerator, _name, _draw(_name))


# -- the world that a function reaches -------------------------------------------------------------


class World:
    """What a function reaches in Python: the arrays, and all else, which must stay the same."""

    def __init__(self, function: Any) -> None:
        self.watched: list[tuple[Any, Callable[[Any], Any], tuple[Any, ...], str]] = []
        self.tensors: list[Variable] = []
        self.grads: list[Variable] = []  # the gradients that leaves hold
        self.kept: list[tuple[Any, Any, Any]] = []  # a container, a key, and the array there
        seen: dict[int, Any] = {}
        stack: list[tuple[Any, str]] = [(function, "it"), (tg_random._library, "random")]
        while stack:
            x, name = stack.pop()
            if id(x) in seen or x.__class__ in PLAIN:
                continue
            seen[id(x)] = x
            if isinstance(x, Variable):
                self.tensors.append(x)
                self._watch(x, operator.attrgetter("_data", "_node"), name)
                self.grads += [] if x.grad is None else [x.grad]
                continue
            for holder, keys, read, what in _holders(x, name):
                for key, value in zip(keys, self._watch(holder, read, what), strict=True):
                    if isinstance(value, np.ndarray | np.random.Generator | Taped):
                        if not isinstance(holder, tuple | frozenset):
                            self.kept.append((holder, key, value))
                    else:
                        stack.append((value, what if key.__class__ is int else f"{what}.{key}"))
        self.leaves = [x._node for x in self.tensors if isinstance(x._node, Leaf)]
        self.without_grad = [leaf.grad is None for leaf in self.leaves]

    def _watch(self, holder: Any, read: Callable[[Any], Any], what: str) -> tuple[Any, ...]:
        values = read(holder)
        self.watched.append((holder, read, values, what))
        return values

    def changed(self) -> str | None:
        """Return what is not as it was, or None."""
        for holder, read, before, what in self.watched:
            try:
                now = read(holder)
            except (AttributeError, KeyError, ValueError):  # an attribute, a name, a cell less
                return what
            if len(now) != len(before) or not all(map(operator.is_, now, before)):
                for a, b in itertools.zip_longest(now, before):
                    if a is not b and (a.__class__ not in PLAIN or not _same(a, b)):
                        return what
        return None

    def lift(self, tape: Tape) -> None:
        """Put recorded arrays and generators in the place of the plain ones."""
        for x in self.tensors:
            if x._data.__class__ is np.ndarray:
                x._data = tape.lift(x._data)
        for holder, key, value in self.kept:
            if value.__class__ is np.random.Generator:
                _put(holder, key, TapedGenerator(value))
            elif value.__class__ is np.ndarray:
                _put(holder, key, tape.lift(value))

    def land(self) -> None:
        """Put plain arrays and generators in the place of the recorded ones."""
        for x in (*self.tensors, *self.grads):
            x._data = _real(x._data)
        for holder, key, _ in self.kept:
            with contextlib.suppress(AttributeError, LookupError, ValueError):
                now = holder[key] if isinstance(holder, dict | list) else getattr(holder, key)
                if isinstance(now, Taped | TapedGenerator):
                    _put(holder, key, _real(now) if isinstance(now, Taped) else now.real)


PLAIN = frozenset((bool, int, float, complex, str, bytes, type(None), np.dtype))


def _put(holder: Any, key: Any, value: Any) -> None:
    if isinstance(holder, dict | list):
        holder[key] = value
    else:
        setattr(holder, key, value)


def _same(a: Any, b: Any) -> bool:
    """Tell whether two values on a tape are the same; 1, 1.0 and True are not, nan is nan."""
    if a.__class__ is not b.__class__:
        return False
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(x, b[name]) for name, x in a.items())
    return bool(a is b or a == b or (a != a and b != b))


def _holders(x: Any, name: str) -> Iterator[tuple[Any, Any, Callable[[Any], Any], str]]:
    """Yield the containers of which an object consists: keys, how to read the values, a name."""
    if isinstance(x, types.FunctionType):
        if x.__code__.co_filename.startswith("<primitive"):
            x = x.__wrapped__  # type: ignore[attr-defined]
        if not x.__module__ or x.__module__.partition(".")[0] != __name__.partition(".")[0]:
            for variable, cell in zip(x.__code__.co_freevars, x.__closure__ or (), strict=True):
                yield cell, ("cell_contents",), _attributes("cell_contents"), variable
            yield (
                x,
                ("__defaults__", "__kwdefaults__"),
                _attributes("__defaults__", "__kwdefaults__"),
                name,
            )
            names = _names(x.__code__)
            used = [n for n in names if n in x.__globals__]
            yield x.__globals__, used, _items(used), x.__name__
            for n in used:
                value = x.__globals__[n]
                if isinstance(value, types.ModuleType | type) and _foreign(value):
                    read = [a for a in names if a in vars(value)]
                    yield vars(value), read, _items(read), n
    elif isinstance(x, types.MethodType):
        yield x, ("__self__", "__func__"), _attributes("__self__", "__func__"), name
    elif isinstance(x, functools.partial):
        yield x, ("func", "args", "keywords"), _attributes("func", "args", "keywords"), name
    elif isinstance(x, dict):
        if len(x) <= LARGE:
            yield x, list(x), lambda x: tuple(x.values()), name
    elif isinstance(x, list | tuple | set | frozenset):
        if len(x) <= LARGE:
            yield x, range(len(x)), tuple, name
    elif isinstance(x, fusing.Fused | Captured):
        yield x, ("__wrapped__",), _attributes("__wrapped__"), name
    elif not isinstance(x, types.ModuleType | type | types.BuiltinFunctionType | Leaf):
        if hasattr(x, "__dict__"):
            yield vars(x), list(vars(x)), lambda x: tuple(x.values()), name
        slots = [
            n
            for kind in type(x).__mro__
            for n in _listed(vars(kind).get("__slots__", ()))
            if n not in ("__dict__", "__weakref__") and hasattr(x, n)
        ]
        yield x, slots, _attributes(*slots), name


LARGE = 1000  # containers of more elements (vocabularies, data) are not looked into


def _listed(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _names(code: types.CodeType) -> list[str]:
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return list(dict.fromkeys([*code.co_names, *(n for c in inner for n in _names(c))]))


def _foreign(x: Any) -> bool:
    """Tell whether a module or class is the user's."""
    name = x.__name__ if isinstance(x, types.ModuleType) else x.__module__
    return name.partition(".")[0] not in ("numpy", "builtins", __name__.partition(".")[0])


def _attributes(*names: str) -> Callable[[Any], Any]:
    return lambda x: tuple([getattr(x, n) for n in names])


def _items(names: list[str]) -> Callable[[Any], Any]:
    return lambda x: tuple([x[n] for n in names])


# -- replay ----------------------------------------------------------------------------------------


class Unexpected(Exception):
    """A value that Python saw is another one."""


def _expect(x: Any, answer: bool) -> None:
    if bool(x) is not answer:
        raise Unexpected


def _assign(out: Any, function: Callable[..., Any], args: Any, keywords: Any) -> None:
    result = function(*args, **keywords)
    if result.shape != out.shape:
        raise Unexpected
    out[...] = result


class Plan:
    """A tape as a list of functions without arguments, on memory of its own."""

    def __init__(self, run: Run) -> None:
        self.run, tape = run, run.tape
        self.memory: dict[int, tuple[Any, int]] = {}
        self.nbytes = 0
        grads, results = [p for _, p in run.grads], list(_places(run.results))
        last = {p.block: i for i, call in enumerate(tape.calls) for p in _places(call)}
        last.update({p.block: len(tape.calls) for p in (*grads, *results)})
        ends: dict[int, list[int]] = {}
        for number, i in last.items():
            if tape.blocks[number].root is None:
                ends.setdefault(i, []).append(number)
        free: dict[int, list[Any]] = {}
        calls = []
        for i, call in enumerate(tape.calls):
            for p in _places(call):
                block = tape.blocks[p.block]
                if block.root is None and p.block not in self.memory:
                    size = _rounded(block)
                    held = free.get(size)
                    self.memory[p.block] = held.pop() if held else self._allocate(size)
            calls.append(self._bound(call))
            for number in ends.get(i, ()):
                free.setdefault(_rounded(tape.blocks[number]), []).append(self.memory[number])
        split = len(calls) if tape.pure is None else tape.pure
        self.pure, self.rest = calls[:split], calls[split:]
        self.generators = list(tape.generators.values())
        written = {id(b.root) for b in tape.blocks if b.written and b.root is not None}
        self.written = [x for x in run.after.tensors if id(_root(x._data)) in written]
        self.grads = [(leaf, make(self._array(p), None, [0])) for leaf, p in run.grads]
        self.results = _mapped(lambda x: self._array(x) if x.__class__ is Place else x, run.results)
        del self.memory

    def _allocate(self, size: int) -> tuple[Any, int]:
        self.nbytes += size
        memory = np.empty(size + 64, np.uint8)
        return memory, -memory.__array_interface__["data"][0] % 64

    def _array(self, place: Place) -> Any:
        if self.run.tape.blocks[place.block].root is not None:
            return self.run.tape.arrays[place]
        return place.on(*self.memory[place.block])

    def _bound(self, call: Call) -> Callable[[], Any]:
        """Return a call with its arrays, which writes to its place without fresh memory."""
        f = call.function
        args, keywords = _mapped(
            lambda x: self._array(x) if x.__class__ is Place else x, (call.args, call.keywords)
        )
        if call.out is None:
            return functools.partial(f, *args, **keywords)
        out = self._array(call.out)
        if isinstance(f, np.ufunc):
            if f.nargs == f.nin + 1 and f not in (np.maximum, np.minimum):  # a third of the call
                return functools.partial(f, *args, out, **keywords)
            return functools.partial(f, *args, out=out, **keywords)
        if f in REDUCTIONS and len(args) == 1:
            f, keywords = REDUCTIONS[f], {"axis": None, **keywords}
            return functools.partial(f, *args, out=out, **keywords)
        if f in INTO or (f.__name__ == "reduce" and isinstance(f.__self__, np.ufunc)):
            return functools.partial(f, *args, out=out, **keywords)
        if f in FILLED and not any(_places((call.args, keywords))):
            return functools.partial(out.fill, f(*args, **keywords).flat[0] if out.size else 0)
        if f is _method("astype") and len(args) == 2 and not keywords:
            return functools.partial(np.copyto, out, args[0], casting="unsafe")
        return functools.partial(_assign, out, f, args, keywords)

    def __call__(self, arrays: list[Any]) -> Any:
        """Run on new arguments; raise Unexpected if nothing was done, and the plain step must."""
        before = [g.bit_generator.state for g in self.generators]
        try:
            for buffer, array in zip(self.run.inputs, arrays):  # noqa: B905 - of one signature
                np.copyto(buffer, array)
            for call in self.pure:
                call()
        except Exception as error:
            for g, state in zip(self.generators, before, strict=True):
                g.bit_generator.state = state
            raise Unexpected(f"{error or 'a branch goes another way'} at replay") from error
        try:
            for call in self.rest:
                call()
        except Exception as error:
            error.add_note("in a captured step, after it had begun to update what it updates")
            raise
        finally:
            for x in self.written:
                x._bump()
        for leaf, grad in self.grads:
            leaf.grad = grad
            grad._bump()
        return _mapped(
            lambda x: make(np.array(x), None, None) if x.__class__ is np.ndarray else x,
            self.results,
        )


FILLED = {np.zeros, np.zeros_like, np.ones, np.ones_like, np.full, np.full_like}


def _root(array: Any) -> Any:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _rounded(block: Block) -> int:
    return max(64, -(-(block.stop - block.start) // 64) * 64)


def _places(x: Any) -> Iterator[Place]:
    """Yield the Places in nested tuples, lists and dicts."""
    if x.__class__ is Place:
        yield x
    elif isinstance(x, tuple | list):
        for element in x:
            yield from _places(element)
    elif isinstance(x, dict):
        yield from _places(list(x.values()))


# -- recording -------------------------------------------------------------------------------------


class Run:
    """One recorded run of a function: it did what a plain one does, and left a tape."""

    minds_grads = True  # whether it may depend on which leaves had a gradient before

    def __init__(self, function: Callable[..., Any], args: Any, keywords: Any) -> None:
        self.tape = tape = Tape()
        before = World(function)
        self.without_grad = before.without_grad
        self.inputs: list[Any] = []

        def given(x: Any) -> Any:
            array = x._data if isinstance(x, Tensor) else x
            if not isinstance(array, np.ndarray):
                return x
            low, high = np.lib.array_utils.byte_bounds(array)
            start = array.__array_interface__["data"][0] - low
            copy = np.ndarray(
                array.shape, array.dtype, np.empty(high - low, np.uint8), start, array.strides
            )
            np.copyto(copy, array)
            self.inputs.append(copy)
            taped = tape.lift(copy, given=True)
            return make(taped, None, [0]) if isinstance(x, Tensor) else taped

        taped = _mapped(given, (args, keywords))
        before.lift(tape)
        outer, _state.tape = _state.tape, tape
        try:
            returned = function(*taped[0], **taped[1])
        finally:
            _state.tape = outer
            before.land()
            self.after = World(function)
            held = [(x, x.grad) for x in self.after.leaves if x.grad is not None]
            self.grads = [(leaf, g._data.place) for leaf, g in held if self._made(g._data)]
            self.after.land()
            self.after = World(function)
        self.returned = _mapped(_plain, returned)
        self.results = _mapped(self._result, returned)
        if any(id(_root(g._data)) in tape.outside for g in before.grads):
            tape.refuse("adds to gradients from before: call zero_grad() in it")

    def changed(self) -> str | None:
        """Return what is not as it was after the run, or before it, or None."""
        if self.minds_grads and [x.grad is None for x in self.after.leaves] != self.without_grad:
            return "whether there are gradients before it"
        return self.after.changed()

    def _made(self, x: Any) -> bool:
        return isinstance(x, Taped) and x.tape is self.tape

    def _result(self, x: Any) -> Any:
        array = x._data if isinstance(x, Tensor) else x
        if isinstance(array, Taped | np.ndarray):
            array = array if self._made(array) else self.tape.lift(_real(array))
            return array.place
        if array.__class__ not in PLAIN:
            self.tape.refuse(f"returns a {type(x).__name__}")
        return x

    def agrees(self, other: Run) -> str | None:
        """Return what differs in another run, the one before, or None."""
        mine, before = self.tape, other.tape
        what = other.after.changed()
        if what:
            return f"changes {what}, and Python is not run at replay"
        for a, b in zip(mine.calls, before.calls, strict=False):
            if not _same(a, b):
                name = getattr(a.function, "__name__", a.function)
                return f"calls {name} with other values or shapes the next time"
        if len(mine.calls) != len(before.calls) or len(mine.blocks) != len(before.blocks):
            return "makes other calls the next time"
        if not all(map(Block.like, before.blocks, mine.blocks)):
            return "makes an array of other values outside of the tape the next time"
        if not _same((self.results, self.grads), (other.results, other.grads)):
            return "leaves other results the next time"
        return None


def _plain(x: Any) -> Any:
    array = _real(x._data if isinstance(x, Tensor) else x)
    return make(np.array(array), None, None) if isinstance(x, Tensor | Taped | np.ndarray) else x


# -- the decorator ---------------------------------------------------------------------------------


class _Entry:
    """What is known of one signature."""

    plan: Plan | None = None
    last: Run | None = None
    refusal: str | None = None
    patience = float(PATIENCE)


class Captured:
    """A function that is recorded and replayed; made by `capture`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.__wrapped__ = self.function = function
        self._threads = threading.local()  # memory is written to: every thread has its own
        self._said = False

    @property
    def entries(self) -> dict[Any, _Entry]:
        """What this thread knows of each signature."""
        return self._threads.__dict__.setdefault("entries", {})

    @property
    def captured(self) -> bool:
        """Whether calls of this thread are being replayed, for some signature at least."""
        return any(entry.plan for entry in self.entries.values())

    @property
    def refusals(self) -> list[str]:
        """Why signatures run plainly in this thread; the reasons name the line."""
        return [entry.refusal for entry in self.entries.values() if entry.refusal]

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        bound = Captured(types.MethodType(self.function, instance))
        return vars(instance).setdefault(self.function.__name__, bound)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Call the function: replay it if it can be."""
        function = self.function
        if _state.disabled or _state.tape or anomaly._mode.watching:
            return function(*args, **keywords)
        arrays: list[Any] = []
        key = (
            is_grad_enabled(),
            backend.get_default_dtype(),
            fusing._state.disabled,
            _kind(args, arrays),
            _kind(keywords, arrays),
        )
        entry = self.entries.get(key)
        if entry is None:
            if len(self.entries) >= SIGNATURES:
                self._say(f"it was called with more than {SIGNATURES} shapes, dtypes or numbers")
                return function(*args, **keywords)
            entry = self.entries[key] = _Entry()
            self._refuse(entry, next((a for a in arrays if isinstance(a, str)), None))
        if entry.refusal:
            return function(*args, **keywords)
        if entry.plan:
            changed = entry.plan.run.changed()
            if not changed:
                try:
                    result = entry.plan(arrays)
                    entry.patience = min(entry.patience + 0.1, PATIENCE)
                except Unexpected as error:
                    result = function(*args, **keywords)
                    self._fail(entry, f"{error}, and does not in the plain step")
                return result
            entry.plan = None
            self._fail(entry, f"{changed} is another one at every call")
        return self._record(entry, args, keywords)

    def _record(self, entry: _Entry, args: Any, keywords: Any) -> Any:
        before, entry.last = entry.last, None
        run = Run(self.function, args, keywords)
        self._refuse(entry, run.tape.refusal)
        if entry.refusal:
            return run.returned
        entry.last = run
        if before:
            difference = run.agrees(before)
            if difference:
                self._fail(entry, difference)
            else:
                run.minds_grads = run.without_grad == before.without_grad
                entry.plan, entry.last = Plan(run), None
        return run.returned

    def _fail(self, entry: _Entry, reason: str) -> None:
        entry.patience -= 1
        if entry.patience < 0:
            self._refuse(entry, reason)

    def _refuse(self, entry: _Entry, reason: str | None) -> None:
        if reason:
            entry.refusal, entry.plan, entry.last = reason, None, None
            self._say(reason)

    def _say(self, reason: str) -> None:
        if not self._said:
            self._said = True
            name = getattr(self.function, "__name__", repr(self.function))
            warnings.warn(f"capture: {name} runs plainly: {reason}", RuntimeWarning, stacklevel=5)


def _kind(x: Any, arrays: list[Any]) -> Any:
    """Return what a call is recorded for; of arrays their layout, and they are gathered."""
    array = x._data if isinstance(x, Tensor) else x
    if array.__class__ is np.ndarray:
        arrays.append(array)
        if isinstance(x, Tensor) and x._node is not None:
            arrays.append("an argument requires a gradient: detach() it")
        return x.__class__, array.shape, array.dtype, array.strides
    if isinstance(x, tuple | list):
        return x.__class__, *[_kind(element, arrays) for element in x]
    if isinstance(x, dict):
        return dict, *[(name, _kind(element, arrays)) for name, element in x.items()]
    if x.__class__ not in PLAIN:
        arrays.append(f"an argument is a {x.__class__.__name__}, no CPU tensor and no number")
        return x.__class__
    return x.__class__, x


def capture(function: Callable[..., Any]) -> Captured:
    """Record what a training step does, and replay it without Python's part of it.

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

    Raises
    ------
    DTypeError
        If `function` cannot be called.

    Warns
    -----
    RuntimeWarning
        Once, when the function (or one signature) cannot be replayed and runs plainly from now on:
        it reads a value (``item``, ``float``, ``numpy``), changes something in Python, or there are
        more than eight signatures. The message has the reason and the line.

    Notes
    -----
    Replayed calls give the bits of plain ones: parameters, results, the optimiser's state, random
    numbers. Results are new Tensors without a graph. The ``grad`` of a parameter is memory that the
    next call writes to.

    At each call the function's closure, globals, and all objects that they lead to are compared by
    identity with those of the recording: another number, module or array there, and it is recorded
    anew. The contents of arrays may change. What the function reads from elsewhere (the clock, a
    file, a list of more than 1,000 elements) is seen only if it differs between the two recordings.
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
    if not callable(function):
        raise DTypeError(f"capture: a function is expected, got {function!r:.60}")
    return Captured(function)


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Run captured functions plainly in a ``with`` block, for this thread alone."""
    before, _state.disabled = _state.disabled, True
    try:
        yield
    finally:
        _state.disabled = before


capture.disabled = disabled  # type: ignore[attr-defined]
