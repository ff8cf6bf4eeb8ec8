"""An array library that keeps a diary: NumPy, with every call written down.

`fuse` runs a function on expressions in place of arrays, and learns what it would compute. A
`Taped` array is computed with at once, by NumPy, and the call is put on a `Tape`: the function, and
for each array the `Place` where it lies, a part of a block of memory. The engine's operations, its
vjps and the optimisers run on it and do not know.

Whatever cannot be told by a list of calls (a value that Python reads, a shape that depends on
values) is done all the same and noted as the reason why the tape is no use.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._util.user_code import GENERATED, PACKAGE, location
from ..engine import backend
from ..engine.ops import kernels
from ..engine.tensor import Tensor


class Place(NamedTuple):
    """Where an array lies: a block of memory by its number, and which part of it."""

    block: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]


class Block:
    """Memory that arrays share: made on the tape (`root` is None), or from outside.

    `given` are the arguments, whose contents are replaced for each replay.
    """

    def __init__(self, number: int, array: Any, root: Any = None, given: bool = False) -> None:
        self.number, self.root, self.given = number, root, given
        self.start, self.stop = np.lib.array_utils.byte_bounds(array if root is None else root)
        self.written = self.constant = False

    def agrees(self, before: Block) -> bool:
        """Tell whether it is the block of an earlier tape, or as good as it."""
        a, b = self.root, before.root
        if a is None or b is None or self.given:
            size = self.stop - self.start
            return self.given == before.given and size == before.stop - before.start
        if a is b:
            return True
        # Python makes it anew each time: it is a constant if it is the same.
        alike = (a.dtype, a.shape, a.strides) == (b.dtype, b.shape, b.strides)
        self.constant = alike and not self.written and a.tobytes() == b.tobytes()
        return self.constant


class Call(NamedTuple):
    """A call: Places stand for arrays; `out` is that of a new result, None if it only writes."""

    function: Any
    args: tuple[Any, ...]
    keywords: dict[str, Any]
    out: Place | None = None


class Tape:
    """The calls of one run, in order; they are compared with those of the run `before`."""

    def __init__(self, before: Tape | None = None) -> None:
        self.before = before
        self.calls: list[Call] = []
        self.blocks: list[Block] = []
        self.arrays: dict[Place, Any] = {}  # of what lies outside
        self.outside: dict[int, Block] = {}  # by the identity of the memory's owner
        self.generators: dict[int, np.random.Generator] = {}  # that numbers were drawn from
        self.pure: int | None = None  # the number of calls before the first that writes outside
        self.refusal: str | None = None  # why it cannot be replayed
        self.difference: str | None = None  # from the tape before

    def refuse(self, reason: str) -> None:
        """Note why this run cannot be replayed; it goes on, unrecorded."""
        self.refusal = self.refusal or f"{reason}{_line()}"

    def append(self, call: Call) -> None:
        """Put a call on the tape."""
        number = len(self.calls)
        self.calls.append(call)
        if self.before is None or self.difference:
            return
        if number >= len(self.before.calls) or not same(call, self.before.calls[number]):
            name = getattr(call.function, "__name__", call.function)
            self.difference = f"the call of {name} is another one each time{_line()}"

    def lift(self, array: Any, given: bool = False) -> Taped:
        """Return an array from outside as one that is recorded."""
        root = root_of(array)
        block = self.outside.get(id(root))
        if block is None:
            block = self.outside[id(root)] = self._block(array, root, given)
        return self._view(block, array)

    def _block(self, *about: Any) -> Block:
        self.blocks.append(Block(len(self.blocks), *about))
        return self.blocks[-1]

    def _view(self, block: Block, array: Any) -> Taped:
        taped = Taped(self, block, array)
        if block.root is not None:
            self.arrays[taped.place] = array
        return taped

    def result(self, call: Call, result: Any, sources: list[Taped]) -> Taped:
        """Return what a call returned as a recorded array: new, or a view of an argument."""
        if isinstance(result, np.generic):
            array = np.asarray(result)
            taped: Taped = TapedScalar(self, self._block(array), result)
        else:
            low, high = np.lib.array_utils.byte_bounds(result)
            for x in sources if result.size else ():
                if x.block.start <= low and high <= x.block.stop:
                    if call.function.__name__ not in VIEWS:
                        self.refuse(f"{call.function.__name__} returns its argument's memory")
                    return self._view(x.block, result)
            taped = Taped(self, self._block(result), result)
        if call.function not in UNSET:
            self.append(call._replace(out=taped.place))
        return taped

    def write(self, call: Call, targets: list[Taped]) -> None:
        """Put a call on the tape that writes to arrays."""
        for block in [x.block for x in targets]:
            block.written = True
            if block.given:
                self.refuse("it writes to its argument")
            if block.root is not None and self.pure is None:
                self.pure = len(self.calls)
        self.append(call)


class _State(threading.local):
    tape: Tape | None = None  # what this thread records


state = _State()


def record(function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """Call a function of arrays, and put the call on the tape if this thread has one.

    It returns a new array, or writes: to ``out`` (an array or a tuple of them), or, if it returns
    None, to its first argument.
    """
    result = function(*mapped(real, args), **mapped(real, keywords))
    tape, out = state.tape, keywords.get("out")
    outs = out if isinstance(out, tuple) else () if out is None else (out,)
    if tape is None or tape.refusal:
        return result if not outs else outs[0] if len(outs) == 1 else outs
    sources: list[Taped] = []

    def place(x: Any) -> Any:
        if isinstance(x, Taped) and x.tape is not tape:  # of an earlier run
            x = x._array
        if isinstance(x, np.ndarray):
            x = tape.lift(x)
        if isinstance(x, Taped):
            sources.append(x)
            return x.place
        return x

    call = Call(function, mapped(place, args), mapped(place, keywords))
    if not outs and sources and (result is None or function is operator.ipow):
        tape.write(call, sources[:1])
        return None if result is None else args[0]
    if outs:
        tape.write(call, [x for x in sources if any(x._array is real(y) for y in outs)])
        return outs[0] if len(outs) == 1 else outs
    if any(result is x._array for x in sources[1:]):
        tape.refuse(f"{function.__name__} writes to an array given by position: use out=")
    if isinstance(result, np.ndarray | np.generic):
        return tape.result(call, result, sources)
    if function.__name__ in VIEWS and all(isinstance(x, np.ndarray) for x in result):
        return type(result)([tape.result(call, x, sources) for x in result])
    if function not in SHAPES:
        tape.refuse(f"it reads a value ({function.__name__})")
    return result


def real(x: Any) -> Any:
    """Return the NumPy array of a recorded one."""
    return x._array if isinstance(x, Taped) else x


def root_of(array: Any) -> Any:
    """Return the array that owns the memory of another."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to what stands in nested tuples, lists and dicts."""
    kind = value.__class__
    if kind is tuple or kind is list:
        return kind([mapped(function, x) for x in value])
    if kind is dict:
        return {name: mapped(function, x) for name, x in value.items()}
    return function(value)


