"""What the estimator, additional mini-batches, errors of L and the measuring interval do to glyder.

Whole runs (:func:`study`), in glyder's own recipe and in the published one; and two small experiments on the side
(at the end): the share of the best one-step gain that an estimate keeps, and the wall time of a measurement.
"""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.league import data
from benchmarks.league.cost import in_turn
from benchmarks.league.methods import Glyder, Scheduled
from benchmarks.league.train import TUNING_SEEDS, Run, recorded
from benchmarks.league.tuning import Study
from benchmarks.league.workload import Batch, Cell, Task, cells
from glyder.direction import Direction
from glyder.estimators import Estimator, GaussNewton, GaussNewtonBartlett, Measured, Projection, Sample
from glyder.sampling import Sampler

METHOD = "glyder-ablated"
SEEDS = TUNING_SEEDS[:2]
PUBLISHED = {"refresh": "always", "anneal": None}
MODES: dict[str, dict[str, Any]] = {"window": {}, "published": PUBLISHED}

ESTIMATORS: dict[str, Callable[[], Estimator]] = {
    "gauss-newton": GaussNewton,
    "gnb": GaussNewtonBartlett,
    "gnb-8": lambda: GaussNewtonBartlett(8),
    "hvp": lambda: Projection("hvp"),
    "gradient": lambda: Projection("gradient"),
    "loss": lambda: Projection("loss"),
}
"""The exact form of Gauss-Newton-Bartlett, its mean over all labels, is ``gauss-newton``; ``gnb-8`` draws eight."""

BATCHES = (0, 1, 2, 4, 8)
"""Additional mini-batches a measurement; 0 is the training stream."""
FACTORS = (0.1, 0.3, 3.0, 10.0)
SIGMAS = (0.5, 1.0)
INTERVALS = (1, 20)
COSTLY = ("digits-conv",)
"""Cells that are run by glyder's own recipe alone: the published one measures eight batches to the end."""


@dataclass(frozen=True)
class Wrong(Estimator):
    """``inner`` with its curvature times ``factor`` and log-normal noise of mean 1 and deviation ``sigma`` of the log.

    Where the slope is measured behind the update, glyder refers it back by the curvature, so that a wrong L changes
    both; with ``slope_kept`` it changes L alone, as theory has it.
    """

    inner: Estimator
    factor: float = 1.0
    sigma: float = 0.0
    slope_kept: bool = False

    @property
    def needs_loss(self) -> bool:  # type: ignore[override]
        return self.inner.needs_loss

    @property
    def passes(self) -> float:  # type: ignore[override]
        return self.inner.passes

    def measure(self, direction: Direction, sample: Sample, draw: int) -> Measured:
        found = self.inner.measure(direction, sample, draw)
        noise = self.sigma * random.Random(draw).gauss(0, 1) - self.sigma**2 / 2
        curvature = self.factor * math.exp(noise) * found.curvature
        slope = found.slope + (1 - direction.origin) * (found.curvature - curvature) * self.slope_kept
        return dataclasses.replace(found, slope=slope, curvature=curvature)


