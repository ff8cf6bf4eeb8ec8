"""Arrays of other libraries, in and out, without a copy wherever that is possible.

What PyTorch is asked, `peers` asks NumPy too, so that half of it runs where PyTorch is not there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import DeviceError, DTypeError
from tinygrad_rnn.testing import arrays, dtypes, layouts, shapes

NUMBERS = st.integers(0, 1)  # every dtype has these


def torch_of(array: np.ndarray) -> Any:
    """A PyTorch tensor with the values of an array, laid out like it (PyTorch has no negative)."""
    import torch

    made = torch.from_numpy(np.array(array, order="C"))
    if array.ndim and array.flags.f_contiguous:
        made = torch.from_numpy(np.array(array.T, order="C")).permute(*range(array.ndim)[::-1])
    elif not array.flags.c_contiguous:
        made = torch.stack([made, made], dim=-1)[..., 0]
    return made


peers = pytest.mark.parametrize("peer", ["numpy", pytest.param("torch", marks=pytest.mark.oracle)])


def library(name: str) -> tuple[Any, Any]:
    """from_dlpack of a library, and how its arrays are made of NumPy's."""
    return pytest.importorskip(name).from_dlpack, np.array if name == "numpy" else torch_of


drawn = arrays(shapes(), elements=NUMBERS, dtype=dtypes("fiub")).flatmap(layouts)


