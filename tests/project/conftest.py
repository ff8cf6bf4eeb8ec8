"""A fixture for tests that plant mistakes."""

from __future__ import annotations

import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.speed.fuse import Fused


@pytest.fixture
def fresh_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace fused functions again, with the mistake that a test plants; discard that trace."""
    for module in (tg.nn.cells, tg.functional):
        for value in vars(module).values():
            if isinstance(value, Fused):
                monkeypatch.setattr(value, "plans", {})
