"""Figures of gradient norms, learning curves and activations, by matplotlib (extra ``plot``).

Figures are made without pyplot, thus without a window, a global list of figures or a backend.
``figure.savefig(path)`` writes a figure; a notebook displays it.

Labels are drawn with the fonts in ``matplotlib.rcParams["font.family"]``. Characters that these
lack are drawn as □. For Chinese, Japanese, Korean or emoji add an installed font::

    matplotlib.rcParams["font.family"] = ["sans-serif", "Noto Sans CJK SC"]
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._util.extras import matplotlib
from ..errors import ArgumentError, ShapeError
from ..tensors import checks
from .loss_curve import LearningCurve, learning_curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Drawn for a character that no font of the figure has. DejaVu Sans, which is part of matplotlib,
# has it.
MISSING = "□"


def plot_gradient_norms(
    norms: npt.ArrayLike | Mapping[str, npt.ArrayLike], title: str = ""
) -> Figure:
    """Plot gradient norms against the distance in time, on a logarithmic scale.

    Parameters
    ----------
    norms : array_like or mapping of str to array_like
        Result of `gradient_norms`, (L, T) or (T,), or the results of several networks or strategies
        by name. Zeros, beyond a cut, are not drawn.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentError
        If there is nothing to draw.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> figure = tg.viz.plot_gradient_norms({"RNN": [1.0, 0.1, 0.01], "LSTM": [1.0, 0.9, 0.8]})
    >>> figure.axes[0].get_yscale()
    'log'
    """
    lines: dict[str, Any] = {}
    for name, values in _named(norms, "plot_gradient_norms"):
        rows = np.atleast_2d(np.asarray(values, np.float64))
        for number, row in enumerate(rows):
            layer = f"layer {number}" if len(rows) > 1 else ""
            lines[", ".join(filter(None, [name, layer]))] = np.where(row > 0, row, np.nan)
    with _new_figure(title) as (figure, axes, drawable):
        for name, row in lines.items():
            axes.plot(row, label=drawable(name), marker="." if len(row) < 40 else None)
        axes.set(xlabel="distance in time (steps)", ylabel="norm of the gradient", yscale="log")
    return figure


def plot_learning_curve(
    curves: LearningCurve | npt.ArrayLike | Mapping[str, LearningCurve | npt.ArrayLike],
    title: str = "",
    xlabel: str = "training steps",
    ylabel: str = "loss (nats)",
) -> Figure:
    """Plot learning curves, with the range between their deciles shaded.

    Parameters
    ----------
    curves : LearningCurve, array_like, or mapping of str to these
        Results of `learning_curve`, or losses, one for each step.
    title, xlabel, ylabel : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentError
        If there is nothing to draw.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> figure = tg.viz.plot_learning_curve({"training": [2.0, 1.5, 1.2]}, xlabel="epoch")
    >>> figure.axes[0].get_xlabel()
    'epoch'
    """
    named = _named(curves, "plot_learning_curve")
    with _new_figure(title) as (figure, axes, drawable):
        for name, values in named:
            curve = values if isinstance(values, LearningCurve) else learning_curve(values)
            (line,) = axes.plot(curve.at, curve.mean, label=drawable(name))
            axes.fill_between(curve.at, curve.low, curve.high, alpha=0.15, color=line.get_color())
        axes.set(xlabel=drawable(xlabel), ylabel=drawable(ylabel))
    return figure


def plot_activations(
    values: npt.ArrayLike, text: str, width: int = 64, title: str = "", limit: float | None = None
) -> Figure:
    """Draw a text, each character on a colour that shows the activation of a hidden unit.

    Parameters
    ----------
    values : array_like, shape (T,)
        Activations of one unit: a column of the result of `activations`.
    text : str
        T characters. Line ends and other invisible characters are drawn as signs.
    width : int
        Characters per line.
    title : str
    limit : float, optional
        The ends of the colour scale: +limit is red, -limit is blue. By default the largest absolute
        value.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ShapeError
        If the number of values is not the number of characters.
    ArgumentError
        If the text is empty, or `width` or `limit` is not positive.
    MissingExtraError
        If matplotlib is not installed.

    Notes
    -----
    After Karpathy, Johnson and Fei-Fei 2015, "Visualizing and understanding recurrent networks",
    arXiv:1506.02078, figure 2.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> figure = tg.viz.plot_activations([0.9, -0.9, 0.1], "abc")
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['a', 'b', 'c']
    """
    width = checks.positive(width, "viz.plot_activations: width")
    unit = np.asarray(values, np.float64)
    if unit.shape != (len(text),):
        raise ShapeError(
            f"viz.plot_activations: values of shape {unit.shape} for {len(text)} characters: one "
            "unit is drawn, such as activations(layer, x)[:, unit]"
        )
    if not text:
        raise ArgumentError("viz.plot_activations: the text is empty")
    limit = float(np.abs(unit).max()) or 1.0 if limit is None else limit
    limit = checks.above_zero(limit, "viz.plot_activations: limit")
    count = -(-len(text) // width)
    grid = np.full(count * width, np.nan)
    grid[: len(unit)] = unit
    columns = min(width, len(text))
    size = (max(3.0, 0.16 * columns + 1.2), 0.26 * count + (0.8 if title else 0.5))
    with _new_figure(title, size) as (figure, axes, drawable):
        image = axes.imshow(
            grid.reshape(count, width)[:, :columns], "RdBu_r", vmin=-limit, vmax=limit,
            aspect="auto",
        )  # fmt: skip
        for t, character in enumerate(text):
            axes.text(
                t % width, t // width, drawable(_visible(character)), ha="center", va="center",
                fontsize=9, parse_math=False,
                color="white" if abs(unit[t]) > 0.7 * limit else "black",
            )  # fmt: skip
        axes.set_axis_off()
        figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)
    return figure


# -- figures ---------------------------------------------------------------------------------------


def _named(values: Any, name: str) -> list[tuple[str, Any]]:
    named = list(values.items()) if isinstance(values, Mapping) else [("", values)]
    if not named:
        raise ArgumentError(f"viz.{name}: there is nothing to draw")
    return named


@contextlib.contextmanager
def _new_figure(
    title: str, size: tuple[float, float] = (6.4, 4.0)
) -> Iterator[tuple[Figure, Any, Callable[[str], str]]]:
    """Make a figure, its axes, and a function that replaces characters without a glyph.

    Matplotlib would warn of each such character whenever the figure is drawn.
    """
    families = [*matplotlib("matplotlib").rcParams["font.family"], "DejaVu Sans"]
    manager = matplotlib("matplotlib.font_manager")
    found = [manager.findfont(manager.FontProperties(family=[family])) for family in families]
    fonts = [manager.get_font(path) for path in found]

    def drawable(text: str) -> str:
        return "".join(
            c if c == "\n" or any(f.get_char_index(ord(c)) for f in fonts) else MISSING
            for c in text
        )

    with matplotlib("matplotlib").rc_context({"font.family": families}):
        figure = matplotlib("matplotlib.figure").Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(drawable(title))
        yield figure, axes, drawable
        if any(axes.get_legend_handles_labels()[1]):
            axes.legend()


def _visible(character: str) -> str:
    """Return a sign for a character that cannot be seen, or the character itself."""
    if character.isspace():
        return {"\n": "↵", "\t": "→"}.get(character, " ")
    return character if character.isprintable() else "·"
