"""Logistic regression on a9a: convex."""

from __future__ import annotations

from functools import partial

from torch import nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.rows import classification
from benchmarks.tasks.common.task import Problem, Task

CENTRE = {"SGD": -0.5, "momentum": -1.5, "AdamW": -2.0}


def build(seed: int) -> Problem:
    return classification(partial(nn.Linear, 123, 2), data.libsvm("a9a"), 64, seed)


TASKS = (Task("a9a", "a9a", build, 1000, CENTRE, "convex", ("a9a",), suites=("quick", "full")),)
