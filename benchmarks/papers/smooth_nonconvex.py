"""The O(1/eps^2) rate of 2311.13877 on a smooth non-convex problem of known smoothness and noise.

    f(x) = mean_i phi(<b_i, x> - c_i),   phi(u) = u^2/(1 + u^2)      robust regression, a fifth of the c_i outliers

phi'' lies in [-1/2, 2], so L = 2 ||B||^2/n; the columns of B have lengths that fall like 1/sqrt(k). A gradient is
grad f(x) + xi with xi ~ N(0, sigma^2/d I). From smoothness alone

    mean over T steps of E||grad f||^2 <= 2 L Delta/T + sigma sqrt(2 L Delta/T),    Delta = f(x_0) - inf f <= f(x_0)

which is the rate of perfectly tuned SGD, and GLyDER's with exact gradients to measure on, without any tuning (F1:
eta = <grad f, g>/(L||g||^2) of each draw; F2: ||grad f||^2/(L E||g||^2)). Here both run next to SGD with the best
constant rate of a grid for each T by itself. They know L and nothing of sigma, Delta or T.

Run from the root of the repository: ``python -m benchmarks.papers.smooth_nonconvex`` (one minute of one core).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import glyder
from benchmarks.papers.common import PAPERS
from benchmarks.report.canvas import canvas, save

ROWS, WIDTH, SIGMA, STEPS, SEEDS = 200, 30, 0.3, 1000, 2
GRID = 2.0 ** np.arange(-11, 2)
"""Rates of SGD in units of 1/L; 2/L is where a quadratic of curvature L diverges."""

LENGTHS = np.unique(np.geomspace(30, STEPS, 8).astype(int))


class Robust(nn.Module):
    """f, of the parameters alone; a batch is the noise xi of one gradient."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        B = rng.standard_normal((ROWS, WIDTH)) / np.sqrt(np.arange(1, WIDTH + 1))
        c = B @ rng.standard_normal(WIDTH) * 0.4 + 0.1 * rng.standard_normal(ROWS)
        c += 10 * rng.standard_normal(ROWS) * (rng.random(ROWS) < 0.2)
        self.register_buffer("B", torch.tensor(B))
        self.register_buffer("c", torch.tensor(c))
        self.x = nn.Parameter(torch.zeros(WIDTH, dtype=torch.float64))
        self.L = 2 * float(np.linalg.norm(B, 2)) ** 2 / ROWS

    def forward(self, noise: Tensor) -> Tensor:
        u = (self.B @ self.x - self.c).square()
        return (u / (1 + u)).mean() + noise @ self.x


def gradient(model: Robust, x: np.ndarray) -> np.ndarray:
    """grad f of points [..., WIDTH], by hand."""
    B, c = model.B.numpy(), model.c.numpy()
    u = x @ B.T - c
    return (2 * u / (1 + u * u) ** 2) @ B / ROWS


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return SIGMA / math.sqrt(WIDTH) * rng.standard_normal((*shape, WIDTH))


def sgd(model: Robust) -> np.ndarray:
    """||grad f||^2 [rates, seeds, steps] of SGD at every rate of the grid."""
    rng = np.random.default_rng(1)
    x = np.zeros((len(GRID), SEEDS, WIDTH))
    found = np.empty((len(GRID), SEEDS, STEPS))
    for t in range(STEPS):
        g = gradient(model, x)
        found[:, :, t] = (g * g).sum(-1)
        x -= (GRID / model.L)[:, None, None] * (g + noise(rng, SEEDS))
    return found


def follow(make: Callable[[torch.optim.Optimizer, nn.Module, int], object], seed: int) -> np.ndarray:
    """||grad f||^2 [steps] of SGD under a scheduler."""
    model = Robust()
    optimizer = torch.optim.SGD(model.parameters())
    make(optimizer, model, seed)
    rng = np.random.default_rng(100 + seed)
    found = np.empty(STEPS)
    for t in range(STEPS):
        g = gradient(model, model.x.detach().numpy())
        found[t] = (g * g).sum()
        optimizer.zero_grad()
        model(torch.tensor(noise(rng))).backward()
        optimizer.step()
    return found


def draws(seed: int, sigma: float) -> Callable[[], Tensor]:
    """Noise of additional mini-batches; with sigma = 0 they are the whole data."""
    rng = np.random.default_rng(10_000 + seed)
    return lambda: torch.tensor(sigma * noise(rng))


def _loss(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch)


