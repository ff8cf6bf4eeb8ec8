"""Neural language models: Bengio's MLP over a window, and a recurrent network.

Both are modules whose `forward` maps ids and a state to logits and a state, so that `tg.fit` trains
both and carries the state (the example of `RecurrentLM` is one).

Letters: T time steps, B batch, V vocabulary, D embedding, H hidden size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import functional as F
from .. import random as tg_random
from .. import tensors as ops
from ..bptt import Strategy
from ..data.text import Vocabulary, evaluation
from ..engine.grad_mode import no_grad
from ..engine.tensor import Tensor
from ..errors import ArgumentError, ShapeError
from ..nn import Dropout, Embedding, Linear, Module
from ..random import Rng
from ..tensors import checks
from ..tensors.creation import tensor
from .language import Array, LanguageModel, State
from .summary import common_options, recurrent_layers

_STEPS = 256  # tokens of a prefix per call of the network


class _Network(Module, LanguageModel):
    """A module whose `forward` maps ids (T, B) and a state to logits (T, B, V) and a state."""

    _made: dict[str, Any]  # arguments of the constructor

    def __init__(self, vocabulary: Vocabulary | int) -> None:
        Module.__init__(self)
        LanguageModel.__init__(self, vocabulary)

    def _arguments(self) -> dict[str, Any]:
        return self._made | {"vocabulary": self._given_vocabulary()}

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        with self.evaluating(), no_grad():  # per thread: another one may train the model
            yield

    def _column(self, ids: Array) -> Tensor:
        """Return ids as one column, on the device of the parameters."""
        return tensor(ids[:, None].astype(np.int64), device=next(self.parameters()).device)

    def _read(self, ids: Array, state: State) -> tuple[Array, State]:
        if state is None:  # the unknown token precedes every text
            ids = np.concatenate([np.zeros(1, np.int64), ids])
        for start in range(0, len(ids), _STEPS):
            logits, state = self(self._column(ids[start : start + _STEPS]), state)
        last = logits[-1, 0].astype(np.float64)
        if not np.isfinite(last.numpy()).all():
            raise FloatingPointError(
                f"{type(self).__name__}: the logits of the next token are not finite: the weights "
                "are not finite, or too large"
            )
        return ops.log_softmax(last, axis=-1).numpy(), state

    def _losses(self, ids: Array, context: Array, batch_size: int, steps: int) -> Iterator[Array]:
        last = context[-1:] if len(context) else np.zeros(1, np.int64)
        state = None
        if batch_size == 1 and len(context):  # without the last token, the first input below
            _, state = self._read(context[:-1], None)
        tokens = np.concatenate([last.astype(ids.dtype), ids])
        steps = min(steps, -(-len(ids) // batch_size))
        device = next(self.parameters()).device
        for x, y in evaluation(tokens, batch_size, steps, device=device):
            logits, state = self(x, state)
            losses = F.cross_entropy(logits, y, reduction="none", ignore_index=-1).numpy()
            yield losses[y.numpy() != -1].astype(np.float64)


class NeuralLM(_Network):
    r"""The neural probabilistic language model: an MLP over the embeddings of the last n tokens.

    .. math::
        x &= [C(w_{t-n+1}), …, C(w_{t})] \\
        y &= b + W x + U \tanh(d + H x)

    and softmax y is the distribution of the next token. Similar tokens get similar embeddings, so
    that the model generalises to contexts that do not occur in the training text.

    Parameters
    ----------
    context : int
        n, the number of preceding tokens it depends on; the order of an n-gram model is one more.
    vocabulary : Vocabulary or int
        The vocabulary of the training text, or its size V.
    embedding_dim : int
        D.
    hidden_size : int
        H.
    direct : bool
        Whether the model has direct connections W from the embeddings to the logits.
    dropout : float
        The probability of dropping an element of the hidden layer, in training.
    dtype, device : dtype, str, optional
        The dtype and the device of the parameters.
    rng : int or numpy.random.Generator, optional
        The source of the initial parameters.

    Raises
    ------
    ArgumentError
        If a size is below 1.

    Notes
    -----
    Bengio, Ducharme, Vincent and Jauvin 2003, A Neural Probabilistic Language Model, equation 1.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> vocab = tg.data.text.Vocabulary("the time machine")
    >>> model = tg.models.NeuralLM(4, vocab, embedding_dim=8, hidden_size=16)
    >>> logits, state = model(tg.zeros(35, 2, dtype=tg.int64))
    >>> logits.shape, state.shape  # the state is the last three ids, for the next window
    ((35, 2, 10), (3, 2))
    >>> len(model.sample("the ", 5))
    5
    """

    def __init__(
        self,
        context: int,
        vocabulary: Vocabulary | int,
        embedding_dim: int = 32,
        hidden_size: int = 128,
        direct: bool = False,
        dropout: float = 0.0,
        dtype: Any = None,
        device: str | None = None,
        rng: Rng = None,
    ) -> None:
        super().__init__(vocabulary)
        checks.positive(context, "NeuralLM: context")
        options: dict[str, Any] = {
            "dtype": dtype, "device": device, "rng": tg_random.generator(rng),
        }  # fmt: skip
        self.context = context
        self._made = {
            "context": context, "embedding_dim": embedding_dim, "hidden_size": hidden_size,
            "direct": bool(direct), "dropout": dropout,
        }  # fmt: skip
        width = context * embedding_dim
        self.embedding = Embedding(self.vocab_size, embedding_dim, **options)
        self.hidden = Linear(width, hidden_size, **options)
        self.dropout = Dropout(dropout)
        self.head = Linear(hidden_size, self.vocab_size, **options)
        self.direct = Linear(width, self.vocab_size, bias=False, **options) if direct else None

    def forward(self, ids: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the logits of the token after each id, and the last ids.

        Parameters
        ----------
        ids : Tensor of integers
            (T, B).
        state : Tensor of integers, optional
            The context - 1 ids before them, (context - 1, B). Default: unknown tokens.

        Returns
        -------
        logits : Tensor
            (T, B, V).
        state : Tensor of int64
            (context - 1, B), for the next window.

        Raises
        ------
        ShapeError
            If the shape of `ids` or `state` is wrong.
        """
        _check_window("NeuralLM", ids)
        T, B = ids.shape
        before = self.context - 1
        if state is None:
            state = tensor(np.zeros((before, B), np.int64), device=ids.device)
        if state.shape != (before, B):
            raise ShapeError(f"NeuralLM: state of shape {state.shape}, {(before, B)} is needed")
        extended = ops.concatenate([state, ids]) if before else ids
        windows = ops.stack([extended[i : i + T] for i in range(self.context)], axis=-1)
        x = self.embedding(windows).reshape(T, B, -1)
        y = self.head(self.dropout(ops.tanh(self.hidden(x))))
        return y if self.direct is None else y + self.direct(x), extended[T:]


