"""How far from the tuned peak glyder settles, in decades, and what else tells of that peak before a run is trained.

It takes a search and four ramps a cell and seed, so it is the tool to develop a search with; whole runs confirm.
Constants are fitted for each optimizer, with the family of the cell left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.league.markdown import number, table
from benchmarks.league.methods import Glyder
from benchmarks.league.ramp import climb, witnesses
from benchmarks.league.store import Store
from benchmarks.league.train import TUNING_SEEDS, Run, recorded, updates
from benchmarks.league.tuning import Peak, Study
from benchmarks.league.workload import Cell, cells

SEARCH, RAMP = "glyder-search", "ramp"
SEEDS = TUNING_SEEDS[:2]
PACES = (1.07, 1.2)
OURS = "glyder's peak"
BEST = 3
"""Lines of two and of three witnesses that are told, of all that there are."""
ABOUT = """\
Root mean square, in decades, of the errors against the tuned peak over the development cells: of a rate as it is, with
one fitted constant, and of straight lines of two and three of them, the three best of all. What is fitted is fitted
with the family of the cell left out. All but glyder's peak are read from ramps, whose rate rises by 1.07 or 1.2 an
update."""

Name = tuple[str, str]
"""A cell and an optimizer."""


def path(folder: Path) -> Path:
    return folder / "scale.jsonl"


def study(cell: Cell, optimizer: str) -> Study:
    """Ask for the runs of a cell."""
    searches = [Run(cell.name, optimizer, SEARCH, seed) for seed in SEEDS]
    yield searches + [Run(cell.name, optimizer, RAMP, seed, {"pace": pace}) for pace in PACES for seed in SEEDS]


def execute(run: Run) -> dict[str, Any]:
    """As ``train.execute``, for both."""
    return recorded(run, {SEARCH: settled, RAMP: climbed}[run.method])


def settled(run: Run) -> dict[str, Any]:
    """log10 of the peak that glyder settles on; None if it finds none."""
    cell = cells()[run.cell]
    task = cell.build(run.seed)
    torch.manual_seed(run.seed + 20_000)
    method = Glyder(task, cell, run.optimizer)
    for _ in updates(task, cell, method):
        if method.told()["peak"] is not None:
            return {"found": {OURS: math.log10(method.told()["peak"])}}
    return {"found": {}}


def climbed(run: Run) -> dict[str, Any]:
    """The witnesses of a ramp."""
    cell, pace = cells()[run.cell], run.options["pace"]
    told = witnesses(climb(cell, run.optimizer, run.seed, pace), cell.steps)
    return {"found": {name: round(float(value), 4) for name, value in told.items() if math.isfinite(value)}}


def found(store: Store, recipe: str) -> dict[str, dict[Name, float]]:
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
    peaks: Mapping[Name, Peak], seen: Mapping[str, Mapping[Name, float]], known: Mapping[str, Cell]
) -> list[Row]:
    """Every predictor, and the best lines of several of a pace; of the development cells."""
    tuned = {n: p.decades for n, p in peaks.items() if n[0] in known and known[n[0]].group == "development"}
    rows: list[Row] = []
    for optimizer in dict.fromkeys(o for _, o in tuned):
        of = {name: value for name, value in tuned.items() if name[1] == optimizer}
        families = {name: known[name[0]].workload for name in of}
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


def render(rows: Iterable[Row]) -> str:
    head = ["predictor", "optimizer", "pairs", "as it is", "fitted"]
    return table(head, ([r.name, r.optimizer, str(r.pairs), number(r.plain, 2), number(r.fitted, 2)] for r in rows))
