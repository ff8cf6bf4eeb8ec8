"""Fixtures that choose the executor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tinygrad_rnn as tg


@pytest.fixture(scope="module")
def in_numpy() -> Iterator[None]:
    """Let NumPy run everything while the tests of a module run, also where C is the default."""
    before = tg.fuse.backend()
    tg.fuse.backend("numpy")
    yield
    tg.fuse.backend(before)
