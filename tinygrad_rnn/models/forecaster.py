"""Forecasts of series: the next values from the last ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.scaler import Scaler
from ..engine.tensor import Tensor
from ..errors import ArgumentError, ShapeError
from ..nn import Linear
from ..random import Rng
from ..tensors import checks
from ..tensors.creation import tensor
from .summary import (
    Array,
    SequenceModel,
    Summary,
    as_array,
    check_sequences,
    common_options,
    is_ragged,
)


class Forecaster(SequenceModel):
    """A forecast of the next A values of a series: recurrent layers of any cell, a linear layer.

    The network computes with standardised values, as `scaler` gives them; `predict` takes and
    returns values in the unit of the data.

    Parameters
    ----------
    cell : class or list of cells
        A subclass of `nn.Cell`, such as `nn.GRUCell` or your own, as of `nn.Recurrent`.
    num_features : int
        F, the number of values at each time; 1 for a single series.
    hidden_size : int
        H.
    ahead : int
        A, the number of times that are predicted at once (a direct forecast). `predict` goes
        further by reading its own predictions (a recursive forecast).
    num_targets : int, optional
        K, to predict the first K features only. Default: all.
    num_layers, bidirectional, pool, dropout, dtype, device, rng, **options
        As of `Classifier`.

    Attributes
    ----------
    scaler : Scaler
        Not fitted, so without effect, until ``model.scaler.fit(training data)``.

    Raises
    ------
    ArgumentError
        If a size is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> series = 20 + 5 * np.sin(np.arange(300) / 4)
    >>> model = tg.models.Forecaster(tg.nn.GRUCell, 1, 16, ahead=4, rng=0)
    >>> x, y = tg.data.windows(model.scaler.fit(series)(series), look_back=24, ahead=4)
    >>> history = tg.fit(
    ...     model,
    ...     tg.data.batches(x, y, batch_size=32, rng=0),
    ...     loss=tg.functional.mse_loss,
    ...     optimizer=tg.optim.Adam(model.parameters(), lr=0.02),
    ...     epochs=20,
    ... )
    >>> forecast = model.predict(series[-24:], steps=8)  # 4 direct ones, and 4 from them
    >>> forecast.shape
    (8, 1)
    >>> bool(abs(forecast[:, 0] - 20 - 5 * np.sin(np.arange(300, 308) / 4)).max() < 1)
    True
    """

    def __init__(
        self,
        cell: Any,
        num_features: int,
        hidden_size: int,
        ahead: int = 1,
        num_targets: int | None = None,
        num_layers: int = 1,
        bidirectional: bool = False,
        pool: str = "last",
        dropout: float = 0.0,
        dtype: Any = None,
        device: str | None = None,
        rng: Rng = None,
        **options: Any,
    ) -> None:
        super().__init__()
        common = common_options(dtype, device, rng)
        self.num_features = checks.positive(num_features, "Forecaster: num_features")
        self.ahead = checks.positive(ahead, "Forecaster: ahead")
        self.num_targets = self.num_features
        if num_targets is not None:
            self.num_targets = checks.positive(num_targets, "Forecaster: num_targets")
        if self.num_targets > self.num_features:
            raise ArgumentError(
                f"Forecaster: num_targets={num_targets}: the first features are predicted, and "
                f"there are {num_features}"
            )
        self._made: dict[str, Any] = {
            "cell": cell, "num_features": num_features, "hidden_size": hidden_size,
            "ahead": ahead, "num_targets": num_targets, "num_layers": num_layers,
            "bidirectional": bidirectional, "pool": pool, "dropout": dropout, "bptt": None,
            **options,
        }  # fmt: skip
        self.scaler = Scaler(self.num_features)
        if device is not None:
            self.scaler.to(device)
        self.summary = Summary(
            cell, self.num_features, hidden_size, num_layers, bidirectional, pool, dropout,
            common, options,
        )  # fmt: skip
        self.head = Linear(self.summary.size, self.ahead * self.num_targets, **common)

    def _arguments(self) -> dict[str, Any]:
        return self._made | self.summary.arguments()

    def forward(self, x: Tensor, lengths: Any = None) -> Tensor:
        """Return the next A values, standardised.

        Parameters
        ----------
        x : Tensor
            Standardised values (B, T, F), as of `data.windows`.
        lengths : sequence of B integers, optional
            The number of steps of each sequence, as of `data.pad`. What follows is never read.

        Returns
        -------
        Tensor
            (B, A, K).

        Raises
        ------
        ShapeError, DTypeError, ArgumentError
            If `x` or `lengths` do not fit.
        """
        return self.head(self.summary(x, lengths)).reshape(-1, self.ahead, self.num_targets)

    def predict(self, x: Any, steps: int | None = None, batch_size: int = 256) -> Array:
        """Return the values that follow, in the unit of the data.

        Parameters
        ----------
        x : array_like, shape (N, T, F), or (T, F), or (T,) if F is 1; or a list of those
            The last values of N series, or of one, in the unit of the data: for the best forecast
            as many as the windows of the training had. A list has one array for each series; they
            can differ in length.
        steps : int, optional
            S, the number of values to predict; default A. If S is larger, the model reads its A
            predictions, in place of the oldest values, and predicts again.
        batch_size : int
            The number of series that are computed at a time. It affects memory, not the result.

        Returns
        -------
        ndarray of shape (N, S, K), or (S, K) for one series
            In the dtype of the parameters.

        Raises
        ------
        ShapeError
            If `x` does not fit.
        ArgumentError
            If a value is nan or infinite; or if S is above A, and not all features are predicted.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> model = tg.models.Forecaster(tg.nn.GRUCell, 2, 4, ahead=3, num_targets=1)
        >>> model.predict(tg.zeros(5, 7, 2)).shape
        (5, 3, 1)
        """
        steps = checks.positive(self.ahead if steps is None else steps, "Forecaster.predict: steps")
        if steps > self.ahead and self.num_targets < self.num_features:
            raise ArgumentError(
                f"Forecaster.predict: steps={steps} is more than ahead={self.ahead}, so it reads "
                f"its predictions, which are {self.num_targets} of {self.num_features} features: "
                "predict fewer, or make the model with all features as targets"
            )
        rows, single = self._rows(x)
        forecasts: list[Array] = []
        while sum(part.shape[1] for part in forecasts) < steps:
            forecast = self._outputs(rows, batch_size)
            if not np.isfinite(forecast).all():
                raise FloatingPointError(
                    "Forecaster: the forecast is not finite: the weights are not finite, or a "
                    "value is too large: fit model.scaler to the training data"
                )
            forecasts.append(forecast)
            if self.num_targets < self.num_features:
                break  # `steps` were checked
            if isinstance(rows, list):
                pairs = zip(rows, forecast, strict=True)
                rows = [np.concatenate(pair)[-len(pair[0]) :] for pair in pairs]
            else:
                rows = np.concatenate([rows, forecast], axis=1)[:, -rows.shape[1] :]
        result = self._unscaled(np.concatenate(forecasts, axis=1)[:, :steps])
        return result[0] if single else result

    def _rows(self, x: Any) -> tuple[Any, bool]:
        """Return standardised series, a list or one array, and whether it is a single one."""
        check_sequences("Forecaster", x)
        if is_ragged(x):
            return [self._scaled(self._checked(as_array(row), (2,))) for row in x], False
        values = self._checked(as_array(x), (2, 3))
        return self._scaled(values if values.ndim == 3 else values[None]), values.ndim == 2

    def _checked(self, values: Array, ndim: tuple[int, ...]) -> Array:
        """Return one series (T, F), or several (N, T, F) if `ndim` has 3; raise for others."""
        features, shape = self.num_features, values.shape
        if features == values.ndim == 1:
            values = values[:, None]
        if values.ndim not in ndim or values.shape[-1] != features:
            cure = "a list has one array for each series"
            if features == 1:
                cure = "several series of one feature are x[:, :, None]"
            raise ShapeError(
                f"Forecaster.predict: a series (T, {features}), or several (N, T, {features}), are "
                f"expected, got {shape}: {cure}"
            )
        if not values.shape[-2]:
            raise ShapeError(
                f"Forecaster.predict: a series of shape {shape} has no value to begin from: leave "
                "it out"
            )
        if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
            raise ArgumentError(
                f"Forecaster.predict: not all values are finite numbers ({values.dtype}): fill the "
                "gaps of the series, such as by .interpolate()"
            )
        return values

    def _scaled(self, values: Array) -> Array:
        dtype = self.head.weight.dtype
        if not self.scaler.count.item():
            return values.astype(dtype)
        device = self.scaler.mean.device
        return self.scaler(tensor(values.astype(np.float64), device=device)).numpy().astype(dtype)

    def _unscaled(self, forecast: Array) -> Array:
        if not self.scaler.count.item():
            return forecast
        # The scaler needs all features, and those that are not predicted are not used.
        full = np.zeros((*forecast.shape[:-1], self.num_features))
        full[..., : self.num_targets] = forecast
        values = self.scaler.inverse(tensor(full, device=self.scaler.mean.device)).numpy()
        return values[..., : self.num_targets].astype(forecast.dtype)
