"""Small tanh MLP on scikit-learn's diabetes, squared error."""

from __future__ import annotations

from torch import nn

from benchmarks.league import data
from benchmarks.league.rows import regression
from benchmarks.league.workload import Cell, Task

CENTRE = {"SGD": -1.0, "momentum": -2.0, "AdamW": -2.5}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))


def build(seed: int) -> Task:
    return regression(net, data.diabetes(), 32, seed)


CELLS = (Cell("diabetes", "diabetes", build, 400, CENTRE, squared=True, apart=True),)
