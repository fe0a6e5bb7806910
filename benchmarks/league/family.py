"""glyder's other schedulers, each by two recipes.

``"documented"`` is the class with its defaults and no schedule, AdGD in the form that its docstring has for
mini-batches; ``"annealed"`` adds a cosine to zero behind a warm-up of glyder's length, as factors on the rule's rate.
They stand beside an optimizer that their source is about, and start from torch's own rate, 1e-3 for SGD and AdamW
alike, where the released code has no rate of its own.
GradientNormLR is not among them: it trains on batches of its own beside those of the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import glyder
from benchmarks.league.methods import Maker, Scheduled, check, warmup_steps
from benchmarks.league.workload import Batch, Cell, Task
from glyder.rule_lr import RuleLR

WINDOW = 20
"""Updates of an epoch, or a window, for rules that wait for its end: most runs of the league end in their first."""

CLASS: dict[str, tuple[str, ...]] = {
    "adgd": ("SGD",),
    "armijo": ("SGD",),
    "autosgd": ("SGD",),
    "hypergradient": ("SGD", "momentum", "AdamW"),
    "meta": ("SGD",),
    "ntlr": ("SGD", "momentum", "AdamW"),
    "polyak": ("SGD", "momentum"),
    "regime": ("SGD", "momentum"),
    "secant": ("SGD",),
    "stochastic_bb": ("SGD",),
}
"""The optimizers of the league that a rule stands beside."""

HORIZON: dict[str, dict[str, bool]] = {name: {"documented": False, "annealed": True} for name in CLASS}
"""Whether a recipe knows the length of the run."""


class Member(Scheduled):
    """The league's optimizer under one rule, stepped by a closure; ``copies`` are those of its docstring."""

    name: ClassVar[str]
    kind: ClassVar[type[RuleLR]]
    copies: ClassVar[int]
    start: ClassVar[float] = 1e-3

    def __init_subclass__(cls) -> None:
        cls.module = cls.kind.__module__.removeprefix("glyder.")

    def __init__(self, task: Task, cell: Cell, optimizer: str, recipe: str = "documented") -> None:
        check(self.name, CLASS[self.name], HORIZON[self.name], optimizer, recipe)
        super().__init__(task, cell, optimizer, self.start)
        self.task, self.cell = task, cell
        self.loss: Tensor | None = None
        task.batches = self._remembered(task.batches)
        options = self.options()
        if recipe == "annealed":
            warmup = warmup_steps("glyder", cell.steps)
            options |= {"total_steps": cell.steps, "anneal": "cosine", "warmup": warmup}
        self.scheduler = self.kind(self.optimizers[0], **options)

    def options(self) -> dict[str, Any]:
        """What the rule needs to be told."""
        return {}

    def step(self, loss: Tensor) -> None:
        self.loss = loss
        self.optimizers[0].step(self._closure)  # type: ignore[arg-type]

    def _remembered(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, the latest kept with the randomness that its loss begins with."""
        for self.batch in batches:
            self.random = torch.get_rng_state()
            yield self.batch

    def _closure(self, backward: bool = True) -> Tensor:
        """The loss of the update, whose gradients are there; from the second call on, of the same batch again."""
        if self.loss is not None:
            loss, self.loss = self.loss, None
            return loss
        torch.set_rng_state(self.random)
        loss = self.task.loss(self.model, self.batch)
        if backward:
            loss.backward()
            if self.cell.clip is not None:
                trained = [p for p in self.model.parameters() if p.requires_grad]
                torch.nn.utils.clip_grad_norm_(trained, self.cell.clip)
        return loss

    def cost(self) -> tuple[float, int]:
        return self.scheduler.cost[0], self.copies


class AdGD(Member):
    """Its stochastic form, as released: each batch is evaluated at both points."""

    name, kind, copies, start = "adgd", glyder.AdGDLR, 4, 0.2

    def options(self) -> dict[str, Any]:
        return {"model": self.model, "amplifier": 0.02, "damping": 1, "eps": 1e-5, "theta": 1}


class Armijo(Member):
    name, kind, copies, start = "armijo", glyder.ArmijoLR, 4, 1.0

    def options(self) -> dict[str, Any]:
        return {"model": self.model}


class AutoSGD(Member):
    """Three vectors, and two gradients while the step is made."""

    name, kind, copies = "autosgd", glyder.AutoSGDLR, 5

    def options(self) -> dict[str, Any]:
        return {"model": self.model}


class Hypergradient(Member):
    name, kind, copies = "hypergradient", glyder.HypergradientLR, 1


class Meta(Member):
    """For classification; there are as many classes as the last linear layer has outputs."""

    name, kind, copies = "meta", glyder.MetaLR, 0

    def options(self) -> dict[str, Any]:
        if self.cell.squared:
            raise ValueError(f"meta is of classification, not of the squared error of {self.cell.name}")
        *_, last = (module for module in self.model.modules() if isinstance(module, nn.Linear))
        return {"classes": last.out_features}


class Newton(Member):
    name, kind, copies = "ntlr", glyder.NewtonLR, 2

    def options(self) -> dict[str, Any]:
        return {"every": WINDOW}


class Polyak(Member):
    name, kind, copies = "polyak", glyder.PolyakLR, 0


class Regime(Member):
    name, kind, copies = "regime", glyder.RegimeLR, 2


class Secant(Member):
    name, kind, copies = "secant", glyder.SecantLR, 2


class StochasticBB(Member):
    name, kind, copies = "stochastic_bb", glyder.StochasticBBLR, 3

    def options(self) -> dict[str, Any]:
        return {"m": WINDOW}


FAMILY: dict[str, Maker] = {
    kind.name: kind
    for kind in (AdGD, Armijo, AutoSGD, Hypergradient, Meta, Newton, Polyak, Regime, Secant, StochasticBB)
}
