"""Deterministic problems whose least value is known, and gradient descent on them at a budget of forward passes.

The classical ones: Rosenbrock's valley, quadratics of a condition number, logistic regression with an exact optimum.
A rate to start from is given over nine orders, for that a rule forgives it is what is claimed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import glyder
from benchmarks.harness.train import updates
from benchmarks.papers import logistic
from benchmarks.papers.common import Trial
from benchmarks.tasks.common.task import Problem

STARTS = (1e-6, 1e-3, 1.0, 1e3)
"""Rates that a rule is started from."""

GRID = tuple(10 ** (k / 4) for k in range(-16, 9, 2))
"""Constant rates, of which the best on each problem is shown."""

BUDGET = 3000
"""Forward passes of a run; a backward counts two, so that gradient descent at a constant rate makes 1000 updates."""

TARGETS = (1e-3, 1e-6, 1e-9)
"""Gaps, in units of the one at the start, whose costs are kept; a run ends at the last."""

MARKS = 40
"""Points of a curve, evenly in the logarithm of the cost."""


@dataclass(frozen=True)
class Function:
    """f of a vector, where to start, and min f."""

    f: Callable[[Tensor], Tensor]
    start: Tensor
    least: float = 0.0


def rosenbrock() -> Function:
    def f(x: Tensor) -> Tensor:
        return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2

    return Function(f, torch.tensor([-1.2, 1.0], dtype=torch.float64))


def quadratic(condition: float, dimensions: int = 20) -> Function:
    """Curvatures from 1/condition to 1, evenly in their logarithm; from the vector of ones."""
    curvatures = torch.logspace(-math.log10(condition), 0, dimensions, dtype=torch.float64)
    return Function(lambda x: (curvatures * x**2).sum() / 2, torch.ones(dimensions, dtype=torch.float64))


def regression() -> Function:
    """Logistic regression that no vector separates, from zero."""
    made = logistic.made(1)
    rows = torch.from_numpy(made.rows)
    least = float(made.loss(made.optimum))
    return Function(lambda x: torch.nn.functional.softplus(-(rows @ x)).mean(), torch.zeros_like(rows[0]), least)


PROBLEMS: dict[str, Callable[[], Function]] = {
    "Rosenbrock": rosenbrock,
    "quadratic, condition 1e2": lambda: quadratic(1e2),
    "quadratic, condition 1e4": lambda: quadratic(1e4),
    "logistic regression": regression,
}


class Point(nn.Module):
    """A vector as a model."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.x = nn.Parameter(start.clone())


CONSTANT = "constant rate"

RULES: dict[str, Callable[[Optimizer, nn.Module], Any]] = {
    CONSTANT: lambda o, m: glyder.AnnealedLR(o, BUDGET, "constant"),
    "Armijo": lambda o, m: glyder.ArmijoLR(o, m, batches_per_epoch=1),
    "Armijo, slack 0": lambda o, m: glyder.ArmijoLR(o, m, batches_per_epoch=1, slack=0.0),
    "AutoGD": lambda o, m: glyder.AutoSGDLR(o, m, exact=True),
    "AdGD": lambda o, m: glyder.AdGDLR(o),
    "BB1": lambda o, m: glyder.SecantLR(o),
}
"""Every update is an epoch, so that a search starts from twice the rate before. Published without slack."""


def trials() -> list[Trial]:
    return [
        Trial("classical", 0, {"problem": problem, "rule": rule, "rate": float(f"{rate:.4g}")})
        for problem in PROBLEMS
        for rule in RULES
        for rate in (GRID if rule == CONSTANT else STARTS)
    ]


class Counted:
    """A function that counts what is spent on it, whatever a rule says of itself: 1 a value, 2 more a gradient."""

    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        self.f, self.spent = f, 0

    def __call__(self, x: Tensor) -> Tensor:
        value = self.f(x)
        self.spent += 1
        if value.requires_grad:
            value.register_hook(self._differentiated)
        return value

    def _differentiated(self, gradient: Tensor) -> None:
        self.spent += 2


def descend(trial: Trial) -> dict[str, Any]:
    """Gaps in units of the first, with the forward passes before them: a curve, the first at each target, the last."""
    function = PROBLEMS[trial.options["problem"]]()
    model, f = Point(function.start), Counted(function.f)
    initial = float(function.f(function.start)) - function.least
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.options["rate"])
    scheduler = RULES[trial.options["rule"]](optimizer, model)
    problem = Problem(model, lambda m, batch: f(m.x), itertools.repeat(None), lambda m, part: {})  # type: ignore[arg-type, return-value]
    marks = BUDGET ** (np.arange(MARKS + 1) / MARKS)
    curve: list[list[float]] = []
    reached: dict[str, int] = {}
    spent, gap = 0, 1.0
    for loss in updates(problem, optimizer, scheduler, BUDGET, by_closure=True):
        gap = max(loss - function.least, 0.0) / initial
        if spent > BUDGET or not math.isfinite(gap):
            break
        for target in TARGETS:
            if gap <= target:
                reached.setdefault(f"{target:g}", spent)
        if not curve or (marks <= spent).sum() > (marks <= curve[-1][0]).sum():
            curve.append([spent, float(f"{gap:.4g}")])
        if gap <= TARGETS[-1]:
            break
        spent = f.spent
    return {
        "curve": curve, "reached": reached, "gap": float(f"{gap:.4g}") if math.isfinite(gap) else None,
        "rate": float(f"{optimizer.param_groups[0]['lr']:.4g}"),
    }  # fmt: skip
