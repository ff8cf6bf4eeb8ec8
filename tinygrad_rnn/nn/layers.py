"""Layers without recurrence: Linear, Embedding, Dropout, LayerNorm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from numpy.random import Generator

from .. import functional as F
from .. import random as tg_random
from ..engine.tensor import Tensor
from ..tensors import checks
from ..tensors.creation import ones, zeros
from . import init
from .module import Module, Parameter


class Linear(Module):
    """y = x Wᵀ + b.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last axis of x and of y.
    bias : bool
        Whether to add b.
    dtype : dtype, optional
        Of the parameters; the default floating dtype if None.
    device : str, optional
        Of the parameters; the default device if None.
    rng : int or Generator, optional
        Seed or generator of the initial values; the library's own generator if None.

    Attributes
    ----------
    weight : Parameter
        W, (out_features, in_features), initially U(-1/√in, 1/√in).
    bias : Parameter or None
        b, (out_features,), with the same initial distribution.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer, or an option is out of range.
    DTypeError
        If `dtype` is not floating.
    DeviceError
        If `device` is unknown or cannot be used.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> layer = tg.nn.Linear(3, 4)
    >>> layer(tg.ones(35, 32, 3)).shape
    (35, 32, 4)
    >>> layer(tg.ones(2, 5))
    Traceback (most recent call last):
    tinygrad_rnn.errors.ShapeError: Linear: input (2, 5) has 5 features, weight (4, 3) ...
    """

    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        dtype: Any = None,
        device: str | None = None,
        rng: int | Generator | None = None,
    ) -> None:
        super().__init__()
        rng = tg_random.generator(rng)
        in_features = checks.positive(in_features, "Linear: in_features")
        out_features = checks.positive(out_features, "Linear: out_features")
        bound = 1.0 / math.sqrt(in_features)
        self.weight = Parameter(zeros(out_features, in_features, dtype=dtype, device=device))
        init.uniform(self.weight, -bound, bound, rng)
        self.bias = None
        if bias:
            self.bias = Parameter(zeros(out_features, dtype=dtype, device=device))
            init.uniform(self.bias, -bound, bound, rng)

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b for x of shape (..., in_features)."""
        return F.linear(x, self.weight, self.bias)


class Embedding(Module):
    """A table of V vectors of length D, looked up by id.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        V and D.
    padding_idx : int, optional
        The id of padding, in [-V, V): its row is zero, and gets no gradient.
    dtype : dtype, optional
        Of the parameters; the default floating dtype if None.
    device : str, optional
        Of the parameters; the default device if None.
    rng : int or Generator, optional
        Seed or generator of the initial values; the library's own generator if None.

    Attributes
    ----------
    weight : Parameter
        (V, D), initially N(0, 1).
    padding_idx : int or None
        As given, from 0 on. It is a setting, not a part of `state_dict`.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer, or an option is out of range.
    DTypeError
        If `dtype` is not floating.
    DeviceError
        If `device` is unknown or cannot be used.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> table = tg.nn.Embedding(28, 16, padding_idx=0)
    >>> table([0, 0]).sum().item()
    0.0
    >>> table = tg.nn.Embedding(28, 16)
    >>> table(tg.zeros(35, 32, dtype=tg.int64)).shape
    (35, 32, 16)
    >>> table([3, 28])
    Traceback (most recent call last):
    tinygrad_rnn.errors.ArgumentError: Embedding: id 28 ... outside [0, 28)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        dtype: Any = None,
        device: str | None = None,
        rng: int | Generator | None = None,
    ) -> None:
        super().__init__()
        shape = (
            checks.positive(num_embeddings, "Embedding: num_embeddings"),
            checks.positive(embedding_dim, "Embedding: embedding_dim"),
        )
        self.weight = Parameter(zeros(shape, dtype=dtype, device=device))
        init.normal(self.weight, rng=rng)
        self.padding_idx: int | None = None
        if padding_idx is not None:
            self.padding_idx = checks.padding_row(padding_idx, shape[0])
            self.weight.data[self.padding_idx] = 0.0  # no graph has seen it yet

    def forward(self, ids: Any) -> Tensor:
        """Return the vectors, (*ids.shape, D), of integer ids of any shape."""
        return F.embedding(ids, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """Return the id of padding, if there is one."""
        return "" if self.padding_idx is None else f"padding_idx={self.padding_idx}"


class Dropout(Module):
    """In training, set elements to zero with probability p and scale the others by 1 / (1 - p).

    Parameters
    ----------
    p : float
        Probability of zero, in [0, 1].
    rng : int or Generator, optional
        Seed or generator of the masks; the library's own generator if None. Its state is not
        part of `state_dict`.

    Raises
    ------
    ArgumentError
        If `p` is not in [0, 1].

    Notes
    -----
    Srivastava and others, "Dropout: a simple way to prevent neural networks from overfitting",
    2014.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> layer = tg.nn.Dropout(0.5, rng=0)
    >>> sorted(set(layer(tg.ones(100)).numpy().tolist()))
    [0.0, 2.0]
    >>> layer.eval()(tg.ones(2))
    tensor([1., 1.])
    """

    def __init__(self, p: float = 0.5, rng: int | Generator | None = None) -> None:
        super().__init__()
        self.p = checks.number(p, "Dropout: p", 0, 1)
        # One generator for all calls: a seed gives different masks from call to call.
        self._rng = None if rng is None else tg_random.generator(rng)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with dropout in training mode, otherwise `x` itself."""
        return F.dropout(x, self.p, self.training, self._rng)

    def extra_repr(self) -> str:
        """Return the probability."""
        return f"p={self.p}"


class LayerNorm(Module):
    """y = (x - μ) / √(σ² + ε) · w + b, with mean μ and variance σ² over the last axes.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Sizes of the last axes of x, over which mean and variance are computed.
    eps : float
        ε, which prevents division by zero for a constant input.
    elementwise_affine : bool
        Whether to multiply by w and add b.
    bias : bool
        Whether to add b, if `elementwise_affine`.
    dtype : dtype, optional
        Of the parameters; the default floating dtype if None.
    device : str, optional
        Of the parameters; the default device if None.

    Attributes
    ----------
    weight : Parameter or None
        w, of shape `normalized_shape`, initially ones.
    bias : Parameter or None
        b, of shape `normalized_shape`, initially zeros.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer, or an option is out of range.
    DTypeError
        If `dtype` is not floating.
    DeviceError
        If `device` is unknown or cannot be used.

    Notes
    -----
    Ba, Kiros and Hinton, "Layer normalization", 2016, equation 4.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> layer = tg.nn.LayerNorm(256)
    >>> layer(tg.randn(35, 32, 256)).shape
    (35, 32, 256)
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: Any = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        sizes = checks.lengths((normalized_shape,), "LayerNorm: normalized_shape")
        self.normalized_shape = tuple(
            checks.positive(n, "LayerNorm: normalized_shape") for n in sizes
        )
        self.eps = checks.number(eps, "LayerNorm: eps", 0, math.inf)
        self.weight = self.bias = None
        if elementwise_affine:
            shape = self.normalized_shape
            self.weight = Parameter(ones(shape, dtype=dtype, device=device))
            if bias:
                self.bias = Parameter(zeros(shape, dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x, of shape (..., *normalized_shape)."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return ε, and the shape unless a parameter shows it."""
        shape = "" if self.weight is not None else f"{self.normalized_shape}, "
        return f"{shape}eps={self.eps}"
