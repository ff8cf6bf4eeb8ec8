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

What a call does is the same for every primitive, but a loop over arguments would cost more than a
small operation itself. So it is written once, as a template, and unrolled for each primitive when
that is defined: ``print(tinygrad_rnn.tanh.row.source)`` shows the function that runs.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import linecache
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import contract
from ..errors import DeviceError, GraphError, ShapeError
from ..foreign import apart, owned
from ..spelling import PUBLIC_NAMES, begin, begun, explained, reworded, unknown_argument
from . import backend
from .backend import SCALARS, Array
from .graph import Gradient, Node, last_write, paused, thread, tick

Vjp = Callable[..., Gradient]
Operation = Callable[..., Any]
PRIMITIVES: dict[str, Operation] = {}
_LIBRARY = f"{__package__.partition('.')[0]}."
SECOND_TIME = (
    "If a recurrent state is carried, this window reaches the previous one through it: cut it with "
    "tinygrad_rnn.bptt.detach(state), or give the layer bptt=window.bptt of a window from "
    "strategy.windows. To walk the same graph twice, pass retain_graph=True the first time"
)


# -- the nodes of primitives -----------------------------------------------------------------------


class Record(Node):
    """The node of a primitive: the values that its vjps name, then the inputs' versions."""

    __slots__ = ("saved",)
    row: Row  # each primitive has a subclass of its own, with its row and its `pull`
    saved: Any  # a tuple: None in place of what nobody reads; all None when let go

    def checked(self, F: Any) -> tuple[Any, ...]:
        """Return what was saved, with its places in the graph if ``F`` records; or raise."""
        intact(self, self.saved, (self.saved or ())[len(self.row.names) :])
        if not F.records:
            return self.saved
        return tuple(
            value if place is None or value is None else F.wrap(value, *place(self))
            for value, place in zip(self.saved, self.row.places)  # noqa: B905 - without the versions
        )


def intact(node: Node, saved: Any, versions: Sequence[Any]) -> None:
    """Raise if what a node saved was freed, or written to after it was made."""
    if saved is None:
        raise GraphError(
            f"backward through {node.name} a second time: its saved values were freed by the "
            f"first. {SECOND_TIME}"
        )
    if any(version and version[0] > node.order for version in versions):
        raise GraphError(
            f"backward through {node.name}: a value that it saved was changed in place after "
            "the forward pass. Call backward before optimizer.step(), or run the forward pass "
            "again"
        )


# -- the row of a primitive, and the function that it becomes --------------------------------------

CALL = """\
def {name}{signature}:
{bring}
    try:
        out = forward(xp, {arrays}{params})
    except (ValueError, TypeError, IndexError) as error:
        raise failure(row, ({arrays},), dict({given}), error) from error
    if {odd}:  # NumPy returns a scalar where the operands are 0-d
        out = {array}
    result = new(Tensor)
    result._data = out
    result._version = {version}
    {nodes} = {found}
    if ({needed}) and (not paused or thread.recording):
        result._node = node = new(Record)
        node.order = tick()
        node.parents = {parents}
        node.shape = out.shape
        node.dtype = out.dtype
        node.saved = ({saved}{versions})
    else:
        result._node = None
    return result


def pull(node, F, g, parents, retain):
    saved = node.saved
    if saved is None or F.records or last_write[0] > node.order:
        saved = node.checked(F)
    if not retain:
        node.saved = None
    return {grads}
"""

BRING = """\
    try:
        {arrays} = {data}
        alike = {alike}
    except AttributeError:  # a number, a list, an array
        alike = False
    if alike:
        xp = modules[{first}.__class__]
    else:
        xp, ({arrays},), ({inputs},) = conform(row, ({inputs},))"""

BRING_ALL = "    xp, arrays, inputs = conform(row, inputs)"
VIEW = "{0}._version and contract.version_of({0}, out, thread.recording)"  # None for computed ones
REFUSE = "    if unknown: refuse(row, unknown)\n"
TAKEN = frozenset(  # names that are no arguments
    "xp out result node error alike unknown arrays inputs nodes row forward Record dict tuple any "
    "AttributeError ValueError TypeError IndexError".split()
)


