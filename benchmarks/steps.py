"""One training step of a character model, the same in every library.

The step: lookup of the input rows, recurrent layer, linear layer, cross-entropy, clipping of the
gradient's norm to 1, SGD. `PEERS` has a function for each library. It makes a `Trainer` from a
`Problem`: the same parameters and the same characters for all. Each function imports its library,
since no two libraries share a process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from peer_cells import PEER_CELLS, PeerCell, normalize_by_parts

BUILT_IN_CELLS = ("rnn", "gru", "lstm")  # here and in PyTorch
RATE, NORM = 0.1, 1.0
Arrays = dict[str, np.ndarray]


class Unavailable(Exception):
    """A peer cannot run here; the message is the reason."""


class Problem(NamedTuple):
    """A training problem: `start` has the parameters by name, `x` and `y` the ids (T, B).

    `device`, where a peer trains it, is ``"cpu"`` but for `gpu.py`.
    """

    cell: str
    start: Arrays
    x: np.ndarray
    y: np.ndarray
    threads: int
    device: str = "cpu"

    @property
    def weights(self) -> Arrays:
        """The parameters for `peer_cells`: with the matrices of products transposed."""
        return {name: v.T.copy() if transposed(name, v) else v for name, v in self.start.items()}

    @property
    def hidden(self) -> int:
        return self.start["out.weight"].shape[1]

    @property
    def classes(self) -> int:
        return self.start["out.weight"].shape[0]


class Trainer(NamedTuple):
    """`step` trains once; `gradients` returns the loss and its gradients; call `compile` first.

    `wait` returns when the device has finished.
    """

    step: Callable[[], Any]
    gradients: Callable[[], tuple[float, Arrays]]
    parameters: Callable[[], Arrays]
    compile: Callable[[], Any] = lambda: None
    wait: Callable[[], Any] = lambda: None


def transposed(name: str, value: np.ndarray) -> bool:
    return value.ndim == 2 and name != "rows.weight"


def as_ours(weights: Arrays) -> Arrays:
    """Return parameters or gradients of `Problem.weights` in the shapes of `Problem.start`."""
    return {name: v.T if transposed(name, v) else v for name, v in weights.items()}


def problem(cell: str, size: tuple[int, int, int, int], threads: int = 1, seed: int = 0) -> Problem:
    """Draw a problem, with the parameters of our model of `cells.py`."""
    from cells import CELLS

    import tinygrad_rnn as tg

    T, B, V, H = size
    tg.manual_seed(seed)
    rng = np.random.default_rng(seed)
    _, parameters = character_model(tg.nn.Recurrent(CELLS[cell], V, H), V, H)
    # Noise, since zeros in the peepholes and biases could hide a wrong formula.
    start = {
        name: (p.numpy() + 0.05 * rng.normal(size=p.shape)).astype(np.float32)
        for name, p in parameters.items()
    }
    ids = rng.integers(0, V, (T + 1, B))
    return Problem(cell, start, ids[:-1], ids[1:], threads)


# --------------------------------------------------------------------------------------------- ours


def character_model(layer: Any, V: int, H: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parts of the model and the parameters of all, by name."""
    import tinygrad_rnn as tg

    parts = {"rows": tg.nn.Embedding(V, V), "layer": layer, "out": tg.nn.Linear(H, V)}
    parameters = {
        f"{part}.{name.removesuffix('_l0')}": p
        for part, module in parts.items()
        for name, p in module.named_parameters()
    }
    return parts, parameters


# The names of the parameters of `cells.py` in the built-in layers, ours and PyTorch's.
BUILT_IN_NAMES = {
    "layer.W.weight": "layer.weight_ih",
    "layer.U.weight": "layer.weight_hh",
    "layer.W.bias": "layer.bias_ih",
    "layer.bias": "layer.bias_hh",
}


