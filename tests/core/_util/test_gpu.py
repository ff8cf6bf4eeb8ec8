"""CuPy where it differs from NumPy: whether it can compute, memory order, several devices."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strict_device
import tinygrad_rnn as tg
from tinygrad_rnn.engine import backend
from tinygrad_rnn.errors import ArgumentError, DeviceError

# -- whether it can compute ------------------------------------------------------------------------


@pytest.fixture
def cupy() -> Iterator[Any]:
    with strict_device.installed() as module:
        yield module


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("matmul", ImportError("libcublas.so.13: cannot open shared object file")),
        ("full", RuntimeError("CUDA path could not be detected: vector_types.h")),
    ],
)
def test_a_device_that_is_found_and_cannot_compute_is_not_available(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(cupy, name, broken)
    reason = backend.cuda_unavailable_because()
    for part in ("does not compute", type(error).__name__, str(error), "pip install"):
        assert reason is not None and part in reason
    for use in (lambda: tg.ones(2, device="cuda"), lambda: tg.default_device("cuda").__enter__()):
        with pytest.raises(DeviceError, match="does not compute"):
            use()
    monkeypatch.undo()
    assert backend.cuda_unavailable_because() is None  # once the cause is mended


def test_a_device_is_tried_once(cupy: Any) -> None:
    assert backend.cuda_unavailable_because() is None
    before = strict_device.launches, strict_device.syncs
    assert backend.cuda_unavailable_because() is None
    with tg.default_device("cuda"):
        assert backend.cuda_unavailable_because() is None
    assert (strict_device.launches, strict_device.syncs) == before


# -- memory order ----------------------------------------------------------------------------------


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Draw arrays of up to four axes in any order, some with gaps, reversed or broadcast axes."""
    shape = draw(st.lists(st.integers(1, 4), max_size=4))
    array = np.arange(float(np.prod([2 * n for n in shape]))).reshape([2 * n for n in shape])
    array = array[tuple(slice(None, None, draw(st.sampled_from([1, 2, -2]))) for _ in shape)]
    array = array.transpose(draw(st.permutations(range(len(shape)))))
    if draw(st.booleans()) and shape:
        array = np.broadcast_to(array[..., :1], array.shape)
    return array


def order(array: Any) -> list[int]:
    """Return the axes of an array that are longer than 1, the largest step in memory first."""
    long = [axis for axis in range(array.ndim) if array.shape[axis] > 1]
    return sorted(long, key=lambda axis: -abs(array.strides[axis]))


@given(array=arrays())
def test_an_array_keeps_its_memory_order_there_and_back(accelerator: str, array: Any) -> None:
    there = backend.to_device(array, accelerator)
    back = backend.to_numpy(there)
    assert order(there) == order(back) == order(array)
    np.testing.assert_array_equal(back, array)


def test_a_state_that_is_loaded_there_has_the_strides_that_it_had(accelerator: str) -> None:
    """(T, B, F) as one matrix with a row for each feature: neither C nor Fortran order."""
    x = np.ones((28, 33, 7), np.float32).transpose(1, 0, 2)
    state = backend.to_device(np.ones((4, 33, 7), np.float32), accelerator).transpose(1, 2, 0)
    assert backend.to_device(x, accelerator).strides == (28, 924, 4)
    loaded = backend.to_device(backend.to_numpy(state), accelerator)
    assert loaded.strides == backend.copy(state).strides == state.strides == (28, 4, 924)


# -- constants, numbers, pickles -------------------------------------------------------------------


def test_constants_are_made_on_the_device(cupy: Any) -> None:
    cell = tg.nn.LSTMCell(2, 3, device="cuda")
    before = strict_device.transfers
    made = [
        tg.zeros(3, 2, device="cuda"),
        tg.full((2,), 0.1, device="cuda"),
        tg.ones(2, dtype="int8", device="cuda"),
        tg.zeros_like(tg.ones(2, device="cuda")),
        cell.initial_state(4, np.float32, "cuda"),
    ]
    assert strict_device.transfers == before
    assert made[1].numpy().tolist() == tg.full((2,), 0.1).numpy().tolist()
    with pytest.raises(ArgumentError, match=r"full: .*300 out of bounds"):
        tg.full((2,), 300, dtype="uint8", device="cuda")


