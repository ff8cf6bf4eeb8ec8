"""A primitive: a forward on arrays, and one vector-Jacobian product (vjp) for each argument.

    @primitive(x=lambda F, g, out: g * (1 - out * out))
    def tanh(xp, x):
        return xp.tanh(x)

The keyword names the argument, and the names of the vjp's own parameters say what is saved for it: an argument, ``out`` (the
result), a keyword argument of the forward, or the shape of an argument (``x_shape``). Nothing else stays alive.

A vjp is written once and lives three lives: with arrays for ``g`` it is the backward pass; with Tensors it records a
graph, so that every derivative has a derivative; with symbols it is the source of a fused kernel. ``F`` is the
namespace of primitives for the kind at hand. In a vjp stand operators and names from ``F``, no method and no array library.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DeviceError, GraphError
from . import backend
from .backend import Array
from .graph import PENDING, Gradient, Node, mode

if TYPE_CHECKING:
    from .tensor import Tensor

Vjp = Callable[..., Gradient]
Operation = Callable[..., "Tensor"]
Rule = tuple[Vjp, Callable[..., tuple[Any, ...]], tuple[int | None, ...]]
PRIMITIVES: dict[str, Operation] = {}
_SCALARS = (bool, int, float)


class Row:
    """One row of the table: the forward, and the rule of each argument (or one joint rule for all of them)."""

    def __init__(self, forward: Callable[..., Array], vjps: dict[str, Vjp | None], joint: Vjp | None) -> None:
        self.name = forward.__name__
        self.forward = forward
        parameters = list(inspect.signature(forward).parameters.values())[1:]
        self.inputs = list(vjps)
        self.params = {p.name: p.default for p in parameters[len(vjps) or 1 :]}
        if joint is None and [p.name for p in parameters[: len(vjps)]] != self.inputs:
            raise TypeError(f"primitive {self.name}: vjps for {self.inputs}, the forward takes {[p.name for p in parameters]}")
        self.rules = [None if vjp is None else self._rule(vjp) for vjp in vjps.values()]
        self.joint = None if joint is None else self._rule(joint)
        self.joint_names = () if joint is None else tuple(inspect.signature(joint).parameters)
        self.partial = joint is None and None in self.rules

    def bind(self, args: tuple[Any, ...], params: dict[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        """Sort what a call was given into arrays and parameters, with the defaults."""
        arrays = list(args)
        if self.joint is None:
            arrays = arrays[: len(self.inputs)]
            params = {**dict(zip(self.params, args[len(arrays) :], strict=False)), **params}
            arrays += [params.pop(name) for name in self.inputs[len(arrays) :] if name in params]
            if len(arrays) < len(self.inputs) or len(args) > len(self.inputs) + len(self.params):
                raise TypeError(f"{self.name} takes {', '.join([*self.inputs, *self.params])}; {len(args)} arguments were given")
        unknown = [name for name in params if name not in self.params]
        if unknown:
            hint = "; PyTorch's dim= is axis= here" if unknown[0] in ("dim", "keepdim") else ""
            raise TypeError(f"{self.name} has no argument {unknown[0]!r}: it takes {', '.join([*self.inputs, *self.params])}{hint}")
        params = {**self.params, **params}
        missing = [name for name, value in params.items() if value is inspect.Parameter.empty]
        if missing:
            raise TypeError(f"{self.name} needs {', '.join(missing)}")
        return arrays, params

    def _rule(self, vjp: Vjp) -> Rule:
        """Return the vjp, what collects the values it names, and the input (-1: the output) that each of them is."""
        picks: list[str] = []
        origins: list[int | None] = []
        for name in list(inspect.signature(vjp).parameters)[2:]:
            array, _, shape = name.rpartition("_")
            if name in self.inputs:
                picks.append(f"inputs[{self.inputs.index(name)}]")
            elif shape == "shape" and array in self.inputs:
                picks.append(f"inputs[{self.inputs.index(array)}].shape")
            elif name == "shapes":
                picks.append("tuple(x.shape for x in inputs)")
            else:
                picks.append(name if name in ("inputs", "out") else f"params[{name!r}]")
            origins.append(self.inputs.index(name) if name in self.inputs else -1 if name == "out" else None)
        # One expression instead of a loop over the names: it runs for every operation that is recorded.
        collect = eval("lambda inputs, out, params: (" + "".join(pick + ", " for pick in picks) + ")")
        return vjp, collect, tuple(origins)


class Record(Node):
    """The node of a primitive: its row, and for each argument that needs a gradient the values that its vjp names."""

    __slots__ = ("row", "saved", "versions")

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the operation."""
        return self.row.name

    def release(self) -> None:
        """Let go of the saved values."""
        self.saved = None

    def pull(self, grads: list[Gradient], live: set[Node] | None, F: Any) -> Sequence[Gradient]:
        """Call the vjp of each argument that needs a gradient."""
        if self.saved is None:
            raise GraphError(
                f"backward through {self.name} a second time: its saved values were freed by the first. If a recurrent state "
                "is carried from window to window, cut it with tinygrad_rnn.bptt.detach(state); "
                "to walk the same graph twice, pass retain_graph=True the first time"
            )
        for counter, seen in self.versions:
            if counter[0] != seen:
                raise GraphError(
                    f"backward through {self.name}: a value that it saved was changed in place after the forward pass "
                    f"(version {counter[0]}, saved at {seen}). Call backward before optimizer.step(), or run forward again"
                )
        grad = grads[0]
        if self.row.joint is not None:
            vjp, _, origins = self.row.joint
            values = self._tensors(self.saved[0], origins, F) if F.records else self.saved[0]
            return vjp(F, grad, *values)  # type: ignore[no-any-return]
        results = []
        for rule, values, parent in zip(self.row.rules, self.saved, self.parents, strict=True):
            if values is None or (live is not None and parent[0] not in live):
                results.append(None)
            else:
                vjp, _, origins = rule  # type: ignore[misc]
                results.append(vjp(F, grad, *(self._tensors(values, origins, F) if F.records else values)))
        return results

    def _tensors(self, values: tuple[Any, ...], origins: tuple[int | None, ...], F: Any) -> list[Any]:
        """Give the saved arrays their places in the graph back, so that what the vjp computes is recorded."""
        wrapped = []
        for value, origin in zip(values, origins, strict=True):
            if origin is None:
                if isinstance(value, list):  # all the inputs of a joint rule
                    value = [F.wrap(x, edge) for x, edge in zip(value, self.parents, strict=True)]
            elif value.__class__ not in _SCALARS:
                value = F.wrap(value, (self, 0) if origin < 0 else self.parents[origin])
            wrapped.append(value)
        return wrapped


