"""Modules: learned things as plain Python objects.

A module is an object with attributes. Those that are parameters, modules, or lists, tuples and
dicts of them, are found by looking at the attributes when somebody asks, in the order of their
assignment; there is no second registry that could disagree with the attributes.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np

from .._util.api_hints import explain_errors
from .._util.contexts import ReusableContext, reusable_context
from .._util.state_keys import key_problems, raise_problems
from ..engine import backend
from ..engine.backend import Array
from ..engine.tensor import Tensor
from ..errors import ArgumentError, DTypeError
from ..tensors.creation import tensor

T = TypeVar("T")

_OUR_NAME = {  # what PyTorch's users reach for, and what to write here
    "add_module": "module.name = part",
    "apply": "for m in module.modules(): ...",
    "bfloat16": 'to("float16")',
    "children": "modules()",
    "compile": "tinygrad_rnn.fuse(function), of what is computed element by element",
    "cpu": 'to("cpu")',
    "cuda": 'to("cuda")',
    "device": "next(module.parameters()).device",
    "double": 'to("float64")',
    "dtype": "next(module.parameters()).dtype",
    "flatten_parameters": "nothing: layout is the library's business",
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


def _public(name: str) -> bool:
    return not name.startswith("_")


class Parameter(Tensor):
    """A tensor that a module learns: it requires a gradient, and modules find it by its type.

    Parameters
    ----------
    data : array_like or Tensor
        Initial values, which are copied. Arrays keep their dtype, which must be floating.
    dtype : dtype, optional
        Another floating dtype.
    device : str, optional
        Another device.
    requires_grad : bool
        False for one that is part of the module's state but stays as it is.

    Raises
    ------
    DTypeError
        The values are not floating.

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


class _Evaluating(threading.local):
    """The `training` of modules in the blocks of `Module.evaluating` that a thread is in."""

    def __init__(self) -> None:
        self.blocks: list[dict[int, bool]] = []  # by the id of the module


_evaluating = _Evaluating()


def in_evaluation() -> bool:
    """Tell whether this thread is in a block of `Module.evaluating`, of any module."""
    return bool(_evaluating.blocks)


class LoadReport(NamedTuple):
    """What `Module.load_state_dict` did not use: names that the state lacks, and names too many."""

    missing: list[str]
    unexpected: list[str]


