"""What each suite runs, stage by stage: a stage may need what the ones before it found."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.league import ablations, cost, family, plan, rivals, train
from benchmarks.league.drive import Execute, drive
from benchmarks.league.store import Store
from benchmarks.league.tuning import Study
from benchmarks.league.workload import Cell

SHAPED = ("mnist-mlp", "shakespeare-t125", "mnist-conv")
"""Cells that other schedules are tried on; the first two for other optimizers than the main three as well."""
OTHERS = ("RMSprop", "Muon", "Lion", "AdaBelief", "Lookahead", "SWATS")
SIGMAS = (0.25, 0.5, 2.0, 4.0)
STARTS = (1e-9, 1e-6, 1e-3, 1.0, 10.0)
CONSTANT = (1e-9, 1e-6, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Rates that are held constant beside glyder from its starting rates, closer where plain optimizers train."""
STARTED = ("digits-mlp", "mnist-conv")
LONG = ("mnist-mlp-t4800", "shakespeare-t2000")
"""The longest runs: what of glyder's wall time is left when the window is a small part of them."""


@dataclass(frozen=True)
class Stage:
    """Studies that go on side by side; those that are timed go on alone."""

    name: str
    studies: Callable[[], list[Study]]
    store: Store
    execute: Execute = train.execute
    timed: bool = False


class Suite:
    """Stages of studies over some cells."""

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
    """Everything: the comparison, a fixed peak, other schedules, optimizers and rules, rivals, sigma, starts."""

    def __init__(self, cells: list[Cell], store: Store, only: Sequence[str]) -> None:
        super().__init__(cells, store, only)
        self.only = only

    def stages(self) -> list[Stage]:
        found = {
            "one fixed peak": self._fixed,
            "other optimizers": self._others,
            "followed to the end": self._followed,
            "other schedules": lambda: [plan.shapes(cell, o, self.store) for cell, o in self._among(SHAPED)],
            "linear decay": lambda: [plan.shapes(cell, o, self.store, ("linear",)) for cell, o in self._open()],
            "no horizon": lambda: self._variants("glyder", "horizon", [False], SHAPED),
            "sigma": lambda: self._variants("glyder", "scale", SIGMAS, SHAPED),
            "starting rate": lambda: self._variants("glyder", "start", STARTS, STARTED),
            "constant rate": lambda: self._variants("plain", "peak", CONSTANT, STARTED),
            "rivals": lambda: self._recipes(self._open(), rivals.CLASS, rivals.HORIZON),
            "family": lambda: self._recipes(self._among(SHAPED), family.CLASS, family.HORIZON),
        }
        stages = [*super().stages(), *(Stage(name, studies, self.store) for name, studies in found.items())]
        beside = Store(cost.path(self.store.path.parent))
        timed = [*self._plain(), *self._among(LONG)]
        return [*stages, Stage("cost", lambda: [cost.study(timed)], beside, cost.execute, timed=True)]

    def _among(self, names: Sequence[str]) -> list[tuple[Cell, str]]:
        return [(cell, o) for cell, o in self.pairs if cell.name in names]

    def _open(self) -> list[tuple[Cell, str]]:
        """Those of the cells that are not reserved."""
        return [(cell, o) for cell, o in self.pairs if not cell.reserved]

    def _plain(self) -> list[tuple[Cell, str]]:
        """Of the cells that are not reserved, those that stretch nothing."""
        return [(cell, o) for cell, o in self._open() if not cell.stretch]

    def _fixed(self) -> list[Study]:
        peaks = plan.fixed_peaks(self.store)
        if left := sorted({o for _, o in self.pairs} - peaks.keys()):
            print(f"one fixed peak: not for {', '.join(left)}, some cells are not tuned yet", file=sys.stderr)
        return [plan.fixed(cell, o, peaks[o]) for cell, o in self.pairs if o in peaks]

    def _others(self) -> list[Study]:
        chosen = [o for o in OTHERS if not self.only or o in self.only]
        return [plan.compare(c, o, self.store) for c in self.cells if c.name in SHAPED[:2] for o in chosen]

    def _followed(self) -> list[Study]:
        seeds = plan.RIVAL_SEEDS
        return [plan.best_of(cell, o, "followed", plan.FOLLOWED, self.store, seeds) for cell, o in self._plain()]

    def _variants(self, method: str, name: str, values: Sequence[float], names: Sequence[str]) -> list[Study]:
        return [plan.variants(cell, o, method, [{name: v} for v in values]) for cell, o in self._among(names)]

    def _recipes(
        self,
        pairs: list[tuple[Cell, str]],
        beside: Mapping[str, tuple[str, ...]],
        recipes: Mapping[str, Collection[str]],
    ) -> list[Study]:
        """The best recipe of each method, on the pairs whose optimizer it stands beside."""
        return [
            plan.best_of(cell, o, name, [{"recipe": r} for r in recipes[name]], self.store, plan.RIVAL_SEEDS)
            for cell, o in pairs
            for name, optimizers in beside.items()
            if o in optimizers
        ]


class Ablations(Suite):
    """What the estimator, the number of additional mini-batches, errors of L and the interval do."""

    def stages(self) -> list[Stage]:
        beside = Store(ablations.path(self.store.path.parent))
        return [
            Stage("whole runs", lambda: [ablations.study(cell, o) for cell, o in self.pairs], self.store),
            Stage("one-step gain", lambda: [ablations.gain_study()], beside, ablations.execute),
            Stage("cost", lambda: [ablations.cost_study(self.cells)], beside, ablations.execute, timed=True),
        ]


SUITES: dict[str, Callable[[list[Cell], Store, Sequence[str]], Suite]] = {
    "smoke": Suite,
    "quick": Suite,
    "full": Full,
    "ablations": Ablations,
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
