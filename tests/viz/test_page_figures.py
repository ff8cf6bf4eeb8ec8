"""Figures on the pages of the site: inline SVG with alternative texts, for column and phone."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import tinygrad_rnn as tg

pytestmark = pytest.mark.docs


@pytest.fixture(scope="module")
def figures() -> Any:
    """Return the extension of the site, imported under a name of its own."""
    pytest.importorskip("IPython")
    path = Path(tg.__file__).parents[1] / "docs" / "_ext" / "figures.py"
    spec = importlib.util.spec_from_file_location("docs_extension_figures", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def two_plots() -> Any:
    from matplotlib.figure import Figure

    figure = Figure()
    left, right = figure.subplots(1, 2)
    left.semilogy([1, 0.1, 0.012345], label="RNN")
    left.semilogy([1, 0.9, float("nan")], label="LSTM")
    left.axhline(0.5)
    left.set(title="Norm of the gradient", xlabel="distance", ylabel="norm")
    right.barh(["bias", "variance"], [3, 4.5])
    right.scatter([1, 2, 3], [0, 1, 0], label="draws")
    right.set_title("Errors")
    return figure


def test_a_plot_has_an_alternative_text_with_its_numbers(figures: Any) -> None:
    assert figures.alternative(two_plots()) == (
        "Norm of the gradient: norm (logarithmic) against distance; RNN from 1 to 0.0123, between "
        "0.0123 and 1; LSTM from 1 to 0.9, between 0.9 and 1. Errors; bars: bias 3, variance 4.5; "
        "draws: 3 points."
    )
    assert 'aria-label="Norm of the gradient: norm' in figures.inline_svg(two_plots())


def test_a_label_replaces_the_alternative_text_of_a_plot(figures: Any) -> None:
    figure = two_plots()
    figure.set_label('Two plots of "errors"')
    assert figures.alternative(figure) == 'Two plots of "errors"'
    assert 'aria-label="Two plots of &quot;errors&quot;"' in figures.inline_svg(figure)


def test_a_drawing_is_inlined_for_a_column_and_for_a_phone(figures: Any) -> None:
    drawing = tg.viz.truncation("the time traveller".split(), [tg.bptt.Full()])
    page = figures.drawn(drawing) + figures.drawn(drawing)
    assert page.count('<div class="for-column">') == page.count('<div class="for-phone">') == 2
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)) == 8
    named = [
        name for names in re.findall(r'aria-labelledby="([^"]+)"', page) for name in names.split()
    ]
    assert named == ids
    assert page.count(drawing.alt) == 4
    assert re.findall(r"max-width:(\d+)px", page)[:2] == ["720", "360"]
    assert not re.search(r"<svg[^>]* (width|height)=", page)
    assert (
        "@media(max-width:40rem)" in page
        and "<img" not in page
        and "http" not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    )


def test_a_drawing_that_is_narrow_is_inlined_once(figures: Any) -> None:
    x = tg.ones(2, requires_grad=True)
    page = figures.drawn(tg.viz.graph(x.exp()))
    assert page.count("<svg") == 1 and 'tabindex="0"' not in page


def test_a_drawing_too_broad_for_a_phone_scrolls_and_the_keyboard_reaches_it(figures: Any) -> None:
    xs = [tg.ones(2, requires_grad=True) for _ in range(9)]
    page = figures.drawn(tg.viz.graph(sum(x.exp() for x in xs)))
    assert '<div style="overflow-x:auto" tabindex="0"><svg style="width:100%;max-width:' in page
    assert "min-width:520px" in page
