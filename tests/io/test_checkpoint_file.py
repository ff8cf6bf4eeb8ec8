"""What is saved comes back to the bit, and a file that is not whole is never taken for one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import io
import json
import math
import os
import pickle
import stat
import struct
import subprocess
import sys
import textwrap
import tracemalloc
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, CheckpointError, DTypeError
from tinygrad_rnn.io import atomic as files
from tinygrad_rnn.io import checkpoint_file as saving
from tinygrad_rnn.recurrence import loop

# -- what can be saved -----------------------------------------------------------------------------

DTYPES = [
    np.dtype(code).newbyteorder(order)
    for code in "?bBhHiIlLqQefdgFDG"
    for order in ("<>" if np.dtype(code).itemsize > 1 else "=")
]


@st.composite
def arrays(draw: Any) -> np.ndarray:
    """Draw arrays of any bits, also those of signalling nans, in any memory layout."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3))
    count = math.prod(shape) * dtype.itemsize
    data = draw(st.binary(min_size=count, max_size=count))
    array = np.frombuffer(data, dtype).reshape(shape) if count else np.empty(shape, dtype)
    if dtype.kind == "b":
        array = np.asarray(np.frombuffer(data, np.uint8).reshape(shape) % 2 == 1)
    for axis in range(array.ndim):
        layout = draw(st.sampled_from(["", "", "reversed", "every second"]))
        if layout == "reversed":
            array = np.flip(array, axis)
        elif layout:
            array = np.repeat(array, 2, axis)[(slice(None),) * axis + (slice(None, None, 2),)]
    array = array.transpose(draw(st.permutations(range(array.ndim))))
    if draw(st.booleans()):
        array = np.broadcast_to(array, (2, *array.shape))
    return array


TEXT = st.text(st.characters()) | st.text(st.sampled_from('\ud83d\ude00😀é\0"\\{'))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.integers(0, 100).map(lambda n: 10**n * 7**500)
    | st.binary(min_size=8, max_size=8).map(lambda b: struct.unpack("<d", b)[0])
    | st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324])
    | st.complex_numbers()
    | TEXT
    # A scalar of longdouble has bytes that mean nothing, and they differ from copy to copy.
    | arrays().filter(lambda a: a.size and a.dtype.char not in "gG").map(lambda a: a.flat[0])
)
KEYS = TEXT | st.integers() | st.sampled_from(["dict", "../a"])
TREES = st.recursive(
    SCALARS | arrays(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=12,
)


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


def same(a: Any, b: Any) -> bool:
    """Tell whether two trees are of the same types and hold the same bits."""
    if isinstance(a, np.generic) and isinstance(b, np.generic):  # long and long long are int64
        return (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())
    if type(a) is not type(b) and not (isinstance(a, dict) and isinstance(b, dict)):
        return False
    if isinstance(a, np.ndarray):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, float):
        return bits(a) == bits(b)
    if isinstance(a, complex):
        return bits(a.real) + bits(a.imag) == bits(b.real) + bits(b.imag)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Nothing here outlives the machine's power; the order of the calls has a test of its own."""
    with mock.patch.object(os, "fsync"):
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saving") / "run.ckpt"


@given(st.dictionaries(st.text(), TREES, max_size=3))
def test_a_tree_comes_back_to_the_bit(file: Path, state: dict[str, Any]) -> None:
    tg.save(file, **state)
    assert same(tg.load(file), state)
    first = file.read_bytes()
    tg.save(file, **state)
    assert file.read_bytes() == first, "equal states are equal files"
    assert os.listdir(file.parent) == [file.name]


@given(arrays())
def test_an_array_keeps_its_memory_layout_and_is_the_callers(file: Path, array: Any) -> None:
    tg.save(file, a=array)
    loaded = tg.load(file)["a"]
    assert loaded.flags.writeable and loaded.base.flags.owndata
    strides = np.abs(array.strides)
    axes = [axis for axis in range(array.ndim) if array.shape[axis] > 1]
    if array.size and len(set(strides[axes])) == len(axes):
        assert sorted(axes, key=lambda i: strides[i]) == sorted(
            axes, key=lambda i: loaded.strides[i]
        )


def test_an_integer_has_no_limit(file: Path) -> None:
    value = -(3**20_000)  # Python itself refuses to print it, so hypothesis could not either
    tg.save(file, x=value)
    assert (tg.load(file)["x"] == value) is True


