"""the published runs of two rates that move themselves, at a small scale.

The Newton-based trainable rate (TLR, Retsinas et al.) on an MLP, against hypergradients in windows on a residual net,
over SGD and Adam on a translator; hypergradient descent (1703.04782) on its MLP. Lines, figure and tables go to
``benchmarks/results/papers/ntlr.*``; runs whose lines are there are not run again, and the report is of those there.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import glyder
from benchmarks.harness.train import POINTS, updates
from benchmarks.papers.common import Trial
from benchmarks.tasks import cifar_wrn, multi30k
from benchmarks.tasks.common import data
from benchmarks.tasks.common.rows import classification
from benchmarks.tasks.common.task import Problem

# ---- tasks: what TASKS makes is a problem and the updates of an epoch

MNIST_ROWS = 60_000
MNIST_EPOCHS, HD_MNIST_EPOCHS = 3, 2
WRN_ROWS, WRN_EPOCHS = 4096, 3
MULTI30K_BATCH, MULTI30K_STEPS, MULTI30K_EPOCH = 32, 400, 100
"""Only the length of a window depends on the translator's epoch: 3,200 captions, new ones each time."""


def dropout_mlp() -> nn.Module:
    """784-512-256-10 with dropout 0.5: TLR's, as in its code (its text has one hidden layer of 1000)."""
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(784, 512), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(512, 256), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(256, 10),
    )


def mlp() -> nn.Module:
    """784-1000-1000-10: hypergradient descent's."""
    layers = nn.Linear(784, 1000), nn.ReLU(), nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 10)
    return nn.Sequential(nn.Flatten(), *layers)


@functools.cache
def whole_mnist(mean: float, deviation: float) -> data.Parts:
    """60,000 to train and 10,000 to test, scaled, as in both codes."""
    parts = data.mnist(test=10_000, validation=0)
    return {name: ((x - mean) / deviation, y) for name, (x, y) in parts.items()}


def mnist(seed: int, batch: int) -> tuple[Problem, int]:
    return classification(dropout_mlp, whole_mnist(0.5, 0.5), batch, seed), MNIST_ROWS // batch


def hd_mnist(seed: int, batch: int) -> tuple[Problem, int]:
    return classification(mlp, whole_mnist(0.1307, 0.3081), batch, seed), MNIST_ROWS // batch


def wrn(seed: int, batch: int) -> tuple[Problem, int]:
    x, y = (part[:WRN_ROWS] for part in data.cifar()["train"])
    batches = cifar_wrn.augmented(x, y, batch, seed)
    return dataclasses.replace(cifar_wrn.build(seed), batches=batches), WRN_ROWS // batch


def translator(seed: int, batch: int) -> tuple[Problem, int]:
    if batch != MULTI30K_BATCH:
        raise ValueError(f"translator(batch=...) must be {MULTI30K_BATCH}, got {batch}")
    return multi30k.build(seed), MULTI30K_EPOCH


TASKS: dict[str, Callable[[int, int], tuple[Problem, int]]] = {
    "mnist": mnist,
    "hd-mnist": hd_mnist,
    "wrn": wrn,
    "multi30k": translator,
}
NEEDS = {"mnist": "mnist", "hd-mnist": "mnist", "wrn": "cifar", "multi30k": "multi30k"}

# ---- what moves the rate

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "SGD 0.8": functools.partial(torch.optim.SGD, momentum=0.8, weight_decay=5e-4),
    "SGD": torch.optim.SGD,
    "Adam": torch.optim.Adam,
    "HD's SGD": functools.partial(torch.optim.SGD, weight_decay=1e-4),
    "HD's SGDN": functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "HD's Adam": functools.partial(torch.optim.Adam, weight_decay=1e-4),
}
"""With the options of the papers' codes."""

TEXT = {"fraction": 0.2, "gamma": 0.33}
CODE = {"fraction": 1 / 3, "gamma": 0.2, "reference": True}
"""TLR's defaults, in its text and in its code, which differ."""

Made = tuple[LRScheduler, bool]


def annealed(optimizer: Optimizer, model: nn.Module, steps: int, epoch: int, **options: Any) -> Made:
    return glyder.AnnealedLR(optimizer, steps, **options), False


def newton(optimizer: Optimizer, model: nn.Module, steps: int, epoch: int, **options: Any) -> Made:
    return glyder.NewtonLR(optimizer, batches_per_epoch=epoch, **options), False


