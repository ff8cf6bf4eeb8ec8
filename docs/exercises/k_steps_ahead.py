"""Predict the next k values from one window.

The model is linear and autoregressive: the prediction of the next value is the product of a window
of τ values, oldest first, and an array of τ coefficients. Each later prediction reads the earlier
ones in place of values. Return all k predictions.
"""

import numpy as np


def stub(window, coefficients, k):
    """Return an array of the k predictions."""
    predictions = []
    for _ in range(k):
        predictions.append(window @ coefficients)  # your code: the window must move
    return np.array(predictions)


def check(answer):
    """Raise an AssertionError unless the predictions equal powers of the companion matrix."""
    rng = np.random.default_rng(0)
    for tau in (1, 2, 5):
        window, coefficients = rng.normal(size=tau), rng.normal(size=tau) / tau
        before = window.copy()
        step = np.eye(tau, k=1)  # it moves the window by one value
        step[-1] = coefficients
        expected, state = [], window
        for _ in range(6):
            state = step @ state
            expected.append(state[-1])
        got = np.asarray(answer(window, coefficients, 6))
        assert got.shape == (6,), f"6 predictions are needed, the result has shape {got.shape}"
        assert np.array_equal(window, before), "the argument window was changed: copy it"
        for i in range(6):
            assert np.isclose(got[i], expected[i]), (
                f"τ = {tau}: prediction {i + 1} is {got[i]:.4f}, not {expected[i]:.4f}"
            )


def solution(window, coefficients, k):
    """Drop the oldest value and append the prediction, k times."""
    predictions = []
    for _ in range(k):
        predictions.append(window @ coefficients)
        window = np.append(window[1:], predictions[-1])
    return np.array(predictions)


def wrong(window, coefficients, k):
    """Append the prediction at the end of the oldest values."""
    predictions = []
    for _ in range(k):
        predictions.append(window @ coefficients)
        window = np.append(predictions[-1], window[:-1])
    return np.array(predictions)
