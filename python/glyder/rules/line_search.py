"""A line search along what an update did: on the batch that it was made from, with the same randomness.

The optimizer makes its step; the loss is then seen there and, where the rule of the C core asks for it, nearer or
farther along the same displacement, and the parameters are written once, at the rate that the rule keeps.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from glyder import _checks as checks
from glyder import _core
from glyder.optimizers.displacement import by_group, check_members, moved
from glyder.optimizers.parameter_ref import ParameterRef
from glyder.optimizers.properties import check_linear, decoupled_decay, l2_decay
from glyder.probe.closure_replay import Replay
from glyder.vectors.inner_products import displace, inner_products, shifted, snapshot

COLUMNS = ("loss", "slope", "trial", "tries")
"""Of the history: the loss before the update, <g, delta> of the first trial, the loss of the last one, their number."""


@dataclass(frozen=True, eq=False)
class LineSearch:
    r"""The safeguard of a scheduler: a rate is used once the loss has been seen to fall enough on the same batch.

    .. math:: f(x_t - \eta d) \le f(x_t) - c\, \eta\, \langle g_t, d \rangle

    d is the direction that the optimizer took, of SGD the gradient. Where that does not hold, the rate is lowered until
    it does, and the scheduler's rule goes on from there: ``HypergradientLR(optimizer, safeguard=LineSearch(model))``.
    The search is of the rule's own rate; a schedule then shortens the step that it found. The curvature condition of
    Wolfe would need a gradient at each trial; Goldstein's, which the loss alone decides, stands for it.

    The loss is what the closure returns, plus the weight decay that the optimizer adds to the gradient. Decoupled
    weight decay is no part of it, and the trials leave it out.

    Args:
        model: the module that holds every parameter that is trained.
        c: share of the fall that the gradient promises which has to be seen, in (0, 1).
        backtrack: factor of a rejected rate, in (0, 1).
        goldstein: the loss must not fall by more than the share 1 - c either: else the rate is raised.
        extend: factor of a rate that Goldstein's condition rejects, > 1.
        rise: how far above the rate of the step a search may go. Ours: it multiplies the rounding of the step.
        tries: most trials in one update, one forward pass each; then one rate more is taken unseen.
        slack: share of the loss by which it may miss the fall, for its rounding. Ours; 0: as published. None: 8 units
            of rounding of the parameters' dtype, of single precision for shorter ones.

    Raises:
        TypeError, ValueError: on construction, in call form, for what is no number or out of its range.
    """

    model: nn.Module
    c: float = 0.1
    backtrack: float = 0.9
    goldstein: bool = False
    extend: float = 2.0
    rise: float = 1000.0
    tries: int = 100
    slack: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise TypeError(f"LineSearch(model=...) must be a torch.nn.Module, got {type(self.model).__name__}")
        checks.rule("LineSearch", "armijo", self._given() | ({} if self.slack is None else {"slack": self.slack}))

    @property
    def config(self) -> dict[str, float]:
        """Of the rule ``armijo``."""
        slack = 8 * self._rounding() if self.slack is None else float(self.slack)
        return {name: float(value) for name, value in self._given().items()} | {"slack": slack}

    def _given(self) -> dict[str, Any]:
        names = (f.name for f in dataclasses.fields(self) if f.name not in ("model", "slack"))
        return {name: getattr(self, name) for name in names}

    def _rounding(self) -> float:
        dtypes = {p.dtype for p in self.model.parameters() if p.dtype.itemsize >= 4 and p.is_floating_point()}
        return max((torch.finfo(dtype).eps for dtype in dtypes), default=torch.finfo(torch.float32).eps)


@dataclass(frozen=True)
class Found:
    """What a search came to: the rate, why, and its columns of the history."""

    rate: float
    reason: str
    row: dict[str, float]


class Search:
    """The searches of one scheduler.

    Attributes:
        replay: the closure of the update.
        copies: copies of the parameters made so far.
    """

    def __init__(
        self,
        safeguard: LineSearch,
        optimizers: Sequence[Optimizer],
        of: str,
        params: Iterable[tuple[ParameterRef, Tensor]],
    ) -> None:
        if not isinstance(safeguard, LineSearch):
            raise TypeError(f"{of}(safeguard=...) must be a LineSearch or None, got {type(safeguard).__name__}")
        if len(optimizers) > 1:
            raise ValueError(f"{of} looks at the closure of one optimizer, got {len(optimizers)} of them")
        for optimizer in optimizers:
            check_linear(optimizer, of)
        check_members(safeguard.model, params, of)
        self._optimizers, self._of = optimizers, of
        self.config = safeguard.config
        self.replay, self.copies = Replay(safeguard.model), 0
        self._older: list[Tensor] = []
        self._grads: list[Tensor] = []
        self._places: list[ParameterRef] = []
        self._loss = math.nan

    def check_closure(self, loss: float | None) -> None:
        """RuntimeError, with the remedy, where the loss of the update cannot be evaluated again."""
        if not self.replay.ready or loss is None:
            raise RuntimeError(
                f"{self._of} looks at the loss of the same batch again: call optimizer.step(closure), where closure() "
                "clears the gradients, computes the loss, calls backward and returns the loss"
            )

    def note(self, found: Sequence[tuple[ParameterRef, Tensor]], loss: float) -> None:
        """Before the update: copies of parameters and gradients (optimizers may write into these)."""
        self._places, self._loss = [place for place, _ in found], loss
        self._older = snapshot([p for _, p in found])
        self._grads = snapshot([p.grad for _, p in found])  # type: ignore[misc]
        self.copies += 2

    def before(self) -> dict[ParameterRef, Tensor]:
        """The parameters as they were before the step."""
        return dict(zip(self._places, self._older, strict=True))

    def forget(self) -> None:
        """Let go of everything that was noted for the update."""
        self._older, self._grads, self._places = [], [], []
        self.replay.forget()

    def along(self, lr: float, low: float, top: float) -> Found:
        """Search along the update that was made with ``lr``, for rates within ``low`` and ``top``."""
        params = self._params()
        deltas = moved(self._optimizers, self._places, snapshot(self._older))
        self.copies += 1
        slope = inner_products([self._grads, deltas], [(0, 1)])[0]
        self._grads = []
        l2 = self._l2(deltas)
        decayed = any(decoupled_decay(o, group) for o in self._optimizers for group in o.param_groups)
        rule = _core.Rule("armijo", **self.config, min_lr=low, max_lr=top)
        rate, action, reason, tries, trial = lr, "retry", "", 0, math.nan
        while action == "retry":
            r = rate / lr
            at: Sequence[Tensor] = params if r == 1 and not decayed else self._point(r, deltas)
            trial = self.replay.loss(params, at) + l2[1] * r**2 / 2 - l2[0] * r
            rate, action, reason = rule.update(loss=self._loss, trial=trial, slope=slope + l2[0], lr=lr, rate=rate)
            tries += 1
        row = {"loss": self._loss, "slope": slope + l2[0], "trial": trial, "tries": float(tries)}
        return Found(rate if action == "keep" else lr, reason, row)

    def write(self, ratio: float) -> None:
        """x_t - ratio (x_t - x_{t+1}) into the parameters, decoupled weight decay included; they stay, bit for bit,
        where ``ratio`` is 1."""
        if ratio == 1:
            return
        params = self._params()
        whole = displace(snapshot(self._older), 1.0, params)
        for p, value in zip(params, self._point(ratio, whole), strict=True):
            p.copy_(value)
        self.copies += 1

    def _params(self) -> list[Tensor]:
        return [self._optimizers[p.optimizer].param_groups[p.group]["params"][p.index] for p in self._places]

    def _point(self, r: float, deltas: Sequence[Tensor]) -> list[Tensor]:
        """x_t - r delta, in the dtypes of the parameters."""
        self.copies += 1
        values = shifted(self._older, -r, deltas)
        return [v.to(x.dtype) for v, x in zip(values, self._older, strict=True)]

    def _l2(self, deltas: Sequence[Tensor]) -> tuple[float, float]:
        """lambda <x_t, delta> and lambda ||delta||^2, summed over the groups: what L2 decay adds to slope and loss."""
        slope = curvature = 0.0
        for (o, g), indices in by_group(self._places).items():
            factor = l2_decay(self._optimizers[o], self._optimizers[o].param_groups[g])
            if factor:
                x, d = [self._older[i] for i in indices], [deltas[i] for i in indices]
                xd, dd = inner_products([x, d], [(0, 1), (1, 1)])
                slope, curvature = slope + factor * xd, curvature + factor * dd
        return slope, curvature
