"""Every operation of the library in a file of ONNX: it computes the same, or is refused by name."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from op_table import ROWS, Row
from tinygrad_rnn._util.nested import leaves
from tinygrad_rnn.errors import ArgumentError

try:
    import onnx  # noqa: F401
    import onnxruntime
except ImportError:  # not a skipped file, which would count in a selection of other tests
    onnxruntime = None
pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(onnxruntime is None, reason="the extra oracle is not installed"),
]

REFUSED = {"F.cross_entropy", "F.log_power", "F.scatter", "F.smoothed_one_hot"}


class Calls(tg.nn.Module):
    """Calls one operation."""

    def __init__(self, function: Any, keywords: dict[str, Any]) -> None:
        super().__init__()
        self.function, self.keywords = function, keywords

    def forward(self, *arrays: Any) -> Any:
        return self.function(*arrays, **self.keywords)


def run(path: pathlib.Path, *arrays: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # a constant output has a warning
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {x.name for x in session.get_inputs()}
    fed = {f"arrays_{i}": x for i, x in enumerate(arrays)}
    assert fed.keys() == given
    return session.run(None, fed)


CASES = [
    pytest.param(row, dtype, id=f"{row.name}-{dtype}")
    for row in ROWS
    for dtype in ["float32", "int64"]
    if dtype == "float32" or row.integers
]


@pytest.mark.parametrize(("row", "dtype"), CASES)
@settings(max_examples=5, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_an_operation_computes_the_same_in_onnxruntime(
    tmp_path: pathlib.Path, row: Row, dtype: str, data: Any
) -> None:
    case = data.draw(row.cases)
    arrays = [np.asarray(np.rint(x) if dtype == "int64" else x).astype(dtype) for x in case.arrays]
    # onnxruntime needs elements in an Einsum of three arrays.
    assume(all(x.size for x in arrays))
    if dtype == "int64" and row.name in ("floor_divide", "remainder"):
        assume(arrays[-1].all())
    model, path = Calls(row.function, case.keywords), tmp_path / "operation.onnx"
    axes = {f"arrays_{i}": (None,) * x.ndim for i, x in enumerate(arrays)}
    try:
        tg.interop.save_onnx(path, model, *arrays, axes=axes)
    except ArgumentError as error:
        assert row.name in REFUSED, error
        return
    assert row.name not in REFUSED or row.name == "F.scatter"
    with np.errstate(all="ignore"):
        expected = [y.numpy() for y in leaves(model(*map(tg.tensor, arrays)))]
    for y, z in zip(run(path, *arrays), expected, strict=True):
        assert (y.shape, y.dtype) == (z.shape, z.dtype)
        np.testing.assert_allclose(y, z, rtol=2e-5, atol=2e-5)
