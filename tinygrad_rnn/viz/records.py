"""Learning curves as numbers: many noisy losses as a few means, each with its spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError, ShapeError
from ..tensors import checks

Numbers = npt.NDArray[np.float64]


class LearningCurve(NamedTuple):
    """Means of a loss over equal stretches of training, as `learning_curve` returns them.

    Attributes
    ----------
    at : ndarray of float64, shape (n,)
        Where each stretch ends: steps, or what they were counted in.
    mean, low, high : ndarray of float64, shape (n,)
        Of the losses in it: the mean, and the deciles 0.1 and 0.9.
    """

    at: Numbers
    mean: Numbers
    low: Numbers
    high: Numbers


def learning_curve(
    losses: npt.ArrayLike, at: npt.ArrayLike | None = None, points: int = 100
) -> LearningCurve:
    """Return the losses of a training run as a curve of a few points.

    Parameters
    ----------
    losses : array_like of n numbers
        One for each training step, or each epoch.
    at : array_like of n numbers, optional
        Where each was measured, growing: seconds, tokens, epochs. The number of the step, from 1,
        if not given.
    points : int
        At most so many stretches, of equal numbers of losses to one loss.

    Returns
    -------
    LearningCurve
        With as many losses as points or fewer: the losses themselves.

    Raises
    ------
    ArgumentError
        If there is no loss, `points` is below 1, or `at` falls.
    ShapeError
        If there are not as many places as losses.

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
    places = np.arange(1.0, len(values) + 1) if at is None else np.asarray(at, np.float64)
    if places.shape != values.shape:
        raise ShapeError(
            f"viz.learning_curve: {len(values)} losses at places of shape {places.shape}"
        )
    if (np.diff(places) < 0).any():
        raise ArgumentError("viz.learning_curve: at must grow from loss to loss")
    stretches: Sequence[Numbers] = np.array_split(values, min(points, len(values)))
    ends = np.cumsum([len(stretch) for stretch in stretches]) - 1
    low, high = np.array([np.quantile(stretch, [0.1, 0.9]) for stretch in stretches]).T
    return LearningCurve(places[ends], np.array([s.mean() for s in stretches]), low, high)
