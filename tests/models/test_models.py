"""Language models: proper distributions, every token predicted once, and what is drawn from them.

The references are written from the formulas, with dictionaries and loops.
"""

from __future__ import annotations

import copy
import math
import pickle
import threading
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, DTypeError, ShapeError
from tinygrad_rnn.models import NeuralLM, NGram, RecurrentLM, compare

V = 4
IDS = st.lists(st.integers(0, V - 1), min_size=1, max_size=12)
TEXTS = st.lists(st.integers(0, V - 1), min_size=5, max_size=40)
SEEDS = st.integers(0, 2**32 - 1)


class Leaky(tg.nn.Cell):
    """A cell of one's own, which takes no dtype, device or generator."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.W = tg.nn.Linear(input_size, hidden_size)

    def step(self, z: tg.Tensor, h: tg.Tensor) -> tg.Tensor:
        return 0.5 * h + tg.tanh(self.W(z) - h)


def fitted(order: int = 3, **options: Any) -> NGram:
    return NGram(order, V, **options).fit(np.random.default_rng(1).integers(V, size=60))


MODELS: dict[str, Any] = {
    "unigram": lambda: fitted(1),
    "trigram": lambda: fitted(3),
    "Laplace": lambda: fitted(3, smoothing=V, backoff=False),
    "long n-gram": lambda: fitted(6, smoothing=[3, 2, 1, 0.5, 0.1, 0.01]),
    "neural": lambda: NeuralLM(3, V, 5, 6, direct=True, dropout=0.5, rng=0),
    "neural, one token": lambda: NeuralLM(1, V, 5, 6, rng=0),
    "RNN": lambda: RecurrentLM(tg.nn.RNNCell, V, 6, rng=0),
    "GRU": lambda: RecurrentLM(tg.nn.GRUCell, V, 6, 2, embedding_dim=3, dropout=0.5, rng=0),
    "LSTM": lambda: RecurrentLM(tg.nn.LSTMCell, V, 6, embedding_dim=3, dtype="float64", rng=0),
    "own cell": lambda: RecurrentLM(Leaky, V, 6, embedding_dim=3),
}
BUILT = {name: make() for name, make in MODELS.items()}
every_model = pytest.mark.parametrize("model", BUILT.values(), ids=BUILT)


# -- the protocol ----------------------------------------------------------------------------------


@every_model
@given(context=st.lists(st.integers(0, V - 1), max_size=12))
def test_probabilities_sum_to_one(model: Any, context: list[int]) -> None:
    log_p = model.log_probs(context)
    assert log_p.shape == (V,)
    assert log_p.dtype == np.float64
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-12)


@every_model
def test_the_probabilities_of_all_texts_of_one_length_sum_to_one(model: Any) -> None:
    total = sum(math.exp(-model.losses(ids).sum()) for ids in product(range(V), repeat=3))
    assert total == pytest.approx(1, abs=1e-5)


@every_model
@given(ids=IDS, context=st.lists(st.integers(0, V - 1), max_size=9))
def test_losses_are_the_log_probabilities_one_by_one(
    model: Any, ids: list[int], context: list[int]
) -> None:
    text = context + ids
    expected = [-model.log_probs(text[:t])[text[t]] for t in range(len(context), len(text))]
    losses = model.losses(ids, context)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)
    assert model.score(ids, context) == pytest.approx(np.mean(losses), rel=1e-12)
    assert model.perplexity(ids, context) == pytest.approx(math.exp(np.mean(losses)), rel=1e-12)


@every_model
@given(ids=TEXTS, cut=st.integers(1, 4), steps=st.integers(1, 50))
def test_in_pieces_as_at_once(model: Any, ids: list[int], cut: int, steps: int) -> None:
    whole = model.losses(ids)
    halves = [model.losses(ids[:cut]), model.losses(ids[cut:], context=ids[:cut])]
    np.testing.assert_allclose(np.concatenate(halves), whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.losses(ids, steps=steps), whole, rtol=1e-5, atol=1e-6)


def test_an_n_gram_text_of_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = fitted(4), np.random.default_rng(0).integers(V, size=50)
    whole = model.losses(ids, [1, 2])
    monkeypatch.setattr("tinygrad_rnn.models.ngram._CHUNK", 3)
    np.testing.assert_array_equal(model.losses(ids, [1, 2]), whole)


@every_model
@given(ids=TEXTS, batch_size=st.integers(1, 50), steps=st.integers(1, 20))
def test_columns_predict_every_token_once(
    model: Any, ids: list[int], batch_size: int, steps: int
) -> None:
    if isinstance(model, NGram):
        expected = model.losses(ids)
    else:  # a column begins with the one token before it
        length = -(-len(ids) // batch_size)
        stream = [0, *ids]
        columns = [stream[i : i + length + 1] for i in range(0, len(ids), length)]
        expected = np.concatenate(
            [-column_log_probs(model, column) for column in columns if len(column) > 1]
        )
    assert len(expected) == len(ids)
    got = model.score(ids, batch_size=batch_size, steps=steps)
    assert got == pytest.approx(np.mean(expected), rel=1e-5)


def column_log_probs(model: Any, column: list[int]) -> np.ndarray:
    """Return log p of all but the first, by one call of the network."""
    training = model.training
    with tg.no_grad():
        logits, _ = model.eval()(tg.tensor(np.array(column[:-1])[:, None]))
    model.train(training)
    log_p = tg.log_softmax(logits, axis=-1).numpy()[:, 0]
    return log_p[np.arange(len(column) - 1), column[1:]]


@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint64"])
@pytest.mark.parametrize("name", ["trigram", "neural", "GRU"])
def test_any_integers_are_ids(name: str, dtype: str) -> None:
    model, ids = BUILT[name], np.array([1, 3, 0, 2])
    expected = model.losses(ids, [2, 1])
    np.testing.assert_array_equal(
        model.losses(ids.astype(dtype), np.array([2, 1], dtype)), expected
    )
    np.testing.assert_array_equal(model.log_probs(ids.astype(dtype)), model.log_probs(ids))
    if name == "trigram":
        assert fitted().fit(ids.astype(dtype)).table_sizes == (4, 3, 2)


def test_a_text_is_encoded_by_the_vocabulary() -> None:
    vocab = tg.data.text.Vocabulary("abcab")
    for model in (NGram(2, vocab).fit("abcab"), NeuralLM(2, vocab), RecurrentLM(Leaky, vocab, 5)):
        np.testing.assert_array_equal(model.losses("abz", "ca"), model.losses([1, 2, 0], [3, 1]))
        written = model.sample("ab", 7, rng=3)
        assert written == vocab.decode(model.sample([1, 2], 7, rng=3))
        assert "<unk>" not in written
    words = tg.data.text.Vocabulary("to be or not to be", level="word")
    model = NGram(2, words, smoothing=0.1).fit("to be or not to be")
    assert model.sample("or not", 2, top_k=1) == "to be"


def test_asking_changes_nothing_of_a_network() -> None:
    model = RecurrentLM(tg.nn.GRUCell, V, 6, 2, dropout=0.5, rng=0)
    model.dropout.eval()
    modes = [module.training for module in model.modules()]
    assert modes.count(False) == 1
    random, weights = str(tg.random.get_state()), model.state_dict()
    first = model.score([1, 2, 3])
    model.sample([1], 3, rng=0)
    model.log_probs([1])
    assert model.score([1, 2, 3]) == first  # no dropout
    with pytest.raises(ArgumentError):
        model.score([1, 7])
    assert [module.training for module in model.modules()] == modes
    assert str(tg.random.get_state()) == random
    assert all((value == weights[name]).all() for name, value in model.state_dict().items())
    assert tg.is_grad_enabled()


class Meeting(tg.nn.Module):
    """A layer in which a thread named "reader" waits for another thread at its first call."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.here = inner, threading.Barrier(2, timeout=10)
        self.met = False

    def forward(self, *args: Any) -> Any:
        if threading.current_thread().name == "reader" and not self.met:
            self.met = True
            self.here.wait()
            self.here.wait()
        return self.inner(*args)


