"""Variational autoencoder on MNIST, after torch's example: cross-entropy summed over the pixels, and divergence."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.task import Batch, Problem, Score, Task, evaluating, seeded, shuffled

CENTRE = {"SGD": -1.5, "momentum": -2.0, "AdamW": -2.0}
CODE = 20
SCORED = 2000


class Variational(nn.Module):
    """Images [n, 784] and standard normal noise [n, code] to logits, means and logarithms of variances."""

    def __init__(self, hidden: int = 400) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, 2 * CODE))
        self.decode = nn.Sequential(nn.Linear(CODE, hidden), nn.ReLU(), nn.Linear(hidden, 784))

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, spread = self.encode(x).chunk(2, 1)
        return self.decode(mean + torch.exp(0.5 * spread) * noise), mean, spread


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """The negative evidence bound, a mean over images."""
    x, noise = batch
    logits, mean, spread = model(x, noise)
    entropy = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    divergence = -0.5 * torch.sum(1 + spread - mean.square() - spread.exp())
    return (entropy + divergence) / len(x)


def score(model: nn.Module, x: Tensor) -> Score:
    """The noise is always the same."""
    noise = torch.randn(len(x), CODE, generator=torch.Generator().manual_seed(0))
    with evaluating(model):
        return {"loss": float(loss(model, (x, noise)))}


def batches(x: Tensor, batch: int, seed: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed + 1_000_000)
    for index in shuffled(len(x), batch, seed):
        yield x[index], torch.randn(batch, CODE, generator=generator)


def build(seed: int) -> Problem:
    images = {name: x.flatten(1) for name, (x, _) in data.mnist().items()}
    return Problem(
        model=seeded(seed, Variational),
        loss=loss,
        batches=batches(images["train"], 128, seed),
        evaluate=lambda model, part: score(model, images[part][:SCORED]),
    )


TASKS = (Task("vae", "vae", build, 600, CENTRE, "loss around 100", ("mnist",), held_out=True),)
