"""Hypothesis profiles, the ``device`` fixture, and a guard over what no test may leave changed."""

from __future__ import annotations

import os
import random as python_random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import tinygrad_rnn as tg
from tinygrad_rnn.speed.fuse import Fused

# Hypothesis picks a profile of its own where CI is set, so ours is always loaded by name.
_slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("dev", max_examples=25, deadline=None, suppress_health_check=_slow)
settings.register_profile(
    "ci",
    max_examples=60,
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


ACCELERATORS = ["strict", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(scope="session", params=["cpu", *ACCELERATORS])
def device(request: pytest.FixtureRequest) -> str:
    """Return each device in turn: the CPU, a GPU's stand-in (strict_device.py), a GPU."""
    return device_called(request.param)


@pytest.fixture(scope="session", params=ACCELERATORS)
def accelerator(request: pytest.FixtureRequest) -> str:
    """Return what is not the CPU: a GPU's stand-in (strict_device.py), a GPU."""
    return device_called(request.param)


@pytest.fixture(scope="session", params=[pytest.param("cuda", marks=pytest.mark.gpu)])
def gpu(request: pytest.FixtureRequest) -> str:
    """Return a GPU, for what the stand-in has not."""
    return device_called(request.param)


@pytest.fixture
def fresh_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fused functions be traced anew, with what a test plants, and forget it afterwards."""
    for module in (tg.nn.cells, tg.functional):
        for value in vars(module).values():
            if isinstance(value, Fused):
                monkeypatch.setattr(value, "plans", {})


def device_called(name: str) -> str:
    """Return the device of a fixture's value; skip the GPU with the reason why there is none."""
    if name == "cuda":
        available = tg.cuda.is_available()
        if not available:
            pytest.skip(available.reason)
    return "cpu" if name == "cpu" else "cuda"


@pytest.fixture(autouse=True)
def stand_in(request: pytest.FixtureRequest) -> Iterator[None]:
    """Put the stand-in for CuPy in its place while a test runs on the device ``strict``."""
    chosen = getattr(getattr(request.node, "callspec", None), "params", {})
    if "strict" not in (chosen.get("device"), chosen.get("accelerator")):
        yield
        return
    import strict_device

    with strict_device.installed():
        yield


def global_state() -> dict[str, Any]:
    """Return everything global that a test could change and another could depend on."""
    random = np.random.get_state(legacy=False)  # noqa: NPY002 - watched so that nothing uses it
    return {
        "grad mode": tg.is_grad_enabled(),
        "default dtype": tg.get_default_dtype(),
        "fuse's backend": tg.fuse.backend(),
        "NumPy's global random state": (random["state"]["pos"], random["state"]["key"].tobytes()),
        "Python's global random state": python_random.getstate(),
    }


@pytest.fixture(autouse=True)
def unchanged_global_state() -> Iterator[None]:
    """Fail a test that leaves the grad mode, the default dtype or NumPy's random state changed."""
    before = global_state()
    yield
    after = global_state()
    changed = [name for name in before if before[name] != after[name]]
    tg.set_default_dtype(before["default dtype"])  # one offender, one failure
    assert not changed, f"this test changed {' and '.join(changed)}"
