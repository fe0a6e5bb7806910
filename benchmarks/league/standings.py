"""The other methods of a league: released rivals, other rules, schedules, one peak for all cells, variants of glyder.

Of the recipes, peaks or scales of a method that were run on seeds B, each pair counts the one that was best on the
first of seeds A. A method is compared on the seeds that all its pairs have.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.league import family
from benchmarks.league.pairs import League, Pair, Record
from benchmarks.league.plan import RIVAL_SEEDS
from benchmarks.league.resample import clustered, geometric, interval, wins
from benchmarks.league.rivals import HORIZON
from benchmarks.league.train import FRESH_SEEDS, TUNING_SEEDS
from benchmarks.league.tuning import loss_of

CHOSEN = ("peak", "warmup", "recipe", "scale")
"""Options that are chosen for each pair and so do not tell methods apart."""
TWINS = ("fixed anneal=linear", "tuned anneal=linear")
"""Have no rank: each is so like another method that both would count for one."""
SWEEPS = {"glyder": {"scale", "start"}, "plain": {"peak"}}
"""Options of lines that are drawn as curves and enter no table."""


@dataclass
class Other:
    """A method beside the two: all its lines; by the index of the pair those of the recipe that counts, by seed; and
    the test losses of these."""

    lines: list[Record] = field(default_factory=list)
    runs: dict[int, dict[int, Record]] = field(default_factory=dict)
    losses: dict[int, dict[int, float]] = field(default_factory=dict)

    def recipe(self, i: int) -> str:
        options = next(iter(self.runs[i].values()))["options"]
        return str(options.get("recipe", options.get("scale", "")))

    @property
    def seeds(self) -> list[int]:
        return [s for s in FRESH_SEEDS if all(s in by_seed for by_seed in self.losses.values())]

    def table(self, seeds: list[int]) -> np.ndarray:
        return np.array([[by_seed[s] for s in seeds] for by_seed in self.losses.values()])


def label(record: Record) -> str:
    """Name of a method, empty if it is no rival."""
    method, options = record["method"], record["options"]
    rest = {k: v for k, v in options.items() if k not in CHOSEN}
    if method.startswith("glyder-") or (method in SWEEPS and set(options) <= SWEEPS[method]):
        return ""
    if method == "tuned" and not rest:
        return ""
    return " ".join([method, *(k if v is True else f"{k}={v}" for k, v in sorted(rest.items()))])


def installed(record: Record) -> bool:
    """Whether a run was one of the method at all, its package being there."""
    return not record.get("crashed", "").startswith(("ImportError:", "ModuleNotFoundError:"))


def collect(league: League) -> dict[str, Other]:
    """All other methods by name, whether or not a pair has them on seeds B."""
    index = {(p.cell.name, p.optimizer): i for i, p in enumerate(league.pairs)}
    found: dict[str, Other] = {}
    for (cell, optimizer, _, _), by_seed in league.runs.items():
        first = next(iter(by_seed.values()))
        if not (name := label(first)):
            continue
        other = found.setdefault(name, Other())
        other.lines += by_seed.values()
        by_seed = {seed: r for seed, r in by_seed.items() if installed(r)}
        i = index.get((cell, optimizer))
        if i is None or any(s not in by_seed for s in RIVAL_SEEDS):
            continue
        if i not in other.runs or _chosen_by(by_seed) < _chosen_by(other.runs[i]):
            other.runs[i] = by_seed
            other.losses[i] = {s: league.loss(by_seed[s], "test") for s in FRESH_SEEDS if s in by_seed}
    for other in found.values():
        other.losses = dict(sorted(other.losses.items()))
    return dict(sorted(found.items()))


def _chosen_by(by_seed: dict[int, Record]) -> float:
    """Validation loss on the first of seeds A, infinite without that."""
    return loss_of(by_seed[TUNING_SEEDS[0]]) if TUNING_SEEDS[0] in by_seed else math.inf


def knows(name: str, recipe: str) -> bool:
    """Whether a method is told the length of the run."""
    horizon = HORIZON | family.HORIZON
    if name in horizon:
        return horizon[name].get(recipe, False)
    return name not in ("followed", "tuned anneal=constant", "tuned anneal=rsqrt", "glyder horizon=False")


def _mean(losses: dict[int, float]) -> float:
    """Over the seeds that every method has."""
    return sum(losses[s] for s in RIVAL_SEEDS) / len(RIVAL_SEEDS)


def of_pairs(pairs: list[Pair], method: str, seeds: list[int]) -> np.ndarray:
    """Test losses of ``"tuned"`` or ``"glyder"``."""
    return np.array([p.test[method][[FRESH_SEEDS.index(s) for s in seeds]] for p in pairs])


def rivals(league: League) -> list[dict[str, Any]]:
    """A row for every other method."""
    rows = []
    for name, other in collect(league).items():
        ended = {
            "runs": len(other.lines),
            "crashed": sum("crashed" in r for r in other.lines),
            "diverged": sum(r["diverged"] for r in other.lines if installed(r)),
        }
        chosen = [other.recipe(i) for i in other.losses]
        recipes = dict(sorted(Counter(filter(None, chosen)).items()))
        figures = _figures(league.pairs, other) if other.losses else {}
        knowing = sum(knows(name, recipe) for recipe in chosen)
        counted = {"method": name, "pairs": len(other.losses), "know_length": knowing, "recipes": recipes}
        rows.append({**counted, **ended, **figures})
    return rows


def _figures(league_pairs: list[Pair], other: Other) -> dict[str, Any]:
    pairs, seeds = [league_pairs[i] for i in other.losses], other.seeds
    theirs, tuned, ours = other.table(seeds), of_pairs(pairs, "tuned", seeds), of_pairs(pairs, "glyder", seeds)
    ratios = theirs.mean(1) / tuned.mean(1)
    recipes = [other.recipe(i) for i in other.losses]
    regrets = [p.regret(r) for p, r in zip(pairs, ratios, strict=True)]
    compared = [[other.runs[i][s] for s in seeds] for i in other.losses]
    steady = np.array([not any(r["diverged"] for r in runs) for runs in compared])
    kept = [p for p, ended in zip(pairs, steady, strict=True) if ended]
    return {
        "seeds": seeds, "crashed_counted": sum("crashed" in r for runs in compared for r in runs),
        "mean_ratio": geometric(ratios), "median_ratio": float(np.median(ratios)), "worst_ratio": ratios.max(),
        "median_regret": float(np.median(regrets)), "worst_regret": max(regrets),
        "glyder_mean_ratio": geometric(ours.mean(1) / tuned.mean(1)),
        "glyder_to_it": _against(pairs, theirs, ours),
        "glyder_to_it_steady": _against(kept, theirs[steady], ours[steady]) if 0 < len(kept) < len(pairs) else None,
        "cells": [
            {"cell": p.cell.name, "optimizer": p.optimizer, "recipe": recipe, "ratio": ratio, "regret": regret}
            for p, recipe, ratio, regret in zip(pairs, recipes, ratios, regrets, strict=True)
        ],
    }  # fmt: skip


def _against(pairs: list[Pair], theirs: np.ndarray, ours: np.ndarray) -> dict[str, Any]:
    """Glyder's loss over that of the other, of all pairs and of each optimizer's."""
    at = {o: [i for i, p in enumerate(pairs) if p.optimizer == o] for o in dict.fromkeys(p.optimizer for p in pairs)}
    apart = {o: _mean_and_wins([pairs[i] for i in of], theirs[of], ours[of]) for o, of in at.items()}
    return _mean_and_wins(pairs, theirs, ours) | {"by_optimizer": apart}


def _mean_and_wins(pairs: list[Pair], theirs: np.ndarray, ours: np.ndarray) -> dict[str, Any]:
    def both(_: Any, ratios: np.ndarray) -> np.ndarray:
        return np.array([geometric(ratios), wins(ratios)])

    drawn = clustered(theirs, ours, [p.cell.workload for p in pairs], both)
    ratios = ours.mean(1) / theirs.mean(1)
    mean, won = both(None, ratios)
    return {
        "pairs": len(pairs), "value": mean, "interval": interval(drawn[:, 0]), "median": float(np.median(ratios)),
        "win_rate": {"value": won, "interval": interval(drawn[:, 1])},
    }  # fmt: skip


def standings(league: League) -> dict[str, Any]:
    """Mean rank by optimizer over the pairs that all methods have; a method with less than half of them has none."""
    others, found = collect(league), {}
    for optimizer in dict.fromkeys(p.optimizer for p in league.pairs):
        indices = [i for i, p in enumerate(league.pairs) if p.optimizer == optimizer]
        enough = {n: o for n, o in others.items() if 2 * len(o.losses.keys() & set(indices)) >= len(indices)}
        ranked = {n: o for n, o in enough.items() if n not in TWINS}
        shared = [i for i in indices if all(i in o.losses for o in ranked.values())]
        pairs, seeds = [league.pairs[i] for i in shared], list(RIVAL_SEEDS)
        table = {method: of_pairs(pairs, method, seeds).mean(1) for method in ("tuned", "glyder") if pairs}
        table |= {n: np.array([_mean(o.losses[i]) for i in shared]) for n, o in ranked.items() if pairs}
        losses = np.array(list(table.values()))
        ranks = [1 + (losses < line).sum(0) + ((losses == line).sum(0) - 1) / 2 for line in losses]
        means = [float(np.mean(r)) if len(r) else math.nan for r in ranks]
        found[optimizer] = {"cells": len(shared), "ranks": dict(zip(table, means, strict=True))}
    return found
