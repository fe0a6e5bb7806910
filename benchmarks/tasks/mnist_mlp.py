"""MLP 784-256-128-10 on MNIST, and what stretches it: batch, scale of the inputs; and one with zero branches."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.rows import classification
from benchmarks.tasks.common.task import Problem, Task

CENTRE = {"SGD": -0.5, "momentum": -1.5, "AdamW": -2.5}


class ZeroBranch(nn.Module):
    """x + W2 relu(W1 x) with W2 = 0 at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(torch.relu(self.inner(x)))


def mlp(gain: float = 1.0, zero_branch: bool = False) -> nn.Module:
    first = nn.Linear(784, 256)
    if zero_branch:
        rest = [ZeroBranch(256), ZeroBranch(256), nn.Linear(256, 10)]
    else:
        rest = [nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)]
    return nn.Sequential(Scaled(gain), nn.Flatten(), first, nn.ReLU(), *rest)


class Scaled(nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return x if self.gain == 1 else x * self.gain


def build(seed: int, batch: int = 64, **model: Any) -> Problem:
    return classification(partial(mlp, **model), data.mnist(), batch, seed)


def task(
    suffix: str, steps: int, stretch: str = "", centre: float = 0.0, suites: tuple[str, ...] = ("full",), **how: Any
) -> Task:
    return Task(
        name="mnist-mlp" + suffix,
        family="mnist-mlp",
        build=partial(build, **how),
        steps=steps,
        centre={name: peak + centre for name, peak in CENTRE.items()},
        stretch=stretch,
        needs=("mnist",),
        suites=suites,
    )


TASKS = (
    task("", 1000, suites=("quick", "full")),
    task("-b512", 200, "batch 512", batch=512),
    task("-raw", 500, "raw inputs 0..255", centre=-2.0, gain=255.0),
    dataclasses.replace(
        task("-zero", 500, "zero-initialised residual branches", zero_branch=True), family="mnist-zero"
    ),
)
