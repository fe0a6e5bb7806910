"""Polyak's step and line searches on the convex tasks of their papers.

(a) Binary classification in batches of 100, as SPS (2002.10542) and SLS (1905.09997) show it, at a smaller scale:
mushrooms under an RBF kernel of the released width, which can be fitted, and ijcnn1 without a kernel, which cannot.
NGN (2407.04358), constant rates, Adam and GlyderLR beside them. (b) AutoGD (2505.21651) on deterministic problems
(``classical.py``). Lines, figure and table go to ``benchmarks/results/papers/convex.*``; runs whose lines are there
are not run again.

A held-out task is on ijcnn1, so that nothing is chosen by it. Its rows are used here all the same:
GlyderLR is seen with the defaults that it has, and no default of any rule is chosen by what comes out.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

import glyder
from benchmarks.harness.train import updates
from benchmarks.papers import logistic
from benchmarks.papers.common import Trial
from benchmarks.tasks.common import data
from benchmarks.tasks.common.data import Parts
from benchmarks.tasks.common.rows import classification, score_labels

SEEDS = (1, 2, 3)
BATCH = 100
WIDTH = 0.5
"""Of the kernel, sigma in exp(-||a - b||^2/(2 sigma^2)), for mushrooms; of the released code."""

ROWS = 3000
"""Training rows of mushrooms, of 6499 in the papers: the kernel has a column for each."""


class Margin(nn.Module):
    """One output as two logits, of which the first is 0: cross-entropy is then the logistic loss."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, 1, bias=False, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(self.linear(x), (1, 0))


@dataclass(frozen=True)
class Rows:
    """Rows in double precision, so that a loss can be followed to 1e-15; ``least`` is the least training loss."""

    parts: Parts
    epochs: int
    least: float

    @property
    def batches(self) -> int:
        """In an epoch."""
        return len(self.parts["train"][1]) // BATCH


def kernel(a: Tensor, b: Tensor, width: float = WIDTH) -> Tensor:
    """exp(-||a_i - b_j||^2/(2 width^2)), [rows of a, rows of b]."""
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return torch.exp(-squared.clamp(min=0) / (2 * width**2))


def mushrooms(rows: int = ROWS, test: int = 1600) -> Rows:
    """A column for each training row; the kernel is positive definite, so that the least loss is 0."""
    z = np.load(data.root() / data.FILES["mushrooms"])
    x, y = torch.from_numpy(z["x"].astype(np.float64)), torch.from_numpy((z["y"] > z["y"].min()).astype(np.int64))
    train, last = data.split(len(y), rows, test)
    return Rows(
        {"train": (kernel(x[train], x[train]), y[train]), "test": (kernel(x[last], x[train]), y[last])}, 35, 0.0
    )


def ijcnn1() -> Rows:
    """22 columns, of which ten say one of ten and so hold the constant; the least loss by Newton's method."""
    parts = {name: (x.double(), y) for name, (x, y) in data.libsvm("ijcnn1").items()}
    return Rows(parts, 10, least(*parts["train"]))


def least(x: Tensor, y: Tensor) -> float:
    """The least logistic loss of rows that no vector separates."""
    rows = (x * (2 * y - 1)[:, None]).numpy()
    made = logistic.Logistic(rows, logistic.minimised(rows))
    return float(made.loss(made.optimum))


DATA: dict[str, Callable[[], Rows]] = {"mushrooms": mushrooms, "ijcnn1": ijcnn1}
rows_of = functools.cache(lambda name: DATA[name]())

Maker = Callable[[nn.Module, Rows], tuple[Optimizer, Any]]


def sgd(rate: float, rule: Callable[[Optimizer, nn.Module, Rows], Any]) -> Maker:
    def made(model: nn.Module, p: Rows) -> tuple[Optimizer, Any]:
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        return optimizer, rule(optimizer, model, p)

    return made


def adam(rate: float, rule: Callable[[Optimizer, nn.Module, Rows], Any]) -> Maker:
    def made(model: nn.Module, p: Rows) -> tuple[Optimizer, Any]:
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        return optimizer, rule(optimizer, model, p)

    return made


