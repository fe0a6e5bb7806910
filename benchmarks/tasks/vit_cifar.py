"""Small vision transformer on CIFAR-10."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.rows import classification, score_labels
from benchmarks.tasks.common.task import Problem, Task
from benchmarks.tasks.common.transformer import Block, initialise

CENTRE = {"SGD": -0.5, "momentum": -1.2, "AdamW": -2.5}


class Vision(nn.Module):
    def __init__(self, patch: int = 4, width: int = 64, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.place = nn.Parameter(0.02 * torch.randn((32 // patch) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.patches(x).flatten(2).transpose(1, 2) + self.place)
        return self.head(self.norm(x).mean(1))


def build(seed: int) -> Problem:
    problem = classification(Vision, data.cifar(), 64, seed)
    scored = {name: (x[:2000], y[:2000]) for name, (x, y) in data.cifar().items()}
    return dataclasses.replace(problem, evaluate=lambda model, part: score_labels(model, scored[part]))


TASKS = (Task("vit-cifar", "vit-cifar", build, 250, CENTRE, needs=("cifar",), transformer=True),)
