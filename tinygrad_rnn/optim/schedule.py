"""Learning-rate schedules: a schedule is a function from the number of steps taken to a factor.

`Scheduler` sets an optimiser's learning rate to its base times the factor. Any function of one
integer is a schedule; this module has the usual ones, and `compose` multiplies several.
`ReduceLROnPlateau` reduces the learning rate by the values of a metric instead.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from .._util.api_hints import MissingAttribute, module_getattr
from .._util.state_keys import check_keys, float_and_count, raise_problems
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
        self.temporary = list[int]()  # the factors of a run of `fit`, which its next one ends

    def value(self) -> float:
        """Return base · factor · factor ..., in the order in which the schedulers were created."""
        return functools.reduce(operator.mul, self.factors, self.base)


class RateFactor:
    """Base class: one of the factors that an optimiser's learning rate is the product of.

    Parameters
    ----------
    optimizer : Optimizer
        Its learning rate is the base times the factors.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> issubclass(tg.optim.schedule.ReduceLROnPlateau, tg.optim.schedule.RateFactor)
    True
    """

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(
                f"{type(self).__name__}: an optimiser is expected first, got a "
                f"{type(optimizer).__name__}"
            )
        self.optimizer = optimizer

    @property
    def base_lr(self) -> float:
        """The base learning rate, which the factors multiply."""
        return self._rate.base

    @base_lr.setter
    def base_lr(self, value: float) -> None:
        self._set(value, self._rate.factors[self._index])

    def _begin(self, factor: float) -> None:
        """Multiply the optimiser's learning rate by a factor, from now on."""
        rate = self.optimizer._scheduled
        if rate is None or rate.value() != self.optimizer.lr:  # none, or assigned by the user
            rate = _Rate(self.optimizer.lr)
        self._attach(rate, factor)

    def _attach(self, rate: _Rate, factor: float) -> None:
        """Add this factor to a rate."""
        self.optimizer.lr = rate.value() * factor
        self._rate, self._index = rate, len(rate.factors)
        rate.factors.append(factor)
        self.optimizer._scheduled = rate

    def _end_at_next_run(self) -> None:
        """Keep the factor until `_end_temporary`."""
        self._rate.temporary.append(self._index)

    def _check_attached(self) -> None:
        """Raise if another rate has replaced the one that has this factor."""
        if self.optimizer._scheduled is not self._rate:
            raise ArgumentError(
                f"{type(self).__name__}.step: optimizer.lr was assigned after this scheduler was "
                "created, and another scheduler was created with it as its base: create this one "
                "again, too"
            )

    def _set(self, base: float, factor: float) -> None:
        new = _Rate(base)
        new.factors = [*self._rate.factors]
        new.factors[self._index] = factor
        self.optimizer.lr = new.value()  # raises if it is not a valid learning rate
        self._rate.base, self._rate.factors = base, new.factors

    def _restore(self, base: float, factor: float) -> None:
        """Set the base and the factor of a saved state."""
        if self.optimizer._scheduled is not self._rate:
            self._attach(self.optimizer._scheduled, factor)
        self._set(base, factor)


def _end_temporary(optimizer: Optimizer) -> None:
    """Set the factors of an earlier run of `fit` to 1, unless the user has assigned a rate."""
    rate = optimizer._scheduled
    if rate is not None and rate.temporary and rate.value() == optimizer.lr:
        for index in rate.temporary:
            rate.factors[index] = 1.0
        rate.temporary = []
        optimizer.lr = rate.value()


class Scheduler(RateFactor):
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
        super().__init__(optimizer)
        self.schedule = _check_schedule(schedule, "Scheduler")
        self.count = 0
        self._begin(self.schedule(0))

    def step(self) -> None:
        """Count one step and set the learning rate of the next.

        Raises
        ------
        ArgumentError
            If the learning rate was assigned and another scheduler was created since, which now
            sets it, or if the factor gives an invalid learning rate. Nothing has changed.
        """
        self._check_attached()
        self._set(self.base_lr, self.schedule(self.count + 1))
        self.count += 1

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
        self._restore(base_lr, self.schedule(count))
        self.count = count


