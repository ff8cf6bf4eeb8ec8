"""Models as files: architecture, vocabulary, scaler and weights in one file, and their way back."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from .. import bptt, nn
from .. import random as tg_random
from .._util import LIBRARY
from .._util.api_hints import class_name
from ..data.text import Vocabulary
from ..errors import ArgumentError, CheckpointError
from ..io import load as load_state
from ..io import save as save_state

_KEY = "saved_model"  # the name of the model in the file's state
_CLASSES = {"class": None, "library class": False, "own class": True}  # the first: before both
# The constructor arguments of the strategies that are saved, which are attributes as well.
_STRATEGIES = {"Full": ("checkpoint",), "Truncated": ("steps", "stride"),
               "Randomized": ("keep", "max_steps")}  # fmt: skip


class SavedModel:
    """A model that can be saved: it knows the arguments that it was made with."""

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor, by name, without those of its weights."""
        raise NotImplementedError(
            f"{class_name(self)} does not define _arguments(), the arguments of its constructor as "
            "a dict: define it, or save a state alone, tg.save(path, ...)"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the model to one file: its architecture, vocabulary, scaler and weights.

        Frozen parameters (``requires_grad = False``) are frozen in the loaded model, too.

        Parameters
        ----------
        path : str or path
            The file. It is replaced atomically.

        Raises
        ------
        ArgumentError
            If an argument of the model cannot be saved, such as a cell that is an instance, or if
            the model was changed after it was made, so that `models.load` could not make it again.
            No file was changed.
        OSError
            If writing fails. The old file is unchanged.

        See Also
        --------
        models.load : The inverse.
        save : The state of a whole run, to be resumed.

        Examples
        --------
        >>> import os, tempfile
        >>> import tinygrad_rnn as tg
        >>> path = os.path.join(tempfile.mkdtemp(), "model.npz")
        >>> vocab = tg.data.text.Vocabulary("the time machine")
        >>> model = tg.models.RecurrentLM(tg.nn.GRUCell, vocab, 16, embedding_dim=8)
        >>> model.save(path)
        >>> tg.models.load(path).score("time") == model.score("time")
        True
        """
        kind = type(self).__name__
        arguments = self._arguments()
        state: Mapping[str, Any] = self.state_dict()  # type: ignore[attr-defined]
        saved = {name: _encoded(kind, name, value) for name, value in arguments.items()}
        if isinstance(self, nn.Module):
            _check_unchanged(self, arguments, state)
        parameters = self.named_parameters() if isinstance(self, nn.Module) else ()
        content = {
            "class": kind,
            "own": not _is_library(type(self)),
            "arguments": saved,
            "weights": state,
            "frozen": [name for name, p in parameters if not p.requires_grad],
        }
        save_state(path, **{_KEY: content})


def load(
    path: str | os.PathLike[str],
    classes: Iterable[type] = (),
    tokenizer: Callable[[str], Iterable[str]] | None = None,
    device: str | None = None,
) -> Any:
    """Return the model of a file that ``model.save`` wrote.

    Parameters
    ----------
    path : str or path
        The file.
    classes : iterable of classes
        Your own cells and models that the file names: classes are not saved. A class of yours that
        has the name of one of the library is never taken for that, nor that one for yours.
    tokenizer : callable, optional
        The tokenizer of the vocabulary, if it had one: functions are not saved.
    device : str, optional
        The device of the parameters. Default: the default device.

    Returns
    -------
    Classifier, Forecaster, RecurrentLM, NeuralLM, NGram
        With the weights, vocabulary and scaler of the file, in the dtypes that were saved, with
        the same parameters frozen; in training mode, as a new model. The state of the library's
        random generator is unchanged.

    Raises
    ------
    ArgumentError
        If the file has no model, or names a class that is not in `classes`, or its tokenizer is
        missing.
    CheckpointError
        If the file is damaged, or was not written by this library.
    OSError
        If the file does not exist or cannot be read.

    Examples
    --------
    >>> import os, tempfile
    >>> import tinygrad_rnn as tg
    >>> path = os.path.join(tempfile.mkdtemp(), "model.npz")
    >>> tg.models.NGram(3, tg.data.text.Vocabulary("machine")).fit("machine").save(path)
    >>> tg.models.load(path).sample("mac", 4, top_k=1)
    'hine'
    """
    known = _known(classes)
    if tokenizer is not None and not callable(tokenizer):
        raise ArgumentError(
            f"models.load: tokenizer: the function of the vocabulary is expected, got "
            f"{tokenizer!r:.40}"
        )
    file = load_state(path)
    if _KEY not in file:
        raise ArgumentError(
            f"models.load: {str(path)!r} has no model of model.save, but {', '.join(file)}: it is "
            "a checkpoint: read it by tinygrad_rnn.load(path), make the model as it was made, and "
            "call its load_state_dict; or continue its run, by training.Checkpoint(path, "
            "resume=True)"
        )
    try:
        saved = file[_KEY]
        kind, arguments, weights = (saved[name] for name in ("class", "arguments", "weights"))
        own, frozen = saved.get("own"), saved.get("frozen", [])  # not in an earlier version
        _check_content(kind, weights, frozen)
        decoded = {n: _decoded(known, tokenizer, v) for n, v in arguments.items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"models.load: {str(path)!r}: the model in it is incomplete ({error!r}): it was not "
            "written by model.save: save the model again"
        ) from error
    found = _class_of(known, kind, own)
    random = tg_random.get_state()
    try:  # the initial weights are not used
        model = found(**decoded)
    except TypeError as error:
        raise ArgumentError(
            f"models.load: {kind}({', '.join(decoded)}) of the file cannot be made: {error}: pass "
            "the classes as they were when the file was saved"
        ) from error
    finally:
        tg_random.set_state(random)
    if isinstance(model, nn.Module):
        _take_dtypes(model, weights)
        if device is not None:
            model.to(device)
    model.load_state_dict(weights)
    if isinstance(model, nn.Module):
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name not in frozen
    return model


def _check_content(kind: Any, weights: Any, frozen: Any) -> None:
    """Raise unless the parts of a file are of the types that `save` writes."""
    for value, expected in ((kind, str), (weights, dict), (frozen, list)):
        if not isinstance(value, expected):
            raise TypeError(f"{value!r:.40} in place of a {expected.__name__}")


def _library() -> dict[str, type]:
    """Return the classes of the library that a file can name."""
    names = {**vars(nn), **vars(sys.modules[__package__])}
    classes = {n: v for n, v in names.items() if isinstance(v, type)}
    return {n: v for n, v in classes.items() if issubclass(v, nn.Cell | SavedModel)}


def _is_library(one: type) -> bool:
    return _library().get(one.__name__) is one


def _known(others: Iterable[type]) -> dict[str, type]:
    """Return the given classes by their names."""
    given = list(others) if isinstance(others, Iterable) else [others]
    for one in given:
        if not isinstance(one, type):
            raise ArgumentError(
                f"models.load: classes: a list of classes is expected, such as classes=[MyCell], "
                f"got a {class_name(one)}"
            )
    named = {one.__name__: one for one in given}
    if len(named) < len({*given}):
        shown = ", ".join(f"{one.__module__}.{one.__qualname__}" for one in given)
        raise ArgumentError(f"models.load: classes: two have the same name: {shown}: pass one")
    return named


def _class_of(known: dict[str, type], name: Any, own: bool | None) -> Any:
    """Return a class of a file; `own` is None in files of a version that did not record it."""
    found = None if own is False else known.get(name)
    if found is None and not own:
        found = _library().get(name)
    if found is None:
        raise ArgumentError(
            f"models.load: the file names the class {name}, which is not one of the library: "
            f"import it from your program and pass it, tg.models.load(path, classes=[{name}])"
        )
    return found


def _encoded(kind: str, name: str, value: Any) -> Any:
    """Return an argument of a model as values that `tg.save` can save."""
    if isinstance(value, Vocabulary):
        return {"kind": "vocabulary", "value": value.state_dict()}
    if isinstance(value, type) and issubclass(value, nn.Cell):
        kind_of_class = "library class" if _is_library(value) else "own class"
        return {"kind": kind_of_class, "value": value.__name__}
    if isinstance(value, bptt.Strategy) and type(value).__name__ in _STRATEGIES:
        names = _STRATEGIES[type(value).__name__]
        arguments = {n: _encoded(kind, f"{name}.{n}", getattr(value, n)) for n in names}
        return {"kind": "strategy", "value": [type(value).__name__, arguments]}
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return {"kind": "dtype", "value": np.dtype(value).name}
    if isinstance(value, list | tuple):
        return [_encoded(kind, f"{name}[{i}]", item) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        return value
    cure = "make it with a number, a string or a class in its place"
    if name.startswith("cell"):
        cure = f"make the model with the class, {kind}(MyCell, ...), not with instances"
    if isinstance(value, bptt.Strategy):
        cure = "assign bptt = None to its recurrent layers before"
    raise ArgumentError(
        f"{kind}.save: {name} = {value!r:.80} cannot be saved: {cure}; or save the weights alone, "
        "tg.save(path, model=model)"
    )


def _decoded(known: dict[str, type], tokenizer: Any, value: Any) -> Any:
    """Return the argument of an `_encoded` value."""
    if isinstance(value, list):
        return [_decoded(known, tokenizer, item) for item in value]
    if not isinstance(value, dict):
        return value
    kind, content = value["kind"], value["value"]
    if kind == "vocabulary":
        return Vocabulary.from_state_dict(content, tokenizer)
    if kind in _CLASSES:
        return _class_of(known, content, _CLASSES[kind])
    if kind == "strategy":
        name, arguments = content
        names = {n: _decoded(known, tokenizer, v) for n, v in arguments.items()}
        return getattr(bptt, name)(**names)
    return np.dtype(content)


def _check_unchanged(model: Any, arguments: dict[str, Any], state: Mapping[str, Any]) -> None:
    """Raise unless the arguments make a model with parameters of the same names and shapes."""
    random = tg_random.get_state()
    try:
        fresh = type(model)(**arguments)
    except TypeError as error:
        raise ArgumentError(
            f"{type(model).__name__}.save: {type(model).__name__}({', '.join(arguments)}) cannot "
            f"be made: {error}: give its __init__ the arguments of the class that it extends, or "
            "define _arguments(self), which returns those that it has, or save the weights, "
            "tg.save(path, model=model)"
        ) from error
    finally:
        tg_random.set_state(random)
    made = {name: value.shape for name, value in fresh.state_dict().items()}
    for name in [*state, *made]:
        seen = state[name].shape if name in state else "missing"
        if name not in made or seen != made[name]:
            raise ArgumentError(
                f"{type(model).__name__}.save: {name} is {seen}, and {made.get(name, 'missing')} "
                "in a new model with the same arguments: the model was changed after it was made, "
                "so the file could not make it again: save the weights, tg.save(path, model=model)"
                ", and repeat the change before load_state_dict"
            )
    _check_settings(model, fresh)
    # A tied parameter has one name here.
    fresh_names, names = ({n for n, _ in m.named_parameters()} for m in (fresh, model))
    if missing := sorted(fresh_names - names):
        raise ArgumentError(
            f"{type(model).__name__}.save: {', '.join(missing)} is tied to another parameter, and "
            "would be separate after models.load: save the weights, tg.save(path, model=model), "
            "and tie them again after load_state_dict"
        )


def _check_settings(model: nn.Module, fresh: nn.Module) -> None:
    """Raise unless the modules of the library have the classes and settings of a new model."""
    made = dict(fresh.named_modules())
    for where, module in model.named_modules():
        if where not in made:  # without parameters, so that it adds nothing that is saved
            continue
        other = made[where]
        seen = {"class": type(module).__name__} | _settings(module)
        for name, value in ({"class": type(other).__name__} | _settings(other)).items():
            if seen.get(name) != value:
                raise ArgumentError(
                    f"{type(model).__name__}.save: {where or 'model'}: {name} is "
                    f"{seen.get(name)!r}, and {value!r} in a new model with the same arguments: it "
                    "was changed after the model was made, so the file could not make it again: "
                    "pass it as an argument, or save the weights, tg.save(path, model=model), and "
                    "repeat the change before load_state_dict"
                )


def _settings(module: nn.Module) -> dict[str, Any]:
    """Return the numbers and texts among the attributes of a module of the library."""
    if not type(module).__module__.startswith(f"{LIBRARY}."):
        return {}  # yours may have attributes of any meaning, such as a count
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, bool | int | float | str) and name != "training" and name[0] != "_"
    }


def _take_dtypes(model: nn.Module, weights: Mapping[str, Any]) -> None:
    """Give the new model's parameters and buffers the dtypes that were saved."""
    for name, own in [*model.named_parameters(), *model.named_buffers()]:
        saved = getattr(weights.get(name), "dtype", own.dtype)
        if own.dtype.kind == "f" == saved.kind:
            own._rebind(own._data.astype(saved))
