"""Learning curves as numbers: many noisy losses as a few means, each with its deciles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError, ShapeError
from ..tensors import checks

Numbers = npt.NDArray[np.float64]


class LearningCurve(NamedTuple):
    """Means of a loss over intervals of training with equally many losses (see `learning_curve`).

    Attributes
    ----------
    at : ndarray of float64, shape (n,)
        The end of each interval, in the unit of the argument `at` (training steps by default).
    mean, low, high : ndarray of float64, shape (n,)
        The mean of the losses in each interval, and their deciles 0.1 and 0.9.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.viz.learning_curve([4.0, 2.0, 2.0, 0.0], points=2).mean
    array([3., 1.])
    """

    at: Numbers
    mean: Numbers
    low: Numbers
    high: Numbers


def learning_curve(
    losses: npt.ArrayLike, at: npt.ArrayLike | None = None, points: int = 100
) -> LearningCurve:
    """Summarise the losses of a training run as a curve of a few points.

    Parameters
    ----------
    losses : array_like of n numbers
        One for each training step, or each epoch.
    at : array_like of n numbers, optional
        The time of each loss in any unit (seconds, tokens, epochs), not decreasing. By default the
        number of the step, from 1.
    points : int
        Largest number of intervals. The numbers of losses in two intervals differ by at most one.

    Returns
    -------
    LearningCurve
        If there are at most `points` losses, its points are the losses themselves.

    Raises
    ------
    ArgumentError
        If `losses` is empty, `points` is below 1, or `at` decreases.
    ShapeError
        If `at` and `losses` differ in length.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> curve = tg.viz.learning_curve([4.0, 2.0, 3.0, 1.0], points=2)
    >>> curve.at.tolist(), curve.mean.tolist()
    ([2.0, 4.0], [3.0, 2.0])
    """
    points = checks.positive(points, "viz.learning_curve: points")
    values = np.asarray(losses, np.float64)
    if values.ndim != 1 or not len(values):
        raise ArgumentError(
            f"viz.learning_curve: a sequence of losses is expected, got shape {values.shape}"
        )
    times = np.arange(1.0, len(values) + 1) if at is None else np.asarray(at, np.float64)
    if times.shape != values.shape:
        raise ShapeError(
            f"viz.learning_curve: at must have one number for each of {len(values)} losses, "
            f"got shape {times.shape}"
        )
    if (np.diff(times) < 0).any():
        raise ArgumentError("viz.learning_curve: at must not decrease")
    intervals: Sequence[Numbers] = np.array_split(values, min(points, len(values)))
    ends = np.cumsum([len(interval) for interval in intervals]) - 1
    low, high = np.array([np.quantile(interval, [0.1, 0.9]) for interval in intervals]).T
    return LearningCurve(times[ends], np.array([i.mean() for i in intervals]), low, high)
