"""Sampling of the next token from its distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError
from ..tensors import checks


def check(temperature: float, top_k: int | None, top_p: float) -> None:
    """Raise if an option of `draw` is out of range."""
    checks.number(temperature, "sample: temperature (greedy is top_k=1)", 0, math.inf, "()")
    if top_k is not None:
        checks.positive(top_k, "sample: top_k")
    checks.number(top_p, "sample: top_p", 0, 1, "(]")


def draw(
    log_p: npt.NDArray[np.floating[Any]],
    temperature: float,
    top_k: int | None,
    top_p: float,
    rng: np.random.Generator,
) -> int:
    """Draw a known token: of the `top_k` likeliest, the fewest with total probability `top_p`.

    The distribution is p^(1 / temperature), normalised; of equally likely tokens the one with the
    smaller id is first. Token 0, the unknown one, is never drawn.
    """
    log_p = log_p[1:]
    likeliest = np.argsort(-log_p, kind="stable")[:top_k]
    best = log_p[likeliest[0]]
    if best == -np.inf:
        raise ArgumentError(
            "sample: all known tokens have probability 0: give the n-gram model a smoothing above 0"
        )
    p = np.exp((log_p[likeliest] - best) / temperature)
    p /= p.sum()
    enough = np.searchsorted(p.cumsum(), top_p) + 1
    p = p[:enough] / p[:enough].sum()
    return 1 + int(rng.choice(likeliest[:enough], p=p))