class ReduceLROnPlateau(RateFactor):
    """Multiply the learning rate by a factor where a metric no longer improves.

    It can be combined with a `Scheduler`, which multiplies the same base.

    Parameters
    ----------
    optimizer : Optimizer
        Its current learning rate is the base; if schedulers have set it, theirs is.
    mode : {"min", "max"}
        Whether a smaller metric is better, as of a loss, or a larger one.
    factor : float
        The factor of one reduction, in (0, 1).
    patience : int
        The calls of `step` without an improvement that are tolerated: the next one reduces.
    threshold : float
        The improvement over the best metric below which there is none.
    threshold_mode : {"rel", "abs"}
        Whether the threshold is a fraction of the best metric, or added to it.
    cooldown : int
        The calls of `step` after a reduction that count none as bad.
    min_lr : float
        The learning rate is not reduced below this one (without the factors of other schedulers;
        the rates of other groups keep their ratios).

    Attributes
    ----------
    best : float
        The best metric so far.
    bad : int
        The calls of `step` since then that count.
    base_lr : float
        The base, shared with the schedulers of the optimiser.

    Raises
    ------
    ArgumentError
        If a setting is out of range.

    Notes
    -----
    As in PyTorch (with eps=0): with the mode "min" and a relative threshold ε, a metric m is an
    improvement if m < best (1 - ε).

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> sgd = tg.optim.SGD(tg.nn.Linear(2, 1).parameters(), lr=1.0)
    >>> plateau = tg.optim.schedule.ReduceLROnPlateau(sgd, factor=0.5, patience=1)
    >>> rates = []
    >>> for loss in [3.0, 2.0, 2.0, 2.1, 1.9]:  # of an epoch, on held-out data
    ...     plateau.step(loss)
    ...     rates.append(sgd.lr)
    >>> rates
    [1.0, 1.0, 1.0, 0.5, 0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(optimizer)
        op = "ReduceLROnPlateau"
        for name, value, known in (
            ("mode", mode, ("min", "max")),
            ("threshold_mode", threshold_mode, ("rel", "abs")),
        ):
            if value not in known:
                raise ArgumentError(
                    f"{op}: {name} must be {known[0]!r} or {known[1]!r}, got {value!r}"
                )
        self.mode, self.threshold_mode = mode, threshold_mode
        self.factor = checks.number(factor, f"{op}: factor", 0, 1, "()")
        self.patience = checks.positive(patience, f"{op}: patience", least=0)
        self.threshold = checks.number(threshold, f"{op}: threshold", 0, math.inf, "[)")
        self.cooldown = checks.positive(cooldown, f"{op}: cooldown", least=0)
        self.min_lr = checks.number(min_lr, f"{op}: min_lr", 0, math.inf, "[)")
        self.best = math.inf if mode == "min" else -math.inf
        self.bad = self._resting = 0
        self._begin(1.0)

    def step(self, metric: Any) -> None:
        """Compare a metric with the best one so far, and reduce the learning rate where it is time.

        Parameters
        ----------
        metric : float or Tensor
            The loss of an epoch on held-out data, or another number.

        Raises
        ------
        ArgumentError
            If the metric is not a number, or is nan; or, as of `Scheduler.step`, if another
            scheduler sets the learning rate now. Nothing has changed.
        """
        self._check_attached()
        metric = checks.any_number(metric, "ReduceLROnPlateau.step: the metric")
        if math.isnan(metric):
            raise ArgumentError(
                "ReduceLROnPlateau.step: the metric is nan: look for its cause with "
                "tinygrad_rnn.detect_anomaly(), clip the gradient, or use a smaller learning rate"
            )
        better = self._better(metric)
        resting = max(0, self._resting - 1)
        bad = 0 if better or self._resting else self.bad + 1
        if bad > self.patience:
            own, base = self._rate.factors[self._index], self.base_lr
            least = min(own, self.min_lr / base) if base else own
            self._set(base, max(own * self.factor, least))
            bad, resting = 0, self.cooldown
        self.best = metric if better else self.best
        self.bad, self._resting = bad, resting

    def _better(self, metric: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        if math.isinf(self.best):
            return sign * metric < sign * self.best
        least = self.threshold * (self.best if self.threshold_mode == "rel" else 1.0)
        return sign * metric < sign * self.best - least

    def state_dict(self) -> dict[str, Any]:
        """Return the base, the present factor, the best metric and the counts.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> sgd = tg.optim.SGD(tg.nn.Linear(2, 1).parameters(), lr=1.0)
        >>> tg.optim.schedule.ReduceLROnPlateau(sgd).state_dict()
        {'base_lr': 1.0, 'factor': 1.0, 'best': inf, 'bad': 0, 'resting': 0}
        """
        return {
            "base_lr": self.base_lr,
            "factor": self._rate.factors[self._index],
            "best": self.best,
            "bad": self.bad,
            "resting": self._resting,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`, and with it the learning rate.

        Parameters
        ----------
        state : mapping
            The result of `state_dict`.

        Raises
        ------
        ArgumentError
            `state` does not have the keys and values of a `state_dict`; nothing was loaded.
        """
        op = "ReduceLROnPlateau.load_state_dict"
        own = self.state_dict()
        check_keys(op, state, own)
        raise_problems(
            op,
            [
                f"{name} is {state[name]!r}, and {type(value).__name__} is expected"
                for name, value in own.items()
                if type(state[name]) is not type(value) or (name != "best" and not state[name] >= 0)
            ],
        )
        self._restore(state["base_lr"], state["factor"])
        self.best, self.bad, self._resting = (state[name] for name in ("best", "bad", "resting"))


for _name, _ours in {  # names in PyTorch
    "lr": "optimizer.lr",
    "get_lr": "optimizer.lr",
    "get_last_lr": "optimizer.lr",
    "base_lrs": "base_lr",
}.items():
    setattr(RateFactor, _name, MissingAttribute(_name, _ours))
for _kind, _name, _ours in (
    (Scheduler, "last_epoch", "count"),
    (ReduceLROnPlateau, "num_bad_epochs", "bad"),
):
    setattr(_kind, _name, MissingAttribute(_name, _ours))


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
}
__getattr__ = module_getattr(__name__, OTHER_NAMES, globals())
