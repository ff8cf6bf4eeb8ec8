"""A checkpoint of version 0.1.0, written before the modules moved to their folders, still loads.

``checkpoint_0_1_0.npz`` holds a run after three steps, and the figures of its next three steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg

FILE = Path(__file__).with_name("checkpoint_0_1_0.npz")
TEXT = "the time traveller and the time machine " * 9
OPTIMIZERS = {
    "SGD": {"lr": 0.01, "momentum": 0.9},
    "Adam": {"lr": 0.01},
    "AdamW": {"lr": 0.01},
    "RMSprop": {"lr": 0.01, "momentum": 0.5},
    "Adagrad": {"lr": 0.01},
}


class Run:
    """Everything that has a state: each part of it continues in `step`."""

    def __init__(self, seed: int) -> None:
        tg.manual_seed(seed)
        text = tg.data.text
        self.vocabulary = text.Vocabulary(TEXT, level="word")
        ids = self.vocabulary.encode(TEXT)
        self.generator = np.random.default_rng(seed)
        self.model = tg.models.RecurrentLM(tg.nn.LSTMCell, self.vocabulary, 4, dropout=0.2)
        self.optimizer = tg.optim.Adam(self.model.parameters(), 0.01)
        self.scheduler = tg.optim.schedule.Scheduler(
            self.optimizer, tg.optim.schedule.linear_warmup(9)
        )
        self.metric = tg.metrics.Perplexity()
        self.stream = text.sequential(ids, 2, 4)
        self.layers = {name: tg.nn.Linear(1, 1, bias=False) for name in OPTIMIZERS}
        self.optimizers = {
            name: getattr(tg.optim, name)(self.layers[name].parameters(), **settings)
            for name, settings in OPTIMIZERS.items()
        }
        self.streams = {
            "random": text.random(ids, 2, 4, drop_last=False),
            "evaluation": text.evaluation(ids, 2, 4),
            "batches": tg.data.batches(np.arange(20.0), batch_size=3),
            "truncated": tg.bptt.Truncated(4).windows(ids, batch_size=2),
            "randomized": tg.bptt.Randomized(0.5).windows(ids, batch_size=2),
        }
        self.ngram = tg.models.NGram(2, self.vocabulary).fit(ids[seed * 9 :])
        self.state: Any = None

    def step(self) -> dict[str, Any]:
        """Return figures of one step, such that each depends on one part of the state."""
        x, y = next(self.stream)
        logits, state = self.model(x, self.state)
        loss = tg.functional.cross_entropy(logits, y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.metric.update(loss.item(), y.size)
        self.state = tg.bptt.detach(state)
        for name, layer in self.layers.items():
            self.optimizers[name].zero_grad()
            (layer(tg.ones(3, 1)) ** 2).sum().backward()
            self.optimizers[name].step()
        return {
            "loss": loss.item(),
            "lr": self.optimizer.lr,
            "perplexity": self.metric.value,
            "layers": {name: layer(tg.ones(1)).item() for name, layer in self.layers.items()},
            "streams": {name: next(s)[0].numpy().tolist() for name, s in self.streams.items()},
            "generator": self.generator.random(),
            "ngram": self.ngram.score("the time machine"),
            "library": float(tg.random.generator().random()),
        }

    def save(self, path: Path, **more: Any) -> None:
        """Write all parts; the file of this folder was written so by version 0.1.0."""
        tg.save(path, random=tg.random.get_state(), **vars(self), **more)


def resumed(saved: dict[str, Any]) -> Run:
    """Return a run of another seed that continues from a file."""
    run = Run(seed=1)
    for name in ("model", "optimizer", "scheduler", "metric", "stream", "ngram"):
        getattr(run, name).load_state_dict(saved[name])
    for group in ("layers", "optimizers", "streams"):
        for name, part in getattr(run, group).items():
            part.load_state_dict(saved[group][name])
    run.vocabulary = tg.data.text.Vocabulary.from_state_dict(saved["vocabulary"])
    run.generator.bit_generator.state = saved["generator"]
    run.state = tg.bptt.restore(saved["state"])
    tg.random.set_state(saved["random"])
    return run


def same(found: Any, expected: Any) -> None:
    """Assert that figures agree to the rounding of float32 on another machine."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            same(found[name], value)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_run_of_version_0_1_0_continues() -> None:
    saved = tg.load(FILE)
    run = resumed(saved)
    assert run.vocabulary.decode(run.vocabulary.encode("the time machine")) == "the time machine"
    for expected in saved["expected"]:
        same(run.step(), expected)
    with pytest.raises(AssertionError):
        same(Run(seed=1).step(), saved["expected"][0])
