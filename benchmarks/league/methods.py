"""Who sets the learning rate: a tuned schedule, glyder, or a rival (``rivals.py``).

A method is made once for a run and then called once an update, when the gradients are there. ``finish`` gives the
model to score, which for methods that average is not the one that was trained.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection
from typing import Any, Protocol

from torch import Tensor, nn

import glyder
from benchmarks.league import optimizers
from benchmarks.league.workload import Cell, Task
from glyder._checks import measurement_phase


def check(name: str, beside: tuple[str, ...], recipes: Collection[str], optimizer: str, recipe: str) -> None:
    """Refuse an optimizer that the method does not stand beside, and an unknown recipe."""
    if optimizer not in beside:
        raise ValueError(f"{name} stands beside {', '.join(beside)}, not {optimizer}")
    if recipe not in recipes:
        raise ValueError(f"recipe must be one of {', '.join(recipes)}, got {recipe!r}")


class Method(Protocol):
    def step(self, loss: Tensor) -> None: ...
    def zero_grad(self) -> None: ...
    def rate(self) -> float: ...
    def finish(self) -> nn.Module: ...
    def cost(self) -> tuple[float, int]:
        """Extra forward passes (a backward counts as two) and copies of the parameters."""

    def told(self) -> dict[str, Any]:
        """What else the line of the run is to hold."""


class Scheduled:
    """Any of the league's optimizers under one torch scheduler for each."""

    def __init__(self, task: Task, cell: Cell, optimizer: str, lr: float) -> None:
        self.model = task.model
        self.optimizers = optimizers.make(optimizer, task.model, lr, cell.decay)
        self.schedulers: list[Any] = []

    def step(self, loss: Tensor) -> None:
        for each in (*self.optimizers, *self.schedulers):
            each.step()

    def zero_grad(self) -> None:
        for each in self.optimizers:
            each.zero_grad()

    def rate(self) -> float:
        return float(self.optimizers[0].param_groups[0]["lr"])

    def finish(self) -> nn.Module:
        return self.model

    def cost(self) -> tuple[float, int]:
        return 0.0, 0

    def told(self) -> dict[str, Any]:
        return {}


def warmup_steps(kind: str, steps: int) -> int:
    """Updates of warm-up: ``"none"``, ``"5%"`` of the run, or ``"glyder"``: a quarter of it, 100 at most."""
    return {"none": 0, "5%": max(1, round(0.05 * steps)), "glyder": measurement_phase(steps)}[kind]


class Tuned(Scheduled):
    """A schedule with a given peak: what is tuned."""

    def __init__(
        self, task: Task, cell: Cell, optimizer: str, peak: float, anneal: str = "linear", warmup: str = "5%"
    ) -> None:
        super().__init__(task, cell, optimizer, peak)
        warm = warmup_steps(warmup, cell.steps)
        self.schedulers = [glyder.AnnealedLR(o, cell.steps, anneal, warmup=warm) for o in self.optimizers]


class Glyder(Scheduled):
    """GlyderLR with no learning rate given; ``start`` is what the optimizer is made with."""

    def __init__(self, task: Task, cell: Cell, optimizer: str, start: float = 1e-3) -> None:
        super().__init__(task, cell, optimizer, start)
        self.scheduler = glyder.GlyderLR(self.optimizers[0], total_steps=cell.steps)
        self.schedulers = [self.scheduler]

    def cost(self) -> tuple[float, int]:
        return self.scheduler.cost

    def told(self) -> dict[str, Any]:
        """The peak, None where none was found."""
        peak = self.scheduler.peak_lr
        return {"peak": peak if math.isfinite(peak) else None}


Maker = Callable[..., Method]


@functools.cache
def makers() -> dict[str, Maker]:
    """Every method by name: ``make(task, cell, optimizer, **options)``."""
    from benchmarks.league import rivals

    return {"tuned": Tuned, "fixed": Tuned, "glyder": Glyder, **rivals.RIVALS}
