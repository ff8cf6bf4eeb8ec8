"""Automatic differentiation and a recurrent network in one file, to read and single-step.

    python examples/micro.py

CONTRIBUTING.md maps it to the real engine. The task: predict each next character of TEXT.
"""

import argparse
from heapq import heappop, heappush
from itertools import accumulate, count

import numpy as xp  # on a GPU: import cupy as xp

TEXT = "the rain in spain stays mainly in the plain."
tick = count().__next__  # numbers the nodes: a node is younger than its parents


class Node:
    """An operation in the graph; one without parents is a leaf, and keeps its gradient."""

    def __init__(self, shape, parents=(), vjp=lambda grad: []):
        self.order, self.shape, self.parents, self.grad = tick(), shape, parents, 0
        self.vjp = vjp  # from the gradient of the result to the gradient of each argument


class Tensor:
    """An array, and its node in the graph (None: no gradient is needed)."""

    def __init__(self, data, requires_grad=False):
        self.data = xp.asarray(data, dtype=float)
        self.node = Node(self.data.shape) if requires_grad else None


def record(data, arguments, vjp):
    """Return the result of an operation, with a node if an argument has one."""
    result, parents = Tensor(data), [x.node for x in arguments]
    result.node = Node(result.data.shape, parents, vjp) if any(parents) else None
    return result


# -- operations: the result of each, and its vector-Jacobian product ----------------------


def add(x, y):
    return record(x.data + y.data, [x, y], lambda g: [g, g])


def multiply(x, y):
    a, b = x.data, y.data
    return record(a * b, [x, y], lambda g: [g * b, g * a])


def tanh(x):
    out = xp.tanh(x.data)
    return record(out, [x], lambda g: [g * (1 - out * out)])


def sum(x, axis=None, keepdims=False):
    shape, kept = x.data.shape, x.data.sum(axis=axis, keepdims=True).shape
    out = x.data.sum(axis=axis, keepdims=keepdims)
    return record(out, [x], lambda g: [xp.broadcast_to(g.reshape(kept), shape)])


def matmul(x, y):
    a = x.data if x.data.ndim > 1 else x.data[None, :]  # a vector is a matrix of one row
    b = y.data if y.data.ndim > 1 else y.data[:, None]  # or, at the right, of one column
    product, y_shape = a @ b, y.data.shape

    def vjp(g):
        g = g.reshape(product.shape)
        to_x, to_y = g @ b.swapaxes(-1, -2), a.swapaxes(-1, -2) @ g
        return [to_x, to_y if len(y_shape) > 1 else to_y[..., 0]]

    return record(x.data @ y.data, [x, y], vjp)


def concatenate(tensors, axis=0):
    arrays = [x.data for x in tensors]
    ends = list(accumulate(a.size if axis is None else a.shape[axis] for a in arrays))

    def vjp(g):
        parts = xp.split(g, ends[:-1], axis=axis or 0)
        return [part.reshape(x.data.shape) for part, x in zip(parts, tensors, strict=True)]

    return record(xp.concatenate(arrays, axis=axis), tensors, vjp)


Tensor.__add__, Tensor.__mul__, Tensor.__matmul__ = add, multiply, matmul

# -- the backward pass --------------------------------------------------------------------


def unbroadcast(grad, shape):
    """Sum a gradient over the axes along which its argument was broadcast."""
    extra = grad.ndim - len(shape)
    axes = (*range(extra), *(i + extra for i, n in enumerate(shape) if n == 1))
    return grad.sum(axis=axes, keepdims=True).reshape(shape) if axes else grad


def backward(loss):
    """Add the gradient of `loss` to the `grad` of each leaf: the youngest node first."""
    grads, waiting = {loss.node: xp.ones(loss.data.shape)}, [(-loss.node.order, loss.node)]
    while waiting:
        node = heappop(waiting)[1]  # its users are done: its gradient is complete
        grad = grads.pop(node)
        if not node.parents:
            node.grad = node.grad + grad
        for parent, part in zip(node.parents, node.vjp(grad), strict=True):
            if parent is not None:
                if parent not in grads:
                    heappush(waiting, (-parent.order, parent))
                grads[parent] = grads.get(parent, 0) + unbroadcast(part, parent.shape)


# -- a recurrent network, and its training ------------------------------------------------


def rnn(x, W, b, V, c):
    """Return h_t V + c for all t (T, V), where h_t = tanh([x_t, h_{t-1}] W + b)."""
    h, states = Tensor(xp.zeros((1, b.data.size))), []
    for t in range(len(x)):
        h = tanh(concatenate([Tensor(x[t : t + 1]), h], axis=1) @ W + b)
        states.append(h)
    return concatenate(states) @ V + c


def main():
    parser = argparse.ArgumentParser(description="Learn a line of text by heart.")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--smoke", action="store_true", help="30 steps, no target")
    args = parser.parse_args()
    alphabet, rng = sorted(set(TEXT)), xp.random.default_rng(0)
    text = xp.eye(len(alphabet))[[alphabet.index(character) for character in TEXT]]
    x, target, V, H = text[:-1], text[1:], len(alphabet), 32
    leaves = [Tensor(rng.normal(0, 0.1, n), True) for n in [(V + H, H), H, (H, V), V]]
    for step in range(31 if args.smoke else max(args.steps, 0) + 1):
        outputs = rnn(x, *leaves)
        right = int((outputs.data.argmax(axis=1) == target.argmax(axis=1)).sum())
        error = outputs + Tensor(-target)
        loss = sum(error * error) * Tensor(1 / len(x))
        if step % (10 if args.smoke else 100) == 0:
            print(f"step {step}: loss {float(loss.data):.4f}, {right} of {len(x)} correct")
        backward(loss)
        for leaf in leaves:
            leaf.data, leaf.node.grad = leaf.data - 0.05 * leaf.node.grad, 0
    return int(not args.smoke and right < len(x))


if __name__ == "__main__":
    raise SystemExit(main())