@pytest.mark.parametrize("count", [2, 8, 9, 40])
def test_many_arrays_are_joined_without_an_upload(accelerator: str, count: int) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(3, 4)).astype("f") for _ in range(count)]
    views = [rng.normal(size=(3, 8)).astype("f")[:, 2:6] for _ in range(count)]
    major = [np.asfortranarray(part) for part in parts]
    for group in (parts, views, major, [*parts[:-1], views[0]]):
        there = [tg.tensor(backend.to_device(part, accelerator)) for part in group]
        before = strict_device.transfers
        for axis in (0, 1, -1):
            for function, ours in ((np.concatenate, tg.concatenate), (np.stack, tg.stack)):
                joined = ours(there, axis=axis)
                np.testing.assert_array_equal(joined.numpy(), function(group, axis=axis))
        joined = tg.engine.ops.stack_over_time(*there)
        np.testing.assert_array_equal(joined.numpy(), np.stack(group))
        assert strict_device.transfers == before
    with pytest.raises(ArgumentError, match=r"an axis is an integer, got 0\.5"):
        tg.concatenate(there, axis=0.5)
    with pytest.raises(ValueError, match="concatenate"):
        tg.concatenate([*there, tg.ones(3, 5, device=accelerator)])
    with pytest.raises(ValueError, match="stack"):
        tg.stack([*there, tg.ones(3, 1, device=accelerator)])


def test_lengths_are_uploaded_once(cupy: Any) -> None:
    layer = tg.nn.LSTM(3, 4, device="cuda")
    x = tg.ones(12, 3, 3, device="cuda")
    for lengths, uploads in ((None, 0), ([12, 3, 7], 1)):
        for _ in range(2):
            before = strict_device.syncs, strict_device.transfers
            output, _ = layer(x, lengths=lengths)
            output.sum().backward()
            after = strict_device.syncs, strict_device.transfers
            assert (after[0] - before[0], after[1] - before[1]) == (0, uploads)


def test_a_pickle_of_a_tensor_there_is_one_there(accelerator: str) -> None:
    tensor = tg.tensor([1.0, 2.0], device=accelerator, requires_grad=True)
    parameter = tg.nn.Parameter(tensor.detach())
    for x in (tensor, parameter, tensor.detach()):
        for found in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
            assert type(found) is type(x)
            assert (found.device, found.requires_grad) == ("cuda:0", x.requires_grad)
            assert found.numpy().tolist() == [1.0, 2.0]
    with tg.default_device(accelerator):
        assert pickle.loads(pickle.dumps(tg.ones(2, device="cpu"))).device == "cpu"


def test_new_tensors_are_on_the_default_device(accelerator: str) -> None:
    values = np.ones(2)
    there, here = tg.ones(2, device=accelerator), tg.ones(2)
    with tg.default_device(accelerator):
        found = [
            tg.tensor(data).device for data in ([1.0], 2.0, values, np.float64(1), there, here)
        ]
    assert found == ["cuda:0"] * 5 + ["cpu"]
    assert tg.tensor(there.data).device == "cuda:0" and tg.tensor(values).device == "cpu"


def test_a_pickle_of_a_tensor_there_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    with strict_device.installed(2):
        pickle.dump(tg.ones(2, device="cuda:1"), stream)
    with strict_device.installed(1):
        with pytest.raises(DeviceError, match="'cuda:1': there are 1 CUDA devices"):
            pickle.loads(stream.getvalue())
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    with pytest.raises(DeviceError, match="'cuda:1' cannot be used: CuPy is not installed"):
        pickle.loads(stream.getvalue())


