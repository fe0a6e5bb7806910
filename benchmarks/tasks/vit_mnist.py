"""Vision transformer with a class token on MNIST, its digits shifted a little."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.rows import classification, score_labels
from benchmarks.tasks.common.task import Batch, Problem, Task, shuffled
from benchmarks.tasks.common.transformer import Block
from benchmarks.tasks.segmentation import crops

CENTRE = {"SGD": -0.5, "momentum": -2.0, "AdamW": -2.5}


class Vision(nn.Module):
    def __init__(self, patch: int = 7, width: int = 64, heads: int = 4, layers: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(width))
        self.place = nn.Parameter(torch.zeros((28 // patch) ** 2 + 1, width))
        nn.init.trunc_normal_(self.token, std=0.02)
        nn.init.trunc_normal_(self.place, std=0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(x), 1, -1), x), 1) + self.place
        return self.head(self.norm(self.blocks(x)[:, 0]))


def shifted(x: Tensor, y: Tensor, batch: int, seed: int, pad: int = 2) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed + 1_000_000)
    for index in shuffled(len(y), batch, seed):
        yield crops(F.pad(x[index], (pad,) * 4), 28, generator), y[index]


def build(seed: int) -> Problem:
    parts = data.mnist()
    scored = {name: (x[:2000], y[:2000]) for name, (x, y) in parts.items()}
    return dataclasses.replace(
        classification(Vision, parts, 64, seed),
        batches=shifted(*parts["train"], 64, seed),
        evaluate=lambda model, part: score_labels(model, scored[part]),
    )


TASKS = (
    Task(
        "vit-mnist", "vit-mnist", build, 350, CENTRE, "class token", ("mnist",), decay=0.05, transformer=True,
        held_out=True,
    ),
)  # fmt: skip