def hypergradient(optimizer: Optimizer, model: nn.Module, steps: int, epoch: int, **options: Any) -> Made:
    return glyder.HypergradientLR(optimizer, **options), False


def windowed(
    optimizer: Optimizer, model: nn.Module, steps: int, epoch: int, *, fraction: float, beta: float, form: str
) -> Made:
    """Hypergradient over windows of TLR's length. A window's vectors are averages in the paper and sums here, hence
    1/K^2 in the additive form; the multiplicative form does not depend on it."""
    every = max(1, int(fraction * epoch))
    beta = beta / every**2 if form == "additive" else beta
    return glyder.HypergradientLR(optimizer, every=every, beta=beta, form=form), False


def armijo(optimizer: Optimizer, model: nn.Module, steps: int, epoch: int, **options: Any) -> Made:
    return glyder.ArmijoLR(optimizer, model, batches_per_epoch=epoch, **options), True


def polyak(optimizer: Optimizer, model: nn.Module, steps: int, epoch: int, **options: Any) -> Made:
    return glyder.PolyakLR(optimizer, batches=epoch, **options), False


def descent(optimizer: Optimizer, model: nn.Module, steps: int, epoch: int, **options: Any) -> Made:
    return glyder.GlyderLR(optimizer, model, total_steps=steps, **options), False


RULES: dict[str, Callable[..., Made]] = {
    "annealed": annealed,
    "newton": newton,
    "hypergradient": hypergradient,
    "windowed": windowed,
    "armijo": armijo,
    "polyak": polyak,
    "descent": descent,
}

# ---- the runs


@dataclasses.dataclass(frozen=True)
class Arm:
    """An optimizer with its starting rate and what moves the rate."""

    name: str
    optimizer: str
    lr: float
    rule: str = "annealed"
    options: dict[str, Any] = dataclasses.field(default_factory=lambda: {"anneal": "constant"})

    def trial(self, task: str, seed: int, batch: int, steps: int) -> Trial:
        made = {"optimizer": self.optimizer, "lr": self.lr, "rule": self.rule, "options": self.options}
        return Trial(task, seed, {"batch": batch, "steps": steps} | made)


STARTS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
TINY = 1e-9


def tlr(lr: float, name: str = "TLR", optimizer: str = "SGD 0.8", **options: Any) -> Arm:
    return Arm(name, optimizer, lr, "newton", TEXT | options)


def start_arms() -> list[Arm]:
    """TLR next to the rate it starts from, with the guards of its text and as its code is."""
    return [
        arm
        for lr in (*STARTS, TINY)
        for arm in (Arm("SGD", "SGD 0.8", lr), tlr(lr), Arm("TLR, its code", "SGD 0.8", lr, "newton", CODE))
    ]


SHARES = (0.05, 0.1, 0.2, 0.33, 0.5)
GAMMAS = (0.1, 0.2, 0.33, 0.5)
CURVE_STARTS = (1e-3, 1e-1)


def curve_arms() -> list[Arm]:
    shares = [tlr(lr, fraction=p) for lr in CURVE_STARTS for p in SHARES]
    return shares + [tlr(lr, gamma=g) for lr in CURVE_STARTS for g in GAMMAS]


def baseline_arms() -> list[Arm]:
    """Rates as published; 0.1 starts TLR as it starts the tuned schedule. GlyderLR takes no rate."""
    return [
        Arm("SGD, multistep", "SGD 0.8", 0.1, "annealed", {"anneal": "multistep"}),
        Arm("Adam", "Adam", 1e-3),
        Arm("SLS (ArmijoLR)", "SGD", 1.0, "armijo", {}),
        Arm("SPS (PolyakLR)", "SGD", 1.0, "polyak", {"c": 0.2, "gamma": 2.0}),
        Arm("GlyderLR", "SGD 0.8", 0.1, "descent", {}),
        tlr(0.1, "TLR from 0.1"),
        tlr(1e-3, "TLR from 0.001"),
    ]


WINDOWED_STARTS = (1e-1, 1e-2, 1e-3)
BATCHES = (16, 32, 64, 128)
"""A quarter of the paper's, so that windows have 51, 25, 12 and 6 updates; they are a third of the paper's, then."""

TOO_LARGE = 512
"""The paper's largest batch, which leaves windows of one update here."""

FORMS = (("additive", 1e-1), ("additive", 1e-2), ("multiplicative", 1e-4), ("multiplicative", 1e-5))


