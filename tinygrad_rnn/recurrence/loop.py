"""The loop over time: a step function, and how it is run.

`scan` checks its arguments and calls `run`, as recurrent layers do. `run` lets an executor, which
``speed`` registers, make the loop one operation, or calls `in_python`: a loop in which each
operation of each step has a node. Its graph contains the gradient through time; an executor derives
the same gradient from the graph of one step. `reports` tells which way was taken, and why.

Letters: T time steps, B batch.
"""

from __future__ import annotations

import contextlib
import gc
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from .. import tensors as ops
from .._util.api_hints import class_name, explain_errors
from .._util.late import load
from .._util.nested import leaves, map_nested
from ..bptt import scale_gradient
from ..engine import backend
from ..engine.grad_mode import is_grad_enabled, thread
from ..engine.tensor import Tensor, wrap
from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensors import checks
from ..transforms.fuse import mode
from .ragged import RaggedBatch, in_loop_order, ragged_batch, select

State = Any  # a Tensor, or tuples, lists and dicts of Tensors and None
Step = Callable[[State, Any], tuple[State, Any]]


@explain_errors
def scan(
    step: Step,
    state: State,
    xs: Any,
    *,
    reverse: bool = False,
    lengths: Any = None,
    edges: Sequence[float] | None = None,
) -> tuple[State, Any]:
    r"""Call a step function for each time step; carry a state from each call to the next.

    .. math:: (s_t, y_t) = f(s_{t-1}, x_t), \quad t = 0 … T - 1

    Parameters
    ----------
    step : callable
        f: from ``(state, x)`` of one time step to ``(state, y)``. The new state has the structure,
        shapes and dtypes of the old one. y is a Tensor, a structure of Tensors, or None.
    state : Tensor, or tuple, list or dict of states, or None
        The initial state; None for a step without a state.
    xs : Tensor, or tuple, list or dict of Tensors
        The inputs, (T, ...) each. The step receives the same structure with (...) each. A list of T
        Tensors is T inputs, not one: stack it first (``tg.stack``). Without inputs, pass
        ``tg.arange(T)``.
    reverse : bool
        Whether to go from the last time step to the first.
    lengths : sequence of B integers, optional
        The number of steps of each sequence of a ragged batch, from 0 to T. Inputs and outputs are
        (T, B, ...), elements of the state (B, ...).
    edges : sequence of T floats, optional
        :math:`ξ_t`, which multiplies the gradient through the edge between the steps t - 1 and t,
        in either direction; :math:`ξ_0` is for the edge from the initial state. 0 cuts the graph.
        ``strategy.weights(T)`` of `tg.bptt` returns such numbers. Default: 1 everywhere.

    Returns
    -------
    state : same structure as `state`
        The state after the last step; in a ragged batch after each sequence's own last step.
    ys : same structure as y
        The outputs, (T, ...) each, in the order of time also if `reverse`; in a ragged batch zero
        after the end of each sequence.

    Raises
    ------
    ArgumentError
        If `step` does not return a pair, the structure of the state or of y changes, or `lengths`
        or `edges` do not fit the inputs.
    ShapeError, DTypeError
        If inputs differ in T, a state or output changes its shape, or a state its dtype.

    Notes
    -----
    `step` is called once, on Tensors that have a shape but no values, and the loop becomes one
    operation. If that is not possible, because the step branches on a value or has a side effect,
    it is called for each time step; inside ``tg.eager()`` it always is. The results are the same
    up to rounding.

    Forward, `edges` change nothing. An edge after the end of a sequence is not scaled; the edge
    from the initial state always is. In a ragged batch the padding of `xs` is never read: rows of
    ended sequences are computed with the input and state of the longest sequence, and nothing of
    the result is used.

    The name and the signature are those of ``jax.lax.scan``, the idea that of Theano's ``scan``.

    Examples
    --------
    An exponential moving average, as state and as output:

    >>> import tinygrad_rnn as tg
    >>> def step(mean, x):
    ...     mean = 0.5 * mean + 0.5 * x
    ...     return mean, mean
    >>> last, means = tg.scan(step, tg.zeros(1), tg.tensor([[8.0], [2.0], [1.0]]))
    >>> means[:, 0]
    tensor([4., 3., 2.])

    With gradients truncated after every two steps:

    >>> w = tg.tensor(0.5, requires_grad=True)
    >>> xs, edges = tg.ones(6), tg.bptt.Truncated(2).weights(6)
    >>> last, _ = tg.scan(lambda h, x: (w * h + x, None), tg.tensor(0.0), xs, edges=edges)
    >>> last.backward()
    """
    if not callable(step):
        raise ArgumentError(f"scan: step is a function, got a {class_name(step)}")
    if xs is None:
        raise ArgumentError(
            "scan: xs is None, so T is not known: for steps without an input pass "
            "tinygrad_rnn.arange(T)"
        )
    state = map_nested(lambda s: s if s is None else checks.require_tensor(s, "scan: state"), state)
    xs = map_nested(lambda x: checks.require_tensor(x, "scan: xs"), xs)
    steps = _steps_of(xs)
    weights = [1.0] * steps if edges is None else _edge_weights(edges, steps)
    ragged = None
    if lengths is not None:
        batch, device = _batch_of(xs, state)
        ragged = ragged_batch(lengths, steps, batch, device, "scan")
    if ragged is not None:
        xs, weights = map_nested(ragged.fill, xs), weights[: len(ragged.steps)]

    def checked_step(seen: State, x: Any) -> tuple[State, Any]:
        try:
            result = step(seen, x)
        except (TypeError, AttributeError) as error:
            if seen is None:
                error.add_note(
                    "scan: the state is None: if the step needs one, give an initial state, such "
                    "as tinygrad_rnn.zeros(B, H)"
                )
            raise
        _check_pair(result)
        _check_state(result[0], seen)
        return result

    state, ys = run(checked_step, state, xs, weights, ragged, reverse)
    if ragged is not None:
        ys = map_nested(lambda y: y if y is None else _zero_padding(ragged, y), ys)
    return state, ys


