"""Embeddings of noisy MNIST digits by the triplet margin loss, as in FaceNet: like ones near, others further away.

``error`` is the share of triplets whose negative is nearer than the positive.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.task import Batch, Problem, Score, Task, evaluating, seeded

CENTRE = {"SGD": 0.0, "momentum": -1.0, "AdamW": -2.0}
MARGIN = 0.5
NOISE = 0.7
"""Of each pixel; without it the loss goes to zero."""
SCORED = 1000
"""Triplets of a part that its loss is taken on."""


@functools.cache
def by_digit(part: str) -> tuple[Tensor, list[Tensor]]:
    """Images, and the rows of each digit."""
    x, y = data.mnist()[part]
    return x, [(y == digit).nonzero()[:, 0] for digit in range(10)]


def triplets(part: str, count: int, generator: torch.Generator) -> Batch:
    """Anchor, another of its digit, one of another digit: [3 · count, 1, 28, 28]."""
    x, rows = by_digit(part)

    def some(digits: Tensor) -> Tensor:
        places = torch.rand(count, generator=generator)
        return torch.stack([rows[d][int(p * len(rows[d]))] for d, p in zip(digits.tolist(), places, strict=True)])

    digits = torch.randint(10, (count,), generator=generator)
    others = (digits + torch.randint(1, 10, (count,), generator=generator)) % 10
    images = x[torch.cat([some(digits), some(digits), some(others)])]
    return images + NOISE * torch.randn(images.shape, generator=generator)


def net(outputs: int = 32) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, channels in ((1, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(inputs, channels, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4 * 4, outputs))


def embedded(model: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """Of anchors, positives and negatives, each of length 1."""
    return F.normalize(model(images)).chunk(3)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.triplet_margin_loss(*embedded(model, batch), margin=MARGIN)


@functools.cache
def fixed(part: str) -> Tensor:
    return triplets(part, SCORED, torch.Generator().manual_seed(0))


def evaluate(model: nn.Module, part: str) -> Score:
    with evaluating(model):
        anchor, positive, negative = embedded(model, fixed(part))
    near, far = (anchor - positive).norm(dim=1), (anchor - negative).norm(dim=1)
    return {
        "loss": float(F.triplet_margin_loss(anchor, positive, negative, margin=MARGIN)),
        "error": float((far < near).float().mean()),
    }


def batches(batch: int, seed: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield triplets("train", batch, generator)


def build(seed: int) -> Problem:
    return Problem(model=seeded(seed, net), loss=loss, batches=batches(32, seed), evaluate=evaluate)


TASKS = (Task("siamese", "siamese", build, 400, CENTRE, "triplets", ("mnist",)),)
