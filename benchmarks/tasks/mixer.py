"""MLP-Mixer with LayerNorm and layer scale on CIFAR-10, label smoothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.task import Batch, Problem, Score, Task, evaluating, seeded, shuffled

CENTRE = {"SGD": 0.0, "momentum": -0.5, "AdamW": -1.5}
SCORED = 1000


def branch(width: int, inner: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))


class Mix(nn.Module):
    """Mixes places, then channels; each branch starts at 1e-4 of its size."""

    def __init__(self, places: int, width: int, scale: float = 1e-4) -> None:
        super().__init__()
        self.norm_places, self.norm_channels = nn.LayerNorm(width), nn.LayerNorm(width)
        self.places, self.channels = branch(places, places // 2), branch(width, 2 * width)
        self.scale_places = nn.Parameter(torch.full((width,), scale))
        self.scale_channels = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale_places * self.places(self.norm_places(x).transpose(1, 2)).transpose(1, 2)
        return x + self.scale_channels * self.channels(self.norm_channels(x))


class Mixer(nn.Module):
    def __init__(self, patch: int = 4, width: int = 48, layers: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.mix = nn.Sequential(*(Mix((32 // patch) ** 2, width) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.mix(self.patches(x).flatten(2).transpose(1, 2))).mean(1))


def loss(model: nn.Module, batch: Batch) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x), y, label_smoothing=0.1)


def score(model: nn.Module, x: Tensor, y: Tensor) -> Score:
    with evaluating(model):
        logits = model(x)
        return {
            "loss": float(F.cross_entropy(logits, y, label_smoothing=0.1)),
            "error": float((logits.argmax(1) != y).float().mean()),
        }


def build(seed: int) -> Problem:
    x, y = data.cifar()["train"]
    scored = {name: (x[:SCORED], y[:SCORED]) for name, (x, y) in data.cifar().items()}
    return Problem(
        model=seeded(seed, Mixer),
        loss=loss,
        batches=((x[i], y[i]) for i in shuffled(len(y), 128, seed)),
        evaluate=lambda model, part: score(model, *scored[part]),
    )


TASKS = (Task("mixer", "mixer", build, 150, CENTRE, "layer scale 1e-4, label smoothing", ("cifar",)),)
