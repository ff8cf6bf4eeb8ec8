"""The rule of log cosh.

The logarithm of cosh(x) is a smooth loss, for large x nearly |x| - log(2). Its forward is
`xp.logaddexp(x, -x) - log(2)`, which does not overflow. Write the vjp for `tg.primitive`: from the
gradient `g` of the result to the gradient of `x`. It must be right for 800, too. Use operators and
functions of `F`.
"""

import warnings

import numpy as np

import tinygrad_rnn as tg


def stub(F, g, x):
    """Return the gradient of x."""
    return g


def solution(F, g, x):
    """Return g sinh(x) / cosh(x), which is g tanh(x)."""
    return g * F.tanh(x)


def wrong(F, g, x):
    """Write out sinh and cosh: the exponential of 800 is infinite."""
    return g * (F.exp(x) - F.exp(-x)) / (F.exp(x) + F.exp(-x))


def check(answer):
    """Check both derivatives, and the gradient at large arguments."""

    @tg.primitive(floating=True, x=answer)
    def log_cosh(xp, x):
        return xp.logaddexp(x, -x) - np.log(2)

    try:
        tg.gradcheck(log_cosh, np.array([-2.0, -0.5, 0.0, 0.3, 1.5]), order=2)
    except tg.errors.GradcheckError as error:
        raise AssertionError(str(error)) from error
    x = tg.tensor([800.0, -800.0], dtype=tg.float64, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log_cosh(x).sum().backward()
    found = x.grad.numpy()
    assert np.allclose(found, [1, -1]), f"at 800 and -800 the gradient is {found}, not [1, -1]"
