"""What ``scope`` makes of a measurement: a rate for each group, or for each tensor."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from glyder import _core
from glyder.optimizers.displacement import Displacement, by_group
from glyder.probe.estimators import Measured, Sample
from glyder.probe.group_rates import group_rates, set_ratios
from glyder.probe.samples import only
from glyder.probe.tensor_rates import tensor_rates
from glyder.probe.update_direction import Direction

if TYPE_CHECKING:
    from glyder.schedulers.local_optimum import LocalOptimumLR

Rates = dict[tuple[int, int], float]
"""By optimizer and group."""


def adopt(
    scheduler: LocalOptimumLR,
    made: Displacement,
    direction: Direction,
    samples: Sequence[Sample],
    measured: Measured,
    whole: float | None,
) -> None:
    """Take rates of their own for the groups (a tensor each with ``scope="tensor"``) from a joint measurement, all
    times what ``whole``, the rule's rate for the whole displacement, has over its locally optimal rate."""
    seen = scheduler._rules["glyder"].state
    if whole is None:
        return
    if not (seen["slope"] > 0 and seen["curvature"] > 0):  # nothing to tell the groups apart by
        if scheduler._base is None:
            scheduler._base = scheduler._rules["bounds"].update(rate=whole)[0]
        return
    if scheduler.scope == "group":
        rates = _by_group(scheduler, made, direction, samples, whole * seen["curvature"] / seen["slope"])
    else:
        rates = _by_tensor(scheduler, made, direction, samples, measured, whole)
    bounded = {place: scheduler._rules["bounds"].update(rate=rate)[0] for place, rate in rates.items()}
    if bounded and all(bounded.values()):  # else out of the range of numbers
        scheduler._base = set_ratios(scheduler._ratios, made, bounded)


def _rule(scheduler: LocalOptimumLR, pair: str) -> _core.Rule:
    """The rule that keeps the averages of a pair of groups."""
    return scheduler._rules.setdefault(f"groups {pair}", _core.Rule("glyder", **scheduler._rule_config))


def _by_group(
    scheduler: LocalOptimumLR, made: Displacement, direction: Direction, samples: Sequence[Sample], sigma: float
) -> Rates:
    def measure(indices: Sequence[int]) -> tuple[float, float]:
        found = scheduler._meter.averaged(direction.only(indices), only(samples, indices), scheduler._draw)
        return found.slope, found.curvature

    return group_rates(direction, made, measure, sigma, lambda pair: _rule(scheduler, pair))


def _by_tensor(
    scheduler: LocalOptimumLR,
    made: Displacement,
    direction: Direction,
    samples: Sequence[Sample],
    measured: Measured,
    whole: float,
) -> Rates:
    blocks = by_group(made.places)
    keys, indices = list(blocks), list(blocks.values())
    rates = [made.lr * made.ratios[o][g] for o, g in keys]

    def bend(k: Sequence[float]) -> float:
        if all(of == 1 for of in k):
            return measured.curvature
        factors = [0.0] * len(direction.deltas)
        for of, block in zip(k, indices, strict=True):
            for i in block:
                factors[i] = of
        turned = dataclasses.replace(direction, factors=factors)
        return scheduler._meter.averaged(turned, samples, scheduler._draw).curvature

    parts = scheduler._meter.parts(direction, samples, indices, scheduler._draw, measured.source)
    dd = [direction.only(block).dd for block in indices]
    new = tensor_rates(
        parts, dd, rates, made.young, bend, lambda i: _rule(scheduler, "{0}.{1} {0}.{1}".format(*keys[i]))
    )
    return {} if new is None else {k: rate * (whole / made.lr) for k, rate in zip(keys, new, strict=True)}
