"""Cut a text into the minibatches of the sequential partition.

Skip `offset` tokens and divide the rest into B columns of equal length L, as long as possible; the
last token is only a label. Cut the columns into windows of T rows and drop the rest. Return a list
of pairs (x, y) of arrays of shape (T, B): y is x one token later, and row 0 of a window follows
the last row of the window before it.
"""

import itertools

import numpy as np


def stub(ids, B, T, offset):
    """Return the list of pairs (x, y)."""
    L = (len(ids) - offset - 1) // B
    pairs = []
    for _ in range(L // T):
        x = y = np.zeros((T, B), int)  # your code
        pairs.append((x, y))
    return pairs


def check(answer):
    """Raise an AssertionError unless shift, order and size are right; the ids are positions."""
    for n, B, T, offset in ((50, 2, 5, 0), (50, 3, 4, 2), (21, 1, 3, 1)):
        pairs = answer(np.arange(n), B, T, offset)
        L = (n - offset - 1) // B
        assert len(pairs) == L // T, f"{L // T} windows fit into {L} rows, not {len(pairs)}"
        for i, (x, y) in enumerate(pairs):
            for array in (x, y):
                assert np.shape(array) == (T, B), f"window {i}: {np.shape(array)}, not {(T, B)}"
            assert np.array_equal(y, x + 1), f"window {i}: y must be x one token later"
        assert pairs[0][0][0, 0] == offset, f"the first token must be number {offset}"
        for i, ((before, _), (after, _)) in enumerate(itertools.pairwise(pairs)):
            assert np.array_equal(after[0], before[-1] + 1), (
                f"window {i} ends at {before[-1]}, window {i + 1} begins at {after[0]}: each "
                "column must continue"
            )
        used = np.concatenate([x for x, _ in pairs])
        assert (np.diff(used[0]) == L).all(), f"the columns must be {L} tokens apart"


def solution(ids, B, T, offset):
    """Reshape to one row for each column, and transpose: time is the first axis."""
    L = (len(ids) - offset - 1) // B
    x = ids[offset : offset + B * L].reshape(B, L).T
    y = ids[offset + 1 : offset + 1 + B * L].reshape(B, L).T
    return [(x[start : start + T], y[start : start + T]) for start in range(0, L - T + 1, T)]


def wrong(ids, B, T, offset):
    """Reshape to (L, B) directly: neighbours in the text are then in different columns."""
    L = (len(ids) - offset - 1) // B
    x = ids[offset : offset + B * L].reshape(L, B)
    y = ids[offset + 1 : offset + 1 + B * L].reshape(L, B)
    return [(x[start : start + T], y[start : start + T]) for start in range(0, L - T + 1, T)]