QUESTIONS: dict[str, Any] = {
    "sample": lambda model: model.sample([1, 2], 3, rng=0),
    "log_probs": lambda model: model.log_probs([1, 2]),
    "score": lambda model: model.score([1, 2, 3, 1], steps=2),
    "losses": lambda model: model.losses([1, 2, 3, 1], [1], steps=2),
    "perplexity": lambda model: model.perplexity([1, 2, 3, 1]),
    "compare": lambda model: compare({"it": model}, [1, 2, 3, 1])["it"].nats,
}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("name", ["neural", "GRU"])
def test_who_asks_a_network_takes_no_part_in_its_training(name: str, question: str) -> None:
    ask, model = QUESTIONS[question], MODELS[name]()
    expected = ask(model.eval())
    model.train().head = meeting = Meeting(model.head)
    found: list[Any] = []
    reader = threading.Thread(target=lambda: found.append(ask(model)), name="reader")
    reader.start()
    meeting.here.wait()  # the reader is in the middle of its question
    assert all(module.training for module in model.modules()) and tg.is_grad_enabled()
    ids = tg.tensor(np.ones((6, 4), np.int64))
    one, other = (model(ids)[0].numpy() for _ in range(2))
    assert (one != other).any()  # dropout
    meeting.here.wait()
    reader.join()
    np.testing.assert_array_equal(found[0], expected)


