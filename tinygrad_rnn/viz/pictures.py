"""Pictures of the numbers, by matplotlib (extra ``plot``).

A figure is made without pyplot, so no window, no global list of figures and no backend is involved;
``figure.savefig(path)`` writes it, a notebook shows it.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError, MissingExtraError, ShapeError
from ..tensors import checks
from .records import LearningCurve, learning_curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What systems have for Chinese, Japanese and Korean, the simplified forms first; any other font
# that has the characters is taken after these.
CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN",
    "Microsoft YaHei", "PingFang SC", "Hiragino Sans GB", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "SimHei", "Heiti SC", "Noto Sans CJK JP", "Arial Unicode MS",
)  # fmt: skip


def plot_gradient_norms(
    norms: npt.ArrayLike | Mapping[str, npt.ArrayLike], title: str = ""
) -> Figure:
    """Draw gradient norms against the distance in time, on a logarithmic scale.

    Parameters
    ----------
    norms : array_like or mapping of str to array_like
        What `gradient_norms` returned, (L, T) or (T,); of several networks or strategies by name.
        Beyond a cut, where they are zero, the line ends.
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

    Warns
    -----
    UserWarning
        Once, if no installed font has the characters of a label.

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
    with _axes(title, lines) as (figure, axes, label):
        for name, row in lines.items():
            axes.plot(row, label=label(name), marker="." if len(row) < 40 else None)
        axes.set(xlabel="distance in time (steps)", ylabel="norm of the gradient", yscale="log")
    return figure


def plot_learning_curve(
    curves: LearningCurve | npt.ArrayLike | Mapping[str, LearningCurve | npt.ArrayLike],
    title: str = "",
    xlabel: str = "training steps",
    ylabel: str = "loss (nats)",
) -> Figure:
    """Draw learning curves, the spread of each as a shade.

    Parameters
    ----------
    curves : LearningCurve, array_like, or mapping of str to these
        What `learning_curve` returned, or losses, one for each step.
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

    Warns
    -----
    UserWarning
        Once, if no installed font has the characters of a label.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> figure = tg.viz.plot_learning_curve({"training": [2.0, 1.5, 1.2]}, xlabel="epoch")
    >>> figure.axes[0].get_xlabel()
    'epoch'
    """
    named = _named(curves, "plot_learning_curve")
    with _axes(title, [xlabel, ylabel, *(name for name, _ in named)]) as (figure, axes, label):
        for name, values in named:
            curve = values if isinstance(values, LearningCurve) else learning_curve(values)
            (line,) = axes.plot(curve.at, curve.mean, label=label(name))
            axes.fill_between(curve.at, curve.low, curve.high, alpha=0.15, color=line.get_color())
        axes.set(xlabel=label(xlabel), ylabel=label(ylabel))
    return figure


