r"""An LSTM that copies its cell state.

Set the parameters of an `nn.LSTM` of one layer so that it keeps $c$ unchanged, for any input and
any number of steps. Its output is $h_t = \tanh c_t$. Change the parameters in place: for example
`layer.bias_ih_l0.data = array`, with one number for each unit and gate in the order i, f, g, o.
"""

import numpy as np

import tinygrad_rnn as tg


def stub(layer):
    """Set the parameters of the layer."""


def solution(layer):
    """No gate reads the input or the output; f and o are open, i is closed."""
    for parameter in layer.parameters():
        parameter.data = np.zeros(parameter.shape)
    i, f, g, o = -50.0, 50.0, 0.0, 50.0
    layer.bias_ih_l0.data = np.repeat([i, f, g, o], layer.hidden_size)


def wrong(layer):
    """Open f only: with the other biases at 0, half of g is written at every step."""
    layer.bias_ih_l0.data = np.repeat([0.0, 50.0, 0.0, 0.0], layer.hidden_size)


def check(answer):
    """Run the layer on noise, and compare c, the output and the gradient of c."""
    rng = np.random.default_rng(0)
    for size, steps in ((1, 3), (4, 200)):
        layer = tg.nn.LSTM(2, size, dtype=tg.float64, rng=1)
        answer(layer)
        h = tg.tensor(rng.normal(size=(1, 3, size)))
        c = tg.tensor(rng.normal(size=(1, 3, size)), requires_grad=True)
        noise = tg.tensor(3 * rng.normal(size=(steps, 3, 2)))
        output, (_, kept) = layer(noise, (h, c))
        change = np.abs(kept.numpy() - c.numpy()).max()
        assert change < 1e-9, f"after {steps} steps an element of c has changed by {change:.2g}"
        difference = np.abs(output.numpy() - np.tanh(c.numpy())).max()
        assert difference < 1e-9, f"an output differs from tanh c by {difference:.2g}"
        (gradient,) = tg.grad(kept.sum(), [c])
        assert np.allclose(gradient.numpy(), 1), (
            f"after {steps} steps c is unchanged, and the gradient of its sum is not 1 everywhere"
        )
