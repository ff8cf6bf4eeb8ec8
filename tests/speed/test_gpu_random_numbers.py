"""Random numbers on a GPU are those of NumPy's generator, and advance it as NumPy does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import strict_device
import tinygrad_rnn as tg
from cuda_on_host import unavailable_because
from tinygrad_rnn import random
from tinygrad_rnn.engine import backend
from tinygrad_rnn.engine.ops import kernels

pytestmark = pytest.mark.skipif(
    unavailable_because() is not None, reason=str(unavailable_because())
)

shapes = st.sampled_from([(), (0,), (1,), (3,), (5, 7), (2, 3, 4), (1000,)])
draws = st.lists(
    st.tuples(st.sampled_from(["mask", "float32", "float64", "float16"]), shapes), max_size=6
)


def philox(seed: int, **changes: Any) -> np.random.Generator:
    generator = np.random.Generator(np.random.Philox(seed))
    state: Any = generator.bit_generator.state
    state["state"]["counter"][:] = changes.pop("counter", state["state"]["counter"])
    generator.bit_generator.state = {**state, **changes}
    return generator


def drawn(kind: str, shape: Any, rng: Any, device: str) -> Any:
    if kind == "mask":
        return random.keep_mask(shape, 0.3, rng, device)
    return random.draw_uniform(shape, np.dtype(kind), -0.3, 0.7, rng, device)


def state(generator: np.random.Generator) -> str:
    return str(generator.bit_generator.state)


LAST = 2**64 - 1


@given(st.integers(0, 2**32), draws, st.integers(0, 4), st.integers(0, 1))
@example(0, [("mask", (1,)), ("float64", (1,)), ("mask", (4,))], 0, 1)
def test_a_device_draws_the_numbers_of_the_host(
    seed: int, kinds: Any, position: int, half: int
) -> None:
    check(seed, kinds, buffer_pos=position, has_uint32=half, uinteger=7 * half)


@pytest.mark.parametrize("words", [1, 2, 3, 4])
def test_a_counter_of_256_bits_carries(words: int) -> None:
    check(
        0,
        [("float64", (1000,)), ("mask", (9,))],
        counter=[LAST - 3] + [LAST] * (words - 1) + [0] * (4 - words),
    )


def check(seed: int, kinds: Any, **changes: Any) -> None:
    host, device = (philox(seed, **changes) for _ in range(2))
    with strict_device.installed():
        before = strict_device.transfers
        rounded = any(kind == "float16" for kind, _ in kinds)  # on the host
        for kind, shape in kinds:
            expected = drawn(kind, shape, host, "cpu")
            found = drawn(kind, shape, device, "cuda")
            assert backend.device_of(found) == "cuda:0"
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            np.testing.assert_array_equal(found.get(), expected)
            assert state(host) == state(device)
        assert rounded or strict_device.transfers == before


def test_on_a_gpu(gpu: str) -> None:
    host, device = (philox(3) for _ in range(2))
    kinds = [("mask", (7,)), ("float32", (5, 7)), ("mask", (3000,)), ("float64", (99,))]
    for kind, shape in kinds * 3:
        expected = drawn(kind, shape, host, "cpu")
        np.testing.assert_array_equal(drawn(kind, shape, device, "cuda").get(), expected)
        assert state(host) == state(device)


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "functions"])
def test_layers_and_tensors_have_the_same_numbers(
    accelerator: str, monkeypatch: pytest.MonkeyPatch, kernel: bool
) -> None:
    if not kernel:
        monkeypatch.setattr(kernels, "on_gpu", {})
    found = []
    for device in ("cpu", "cuda"):
        tg.manual_seed(5)
        x = tg.ones(6, 4, 3, device=device)
        arrays = [tg.rand(3, 5, device=device), tg.rand(4, dtype=tg.float16, device=device)]
        arrays += [tg.functional.dropout(x, 0.4), tg.functional.dropout(x, 0.4, rng=3)]
        layers = [tg.nn.LSTM(3, 4, num_layers=3, dropout=0.5), tg.nn.Linear(3, 2)]
        layers += [tg.nn.LSTM(3, 4, num_layers=3, dropout=0.5, device=device)]
        layers += [tg.nn.Embedding(7, 2, device=device), tg.nn.Linear(3, 2, device=device)]
        arrays += [p for layer in layers for p in layer.parameters()]
        arrays.append(tg.nn.init.uniform(tg.zeros(9, dtype=tg.float64, device=device)))
        layers[2](x)
        found.append([*[a.numpy() for a in arrays], np.array(random.generator().random())])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_generator_draws_on_the_host() -> None:
    host, device = (np.random.default_rng(1) for _ in range(2))
    with strict_device.installed():
        before = strict_device.transfers
        mask = random.keep_mask((40,), 0.5, device, "cuda")
        np.testing.assert_array_equal(mask.get(), random.keep_mask((40,), 0.5, host))
        assert strict_device.transfers == before + 1
    assert state(host) == state(device)


def test_a_mask_is_drawn_again_by_replay(accelerator: str) -> None:
    rng = philox(1)
    with random.record_states() as states:
        first = random.keep_mask((50,), 0.5, rng, "cuda").get()
    with random.replay(states):
        np.testing.assert_array_equal(random.keep_mask((50,), 0.5, rng, "cuda").get(), first)
    assert (random.keep_mask((50,), 0.5, rng, "cuda").get() != first).any()


@pytest.mark.parametrize("device", ["tpu", "cuda:7"])
def test_a_wrong_device_draws_nothing(device: str) -> None:
    rng = philox(1)
    before = state(rng)
    with strict_device.installed(), pytest.raises(tg.errors.DeviceError, match=device):
        random.keep_mask((5,), 0.5, rng, device)
    assert state(rng) == before
