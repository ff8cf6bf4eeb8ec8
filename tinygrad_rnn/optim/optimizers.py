"""Optimisers. The docstring of each gives its update rule in the order of the code.

An update rule works in place on the parameter's array, on its optimizer state (running averages)
and on one scratch array. Learning rate and step count are 0-d float64 arrays on the parameter's
device, so that an update never reads a value back from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._util.api_hints import (
    MissingAttribute,
    UnassignableAttribute,
    class_name,
    conversion_hint,
    explain_errors,
)
from .._util.state_keys import check_keys, key_problems, raise_problems
from ..engine import backend
from ..engine.backend import Array
from ..engine.ops import kernels
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from ..nn import Parameter
from ..tensors import checks

_CURES = {  # by the type of a wrong element in a list of parameters
    "dict": "; groups are a list of dicts alone, without tensors between them",
    "tuple": "; named_parameters() gives pairs, parameters() the parameters alone",
    "str": "; of a dict take the .values()",
}
_GROUP = 'a group is a dict {"params": [...], "lr": 0.01, "weight_decay": 0.0}'
_BELOW = {  # every hyperparameter is in [0, bound)
    "lr": math.inf,
    "momentum": 1.0,
    "alpha": 1.0,
    "beta1": 1.0,
    "beta2": 1.0,
    "eps": math.inf,
    "weight_decay": math.inf,
}


class ParamGroup(dict[str, Any]):
    """The parameters and the settings of a group, as `Optimizer.param_groups` shows them.

    Raises
    ------
    ArgumentError
        If a value is assigned, which would change nothing.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> layer = tg.nn.Linear(2, 3)
    >>> groups = [{"params": [layer.weight]}, {"params": [layer.bias], "lr": 0.2}]
    >>> [group["lr"] for group in tg.optim.SGD(groups, lr=0.1).param_groups]
    [0.1, 0.2]
    """

    def __setitem__(self, name: str, value: Any) -> None:
        raise ArgumentError(
            f"param_groups: {name!r} cannot be assigned here: optimizer.lr = rate changes the "
            "learning rates of all groups in proportion; requires_grad_(False) freezes parameters; "
            "for other settings create a new optimiser"
        )

    def update(self, *args: Any, **values: Any) -> None:
        """Raise as an assignment does."""
        self[", ".join(dict(*args, **values))] = None


class _Group:
    """Parameters with settings of their own.

    Attributes
    ----------
    members : range
        The indices of its parameters.
    factor : float
        Its learning rate over the optimiser's, which an assignment to that keeps.
    hyper : dict
        Its other settings.
    rates : dict
        Its learning rate on each device.
    """

    def __init__(self, members: range, factor: float, hyper: dict[str, Any]) -> None:
        self.members, self.factor, self.hyper = members, factor, hyper
        self.rates: dict[str, Array] = {}


class Optimizer:
    """Base class of the optimisers: parameters, learning rate, checks and state.

    A subclass defines `_update`, and `_init_state` if it needs state for each parameter. While they
    run, ``self._hyper`` has the settings of the parameter's group.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Leaves that require a gradient, such as ``module.parameters()``, without duplicates. A
        `Parameter` may be frozen (``requires_grad = False``): it and its state do not change until
        it is unfrozen. Or groups: dicts of ``"params"`` and of the settings that differ from those
        of the optimiser, under the names of its arguments.
    lr : float
        Learning rate. A group's own rate keeps its ratio to this one: a schedule, or an assignment
        to `lr`, changes both.
    **hyperparameters : float or bool
        Other settings of the subclass; they are checked, saved and loaded by name.

    Raises
    ------
    ArgumentError
        `params` is empty, a parameter occurs twice or is not a leaf, or a setting is out of range
        or unknown.

    Examples
    --------
    No weight decay for biases, and a smaller rate for the table:

    >>> import tinygrad_rnn as tg
    >>> model = tg.nn.Sequential(tg.nn.Embedding(5, 3), tg.nn.Linear(3, 5))
    >>> table, weight, bias = model.parameters()
    >>> groups = [
    ...     {"params": [weight]},
    ...     {"params": [table], "lr": 0.001},
    ...     {"params": [bias], "weight_decay": 0.0},
    ... ]
    >>> optimizer = tg.optim.AdamW(groups, lr=0.01, weight_decay=0.1)
    >>> optimizer.lr = 0.1
    >>> [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    [(0.1, 0.1), (0.01, 0.1), (0.1, 0.0)]

    A rule of your own:

    >>> class SignSGD(tg.optim.Optimizer):
    ...     def _update(self, p, g, lr, state):
    ...         p -= lr.astype(p.dtype) * ((g > 0) * 1.0 - (g < 0))
    >>> w = tg.tensor([1.0, -1.0], requires_grad=True)
    >>> optimizer = SignSGD([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([ 0.5, -0.5], requires_grad=True)
    """

    _scheduled: Any = None  # the rate that its schedulers share
    _hyper: dict[str, Any]  # of the group whose parameters are updated
    _rates: dict[str, Array]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "__init__" in vars(cls):
            cls.__init__ = explain_errors(cls.__init__)  # type: ignore[method-assign]

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        **hyperparameters: float,
    ) -> None:
        name = type(self).__name__
        given = _groups(params, name)
        if len(given) == 1:  # of one group the rate is that of the optimiser
            lr = given[0][1].pop("lr", lr)
        self.params = parameter_list([p for members, _ in given for p in members], name)
        settings = _checked({"lr": lr, **hyperparameters}, name)
        rate = backend.asarray(settings.pop("lr"), backend.float64)
        self._base = {p.device: backend.to_device(rate, p.device) for p in self.params}
        self._state: list[dict[str, Array]] = []
        self._groups: list[_Group] = []
        for number, (members, own) in enumerate(given):
            op = f"{name}: group {number}" if len(given) > 1 or own else name
            start = len(self._state)
            group = _Group(
                range(start, start + len(members)),
                _factor(own.pop("lr", lr), lr, op),
                {**settings, **_own_settings(own, settings, op)},
            )
            self._check_settings(group.hyper, op)
            self._groups.append(group)
            self._use(group)
            for p in members:
                with backend.computing_on(p.device):
                    self._state.append(self._init_state(p._data))
        self._use(self._groups[0])
        self._set_rates()
        self._specs = [_spec(p) for p in self.params]

    def _check_settings(self, settings: dict[str, Any], op: str) -> None:
        """Raise if the settings of a group do not fit one another."""

    def _use(self, group: _Group) -> None:
        """Make the settings and the rates those of a group, for an update of its parameters."""
        self._hyper, self._rates = group.hyper, group.rates

    def _set_rates(self) -> None:
        """Compute the learning rates of the groups from the optimiser's."""
        for group in self._groups:
            for device, rate in self._base.items():
                if group.factor == 1.0:
                    group.rates[device] = rate  # the same memory
                    continue
                with backend.computing_on(device):
                    if group.rates.get(device, rate) is rate:
                        group.rates[device] = backend.copy(rate)
                    out = group.rates[device]
                    backend.module_of(rate).multiply(rate, group.factor, out=out)

    @property
    def lr(self) -> float:
        """The learning rate; assign to change it, and those of groups in proportion."""
        return float(next(iter(self._base.values())).item())

    @lr.setter
    def lr(self, value: float) -> None:
        value = _checked({"lr": value}, type(self).__name__)["lr"]
        for device, rate in self._base.items():
            with backend.computing_on(device):
                rate.fill(value)
        self._set_rates()

    @property
    def param_groups(self) -> list[ParamGroup]:
        """The parameters and settings of each group, to be read."""
        return [
            ParamGroup(
                {
                    "params": [self.params[i] for i in group.members],
                    "lr": float(f"{self.lr * group.factor:.15g}"),
                    **group.hyper,
                }
            )
            for group in self._groups
        ]

    def step(self) -> None:
        """Update every parameter that has a gradient and is not frozen, in place.

        All parameters are checked before the first update. A gradient has the shape, dtype and
        device of its parameter, which is checked on assignment. An update never changes a dtype.

        Raises
        ------
        ArgumentError
            The dtype or device of a parameter changed after the optimiser was created. Nothing was
            updated.
        """
        for i in range(len(self.params)):
            self._check(i)
        try:
            for group in self._groups:
                self._use(group)
                self._step(group.members)
        finally:
            self._use(self._groups[0])

    def _step(self, members: range) -> None:
        """Update the parameters of one group."""
        grads = [(i, p, p.grad) for i in members if (p := self.params[i]).requires_grad]
        ready = [(i, p, grad) for i, p, grad in grads if grad is not None]
        module = backend.module_of(self.params[members.start]._data)
        if kernels.try_faster(module, "update_parameters", self, ready) is not NotImplemented:
            return
        for i, p, grad in ready:
            try:
                with backend.computing_on(p.device):
                    self._update(p._data, grad._data, self._rates[p.device], self._state[i])
            finally:  # an interrupted update may have written, too
                p._bump()

    def _init_state(self, p: Array) -> dict[str, Array]:
        """Return the initial optimizer state of one parameter: arrays by name."""
        return {}

    def _update(self, p: Array, g: Array, lr: Array, state: dict[str, Array]) -> None:
        """Update the array of one parameter and its state in place."""
        raise NotImplementedError(f"{type(self).__name__} does not define _update()")

    def _check(self, i: int) -> None:
        now, then = _spec(self.params[i]), self._specs[i]
        if now != then:
            raise ArgumentError(
                f"{type(self).__name__}.step: parameter {i} is {_describe(now)}, and was "
                f"{_describe(then)} when the optimiser was created: create it after module.to(...)"
            )

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to None."""
        for p in self.params:
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return everything except the parameters that the next steps depend on, exactly.

        Returns
        -------
        dict
            ``optimizer``: the name of the class; ``hyperparameters``: numbers by name, including
            ``lr``; ``slots``: the optimizer state of each parameter, a dict of NumPy arrays. Of an
            optimiser with groups also ``groups``: for each its number of parameters, the ratio of
            its rate to ``lr``, and its settings.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> optimizer = tg.optim.SGD(tg.nn.Linear(2, 1).parameters(), lr=0.5, momentum=0.9)
        >>> state = optimizer.state_dict()
        >>> state["hyperparameters"]
        {'lr': 0.5, 'momentum': 0.9, 'nesterov': False, 'weight_decay': 0.0}
        >>> [list(arrays) for arrays in state["slots"]]
        [['u'], ['u']]
        """
        groups = [
            {"params": len(group.members), "lr_factor": group.factor, **group.hyper}
            for group in self._groups
        ]
        return {
            "optimizer": type(self).__name__,
            "hyperparameters": {"lr": self.lr, **self._groups[0].hyper},
            **({"groups": groups} if len(groups) > 1 else {}),
            "slots": [  # not "state": checkpoints of earlier versions have this key
                {name: backend.to_numpy(array).copy() for name, array in arrays.items()}
                for arrays in self._state
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict` of the same class for parameters of the same shapes.

        Everything is checked before the first write.

        Parameters
        ----------
        state : mapping
            The result of `state_dict`.

        Raises
        ------
        ArgumentError
            Lists all mismatches; nothing was loaded.
        """
        op = f"{type(self).__name__}.load_state_dict"
        own = self.state_dict()
        problems = _differing_groups(state, own)
        raise_problems(op, problems)
        check_keys(op, state, own)
        settings, problems = _loaded(state, own, "hyperparameters", op)
        if state["optimizer"] != own["optimizer"]:
            problems.append(f"the state is one of {state['optimizer']}")
        groups = []
        for i in range(len(own.get("groups", ()))):
            loaded, more = _loaded(state["groups"], own["groups"], i, f"{op}: group {i}")
            groups.append(loaded)
            problems += more
        if not isinstance(state["slots"], list | tuple) or len(state["slots"]) != len(self._state):
            found = len(state["slots"]) if hasattr(state["slots"], "__len__") else "no"
            problems.append(f"the state is for {found} parameters, there are {len(self._state)}")
        else:
            for i, (given, arrays) in enumerate(zip(state["slots"], self._state, strict=True)):
                problems += _mismatches(given, arrays, f"parameter {i}")
        raise_problems(op, problems)
        lr = settings.pop("lr")
        for group, loaded in zip(self._groups, groups or [settings], strict=True):
            group.factor = loaded.pop("lr_factor", 1.0)
            loaded.pop("params", None)
            group.hyper = loaded
        self._use(self._groups[0])
        self.lr = lr
        for given, arrays in zip(state["slots"], self._state, strict=True):
            for name, array in arrays.items():
                device = backend.device_of(array)
                with backend.computing_on(device):
                    array[...] = backend.to_device(given[name], device)

    def __repr__(self) -> str:
        lines = []
        for group in self.param_groups:
            params = group.pop("params")
            settings = ", ".join(f"{k}={v}" for k, v in group.items())
            count = sum(p.size for p in params)
            lines.append(f"{type(self).__name__}({settings})  {count:,} parameters")
        return "\n".join(lines)


for _name, _ours in {  # names in PyTorch and Keras that must not be assigned
    "learning_rate": "lr",
}.items():
    setattr(Optimizer, _name, UnassignableAttribute(_name, _ours))
for _name, _ours in {  # names in PyTorch and Keras
    "add_param_group": "a list of groups, SGD([{'params': [...], 'lr': 0.01}, ...], lr=0.1)",
    "defaults": 'state_dict()["hyperparameters"]',
    "state": 'state_dict()["slots"]',
    "minimize": "loss.backward(), then step()",
    "apply_gradients": "loss.backward(), then step()",
}.items():
    setattr(Optimizer, _name, MissingAttribute(_name, _ours))


class SGD(Optimizer):
    """Stochastic gradient descent, with classical or Nesterov momentum.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        The parameters, or groups of them with settings of their own (see `Optimizer`).
    lr : float
        η, the learning rate.
    momentum : float
        μ in [0, 1).
    nesterov : bool
        Use Nesterov momentum; needs `momentum` > 0.
    weight_decay : float
        λ, an L2 penalty: λ θ is added to the gradient.

    Raises
    ------
    ArgumentError
        If `params` is empty, has one twice or one that is not a leaf that requires a gradient, or
        if a number is out of range.

    Notes
    -----
    ::

        g ← g + λ θ
        u ← μ u + g
        d = g + μ u   (Nesterov)   or   u
        θ ← θ - η d

    Polyak, "Some methods of speeding up the convergence of iteration methods", 1964; Sutskever,
    Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep learning",
    2013. As in PyTorch, u accumulates gradients without the learning rate, which multiplies d, and
    Nesterov's gradient is evaluated at θ.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> w = tg.tensor([3.0], requires_grad=True)
    >>> optimizer = tg.optim.SGD([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, lr, momentum=momentum, nesterov=bool(nesterov), weight_decay=weight_decay
        )

    def _check_settings(self, settings: dict[str, Any], op: str) -> None:
        if settings["nesterov"] and not settings["momentum"]:
            raise ArgumentError(f"{op}: nesterov=True needs a momentum above 0")

    def _init_state(self, p: Array) -> dict[str, Array]:
        return {"u": _zeros_like(p)} if self._hyper["momentum"] else {}

    def _update(self, p: Array, g: Array, lr: Array, state: dict[str, Array]) -> None:
        mu = self._hyper["momentum"]
        g = _decayed(g, p, self._hyper["weight_decay"])
        if mu:
            u = state["u"]
            u *= mu
            u += g
            g = g + mu * u if self._hyper["nesterov"] else u
        p -= lr.astype(p.dtype) * g


class Adam(Optimizer):
    """Adam: steps scaled by running averages of the gradient and of its square.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        The parameters, or groups of them with settings of their own (see `Optimizer`).
    lr : float
        α, the learning rate.
    betas : pair of float
        β₁ and β₂ in [0, 1): the decay rates of the two averages.
    eps : float
        ε, which bounds the step where the gradient is small.
    weight_decay : float
        λ, an L2 penalty: λ θ is added to the gradient. For decoupled weight decay see `AdamW`.

    Raises
    ------
    ArgumentError
        If `params` is empty, has one twice or one that is not a leaf that requires a gradient, or
        if a number is out of range.

    Notes
    -----
    ::

        g ← g + λ θ
        t ← t + 1
        m ← β₁ m + (1 - β₁) g
        v ← β₂ v + (1 - β₂) g²
        θ ← θ - α m̂ / (√v̂ + ε),   m̂ = m / (1 - β₁ᵗ),   v̂ = v / (1 - β₂ᵗ)

    Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1. In the last line
    the code multiplies numerator and denominator by √(1 - β₂ᵗ), so that the bias corrections are
    applied to numbers and not to arrays. Every parameter counts its own steps.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> w = tg.tensor([3.0], requires_grad=True)
    >>> optimizer = tg.optim.Adam([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([2.5], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        beta1, beta2 = _pair(betas, type(self).__name__)
        super().__init__(params, lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)

    def _init_state(self, p: Array) -> dict[str, Array]:
        step = backend.to_device(backend.asarray(0.0, backend.float64), backend.device_of(p))
        return {"t": step, "m": _zeros_like(p), "v": _zeros_like(p)}

    def _update(self, p: Array, g: Array, lr: Array, state: dict[str, Array]) -> None:
        self._descend(p, _decayed(g, p, self._hyper["weight_decay"]), lr, state)

    def _descend(self, p: Array, g: Array, lr: Array, state: dict[str, Array]) -> None:
        beta1, beta2, eps = (self._hyper[name] for name in ("beta1", "beta2", "eps"))
        t, m, v = state["t"], state["m"], state["v"]
        xp = backend.module_of(p)
        t += 1
        s = xp.multiply(g, 1 - beta1, out=xp.empty_like(p))
        m *= beta1
        m += s
        xp.multiply(g, g, out=s)
        s *= 1 - beta2
        v *= beta2
        v += s
        root = (1 - beta2**t) ** 0.5
        xp.sqrt(v, out=s)
        s += (eps * root).astype(p.dtype)
        xp.divide(m, s, out=s)
        s *= (lr * root / (1 - beta1**t)).astype(p.dtype)
        p -= s


class AdamW(Adam):
    """Adam with decoupled weight decay: the decay is not part of the gradient.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        The parameters, or groups of them with settings of their own (see `Optimizer`).
    lr : float
        α, the learning rate.
    betas : pair of float
        β₁ and β₂ in [0, 1): the decay rates of the two averages.
    eps : float
        ε, which bounds the step where the gradient is small.
    weight_decay : float
        λ: a step multiplies the parameters by 1 - α λ.

    Raises
    ------
    ArgumentError
        If `params` is empty, has one twice or one that is not a leaf that requires a gradient, or
        if a number is out of range.

    Notes
    -----
    ::

        θ ← θ - α λ θ
        then Adam's step without λ

    Loshchilov and Hutter, "Decoupled weight decay regularization", 2019, algorithm 2, with the
    decay scaled by the learning rate as in PyTorch.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> w = tg.tensor([2.0], requires_grad=True)
    >>> optimizer = tg.optim.AdamW([w], lr=0.5, weight_decay=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w  # 2 · (1 - 0.25) - 0.5
    tensor([1.], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def _update(self, p: Array, g: Array, lr: Array, state: dict[str, Array]) -> None:
        p *= (1 - lr * self._hyper["weight_decay"]).astype(p.dtype)
        self._descend(p, g, lr, state)


class RMSprop(Optimizer):
    """RMSprop: steps divided by the root of a running mean of the squared gradient.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        The parameters, or groups of them with settings of their own (see `Optimizer`).
    lr : float
        η, the learning rate.
    alpha : float
        α in [0, 1): the decay rate of the average.
    eps : float
        ε, which bounds the step where the gradient is small.
    weight_decay : float
        λ, an L2 penalty: λ θ is added to the gradient.
    momentum : float
        μ in [0, 1), applied to the normalised gradient.

    Raises
    ------
    ArgumentError
        If `params` is empty, has one twice or one that is not a leaf that requires a gradient, or
        if a number is out of range.

    Notes
    -----
    ::

        g ← g + λ θ
        v ← α v + (1 - α) g²
        u ← μ u + g / (√v + ε)
        θ ← θ - η u

    Tieleman and Hinton, "Lecture 6.5 - rmsprop", Neural networks for machine learning, 2012; ε and
    the momentum as in PyTorch.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> w = tg.tensor([3.0], requires_grad=True)
    >>> optimizer = tg.optim.RMSprop([w], lr=0.1, alpha=0.75)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w  # g / √(g² / 4) = 2
    tensor([2.8], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
    ) -> None:
        super().__init__(
            params, lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum
        )

    def _init_state(self, p: Array) -> dict[str, Array]:
        state = {"v": _zeros_like(p)}
        return {**state, "u": _zeros_like(p)} if self._hyper["momentum"] else state

    def _update(self, p: Array, g: Array, lr: Array, state: dict[str, Array]) -> None:
        alpha, mu, v = self._hyper["alpha"], self._hyper["momentum"], state["v"]
        g = _decayed(g, p, self._hyper["weight_decay"])
        xp = backend.module_of(p)
        s = xp.multiply(g, g, out=xp.empty_like(p))
        s *= 1 - alpha
        v *= alpha
        v += s
        xp.sqrt(v, out=s)
        s += self._hyper["eps"]
        xp.divide(g, s, out=s)
        u = s
        if mu:
            u = state["u"]
            u *= mu
            u += s
        xp.multiply(u, lr.astype(p.dtype), out=s)
        p -= s


class Adagrad(Optimizer):
    """Adagrad: steps divided by the root of the sum of all squared gradients so far.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        The parameters, or groups of them with settings of their own (see `Optimizer`).
    lr : float
        η, the learning rate.
    weight_decay : float
        λ, an L2 penalty: λ θ is added to the gradient.
    eps : float
        ε, which bounds the step where the gradients were small.

    Raises
    ------
    ArgumentError
        If `params` is empty, has one twice or one that is not a leaf that requires a gradient, or
        if a number is out of range.

    Notes
    -----
    ::

        g ← g + λ θ
        v ← v + g²
        θ ← θ - η g / (√v + ε)

    Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", 2011, the diagonal form; ε as in PyTorch.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> w = tg.tensor([3.0], requires_grad=True)
    >>> optimizer = tg.optim.Adagrad([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([2.5], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-2,
        weight_decay: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        super().__init__(params, lr, weight_decay=weight_decay, eps=eps)

    def _init_state(self, p: Array) -> dict[str, Array]:
        return {"v": _zeros_like(p)}

    def _update(self, p: Array, g: Array, lr: Array, state: dict[str, Array]) -> None:
        v = state["v"]
        g = _decayed(g, p, self._hyper["weight_decay"])
        xp = backend.module_of(p)
        s = xp.multiply(g, g, out=xp.empty_like(p))
        v += s
        xp.sqrt(v, out=s)
        s += self._hyper["eps"]
        xp.divide(g, s, out=s)
        s *= lr.astype(p.dtype)
        p -= s


def parameter_list(
    params: Iterable[Tensor], op: str, frozen: type[Tensor] = Parameter
) -> list[Tensor]:
    """Check the parameters and return them as a list.

    Parameters
    ----------
    params : iterable of Tensor
        Leaves that require a gradient or are of the type `frozen`, without duplicates.
    op : str
        The caller's name, with which the messages begin.
    frozen : type
        The type of the tensors that need not require a gradient. In an optimiser, a tensor that
        does not and is not a `Parameter` is probably a mistake.

    Returns
    -------
    list of Tensor
        The parameters in the same order.

    Raises
    ------
    ArgumentError
        `params` is empty, or a parameter is not such a leaf or occurs twice.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.optim.SGD([tg.zeros(3)], lr=1.0)
    Traceback (most recent call last):
    tinygrad_rnn.errors.ArgumentError: SGD: parameter 0, (3,), does not require a gradient: ...
    """
    if isinstance(params, Tensor) or not isinstance(params, Iterable):
        raise ArgumentError(
            f"{op}: a list of tensors or module.parameters() is expected, "
            f"got a {class_name(params)}"
        )
    result: list[Any] = list(params)
    if not result:
        raise ArgumentError(f"{op}: no parameters; was the generator already exhausted?")
    seen: dict[int, int] = {}
    for i, p in enumerate(result):
        if not isinstance(p, Tensor):
            cure = _CURES.get(type(p).__name__, "")
            cure = cure or conversion_hint(p)
            raise ArgumentError(f"{op}: parameter {i} is a {class_name(p)}, not a Tensor{cure}")
        if not p.requires_grad and not isinstance(p, frozen):
            raise ArgumentError(
                f"{op}: parameter {i}, {p.shape}, does not require a gradient: create it with "
                "requires_grad=True, or leave it out"
            )
        if not p.is_leaf:
            raise ArgumentError(
                f"{op}: parameter {i}, {p.shape}, is the result of an operation: pass the leaves "
                "that it was computed from"
            )
        if seen.setdefault(id(p), i) != i:
            raise ArgumentError(f"{op}: parameters {seen[id(p)]} and {i} are the same tensor")
    return result


def _groups(params: Any, op: str) -> list[tuple[list[Tensor], dict[str, Any]]]:
    """Return the parameters and the own settings of each group."""
    if isinstance(params, Mapping):
        raise ArgumentError(f"{op}: parameters are a list, or a list of groups; {_GROUP}")
    if isinstance(params, Tensor) or not isinstance(params, Iterable):
        return [(parameter_list(params, op), {})]  # raises
    given: list[Any] = list(params)
    if not given or not isinstance(given[0], dict):
        return [(parameter_list(given, op), {})]
    groups = []
    for number, group in enumerate(given):
        if not isinstance(group, dict) or "params" not in group:
            got = f"the keys {list(group)}" if isinstance(group, dict) else class_name(group)
            raise ArgumentError(f"{op}: group {number} has no 'params': {_GROUP}, got {got}")
        own = dict(group)
        members = own.pop("params")
        members = [members] if isinstance(members, Tensor) else members
        groups.append((parameter_list(members, f"{op}: group {number}"), own))
    return groups


def _own_settings(own: dict[str, Any], settings: dict[str, Any], op: str) -> dict[str, Any]:
    """Check the settings of a group against those of its optimiser."""
    if "betas" in own and "beta1" in settings:
        own["beta1"], own["beta2"] = _pair(own.pop("betas"), op)
    for name, value in own.items():
        if name not in settings:
            known = ", ".join(("lr", *settings)).replace("beta1, beta2", "betas")
            raise ArgumentError(f"{op}: unknown setting {name!r}; a group has params, {known}")
        if isinstance(settings[name], bool) and not isinstance(value, bool):
            raise ArgumentError(f"{op}: {name} must be True or False, got {value!r}")
    return _checked(own, op)


def _factor(own: Any, lr: float, op: str) -> float:
    """Return the ratio of a group's learning rate to the optimiser's."""
    own, lr = (_checked({"lr": rate}, op)["lr"] for rate in (own, lr))
    if own == lr:
        return 1.0
    if not lr:
        raise ArgumentError(
            f"{op}: lr={own} has no ratio to the optimiser's lr=0: give the optimiser a rate "
            "above 0, and freeze parameters by requires_grad_(False) or a group with lr=0"
        )
    return own / lr


def _pair(betas: Any, op: str) -> Sequence[float]:
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise ArgumentError(f"{op}: betas are two numbers, (0.9, 0.999), got {betas!r}")
    return betas


def _differing_groups(state: Any, own: Mapping[str, Any]) -> list[str]:
    """Return the problem of a state whose groups are not those of the optimiser."""
    if not isinstance(state, Mapping) or not isinstance(state.get("slots"), list | tuple):
        return []
    sizes = []
    for one in (state, own):
        groups = one.get("groups", [{"params": len(one["slots"])}])
        if not isinstance(groups, list | tuple) or not all(
            isinstance(group, Mapping) and "params" in group for group in groups
        ):
            return ["groups: a list of dicts is expected"]
        sizes.append([group["params"] for group in groups])
    if sizes[0] == sizes[1] or len(sizes[0]) == len(sizes[1]) == 1:
        return []
    return [
        f"the state has groups of {sizes[0]} parameters, this optimiser has {sizes[1]}: create it "
        "with the groups of the saved run"
    ]


def _loaded(state: Any, own: Any, key: Any, op: str) -> tuple[dict[str, Any], list[str]]:
    """Return checked settings of a state, and their problems."""
    given, wanted = state[key], own[key]
    problems = key_problems(given, wanted, str(key))
    settings = {} if problems else _checked(given, op)
    if "params" in settings:
        settings["params"] = int(settings["params"])
    problems += [
        f"{name} is {value!r}, and a {type(wanted[name]).__name__} is expected"
        for name, value in settings.items()
        if type(value) is not type(wanted[name])
    ]
    return settings, problems


def _checked(settings: Mapping[str, Any], op: str) -> dict[str, Any]:
    """Check the ranges of the settings and return them as Python numbers."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, bool):
            result[name] = value
            continue
        result[name] = checks.number(value, f"{op}: {name}", 0, _BELOW.get(name, math.inf), "[)")
    return result


def _zeros_like(p: Array) -> Array:
    return backend.module_of(p).zeros_like(p)


def _decayed(g: Array, p: Array, weight_decay: float) -> Array:
    """Return g + λ θ; `g` itself if λ is 0."""
    return g + weight_decay * p if weight_decay else g


def _spec(t: Tensor) -> tuple[Any, ...]:
    array = t._data
    return array.dtype, array.shape, backend.device_of(array)


def _describe(spec: tuple[Any, ...]) -> str:
    return f"{spec[0]} {spec[1]} on {spec[2]}"


def _mismatches(given: Any, expected: dict[str, Array], where: str) -> list[str]:
    """Return the mismatches between the loaded and the expected state of one parameter."""
    if problems := key_problems(given, expected, where):
        return problems
    for name, array in expected.items():
        value = given[name]
        if not backend.is_array(value):
            problems.append(f"{where}: {name} is a {type(value).__name__}, not an array")
        elif (value.shape, value.dtype) != (array.shape, array.dtype):
            problems.append(
                f"{where}: {name} is {value.dtype} {value.shape}, "
                f"{array.dtype} {array.shape} is expected"
            )
    return problems
