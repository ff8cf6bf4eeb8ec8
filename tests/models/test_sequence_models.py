"""Classifier and Forecaster: a batch gives what each sequence gives alone, in the data's unit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, DTypeError, ShapeError
from tinygrad_rnn.models import Classifier, Forecaster

F, H, C = 3, 4, 5  # features, hidden size, classes
VOCAB = tg.data.text.Vocabulary("abcd")
LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=7)
SEEDS = st.integers(0, 2**32 - 1)
CELLS = {"RNN": tg.nn.RNNCell, "GRU": tg.nn.GRUCell, "LSTM": tg.nn.LSTMCell}
options = st.fixed_dictionaries(
    {
        "cell": st.sampled_from(list(CELLS.values())),
        "num_layers": st.integers(1, 2),
        "bidirectional": st.booleans(),
        "pool": st.sampled_from(["last", "mean", "max"]),
        "dtype": st.just("float64"),
    }
)


def sequences(lengths: list[int], seed: int, features: int = F) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(steps, features)) for steps in lengths]


# -- the summary of a sequence ---------------------------------------------------------------------


@given(options, LENGTHS, SEEDS)
def test_a_padded_batch_gives_what_each_sequence_gives_alone(
    options: dict[str, Any], lengths: list[int], seed: int
) -> None:
    model = Classifier(inputs=F, classes=C, hidden_size=H, rng=seed, **options)
    rows = sequences(lengths, seed)
    x, ends = tg.data.pad(rows, value=np.nan)
    logits = model(tg.tensor(x), ends).numpy()
    for i, row in enumerate(rows):
        output, _ = model.summary.rnn(tg.tensor(row[None]))
        output = output.numpy()[0]
        if options["pool"] == "last":  # the reverse direction ends at the first step
            own = [output[-1, :H], output[0, H:]]
        else:
            own = [getattr(output, options["pool"])(axis=0)]
        expected = np.concatenate(own) @ model.head.weight.numpy().T + model.head.bias.numpy()
        np.testing.assert_allclose(logits[i], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pool", ["last", "mean", "max"])
def test_a_sequence_without_a_step_has_a_finite_summary(pool: str) -> None:
    model = Classifier(tg.nn.GRUCell, F, C, H, pool=pool, bidirectional=True)
    x = np.full((2, 3, F), np.nan, np.float32)
    x[1] = 1
    logits = model(tg.tensor(x), [0, 3])
    np.testing.assert_array_equal(logits.numpy()[0], model.head.bias.numpy())
    logits.sum().backward()
    assert all(np.isfinite(p.grad.numpy()).all() for p in model.parameters())


@pytest.mark.parametrize("pool", ["last", "mean", "max"])
def test_the_gradient_of_a_pool(pool: str) -> None:
    model = Forecaster(tg.nn.RNNCell, 2, 3, ahead=2, pool=pool, dtype="float64", rng=0)
    x = tg.tensor(np.random.default_rng(0).normal(size=(2, 3, 2)))
    tg.gradcheck(lambda x: model(x, [3, 2]), [x])


# -- predictions -----------------------------------------------------------------------------------


@given(options, LENGTHS, SEEDS, st.integers(1, 9))
def test_a_prediction_depends_on_no_other_sequence(
    options: dict[str, Any], lengths: list[int], seed: int, batch_size: int
) -> None:
    model = Classifier(inputs=F, classes=C, hidden_size=H, rng=seed, dropout=0.5, **options)
    rows = sequences(lengths, seed)
    together = model.probabilities(rows, batch_size=batch_size)
    assert model.training and together.shape == (len(rows), C)
    np.testing.assert_allclose(together.sum(axis=1), 1)
    alone = np.concatenate([model.probabilities(row[None]) for row in rows])
    np.testing.assert_allclose(together, alone, rtol=1e-9)
    np.testing.assert_array_equal(model.predict(rows), alone.argmax(axis=1))


@pytest.mark.parametrize("embedding_dim", [None, 3])
def test_texts_are_encoded_and_classes_have_names(embedding_dim: int | None) -> None:
    names = ["ab", "dcba", "a", ""]
    model = Classifier(tg.nn.GRUCell, VOCAB, ["no", "yes"], H, embedding_dim=embedding_dim, rng=0)
    ids = [VOCAB.encode(name) for name in names]
    found = model.predict(names)
    assert found.dtype.kind == "U" and {*found.tolist()} <= {"no", "yes"}
    for same in (tuple(names), np.array(names), np.array(names, object), ids):
        np.testing.assert_array_equal(model.predict(same), found)
    np.testing.assert_array_equal(model.predict([[1, 2], [3, 4]]), model.predict(["ab", "cd"]))
    assert model.predict(np.array([[1, 2]])).shape == (1,)


def test_a_classifier_learns_from_ragged_batches() -> None:
    rng = np.random.default_rng(0)
    names = ["".join(rng.choice(list("abcd"), size=n)) for n in rng.integers(1, 9, size=120)]
    truth = np.array(["even" if name.count("a") % 2 == 0 else "odd" for name in names])
    classes, labels = np.unique(truth, return_inverse=True)
    model = Classifier(tg.nn.GRUCell, VOCAB, classes, 16, rng=1)
    tg.fit(
        model,
        tg.data.ragged_batches([VOCAB.encode(n) for n in names], labels, batch_size=12, rng=0),
        loss=tg.functional.cross_entropy,
        optimizer=tg.optim.Adam(model.parameters(), lr=0.03),
        epochs=40,
    )
    assert (model.predict(names) == truth).mean() > 0.95


# -- forecasts -------------------------------------------------------------------------------------


@given(options, SEEDS, st.floats(0.1, 1e3), st.floats(-1e3, 1e3))
def test_a_forecast_is_in_the_unit_of_the_data(
    options: dict[str, Any], seed: int, scale: float, shift: float
) -> None:
    [series] = sequences([20], seed, 2)
    forecasts = []
    for unit in (series, series * scale + shift):
        model = Forecaster(
            num_features=2, hidden_size=H, ahead=3, rng=np.random.default_rng(seed), **options
        )
        model.scaler.fit(unit)
        forecasts.append(model.predict(unit[-6:], steps=7))
    np.testing.assert_allclose(forecasts[1], forecasts[0] * scale + shift, rtol=1e-6, atol=1e-6)


@given(options, SEEDS, st.integers(1, 3), st.integers(1, 9), st.integers(1, 5), st.booleans())
def test_a_recursive_forecast_reads_its_own_predictions(
    options: dict[str, Any], seed: int, ahead: int, steps: int, look_back: int, fitted: bool
) -> None:
    model = Forecaster(num_features=2, hidden_size=H, ahead=ahead, rng=seed, **options)
    series = np.stack(sequences([look_back] * 3, seed, 2))
    if fitted:
        model.scaler.fit(series * 3 + 1)
    expected, x = np.empty((3, 0, 2)), series
    while expected.shape[1] < steps:
        new = model.predict(x)
        expected = np.concatenate([expected, new], axis=1)
        x = np.concatenate([x, new], axis=1)[:, -look_back:]
    np.testing.assert_allclose(model.predict(series, steps), expected[:, :steps], rtol=1e-8)
    as_list = model.predict(list(series), steps, batch_size=2)
    np.testing.assert_allclose(as_list, expected[:, :steps], rtol=1e-8)
    np.testing.assert_allclose(model.predict(series[1], steps), expected[1, :steps], rtol=1e-8)


def test_series_of_different_lengths_and_of_one_feature() -> None:
    model = Forecaster(tg.nn.LSTMCell, 1, H, ahead=2, dtype="float64", rng=0)
    long, short = np.arange(9.0), np.arange(4.0)
    both = model.predict([long, short], steps=5)
    assert both.shape == (2, 5, 1)
    for row, series in zip(both, (long, short), strict=True):
        np.testing.assert_allclose(row, model.predict(series, steps=5), rtol=1e-9)
        np.testing.assert_array_equal(model.predict(series), model.predict(series[:, None]))
        np.testing.assert_array_equal(model.predict(series), model.predict(tg.tensor(series)))


def test_the_first_features_are_the_targets() -> None:
    model = Forecaster(tg.nn.GRUCell, 3, H, ahead=2, num_targets=2, dtype="float64", rng=0)
    series = np.random.default_rng(0).normal(size=(12, 3)) * [1, 10, 100] + [0, 5, 50]
    model.scaler.fit(series)
    z = model(model.scaler(series)[None].astype("float64")).numpy()[0]
    expected = z * model.scaler.std.numpy()[:2] + model.scaler.mean.numpy()[:2]
    np.testing.assert_allclose(model.predict(series), expected, rtol=1e-6)


def test_large_values_keep_their_digits() -> None:
    series = 1e8 + np.arange(40.0)
    model = Forecaster(tg.nn.GRUCell, 1, H, rng=0)
    model.scaler.fit(series)
    shifted = Forecaster(tg.nn.GRUCell, 1, H, rng=0)
    shifted.scaler.fit(series - 1e8)
    x = model._rows(series)[0]  # of float32, whose digits are too few for the values themselves
    np.testing.assert_allclose(x, shifted._rows(series - 1e8)[0], rtol=1e-5, atol=1e-6)


# -- misuse ----------------------------------------------------------------------------------------

texts = Classifier(tg.nn.GRUCell, VOCAB, ["no", "yes"], H)
features = Classifier(tg.nn.GRUCell, F, C, H)
forecaster = Forecaster(tg.nn.GRUCell, 2, H, ahead=2, num_targets=1)

MISUSES: dict[str, tuple[Any, type[Exception], str]] = {
    "one class": (lambda: Classifier(tg.nn.GRUCell, F, 1, H), ArgumentError, "classes"),
    "a class twice": (
        lambda: Classifier(tg.nn.GRUCell, F, ["a", "a"], H),
        ArgumentError,
        "return_inverse",
    ),
    "classes as a text": (
        lambda: Classifier(tg.nn.GRUCell, F, "ab", H),
        ArgumentError,
        "list of their names",
    ),
    "classes that are lists": (
        lambda: Classifier(tg.nn.GRUCell, F, [[1], [2]], H),
        ArgumentError,
        "strings or numbers",
    ),
    "an embedding of features": (
        lambda: Classifier(tg.nn.GRUCell, F, C, H, embedding_dim=3),
        ArgumentError,
        "pass a Vocabulary",
    ),
    "an unknown pool": (
        lambda: Classifier(tg.nn.GRUCell, F, C, H, pool="first"),
        ArgumentError,
        "'last', 'mean', 'max'",
    ),
    "one text": (lambda: texts.predict("abc"), ArgumentError, "pass a list of texts"),
    "texts for features": (lambda: features.predict(["a"]), ArgumentError, "with a Vocabulary"),
    "ids of one text": (lambda: texts.predict([1, 2]), ShapeError, r"x\[None\]"),
    "one sequence": (lambda: features.predict(np.zeros((4, F))), ShapeError, r"x\[None\]"),
    "other features": (lambda: features.predict(np.zeros((2, 4, 9))), ShapeError, "input_size"),
    "no sequence": (lambda: texts.predict([]), ArgumentError, "an empty list of sequences"),
    "no rows": (
        lambda: texts.predict(np.zeros((0, 3), int)),
        ArgumentError,
        "an empty list of sequences",
    ),
    "no series": (lambda: forecaster.predict([]), ArgumentError, "an empty list of sequences"),
    "a series without a value": (
        lambda: forecaster.predict([np.zeros((0, 2)), np.zeros((3, 2))]),
        ShapeError,
        r"\(0, 2\) has no value",
    ),
    "a generator": (
        lambda: texts.predict(text for text in "ab"),
        ArgumentError,
        r"got a generator.* list\(",
    ),
    "nothing": (lambda: texts.predict(None), ArgumentError, "got None"),
    "a dict of series": (lambda: forecaster.predict({"a": [1.0]}), ArgumentError, "got a dict"),
    "a text that is missing": (
        lambda: texts.predict(["a", np.nan]),
        ArgumentError,
        r"sequence 1 is nan, .*fillna",
    ),
    "a first text that is missing": (
        lambda: texts.predict(np.array([None, "a"])),
        ArgumentError,
        "sequence 0 is None",
    ),
    "classes of two kinds": (
        lambda: Classifier(tg.nn.GRUCell, F, [1, "a"], H),
        ArgumentError,
        "one kind.* 1 and 'a'",
    ),
    "classes that are dates": (
        lambda: Classifier(tg.nn.GRUCell, F, [np.datetime64(0, "D"), np.datetime64(1, "D")], H),
        ArgumentError,
        "strings or numbers",
    ),
    "a class that is nan": (
        lambda: Classifier(tg.nn.GRUCell, F, [1.0, np.nan], H),
        ArgumentError,
        "got nan",
    ),
    "classes without an order": (
        lambda: Classifier(tg.nn.GRUCell, F, {"a", "b"}, H),
        ArgumentError,
        "in the order of",
    ),
    "an id that is none": (lambda: texts.predict([[99]]), Exception, "99"),
    "a batch size of 0": (lambda: texts.predict(["a"], 0), ArgumentError, "batch_size"),
    "floats as ids": (lambda: texts(tg.zeros(2, 3)), DTypeError, "integer"),
    "targets that are not there": (
        lambda: Forecaster(tg.nn.GRUCell, 1, H, num_targets=2),
        ArgumentError,
        "num_targets=2",
    ),
    "steps without all features": (
        lambda: forecaster.predict(np.zeros((9, 2)), steps=3),
        ArgumentError,
        "all features as targets",
    ),
    "a series of other features": (
        lambda: forecaster.predict(np.zeros((9, 3))),
        ShapeError,
        r"\(T, 2\)",
    ),
    "several series without features": (
        lambda: Forecaster(tg.nn.GRUCell, 1, H).predict(np.zeros((5, 9))),
        ShapeError,
        r"x\[:, :, None\]",
    ),
    "a gap": (lambda: forecaster.predict([[[1, 2], [np.nan, 1]]]), ArgumentError, "interpolate"),
    "a series of texts": (lambda: forecaster.predict([["a", "b"]]), Exception, "str|number"),
    "steps of 0": (lambda: forecaster.predict(np.zeros((9, 2)), 0), ArgumentError, "steps"),
    "values that are too large": (
        lambda: diverged().predict(np.ones((9, 2))),
        FloatingPointError,
        "not finite",
    ),
    "another label shape": (
        lambda: tg.functional.mse_loss(forecaster(tg.zeros(2, 4, 2)), tg.zeros(2, 2, 2)),
        ShapeError,
        r"\(2, 2, 2\)",
    ),
}


def diverged() -> Forecaster:
    model = Forecaster(tg.nn.GRUCell, 2, H)
    model.head.bias.data = np.full(2, np.inf)
    return model


@pytest.mark.parametrize("name", MISUSES)
def test_a_misuse_is_answered_with_the_cure(name: str) -> None:
    action, error, message = MISUSES[name]
    with pytest.raises(error, match=message):
        action()


def test_a_forecast_of_some_features_from_series_of_different_lengths() -> None:
    rng = np.random.default_rng(0)
    model = tg.models.Forecaster(tg.nn.GRUCell, 2, 4, ahead=3, num_targets=1, rng=0)
    rows = [rng.standard_normal((n, 2)) for n in (3, 7, 1)]
    found = model.predict(rows, steps=2)
    assert found.shape == (3, 2, 1)
    for row, forecast in zip(rows, found, strict=True):
        np.testing.assert_allclose(model.predict(row, steps=2), forecast, rtol=1e-5, atol=1e-6)
