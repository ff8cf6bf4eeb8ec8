"""The trace: a network runs on example inputs, and each operation that depends on them is recorded.

The inputs are of a subclass of NumPy's arrays, `Traced`, so that the network runs as usual. Each
operation reports its result to the watcher of the thread, a `Tracer`, as under `detect_anomaly`.
Results that do not depend on the inputs remain arrays of NumPy. They are recorded too, since they
may depend on the sizes, as ``table[:len(x)]`` does.

A value that is read (``if``, ``float``, ``numpy()``), or changed outside of an operation, would be
a constant by mistake. So `Traced` refuses to be read, and the tracer refuses an array that it does
not know.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._util.user_code import location, shown
from ...engine import backend
from ...engine.grad_mode import enable_grad, thread, watching
from ...engine.tensor import Tensor, wrap
from ...transforms.fuse import eager

READS = "reads the values of an array (if, float, item, numpy)"
LOSSES = ("cross_entropy", "smoothed_one_hot")
OF_USER = "a primitive of the user's"  # no operation of the library has this name
READ_CURE = "the graph must hold for all inputs: use operations such as tinygrad_rnn.where"


class Refused(BaseException):
    """The network cannot be exported: the reason, the line of the user's code, the cure.

    No subclass of Exception, so that the network does not handle it.
    """

    def __init__(self, reason: str, cure: str = "", line: str | None = None) -> None:
        where = shown(location()) if line is None else line
        super().__init__(f"{reason}{f' ({where})' if where else ''}{': ' * bool(cure)}{cure}")


def _refuse_read(self: Any, *args: Any, **options: Any) -> Any:
    """Refuse: the values of a trace mean nothing."""
    raise Refused(READS, READ_CURE)


class Traced(np.ndarray[Any, Any]):
    """An array of an example run. Its values mean nothing, and cannot be read."""

    def astype(self, dtype: Any, *args: Any, **options: Any) -> Any:
        """Return the values in another dtype; operations convert their arguments by this."""
        if np.dtype(dtype) == self.dtype:
            return self
        converted = super().astype(dtype, *args, **options)
        tracer = thread.watcher
        return tracer.cast(self, converted) if isinstance(tracer, Tracer) else converted

    def __setitem__(self, key: Any, value: Any) -> None:
        tracer = thread.watcher
        if isinstance(tracer, Tracer) and tracer.knows(self):
            raise Refused("writes into an array", "compute a new one, such as with where")
        super().__setitem__(key, value)

    __bool__ = __float__ = __int__ = __index__ = __complex__ = _refuse_read
    item = tolist = get = tobytes = __dlpack__ = __format__ = _refuse_read

    def nonzero(self) -> Any:
        """Refuse: the shape of the result would depend on values."""
        raise Refused(
            "indexes by booleans, with a result whose shape depends on values",
            "use tinygrad_rnn.where",
        )


class _Library:
    """The array library of `Traced`: NumPy. It counts as one that functions are traced with."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def asarray(self, x: Any, dtype: Any = None) -> Any:
        """Return an array; one of the trace stays so."""
        if x.__class__ is Traced and dtype in (None, x.dtype):
            return x
        return np.asarray(x, dtype)

    def array(self, x: Any) -> Any:
        """Return a copy, as `tinygrad_rnn.tensor` does; one of the trace cannot be written to."""
        return x if x.__class__ is Traced else np.array(x)

    def adopt(self, args: Sequence[Any]) -> list[Any]:
        """Return the arguments of an operation: arrays of NumPy may be among them."""
        return list(args)

    def gemm(self, x: Any, y: Any) -> Any:
        """Return the matrix product."""
        return np.matmul(x, y)


backend.register(Traced, _Library(), tracing=True)


# -- records ---------------------------------------------------------------------------------------


class Ref(NamedTuple):
    """A value of the trace, by its number."""

    number: int


class Value(NamedTuple):
    """A value of the trace, without its elements.

    Attributes
    ----------
    shape, dtype
    block : int
        That computes it.
    constant : bool
        Whether it does not depend on the inputs.
    """

    shape: tuple[Any, ...]
    dtype: np.dtype[Any]
    block: int
    constant: bool


class Call(NamedTuple):
    """A recorded operation.

    Attributes
    ----------
    name : str
        Of a primitive, or of a part of a network that is recorded as a whole.
    title : str
        The name that users see.
    inputs : tuple
        A `Ref`, an array or a number each.
    options : dict
        The other arguments.
    outputs : tuple of Ref
        The results.
    block : int
        The block of the trace that it belongs to.
    line : str
        The line of the user's code that calls it.
    """

    name: str
    title: str
    inputs: tuple[Any, ...]
    options: dict[str, Any]
    outputs: tuple[Ref, ...]
    block: int
    line: str


class Body(NamedTuple):
    """The step of a loop: its block, its arguments, and its results."""

    block: int
    arguments: tuple[Ref, ...]
    results: tuple[Any, ...]


