"""The lines of a store sorted: by cell and optimizer, what the tuning found, and the runs on seeds B.

A run that diverged or crashed counts as the model before training.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.league import optimizers, train
from benchmarks.league.family import FAMILY
from benchmarks.league.resample import DEPTH, noise, valley
from benchmarks.league.store import Store
from benchmarks.league.train import FRESH_SEEDS, TUNING_SEEDS
from benchmarks.league.tuning import SIDE, WARMUPS, Peak, middle, replay, run_at, tune
from benchmarks.league.workload import Cell, cells

Record = dict[str, Any]

FLOOR = 1e-3
"""The least height of a valley, relative to the tuned loss, that regret is measured by."""


@dataclass(frozen=True)
class Tuning:
    """What a tuning found and took: its valley, and the losses on the first grid relative to the tuned one's on the
    seeds that the grid was not run on."""

    peak: Peak
    valley: tuple[float, float]
    grid: list[float]
    runs: int
    steps: int


@dataclass(frozen=True)
class Pair:
    """A cell with an optimizer: its runs of ``"tuned"`` and ``"glyder"`` by seed, and their losses by part."""

    cell: Cell
    optimizer: str
    tuning: Tuning
    runs: dict[str, list[Record]]
    test: dict[str, np.ndarray]
    train: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        return f"{self.cell.name} {self.optimizer}"

    @property
    def ratio(self) -> float:
        return float(self.test["glyder"].mean() / self.test["tuned"].mean())

    @functools.cached_property
    def span(self) -> tuple[float, bool]:
        """Height of the valley, or of the noise if that is more, and whether it is."""
        low, off = self.tuning.valley
        least = max(FLOOR, noise(self.test["tuned"], self.test["glyder"]))
        return max(off - low, least), off - low < least

    @property
    def deep(self) -> bool:
        """Whether the bottom of the valley is the bound on it, the parabola's being deeper."""
        return self.tuning.valley[0] == DEPTH

    def regret(self, ratio: Any) -> Any:
        return (ratio - self.tuning.valley[0]) / self.span[0]


