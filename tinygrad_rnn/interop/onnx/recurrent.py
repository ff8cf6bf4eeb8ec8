"""Recurrent layers and loops in a trace: recorded as a whole, not step by step.

While a thread traces, `Recurrent.forward`, the loop of `scan`, `one_hot` and `standardize` call the
functions below. They are replaced for the time of the trace, since a test in each of them would
cost every call of a layer.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ... import functional
from ... import tensors as ops
from ..._util.nested import leaves, map_nested
from ...engine.grad_mode import thread
from ...engine.tensor import Tensor, wrap
from ...nn import Cell, GRUCell, LSTMCell, Recurrent, RNNCell
from ...recurrence import loop
from ...tensors import checks
from .trace import Body, Call, Ref, Refused, Traced, Tracer

# Cells that ONNX has a node for.
NODES: dict[type, str] = {LSTMCell: "LSTM", GRUCell: "GRU", RNNCell: "RNN"}
_lock = threading.RLock()


@contextlib.contextmanager
def layers_as_a_whole() -> Iterator[None]:
    """Let this thread record recurrent layers and loops as a whole while it traces."""
    pairs: list[tuple[Any, str, Callable[..., Any]]] = [
        (Recurrent, "forward", _layer),
        (loop, "run", _loop),
        (functional, "one_hot", _one_hot),
        (functional, "standardize", _standardize),
    ]
    with _lock, contextlib.ExitStack() as stack:  # one thread at a time replaces functions
        for owner, name, replacement in pairs:
            original = getattr(owner, name)
            stack.callback(setattr, owner, name, original)
            setattr(owner, name, _for_tracers(original, replacement))
        yield


def _for_tracers(original: Callable[..., Any], replacement: Callable[..., Any]) -> Any:
    """Return a function that calls `replacement` for a Tracer, `original` in other threads."""

    def call(*args: Any, **options: Any) -> Any:
        tracer = thread.watcher
        if not isinstance(tracer, Tracer):
            return original(*args, **options)
        return replacement(tracer, original, *args, **options)

    return call


def _traced(x: Any) -> bool:
    return isinstance(x, Tensor) and x._data.__class__ is Traced


# -- functions of arrays, which are not made of operations -----------------------------------------


def _one_hot(tracer: Tracer, original: Any, ids: Any, num_classes: int, dtype: Any = None) -> Any:
    if not _traced(ids):
        return original(ids, num_classes, dtype)
    if ids.dtype.kind not in "iu":
        original(wrap(np.zeros(ids.shape, ids.dtype), None, None), num_classes, dtype)  # raises
    dtype = checks.real_dtype(dtype, "one_hot")
    return (ops.expand_dims(ids, -1) == np.arange(num_classes, dtype=ids.dtype)).astype(dtype)


def _standardize(tracer: Tracer, original: Any, x: Any, axis: tuple[int, ...], eps: float) -> Any:
    if not _traced(x) or x.dtype.kind != "f" or x.dtype == np.float16:
        return original(x, axis, eps)
    return tracer.record("standardize", [x], {"axis": axis, "eps": eps}, [x._data])[0]


# -- loops -----------------------------------------------------------------------------------------


def _loop(
    tracer: Tracer,
    original: Any,
    step: Any,
    state: Any,
    xs: Any,
    edges: Any,
    ragged: Any = None,
    reverse: bool = False,
    traced: bool = True,
) -> Any:
    """Record the loop of `tg.scan`."""
    if ragged is not None:
        raise Refused("calls scan with lengths", "use nn.Recurrent, which takes lengths")
    return record_loop(tracer, step, state, xs, reverse)


def record_loop(
    tracer: Tracer, step: Any, state: Any, xs: Any, reverse: bool, lengths: Any = None
) -> Any:
    """Record a loop over time, whose step is traced once as a body of its own.

    Parameters
    ----------
    tracer : Tracer
    step, state, xs, reverse
        As of `recurrence.loop.run`.
    lengths : Tensor, optional
        The number of steps of each sequence.

    Returns
    -------
    state, ys
        As of `recurrence.loop.run`.
    """
    body, new, y = _body(tracer, step, state, xs)
    first = len(tracer.calls)
    again, *_ = _body(tracer, step, state, xs)  # a second time, to compare
    _check_repeated(tracer, body, again, first)
    del tracer.calls[first:]

    T = leaves(xs)[0].shape[0]
    states = [s for s in leaves(state) if s is not None]
    new_states = [s for s in leaves(new) if s is not None]
    outputs = [y_t for y_t in leaves(y) if y_t is not None]
    results = [tracer.example(s.shape, s.dtype) for s in new_states]
    results += [tracer.example((T, *y_t.shape), y_t.dtype) for y_t in outputs]
    inputs = [*states, *leaves(xs), *([] if lengths is None else [lengths])]
    options = {"body": body, "states": len(states), "reverse": reverse}
    options["ragged"] = lengths is not None
    made = iter(tracer.record("loop", inputs, options, results, "scan"))

    def rebuilt(structure: Any) -> Any:
        return map_nested(lambda s: None if s is None else next(made), structure)

    return rebuilt(state), rebuilt(y)


def _body(tracer: Tracer, step: Any, state: Any, xs: Any) -> tuple[Body, Any, Any]:
    arguments: list[Ref] = []

    def argument(x: Any, axes: int) -> Any:
        if x is None:
            return None
        made = tracer.new(tracer.example(x.shape[axes:], x.dtype))
        arguments.append(tracer.ref(made))
        return made

    with tracer.block() as number:
        seen = map_nested(lambda s: argument(s, 0), state)
        x = map_nested(lambda x: argument(x, 1), xs)
        new, y = step(seen, x)
        results = [tracer.ref(s) for s in (*leaves(new), *leaves(y)) if s is not None]
    return Body(number, tuple(arguments), tuple(results)), new, y


def _check_repeated(tracer: Tracer, one: Body, other: Body, first: int) -> None:
    """Raise unless a step does the same when it is called again."""
    calls = [c for c in tracer.calls[:first] if c.block >= one.block]
    again = tracer.calls[first:]
    shift = other.arguments[0].number - one.arguments[0].number

    def moved(x: Any) -> Any:
        return Ref(x.number + shift) if x.number >= one.arguments[0].number else x

    def same(a: Any, b: Any) -> bool:
        if a.__class__ is not b.__class__:
            return False
        if isinstance(a, Ref):
            return bool(moved(a) == b)
        if isinstance(a, Body):
            return same(a.results, b.results)
        if isinstance(a, tuple):
            return len(a) == len(b) and all(map(same, a, b))
        if isinstance(a, np.ndarray):
            return np.array_equal(a, b)
        return bool(a == b) or repr(a) == repr(b)

    def alike(a: Call, b: Call) -> bool:
        options = same(tuple(a.options.values()), tuple(b.options.values()))
        return a.name == b.name and same(a.inputs, b.inputs) and options

    pairs = zip(calls, again, strict=False)
    changed = next((a.line for a, b in pairs if not alike(a, b)), "")
    if changed or len(calls) != len(again) or not same(one.results, other.results):
        raise Refused(
            "has a step that does something else when it is called again: it draws random numbers, "
            "or changes an attribute",
            "keep what changes from step to step in the state",
            changed,
        )


# -- recurrent layers ------------------------------------------------------------------------------


def _layer(
    tracer: Tracer,
    original: Any,
    rnn: Recurrent,
    x: Any,
    state: Any = None,
    lengths: Any = None,
    bptt: Any = None,
    output: bool = True,
) -> Any:
    """Record the call of a recurrent layer; the arguments and results of `Recurrent.forward`."""
    if not any(map(_traced, [x, lengths, *leaves(state)])):
        return original(rnn, x, state, lengths, bptt, output)
    kind = type(rnn).__name__
    if lengths is not None and not _traced(lengths):
        raise Refused(
            f"calls {kind} with lengths that are not an input",
            "make them an argument of forward, and give them to save_onnx",
        )
    if rnn.dropout and rnn.training:
        raise Refused(f"calls {kind} with dropout in training mode", "call eval() of it")
    x, batched = rnn._time_first(x, kind)
    rows = rnn._initial_states(x, state, batched)
    if lengths is not None and (lengths.shape != x.shape[1:2] or lengths.dtype.kind not in "iu"):
        raise Refused(
            f"calls {kind} with lengths of shape {lengths.shape} and dtype {lengths.dtype}",
            f"{x.shape[1]} integers are needed, one for each sequence",
        )
    y, finals = x, []
    for layer in range(rnn.num_layers):
        numbers = slice(layer * rnn.directions, (layer + 1) * rnn.directions)
        cells = list(rnn.cells[numbers])
        if has_node(tracer, cells):
            zeros = state is None and type(cells[0]).initial_state is Cell.initial_state
            initial = [None if zeros else s[numbers] for s in _stacks(rows, state, batched)]
            y, last = _node(tracer, cells, y, initial, lengths)
        else:
            y, last = _scans(tracer, cells, y, rows[numbers], lengths)
        finals.append(last)
    stacked = [s[0] if len(s) == 1 else ops.concatenate(list(s)) for s in zip(*finals, strict=True)]
    if not batched:
        y, stacked = ops.squeeze(y, 1), [ops.squeeze(s, 1) for s in stacked]
    elif rnn.batch_first:
        y = ops.swapaxes(y, 0, 1)
    several = isinstance(rnn.cells[0].hidden_size, tuple)
    return (y if output else None), tuple(stacked) if several else stacked[0]


def _stacks(rows: list[Any], state: Any, batched: bool) -> list[Tensor]:
    """Return the elements of a state that was checked, (L·D, B, H) each; `rows` are its parts."""
    if state is None:
        return [ops.stack(s) for s in zip(*map(leaves, rows), strict=True)]
    return [s if batched else ops.expand_dims(s, 1) for s in leaves(state)]


def has_node(tracer: Tracer, cells: list[Any]) -> bool:
    """Tell whether ONNX has a node for the cells of a layer.

    They are built-in ones of one kind in float32, without a projection, and their weights are not
    computed in `forward`.
    """
    if type(cells[0]) not in NODES or len({_kind_of_node(cell) for cell in cells}) > 1:
        return False
    weights = [w for cell in cells for w in _weights(cell) if w is not None]
    known = any(_traced(w) or tracer.knows(w._data) for w in weights)
    projected = getattr(cells[0], "weight_hr", None) is not None
    return not known and not projected and all(w.dtype == np.float32 for w in weights)


def _weights(cell: Any) -> tuple[Any, ...]:
    return cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh


def _kind_of_node(cell: Any) -> Any:
    return type(cell), getattr(cell, "nonlinearity", "")


def _node(
    tracer: Tracer, cells: list[Any], x: Tensor, initial: list[Any], lengths: Any
) -> tuple[Tensor, list[Tensor]]:
    """Record a layer as one node; return its output (T, B, D·H) and final states (D, B, H)."""
    T, B = x.shape[:2]
    H, D = cells[0].state_sizes[0], len(cells)
    weights = [tuple([None if w is None else w._data for w in _weights(c)]) for c in cells]
    present = [s for s in initial if s is not None]
    options = {
        "weights": tuple(weights),
        "initial": bool(present),
        "ragged": lengths is not None,
        "activation": getattr(cells[0], "nonlinearity", "").capitalize(),
        "hidden_size": H,
    }
    shapes = [(T, B, D * H)] + [(D, B, H)] * len(initial)
    results = [tracer.example(shape, np.float32) for shape in shapes]
    inputs = [x, *present, *([] if lengths is None else [lengths])]
    name = NODES[type(cells[0])]
    y, *last = tracer.record(name, inputs, options, results)
    return y, last


def _scans(
    tracer: Tracer, cells: list[Any], x: Tensor, states: list[Any], lengths: Any
) -> tuple[Tensor, list[Tensor]]:
    """Record a layer of any cells as loops; the results are those of `_node`."""
    outputs, finals = [], []
    for direction, (cell, state) in enumerate(zip(cells, states, strict=True)):
        z = cell.project(x)
        cell._check_projection(z, x)

        def step(seen: Any, z_t: Tensor, cell: Any = cell) -> Any:
            new = cell.step(z_t, seen)
            cell._check_step(new, seen)
            return new, new[0] if isinstance(new, tuple) else new

        final, y = record_loop(tracer, step, state, z, direction == 1, lengths)
        outputs.append(y)
        finals.append([ops.expand_dims(s, 0) for s in leaves(final)])
    last = [s[0] if len(s) == 1 else ops.concatenate(list(s)) for s in zip(*finals, strict=True)]
    return (outputs[0] if len(outputs) == 1 else ops.concatenate(outputs, axis=-1)), last
