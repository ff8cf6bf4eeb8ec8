"""Forecasts in the unit of the data, as a module that can be exported."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine.tensor import Tensor
from ..models import Forecaster
from ..nn import Module


class ForecasterInUnits(Module):
    """A `Forecaster` from values to forecasts in the unit of the data, as `predict` returns them.

    Parameters
    ----------
    model : Forecaster
        With a scaler that was fitted.
    """

    def __init__(self, model: Forecaster) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, lengths: Any = None) -> Tensor:
        """Return the next values (B, A, K) of series x (B, T, F)."""
        model, dtype = self.model, self.model.head.weight.dtype
        mean, std = model.scaler.mean, model.scaler.std
        z = (x.astype(np.float64) - mean) / std
        y, K = model(z.astype(dtype), lengths), model.num_targets
        return (y.astype(np.float64) * std[:K] + mean[:K]).astype(dtype)


def in_units(model: Any) -> Any:
    """Return the module to export: a forecaster with a fitted scaler computes in its unit."""
    if isinstance(model, Forecaster) and model.scaler.count.item():
        return ForecasterInUnits(model)
    return model