def ours(
    problem: Problem, own: bool = False, backend: str | None = None, graph: bool = False
) -> Trainer:
    """Train the built-in layer or, with `own`, the same written in `cells.py`.

    `graph`: the step is one CUDA graph.
    """
    from cells import BUILT_IN, CELLS

    import tinygrad_rnn as tg

    if not own and problem.cell not in BUILT_IN_CELLS:
        raise Unavailable("not a built-in cell")
    if backend and not hasattr(tg.fuse, "backend"):
        raise Unavailable("this version has no tg.fuse.backend")
    if backend:
        tg.fuse.backend(backend)  # for the whole process

    V, H = problem.classes, problem.hidden
    with tg.default_device(problem.device):
        layer = tg.nn.Recurrent(CELLS[problem.cell], V, H) if own else BUILT_IN[problem.cell](V, H)
        parts, everything = character_model(layer, V, H)
        for p in everything.values():
            p.data = tg.zeros(*p.shape)  # the second bias is redundant and stays zero
        names = {} if own else BUILT_IN_NAMES
        named = {name: everything[names.get(name, name)] for name in problem.start}
        for name, value in problem.start.items():
            named[name].data = tg.tensor(value)
        parameters = list(everything.values())
        optimizer = tg.optim.SGD(parameters, lr=RATE)
        x, y = tg.tensor(problem.x), tg.tensor(problem.y)

    def loss_of() -> Any:
        output, _ = layer(parts["rows"](x))
        return tg.functional.cross_entropy(parts["out"](output), y)

    def train() -> Any:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        tg.optim.clip_grad_norm(parameters, NORM)
        optimizer.step()
        return loss

    def gradients() -> tuple[float, Arrays]:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss.item(), {name: p.grad.numpy().copy() for name, p in named.items()}

    def parameters_now() -> Arrays:
        return {name: p.numpy().copy() for name, p in named.items()}

    def wait() -> None:
        if problem.device != "cpu":
            import cupy

            cupy.cuda.Device().synchronize()

    step = tg.cuda.graph(train) if graph else train
    return Trainer(step, gradients, parameters_now, wait=wait)


# ------------------------------------------------------------------------------------------ PyTorch


def pytorch(problem: Problem, own: bool = False, compiled: str = "") -> Trainer:
    """Train the built-in layer or, with `own`, the cell of `peer_cells.py` in a loop over `unbind`.

    `compiled` names the part under torch.compile: the "step" of the cell, or the loss with its
    "loop".
    """
    import torch

    if not own and problem.cell not in BUILT_IN_CELLS:
        raise Unavailable("not a built-in cell")
    torch.set_num_threads(problem.threads)
    V, H = problem.classes, problem.hidden
    device = problem.device
    x, y = (torch.tensor(ids, device=device) for ids in (problem.x, problem.y.reshape(-1)))
    functional = torch.nn.functional
    if own:
        weights = {n: torch.tensor(v, device=device) for n, v in problem.weights.items()}
        named = {name: torch.nn.Parameter(v) for name, v in weights.items()}
        F = SimpleNamespace(
            sigmoid=torch.sigmoid,
            tanh=torch.tanh,
            split=lambda z, n: z.chunk(n, dim=-1),
            normalize=lambda x, w, b: functional.layer_norm(x, x.shape[-1:], w, b),
            product_sum=torch.addmm,
            zeros=functools.partial(torch.zeros, device=device),
            concatenate=torch.cat,
            inputs=lambda project, rows, x: (
                project(functional.embedding(x.reshape(-1), rows)).view(*x.shape, -1).unbind()
            ),
            cross_entropy=functional.cross_entropy,
        )
        cell = PEER_CELLS[problem.cell]
        loss_function = functools.partial(unrolled, F)
        if compiled == "step":
            compiled_step = torch.compile(functools.partial(cell.step, F))
            cell = cell._replace(step=lambda F, w, z, state: compiled_step(w, z, state))
        elif compiled == "loop":  # unrolled by the compiler: about a second for every time step
            loss_function = torch.compile(loss_function)

        def loss_of() -> Any:
            return loss_function(cell, named, x, y)
    else:
        model = torch.nn.Module()
        model.rows = torch.nn.Embedding(V, V)
        model.layer = getattr(torch.nn, problem.cell.upper())(V, H)
        model.out = torch.nn.Linear(H, V)
        model.to(device)
        by_name = {name.removesuffix("_l0"): p for name, p in model.named_parameters()}
        with torch.no_grad():
            for p in by_name.values():
                p.zero_()
            named = {name: by_name[BUILT_IN_NAMES.get(name, name)] for name in problem.start}
            for name, value in problem.start.items():
                named[name].copy_(torch.tensor(value))

        def loss_of() -> Any:
            output, _ = model.layer(model.rows(x))
            return functional.cross_entropy(model.out(output).view(-1, V), y)

    parameters = list(named.values()) if own else list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=RATE)

    def step() -> Any:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, NORM)
        optimizer.step()
        return loss

    def arrays(values: dict[str, Any]) -> Arrays:
        found = {name: v.detach().cpu().numpy().copy() for name, v in values.items()}
        return as_ours(found) if own else found

    def gradients() -> tuple[float, Arrays]:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss.item(), arrays({name: p.grad for name, p in named.items()})

    def wait() -> None:
        if problem.device != "cpu":
            torch.cuda.synchronize()

    return Trainer(step, gradients, lambda: arrays(named), wait=wait)


