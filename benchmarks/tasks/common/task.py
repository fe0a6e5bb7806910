"""A task is what a benchmark runs on: data, model, loss, batch, length, metric. A problem is one seed of it, built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.tasks.common import data

Batch = Any
Score = dict[str, float]


@dataclass
class Problem:
    """One seed of a task: fresh weights and a fixed order of the data.

    ``loss(model, batch)`` is what is trained, ``evaluate(model, part)`` the mean ``loss`` (and ``error``, where there
    is one) of the part ``"train"``, ``"validation"`` or ``"test"``, in evaluation mode. ``batches`` has no end.
    """

    model: nn.Module
    loss: Callable[[nn.Module, Batch], Tensor]
    batches: Iterator[Batch]
    evaluate: Callable[[nn.Module, str], Score]

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        return [p for p in self.model.parameters() if p.requires_grad]


@dataclass(frozen=True)
class Task:
    """A task at one length and batch, for every optimizer.

    ``family`` is what the bootstrap clusters by: tasks that share data and model share it. ``centre`` is where the
    grid of peaks starts, by optimizer, as log10 (the grid grows on its own while its best is at the edge).
    """

    name: str
    family: str
    build: Callable[[int], Problem]
    steps: int
    centre: Mapping[str, float]
    stretch: str = ""
    needs: tuple[str, ...] = ()
    clip: float | None = None
    decay: float | None = None  # AdamW's weight decay, of matrices alone; None: the optimizer's default
    transformer: bool = False
    held_out: bool = False
    apart: bool = False  # in no overall figure: every good rate overfits
    suites: tuple[str, ...] = ("full",)
    optimizers: tuple[str, ...] = ("SGD", "momentum", "AdamW")

    @property
    def group(self) -> str:
        """``"development"``, or what keeps it out of that: ``"held-out"``, ``"apart"``."""
        return "apart" if self.apart else "held-out" if self.held_out else "development"

    def missing(self) -> list[str]:
        """Data sets, and packages that carry some, that this task needs and this machine lacks."""
        return [name for name in self.needs if not data.present(name)]


def shuffled(count: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Indices of batches: shuffled epochs, one after the other, without end; a rest of an epoch is dropped."""
    if not 1 <= batch <= count:
        raise ValueError(f"batch must be in 1..{count}, got {batch}")
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count // batch * batch].split(batch)


def seeded(seed: int, model: Callable[[], nn.Module]) -> nn.Module:
    """A model whose initial weights depend on ``seed`` alone; what comes after (dropout) does too."""
    torch.manual_seed(seed)
    made = model()
    torch.manual_seed(seed + 10_000)
    return made.train()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; training goes on as before."""
    training = model.training
    model.eval()
    with torch.no_grad():
        yield
    model.train(training)
