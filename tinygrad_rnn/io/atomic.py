"""Atomic file replacement."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import ArgumentError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` when the ``with`` block ends without an error.

    The data are written to a hidden temporary file in the same directory, which is flushed to disk
    before it is renamed. So `path` is always the complete old file or the complete new one, even if
    the program is killed or the power fails. After an error (a full disk, Ctrl-C) the temporary
    file is removed; one left by a killed program is removed by the next call for the same path.

    Parameters
    ----------
    path : str or path
        The new file has the permissions of the existing one, or else the default permissions; its
        owner is the current user. A symbolic link is kept, and its target is replaced.

    Yields
    ------
    file
        Binary, open for reading and writing.

    Raises
    ------
    ArgumentError
        If `path` exists but is not a regular file: a directory, a device, a pipe.
    OSError
        If the system raises it: no such directory, no permission, a full disk. The old file is
        unchanged.

    Notes
    -----
    The sequence of fsync, rename and fsync of the directory is from Pillai and others, "All file
    systems are not created equal: on the complexity of crafting crash-consistent applications",
    2014.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import tinygrad_rnn as tg
    >>> path = pathlib.Path(tempfile.mkdtemp(), "figures.txt")
    >>> with tg.io.atomic_write(path) as file:
    ...     _ = file.write(b"42")
    >>> path.read_text()
    '42'
    """
    target = Path(os.path.realpath(path))
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    if mode is not None and not target.is_file():
        raise ArgumentError(
            f"atomic_write: {str(path)!r} is not a regular file: choose another path"
        )
    _remove_leftovers(target)
    new = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(new, flags, 0o666), "w+b") as file:
            with contextlib.suppress(OSError):  # not all file systems have locks
                _lock(file.fileno())
            if mode is not None:
                os.chmod(new, mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":
                file.close()  # Windows cannot rename an open file
            os.replace(new, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            new.unlink()
        if isinstance(error, OSError):
            error.add_note(f"{str(path)!r} was not written; the old file is unchanged")
        raise
    if os.name != "nt":  # flush the new directory entry too
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6
_TORCH = (
    "of PyTorch's torch.save: write safetensors.torch.save_file(model.state_dict(), path) there, "
    "which tinygrad_rnn.load_safetensors reads"
)


def describe_format(file: BinaryIO) -> str:
    """Identify the format of a file by its first bytes, and a function that reads it.

    Parameters
    ----------
    file : file
        Binary, open for reading.

    Returns
    -------
    str
        For an error message after "it is a file", such as ``"of numpy.save, which numpy.load
        reads"``; empty if the format is unknown.

    Notes
    -----
    Only the beginning of the file is read, so that truncated files are identified too.

    Examples
    --------
    >>> import io
    >>> import numpy as np
    >>> from tinygrad_rnn.io.atomic import describe_format
    >>> file = io.BytesIO()
    >>> np.save(file, np.zeros(3))
    >>> describe_format(file)
    'of numpy.save, which numpy.load reads'
    """
    file.seek(0)
    start = file.read(512)
    if start.startswith(b"PK\x03\x04"):
        name = start[30:].partition(b"\x00")[0]  # of the first member
        if name.startswith(b"tree.json"):
            return "of tinygrad_rnn.save, which tinygrad_rnn.load reads"
        if b".npy" in name:
            return "of numpy.savez, which numpy.load reads"
        return _TORCH if b"/data.pkl" in name or b"/.format_version" in name else ""
    if start.startswith(_LEGACY_TORCH):
        return _TORCH
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        return "of pickle, which pickle.load reads (and executes)"
    if start.startswith(b"\x93NUMPY"):
        return "of numpy.save, which numpy.load reads"
    if start.startswith(b"\x89HDF"):
        return "in the format HDF5, which h5py reads"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 100_000_000:
        return "in the format safetensors, which tinygrad_rnn.load_safetensors reads"
    return ""


def _remove_leftovers(target: Path) -> None:
    """Remove the temporary files of killed programs; files in use are locked by their writers."""
    for old in target.parent.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * 16}.tmp"):
        with contextlib.suppress(OSError):
            with open(old, "rb") as file:
                _lock(file.fileno())
            old.unlink()


def _lock(descriptor: int) -> None:
    """Lock a file until it is closed, or raise OSError; Windows locks open files by itself."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
