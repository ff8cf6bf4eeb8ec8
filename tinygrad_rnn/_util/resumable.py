"""An iterator over minibatches that knows its place, so that a run can stop and go on inside it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError

T = TypeVar("T")
Window = Callable[[int], T]


class Stream(Iterator[T]):
    """One epoch of minibatches, which can be saved in the middle and continued.

    `tg.data.batches` and the functions of `tg.data.text` return it; nobody else needs to make one.

    Parameters
    ----------
    settings : dict
        What the minibatches depend on, by name: numbers and strings.
    drawn : dict
        What was drawn at random for this epoch, by name: integers and arrays of them.
    plan : callable
        From ``**drawn`` to the number of minibatches and the function from a number to its
        minibatch. It raises an ArgumentError for what cannot have been drawn.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> ids = np.arange(100)
    >>> stream = tg.bptt.Randomized(0.8).windows(ids, batch_size=2)
    >>> for x, y, first in stream:
    ...     break  # and save stream=stream
    >>> again = tg.bptt.Randomized(0.8).windows(ids, batch_size=2)
    >>> again.load_state_dict(stream.state_dict())
    >>> bool((next(again)[0] == next(stream)[0]).numpy().all())
    True
    """

    def __init__(
        self,
        settings: dict[str, Any],
        drawn: dict[str, Any],
        plan: Callable[..., tuple[int, Window[T]]],
    ) -> None:
        self._settings, self._drawn, self._plan = settings, drawn, plan
        self._count, self._window = plan(**drawn)
        self._position = 0

    def __next__(self) -> T:
        if self._position >= self._count:
            raise StopIteration
        minibatch = self._window(self._position)
        self._position += 1
        return minibatch

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the epoch, for `load_state_dict`.

        Returns
        -------
        dict
            ``"settings"``: what the stream was made with; ``"drawn"``: the offset or the order that
            was drawn for this epoch, so that it does not depend on how a version of NumPy draws;
            ``"position"``: how many minibatches were handed out. The state of a network that is
            carried from window to window is the caller's, and saved by the caller.

        Examples
        --------
        >>> import numpy as np
        >>> import tinygrad_rnn as tg
        >>> stream = tg.bptt.Full().windows(np.arange(100), batch_size=2)
        >>> _ = next(stream)
        >>> stream.state_dict()["position"]
        1
        """
        return copy.deepcopy(
            {"settings": self._settings, "drawn": self._drawn, "position": self._position}
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of a stream over the same data with the same settings.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned.

        Raises
        ------
        ArgumentError
            Lists all that does not fit; the stream is unchanged.
        """
        name = f"{self._settings['stream']}: load_state_dict"
        own = self.state_dict()
        if not isinstance(state, Mapping) or state.keys() != own.keys():
            raise ArgumentError(f"{name}: a dict with the keys {', '.join(own)} is expected")
        problems = []
        for part in ("settings", "drawn"):
            if not isinstance(state[part], Mapping) or state[part].keys() != own[part].keys():
                problems.append(f"{part} must be a dict with the keys {list(own[part])}")
        if not problems:
            problems += [
                f"{key} is {value!r} here, and was {then!r}"
                for (key, value) in own["settings"].items()
                if type(then := state["settings"][key]) is not type(value) or then != value
            ]
        if problems:
            raise ArgumentError(f"{name}: nothing was loaded:\n  " + "\n  ".join(problems))
        drawn, position = copy.deepcopy(dict(state["drawn"])), state["position"]
        count, window = self._plan(**drawn)
        if not isinstance(position, int) or not 0 <= position <= count:
            raise ArgumentError(f"{name}: position must be from 0 to {count}, got {position!r}")
        self._drawn, self._count, self._window, self._position = drawn, count, window, position


def smallest(order: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a permutation of 0 ... n - 1 in the smallest unsigned dtype, to be saved."""
    return order.astype(np.min_scalar_type(len(order)))


def offset_below(name: str, offset: Any, steps: int) -> int:
    """Return a drawn offset once it is known to be one of 0 ... steps - 1."""
    if not isinstance(offset, int) or not 0 <= offset < steps:
        raise ArgumentError(f"{name}: the offset must be from 0 to {steps - 1}, got {offset!r}")
    return offset


def permutation_of(name: str, order: Any, n: int) -> npt.NDArray[np.int64]:
    """Return a drawn order once it is known to be a permutation of 0 ... n - 1."""
    integers = isinstance(order, np.ndarray) and order.dtype.kind in "iu"
    if not integers or not np.array_equal(np.sort(order), np.arange(n)):
        raise ArgumentError(f"{name}: the order must hold each of 0 to {n - 1} once")
    return order.astype(np.int64)
