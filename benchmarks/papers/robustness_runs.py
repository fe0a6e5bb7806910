"""does annealing forgive a coarse grid of learning rates (2503.09411)?

Two tasks, each under five schedules and a fine geometric grid of rates. (a) Logistic regression, one row a step, where
the theory holds: convex, iterates in a ball (of radius 1 or 2 times ||w*||, or none), exact optimum, three lengths.
(b) The benchmark's residual net on CIFAR-10, for 120 updates. Lines, figure and tables go to
``benchmarks/results/papers/robustness.*``; runs whose lines are there are not run again.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import torch

import glyder
from benchmarks.harness.train import updates
from benchmarks.papers import logistic
from benchmarks.papers.common import Trial
from benchmarks.tasks import cifar_wrn
from benchmarks.tasks.common import data

SCHEDULES: dict[str, dict[str, Any]] = {
    "fixed": {"anneal": "constant"},
    "rsqrt": {"anneal": "rsqrt"},
    "linear": {"anneal": "linear"},
    "polynomial 2": {"anneal": "polynomial", "power": 2.0},
    "cosine": {"anneal": "cosine"},
}
"""AnnealedLR's options, by the name used here."""

EIGHTHS = 8
LOGISTIC_RATES = [10.0 ** (k / EIGHTHS) for k in range(-4 * EIGHTHS, 4 * EIGHTHS + 1)]
LOGISTIC_SEEDS = tuple(range(1, 21))
LENGTHS = (1024, 4096, 16384)
BALLS = (1.0, 2.0, None)
"""Radius of the ball that iterates are kept in, in units of ||w*||; None for no ball."""

WRN_RATES = [2.0**k for k in range(-10, 5)]
WRN_SEEDS = (1, 2, 3, 4, 5)
WRN_STEPS = 120
WRN_BATCH = 16


def factors(name: str, steps: int) -> np.ndarray:
    """The factor of each update of a schedule."""
    schedule = glyder.AnnealedLR(torch.optim.SGD([torch.zeros(1)]), steps, **SCHEDULES[name])
    return np.array([schedule.factor(t) for t in range(steps)])


def logistic_trials() -> list[Trial]:
    """A trial is a seed: data and order; it holds all schedules and rates, which share them."""
    return [
        Trial("logistic", seed, {"steps": steps, "ball": ball})
        for steps in LENGTHS
        for ball in BALLS
        for seed in LOGISTIC_SEEDS
    ]


def descend(trial: Trial) -> dict[str, Any]:
    """The gap of the last iterate, by schedule and rate."""
    problem, steps, ball = logistic.made(trial.seed), trial.options["steps"], trial.options["ball"]
    distance = float(np.linalg.norm(problem.optimum))
    rates = np.concatenate([np.outer(LOGISTIC_RATES, factors(name, steps)) for name in SCHEDULES])
    ends = logistic.descended(problem, rates, math.inf if ball is None else ball * distance, trial.seed + 1_000)
    gaps = problem.gap(ends).reshape(len(SCHEDULES), -1)
    return {
        "initial": problem.initial, "distance": distance, "moment": problem.moment, "rates": _short(LOGISTIC_RATES),
        "gaps": {name: _short(g) for name, g in zip(SCHEDULES, gaps, strict=True)},
    }  # fmt: skip


def _short(values: Any) -> list[float]:
    return [float(f"{v:.4g}") for v in values]


def wrn_trials() -> list[Trial]:
    """A trial is one run."""
    return [
        Trial("wrn", seed, {"schedule": name, "rate": rate, "steps": WRN_STEPS, "batch": WRN_BATCH})
        for seed in WRN_SEEDS
        for rate in WRN_RATES
        for name in SCHEDULES
    ]


def train_wrn(trial: Trial) -> dict[str, Any]:
    """Loss and error on the test part before and after; nothing after a loss that was not finite."""
    options = trial.options
    problem = cifar_wrn.build(trial.seed)
    batches = cifar_wrn.augmented(*data.cifar()["train"], options["batch"], trial.seed)
    optimizer = torch.optim.SGD(problem.model.parameters(), lr=options["rate"])
    scheduler = glyder.AnnealedLR(optimizer, options["steps"], **SCHEDULES[options["schedule"]])
    *_, last = updates(dataclasses.replace(problem, batches=batches), optimizer, scheduler, options["steps"])
    final = problem.evaluate(problem.model, "test") if math.isfinite(last) else {}
    return {"initial": untrained(trial.seed), "final": final}


@functools.cache
def untrained(seed: int) -> dict[str, float]:
    """Scores of the net that every run of ``seed`` starts from."""
    problem = cifar_wrn.build(seed)
    return problem.evaluate(problem.model, "test")
