"""Code generation: the operation on Tensors that a primitive becomes, as Python source.

Every operation takes the same steps: it unpacks its arguments, computes the result and records a
node. A loop over the arguments would cost more than a small operation itself. So the steps are
written once, as a template, and unrolled for each primitive when that is defined.
``print(tinygrad_rnn.multiply.definition.source)`` shows the function that runs;
``tests/core/engine/golden/multiply.py`` has it with an explanation.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import linecache
import textwrap
import types
from collections.abc import Callable, Sequence
from typing import Any

from .._util import LIBRARY
from .._util.foreign_arrays import copy_aliased_output, copy_arrays
from .._util.functions import lines_text, parameter_names, tuple_text
from .._util.user_code import unobserved
from ..errors import GraphError
from . import backend, primitive_checks
from .backend import Array
from .grad_mode import paused, thread, watch_result, watching
from .graph import Node, last_write, tick
from .namespaces import Operation
from .pending import Gradient
from .promotion import failure, promote_operands, refuse_unknown
from .tensor import Tensor

Vjp = Callable[..., Gradient]
SECOND_TIME = (
    "If a recurrent state is carried, this window reaches the previous one through it: cut it with "
    "tinygrad_rnn.bptt.detach(state), or give the layer bptt=window.bptt of a window from "
    "strategy.windows. To walk the same graph twice, pass retain_graph=True the first time"
)
_SCOPE: dict[str, Any] = {  # the global names of the generated code
    "Tensor": Tensor,
    "failure": failure,
    "last_write": last_write,
    "modules": backend.modules,
    "new": object.__new__,
    "one_device": backend.one_device,
    "copy_arrays": functools.partial(copy_arrays, backend.modules),
    "paused": paused,
    "primitive_checks": primitive_checks,
    "promote_operands": promote_operands,
    "refuse_unknown": refuse_unknown,
    "thread": thread,
    "tick": tick,
    "watch_result": watch_result,
    "watching": watching,
}


class OpNode(Node):
    """The node of a primitive; each primitive has a subclass with its `definition` and `vjp`."""

    __slots__ = ("saved",)
    __init__ = object.__init__  # the generated code sets the attributes
    definition: OpDefinition
    saved: Any  # a tuple: the values that the vjps read, the versions of inputs; None once freed

    def check_and_wrap_saved(self, F: Any) -> tuple[Any, ...]:
        """Return the saved values, as Tensors with their nodes if ``F`` records.

        Raises GraphError if they were freed or changed in place.
        """
        origins = self.definition.origins
        check_saved(self, self.saved, (self.saved or ())[len(origins) :])
        if not F.records:
            return self.saved
        return tuple(
            value if origin is None or value is None else F.wrap(value, *origin(self))
            for value, origin in zip(self.saved, origins)  # noqa: B905 - without the versions
        )


def check_saved(node: Node, saved: Any, versions: Sequence[Any]) -> None:
    """Raise if the saved values of a node were freed, or changed in place after the forward."""
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


# -- the template ----------------------------------------------------------------------------------

OPERATION = """\
def {name}({signature}):
{unpack}
    # Compute the result.
    try:
        out = forward(xp, {arrays}{keywords})
    except (ValueError, TypeError, IndexError) as error:
        raise failure(definition, ({arguments}), {options}, error) from error
    if {needs_conversion}:  # NumPy returns scalars for 0-d operands
        out = {converted}
    result = new(Tensor)
    result._data = out
    result._version = {version}
    result._node = None
{record}
    if watching:  # a thread is inside detect_anomaly
        watch_result(definition, result, ({arguments}), {options})
    return result
"""

UNPACK = """\
    # Take the arrays; promote them if their classes or dtypes differ.
    try:
        {arrays} = {data}
        xp = {fast_path}
    except AttributeError:  # an argument is not a Tensor
        xp = None
    if not xp:
        xp, ({arguments}), ({inputs}) = promote_operands(definition, ({inputs}))
"""

UNPACK_ALL = """\
    # Take the arrays, promoted to one class and dtype.
    xp, arrays, inputs = promote_operands(definition, inputs)
"""

RECORD = """
    # Record a node if an argument requires a gradient.
    {nodes} = {argument_nodes}
    if {any_node} and (not paused or thread.recording):
        result._node = node = OpNode()
        node.order = tick()
        node.parents = {parents}
        node.shape = out.shape
        node.dtype = out.dtype
        node.saved = ({saved})
"""

VJP = """

def vjp(node, F, g, parents, retain):
    saved = node.saved
    if saved is None or F.records or last_write[0] > node.order:
        saved = node.check_and_wrap_saved(F)
    if not retain:
        node.saved = None
    return {gradients}
"""

REFUSE = """\
    if unknown:
        refuse_unknown(definition, unknown)

