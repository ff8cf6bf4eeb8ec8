#!/usr/bin/env bash
# latex2mathml 3.81.1: an `aligned` environment becomes a text that is not XML, without an error.
#
# `align` and `split` become a table with a row for each line. `aligned`, the form for use inside of
# a displayed formula, is not known: its column separator is written as a bare ampersand, which no XML
# parser accepts, and the line break is lost. An unknown command such as \nosuchcommand is passed
# through in the same silence, but as well-formed XML.
#
# Seen: split: 2 rows; aligned: not well-formed (invalid token): line 1, column 93
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet latex2mathml==3.81.1
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version
from xml.etree import ElementTree

from latex2mathml.converter import convert

assert version("latex2mathml") == "3.81.1"


def converted(environment):
    return convert(rf"\begin{{{environment}}} a &= b \\ c &= d \end{{{environment}}}")


for known in ("align", "split"):
    rows = list(ElementTree.fromstring(converted(known)).iter("{http://www.w3.org/1998/Math/MathML}mtr"))
    print(f"{known}: {len(rows)} rows")
    assert len(rows) == 2
try:
    ElementTree.fromstring(converted("aligned"))
except ElementTree.ParseError as error:
    print(f"aligned: {error}")
    assert "<mi>&</mi>" in converted("aligned")
else:
    sys.exit("aligned is XML now")
PYTHON
