r"""The best number of segments of a checkpointed pass.

A checkpointed pass over $T$ steps in $n$ segments keeps one state for each segment. In the backward
pass it computes the steps of one segment at a time again and keeps their states meanwhile, at most
$\lceil T / n \rceil$. Return an $n$ for which the sum of both is smallest.
"""

import math


def stub(T):
    """Return the number of segments."""
    return 1  # one segment: all steps are computed again at once


def solution(T):
    """Take the root: n + T/n is smallest where both are equal."""
    return math.isqrt(T)


def wrong(T):
    """Make a segment of every step: one step is computed again at a time, but all are kept."""
    return T


def check(answer):
    """Compare with the best of all numbers of segments."""

    def states(T, n):
        return n + math.ceil(T / n)

    for T in (7, 35, 100, 1000):
        n = answer(T)
        assert n in range(1, T + 1), f"for T = {T} the number is from 1 to {T}, got {n}"
        best = min(range(1, T + 1), key=lambda n: states(T, n))
        assert states(T, n) == states(T, best), (
            f"T = {T} in {n} segments keeps {states(T, n)} states at most; in {best} segments it "
            f"keeps {states(T, best)}"
        )
