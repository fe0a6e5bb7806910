"""Strings of 3 to 5 MNIST digits side by side, read without their places: convolutions, bidirectional GRU and CTC.

``digit_error`` is the edit distance to the true string in digits, as a share of its length.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.task import Problem, Score, Task, evaluating, seeded

CENTRE = {"SGD": -1.0, "momentum": -1.5, "AdamW": -1.5}
SHORTEST, LONGEST = 3, 5
SCORED = 500
"""Strings of a part that its loss is taken on."""


class Strings(NamedTuple):
    """Images [n, 1, 14, 70], digits [n, 5] from 1 to 10 (0 is the blank) and how many they are [n]; the rest is 0."""

    images: Tensor
    digits: Tensor
    lengths: Tensor


@functools.cache
def halved(part: str) -> tuple[Tensor, Tensor]:
    """Images [n, 14, 14] and labels."""
    x, y = data.mnist()[part]
    return F.avg_pool2d(x, 2)[:, 0], y


def draw(part: str, count: int, generator: torch.Generator) -> Strings:
    x, y = halved(part)
    index = torch.randint(len(y), (count, LONGEST), generator=generator)
    lengths = torch.randint(SHORTEST, LONGEST + 1, (count,), generator=generator)
    there = torch.arange(LONGEST) < lengths[:, None]
    images = (x[index] * there[:, :, None, None]).transpose(1, 2).flatten(2)[:, None]
    return Strings(images, (y[index] + 1) * there, lengths)


class Reader(nn.Module):
    """Images [n, 1, 14, 70] to logits [35, n, 11], one for every two columns."""

    def __init__(self, hidden: int = 48) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, stride in ((1, 16, (2, 2)), (16, 32, (2, 1))):
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.look = nn.Sequential(*layers)
        self.gru, self.head = nn.GRU(32 * 4, hidden, bidirectional=True), nn.Linear(2 * hidden, 11)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(self.look(x).permute(3, 0, 1, 2).flatten(2))[0])


def connectionist(logits: Tensor, strings: Strings) -> Tensor:
    """Each string's loss over its length, as ``nn.CTCLoss`` means it; places after the string are read too."""
    places = torch.full_like(strings.lengths, len(logits))
    return F.ctc_loss(logits.log_softmax(-1), strings.digits, places, strings.lengths)


def loss(model: nn.Module, strings: Strings) -> Tensor:
    return connectionist(model(strings.images), strings)


@functools.cache
def fixed(part: str) -> Strings:
    return draw(part, SCORED, torch.Generator().manual_seed(0))


def evaluate(model: nn.Module, part: str) -> Score:
    strings = fixed(part)
    with evaluating(model):
        logits = model(strings.images)
    best = logits.argmax(-1).T.tolist()
    wrong = sum(
        distance(read(places), digits[:length])
        for places, digits, length in zip(best, strings.digits.tolist(), strings.lengths.tolist(), strict=True)
    )
    return {"loss": float(connectionist(logits, strings)), "digit_error": wrong / int(strings.lengths.sum())}


def read(places: list[int]) -> list[int]:
    """Repetitions merged, then blanks left out."""
    return [b for a, b in zip([0, *places], places, strict=False) if b not in (0, a)]


def distance(a: list[int], b: list[int]) -> int:
    """Of Levenshtein."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (x != y))
    return row[-1]


def batches(batch: int, seed: int) -> Iterator[Strings]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield draw("train", batch, generator)


def build(seed: int) -> Problem:
    return Problem(model=seeded(seed, Reader), loss=loss, batches=batches(32, seed), evaluate=evaluate)


TASKS = (Task("ctc", "ctc", build, 300, CENTRE, "CTC", ("mnist",), held_out=True),)
