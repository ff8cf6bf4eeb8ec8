"""Classification of whole sequences, such as names or measurements."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import functional as F
from .. import tensors as ops
from .._util.api_hints import class_name
from ..data.text import Vocabulary
from ..engine.tensor import Tensor
from ..errors import ArgumentError, ShapeError
from ..nn import Embedding, Linear
from ..random import Rng
from ..tensors import checks
from ..tensors.creation import tensor
from .summary import (
    Array,
    SequenceModel,
    Summary,
    as_array,
    check_sequences,
    common_options,
    is_ragged,
)


class Classifier(SequenceModel):
    """A classifier of sequences: recurrent layers of any cell, and a linear layer.

    Sequences are texts, or features at each of T times. They can differ in length.

    Parameters
    ----------
    cell : class or list of cells
        A subclass of `nn.Cell`, such as `nn.GRUCell` or your own, as of `nn.Recurrent`.
    inputs : Vocabulary or int
        The vocabulary of the texts; or I, the number of features at each time.
    classes : int or sequence
        C, the number of classes; or their names, in the order of the labels, such as
        ``classes, labels = numpy.unique(names, return_inverse=True)``.
    hidden_size : int
        H.
    num_layers : int
        The number of recurrent layers.
    embedding_dim : int, optional
        The size of the embeddings of tokens. Default: one-hot vectors.
    bidirectional : bool
        Whether each layer reads the sequences in both directions.
    pool : {"last", "mean", "max"}
        The input of the linear layer: the state after the last step, or the mean or the maximum of
        the outputs of all steps.
    dropout : float
        The probability of dropping an element between layers and before the linear layer, in
        training.
    dtype, device : dtype, str, optional
        The dtype and the device of the parameters.
    rng : int or numpy.random.Generator, optional
        The source of the initial parameters.
    **options
        Arguments of `nn.Recurrent`, such as ``bptt=``, and of the cell.

    Attributes
    ----------
    vocabulary : Vocabulary or None
        The vocabulary of the texts.
    classes : tuple
        The names of the classes; their numbers, if none were passed.

    Raises
    ------
    ArgumentError
        If a size is out of range, or there are less than two classes, or one occurs twice, or
        they are of different kinds.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> names, languages = ["smith", "rossi", "jones", "bianchi"], ["en", "it", "en", "it"]
    >>> vocab = tg.data.text.Vocabulary("".join(names))
    >>> classes, labels = np.unique(languages, return_inverse=True)
    >>> model = tg.models.Classifier(tg.nn.GRUCell, vocab, classes, hidden_size=16, rng=0)
    >>> ids = [vocab.encode(name) for name in names]
    >>> history = tg.fit(
    ...     model,
    ...     tg.data.ragged_batches(ids, labels, batch_size=2, rng=0),
    ...     loss=tg.functional.cross_entropy,
    ...     optimizer=tg.optim.Adam(model.parameters(), lr=0.03),
    ...     epochs=20,
    ... )
    >>> model.predict(["rossi", "jones"]).tolist()
    ['it', 'en']
    """

    def __init__(
        self,
        cell: Any,
        inputs: Vocabulary | int,
        classes: int | Iterable[Any],
        hidden_size: int,
        num_layers: int = 1,
        embedding_dim: int | None = None,
        bidirectional: bool = False,
        pool: str = "last",
        dropout: float = 0.0,
        dtype: Any = None,
        device: str | None = None,
        rng: Rng = None,
        **options: Any,
    ) -> None:
        super().__init__()
        common = common_options(dtype, device, rng)
        self.classes = _classes(classes)
        self.vocabulary = inputs if isinstance(inputs, Vocabulary) else None
        self._made: dict[str, Any] = {
            "cell": cell, "inputs": inputs, "hidden_size": hidden_size, "num_layers": num_layers,
            "embedding_dim": embedding_dim, "bidirectional": bidirectional, "pool": pool,
            "dropout": dropout, "bptt": None, **options,
        }  # fmt: skip
        size = len(inputs) if isinstance(inputs, Vocabulary) else inputs
        checks.positive(size, "Classifier: inputs, a Vocabulary or a number of features,")
        if embedding_dim is not None and self.vocabulary is None:
            raise ArgumentError(
                f"Classifier: embedding_dim={embedding_dim} is for texts: pass a Vocabulary as "
                "inputs, or leave it out"
            )
        self.embedding = None if embedding_dim is None else Embedding(size, embedding_dim, **common)
        self.summary = Summary(
            cell, embedding_dim or size, hidden_size, num_layers, bidirectional, pool, dropout,
            common, options,
        )  # fmt: skip
        self.head = Linear(self.summary.size, len(self.classes), **common)

    def _arguments(self) -> dict[str, Any]:
        now = {"classes": list(self.classes), **self.summary.arguments()}
        return self._made | now | ({} if self.vocabulary is None else {"inputs": self.vocabulary})

    def forward(self, x: Tensor, lengths: Any = None) -> Tensor:
        """Return the logits of the classes.

        Parameters
        ----------
        x : Tensor
            Ids (B, T) of a vocabulary, or features (B, T, I).
        lengths : sequence of B integers, optional
            The number of steps of each sequence, as of `data.pad`. What follows is never read.

        Returns
        -------
        Tensor
            (B, C).

        Raises
        ------
        ShapeError, DTypeError, ArgumentError
            If `x` or `lengths` do not fit.
        """
        if self.vocabulary is None:
            return self.head(self.summary(x, lengths))
        x = x if isinstance(x, Tensor) else tensor(x, device=self.head.weight.device)
        if x.ndim != 2:
            raise ShapeError(f"Classifier: ids of shape (B, T) are needed, got {x.shape}")
        if self.embedding is None:
            vectors = F.one_hot(x, len(self.vocabulary), dtype=self.head.weight.dtype)
        else:
            vectors = self.embedding(x)
        return self.head(self.summary(vectors, lengths))

    def probabilities(self, x: Any, batch_size: int = 256) -> Array:
        """Return the probability of each class.

        Parameters
        ----------
        x : list of str, list of array_like, or array_like
            N texts, which the vocabulary encodes; or ids or features of N sequences: a list of
            arrays that can differ in length, or one array.
        batch_size : int
            The number of sequences that are computed at a time. It affects memory, not the result.

        Returns
        -------
        ndarray of shape (N, C)
            The rows sum to 1. In the dtype of the parameters.

        Raises
        ------
        ArgumentError, ShapeError, DTypeError
            If `x` does not fit.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> model = tg.models.Classifier(tg.nn.GRUCell, 3, 2, hidden_size=4)
        >>> model.probabilities(tg.zeros(5, 7, 3)).shape
        (5, 2)
        """
        logits = self._outputs(self._rows(x), batch_size)
        if not np.isfinite(logits).all():
            raise FloatingPointError(
                "Classifier: the logits are not finite: the weights or the features are not "
                "finite, or too large"
            )
        return ops.softmax(tensor(logits, device="cpu"), axis=-1).numpy()

    def predict(self, x: Any, batch_size: int = 256) -> Array:
        """Return the most probable class of each sequence.

        Parameters
        ----------
        x, batch_size
            As of `probabilities`.

        Returns
        -------
        ndarray of shape (N,)
            The names of the classes; their numbers, if none were passed.

        Raises
        ------
        ArgumentError, ShapeError, DTypeError
            If `x` does not fit.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> vocab = tg.data.text.Vocabulary("abc")
        >>> model = tg.models.Classifier(tg.nn.GRUCell, vocab, ["no", "yes"], hidden_size=4)
        >>> model.predict(["ab", "cab"]).shape
        (2,)
        """
        return np.array(self.classes)[self.probabilities(x, batch_size).argmax(axis=1)]

    def _rows(self, x: Any) -> Any:
        """Return sequences as one array, or as a list of arrays."""
        if isinstance(x, str):
            raise ArgumentError(
                f"Classifier.predict: one text, {x!r:.40}: pass a list of texts, [{x!r:.20}]"
            )
        texts = getattr(getattr(x, "dtype", None), "kind", "?") in "OTU"  # of NumPy, or pandas
        items = x.tolist() if texts else x
        check_sequences("Classifier", items)
        if isinstance(items, list | tuple) and any(isinstance(item, str) for item in items):
            self._check_texts(items)
            assert self.vocabulary is not None
            return [self.vocabulary.encode(text) for text in items]
        if is_ragged(items):
            return [self._checked(as_array(row), 1) for row in items]
        return self._checked(as_array(items), 2)

    def _check_texts(self, items: Any) -> None:
        """Raise for a list that has texts, and cannot be encoded."""
        if self.vocabulary is None:
            text = next(item for item in items if isinstance(item, str))
            raise ArgumentError(
                f"Classifier.predict: texts, such as {text!r:.40}, for a model of "
                f"{self.summary.rnn.input_size} features: make it with a Vocabulary"
            )
        for i, item in enumerate(items):
            if not isinstance(item, str):
                raise ArgumentError(
                    f"Classifier.predict: sequence {i} is {item!r:.40}, and others are texts: drop "
                    "it, or fill it with a text, as .dropna() and .fillna('') do"
                )

    def _checked(self, values: Array, ndim: int) -> Array:
        """Return ids with `ndim` axes, or features with one more; raise for others."""
        ids = self.vocabulary is not None
        if values.ndim != ndim + (not ids):
            form = "ids (N, T)" if ids else f"features (N, T, {self.summary.rnn.input_size})"
            raise ShapeError(
                f"Classifier.predict: {form} are expected, or a list with one array for each "
                f"sequence, got {values.shape}: one sequence is x[None]"
            )
        return values if ids else values.astype(self.head.weight.dtype)


def _classes(classes: Any) -> tuple[Any, ...]:
    if isinstance(classes, int | np.integer) and not isinstance(classes, bool):
        return tuple(range(checks.positive(classes, "Classifier: classes", least=2)))
    if isinstance(classes, str | set | frozenset) or not isinstance(classes, Iterable):
        raise ArgumentError(
            f"Classifier: classes: their number or a list of their names, in the order of the "
            f"labels, is expected, got {classes!r:.40}"
        )
    names = classes.tolist() if hasattr(classes, "tolist") else list(classes)
    kinds = {_kind(name) for name in names}
    if None in kinds:
        wrong = next(name for name in names if _kind(name) is None)
        raise ArgumentError(
            f"Classifier: classes: names are strings or numbers, got {wrong!r:.40}, a "
            f"{class_name(wrong)}: convert them, such as by map(str, ...)"
        )
    if len(kinds) > 1:
        shown = " and ".join(repr(next(n for n in names if _kind(n) == k)) for k in sorted(kinds))
        raise ArgumentError(
            f"Classifier: classes: names of one kind are expected, got {shown}: convert them, such "
            "as by map(str, ...)"
        )
    if len(names) < 2 or len(set(names)) < len(names):
        shown = ", ".join(map(repr, names[:5])) + ", ..." * (len(names) > 5)
        raise ArgumentError(
            f"Classifier: classes: at least two different names are needed, got [{shown}]: "
            "numpy.unique(labels, return_inverse=True) returns the classes, and the number of each "
            "label"
        )
    return tuple(names)


def _kind(name: Any) -> Any:
    """Return the kind of a name: one array has those of one kind, and a file saves them."""
    if isinstance(name, str):
        return "text"
    if isinstance(name, bool | np.bool_):
        return "bool"
    number = isinstance(name, int | float | np.integer | np.floating)
    return "number" if number and name == name else None
