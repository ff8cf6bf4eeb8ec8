"""Vocabularies: the map between tokens and ids."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..._util.api_hints import class_name
from ..._util.state_keys import check_keys
from ...engine.tensor import Tensor
from ...errors import ArgumentError, DTypeError
from ...tensors.checks import all_positive, token_ids
from .ids_file import write_memory_map
from .text_file import AFTER_LINE, AFTER_SPACE, Text, TextFile, pieces, split_at

Tokenizer = Callable[[str], Iterable[str]]

UNKNOWN = "<unk>"
_WORDS = re.compile(rf"{UNKNOWN}|\w+|[^\w\s]")


class Vocabulary:
    """The tokens of a text, with ids by decreasing frequency.

    Id 0 is ``<unk>``, the id of every token that is not in the vocabulary. The other tokens are
    sorted by decreasing frequency, equally frequent ones by code point. A vocabulary is immutable.

    Parameters
    ----------
    text : str, TextFile, or iterable of str
        The training text (without held-out text: `split` first), or its tokens.
    level : {"char", "word"}
        ``"char"``: tokens are characters, and decoding concatenates them. ``"word"``: tokens are
        words and single punctuation marks, and decoding joins them by spaces.
    min_freq : int
        Tokens that occur less often are unknown.
    max_size : int, optional
        The maximum number of tokens, ``<unk>`` included; the most frequent are kept.
    tokenizer : callable, optional
        A function that splits a str into tokens, in place of the level's rule. A str is passed to
        it as one piece, a `TextFile` in pieces that end at line ends.

    Attributes
    ----------
    tokens : tuple of str
        The token of each id.
    level : str
        As given.

    Raises
    ------
    ArgumentError
        If the text has no tokens, no token occurs `min_freq` times, a token of level ``"char"``
        is longer than one character, or one of level ``"word"`` has several words.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> vocab = tg.data.text.Vocabulary("a machine")
    >>> vocab.tokens
    ('<unk>', 'a', ' ', 'c', 'e', 'h', 'i', 'm', 'n')
    >>> vocab.encode("chain?")
    array([3, 5, 1, 6, 8, 0], dtype=uint8)
    >>> vocab.decode([7, 1, 3, 5, 6, 8, 4])
    'machine'
    >>> words = tg.data.text.Vocabulary("the time, the machine", level="word")
    >>> words.decode(words.encode("the machine, the end"))
    'the machine , the <unk>'
    """

    def __init__(
        self,
        text: str | Iterable[str],
        level: Literal["char", "word"] = "char",
        min_freq: int = 1,
        max_size: int | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        if level not in ("char", "word"):
            raise ArgumentError(f"Vocabulary: unknown level {level!r}: use 'char' or 'word'")
        all_positive("Vocabulary", min_freq=min_freq)
        if max_size is not None:
            all_positive("Vocabulary", max_size=max_size)
        counts = _count(text, level, tokenizer)
        counts.pop(UNKNOWN, None)
        if not counts:
            raise ArgumentError("Vocabulary: the text has no tokens")
        if level == "char" and tokenizer is None and max(map(len, counts)) > 1:
            raise ArgumentError(
                f"Vocabulary: {_short(max(counts, key=len))} is not one character: join several "
                "texts, ''.join(texts); use level='word' for words, or tokenizer= for texts whose "
                "tokens are joined without a space"
            )
        if level == "word" and tokenizer is None:
            for token in counts:
                if len(token.split()) > 1:
                    raise ArgumentError(
                        f"Vocabulary: {_short(token)} is a text, not a word: join several texts, "
                        "' '.join(texts), or pass tokenizer= for tokens that have spaces"
                    )
        frequent = [token for token, count in counts.items() if count >= min_freq]
        if not frequent:
            raise ArgumentError(
                f"Vocabulary: no token occurs min_freq={min_freq} times, the most frequent one "
                f"{max(counts.values())}: use a smaller min_freq"
            )
        frequent.sort(key=lambda token: (-counts[token], token))
        self._assign_ids([UNKNOWN, *frequent][:max_size], level, tokenizer)

    def _assign_ids(self, tokens: Iterable[str], level: str, tokenizer: Tokenizer | None) -> None:
        self.tokens = tuple(tokens)
        self.level = level
        self._tokenizer = tokenizer
        self._ids = {token: i for i, token in enumerate(self.tokens)}
        self._dtype = np.min_scalar_type(len(self.tokens) - 1)
        # The id of each code point; the last entry, one above the largest known, is <unk>.
        points = {ord(token): i for token, i in self._ids.items() if len(token) == 1}
        self._table = np.zeros(max(points, default=0) + 2, self._dtype)
        self._table[list(points)] = list(points.values())

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} tokens, level={self.level!r})"

    def encode(
        self,
        text: Text | Iterable[str],
        out: str | os.PathLike[str] | None = None,
    ) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Return the ids of the tokens of a text.

        Parameters
        ----------
        text : str, TextFile, or iterable of str
            A text, or its tokens.
        out : str or path, optional
            A .npy file for the ids; an existing one is replaced atomically. With a `TextFile`,
            neither the text nor the ids are in memory as a whole.

        Returns
        -------
        ndarray of shape (n,)
            In the smallest unsigned dtype that holds all ids of the vocabulary. With `out`, a
            read-only memory map of the file, as ``numpy.load(out, mmap_mode="r")`` returns.

        Raises
        ------
        ArgumentError
            If `out` is the file of the text, or that file is not in its encoding; or if `text` is a
            list of texts, whose ids would all be that of ``<unk>``.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> vocab = tg.data.text.Vocabulary("aab")
        >>> vocab.encode("abc")
        array([1, 2, 0], dtype=uint8)
        >>> [vocab.encode(name) for name in ["ab", "a"]]  # of several texts; see `tg.data.pad`
        [array([1, 2], dtype=uint8), array([1], dtype=uint8)]
        """
        parts = self._encoded(text)
        if out is not None:
            if isinstance(text, TextFile) and os.path.realpath(out) == os.path.realpath(text.path):
                raise ArgumentError(
                    f"Vocabulary.encode: out={out!r} is the file of the text: pass another path"
                )
            return write_memory_map(out, parts, self._dtype)
        return np.concatenate([np.empty(0, self._dtype), *parts])

    def _encoded(self, text: Text | Iterable[str]) -> Iterator[npt.NDArray[Any]]:
        if isinstance(text, Text) and self.level == "char" and self._tokenizer is None:
            for piece in pieces(text):
                yield self._table.take(_code_points(piece), mode="clip")
        else:
            for tokens in _tokens(text, self._tokenizer):
                if not isinstance(text, Text) and self._tokenizer is None:
                    self._refuse_texts(tokens)
                yield np.fromiter((self._ids.get(token, 0) for token in tokens), self._dtype)

    def _refuse_texts(self, tokens: Iterable[str]) -> None:
        """Raise if an element of a list of tokens is a text of several tokens."""
        for token in tokens:
            several = len(token) != 1 if self.level == "char" else len(token.split()) > 1
            if several and token not in self._ids:
                one = "one character" if self.level == "char" else "one word"
                raise ArgumentError(
                    f"Vocabulary.encode: {_short(token)} is not {one}, and would be unknown: "
                    "encode each text, [vocabulary.encode(text) for text in texts], and make one "
                    "array of them by tinygrad_rnn.data.pad"
                )

    def decode(self, ids: npt.ArrayLike | Tensor) -> str:
        """Return the text of token ids.

        Parameters
        ----------
        ids : array_like or Tensor of integers, shape (n,)

        Returns
        -------
        str
            The tokens, concatenated (level ``"char"``) or joined by spaces (level ``"word"``).

        Raises
        ------
        ArgumentError
            If an id is not in the vocabulary.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> tg.data.text.Vocabulary("aab").decode([2, 1, 1])
        'baa'
        """
        array = token_ids("Vocabulary.decode", ids)
        if array.size and not 0 <= array.min() <= array.max() < len(self):
            raise ArgumentError(
                f"Vocabulary.decode: ids from {array.min()} to {array.max()}, the vocabulary has "
                f"0 to {len(self) - 1}: use the vocabulary that encoded them"
            )
        separator = "" if self.level == "char" else " "
        return separator.join([self.tokens[i] for i in array.tolist()])

    def unknown_rate(self, ids: npt.ArrayLike | Tensor) -> float:
        """Return the fraction of unknown tokens, to be reported with a perplexity.

        Parameters
        ----------
        ids : array_like or Tensor of integers, shape (n,)
            The result of `encode`.

        Returns
        -------
        float
            Between 0 and 1.

        Raises
        ------
        ArgumentError
            If `ids` is empty.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> vocab = tg.data.text.Vocabulary("aab")
        >>> vocab.unknown_rate(vocab.encode("abcd"))
        0.5
        """
        array = token_ids("Vocabulary.unknown_rate", ids)
        if not array.size:
            raise ArgumentError("Vocabulary.unknown_rate: the ids are empty: pass at least one")
        return float((array.size - np.count_nonzero(array)) / array.size)

    def state_dict(self) -> dict[str, Any]:
        """Return the vocabulary as a plain dict, for `from_state_dict`.

        Returns
        -------
        dict
            ``"level"`` (str), ``"tokens"`` (list of str) and ``"has_tokenizer"`` (bool).

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> tg.data.text.Vocabulary("aab").state_dict()
        {'level': 'char', 'tokens': ['<unk>', 'a', 'b'], 'has_tokenizer': False}
        """
        return {
            "level": self.level,
            "tokens": list(self.tokens),
            "has_tokenizer": self._tokenizer is not None,
        }

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Any], tokenizer: Tokenizer | None = None
    ) -> Vocabulary:
        """Return the vocabulary of a `state_dict`.

        Parameters
        ----------
        state : mapping
            The result of `state_dict`.
        tokenizer : callable, optional
            The tokenizer, if the vocabulary had one: functions are not saved.

        Returns
        -------
        Vocabulary

        Raises
        ------
        ArgumentError
            If `state` is not that of a vocabulary, or if the vocabulary had a tokenizer and none is
            passed, or conversely.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> state = tg.data.text.Vocabulary("aab").state_dict()
        >>> tg.data.text.Vocabulary.from_state_dict(state).tokens
        ('<unk>', 'a', 'b')
        """
        check_keys("Vocabulary.from_state_dict", state, ("level", "tokens", "has_tokenizer"))
        if problem := _problem(state):
            raise ArgumentError(f"Vocabulary.from_state_dict: {problem}")
        if state["has_tokenizer"] != (tokenizer is not None):
            had = "had one: pass the same" if state["has_tokenizer"] else "had none: omit it"
            raise ArgumentError(
                f"Vocabulary.from_state_dict: tokenizer={tokenizer}, but the vocabulary {had}"
            )
        vocabulary = cls.__new__(cls)
        vocabulary._assign_ids(state["tokens"], state["level"], tokenizer)
        return vocabulary


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")


