"""The protocol of a language model: what may follow, how surprising a text is, what to write."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import random as tg_random
from ..data.metrics import Perplexity
from ..data.text import Vocabulary
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from ..functional import perplexity
from ..tensors import checks
from ..tensors.checks import token_ids
from . import sampling

Ids = npt.ArrayLike | Tensor | str
Array = npt.NDArray[Any]
Rng = int | np.random.Generator | None
State = Any  # what a model keeps of the tokens that it has read; None before the first


class LanguageModel:
    """What every language model can do, whether it counts or learns.

    A model defines p(token | all tokens before it). Token 0 stands for every unknown token, as in
    `Vocabulary`. Every token of a text is predicted exactly once, the first one too: what comes
    before it is either given (`context`), or unknown.

    A subclass defines two methods: ``_read(ids, state)`` reads more tokens and returns the
    log-probabilities of what follows, with the new state; ``_pieces`` yields the losses of a text.

    Parameters
    ----------
    vocabulary : Vocabulary or int
        The vocabulary of the training text; or its size V, if texts come as ids only.

    Attributes
    ----------
    vocabulary : Vocabulary or None
        As given; None if only the size was.
    vocab_size : int
        V, the unknown token included.

    Raises
    ------
    ArgumentError
        V is less than 2.
    """

    vocabulary: Vocabulary | None
    vocab_size: int

    def __init__(self, vocabulary: Vocabulary | int) -> None:
        self.vocabulary = vocabulary if isinstance(vocabulary, Vocabulary) else None
        size = len(vocabulary) if isinstance(vocabulary, Vocabulary) else vocabulary
        what = f"{type(self).__name__}: vocabulary, or its size with the unknown token,"
        self.vocab_size = checks.positive(size, what, least=2)

    def _read(self, ids: Array, state: State) -> tuple[Array, State]:
        raise NotImplementedError(f"{type(self).__name__} does not define _read(ids, state)")

    def _pieces(self, ids: Array, context: Array, batch_size: int, steps: int) -> Iterator[Array]:
        raise NotImplementedError(f"{type(self).__name__} does not define _pieces(...)")

    def _reading(self) -> contextlib.AbstractContextManager[Any]:
        """Return what stands around all that a model is asked: a network has dropout to stop."""
        return contextlib.nullcontext()

    def log_probs(self, context: Ids = ()) -> Array:
        """Return the log-probability of every token to be the next one.

        Parameters
        ----------
        context : array_like or Tensor of integers, or str
            All tokens so far; none at the beginning of a text.

        Returns
        -------
        ndarray of float64, shape (V,)
            Their exponentials sum to 1.

        Raises
        ------
        ArgumentError
            An id outside the vocabulary.

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
        with self._reading():
            return self._read(ids, None)[0]

    def losses(self, ids: Ids, context: Ids = (), steps: int = 256) -> Array:
        """Return -log p of every token, given all tokens before it.

        Parameters
        ----------
        ids : array_like or Tensor of integers, shape (n,), or str
            The text, for instance the held-out one.
        context : array_like or Tensor of integers, or str
            What stands before it, for instance the end of the training text.
        steps : int
            How many tokens a network reads at a time. It decides about memory, not about the
            result: the state is carried.

        Returns
        -------
        ndarray of float64, shape (n,)
            In nats. The losses of two halves, the first as context of the second, are those of the
            whole.

        Raises
        ------
        ArgumentError
            An empty text, or an id outside the vocabulary.

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
        with self._reading():
            return np.concatenate(list(self._pieces(array, before, 1, steps)))

    def score(self, ids: Ids, context: Ids = (), batch_size: int = 1, steps: int = 256) -> float:
        """Return the mean of -log p(token | all before it), every token counted once.

        Parameters
        ----------
        ids : array_like or Tensor of integers, shape (n,), or str
            The text, for instance the held-out one.
        context : array_like or Tensor of integers, or str
            What stands before it, for instance the end of the training text.
        batch_size : int
            With more than one, a network reads so many parts of the text beside each other, which
            is faster; each begins with no more than the one token before it, so that the result is
            a little too high. An n-gram model is always exact.
        steps : int
            How many tokens (of each part) a network reads at a time.

        Returns
        -------
        float
            In nats a token.

        Raises
        ------
        ArgumentError
            An empty text, or an id outside the vocabulary.

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
        losses = Perplexity()
        with self._reading():
            for piece in self._pieces(array, before, batch_size, steps):
                losses.update(piece)
        return losses.nats

    def perplexity(
        self, ids: Ids, context: Ids = (), batch_size: int = 1, steps: int = 256
    ) -> float:
        """Return exp of the `score`: 1 at best, V for a model that knows nothing.

        Parameters
        ----------
        ids, context, batch_size, steps
            As of `score`.

        Returns
        -------
        float
            Report the rate of unknown tokens beside it (`compare` does), since all of them are one
            token, and easily predicted where there are many.

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
    ) -> Any:
        """Continue a text.

        Parameters
        ----------
        prefix : array_like or Tensor of integers, or str
            What is continued; it can be empty.
        n : int
            How many tokens to write.
        temperature : float
            The distribution is p^(1 / temperature), normalised: below 1 safer, above 1 bolder.
        top_k : int, optional
            Draw from the k likeliest tokens only; 1 takes the likeliest.
        top_p : float
            Then draw from the fewest likeliest tokens that hold this probability together
            (Holtzman et al. 2020, The Curious Case of Neural Text Degeneration).
        rng : int or numpy.random.Generator, optional
            Where the numbers come from. Default: the library's generator.

        Returns
        -------
        ndarray of int64, shape (n,), or str
            What follows the prefix, as ids or as a text, as the prefix is. The unknown token is
            never written.

        Raises
        ------
        ArgumentError
            An option outside its range, an id outside the vocabulary, or a text with a token that
            the vocabulary lacks.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> text = "the time machine "
        >>> model = tg.models.NGram(3, tg.data.text.Vocabulary(text)).fit(text * 9)
        >>> model.sample("the m", 6, top_k=1)
        'achine'
        """
        checks.positive(n, "sample: n")
        sampling.check(temperature, top_k, top_p)
        generator = tg_random.generator(rng)
        ids = self._ids("sample", "prefix", prefix, least=0)
        if isinstance(prefix, str) and not ids.all():
            raise ArgumentError(
                f"sample: prefix must be made of the tokens of the vocabulary; its token number "
                f"{int(ids.argmin())}, counted from 0, is none of them: choose another prefix, or "
                "pass ids to have it read as unknown"
            )
        written: list[int] = []
        with self._reading():
            log_p, state = self._read(ids, None)
            while True:
                written.append(sampling.draw(log_p, temperature, top_k, top_p, generator))
                if len(written) == n:
                    break
                log_p, state = self._read(np.array(written[-1:], np.int64), state)
        array = np.array(written, np.int64)
        return (
            self._vocabulary("sample", "prefix").decode(array) if isinstance(prefix, str) else array
        )

    def _text(self, operation: str, ids: Ids, context: Ids) -> tuple[Array, Array]:
        return (
            self._ids(operation, "ids", ids, least=1),
            self._ids(operation, "context", context, least=0),
        )

    def _ids(self, operation: str, name: str, ids: Ids, least: int) -> Array:
        """Return the ids of a text, each known to lie in the vocabulary."""
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
                f"{operation}: {name} holds the id {wrong}, the model knows 0 to "
                f"{self.vocab_size - 1}: encode the text with the model's own vocabulary"
            )
        return array.astype(np.int64) if array.dtype == np.uint64 else array  # else floats follow

    def _vocabulary(self, operation: str, name: str) -> Vocabulary:
        if self.vocabulary is None:
            raise ArgumentError(
                f"{operation}: {name} is a str, and {type(self).__name__} knows the size of its "
                "vocabulary only: pass ids, or give it the Vocabulary"
            )
        return self.vocabulary


class Scores(NamedTuple):
    """What a model makes of a text.

    Attributes
    ----------
    nats, bits, perplexity : float
        The mean loss of a token, in either unit, and its exponential.
    unknown_rate : float
        The share of the tokens that the vocabulary lacks.
    """

    nats: float
    bits: float
    perplexity: float
    unknown_rate: float


def compare(
    models: Mapping[str, LanguageModel], ids: Ids, context: Ids = (), batch_size: int = 1
) -> dict[str, Scores]:
    """Score one text by several models with one vocabulary.

    A perplexity means something under its vocabulary only: with fewer tokens there is less to be
    wrong about, and more of the text is unknown.

    Parameters
    ----------
    models : dict of LanguageModel by name
    ids, context, batch_size
        As of `LanguageModel.score`.

    Returns
    -------
    dict of Figures by name
        In the order of the models.

    Raises
    ------
    ArgumentError
        There is no model, or two have different vocabularies; of models that know no more than the
        size of theirs, the sizes are compared.

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
        raise ArgumentError("compare: models is empty, one model or more is needed")
    (first, model), *others = models.items()
    for name, other in others:
        if model.vocab_size != other.vocab_size:
            seen = f"{model.vocab_size} and {other.vocab_size} tokens"
        elif (
            model.vocabulary is not None
            and other.vocabulary is not None
            and model.vocabulary.state_dict() != other.vocabulary.state_dict()
        ):
            seen = "as many tokens, but not the same"
        else:
            continue
        raise ArgumentError(
            f"compare: {first!r} and {name!r} have different vocabularies ({seen}), so their "
            "perplexities cannot be compared: make both models with one Vocabulary"
        )
    array, before = model._text("compare", ids, context)
    unknown = 1 - np.count_nonzero(array) / array.size
    figures = {}
    for name, other in models.items():
        nats = other.score(array, before, batch_size)
        figures[name] = Scores(nats, nats / math.log(2), perplexity(nats), float(unknown))
    return figures
