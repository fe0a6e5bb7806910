"""A watch over gradients with which nothing can be learned: not finite in a row, or zero from the beginning on."""

from __future__ import annotations

import math
from typing import Any

from glyder.engine.missing_updates import PATIENCE

LOST = 20
"""Gradients in a row that are not finite, and neither bad batches nor a GradScaler's factor, which is halved each time.
"""


class GradientWatch:
    """Counts them.

    Attributes:
        lost: gradients that were not finite, the last in a row.
        zeros: updates with gradients of zero alone, until there are others; then None.
    """

    def __init__(self) -> None:
        self.lost = 0
        self.zeros: int | None = 0

    @property
    def is_lost(self) -> bool:
        """Whether there were so many in a row that no batch is to blame."""
        return self.lost >= LOST

    def sees(self, gg: float) -> bool:
        """Look at ||g||^2. Whether it is finite."""
        if not math.isfinite(gg):
            self.lost += 1
            return False
        self.lost = 0
        if self.zeros is not None:  # later ones may be those of a margin that is kept
            self.zeros = None if gg > 0 else self.zeros + 1
        return True

    def message(self) -> str | None:
        """What there is to say of zeros."""
        if self.zeros != PATIENCE:
            return None
        return (
            f"all gradients were zero in the first {PATIENCE} updates: nothing is learned, at any learning rate. "
            "See that the loss hangs on the optimizer's parameters and is not constant in them (a factor of 0, "
            "saturated or dead units, half precision without a GradScaler)"
        )

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {"lost": self.lost, "zeros": self.zeros}

    def load(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self.lost, self.zeros = state["lost"], state["zeros"]
