r"""The bias of a half-life.

After `steps` steps half of a memory must be left: the product of `steps` equal gates $\sigma(b)$
is 1/2. Return the bias $b$ for any number of steps from 1 to a million.
"""

import numpy as np

import tinygrad_rnn as tg


def stub(steps):
    """Return the bias."""
    return 0.0


def solution(steps):
    """Solve σ(b) = 2^(-1/n): the odds of f are e^b = f / (1 - f)."""
    f = 0.5 ** (1 / steps)
    return np.log(f / (1 - f))


def wrong(steps):
    """Use the formula of the memory time, after which 1/e is left, or less."""
    return np.log(steps - 1) if steps > 1 else 0.0


def check(answer):
    """Multiply the gates, in the form of a gradient for short times."""
    for steps in (1, 2, 10, 60):
        b, c = tg.tensor(float(answer(steps)), dtype=tg.float64), tg.tensor(1.0, requires_grad=True)
        left = c
        for _ in range(steps):
            left = tg.sigmoid(b) * left
        share = tg.grad(left, [c])[0].item()
        assert abs(share - 0.5) < 1e-6, f"after {steps} steps {share:.4f} is left, not 0.5"
    for steps in (1000, 1_000_000):
        share = np.exp(-steps * np.logaddexp(0, -float(answer(steps))))
        assert abs(share - 0.5) < 1e-6, f"after {steps} steps {share:.4f} is left, not 0.5"
