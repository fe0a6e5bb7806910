"""Small wide residual net (BatchNorm) on augmented CIFAR-10, and with residual branches that start at 0."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.rows import classification
from benchmarks.tasks.common.task import Batch, Problem, Task, shuffled

CENTRE = {"SGD": -0.5, "momentum": -1.0, "AdamW": -2.0}


class Residual(nn.Module):
    """Pre-activation with one more norm at the end of the branch: a zero before a ReLU would never be left."""

    def __init__(self, inputs: int, outputs: int, stride: int, zero: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.skip = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        if zero:
            nn.init.zeros_(self.branch[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        active = torch.relu(self.norm(x))
        return (x if self.skip is None else self.skip(active)) + self.branch(active)


def net(zero: bool = False) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False),
        Residual(16, 16, 1, zero),
        Residual(16, 32, 2, zero),
        Residual(32, 64, 2, zero),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def augmented(x: Tensor, y: Tensor, batch: int, seed: int, pad: int = 4) -> Iterator[Batch]:
    """Batches of random crops and flips."""
    generator = torch.Generator().manual_seed(seed + 1_000_000)
    size, rows = x.shape[-1], torch.arange(batch)
    for index in shuffled(len(y), batch, seed):
        down, right = torch.randint(2 * pad + 1, (2, batch), generator=generator)
        crops = F.pad(x[index], (pad,) * 4).unfold(2, size, 1).unfold(3, size, 1)[rows, :, down, right]
        flip = torch.rand(batch, 1, 1, 1, generator=generator) < 0.5
        yield torch.where(flip, crops.flip(3), crops), y[index]


def build(seed: int, zero: bool = False) -> Problem:
    problem = classification(partial(net, zero), data.cifar(), 64, seed)
    return dataclasses.replace(problem, batches=augmented(*data.cifar()["train"], 64, seed))


TASKS = (
    Task("cifar-wrn", "cifar-wrn", build, 300, CENTRE, needs=("cifar",)),
    Task("cifar-wrn-zero", "cifar-wrn", partial(build, zero=True), 300, CENTRE, "branches start at 0", ("cifar",)),
)