def plot_activations(
    values: npt.ArrayLike, text: str, width: int = 64, title: str = "", limit: float | None = None
) -> Figure:
    """Draw a text, each character on the colour of what a hidden unit held there.

    Parameters
    ----------
    values : array_like, shape (T,)
        Of one unit: a column of what `activations` returned.
    text : str
        T characters. Line ends and other characters that cannot be seen are drawn as signs.
    width : int
        Characters a line.
    title : str
    limit : float, optional
        The value of the fullest colour, red for +limit and blue for -limit; the largest absolute
        value if not given.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ShapeError
        If there are not as many values as characters.
    ArgumentError
        If the text is empty, or a number out of its range.
    MissingExtraError
        If matplotlib is not installed.

    Warns
    -----
    UserWarning
        Once, if no installed font has some of the characters: they are drawn as the hexadecimal
        number of their code point.

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
    signs = [_sign(character) for character in text]
    with _axes(title, signs, size, squared=True) as (figure, axes, label):
        image = axes.imshow(
            grid.reshape(count, width)[:, :columns], "RdBu_r", vmin=-limit, vmax=limit,
            aspect="auto",
        )  # fmt: skip
        for place, sign in enumerate(signs):
            shown = label(sign)
            axes.text(
                place % width, place // width, shown, ha="center", va="center", linespacing=0.9,
                fontsize=9 if shown == sign else 4.5, parse_math=False,
                color="white" if abs(unit[place]) > 0.7 * limit else "black",
            )  # fmt: skip
        axes.set_axis_off()
        figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)
    return figure


# -- figures ---------------------------------------------------------------------------------------


def _matplotlib(module: str = "") -> Any:
    try:
        return importlib.import_module(f"matplotlib.{module}" if module else "matplotlib")
    except ImportError as error:
        raise MissingExtraError(
            "matplotlib is not installed: pip install 'tinygrad-rnn[plot]'"
        ) from error


def _named(values: Any, name: str) -> list[tuple[str, Any]]:
    named = list(values.items()) if isinstance(values, Mapping) else [("", values)]
    if not named:
        raise ArgumentError(f"viz.{name}: there is nothing to draw")
    return named


@contextlib.contextmanager
def _axes(
    title: str, labels: Iterable[str], size: tuple[float, float] = (6.4, 4.0), squared: bool = False
) -> Iterator[tuple[Figure, Any, Callable[[str], str]]]:
    """Make a figure, its axes, and what turns a label into characters that can be drawn.

    The fonts for all labels are looked for once, so that there is one warning at most.
    """
    texts = [title, *labels]
    characters = dict.fromkeys(c for text in texts for c in text if c.isprintable())
    families, missing = _families(set(characters))
    if missing:
        some = "".join(c for c in characters if c in missing)
        warnings.warn(
            f"viz: no installed font has {some[:20]}{'…' * (len(some) > 20)}: drawn as numbers of "
            "code points. For Chinese, Japanese and Korean install Noto Sans CJK (Debian: "
            "fonts-noto-cjk)",
            stacklevel=4,
        )

    def label(text: str) -> str:
        return "".join(_code(c, squared) if c in missing else c for c in text)

    with _matplotlib().rc_context({"font.family": families}):
        figure = _matplotlib("figure").Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(label(title))
        yield figure, axes, label
        if any(axes.get_legend_handles_labels()[1]):
            axes.legend()


def _families(characters: set[str]) -> tuple[list[str], set[str]]:
    """Return the fonts for some characters, the configured ones first, and those that none has."""
    manager = _matplotlib("font_manager")
    families = list(_matplotlib().rcParams["font.family"])
    missing = set(characters)
    for family in families:
        with contextlib.suppress(ValueError):  # a font that is configured, but not installed
            missing -= _drawn(manager.findfont(family, fallback_to_default=False), missing)
    for add in (False, True):
        if missing and add:
            _add_new_fonts(manager)
        for name, path in _candidates(manager):
            drawn = _drawn(path, missing)
            if drawn:
                families.append(name)
                missing -= drawn
            if not missing:
                return families, missing
    return families, missing


def _candidates(manager: Any) -> list[tuple[str, str]]:
    """Return the names and files of all fonts that matplotlib knows, the best ones first."""
    known = {
        font.name: font.fname
        for font in manager.fontManager.ttflist
        if font.style == "normal" and "lastresort" not in font.name.replace(" ", "").lower()
    }
    rank = {name: number for number, name in enumerate(CJK_FONTS)}
    return sorted(known.items(), key=lambda item: (rank.get(item[0], len(rank)), item))


def _add_new_fonts(manager: Any) -> None:
    """Tell matplotlib of fonts installed since it made its list, which it keeps in a file."""
    known = {font.fname for font in manager.fontManager.ttflist}
    for path in sorted(set(manager.findSystemFonts()) - known):
        with contextlib.suppress(Exception):  # matplotlib passes over what it cannot read, too
            manager.fontManager.addfont(path)


def _drawn(path: str, characters: set[str]) -> set[str]:
    """Return those of the characters that a font file has."""
    try:
        font = _matplotlib("font_manager").get_font(path)
    except (OSError, RuntimeError):  # removed since, or broken
        return set()
    return {c for c in characters if font.get_char_index(ord(c))}


def _code(character: str, squared: bool) -> str:
    """Return the number of a code point, in two lines for a place of one character."""
    if not squared:
        return f"\\u{ord(character):04x}"
    digits = f"{ord(character):04X}" if ord(character) < 0x10000 else f"{ord(character):06X}"
    return f"{digits[: len(digits) // 2]}\n{digits[len(digits) // 2 :]}"


def _sign(character: str) -> str:
    """Return what is drawn for a character of a text."""
    if character.isspace():
        return {"\n": "↵", "\t": "→"}.get(character, " ")
    return character if character.isprintable() else "·"
