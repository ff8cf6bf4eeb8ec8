"""States that cannot be converted are refused: with the key or layer, the finding and the cure."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

import foreign_cells
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, DTypeError, ShapeError
from tinygrad_rnn.interop.conventions import RECURRENT
from tinygrad_rnn.interop.convert import LAYERS

convert = tg.interop.convert
I, H = 3, 4  # noqa: E741


def arrays(library: str, cell: str, inputs: int = I, size: int = H, **changes: Any) -> Any:
    """Return the state of a cell of a library, with changes by key; None removes one."""
    shapes = foreign_cells.shapes(library, cell, inputs, size)
    state: dict[str, Any] = {key: np.ones(shape, np.float32) for key, shape in shapes.items()}
    for key, value in changes.items():
        state[key] = value
    return {key: value for key, value in state.items() if value is not None}


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


def own(kind: Any, **options: Any) -> dict[str, Any]:
    """Return the state dict of a layer here."""
    return kind(I, H, **options).state_dict()


class Peephole(tg.nn.LSTMCell):
    pass


class Net(tg.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = tg.nn.LSTM(I, H), tg.nn.Linear(H, 2)


KERAS_LSTM, KERAS_GRU = arrays("keras", "LSTM"), arrays("keras", "GRU")
KERAS_BEFORE = arrays("keras", "GRU, reset_after=False")
HEAD = [ones(H, 2), ones(2)]
FLAX_NORM = {"scale": ones(I), "bias": ones(I)}

Refusal = tuple[Callable[[], Any], type[Exception], str, str, str]  # and name, finding, cure
REFUSALS: dict[str, Refusal] = {
    # -- gates, cells, formulas --------------------------------------------------------------------
    "nnx GRU cannot hold a recurrent bias": (
        lambda: convert(own(tg.nn.GRU), "gru", to="nnx"), ArgumentError,
        "bias_hh_l0", "its part of n is not zero", "GRUCell of Flax linen",
    ),
    "Haiku has no GRU with the reset gate after the product": (
        lambda: convert(arrays("haiku", "GRU"), "gru", library="haiku"), ArgumentError,
        "Haiku has no gru", "before the product", "nn.ResetBeforeGRUCell",
    ),
    "PyTorch has no GRU with the reset gate before the product": (
        lambda: tg.interop.to_torch(tg.nn.Recurrent(tg.nn.ResetBeforeGRUCell, I, H)),
        ArgumentError, "ResetBeforeGRUCell", "after the recurrent product", "use nn.GRU",
    ),
    "Keras GRU of reset_after=False as nn.GRU": (
        lambda: convert(KERAS_BEFORE, "gru", library="keras"), ShapeError,
        "bias", r"shape \(12,\)", "reset_after=False, which is nn.ResetBeforeGRUCell",
    ),
    "Keras GRU of reset_after=True as the other": (
        lambda: convert(KERAS_GRU, "reset_before_gru", library="keras"), ShapeError,
        "bias", r"shape \(2, 12\)", "reset_after=True, which is nn.GRU",
    ),
    "Keras GRU without biases, by its settings": (
        lambda: convert(
            arrays("keras", "GRU", bias=None), "gru", library="keras", config={"reset_after": False}
        ),
        ArgumentError, "reset_after", "= False cannot be converted, only True", "nn.GRU is",
    ),
    "ONNX GRU of mode 0 as nn.GRU": (
        lambda: convert(
            arrays("onnx", "GRU"), "gru", library="onnx", config={"linear_before_reset": 0}
        ),
        ArgumentError, "linear_before_reset", "= 0 cannot be converted", "ResetBeforeGRUCell is 0",
    ),
    "attributes of an ONNX GRU without the one whose default is another formula": (
        lambda: convert(arrays("onnx", "GRU"), "gru", library="onnx", config={"hidden_size": H}),
        ArgumentError, "linear_before_reset", "= 0 cannot be converted", "ResetBeforeGRUCell is 0",
    ),
    "settings that are nested otherwise than the state": (
        lambda: tg.interop.from_keras(
            [*KERAS_LSTM.values()], tg.nn.LSTM(I, H), {"lstm": {"activation": "relu"}}
        ),
        ArgumentError, "", "config has activation inside of 'lstm'", "nested as the state is",
    ),
    "a function of the cell in a Keras RNN": (
        lambda: tg.interop.from_keras(
            [*KERAS_LSTM.values()], tg.nn.LSTM(I, H),
            {"cell": {"class_name": "LSTMCell", "config": {"activation": "relu"}}},
        ),
        ArgumentError, "activation", "'relu' cannot be converted", "subclass of nn.Cell",
    ),
    "a state with names": (
        lambda: tg.interop.convert_state({"h": ones(2, H), "c": ones(2, H)}, "lstm", "linen"),
        ArgumentError, "", "a mapping with the keys h, c", r"in their order, \(c, h\)",
    ),
    "a state of ours with names": (
        lambda: tg.interop.convert_state(dict.fromkeys("ch", ones(1, 2, H)), "lstm", to="mlx"),
        ArgumentError, "", "a mapping with the keys c, h", r"in their order, \(h, c\)",
    ),
    "a state of all steps": (
        lambda: tg.interop.convert_state((ones(2, 9, H), ones(2, 9, H)), "lstm", "mlx"),
        ShapeError, "", rf"shape \(2, 9, {H}\)", "take the last step",
    ),
    "parts of a stacked state that differ": (
        lambda: tg.interop.convert_state((ones(1, 2, H), ones(1, 3, H)), "lstm", "paddle"),
        ShapeError, "", r"shapes \(1, 2, .*and \(1, 3", "have one shape",
    ),
    "only the reverse direction": (
        lambda: convert({f"{k}_reverse": v for k, v in own(tg.nn.GRU).items()}, "gru", "paddle"),
        ArgumentError, "", "only the reverse direction", "remove '_reverse'",
    ),
    "transposed biases of a Keras GRU": (
        lambda: convert(KERAS_GRU | {"bias": ones(12, 2)}, "gru", library="keras"), ShapeError,
        "bias", r"shape \(12, 2\)", r"\(2, 12\) is needed",
    ),
    "a Haiku LSTM without its bias": (
        lambda: convert({"lstm/linear": {"w": ones(7, 16)}}, "lstm", library="haiku"),
        ArgumentError, "linear/b", "is missing", "every LSTM has it",
    ),
    "weights of a GRU as an LSTM": (
        lambda: convert(KERAS_GRU, "lstm", library="keras"), ShapeError,
        "recurrent_kernel", r"shape \(4, 12\)", "this is the shape of a GRU",
    ),
    "an unknown activation of Keras": (
        lambda: convert(KERAS_LSTM, "lstm", library="keras", config={"activation": "gelu"}),
        ArgumentError, "activation", "'gelu' cannot be converted, only 'tanh'", "subclass of nn",
    ),
    "a recurrent activation of Keras 2": (
        lambda: convert(
            KERAS_LSTM, "lstm", library="keras", config={"recurrent_activation": "hard_sigmoid"}
        ),
        ArgumentError, "recurrent_activation", "'hard_sigmoid' cannot be", "subclass of nn.Cell",
    ),
    "activations of ONNX": (
        lambda: convert(
            arrays("onnx", "LSTM"), "lstm", library="onnx",
            config={"activations": ["Sigmoid", "Softsign", "Tanh"]},
        ),
        ArgumentError, "activations", "Softsign", "subclass of nn.Cell",
    ),
    "clipping of ONNX": (
        lambda: convert(arrays("onnx", "RNN"), "rnn", library="onnx", config={"clip": 3.0}),
        ArgumentError, "clip", "= 3.0 cannot", "another function without",
    ),
    "a reversed layer of Keras": (
        lambda: convert(KERAS_LSTM, "lstm", library="keras", config={"go_backwards": True}),
        ArgumentError, "go_backwards", "True cannot be converted, only False", "flip",
    ),
    "directions of Keras that are added": (
        lambda: convert(
            [*KERAS_LSTM.values()] * 2, "lstm", library="keras",
            config={"merge_mode": "sum", "layer": {"config": {}}},
        ),
        ArgumentError, "merge_mode", "'sum' cannot", "only concatenated",
    ),
    "peepholes of ONNX": (
        lambda: convert(arrays("onnx", "LSTM", P=ones(3 * H)), "lstm", library="onnx"),
        ArgumentError, "P", "not a weight of LSTM", "peepholes: write a cell",
    ),
    "the nonlinearity of Haiku": (
        lambda: tg.interop.modules._load(
            arrays("haiku", "VanillaRNN"), tg.nn.RNN(I, H),
            tg.interop.modules.Origin("load", "haiku"), None,
        ),
        ArgumentError, "VanillaRNN", "is relu, the module's tanh", "nonlinearity='relu'",
    ),
    "a projection for Keras": (
        lambda: convert(own(tg.nn.LSTM, proj_size=2), "lstm", to="keras"), ArgumentError,
        "weight_hr_l0", "a projection, which Keras's LSTM lacks", "without proj_size",
    ),
    "cells of one's own": (
        lambda: tg.interop.to_keras(tg.nn.Recurrent(Peephole, I, H)), ArgumentError,
        "Peephole", "cells of your own", "interop.convert",
    ),
    # -- keys and arrays ---------------------------------------------------------------------------
    "a missing bias of two": (
        lambda: convert(arrays("equinox", "GRUCell", bias_n=None), "gru", library="equinox"),
        ArgumentError, "bias_n", "is missing, and other biases are there", "all of the layer",
    ),
    "a cell of Flax without its bias": (
        lambda: convert(
            arrays("nnx", "OptimizedLSTMCell", **{"dense_h/bias": None}), "lstm", library="nnx"
        ),
        ArgumentError, "dense_h/bias", "is missing", "every OptimizedLSTMCell has it",
    ),
    "the state of a whole network": (
        lambda: convert(
            {"embedding": {"embeddings": ones(9, I)}, "lstm": KERAS_LSTM}, "lstm", library="keras"
        ),
        ArgumentError, "embedding, lstm", "the order .* as layers is unknown", "only those of this",
    ),
    "no such cell": (
        lambda: convert({"weight": ones(3, 3)}, "gru", library="mlx"), ArgumentError,
        "no gru of MLX found", r"only weight \(3, 3\)", "GRU with Wx, Wh, b, bhn",
    ),
    "layers without an order": (
        lambda: convert({"encoder": KERAS_LSTM, "decoder": KERAS_LSTM}, "lstm", library="keras"),
        ArgumentError, "encoder, decoder", "order .* is unknown", "as a list",
    ),
    "layers in the wrong order": (
        lambda: convert([arrays("keras", "LSTM", 4, 4), KERAS_LSTM], "lstm", library="keras"),
        ShapeError, "l1", "reads 3 features", "in the right order",
    ),
    "layers of two sizes": (
        lambda: convert([KERAS_LSTM, arrays("keras", "LSTM", 4, 5)], "lstm", library="keras"),
        ShapeError, "l1", "a state of 5, l0 of 4", "one by one",
    ),
    "a list of the wrong length": (
        lambda: convert([ones(3, 3)] * 5, "lstm", library="keras"), ArgumentError,
        "5 arrays", r"\(3, 3\)", "a layer has 2 or 3",
    ),
    "a gap in the layers": (
        lambda: convert({"weight_ih_l1": ones(16, 3), "weight_hh_l1": ones(16, 4)}, "lstm",
                        library="torch"),
        ArgumentError, r"\[1\]", "layers are", "from 0 without a gap",
    ),
    "gates of different sizes": (
        lambda: convert(
            arrays("linen", "GRUCell", **{"iz/kernel": ones(3, 5)}), "gru", library="linen"
        ),
        ShapeError, "iz/kernel", r"shape \(3, 5\)", "all gates of a cell have one size",
    ),
    "gates with different inputs": (
        lambda: convert(arrays("linen", "GRUCell", **{"ir/kernel": ones(5, 4)}), "gru", "linen"),
        ShapeError, "iz/kernel", r"shape \(3, 4\)", r"ir/kernel has \(5, 4\)",
    ),
    "a bias of a wrong size": (
        lambda: convert(arrays("mlx", "GRU", bhn=ones(5)), "gru", library="mlx"), ShapeError,
        "bhn", r"shape \(5,\)", r"\(4,\) is needed",
    ),
    "quantised weights": (
        lambda: convert(
            arrays("mlx", "LSTM", Wx=np.ones((16, 3), np.int8)), "lstm", library="mlx"
        ),
        DTypeError, "Wx", "is int8", "dequantised",
    ),
    "something that is no array": (
        lambda: convert({"Wx": "model.npz"}, "lstm", library="mlx"), ArgumentError,
        "Wx", "not an array", r"a state of MLX is layer.parameters\(\)",
    ),
    "a graph of another library": (
        lambda: convert({"Wx": Recorded()}, "lstm", library="mlx"), ArgumentError,
        "Wx", "has a graph of its library", "state_dict",
    ),
    "a vector for a matrix": (
        lambda: convert(arrays("mlx", "LSTM", Wh=ones(16)), "lstm", library="mlx"), ShapeError,
        "Wh", r"shape \(16,\)", "a matrix is needed",
    ),
    "one matrix without inputs": (
        lambda: convert({"lstm/linear": {"w": ones(4, 16), "b": ones(16)}}, "lstm", "haiku"),
        ShapeError, "linear/w", r"shape \(4, 16\)", r"needs \(I \+ H, 4 H\)",
    ),
    "matrices of two sizes": (
        lambda: convert(arrays("tinygrad", "LSTMCell", weight_ih=ones(12, 3)), "lstm", "tinygrad"),
        ShapeError, "weight_ih", r"shape \(12, 3\)", "4 gates of 4 are needed",
    ),
    "rows that are no multiple of the gates": (
        lambda: convert({"weight_ih": ones(15, 3), "weight_hh": ones(15, 4)}, "lstm", "torch"),
        ShapeError, "weight_hh", r"shape \(15, 4\)", r"lstm needs \(4 H, H\)",
    ),
    "a recurrent matrix that is not square": (
        lambda: convert({"weight_ih": ones(16, 3), "weight_hh": ones(16, 2)}, "lstm", "torch"),
        ShapeError, "weight_hh", r"shape \(16, 2\)", r"\(4 H, H\) is needed",
    ),
    "a projection of a wrong shape": (
        lambda: convert(
            {"weight_ih": ones(16, 3), "weight_hh": ones(16, 2), "weight_ho": ones(2, 4)},
            "lstm", "paddle",
        ),
        ShapeError, "weight_ho", r"shape \(2, 4\)", r"\(4, 2\) is needed",
    ),
    "settings for two layers of one": (
        lambda: convert(KERAS_LSTM, "lstm", "keras", config=[{}, {}]), ArgumentError,
        "convert", "2 configs for 1 layers", "one for each",
    ),
    "settings that are no mapping": (
        lambda: convert(KERAS_LSTM, "lstm", "keras", config="tanh"), ArgumentError,
        "config", "is a str", r"layer.get_config\(\)",
    ),
    "layers with one and with two directions": (
        lambda: convert([[*KERAS_LSTM.values()] * 2, KERAS_LSTM], "lstm", "keras"), ArgumentError,
        "1", "layer 1 has 1 directions, layer 0 2", "one by one",
    ),
    "a stack in each direction": (
        lambda: convert(
            {"forward": [KERAS_LSTM] * 2, "backward": [KERAS_LSTM] * 2}, "lstm", "keras"
        ),
        ArgumentError, "forward and backward", "have 2 and 2 layers", "a list of layers",
    ),
    "other parameters next to a layer of Paddle": (
        lambda: convert({"0.cell.weight_ih": ones(16, 3), "head.weight": ones(2, 4)}, "lstm",
                        "paddle"),
        ArgumentError, "head.weight", "not a weight of a recurrent", "the part of the layer",
    ),
    "other parameters next to a layer": (
        lambda: convert({"weight_ih_l0": ones(16, 3), "head.weight": ones(2, 4)}, "lstm", "torch"),
        ArgumentError, "head.weight", "not a weight of a recurrent", "such as weight_ih_l0",
    ),
    "directions of ONNX that differ": (
        lambda: convert({"W": ones(2, 16, 3), "R": ones(1, 16, 4)}, "lstm", "onnx"),
        ArgumentError, "R", r"\(1, 16, 4\), W has \(2, 16, 3\)", "is the direction",
    ),
    "three directions of ONNX": (
        lambda: convert({"W": ones(3, 16, 3), "R": ones(3, 16, 4)}, "lstm", "onnx"),
        ArgumentError, "W", "3 directions", "1 or 2",
    ),
    "an array with keys inside": (
        lambda: convert({"linear": ones(2), "linear/w": ones(2, 2)}, "lstm", "haiku"),
        ArgumentError, "linear/w", "linear is an array", "keys inside",
    ),
    # -- states of layers here ---------------------------------------------------------------------
    "a state that is no mapping": (
        lambda: convert([ones(2, 2)], "lstm", to="mlx"), ArgumentError,
        "convert", "got a list", r"layer.state_dict\(\)",
    ),
    "names of another layer": (
        lambda: convert(tg.nn.Linear(I, H).state_dict(), "lstm", to="mlx"), ArgumentError,
        "weight", "not a weight of a lstm here", "of the layer alone",
    ),
    "a layer that is missing": (
        lambda: convert({"weight_ih_l1": ones(16, 3), "weight_hh_l1": ones(16, 4)}, "lstm",
                        to="mlx"),
        ArgumentError, "layers", r"\(1, False\)", "whole state dict",
    ),
    "a weight that is missing": (
        lambda: convert({"weight_ih_l0": ones(16, 3)}, "lstm", to="mlx"), ArgumentError,
        "weight_hh_l0", "is missing", "whole state dict",
    ),
    "an LSTM of ours as a GRU": (
        lambda: convert(own(tg.nn.LSTM), "gru", to="mlx"), ShapeError,
        "weight_hh_l0", r"shape \(16, 4\)", r"a gru needs \(3 H, H\)",
    ),
    "a LayerNorm of ours without a weight": (
        lambda: convert({"bias": ones(3)}, "layer_norm", to="mlx"), ArgumentError,
        "weight", "is missing", "cannot be converted",
    ),
    "a Linear of ours with another name": (
        lambda: convert({"weights": ones(3, 3)}, "linear", to="mlx"), ArgumentError,
        "weights", "not a weight of a linear", "weight and bias",
    ),
    # -- names -------------------------------------------------------------------------------------
    "an unknown library": (
        lambda: convert({}, "lstm", library="theano"), ArgumentError,
        "'theano'", "is unknown", "'torch', 'keras'",
    ),
    "Flax in two interfaces": (
        lambda: convert(own(tg.nn.LSTM), "lstm", to="flax"), ArgumentError,
        "'flax'", "has two interfaces", "'nnx', 'linen'",
    ),
    "an unknown layer": (
        lambda: convert({}, "transformer", library="torch"), ArgumentError,
        "'transformer'", "layer =", "'lstm', 'gru'",
    ),
    "neither from nor to": (
        lambda: convert({}, "lstm"), ArgumentError, "library=None", "to=None", "give library=",
    ),
    "a layer that a library lacks": (
        lambda: convert(own(tg.nn.GRU), "gru", to="tinygrad"), ArgumentError,
        "tinygrad", "has no gru", "it has lstm",
    ),
    "an unknown cell": (
        lambda: convert(own(tg.nn.LSTM), "lstm", to="nnx", cell="PeepholeLSTM"), ArgumentError,
        "'PeepholeLSTM'", "is unknown", "'OptimizedLSTMCell' or 'LSTMCell'",
    ),
    # -- recurrent states --------------------------------------------------------------------------
    "half of a state": (
        lambda: tg.interop.convert_state([ones(2, H)] * 3, "lstm", library="keras"),
        ArgumentError, "convert_state", r"3 arrays \(\(2, 4\)", "2 for each direction .* h and c",
    ),
    "states of two batches": (
        lambda: tg.interop.convert_state([ones(2, H), ones(3, H)], "lstm", library="keras"),
        ShapeError, "convert_state", r"\(2, 4\) and \(3, 4\)", "have one shape",
    ),
    "h alone for an LSTM": (
        lambda: tg.interop.convert_state(ones(1, 2, H), "lstm", to="nnx"), ArgumentError,
        "convert_state", "1 arrays", r"here is \(h, c\)",
    ),
    "one direction as two": (
        lambda: tg.interop.convert_state(ones(1, 2, H), "gru", to="nnx", bidirectional=True),
        ShapeError, "convert_state", r"\(1, 2, 4\)", "layers times directions, 2",
    ),
    "the state of a layer that has none": (
        lambda: tg.interop.convert_state(ones(1, 2, H), "linear", to="nnx"), ArgumentError,
        "'linear'", "has no state", "use lstm, gru",
    ),
    "a state neither from nor to": (
        lambda: tg.interop.convert_state(ones(1, 2, H), "gru"), ArgumentError,
        "convert_state", "None and None", "library= or to=",
    ),
    # -- layers without recurrence -----------------------------------------------------------------
    "an activation inside of a Dense": (
        lambda: convert(HEAD, "linear", library="keras", config={"activation": "softmax"}),
        ArgumentError, "activation", "'softmax' cannot be converted, only 'linear'", "its output",
    ),
    "the ε of Keras": (
        lambda: tg.interop.from_keras([ones(I), ones(I)], tg.nn.LayerNorm(I)), ArgumentError,
        "eps = 1e-05", "0.001 the default of Keras", r"eps=0.001\)",
    ),
    "the ε of Flax": (
        lambda: tg.interop.from_flax(FLAX_NORM, tg.nn.LayerNorm(I)), ArgumentError,
        "eps = 1e-05", "1e-06 the default of Flax", r"eps=1e-06\)",
    ),
    "another ε": (
        lambda: tg.interop.from_flax(
            FLAX_NORM, tg.nn.LayerNorm(I, eps=1e-3), config={"epsilon": 1e-4}
        ),
        ArgumentError, "eps = 0.001", "the layer's is 0.0001", "eps=0.0001",
    ),
    "a transposed matrix": (
        lambda: convert([ones(2, H), ones(2)], "linear", library="keras"), ShapeError,
        "bias", r"shape \(2,\)", r"is kernel transposed\? In Keras it is \(in, out\)",
    ),
    "a LayerNorm without scale": (
        lambda: convert({"bias": ones(I)}, "layer_norm", library="linen"), ArgumentError,
        "scale", "is missing", "even if it has no scale",
    ),
    "a list for a library that has none": (
        lambda: convert([ones(2, 2), ones(2)], "linear", library="mlx"), ArgumentError,
        "a list of 2", r"\(2, 2\)", "a mapping with weight, bias",
    ),
    "another key of a Dense": (
        lambda: convert({"kernel": ones(2, 2), "scale": ones(2)}, "linear", library="linen"),
        ArgumentError, "scale", "not a weight of Dense", "kernel, bias",
    ),
    "a kernel of a convolution": (
        lambda: convert([ones(3, 2, 2)], "linear", library="keras"), ShapeError,
        "kernel", r"shape \(3, 2, 2\)", "a matrix is needed",
    ),
    "a linear layer of ONNX": (
        lambda: convert({"W": ones(2, 2)}, "linear", library="onnx"), ArgumentError,
        "ONNX", "no linear", "load_state_dict",
    ),
    # -- modules -----------------------------------------------------------------------------------
    "biases that the module lacks": (
        lambda: tg.interop.from_keras(KERAS_LSTM, tg.nn.LSTM(I, H, bias=False)), ArgumentError,
        "from_keras", "the layer has biases, the module none", "bias=True",
    ),
    "biases that the state lacks": (
        lambda: tg.interop.from_keras([ones(I, 16), ones(H, 16)], tg.nn.LSTM(I, H)),
        ArgumentError, "from_keras", "has no bias, the module has", "bias=False",
    ),
    "a stack with one layer too many": (
        lambda: tg.interop.from_keras(KERAS_LSTM, tg.nn.LSTM(I, H, num_layers=2)), ArgumentError,
        "from_keras", "the state has 1 cells, the module 2", "num_layers",
    ),
    "a stack for a single cell": (
        lambda: tg.interop.from_keras([KERAS_LSTM, KERAS_LSTM], tg.nn.LSTMCell(I, H)),
        ArgumentError, "from_keras", "the state has 2 cells, the module is one", "use a layer",
    ),
    "a network without the keys of its parts": (
        lambda: tg.interop.from_keras({"rnn": KERAS_LSTM, "dense": HEAD}, Net()), ArgumentError,
        "Net", "got rnn, dense", "keys rnn, head",
    ),
    "a part of a network": (
        lambda: tg.interop.from_keras({"rnn": KERAS_GRU, "head": HEAD}, Net()), ShapeError,
        "rnn", "recurrent_kernel", "the shape of a GRU",
    ),
    "settings of a part that does not exist": (
        lambda: tg.interop.from_keras(
            {"rnn": KERAS_LSTM, "head": HEAD}, Net(), config={"dense": {}}
        ),
        ArgumentError, "'dense'", "config has", "rnn, head",
    ),
    "a state of DataParallel": (
        lambda: tg.interop.from_torch({"module.weight": ones(2, 4)}, tg.nn.Linear(4, 2)),
        ArgumentError, "module.weight", "DataParallel", "removeprefix",
    ),
    "a checkpoint of PyTorch": (
        lambda: tg.interop.from_torch({"state_dict": {}, "epoch": 3}, tg.nn.Linear(4, 2)),
        ArgumentError, "state_dict", "a mapping, not an array", r"state\['state_dict'\]",
    ),
    "a state of PyTorch that is no mapping": (
        lambda: tg.interop.from_torch([ones(2, 2)], tg.nn.Linear(2, 2)), ArgumentError,
        "from_torch", "got a list", r"state_dict\(\)",
    ),
    "an interface of Flax": (
        lambda: tg.interop.to_flax(tg.nn.Linear(2, 2), api="jax"), ArgumentError,
        "to_flax", "got 'jax'", "'nnx' or 'linen'",
    ),
    "a cell of one's own": (
        lambda: tg.interop.to_keras(Peephole(I, H)), ArgumentError,
        "Peephole", "a cell of your own", "interop.convert",
    ),
    "no module": (
        lambda: tg.interop.from_torch({}, "lstm"), ArgumentError,
        "from_torch", "got a str", "convert",
    ),
}  # fmt: skip


class Recorded:
    """An array of a library that records a graph."""

    requires_grad, shape = True, (16, 3)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return ones(16, 3)


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_converted_is_refused(name: str) -> None:
    call, kind, *parts = REFUSALS[name]
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert message.startswith("interop.") or message.startswith("load")
    for part in parts:
        assert re.search(part, message, re.DOTALL), f"{part!r} is not in: {message}"


def test_there_are_enough_of_them() -> None:
    assert len(REFUSALS) >= 20


VALUES = st.one_of(
    st.sampled_from([None, 7, "text", [], {}, [1.0, 2.0], True]),
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6)),
    st.integers(0, 16).map(lambda n: np.ones(n, np.float32)),
    st.tuples(st.integers(1, 16), st.integers(1, 16)).map(lambda shape: ones(*shape)),
)


@settings(max_examples=100)
@given(row=st.sampled_from(RECURRENT), layer=st.sampled_from(LAYERS), data=st.data())
def test_a_damaged_state_raises_errors_of_this_library_only(
    row: Any, layer: str, data: Any
) -> None:
    """Keys that are removed, renamed or new, values of another shape or kind, another layer."""
    state = arrays(row.library, row.cell)
    key = data.draw(st.sampled_from(sorted(state)))
    new = data.draw(st.sampled_from([key, "other", f"{key}/inner", f"{key}_l1", "backward", "0"]))
    value = data.draw(VALUES | st.just(state[key]))
    if data.draw(st.booleans()):
        del state[key]
    state[new] = value
    layer = layer if data.draw(st.booleans()) else row.layer
    if row.library == "keras" and data.draw(st.booleans()):
        state = [*state.values()]
    if data.draw(st.booleans()):
        state = data.draw(st.sampled_from([{"cell": state}, [state, state], {"a_1": state}]))
    with contextlib.suppress(ArgumentError, ShapeError, DTypeError):
        ours = convert(state, layer, library=row.library)
        assert all(isinstance(array, np.ndarray) for array in ours.values())
        with contextlib.suppress(ArgumentError):  # such as a recurrent bias for nnx
            convert(ours, layer, to=row.library)


@pytest.mark.parametrize(
    "state",
    [
        {"rnn": KERAS_LSTM, "head": [ones(3, 2), ones(2)]},
        {"rnn": KERAS_LSTM, "head": [ones(H, 2).astype(np.float64), ones(2)]},
        {"rnn": KERAS_GRU, "head": HEAD},
    ],
)
def test_a_refused_network_is_unchanged(state: Any) -> None:
    """Also where the first part could be loaded."""
    net = Net()
    before = net.state_dict()
    with pytest.raises((ArgumentError, ShapeError)):
        tg.interop.from_keras(state, net)
    np.testing.assert_equal(net.state_dict(), before)
