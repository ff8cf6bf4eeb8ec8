"""Write interpolated smoothing for n-grams of any order.

The list `tables` has the counts of 1-grams, 2-grams, and so on: that of k-grams has k axes of
length V, and the last one is the next token. The estimate of each order falls back on that of the
next lower order, with its constant of `eps`, and the lowest on 1 / V. Return the estimate of the
highest order.
"""

import numpy as np

import tinygrad_rnn as tg


def stub(tables, eps):
    """Return the probabilities of the next token, of the shape of the last table."""
    V = len(tables[0])
    P = np.full(V, 1 / V)
    for counts, e in zip(tables, eps, strict=True):
        P = (counts + e * P) / 1  # your code: the denominator
    return P


def check(answer):
    """Raise an AssertionError unless the probabilities are those of `tg.models.NGram`."""
    ids = np.random.default_rng(0).integers(1, 4, 30)
    V, eps = 4, (1.0, 2.0, 0.5, 3.0)
    tables = []
    for k in range(1, 5):
        counts = np.zeros((V,) * k)
        np.add.at(counts, tuple(ids[i : len(ids) - k + 1 + i] for i in range(k)), 1)
        tables.append(counts)
    for order in range(1, 5):
        P = np.asarray(answer(tables[:order], eps[:order]))
        assert P.shape == (V,) * order, f"order {order}: shape {P.shape}, not {(V,) * order}"
        assert np.allclose(P.sum(axis=-1), 1), f"order {order}: a distribution does not sum to 1"
        model = tg.models.NGram(order, V, smoothing=eps[:order]).fit(ids)
        for context in np.ndindex((V,) * (order - 1)):
            right = np.exp(model.log_probs(np.array(context, int)))
            assert np.allclose(P[context], right), (
                f"order {order}, after {context}: {P[context].round(3)}, not {right.round(3)}"
            )


def solution(tables, eps):
    """Let broadcasting align the last axes: the first token has no effect on the fallback."""
    V = len(tables[0])
    P = np.full(V, 1 / V)
    for counts, e in zip(tables, eps, strict=True):
        P = (counts + e * P) / (counts.sum(axis=-1, keepdims=True) + e)
    return P


def wrong(tables, eps):
    """Fall back on the estimate without any context, as in the book's third line."""
    V = len(tables[0])
    P1 = P = (tables[0] + eps[0] / V) / (tables[0].sum() + eps[0])
    for counts, e in zip(tables[1:], eps[1:], strict=True):
        P = (counts + e * P1) / (counts.sum(axis=-1, keepdims=True) + e)
    return P
