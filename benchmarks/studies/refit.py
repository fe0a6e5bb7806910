"""The same net fitted again and again: each fit has a new optimizer and a new GlyderLR, which know nothing of the last.

A net that was trained lies elsewhere than a fresh one, in longer weights and smaller gradients; a rate that is found
from these alone has to be as good there.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from benchmarks.harness.run import EVALUATION_SEEDS, Record, Run
from benchmarks.harness.train import begun, under
from benchmarks.harness.tuning import Study
from benchmarks.methods.glyder import Glyder
from benchmarks.tasks.common.task import Task

METHOD, OPTIMIZER = "refit", "AdamW"
FITS, STEPS = 5, 300
LAST = 50
"""Updates at the end of a fit whose mean training loss counts."""


def study(task: Task) -> Study:
    """Ask for the runs of a task."""
    yield [Run(task.name, OPTIMIZER, METHOD, seed) for seed in EVALUATION_SEEDS]


def fits(run: Run, count: int = FITS, steps: int = STEPS) -> Record:
    """Training loss at the end of each fit; the batches go on from one to the next."""
    task, problem = begun(run)
    task = dataclasses.replace(task, steps=steps)
    start, losses = time.perf_counter(), []
    for _ in range(count):
        method = Glyder(problem, task, run.optimizer)
        losses.append(float(np.mean([*under(method, problem, task)][-LAST:])))
    return {"losses": losses, "steps": count * steps, "seconds": round(time.perf_counter() - start, 3)}
