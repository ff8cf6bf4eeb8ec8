r"""Clipping and vanishing gradients.

In $h_t = w h_{t-1} + x_t$ the gradients of $h_T$ by the inputs $x_1, \dots, x_T$ are
$w^{T-1}, \dots, w, 1$. Together they are one vector $g$, which is clipped to the norm $\theta$.
Return the factor that multiplies $g$, and the ratio of the first element to the last one after
clipping. Does clipping help against vanishing gradients: can it increase the ratio, or the first
element?
"""

import numpy as np

import tinygrad_rnn as tg


def stub(w, T, theta):
    """Return the factor, and g_1 / g_T after clipping."""
    g = w ** np.arange(T - 1, -1, -1.0)
    factor = 1.0
    clipped = factor * g
    return factor, clipped[0] / clipped[-1]


def solution(w, T, theta):
    """Never: one factor for all elements, and it is at most 1."""
    g = w ** np.arange(T - 1, -1, -1.0)
    factor = min(1.0, theta / np.linalg.norm(g))
    clipped = factor * g
    return factor, clipped[0] / clipped[-1]


def wrong(w, T, theta):
    """Scale every gradient to the norm θ: this would make small ones larger."""
    g = w ** np.arange(T - 1, -1, -1.0)
    factor = theta / np.linalg.norm(g)
    clipped = factor * g
    return factor, clipped[0] / clipped[-1]


def check(answer):
    """Compare with the gradients of the graph, clipped by `tg.optim.clip_grad_norm`."""
    T, theta = 20, 5.0
    for w in (1.3, 0.7):
        x = tg.zeros(T, dtype=tg.float64, requires_grad=True)
        h = tg.tensor(0.0, dtype=tg.float64)
        for x_t in x:
            h = w * h + x_t
        h.backward()
        before = x.grad.numpy().copy()
        tg.optim.clip_grad_norm([x], theta)
        after = x.grad.numpy()
        factor, ratio = answer(w, T, theta)
        norm = np.linalg.norm(before)
        assert np.isclose(factor, after[0] / before[0]), (
            f"with w = {w} the norm is {norm:.2f} and θ is {theta}, so the factor is "
            f"{after[0] / before[0]:.4f}, got {factor:.4f}: clipping limits a norm, it never "
            "increases one"
        )
        assert np.isclose(ratio, after[0] / after[-1]), (
            f"with w = {w} the ratio is {after[0] / after[-1]:.3g}, got {ratio:.3g}"
        )
