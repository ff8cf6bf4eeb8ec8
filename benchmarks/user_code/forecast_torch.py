"""The job of examples/forecast.py in PyTorch: the same data, network and budget."""

import copy
import math
import sys
import tempfile
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

hours, train, test = np.arange(20 * 168), 14 * 168, 17 * 168  # 20 weeks; between them: validation
angles = 2 * np.pi * hours[:, None] / [24, 168]  # of the day and of the week
load = 100 + hours / 500 + 20 * np.sin(angles[:, 0]) - 15 * (hours % 168 >= 120)  # and weekends
series = np.column_stack([np.random.default_rng(0).normal(load, 4), np.sin(angles), np.cos(angles)])


class Forecaster(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 32, batch_first=True)
        self.head = nn.Linear(32, 24)

    def forward(self, x):
        _, h = self.rnn(x)
        return self.head(h[-1])


def windows(values, look_back):
    parts = torch.tensor(values, dtype=torch.float32).unfold(0, look_back + 24, 1).mT
    return parts[:, :look_back], parts[:, look_back:, 0]


torch.manual_seed(0)
model = Forecaster()
mean, std = series[:train].mean(axis=0), series[:train].std(axis=0)
scaled = (series - mean) / std
loader = DataLoader(TensorDataset(*windows(scaled[:train], 48)), batch_size=32, shuffle=True)
x_valid, y_valid = windows(scaled[train - 48 : test], 48)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
best, best_weights, waited = math.inf, None, 0
start = time.perf_counter()
for epoch in range(1 if "--smoke" in sys.argv else 20):
    model.train()
    total = 0.0
    for x, y in loader:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(x)
    model.eval()
    with torch.no_grad():
        valid_loss = nn.functional.mse_loss(model(x_valid), y_valid).item()
    seconds = time.perf_counter() - start
    print(f"{epoch + 1} {total / len(loader.dataset):.4f} {valid_loss:.4f} {seconds:.2f}")
    waited += 1
    if valid_loss < best:
        best, best_weights, waited = valid_loss, copy.deepcopy(model.state_dict()), 0
    if waited == 5:
        break
model.load_state_dict(best_weights)

x, y = windows(series[test - 168 :], 168)
with torch.no_grad():
    scaled_x = (x[:, -48:] - torch.tensor(mean)) / torch.tensor(std)
    predicted = model(scaled_x.float()) * std[0] + mean[0]
forecasts = {"GRU": predicted, "a week ago": x[:, :24, 0]}
errors = {name: (forecast - y).square().mean().sqrt() for name, forecast in forecasts.items()}
plt.plot(y[-1], "k.", label="load")
for name, forecast in forecasts.items():
    plt.plot(forecast[-1], label=f"{name}, RMSE {errors[name]:.3f}")
plt.legend(title="hours of the last day")
plt.savefig(path := f"{tempfile.mkdtemp()}/forecast.png")
print(", ".join(f"{name}: RMSE {error:.3f}" for name, error in errors.items()), path)
assert "--smoke" in sys.argv or errors["GRU"] < 0.9 * errors["a week ago"]
