"""Find the operation that made the first nan or infinite number.

While a block of `detect_anomaly` runs, the functions that operations call are exchanged for
watching ones: the forward of every primitive, what makes its node, the `vjp` of every kind of
node, and what adds gradients up. Outside such a block nothing is left of it, and nothing is paid.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._util.contexts import reusable_context
from ..engine import backend
from ..engine.codegen import OpDefinition, OpNode
from ..engine.graph import Node
from ..engine.pending import Accumulator, DeferredMatmul, OutputGradients, SparseGradient
from ..engine.tensor import Tensor
from ..errors import AnomalyError
from .fuse import Symbolic, eager

_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
_PLUMBING = (f"{_PACKAGE}engine", f"{_PACKAGE}tensors", __file__, "<primitive ")
_lock = threading.Lock()
_undo: list[Callable[[], None]] = []  # what brings the exchanged functions back
_blocks: list[object] = []  # one for each block that runs, in all threads
_called: weakref.WeakKeyDictionary[Node, str] = weakref.WeakKeyDictionary()


class _Mode(threading.local):
    watching = False


_mode = _Mode()


@reusable_context
def detect_anomaly() -> Iterator[None]:
    """Raise where an operation makes the first nan or infinite number, forward or backward.

    A context manager, or a decorator; for this thread alone.

    Raises
    ------
    AnomalyError
        In the block: it names the operation, the shapes, and, for a backward pass, where the
        operation was called (if that was in the block too).

    Notes
    -----
    An operation that is given an infinite number may pass it on (-inf masks a softmax); a nan may
    not even come in. Every result is read back, so a block is slow, the more so on a GPU; outside
    of it nothing is checked and nothing is slower.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([1.0, 0.0], requires_grad=True)
    >>> with tg.detect_anomaly():  # doctest: +ELLIPSIS, +NORMALIZE_WHITESPACE
    ...     (tg.sqrt(x) * 2).sum().backward()
    Traceback (most recent call last):
        ...
    tinygrad_rnn.errors.AnomalyError: backward of sqrt (called at ...:2) made inf,
    1 of 2 elements of the gradient by x, from (2,)
    """
    before, own = _mode.watching, object()
    try:
        _enter(own)
        _mode.watching = True
        with eager():  # so that the very operation is named
            yield
    finally:
        _leave(own)
        _mode.watching = before


# -- exchanging functions --------------------------------------------------------------------------


def _enter(own: object) -> None:
    with _lock:
        _blocks.append(own)
        if len(_blocks) == 1:
            _replace(OpDefinition, "operation", _watched_operation)
            for kind in _kinds(Node):
                _watch(kind)
            for pending in (SparseGradient, DeferredMatmul, Accumulator):
                _replace(pending, "total", _watched_total)
            _replace(Accumulator, "add", _watched_add)


def _leave(own: object) -> None:
    with _lock:
        if own in _blocks:  # not if an interrupt came before
            _blocks.remove(own)
        while _undo and not _blocks:
            _undo.pop()()


def _kinds(kind: type) -> Iterator[type]:
    """Yield a class and all that are made of it."""
    yield kind
    subs: list[type] = kind.__subclasses__()
    for sub in subs:
        yield from _kinds(sub)


def _replace(owner: Any, name: str, watched: Callable[[Any], Any]) -> None:
    before = vars(owner)[name]
    _undo.append(lambda: setattr(owner, name, before))
    setattr(owner, name, watched(before))


def _watch(kind: type) -> None:
    """Exchange what the nodes of a class run; for a primitive's, also what its operation calls."""
    scope = None
    if issubclass(kind, OpNode) and hasattr(kind, "definition"):
        scope = kind.vjp.__globals__  # of the operation, too
    if "vjp" in vars(kind):
        _replace(kind, "vjp", _watched_pull)
    if scope is not None:
        before = {"forward": scope["forward"], "new": scope["new"]}
        _undo.append(lambda: scope.update(before))
        scope["forward"] = _watched_forward(kind.name, before["forward"])  # type: ignore[attr-defined]
        scope["new"] = _watched_new(before["new"])


def _watched_operation(define: Callable[[OpDefinition], Any]) -> Callable[[OpDefinition], Any]:
    """Watch a primitive that is defined inside the block."""

    @functools.wraps(define)
    def operation(definition: OpDefinition) -> Any:
        defined = define(definition)
        _watch(defined.__globals__["OpNode"])
        return defined

    return operation


# -- watching --------------------------------------------------------------------------------------


