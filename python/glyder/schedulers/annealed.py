"""The annealing schedules on their own, as ordinary torch schedulers."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from glyder import _checks as checks
from glyder import _core
from glyder.optimizers.groups import take_in


class AnnealedLR(LRScheduler):
    r"""A schedule with linear warm-up in front: each group's initial rate times a factor h in [0, 1].

    For update t < warmup the factor is (t + 1)/warmup. After that, with u = (t - warmup)/(total_steps - warmup):

    ===============  =======================================================================================
    ``constant``     1
    ``linear``       1 - u
    ``polynomial``   (1 - u)^power
    ``cosine``       (1 + cos(pi u))/2
    ``wsd``          1, then linear to 0 over the last ``decay_fraction`` of ``total_steps``
    ``cooldown``     1, then 1 - sqrt to 0 over the last ``decay_fraction`` of ``total_steps`` (2405.18392)
    ``multistep``    gamma^m, m the number of ``first``, ``second``, ``third`` that are <= u
    ``rsqrt``        sqrt(max(warmup, 1)/(t + 1)), without an end
    ``exponential``  gamma^((t - warmup)/period), without an end
    ``step``         gamma^floor((t - warmup)/period), without an end
    ``restarts``     ``cosine`` over cycles of period, period*multiplier, ... updates (SGDR, 1608.03983), without
                     an end; where a cycle ends between two updates, the later is on its way in the next
    ===============  =======================================================================================

    ``multistep`` as it stands (gamma 0.1 at 0.5 and 0.75) is, on SGD with momentum 0.8 and weight decay 5e-4, the
    tuned baseline of the paper of :class:`~glyder.NewtonLR`.

    Where the parameters stay within a bounded domain, annealing to zero forgives a rate that is too large by a factor
    rho up to rho^(1/(2p + 1)) for degree p, cosine being p = 2 (2503.09411). Like torch's schedulers it counts calls of
    :meth:`step`, and is closed-form: the factor depends on the count alone. A group that is added on the way, or that
    rested at ``lr=0`` and is given a rate, keeps the ratio of that rate to the first group's present one.

    Args:
        optimizer: the optimizer whose rates to schedule.
        total_steps: number of updates; not needed without an end.
        anneal: name of the schedule.
        warmup: updates of linear warm-up; 0 for none.
        last_epoch: count to resume from, as in torch.
        **parameters: of the schedule, with defaults: ``power=1`` (polynomial); ``decay_fraction=0.2`` (wsd, cooldown);
            ``gamma=0.1, first=0.5, second=0.75, third=1`` (multistep; 1 is never met); ``gamma=0.9`` (exponential) or
            0.1 (step), ``period=1000`` updates; ``period=1000, multiplier=2`` (restarts; fractions too).

    Raises:
        ValueError: unknown schedule or parameter, a value out of range, a missing ``total_steps``.

    :formula: ``eta_0 h(t)``, for instance ``h = (1 + cos(pi u))/2``
    :source: 2503.09411 on what annealing forgives
    :passes: 0
    :memory: 0
    :optimizers: any that follows its rate
    :use: a good rate is known, and so is the length of the run (``rsqrt`` does without)
    :avoid: the rate is a guess that may be too low, which no annealing mends
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        anneal: str = "cosine",
        *,
        warmup: int = 0,
        last_epoch: int = -1,
        **parameters: float,
    ) -> None:
        self._total = None if total_steps is None else checks.whole("AnnealedLR", "total_steps", total_steps, 1)
        self.warmup = checks.whole("AnnealedLR", "warmup", warmup, 0)
        given = anneal, parameters
        self.anneal, self.parameters = checks.schedule("AnnealedLR", "anneal", given, self._total, self.warmup)
        super().__init__(optimizer, last_epoch)

    @property
    def total_steps(self) -> float:
        """Updates of the whole run; infinite where it has no end: frameworks compare it with a number."""
        return math.inf if self._total is None else self._total

    def factor(self, t: int) -> float:
        """The factor of update ``t`` (0-based)."""
        return _core.schedule(self.anneal, t, total=self._total, warmup=self.warmup, **self.parameters)

    def get_lr(self) -> list[float | Tensor]:
        """The rates of the present count."""
        self._take_in_groups()
        factor = self.factor(self.last_epoch)
        return [rate * factor for rate in self.base_lrs]

    def _take_in_groups(self) -> None:
        """A base rate for groups that were added, and for those at rest that were given a rate."""
        bases = [[float(rate) for rate in self.base_lrs]]
        for _, g in take_in([self.optimizer], bases, 1.0, freed=True):
            self.base_lrs[g:] = [bases[0][g], *self.base_lrs[g + 1 :]]
            self.optimizer.param_groups[g]["initial_lr"] = bases[0][g]

    def state_dict(self) -> dict[str, Any]:
        """Count and options, as plain values."""
        self._take_in_groups()
        state = super().state_dict()
        return state | {"parameters": dict(self.parameters)}
