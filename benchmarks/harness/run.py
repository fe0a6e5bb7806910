"""What a run is, and the line that is kept of it."""

from __future__ import annotations

import functools
import json
import platform
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

import glyder
from benchmarks.harness.recipe import RECIPE, ours
from benchmarks.tasks.common.catalogue import tasks

TUNING_SEEDS = (101, 102, 103)
"""What is chosen, is chosen on these."""

EVALUATION_SEEDS = (1, 2, 3)
"""What was chosen is compared on these; only they are scored on the test part."""

Record = dict[str, Any]


class Identified(Protocol):
    """Something that can be run."""

    @property
    def key(self) -> str:
        """What makes two runs the same run."""

    @property
    def identity(self) -> Record:
        """What the line says of it, the key among that."""


@dataclass(frozen=True)
class Run:
    """A task, an optimizer, a method with its ``options``, a seed."""

    task: str
    optimizer: str
    method: str
    seed: int
    options: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def key(self) -> str:
        """Where GlyderLR sets the rates, the recipe is part of it."""
        parts: list[Any] = [self.task, self.optimizer, self.method, self.seed, self.options]
        return json.dumps([*parts, RECIPE] if ours(self.method) else parts, sort_keys=True)

    @property
    def identity(self) -> Record:
        return {
            "key": self.key, "cell": self.task, "optimizer": self.optimizer, "method": self.method, "seed": self.seed,
            "options": self.options, "steps": tasks()[self.task].steps, "recipe": RECIPE,
        }  # fmt: skip


AnyRun = TypeVar("AnyRun", bound=Identified)


def recorded(run: AnyRun, does: Callable[[AnyRun], Record]) -> Record:
    """The line of a run: what it is, where it ran, and what ``does``, on one thread, makes of it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run.identity | {"environment": environment()} | does(run)
    finally:
        torch.set_num_threads(threads)


@functools.cache
def environment() -> Record:
    """Versions, machine and commit."""
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "glyder": glyder.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": _processor(),
        "commit": git.stdout.strip() or "unknown",
    }


def _processor() -> str:
    """What the operating system calls it."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"
