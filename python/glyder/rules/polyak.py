"""The step that would bring the loss's linear model down to its lower bound (2002.10542, 2407.04358, 2305.07583)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from glyder import _checks as checks
from glyder.optimizers.displacement import by_group
from glyder.optimizers.groups import listed
from glyder.optimizers.properties import l2_decay
from glyder.rules.rule_lr import Key, Look, RuleLR
from glyder.vectors.inner_products import inner_products


class PolyakLR(RuleLR):
    r"""Polyak's step for SGD: as far as the loss's linear model takes to fall to its lower bound.

    .. math:: p = \frac{f - \text{lower}}{c \|g\|^2}, \qquad \eta = \frac{\sigma}{1 + \sigma/p}, \qquad
       \eta \le \gamma^{1/\text{batches}} \eta_{\text{before}}

    Published members: SPS_max with the constant bound is ``max_lr=...``, with the smoothed bound ``gamma=2``; NGN is
    ``sigma=...``; MoMo is SGD with ``dampening`` equal to ``momentum``, ``c=1`` and ``max_lr=...`` (its lr).

    With momentum, d is a sum of gradients, and the loss's model is the same sum of the linear models that were made
    with them: as MoMo, for any dampening. Weight decay of SGD is part of the loss here: lambda/2 ||x||^2 is added to
    what was observed. Where groups keep a ratio of rates r, ||d||^2 is the sum of r ||d||^2 over groups. A loss, or a
    model of it, that is at its lower bound or below leaves the rate as it is (published: rate 0).

    The loss has to be seen: :meth:`observe` before ``optimizer.step()``, or ``optimizer.step(closure)``.

    Args:
        optimizer: ``torch.optim.SGD``, not Nesterov's, or a list of them, all of one momentum and dampening. The rule
            starts from its rate; published runs with the smoothed bound start from 1.
        c: > 0. 0.5 for SPS and NGN (0.2 for deep networks in the paper of SPS), 1 for MoMo.
        lower: lower bound of the loss; 0 where the model can fit every batch.
        sigma: > 0, the rate that NGN tends to where the loss is large; infinity: without NGN.
        gamma: >= 1, by how much the rate may grow in ``batches`` updates (2 in the code of SPS); infinity: no such
            bound.
        batches: batches per epoch, 500 in the code of SPS.
        **options: ``total_steps``, ``anneal``, ``warmup``, ``min_lr``, ``max_lr``, ``max_growth``,
            ``safeguard`` (see :class:`~glyder.rules.rule_lr.RuleLR`). ``scope`` is ``"global"``: one loss makes one
            rate.

    Raises:
        TypeError, ValueError: on construction, in call form, with the value and the remedy.
        RuntimeError: in an update whose loss was not seen, or after the optimizer's momentum was changed.

    :formula: ``eta = (f - lower)/(c ||g||^2)``, bounded
    :source: 2002.10542 (SPS), 2407.04358 (NGN), 2305.07583 (MoMo)
    :passes: 0
    :memory: 0
    :optimizers: SGD, with or without momentum
    :use: the model can fit its training data, so that the loss's lower bound is known
    :avoid: label smoothing or noise keep the loss from its bound, or gradients are clipped
    """

    RULE = "polyak"
    SCOPES = ("global",)

    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        *,
        c: float = 0.5,
        lower: float = 0.0,
        sigma: float = math.inf,
        gamma: float = math.inf,
        batches: int = 500,
        **options: Any,
    ) -> None:
        kinds = [_momentum(o, group) for o in listed(optimizer) for group in getattr(o, "param_groups", ())]
        batches = checks.whole("PolyakLR", "batches", batches, 1)
        config = {"c": c, "lower": lower, "sigma": sigma, "gamma": gamma, "batches": batches}
        config |= kinds[0] if kinds else {}
        if any(kind != kinds[0] for kind in kinds):
            raise ValueError(f"PolyakLR needs the same momentum and dampening in every group, got {kinds}")
        super().__init__(optimizer, config, **options)

    def _statistics(self, look: Look, key: Key) -> dict[str, float] | None:
        if look.loss is None:
            raise RuntimeError(
                f"PolyakLR knows no loss for update {self.updates}: call scheduler.observe(loss) before "
                "optimizer.step(), or give optimizer.step a closure that returns it"
            )
        loss, fall = look.loss, 0.0
        for (o, g), at in by_group(look.places).items():
            optimizer = self.optimizers[o]
            group = optimizer.param_groups[g]
            self._check_momentum(optimizer, group)
            decay = l2_decay(optimizer, group)
            buffers = [optimizer.state.get(look.params[i], {}).get("momentum_buffer") for i in at]
            for begun in (False, True):
                here = [(i, b) for i, b in zip(at, buffers, strict=True) if (b is not None) == begun]
                weight = 1 - group["dampening"] if begun else 1.0
                terms: list[tuple[float, list[Tensor]]] = [(weight / look.scale, [look.grads[i] for i, _ in here])]
                if decay:
                    params = [look.params[i] for i, _ in here]
                    terms.append((weight * decay, params))
                    loss += decay / 2 * _squared([(1.0, params)])
                if begun:
                    terms.append((group["momentum"], [b for _, b in here]))
                fall += self.rates.ratios[o][g] * _squared(terms)
        return {"base": look.base, "loss": loss, "lr": look.lr, "fall": fall}

    def _check_momentum(self, optimizer: Optimizer, group: dict[str, Any]) -> None:
        now, at_first = _momentum(optimizer, group), {name: self._config[name] for name in ("beta", "dampening")}
        if now != at_first:
            raise RuntimeError(
                f"PolyakLR was made for SGD with {at_first}, and a group now has {now}: leave momentum and dampening "
                "as they are, or make a new scheduler"
            )


def _momentum(optimizer: Any, group: dict[str, Any]) -> dict[str, float]:
    """The part of the rule's config that is the optimizer's, or ValueError where its direction is something else."""
    name = type(optimizer).__name__
    if not isinstance(optimizer, torch.optim.SGD):
        raise ValueError(
            f"PolyakLR(optimizer=...) must be torch.optim.SGD, got {name}: Polyak's step is one along the gradient"
        )
    if group["nesterov"]:
        raise ValueError(f"PolyakLR cannot follow {name} with nesterov=True: use momentum without it")
    beta = float(group["momentum"])
    return {"beta": beta, "dampening": float(group["dampening"]) if beta else 0.0}


def _squared(terms: list[tuple[float, list[Tensor]]]) -> float:
    """||sum of c v||^2 over pairs (c, v), from one reduction."""
    weights, vectors = zip(*terms, strict=True)
    pairs = list(itertools.combinations_with_replacement(range(len(terms)), 2))
    products = inner_products(vectors, pairs)
    total: float = sum((1 + (i != j)) * weights[i] * weights[j] * x for (i, j), x in zip(pairs, products, strict=True))
    return max(total, 0.0)  # rounding, where the terms cancel
