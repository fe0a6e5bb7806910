"""The search for the edge of stability by the length of gradients: every mean is formed anew from the history."""

from __future__ import annotations

import math
import random

from glyder import _core

from .case import Case, Law, Stats, positive
from .reference import Verdict, skip
from .twin_peak import between, walk


class Edge:
    def __init__(self, **config: float) -> None:
        self.c = _core.Rule("edge").config | config
        self.pace = max(self.c["pace"], min(self.c["fastest"], self.c["pace_total"] / self.c["longest"]))
        self.keep = max(0.0, 1 - self.pace / self.c["memory"])
        self.seen: list[Stats] = []
        self.begun = 1
        self.peak = 0.0
        self.zeros = 0
        self.walked: float | None = None

    def update(self, **s: float) -> Verdict:
        if s["gg"] == 0 and (self.peak or not self.seen):
            return skip("no_gradient")
        if self.peak:
            return self.peak, "keep", "kept"
        if s["gg"] == 0:
            self.zeros += 1
            if len(self.seen) + self.zeros <= self.c["longest"]:
                return s["lr"], "keep", "no_gradient"
            return self.end(s["lr"], "no_edge")
        self.seen.append(s)
        h = walk(s["relative"], s["energy"])
        if len(self.seen) == 1:
            self.walked = h
            return s["lr"] if h is None else h / 10 ** self.c["below"], "keep", "rising"
        lengths = [self.mean([0.5 * math.log10(s["gg"]) for s in part]) for part in self.parts()]
        first, at = 0.5 * math.log10(self.seen[0]["gg"]), 0
        least = min(first, lengths[0])
        for i, length in enumerate(lengths):
            if length < least:
                least, at = length, i
        sudden = 0.5 * math.log10(s["gg"]) > least + self.c["sudden"]
        over = lengths[-1] > least + self.c["grown"] or sudden
        if over and len(self.seen) <= 1 + self.c["earliest"] and self.begun < self.c["tries"]:
            self.begun += 1
            self.seen = self.seen[:1]
            return s["lr"] / 10 ** self.c["lower"], "keep", "restarted"
        h = self.walked = walk(self.mean([s["relative"] for s in self.parts()[at]]), s["energy"])
        far = h is not None and s["lr"] > h * 10 ** self.c["above"]
        if not over and not far and len(self.seen) + self.zeros <= self.c["longest"]:
            return s["lr"] * 10**self.pace, "keep", "rising"
        return self.end(s["lr"], "found" if over else "no_edge")

    def end(self, lr: float, reason: str) -> Verdict:
        edge = between(lr, self.walked and min(self.walked, lr), self.c["share"], self.c["apart"])
        self.peak = self.c["sigma"] * self.c["gain"] * edge
        return self.peak, "keep", reason

    def parts(self) -> list[list[Stats]]:
        """What there was to see at each update so far, from the `earliest` on; the first set the rate, and no more."""
        count = len(self.seen)
        return [self.seen[1:t] for t in range(min(int(self.c["earliest"]), count), count + 1)]

    def mean(self, values: list[float]) -> float:
        """With weights keep^age."""
        weights = [self.keep**age for age in range(len(values))][::-1]
        return math.fsum(w * v for w, v in zip(weights, values, strict=True)) / math.fsum(weights)


def draw(rng: random.Random) -> Stats:
    return {
        "gg": 0.0 if rng.random() < 0.05 else positive(rng, 1.5),
        "relative": 0.0 if rng.random() < 0.3 else positive(rng),
        "lr": positive(rng),
        "energy": 100.0,
    }


def draw_without_length(rng: random.Random) -> Stats:
    """Parameters that start at zero."""
    return draw(rng) | {"relative": 0.0}


LAWS = [
    Law("loss times c", {"gg": 2, "relative": 2, "lr": -1}, -1),
    Law("parameters times c", {"gg": -2, "relative": -4, "lr": 2}, 2),
    Law("momentum or a ratio of c", {"relative": 2, "lr": -1}, -1),
    Law("a longer run", {"lr": 1, "energy": -2}, 1),
]

CASES = [
    Case(
        "edge",
        Edge,
        [
            {},
            {"grown": 0.2, "sigma": 3.0, "above": 99.0},
            {"grown": 3.0, "sudden": 3.0, "share": 0.0, "below": 0.1, "above": 99.0},
            {"grown": 3.0, "sudden": 1.1, "above": 0.5},
            {"longest": 500.0, "memory": 2.0, "grown": 0.3, "sudden": 1.4, "share": 1.0, "apart": 0.1, "above": 99.0},
            {"longest": 12.5, "earliest": 5.5, "memory": 0.1, "grown": 1.2, "sudden": 5.0, "gain": 2.0},
            {"longest": math.inf, "pace": 0.01, "earliest": 40.0, "grown": 0.15, "above": 99.0},
            {"longest": 6.0, "earliest": 10.0, "pace_total": 0.1},
            {"longest": 1.0},
            {"grown": 0.01, "sudden": 0.02, "lower": 0.4, "tries": 2.0},
            {"grown": 0.01, "earliest": 20.0, "tries": 7.0},
        ],
        draw,
        {"rising", "restarted", "found", "no_edge", "kept", "no_gradient"},
        LAWS,
        exact=False,
    ),
    Case(
        "edge",
        Edge,
        [{"grown": 0.2}, {"grown": 3.0, "sudden": 3.0}, {"grown": 0.01, "earliest": 9.0}],
        draw_without_length,
        {"rising", "restarted", "found", "no_edge", "kept", "no_gradient"},
        LAWS,
        exact=False,
    ),
]
