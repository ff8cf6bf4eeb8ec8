"""Carry the state of a layer through the windows of a stream.

Run the layer over the windows in order, call `backward()` on the sum of each output, and return
the outputs. Each window must start from the last state of the one before it, and the gradient must
end at the start of the window.
"""

import numpy as np

import tinygrad_rnn as tg


def stub(layer, windows):
    """Return the outputs of all windows."""
    outputs, state = [], None
    for x in windows:
        output, state = layer(x, state)  # your code
        output.sum().backward()
        outputs.append(output)
    return outputs


def check(answer):
    """Raise an AssertionError unless values are carried and gradients are cut."""
    layer = tg.nn.GRU(3, 4, dtype=tg.float64, rng=0)
    windows = [tg.randn(5, 2, 3, dtype=tg.float64, rng=i) for i in range(3)]
    try:
        outputs = answer(layer, windows)
    except tg.errors.GraphError as error:
        raise AssertionError(f"the gradient entered the window before: {error}") from error
    gradients = [p.grad for p in layer.parameters()]
    assert all(g is not None for g in gradients), "call backward() for each window"

    whole, _ = layer(tg.concatenate(windows))
    got = np.concatenate([output.numpy() for output in outputs])
    assert np.allclose(got[:5], whole.numpy()[:5]), "the first window starts from zeros"
    assert np.allclose(got, whole.numpy()), (
        "the outputs differ from those of one call on all windows: carry the state"
    )
    layer.zero_grad()
    output, _ = layer(tg.concatenate(windows), bptt=tg.bptt.Truncated(5))
    output.sum().backward()
    for gradient, p in zip(gradients, layer.parameters(), strict=True):
        assert np.allclose(gradient.numpy(), p.grad.numpy()), (
            "the gradients differ from those of truncation at the windows' borders"
        )


def solution(layer, windows):
    """Detach the state between windows: its values are kept, its graph is not."""
    outputs, state = [], None
    for x in windows:
        output, state = layer(x, tg.bptt.detach(state))
        output.sum().backward()
        outputs.append(output)
    return outputs


def wrong(layer, windows):
    """Start every window from zeros; no error, but a network without a memory of the text."""
    outputs = []
    for x in windows:
        output, _ = layer(x)
        output.sum().backward()
        outputs.append(output)
    return outputs
