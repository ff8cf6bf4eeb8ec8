"""Drawings of truncated backpropagation through time: the words that a loss's gradient reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bptt import Strategy
from ..bptt.strategies import strategy_of
from ..engine.autograd import grad
from ..engine.grad_mode import enable_grad
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from ..nn import Cell, Recurrent
from ..tensors.creation import tensor
from .drawing import Canvas, Drawing, lines_of, text_width, tokens_of, visible

MASK = 96  # px, the side of the triangle
CHIP, LINE, BETWEEN = 26, 36, 20  # height of a word, of a line, from word to word
SIZE = 14
LEGEND = (
    "Lines between words: gradients pass. Triangles: row t is the loss at word t, column s is word "
    "s; in a filled cell the gradient of this loss reaches this word. A stronger colour means a "
    "larger factor."
)

Numbers = npt.NDArray[np.float64]


class _Sum(Cell):
    """h_t = h_{t-1} + x_t: the derivative of h_t by x_s is the product of the weights of edges."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size

    def step(self, z: Tensor, h: Tensor) -> Tensor:
        return h + z


def truncation(
    words: str | Sequence[str],
    strategies: Sequence[Strategy] | Mapping[str, Strategy],
    numbers: Mapping[str, Sequence[float]] | None = None,
    title: str = "",
) -> Drawing:
    """Draw the words that the gradient of each loss reaches, for strategies of BPTT.

    Parameters
    ----------
    words : sequence of str, or str
        The T tokens: words, or the characters of a string.
    strategies : sequence of Strategy, or mapping of str to Strategy
        `tg.bptt.Full`, `tg.bptt.Truncated`, `tg.bptt.Randomized`. A random one draws once.
    numbers : mapping of str to sequence of float, optional
        Numbers to print next to the strategies, one for each: ``{"bias²": [...]}``.
    title : str

    Returns
    -------
    Drawing
        Its ``data`` has, for each strategy, a (T, T) array: element (t, s) is the factor of the
        gradient of the loss at word t by the state at word s, 0 where none arrives.

    Raises
    ------
    ArgumentError
        If words or strategies are missing, or if there is not one number for each strategy.

    Notes
    -----
    The factors are computed, not assumed: a layer with h_t = h_{t-1} + x_t runs over the words with
    each strategy, and its gradients are the factors.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> words = "the time traveller for so it will".split()
    >>> picture = tg.viz.truncation(words, [tg.bptt.Full(), tg.bptt.Truncated(3)])
    >>> picture.data["Truncated(3)"].sum(axis=1)  # words that each loss reaches
    array([1., 2., 3., 1., 2., 3., 1.])
    """
    tokens = tokens_of(words, "viz.truncation: words")
    if isinstance(strategies, Mapping):
        named = dict(strategies)
    else:
        named = {repr(strategy): strategy for strategy in strategies}
        if len(named) < len(strategies):
            raise ArgumentError(
                "viz.truncation: two strategies have the same name: pass a dict from names to "
                f"strategies; got {[repr(strategy) for strategy in strategies]}"
            )
    if not named:
        raise ArgumentError("viz.truncation: no strategy: pass [tg.bptt.Full()], for example")
    printed = {key: [float(v) for v in values] for key, values in (numbers or {}).items()}
    for key, values in printed.items():
        if len(values) != len(named):
            raise ArgumentError(
                f"viz.truncation: numbers[{key!r}] has {len(values)} elements: there is one for "
                f"each of the {len(named)} strategies"
            )
    masks = {name: _factors(strategy, len(tokens)) for name, strategy in named.items()}
    notes = {
        name: ", ".join(f"{key} {values[i]:.3g}" for key, values in printed.items())
        for i, name in enumerate(masks)
    }
    name = title or "The words that the gradient of a loss reaches"
    alt = " ".join([f"{name}.", *(_sentence(tokens, *item, notes) for item in masks.items())])

    def draw(room: float) -> Canvas:
        return _draw(tokens, masks, notes, title, room)

    return Drawing(name, alt, masks, draw)


def _factors(strategy: Any, steps: int) -> Numbers:
    """Return the factor of the gradient of each loss by each state, from gradients of a layer."""
    layer = Recurrent(_Sum, 1, 1, bptt=strategy_of(strategy, "viz.truncation"))
    with enable_grad():
        x = tensor(np.ones((steps, steps, 1)), requires_grad=True, device="cpu")
        output, _ = layer(x)
        at = np.arange(steps)
        (gradient,) = grad(output[at, at, 0].sum(), [x])  # sequence t has its loss at step t
    return gradient.numpy()[:, :, 0].T.astype(np.float64)


def _segments(mask: Numbers) -> list[tuple[int, int]]:
    """Return the runs of words between which gradients pass."""
    cuts = [t for t in range(1, len(mask)) if mask[t, t - 1] == 0]
    return list(pairwise([0, *cuts, len(mask)]))


