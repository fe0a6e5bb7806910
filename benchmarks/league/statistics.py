"""What the lines of a store say: ratio and regret of glyder by cell and optimizer, over the league, and its cost.

Ratio: mean test loss of glyder over that of the tuned schedule, on the same seeds B. Regret puts it on the scale of the
tuned valley, which seeds A measured: 0 is its bottom, 1 a peak one step of the grid off. Intervals hold
95 %: by Student's t over the seeds of a pair, by a bootstrap over workloads and their seeds for the league.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np

from benchmarks.league import cost as measured
from benchmarks.league import scale
from benchmarks.league.cost import MEMORY, TIME
from benchmarks.league.optimizers import MAIN
from benchmarks.league.pairs import League, Pair, Record
from benchmarks.league.resample import RESAMPLES, best_of, clustered, geometric, interval, over_seeds, wins
from benchmarks.league.standings import rivals, standings
from benchmarks.league.store import Store
from benchmarks.league.suites import LONG, STARTS
from benchmarks.league.train import FRESH_SEEDS, TUNING_SEEDS, recipe

FIGURES = ("median_ratio", "worst_ratio", "median_regret", "worst_regret", "win_rate", "mean_ratio")

PASSED = 5.0
"""Times the loss before training: a run that was above it on its way is named, wherever it ends."""

LADDERS = {
    "mnist-mlp": ("mnist-mlp-t300", "mnist-mlp-t1200", "mnist-mlp-t4800"),
    "shakespeare": ("shakespeare-t125", "shakespeare", "shakespeare-t2000"),
}


def _errors(pair: Pair, part: str) -> float | None:
    """Mean of glyder's error less the tuned one's, over the seeds where both have one."""
    scores = zip(*([r.get(part, {}) for r in pair.runs[method]] for method in ("glyder", "tuned")), strict=True)
    gaps = [ours["error"] - theirs["error"] for ours, theirs in scores if "error" in ours and "error" in theirs]
    return float(np.mean(gaps)) if gaps else None


def _forgotten(pair: Pair) -> dict[str, float]:
    """Test error on the classes of the pre-training, where there were any: the mean of each method."""
    found = {method: [r.get("test", {}).get("old_error") for r in runs] for method, runs in pair.runs.items()}
    return {method: float(np.mean(errors)) for method, errors in found.items() if None not in errors}


def _worst(records: list[Record]) -> float | None:
    """The greatest training loss within the runs, relative to the loss before training; None if one was not finite."""
    found = [r["worst"] / r["initial"] if r.get("worst") is not None else math.inf for r in records]
    return max(found) if math.isfinite(max(found)) else None


def row(pair: Pair) -> dict[str, Any]:
    """Everything that is told of a pair."""
    ours, theirs = pair.runs["glyder"], pair.runs["tuned"]
    within = over_seeds(pair.test["tuned"], pair.test["glyder"])
    T = pair.cell.steps
    return {
        "cell": pair.cell.name, "optimizer": pair.optimizer, "workload": pair.cell.workload,
        "stretch": pair.cell.stretch, "steps": T, "reserved": pair.cell.reserved,
        "peak": pair.tuning.peak.rate, "warmup": pair.tuning.peak.warmup, "valley": list(pair.tuning.valley),
        "tuned_loss": float(pair.test["tuned"].mean()), "glyder_loss": float(pair.test["glyder"].mean()),
        "ratio": pair.ratio, "interval": within,
        "regret": pair.regret(pair.ratio), "regret_interval": [pair.regret(ratio) for ratio in within],
        "tuned_regret": pair.regret(1.0), "floored": pair.span[1], "deep": pair.deep,
        "train_ratio": float(pair.train["glyder"].mean() / pair.train["tuned"].mean()),
        "error_difference": _errors(pair, "test"), "train_error_difference": _errors(pair, "train"),
        "old_error": _forgotten(pair),
        "cost_steps": 1 + float(np.mean([g.get("forwards", 0) for g in ours])) / (3 * T),
        "copies": float(np.mean([g.get("copies", 0) for g in ours])),
        "worst": _worst(ours), "tuned_worst": _worst(theirs),
        "diverged": sum(g["diverged"] for g in ours), "tuned_diverged": sum(t["diverged"] for t in theirs),
        "tuning_runs": pair.tuning.runs, "tuning_steps": pair.tuning.steps,
    }  # fmt: skip


def overall(pairs: list[Pair]) -> dict[str, Any]:
    """Median and worst of ratio and regret, share of wins and mean ratio, each with its interval."""
    tuned, ours = (np.array([p.test[method] for p in pairs]) for method in ("tuned", "glyder"))
    low, span = np.array([p.tuning.valley[0] for p in pairs]), np.array([p.span[0] for p in pairs])

    def figures(rows: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        regrets = (ratios - low[rows]) / span[rows]
        ends = [of(figure) for figure in (ratios, regrets) for of in (np.median, np.max)]
        return np.array([*ends, wins(ratios), geometric(ratios)])

    ratios = ours.mean(1) / tuned.mean(1)
    values = figures(np.arange(len(pairs)), ratios)
    drawn = clustered(tuned, ours, [p.cell.workload for p in pairs], figures)
    found: dict[str, Any] = {
        name: {"value": float(values[i]), "interval": interval(drawn[:, i])} for i, name in enumerate(FIGURES)
    }
    for name, of_pairs in {"ratio": ratios, "regret": (ratios - low) / span}.items():
        found[f"worst_{name}"]["where"] = pairs[int(np.argmax(of_pairs))].name
    return found


def ladder(pairs: list[Pair]) -> dict[str, Any] | None:
    """Slope of regret against log4 of the length of a run, by ladder and optimizer, and the mean of the slopes."""
    known, lines, slopes = {(p.cell.name, p.optimizer): p for p in pairs}, [], []
    for i, (workload, rungs) in enumerate(LADDERS.items()):
        seeds = np.random.default_rng(i).integers(len(FRESH_SEEDS), size=(RESAMPLES, len(FRESH_SEEDS)))
        for optimizer in dict.fromkeys(p.optimizer for p in pairs):
            steps = [known.get((name, optimizer)) for name in rungs]
            found = [p for p in steps if p is not None]
            if len(found) < len(rungs):
                continue
            x = np.log([p.cell.steps for p in found]) / math.log(4)
            weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
            drawn = [p.test["glyder"][seeds].mean(1) / p.test["tuned"][seeds].mean(1) for p in found]
            slope = np.stack([p.regret(r) for p, r in zip(found, drawn, strict=True)], 1) @ weights
            value = float(np.array([p.regret(p.ratio) for p in found]) @ weights)
            lines.append({"workload": workload, "optimizer": optimizer, "value": value, "interval": interval(slope)})
            slopes.append(slope)
    if not lines:
        return None
    mean = float(np.mean([line["value"] for line in lines]))
    return {"value": mean, "interval": interval(np.mean(slopes, 0)), "lines": lines}


def worth(pairs: list[Pair]) -> dict[str, Any]:
    """Mean expected best of k tuned runs, relative to the tuned loss, and the least k that does as well as glyder.

    The runs are of one seed and scored on the part that they are chosen by. The tuned loss is that of other seeds,
    which only chose among the last three peaks of the tuning.

    Where no k does, it counts as one more than there are. The interval is rounded outwards to whole runs.
    """
    curves, most = np.log([best_of(p.tuning.grid) for p in pairs]), len(pairs[0].tuning.grid)

    def runs(chosen: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        enough = np.flatnonzero(curves[chosen].mean(0) <= np.log(ratios).mean())
        return enough[0] + 1 if len(enough) else np.array(most + 1)

    ratios = np.array([p.ratio for p in pairs])
    tuned, ours = (np.array([p.test[method] for p in pairs]) for method in ("tuned", "glyder"))
    low, high = interval(clustered(tuned, ours, [p.cell.workload for p in pairs], runs))
    return {
        "runs": int(runs(np.arange(len(pairs)), ratios)), "interval": [math.floor(low), math.ceil(high)], "most": most,
        "expected_best": [float(v) for v in np.exp(curves.mean(0))], "glyder": geometric(ratios),
    }  # fmt: skip


def steady(pairs: list[Pair]) -> dict[str, Any] | None:
    """Mean ratio of the pairs of which no tuned run diverged, and how many it leaves out; None if it leaves none."""
    kept = [p for p in pairs if not any(r["diverged"] for r in p.runs["tuned"])]
    return {**overall(kept)["mean_ratio"], "left_out": len(pairs) - len(kept)} if kept else None


def spans(league: League) -> dict[str, dict[str, Any]]:
    """Decades between the least and the greatest tuned peak of each optimizer, over the development cells; and what is
    left of them without the one cell that makes the most of it."""
    found: dict[str, dict[str, int]] = {}
    for (cell, optimizer), tuning in league.tunings.items():
        if not league.known[cell].reserved:
            found.setdefault(optimizer, {})[cell] = tuning.peak.half
    return {o: {"decades": _span(h), "cells": len(h), **_without_one(h)} for o, h in found.items()}


def _span(halves: dict[str, int]) -> float:
    return (max(halves.values()) - min(halves.values())) / 2 if halves else 0.0


def _without_one(halves: dict[str, int]) -> dict[str, Any]:
    left = {name: _span({n: h for n, h in halves.items() if n != name}) for name in halves}
    name = min(left, key=left.__getitem__)
    return {"without": name, "left": left[name]}


def starts(league: League) -> dict[str, Any]:
    """Whether runs that differ in the rate their optimizer is made with end with the same scores, to the bit."""
    ends: dict[tuple[str, str, int], dict[float, str]] = {}
    for r in league.lines:
        if r["method"] == "glyder" and set(r["options"]) == {"start"}:
            scores = json.dumps([r["diverged"], *(r.get(part) for part in ("train", "validation", "test"))])
            ends.setdefault((r["cell"], r["optimizer"], r["seed"]), {})[r["options"]["start"]] = scores
    groups = {name: by_rate for name, by_rate in ends.items() if set(STARTS) <= by_rate.keys()}
    differ = [f"{cell} {o} seed {s}" for (cell, o, s), by_rate in groups.items() if len(set(by_rate.values())) > 1]
    return {"groups": len(groups), "differ": differ}


def errors_of_scale(league: League, store: Store) -> dict[str, dict[scale.Name, float]]:
    """Errors of the predictors of the tuned peak, on the development cells, from what ``scale`` stored."""
    names = [name for name in league.tunings if not league.known[name[0]].reserved]
    tuned = {name: scale.best_log_peak(league.tunings[name].peak) for name in names}
    seen = scale.found(store, league.recipe, {})
    return scale.errors(tuned, seen, {name: league.known[name[0]].workload for name in names})


def divergence(league: League) -> dict[str, Any]:
    """Runs of glyder with its defaults that diverged, or raised, on any seed of any cell; the greatest loss within."""
    runs = [r for r in league.lines if r["method"] == "glyder" and not r["options"]]
    peaks = [(_worst([r]), f"{r['cell']} {r['optimizer']}") for r in runs if "crashed" not in r]
    passed = Counter(name for value, name in peaks if value is None or value > PASSED)
    peak, where = max(peaks, key=lambda p: math.inf if p[0] is None else p[0], default=(None, ""))
    return {
        "runs": len(runs),
        "diverged": sum(r["diverged"] for r in runs),
        "crashed": sum("crashed" in r for r in runs),
        "where": sorted({f"{r['cell']} {r['optimizer']} seed {r['seed']}" for r in runs if r["diverged"]}),
        "worst": {"value": peak, "where": where},
        "passed": dict(sorted(passed.items())),
    }


def cost(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Steps of a run relative to the tuned schedule's own, and what the tuning took beside."""
    steps = [r["cost_steps"] for r in rows]
    return {
        "steps": {"mean": float(np.mean(steps)), "worst": max(steps)},
        "copies": float(np.mean([r["copies"] for r in rows])),
        "tuning_runs": sum(r["tuning_runs"] for r in rows),
        "tuning_steps": sum(r["tuning_steps"] for r in rows),
        "tuning_to_one_run": float(np.mean([r["tuning_runs"] for r in rows])),
    }