class Module:
    """A part of a network: parameters, buffers and other modules as attributes, and a `forward`.

    A subclass calls ``super().__init__()`` first, assigns its parts as attributes, and defines
    `forward`, which runs when the module is called. Parameters and modules may also stand in lists,
    tuples and dicts, and are then named like ``cells.0.weight``.

    Attributes
    ----------
    training : bool
        What `train` and `eval` switch, in all threads, and `evaluating` in one; layers such as
        Dropout look at it. It has nothing to do with the recording of gradients.

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
        # Not by assignment: __setattr__ takes a missing `training` for a forgotten call of this.
        self.__dict__.update(training=True, _buffers=frozenset())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the module's result; every subclass that is called defines it."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what `forward` returns."""
        return self.forward(*args, **kwargs)

    # -- attributes --------------------------------------------------------------------------------

    @property
    def training(self) -> bool:
        """Whether the module is in training; in a block of `evaluating`, for this thread."""
        for modes in reversed(_evaluating.blocks):
            if id(self) in modes:
                return modes[id(self)]
        if "training" not in self.__dict__:
            raise AttributeError  # and __getattr__ says why
        mode: bool = self.__dict__["training"]
        return mode

    @training.setter
    def training(self, mode: bool) -> None:
        for modes in reversed(_evaluating.blocks):
            if id(self) in modes:
                modes[id(self)] = mode
                return
        self.__dict__["training"] = mode

    def __setattr__(self, name: str, value: Any) -> None:
        if "training" not in self.__dict__:
            raise AttributeError(
                f"{type(self).__name__}.__init__ assigns {name!r} before the module is set up: "
                "call super().__init__() first"
            )
        if name == "requires_grad":
            raise ArgumentError(
                f"{type(self).__name__}.requires_grad: a module has no such switch: "
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
        """Raise if a value in the place of another would take a learned part away in silence."""
        kind = type(self).__name__
        if isinstance(held, Parameter) and not isinstance(value, Parameter | None):
            raise ArgumentError(
                f"{kind}.{name} is a Parameter and would be lost: write new values into it by "
                f".{name}.data = array, or assign another Parameter (or None)"
                f"{self._how_computed(name)}"
            )
        lost = isinstance(value, Tensor | int | float | str) or backend.is_array(value)
        if isinstance(held, Module) and lost and not isinstance(value, Parameter):
            raise ArgumentError(
                f"{kind}.{name} is a module, {type(held).__name__}, and would be lost: assign "
                f"another module, a function or None, not {type(value).__name__}"
            )

    def _how_computed(self, name: str) -> str:
        """Return what that error adds: how a weight is computed from others."""
        return ""

    def __getattr__(self, name: str) -> Any:
        # Called only after the ordinary look-up has failed.
        kind = type(self).__name__
        if name.startswith("__"):  # copy and pickle ask for these before there is any state
            raise AttributeError(f"{kind!r} object has no attribute {name!r}")
        if "training" not in self.__dict__:
            raise AttributeError(
                f"{kind} has no attribute {name!r}: {kind}.__init__ did not call super().__init__()"
            )
        cure = ""
        if name in _OUR_NAME:
            cure = f"; here it is {_OUR_NAME[name]}"
        elif near := difflib.get_close_matches(name, filter(_public, dir(self)), n=3):
            cure = f"; did you mean {' or '.join(near)}?"
        raise AttributeError(f"{kind} has no attribute {name!r}{cure}", name=name, obj=self)

    def register_buffer(self, name: str, value: Any) -> None:
        """Make a tensor part of the module's state though it is not learned.

        Parameters
        ----------
        name : str
            The attribute that will hold it.
        value : Tensor or array_like
            Its value. `state_dict`, `load_state_dict` and `to` include it; `parameters` does not.

        Raises
        ------
        ArgumentError
            The name is taken, or is no identifier, or the tensor requires a gradient.

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
                f"{kind}.register_buffer: {name!r} is taken already or is no identifier"
            )
        value = value if isinstance(value, Tensor) else tensor(value)
        if value.requires_grad:
            raise ArgumentError(
                f"{kind}.register_buffer: {name!r} requires a gradient; a buffer does not: "
                "use .detach(), or assign a Parameter"
            )
        object.__setattr__(self, name, value)
        object.__setattr__(self, "_buffers", self._buffers | {name})

    # -- the tree ----------------------------------------------------------------------------------

    def _members(self) -> Iterator[tuple[str, Any]]:
        """Yield the attributes that may matter here, with lists, tuples and dicts taken apart."""
        return _flat(vars(self).items())

    def _children(self, above: tuple[Module, ...]) -> Iterator[tuple[str, Module]]:
        """Yield the modules right in this one, but for those that it is in itself."""
        for name, value in self._members():
            if isinstance(value, Module) and not any(value is m for m in above):
                yield name, value

    def _paths(
        self, prefix: str = "", above: tuple[Module, ...] = ()
    ) -> Iterator[tuple[str, Module]]:
        """Yield this module and all below it by every path, a module inside itself excepted."""
        yield prefix, self
        above = (*above, self)
        for name, child in self._children(above):
            yield from child._paths(f"{prefix}{name}.", above)

    def _state(
        self, parameters: bool, buffers: bool, above: tuple[Module, ...] = ()
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield parameters and buffers by every path, a module's own before those below it."""
        above = (*above, self)
        for name, value in self._members():
            if (parameters and isinstance(value, Parameter)) or (buffers and name in self._buffers):
                yield name, value
        for name, child in self._children(above):
            for inner, value in child._state(parameters, buffers, above):
                yield self._name_below(name, inner), value

    def _name_below(self, child: str, inner: str) -> str:
        """Return the name in this module of what its part `child` calls `inner`."""
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

        A parameter that is tied (held in two places) comes once, under its first name.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> [(name, p.shape) for name, p in tg.nn.Linear(2, 3).named_parameters()]
        [('weight', (3, 2)), ('bias', (3,))]
        """
        return _once(self._state(parameters=True, buffers=False))  # type: ignore[arg-type]

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
        return _once(self._state(parameters=False, buffers=True))

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
            A tied parameter stands under each of its names, as in PyTorch.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> list(tg.nn.Linear(2, 3).state_dict())
        ['weight', 'bias']
        """
        state: dict[str, Array] = {}
        for name, value in self._state(parameters=True, buffers=True):
            if name in state:
                raise ArgumentError(
                    f"{type(self).__name__}.state_dict: two entries are named {name!r}: "
                    "rename a key that contains a dot or looks like another"
                )
            state[name] = value.numpy()
        return state

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> LoadReport:
        """Write the values of a `state_dict` into the parameters and buffers, in place.

        Everything is checked before anything is written. A buffer that holds a computed Tensor, as
        a running mean may be, or read-only memory, gets memory of its own and no graph.

        Parameters
        ----------
        state : mapping of str to array
            NumPy arrays or Tensors of exactly the shapes and dtypes of this module's own.
        strict : bool
            Whether names that are missing or unexpected are an error. Wrong shapes and dtypes
            always are.

        Returns
        -------
        LoadReport
            The names ``missing`` from `state` and ``unexpected`` in it (both empty if strict).

        Raises
        ------
        ArgumentError
            Lists every name that is missing, unexpected or does not fit; nothing was written.

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
                f"{type(self).__name__}.load_state_dict: what state_dict() returned is expected, "
                f"got a {type(state).__name__}"
            )
        own = dict(self._state(parameters=True, buffers=True))
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        problems = key_problems(state, own) if strict else []
        values: dict[str, Array] = {}
        written: dict[int, str] = {}
        for name, target in own.items():
            if name not in state:
                continue
            value = state[name]._data if isinstance(state[name], Tensor) else state[name]
            if not backend.is_array(value):
                kind = f"{type(value).__module__}.{type(value).__qualname__}"
                cure = ": {name: x.numpy() for name, x in state.items()} makes arrays of them"
                cure *= hasattr(value, "numpy") and not problems
                problems.append(f"not a NumPy array: {name} is a {kind}{cure}")
                continue
            value = backend.to_numpy(value)
            if (value.shape, value.dtype) != (target.shape, target.dtype):
                problems.append(
                    f"does not fit: {name} is {value.dtype} {value.shape}, "
                    f"the module's is {target.dtype} {target.shape}"
                )
                continue
            twin = written.setdefault(id(target), name)
            if twin != name and value.tobytes() != values[twin].tobytes():
                problems.append(f"differ: {name} and {twin} are one tensor here")
            values[name] = value
        raise_problems(f"{type(self).__name__}.load_state_dict", problems)
        arrays = {name: backend.to_device(x, own[name].device) for name, x in values.items()}
        for name, array in arrays.items():
            _overwrite(own[name], array)
        return LoadReport(missing, unexpected)

    # -- switches ----------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Set ``training`` of this module and all below it; return the module.

        Gradients are recorded or not as before: that is the business of `no_grad` alone.

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
        """Clear ``training`` of this module and all below it; return the module.

        Gradients are recorded or not as before: that is the business of `no_grad` alone.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> tg.nn.Dropout(0.5).eval().training
        False
        """
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set ``requires_grad`` of all parameters here and below; return the module.

        Parameters that do not require a gradient are frozen: they get none, and optimisers leave
        them as they are, so that one optimiser over all parameters serves while parts of a network
        are frozen and released.

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
        """Put this module and all below it in evaluation in a ``with`` block, for this thread.

        `eval` is for all threads. Here nothing that they share is written: another thread can train
        the model meanwhile. `train` and `eval` inside the block hold until its end. Threads that
        are started inside do not take part. Gradients are recorded or not as before.

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

        The parameters stay the same objects, so ties and whoever holds them are unharmed. Those
        that change lose their gradient. Make an optimiser afterwards: its averages do not move.

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
            The target is neither a device that is there nor a floating dtype; nothing changed.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> tg.nn.Linear(2, 3).to(tg.float64).weight.dtype
        dtype('float64')
        """
        held = [*self.parameters(), *self.buffers()]
        if isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda"):
            moved = [backend.to_device(t._data, target) for t in held]
        else:
            dtype = _floating(target, f"{type(self).__name__}.to")
            moved = [
                t._data.astype(dtype, copy=False) if t.dtype.kind == "f" else t._data for t in held
            ]
        for t, array in zip(held, moved, strict=True):
            if array is not t._data:
                t._bump()  # a graph over the old array must not go backward into nothing
                t._rebind(array)
        return self

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters (``grad`` becomes None).

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
        """Return what the repr shows besides the tensors: a subclass's own settings."""
        return ""

    def __repr__(self) -> str:
        return "\n".join(_tree(self, "", ()))


@reusable_context
def _evaluation(module: Module) -> Iterator[None]:
    modules = [*module.modules()]  # they live as long as their ids are used
    modes = {id(m): False for m in modules}
    try:
        _evaluating.blocks.append(modes)
        yield
    finally:
        # By identity: a suspended generator may leave its block before or after the others.
        _evaluating.blocks = [other for other in _evaluating.blocks if other is not modes]


class _Numbered(Module):
    """A module whose members are its attributes ``0``, ``1``, ..., which gives PyTorch's names."""

    def _items(self) -> list[Any]:
        return [value for name, value in vars(self).items() if name.isdecimal()]

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items())


