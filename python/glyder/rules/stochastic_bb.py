"""The Barzilai-Borwein rate of whole epochs (SGD-BB, 1605.04131)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from glyder import _checks as checks
from glyder.optimizers.groups import listed
from glyder.rules.rule_lr import Block, Key, Look, RuleLR, Vector
from glyder.vectors.inner_products import inner_products, snapshot


class StochasticBBLR(RuleLR):
    r"""SGD-BB: a Barzilai-Borwein rate once an epoch, smoothed over the epochs, falling like 1/k.

    .. math:: \eta_k = \frac{\|s\|^2}{m \lvert \langle s, y \rangle \rvert}, \qquad
       c_k = c_{k-1}^{\frac{k-2}{k-1}} (k \eta_k)^{\frac{1}{k-1}}, \qquad \eta \leftarrow \frac{c_k}{k}

    s is the way of an epoch of m updates, and y the difference of the averages of gradients in it and in the epoch
    before. The average runs on through the epochs, ``avg <- beta g + (1 - beta) avg``, from zero. The first two epochs
    are made with the optimizer's rate. s is all that became of the parameters, weight decay included.

    Args:
        optimizer: ``torch.optim.SGD``, or a list of it. The first two epochs are made with its rate.
        m: updates of an epoch: between two changes of the rate.
        beta: weight of a gradient in the average. None: 10/m, the released code's, at most 1.
        **options: of every rule of the family: ``total_steps``, ``anneal``, ``warmup``, ``min_lr``, ``max_lr``,
            ``max_growth``, ``scope``, ``safeguard`` (see :class:`~glyder.rules.rule_lr.RuleLR`).

    Raises:
        TypeError, ValueError: on construction, in call form, with the value and the remedy.

    :formula: ``||s||^2/(m |<s, y>|)`` of epochs, geometric mean of k eta_k, over k
    :source: 1605.04131, Algorithm 2 and its smoothing
    :passes: 0
    :memory: 3
    :optimizers: SGD, with or without momentum
    :use: convex losses and many epochs
    :avoid: a run of few epochs: the first two are made with the optimizer's rate; sign and adaptive directions
    """

    RULE = "stochastic_bb"

    def __init__(
        self, optimizer: Optimizer | Sequence[Optimizer], *, m: int, beta: float | None = None, **options: Any
    ) -> None:
        m = checks.whole("StochasticBBLR", "m", m, 1)
        beta = min(1.0, 10 / m) if beta is None else checks.number("StochasticBBLR", "beta", beta, 0, above=True)
        if beta > 1:
            raise ValueError(f"StochasticBBLR(beta=...) must be <= 1, got {beta}")
        for o in listed(optimizer):
            if isinstance(o, Optimizer) and not isinstance(o, torch.optim.SGD):
                raise ValueError(
                    f"StochasticBBLR(optimizer=...) must be torch.optim.SGD, got {type(o).__name__}: its rate is one "
                    "of steps along the gradient; SecantLR takes any optimizer"
                )
        self.m, self.beta = m, beta
        super().__init__(optimizer, {"m": float(m)}, **options)

    def _options(self) -> dict[str, Any]:
        return super()._options() | {"beta": self.beta}

    def _statistics(self, look: Look, key: Key) -> dict[str, float] | None:
        """Of the epoch that is over with this update, if one is: from its start and its average."""
        if self.updates == 0 or self.updates % self.m:
            return None
        start, average, before = (self._kept.get(name, {}) for name in ("start", "average", "average before"))
        at = [i for i, place in enumerate(look.places) if place in start and place in average and place in before]
        if not at:
            return None
        s = ([start[look.places[i]] for i in at], [look.params[i] for i in at])
        y = ([before[look.places[i]] for i in at], [average[look.places[i]] for i in at])
        dd, curvature = inner_products([s, y], [(0, 0), (0, 1)])
        return {"curvature": curvature, "dd": dd}

    def _decided(self, look: Look, block: Block) -> None:
        average: Vector = self._kept.setdefault("average", {})
        if self.updates and self.updates % self.m == 0:
            kept = [place for place in look.places if place in average]
            self._kept.setdefault("average before", {}).update({place: average[place].clone() for place in kept})
            self._kept.setdefault("start", {}).update(dict(zip(look.places, snapshot(look.params), strict=True)))
        for place, grad in zip(look.places, look.grads, strict=True):
            if place not in average:
                average[place] = torch.zeros_like(grad, dtype=torch.promote_types(grad.dtype, torch.float32))
            average[place].lerp_(grad.to(average[place].dtype) / look.scale, self.beta)
