"""A primitive: a forward on arrays, and one vector-Jacobian product (vjp) for each argument.

    @primitive(x=lambda F, g, out: g * (1 - out * out))
    def tanh(xp, x):
        return xp.tanh(x)

The keyword names the argument, and the names of the vjp's own parameters say what is saved for it:
an argument, ``out`` (the result), a keyword argument of the forward, or the shape of an argument
(``x_shape``). Nothing else stays alive.

A vjp is written once and lives three lives: with arrays for ``g`` it is the backward pass; with
Tensors it records a graph, so that every derivative has a derivative; with symbols it is the source
of a fused kernel. ``F`` is the namespace of primitives for the kind at hand. In a vjp stand
operators and names from ``F``, no method and no array library.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DeviceError, GraphError, ShapeError
from . import backend
from .backend import Array
from .graph import PENDING, Gradient, Node, Product, clock, last_write, mode

if TYPE_CHECKING:
    from .tensor import Tensor

Vjp = Callable[..., Gradient]
Operation = Callable[..., "Tensor"]
Rule = tuple[
    Vjp, str, tuple[int | None, ...]
]  # the vjp, the tuple it saves as source, where each value comes from
PRIMITIVES: dict[str, Operation] = {}
_SCALARS = frozenset((bool, int, float))
_OUT, _ALL = -1, -2  # where a saved value comes from, if not from the input of that number
_ORIGINS = {"out": _OUT, "inputs": _ALL}


class Row:
    """One row of the table: the forward, and each argument's rule or a joint one."""

    def __init__(
        self, forward: Callable[..., Array], vjps: dict[str, Vjp | None], joint: Vjp | None
    ) -> None:
        self.name = forward.__name__
        self.forward = forward
        parameters = list(inspect.signature(forward).parameters.values())[1:]
        self.inputs = list(vjps)
        self.params = {p.name: p.default for p in parameters[len(vjps) or 1 :]}
        if joint is None and [p.name for p in parameters[: len(vjps)]] != self.inputs:
            raise TypeError(
                f"primitive {self.name}: vjps for {self.inputs}, the forward takes "
                f"{[p.name for p in parameters]}"
            )
        if not vjps and joint is None:
            raise TypeError(f"primitive {self.name}: give a vjp (or None) for each argument")
        self.rules = [None if vjp is None else self._rule(vjp) for vjp in vjps.values()]
        self.joint = None if joint is None else self._rule(joint)
        self.partial = joint is None and None in self.rules
        self.save, self.pull = self._saver(), self._puller()
        # For each input, the arguments whose vjps read it: it is saved if one of these needs a
        # gradient.
        self.readers: Any = [
            [i for i, rule in enumerate(self.rules) if rule is not None and k in rule[2]]
            for k in range(len(self.inputs))
        ]
        if joint is not None:
            self.readers = (
                itertools.repeat([0]) if "inputs" in inspect.signature(joint).parameters else []
            )
        self.reads = joint is not None or any(self.readers)

    def bind(
        self, args: Sequence[Any], params: dict[str, Any]
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        """Sort what a call was given into arrays and parameters, with the defaults."""
        arrays = list(args)
        if self.joint is None:
            arrays = arrays[: len(self.inputs)]
            params = {**dict(zip(self.params, args[len(arrays) :], strict=False)), **params}
            arrays += [params.pop(name) for name in self.inputs[len(arrays) :] if name in params]
            if len(arrays) < len(self.inputs) or len(args) > len(self.inputs) + len(self.params):
                raise TypeError(
                    f"{self.name} takes {', '.join([*self.inputs, *self.params])}; {len(args)} "
                    "arguments were given"
                )
        unknown = [name for name in params if name not in self.params]
        if unknown:
            hint = "; PyTorch's dim= is axis= here" if unknown[0] in ("dim", "keepdim") else ""
            raise TypeError(
                f"{self.name} has no argument {unknown[0]!r}: it takes "
                f"{', '.join([*self.inputs, *self.params])}{hint}"
            )
        params = {**self.params, **params}
        missing = [name for name, value in params.items() if value is inspect.Parameter.empty]
        if missing:
            raise TypeError(f"{self.name} needs {', '.join(missing)}")
        return arrays, params

    def _rule(self, vjp: Vjp) -> Rule:
        """Return the vjp, the expression of what it saves, and the origin of each value."""
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
            elif name in self.params:
                picks.append(f"params[{name!r}]")
            elif name in _ORIGINS:
                picks.append(name)
            else:
                known = ", ".join([*self.inputs, *self.params, *_ORIGINS])
                raise TypeError(f"primitive {self.name}: a vjp names {name!r}; there are {known}")
            origins.append(self.inputs.index(name) if name in self.inputs else _ORIGINS.get(name))
        return vjp, "(" + "".join(pick + ", " for pick in picks) + ")", tuple(origins)

    def _saver(self) -> Callable[..., Any]:
        """Return the function that collects the values that the vjps name.

        It runs for every operation that is recorded, so it is one expression, without a loop over
        arguments and names.
        """
        if self.joint is not None:
            return eval(f"lambda edges, inputs, out, params: ({self.joint[1]},)")
        each = [
            "None" if r is None else f"None if edges[{i}] is None else {r[1]}"
            for i, r in enumerate(self.rules)
        ]
        return eval(f"lambda edges, inputs, out, params: ({', '.join(each)},)")

    def _puller(self) -> Callable[..., Any]:
        """Return the function that calls the vjp of each argument with saved values."""
        if self.joint is not None:
            return lambda F, g, saved: self.joint[0](F, g, *saved[0])  # type: ignore[index]
        each = [
            f"None if saved[{i}] is None else vjps[{i}](F, g, *saved[{i}])"
            for i in range(len(self.rules))
        ]
        vjps = [None if rule is None else rule[0] for rule in self.rules]
        return eval(f"lambda F, g, saved: ({', '.join(each)},)", {"vjps": vjps})


class Record(Node):
    """The node of a primitive: its row, and what the vjps name, argument by argument."""

    __slots__ = ("row", "saved", "versions")
    row: Row
    saved: Any  # a tuple for each argument (None: no gradient needed); None when it was let go
    versions: Sequence[list[int] | None]

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the operation."""
        return self.row.name

    def pull(self, grads: Gradient, live: set[Node] | None, retain: bool) -> Sequence[Gradient]:
        """Call the vjp of each argument that needs a gradient."""
        saved = self.saved
        if saved is None:
            raise GraphError(
                f"backward through {self.name} a second time: its saved values were freed by the "
                "first. If a recurrent state "
                "is carried from window to window, cut it with tinygrad_rnn.bptt.detach(state); "
                "to walk the same graph twice, pass retain_graph=True the first time"
            )
        if last_write[0] > self.order:
            self._check(saved)
        if not retain:
            self.saved = None
        F = _raw.get(grads.__class__) or namespace(grads)
        if F.records:
            rules = (self.row.joint,) if self.row.joint else self.row.rules
            saved = [
                None if values is None else self._tensors(values, rule, F)
                for rule, values in zip(rules, saved, strict=True)
            ]
        if live is not None and self.row.joint is None:
            saved = [
                values if parent is not None and parent[0] in live else None
                for values, parent in zip(saved, self.parents, strict=True)
            ]
        return self.row.pull(F, grads, saved)

    def pass_on(self, pending: Gradient) -> Gradient:
        """Hand the factors of a product on through a transposition, exchanged."""
        if (
            pending.__class__ is Product
            and self.row.name == "permute"
            and self.saved == (((1, 0),),)
        ):
            return pending.transposed()
        return None

    def _check(self, saved: Sequence[Any]) -> None:
        """Raise if a saved input was written to since: its last write is younger."""
        for version, readers in zip(self.versions, self.row.readers):  # noqa: B905 - a joint rule has one entry for all
            if (
                version is not None
                and version[0] > self.order
                and any(saved[i] is not None for i in readers)
            ):
                raise GraphError(
                    f"backward through {self.name}: a value that it saved was changed in place "
                    "after the forward pass. "
                    "Call backward before optimizer.step(), or run the forward pass again"
                )

    def _tensors(self, values: tuple[Any, ...], rule: Any, F: Any) -> list[Any]:
        """Give the saved arrays their places in the graph back, to record what is computed."""
        wrapped = []
        for value, origin in zip(values, rule[2], strict=True):
            if origin == _ALL:
                value = [F.wrap(x, edge) for x, edge in zip(value, self.parents, strict=True)]
            elif origin is not None and value.__class__ not in _SCALARS:
                value = F.wrap(value, (self, 0) if origin == _OUT else self.parents[origin])
            wrapped.append(value)
        return wrapped


# -- namespaces: the same names for arrays and for Tensors -----------------------------------------


class Raw:
    """The primitives on arrays of one library: ``F`` in the ordinary backward pass."""

    records = False
    in_place = True

    def __init__(self, module: Any) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        if name not in PRIMITIVES:
            raise AttributeError(f"there is no primitive {name!r}")
        forward = functools.partial(PRIMITIVES[name].row.forward, self.module)  # type: ignore[attr-defined]
        setattr(self, name, forward)
        return forward


class Recorded:
    """The primitives on Tensors: what ``F`` is under ``create_graph=True``."""

    records = True
    in_place = False

    def __getattr__(self, name: str) -> Any:
        if name not in PRIMITIVES:
            raise AttributeError(f"there is no primitive {name!r}")
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


# -- applying a primitive --------------------------------------------------------------------------

_new_node: Any = object.__new__
_Tensor: Any = None
_wrap: Any = None


def bind(tensor_class: type, wrap: Callable[..., Tensor]) -> None:
    """Tell the operations the class of their results; tensor.py, above, calls it once."""
    global _Tensor, _wrap
    _Tensor, _wrap = tensor_class, wrap


def _conform(row: Row, values: list[Any]) -> list[Any]:
    """Bring unlike arguments together: integers and Python scalars follow floats."""
    values = [x.item() if isinstance(x, np.generic) else x for x in values]
    values = [x if x.__class__ in _SCALARS else backend.asarray(x) for x in values]
    arguments = [i for i in range(len(values)) if row.joint is not None or row.rules[i] is not None]
    if all(values[i].__class__ in _SCALARS for i in arguments):
        values = [backend.asarray(x) for x in values]
    arrays = [x for x in values if x.__class__ not in _SCALARS]
    if len({backend.module_of(x) for x in arrays}) > 1:
        devices = ", ".join(backend.device_of(x) for x in arrays)
        raise DeviceError(
            f"{row.name}: operands on different devices ({devices}): move them together with "
            ".to(device)"
        )
    dtypes = [values[i].dtype for i in arguments if values[i].__class__ not in _SCALARS]
    floating = [dtype for dtype in dtypes if dtype.kind == "f"]
    if not floating and any(values[i].__class__ is float for i in arguments):
        floating = [backend.get_default_dtype()]
    for i in arguments:
        if floating and values[i].__class__ not in _SCALARS and values[i].dtype.kind != "f":
            values[i] = values[i].astype(floating[0])
    return values


def _to_floating(values: list[Any]) -> list[Any]:
    """Give integers the default floating dtype, if the result is floating anyway."""
    if any(
        x.__class__ is float or (x.__class__ not in _SCALARS and x.dtype.kind == "f")
        for x in values
    ):
        return values
    return [x if x.__class__ in _SCALARS else x.astype(backend.get_default_dtype()) for x in values]


def _record(
    row: Row, versions: Any, edges: tuple[Any, ...], values: Any, out: Array, params: Any
) -> Any:
    """Return the edge of a new node: what the vjps of the arguments in the graph name is saved."""
    node = _new_node(Record)
    node.order = next(clock)
    node.parents = edges
    node.outputs = ((out.shape, out.dtype),)
    node.row = row
    node.saved = row.save(edges, values, out, params)
    node.versions = versions
    return node, 0


def _explained(row: Row, values: Sequence[Any], error: ValueError) -> ValueError:
    """Return an error of the array library with the operation and the shapes that it was about."""
    if type(error).__module__ == ShapeError.__module__:
        return error
    shapes = " and ".join(str(getattr(x, "shape", x)) for x in values)
    return ShapeError(f"{row.name} of {shapes}: {error}")


def _apply(
    row: Row, floating: bool, view: bool, args: Sequence[Any], params: dict[str, Any]
) -> Tensor:
    """Apply a primitive to whatever it was given: the general way."""
    if len(params) != len(row.params) or len(args) != len(row.inputs):
        args, params = row.bind(args, params)
    values = [arg._data if isinstance(arg, _Tensor) else arg for arg in args]
    parents = tuple(arg._edge if isinstance(arg, _Tensor) else None for arg in args)
    first = values[0]
    if len(values) > 1 or first.__class__ not in backend.modules:
        values = _conform(row, values)
    if row.partial:
        parents = tuple(
            edge if rule is not None else None
            for edge, rule in zip(parents, row.rules, strict=True)
        )
    if floating:
        values = _to_floating(values)
    kind = next(x.__class__ for x in values if x.__class__ not in _SCALARS)
    try:
        out = row.forward(backend.modules[kind], *values, **params)
    except ValueError as error:
        raise _explained(row, values, error) from None
    if out.__class__ is not kind:  # NumPy returns a scalar where the operands are 0-d
        out = backend.asarray(out)
    edge = None
    if mode.recording and any(parent is not None for parent in parents):
        versions = (
            [arg._version if isinstance(arg, _Tensor) else None for arg in args]
            if row.reads
            else ()
        )
        edge = _record(row, versions, parents, values, out, params)
    return _wrap(out, edge, args[0]._version if view and isinstance(args[0], _Tensor) else None)


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
        In place of `vjps`: one vjp that returns the gradients of all arguments, for a forward that
        takes ``*inputs``. It may name ``inputs``, ``shapes`` (of all inputs) and keyword arguments.
    **vjps
        For each argument of the forward a function ``vjp(F, g, *names)``, or None if it has no
        gradient.

    Returns
    -------
    callable
        A decorator for ``forward(xp, *arrays, **params)``, where ``xp`` is the array library of the
        arguments.

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
        modules, reads = backend.modules, row.reads

        def general(*args: Any, **params: Any) -> Tensor:
            return _apply(row, floating, view, args, params)

        def binary(x: Any, y: Any) -> Tensor:
            """Go the short way: two Tensors of one kind, or a floating one and a Python number."""
            try:
                a = x._data
                b: Any = y._data if y.__class__ not in _SCALARS else y
                kind = a.__class__
                if b is y and a.dtype.kind == "f":
                    edge_y = None
                elif (
                    b.__class__ is kind
                    and a.dtype is b.dtype
                    and (not floating or a.dtype.kind == "f")
                ):
                    edge_y = y._edge
                else:
                    return _apply(row, floating, view, (x, y), {})
                edge_x = x._edge
            except AttributeError:
                return _apply(row, floating, view, (x, y), {})
            try:
                out = forward(modules[kind], a, b)
            except ValueError as error:
                raise _explained(row, (a, b), error) from None
            if out.__class__ is not kind:
                out = backend.asarray(out)
            if (edge_x is None and edge_y is None) or not mode.recording:
                return _wrap(out, None, None)
            versions = (x._version, None if b is y else y._version) if reads else ()
            return _wrap(out, _record(row, versions, (edge_x, edge_y), (a, b), out, None), None)

        def unary(x: Any, *rest: Any, **params: Any) -> Tensor:
            """Go the short way: one Tensor, and all parameters by name."""
            if rest or not isinstance(x, _Tensor) or params.keys() != row.params.keys():
                return _apply(row, floating, view, (x, *rest), params)
            a = x._data
            if floating and a.dtype.kind != "f":
                return _apply(row, floating, view, (x,), params)
            try:
                out = forward(modules[a.__class__], a, **params)
            except ValueError as error:
                raise _explained(row, (a,), error) from None
            if out.__class__ is not a.__class__:
                out = backend.asarray(out)
            version = x._version if view else None
            if x._edge is None or row.partial or not mode.recording:
                return _wrap(out, None, version)
            versions = (x._version,) if reads else ()
            return _wrap(out, _record(row, versions, (x._edge,), (a,), out, params), version)

        count = 0 if joint is not None else len(row.inputs)
        short = count == 2 and not row.params and not row.partial
        operation = functools.wraps(forward)(unary if count == 1 else binary if short else general)
        parameters = list(inspect.signature(forward).parameters.values())[1:]
        operation.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        operation.row = row  # type: ignore[attr-defined]
        if not getattr(PRIMITIVES.get(row.name), "__module__", "").startswith(
            __package__
        ):  # the engine's own stay
            PRIMITIVES[row.name] = operation
        return operation

    return decorate
