"""The gradient of an argument that NumPy has broadcast.

The answer takes the gradient of a result and the shape of an argument. It returns the gradient of
the argument, an array of this shape. Try it without the code of the page.
"""

import numpy as np


def stub(grad, shape):
    """Return the gradient of the argument."""
    return grad


def check(answer):
    """Compare with sums over the uses of each element."""
    cases = [((4, 3), (4, 3)), ((4, 3), (3,)), ((4, 3), (4, 1)), ((2, 4, 3), (1, 3)), ((2, 3), ())]
    for large, small in cases:
        g = np.arange(1.0, 1 + np.prod(large)).reshape(large)
        found = np.asarray(answer(g, small))
        # Each element of the argument is used where its own number is.
        places = np.broadcast_to(np.arange(np.prod(small, dtype=int)).reshape(small), large)
        expected = np.bincount(places.ravel(), weights=g.ravel()).reshape(small)
        assert found.shape == small, f"{large} to {small}: the answer has the shape {found.shape}"
        assert np.allclose(found, expected), (
            f"{large} to {small}: the answer is {found.tolist()}; the sums over the uses of each "
            f"element are {expected.tolist()}"
        )


def solution(grad, shape):
    """Sum over the new axes, and over those of length 1."""
    extra = grad.ndim - len(shape)
    ones = [i + extra for i, n in enumerate(shape) if n == 1]
    return grad.sum(axis=(*range(extra), *ones), keepdims=True).reshape(shape)


def wrong(grad, shape):
    """Take the mean: an element that is used twice has half of its gradient."""
    extra = grad.ndim - len(shape)
    ones = [i + extra for i, n in enumerate(shape) if n == 1]
    return grad.mean(axis=(*range(extra), *ones), keepdims=True).reshape(shape)