def test_what_is_switched_while_one_asks_holds_for_who_asks() -> None:
    class MonteCarlo(RecurrentLM):
        """It keeps its dropout before the logits, as an average over networks."""

        def _read(self, ids: Any, state: Any) -> Any:
            self.dropout.train()
            seen.append([m.training for m in (self, self.rnn, self.dropout)])
            return super()._read(ids, state)

    seen: list[list[bool]] = []
    model = MonteCarlo(tg.nn.GRUCell, V, 6, 2, dropout=0.5, rng=0)
    assert (model.log_probs([1]) != model.log_probs([1])).any()
    model.eval()
    model.log_probs([1])
    assert seen == [[False, False, True]] * 3
    assert not any(module.training for module in model.modules())


def test_a_part_is_asked_for_its_mode_through_each_block() -> None:
    whole = tg.nn.Sequential(tg.nn.Dropout(0.5), tg.nn.Sequential(tg.nn.Dropout(0.5)))
    part, outer = whole[1], whole.evaluating()

    @outer
    def modes() -> Any:
        while True:
            yield [module.training for module in whole.modules()]

    generator = modes()
    assert next(generator) == [False] * 4
    assert [module.training for module in whole.modules()] == [True] * 4  # while it is suspended
    with outer:
        part.train()
        with part.evaluating():
            assert [module.training for module in whole.modules()] == [False] * 4
            whole.train()
        assert [module.training for module in whole.modules()] == [True] * 4
        copied = copy.deepcopy(whole)
        assert copied.training and pickle.loads(pickle.dumps(whole)).training
    with pytest.raises(ZeroDivisionError), outer:
        raise ZeroDivisionError
    assert [module.training for module in whole.modules()] == [True] * 4
    whole.eval()
    with outer:
        whole.train()
    assert [module.training for module in whole.modules()] == [False] * 4


# -- sampling --------------------------------------------------------------------------------------


@every_model
def test_the_likeliest_token_is_taken_by_every_road(model: Any) -> None:
    context, expected = [1], []
    for _ in range(6):
        expected.append(1 + int(model.log_probs(context + expected)[1:].argmax()))
    for options in ({"top_k": 1}, {"top_p": 1e-12}, {"temperature": 1e-6}):
        assert model.sample(context, 6, rng=0, **options).tolist() == expected, options