@peers
@given(array=drawn)
def test_an_array_comes_in_and_goes_out_on_the_same_memory(peer, array):
    exported, made_of = library(peer)
    theirs = array if peer == "numpy" else made_of(array)
    ours = tg.from_dlpack(theirs)
    assert (ours.shape, ours.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(ours.numpy(), array)
    back = exported(ours)
    np.testing.assert_array_equal(np.asarray(back), array)
    if array.size:
        shared = one_block(ours.data) and ours.data.flags.writeable
        assert (pointer(back) == pointer(theirs)) is shared


def one_block(array: np.ndarray) -> bool:
    """Whether the elements follow each other in memory, in some order of the axes."""
    low, high = np.lib.array_utils.byte_bounds(array)
    return high - low == array.nbytes and min(array.strides, default=0) >= 0


def pointer(array: Any) -> int:
    return array.data_ptr() if hasattr(array, "data_ptr") else array.__array_interface__["data"][0]


@peers
def test_writes_to_one_are_seen_in_the_other(peer):
    exported, made_of = library(peer)
    theirs = made_of(np.arange(6.0).reshape(2, 3))
    ours = tg.from_dlpack(theirs)
    theirs[0, 0] = 7
    assert ours[0, 0].item() == 7
    ours.data = np.zeros((2, 3))
    assert float(theirs.sum()) == 0
    if peer != "numpy" or np.lib.NumpyVersion(np.__version__) >= "2.3.0":  # read-only before
        exported(ours)[1, 2] = 5
        assert (ours[1, 2].item(), float(theirs[1, 2])) == (5, 5)


@peers
@given(array=drawn)
def test_a_view_goes_out_whichever_way_it_runs(peer, array):
    """Backwards too, which PyTorch answers by ending the process if it is handed over as it is."""
    exported, _ = library(peer)
    back = exported(tg.tensor(array)[(slice(None, None, -1),) * array.ndim])
    np.testing.assert_array_equal(np.asarray(back), np.flip(array))


@peers
def test_what_came_in_is_differentiated_and_trained(peer):
    _, made_of = library(peer)
    theirs = made_of(np.array([1.0, 2.0]))
    ours = tg.from_dlpack(theirs)
    assert not ours.requires_grad
    ours.requires_grad = True
    (ours * ours).sum().backward()
    np.testing.assert_array_equal(ours.grad.numpy(), [2, 4])
    tg.optim.SGD([ours], lr=0.5).step()
    np.testing.assert_array_equal(np.asarray(theirs), [0, 0])


def test_the_memory_outlives_its_first_owner():
    array = np.arange(1000.0)
    ours = tg.from_dlpack(array)
    del array
    back = np.from_dlpack(ours)
    del ours
    assert back.sum() == 499500


def test_read_only_memory_stays_read_only():
    array = np.arange(3.0)
    array.flags.writeable = False
    ours = tg.from_dlpack(array)
    assert (ours * 2).numpy().tolist() == [0, 2, 4]
    with pytest.raises(ValueError, match="read-only"):
        ours.data = np.zeros(3)
    for exported in (ours, tg.broadcast_to(tg.tensor([0.0, 1.0, 2.0]), (2, 3))):
        back = np.from_dlpack(exported)  # PyTorch writes to memory that is marked read-only
        assert not np.shares_memory(back, exported.data)
        np.testing.assert_array_equal(back, exported.numpy())
        with pytest.raises(BufferError, match="read-only memory is exported as a copy"):
            np.from_dlpack(exported, copy=False)
    np.testing.assert_array_equal(array, [0, 1, 2])


def twice_and_detached(w: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
    h = w * 2
    return (h * h).sum(), h.detach()


def as_a_view(w: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
    h = w * 2
    return (h * h).sum(), h.detach().reshape(2, 1).T


def picked_from_a_leaf(w: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
    """A copy, though indexing may return a view."""
    h = tg.functional.embedding([0, 1], w.reshape(2, 1))
    return (h * h * 4).sum(), h.detach()


def copied_by_reshape(w: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
    h = tg.broadcast_to(w, (2, 2)).reshape(-1)
    return (h * h * 2).sum(), h.detach()


def without_grad(w: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
    with tg.no_grad():
        h = w * 2
    return (h * w * 2).sum(), h


def a_leaf_again(w: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
    """Where it became a leaf, which is written to, it has memory of its own."""
    h = w * 2
    loss, leaf = (h * h).sum(), h.detach()
    leaf.requires_grad = True
    leaf.data = leaf.numpy() + 1
    leaf.requires_grad = False
    return loss, leaf


@peers
@pytest.mark.parametrize(
    "made",
    [
        twice_and_detached,
        as_a_view,
        picked_from_a_leaf,
        copied_by_reshape,
        without_grad,
        a_leaf_again,
    ],
)
def test_a_value_that_a_graph_saved_is_not_written_to_from_outside(peer, made):
    exported, _ = library(peer)
    w = tg.tensor([1.0, 3.0], requires_grad=True)
    loss, given = made(w)
    out = exported(given)
    if peer != "numpy" or NUMPY_WRITES:
        out[...] = 0
    loss.backward()
    np.testing.assert_array_equal(w.grad.numpy(), [8, 24] if made is not without_grad else [4, 12])
    if made is not a_leaf_again:
        with pytest.raises(BufferError, match=r"computed tensor.* copy=False"):
            given.__dlpack__(copy=False)


NUMPY_WRITES = np.from_dlpack(np.ones(1)).flags.writeable  # some versions only read, their own too

LAST = {  # what a consumer of the protocol may get, and JAX and PyTorch take
    "leaf": lambda x: x,
    "transposed": lambda x: x.T,
    "column": lambda x: x[:, 0],
    "row": lambda x: x[1],
    "backwards": lambda x: x[::-1],
    "stretched": lambda x: tg.broadcast_to(x, (2, 4, 3)),
    "computed": lambda x: x * 2,
    "the last output": lambda x: tg.nn.GRU(3, 2)(tg.stack([x, x]))[0][-1].detach(),
    "a number": lambda x: x.sum(),
    "nothing": lambda x: x[:0],
}


@pytest.mark.parametrize("kind", LAST)
@pytest.mark.parametrize(
    "keywords",
    [{}, {"stream": None}, {"max_version": (1, 0)}, {"max_version": (1, 0), "copy": True}],
    ids=str,
)
def test_every_export_is_one_block_that_can_be_written_to(kind, keywords):
    """Also by the protocol without versions, which JAX speaks; it cannot say read-only."""
    x = LAST[kind](tg.tensor(np.arange(12.0, dtype=np.float32).reshape(4, 3)))

    class Consumed:
        def __dlpack__(self, **_: Any) -> Any:
            return x.__dlpack__(**keywords)

        def __dlpack_device__(self) -> Any:
            return x.__dlpack_device__()

    out = np.from_dlpack(Consumed())
    assert one_block(out)
    if NUMPY_WRITES and keywords.get("max_version"):
        assert out.flags.writeable
    np.testing.assert_array_equal(out, x.numpy())
    assert np.shares_memory(out, x._data) is (
        kind in ("leaf", "transposed", "row") and not keywords.get("copy")
    )


def test_the_memory_itself_is_shared_where_that_is_asked_for():
    x = tg.tensor([[1.0, 2.0], [3.0, 4.0]])
    for part in (x, x[:, 0]):
        assert np.shares_memory(np.from_dlpack(part, copy=False), x.data)
    assert not np.shares_memory(np.from_dlpack(x, copy=True), x.data)
    assert np.shares_memory(np.from_dlpack(x, device="cpu"), x.data)
    with pytest.raises(BufferError):
        x.__dlpack__(dl_device=(2, 0))


def test_a_tensor_of_our_own_keeps_its_version():
    x = tg.tensor([1.0, 2.0])
    y = tg.from_dlpack(x)
    y.requires_grad = True
    loss = (y * y).sum()
    x.data = np.zeros(2)
    with pytest.raises(tg.errors.GraphError, match="changed in place"):
        loss.backward()


@peers
def test_a_tensor_that_requires_grad_is_not_given_away(peer):
    exported, _ = library(peer)
    x = tg.ones(2, requires_grad=True)
    for take in (exported, tg.from_dlpack):
        with pytest.raises(BufferError, match="detach"):
            take(x)
    assert exported(x.detach()).shape == (2,)


@pytest.mark.oracle
def test_what_pytorch_does_not_give_away_is_named():
    torch = pytest.importorskip("torch")
    with pytest.raises(BufferError, match="detach"):
        tg.from_dlpack(torch.ones(2, requires_grad=True))
    with pytest.raises(BufferError, match="layout"):
        tg.from_dlpack(torch.eye(2).to_sparse())
    with pytest.raises(DTypeError, match=r"torch.bfloat16: .*[Uu]nsupported dtype"):
        tg.from_dlpack(torch.ones(2, dtype=torch.bfloat16))
    with pytest.raises(DTypeError, match="real numbers only, got complex64"):
        tg.from_dlpack(torch.ones(2, dtype=torch.complex64))


class Elsewhere:
    """An array on a device that we have no library for."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return (8, 0)

    def __dlpack__(self, **keywords: Any) -> Any:
        raise AssertionError("asked for memory that cannot be read")


@pytest.mark.parametrize(
    "value, error, match",
    [
        ([1.0, 2.0], DTypeError, r"CuPy is expected, got list: use tinygrad_rnn\.tensor"),
        (np.ones(2, dtype=complex), DTypeError, "real numbers only, got complex128"),
        (Elsewhere(), DeviceError, "kind 8: move it to the CPU"),
        (np.array(["a"]), DTypeError, "real numbers only, got <U1"),
    ],
    ids=["a list", "complex", "elsewhere", "strings"],
)
def test_misuse_is_named(value, error, match):
    with pytest.raises(error, match=match):
        tg.from_dlpack(value)


def test_a_copy_is_refused_where_none_is_allowed():
    x = tg.tensor([1.0, 2.0])[::-1]
    with pytest.raises(BufferError, match="as a copy"):
        np.from_dlpack(x, copy=False)


def test_the_device_and_its_memory_are_kept(gpu):
    import cupy

    theirs = cupy.arange(6.0).reshape(2, 3)
    ours = tg.from_dlpack(theirs.T)
    assert ours.device.startswith("cuda")
    theirs[0, 1] = 7
    assert ours[1, 0].item() == 7
    assert cupy.from_dlpack(ours).data.ptr == theirs.data.ptr
    np.testing.assert_array_equal(cupy.asnumpy(cupy.from_dlpack(ours[::-1])), ours.numpy()[::-1])
