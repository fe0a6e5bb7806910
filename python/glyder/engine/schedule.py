"""A schedule over a run, with linear warm-up in front."""

from __future__ import annotations

import functools
import math
from typing import Any

from glyder import _checks as checks
from glyder import _core

ENDLESS = 10
"""Length of a run without an end, in warm-ups, for what has to be known of its length."""

POINTS = 4096
"""Most updates that a sum over a run looks at; of longer runs it takes every so manieth."""

Given = str | tuple[str, dict[str, float]] | None
"""How a schedule is given: by name, with its parameters or without."""


class Schedule:
    """A factor in [0, 1] for each update of a run.

    Args:
        call: the class to name in errors.
        given: name, or name and parameters; None: constant. ``"auto"``: linear, and ``rsqrt`` without an end.
        total_steps: updates of the run; None where it has no end.
        warmup: updates of the warm-up.

    Attributes:
        name, parameters: of the schedule.

    Raises:
        TypeError, ValueError: in call form.
    """

    def __init__(self, call: str, given: Given, total_steps: int | None, warmup: int) -> None:
        self.name, self.parameters = checks.schedule(call, "anneal", given, total_steps, warmup)
        self.total_steps, self.warmup = total_steps, warmup

    def factor(self, update: int, warmup: int | None = None) -> float:
        """The factor of an update (0-based), behind another warm-up where one is given."""
        warmup = self.warmup if warmup is None else warmup
        return _core.schedule(self.name, update, total=self.total_steps, warmup=warmup, **self.parameters)

    def sum_of_squares(self) -> float:
        """Sum of the squared factors over the whole run."""
        return sum_of_squares(self.name, self.total_steps, self.warmup, tuple(sorted(self.parameters.items())))

    @property
    def config(self) -> dict[str, Any]:
        """Name, parameters and warm-up."""
        return {"anneal": self.name, **self.parameters, "warmup": self.warmup}


@functools.lru_cache(maxsize=64)  # asked for at every measurement, and thousands of factors long
def sum_of_squares(
    name: str, total_steps: int | None, warmup: int, parameters: tuple[tuple[str, float], ...] = ()
) -> float:
    """Sum of a schedule's squared factors over the whole run."""
    updates = ENDLESS * max(warmup, 1) if total_steps is None else total_steps
    stride = -(-updates // POINTS)
    points = range(stride // 2, updates, stride) if updates > stride // 2 else range(1)
    factors = (_core.schedule(name, t, total=total_steps, warmup=warmup, **dict(parameters)) for t in points)
    return math.fsum(f * f for f in factors) * updates / len(points)
