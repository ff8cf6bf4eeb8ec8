"""Drawings of the partition of a text into minibatches, sequential and random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .. import random as tg_random
from ..data.text import random as random_order
from ..data.text import sequential
from ..errors import ArgumentError
from .drawing import SERIES, Canvas, Drawing, lines_of, text_width, tokens_of, visible

ORDERS = {"sequential": sequential, "random": random_order}
SIZE, HEIGHT = 14, 24  # of a token
LINE, TABLE_GAP, STATE = 48, 26, 34  # a line of the text; from table to table; room for a state
Batches = list[npt.NDArray[np.int64]]


def partition(
    tokens: str | Sequence[str],
    batch_size: int,
    steps: int,
    rng: tg_random.Rng = 0,
    orders: Sequence[str] = ("sequential", "random"),
) -> Drawing:
    """Draw the partition of a text into minibatches, and whether a minibatch continues a state.

    Parameters
    ----------
    tokens : str or sequence of str
        The text: the characters of a string, or words; a short one, every token is drawn.
    batch_size : int
        The number of sequences in a minibatch, B.
    steps : int
        The length of a sequence, T.
    rng : int or numpy.random.Generator, optional
        Source of the offset and of the order. An integer gives every order the same offset.
    orders : sequence of {"sequential", "random"}
        `tg.data.text.sequential`, whose minibatches carry the state, and `tg.data.text.random`,
        whose minibatches start from zeros.

    Returns
    -------
    Drawing
        Its ``data`` has, for each order, a list of minibatches: arrays of shape (B, T), the
        positions of the inputs in the text.

    Raises
    ------
    ArgumentError
        If the text is too short for a minibatch, or an order is unknown.

    Notes
    -----
    The functions of `tg.data.text` partition the positions of the tokens. The target of an input is
    the token after it.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> picture = tg.viz.partition("the time traveller", batch_size=2, steps=3)
    >>> first, second = picture.data["sequential"]
    >>> first.tolist(), second.tolist()
    ([[0, 1, 2], [7, 8, 9]], [[3, 4, 5], [10, 11, 12]])
    """
    text = tokens_of(tokens, "viz.partition: tokens")
    if isinstance(orders, str):
        orders = [orders]
    if not orders or not set(orders) <= set(ORDERS):
        raise ArgumentError(
            f'viz.partition: orders are "sequential" and "random", got {list(orders)!r}'
        )
    data: dict[str, Batches] = {
        order: [
            x.numpy().T
            for x, _ in ORDERS[order](np.arange(len(text)), batch_size, steps, rng, device="cpu")
        ]
        for order in dict.fromkeys(orders)
    }
    title = "A text in minibatches"
    sentences = [_sentence(text, order, batches) for order, batches in data.items()]
    alt = " ".join([f"{title} of {batch_size} sequences of {steps} tokens.", *sentences])

    def draw(room: float) -> Canvas:
        return _draw(text, data, room)

    return Drawing(title, alt, data, draw)


def _sentence(text: list[str], order: str, batches: Batches) -> str:
    joint = "" if all(len(token) == 1 for token in text) else " "
    parts = [
        f"minibatch {number}: {' | '.join(joint.join(text[i] for i in row) for row in batch)}"
        for number, batch in enumerate(batches, 1)
    ]
    carried = "the state is carried from each minibatch to the next"
    state = carried if order == "sequential" else "every sequence starts from the state zero"
    used = sum(batch.size for batch in batches)
    return f"{order}, {state}: {'; '.join(parts)}; {len(text) - used} tokens are not inputs."


def _draw(text: list[str], data: dict[str, Batches], room: float) -> Canvas:
    canvas = Canvas(room)
    y = 8.0
    for order, batches in data.items():
        note = (
            "red: the state is carried to the next minibatch"
            if order == "sequential"
            else "every sequence starts from the state zero"
        )
        canvas.text(12, y + 12, order, 15, anchor="start", bold=True)
        after = 12 + text_width(order, 15) * 1.1 + 12
        if after + text_width(note, 13) < room - 12:
            canvas.text(after, y + 12, note, 13, "faint", "start")
        else:
            y += 20
            canvas.text(12, y + 12, note, 13, "faint", "start")
        y = _text(canvas, text, batches, y + 32, room)
        y = _tables(canvas, text, order == "sequential", batches, y + 12, room) + 12
    canvas.height = y
    return canvas


def _text(canvas: Canvas, text: list[str], batches: Batches, y: float, room: float) -> float:
    """Draw the text in lines, each token in the colour of its minibatch; return the new y."""
    owner = {int(i): n for n, batch in enumerate(batches) for i in batch.ravel()}
    starts = {int(row[0]) for batch in batches for row in batch}
    widths = [max(17.0, text_width(visible(token), SIZE) + 6) for token in text]
    for line in lines_of(widths, room - 24, 2):
        x = 12.0
        for i in line:
            if i in owner:
                canvas.box(x, y, widths[i], HEIGHT, _colour(owner[i]), "tint", 2)
            colour = "ink" if i in owner else "faint"
            canvas.text(x + widths[i] / 2, y + HEIGHT / 2, visible(text[i]), SIZE, colour)
            if i in starts:
                number, colour = str(owner[i] + 1), _colour(owner[i])
                canvas.text(x + 1, y + HEIGHT + 9, number, 12, colour, "start", bold=True)
            x += widths[i] + 2
        y += LINE
    return y


def _tables(
    canvas: Canvas, text: list[str], carried: bool, batches: Batches, y: float, room: float
) -> float:
    """Draw the minibatches, a row for each sequence, with the states before; return the new y."""
    used = {int(i) for batch in batches for i in batch.ravel()}
    cell = max(20.0, *(text_width(visible(text[i]), SIZE) + 8 for i in used))
    widths = [STATE + cell * batch.shape[1] for batch in batches]
    rows = max(len(batch) for batch in batches)
    for line in lines_of(widths, room - 24, TABLE_GAP):
        x = 12.0
        for n in line:
            left, colour = x + STATE, _colour(n)
            canvas.text(left, y, f"minibatch {n + 1}", 12, colour, "start", bold=True)
            for r, row in enumerate(batches[n]):
                top = y + 14 + r * (HEIGHT + 5)
                middle = top + HEIGHT / 2
                zero = n == 0 or not carried
                if zero:
                    canvas.text(x + 8, middle, "0", 13, "faint")
                canvas.line(
                    [(x + 16 if zero else x - (TABLE_GAP - 6 if n != line[0] else 6), middle),
                     (left - 2, middle)],
                    "line" if zero else "red", "edge" if zero else "edge strong",
                )  # fmt: skip
                for t, i in enumerate(row):
                    canvas.box(left + t * cell, top, cell, HEIGHT, colour, "tint", 2)
                    place = left + (t + 0.5) * cell
                    canvas.text(place, middle, visible(text[i]), SIZE)
                if carried and n == line[-1] and n + 1 < len(batches):
                    end = left + cell * len(row)
                    canvas.width = max(canvas.width, end + 20)
                    canvas.line([(end, middle), (end + 12, middle)], "red", "edge strong")
            x += widths[n] + TABLE_GAP
        y += 14 + rows * (HEIGHT + 5) + 16
    return y


def _colour(batch: int) -> str:
    return SERIES[batch % len(SERIES)]