def test_a_longdouble_keeps_its_value(file: Path) -> None:
    value = np.nextafter(np.longdouble(1), np.longdouble(2))
    tg.save(file, x=value, z=np.clongdouble(value))
    loaded = tg.load(file)
    assert loaded == {"x": value, "z": value} and type(loaded["x"]) is np.longdouble


def test_what_derives_from_something_simple_is_saved_as_that(file: Path) -> None:
    pair = namedtuple("pair", "a b")(1, [2])
    memory = np.memmap(file.with_suffix(".map"), np.int16, "w+", shape=(2, 3))
    memory[:] = 7
    tensor = tg.tensor([1.5, 2.5], requires_grad=True)
    state = {"pair": pair, "memory": memory, "tensor": tensor, "computed": (tensor * 2).T}
    tg.save(file, path="not the file", str=np.str_("s"), **state)
    loaded = tg.load(file)
    assert loaded["path"] == "not the file" and loaded["str"] == "s"
    assert same(loaded["pair"], (1, [2]))
    assert same(loaded["memory"], np.full((2, 3), 7, np.int16))
    assert same(loaded["tensor"], np.array([1.5, 2.5], np.float32))
    assert same(loaded["computed"], np.array([3, 5], np.float32))
    del memory
    file.with_suffix(".map").unlink()


def test_whatever_has_a_state_dict_is_saved_as_it(file: Path) -> None:
    model = tg.nn.Sequential(tg.nn.Linear(2, 3), tg.nn.LayerNorm(3))
    adam = tg.optim.Adam(model.parameters(), lr=0.1)
    model(tg.ones(4, 2)).sum().backward()
    adam.step()
    rule = tg.optim.schedule.Scheduler(adam, tg.optim.schedule.exponential(0.9))
    stream = tg.data.text.random(np.arange(50), 2, 5)
    next(stream)
    vocabulary = tg.data.text.Vocabulary("a machine")
    metric = tg.metrics.Perplexity()
    metric.update(0.3, 7)
    objects = [model, adam, rule, stream, vocabulary, metric]
    tg.save(file, objects=objects, nested={"again": (adam,)})
    loaded = tg.load(file)
    assert same(loaded["objects"], [thing.state_dict() for thing in objects])
    assert same(loaded["nested"], {"again": (adam.state_dict(),)})
    assert tg.data.text.Vocabulary.from_state_dict(loaded["objects"][4]).tokens == vocabulary.tokens


