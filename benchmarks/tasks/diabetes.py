"""Small tanh MLP on scikit-learn's diabetes, squared error."""

from __future__ import annotations

from torch import nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.rows import regression
from benchmarks.tasks.common.task import Problem, Task

CENTRE = {"SGD": -1.0, "momentum": -2.0, "AdamW": -2.5}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))


def build(seed: int) -> Problem:
    return regression(net, data.diabetes(), 32, seed)


TASKS = (Task("diabetes", "diabetes", build, 400, CENTRE, apart=True),)
