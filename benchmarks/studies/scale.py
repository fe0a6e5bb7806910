"""How far from the tuned peak glyder settles, in decades, and what else tells of that peak before a run is trained.

It takes a search and four ramps a task and seed, so it is the tool to develop a search with; whole runs confirm.
Constants are fitted for each optimizer, with the family of the task left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.harness.run import TUNING_SEEDS, Record, Run
from benchmarks.harness.store import Store
from benchmarks.harness.train import begun, under
from benchmarks.harness.tuning import Peak, Study
from benchmarks.methods.glyder import Glyder
from benchmarks.studies.ramp import climb, witnesses
from benchmarks.tasks.common.catalogue import tasks
from benchmarks.tasks.common.task import Task

SEARCH, RAMP = "glyder-search", "ramp"
SEEDS = TUNING_SEEDS[:2]
PACES = (1.07, 1.2)
OURS = "glyder's peak"
BEST = 3
"""Lines of two and of three witnesses that are told, of all that there are."""
Name = tuple[str, str]
"""A task and an optimizer."""


def path(folder: Path) -> Path:
    return folder / "scale.jsonl"


def study(task: Task, optimizer: str) -> Study:
    """Ask for the runs of a task."""
    searches = [Run(task.name, optimizer, SEARCH, seed) for seed in SEEDS]
    yield searches + [Run(task.name, optimizer, RAMP, seed, {"pace": pace}) for pace in PACES for seed in SEEDS]


def measured(run: Run) -> Record:
    """log10 of the peak that glyder settles on, none if it finds none; or the witnesses of a ramp."""
    if run.method == RAMP:
        task, pace = tasks()[run.task], run.options["pace"]
        told = witnesses(climb(task, run.optimizer, run.seed, pace), task.steps)
        return {"found": {name: round(float(value), 4) for name, value in told.items() if math.isfinite(value)}}
    task, problem = begun(run)
    method = Glyder(problem, task, run.optimizer)
    for _ in under(method, problem, task):
        if (peak := method.told()["peak"]) is not None:
            return {"found": {OURS: math.log10(peak)}}
    return {"found": {}}


def found(store: Store, recipe: int | str) -> dict[str, dict[Name, float]]:
    """By predictor and pair log10 of the rate, means over seeds; of searches those of one recipe."""
    values: dict[str, dict[Name, list[float]]] = {}
    for r in store.records.values():
        if r["method"] == RAMP or r["recipe"] == recipe:
            pace = f", {r['options']['pace']:g}" if r["method"] == RAMP else ""
            for name, value in r["found"].items():
                values.setdefault(name + pace, {}).setdefault((r["cell"], r["optimizer"]), []).append(value)
    return {name: {key: float(np.mean(v)) for key, v in by_pair.items()} for name, by_pair in values.items()}


def left_out(x: np.ndarray, y: np.ndarray, families: Sequence[str]) -> np.ndarray:
    """Errors of least squares of y [n] on a constant and x [n, k], each family predicted from the others."""
    design, errors = np.column_stack((np.ones(len(y)), x)), np.full(len(y), math.nan)
    for family in dict.fromkeys(families):
        inside = np.array([f == family for f in families])
        if not inside.all():
            fitted = np.linalg.lstsq(design[~inside], y[~inside], rcond=None)[0]
            errors[inside] = design[inside] @ fitted - y[inside]
    return errors


class Row(NamedTuple):
    """A predictor with an optimizer: root mean squares in decades."""

    optimizer: str
    name: str
    pairs: int
    plain: float | None
    fitted: float | None


def rms(errors: np.ndarray) -> float | None:
    value = float(np.sqrt(np.mean(errors**2))) if len(errors) else math.nan
    return value if math.isfinite(value) else None


def summary(
    peaks: Mapping[Name, Peak], seen: Mapping[str, Mapping[Name, float]], known: Mapping[str, Task]
) -> list[Row]:
    """Every predictor, and the best lines of several of a pace; of the development tasks."""
    tuned = {n: p.decades for n, p in peaks.items() if n[0] in known and known[n[0]].group == "development"}
    rows: list[Row] = []
    for optimizer in dict.fromkeys(o for _, o in tuned):
        of = {name: value for name, value in tuned.items() if name[1] == optimizer}
        families = {name: known[name[0]].family for name in of}
        there = {name: values for name, values in seen.items() if values.keys() & of.keys()}
        if not there:
            continue
        rows.append(_line(optimizer, "one constant", of, [], families))
        for name, values in there.items():
            rows.append(_single(optimizer, name, of, values, families))
        for pace, size in itertools.product(PACES, (2, 3)):
            of_pace = f", {pace:g}"
            ramp = {name.removesuffix(of_pace): x for name, x in there.items() if name.endswith(of_pace)}
            lines = [
                _line(optimizer, " + ".join(names) + of_pace, of, [ramp[n] for n in names], families)
                for names in itertools.combinations(ramp, size)
            ]
            rows += sorted((r for r in lines if r.fitted is not None), key=lambda r: r.fitted or 0)[:BEST]
    return rows


def _shared(of: Mapping[Name, float], values: Sequence[Mapping[Name, float]]) -> list[Name]:
    return [name for name in of if all(name in v for v in values)]


def _line(
    optimizer: str, name: str, of: Mapping[Name, float], x: Sequence[Mapping[Name, float]], families: Mapping[Name, str]
) -> Row:
    """A straight line of several witnesses."""
    names = _shared(of, x)
    columns = np.array([[values[n] for values in x] for n in names]).reshape(len(names), len(x))
    errors = left_out(columns, np.array([of[n] for n in names]), [families[n] for n in names])
    return Row(optimizer, name, len(names), None, rms(errors))


def _single(
    optimizer: str, name: str, of: Mapping[Name, float], values: Mapping[Name, float], families: Mapping[Name, str]
) -> Row:
    """A predictor as it is, and times a constant."""
    names = _shared(of, [values])
    errors = np.array([values[n] - of[n] for n in names])
    fitted = left_out(np.empty((len(names), 0)), -errors, [families[n] for n in names])
    return Row(optimizer, name, len(names), rms(errors), rms(fitted))
