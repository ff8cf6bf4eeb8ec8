"""Without the package onnx."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import MissingExtraError


def test_an_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"save_onnx: onnx .*'tinygrad-rnn\[onnx\]'"):
        tg.interop.save_onnx(tmp_path / "x.onnx", tg.nn.GRU(3, 4))
    assert not [*tmp_path.iterdir()]


def test_the_module_imports_no_extra() -> None:
    code = (
        "import sys, tinygrad_rnn as tg; tg.interop.save_onnx; "
        "assert not {'onnx', 'onnxruntime', 'torch'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
