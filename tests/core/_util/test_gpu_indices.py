"""Indices on a GPU, which CuPy reads modulo the length: each one out of range is an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strict_device
import tinygrad_rnn as tg
from tinygrad_rnn._util import gpu_indices
from tinygrad_rnn.errors import ArgumentError, ShapeError

SIZE = 4


def assigned(x: tg.Tensor, ids: Any) -> tg.Tensor:
    target = tg.tensor(x)
    with tg.no_grad():
        target[ids] = 1.0
    return target


def hot(x: tg.Tensor, ids: Any) -> tg.Tensor:
    with tg.default_device(x.device):
        return tg.functional.one_hot(ids, SIZE)


# Each use of indices in [0, SIZE), by name; those with a bar take the negative ones of Python too.
USES: dict[str, Callable[[tg.Tensor, Any], tg.Tensor]] = {
    "indexing |": lambda x, ids: x[ids],
    "indexing, second axis |": lambda x, ids: x.T[:, ids],
    "indexing, last axis |": lambda x, ids: x.T[..., ids, None],
    "indexing beside a mask |": lambda x, ids: x[None][[True], ids[:1]],
    "take |": lambda x, ids: x.take(ids, axis=0),
    "take_along_axis |": lambda x, ids: tg.take_along_axis(x[:, 0], ids, axis=0),
    "assignment to a part |": assigned,
    "Embedding": lambda x, ids: tg.functional.embedding(ids, x),
    "one_hot": hot,
    "cross_entropy": lambda x, ids: tg.functional.cross_entropy(x[: len(ids)] @ x.T, ids),
    "cross_entropy, some ignored": lambda x, ids: tg.functional.cross_entropy(
        tg.zeros(len(ids) + 1, SIZE, device=x.device),
        tg.concatenate([ids, tg.tensor([-100], device=x.device)])
        if isinstance(ids, tg.Tensor)
        else np.append(ids, -100),
        ignore_index=-100,
    ),
}
NAMES = st.sampled_from(list(USES))
IDS = st.lists(st.integers(-SIZE - 2, SIZE + 1), min_size=1, max_size=4, unique_by=lambda i: i % 4)


def table(device: str) -> tg.Tensor:
    return tg.tensor(np.arange(12.0).reshape(SIZE, 3), device=device)


@given(name=NAMES, ids=IDS, dtype=st.sampled_from(["int64", "int32", "int8"]))
def test_an_index_out_of_range_is_an_error_wherever_the_indices_are(
    accelerator: str, name: str, ids: list[int], dtype: str
) -> None:
    use, negative = USES[name], name.endswith("|")
    outside = [i for i in ids if not (-SIZE * negative <= i < SIZE)]
    outside = [i for i in outside if "mask" not in name or i == ids[0]]
    array = np.array(ids, dtype)
    expected = None if outside else use(table("cpu"), array).numpy()
    for place in ("cpu", accelerator):
        given_ids = array if place == "cpu" else tg.tensor(array, device=place)
        x = table(accelerator)
        if not outside:
            np.testing.assert_allclose(use(x, given_ids).numpy(), expected, rtol=1e-6)
            continue
        with pytest.raises(IndexError if negative else ArgumentError) as caught:
            use(x, given_ids).numpy()
        message = str(caught.value)
        assert name.partition(",")[0].partition(" |")[0].partition(" beside")[0] in message
        assert any(f"index {i} " in message or f"id {i} " in message for i in outside)
        assert ("found on cuda:0" in message) is (place != "cpu")
        assert x.numpy().tolist() == table("cpu").numpy().tolist()  # reported once


@pytest.mark.parametrize("name", [name for name in USES if "ignored" not in name])
def test_an_unsigned_index_that_is_no_int64_is_an_error(accelerator: str, name: str) -> None:
    ids = tg.tensor(np.array([2**64 - 1 - SIZE], np.uint64), device=accelerator)
    with pytest.raises((IndexError, ArgumentError)):
        USES[name](table(accelerator), ids).numpy()


class TestOnTheStandIn:
    @pytest.fixture(autouse=True)
    def standing_in(self) -> Iterator[None]:
        with strict_device.installed():
            yield

    @pytest.mark.parametrize("name", [name for name in USES if "mask" not in name])
    def test_indices_of_the_host_are_checked_before_they_are_uploaded(self, name: str) -> None:
        x = table("cuda")
        with pytest.raises((IndexError, ArgumentError)):
            before = strict_device.transfers, strict_device.syncs
            USES[name](x, np.array([SIZE]))
        assert (strict_device.transfers, strict_device.syncs) == before

    @pytest.mark.parametrize("name", [name for name in USES if "mask" not in name])
    def test_indices_of_the_device_are_checked_without_waiting(self, name: str) -> None:
        x, ids = table("cuda"), tg.tensor([0, SIZE - 1], device="cuda")
        extra = "ignored" in name  # the test uploads another target
        before = strict_device.syncs, strict_device.transfers
        USES[name](x, ids)
        after = strict_device.syncs, strict_device.transfers
        assert (after[0] - before[0], after[1] - before[1]) == (0, int(extra))

    @pytest.mark.parametrize("read", [lambda x: x.item(), lambda x: x.numpy(), float, print, bool])
    def test_every_read_of_a_value_reports(self, read: Callable[[tg.Tensor], Any]) -> None:
        other = tg.ones((), device="cuda")
        table("cuda")[tg.tensor([SIZE], device="cuda")]
        with pytest.raises(IndexError, match=r"index 4 is out of bounds for an axis of length 4"):
            read(other)
        read(other)

    def test_saving_reports(self) -> None:
        layer = tg.nn.Embedding(SIZE, 2, device="cuda")
        layer(tg.tensor([-1], device="cuda"))
        with pytest.raises(ArgumentError, match=r"Embedding: id -1 is outside \[0, 4\)"):
            layer.state_dict()

    def test_a_metric_reports(self) -> None:
        metric = tg.functional.cross_entropy(
            tg.zeros(1, SIZE, device="cuda"), tg.tensor([SIZE], device="cuda")
        )
        with pytest.raises(ArgumentError, match="cross_entropy: id 4"):
            tg.functional.perplexity(metric)

    def test_many_lengths(self) -> None:
        """Each has a cell of its own, in as many pieces of memory as are needed."""
        lengths = range(1, 3 * gpu_indices._CELLS)
        for n in lengths:
            tg.ones(n, device="cuda")[tg.tensor([n - 1, -n], device="cuda")].numpy()
        for n in lengths:
            tg.ones(n, device="cuda")[tg.tensor([n], device="cuda")]
        with pytest.raises(
            IndexError, match=r"index (\d+) is out of bounds for an axis of length \1 "
        ):
            tg.ones(1, device="cuda").numpy()
        tg.ones(1, device="cuda").numpy()  # one report for all
        last = lengths[-1]
        tg.ones(last, device="cuda")[tg.tensor([last], device="cuda")]
        with pytest.raises(IndexError, match=f"index {last} is out of bounds"):
            tg.ones(1, device="cuda").numpy()

    def test_no_indices_and_no_elements(self) -> None:
        none = tg.tensor(np.zeros(0, np.int64), device="cuda")
        assert table("cuda")[none].shape == (0, 3)
        assert tg.zeros(0, 3, device="cuda")[none].shape == (0, 3)
        with pytest.raises(IndexError, match="index 0 is out of bounds for an axis of length 0"):
            tg.zeros(0, 3, device="cuda")[tg.tensor([0], device="cuda")]

    def test_too_many_indices_are_an_error_of_the_shape(self) -> None:
        ids = tg.tensor([0], device="cuda")
        with pytest.raises((IndexError, ShapeError), match="too many indices"):
            table("cuda")[ids, ids, ids]


def test_an_error_on_the_device_names_the_lowest_negative_index(accelerator: str) -> None:
    x = table(accelerator)
    x[tg.tensor([0, -5, -9], device=accelerator)]
    with pytest.raises(IndexError, match="index -5 is out of bounds"):
        x.numpy()
