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
    "add": "+",
    "mul": "*",
    "sub": "-",
    "div": "/",
    "pow": "**",
    "matmul": "@",
    "dot": "@",
    "dim": ".ndim",
    "chunk": "split(sections, axis)",
    "index_select": "take(indices, axis)",
    "gather": "take_along_axis(indices, axis)",
    "masked_fill": "tinygrad_rnn.where(mask, value, x)",
    "flatten": "reshape(-1)",
    "ravel": "reshape(-1)",
    "repeat": "tinygrad_rnn.concatenate([x] * n), or broadcast_to(shape)",
    "mT": "swapaxes(-1, -2)",
    "norm": "(x * x).sum() ** 0.5",
    "tolist": ".numpy().tolist()",
    "any": ".numpy().any()",
    "all": ".numpy().all()",
    "argsort": ".numpy().argsort(axis)",
    "cumprod": "tinygrad_rnn.stack of the products of the first 1, 2, … elements",
    "diagonal": 'tinygrad_rnn.einsum("...ii->...i", x)',
    "diff": "x[1:] - x[:-1]",
    "floor": "x // 1, which has no gradient",
    "hstack": "tinygrad_rnn.concatenate(list, axis=1)",
    "inner": "x @ y.T",
    "log10": "log(x) / math.log(10)",
    "nonzero": ".numpy().nonzero()",
    "outer": "x.reshape(-1, 1) * y.reshape(-1)",
    "reciprocal": "1 / x",
    "roll": "take(indices, axis)",
    "sort": "take_along_axis(x.numpy().argsort(axis), axis)",
    "square": "x * x",
    "tile": "tinygrad_rnn.concatenate([x] * n), or broadcast_to(shape)",
    "topk": "take_along_axis(x.numpy().argsort(axis), axis), the last k of it",
    "trace": 'tinygrad_rnn.einsum("ii", x)',
    "tril": "x * numpy.tri(n, m)",
    "triu": "x * (1 - numpy.tri(n, m, -1))",
    "vstack": "tinygrad_rnn.concatenate(list)",
    "round": ".numpy(), which has no gradient",
    "half": "astype(tinygrad_rnn.float16)",
    "type": "astype(dtype)",
    "type_as": "astype(other.dtype)",
    "clone": "x itself, which no operation changes; tinygrad_rnn.tensor(x) for a new leaf",
    "copy": "x itself, which no operation changes; tinygrad_rnn.tensor(x) for a new leaf",
    "is_cuda": ".device",
    "new_zeros": "tinygrad_rnn.zeros(shape, dtype=x.dtype, device=x.device)",
    "retain_grad": "tinygrad_rnn.grad(output, x)",
    "register_hook": "tinygrad_rnn.grad(output, x)",
    "fill_": "x.data = array, of a leaf",
    "zero_": "x.data = array, of a leaf",
    "add_": "x.data = array, of a leaf",
    "mul_": "x.data = array, of a leaf",
    "copy_": "x.data = array, of a leaf",
}
OF_THE_PACKAGE = OTHER_NAMES | {
    "array": "tensor(data)",
    "from_numpy": "tensor(array), which copies, or from_dlpack(array), which does not",
    "as_tensor": "tensor(array), which copies, or from_dlpack(array), which does not",
    "empty": "zeros(shape)",
    "array_split": "split(x, places)",
    "astype": "x.astype(dtype)",
    "average": "(x * w).sum() / w.sum()",
    "empty_like": "zeros_like(x)",
    "exp2": "2.0 ** x",
    "float_power": "x ** y",
    "full_like": "full(x.shape, value, dtype=x.dtype, device=x.device)",
    "log2": "log(x) / math.log(2)",
    "matrix_transpose": "swapaxes(x, -1, -2)",
    "set_grad_enabled": "no_grad() and enable_grad()",
    "inference_mode": "no_grad()",
    "autograd": "tinygrad_rnn.grad, .backward()",
    "mse_loss": "functional.mse_loss",
    "cross_entropy": "functional.cross_entropy",
    "dropout": "functional.dropout",
    "one_hot": "functional.one_hot",
    "Linear": "nn.Linear",
    "Module": "nn.Module",
    "Parameter": "nn.Parameter",
    "LSTM": "nn.LSTM",
    "Adam": "optim.Adam",
    "SGD": "optim.SGD",
}
OTHER_ARGUMENTS = {
    "dim": "axis",
    "dims": "axes",
    "keepdim": "keepdims",
    "unbiased": "ddof",
    "correction": "ddof",
    "generator": "rng",
    "a_min": "min",
    "a_max": "max",
    "end": "stop",
    "steps": "num",
    "N": "n",
    "M": "m",
}
ABSENT_ARGUMENTS = {  # of NumPy's functions
    "casting": ".astype(dtype)",
    "dtype": ".astype(dtype)",
    "initial": "x + initial, and its like, of the result",
    "order": "'C', which is how elements are counted",
    "out": "a result, which is a new tensor each time",
    "where": "tinygrad_rnn.where(mask, x, 0) in place of x",
}