def same(a: Any, b: Any) -> bool:
    """Tell whether two values are the same; 1, 1.0 and True are not, and nan is nan."""
    if a.__class__ is not b.__class__:
        return False
    if isinstance(a, tuple | list) and a.__class__ is not Place:
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(x, b[name]) for name, x in a.items())
    return bool(a is b or a == b or (a != a and b != b))


INSIDE = (PACKAGE, *GENERATED, str(Path(np.__file__).parent), contextlib.__file__)


def _line() -> str:
    """Return the line of the user's code that runs, in parentheses."""
    line = location(INSIDE)
    return f" ({line})" if line else ""


# -- the array library -----------------------------------------------------------------------------


@functools.cache
def method(name: str) -> Callable[..., Any]:
    """Return a method of arrays as a function, one for each name."""

    def call(x: Any, *args: Any, **keywords: Any) -> Any:
        return getattr(x, name)(*args, **keywords)

    call.__name__ = name
    return call


class Taped(np.lib.mixins.NDArrayOperatorsMixin):
    """A NumPy array whose calls are written down; when its tape is over, that array alone."""

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
            return record(method("__getattribute__"), self, name)
        if callable(value):
            return functools.partial(record, method(name), self)
        return value if name in ATTRIBUTES else self._read(lambda _: value)

    def __array_ufunc__(self, ufunc: Any, how: str, *inputs: Any, **keywords: Any) -> Any:
        if any(isinstance(x, Tensor) for x in inputs):
            return NotImplemented
        function = ufunc if how == "__call__" else getattr(ufunc, how)
        return record(kernels.add_at if function == np.add.at else function, *inputs, **keywords)

    def __array_function__(self, function: Any, kinds: Any, args: Any, keywords: Any) -> Any:
        if function in SIZED_BY_VALUES and state.tape:
            state.tape.refuse(f"the size of what {function.__name__} returns depends on values")
        return record(function, *args, **keywords)

    def __bool__(self) -> bool:
        """Ask a question; at replay the answer must be the same."""
        answer, tape = bool(self._array), state.tape
        if tape and self.tape is tape and not tape.refusal:
            if tape.pure is not None:
                tape.refuse("it branches on a value after something was updated")
            tape.append(Call(expect, (self.place, answer), {}))
        return answer

    def _read(self, convert: Callable[[Any], Any]) -> Any:
        if state.tape:
            state.tape.refuse("it reads a value")
        return convert(self._array)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self._read(lambda x: np.asarray(x, dtype))

    def get(self) -> Any:
        """Return the NumPy array."""
        return self._read(np.asarray)

    def item(self) -> Any:
        """Return the one element as a Python number: of truths it is a question."""
        return bool(self) if self.dtype == backend.bool_ else self._read(lambda x: x.item())

    def __format__(self, form: str) -> str:
        return self._read(lambda x: format(x, form))

    def __str__(self) -> str:
        return self._read(str)

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
        keys = key if isinstance(key, tuple) else (key,)
        if state.tape and any(getattr(k, "dtype", None) == backend.bool_ for k in keys):
            state.tape.refuse("the size of what a mask picks depends on values")
        return record(operator.getitem, self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        record(operator.setitem, self, key, value)

    # NumPy takes short cuts for some powers, others for an array than for one of its scalars.

    def __pow__(self, other: Any) -> Any:
        return record(_power, self, other, _is_scalar(self), _is_scalar(other))

    def __rpow__(self, other: Any) -> Any:
        return record(_power, other, self, _is_scalar(other), _is_scalar(self))

    def __ipow__(self, other: Any) -> Any:
        return record(operator.ipow, self, other)


class TapedScalar(Taped):
    """What NumPy returns for 0-d operands: no array to the engine, and never written to."""

    __slots__ = ()

    @property
    def place(self) -> Place:
        """Where it is kept."""
        return Place(self.block.number, 0, (), (), self._array.dtype)


for _name in "add sub mul truediv floordiv mod pow and or xor lshift rshift".split():
    setattr(TapedScalar, f"__i{_name}__", lambda self, other: NotImplemented)


# -- operands that NumPy writes over ---------------------------------------------------------------
# Of operands in different memory orders NumPy makes a result in C order. But where an operator
# meets a large array that nobody else holds, as in ``(x - y) * z``, it writes over that array and
# keeps its order; and a later sum runs in that order. So the same must be done here.

REUSED = 1 << 18  # bytes from which NumPy does it


class _Probe:
    """Tells how many references an operand has that nobody else holds."""

    def __sub__(self, other: Any) -> int:
        return sys.getrefcount(self)


def _telling() -> bool:
    """Tell whether this interpreter's count tells such an operand from one that has a name."""
    held = _Probe()
    return held - 1 > UNHELD


UNHELD = _Probe() - 1
TELLING = _telling()


def _operator(ufunc: np.ufunc, commutes: bool) -> Callable[..., Any]:
    def apply(self: Taped, other: Any) -> Any:
        if sys.getrefcount(self) <= UNHELD and _order_matters(self, other):
            return record(ufunc, self, other, out=self)
        if commutes and sys.getrefcount(other) <= UNHELD and _order_matters(other, self):
            return record(ufunc, self, other, out=other)
        return ufunc(self, other)

    def unsure(self: Taped, other: Any) -> Any:
        if state.tape and (_order_matters(self, other) or _order_matters(other, self)):
            state.tape.refuse("it computes with large arrays of different memory orders")
        return ufunc(self, other)

    return apply if TELLING else unsure


def _order_matters(x: Any, y: Any) -> bool:
    """Tell whether NumPy would write over x if nobody held it, and that shows in the result."""
    if not (isinstance(x, Taped) and isinstance(y, Taped)):
        return False
    a, b = x._array, y._array
    own = x.block.root is None and a.flags.owndata and a.nbytes >= REUSED
    alike = a.shape == b.shape and np.result_type(a, b) == a.dtype
    return bool(own and alike and a.strides != b.strides)


for _name, _ufunc, _commutes in (
    ("add", np.add, True), ("sub", np.subtract, False),
    ("mul", np.multiply, True), ("truediv", np.divide, False),
):  # fmt: skip
    setattr(Taped, f"__{_name}__", _operator(_ufunc, _commutes))


def _is_scalar(x: Any) -> bool:
    return isinstance(x, TapedScalar | np.generic)


def _power(x: Any, y: Any, scalar_x: bool, scalar_y: bool) -> Any:
    x = np.asarray(x)[()] if scalar_x else x
    return x ** (np.asarray(y)[()] if scalar_y else y)


def expect(x: Any, answer: bool) -> None:
    """Raise unless a question has the answer that it had."""
    if bool(x) is not answer:
        raise Unexpected


class Unexpected(Exception):
    """A value by which Python decided is another one."""


class Library:
    """NumPy for recorded arrays: they hear of its calls themselves, but for those that make one."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name)
        return functools.partial(record, function) if name in MAKERS else function

    def one_call(self, kernel: Callable[..., bool], reads: int) -> Callable[..., bool]:
        """Return a kernel of `reads` arrays, and of others that it writes, as one call on the tape.

        It returns whether it covers these arrays; nothing is recorded if it does not.
        """

        def computed(*arrays: Any, out: tuple[Any, ...]) -> None:
            if not kernel(*arrays, *out):
                raise ValueError("a compiled kernel met arrays that it does not cover")

        computed.kernel = kernel  # type: ignore[attr-defined]

        def run(*arrays: Any) -> bool:
            if not kernel(*mapped(real, arrays)):
                return False
            record(computed, *arrays[:reads], out=arrays[reads:])
            return True

        return run


MAKERS = frozenset(
    "array asarray ascontiguousarray empty empty_like zeros zeros_like ones ones_like full "
    "full_like arange eye".split()
)
UNSET = {np.empty, np.empty_like}  # memory without values
VIEWS = frozenset(  # what may return the memory of an argument
    "__getattribute__ array asarray ascontiguousarray astype broadcast_arrays broadcast_to "
    "diagonal expand_dims flip fliplr flipud getitem moveaxis ravel reshape split squeeze "
    "swapaxes transpose view".split()
)
ATTRIBUTES = frozenset("device dtype flags itemsize nbytes ndim shape size strides".split())
SHAPES = {np.shape, np.ndim, np.size, np.result_type}  # what reads no values
SIZED_BY_VALUES = {np.nonzero, np.flatnonzero, np.argwhere, np.unique, np.compress, np.extract}
backend.register(Taped, Library())


# -- random numbers --------------------------------------------------------------------------------


class TapedGenerator(np.random.Generator):
    """A random generator whose draws are written down, to be drawn again at each replay."""

    def __init__(self, real: np.random.Generator) -> None:
        super().__init__(real.bit_generator)
        self.real = real
        self.looked = False  # whether its state was read or set

    @property
    def bit_generator(self) -> Any:
        """What the numbers come from; a tape cannot tell what is done with it."""
        self.looked = True
        return self.real.bit_generator


def _draw(name: str) -> Callable[..., Any]:
    @functools.wraps(getattr(np.random.Generator, name))
    def draw(self: TapedGenerator, *args: Any, **keywords: Any) -> Any:
        if state.tape:
            state.tape.generators[id(self.real)] = self.real
        return record(getattr(self.real, name), *args, **keywords)

    return draw


for _name in dir(np.random.Generator):
    if not _name.startswith("_") and _name not in ("bit_generator", "spawn"):
        setattr(TapedGenerator, _name, _draw(_name))