def constant(optimizer: Optimizer, model: nn.Module, p: Rows) -> glyder.AnnealedLR:
    return glyder.AnnealedLR(optimizer, p.epochs * p.batches, "constant")


def found(optimizer: Optimizer, model: nn.Module, p: Rows) -> glyder.GlyderLR:
    """The optimizer's rate plays no part."""
    return glyder.GlyderLR(optimizer, model, total_steps=p.epochs * p.batches)


def polyak(**options: float) -> Maker:
    return sgd(1.0, lambda optimizer, model, p: glyder.PolyakLR(optimizer, **options))  # type: ignore[arg-type]


def smoothed(c: float) -> Maker:
    return sgd(1.0, lambda optimizer, model, p: glyder.PolyakLR(optimizer, c=c, gamma=2.0, batches=p.batches))


def search(**options: Any) -> Maker:
    return sgd(
        1.0, lambda optimizer, model, p: glyder.ArmijoLR(optimizer, model, batches_per_epoch=p.batches, **options)
    )


BOUNDS = (1.0, 5.0, 100.0)
"""The published ones of SPS with a constant bound, taken for NGN's sigma as well."""

RATES = tuple(10.0**k for k in range(-2, 6))
ADAM_RATES = (0.001, 0.01, 0.1)

METHODS: dict[str, Maker] = {
    **{f"SGD {rate:g}": sgd(rate, constant) for rate in RATES},
    **{f"Adam {rate:g}": adam(rate, constant) for rate in ADAM_RATES},
    "GlyderLR, SGD": sgd(1.0, found),
    "GlyderLR, Adam": adam(1.0, found),
    "SPS smoothed, c 0.5": smoothed(0.5),
    "SPS smoothed, c 0.2": smoothed(0.2),
    **{f"SPS bound {bound:g}": polyak(max_lr=bound) for bound in BOUNDS},
    "SPS no bound": polyak(),
    **{f"NGN {sigma:g}": polyak(sigma=sigma) for sigma in BOUNDS},
    "SLS Armijo": search(),
    "SLS Goldstein": search(condition="goldstein", reset="keep", max_lr=10.0),
}
"""c is 0.5 and gamma is 2 where nothing is said; the searches as in the released code: c 0.1, backtracking 0.9."""


def trials(name: str) -> list[Trial]:
    return [Trial("convex", seed, {"data": name, "method": method}) for seed in SEEDS for method in METHODS]


def train(trial: Trial) -> dict[str, Any]:
    """Loss of all training rows before and after each epoch; the run ends where it is not finite."""
    p = rows_of(trial.options["data"])
    x, _ = p.parts["train"]
    problem = classification(lambda: Margin(x.shape[1]), p.parts, BATCH, trial.seed)
    optimizer, scheduler = METHODS[trial.options["method"]](problem.model, p)
    steps, by_closure = p.epochs * p.batches, isinstance(scheduler, glyder.ArmijoLR)
    losses, rates, cpu = [score_labels(problem.model, p.parts["train"])["loss"]], [], 0.0
    begun, done = time.process_time(), 0
    for done, _ in enumerate(updates(problem, optimizer, scheduler, steps, by_closure=by_closure), 1):
        if done % p.batches == 0:
            cpu += time.process_time() - begun
            losses.append(score_labels(problem.model, p.parts["train"])["loss"])
            rates.append(float(optimizer.param_groups[0]["lr"]))
            begun = time.process_time()
    errors = {part: score_labels(problem.model, p.parts[part])["error"] for part in ("train", "test")}
    finite = all(map(math.isfinite, losses)) and done == steps
    return {
        "losses": [_short(v) if math.isfinite(v) else None for v in losses], "rates": [_short(v) for v in rates],
        "error": errors if finite else None, "least": p.least, "updates": done, "cpu": round(cpu, 3),
        "forwards": 3.0 * done + getattr(scheduler, "cost", (0.0, 0))[0],
    }  # fmt: skip


def _short(value: float) -> float:
    return float(f"{value:.6g}")
