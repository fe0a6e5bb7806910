"""Released packages that promise the same, beside AdamW, each by its recipes.

``"documented"`` is what README or paper recommend, with a constant factor where they leave the schedule to the user;
``"annealed"`` adds a cosine to zero behind a warm-up of glyder's length, or what comes closest to it, and ``"linear"``
glyder's own linear decay in the cosine's place. Weight decay is as torch's: 0.01, decoupled.
"""

from __future__ import annotations

import contextlib
import importlib
from itertools import islice
from typing import Any

import torch
from torch import nn

import glyder
from benchmarks.methods.schedules import Method, warmup_steps
from benchmarks.tasks.common.task import Problem, Task

DECAY = 0.01

REFRESHED = 50
"""Batches that statistics of BatchNorm are taken on anew, as in Schedule-Free's README."""

RECIPES = {"prodigy": ("documented", "annealed", "linear"), "schedulefree": ("documented", "annealed")}
"""Schedule-Free knows the length of the run by its warm-up, and has nothing to anneal."""


def package(name: str) -> Any:
    """The module ``name``, or how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name}: {error}; pip install -r benchmarks/requirements.txt") from error


def check(name: str, optimizer: str, recipe: str) -> None:
    """Refuse an optimizer that the method does not stand beside, and an unknown recipe."""
    if optimizer != "AdamW":
        raise ValueError(f"{name} stands beside AdamW, not {optimizer}")
    if recipe not in RECIPES[name]:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES[name])}, got {recipe!r}")


class Prodigy(Method):
    """lr = 1, all defaults; ``safeguard_warmup`` with the warm-up, as its README asks."""

    def __init__(self, problem: Problem, task: Task, optimizer: str, recipe: str = "documented") -> None:
        check("prodigy", optimizer, recipe)
        kind, steps, annealed = package("prodigyopt").Prodigy, task.steps, recipe != "documented"
        with contextlib.redirect_stdout(None):
            made = kind(problem.trained, lr=1.0, weight_decay=DECAY, safeguard_warmup=annealed)
        shape = "linear" if recipe == "linear" else "cosine"
        schedule = glyder.AnnealedLR(made, steps, shape, warmup=warmup_steps("glyder", steps)) if annealed else None
        super().__init__(problem.model, made, schedule)

    def rate(self) -> float:
        group = self.optimizer.param_groups[0]
        return float(group["d"] * group["lr"])


class ScheduleFree(Method):
    """lr = 0.0025, warm-up of 5 %; annealed: nothing but glyder's warm-up in its place."""

    optimizer: Any

    def __init__(self, problem: Problem, task: Task, optimizer: str, recipe: str = "documented") -> None:
        check("schedulefree", optimizer, recipe)
        warm = warmup_steps("5%" if recipe == "documented" else "glyder", task.steps)
        kind = package("schedulefree").AdamWScheduleFree
        super().__init__(problem.model, kind(problem.trained, lr=0.0025, weight_decay=DECAY, warmup_steps=warm))
        self.optimizer.train()
        self.problem = problem

    def rate(self) -> float:
        return float(self.optimizer.param_groups[0]["scheduled_lr"])

    def finish(self) -> nn.Module:
        """The averaged weights, with statistics of BatchNorm that belong to them."""
        self.optimizer.eval()
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.model.modules()):
            self.model.train()
            with torch.no_grad():
                for batch in islice(self.problem.batches, REFRESHED):
                    self.problem.loss(self.model, batch)
        return self.model
