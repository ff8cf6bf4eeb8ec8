"""The cost of a fused time step, counted: nodes, calls of the array library, bytes.

The counts do not depend on the machine: a step that has become more expensive fails here, not in a
timing.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from test_counts import BATCH, HIDDEN, INPUT, LAYERS, each_step, run

import tinygrad_rnn as tg
from tinygrad_rnn.engine.graph import reachable
from tinygrad_rnn.nn import cells

pytestmark = pytest.mark.usefixtures("fresh_plans")  # other tests call the cells with many shapes
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
# For each time step: the input's projection, the product, the cell's arithmetic, and its results
# if several have a gradient.
NODES = {"RNN": 3, "GRU": 4, "LSTM": 5}
# Calls of the array library in the arithmetic of a step, forward and backward.
CALLS = {"RNN": (2, 3), "GRU": (17, 17), "LSTM": (19, 22)}
# Arrays of (B, H) that a step saves for the backward pass: the gates (GRU: also the factor of r in
# n; LSTM: also tanh c), the state, and one step of the stacked output.
KEPT = {"RNN": 0 + 1 + 1, "GRU": 3 + 1 + 1 + 1, "LSTM": 4 + 1 + 2 + 1}


@pytest.mark.parametrize("kind", LAYERS)
def test_nodes_of_a_time_step(kind: str) -> None:
    assert each_step(lambda T: len(reachable([run(kind, T)._node]))) == NODES[kind]  # type: ignore[list-item]


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