class RecurrentLM(_Network):
    """The recurrent language model: an embedding, recurrent layers of any cell, a linear head.

    Parameters
    ----------
    cell : class or list of cells
        A subclass of `nn.Cell`, such as `nn.LSTMCell` or your own, as of `nn.Recurrent`.
    vocabulary : Vocabulary or int
        The vocabulary of the training text, or its size V.
    hidden_size : int
        H.
    num_layers : int
        The number of recurrent layers.
    embedding_dim : int, optional
        D. Default: one-hot vectors of length V instead of an embedding.
    dropout : float
        The probability of dropping an element between layers and before the head, in training.
    dtype, device : dtype, str, optional
        The dtype and the device of the parameters.
    rng : int or numpy.random.Generator, optional
        The source of the initial parameters.
    **options
        Arguments of `nn.Recurrent`, such as ``bptt=``, and of the cell.

    Raises
    ------
    ArgumentError
        If a size is out of range, or ``bidirectional`` (the model would read the token that it
        predicts) or ``batch_first`` is true.

    Notes
    -----
    Mikolov, Karafiát, Burget, Černocký and Khudanpur 2010, Recurrent Neural Network Based Language
    Model. Training carries the state from window to window (`tg.data.text.sequential`).

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> vocab = tg.data.text.Vocabulary("the time machine")
    >>> model = tg.models.RecurrentLM(tg.nn.GRUCell, vocab, 16, embedding_dim=8)
    >>> ids = vocab.encode("the time machine " * 20)
    >>> history = tg.fit(
    ...     model,
    ...     tg.data.text.sequential(ids, batch_size=2, steps=8),
    ...     loss=tg.functional.cross_entropy,
    ...     optimizer=tg.optim.Adam(model.parameters(), lr=0.01),
    ...     epochs=2,
    ... )
    >>> model.perplexity("the time machine") < len(vocab)
    True
    """

    def __init__(
        self,
        cell: Any,
        vocabulary: Vocabulary | int,
        hidden_size: int,
        num_layers: int = 1,
        embedding_dim: int | None = None,
        dropout: float = 0.0,
        dtype: Any = None,
        device: str | None = None,
        rng: Rng = None,
        **options: Any,
    ) -> None:
        super().__init__(vocabulary)
        for name in ("bidirectional", "batch_first"):
            if options.pop(name, False):
                reason = "the reverse direction would read the tokens to predict"
                reason = reason if name == "bidirectional" else "ids are (T, B), time first"
                raise ArgumentError(f"RecurrentLM: {name} must be False: {reason}")
        common = common_options(dtype, device, rng)
        self._made = {
            "cell": cell, "hidden_size": hidden_size, "num_layers": num_layers,
            "embedding_dim": embedding_dim, "dropout": dropout, "bptt": None, **options,
        }  # fmt: skip
        self.embedding = (
            None if embedding_dim is None else Embedding(self.vocab_size, embedding_dim, **common)
        )
        self.rnn = recurrent_layers(
            cell, embedding_dim or self.vocab_size, hidden_size, num_layers, dropout, common,
            options,
        )  # fmt: skip
        self.dropout = Dropout(dropout)
        self.head = Linear(self.rnn.state_sizes[0], self.vocab_size, **common)

    def _arguments(self) -> dict[str, Any]:
        return super()._arguments() | {"bptt": self.rnn.bptt, "dropout": self.dropout.p}

    def forward(
        self, ids: Tensor, state: State = None, bptt: Strategy | None = None
    ) -> tuple[Tensor, State]:
        """Return the logits of the token after each id, and the state after the last one.

        Parameters
        ----------
        ids : Tensor of integers
            (T, B).
        state : Tensor or tuple of Tensors, optional
            The state of the recurrent layers, (L, B, H). Default: the cell's initial state.
        bptt : Strategy, optional
            The strategy of this call, in place of that of the recurrent layers.

        Returns
        -------
        logits : Tensor
            (T, B, V).
        state : Tensor or tuple of Tensors
            The state for the next window, to be detached there (`tg.bptt.detach`).

        Raises
        ------
        ShapeError, ArgumentError
            If `ids` or `state` do not fit.
        """
        _check_window("RecurrentLM", ids)
        if self.embedding is None:
            x = F.one_hot(ids, self.vocab_size, dtype=self.head.weight.dtype)
        else:
            x = self.embedding(ids)
        output, state = self.rnn(x, state, bptt=bptt)
        return self.head(self.dropout(output)), state


def _check_window(name: str, ids: Tensor) -> None:
    if ids.ndim != 2:
        raise ShapeError(f"{name}: ids of shape (T, B), time first, are needed, got {ids.shape}")