PUBLIC_NAMES = {  # of the primitives that a user calls by another name
    "cast": "astype",
    "affine_map": "linear",
    "contract": "einsum",
    "linear_map": "linear",
    "cumsum_along": "cumsum",
    "gemm": "matmul",
    "index": "indexing",
    "join": "concatenate",
    "nats": "cross_entropy",
    "permute": "transpose",
    "sequence": "stack",
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
        return f"{function} has no argument {name!r}: {takes}; {name}= is {ours}= here"
    if name == "create_graph":
        takes += "; derivatives of derivatives are the business of tinygrad_rnn.grad"
    return f"{function} has no argument {name!r}{hint(name, ABSENT_ARGUMENTS, names)}: {takes}"


def absent(module: str, others: Mapping[str, str], known: Mapping[str, Any]) -> Any:
    """Return a module's ``__getattr__``: it raises, with our name for what was asked for."""

    def __getattr__(name: str) -> Any:
        public = [other for other in known if not other.startswith("_")]
        raise AttributeError(
            f"module {module!r} has no attribute {name!r}{hint(name, others, public)}"
        )

    return __getattr__


def explained(function: Function) -> Function:
    """Let a public function answer a call that does not fit it with its own arguments' names.

    What it raises itself begins with its name, too, whoever inside has found the mistake.
    """
    signature = inspect.signature(function)
    names = [p for p in signature.parameters if p != "self"]

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        try:
            return function(*args, **keywords)
        except (TypeError, ValueError, IndexError) as error:
            name = function.__qualname__.replace("Variable", "Tensor")
            if function.__name__ == "__init__" and args:
                name = type(args[0]).__name__
            problem = _misfit(name, args, keywords) if type(error) is TypeError else None
            if problem is None:  # the call was right: the error comes from inside
                begin(error, name)
                raise
        raise TypeError(problem)

    def _misfit(name: str, args: Any, keywords: Any) -> str | None:
        try:
            signature.bind(*args, **keywords)
        except TypeError as error:
            unknown = [k for k in keywords if k not in signature.parameters]
            if unknown:
                return unknown_argument(name, unknown[0], names)
            takes = f"it takes {', '.join(names)}"
            if not names:
                takes = f"it takes nothing; as a decorator it is written @{name}()"
            return f"{name} was called wrongly, {error}: {takes}"
        return None

    return call  # type: ignore[return-value]


def begin(error: Exception, name: str) -> Exception:
    """Let a message of the library begin with the name of what the user called."""
    ours = isinstance(error, IndexError) or type(error).__module__.startswith(__package__)
    begins = str(error).lower().replace("_", "").startswith(name.lower().replace("_", ""))
    if ours and error.args and not begins:
        error.args = (f"{name}: {error.args[0]}", *error.args[1:])
    return error
