"""The figures of a training run, one row for each epoch or every few steps."""

from __future__ import annotations

from typing import Any

from .._util.extras import imported, matplotlib
from ..errors import ArgumentError

_DIGITS = {"epoch": ".2f", "lr": ".3g", "seconds": ".1f"}  # of floats; others: .4f


class History(list[dict[str, Any]]):
    """The figures of a run: a list of dicts, one for each epoch, that prints as a table.

    With ``every=`` of `fit` a row is made every so many steps.

    Attributes
    ----------
    stopped : str
        Why the run ended before its last epoch; empty if it did not.

    Notes
    -----
    The figures of a row are ``epoch`` and ``step``, their numbers so far, with a fraction in the
    middle of an epoch if its length is known; ``loss``, the mean since the last row, each loss
    taken before its step; ``valid_loss``, now, if there is validation; ``gradient_norm``, the mean
    before clipping; ``lr``, the learning rate; and ``seconds`` of training and validation so far.
    Callbacks can add others.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> history = tg.training.History([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    >>> print(history)
    epoch    loss
        1  0.5000
        2  0.2500
    >>> history["loss"], history[-1]["loss"]
    ([0.5, 0.25], 0.25)
    """

    stopped = ""

    def __getitem__(self, key: Any) -> Any:
        """Return a row, rows, or by its name the column of a figure; None where it is missing."""
        if not isinstance(key, str):
            return super().__getitem__(key)
        if self and key not in self.names:
            raise ArgumentError(f"History: no figure {key!r}: there are {', '.join(self.names)}")
        return [row.get(key) for row in self]

    @property
    def names(self) -> list[str]:
        """The names of the figures."""
        return list(dict.fromkeys(name for row in self for name in row))

    def line(self, row: int) -> str:
        """Return a row as a line of the table.

        Parameters
        ----------
        row : int
            Its index; -1 is the last one.
        """
        cells = []
        for name in self.names:
            value = self[row].get(name)
            text = "-" if value is None else str(value)
            if isinstance(value, float):
                text = format(value, _DIGITS.get(name, ".4f"))
            elif isinstance(value, int):
                text = format(value, ",d" if name == "step" else "d")
            cells.append(text.rjust(max(len(name), 6 if name != "epoch" else 0)))
        return "  ".join(cells)

    @property
    def header(self) -> str:
        """The first line of the table."""
        return "  ".join(name.rjust(6 if name != "epoch" else 0) for name in self.names)

    def __str__(self) -> str:
        lines = [self.header, *map(self.line, range(len(self)))] if self else ["no epoch yet"]
        return "\n".join([*lines, self.stopped] if self.stopped else lines)

    def to_pandas(self) -> Any:
        """Return a DataFrame with the same rows; ``pandas.DataFrame(history)`` is equal.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        pandas = imported("pandas", "pip install pandas", "History.to_pandas")
        return pandas.DataFrame(list(self))

    def plot(self, *names: str, path: Any = None) -> Any:
        """Plot figures over the epochs.

        Parameters
        ----------
        *names : str
            The figures. Default: the losses.
        path : str or path, optional
            A file that the plot is written to (.png, .svg, ...).

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ArgumentError
            If it has no epochs, or lacks a figure.
        MissingExtraError
            If matplotlib is not installed.
        """
        names = names or tuple(name for name in self.names if name.endswith("loss"))
        if not self or not names:
            raise ArgumentError("History.plot: nothing to plot: train for an epoch first")
        columns = {name: self[name] for name in names}
        figure = matplotlib("matplotlib.figure", "History.plot").Figure(layout="constrained")
        axes = figure.add_subplot(xlabel="epoch")
        for name, column in columns.items():
            shown = [float("nan") if value is None else value for value in column]
            axes.plot(self["epoch"], shown, ".-", label=name)
        axes.legend()
        if path is not None:
            figure.savefig(path)
        return figure
