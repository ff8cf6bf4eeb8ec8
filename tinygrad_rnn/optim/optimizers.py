"""The update rules. Each class states its paper's equations in the order of its code.

A rule works in place on the parameter's array, on its running averages (the slots) and on one
scratch array. Learning rate and step count are 0-d float64 arrays beside the parameter, so that no
rule reads a value back from a device, and a recorded step sees a new learning rate.
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
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from ..nn import Parameter
from ..tensors import checks

_CURES = {  # what stands in a list of parameters by mistake
    "dict": "; for groups make one optimiser each",
    "tuple": "; named_parameters() gives pairs, parameters() the parameters alone",
    "str": "; of a dict take the .values()",
}
_BELOW = {  # every hyperparameter lies in [0, bound)
    "lr": math.inf,
    "momentum": 1.0,
    "alpha": 1.0,
    "beta1": 1.0,
    "beta2": 1.0,
    "eps": math.inf,
    "weight_decay": math.inf,
}


class Optimizer:
    """What all optimisers share: the parameters, the learning rate, checks and state.

    A rule of one's own overrides `_new_slots` and `_update`.

    Parameters
    ----------
    params : iterable of Tensor
        Leaves that require a gradient, such as ``module.parameters()``; each once. A `Parameter`
        may be frozen (``requires_grad = False``): it stays as it is, with its running averages,
        until it is released.
    lr : float
        Learning rate.
    **hyperparameters : float or bool
        The rule's other settings; they are checked, saved and loaded by name.

    Raises
    ------
    ArgumentError
        No parameters, one of them twice or no leaf, or a setting out of range.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> class SignSGD(tg.optim.Optimizer):
    ...     def _update(self, p, g, lr, slots):
    ...         p -= lr.astype(p.dtype) * ((g > 0) * 1.0 - (g < 0))
    >>> w = tg.tensor([1.0, -1.0], requires_grad=True)
    >>> rule = SignSGD([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> rule.step()
    >>> w
    tensor([ 0.5, -0.5], requires_grad=True)
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "__init__" in vars(cls):
            cls.__init__ = explain_errors(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, params: Iterable[Tensor], lr: float, **hyperparameters: float) -> None:
        name = type(self).__name__
        self.params = parameter_list(params, name)
        settings = _checked({"lr": lr, **hyperparameters}, name)
        rate = backend.asarray(settings.pop("lr"), backend.float64)
        self._hyper = settings
        self._rates = {p.device: backend.to_device(rate, p.device) for p in self.params}
        self._slots = [self._new_slots(p._data) for p in self.params]
        self._specs = [_spec(p) for p in self.params]

    @property
    def lr(self) -> float:
        """The learning rate; assign to change it."""
        return float(next(iter(self._rates.values())).item())

    @lr.setter
    def lr(self, value: float) -> None:
        value = _checked({"lr": value}, type(self).__name__)["lr"]
        for rate in self._rates.values():
            rate.fill(value)

    def step(self) -> None:
        """Update every parameter that has a gradient and is not frozen, in place.

        All parameters are checked before the first one changes; that a gradient has the shape,
        dtype and device of its parameter, the parameter has seen to. No dtype ever changes.

        Raises
        ------
        ArgumentError
            A parameter changed its dtype or device after the optimiser was made. Nothing was
            updated.
        """
        ready = [(i, p, p.grad) for i, p in enumerate(self.params)]
        for i, _, _ in ready:
            self._check(i)
        for i, p, grad in ready:
            if grad is not None and p.requires_grad:
                try:
                    self._update(p._data, grad._data, self._rates[p.device], self._slots[i])
                finally:  # an update that was interrupted may have written, too
                    p._bump()

    def _new_slots(self, p: Array) -> dict[str, Array]:
        """Return the arrays that the rule remembers for one parameter, by name."""
        return {}

    def _update(self, p: Array, g: Array, lr: Array, slots: dict[str, Array]) -> None:
        """Update the array of one parameter, and its slots, in place."""
        raise NotImplementedError(f"{type(self).__name__} does not define _update()")

    def _check(self, i: int) -> None:
        now, then = _spec(self.params[i]), self._specs[i]
        if now != then:
            raise ArgumentError(
                f"{type(self).__name__}.step: parameter {i} is {_describe(now)}, and was "
                f"{_describe(then)} when the optimiser was made: make it after module.to(...)"
            )

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters (``grad`` becomes None)."""
        for p in self.params:
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next steps depend on besides the parameters, exactly.

        Returns
        -------
        dict
            ``optimizer``: the name of the rule; ``hyperparameters``: numbers by name, ``lr``
            among them; ``slots``: for each parameter a dict of NumPy arrays.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> rule = tg.optim.SGD(tg.nn.Linear(2, 1).parameters(), lr=0.5, momentum=0.9)
        >>> state = rule.state_dict()
        >>> state["hyperparameters"]
        {'lr': 0.5, 'momentum': 0.9, 'nesterov': False, 'weight_decay': 0.0}
        >>> [list(slots) for slots in state["slots"]]
        [['u'], ['u']]
        """
        return {
            "optimizer": type(self).__name__,
            "hyperparameters": {"lr": self.lr, **self._hyper},
            "slots": [
                {name: backend.to_numpy(slot).copy() for name, slot in slots.items()}
                for slots in self._slots
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict` of the same rule over parameters of the same shapes.

        Everything is checked before anything is written.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned.

        Raises
        ------
        ArgumentError
            Lists all that does not fit; nothing was loaded.
        """
        op = f"{type(self).__name__}.load_state_dict"
        own = self.state_dict()
        check_keys(op, state, own)
        given, wanted = state["hyperparameters"], own["hyperparameters"]
        problems = key_problems(given, wanted, "hyperparameters")
        settings = {} if problems else _checked(given, op)
        if state["optimizer"] != own["optimizer"]:
            problems.append(f"the state is one of {state['optimizer']}")
        problems += [
            f"{name} is {value!r}, and a {type(wanted[name]).__name__} is expected"
            for name, value in settings.items()
            if type(value) is not type(wanted[name])
        ]
        if not isinstance(state["slots"], list | tuple) or len(state["slots"]) != len(self._slots):
            found = len(state["slots"]) if hasattr(state["slots"], "__len__") else "no"
            problems.append(f"the state is for {found} parameters, there are {len(self._slots)}")
        else:
            for i, (given, slots) in enumerate(zip(state["slots"], self._slots, strict=True)):
                problems += _misfits(given, slots, f"parameter {i}")
        raise_problems(op, problems)
        self.lr = settings.pop("lr")
        self._hyper = settings
        for given, slots in zip(state["slots"], self._slots, strict=True):
            for name, slot in slots.items():
                slot[...] = backend.to_device(given[name], backend.device_of(slot))

    def __repr__(self) -> str:
        settings = ", ".join(f"{k}={v}" for k, v in {"lr": self.lr, **self._hyper}.items())
        count = sum(p.size for p in self.params)
        return f"{type(self).__name__}({settings})  {count:,} parameters"


for _name, _ours in {  # of PyTorch's optimisers, and of Keras's
    "param_groups": "lr, and params; for groups make one optimiser each",
    "learning_rate": "lr",
}.items():
    setattr(Optimizer, _name, UnassignableAttribute(_name, _ours))
for _name, _ours in {
    "add_param_group": "another optimiser, for these parameters",
    "defaults": 'state_dict()["hyperparameters"]',
    "state": 'state_dict()["slots"]',
    "minimize": "loss.backward(), then step()",
    "apply_gradients": "loss.backward(), then step()",
}.items():
    setattr(Optimizer, _name, MissingAttribute(_name, _ours))


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum, Nesterov's or the plain one.

    Parameters
    ----------
    params : iterable of Tensor
        The parameters.
    lr : float
        η, the learning rate.
    momentum : float
        μ in [0, 1).
    nesterov : bool
        Look ahead by one step of the momentum.
    weight_decay : float
        λ, an L2 penalty: λ θ is added to the gradient.

    Notes
    -----
    ::

        g ← g + λ θ
        u ← μ u + g
        d = g + μ u   (Nesterov)   or   u
        θ ← θ - η d

    Polyak, "Some methods of speeding up the convergence of iteration methods", 1964; Sutskever,
    Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep learning",
    2013. As in PyTorch the learning rate multiplies the velocity u when it is used, not when it is
    gathered, and Nesterov's form is the one evaluated at θ.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> w = tg.tensor([3.0], requires_grad=True)
    >>> rule = tg.optim.SGD([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> rule.step()
    >>> w
    tensor([0.], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        if nesterov and not momentum:
            raise ArgumentError("SGD: nesterov=True needs a momentum above 0")
        super().__init__(
            params, lr, momentum=momentum, nesterov=bool(nesterov), weight_decay=weight_decay
        )

    def _new_slots(self, p: Array) -> dict[str, Array]:
        return {"u": _zeros_like(p)} if self._hyper["momentum"] else {}

    def _update(self, p: Array, g: Array, lr: Array, slots: dict[str, Array]) -> None:
        mu = self._hyper["momentum"]
        g = _decayed(g, p, self._hyper["weight_decay"])
        if mu:
            u = slots["u"]
            u *= mu
            u += g
            g = g + mu * u if self._hyper["nesterov"] else u
        p -= lr.astype(p.dtype) * g


class Adam(Optimizer):
    """Adam: steps scaled by running averages of the gradient and of its square.

    Parameters
    ----------
    params : iterable of Tensor
        The parameters.
    lr : float
        α, the learning rate.
    betas : pair of float
        β₁ and β₂ in [0, 1): how long the averages last.
    eps : float
        ε, which bounds the step where the gradient is small.
    weight_decay : float
        λ, an L2 penalty: λ θ is added to the gradient. For a decay that is not scaled by the
        averages, see `AdamW`.

    Notes
    -----
    ::

        g ← g + λ θ
        t ← t + 1
        m ← β₁ m + (1 - β₁) g
        v ← β₂ v + (1 - β₂) g²
        θ ← θ - α m̂ / (√v̂ + ε),   m̂ = m / (1 - β₁ᵗ),   v̂ = v / (1 - β₂ᵗ)

    Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1. In the last line
    the code multiplies numerator and denominator by √(1 - β₂ᵗ), so that the corrections are numbers
    and not arrays. Every parameter counts its own steps.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> w = tg.tensor([3.0], requires_grad=True)
    >>> rule = tg.optim.Adam([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> rule.step()
    >>> w
    tensor([2.5], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not isinstance(betas, Sequence) or len(betas) != 2:
            name = type(self).__name__
            raise ArgumentError(f"{name}: betas are two numbers, (0.9, 0.999), got {betas!r}")
        beta1, beta2 = betas
        super().__init__(params, lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)

    def _new_slots(self, p: Array) -> dict[str, Array]:
        step = backend.to_device(backend.asarray(0.0, backend.float64), backend.device_of(p))
        return {"t": step, "m": _zeros_like(p), "v": _zeros_like(p)}

    def _update(self, p: Array, g: Array, lr: Array, slots: dict[str, Array]) -> None:
        self._descend(p, _decayed(g, p, self._hyper["weight_decay"]), lr, slots)

    def _descend(self, p: Array, g: Array, lr: Array, slots: dict[str, Array]) -> None:
        beta1, beta2, eps = (self._hyper[name] for name in ("beta1", "beta2", "eps"))
        t, m, v = slots["t"], slots["m"], slots["v"]
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
    """Adam with decoupled weight decay: the parameters shrink apart from the gradient.

    Parameters
    ----------
    params : iterable of Tensor
        The parameters.
    lr : float
        α, the learning rate.
    betas : pair of float
        β₁ and β₂ in [0, 1): how long the averages last.
    eps : float
        ε, which bounds the step where the gradient is small.
    weight_decay : float
        λ: a step multiplies the parameters by 1 - α λ.

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
    >>> rule = tg.optim.AdamW([w], lr=0.5, weight_decay=0.5)
    >>> (w * w).sum().backward()
    >>> rule.step()
    >>> w  # 2 · (1 - 0.25) - 0.5
    tensor([1.], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def _update(self, p: Array, g: Array, lr: Array, slots: dict[str, Array]) -> None:
        p *= (1 - lr * self._hyper["weight_decay"]).astype(p.dtype)
        self._descend(p, g, lr, slots)


class RMSprop(Optimizer):
    """RMSprop: steps divided by a running root mean square of the gradient.

    Parameters
    ----------
    params : iterable of Tensor
        The parameters.
    lr : float
        η, the learning rate.
    alpha : float
        α in [0, 1): how long the average lasts.
    eps : float
        ε, which bounds the step where the gradient is small.
    weight_decay : float
        λ, an L2 penalty: λ θ is added to the gradient.
    momentum : float
        μ in [0, 1), applied to the divided gradient.

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
    >>> rule = tg.optim.RMSprop([w], lr=0.1, alpha=0.75)
    >>> (w * w).sum().backward()
    >>> rule.step()
    >>> w  # g / √(g² / 4) = 2
    tensor([2.8], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
    ) -> None:
        super().__init__(
            params, lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum
        )

    def _new_slots(self, p: Array) -> dict[str, Array]:
        slots = {"v": _zeros_like(p)}
        return {**slots, "u": _zeros_like(p)} if self._hyper["momentum"] else slots

    def _update(self, p: Array, g: Array, lr: Array, slots: dict[str, Array]) -> None:
        alpha, mu, v = self._hyper["alpha"], self._hyper["momentum"], slots["v"]
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
            u = slots["u"]
            u *= mu
            u += s
        xp.multiply(u, lr.astype(p.dtype), out=s)
        p -= s


class Adagrad(Optimizer):
    """Adagrad: steps divided by the root of the sum of all squared gradients so far.

    Parameters
    ----------
    params : iterable of Tensor
        The parameters.
    lr : float
        η, the learning rate.
    weight_decay : float
        λ, an L2 penalty: λ θ is added to the gradient.
    eps : float
        ε, which bounds the step where the gradients were small.

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
    >>> rule = tg.optim.Adagrad([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> rule.step()
    >>> w
    tensor([2.5], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-2,
        weight_decay: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        super().__init__(params, lr, weight_decay=weight_decay, eps=eps)

    def _new_slots(self, p: Array) -> dict[str, Array]:
        return {"v": _zeros_like(p)}

    def _update(self, p: Array, g: Array, lr: Array, slots: dict[str, Array]) -> None:
        v = slots["v"]
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
    """Return the parameters as a list, once they are checked; `op` begins the messages.

    Parameters
    ----------
    params : iterable of Tensor
        Leaves that require a gradient, or are of the type `frozen`; each once.
    op : str
        The caller's name.
    frozen : type
        Of the tensors that need not require a gradient. One that is not even a `Parameter` is
        likely to be a mistake where it shall be learned.

    Returns
    -------
    list of Tensor
        The same, in their order.

    Raises
    ------
    ArgumentError
        There are none, or one is no such leaf, or occurs twice.

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
        raise ArgumentError(f"{op}: no parameters; was the generator used up before?")
    seen: dict[int, int] = {}
    for i, p in enumerate(result):
        if not isinstance(p, Tensor):
            cure = _CURES.get(type(p).__name__, "")
            cure = cure or conversion_hint(p)
            raise ArgumentError(f"{op}: parameter {i} is a {class_name(p)}, not a Tensor{cure}")
        if not p.requires_grad and not isinstance(p, frozen):
            raise ArgumentError(
                f"{op}: parameter {i}, {p.shape}, does not require a gradient: make it with "
                "requires_grad=True, or leave it out"
            )
        if not p.is_leaf:
            raise ArgumentError(
                f"{op}: parameter {i}, {p.shape}, is the result of an operation: give the leaves "
                "that it was computed from"
            )
        if seen.setdefault(id(p), i) != i:
            raise ArgumentError(f"{op}: parameters {seen[id(p)]} and {i} are the same tensor")
    return result


def _checked(settings: Mapping[str, Any], op: str) -> dict[str, Any]:
    """Return the settings as Python numbers, once they are known to lie in their ranges."""
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
    return t.dtype, t.shape, t.device


def _describe(spec: tuple[Any, ...]) -> str:
    return f"{spec[0]} {spec[1]} on {spec[2]}"


def _misfits(given: Any, slots: dict[str, Array], where: str) -> list[str]:
    """Return what is wrong with saved slots, a line each."""
    if problems := key_problems(given, slots, where):
        return problems
    for name, slot in slots.items():
        value = given[name]
        if not backend.is_array(value):
            problems.append(f"{where}: {name} is a {type(value).__name__}, not an array")
        elif (value.shape, value.dtype) != (slot.shape, slot.dtype):
            problems.append(
                f"{where}: {name} is {value.dtype} {value.shape}, "
                f"{slot.dtype} {slot.shape} is expected"
            )
    return problems
