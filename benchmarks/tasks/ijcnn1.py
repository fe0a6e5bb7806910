"""Tanh MLP 22-64-64-2 on ijcnn1, of which a tenth is positive."""

from __future__ import annotations

from torch import nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.rows import classification
from benchmarks.tasks.common.task import Problem, Task

CENTRE = {"SGD": 0.0, "momentum": -1.0, "AdamW": -2.3}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(22, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))


def build(seed: int) -> Problem:
    return classification(net, data.libsvm("ijcnn1"), 64, seed)


TASKS = (Task("ijcnn1", "ijcnn1", build, 1000, CENTRE, "unbalanced classes", ("ijcnn1",)),)
