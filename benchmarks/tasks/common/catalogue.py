"""All tasks, by name."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

from benchmarks.tasks.common.task import Task


@functools.cache
def tasks() -> dict[str, Task]:
    """In the order of the files in ``tasks/``, each of which lists its own in ``TASKS``."""
    found: dict[str, Task] = {}
    for module in sorted(path.stem for path in Path(__file__).parents[1].glob("*.py")):
        for task in importlib.import_module(f"benchmarks.tasks.{module}").TASKS:
            if task.name in found:
                raise ValueError(f"two tasks are called {task.name}")
            found[task.name] = task
    return found
