"""The search for the peak by the length of gradients, for optimizers whose steps are as long as gradients make them.

The rate rises until gradients grow, and then everything goes back to where the search began, so that nothing is lost
but the updates. ``csrc/rules/edge.c`` has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from glyder import _core
from glyder.base import Place
from glyder.displacement import by_group
from glyder.measure import inner_products, products_each, snapshot
from glyder.search import first_rate
from glyder.support import gradient_weight

OVERFLOW = 1e300
"""Stands for the squared length of a gradient that is not finite."""


class EdgeSearch:
    """Looks for the edge of stability, and goes back; thrown away once the peak is found.

    Holds one copy of the parameters, as they were when the search began.

    Args:
        optimizers: those that are stepped.
        ratios: of the groups' rates to the reference rate.
        updates: of the search, at most.
    """

    def __init__(self, optimizers: Sequence[Optimizer], ratios: Sequence[Sequence[float]], updates: int) -> None:
        self.optimizers, self.ratios = optimizers, ratios
        self.rule = _core.Rule("edge", longest=float(updates))
        self.begin: dict[Place, Tensor] = {}
        self.xx = self.reach = 0.0  # ||x||^2 at the beginning; of the last gradients, see _reach
        self.row: dict[str, Any] = {}

    def first(self, params: Sequence[Tensor], gg: float) -> float:
        """A rate for the first update, so small that it does no harm."""
        rate, _ = first_rate(self.optimizers, params, gg)
        return rate

    def note(self, found: Sequence[tuple[Place, Tensor]]) -> None:
        """Before an update: copy what it will move for the first time."""
        new = [(place, p) for place, p in found if place not in self.begin]
        if new:
            self.begin |= dict(zip((place for place, _ in new), snapshot([p for _, p in new]), strict=True))
            self.xx = math.fsum(products_each([list(self.begin.values())], [(0, 0)])[0])

    def made(self, lr: float) -> None:
        """After an update."""

    def forget(self) -> None:
        """An update was begun and not made."""

    def look(self, rate: float, grads: dict[Place, Tensor], gg: float, energy: float) -> tuple[float, str]:
        """With the gradients of the next update: its rate, and the reason.

        Args:
            rate: the search's own rate for the update before.
            grads: those of the update to come.
            gg: their squared length.
            energy: sum of the squared schedule factors over the run.
        """
        self.row = {}
        if not self.begin:
            return rate, "kept"
        reach = self._reach(grads, gg) if gg < OVERFLOW else self.reach
        self.reach = reach
        xx = self.xx if self.xx > 0 else float(sum(g.numel() for g in grads.values()))  # as in start.c
        relative, _ = _core.sum_of_ratios([reach], [xx])
        new, action, reason = self.rule.update(gg=gg, relative=relative, lr=rate, energy=energy)
        self.row = {"relative": math.sqrt(relative), "peak": self.rule.state["peak"] or math.nan}
        return (new, reason) if action == "keep" else (rate, reason)

    def _reach(self, grads: dict[Place, Tensor], gg: float) -> float:
        """Squared length that all steps of these gradients come to at a reference rate of 1, by groups."""
        places, total = list(grads), 0.0
        groups = by_group(places)
        for (o, g), indices in groups.items():
            weight = (gradient_weight(self.optimizers[o], self.optimizers[o].param_groups[g]) or 1.0) * self.ratios[o][
                g
            ]
            of_group = gg if len(groups) == 1 else inner_products([[grads[places[i]] for i in indices]], [(0, 0)])[0]
            total += weight**2 * of_group
        return total

    def finish(self) -> bool:
        """Go back to where the search began, with empty momentum buffers: those that are there hold its last steps.

        The gradients that are there belong to other parameters.
        """
        with torch.no_grad():
            for place, x in self.begin.items():
                p = self._parameter(place)
                p.copy_(x)
                self.optimizers[place.optimizer].state.get(p, {}).pop("momentum_buffer", None)
        return True

    def _parameter(self, place: Place) -> Tensor:
        p: Tensor = self.optimizers[place.optimizer].param_groups[place.group]["params"][place.index]
        return p

    # ---- checkpoints

    def state(self) -> dict[str, Any]:
        """Plain values and tensors."""
        begin = [[[p.optimizer, p.group, p.index], x.clone()] for p, x in self.begin.items()]
        return {"rule": self.rule.state, "begin": begin, "xx": self.xx, "reach": self.reach}

    def load(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self.rule.load(state["rule"])
        self.xx, self.reach = state["xx"], state["reach"]
        places = [Place(*place) for place, _ in state["begin"]]
        self.begin = {
            p: x.clone().to(self._parameter(p).device) for p, (_, x) in zip(places, state["begin"], strict=True)
        }
