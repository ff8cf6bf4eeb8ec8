"""Modules: networks as plain Python objects with parameters, buffers and submodules.

Parameters and submodules are found by inspecting the attributes of a module (and lists, tuples and
dicts in them) at each call, in the order of assignment. No registry exists in addition to the
attributes, so none can disagree with them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np

from .._util.api_hints import class_name, explain_errors, hint
from .._util.contexts import ReusableContext, reusable_context
from .._util.foreign_arrays import refuse_lossy_conversion
from .._util.state_keys import key_problems, raise_problems
from ..engine import backend
from ..engine.backend import Array
from ..engine.tensor import Tensor
from ..errors import ArgumentError, DTypeError, GraphError
from ..tensors.creation import tensor
from ..tensors.dlpack import from_dlpack

T = TypeVar("T")

_OTHER_NAMES = {  # attributes in PyTorch and Keras, and their equivalents here
    "add_module": "module.name = part",
    "apply": "for m in module.modules(): ...",
    "bfloat16": 'to("float16")',
    "children": "modules()",
    "compile": "tinygrad_rnn.fuse(function), for an elementwise function",
    "cpu": 'to("cpu")',
    "cuda": 'to("cuda")',
    "device": "next(module.parameters()).device",
    "double": 'to("float64")',
    "dtype": "next(module.parameters()).dtype",
    "flatten_parameters": "not needed: the library manages memory layout",
    "float": 'to("float32")',
    "get_parameter": "dict(module.named_parameters())[name]",
    "get_weights": "state_dict()",
    "half": 'to("float16")',
    "load": 'module.load_state_dict(tinygrad_rnn.load(path)["model"])',
    "named_children": "named_modules()",
    "num_parameters": "sum(p.size for p in module.parameters())",
    "register_forward_hook": "a module of your own, whose forward calls this one",
    "register_module": "module.name = part",
    "register_parameter": "module.name = Parameter(...)",
    "requires_grad": "requires_grad_(False), or parameter.requires_grad",
    "save": "tinygrad_rnn.save(path, model=module)",
    "set_weights": "load_state_dict(state)",
    "summary": "repr(module)",
    "trainable_variables": "parameters()",
    "type": "to(dtype)",
}


class Parameter(Tensor):
    """A learned tensor of a module: it requires a gradient, and modules find it by its type.

    Parameters
    ----------
    data : array_like or Tensor
        Initial values, which are copied. Arrays keep their dtype, which must be floating.
    dtype : dtype, optional
        A floating dtype to convert to.
    device : str, optional
        A device to copy to.
    requires_grad : bool
        False for a parameter that is part of the module's state but is not learned.

    Raises
    ------
    DTypeError
        The dtype is not floating.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> w = tg.nn.Parameter(tg.zeros(2, 3))
    >>> w.requires_grad, w.shape
    (True, (2, 3))
    """

    __slots__ = ()

    def __init__(
        self,
        data: Any,
        dtype: Any = None,
        device: str | None = None,
        requires_grad: bool = True,
    ) -> None:
        super().__init__(data, dtype, device, requires_grad)


class _TrainingOverrides(threading.local):
    """The values of `training` in this thread's blocks of `Module.evaluating`."""

    def __init__(self) -> None:
        self.blocks: list[dict[int, bool]] = []  # outermost first; by the id of the module

    def of(self, module: Module) -> dict[int, bool] | None:
        """Return the innermost block that has the module, if any."""
        for modes in reversed(self.blocks):
            if id(module) in modes:
                return modes
        return None


_overrides = _TrainingOverrides()


class LoadReport(NamedTuple):
    """The result of `Module.load_state_dict`: names missing from the state, names only in it."""

    missing: list[str]
    unexpected: list[str]


