"""Every scheduler of one rule, in one table: each row gets the whole common suite (``test_family``)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

import glyder
from glyder.rules.rule_lr import RuleLR


@dataclass(frozen=True)
class Member:
    """How to make one: ``make(optimizer, **options)``, with ``model``: ``make(optimizer, model, **options)``. ``rate``:
    what the optimizer starts from.

    ``closure``: it needs ``optimizer.step(closure)``; ``optimizers``: only these, by name; empty for all that follow
    their rate; ``but``: not these. ``loss``: it has to be shown the loss. ``scopes``: those that it takes.
    """

    make: Callable[..., RuleLR]
    rate: float = 0.05
    model: bool = False
    closure: bool = False
    optimizers: tuple[str, ...] = ()
    but: tuple[str, ...] = ()
    loss: bool = False
    scopes: tuple[str, ...] = ("global", "group", "tensor")
    options: dict[str, Any] = field(default_factory=dict)

    def attach(self, optimizer: torch.optim.Optimizer, model: torch.nn.Module, **options: Any) -> RuleLR:
        return self.make(optimizer, *([model] if self.model else []), **(self.options | options))


def guarded(optimizer: Any, model: torch.nn.Module, **options: Any) -> RuleLR:
    return glyder.HypergradientLR(optimizer, safeguard=glyder.LineSearch(model), **options)


def searching(make: Callable[..., RuleLR], rate: float, scopes: tuple[str, ...], **options: Any) -> Member:
    return Member(make, rate, True, True, but=("LBFGS", "Adafactor"), scopes=scopes, options=options)


UNLIMITED = {"max_growth": math.inf}
"""What is applied is then the rule's rate itself."""

FAMILY: dict[str, Member] = {
    "hypergradient": Member(glyder.HypergradientLR, options={"beta": 1e-3}),
    "hypergradient multiplicative": Member(glyder.HypergradientLR, options={"beta": 0.05, "form": "multiplicative"}),
    "hypergradient windows": Member(
        glyder.HypergradientLR, options={"beta": 0.2, "form": "multiplicative", "every": 2}
    ),
    "polyak": Member(glyder.PolyakLR, optimizers=("SGD", "momentum"), scopes=("global",), options={"c": 5.0}),
    "NGN": Member(glyder.PolyakLR, optimizers=("SGD", "momentum"), scopes=("global",), options={"sigma": 1.0}),
    "MoMo": Member(
        glyder.PolyakLR,
        optimizers=("dampened", "momentum"),
        scopes=("global",),
        options={"c": 1.0, "gamma": 2.0, "batches": 5},
    ),
    "Newton": Member(glyder.NewtonLR, options={"every": 1}),
    "Newton, windows": Member(glyder.NewtonLR, options={"every": 3}),
    "Newton, reference": Member(glyder.NewtonLR, options={"every": 2, "reference": True, "scope": "global"}),
    "hypergradient with line search": searching(
        guarded, 0.05, ("global", "group", "tensor"), beta=0.05, form="multiplicative"
    ),
    "Armijo": searching(glyder.ArmijoLR, 1.0, ("global",), batches_per_epoch=10),
    "Goldstein": searching(glyder.ArmijoLR, 0.05, ("global",), condition="goldstein", reset="start", max_lr=10.0),
    "secant": Member(glyder.SecantLR, options=UNLIMITED),
    "secant bb2": Member(glyder.SecantLR, options=UNLIMITED | {"form": "bb2"}, closure=True, model=True),
    "secant geometric": Member(glyder.SecantLR, options=UNLIMITED | {"form": "geometric"}, closure=True, model=True),
    "adgd": Member(glyder.AdGDLR),
    "adgd same batch": Member(glyder.AdGDLR, options={"eps": 1e-5, "theta": 1.0}, closure=True, model=True),
    "stochastic_bb": Member(
        glyder.StochasticBBLR, options={"m": 1, "beta": 0.5}, optimizers=("SGD", "momentum", "Nesterov")
    ),
    "regime": Member(glyder.RegimeLR),
    "autosgd": Member(
        glyder.AutoSGDLR,
        model=True,
        closure=True,
        optimizers=("SGD",),
        scopes=("global",),
        options={"shortest": 3, "bound": 3.0},
    ),
    "autosgd exact": Member(
        glyder.AutoSGDLR, model=True, closure=True, optimizers=("SGD",), scopes=("global",), options={"exact": True}
    ),
    "meta": Member(glyder.MetaLR, loss=True, scopes=("global",), options={"classes": 4}),
}

MAKERS: dict[str, Callable[[Any, float], torch.optim.Optimizer]] = {
    "SGD": lambda p, lr: torch.optim.SGD(p, lr=lr),
    "momentum": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, weight_decay=0.01),
    "dampened": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, dampening=0.9),
    "Nesterov": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True),
    "SignSGD": lambda p, lr: glyder.SignSGD(p, lr=lr, momentum=0.9, weight_decay=0.01),
    "Adam": lambda p, lr: torch.optim.Adam(p, lr=lr),
    "AdamW": lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.05),
    "AdamW fused": lambda p, lr: torch.optim.AdamW(p, lr=lr, fused=True),
    "tensor rate": lambda p, lr: torch.optim.AdamW(p, lr=torch.tensor(lr)),
    "NAdam": lambda p, lr: torch.optim.NAdam(p, lr=lr),
    "RAdam": lambda p, lr: torch.optim.RAdam(p, lr=lr),
    "Adamax": lambda p, lr: torch.optim.Adamax(p, lr=lr),
    "Adagrad": lambda p, lr: torch.optim.Adagrad(p, lr=lr),
    "Adadelta": lambda p, lr: torch.optim.Adadelta(p, lr=lr),
    "Adafactor": lambda p, lr: torch.optim.Adafactor(p, lr=lr),
    "RMSprop": lambda p, lr: torch.optim.RMSprop(p, lr=lr, momentum=0.5),
    "LBFGS": lambda p, lr: torch.optim.LBFGS(p, lr=lr, max_iter=2),
}
"""All of torch.optim that follows its rate, on a model with matrices and vectors."""


def optimizers_of(member: Member) -> tuple[str, ...]:
    return member.optimizers or tuple(name for name in MAKERS if name not in member.but)
