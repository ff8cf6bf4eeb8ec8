"""An embedding without one-hot vectors.

The answer gets ids, an integer array of any shape; a matrix W with one row for each token; and the
gradient of a loss by the result `one_hot(ids) @ W`. It returns this result and the gradient of the
loss by W, as NumPy arrays. With a vocabulary of 100,000 tokens one-hot vectors do not fit into
memory, so the answer makes none.
"""

import numpy as np

import tinygrad_rnn as tg


def stub(ids, W, grad):
    """Return the rows; the gradient is missing."""
    return W[ids], np.zeros_like(W)


def check(answer):
    """Compare with products of one-hot vectors, then try a large vocabulary."""
    rng = np.random.default_rng(0)
    for shape, V in [((4,), 9), ((7, 3), 5)]:  # some of 21 ids from 0 … 4 are equal
        ids = np.arange(4) if len(shape) == 1 else rng.integers(V, size=shape)
        W = tg.tensor(rng.normal(size=(V, 2)), requires_grad=True)
        grad = rng.normal(size=(*shape, 2))
        rows = tg.functional.one_hot(ids, V, dtype=tg.float64) @ W
        (expected,) = tg.grad(rows, [W], tg.tensor(grad))

        found, gradient = answer(ids, W.numpy(), grad)
        assert found.shape == rows.shape, (
            f"the result has the shape {found.shape}, not {rows.shape}"
        )
        assert np.allclose(found, rows.numpy()), "the result differs from one_hot(ids) @ W"
        differing = np.unique(np.nonzero(~np.isclose(gradient, expected.numpy()))[0]).tolist()
        assert not differing, f"ids {ids.tolist()}: the gradient is wrong in the rows {differing}"

    V = 100_000
    ids, W = np.array([[0, V - 1]] * 500), np.ones((V, 1), np.float32)
    found, gradient = answer(ids, W, np.ones((500, 2, 1), np.float32))
    assert gradient[0] == gradient[-1] == 500 and gradient.sum() == 1000


def solution(ids, W, grad):
    """Select rows, and add every gradient to the row of its id."""
    gradient = np.zeros_like(W)
    np.add.at(gradient, ids, grad)  # one sum for every use of a row
    return W[ids], gradient


def wrong(ids, W, grad):
    """Add with an index: of equal ids, only the last one counts."""
    gradient = np.zeros_like(W)
    gradient[ids] += grad  # of equal ids, only the last is added
    return W[ids], gradient
