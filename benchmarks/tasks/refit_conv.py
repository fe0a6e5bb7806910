"""A convolutional net with BatchNorm, partly trained on half of CIFAR-10, is fitted again: to that half, and to all."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from benchmarks.tasks.cifar_wrn import augmented
from benchmarks.tasks.common import data
from benchmarks.tasks.common.pretrained import pretrained
from benchmarks.tasks.common.rows import classification
from benchmarks.tasks.common.task import Problem, Task

CENTRE = {"SGD": 0.5, "momentum": -0.5, "AdamW": -2.0}


def net() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 16, 2), (16, 32, 1), (32, 64, 2), (64, 64, 2)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def fitted(model: Callable[[], nn.Module], share: float, seed: int) -> Problem:
    x, y = data.cifar()["train"]
    part = x[: int(share * len(y))], y[: int(share * len(y))]
    problem = classification(model, {**data.cifar(), "train": part}, 64, seed)
    return dataclasses.replace(problem, batches=augmented(*part, 64, seed))


def before(seed: int) -> Problem:
    return fitted(net, 0.5, seed)


@functools.cache
def base() -> dict[str, Tensor]:
    return pretrained("cifar-half", before, 200, 1e-2, net, fitted, augmented)


def start() -> nn.Module:
    model = net()
    model.load_state_dict(base())
    return model


def build(seed: int, share: float) -> Problem:
    base()
    return fitted(start, share, seed)


def task(suffix: str, share: float, stretch: str) -> Task:
    made = partial(build, share=share)
    return Task("refit-conv" + suffix, "refit-conv", made, 400, CENTRE, stretch, ("cifar",), held_out=True)


TASKS = (task("-same", 0.5, "fitted before"), task("-new", 1.0, "fitted before to half of the data"))
