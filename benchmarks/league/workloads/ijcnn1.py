"""Tanh MLP 22-64-64-2 on ijcnn1, of which a tenth is positive."""

from __future__ import annotations

from torch import nn

from benchmarks.league import data
from benchmarks.league.rows import classification
from benchmarks.league.workload import Cell, Task

CENTRE = {"SGD": 0.0, "momentum": -1.0, "AdamW": -2.3}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(22, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))


def build(seed: int) -> Task:
    return classification(net, data.libsvm("ijcnn1"), 64, seed)


CELLS = (Cell("ijcnn1", "ijcnn1", build, 1000, CENTRE, "unbalanced classes", ("ijcnn1",)),)