# -- several devices -------------------------------------------------------------------------------


@pytest.fixture(
    params=[
        "strict, which reads another's memory",
        "strict, which does not",
        pytest.param("cuda", marks=pytest.mark.gpu),
    ]
)
def two_devices(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param != "cuda":
        with strict_device.installed(2, peers="not" not in request.param):
            yield
        return
    if backend.cuda_unavailable_because():
        pytest.skip("there is no GPU")
    if backend.gpu_module().cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one GPU")
    yield


@pytest.mark.usefixtures("two_devices")
class TestTwoDevices:
    def test_they_do_not_mix(self) -> None:
        x = tg.ones(2, 2, device="cuda:0", requires_grad=True)
        y = tg.ones(2, 2, device="cuda:1")
        layer = tg.nn.Linear(2, 2, device="cuda:1")
        for mix in (
            lambda: x + y,
            lambda: x @ y,
            lambda: tg.concatenate([x, y]),
            lambda: tg.where(x > 0, x, y),
            lambda: x[tg.tensor([0], device="cuda:1")],
            lambda: layer(x),
            lambda: tg.functional.cross_entropy(x, tg.zeros(2, dtype="int64", device="cuda:1")),
            lambda: x.sum().backward(tg.ones((), device="cuda:1")),
            lambda: tg.functional.layer_norm(x, 2, y[0], y[1]),
        ):
            with pytest.raises(DeviceError, match=r"cuda:[01].*cuda:[01]"):
                mix()
        with pytest.raises(DeviceError, match="there are 2"):
            x.to("cuda:2")

    def test_a_thread_computes_on_its_default_device(self) -> None:
        y = tg.ones(2, 2, device="cuda:1", requires_grad=True)
        with tg.default_device("cuda:1"):
            assert (tg.exp(y) * 2).device == "cuda:1"
            assert tg.ones(2).device == "cuda:1"
            z = (y @ y).sum()
        assert tg.ones(2, device="cuda").device == "cuda:0"
        for use in (lambda: tg.exp(y), lambda: y @ y, lambda: z.backward()):
            with pytest.raises(DeviceError, match=r"default_device\('cuda:1'\)"):
                use()
        with tg.default_device("cuda:1"):
            z.backward()
        assert y.grad.device == "cuda:1"
        assert y.grad.numpy().tolist() == [[4.0, 4.0], [4.0, 4.0]]

    def test_a_graph_over_two_gpus_is_refused(self) -> None:
        """The pass would compute on one of them, with arrays of the other one."""
        x = tg.ones(2, device="cuda:0", requires_grad=True)
        ways = (lambda y: y.to("cuda:1"), lambda y: y.to("cpu").to("cuda:1"))
        for way in ways:
            y = tg.tanh(x)
            with tg.default_device("cuda:1"):
                z = (way(y) * 2).sum()
                with pytest.raises(DeviceError, match=r"this thread is on cuda:1.*'cuda:0'"):
                    z.backward()
            assert x.grad is None
        z = (x * 2).to("cpu").sum()
        with tg.default_device("cuda:1"), pytest.raises(DeviceError, match="'cuda:0'"):
            z.backward(retain_graph=True)
        z.backward()
        assert x.grad.device == "cuda:0" and x.grad.numpy().tolist() == [2.0, 2.0]

    def test_an_update_computes_where_each_parameter_is(self) -> None:
        for rule in (tg.optim.SGD, tg.optim.Adam):
            parameters = [tg.ones(3, device=f"cuda:{i}", requires_grad=True) for i in (0, 1)]
            optimizer = rule(parameters, lr=0.5)
            optimizer.lr = 0.25
            for i, p in enumerate(parameters):
                p.grad = tg.full((3,), 4.0, device=f"cuda:{i}")
            norm = tg.optim.clip_grad_norm(parameters, 1.0)
            assert norm.item() == pytest.approx(96**0.5)
            tg.optim.clip_grad_value(parameters, 0.25)
            optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
            assert parameters[0].numpy().tolist() == parameters[1].numpy().tolist() != [1.0] * 3
            for i, p in enumerate(parameters):
                assert {p.device, p.grad.device} == {f"cuda:{i}"}
                slots = optimizer._state[i].values()
                assert {backend.device_of(a) for a in slots} <= {f"cuda:{i}"}

    def test_copies_stay_where_they_are(self) -> None:
        y = tg.tensor([[1.0, 2.0], [3.0, 4.0]], device="cuda:1")
        for made in (tg.tensor(y), copy.copy(y), copy.deepcopy(y), y.detach()):
            assert made.device == "cuda:1"
            assert made.numpy().tolist() == [[1.0, 2.0], [3.0, 4.0]]
        with tg.no_grad():
            y[0] = 5.0
            y[:, [1, 0]] = tg.tensor([7.0, 6.0], device="cuda:0")
        y.data = y.data * 1 if False else np.array([[6.0, 7.0], [6.0, 7.0]], np.float32)
        assert y.numpy().tolist() == [[6.0, 7.0], [6.0, 7.0]]

    @given(array=arrays())
    def test_an_array_moves_in_its_memory_order(self, array: np.ndarray) -> None:
        x = tg.tensor(backend.to_device(array, "cuda:0"), device="cuda:1")
        y = x.to("cuda:0")
        assert (x.device, y.device) == ("cuda:1", "cuda:0")
        assert order(x._data) == order(y._data) == order(array)
        np.testing.assert_array_equal(y.numpy(), array)
        view = backend.to_device(np.array(array), "cuda:0")[..., :1] if array.ndim else None
        if view is not None:  # not contiguous
            np.testing.assert_array_equal(
                backend.to_numpy(backend.to_device(view, "cuda:1")), array[..., :1]
            )


# -- operations ------------------------------------------------------------------------------------


@given(x=st.floats(width=32), y=st.floats(width=32))
def test_a_quotient_and_a_remainder_are_numpys(accelerator: str, x: float, y: float) -> None:
    """CuPy's are floor(x / y) and x - floor(x / y) y: 10 and 0 for 1 and 0.1, nan for infinity."""
    for dtype in (np.float32, np.float64):
        for a, b in ((x, y), (1.0, 0.1), (-1.0, float("inf")), (y, 3.0), (-0.0, x)):
            there = [tg.tensor(np.array([v], dtype), device=accelerator) for v in (a, b)]
            with np.errstate(all="ignore"):
                for ours, theirs in (
                    (tg.remainder, np.remainder),
                    (tg.floor_divide, np.floor_divide),
                ):
                    expected = theirs(np.array([a], dtype), np.array([b], dtype))
                    found = ours(*there).numpy()
                    assert found.dtype == expected.dtype
                    np.testing.assert_array_equal(found, expected)
                    signs = np.signbit(found), np.signbit(expected)
                    assert np.isnan(expected).all() or signs[0] == signs[1]


@pytest.mark.parametrize("axis", [0, -1, None])
def test_a_number_is_reduced_over_its_first_and_last_axis(accelerator: str, axis: Any) -> None:
    """As in NumPy; CuPy has no axis 0 of it."""
    x = tg.tensor(3.0, device=accelerator, requires_grad=True)
    for reduce in (tg.sum, tg.mean, tg.max, tg.min, tg.logsumexp):
        y = reduce(x, axis=axis)
        assert (y.shape, y.item()) == ((), 3.0)
        assert tg.grad(y, x).item() == 1.0


def test_booleans_are_limited_from_one_side(accelerator: str) -> None:
    x = np.array([True, False])
    for limits in ((None, 0), (0, None), (0, 1)):
        expected = tg.clip(tg.tensor(x), *limits)
        found = tg.clip(tg.tensor(x, device=accelerator), *limits)
        assert (found.dtype, found.numpy().tolist()) == (expected.dtype, expected.numpy().tolist())