class Sequential(_Numbered):
    """Modules and plain functions, each called on the result of the one before.

    Parameters
    ----------
    *layers : Module or callable
        Functions of a tensor, such as ``tg.tanh``, need no wrapping.

    Raises
    ------
    ArgumentError
        A layer cannot be called, or is a class.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> mlp = tg.nn.Sequential(tg.nn.Linear(4, 8), tg.tanh, tg.nn.Linear(8, 2))
    >>> mlp(tg.ones(5, 4)).shape
    (5, 2)
    >>> mlp
    Sequential  58 parameters
      0: Linear(weight (8, 4), bias (8,))  40 parameters
      1: tanh
      2: Linear(weight (2, 8), bias (2,))  18 parameters
    >>> mlp[:2](tg.ones(5, 4)).shape
    (5, 8)
    """

    def __init__(self, *layers: Callable[[Any], Any]) -> None:
        super().__init__()
        for i, layer in enumerate(layers):
            if isinstance(layer, type) or not callable(layer):
                cure = f": write {layer.__name__}(...)" if isinstance(layer, type) else ""
                raise ArgumentError(
                    f"Sequential: layer {i} must be a module or a function, got {layer!r}{cure}"
                )
            setattr(self, str(i), layer)

    def __getitem__(self, index: int | slice) -> Any:
        """Return one layer, or a Sequential of the chosen ones, which it shares."""
        chosen = self._items()[index]
        return Sequential(*chosen) if isinstance(index, slice) else chosen

    def forward(self, x: Any) -> Any:
        """Return the last layer's result."""
        for layer in self._items():
            x = layer(x)
        return x


