"""N-gram language models: probabilities from the counts of n-grams in a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from .._util.state_keys import check_keys
from ..data.text import Vocabulary, split
from ..errors import ArgumentError
from ..tensors import checks
from .language import Array, Ids, LanguageModel, State

_CHUNK = 1 << 16  # tokens scored at a time


class _Table:
    """The n-grams of one order that occur: a sorted array of keys (row of the context, last token).

    The context of an n-gram is an (n-1)-gram, represented by its row in the table of that order, or
    by -1 if it does not occur. So a key is a small integer at any order.
    """

    def __init__(self, keys: Array, counts: Array, contexts: int, vocab_size: int) -> None:
        self.keys, self.counts, self._vocab_size = keys, counts, vocab_size
        self.totals = np.bincount(keys // vocab_size, counts, contexts)  # of each context

    def find(self, contexts: Array, tokens: Array) -> Array:
        """Return the rows of n-grams, -1 for each that does not occur."""
        keys = contexts * self._vocab_size + tokens
        rows = np.searchsorted(self.keys, keys)
        rows[rows == len(self.keys)] = 0
        return np.where((contexts >= 0) & (self.keys[rows] == keys), rows, -1)

    def estimate(self, contexts: Array, rows: Array, prior: Array, weight: float) -> Array:
        """Return (n(context, token) + ε prior) / (n(context) + ε); the prior if both are 0."""
        count = np.where(rows >= 0, self.counts[rows], 0)
        total = np.where(contexts >= 0, self.totals[contexts], 0) + weight
        return np.where(total > 0, (count + weight * prior) / np.where(total > 0, total, 1), prior)


class NGram(LanguageModel):
    r"""The n-gram model: the next token depends on the last n - 1 tokens.

    .. math::
        P(x_t) &= \frac{n(x_t) + ε_1 / V}{N + ε_1} \\
        P(x_t ∣ h) &= \frac{n(h, x_t) + ε_k P(x_t ∣ h')}{n(h) + ε_k}

    where h are the k - 1 tokens before x_t, and h' is h without the first of them. The more often h
    occurs, the less weight has the estimate of the shorter context; if h does not occur, the
    probability is that estimate.

    Parameters
    ----------
    order : int
        n: 1 for unigrams, 2 for bigrams, ...
    vocabulary : Vocabulary or int
        The vocabulary of the training text, or its size V.
    smoothing : float or sequence of float
        ε, one for all orders or one for each, at least 0. Without backoff, ε = V adds one to every
        count, which is Laplace's rule. With ε = 0, an n-gram that does not occur in the training
        text has probability 0, and a text that contains it has infinite perplexity.
    backoff : bool
        Whether the prior is the estimate of the next shorter context, as above, or 1 / V.

    Raises
    ------
    ArgumentError
        If the order is below 1, or `smoothing` is negative or does not have one number per order.

    Notes
    -----
    Smoothing towards the shorter context: MacKay and Peto 1995, A Hierarchical Dirichlet Language
    Model; Zhang, Lipton, Li and Smola, Dive into Deep Learning, section "Language Models". The
    first tokens of a text have shorter contexts and are predicted by the lower orders.

    There are V^n possible n-grams, but at most one per token of the training text occurs, so that
    most n-grams have no count even at small n. See `table_sizes`.

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

    def _arguments(self) -> dict[str, Any]:
        return {
            "order": self.order,
            "vocabulary": self._given_vocabulary(),
            "smoothing": list(self.smoothing),
            "backoff": self.backoff,
        }

    def __repr__(self) -> str:
        text = f"NGram({self.order}, V={self.vocab_size}, smoothing={self.smoothing}"
        sizes = self.table_sizes if self._tables else "not fitted"
        return f"{text}, backoff={self.backoff})  n-grams: {sizes}"

    def fit(self, ids: Ids) -> Self:
        """Count the n-grams of a text; earlier counts are replaced.

        Parameters
        ----------
        ids : array_like or Tensor of integers, shape (n,), or str
            The training text, at least as long as the order.

        Returns
        -------
        NGram
            The model itself.

        Raises
        ------
        ArgumentError
            If the text is too short, or an id is not in the vocabulary; the counts are unchanged.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> tg.models.NGram(2, 3).fit([1, 2, 1, 2, 1]).table_sizes
        (2, 2)
        """
        tokens = self._ids("NGram.fit", "ids", ids, least=self.order)
        tables: list[_Table] = []
        contexts = np.zeros(len(tokens), np.int64)  # of each token; row 0 is the empty context
        for k in range(self.order):
            keys, rows_of_tokens, counts = np.unique(
                contexts * self.vocab_size + tokens[k:], return_inverse=True, return_counts=True
            )
            rows = len(tables[-1].keys) if tables else 1
            tables.append(_Table(keys, counts, rows, self.vocab_size))
            contexts = rows_of_tokens[:-1]
        self._tables = tables
        return self

    def tune(
        self, ids: Ids, grid: Sequence[float] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    ) -> Self:
        """Choose the smoothing by grid search on the last tenth of a text, then count all of it.

        The ε of each order, the lowest first, is that of the grid with the lowest loss on the last
        tenth of the text, for the counts of the other nine tenths.

        Parameters
        ----------
        ids : array_like or Tensor of integers, shape (n,), or str
            The training text, nine tenths of which are at least as long as the order.
        grid : sequence of float
            The candidates for ε.

        Returns
        -------
        NGram
            The model itself; the attribute `smoothing` has the chosen values.

        Raises
        ------
        ArgumentError
            If the text is too short, an id is not in the vocabulary, or the grid is empty or has a
            negative number; the model is unchanged.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> text = "the time traveller and the time machine " * 20
        >>> tg.models.NGram(3, tg.data.text.Vocabulary(text)).tune(text).smoothing
        (0.1, 0.1, 0.1)
        """
        tokens = self._ids("NGram.tune", "ids", ids, least=self.order)
        if not len(grid):
            raise ArgumentError("NGram.tune: grid is empty: pass at least one number >= 0")
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
        """The number of different k-grams in the text, for k = 1 … n, of V^k possible ones."""
        return tuple(len(table.keys) for table in self._fitted("table_sizes"))

    def counts(self, k: int) -> tuple[Array, Array]:
        """Return the k-grams of the text and their counts, the most frequent first.

        Parameters
        ----------
        k : int
            From 1 to the order.

        Returns
        -------
        grams : ndarray of int64, shape (m, k)
        counts : ndarray of int64, shape (m,)
            For words, nearly a line when plotted against 1 … m on logarithmic axes: Zipf's law.

        Raises
        ------
        ArgumentError
            If k is out of range.

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
            V times the row of the context in the table of the next lower order, plus the last
            token.

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
        """Restore the smoothing and the counts of a `state_dict`.

        Parameters
        ----------
        state : mapping
            The `state_dict` of a model of the same order, size of vocabulary and backoff.

        Raises
        ------
        ArgumentError
            If `state` does not fit; the model is unchanged.

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
                raise ArgumentError(f"NGram.load_state_dict: the table of {k}-grams is corrupted")
            tables.append(_Table(key.copy(), count.copy(), rows, self.vocab_size))
        self.smoothing, self._tables = fresh.smoothing, tables

    def _fitted(self, operation: str) -> list[_Table]:
        if not self._tables:
            raise ArgumentError(f"NGram.{operation}: the model has no counts yet: call fit(ids)")
        return self._tables

    def _estimate(self, k: int, contexts: Array, rows: Array, shorter: Array) -> Array:
        prior = shorter if self.backoff else np.full_like(shorter, 1 / self.vocab_size)
        return self._tables[k].estimate(contexts, rows, prior, self.smoothing[k])

    def _read(self, ids: Array, state: State) -> tuple[Array, State]:
        """Return the distribution after all tokens so far; the state has the last n - 1 of them."""
        tables = self._fitted("log_probs")
        history = ids if state is None else np.concatenate([state, ids])
        history = history[max(len(history) - self.order + 1, 0) :].astype(np.int64)
        every = np.arange(self.vocab_size)
        p = np.full(self.vocab_size, 1 / self.vocab_size)
        for k in range(len(history) + 1):
            context = np.zeros(1, np.int64)
            for table, token in zip(tables, history[len(history) - k :], strict=False):
                context = table.find(context, token)
            contexts = np.broadcast_to(context, every.shape)
            p = self._estimate(k, contexts, tables[k].find(contexts, every), p)
        with np.errstate(divide="ignore"):  # log 0, if the smoothing is 0
            return np.log(p), history

    def _losses(self, ids: Array, context: Array, batch_size: int, steps: int) -> Iterator[Array]:
        """Yield the losses of a text in chunks, vectorised over their tokens."""
        tables = self._fitted("losses")
        before = context
        for start in range(0, len(ids), _CHUNK):
            before = before[max(len(before) - self.order + 1, 0) :].astype(np.int64)
            chunk = np.concatenate([before, ids[start : start + _CHUNK]])
            p = np.full(len(chunk), 1 / self.vocab_size)
            contexts = np.zeros(len(chunk), np.int64)
            for k, table in enumerate(tables[: len(chunk)]):
                rows = table.find(contexts, chunk[k:])
                p[k:] = self._estimate(k, contexts, rows, p[k:])
                contexts = rows[:-1]
            with np.errstate(divide="ignore"):
                yield -np.log(p[len(before) :])
            before = chunk


def _is_table(keys: Any, counts: Any, limit: int) -> bool:
    """Return whether two arrays are a table: increasing keys below a limit, and their counts."""
    return (
        all(isinstance(a, np.ndarray) and a.dtype == np.int64 for a in (keys, counts))
        and keys.shape == counts.shape == (keys.size,)
        and keys.size > 0
        and bool(0 <= keys[0] and keys[-1] < limit and (np.diff(keys) > 0).all())
        and bool((counts > 0).all())
    )
