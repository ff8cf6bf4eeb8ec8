"""Operations on a recurrent state between two steps: scale its gradient, detach it, restore it.

A state is a Tensor, or a tuple, list or dict of states. None, the state before the first step of a
layer, stays None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._util.api_hints import class_name, conversion_hint
from .._util.nested import map_nested
from ..engine import ops
from ..engine.backend import default_device, is_array
from ..engine.grad_mode import is_grad_enabled
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from ..tensors.creation import tensor

State = Any


def scale_gradient(state: State, xi: float) -> State:
    """Multiply the gradient that flows back through a state by ξ.

    Parameters
    ----------
    state : Tensor, or tuple, list or dict of states, or None
        The state after a step, on its way into the next.
    xi : float
        ξ. With 0 the graph ends here: older nodes are not visited or kept. 1 changes nothing.

    Returns
    -------
    same structure
        The same values.

    Raises
    ------
    TypeError
        If the state has an element that is not a Tensor.
    ArgumentError
        If `xi` is not a number.

    Notes
    -----
    With z_t = ∂f/∂w + ξ_t (∂f/∂h_{t-1}) z_{t-1} in place of the recurrence of dh_t/dw, the gradient
    is unbiased if E[ξ_t | earlier draws] = 1 (Tallec and Ollivier 2017, arXiv:1705.08209).

    Examples
    --------
    In a loop of your own, ξ comes from a strategy:

    >>> import tinygrad_rnn as tg
    >>> cell, state = tg.nn.LSTMCell(2, 3), None
    >>> strategy, x = tg.bptt.Randomized(0.9), tg.randn(5, 1, 2)
    >>> for x_t, xi in zip(x, strategy.weights(len(x))):
    ...     state = cell(x_t, tg.bptt.scale_gradient(state, xi))
    """
    if state.__class__ is tuple:  # the fast path: called at every step
        return tuple([scale_gradient(element, xi) for element in state])
    if not isinstance(state, Tensor):

        def one(value: Any) -> Tensor:
            if not isinstance(value, Tensor):
                raise _unknown("scale_gradient", "Tensors", value)
            return scale_gradient(value, xi)

        return _each(state, one)
    if xi == 1 or state._node is None or not is_grad_enabled():
        return state
    if not hasattr(xi, "__float__"):
        raise ArgumentError(
            f"bptt.scale_gradient: xi is a number, got {xi!r:.60}: an element of the weights of a "
            "strategy, strategy.weights(T)"
        )
    return state.detach() if xi == 0 else ops.scale_gradient(state, xi)


def detach(state: State) -> State:
    """Detach a recurrent state: same values, no graph.

    Parameters
    ----------
    state : Tensor, or tuple, list or dict of states, or None
        A state that a recurrent layer returned.

    Returns
    -------
    same structure
        Every Tensor detached, so that the next window's backward pass ends here (truncated
        backpropagation through time; Williams & Peng 1990).

    Raises
    ------
    TypeError
        If the state has an element that is not a Tensor.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> layer = tg.nn.LSTM(2, 3)
    >>> _, state = layer(tg.zeros(4, 1, 2))
    >>> state = tg.bptt.detach(state)
    >>> state[0].requires_grad
    False
    """

    def one(value: Any) -> Tensor:
        if not isinstance(value, Tensor):
            raise _unknown("detach", "Tensors", value)
        return value.detach()

    return _each(state, one)


def restore(state: State, device: str | None = None) -> State:
    """Convert the arrays of a saved recurrent state to Tensors.

    Parameters
    ----------
    state : array, or tuple, list or dict of states, or None
        A state that was detached, saved, and loaded by `tg.load`.
    device : str, optional
        Device of the Tensors. Default: the default device.

    Returns
    -------
    same structure
        A Tensor for every array, with the same memory layout, so that a run that continues with
        it computes the same bits.

    Raises
    ------
    TypeError
        If it contains anything else.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> layer = tg.nn.LSTM(2, 3)
    >>> _, state = layer(tg.zeros(4, 1, 2))
    >>> saved = [element.numpy() for element in tg.bptt.detach(state)]
    >>> h, c = tg.bptt.restore(saved)
    >>> h.shape, h.requires_grad
    ((1, 1, 3), False)
    """

    def one(value: Any) -> Tensor:
        if not is_array(value):
            raise _unknown("restore", "arrays", value, "saved state")
        return tensor(value, device=default_device() if device is None else device)

    return _each(state, one)


def _each(state: State, one: Callable[[Any], Any]) -> State:
    """Apply a function to each element of a state that is not None."""
    return map_nested(lambda x: None if x is None else one(x), state)


def _unknown(function: str, parts: str, value: Any, what: str = "state") -> TypeError:
    return TypeError(
        f"bptt.{function}: a {what} is made of {parts}, got {class_name(value)}"
        f"{conversion_hint(value)}"
    )
