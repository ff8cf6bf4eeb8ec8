"""Loops over time and fused functions in CUDA: NumPy's executor is their oracle.

On the stand-in for CuPy the kernels are compiled by the host's C++ compiler (cuda_on_host.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from test_traced_scan import (
    Case,
    Options,
    assert_close,
    cases_and_options,
    derivatives,
    flat,
    run,
)

import cuda_on_host
import tinygrad_rnn as tg
from tinygrad_rnn.recurrence import loop

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

without = cuda_on_host.unavailable_because()
# Each example compiles two libraries.
FEW = settings(max_examples=max(8, settings.default.max_examples // 3), print_blob=True)


@pytest.fixture(autouse=True)
def compiled(request: pytest.FixtureRequest) -> Iterator[None]:
    """Skip what the stand-in cannot run; compare with NumPy's executor."""
    if request.getfixturevalue("accelerator") == "cuda" and without:
        pytest.skip(without)
    before = tg.fuse.backend()
    tg.fuse.backend("numpy")
    yield
    tg.fuse.backend(before)


def run_on(device: str, case: Case, options: Options, dtype: Any, order: int) -> tuple[Any, Any]:
    """As `run` of test_traced_scan, with the loop on a device."""
    tg.random.manual_seed(case.seed)
    given = case.leaves(dtype)
    there = {name: [x.to(device) for x in group] for name, group in given.items()}
    state, xs = case.arguments(there)
    if case.counts:
        elements = case.unpacked(state)
        state = case.packed([*elements[:-1], elements[-1].to(device)])
    with loop.reports() as reports:
        state, ys = tg.scan(case.step(there), state, xs, **options._asdict())
    leaves = [x for group in given.values() for x in group]
    results = [y.to("cpu") for y in [*flat(state), *flat(ys)]]
    kind = type(state), [y.requires_grad for y in results]
    return (derivatives(results, leaves, case.seed, order), kind), reports[0]


@FEW
@given(drawn=cases_and_options())
def test_random_steps_are_those_of_numpy(accelerator: str, drawn: tuple[Case, Options]) -> None:
    case, options = drawn
    found, report = run_on(accelerator, case, options, np.float64, 1)
    wanted, other = run(case, options, np.float64, 1)
    assert_close(found[0], wanted[0], 1e-11)
    assert found[1] == wanted[1]
    assert report.executor == "cuda" or report.reason.startswith("not in CUDA") or not other.traced


@FEW
@given(drawn=cases_and_options())
def test_second_derivatives_are_those_of_numpy(
    accelerator: str, drawn: tuple[Case, Options]
) -> None:
    case, options = drawn
    found, _ = run_on(accelerator, case, options, np.float64, 2)
    wanted, _ = run(case, options, np.float64, 2)
    assert_close(found[0], wanted[0], 1e-9)
