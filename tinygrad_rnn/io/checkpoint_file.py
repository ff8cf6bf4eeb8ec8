"""Save and load the state of a run: exactly, atomically, without pickle.

A file is an ordinary ``.npz``: a zip archive, not compressed, of ``tree.json`` and of the arrays as
``arrays/0.npy``, ``arrays/1.npy``, ... in the order in which the tree names them. So it can be read
without this library, by NumPy and any unzip, in ten years too. What a zip archive leaves unguarded,
its headers, the comment at its end makes up for: the SHA-256 of every byte before it. The digest is
checked before anything is parsed, so that an altered file is never taken apart at all; what the
parsers meet after that is checked nevertheless, since anybody can compute a digest.

The tree is JSON. None, booleans, strings, lists, finite floats and integers of 64 bits stand for
themselves; everything else is an object with one key that says what it is::

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
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from .._util import LIBRARY
from .._util.api_hints import class_name
from ..engine import backend
from ..engine.backend import Array
from ..engine.tensor import Tensor
from ..errors import ArgumentError, CheckpointError, DTypeError
from .atomic import atomic_write, describe_format

_FORMAT = 1
_KINDS = "biufc"  # booleans, integers, floats, complex numbers; everything else needs pickle
_DEPTH = 64
_TREE = "tree.json"
_MARK = b"tinygrad_rnn sha256 "
_DIGEST = 64  # hexadecimal digits


def save(path: str | os.PathLike[str], /, *unnamed: Any, **state: Any) -> None:
    """Write the state of a run to a file, which `load` gives back exactly.

    The file is replaced as a whole or not at all: a full disk, Ctrl-C, a kill or a power failure at
    any moment leaves the one that was there before.

    Parameters
    ----------
    path : str or path
        An existing file gives its permissions to the new one; a symbolic link stays, and what it
        points to is replaced.
    **state
        What is saved, by name: nested dicts, lists and tuples of

        - arrays and Tensors of booleans and numbers, in any memory layout, on any device;
        - bool, int, float, complex, str, None and NumPy's scalars;
        - whatever has a ``state_dict()``: modules, optimisers, schedulers, vocabularies, streams
          of minibatches;
        - ``numpy.random.Generator``, for the library's own ``tg.random.get_state()``.

        The keys of dicts are strings or integers. Subclasses are saved as what they derive from: a
        named tuple as a tuple, a memory map as an array.

    Raises
    ------
    ArgumentError
        If something cannot be saved, which the message names by its place. No file was touched.
    DTypeError
        If an array holds something else than booleans and numbers.
    OSError
        If the system refuses to write. What was there before is there still.

    See Also
    --------
    load : Read it again.

    Notes
    -----
    A run that is saved and resumed gives bit for bit the parameters of the run that was not
    interrupted, if everything that changes is saved: model, optimiser, scheduler, stream, carried
    state and random numbers; on the same machine, with the same number of threads and the same
    versions of Python, NumPy and this library (`versions` tells them).

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
            "save: the path comes first, then what is saved, by name: "
            "tg.save('run.ckpt', model=model, optimizer=optimizer)"
        )
    arrays: list[Array] = []
    tree = {
        "format": _FORMAT,
        "versions": {
            # The package is above this module in the order of imports, and loaded before it.
            "tinygrad_rnn": sys.modules[LIBRARY].__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "state": _encode(state, "", arrays, 0),
    }
    # Python's strings may hold surrogates, alone or in pairs, and get them back only in this way.
    text = json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    with atomic_write(path) as file:
        _write(file, text.encode("utf-8", "surrogatepass"), arrays)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `save` wrote: dicts, lists and tuples of NumPy arrays, numbers, strings and None.

    Nothing of the file is run, and nothing is written. What had a ``state_dict()`` comes back as
    that dict, for its ``load_state_dict``.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    dict
        The state by name. Values, dtypes and byte orders are those that were saved, and arrays lie
        in memory with the axes in the same order; they own their memory and can be written to.

    Raises
    ------
    CheckpointError
        If the file is cut off, altered, of a newer format, or was not written by `save`.
    OSError
        If there is no such file, or the system refuses to read it.

    See Also
    --------
    save : With an example of how to go on with a run.

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
    return _read(path, lambda tree, arrays: _decode(tree["state"], arrays))


def versions(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the versions of this library, of NumPy and of Python that wrote a file.

    Parameters
    ----------
    path : str or path
        What `save` wrote.

    Returns
    -------
    dict
        ``"tinygrad_rnn"``, ``"numpy"`` and ``"python"``. A run resumes to the same bit if they are
        the same now.

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
    """Return a value as JSON, and its arrays at the end of `arrays`; `where` names its place."""
    if depth > _DEPTH:
        raise ArgumentError(
            f"save: {where[:80]}... is more than {_DEPTH} levels deep: does it hold itself?"
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
    # The axes from the slowest to the fastest: matrix products of the same numbers in another
    # memory layout may differ in the last bit.
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
        return {_decode(key, arrays): _decode(item, arrays) for key, item in content}
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
        # A date that is always the same: equal states are equal files.
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
    """Return ``use(tree, arrays)`` of a file; whatever is wrong with it is a CheckpointError."""
    name = str(path)
    if not isinstance(path, str | bytes | os.PathLike):
        raise ArgumentError(f"load: the path of a file is expected, got a {class_name(path)}")
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        tail = len(_MARK) + _DIGEST
        file.seek(max(0, size - tail))
        mark, stated = (end := file.read(tail))[:-_DIGEST], end[-_DIGEST:]
        if mark != _MARK:
            made = describe_format(file)
            file.seek(0)
            start = file.read(8)
            seen = "is empty" if not size else f"begins with {start!r} and does not end as ours do"
            what = "cut off, or not written by tg.save: use an older checkpoint, or what the file "
            what += "was written for"
            if made and "tinygrad_rnn.save" not in made:
                what = f"not written by tg.save: it is a file {made}"
            raise CheckpointError(f"load: {name!r} ({size:,} bytes) {seen}: it was {what}")
        computed = _digest(file, size - _DIGEST)
        if computed != stated:
            raise CheckpointError(
                f"load: {name!r} ({size:,} bytes) was altered after it was saved: it states the "
                f"SHA-256 {stated[:12]!r}..., and has {computed[:12]!r}...: use an older checkpoint"
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
        # The digest is right, so somebody made the file on purpose. Each parser has exceptions of
        # its own for what it does not like, down to RecursionError.
        except Exception as error:
            raise CheckpointError(
                f"load: {name!r} ({size:,} bytes) cannot be read ({type(error).__name__}: {error}) "
                "though its SHA-256 is right: it was not written by tg.save, or memory is short"
            ) from error


def _arrays(archive: zipfile.ZipFile, limit: int) -> Iterator[Array]:
    """Yield the arrays in their order, each once; all together are no larger than the file."""
    for i in itertools.count():
        member = _member(archive, _array_name(i), limit)
        limit -= len(member)  # members of a zip archive may overlap
        header = io.BytesIO(member)
        np.lib.format.read_magic(header)
        shape, _, dtype = np.lib.format.read_array_header_1_0(header)
        stored = memoryview(member)[header.tell() :]
        if dtype.kind not in _KINDS or math.prod(shape) * dtype.itemsize != len(stored):
            raise ValueError(f"array {i} is {dtype} {shape} in {len(stored):,} bytes")
        yield np.ndarray(shape, dtype, stored).copy()


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Return the bytes of a member that is not larger than `limit`, as none that we wrote is."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or max(info.file_size, info.compress_size) > limit:
        raise ValueError(f"{name} is compressed, or of {info.file_size:,} bytes")
    return archive.read(info)
