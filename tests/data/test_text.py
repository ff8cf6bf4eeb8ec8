"""Text: corpora, vocabularies, partitions."""

from __future__ import annotations

import hashlib
import re
import sys
import types
import warnings
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tinygrad_rnn.data import text
from tinygrad_rnn.errors import ArgumentError, DTypeError, MissingExtraError, ShapeError
from tinygrad_rnn.tensors.creation import tensor

CHARACTERS = st.characters(exclude_categories=())  # lone surrogates and control characters too
TEXTS = st.text(CHARACTERS, min_size=1, max_size=60)
SEEDS = st.integers(0, 2**32 - 1)


# -- corpora ---------------------------------------------------------------------------------------


def write(folder: Path, data: bytes) -> Path:
    path = folder / "some.txt"
    path.write_bytes(data)
    return path


def test_python_docs_holds_every_paragraph_once() -> None:
    from pydoc_data.topics import topics

    docs = text.corpus("python_docs")
    paragraphs = docs.split("\n\n")
    assert len(set(paragraphs)) == len(paragraphs)
    assert all(paragraph.strip() for paragraph in paragraphs)
    first = topics[min(topics)].strip("\n").split("\n\n")[0]
    assert docs.startswith(first)

    def words(t: str) -> set[str]:
        return set(t.split())

    assert words(docs) == words(" ".join(topics.values()))
    assert len(docs) < sum(map(len, topics.values()))


def test_file_is_read_whatever_its_mark_and_line_ends(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert text.corpus(path) == text.corpus(str(path)) == "one\ntwo\nthree\n"


def test_file_is_read_in_its_encoding(tmp_path: Path) -> None:
    path = write(tmp_path, "时间机器".encode("gb18030"))
    assert text.corpus(path, encoding="gb18030") == "时间机器"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@given(before=st.text(max_size=20), after=st.text(max_size=5))
def test_wrong_encoding_names_file_and_offset(
    mark: bytes, before: str, after: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assume(not before.startswith("\ufeff"))
    good = mark + before.encode("utf-8", "replace")
    path = write(tmp_path_factory.mktemp("bad"), good + b"\xff" + after.encode("utf-8", "replace"))
    with pytest.raises(ArgumentError, match=r"some\.txt.*gb18030") as info:
        text.corpus(path)
    assert f"byte 0xff at offset {len(good)} " in str(info.value)


def test_missing_file_lists_the_known_names() -> None:
    with pytest.raises(FileNotFoundError, match="python_docs, time_machine, tiny_shakespeare"):
        text.corpus("time machine")


@pytest.mark.parametrize("option", [{"clean": "none"}, {"normalize": "NFD"}])
def test_unknown_option(option: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=re.escape(repr(*option.values()))):
        text.corpus("python_docs", **option)


@given(raw=st.text())
@pytest.mark.filterwarnings("ignore:corpus. clean")
def test_letters_are_the_letters_with_single_spaces(
    raw: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.mktemp("raw"), raw.encode())
    cleaned = text.corpus(path, encoding="utf-8", clean="letters")
    assert re.fullmatch(" ?([a-z]+ )*[a-z]*", cleaned)
    ascii_letters = [c.lower() for c in raw if c.isascii() and c.isalpha()]
    assert cleaned.replace(" ", "") == "".join(ascii_letters)
    assert cleaned.split() == [w.lower() for w in re.findall("[A-Za-z]+", raw)]


@pytest.mark.parametrize(("dropped", "warns"), [("!", False), ("!!", True)])
def test_cleaning_warns_above_a_fifth(tmp_path: Path, dropped: str, warns: bool) -> None:
    path = write(tmp_path, b"a b  c\n\n d" + dropped.encode())
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        text.corpus(path, clean="letters")
    assert [(w.category, w.filename) for w in record] == [(UserWarning, __file__)] * warns


def test_normalisation_comes_before_cleaning(tmp_path: Path) -> None:
    path = write(tmp_path, "cafe\u0301 ole\u0301 abcdefgh".encode())
    assert text.corpus(path, normalize="NFC") == "caf\xe9 ol\xe9 abcdefgh"
    assert text.corpus(path, normalize="NFC", clean="letters") == "caf ol abcdefgh"
    assert text.corpus(path, clean="letters") == "cafe ole abcdefgh"


@given(content=st.text())
def test_sha256_is_that_of_the_file(content: str) -> None:
    assert text.sha256(content) == hashlib.sha256(content.encode()).hexdigest()


def fake_pooch(monkeypatch: pytest.MonkeyPatch, retrieve: Any) -> None:
    module = types.SimpleNamespace(retrieve=retrieve, os_cache=lambda name: f"/cache/{name}")
    monkeypatch.setitem(sys.modules, "pooch", module)


@pytest.mark.parametrize(
    ("name", "digest"), [("time_machine", "8424dbd9"), ("tiny_shakespeare", "86c4e6aa")]
)
def test_download_is_pinned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, digest: str
) -> None:
    asked: list[Any] = []

    def retrieve(url: str, known_hash: str, fname: str, path: str) -> str:
        asked.append((url, known_hash, fname, path))
        return str(write(tmp_path, b"The text.\r\n"))

    fake_pooch(monkeypatch, retrieve)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert text.corpus(name) == "The text.\n"
    [(url, known_hash, fname, path)] = asked
    assert re.fullmatch(
        r"https://raw\.githubusercontent\.com/[\w-]+/[\w-]+/[0-9a-f]{40}/.+\.txt", url
    )
    assert re.fullmatch(f"sha256:{digest}[0-9a-f]{{56}}", known_hash)
    assert (fname, path) == (f"{name}.txt", "/cache/tinygrad_rnn")


@pytest.mark.parametrize("error", [ConnectionError("no route"), ValueError("hash differs")])
def test_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def retrieve(*args: Any, **kwargs: Any) -> str:
        raise error

    fake_pooch(monkeypatch, retrieve)
    with pytest.raises(OSError, match=rf"{error}.*download https://.* by hand and pass the path"):
        text.corpus("time_machine")


@pytest.mark.parametrize("error", [PermissionError(13, "denied"), NotADirectoryError(20, "file")])
def test_a_cache_that_cannot_be_written_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: OSError
) -> None:
    folders: list[str] = []

    def retrieve(*args: Any, path: str, **kwargs: Any) -> str:
        folders.append(str(path))
        raise error

    fake_pooch(monkeypatch, retrieve)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(OSError, match=r"cannot be kept in .*tinygrad_rnn.*XDG_CACHE_HOME"):
        text.corpus("time_machine")
    assert folders == [str(tmp_path / "tinygrad_rnn")]


