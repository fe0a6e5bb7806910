"""A small model, its optimizer and a LocalOptimumLR on both: what most tests of a whole scheduler start from."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

import glyder

from .problems import mlp

UPDATES = 40


def small_run(
    model: nn.Module | None = None, optimizer: Any = torch.optim.AdamW, **options: Any
) -> tuple[Any, Any, Any]:
    """(model, optimizer, scheduler), for ``UPDATES`` updates unless told otherwise."""
    model = mlp() if model is None else model
    o = optimizer(model.parameters())
    return model, o, glyder.LocalOptimumLR(o, model, **({"total_steps": UPDATES} | options))


def state_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state, copied."""
    return copy.deepcopy(optimizer.state_dict()["state"])
