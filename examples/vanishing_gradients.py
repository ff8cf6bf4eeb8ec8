"""Vanishing gradients of recurrent networks: the gradient's norm by the distance in time.

    python examples/vanishing_gradients.py
    python examples/vanishing_gradients.py --plot norms.png

The gradient of a loss by the state d steps earlier is a product of d step Jacobians, so it shrinks
or grows like ρ^d, where ρ is about their spectral radius (Bengio, Simard and Frasconi 1994). Each
network is measured fresh and after training on the adding problem, whose answer depends on early
steps. The output has its error, the share of the gradient that reaches the first step, the factor
per step, and the mean spectral radius of the step Jacobians. The constant answer 1 has the error
0.167; in so few steps the plain RNN and the LSTM improve on it with some seeds only.

The targets: the gradients of fresh networks vanish (a share below 0.001); that of the trained GRU
does not (above 0.01), and it solves the problem (an error of at most 0.02); no network solves it
without such a share; and the spectral radius predicts the factor of each fresh network to 20 %.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

import tinygrad_rnn as tg

LAYERS = {"RNN": tg.nn.RNN, "GRU": tg.nn.GRU, "LSTM": tg.nn.LSTM}


def radius(layer: tg.nn.Recurrent, x: tg.Tensor) -> float:
    """Return the geometric mean of the step Jacobians' spectral radii along one sequence."""
    _, states = tg.viz.unroll(layer, x)
    logs = []
    for x_t, before in list(zip(x[1:], states, strict=False))[:: max(1, len(x) // 8)]:

        def step(*state: tg.Tensor, x_t: tg.Tensor = x_t) -> object:
            return layer.cells[0](x_t, state if len(state) > 1 else state[0])

        logs.append(np.log(tg.viz.spectral_radius(step, tg.bptt.detach(before), tol=1e-3)))
    return float(np.exp(np.mean(logs)))


def train(layer: tg.nn.Recurrent, head: tg.nn.Linear, length: int, steps: int) -> None:
    parameters = [*layer.parameters(), *head.parameters()]
    optimizer = tg.optim.Adam(parameters, lr=1e-2)
    schedule = tg.optim.schedule.Scheduler(optimizer, tg.optim.schedule.cosine(steps))
    for _ in range(steps):
        x, y = tg.data.tasks.adding(batch_size=32, steps=length)
        loss = tg.functional.mse_loss(head(layer(x)[0][-1]), y)
        optimizer.zero_grad()
        loss.backward()
        tg.optim.clip_grad_norm(parameters, 1.0)
        optimizer.step()
        schedule.step()


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure vanishing gradients.")
    parser.add_argument("--hidden", type=int, default=24)
    parser.add_argument("--sequence", type=int, default=30, help="the length of the sequences")
    parser.add_argument("--steps", type=int, default=700, help="minibatches to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="PATH", help="draw the norms (.png, .svg, ...)")
    parser.add_argument("--smoke", action="store_true", help="three minibatches, no target")
    args = parser.parse_args()
    if min(args.hidden, args.steps) < 1 or args.sequence < 2:
        parser.error("--hidden and --steps must be at least 1, --sequence at least 2")
    length, steps = args.sequence, 3 if args.smoke else args.steps

    norms, shares, errors, deviations = {}, {}, {}, []
    for name, kind in LAYERS.items():
        tg.manual_seed(args.seed)
        layer, head = kind(2, args.hidden), tg.nn.Linear(args.hidden, 1)
        x, y = tg.data.tasks.adding(batch_size=500, steps=length, rng=args.seed)

        def loss_of(last: tg.Tensor, head: tg.nn.Linear = head, y: tg.Tensor = y) -> tg.Tensor:
            return tg.functional.mse_loss(head(last), y)

        for when in ("fresh", "trained"):
            if when == "trained":
                train(layer, head, length, steps)
            (curve,) = tg.viz.gradient_norms(layer, x, loss_of)
            norms[f"{name}, {when}"] = curve
            shares[name, when] = share = curve[-1] / curve[0]
            factor, rho = share ** (1 / (length - 1)), radius(layer, x[:, :1])
            with tg.no_grad():
                errors[name, when] = error = loss_of(layer(x)[0][-1]).item()
            print(
                f"{name:4} {when:7}: error {error:.4f}, share {share:.1e}, factor {factor:.3f}, "
                f"radius {rho:.3f}"
            )
            if when == "fresh":
                deviations.append(abs(rho / factor - 1))
    if args.plot:
        tg.viz.plot_gradient_norms(norms).savefig(args.plot)

    fresh = max(shares[name, "fresh"] for name in LAYERS)
    trained, error = shares["GRU", "trained"], errors["GRU", "trained"]
    print(
        f"at distance {length - 1}: fresh at most {fresh:.1e}, trained GRU {trained:.1e} with "
        f"error {error:.4f}; radius off by at most {max(deviations):.1%}"
    )
    solved = [key for key in errors if errors[key] <= 0.02]
    reached = fresh < 1e-3 and error <= 0.02 and max(deviations) < 0.2
    reached = reached and all(shares[key] > 0.01 for key in solved)
    return int(not args.smoke and not reached)


if __name__ == "__main__":
    sys.exit(main())
