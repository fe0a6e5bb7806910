"""What a workload is: a cell fixes data, model, loss, batch, length and metric; a task is one seed of it."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.league import data

Batch = Any
Score = dict[str, float]


@dataclass
class Task:
    """One seed of a workload: fresh weights, a fixed order of the data.

    ``loss(model, batch)`` is what is trained, ``evaluate(model, part)`` the mean ``loss`` (and ``error``, where there
    is one) of the part ``"train"``, ``"validation"`` or ``"test"``, in evaluation mode. ``batches`` has no end.
    """

    model: nn.Module
    loss: Callable[[nn.Module, Batch], Tensor]
    batches: Iterator[Batch]
    evaluate: Callable[[nn.Module, str], Score]


@dataclass(frozen=True)
class Cell:
    """A workload at one length and batch, for every optimizer.

    ``workload`` is what the bootstrap clusters by: cells that share data and model share it. ``centre`` is where the
    grid of peaks starts, by optimizer, as log10 (the grid grows on its own while its best is at the edge).
    """

    name: str
    workload: str
    build: Callable[[int], Task]
    steps: int
    centre: Mapping[str, float]
    stretch: str = ""
    needs: tuple[str, ...] = ()
    clip: float | None = None
    decay: float | None = None  # AdamW's weight decay, of matrices alone; None: the optimizer's default
    squared: bool = False  # the loss is a mean squared error over all outputs
    transformer: bool = False
    reserved: bool = False
    apart: bool = False  # in no overall figure: every good rate overfits
    suites: tuple[str, ...] = ("full",)
    optimizers: tuple[str, ...] = ("SGD", "momentum", "AdamW")

    @property
    def group(self) -> str:
        """``"development"``, or what keeps it out of that: ``"reserved"``, ``"apart"``."""
        return "apart" if self.apart else "reserved" if self.reserved else "development"

    def missing(self) -> list[str]:
        """Data sets, and packages that carry some, that this cell needs and this machine lacks."""
        return [name for name in self.needs if not data.present(name)]


@functools.cache
def cells() -> dict[str, Cell]:
    """All cells, by name, in the order of the files in ``workloads/``."""
    found: dict[str, Cell] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent / "workloads")])):
        for cell in importlib.import_module(f"benchmarks.league.workloads.{module}").CELLS:
            if cell.name in found:
                raise ValueError(f"two cells are called {cell.name}")
            found[cell.name] = cell
    return found


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
