"""Backpropagation through time: where the recurrent edge is cut.

The gradient through time is what the graph holds, so truncating it means to cut the graph.
"""

from __future__ import annotations

from typing import Any

from .tensors.tensor import Tensor


def detach(state: Any) -> Any:
    """Cut a recurrent state off its past: same values, no graph.

    Parameters
    ----------
    state : Tensor, or tuple, list or dict of states, or None
        What a recurrent layer returned.

    Returns
    -------
    same structure
        Every Tensor detached, so that the next window's backward pass ends here (truncated
        backpropagation through time; Williams & Peng 1990).

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> layer = tg.nn.LSTM(2, 3)
    >>> _, state = layer(tg.zeros(4, 1, 2))
    >>> state = tg.bptt.detach(state)
    >>> state[0].requires_grad
    False
    """
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, tuple | list):
        return type(state)(detach(element) for element in state)
    if isinstance(state, dict):
        return {name: detach(element) for name, element in state.items()}
    if state is None:
        return None
    raise TypeError(f"bptt.detach: a state is made of Tensors, got {type(state).__name__}")
