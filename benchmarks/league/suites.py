"""What each suite runs, stage by stage: a stage may need what the ones before it found."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.league import cost, plan, refit, train
from benchmarks.league.drive import Execute, drive
from benchmarks.league.store import Store
from benchmarks.league.tuning import Study
from benchmarks.league.workload import Cell

SMALL = ("digits-mlp", "mnist-conv")
"""Cells that other starting rates are tried on, and whose nets are fitted again and again."""
TIMED = ("SGD", "AdamW")


@dataclass(frozen=True)
class Stage:
    """Studies that go on side by side; those that are timed go on alone."""

    name: str
    studies: Callable[[], list[Study]]
    store: Store
    execute: Execute = train.execute
    timed: bool = False


class Suite:
    """Stages of studies over some cells: the comparison of the tuned schedule and glyder."""

    def __init__(self, cells: list[Cell], store: Store, only: Sequence[str]) -> None:
        self.cells, self.store = cells, store
        self.pairs = [(c, o) for c, o in plan.pairs_of(cells) if not only or o in only]

    def stages(self) -> list[Stage]:
        return [Stage("tuned and glyder", self._compared, self.store)]

    def run(self, jobs: int) -> None:
        for stage in self.stages():
            drive(stage.studies(), stage.store, 1 if stage.timed else jobs, stage.execute)

    def _compared(self) -> list[Study]:
        return [plan.compare(cell, o, self.store) for cell, o in self.pairs]


class Full(Suite):
    """Everything: the comparison, what stands beside it, starting rates, refits, cost."""

    def stages(self) -> list[Stage]:
        beside = {name: functools.partial(self._beside, name) for name in plan.BESIDE}
        found = {plan.BEST: self._fixed, **beside, "starting rate": self._started}
        return [
            *super().stages(),
            *(Stage(name, studies, self.store) for name, studies in found.items()),
            Stage("refits", self._refitted, self.store, refit.execute),
            Stage("cost", self._timed, Store(cost.path(self.store.path.parent)), cost.execute, timed=True),
        ]

    def _counted(self) -> list[tuple[Cell, str]]:
        """The pairs that enter overall figures."""
        return [(cell, o) for cell, o in self.pairs if cell.group != "apart"]

    def _fixed(self) -> list[Study]:
        peaks = plan.fixed_peaks(self.store)
        if left := sorted({o for _, o in self.pairs} - peaks.keys()):
            print(f"{plan.BEST}: not for {', '.join(left)}, some cells are not tuned yet", file=sys.stderr)
        return [plan.fixed(cell, o, peaks[o]) for cell, o in self._counted() if o in peaks]

    def _beside(self, name: str) -> list[Study]:
        return [plan.beside(name, cell, self.store) for cell, o in self._counted() if o == "AdamW"]

    def _started(self) -> list[Study]:
        return [plan.starts(cell, o) for cell, o in self.pairs if cell.name in SMALL]

    def _refitted(self) -> list[Study]:
        return [refit.study(cell) for cell, o in self.pairs if cell.name in SMALL and o == refit.OPTIMIZER]

    def _timed(self) -> list[Study]:
        plain = [(c, o) for c, o in self._counted() if not (c.reserved or c.stretch) and o in TIMED]
        return [cost.study(plain)]


SUITES: dict[str, Callable[[list[Cell], Store, Sequence[str]], Suite]] = {
    "smoke": Suite,
    "quick": Suite,
    "full": Full,
}


def log_final(folder: Path, reserved: list[Cell], environment: dict[str, Any]) -> None:
    """Every look at the reserved workloads is on record: commit and count."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "final.jsonl"
    count = len(path.read_text().splitlines()) if path.exists() else 0
    line = {"count": count + 1, "date": str(date.today()), "cells": [c.name for c in reserved], **environment}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"the reserved workloads are run for the {count + 1}. time", file=sys.stderr)
