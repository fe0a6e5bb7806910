"""Convolutional autoencoder on MNIST, squared error."""

from __future__ import annotations

from torch import nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.rows import regression
from benchmarks.tasks.common.task import Problem, Task

CENTRE = {"SGD": -0.3, "momentum": -1.3, "AdamW": -2.3}


def net(code: int = 16) -> nn.Module:
    encoder = nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten()
    middle = nn.Linear(16 * 7 * 7, code), nn.Linear(code, 16 * 7 * 7), nn.ReLU(), nn.Unflatten(1, (16, 7, 7))
    decoder = nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 1, 4, 2, 1)
    return nn.Sequential(*encoder, *middle, *decoder)


def build(seed: int) -> Problem:
    return regression(net, {part: (x, x) for part, (x, _) in data.mnist().items()}, 64, seed)


TASKS = (Task("autoencoder", "autoencoder", build, 400, CENTRE, needs=("mnist",)),)
