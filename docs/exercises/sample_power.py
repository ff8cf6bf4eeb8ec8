"""Draw tokens in proportion to a power of their probabilities.

The answer gets logits, a float array with one number for each token, whose softmax is p; a number
α ≥ 0; a count n; and a generator of NumPy. It returns an integer array of n ids, drawn
independently with probabilities proportional to p^α. α = 0 is a uniform choice, and a large α
nearly always gives the most probable token. α can be 10,000, and the logits can be as low as
-10,000.
"""

import numpy as np


def stub(logits, alpha, n, rng):
    """Draw from a uniform distribution."""
    return rng.integers(len(logits), size=n)


def check(answer):
    """Compare shares with probabilities, then try numbers that overflow."""
    p = np.array([0.05, 0.3, 0.15, 0.1, 0.4])
    n = 20_000
    for alpha in (2.0, 0.5, 1.0, 0.0):
        expected = p**alpha / (p**alpha).sum()
        ids = answer(np.log(p) + 7, alpha, n, np.random.default_rng(0))
        assert len(ids) == n, f"{len(ids)} ids instead of {n}"
        share = np.bincount(ids, minlength=5) / n
        error = np.sqrt(expected * (1 - expected) / n)
        assert (abs(share - expected) < 5 * error).all(), (
            f"α = {alpha}: the shares are {share.round(3).tolist()}, and the probabilities "
            f"should be {expected.round(3).tolist()}"
        )
    for logits in (np.log(p), np.array([-10_000.0, -9_000, -10_000])):
        try:
            with np.errstate(over="raise", invalid="raise", divide="raise"):
                ids = answer(logits, 10_000.0, 100, np.random.default_rng(0))
        except (FloatingPointError, ValueError) as error:
            raise AssertionError(
                f"α = 10000, logits {logits.round(1).tolist()}: {error}"
            ) from error
        assert set(ids) == {int(logits.argmax())}, "α = 10000: not always the most probable token"


def solution(logits, alpha, n, rng):
    """Draw from the softmax of α times the logits."""
    scaled = alpha * (logits - logits.max())  # the largest is 0, so exp cannot overflow
    p = np.exp(scaled)
    return rng.choice(len(p), size=n, p=p / p.sum())


def wrong(logits, alpha, n, rng):
    """Divide by α, which is right for a temperature."""
    scaled = (logits - logits.max()) / alpha  # α is the inverse of a temperature
    p = np.exp(scaled)
    return rng.choice(len(p), size=n, p=p / p.sum())
