"""Real text: encodings, marks, line ends and combining characters, read in pieces of any size."""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tinygrad_rnn.data import text
from tinygrad_rnn.data.text.text_file import _BEFORE_STARTER
from tinygrad_rnn.errors import ArgumentError

MARK = "\ufeff"
# What is hard: line ends, marks, Chinese beyond the BMP, emoji of several code points, combining
# marks in and out of order, Hangul and Bengali letters that are joined to the one before.
HARD = "\r\n\r\n \u2028\x85" + MARK + "ae道経𠮷𪚥㐀\U00030729😀👩\u200d🚀\ufe0f"
HARD += "\u0301\u0323\u0344\u1161\u11a8\u1100가각\u09c7\u09be\u0f71\u0f73\u212b\ufa0e"
TEXTS = st.text(st.sampled_from(HARD) | st.characters(codec="utf-8"), max_size=30)
ENCODINGS = ["utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-32-be", "big5", "shift_jis", "latin-1"]
CHUNKS = st.integers(1, 12) | st.just(2**20)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("texts") / "some.txt"


def words(string: str) -> list[str]:
    return string.split()


# -- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(written=TEXTS, normalize=st.sampled_from([None, "NFC"]), chunk_size=CHUNKS)
def test_pieces_are_the_whole(
    path: Path, encoding: str, written: str, normalize: Any, chunk_size: int
) -> None:
    data = written.encode(encoding, "ignore")
    path.write_bytes(data)
    whole = data.decode(encoding).removeprefix(MARK).replace("\r\n", "\n").replace("\r", "\n")
    whole = unicodedata.normalize(normalize, whole) if normalize else whole
    file = text.TextFile(path, encoding, normalize, chunk_size)
    assert file.read() == "".join(file) == whole
    assert len(file) == len(whole)
    assert text.sha256(file) == text.sha256(whole)
    assert text.corpus(path, encoding, normalize=normalize) == whole


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16-le", "big5", "hz"])
@given(data=st.binary(max_size=12) | TEXTS.map(lambda t: t.encode("utf-8")[:-1]), chunk_size=CHUNKS)
def test_an_error_is_the_same_for_every_chunk_size(
    path: Path, encoding: str, data: bytes, chunk_size: int
) -> None:
    path.write_bytes(data)
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        offset = len(data) - len(error.object) + error.start
    else:
        assume(False)
    messages = []
    for size in (chunk_size, 2**20):
        with pytest.raises(ArgumentError) as info:
            text.TextFile(path, encoding, chunk_size=size).read()
        messages.append(str(info.value))
    assert messages[0] == messages[1]
    assert f"at offset {offset} (" in messages[0]
    assert f"from it on: {data[offset : offset + 8].hex(' ')})" in messages[0]


@pytest.mark.parametrize(
    ("data", "encoding", "parts"),
    [
        ("道可道".encode("gb18030"), "utf-8-sig", ["0xb5 at offset 0", "gb18030"]),
        ("道a".encode() + b"\xff", "utf-8-sig", ["0xff at offset 4", "invalid start byte"]),
        ("道".encode()[:2], "utf-8-sig", ["0xe9 at offset 0", "unexpected end", "e9 81)"]),
        (codecs.BOM_UTF8[:2], "utf-8-sig", ["0xef at offset 0", "ef bb)"]),
        ("one".encode("utf-16"), "utf-8-sig", ["offset 0", "encoding='utf-16'"]),
        ("one".encode("utf-16-be"), "utf-16", ["offset 0", "BOM", "'utf-16-le' or 'utf-16-be'"]),
        (b"a\x81", "gb18030", ["0x81 at offset 1", "incomplete multibyte sequence"]),
    ],
)
def test_what_an_error_says(path: Path, data: bytes, encoding: str, parts: list[str]) -> None:
    path.write_bytes(data)
    with pytest.raises(ArgumentError) as info:
        text.TextFile(path, encoding).read()
    for part in ["some.txt", f"not in {encoding}", *parts]:
        assert part in str(info.value)


