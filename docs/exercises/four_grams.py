"""Count the four-grams of a vocabulary of 100,000 words.

For a vocabulary of V words and a text of N words, return three exact integers: the number of
possible four-grams; the number of all possible n-grams of the orders 1 to 4, whose counts a table
would hold; and the largest number of different four-grams that the text can contain.
"""

import numpy as np


def stub(V, N):
    """Return the three numbers."""
    possible = every_order = in_text = 0  # your code
    return possible, every_order, in_text


def check(answer):
    """Raise an AssertionError unless the three numbers are right, for small and large V."""
    cases = {
        (2, 10): (16, 30, 7),  # the text is shorter than the list of four-grams
        (2, 1000): (16, 30, 16),  # and longer
        (100_000, 10**9): (10**20, 10**5 + 10**10 + 10**15 + 10**20, 10**9 - 3),
        (3, 2): (81, 120, 0),
    }
    names = "possible four-grams", "counts of all orders", "four-grams in the text"
    for (V, N), expected in cases.items():
        for name, value, right in zip(names, answer(V, N), expected, strict=True):
            assert value == right, f"V = {V:,}, N = {N:,}: {value:,} {name}, not {right:,}"


def solution(V, N):
    """Each of four places has V choices; a text has one four-gram for each place where it fits."""
    possible = V**4
    every_order = V + V**2 + V**3 + V**4
    return possible, every_order, min(possible, max(N - 3, 0))


def wrong(V, N):
    """Compute in int64, which ends at 9 · 10^18: the product overflows without an error."""
    powers = np.cumprod(np.full(4, V, np.int64))
    return int(powers[-1]), int(powers.sum()), min(int(powers[-1]), max(N - 3, 0))