class Row:
    """One row of the table: the forward, and each argument's vjp or a joint one.

    `names` are the values that the vjps read, each saved once; `source` is the
    operation on Tensors and its backward pass, in Python.
    """

    def __init__(
        self, forward: Callable[..., Array], vjps: dict[str, Vjp | None], joint: Vjp | None
    ) -> None:
        self.name = contract.name_of(forward, vjps, joint, TAKEN.union(_scope))
        self.forward, self.joint = forward, joint
        self.own = not (forward.__module__ or "").startswith(_LIBRARY)  # a primitive of the user
        self.title = PUBLIC_NAMES.get(self.name, self.name)  # in messages
        self.parameters = list(inspect.signature(forward).parameters.values())[1:]
        self.inputs = [p.name for p in self.parameters[: len(vjps)]]
        self.params = [p.name for p in self.parameters[len(vjps) or 1 :]]
        self.ruled = [name for name, vjp in vjps.items() if vjp is not None]
        self.rules = [joint] if joint else [vjp for vjp in vjps.values() if vjp is not None]
        self.reads = [list(inspect.signature(vjp).parameters)[2:] for vjp in self.rules]
        self.names = list(dict.fromkeys(name for names in self.reads for name in names))
        self.places = [self._place(name) for name in self.names]
        self.floating = self.view = self.pending = False

    @property
    def keeps(self) -> bool:
        """Whether an argument's memory lives on, in the result or in what is saved."""
        return self.view or not {*self.inputs, "inputs"}.isdisjoint(self.names)

    def _place(self, name: str) -> Callable[[Record], Any] | None:
        """Return what finds the node and the version of a saved value; None if it is no array."""
        first, saved = len(self.names), [x for x in self.names if x in self.inputs]
        if name in saved:
            version = first + saved.index(name)
            number = self.ruled.index(name) if name in self.ruled else slice(0)  # of no parent
            return lambda node: (node.parents[number] or None, node.saved[version])
        if name == "inputs":
            return lambda node: (node.parents, node.saved[first:])
        return (lambda node: (node, None)) if name == "out" else None

    def _grads(self) -> str:
        """Return the expression of the gradients: each parent's vjp, called with what it reads."""
        calls = []
        for i, names in enumerate(self.reads):
            saved = "".join(f", saved[{self.names.index(name)}]" for name in names)
            calls.append(f"vjps[{i}](F, g{saved})")
        each = [f"None if parents[{i}] is None else {call}, " for i, call in enumerate(calls)]
        grads = calls[0] if self.joint else f"({''.join(each)})"
        return f"contract.gradients(row, {grads}, parents, F)" if self.own else grads

    def _value(self, name: str) -> str:
        """Return the expression of a value that a vjp names."""
        form = "owned({})" if self.own else "{}"
        known = {"out": "out", **{param: form.format(param) for param in self.params}}
        for x in self.inputs:
            known.update({x: f"{x}_", f"{x}_shape": f"{x}_.shape"})
        if self.joint:
            known.update(inputs="arrays", shapes="tuple([x.shape for x in arrays])")
        if name not in known:
            raise TypeError(
                f"primitive {self.name}: a vjp names {name!r}; there are {', '.join(known)}"
            )
        return known[name]

    @property
    def source(self) -> str:
        """The code of the operation on Tensors: the template, filled in for this primitive."""
        arrays, nodes = [f"{x}_" for x in self.inputs], [f"{x}_node" for x in self.ruled]
        ruled = [f"{x}_" for x in self.ruled] or arrays
        alike = [f"{a}.__class__ is {b}.__class__" for a, b in itertools.pairwise(arrays)]
        alike += [f"{a}.dtype is {b}.dtype" for a, b in itertools.pairwise(ruled)]
        alike += [f"{ruled[0]}.dtype.kind == 'f'"] if self.floating and ruled else []
        saved, versions = "", ""
        for name in self.names:
            readers = [
                node for node, names in zip(nodes, self.reads, strict=False) if name in names
            ]
            needed = f" if {' or '.join(readers)} else None" if len(readers) < len(nodes) else ""
            saved += f"{self._value(name)}{'' if name in self.params else needed}, "
            versions += f"{name}._version{needed}, " if name in self.inputs else ""
            versions += "*[x._version for x in inputs], " if name == "inputs" else ""
        unknown = "**unknown" if self.params else ""
        holes = {
            "name": self.name,
            "signature": f"({', '.join(filter(None, [*map(_plain, self.parameters), unknown]))})",
            "params": "".join(f", {name}={name}" for name in self.params),
            "given": ", ".join(f"{name}={name}" for name in self.params),
            "version": VIEW.format(*self.inputs) if self.view else "None",
            "saved": saved,
            "versions": versions,
            "grads": self._grads(),
            "arrays": ", ".join(arrays) or "*arrays",
            "nodes": ", ".join(nodes) or "nodes",
            "found": ", ".join(f"{x}._node" for x in self.ruled) or "()",
            "needed": " or ".join(nodes) or "any(nodes)",
            "parents": f"({', '.join(nodes)},)" if nodes else "nodes",
            "data": ", ".join(f"{x}._data" for x in self.inputs),
            "inputs": ", ".join(self.inputs),
            "alike": " and ".join(alike) or "True",
            "first": ruled[0] if ruled else "",
            "odd": "out.__class__ not in modules" + " or out.dtype.kind not in 'fiub'" * self.own,
            "array": "contract.one_array(row.name, xp, out)" if self.own else "xp.asarray(out)",
        }
        if self.joint:
            holes["found"] = "tuple([x._node for x in inputs])"
        bring = BRING_ALL if self.joint else BRING.format(**holes)
        return CALL.format(bring=(REFUSE if unknown else "") + bring, **holes)

    def operation(self) -> Operation:
        """Return the operation on Tensors, made of its source."""
        code, file = self.source, f"<primitive {self.name}>"
        linecache.cache[file] = len(code), None, code.splitlines(True), file  # for tracebacks
        defaults = {p.name: p.default for p in self.parameters}
        forward = apart(self.forward) if self.own and not self.view else self.forward
        scope = {**_scope, "row": self, "forward": forward, "defaults": defaults}
        own = {"__slots__": (), "row": self, "name": self.title, "passes": self.pending}
        scope["Record"] = node = type("Record", (Record,), own)
        scope["vjps"] = self.rules
        exec(compile(code, file, "exec"), scope, made := dict[str, Any]())  # replaces no name there
        node.pull = scope["pull"] = made["pull"]  # type: ignore[attr-defined]
        operation: Any = functools.wraps(self.forward)(made[self.name])
        operation.__signature__ = inspect.Signature(self.parameters)
        operation.row = self
        return operation