class Tracer:
    """The watcher of a thread that records operations.

    Parameters
    ----------
    seed : int
        Of the values of examples. They differ from run to run, so that an array that was computed
        from them unnoticed does too.

    Attributes
    ----------
    values, arrays : list of Value, list of array
        By their numbers, in the order of computation.
    calls : list of Call
        In the order of computation; those of the body of a loop are before the loop.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.values: list[Value] = []
        self.calls: list[Call] = []
        self.arrays: list[Any] = []  # alive, so that ids of arrays stay theirs
        self._numbers: dict[int, int] = {}
        self._open = [0]
        self._blocks = 1

    # -- values

    def new(self, array: Any, constant: bool = False) -> Tensor:
        """Return a new value with the shape and dtype of an array, as a Tensor."""
        data = np.asarray(array).view(np.ndarray if constant else Traced)
        self.arrays.append(data)
        self._numbers[id(data)] = len(self.values)
        self.values.append(Value(data.shape, data.dtype, self._open[-1], constant))
        return wrap(data, None, None)

    def example(self, shape: tuple[int, ...], dtype: Any, like: Any = (0, 1)) -> Any:
        """Return an array of random values; integers are 0, and 1 if that is in `like`."""
        if np.dtype(dtype).kind == "f":
            return self._rng.standard_normal(shape).astype(dtype)
        return self._rng.choice(np.unique(np.clip(like, 0, 1)), shape).astype(dtype)

    def knows(self, array: Any) -> bool:
        """Tell whether an array is a value of the trace."""
        return id(array) in self._numbers

    def ref(self, x: Any) -> Any:
        """Return an argument: a `Ref` for a value of the trace, arrays and numbers unchanged."""
        data = x._data if isinstance(x, Tensor) else x
        number = self._numbers.get(id(data))
        if number is not None and self.values[number].block in self._open:
            return Ref(number)
        if data.__class__ is not Traced:
            return data
        if number is None:
            raise Refused(
                "uses an array that was changed outside of the operations of the library",
                "use functions of tinygrad_rnn and methods of Tensors",
            )
        raise Refused(
            "keeps a value of one step of a loop", "pass it on as an element of the state"
        )

    # -- calls

    def check_result(self, definition: Any, result: Tensor, values: Sequence[Any]) -> None:
        """Record a call of an operation. Operations call this."""
        count = len(values) - len(definition.params)
        inputs, options = values[:count], dict(zip(definition.params, values[count:], strict=True))
        name, constant = definition.name, not _is_traced((inputs, options))
        if name in LOSSES and not constant:
            raise Refused(f"computes a loss, {name}", "export the part of the network before it")
        if definition.user_defined:
            name = OF_USER
        made = self.record(name, inputs, options, [result._data], definition.title, constant)
        result._data = made[0]._data
        if not constant:
            result._version = None

    def record(
        self,
        name: str,
        inputs: Sequence[Any],
        options: dict[str, Any],
        results: Sequence[Any],
        title: str = "",
        constant: bool = False,
    ) -> list[Tensor]:
        """Record a call with example results, and return these as values of the trace."""
        args = tuple([self.ref(x) for x in inputs])
        given = {key: self._refs_in(value) for key, value in options.items()}
        outputs = [self.new(result, constant) for result in results]
        refs = tuple([self.ref(x) for x in outputs])
        line = shown(location())
        self.calls.append(Call(name, title or name, args, given, refs, self._open[-1], line))
        return outputs

    def cast(self, x: Any, converted: Any) -> Any:
        """Record a conversion, and return its result as an array."""
        if not self.knows(x):
            return converted
        options = {"dtype": converted.dtype}
        return self.record("cast", [x], options, [converted], "astype")[0]._data

    def _refs_in(self, value: Any) -> Any:
        if isinstance(value, tuple | list) and not isinstance(value, Ref | Body):
            return tuple([self._refs_in(x) for x in value])
        return self.ref(value)

    def backward_pass(self, roots: Any) -> Any:
        """Refuse: ONNX has no gradients."""
        raise Refused("computes a gradient", "export the part of the network before it")

    # -- blocks and runs

    @contextlib.contextmanager
    def block(self) -> Iterator[int]:
        """Record into a new block, the body of a loop."""
        number, self._blocks = self._blocks, self._blocks + 1
        self._open.append(number)
        try:
            yield number
        finally:
            self._open.remove(number)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Record the operations of this thread."""
        before, thread.watcher = thread.watcher, self
        watching.append(None)
        try:
            # Each operation by itself; with a graph, so that `h += x` writes into no array.
            with eager(), enable_grad(), np.errstate(all="ignore"):
                yield
        finally:
            thread.watcher = before
            watching.pop()


def _is_traced(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_is_traced, value.values()))
    if isinstance(value, tuple | list):
        return any(map(_is_traced, value))
    return value.__class__ is Traced
