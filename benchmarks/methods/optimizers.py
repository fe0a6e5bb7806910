"""The optimizers, each from its rate alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

from benchmarks.tasks.common.task import Problem

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "SGD": torch.optim.SGD,
    "momentum": functools.partial(torch.optim.SGD, momentum=0.9),
    "AdamW": torch.optim.AdamW,
}


def make(optimizer: str, problem: Problem, lr: float, decay: float | None = None) -> Optimizer:
    """``decay`` is AdamW's weight decay of matrices, other parameters get none; None leaves what the optimizer has.

    SGD has none: at its rates, ten to a hundred times AdamW's, what people give AdamW would eat the weights.
    """
    params: list[Any] = problem.trained
    if decay is not None and optimizer == "AdamW":
        matrices, rest = [p for p in params if p.ndim >= 2], [p for p in params if p.ndim < 2]
        params = [{"params": matrices, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    return OPTIMIZERS[optimizer](params, lr=lr)
