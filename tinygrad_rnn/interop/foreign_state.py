"""The state of another library as a tree of arrays, and the recurrent cells in it.

A state is a nested mapping, as JAX's libraries and MLX save it, a flat one with paths (Keras,
Haiku), a flat one with PyTorch's suffixes (Paddle), or lists of arrays (`get_weights` of Keras).
`cells` returns the cells of a stack of layers in their order, whichever form it has.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from ..engine.backend import Array
from ..errors import ArgumentError, DTypeError
from ..nn.module import array_of
from ..nn.suffixes import SUFFIXED
from .conventions import LIBRARIES, Convention

Tree = Any  # an array, or a dict or list of Trees
_PADDLE = re.compile(r"(\d+)\.cell(_fw|_bw)?\.(\w+)")

KERAS_NAMES = {  # of arrays in a list, by their number: one direction, or both
    2: ("kernel", "recurrent_kernel"),
    3: ("kernel", "recurrent_kernel", "bias"),
}


@dataclasses.dataclass(frozen=True)
class FoundCell:
    """A cell in a state: its arrays by their paths, its place, and the convention that it has."""

    arrays: dict[str, Array]
    where: str
    row: Convention


@dataclasses.dataclass(frozen=True)
class Origin:
    """The call and the library that a state comes from, for errors and for keys to leave out."""

    op: str
    library: str

    @property
    def title(self) -> str:
        """The name of the library."""
        return "Flax" if self.library == "flax" else LIBRARIES[self.library].title

    @property
    def saved(self) -> str:
        """An expression that returns the state of a layer."""
        return LIBRARIES["nnx" if self.library == "flax" else self.library].saved

    def ignores(self, key: str) -> bool:
        """Tell whether a key does not name a weight."""
        name = "nnx" if self.library == "flax" else self.library
        return re.fullmatch(LIBRARIES[name].ignored, key) is not None

    def directions(self, keys: Sequence[str]) -> tuple[str, str] | None:
        """Return the keys of the forward and the backward part of a layer, if it has them."""
        found = [[k for k in keys if k.startswith(side)] for side in ("forward", "backward")]
        if len(keys) == 2 and all(len(side) == 1 for side in found):
            return found[0][0], found[1][0]
        return None

    def refuse(self, where: str, finding: str, cure: str) -> NoReturn:
        """Raise an error about a place in the state."""
        place = f"{where}: " if where else ""
        raise ArgumentError(f"{self.op}: {place}{finding}: {cure}")


def tree_of(state: Any, origin: Origin, where: str = "") -> Tree:
    """Return a state with arrays of NumPy, dicts and lists.

    Parameters
    ----------
    state : object
        Nested mappings and sequences of arrays. A key with ``/`` is a path.
    origin : Origin
        Its library; keys that it ignores, and values that are None, are left out.
    where : str
        The path of the state in a larger one, for errors.

    Returns
    -------
    dict, list or ndarray

    Raises
    ------
    ArgumentError
        If a leaf is not an array, or has a graph of its library.
    DTypeError
        If numbers are not floating: weights that are quantised.
    """
    if isinstance(state, Mapping):
        tree: dict[str, Any] = {}
        for key, value in state.items():
            name = str(key)
            if value is not None and not origin.ignores(name.split("/")[-1]):
                part = tree_of(value, origin, _join(where, name))
                if not isinstance(part, dict | list) or part:  # files of Keras have empty groups
                    _insert(tree, name, part, origin)
        return tree
    if isinstance(state, list | tuple):
        return [tree_of(value, origin, _join(where, str(i))) for i, value in enumerate(state)]
    if hasattr(type(state), "__jax_array__"):  # a variable of JAX's libraries
        state = state.__jax_array__()
    if str(getattr(state, "dtype", "")) == "bfloat16" and hasattr(state, "__array__"):
        state = np.asarray(state)  # which DLPack cannot pass to NumPy
    problems: list[str] = []
    array = array_of(where or "the state", state, problems)
    if array is None:
        hint = f": a state of {origin.title} is {origin.saved}"
        if hasattr(state, "shape"):
            hint = ": use its .numpy()" if hasattr(state, "numpy") else ""
        raise ArgumentError(f"{origin.op}: {problems[0]}{hint}")
    if array.dtype.name == "bfloat16":  # of another package; every number of it is a float32
        return array.astype(np.float32)
    if array.dtype.kind != "f":
        raise DTypeError(
            f"{origin.op}: {where} is {array.dtype}, weights are floating: "
            "a quantised layer must be dequantised there first"
        )
    return array


def _join(where: str, name: str) -> str:
    return f"{where}/{name}" if where else name


def _insert(tree: dict[str, Any], path: str, value: Any, origin: Origin) -> None:
    """Put a value into nested dicts at a path."""
    *parents, last = path.split("/")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            origin.refuse(path, f"{parent} is an array", "it cannot have keys inside")
    if last in tree and isinstance(tree[last], dict) and isinstance(value, dict):
        for key, inner in value.items():
            _insert(tree[last], key, inner, origin)
    else:
        tree[last] = value


def flat(tree: Tree, where: str = "") -> dict[str, Array]:
    """Return the arrays of a tree by their paths."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        found: dict[str, Array] = {}
        for key, value in items:
            found |= flat(value, _join(where, str(key)))
        return found
    return {where: tree}