@every_model
@given(seed=SEEDS, n=st.integers(1, 5))
def test_a_seed_writes_the_same_text(model: Any, seed: int, n: int) -> None:
    one, other = (model.sample([2], n, rng=seed) for _ in range(2))
    assert one.shape == (n,)
    np.testing.assert_array_equal(one, other)
    assert ((one > 0) & (one < V)).all()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1, None, 1.0), (0.5, None, 1.0), (2, 2, 1.0), (1, 3, 0.6)]
)
def test_frequencies_are_those_of_the_distribution(
    temperature: float, top_k: int | None, top_p: float
) -> None:
    model = NGram(1, 6, smoothing=0.6).fit([0] * 9 + [1] * 2 + [2] * 5 + [3] * 8 + [4])
    n = 10_000
    drawn = model.sample([], n, temperature, top_k, top_p, rng=5)
    p = {t: math.exp(model.log_probs()[t]) ** (1 / temperature) for t in range(1, 6)}
    likeliest = sorted(p, key=lambda t: (-p[t], t))[:top_k]
    total, kept, held = sum(p[t] for t in likeliest), [], 0.0
    for t in likeliest:
        if held < top_p * total:
            kept.append(t)
        held += p[t]
    counts = Counter(drawn.tolist())
    assert set(counts) <= set(kept)
    for t in kept:
        share = p[t] / sum(p[k] for k in kept)
        assert abs(counts[t] / n - share) <= 5 * math.sqrt(share * (1 - share) / n), t


LOG_P = st.lists(st.floats(-20, 20), min_size=3, max_size=8, unique=True).map(np.array)


