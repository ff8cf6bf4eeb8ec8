"""Hypothesis profiles, the ``device`` fixtures, and a guard of the global state.

Only the core is used here: ``tools/core_alone.py`` runs ``tests/core`` with this file, without the
rest of the package.
"""

from __future__ import annotations

import importlib
import os
import random as python_random
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import cuda_on_host
import tinygrad_rnn as tg
from tinygrad_rnn.engine import backend, promotion
from tinygrad_rnn.engine.backend import cuda_unavailable_because
from tinygrad_rnn.tensors import checks
from tinygrad_rnn.transforms.fuse import Pointwise

# The stand-in for CuPy needs a compiler for kernels; without one it computes by its own functions.
if cuda_on_host.unavailable_because():
    os.environ.setdefault("TINYGRAD_RNN_CUDA", "operations")

# Hypothesis picks its own profile where CI is set, so ours is always loaded by name.
_slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("dev", max_examples=25, deadline=None, suppress_health_check=_slow)
settings.register_profile(  # for tools/core_alone.py
    "core",
    max_examples=5,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=_slow,
)
settings.register_profile(
    "ci",
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=_slow,
)
settings.register_profile(
    "thorough", max_examples=1000, deadline=None, print_blob=True, suppress_health_check=_slow
)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
)


collect_ignore_glob = ["*/conftest.py"]  # pytest takes these for modules of doctests
FUSED = [  # the library's functions that `fuse` decorates
    function
    for module in (tg.nn.cells, tg.functional)
    for function in vars(module).values()
    if isinstance(function, Pointwise)
]
# "cuda" or "strict": tests that name no device make their tensors there.
EVERYTHING_ON = os.environ.get("TINYGRAD_RNN_TEST_DEVICE", "cpu")
CHOOSES_A_DEVICE = {
    "device",
    "accelerator",
    "gpu",
    "cupy",
    "standing_in",
    "two_devices",
}  # fixtures
ACCELERATORS = ["strict", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(scope="session", params=["cpu", *ACCELERATORS])
def device(request: pytest.FixtureRequest) -> str:
    """Return each device in turn: the CPU, the GPU stand-in (strict_device.py), a GPU."""
    return device_called(request.param)


@pytest.fixture(scope="session", params=ACCELERATORS)
def accelerator(request: pytest.FixtureRequest) -> str:
    """Return the GPU stand-in (strict_device.py), then a GPU."""
    return device_called(request.param)


@pytest.fixture(scope="session", params=[pytest.param("cuda", marks=pytest.mark.gpu)])
def gpu(request: pytest.FixtureRequest) -> str:
    """Return a GPU, for tests that the stand-in cannot run."""
    return device_called(request.param)


@pytest.fixture
def cuda_graphs() -> Iterator[None]:
    """Select the level of CUDA graphs, for loops and functions; release the graphs afterwards."""
    module = importlib.import_module("tinygrad_rnn.speed.cuda.module")
    before = module.level()
    module.use("graphs")
    yield
    module.use(before)
    importlib.import_module("tinygrad_rnn.speed.cuda.graphs").clear()


@pytest.fixture
def fresh_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace fused functions and steps again, as if they had never been called; discard that."""
    monkeypatch.setattr("tinygrad_rnn.speed.kept_traces._kept", {})
    for value in FUSED:
        fresh = vars(type(value)(value.function))
        for name in {"plans", "_traces_left"}.intersection(fresh):
            monkeypatch.setattr(value, name, fresh[name])


@pytest.fixture
def plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no loop as a CUDA graph, which uploads a small table: for tests that count uploads."""
    monkeypatch.setattr("tinygrad_rnn.speed.cuda.graphs.PLAIN_CALLS", 10**9)
    monkeypatch.setattr("tinygrad_rnn.speed.cuda.graphs._graphs", OrderedDict())


def device_called(name: str) -> str:
    """Return the device of a fixture's value; skip the test if it needs a GPU and none is found."""
    reason = cuda_unavailable_because() if name == "cuda" else None
    if reason:
        pytest.skip(reason)
    return "cpu" if name == "cpu" else "cuda"


@pytest.fixture(autouse=True)
def stand_in(request: pytest.FixtureRequest) -> Iterator[None]:
    """Install the stand-in for CuPy while a test runs on the device ``strict``."""
    chosen = getattr(getattr(request.node, "callspec", None), "params", {})
    if "strict" not in (chosen.get("device"), chosen.get("accelerator"), EVERYTHING_ON):
        yield
        return
    import strict_device

    with strict_device.installed():
        yield


def host_only() -> dict[str, str]:
    """Return why a test needs the host, by the beginning of its name."""
    text = Path(__file__).with_name("host_only.txt").read_text("utf-8")
    parts = [part.partition("\n") for part in text.split("\n\n")]
    return {test: reason for reason, _, tests in parts for test in tests.split()}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of host_only.txt where everything is made on a device."""
    if EVERYTHING_ON != "cpu":
        reasons = host_only()
        for item in items:
            name = item.nodeid.removeprefix("tests/")
            reason = next((reasons[test] for test in reasons if name.startswith(test)), None)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def everything_on(
    request: pytest.FixtureRequest, stand_in: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Make the tensors of a test on the device that TINYGRAD_RNN_TEST_DEVICE names.

    Arrays of the host, which would keep their own device, are moved there too. A test with a
    fixture for devices chooses itself.
    """
    if EVERYTHING_ON == "cpu" or CHOOSES_A_DEVICE.intersection(request.fixturenames):
        yield
        return
    make, operand, required = tg.Tensor.__init__, promotion._as_array, checks.require_tensor

    def made(
        self: tg.Tensor,
        data: Any,
        dtype: Any = None,
        device: Any = None,
        *rest: Any,
        **options: Any,
    ) -> None:
        make(self, data, dtype, device or backend.default_device(), *rest, **options)

    def moved(x: Any, op: Any) -> Any:
        array = operand(x, op)
        return backend.to_device(array, None) if type(array) is np.ndarray else array

    def required_there(x: Any, op: str) -> tg.Tensor:
        return required(backend.to_device(x, None) if type(x) is np.ndarray else x, op)

    monkeypatch.setattr(tg.Tensor, "__init__", made)
    monkeypatch.setattr(promotion, "_as_array", moved)
    monkeypatch.setattr(checks, "require_tensor", required_there)
    with tg.default_device(device_called(EVERYTHING_ON)):
        yield


def global_state() -> dict[str, Any]:
    """Return the global state that one test could change and another could depend on."""
    random = np.random.get_state(legacy=False)  # noqa: NPY002 - to see that nothing uses it
    return {
        "grad mode": tg.is_grad_enabled(),
        "default dtype": tg.get_default_dtype(),
        "fuse's backend": getattr(tg.fuse, "backend", lambda: None)(),  # provided by speed
        "NumPy's global random state": (random["state"]["pos"], random["state"]["key"].tobytes()),
        "Python's global random state": python_random.getstate(),
    }


TRACES_LEFT = [(f, f._traces_left) for f in FUSED if hasattr(f, "_traces_left")]


@pytest.fixture(autouse=True)
def fusing() -> None:
    """Let each test fuse the library's functions, however many shapes other tests called them with.

    A function that is traced too often runs operation by operation, with other rounding errors.
    """
    for function, left in TRACES_LEFT:
        function._traces_left = left


@pytest.fixture(autouse=True)
def unchanged_global_state() -> Iterator[None]:
    """Fail a test that changes the grad mode, the default dtype or a global random state."""
    before = global_state()
    yield
    after = global_state()
    changed = [name for name in before if before[name] != after[name]]
    tg.set_default_dtype(before["default dtype"])  # one offender, one failure
    assert not changed, f"this test changed {' and '.join(changed)}"
