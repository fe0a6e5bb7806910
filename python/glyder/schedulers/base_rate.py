"""The rate before warm-up and annealing that slopes and curvatures along the updates lead to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from glyder import _core
from glyder.engine.stages import Stages
from glyder.probe.estimators import Sample
from glyder.probe.group_rates import set_ratios
from glyder.probe.scoped_rates import Measurement, by_parameter_group, by_tensor
from glyder.probe.update_direction import Direction
from glyder.vectors.inner_products import inner_products

VISIBLE, VISIBLE_HALF = 1e-3, 1e-2
"""Relative displacement that the first updates aim at: what the parameters' dtype can carry with some digits."""

FARTHEST = 0.1
"""Relative displacement up to which a rate rises where the loss does not bend."""


class BaseRate:
    """The rules that a measurement goes through, and what they came to.

    Args:
        stages: whose bounds and growth limit hold.
        scale: the factor sigma on the rate that is found.
        memory: measurements that averages run over.
        half: some parameters are in half precision.
        once: one scale is found for the whole run; else the locally optimal rate is followed.

    Attributes:
        value: of the first group; None until it is found.
    """

    def __init__(self, stages: Stages, scale: float, memory: float, *, half: bool, once: bool) -> None:
        self._stages, self._once = stages, once
        self.config = {"sigma": scale, "memory": memory}
        self._rules = {
            "local_optimum": _core.Rule("local_optimum", sigma=scale),
            "glyder": _core.Rule("glyder", **self.config),
            "start": _core.Rule("start", visible=VISIBLE_HALF if half else VISIBLE),
        }
        self._local = _core.Rule("glyder", sigma=1.0, memory=1.0)
        self.value: float | None = None
        self._start: float | None = None  # ||x_0||^2

    # ---- before there is one

    def note_start(self, params: Sequence[Tensor]) -> None:
        """Where the parameters are at first, if nothing has told so far."""
        if self._start is None:
            self._start = inner_products([params], [(0, 0)])[0]

    def first(self, params: Sequence[Tensor], gg: float) -> float:
        """A rate for the first update, so small that it does no harm; ``gg``: ||g||^2, 0 where it is not known yet."""
        self._start = xx = inner_products([params], [(0, 0)])[0]
        n = float(sum(p.numel() for p in params))
        rate, action, reason = self._rules["start"].update(xx=xx, gg=gg, n=n, dd=0.0, previous=0.0)
        if action != "keep":
            raise ValueError(f"no first learning rate can be had: {reason} (||x||^2 = {xx}, ||g||^2 = {gg}, n = {n})")
        return rate

    def made_visible(self, direction: Direction, gg: float, previous: float) -> tuple[float, str]:
        """A rate at which the next displacement is long enough to be measured, and the reason."""
        n = float(sum(p.numel() for p in direction.params))
        seen = {"xx": direction.xx, "dd": direction.dd, "gg": gg, "n": n, "previous": previous}
        rate, _, reason = self._rules["start"].update(**seen)
        return rate, reason

    def farther(self, rate: float, direction: Direction) -> float:
        """The rate after one at which the loss fell and did not bend: its least value lies farther along the step.

        The growth limit holds, and a step gets no longer by this than a tenth of the parameters.
        """
        xx = self._start or float(sum(p.numel() for p in direction.params))  # as in start.c
        if self._stages.backed_off < 1:
            return rate
        return self._stages.grown(rate, rate * max(1.0, FARTHEST * math.sqrt(xx / direction.dd)))

    # ---- what is measured

    def learn(
        self, statistics: dict[str, float], reach: float, samples: Sequence[Sample], squares: float
    ) -> tuple[float | None, str]:
        """What the rule makes of a measurement: a rate, if it has one, and the reason.

        Args:
            statistics: of the measurement.
            reach: squared length that all steps of one gradient come to, at a reference rate of 1.
            samples: that were measured on.
            squares: sum of the squared schedule factors over the run.
        """
        rate, action, reason = self._rules["glyder"].update(**statistics)
        if self._once:
            start = self._start or 0.0
            rate, action, reason = self._rules["local_optimum"].update(
                energy=squares, reach=reach, start=start, **statistics
            )
        return rate if action == "keep" else None, reason

    def local(self, statistics: dict[str, float]) -> float:
        """The locally optimal rate by this measurement alone, or NaN."""
        rate, usable, _ = self._local.update(**statistics)
        return rate if usable == "keep" else math.nan

    def adopt(self, found: Measurement, whole: float, scope: str, ratios: list[list[float]]) -> None:
        """Take rates of their own for the groups (a tensor each with ``scope="tensor"``), all times what ``whole``, the
        rule's rate for the whole displacement, has over its locally optimal rate."""
        seen = self._rules["glyder"].state
        if not (seen["slope"] > 0 and seen["curvature"] > 0):  # nothing to tell the groups apart by
            if self.value is None:
                self.value = self._stages.within_bounds(whole)
            return
        if scope == "group":
            rates = by_parameter_group(found, whole * seen["curvature"] / seen["slope"])
        else:
            rates = by_tensor(found, whole)
        bounded = {place: self._stages.within_bounds(rate) for place, rate in rates.items()}
        if bounded and all(bounded.values()):  # else out of the range of numbers
            self.value = set_ratios(ratios, found.made, bounded)

    def rule_of(self, groups: str) -> _core.Rule:
        """The rule that keeps the averages of a pair of groups, by name of the pair."""
        return self._rules.setdefault(f"groups {groups}", _core.Rule("glyder", **self.config))

    # ---- checkpoints

    def state(self) -> dict[str, Any]:
        """Plain values."""
        rules = {name: rule.state for name, rule in self._rules.items()}
        return {"base_lr": self.value, "start": self._start, "rules": rules}

    def load(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self.value, self._start = state["base_lr"], state["start"]
        for name, of in state["rules"].items():
            (self._rules[name] if name in self._rules else self.rule_of(name.removeprefix("groups "))).load(of)
