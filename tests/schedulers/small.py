"""A small model, its optimizer and a scheduler on both: what most tests of a whole scheduler start from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import glyder

from .problems import mlp, same, weights

UPDATES = 40

BOTH = pytest.mark.parametrize("make", [glyder.GlyderLR, glyder.LocalOptimumLR], ids=lambda cls: cls.__name__)
"""The two that set the rate of any optimizer: what is asked of the one is asked of the other."""

SEARCHED = pytest.mark.parametrize(
    "optimizer",
    [torch.optim.AdamW, lambda p: torch.optim.SGD(p, momentum=0.9, weight_decay=0.05)],
    ids=["adamw", "momentum"],
)
"""One optimizer for each of the two ways in which GlyderLR searches."""


def small_run(
    model: nn.Module | None = None,
    optimizer: Any = torch.optim.AdamW,
    make: Callable[..., Any] = glyder.LocalOptimumLR,
    **options: Any,
) -> tuple[Any, Any, Any]:
    """(model, optimizer, scheduler), for ``UPDATES`` updates unless told otherwise."""
    model = mlp() if model is None else model
    o = optimizer(model.parameters())
    return model, o, make(o, model, **({"total_steps": UPDATES} | options))


def state_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state, copied."""
    return copy.deepcopy(optimizer.state_dict()["state"])


class Counted:
    """The steps of a loop, and those among them that set the model back to where it began and are no updates."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.start, self.steps = model, weights(model), 0
        self.went_back: list[int] = []

    def around(self, step: Callable[[], Any]) -> None:
        step()
        if self.steps > 1 and same(weights(self.model), self.start):
            self.went_back.append(self.steps)
        self.steps += 1

    @property
    def updates(self) -> int:
        return self.steps - len(self.went_back)
