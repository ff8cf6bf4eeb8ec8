"""Loops as CUDA graphs: captured once for each loop and size, and started as a whole.

The kernels of a graph read the addresses of their arrays from a table on the device, which is
copied there before each start. All other memory belongs to the graph. CuPy refuses to capture its
own products; `cublas` calls the library itself.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from . import cublas, module

PLAIN_CALLS = 2  # before a graph is captured: for a loop that runs once it is not worth it
KEPT = 64  # graphs; the one that was not used for the longest time goes first
OF_THREAD = 2  # the address of the default stream that each thread has of its own

_lock = threading.RLock()
_calls: OrderedDict[Any, int] = OrderedDict()
_graphs: OrderedDict[Any, Graph] = OrderedDict()
_workspaces: dict[Any, Any] = {}


class Graph:
    """A loop on fixed memory."""

    def __init__(self, library: Any, place: Any, memory: Any) -> None:
        self.module, self.place = library, place
        self.memory = memory  # of the loop
        self.table: Any = None
        self.graph: Any = None
        self.reason = ""

    def run(self, table: Any, make: Callable[[], Callable[[Any], None]]) -> str:
        """Run the loop with a table; return why not as a graph.

        The first call makes the body and runs it, which loads all kernels, and then captures it.
        """
        xp = self.module
        with _lock:
            if self.table is None:
                self.table = xp.empty(table.shape, dtype=table.dtype)
            self.table[...] = xp.asarray(table)
            if self.graph is not None:
                self.graph.launch()
                return ""
            body = make()
            body(self.table)
            if not self.reason:
                try:
                    self._capture(body)
                except Exception as error:  # of CUDA and cuBLAS, of unrelated classes
                    text = f"{type(error).__name__}: {error}"
                    self.reason = module.fall_back(RuntimeError(f"CUDA graphs: {text}"), "kernels")
            return self.reason

    def _capture(self, body: Callable[[Any], None]) -> None:
        xp, products = self.module, cublas.products(self.module)
        stream = xp.cuda.Stream(non_blocking=True)
        if self.place not in _workspaces:
            _workspaces[self.place] = xp.empty(cublas.WORKSPACE, dtype="uint8")
        products.workspace = _workspaces[self.place]
        try:
            with stream:
                products.begin()
                stream.begin_capture()
                try:
                    body(self.table)
                except BaseException:
                    with contextlib.suppress(Exception):
                        stream.end_capture()
                    raise
                self.graph = stream.end_capture()
        finally:
            products.workspace = None
            products.begin()


def find(library: Any, key: Any, memory: Callable[[], Any]) -> Graph | str | None:
    """Return the graph of a loop; None before it is worth one; the reason if there can be none.

    `memory` returns the memory of a new graph.
    """
    if not module.enabled("graphs"):
        return module.reason()
    place = place_of(library)
    key = *key, place
    with _lock:
        found = _graphs.get(key)
        if found is not None:
            _graphs.move_to_end(key)
            return found
        _calls[key] = _calls.pop(key, 0) + 1
        if len(_calls) > 4 * KEPT:
            _calls.popitem(last=False)
        if _calls[key] <= PLAIN_CALLS:
            return None
        made = Graph(library, place, memory())
        while len(_graphs) >= KEPT:
            _graphs.popitem(last=False)
        found = _graphs[key] = made
        return found


def place_of(library: Any) -> Any:
    """Return device and stream, whose operations follow one another."""
    cuda = library.cuda
    stream = cuda.get_current_stream().ptr
    return cuda.Device().id, stream, threading.get_ident() if stream == OF_THREAD else 0


def clear() -> None:
    """Release all graphs."""
    with _lock:
        _graphs.clear()
        _calls.clear()
