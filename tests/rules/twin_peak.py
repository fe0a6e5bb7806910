"""The search for a peak by cosines: stochastic approximation in decades, the history read anew at every update."""

from __future__ import annotations

import math
import random
import statistics

from glyder import _core

from .case import Case, Law, Stats, positive
from .reference import Verdict


def walk(relative: float, energy: float) -> float | None:
    """h: a run whose steps are of lengths lr*sqrt(relative)*factor, at right angles, gets a distance of 1 away."""
    return 1 / math.sqrt(relative * energy) if relative else None


def between(z: float, h: float | None, share: float, apart: float) -> float:
    """Geometric mean, in decades; h counts as no more than ``apart`` decades away from z."""
    return z if h is None else z * 10 ** (share * min(max(math.log10(h / z), -apart), apart))


class Peak:
    def __init__(self, **config: float) -> None:
        self.c = _core.Rule("peak").config | config
        self.pace = max(self.c["pace"], min(self.c["fastest"], self.c["pace_total"] / self.c["updates"]))
        self.seen: list[Stats] = []
        self.counted: list[float] = []  # steps in decades, and with them the statistics that they were made at
        self.at: list[Stats] = []
        self.peak = 0.0

    def update(self, **s: float) -> Verdict:
        if self.peak:
            return self.peak, "keep", "kept"
        self.seen.append(s)
        h = walk(s["relative"], s["energy"])
        if len(self.seen) == 1 and h is not None:
            return h / 10 ** self.c["below"], "keep", "rising"
        step = self.pace * self.certainty()
        if math.sqrt(s["growth"]) > self.c["grown"]:
            step = min(step, 0.0)
        near = h is not None and s["lr"] >= h / 10 ** self.c["far"]
        if not self.counted and not near and len(self.seen) < self.c["longest"]:
            return s["lr"] * 10 ** (2 * step), "keep", "rising"
        self.counted.append(step)
        self.at.append(s)
        if len(self.counted) < self.c["updates"]:
            return s["lr"] * 10**step, "keep", "rising"
        self.peak = self.c["sigma"] * self.c["gain"] * self.found(s["energy"])
        return self.peak, "keep", "found"

    def certainty(self) -> float:
        """Mean cosine over the root of the mean square: 1 where all agree, whatever their size."""
        cosines = [s["cosine"] for s in self.seen]
        if walk(self.seen[0]["relative"], self.seen[0]["energy"]) is not None:
            cosines[0] = 0.0  # that rate was set, whatever the cosine
        mean, square = self.average(cosines, "quick"), self.average([c * c for c in cosines], "slow")
        return min(max(mean / math.sqrt(square), -1.0), 1.0) if square else 0.0

    def average(self, values: list[float], memory: str) -> float:
        weights = [self.c[memory] ** age for age in range(len(values))][::-1]
        return math.fsum(w * v for w, v in zip(weights, values, strict=True)) / math.fsum(weights)

    def found(self, energy: float) -> float:
        half = [k for k in range(len(self.counted)) if k + 1 > self.c["updates"] / 2]
        z = statistics.geometric_mean(self.at[k]["lr"] * 10 ** self.counted[k] for k in half)
        h = walk(statistics.fmean(self.at[k]["relative"] for k in half), energy)
        return between(z, h, self.c["share"], self.c["apart"])


def draw(rng: random.Random) -> Stats:
    """h is about 0.1; two in three rates lie more than a decade below. Cosines are small enough to be cosines under
    every c of the scaling laws."""
    return {
        "cosine": 0.0 if rng.random() < 0.1 else rng.uniform(-1e-7, 1e-7),
        "relative": 0.0 if rng.random() < 0.05 else positive(rng, 0.5),
        "growth": rng.choice((0.0, rng.uniform(0.5, 3.9), rng.uniform(0.5, 3.9), rng.uniform(4.1, 100.0))),
        "lr": 10 ** rng.uniform(-4, -1),
        "energy": 100.0,
    }


def draw_without_length(rng: random.Random) -> Stats:
    """Parameters that start at zero."""
    return draw(rng) | {"relative": 0.0}


LAWS = [
    Law("parameters times c, steps that know no gradient", {"relative": -2, "lr": 1}, 1),
    Law("gradient times c, steps as long as it", {"relative": 2, "lr": -1}, -1),
    Law("shorter steps in a longer run", {"relative": -2, "energy": 2}, 0),
    Law("rates times c in a longer run", {"lr": 1, "energy": -2}, 1),
    Law("cosines of another size", {"cosine": 1}, 0),
]

CASES = [
    Case(
        "peak",
        Peak,
        [
            {},
            {"updates": 1.0},
            {"updates": 7.5, "sigma": 3.0, "longest": 2.0, "share": 1.0, "apart": math.inf},
            {"updates": 30.0, "below": 0.1, "far": 2.5, "gain": 0.5, "share": 0.0, "apart": 0.0},
            {"updates": 12.0, "grown": 0.0},
            {"updates": 500.0, "grown": 6.0, "pace": 0.02, "quick": 0.0, "slow": 0.0},
            {"updates": 10.0, "pace_total": 0.1, "quick": 0.95, "slow": 0.5, "longest": 1.0},
        ],
        draw,
        {"rising", "found", "kept"},
        LAWS,
        exact=False,
    ),
    Case(
        "peak",
        Peak,
        [{"longest": 20.0}, {"updates": 4.0, "longest": 1.0}, {"updates": 20.0, "longest": 60.0, "pace": 0.3}],
        draw_without_length,
        {"rising", "found", "kept"},
        LAWS,
        exact=False,
    ),
    Case("peak", Peak, [{}], draw_without_length, {"rising"}, [], exact=False),
]