def test_download_without_pooch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingExtraError, match=re.escape("tinygrad-rnn[data]")):
        text.corpus("tiny_shakespeare")


# -- vocabulary ------------------------------------------------------------------------------------


@given(train=TEXTS)
def test_characters_round_trip(train: str) -> None:
    vocab = text.Vocabulary(train)
    ids = vocab.encode(train)
    assert vocab.decode(ids) == train
    assert vocab.decode(ids.tolist()) == vocab.decode(tensor(ids)) == train
    assert len(vocab) == len(set(train)) + 1
    assert ids.dtype == np.min_scalar_type(len(vocab) - 1)
    assert vocab.unknown_rate(ids) == 0


@given(train=TEXTS, other=TEXTS)
def test_unknown_characters_are_zero(train: str, other: str) -> None:
    vocab = text.Vocabulary(train)
    ids = vocab.encode(other)
    assert (ids == 0).tolist() == [c not in vocab for c in other] == [c not in train for c in other]
    assert vocab.unknown_rate(ids) == sum(c not in train for c in other) / len(other)
    assert vocab.decode(ids) == "".join(c if c in train else "<unk>" for c in other)


@given(train=TEXTS, other=TEXTS)
def test_encoding_a_text_is_encoding_its_characters(train: str, other: str) -> None:
    vocab = text.Vocabulary(train)
    assert vocab.encode(other).tolist() == vocab.encode(list(other)).tolist()