class Module:
    """A part of a network: parameters, buffers and other modules as attributes, and a `forward`.

    A subclass calls ``super().__init__()`` first, assigns its parts as attributes, and defines
    `forward`, which runs when the module is called. Parameters and modules may also be elements of
    lists, tuples and dicts. Their names are then like ``cells.0.weight``.

    Attributes
    ----------
    training : bool
        The mode of layers such as Dropout. `train` and `eval` set it in all threads, `evaluating`
        in one. It has no effect on the recording of gradients.

    Raises
    ------
    NotImplementedError
        If a module is called that does not define `forward`.
    AttributeError
        If a parameter is assigned before ``super().__init__()``.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> class Affine(tg.nn.Module):
    ...     def __init__(self, n):
    ...         super().__init__()
    ...         self.scale = tg.nn.Parameter(tg.ones(n))
    ...         self.shift = tg.nn.Parameter(tg.zeros(n))
    ...
    ...     def forward(self, x):
    ...         return x * self.scale + self.shift
    >>> model = Affine(3)
    >>> model(tg.ones(2, 3)).shape
    (2, 3)
    >>> [name for name, _ in model.named_parameters()]
    ['scale', 'shift']
    >>> model
    Affine(scale (3,), shift (3,))  6 parameters
    """

    _buffers: frozenset[str]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "__init__" in vars(cls):
            cls.__init__ = explain_errors(cls.__init__)  # type: ignore[method-assign]

    def __init__(self) -> None:
        # Not by assignment: __setattr__ uses `training` to detect that this was not called.
        self.__dict__.update(training=True, _buffers=frozenset())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the module's result; a subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what `forward` returns."""
        return self.forward(*args, **kwargs)

    # -- attributes --------------------------------------------------------------------------------

    @property
    def training(self) -> bool:
        """Whether the module is in training mode; in a block of `evaluating`, for this thread."""
        if (modes := _overrides.of(self)) is not None:
            return modes[id(self)]
        if "training" not in self.__dict__:
            raise AttributeError  # __getattr__ explains it
        mode: bool = self.__dict__["training"]
        return mode

    @training.setter
    def training(self, mode: bool) -> None:
        if (modes := _overrides.of(self)) is not None:
            modes[id(self)] = mode
        else:
            self.__dict__["training"] = mode

    def __setattr__(self, name: str, value: Any) -> None:
        if "training" not in self.__dict__:
            raise AttributeError(
                f"{type(self).__name__}.__init__ assigns {name!r} before the module is set up: "
                "call super().__init__() first"
            )
        if name == "requires_grad":
            raise ArgumentError(
                f"{type(self).__name__}.requires_grad: a module has no such attribute: "
                f"use requires_grad_({bool(value)}), which sets that of every parameter"
            )
        self._check_replacement(name, self.__dict__.get(name), value)
        if name in self._buffers:
            if isinstance(value, Parameter):
                object.__setattr__(self, "_buffers", self._buffers - {name})
            elif not isinstance(value, Tensor):
                raise ArgumentError(
                    f"{type(self).__name__}.{name} is a buffer: assign a Tensor, not "
                    f"{type(value).__name__}"
                )
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        object.__setattr__(self, "_buffers", self._buffers - {name})

    def _check_replacement(self, name: str, held: Any, value: Any) -> None:
        """Raise if an assignment would replace a parameter or module by another kind of value."""
        kind = type(self).__name__
        if isinstance(held, Parameter) and not isinstance(value, Parameter | None):
            raise ArgumentError(
                f"{kind}.{name} is a Parameter and would be lost: write new values into it by "
                f".{name}.data = array, or assign another Parameter (or None)"
                f"{self._replacement_hint(name)}"
            )
        lost = isinstance(value, Tensor | int | float | str) or backend.is_array(value)
        if isinstance(held, Module) and lost and not isinstance(value, Parameter):
            raise ArgumentError(
                f"{kind}.{name} is a module, {type(held).__name__}, and would be lost: assign "
                f"another module, a function or None, not {type(value).__name__}"
            )

    def _replacement_hint(self, name: str) -> str:
        """Return an addition to that error: how to compute a parameter from others."""
        return ""

    def __getattr__(self, name: str) -> Any:
        # Called only if the attribute was not found.
        kind = type(self).__name__
        if name.startswith("__"):  # copy and pickle look these up before `__init__`
            raise AttributeError(f"{kind!r} object has no attribute {name!r}")
        if "training" not in self.__dict__:
            raise AttributeError(
                f"{kind} has no attribute {name!r}: {kind}.__init__ did not call super().__init__()"
            )
        known = [known for known in dir(self) if not known.startswith("_")]
        cure = hint(name, _OTHER_NAMES, known)
        raise AttributeError(f"{kind} has no attribute {name!r}{cure}", name=name, obj=self)

    def register_buffer(self, name: str, value: Any) -> None:
        """Add a tensor to the module's state that is not learned.

        Parameters
        ----------
        name : str
            The name of the attribute.
        value : Tensor or array_like
            Its value. `state_dict`, `load_state_dict` and `to` include it; `parameters` does not.

        Raises
        ------
        ArgumentError
            The name is in use or not an identifier, or the tensor requires a gradient.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> m = tg.nn.Module()
        >>> m.register_buffer("mean", [0.5, 0.5])
        >>> m.mean
        tensor([0.5, 0.5])
        """
        kind = type(self).__name__
        if (
            not isinstance(name, str)
            or not name.isidentifier()
            or (name not in self._buffers and hasattr(self, name))
        ):
            raise ArgumentError(
                f"{kind}.register_buffer: {name!r} is already in use or not an identifier"
            )
        value = value if isinstance(value, Tensor) else tensor(value)
        if value.requires_grad:
            raise ArgumentError(
                f"{kind}.register_buffer: {name!r} requires a gradient; a buffer does not: "
                "use .detach(), or assign a Parameter"
            )
        object.__setattr__(self, name, value)
        object.__setattr__(self, "_buffers", self._buffers | {name})

    # -- the tree of modules -----------------------------------------------------------------------
    #
    # `ancestors` are the modules on the path from the root. They are skipped as children, so that a
    # module that contains itself ends the recursion.

    def _members(self) -> Iterator[tuple[str, Any]]:
        """Yield tensors, modules and functions among the attributes, and in containers there."""
        return _flatten(vars(self).items())

    def _children(self, ancestors: tuple[Module, ...]) -> Iterator[tuple[str, Module]]:
        """Yield the submodules one level below this one."""
        for name, value in self._members():
            if isinstance(value, Module) and not any(value is m for m in ancestors):
                yield name, value

    def _paths(
        self, prefix: str = "", ancestors: tuple[Module, ...] = ()
    ) -> Iterator[tuple[str, Module]]:
        """Yield this module and all below it, each by every path."""
        yield prefix, self
        ancestors = (*ancestors, self)
        for name, child in self._children(ancestors):
            yield from child._paths(f"{prefix}{name}.", ancestors)

    def _tensors(self, ancestors: tuple[Module, ...] = ()) -> Iterator[tuple[str, Tensor]]:
        """Yield parameters and buffers by every path, a module's own before those below it."""
        ancestors = (*ancestors, self)
        for name, value in self._members():
            if isinstance(value, Parameter) or name in self._buffers:
                yield name, value
        for name, child in self._children(ancestors):
            for inner, value in child._tensors(ancestors):
                yield self._qualified_name(name, inner), value

    def _qualified_name(self, child: str, inner: str) -> str:
        """Return the name in this module of the tensor `inner` of its submodule `child`."""
        return f"{child}.{inner}"

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) for this module, whose name is empty, and all below, each once.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> model = tg.nn.Sequential(tg.nn.Linear(2, 3), tg.tanh, tg.nn.Dropout(0.5))
        >>> [name for name, _ in model.named_modules()]
        ['', '0', '2']
        """
        return _once((prefix.rstrip("."), module) for prefix, module in self._paths())

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it, each once.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> [type(m).__name__ for m in tg.nn.Sequential(tg.nn.Dropout(0.5)).modules()]
        ['Sequential', 'Dropout']
        """
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield (name, parameter) in the order of assignment, a module's own first.

        A tied parameter (one object under several names) is yielded once, under its first name.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> [(name, p.shape) for name, p in tg.nn.Linear(2, 3).named_parameters()]
        [('weight', (3, 2)), ('bias', (3,))]
        """
        return _once((n, t) for n, t in self._tensors() if isinstance(t, Parameter))

    def parameters(self) -> Iterator[Parameter]:
        """Yield every parameter once, in the order of assignment, a module's own first.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> sum(p.size for p in tg.nn.Linear(2, 3).parameters())
        9
        """
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, buffer), each once.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> m = tg.nn.Module()
        >>> m.register_buffer("mean", [0.5, 0.5])
        >>> [name for name, _ in m.named_buffers()]
        ['mean']
        """
        return _once((n, t) for n, t in self._tensors() if not isinstance(t, Parameter))

    def buffers(self) -> Iterator[Tensor]:
        """Yield every buffer once.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> list(tg.nn.Linear(2, 3).buffers())
        []
        """
        return (buffer for _, buffer in self.named_buffers())

    # -- state -------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters and buffers, as NumPy arrays by name.

        Returns
        -------
        dict
            A tied parameter is included under each of its names, as in PyTorch.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> list(tg.nn.Linear(2, 3).state_dict())
        ['weight', 'bias']
        """
        state: dict[str, Array] = {}
        for name, value in self._tensors():
            if name in state:
                raise ArgumentError(
                    f"{type(self).__name__}.state_dict: two entries are named {name!r}: "
                    "rename a key that contains a dot or looks like another"
                )
            state[name] = value.numpy()
        return state

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> LoadReport:
        """Write the values of a `state_dict` into the parameters and buffers, in place.

        Everything is checked before the first write. A buffer that is a computed Tensor (such as a
        running mean) or has read-only memory gets new memory without a graph.

        Parameters
        ----------
        state : mapping of str to array
            Tensors, arrays of NumPy, or objects with ``__dlpack__`` or ``__array__``, such as the
            tensors of PyTorch, with the shapes of this module's tensors. Values of a smaller dtype
            of the same kind are converted, which is exact: float16 to float32, int32 to int64.
        strict : bool
            Whether missing and unexpected names are an error. Wrong shapes always are, and dtypes
            whose conversion would round.

        Returns
        -------
        LoadReport
            The names ``missing`` from `state` and ``unexpected`` in it (both empty if strict).

        Raises
        ------
        ArgumentError
            Lists every name that is missing, unexpected or does not fit; nothing was loaded.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> a, b = tg.nn.Linear(2, 3), tg.nn.Linear(2, 3)
        >>> b.load_state_dict(a.state_dict())
        LoadReport(missing=[], unexpected=[])
        >>> bool((a.weight.numpy() == b.weight.numpy()).all())
        True
        """
        if not isinstance(state, Mapping):
            raise ArgumentError(
                f"{type(self).__name__}.load_state_dict: the result of state_dict() is expected, "
                f"got a {type(state).__name__}"
            )
        own = dict(self._tensors())
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        problems = key_problems(state, own) if strict else []
        values: dict[str, Array] = {}
        written: dict[int, str] = {}
        for name, target in own.items():
            if name not in state:
                continue
            value = array_of(name, state[name], problems)
            if value is None:
                continue
            if value.shape != target.shape or not _converts(value.dtype, target.dtype):
                problems.append(_misfit(name, value, target))
                continue
            value = value.astype(target.dtype, copy=False)
            twin = written.setdefault(id(target), name)
            if twin != name and value.tobytes() != values[twin].tobytes():
                problems.append(f"differ: {name} and {twin} are one tensor in this module")
            values[name] = value
        raise_problems(f"{type(self).__name__}.load_state_dict", problems)
        arrays = {name: backend.to_device(x, own[name].device) for name, x in values.items()}
        for name, array in arrays.items():
            _overwrite(own[name], array)
        return LoadReport(missing, unexpected)

    # -- switches ----------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Set ``training`` of this module and all below it; return the module.

        This does not affect the recording of gradients, for which see `no_grad`.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> tg.nn.Dropout(0.5).train().training
        True
        """
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Set ``training`` of this module and all below it to False; return the module.

        This does not affect the recording of gradients, for which see `no_grad`.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> tg.nn.Dropout(0.5).eval().training
        False
        """
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set ``requires_grad`` of all parameters of this module; return the module.

        Parameters that do not require a gradient are frozen: they get no gradient, and optimisers
        do not change them. One optimiser over all parameters can be used while parts of a network
        are frozen and unfrozen.

        Parameters
        ----------
        requires_grad : bool
            False to freeze.

        Returns
        -------
        Module
            The module itself.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> model = tg.nn.Sequential(tg.nn.Linear(2, 3).requires_grad_(False), tg.nn.Linear(3, 1))
        >>> [name for name, p in model.named_parameters() if p.requires_grad]
        ['1.weight', '1.bias']
        """
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def evaluating(self) -> ReusableContext[None]:
        """Return a context manager that sets ``training`` to False in this thread only.

        `eval` affects all threads. This affects neither other threads, which can train the model at
        the same time, nor threads started inside the block. Calls of `train` and `eval` inside the
        block are undone at its end. The recording of gradients is not affected.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> layer = tg.nn.Dropout(0.5)
        >>> with layer.evaluating(), tg.no_grad():
        ...     layer(tg.ones(3))
        tensor([1., 1., 1.])
        >>> layer.training
        True
        """
        return _evaluation(self)

    def to(self, target: Any) -> Self:
        """Move all parameters and buffers to a device, or change their floating dtype, in place.

        The parameters remain the same objects, so that ties and other references stay valid. Those
        that change lose their gradient. Create an optimiser afterwards: its state is not moved.

        Parameters
        ----------
        target : str or dtype
            ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or a floating dtype. Integer buffers keep their
            dtype.

        Returns
        -------
        Module
            The module itself.

        Raises
        ------
        DTypeError, DeviceError
            The target is neither an available device nor a floating dtype; nothing was changed.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> tg.nn.Linear(2, 3).to(tg.float64).weight.dtype
        dtype('float64')
        """
        tensors = [*self.parameters(), *self.buffers()]
        if isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda"):
            moved = [backend.to_device(t._data, target) for t in tensors]
        else:
            dtype = _floating_dtype(target, f"{type(self).__name__}.to")
            moved = [
                t._data.astype(dtype, copy=False) if t.dtype.kind == "f" else t._data
                for t in tensors
            ]
        for t, array in zip(tensors, moved, strict=True):
            if array is not t._data:
                t._bump()  # a backward pass of a graph over the old array must fail
                t._rebind(array)
        return self

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to None.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> layer = tg.nn.Linear(2, 1)
        >>> layer(tg.ones(1, 2)).sum().backward()
        >>> layer.zero_grad()
        >>> layer.weight.grad is None
        True
        """
        for parameter in self.parameters():
            parameter.grad = None

    # -- repr --------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """Return the settings of a subclass for the repr, which shows the tensors itself."""
        return ""

    def __repr__(self) -> str:
        return "\n".join(_repr_lines(self, "", ()))


@reusable_context
def _evaluation(module: Module) -> Iterator[None]:
    modules = [*module.modules()]  # kept alive, so that their ids stay unique
    own = {id(m): False for m in modules}
    try:
        _overrides.blocks.append(own)
        yield
    finally:
        # By identity: blocks in generators may end in any order.
        _overrides.blocks = [other for other in _overrides.blocks if other is not own]


def array_of(name: str, given: Any, problems: list[str]) -> Array | None:
    """Return a value of a state as a NumPy array; None after a problem."""
    if isinstance(given, Tensor):
        return backend.to_numpy(given._data)
    if backend.is_array(given):
        return backend.to_numpy(given)
    kind = class_name(given)
    try:
        if hasattr(type(given), "__dlpack_device__"):
            return backend.to_numpy(from_dlpack(given)._data)
        if hasattr(type(given), "__array__"):
            refuse_lossy_conversion(given)
            return np.asarray(given)
    except (BufferError, GraphError):
        problems.append(
            f"has a graph of its library: {name} is a {kind}: pass the state_dict() there, or "
            "{name: x.detach() for name, x in state.items()}"
        )
    except (TypeError, ValueError, RuntimeError) as error:
        problems.append(
            f"cannot be read: {name} is a {kind}: {error}: convert it there, to float32 on the CPU"
        )
    else:
        problems.append(f"not an array: {name} is a {kind}")
    return None


def _converts(given: np.dtype[Any], target: np.dtype[Any]) -> bool:
    """Tell whether a dtype can be converted to another without rounding."""
    if given.name == "bfloat16":  # a dtype that other packages add to NumPy
        return target.name in ("float32", "float64")
    kinds = ("f", "iu", "b")
    alike = any(given.kind in kind and target.kind in kind for kind in kinds)
    return alike and np.can_cast(given, target)


def _misfit(name: str, value: Array, target: Tensor) -> str:
    problem = (
        f"does not fit: {name} is {value.dtype} {value.shape}, "
        f"the module's is {target.dtype} {target.shape}"
    )
    if value.shape != target.shape:
        return problem
    if value.dtype.kind == target.dtype.kind == "f":
        return (
            f"{problem}: convert the module by .to({str(value.dtype)!r}), or round the values, "
            f"{{name: x.astype({str(target.dtype)!r}) for name, x in state.items()}}"
        )
    return f"{problem}: convert the value by .astype({str(target.dtype)!r})"


def _overwrite(target: Tensor, array: Array) -> None:
    """Write into the array of a tensor, or replace the array if writing is not allowed."""
    owned = (
        target._version is not None and target.is_leaf
    )  # otherwise a graph may have saved the array
    if owned and getattr(target._data.flags, "writeable", True):
        target.data = array
    else:
        target._bump()
        target._rebind(backend.copy(array))


def _floating_dtype(target: Any, op: str) -> np.dtype[Any]:
    """Return a floating dtype; None, which NumPy interprets as float64, is an error."""
    try:
        dtype = np.dtype("V") if target is None else np.dtype(target)
    except TypeError:
        dtype = np.dtype("V")
    if dtype.kind != "f":
        raise DTypeError(
            f"{op}: 'cpu', 'cuda', 'cuda:N' or a floating dtype is expected, got {target!r}"
        )
    return dtype


def _flatten(items: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield tensors, modules and functions by name, including those in lists, tuples and dicts."""
    for name, value in items:
        if isinstance(value, dict):
            yield from _flatten((f"{name}.{key}", item) for key, item in value.items())
        elif isinstance(value, list | tuple):
            yield from _flatten((f"{name}.{i}", item) for i, item in enumerate(value))
        elif isinstance(value, Module | Tensor) or callable(value):
            yield name, value


def _once(named: Iterable[tuple[str, T]]) -> Iterator[tuple[str, T]]:
    """Yield each object under the first of its names only."""
    seen = set()
    for name, item in named:
        if id(item) not in seen:
            seen.add(id(item))
            yield name, item


def _repr_lines(module: Module, label: str, ancestors: tuple[Module, ...]) -> Iterator[str]:
    """Yield the lines of a module's repr."""
    members = list(module._members())
    shown = [module.extra_repr()] if module.extra_repr() else []
    shown += [
        f"{name} {value.shape}"
        for name, value in members
        if isinstance(value, Parameter) or name in module._buffers
    ]
    count = sum(parameter.size for parameter in module.parameters())
    line = f"{label}{type(module).__name__}"
    line += f"({', '.join(shown)})" if shown else ""
    line += f"  {count:,} parameters" if count else ""
    yield line
    ancestors = (*ancestors, module)
    for name, value in members:
        if isinstance(value, Module) and not any(value is m for m in ancestors):
            for line in _repr_lines(value, f"{name}: ", ancestors):
                yield f"  {line}"
        elif callable(value) and not isinstance(value, Module | type):
            yield f"  {name}: {getattr(value, '__name__', repr(value))}"
