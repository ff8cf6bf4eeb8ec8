"""Compute the perplexity of a text that is scored in pieces.

Each piece is an array of the probabilities that a model gave to its tokens. The pieces can have
different lengths. Return the perplexity of all of them together.
"""

import numpy as np


def stub(pieces):
    """Return the perplexity."""
    perplexity = 0.0  # your code
    return perplexity


def check(answer):
    """Raise an AssertionError unless the result is the perplexity of the joined pieces."""
    uniform = answer([np.full(7, 1 / 28), np.full(2, 1 / 28)])
    assert np.isclose(uniform, 28), f"uniform over 28 tokens has perplexity 28, not {uniform:.3f}"
    assert np.isclose(answer([np.ones(5)]), 1), "a model that is always right has perplexity 1"
    easy, hard = np.full(30, 1 / 2), np.full(10, 1 / 16)
    got, right = answer([easy, hard]), 2 ** ((30 * 1 + 10 * 4) / 40)
    assert np.isclose(got, right), (
        f"30 tokens of 1 bit and 10 of 4 bits: the mean is 1.75 bits, so 2^1.75 = {right:.3f}, "
        f"not {got:.3f}: add the losses of all tokens before any mean"
    )


def solution(pieces):
    """Average the losses of all tokens, then apply exp once."""
    return np.exp(-np.mean(np.log(np.concatenate(pieces))))


def wrong(pieces):
    """Average the perplexities of the pieces."""
    return np.mean([np.exp(-np.mean(np.log(piece))) for piece in pieces])
