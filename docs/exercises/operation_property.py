"""A test that can fail.

The answer is a test of an operation `multiply(x, y)`, which is to return the product of two float64
arrays. It raises an error if the operation is wrong for these arrays, and does nothing otherwise.
The check runs it on the right operation and on four wrong ones. An error of any kind counts.
"""

import numpy as np

import tinygrad_rnn as tg


def stub(multiply, x, y):
    """Test the operation for the arrays x and y."""
    tg.gradcheck(multiply, [x, y], order=1)


def solution(multiply, x, y):
    """Compare the values with NumPy's, and check two orders of derivatives."""
    assert np.allclose(multiply(x, y).numpy(), x * y)
    tg.gradcheck(multiply, [x, y], order=2)


def wrong(multiply, x, y):
    """Check derivatives alone: those of another function can be right, too."""
    tg.gradcheck(multiply, [x, y], order=2)


def check(answer):
    """Run the test on operations that are right and wrong."""
    x, y = np.array([0.5, -1.5]), np.array([2.0, -0.7])

    def operation(forward, to_x, to_y):
        return tg.primitive(x=to_x, y=to_y)(forward)

    def product(xp, x, y):
        return x * y

    def to_x(F, g, y):
        return g * y

    def to_y(F, g, x):
        return g * x

    def one_more(xp, x, y):
        return x * y + 1

    kept = {}

    def product_that_keeps_y(xp, x, y):
        kept["y"] = y
        return x * y

    answer(operation(product, to_x, to_y), x, y)  # an error here: the right one was refused
    planted = {
        "the vjp of y returns g": operation(product, to_x, lambda F, g, x: g),
        "the vjp of x reads a kept array in place of y": operation(
            product_that_keeps_y, lambda F, g: g * kept["y"], to_y
        ),
        "the result is x y + 1": operation(one_more, to_x, to_y),
        "the vjp of x has the wrong sign": operation(product, lambda F, g, y: -g * y, to_y),
    }
    for title, wrong_operation in planted.items():
        try:
            answer(wrong_operation, x, y)
        except Exception:  # this error is wanted
            continue
        raise AssertionError(f"the test passes although {title}")
