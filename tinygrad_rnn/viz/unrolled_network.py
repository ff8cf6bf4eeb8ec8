"""A drawing of a recurrent network, unrolled over tokens, with a loss at every step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import ArgumentError
from .drawing import Canvas, Drawing, text_width, tokens_of, visible

PITCH = 46  # px from step to step, at least
BROADEST = 76
RADIUS = 16  # of a state
BOX = 28  # height of the box of a token
LEFT = 74  # names of the rows
# The heights of the middles of the rows.
TARGET, LOSS, OUTPUT, STATE, INPUT, TIME = 18, 66, 114, 176, 238, 266
BLOCK = 280


def unrolled(
    inputs: str | Sequence[str],
    targets: str | Sequence[str] | None = None,
    outputs: str | Sequence[str] | None = None,
    losses: Sequence[float] | None = None,
    title: str = "",
) -> Drawing:
    """Draw a recurrent network, unrolled over the steps of a sequence, with a loss at each step.

    Parameters
    ----------
    inputs : str or sequence of str
        T tokens: the characters of a string, or words.
    targets : str or sequence of str, optional
        The T tokens that the outputs are compared with. Default: no targets and losses.
    outputs : str or sequence of str, optional
        The T tokens that the network predicts. Default: o_1 … o_T.
    losses : sequence of float, optional
        The T losses. Default: ℓ_1 … ℓ_T.
    title : str

    Returns
    -------
    Drawing
        Its ``data`` has ``"inputs"``, and ``"targets"``, ``"outputs"`` and ``"losses"`` if given.
        The recurrent edges are red.

    Raises
    ------
    ArgumentError
        If tokens are missing, lengths differ, or losses are given without targets.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> picture = tg.viz.unrolled("machin", "achine", losses=[3.1, 2.5, 2.0, 1.4, 0.9, 0.4])
    >>> picture
    A recurrent network, unrolled over 6 steps
    >>> picture.alt[-39:]
    '3.1, 2.5, 2, 1.4, 0.9, 0.4; mean 1.717.'
    """
    rows = {"inputs": tokens_of(inputs, "viz.unrolled: inputs")}
    steps = len(rows["inputs"])
    if targets is not None:
        rows["targets"] = tokens_of(targets, "viz.unrolled: targets")
    if outputs is not None:
        rows["outputs"] = tokens_of(outputs, "viz.unrolled: outputs")
    values: list[float] | None = None
    if losses is not None:
        if targets is None:
            raise ArgumentError(
                "viz.unrolled: a loss compares an output with a target: pass targets too"
            )
        values = [float(v) for v in losses]
    for name, row in [*rows.items(), ("losses", values)]:
        if row is not None and len(row) != steps:
            raise ArgumentError(
                f"viz.unrolled: {name} has {len(row)} elements and inputs has {steps}: there is "
                "one for each step"
            )
    name = title or f"A recurrent network, unrolled over {steps} step{'s' * (steps > 1)}"
    data = {**rows, **({} if values is None else {"losses": values})}

    def draw(room: float) -> Canvas:
        return _draw(rows, values, title, room)

    return Drawing(name, _alt(name, rows, values), data, draw)


def _alt(name: str, rows: dict[str, list[str]], losses: list[float] | None) -> str:
    parts = [f"{name}. "]
    parts.append(
        "At each step the state is computed from the input and, along the red edges, from the "
        "state before; the output is computed from the state"
    )
    parts.append(" and compared with the target. " if "targets" in rows else ". ")
    parts += [f"The {row}: {' '.join(map(visible, tokens))}. " for row, tokens in rows.items()]
    if losses is not None:
        numbers = ", ".join(f"{v:.4g}" for v in losses)
        parts.append(f"The losses: {numbers}; mean {np.mean(losses):.4g}.")
    return "".join(parts).strip()


def _draw(
    rows: dict[str, list[str]], losses: list[float] | None, title: str, room: float
) -> Canvas:
    widest = max(text_width(visible(token), 15) for row in rows.values() for token in row)
    box = max(BOX, widest + 12)
    numbers = [f"{v:.2f}" for v in losses or ()]
    least = max(PITCH, box + 10, *(text_width(n, 13) + 12 for n in numbers), 0)
    steps = len(rows["inputs"])
    in_line = max(1, min(steps, int((room - LEFT - 8) // least)))
    lines = -(-steps // in_line)
    in_line = -(-steps // lines)  # evenly
    pitch = min(max(least, BROADEST), (room - LEFT - 8) / in_line) if in_line > 1 else least
    cut = 0 if "targets" in rows else OUTPUT - BOX  # without rows for targets and losses
    canvas = Canvas(LEFT + pitch * in_line + 8)
    top = 8.0
    if title:
        canvas.text(12, top + 10, title, 16, anchor="start", bold=True)
        top += 32
    for line in range(lines):
        own = range(line * in_line, min((line + 1) * in_line, steps))
        _line(canvas, rows, numbers, own, top - cut, pitch, box)
        top += BLOCK - cut + 12
    if losses is not None:
        mean = f"L = {np.mean(losses):.4g}, the mean of the losses"
        canvas.text(12, top + 2, mean, 13, "orange", "start")
        top += 20
    canvas.height = top
    return canvas


def _line(
    canvas: Canvas,
    rows: dict[str, list[str]],
    losses: list[str],
    steps: range,
    top: float,
    pitch: float,
    box: float,
) -> None:
    """Draw consecutive steps."""
    names = [("output", "o_t", OUTPUT), ("state", "h_t", STATE), ("input", "x_t", INPUT)]
    if "targets" in rows:
        names += [("target", "y_t", TARGET), ("loss", "ℓ_t", LOSS)]
    for word, symbol, height in names:
        canvas.text(44, top + height, word, 12, "faint", "end")
        canvas.text(48, top + height, symbol, 12, "faint", "start", formula=True)
    state, first = top + STATE, LEFT + pitch / 2
    tokens = {
        "inputs": (INPUT, "blue"),
        "outputs": (OUTPUT, "green"),
        "targets": (TARGET, "purple"),
    }
    for i, t in enumerate(steps):
        x, number = first + i * pitch, t + 1
        for row, (height, colour) in tokens.items():
            if row not in rows and row != "outputs":
                continue
            canvas.box(x - box / 2, top + height - BOX / 2, box, BOX, colour, "tint")
            if row in rows:
                canvas.text(x, top + height, visible(rows[row][t]), 15)
            else:
                canvas.text(x, top + height, f"o_{{{number}}}", 14, formula=True)
        canvas.circle(x, state, RADIUS, "ink", "outline")
        canvas.text(x, state, f"h_{{{number}}}", 13, formula=True)
        canvas.text(x, top + TIME, f"t = {number}", 11, "faint")
        canvas.line([(x, top + INPUT - BOX / 2), (x, state + RADIUS)])
        canvas.line([(x, state - RADIUS), (x, top + OUTPUT + BOX / 2)])
        before = x - pitch + RADIUS if i else x - pitch / 2 - 2
        canvas.line([(before, state), (x - RADIUS, state)], "red", "edge strong")
        if t == steps[-1] and t + 1 < len(rows["inputs"]):
            canvas.line([(x + RADIUS, state), (x + pitch / 2 + 4, state)], "red", "edge strong")
        if "targets" in rows:
            canvas.line([(x, top + OUTPUT - BOX / 2), (x, top + LOSS + 11)])
            canvas.line([(x, top + TARGET + BOX / 2), (x, top + LOSS - 11)])
            loss = losses[t] if losses else f"ℓ_{{{number}}}"
            canvas.text(x, top + LOSS, loss, 13, "orange", formula=not losses, bold=bool(losses))
    canvas.text(first - 5, top + (STATE + INPUT) / 2 + 1, "W_xh", 11, "faint", "end", formula=True)
    canvas.text(first - 5, top + (STATE + OUTPUT) / 2, "W_hq", 11, "faint", "end", formula=True)
    if len(steps) > 1:
        canvas.text(first + pitch / 2, state + 22, "W_hh", 11, "red", formula=True)
