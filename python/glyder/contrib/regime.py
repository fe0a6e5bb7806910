"""A rate that follows the variation of the stochastic gradients and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from glyder.rules.gradient_pair import GradientPairLR
from glyder.rules.rule_lr import Key, Look


class RegimeLR(GradientPairLR):
    r"""An explainable rate: it rises while gradients agree with the step before, and falls when they oppose it.

    .. math:: \eta_t = \eta_{t-1} \max\bigl(\min(r, c)^{1/w},\, 1/c\bigr), \qquad
       r = \frac{\langle g_{t-1}, d \rangle}{\lvert \langle g_{t-1} - g_t, d \rangle \rvert}

    d is the direction of the update before, g_{t-1} the gradient that it was made from, and eta_{t-1} r the rate of the
    secant between the two gradients: the Barzilai-Borwein rate for SGD, where <g, d> is ||g||^2, that of the dual norms
    for SignSGD, where it is ||g||_1, and for momentum that of the step really made. The rate is the geometric mean of
    these rates over the last w = 4 updates, none taken for more than c = 2 times the rate; and it falls at most by c
    an update. What is left of the gradient along d after the step raises the rate; where its sign has turned, or its
    length more than doubled, the rate falls; where all is noise, it stays on average. There is nothing to tune, and the
    scale of loss, parameters and first rate are forgotten.

    The finding against it (``benchmarks/results/papers/regime.md``): a quarter behind a tuned constant rate, and no
    better than the simpler ``SecantLR(form="bb1")``.

    It answers the description in "Explainable Learning Rate Regimes for Stochastic Optimization" (2508.13639), whose
    formula was not available, and is not that paper's algorithm: the formula, w and c are ours, chosen among candidates
    by ``benchmarks/papers/regime.py``. There it does as well as ``SecantLR(form="bb1")`` with its limit on growth,
    better for SignSGD and worse for SGD. It works against an annealed rate: the schedule's factor is seen as a rate
    that is too small.

    Args:
        optimizer: any torch optimizer, or a list of them; made for SGD, with or without momentum, and
            :class:`~glyder.SignSGD`. The rule starts from its rate, best a small one.
        memory: w, at least 1.
        limit: c, above 1.
        **options: of every rule of the family: ``total_steps``, ``anneal``, ``warmup``, ``min_lr``, ``max_lr``,
            ``max_growth``, ``scope``, ``safeguard`` (see :class:`~glyder.rules.rule_lr.RuleLR`).

    Raises:
        TypeError, ValueError: on construction, in call form, with the value and the remedy.

    :formula: ``eta *= min(<g', d>/|<g' - g, d>|, c)^(1/w)``, g' the gradient before
    :source: ours, after the description of 2508.13639; Barzilai & Borwein (1988)
    :passes: 0
    :memory: 2
    :optimizers: any that follows its rate
    :use: nothing is known of the rate, and an update must not cost more
    :avoid: a first rate far too large; an annealed run; a long run with momentum on few parameters, where it falls
    """

    RULE = "regime"

    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        *,
        memory: float = 4.0,
        limit: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(optimizer, None, {"memory": memory, "limit": limit}, **options)

    def _statistics(self, look: Look, key: Key) -> dict[str, float] | None:
        pair = self._pair(look)
        return None if pair is None else {"slope": pair["slope"], "curvature": pair["curvature"], "base": look.base}