"""

# A view shares the version of its argument. None: a computed value is never written to.
VIEW_VERSION = "{0}._version and primitive_checks.version_of({0}, out, thread.recording)"

RESERVED = frozenset(  # the local names of the generated code
    "xp out result node error unknown arrays inputs nodes definition forward OpNode joint_vjp dict "
    "tuple any AttributeError ValueError TypeError IndexError".split()
)


# -- the definition of an operation ----------------------------------------------------------------


class OpDefinition:
    """The definition of one operation: its forward, and a vjp for each argument or a joint one.

    `saved_names` are the values that the vjps read, each saved once. `source` is the operation on
    Tensors and its backward, in Python.
    """

    def __init__(
        self,
        forward: Callable[..., Array],
        vjps: dict[str, Vjp | None],
        joint: Vjp | None,
        name: str | None = None,
    ) -> None:
        home = forward.__module__ if hasattr(forward, "__code__") else ""  # not that of a Tensor
        self.user_defined = not (home or "").startswith(f"{LIBRARY}.")
        if self.user_defined:  # tests check the library's own
            primitive_checks.name_of(forward, vjps, joint, RESERVED.union(_SCOPE))
        self.name, self.forward, self.joint = forward.__name__, forward, joint
        self.title = name or self.name  # in messages and reprs
        self.parameters = list(inspect.signature(forward).parameters.values())[1:]
        self.inputs = [p.name for p in self.parameters[: len(vjps)]]
        self.params = [p.name for p in self.parameters[len(vjps) or 1 :]]
        self.differentiable = [name for name, vjp in vjps.items() if vjp is not None]
        self.rules = [joint] if joint else [vjp for vjp in vjps.values() if vjp is not None]
        self.rule_names = [f"{x}_vjp" for x in self.differentiable] or ["joint_vjp"]
        self.reads = [parameter_names(vjp)[2:] for vjp in self.rules]
        self.saved_names = list(dict.fromkeys(name for names in self.reads for name in names))
        self.origins = [self._origin(name) for name in self.saved_names]
        self.floating = self.view = self.pending = False

    @property
    def retains_inputs(self) -> bool:
        """Whether the memory of an argument stays in use, by the result or by saved values."""
        return self.view or not {*self.inputs, "inputs"}.isdisjoint(self.saved_names)

    def _origin(self, name: str) -> Callable[[OpNode], Any] | None:
        """Return a function from an OpNode to the node and the version of a saved value.

        None for values other than arrays.
        """
        first = len(self.saved_names)  # the index of the first version
        saved_inputs = [x for x in self.saved_names if x in self.inputs]
        if name in saved_inputs:
            version = first + saved_inputs.index(name)
            if name not in self.differentiable:
                return lambda node: (None, node.saved[version])
            parent = self.differentiable.index(name)
            return lambda node: (node.parents[parent], node.saved[version])
        if name == "inputs":
            return lambda node: (node.parents, node.saved[first:])
        return (lambda node: (node, None)) if name == "out" else None

    def _gradients(self) -> str:
        """Return the expression of the gradients: a call of each vjp with the values it reads."""
        calls = []
        for rule, names in zip(self.rule_names, self.reads, strict=False):
            saved = "".join(f", saved[{self.saved_names.index(name)}]" for name in names)
            calls.append(f"{rule}(F, g{saved})")
        if len(calls) > 1:  # a single parent always needs its gradient
            calls = [f"None if parents[{i}] is None else {call}" for i, call in enumerate(calls)]
        grads = calls[0] if self.joint else f"({lines_text(calls, 8)})"
        if not self.user_defined:
            return grads
        return f"primitive_checks.gradients(definition, {grads}, parents, F)"

    def _value(self, name: str) -> str:
        """Return the expression of a value that a vjp reads."""
        form = "copy_arrays({})" if self.user_defined else "{}"
        known = {"out": "out", **{param: form.format(param) for param in self.params}}
        for x in self.inputs:
            known.update({x: f"{x}_data", f"{x}_shape": f"{x}_data.shape"})
        if self.joint:
            known.update(inputs="arrays", shapes="tuple([x.shape for x in arrays])")
        if name not in known:
            raise TypeError(
                f"primitive {self.name}: a vjp names {name!r}; there are {', '.join(known)}"
            )
        return known[name]

    def _saved(self) -> list[str]:
        """Return the expressions of the saved values, then of the versions of saved inputs."""
        values, versions = [], []
        for name in self.saved_names:
            pairs = zip(self.differentiable, self.reads, strict=False)
            readers = [f"{x}_node" for x, names in pairs if name in names]
            always = name in self.params or len(readers) == len(self.differentiable)
            condition = "" if always else f" if {' or '.join(readers)} else None"
            values.append(self._value(name) + condition)
            if name in self.inputs:
                versions.append(f"{name}._version{condition}")
            if name == "inputs":
                versions.append("*[x._version for x in inputs]")
        return values + versions

    @property
    def source(self) -> str:
        """The code of the operation on Tensors: the templates, filled in for this primitive."""
        needs_conversion, converted = "out.__class__ not in modules", "xp.asarray(out)"
        if self.user_defined:
            needs_conversion += " or out.dtype.kind not in 'fiub'"
            converted = "primitive_checks.one_array(definition.title, xp, out)"
        signature = [*map(_parameter, self.parameters), *["**unknown"] * bool(self.params)]
        holes = {
            "name": self.name,
            "signature": ", ".join(signature),
            "keywords": "".join(f", {name}={name}" for name in self.params),
            "options": "{" + ", ".join(f'"{name}": {name}' for name in self.params) + "}",
            "version": VIEW_VERSION.format(*self.inputs) if self.view else "None",
            "saved": lines_text(self._saved(), 12),
            "gradients": self._gradients(),
            "needs_conversion": needs_conversion,
            "converted": converted,
            **(self._variadic() if self.joint else self._positional()),
        }
        holes["unpack"] = REFUSE * bool(self.params) + holes["unpack"].format(**holes)
        holes["record"] = RECORD.format(**holes) if self.rules else ""
        return OPERATION.format(**holes) + (VJP.format(**holes) if self.rules else "")

    def _variadic(self) -> dict[str, str]:
        """Return the expressions of an operation on ``*inputs``."""
        return {
            "unpack": UNPACK_ALL,
            "arrays": "*arrays",
            "arguments": "*arrays,",
            "nodes": "nodes",
            "argument_nodes": "tuple([x._node for x in inputs])",
            "any_node": "any(nodes)",
            "parents": "nodes",
        }

    def _positional(self) -> dict[str, str]:
        """Return the expressions of an operation on a fixed number of inputs."""
        arrays = [f"{x}_data" for x in self.inputs]
        nodes = [f"{x}_node" for x in self.differentiable]
        leading = [f"{x}_data" for x in self.differentiable] or arrays  # they decide on the dtype
        conditions = [f"{a}.__class__ is {b}.__class__" for a, b in itertools.pairwise(arrays)]
        conditions += [f"{a}.dtype is {b}.dtype" for a, b in itertools.pairwise(leading)]
        conditions += [f'{leading[0]}.dtype.kind == "f"'] * self.floating
        conditions.append(f"one_device.get({leading[0]}.__class__)")
        fast_path = textwrap.indent("\nand ".join(conditions), " " * 12)
        return {
            "unpack": UNPACK,
            "data": ", ".join(f"{x}._data" for x in self.inputs),
            "inputs": tuple_text(self.inputs),
            "fast_path": f"(\n{fast_path}\n        )" if conditions[1:] else conditions[0],
            "arrays": ", ".join(arrays),
            "arguments": tuple_text(arrays),
            "nodes": ", ".join(nodes),
            "argument_nodes": ", ".join(f"{x}._node" for x in self.differentiable),
            "any_node": f"({' or '.join(nodes)})" if nodes[1:] else "".join(nodes),
            "parents": f"({tuple_text(nodes)})",
        }

    def operation(self) -> Operation:
        """Return the operation on Tensors. Its code is made at its first call, a user's at once."""
        isolated = self.user_defined and not self.view  # its result shares no memory
        attributes = {"definition": self, "name": self.title, "takes_deferred": self.pending}
        self.scope = {
            **_SCOPE,
            "definition": self,
            "forward": copy_aliased_output(self.forward) if isolated else self.forward,
            "defaults": {p.name: p.default for p in self.parameters},
            "OpNode": type("OpNode", (OpNode,), {"__slots__": (), **attributes}),
            **dict(zip(self.rule_names, self.rules, strict=False)),
        }
        operation: Any = types.FunctionType(_first_call.__code__, self.scope)
        self.scope["operation"] = functools.update_wrapper(operation, self.forward)
        operation.__signature__ = inspect.Signature(self.parameters)
        operation.definition = self
        if self.user_defined:
            self.compile()
        return operation

    @unobserved
    def compile(self) -> None:
        """Give the operation its code, which another thread may call at any time."""
        code, file, operation = self.source, f"<primitive {self.name}>", self.scope["operation"]
        linecache.cache[file] = len(code), None, code.splitlines(True), file  # for tracebacks
        made: dict[str, Any] = {}  # a namespace of its own: no name of the scope is replaced
        exec(compile(code, file, "exec"), self.scope, made)
        self.scope["OpNode"].vjp = self.scope["vjp"] = made.get("vjp")
        operation.__defaults__ = made[self.name].__defaults__
        operation.__kwdefaults__ = made[self.name].__kwdefaults__
        operation.__code__ = made[self.name].__code__  # last


def _first_call(*args: Any, **options: Any) -> Any:
    """Compile an operation, and call it. An operation begins with this code, in its own scope."""
    definition.compile()  # type: ignore[name-defined]  # noqa: F821
    return operation(*args, **options)  # type: ignore[name-defined]  # noqa: F821


def _parameter(parameter: inspect.Parameter) -> str:
    """Return a parameter as source code."""
    if parameter.kind is parameter.VAR_POSITIONAL:
        return "*inputs"
    default = parameter.default is not parameter.empty
    return parameter.name + (f"=defaults[{parameter.name!r}]" if default else "")
