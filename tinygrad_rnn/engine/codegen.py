"""Code generation: the operation on Tensors that a primitive becomes, written out as Python.

A call does the same for every primitive, but a loop over arguments would cost more than a small
operation itself. So the steps are written once, as a template, and unrolled for each primitive when
that is defined: ``print(tinygrad_rnn.tanh.definition.source)`` shows the function that runs.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import linecache
from collections.abc import Callable, Sequence
from typing import Any

from .._util import LIBRARY
from .._util.foreign_arrays import apart, owned
from ..errors import GraphError
from . import backend, primitive_checks
from .backend import Array
from .grad_mode import paused, thread
from .graph import Node, last_write, tick
from .namespaces import Operation
from .operands import failure, promote_operands, refuse
from .pending import Gradient
from .tensor import Tensor

Vjp = Callable[..., Gradient]
SECOND_TIME = (
    "If a recurrent state is carried, this window reaches the previous one through it: cut it with "
    "tinygrad_rnn.bptt.detach(state), or give the layer bptt=window.bptt of a window from "
    "strategy.windows. To walk the same graph twice, pass retain_graph=True the first time"
)
_SCOPE: dict[str, Any] = {  # the names that the generated code uses
    "Tensor": Tensor,
    "promote_operands": promote_operands,
    "failure": failure,
    "last_write": last_write,
    "modules": backend.modules,
    "new": object.__new__,
    "owned": functools.partial(owned, backend.modules),
    "paused": paused,
    "primitive_checks": primitive_checks,
    "refuse": refuse,
    "thread": thread,
    "tick": tick,
}


class OpNode(Node):
    """The node of a primitive: the values that its vjps name, then the inputs' versions."""

    __slots__ = ("saved",)
    definition: (
        OpDefinition  # each primitive has a subclass of its own, with its definition and its `vjp`
    )
    saved: Any  # a tuple: None in place of what nobody reads; all None when let go

    def checked(self, F: Any) -> tuple[Any, ...]:
        """Return what was saved, with its places in the graph if ``F`` records; or raise."""
        check_saved(self, self.saved, (self.saved or ())[len(self.definition.names) :])
        if not F.records:
            return self.saved
        return tuple(
            value if place is None or value is None else F.wrap(value, *place(self))
            for value, place in zip(self.saved, self.definition.places)  # noqa: B905 - without the versions
        )


def check_saved(node: Node, saved: Any, versions: Sequence[Any]) -> None:
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


CALL = """\
def {name}{signature}:
{bring}
    try:
        out = forward(xp, {arrays}{params})
    except (ValueError, TypeError, IndexError) as error:
        raise failure(definition, ({arrays},), dict({given}), error) from error
    if {odd}:  # NumPy returns a scalar where the operands are 0-d
        out = {array}
    result = new(Tensor)
    result._data = out
    result._version = {version}
    {nodes} = {found}
    if ({needed}) and (not paused or thread.recording):
        result._node = node = new(OpNode)
        node.order = tick()
        node.parents = {parents}
        node.shape = out.shape
        node.dtype = out.dtype
        node.saved = ({saved}{versions})
    else:
        result._node = None
    return result


def vjp(node, F, g, parents, retain):
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
        xp, ({arrays},), ({inputs},) = promote_operands(definition, ({inputs},))"""

BRING_ALL = "    xp, arrays, inputs = promote_operands(definition, inputs)"
# None: computed, so never written to.
VIEW = "{0}._version and primitive_checks.version_of({0}, out, thread.recording)"
REFUSE = "    if unknown: refuse(definition, unknown)\n"
TAKEN = frozenset(  # names that are no arguments
    "xp out result node error alike unknown arrays inputs nodes definition forward OpNode dict "
    "tuple any AttributeError ValueError TypeError IndexError".split()
)