def unrolled(F: Any, cell: PeerCell, named: Any, x: Any, y: Any) -> Any:
    """Return the loss, for the libraries with a loop over time in Python."""
    w = of_layer(named)
    H = named["out.weight"].shape[0]
    state = tuple(F.zeros((x.shape[1], H)) for _ in range(cell.elements))
    outputs = []
    for z in F.inputs(lambda rows: cell.project(F, w, rows), named["rows.weight"], x):
        state = cell.step(F, w, z, state)
        outputs.append(state[0])
    logits = F.product_sum(named["out.bias"], F.concatenate(outputs), named["out.weight"])
    return F.cross_entropy(logits, y)


def of_layer(named: Any) -> dict[str, Any]:
    return {k.removeprefix("layer."): v for k, v in named.items() if k.startswith("layer.")}


# ---------------------------------------------------------------------------------------------- JAX


def jax(problem: Problem) -> Trainer:
    """Put the whole step under jit, the loop in a lax.scan, and donate the parameters."""
    import jax
    import jax.numpy as jnp

    cell, H = PEER_CELLS[problem.cell], problem.hidden
    F = SimpleNamespace(
        sigmoid=jax.nn.sigmoid,
        tanh=jnp.tanh,
        split=lambda z, n: jnp.split(z, n, axis=-1),
        mean=jnp.mean,
        sqrt=jnp.sqrt,
        product_sum=lambda z, h, u: z + h @ u,
    )
    F.normalize = lambda x, w, b: normalize_by_parts(F, x, w, b)
    x, y = jnp.asarray(problem.x), jnp.asarray(problem.y)
    state = tuple(jnp.zeros((x.shape[1], H), jnp.float32) for _ in range(cell.elements))

    def loss_of(named: Any, x: Any, y: Any) -> Any:
        w = of_layer(named)

        def body(state: Any, z: Any) -> Any:
            state = cell.step(F, w, z, state)
            return state, state[0]

        _, outputs = jax.lax.scan(body, state, cell.project(F, w, named["rows.weight"][x]))
        logits = outputs @ named["out.weight"] + named["out.bias"]
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), y[..., None], -1)
        return -jnp.mean(picked)

    def train(named: Any, x: Any, y: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(named, x, y)
        norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in grads.values()))
        scale = RATE * jnp.minimum(1.0, NORM / norm)
        return {name: p - scale * grads[name] for name, p in named.items()}, loss

    named = {name: jnp.array(v) for name, v in problem.weights.items()}
    executable: Any = None

    def prepare() -> None:
        nonlocal executable
        executable = jax.jit(train, donate_argnums=0).lower(named, x, y).compile()

    def step() -> Any:
        nonlocal named
        if executable is None:
            prepare()
        named, loss = executable(named, x, y)
        jax.block_until_ready(named)
        return loss

    def arrays(values: Any) -> Arrays:
        return as_ours({name: np.array(v) for name, v in values.items()})

    def gradients() -> tuple[float, Arrays]:
        loss, grads = jax.jit(jax.value_and_grad(loss_of))(named, x, y)
        return float(loss), arrays(grads)

    return Trainer(step, gradients, lambda: arrays(named), prepare)


# ------------------------------------------------------------------------- MyGrad and HIPS autograd


def descend(parameters: Arrays, grads: Arrays) -> None:
    """Clip and step, in place, for the libraries without optimizers."""
    norm = sum(float(np.vdot(g, g)) for g in grads.values()) ** 0.5
    scale = np.float32(RATE * min(1.0, NORM / norm))
    for name, p in parameters.items():
        p -= scale * grads[name]


