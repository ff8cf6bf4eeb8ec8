"""Train without a wait.

`loss.item()` waits until the device has computed the loss. In a training loop on a GPU this is a
wait in every step, in which the GPU has nothing to do. Change the loop so that it returns the same
numbers and reads no tensor before the last step.
"""

import tinygrad_rnn as tg


def stub(step, steps):
    """Call `step` some times; return the losses, as numbers."""
    losses = []
    for _ in range(steps):
        loss = step()  # forward, backward and update; a tensor without a graph
        losses.append(loss.item())
    return losses


def solution(step, steps):
    """Keep tensors in the loop; read them after it."""
    losses = [step() for _ in range(steps)]
    return tg.stack(losses).numpy().tolist()


def wrong(step, steps):
    """Read with another method, which waits too."""
    losses = []
    for _ in range(steps):
        losses.append(float(step().numpy()))
    return losses


def check(answer):
    """Count the steps at every read."""
    w = tg.tensor(0.0, requires_grad=True)
    x = tg.tensor([1.0, 2.0, 3.0])
    expected, early = [], []

    def step():
        loss = ((w * x - 2 * x) ** 2).mean()
        (gradient,) = tg.grad(loss, [w])
        with tg.no_grad():
            w.__isub__(0.1 * gradient)
        expected.append(loss.data.item())
        return loss.detach()

    def watched(name):
        read = getattr(tg.Tensor, name)

        def method(self, *arguments):
            if len(expected) < 5:
                early.append(f"`{name}` after step {len(expected)} of 5")
            return read(self, *arguments)

        return method

    names = ("item", "numpy", "__float__", "__bool__")
    kept = {name: getattr(tg.Tensor, name) for name in names}
    for name in kept:
        setattr(tg.Tensor, name, watched(name))
    try:
        losses = list(answer(step, 5))
    finally:
        for name, method in kept.items():
            setattr(tg.Tensor, name, method)
    assert not early, f"a tensor is read before the last step: {early[0]}"
    assert losses == expected, f"the losses are {losses}, expected {expected}"
