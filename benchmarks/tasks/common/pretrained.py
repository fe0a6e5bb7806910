"""Weights that a family starts from: trained once by a fixed recipe, then kept in the temporary folder."""

from __future__ import annotations

import hashlib
import inspect
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.tasks.common.task import Problem

SEED = 77


def trained(problem: Problem, steps: int, peak: float, *, linear: bool = False) -> dict[str, Tensor]:
    """By AdamW under a cosine, or a line, to zero."""
    optimizer = torch.optim.AdamW(problem.model.parameters(), lr=peak)
    schedules = torch.optim.lr_scheduler
    schedule: Any = (
        schedules.LinearLR(optimizer, 1.0, 0.0, steps) if linear else schedules.CosineAnnealingLR(optimizer, steps)
    )
    for _ in range(steps):
        optimizer.zero_grad()
        problem.loss(problem.model, next(problem.batches)).backward()
        optimizer.step()
        schedule.step()
    return problem.model.state_dict()


def pretrained(name: str, build: Callable[[int], Problem], steps: int, peak: float, *sources: Any) -> dict[str, Tensor]:
    """State of the model of ``build`` after training; made anew once the code of ``build`` or ``sources`` changes."""
    code = [inspect.getsource(source) for source in (trained, build, *sources)]
    key = hashlib.sha256(repr((steps, peak, SEED, torch.__version__, code)).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / "glyder-benchmarks" / f"{name}-{key}.pt"
    if path.exists():
        return torch.load(path, weights_only=True)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        state = trained(build(SEED), steps, peak)
    path.parent.mkdir(exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        torch.save(state, file)
    os.replace(partial, path)
    return state
