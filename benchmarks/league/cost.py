"""What glyder's defaults cost: the wall time of a run's updates next to a plain one's, and the memory a wide net takes.

Both are measured on their own, one process at a time. The two runs take turns, a block of updates each: whatever else
the machine does meets both alike, and within a block the caches are a run's own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import glyder
from benchmarks.league import optimizers
from benchmarks.league.methods import Glyder, Method, Scheduled
from benchmarks.league.store import Store
from benchmarks.league.train import TUNING_SEEDS, Run, recorded, updates
from benchmarks.league.tuning import Study
from benchmarks.league.workload import Cell, Task, cells

TIME, MEMORY = "glyder-time", "glyder-memory"
SEED = TUNING_SEEDS[0]
BLOCK = 20
"""Updates of a run before the other goes on."""
PLAIN_RATE = 1e-4
"""Low enough that the plain run stays where numbers are ordinary."""

WIDE_CELL, WIDTH = "digits-mlp", 8192
"""The net of that cell, this wide: 270 MB of parameters, next to which data, activations and code are little."""
WIDE_STEPS = 24
"""The peak is searched in the first of them."""


def path(folder: Path) -> Path:
    """Where the lines lie, beside those of the runs."""
    return folder / "cost.jsonl"


def study(pairs: Sequence[tuple[Cell, str]]) -> Study:
    """Ask for the time of ``pairs`` and the memory of their optimizers."""
    yield [Run(cell.name, optimizer, TIME, SEED) for cell, optimizer in pairs]
    yield [Run(WIDE_CELL, optimizer, MEMORY, SEED) for optimizer in dict.fromkeys(o for _, o in pairs)]


def execute(run: Run) -> dict[str, Any]:
    """As ``train.execute``, for both."""
    return recorded(run, {TIME: seconds, MEMORY: memory}[run.method])


def found(store: Store, recipe: str, method: str) -> list[dict[str, Any]]:
    """The lines of one recipe."""
    return [r for r in store.records.values() if r["method"] == method and r["recipe"] == recipe]


# ---- time


def seconds(run: Run) -> dict[str, Any]:
    """Wall time of all updates, with glyder and without anything that sets the rate; a block of others goes before."""
    cell = cells()[run.cell]
    for count in (BLOCK, cell.steps):
        tasks = [cell.build(run.seed) for _ in range(2)]
        methods = [Scheduled(tasks[0], cell, run.optimizer, PLAIN_RATE), Glyder(tasks[1], cell, run.optimizer)]
        plain, ours = in_turn(cell, tasks, methods, count, BLOCK)
    return {"plain": sum(plain), "glyder": sum(ours)}


def in_turn(cell: Cell, tasks: Sequence[Task], methods: Sequence[Method], count: int, block: int) -> list[list[float]]:
    """Seconds of each block of the first ``count`` updates of every method, made in turn."""
    trained = [updates(task, cell, method) for task, method in zip(tasks, methods, strict=True)]
    took: list[list[float]] = [[] for _ in trained]
    for first in range(0, count, block):
        for each, times in zip(trained, took, strict=True):
            start = time.perf_counter()
            for _ in range(min(block, count - first)):
                next(each)
            times.append(time.perf_counter() - start)
    return took


# ---- memory


def memory(run: Run) -> dict[str, Any]:
    """Peak memory of a process that trains the wide net, with glyder and without, and bytes of a copy of it."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}  # what is freed goes back at once
    peaks = []
    for name in ("plain", "glyder"):
        command = [sys.executable, "-m", "benchmarks.league.cost", run.optimizer, name]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        peaks.append(1024 * int(done.stdout))
    return {"plain": peaks[0], "glyder": peaks[1], "parameters": sum(4 * p.numel() for p in wide().parameters())}


def wide() -> nn.Module:
    layers = nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10)
    return nn.Sequential(*layers)


def train_wide(optimizer: str, with_glyder: bool) -> int:
    """Peak resident memory of this process in KiB, after a few updates. Of Linux."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model, x, y = wide(), torch.randn(32, 64), torch.randint(10, (32,))
    made = optimizers.make(optimizer, model, PLAIN_RATE)
    if with_glyder:
        glyder.GlyderLR(made, total_steps=WIDE_STEPS)
    for _ in range(WIDE_STEPS):
        nn.functional.cross_entropy(model(x), y).backward()
        for each in made:
            each.step()
            each.zero_grad()
    # not getrusage, whose peak is that of the process that started this one where it was larger
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])


if __name__ == "__main__":
    print(train_wide(sys.argv[1], sys.argv[2] == "glyder"))