@given(
    written=TEXTS, chunk_size=CHUNKS, bounds=st.lists(st.none() | st.integers(-40, 40), max_size=6)
)
def test_a_part_is_that_of_the_text(path: Path, written: str, chunk_size: int, bounds: Any) -> None:
    path.write_bytes(written.encode())
    part = text.TextFile(path, chunk_size=chunk_size)
    expected = part.read()
    for start, stop in zip(bounds[::2], bounds[1::2], strict=False):
        part, expected = part[start:stop], expected[start:stop]
        assert part.read() == expected
        assert len(part) == len(expected)


def test_nothing_that_may_be_joined_is_a_place_to_cut() -> None:
    characters = [chr(point) for point in range(sys.maxunicode + 1)]
    decompositions = [unicodedata.normalize("NFD", c) for c in characters]
    joined = set()  # what stands second where two characters become one
    for c in characters:
        parts = unicodedata.decomposition(c).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            joined.add(chr(int(parts[1], 16)))
    joined.update(map(chr, [*range(0x1161, 0x1176), *range(0x11A7, 0x11C3)]))  # by arithmetic
    assert len(joined) > 100
    for c, decomposition in zip(characters, decompositions, strict=True):
        if _BEFORE_STARTER.match(c):
            assert unicodedata.combining(decomposition[0]) == 0
            assert decomposition[0] not in joined


def test_a_file_that_changes_is_noticed(path: Path) -> None:
    path.write_text("one")
    file = text.TextFile(path)
    assert len(file) == 3
    path.write_text("two and more")
    with pytest.raises(ArgumentError, match="changed since it was opened"):
        file.read()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "gb-18030-2022"}, "unknown encoding='gb-18030-2022'.*'gb18030'"),
        ({"encoding": "hex"}, "unknown encoding='hex'"),
        ({"encoding": None}, "unknown encoding=None"),
        ({"normalize": "NFKC"}, "unknown normalize='NFKC'"),
        ({"chunk_size": 0}, "chunk_size must be a positive integer"),
    ],
)
def test_options_that_are_refused(path: Path, options: Any, message: str) -> None:
    path.write_text("one")
    with pytest.raises(ArgumentError, match=message):
        text.TextFile(path, **options)


@pytest.mark.parametrize("part", [0, slice(None, None, 2), "a"])
def test_parts_are_slices(path: Path, part: Any) -> None:
    path.write_text("one")
    with pytest.raises(ArgumentError, match="index by a slice"):
        text.TextFile(path)[part]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"file '.*nowhere\.txt' not found"):
        text.TextFile(tmp_path / "nowhere.txt")


def test_repr(path: Path) -> None:
    path.write_text("one")
    file = text.TextFile(path)
    assert repr(file) == f"TextFile({str(path)!r}, encoding='utf-8-sig')"
    assert repr(file[1:]) == f"TextFile({str(path)!r}, encoding='utf-8-sig')[1:3]"


# -- tokens and ids --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"level": "word"}, {"level": "word", "tokenizer": words}, {"tokenizer": list}]
)
@given(written=TEXTS, other=TEXTS, chunk_size=CHUNKS)
def test_ids_do_not_depend_on_the_chunk_size(
    path: Path, options: Any, written: str, other: str, chunk_size: int
) -> None:
    path.write_bytes((written + "a b").encode())
    out = path.with_suffix(".npy")
    file = text.TextFile(path, chunk_size=chunk_size)
    vocab = text.Vocabulary(file, **options)
    assert vocab.tokens == text.Vocabulary(file.read(), **options).tokens
    for source in (file, file[1:], file[:0]):
        expected = vocab.encode(source.read())
        for ids in (vocab.encode(source), vocab.encode(source, out=out), np.load(out)):
            assert ids.dtype == expected.dtype
            assert ids.tolist() == expected.tolist()
    assert os.listdir(path.parent) == sorted(["some.npy", "some.txt"])


