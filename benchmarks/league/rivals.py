"""The released packages that promise the same, each by three recipes, Schedule-Free by two.

``"documented"`` is what README or paper recommend, with a constant factor where they leave the schedule to the user;
``"annealed"`` adds a cosine to zero behind a warm-up of glyder's length, or what comes closest to it, and ``"linear"``
glyder's own linear decay in the cosine's place. Weight decay is as torch's: 0.01, decoupled, beside AdamW, and 0 beside
SGD.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import glyder
from benchmarks.league import optimizers
from benchmarks.league.methods import Maker, Scheduled, check, warmup_steps
from benchmarks.league.workload import Batch, Cell, Task

DECAY = 0.01
EVERY = 4
"""Updates from one fit of GeN to the next, as its README advises."""

REFRESHED = 50
"""Batches that statistics of BatchNorm are taken on anew, as in Schedule-Free's README."""

CLASS: dict[str, tuple[str, ...]] = {
    "prodigy": ("AdamW",),
    "schedulefree": ("SGD", "AdamW"),
    "dadaptation": ("SGD", "AdamW"),
    "dog": ("SGD",),
    "ldog": ("SGD",),
    "momo": ("momentum", "AdamW"),
    "mechanic": ("SGD", "momentum", "AdamW"),
    "gen": ("SGD", "momentum", "AdamW"),
}
"""The optimizers of the league that a rival stands beside."""

HORIZON: dict[str, dict[str, bool]] = {
    **{name: {"documented": False, "annealed": True, "linear": True} for name in CLASS},
    "schedulefree": {"documented": True, "annealed": True},
}
"""Whether a recipe knows the length of the run; Schedule-Free does by its warm-up, and has nothing to anneal."""


def package(name: str) -> Any:
    """The module ``name``, or how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name}: {error}; pip install -r benchmarks/league/requirements.txt") from error


def normalised(model: nn.Module) -> bool:
    """Whether there is a BatchNorm in it."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


class Rival(Scheduled):
    """One optimizer of a package in the place of the league's; ``copies`` is by the league's optimizer."""

    name: ClassVar[str]
    copies: ClassVar[dict[str, int]]

    def __init__(self, task: Task, cell: Cell, optimizer: str, recipe: str = "documented") -> None:
        check(self.name, CLASS[self.name], HORIZON[self.name], optimizer, recipe)
        self.task, self.cell, self.optimizer = task, cell, optimizer
        self.annealed, self.shape = recipe != "documented", "linear" if recipe == "linear" else "cosine"
        self.model, self.forwards = task.model, 0
        with contextlib.redirect_stdout(None):
            self.own = self.made([p for p in task.model.parameters() if p.requires_grad])
        self.optimizers = [self.own]
        self.schedulers = self.schedules() if self.annealed else []

    def made(self, parameters: list[nn.Parameter]) -> Any:
        """The optimizer."""
        raise NotImplementedError

    def schedules(self) -> list[Any]:
        """What anneals it."""
        steps = self.cell.steps
        return [glyder.AnnealedLR(self.own, steps, self.shape, warmup=warmup_steps("glyder", steps))]

    @property
    def group(self) -> dict[str, Any]:
        return self.own.param_groups[0]

    def refresh(self, model: nn.Module) -> None:
        """Statistics of BatchNorm that belong to the weights as they are now."""
        if normalised(model):
            model.train()
            with torch.no_grad():
                for batch in islice(self.task.batches, REFRESHED):
                    self.task.loss(model, batch)
            self.forwards += REFRESHED

    def cost(self) -> tuple[float, int]:
        return float(self.forwards), self.copies[self.optimizer]


class Prodigy(Rival):
    """lr = 1, all defaults; ``safeguard_warmup`` with the warm-up, as its README asks."""

    name = "prodigy"
    copies: ClassVar = {"AdamW": 2}

    def made(self, parameters: list[nn.Parameter]) -> Any:
        kind = package("prodigyopt").Prodigy
        return kind(parameters, lr=1.0, weight_decay=DECAY, safeguard_warmup=self.annealed)

    def rate(self) -> float:
        return float(self.group["d"] * self.group["lr"])


class ScheduleFree(Rival):
    """lr = 1 for SGD, 0.0025 for AdamW, warm-up of 5 %; annealed: nothing but glyder's warm-up in its place."""

    name = "schedulefree"
    copies: ClassVar = {"SGD": 1, "AdamW": 0}

    def made(self, parameters: list[nn.Parameter]) -> Any:
        kinds = package("schedulefree")
        warm = warmup_steps("glyder" if self.annealed else "5%", self.cell.steps)
        if self.optimizer == "SGD":
            made = kinds.SGDScheduleFree(parameters, lr=1.0, warmup_steps=warm)
        else:
            made = kinds.AdamWScheduleFree(parameters, lr=0.0025, weight_decay=DECAY, warmup_steps=warm)
        made.train()
        return made

    def schedules(self) -> list[Any]:
        return []

    def rate(self) -> float:
        return float(self.group["scheduled_lr"])

    def finish(self) -> nn.Module:
        self.own.eval()
        self.refresh(self.model)
        return self.model


