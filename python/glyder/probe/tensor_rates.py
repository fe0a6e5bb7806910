"""A rate for each parameter tensor (layer-wise step sizes, 2305.13664), at a cost that does not grow with their number.

With d_l the displacement of tensor l divided by its rate, A_l = <grad f, d_l> and L_l = d_l^T C_ll d_l, averaged apart
over the measurements, tensor l alone wants the rate R_l = A_l/L_l. One draw of an estimator gives all L_l at once
(``Estimator.parts``). Separate optima of coupled tensors overshoot, so one joint step along sum_l R_l d_l rescales
them: with m(c) = (c.A)/(c^T C c) the best multiple of rates c, the curvature along both measured on the same data, the
loss falls by (c.A) m(c)/2. Of the own rates and the present ones, the better are taken: what ``scope="group"`` does
(``glyder.probe.group_rates``) without the whole Gram matrix. The estimates L_l may be as wrong as they like; the step
is then not the best, and never worse than that of the present rates.

Not from the paper, of which only the summary could be had: the draws, the averages and the joint step are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from glyder import _core
from glyder.probe.group_rates import joint_step


def tensor_rates(
    parts: tuple[Sequence[float], Sequence[float]],
    dd: Sequence[float],
    rates: Sequence[float],
    young: float,
    bend: Callable[[Sequence[float]], float],
    rule_of: Callable[[int], _core.Rule],
) -> list[float] | None:
    """New rates, such that the present ones times their own best multiple would be ``rates``.

    Args:
        parts: slope at x_t and curvature of each tensor's displacement delta_l.
        dd: their squared lengths.
        rates: the present ones.
        young: as the statistic of that name.
        bend: curvature along sum_l k_l delta_l, for factors k.
        rule_of: the rule of the kind ``glyder`` that keeps the averages of a tensor.

    Returns:
        None where the loss does not fall along the present displacement.
    """
    slope, own = [], []
    whole = sum(of / rate**2 for of, rate in zip(dd, rates, strict=True))
    for i, (s, q, rate) in enumerate(zip(*parts, rates, strict=True)):
        rule = rule_of(i)
        wish, action, _ = rule.update(slope=s / rate, behind=0.0, curvature=q / rate**2, dd=whole, lr=1.0, young=young)
        slope.append(rule.state["slope"])
        own.append(wish / rule.config["sigma"] if action == "keep" else rate)
    present = joint_step(slope, list(rates), bend([1.0] * len(own)))
    wanted = joint_step(slope, own, bend([c / rate for c, rate in zip(own, rates, strict=True)]))
    if present is None:
        return None
    if wanted is None or wanted[1] <= present[1]:
        return list(rates)
    return [c * (wanted[0] / present[0]) for c in own]
