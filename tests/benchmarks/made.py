"""Results whose answer is known: tasks that are never built, and the lines that their runs would have left."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.recipe import RECIPE
from benchmarks.harness.run import EVALUATION_SEEDS, TUNING_SEEDS, Run
from benchmarks.harness.store import Store
from benchmarks.harness.tuning import Study, peak
from benchmarks.studies.plan import compare
from benchmarks.tasks.common.task import Task

INITIAL = 2.3
Model = Callable[[Run], float]
"""The loss that a run ends at; infinite if it diverges."""


def task(name: str, family: str = "", steps: int = 100, **more: Any) -> Task:
    centre = {"SGD": 0.0, "momentum": 0.0, "AdamW": -2.0}
    options = {"optimizers": ("SGD",)} | more
    return Task(name, family or name, lambda seed: pytest.fail("a task was built"), steps, centre, **options)


def score(loss: float, part: str) -> dict[str, float]:
    return {"loss": 0.9 * loss if part == "train" else loss, "error": loss / 10}


def line(run: Run, loss: float, steps: int = 100, **more: Any) -> dict[str, Any]:
    parts = ("train", "validation", "test") if run.seed in EVALUATION_SEEDS else ("train", "validation")
    return {
        "key": run.key, "cell": run.task, "optimizer": run.optimizer, "method": run.method, "seed": run.seed,
        "options": run.options, "steps": steps, "recipe": RECIPE, "environment": {"commit": "abc", "machine": "m"},
        **({p: score(loss, p) for p in parts} if math.isfinite(loss) else {}),
        "diverged": not math.isfinite(loss), "initial": INITIAL, "worst": INITIAL, "seconds": 1.0,
        **({"peak": 1.0} if run.method == "glyder" else {}), **more,
    }  # fmt: skip


def half(run: Run) -> int:
    return round(2 * math.log10(run.options["peak"]))


def valley(run: Run, bottom: int = 0) -> float:
    """A parabola around 10^(bottom/2); warm-up changes nothing; seeds differ, the first tuning seed is their mean."""
    effect = {**{s: s for s in EVALUATION_SEEDS}, **dict(zip(TUNING_SEEDS, (2, 3, 1), strict=True))}[run.seed]
    return 0.5 + 0.05 * (half(run) - bottom) ** 2 + 0.01 * effect


def play(study: Study, store: Store, model: Model, steps: int = 100) -> Any:
    """Give a study the lines that it asks for; returns its result."""
    while True:
        try:
            for run in store.missing(next(study)):
                store.add(line(run, model(run), steps))
        except StopIteration as end:
            return end.value


def played(path: Path, tasks: list[Task], model: Model, optimizers: tuple[str, ...] = ("SGD",)) -> Store:
    """A store with all the lines that the comparison would have run."""
    store = Store(path)
    for c, optimizer in itertools.product(tasks, optimizers):
        play(compare(c, optimizer, store), store, model, c.steps)
    return store


def times(factor: float, bottom: int = 0) -> Model:
    """What is not tuned ends at ``factor`` times the loss of the best peak."""

    def model(run: Run) -> float:
        best = Run(run.task, run.optimizer, "tuned", run.seed, {"peak": peak(bottom)})
        return valley(run, bottom) if run.method == "tuned" else factor * valley(best, bottom)

    return model
