"""The cost of a time step, counted: nodes, products, calls of the array library, bytes.

A step is fused, in a loop in Python, or traced, in a loop that is one operation.

The counts do not depend on the machine: a step that has become more expensive fails here, not in a
timing.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from test_counts import BATCH, HIDDEN, INPUT, LAYERS, each_step, products, run

import tinygrad_rnn as tg
from tinygrad_rnn.engine.graph import reachable
from tinygrad_rnn.nn import cells
from tinygrad_rnn.recurrence import loop
from tinygrad_rnn.speed import scan

# Other tests call the cells with many shapes; the counts are those of NumPy's loops.
pytestmark = pytest.mark.usefixtures("fresh_plans", "in_numpy")
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
# Nodes of a time step in Python: the input's projection, the product, the cell's arithmetic, and
# its results if several have a gradient.
NODES = {"RNN": 3, "GRU": 4, "LSTM": 5}
# Calls of the array library in the arithmetic of a step, forward and backward.
CALLS = {"RNN": (2, 3), "GRU": (17, 17), "LSTM": (19, 22)}
# Arrays of (B, H) that a step saves for the backward pass. In Python: the gates (GRU: also the
# factor of r in n; LSTM: also tanh c), the state, and one step of the stacked output.
KEPT = {"RNN": 0 + 1 + 1, "GRU": 3 + 1 + 1 + 1, "LSTM": 4 + 1 + 2 + 1}
# Traced: the gates as above, the elements of the state, and the input's projection. The output has
# no memory of its own: it is a view of the states. The projection, an array for each gate, belongs
# to the arguments of the loop, with which derivatives of higher order are computed.
KEPT_TRACED = {"RNN": 0 + 1 + 1, "GRU": 3 + 1 + 1 + 3, "LSTM": 4 + 1 + 2 + 4}


@pytest.fixture(params=[True, False], ids=["traced", "in Python"])
def traced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return whether loops over time are one operation; the steps of others are fused."""
    if not request.param:
        monkeypatch.setattr(loop, "_executor", None)
    return bool(request.param)


@pytest.mark.parametrize("kind", LAYERS)
def test_nodes_of_a_time_step(kind: str, traced: bool) -> None:
    nodes = each_step(lambda T: len(reachable([run(kind, T)._node])))  # type: ignore[list-item]
    assert nodes == (0 if traced else NODES[kind])


@pytest.mark.parametrize("kind", LAYERS)
def test_products_of_a_time_step(kind: str, traced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """W h, and the gradient of h; those of the weights and of the input are of all steps."""
    monkeypatch.setattr(scan, "_plans", {})
    run(kind, 2)  # the step is traced
    assert each_step(lambda T: products(kind, T)) == (0 if traced else 2)
    if traced:  # they call NumPy, in the loops of the one plan of both lengths
        (plan,) = scan._plans.values()
        loops = plan._kernels.values()
        assert [x.source.count("matmul(") for x in loops] == [1, 1]


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
def test_bytes_that_a_time_step_leaves_for_the_backward_pass(kind: str, traced: bool) -> None:
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

    inputs = INPUT  # the copy of x in the memory order of the loops
    arrays = (KEPT_TRACED if traced else KEPT)[kind]
    assert each_step(kept) == 4 * BATCH * (arrays * HIDDEN + inputs)