def _plain(parameter: inspect.Parameter) -> str:
    """Return a parameter as it stands in the source of an operation."""
    if parameter.kind is parameter.VAR_POSITIONAL:
        return "*inputs"
    default = parameter.default is not parameter.empty
    return parameter.name + (f"=defaults[{parameter.name!r}]" if default else "")


# -- what an operation calls -----------------------------------------------------------------------


_LISTS = frozenset((list, tuple))


class _Constant:
    """What stands for an argument that is no Tensor: it has no place in the graph."""

    _node = _version = None


def conform(row: Row, args: Sequence[Any]) -> tuple[Any, list[Any], list[Any]]:
    """Bring unlike arguments together: integers and Python scalars follow floats.

    Returns the array library, the arrays (and Python scalars), and what they came from.
    """
    Tensor = _scope["Tensor"]
    if not _LISTS.isdisjoint(map(type, args)):
        args = [Tensor._stacked(x) for x in args]  # those of Tensors: each has its place
    sources = [x if isinstance(x, Tensor) else _Constant for x in args]
    values = [x._data if isinstance(x, Tensor) else _foreign(x, row) for x in args]
    xp, values = backend.together(values, row.title)
    ruled = [i for i, name in enumerate(row.inputs) if name in row.ruled] or range(len(values))
    if row.joint or all(values[i].__class__ in SCALARS for i in ruled):
        values = [xp.asarray(backend.asarray(x)) if x.__class__ in SCALARS else x for x in values]
    dtypes = [values[i].dtype for i in ruled if values[i].__class__ not in SCALARS]
    floating = next((dtype for dtype in dtypes if dtype.kind == "f"), None)
    if row.floating or any(values[i].__class__ is float for i in ruled):
        floating = floating or backend.get_default_dtype()
    for i in ruled:
        if floating and values[i].__class__ not in SCALARS and values[i].dtype.kind != "f":
            values[i] = values[i].astype(floating)
    return xp, values, sources


def _foreign(x: Any, row: Row) -> Any:
    """Return what is no Tensor as a Python scalar or an array (a copy, if it is kept)."""
    x = x.item() if isinstance(x, np.generic) else x
    if x.__class__ in SCALARS:
        return x
    array = begun(row.title, backend.asarray, x)
    return backend.copy(array) if row.keeps and backend.is_array(x) else array


def failure(row: Row, values: Sequence[Any], given: dict[str, Any], error: Any) -> Exception:
    """Return an error of the array library with the operation and what it was given."""
    if type(error).__module__ == ShapeError.__module__:
        return begin(error, row.title)
    misplaced = backend.misplaced(values)
    if misplaced:
        return DeviceError(f"{row.title}: {misplaced}")
    shapes = " and ".join(str(getattr(x, "shape", x)) for x in values)
    options = ", ".join(f"{k}={v!r:.60}" for k, v in given.items() if v is not None)
    ours, text = reworded(error)
    message = f"{row.title} of {shapes}{' with ' * bool(options)}{options}: {text}"
    return ours(message)


def refuse(row: Row, unknown: dict[str, Any]) -> None:
    """Raise for keyword arguments that the operation has not."""
    raise TypeError(unknown_argument(row.title, next(iter(unknown)), [*row.inputs, *row.params]))


