"""The tuned schedule: a linear decay whose peak, and warm-up, are tuned for the task and the optimizer.

On the first tuning seed and the validation part: seven peaks half a decade apart, more while the best is at the edge;
the best and its neighbours again with each other warm-up; the best three of the best warm-up on every tuning seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.run import TUNING_SEEDS, Record, Run
from benchmarks.harness.store import Store
from benchmarks.tasks.common.task import Task

WARMUPS = ("5%", "none", "glyder")
SIDE = 3
"""Half-decades on each side of the centre of the first grid."""
FURTHEST = 16
"""Half-decades from the centre at which the search gives up."""

Study = Generator[list[Run], None, Any]
"""Asks for runs, and is resumed when they are all in the store; what it returns is its result."""


def replay(study: Study, store: Store) -> tuple[Any, list[Run]]:
    """A study taken from the store alone, as far as that goes: its result, or the runs that it lacks."""
    while True:
        try:
            missing = store.missing(next(study))
        except StopIteration as end:
            return end.value, []
        if missing:
            return None, missing


@dataclass(frozen=True)
class Peak:
    """A tuned schedule: its peak in half-decades (10^(k/2)), its warm-up, and losses by half-decade."""

    half: int
    warmup: str
    losses: dict[int, float]

    @property
    def rate(self) -> float:
        return peak(self.half)

    @property
    def decades(self) -> float:
        """log10 of the peak of least loss: the vertex of the parabola through the best half-decade and its neighbours,
        at most a quarter of a decade from it; the half-decade itself where a neighbour diverged."""
        low, mid, high = (self.losses.get(self.half + k, math.inf) for k in (-1, 0, 1))
        bend = low + high - 2 * mid
        if not (math.isfinite(bend) and bend > 0):
            return self.half / 2
        return self.half / 2 + 0.5 * max(-0.5, min(0.5, (low - high) / (2 * bend)))

    @property
    def options(self) -> dict[str, Any]:
        return {"peak": self.rate, "warmup": self.warmup, "anneal": "linear"}


def peak(half: int) -> float:
    """10^(k/2), to six digits: one number, one key."""
    return float(f"{10 ** (half / 2):.6g}")


def middle(task: Task, optimizer: str) -> int:
    """The half-decade in the middle of the first grid."""
    return round(2 * task.centre[optimizer])


def around(half: int) -> range:
    """It and its neighbours."""
    return range(half - 1, half + 2)


def run_at(task: Task, optimizer: str, half: int, warmup: str, seed: int) -> Run:
    return Run(task.name, optimizer, "tuned", seed, {"peak": peak(half), "warmup": warmup, "anneal": "linear"})


def loss_of(record: Record) -> float:
    """Validation loss, infinite if the run diverged."""
    return math.inf if record["diverged"] else record["validation"]["loss"]


def search(halves: Iterable[int], start: int, runs: Callable[[int], list[Run]], store: Store) -> Study:
    """Mean validation loss by half-decade over the runs of each, and the best: the range is extended until that is
    inside, or FURTHEST from ``start``."""
    low, high = min(halves), max(halves)
    while True:
        asked = {k: runs(k) for k in range(low, high + 1)}
        yield [run for of_peak in asked.values() for run in of_peak]
        found = {k: sum(loss_of(store[run]) for run in of_peak) / len(of_peak) for k, of_peak in asked.items()}
        best = min(found, key=found.__getitem__)
        if best == low and best > start - FURTHEST:
            low -= 1
        elif best == high and best < start + FURTHEST:
            high += 1
        else:
            return found, best


def tune(task: Task, optimizer: str, store: Store) -> Study:
    """Ask for the runs of the tuning, one stage after the other; returns a :class:`Peak`."""
    start = middle(task, optimizer)

    def losses(halves: Iterable[int], warmup: str, seeds: tuple[int, ...]) -> Study:
        def runs(k: int) -> list[Run]:
            return [run_at(task, optimizer, k, warmup, seed) for seed in seeds]

        return search(halves, start, runs, store)

    found, best = yield from losses(range(start - SIDE, start + SIDE + 1), WARMUPS[0], TUNING_SEEDS[:1])
    chosen, least = WARMUPS[0], found[best]
    for warmup in WARMUPS[1:]:
        others, other = yield from losses(around(best), warmup, TUNING_SEEDS[:1])
        if others[other] < least:
            chosen, least, centre = warmup, others[other], other
    centre = best if chosen == WARMUPS[0] else centre
    final, half = yield from losses(around(centre), chosen, TUNING_SEEDS)
    return Peak(half, chosen, final)
