"""`save_onnx`: a network as a file that onnxruntime runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..._util import LIBRARY
from ..._util.api_hints import class_name
from ..._util.nested import leaves
from ..._util.user_code import raised_in, shown
from ...engine.tensor import Tensor
from ...errors import ArgumentError, DeviceError
from ...io.atomic import atomic_write
from ...models import Classifier, Forecaster, NeuralLM, RecurrentLM
from ...nn import Module, Recurrent
from ..units import ForecasterInUnits, in_units
from .arguments import OP, Arguments, Input, arguments_of, batch_first, with_axes
from .graph import IR_VERSION, OPSET, Graph, needed, onnx, tensor_type
from .layers import loop, recurrent_node
from .merge import Merged, Merger, assignments
from .operations import OPERATIONS
from .recurrent import NODES, layers_as_a_whole
from .trace import OF_USER, Call, Refused, Tracer

LIMIT = 2**31 - 2**20  # bytes: a file of ONNX is one message of Protocol Buffers


def save_onnx(
    path: str | os.PathLike[str],
    model: Module,
    *inputs: Any,
    axes: Mapping[str, Sequence[str | None]] | None = None,
    output_names: Sequence[str] | None = None,
    **inputs_by_name: Any,
) -> None:
    """Write a network as an ONNX file, for inputs of any number of steps and sequences.

    Parameters
    ----------
    path : str or path
        The file, which is replaced atomically as by `save`.
    model : Module
        A layer, a model, or a module of your own. It is exported as it computes in evaluation
        mode; the module itself is not changed.
    *inputs, **inputs_by_name : Tensor, array, or tuples, lists and dicts of them
        Examples of the arguments of ``model.forward``. Their dtypes and lengths count, not their
        values. Each array is an input of the file, with the name of the argument (``state_0`` and
        ``state_1`` for a pair); numbers, text and None are passed on as they are. Not needed for
        recurrent layers, the networks of `tg.models`, `Embedding`, `Linear`, `LayerNorm`, and a
        `Sequential` that begins with one of them: then initial states and lengths are optional
        inputs of the file.
    axes : dict, optional
        For inputs by their names, which lengths vary: for each axis a name, or None for a fixed
        length. Equal names are equal lengths. By default the first input is ``("T", "B", None)``
        (``("B", "T", None)`` if the first recurrent layer is `batch_first`); other inputs of three
        axes are ``(None, "B", None)``, of two ``("B", None)``; integers of two axes are ``("T",
        "B")``, of one ``("B",)``. All other lengths are fixed.
    output_names : sequence of str, optional
        Names of the outputs, in the order in which `forward` returns them. By default ``output``,
        or ``output_0``, ``output_1`` and so on; of recurrent layers ``output`` and ``new_state``,
        of language models ``logits`` and ``new_state`` (``new_state_0``, ``new_state_1`` of an
        LSTM); ``logits`` of a `Classifier`, ``forecast`` of a `Forecaster`.

    Raises
    ------
    ArgumentError
        If the network cannot be exported. The message has the operation or the reason, the line,
        and a cure.
    DeviceError
        If the model is on a GPU.
    MissingExtraError
        If onnx is not installed (extra ``onnx``).
    OSError
        If writing fails; the old file is unchanged.

    Notes
    -----
    `forward` is called on examples of several sizes, and its operations are recorded. So it may
    use any Python code, but no branch on a value of a Tensor, no loop over time, and no array that
    was computed outside of the operations of the library; each of these is an error.

    A layer of built-in LSTM, GRU or RNN cells in float32 is one node of ONNX, for both directions.
    Any other cell (your own, an LSTM with `proj_size`, float64), and `tg.scan`, is a ``Scan`` node,
    whose body is the step; `project` is computed for all steps at once, before it.

    A `Forecaster` whose scaler was fitted takes and returns values in the unit of the data, as
    `predict` does: the scaler is in the file, in double precision.

    The file is of opset 18, which onnxruntime 1.14 and later read. ``lengths`` become
    ``sequence_lens``. For a sequence without a step onnxruntime returns zeros as the final state;
    the file corrects this to the initial state, as here. In contrast to here, a cell of your own
    sees the padding of ragged batches, in `project` and in `step`: its result is not used, unless
    the cell mixes steps or sequences, which no file can do with lengths. A branch on a length (``if
    len(x) > 100``) is taken as for the lengths of the examples, which are between 2 and 29.
    onnxruntime logs a warning for each optional input, and needs at least one sequence in a batch.
    The reference evaluator of the package onnx ignores ``sequence_lens``.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> model = tg.models.RecurrentLM(tg.nn.LSTMCell, 28, 64, embedding_dim=16)
    >>> tg.interop.save_onnx("model.onnx", model)  # doctest: +SKIP
    >>> import onnxruntime  # doctest: +SKIP
    >>> session = onnxruntime.InferenceSession("model.onnx")  # doctest: +SKIP
    >>> logits, h, c = session.run(None, {"ids": ids})  # doctest: +SKIP
    """
    if not isinstance(model, Module):
        raise ArgumentError(
            f"{OP}: model is a Module, got {class_name(model)}: make a tinygrad_rnn.nn.Module "
            "whose forward calls it"
        )
    onnx()
    for name, parameter in model.named_parameters():
        if parameter.device != "cpu":
            raise DeviceError(
                f"{OP}: {name} is on {parameter.device}: export a copy, "
                "copy.deepcopy(model).to('cpu')"
            )
    kind = type(model).__name__
    model = in_units(model)
    arguments = arguments_of(model, inputs, inputs_by_name)
    chosen = with_axes(arguments.inputs, axes)
    try:
        merged = _merged(model, arguments, chosen)
        names = _output_names(model, len(merged.results), output_names)
        file = _file(model, merged, chosen, names)
    except Refused as error:
        raise ArgumentError(f"{OP}: {kind}: {error}") from None
    data = file.SerializeToString()
    onnx().checker.check_model(file, full_check=True)
    with atomic_write(path) as written:
        written.write(data)


# -- runs ------------------------------------------------------------------------------------------


def _merged(model: Module, arguments: Arguments, inputs: list[Input]) -> Merged:
    """Return the trace of a network for all sizes."""
    symbols = list(dict.fromkeys(n for x in inputs for n in x.axes if n is not None))
    runs = assignments(symbols)
    tracers, results = [], []
    with layers_as_a_whole(), model.evaluating():
        for seed, run in enumerate(runs):
            tracer = Tracer(seed)
            with _unchanged(model), tracer.running():
                found = _call(tracer, model, arguments, inputs, run)
                outputs = [y for y in leaves(found) if y is not None]
                for y in outputs:
                    if not isinstance(y, Tensor):
                        raise Refused(
                            f"returns a {class_name(y)}", "Tensors and None can be exported", ""
                        )
                results.append([tracer.ref(y) for y in outputs])
            tracers.append(tracer)
    return Merger(runs).traces(tracers, results)


def _call(
    tracer: Tracer,
    model: Module,
    arguments: Arguments,
    inputs: list[Input],
    run: Mapping[str, int],
) -> Any:
    """Return the result of the network for inputs of some sizes."""
    made: dict[str, Tensor] = {}
    for x in inputs:
        lengths = [
            n if name is None else run[name]
            for n, name in zip(x.example.shape, x.axes, strict=True)
        ]
        example = tracer.example(tuple(lengths), x.example.dtype, x.example)
        made[x.name] = tracer.new(example)

    def tensors(value: Any) -> Any:
        if isinstance(value, Input):
            return made[value.name]
        if isinstance(value, tuple | list):
            return type(value)(map(tensors, value)) if type(value) in (tuple, list) else value
        return {k: tensors(v) for k, v in value.items()} if type(value) is dict else value

    args, by_name = tensors(tuple(arguments.positional)), tensors(dict(arguments.by_name))
    try:
        return model(*args, **by_name)
    except (ValueError, TypeError, IndexError, RuntimeError, AttributeError) as error:
        shapes = ", ".join(f"{x.name} {made[x.name].shape}" for x in inputs)
        raise Refused(
            f"raises {type(error).__name__} for the inputs {shapes}: {error}",
            "check the examples; a length that cannot vary is None in axes=",
            shown(raised_in(error)),
        ) from error


@contextmanager
def _unchanged(model: Module) -> Iterator[None]:
    """Restore the attributes of all modules at the end: a forward may assign some."""
    before = [(m, dict(vars(m))) for m in model.modules()]
    try:
        yield
    finally:
        for module, attributes in before:
            held = vars(module)
            for name in held.keys() - attributes.keys():
                del held[name]
            if [*held] != [*attributes]:  # some were deleted: in their order again
                held.clear()
            held.update(attributes)


# -- the file --------------------------------------------------------------------------------------


def _output_names(model: Module, count: int, given: Sequence[str] | None) -> list[str]:
    if given is not None:
        names: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
        if any(not isinstance(name, str) for name in names):
            raise Refused("cannot name its outputs", f"output_names are str, got {given!r:.60}", "")
        if len(names) != count or len({*names}) != count or not all(names):
            raise Refused(f"returns {count} Tensors", f"output_names are {count}, got {names}", "")
        return names
    first = {
        Recurrent.forward: "output", RecurrentLM.forward: "logits", NeuralLM.forward: "logits",
        Classifier.forward: "logits", Forecaster.forward: "forecast",
        ForecasterInUnits.forward: "forecast",
    }.get(type(model).forward)  # fmt: skip
    if first is not None:
        states = ["new_state"] if count == 2 else [f"new_state_{i}" for i in range(count - 1)]
        return [first, *states]
    return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]


def _file(model: Module, merged: Merged, inputs: list[Input], names: list[str]) -> Any:
    """Return the file as a message of ONNX."""
    helper = onnx().helper
    parameters = {id(p._data): name for name, p in model.named_parameters()}
    parameters.update({id(b._data): name for name, b in model.named_buffers()})
    sizes: dict[str, tuple[str, int]] = {}
    for x in inputs:
        for axis, symbol in enumerate(x.axes):
            if symbol is not None and x.default is None:
                sizes.setdefault(symbol, (x.name, axis))
    g = Graph(merged, parameters, sizes)
    for name in (*names, *[x.name for x in inputs]):
        if g.unique(name) != name:
            raise Refused(
                f"has two inputs or outputs with the name {name!r}", "use output_names", ""
            )
    infos, defaults = [], {}
    for i, x in enumerate(inputs):
        dims = [n if s is None else s for n, s in zip(x.example.shape, x.axes, strict=True)]
        infos.append(helper.make_tensor_value_info(x.name, tensor_type(x.example.dtype), dims))
        g.of_value[i] = x.name
        if x.default is not None:
            defaults[x.name] = x.default
            g.of_value[i] = g.add("Expand", x.name, g.shape(merged.values[i].shape))
            if x.name == "lengths":  # by default every sequence has all steps
                steps = merged.values[0].shape[batch_first(model)]
                g.of_value[i] = g.add("Min", g.of_value[i], g.size(steps))
    calls = needed(merged)

    def emit(graph: Graph, block: int) -> None:
        for call in calls:
            if call.block == block:
                made = _nodes(graph, call, emit)
                for ref, name in zip(call.outputs, made, strict=True):
                    g.of_value[ref.number] = name

    emit(g, 0)
    outputs = []
    for name, result in zip(names, merged.results, strict=True):
        g.alias(g.name(result), name)
        outputs.append(g.info(name, g.dtype(result), g.shape_of(result)))
    arrays = {**g.initializers, **defaults}
    total = sum(a.nbytes for a in arrays.values())
    if total > LIMIT:
        raise Refused(f"has {total:,} bytes of weights", "a file of ONNX has less than 2 GiB", "")
    graph = helper.make_graph(
        g.nodes,
        type(model).__name__,
        infos,
        outputs,
        [onnx().numpy_helper.from_array(a, name) for name, a in arrays.items()],
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name=LIBRARY,
        producer_version=sys.modules[LIBRARY].__version__,
    )


def _nodes(g: Graph, call: Call, emit: Any) -> list[str]:
    """Add the nodes of a call; return the names of its results."""
    if call.name in NODES.values():
        return recurrent_node(g, call)
    if call.name == "loop":
        return loop(g, call, emit)
    make = OPERATIONS.get(call.name)
    made = None if make is None else make(g, call)
    if made is None:
        own = "of your own, a primitive, " if call.name == OF_USER else ""
        options = {k: v for k, v in call.options.items() if v is not None}
        form = f" with {options}" if make is not None else ""
        raise Refused(
            f"calls {call.title}, an operation {own}that has no form in ONNX here{form:.200}",
            "write it with other operations of tinygrad_rnn",
            call.line,
        )
    return [made]
