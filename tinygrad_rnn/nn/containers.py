"""Modules that contain a sequence of others: Sequential and ModuleList."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..errors import ArgumentError
from .module import Module


class _NumberedModules(Module):
    """A module whose members are its attributes ``0``, ``1``, ..., as in PyTorch."""

    def _members_in_order(self) -> list[Any]:
        return [value for name, value in vars(self).items() if name.isdecimal()]

    def __len__(self) -> int:
        return len(self._members_in_order())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._members_in_order())


class Sequential(_NumberedModules):
    """A chain of modules and functions, each called with the result of the previous one.

    Parameters
    ----------
    *layers : Module or callable
        Modules, or functions of a tensor such as ``tg.tanh``.

    Raises
    ------
    ArgumentError
        A layer is not callable, or is a class.

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
        """Return one layer, or for a slice a Sequential of the same layers."""
        chosen = self._members_in_order()[index]
        return Sequential(*chosen) if isinstance(index, slice) else chosen

    def forward(self, x: Any) -> Any:
        """Return the last layer's result."""
        for layer in self._members_in_order():
            x = layer(x)
        return x


class ModuleList(_NumberedModules):
    """A list of modules.

    A plain list of modules as an attribute works too. This class is a module itself and has
    PyTorch's name.

    Parameters
    ----------
    modules : iterable of Module
        The initial members.

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
        """Return one member, or for a slice a ModuleList of the same members."""
        chosen = self._members_in_order()[index]
        return ModuleList(chosen) if isinstance(index, slice) else chosen

    def append(self, module: Module) -> None:
        """Append a module.

        Parameters
        ----------
        module : Module

        Raises
        ------
        ArgumentError
            If it is not a Module.
        """
        if not isinstance(module, Module):
            raise ArgumentError(f"ModuleList: members must be modules, got {module!r}")
        setattr(self, str(len(self)), module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Raise: a list does not define a computation."""
        raise NotImplementedError("ModuleList does not define forward(): call its members")
