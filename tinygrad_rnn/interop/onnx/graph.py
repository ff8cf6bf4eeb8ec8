"""Graphs of ONNX: nodes, constants that are stored once, and sizes that the file computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..._util.extras import imported
from .merge import Merged, Real, Size, Unknown, Varying
from .trace import Call, Ref

OPSET = 18  # the first in which all reductions take their axes alike; read by onnxruntime >= 1.14
IR_VERSION = 8  # of the same release of ONNX
END = np.iinfo(np.int64).max


def onnx() -> Any:
    """Return the module onnx."""
    return imported("onnx", "pip install 'tinygrad-rnn[onnx]'", "save_onnx")


class Graph:
    """The nodes of a file, or of the body of a loop.

    Parameters
    ----------
    merged : Merged
        The trace.
    names : mapping of int to str
        Names of parameters, by the ids of their arrays.
    sizes : mapping of str to (str, int)
        For each symbol an input and an axis that has its length.
    root : Graph, optional
        The graph of the file, for a body; it has the constants and the sizes.
    """

    def __init__(
        self,
        merged: Merged,
        names: Mapping[int, str],
        sizes: Mapping[str, tuple[str, int]],
        root: Graph | None = None,
    ) -> None:
        self.root = self if root is None else root
        self.merged = merged
        self.nodes: list[Any] = []
        if root is None:
            self.initializers: dict[str, Any] = {}
            self.parameters, self.inputs_with = names, sizes
            self._constants: dict[Any, str] = {}
            self._taken: dict[str, int] = {}
            self._sizes: dict[Any, str] = {}
            self.of_value: dict[int, str] = {}

    # -- names and nodes

    def unique(self, name: str) -> str:
        """Return a name that no other tensor has."""
        taken = self.root._taken
        taken[name] = count = taken.get(name, 0) + 1
        return name if count == 1 else self.unique(f"{name}_{count}")

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or a list of names."""
        names = [self.unique(f"{op}_{i}" if outputs > 1 else op) for i in range(outputs)]
        node = onnx().helper.make_node(op, list(inputs), names, name=names[0], **attributes)
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def alias(self, name: str, output: str) -> None:
        """Give a tensor another name, that of an output."""
        self.nodes.append(onnx().helper.make_node("Identity", [name], [output], name=output))

    # -- constants and sizes

    def constant(self, array: Any, name: str = "") -> str:
        """Return the name of a constant array; equal ones are stored once."""
        array = np.asarray(array)
        root = self.root
        key = array.shape, array.dtype, array.tobytes()
        if key not in root._constants:
            found = name or root.parameters.get(id(array), "") or "constant"
            root._constants[key] = unique = self.unique(found)
            root.initializers[unique] = np.ascontiguousarray(array).reshape(array.shape)
        return root._constants[key]

    def ints(self, *numbers: int) -> str:
        """Return a constant vector of int64."""
        return self.constant(np.array(numbers, np.int64))

    def size(self, n: Any) -> str:
        """Return an integer or a `Size` as a vector of one int64."""
        if isinstance(n, Unknown):
            n.refuse()
        if not isinstance(n, Size):
            return self.ints(int(n))
        root = self.root
        if n not in root._sizes:
            total = ""
            for symbols, factor in n.terms:
                term = "" if factor == 1 and symbols else root.ints(factor)
                for symbol in symbols:
                    term = (
                        root.add("Mul", term, root._symbol(symbol))
                        if term
                        else root._symbol(symbol)
                    )
                total = root.add("Add", total, term) if total else term
            root._sizes[n] = total or root.ints(0)
        return root._sizes[n]

    def _symbol(self, symbol: str) -> str:
        if symbol not in self._sizes:
            name, axis = self.inputs_with[symbol]
            self._sizes[symbol] = self.add("Shape", name, start=axis, end=axis + 1)
        return self._sizes[symbol]

    def shape(self, shape: Sequence[Any]) -> str:
        """Return a shape as a vector of int64."""
        if all(isinstance(n, int) for n in shape):
            return self.ints(*shape)
        return self.add("Concat", *map(self.size, shape), axis=0)

    # -- values of the trace

    def dtype(self, x: Any) -> Any:
        """Return the dtype of an argument; None for a number."""
        if isinstance(x, Ref):
            return self.merged.values[x.number].dtype
        return getattr(x, "dtype", None)

    def shape_of(self, x: Any) -> tuple[Any, ...]:
        """Return the shape of an argument, with sizes."""
        if isinstance(x, Ref):
            return self.merged.values[x.number].shape
        return getattr(x, "shape", ())

    def name(self, x: Any, dtype: Any = None) -> str:
        """Return the name of an argument, converted to a dtype if that is given."""
        if isinstance(x, Ref) and x.number in self.merged.constants:
            return self.name(self.merged.constants[x.number], dtype)
        if isinstance(x, Ref):
            name = self.root.of_value[x.number]
        elif isinstance(x, Varying):
            name = self._varying(x)
        elif isinstance(x, Size | Unknown):
            number = self.add("Squeeze", self.size(x), self.ints(0))
            return self.cast(number, dtype)
        elif isinstance(x, Real):
            return self._real(x, dtype)
        elif isinstance(x, np.ndarray):
            same = dtype is None or x.dtype == dtype
            return self.constant(x if same else x.astype(dtype))
        else:
            return self.constant(np.array(x, dtype))
        return name if dtype is None or self.dtype(x) == dtype else self.cast(name, dtype)

    def _real(self, x: Real, dtype: Any) -> str:
        parts = [
            self.add("Mul", self.name(Size(((names, 1),)), dtype), self.name(k, dtype))
            for names, k in x.terms
        ]
        total = self.add("Sum", *parts)
        return self.add("Reciprocal", total) if x.inverse else total

    def _varying(self, x: Varying) -> str:
        if x.base is not None:
            return self.add("Expand", self.constant(x.base), self.shape(x.shape))
        count = self.name(x.shape[x.axis], np.int64)
        start = self.name(x.start, np.int64)
        if x.step == 0:  # the same number everywhere, such as the number of steps
            return self.cast(self.add("Expand", start, self.shape(x.shape)), x.dtype)
        step = self.constant(np.array(x.step, np.int64))
        row = self.add("Range", start, self.add("Add", start, self.add("Mul", step, count)), step)
        axes = [i for i in range(len(x.shape)) if i != x.axis]
        row = self.add("Unsqueeze", row, self.ints(*axes)) if axes else row
        row = self.add("Expand", row, self.shape(x.shape)) if axes else row
        return row if x.dtype == np.int64 else self.cast(row, x.dtype)

    def cast(self, name: str, dtype: Any) -> str:
        """Return a tensor in another dtype."""
        return self.add("Cast", name, to=tensor_type(dtype))

    def info(self, name: str, dtype: Any, shape: Sequence[Any], label: str = "") -> Any:
        """Return the description of an input or output; sizes get names."""
        dims = [_dimension(n, f"{label or name}_{i}") for i, n in enumerate(shape)]
        return onnx().helper.make_tensor_value_info(name, tensor_type(dtype), dims)


def _dimension(n: Any, name: str) -> Any:
    if isinstance(n, int):
        return n
    if isinstance(n, Size) and len(n.terms) == 1 and n.terms[0][1] == 1 and len(n.terms[0][0]) == 1:
        return n.terms[0][0][0]
    return name


def tensor_type(dtype: Any) -> int:
    """Return the number that ONNX has for a dtype."""
    number: int = onnx().helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return number


Emitter = Callable[[Graph, Call], Any]


def needed(merged: Merged) -> list[Call]:
    """Return the calls that the results depend on, in their order; those of bodies too."""
    wanted, found = set[int](), []

    def want(value: Any) -> None:
        wanted.update({ref.number for ref in refs_in(value)}.difference(merged.constants))

    want(merged.results)
    for call in reversed(merged.calls):
        if any(ref.number in wanted for ref in call.outputs):
            found.append(call)
            want((call.inputs, call.options))
            if "body" in call.options:
                want(call.options["body"].results)
    return found[::-1]


def refs_in(value: Any) -> list[Ref]:
    """Return the values of the trace in nested tuples, dicts and slices."""
    if isinstance(value, Ref):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    if type(value) in (tuple, list):
        return [ref for x in value for ref in refs_in(x)]
    return []
