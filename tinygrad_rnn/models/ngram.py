"""Models that count: the probability of a token is how often it followed the tokens before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from .._util.state_keys import check_keys
from ..data.text import Vocabulary, split
from ..errors import ArgumentError
from ..tensors import checks
from .language import Array, Ids, LanguageModel, State

_PIECE = 1 << 16  # tokens that are scored at once


class _Table:
    """The n-grams of one order that occur: a sorted array of (place of the context, last token).

    The place of an n-gram is its row here; its context is an n-gram of the order below, named by
    its row there, or -1 if it does not occur. So a key is small at any order.
    """

    def __init__(self, keys: Array, counts: Array, contexts: int, vocab_size: int) -> None:
        self.keys, self.counts, self._vocab_size = keys, counts, vocab_size
        self.totals = np.bincount(keys // vocab_size, counts, contexts)  # of each context

    def find(self, contexts: Array, tokens: Array) -> Array:
        """Return the places of n-grams, -1 where one does not occur."""
        wanted = contexts * self._vocab_size + tokens
        places = np.searchsorted(self.keys, wanted)
        places[places == len(self.keys)] = 0
        return np.where((contexts >= 0) & (self.keys[places] == wanted), places, -1)

    def estimate(self, contexts: Array, places: Array, prior: Array, weight: float) -> Array:
        """Return (n(context, token) + ε prior) / (n(context) + ε); the prior where both are 0."""
        count = np.where(places >= 0, self.counts[places], 0)
        total = np.where(contexts >= 0, self.totals[contexts], 0) + weight
        return np.where(total > 0, (count + weight * prior) / np.where(total > 0, total, 1), prior)


class NGram(LanguageModel):
    r"""A model that looks at the last n - 1 tokens and counts what followed them in a text.

    .. math::
        P(x_t) &= \frac{n(x_t) + ε_1 / V}{N + ε_1} \\
        P(x_t ∣ h) &= \frac{n(h, x_t) + ε_k P(x_t ∣ h')}{n(h) + ε_k}

    where h are the k - 1 tokens before x_t, and h' is h without the first of them: the more often h
    was seen, the less the shorter context has to say, and where h was never seen, it says all.

    Parameters
    ----------
    order : int
        n: 1 for unigrams, 2 for bigrams, ...
    vocabulary : Vocabulary or int
        The vocabulary of the training text, or its size V.
    smoothing : float or sequence of float
        ε, one for all orders or one for each, at least 0. Without backoff, ε = V adds one to every
        count, which is Laplace's rule. With 0 an n-gram that was never seen has probability 0, and
        a text with one of them an infinite perplexity.
    backoff : bool
        Whether the prior is the estimate of the next shorter context, as above, or 1 / V.

    Raises
    ------
    ArgumentError
        An order below 1, a negative ε, or not one for each order.

    Notes
    -----
    Smoothing towards the shorter context: MacKay and Peto 1995, A Hierarchical Dirichlet Language
    Model; Zhang, Lipton, Li and Smola, Dive into Deep Learning, section "Language Models". The
    first tokens of a text have shorter contexts, and the lower orders predict them.

    The table has at most V^n rows, and at most one for each token of the text: the first is why
    counting explodes, the second why most of what it asks about was never seen. See `table_sizes`.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> vocab = tg.data.text.Vocabulary("abracadabra")
    >>> model = tg.models.NGram(2, vocab, smoothing=0).fit("abracadabra")
    >>> probability = tg.exp(tg.tensor(model.log_probs("a"))).numpy()
    >>> {t: float(p) for t, p in zip(vocab.tokens, probability) if p}  # of 4 successors of a
    {'b': 0.5, 'c': 0.25, 'd': 0.25}
    """

    def __init__(
        self,
        order: int,
        vocabulary: Vocabulary | int,
        smoothing: float | Sequence[float] = 1.0,
        backoff: bool = True,
    ) -> None:
        order = checks.positive(order, "NGram: order")
        super().__init__(vocabulary)
        self.order, self.backoff = order, backoff
        weights = np.atleast_1d(np.array(smoothing, np.float64))
        if weights.ndim != 1 or len(weights) not in (1, order) or not (weights >= 0).all():
            raise ArgumentError(
                f"NGram: smoothing must be one number >= 0, or one for each of the {order} orders, "
                f"got {smoothing!r}"
            )
        self.smoothing = tuple(np.broadcast_to(weights, order).tolist())
        self._tables: list[_Table] = []

    def __repr__(self) -> str:
        about = f"NGram({self.order}, V={self.vocab_size}, smoothing={self.smoothing}"
        sizes = self.table_sizes if self._tables else "not fitted"
        return f"{about}, backoff={self.backoff})  n-grams: {sizes}"

    def fit(self, ids: Ids) -> Self:
        """Count the n-grams of a text, in place of those counted before.

        Parameters
        ----------
        ids : array_like or Tensor of integers, shape (n,), or str
            The training text, as long as the order at least.

        Returns
        -------
        NGram
            The model itself.

        Raises
        ------
        ArgumentError
            A text that is too short, or an id outside the vocabulary; the counts are unchanged.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> tg.models.NGram(2, 3).fit([1, 2, 1, 2, 1]).table_sizes
        (2, 2)
        """
        tokens = self._ids("NGram.fit", "ids", ids, least=self.order)
        tables: list[_Table] = []
        contexts = np.zeros(len(tokens), np.int64)  # of each token: first the empty one
        for k in range(self.order):
            keys, places, counts = np.unique(
                contexts * self.vocab_size + tokens[k:], return_inverse=True, return_counts=True
            )
            rows = len(tables[-1].keys) if tables else 1
            tables.append(_Table(keys, counts, rows, self.vocab_size))
            contexts = places[:-1]
        self._tables = tables
        return self

    def tune(
        self, ids: Ids, grid: Sequence[float] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    ) -> Self:
        """Choose the smoothing by the end of a text, then count all of it.

        Nine tenths of the text are counted, and the ε of each order, the lowest first, is the one
        that predicts the last tenth best. No other text is looked at.

        Parameters
        ----------
        ids : array_like or Tensor of integers, shape (n,), or str
            The training text: nine tenths of it as long as the order at least.
        grid : sequence of float
            What is tried.

        Returns
        -------
        NGram
            The model itself; what was chosen stands in `smoothing`.

        Raises
        ------
        ArgumentError
            A text that is too short, an id outside the vocabulary, or a grid that is empty or holds
            a negative number; the model is unchanged.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> text = "the time traveller and the time machine " * 20
        >>> tg.models.NGram(3, tg.data.text.Vocabulary(text)).tune(text).smoothing
        (0.1, 0.1, 0.1)
        """
        tokens = self._ids("NGram.tune", "ids", ids, least=self.order)
        if not len(grid):
            raise ArgumentError("NGram.tune: grid is empty, one number >= 0 or more are needed")
        begin, end = split(tokens)
        chosen: list[float] = []
        for order in range(1, self.order + 1):
            scores = {}
            for weight in grid:
                trial = NGram(order, self.vocab_size, [*chosen, weight], self.backoff)
                scores[weight] = trial.fit(begin).score(end, context=begin)
            chosen.append(min(scores, key=scores.__getitem__))
        self.fit(tokens)
        self.smoothing = tuple(map(float, chosen))
        return self

    @property
    def table_sizes(self) -> tuple[int, ...]:
        """How many different k-grams the text has, for k = 1 … n; V^k are possible."""
        return tuple(len(table.keys) for table in self._fitted("table_sizes"))

    def counts(self, k: int) -> tuple[Array, Array]:
        """Return the k-grams of the text and how often each occurs, the most frequent first.

        Parameters
        ----------
        k : int
            From 1 to the order.

        Returns
        -------
        grams : ndarray of int64, shape (m, k)
        counts : ndarray of int64, shape (m,)
            Against 1 … m, on logarithmic axes, nearly a line for words: Zipf's law.

        Raises
        ------
        ArgumentError
            k is out of range.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> vocab = tg.data.text.Vocabulary("abracadabra")
        >>> grams, counts = tg.models.NGram(3, vocab).fit("abracadabra").counts(3)
        >>> vocab.decode(grams[0]), int(counts[0])
        ('abr', 2)
        """
        tables = self._fitted("counts")
        checks.positive(k, "NGram.counts: k")
        if k > self.order:
            raise ArgumentError(f"NGram.counts: k must be from 1 to {self.order}, got {k}")
        grams = np.zeros((1, 0), np.int64)
        for table in tables[:k]:
            contexts, tokens = np.divmod(table.keys, self.vocab_size)
            grams = np.column_stack([grams[contexts], tokens])
        falling = np.argsort(-tables[k - 1].counts, kind="stable")
        return grams[falling], tables[k - 1].counts[falling]

    def state_dict(self) -> dict[str, Any]:
        """Return the smoothing and the counts, for `load_state_dict`.

        Returns
        -------
        dict
            ``"order"``, ``"vocab_size"``, ``"backoff"``, ``"smoothing"`` (list of float), and for
            each order, lowest first, ``"keys"`` and ``"counts"`` (lists of int64 arrays): a key is
            V times the row of the context in the table below, plus the last token.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> tg.models.NGram(1, 3).fit([1, 2, 1]).state_dict()["counts"]
        [array([2, 1])]
        """
        return {
            "order": self.order,
            "vocab_size": self.vocab_size,
            "backoff": self.backoff,
            "smoothing": list(self.smoothing),
            "keys": [table.keys.copy() for table in self._tables],
            "counts": [table.counts.copy() for table in self._tables],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the smoothing and the counts of a `state_dict`.

        Parameters
        ----------
        state : mapping
            What `state_dict` of a model of the same order, size of vocabulary and backoff returned.

        Raises
        ------
        ArgumentError
            `state` is something else; the model is unchanged.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> model = tg.models.NGram(1, 3)
        >>> model.load_state_dict(tg.models.NGram(1, 3).fit([1, 2, 1]).state_dict())
        >>> model.table_sizes
        (2,)
        """
        own = self.state_dict()
        check_keys("NGram.load_state_dict", state, own)
        for name in ("order", "vocab_size", "backoff"):
            if state[name] != own[name]:
                raise ArgumentError(
                    f"NGram.load_state_dict: {name} is {own[name]!r} here, and was {state[name]!r}"
                )
        fresh = NGram(self.order, self.vocab_size, state["smoothing"])
        keys, counts = state["keys"], state["counts"]
        if not len(keys) == len(counts) in (0, self.order):
            raise ArgumentError(
                f"NGram.load_state_dict: {len(keys)} tables of keys and {len(counts)} of counts, "
                f"{self.order} of each are needed"
            )
        tables: list[_Table] = []
        for k, (key, count) in enumerate(zip(keys, counts, strict=True), 1):
            rows = len(tables[-1].keys) if tables else 1
            if not _is_table(key, count, rows * self.vocab_size):
                raise ArgumentError(f"NGram.load_state_dict: the table of {k}-grams is damaged")
            tables.append(_Table(key.copy(), count.copy(), rows, self.vocab_size))
        self.smoothing, self._tables = fresh.smoothing, tables

    def _fitted(self, operation: str) -> list[_Table]:
        if not self._tables:
            raise ArgumentError(f"NGram.{operation}: nothing has been counted yet: call fit(ids)")
        return self._tables

    def _estimate(self, k: int, contexts: Array, places: Array, shorter: Array) -> Array:
        prior = shorter if self.backoff else np.full_like(shorter, 1 / self.vocab_size)
        return self._tables[k].estimate(contexts, places, prior, self.smoothing[k])

    def _read(self, ids: Array, state: State) -> tuple[Array, State]:
        """Return the distribution after all tokens so far, of which the state keeps n - 1."""
        tables = self._fitted("log_probs")
        known = ids if state is None else np.concatenate([state, ids])
        known = known[max(len(known) - self.order + 1, 0) :].astype(np.int64)
        every = np.arange(self.vocab_size)
        p = np.full(self.vocab_size, 1 / self.vocab_size)
        for k in range(len(known) + 1):
            context = np.zeros(1, np.int64)
            for table, token in zip(tables, known[len(known) - k :], strict=False):
                context = table.find(context, token)
            contexts = np.broadcast_to(context, every.shape)
            p = self._estimate(k, contexts, tables[k].find(contexts, every), p)
        with np.errstate(divide="ignore"):  # log 0, where nothing is smoothed
            return np.log(p), known

    def _pieces(self, ids: Array, context: Array, batch_size: int, steps: int) -> Iterator[Array]:
        """Yield the losses of a text, a piece at a time, all orders beside each other."""
        tables = self._fitted("losses")
        before = context
        for start in range(0, len(ids), _PIECE):
            before = before[max(len(before) - self.order + 1, 0) :].astype(np.int64)
            piece = np.concatenate([before, ids[start : start + _PIECE]])
            p = np.full(len(piece), 1 / self.vocab_size)
            contexts = np.zeros(len(piece), np.int64)
            for k, table in enumerate(tables[: len(piece)]):
                places = table.find(contexts, piece[k:])
                p[k:] = self._estimate(k, contexts, places, p[k:])
                contexts = places[:-1]
            with np.errstate(divide="ignore"):
                yield -np.log(p[len(before) :])
            before = piece


def _is_table(keys: Any, counts: Any, limit: int) -> bool:
    """Return whether two arrays are a table: rising keys below a limit, and a count for each."""
    return (
        all(isinstance(a, np.ndarray) and a.dtype == np.int64 for a in (keys, counts))
        and keys.shape == counts.shape == (keys.size,)
        and keys.size > 0
        and bool(0 <= keys[0] and keys[-1] < limit and (np.diff(keys) > 0).all())
        and bool((counts > 0).all())
    )
