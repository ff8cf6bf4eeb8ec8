"""Metrics that are accumulated over many batches.

Each has `update`, which adds a batch, and ``value``, of all batches so far: batches of any sizes
give the value of the whole data. `merge` adds the batches of another one; a state can be saved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .._util.api_hints import class_name, module_getattr
from .._util.extras import matplotlib
from .._util.state_keys import check_keys, float_and_count
from ..engine import backend
from ..engine.tensor import Tensor
from ..errors import ArgumentError, DTypeError, ShapeError
from ..functional import perplexity
from ..tensors import checks


class MeanMetric:
    """Base class of metrics that are a function of a mean: of a total and the number of its terms.

    A subclass defines ``update``, which adds to both, and ``value``.

    Attributes
    ----------
    total : float
        The sum so far.
    count : int
        The number of its terms.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> class TopTwo(tg.metrics.MeanMetric):
    ...     def update(self, logits, target):
    ...         best = logits.numpy().argsort(axis=-1)[..., -2:]
    ...         self.total += (best == target.numpy()[..., None]).any(axis=-1).sum()
    ...         self.count += target.size
    ...
    ...     @property
    ...     def value(self):
    ...         return self.total / self.count
    >>> metric = TopTwo()
    >>> metric.update(tg.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]), tg.tensor([1, 0]))
    >>> float(metric.value)
    0.5
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set the total and the count to zero."""
        self.total = 0.0
        self.count = 0

    def merge(self, other: Any) -> Self:
        """Add the batches of another metric of the same class.

        Parameters
        ----------
        other : metric
            It is not changed.

        Returns
        -------
        metric
            The metric itself.

        Raises
        ------
        ArgumentError
            If `other` is of another class.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> first, second = tg.metrics.MAE(), tg.metrics.MAE()
        >>> first.update([1.0], [1.0]), second.update([1.0, 1.0], [4.0, 4.0])
        (None, None)
        >>> first.merge(second).value
        2.0
        """
        _same_class(self, other)
        self.total += other.total
        self.count += other.count
        return self

    def state_dict(self) -> dict[str, Any]:
        """Return the total and the count, for `load_state_dict`."""
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`.

        Parameters
        ----------
        state : mapping
            The result of `state_dict`.

        Raises
        ------
        ArgumentError
            If `state` does not fit; nothing was loaded.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> first, second = tg.metrics.Perplexity(), tg.metrics.Perplexity()
        >>> first.update(0.5, 10)
        >>> second.load_state_dict(first.state_dict())
        >>> second.nats
        0.5
        """
        op = f"{type(self).__name__}.load_state_dict"
        self.total, self.count = float_and_count(op, state, "total")

    @property
    def _mean(self) -> float:
        if not self.count:
            raise ArgumentError(f"{type(self).__name__}: no batches yet: call update")
        return self.total / self.count

    def __repr__(self) -> str:
        value = f"{self.value:.4g}" if self.count else "no batches yet"  # type: ignore[attr-defined]
        return f"{type(self).__name__}({value})"


