"""What the lines of a store say, in figures; and the bars that they are held to.

A ratio is the mean test loss of glyder over that of another method, on the same seeds. Intervals hold 95 %: by
Student's t over the seeds of a pair, by a bootstrap over families of tasks and their seeds for many pairs.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness.statistics import clustered, geometric, interval, wins
from benchmarks.harness.store import Store
from benchmarks.methods.optimizers import OPTIMIZERS
from benchmarks.report.pairs import Pair, Results
from benchmarks.studies import cost, plan, refit

COUNTED = ("development", "held-out")
"""The groups of tasks that overall figures are of."""


class Bar(NamedTuple):
    """What a figure is to be, and what it is of."""

    sign: str
    limit: float
    text: str

    def met(self, value: float) -> bool:
        return bool({"<=": operator.le, "<": operator.lt, ">=": operator.ge}[self.sign](value, self.limit))


def _each(sign: str, limits: Sequence[float], key: str, text: str) -> dict[str, Bar]:
    """A bar for each optimizer."""
    names = ("AdamW", "SGD", "momentum")
    found = zip(names, limits, strict=True)
    return {key.format(name.lower()): Bar(sign, limit, f"{name}: {text}") for name, limit in found}


HIGH = "upper end of its interval"
BARS: dict[str, Bar] = {
    **_each("<=", (1.02, 0.99, 0.99), "ratio_{}", "loss over the tuned one, mean of the development tasks"),
    **_each("<=", (1.04,) * 3, "heldout_{}_high", f"loss over the tuned one, held-out tasks, {HIGH}"),
    "worst_ratio": Bar("<=", 1.15, "loss over the tuned one, the worst of all tasks and optimizers"),
    "transformers_adamw": Bar("<=", 1.02, "AdamW: loss over the tuned one, mean of all transformers"),
    "over_best_fixed_adamw_high": Bar("<", 1, f"AdamW: loss over that of the best fixed peak, {HIGH}"),
    "over_prodigy_high": Bar("<", 1, f"AdamW: loss over that of Prodigy, {HIGH}"),
    "over_schedulefree_high": Bar("<", 1, f"AdamW: loss over that of Schedule-Free, {HIGH}"),
    **_each("<=", (0.25,) * 3, "scale_rms_{}", "decades from the tuned peak, rms over the development tasks"),
    "refit5": Bar("<=", 1.02, "training loss of the fifth fit over that of the first, the worse of two nets"),
    "diverged": Bar("<=", 0, "runs with the defaults that diverged"),
    "wall_median": Bar("<=", 1.03, "wall time over that of a plain run, median"),
    "wall_worst": Bar("<=", 1.10, "wall time over that of a plain run, worst"),
    "adamw_peaks_decades": Bar(">=", 2.5, "AdamW: decades from the least to the greatest tuned peak"),
}


@dataclass(frozen=True)
class Compared:
    """The ratios of some pairs to one other method: their geometric mean and its interval, and the rest of them."""

    value: float
    interval: list[float]
    median: float
    worst: float
    where: str
    wins: float
    tasks: int


def compared(pairs: Sequence[Pair], theirs: Sequence[np.ndarray]) -> Compared | None:
    """glyder against the losses of another method, by pair and seed; None if there are none. Families are clusters."""
    if not pairs:
        return None
    ours, other = np.array([p.glyder for p in pairs]), np.array(theirs)
    ratios = ours.mean(1) / other.mean(1)
    worst = int(np.argmax(ratios))
    within = interval(clustered(other, ours, [p.task.family for p in pairs]))
    return Compared(
        geometric(ratios), within, float(np.median(ratios)), float(ratios[worst]), pairs[worst].name, wins(ratios),
        len(pairs),
    )  # fmt: skip


def to_tuned(pairs: Sequence[Pair]) -> Compared | None:
    return compared(pairs, [p.tuned for p in pairs])


def beside(results: Results) -> dict[tuple[str, str], Compared]:
    """glyder against every other method, by its name and the optimizer, over all tasks that it was run on."""
    found = {}
    for name in (plan.BEST, *plan.BESIDE):
        for optimizer in OPTIMIZERS:
            runs = [(p, r) for p in results.of(optimizer, *COUNTED) if (r := results.beside(name, p)) is not None]
            if made := compared([p for p, _ in runs], [results.losses(r) for _, r in runs]):
                found[name, optimizer] = made
    return found


def scale_rms(pairs: Sequence[Pair]) -> float | None:
    """Root mean square of the decades from the tuned peaks to glyder's; None where a line has no peak."""
    off = np.array([p.off for p in pairs])
    return float(np.sqrt(np.mean(off**2))) if len(off) and np.isfinite(off).all() else None


