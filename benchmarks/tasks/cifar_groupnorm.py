"""Convolutional net with GroupNorm and dropout on CIFAR-10."""

from __future__ import annotations

from torch import nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.rows import classification
from benchmarks.tasks.common.task import Problem, Task

CENTRE = {"SGD": -0.5, "momentum": -1.3, "AdamW": -2.3}


def net() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.GroupNorm(8, outputs), nn.ReLU(), nn.Dropout(0.1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4 * 4, 10))


def build(seed: int) -> Problem:
    return classification(net, data.cifar(), 64, seed)


TASKS = (Task("cifar-groupnorm", "cifar-groupnorm", build, 500, CENTRE, "dropout", ("cifar",)),)
