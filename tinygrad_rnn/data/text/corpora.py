"""Corpora by name or path: download, decoding, normalisation and cleaning."""

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
    r"""Return a corpus by its name, or the text of a file.

    Parameters
    ----------
    name_or_path : str or path
        ``"python_docs"``: the language reference that CPython contains, without a download;
        ``"time_machine"`` (H. G. Wells, 1898) and ``"tiny_shakespeare"``: downloaded once with
        pooch (extra ``data``) and verified by their SHA-256; any other string is the path of a text
        file.
    encoding : str
        The encoding of the file. The default is UTF-8 with or without a byte order mark.
    clean : {"letters"}, optional
        ``"letters"`` replaces each run of characters other than A-Z and a-z by one space and
        converts to lower case.
    normalize : {"NFC"}, optional
        Unicode normalisation; NFC composes a letter and its combining accents to one code point.

    Returns
    -------
    str
        The text with line ends ``"\n"``, normalised and then cleaned.

    Raises
    ------
    FileNotFoundError
        If `name_or_path` is neither a corpus nor a file.
    ArgumentError
        If the file is not in `encoding`, or an option is unknown.
    OSError
        If the download fails; the message has the address for a download by hand.
    MissingExtraError
        If a download needs pooch and it is not installed.

    Warns
    -----
    UserWarning
        If cleaning removes more than a fifth of the characters that are not white space.

    See Also
    --------
    TextFile : A text that is read from its file in pieces.

    Notes
    -----
    ``clean="letters"`` is the cleaning of Zhang, Lipton, Li and Smola, Dive into Deep Learning,
    section "Converting Raw Text into Sequence Data". The first 10,000 characters of the cleaned
    Time Machine have 27 distinct characters, which with the unknown token make a `Vocabulary` of
    28; those of the raw text have 65 (66 with the unknown token).

    ``python_docs`` is ``pydoc_data.topics``, sorted by topic. Topics repeat each other, so that
    only the first occurrence of each paragraph (between blank lines) is kept; otherwise held-out
    text would occur in the training text. The text depends on the version of Python: report its
    `sha256` with a result, and compare only results of equal texts.

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
    """Return the SHA-256 of a text, to identify the data of a result.

    Parameters
    ----------
    text : str or TextFile

    Returns
    -------
    str
        The digest of the text in UTF-8, 64 hexadecimal digits.

    Raises
    ------
    TypeError
        If `text` is neither a string nor an iterable of strings.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.data.text.sha256("machine")[:16]
    'bc020a35b7f9cb13'
    """
    digest = hashlib.sha256()
    for piece in pieces(text) if hasattr(text, "__iter__") else [text]:
        if not isinstance(piece, str):
            raise TypeError(
                "data.text.sha256: a text is a str, a TextFile or an iterable of strings, got "
                f"{text!r:.60}; bytes need .decode('utf-8')"
            )
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
    chosen = os.environ.get("XDG_CACHE_HOME")  # pooch reads it on Linux only
    folder = os.path.join(chosen, "tinygrad_rnn") if chosen else pooch.os_cache("tinygrad_rnn")
    try:
        path = pooch.retrieve(
            url,
            known_hash=f"sha256:{digest}",
            fname=f"{name}.txt",
            path=folder,
        )
    except (PermissionError, FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        raise OSError(
            f"corpus: {name!r} cannot be kept in {folder} ({error}): name another folder in the "
            f"environment variable XDG_CACHE_HOME, or download {url} by hand and pass the path of "
            "the file"
        ) from error
    except (OSError, ValueError) as error:  # no connection, or a file with another hash
        raise OSError(
            f"corpus: {name!r} could not be downloaded ({error}): download {url} by hand and "
            "pass the path of the file"
        ) from error
    return Path(path)


def _read(path: Path, encoding: str, normalize: Literal["NFC"] | None) -> str:
    if not path.exists():
        raise FileNotFoundError(
            f"corpus: file {str(path)!r} not found; the names of corpora are {', '.join(_NAMES)}"
        )
    return TextFile(path, encoding, normalize).read()


def _letters(text: str) -> str:
    cleaned = re.sub("[^A-Za-z]+", " ", text).lower()
    before, after = (len("".join(t.split())) for t in (text, cleaned))
    if before - after > before / 5:
        warnings.warn(
            f"corpus: clean='letters' removed {before - after:,} of the {before:,} characters "
            "that are not white space; it is meant for English prose: use clean=None",
            UserWarning,
            stacklevel=stacklevel(),
        )
    return cleaned