def run(
    step: Step,
    state: State,
    xs: Any,
    edges: Sequence[float],
    ragged: RaggedBatch | None = None,
    reverse: bool = False,
    traced: bool = True,
) -> tuple[State, Any]:
    """Run the loop of `scan` on arguments that are valid.

    Parameters
    ----------
    step, state, xs, reverse
        As of `scan`; `xs` without padding (`RaggedBatch.fill`).
    edges : sequence of T floats
        As of `scan`.
    ragged : RaggedBatch, optional
        The masks of the T steps.
    traced : bool
        Whether the loop may become one operation.

    Returns
    -------
    state : same structure as `state`
        The state after the last step.
    ys : same structure as y
        The outputs, (T, ...) each, in the order of time. Those of ended sequences are not zero.
    """
    reason = reason_against(len(edges), traced)
    if not reason:
        try:
            *result, name, reason = _executor.execute(step, state, xs, edges, ragged, reverse)
        except _executor.refused as error:
            report(LoopReport(False, "python", error.reason, *_split(error.line)))
        else:
            report(LoopReport(True, name, reason, None, None))
            new, ys = result
            return new, ys
    else:
        report(LoopReport(False, "python", reason, None, None))
    return in_python(step, state, xs, edges, ragged, reverse)


def in_python(
    step: Step,
    state: State,
    xs: Any,
    edges: Sequence[float],
    ragged: RaggedBatch | None,
    reverse: bool,
) -> tuple[State, Any]:
    """Run the loop of `run` as a loop in Python: each operation of each step has a node."""
    masks = ragged.steps if ragged is not None else [None] * len(edges)
    edge_masks = ragged.edges if ragged is not None else masks
    inputs, state = _unbound(unaliased(xs)), unaliased(state)
    if reverse:
        inputs, masks = inputs[::-1], masks[::-1]
    edges, edge_masks = in_loop_order(edges, reverse), in_loop_order(edge_masks, reverse)
    outputs: list[Any] = []
    with gc_paused():
        for x, edge, edge_mask, mask in zip(inputs, edges, edge_masks, masks, strict=True):
            if edge != 1:
                state = select(edge_mask, scale_gradient(state, edge), state)
            seen = state if mask is None or ragged is None else ragged.fill_state(mask, state)
            new, y = step(seen, x)
            state = new if mask is None else select(mask, new, state)
            outputs.append(y)
    return state, _stacked(outputs[::-1] if reverse else outputs)


def unaliased(state: State) -> State:
    """Return a state that can be written to without changing the tensors that the caller holds.

    While a graph is recorded, ``h += z`` in a step creates a new tensor. Under `no_grad` it writes
    to the array of a leaf, which may be the caller's state, or an output that was returned before.
    So leaves are copied.
    """
    if is_grad_enabled():
        return state
    return map_nested(_unaliased, state)


def _unaliased(x: Tensor | None) -> Tensor | None:
    if x is None or x._version is None:  # the result of an operation
        return x
    return wrap(backend.copy(x._data), None, None)


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """Disable the cyclic GC: a graph has no cycles, and a collection would visit every node."""
    enabled = gc.isenabled()
    try:
        gc.disable()
        yield
    finally:
        if enabled:
            gc.enable()


