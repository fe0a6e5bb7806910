"""Adaptive gradient descent without descent (1910.09529)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from glyder.rules.gradient_pair import GradientPairLR
from glyder.rules.rule_lr import Key, Look


class AdGDLR(GradientPairLR):
    r"""AdGD: the local curvature limits the rate, and the rate before limits its growth.

    .. math:: \lambda_k = \min\Bigl\{ \lambda_{k-1} \sqrt{1 + a \theta_{k-1}},\;
       \frac{\|x_k - x_{k-1}\|}{b \|\nabla f(x_k) - \nabla f(x_{k-1})\|} \Bigr\} + \varepsilon,
       \qquad \theta_k = \frac{\lambda_k}{\lambda_{k-1}}

    The defaults are the published method for full gradients, which converges on any convex loss that is locally smooth,
    with no constant to give. Its stochastic form, as released, is
    ``AdGDLR(optimizer, model, amplifier=0.02, damping=1, eps=1e-5, theta=1)``, with a rate of 0.2 to start from.
    Ours: for directions other than the gradient the second term is multiplied by <g, d>/||d||^2, and where that is not
    positive the rate holds.

    Args:
        optimizer: any torch optimizer, or a list of them. The first update is made with its rate: 1e-10 in the
            released code, in double precision (a displacement that single precision does not see teaches nothing).
        model: holds every parameter that is trained; each batch is then evaluated at both points, for which the loop
            has to call ``optimizer.step(closure)``; in the closure, clip ``model.parameters()``, not a list made
            before. None: both gradients are those of the updates, right for full gradients.
        amplifier: a, of the growth.
        damping: b, of the curvature.
        eps: added to every rate.
        theta: theta_0; infinite: the first rate is set by the second term alone.
        **options: of every rule of the family: ``total_steps``, ``anneal``, ``warmup``, ``min_lr``, ``max_lr``,
            ``max_growth``, ``scope``, ``safeguard`` (see :class:`~glyder.rules.rule_lr.RuleLR`).

    Raises:
        TypeError, ValueError: on construction, in call form, with the value and the remedy.
        RuntimeError: with ``model``, on a step without closure.

    :formula: ``min(lambda sqrt(1 + a theta), ||s||/(b ||y||)) + eps``
    :source: 1910.09529, Algorithm 1, and the released stochastic form
    :passes: 0; 3 with ``model``
    :memory: 2, or 4 with ``model``
    :optimizers: any that follows its rate; the theory is of gradient descent
    :use: full gradients; with ``model``, a good start of a network
    :avoid: small batches without ``model``: noise is seen as curvature, and the rate falls to zero
    """

    RULE = "adgd"

    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        model: nn.Module | None = None,
        *,
        amplifier: float = 1.0,
        damping: float = 2.0,
        eps: float = 0.0,
        theta: float = math.inf,
        **options: Any,
    ) -> None:
        config = {"amplifier": amplifier, "damping": damping, "eps": eps, "theta": theta}
        super().__init__(optimizer, model, config, **options)

    def _statistics(self, look: Look, key: Key) -> dict[str, float] | None:
        pair = self._pair(look)
        if pair is None:
            return None
        return {name: pair[name] for name in ("slope", "dd", "yy", "lr")} | {"base": look.base}
