"""GlyderLR in the two lines that the README has, on tasks that any good rate learns: what counts as training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import glyder

UPDATES, POOL = 80, 4
"""Of a run; and the batches that it goes through in turn."""

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "momentum": lambda parameters: torch.optim.SGD(parameters, momentum=0.9),
}

EACH = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


@dataclass
class Task:
    """What is to be learned.

    Attributes:
        parameters: all that are trained.
        loss: of update t.
        share: of the score at the start, the most that may be left at the end; a tuned run leaves clearly less.
        score: 0 at best. Default: the mean loss over the pool.
    """

    parameters: list[Tensor]
    loss: Callable[[int], Tensor]
    share: float
    score: Callable[[], float] | None = None

    def left(self) -> float:
        """The score now."""
        with torch.no_grad():
            return self.score() if self.score else sum(self.loss(t).item() for t in range(POOL)) / POOL


def net(outputs: int, inputs: int = 6, hidden: int = 16) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))


def plain_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def learns(
    task: Task,
    make: Callable[[Any], torch.optim.Optimizer],
    step: Callable[[torch.optim.Optimizer, int], None] | None = None,
    updates: int = UPDATES,
) -> glyder.GlyderLR:
    """Train it and look at what came of it. ``step(optimizer, t)`` makes update t where it is not the plainest one."""
    begun = task.left()
    optimizer = make(task.parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler = glyder.GlyderLR(optimizer, total_steps=updates)
        for t in range(updates):
            if step:
                step(optimizer, t)
            else:
                plain_step(optimizer, task.loss(t))
            scheduler.step()
    well(scheduler, task.parameters, updates)
    assert task.left() < task.share * begun
    return scheduler


def well(scheduler: glyder.GlyderLR, parameters: Iterable[Tensor], steps: int) -> None:
    """A peak was found in time, about where the search ended; and every step was an update, but for those that set
    SGD's parameters back: one, and one more for each time that the search began too high."""
    history = scheduler.history
    assert history["reason"][-1] in ("found", "no_edge")
    # on the way to where something is learned it may take twice as long again, and some steps are too small to be seen
    assert history["update"][-1] <= 3 * scheduler.warmup + 3
    assert 1e-2 < scheduler.peak_lr / history["lr"][-1] < 1e2  # the walk may draw it that far from where it ended
    assert scheduler.skipped == 0
    again = scheduler.reasons.get("restarted", 0)
    assert again <= 2
    assert scheduler.updates in (steps - again, steps - again - 1)
    assert all(p.isfinite().all() for p in parameters)
    assert all(math.isfinite(float(rate)) for rate in scheduler.get_last_lr())