# -- namespaces: the same names for arrays and for Tensors --------------------------------------------------------


class Raw:
    """The primitives on arrays of one library: what a vjp's ``F`` is in the ordinary backward pass."""

    records = False
    in_place = True

    def __init__(self, module: Any) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        forward = functools.partial(PRIMITIVES[name].row.forward, self.module)  # type: ignore[attr-defined]
        setattr(self, name, forward)
        return forward


class Recorded:
    """The primitives on Tensors: what ``F`` is under ``create_graph=True``."""

    records = True
    in_place = False

    def __getattr__(self, name: str) -> Any:
        return PRIMITIVES[name]

    def wrap(self, array: Array, edge: Any) -> Tensor:
        """Return the Tensor of an array at a place in the graph."""
        return _wrap(array, edge, None)


RECORDED = Recorded()
_raw: dict[Any, Raw] = {}


def namespace(grad: Gradient) -> Any:
    """Return the namespace of operations for the kind of gradient at hand."""
    if grad.__class__ in PENDING:
        grad = grad.sample
    if grad.__class__ in _raw:
        return _raw[grad.__class__]
    if isinstance(grad, _Tensor):
        return RECORDED
    return _raw.setdefault(grad.__class__, Raw(backend.module_of(grad)))


# -- applying a primitive ----------------------------------------------------------------------------------------

_Tensor: Any = None
_wrap: Any = None


def bind(tensor_class: type, wrap: Callable[..., Tensor]) -> None:
    """Tell the operations which class their results have; tensor.py, which stands above this file, calls it once."""
    global _Tensor, _wrap
    _Tensor, _wrap = tensor_class, wrap


def _conform(row: Row, values: list[Any]) -> list[Any]:
    """Bring arguments of unlike kinds together: one device, integers follow floats, Python scalars follow arrays."""
    values = [x.item() if isinstance(x, np.generic) else x for x in values]
    values = [x if x.__class__ in _SCALARS or backend.is_array(x) else backend.asarray(x) for x in values]
    arguments = [i for i in range(len(values)) if row.joint is not None or row.rules[i] is not None]
    if all(values[i].__class__ in _SCALARS for i in arguments):
        values = [backend.asarray(x) for x in values]
    arrays = [x for x in values if x.__class__ not in _SCALARS]
    if len({backend.module_of(x) for x in arrays}) > 1:
        devices = ", ".join(backend.device_of(x) for x in arrays)
        raise DeviceError(f"{row.name}: operands on different devices ({devices}): move them together with .to(device)")
    dtypes = [values[i].dtype for i in arguments if values[i].__class__ not in _SCALARS]
    floating = [dtype for dtype in dtypes if dtype.kind == "f"]
    if not floating and any(values[i].__class__ is float for i in arguments):
        floating = [backend.default_dtype()]
    for i in arguments:
        if floating and values[i].__class__ not in _SCALARS and values[i].dtype.kind != "f":
            values[i] = values[i].astype(floating[0])
    return values