@given(LOG_P, st.integers(1, 8), st.floats(0.01, 1), st.floats(0.1, 3), SEEDS)
def test_what_is_drawn(
    log_p: np.ndarray, top_k: int, top_p: float, temperature: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    choice = tg.models.sampling.draw(log_p, temperature, top_k, top_p, rng)
    assert choice > 0, "the unknown token was written"
    likelier = log_p[1:][log_p[1:] > log_p[choice]]
    assert len(likelier) < top_k
    p = np.exp(np.sort(log_p[1:])[::-1] / temperature)[:top_k]
    assert p[: len(likelier)].sum() / p.sum() <= top_p + 1e-9


def test_nothing_is_drawn_from_what_is_not_finite() -> None:
    model = NeuralLM(2, V, rng=0)
    for bad in (np.nan, np.inf):
        model.head.bias.data = np.array([0, 1, 2, bad], np.float32)
        with pytest.raises(FloatingPointError, match="not finite"):
            model.sample([1], 1)


# -- counting --------------------------------------------------------------------------------------


def counted(ids: list[int], k: int) -> Counter[tuple[int, ...]]:
    return Counter(tuple(ids[i : i + k]) for i in range(len(ids) - k + 1))


def probability(
    ids: list[int], context: tuple[int, ...], token: int, weights: list[float], backoff: bool
) -> float:
    """Return the formula of the class's docstring, with loops over the text."""
    prior = 1 / V
    if context and backoff:
        prior = probability(ids, context[1:], token, weights, backoff)
    weight = weights[len(context)]
    count = counted(ids, len(context) + 1)[(*context, token)]
    total = sum(counted(ids, len(context) + 1)[(*context, w)] for w in range(V))
    return (count + weight * prior) / (total + weight) if total + weight else prior


@given(
    ids=TEXTS,
    held_out=IDS,
    weights=st.lists(st.floats(0, 9), min_size=4, max_size=4),
    backoff=st.booleans(),
)
def test_the_formula(
    ids: list[int], held_out: list[int], weights: list[float], backoff: bool
) -> None:
    model = NGram(4, V, weights, backoff).fit(ids)
    for t, token in enumerate(held_out):
        p = probability(ids, tuple(held_out[max(t - 3, 0) : t]), token, weights, backoff)
        assert math.exp(model.log_probs(held_out[:t])[token]) == pytest.approx(p, rel=1e-9)


@given(ids=TEXTS)
def test_the_table(ids: list[int]) -> None:
    model = NGram(5, V).fit(ids)
    for k in range(1, 6):
        expected = counted(ids, k)
        grams, counts = model.counts(k)
        assert dict(zip(map(tuple, grams.tolist()), counts.tolist(), strict=True)) == expected
        assert (np.diff(counts) <= 0).all()
        assert model.table_sizes[k - 1] == len(expected) <= min(V**k, len(ids) - k + 1)


@given(ids=st.lists(st.integers(0, V - 1), min_size=20, max_size=60))
def test_the_tuned_smoothing_is_the_best_of_the_grid_at_the_end_of_the_text(ids: list[int]) -> None:
    grid = (0.5, 2, 8)
    model = NGram(2, V).tune(ids, grid)
    begin, end = tg.data.text.split(ids)
    (low, high) = model.smoothing
    tried = {s: NGram(1, V, s).fit(begin).score(end) for s in grid}
    assert tried[low] == min(tried.values())
    tried = {s: NGram(2, V, (low, s)).fit(begin).score(end, begin) for s in grid}
    assert tried[high] == min(tried.values())
    np.testing.assert_array_equal(model.counts(2)[1], NGram(2, V).fit(ids).counts(2)[1])


def test_laplace_adds_one() -> None:
    model = NGram(2, 3, smoothing=3, backoff=False).fit([1, 2, 1, 1])
    assert np.exp(model.log_probs([1])) == pytest.approx([1 / 5, 2 / 5, 2 / 5])  # (0 + 1) / (2 + 3)


def test_without_smoothing_what_was_never_seen_is_impossible() -> None:
    model = NGram(2, 3, smoothing=0).fit([1, 2, 1, 2])
    assert model.perplexity([1, 2, 1]) == pytest.approx(2 ** (1 / 3))
    assert model.perplexity([1, 1]) == math.inf
    with pytest.raises(ArgumentError, match="all known tokens have"):
        NGram(1, 3, smoothing=0).fit([0]).sample([], 1)


def test_an_order_whose_table_would_not_fit_into_an_integer() -> None:
    vocab_size = 60_000  # to the power of 8: beyond 64 bits
    ids = np.random.default_rng(0).integers(vocab_size, size=500)
    model = NGram(8, vocab_size, smoothing=1e-6).fit(ids)
    assert model.table_sizes[-1] == 493
    assert model.perplexity(ids[8:], context=ids[:8]) == pytest.approx(1, abs=1e-3)


# -- networks --------------------------------------------------------------------------------------


def test_the_mlp_of_bengio() -> None:
    model = NeuralLM(2, V, 3, 5, direct=True, rng=0)
    w = model.state_dict()
    ids, state = np.array([[1], [2], [3]]), np.array([[2]])
    logits, after = model(tg.tensor(ids), tg.tensor(state))
    assert after.numpy().tolist() == [[3]]
    for t, pair in enumerate([(2, 1), (1, 2), (2, 3)]):
        x = np.concatenate([w["embedding.weight"][i] for i in pair])
        hidden = np.tanh(w["hidden.weight"] @ x + w["hidden.bias"])
        y = w["head.weight"] @ hidden + w["head.bias"] + w["direct.weight"] @ x
        np.testing.assert_allclose(logits.numpy()[t, 0], y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: NeuralLM(2, 4, 8, 32, rng=0),
        lambda: RecurrentLM(tg.nn.GRUCell, 4, 16, rng=0),
        lambda: RecurrentLM(Leaky, 4, 16, embedding_dim=4),
    ],
    ids=["neural", "GRU", "own cell"],
)
def test_one_loop_trains_them_all(make: Any) -> None:
    tg.manual_seed(0)
    model = make()
    ids = np.array([1, 2, 1, 3] * 60)  # what follows 1 depends on the token before it
    optimizer = tg.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(12):
        state = None
        for x, y in tg.data.text.sequential(ids, batch_size=4, steps=8):
            logits, state = model(x, tg.bptt.detach(state))
            loss = tg.functional.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert model.perplexity([1, 2, 1, 3, 1, 2, 1, 3], context=[1, 2, 1, 3]) < 1.1
    assert model.sample([1, 2, 1, 3], 4, top_k=1).tolist() == [1, 2, 1, 3]


