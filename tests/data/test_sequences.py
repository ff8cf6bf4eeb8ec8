"""Windows of a series, padded sequences, their minibatches, and the scaler."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.data import Scaler, pad, ragged_batches, windows
from tinygrad_rnn.errors import ArgumentError, DTypeError, ShapeError

SIZES = st.integers(1, 5)
LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=30)
DTYPES = st.sampled_from(["float32", "float64", "int64", "uint8"])


# -- windows ---------------------------------------------------------------------------------------


@given(st.integers(0, 12), SIZES, SIZES, SIZES, st.integers(0, 3), DTYPES)
def test_windows_are_the_slices_of_the_series(
    more: int, look_back: int, ahead: int, step: int, features: int, dtype: str
) -> None:
    length = look_back + ahead + more
    flat = features == 0
    series = np.arange(length * max(1, features)).reshape(length, -1).astype(dtype)
    x, y = windows(series[:, 0] if flat else series, look_back, ahead, step)
    count = more // step + 1
    assert x.shape == (count, look_back, max(1, features))
    assert y.shape == (count, ahead, max(1, features))
    assert x.dtype == y.dtype == np.dtype(dtype)
    for i in range(count):
        start = i * step
        np.testing.assert_array_equal(x[i], series[start : start + look_back])
        np.testing.assert_array_equal(y[i], series[start + look_back : start + look_back + ahead])
    assert np.shares_memory(x, series)
    assert not x.flags.writeable


def test_windows_take_lists_and_tensors_and_batches_take_windows() -> None:
    for series in ([0, 1, 2, 3, 4], tg.arange(5), np.arange(5)):
        x, y = windows(series, 2)
        assert (x.shape, y.shape) == ((3, 2, 1), (3, 1, 1))
        [(a, b)] = tg.data.batches(x, y, batch_size=3, shuffle=False)
        np.testing.assert_array_equal(a.numpy(), x)
        np.testing.assert_array_equal(b.numpy(), y)


# -- padding ---------------------------------------------------------------------------------------


def sequences(lengths: list[int], width: int, dtype: str) -> list[np.ndarray]:
    """Return sequences in which every number occurs once."""
    shape = () if width == 0 else (width,)
    size = max(1, width)
    ends = np.cumsum(lengths)
    flat = np.arange(1, ends[-1] * size + 1)
    parts = [flat[(e - n) * size : e * size] for n, e in zip(lengths, ends, strict=True)]
    return [p.reshape(n, *shape).astype(dtype) for n, p in zip(lengths, parts, strict=True)]


@given(LENGTHS, st.integers(0, 2), DTYPES, st.sampled_from([0, 7]))
def test_padding_keeps_the_sequences_and_nothing_else(
    lengths: list[int], width: int, dtype: str, value: int
) -> None:
    given = sequences(lengths, width, dtype)
    array, found = pad(given, value)
    assert (found.tolist(), found.dtype, array.dtype) == (lengths, np.int64, np.dtype(dtype))
    assert array.shape == (len(given), max(1, *lengths), *given[0].shape[1:])
    for row, sequence in zip(array, given, strict=True):
        np.testing.assert_array_equal(row[: len(sequence)], sequence)
        assert (row[len(sequence) :] == value).all()


def test_padding_takes_the_common_dtype_and_sequences_of_every_kind() -> None:
    array, lengths = pad(x for x in ([1], np.array([2.5, 3.5], np.float32), tg.tensor([4, 5, 6])))
    assert array.dtype == np.float64
    np.testing.assert_array_equal(array, [[1, 0, 0], [2.5, 3.5, 0], [4, 5, 6]])
    assert lengths.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(pad([[1.0], []], np.nan)[0], np.float32([[1.0], [np.nan]]))


# -- ragged minibatches ----------------------------------------------------------------------------


@given(LENGTHS, SIZES, st.integers(1, 3), st.booleans(), st.booleans(), st.integers(0, 99))
def test_every_sequence_is_in_one_minibatch_with_its_own_row(
    lengths: list[int], batch_size: int, bucket: int, shuffle: bool, drop_last: bool, seed: int
) -> None:
    given, n = sequences(lengths, 0, "int64"), len(lengths)
    rest = n % batch_size if drop_last else 0
    options: Any = dict(shuffle=shuffle, drop_last=drop_last, bucket=bucket, rng=seed)
    if rest == n:
        with pytest.raises(ArgumentError, match=f"{n} sequences are too few for batch_size="):
            ragged_batches(given, batch_size=batch_size, **options)
        return
    epoch = list(
        ragged_batches(given, np.arange(n), np.ones((n, 2)), batch_size=batch_size, **options)
    )
    seen = []
    for x, found, rows, others in epoch:
        assert x.shape == (len(rows), max(1, *found.numpy()))
        assert others.shape == (len(rows), 2)
        for row, length, i in zip(x.numpy(), found.numpy(), rows.numpy(), strict=True):
            np.testing.assert_array_equal(row[:length], given[i])
            assert not row[length:].any()
            seen.append(int(i))
    assert len(set(seen)) == len(seen) == n - rest
    assert sorted(len(rows) for _, _, rows, _ in epoch)[1:] == [batch_size] * (len(epoch) - 1)
    if not shuffle:
        assert seen == list(range(n - rest))


def test_buckets_have_sequences_of_similar_length_and_less_padding() -> None:
    rng = np.random.default_rng(0)
    given = [np.ones(n) for n in rng.integers(1, 100, 640)]

    def padding(bucket: int) -> int:
        epoch = ragged_batches(given, batch_size=32, bucket=bucket, rng=1)
        return sum(x.size - int(lengths.numpy().sum()) for x, lengths in epoch)

    assert padding(20) < 0.1 * padding(1)
    longest = [x.shape[1] for x, _ in ragged_batches(given, batch_size=32, rng=2)]
    assert longest != sorted(longest)  # the minibatches themselves are not sorted


def test_an_epoch_of_ragged_minibatches_is_resumed_at_its_position() -> None:
    given = sequences([3, 1, 4, 1, 5, 2, 6, 5, 3], 0, "uint8")
    stream, again = (ragged_batches(given, range(9), batch_size=2, bucket=2) for _ in range(2))
    next(stream)
    again.load_state_dict(copy.deepcopy(stream.state_dict()))
    for ours, theirs in zip(again, stream, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    other = ragged_batches(given, range(9), batch_size=3, bucket=2)
    with pytest.raises(
        ArgumentError, match=r"batch_size is 3 here, and was 2\n.*begin a new epoch"
    ):
        other.load_state_dict(stream.state_dict())
    spoilt = stream.state_dict()
    spoilt["drawn"]["turns"] = np.zeros(5, np.uint8)
    with pytest.raises(ArgumentError, match="each of 0 to 4 once"):
        again.load_state_dict(spoilt)


def test_the_next_epoch_has_another_order() -> None:
    given = sequences([3, 1, 4, 1, 5, 2, 6, 5, 3], 0, "uint8")
    stream = ragged_batches(given, range(9), batch_size=2, bucket=2, rng=0)
    first = [rows.numpy().tolist() for _, _, rows in stream]
    second = [rows.numpy().tolist() for _, _, rows in stream.next_epoch()]
    for epoch in (first, second):
        assert sorted(i for rows in epoch for i in rows) == list(range(9))
    assert first != second


@given(LENGTHS, st.integers(0, 99))
def test_the_state_of_a_layer_does_not_depend_on_the_minibatches(
    lengths: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    given = [rng.normal(size=(n, 2)) for n in lengths]
    layer = tg.nn.GRU(2, 3, batch_first=True, dtype="float64", rng=seed)
    x, all_lengths = pad(given, np.nan)
    _, expected = layer(tg.tensor(x), lengths=all_lengths)
    for x, lengths_, rows in ragged_batches(given, range(len(given)), batch_size=3, value=9):
        _, state = layer(x, lengths=lengths_)
        np.testing.assert_allclose(state.numpy()[0], expected.numpy()[0][rows.numpy()], rtol=1e-12)


# -- the scaler ------------------------------------------------------------------------------------


@given(SIZES, st.integers(1, 20), st.integers(0, 99), st.sampled_from([1e-6, 1.0, 1e6]))
def test_scaled_data_have_mean_0_and_deviation_1_and_the_inverse_restores_them(
    features: int, rows: int, seed: int, unit: float
) -> None:
    data = np.random.default_rng(seed).normal(1e3, 1.0, (rows, 2, features)) * unit
    scaler = Scaler(features).fit(data)
    z = scaler(tg.tensor(data))
    assert z.dtype == np.float64
    np.testing.assert_allclose(z.numpy().mean((0, 1)), 0, atol=1e-9)
    np.testing.assert_allclose(z.numpy().std((0, 1)), 1, rtol=1e-9)
    np.testing.assert_allclose(scaler.inverse(z).numpy(), data, rtol=1e-12)
    assert scaler(data).dtype == tg.get_default_dtype()
    np.testing.assert_allclose(scaler(data).numpy(), z.numpy(), rtol=1e-6, atol=1e-6)
    assert scaler.count.item() == 2 * rows


def test_a_constant_feature_becomes_zero_and_large_offsets_keep_their_digits() -> None:
    data = np.array([[0.1, 1e9], [0.1, 1e9 + 1], [0.1, 1e9 + 2]])
    scaler = Scaler(2).fit(data)
    np.testing.assert_allclose(scaler(data).numpy()[:, 0], 0)
    np.testing.assert_allclose(scaler(data).numpy()[:, 1], [-(1.5**0.5), 0, 1.5**0.5], rtol=1e-6)
    series = Scaler(1).fit([1.0, 3.0])
    np.testing.assert_array_equal(series([1, 5]).numpy(), [-1.0, 3.0])
    np.testing.assert_array_equal(series([[1], [5]]).numpy(), [[-1.0], [3.0]])


def test_a_scaler_is_saved_with_its_model_and_keeps_graphs(tmp_path: Any) -> None:
    class Model(tg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scaler, self.head = Scaler(2), tg.nn.Linear(2, 2)

        def forward(self, x: Any) -> Any:
            return self.scaler.inverse(self.head(self.scaler(x)))

    model, other = Model(), Model()
    model.scaler.fit([[1.0, 20.0], [3.0, 60.0]])
    tg.save(tmp_path / "model.ckpt", model=model)
    other.load_state_dict(tg.load(tmp_path / "model.ckpt")["model"])
    x = tg.tensor([[2.0, 30.0]], requires_grad=True)
    np.testing.assert_array_equal(other(x).numpy(), model(x).numpy())
    other(x).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == np.float32
    assert len(list(model.parameters())) == 2
    assert "fitted to 2 rows" in repr(other.scaler)
    assert "not fitted" in repr(Scaler(2))


# -- misuse ----------------------------------------------------------------------------------------

SERIES = np.arange(10.0)
RAGGED = [[1], [2, 3]]


@pytest.mark.parametrize(
    ("misuse", "error", "message"),
    [
        (
            lambda: windows(SERIES, 8, 3),
            ArgumentError,
            "10 values are too few.* which need 11: use",
        ),
        (lambda: windows(SERIES, 0), ArgumentError, "windows: look_back must be a positive"),
        (lambda: windows(SERIES, 3, 1.5), ArgumentError, "windows: ahead must be a positive"),
        (lambda: windows(np.ones((9, 2, 2)), 3), ShapeError, "windows of each series of its own"),
        (lambda: windows("abcdef", 3), DTypeError, "real numbers only: number labels.*Vocabulary"),
        (lambda: pad("ab"), ArgumentError, r"got a str: such as \[vocabulary.encode\(text\) for"),
        (lambda: pad(["ab", "c"]), DTypeError, "sequence 0 is the text 'ab': encode it"),
        (lambda: pad([1, 2]), ShapeError, r"sequence 0 is one number.*such as \[\[1, 2\], \[3\]\]"),
        (lambda: pad([[[1, 2]], [[1]]]), ShapeError, r"is \(1, 2\), and sequence 1 \(1, 1\)"),
        (lambda: pad([]), ArgumentError, "pad: the list of sequences is empty"),
        (lambda: pad(RAGGED, 0.5), ArgumentError, "value=0.5 is not one of int64"),
        (lambda: pad([np.ones(1, np.uint8)], -1), ArgumentError, "value=-1 is not one of uint8"),
        (lambda: pad(RAGGED, "x"), ArgumentError, "value='x' is not one of int64"),
        (
            lambda: tg.data.batches(RAGGED, [0, 1], batch_size=2),
            ShapeError,
            "the rows of array 0 differ in length: use ragged_batches, or pad",
        ),
        (lambda: ragged_batches(RAGGED, [0], batch_size=2), ShapeError, r"2 seq.*of shape \(1,\)"),
        (lambda: ragged_batches(RAGGED, batch_size=2, value=0.5), ArgumentError, "value=0.5 is"),
        (lambda: ragged_batches(RAGGED, batch_size=2, bucket=0), ArgumentError, "bucket must be"),
        (lambda: ragged_batches(RAGGED, batch_size=2, rng="a"), ArgumentError, "rng"),
        (
            lambda: Scaler(2)(np.ones((3, 2))),
            ArgumentError,
            r"no mean yet: call fit\(training data",
        ),
        (
            lambda: Scaler(2).fit(SERIES),
            ShapeError,
            r"2 features .* got \(10,\): make it by Scaler",
        ),
        (lambda: Scaler(1).fit(np.ones((4, 3))), ShapeError, r"make it by Scaler\(3\), or reshape"),
        (
            lambda: Scaler(2).fit([[1.0, np.nan], [np.inf, np.nan]]),
            ArgumentError,
            r"3 values are nan or infinite, in the features \[0, 1\]: drop these rows, or fill",
        ),
        (lambda: Scaler(2).fit(np.ones((0, 2))), ArgumentError, "the data are empty"),
        (lambda: Scaler("a"), ArgumentError, "num_features must be a positive integer"),
        (lambda: tg.data.StandardScaler, AttributeError, r"here it is Scaler\(num_features\).fit"),
        (lambda: tg.data.pad_sequence, AttributeError, r"here it is pad\(sequences\)"),
    ],
)
def test_misuses_are_answered_with_the_cure(misuse: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        misuse()


def test_a_scaler_that_refuses_data_keeps_what_it_had() -> None:
    scaler = Scaler(1).fit([1.0, 3.0])
    before = scaler.state_dict()
    with pytest.raises(ArgumentError):
        scaler.fit([1.0, np.nan])
    np.testing.assert_equal(scaler.state_dict(), before)
