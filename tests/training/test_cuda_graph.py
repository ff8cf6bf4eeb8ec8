"""`fit` with its training step as one CUDA graph: the same bits as without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cuda_on_host
import tinygrad_rnn as tg

pytestmark = [
    pytest.mark.usefixtures("cuda_graphs"),
    pytest.mark.skipif(
        cuda_on_host.unavailable_because() is not None, reason="no C++ compiler for CUDA text"
    ),
]
T = tg.training


@pytest.mark.parametrize("schedule", [False, True])
def test_the_step_as_a_graph_has_the_bits_of_separate_operations(
    accelerator: str, schedule: bool
) -> None:
    found, reasons = [], []

    class Watch(T.Callback):
        def step(self, run: T.Run) -> None:
            reasons.append(getattr(run.advance, "reason", None))

    for more in ([], [T.CudaGraph(), Watch()]):
        tg.manual_seed(1)
        model = tg.models.RecurrentLM(
            tg.nn.LSTMCell, 7, 5, embedding_dim=3, dropout=0.2, device=accelerator
        )
        optimizer = tg.optim.Adam(model.parameters(), lr=0.01)
        stream = tg.data.text.sequential(np.arange(200) % 7, 3, 6, device=accelerator)
        plans: list[Any] = [T.Schedule(tg.optim.schedule.exponential(0.9), per="step")]
        history = tg.fit(
            model, stream, loss=tg.functional.cross_entropy, optimizer=optimizer, epochs=2,
            callbacks=[T.ClipNorm(1.0), *plans[: int(schedule)], *more],
        )  # fmt: skip
        found.append((history["loss"], [p.numpy().tobytes() for p in model.parameters()]))
    assert found[0] == found[1]
    # The first step starts without a state: it has another graph, of which there are few calls.
    graphed = [reason == "" for reason in reasons]
    assert all(graphed[3:10]), reasons


def test_without_a_gpu_it_changes_nothing() -> None:
    model = tg.nn.Linear(1, 1)
    x = tg.ones(4, 1)
    history = tg.fit(
        model, [(x, x)], loss=tg.functional.mse_loss, epochs=3, callbacks=[T.CudaGraph()],
        optimizer=tg.optim.SGD(model.parameters(), lr=0.1),
    )  # fmt: skip
    assert history["loss"] == sorted(history["loss"], reverse=True)
