"""A guard of the backend of fused functions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tinygrad_rnn as tg


@pytest.fixture(autouse=True)
def unchanged_backend() -> Iterator[None]:
    """Fail a test that changes the backend of fused functions."""
    before = tg.fuse.backend()
    yield
    after = tg.fuse.backend()
    tg.fuse.backend(before)
    assert after == before, f"this test changed the backend of fused functions to {after!r}"