@pytest.mark.parametrize(("distinct", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_dtype_is_the_smallest(distinct: int, dtype: Any) -> None:
    train = "".join(map(chr, range(distinct)))
    ids = text.Vocabulary(train).encode(train)
    assert ids.dtype == dtype
    assert sorted(ids) == list(range(1, distinct + 1))


def test_empty_text_encodes_to_nothing() -> None:
    vocab = text.Vocabulary("a")
    assert vocab.encode("").shape == vocab.encode([]).shape == (0,)
    assert vocab.decode([]) == vocab.decode(vocab.encode("")) == ""


@given(train=TEXTS, min_freq=st.integers(1, 3), max_size=st.none() | st.integers(1, 10))
def test_order_and_limits(train: str, min_freq: int, max_size: int | None) -> None:
    counts = Counter(train)
    assume(max(counts.values()) >= min_freq)
    vocab = text.Vocabulary(train, min_freq=min_freq, max_size=max_size)
    assert vocab.tokens[0] == "<unk>"
    keys = [(-counts[token], ord(token)) for token in vocab.tokens[1:]]
    assert keys == sorted(keys)
    frequent = {c for c in counts if counts[c] >= min_freq}
    assert set(vocab.tokens[1:]) <= frequent
    assert len(vocab) == min(len(frequent) + 1, max_size or len(frequent) + 1)
    left_out = frequent.difference(vocab.tokens)
    assert all((-counts[c], ord(c)) > key for c in left_out for key in keys)


@given(train=st.text(min_size=1), other=st.text())
def test_words_round_trip(train: str, other: str) -> None:
    assume(train.replace("<unk>", "").strip())
    vocab = text.Vocabulary(train, level="word")
    for t in (train, other):
        ids = vocab.encode(t)
        assert vocab.encode(vocab.decode(ids)).tolist() == ids.tolist()


def test_words_and_punctuation_are_tokens() -> None:
    vocab = text.Vocabulary("It's 1898: the end,  the\nend.", level="word")
    assert vocab.decode(vocab.encode("the end: it's 1898.")) == "the end : <unk> ' s 1898 ."
    assert vocab.tokens[1:3] == ("end", "the")


def test_unknown_token_in_the_text_is_the_unknown_token() -> None:
    vocab = text.Vocabulary("the <unk> end <unk> <unk>", level="word")
    assert vocab.tokens == ("<unk>", "end", "the")
    assert vocab.encode("the <unk> end").tolist() == [2, 0, 1]


def test_tokenizer_replaces_the_rule() -> None:
    pairs = lambda t: re.findall("..?", t)  # noqa: E731
    joined = text.Vocabulary("ababcd", tokenizer=pairs)
    assert joined.tokens == ("<unk>", "ab", "cd")
    assert joined.decode(joined.encode("cdab")) == "cdab"
    spaced = text.Vocabulary("a-b c-d", level="word", tokenizer=str.split)
    assert spaced.decode(spaced.encode("c-d a-b")) == "c-d a-b"


def test_tokens_are_taken_as_they_are() -> None:
    cities = "New York|New York|Ulm"
    vocab = text.Vocabulary(cities.split("|"), level="word", tokenizer=lambda x: x.split("|"))
    assert vocab.tokens == ("<unk>", "New York", "Ulm")
    assert vocab.encode(["Ulm", "New York"]).tolist() == vocab.encode("Ulm|New York").tolist()
    assert vocab.encode(["Ulm", "New York"]).tolist() == [2, 1]
    lines = text.Vocabulary(iter(["Ulm", "\n", "  "]), level="word")  # white space alone is a token
    assert lines.encode(["\n", "  ", "Rome"]).tolist() == [1, 2, 0]


class Column:
    """A column of a data frame."""

    def __init__(self, *values: str) -> None:
        self.values = values

    def __iter__(self) -> Any:
        return iter(self.values)


NAMES, SENTENCES = Column("Ada", "Grace"), Column("the cat sat", "a dog")


def test_a_list_of_texts_is_not_encoded_as_unknown_tokens() -> None:
    letters, words = text.Vocabulary("Ada Grace"), text.Vocabulary("a cat sat", level="word")
    for texts in (NAMES, ["A", "", "d"], [*NAMES.values]):
        with pytest.raises(
            ArgumentError, match=r"not one character.*for text in texts\].*data.pad"
        ):
            letters.encode(texts)
    for texts in (SENTENCES, [*SENTENCES.values]):
        with pytest.raises(ArgumentError, match=r"'the cat sat' is not one word, and would be unk"):
            words.encode(texts)
    assert letters.encode(["A", "d", "<unk>", "x"]).tolist() == [*letters.encode("Ad"), 0, 0]
    assert words.encode(["cat", "kitten"]).tolist() == [*words.encode("cat"), 0]


def test_a_vocabulary_of_a_list_of_texts_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"'Grace' is not one character: join .*''.join\(texts"):
        text.Vocabulary(NAMES)
    with pytest.raises(ArgumentError, match=r"'the cat sat' is a text, not a word: .*' '.join"):
        text.Vocabulary(SENTENCES, level="word")
    with pytest.raises(ArgumentError, match=r"'x x x.*…' is a text"):
        text.Vocabulary(["x " * 400], level="word")


@given(train=TEXTS, other=TEXTS, level=st.sampled_from(["char", "word"]))
def test_state_dict_round_trip(train: str, other: str, level: Any) -> None:
    assume(train.replace("<unk>", "").strip())
    vocab = text.Vocabulary(train, level=level)
    state = vocab.state_dict()
    assert {type(value) for value in state.values()} == {str, list, bool}
    again = text.Vocabulary.from_state_dict(state)
    assert again.state_dict() == state
    assert again.encode(other).tolist() == vocab.encode(other).tolist()
    assert again.encode(other).dtype == vocab.encode(other).dtype


def test_state_dict_asks_for_the_tokenizer() -> None:
    vocab = text.Vocabulary("a-b c-d", level="word", tokenizer=str.split)
    with pytest.raises(ArgumentError, match="pass the same"):
        text.Vocabulary.from_state_dict(vocab.state_dict())
    again = text.Vocabulary.from_state_dict(vocab.state_dict(), tokenizer=str.split)
    assert again.encode("c-d").tolist() == [2]
    with pytest.raises(ArgumentError, match="had none"):
        text.Vocabulary.from_state_dict(text.Vocabulary("a").state_dict(), tokenizer=str.split)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"text": ""}, ArgumentError, "no tokens"),
        ({"text": " \n", "level": "word"}, ArgumentError, "no tokens"),
        ({"text": ["<unk>"], "level": "word"}, ArgumentError, "no tokens"),
        ({"text": "aab", "min_freq": 3}, ArgumentError, "most frequent one 2"),
        ({"text": "a", "min_freq": 0}, ArgumentError, "min_freq must be a positive integer"),
        ({"text": "a", "max_size": 0}, ArgumentError, "max_size must be a positive integer"),
        ({"text": "a", "level": "byte"}, ArgumentError, "'char' or 'word'"),
        ({"text": ["a", "bc"]}, ArgumentError, "'bc' is not one character"),
        ({"text": b"ab", "level": "word"}, DTypeError, "got int: decode bytes first"),
    ],
)
def test_vocabulary_refuses(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        text.Vocabulary(**arguments)


@pytest.mark.parametrize("ids", [[0, 3], [-1]])
def test_decode_refuses_what_is_not_in_the_vocabulary(ids: list[int]) -> None:
    with pytest.raises(ArgumentError, match="0 to 2"):
        text.Vocabulary("ab").decode(ids)


def test_unknown_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ArgumentError, match="the ids are empty"):
        text.Vocabulary("ab").unknown_rate([])


