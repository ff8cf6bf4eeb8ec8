"""What other libraries call by another name: the errors for unknown names answer with ours."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

OTHER_NAMES = {
    "view": "reshape(shape)",
    "unsqueeze": "expand_dims(axis)",
    "permute": "transpose(axes)",
    "contiguous": "nothing: layout is the library's business",
    "cpu": 'to("cpu")',
    "cuda": 'to("cuda")',
    "float": "astype(tinygrad_rnn.float32)",
    "double": "astype(tinygrad_rnn.float64)",
    "long": "astype(tinygrad_rnn.int64)",
    "requires_grad_": "requires_grad = True",
    "mm": "@",
    "t": ".T",
    "numel": ".size",
    "cat": "concatenate",
    "expand": "broadcast_to(shape)",
    "clamp": "clip(min, max)",
}
OTHER_ARGUMENTS = {
    "dim": "axis",
    "dims": "axes",
    "keepdim": "keepdims",
    "unbiased": "ddof",
    "correction": "ddof",
    "generator": "rng",
}


PUBLIC_NAMES = {  # of the primitives that a user calls by another name
    "cast": "astype",
    "contract": "einsum",
    "cumsum_along": "cumsum",
    "gemm": "matmul",
    "index": "indexing",
    "join": "concatenate",
    "nats": "cross_entropy",
    "permute": "transpose",
    "pile": "stack",
    "smoothed_one_hot": "cross_entropy",
    "to_device": "to",
}


def hint(name: str, others: Mapping[str, str], known: Iterable[str] = ()) -> str:
    """Return what an error for an unknown name ends with: our name for it, or one much like it."""
    if name in others:
        return f"; here it is {others[name]}"
    near = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def unknown_argument(function: str, name: str, names: list[str]) -> str:
    """Return the message for an argument that a function does not have."""
    takes = f"it takes {', '.join(names)}" if names else "it takes nothing"
    ours = OTHER_ARGUMENTS.get(name)
    if ours in names:
        return f"{function} has no argument {name!r}: {takes}; PyTorch's {name}= is {ours}= here"
    return f"{function} has no argument {name!r}{hint(name, {}, names)}: {takes}"


def absent(module: str, others: Mapping[str, str], known: Mapping[str, Any]) -> Any:
    """Return a module's ``__getattr__``: it raises, with our name for what was asked for."""

    def __getattr__(name: str) -> Any:
        public = [other for other in known if not other.startswith("_")]
        raise AttributeError(
            f"module {module!r} has no attribute {name!r}{hint(name, others, public)}"
        )

    return __getattr__


def explained(function: Function) -> Function:
    """Let a public function answer a call that does not fit it with its own arguments' names."""
    signature = inspect.signature(function)
    name = function.__qualname__.removesuffix(".__init__")
    names = [p for p in signature.parameters if p != "self"]

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        try:
            return function(*args, **keywords)
        except (TypeError, ValueError, IndexError) as error:
            problem = _misfit(args, keywords) if type(error) is TypeError else None
            if problem is None:  # the call was right: the error comes from inside
                _name(error)
                raise
        raise TypeError(problem)

    def _name(error: Exception) -> None:
        """Let a message of the library begin with what the user called."""
        ours = isinstance(error, IndexError) or type(error).__module__.startswith(__package__)
        begins = str(error).lower().replace("_", "").startswith(name.lower().replace("_", ""))
        if ours and error.args and not begins:
            error.args = (f"{name}: {error.args[0]}", *error.args[1:])

    def _misfit(args: Any, keywords: Any) -> str | None:
        try:
            signature.bind(*args, **keywords)
        except TypeError as error:
            unknown = [k for k in keywords if k not in signature.parameters]
            if unknown:
                return unknown_argument(name, unknown[0], names)
            takes = f"it takes {', '.join(names)}" if names else "it takes nothing"
            return f"{name} was called wrongly, {error}: {takes}"
        return None

    return call  # type: ignore[return-value]
