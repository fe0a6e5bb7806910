"""Ill-conditioned matrix factorisation, as in Vaswani et al. 2019: E‖W2 W1 x − A x‖², A 10 × 6 of condition 1e10.

The targets that it trains on are noisy, those it is scored on are not: without noise runs reach 1e-6 to 1e-10, and a
ratio of such losses says nothing.
"""

from __future__ import annotations

import functools

import torch
from torch import nn

from benchmarks.tasks.common.data import Parts
from benchmarks.tasks.common.rows import regression
from benchmarks.tasks.common.task import Problem, Task

CENTRE = {"SGD": 0.0, "momentum": -1.0, "AdamW": -2.0}


@functools.cache
def points(condition: float = 1e10, noise: float = 0.1) -> Parts:
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(rows, 6, generator=generator, dtype=torch.float64))[0] for rows in (10, 6)
    )
    A = left * condition ** -torch.linspace(0, 1, 6, dtype=torch.float64) @ right.T
    drawn = {name: torch.randn(1000, 6, generator=generator) for name in ("train", "validation", "test")}
    parts = {name: (x, (x.double() @ A.T).float()) for name, x in drawn.items()}
    x, y = parts["train"]
    return parts | {"train": (x, y + noise * torch.randn(y.shape, generator=generator))}


def net(rank: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(6, rank, bias=False), nn.Linear(rank, 10, bias=False))


def build(seed: int) -> Problem:
    return regression(net, points(), 32, seed)


TASKS = (Task("factorisation", "factorisation", build, 1000, CENTRE, "condition 1e10"),)
