"""The training loop, and what comes of a run of it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from benchmarks.harness.run import EVALUATION_SEEDS, Record, Run
from benchmarks.methods.catalogue import METHODS
from benchmarks.methods.schedules import Method
from benchmarks.tasks.common.catalogue import tasks
from benchmarks.tasks.common.task import Problem, Task

POINTS = 50
"""Points of the curves of loss and rate that are kept of a run."""

GONE = 1.5
"""A run has diverged if its loss is not finite, or this many times that of the model before training."""


def updates(
    problem: Problem,
    optimizer: Optimizer,
    scheduler: Any,
    steps: int,
    *,
    by_closure: bool = False,
    clip: float | None = None,
) -> Iterator[float]:
    """Train for ``steps`` updates; gives the loss before each, and ends after the first that is not finite.

    Args:
        scheduler: None for a rate that stays. One that has ``observe`` is shown the loss before the update.
        by_closure: call ``optimizer.step(closure)``, for rules that evaluate the loss again; the closure takes
            ``backward=False``.
        clip: the largest norm of the gradient.
    """
    for _ in range(steps):
        batch = next(problem.batches)

        def closure(backward: bool = True, batch: Any = batch) -> Tensor:
            loss = problem.loss(problem.model, batch)
            if backward:
                optimizer.zero_grad()
                loss.backward()
                if clip is not None:
                    torch.nn.utils.clip_grad_norm_(problem.trained, clip)
            return loss

        if by_closure:
            loss: Any = optimizer.step(closure)
        else:
            loss = closure()
            if hasattr(scheduler, "observe"):
                scheduler.observe(loss)
            optimizer.step()
        if scheduler is not None:
            scheduler.step()
        value = float(loss.detach())
        yield value
        if not math.isfinite(value):
            return


def under(method: Method, problem: Problem, task: Task, steps: int | None = None) -> Iterator[float]:
    """Train a problem of a task by a method."""
    return updates(problem, method.optimizer, method.scheduler, task.steps if steps is None else steps, clip=task.clip)


def begun(run: Run) -> tuple[Task, Problem]:
    """The task of a run and its problem, and what is random in training is from the run's seed on."""
    task = tasks()[run.task]
    problem = task.build(run.seed)
    torch.manual_seed(run.seed + 20_000)
    return task, problem


def scored(run: Run) -> Record:
    """Train and score. A run that diverges stops there, and says so; so does one whose method raises."""
    try:
        return _scored(run)
    except Exception as error:  # a baseline's crash is a result
        return {"crashed": f"{type(error).__name__}: {error}"[:500], "diverged": True}


def _scored(run: Run) -> Record:
    task = tasks()[run.task]
    problem = task.build(run.seed)
    initial = problem.evaluate(problem.model, "validation")["loss"]
    torch.manual_seed(run.seed + 20_000)
    method = METHODS[run.method](problem, task, run.optimizer, **run.options)
    every = max(1, task.steps // POINTS)
    losses, rates = [], []
    start = time.perf_counter()
    for loss in under(method, problem, task):
        losses.append(loss)
        rates.append(method.rate())
    seconds = time.perf_counter() - start
    finite = math.isfinite(losses[-1])
    model = method.finish()
    parts = ("train", "validation", "test") if run.seed in EVALUATION_SEEDS else ("train", "validation")
    scores = {part: problem.evaluate(model, part) for part in parts} if finite else {}
    final = scores["validation"]["loss"] if scores else math.inf
    curves = {"losses": [round(v, 5) for v in losses[::every]], "rates": [float(f"{v:.4g}") for v in rates[::every]]}
    return scores | {
        "diverged": not (final <= GONE * initial), "initial": initial, "worst": max(losses) if finite else None,
        "seconds": round(seconds, 3), **method.told(), **(curves if run.seed == EVALUATION_SEEDS[0] else {}),
    }  # fmt: skip
