r"""The variance of a randomized factor.

In randomized truncation $\xi = 1/\pi$ with the probability $\pi$, else 0. Show that
$\mathrm{Var}\, \xi = 1/\pi - 1$ in two ways. *Exactly*: compute the variance from the two outcomes
and their probabilities, with sums and products only (the check passes fractions, so nothing is
rounded). *By an estimate*: the variance of many weights that `tg.bptt.Randomized` draws.
"""

from fractions import Fraction

import numpy as np

import tinygrad_rnn as tg


def stub(keep, draws):
    """Return the exact variance and an estimate from so many draws; `keep` is π."""
    outcomes = {0: 1 - keep, 1 / keep: keep}  # a value of ξ: its probability
    exact = 0 * sum(outcomes)
    weights = tg.bptt.Randomized(float(keep), rng=0).weights(draws + 1)[1:]
    return exact, 0 * sum(weights)


def solution(keep, draws):
    """Take the mean square minus the square of the mean."""
    outcomes = {0: 1 - keep, 1 / keep: keep}
    mean = sum(p * xi for xi, p in outcomes.items())
    exact = sum(p * xi**2 for xi, p in outcomes.items()) - mean**2
    # The first weight is for the edge from the initial state, which is always kept.
    weights = tg.bptt.Randomized(float(keep), rng=0).weights(draws + 1)[1:]
    return exact, np.var(weights)


def wrong(keep, draws):
    """Take the variance of the decision to keep, without the factor 1/π."""
    weights = tg.bptt.Randomized(float(keep), rng=0).weights(draws + 1)[1:]
    return keep * (1 - keep), np.var(np.array(weights) > 0)


def check(answer):
    """Compare with 1/π - 1, exactly and within 5 %."""
    for keep in (Fraction(1, 2), Fraction(4, 5), Fraction(9, 10)):
        exact, estimate = answer(keep, 100_000)
        assert exact == 1 / keep - 1, (
            f"for π = {keep} the variance is {1 / keep - 1}, got {exact}: ξ has the values 0 and "
            f"{1 / keep}, and the mean 1"
        )
        assert abs(estimate / float(exact) - 1) < 0.05, (
            f"for π = {keep} the variance is {float(exact):.4f}, your estimate is {estimate:.4f}"
        )