def test_repr_tells_size_and_level() -> None:
    assert repr(text.Vocabulary("ab")) == "Vocabulary(3 tokens, level='char')"


# -- partitions ------------------------------------------------------------------------------------


@given(n=st.integers(1, 200), valid=st.floats(0, 1, exclude_max=True))
def test_split_keeps_order_and_everything(n: int, valid: float) -> None:
    held_out = round(n * valid)
    assume(held_out < n and (held_out or not valid))
    ids = np.arange(n)
    train, rest = text.split(ids, valid)
    assert np.concatenate([train, rest]).tolist() == ids.tolist()
    assert len(rest) == held_out
    letters = "".join(map(chr, ids + 100))
    assert text.split(letters, valid) == (letters[: len(train)], letters[len(train) :])
    assert text.split(tensor(ids), valid)[1].numpy().tolist() == rest.tolist()


@pytest.mark.parametrize(("n", "valid"), [(10, 1), (10, -0.1), (3, 0.1), (1, 0.9), (0, 0.1)])
def test_split_refuses(n: int, valid: float) -> None:
    with pytest.raises(ArgumentError, match=f"valid={valid}|got {valid}"):
        text.split("a" * n, valid)


@st.composite
def streams(draw: st.DrawFn, drop_last: bool, rows: bool) -> tuple[np.ndarray, int, int]:
    """Return the positions 0, 1, … as ids, a batch size and steps that fit them."""
    batch_size, steps = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    least = steps + (batch_size * steps if drop_last else steps if rows else batch_size)
    n = least + draw(st.integers(0, 60))
    return np.arange(n, dtype=np.uint8), batch_size, steps


