"""A task is what a benchmark runs on: data, model, loss, batch, length and metric. A problem is one seed of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.tasks.common import data
from benchmarks.tasks.common.problem import Problem


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