def test_a_strategy_belongs_to_the_gradient_and_not_to_the_score() -> None:
    ids = tg.tensor(np.random.default_rng(0).integers(V, size=(12, 2)))
    scores, gradients = [], []
    for bptt in (None, tg.bptt.Truncated(3), tg.bptt.Randomized(0.5, rng=0)):
        model = RecurrentLM(tg.nn.GRUCell, V, 6, rng=0, bptt=bptt)
        logits, _ = model(ids)
        tg.functional.cross_entropy(logits, ids).backward()
        gradients.append(model.rnn.weight_hh_l0.grad.numpy())
        scores.append(model.score(ids.numpy()[:, 0]))
    assert len(set(scores)) == 1
    assert not np.allclose(gradients[0], gradients[1])
    assert not np.allclose(gradients[0], gradients[2])


def test_a_generator_makes_the_same_network_and_so_does_its_state() -> None:
    one = RecurrentLM(tg.nn.LSTMCell, V, 6, embedding_dim=3, rng=4)
    other = RecurrentLM(tg.nn.LSTMCell, V, 6, embedding_dim=3, rng=4)
    assert one.score([1, 2, 3]) == other.score([1, 2, 3])
    other = RecurrentLM(tg.nn.LSTMCell, V, 6, embedding_dim=3, rng=5)
    assert one.score([1, 2, 3]) != other.score([1, 2, 3])
    other.load_state_dict(one.state_dict())
    assert one.score([1, 2, 3]) == other.score([1, 2, 3])


# -- comparing -------------------------------------------------------------------------------------


def test_figures_beside_each_other() -> None:
    vocab = tg.data.text.Vocabulary("abcab")
    models = {"one": NGram(1, vocab).fit("abcab"), "two": NGram(2, vocab).fit("abcab")}
    figures = compare(models, "abx", context="c")
    assert list(figures) == ["one", "two"]
    for name, model in models.items():
        assert figures[name].nats == model.score("abx", context="c")
        assert figures[name].bits == pytest.approx(math.log2(figures[name].perplexity))
        assert figures[name].perplexity == model.perplexity("abx", context="c")
        assert figures[name].unknown_rate == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (tg.data.text.Vocabulary("abcd"), "4 and 5 tokens"),
        (tg.data.text.Vocabulary("abd"), "but different ones"),
        (tg.data.text.Vocabulary("a b c", level="word"), "but different ones"),
        (7, "4 and 7 tokens"),
    ],
)
def test_different_vocabularies_are_not_compared(other: Any, why: str) -> None:
    vocab = tg.data.text.Vocabulary("abc")
    models = {"one": NGram(1, vocab).fit([1]), "two": NGram(1, other).fit([1])}
    with pytest.raises(ArgumentError, match=f"'one' and 'two'.*{why}"):
        compare(models, [1])
    again = tg.data.text.Vocabulary.from_state_dict(vocab.state_dict())
    assert len(compare(models | {"two": NGram(1, again).fit([1])}, [1])) == 2
    assert len(compare(models | {"two": NGram(1, 4).fit([1])}, [1])) == 2  # it cannot be told


# -- errors ----------------------------------------------------------------------------------------

ALL = [BUILT[name] for name in ("trigram", "neural", "GRU")]


