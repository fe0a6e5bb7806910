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


def between(z: float, h: float | None, share: float) -> float:
    """Geometric mean, in decades."""
    return z if h is None else 10 ** ((1 - share) * math.log10(z) + share * math.log10(h))


class Peak:
    def __init__(self, **config: float) -> None:
        self.c = _core.Rule("peak").config | config
        self.up = max(self.c["up"], self.c["up_total"] / self.c["updates"])
        self.down = max(self.c["down"], self.up)
        self.pace = max(self.c["pace"], self.c["pace_total"] / self.c["updates"])
        self.seen: list[Stats] = []
        self.counted: list[Stats] = []
        self.peak = 0.0

    def update(self, **s: float) -> Verdict:
        if self.peak:
            return self.peak, "keep", "kept"
        self.seen.append(s)
        h = walk(s["relative"], s["energy"])
        if len(self.seen) == 1 and h is not None:
            return h / 10 ** self.c["below"], "keep", "rising"
        near = h is not None and s["lr"] >= h / 10 ** self.c["far"]
        if not self.counted and not near and len(self.seen) < self.c["longest"]:
            return self.moved(s, 2 * self.pace, self.c["down"], 2 * self.c["up"]), "keep", "rising"
        self.counted.append(s)
        if len(self.counted) < self.c["updates"]:
            return self.moved(s, self.pace, self.down, self.up), "keep", "rising"
        self.peak = self.c["sigma"] * self.c["gain"] * self.found(s["energy"])
        return self.peak, "keep", "found"

    def moved(self, s: Stats, pace: float, down: float, up: float) -> float:
        return s["lr"] * 10 ** min(max(pace * s["cosine"], -down), up)

    def found(self, energy: float) -> float:
        half = [s for i, s in enumerate(self.counted, start=1) if i > self.c["updates"] / 2]
        z = statistics.geometric_mean(self.moved(s, self.pace, self.down, self.up) for s in half)
        return between(z, walk(statistics.fmean(s["relative"] for s in half), energy), self.c["share"])


def draw(rng: random.Random) -> Stats:
    """h is about 0.1; two in three rates lie more than a decade below."""
    return {
        "cosine": rng.uniform(-1, 1),
        "relative": 0.0 if rng.random() < 0.05 else positive(rng, 0.5),
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
]

CASES = [
    Case(
        "peak",
        Peak,
        [
            {},
            {"updates": 1.0},
            {"updates": 7.5, "sigma": 3.0, "longest": 2.0, "share": 1.0},
            {"updates": 30.0, "below": 0.1, "far": 2.5, "gain": 0.5, "share": 0.0},
            {"updates": 500.0, "pace": 0.02, "up": 0.01, "down": 0.005},
            {"updates": 10.0, "pace_total": 1.0, "up_total": 0.1, "longest": 1.0},
        ],
        draw,
        {"rising", "found", "kept"},
        LAWS,
        exact=False,
    ),
    Case(
        "peak",
        Peak,
        [{"longest": 20.0}, {"updates": 4.0, "longest": 1.0}, {"updates": 20.0, "longest": 60.0, "up": 0.03}],
        draw_without_length,
        {"rising", "found", "kept"},
        LAWS[:1] + LAWS[3:],
        exact=False,
    ),
    Case("peak", Peak, [{}], draw_without_length, {"rising"}, [], exact=False),
]
