"""A convolutional net with BatchNorm, partly trained on half of CIFAR-10, is fitted again: to that half, and to all."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from benchmarks.league import data
from benchmarks.league.pretrained import pretrained
from benchmarks.league.rows import classification
from benchmarks.league.workload import Cell, Task
from benchmarks.league.workloads.cifar_wrn import augmented

CENTRE = {"SGD": 0.5, "momentum": -0.5, "AdamW": -2.0}


def net() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 16, 2), (16, 32, 1), (32, 64, 2), (64, 64, 2)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def fitted(model: Callable[[], nn.Module], share: float, seed: int) -> Task:
    x, y = data.cifar()["train"]
    part = x[: int(share * len(y))], y[: int(share * len(y))]
    task = classification(model, {**data.cifar(), "train": part}, 64, seed)
    return dataclasses.replace(task, batches=augmented(*part, 64, seed))


def before(seed: int) -> Task:
    return fitted(net, 0.5, seed)


@functools.cache
def base() -> dict[str, Tensor]:
    return pretrained("cifar-half", before, 200, 1e-2, net, fitted, augmented)


def start() -> nn.Module:
    model = net()
    model.load_state_dict(base())
    return model


def build(seed: int, share: float) -> Task:
    base()
    return fitted(start, share, seed)


def cell(suffix: str, share: float, stretch: str) -> Cell:
    made = partial(build, share=share)
    return Cell("refit-conv" + suffix, "refit-conv", made, 400, CENTRE, stretch, ("cifar",), reserved=True)


CELLS = (
    cell("-same", 0.5, "fitted before"),
    cell("-new", 1.0, "fitted before to half of the data"),
)
