"""Save and load the state of a run: exactly, atomically, without pickle.

A file is an ordinary ``.npz``: an uncompressed zip archive of ``tree.json`` and of the arrays as
``arrays/0.npy``, ``arrays/1.npy``, ... in the order of their occurrence in the tree. So NumPy and
any unzip program can read it without this library. The zip format has checksums of its members but
not of its headers; therefore the comment at the end of the archive holds the SHA-256 of all bytes
before it. The digest is checked before anything is parsed, so that a corrupted file is never
parsed. The parsers validate their input all the same, since a valid digest can be forged.

The tree is JSON. None, booleans, strings, lists, finite floats and 64-bit integers are encoded as
themselves; every other value is an object with one key, the type::

    {"dict": [[key, value], ...]}    {"tuple": [...]}            {"array": [axes]}
    {"int": "0x..."}                 {"float": "<8 bytes, hex>"} {"scalar": []}
    {"complex": [re, im]}
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import os
import platform
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from .._util import LIBRARY
from .._util.api_hints import class_name
from .._util.user_code import stacklevel
from ..engine import backend
from ..engine.backend import Array
from ..engine.tensor import Tensor
from ..errors import ArgumentError, CheckpointError, DTypeError, ExecutorWarning
from ..recurrence import loop
from .atomic import atomic_write, describe_format

_FORMAT = 1
_KINDS = "biufc"  # booleans, integers, floats, complex numbers: all other dtypes need pickle
_DEPTH = 64
_TREE = "tree.json"
_MARK = b"tinygrad_rnn sha256 "
_DIGEST = 64  # hexadecimal digits

_VOCABULARY = {"level", "tokens", "has_tokenizer"}  # the keys of its state

_warned: list[str] = []  # files of another executor


class _Vocabulary(dict[str, Any]):
    """The state of a vocabulary, a dict, which tells how to make the vocabulary of it."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"load: this is the state of a vocabulary, a dict without {name!r}: make the "
            "vocabulary by tinygrad_rnn.data.text.Vocabulary.from_state_dict(state)"
        )


def save(path: str | os.PathLike[str], /, *unnamed: Any, **state: Any) -> None:
    """Write the state of a run to a file, which `load` restores exactly.

    The file is replaced atomically: after a full disk, Ctrl-C, a kill or a power failure the old
    file is unchanged.

    Parameters
    ----------
    path : str or path
        The new file has the permissions of an existing one; a symbolic link is kept, and its target
        is replaced.
    **state
        The parts of the state, by name: nested dicts, lists and tuples of

        - arrays and Tensors of booleans and numbers, in any memory layout, on any device;
        - bool, int, float, complex, str, None and NumPy's scalars;
        - objects with a ``state_dict()``: modules, optimisers, schedulers, vocabularies, iterators
          over minibatches;
        - ``numpy.random.Generator``; for the library's own generator use ``tg.random.get_state()``.

        The keys of dicts are strings or integers. Subclasses are saved as their base class: a named
        tuple as a tuple, a memory map as an array.

    Raises
    ------
    ArgumentError
        If a value cannot be saved; the message has its path in the state. No file was changed.
    DTypeError
        If the elements of an array are neither booleans nor numbers.
    OSError
        If writing fails. The old file is unchanged.

    See Also
    --------
    load : The inverse.

    Notes
    -----
    A run that is saved and resumed gives bit for bit the parameters of an uninterrupted run, if
    everything that changes is saved: model, optimiser, scheduler, minibatch iterator, carried
    state and random generator; on the same machine, with the same executor (`fuse.backend`), the
    same number of NumPy's threads and the same versions of Python, NumPy and this library (see
    `versions`).

    Examples
    --------
    >>> import os, tempfile
    >>> import tinygrad_rnn as tg
    >>> path = os.path.join(tempfile.mkdtemp(), "run.ckpt")
    >>> model = tg.nn.Linear(2, 1)
    >>> adam = tg.optim.Adam(model.parameters())
    >>> tg.save(path, model=model, adam=adam, random=tg.random.get_state(), epoch=3)
    >>> saved = tg.load(path)
    >>> saved["epoch"], list(saved["model"])
    (3, ['weight', 'bias'])
    >>> model.load_state_dict(saved["model"])
    LoadReport(missing=[], unexpected=[])
    >>> adam.load_state_dict(saved["adam"])
    >>> tg.random.set_state(saved["random"])
    """
    if unnamed or not isinstance(path, str | os.PathLike):
        raise ArgumentError(
            "save: pass the path, then each part of the state by name: "
            "tg.save('run.ckpt', model=model, optimizer=optimizer)"
        )
    arrays: list[Array] = []
    tree = {
        "format": _FORMAT,
        "versions": {
            # Not imported: this module is below the package in the layers, and loaded after it.
            "tinygrad_rnn": sys.modules[LIBRARY].__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "executor": loop.executor(),
        },
        "state": _encode(state, "", arrays, 0),
    }
    # "surrogatepass": strings may contain surrogates, alone or in pairs.
    text = json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    with atomic_write(path) as file:
        _write(file, text.encode("utf-8", "surrogatepass"), arrays)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file of `save`: dicts, lists and tuples of NumPy arrays, numbers, strings and None.

    No code of the file is executed. An object that was saved by its ``state_dict()`` is returned as
    that dict, the argument of ``load_state_dict``.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    dict
        The state by name. Values, dtypes, byte orders and the order of the axes in memory are those
        that were saved. Arrays own their memory and are writable.

    Raises
    ------
    CheckpointError
        If the file is truncated, corrupted, of a newer format, or was not written by `save`.
    OSError
        If the file does not exist or cannot be read.

    Warns
    -----
    ExecutorWarning
        Once per process, if a file was saved under another executor (`fuse.backend`, and the width
        of its vectors): a run that is resumed from it has other rounding errors.

    See Also
    --------
    save : The inverse, with an example that resumes a run.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> path = os.path.join(tempfile.mkdtemp(), "run.ckpt")
    >>> tg.save(path, losses=[2.5, 1.25], state=(np.zeros(2), None))
    >>> tg.load(path)
    {'losses': [2.5, 1.25], 'state': (array([0., 0.]), None)}
    """
    state, wrote = _read(
        path,
        lambda tree, arrays: (_decode(tree["state"], arrays), tree["versions"].get("executor")),
    )
    if wrote is not None and wrote != loop.executor() and not _warned:
        _warned.append(str(path))
        warnings.warn(
            f"load: {str(path)!r} was saved under the executor {wrote!r:.60}, and this process has "
            f"{loop.executor()!r}: a resumed run differs by rounding errors from one that was not "
            "interrupted; TINYGRAD_RNN_C=0 in the environment selects 'numpy', 1 selects 'c'",
            ExecutorWarning,
            stacklevel=stacklevel(),
        )
    return state


def check_state(state: dict[str, Any]) -> None:
    """Raise as `save` would for a state that cannot be saved; nothing is written."""
    _encode(state, "", [], 0)


def versions(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the versions of this library, of NumPy and of Python, and the executor, of a file.

    Parameters
    ----------
    path : str or path
        A file written by `save`.

    Returns
    -------
    dict
        ``"tinygrad_rnn"``, ``"numpy"``, ``"python"`` and ``"executor"`` (`fuse.backend`, and the
        width of its vectors). A resumed run is bit for bit reproducible only with the same ones.

    Raises
    ------
    CheckpointError, OSError
        As `load`.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> path = os.path.join(tempfile.mkdtemp(), "run.ckpt")
    >>> tg.save(path, epoch=3)
    >>> tg.io.versions(path)["numpy"] == np.__version__
    True
    """
    return _read(path, lambda tree, arrays: dict(tree["versions"]))