class DAdaptation(Rival):
    """lr = 1, all defaults; its README says "the scheduler you would normally use"."""

    name = "dadaptation"
    copies: ClassVar = {"SGD": 3, "AdamW": 1}

    def made(self, parameters: list[nn.Parameter]) -> Any:
        kinds = package("dadaptation")
        if self.optimizer == "SGD":
            return kinds.DAdaptSGD(parameters, lr=1.0)
        return kinds.DAdaptAdam(parameters, lr=1.0, weight_decay=DECAY, decouple=True)

    def rate(self) -> float:
        return float(self.group["d"] * self.group["lr"] / self.group.get("g0_norm", 1.0))


class DoG(Rival):
    """lr = 1 and averaging by polynomial decay; the schedules without warm-up, for its steps start tiny."""

    name = "dog"
    kind: ClassVar = "DoG"
    copies: ClassVar = {"SGD": 2}

    def made(self, parameters: list[nn.Parameter]) -> Any:
        kinds = package("dog")
        self.averager = kinds.PolynomialDecayAverager(self.model)
        return getattr(kinds, self.kind)(parameters, reps_rel=1e-4 if normalised(self.model) else 1e-6)

    def schedules(self) -> list[Any]:
        return [glyder.AnnealedLR(self.own, self.cell.steps, self.shape)]

    def step(self, loss: Tensor) -> None:
        super().step(loss)
        self.averager.step()

    def rate(self) -> float:
        """The mean over the tensors, which differ for L-DoG."""
        return float(torch.stack(self.group["eta"]).mean())

    def finish(self) -> nn.Module:
        averaged: nn.Module = self.averager.averaged_model
        self.refresh(averaged)
        return averaged


class LDoG(DoG):
    name = "ldog"
    kind = "LDoG"


class MoMo(Rival):
    """lr = 1 for MoMo, 0.01 for MoMo-Adam, lower bound 0; ``rate`` is the cap of its step."""

    name = "momo"
    copies: ClassVar = {"momentum": 0, "AdamW": 0}

    def made(self, parameters: list[nn.Parameter]) -> Any:
        kinds = package("momo")
        if self.optimizer == "momentum":
            return kinds.Momo(parameters, lr=1.0)
        return kinds.MomoAdam(parameters, lr=1e-2, weight_decay=DECAY)

    def step(self, loss: Tensor) -> None:
        self.own.step(loss=loss)
        for each in self.schedulers:
            each.step()


class Mechanic(Rival):
    """Around the league's optimizer at lr = 1, all defaults."""

    name = "mechanic"
    copies: ClassVar = {"SGD": 1, "momentum": 1, "AdamW": 1}

    def made(self, parameters: list[nn.Parameter]) -> Any:
        mechanize = package("mechanic_pytorch").mechanize
        if self.optimizer == "AdamW":
            return mechanize(torch.optim.AdamW)(parameters, lr=1.0)
        momentum = 0.9 if self.optimizer == "momentum" else 0.0
        return mechanize(torch.optim.SGD)(parameters, lr=1.0, momentum=momentum)

    def rate(self) -> float:
        return float(self.group["lr"] * self.own.state["_mechanic"]["s"].sum())


class _Carried:
    """A batch as GeN's ``image_cls`` task wants its inputs."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def to(self, device: Any) -> _Carried:
        return self


class _Forward:
    """A task's loss as GeN wants a net: parameters, and a call on what its iterator gave."""

    def __init__(self, task: Task) -> None:
        self.task, self.parameters = task, task.model.parameters

    def __call__(self, carried: _Carried) -> Tensor:
        return self.task.loss(self.task.model, carried.batch)


class GeN(Rival):
    """From 1e-4, a parabola through three losses every 4 updates, on batches of an iterator of its own.

    Annealed: its own rate as it is, but steps of this rate times the schedule, which is the formula of its README (the
    package's ``scale`` reaches only a tenth of a new rate).
    """

    name = "gen"
    copies: ClassVar = {"SGD": 1, "momentum": 1, "AdamW": 1}

    def made(self, parameters: list[nn.Parameter]) -> Any:
        self.fit = functools.partial(package("GeN").lr_parabola, task="image_cls", criterion=lambda loss, _: loss)
        with torch.random.fork_rng(devices=[]):
            batches = self.cell.build(torch.initial_seed()).batches
        self.carried = ((_Carried(batch), _Carried(None)) for batch in batches)
        self.count = 0
        return optimizers.make(self.optimizer, self.model, 1e-4)[0]

    def schedules(self) -> list[Any]:
        steps, unit = self.cell.steps, torch.optim.SGD([torch.zeros(1)], lr=1.0)
        return [glyder.AnnealedLR(unit, steps, self.shape, warmup=warmup_steps("glyder", steps))]

    def step(self, loss: Tensor) -> None:
        if self.count % EVERY == EVERY - 1:
            with contextlib.redirect_stdout(None):
                self.fit(_Forward(self.task), self.own, tr_iter=self.carried)
            self.forwards += 3
        rate = self.group["lr"]
        self.group["lr"] = rate * (self.schedulers[0].factor(self.count) if self.annealed else 1.0)
        self.own.step()
        self.group["lr"] = rate
        self.count += 1


RIVALS: dict[str, Maker] = {
    kind.name: kind for kind in (Prodigy, ScheduleFree, DAdaptation, DoG, LDoG, MoMo, Mechanic, GeN)
}
