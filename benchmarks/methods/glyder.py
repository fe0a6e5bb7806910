"""GlyderLR with no learning rate given."""

from __future__ import annotations

import math
from typing import Any

import glyder
from benchmarks.methods import optimizers
from benchmarks.methods.schedules import Method
from benchmarks.tasks.common.task import Problem, Task


class Glyder(Method):
    """``start`` is the rate that the optimizer is made with."""

    scheduler: glyder.GlyderLR

    def __init__(self, problem: Problem, task: Task, optimizer: str, start: float = 1e-3) -> None:
        made = optimizers.make(optimizer, problem, start, task.decay)
        super().__init__(problem.model, made, glyder.GlyderLR(made, total_steps=task.steps))

    def told(self) -> dict[str, Any]:
        """The peak, None where none was found."""
        peak = self.scheduler.peak_lr
        return {"peak": peak if math.isfinite(peak) else None}