@given(written=TEXTS.filter(bool), chunk_size=CHUNKS)
def test_gb18030_gives_the_ids_of_utf_8(path: Path, written: str, chunk_size: int) -> None:
    def ids(encoding: str) -> list[int]:
        path.write_bytes((MARK + written).encode(encoding))
        file = text.TextFile(path, encoding, chunk_size=chunk_size)
        return text.Vocabulary(file).encode(file).tolist()

    assert ids("gb18030") == ids("utf-8") == ids("utf-16-le")


RARE = "𠮷野家，㐀𪚥𱁬。\r\n道可道，非常道。\r\n👩\u200d🚀 cafe\u0301\r\n"


def test_a_character_is_a_code_point(path: Path) -> None:
    path.write_bytes(RARE.encode("utf-8-sig"))
    file = text.TextFile(path, chunk_size=1)
    assert file.read() == RARE.replace("\r\n", "\n")
    vocab = text.Vocabulary(file)
    for token in ("𠮷", "𱁬", "👩", "\u200d", "🚀", "\u0301", "\n"):
        assert token in vocab
    assert "\r" not in vocab
    assert vocab.decode(vocab.encode(file)) == file.read()
    composed = text.Vocabulary(text.TextFile(path, normalize="NFC"))
    assert "é" in composed
    assert "\u0301" not in composed


def test_a_map_is_read_only_and_replaces_when_complete(tmp_path: Path) -> None:
    vocab = text.Vocabulary("ab")
    out = tmp_path / "ids.npy"
    ids = vocab.encode("abba", out=out)
    assert isinstance(ids, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 0
    broken = tmp_path / "broken.txt"
    broken.write_bytes(b"bb\xff")
    with pytest.raises(ArgumentError, match="offset 2"):
        vocab.encode(text.TextFile(broken, chunk_size=1), out=out)
    assert np.load(out).tolist() == [1, 2, 2, 1]
    assert sorted(os.listdir(tmp_path)) == ["broken.txt", "ids.npy"]
    with pytest.raises(ArgumentError, match="is the file of the text"):
        vocab.encode(text.TextFile(broken), out=str(broken))
    assert broken.read_bytes() == b"bb\xff"
    assert text.split(ids, 0.25)[1].tolist() == [1]


def test_minibatches_of_a_map_are_those_of_the_array(tmp_path: Path) -> None:
    written = "the time traveller for so it will be convenient to speak of him " * 9
    vocab = text.Vocabulary(written)
    ids, mapped = vocab.encode(written), vocab.encode(written, out=tmp_path / "ids.npy")
    for make in (text.sequential, text.random, text.evaluation):
        seed = {} if make is text.evaluation else {"rng": 3}
        pairs = zip(make(ids, 4, 7, **seed), make(mapped, 4, 7, **seed), strict=True)
        for (x, y), (mapped_x, mapped_y) in pairs:
            assert (x.numpy() == mapped_x.numpy()).all()
            assert (y.numpy() == mapped_y.numpy()).all()


def test_an_empty_file(path: Path) -> None:
    for data in (b"", codecs.BOM_UTF8):
        path.write_bytes(data)
        file = text.TextFile(path)
        assert (len(file), file.read(), list(file), text.corpus(path)) == (0, "", [], "")
        with pytest.raises(ArgumentError, match="no tokens"):
            text.Vocabulary(file)
        with pytest.raises(ArgumentError, match="0 tokens"):
            text.split(file)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\r\n"])
def test_one_line_shorter_than_a_window(path: Path, end: bytes) -> None:
    path.write_bytes("一行".encode() + end)
    file = text.TextFile(path, chunk_size=1)
    ids = text.Vocabulary(file).encode(file)
    assert len(ids) == 2 + bool(end)
    for make in (text.sequential, text.random):
        with pytest.raises(ArgumentError, match=f"{len(ids)} tokens are too few"):
            make(ids, 1, 35)
    [(_, y)] = text.evaluation(ids, 1, 35)
    assert (y.numpy() != -1).sum() == len(ids) - 1