@pytest.mark.parametrize("model", ALL, ids=["trigram", "neural", "GRU"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0}, r"temperature .* must be in \(0, inf\)"),
        ({"temperature": -1.0}, r"temperature .* must be in \(0, inf\)"),
        ({"temperature": math.nan}, r"temperature .* must be in \(0, inf\)"),
        ({"temperature": math.inf}, r"temperature .* must be in \(0, inf\)"),
        ({"top_k": 0}, "top_k must be a positive integer"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\]"),
        ({"top_p": 1.5}, r"top_p must be in \(0, 1\]"),
        ({"temperature": "hot"}, "temperature .* must be a number"),
        ({"n": 0}, "n must be a positive integer"),
        ({"n": 2.5}, "n must be a positive integer"),
        ({"prefix": [1, V]}, f"prefix contains the id {V}, the model's ids are 0 to {V - 1}"),
        ({"prefix": [-1]}, "prefix contains the id -1"),
        ({"prefix": "ab"}, "prefix is a str.*Vocabulary"),
        ({"rng": -1}, "rng"),
    ],
)
def test_sample_refuses(model: Any, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        model.sample(**({"prefix": [1], "n": 3} | wrong))


@pytest.mark.parametrize("model", ALL, ids=["trigram", "neural", "GRU"])
@pytest.mark.parametrize("ask", ["losses", "score", "perplexity"])
def test_a_score_refuses(model: Any, ask: str) -> None:
    for wrong, message in [
        ({"ids": []}, "ids has 0 tokens, one token or more"),
        ({"ids": [1, V]}, f"ids contains the id {V}"),
        ({"ids": [1], "context": [V]}, f"context contains the id {V}"),
        ({"ids": [1], "steps": 0}, "steps must be a positive integer"),
        ({"ids": "ab"}, "ids is a str"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            getattr(model, ask)(**wrong)
    if ask != "losses":
        with pytest.raises(ArgumentError, match="batch_size must be a positive integer"):
            getattr(model, ask)([1], batch_size=0)
    with pytest.raises(DTypeError):
        getattr(model, ask)([0.5])
    with pytest.raises(ShapeError):
        getattr(model, ask)([[1, 2]])


def test_a_prefix_with_unknown_characters_is_refused() -> None:
    vocab = tg.data.text.Vocabulary("abc")
    with pytest.raises(ArgumentError, match=r"the vocabulary lacks 'x', token 2 .*of prefix"):
        NGram(2, vocab).fit("abc").sample("abxb", 1)
    with pytest.raises(ArgumentError, match="ids has 0 tokens"):
        NGram(2, vocab).fit("abc").perplexity("")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NGram(0, V), "order must be a positive integer"),
        (lambda: NGram(2, V, smoothing=-1), "smoothing must be one number >= 0"),
        (lambda: NGram(2, V, smoothing=[1, 2, 3]), "each of the 2 orders"),
        (lambda: NGram(2, V, smoothing=math.nan), "smoothing must be one number >= 0"),
        (lambda: NGram(2, 1), r"vocabulary, or its size .* must be an integer >= 2, got 1"),
        (lambda: NGram(2, "abc"), "vocabulary, or its size .* must be an integer"),
        (lambda: NGram(3, V).fit([1, 2]), "ids has 2 tokens, 3 tokens or more"),
        (lambda: NGram(3, V).fit([1, 2, 9]), "ids contains the id 9"),
        (lambda: NGram(3, V).score([1]), "call fit"),
        (lambda: NGram(3, V).log_probs([1]), "call fit"),
        (lambda: NGram(3, V).table_sizes, "call fit"),
        (lambda: fitted(3).counts(4), "k must be from 1 to 3"),
        (lambda: fitted(3).counts(0), "k must be a positive integer"),
        (lambda: NeuralLM(0, V), "context must be a positive integer"),
        (lambda: NeuralLM(2, V, hidden_size=0), "Linear: .* must be a positive integer"),
        (lambda: NeuralLM(2, V, dropout=2), "p must be in"),
        (lambda: RecurrentLM(tg.nn.GRUCell, V, 0), "hidden_size must be a positive"),
        (lambda: RecurrentLM(tg.nn.GRUCell, V, 5, embedding_dim=0), "embedding_dim"),
        (lambda: RecurrentLM(tg.nn.GRUCell, V, 5, bidirectional=True), "bidirectional must be"),
        (lambda: RecurrentLM(tg.nn.GRUCell, V, 5, batch_first=True), "batch_first must be"),
        (lambda: compare({}, [1]), "models is empty"),
    ],
)
def test_what_makes_no_model(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def test_counts_are_saved_and_loaded(tmp_path: Path) -> None:
    model, path = fitted(3, smoothing=[3, 2, 1]), tmp_path / "model.ckpt"
    tg.save(path, model=model)
    other = NGram(3, V)
    other.load_state_dict(tg.load(path)["model"])
    np.testing.assert_array_equal(other.losses([1, 2, 3, 0]), model.losses([1, 2, 3, 0]))
    assert (other.smoothing, other.table_sizes) == (model.smoothing, model.table_sizes)
    empty = NGram(3, V)
    empty.load_state_dict(NGram(3, V, 5.0).state_dict())
    assert "not fitted" in repr(empty)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": 2}, "order is 3 here, and was 2"),
        ({"vocab_size": 9}, "vocab_size is 4 here"),
        ({"backoff": False}, "backoff is True here"),
        ({"smoothing": [-1]}, "smoothing must be"),
        ({"keys": []}, "0 tables of keys and 3 of counts"),
        ({"more": 1}, "unexpected: more"),
        ({"counts": [np.zeros(4, int)] * 3}, "the table of 1-grams is corrupted"),
        ({"keys": [np.arange(4)[::-1]] * 3}, "the table of 1-grams is corrupted"),
        ({"keys": [np.arange(4) + 1] * 3}, "the table of 1-grams is corrupted"),
        ({"keys": [np.arange(4.0)] * 3}, "the table of 1-grams is corrupted"),
        ({"keys": [list(range(4))] * 3}, "the table of 1-grams is corrupted"),
    ],
)
def test_a_broken_state_changes_nothing(change: dict[str, Any], message: str) -> None:
    model = fitted(3)
    before = model.losses([1, 2, 3])
    with pytest.raises(ArgumentError, match=message):
        model.load_state_dict(model.state_dict() | change)
    np.testing.assert_array_equal(model.losses([1, 2, 3]), before)


