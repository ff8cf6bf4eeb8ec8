"""The backward direction over padded sequences.

A bidirectional layer reads each sequence also from its end. Write the reversal: the answer takes an
array (T, B) of ids in which column b has `lengths[b]` ids and then padding, and returns an array of
the same shape. Each sequence is reversed, and the padding is where it was.
"""

import numpy as np

import tinygrad_rnn as tg


def stub(ids, lengths):
    """Return the sequences from their ends."""
    return ids


def solution(ids, lengths):
    """Step t of a sequence of n steps is step n - 1 - t; a step of the padding is itself."""
    t, n = np.arange(len(ids))[:, None], np.asarray(lengths)
    return np.take_along_axis(ids, np.where(t < n, n - 1 - t, t), axis=0)


def wrong(ids, lengths):
    """Reverse the time axis: a short sequence begins with its padding."""
    return ids[::-1]


def check(answer):
    """Compare with each sequence alone, then with the layer's own backward direction."""
    rng, lengths = np.random.default_rng(0), [6, 1, 4, 0, 3]
    ids = rng.integers(1, 9, size=(6, 5))
    ids[np.arange(6)[:, None] >= np.array(lengths)] = 0
    before = ids.copy()
    result = np.asarray(answer(ids, lengths))
    assert np.array_equal(ids, before), "the argument was changed; return a new array"
    assert result.shape == ids.shape, f"the shape is {result.shape}, not {ids.shape}"
    for b, n in enumerate(lengths):
        assert np.array_equal(result[:n, b], ids[:n, b][::-1]), (
            f"the sequence {ids[:n, b].tolist()} and its padding {ids[n:, b].tolist()} become "
            f"{result[:, b].tolist()}"
        )
        assert (result[n:, b] == 0).all(), f"sequence {b}: the padding is not at the end"

    both = tg.nn.GRU(9, 4, bidirectional=True, dtype=tg.float64, rng=1)
    one = tg.nn.Recurrent([both.cells[1]], 9, 4)  # the cell of the backward direction
    x, y = (tg.functional.one_hot(a, 9, dtype=tg.float64) for a in (ids, result))
    found, expected = one(y, lengths=lengths)[1].numpy()[0], both(x, lengths=lengths)[1].numpy()[1]
    assert np.allclose(found, expected), "the final states differ from those of the layer"
