"""How often a training step on a GPU starts a kernel, copies and waits, counted by the stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import cuda_on_host
import strict_device
import tinygrad_rnn as tg
from tinygrad_rnn.speed.cuda import graphs, module

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        cuda_on_host.unavailable_because() is not None, reason="no C++ compiler for CUDA text"
    ),
    pytest.mark.parametrize("accelerator", ["strict"], indirect=True),
]
T, B, INPUT, H, CLASSES = 35, 32, 28, 256, 10


class Counts(NamedTuple):
    launches: int
    uploads: int
    waits: int


def now() -> Counts:
    return Counts(strict_device.launches, strict_device.transfers, strict_device.syncs)


@pytest.fixture(params=["kernels", "graphs"])
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = module.level()
    module.use(request.param)
    yield request.param
    module.use(before)
    graphs.clear()


def training_steps(
    device: str, kind: str, count: int, whole: bool = False, rule: str = "SGD"
) -> Counts:
    """The counts of the last of some steps; `whole`: of the step as one graph."""
    layer = getattr(tg.nn, kind)(INPUT, H, rng=0).to(device)
    head = tg.nn.Linear(H, CLASSES, rng=0).to(device)
    parameters = [*layer.parameters(), *head.parameters()]
    optimizer = getattr(tg.optim, rule)(parameters, lr=0.1)
    rng = np.random.default_rng(0)
    x = tg.tensor(rng.standard_normal((T, B, INPUT)).astype(np.float32), device=device)
    ids = tg.tensor(rng.integers(0, CLASSES, T * B), device=device)
    state = layer(x)[1]
    state = tg.bptt.detach(state)

    def step(x: Any, ids: Any, state: Any) -> Any:
        y, state = layer(x, state)
        loss = tg.functional.cross_entropy(head(y).reshape(-1, CLASSES), ids)
        optimizer.zero_grad()
        loss.backward()
        tg.optim.clip_grad_norm(parameters, 1.0)
        optimizer.step()
        return loss, tg.bptt.detach(state)

    step = tg.cuda.graph(step) if whole else step
    before = now()
    for _ in range(count):
        before = now()
        _, state = step(x, ids, state)
    assert not whole or step.reason == ""
    return Counts(*(b - a for a, b in zip(before, now(), strict=True)))


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_a_training_step(accelerator: str, kind: str, level: str) -> None:
    """70 launches of each pass are the loop's: a kernel and a product for each of 35 steps."""
    found = training_steps(accelerator, kind, 4)
    assert found.waits == 0
    if level == "kernels":
        assert found.launches <= 220 and found.uploads == 0
    else:  # of each pass: a table is copied to the device and to its place, and the graph starts
        assert found.launches <= 70 and found.uploads <= 2


@pytest.mark.parametrize("rule", ["SGD", "Adam"])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("level", ["graphs"], indirect=True)
def test_a_training_step_as_one_graph(accelerator: str, kind: str, rule: str, level: str) -> None:
    """One launch for the arguments, one for the step, and one for the results."""
    found = training_steps(accelerator, kind, 4, whole=True, rule=rule)
    assert found == Counts(3, 0, 0)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_a_loop(accelerator: str, kind: str, level: str) -> None:
    """The launches that a step more adds, and those of a loop without its products."""
    counts = []
    for steps in (20, 21):
        layer = getattr(tg.nn, kind)(INPUT, H, rng=0).to(accelerator)
        x = tg.ones(steps, B, INPUT, device=accelerator)
        grad = tg.ones(steps, B, H, device=accelerator)
        before = now()
        for _ in range(4):
            layer.zero_grad()
            before = now()
            layer(x)[0].backward(grad)
        counts.append(Counts(*(b - a for a, b in zip(before, now(), strict=True))))
    one, other = counts
    assert other.launches - one.launches == (4 if level == "kernels" else 0)
    assert one[1:] == other[1:] == ((0, 0) if level == "kernels" else (2, 0))


def test_an_upload_in_the_loop_is_noticed(
    accelerator: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinygrad_rnn.speed.device_call import DeviceLoop

    original = DeviceLoop._locate

    def planted(self: Any, library: Any, *args: Any) -> None:
        library.asarray(np.ones(3))
        original(self, library, *args)

    usual = training_steps(accelerator, "RNN", 4).uploads
    monkeypatch.setattr(DeviceLoop, "_locate", planted)
    assert training_steps(accelerator, "RNN", 4).uploads == usual + 2
