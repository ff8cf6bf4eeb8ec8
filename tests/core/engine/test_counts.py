"""What a training step costs, counted: nodes, products, calls of the array library, bytes.

The counts do not depend on the machine, so that a step that has become dearer is noticed here and
not by a clock.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.engine import backend
from tinygrad_rnn.engine.graph import reachable, unbroadcast
from tinygrad_rnn.nn import cells

BATCH, INPUT, HIDDEN = 4, 3, 8
LAYERS = {"RNN": tg.nn.RNN, "GRU": tg.nn.GRU, "LSTM": tg.nn.LSTM}
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
# Of each time step: the input's projection, the product, the cell's arithmetic, and its results
# where it has several values with a gradient.
NODES = {"RNN": 3, "GRU": 4, "LSTM": 5}
# Calls of the array library in the arithmetic of a step, forward and backward.
CALLS = {"RNN": (2, 3), "GRU": (17, 17), "LSTM": (19, 22)}
# Arrays of (B, H) that a step leaves behind: what the backward pass reads (the gates; of the GRU
# the part of n that r multiplies; of the LSTM tanh c), the state, and the output's share of the
# stack.
KEPT = {"RNN": 0 + 1 + 1, "GRU": 3 + 1 + 1 + 1, "LSTM": 4 + 1 + 2 + 1}


def each_step(count: Callable[[int], int]) -> int:
    """Return by how much a count grows with every time step."""
    few, many = count(6), count(16)
    assert (many - few) % 10 == 0
    return (many - few) // 10


def run(kind: str, steps: int) -> tg.Tensor:
    output, _ = LAYERS[kind](INPUT, HIDDEN)(tg.randn(steps, BATCH, INPUT, rng=0))
    return output


@pytest.mark.parametrize("kind", LAYERS)
def test_nodes_of_a_time_step(kind: str) -> None:
    assert each_step(lambda T: len(reachable([run(kind, T)._node]))) == NODES[kind]  # type: ignore[list-item]


@pytest.mark.parametrize("kind", LAYERS)
def test_products_of_a_time_step(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    gemm = backend.gemm
    monkeypatch.setattr(backend, "gemm", lambda x, y: made.append(1) or gemm(x, y))  # type: ignore[func-returns-value]

    def products(steps: int) -> int:
        made.clear()
        output = run(kind, steps)
        (output * output).sum().backward()
        return len(made)

    assert each_step(products) == 2  # W h, and the gradient of h; those of the weights are joined


@pytest.mark.parametrize("kind", LAYERS)
def test_calls_in_the_arithmetic_of_a_time_step(kind: str) -> None:
    fused = {"RNN": cells._tanh, "GRU": cells._gru, "LSTM": cells._lstm}[kind]
    wide, state = tg.zeros(BATCH, GATES[kind] * HIDDEN), tg.zeros(BATCH, HIDDEN)
    arguments = {
        "RNN": (wide, wide),
        "GRU": (wide, wide, state, tg.zeros(3 * HIDDEN)),
        "LSTM": (wide, wide, state),
    }[kind]
    plan = fused.plan(*arguments)
    which = tuple(range(len(plan.outputs)))
    kernels = plan.recording, plan.backward(which, (True,) * len(arguments))[2]
    calls = [k.source.count("out=") + k.source.count("sum(") for k in kernels]
    assert tuple(calls) == CALLS[kind]


@pytest.mark.parametrize(
    "shape, dtype, to_shape, to_dtype, expected",
    [
        ((2, 3), "float32", (2, 3), "float32", []),
        ((), "float64", (), "float64", []),
        ((2, 3), "float64", (2, 3), "float32", ["cast"]),
        ((2, 3), "float32", (2, 1), "float32", ["sum"]),
        ((2, 3), "float32", (1, 1), "float64", ["sum", "cast"]),
        ((2, 3), "float32", (3,), "float32", ["sum", "reshape"]),
        ((2, 3), "float64", (), "float32", ["sum", "reshape", "cast"]),
    ],
)
def test_a_gradient_is_brought_to_its_arguments_shape_by_no_call_too_many(
    shape: Any, dtype: str, to_shape: Any, to_dtype: str, expected: list[str]
) -> None:
    made: list[str] = []

    class F:
        def __getattr__(self, name: str) -> Any:
            made.append(name)
            return {
                "sum": lambda g, axis, keepdims: g.sum(axis, keepdims=keepdims),
                "reshape": lambda g, shape: g.reshape(shape),
                "cast": lambda g, dtype: g.astype(dtype),
            }[name]

    node = SimpleNamespace(shape=to_shape, dtype=np.dtype(to_dtype))
    gradient = unbroadcast(np.ones(shape, dtype), node, F())  # type: ignore[arg-type]
    assert (gradient.shape, gradient.dtype) == (to_shape, to_dtype)
    assert made == expected


@pytest.mark.parametrize("kind", LAYERS)
def test_bytes_that_a_time_step_leaves_for_the_backward_pass(kind: str) -> None:
    domain = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)

    def kept(steps: int) -> int:
        x = tg.randn(steps, BATCH, INPUT, rng=0)
        layer = LAYERS[kind](INPUT, HIDDEN)
        layer(x)
        tracemalloc.start()
        try:
            output = layer(x)
            snapshot = tracemalloc.take_snapshot().filter_traces([domain])
            del output
        finally:
            tracemalloc.stop()
        return sum(trace.size for trace in snapshot.traces)

    inputs = INPUT + 1  # the layer's own copy of x, with the column of ones
    assert each_step(kept) == 4 * BATCH * (KEPT[kind] * HIDDEN + inputs)
