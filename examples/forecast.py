"""Forecast the next 24 hours of a series with a daily season, a weekly one and a trend.

    python examples/forecast.py

The network reads the last 48 hours of the load, and the hour of the day and of the week as sine and
cosine. The naive forecast is the load at the same hour a week ago. The target on the last three
weeks: a root mean squared error of at most 0.9 times that of the naive forecast, which adds the
noise of two hours; the noise of one, 4, is unpredictable.
"""

import sys
import tempfile

import matplotlib.pyplot as plt
import numpy as np

import tinygrad_rnn as tg

hours, train, test = np.arange(20 * 168), 14 * 168, 17 * 168  # 20 weeks; between them: validation
angles = 2 * np.pi * hours[:, None] / [24, 168]  # of the day and of the week
load = 100 + hours / 500 + 20 * np.sin(angles[:, 0]) - 15 * (hours % 168 >= 120)  # and weekends
series = np.column_stack([np.random.default_rng(0).normal(load, 4), np.sin(angles), np.cos(angles)])

model = tg.models.Forecaster(tg.nn.GRUCell, 5, 32, ahead=24, num_targets=1, rng=0)
scaled = model.scaler.fit(series[:train])(series)
x, y = tg.data.windows(scaled[:train], look_back=48, ahead=24)
x_valid, y_valid = tg.data.windows(scaled[train - 48 : test], look_back=48, ahead=24)
history = tg.fit(
    model, tg.data.batches(x, y[:, :, :1], batch_size=32, rng=0),
    loss=tg.functional.mse_loss, optimizer=tg.optim.Adam(model.parameters(), lr=0.01),
    epochs=1 if "--smoke" in sys.argv else 20, valid=[(x_valid, y_valid[:, :, :1])],
    callbacks=[tg.training.EarlyStopping(patience=5), tg.training.BestModel()],
)  # fmt: skip

x, y = tg.data.windows(series[test - 168 :], look_back=168, ahead=24)
forecasts = {"GRU": model.predict(x[:, -48:]), "a week ago": x[:, :24, :1]}
errors = {name: tg.metrics.RMSE() for name in forecasts}
plt.plot(y[-1, :, 0], "k.", label="load")
for name, forecast in forecasts.items():
    errors[name].update(forecast, y[:, :, :1])
    plt.plot(forecast[-1], label=f"{name}, {errors[name]}")
plt.legend(title="hours of the last day")
plt.savefig(path := f"{tempfile.mkdtemp()}/forecast.png")
print(history, errors, path, sep="\n")
assert "--smoke" in sys.argv or errors["GRU"].value < 0.9 * errors["a week ago"].value
