"""Functions as CUDA graphs, such as a training step: `tinygrad_rnn.cuda.graph`.

A function is captured at its third call with the same arguments, up to the values of arrays. A
later call copies the arguments into the arrays that the graph reads, starts the graph, and copies
the results. All else that Python has done in the captured call is written down: the gradients of
leaves, the versions of arrays, and the states of random generators.

The graph is used while all that the function reaches are the same objects (`reached_values`).
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ... import random as tg_random
from ..._util.api_hints import class_name
from ..._util.nested import leaves, map_nested
from ..._util.user_code import GENERATED, PACKAGE, raised_in, shown, stacklevel
from ...engine import backend
from ...engine.grad_mode import is_grad_enabled, thread
from ...engine.ops import kernels
from ...engine.tensor import Tensor, wrap
from ...errors import ArgumentError, DTypeError, ExecutorWarning, ShapeError
from ...transforms.fuse import mode
from ..reached_values import Reached
from . import capture, graphs, module, random_numbers, tables

KEPT = 8  # graphs of a function; the one that was not used for the longest time goes first
MOST_CAPTURES = 16  # without ten calls of graphs for each
HINTS = {  # by a word of CuPy's message
    "D2H": "it reads a value from the device",
    "H2D": "it copies an array of the host to the device",
    "cuBLAS": "it computes a product that a graph cannot record",
}
ADVANCES = "it takes the next element of an iterator, or draws random numbers on the host"
CONSTANTS = bool, int, float, str, bytes, type(None), np.dtype


class Refused(Exception):
    """The function cannot be a graph, for the reason in the message."""


class _EarlierGradient(Tensor):
    """A gradient of before the call: a graph that added to it would read other memory each time."""

    __slots__ = ()


def _refuse(gradient: Any) -> Any:
    raise Refused("it adds to the gradients of earlier calls: begin with zero_grad()")


setattr(_EarlierGradient, "_data", property(_refuse))  # noqa: B010 - a slot, for type checkers


class _Layout(NamedTuple):
    """The shape, dtype and memory order of a contiguous array."""

    shape: tuple[int, ...]
    dtype: Any
    fortran: bool

    @classmethod
    def of(cls, x: Any) -> _Layout:
        """Return the layout of an array; C order if it is not contiguous."""
        flags = x.flags
        return cls(x.shape, x.dtype, bool(flags.f_contiguous and not flags.c_contiguous))

    def empty(self, xp: Any) -> Any:
        """Return an array of this layout, uninitialized."""
        order = self.shape[::-1] if self.fortran else self.shape
        made = xp.empty(order, dtype=self.dtype)
        return made.T if self.fortran else made


class _Before:
    """A Tensor before the capture, in which a mark replaces the gradient of its leaf.

    `always`: also without a gradient.
    """

    def __init__(self, tensor: Tensor, always: bool) -> None:
        self.tensor, self.version = tensor, _version(tensor)
        leaf: Any = getattr(tensor, "_leaf", None)
        if leaf is not None and leaf.grad.__class__ is _EarlierGradient:
            leaf = None  # another Tensor with the same leaf
        self.leaf, self.mark = leaf, None
        if leaf is not None:
            self.grad = leaf.grad
            if always or leaf.grad is not None:
                leaf.grad = self.mark = object.__new__(_EarlierGradient)
                self.mark._node = self.mark._version = None

    def has_none(self) -> bool:
        """Tell whether its leaf has no gradient, and no mark."""
        return self.leaf is not None and self.mark is None

    def is_written(self) -> bool:
        """Tell whether its array was written to."""
        return _version(self.tensor) != self.version

    def has_gradient(self) -> bool:
        """Tell whether its gradient was set, to None or another one."""
        return self.leaf is not None and self.leaf.grad is not self.mark

    def is_changed(self) -> bool:
        """Tell whether it or its gradient has other values."""
        return self.is_written() or (self.has_gradient() and self.leaf.grad is not None)

    def restore(self) -> None:
        """Put the gradient back."""
        if self.leaf is not None:
            self.leaf.grad = self.grad


class StepGraph:
    """A captured function.

    Parameters
    ----------
    function : callable
        The function; it has been called with such arguments before, so that all kernels are loaded.
    xp : module
        CuPy.
    inputs : list of _Layout
        Those of the Tensors among its arguments, which are on fixed memory in the graph.
    rebuild : callable
        Returns the arguments with other Tensors.
    any_gradients : bool
        Whether it is for calls with and without gradients of earlier calls. If not, it is for calls
        in which the same leaves have none: the function may tell these apart, and add to others.

    Raises
    ------
    Refused
        If it does anything that the graph would not repeat. Python's values are as before.
    """

    def __init__(
        self, function: Any, xp: Any, inputs: list[_Layout], rebuild: Any, any_gradients: bool
    ) -> None:
        self.module = xp
        self.reached = Reached(function)
        if self.reached.too_many:
            raise Refused("it reaches too many objects")
        self.fixed = [x.empty(xp) for x in inputs]
        given = [wrap(x, None, [0]) for x in self.fixed]
        args, keywords = rebuild(given)
        self.capture = capture.Capture(xp, random_numbers.STATE_BYTES)
        self.generators: list[Any] = [None, *self.reached.generators]  # None: the library's
        states = self._states()
        before = [_Before(x, any_gradients) for x in self.reached.tensors]
        self._without_gradient = [x.leaf for x in before if x.has_none()]
        positions = self.reached.positions()
        with tg_random.record_states():
            try:
                self.graph, self.results = self.capture.run(
                    lambda: self._dense(function(*args, **keywords))
                )
                self._states()
                if any(x.tensor.device == "cpu" and x.is_changed() for x in before):
                    raise Refused("it computes on the CPU")
                self._check(given)
                if self.reached.positions() != positions:
                    raise Refused(ADVANCES)
            except BaseException:
                self.reached.restore()
                raise
            finally:
                tg_random.restore(states)
                self.gradients = [(x.leaf, x.leaf.grad) for x in before if x.has_gradient()]
                self.written = [x.tensor for x in before if x.is_written()]
                self._memory = {id(x._version) for x in self.written}
                for x in before:
                    x.restore()

    def _dense(self, result: Any) -> Any:
        """Return a result with contiguous arrays in place of Tensors."""

        def array_of(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            array = x._data
            if backend.module_of(array) is not self.module:
                raise Refused("it returns a Tensor of the CPU")
            return _Array(array if tables.is_dense(array) else self.module.ascontiguousarray(array))

        return map_nested(array_of, result)

    def _states(self) -> dict[Any, Any]:
        """Return the states of generators, after a check that only draws in the graph set them."""
        states: dict[Any, Any] = {}
        for rng in self.generators:
            states[rng] = tg_random.generator(rng).bit_generator.state
            self.capture.check_generator(tg_random.generator(rng).bit_generator, states[rng])
        return states

    def _check(self, given: Sequence[Tensor]) -> None:
        """Raise if the function has changed anything that a graph does not change again."""
        if any(_version(x) for x in given):
            raise Refused("it writes to an argument")
        if any(x._node is not None for x in given):
            raise Refused("it sets requires_grad of an argument")
        name = self.reached.changed(everything=True)
        if name:
            raise Refused(f"it changes {name!r}, which a graph does not repeat")
        for x in leaves(self.results):
            if not isinstance(x, _Array | bool | int | float | str | None):
                raise Refused(f"it returns a {type(x).__name__}")

    def finds_gradients(self) -> bool:
        """Tell whether a leaf has a gradient that had none in the capture."""
        return any(leaf.grad is not None for leaf in self._without_gradient)

    def writes_to(self, arguments: Sequence[Tensor]) -> bool:
        """Tell whether it writes to the memory of an argument, of which the graph has a copy."""
        return any(id(x._version) in self._memory for x in arguments)

    def run(self, arguments: Sequence[Tensor]) -> Any:
        """Start the graph with Tensors; return the results."""
        xp = self.module
        given = zip(self.fixed, arguments, strict=True)
        copy(xp, [(to, tables.ordered_as(to, x._data, xp)) for to, x in given])
        for rng in self.generators:  # as before each draw
            tg_random.generator(rng)
        self.capture.next_states(random_numbers.packed)
        self.graph.launch()
        copied: list[tuple[Any, Any]] = []

        def result_of(x: Any) -> Any:
            if x.__class__ is not _Array:
                return x
            array = _Layout.of(x.array).empty(xp)
            copied.append((array, x.array))
            return wrap(array, None, [0])

        found = map_nested(result_of, self.results)
        copy(xp, copied)
        for leaf, grad in self.gradients:
            leaf.grad = grad
            if grad is not None:
                grad._bump()
        for x in self.written:
            x._bump()
        return found


class _Array:
    """An array of the memory of a graph."""

    __slots__ = ("array",)

    def __init__(self, array: Any) -> None:
        self.array = array


def _version(x: Tensor) -> int:
    return 0 if x._version is None else x._version[0]


class _Memory(NamedTuple):
    """The memory of a contiguous array, as a row of a table."""

    size: int  # bytes
    data: Any


def copy(xp: Any, pairs: Sequence[tuple[Any, Any]]) -> None:
    """Copy arrays to others of the same memory order, in one launch."""
    rows = [[_Memory(x.nbytes, x.data) for x in pair] for pair in pairs if pair[0].size]
    if rows:
        for blocks, table in tables.tables(rows):
            _copies(xp)((blocks,), (module.THREADS,), (table,))


def _copies(xp: Any) -> Any:
    return module.kernel(xp, tables.text_of("copies", np.dtype("float32"), 2), "copies")


class Graphs:
    """The graphs of one function and one thread, by the structure of the arguments."""

    def __init__(self, function: Any, name: str) -> None:
        self.function, self.name = function, name
        self.lock = threading.RLock()
        self.found: OrderedDict[Any, StepGraph | str] = OrderedDict()  # or why there is none
        self.calls: OrderedDict[Any, int] = OrderedDict()
        self.captures = self.runs = 0
        self.any_gradients = False

    def run(self, args: Any, keywords: Any) -> tuple[Any, str]:
        """Return the results and "", or NotImplemented and the reason against a graph."""
        xp = backend.gpu_module()
        given: list[Tensor] = []
        try:
            key = _key((args, keywords), given, f"cuda:{xp.cuda.Device().id}")
        except Refused as error:
            return NotImplemented, str(error)
        modes = is_grad_enabled(), backend.get_default_dtype(), backend.default_device()
        key = key, graphs.place_of(xp), modes
        with self.lock:
            found = self.found.get(key)
            if isinstance(found, StepGraph) and (changed := self._changed(found)):
                del self.found[key]
                self.calls[key] = graphs.PLAIN_CALLS  # of which this one is the last
                return self._run_plain(key, changed, args, keywords)
            if found is None:
                count = self.calls[key] = self.calls.pop(key, 0) + 1
                if len(self.calls) > 4 * KEPT:
                    self.calls.popitem(last=False)
                if count == graphs.PLAIN_CALLS:
                    return self._run_plain(key, _plain(count), args, keywords)
                found = self._capture(xp, count, key, given, args, keywords)
            if isinstance(found, str):
                return NotImplemented, found
            if found.writes_to(given):
                return NotImplemented, "it writes to the memory of an argument"
            self.found.move_to_end(key)
            self.runs += 1
            return found.run(given), ""

    def _changed(self, found: StepGraph) -> str:
        """Return why a graph is not for this call; "" if it is."""
        name = found.reached.changed()
        if not name and found.finds_gradients():
            self.any_gradients = True
            return "there are gradients of earlier calls"
        return f"{name!r} has changed" if name else ""

    def _run_plain(self, key: Any, reason: str, args: Any, keywords: Any) -> tuple[Any, str]:
        """Call the function, and notice changes that a capture cannot undo; return the reason."""
        reached = Reached(self.function)
        positions = reached.positions()
        result = self.function(*args, **keywords)
        if reached.positions() != positions:
            reason = self.found[key] = self._warn(ADVANCES)
        return result, reason

    def _warn(self, reason: str) -> str:
        warnings.warn(
            f"cuda.graph: {self.name} runs as separate operations: {reason}",
            ExecutorWarning,
            stacklevel=stacklevel(),
        )
        return reason

    def _capture(
        self, xp: Any, count: int, key: Any, given: list[Tensor], args: Any, keywords: Any
    ) -> StepGraph | str:
        if not given and all(x.device == "cpu" for x in Reached(self.function).tensors):
            return "it computes on the CPU"
        if count < graphs.PLAIN_CALLS:
            return _plain(count)
        if self.captures >= MOST_CAPTURES and self.runs < 10 * self.captures:
            return "the arguments or other values change too often: make them Tensors"
        self.captures += 1
        while len(self.found) >= KEPT:
            self.found.popitem(last=False)
        inputs = [_Layout.of(x._data) for x in given]

        def rebuild(tensors: Sequence[Tensor]) -> Any:
            rest = iter(tensors)
            return map_nested(
                lambda x: next(rest) if isinstance(x, Tensor) else x, (args, keywords)
            )

        _copies(xp)  # loaded before the capture, as all kernels are
        made: StepGraph | str
        try:
            made = StepGraph(self.function, xp, inputs, rebuild, self.any_gradients)
        except (ShapeError, ArgumentError, DTypeError):
            raise  # of the function
        except Exception as error:  # of CUDA, cuBLAS and CuPy, of unrelated classes
            made = " ".join(str(error).split())[:500]
            made = next((f"{hint}: {made}" for word, hint in HINTS.items() if word in made), made)
            inside = PACKAGE, *GENERATED, *backend.CUPY, os.path.dirname(xp.__file__)
            line = shown(raised_in(error, inside))
            if made == str(error) and not isinstance(error, Refused):
                made = f"{type(error).__name__}: {made}"
            made = self._warn(f"{made} ({line})" if line else made)
        self.found[key] = made
        return made


def _plain(count: int) -> str:
    return f"call {count} of {graphs.PLAIN_CALLS} before the graph is captured"


def _key(value: Any, tensors: list[Tensor], here: str) -> Any:
    """Return the structure of nested arguments; append their Tensors in order."""

    def key_of(x: Any) -> Any:
        if isinstance(x, Tensor):
            if x.device != here:
                raise Refused(f"an argument is on {x.device}, this thread computes on {here}")
            tensors.append(x)
            return _Layout.of(x._data)
        if isinstance(x, tuple | list):
            return type(x), *map(key_of, x)
        if isinstance(x, dict):
            return type(x), *((name, key_of(y)) for name, y in x.items())
        if not isinstance(x, CONSTANTS):
            raise Refused(f"an argument is a {class_name(x)}: make it a Tensor of the device")
        return type(x), repr(x) if isinstance(x, float) else x  # 0.0 is not -0.0

    return key_of(value)


def run_graph(graphed: Any, args: Any, keywords: Any) -> tuple[Any, str]:
    """Run a function of `tinygrad_rnn.cuda.graph`; see `Graphs.run`."""
    if capture.current() is not None:
        return NotImplemented, "it is part of a graph"
    if mode.eager or thread.watcher is not None:
        return NotImplemented, "every operation runs separately: eager() or detect_anomaly()"
    if not module.enabled("graphs"):
        return NotImplemented, module.reason()
    own, here = graphed._graphs, threading.current_thread()
    if here not in own:
        own[here] = Graphs(graphed.__wrapped__, graphed.__name__)
    return own[here].run(args, keywords)


kernels.on_gpu["run_graph"] = run_graph
