"""The statistics themselves, on arrays: what Student's t and the bootstrap make of ratios."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

RESAMPLES = 2000
STUDENT = (12.7062, 4.3027, 3.1824, 2.7764)
"""The 0.975 quantiles of Student's t at 1 to 4 degrees of freedom."""


def interval(values: np.ndarray) -> list[float]:
    return [float(v) for v in np.quantile(values, (0.025, 0.975))]


def over_seeds(tuned: np.ndarray, other: np.ndarray) -> list[float]:
    """Interval of the ratio of mean losses: Student's t on the logarithms of the ratios by seed, 2 to 5 seeds.

    A bootstrap of so few seeds would hold far less than 95 %.
    """
    n, logs = len(tuned), np.log(other / tuned)
    reach = STUDENT[n - 2] * np.std(logs, ddof=1) / math.sqrt(n)
    return [float(other.mean() / tuned.mean() * math.exp(side * reach)) for side in (-1, 1)]


def clustered(tuned: np.ndarray, other: np.ndarray, clusters: list[str]) -> np.ndarray:
    """Geometric means of the ratios of mean losses over resampled clusters and, within each, seeds; [pairs, seeds] to
    [RESAMPLES].

    The pairs of a cluster share its seeds: a seed means the same order of the data to all of them.
    """
    generator = np.random.default_rng(0)
    members = [np.flatnonzero(np.array(clusters) == name) for name in dict.fromkeys(clusters)]
    drawn = generator.integers(len(members), size=(RESAMPLES, len(members)))
    seeds = generator.integers(tuned.shape[1], size=(*drawn.shape, tuned.shape[1]))
    logs, counts = np.zeros(drawn.shape), np.zeros(drawn.shape)
    for i, rows in enumerate(members):
        at = drawn == i
        ratios = other[rows][:, seeds[at]].mean(2) / tuned[rows][:, seeds[at]].mean(2)  # [pairs of it, its draws]
        logs[at], counts[at] = np.log(ratios).sum(0), len(rows)
    return np.asarray(np.exp(logs.sum(1) / counts.sum(1)))


def wins(ratios: np.ndarray) -> float:
    """Share below 1, a tie being half a win."""
    return float(np.mean((ratios < 1) + 0.5 * (ratios == 1)))


def geometric(ratios: Any) -> float:
    return float(np.exp(np.mean(np.log(ratios))))