def both(pairs: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(x.numpy(), y.numpy()) for x, y in pairs]


def check_pairs(pairs: list[tuple[np.ndarray, np.ndarray]], n: int) -> None:
    """Ids being positions: labels follow their inputs, within the stream, none twice."""
    for x, y in pairs:
        assert x.dtype == y.dtype == np.int64
        assert (y == x + 1).all()
        assert (x[1:] == x[:-1] + 1).all()  # time runs down the columns
    inputs = np.concatenate([x.ravel() for x, _ in pairs])
    assert inputs.max() + 1 < n
    assert len(np.unique(inputs)) == len(inputs)


@given(stream=streams(drop_last=True, rows=False), seed=SEEDS)
def test_sequential_windows_continue(stream: Any, seed: int) -> None:
    ids, batch_size, steps = stream
    pairs = both(text.sequential(ids, batch_size, steps, rng=seed))
    check_pairs(pairs, len(ids))
    assert {x.shape for x, _ in pairs} == {(steps, batch_size)}
    for (x, _), (following, _) in pairwise(pairs):
        assert (following[0] == x[-1] + 1).all()
    assert pairs[0][0][0, 0] < steps


@given(stream=streams(drop_last=False, rows=False), seed=SEEDS)
def test_sequential_can_keep_the_short_window(stream: Any, seed: int) -> None:
    ids, batch_size, steps = stream
    pairs = both(text.sequential(ids, batch_size, steps, rng=seed, drop_last=False))
    check_pairs(pairs, len(ids))
    x = np.concatenate([x for x, _ in pairs])
    offset = x[0, 0]
    assert x.T.ravel().tolist() == list(range(offset, offset + x.size))  # nothing between columns
    assert len(ids) - 1 - x.size < batch_size + steps
    assert all(len(x) == steps for x, _ in pairs[:-1])


@given(stream=streams(drop_last=True, rows=True), seed=SEEDS)
def test_random_windows_do_not_overlap(stream: Any, seed: int) -> None:
    ids, batch_size, steps = stream
    pairs = both(text.random(ids, batch_size, steps, rng=seed))
    check_pairs(pairs, len(ids))
    assert {x.shape for x, _ in pairs} == {(steps, batch_size)}


@given(stream=streams(drop_last=False, rows=True), seed=SEEDS)
def test_random_can_keep_the_small_minibatch(stream: Any, seed: int) -> None:
    ids, batch_size, steps = stream
    pairs = both(text.random(ids, batch_size, steps, rng=seed, drop_last=False))
    check_pairs(pairs, len(ids))
    assert len(ids) - 1 - sum(x.size for x, _ in pairs) < 2 * steps
    assert all(x.shape == (steps, batch_size) for x, _ in pairs[:-1])


def test_random_order_is_random() -> None:
    pairs = both(text.random(np.arange(1000), batch_size=5, steps=3, rng=0))
    starts = np.concatenate([x[0] for x, _ in pairs])
    assert starts.tolist() != sorted(starts)


@given(stream=streams(drop_last=True, rows=False))
def test_sequential_uses_every_token_in_some_epoch(stream: Any) -> None:
    ids, batch_size, steps = stream
    rng = np.random.default_rng(0)
    used, offsets = set(), set()
    for _ in range(100):
        pairs = both(text.sequential(ids, batch_size, steps, rng))
        used.update(np.concatenate([x.ravel() for x, _ in pairs]).tolist())
        offsets.add(int(pairs[0][0][0, 0]))
    assert offsets == set(range(steps))
    assert used == set(range(len(used)))
    assert len(ids) - 1 - len(used) < batch_size + steps


