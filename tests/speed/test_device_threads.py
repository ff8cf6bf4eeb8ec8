"""A GPU in several threads, draws of one stream, refused arrays, and a late failure."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import numpy as np
import pytest

import cuda_on_host
import tinygrad_rnn as tg
from tinygrad_rnn.engine import backend
from tinygrad_rnn.errors import CompilerError, DeviceError, ExecutorWarning
from tinygrad_rnn.speed import device_call
from tinygrad_rnn.speed.cuda import cublas, graphs, module
from tinygrad_rnn.speed.device_stages import TABLE

pytestmark = [
    pytest.mark.skipif(
        cuda_on_host.unavailable_because() is not None, reason="no C++ compiler for CUDA text"
    ),
    pytest.mark.parametrize("accelerator", ["strict"], indirect=True),
]
X = np.random.default_rng(0).standard_normal((4, 3, 4)).astype(np.float32)


@pytest.fixture(autouse=True)
def with_graphs() -> Any:
    before = module.level()
    module.use("graphs")
    yield
    module.use(before)
    graphs.clear()


def output(layer: Any) -> np.ndarray:
    with tg.no_grad():
        y, _ = layer(tg.tensor(X, device=next(layer.parameters()).device))
    return y.numpy()


def test_threads_that_capture_one_loop(accelerator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, layer = output(tg.nn.GRU(4, 6, rng=0)), tg.nn.GRU(4, 6, rng=0, device=accelerator)
    found: dict[int, np.ndarray] = {k: output(layer) for k in range(2)}
    memory = device_call.DeviceLoop._memory

    def slow(self: Any, *args: Any) -> Any:
        made = memory(self, *args)
        time.sleep(0.05)
        return made

    with monkeypatch.context() as patch:
        patch.setattr(device_call.DeviceLoop, "_memory", slow)
        threads = [
            threading.Thread(target=lambda k=k: found.update({k: output(layer)})) for k in (2, 3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found.update({k: output(layer) for k in range(4, 8)})
    for k in range(8):
        np.testing.assert_allclose(found[k], expected, rtol=1e-5, atol=1e-6)


def test_each_thread_has_the_products_of_its_handle(accelerator: str) -> None:
    """While a thread captures a graph, its handle of cuBLAS records the products."""
    library = backend.gpu_module()
    mine = cublas.products(library)
    mine.workspace = object()  # type: ignore[attr-defined]
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(cublas.products(library)))
    thread.start()
    thread.join()
    assert type(found[0]) is type(mine) and found[0] is not mine
    assert found[0].workspace is None
    assert cublas.products(library) is mine
    mine.workspace = None  # type: ignore[attr-defined]


def test_two_names_of_one_stream(accelerator: str) -> None:
    generator = tg.random.generator()

    def step(state: Any, x: Any) -> Any:
        return tg.functional.dropout(x, 0.5), tg.functional.dropout(x, 0.5, rng=generator)

    def drawn(device: str, eager: bool = False) -> np.ndarray:
        tg.manual_seed(0)
        x, state = tg.ones(3, 1, 8, device=device), tg.zeros(1, 8, device=device)
        with tg.eager() if eager else contextlib.nullcontext():
            return tg.scan(step, state, x)[1].numpy()

    expected = drawn("cpu")
    np.testing.assert_array_equal(drawn(accelerator), expected)
    np.testing.assert_array_equal(drawn(accelerator, eager=True), expected)


def test_an_array_of_numpy_in_a_step_is_refused(accelerator: str) -> None:
    values = np.ones((2, 3), np.float32)
    x, state = tg.ones(4, 2, 3, device=accelerator), tg.zeros(2, 3, device=accelerator)
    for level in module.LEVELS:
        module.use(level)
        with pytest.raises(DeviceError, match="operands on different devices"):
            tg.scan(lambda s, x: (s + x + values, None), state, x)


def test_a_graph_whose_kernels_cannot_be_compiled(
    accelerator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, layer = output(tg.nn.GRU(4, 5, rng=0)), tg.nn.GRU(4, 5, rng=0, device=accelerator)
    for _ in range(2):
        output(layer)
    compiled = device_call.kernel

    def broken(library: Any, text: str, name: str) -> Any:
        if TABLE in text:
            raise CompilerError("CUDA: RuntimeError: nvrtc: out of memory")
        return compiled(library, text, name)

    monkeypatch.setattr(device_call, "kernel", broken)
    with pytest.warns(ExecutorWarning, match="kernels, not graphs: .*out of memory"):
        found = output(layer)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert module.level() == "kernels"
