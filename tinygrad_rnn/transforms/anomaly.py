"""Find the operation that made the first nan or infinite number.

`detect_anomaly` gives its thread a `Watcher`. Operations (engine/codegen.py) and the backward pass
(engine/graph.py) let the watcher check their results while there is one.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from .._util.contexts import reusable_context
from .._util.user_code import GENERATED, PACKAGE, location, shown
from ..engine import backend
from ..engine.codegen import OpDefinition, OpNode
from ..engine.grad_mode import thread, watching
from ..engine.graph import Node, Parents
from ..engine.pending import DeferredMatmul, OutputGradients, SparseGradient
from ..engine.tensor import Tensor
from ..errors import AnomalyError
from .fuse import Symbolic, eager

_PLUMBING = (*(f"{PACKAGE}{part}" for part in ("_util", "engine", "tensors")), __file__, *GENERATED)
_called_at: weakref.WeakKeyDictionary[Node, str] = weakref.WeakKeyDictionary()


@reusable_context
def detect_anomaly() -> Iterator[None]:
    """Raise where an operation makes the first nan or infinite number, forward or backward.

    A context manager, or a decorator; for this thread alone.

    Raises
    ------
    AnomalyError
        In the block: it names the operation, the shapes, and, for a backward pass, the line that
        called the operation (if it was called in the block too).

    Notes
    -----
    An operation may pass on an infinite number that is among its arguments (-inf masks a softmax);
    a nan among its arguments is an error. Every result is copied to the host, so a block is slow,
    most of all on a GPU. Outside of a block nothing is checked. NumPy's warnings of invalid values,
    divisions by zero and overflows are disabled in the block.

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
    before = thread.watcher
    watching.append(None)
    try:
        thread.watcher = Watcher()
        # Without fusing, the operation itself is named; the error says more than a warning.
        with eager(), np.errstate(all="ignore"):
            yield
    finally:
        thread.watcher = before
        watching.pop()


class Watcher:
    """Checks the results of a thread's operations; `backward_pass` checks their gradients."""

    def check_result(self, definition: OpDefinition, result: Tensor, given: Sequence[Any]) -> None:
        """Check the result of an operation; note which line called it."""
        _check(definition.title, "its result", [result._data], given)
        if result._node is not None:
            _called_at[result._node] = f" (called at {_caller()})"

    def backward_pass(self, roots: Sequence[tuple[Node, Any]]) -> BackwardPass:
        """Return an object that checks the gradients of one backward pass."""
        return BackwardPass(roots)


class BackwardPass:
    """Checks the gradients of one backward pass: the results of each vjp, and the sums."""

    def __init__(self, roots: Sequence[tuple[Node, Any]]) -> None:
        counts = {node: _count(_arrays(grad)) for node, grad in roots}
        self.nan = {node for node, (nan, _) in counts.items() if nan}
        self.infinite = {node for node, (_, infinite) in counts.items() if infinite}

    def vjp(self, node: Node, F: Any, grad: Any, parents: Parents, retain: bool) -> Sequence[Any]:
        """Check the gradient of a node, and the gradients of `parents`, if there are any.

        A nan is an error at once. So if the sum of the contributions to a gradient is nan, the
        addition made it, unless the pass started with a nan there. If the sum is infinite, the
        addition made it, unless a contribution was infinite.
        """
        given = list(_arrays(grad))
        nan, infinite = _count(given)
        if (nan and node not in self.nan) or (infinite and node not in self.infinite):
            raise _made("adding up the gradients of several uses", "their sum", given)
        if not parents:
            return ()
        name = f"backward of {node.name}{_called_at.get(node, '')}"
        try:
            grads = node.vjp(F, grad, parents, retain)
        except AnomalyError as error:  # of an operation that the vjp called, under create_graph
            raise AnomalyError(f"{name}: {error}") from None
        differentiable = node.definition.differentiable if isinstance(node, OpNode) else []
        for i, (parent, made) in enumerate(zip(parents, grads, strict=True)):
            if parent is not None and made is not None:
                argument = differentiable[i] if i < len(differentiable) else f"argument {i}"
                if _check(name, f"the gradient by {argument}", list(_arrays(made)), given):
                    self.infinite.add(parent)
        return grads


def _arrays(grad: Any) -> Iterator[Any]:
    """Yield the arrays of a gradient, pending or not."""
    if isinstance(grad, OutputGradients):
        for part in grad.values():
            yield from _arrays(part)
    elif isinstance(grad, SparseGradient):
        yield from map(_array, grad.grads)
    elif isinstance(grad, DeferredMatmul):
        parts = [*grad.lefts, *grad.rights, grad.product]
        yield from (_array(part) for part in parts if part is not None)
    else:
        yield _array(grad)


def _array(grad: Any) -> Any:
    return grad._data if isinstance(grad, Tensor) else grad


def _check(name: str, place: str, made: Sequence[Any], given: Sequence[Any]) -> bool:
    """Return whether `made` has infinite numbers, passed on from `given`.

    Raise if it has a nan, or infinite numbers and `given` has none.
    """
    nan, infinite = _count(made)
    if not nan and not infinite:
        return False
    nan_before, infinite_before = _count(given)
    if infinite_before and not nan:
        return True
    if nan_before:
        raise AnomalyError(
            f"{name} was given nan, {nan_before} elements of {_shapes(given)}: it was made before "
            "the block of detect_anomaly(), is in the data, or is the sum of several gradients"
        )
    raise _made(name, place, made, given)


def _made(name: str, place: str, made: Sequence[Any], given: Sequence[Any] = ()) -> AnomalyError:
    nan, infinite = _count(made)
    what, count = ("nan", nan) if nan else ("inf", infinite)
    source = f", from {_shapes(given)}" if given else ""
    size = sum(x.size for x in made)
    return AnomalyError(f"{name} made {what}, {count} of {size} elements of {place}{source}")


def _shapes(arrays: Sequence[Any]) -> str:
    return " and ".join(str(x.shape) for x in arrays if hasattr(x, "shape"))


def _count(values: Iterable[Any]) -> tuple[int, int]:
    """Return how many nans and how many infinite numbers there are in arrays and floats."""
    nan = infinite = 0
    for x in values:
        if x.__class__ is float:
            nan += x != x
            infinite += x in (np.inf, -np.inf)
        elif backend.is_array(x) and not isinstance(x, Symbolic) and x.dtype.kind == "f":
            xp = backend.module_of(x)
            nan += int(xp.isnan(x).sum().item())
            infinite += int(xp.isinf(x).sum().item())
    return nan, infinite


def _caller() -> str:
    """Return the user's line that is running, and the function of this library that it called."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PLUMBING):
        frame = frame.f_back
    ours = frame is not None and frame.f_code.co_filename.startswith(PACKAGE)
    return (shown(location()) or "nowhere") + (f", in {frame.f_code.co_qualname}" if ours else "")