# -- the loop as one operation ---------------------------------------------------------------------


class LoopReport(NamedTuple):
    """How a loop over time was run: as one operation, or step by step, and why.

    Attributes
    ----------
    traced : bool
        Whether the step was traced, and the loop is one operation.
    executor : str
        ``"c"`` or ``"numpy"``, or ``"python"`` for the loop in Python.
    reason : str
        Why the step was not traced, or why its loop is not in C.
    file, line : str and int, or None
        The line of the user's code that is the reason, if it is known.
    """

    traced: bool
    executor: str
    reason: str = ""
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        if self.traced:
            note = f" ({self.reason})" if self.reason else ""
            return f"one operation, executor {self.executor}{note}"
        where = f" ({self.file}:{self.line})" if self.file else ""
        return f"a loop in Python: {self.reason}{where}"


def ordered(x: Tensor) -> Tensor:
    """Return an input of all steps, (T, B, F), in the memory order that loops read fastest."""
    load()
    row_major = _executor is not None and _executor.row_major(x)
    return x if row_major else ops.feature_major(x)


class _Executor(NamedTuple):
    """How a loop becomes one operation; registered by ``speed``."""

    execute: Callable[..., tuple[State, Any, str, str]]
    refused: type[Exception]  # has a `reason` and a `line` ("path:line")
    row_major: Callable[[Tensor], bool]
    description: Callable[[], str]


class _Reports(threading.local):
    into: list[LoopReport] | None = None


_executor: Any = None
_reports = _Reports()


def register(
    execute: Callable[..., tuple[State, Any, str, str]],
    refused: Any,
    row_major: Callable[[Tensor], bool],
    description: Callable[[], str],
) -> None:
    """Let `run` execute loops as one operation. ``speed`` calls this when it is imported.

    Parameters
    ----------
    execute : callable
        Takes the arguments of `in_python`, and returns its results, the name of the executor, and
        the reason why it is not a faster one, for `LoopReport`.
    refused : type
        The exception that `execute` raises before it has done anything, if it cannot.
    row_major : callable
        Tells whether its loops over an input read row-major matrices; else each feature is
        contiguous.
    description : callable
        Returns what `executor` does.
    """
    global _executor
    _executor = _Executor(execute, refused, row_major, description)


def executor() -> str:
    """Return what runs loops and products: ``"numpy"``, or ``"c"`` with the width of its vectors.

    Two runs can be equal to the bit only if this is equal.
    """
    load()
    return "numpy" if _executor is None else _executor.description()


def reason_against(steps: int, traced: bool = True) -> str:
    """Return why a loop is not run as one operation; empty if it may be."""
    if not traced:
        return "each step is observed"
    if thread.watcher is not None:  # detect_anomaly, which is eager, or the trace of a step
        return (
            "detect_anomaly checks every operation"
            if mode.eager
            else "it is in the step of a loop that is traced"
        )
    if mode.eager:
        return "eager() runs every operation separately"
    if steps < 2:
        return "it is a single step"
    load()
    return "tinygrad_rnn.speed is not installed" if _executor is None else ""


def report(made: LoopReport) -> None:
    """Add a report to those that `reports` collects."""
    if _reports.into is not None:
        _reports.into.append(made)


def _split(line: str) -> tuple[str | None, int | None]:
    """Return the file and the line of "path:line"."""
    file, _, number = line.rpartition(":")
    return (file, int(number)) if file else (None, None)


@contextlib.contextmanager
def reports() -> Iterator[list[LoopReport]]:
    """Collect the reports of the loops that are run in a ``with`` block, in this thread."""
    before, _reports.into = _reports.into, []
    try:
        yield _reports.into
    finally:
        _reports.into = before


# -- inputs and outputs of `scan` ------------------------------------------------------------------


def _unbound(xs: Any) -> list[Any]:
    """Return the inputs of each step, in the structure of `xs`."""
    if isinstance(xs, Tensor):
        return list(ops.unbind(xs))
    steps = zip(*(ops.unbind(x) for x in leaves(xs)), strict=True)
    return [_rebuilt(xs, iter(parts)) for parts in steps]


