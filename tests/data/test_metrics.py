"""Metrics over many batches."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import functional as F
from tinygrad_rnn.data import metrics
from tinygrad_rnn.data.metrics import Perplexity
from tinygrad_rnn.errors import ArgumentError, DTypeError, MissingExtraError, ShapeError


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


# -- accuracy, confusion, errors -------------------------------------------------------------------

K = 3
BATCHES = st.lists(
    st.lists(st.tuples(st.integers(0, K - 1), st.integers(0, K - 1)), max_size=6),
    min_size=1,
    max_size=5,
)
METRICS = {
    "Accuracy": metrics.Accuracy,
    "Confusion": lambda: metrics.Confusion(K),
    "MAE": metrics.MAE,
    "RMSE": metrics.RMSE,
}
every_metric = pytest.mark.parametrize("make", METRICS.values(), ids=METRICS)


def columns(batch):
    array = np.array(batch, np.int64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


@every_metric
@given(BATCHES, st.integers(0, 5))
def test_metrics_do_not_depend_on_the_batches_and_merge(make, batches, cut):
    whole, first, second, resumed = make(), make(), make(), make()
    whole.update(*columns([pair for batch in batches for pair in batch]))
    for i, batch in enumerate(batches):
        (first if i < cut else second).update(*columns(batch))
    resumed.load_state_dict(first.state_dict())
    for metric in (first.merge(second), resumed.merge(second)):
        np.testing.assert_equal(metric.state_dict(), whole.state_dict())
        assert repr(metric) == repr(whole)
    whole.reset()
    np.testing.assert_equal(whole.state_dict(), make().state_dict())


@given(BATCHES.filter(lambda batches: any(batches)))
def test_metrics_are_their_definitions(batches):
    prediction, target = columns([pair for batch in batches for pair in batch])
    found = {name: make() for name, make in METRICS.items()}
    for metric in found.values():
        metric.update(prediction, tg.tensor(target))
    confusion = found["Confusion"]
    right = (prediction == target).mean()
    assert found["Accuracy"].value == confusion.accuracy == pytest.approx(right)
    assert found["MAE"].value == pytest.approx(np.abs(prediction - target).mean())
    assert found["RMSE"].value == pytest.approx(np.sqrt(((prediction - target) ** 2).mean()))
    for i in range(K):
        for j in range(K):
            assert confusion.value[i, j] == ((target == i) & (prediction == j)).sum()
        of_class, as_class = (prediction[target == i] == i), (target[prediction == i] == i)
        recall = of_class.mean() if of_class.size else np.nan
        precision = as_class.mean() if as_class.size else np.nan
        np.testing.assert_allclose(confusion.recall[i], recall)
        np.testing.assert_allclose(confusion.precision[i], precision)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_logits_are_classes_and_ignored_targets_do_not_count(steps, batch, seed):
    rng = np.random.default_rng(seed)
    logits, target = rng.normal(size=(steps, batch, K)), rng.integers(0, K, (steps, batch))
    target[0, 0] = -1
    accuracy, confusion = metrics.Accuracy(ignore_index=-1), metrics.Confusion(K, ignore_index=-1)
    for metric in (accuracy, confusion):
        metric.update(tg.tensor(logits, requires_grad=True), target)
    keep = target >= 0
    assert accuracy.count == confusion.value.sum() == keep.sum()
    assert accuracy.total == (logits.argmax(-1) == target)[keep].sum()


def test_a_binary_classifier_has_booleans():
    metric = metrics.Accuracy()
    metric.update(tg.tensor([0.2, 0.7, 0.9]) > 0.5, [False, True, False])
    assert metric.value == pytest.approx(2 / 3)
    assert repr(metric) == "Accuracy(0.6667)"
    assert repr(metrics.RMSE()) == "RMSE(no batches yet)"


def test_a_confusion_matrix_prints_as_a_table():
    confusion = metrics.Confusion(["de", "fr", "it"])
    confusion.update([0, 0, 1, 1], [0, 1, 1, 1])
    assert str(confusion).splitlines() == [
        "true / predicted   de    fr  it  recall",
        "              de    1     0   0    100%",
        "              fr    1     2   0     67%",
        "              it    0     0   0       -",
        "       precision  50%  100%   -     75%",
    ]
    assert repr(confusion) == "Confusion(3 classes, 4 examples)"
    assert str(metrics.Confusion(2)).splitlines()[-1].split() == ["precision", "-", "-", "-"]


def test_a_confusion_matrix_is_plotted(tmp_path):
    confusion = metrics.Confusion(["de", "fr"])
    with pytest.raises(ArgumentError, match="no batches yet"):
        confusion.plot()
    confusion.update([0, 0, 1], [0, 1, 1])
    figure = confusion.plot(tmp_path / "confusion.svg")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["1", "1", "1"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["de", "fr"]
    assert (axes.get_xlabel(), axes.get_title()) == ("predicted", "accuracy 66.7%")
    np.testing.assert_array_equal(axes.images[0].get_array(), [[1.0, 0.0], [0.5, 0.5]])
    assert (tmp_path / "confusion.svg").stat().st_size


def test_a_confusion_matrix_without_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    confusion = metrics.Confusion(2)
    confusion.update([0], [0])
    with pytest.raises(MissingExtraError, match=r"pip install 'tinygrad-rnn\[plot\]'"):
        confusion.plot()


LOGITS = np.zeros((4, K))


@pytest.mark.parametrize(
    ("misuse", "error", "message"),
    [
        (
            lambda: metrics.Accuracy().update(LOGITS, np.zeros(K, int)),
            ShapeError,
            r"targets of shape \(3,\) need classes .* or logits \(3, 'V'\) .* got \(4, 3\)",
        ),
        (
            lambda: metrics.Accuracy().update([0.3, 0.8], [0, 1]),
            DTypeError,
            "has no classes: pass logits > 0 or probabilities > 0.5 of a binary",
        ),
        (
            lambda: metrics.Accuracy().update([0, 1], [0.0, 1.0]),
            DTypeError,
            "Accuracy.update: targets are classes.*got float32",
        ),
        (lambda: metrics.Accuracy().value, ArgumentError, "Accuracy: no batches yet: call update"),
        (
            lambda: metrics.MAE().update(np.ones((3, 1)), np.ones(3)),
            ShapeError,
            r"prediction \(3, 1\) and target \(3,\) differ; .* reshape one of them",
        ),
        (lambda: metrics.RMSE().merge(metrics.MAE()), ArgumentError, "another RMSE is expected"),
        (
            lambda: metrics.Confusion(2).update([0, 2], [0, 1]),
            ArgumentError,
            "predictions from 0 to 2, and 2 classes: pass their number, or all names",
        ),
        (lambda: metrics.Confusion(2).update([1], [-1]), ArgumentError, "targets from -1 to -1"),
        (lambda: metrics.Confusion(["a", "b", "a"]), ArgumentError, "one for each id, not one for"),
        (lambda: metrics.Confusion("ab"), ArgumentError, "a number or a list of names, got 'ab'"),
        (lambda: metrics.Confusion([1, 2, 3]), ArgumentError, r"\[1, 2, 3\] are numbers.*str\(c\)"),
        (lambda: metrics.Confusion(np.array([1, 0])), ArgumentError, "are numbers"),
        (
            lambda: metrics.Confusion(["a"] * 3000),
            ArgumentError,
            r"'a', \.\.\. \(3000 in all\)\]: pass one for each id",
        ),
        (lambda: metrics.Confusion(0), ArgumentError, "classes must be a positive integer"),
        (
            lambda: metrics.Confusion(2).merge(metrics.Confusion(["a", "b"])),
            ArgumentError,
            r"the classes differ: \['0', '1'\] and \['a', 'b'\]",
        ),
        (
            lambda: metrics.Confusion(2).load_state_dict(metrics.Confusion(3).state_dict()),
            ArgumentError,
            r"the classes are \['0', '1'\], and were",
        ),
        (
            lambda: metrics.Confusion(1).load_state_dict(
                {"names": ["0"], "value": np.ones((1, 1))}
            ),
            ArgumentError,
            "value must be counts, integers >= 0",
        ),
        (
            lambda: metrics.Confusion(1).load_state_dict({"names": ["0"], "value": 3}),
            ArgumentError,
            r"value must be an array of shape \(1, 1\)",
        ),
        (lambda: metrics.ConfusionMatrix, AttributeError, r"here it is Confusion\(classes\)"),
    ],
)
def test_misuses_of_metrics_are_answered_with_the_cure(misuse, error, message):
    with pytest.raises(error, match=message):
        misuse()


def test_a_confusion_of_numbers_from_0_takes_them_as_classes() -> None:
    for classes in (2, range(2), [0, 1], np.arange(2), [False, True]):
        confusion = metrics.Confusion(classes)
        confusion.update([0, 1, 1], [0, 1, 0])
        assert confusion.value.tolist() == [[1, 1], [0, 1]]


def test_a_confusion_takes_names() -> None:
    names, by_number = ["cat", "dog", "cow"], tg.metrics.Confusion(["cat", "dog", "cow"])
    by_number.update([0, 2, 1, 1], [0, 0, 1, 2])
    for kind in (list, np.array, lambda x: np.array(x, object)):
        by_name = tg.metrics.Confusion(names)
        by_name.update(kind(["cat", "cow", "dog", "dog"]), kind(["cat", "cat", "dog", "cow"]))
        np.testing.assert_array_equal(by_name.value, by_number.value)
    by_name.update([[0.1, 0.9, 0.0]], ["dog"])
    with pytest.raises(ArgumentError, match="'pig' is not one of the classes"):
        by_name.update(["pig"], ["cat"])
    assert by_name.value.sum() == 5
