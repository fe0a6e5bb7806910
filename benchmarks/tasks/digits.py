"""MLP 64-64-64-10 and convolutional net with BatchNorm on scikit-learn's digits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.rows import classification
from benchmarks.tasks.common.task import Problem, Task

CENTRE = {"SGD": -0.5, "momentum": -1.5, "AdamW": -2.3}


def mlp() -> nn.Module:
    layers = nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    return nn.Sequential(nn.Flatten(), *layers)


def conv() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((1, 16, 1), (16, 32, 2)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4 * 4, 10))


def build(model: Callable[[], nn.Module], seed: int, batch: int = 32) -> Problem:
    return classification(model, data.digits(), batch, seed)


TASKS = (
    Task("digits-mlp", "digits-mlp", partial(build, mlp), 600, CENTRE, suites=("smoke", "quick", "full")),
    Task("digits-mlp-t30", "digits-mlp", partial(build, mlp, batch=128), 30, CENTRE, "30 updates"),
    Task("digits-conv", "digits-conv", partial(build, conv), 400, CENTRE),
)
