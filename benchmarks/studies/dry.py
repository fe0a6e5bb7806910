"""What a suite has yet to run, counted without running it.

Its studies are played through to the end: where a result is missing, all that were asked for together are imagined, the
best in their middle. A grid whose best is at its edge will ask for more than is counted here. Of one that is cut off
in its middle, two studies that share it may take different peaks for its best, and less will be asked for.
"""

from __future__ import annotations

import math

from benchmarks.harness.run import Record, Run
from benchmarks.harness.store import RESULTS, RUNS, Store
from benchmarks.studies.suites import Stage, Suite
from benchmarks.tasks.common.catalogue import tasks

WORST = 1e9
"""Imagined losses lie above: they never beat what was really run."""


def imagined(wanted: list[Run]) -> list[Record]:
    middle = (len(wanted) - 1) / 2
    rest = {"imagined": True, "diverged": False, "initial": math.inf}
    return [{"key": r.key, "validation": {"loss": WORST + abs(i - middle)}} | rest for i, r in enumerate(wanted)]


def missing(stage: Stage) -> list[Run]:
    """Its runs that are not in the store, which afterwards holds imagined ones for them, in memory."""
    found, records = [], stage.store.records
    for study in stage.studies():
        there = dict(records)
        for wanted in study:
            if new := stage.store.missing(wanted):
                records.update((r["key"], r) for r in imagined(wanted) if "imagined" not in records.get(r["key"], ()))
                found += new
        records.update(there)  # the next study that asks for the same finds the same
    return found


def pace(suite: Suite) -> dict[str, float]:
    """Least seconds an update by task, of runs that went to their end, from the committed lines and what was run here;
    the mean over tasks as ``""``."""
    took: dict[str, float] = {}
    for r in (Store(RESULTS / RUNS).records | suite.store.records).values():
        if r.get("seconds") and r.get("worst") is not None:
            took[r["cell"]] = min(took.get(r["cell"], math.inf), r["seconds"] / r["steps"])
    return {**took, "": sum(took.values()) / len(took)} if took else {}


def dry_run(suite: Suite) -> str:
    """A line a stage, and the total."""
    each, known = pace(suite), tasks()
    lines, total = [], [0, 0, 0.0]
    for stage in suite.stages():
        runs = missing(stage)
        updates = sum(known[r.task].steps for r in runs)
        seconds = sum(known[r.task].steps * each.get(r.task, each.get("", 0.01)) for r in runs)
        total = [total[0] + len(runs), total[1] + updates, total[2] + seconds]
        lines.append(_line(stage.name, len(runs), updates, seconds))
    guess = "" if each else " (at 10 ms an update: nothing was timed yet)"
    left_out = "not counted: more peaks where the best is at the edge of a grid; what a method adds to an update"
    return "\n".join([*lines, _line("to run in all", *total) + guess, left_out])


def _line(name: str, runs: int, updates: int, seconds: float) -> str:
    return f"{name:20s} {runs:6d} runs {updates:9d} updates, about {seconds / 60:5.0f} minutes on one core"