def measured_cost(store: Store, recipe: str) -> dict[str, Any]:
    """Wall time of whole runs relative to plain ones, the longest apart, and peak memory beyond a plain run's in copies
    of the parameters; None where nothing was measured."""
    took = {(r["cell"], r["optimizer"]): r["glyder"] / r["plain"] for r in measured.found(store, recipe, TIME)}
    timed, long = (
        {" ".join(pair): ratio for pair, ratio in took.items() if (pair[0] in LONG) is of_long}
        for of_long in (False, True)
    )
    copies = {
        r["optimizer"]: (r["glyder"] - r["plain"]) / r["parameters"] for r in measured.found(store, recipe, MEMORY)
    }
    middle = {"median": float(np.median(list(timed.values()))), **_greatest(timed)} if timed else None
    time = {**middle, "pairs": timed, "long": long} if middle else None
    return {"time": time, "memory": {**_greatest(copies), "optimizers": copies} if copies else None}


def _greatest(values: dict[str, float]) -> dict[str, Any]:
    where = max(values, key=lambda name: values[name])
    return {"worst": values[where], "where": where}


def environments(league: League) -> dict[str, list[str]]:
    """Every version, machine and commit that the lines come from."""
    found = [r["environment"] for r in league.lines if "environment" in r]
    return {name: sorted({str(e[name]) for e in found if name in e}) for name in sorted({n for e in found for n in e})}


