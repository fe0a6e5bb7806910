"""What happens to a rate on its way to the optimizer: bounds, back-off, spikes, growth limit. Each is a rule in C."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from glyder import _checks as checks
from glyder import _core
from glyder.engine.checkpoint import loaded
from glyder.optimizers.properties import repeated

LONGEST_HOLD = 0.9
"""Nothing above was tried: of longer memories a single gradient is a small part, and the noise of many would hold the
rate down for good."""


def bounds_of(call: str, min_lr: Any, max_lr: Any) -> tuple[float, float]:
    """Both bounds of a rate, as numbers; TypeError or ValueError in call form."""
    low, top = (
        checks.number(call, "min_lr", min_lr, 0, finite=True),
        checks.number(call, "max_lr", max_lr, 0, above=True),
    )
    if low > top:
        raise ValueError(f"{call}(min_lr=...) must be <= max_lr={top:g}, got {low:g}")
    return low, top


class Stages:
    """The stages of one scheduler.

    Args:
        reasons: counts each reason that a stage gives, but for ``kept``.
        bounds: of the rate.
        growth: config of the growth limit.
    """

    def __init__(self, reasons: Counter[str], bounds: tuple[float, float], **growth: float) -> None:
        self._reasons = reasons
        self._rules = {
            "back_off": _core.Rule("back_off"),
            "spike": _core.Rule("spike"),
            "growth": _core.Rule("growth", **growth),
        }
        self.bounds = bounds

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest rate."""
        return self._bounds.config["min_lr"], self._bounds.config["max_lr"]

    @bounds.setter
    def bounds(self, value: tuple[float, float]) -> None:
        self._bounds = _core.Rule("bounds", min_lr=value[0], max_lr=value[1])

    @property
    def config(self) -> dict[str, float]:
        """Of bounds and growth limit."""
        return self._bounds.config | self._rules["growth"].config

    @property
    def backed_off(self) -> float:
        """The factor of the back-off, 1 where there was none."""
        return self._rules["back_off"].state["factor"]

    def within_bounds(self, rate: float) -> float:
        """The rate within its bounds; asked for by the way, and not counted."""
        return self._bounds.update(rate=rate)[0]

    def bounded(self, rate: float) -> float:
        """The rate within its bounds."""
        return self._counted(self._bounds, rate=rate)

    def limited(self, rate: float, previous: float) -> float:
        """The rate within what it may grow by from the one before."""
        return self._counted(self._rules["growth"], rate=rate, previous=previous)

    def grown(self, rate: float, wanted: float) -> float:
        """A rate on its way to a larger one, within growth limit and bounds; not counted."""
        return self.within_bounds(self._rules["growth"].update(rate=wanted, previous=rate)[0])

    def back_off(self, gg: float) -> float:
        """The factor on the rate for gradients that grow on and on; ``gg``: ||g||^2."""
        return self._counted(self._rules["back_off"], rate=1.0, gg=gg)

    def spike(self, gg: float, optimizers: Sequence[Optimizer], ratios: Sequence[Sequence[float]]) -> float:
        """The factor on the rate for a gradient far longer than usual, and while momentum holds such a one."""
        return self._counted(self._rules["spike"], rate=1.0, gg=gg, hold=self._hold(optimizers, ratios))

    def learn(self, gg: float, optimizers: Sequence[Optimizer], ratios: Sequence[Sequence[float]]) -> None:
        """Let back-off and spikes learn what is usual, and do nothing."""
        self._rules["back_off"].update(rate=1.0, gg=gg)
        self._rules["spike"].update(rate=1.0, gg=gg, hold=self._hold(optimizers, ratios))

    def release(self) -> None:
        """Undo the back-off."""
        self._rules["back_off"].load({**self._rules["back_off"].state, "factor": 1.0})

    def release_after(self, updates: int) -> bool:
        """At the end of a measurement phase of so many updates; whether there was a back-off to undo.

        What was measured since it acted has seen the steeper curvature itself, and the scale must not pay twice; but
        where it acted in the second half there was little time for that.
        """
        state = self._rules["back_off"].state
        if state["factor"] == 1 or 2 * state["since"] < updates:
            return False
        self.release()
        return True

    def _hold(self, optimizers: Sequence[Optimizer], ratios: Sequence[Sequence[float]]) -> float:
        """The share of an update that momentum repeats in the next, the most among the groups that are trained.

        Asked for only while the stage remembers a spike.
        """
        if self._rules["spike"].state["less"] == 0:
            return 0.0
        groups = ((o, zip(o.param_groups, of, strict=True)) for o, of in zip(optimizers, ratios, strict=True))
        trained = (
            (o, g) for o, of in groups for g, ratio in of if ratio > 0 and any(p.grad is not None for p in g["params"])
        )
        return min(LONGEST_HOLD, max((repeated(o, g) for o, g in trained), default=0.0))

    def _counted(self, rule: _core.Rule, **seen: float) -> float:
        rate, _, reason = rule.update(**seen)
        self._reasons[reason] += reason != "kept"
        return rate

    def state(self) -> dict[str, dict[str, float]]:
        """By name of the rule."""
        return {name: rule.state for name, rule in self._rules.items()}

    def load(self, state: dict[str, dict[str, float]]) -> None:
        """Inverse of :meth:`state`. One that is refused changes nothing."""
        self._rules = loaded(self._rules, state)
