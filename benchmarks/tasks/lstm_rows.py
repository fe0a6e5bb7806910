"""LSTM over the 28 rows of an MNIST image."""

from __future__ import annotations

from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.rows import classification
from benchmarks.tasks.common.task import Problem, Task

CENTRE = {"SGD": 0.0, "momentum": -1.0, "AdamW": -2.0}


class Rows(nn.Module):
    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(28, hidden, batch_first=True), nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.squeeze(1))[0][:, -1])


def build(seed: int) -> Problem:
    return classification(Rows, data.mnist(), 64, seed)


TASKS = (Task("mnist-lstm", "mnist-lstm", build, 300, CENTRE, needs=("mnist",)),)
