"""Cells of a user, which the tests of ONNX and of C files export."""

from __future__ import annotations

from typing import Any

import tinygrad_rnn as tg


class MinimalGatedUnit(tg.nn.Cell):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.W = tg.nn.Linear(input_size, 2 * hidden_size)
        self.U_f = tg.nn.Linear(hidden_size, hidden_size, bias=False)
        self.U_n = tg.nn.Linear(hidden_size, hidden_size, bias=False)

    def project(self, x: Any) -> Any:
        return self.W(x)

    def step(self, z: Any, h: Any) -> Any:
        z_f, z_n = z.split(2, axis=-1)
        f = tg.sigmoid(z_f + self.U_f(h))
        return (1 - f) * h + f * tg.tanh(z_n + self.U_n(f * h))


class WeightDrop(tg.nn.LSTMCell):
    """`project` assigns a weight, which is the whole one in evaluation."""

    def __init__(self, *sizes: int, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.raw = self.weight_hh
        del self.weight_hh

    def project(self, x: Any) -> Any:
        keep = tg.functional.dropout(tg.ones_like(self.raw), 0.5, self.training)
        self.weight_hh = self.raw * keep
        return super().project(x)