class Perplexity(MeanMetric):
    """Perplexity: exp of the mean loss over all tokens, accumulated over batches.

    The mean of the batches' perplexities would be larger: exp is convex, so that a few hard batches
    dominate, and a short batch would have the weight of a long one. Therefore the losses are
    averaged, weighted by their numbers of tokens, before exp is applied.

    Attributes
    ----------
    total : float
        Sum of the losses so far, in nats.
    count : int
        Number of tokens so far.

    Examples
    --------
    >>> import math
    >>> import tinygrad_rnn as tg
    >>> metric = tg.metrics.Perplexity()
    >>> metric.update(math.log(2), 30)
    >>> metric.update(math.log(16), 10)
    >>> round(metric.value, 3)  # 2 ** ((30 · 1 + 10 · 4) / 40), not (30 · 2 + 10 · 16) / 40 = 5.5
    3.364
    """

    def update(self, loss: Any, count: int | None = None) -> None:
        """Add the losses of some tokens.

        Parameters
        ----------
        loss : float, Tensor or array
            The mean loss of `count` tokens, in nats per token; without `count`, an array with the
            loss of each token, of any shape.
        count : int, optional
            The number of tokens of the mean.

        Raises
        ------
        ArgumentError
            If `loss` is a mean and `count` is missing, if it is an array and `count` is given, or
            if `count` is not an integer >= 0.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> metric = tg.metrics.Perplexity()
        >>> metric.update(tg.tensor([0.0, 1.0, 2.0]))
        >>> metric.nats
        1.0
        """
        array = loss._data if isinstance(loss, Tensor) else backend.asarray(loss, backend.float64)
        if count is None:
            if array.ndim == 0:
                raise ArgumentError(
                    "Perplexity.update: a mean loss needs its number of tokens: pass count="
                )
            self.total += backend.to_numpy(array.sum(dtype=backend.float64)).item()
            self.count += array.size
            return
        if isinstance(count, bool) or not hasattr(count, "__index__") or count.__index__() < 0:
            raise ArgumentError(f"Perplexity.update: count must be an integer >= 0, got {count!r}")
        if array.ndim:
            raise ArgumentError(
                f"Perplexity.update: with count=, one mean is expected, got losses {array.shape}: "
                "omit count=, or pass their mean"
            )
        if count:  # the mean of no tokens is nan
            self.total += backend.to_numpy(array).item() * int(count)
            self.count += int(count)

    @property
    def nats(self) -> float:
        """The mean loss in nats per token."""
        if not self.count:
            raise ArgumentError("Perplexity: no losses yet: call update")
        return self.total / self.count

    @property
    def bits(self) -> float:
        """The mean loss in bits per token."""
        return self.nats / math.log(2.0)

    @property
    def value(self) -> float:
        """The perplexity exp(mean loss): at best 1; V for a uniform prediction of V tokens."""
        return perplexity(self.nats)


class Accuracy(MeanMetric):
    """The fraction of predictions that are right, accumulated over batches.

    Parameters
    ----------
    ignore_index : int, optional
        Targets with this id do not count.

    Attributes
    ----------
    total : float
        Number of right predictions so far.
    count : int
        Number of targets so far.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> metric = tg.metrics.Accuracy()
    >>> metric.update([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]], [0, 1, 1])  # logits
    >>> metric.update([1], [1])  # classes
    >>> metric.value
    0.75
    """

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def update(self, prediction: Any, target: Any) -> None:
        """Add a batch.

        Parameters
        ----------
        prediction : Tensor or array_like
            Logits or probabilities, with the classes on the last axis, or the classes themselves:
            integers or booleans, of the shape of `target`.
        target : Tensor or array_like of int or bool
            The classes, of any shape.

        Raises
        ------
        ShapeError
            If the shapes do not fit.
        DTypeError
            If the targets are not classes, or the prediction has their shape and is not, either.
        """
        chosen, wanted = _classes("Accuracy.update", prediction, target, self.ignore_index)
        self.total += float((chosen == wanted).sum())
        self.count += wanted.size

    @property
    def value(self) -> float:
        """The fraction, from 0 to 1."""
        return self._mean


class MAE(MeanMetric):
    """The mean absolute error, accumulated over batches.

    Attributes
    ----------
    total : float
        Sum of the absolute errors so far.
    count : int
        Number of values so far.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> metric = tg.metrics.MAE()
    >>> metric.update([1.0, 2.0], [2.0, 2.0])
    >>> metric.update([0.0], [5.0])
    >>> metric.value
    2.0
    """

    def update(self, prediction: Any, target: Any) -> None:
        """Add a batch.

        Parameters
        ----------
        prediction : Tensor or array_like
            Of any shape.
        target : Tensor or array_like
            Of the same shape; it is not broadcast.

        Raises
        ------
        ShapeError
            If the shapes differ.
        """
        error = _errors("MAE.update", prediction, target)
        self.total += float(np.abs(error).sum())
        self.count += error.size

    @property
    def value(self) -> float:
        """The mean of the absolute errors."""
        return self._mean