def test_a_failed_fit_keeps_the_counts() -> None:
    model = NGram(2, V).fit([1, 2, 3])
    with pytest.raises(ArgumentError):
        model.fit([1])
    for ids, grid in [([1, 2], [1]), ([1, 2] * 9, []), ([1, 2] * 9, [1, -1])]:
        with pytest.raises(ArgumentError):
            model.tune(ids, grid)
    assert model.table_sizes == (3, 2)
    assert model.smoothing == (1, 1)


def test_a_window_is_time_by_batch() -> None:
    for model in ALL[1:]:
        with pytest.raises(ShapeError, match=r"\(T, B\)"):
            model(tg.tensor([1, 2]))
    with pytest.raises(ShapeError, match=r"state of shape \(1, 1\), \(2, 1\) is needed"):
        BUILT["neural"](tg.tensor([[1]]), tg.tensor([[1]]))


def test_repr() -> None:
    assert "not fitted" in repr(NGram(2, V))
    assert "(4," in repr(fitted())
    assert "parameters" in repr(BUILT["GRU"])


def test_a_language_model_takes_the_strategy_of_a_window() -> None:
    model, state = RecurrentLM(tg.nn.GRUCell, 7, 5), None
    for window in tg.bptt.Truncated(4).windows(np.arange(41) % 7, 2):
        logits, state = model(window.x, state, bptt=window.bptt)
        tg.functional.cross_entropy(logits, window.y).backward()  # and no window before it


def test_dropout_of_one_layer_acts_before_the_logits_and_gives_no_warning() -> None:
    for cell in (tg.nn.GRUCell, [tg.nn.GRUCell(5, 4)]):
        model, ids = RecurrentLM(cell, 5, 4, dropout=0.5, rng=0), tg.tensor([[1]])
        assert model.training and (model(ids)[0] != model.eval()(ids)[0]).numpy().any()