def _problem(state: Mapping[str, Any]) -> str | None:
    """Return the first problem of a state's values, or None."""
    tokens = state["tokens"]
    if not isinstance(tokens, list | tuple) or not all(isinstance(t, str) for t in tokens):
        return "tokens must be a list of strings"
    if tokens[:1] != [UNKNOWN] and tokens[:1] != (UNKNOWN,):
        return f"the first token must be {UNKNOWN!r}, got {tokens[:1]}"
    if len(set(tokens)) < len(tokens):
        return f"the token {Counter(tokens).most_common(1)[0][0]!r} occurs twice"
    if state["level"] not in ("char", "word") or not isinstance(state["has_tokenizer"], bool):
        return f"unknown level {state['level']!r} or has_tokenizer {state['has_tokenizer']!r}"
    if state["level"] == "char" and not state["has_tokenizer"]:
        long = [token for token in tokens[1:] if len(token) != 1]
        return f"the token {long[0]!r} is not one character" if long else None
    return None


def _count(text: Text | Iterable[str], level: str, tokenizer: Tokenizer | None) -> Counter[str]:
    counts: Counter[str] = Counter()
    if isinstance(text, Text) and level == "char" and tokenizer is None:
        for piece in pieces(text):
            frequency = np.bincount(_code_points(piece))
            points = frequency.nonzero()[0]
            counts.update(dict(zip(map(chr, points), frequency[points].tolist(), strict=True)))
    else:
        for tokens in _tokens(text, tokenizer):
            counts.update(tokens)
    return counts


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _tokens(text: Text | Iterable[str], tokenizer: Tokenizer | None) -> Iterator[Iterable[str]]:
    """Yield the tokens of each piece of the text."""
    if not isinstance(text, Text):
        yield _strings(text)
        return
    boundary = AFTER_SPACE if tokenizer is None else AFTER_LINE
    for piece in [text] if isinstance(text, str) else split_at(text, boundary):
        yield _WORDS.findall(piece) if tokenizer is None else _strings(tokenizer(piece))


def _strings(tokens: Iterable[str]) -> list[str]:
    if not isinstance(tokens, Iterable):
        raise ArgumentError(
            f"Vocabulary: a text or a sequence of tokens is expected, got a {class_name(tokens)}"
        )
    tokens = list(tokens)
    for token in tokens:
        if not isinstance(token, str):
            raise DTypeError(
                f"Vocabulary: tokens are strings, got {type(token).__name__}: decode bytes first"
            )
    return tokens
