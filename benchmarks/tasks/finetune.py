"""A convolutional net that knows the digits 0-4 of MNIST learns 5-9; ``old_error`` is what it forgets."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.data import Parts
from benchmarks.tasks.common.pretrained import pretrained
from benchmarks.tasks.common.rows import SCORED, classification, score_labels
from benchmarks.tasks.common.task import Problem, Score, Task
from benchmarks.tasks.mnist_conv import net

CENTRE = {"SGD": -0.7, "momentum": -1.5, "AdamW": -2.0}


@functools.cache
def digits(wanted: Callable[[Tensor], Tensor]) -> Parts:
    return {name: (x[wanted(y)], y[wanted(y)]) for name, (x, y) in data.mnist().items()}


def old(y: Tensor) -> Tensor:
    return y < 5


def new(y: Tensor) -> Tensor:
    return y >= 5


def before(seed: int) -> Problem:
    return classification(net, digits(old), 64, seed)


@functools.cache
def base() -> dict[str, Tensor]:
    return pretrained("digits", before, 300, 1e-2, net)


def start() -> nn.Module:
    model = net()
    model.load_state_dict(base())
    return model


def build(seed: int) -> Problem:
    base()
    problem = classification(start, digits(new), 64, seed)
    on_new = problem.evaluate

    def evaluate(model: nn.Module, part: str) -> Score:
        x, y = digits(old)[part]
        return {**on_new(model, part), "old_error": score_labels(model, (x[:SCORED], y[:SCORED]))["error"]}

    problem.evaluate = evaluate
    return problem


TASKS = (Task("finetune", "finetune", build, 200, CENTRE, "fine-tuning", ("mnist",)),)
