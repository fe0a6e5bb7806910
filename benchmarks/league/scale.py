"""The scale's own measure: how far from the tuned peak glyder settles, in decades, without training to the end.

It takes a window of updates a cell once the peak is tuned, so it is the tool to develop the estimator with; whole runs
confirm. Constants that a rival predictor needs are fitted with the workload left out.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.league.markdown import table
from benchmarks.league.methods import Glyder, warmup_steps
from benchmarks.league.store import Store
from benchmarks.league.train import TUNING_SEEDS, Run, recorded, updates
from benchmarks.league.tuning import Peak, Study
from benchmarks.league.workload import Cell, cells
from glyder import _core

METHOD = "glyder-scale"
SEEDS = TUNING_SEEDS[:2]
OURS, FIXED = "glyder", "one fixed peak per optimizer"

Name = tuple[str, str]
"""A cell and an optimizer."""


def best_log_peak(peak: Peak) -> float:
    """log10 of the peak of least loss: the vertex of the parabola through the best half-decade and its neighbours."""
    low, mid, high = (peak.losses.get(peak.half + k, math.inf) for k in (-1, 0, 1))
    if not (math.isfinite(low) and math.isfinite(high)) or low + high <= 2 * mid:
        return peak.half / 2
    return peak.half / 2 + 0.5 * max(-0.5, min(0.5, (low - high) / (2 * (low + high - 2 * mid))))


def settled(run: Run) -> dict[str, Any]:
    """The scale that glyder settles on in its window, and the locally optimal rate over that window."""
    cell = cells()[run.cell]
    task = cell.build(run.seed)
    torch.manual_seed(run.seed + 20_000)
    method = Glyder(task, cell, run.optimizer, **run.options)
    window = warmup_steps("glyder", cell.steps) + 1
    deque(itertools.islice(updates(task, cell, method), window), maxlen=0)
    history = method.scheduler.history
    bases = history["base"][np.isfinite(history["base"])]  # not the rate itself: after a brake it is on its way there
    return {"rate": float(bases[-1]) if len(bases) else None, "optimal": optimal(history)}


def optimal(history: np.ndarray) -> float | None:
    """The locally optimal rate over all measurements, by the rule itself; None where it has none."""
    rule, rate = _core.Rule("glyder", sigma=1.0), None
    for row in history[np.isfinite(history["curvature"])]:
        seen = {"slope": row["slope"], "curvature": row["curvature"], "dd": row["displacement"] ** 2, "lr": row["lr"]}
        found, action, _ = rule.update(**seen, behind=0.0, young=1.0)  # measured at x_t
        rate = found if action == "keep" else None
    return rate


def execute(run: Run) -> dict[str, Any]:
    """As ``train.execute``, for :func:`settled`."""
    return recorded(run, settled)


def study(cell: Cell, optimizer: str, **options: Any) -> Study:
    """Ask for the runs of a cell."""
    yield [Run(cell.name, optimizer, METHOD, seed, options) for seed in SEEDS]


def found(store: Store, recipe: str, options: Mapping[str, Any]) -> dict[Name, tuple[float, float]]:
    """log10 of the settled and of the locally optimal rate, means over seeds, of what is in the store."""
    runs: dict[Name, list[dict[str, Any]]] = {}
    for r in store.records.values():
        if r["recipe"] == recipe and r["options"] == options:
            runs.setdefault((r["cell"], r["optimizer"]), []).append(r)

    def mean(rates: list[float | None]) -> float:
        logs = [math.log10(rate) for rate in rates if rate]
        return sum(logs) / len(logs) if logs else math.nan

    return {name: (mean([r["rate"] for r in rs]), mean([r["optimal"] for r in rs])) for name, rs in runs.items()}


def left_out(values: Mapping[Name, float], cluster: Mapping[Name, str], group: Mapping[Name, str]) -> dict[Name, float]:
    """For each key the mean over the same group without the key's cluster."""
    made = {}
    for key in values:
        rest = [v for k, v in values.items() if cluster[k] != cluster[key] and group[k] == group[key]]
        made[key] = float(np.nanmean(rest)) if np.isfinite(rest).any() else math.nan
    return made


def errors(
    tuned: Mapping[Name, float], seen: Mapping[Name, tuple[float, float]], cluster: Mapping[Name, str]
) -> dict[str, dict[Name, float]]:
    """Errors in decades of every predictor, where both the tuned peak and the settled rate are known."""
    tuned = {key: value for key, value in tuned.items() if key in seen}
    one, by_optimizer = dict.fromkeys(tuned, ""), {key: key[1] for key in tuned}
    optimal = {key: seen[key][1] for key in tuned}
    offset = left_out({key: tuned[key] - optimal[key] for key in tuned}, cluster, one)
    constant, fixed = left_out(tuned, cluster, one), left_out(tuned, cluster, by_optimizer)
    return {
        OURS: {key: seen[key][0] - tuned[key] for key in tuned},
        "locally optimal rate x constant": {key: optimal[key] + offset[key] - tuned[key] for key in tuned},
        FIXED: {key: fixed[key] - tuned[key] for key in tuned},
        "one constant for all": {key: constant[key] - tuned[key] for key in tuned},
    }


def summary(of: Mapping[str, Mapping[Name, float]]) -> dict[str, dict[str, Any]]:
    """rms, worst and where that is, per predictor that has any finite error."""
    made = {}
    for name, by_cell in of.items():
        values = {key: value for key, value in by_cell.items() if math.isfinite(value)}
        if values:
            worst = max(values, key=lambda key: abs(values[key]))
            rms = math.sqrt(sum(v * v for v in values.values()) / len(values))
            made[name] = {"rms": rms, "worst": values[worst], "where": " ".join(worst), "pairs": len(values)}
    return made


def render(of: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ([n, f"{s['rms']:.2f}", f"{s['worst']:+.2f}", s["where"], str(s["pairs"])] for n, s in of.items())
    return table(["predictor", "rms (decades)", "worst", "where", "pairs"], lines)


def path(folder: Path) -> Path:
    return folder / "scale.jsonl"
