"""The same net fitted again and again: each fit has a new optimizer and a new GlyderLR, which know nothing of the last.

A net that was trained lies elsewhere than a fresh one, in longer weights and smaller gradients; a rate that is found
from these alone has to be as good there.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import torch

from benchmarks.league.methods import Glyder
from benchmarks.league.train import FRESH_SEEDS, Run, recorded, updates
from benchmarks.league.tuning import Study
from benchmarks.league.workload import Cell, cells

METHOD, OPTIMIZER = "refit", "AdamW"
FITS, STEPS = 5, 300
LAST = 50
"""Updates at the end of a fit whose mean training loss counts."""


def study(cell: Cell) -> Study:
    """Ask for the runs of a cell."""
    yield [Run(cell.name, OPTIMIZER, METHOD, seed) for seed in FRESH_SEEDS]


def execute(run: Run) -> dict[str, Any]:
    """As ``train.execute``, for :func:`fits`."""
    return recorded(run, fits)


def fits(run: Run, count: int = FITS, steps: int = STEPS) -> dict[str, Any]:
    """Training loss at the end of each fit; the batches go on from one to the next."""
    cell = dataclasses.replace(cells()[run.cell], steps=steps)
    task = cell.build(run.seed)
    torch.manual_seed(run.seed + 20_000)
    begun, losses = time.perf_counter(), []
    for _ in range(count):
        method = Glyder(task, cell, run.optimizer)
        losses.append(float(np.mean([float(loss) for loss in updates(task, cell, method)][-LAST:])))
    return {"losses": losses, "steps": count * steps, "seconds": round(time.perf_counter() - begun, 3)}
