"""Super-resolution of CIFAR images by 2, after EDSR: absolute error, and squared error."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.data import Parts
from benchmarks.tasks.common.task import Batch, Problem, Score, Task, evaluating, seeded, shuffled

ABSOLUTE = {"SGD": -0.5, "momentum": -1.0, "AdamW": -2.0}
SQUARED = {"SGD": -0.5, "momentum": -1.0, "AdamW": -2.0}
SCORED = 500

Loss = Callable[[Tensor, Tensor], Tensor]


@functools.cache
def pixels() -> dict[str, Tensor]:
    """CIFAR images [n, 3, 32, 32] in 0..1; each channel has its 0 and its 1 in the training part."""
    parts = data.cifar()
    low, high = parts["train"][0].amin((0, 2, 3), keepdim=True), parts["train"][0].amax((0, 2, 3), keepdim=True)
    return {name: (x - low) / (high - low) for name, (x, _) in parts.items()}


@functools.cache
def halved() -> Parts:
    """Images of half the size, each pixel a mean of four, and the images."""
    return {name: (F.avg_pool2d(x, 2), x) for name, x in pixels().items()}


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Enlarge(nn.Module):
    def __init__(self, width: int = 16, blocks: int = 4) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, 1, 1)
        self.body = nn.Sequential(*(Residual(width) for _ in range(blocks)), nn.Conv2d(width, width, 3, 1, 1))
        self.tail = nn.Sequential(
            nn.Conv2d(width, 4 * width, 3, 1, 1), nn.PixelShuffle(2), nn.Conv2d(width, 3, 3, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        return self.tail(x + self.body(x))


def score(model: nn.Module, loss: Loss, small: Tensor, large: Tensor, rows: int = 100) -> Score:
    with evaluating(model):
        chunks = zip(small.split(rows), large.split(rows), strict=True)
        total = sum(float(loss(model(x), y)) * len(x) for x, y in chunks)
    return {"loss": total / len(small)}


def build(loss: Loss, seed: int, batch: int = 16) -> Problem:
    def trained(model: nn.Module, batch: Batch) -> Tensor:
        x, y = batch
        return loss(model(x), y)

    small, large = halved()["train"]
    scored = {name: (small[:SCORED], large[:SCORED]) for name, (small, large) in halved().items()}
    return Problem(
        model=seeded(seed, Enlarge),
        loss=trained,
        batches=((small[i], large[i]) for i in shuffled(len(small), batch, seed)),
        evaluate=lambda model, part: score(model, loss, *scored[part]),
    )


TASKS = (
    Task(
        "super-resolution", "super-resolution", partial(build, F.l1_loss), 400, ABSOLUTE, "absolute error", ("cifar",)
    ),
    Task("super-resolution-squared", "super-resolution", partial(build, F.mse_loss), 400, SQUARED, needs=("cifar",)),
)