def mygrad(problem: Problem) -> Trainer:
    """Look up and project step by step: the gradient of a slice costs the whole array."""
    import mygrad as mg
    from mygrad.nnet.activations import sigmoid
    from mygrad.nnet.losses import softmax_crossentropy

    def split(z: Any, n: int) -> list[Any]:
        width = z.shape[-1] // n
        return [z[..., i * width : (i + 1) * width] for i in range(n)]

    def inputs(project: Any, rows: Any, x: np.ndarray) -> Iterator[Any]:
        return (project(rows[ids]) for ids in x)

    F = SimpleNamespace(
        sigmoid=sigmoid,
        tanh=mg.tanh,
        split=split,
        mean=mg.mean,
        sqrt=mg.sqrt,
        product_sum=lambda z, h, u: z + mg.matmul(h, u),
        zeros=lambda shape: np.zeros(shape, np.float32),
        concatenate=mg.concatenate,
        inputs=inputs,
        cross_entropy=softmax_crossentropy,
    )
    F.normalize = lambda x, w, b: normalize_by_parts(F, x, w, b)
    named = {name: mg.tensor(v) for name, v in problem.weights.items()}
    y = problem.y.reshape(-1)

    def backward() -> tuple[Any, Arrays]:
        for p in named.values():
            p.null_grad()
        loss = unrolled(F, PEER_CELLS[problem.cell], named, problem.x, y)
        loss.backward()
        return loss, {name: p.grad for name, p in named.items()}

    def step() -> Any:
        loss, grads = backward()
        descend({name: p.data for name, p in named.items()}, grads)
        return loss

    def gradients() -> tuple[float, Arrays]:
        loss, grads = backward()
        return loss.item(), as_ours({name: g.copy() for name, g in grads.items()})

    return Trainer(
        step, gradients, lambda: as_ours({name: p.data.copy() for name, p in named.items()})
    )


def autograd(problem: Problem) -> Trainer:
    import autograd.numpy as anp
    from autograd import value_and_grad

    def sigmoid(x: Any) -> Any:
        return 0.5 * anp.tanh(0.5 * x) + 0.5

    def cross_entropy(logits: Any, y: np.ndarray) -> Any:
        top = anp.max(logits, axis=-1, keepdims=True)
        log_sum = anp.log(anp.sum(anp.exp(logits - top), axis=-1)) + top[:, 0]
        return anp.mean(log_sum - logits[np.arange(len(y)), y])

    F = SimpleNamespace(
        sigmoid=sigmoid,
        tanh=anp.tanh,
        split=lambda z, n: anp.split(z, n, axis=-1),
        mean=anp.mean,
        sqrt=anp.sqrt,
        product_sum=lambda z, h, u: z + anp.dot(h, u),
        zeros=lambda shape: np.zeros(shape, np.float32),
        concatenate=anp.concatenate,
        inputs=lambda project, rows, x: anp.split(project(rows[x.reshape(-1)]), len(x)),
        cross_entropy=cross_entropy,
    )
    F.normalize = lambda x, w, b: normalize_by_parts(F, x, w, b)
    named, y = problem.weights, problem.y.reshape(-1)
    both = value_and_grad(lambda w: unrolled(F, PEER_CELLS[problem.cell], w, problem.x, y))

    def step() -> Any:
        loss, grads = both(named)
        descend(named, grads)
        return loss

    def gradients() -> tuple[float, Arrays]:
        loss, grads = both(named)
        return float(loss), as_ours(grads)

    return Trainer(step, gradients, lambda: as_ours({k: v.copy() for k, v in named.items()}))


PEERS: dict[str, Callable[[Problem], Trainer]] = {
    "ours": ours,
    "ours-numpy": lambda p: ours(p, backend="numpy"),
    "user": lambda p: ours(p, own=True),
    "user-numpy": lambda p: ours(p, own=True, backend="numpy"),
    "ours-graph": lambda p: ours(p, graph=True),
    "user-graph": lambda p: ours(p, own=True, graph=True),
    "pytorch": pytorch,
    "pytorch-user": lambda p: pytorch(p, own=True),
    "pytorch-compile-step": lambda p: pytorch(p, own=True, compiled="step"),
    "pytorch-compile-loop": lambda p: pytorch(p, own=True, compiled="loop"),
    "jax": jax,
    "mygrad": mygrad,
    "autograd": autograd,
}
