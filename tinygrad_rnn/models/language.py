"""The interface of language models: next-token distribution, loss of a text, sampling."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import random as tg_random
from ..data.metrics import Perplexity
from ..data.text import Vocabulary
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from ..functional import perplexity
from ..random import Rng
from ..tensors import checks
from ..tensors.checks import token_ids
from . import sampling
from .saved import SavedModel

Ids = npt.ArrayLike | Tensor | str
Array = npt.NDArray[Any]
State = Any  # a model's summary of the tokens so far; None before the first token


class LanguageModel(SavedModel):
    """The interface that n-gram and neural language models share.

    A model defines p(token | all tokens before it). Token 0 is the unknown token, as in
    `Vocabulary`. Every token of a text is predicted exactly once, also the first one: the tokens
    before it are either passed (`context`), or unknown.

    A subclass defines two methods: ``_read(ids, state)`` reads more tokens and returns the
    log-probabilities of the next one, with the new state; ``_losses`` yields the losses of a text.

    Parameters
    ----------
    vocabulary : Vocabulary or int
        The vocabulary of the training text; or its size V, if texts are passed as ids only.

    Attributes
    ----------
    vocabulary : Vocabulary or None
        The vocabulary; None if only its size was passed.
    vocab_size : int
        V, the unknown token included.

    Raises
    ------
    ArgumentError
        If V is less than 2.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> isinstance(tg.models.NGram(2, 5), tg.models.LanguageModel)
    True
    """

    vocabulary: Vocabulary | None
    vocab_size: int

    def __init__(self, vocabulary: Vocabulary | int) -> None:
        self.vocabulary = vocabulary if isinstance(vocabulary, Vocabulary) else None
        size = len(vocabulary) if isinstance(vocabulary, Vocabulary) else vocabulary
        name = f"{type(self).__name__}: vocabulary, or its size with the unknown token,"
        self.vocab_size = checks.positive(size, name, least=2)

    def _read(self, ids: Array, state: State) -> tuple[Array, State]:
        raise NotImplementedError(f"{type(self).__name__} does not define _read(ids, state)")

    def _losses(self, ids: Array, context: Array, batch_size: int, steps: int) -> Iterator[Array]:
        raise NotImplementedError(f"{type(self).__name__} does not define _losses(...)")

    def _given_vocabulary(self) -> Vocabulary | int:
        """Return the argument of the constructor: the vocabulary, or its size."""
        return self.vocab_size if self.vocabulary is None else self.vocabulary

    def _inference(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context of all evaluations: networks disable dropout and gradients."""
        return contextlib.nullcontext()

    def log_probs(self, context: Ids = ()) -> Array:
        """Return the log-probability of each token to be the next one.

        Parameters
        ----------
        context : array_like or Tensor of integers, or str
            All tokens so far; empty at the beginning of a text.

        Returns
        -------
        ndarray of float64, shape (V,)
            Their exponentials sum to 1.

        Raises
        ------
        ArgumentError
            If an id is not in the vocabulary.

        Examples
        --------
        >>> import numpy as np
        >>> import tinygrad_rnn as tg
        >>> vocab = tg.data.text.Vocabulary("aab")
        >>> model = tg.models.NGram(1, vocab, smoothing=3).fit("aab")
        >>> np.exp(model.log_probs()).round(3).tolist()  # (0 + 1) / 6, (2 + 1) / 6, (1 + 1) / 6
        [0.167, 0.5, 0.333]
        """
        ids = self._ids("log_probs", "context", context, least=0)
        with self._inference():
            return self._read(ids, None)[0]

    def losses(self, ids: Ids, context: Ids = (), steps: int = 256) -> Array:
        """Return -log p(token | all tokens before it) of each token.

        Parameters
        ----------
        ids : array_like or Tensor of integers, shape (n,), or str
            The text, for instance the held-out one.
        context : array_like or Tensor of integers, or str
            The text before it, for instance the end of the training text.
        steps : int
            The number of tokens that a network reads at a time. It affects memory but not the
            result, since the state is carried.

        Returns
        -------
        ndarray of float64, shape (n,)
            In nats. The losses of the two halves of a text, the first as context of the second, are
            those of the whole text.

        Raises
        ------
        ArgumentError
            If the text is empty, or an id is not in the vocabulary.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> vocab = tg.data.text.Vocabulary("abab")
        >>> model = tg.models.NGram(2, vocab).fit("abababab")
        >>> model.losses("abc").round(2).tolist()  # the vocabulary has no c: it is token 0
        [0.73, 0.11, 4.68]
        """
        array, before = self._text("losses", ids, context)
        checks.positive(steps, "losses: steps")
        with self._inference():
            return np.concatenate(list(self._losses(array, before, 1, steps)))

    def score(self, ids: Ids, context: Ids = (), batch_size: int = 1, steps: int = 256) -> float:
        """Return the mean of -log p(token | all tokens before it) over the tokens of a text.

        Parameters
        ----------
        ids : array_like or Tensor of integers, shape (n,), or str
            The text, for instance the held-out one.
        context : array_like or Tensor of integers, or str
            The text before it, for instance the end of the training text.
        batch_size : int
            The number of parts of the text that a network reads in parallel. More than one is
            faster, but the context of each part is only the one token before it, so that the result
            is a little too high. An n-gram model is always exact.
        steps : int
            The number of tokens (of each part) that a network reads at a time.

        Returns
        -------
        float
            In nats per token.

        Raises
        ------
        ArgumentError
            If the text is empty, or an id is not in the vocabulary.

        Examples
        --------
        >>> import math
        >>> import tinygrad_rnn as tg
        >>> vocab = tg.data.text.Vocabulary("abc")
        >>> model = tg.models.RecurrentLM(tg.nn.GRUCell, vocab, 8)
        >>> score = model.score("abcabc")
        >>> math.isclose(score, model.losses("abcabc").mean())
        True
        """
        array, before = self._text("score", ids, context)
        checks.positive(batch_size, "score: batch_size")
        checks.positive(steps, "score: steps")
        metric = Perplexity()
        with self._inference():
            for losses in self._losses(array, before, batch_size, steps):
                metric.update(losses)
        return metric.nats

    def perplexity(
        self, ids: Ids, context: Ids = (), batch_size: int = 1, steps: int = 256
    ) -> float:
        """Return exp of the `score`: at best 1; V for a uniform distribution.

        Parameters
        ----------
        ids, context, batch_size, steps
            As of `score`.

        Returns
        -------
        float
            Report the rate of unknown tokens with it (as `compare` does): all of them are one
            token, which is easy to predict if it is frequent.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> round(tg.models.NGram(1, 5, smoothing=1e9).fit([1, 2, 1]).perplexity([3, 4]), 3)
        5.0
        """
        return perplexity(self.score(ids, context, batch_size, steps))

    def sample(
        self,
        prefix: Ids,
        n: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        rng: Rng = None,
        stop: str | int | None = None,
    ) -> Any:
        r"""Continue a text.

        Parameters
        ----------
        prefix : array_like or Tensor of integers, or str
            The text to continue; it can be empty.
        n : int
            The number of tokens to sample.
        temperature : float
            The distribution is p^(1 / temperature), normalised: sharper below 1, flatter above.
        top_k : int, optional
            Sample from the k likeliest tokens only; 1 is greedy.
        top_p : float
            Then sample from the fewest likeliest tokens with at least this total probability
            (Holtzman et al. 2020, The Curious Case of Neural Text Degeneration).
        rng : int or numpy.random.Generator, optional
            The source of random numbers. Default: the library's generator.
        stop : str or int, optional
            A token, or its id, that ends the text, such as ``"\n"``. It is not in the result.

        Returns
        -------
        ndarray of int64, shape (n,), or str
            The continuation without the prefix; a str if the prefix is one, else ids. The unknown
            token is never sampled. It is shorter if `stop` was sampled.

        Raises
        ------
        ArgumentError
            If an option is out of range, an id is not in the vocabulary, or a str has a token that
            the vocabulary lacks.

        See Also
        --------
        stream : The same tokens, one by one as they are sampled.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> text = "the time machine "
        >>> model = tg.models.NGram(3, tg.data.text.Vocabulary(text)).fit(text * 9)
        >>> model.sample("the m", 6, top_k=1)
        'achine'
        >>> model.sample("the m", 60, top_k=1, stop=" ")
        'achine'
        """
        checks.positive(n, "sample: n")
        context = contextlib.nullcontext  # one for all tokens, which is faster
        draws = self._draws(context, prefix, temperature, top_k, top_p, rng, stop)
        with self._inference():
            array = np.fromiter(itertools.islice(draws, n), np.int64)
        if not isinstance(prefix, str):
            return array
        return self._vocabulary("sample", "prefix").decode(array)

    def stream(
        self,
        prefix: Ids,
        n: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        rng: Rng = None,
        stop: str | int | None = None,
    ) -> Iterator[Any]:
        """Continue a text token by token, such as to print it while it is sampled.

        Parameters
        ----------
        prefix, temperature, top_k, top_p, rng, stop
            As of `sample`.
        n : int, optional
            The greatest number of tokens. Default: no limit.

        Returns
        -------
        iterator of str or int
            The tokens that `sample` with the same arguments would return: str if the prefix is one,
            else ids. Words come without spaces between them.

        Raises
        ------
        ArgumentError
            As `sample`, at the call.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> text = "the time machine "
        >>> model = tg.models.NGram(3, tg.data.text.Vocabulary(text)).fit(text * 9)
        >>> for token in model.stream("the m", top_k=1, stop=" "):
        ...     print(token, end="-", flush=True)
        a-c-h-i-n-e-
        """
        if n is not None:
            checks.positive(n, "stream: n")
        # The context is left at each token: the caller may train another model between two.
        draws = self._draws(self._inference, prefix, temperature, top_k, top_p, rng, stop)
        ids = draws if n is None else itertools.islice(draws, n)
        if not isinstance(prefix, str):
            return ids
        return map(self._vocabulary("stream", "prefix").tokens.__getitem__, ids)

    def _draws(
        self, context: Callable[[], contextlib.AbstractContextManager[Any]], prefix: Ids,
        temperature: float, top_k: int | None, top_p: float, rng: Rng, stop: Any,
    ) -> Iterator[int]:  # fmt: skip
        """Return an iterator over the sampled ids, up to the one of `stop`, after all checks."""
        sampling.check(temperature, top_k, top_p)
        generator = tg_random.generator(rng)
        ids = self._ids("sample", "prefix", prefix, least=0)
        if isinstance(prefix, str) and not ids.all():
            place = int(ids.argmin())
            shown = f" {prefix[place]!r}," if len(ids) == len(prefix) else ""
            raise ArgumentError(
                f"sample: the vocabulary lacks{shown} token {place} (counted from 0) of prefix: "
                "choose another prefix, or pass ids, with 0 for unknown tokens"
            )
        end = None if stop is None else self._stop_id(stop)

        def draws() -> Iterator[int]:
            with context():
                log_p, state = self._read(ids, None)
            while (token := sampling.draw(log_p, temperature, top_k, top_p, generator)) != end:
                yield token
                with context():
                    log_p, state = self._read(np.array([token], np.int64), state)

        return draws()

    def _stop_id(self, stop: Any) -> int:
        """Return the id of the token that ends a text."""
        if isinstance(stop, str):
            vocabulary = self._vocabulary("sample", "stop")
            if stop not in vocabulary or stop == vocabulary.tokens[0]:
                raise ArgumentError(
                    f"sample: stop={stop!r:.40} is not one token of the vocabulary: pass one of "
                    "its tokens, which the texts of the training end with"
                )
            return vocabulary.tokens.index(stop)
        integer = hasattr(stop, "__index__") and not isinstance(stop, bool) and not np.ndim(stop)
        if not integer or not 0 < stop < self.vocab_size:
            raise ArgumentError(
                f"sample: stop={stop!r:.40}: a token, or its id from 1 to {self.vocab_size - 1}, "
                "is expected"
            )
        return int(stop)

    def _text(self, operation: str, ids: Ids, context: Ids) -> tuple[Array, Array]:
        return (
            self._ids(operation, "ids", ids, least=1),
            self._ids(operation, "context", context, least=0),
        )

    def _ids(self, operation: str, name: str, ids: Ids, least: int) -> Array:
        """Return the ids of a text; raise if one is not in the vocabulary."""
        if isinstance(ids, str):
            ids = self._vocabulary(operation, name).encode(ids)
        array = token_ids(operation, ids)
        if len(array) < least:
            tokens = "one token" if least == 1 else f"{least} tokens"
            raise ArgumentError(
                f"{operation}: {name} has {len(array)} tokens, {tokens} or more are needed"
            )
        if array.size and not 0 <= array.min() <= array.max() < self.vocab_size:
            wrong = array[(array < 0) | (array >= self.vocab_size)][0]
            raise ArgumentError(
                f"{operation}: {name} contains the id {wrong}, the model's ids are 0 to "
                f"{self.vocab_size - 1}: encode the text with the model's own vocabulary"
            )
        return (
            array.astype(np.int64) if array.dtype == np.uint64 else array
        )  # not promoted to float

    def _vocabulary(self, operation: str, name: str) -> Vocabulary:
        if self.vocabulary is None:
            raise ArgumentError(
                f"{operation}: {name} is a str, and {type(self).__name__} has only the size of its "
                "vocabulary: pass ids, or make the model with the Vocabulary"
            )
        return self.vocabulary