def _sentence(words: list[str], name: str, mask: Numbers, notes: Mapping[str, str]) -> str:
    joint = "" if all(len(word) == 1 for word in words) else " "
    runs = " | ".join(joint.join(words[a:b]) for a, b in _segments(mask))
    pairs = len(mask) * (len(mask) + 1) // 2
    text = f"{name}: {runs}; {np.count_nonzero(mask)} of {pairs} pairs of a loss and a word"
    if mask.max() > 1:
        kept = sorted({f"{mask[t, t - 1]:.3g}" for t in range(1, len(mask)) if mask[t, t - 1] > 0})
        text += f", an edge that is kept multiplies by {' or '.join(kept[:3])}"
    return f"{text}{'; ' * bool(notes[name])}{notes[name]}."


def _draw(
    words: list[str],
    masks: Mapping[str, Numbers],
    notes: Mapping[str, str],
    title: str,
    room: float,
) -> Canvas:
    widths = [text_width(visible(word), SIZE) + 12 for word in words]
    left = max(room - MASK - 12, max(widths) + 40)  # of the triangles
    canvas = Canvas(left + MASK + 12)
    y = 8.0
    if title:
        canvas.text(12, y + 12, title, 16, anchor="start", bold=True)
        y += 34
    lines = lines_of(widths, left - 36, BETWEEN)
    strongest = max(float(mask.max()) for mask in masks.values())
    for name, mask in masks.items():
        canvas.text(12, y + 12, name, SIZE, anchor="start", bold=True)
        after, broad = 28 + text_width(name, SIZE) * 1.1, text_width(notes[name], 13)
        place, top = (after, y + 28) if after + broad < left - 10 else (12.0, y + 48)
        if notes[name]:
            canvas.text(place, top - 16, notes[name], 13, "faint", "start")
        mask_top = y + 4 if max(after, place + broad) < left else top
        _words(canvas, words, widths, lines, mask, top)
        _triangle(canvas, mask, strongest, left, mask_top)
        y = max(top + LINE * len(lines), mask_top + MASK) + 18
    for line in _wrapped(LEGEND, room - 24):
        canvas.text(12, y + 2, line, 12, "faint", "start")
        y += 17
    canvas.height = y + 2
    return canvas


def _words(
    canvas: Canvas,
    words: list[str],
    widths: list[float],
    lines: list[list[int]],
    mask: Numbers,
    top: float,
) -> None:
    """Draw the words, and lines between those that gradients connect."""
    colours = {}
    for number, (start, stop) in enumerate(_segments(mask)):
        colours.update(dict.fromkeys(range(start, stop), ("blue", "orange")[number % 2]))
    for row, line in enumerate(lines):
        x, y = 12.0, top + row * LINE
        for t in line:
            colour = colours[t]
            if t and mask[t, t - 1]:
                before = x - (BETWEEN if t != line[0] else 10)
                ends = [(before, y + CHIP / 2), (x, y + CHIP / 2)]
                canvas.line(ends, colour, "edge strong", False)
            elif t and t != line[0]:
                middle = x - BETWEEN / 2
                ends = [(middle, y - 1), (middle, y + CHIP + 1)]
                canvas.line(ends, "red", "edge dashed", False)
            canvas.box(x, y, widths[t], CHIP, colour, "tint")
            canvas.text(x + widths[t] / 2, y + CHIP / 2, visible(words[t]), SIZE)
            x += widths[t] + BETWEEN
        following = line[-1] + 1
        if following < len(words) and mask[following, following - 1]:
            ends = [(x - BETWEEN, y + CHIP / 2), (x - BETWEEN + 10, y + CHIP / 2)]
            canvas.line(ends, colours[following], "edge strong", False)


def _triangle(canvas: Canvas, mask: Numbers, strongest: float, x: float, y: float) -> None:
    """Draw a mask: a filled cell where a gradient arrives, darker for a larger factor."""
    cell = MASK / len(mask)
    side = cell - min(1.0, cell / 6)
    groups: dict[float, list[tuple[int, int]]] = {}
    for t, s in zip(*np.tril_indices(len(mask)), strict=True):
        groups.setdefault(float(mask[t, s]), []).append((int(t), int(s)))
    for factor, cells in sorted(groups.items()):
        path = "".join(
            f"M{x + s * cell:.5g} {y + t * cell:.5g}h{side:.4g}v{side:.4g}h{-side:.4g}z"
            for t, s in cells
        )
        over = float(np.log(factor)) / np.log(strongest) if factor > 1 else 0.0
        opacity, colour = (0.5 + 0.5 * over, "blue") if factor else (0.12, "line")
        canvas.elements.append(
            f'<path class="solid {colour} cells" fill-opacity="{opacity:.2g}" d="{path}"/>'
        )


def _wrapped(text: str, room: float) -> list[str]:
    """Return a text in lines that fit."""
    words = text.split()
    lines = lines_of([text_width(word, 12) for word in words], room, text_width(" ", 12))
    return [" ".join(words[i] for i in line) for line in lines]
