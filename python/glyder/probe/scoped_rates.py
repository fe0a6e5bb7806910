"""What ``scope`` makes of a measurement: a rate for each group, or for each tensor."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from glyder import _core
from glyder.optimizers.displacement import Displacement, by_group
from glyder.probe.estimators import Measured, Sample
from glyder.probe.group_rates import group_rates
from glyder.probe.measurement import Meter
from glyder.probe.samples import only
from glyder.probe.tensor_rates import tensor_rates
from glyder.probe.update_direction import Direction

RatesByGroup = dict[tuple[int, int], float]
"""By optimizer and group."""


@dataclass(eq=False)
class Measurement:
    """All that rates of their own are made of.

    Attributes:
        made, direction: the displacement that was measured, and the model along it.
        samples, draw, meter: on what, with which randomness and by what.
        measured: along the whole of it.
        rule_of: the rule of the kind ``glyder`` that keeps the averages of a pair of groups, by name of the pair.
    """

    made: Displacement
    direction: Direction
    samples: Sequence[Sample]
    draw: int
    meter: Meter
    measured: Measured
    rule_of: Callable[[str], _core.Rule]


def by_parameter_group(m: Measurement, sigma: float) -> RatesByGroup:
    """Rates of the groups, times ``sigma``."""

    def measure(indices: Sequence[int]) -> tuple[float, float]:
        found = m.meter.averaged(m.direction.only(indices), only(m.samples, indices), m.draw)
        return found.slope, found.curvature

    return group_rates(m.direction, m.made, measure, sigma, m.rule_of)


def by_tensor(m: Measurement, whole: float) -> RatesByGroup:
    """Rates of groups of one tensor each; ``whole``: the rule's rate for all of them."""
    blocks = by_group(m.made.places)
    keys, indices = list(blocks), list(blocks.values())
    rates = [m.made.lr * m.made.ratios[o][g] for o, g in keys]

    def bend(k: Sequence[float]) -> float:
        if all(of == 1 for of in k):
            return m.measured.curvature
        factors = [0.0] * len(m.direction.deltas)
        for of, block in zip(k, indices, strict=True):
            for i in block:
                factors[i] = of
        return m.meter.averaged(dataclasses.replace(m.direction, factors=factors), m.samples, m.draw).curvature

    parts = m.meter.parts(m.direction, m.samples, indices, m.draw, m.measured.source)
    dd = [m.direction.only(block).dd for block in indices]
    names = ["{0}.{1} {0}.{1}".format(*key) for key in keys]
    new = tensor_rates(parts, dd, rates, m.made.young, bend, lambda i: m.rule_of(names[i]))
    return {} if new is None else {k: rate * (whole / m.made.lr) for k, rate in zip(keys, new, strict=True)}
