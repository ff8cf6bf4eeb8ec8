"""Estimate Zipf's exponent.

The counts of words are sorted, the largest first. Up to chance they follow `n_r ∝ r**-α` for the
rank `r`. Return an estimate of α. The check draws counts with a known α; the estimate must be
within 0.06 of it.
"""

import numpy as np


def stub(counts):
    """Return the estimate of α."""
    alpha = 0.0  # your code
    return alpha


def check(answer):
    """Raise an AssertionError unless the estimate is near the true exponent of drawn counts."""
    for seed, alpha in enumerate((0.8, 1.0, 1.2)):
        p = np.arange(1.0, 20_001) ** -alpha
        counts = np.random.default_rng(seed).multinomial(50_000, p / p.sum())
        counts = np.sort(counts[counts > 0])[::-1]
        estimate = float(answer(counts))
        assert abs(estimate - alpha) < 0.06, (
            f"drawn with α = {alpha}, estimated {estimate:.3f}: α is positive, the logarithms of "
            "counts and ranks are near a line, and words that occur once or twice are far from it"
        )


def solution(counts):
    """Fit a line to the logarithms of the 300 most frequent words."""
    counts = counts[:300]
    slope, _ = np.polyfit(np.log(np.arange(1, len(counts) + 1)), np.log(counts), 1)
    return -slope


def wrong(counts):
    """Fit the line to all words; most of them are rare, and they decide the slope."""
    slope, _ = np.polyfit(np.log(np.arange(1, len(counts) + 1)), np.log(counts), 1)
    return -slope
