r"""The backward pass of a loop, without a graph.

A network of numbers has the states $h_t = \tanh(x_t + w h_{t-1})$, $h_0 = 0$, and the loss
$L = \frac{1}{2} \sum_t (h_t - y_t)^2$. Return $\mathrm{d}L / \mathrm{d}w$ from the numbers
$w$, $x_t$ and $y_t$ with NumPy alone, in one loop forward and one backward. The check compares the
result with that of the graph.
"""

import numpy as np

import tinygrad_rnn as tg


def stub(w, x, y):
    """Return dL/dw."""
    h = [0.0]
    for x_t in x:
        h.append(np.tanh(x_t + w * h[-1]))
    gradient = 0.0
    for t in range(len(x), 0, -1):
        gradient += 0.0 * h[t - 1]  # put the share of step t here
    return gradient


def solution(w, x, y):
    """Carry delta = dL/dh_t backward in time."""
    h = [0.0]
    for x_t in x:
        h.append(np.tanh(x_t + w * h[-1]))
    gradient, delta = 0.0, 0.0
    for t in range(len(x), 0, -1):
        delta += h[t] - y[t - 1]  # from the loss at t; delta has the later losses already
        slope = delta * (1 - h[t] ** 2)  # before tanh
        gradient += slope * h[t - 1]
        delta = slope * w  # to the state before
    return gradient


def wrong(w, x, y):
    """Forget the later losses: this is truncation after one step."""
    h = [0.0]
    for x_t in x:
        h.append(np.tanh(x_t + w * h[-1]))
    gradient = 0.0
    for t in range(len(x), 0, -1):
        gradient += (h[t] - y[t - 1]) * (1 - h[t] ** 2) * h[t - 1]
    return gradient


def check(answer):
    """Compare with the gradient of the graph, for three lengths."""
    rng = np.random.default_rng(0)
    for steps in (2, 3, 12):
        x, y = rng.normal(size=steps), rng.normal(size=steps)
        w = tg.tensor(0.8, requires_grad=True, dtype=tg.float64)
        h, loss = tg.tensor(0.0, dtype=tg.float64), 0.0
        for x_t, y_t in zip(x, y, strict=True):
            h = tg.tanh(x_t + w * h)
            loss = loss + 0.5 * (h - y_t) ** 2
        expected = tg.grad(loss, [w])[0].item()
        got = float(answer(0.8, x, y))
        assert abs(got - expected) <= 1e-12 * abs(expected), (
            f"with {steps} steps the gradient is {expected:.6f}, got {got:.6f}: a state changes "
            "the loss of its own step and, through the next state, all later losses"
        )
