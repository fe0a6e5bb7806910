"""Plain tanh MLP of 10 narrow layers, Xavier initialisation, on ijcnn1: first it learns only how many are positive."""

from __future__ import annotations

import itertools

from torch import nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.rows import classification
from benchmarks.tasks.common.task import Problem, Task

CENTRE = {"SGD": -0.5, "momentum": -1.0, "AdamW": -2.5}


def net(width: int = 32, hidden: int = 10) -> nn.Module:
    sizes = [22] + [width] * hidden
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    made = nn.Sequential(*layers, nn.Linear(width, 2))
    for layer in made:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return made


def build(seed: int) -> Problem:
    return classification(net, data.libsvm("ijcnn1"), 64, seed)


TASKS = (Task("deep-mlp", "deep-mlp", build, 1000, CENTRE, "10 layers, plain", ("ijcnn1",)),)