class OpDefinition:
    """One row of the table: the forward, and each argument's vjp or a joint one.

    `names` are the values that the vjps read, each saved once; `source` is the
    operation on Tensors and its backward pass, in Python.
    """

    def __init__(
        self,
        forward: Callable[..., Array],
        vjps: dict[str, Vjp | None],
        joint: Vjp | None,
        name: str | None = None,
    ) -> None:
        self.name = primitive_checks.name_of(forward, vjps, joint, TAKEN.union(_SCOPE))
        self.forward, self.joint = forward, joint
        self.own = not (forward.__module__ or "").startswith(
            f"{LIBRARY}."
        )  # a primitive of the user
        self.title = name or self.name  # in messages and reprs
        self.parameters = list(inspect.signature(forward).parameters.values())[1:]
        self.inputs = [p.name for p in self.parameters[: len(vjps)]]
        self.params = [p.name for p in self.parameters[len(vjps) or 1 :]]
        self.differentiable = [name for name, vjp in vjps.items() if vjp is not None]
        self.rules = [joint] if joint else [vjp for vjp in vjps.values() if vjp is not None]
        self.reads = [list(inspect.signature(vjp).parameters)[2:] for vjp in self.rules]
        self.names = list(dict.fromkeys(name for names in self.reads for name in names))
        self.places = [self._place(name) for name in self.names]
        self.floating = self.view = self.pending = False

    @property
    def keeps(self) -> bool:
        """Whether an argument's memory lives on, in the result or in what is saved."""
        return self.view or not {*self.inputs, "inputs"}.isdisjoint(self.names)

    def _place(self, name: str) -> Callable[[OpNode], Any] | None:
        """Return what finds the node and the version of a saved value; None if it is no array."""
        first, saved = len(self.names), [x for x in self.names if x in self.inputs]
        if name in saved:
            version = first + saved.index(name)
            number = (
                self.differentiable.index(name) if name in self.differentiable else slice(0)
            )  # of no parent
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
        return f"primitive_checks.gradients(definition, {grads}, parents, F)" if self.own else grads

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
        arrays, nodes = [f"{x}_" for x in self.inputs], [f"{x}_node" for x in self.differentiable]
        differentiable = [f"{x}_" for x in self.differentiable] or arrays
        alike = [f"{a}.__class__ is {b}.__class__" for a, b in itertools.pairwise(arrays)]
        alike += [f"{a}.dtype is {b}.dtype" for a, b in itertools.pairwise(differentiable)]
        alike += (
            [f"{differentiable[0]}.dtype.kind == 'f'"] if self.floating and differentiable else []
        )
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
            "found": ", ".join(f"{x}._node" for x in self.differentiable) or "()",
            "needed": " or ".join(nodes) or "any(nodes)",
            "parents": f"({', '.join(nodes)},)" if nodes else "nodes",
            "data": ", ".join(f"{x}._data" for x in self.inputs),
            "inputs": ", ".join(self.inputs),
            "alike": " and ".join(alike) or "True",
            "first": differentiable[0] if differentiable else "",
            "odd": "out.__class__ not in modules" + " or out.dtype.kind not in 'fiub'" * self.own,
            "array": "primitive_checks.one_array(definition.title, xp, out)"
            if self.own
            else "xp.asarray(out)",
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
        scope = {**_SCOPE, "definition": self, "forward": forward, "defaults": defaults}
        own = {"__slots__": (), "definition": self, "name": self.title, "passes": self.pending}
        scope["OpNode"] = node = type("OpNode", (OpNode,), own)
        scope["vjps"] = self.rules
        exec(compile(code, file, "exec"), scope, made := dict[str, Any]())  # replaces no name there
        node.vjp = scope["vjp"] = made["vjp"]  # type: ignore[attr-defined]
        operation: Any = functools.wraps(self.forward)(made[self.name])
        operation.__signature__ = inspect.Signature(self.parameters)
        operation.definition = self
        return operation


def _plain(parameter: inspect.Parameter) -> str:
    """Return a parameter as it stands in the source of an operation."""
    if parameter.kind is parameter.VAR_POSITIONAL:
        return "*inputs"
    default = parameter.default is not parameter.empty
    return parameter.name + (f"=defaults[{parameter.name!r}]" if default else "")
