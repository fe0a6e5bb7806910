"""The lines of a store sorted: by task and optimizer, what the tuning found, and test losses on evaluation seeds.

A run that diverged or crashed counts as the model before training.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.recipe import RECIPE, ours
from benchmarks.harness.run import EVALUATION_SEEDS, Record, Run
from benchmarks.harness.store import Store
from benchmarks.harness.tuning import Peak, replay, tune
from benchmarks.studies import plan
from benchmarks.tasks.common.catalogue import tasks
from benchmarks.tasks.common.task import Task


@dataclass(frozen=True, eq=False)
class Pair:
    """A task with an optimizer: what was tuned, test losses by seed, and log10 of the peaks that glyder found."""

    task: Task
    optimizer: str
    peak: Peak
    tuned: np.ndarray
    glyder: np.ndarray
    found: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.task.name} {self.optimizer}"

    @property
    def ratio(self) -> float:
        return float(self.glyder.mean() / self.tuned.mean())

    @property
    def off(self) -> float:
        """Decades from the tuned peak to the mean of glyder's; NaN where a line has none."""
        return float(self.found.mean() - self.peak.decades)


class Results:
    """The lines of a store by what they are runs of; of glyder's those of one recipe: the tree's, or where there is no
    line of that, the last line's.

    ``peaks`` are of the tasks that are tuned, ``pairs`` of those that glyder was run on as well.
    """

    def __init__(self, store: Store, known: Mapping[str, Task] | None = None) -> None:
        self.store, self.known = store, tasks() if known is None else known
        of_glyder = [r["recipe"] for r in store.records.values() if ours(r["method"])]
        self.recipe = RECIPE if RECIPE in of_glyder or not of_glyder else of_glyder[-1]
        self.lines = [r for r in store.records.values() if not ours(r["method"]) or r["recipe"] == self.recipe]
        self.initial = {(r["cell"], r["seed"]): r["initial"] for r in self.lines if "initial" in r}
        self.defaults = {
            (r["cell"], r["optimizer"], r["seed"]): r
            for r in self.lines
            if r["method"] == "glyder" and not r["options"] and r["cell"] in self.known
        }
        self.peaks: dict[tuple[str, str], Peak] = {}
        self.pairs: list[Pair] = []
        for task, optimizer in plan.pairs_of(self.known.values()):
            self._add(task, optimizer)

    def _add(self, task: Task, optimizer: str) -> None:
        """Add a pair if its runs are there."""
        peak, missing = replay(tune(task, optimizer, self.store), self.store)
        if missing:
            return
        self.peaks[task.name, optimizer] = peak
        runs = [Run(task.name, optimizer, "tuned", seed, peak.options) for seed in EVALUATION_SEEDS]
        found = [self.defaults.get((task.name, optimizer, seed)) for seed in EVALUATION_SEEDS]
        records = [r for r in found if r is not None]
        if self.store.missing(runs) or len(records) < len(found):
            return
        decades = np.array([math.log10(r["peak"]) if r.get("peak") else math.nan for r in records])
        tuned, glyder = self.losses(self.store[run] for run in runs), self.losses(records)
        self.pairs.append(Pair(task, optimizer, peak, tuned, glyder, decades))

    def losses(self, records: Iterable[Record]) -> np.ndarray:
        """On the test part, or that of the model before training; a run that crashed has that of its seed."""
        found = []
        for r in records:
            value = math.inf if r["diverged"] else r["test"]["loss"]
            before = r.get("initial", self.initial.get((r["cell"], r["seed"]), math.nan))
            found.append(value if math.isfinite(value) else before)
        return np.array(found)

    def of(self, optimizer: str, *groups: str) -> list[Pair]:
        """The pairs of an optimizer in any of the groups of tasks."""
        return [p for p in self.pairs if p.optimizer == optimizer and p.task.group in groups]

    @functools.cached_property
    def fixed(self) -> dict[str, float]:
        """The one fixed peak of each optimizer."""
        return plan.fixed_peaks(self.store, self.known)

    def beside(self, name: str, pair: Pair) -> list[Record] | None:
        """Evaluation runs of a method beside the two; None where they are not all there, or its package is not."""
        if name == plan.BEST:
            rate = self.fixed.get(pair.optimizer)
            study = None if rate is None else plan.fixed(pair.task, pair.optimizer, rate)
        else:
            study = plan.beside(name, pair.task, self.store) if pair.optimizer == "AdamW" else None
        chosen, _ = (None, []) if study is None else replay(study, self.store)
        if chosen is None:
            return None
        records = [self.store[run] for run in chosen]
        return records if all(installed(r) for r in records) else None


def installed(record: Record) -> bool:
    """Whether a run was one of the method at all, its package being there."""
    return not record.get("crashed", "").startswith(("ImportError:", "ModuleNotFoundError:"))
