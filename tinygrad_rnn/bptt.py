"""Backpropagation through time: where the recurrent edge is cut.

The gradient through time is what the graph holds, so truncating it means to cut the graph.
"""

from __future__ import annotations

from typing import Any

from .engine.backend import default_device, is_array
from .tensors.tensor import Tensor, tensor


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


def restore(state: Any, device: str | None = None) -> Any:
    """Make a recurrent state of one that was saved: Tensors of the arrays in it.

    Parameters
    ----------
    state : array, or tuple, list or dict of states, or None
        What `tg.load` returned for a state that was detached and saved.
    device : str, optional
        Where the Tensors go; the default device if not given.

    Returns
    -------
    same structure
        A Tensor for every array, with the same memory layout, so that a run that goes on with it
        computes the same bits.

    Raises
    ------
    TypeError
        If it holds anything else.

    Examples
    --------
    >>> import os, tempfile
    >>> import tinygrad_rnn as tg
    >>> path = os.path.join(tempfile.mkdtemp(), "run.ckpt")
    >>> layer = tg.nn.LSTM(2, 3)
    >>> _, state = layer(tg.zeros(4, 1, 2))
    >>> tg.save(path, state=tg.bptt.detach(state))
    >>> h, c = tg.bptt.restore(tg.load(path)["state"])
    >>> h.shape, h.requires_grad
    ((1, 1, 3), False)
    """
    if is_array(state):
        return tensor(state, device=default_device() if device is None else device)
    if isinstance(state, tuple | list):
        return type(state)(restore(element, device) for element in state)
    if isinstance(state, dict):
        return {name: restore(element, device) for name, element in state.items()}
    if state is None:
        return None
    raise TypeError(f"bptt.restore: a saved state is made of arrays, got {type(state).__name__}")
