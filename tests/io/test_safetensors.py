"""Weights go to PyTorch and come from it, and both compute the same with them."""

from __future__ import annotations

import errno
import io
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, CheckpointError, DTypeError, MissingExtraError
from tinygrad_rnn.io import atomic as files

pytest.importorskip("safetensors", reason="the extra interop is not installed")

DTYPES = [
    np.dtype(code).newbyteorder(order) for code in "?bBhHiIqQefd" for order in "<>" if code != "?"
] + [np.dtype("?")]


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk() -> Any:
    with mock.patch.object(os, "fsync"):
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("interop") / "weights.safetensors"


@st.composite
def arrays(draw: Any) -> np.ndarray:
    """Draw arrays in any memory layout: transposed, reversed, with gaps, broadcast."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3))
    array = draw(hnp.arrays(draw(st.sampled_from(DTYPES)), shape))
    for axis in range(array.ndim):
        if draw(st.booleans()):
            array = np.repeat(array, 2, axis)[(slice(None),) * axis + (slice(None, None, -2),)]
    array = np.transpose(array, draw(st.permutations(range(array.ndim))))
    return np.broadcast_to(array, (2, *array.shape)) if draw(st.booleans()) else array


@given(st.dictionaries(st.text().filter(lambda name: name != "__metadata__"), arrays(), max_size=4))
def test_arrays_of_any_layout_and_byte_order_come_back(file: Path, state: dict[str, Any]) -> None:
    tg.save_safetensors(file, state)
    loaded = tg.load_safetensors(file)
    assert loaded.keys() == state.keys()
    for name, array in state.items():
        native = np.asarray(array, array.dtype.newbyteorder("="), order="C")
        assert (loaded[name].dtype, loaded[name].shape) == (native.dtype, native.shape)
        assert loaded[name].tobytes() == native.tobytes()
        assert loaded[name].flags.writeable and loaded[name].flags.owndata
        assert loaded[name].flags.c_contiguous


def test_what_is_written_is_in_c_order_whatever_safetensors_makes_of_it(file: Path) -> None:
    """Version 0.8.0 writes the memory as it lies, so that it must not see any other order."""
    seen = {}
    import safetensors.numpy as library

    def spy(state: dict[str, Any]) -> bytes:
        seen.update(state)
        return b""

    state = {
        "a": np.eye(3)[::2].T,
        "b": np.float32(3),
        "c": tg.ones(2, 3).T,
        "d": np.ones(2, ">f4"),
    }
    with mock.patch.object(library, "save", spy):
        tg.save_safetensors(file, state)
    assert all(type(a) is np.ndarray and a.flags.c_contiguous for a in seen.values())
    assert all(a.dtype.isnative for a in seen.values())
    assert [a.shape for a in seen.values()] == [(3, 2), (), (3, 2), (2,)]


# -- PyTorch ---------------------------------------------------------------------------------------


def layers(nn: Any) -> dict[str, Callable[[], Any]]:
    """Return makers of layers, in the same words for PyTorch and for us."""
    rnn = {"num_layers": 2, "bidirectional": True}
    return {
        "LSTM": lambda: nn.LSTM(5, 7, **rnn),
        "LSTM, projected": lambda: nn.LSTM(5, 7, proj_size=3, **rnn),
        "GRU": lambda: nn.GRU(5, 7, **rnn),
        "RNN": lambda: nn.RNN(5, 7, **rnn),
        "RNN, relu": lambda: nn.RNN(5, 7, nonlinearity="relu", **rnn),
        "without bias": lambda: nn.GRU(5, 7, bias=False, **rnn),
        "LSTMCell": lambda: nn.LSTMCell(5, 7),
        "GRUCell": lambda: nn.GRUCell(5, 7),
        "RNNCell": lambda: nn.RNNCell(5, 7),
        "Linear": lambda: nn.Linear(5, 7),
        "Embedding": lambda: nn.Embedding(6, 5),
        "LayerNorm": lambda: nn.LayerNorm(5),
        "nested": lambda: nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3)),
    }


def numbers(result: Any) -> list[np.ndarray]:
    """Return the arrays of a result of either library, in their order."""
    if isinstance(result, tuple | list):
        return [array for part in result for array in numbers(part)]
    return [result.detach().numpy()]


def example(kind: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    if kind == "Embedding":
        return rng.integers(0, 6, (9, 4))
    shape = (4, 5) if kind.endswith("Cell") else (9, 4, 5)
    return rng.standard_normal(shape).astype(np.float32)


def assert_same_outputs(kind: str, ours: Any, theirs: Any) -> None:
    import torch

    x = example(kind)
    a, b = numbers(ours(tg.tensor(x))), numbers(theirs(torch.from_numpy(x)))
    assert len(a) == len(b) > 0
    for mine, reference in zip(a, b, strict=True):
        assert mine.dtype == np.float32 and mine.shape == reference.shape
        np.testing.assert_allclose(mine, reference, rtol=0, atol=1e-6)


KINDS = list(layers(tg.nn))
quiet = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


@quiet
@pytest.mark.oracle
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_pytorch_load_and_give_its_outputs(file: Path, kind: str) -> None:
    torch = pytest.importorskip("torch")
    import safetensors.torch

    torch.manual_seed(1)
    theirs, ours = layers(torch.nn)[kind](), layers(tg.nn)[kind]()
    safetensors.torch.save_file(theirs.state_dict(), file)
    assert ours.load_state_dict(tg.load_safetensors(file)) == ([], [])
    assert_same_outputs(kind, ours, theirs)


@quiet
@pytest.mark.oracle
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_ours_load_in_pytorch_and_give_our_outputs(file: Path, kind: str) -> None:
    torch = pytest.importorskip("torch")
    import safetensors.torch

    tg.manual_seed(1)
    theirs, ours = layers(torch.nn)[kind](), layers(tg.nn)[kind]()
    tg.save_safetensors(file, ours.state_dict())
    theirs.load_state_dict(safetensors.torch.load_file(file), strict=True)
    assert_same_outputs(kind, ours, theirs)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions_cross_too(file: Path, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    import safetensors.torch

    theirs = torch.nn.LSTM(3, 4, dtype=getattr(torch, dtype))
    safetensors.torch.save_file(theirs.state_dict(), file)
    ours = tg.nn.LSTM(3, 4, dtype=dtype)
    ours.load_state_dict(tg.load_safetensors(file))
    tg.save_safetensors(file, ours.state_dict())
    for name, value in safetensors.torch.load_file(file).items():
        assert torch.equal(value, theirs.state_dict()[name])


@pytest.mark.oracle
def test_a_tensor_of_pytorch_that_is_not_contiguous_crosses(file: Path) -> None:
    torch = pytest.importorskip("torch")
    import safetensors.torch

    values = torch.arange(6.0).reshape(2, 3)
    tg.save_safetensors(file, {"w": values.T.numpy(), "v": values.numpy()[:, ::2]})
    loaded = safetensors.torch.load_file(file)
    assert torch.equal(loaded["w"], values.T) and torch.equal(loaded["v"], values[:, ::2])


@pytest.mark.oracle
def test_a_dtype_that_numpy_has_not_is_named(file: Path) -> None:
    torch = pytest.importorskip("torch")
    import safetensors.torch

    safetensors.torch.save_file({"w": torch.ones(2, dtype=torch.bfloat16)}, file)
    with pytest.raises(CheckpointError, match=r"weights.*BF16.*bfloat16: save \.float\(\)"):
        tg.load_safetensors(file)


# -- what goes wrong -------------------------------------------------------------------------------

MISTAKES: list[tuple[Callable[[Path], Any], type[Exception], str]] = [
    (lambda f: tg.save_safetensors(f, tg.nn.Linear(1, 1)), ArgumentError, "module.state_dict"),
    (lambda f: tg.save_safetensors(f, [np.ones(1)]), ArgumentError, "got a list"),
    (lambda f: tg.save_safetensors(f, {1: np.ones(1)}), ArgumentError, "1 cannot be the name"),
    (lambda f: tg.save_safetensors(f, {"__metadata__": np.ones(1)}), ArgumentError, "__metadata__"),
    (lambda f: tg.save_safetensors(f, {"w": [1.0]}), ArgumentError, "w is a list, not an array"),
    (lambda f: tg.save_safetensors(f, {"w": {"v": np.ones(1)}}), ArgumentError, "w is a dict"),
    (lambda f: tg.save_safetensors(f, {"w": np.ones(1, "F")}), DTypeError, "array of complex64"),
    (
        lambda f: tg.save_safetensors(f, {"w": np.ones(1, "g")}),
        DTypeError,
        "w is an array of float",
    ),
    (lambda f: tg.save_safetensors(f, {"w": np.array(["a"])}), DTypeError, "w is an array of <U1"),
    (lambda f: tg.save_safetensors(f, {"w": np.ma.ones(1)}), DTypeError, "w is an array of masked"),
    (lambda f: tg.save_safetensors(f.parent, {}), ArgumentError, "is not a regular file"),
    (lambda f: tg.load_safetensors(f.parent / "no"), FileNotFoundError, "no"),
]


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES)
def test_mistakes_are_named_and_the_file_stays(
    file: Path, mistake: Callable[[Path], Any], error: type[Exception], message: str
) -> None:
    tg.save_safetensors(file, {"good": np.ones(1)})
    with pytest.raises(error, match=message):
        mistake(file)
    assert list(tg.load_safetensors(file)) == ["good"]
    assert os.listdir(file.parent) == [file.name]


def test_a_file_cut_off_anywhere_is_refused(file: Path) -> None:
    tg.save_safetensors(file, tg.nn.Linear(3, 2).state_dict())
    for length in reversed(range(file.stat().st_size)):
        os.truncate(file, length)
        with pytest.raises(CheckpointError, match="truncated"):
            tg.load_safetensors(file)


def test_a_header_changed_anywhere_raises_nothing_else(file: Path) -> None:
    tg.save_safetensors(file, {"w": np.zeros(3), "v": np.zeros((2, 2), np.int8)})
    whole = file.read_bytes()
    refused = 0
    for position in range(8 * (8 + struct.unpack("<Q", whole[:8])[0])):
        changed = bytearray(whole)
        changed[position // 8] ^= 1 << position % 8
        file.write_bytes(changed)
        try:
            tg.load_safetensors(file)
        except CheckpointError:
            refused += 1
    assert refused > 500


@pytest.mark.parametrize(
    "content", [b"", b"PK\3\4", struct.pack("<Q", 2**60) + b"{}", struct.pack("<Q", 2) + b"[]"]
)
def test_a_file_of_something_else_is_named(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="not in the safetensors format"):
        tg.load_safetensors(file)


def test_a_full_disk_leaves_the_file(file: Path) -> None:
    class Full(io.FileIO):
        def write(self, data: Any) -> int:  # type: ignore[override]
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    tg.save_safetensors(file, {"good": np.ones(1)})
    with mock.patch.object(files, "open", Full, create=True):
        with pytest.raises(OSError, match="No space left"):
            tg.save_safetensors(file, {"more": np.ones(1)})
    assert list(tg.load_safetensors(file)) == ["good"]
    assert os.listdir(file.parent) == [file.name]


def test_without_safetensors_the_extra_is_named(file: Path) -> None:
    with mock.patch.dict(sys.modules, {"safetensors.numpy": None}):
        for call in (lambda: tg.save_safetensors(file, {}), lambda: tg.load_safetensors(file)):
            with pytest.raises(MissingExtraError, match=r"tinygrad-rnn\[interop\]"):
                call()
