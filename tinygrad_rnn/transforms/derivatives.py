"""Derivatives of functions: Jacobian and Hessian matrices, and products with them.

All are computed by `grad`. Each takes a function of Tensors and the inputs at which to
differentiate it; the inputs are not changed. With ``create_graph=True`` the result is part of the
graph of those inputs that require grad, and can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._util.api_hints import class_name
from .._util.functions import check_function
from ..engine.autograd import grad
from ..engine.grad_mode import enable_grad
from ..engine.tensor import Tensor
from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensors import reshape, stack
from ..tensors.creation import zeros, zeros_like

Function = Callable[..., Any]


def _listed(values: Any) -> list[Any]:
    return list(values) if isinstance(values, tuple | list) else [values]


def _like(given: Any, values: Sequence[Any]) -> Any:
    """Return a tuple if `given` is a sequence, else the only value."""
    return tuple(values) if isinstance(given, tuple | list) else values[0]


def _primals(name: str, inputs: Any, create_graph: bool) -> list[Tensor]:
    """Return a new Tensor for each input, so that other uses of the input in `fn` do not count.

    It is a computed Tensor, not a leaf, so that `fn` may execute ``x *= 2``.
    """
    primals = []
    for i, x in enumerate(_listed(inputs)):
        x = x if isinstance(x, Tensor) else Tensor(x)
        if x.dtype.kind != "f":
            raise DTypeError(f"{name}: input {i} is {x.dtype}: derivatives need floating inputs")
        if not (create_graph and x.requires_grad):
            x = x.detach()
            x.requires_grad = True
        primals.append(reshape(x, shape=None))
    return primals


def _call(name: str, fn: Function, primals: list[Tensor]) -> tuple[Any, list[Tensor]]:
    """Return the result of `fn`, and its Tensors as a list."""
    check_function(fn, name)
    given = fn(*primals)
    for y in _listed(given):
        if not isinstance(y, Tensor):
            raise ArgumentError(
                f"{name}: fn returns a Tensor or a tuple of Tensors, not {class_name(y)}"
            )
    return given, _listed(given)


def _vectors(name: str, of: str, v: Any, like: Sequence[Tensor]) -> list[Tensor]:
    """Return `v` as one Tensor for each of `like`, of its shape; None means the number 1."""
    if v is None:
        if len(like) != 1 or like[0].size != 1:
            shapes = ", ".join(str(x.shape) for x in like)
            raise ArgumentError(f"{name}: v is needed: one of the shape of each {of}, {shapes}")
        v = np.ones(like[0].shape)
    vectors = _listed(v)
    if len(vectors) != len(like):
        raise ArgumentError(f"{name}: {len(vectors)} vectors for {len(like)} {of}s")
    for i, (vector, x) in enumerate(zip(vectors, like, strict=True)):
        if not isinstance(vector, Tensor):
            vectors[i] = Tensor(vector, x.dtype, x.device)
        if vectors[i].shape != x.shape:
            raise ShapeError(
                f"{name}: v has shape {vectors[i].shape} for {of} {i} of shape {x.shape}"
            )
    return vectors


def _pull(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    v: Sequence[Tensor],
    create_graph: bool,
    retain_graph: bool | None = None,
) -> list[Tensor]:
    """Return Jᵀv: `grad`, with zeros for inputs that no output depends on."""
    pairs = [(y, u) for y, u in zip(outputs, v, strict=True) if y.requires_grad]
    grads = [None] * len(inputs)
    if pairs:
        ends, starts = zip(*pairs, strict=True)
        grads = grad(ends, inputs, starts, retain_graph, create_graph, allow_unused=True)
    return [zeros_like(x) if g is None else g for x, g in zip(inputs, grads, strict=True)]


def _result(given: Any, outputs: Sequence[Tensor], create_graph: bool) -> Any:
    return _like(given, outputs if create_graph else [y.detach() for y in outputs])


def _one_number(name: str, outputs: Sequence[Tensor]) -> None:
    if len(outputs) != 1 or outputs[0].size != 1:
        shapes = ", ".join(str(y.shape) for y in outputs)
        raise ShapeError(f"{name}: fn must return one number, it returned {shapes}: reduce it")


def vjp(fn: Function, inputs: Any, v: Any = None, create_graph: bool = False) -> Any:
    """Return ``fn(*inputs)`` and vᵀJ, the vector-Jacobian product: reverse mode.

    Parameters
    ----------
    fn : callable
        Takes Tensors, returns a Tensor or a tuple of Tensors.
    inputs : Tensor or sequence of Tensors
        The arguments of `fn`, floating.
    v : Tensor or sequence of Tensors, optional
        One of the shape of each output; 1 if there is one output of one element.
    create_graph : bool
        Record the results, to differentiate them again.

    Returns
    -------
    outputs
        The result of `fn`.
    products
        One for each input, of its shape; zeros where no output depends on it. A tuple if `inputs`
        is a sequence.

    Raises
    ------
    DTypeError
        If an input is not floating.
    ShapeError, ArgumentError
        If `v` does not fit the outputs, or is missing.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.vjp(lambda x: x * x, tg.tensor([1.0, 2.0]), tg.tensor([1.0, 10.0]))
    (tensor([1., 4.]), tensor([ 2., 40.]))
    """
    with enable_grad():
        primals = _primals("vjp", inputs, create_graph)
        given, outputs = _call("vjp", fn, primals)
        products = _pull(outputs, primals, _vectors("vjp", "output", v, outputs), create_graph)
    return _result(given, outputs, create_graph), _like(inputs, products)


def jvp(fn: Function, inputs: Any, v: Any = None, create_graph: bool = False) -> Any:
    """Return ``fn(*inputs)`` and Jv, the Jacobian-vector product: the derivative along v.

    Parameters
    ----------
    fn : callable
        Takes Tensors, returns a Tensor or a tuple of Tensors.
    inputs : Tensor or sequence of Tensors
        The arguments of `fn`, floating.
    v : Tensor or sequence of Tensors, optional
        One of the shape of each input; 1 if there is one input of one element.
    create_graph : bool
        Record the results, to differentiate them again.

    Returns
    -------
    outputs
        The result of `fn`.
    products
        One for each output, of its shape; zeros where it depends on no input. A tuple if `fn`
        returns one.

    Raises
    ------
    DTypeError
        If an input is not floating.
    ShapeError, ArgumentError
        If `v` does not fit the inputs, or is missing.

    Notes
    -----
    u ↦ Jᵀu is linear, so its own vjp is J: two backward passes give Jv (Townsend 2017,
    "A new trick for calculating Jacobian vector products"). So every operation that has a vjp has a
    jvp, also a user's, without a second table of rules. It costs a recorded backward pass, about
    three times the cost of forward mode.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.jvp(lambda x: x.sum() * x, tg.tensor([1.0, 2.0]), tg.tensor([1.0, 0.0]))
    (tensor([3., 6.]), tensor([4., 2.]))
    """
    with enable_grad():
        primals = _primals("jvp", inputs, create_graph)
        vectors = _vectors("jvp", "input", v, primals)
        given, outputs = _call("jvp", fn, primals)
        ends = [y for y in outputs if y.requires_grad]
        starts = [zeros_like(y) for y in ends]
        for u in starts:
            u.requires_grad = True
        pulled = _pull(ends, primals, starts, create_graph=True)
        moved = iter(_pull(pulled, starts, vectors, create_graph))
        products = [next(moved) if y.requires_grad else zeros_like(y) for y in outputs]
    return _result(given, outputs, create_graph), _like(given, products)


def hvp(fn: Function, inputs: Any, v: Any = None, create_graph: bool = False) -> Any:
    """Return ``fn(*inputs)`` and Hv, the product of its Hessian and a vector.

    Parameters
    ----------
    fn : callable
        Takes Tensors, returns a Tensor of one element.
    inputs : Tensor or sequence of Tensors
        The arguments of `fn`, floating.
    v : Tensor or sequence of Tensors, optional
        One of the shape of each input; 1 if there is one input of one element.
    create_graph : bool
        Record the results, to differentiate them again.

    Returns
    -------
    output : Tensor
        The result of `fn`.
    products
        One for each input, of its shape. A tuple if `inputs` is a sequence.

    Raises
    ------
    DTypeError
        If an input is not floating.
    ShapeError, ArgumentError
        If `v` does not fit the inputs, or `fn` returns more than one number.

    Notes
    -----
    The gradient of (∇f)ᵀv, H being symmetric: the cost of two gradients, never that of H
    (Pearlmutter 1994, "Fast exact multiplication by the Hessian").

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.hvp(lambda x: (x**3).sum(), tg.tensor([1.0, 2.0]), tg.tensor([1.0, 1.0]))
    (tensor(9.), tensor([ 6., 12.]))
    """
    with enable_grad():
        primals = _primals("hvp", inputs, create_graph)
        vectors = _vectors("hvp", "input", v, primals)
        given, outputs = _call("hvp", fn, primals)
        _one_number("hvp", outputs)
        first = _pull(outputs, primals, _vectors("hvp", "output", None, outputs), create_graph=True)
        products = _pull(first, primals, vectors, create_graph)
    return _result(given, outputs, create_graph), _like(inputs, products)


def jacobian(fn: Function, inputs: Any, create_graph: bool = False) -> Any:
    """Return the Jacobian of `fn`: the derivative of every output element by every input element.

    Parameters
    ----------
    fn : callable
        Takes Tensors, returns a Tensor or a tuple of Tensors.
    inputs : Tensor or sequence of Tensors
        The arguments of `fn`, floating.
    create_graph : bool
        Record the result, to differentiate it again.

    Returns
    -------
    Tensor, or tuple of Tensors
        Of shape ``output.shape + input.shape``. A tuple of one for each input if `inputs` is a
        sequence; a tuple of these, one for each output, if `fn` returns a tuple.

    Raises
    ------
    DTypeError
        If an input is not floating.

    Notes
    -----
    One backward pass for each element of the outputs.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.jacobian(lambda x: x.cumsum(axis=0), tg.tensor([1.0, 2.0, 3.0]))
    tensor([[1., 0., 0.],
            [1., 1., 0.],
            [1., 1., 1.]])
    """
    with enable_grad():
        primals = _primals("jacobian", inputs, create_graph)
        given, outputs = _call("jacobian", fn, primals)
        blocks = []
        for y in outputs:
            rows = []
            for i in range(y.size):
                unit = np.zeros(y.shape)
                unit.flat[i] = 1
                v = Tensor(unit, y.dtype, y.device)
                rows.append(_pull([y], primals, [v], create_graph, retain_graph=True))
            block = [
                reshape(stack(column), shape=y.shape + x.shape)
                for column, x in zip(zip(*rows, strict=True), primals, strict=False)
            ] or [zeros(y.shape + x.shape, dtype=x.dtype, device=x.device) for x in primals]
            blocks.append(_like(inputs, block))
    return _like(given, blocks)


def hessian(fn: Function, inputs: Any, create_graph: bool = False) -> Any:
    """Return the Hessian of `fn`: its second derivatives by every two input elements.

    Parameters
    ----------
    fn : callable
        Takes Tensors, returns a Tensor of one element.
    inputs : Tensor or sequence of Tensors
        The arguments of `fn`, floating.
    create_graph : bool
        Record the result, to differentiate it again.

    Returns
    -------
    Tensor, or tuple of tuples of Tensors
        Of shape ``input.shape + input.shape``; block [i][j], of shape
        ``inputs[i].shape + inputs[j].shape``, if `inputs` is a sequence.

    Raises
    ------
    DTypeError
        If an input is not floating.
    ShapeError
        If `fn` returns more than one number.

    Notes
    -----
    The Jacobian of the gradient: a backward pass for each element of the inputs. Where products
    with the Hessian are all that is needed, `hvp` costs one.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.hessian(lambda x: x[0] * x[1] ** 2, tg.tensor([1.0, 3.0]))
    tensor([[0., 6.],
            [6., 2.]])
    """

    def gradient(*primals: Tensor) -> Any:
        _, outputs = _call("hessian", fn, list(primals))
        _one_number("hessian", outputs)
        ones = _vectors("hessian", "output", None, outputs)
        return _like(inputs, _pull(outputs, primals, ones, create_graph=True))

    return jacobian(gradient, inputs, create_graph)