def describe(tree: Tree) -> str:
    """Return the keys and shapes of a tree for an error, at most eight."""
    arrays = flat(tree)
    shown = [f"{key} {value.shape}" if key else f"{value.shape}" for key, value in arrays.items()]
    more = f", ... ({len(shown)} in all)" if len(shown) > 8 else ""
    return ", ".join(shown[:8]) + more if shown else "no array"


# -- recurrent cells -------------------------------------------------------------------------------


def cells(tree: Tree, rows: Sequence[Convention], origin: Origin) -> list[list[FoundCell]]:
    """Return the cells of a state: a list for each layer, with one cell or two directions.

    Parameters
    ----------
    tree : dict or list
        The result of `tree_of`.
    rows : sequence of Convention
        The conventions that a cell may have.
    origin : Origin
        The library and the call.

    Returns
    -------
    list of lists of FoundCell

    Raises
    ------
    ArgumentError
        If the state has no such cell, arrays that are not of one, or layers in an unknown order.
    """
    return _Search(rows, origin).layers(tree, "")


@dataclasses.dataclass(frozen=True)
class _Search:
    rows: Sequence[Convention]
    origin: Origin

    def layers(self, tree: Tree, where: str) -> list[list[FoundCell]]:
        """Return the cells in a tree, layer by layer."""
        tree = self._normal(tree, where)
        if isinstance(tree, list) and tree:
            return [
                layer
                for number, part in enumerate(tree)
                for layer in self.layers(part, _join(where, str(number)))
            ]
        if isinstance(tree, dict) and (cell := self._cell(tree, where)):
            return [[cell]]
        if not isinstance(tree, dict) or not any(isinstance(x, dict | list) for x in tree.values()):
            self._none(tree, where)
        if pair := self.origin.directions([*tree]):
            return self._both(tree, pair, where)
        return self._children(tree, where)

    def _cell(self, tree: dict[str, Tree], where: str) -> FoundCell | None:
        """Return the cell that a dict is, or None."""
        arrays = flat(tree)
        for row in self.rows:
            if all(key in arrays for key in row.needed):
                known = {key.partition("[")[0] for key in row.keys}
                for key in arrays:
                    if key not in known:
                        self.origin.refuse(
                            _join(where, key), f"not a weight of {row.cell}",
                            _CURES.get(key, f"its keys are {', '.join(row.keys)}"),
                        )  # fmt: skip
                return FoundCell(arrays, where, row)
        return None

    def _both(
        self, tree: dict[str, Tree], pair: tuple[str, str], where: str
    ) -> list[list[FoundCell]]:
        """Return the layer of which a dict has the two directions."""
        sides = [self.layers(tree[key], _join(where, key)) for key in pair]
        if [[len(layer) for layer in side] for side in sides] != [[1], [1]]:
            self.origin.refuse(
                where, f"{' and '.join(pair)} have {len(sides[0])} and {len(sides[1])} layers",
                "each direction has one cell; give a stack as a list of layers",
            )  # fmt: skip
        return [[sides[0][0][0], sides[1][0][0]]]

    def _children(self, tree: dict[str, Tree], where: str) -> list[list[FoundCell]]:
        """Return the layers of which a dict has one in each entry, ordered by their numbers."""
        if len({_without_number(key) for key in tree}) > 1:
            self.origin.refuse(
                where, f"the order of {', '.join(tree)} as layers is unknown",
                "give their states as a list, and only those of this layer",
            )  # fmt: skip
        found = []
        for key in sorted(tree, key=_number):
            found += self.layers(tree[key], _join(where, key))
        return found

    def _normal(self, tree: Tree, where: str) -> Tree:
        """Return the forms of a single library as nested dicts and lists."""
        if isinstance(tree, dict) and any(_PADDLE.fullmatch(key) for key in tree):
            tree = self._paddle(tree, where)
        if isinstance(tree, dict) and any(SUFFIXED.fullmatch(key) for key in tree):
            return self._suffixed(tree, where)
        if self.rows[0].library == "keras":
            return self._positional(tree, where)
        if self.rows[0].library == "onnx" and isinstance(tree, dict):
            if getattr(tree.get("W"), "ndim", 2) == 3:  # with an axis for the directions
                return self._onnx(tree, where)
        return tree

    def _paddle(self, tree: dict[str, Tree], where: str) -> dict[str, Tree]:
        """Return the parameters of a Paddle layer by PyTorch's names.

        Its state dict has each parameter twice, and only the names of the cells are right where
        there is a projection: then the others, such as ``weight_ih_l1``, are those of another one.
        """
        found = {}
        for key, value in tree.items():
            if match := _PADDLE.fullmatch(key):
                found[f"{match[3]}_l{match[1]}{'_reverse' if match[2] == '_bw' else ''}"] = value
            elif not SUFFIXED.fullmatch(key):
                self.origin.refuse(
                    _join(where, key), "not a weight of a recurrent layer",
                    "give the part of the layer",
                )  # fmt: skip
        return found

    def _suffixed(self, tree: dict[str, Tree], where: str) -> list[Tree]:
        """Return the layers of a flat dict with PyTorch's names."""
        layers: dict[int, dict[bool, dict[str, Tree]]] = {}
        for key, value in tree.items():
            match = SUFFIXED.fullmatch(key)
            if match is None:
                self.origin.refuse(
                    _join(where, key), "not a weight of a recurrent layer",
                    "give the part of the layer; a name is such as weight_ih_l0",
                )  # fmt: skip
            sides = layers.setdefault(int(match[2]), {})
            sides.setdefault(bool(match[3]), {})[match[1]] = value
        if [*sorted(layers)] != [*range(len(layers))]:
            self.origin.refuse(
                where, f"the layers are {sorted(layers)}", "they are counted from 0 without a gap"
            )
        ordered = [layers[number] for number in range(len(layers))]
        if any(False not in sides for sides in ordered):
            self.origin.refuse(
                where, "only the reverse direction of a layer is there",
                "give both directions; or remove '_reverse' from the names, and reverse the data",
            )  # fmt: skip
        return [
            {"forward": sides[False], "backward": sides[True]} if len(sides) == 2
            else next(iter(sides.values()))
            for sides in ordered
        ]  # fmt: skip

    def _positional(self, tree: Tree, where: str) -> Tree:
        """Return arrays in a list, or with digits as keys, as dicts with Keras's names."""
        if isinstance(tree, dict) and tree and all(key.isdigit() for key in tree):
            tree = [tree[key] for key in sorted(tree, key=int)]
        if isinstance(tree, dict) and {*tree} == {"vars"}:  # in a file of Keras
            return self._positional(tree["vars"], _join(where, "vars"))
        if not isinstance(tree, list) or any(isinstance(part, dict | list) for part in tree):
            return tree
        each = len(tree) if len(tree) in KERAS_NAMES else len(tree) // 2
        if each not in KERAS_NAMES or len(tree) % each:
            self.origin.refuse(
                where, f"{len(tree)} arrays, {', '.join(str(part.shape) for part in tree)}",
                "a layer has 2 or 3 (kernel, recurrent_kernel, bias), one with two directions 4 or "
                "6; give a stack as a list with such a list for each layer",
            )  # fmt: skip
        parts = [dict(zip(KERAS_NAMES[each], tree[i:], strict=False)) for i in (0, each)]
        return parts[0] if each == len(tree) else {"forward": parts[0], "backward": parts[1]}

    def _onnx(self, tree: dict[str, Tree], where: str) -> Tree:
        """Return the directions of ONNX's arrays (D, ...) as dicts."""
        count = len(tree["W"])
        for key, array in tree.items():
            fits = isinstance(array, np.ndarray) and array.ndim > 1 and len(array) == count
            if not fits:
                self.origin.refuse(
                    _join(where, key), f"{describe(array)}, W has {tree['W'].shape}",
                    "the first axis is the direction",
                )  # fmt: skip
        if count > 2:
            self.origin.refuse(_join(where, "W"), f"{count} directions", "1 or 2 are possible")
        parts = [{key: array[d] for key, array in tree.items()} for d in range(count)]
        return parts[0] if count == 1 else {"forward": parts[0], "backward": parts[1]}

    def _none(self, tree: Tree, where: str) -> NoReturn:
        """Raise since a part of the state is not a cell, and has none."""
        wanted = " or ".join(f"{row.cell} with {', '.join(row.keys)}" for row in self.rows)
        self.origin.refuse(
            where, f"no {self.rows[0].layer} of {self.origin.title} found, only "
            f"{describe(tree)}", f"expected is {wanted}; give the part of this layer",
        )  # fmt: skip


_CURES = {  # keys whose meaning is known, and that no layer here has
    "P": "peepholes: write a cell with them, a subclass of nn.Cell",
    "bias_hh": "a second bias: is it the state of another library?",
    "weight_hr": "a projection: is it the state of another library?",
}


def _without_number(name: str) -> str:
    return re.sub(r"_?\d+$", "", name)


def _number(name: str) -> int:
    match = re.search(r"\d+$", name)
    return int(match[0]) if match else 0
