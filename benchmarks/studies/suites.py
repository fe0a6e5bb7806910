"""What each suite runs, stage by stage: a stage may need what the ones before it found."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from benchmarks.harness.drive import Does, drive
from benchmarks.harness.run import Run, environment
from benchmarks.harness.store import Store
from benchmarks.harness.train import scored
from benchmarks.harness.tuning import Study, replay
from benchmarks.studies import cost, plan, refit
from benchmarks.tasks.common.task import Task

SMALL = ("digits-mlp", "mnist-conv")
"""Tasks that other starting rates are tried on, and whose nets are fitted again and again."""
TIMED = ("SGD", "AdamW")


@dataclass(frozen=True)
class Stage:
    """Studies that go on side by side; those that are timed go on alone."""

    name: str
    studies: Callable[[], list[Study]]
    store: Store
    does: Does = scored
    timed: bool = False


class Suite:
    """Stages of studies over some tasks: the comparison of the tuned schedule and glyder."""

    def __init__(self, tasks: list[Task], store: Store, only: Sequence[str]) -> None:
        self.tasks, self.store = tasks, store
        self.pairs = [(c, o) for c, o in plan.pairs_of(tasks) if not only or o in only]

    def stages(self) -> list[Stage]:
        return [Stage("tuned and glyder", self._compared, self.store)]

    def run(self, jobs: int) -> None:
        for stage in self.stages():
            drive(stage.studies(), stage.store, 1 if stage.timed else jobs, stage.does)

    def left(self) -> dict[str, list[Run]]:
        """By stage the runs that are lacking, as far as that is known: what their results decide is not among them."""
        found: dict[str, list[Run]] = {}
        seen: set[str] = set()
        for stage in self.stages():
            asked = [run for study in stage.studies() for run in replay(study, stage.store)[1]]
            new = {run.key: run for run in asked if run.key not in seen}
            seen |= new.keys()
            found[stage.name] = list(new.values())
        return found

    def _compared(self) -> list[Study]:
        return [plan.compare(task, o, self.store) for task, o in self.pairs]


class Full(Suite):
    """Everything: the comparison, what stands beside it, starting rates, refits, cost."""

    def stages(self) -> list[Stage]:
        beside = {name: functools.partial(self._beside, name) for name in plan.BESIDE}
        found = {plan.BEST: self._fixed, **beside, "starting rate": self._started}
        return [
            *super().stages(),
            *(Stage(name, studies, self.store) for name, studies in found.items()),
            Stage("refits", self._refitted, self.store, refit.fits),
            Stage("cost", self._timed, Store(cost.path(self.store.path.parent)), cost.measured, timed=True),
        ]

    def _counted(self) -> list[tuple[Task, str]]:
        """The pairs that enter overall figures."""
        return [(task, o) for task, o in self.pairs if task.group != "apart"]

    def _fixed(self) -> list[Study]:
        peaks = plan.fixed_peaks(self.store)
        if left := sorted({o for _, o in self.pairs} - peaks.keys()):
            print(f"{plan.BEST}: not for {', '.join(left)}, some tasks are not tuned yet", file=sys.stderr)
        return [plan.fixed(task, o, peaks[o]) for task, o in self._counted() if o in peaks]

    def _beside(self, name: str) -> list[Study]:
        return [plan.beside(name, task, self.store) for task, o in self._counted() if o == "AdamW"]

    def _started(self) -> list[Study]:
        return [plan.starts(task, o) for task, o in self.pairs if task.name in SMALL]

    def _refitted(self) -> list[Study]:
        return [refit.study(task) for task, o in self.pairs if task.name in SMALL and o == refit.OPTIMIZER]

    def _timed(self) -> list[Study]:
        plain = [(c, o) for c, o in self._counted() if not (c.held_out or c.stretch) and o in TIMED]
        return [cost.study(plain)]


SUITES: dict[str, Callable[[list[Task], Store, Sequence[str]], Suite]] = {"smoke": Suite, "quick": Suite, "full": Full}


def log_final(folder: Path, held_out: list[Task]) -> None:
    """Every look at the held-out tasks is on record: commit and count."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "final.jsonl"
    count = 1 + (len(path.read_text().splitlines()) if path.exists() else 0)
    line = {"count": count, "date": str(date.today()), "cells": [task.name for task in held_out], **environment()}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"the held-out tasks are run for the {count}. time", file=sys.stderr)
