"""A rate for each parameter group, from one joint measurement.

Separate optima of coupled blocks overshoot: if two blocks move the outputs the same way, each takes the whole step.
So every group first asks for its own rate, and one joint step along the sum of what they ask for rescales them all.

With s_g the slope of group g's displacement delta_g and Q_gh = delta_g^T C delta_h, the slope of group g at x_t is
s_g + sum_h Q_gh. Group g alone wants the factor c_g on its rate; the joint direction v = sum_g c_g delta_g has slope
sum_g c_g (s_g + sum_h Q_gh) and curvature c^T Q c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from glyder import _core
from glyder.direction import Direction


@dataclass(frozen=True)
class Gram:
    """Slopes at x_{t+1}, the Gram matrix of the groups' displacements in C, and their squared lengths."""

    slope: list[float]
    q: list[list[float]]
    dd: list[float]


def gram(direction: Direction, blocks: Sequence[Sequence[int]], measure: Callable[[Sequence[int]], tuple]) -> Gram:
    """Measure the blocks one by one and in pairs: q(g + h) = Q_gg + 2 Q_gh + Q_hh.

    ``measure(indices)`` gives (slope, curvature) of the direction restricted to those parameters; it is called
    G(G + 1)/2 times.
    """
    single = [measure(block) for block in blocks]
    q = [[0.0] * len(blocks) for _ in blocks]
    for g, block in enumerate(blocks):
        q[g][g] = single[g][1]
        for h in range(g):
            both = measure(sorted([*block, *blocks[h]]))[1]
            q[g][h] = q[h][g] = (both - q[g][g] - q[h][h]) / 2
    return Gram([s for s, _ in single], q, [direction.only(block).dd for block in blocks])


def joint_rates(
    found: Gram, rates: Sequence[float], young: float, alone: Sequence[_core.Rule], joint: _core.Rule
) -> list[float] | None:
    """New rates of the groups; None where the joint step cannot be told yet.

    ``alone`` and ``joint`` are rules of the kind ``glyder``; sigma is the joint rule's.
    """
    groups = range(len(rates))
    start = [found.slope[g] + sum(found.q[g]) for g in groups]
    factor = [1.0] * len(rates)
    for g in groups:
        own = found.q[g][g]
        rate, action, _ = alone[g].update(slope=start[g] - own, curvature=own, dd=found.dd[g], lr=rates[g], young=young)
        if action == "keep":
            factor[g] = rate / rates[g]
    curvature = sum(factor[g] * factor[h] * found.q[g][h] for g in groups for h in groups)
    slope = sum(factor[g] * start[g] for g in groups) - curvature
    dd = sum(factor[g] ** 2 * found.dd[g] for g in groups)
    scale, action, _ = joint.update(slope=slope, curvature=curvature, dd=dd, lr=1.0, young=1.0)
    return [scale * factor[g] * rates[g] for g in groups] if action == "keep" else None
