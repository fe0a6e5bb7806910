"""The factors of a schedule over a whole run."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

from glyder import _core

ENDLESS = 10
"""Length of a run without a horizon, in warm-ups, for what has to be known of its length."""

POINTS = 4096
"""Most updates that a sum over a run looks at; of longer runs it takes every so manieth."""


def energy(name: str, horizon: int | None, warmup: int, parameters: Mapping[str, float]) -> float:
    """Sum of the squared factors of a schedule over the whole run."""
    return _energy(name, horizon, warmup, tuple(sorted(parameters.items())))


@functools.lru_cache(maxsize=64)  # asked for at every measurement, and thousands of factors long
def _energy(name: str, horizon: int | None, warmup: int, items: tuple[tuple[str, float], ...]) -> float:
    parameters = dict(items)
    updates = ENDLESS * max(warmup, 1) if horizon is None else horizon
    stride = -(-updates // POINTS)
    points = range(stride // 2, updates, stride) if updates > stride // 2 else range(1)
    factors = (_core.schedule(name, t, total=horizon, warmup=warmup, **parameters) for t in points)
    return math.fsum(f * f for f in factors) * updates / len(points)
