"""An iterator over minibatches whose position can be saved and restored."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError
from .state_keys import check_keys, key_problems, raise_problems

T = TypeVar("T")
GetBatch = Callable[[int], T]  # from the number of a minibatch to the minibatch


class ResumableIterator(Iterator[T]):
    """An iterator over the minibatches of one epoch; its position can be saved and restored.

    `tg.data.batches` and the functions of `tg.data.text` return such iterators.

    Parameters
    ----------
    settings : dict
        The settings that the minibatches depend on, by name: numbers and strings.
    drawn : dict or callable
        The random choices of this epoch, by name: integers and arrays of integers; or a function
        that draws them, which `next_epoch` calls again.
    plan : callable
        From ``**drawn`` to the number of minibatches, and to the function that maps the number of a
        minibatch to the minibatch. It raises an ArgumentError for impossible choices.
    rng : numpy.random.Generator, optional
        The generator that `drawn` draws from, whose state is then a part of the position. Default:
        the library's generator, which a checkpoint saves itself.
    carries_state : bool
        Whether each minibatch continues the sequences of the previous one.
    batch_axis : int
        The axis of the sequences, or examples, in the arrays of a minibatch.

    Attributes
    ----------
    batch_axis : int
        As passed.
    carries_state : bool
        Whether the recurrent state after a minibatch is the initial state of the next one. `tg.fit`
        carries it only then.
    position : int
        The number of minibatches returned so far in this epoch.

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
        drawn: dict[str, Any] | Callable[[], dict[str, Any]],
        plan: Callable[..., tuple[int, GetBatch[T]]],
        rng: np.random.Generator | None = None,
        carries_state: bool = False,
        batch_axis: int = 0,
    ) -> None:
        self._draw = drawn if callable(drawn) else None
        self._settings, self._plan, self._rng = settings, plan, rng
        self._drawn: dict[str, Any] = drawn() if callable(drawn) else drawn
        self._count, self._get_batch = plan(**self._drawn)
        self.carries_state, self.batch_axis, self.position = carries_state, batch_axis, 0

    def __next__(self) -> T:
        if self.position >= self._count:
            raise StopIteration
        minibatch = self._get_batch(self.position)
        self.position += 1
        return minibatch

    def __len__(self) -> int:
        """Return the number of minibatches of the epoch."""
        return self._count

    def next_epoch(self) -> Self:
        """Start another epoch over the same data, with new random choices.

        They are drawn from the generator of the first epoch, so that the epochs of an iterator that
        was made with ``rng=7`` differ.

        Returns
        -------
        ResumableIterator
            The iterator itself, at position 0.

        Raises
        ------
        ArgumentError
            If the iterator was made from choices, not from a function that draws them.

        Examples
        --------
        >>> import numpy as np
        >>> import tinygrad_rnn as tg
        >>> stream = tg.bptt.Randomized(0.8).windows(np.arange(20), batch_size=2, rng=0)
        >>> len(list(stream)) > 0, len(list(stream)), len(list(stream.next_epoch())) > 0
        (True, 0, True)
        """
        if self._draw is None and self._drawn:
            raise ArgumentError(
                f"{self._settings['stream']}: next_epoch: its random choices were passed as a "
                "dict: make ResumableIterator with a function that draws them"
            )
        drawn = self._draw() if self._draw is not None else {}
        self._count, self._get_batch = self._plan(**drawn)
        self._drawn, self.position = drawn, 0
        return self

    def mapped(
        self, function: Callable[[T], Any], begin: Callable[[dict[str, Any]], None]
    ) -> ResumableIterator[Any]:
        """Return an iterator over the results of a function, with the same positions.

        Parameters
        ----------
        function : callable
            From a minibatch to the new one.
        begin : callable
            Called with the settings and the choices of each epoch, before its first minibatch.

        Returns
        -------
        ResumableIterator
            From the present position on. It draws from the same generator.

        Examples
        --------
        >>> import numpy as np
        >>> import tinygrad_rnn as tg
        >>> stream = tg.bptt.Full().windows(np.arange(20), batch_size=2, rng=0)
        >>> [x.shape for x in stream.mapped(lambda window: window.x, lambda choices: None)]
        [(9, 2)]
        """

        def plan(**drawn: Any) -> tuple[int, GetBatch[Any]]:
            begin({**self._settings, **drawn})
            count, get_batch = self._plan(**drawn)
            return count, lambda i: function(get_batch(i))

        other: ResumableIterator[Any] = copy.copy(self)
        other._plan, (other._count, other._get_batch) = plan, plan(**self._drawn)
        return other

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the epoch, for `load_state_dict`.

        Returns
        -------
        dict
            ``"settings"``: the arguments of the iterator; ``"drawn"``: the offset or the order
            drawn for this epoch, so that a resumed run does not depend on NumPy's version;
            ``"position"``: the number of minibatches returned so far; if the iterator was made with
            ``rng=``, ``"rng"``: the state of this generator, for the later epochs. The recurrent
            state carried from window to window is not included: the caller saves it.

        Examples
        --------
        >>> import numpy as np
        >>> import tinygrad_rnn as tg
        >>> stream = tg.bptt.Full().windows(np.arange(100), batch_size=2)
        >>> _ = next(stream)
        >>> stream.state_dict()["position"]
        1
        """
        state = {"settings": self._settings, "drawn": self._drawn, "position": self.position}
        if self._rng is not None:
            state["rng"] = self._rng.bit_generator.state
        return copy.deepcopy(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict` of an iterator over the same data with the same settings.

        Parameters
        ----------
        state : mapping
            The result of `state_dict`.

        Raises
        ------
        ArgumentError
            Lists everything that does not fit; the iterator is unchanged.
        """
        name = f"{self._settings['stream']}: load_state_dict"
        own = self.state_dict()
        if isinstance(state, Mapping) and "rng" not in state:  # of an earlier version
            own.pop("rng", None)
        check_keys(name, state, own)
        problems = []
        for part in ("settings", "drawn"):
            problems += key_problems(state[part], own[part], part)
        if not problems:
            problems += [
                f"{key} is {value!r} here, and was {saved!r}"
                for key, value in own["settings"].items()
                if type(saved := state["settings"][key]) is not type(value) or saved != value
            ]
            if problems:
                problems.append(
                    "use the saved settings, or leave this state out and begin a new epoch"
                )
        raise_problems(name, problems)
        drawn, position = copy.deepcopy(dict(state["drawn"])), state["position"]
        count, get_batch = self._plan(**drawn)
        if not isinstance(position, int) or not 0 <= position <= count:
            raise ArgumentError(f"{name}: position must be from 0 to {count}, got {position!r}")
        if "rng" in own:
            self._set_generator(name, own["rng"], state["rng"])
        self._drawn, self.position = drawn, position
        self._count, self._get_batch = count, get_batch

    def _set_generator(self, name: str, own: dict[str, Any], saved: Any) -> None:
        bits: Any = self._rng and self._rng.bit_generator
        try:
            bits.state = saved
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            bits.state = own  # a part of it may have been written
            raise ArgumentError(
                f"{name}: rng must be the state of a {own['bit_generator']}: {error}"
            ) from error


def smallest_dtype(order: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a permutation of 0 ... n - 1 in the smallest unsigned dtype, for a checkpoint."""
    return order.astype(np.min_scalar_type(len(order)))


def check_offset(name: str, offset: Any, steps: int) -> int:
    """Return an offset; raise unless it is one of 0 ... steps - 1."""
    if not isinstance(offset, int) or not 0 <= offset < steps:
        raise ArgumentError(f"{name}: the offset must be from 0 to {steps - 1}, got {offset!r}")
    return offset


def check_permutation(name: str, order: Any, n: int) -> npt.NDArray[np.int64]:
    """Return an order as int64; raise unless it is a permutation of 0 ... n - 1."""
    integers = isinstance(order, np.ndarray) and order.dtype.kind in "iu"
    if not integers or not np.array_equal(np.sort(order), np.arange(n)):
        raise ArgumentError(f"{name}: the order must contain each of 0 to {n - 1} once")
    return order.astype(np.int64)
