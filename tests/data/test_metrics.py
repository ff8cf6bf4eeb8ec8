"""Perplexity over many batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import functional as F
from tinygrad_rnn.data.metrics import Perplexity
from tinygrad_rnn.errors import ArgumentError


@given(st.lists(st.lists(st.floats(0, 20), min_size=1, max_size=5), min_size=1, max_size=5))
def test_perplexity_metric_does_not_depend_on_the_batches(batches):
    by_mean, by_token = Perplexity(), Perplexity()
    for batch in batches:
        by_mean.update(float(np.mean(batch)), len(batch))
        by_token.update(np.array(batch))
    tokens = np.concatenate(batches)
    assert by_mean.count == by_token.count == len(tokens)
    assert by_mean.nats == pytest.approx(tokens.mean(), abs=1e-12)
    assert by_token.nats == pytest.approx(tokens.mean(), abs=1e-12)
    assert by_mean.value == pytest.approx(math.exp(tokens.mean()))
    assert by_mean.bits == pytest.approx(tokens.mean() / math.log(2), abs=1e-12)
    mean_of_perplexities = np.mean([F.perplexity(np.mean(batch)) for batch in batches])
    if len({len(batch) for batch in batches}) == 1:
        assert by_mean.value <= mean_of_perplexities * (1 + 1e-12)


def test_perplexity_metric_takes_tensors_resets_and_leaves_out_empty_batches():
    metric = Perplexity()
    metric.update(tg.tensor(2.0, requires_grad=True), 3)
    metric.update(math.nan, 0)
    assert (metric.total, metric.count) == (6.0, 3)
    metric.reset()
    metric.update(tg.tensor([0.0, 1.0]))
    assert (metric.nats, metric.count) == (0.5, 2)


def test_perplexity_metric_refuses_what_is_ambiguous():
    metric = Perplexity()
    with pytest.raises(ArgumentError, match="no losses yet"):
        _ = metric.value
    with pytest.raises(ArgumentError, match="pass count="):
        metric.update(2.0)
    with pytest.raises(ArgumentError, match=r"one mean is expected, got losses \(2,\)"):
        metric.update(tg.ones(2), 2)
    for count in (-1, 2.5, True):
        with pytest.raises(ArgumentError, match="count must be an integer"):
            metric.update(2.0, count)
    assert metric.count == 0