class RMSE(MeanMetric):
    """The root of the mean squared error, accumulated over batches.

    The mean of the batches' roots would be smaller, and would depend on the batches.

    Attributes
    ----------
    total : float
        Sum of the squared errors so far.
    count : int
        Number of values so far.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> metric = tg.metrics.RMSE()
    >>> metric.update([1.0, 2.0], [1.0, 2.0])
    >>> metric.update([0.0, 0.0], [4.0, 4.0])
    >>> round(metric.value, 4)  # √(32 / 4), not (0 + 4) / 2
    2.8284
    """

    def update(self, prediction: Any, target: Any) -> None:
        """Add a batch.

        Parameters
        ----------
        prediction : Tensor or array_like
            Of any shape.
        target : Tensor or array_like
            Of the same shape; it is not broadcast.

        Raises
        ------
        ShapeError
            If the shapes differ.
        """
        error = _errors("RMSE.update", prediction, target)
        self.total += float((error * error).sum())
        self.count += error.size

    @property
    def value(self) -> float:
        """The root of the mean of the squared errors."""
        return math.sqrt(self._mean)


class Confusion:
    """The confusion matrix of a classifier, accumulated over batches; it prints as a table.

    Parameters
    ----------
    classes : int or sequence of str
        The number of classes, or their names. Names are strings: in `update` a number is a position
        in this list, so that names such as 1, 2, 3 would be ambiguous.
    ignore_index : int, optional
        Targets with this id do not count.

    Attributes
    ----------
    names : list of str
        The names of the classes.
    value : ndarray of int64, shape (K, K)
        The number of examples of each class (row) that were predicted as each class (column).

    Raises
    ------
    ArgumentError
        If the number of classes is 0, two have one name, or names are numbers.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> confusion = tg.metrics.Confusion(["cat", "dog"])
    >>> confusion.update([0, 1, 1, 1], [0, 0, 1, 1])
    >>> print(confusion)
    true / predicted   cat  dog  recall
                 cat     1    1     50%
                 dog     0    2    100%
           precision  100%  67%     75%
    >>> confusion.accuracy
    0.75
    """

    def __init__(self, classes: int | Sequence[str], ignore_index: int | None = None) -> None:
        if isinstance(classes, str):
            raise ArgumentError(f"Confusion: a number or a list of names, got {classes!r:.40}")
        names: Any = classes  # an array, a column, or another sequence
        if not hasattr(names, "__len__"):
            names = range(checks.positive(names, "Confusion: classes"))
        numbers = [n for n in names if not isinstance(n, str)]
        if numbers and (len(numbers) < len(names) or any(n != i for i, n in enumerate(numbers))):
            raise ArgumentError(
                f"Confusion: the names {_shown(names)} are numbers, which could mean other classes "
                "in update, where a number is a position in this list: pass strings, "
                "[str(c) for c in classes], and labels, or names as strings, to update"
            )
        self.names = list(map(str, names))
        if not self.names or len(set(self.names)) < len(self.names):
            raise ArgumentError(
                f"Confusion: the names of the classes must differ, got {_shown(self.names)}: pass "
                "one for each id, not one for each example"
            )
        self.ignore_index = ignore_index
        self.reset()

    def reset(self) -> None:
        """Set all counts to zero."""
        self.value: npt.NDArray[np.int64] = np.zeros((len(self.names),) * 2, np.int64)

    def update(self, prediction: Any, target: Any) -> None:
        """Add a batch; arguments as of `Accuracy.update`.

        Parameters
        ----------
        prediction : Tensor or array_like
            Logits or probabilities, with the classes on the last axis, or the classes themselves,
            as numbers or names.
        target : Tensor or array_like of int, bool or str
            The classes, of any shape.

        Raises
        ------
        ShapeError, DTypeError
            If shapes or dtypes do not fit.
        ArgumentError
            If a class is outside [0, K), or a name unknown. Nothing was added.
        """
        size = len(self.names)
        prediction, target = self._numbers(prediction), self._numbers(target)
        chosen, wanted = _classes("Confusion.update", prediction, target, self.ignore_index)
        for what, ids in (("prediction", chosen), ("target", wanted)):
            if ids.size and not 0 <= ids.min() <= ids.max() < size:
                raise ArgumentError(
                    f"Confusion.update: {what}s from {ids.min()} to {ids.max()}, and {size} "
                    "classes: pass their number, or all names, to Confusion"
                )
        pairs = wanted.astype(np.int64) * size + chosen.astype(np.int64)
        self.value += np.bincount(pairs, minlength=size * size).reshape(size, size)

    def _numbers(self, classes: Any) -> Any:
        """Return the numbers of classes that are given by name; others as they are."""
        values = np.asarray(classes) if isinstance(classes, list | tuple) else classes
        if getattr(getattr(values, "dtype", None), "kind", "?") not in "OTU":
            return classes
        array = np.asarray(values)
        found = {name: i for i, name in enumerate(self.names)}
        unknown = sorted({str(name) for name in array.flat} - found.keys())
        if unknown:
            raise ArgumentError(
                f"Confusion.update: {unknown[0]!r:.40} is not one of the classes "
                f"{_shown(self.names)}: pass all names to Confusion"
            )
        return np.array([found[str(name)] for name in array.flat], np.int64).reshape(array.shape)

    def merge(self, other: Any) -> Self:
        """Add the batches of another confusion matrix of the same classes.

        Parameters
        ----------
        other : Confusion
            It is not changed.

        Returns
        -------
        Confusion
            The matrix itself.

        Raises
        ------
        ArgumentError
            If its classes differ.
        """
        _same_class(self, other)
        if other.names != self.names:
            raise ArgumentError(
                f"Confusion.merge: the classes differ: {_shown(self.names)} and "
                f"{_shown(other.names)}"
            )
        self.value += other.value
        return self

    def state_dict(self) -> dict[str, Any]:
        """Return the names and the counts, for `load_state_dict`."""
        return {"names": list(self.names), "value": self.value.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict` of the same classes.

        Parameters
        ----------
        state : mapping
            The result of `state_dict`.

        Raises
        ------
        ArgumentError
            If `state` does not fit; nothing was loaded.
        """
        op = "Confusion.load_state_dict"
        check_keys(op, state, ("names", "value"))
        if list(state["names"]) != self.names:
            raise ArgumentError(f"{op}: the classes are {self.names}, and were {state['names']}")
        value = state["value"]
        if not isinstance(value, np.ndarray) or value.shape != self.value.shape:
            raise ArgumentError(f"{op}: value must be an array of shape {self.value.shape}")
        if value.dtype.kind not in "iu" or (value < 0).any():
            raise ArgumentError(f"{op}: value must be counts, integers >= 0")
        self.value = value.astype(np.int64)

    @property
    def accuracy(self) -> float:
        """The fraction of predictions that are right."""
        if not self.value.sum():
            raise ArgumentError("Confusion: no batches yet: call update")
        return float(self.value.trace() / self.value.sum())

    @property
    def recall(self) -> npt.NDArray[np.float64]:
        """Of each class the fraction of its examples that were predicted as it; nan for none."""
        return _ratio(self.value.diagonal(), self.value.sum(axis=1))

    @property
    def precision(self) -> npt.NDArray[np.float64]:
        """Of each class the fraction of its predictions that are right; nan for none."""
        return _ratio(self.value.diagonal(), self.value.sum(axis=0))

    def __str__(self) -> str:
        def percent(x: float) -> str:
            return "-" if math.isnan(x) else f"{x:.0%}"

        total = self.accuracy if self.value.any() else math.nan
        rows = [["true / predicted", *self.names, "recall"]]
        for name, counts, recall in zip(self.names, self.value, self.recall, strict=True):
            rows.append([name, *map(str, counts), percent(recall)])
        rows.append(["precision", *map(percent, self.precision), percent(total)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        )

    def __repr__(self) -> str:
        return f"Confusion({len(self.names)} classes, {self.value.sum():,} examples)"

    def plot(self, path: Any = None) -> Any:
        """Plot the matrix: a row for each class, its counts as fractions of the row in grey.

        Parameters
        ----------
        path : str or path, optional
            A file that the plot is written to (.png, .svg, ...).

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ArgumentError
            Before the first call of `update`.
        MissingExtraError
            If matplotlib is not installed.
        """
        title = f"accuracy {self.accuracy:.1%}"
        figure = matplotlib("matplotlib.figure", "Confusion.plot").Figure(layout="constrained")
        axes = figure.add_subplot(xlabel="predicted", ylabel="true", title=title)
        shares = np.nan_to_num(_ratio(self.value, self.value.sum(axis=1, keepdims=True)))
        axes.imshow(shares, cmap="Greys", vmin=0, vmax=1)
        ticks = range(len(self.names))
        upright = 90 if sum(map(len, self.names)) > 40 else 0
        axes.set_xticks(ticks, self.names, rotation=upright)
        axes.set_yticks(ticks, self.names)
        for (row, column), count in np.ndenumerate(self.value):
            color = "white" if shares[row, column] > 0.5 else "black"
            if count:
                axes.text(column, row, f"{count:,}", ha="center", va="center", color=color)
        if path is not None:
            figure.savefig(path)
        return figure


def _shown(names: Any) -> str:
    """Return names as a message shows them."""
    rest = f", ... ({len(names)} in all)" if len(names) > 8 else ""
    return f"[{', '.join(f'{name!r:.20}' for name in list(names)[:8])}{rest}]"


def _same_class(metric: Any, other: Any) -> None:
    if type(other) is not type(metric):
        name = type(metric).__name__
        raise ArgumentError(f"{name}.merge: another {name} is expected, got a {class_name(other)}")


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return part / whole, nan where the whole is 0."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _array(x: Any) -> npt.NDArray[Any]:
    return backend.to_numpy(x._data if isinstance(x, Tensor) else backend.asarray(x))


def _classes(
    op: str, prediction: Any, target: Any, ignore_index: int | None
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the predicted classes and the targets that count, each of one axis."""
    chosen, wanted = _array(prediction), _array(target)
    if wanted.dtype.kind not in "iub":
        raise DTypeError(f"{op}: targets are classes (integers), got {wanted.dtype}")
    if chosen.ndim == wanted.ndim + 1 and chosen.shape[:-1] == wanted.shape and chosen.shape[-1]:
        chosen = chosen.argmax(axis=-1)
    elif chosen.shape != wanted.shape:
        raise ShapeError(
            f"{op}: targets of shape {wanted.shape} need classes of the same shape, or logits "
            f"{(*wanted.shape, 'V')} with the classes on the last axis, got {chosen.shape}"
        )
    elif chosen.dtype.kind not in "iub":
        raise DTypeError(
            f"{op}: the prediction, {chosen.dtype} of the shape of the targets, has no classes: "
            "pass logits > 0 or probabilities > 0.5 of a binary classifier"
        )
    if ignore_index is not None:
        keep = wanted != ignore_index
        return chosen[keep], wanted[keep]
    return chosen.ravel(), wanted.ravel()


def _errors(op: str, prediction: Any, target: Any) -> npt.NDArray[np.float64]:
    """Return prediction - target in double precision."""
    found, wanted = (_array(x).astype(np.float64) for x in (prediction, target))
    if found.shape != wanted.shape:
        raise ShapeError(
            f"{op}: prediction {found.shape} and target {wanted.shape} differ; a metric does not "
            "broadcast: reshape one of them"
        )
    return found - wanted


__getattr__ = module_getattr(
    __name__,
    {
        "ConfusionMatrix": "Confusion(classes)",
        "confusion_matrix": "Confusion(classes), with update(prediction, target)",
        "accuracy_score": "Accuracy(), with update(prediction, target)",
        "MeanAbsoluteError": "MAE()",
        "MeanSquaredError": "RMSE(), whose value is the root",
        "RootMeanSquaredError": "RMSE()",
    },
    globals(),
)
