"""Texts in files: decoded in pieces, with a result that does not depend on the size of a piece."""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NoReturn

from ...errors import ArgumentError
from ...tensors.checks import all_positive

# Boundaries at which a text can be split into pieces that are processed one by one: the end of a
# match.
AFTER_SPACE = re.compile(r"(?s:.*)\s")
AFTER_LINE = re.compile(r"(?s:.*)\n")
_AFTER_NO_CR = re.compile(r"(?s:.*)[^\r]")
# NFC never composes these characters with a preceding one, which Unicode guarantees for the future:
# all below the first combining mark, Chinese characters, precomposed syllables of Hangul.
_BEFORE_STARTER = re.compile("(?s:.*)(?=[\0-\u02ff\u3400-\u9fff\uac00-\ud7a3])")


class TextFile:
    r"""A text in a file, which is read in pieces, so that it can be larger than memory.

    It is accepted in place of a str: `split` and slices return parts of it, `Vocabulary` counts its
    tokens, and `Vocabulary.encode` returns its ids and can write them to a file. Iteration yields
    pieces of any length, the concatenation of which is the text. Each of these reads the file
    again.

    Parameters
    ----------
    path : str or path
        The file.
    encoding : str
        The encoding of the file. The default is UTF-8 with or without a byte order mark.
    normalize : {"NFC"}, optional
        Unicode normalisation; NFC composes a letter and its combining accents to one code point.
    chunk_size : int
        The number of bytes to read at a time. The text does not depend on it.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ArgumentError
        If an option is unknown; while reading, if the file is not in `encoding` (the message has
        the offset, the bytes, and encodings to try), or has changed since.

    Notes
    -----
    A character is a code point. Line ends are converted to ``"\n"``. A byte order mark at the
    beginning is removed, in any encoding; elsewhere U+FEFF is a character.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import tinygrad_rnn as tg
    >>> path = pathlib.Path(tempfile.mkdtemp(), "book.txt")
    >>> size = path.write_bytes("道可道，\r\n非常道。".encode("gb18030"))
    >>> book = tg.data.text.TextFile(path, encoding="gb18030")
    >>> len(book), book[5:8].read()
    (9, '非常道')
    >>> train, valid = tg.data.text.split(book, valid=0.5)
    >>> vocab = tg.data.text.Vocabulary(train)
    >>> vocab.tokens
    ('<unk>', '道', '\n', '可', '，')
    >>> vocab.encode(valid)
    array([0, 0, 1, 0], dtype=uint8)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        encoding: str = "utf-8-sig",
        normalize: Literal["NFC"] | None = None,
        chunk_size: int = 2**20,
    ) -> None:
        all_positive("TextFile", chunk_size=chunk_size)
        if normalize not in (None, "NFC"):
            raise ArgumentError(f"TextFile: unknown normalize={normalize!r}: use None or 'NFC'")
        try:
            "".encode(encoding)  # raises for codecs that are not between bytes and text
            codecs.getincrementaldecoder(encoding)
        except (LookupError, TypeError) as error:
            raise ArgumentError(
                f"TextFile: unknown encoding={encoding!r}: use a name of Python's codecs, for "
                "example 'utf-8', 'gb18030', 'latin-1'"
            ) from error
        self.path = Path(path)
        self.encoding = encoding
        self.normalize = normalize
        self.chunk_size = chunk_size
        self._seen = self._stamp()
        self._start = 0
        self._stop: int | None = None  # None: the end of the text, which is counted on demand
        self._length: list[int] = []  # of the whole text: one item once known, shared by slices

    def __iter__(self) -> Iterator[str]:
        """Yield the text in non-empty pieces."""
        at = 0  # position in the whole text
        for piece in self._whole():
            if self._stop is not None and at >= self._stop:
                return
            begin = max(self._start - at, 0)
            part = piece[begin : None if self._stop is None else self._stop - at]
            at += len(piece)
            if part:
                yield part

    def __len__(self) -> int:
        """Return the number of characters; the first call reads the whole file."""
        return self._end() - self._start

    def __getitem__(self, part: slice) -> TextFile:
        """Return a slice of the text, which is read from the file as well."""
        if not isinstance(part, slice) or part.step not in (None, 1):
            raise ArgumentError(f"TextFile: index by a slice without a step, got [{part!r}]")
        other = object.__new__(TextFile)
        other.__dict__.update(self.__dict__)
        if part.start is not None or part.stop is not None:
            start, stop, _ = part.indices(len(self))
            other._start, other._stop = self._start + start, self._start + max(start, stop)
        return other

    def __repr__(self) -> str:
        part = f"[{self._start}:{self._stop}]" if self._stop is not None else ""
        return f"TextFile({str(self.path)!r}, encoding={self.encoding!r}){part}"

    def read(self) -> str:
        r"""Return the text as one str.

        Returns
        -------
        str

        Raises
        ------
        ArgumentError
            If the file is not in its encoding or has changed.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import tinygrad_rnn as tg
        >>> path = pathlib.Path(tempfile.mkdtemp(), "marked.txt")
        >>> size = path.write_bytes(b"\xef\xbb\xbfone\r\ntwo")
        >>> tg.data.text.TextFile(path).read()
        'one\ntwo'
        """
        return "".join(self)

    def _end(self) -> int:
        if self._stop is not None:
            return self._stop
        if not self._length:
            self._length.append(sum(map(len, self._whole())))
        return self._length[0]

    def _stamp(self) -> tuple[int, int]:
        """Return the size and modification time of the file, or raise if it is missing."""
        try:
            stat = self.path.stat()
        except FileNotFoundError as error:
            raise FileNotFoundError(f"TextFile: file {str(self.path)!r} not found") from error
        return stat.st_size, stat.st_mtime_ns

    def _whole(self) -> Iterator[str]:
        """Yield the whole text: decoded, with line ends converted, normalised."""
        text: Iterable[str] = self._without_mark(self._decoded())
        parts = split_at(text, _AFTER_NO_CR)
        text = (part.replace("\r\n", "\n").replace("\r", "\n") for part in parts)
        if self.normalize:
            parts = split_at(text, _BEFORE_STARTER)
            text = (unicodedata.normalize(self.normalize, part) for part in parts)
        yield from text

    @staticmethod
    def _without_mark(pieces: Iterator[str]) -> Iterator[str]:
        for first in pieces:
            if first:
                yield first.removeprefix("\ufeff")
                break
        yield from pieces

    def _decoded(self) -> Iterator[str]:
        # Not utf-8-sig: Python's codec accepts half a mark. The mark is removed afterwards.
        marked = codecs.lookup(self.encoding).name == "utf-8-sig"
        decoder = codecs.getincrementaldecoder("utf-8" if marked else self.encoding)()
        count = 0
        if self._stamp() != self._seen:
            raise ArgumentError(
                f"TextFile: {str(self.path)!r} has changed since it was opened: make a new TextFile"
            )
        with self.path.open("rb") as file:
            while True:
                data = file.read(self.chunk_size)
                count += len(data)
                try:
                    piece = decoder.decode(data, final=not data)
                except UnicodeDecodeError as error:
                    # The decoder buffers incomplete characters: its object ends at `count`.
                    self._raise(count - len(error.object) + error.start, error.reason, error)
                except UnicodeError as error:  # utf-16 and utf-32 without a mark
                    self._raise(0, str(error), error)
                yield piece
                if not data:
                    return

    def _raise(self, offset: int, reason: str, error: UnicodeError) -> NoReturn:
        with self.path.open("rb") as file:
            mark = file.read(2)
            file.seek(offset)
            seen = file.read(8)
        if "BOM" in reason:
            cure = f"'{self.encoding}-le' or '{self.encoding}-be'"
        elif mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            cure = "'utf-16'"
        else:
            cure = "'gb18030' (Chinese) or 'latin-1' (Western European)"
        raise ArgumentError(
            f"reading {str(self.path)!r}: it is not in {self.encoding}: byte 0x{seen[:1].hex()} at "
            f"offset {offset} ({reason}; the bytes from it on: {seen.hex(' ')}): pass the "
            f"encoding of the file, for example encoding={cure}"
        ) from error


Text = str | TextFile


def pieces(text: Text) -> Iterable[str]:
    """Return the pieces of a text, of which a str has one."""
    return [text] if isinstance(text, str) else text


def split_at(parts: Iterable[str], boundary: re.Pattern[str]) -> Iterator[str]:
    """Yield the same text in pieces that end at a match of `boundary`, except for the last."""
    rest: list[str] = []  # the text after the last boundary
    for piece in parts:
        match = boundary.match(piece)
        if match is None:
            rest.append(piece)
        else:
            yield "".join([*rest, piece[: match.end()]])
            rest = [piece[match.end() :]]
    yield "".join(rest)
