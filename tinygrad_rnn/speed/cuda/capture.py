"""The capture of a whole function as one CUDA graph: all that other files have to know of it.

While a function is captured, `current` of its thread is the `Capture`. Its memory is a pool of its
own, which the graph keeps, so that no later computation gets the addresses of its arrays.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..._util import gpu
from . import cublas

MOST_DRAWS = 256  # random draws in a graph


class Draw(NamedTuple):
    """Random numbers that the graph draws: the state before them is an argument of each launch."""

    source: Any  # a bit generator
    advance: Callable[[dict[str, Any]], dict[str, Any]]


class Capture:
    """A graph of CUDA while it is recorded, and its memory.

    Parameters
    ----------
    module : module
        CuPy.
    state_bytes : int
        The size of the state of a random generator, as the kernels read it.
    """

    def __init__(self, module: Any, state_bytes: int) -> None:
        self.module = module
        self.held: list[Any] = []  # objects whose memory the graph reads
        self.draws: list[Draw] = []
        self.states = module.empty((MOST_DRAWS, state_bytes), dtype=np.uint8)
        self.workspace = module.empty(cublas.WORKSPACE, dtype=np.uint8)
        self._states: dict[int, str] = {}  # of generators, by their numbers
        self._pool = module.cuda.MemoryPool()

    def run(self, function: Callable[[], Any]) -> tuple[Any, Any]:
        """Record the launches of a function; return the graph and the function's result."""
        cuda, products = self.module.cuda, cublas.products(self.module)
        stream = cuda.Stream(non_blocking=True)
        before, products.workspace = products.workspace, self.workspace
        try:
            with cuda.using_allocator(self._pool.malloc), stream, _as_current(self):
                products.begin()
                stream.begin_capture()
                failed = gpu.failures.count
                try:
                    result = function()
                    if gpu.failures.count != failed:
                        raise RuntimeError("it handles an error that only a capture raises")
                except BaseException:
                    with contextlib.suppress(Exception):
                        stream.end_capture()
                    raise
                return stream.end_capture(), result
        finally:
            products.workspace = before
            products.begin()

    def draw(self, source: Any, before: dict[str, Any], advance: Any) -> Any:
        """Return the array on the device from which a kernel reads the state of a generator."""
        number = len(self.draws)
        if number == MOST_DRAWS:
            raise RuntimeError(f"it draws random numbers more than {MOST_DRAWS} times")
        if id(source) not in self._states:
            raise RuntimeError("it draws from a generator that it makes, or that was not found")
        self.check_generator(source, before)
        self.draws.append(Draw(source, advance))
        self._states[id(source)] = str(advance(before))
        return self.states[number]

    def check_generator(self, source: Any, state: dict[str, Any]) -> None:
        """Raise unless a generator has the state in which the draws have left it."""
        if self._states.setdefault(id(source), str(state)) != str(state):
            raise RuntimeError("it sets a random generator to another state")

    def next_states(self, pack: Callable[[dict[str, Any]], Any]) -> None:
        """Draw from the generators, and write the states before each draw to the device."""
        words = []
        for draw in self.draws:
            with draw.source.lock:
                state = dict(draw.source.state)
                words.append(pack(state).view(np.uint8).reshape(-1))
                draw.source.state = draw.advance(state)
        if words:
            self.states[: len(words)] = self.module.asarray(np.stack(words))


class _OfThread(threading.local):
    capture: Capture | None = None


_of_thread = _OfThread()


def current() -> Capture | None:
    """Return the capture of this thread; None if nothing is captured."""
    return _of_thread.capture


@contextlib.contextmanager
def _as_current(capture: Capture) -> Iterator[None]:
    before, _of_thread.capture = _of_thread.capture, capture
    try:
        yield
    finally:
        _of_thread.capture = before
