"""Synthetic tasks: generated sequences of any length."""

from __future__ import annotations

import numpy as np

from .. import random as tg_random
from ..engine import backend
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from ..random import Rng
from ..tensors.checks import all_positive
from ..tensors.creation import tensor


def copy(
    batch_size: int, delay: int, n_symbols: int = 8, length: int = 10, rng: Rng = None
) -> tuple[Tensor, Tensor]:
    """Return the copying memory problem: reproduce symbols from `delay` steps ago.

    Parameters
    ----------
    batch_size : int
        B.
    delay : int
        The number of steps from the last symbol to the delimiter, the paper's T.
    n_symbols : int
        The number of different symbols, S; the blank is S and the delimiter S + 1, so that there
        are S + 2 classes.
    length : int
        The number of symbols to reproduce, K.
    rng : int or numpy.random.Generator, optional
        The source of the random symbols. Default: the library's generator.

    Returns
    -------
    x, y : Tensor of int64, shape (delay + 2 * length, batch_size)
        Inputs: K symbols, delay - 1 blanks, the delimiter, K blanks. Targets: delay + K blanks,
        then the K symbols.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer, or `rng` neither a seed nor a
        generator.

    Notes
    -----
    Arjovsky, Shah and Bengio 2016, Unitary Evolution Recurrent Neural Networks, section 5.1.
    Without memory the best mean cross-entropy is K ln S / (delay + 2 K).

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x, y = tg.data.tasks.copy(batch_size=1, delay=2, n_symbols=1, length=2)
    >>> x.numpy().T.tolist(), y.numpy().T.tolist()
    ([[0, 0, 1, 2, 1, 1]], [[1, 1, 1, 1, 0, 0]])
    """
    all_positive("copy", batch_size=batch_size, delay=delay, n_symbols=n_symbols, length=length)
    blank, delimiter = n_symbols, n_symbols + 1
    symbols = tg_random.generator(rng).integers(n_symbols, size=(length, batch_size))
    x = np.full((delay + 2 * length, batch_size), blank)
    y = x.copy()
    x[:length] = symbols
    x[length + delay - 1] = delimiter
    y[-length:] = symbols
    return tensor(x), tensor(y)


def adding(batch_size: int, steps: int, rng: Rng = None) -> tuple[Tensor, Tensor]:
    """Return the adding problem: the sum of the two marked numbers of a sequence.

    Parameters
    ----------
    batch_size : int
        B.
    steps : int
        The length of the sequences, at least two.
    rng : int or numpy.random.Generator, optional
        The source of the random numbers and marks. Default: the library's generator.

    Returns
    -------
    x : Tensor of the default dtype, shape (steps, batch_size, 2)
        Numbers, uniform on [0, 1), and marks: one in the first half of the steps, one in the
        second.
    y : Tensor of the default dtype, shape (batch_size, 1)
        The sum of the two marked numbers.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer, or `rng` neither a seed nor a
        generator.

    Notes
    -----
    Hochreiter and Schmidhuber 1997, Long Short-Term Memory, experiment 4, in the form of Le, Jaitly
    and Hinton 2015, A Simple Way to Initialize Recurrent Networks of Rectified Linear Units,
    section 4.1, with a mark in each half as in Arjovsky, Shah and Bengio 2016, section 5.2. The
    constant prediction 1 has the mean squared error 1/6, the variance of the sum.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x, y = tg.data.tasks.adding(batch_size=32, steps=100)
    >>> x.shape, y.shape
    ((100, 32, 2), (32, 1))
    """
    all_positive("adding", batch_size=batch_size, steps=steps)
    if steps < 2:
        raise ArgumentError("adding: steps=1 is too short for two marks: use 2 or more")
    generator, dtype = tg_random.generator(rng), backend.get_default_dtype()
    numbers = generator.random((steps, batch_size)).astype(dtype)
    first = generator.integers(0, steps // 2, batch_size)
    second = generator.integers(steps // 2, steps, batch_size)
    columns = np.arange(batch_size)
    marks = np.zeros_like(numbers)
    marks[first, columns] = marks[second, columns] = 1
    y = numbers[first, columns] + numbers[second, columns]
    return tensor(np.stack([numbers, marks], axis=-1)), tensor(y[:, None])


def parity(batch_size: int, steps: int, rng: Rng = None) -> tuple[Tensor, Tensor]:
    """Return random bits and, for each step, the parity of the bits so far.

    Parameters
    ----------
    batch_size : int
        B.
    steps : int
        The length of the sequences, T.
    rng : int or numpy.random.Generator, optional
        The source of the random bits. Default: the library's generator.

    Returns
    -------
    x : Tensor of the default dtype, shape (steps, batch_size, 1)
        Bits, 0 or 1.
    y : Tensor of int64, shape (steps, batch_size)
        y_t = (x_1 + … + x_t) mod 2.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer, or `rng` neither a seed nor a
        generator.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x, y = tg.data.tasks.parity(batch_size=4, steps=5)
    >>> bool((x.numpy()[0, :, 0] == y.numpy()[0]).all())
    True
    """
    all_positive("parity", batch_size=batch_size, steps=steps)
    bits = tg_random.generator(rng).integers(2, size=(steps, batch_size))
    return tensor(bits[:, :, None].astype(backend.get_default_dtype())), tensor(bits.cumsum(0) % 2)


def sine(steps: int = 1000, frequency: float = 0.01, noise: float = 0.2, rng: Rng = None) -> Tensor:
    """Return a noisy sine wave, for autoregressive models.

    Parameters
    ----------
    steps : int
        The length of the series.
    frequency : float
        In radians per step.
    noise : float
        The standard deviation of the noise.
    rng : int or numpy.random.Generator, optional
        The source of the noise. Default: the library's generator.

    Returns
    -------
    Tensor of the default dtype, shape (steps,)
        x_t = sin(frequency t) + noise ε_t for t = 1 … steps, ε_t standard normal.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer, or `rng` neither a seed nor a
        generator.

    Notes
    -----
    The defaults are those of Zhang, Lipton, Li and Smola, Dive into Deep Learning, section "Working
    with Sequences".

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.data.tasks.sine(noise=0).shape
    (1000,)
    """
    all_positive("sine", steps=steps)
    waves = np.sin(frequency * np.arange(1, steps + 1))
    errors = noise * tg_random.generator(rng).standard_normal(steps)
    return tensor((waves + errors).astype(backend.get_default_dtype()))
