"""Texts by name or path, decoded, normalised and cleaned."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import unicodedata
import warnings
from pathlib import Path
from typing import Literal, NamedTuple

from ..._util.user_code import stacklevel
from ...errors import ArgumentError, MissingExtraError
from .text_file import Text, TextFile, pieces


class _Download(NamedTuple):
    url: str
    sha256: str


_GITHUB = "https://raw.githubusercontent.com"
_DOWNLOADS = {
    "time_machine": _Download(
        f"{_GITHUB}/d2l-ai/d2l-zh/592fbef84a684e752393edbf267c07dbc53e082b/data/timemachine.txt",
        "8424dbd9532ac81f7e5f0b6add90e6952baea29158309d7d1bf3884f4e12c516",
    ),
    "tiny_shakespeare": _Download(
        f"{_GITHUB}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
        "/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
}
_NAMES = ("python_docs", *_DOWNLOADS)


def corpus(
    name_or_path: str | os.PathLike[str],
    encoding: str = "utf-8-sig",
    clean: Literal["letters"] | None = None,
    normalize: Literal["NFC"] | None = None,
) -> str:
    r"""Return a text by its name or from a file.

    Parameters
    ----------
    name_or_path : str or path
        ``"python_docs"``: the reference text that ships inside every CPython, needs no download;
        ``"time_machine"`` (H. G. Wells, 1898) and ``"tiny_shakespeare"``: downloaded once with
        pooch (extra ``data``) and checked against their SHA-256; anything else is the path of a
        text file.
    encoding : str
        How the file is encoded. The default is UTF-8 with or without a byte order mark.
    clean : {"letters"}, optional
        ``"letters"`` replaces every run of characters other than A-Z and a-z by one space and
        lowers the case.
    normalize : {"NFC"}, optional
        Unicode normalisation; NFC makes one code point of a letter and its combining accents.

    Returns
    -------
    str
        The text, its line ends turned into ``"\n"``; normalised first, cleaned second.

    Raises
    ------
    FileNotFoundError
        If there is neither a corpus nor a file of that name.
    ArgumentError
        If the file is not in `encoding`, or an option is unknown.
    OSError
        If the download fails, with what to do instead.
    MissingExtraError
        If a download needs pooch and it is not installed.

    Warns
    -----
    UserWarning
        If cleaning drops more than a fifth of the characters that are not white space.

    See Also
    --------
    TextFile : a text that is too large for memory, or not wanted there.

    Notes
    -----
    ``clean="letters"`` is the cleaning of Zhang, Lipton, Li and Smola, Dive into Deep Learning,
    section "Converting Raw Text into Sequence Data". The first 10,000 characters of the cleaned
    Time Machine hold 27 distinct characters, which with the unknown token make a `Vocabulary` of
    28; those of the raw text hold 65 (66 with the unknown token).

    ``python_docs`` is ``pydoc_data.topics``, the topics in the order of their names. Topics repeat
    each other, so each paragraph (blank lines separate them) is kept once, at its first place;
    otherwise held-out text would occur in the training text. It differs by version of Python: print
    its `sha256` beside a result, and compare results between equal ones.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.data.text.corpus("python_docs", clean="letters")[:38]
    'the assert statement assert statements'
    """
    if clean not in (None, "letters"):
        raise ArgumentError(f"corpus: unknown clean={clean!r}: use None or 'letters'")
    if normalize not in (None, "NFC"):
        raise ArgumentError(f"corpus: unknown normalize={normalize!r}: use None or 'NFC'")
    if name_or_path == "python_docs":
        text = _python_docs()
        text = unicodedata.normalize(normalize, text) if normalize else text
    elif name_or_path in _DOWNLOADS:
        text = _read(_download(str(name_or_path)), encoding, normalize)
    else:
        text = _read(Path(name_or_path), encoding, normalize)
    return _letters(text) if clean else text


def sha256(text: Text) -> str:
    """Return the SHA-256 of a text: which text a result belongs to.

    Parameters
    ----------
    text : str or TextFile

    Returns
    -------
    str
        64 hexadecimal digits, the digest of the text in UTF-8.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.data.text.sha256("machine")[:16]
    'bc020a35b7f9cb13'
    """
    digest = hashlib.sha256()
    for piece in pieces(text):
        digest.update(piece.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _python_docs() -> str:
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name].strip("\n") for name in sorted(topics))
    paragraphs = re.split(r"\n\s*\n", text)
    return "\n\n".join(dict.fromkeys(paragraphs))


def _download(name: str) -> Path:
    try:
        pooch = importlib.import_module("pooch")
    except ImportError as error:
        raise MissingExtraError(
            f"corpus: downloading {name!r} needs pooch: pip install 'tinygrad-rnn[data]'"
        ) from error
    url, digest = _DOWNLOADS[name]
    try:
        path = pooch.retrieve(
            url,
            known_hash=f"sha256:{digest}",
            fname=f"{name}.txt",
            path=pooch.os_cache("tinygrad_rnn"),
        )
    except (OSError, ValueError) as error:  # no connection, or a file with another hash
        raise OSError(
            f"corpus: {name!r} could not be downloaded ({error}): download {url} by hand and "
            "pass the path of the file instead of the name"
        ) from error
    return Path(path)


def _read(path: Path, encoding: str, normalize: Literal["NFC"] | None) -> str:
    if not path.exists():
        raise FileNotFoundError(
            f"corpus: there is no file {str(path)!r}, and the corpora known by name are "
            f"{', '.join(_NAMES)}"
        )
    return TextFile(path, encoding, normalize).read()


def _letters(text: str) -> str:
    cleaned = re.sub("[^A-Za-z]+", " ", text).lower()
    before, after = (len("".join(t.split())) for t in (text, cleaned))
    if before - after > before / 5:
        warnings.warn(
            f"corpus: clean='letters' dropped {before - after:,} of the {before:,} characters "
            "that are not white space; it is meant for English prose: use clean=None",
            UserWarning,
            stacklevel=stacklevel(),
        )
    return cleaned