class ModuleList(_Numbered):
    """A list of modules.

    A plain list of modules as an attribute is registered too; this one is a module itself and
    carries PyTorch's names.

    Parameters
    ----------
    modules : iterable of Module
        The first members.

    Raises
    ------
    ArgumentError
        A member is not a module.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> layers = tg.nn.ModuleList(tg.nn.Linear(4, 4) for _ in range(3))
    >>> layers.append(tg.nn.Linear(4, 1))
    >>> len(layers), [name for name, _ in layers.named_parameters()][-1]
    (4, '3.bias')
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        if isinstance(modules, Module) and not isinstance(modules, ModuleList):
            raise ArgumentError(
                f"ModuleList: a list of modules is expected, got one, {type(modules).__name__}"
            )
        for module in modules:
            self.append(module)

    def __getitem__(self, index: int | slice) -> Any:
        """Return one member, or a ModuleList of the chosen ones, which it shares."""
        chosen = self._items()[index]
        return ModuleList(chosen) if isinstance(index, slice) else chosen

    def append(self, module: Module) -> None:
        """Add a module at the end.

        Parameters
        ----------
        module : Module
            Anything else raises an ArgumentError.
        """
        if not isinstance(module, Module):
            raise ArgumentError(f"ModuleList: members must be modules, got {module!r}")
        setattr(self, str(len(self)), module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Raise: a list says nothing about what to compute."""
        raise NotImplementedError("ModuleList holds modules and computes nothing: call its members")


def _overwrite(target: Tensor, array: Array) -> None:
    """Write into the array of a tensor; where that is not allowed, give it another one."""
    owned = target._version is not None and target.is_leaf  # else a graph may have saved the array
    if owned and getattr(target._data.flags, "writeable", True):
        target.data = array
    else:
        target._bump()
        target._rebind(backend.copy(array))


def _floating(target: Any, op: str) -> np.dtype[Any]:
    """Return a floating dtype; None, which NumPy takes for float64, is not one."""
    try:
        dtype = np.dtype("V") if target is None else np.dtype(target)
    except TypeError:
        dtype = np.dtype("V")
    if dtype.kind != "f":
        raise DTypeError(
            f"{op}: 'cpu', 'cuda', 'cuda:N' or a floating dtype is expected, got {target!r}"
        )
    return dtype


def _flat(items: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield tensors, modules and functions by name, going into lists, tuples and dicts."""
    for name, value in items:
        if isinstance(value, dict):
            yield from _flat((f"{name}.{key}", item) for key, item in value.items())
        elif isinstance(value, list | tuple):
            yield from _flat((f"{name}.{i}", item) for i, item in enumerate(value))
        elif isinstance(value, Module | Tensor) or callable(value):
            yield name, value


def _once(named: Iterable[tuple[str, T]]) -> Iterator[tuple[str, T]]:
    """Yield each object under the first of its names only."""
    seen = set()
    for name, item in named:
        if id(item) not in seen:
            seen.add(id(item))
            yield name, item


def _tree(module: Module, label: str, above: tuple[Module, ...]) -> Iterator[str]:
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
    above = (*above, module)
    for name, value in members:
        if isinstance(value, Module) and not any(value is m for m in above):
            for line in _tree(value, f"{name}: ", above):
                yield f"  {line}"
        elif callable(value) and not isinstance(value, Module | type):
            yield f"  {name}: {getattr(value, '__name__', repr(value))}"
