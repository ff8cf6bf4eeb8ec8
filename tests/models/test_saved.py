"""`model.save` and `models.load`: the same model in another process, from the file alone."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, CheckpointError, DTypeError, ShapeError
from tinygrad_rnn.models import Classifier, Forecaster, NeuralLM, NGram, RecurrentLM

TEXT = "the time traveller and the time machine\n" * 4
VOCAB = tg.data.text.Vocabulary(TEXT)
WORDS = tg.data.text.Vocabulary(TEXT, level="word")
IDS = VOCAB.encode(TEXT)


class Decay(tg.nn.Cell):
    """A cell of one's own with an argument."""

    def __init__(self, input_size: int, hidden_size: int, rate: float = 0.5) -> None:
        super().__init__()
        self.hidden_size, self.rate = hidden_size, rate
        self.W = tg.nn.Linear(input_size, hidden_size)

    def step(self, z: tg.Tensor, h: tg.Tensor) -> tg.Tensor:
        return self.rate * h + tg.tanh(self.W(z) - h)


class Louder(RecurrentLM):
    """A model of one's own."""


class Smaller(RecurrentLM):
    """A model with other arguments than those of its base class."""

    def __init__(self, size: int) -> None:
        super().__init__(tg.nn.GRUCell, VOCAB, size)


def fitted(model: Forecaster) -> Forecaster:
    model.scaler.fit(np.arange(12.0).reshape(-1, model.num_features) ** 2)
    return model


LANGUAGE: dict[str, Any] = {
    "n-gram": lambda: NGram(3, VOCAB, smoothing=[3, 2, 1]).fit(IDS),
    "n-gram without backoff": lambda: NGram(2, 7, backoff=False).fit([1, 2, 3]),
    "of words": lambda: RecurrentLM(tg.nn.GRUCell, WORDS, 5),
    "of ids": lambda: RecurrentLM(tg.nn.GRUCell, 9, 5),
    "neural": lambda: NeuralLM(3, VOCAB, 5, 6, direct=True, dropout=0.5),
    "LSTM": lambda: RecurrentLM(
        tg.nn.LSTMCell, VOCAB, 6, 2, embedding_dim=3, dropout=0.25, dtype="float64",
        bptt=tg.bptt.Truncated(8, stride=4),
    ),
    "relu": lambda: RecurrentLM(
        tg.nn.RNNCell, VOCAB, 6, nonlinearity="relu", bptt=tg.bptt.Randomized(0.5, max_steps=9)
    ),
    "own cell": lambda: RecurrentLM(Decay, VOCAB, 6, rate=0.25, bptt=tg.bptt.Full(checkpoint=True)),
    "own model": lambda: Louder(tg.nn.GRUCell, VOCAB, 6),
}  # fmt: skip
OTHERS: dict[str, Any] = {
    "classifier": lambda: Classifier(
        tg.nn.GRUCell, VOCAB, ["no", "yes"], 6, 2, embedding_dim=3, bidirectional=True, pool="max"
    ),
    "classifier of features": lambda: Classifier(tg.nn.LSTMCell, 2, np.array([3, 7, 9]), 6),
    "forecaster": lambda: fitted(Forecaster(tg.nn.GRUCell, 2, 6, ahead=3, num_targets=1)),
    "forecaster without data": lambda: Forecaster(Decay, 1, 6, rate=0.75),
}
MODELS = {**LANGUAGE, **OTHERS}


def answer(model: Any) -> Any:
    """Return numbers that depend on everything in the model."""
    if isinstance(model, Classifier) and model.vocabulary is not None:
        return model.predict(["the", "time"]).tolist(), model.probabilities(["the", "time"])
    if isinstance(model, Classifier):
        return model.predict(np.ones((1, 4, 2))).tolist(), model.probabilities(np.ones((1, 4, 2)))
    if isinstance(model, Forecaster):
        return model.num_targets, model.predict(np.arange(8.0).reshape(-1, model.num_features))
    if model.vocabulary is None:
        return model.vocab_size, model.losses([1, 2, 3])
    return model.sample("the time", 20, rng=1), model.losses("the machine")


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_is_the_same(name: str, tmp_path: Path) -> None:
    model, path = MODELS[name](), tmp_path / "model.npz"
    before = tg.random.get_state()
    model.save(path)
    again = tg.models.load(path, classes=[Decay, Louder])
    assert str(tg.random.get_state()) == str(before)  # also after the initial weights
    assert type(again) is type(model) and repr(again) == repr(model)
    (text, numbers), (text_again, numbers_again) = answer(model), answer(again)
    assert text_again == text
    np.testing.assert_array_equal(numbers_again, numbers)
    for one, other in zip(parameters(model), parameters(again), strict=True):
        assert one.dtype == other.dtype and one.requires_grad == other.requires_grad
    path_again = tmp_path / "again.npz"
    again.save(path_again)
    assert path_again.read_bytes() == path.read_bytes()