def refits(results: Results) -> dict[str, list[float]]:
    """By task and fit the training loss over that of the first fit, geometric means over seeds."""
    losses: dict[str, list[list[float]]] = {}
    for r in results.lines:
        if r["method"] == refit.METHOD:
            losses.setdefault(r["cell"], []).append([x if math.isfinite(x) else math.inf for x in r["losses"]])
    return {
        task: [geometric(fit) for fit in (np.array(fits) / np.array(fits)[:, :1]).T] for task, fits in losses.items()
    }


def starts(results: Results) -> tuple[int, list[str]]:
    """How many tasks, optimizers and seeds were run from every starting rate, and those where the runs differ."""
    ends: dict[str, dict[float, str]] = {}
    for r in results.lines:
        if r["method"] == "glyder" and "start" in r["options"]:
            scores = [r["diverged"], r.get("peak"), *(r.get(part) for part in ("train", "validation", "test"))]
            name = f"{r['cell']} {r['optimizer']} seed {r['seed']}"
            ends.setdefault(name, {})[r["options"]["start"]] = json.dumps(scores)
    whole = {name: by_rate for name, by_rate in ends.items() if set(plan.STARTS) <= by_rate.keys()}
    return len(whole), [name for name, by_rate in whole.items() if len(set(by_rate.values())) > 1]


def diverged(results: Results) -> list[str]:
    """The runs of glyder with its defaults that diverged or raised, on any task."""
    return [f"{task} {o} seed {seed}" for (task, o, seed), r in results.defaults.items() if r["diverged"]]


def wall(results: Results, store: Store) -> dict[str, float]:
    """Wall time over that of a plain run, by task and optimizer."""
    lines = cost.found(store, results.recipe, cost.TIME)
    return {f"{r['cell']} {r['optimizer']}": r["glyder"] / r["plain"] for r in lines}


def memory(results: Results, store: Store) -> dict[str, float]:
    """Peak memory beyond a plain run's, in copies of the parameters, by optimizer."""
    lines = cost.found(store, results.recipe, cost.MEMORY)
    return {r["optimizer"]: (r["glyder"] - r["plain"]) / r["parameters"] for r in lines}


def key_figures(results: Results, costs: Store) -> dict[str, float | None]:
    """The figures that have a bar, None where they are not known."""
    found: dict[str, float | None] = dict.fromkeys(BARS)
    for optimizer in OPTIMIZERS:
        name, development = optimizer.lower(), results.of(optimizer, "development")
        if mean := to_tuned(development):
            found[f"ratio_{name}"] = mean.value
        if held := to_tuned(results.of(optimizer, "held-out")):
            found[f"heldout_{name}_high"] = held.interval[1]
        found[f"scale_rms_{name}"] = scale_rms(development)
    if counted := [p for p in results.pairs if p.task.group in COUNTED]:
        found["worst_ratio"] = max(p.ratio for p in counted)
    if mean := to_tuned([p for p in results.of("AdamW", *COUNTED) if p.task.transformer]):
        found["transformers_adamw"] = mean.value
    others = beside(results)
    for key, name in (("best_fixed_adamw", plan.BEST), ("prodigy", "prodigy"), ("schedulefree", "schedulefree")):
        if made := others.get((name, "AdamW")):
            found[f"over_{key}_high"] = made.interval[1]
    if fits := refits(results):
        found["refit5"] = max(ratios[-1] for ratios in fits.values())
    if results.defaults:
        found["diverged"] = len(diverged(results))
    if took := list(wall(results, costs).values()):
        found["wall_median"], found["wall_worst"] = float(np.median(took)), max(took)
    halves = [
        p.half for (task, o), p in results.peaks.items() if o == "AdamW" and results.known[task].group == "development"
    ]
    if halves:
        found["adamw_peaks_decades"] = (max(halves) - min(halves)) / 2
    return {key: None if value is None else float(f"{value:.6g}") for key, value in found.items()}


def incomplete(results: Results) -> dict[str, tuple[int, int]]:
    """How many pairs of a task and an optimizer are complete, and of how many, by group of tasks; and by method beside
    the two how many of these have it. Only what is not all there."""
    counts = {}
    for group in (*COUNTED, "apart"):
        there = sum(p.task.group == group for p in results.pairs)
        counts[group] = there, sum(task.group == group for task, _ in plan.pairs_of(results.known.values()))
    for name in (plan.BEST, *plan.BESIDE):
        pairs = [p for o in (OPTIMIZERS if name == plan.BEST else ("AdamW",)) for p in results.of(o, *COUNTED)]
        counts[name] = sum(results.beside(name, p) is not None for p in pairs), len(pairs)
    return {name: (there, count) for name, (there, count) in counts.items() if there < count}


def environments(results: Results) -> dict[str, list[Any]]:
    """Every version, machine and commit that the lines come from."""
    found = [r["environment"] for r in results.lines if "environment" in r]
    return {name: sorted({str(e[name]) for e in found if name in e}) for name in sorted({n for e in found for n in e})}
