"""A geometric ramp: the rate rises by a constant factor an update until the loss is gone; and what on its way tells of
the tuned peak.

With d_t = x_t - x_{t+1}, made at the rate eta_t, and the gradient g_{t+1} of the next batch, the witnesses are the
rates (as log10) at which the cosine of the two crosses zero, the loss is least, loss or gradient have risen, and the
rate at which a run makes a random walk of the length of its parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from benchmarks.harness.train import updates
from benchmarks.methods import optimizers
from benchmarks.tasks.common.task import Problem, Task

MEMORY = 0.2
"""Decades of the rate that smoothed values look back over, and by which they lag."""
FIRST = 1e-4
"""Relative displacement that the second update aims at; the first is a tenth of that or less."""
DECADES = 9.0
"""The longest ramp."""
YOUNG = 10
"""Updates at the beginning that no witness is looked for in."""
GONE = 3.0
"""The loss is gone where it is this many times the first."""


@dataclass
class Trace:
    """By update: log10 of the rate, the loss behind the update, and by tensor the products <g, d>, <d, d>, <g, g>."""

    pace: float
    matrices: np.ndarray  # which tensors have a vote: those of two dimensions or more, or where there are none, all
    lengths: np.ndarray  # ||x||^2 of each at the start
    rates: np.ndarray
    losses: np.ndarray
    products: np.ndarray  # [updates, 3, tensors]


class Ramp:
    """Sets the rates of a ramp, as a scheduler that is shown the loss, and keeps what it meets."""

    def __init__(self, problem: Problem, optimizer: Optimizer, pace: float) -> None:
        self.optimizer, self.pace, self.lr = optimizer, pace, 0.0
        self.params: list[Tensor] = [*problem.trained]
        self.lengths = _sums(self.params, self.params)
        matrices = np.array([p.ndim >= 2 for p in self.params])
        self.matrices = matrices if matrices.any() else ~matrices
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.products: list[np.ndarray] = []
        self.made: list[Tensor] = []

    def observe(self, loss: Tensor) -> None:
        """Before an update."""
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.params]
        if self.made:
            self.rates.append(math.log10(self.lr))
            self.losses.append(float(loss.detach()))
            self.products.append(
                np.array([_sums(a, b) for a, b in ((grads, self.made), (self.made,) * 2, (grads,) * 2)])
            )
        self.lr = self._next(grads)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        self.before = [p.detach().clone() for p in self.params]

    def step(self) -> None:
        """After it."""
        self.made = [b - p.detach() for b, p in zip(self.before, self.params, strict=True)]

    def _next(self, grads: list[Tensor]) -> float:
        """At first a rate for steps of which nothing is known but the gradient: as long as that, or 1 an entry."""
        if len(self.products) > 1:
            return self.lr * self.pace
        count = sum(p.numel() for p in self.params)
        length = self.lengths.sum() or count
        if not self.products:
            return 0.1 * FIRST * math.sqrt(length / max(_sums(grads, grads).sum(), count))
        return FIRST * self.lr / math.sqrt(self.products[0][1].sum() / length)

    @property
    def trace(self) -> Trace:
        seen = (np.array(values) for values in (self.rates, self.losses, self.products))
        return Trace(self.pace, self.matrices, self.lengths, *seen)


def _sums(a: list[Tensor], b: list[Tensor]) -> np.ndarray:
    """Inner products, tensor by tensor."""
    return np.array([float((x.detach().double() * y.detach().double()).sum()) for x, y in zip(a, b, strict=True)])


def climb(task: Task, optimizer: str, seed: int, pace: float) -> Trace:
    """A whole ramp."""
    problem = task.build(seed)
    torch.manual_seed(seed + 20_000)
    made = optimizers.make(optimizer, problem, 1.0, task.decay)
    ramp = Ramp(problem, made, pace)
    longest = math.ceil(DECADES / math.log10(pace))
    mean = first = math.nan
    for t, loss in enumerate(updates(problem, made, ramp, longest, clip=task.clip)):
        mean = loss if t == 0 else keep(pace) * mean + (1 - keep(pace)) * loss
        first = mean if t == 0 else first
        if t > 2 * YOUNG and mean > GONE * first:
            break
    return ramp.trace


def keep(pace: float) -> float:
    """What an exponential mean over ``MEMORY`` decades keeps from one update to the next."""
    return max(0.0, 1 - math.log10(pace) / MEMORY)


def smoothed(values: np.ndarray, pace: float) -> np.ndarray:
    """Exponential means along the first axis, bias-corrected."""
    found, mean, weight, kept = np.empty_like(values), np.zeros(values.shape[1:]), 0.0, keep(pace)
    for i, value in enumerate(values):
        mean, weight = kept * mean + (1 - kept) * value, kept * weight + (1 - kept)
        found[i] = mean / weight
    return found


def witnesses(trace: Trace, steps: int) -> dict[str, float]:
    """log10 of the rates that a trace tells, for a run of ``steps`` updates; where one is not met, the last rate."""
    whole = np.isfinite(trace.losses) & np.isfinite(trace.products).all((1, 2))
    count = len(whole) if whole.all() else int(np.argmin(whole))
    rates, losses, (gd, dd, gg) = trace.rates[:count], trace.losses[:count], trace.products[:count].swapaxes(0, 1)
    at = rates - MEMORY
    cosines = _cosine(gd, dd, gg)[:, trace.matrices]

    def first(found: np.ndarray) -> int:
        later = np.flatnonzero(found[YOUNG:])
        return YOUNG + int(later[0]) if len(later) else len(found) - 1

    def mean(values: np.ndarray) -> np.ndarray:
        return smoothed(values, trace.pace)

    voted, together = mean(cosines.mean(1)), mean(_cosine(gd.sum(1), dd.sum(1), gg.sum(1)))
    loss, length = mean(losses), mean(0.5 * np.log10(gg.sum(1)))
    least = int(np.argmin(loss))
    risen = (loss > loss[least] + 0.3 * abs(loss[0] - loss[least])) & (np.arange(count) > least)
    grown = length > np.minimum.accumulate(length) + math.log10(3)
    early = slice(YOUNG, max(YOUNG + 1, first(voted <= 0)))
    relative = dd[early] / 10 ** (2 * rates[early, None])
    votes = trace.matrices & (trace.lengths > 0)
    by_matrix = (relative[:, votes] / trace.lengths[votes]).sum(1).mean() if votes.any() else math.nan
    return {
        "mean cosine, first zero": at[first(voted <= 0)],
        "mean cosine, last zero": at[count - 1 - int(np.argmax(voted[::-1] > 0))],
        "whole vector's cosine, first zero": at[first(together <= 0)],
        "whole vector's cosine, last zero": at[count - 1 - int(np.argmax(together[::-1] > 0))],
        "mean of the matrices' first zeros": float(np.mean([at[first(mean(c) <= 0)] for c in cosines.T])),
        "least loss": at[least],
        "loss risen": at[first(risen)],
        "gradient threefold": at[first(grown)],
        "walk, sum over matrices": _walk(by_matrix, steps),
        "walk, whole vector": _walk(relative.sum(1).mean() / trace.lengths.sum(), steps),
    }  # fmt: skip


def _cosine(gd: np.ndarray, dd: np.ndarray, gg: np.ndarray) -> np.ndarray:
    """0 where one of the two is."""
    lengths = np.sqrt(dd * gg)
    return np.divide(gd, lengths, out=np.zeros_like(gd), where=lengths > 0)


def _walk(relative: float, steps: int) -> float:
    """The rate whose random walk is of length 1: the squares of a linear decay sum to a third of its updates."""
    return -0.5 * math.log10(relative * steps / 3) if relative > 0 and math.isfinite(relative) else math.nan
