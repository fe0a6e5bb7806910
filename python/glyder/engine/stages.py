"""The rules and stages that LocalOptimumLR is made of; each checks its own numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch.optim import Optimizer

from glyder import _core
from glyder.optimizers.properties import repeated

VISIBLE, VISIBLE_HALF = 1e-3, 1e-2
"""Relative displacement that the first updates aim at: what the parameters' dtype can carry with some digits."""

FIRST_UPDATES = 20
"""Updates that are all measured, whatever ``every`` says: the early estimates need the most averaging."""

SHORTEST = 20
"""Updates of the shortest run that is measured in time to be of use; the league goes down to it."""

TOO_SHORT = (
    "LocalOptimumLR(total_steps={}) leaves few updates to find a learning rate with, and fewer to use it: runs below "
    "20 updates are not tested, and those below 8 may learn nothing. AnnealedLR gives a schedule to a rate of your own"
)

FARTHEST = 0.1
"""Relative displacement up to which a rate rises where the loss does not bend."""

PATIENCE = 3
"""Measurements that may fail before the first good one; then the reason is raised."""


LONGEST_HOLD = 0.9
"""Nothing above was tried: of longer memories a single gradient is a small part, and the noise of many would hold the
rate down for good."""


def recipe(
    glyder: dict[str, float], bounds: dict[str, float], growth: dict[str, float], *, half: bool, loose: bool
) -> dict[str, _core.Rule]:
    """By name, for the options of three of them. ``half``: some parameters are in half precision. ``loose``: the rate
    may rise by ``max_growth`` at any time."""
    return {
        "scale": _core.Rule("scale", sigma=glyder["sigma"]),
        "spike": _core.Rule("spike"),
        "glyder": _core.Rule("glyder", **glyder),
        "start": _core.Rule("start", visible=VISIBLE_HALF if half else VISIBLE),
        "bounds": _core.Rule("bounds", **bounds),
        "growth": _core.Rule("growth", **growth, **({"power": math.inf} if loose else {})),
        "brake": _core.Rule("brake"),
    }


def held(spike: _core.Rule, optimizers: Sequence[Optimizer], ratios: Sequence[Sequence[float]]) -> float:
    """The share of an update that momentum repeats in the next, the most among the groups that are trained.

    Asked for only while the stage remembers a spike.
    """
    if spike.state["less"] == 0:
        return 0.0
    groups = ((o, zip(o.param_groups, of, strict=True)) for o, of in zip(optimizers, ratios, strict=True))
    trained = (
        (o, g) for o, of in groups for g, ratio in of if ratio > 0 and any(p.grad is not None for p in g["params"])
    )
    return min(LONGEST_HOLD, max((repeated(o, g) for o, g in trained), default=0.0))


def release(brake: _core.Rule, window: int) -> bool:
    """At the end of the window; whether there was a brake to release.

    What was measured since it acted has seen the steeper curvature itself, and the scale must not pay twice; but
    where it acted in the second half there was little time for that.
    """
    state = brake.state
    if state["factor"] == 1 or 2 * state["since"] < window:
        return False
    brake.load({**state, "factor": 1.0})
    return True


def farther(rules: dict[str, _core.Rule], rate: float, xx: float, dd: float) -> float:
    """The rate after one at which the loss fell and did not bend: its least value lies farther along the step.

    The growth limit holds, and a step gets no longer by this than a tenth of the parameters. ``xx``, ``dd``: squared
    lengths of the parameters at the start and of the step.
    """
    if rules["brake"].state["factor"] < 1:
        return rate
    wanted = rate * max(1.0, FARTHEST * math.sqrt(xx / dd))
    return rules["bounds"].update(rate=rules["growth"].update(rate=wanted, previous=rate)[0])[0]