def _watched_forward(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def watched(xp: Any, *arrays: Any, **params: Any) -> Any:
        if not _mode.watching:
            return forward(xp, *arrays, **params)
        with np.errstate(all="ignore"):  # the error below says more than the warning
            out = forward(xp, *arrays, **params)
        _check(name, "its result", [out], [*arrays, *params.values()])
        return out

    return watched


def _watched_new(new: Callable[[type], Any]) -> Callable[[type], Any]:
    def watched(kind: type) -> Any:
        made = new(kind)
        if _mode.watching and isinstance(made, Node):
            _called[made] = f" (called at {_place()})"
        return made

    return watched


def _watched_pull(vjp: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(vjp)
    def watched(node: Node, F: Any, grad: Any, parents: Any, retain: bool) -> Any:
        if not _mode.watching:
            return vjp(node, F, grad, parents, retain)
        name = f"backward of {node.name}{_called.get(node, '')}"
        try:
            with np.errstate(all="ignore"):
                grads = vjp(node, F, grad, parents, retain)
        except AnomalyError as error:  # of an operation that the vjp called, under create_graph
            raise AnomalyError(f"{name}: {error}") from None
        differentiable = node.definition.differentiable if isinstance(node, OpNode) else []
        for i, (parent, given) in enumerate(zip(parents, grads, strict=True)):
            if parent is not None and given is not None:
                named = differentiable[i] if i < len(differentiable) else f"argument {i}"
                place = f"the gradient by {named}"
                _check(name, place, list(_arrays(given)), list(_arrays(grad)))
        return grads

    return watched


def _watched_total(total: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(total)
    def watched(pending: Any, F: Any, joined: Any) -> Any:
        if not _mode.watching:
            return total(pending, F, joined)
        given = list(_arrays(pending))
        with np.errstate(all="ignore"):
            grad = total(pending, F, joined)
        _check("adding up the gradients of several uses", "their sum", list(_arrays(grad)), given)
        return grad

    return watched


def _watched_add(add: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(add)
    def watched(held: Accumulator, grad: Any, F: Any = None) -> Any:
        if not _mode.watching:
            return add(held, grad, F)
        before = [*map(backend.copy, _arrays(held)), *_arrays(grad)]  # it adds in place
        with np.errstate(all="ignore"):
            add(held, grad, F)
        _check("adding up the gradients of several uses", "their sum", list(_arrays(held)), before)

    return watched


def _arrays(grad: Any) -> Iterator[Any]:
    """Yield the arrays of a gradient, be it pending or not."""
    if isinstance(grad, Tensor):
        yield grad._data
    elif isinstance(grad, OutputGradients):
        for piece in grad.values():
            yield from _arrays(piece)
    elif isinstance(grad, SparseGradient | DeferredMatmul | Accumulator):
        for name in ("grads", "lefts", "rights", "rest"):
            for part in getattr(grad, name, ()):
                yield from _arrays(part)
        for name in ("done", "dense"):
            if getattr(grad, name, None) is not None:
                yield from _arrays(getattr(grad, name))
    else:
        yield grad


def _check(name: str, place: str, made: Sequence[Any], given: Sequence[Any]) -> None:
    """Raise if there is a nan in `made`, or an infinite number that did not come in."""
    nan, infinite = _count(made)
    if not nan and not infinite:
        return
    nan_before, infinite_before = _count(given)
    if infinite_before and not nan:
        return
    shapes = " and ".join(str(x.shape) for x in given if hasattr(x, "shape"))
    if nan_before:
        raise AnomalyError(
            f"{name} was given nan, {nan_before} elements of {shapes}: it was made before the "
            "block of detect_anomaly(), is in the data, or is the sum of several gradients"
        )
    what, count = ("nan", nan) if nan else ("inf", infinite)
    size = sum(x.size for x in made)
    raise AnomalyError(f"{name} made {what}, {count} of {size} elements of {place}, from {shapes}")


def _count(arrays: Sequence[Any]) -> tuple[int, int]:
    """Return how many nans and how many infinite numbers there are."""
    nan = infinite = 0
    for x in arrays:
        if x.__class__ is float:
            nan += x != x
            infinite += x in (np.inf, -np.inf)
        elif backend.is_array(x) and not isinstance(x, Symbolic) and x.dtype.kind == "f":
            xp = backend.module_of(x)
            nan += int(xp.isnan(x).sum())
            infinite += int(xp.isinf(x).sum())
    return nan, infinite


def _place() -> str:
    """Return the line of the user's that runs, and the last function of ours on the way to here."""
    frame: Any = sys._getframe(2)
    inside = ""
    while frame is not None and frame.f_code.co_filename.startswith((_PACKAGE, "<primitive ")):
        if not frame.f_code.co_filename.startswith(_PLUMBING):
            inside = inside or f", in {frame.f_code.co_qualname}"
        frame = frame.f_back
    line = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "nowhere"
    return line + inside
