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

import torch
from torch import nn

import glyder
from benchmarks.harness.run import TUNING_SEEDS, Record, Run
from benchmarks.harness.store import Store
from benchmarks.harness.train import under
from benchmarks.harness.tuning import Study
from benchmarks.methods import optimizers
from benchmarks.methods.glyder import Glyder
from benchmarks.methods.schedules import Method
from benchmarks.tasks.common.catalogue import tasks
from benchmarks.tasks.common.task import Problem, Task

TIME, MEMORY = "glyder-time", "glyder-memory"
SEED = TUNING_SEEDS[0]
BLOCK = 20
"""Updates of a run before the other goes on."""
PLAIN_RATE = 1e-4
"""Low enough that the plain run stays where numbers are ordinary."""

WIDE_TASK, WIDTH = "digits-mlp", 8192
"""The net of that task, this wide: 270 MB of parameters, next to which data, activations and code are little."""
WIDE_STEPS = 24
"""The peak is searched in the first of them."""


def path(folder: Path) -> Path:
    """Where the lines lie, beside those of the runs."""
    return folder / "cost.jsonl"


def study(pairs: Sequence[tuple[Task, str]]) -> Study:
    """Ask for the time of ``pairs`` and the memory of their optimizers."""
    times = [Run(task.name, optimizer, TIME, SEED) for task, optimizer in pairs]
    yield times + [Run(WIDE_TASK, optimizer, MEMORY, SEED) for optimizer in dict.fromkeys(o for _, o in pairs)]


def measured(run: Run) -> Record:
    return seconds(run) if run.method == TIME else memory(run)


def found(store: Store, recipe: int | str, method: str) -> list[Record]:
    """The lines of one recipe."""
    return [r for r in store.records.values() if r["method"] == method and r["recipe"] == recipe]


# ---- time


def seconds(run: Run) -> Record:
    """Wall time of all updates, with glyder and without anything that sets the rate; a block of others goes before."""
    task = tasks()[run.task]
    for count in (BLOCK, task.steps):
        problems = [task.build(run.seed) for _ in range(2)]
        plain = optimizers.make(run.optimizer, problems[0], PLAIN_RATE, task.decay)
        methods = [Method(problems[0].model, plain), Glyder(problems[1], task, run.optimizer)]
        took = in_turn(task, problems, methods, count, BLOCK)
    return {"plain": sum(took[0]), "glyder": sum(took[1])}


def in_turn(
    task: Task, problems: Sequence[Problem], methods: Sequence[Method], count: int, block: int
) -> list[list[float]]:
    """Seconds of each block of the first ``count`` updates of every method, made in turn."""
    trained = [under(method, problem, task) for problem, method in zip(problems, methods, strict=True)]
    took: list[list[float]] = [[] for _ in trained]
    for first in range(0, count, block):
        for each, times in zip(trained, took, strict=True):
            start = time.perf_counter()
            for _ in range(min(block, count - first)):
                next(each)
            times.append(time.perf_counter() - start)
    return took


# ---- memory


def memory(run: Run) -> Record:
    """Peak memory of a process that trains the wide net, with glyder and without, and bytes of a copy of it."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}  # what is freed goes back at once
    peaks = []
    for name in ("plain", "glyder"):
        command = [sys.executable, "-m", "benchmarks.studies.cost", run.optimizer, name]
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
    made = optimizers.OPTIMIZERS[optimizer](model.parameters(), lr=PLAIN_RATE)
    if with_glyder:
        glyder.GlyderLR(made, total_steps=WIDE_STEPS)
    for _ in range(WIDE_STEPS):
        nn.functional.cross_entropy(model(x), y).backward()
        made.step()
        made.zero_grad()
    # not getrusage, whose peak is that of the process that started this one where it was larger
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])


if __name__ == "__main__":
    print(train_wide(sys.argv[1], sys.argv[2] == "glyder"))
