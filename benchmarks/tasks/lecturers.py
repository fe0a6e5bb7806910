"""Ratings of lecturers from embedded categories, student and lecturer among them, on InstEval."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.data import Parts
from benchmarks.tasks.common.rows import classification
from benchmarks.tasks.common.task import Problem, Task

CENTRE = {"SGD": 0.5, "momentum": -0.5, "AdamW": -1.6}
CATEGORIES = {"s": 2972, "d": 1128, "dept": 14}
NUMBERS = ("studage", "lectage", "service")


@functools.cache
def ratings() -> Parts:
    """Numbered student, lecturer and department, then standardised numbers [n, 6], and the rating, 0 to 4."""
    table = data.packaged("InstEval")
    categories = np.stack([table[name].factorize(sort=True)[0] for name in CATEGORIES], 1)
    numbers = table[list(NUMBERS)].to_numpy(float)
    x = torch.from_numpy(np.concatenate((categories, (numbers - numbers.mean(0)) / numbers.std(0)), 1)).float()
    y = torch.from_numpy(table["y"].to_numpy() - 1).long()
    indices = data.split(len(y), len(y) - 10_000, 5000, 5000)
    return {name: (x[i], y[i]) for name, i in zip(("train", "validation", "test"), indices, strict=True)}


class Rating(nn.Module):
    """Vectors of the categories beside the numbers, one hidden layer."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Embedding(count, width) for count in CATEGORIES.values())
        inputs = len(CATEGORIES) * width + len(NUMBERS)
        self.layers = nn.Sequential(nn.Linear(inputs, 100), nn.ReLU(), nn.Linear(100, 5))

    def forward(self, x: Tensor) -> Tensor:
        categories, numbers = x[:, : len(CATEGORIES)].long(), x[:, len(CATEGORIES) :]
        vectors = [embed(categories[:, i]) for i, embed in enumerate(self.embed)]
        return self.layers(torch.cat((*vectors, numbers), 1))


def build(seed: int) -> Problem:
    return classification(Rating, ratings(), 128, seed)


TASKS = (Task("lecturers", "lecturers", build, 480, CENTRE, needs=("pydataset",), held_out=True),)
