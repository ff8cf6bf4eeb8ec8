"""A run that stops, is saved, and goes on in fresh objects is the run that did not stop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError

F, text, schedule = tg.functional, tg.data.text, tg.optim.schedule

IDS = np.random.default_rng(7).integers(1, 12, 400)
CELLS = {"rnn": tg.nn.RNN, "gru": tg.nn.GRU, "lstm": tg.nn.LSTM}
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": lambda p: tg.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: tg.optim.Adam(p, 0.01),
    "adamw": lambda p: tg.optim.AdamW(p, 0.01),
    "rmsprop": lambda p: tg.optim.RMSprop(p, 0.01, momentum=0.5),
    "adagrad": lambda p: tg.optim.Adagrad(p, 0.1),
}
SCHEDULES = {
    "warm-up and cosine": schedule.compose(schedule.linear_warmup(3), schedule.cosine(12, 0.1)),
    "steps": schedule.step(2),
}
STREAMS: dict[str, Callable[..., Any]] = {
    "sequential": lambda B, T: text.sequential(IDS, B, T),
    "random": lambda B, T: text.random(IDS, B, T, drop_last=False),
    "batches": lambda B, T: tg.data.batches(np.resize(IDS, (4 * B, T + 1)), batch_size=B),
}


class Run:
    """A training run of all that has a state: dropout, streams, a schedule, a carried state."""

    def __init__(self, cell: str, rule: str, factor: str, stream: str, sizes: Any) -> None:
        self.kind, self.sizes = stream, sizes
        B, T, H, layers = sizes
        embedding = tg.nn.Embedding(12, 5)
        rnn = CELLS[cell](5, H, layers, dropout=0.3 if layers > 1 else 0.0)
        self.model = tg.nn.ModuleList([embedding, rnn, tg.nn.Dropout(0.2), tg.nn.Linear(H, 12)])
        self.optimizer = OPTIMIZERS[rule](self.model.parameters())
        self.scheduler = schedule.Scheduler(self.optimizer, SCHEDULES[factor])
        self.stream = STREAMS[stream](B, T)
        self.losses = tg.metrics.Perplexity()
        self.state: Any = None

    def step(self) -> None:
        window = next(self.stream, None)
        if window is None:  # the next epoch
            self.stream, self.state = STREAMS[self.kind](*self.sizes[:2]), None
            window = next(self.stream)
        x, y = window if len(window) == 2 else (window[0].T[:-1], window[0].T[1:])
        embedding, rnn, dropout, head = self.model
        x, y = (ids.to(embedding.weight.device) for ids in (x, y))
        output, state = rnn(embedding(x), self.state)
        loss = F.cross_entropy(head(dropout(output)), y)
        self.optimizer.zero_grad()
        loss.backward()
        tg.optim.clip_grad_norm(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.scheduler.step()
        self.losses.update(loss.item(), y.size)
        self.state = tg.bptt.detach(state) if self.kind == "sequential" else None

    def save(self, path: Path) -> None:
        parts = ("model", "optimizer", "scheduler", "stream", "losses", "state")
        tg.save(path, random=tg.random.get_state(), **{name: getattr(self, name) for name in parts})

    def load(self, path: Path) -> None:
        saved = tg.load(path)
        for name in ("model", "optimizer", "scheduler", "stream", "losses"):
            getattr(self, name).load_state_dict(saved[name])
        self.state = tg.bptt.restore(saved["state"])
        tg.random.set_state(saved["random"])

    def bits(self) -> list[bytes]:
        arrays = list(self.model.state_dict().values())
        for slots in self.optimizer.state_dict()["slots"]:
            arrays += slots.values()
        numbers = np.array([self.optimizer.lr, self.losses.total, self.losses.count])
        return [array.tobytes() for array in (*arrays, numbers)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume") / "run.ckpt"


@given(
    st.tuples(*map(st.sampled_from, map(list, (CELLS, OPTIMIZERS, SCHEDULES, STREAMS)))),
    # Small and large, odd and even: products differ by size in how they are summed.
    st.tuples(
        st.integers(1, 9), st.integers(2, 8), st.sampled_from([3, 16, 33]), st.integers(1, 2)
    ),
    st.lists(st.integers(0, 7), min_size=2, max_size=3),
    st.integers(0, 2**32),
)
def test_a_run_that_was_saved_goes_on_to_the_same_bit(
    path: Path, kinds: Any, sizes: Any, stops: list[int], seed: int
) -> None:
    tg.manual_seed(seed)
    straight = Run(*kinds, sizes)
    for _ in range(sum(stops)):
        straight.step()
    drawn = tg.random.generator().random()

    tg.manual_seed(seed)
    run = Run(*kinds, sizes)
    for steps in stops:
        for _ in range(steps):
            run.step()
        run.save(path)
        tg.manual_seed(seed + 1)  # another process has other random numbers and other parameters
        run = Run(*kinds, sizes)
        run.load(path)
    assert run.bits() == straight.bits()
    assert tg.random.generator().random() == drawn


@pytest.mark.parametrize(
    "kinds",
    [
        ("lstm", "adam", "steps", "sequential"),
        ("gru", "sgd", "warm-up and cosine", "random"),
        ("rnn", "rmsprop", "steps", "batches"),
    ],
    ids=lambda kinds: kinds[0],
)
def test_a_run_on_a_device_goes_on_to_the_same_bit(
    accelerator: str, path: Path, kinds: Any
) -> None:
    """Also if the CPU has read and written the file in between."""
    sizes = 5, 6, 16, 2

    def trained(stops: list[int], on_cpu: bool) -> Any:
        tg.manual_seed(3)
        with tg.default_device("cuda"):
            run = Run(*kinds, sizes)
        for steps in stops:
            with tg.default_device("cuda"):
                for _ in range(steps):
                    run.step()
            run.save(path)
            if on_cpu:
                run = Run(*kinds, sizes)
                run.load(path)
                run.save(path)
            tg.manual_seed(4)
            with tg.default_device("cuda"):
                run = Run(*kinds, sizes)
                run.load(path)
        return run.bits(), tg.random.generator().random()

    straight = trained([6], False)
    assert trained([6], False) == straight  # two runs, the same bits
    assert trained([2, 4], False) == straight
    assert trained([4, 2], True) == straight


@pytest.mark.parametrize("cell", CELLS)
def test_a_restored_state_lies_in_memory_as_it_did(path: Path, cell: str) -> None:
    """Gradients of a state in another layout may have other last bits, by size and by BLAS."""
    executor = tg.fuse.backend()
    tg.fuse.backend("numpy")
    try:
        _, state = CELLS[cell](8, 33, 2)(tg.randn(10, 7, 8))
    finally:
        tg.fuse.backend(executor)
    state = tg.bptt.detach(state)
    state = state if isinstance(state, tuple) else (state,)
    assert state[0].numpy().strides == (7 * 33 * 4, 4, 7 * 4), "in C order this would prove nothing"
    tg.save(path, state=state)
    for again in (tg.bptt.restore(tg.load(path)["state"]), copy.deepcopy(state)):
        for a, b in zip(again, state, strict=True):
            assert a.numpy().strides == b.numpy().strides


# -- streams ---------------------------------------------------------------------------------------


def values(minibatches: Any) -> list[list[Any]]:
    return [[part.numpy().tolist() for part in minibatch] for minibatch in minibatches]


MAKERS: dict[str, Callable[..., Any]] = {
    "sequential": lambda n, B, T, **more: text.sequential(np.arange(n), B, T, **more),
    "random": lambda n, B, T, **more: text.random(np.arange(n), B, T, **more),
    "batches": lambda n, B, T, **more: tg.data.batches(np.arange(n), batch_size=B, **more),
    "in order": lambda n, B, T, **more: tg.data.batches(
        np.arange(n), batch_size=B, shuffle=False, **more
    ),
    "evaluation": lambda n, B, T, drop_last: text.evaluation(np.arange(n), B, T),
}


@given(
    st.sampled_from(list(MAKERS)),
    st.tuples(st.integers(80, 1500), st.integers(1, 7), st.integers(1, 9)),
    st.booleans(),
    st.data(),
)
def test_a_stream_goes_on_where_it_was(
    path: Path, kind: str, sizes: Any, drop_last: bool, data: Any
) -> None:
    def make() -> Any:
        return MAKERS[kind](*sizes, drop_last=drop_last)

    tg.manual_seed(data.draw(st.integers(0, 99)))
    stream = make()
    whole = copy.deepcopy(stream.state_dict())
    everything = values(stream)
    assert next(stream, None) is None
    k = data.draw(st.integers(0, len(everything)))

    again = make()
    again.load_state_dict(whole)
    assert values(next(again) for _ in range(k)) == everything[:k]
    tg.save(path, stream=again)
    other = make()
    for _ in range(data.draw(st.integers(0, 3))):
        next(other, None)
    other.load_state_dict(tg.load(path)["stream"])
    assert values(other) == everything[k:]


def test_an_order_is_saved_in_one_byte_each_and_counts_beyond_255() -> None:
    stream = text.random(np.arange(1000), batch_size=4, steps=9)
    assert stream.state_dict()["drawn"]["order"].dtype == np.uint8
    inputs = [token for x, _ in values(stream) for token in np.ravel(x)]
    assert len(inputs) > 900 and len(set(inputs)) == len(inputs)


def test_a_saved_place_does_not_move_with_the_stream() -> None:
    stream = tg.data.batches(np.arange(9), batch_size=2)
    state = stream.state_dict()
    before = copy.deepcopy(state)
    list(stream)
    np.testing.assert_equal(state, before)
    stream.load_state_dict(state)
    state["drawn"]["order"][:] = 0
    np.testing.assert_equal(stream.state_dict(), before)


FAULTS: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("random", lambda s: s.pop("drawn"), "missing: drawn"),
    ("random", lambda s: s["settings"].pop("steps"), "settings: missing: steps"),
    ("random", lambda s: s["settings"].update(steps=6), "steps is 5 here, and was 6"),
    ("random", lambda s: s["settings"].update(tokens=98), "tokens is 99 here, and was 98"),
    ("random", lambda s: s["settings"].update(drop_last=1), "drop_last is True here, and was 1"),
    ("random", lambda s: s["settings"].update(stream="sequential"), "stream is 'random' here, and"),
    ("random", lambda s: s["drawn"].pop("order"), "drawn: missing: order"),
    ("random", lambda s: s["drawn"].update(offset=5), "offset must be from 0 to 4, got 5"),
    ("random", lambda s: s["drawn"].update(offset=1.0), "offset must be from 0 to 4, got 1.0"),
    ("random", lambda s: s["drawn"].update(order=[0, 1]), "each of 0 to 18 once"),
    ("random", lambda s: s["drawn"].update(order=s["drawn"]["order"][1:]), "each of 0 to 18 once"),
    ("random", lambda s: s["drawn"]["order"].__setitem__(3, 4), "each of 0 to 18 once"),
    ("random", lambda s: s["drawn"].update(order=np.arange(19.0)), "each of 0 to 18 once"),
    ("random", lambda s: s.update(position=10), "position must be from 0 to 9, got 10"),
    ("random", lambda s: s.update(position=-1), "position must be from 0 to 9, got -1"),
    ("random", lambda s: s.update(position=None), "position must be from 0 to 9, got None"),
    ("batches", lambda s: s["settings"].update(shapes=[(98,)]), r"shapes is \[\(99,\)\] here"),
    ("batches", lambda s: s["drawn"]["order"].__setitem__(0, 99), "each of 0 to 98 once"),
    ("sequential", lambda s: s["drawn"].update(offset=-1), "offset must be from 0 to 4, got -1"),
    (
        "evaluation",
        lambda s: s["drawn"].update(offset=0),
        "drawn: unexpected: offset",
    ),
]


@pytest.mark.parametrize(("kind", "damage", "message"), FAULTS)
def test_a_place_that_does_not_fit_is_refused_and_the_stream_stays(
    kind: str, damage: Callable[[dict[str, Any]], Any], message: str
) -> None:
    stream = MAKERS[kind](99, 2, 5, drop_last=True)
    if kind == "random":  # the number of windows depends on the offset
        stream.load_state_dict(
            stream.state_dict() | {"drawn": {"offset": 3, "order": np.arange(19, dtype=np.uint8)}}
        )
    next(stream)
    state, before = copy.deepcopy(stream.state_dict()), stream.state_dict()
    damage(state)
    with pytest.raises(ArgumentError, match=f"{kind}.*(?s:.*){message}"):
        stream.load_state_dict(state)
    np.testing.assert_equal(stream.state_dict(), before)
    stream.load_state_dict(before)


# -- everything else with a state ------------------------------------------------------------------


def changed(state: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**state, **changes}


MACHINE = text.Vocabulary("machine").state_dict()
WORDS = text.Vocabulary("time machine", level="word").state_dict()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "a dict with the keys level, tokens, has_tokenizer is expected, got a NoneType"),
        ({"tokens": ["<unk>"]}, "missing: level\n  missing: has_tokenizer"),
        (changed(MACHINE, more=1), "unexpected: more"),
        (changed(MACHINE, tokens="abc"), "tokens must be a list of strings"),
        (changed(MACHINE, tokens=["<unk>", 1]), "tokens must be a list of strings"),
        (changed(MACHINE, tokens=[]), "the first token must be '<unk>', got"),
        (changed(MACHINE, tokens=["a", "<unk>"]), "the first token must be '<unk>', got"),
        (changed(MACHINE, tokens=["<unk>", "a", "a"]), "the token 'a' occurs twice"),
        (changed(MACHINE, tokens=["<unk>", "ab"]), "the token 'ab' is not one character"),
        (changed(MACHINE, level="byte"), "unknown level 'byte'"),
        (changed(WORDS, has_tokenizer=None), "has_tokenizer None"),
        (changed(WORDS, has_tokenizer=True), "tokenizer=None, but the vocabulary had one"),
    ],
)
def test_a_vocabulary_is_made_of_a_vocabularys_state_only(state: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=f"Vocabulary.from_state_dict: (?s:.*){message}"):
        text.Vocabulary.from_state_dict(state)


def objects() -> dict[str, Any]:
    layer = tg.nn.Linear(2, 1)
    rule = tg.optim.SGD(layer.parameters(), lr=0.5, momentum=0.9)
    metric = tg.metrics.Perplexity()
    metric.update(0.5, 10)
    return {
        "Linear": layer,
        "SGD": rule,
        "Scheduler": schedule.Scheduler(rule, schedule.step(3)),
        "Perplexity": metric,
    }


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("Linear", {"bias": None}, "not an array: bias is a NoneType"),
        ("Linear", {"more": np.zeros(2)}, "unexpected: more"),
        (
            "SGD",
            {"hyperparameters": None},
            "hyperparameters: a dict with the keys lr,.* got a None",
        ),
        ("SGD", {"hyperparameters": {"lr": 1.0}}, "hyperparameters: missing: momentum"),
        ("SGD", {"slots": None}, "the state is for no parameters, there are 2"),
        ("SGD", {"slots": [{}]}, "the state is for 1 parameters, there are 2"),
        ("SGD", {"slots": [None, {}]}, "parameter 0: a dict with the keys u is expected"),
        ("Scheduler", {"count": -1}, "count an integer >= 0"),
        ("Scheduler", {"count": 1.5}, "count an integer >= 0"),
        ("Scheduler", {"base_lr": "high"}, "base_lr must be a float"),
        ("Scheduler", {"base_lr": float("nan")}, "lr must be in"),
        ("Scheduler", {"more": 1}, "unexpected: more"),
        ("Perplexity", {"count": -1}, "count an integer >= 0"),
        ("Perplexity", {"total": None}, "total must be a float"),
        ("Perplexity", {"more": 1}, "unexpected: more"),
    ],
)
def test_a_wrong_state_changes_nothing(kind: str, changes: dict[str, Any], message: str) -> None:
    everything = objects()
    before = copy.deepcopy({name: thing.state_dict() for name, thing in everything.items()})
    with pytest.raises(ArgumentError, match=f"(?s:.*){message}"):
        everything[kind].load_state_dict(before[kind] | changes)
    np.testing.assert_equal({name: o.state_dict() for name, o in everything.items()}, before)


@pytest.mark.parametrize("kind", ["Linear", "SGD", "Scheduler", "Perplexity"])
@pytest.mark.parametrize("state", [None, "run.ckpt", []])
def test_what_is_no_state_is_named(kind: str, state: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"{kind}\.load_state_dict: (?s:.*) expected"):
        objects()[kind].load_state_dict(state)


@pytest.mark.parametrize("setting", ["nesterov", "lr"])
def test_a_switch_is_no_number_and_a_number_no_switch(setting: str) -> None:
    rule = objects()["SGD"]
    state = rule.state_dict()
    state["hyperparameters"][setting] = {"nesterov": 0.5, "lr": True}[setting]
    with pytest.raises(ArgumentError, match=f"{setting} is .*, and a (bool|float) is expected"):
        rule.load_state_dict(state)


STATE = tg.random.get_state()


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        np.random.PCG64(0).state,
        {name: part for name, part in STATE.items() if name != "buffer"},
        STATE | {"state": None},
        STATE | {"state": {"counter": STATE["state"]["counter"]}},
        STATE | {"state": STATE["state"] | {"key": np.zeros(1, np.uint64)}},
        STATE | {"state": STATE["state"] | {"key": np.zeros(3, np.uint64)}},
        STATE | {"state": STATE["state"] | {"counter": [-1, 0, 0, 0]}},
        STATE | {"buffer_pos": -5},
        STATE | {"buffer_pos": 5},
        STATE | {"has_uint32": "x"},
        STATE | {"uinteger": 2**40},
    ],
)
def test_a_wrong_state_of_the_generator_changes_nothing(state: Any) -> None:
    before = tg.random.get_state()
    with pytest.raises(ArgumentError, match=r"a state from random\.get_state"):
        tg.random.set_state(state)
    np.testing.assert_equal(tg.random.get_state(), before)


# -- recurrent states ------------------------------------------------------------------------------


@given(
    st.recursive(st.none() | st.integers(0, 5), lambda inner: st.lists(inner) | st.tuples(inner))
)
def test_a_restored_state_has_the_structure_of_the_saved_one(path: Path, shape: Any) -> None:
    def made(node: Any) -> Any:
        if isinstance(node, int):
            return tg.ones(node, 2)
        return node if node is None else {"s": type(node)(map(made, node))}

    def plain(node: Any) -> Any:
        if isinstance(node, tg.Tensor):
            return node.shape, node.dtype, node.requires_grad
        if isinstance(node, dict):
            return {name: plain(item) for name, item in node.items()}
        return node if node is None else type(node)(map(plain, node))

    state = made(shape)
    tg.save(path, state=tg.bptt.detach(state))
    assert plain(tg.bptt.restore(tg.load(path)["state"])) == plain(state)


def test_only_arrays_are_restored() -> None:
    with pytest.raises(TypeError, match="a saved state is made of arrays, got str"):
        tg.bptt.restore(["h"])


def test_a_stream_of_windows_is_saved_in_a_file(tmp_path: Path) -> None:
    strategy, ids = tg.bptt.Randomized(0.7), np.arange(62)
    stream = strategy.windows(ids, 2)
    next(stream)
    tg.save(tmp_path / "run", stream=stream)
    again = strategy.windows(ids, 2)
    again.load_state_dict(tg.load(tmp_path / "run")["stream"])
    assert [len(x) for x, _, _ in again] == [len(x) for x, _, _ in stream]


def test_a_recurrent_state_is_saved_in_a_file(tmp_path: Path) -> None:
    _, state = tg.nn.LSTM(2, 3)(tg.ones(4, 1, 2))
    tg.save(tmp_path / "run", state=tg.bptt.detach(state))
    restored = tg.bptt.restore(tg.load(tmp_path / "run")["state"])
    for before, after in zip(state, restored, strict=True):
        np.testing.assert_array_equal(before.detach().numpy(), after.numpy())
        assert not after.requires_grad
