"""An operation for micro.py.

Write the logistic function 1 / (1 + exp(-x)). The answer takes an array and returns two things:
the result, and its vjp, a function from the gradient g of the result to the gradient of x. The
formula of the vjp needs the result only.
"""

import numpy as np


def stub(x):
    """Return the result, and the vjp."""
    out = 1 / (1 + np.exp(-x))
    return out, lambda g: g


def check(answer):
    """Compare with central differences."""
    x = np.linspace(-4, 4, 9).reshape(3, 3)
    g = np.cos(np.arange(9.0)).reshape(3, 3)
    out, vjp = answer(x)
    assert np.allclose(out, 1 / (1 + np.exp(-x)), rtol=1e-12), "the result is not 1 / (1 + exp(-x))"
    h = 1e-5
    slope = (answer(x + h)[0] - answer(x - h)[0]) / (2 * h)
    found = vjp(g)
    assert np.shape(found) == x.shape, f"the gradient has shape {np.shape(found)}, x has {x.shape}"
    i = np.unravel_index(np.argmax(np.abs(found - g * slope)), x.shape)
    assert np.allclose(found, g * slope, rtol=1e-6, atol=1e-9), (
        f"at x = {x[i]} with g = {g[i]:.3f} the vjp is {found[i]:.6f}, "
        f"and central differences give {g[i] * slope[i]:.6f}"
    )


def solution(x):
    """Use the derivative s (1 - s) of the logistic function s."""
    out = 1 / (1 + np.exp(-x))
    return out, lambda g: g * out * (1 - out)


def wrong(x):
    """Use the rule of tanh."""
    out = 1 / (1 + np.exp(-x))
    return out, lambda g: g * (1 - out * out)
