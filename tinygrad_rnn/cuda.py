"""CUDA devices: whether one can be used, and functions as CUDA graphs."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

from ._util import gpu
from ._util.functions import check_function
from ._util.nested import leaves, map_nested
from .engine import backend
from .engine.ops import kernels
from .engine.tensor import Tensor
from .errors import ArgumentError


class Availability:
    """A truth value, with the reason if it is false.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> available = tg.cuda.is_available()
    >>> bool(available) == (available.reason is None)
    True
    """

    def __init__(self, reason: str | None) -> None:
        self.reason = reason

    def __bool__(self) -> bool:
        return self.reason is None

    def __repr__(self) -> str:
        return "True" if self else f"False ({self.reason})"


def is_available() -> Availability:
    """Return whether a CUDA device can be used: a truth value; printing it shows the reason.

    Returns
    -------
    Availability
        True or False in conditions. Its ``reason`` is None if a device can be used, or else a str.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> device = "cuda" if tg.cuda.is_available() else "cpu"
    """
    return Availability(backend.cuda_unavailable_because())


class GraphedFunction:
    """A function that runs as a CUDA graph; made by `graph`.

    Parameters
    ----------
    function : callable
        As of `graph`.

    Attributes
    ----------
    reason : str
        Why the last call was not a graph; empty if it was.

    Raises
    ------
    ArgumentError
        At a call: an argument requires a gradient, or the function is a method that was
        decorated in its class.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> double = tg.cuda.graph(lambda x: 2 * x)
    >>> double(tg.ones(2))
    tensor([2., 2.])
    >>> double.reason
    'it computes on the CPU'
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.reason = "it was not called"
        self.__name__: str = getattr(function, "__name__", type(function).__name__)
        self.__wrapped__ = function
        # Those of each thread. Here, so that an object can hold the graph of its own method.
        self._graphs: Any = weakref.WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        return {name: x for name, x in vars(self).items() if name != "_graphs"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _graphs=weakref.WeakKeyDictionary())

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Call the function; see `graph`."""
        tensors = [x for x in leaves((args, keywords)) if isinstance(x, Tensor)]
        if any(x.requires_grad for x in tensors):
            raise ArgumentError(
                f"cuda.graph: an argument of {self.__name__} requires a gradient: detach() it, or "
                "let the function read it as a global or an attribute, as parameters are"
            )
        result: Any = NotImplemented
        self.reason = "it computes on the CPU"
        used = gpu.is_used(backend.modules, backend.CUPY[0])
        if used and (not tensors or any(x.device != "cpu" for x in tensors)):
            run: Any = kernels.on_gpu.get("run_graph")
            self.reason = "the function raised an error"
            if run is None:
                self.reason = "tinygrad_rnn.speed is not installed"
            else:
                result, self.reason = run(self, args, keywords)
        if result is NotImplemented:
            result = self.__wrapped__(*args, **keywords)
        return map_nested(lambda x: x.detach() if isinstance(x, Tensor) else x, result)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is not None:
            raise ArgumentError(
                f"cuda.graph: {self.__name__} is a method: decorate a function, or the bound "
                "method, such as step = tg.cuda.graph(trainer.step)"
            )
        return self

    def __repr__(self) -> str:
        return f"<cuda.graph of {self.__name__}>"


def graph(function: Callable[..., Any]) -> GraphedFunction:
    """Return a function that runs on a GPU as one CUDA graph: one launch for all that it computes.

    It is for functions whose every call computes the same with other numbers, such as a training
    step with its backward pass, clipping and update. The first two calls with arguments of certain
    shapes run as usual. The third is captured, and is a graph as all later ones are. On the CPU
    the function is called.

    Parameters
    ----------
    function : callable
        Its arguments are Tensors on the current device that require no gradient, of any shapes and
        dtypes; numbers, strings and None, each value with a graph of its own; and tuples, lists and
        dicts of these. It returns Tensors, numbers and None, likewise nested.

    Returns
    -------
    GraphedFunction
        The results are those of `function`, detached. Its attribute ``reason`` tells why the last
        call was not a graph; it is empty if it was.

    Raises
    ------
    ArgumentError
        If `function` is not callable, or is a class; at a call, if an argument requires a
        gradient, or the function is a method that was decorated in its class: decorate the bound
        method, ``step = tg.cuda.graph(trainer.step)``.

    Warns
    -----
    ExecutorWarning
        If the function cannot be captured, with the reason and the line: the calls run as usual.

    Notes
    -----
    A graph repeats the launches of one call. So a function is refused if it reads a value from the
    device (``loss.item()``, ``print(loss)``), copies from the host, computes on the CPU, changes
    attributes or lists, takes the next element of an iterator, draws random numbers on the host
    (``random.random()``), or adds to gradients of earlier calls: begin or end with
    ``zero_grad()``. These are repeated as in an ordinary call: random numbers (dropout), which are
    the same as without a graph; the learning rate, which may change between calls; and the
    gradients of leaves, which have the memory of the graph, so that the next call overwrites them.

    When something that the function reaches has another value, the call runs as usual, and the
    next one is captured again: a global, an attribute, the array of a parameter, a module's
    ``training``. Changes elsewhere go unnoticed: the contents of a file, the clock, the elements
    of arrays of the host and containers that have more than 1000, the attributes of a scheduler,
    and writes of the function to ``x.data[...]`` of an argument.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> device = "cuda" if tg.cuda.is_available() else "cpu"
    >>> with tg.default_device(device):
    ...     layer, head = tg.nn.GRU(3, 8), tg.nn.Linear(8, 1)
    ...     parameters = [*layer.parameters(), *head.parameters()]
    ...     optimizer = tg.optim.Adam(parameters)
    >>> @tg.cuda.graph
    ... def train(x, y, state):
    ...     optimizer.zero_grad()
    ...     output, state = layer(x, state)
    ...     loss = tg.functional.mse_loss(head(output), y)
    ...     loss.backward()
    ...     tg.optim.clip_grad_norm(parameters, 1.0)
    ...     optimizer.step()
    ...     return loss, state
    >>> x, y = tg.randn(5, 2, 3, device=device), tg.randn(5, 2, 1, device=device)
    >>> state = tg.zeros(1, 2, 8, device=device)
    >>> for _ in range(4):
    ...     loss, state = train(x, y, state)
    >>> loss.shape
    ()
    """
    check_function(function, "cuda.graph", classes=False)
    return GraphedFunction(function)
