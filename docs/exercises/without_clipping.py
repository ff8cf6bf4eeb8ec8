"""Train without clipping, and with ReLU in place of tanh.

The answer trains a network by gradient descent. It gets the list of its parameters; a function that
returns the loss of a minibatch, `loss_of(x, y)`; a list of minibatches (x, y), one for each step; a
learning rate; and the threshold θ of the norm of the whole gradient, infinite for training without
clipping. It returns the list of the losses. If a loss or the norm of its gradient is not finite,
the answer changes no parameter and returns the losses before this one.

The check trains four networks, with tanh and ReLU, with and without clipping. Print the losses
that the answer returns, and compare them. With tanh the states are bounded, so that the loss is
high but finite. With ReLU a state can grow by a factor at every time step, until it overflows.
"""

import math

import numpy as np

import tinygrad_rnn as tg

RATE, THETA, STEPS = 8.0, 0.25, 40
TEXT = "the time traveller for so it will be convenient to speak of him was expounding a matter "


def stub(params, loss_of, minibatches, rate, theta):
    """Train without clipping."""
    losses = []
    for x, y in minibatches:
        loss = loss_of(x, y)
        for p in params:
            p.grad = None
        loss.backward()
        with tg.no_grad():
            for p in params:
                p -= rate * p.grad
        losses.append(loss.item())
    return losses


def check(answer):
    """Train with tanh and ReLU, with and without clipping."""
    vocab = tg.data.text.Vocabulary(TEXT)
    V, H = len(vocab), 64
    ids = vocab.encode(TEXT * 16)
    minibatches = list(tg.data.text.random(ids, batch_size=8, steps=24, rng=0))
    minibatches = [minibatches[i % len(minibatches)] for i in range(STEPS)]

    def train(phi, theta):
        rng = np.random.default_rng(0)
        shapes = [(V, H), (H, H), (H,), (H, V), (V,)]
        scales = [1, H**-0.5, 0, H**-0.5, 0]
        params = [
            tg.tensor(s * rng.normal(size=n), dtype=tg.float32, requires_grad=True)
            for n, s in zip(shapes, scales, strict=True)
        ]
        W_xh, W_hh, b_h, W_hq, b_q = params
        moves, before = [], None

        def loss_of(x, y):
            nonlocal before
            now = np.concatenate([p.numpy().ravel() for p in params])
            if before is not None:
                moves.append(np.linalg.norm((now - before).astype(np.float64)))
            before = now
            h, states = tg.zeros(8, H), []
            for z in tg.functional.one_hot(x, V) @ W_xh + b_h:
                h = phi(z + h @ W_hh)
                states.append(h)
            return tg.functional.cross_entropy(tg.stack(states) @ W_hq + b_q, y)

        with np.errstate(all="ignore"):
            losses = answer(params, loss_of, minibatches, RATE, theta)
        name = f"{phi.__name__}, θ = {theta}"
        assert all(np.isfinite(p.numpy()).all() for p in params), f"{name}: a parameter is nan"
        assert all(math.isfinite(loss) for loss in losses), f"{name}: a loss is not finite"
        assert max(moves) < 1.001 * RATE * theta, (
            f"{name}: a step has the length {max(moves):.1f}, above η θ = {RATE * theta}"
        )
        return losses

    clipped, free = train(tg.tanh, THETA), train(tg.tanh, math.inf)
    assert len(clipped) == len(free) == STEPS, "tanh: one loss for each step"
    assert np.exp(np.mean(clipped[-5:])) < 3, "tanh, clipped: the network has not learned"
    assert np.mean(free[-5:]) > np.log(V), "tanh, not clipped: better than a uniform guess"

    clipped, free = train(tg.relu, THETA), train(tg.relu, math.inf)
    assert len(free) < 10, "relu, not clipped: the overflow in the first steps was not noticed"
    assert len(clipped) == STEPS, "relu, clipped: one loss for each step"
    assert np.exp(np.mean(clipped[-5:])) < 4, "relu, clipped: the network has not learned"


def solution(params, loss_of, minibatches, rate, theta):
    """Clip the norm of all gradients together, and end before an update that is not finite."""
    losses = []
    for x, y in minibatches:
        loss = loss_of(x, y)
        for p in params:
            p.grad = None
        loss.backward()
        norm = math.sqrt(sum((p.grad**2).sum().item() for p in params))
        if not math.isfinite(loss.item() + norm):
            break
        with tg.no_grad():
            for p in params:
                p -= rate * min(1, theta / norm) * p.grad
        losses.append(loss.item())
    return losses


def wrong(params, loss_of, minibatches, rate, theta):
    """Clip the gradient of each parameter by its own norm."""
    losses = []
    for x, y in minibatches:
        loss = loss_of(x, y)
        for p in params:
            p.grad = None
        loss.backward()
        if not math.isfinite(loss.item()):
            break
        with tg.no_grad():
            for p in params:  # each array has a threshold of its own
                norm = math.sqrt((p.grad**2).sum().item())
                p -= rate * min(1, theta / norm) * p.grad
        losses.append(loss.item())
    return losses
