"""Learning-rate schedules: a schedule is a function from the number of steps taken to a factor.

`Scheduler` sets an optimiser's learning rate to its base times the factor. Any function of one
integer is a schedule; this module has the usual ones, and `compose` multiplies several.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from .._util.api_hints import MissingAttribute, module_getattr
from .._util.state_keys import float_and_count
from ..errors import ArgumentError
from ..tensors import checks
from .optimizers import Optimizer

Schedule = Callable[[int], float]


def constant(factor: float = 1.0) -> Schedule:
    """Return the schedule t ↦ factor.

    Parameters
    ----------
    factor : float
        The factor at every step.

    Returns
    -------
    callable
        From the number of steps taken to the factor.

    Raises
    ------
    ArgumentError
        If a number is out of range.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.optim.schedule.constant()(7)
    1.0
    """
    factor = checks.number(factor, "schedule.constant: factor", 0, math.inf)
    return lambda t: factor


def step(every: int, gamma: float = 0.1) -> Schedule:
    """Return the schedule t ↦ γ^⌊t / every⌋.

    Parameters
    ----------
    every : int
        Steps between two drops.
    gamma : float
        γ, the factor of one drop.

    Returns
    -------
    callable
        From the number of steps taken to the factor.

    Raises
    ------
    ArgumentError
        If a number is out of range.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> [tg.optim.schedule.step(2, 0.5)(t) for t in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    every = checks.positive(every, "schedule.step: every")
    gamma = checks.number(gamma, "schedule.step: gamma", 0, math.inf)
    return lambda t: float(gamma ** (t // every))


def exponential(gamma: float) -> Schedule:
    """Return the schedule t ↦ γᵗ.

    Parameters
    ----------
    gamma : float
        γ, the factor of one step.

    Returns
    -------
    callable
        From the number of steps taken to the factor.

    Raises
    ------
    ArgumentError
        If a number is out of range.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> [tg.optim.schedule.exponential(0.5)(t) for t in range(3)]
    [1.0, 0.5, 0.25]
    """
    gamma = checks.number(gamma, "schedule.exponential: gamma", 0, math.inf)
    return lambda t: float(gamma**t)


def cosine(total: int, floor: float = 0.0) -> Schedule:
    """Return the schedule t ↦ floor + (1 - floor) (1 + cos(π t / total)) / 2, and floor afterwards.

    Parameters
    ----------
    total : int
        Steps from 1 down to `floor`.
    floor : float
        The last factor.

    Returns
    -------
    callable
        From the number of steps taken to the factor.

    Raises
    ------
    ArgumentError
        If a number is out of range.

    Notes
    -----
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, equation 5,
    without restarts.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> [round(tg.optim.schedule.cosine(4)(t), 3) for t in range(6)]
    [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """
    total = checks.positive(total, "schedule.cosine: total")
    floor = checks.number(floor, "schedule.cosine: floor", 0, math.inf)
    return lambda t: floor + (1.0 - floor) * (1.0 + math.cos(math.pi * min(t, total) / total)) / 2.0


def linear_warmup(steps: int) -> Schedule:
    """Return the schedule t ↦ min(1, (t + 1) / steps).

    Parameters
    ----------
    steps : int
        Steps until the factor is 1.

    Returns
    -------
    callable
        From the number of steps taken to the factor.

    Raises
    ------
    ArgumentError
        If a number is out of range.

    Notes
    -----
    Goyal and others, "Accurate, large minibatch SGD", 2017, section 2.2.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> [tg.optim.schedule.linear_warmup(4)(t) for t in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    steps = checks.positive(steps, "schedule.linear_warmup: steps")
    return lambda t: min(1.0, (t + 1) / steps)


def compose(*schedules: Schedule) -> Schedule:
    """Return the product of several schedules.

    Parameters
    ----------
    *schedules : callable
        From the number of steps taken to a factor.

    Returns
    -------
    callable
        From the number of steps taken to the product of the factors.

    Raises
    ------
    ArgumentError
        If an argument is not a function.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> s = tg.optim.schedule
    >>> [s.compose(s.linear_warmup(2), s.exponential(0.5))(t) for t in range(3)]
    [0.5, 0.5, 0.25]
    """
    for schedule in schedules:
        _check_schedule(schedule, "schedule.compose")
    return lambda t: math.prod(schedule(t) for schedule in schedules)


class _Rate:
    """The learning rate of an optimiser: a base, and the current factor of each scheduler."""

    def __init__(self, base: float) -> None:
        self.base, self.factors = base, list[float]()

    def value(self) -> float:
        """Return base · factor · factor ..., in the order in which the schedulers were created."""
        return functools.reduce(operator.mul, self.factors, self.base)


class Scheduler:
    """Set an optimiser's learning rate to base · schedule(t), t being the number of steps taken.

    Several schedulers of one optimiser multiply each other's factors, and each counts its own
    steps. They share one base. A scheduler that is no longer stepped keeps its last factor.

    Parameters
    ----------
    optimizer : Optimizer
        Its current learning rate is the base; if other schedulers have set it, theirs is.
    schedule : callable
        From the number of steps taken to a factor.

    Attributes
    ----------
    base_lr : float
        The base, shared by all schedulers of the optimiser; assign to change it. (A learning rate
        assigned to the optimiser is used until the next call of `step`.)
    count : int
        t, the number of calls of `step`.

    Raises
    ------
    ArgumentError
        If `optimizer` is not an Optimizer, `schedule` is not callable, or a factor gives an invalid
        learning rate.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> sgd = tg.optim.SGD(tg.nn.Linear(2, 1).parameters(), lr=1.0)
    >>> scheduler = tg.optim.schedule.Scheduler(sgd, tg.optim.schedule.linear_warmup(4))
    >>> sgd.lr
    0.25
    >>> scheduler.step()  # after optimizer.step()
    >>> sgd.lr
    0.5
    >>> other = tg.optim.schedule.Scheduler(sgd, tg.optim.schedule.exponential(0.1))
    >>> other.step()
    >>> sgd.lr
    0.05
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(
                f"Scheduler: an optimiser is expected first, got a {type(optimizer).__name__}"
            )
        self.optimizer = optimizer
        self.schedule = _check_schedule(schedule, "Scheduler")
        self.count = 0
        rate = optimizer._scheduled
        if rate is None or rate.value() != optimizer.lr:  # none, or assigned by the user
            rate = _Rate(optimizer.lr)
        self._attach(rate)

    @property
    def base_lr(self) -> float:
        """The base learning rate, which the factors multiply."""
        return self._rate.base

    @base_lr.setter
    def base_lr(self, value: float) -> None:
        self._set(value, self.count)

    def step(self) -> None:
        """Count one step and set the learning rate of the next.

        Raises
        ------
        ArgumentError
            If the learning rate was assigned and another scheduler was created since, which now
            sets it, or if the factor gives an invalid learning rate. Nothing has changed.
        """
        if self.optimizer._scheduled is not self._rate:
            raise ArgumentError(
                "Scheduler.step: optimizer.lr was assigned after this scheduler was created, and "
                "another scheduler was created with it as its base: create this one again, too"
            )
        self._set(self.base_lr, self.count + 1)

    def _attach(self, rate: _Rate) -> None:
        """Add this scheduler's factor to a rate."""
        factor = self.schedule(self.count)
        self.optimizer.lr = rate.value() * factor
        self._rate, self._index = rate, len(rate.factors)
        rate.factors.append(factor)
        self.optimizer._scheduled = rate

    def _set(self, base: float, count: int) -> None:
        new = _Rate(base)
        new.factors = [*self._rate.factors]
        new.factors[self._index] = self.schedule(count)
        self.optimizer.lr = new.value()  # raises if it is not a valid learning rate
        self._rate.base, self._rate.factors, self.count = base, new.factors, count

    def state_dict(self) -> dict[str, Any]:
        """Return the base and the number of steps taken."""
        return {"base_lr": self.base_lr, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`, and with it the learning rate.

        If an optimiser has several schedulers, each loads its own state, in any order.

        Parameters
        ----------
        state : mapping
            The result of `state_dict`.

        Raises
        ------
        ArgumentError
            `state` does not have the keys and values of a `state_dict`; nothing was loaded.
        """
        base_lr, count = float_and_count("Scheduler.load_state_dict", state, "base_lr")
        if self.optimizer._scheduled is not self._rate:
            self._attach(self.optimizer._scheduled)
        self._set(base_lr, count)


for _name, _ours in {  # names in PyTorch
    "lr": "optimizer.lr",
    "get_lr": "optimizer.lr",
    "get_last_lr": "optimizer.lr",
    "base_lrs": "base_lr",
    "last_epoch": "count",
}.items():
    setattr(Scheduler, _name, MissingAttribute(_name, _ours))


def _check_schedule(schedule: Any, op: str) -> Schedule:
    if not callable(schedule):
        raise ArgumentError(
            f"{op}: a schedule is a function from the number of steps to a factor, got {schedule!r}"
        )
    return schedule


OTHER_NAMES = {
    "StepLR": "schedule.Scheduler(optimizer, schedule.step(every, gamma))",
    "ExponentialLR": "schedule.Scheduler(optimizer, schedule.exponential(gamma))",
    "CosineAnnealingLR": "schedule.Scheduler(optimizer, schedule.cosine(total))",
    "LinearLR": "schedule.Scheduler(optimizer, schedule.linear_warmup(steps))",
    "LambdaLR": "schedule.Scheduler(optimizer, function)",
    "MultiStepLR": "schedule.Scheduler(optimizer, function), a function of the step",
    "ReduceLROnPlateau": "optimizer.lr *= factor, where the loss no longer falls",
}
__getattr__ = module_getattr(__name__, OTHER_NAMES, globals())