def _to_floating(values: list[Any]) -> list[Any]:
    """Give integers the default floating dtype, where the result is floating whatever the arguments are."""
    if any(x.__class__ is float or (x.__class__ not in _SCALARS and x.dtype.kind == "f") for x in values):
        return values
    return [x if x.__class__ in _SCALARS else x.astype(backend.default_dtype()) for x in values]


def _versions(row: Row, args: tuple[Any, ...], parents: list[Any]) -> list[tuple[list[int], int]]:
    """Return the version counters of the inputs that are saved, with their state now."""
    used: set[int] = set()
    for rule, parent in zip(row.rules, parents, strict=False):
        if rule is not None and parent is not None:
            used.update(origin for origin in rule[2] if origin is not None and origin >= 0)
    if row.joint is not None and "inputs" in row.joint_names:
        used.update(range(len(args)))
    counters = [args[i]._version for i in sorted(used) if isinstance(args[i], _Tensor)]
    return [(counter, counter[0]) for counter in counters if counter is not None]


def primitive(
    *, floating: bool = False, view: bool = False, joint: Vjp | None = None, **vjps: Vjp | None
) -> Callable[[Callable[..., Array]], Operation]:
    """Make an operation on Tensors from a forward on arrays and a vjp for each of its arguments.

    Parameters
    ----------
    floating
        Whether integer arguments become floating ones first (exp, divide …).
    view
        Whether the result may share the memory of the first argument.
    joint
        In place of `vjps`: one vjp that returns the gradients of all arguments, for a forward that takes ``*inputs``. It may
        name ``inputs``, ``shapes`` (of all inputs) and keyword arguments.
    **vjps
        For each argument of the forward a function ``vjp(F, g, *names)``, or None if it has no gradient.

    Returns
    -------
    callable
        A decorator for ``forward(xp, *arrays, **params)``, where ``xp`` is the array library of the arguments.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> @tg.primitive(x=lambda F, g, x: 3 * g * x * x)
    ... def cube(xp, x):
    ...     return x * x * x
    >>> x = tg.tensor([2.0], requires_grad=True)
    >>> cube(x).backward()
    >>> x.grad
    tensor([12.])
    """

    def decorate(forward: Callable[..., Array]) -> Operation:
        row = Row(forward, vjps, joint)
        modules = backend.modules

        @functools.wraps(forward)
        def operation(*args: Any, **params: Any) -> Tensor:
            if len(params) != len(row.params) or len(args) != len(row.inputs):
                args, params = row.bind(args, params)  # type: ignore[assignment]
            values = []
            parents = []
            tracked = versioned = False
            for arg in args:
                if isinstance(arg, _Tensor):
                    values.append(arg._data)
                    parents.append(arg._edge)
                    if arg._edge is not None:
                        tracked = True
                    if arg._version is not None:
                        versioned = True
                else:
                    values.append(arg)
                    parents.append(None)
            first, last = values[0], values[-1]
            if (
                len(values) > 2
                or first.__class__ not in modules
                or first.__class__ is not last.__class__
                or first.dtype is not last.dtype
            ):
                values = _conform(row, values)
            if row.partial and tracked:
                parents = [edge if rule is not None else None for edge, rule in zip(parents, row.rules, strict=True)]
                tracked = any(edge is not None for edge in parents)
            if floating and not tracked:
                values = _to_floating(values)
            kind = values[0].__class__
            if kind in _SCALARS:
                kind = values[1].__class__
            out = forward(modules[kind], *values, **params)
            if out.__class__ is not kind:  # NumPy returns a scalar where the operands are 0-d
                out = backend.asarray(out)
            version = args[0]._version if view and versioned else None
            if not tracked or not mode.recording:
                return _wrap(out, None, version)
            if row.joint is None:
                saved = [
                    None if parent is None else rule[1](values, out, params)
                    for rule, parent in zip(row.rules, parents, strict=True)
                ]
            else:
                saved = [row.joint[1](values, out, params)]
            node = Record(tuple(parents), ((out.shape, out.dtype),))
            node.row = row
            node.saved = saved
            node.versions = _versions(row, args, parents) if versioned else ()
            return _wrap(out, (node, 0), version)

        parameters = list(inspect.signature(forward).parameters.values())[1:]
        operation.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        operation.row = row  # type: ignore[attr-defined]
        if not getattr(PRIMITIVES.get(row.name), "__module__", "").startswith(__package__):  # the engine's own stay
            PRIMITIVES[row.name] = operation
        return operation

    return decorate