# -- the tree --------------------------------------------------------------------------------------


def _encode(value: Any, where: str, arrays: list[Array], depth: int) -> Any:
    """Return a value as JSON and append its arrays; `where` is its path in the state."""
    if depth > _DEPTH:
        raise ArgumentError(
            f"save: {where[:80]}... is more than {_DEPTH} levels deep: does it contain itself?"
        )
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Tensor):
        value = value._data
    if backend.is_array(value):
        return _encode_array(value, where, arrays)
    if isinstance(value, int):
        return int(value) if abs(value) < 2**63 else {"int": hex(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}
    if isinstance(value, np.random.Generator):
        value = value.bit_generator.state
    elif not isinstance(value, type) and callable(getattr(value, "state_dict", None)):
        value = value.state_dict()

    def inner(key: Any, item: Any) -> Any:
        return _encode(item, f"{where}[{key!r}]" if where else key, arrays, depth + 1)

    if isinstance(value, complex):
        return {"complex": [inner("real", value.real), inner("imag", value.imag)]}
    if isinstance(value, dict):
        for key in value:
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise ArgumentError(f"save: {where} has the key {key!r}: use strings or integers")
        return {"dict": [[inner("key", key), inner(key, item)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [inner(i, item) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise ArgumentError(
        f"save: {where} is a {kind}: dicts, lists and tuples of arrays, numbers, strings, None and "
        "objects with a state_dict() can be saved"
    )


def _encode_array(value: Array, where: str, arrays: list[Array]) -> dict[str, list[int]]:
    if isinstance(value, np.ma.MaskedArray) or value.dtype.kind not in _KINDS:
        kind = "masked" if isinstance(value, np.ma.MaskedArray) else value.dtype
        raise DTypeError(f"save: {where} is an array of {kind}: booleans and numbers can be saved")
    # Axes by decreasing stride: matrix products of the same numbers in another memory layout may
    # differ in the last bit.
    axes = sorted(range(value.ndim), key=lambda axis: -abs(value.strides[axis]))
    arrays.append(np.asarray(backend.to_numpy(value.transpose(axes)), order="C"))
    return {"scalar" if isinstance(value, np.generic) else "array": axes}


def _decode(node: Any, arrays: Iterator[Array]) -> Any:
    """Return the value of a node; `arrays` yields the arrays in the order of the tree."""
    if isinstance(node, list):
        return [_decode(item, arrays) for item in node]
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    if kind == "dict":
        items = {_decode(key, arrays): _decode(item, arrays) for key, item in content}
        return _Vocabulary(items) if items.keys() == _VOCABULARY else items
    if kind == "tuple":
        return tuple(_decode(content, arrays))
    if kind == "array":
        array = next(arrays)
        if sorted(content) != list(range(array.ndim)):
            raise ValueError(f"axes {content!r} of an array of {array.ndim}")
        return array.transpose(np.argsort(content))
    if kind == "scalar":
        return next(arrays)[()]
    if kind == "complex":
        return complex(*_decode(content, arrays))
    if kind == "float":
        return struct.unpack(">d", bytes.fromhex(content))[0]
    if kind == "int":
        return int(content, 16)
    raise ValueError(f"unknown node {kind!r}")


# -- the file --------------------------------------------------------------------------------------


def _write(file: BinaryIO, tree: bytes, arrays: list[Array]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        archive.comment = _MARK + b"0" * _DIGEST
        # ZipInfo has a constant date, so that equal states give equal files.
        archive.writestr(zipfile.ZipInfo(_TREE), tree)
        for i, array in enumerate(arrays):
            info = zipfile.ZipInfo(_array_name(i))
            with archive.open(info, "w", force_zip64=array.nbytes >= 2**30) as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
    digest = _digest(file, file.tell() - _DIGEST)
    file.seek(-_DIGEST, os.SEEK_END)
    file.write(digest)


def _array_name(i: int) -> str:
    return f"arrays/{i}.npy"


def _digest(file: BinaryIO, length: int) -> bytes:
    """Return the digest of the first `length` bytes."""
    sha256 = hashlib.sha256()
    file.seek(0)
    while length and (chunk := file.read(min(length, 2**20))):
        sha256.update(chunk)
        length -= len(chunk)
    return sha256.hexdigest().encode()


def _read(path: str | os.PathLike[str], use: Callable[[Any, Iterator[Array]], Any]) -> Any:
    """Return ``use(tree, arrays)`` of a file; every fault of it raises a CheckpointError."""
    name = str(path)
    if not isinstance(path, str | bytes | os.PathLike):
        raise ArgumentError(f"load: the path of a file is expected, got a {class_name(path)}")
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        tail = len(_MARK) + _DIGEST
        file.seek(max(0, size - tail))
        mark, stated = (end := file.read(tail))[:-_DIGEST], end[-_DIGEST:]
        if mark != _MARK:
            format_ = describe_format(file)
            file.seek(0)
            start = file.read(8)
            seen = f"begins with {start!r} and lacks the SHA-256 at the end" if size else "is empty"
            cause = "truncated, or not written by tg.save: use an older checkpoint, or the program "
            cause += "that wrote the file"
            if format_ and "tinygrad_rnn.save" not in format_:
                cause = f"not written by tg.save: it is a file {format_}"
            raise CheckpointError(f"load: {name!r} ({size:,} bytes) {seen}: it was {cause}")
        computed = _digest(file, size - _DIGEST)
        if computed != stated:
            raise CheckpointError(
                f"load: {name!r} ({size:,} bytes) was altered after it was saved: its SHA-256 is "
                f"{computed[:12]!r}..., and was {stated[:12]!r}...: use an older checkpoint"
            )
        try:
            with zipfile.ZipFile(file) as archive:
                tree = json.loads(_member(archive, _TREE, size).decode("utf-8", "surrogatepass"))
                if tree["format"] != _FORMAT:
                    raise CheckpointError(
                        f"load: {name!r} has format {tree['format']!r}, written by tinygrad_rnn "
                        f"{tree['versions']['tinygrad_rnn']}; this one reads format {_FORMAT}: "
                        "load it with that version"
                    )
                return use(tree, _arrays(archive, size))
        except CheckpointError:
            raise
        # A file with a valid digest was made by another program. The parsers raise exceptions of
        # many classes, down to RecursionError.
        except Exception as error:
            raise CheckpointError(
                f"load: {name!r} ({size:,} bytes) cannot be read ({type(error).__name__}: {error}) "
                "though its SHA-256 is right: it was not written by tg.save, or memory is exhausted"
            ) from error


def _arrays(archive: zipfile.ZipFile, limit: int) -> Iterator[Array]:
    """Yield the arrays in order, each once; raise if their total size exceeds that of the file."""
    for i in itertools.count():
        member = _member(archive, _array_name(i), limit)
        limit -= len(member)  # members of a forged archive may overlap
        header = io.BytesIO(member)
        np.lib.format.read_magic(header)
        shape, _, dtype = np.lib.format.read_array_header_1_0(header)
        stored = memoryview(member)[header.tell() :]
        if dtype.kind not in _KINDS or math.prod(shape) * dtype.itemsize != len(stored):
            raise ValueError(f"array {i} is {dtype} {shape} in {len(stored):,} bytes")
        yield np.ndarray(shape, dtype, stored).copy()


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Return the bytes of a member; raise if it is compressed or larger than `limit`."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or max(info.file_size, info.compress_size) > limit:
        raise ValueError(f"{name} is compressed, or of {info.file_size:,} bytes")
    return archive.read(info)
