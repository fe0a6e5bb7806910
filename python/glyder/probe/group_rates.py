"""A rate for each parameter group, from one joint measurement.

Separate optima of coupled blocks overshoot: if two blocks move the outputs the same way, each takes the whole step.
So every group first asks for its own rate, and one joint step along the sum of what they ask for rescales them all.

With d_g the displacement of group g divided by its rate, A_g = <grad f, d_g> and L_gh = d_g^T C d_h, averaged apart,
group g alone wants the rate R_g = A_g/L_gg. Along sum_g c_g d_g the loss falls most for the multiple
(c.A)/(c^T L c) of c, namely by (c.A)^2/(2 c^T L c). Of the own rates, c = R, and the present ones that c is taken for
which the loss falls more: strongly coupled blocks may be better off with the ratios that they have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from glyder import _core
from glyder.optimizers.displacement import Displacement, by_group
from glyder.probe.update_direction import Direction

Measure = Callable[[Sequence[int]], tuple[float, float]]
"""(slope, curvature) of a direction restricted to some of its parameters."""


@dataclass(frozen=True)
class Gram:
    """Slopes, the Gram matrix of the groups' displacements in C, and their squared lengths.

    ``behind``: 1 where the slopes are those at x_{t+1}, 0 at x_t.
    """

    slope: list[float]
    q: list[list[float]]
    dd: list[float]
    behind: float


def group_rates(
    direction: Direction, made: Displacement, measure: Measure, sigma: float, rule_of: Callable[[str], _core.Rule]
) -> dict[tuple[int, int], float]:
    """New rates by optimizer and group; none where the loss falls along none of the directions.

    ``rule_of(pair)`` is the rule of the kind ``glyder`` that keeps the averages of a pair of groups.
    """
    blocks = by_group(made.places)
    keys = list(blocks)
    rates = [made.lr * made.ratios[o][g] for o, g in keys]
    names = [f"{o}.{g}" for o, g in keys]
    found = gram(direction, list(blocks.values()), measure)
    new = joint_rates(found, rates, made.young, sigma, lambda g, h: rule_of(f"{names[g]} {names[h]}"))
    return {} if new is None else dict(zip(keys, new, strict=True))


def set_ratios(ratios: list[list[float]], made: Displacement, rates: dict[tuple[int, int], float]) -> float:
    """Make the ratios those of the new rates, and return the rate that they refer to, that of the first group."""
    (o, g), reference = next(iter(rates.items()))
    old = made.ratios[o][g]
    for o, of_optimizer in enumerate(ratios):
        for g, ratio in enumerate(of_optimizer):  # groups without a gradient keep their ratio to the first that has one
            of_optimizer[g] = rates[o, g] / reference if (o, g) in rates else ratio / old
    return reference


def gram(
    direction: Direction,
    blocks: Sequence[Sequence[int]],
    measure: Measure,
) -> Gram:
    """Measure the blocks one by one and in pairs: q(g + h) = Q_gg + 2 Q_gh + Q_hh; G(G + 1)/2 measurements."""
    single = [measure(block) for block in blocks]
    q = [[0.0] * len(blocks) for _ in blocks]
    for g, block in enumerate(blocks):
        q[g][g] = single[g][1]
        for h in range(g):
            both = measure(sorted([*block, *blocks[h]]))[1]
            q[g][h] = q[h][g] = (both - q[g][g] - q[h][h]) / 2
    dd = [direction.only(block).dd for block in blocks]
    return Gram([s for s, _ in single], q, dd, direction.behind)


def joint_rates(
    found: Gram, rates: Sequence[float], young: float, sigma: float, rule_of: Callable[[int, int], _core.Rule]
) -> list[float] | None:
    """New rates of the groups; None where the loss falls along none of the directions.

    ``rule_of(g, h)``, g >= h, is a rule of the kind ``glyder`` that keeps the averages of that pair of groups.
    """
    slope, curvature = _averages(found, rates, young, rule_of)
    groups = range(len(rates))
    own = [slope[g] / curvature[g][g] if slope[g] > 0 and curvature[g][g] > 0 else rates[g] for g in groups]
    best, most = None, 0.0
    for c in (own, list(rates)):
        bend = sum(c[g] * c[h] * curvature[g][h] for g in groups for h in groups)
        step = joint_step(slope, c, bend)
        if step is not None and step[1] > most:
            best, most = [sigma * step[0] * rate for rate in c], step[1]
    return best


def joint_step(slope: Sequence[float], c: Sequence[float], bend: float) -> tuple[float, float] | None:
    """The best multiple of the rates c, with the curvature ``bend`` along them, and twice what the loss falls by; None
    where it does not fall."""
    a = sum(rate * s for rate, s in zip(c, slope, strict=True))
    step = _core.Rule("glyder", sigma=1.0, memory=1.0)
    multiple, action, _ = step.update(slope=a, behind=0.0, curvature=bend, dd=1.0, lr=1.0, young=1.0)
    return (multiple, multiple * a) if action == "keep" else None


def _averages(
    found: Gram, rates: Sequence[float], young: float, rule_of: Callable[[int, int], _core.Rule]
) -> tuple[list[float], list[list[float]]]:
    """A and L, the measurements so far divided by ||d||^2 each, so that all of them count alike."""
    groups = range(len(rates))
    dd = sum(found.dd[g] / rates[g] ** 2 for g in groups)
    slope, curvature = [0.0] * len(rates), [[0.0] * len(rates) for _ in groups]
    for g in groups:
        for h in range(g + 1):
            bend = found.q[g][h] / (rates[g] * rates[h])
            start = (found.slope[g] + found.behind * sum(found.q[g])) / rates[g] if g == h else 0.0
            rule = rule_of(g, h)
            rule.update(slope=start, behind=0.0, curvature=bend, dd=dd, lr=1.0, young=young)
            curvature[g][h] = curvature[h][g] = rule.state["curvature"]
            if g == h:
                slope[g] = rule.state["slope"]
    return slope, curvature
