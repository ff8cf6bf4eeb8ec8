"""The tests of selection (tests/core/tensors/test_selection.py) with kernels in C."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_selection import BOUNDED, CASES, SINGULAR, check, gradient

import tinygrad_rnn as tg

pytestmark = pytest.mark.skipif(
    not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler is installed"
)


@pytest.fixture(autouse=True, scope="module")
def kernels_in_c() -> Iterator[None]:
    before = tg.fuse.backend()
    tg.fuse.backend("c")
    yield
    tg.fuse.backend(before)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=5)
@given(st.sampled_from([np.inf, -np.inf, np.nan]), st.integers(0, 2**32 - 1))
def test_no_gradient_reaches_what_was_not_chosen(name, wild, seed):
    check(*CASES[name], "fused", wild, seed)


@pytest.mark.parametrize("inner", BOUNDED)
@pytest.mark.parametrize("outer, at_four", SINGULAR)
def test_a_singular_function_of_a_bounded_one(inner, outer, at_four):
    found = gradient(lambda x: outer(inner(x)), [-1.0, 4.0], np.ones(2), "fused")
    np.testing.assert_array_equal(found, [0, at_four])
