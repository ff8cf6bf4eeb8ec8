"""Write an operation for `micro.py`: the logistic function 1 / (1 + exp(-x)) of an array.

The answer takes an array and returns two things: the result, and its vjp, a function from the
gradient g of the result to the gradient of x. The formula of the vjp needs the result only.
"""

import numpy as np


def stub(x):
    out = 1 / (1 + np.exp(-x))
    return out, lambda g: g  # not the vjp yet


def check(answer):
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
    out = 1 / (1 + np.exp(-x))
    return out, lambda g: g * out * (1 - out)


def wrong(x):
    out = 1 / (1 + np.exp(-x))
    return out, lambda g: g * (1 - out * out)  # the rule of tanh
