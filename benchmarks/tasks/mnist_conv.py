"""Convolutional net with BatchNorm on MNIST, and at a large and a small batch."""

from __future__ import annotations

from functools import partial

from torch import nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.rows import classification
from benchmarks.tasks.common.task import Problem, Task

CENTRE = {"SGD": -0.5, "momentum": -1.0, "AdamW": -2.0}


def net() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4 * 4, 10))


def build(seed: int, batch: int = 64) -> Problem:
    return classification(net, data.mnist(), batch, seed)


TASKS = (
    Task("mnist-conv", "mnist-conv", build, 400, CENTRE, needs=("mnist",), suites=("quick", "full")),
    Task("mnist-conv-b512", "mnist-conv", partial(build, batch=512), 100, CENTRE, "batch 512", ("mnist",)),
    Task("mnist-conv-b8", "mnist-conv", partial(build, batch=8), 800, CENTRE, "batch 8", ("mnist",)),
)
