"""A limit without a branch.

A state whose norm exceeds `limit` is to be shortened to this norm; another one is kept. The stub
reads a value to decide: on a GPU the host waits for it in every time step, and the loop over time
cannot become one operation. Write it without a read. The argument `h` has the shape `(B, H)`, and
every row has a norm of its own.
"""

import numpy as np

import tinygrad_rnn as tg


def stub(h, limit):
    """Shorten the rows of h whose norm exceeds the limit."""
    norm = tg.sqrt((h**2).sum(axis=1, keepdims=True))
    if (norm > limit).numpy().any():  # a read
        h = h * (limit / norm)
    return h


def solution(h, limit):
    """Multiply every row by a factor, which is 1 for those that are short enough."""
    norm = tg.sqrt((h**2).sum(axis=1, keepdims=True))
    return h * tg.where(norm > limit, limit / norm, 1.0)


def wrong(h, limit):
    """Without a read, but short rows become longer."""
    norm = tg.sqrt((h**2).sum(axis=1, keepdims=True))
    return h * (limit / norm)


def check(answer):
    """Compare with NumPy, and ask the loop over time whether it is one operation."""

    class Limited(tg.nn.Cell):
        def __init__(self, input_size, hidden_size):
            super().__init__()
            self.hidden_size = hidden_size
            self.W = tg.nn.Linear(input_size, hidden_size)

        def step(self, x, h):
            return answer(tg.tanh(self.W(x) + h), 0.7)

    report = tg.nn.Recurrent(Limited, 2, 4).explain(tg.ones(5, 3, 2))[0]
    assert report.traced, f"the step reads a value: {report}"
    h = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, -2.0]])
    norm = np.linalg.norm(h, axis=1, keepdims=True)
    expected = np.where(norm > 1, h / norm, h)
    found = answer(tg.tensor(h), 1.0).numpy()
    assert np.allclose(found, expected), f"{h.tolist()} becomes {found.tolist()}, limit 1"