class Ablated(Glyder):
    """Glyder with one of :data:`ESTIMATORS`, additional mini-batches of an order of their own, and a wrong L."""

    def __init__(
        self, task: Task, cell: Cell, optimizer: str, estimator: str = "gauss-newton", batches: int = 0,
        factor: float = 1.0, sigma: float = 0.0, slope_kept: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        chosen = ESTIMATORS[estimator]()
        if (factor, sigma) != (1.0, 0.0):
            chosen = Wrong(chosen, factor, sigma, slope_kept)
        if batches:
            with torch.random.fork_rng(devices=[]):
                others = cell.build(torch.initial_seed() + 500).batches
            options |= {"batches": lambda: next(others), "n_batches": batches, "loss": task.loss}
        elif chosen.needs_loss:
            task.batches = self._remembered(task.batches)
            options["loss"] = lambda model, call: task.loss(model, self.batch)
        super().__init__(task, cell, optimizer, estimator=chosen, **options)

    def _remembered(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, the latest kept: the training stream knows its inputs, not its labels."""
        for self.batch in batches:
            yield self.batch


def settings() -> list[dict[str, Any]]:
    """Estimator by batches in full, all else one at a time around the default: options of :class:`Ablated`.

    Eight batches with one draw each have the draws of ``gnb-8``, which therefore has the training stream alone.
    """
    found = [{"estimator": name, "batches": m} for name in ESTIMATORS for m in BATCHES if name != "gnb-8" or m == 0]
    found += [{"factor": k} for k in FACTORS] + [{"factor": k, "slope_kept": True} for k in FACTORS]
    found += [{"sigma": sigma} for sigma in SIGMAS] + [{"every": every} for every in INTERVALS]
    return [plain(options) for options in found]


def plain(options: dict[str, Any]) -> dict[str, Any]:
    """Without what is the default anyway: one setting, one key."""
    default = {"estimator": "gauss-newton", "batches": 0, "factor": 1.0, "slope_kept": False, "every": 5}
    return {name: value for name, value in options.items() if default.get(name) != value}


def runs(cell: Cell, optimizer: str, mode: str, **options: Any) -> list[Run]:
    """One setting on every seed."""
    return [Run(cell.name, optimizer, METHOD, seed, plain(options) | MODES[mode]) for seed in SEEDS]


def study(cell: Cell, optimizer: str) -> Study:
    """Every setting in both modes, but for :data:`COSTLY` cells."""
    modes = ("window",) if cell.name in COSTLY else tuple(MODES)
    yield [run for mode in modes for options in settings() for run in runs(cell, optimizer, mode, **options)]


# ---- experiments on the side

GAIN, COST = "glyder-gain", "glyder-cost"
GAIN_CELL, GAIN_RATE = "digits-mlp", 0.1
TRAINED = (0, 100, 400)
"""Updates of SGD before the one-step gain is measured."""
SHARES = (0.1, 0.3, 1.0, 1.7, 3.0)
"""Multiples c of the locally optimal rate."""
DIRECTIONS = 6
TIMED = 60
"""Updates whose wall time is taken."""


def path(folder: Path) -> Path:
    """Where the results of the experiments lie, beside those of the runs."""
    return folder / "ablations.jsonl"


def gain_study() -> Study:
    """Ask for the one-step gains."""
    yield [Run(GAIN_CELL, "SGD", GAIN, seed, {"updates": count}) for count in TRAINED for seed in SEEDS]


def cost_study(found: Sequence[Cell]) -> Study:
    """Ask for the cost of every estimator on ``found``."""
    yield [
        Run(cell.name, "SGD", COST, SEEDS[0], {"estimator": name, "batches": m})
        for cell in found
        for name in ESTIMATORS
        for m in (0, 1)
    ]


def execute(run: Run) -> dict[str, Any]:
    """As ``train.execute``, for the experiments."""
    return recorded(run, {GAIN: gains, COST: cost}[run.method])


def gains(run: Run) -> dict[str, Any]:
    """Shares of the best one-step gain on the whole training set, along gradients of single mini-batches.

    ``wrong`` maps an estimator on the whole set, or ``"best"``, to the shares at c times its rate, ``estimated`` an
    estimator and a number of mini-batches to the shares at the rates found from them; lists over all directions.
    """
    task = cells()[run.cell].build(run.seed)
    params = list(task.model.parameters())
    optimizer = torch.optim.SGD(params, lr=GAIN_RATE)
    for _ in range(run.options["updates"]):
        optimizer.zero_grad()
        task.loss(task.model, next(task.batches)).backward()
        optimizer.step()
    whole = data.digits()["train"]
    full = Sampler(task.model, task.loss, None, lambda: whole, 1, run.seed)
    mini = Sampler(task.model, task.loss, None, lambda: next(task.batches), max(BATCHES), run.seed)
    wrong: dict[str, list[list[float]]] = {"gauss-newton": [], "hvp": [], "best": []}
    estimated: dict[str, dict[int, list[float]]] = {name: {m: [] for m in BATCHES if m} for name in ESTIMATORS}
    rates = []
    for i in range(DIRECTIONS):
        d = list(torch.autograd.grad(task.loss(task.model, next(task.batches)), params))
        direction = Direction(task.model, params, d, range(len(d)))
        line = Line(task, whole, params, d)
        sample = full.samples(direction, i)
        optimal = {n: rate([ESTIMATORS[n]().measure(direction, sample[0], i)]) for n in ("gauss-newton", "hvp")}
        rates.append(optimal["gauss-newton"])
        optimal["best"], best = line.best(8 * rates[-1])
        for name, shares in wrong.items():
            shares.append([line.gain(c * optimal[name]) / best for c in SHARES])
        samples = mini.samples(direction, i * mini.n_batches)
        for name, by_batches in estimated.items():
            estimator = ESTIMATORS[name]()
            seen = [estimator.measure(direction, s, i * len(samples) + k) for k, s in enumerate(samples)]
            for m, shares in by_batches.items():
                shares += [line.gain(rate(seen[k : k + m])) / best for k in range(0, len(seen), m)]
    return {"rate": statistics.median(rates), "rates": rates, "wrong": wrong, "estimated": estimated}


def rate(seen: Sequence[Measured]) -> float:
    """The locally optimal rate from averages; 0, no step, where there is none."""
    slope, curvature = sum(m.slope for m in seen), sum(m.curvature for m in seen)
    return slope / curvature if slope > 0 and curvature > 0 else 0.0


@dataclass
class Line:
    """The loss on ``batch`` along x - eta d."""

    task: Task
    batch: Batch
    params: list[nn.Parameter]
    d: Sequence[Tensor]

    def __post_init__(self) -> None:
        self.here = [p.detach().clone() for p in self.params]
        self.initial = self._loss()

    @torch.no_grad()
    def _loss(self) -> float:
        return float(self.task.loss(self.task.model, self.batch))

    @torch.no_grad()
    def gain(self, eta: float) -> float:
        """f(x) - f(x - eta d). Leaves the model at x."""
        for p, x, d in zip(self.params, self.here, self.d, strict=True):
            p.copy_(x - eta * d)
        found = self.initial - self._loss()
        for p, x in zip(self.params, self.here, strict=True):
            p.copy_(x)
        return found

    def best(self, furthest: float, points: int = 40, rounds: int = 3) -> tuple[float, float]:
        """The best rate and its gain: on a grid, again on finer ones around its best."""
        low, high = 0.0, furthest
        for _ in range(rounds):
            grid = [low + (high - low) * k / points for k in range(points + 1)]
            found = [self.gain(eta) for eta in grid]
            at = found.index(max(found))
            low, high, points = grid[max(0, at - 1)], grid[min(points, at + 1)], 8
        return grid[at], found[at]


def cost(run: Run) -> dict[str, Any]:
    """Forward passes a measurement, and wall time of a measured update over that of a plain one, less the update.

    Updates of both kinds alternate; times are lower quartiles, for a busy machine only adds.
    """
    cell = cells()[run.cell]
    tasks = [cell.build(run.seed) for _ in range(2)]
    torch.manual_seed(run.seed)
    measured = Ablated(tasks[1], cell, run.optimizer, every=1, **run.options, **PUBLISHED)
    took = in_turn(cell, tasks, [Scheduled(tasks[0], run.optimizer, 1e-3), measured], TIMED, 1)
    step, both = (statistics.quantiles(times[10:], n=4)[0] for times in took)
    forwards = measured.cost()[0] / int(np.isfinite(measured.scheduler.history["curvature"]).sum())
    return {"rate": both / step - 1, "step": step, "measurement": both - step, "forwards": forwards}