def summary(league: League) -> dict[str, Any]:
    """All figures of the league, ready for JSON: overall those of the main optimizers on the development cells.

    Other optimizers and the reserved cells have figures of their own.
    """
    pairs = [p for p in league.pairs if p.optimizer in MAIN]
    scales = Store(scale.path(league.store.path.parent))
    found: dict[str, Any] = {
        "recipe": league.recipe, "tree_recipe": recipe(), "environment": environments(league),
        "seeds": {"tuning": list(TUNING_SEEDS), "comparison": list(FRESH_SEEDS)},
        "pairs": len(pairs), "incomplete": league.incomplete,
        "planned": len(league.planned),
        "complete": len(league.planned & {(p.cell.name, p.optimizer) for p in league.pairs}),
        "diverged": divergence(league), "tuned_peaks": spans(league), "starts": starts(league),
        "scale": scale.summary(errors_of_scale(league, scales)),
        "measured_cost": measured_cost(Store(measured.path(league.store.path.parent)), league.recipe),
        "others": group([p for p in league.pairs if p.optimizer not in MAIN]), "reserved": group(league.reserved),
    }  # fmt: skip
    if pairs:
        apart = {o: of for o in MAIN if (of := [p for p in pairs if p.optimizer == o])}
        found |= group(pairs) | {
            "by_optimizer": {o: figures(of) for o, of in apart.items()}, "ladder_slope": ladder(pairs),
            "rivals": rivals(league), "ranks": standings(league),
        }  # fmt: skip
    return rounded(found)


def group(pairs: list[Pair]) -> dict[str, Any]:
    """What is told of any pairs that belong together."""
    rows = [row(p) for p in pairs]
    if not pairs:
        return {"pairs": 0}
    return {**figures(pairs), "cost": cost(rows), "cells": rows}


def figures(pairs: list[Pair]) -> dict[str, Any]:
    """What is told of them all together."""
    within = [over_seeds(p.test["tuned"], p.test["glyder"]) for p in pairs]
    sure = {"better": sum(high < 1 for _, high in within), "worse": sum(low > 1 for low, _ in within)}
    more = {"steady_ratio": steady(pairs), "sure": sure, "worth_runs": worth(pairs)}
    return {"pairs": len(pairs), **overall(pairs), **more}


def rounded(value: Any) -> Any:
    """To six digits, and None where a number is not finite."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
