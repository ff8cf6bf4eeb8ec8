"""Write ``docs/_static/graph.svg``, the README's figure: three steps of a recurrence as a graph.

    python tools/readme_figure.py

A test compares the file with the drawing; run this after an intended change of drawings.
"""

from __future__ import annotations

from pathlib import Path

import tinygrad_rnn as tg

FILE = Path(__file__).resolve().parents[1] / "docs" / "_static" / "graph.svg"


def figure() -> tg.viz.Graph:
    """Return the graph of h_t = tanh(x_t + w h_{t-1}) over three steps, with its equations."""
    w, h, states = tg.tensor(0.9, requires_grad=True), tg.tensor(0.0), []
    for x in (0.5, -0.1, 0.3):
        h = tg.tanh(x + w * h)
        states.append(h)
    names = {"w": w, **{f"h_{t}": state for t, state in enumerate(states, start=1)}}
    equations = ["a_t = w h_{t-1}", "s_t = x_t + a_t", "h_t = tanh(s_t)"]
    return tg.viz.graph(h, names, steps=states, equations=equations, start=1)


if __name__ == "__main__":
    figure().save(FILE)
