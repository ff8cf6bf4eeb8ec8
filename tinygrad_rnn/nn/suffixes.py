"""PyTorch's names for the tensors of a layer's cells: ``weight_ih_l1_reverse``.

The suffix is the layer and the direction; the rest is the tensor's name inside the cell.
"""

from __future__ import annotations

import re
from typing import Any

from ..engine.tensor import Tensor
from .containers import ModuleList
from .module import Module

SUFFIXED = re.compile(r"(.+)_l(0|[1-9]\d*)(_reverse)?")
IN_A_CELL = re.compile(r"cells\.(\d+)\.(.+)")


class SuffixedNames(Module):
    """A module whose `cells` have their tensors under names with a suffix.

    The names serve in state dicts, and to read, assign and delete a tensor as an attribute of the
    layer. Other attributes of the layer keep their own names.
    """

    cells: ModuleList
    bidirectional: bool

    @property
    def directions(self) -> int:
        """D, the number of directions."""
        return 2 if self.bidirectional else 1

    def _qualified_name(self, child: str, inner: str) -> str:
        """Return the name of a tensor in a state dict."""
        name = super()._qualified_name(child, inner)
        match = IN_A_CELL.fullmatch(name)
        if match is None:
            return name
        layer, direction = divmod(int(match[1]), self.directions)
        return f"{match[2]}_l{layer}{'_reverse' if direction else ''}"

    def _owner(self, name: str) -> tuple[Module, str] | None:
        """Return the module inside a cell and its attribute that a suffixed name refers to.

        The attribute need not exist. None if the name is one of the layer's own, or of a cell or
        module that does not exist.
        """
        match = SUFFIXED.fullmatch(name)
        own = name in self.__dict__ or hasattr(type(self), name)
        if match is None or own or "cells" not in self.__dict__:
            return None
        path, layer, reverse = match.groups()
        number = int(layer) * self.directions + bool(reverse)
        if number >= len(self.cells) or (reverse and not self.bidirectional):
            return None
        parent, _, attribute = path.rpartition(".")
        owner = dict(self.cells[number].named_modules()).get(parent)
        return None if owner is None else (owner, attribute)

    def _existing(self, name: str) -> tuple[Module, str] | None:
        """Return the owner and attribute of a suffixed name if a tensor or None is stored there."""
        found = self._owner(name)
        if found is None:
            return None
        owner, attribute = found
        stored = vars(owner).get(attribute, found)
        return found if isinstance(stored, Tensor | None) else None

    def __getattr__(self, name: str) -> Any:
        existing = self._existing(name)
        if existing is not None and (value := getattr(*existing)) is not None:
            return value
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        found = self._existing(name)
        if found is None and isinstance(value, Tensor):  # a new tensor, or one that was deleted
            owner = self._owner(name)
            found = owner if owner is not None and not hasattr(*owner) else None
        if found is None:
            super().__setattr__(name, value)
        else:
            module, attribute = found
            self._check_replacement(name, vars(module).get(attribute), value)
            setattr(module, attribute, value)

    def __delattr__(self, name: str) -> None:
        existing = self._existing(name)
        if existing is None:
            super().__delattr__(name)
        else:
            delattr(*existing)

    def _replacement_hint(self, name: str) -> str:
        owner = self._owner(name)
        return (
            super()._replacement_hint(name)
            if owner is None
            else owner[0]._replacement_hint(owner[1])
        )
