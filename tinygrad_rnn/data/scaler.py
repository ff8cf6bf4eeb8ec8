"""Standardisation of data, as a module: its mean and deviation are saved with the model."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ..engine import backend
from ..engine.tensor import Tensor
from ..errors import ArgumentError, ShapeError
from ..nn import Module
from ..tensors import checks
from ..tensors.creation import tensor


class Scaler(Module):
    """Subtract the mean of each feature and divide by its standard deviation.

    As an attribute of a model it is in the model's `state_dict`: a forecast in the unit of the data
    needs nothing else.

    Parameters
    ----------
    num_features : int
        F, the length of the last axis; 1 also for a series of shape (L,), which has no such axis.

    Attributes
    ----------
    mean, std : Tensor of float64, shape (F,)
        Of the data that it was fitted to; the deviation of a constant feature is 1. Buffers.
    count : Tensor of int64
        The number of rows of these data; 0 before `fit`. A buffer.

    Raises
    ------
    ArgumentError
        If `num_features` is not an integer of at least 1.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> train = np.array([[0.0, 10.0], [2.0, 30.0]])
    >>> scaler = tg.data.Scaler(2).fit(train)
    >>> scaler(train)
    tensor([[-1., -1.],
            [ 1.,  1.]])
    >>> scaler.inverse(scaler([[4.0, 10.0]]))
    tensor([[ 4., 10.]])
    >>> list(scaler.state_dict())
    ['mean', 'std', 'count']
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        size = checks.positive(num_features, "Scaler: num_features")
        self.register_buffer("mean", np.zeros(size))
        self.register_buffer("std", np.ones(size))
        self.register_buffer("count", np.zeros((), np.int64))

    def fit(self, data: Any) -> Self:
        """Take mean and deviation of training data, in double precision.

        Parameters
        ----------
        data : array_like or Tensor, shape (..., F), or (L,) if F is 1
            The data, without those for validation and test.

        Returns
        -------
        Scaler
            The scaler itself.

        Raises
        ------
        ShapeError
            If the last axis is not F.
        ArgumentError
            If the data are empty, or a value is nan or infinite. Nothing was changed.
        """
        array = data._data if isinstance(data, Tensor) else backend.asarray(data)
        array = backend.to_numpy(array).astype(np.float64)
        self._check(array.shape, "fit")
        rows = array.reshape(-1, self.mean.size)
        if not len(rows):
            raise ArgumentError("Scaler.fit: the data are empty")
        bad = ~np.isfinite(rows)
        if bad.any():
            columns = bad.any(axis=0).nonzero()[0].tolist()
            raise ArgumentError(
                f"Scaler.fit: {bad.sum()} values are nan or infinite, in the features {columns}: "
                "drop these rows, or fill them, such as by numpy.nan_to_num or .interpolate()"
            )
        std = rows.std(axis=0)
        # The deviation of equal numbers need not be 0 after rounding.
        constant = np.ptp(rows, axis=0) == 0
        for buffer, value in (
            (self.mean, np.where(constant, rows[0], rows.mean(axis=0))),
            (self.std, np.where(constant, 1.0, std)),
            (self.count, np.array(len(rows))),
        ):
            buffer.data = value
        return self

    def forward(self, x: Any) -> Tensor:
        """Return (x - mean) / std.

        Parameters
        ----------
        x : array_like or Tensor, shape (..., F), or (L,) if F is 1
            A Tensor keeps its floating dtype and its graph; other data are computed in double
            precision and become a Tensor of the default dtype.

        Returns
        -------
        Tensor
            The shape of `x`.

        Raises
        ------
        ArgumentError
            If the scaler was not fitted.
        ShapeError
            If the last axis is not F.
        """
        given, dtype = self._given(x, "forward")
        mean, std = (part.astype(given.dtype) for part in (self.mean, self.std))
        return ((given - mean) / std).astype(dtype)

    def inverse(self, z: Any) -> Tensor:
        """Return z · std + mean, from standardised data to the unit of the data.

        Parameters
        ----------
        z : array_like or Tensor, shape (..., F), or (L,) if F is 1
            Such as the predictions of a model.

        Returns
        -------
        Tensor
            The shape of `z`; dtypes as of `forward`.

        Raises
        ------
        ArgumentError
            If the scaler was not fitted.
        ShapeError
            If the last axis is not F.
        """
        given, dtype = self._given(z, "inverse")
        mean, std = (part.astype(given.dtype) for part in (self.mean, self.std))
        return (given * std + mean).astype(dtype)

    def _given(self, x: Any, name: str) -> tuple[Tensor, Any]:
        """Return the argument as a floating Tensor, and the dtype of the result."""
        if not self.count.item():
            raise ArgumentError(
                f"Scaler.{name}: it has no mean yet: call fit(training data), or load_state_dict"
            )
        default = backend.get_default_dtype()
        if not isinstance(x, Tensor):
            given = tensor(backend.asarray(x, np.float64), device=self.mean.device)
        else:
            given = x if x.dtype.kind == "f" else x.astype(np.float64)
        self._check(given.shape, name)
        kept = isinstance(x, Tensor) and x.dtype.kind == "f"
        return given, given.dtype if kept else default

    def _check(self, shape: tuple[int, ...], name: str) -> None:
        size = self.mean.size
        if shape[-1:] != (size,) and (size > 1 or len(shape) > 1):
            raise ShapeError(
                f"Scaler.{name}: {size} features are expected on the last axis, got {shape}: make "
                f"it by Scaler({shape[-1] if shape else 1}), or reshape the data"
            )

    def extra_repr(self) -> str:
        """Return whether it was fitted."""
        rows = int(self.count.item())
        return f"fitted to {rows:,} rows" if rows else "not fitted"
