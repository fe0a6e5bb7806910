"""The rate from the curvature between two points of the run (Barzilai & Borwein)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from glyder import _checks as checks
from glyder.rules.gradient_pair import GradientPairLR
from glyder.rules.rule_lr import Key, Look

FORMS = ("bb1", "bb2", "geometric")


class SecantLR(GradientPairLR):
    r"""Barzilai-Borwein: the rate that fits the curvature between the last two points.

    .. math:: \eta = \frac{\|s\|^2}{\langle s, y \rangle} \qquad\text{or}\qquad
       \frac{\langle s, y \rangle}{\|y\|^2} \qquad\text{or}\qquad \frac{\|s\|}{\|y\|}

    s is what the optimizer really did, decoupled weight decay left out, and y the difference of the gradients. Ours:
    for directions d other than the gradient the rate is multiplied by <g, d>/||d||^2, which is 1 for SGD, so that
    momentum, sign and adaptive optimizers get a rate in their own units. Where <s, y> <= 0 the first two forms hold.

    With the gradients of two batches, ``"bb1"`` is eta/(1 - <g_t, g_{t-1}>/||g_{t-1}||^2) for SGD: it rises where
    gradients agree and falls where they oppose, and stands still where they are all noise. The other two forms see the
    noise as curvature and lower the rate at every update, towards zero: give them ``model``.

    Args:
        optimizer: any torch optimizer, or a list of them. The first update is made with its rate.
        model: holds every parameter that is trained; each batch is then evaluated at both points, for which the loop
            has to call ``optimizer.step(closure)``; in the closure, clip ``model.parameters()``, not a list made
            before. None: y is the difference of the gradients of two batches.
        form: ``"bb1"``, ``"bb2"`` or ``"geometric"``.
        max_growth: the rate grows at most by this factor from one update to the next. Ours; ``math.inf`` for the
            published rule.
        **options: of every rule of the family: ``total_steps``, ``anneal``, ``warmup``, ``min_lr``, ``max_lr``,
            ``scope``, ``safeguard`` (see :class:`~glyder.rules.rule_lr.RuleLR`).

    Raises:
        TypeError, ValueError: on construction, in call form, with the value and the remedy.
        RuntimeError: with ``model``, on a step without closure.

    :formula: ``||s||^2/<s, y>``, ``<s, y>/||y||^2``, ``||s||/||y||``
    :source: Barzilai & Borwein, IMA J. Numer. Anal. 8 (1988), equation 5
    :passes: 0; 3 with ``model``
    :memory: 2, or 4 with ``model``
    :optimizers: any that follows its rate
    :use: nothing is known of the rate, and batches are large or ``model`` is given
    :avoid: two batches and ``"bb2"`` or ``"geometric"``, or an annealed rate, which the rule follows down
    """

    RULE = "secant"

    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        model: nn.Module | None = None,
        *,
        form: str = "bb1",
        max_growth: float = 2.0,
        **options: Any,
    ) -> None:
        checks.one_of("SecantLR", "form", form, FORMS)
        super().__init__(optimizer, model, {"form": float(FORMS.index(form))}, max_growth=max_growth, **options)

    def _statistics(self, look: Look, key: Key) -> dict[str, float] | None:
        return self._pair(look)