def parameters(model: Any) -> list[Any]:
    return list(model.parameters()) if isinstance(model, tg.nn.Module) else []


def test_a_fresh_process_needs_the_file_alone(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    names = [n for n in MODELS if "own" not in n and "without data" not in n]
    expected = []
    for i, name in enumerate(names):
        model = MODELS[name]()
        model.save(folder / f"{i}.npz")
        expected.append(repr(answer(model)))
    moved = folder.rename(tmp_path / "moved")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    program = (
        "import sys, numpy as np, tinygrad_rnn as tg\n"
        "from tinygrad_rnn.models import Classifier, Forecaster\n"
        + _source_of_answer()
        + f"for i in range({len(names)}):\n"
        + "    print(repr(answer(tg.models.load(sys.argv[1].format(i)))))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(tg.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(moved / "{}.npz")],
        cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"{line}\n" for line in expected)


def _source_of_answer() -> str:
    lines = Path(__file__).read_text().split("def answer(")[1].split("\n\n\n")[0]
    return "from typing import Any\ndef answer(" + lines + "\n"


def test_the_strategy_and_the_arguments_of_a_cell_are_kept(tmp_path: Path) -> None:
    for name, path in (("LSTM", "a"), ("relu", "b"), ("own cell", "c")):
        model = LANGUAGE[name]()
        model.save(tmp_path / path)
        again = tg.models.load(tmp_path / path, classes=[Decay])
        assert repr(again.rnn.bptt) == repr(model.rnn.bptt)
        assert [vars(c).get("rate") for c in again.rnn.cells] == [
            vars(c).get("rate") for c in model.rnn.cells
        ]
    model.rnn.bptt = None  # the present strategy counts, not that of the constructor
    model.save(tmp_path / "c")
    assert tg.models.load(tmp_path / "c", classes=[Decay]).rnn.bptt is None


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_the_dtypes_are_those_of_the_file(dtype: str, tmp_path: Path) -> None:
    model = fitted(Forecaster(tg.nn.GRUCell, 1, 4))
    for parameter in model.parameters():
        parameter._rebind(parameter._data.astype(dtype))  # the scaler stays float64
    model.save(tmp_path / "model.npz")
    again = tg.models.load(tmp_path / "model.npz")
    assert {str(p.dtype) for p in again.parameters()} == {dtype}
    assert again.scaler.mean.dtype == "float64"
    np.testing.assert_array_equal(again.scaler.mean, model.scaler.mean)


def test_a_tokenizer_is_passed_again(tmp_path: Path) -> None:
    words = tg.data.text.Vocabulary("a-b-a", level="word", tokenizer=lambda text: text.split("-"))
    NGram(2, words).fit("a-b-a").save(tmp_path / "model.npz")
    with pytest.raises(ArgumentError, match="tokenizer"):
        tg.models.load(tmp_path / "model.npz")
    again = tg.models.load(tmp_path / "model.npz", tokenizer=lambda text: text.split("-"))
    assert again.sample("a-b", 2, top_k=1) == "a b"


# -- tokens one by one -----------------------------------------------------------------------------


@given(st.sampled_from(["n-gram", "of words", "neural", "relu"]), st.integers(0, 99), st.data())
def test_a_stream_has_the_tokens_of_sample(name: str, seed: int, data: Any) -> None:
    model = BUILT[name]
    stop = data.draw(st.none() | st.sampled_from(model.vocabulary.tokens[1:]))
    n = data.draw(st.integers(1, 30))
    text = model.sample("the", n, rng=seed, stop=stop)
    streamed = list(model.stream("the", n, rng=seed, stop=stop))
    separator = " " if name == "of words" else ""
    assert separator.join(streamed) == text and stop not in streamed
    whole = list(model.stream("the", n, rng=seed))
    assert streamed == (whole[: whole.index(stop)] if stop in whole else whole)
    ids = model.stream(model.vocabulary.encode("the"), n, rng=seed, stop=stop)
    assert list(ids) == model.vocabulary.encode(streamed).tolist()


BUILT = {name: LANGUAGE[name]() for name in ("n-gram", "of words", "neural", "relu")}


def test_between_two_tokens_the_model_can_be_trained() -> None:
    model = LANGUAGE["neural"]()
    for i, _ in enumerate(model.stream("the", 3)):
        assert tg.is_grad_enabled() and model.training, i
    endless = model.stream([1])
    assert [next(endless) for _ in range(400)]


# -- what a file says ------------------------------------------------------------------------------


def test_frozen_parameters_stay_frozen(tmp_path: Path) -> None:
    model = RecurrentLM(tg.nn.GRUCell, VOCAB, 4, embedding_dim=3)
    model.embedding.requires_grad_(False)
    model.save(tmp_path / "model.npz")
    found = tg.models.load(tmp_path / "model.npz")
    frozen = {name for name, p in found.named_parameters() if not p.requires_grad}
    assert frozen == {"embedding.weight"}


def test_a_class_with_a_name_of_the_library_is_not_taken_for_that(tmp_path: Path) -> None:
    def step(self: Any, z: tg.Tensor, h: tg.Tensor) -> tg.Tensor:
        return tg.nn.GRUCell.step(self, z, h) / 2

    own, path = type("GRUCell", (tg.nn.GRUCell,), {"step": step}), tmp_path / "model.npz"
    mine, theirs = RecurrentLM(own, VOCAB, 4), RecurrentLM(tg.nn.GRUCell, VOCAB, 4)
    mine.save(path)
    with pytest.raises(ArgumentError, match=r"not one of the library.*classes=\[GRUCell\]"):
        tg.models.load(path)
    assert tg.models.load(path, classes=[own]).score(TEXT) == mine.score(TEXT)
    theirs.save(path)
    assert tg.models.load(path, classes=[own]).score(TEXT) == theirs.score(TEXT)


@pytest.mark.parametrize("name", ["LSTM", "own cell", "own model"])
def test_a_file_of_the_version_before(name: str, tmp_path: Path) -> None:
    path, model = tmp_path / "model.npz", MODELS[name]()
    model.save(path)
    saved = tg.load(path)["saved_model"]
    del saved["own"], saved["frozen"]
    for value in saved["arguments"].values():
        if isinstance(value, dict) and value["kind"].endswith(" class"):
            value["kind"] = "class"
    tg.save(path, saved_model=saved)
    assert type(tg.models.load(path, classes=[Decay, Louder])) is type(model)


@pytest.mark.parametrize("part", ["class", "arguments", "weights", "frozen", "own"])
@pytest.mark.parametrize("value", [None, {"kind": "class", "value": 3}])
def test_a_part_of_another_type(part: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    MODELS["LSTM"]().save(path)
    saved = tg.load(path)["saved_model"]
    parts = [saved | {part: value}]
    if part in ("arguments", "weights"):
        parts += [saved | {part: saved[part] | {name: value}} for name in saved[part]]
    for changed in parts:
        tg.save(path, saved_model=changed)
        with contextlib.suppress(ArgumentError, CheckpointError, DTypeError, ShapeError):
            tg.models.load(path)


def test_weights_of_integers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    MODELS["LSTM"]().save(path)
    saved = tg.load(path)["saved_model"]
    saved["weights"]["head.bias"] = saved["weights"]["head.bias"].astype(np.int64)
    tg.save(path, saved_model=saved)
    with pytest.raises(ArgumentError, match=r"head\.bias"):
        tg.models.load(path)


def test_a_changed_pool_dropout_or_vocabulary_is_kept(tmp_path: Path) -> None:
    model = Classifier(tg.nn.GRUCell, VOCAB, 3, 4, dropout=0.1)
    model.summary.pool, model.summary.dropout.p = "max", 0.3
    model.vocabulary = tg.data.text.Vocabulary([*VOCAB.tokens[:0:-1]])
    model.save(tmp_path / "model.npz")
    found = tg.models.load(tmp_path / "model.npz")
    assert found.summary.pool == "max" and found.summary.dropout.p == 0.3
    np.testing.assert_array_equal(found.probabilities(["time"]), model.probabilities(["time"]))


# -- misuse ----------------------------------------------------------------------------------------


def changed(change: Any) -> Any:
    def save(path: Path) -> None:
        model = RecurrentLM(tg.nn.GRUCell, VOCAB, 4, embedding_dim=4)
        change(model)
        model.save(path)

    return save


def written(**state: Any) -> Any:
    def load(path: Path) -> Any:
        tg.save(path, **state)
        return tg.models.load(path)

    return load


def loaded(name: str, **options: Any) -> Any:
    def load(path: Path) -> Any:
        MODELS[name]().save(path)
        return tg.models.load(path, **options)

    return load


def of_instances() -> Any:
    return RecurrentLM([tg.nn.GRUCell(len(VOCAB), 4)], VOCAB, 4)


def a_strategy_of_ones_own(model: Any) -> None:
    model.rnn.bptt = type("Own", (tg.bptt.Full,), {})()


MISUSES: dict[str, tuple[Any, str]] = {
    "cells as instances": (lambda path: of_instances().save(path), "with the class"),
    "another head": (
        changed(lambda m: setattr(m, "head", tg.nn.Linear(4, 3))),
        r"head.weight is \(3, 4\)",
    ),
    "one more layer": (
        changed(lambda m: setattr(m, "more", tg.nn.Linear(4, 3))),
        "more.weight is .*missing",
    ),
    "tied weights": (
        changed(lambda m: setattr(m.head, "weight", m.embedding.weight)),
        "head.weight is tied",
    ),
    "another class of layer": (
        changed(lambda m: setattr(m, "head", type("Mine", (tg.nn.Linear,), {})(4, len(VOCAB)))),
        "head: class is 'Mine', and 'Linear'",
    ),
    "a setting that no argument has": (
        changed(lambda m: setattr(m.rnn.cells[0], "hidden_size", 5)),
        "rnn.cells.0: hidden_size is 5, and 4",
    ),
    "a model with other arguments": (
        lambda path: Smaller(3).save(path),
        r"Smaller\(.*\) cannot be made: .*: give its __init__ the arguments of the class",
    ),
    "two classes of one name": (
        loaded("own cell", classes=[Decay, type("Decay", (Decay,), {})]),
        "two have the same name",
    ),
    "the name of a tokenizer": (
        loaded("n-gram", tokenizer="split"),
        "tokenizer: the function of the vocabulary is expected, got 'split'",
    ),
    "a strategy of one's own": (changed(a_strategy_of_ones_own), "bptt = None"),
    "a probability that is a function": (
        changed(lambda m: setattr(m.rnn, "bptt", tg.bptt.Randomized(lambda t: 0.5))),
        "bptt.keep",
    ),
    "a checkpoint": (written(model={}, epoch=3), "a checkpoint: read it by tinygrad_rnn.load"),
    "a model that is incomplete": (written(saved_model={"class": "NGram"}), "incomplete"),
    "a model that is a number": (written(saved_model=3), "incomplete"),
    "an unknown class": (loaded("own cell"), r"classes=\[Decay\]"),
    "an unknown model": (loaded("own model"), r"classes=\[Louder\]"),
    "a name of a class": (loaded("own cell", classes=["Decay"]), r"classes=\[MyCell\]"),
    "an instance": (loaded("own cell", classes=[tg.nn.GRUCell(1, 1)]), r"classes=\[MyCell\]"),
    "a class with other arguments": (
        loaded("own cell", classes=[type("Decay", (tg.nn.RNNCell,), {})]),
        "as they were",
    ),
    "an unknown device": (loaded("LSTM", device="tpu"), "tpu"),
    "a path that is none": (lambda path: NGram(2, 5).save(3), "the path"),
    "a stop that is no token": (lambda path: BUILT["n-gram"].sample("t", 3, stop="the"), "stop"),
    "a stop that is no id": (lambda path: BUILT["n-gram"].sample("t", 3, stop=0), "stop=0"),
    "a stop that is a bool": (lambda path: BUILT["n-gram"].sample("t", 3, stop=True), "stop=True"),
    "two stops": (
        lambda path: BUILT["n-gram"].sample("t", 3, stop=np.array([1, 2])),
        r"stop=array.*a token, or its id",
    ),
    "the unknown token as stop": (
        lambda path: BUILT["n-gram"].sample("t", 3, stop="<unk>"),
        "stop='<unk>' is not one",
    ),
    "a stop of a model without a vocabulary": (
        lambda path: NGram(2, 5).fit([1, 2]).sample([1], 3, stop="a"),
        "has only the size of its vocabulary",
    ),
    "a stream of 0": (lambda path: BUILT["n-gram"].stream("t", 0), "stream: n"),
    "a stream from what is no token": (lambda path: BUILT["n-gram"].stream("?"), "prefix"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_a_misuse_is_answered_with_the_cure(name: str, tmp_path: Path) -> None:
    action, message = MISUSES[name]
    with pytest.raises((ArgumentError, CheckpointError, DTypeError), match=message):
        action(tmp_path / "model.npz")
    if "loaded" not in action.__qualname__ and "written" not in action.__qualname__:
        assert not list(tmp_path.iterdir())


def test_the_state_of_a_vocabulary_tells_how_to_make_it(tmp_path: Path) -> None:
    tg.save(tmp_path / "run.npz", vocabulary=VOCAB)
    state = tg.load(tmp_path / "run.npz")
    with pytest.raises(AttributeError, match=r"'encode'.*Vocabulary.from_state_dict"):
        state["vocabulary"].encode("a")
    assert state["vocabulary"] == VOCAB.state_dict()
    assert tg.data.text.Vocabulary.from_state_dict(state["vocabulary"]).tokens == VOCAB.tokens
    copied = pickle.loads(pickle.dumps(copy.deepcopy(state["vocabulary"])))
    assert copied == VOCAB.state_dict() and not hasattr(copied, "state_dict")
