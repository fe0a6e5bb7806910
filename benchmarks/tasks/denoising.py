"""Denoising diffusion (DDPM) on crops of CIFAR images: a small U-Net predicts the noise, squared error."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common.task import Batch, Problem, Score, Task, evaluating, seeded, shuffled
from benchmarks.tasks.segmentation import crops
from benchmarks.tasks.super_resolution import pixels

CENTRE = {"SGD": -1.0, "momentum": -1.0, "AdamW": -2.5}
SIZE = 16
SCORED = 1000
KEPT = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
"""The share of the signal that is left after so many steps of the diffusion."""


def noisy(x: Tensor, generator: torch.Generator) -> Batch:
    """Images under noise, the steps that brought them there, the noise."""
    time, noise = torch.randint(len(KEPT), (len(x),), generator=generator), torch.randn(x.shape, generator=generator)
    kept = KEPT[time, None, None, None]
    return kept.sqrt() * x + (1 - kept).sqrt() * noise, time, noise


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    return layer


def normed(width: int, layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), layer)


class Residual(nn.Module):
    """Two convolutions, the second of which starts at zero; between them the time is added."""

    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.first = normed(inputs, nn.Conv2d(inputs, outputs, 3, 1, 1))
        self.time = nn.Linear(time, outputs)
        self.second = normed(outputs, zero(nn.Conv2d(outputs, outputs, 3, 1, 1)))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.skip(x) + self.second(self.first(x) + self.time(time)[:, :, None, None])


class UNet(nn.Module):
    def __init__(self, width: int = 16, depth: int = 2, time: int = 64) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        pairs = list(itertools.pairwise(widths))
        self.frequencies = width
        self.time = nn.Sequential(nn.Linear(2 * width, time), nn.SiLU(), nn.Linear(time, time), nn.SiLU())
        self.first = nn.Conv2d(3, width, 3, 1, 1)
        self.read = nn.ModuleList(Residual(w, w, time) for w in widths)
        self.down = nn.ModuleList(nn.Conv2d(narrow, wide, 3, 2, 1) for narrow, wide in pairs)
        self.up = nn.ModuleList(nn.Conv2d(wide, narrow, 3, 1, 1) for narrow, wide in reversed(pairs))
        self.write = nn.ModuleList(Residual(2 * narrow, narrow, time) for narrow, _ in reversed(pairs))
        self.out = normed(width, zero(nn.Conv2d(width, 3, 3, 1, 1)))

    def embed(self, time: Tensor) -> Tensor:
        """Sines and cosines, as the places of the first transformer."""
        rates = torch.exp(-math.log(10_000) / self.frequencies * torch.arange(self.frequencies))
        angles = time[:, None] * rates
        return self.time(torch.cat((angles.sin(), angles.cos()), 1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        embedded = self.embed(time)
        levels = [self.read[0](self.first(x), embedded)]
        for down, read in zip(self.down, self.read[1:], strict=True):
            levels.append(read(down(levels[-1]), embedded))
        x = levels.pop()
        for up, write in zip(self.up, self.write, strict=True):
            x = up(F.interpolate(x, scale_factor=2.0))
            x = write(torch.cat((levels.pop(), x), 1), embedded)
        return self.out(x)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    x, time, noise = batch
    return F.mse_loss(model(x, time), noise)


@functools.cache
def scored(part: str) -> Batch:
    """Always the same crops, steps and noise."""
    generator = torch.Generator().manual_seed(0)
    return noisy(2 * crops(pixels()[part][:SCORED], SIZE, generator) - 1, generator)


def score(model: nn.Module, batch: Batch, rows: int = 100) -> Score:
    count = len(batch[0])
    with evaluating(model):
        chunks = zip(*(tensor.split(rows) for tensor in batch), strict=True)
        return {"loss": sum(float(loss(model, chunk)) * len(chunk[0]) for chunk in chunks) / count}


def batches(batch: int, seed: int) -> Iterator[Batch]:
    x, generator = pixels()["train"], torch.Generator().manual_seed(seed + 1_000_000)
    for index in shuffled(len(x), batch, seed):
        yield noisy(2 * crops(x[index], SIZE, generator) - 1, generator)


def build(seed: int) -> Problem:
    return Problem(seeded(seed, UNet), loss, batches(32, seed), lambda model, part: score(model, scored(part)))


TASKS = (Task("denoising", "denoising", build, 200, CENTRE, "diffusion", ("cifar",), held_out=True),)
