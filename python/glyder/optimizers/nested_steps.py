"""Steps within steps: torch puts its step hooks around ``step`` of each class, so that one that calls that of its base
class runs them twice.
"""

from __future__ import annotations

import sys

from torch.optim import Optimizer

_HOOKED = Optimizer.profile_hook_step(Optimizer.step).__code__
"""Of the function that torch puts around every ``step``, the same for all."""


def within_another(optimizer: Optimizer) -> bool:
    """Whether the step whose hook asks this is made within another one of the same optimizer.

    Only the stack tells that from a step that raised: torch has no hook for those.
    """
    steps, frame = 0, sys._getframe(1)
    while frame is not None and steps < 2:
        steps += frame.f_code is _HOOKED and frame.f_locals.get("self") is optimizer
        frame = frame.f_back  # type: ignore[assignment]
    return steps > 1