def _stacked(outputs: list[Any]) -> Any:
    """Return the outputs of all steps, (...) each, as (T, ...) in the structure of one."""
    for y in outputs:
        if _outline(y) != _outline(outputs[0]):
            raise ArgumentError(
                f"scan: step returned y with the structure {_outline(y)}, after "
                f"{_outline(outputs[0])} in an earlier step"
            )
    columns = [leaves(y) for y in outputs]
    wanted = [None if y is None else getattr(y, "shape", None) for y in columns[0]]
    for column in columns:
        for y in column:
            if not isinstance(y, Tensor | None):
                raise ArgumentError(
                    f"scan: step returned a {class_name(y)} in y: Tensors or None are needed"
                )
        shapes = [None if y is None else y.shape for y in column]
        if shapes != wanted:
            raise ShapeError(
                f"scan: step returned y of shapes {shapes} after {wanted} in an earlier step"
            )
    stacks = [y[0] if y[0] is None else ops.stack_over_time(*y) for y in zip(*columns, strict=True)]
    return _rebuilt(outputs[0], iter(stacks))


def _rebuilt(structure: Any, values: Iterator[Any]) -> Any:
    """Return a structure with other elements."""
    return map_nested(lambda _: next(values), structure)


def _zero_padding(ragged: RaggedBatch, y: Tensor) -> Tensor:
    batch = ragged.mask.shape[1]
    if y.shape[1:2] != (batch,):
        raise ShapeError(
            f"scan: step returned y of shape {y.shape[1:]}: with lengths ({batch}, ...) is needed"
        )
    return ragged.zero_padding(y)


# -- checks ----------------------------------------------------------------------------------------


def _steps_of(xs: Any) -> int:
    """Return T."""
    sizes = {x.shape[:1] for x in leaves(xs)}
    if len(sizes) != 1 or () in sizes:
        shapes = [x.shape for x in leaves(xs)]
        raise ShapeError(f"scan: xs are (T, ...) with the same T each, got the shapes {shapes}")
    ((steps,),) = sizes
    if not steps:
        raise ShapeError("scan: xs have no time step")
    return int(steps)


def _batch_of(xs: Any, state: State) -> tuple[int, str]:
    """Return B and the device of a ragged batch."""
    inputs, states = leaves(xs), [s for s in leaves(state) if s is not None]
    batches = {x.shape[1:2] for x in inputs} | {s.shape[:1] for s in states}
    if len(batches) != 1 or () in batches:
        raise ShapeError(
            "scan: with lengths, xs are (T, B, ...) and states (B, ...), got the shapes "
            f"{[x.shape for x in inputs]} and {[s.shape for s in states]}"
        )
    ((batch,),) = batches
    return int(batch), inputs[0].device


def _edge_weights(edges: Sequence[float], steps: int) -> list[float]:
    if not hasattr(edges, "__len__") or isinstance(edges, dict | set | str):
        raise ArgumentError(
            f"scan: edges are {steps} numbers, one per step, got a {class_name(edges)}; those of a "
            "strategy are strategy.weights(T)"
        )
    weights = [checks.any_number(edge, "scan: edges") for edge in edges]
    if len(weights) != steps:
        raise ArgumentError(f"scan: edges are {steps} numbers, one per step, got {len(weights)}")
    if not all(map(math.isfinite, weights)):
        raise ArgumentError(f"scan: edges are finite numbers, got {weights}")
    return weights


def _check_pair(result: Any) -> None:
    if not isinstance(result, tuple) or len(result) != 2:
        raise ArgumentError(
            f"scan: step returns (state, y), y may be None; got a {class_name(result)}"
        )


def _check_state(new: State, old: State) -> None:
    """Raise unless a state that a step returned has the structure, shapes and dtypes of the old."""
    if _outline(new) != _outline(old):
        order = ", with the keys in this order" * (
            isinstance(new, dict) and new.keys() == old.keys()
        )
        raise ArgumentError(
            "scan: step returned another structure of the state than it received: "
            f"{_outline(new)}, {_outline(old)} is needed{order}"
        )
    pairs = list(zip(leaves(new), leaves(old), strict=True))
    for i, (element, taken) in enumerate(pairs):
        if taken is None or (element.shape == taken.shape and element.dtype == taken.dtype):
            continue
        what = "a state" if len(pairs) == 1 else f"element {i} of the state"
        if element.shape != taken.shape:
            raise ShapeError(
                f"scan: step returned {what} of shape {element.shape}, {taken.shape} is needed"
            )
        raise DTypeError(
            f"scan: step returned {what} in {element.dtype}, {taken.dtype} is needed: use "
            f".astype({str(taken.dtype)!r}), or begin with a state in {element.dtype}"
        )


def _outline(state: State) -> str:
    """Return the structure of a state, with the classes of its leaves, in the order of keys."""
    return str(map_nested(class_name, state))