class Scores(NamedTuple):
    """The scores of a model on a text.

    Attributes
    ----------
    nats, bits : float
        The mean loss per token, in either unit.
    perplexity : float
        exp of `nats`.
    unknown_rate : float
        The fraction of the tokens that the vocabulary lacks.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> model = tg.models.NGram(1, 2)
    >>> scores = tg.models.compare({"unigram": model.fit([0, 1]) or model}, [0, 1])
    >>> scores["unigram"].bits
    1.0
    """

    nats: float
    bits: float
    perplexity: float
    unknown_rate: float


def compare(
    models: Mapping[str, LanguageModel], ids: Ids, context: Ids = (), batch_size: int = 1
) -> dict[str, Scores]:
    """Score one text by several models with one vocabulary.

    Perplexities are comparable for one vocabulary only: a smaller one has fewer tokens to confuse,
    and more of the text is unknown.

    Parameters
    ----------
    models : dict of LanguageModel by name
        The models; a model without a Vocabulary is compared by its size V.
    ids, context, batch_size
        As of `LanguageModel.score`.

    Returns
    -------
    dict of Figures by name
        In the order of the models.

    Raises
    ------
    ArgumentError
        If `models` is empty, or two have different vocabularies.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> one, other = (tg.data.text.Vocabulary(text) for text in ("abc", "abcd"))
    >>> models = {"one": tg.models.NGram(1, one).fit("abc")}
    >>> tg.models.compare(models, "abx")["one"].unknown_rate.__round__(3)
    0.333
    >>> models["other"] = tg.models.NGram(1, other).fit("abc")
    >>> tg.models.compare(models, "abx")
    Traceback (most recent call last):
    tinygrad_rnn.errors.ArgumentError: compare: 'one' and 'other' have different vocabularies ...
    """
    if not models:
        raise ArgumentError("compare: models is empty: pass at least one model")
    (first, model), *others = models.items()
    for name, other in others:
        if model.vocab_size != other.vocab_size:
            seen = f"{model.vocab_size} and {other.vocab_size} tokens"
        elif (
            model.vocabulary is not None
            and other.vocabulary is not None
            and model.vocabulary.state_dict() != other.vocabulary.state_dict()
        ):
            seen = "the same number of tokens, but different ones"
        else:
            continue
        raise ArgumentError(
            f"compare: {first!r} and {name!r} have different vocabularies ({seen}), so their "
            "perplexities cannot be compared: make both models with one Vocabulary"
        )
    array, before = model._text("compare", ids, context)
    unknown = 1 - np.count_nonzero(array) / array.size
    scores = {}
    for name, other in models.items():
        nats = other.score(array, before, batch_size)
        scores[name] = Scores(nats, nats / math.log(2), perplexity(nats), float(unknown))
    return scores
