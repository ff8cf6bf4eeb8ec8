"""What has no form in ONNX is refused: the reason, the line, and the cure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn
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


class Net(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function, self.linear, self.rnn = function, nn.Linear(3, 3), nn.GRU(3, 5)

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


class Own(nn.Cell):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.hidden_size, self.function, self.count = 3, function, 0

    def step(self, x: Any, h: Any) -> Any:
        return self.function(self, x, h)


@tg.primitive(x=lambda F, g, x: 3 * g * x * x)
def cube(xp: Any, x: Any) -> Any:
    return x * x * x


def over_time(net: Any, x: Any) -> Any:
    h = tg.zeros(x.shape[1], 3)
    for x_t in x:
        h = tg.tanh(net.linear(x_t) + h)
    return h


def counts(cell: Any, x: Any, h: Any) -> Any:
    cell.count += 1
    return h * cell.count + x


def remembers(cell: Any, x: Any, h: Any) -> Any:
    before, cell.last = vars(cell).get("last", 0.0), h
    return h * 0.5 + before + x


def changed(net: Any, x: Any) -> Any:
    return x * tg.tensor(np.abs(x.data))


X = tg.randn(6, 2, 3)
PLACE = r" \(\S*test_onnx_refusals\.py:\d+\): "
LOOP = "a loop over time in Python has no graph: put the step into a tinygrad_rnn.nn.Cell"
VALUES = "reads the values of an array (if, float, item, numpy)"
ANY_INPUT = "the graph must hold for all inputs: use operations such as tinygrad_rnn.where"
NETWORKS: dict[str, tuple[Any, str, str]] = {
    "loop": (over_time, "takes 44 operations with T = 11, B = 3 and 68 with T = 17, B = 7", LOOP),
    "branch": (lambda n, x: x if x.sum() > 0 else -x, VALUES, ANY_INPUT),
    "item": (lambda n, x: x * x.max().item(), VALUES, ANY_INPUT),
    "numpy": (lambda n, x: x * np.tanh(x.numpy()), VALUES, ANY_INPUT),
    "asarray": (lambda n, x: x * np.asarray(x), VALUES, ANY_INPUT),
    "data": (changed, "uses an array that was changed outside of the operations of the library",
             "use functions of tinygrad_rnn and methods of Tensors"),
    "random": (lambda n, x: x + tg.randn(3),
               "add reads an array of shape (3,) whose values differ from run to run",
               "compute it from the inputs"),
    "dropout": (lambda n, x: tg.functional.dropout(x), "where reads an array whose shape depends",
                "compute it from the inputs"),
    "mask": (lambda n, x: x[x > 0], "indexes by booleans, with a result whose shape depends on",
             "use tinygrad_rnn.where"),
    "gradient": (lambda n, x: tg.grad(n.linear(x).sum(), [n.linear.weight])[0],
                 "computes a gradient", "export the part of the network before it"),
    "primitive": (lambda n, x: cube(x), "calls cube, an operation of your own, a primitive, that "
                  "has no form in ONNX", "write it with other operations of tinygrad_rnn"),
    "loss": (lambda n, x: tg.functional.cross_entropy(x, tg.argmax(x, axis=-1)),
             "computes a loss, cross_entropy", "export the part of the network before it"),
    "lengths": (lambda n, x: n.rnn(x, lengths=[3] * x.shape[1]),
                "calls GRU with lengths that are not an input", "make them an argument of forward"),
    "half": (lambda n, x: x[: len(x) // 2], "indexing takes 5 with T = 11, B = 3, 8 with T = 17",
             "only sums of products of the sizes can be exported; give the size None"),
    "fixed": (lambda n, x: x + tg.ones(6, 1, 3), "raises ShapeError for the inputs inputs_0 (11, 3",
              "check the examples; a length that cannot vary is None in axes="),
    "scan": (lambda n, x: tg.scan(lambda h, z: (h + z, None), x[0], x, lengths=[1] * x.shape[1]),
             "calls scan with lengths", "use nn.Recurrent, which takes lengths"),
}  # fmt: skip
CELLS: dict[str, tuple[Any, str, str]] = {
    "branch": (lambda c, x, h: x if (x > 0).sum() > 1 else h, VALUES, ANY_INPUT),
    "attribute": (counts, "has a step that does something else when it is called again",
                  "keep what changes from step to step in the state"),
    "random": (lambda c, x, h: h + x + tg.randn(3), "has a step that does something else when it",
               "keep what changes from step to step in the state"),
    "value kept": (remembers, "keeps a value of one step of a loop", "pass it on as an element of"),
    "primitive": (lambda c, x, h: h + cube(x), "calls cube, an operation of your own",
                  "write it with other operations"),
    "shape": (lambda c, x, h: (h + x)[:, :2], "Own.step returned the state of shape (3, 2)",
              "check the examples"),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_refused_by_name_with_line_and_cure(tmp_path: Path, name: str) -> None:
    function, reason, cure = NETWORKS[name]
    expected = rf"save_onnx: Net: .*{re.escape(reason)}.*{PLACE}{re.escape(cure)}"
    with pytest.raises(ArgumentError, match=expected):
        tg.interop.save_onnx(tmp_path / "x.onnx", Net(function), X)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_refused_by_name_with_line_and_cure(tmp_path: Path, name: str) -> None:
    function, reason, cure = CELLS[name]
    layer = nn.Recurrent(Own(function), 3, 3)
    with pytest.raises(ArgumentError, match=rf"{re.escape(reason)}.*: {re.escape(cure)}") as caught:
        tg.interop.save_onnx(tmp_path / "x.onnx", layer, X)
    assert name == "shape" or re.search(PLACE, str(caught.value))
    assert (layer.cells[0].count, "last" in vars(layer.cells[0])) == (0, False)


def test_a_fixed_length_makes_a_loop_and_a_half_possible(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    for function in (over_time, lambda n, x: x[: len(x) // 2]):
        tg.interop.save_onnx(path, Net(function), X, axes={"inputs_0": (None, "B", None)})
        assert path.exists()


ARGUMENTS: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any], str]] = {
    "no module": (tg.tanh, (X,), {}, "model is a Module, got function: make a tinygrad_rnn.nn.Mod"),
    "unknown": (Net(over_time), (), {}, "the inputs of Net are not known: give an example of each"),
    "too many": (nn.GRU(3, 5), (X,) * 9, {}, "the examples do not fit GRU.forward: too many"),
    "no array": (nn.GRU(3, 5), ("text",), {}, "none of the examples for GRU is a Tensor or an arr"),
    "an object": (nn.GRU(3, 5), (object(),), {}, "GRU.forward: x is a object: Tensors and arrays"),
    "input name": (nn.GRU(3, 5), (X,), {"axes": {"y": ()}}, "axes for 'y': the inputs are x"),
    "axes": (nn.GRU(3, 5), (X,), {"axes": {"x": ("T", "B")}}, "axes of 'x', of shape (6, 2, 3): a"),
    "features": (nn.GRU(3, 5), (X,), {"axes": {"x": ("T", "B", "I")}}, "raises ShapeError for the"),
    "other batch": (nn.GRU(3, 5), (), {"axes": {"x": ("T", None, None)}}, "the length 'B' of the "
                    "input 'state', which is optional, is none of the others: give axes of"),
    "five sizes": (Net(lambda n, x: x), (tg.ones(2, 2, 2, 2, 2),),
                   {"axes": {"inputs_0": tuple("abcde")}}, "has 5 sizes that vary, a, b, c, d, e"),
    "axes that are no dict": (nn.GRU(3, 5), (X,), {"axes": "TB"}, "axes are a dict from names of "),
    "names that are no text": (nn.GRU(3, 5), (X,), {"output_names": [1, 2]},
                               "output_names are str, got [1, 2]"),
    "a number of names": (nn.GRU(3, 5), (X,), {"output_names": 2}, "output_names are str, got 2"),
    "outputs": (nn.GRU(3, 5), (X,), {"output_names": ["y"]}, "returns 2 Tensors: output_names are"),
    "same name": (nn.GRU(3, 5), (X,), {"output_names": ["x", "y"]}, "inputs or outputs with the n"),
    "a number": (Net(lambda n, x: (x, 1.0)), (X,), {}, "returns a float: Tensors and None can be"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_do_not_fit_are_refused(tmp_path: Path, name: str) -> None:
    model, inputs, options, message = ARGUMENTS[name]
    with pytest.raises(ArgumentError, match=re.escape(message)):
        tg.interop.save_onnx(tmp_path / "x.onnx", model, *inputs, **options)


def test_a_refusal_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_text("old")
    with pytest.raises(ArgumentError):
        tg.interop.save_onnx(path, Net(over_time), X)
    assert path.read_text() == "old"