def windowed_arms() -> list[Arm]:
    """TLR's Table 1."""
    return [
        arm
        for lr in WINDOWED_STARTS
        for arm in (
            tlr(lr),
            *(
                Arm(f"{form} {beta:g}", "SGD 0.8", lr, "windowed", {"fraction": 0.2, "beta": beta, "form": form})
                for form, beta in FORMS
            ),
        )
    ]


def hypergradient_arms() -> list[Arm]:
    arms = []
    for name, beta in (("SGD", 1e-3), ("SGDN", 1e-3), ("Adam", 1e-7)):
        arms += [
            Arm(name, f"HD's {name}", 1e-3),
            Arm(f"{name}-HD", f"HD's {name}", 1e-3, "hypergradient", {"beta": beta}),
        ]
    return arms


def translator_arms() -> list[Arm]:
    """From a usual rate and from one that is 100 times too small."""
    arms = []
    for optimizer, rates in (("SGD 0.8", (1e-1, 1e-3)), ("Adam", (1e-3, 1e-5))):
        for lr in rates:
            arms += [Arm(optimizer, optimizer, lr), tlr(lr, f"TLR over {optimizer}", optimizer)]
    return arms


MNIST_STEPS = MNIST_EPOCHS * (MNIST_ROWS // 128)
HD_MNIST_STEPS = HD_MNIST_EPOCHS * math.ceil(MNIST_ROWS / 128)


def on(task: str, arms: Iterable[Arm], seeds: Iterable[int], batch: int, steps: int) -> list[Trial]:
    return [arm.trial(task, seed, batch, steps) for seed in seeds for arm in arms]


def on_wrn(batches: Iterable[int]) -> list[Trial]:
    return [
        trial
        for batch in batches
        for trial in on("wrn", windowed_arms(), (1,), batch, WRN_EPOCHS * (WRN_ROWS // batch))
    ]


def trials() -> list[Trial]:
    """All runs, the most wanted first, each once."""
    wanted = [
        *on("mnist", start_arms(), (1,), 128, MNIST_STEPS),
        *on("hd-mnist", hypergradient_arms(), (1,), 128, HD_MNIST_STEPS),
        *on_wrn((64, 128)),
        *on("mnist", baseline_arms(), (1,), 128, MNIST_STEPS),
        *on_wrn((32,)),
        *on("mnist", curve_arms(), (1,), 128, MNIST_STEPS),
        *on("multi30k", translator_arms(), (1,), MULTI30K_BATCH, MULTI30K_STEPS),
        *on_wrn((16, TOO_LARGE)),
        *on("mnist", [tlr(lr) for lr in (*STARTS, TINY)], (2,), 128, MNIST_STEPS),
    ]
    return list({trial.key: trial for trial in wanted}.values())


def train(trial: Trial) -> dict[str, Any]:
    """Curves of loss and rate, means over POINTS parts of the run, and scores on the test part.

    ``loss``: mean over the last fifth of an epoch, dropout included, as TLR's code reports it. A run that was not
    finite has neither it nor scores, nor are there scores that are not finite.
    """
    options, began = trial.options, time.process_time()
    problem, epoch = TASKS[trial.experiment](trial.seed, options["batch"])
    optimizer = OPTIMIZERS[options["optimizer"]](problem.model.parameters(), lr=options["lr"])
    rule = RULES[options["rule"]]
    scheduler, by_closure = rule(optimizer, problem.model, options["steps"], epoch, **options["options"])
    rates: list[float] = []
    optimizer.register_step_post_hook(lambda *_: rates.append(float(optimizer.param_groups[0]["lr"])))
    losses = list(updates(problem, optimizer, scheduler, options["steps"], by_closure=by_closure))
    finite = math.isfinite(losses[-1]) and all(bool(p.isfinite().all()) for p in problem.model.parameters())
    scores = problem.evaluate(problem.model, "test") if finite else {}
    last = losses[-max(1, epoch // 5) :]
    return {
        "loss": float(np.mean(last)) if finite else None,
        "test": scores if all(map(math.isfinite, scores.values())) else {},
        "rate": rates[-1],
        "losses": _short(losses),
        "rates": _short(rates),
        "reasons": dict(getattr(scheduler, "reasons", {})),
        "passes": float(getattr(scheduler, "cost", (0.0, 0))[0]),
        "seconds": round(time.process_time() - began, 2),
    }


def _short(values: Sequence[float]) -> list[float | None]:
    means = [float(np.mean(part)) for part in np.array_split(np.array(values), min(POINTS, len(values)))]
    return [float(f"{v:.4g}") if math.isfinite(v) else None for v in means]
