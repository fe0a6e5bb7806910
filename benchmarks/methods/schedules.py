"""What a method is, and the tuned one: a schedule with a given peak."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

import glyder
from benchmarks.methods import optimizers
from benchmarks.tasks.common.task import Problem, Task


class Method:
    """An optimizer and what sets its rate: a torch scheduler, or None for a rate that stays.

    Made once for a run, as ``method(problem, task, optimizer, **options)``.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, scheduler: Any = None) -> None:
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler

    def rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def finish(self) -> nn.Module:
        """The model to score, which for methods that average is not the one that was trained."""
        return self.model

    def told(self) -> dict[str, Any]:
        """What else the line of the run is to hold."""
        return {}


def warmup_steps(kind: str, steps: int) -> int:
    """Updates of warm-up: ``"none"``, ``"5%"`` of the run, or ``"glyder"``: a quarter of it, but 10 to 100 and at most
    half."""
    glyder = min(100, max(steps // 4, min(10, steps // 2)))
    return {"none": 0, "5%": max(1, round(0.05 * steps)), "glyder": glyder}[kind]


class Tuned(Method):
    """A schedule with a given peak: what is tuned."""

    def __init__(
        self, problem: Problem, task: Task, optimizer: str, peak: float, anneal: str = "linear", warmup: str = "5%"
    ) -> None:
        made = optimizers.make(optimizer, problem, peak, task.decay)
        schedule = glyder.AnnealedLR(made, task.steps, anneal, warmup=warmup_steps(warmup, task.steps))
        super().__init__(problem.model, made, schedule)