def in_step(sigma: float, count: int) -> Callable[[torch.optim.Optimizer, nn.Module, int], object]:
    return lambda optimizer, model, seed: glyder.LocalOptimumLR(
        optimizer,
        model,
        act="same-step",
        refresh="always",
        every=1,
        anneal=None,
        warmup=0,
        estimator=glyder.Smoothness(model.L),
        loss=_loss,
        batches=draws(seed, sigma),
        n_batches=count,
    )


def in_expectation(count: int) -> Callable[[torch.optim.Optimizer, nn.Module, int], object]:
    return lambda optimizer, model, seed: glyder.GradientNormLR(
        optimizer, model, L=model.L, loss=_loss, batches=draws(seed, 1.0), n_batches=count
    )


METHODS = {
    "F1, measured on the whole data": in_step(0.0, 1),
    "F1, on 1 mini-batch": in_step(1.0, 1),
    "F1, on 8 mini-batches": in_step(1.0, 8),
    "F2, on 8 mini-batches, averaged": in_expectation(8),
}
COLOURS = ("#d1495b", "#e6a5ae", "#e69f00", "#1b6ca8")


def means(found: np.ndarray) -> list[float]:
    """Mean over the first T steps and over seeds, for each T."""
    return [float(found[..., :T].mean()) for T in LENGTHS]


def steepness(values: list[float]) -> float:
    """Slope in log-log over the last decade of T."""
    late = np.array([T * 10 >= STEPS for T in LENGTHS])
    return float(np.polyfit(np.log(LENGTHS[late]), np.log(np.array(values)[late]), 1)[0])


def main() -> None:
    torch.set_num_threads(1)
    model = Robust()
    delta = model(torch.zeros(WIDTH, dtype=torch.float64)).item()
    plain = sgd(model).mean(1)
    curves = {"SGD, best constant rate for each T": [min(float(r[:T].mean()) for r in plain) for T in LENGTHS]}
    best = [float(GRID[int(np.argmin([r[:T].mean() for r in plain]))]) for T in LENGTHS]
    for name, make in METHODS.items():
        curves[name] = means(np.stack([follow(make, seed) for seed in range(SEEDS)]))
        print(f"{name}: {curves[name][-1]:.3g}, slope {steepness(curves[name]):.2f}", flush=True)
    bound = [2 * model.L * delta / T + SIGMA * math.sqrt(2 * model.L * delta / T) for T in LENGTHS]
    record = {
        "problem": {"rows": ROWS, "width": WIDTH, "L": model.L, "Delta at most": delta, "sigma": SIGMA, "seeds": SEEDS},
        "T": LENGTHS.tolist(),
        "mean squared gradient": curves,
        "bound": bound,
        "slopes over the last decade": {name: steepness(curve) for name, curve in curves.items()},
        "best rate of SGD times L": best,
    }
    PAPERS.mkdir(parents=True, exist_ok=True)
    (PAPERS / "smooth_nonconvex.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (PAPERS / "smooth_nonconvex.md").write_text(table(record), encoding="utf-8")
    draw(record)


def table(record: dict) -> str:
    curves, slopes = record["mean squared gradient"], record["slopes over the last decade"]
    tuned = next(iter(curves.values()))[-1]
    lines = [
        "# Rate of convergence on a smooth non-convex problem",
        "",
        f"Mean of ||grad f||^2 over the first {STEPS} steps, {SEEDS} seeds; slope in log-log, last decade of T.",
        "`python -m benchmarks.papers.smooth_nonconvex` says what the problem is and makes this file.",
        "",
        "| | mean of ||grad f||^2 | over that of tuned SGD | slope |".replace("||grad f||", "\\|\\|grad f\\|\\|"),
        "|---|---|---|---|",
    ]
    for name, curve in curves.items():
        lines.append(f"| {name} | {curve[-1]:.2e} | {curve[-1] / tuned:.2f} | {slopes[name]:.2f} |")
    bound = record["bound"]
    lines.append(f"| the bound | {bound[-1]:.2e} | {bound[-1] / tuned:.2f} | {steepness(bound):.2f} |")
    return "\n".join(lines) + "\n\n![mean squared gradient against steps](smooth_nonconvex.png)\n"


def draw(record: dict) -> None:
    figure, (ax,) = canvas(7, 4.5)
    ax.loglog(record["T"], record["bound"], ":", color="#888888", label="bound of tuned SGD")
    for (name, curve), colour in zip(record["mean squared gradient"].items(), ("black", *COLOURS), strict=True):
        ax.loglog(record["T"], curve, "o-", markersize=3, color=colour, label=name)
    ax.set_xlabel("steps T")
    ax.set_ylabel("mean of ||grad f||² over T steps")
    ax.legend(frameon=False, fontsize=8)
    save(figure, PAPERS / "smooth_nonconvex.png")


if __name__ == "__main__":
    main()