class League:
    """The lines of a store by what they are runs of; those of a scheduler of glyder with one recipe.

    By default the recipe is the tree's, or where the store has no line of that, the last line's. ``recipe`` is
    GlyderLR's.

    ``pairs`` are of the development cells, ``reserved`` of those that are looked at with ``--final`` alone; ``planned``
    are the development cells by all their optimizers, whether or not there are lines of them.
    """

    def __init__(self, store: Store, recipe: str | None = None, known: Mapping[str, Cell] | None = None) -> None:
        self.store, self.known = store, cells() if known is None else known
        lines = list(store.records.values())
        self.recipe = recipe or _recipe(lines, "glyder")
        there = FAMILY.keys() & {r["method"] for r in lines}
        wanted = {"glyder_lr": self.recipe} | {train.module(m): _recipe(lines, m) for m in there}
        self.lines = [r for r in lines if r.get("recipe") == wanted.get(train.module(r["method"]), r.get("recipe"))]
        self.runs: dict[tuple[str, str, str, str], dict[int, Record]] = {}
        self.initial: dict[tuple[str, int], float] = {}
        for r in self.lines:
            options = json.dumps(r["options"], sort_keys=True)
            self.runs.setdefault((r["cell"], r["optimizer"], r["method"], options), {})[r["seed"]] = r
            if "initial" in r:
                self.initial[r["cell"], r["seed"]] = r["initial"]
        self.tunings: dict[tuple[str, str], Tuning] = {}
        self.pairs: list[Pair] = []
        self.reserved: list[Pair] = []
        self.incomplete: list[dict[str, str]] = []
        order = {name: i for i, name in enumerate(self.known)}
        seen = {(r["cell"], r["optimizer"]) for r in self.lines if r["method"] in ("tuned", "glyder")}
        self.planned = {
            (c.name, optimizer) for c in self.known.values() if not c.reserved for optimizer in c.optimizers
        }
        for cell, optimizer in sorted(
            seen | self.planned, key=lambda p: (order.get(p[0], len(order)), p[0], _rank(p[1]))
        ):
            if (cell, optimizer) not in seen:
                why = "not run"
            else:
                why = self._compare(cell, optimizer) if cell in self.known else "no such cell"
            if why:
                self.incomplete.append({"cell": cell, "optimizer": optimizer, "why": why})

    def loss(self, record: Record, part: str) -> float:
        """Loss on a part, or that of the model before training."""
        value = math.inf if record["diverged"] else record[part]["loss"]
        return float(value) if math.isfinite(value) else self.before(record)

    def before(self, record: Record) -> float:
        """Loss of the model before training; a run that crashed has that of its seed."""
        return float(record.get("initial", self.initial.get((record["cell"], record["seed"]), math.nan)))

    def seeds(self, cell: str, optimizer: str, method: str, options: dict[str, Any]) -> dict[int, Record]:
        return self.runs.get((cell, optimizer, method, json.dumps(options, sort_keys=True)), {})

    def _compare(self, cell: str, optimizer: str) -> str:
        """Add a pair, or say what it lacks."""
        tuning = self._tuning(self.known[cell], optimizer)
        if isinstance(tuning, str):
            return tuning
        self.tunings[cell, optimizer] = tuning
        found = {
            "tuned": self.seeds(cell, optimizer, "tuned", tuning.peak.options),
            "glyder": self.seeds(cell, optimizer, "glyder", {}),
        }
        lacks = {method: [s for s in FRESH_SEEDS if s not in by_seed] for method, by_seed in found.items()}
        if any(lacks.values()):
            return "; ".join(f"{m} lacks seed {', '.join(map(str, s))}" for m, s in lacks.items() if s)
        runs = {method: [by_seed[s] for s in FRESH_SEEDS] for method, by_seed in found.items()}
        test, training = (
            {method: np.array([self.loss(r, part) for r in rs]) for method, rs in runs.items()}
            for part in ("test", "train")
        )
        group = self.reserved if self.known[cell].reserved else self.pairs
        group.append(Pair(self.known[cell], optimizer, tuning, runs, test, training))
        return ""

    def _tuning(self, cell: Cell, optimizer: str) -> Tuning | str:
        """The tuning over again, from the store alone."""
        again = replay(tune(cell, optimizer, self.store), self.store)
        if again.missing:
            return f"the tuning lacks {len(again.missing)} runs, or more"
        return self._measured(cell, optimizer, again.result, len(again.asked))

    def _measured(self, cell: Cell, optimizer: str, peak: Peak, runs: int) -> Tuning:
        def capped(half: int, warmup: str, seed: int) -> float:
            record = self.store[run_at(cell, optimizer, half, warmup, seed)]
            return min(self.loss(record, "validation"), self.before(record))

        def around(half: int) -> float:
            return sum(capped(half, peak.warmup, s) for s in TUNING_SEEDS) / len(TUNING_SEEDS)

        start, tuned = middle(cell, optimizer), around(peak.half)
        below, above = (around(k) if k in peak.losses else tuned for k in (peak.half - 1, peak.half + 1))
        others = [capped(peak.half, peak.warmup, s) for s in TUNING_SEEDS[1:]]  # the grid was run on the first
        alone = sum(others) / len(others)
        grid = [capped(start + k, WARMUPS[0], TUNING_SEEDS[0]) / alone for k in range(-SIDE, SIDE + 1)]
        return Tuning(peak, valley(below, tuned, above), grid, runs, runs * cell.steps)


def _recipe(lines: list[Record], method: str) -> str:
    """The tree's, or where none of the method's lines is of that, the last one's."""
    tree, there = train.recipe(train.module(method)), [r["recipe"] for r in lines if r["method"] == method]
    return there[-1] if there and tree not in there else tree


def _rank(optimizer: str) -> int:
    return list(optimizers.MAKERS).index(optimizer) if optimizer in optimizers.MAKERS else len(optimizers.MAKERS)