@pytest.mark.parametrize("kind", ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"])
def test_generators_go_on_where_they_were(file: Path, kind: str) -> None:
    rng = np.random.Generator(getattr(np.random, kind)(1))
    rng.integers(2**32, size=3, dtype=np.uint32)  # leaves half a word behind
    tg.randn(3)
    tg.save(file, rng=rng, library=tg.random.generator(), state=tg.random.get_state())
    expected = rng.random(9), tg.randn(9).numpy()
    loaded = tg.load(file)
    again = np.random.Generator(getattr(np.random, kind)(2))
    again.bit_generator.state = loaded["rng"]
    assert same(again.random(9), expected[0])
    for state in (loaded["library"], loaded["state"]):
        tg.random.set_state(state)
        assert same(tg.randn(9).numpy(), expected[1])


def test_the_file_can_be_read_without_the_library(file: Path) -> None:
    tg.save(file, a=np.arange(3), deep=[{"b": np.eye(2)}])
    with np.load(file, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["arrays/0"], np.arange(3))
        np.testing.assert_array_equal(archive["arrays/1"], np.eye(2))
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert json.loads(archive.read("tree.json"))["state"]["dict"][0] == ["a", {"array": [0]}]
    assert saving.versions(file) == {
        "tinygrad_rnn": tg.__version__,
        "numpy": np.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "executor": loop.executor(),
    }


def nested(levels: int) -> list[Any]:
    tree: list[Any] = []
    for _ in range(levels):
        tree = [tree]
    return tree


CYCLE: dict[str, Any] = {}
CYCLE["self"] = [CYCLE]
MISTAKES: list[tuple[Callable[[Path], Any], type[Exception], str]] = [
    (lambda f: tg.save(f, x=object()), ArgumentError, "x is a builtins.object"),
    (lambda f: tg.save(f, x=[1, {"y": {2}}]), ArgumentError, r"x\[1\]\['y'\] is a builtins.set"),
    (lambda f: tg.save(f, x=b"bytes"), ArgumentError, "x is a builtins.bytes"),
    (lambda f: tg.save(f, x=tg.nn.Linear), ArgumentError, "x is a builtins.type"),
    (lambda f: tg.save(f, x={1.5: 2}), ArgumentError, "x has the key 1.5: use strings"),
    (lambda f: tg.save(f, x={True: 2}), ArgumentError, "x has the key True: use strings"),
    (
        lambda f: tg.save(f, x=CYCLE),
        ArgumentError,
        "more than 64 levels deep: does it contain itself",
    ),
    (lambda f: tg.save(f, x=np.array(["a"])), DTypeError, "x is an array of <U1"),
    (lambda f: tg.save(f, x=np.array([None])), DTypeError, "x is an array of object"),
    (lambda f: tg.save(f, x=np.zeros(2, "M8[s]")), DTypeError, "x is an array of datetime64"),
    (lambda f: tg.save(f, x=np.zeros(2, "i4,f4")), DTypeError, "x is an array of"),
    (lambda f: tg.save(f, x=np.ma.masked_array([1, 2])), DTypeError, "x is an array of masked"),
    (lambda f: tg.save(f, tg.nn.Linear(1, 1)), ArgumentError, "by name: tg.save"),
    (lambda f: tg.save(tg.nn.Linear(1, 1), f), ArgumentError, "pass the path, then"),
    (lambda f: tg.save(f.parent, x=1), ArgumentError, "is not a regular file"),
    (lambda f: tg.save("/dev/null", x=1), ArgumentError, "is not a regular file"),
    (lambda f: tg.save(f.parent / "no" / "x", x=1), FileNotFoundError, "no"),
    (lambda f: tg.load(f.parent / "no"), FileNotFoundError, "no"),
    (lambda f: tg.load(f.parent), IsADirectoryError, "directory"),
]


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES)
def test_what_cannot_be_saved_is_named_and_the_file_stays(
    file: Path, mistake: Callable[[Path], Any], error: type[Exception], message: str
) -> None:
    tg.save(file, good=1)
    with pytest.raises(error, match=message):
        mistake(file)
    assert tg.load(file) == {"good": 1}
    assert os.listdir(file.parent) == [file.name]


def test_the_deepest_tree_that_is_saved_loads(file: Path) -> None:
    tg.save(file, x=nested(63))
    assert tg.load(file) == {"x": nested(63)}


