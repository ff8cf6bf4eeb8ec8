"""Make the examples of an autoregressive model.

The model learns from every window of τ values and the value after it. From a series of T values
make X of shape (T - τ, τ), oldest value first, and y of shape (T - τ,).
"""

import numpy as np


def stub(series, tau):
    """Return X and y."""
    X = np.zeros((len(series) - tau, tau))
    y = np.zeros(len(series) - tau)
    # your code
    return X, y


def check(answer):
    """Raise an AssertionError unless the windows and their targets are right."""
    series = np.arange(10.0) ** 2
    for tau in (1, 3, 9):
        X, y = (np.asarray(array) for array in answer(series, tau))
        rows = len(series) - tau
        assert X.shape == (rows, tau), f"τ = {tau}: X has shape {X.shape}, not {(rows, tau)}"
        assert y.shape == (rows,), f"τ = {tau}: y has shape {y.shape}, not {(rows,)}"
        for row in range(rows):
            target = series[row + tau]
            assert y[row] == target, f"τ = {tau}: target {row} is {y[row]}, not {target}"
            assert target not in X[row], f"τ = {tau}: row {row} contains its target, {target}"
            expected = series[row : row + tau]
            assert (X[row] == expected).all(), f"τ = {tau}: row {row} is {X[row]}, not {expected}"


def solution(series, tau):
    """Slide a window over all values except the last."""
    X = np.lib.stride_tricks.sliding_window_view(series[:-1], tau)
    return X, series[tau:]


def wrong(series, tau):
    """Let the window end at its target, so that a perfect prediction is a copy."""
    X = np.lib.stride_tricks.sliding_window_view(series, tau)[1:]
    return X, series[tau:]