_scope: dict[str, Any] = {
    "Tensor": None,
    "conform": conform,
    "contract": contract,
    "failure": failure,
    "last_write": last_write,
    "modules": backend.modules,
    "new": object.__new__,
    "owned": functools.partial(owned, backend.modules),
    "paused": paused,
    "refuse": refuse,
    "thread": thread,
    "tick": tick,
}


def bind(tensor_class: type) -> None:
    """Tell the operations the class of their results, which is defined above them, once."""
    _scope["Tensor"] = tensor_class
    for operation in PRIMITIVES.values():
        operation.__globals__["Tensor"] = tensor_class


def make(data: Array, node: Node | None, version: list[int] | None) -> Any:
    """Return the Tensor of an array."""
    tensor = object.__new__(_scope["Tensor"])
    tensor._data, tensor._node, tensor._version = data, node, version
    return tensor


# -- namespaces: the same names for arrays and for Tensors -----------------------------------------


class Raw:
    """The primitives on arrays of one library: ``F`` in the ordinary backward pass."""

    records = False
    in_place = True

    def __init__(self, module: Any) -> None:
        self.module = module

    def empty(self, shape: tuple[int, ...], part: Array) -> Array:
        """Return an array to be filled with parts like this one."""
        return backend.empty_like_parts(shape, part)

    def __getattr__(self, name: str) -> Any:
        forward = functools.partial(_known(name).row.forward, self.module)
        setattr(self, name, forward)
        return forward


class Recorded:
    """The primitives on Tensors: what ``F`` is under ``create_graph=True``."""

    records = True
    in_place = False

    def __getattr__(self, name: str) -> Any:
        operation, numbers = _known(name), getattr(namespaces[np.ndarray], name)

        def on(*args: Any, **params: Any) -> Any:  # of numbers a number: no dtype would be right
            alone = all(x.__class__ in SCALARS for x in args)
            return numbers(*args, **params).item() if alone else operation(*args, **params)

        setattr(self, name, on)
        return on

    def wrap(self, value: Any, node: Any, version: Any) -> Any:
        """Return saved arrays as Tensors at their places in the graph; a scalar stays."""
        if isinstance(value, tuple | list):
            return [self.wrap(*saved) for saved in zip(value, node, version, strict=True)]
        return value if value.__class__ in SCALARS else make(value, node, version)


def _known(name: str) -> Any:
    if name not in PRIMITIVES:
        raise AttributeError(f"there is no primitive {name!r}")
    return PRIMITIVES[name]


class _Namespaces(dict[type, Any]):
    """``F`` for each kind of gradient: Tensors, and the arrays of each library."""

    def __missing__(self, kind: type) -> Any:
        F = Recorded() if issubclass(kind, _scope["Tensor"]) else Raw(backend.modules.get(kind, np))
        self[kind] = F
        return F


namespaces = _Namespaces()


# -- defining a primitive --------------------------------------------------------------------------


@explained
def primitive(
    *,
    floating: bool = False,
    view: bool = False,
    pending: bool = False,
    joint: Vjp | None = None,
    **vjps: Vjp | None,
) -> Callable[[Callable[..., Array]], Operation]:
    """Make an operation on Tensors from a forward on arrays and a vjp for each of its arguments.

    Parameters
    ----------
    floating
        Whether integer arguments become floating ones first (exp, divide …).
    view
        Whether the result may share the memory of the first argument. Otherwise a result of the
        user's that does is copied.
    pending
        Whether the vjp takes a `Product` that is not multiplied yet.
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

    Raises
    ------
    TypeError
        If the forward has no name (a lambda, a partial), or the vjps do not fit its arguments.
    DTypeError
        At a call: if the forward returns something else than one array of real numbers.
    GraphError
        Backward: if a vjp returns neither None nor a gradient of the shape of its argument.

    Notes
    -----
    Arrays among the keyword arguments that a vjp names (also in tuples, lists and dicts) are
    copied, since they may be filled anew before the backward pass. What a forward or a vjp reads
    from elsewhere, such as a global array, is not.

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

    Its derivatives are proved by ``tg.gradcheck``; over shapes and values that hypothesis draws:

    >>> from hypothesis import given
    >>> @given(tg.testing.arrays())
    ... def test_cube(x):
    ...     tg.gradcheck(cube, x)
    >>> test_cube()
    """

    def decorate(forward: Callable[..., Array]) -> Operation:
        row = Row(forward, vjps, joint)
        row.floating, row.view, row.pending = floating, view, pending
        operation = row.operation()
        held: Any = PRIMITIVES.get(row.name)
        if held is None or held.row.own:
            PRIMITIVES[row.name] = operation  # the library's stay what they are
        return operation

    return decorate
