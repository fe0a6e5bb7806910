"""An MLP that was fitted to half of ijcnn1 once, or four times, each to a rate of zero, is fitted once more.

To the same half or to the other. Its starting weights are the same for every seed.
"""

from __future__ import annotations

import functools
from functools import partial

from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.data import Parts
from benchmarks.tasks.common.pretrained import SEED, trained
from benchmarks.tasks.common.rows import classification
from benchmarks.tasks.common.task import Problem, Task

CENTRE = {"SGD": -1.0, "momentum": -2.0, "AdamW": -2.5}
STEPS = 300
PEAKS = (1e-2, 1e-2, 3e-3, 3e-3)
"""Of the fits before, each at or next to its best half-decade, within 3 % of its loss."""


@functools.cache
def half(new: bool) -> Parts:
    parts = data.libsvm("ijcnn1")
    x, y = parts["train"]
    middle = len(y) // 2
    return {**parts, "train": (x[middle:], y[middle:]) if new else (x[:middle], y[:middle])}


def net(width: int = 128) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs in (22, width):
        layers += [nn.Linear(inputs, width), nn.LayerNorm(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 2))


def build(times: int, new: bool, seed: int) -> Problem:
    """The fit after ``times`` others."""
    start = fitted(times) if times else None
    problem = classification(net, half(new), 64, seed)
    if start:
        problem.model.load_state_dict(start)
    return problem


@functools.cache
def fitted(times: int) -> dict[str, Tensor]:
    """State after ``times`` fits, each by AdamW whose rate falls to zero as a line."""
    return trained(build(times - 1, False, SEED + times), STEPS, PEAKS[times - 1], linear=True)


def task(suffix: str, times: int, new: bool, stretch: str) -> Task:
    return Task("refit-rows" + suffix, "refit-rows", partial(build, times, new), STEPS, CENTRE, stretch, ("ijcnn1",))


TASKS = (
    task("-2", 1, False, "second fit"),
    task("-5", 4, False, "fifth fit"),
    task("-new", 1, True, "second fit, new rows"),
)
