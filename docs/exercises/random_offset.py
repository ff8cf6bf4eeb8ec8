"""Find out whether a random offset makes all sequences equally likely.

A text has n tokens. In each epoch an offset is drawn uniformly from 0 … T - 1, and the text after
it is cut into windows of T tokens, as long as the label of the last token is in the text. Return
two arrays of length n: the probability that a window begins at a position, and the probability
that the token there is in some window.
"""

import numpy as np


def stub(n, T):
    """Return the probabilities of the sequences and of the tokens."""
    begins = np.zeros(n)
    is_input = np.zeros(n)
    # your code
    return begins, is_input


def check(answer):
    """Raise an AssertionError unless the arrays equal a count over all offsets."""
    for n, T in ((20, 4), (23, 5), (9, 1)):
        begins, is_input = np.zeros(n), np.zeros(n)
        for offset in range(T):
            for first in range(offset, n - T, T):  # token first + T is the last label
                begins[first] += 1 / T
                is_input[first : first + T] += 1 / T
        names = "a window begins", "the token is in a window"
        for name, got, right in zip(names, answer(n, T), (begins, is_input), strict=True):
            got = np.asarray(got)
            assert got.shape == (n,), f"an array of n = {n} numbers is needed, not {got.shape}"
            for i in range(n):
                assert np.isclose(got[i], right[i]), (
                    f"n = {n}, T = {T}, position {i}: {name} with probability {right[i]:.3f}, "
                    f"not {got[i]:.3f}"
                )


def solution(n, T):
    """Every sequence that has a label has one offset; a token is in up to T sequences."""
    i = np.arange(n)
    begins = np.where(i < n - T, 1 / T, 0)
    sequences = np.minimum(i, n - T - 1) - np.maximum(i - T + 1, 0) + 1
    return begins, np.maximum(sequences, 0) / T


def wrong(n, T):
    """Forget the ends: the label after the last token, and the few sequences at the edges."""
    return np.full(n, 1 / T), np.ones(n)