def test_names_are_keys_and_reach_no_file(tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    names = ["../../evil", "/tmp/evil", "..\\evil", "C:\\evil", "a/../../evil", "\0", "~/evil", ""]
    state = {name: {name: np.arange(2)} for name in names}
    tg.save(inside / "x", **state)
    assert same(tg.load(inside / "x"), state)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [inside / "x"]
    with zipfile.ZipFile(inside / "x") as archive:
        assert archive.namelist() == ["tree.json", *(f"arrays/{i}.npy" for i in range(len(names)))]


# -- a file that is not whole ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "run.ckpt"
    counts = {name: np.arange(n, dtype=np.uint8) for n, name in enumerate("abcd")}
    tg.save(path, counts=counts, b=[1, 2.5, "x", None, 2**80], c=np.zeros((0, 2)), d=3 + 1j)
    return path


def test_a_file_cut_off_anywhere_is_refused(small: Path) -> None:
    whole, cut = small.read_bytes(), small.with_name("cut")
    cut.write_bytes(whole)
    tg.load(cut)
    for length in reversed(range(len(whole))):
        os.truncate(cut, length)
        with pytest.raises(CheckpointError, match="truncated, or not written by"):
            tg.load(cut)


def test_every_single_flipped_bit_is_found(small: Path) -> None:
    whole, flipped = bytearray(small.read_bytes()), small.with_name("flipped")
    assert len(whole) * 8 > 10_000
    with open(flipped, "w+b", buffering=0) as file:
        file.write(whole)
        for position in range(len(whole) * 8):
            byte, bit = divmod(position, 8)
            os.pwrite(file.fileno(), bytes([whole[byte] ^ 1 << bit]), byte)
            with pytest.raises(CheckpointError, match=r"flipped.* (altered|truncated)"):
                tg.load(flipped)
            os.pwrite(file.fileno(), whole[byte : byte + 1], byte)
    tg.load(flipped)


@given(st.data())
def test_bytes_added_lost_moved_or_overwritten_are_found(small: Path, data: Any) -> None:
    whole, path = small.read_bytes(), small.with_name("changed")
    i, j = sorted(data.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    changed = whole[:i] + data.draw(st.binary(max_size=50)) + whole[j:]
    path.write_bytes(changed)
    if changed == whole:
        tg.load(path)
        return
    with pytest.raises(CheckpointError):
        tg.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"0 bytes\) is empty"),
        (b"{}", "begins with b'{}'"),
        (pickle.dumps({"a": 1}), "not written by tg.save"),
        (bytes(100_000), "not written by tg.save"),
        (b"tinygrad_rnn sha256 " + b"0" * 64, "altered"),
        (
            b"tinygrad_rnn sha256 " + hashlib.sha256(b"tinygrad_rnn sha256 ").hexdigest().encode(),
            "BadZip",
        ),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        tg.load(tmp_path / "x")


def test_numpys_own_archives_are_something_else(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.arange(3))
    with pytest.raises(CheckpointError, match=r"begins with b'PK.*not written by tg.save"):
        tg.load(tmp_path / "x.npz")


def test_other_formats_name_what_reads_them(tmp_path: Path) -> None:
    state = {"weight": np.ones((2, 2), np.float32)}
    header = json.dumps({"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}).encode()
    contents: dict[str, tuple[bytes, str]] = {
        "pickle": (pickle.dumps(state), r"pickle\.load reads"),
        "safetensors": (len(header).to_bytes(8, "little") + header, "load_safetensors reads"),
        "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "h5py reads"),
        "old torch": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02", r"torch\.save"),
    }
    for name, save in (("npy", np.save), ("npz", np.savez), ("packed npz", np.savez_compressed)):
        file = io.BytesIO()
        save(file, *([state["weight"]]))
        contents[name] = file.getvalue(), r"numpy\.load reads"
    for name, (content, match) in contents.items():
        path = tmp_path / name
        for length in (len(content), len(content) - 1):  # also if it was cut off
            path.write_bytes(content[:length])
            for read in (tg.load, tg.io.checkpoint_file.versions):
                with pytest.raises(
                    CheckpointError, match=f"load: .*not written by tg.save.*{match}"
                ):
                    read(path)


@pytest.mark.oracle
def test_pytorchs_files_name_what_reads_them(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(2, 3)
    for name, saved, zipped in (
        ("state.pt", model.state_dict(), True),
        ("model.pth", model, True),
        ("old.pt", model.state_dict(), False),
        ("number.bin", 3, True),
    ):
        path = tmp_path / name
        torch.save(saved, path, _use_new_zipfile_serialization=zipped)
        match = r"torch\.save: .*safetensors\.torch\.save_file.*load_safetensors reads"
        with pytest.raises(CheckpointError, match=f"load: .*not written by tg.save.*{match}"):
            tg.load(path)
        if importlib.util.find_spec("safetensors"):
            with pytest.raises(CheckpointError, match=f"load_safetensors: .*{match}"):
                tg.load_safetensors(path)


def test_our_own_file_is_not_a_safetensors_file(small: Path) -> None:
    pytest.importorskip("safetensors", reason="the extra interop is not installed")
    with pytest.raises(CheckpointError, match=r"not in the safe.* tinygrad_rnn\.load reads"):
        tg.load_safetensors(small)


@pytest.mark.parametrize(
    "path", [None, 3, io.BytesIO(), {}], ids=["None", "number", "file", "dict"]
)
def test_a_path_is_needed(path: Any) -> None:
    for read in (tg.load, tg.io.checkpoint_file.versions):
        with pytest.raises(ArgumentError, match=f"load: the path .*{type(path).__name__}"):
            read(path)


# -- a file whose digest is right, made by somebody who wants us to fall ---------------------------


def signed(data: bytes) -> bytes:
    """Return a file of ours with the digest that belongs to its other bytes."""
    return data[:-64] + hashlib.sha256(data[:-64]).hexdigest().encode()


def crafted(state: Any, *members: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a file with this tree and these arrays, and a right digest."""
    memory = io.BytesIO()
    tree = state if isinstance(state, bytes) else json.dumps(state).encode()
    with zipfile.ZipFile(memory, "w", compression) as archive:
        archive.comment = b"tinygrad_rnn sha256 " + bytes(64)
        archive.writestr("tree.json", tree)
        for i, member in enumerate(members):
            archive.writestr(f"arrays/{i}.npy", member)
    return signed(memory.getvalue())


def tree(state: Any, version: int = 1) -> dict[str, Any]:
    return {"format": version, "versions": {"tinygrad_rnn": "9.9"}, "state": state}


def npy(header: str, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header.encode() + data


def described(descr: str, shape: str, data: bytes = b"", order: bool = False) -> bytes:
    return npy(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n", data)


ONE = {"dict": [["a", {"array": [0]}]]}
CRAFTED = {
    "a petabyte": crafted(tree(ONE), described("'<f8'", "(10**0, 125000000000000)")),
    "a petabyte, stated": crafted(tree(ONE), described("'<f8'", "(125000000000000,)", bytes(8))),
    "a size that overflows to 0": crafted(tree(ONE), described("'<f8'", f"({2**32}, {2**32})")),
    "a size that overflows to 8": crafted(
        tree(ONE), described("'|u1'", f"({2**61 + 1}, 8)", bytes(8))
    ),
    "an axis of negative length": crafted(tree(ONE), described("'<f4'", "(-1, -2)", bytes(8))),
    "no data": crafted(tree(ONE), described("'<f4'", "(2,)")),
    "too much data": crafted(tree(ONE), described("'<f4'", "(2,)", bytes(9))),
    "objects": crafted(tree(ONE), described("'|O'", "(1,)", pickle.dumps([print]))),
    "strings": crafted(tree(ONE), described("'<U4'", "(1,)", bytes(16))),
    "records": crafted(tree(ONE), described("[('a', '<f4')]", "(1,)", bytes(4))),
    "an unknown dtype": crafted(tree(ONE), described("'<q9'", "(1,)", bytes(9))),
    "a header of code": crafted(tree(ONE), npy("__import__('os').abort()")),
    "a deep header": crafted(tree(ONE), npy("-" * 9000 + "1")),
    "a wide header": crafted(tree(ONE), npy("(" * 150 + ")" * 150)),
    "another version": crafted(tree(ONE), npy("{}", version=b"\7\0")),
    "no array": crafted(tree(ONE), b""),
    "an array missing": crafted(tree(ONE)),
    "an array asked for twice": crafted(tree([ONE, ONE]), described("'<f4'", "(2,)", bytes(8))),
    "a compressed bomb": crafted(
        tree(ONE),
        described("'|u1'", f"({2**25},)", bytes(2**25)),
        compression=zipfile.ZIP_DEFLATED,
    ),
    "wrong axes": crafted(
        tree({"dict": [["a", {"array": [1, 1]}]]}), described("'<f4'", "(1, 2)", bytes(8))
    ),
    "too many axes": crafted(
        tree({"dict": [["a", {"array": [0, 1]}]]}), described("'<f4'", "(2,)", bytes(8))
    ),
    "axes that are none": crafted(
        tree({"dict": [["a", {"array": "x"}]]}), described("'<f4'", "(2,)", bytes(8))
    ),
    "an unknown node": crafted(tree({"code": "abort()"})),
    "a node of two kinds": crafted(tree({"int": "0x1", "tuple": []})),
    "an empty node": crafted(tree({})),
    "a wrong integer": crafted(tree({"int": "one"})),
    "a wrong float": crafted(tree({"float": "00"})),
    "a wrong complex": crafted(tree({"complex": [1, 2, 3]})),
    "a wrong dict": crafted(tree({"dict": [[1]]})),
    "a key that is no key": crafted(tree({"dict": [[[1], 2]]})),
    "an endless integer": crafted(b'{"format": 1, "state": ' + b"9" * 50_000 + b"}"),
    "a deep tree": crafted(b"[" * 200_000),
    "no tree": crafted(b""),
    "a tree that is a list": crafted([]),
    "a tree without a format": crafted({}),
    "a format without versions": crafted({"format": 2}),
    "bytes that are no text": crafted(b"\xff\xfe"),
}


@pytest.mark.parametrize("case", CRAFTED)
def test_a_file_with_a_right_digest_is_checked_nevertheless(tmp_path: Path, case: str) -> None:
    (tmp_path / "x").write_bytes(CRAFTED[case])
    tracemalloc.start()
    try:
        with pytest.raises(
            CheckpointError, match=r"load: .*x' .*cannot be read \(.*not written by"
        ):
            tg.load(tmp_path / "x")
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    """One array inside the bytes of another: so a small file could fill the memory."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("arrays/1.npy", described("'|u1'", "(5000,)", bytes(5000)))
        end = archive.fp.tell()  # type: ignore[union-attr]
        info = archive.getinfo("arrays/1.npy")
    record = inner.getvalue()[:end]
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.comment = b"tinygrad_rnn sha256 " + bytes(64)
        archive.writestr("tree.json", json.dumps(tree([{"array": [0]}, {"array": [0]}])))
        archive.writestr("arrays/0.npy", described("'|u1'", f"({end},)", record))
        info.header_offset = memory.getvalue().index(record)
        archive.filelist.append(info)
    (tmp_path / "x").write_bytes(signed(memory.getvalue()))
    with pytest.raises(CheckpointError, match=r"is compressed, or of|Overlapped"):
        tg.load(tmp_path / "x")


def test_a_newer_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(crafted(tree(None, version=2)))
    with pytest.raises(CheckpointError, match=r"has format 2, written by tinygrad_rnn 9\.9; this"):
        tg.load(tmp_path / "x")


def test_the_crafted_files_are_almost_right(tmp_path: Path) -> None:
    """The files of the table would load but for the one thing that is wrong with each."""
    data = described("'<f4'", "(2,)", bytes(8))
    (tmp_path / "x").write_bytes(crafted(tree(ONE), data))
    assert same(tg.load(tmp_path / "x"), {"a": np.zeros(2, np.float32)})


def test_no_flipped_bit_under_a_right_digest_raises_another_error(small: Path) -> None:
    whole, path = small.read_bytes(), small.with_name("signed")
    refused = 0
    for position in np.random.default_rng(0).integers((len(whole) - 84) * 8, size=600):
        byte, bit = divmod(int(position), 8)
        changed = bytearray(whole)
        changed[byte] ^= 1 << bit
        path.write_bytes(signed(bytes(changed)))
        try:
            tg.load(path)
        except CheckpointError:
            refused += 1
    assert refused > 100


# -- a disk that is full, a program that is killed -------------------------------------------------


class Disk(io.FileIO):
    """A file on a disk that has room for so many bytes; afterwards `fail` is called."""

    room: int
    fail: Callable[[], Any]

    def write(self, data: Any) -> int:  # type: ignore[override]
        if len(data) > self.room:
            super().write(bytes(data)[: self.room])
            self.fail()
        self.room -= len(data)
        return super().write(data)


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def disk(room: int, fail: Callable[[], Any] = full) -> Iterator[None]:
    """Give the files that are written so much room."""

    def opened(target: Any, mode: str) -> Any:
        if mode != "w+b":
            return open(target, mode)
        raw = Disk(target, mode)
        raw.room, raw.fail = room, fail
        return io.BufferedRandom(raw, 64)

    with mock.patch.object(files, "open", opened, create=True):
        yield


STATE = {"a": np.arange(400.0), "b": ["x" * 300, np.ones(3)]}


@given(st.floats(0, 1))
def test_a_disk_that_is_full_at_any_byte_leaves_the_file(file: Path, share: float) -> None:
    tg.save(file, **STATE)
    size = file.stat().st_size
    tg.save(file, before=np.arange(5))
    with disk(int(share * (size - 1))), pytest.raises(OSError, match="No space left") as caught:
        tg.save(file, **STATE)
    assert "was not written; the old file is unchanged" in caught.value.__notes__[0]
    assert same(tg.load(file), {"before": np.arange(5)})
    assert os.listdir(file.parent) == [file.name]
    with disk(2 * size):
        tg.save(file, **STATE)
    assert same(tg.load(file), STATE)


def test_an_interrupt_in_the_middle_leaves_the_file(file: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    tg.save(file, before=1)
    with disk(1000, interrupt), pytest.raises(KeyboardInterrupt):
        tg.save(file, **STATE)
    assert tg.load(file) == {"before": 1}
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_device_that_is_full_leaves_the_file(file: Path) -> None:
    def opened(target: Any, mode: str) -> Any:
        os.close(target)
        return open("/dev/full", mode, buffering=0)

    tg.save(file, before=1)
    with mock.patch.object(files, "open", opened, create=True):
        with pytest.raises(OSError, match="No space left"):
            tg.save(file, **STATE)
    assert tg.load(file) == {"before": 1}
    assert os.listdir(file.parent) == [file.name]


def script(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [Path(tg.__file__).parents[1]]))},
    )


def test_a_limit_of_the_system_leaves_the_file(file: Path) -> None:
    """The system itself refuses to write beyond some size: no stand-in for anything."""
    pytest.importorskip("resource", reason="limits are set in POSIX's way")
    tg.save(file, before=1)
    done = script(
        """
        import resource, sys
        import numpy as np
        import tinygrad_rnn as tg
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            tg.save(sys.argv[1], a=np.zeros(100_000))
        except OSError as error:
            print(error.strerror)
        """,
        str(file),
    )
    assert done.stdout == "File too large\n", done.stderr
    assert tg.load(file) == {"before": 1}
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_in_the_middle_leaves_the_file_and_the_next_save_tidies_up(file: Path) -> None:
    """A child kills itself, with a signal that nobody can catch, at each of many bytes."""
    done = script(
        f"""
        import os, random, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import numpy as np
        import tinygrad_rnn as tg
        from test_checkpoint_file import STATE, disk, same

        path = sys.argv[1]
        folder = os.path.dirname(path)
        tg.save(path, **STATE)
        size = os.path.getsize(path)
        kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
        for i in range(25):
            before = dict(i=i, a=np.full(i, i))
            tg.save(path, **before)
            assert os.listdir(folder) == [os.path.basename(path)], os.listdir(folder)
            child = os.fork()
            if not child:
                with disk(random.Random(i).randrange(size), kill):
                    tg.save(path, **STATE)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == signal.SIGKILL
            assert same(tg.load(path), before)
            left = set(os.listdir(folder)) - {{os.path.basename(path)}}
            assert len(left) == 1, left
            for name in left:  # what is left never loads
                try:
                    tg.load(os.path.join(folder, name))
                except tg.errors.CheckpointError:
                    continue
                raise AssertionError("half a file was loaded")
        tg.save(path, **STATE)
        print(os.listdir(folder))
        """,
        str(file),
    )
    assert done.stdout == f"['{file.name}']\n", done.stderr
    assert same(tg.load(file), STATE)


def test_the_new_file_is_on_the_disk_before_it_gets_its_name(file: Path) -> None:
    calls = mock.Mock()
    seen: list[bytes | str] = []

    def note(descriptor: int) -> None:
        about = os.fstat(descriptor)
        folder = stat.S_ISDIR(about.st_mode)
        seen.append("directory" if folder else os.pread(descriptor, about.st_size, 0))

    calls.fsync.side_effect = note
    calls.replace.side_effect = os.replace
    with (
        mock.patch.object(os, "fsync", calls.fsync),
        mock.patch.object(os, "replace", calls.replace),
    ):
        tg.save(file, **STATE)
    assert [call[0] for call in calls.mock_calls] == ["fsync", "replace", "fsync"]
    assert seen == [file.read_bytes(), "directory"], "or some was still in the program's buffer"


# -- the file among other files --------------------------------------------------------------------


def test_a_file_that_another_writes_at_the_same_time_is_left_alone(file: Path) -> None:
    with files.atomic_write(file) as other:
        other.write(b"other")
        tg.save(file, x=1)
        assert tg.load(file) == {"x": 1}
    assert file.read_bytes() == b"other"
    assert os.listdir(file.parent) == [file.name]


def test_only_the_files_that_were_left_by_the_same_path_are_removed(tmp_path: Path) -> None:
    mine, others = tmp_path / "[a]*", [".a.0123456789abcdef.tmp", ".[a]*.tmp", ".[a]*.x.tmp"]
    left = tmp_path / ".[a]*.0123456789abcdef.tmp"
    for path in (left, *(tmp_path / name for name in others)):
        path.write_bytes(b"")
    tg.save(mine, x=1)
    assert sorted(os.listdir(tmp_path)) == sorted([mine.name, *others])


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions_are_those_of_the_old_file_or_of_any_new_one(tmp_path: Path) -> None:
    path = tmp_path / "x"
    mask = os.umask(0o027)
    try:
        tg.save(path, x=1)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        tg.save(path, x=2)
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(mask)


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need a right elsewhere")
def test_a_symbolic_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link, target = tmp_path / "link", tmp_path / "far" / "target"
    link.symlink_to(target)
    for i in range(2):  # the first time there is nothing at its end
        tg.save(link, i=i)
        assert link.is_symlink() and not target.is_symlink()
        assert tg.load(link) == tg.load(target) == {"i": i}
    assert os.listdir(tmp_path / "far") == ["target"]
