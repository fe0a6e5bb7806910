"""The search for the peak by the length of gradients, for optimizers whose steps are as long as gradients make them.

The rate rises until gradients grow, and then everything goes back to where the search began, so that nothing is lost
but the updates. ``csrc/rules/edge.c`` has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from glyder import _core
from glyder.engine.cosine_search import Found, by_parameter, by_place, first_rate, here
from glyder.optimizers.displacement import by_group
from glyder.optimizers.properties import gradient_weight
from glyder.vectors.inner_products import products_each, snapshot, squared_lengths
from glyder.vectors.shards import local

OVERFLOW = 1e300
"""Stands for the squared length of a gradient that is not finite."""


class EdgeSearch:
    """Looks for the edge of stability, and goes back; thrown away once the peak is found.

    Holds one copy of the parameters, as they were when the search began.

    Args:
        optimizers: those that are stepped.
        ratios: of the groups' rates to the reference rate.
        updates: of the search, at most.
        model: whose buffers go back with the parameters, if any.
    """

    SHARE, MOST = 0.1, 80
    """As in ``CosineSearch``. What is learned in this one is given up: it is shorter."""

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        ratios: Sequence[Sequence[float]],
        updates: int,
        model: nn.Module | None = None,
    ) -> None:
        self.optimizers, self.ratios, self.model = optimizers, ratios, model
        self.rule = _core.Rule("edge", longest=float(updates))
        self.begin: dict[Tensor, Tensor] = {}
        self.buffers: dict[str, Tensor] = {}  # by name, as they were then
        self.lengths: dict[Tensor, float] = {}  # ||x||^2 at the beginning
        self.reach = 0.0  # of the last gradients, see _reach
        self.row: dict[str, Any] = {}

    def first(self, params: Sequence[Tensor], gg: float) -> float:
        """A rate for the first update, so small that it does no harm."""
        rate, _ = first_rate(self.optimizers, params, gg)
        return rate

    def lengthen(self, updates: int) -> None:
        """Change the number of updates, to more or to fewer."""
        state = self.rule.state
        self.rule = _core.Rule("edge", **self.rule.config | {"longest": float(updates)})
        self.rule.load(state)

    def note(self, found: Found) -> bool:
        """Before an update: copy what it will move for the first time. Whether that began the copy of the
        parameters, of which later ones are a part."""
        begun = bool(self.begin)
        if not begun and self.model is not None:
            named = {name: local(buffer) for name, buffer in self.model.named_buffers()}
            self.buffers = dict(zip(named, snapshot(list(named.values())), strict=True))
        new = [p for _, p in found if p not in self.begin]
        if new:
            (xx,) = products_each([new], [(0, 0)])
            self.lengths |= dict(zip(new, xx, strict=True))
            self.begin |= dict(zip(new, snapshot(new), strict=True))
        return not begun and bool(new)

    def made(self, lr: float) -> None:
        """After an update."""

    def forget(self) -> None:
        """An update was begun and not made."""

    def look(self, rate: float, found: Found, gg: float, squares: float, top: float = math.inf) -> tuple[float, str]:
        """With the gradients of the next update: its rate, and the reason.

        Args:
            rate: the search's own rate for the update before.
            found: what the update to come will move.
            gg: squared length of its gradients.
            squares: sum of the squared schedule factors over the run.
            top: the highest rate there is: where gradients bear it, the search is over.
        """
        self.row = {}
        if not self.begin or (gg >= OVERFLOW and not self.rule.state["count"]):  # the first step is harmless
            return rate, "kept"
        if gg < OVERFLOW:
            self.reach = self._reach(found, gg)
        present = here(self.optimizers)
        xx = math.fsum(xx for p, xx in self.lengths.items() if p in present)
        xx = xx if xx > 0 else float(sum(p.numel() for _, p in found))  # as in start.c
        relative, _ = _core.sum_of_ratios([self.reach], [xx])
        new, action, reason = self.rule.update(gg=gg, relative=relative, lr=rate, energy=squares)
        if reason == "rising" and rate >= top and self.rule.state["count"] > self.rule.config["earliest"]:
            new, reason = min(top, self._highest()), "no_edge"
        peak = new if reason in ("found", "no_edge") else math.nan
        self.row = {"relative": math.sqrt(relative), "peak": peak}
        return (new, reason) if action == "keep" else (rate, reason)

    def _highest(self) -> float:
        """The peak of a search that no gradient ends, by the length of the run alone; infinite where it is unknown."""
        c, h = self.rule.config, self.rule.state["walk"]
        return c["sigma"] * c["gain"] * h * 10 ** ((1 - c["share"]) * c["above"]) if h else math.inf

    def may_be_over(self, rate: float) -> bool:
        """Whether gradients that are not finite can be this rate's doing: not far below the length of the run."""
        return rate >= 0.5 * self.rule.state["walk"]

    def _reach(self, found: Found, gg: float) -> float:
        """Squared length that all steps of these gradients come to at a reference rate of 1, by groups.

        Each has its share of ``gg``: a factor that a GradScaler has left in the gradients is in all of them.
        """
        groups = by_group([place for place, _ in found])
        shares = [1.0]
        if len(groups) > 1:
            parts = [[found[i][1].grad for i in indices] for indices in groups.values()]
            squares = squared_lengths(parts)  # type: ignore[arg-type]
            shares = [square / (math.fsum(squares) or 1.0) for square in squares]
        total = 0.0
        for (o, g), share in zip(groups, shares, strict=True):
            optimizer = self.optimizers[o]
            weight = (gradient_weight(optimizer, optimizer.param_groups[g]) or 1.0) * self.ratios[o][g]
            total += weight**2 * (share * gg)
        return total

    def finish(self) -> bool:
        """Go back to where the search began, with empty momentum buffers: those that are there hold its last steps.

        The gradients that are there belong to other parameters. What was taken out of its optimizer stays as it is.
        """
        present = here(self.optimizers)
        with torch.no_grad():
            for p, x in self.begin.items():
                if p in present:
                    p.copy_(x)
                    self.optimizers[present[p][0]].state.get(p, {}).pop("momentum_buffer", None)
            for name, buffer in self.model.named_buffers() if self.model is not None else ():
                then, now = self.buffers.get(name), local(buffer)
                if then is not None and then.shape == now.shape and not torch.equal(then.to(now.device), now):
                    now.copy_(then)
        return True

    # ---- checkpoints

    def state(self) -> dict[str, Any]:
        """Plain values and tensors."""
        begin, lengths = (by_place(self.optimizers, known) for known in (self.begin, self.lengths))
        buffers = {name: then.clone() for name, then in self.buffers.items()}
        return {"rule": self.rule.state, "begin": begin, "lengths": lengths, "reach": self.reach, "buffers": buffers}

    def load(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self.rule.load(state["rule"])
        self.begin, self.lengths = (by_parameter(self.optimizers, state[name]) for name in ("begin", "lengths"))
        self.reach = state["reach"]
        self.buffers = {name: then.clone() for name, then in state["buffers"].items()}