@pytest.mark.parametrize("partition", [text.sequential, text.random])
def test_offset_is_drawn_anew_and_repeats_with_the_seed(partition: Any) -> None:
    ids = np.arange(200)

    def epochs(rng: Any) -> list[Any]:
        return [
            [x.tolist() for x, _ in both(partition(ids, batch_size=4, steps=10, rng=rng))]
            for _ in range(10)
        ]

    one = epochs(np.random.default_rng(1))
    assert len({str(epoch) for epoch in one}) > 1
    assert one == epochs(np.random.default_rng(1))
    assert one != epochs(np.random.default_rng(2))
    assert len({str(epoch) for epoch in epochs(1)}) == 1


@pytest.mark.parametrize("partition", [text.sequential, text.random])
def test_offset_is_drawn_at_the_call(partition: Any) -> None:
    ids, rng = np.arange(200), np.random.default_rng(1)
    later = partition(ids, 4, 10, rng)
    state = str(rng.bit_generator.state)
    list(later)
    assert str(rng.bit_generator.state) == state


@given(n=st.integers(2, 120), batch_size=st.integers(1, 9), steps=st.integers(1, 9))
def test_evaluation_scores_every_prediction_once(n: int, batch_size: int, steps: int) -> None:
    pairs = both(text.evaluation(np.arange(n), batch_size, steps))
    assert {x.shape for x, _ in pairs} == {y.shape for _, y in pairs} == {(steps, batch_size)}
    x, y = (np.concatenate(part) for part in zip(*pairs, strict=True))
    scored = y != -1
    assert sorted(y[scored]) == list(range(1, n))
    assert (y[scored] == x[scored] + 1).all()
    assert (x[~scored] == 0).all()
    for column in range(batch_size):
        count = scored[:, column].sum()
        assert scored[:count, column].all()  # padding comes last
        assert (np.diff(x[:count, column]) == 1).all()  # the state can be carried
    first = x[0, scored[0]]
    last_label = [y[scored[:, k], k][-1] for k in range(scored[0].sum())]
    assert first[1:].tolist() == last_label[:-1]


@given(ids=st.lists(st.integers(0, 70_000), min_size=2, max_size=40))
def test_evaluation_keeps_the_ids(ids: list[int]) -> None:
    for source in (ids, np.array(ids, np.uint32), tensor(np.array(ids))):
        [(x, y)] = both(text.evaluation(source, batch_size=1, steps=len(ids) - 1))
        assert x.ravel().tolist() == ids[:-1]
        assert y.ravel().tolist() == ids[1:]


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize(
    ("partition", "least"),
    [(text.sequential, {True: 24, False: 9}), (text.random, {True: 24, False: 12})],
)
def test_shortest_stream(partition: Any, least: dict[bool, int], drop_last: bool) -> None:
    n = least[drop_last]
    for seed in range(40):
        pairs = list(partition(np.arange(n), 3, 6, rng=seed, drop_last=drop_last))
        assert len(pairs) >= 1
    with pytest.raises(ArgumentError, match=rf"{n - 1} tokens .*batch_size=3 .*steps=6.* {n}:"):
        partition(np.arange(n - 1), 3, 6, drop_last=drop_last)


@pytest.mark.parametrize("ids", [[], [7]])
def test_evaluation_needs_a_prediction(ids: list[int]) -> None:
    with pytest.raises(ArgumentError, match=f"{len(ids)} tokens contain no prediction"):
        text.evaluation(ids, 1, 5)


@pytest.mark.parametrize("partition", [text.sequential, text.random, text.evaluation])
def test_partitions_refuse_at_the_call(partition: Any) -> None:
    with pytest.raises(DTypeError, match=r"Vocabulary\.encode"):
        partition("some text", 1, 2)
    with pytest.raises(DTypeError, match="float64"):
        partition(np.zeros(100), 1, 2)
    with pytest.raises(ShapeError, match=r"\(10, 10\)"):
        partition(np.zeros((10, 10), int), 1, 2)
    for batch_size, steps in ((0, 2), (1, 0), (1, 2.0), (True, 2)):
        with pytest.raises(ArgumentError, match="must be a positive integer"):
            partition(np.arange(100), batch_size, steps)
